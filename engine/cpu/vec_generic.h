/* The 16-lane vector of rows_body.h and attn_body.h in plain C: what each operation means. Sums over lanes go 8 by 8,
 * then 4, 2, 1; max and min take the second operand when one is NaN, as x86 does. */
#ifndef QN_CPU_VEC_GENERIC_H
#define QN_CPU_VEC_GENERIC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/cpu/half.h"

#if defined(QN_FEW_KERNELS) /* sanitizers: inlining all of it takes half a minute to compile */
#define V_INL static inline
#else
#define V_INL static inline __attribute__((always_inline))
#endif
#define V_QK_COLS 4
#define V_PV_COLS 2
#define V_PV_LANES 1
#define V_DOT_COLS 4
#define V_QK_PAIR 0
#define V_DOT_PAIR 0

typedef struct { float l[16]; } v16;

#define V_EACH(expr) do { v16 r_; for (int i = 0; i < 16; i++) r_.l[i] = (expr); return r_; } while (0)

V_INL v16 v_load(const float *p) { V_EACH(p[i]); }
V_INL v16 v_load_n(const float *p, int n) { V_EACH(i < n ? p[i] : 0.0f); }
V_INL void v_store(float *p, v16 a) { memcpy(p, a.l, sizeof a.l); }
V_INL void v_store_n(float *p, v16 a, int n) { memcpy(p, a.l, (size_t)n * sizeof *p); }
V_INL v16 v_set1(float x) { V_EACH(x); }
V_INL v16 v_zero(void) { V_EACH(0.0f); }
V_INL v16 v_add(v16 a, v16 b) { V_EACH(a.l[i] + b.l[i]); }
V_INL v16 v_sub(v16 a, v16 b) { V_EACH(a.l[i] - b.l[i]); }
V_INL v16 v_mul(v16 a, v16 b) { V_EACH(a.l[i] * b.l[i]); }
V_INL v16 v_div(v16 a, v16 b) { V_EACH(a.l[i] / b.l[i]); }
V_INL v16 v_fma(v16 a, v16 b, v16 c) { V_EACH(fmaf(a.l[i], b.l[i], c.l[i])); }
V_INL v16 v_fnma(v16 a, v16 b, v16 c) { V_EACH(fmaf(-a.l[i], b.l[i], c.l[i])); }
V_INL v16 v_max(v16 a, v16 b) { V_EACH(a.l[i] > b.l[i] ? a.l[i] : b.l[i]); }
V_INL v16 v_min(v16 a, v16 b) { V_EACH(a.l[i] < b.l[i] ? a.l[i] : b.l[i]); }
V_INL v16 v_abs(v16 a) { V_EACH(fabsf(a.l[i])); }
V_INL v16 v_rint(v16 a) { V_EACH(rintf(a.l[i])); }
/* 2^n for integral n in -126..128 (128: infinity); anything for NaN. */
V_INL v16 v_pow2(v16 a) { V_EACH(qn_bits_f32((a.l[i] >= -126.0f && a.l[i] <= 128.0f ? (uint32_t)((int)a.l[i] + 127) : 0u) << 23)); }
/* v, but 0 where x < lo. */
V_INL v16 v_zero_below(v16 x, v16 lo, v16 v) { V_EACH(x.l[i] < lo.l[i] ? 0.0f : v.l[i]); }
/* v in lanes from..to-1 (0 <= from, to <= 16), `other` elsewhere. */
V_INL v16 v_keep(v16 v, int from, int to, float other) { V_EACH(i >= from && i < to ? v.l[i] : other); }
V_INL v16 v_swap_pairs(v16 a) { V_EACH(a.l[i ^ 1]); }
V_INL v16 v_load_h(const uint16_t *p) { V_EACH(qn_half_f32(p[i])); }
V_INL void v_store_h(uint16_t *p, v16 a) { for (int i = 0; i < 16; i++) p[i] = qn_f32_half(a.l[i]); }
V_INL void v_store_b(uint16_t *p, v16 a) { for (int i = 0; i < 16; i++) p[i] = qn_f32_bhalf(a.l[i]); }
V_INL v16 v_load_b(const uint16_t *p) { V_EACH(qn_bhalf_f32(p[i])); }
V_INL v16 v_load_q(const int8_t *p) { V_EACH((float)p[i]); }
/* x * 2^n, exact: for results that are no subnormals. */
V_INL v16 v_mul_pow2(v16 x, v16 n) { return v_mul(x, v_pow2(n)); }

/* 16 exact integer dot products: a lane of `k` is four int8 of one position, q four of a query; start is given the sum of
 * all q that will come. No k is -128. */
typedef struct { int32_t l[16]; } v16i;
typedef struct { int8_t b[64]; } v16k;
V_INL v16i v_dot_start(int32_t q_sum) {
    (void)q_sum;
    return (v16i){ { 0 } };
}
V_INL v16k v_load_k(const int8_t *p) {
    v16k k;
    memcpy(k.b, p, sizeof k.b);
    return k;
}
V_INL v16i v_dot4(v16i acc, v16k k, int32_t q) {
    int8_t x[4];
    memcpy(x, &q, sizeof x);
    for (int i = 0; i < 16; i++)
        for (int e = 0; e < 4; e++) acc.l[i] += k.b[4 * i + e] * x[e];
    return acc;
}
V_INL v16 v_from_i(v16i a) { V_EACH((float)a.l[i]); }

V_INL float v_sum(v16 a) {
    for (int w = 8; w; w /= 2)
        for (int i = 0; i < w; i++) a.l[i] = a.l[i] + a.l[i + w];
    return a.l[0];
}
V_INL float v_most(v16 a) {
    for (int w = 8; w; w /= 2)
        for (int i = 0; i < w; i++) a.l[i] = a.l[i] > a.l[i + w] ? a.l[i] : a.l[i + w];
    return a.l[0];
}
/* Rounds to nearest even into s8 and returns the sum; *bad is set when a value is no number an int can hold. */
V_INL int v_quant(int8_t *p, v16 x, int *bad) {
    int sum = 0;
    for (int i = 0; i < 16; i++) {
        int ok = x.l[i] > -1e9f && x.l[i] < 1e9f, v = ok ? (int)rintf(x.l[i]) : -128;
        v = v > 127 ? 127 : v < -128 ? -128 : v;
        *bad |= !ok;
        p[i] = (int8_t)v;
        sum += v;
    }
    return sum;
}
/* Both halves of a block; sum[] of the first and of the second. */
V_INL void v_quant32(int8_t *p, v16 a, v16 b, int sum[2], int *bad) { sum[0] = v_quant(p, a, bad), sum[1] = v_quant(p + 16, b, bad); }

#endif
