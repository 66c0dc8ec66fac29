/* What the kernels of sampling share: scratch, the row of a pick, the exponential and logarithm of engine/sampler_vec.c operation by
 * operation (its bits, hence the intrinsics that are never fused), and the order of entries as an integer. */
#ifndef QN_CUDA_SAMPLE_CUH
#define QN_CUDA_SAMPLE_CUH

#include <float.h>
#include <math.h>

#include "engine/cuda/portable.cuh"
#include "engine/cuda/sample.h"

#define QN_ALL_LANES 0xffffffffu

/* A chunk of the vocabulary is a warp's or a block's work, and what float sums are made of; VOCAB_MAX / CHUNK bounds shared memory. */
enum { SAMPLE_CHUNK = 1024, SAMPLE_BANDS = 8, SAMPLE_SUMS = SAMPLE_BANDS + 2, SAMPLE_CHUNKS_MAX = QN_CUDA_VOCAB_MAX / SAMPLE_CHUNK };
enum { SUM_ALL = 0, SUM_ABOVE = 1, SUM_LOGPROBS = 1 + SAMPLE_BANDS }; /* of a chunk: all, above each band, all of the logits as they are */
#define TEMPERATURE_LEAST 1e-5f
QN_CONST_TABLE float bands[SAMPLE_BANDS] = {0.3f, 0.1f, 0.03f, 0.01f, 2e-3f, 2e-4f, 1e-5f, 1e-7f}; /* qn_vec_bands */

struct sample_args {
    qn_cuda_sampling s;
    float *work;            /* [picks_max][work_stride]: rows with edits */
    float *chunk_max;       /* [picks_max][2][n_chunks]: as edited, as given; numbers only, infinity as the largest */
    double *sums;           /* [picks_max][SAMPLE_SUMS][n_chunks] */
    int32_t n_chunks, work_stride;
};

struct sample_row {
    const float *x;
    int n, aligned;         /* 16-byte loads are possible */
};

QN_DEVICE int has_penalties(const qn_cuda_pick &p) { return p.counts >= 0 && (p.repetition != 1.0f || p.frequency != 0.0f || p.presence != 0.0f); }
QN_DEVICE int has_edits(const qn_cuda_pick &p) { return p.given < 0 && (p.n_bias > 0 || p.n_ban > 0 || p.mask >= 0 || has_penalties(p)); }
QN_DEVICE int is_greedy(const qn_cuda_pick &p) { return p.temperature < TEMPERATURE_LEAST; }
QN_DEVICE int has_top_k(const qn_cuda_pick &p, int n_vocab) { return p.top_k > 0 && p.top_k < n_vocab; }
/* Whether the draw needs the sums of chunks, and of bands: with no filter, or top_p alone. */
QN_DEVICE int needs_sums(const qn_cuda_pick &p, int n_vocab) { return p.given < 0 && !is_greedy(p) && !has_top_k(p, n_vocab) && !(p.min_p > 0.0f); }
QN_DEVICE int needs_bands(const qn_cuda_pick &p, int n_vocab) { return needs_sums(p, n_vocab) && p.top_p < 1.0f; }

QN_DEVICE sample_row row_given(const sample_args &a, const qn_cuda_pick &p) {
    return sample_row{a.s.logits + (size_t)p.row * (size_t)a.s.logits_stride, a.s.n_vocab, a.s.logits_stride % 4 == 0};
}
QN_DEVICE sample_row row_edited(const sample_args &a, const qn_cuda_pick &p, int pick) {
    return has_edits(p) ? sample_row{a.work + (size_t)pick * (size_t)a.work_stride, a.s.n_vocab, 1} : row_given(a, p);
}
QN_DEVICE const float *maxima(const sample_args &a, int pick, int as_given) { return a.chunk_max + ((size_t)pick * 2 + (size_t)as_given) * (size_t)a.n_chunks; }
QN_DEVICE const double *sums(const sample_args &a, int pick, int which) { return a.sums + ((size_t)pick * SAMPLE_SUMS + (size_t)which) * (size_t)a.n_chunks; }

/* Entries at .. at + 3 (at a multiple of 4), -inf behind the end. */
QN_DEVICE void load4(const sample_row &r, int at, float x[4]) {
    if (r.aligned && at + 4 <= r.n) {
        qn_vec16 v = qn_load16(r.x + at);
        for (int k = 0; k < 4; k++) x[k] = __uint_as_float(v.x[k]);
        return;
    }
    for (int k = 0; k < 4; k++) x[k] = at + k < r.n ? r.x[at + k] : -INFINITY;
}

/* NaN counts as -inf, infinity as the largest number. */
QN_DEVICE float number(float x) { return x > FLT_MAX ? FLT_MAX : x >= -FLT_MAX ? x : -INFINITY; }

/* Ascends with x; the two zeros are one. */
QN_DEVICE uint32_t key_of(float x) {
    uint32_t u = __float_as_uint(x);
    return x == 0.0f ? 0x80000000u : u >> 31 ? ~u : u | 0x80000000u;
}
QN_DEVICE float of_key(uint32_t k) { return __uint_as_float(k >> 31 ? k & 0x7fffffffu : ~k); }

/* exp((x - max) * inv_t), 0 below e^-86: Cephes' expf as sampler_vec.c has it. x <= max. */
QN_DEVICE float weight_of(float x, float max, float inv_t) {
    float t = __fmul_rn(__fsub_rn(x > FLT_MAX ? FLT_MAX : x, max), inv_t);
    if (!(t >= -86.0f)) return 0.0f;
    float z = __fadd_rn(__fmul_rn(t, 1.44269504088896341f), 12582912.0f);
    float whole = __fsub_rn(z, 12582912.0f);
    float r = __fsub_rn(__fsub_rn(t, __fmul_rn(whole, 0.693359375f)), __fmul_rn(whole, -2.12194440e-4f));
    float y = __fadd_rn(__fmul_rn(r, 1.9875691500e-4f), 1.3981999507e-3f);
    y = __fadd_rn(__fmul_rn(y, r), 8.3334519073e-3f);
    y = __fadd_rn(__fmul_rn(y, r), 4.1665795894e-2f);
    y = __fadd_rn(__fmul_rn(y, r), 1.6666665459e-1f);
    y = __fadd_rn(__fmul_rn(y, r), 5.0000001201e-1f);
    y = __fadd_rn(__fadd_rn(__fmul_rn(y, __fmul_rn(r, r)), r), 1.0f);
    return __uint_as_float(__float_as_uint(y) + ((__float_as_uint(z) - 0x4B400000u) << 23));
}

/* ln v, v > 0, as qn_vec_log. */
QN_DEVICE double log_of(double v) {
    long long bits = __double_as_longlong(v);
    int e = (int)(bits >> 52) - 1023;
    double m = __longlong_as_double((bits & 0xFFFFFFFFFFFFFLL) | 0x3FF0000000000000LL);
    if (m > 1.41421356237309504880) m *= 0.5, e++;
    double s = (m - 1) / (m + 1), q = s * s, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * q + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994530942;
}

/* Greatest of the chunks' maxima; whole warps. */
QN_DEVICE float max_of_chunks(const float *chunk_max, int n) {
    float m = -INFINITY;
    for (int c = (int)threadIdx.x % 32; c < n; c += 32) m = fmaxf(m, chunk_max[c]);
    return qn_warp_max(m);
}

QN_DEVICE double warp_sum_double(double x) {
    for (int m = 16; m > 0; m >>= 1) x += __shfl_xor_sync(QN_ALL_LANES, x, m);
    return x;
}

#endif
