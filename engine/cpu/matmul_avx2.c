/* Matrix tiles in AVX2: 16 outputs are two registers, and vpmaddubsw (u8 x s8, pairs summed in s16 with saturation) takes
 * the place of vpdpbusd.
 *
 * A block's quants are unpacked once into 512 bytes of stack that every column then reads from L1; with sixteen registers
 * that beats keeping them. Quants stay small (offsets are taken off the sum afterwards), so that several products fit
 * 16 bits before they are widened: 8 of nibbles (8 * 2*15*127 = 30480), 4 of five bits (31496), 2 of six (32004). Eight
 * bits fit only as |w| times the activation with w's sign (2 * 128*127 = 32512), one at a time. Nothing ever saturates, so
 * sums are exact and bits agree with matmul_generic.c, which has the order of the rest. */
#include "engine/cpu/tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define INL static inline __attribute__((always_inline))

struct pair { __m256 a, b; }; /* 16 lanes */
struct blk {
    _Alignas(32) uint8_t w[8][64];  /* unsigned quants, or |w| */
    _Alignas(32) int8_t sign[8][64];/* w itself, for eight bits */
    struct pair s0, s1, m0, m1;
};

INL __m256i ld(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INL void st(uint8_t *p, __m256i v) { _mm256_store_si256((__m256i *)p, v); }
INL struct pair p_set1(float x) { return (struct pair){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
INL struct pair p_mul(struct pair x, struct pair y) { return (struct pair){ _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b) }; }
INL struct pair p_fma(struct pair x, struct pair y, struct pair z) {
    return (struct pair){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) };
}
INL struct pair p_load(const float *p) { return (struct pair){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
INL void p_store(float *p, struct pair x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
INL struct pair ld_f16(const uint8_t *p) {
    return (struct pair){ _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16))) };
}
INL struct pair ld_u8(const uint8_t *p) {
    __m128i v = _mm_loadu_si128((const __m128i *)p);
    return (struct pair){ _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))) };
}
INL struct pair ld_s8(const uint8_t *p) {
    __m128i v = _mm_loadu_si128((const __m128i *)p);
    return (struct pair){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))) };
}

/* Unpacking: h is the half (32 bytes) of a plane's 64-byte vector. The planes beside the nibbles may be absent. */
INL void open_planes(struct blk *b, const uint8_t *nibbles, const uint8_t *bit, const uint8_t *pairs) {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 2
    for (int h = 0; h < 64; h += 32) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m256i v = _mm256_setzero_si256();
            if (nibbles) {
                v = ld(nibbles + (i & 3) * 64 + h);
                v = _mm256_and_si256(i < 4 ? v : _mm256_srli_epi16(v, 4), low);
            }
            if (bit) {
                __m256i x = ld(bit + h);
                x = i <= 4 ? _mm256_slli_epi16(x, 4 - i) : _mm256_srli_epi16(x, i - 4);
                v = _mm256_or_si256(v, _mm256_and_si256(x, _mm256_set1_epi8(16)));
            }
            if (pairs) {
                const int from = 2 * (i & 3), at = nibbles ? 4 : 0;
                __m256i x = ld(pairs + i / 4 * 64 + h);
                x = from <= at ? _mm256_slli_epi16(x, at - from) : _mm256_srli_epi16(x, from - at);
                v = _mm256_or_si256(v, _mm256_and_si256(x, _mm256_set1_epi8((char)(3 << at))));
            }
            st(&b->w[i][h], v);
        }
    }
}
INL void split_sign(struct blk *b, int i, int h, __m256i v) {
    st((uint8_t *)&b->sign[i][h], v), st(&b->w[i][h], _mm256_abs_epi8(v));
}

INL void open_q4s(struct blk *b, const uint8_t *p) { open_planes(b, p, NULL, NULL), b->s0 = ld_f16(p + 256); }
INL void open_q4n(struct blk *b, const uint8_t *p) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    open_planes(b, p, NULL, NULL);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        for (int h = 0; h < 64; h += 32) split_sign(b, i, h, _mm256_shuffle_epi8(table, ld(&b->w[i][h])));
    b->s0 = ld_f16(p + 256);
}
INL void open_q4a(struct blk *b, const uint8_t *p) { open_planes(b, p, NULL, NULL), b->s0 = ld_f16(p + 256), b->m0 = ld_f16(p + 288); }
INL void open_q5s(struct blk *b, const uint8_t *p) { open_planes(b, p, p + 256, NULL), b->s0 = ld_f16(p + 320); }
INL void open_q5a(struct blk *b, const uint8_t *p) { open_planes(b, p, p + 256, NULL), b->s0 = ld_f16(p + 320), b->m0 = ld_f16(p + 352); }
INL void open_q8s(struct blk *b, const uint8_t *p) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        for (int h = 0; h < 64; h += 32) split_sign(b, i, h, _mm256_xor_si256(ld(p + i * 64 + h), _mm256_set1_epi8(-128)));
    b->s0 = ld_f16(p + 512);
}

/* K formats: d and dmin are the step's, the rest is block i's. */
struct step { struct pair d, dmin; };

INL void step_k2(struct step *s, const uint8_t *p) { s->d = ld_f16(p + 1536), s->dmin = p_mul(ld_f16(p + 1568), p_set1(0x1p-7f)); }
INL void open_k2(struct blk *b, const struct step *s, const uint8_t *p, int i) {
    const uint8_t *q = p + 1024 + i * 32;
    open_planes(b, NULL, NULL, p + i * 128);
    b->s0 = p_mul(s->d, ld_u8(q)), b->s1 = p_mul(s->d, ld_u8(q + 16));
    b->m0 = p_mul(s->dmin, ld_u8(q + 256)), b->m1 = p_mul(s->dmin, ld_u8(q + 272));
}
INL void step_k4(struct step *s, const uint8_t *p) { s->d = ld_f16(p + 2304), s->dmin = p_mul(ld_f16(p + 2336), p_set1(-1.0f)); }
INL void open_k4(struct blk *b, const struct step *s, const uint8_t *p, int i) {
    open_planes(b, p + i * 256, NULL, NULL);
    b->s0 = p_mul(s->d, ld_u8(p + 2048 + i * 16)), b->m0 = p_mul(s->dmin, ld_u8(p + 2176 + i * 16));
}
INL void step_k5(struct step *s, const uint8_t *p) { s->d = ld_f16(p + 2816), s->dmin = p_mul(ld_f16(p + 2848), p_set1(-1.0f)); }
INL void open_k5(struct blk *b, const struct step *s, const uint8_t *p, int i) {
    open_planes(b, p + i * 256, p + 2048 + i * 64, NULL);
    b->s0 = p_mul(s->d, ld_u8(p + 2560 + i * 16)), b->m0 = p_mul(s->dmin, ld_u8(p + 2688 + i * 16));
}
INL void step_k6(struct step *s, const uint8_t *p) { s->d = p_load((const float *)(p + 3328)); }
INL void open_k6(struct blk *b, const struct step *s, const uint8_t *p, int i) {
    open_planes(b, p + i * 256, NULL, p + 2048 + i * 128);
    b->s0 = p_mul(s->d, ld_s8(p + 3072 + i * 32)), b->s1 = p_mul(s->d, ld_s8(p + 3088 + i * 32));
}

enum kind { SYM32, MIN32, SYM16, MIN16 };

/* Exact sum of W[i0..i1) times a column's bytes, for half h; `bits` of the quants say how many products fit 16 bits. */
INL __m256i dot(const struct blk *b, const uint8_t *q, const int i0, const int i1, const int h, const int bits) {
    const int run = bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256(), part = sum;
#pragma GCC unroll 8
    for (int i = i0; i < i1; i++) {
        int32_t four;
        memcpy(&four, q + i * 4, 4);
        __m256i a = _mm256_set1_epi32(four);
        if (bits == 8) a = _mm256_sign_epi8(a, ld((const uint8_t *)&b->sign[i][h]));
        __m256i m = _mm256_maddubs_epi16(_mm256_load_si256((const __m256i *)&b->w[i][h]), a);
        part = (i - i0) % run == 0 ? m : _mm256_add_epi16(part, m);
        if ((i - i0) % run == run - 1 || i == i1 - 1) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, ones));
    }
    return sum;
}

INL struct pair sums(const struct blk *b, const uint8_t *q, const int i0, const int i1, const int bits, int32_t off) {
    __m256i o = _mm256_set1_epi32(off);
    return (struct pair){ _mm256_cvtepi32_ps(_mm256_add_epi32(dot(b, q, i0, i1, 0, bits), o)),
                          _mm256_cvtepi32_ps(_mm256_add_epi32(dot(b, q, i0, i1, 32, bits), o)) };
}

INL void cols(const struct blk *b, const uint8_t *rec, int g, const enum kind kind, const int bits, const int offset, float (*acc)[16]) {
    const float *d = (const float *)(rec + g * 32), *ds = d + g;
    const int32_t *n = (const int32_t *)(ds + g), *n0 = n + g, *n1 = n0 + g;
    for (int c = 0; c < g; c++) {
        const uint8_t *q = rec + c * 32;
        struct pair a = p_load(acc[c]);
        if (kind <= MIN32) {
            a = p_fma(sums(b, q, 0, 8, bits, n[c] / 128 * offset), p_mul(b->s0, p_set1(d[c])), a);
            if (kind == MIN32) a = p_fma(b->m0, p_set1(ds[c]), a);
        } else {
            struct pair t = p_mul(sums(b, q, 0, 4, bits, n0[c] / 128 * offset), b->s0);
            t = p_fma(sums(b, q, 4, 8, bits, n1[c] / 128 * offset), b->s1, t);
            if (kind == MIN16) t = p_fma(p_set1((float)n0[c]), b->m0, t), t = p_fma(p_set1((float)n1[c]), b->m1, t);
            a = p_fma(t, p_set1(d[c]), a);
        }
        p_store(acc[c], a);
    }
}

INL void prefetch(const uint8_t *p, const int bytes) {
    for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

INL void put(float (*acc)[16], int g, float *out, size_t stride) {
    for (int c = 0; c < g; c++) p_store(out + (size_t)c * stride, p_load(acc[c]));
}

#define BLOCKS32(f, kind, bits, offset, bytes) \
    void qn_tile_##f##_avx2(QN_TILE_ARGS) { \
        const uint8_t *rec = group; \
        _Alignas(32) float acc[QN_GROUP][16] = { { 0 } }; \
        for (int s = 0; s < steps; s++, w += bytes, rec += g * QN_AREC) { \
            struct blk b; \
            prefetch(qn_tile_ahead(w, next, s, steps, bytes), bytes); \
            open_##f(&b, w); \
            cols(&b, rec, g, kind, bits, offset, acc); \
        } \
        put(acc, g, out, stride); \
    }
#define BLOCKS256(f, kind, bits, offset, bytes) \
    void qn_tile_##f##_avx2(QN_TILE_ARGS) { \
        const uint8_t *rec = group; \
        _Alignas(32) float acc[QN_GROUP][16] = { { 0 } }; \
        for (int s = 0; s < steps; s++, w += bytes) { \
            struct step st; \
            const uint8_t *ahead = qn_tile_ahead(w, next, s, steps, bytes); \
            step_##f(&st, w); \
            for (int i = 0; i < 8; i++, rec += g * QN_AREC) { \
                struct blk b; \
                prefetch(ahead + i * (bytes / 8), bytes / 8); \
                open_##f(&b, &st, w, i); \
                cols(&b, rec, g, kind, bits, offset, acc); \
            } \
        } \
        put(acc, g, out, stride); \
    }

BLOCKS32(q4s, SYM32, 4, 8, 288)
BLOCKS32(q4n, SYM32, 8, 0, 288)
BLOCKS32(q4a, MIN32, 4, 0, 320)
BLOCKS32(q5s, SYM32, 5, 16, 352)
BLOCKS32(q5a, MIN32, 5, 0, 384)
BLOCKS32(q8s, SYM32, 8, 0, 544)
BLOCKS256(k2, MIN16, 2, 0, 1600)
BLOCKS256(k4, MIN32, 4, 0, 2368)
BLOCKS256(k5, MIN32, 5, 0, 2880)
BLOCKS256(k6, SYM16, 6, 32, 3392)

#endif
