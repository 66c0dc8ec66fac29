/* Matrix tiles in AVX-512 with VNNI: 16 outputs are one register, up to 16 columns are 16 accumulators.
 *
 * A block of 32 inputs is unpacked once into eight registers and meets every column: eight vpdpbusd on the column's bytes
 * (broadcast four at a time by the load), one conversion, and the products of matmul_generic.c. On Zen 4 vpdpbusd and fma
 * share two pipes, so a symmetric block of a column costs ten of their slots, one with a minimum eleven: 80 % and 73 % of
 * the peak are the ceilings. An offset costs nothing: quants are moved to the top of their byte, which makes every offset
 * 128, and the record's n = -128 * sum(q) is what the integer sum starts from (the scale takes the power of two back).
 *
 * Each kernel exists for 1..16 columns, since accumulators must be registers that the compiler can name (sanitizers take
 * minutes over that: with QN_FEW_KERNELS there are those for 4 and for 1, called in turn). Four columns go abreast to hide
 * vpdpbusd's latency. Bits agree with matmul_generic.c. */
#include "engine/cpu/tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define INL static inline __attribute__((always_inline))
enum { ABREAST = 4, REC_AHEAD = 6 };

struct blk { /* 32 inputs of 16 outputs */
    __m512i w[8];
    __m512 s0, s1, m0, m1;
};

INL __m512i ld(const uint8_t *p) { return _mm512_loadu_si512(p); }
INL __m512 ld_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INL __m512 ld_u8(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INL __m512 ld_s8(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INL __m512i bc_i(const int32_t *p) { return _mm512_set1_epi32(*p); }
INL __m512 bc_f(const float *p) { return _mm512_set1_ps(*p); }
/* a | (b & mask) */
INL __m512i or_and(__m512i a, __m512i b, __m512i mask) { return _mm512_ternarylogic_epi64(a, b, mask, 0xF8); }

/* Quants as they are, for formats with a minimum. */
INL void low_nibbles(__m512i w[8], const uint8_t *p) {
    const __m512i m = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i v = ld(p + j * 64);
        w[j] = _mm512_and_si512(v, m);
        w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), m);
    }
}
/* Quants << up, up 1..4. */
INL void high_nibbles(__m512i w[8], const uint8_t *p, const int up) {
    const __m512i m = _mm512_set1_epi8((char)(15 << up));
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i v = ld(p + j * 64);
        w[j] = _mm512_and_si512(_mm512_slli_epi16(v, (unsigned)up), m);
        w[j + 4] = _mm512_and_si512(up == 4 ? v : _mm512_srli_epi16(v, (unsigned)(4 - up)), m);
    }
}
/* w[i] |= bit i of each byte, moved to bit `at` (4 or 7). */
INL void or_bit(__m512i w[8], const uint8_t *p, const int at) {
    const __m512i h = ld(p), m = _mm512_set1_epi8((char)(1 << at));
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        w[i] = or_and(w[i], i <= at ? _mm512_slli_epi16(h, (unsigned)(at - i)) : _mm512_srli_epi16(h, (unsigned)(i - at)), m);
}
/* Two bits each, to bits at, at+1 (0 or 6). */
INL void or_pairs(__m512i w[8], const uint8_t *p, const int at) {
    const __m512i m = _mm512_set1_epi8((char)(3 << at));
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const int from = 2 * (i & 3);
        __m512i v = ld(p + i / 4 * 64);
        w[i] = or_and(w[i], from <= at ? _mm512_slli_epi16(v, (unsigned)(at - from)) : _mm512_srli_epi16(v, (unsigned)(from - at)), m);
    }
}

INL void open_q4s(struct blk *b, const uint8_t *p) {
    high_nibbles(b->w, p, 4);
    b->s0 = _mm512_mul_ps(ld_f16(p + 256), _mm512_set1_ps(0x1p-4f));
}
INL void open_q4n(struct blk *b, const uint8_t *p) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153, (char)166,
                                                               (char)181, (char)197, (char)217, (char)241));
    low_nibbles(b->w, p);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) b->w[i] = _mm512_shuffle_epi8(table, b->w[i]);
    b->s0 = ld_f16(p + 256);
}
INL void open_q4a(struct blk *b, const uint8_t *p) {
    low_nibbles(b->w, p);
    b->s0 = ld_f16(p + 256), b->m0 = ld_f16(p + 288);
}
INL void open_q5s(struct blk *b, const uint8_t *p) {
    high_nibbles(b->w, p, 3), or_bit(b->w, p + 256, 7);
    b->s0 = _mm512_mul_ps(ld_f16(p + 320), _mm512_set1_ps(0x1p-3f));
}
INL void open_q5a(struct blk *b, const uint8_t *p) {
    low_nibbles(b->w, p), or_bit(b->w, p + 256, 4);
    b->s0 = ld_f16(p + 320), b->m0 = ld_f16(p + 352);
}
INL void open_q8s(struct blk *b, const uint8_t *p) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) b->w[i] = ld(p + i * 64);
    b->s0 = ld_f16(p + 512);
}

/* K formats: d and dmin are the step's, the rest is block i's. */
struct step { __m512 d, dmin; };

INL void step_k2(struct step *s, const uint8_t *p) {
    s->d = ld_f16(p + 1536);
    s->dmin = _mm512_mul_ps(ld_f16(p + 1568), _mm512_set1_ps(0x1p-7f));
}
INL void open_k2(struct blk *b, const struct step *s, const uint8_t *p, int i) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) b->w[j] = _mm512_setzero_si512();
    or_pairs(b->w, p + i * 128, 0);
    const uint8_t *q = p + 1024 + i * 32;
    b->s0 = _mm512_mul_ps(s->d, ld_u8(q)), b->s1 = _mm512_mul_ps(s->d, ld_u8(q + 16));
    b->m0 = _mm512_mul_ps(s->dmin, ld_u8(q + 256)), b->m1 = _mm512_mul_ps(s->dmin, ld_u8(q + 272));
}
INL void step_k4(struct step *s, const uint8_t *p) {
    s->d = ld_f16(p + 2304), s->dmin = _mm512_sub_ps(_mm512_setzero_ps(), ld_f16(p + 2336));
}
INL void open_k4(struct blk *b, const struct step *s, const uint8_t *p, int i) {
    low_nibbles(b->w, p + i * 256);
    b->s0 = _mm512_mul_ps(s->d, ld_u8(p + 2048 + i * 16)), b->m0 = _mm512_mul_ps(s->dmin, ld_u8(p + 2176 + i * 16));
}
INL void step_k5(struct step *s, const uint8_t *p) {
    s->d = ld_f16(p + 2816), s->dmin = _mm512_sub_ps(_mm512_setzero_ps(), ld_f16(p + 2848));
}
INL void open_k5(struct blk *b, const struct step *s, const uint8_t *p, int i) {
    low_nibbles(b->w, p + i * 256), or_bit(b->w, p + 2048 + i * 64, 4);
    b->s0 = _mm512_mul_ps(s->d, ld_u8(p + 2560 + i * 16)), b->m0 = _mm512_mul_ps(s->dmin, ld_u8(p + 2688 + i * 16));
}
INL void step_k6(struct step *s, const uint8_t *p) { s->d = _mm512_mul_ps(_mm512_loadu_ps(p + 3328), _mm512_set1_ps(0x1p-2f)); }
INL void open_k6(struct blk *b, const struct step *s, const uint8_t *p, int i) {
    high_nibbles(b->w, p + i * 256, 2), or_pairs(b->w, p + 2048 + i * 128, 6);
    b->s0 = _mm512_mul_ps(s->d, ld_s8(p + 3072 + i * 32)), b->s1 = _mm512_mul_ps(s->d, ld_s8(p + 3088 + i * 32));
}

enum kind { SYM32, MIN32, SYM16, MIN16 };

/* acc[0..n) += block times columns c0..c0+n-1; rec is the block's record of a group of g columns. */
INL void cols(const struct blk *b, const uint8_t *rec, const int g, const int c0, const int n, const enum kind kind, __m512 *acc) {
    const float *d = (const float *)(rec + g * 32), *ds = d + g;
    const int32_t *nn = (const int32_t *)(ds + g);
    __m512i i0[ABREAST], i1[ABREAST];
#pragma GCC unroll 4
    for (int c = 0; c < n; c++) {
        i0[c] = kind == SYM32 ? bc_i(nn + c0 + c) : kind == SYM16 ? bc_i(nn + g + c0 + c) : _mm512_setzero_si512();
        i1[c] = kind == SYM16 ? bc_i(nn + 2 * g + c0 + c) : _mm512_setzero_si512();
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            __m512i a = bc_i((const int32_t *)(rec + (c0 + c) * 32 + i * 4));
            if (kind >= SYM16 && i >= 4) i1[c] = _mm512_dpbusd_epi32(i1[c], b->w[i], a);
            else i0[c] = _mm512_dpbusd_epi32(i0[c], b->w[i], a);
        }
#pragma GCC unroll 4
    for (int c = 0; c < n; c++) {
        const int at = c0 + c;
        __m512 t = _mm512_cvtepi32_ps(i0[c]);
        if (kind <= MIN32) {
            acc[c] = _mm512_fmadd_ps(t, _mm512_mul_ps(b->s0, bc_f(d + at)), acc[c]);
            if (kind == MIN32) acc[c] = _mm512_fmadd_ps(b->m0, bc_f(ds + at), acc[c]);
        } else {
            t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(i1[c]), b->s1, _mm512_mul_ps(t, b->s0));
            if (kind == MIN16) {
                t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(bc_i(nn + g + at)), b->m0, t);
                t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(bc_i(nn + 2 * g + at)), b->m1, t);
            }
            acc[c] = _mm512_fmadd_ps(t, bc_f(d + at), acc[c]);
        }
    }
}

/* Columns c0..c0+n-1 of the group. */
INL void all_cols(const struct blk *b, const uint8_t *rec, const int g, const int c0, const int n, const enum kind kind, __m512 *acc) {
#pragma GCC unroll 4
    for (int c = 0; c < n; c += ABREAST) cols(b, rec, g, c0 + c, n - c < ABREAST ? n - c : ABREAST, kind, acc + c);
}

INL void prefetch(const uint8_t *p, const int bytes) {
#pragma GCC unroll 16
    for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

/* The record of a full group that comes six blocks later, into L1. When there are many rows, a group's records come from L3,
 * and by themselves the broadcasts wait for it: 2..6 % of 512 rows. */
INL void prefetch_rec(const uint8_t *rec, const int g) {
    if (g < 8) return;
#pragma GCC unroll 16
    for (int i = 0; i < g * QN_AREC; i += 64) _mm_prefetch((const char *)rec + REC_AHEAD * g * QN_AREC + i, _MM_HINT_T0);
}

INL void put(const __m512 *acc, const int n, float *out, size_t stride) {
#pragma GCC unroll 16
    for (int c = 0; c < n; c++) _mm512_storeu_ps(out + (size_t)c * stride, acc[c]);
}

INL void zero(__m512 *acc, const int n) {
#pragma GCC unroll 16
    for (int c = 0; c < n; c++) acc[c] = _mm512_setzero_ps();
}

/* Kernels for columns c0..c0+n-1 of a group of g, for formats with steps of 32 and of 256 inputs. */
#define KERNEL_ARGS const uint8_t *w, int steps, const uint8_t *next, const uint8_t *group, float *out, size_t stride, const int g, const int c0, const int n
#define BLOCKS32(f, kind, bytes) \
    INL void f##_g(KERNEL_ARGS) { \
        const uint8_t *rec = group; \
        __m512 acc[QN_GROUP]; \
        zero(acc, n); \
        for (int s = 0; s < steps; s++, w += bytes, rec += g * QN_AREC) { \
            struct blk b; \
            prefetch_rec(rec, g); \
            prefetch(qn_tile_ahead(w, next, s, steps, bytes), bytes); \
            open_##f(&b, w); \
            all_cols(&b, rec, g, c0, n, kind, acc); \
        } \
        put(acc, n, out, stride); \
    }
#define BLOCKS256(f, kind, bytes) \
    INL void f##_g(KERNEL_ARGS) { \
        const uint8_t *rec = group; \
        __m512 acc[QN_GROUP]; \
        zero(acc, n); \
        for (int s = 0; s < steps; s++, w += bytes) { \
            struct step st; \
            const uint8_t *ahead = qn_tile_ahead(w, next, s, steps, bytes); \
            step_##f(&st, w); \
            for (int i = 0; i < 8; i++, rec += g * QN_AREC) { \
                struct blk b; \
                prefetch_rec(rec, g); \
                prefetch(ahead + i * (bytes / 8), bytes / 8); \
                open_##f(&b, &st, w, i); \
                all_cols(&b, rec, g, c0, n, kind, acc); \
            } \
        } \
        put(acc, n, out, stride); \
    }

BLOCKS32(q4s, SYM32, 288)
BLOCKS32(q4n, SYM32, 288)
BLOCKS32(q4a, MIN32, 320)
BLOCKS32(q5s, SYM32, 352)
BLOCKS32(q5a, MIN32, 384)
BLOCKS32(q8s, SYM32, 544)
BLOCKS256(k2, MIN16, 1600)
BLOCKS256(k4, MIN32, 2368)
BLOCKS256(k5, MIN32, 2880)
BLOCKS256(k6, SYM16, 3392)

#if defined(QN_FEW_KERNELS)
#define TILE(isa, F, f) \
    void qn_tile_##f##_avx512(QN_TILE_ARGS) { \
        int c = 0; \
        for (; c + 4 <= g; c += 4) f##_g(w, steps, next, group, out + (size_t)c * stride, stride, g, c, 4); \
        for (; c < g; c++) f##_g(w, steps, next, group, out + (size_t)c * stride, stride, g, c, 1); \
    }
#else
#define ONE(f, n) \
    static __attribute__((noinline)) void f##_##n(const uint8_t *w, int steps, const uint8_t *next, const uint8_t *group, float *out, size_t stride) { \
        f##_g(w, steps, next, group, out, stride, n, 0, n); \
    }
#define TILE(isa, F, f) \
    ONE(f, 1) ONE(f, 2) ONE(f, 3) ONE(f, 4) ONE(f, 5) ONE(f, 6) ONE(f, 7) ONE(f, 8) \
    ONE(f, 9) ONE(f, 10) ONE(f, 11) ONE(f, 12) ONE(f, 13) ONE(f, 14) ONE(f, 15) ONE(f, 16) \
    void qn_tile_##f##_avx512(QN_TILE_ARGS) { \
        static void (*const by_g[QN_GROUP])(const uint8_t *, int, const uint8_t *, const uint8_t *, float *, size_t) = { \
            f##_1, f##_2, f##_3, f##_4, f##_5, f##_6, f##_7, f##_8, f##_9, f##_10, f##_11, f##_12, f##_13, f##_14, f##_15, f##_16 }; \
        by_g[g - 1](w, steps, next, group, out, stride); \
    }
#endif
QN_EACH_BLOCK(TILE, avx512)
#endif
