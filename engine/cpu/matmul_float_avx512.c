/* Tiles of float matrices in AVX-512: 16 outputs are one register, up to 16 columns are 16 accumulators, so that a load of
 * weights meets every column and the dot products' latency is hidden.
 *
 * BF16 exists twice with the same bits: one vdpbf16ps for a pair of inputs (twice the rate of f32) where the processor has
 * it, and two fma with FTZ and DAZ set for the length of a tile where it has not (matmul_float_generic.c says why they
 * agree). The mode is the thread's; it is put back before anything else runs. */
#include "engine/cpu/tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define INL static inline __attribute__((always_inline))
#define BF16 __attribute__((target("avx512bf16")))
enum { FTZ_DAZ = 0x8040 };

INL __m512i ld(const uint8_t *p) { return _mm512_loadu_si512(p); }
INL __m512 bc_f(const float *p) { return _mm512_set1_ps(*p); }
INL __m512i bc_i(const int32_t *p) { return _mm512_set1_epi32(*p); }
/* The halves of pairs as f32. */
INL __m512 even(__m512i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
INL __m512 odd(__m512i v) { return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u))); }

INL void prefetch(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
INL void put(const __m512 *acc, const int n, float *out, size_t stride) {
#pragma GCC unroll 16
    for (int c = 0; c < n; c++) _mm512_storeu_ps(out + (size_t)c * stride, acc[c]);
}
INL void zero(__m512 *acc, const int n) {
#pragma GCC unroll 16
    for (int c = 0; c < n; c++) acc[c] = _mm512_setzero_ps();
}

/* Columns c0..c0+n-1 of a group of g; x is the group from column c0 on. */
#define KERNEL_ARGS const uint8_t *w, int steps, const uint8_t *next, const void *group, float *out, size_t stride, const int g, const int n
#define FLOATS(f, attr, type, bytes, load, step) \
    attr INL void f##_g(KERNEL_ARGS) { \
        const type *x = group; \
        __m512 acc[QN_GROUP]; \
        zero(acc, n); \
        for (int s = 0; s < steps; s++, w += bytes, x += g) { \
            load; \
            if (s % (64 / bytes) == 0) prefetch(qn_tile_ahead(w, next, s, steps, bytes)); \
            _Pragma("GCC unroll 16") for (int c = 0; c < n; c++) { step; } \
        } \
        put(acc, n, out, stride); \
    }
FLOATS(f32, , float, 64, __m512 v = _mm512_loadu_ps(w), acc[c] = _mm512_fmadd_ps(v, bc_f(x + c), acc[c]))
FLOATS(f16, , float, 32, __m512 v = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)w)), acc[c] = _mm512_fmadd_ps(v, bc_f(x + c), acc[c]))
FLOATS(dot, BF16, int32_t, 64, __m512bh v = (__m512bh)ld(w), acc[c] = _mm512_dpbf16_ps(acc[c], v, (__m512bh)bc_i(x + c)))
FLOATS(two, , int32_t, 64, __m512i v = ld(w); __m512 w0 = even(v); __m512 w1 = odd(v),
       acc[c] = _mm512_fmadd_ps(w1, odd(bc_i(x + c)), acc[c]); acc[c] = _mm512_fmadd_ps(w0, even(bc_i(x + c)), acc[c]))

#if defined(QN_FEW_KERNELS)
#define COLS(f, attr) \
    attr static __attribute__((noinline)) void f##_cols(QN_TILE_ARGS) { \
        const uint32_t *x = group; \
        int c = 0; \
        for (; c + 4 <= g; c += 4) f##_g(w, steps, next, x + c, out + (size_t)c * stride, stride, g, 4); \
        for (; c < g; c++) f##_g(w, steps, next, x + c, out + (size_t)c * stride, stride, g, 1); \
    }
#else
#define ONE(f, attr, n) \
    attr static __attribute__((noinline)) void f##_##n(const uint8_t *w, int steps, const uint8_t *next, const void *group, float *out, size_t stride) { \
        f##_g(w, steps, next, group, out, stride, n, n); \
    }
#define COLS(f, attr) \
    ONE(f, attr, 1) ONE(f, attr, 2) ONE(f, attr, 3) ONE(f, attr, 4) ONE(f, attr, 5) ONE(f, attr, 6) ONE(f, attr, 7) ONE(f, attr, 8) \
    ONE(f, attr, 9) ONE(f, attr, 10) ONE(f, attr, 11) ONE(f, attr, 12) ONE(f, attr, 13) ONE(f, attr, 14) ONE(f, attr, 15) ONE(f, attr, 16) \
    static __attribute__((noinline)) void f##_cols(QN_TILE_ARGS) { \
        static void (*const by_g[QN_GROUP])(const uint8_t *, int, const uint8_t *, const void *, float *, size_t) = { \
            f##_1, f##_2, f##_3, f##_4, f##_5, f##_6, f##_7, f##_8, f##_9, f##_10, f##_11, f##_12, f##_13, f##_14, f##_15, f##_16 }; \
        by_g[g - 1](w, steps, next, group, out, stride); \
    }
#endif
COLS(f32, )
COLS(f16, )
COLS(dot, BF16)
COLS(two, )

void qn_tile_f32_avx512(QN_TILE_ARGS) { f32_cols(w, steps, next, group, g, out, stride); }
void qn_tile_f16_avx512(QN_TILE_ARGS) { f16_cols(w, steps, next, group, g, out, stride); }
void qn_tile_bf16_avx512_bf16(QN_TILE_ARGS) { dot_cols(w, steps, next, group, g, out, stride); }
void qn_tile_bf16_avx512(QN_TILE_ARGS) { /* noinline above: nothing may move out of the span in which the mode is set */
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | FTZ_DAZ);
    two_cols(w, steps, next, group, g, out, stride);
    _mm_setcsr(mode);
}

#endif
