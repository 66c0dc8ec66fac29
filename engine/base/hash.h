/* SipHash-2-4 (Aumasson and Bernstein, 2012) with 64-bit output: keyed, so that nobody outside can steer a table or a
 * cache. Checked against the reference vectors. Any thread. */
#ifndef QN_BASE_HASH_H
#define QN_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t qn_siphash(const uint64_t key[2], const void *p, size_t n);

#endif
