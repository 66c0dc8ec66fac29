/* Opcodes of f16, bf16 and their pairs, and what converts them. A card computes a 16-bit sum, product or fma exactly and rounds
 * once. Here sums and products are made in f32, which has more than twice the digits and two, so that the second rounding cannot
 * show; fma goes through double with rounding to odd (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums"). */
#include "tests/cuda/ptx/impl.h"

#include <immintrin.h>
#include <math.h>

static uint32_t bits_of(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static float float_of(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }

float qn_ptx_from_half(uint16_t h) { return _cvtsh_ss(h); }
float qn_ptx_from_bf16(uint16_t h) { return float_of((uint32_t)h << 16); }
/* NaN becomes the canonical one, as on a card. */
uint16_t qn_ptx_to_half(float f, int round) {
    if (f != f) return 0x7fff;
    switch (round) {
    case RD_RZ: return (uint16_t)_cvtss_sh(f, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    case RD_RM: return (uint16_t)_cvtss_sh(f, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    case RD_RP: return (uint16_t)_cvtss_sh(f, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    default: return (uint16_t)_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
}
uint16_t qn_ptx_to_bf16(float f, int round) {
    uint32_t u = bits_of(f);
    if (f != f) return 0x7fff;
    bool inexact = u & 0xffff, negative = u >> 31;
    if (round == RD_RZ) return (uint16_t)(u >> 16);
    if (round == RD_RM) return (uint16_t)((u >> 16) + (inexact && negative));
    if (round == RD_RP) return (uint16_t)((u >> 16) + (inexact && !negative));
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* x rounded to f32 to odd: an inexact value ends in a one, so that rounding again to 16 bits rounds as if at once. */
static float to_odd(double x) {
    float f = (float)x;
    uint32_t u = bits_of(f);
    if (x != x || (double)f == x || u & 1) return f;
    return float_of(fabs((double)f) > fabs(x) ? u - 1 : u + 1);
}
/* a * b + c to odd: the product is exact in double, the sum's error is known (Knuth's two-sum). */
static float fma_odd(float a, float b, float c) {
    double p = (double)a * b, s = p + c;
    if (!isfinite(s)) return (float)s;
    double back = s - p, error = (p - (s - back)) + (c - back);
    if (error != 0) {
        uint64_t u;
        memcpy(&u, &s, 8);
        if (!(u & 1)) u = (error > 0) == (s > 0) ? u + 1 : u - 1;
        memcpy(&s, &u, 8);
    }
    return to_odd(s);
}

#define F16(x) qn_ptx_from_half(x)
#define BF16(x) qn_ptx_from_bf16(x)
#define TO_F16(x) qn_ptx_to_half(x, RD_RN)
#define TO_BF16(x) qn_ptx_to_bf16(x, RD_RN)
static inline float smaller(float a, float b) { return a != a ? b : b != b ? a : a < b || (a == b && signbit(a)) ? a : b; }
static inline float larger(float a, float b) { return a != a ? b : b != b ? a : a > b || (a == b && !signbit(a)) ? a : b; }
static inline float smaller_nan(float a, float b) { return a != a || b != b ? NAN : smaller(a, b); }
static inline float larger_nan(float a, float b) { return a != a || b != b ? NAN : larger(a, b); }
static inline float relu(float a) { return a != a ? NAN : a > 0 ? a : 0; }

/* V(name, type, value): the value is an f32 of a, b, c, each already f32. */
#define OF_TYPES(V, op, e) V(op, f16, F16, TO_F16, e) V(op, bf16, BF16, TO_BF16, e)
#define TWO(V)                                                                        \
    OF_TYPES(V, add, a + b) OF_TYPES(V, sub, a - b) OF_TYPES(V, mul, a * b)          \
    OF_TYPES(V, add_rn, a + b) OF_TYPES(V, sub_rn, a - b) OF_TYPES(V, mul_rn, a * b) \
    OF_TYPES(V, min, smaller(a, b)) OF_TYPES(V, max, larger(a, b))                   \
    OF_TYPES(V, min_NaN, smaller_nan(a, b)) OF_TYPES(V, max_NaN, larger_nan(a, b))
#define THREE(V) OF_TYPES(V, fma_rn, fma_odd(a, b, c)) OF_TYPES(V, fma_rn_relu, relu(fma_odd(a, b, c)))
#define ONE(V) V(ex2_approx, f16, F16, TO_F16, (float)exp2((double)a)) V(ex2_approx_ftz, bf16, BF16, TO_BF16, (float)exp2((double)a)) OF_TYPES(V, tanh_approx, (float)tanh((double)a))

/* A handler for the type and one for its pair (x2: two of them in 32 bits). */
#define FN_ONE(op, ty, from, to, e)                                                                                                    \
    HANDLER(op##_##ty) { D(uint16_t, 0); S(uint16_t, pa, 1); LANES(float a = from(pa[l]); d[l] = to(e)) }                              \
    HANDLER(op##_##ty##x2) { D(uint32_t, 0); S(uint32_t, pa, 1); LANES(uint32_t r = 0;                                                 \
        for (int h = 0; h < 32; h += 16) { float a = from((uint16_t)(pa[l] >> h)); r |= (uint32_t)to(e) << h; } d[l] = r) }
#define FN_TWO(op, ty, from, to, e)                                                                                                    \
    HANDLER(op##_##ty) { D(uint16_t, 0); S(uint16_t, pa, 1); S(uint16_t, pb, 2); LANES(float a = from(pa[l]); float b = from(pb[l]); d[l] = to(e)) } \
    HANDLER(op##_##ty##x2) { D(uint32_t, 0); S(uint32_t, pa, 1); S(uint32_t, pb, 2); LANES(uint32_t r = 0;                             \
        for (int h = 0; h < 32; h += 16) { float a = from((uint16_t)(pa[l] >> h)); float b = from((uint16_t)(pb[l] >> h)); r |= (uint32_t)to(e) << h; } d[l] = r) }
#define FN_THREE(op, ty, from, to, e)                                                                                                  \
    HANDLER(op##_##ty) { D(uint16_t, 0); S(uint16_t, pa, 1); S(uint16_t, pb, 2); S(uint16_t, pc, 3);                                   \
        LANES(float a = from(pa[l]); float b = from(pb[l]); float c = from(pc[l]); d[l] = to(e)) }                                     \
    HANDLER(op##_##ty##x2) { D(uint32_t, 0); S(uint32_t, pa, 1); S(uint32_t, pb, 2); S(uint32_t, pc, 3); LANES(uint32_t r = 0;         \
        for (int h = 0; h < 32; h += 16) { float a = from((uint16_t)(pa[l] >> h)); float b = from((uint16_t)(pb[l] >> h)); float c = from((uint16_t)(pc[l] >> h)); \
            r |= (uint32_t)to(e) << h; } d[l] = r) }
#define ROW_ONE(op, ty, from, to, e) {#op "_" #ty, "h=h", op##_##ty, K_PLAIN, -1}, {#op "_" #ty "x2", "w=w", op##_##ty##x2, K_PLAIN, -1},
#define ROW_TWO(op, ty, from, to, e) {#op "_" #ty, "h=hh", op##_##ty, K_PLAIN, -1}, {#op "_" #ty "x2", "w=ww", op##_##ty##x2, K_PLAIN, -1},
#define ROW_THREE(op, ty, from, to, e) {#op "_" #ty, "h=hhh", op##_##ty, K_PLAIN, -1}, {#op "_" #ty "x2", "w=www", op##_##ty##x2, K_PLAIN, -1},

TWO(FN_TWO)
THREE(FN_THREE)
ONE(FN_ONE)
/* Signs are bits here: a NaN keeps its digits. */
HANDLER(neg16) { D(uint16_t, 0); S(uint16_t, a, 1); LANES(d[l] = a[l] ^ 0x8000) }
HANDLER(abs16) { D(uint16_t, 0); S(uint16_t, a, 1); LANES(d[l] = a[l] & 0x7fff) }
HANDLER(neg16x2) { D(uint32_t, 0); S(uint32_t, a, 1); LANES(d[l] = a[l] ^ 0x80008000u) }
HANDLER(abs16x2) { D(uint32_t, 0); S(uint32_t, a, 1); LANES(d[l] = a[l] & 0x7fff7fffu) }

const struct op_row qn_ptx_rows_half[] = {
    TWO(ROW_TWO) THREE(ROW_THREE) ONE(ROW_ONE)
    {"neg_f16", "h=h", neg16, K_PLAIN, -1}, {"neg_bf16", "h=h", neg16, K_PLAIN, -1}, {"neg_f16x2", "w=w", neg16x2, K_PLAIN, -1}, {"neg_bf16x2", "w=w", neg16x2, K_PLAIN, -1},
    {"abs_f16", "h=h", abs16, K_PLAIN, -1}, {"abs_bf16", "h=h", abs16, K_PLAIN, -1}, {"abs_f16x2", "w=w", abs16x2, K_PLAIN, -1}, {"abs_bf16x2", "w=w", abs16x2, K_PLAIN, -1},
    {NULL, NULL, NULL, 0, 0},
};
