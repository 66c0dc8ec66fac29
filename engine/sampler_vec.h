/* Passes over a row of logits, 16 lanes at a time, one variant for each instruction set, chosen at start.
 *
 * Every variant computes the same bits: the same operations on the same 16 lanes in the same order, products and sums
 * never fused. NaN counts as -inf, +inf as the largest float. Pure functions; any thread. */
#ifndef QN_SAMPLER_VEC_H
#define QN_SAMPLER_VEC_H

#include <stdint.h>

enum { QN_VEC_GROUP = 64, QN_VEC_CHUNK = 1024, QN_VEC_BANDS = 8 };
#define QN_VEC_GROUPS(n) (((n) + QN_VEC_GROUP - 1) / QN_VEC_GROUP)
#define QN_VEC_CHUNKS(n) (((n) + QN_VEC_CHUNK - 1) / QN_VEC_CHUNK)

extern const float qn_vec_bands[QN_VEC_BANDS]; /* descending */

struct qn_vec_ops {
    const char *name;
    /* The greatest of x[0..n), -inf if there is none; and of each group of 64. */
    float (*max)(const float *x, uint32_t n, float *groups);
    /* out[i] = exp((x[i] - max) * inv_t): 0 below e^-86, error under 2 units in the last place. x <= max. */
    void (*exp)(const float *x, uint32_t n, float max, float inv_t, float *out);
    /* The sums of those for each chunk of 1024, and over all. */
    double (*sum_exp)(const float *x, uint32_t n, float max, float inv_t, double *chunks);
    /* The sum over all, and of those that are at least qn_vec_bands[b]. */
    double (*bands)(const float *x, uint32_t n, float max, float inv_t, double above[QN_VEC_BANDS]);
    /* How many stand before entry (v, id): greater, or equal with a lower index. */
    uint32_t (*rank)(const float *x, uint32_t n, float v, uint32_t id);
};

/* The best variant that this machine runs; `isa` "generic", "avx2", "avx512" forces one (NULL when it cannot run). */
const struct qn_vec_ops *qn_vec_ops(const char *isa);

/* Natural logarithm of v > 0, within 1e-14, without libm (whose last bit may depend on the machine). */
double qn_vec_log(double v);
/* e^v within 2e-15 of itself for -700 < v < 700; 0 below, the value at 700 above. For the same reason. */
double qn_vec_exp_double(double v);

#endif
