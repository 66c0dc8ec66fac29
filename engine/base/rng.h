/* Counter-based randomness: Philox4x32-10 (Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3").
 * A draw is a pure function of its key and counter, so it does not depend on what else runs. Any thread. */
#ifndef QN_BASE_RNG_H
#define QN_BASE_RNG_H

#include <stdint.h>

void qn_philox4x32(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4]);

/* Uniform in [0, 1) with 24 bits; one value for each (seed, branch, position, lane). */
float qn_rng_uniform(uint64_t seed, uint32_t branch, uint32_t position, uint32_t lane);

/* Fills p with n bytes from the kernel's generator. Returns 0 or QN_E_IO. */
int qn_rng_bytes(void *p, unsigned n);

#endif
