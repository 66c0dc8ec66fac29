/* The same way from file blocks to lane order as repack.c, sixteen outputs at once: what start-up time is made of.
 *
 * In lane order a 64-byte vector holds the same four bytes of sixteen outputs, so it is enough to load the files' blocks
 * as dwords, to transpose sixteen outputs' worth of them, and to do the rest (splitting nibbles, gathering fifth bits and
 * pairs, unpacking scales) on whole vectors. Written in the compilers' vector extension: about as fast as memory in plain
 * SSE2, so there is one version for all instruction sets. Whole tiles of the types below only; repack.c does the rest and is
 * the yardstick. */
#include <string.h>

#include "engine/cpu/half.h"
#include "engine/cpu/repack.h"

typedef uint32_t lanes __attribute__((vector_size(64)));
typedef uint32_t quad __attribute__((vector_size(16)));

enum { LANE_BYTES = 64 };

static const uint32_t LOW = 0x0f0f0f0fu, HIGH = 0xf0f0f0f0u, PAIR = 0x03030303u, ONE = 0x01010101u;

/* t[j] = dword j of the 16 bytes at p in each output's row. */
static inline void across(lanes *t, const uint8_t *p, size_t row) {
    for (int l = 0; l < 16; l += 4) {
        quad a, b, c, d;
        memcpy(&a, p + (size_t)(l + 0) * row, 16);
        memcpy(&b, p + (size_t)(l + 1) * row, 16);
        memcpy(&c, p + (size_t)(l + 2) * row, 16);
        memcpy(&d, p + (size_t)(l + 3) * row, 16);
        quad ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        quad cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        quad out[4] = { __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5), __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7),
                        __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5), __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7) };
        for (int j = 0; j < 4; j++) memcpy((uint8_t *)&t[j] + l * 4, &out[j], 16);
    }
}
static inline void across_n(lanes *t, const uint8_t *p, size_t row, int n_quads) {
    for (int i = 0; i < n_quads; i++) across(t + 4 * i, p + 16 * i, row);
}

static inline void put(uint8_t *o, const lanes *v) { memcpy(o, v, LANE_BYTES); }

/* f16 `at` bytes into each output's row. */
static inline void halves(uint8_t *o, const uint8_t *p, size_t row) {
    for (int l = 0; l < 16; l++) memcpy(o + 2 * l, p + (size_t)l * row, 2);
}

/* 32 quants of four bits from t[0..7]: those in the low nibbles, or those in the high ones. */
static inline void nibbles_low(uint8_t *o, const lanes *t) {
    for (int j = 0; j < 4; j++) {
        lanes v = (t[j] & LOW) | (t[j + 4] & LOW) << 4;
        put(o + j * LANE_BYTES, &v);
    }
}
static inline void nibbles_high(uint8_t *o, const lanes *t) {
    for (int j = 0; j < 4; j++) {
        lanes v = (t[j] >> 4 & LOW) | (t[j + 4] & HIGH);
        put(o + j * LANE_BYTES, &v);
    }
}

/* Bit `at` of each byte of t[0..7]. */
static inline void bits_of(uint8_t *o, const lanes *t, int at) {
    lanes v = t[0] >> at & ONE;
    for (int i = 1; i < 8; i++) v |= (t[i] >> at & ONE) << i;
    put(o, &v);
}

/* Two bits from `at` on of each byte of t[0..7]. */
static inline void pairs_of(uint8_t *o, const lanes *t, int at) {
    for (int h = 0; h < 2; h++) {
        lanes v = t[4 * h] >> at & PAIR;
        for (int i = 1; i < 4; i++) v |= (t[4 * h + i] >> at & PAIR) << (2 * i);
        put(o + h * LANE_BYTES, &v);
    }
}

/* Each dword's bytes to four runs of sixteen bytes. */
static inline void bytes_of(uint8_t *o, const lanes *t) {
    for (int k = 0; k < 4; k++)
        for (int l = 0; l < 16; l++) o[k * 16 + l] = (uint8_t)((*t)[l] >> (8 * k));
}

/* Bits 4i + j of a dword to 8j + i: two unshuffles (Warren, Hacker's Delight, 7-2). */
static inline void swap_bits(lanes *x, uint32_t mask, int by) {
    lanes y = (*x ^ *x >> by) & mask;
    *x ^= y ^ y << by;
}
static inline void fifth_bits(uint8_t *o, const uint8_t *p, size_t row) {
    lanes x;
    for (int l = 0; l < 16; l++) memcpy((uint8_t *)&x + 4 * l, p + (size_t)l * row, 4);
    for (int i = 0; i < 2; i++) {
        swap_bits(&x, 0x22222222u, 1);
        swap_bits(&x, 0x0c0c0c0cu, 2);
        swap_bits(&x, 0x00f000f0u, 4);
        swap_bits(&x, 0x0000ff00u, 8);
    }
    put(o, &x);
}

/* Sixteen bytes that are two nibble quants each are a nibble plane already, but for their order. */
static inline void plane(uint8_t *o, const uint8_t *p, size_t row) {
    lanes t[4];
    across(t, p, row);
    for (int j = 0; j < 4; j++) put(o + j * LANE_BYTES, &t[j]);
}

/* ---- one step of each type: p is output 0's block, row the way to the next output's ---- */

static void wide_q4_0(uint8_t *o, const uint8_t *p, size_t row) { plane(o, p + 2, row), halves(o + 256, p, row); }
static void wide_q4_1(uint8_t *o, const uint8_t *p, size_t row) {
    plane(o, p + 4, row), halves(o + 256, p, row), halves(o + 288, p + 2, row);
}
static void wide_q5_0(uint8_t *o, const uint8_t *p, size_t row) {
    plane(o, p + 6, row), fifth_bits(o + 256, p + 2, row), halves(o + 320, p, row);
}
static void wide_q5_1(uint8_t *o, const uint8_t *p, size_t row) {
    plane(o, p + 8, row), fifth_bits(o + 256, p + 4, row), halves(o + 320, p, row), halves(o + 352, p + 2, row);
}
static void wide_q8_0(uint8_t *o, const uint8_t *p, size_t row) {
    lanes t[8];
    across_n(t, p + 2, row, 2);
    for (int j = 0; j < 8; j++) {
        lanes v = t[j] ^ 0x80808080u;
        put(o + j * LANE_BYTES, &v);
    }
    halves(o + 512, p, row);
}

/* d, dmin, and twelve bytes of six-bit scales and mins: [s] x 8, [m] x 8, [d][dmin]. */
static void head_k(uint8_t *o, const uint8_t *p, size_t row) {
    lanes t[4], s[4];
    across(t, p, row);
    s[0] = t[1] & 0x3f3f3f3fu;
    s[1] = (t[3] & LOW) | (t[1] >> 2 & 0x30303030u);
    s[2] = t[2] & 0x3f3f3f3fu;
    s[3] = (t[3] >> 4 & LOW) | (t[2] >> 2 & 0x30303030u);
    for (int i = 0; i < 4; i++) bytes_of(o + i * 64, &s[i]);
    halves(o + 256, p, row), halves(o + 288, p + 2, row);
}
static void nibbles_k(uint8_t *o, const uint8_t *p, size_t row) {
    for (int i = 0; i < 4; i++) {
        lanes t[8];
        across_n(t, p + 32 * i, row, 2);
        nibbles_low(o + i * 512, t), nibbles_high(o + i * 512 + 256, t);
    }
}
static void wide_q4_k(uint8_t *o, const uint8_t *p, size_t row) { nibbles_k(o, p + 16, row), head_k(o + 2048, p, row); }
static void wide_q5_k(uint8_t *o, const uint8_t *p, size_t row) {
    lanes t[8];
    nibbles_k(o, p + 48, row);
    across_n(t, p + 16, row, 2);
    for (int b = 0; b < 8; b++) bits_of(o + 2048 + b * 64, t, b);
    head_k(o + 2560, p, row);
}
static void wide_q6_k(uint8_t *o, const uint8_t *p, size_t row) {
    lanes t[8], s[4];
    for (int i = 0; i < 4; i++) { /* 32 bytes of low nibbles are blocks b and b + 2 of their half */
        uint8_t *b = o + (i / 2 * 4 + i % 2) * 256;
        across_n(t, p + 32 * i, row, 2);
        nibbles_low(b, t), nibbles_high(b + 512, t);
    }
    for (int h = 0; h < 2; h++) {
        across_n(t, p + 128 + 32 * h, row, 2);
        for (int k = 0; k < 4; k++) pairs_of(o + 2048 + (4 * h + k) * 128, t, 2 * k);
    }
    across(s, p + 192, row);
    for (int i = 0; i < 4; i++) bytes_of(o + 3072 + i * 64, &s[i]);
    for (int l = 0; l < 16; l++) {
        uint16_t h;
        memcpy(&h, p + (size_t)l * row + 208, 2);
        float d = qn_half_f32(h);
        memcpy(o + 3328 + 4 * l, &d, 4);
    }
}

typedef void wide_fn(uint8_t *o, const uint8_t *p, size_t row);

static const struct { enum qn_type type; wide_fn *fn; } wide[] = {
    { QN_Q4_0, wide_q4_0 }, { QN_IQ4_NL, wide_q4_0 }, { QN_Q4_1, wide_q4_1 }, { QN_Q5_0, wide_q5_0 }, { QN_Q5_1, wide_q5_1 },
    { QN_Q8_0, wide_q8_0 }, { QN_Q4_K, wide_q4_k },   { QN_Q5_K, wide_q5_k }, { QN_Q6_K, wide_q6_k },
};

int qn_repack_wide(enum qn_type type, const uint8_t *p, size_t row_bytes, int block_bytes, int steps, int step_bytes, uint8_t *out) {
    wide_fn *fn = NULL;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (wide[i].type == type) fn = wide[i].fn;
    if (!fn) return 0;
    for (int i = 0; i < steps; i++) fn(out + (size_t)i * (size_t)step_bytes, p + (size_t)i * (size_t)block_bytes, row_bytes);
    return 1;
}
