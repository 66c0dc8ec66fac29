/* Tiles of float matrices in AVX2 and FMA: 16 outputs are two registers, up to four columns go abreast, so that the sums
 * stay in registers.
 *
 * BF16 runs as two fma a pair with FTZ and DAZ set for the length of a tile: bit for bit what vdpbf16ps does
 * (matmul_float_generic.c), at the speed of f32. The mode is the thread's; it is put back before anything else runs. */
#include "engine/cpu/tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define INL static inline __attribute__((always_inline))
enum { COLS_MAX = 4, FTZ_DAZ = 0x8040 };

struct pair { __m256 a, b; }; /* 16 lanes */

INL struct pair p_set1(float x) { return (struct pair){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
INL struct pair p_fma(struct pair x, struct pair y, struct pair z) {
    return (struct pair){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) };
}
INL struct pair p_load(const float *p) { return (struct pair){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
INL void p_store(float *p, struct pair x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
INL struct pair ld_f16(const uint8_t *p) {
    return (struct pair){ _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16))) };
}
INL __m256i ld(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INL void prefetch(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
/* The halves of pairs as f32. */
INL __m256 even(__m256i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
INL __m256 odd(__m256i v) { return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u))); }

#define ARGS const uint8_t *w, int steps, const uint8_t *next, const void *group, int g, float *out, size_t stride, const int n

INL void bf16_n(ARGS) {
    const int32_t *x = group;
    struct pair acc[COLS_MAX];
    for (int c = 0; c < n; c++) acc[c] = p_set1(0.0f);
    for (int s = 0; s < steps; s++, w += 64, x += g) {
        __m256i v0 = ld(w), v1 = ld(w + 32);
        prefetch(qn_tile_ahead(w, next, s, steps, 64));
        struct pair w0 = { even(v0), even(v1) }, w1 = { odd(v0), odd(v1) };
        for (int c = 0; c < n; c++) {
            __m256i xc = _mm256_set1_epi32(x[c]);
            __m256 x0 = even(xc), x1 = odd(xc);
            acc[c] = p_fma(w1, (struct pair){ x1, x1 }, acc[c]);
            acc[c] = p_fma(w0, (struct pair){ x0, x0 }, acc[c]);
        }
    }
    for (int c = 0; c < n; c++) p_store(out + (size_t)c * stride, acc[c]);
}

#define FLOATS(f, bytes, load) \
    INL void f##_n(ARGS) { \
        const float *x = group; \
        struct pair acc[COLS_MAX]; \
        for (int c = 0; c < n; c++) acc[c] = p_set1(0.0f); \
        for (int s = 0; s < steps; s++, w += bytes, x += g) { \
            struct pair v = load; \
            if (s % (64 / bytes) == 0) prefetch(qn_tile_ahead(w, next, s, steps, bytes)); \
            for (int c = 0; c < n; c++) acc[c] = p_fma(v, p_set1(x[c]), acc[c]); \
        } \
        for (int c = 0; c < n; c++) p_store(out + (size_t)c * stride, acc[c]); \
    }
FLOATS(f32, 64, p_load((const float *)w))
FLOATS(f16, 32, ld_f16(w))

/* Not inlined: nothing of it may move out of the span in which the mode is set. */
#define COLS(f) \
    static __attribute__((noinline)) void f##_cols(QN_TILE_ARGS) { \
        const uint32_t *x = group; \
        int c = 0; \
        for (; c + 4 <= g; c += 4) f##_n(w, steps, next, x + c, g, out + (size_t)c * stride, stride, 4); \
        if (g - c == 3) f##_n(w, steps, next, x + c, g, out + (size_t)c * stride, stride, 3); \
        if (g - c == 2) f##_n(w, steps, next, x + c, g, out + (size_t)c * stride, stride, 2); \
        if (g - c == 1) f##_n(w, steps, next, x + c, g, out + (size_t)c * stride, stride, 1); \
    }
COLS(f32)
COLS(f16)
COLS(bf16)

void qn_tile_f32_avx2(QN_TILE_ARGS) { f32_cols(w, steps, next, group, g, out, stride); }
void qn_tile_f16_avx2(QN_TILE_ARGS) { f16_cols(w, steps, next, group, g, out, stride); }
void qn_tile_bf16_avx2(QN_TILE_ARGS) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | FTZ_DAZ);
    bf16_cols(w, steps, next, group, g, out, stride);
    _mm_setcsr(mode);
}

#endif
