/* The operations on single rows, written once over the 16-lane vector of vec_*.h and included by rows_generic.c,
 * rows_avx2.c and rows_avx512.c: norms, quantising, RoPE, the gated unit, exp. What they promise is at struct qn_cpu_isa.
 *
 * An element's value never depends on where in the row it lies or on what follows: ends of rows are handled by the same
 * operations under a mask, and sums of a row run over its lanes in one order. */
#ifndef QN_CPU_ROWS_BODY_H
#define QN_CPU_ROWS_BODY_H

#include "engine/cpu/cpu.h"

/* exp after Cody and Waite: x = n ln2 + r with ln2 in two parts, a polynomial of degree 7 in r (the
 * coefficients of Cephes' expf), and the scaling by 2^n in two exact steps. Relative error below 2e-7; 0 below -87.33, saturated above
 * 88.37; exp(0) is 1 exactly, NaN stays NaN. */
V_INL v16 v_exp(v16 x) {
    const v16 least = v_set1(-87.33f);
    v16 y = v_max(least, v_min(v_set1(88.37f), x));
    v16 n = v_rint(v_mul(y, v_set1(1.44269504088896341f)));
    v16 r = v_fnma(n, v_set1(0.693359375f), y);
    r = v_fnma(n, v_set1(-2.12194440e-4f), r);
    v16 p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set1(1.0f));
    return v_zero_below(x, least, v_mul(p, v_pow2(n)));
}

/* tanh by exp: absolute error below 2e-7. */
V_INL v16 v_tanh(v16 x) {
    v16 e = v_exp(v_add(x, x));
    return v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(e, v_set1(1.0f))));
}

/* Both gates are x * sigmoid(k): silu has k = x; 0.5x(1 + tanh(u)) = x * sigmoid(2u). */
V_INL v16 v_gate(v16 x, enum qn_act_kind kind) {
    v16 k = x;
    if (kind == QN_ACT_GELU_TANH) {
        v16 cube = v_mul(v_mul(x, x), x);
        k = v_mul(v_set1(2.0f * 0.7978845608028654f), v_fma(v_set1(0.044715f), cube, x));
    }
    return v_div(x, v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), k))));
}

static void rows_exp(float *out, const float *x, int n) {
    for (int i = 0; i < n; i += 16) {
        int m = n - i < 16 ? n - i : 16;
        v_store_n(out + i, v_exp(v_load_n(x + i, m)), m);
    }
}

static void rows_glu(float *h, const float *gate, const float *up, int n, enum qn_act_kind kind) {
    for (int i = 0; i < n; i += 16) v_store(h + i, v_mul(v_gate(v_load(gate + i), kind), v_load(up + i)));
}

static void rows_scale_cap(float *x, int n, float scale, float cap) {
    for (int i = 0; i < n; i += 16) {
        int m = n - i < 16 ? n - i : 16;
        v16 v = v_mul(v_load_n(x + i, m), v_set1(scale));
        if (cap > 0.0f) v = v_mul(v_set1(cap), v_tanh(v_div(v, v_set1(cap))));
        v_store_n(x + i, v, m);
    }
}

/* 1 / rms of x[d], padded with zeros to whole lanes. Two chains, for latency. */
V_INL float rows_inv_rms(const float *x, int d, float eps) {
    v16 s0 = v_zero(), s1 = v_zero();
    int i = 0;
    for (; i + 16 < d; i += 32) {
        v16 a = v_load(x + i), b = v_load(x + i + 16);
        s0 = v_fma(a, a, s0);
        s1 = v_fma(b, b, s1);
    }
    if (i < d) {
        v16 a = v_load(x + i);
        s0 = v_fma(a, a, s0);
    }
    return 1.0f / sqrtf(v_sum(v_add(s0, s1)) / (float)d + eps);
}

static void rows_add_norm(float *x, const float *y, const float *post, float scale, const float *gain, float eps, int d, float *out) {
    if (y) {
        v16 s = v_set1(scale), inv = post ? v_set1(rows_inv_rms(y, d, eps)) : v_zero();
        for (int i = 0; i < d; i += 16) {
            v16 v = v_load(y + i);
            if (post) v = v_mul(v_mul(v, inv), v_load(post + i));
            v_store(x + i, v_fma(s, v, v_load(x + i)));
        }
    }
    if (!out) return;
    v16 inv = v_set1(rows_inv_rms(x, d, eps));
    for (int i = 0; i < d; i += 16) v_store(out + i, v_mul(v_mul(v_load(x + i), inv), v_load(gain + i)));
}

static void rows_head_norm(float *h, const float *gain, float eps, int d) {
    v16 s = v_zero();
    for (int i = 0; i < d; i += 16) {
        v16 a = v_load_n(h + i, d - i < 16 ? d - i : 16);
        s = v_fma(a, a, s);
    }
    v16 inv = v_set1(1.0f / sqrtf(v_sum(s) / (float)d + eps));
    for (int i = 0; i < d; i += 16) {
        int m = d - i < 16 ? d - i : 16;
        v_store_n(h + i, v_mul(v_mul(v_load_n(h + i, m), inv), v_load_n(gain + i, m)), m);
    }
}

/* cs: NEOX: cos[half], sin[half]; NORM: cos twice each, then -sin, +sin alternating (rope_kv.c). */
static void rows_rope(float *h, const float *cs, int rope_dim, enum qn_rope_kind kind) {
    if (kind == QN_ROPE_NORM) {
        for (int i = 0; i < rope_dim; i += 16) {
            int m = rope_dim - i < 16 ? rope_dim - i : 16;
            v16 x = v_load_n(h + i, m);
            v16 r = v_fma(v_swap_pairs(x), v_load_n(cs + rope_dim + i, m), v_mul(x, v_load_n(cs + i, m)));
            v_store_n(h + i, r, m);
        }
        return;
    }
    int half = rope_dim / 2;
    for (int i = 0; i < half; i += 16) {
        int m = half - i < 16 ? half - i : 16;
        v16 a = v_load_n(h + i, m), b = v_load_n(h + half + i, m);
        v16 c = v_load_n(cs + i, m), s = v_load_n(cs + half + i, m);
        v_store_n(h + i, v_fnma(b, s, v_mul(a, c)), m);
        v_store_n(h + half + i, v_fma(a, s, v_mul(b, c)), m);
    }
}

static void rows_to_bf16(uint16_t *out, const float *x, int n) {
    for (int i = 0; i < n; i += 16) v_store_b(out + i, v_load(x + i));
}

/* d = max|x| / 127, q = round(x / d). A block with an infinity or a NaN gets d = NaN: it spoils its own row and is seen
 * in the logits. */
static void rows_quant(const float *x, int n_blocks, uint8_t *rec, int g, int c) {
    for (int b = 0; b < n_blocks; b++, x += 32, rec += (size_t)g * QN_AREC) {
        v16 a0 = v_load(x), a1 = v_load(x + 16);
        float most = v_most(v_max(v_abs(a0), v_abs(a1)));
        float id = most > 1e-30f ? 127.0f / most : 0.0f, d = most > 1e-30f ? most / 127.0f : 0.0f;
        int bad = 0, s[2];
        v_quant32((int8_t *)rec + c * 32, v_mul(a0, v_set1(id)), v_mul(a1, v_set1(id)), s, &bad);
        if (bad) d = NAN, s[0] = s[1] = 0;
        float *fs = (float *)(rec + (size_t)g * 32);
        int32_t *is = (int32_t *)(fs + 2 * g);
        fs[c] = d;
        fs[g + c] = d * (float)(s[0] + s[1]);
        is[c] = -128 * (s[0] + s[1]);
        is[g + c] = -128 * s[0];
        is[2 * g + c] = -128 * s[1];
    }
}

#endif
