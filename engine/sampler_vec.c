/* GCC's vector extensions carry the 16 lanes: one zmm, two ymm or four xmm, whatever the variant may use. Bodies are
 * inlined into functions with a target attribute; vectors go by pointer so that no ABI depends on the variant.
 * The exponential is Cephes' expf (Moshier): reduction by ln 2 in two parts, a polynomial of degree 5, scaling by bits. */
#include "engine/sampler_vec.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define BODY static inline __attribute__((always_inline))
enum { LANES = 16 };

const float qn_vec_bands[QN_VEC_BANDS] = {0.3f, 0.1f, 0.03f, 0.01f, 2e-3f, 2e-4f, 1e-5f, 1e-7f};

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));

BODY void load(const float *p, v16 *out) { memcpy(out, p, sizeof *out); }

BODY void splat(float f, v16 *out) {
    *out = f - (v16){0}; /* a list of 16 f is set lane by lane by gcc 12 */
}

BODY void select16(const v16i *mask, const v16 *a, const v16 *b, v16 *out) {
    *out = (v16)(((v16i)*a & *mask) | ((v16i)*b & ~*mask));
}

/* The last, incomplete group as a whole one. */
BODY const float *whole(const float *x, uint32_t n, uint32_t at, uint32_t size, float *pad) {
    if (at + size <= n) return x + at;
    for (uint32_t i = 0; i < size; i++) pad[i] = at + i < n ? x[at + i] : -INFINITY;
    return pad;
}

BODY float max_body(const float *x, uint32_t n, float *groups) {
    float pad[QN_VEC_GROUP], all = -INFINITY;
    v16 low, top;
    splat(-INFINITY, &low);
    splat(FLT_MAX, &top);
    for (uint32_t g = 0; g * QN_VEC_GROUP < n; g++) {
        const float *p = whole(x, n, g * QN_VEC_GROUP, QN_VEC_GROUP, pad);
        v16 m = low;
        for (int k = 0; k < QN_VEC_GROUP; k += LANES) {
            v16 v;
            load(p + k, &v);
            v16i above = v > m; /* a NaN is above nothing */
            select16(&above, &v, &m, &m);
        }
        v16i beyond = m > top;
        select16(&beyond, &top, &m, &m);
        float best = m[0];
        for (int l = 1; l < LANES; l++) best = m[l] > best ? m[l] : best;
        groups[g] = best;
        all = best > all ? best : all;
    }
    return all;
}

BODY void exp16(const float *p, float max, float inv_t, v16 *out) {
    v16 v, top;
    load(p, &v);
    splat(FLT_MAX, &top);
    v16i beyond = v > top;
    select16(&beyond, &top, &v, &v);
    v16 t = (v - max) * inv_t;
    v16i live = t >= -86.0f; /* a NaN is not */
    t = (v16)((v16i)t & live);
    v16 z = t * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer that sits in the low bits */
    v16 whole_part = z - 12582912.0f;
    v16 r = t - whole_part * 0.693359375f;
    r = r - whole_part * -2.12194440e-4f;
    v16 y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    v16i bits = (v16i)y + (((v16i)z - 0x4B400000) << 23);
    *out = (v16)(bits & live);
}

BODY void exp_body(const float *x, uint32_t n, float max, float inv_t, float *out) {
    uint32_t i = 0;
    v16 e;
    for (; i + LANES <= n; i += LANES) {
        exp16(x + i, max, inv_t, &e);
        memcpy(out + i, &e, sizeof e);
    }
    if (i == n) return;
    float pad[LANES];
    exp16(whole(x, n, i, LANES, pad), max, inv_t, &e);
    memcpy(out + i, &e, (n - i) * sizeof *out);
}

BODY double lanes_sum(const v16 *v) {
    double total = 0;
    for (int l = 0; l < LANES; l++) total += (double)(*v)[l];
    return total;
}

BODY double sum_body(const float *x, uint32_t n, float max, float inv_t, double *chunks) {
    double all = 0;
    for (uint32_t from = 0; from < n; from += QN_VEC_CHUNK) {
        uint32_t i = from, to = n - from < QN_VEC_CHUNK ? n : from + QN_VEC_CHUNK;
        v16 sum = {0}, e;
        for (; i + LANES <= to; i += LANES) {
            exp16(x + i, max, inv_t, &e);
            sum = sum + e;
        }
        if (i < to) {
            float pad[LANES];
            exp16(whole(x, n, i, LANES, pad), max, inv_t, &e);
            sum = sum + e;
        }
        all += chunks[from / QN_VEC_CHUNK] = lanes_sum(&sum);
    }
    return all;
}

BODY double bands_body(const float *x, uint32_t n, float max, float inv_t, double above[QN_VEC_BANDS]) {
    double all = 0;
    for (int b = 0; b < QN_VEC_BANDS; b++) above[b] = 0;
    for (uint32_t from = 0; from < n; from += QN_VEC_CHUNK) {
        uint32_t to = n - from < QN_VEC_CHUNK ? n : from + QN_VEC_CHUNK;
        v16 sum = {0}, part[QN_VEC_BANDS], e;
        for (int b = 0; b < QN_VEC_BANDS; b++) part[b] = sum;
        for (uint32_t i = from; i < to; i += LANES) {
            float pad[LANES];
            exp16(whole(x, n, i, LANES, pad), max, inv_t, &e);
            sum = sum + e;
            for (int b = 0; b < QN_VEC_BANDS; b++) {
                v16i in = e >= qn_vec_bands[b];
                part[b] = part[b] + (v16)((v16i)e & in);
            }
        }
        all += lanes_sum(&sum);
        for (int b = 0; b < QN_VEC_BANDS; b++) above[b] += lanes_sum(&part[b]);
    }
    return all;
}

BODY uint32_t rank_body(const float *x, uint32_t n, float v, uint32_t id) {
    v16 border;
    v16i lanes = {0}, before = {0};
    splat(v, &border);
    for (uint32_t i = 0; i < n; i += LANES) {
        float pad[LANES];
        v16 a;
        load(whole(x, n, i, LANES, pad), &a);
        before -= a > border;
        if (i + LANES <= id) lanes -= a == border;
    }
    uint32_t count = 0;
    for (int l = 0; l < LANES; l++) count += (uint32_t)before[l] + (uint32_t)lanes[l];
    for (uint32_t i = id - id % LANES; i < id; i++) count += x[i] == v;
    return count;
}

#define VARIANT(set, attribute)                                                                                     \
    attribute static float max_##set(const float *x, uint32_t n, float *g) { return max_body(x, n, g); }             \
    attribute static void exp_##set(const float *x, uint32_t n, float max, float t, float *o) { exp_body(x, n, max, t, o); } \
    attribute static double sum_##set(const float *x, uint32_t n, float max, float t, double *c) { return sum_body(x, n, max, t, c); } \
    attribute static double bands_##set(const float *x, uint32_t n, float max, float t, double *a) { return bands_body(x, n, max, t, a); } \
    attribute static uint32_t rank_##set(const float *x, uint32_t n, float v, uint32_t id) { return rank_body(x, n, v, id); } \
    static const struct qn_vec_ops ops_##set = {#set, max_##set, exp_##set, sum_##set, bands_##set, rank_##set};

VARIANT(generic, )
#ifdef __x86_64__
VARIANT(avx2, __attribute__((target("avx2"))))
VARIANT(avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

const struct qn_vec_ops *qn_vec_ops(const char *isa) {
#ifdef __x86_64__
    int has512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl");
    if (has512 && (!isa || !strcmp(isa, "avx512"))) return &ops_avx512;
    if (__builtin_cpu_supports("avx2") && (!isa || !strcmp(isa, "avx2"))) return &ops_avx2;
#endif
    return !isa || !strcmp(isa, "generic") ? &ops_generic : NULL;
}

double qn_vec_log(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.41421356237309504880) m *= 0.5, e++;
    double s = (m - 1) / (m + 1), q = s * s, sum = 0; /* ln m = 2 artanh s, |s| < 0.172 */
    for (int k = 21; k >= 1; k -= 2) sum = sum * q + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994530942;
}

double qn_vec_exp_double(double v) {
    if (!(v > -700)) return 0;
    if (v > 700) v = 700;
    double turns = v * 1.44269504088896340736;
    int e = (int)(turns < 0 ? turns - 0.5 : turns + 0.5);
    double r = (v - e * 0x1.62e42fefa3800p-1) - e * 0x1.ef35793c76730p-45, sum = 1; /* ln 2 in two parts; |r| < 0.35 */
    for (int k = 14; k >= 1; k--) sum = 1 + sum * r / k;
    uint64_t bits = (uint64_t)(e + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}
