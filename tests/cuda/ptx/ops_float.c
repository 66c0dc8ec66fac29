/* Opcodes of f32 and f64 (PTX ISA, "Floating Point"). Sums, products, fma, quotients and roots are IEEE in the rounding that the
 * opcode names. The approximations (ex2, rsqrt, tanh and the like) are computed in double and rounded once: a card is allowed to be
 * some ulp beside it, so tests compare them within a tolerance. Nothing is fused that the text does not fuse. */
#include "tests/cuda/ptx/impl.h"

#include <math.h>
#include <xmmintrin.h>

/* Registers lie in memory, so the barriers keep every load, its arithmetic and its store between the two changes of MXCSR. */
static inline unsigned round_to(unsigned mode) {
    unsigned old = _mm_getcsr();
    _mm_setcsr((old & ~_MM_ROUND_MASK) | mode);
    __asm__ volatile("" ::: "memory");
    return old;
}
static inline void round_back(unsigned old) {
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(old);
}

static inline float flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
/* IEEE 754-2019 minimumNumber and minimum: one NaN is ignored, or (.NaN) wins; -0 is below +0. */
#define SMALLER(a, b) ((a) < (b) || ((a) == (b) && signbit(a)) ? (a) : (b))
#define LARGER(a, b) ((a) > (b) || ((a) == (b) && !signbit(a)) ? (a) : (b))
#define PICK(of, a, b) ((a) != (a) ? (b) : (b) != (b) ? (a) : of(a, b))
#define PICK_NAN(of, a, b, nan) ((a) != (a) || (b) != (b) ? (nan) : of(a, b))
static inline float sat(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

/* Rounded once, as the emulator's qn_exp2: their results are compared bit for bit. */
static float exp2_of(float x) { return (float)exp2((double)x); }

#define UNDER(mode, loop) { unsigned old = round_to(mode); loop; round_back(old); }
#define PLAIN_(mode, loop) { loop; }

/* V(name, C type, letter, rounding, value) by the number of operands. */
#define ROUNDED(V, op, ty, T, p, e)                                                     \
    V(op##_##ty, T, p, PLAIN_, 0, e) V(op##_rn_##ty, T, p, PLAIN_, 0, e)               \
    V(op##_rz_##ty, T, p, UNDER, _MM_ROUND_TOWARD_ZERO, e) V(op##_rm_##ty, T, p, UNDER, _MM_ROUND_DOWN, e) V(op##_rp_##ty, T, p, UNDER, _MM_ROUND_UP, e)
#define NAMED(V, op, ty, T, p, e)                                                       \
    V(op##_rn_##ty, T, p, PLAIN_, 0, e)                                                \
    V(op##_rz_##ty, T, p, UNDER, _MM_ROUND_TOWARD_ZERO, e) V(op##_rm_##ty, T, p, UNDER, _MM_ROUND_DOWN, e) V(op##_rp_##ty, T, p, UNDER, _MM_ROUND_UP, e)
#define TWO(V)                                                                          \
    ROUNDED(V, add, f32, float, w, a + b) ROUNDED(V, add, f64, double, l, a + b)       \
    ROUNDED(V, sub, f32, float, w, a - b) ROUNDED(V, sub, f64, double, l, a - b)       \
    ROUNDED(V, mul, f32, float, w, a * b) ROUNDED(V, mul, f64, double, l, a * b)       \
    NAMED(V, div, f32, float, w, a / b) NAMED(V, div, f64, double, l, a / b)           \
    V(div_full_f32, float, w, PLAIN_, 0, a / b) V(div_approx_f32, float, w, PLAIN_, 0, a / b) \
    V(add_sat_f32, float, w, PLAIN_, 0, sat(a + b)) V(mul_sat_f32, float, w, PLAIN_, 0, sat(a * b)) \
    V(min_f32, float, w, PLAIN_, 0, PICK(SMALLER, a, b)) V(max_f32, float, w, PLAIN_, 0, PICK(LARGER, a, b)) \
    V(min_NaN_f32, float, w, PLAIN_, 0, PICK_NAN(SMALLER, a, b, NAN)) V(max_NaN_f32, float, w, PLAIN_, 0, PICK_NAN(LARGER, a, b, NAN)) \
    V(min_f64, double, l, PLAIN_, 0, PICK(SMALLER, a, b)) V(max_f64, double, l, PLAIN_, 0, PICK(LARGER, a, b)) \
    V(copysign_f32, float, w, PLAIN_, 0, copysignf(b, a)) V(copysign_f64, double, l, PLAIN_, 0, copysign(b, a))
#define ONE(V)                                                                          \
    V(neg_f32, float, w, PLAIN_, 0, -a) V(neg_f64, double, l, PLAIN_, 0, -a)           \
    V(abs_f32, float, w, PLAIN_, 0, fabsf(a)) V(abs_f64, double, l, PLAIN_, 0, fabs(a)) \
    NAMED(V, rcp, f32, float, w, 1 / a) NAMED(V, rcp, f64, double, l, 1 / a)           \
    V(sqrt_rn_f32, float, w, PLAIN_, 0, sqrtf(a)) V(sqrt_rn_f64, double, l, PLAIN_, 0, sqrt(a)) \
    V(rcp_approx_f32, float, w, PLAIN_, 0, 1 / a) V(rcp_approx_ftz_f32, float, w, PLAIN_, 0, flush(1 / flush(a))) \
    V(rcp_approx_ftz_f64, double, l, PLAIN_, 0, 1 / a)                                 \
    V(sqrt_approx_f32, float, w, PLAIN_, 0, sqrtf(a)) V(sqrt_approx_ftz_f32, float, w, PLAIN_, 0, sqrtf(flush(a))) \
    V(rsqrt_approx_f32, float, w, PLAIN_, 0, (float)(1 / sqrt((double)a))) V(rsqrt_approx_ftz_f32, float, w, PLAIN_, 0, (float)(1 / sqrt((double)flush(a)))) \
    V(ex2_approx_f32, float, w, PLAIN_, 0, exp2_of(a)) V(ex2_approx_ftz_f32, float, w, PLAIN_, 0, flush(exp2_of(flush(a)))) \
    V(lg2_approx_f32, float, w, PLAIN_, 0, (float)log2((double)a)) V(lg2_approx_ftz_f32, float, w, PLAIN_, 0, (float)log2((double)flush(a))) \
    V(sin_approx_f32, float, w, PLAIN_, 0, (float)sin((double)a)) V(cos_approx_f32, float, w, PLAIN_, 0, (float)cos((double)a)) \
    V(tanh_approx_f32, float, w, PLAIN_, 0, (float)tanh((double)a))
#define THREE(V)                                                                        \
    NAMED(V, fma, f32, float, w, __builtin_fmaf(a, b, c)) NAMED(V, fma, f64, double, l, __builtin_fma(a, b, c)) \
    V(fma_rn_sat_f32, float, w, PLAIN_, 0, sat(__builtin_fmaf(a, b, c)))

#define FN_ONE(name, T, p, how, mode, e) HANDLER(name) { D(T, 0); S(T, pa, 1); how(mode, LANES(T a = pa[l]; d[l] = e)) }
#define FN_TWO(name, T, p, how, mode, e) HANDLER(name) { D(T, 0); S(T, pa, 1); S(T, pb, 2); how(mode, LANES(T a = pa[l]; T b = pb[l]; d[l] = e)) }
#define FN_THREE(name, T, p, how, mode, e) HANDLER(name) { D(T, 0); S(T, pa, 1); S(T, pb, 2); S(T, pc, 3); how(mode, LANES(T a = pa[l]; T b = pb[l]; T c = pc[l]; d[l] = e)) }
#define ROW_ONE(name, T, p, how, mode, e) {#name, #p "=" #p, name, K_PLAIN, -1},
#define ROW_TWO(name, T, p, how, mode, e) {#name, #p "=" #p #p, name, K_PLAIN, -1},
#define ROW_THREE(name, T, p, how, mode, e) {#name, #p "=" #p #p #p, name, K_PLAIN, -1},

TWO(FN_TWO)
ONE(FN_ONE)
THREE(FN_THREE)

#define TEST_P(name, T, e) HANDLER(name) { D(uint32_t, 0); S(T, pa, 1); uint32_t r = 0; for (int l = 0; l < LANES_N; l++) { T a = pa[l]; r |= (uint32_t)((e) != 0) << l; } *d = (*d & ~m) | (r & m); }
TEST_P(testp_finite_f32, float, isfinite(a))
TEST_P(testp_infinite_f32, float, isinf(a))
TEST_P(testp_number_f32, float, !isnan(a))
TEST_P(testp_notanumber_f32, float, isnan(a))
TEST_P(testp_normal_f32, float, isnormal(a))
TEST_P(testp_subnormal_f32, float, fpclassify(a) == FP_SUBNORMAL)

const struct op_row qn_ptx_rows_float[] = {
    TWO(ROW_TWO) ONE(ROW_ONE) THREE(ROW_THREE)
    {"testp_finite_f32", "p=w", testp_finite_f32, K_PLAIN, -1}, {"testp_infinite_f32", "p=w", testp_infinite_f32, K_PLAIN, -1},
    {"testp_number_f32", "p=w", testp_number_f32, K_PLAIN, -1}, {"testp_notanumber_f32", "p=w", testp_notanumber_f32, K_PLAIN, -1},
    {"testp_normal_f32", "p=w", testp_normal_f32, K_PLAIN, -1}, {"testp_subnormal_f32", "p=w", testp_subnormal_f32, K_PLAIN, -1},
    {NULL, NULL, NULL, 0, 0},
};
