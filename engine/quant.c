/* What the bytes of a weight block mean, one function a type. Exact: each value is rounded where the reference
 * (gguf-py 0.19 `quants.py`, ggml-quants.c) rounds, so results agree bit for bit. Not fast and not meant to be: kernels
 * under cpu/ unpack on their own and are tested against this.
 *
 * A block is `block_elems` weights with their scales. The "K" types put 256 weights into a block of 8 or 16 sub-blocks,
 * whose own scales are small integers times one f16. All multi-byte numbers are little-endian, and so are the machines
 * that we build for. Thread: any; nothing here has state. */
#include "engine/quant.h"

#include <string.h>

static const struct qn_type_info infos[] = {
    [QN_F32] = {"F32", 1, 4},       [QN_F16] = {"F16", 1, 2},       [QN_Q4_0] = {"Q4_0", 32, 18},
    [QN_Q4_1] = {"Q4_1", 32, 20},   [QN_Q5_0] = {"Q5_0", 32, 22},   [QN_Q5_1] = {"Q5_1", 32, 24},
    [QN_Q8_0] = {"Q8_0", 32, 34},   [QN_Q2_K] = {"Q2_K", 256, 84},  [QN_Q3_K] = {"Q3_K", 256, 110},
    [QN_Q4_K] = {"Q4_K", 256, 144}, [QN_Q5_K] = {"Q5_K", 256, 176}, [QN_Q6_K] = {"Q6_K", 256, 210},
    [QN_IQ4_NL] = {"IQ4_NL", 32, 18}, [QN_BF16] = {"BF16", 1, 2},
};

const struct qn_type_info *qn_type_info(uint32_t type) {
    if (type >= sizeof infos / sizeof *infos || !infos[type].name) return NULL;
    return &infos[type];
}

static float bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float qn_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 0x3FF;
    if (e == 31) return bits_f32(sign | 0x7F800000u | m << 13);
    if (e > 0) return bits_f32(sign | (e + 112) << 23 | m << 13);
    float tiny = (float)m * 0x1p-24f; /* zero and subnormals: exact */
    return sign ? -tiny : tiny;
}

uint16_t qn_f32_to_f16(float f) {
    uint32_t u = f32_bits(f), sign = (u >> 16) & 0x8000, a = u & 0x7FFFFFFF;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00 | ((a >> 13) & 0x3FF)); /* NaN, quiet */
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00); /* 65520 and more round to infinity */
    if (a < 0x38800000u) { /* below 2^-14: a multiple of 2^-24; adding 0.5 leaves it in the low bits, rounded to even */
        uint32_t r = f32_bits(bits_f32(a) + 0.5f) - f32_bits(0.5f);
        return (uint16_t)(sign | r);
    }
    uint32_t r = a - (112u << 23) + 0xFFF + ((a >> 13) & 1);
    return (uint16_t)(sign | r >> 13);
}

float qn_bf16_to_f32(uint16_t h) { return bits_f32((uint32_t)h << 16); }

uint16_t qn_f32_to_bf16(float f) {
    uint32_t u = f32_bits(f);
    if ((u & 0x7FFFFFFF) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

static float f16_at(const uint8_t *p) { return qn_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

static void f16(const uint8_t *p, float *out) { *out = f16_at(p); }
static void bf16(const uint8_t *p, float *out) { *out = qn_bf16_to_f32((uint16_t)(p[0] | p[1] << 8)); }
static void f32(const uint8_t *p, float *out) { memcpy(out, p, sizeof *out); }

/* f16 d; 16 bytes, low nibbles are elements 0..15, high ones 16..31. */
static void q4_0(const uint8_t *p, float *out) {
    float d = f16_at(p);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((p[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
    }
}

static void q4_1(const uint8_t *p, float *out) {
    float d = f16_at(p), m = f16_at(p + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(p[4 + i] & 15) + m;
        out[i + 16] = d * (float)(p[4 + i] >> 4) + m;
    }
}

/* The fifth bit of element i is bit i of a 32-bit word before the nibbles. */
static uint32_t fifth_bits(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

static void q5_0(const uint8_t *p, float *out) {
    float d = f16_at(p);
    uint32_t h = fifth_bits(p + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((p[6 + i] & 15) + (int)((h >> i) & 1) * 16 - 16);
        out[i + 16] = d * (float)((p[6 + i] >> 4) + (int)((h >> (i + 16)) & 1) * 16 - 16);
    }
}

static void q5_1(const uint8_t *p, float *out) {
    float d = f16_at(p), m = f16_at(p + 2);
    uint32_t h = fifth_bits(p + 4);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((p[8 + i] & 15) + (int)((h >> i) & 1) * 16) + m;
        out[i + 16] = d * (float)((p[8 + i] >> 4) + (int)((h >> (i + 16)) & 1) * 16) + m;
    }
}

static void q8_0(const uint8_t *p, float *out) {
    float d = f16_at(p);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)p[2 + i];
}

/* 16 sub-blocks of 16: byte j of the first 16 is scale (low nibble) and minimum (high); 64 bytes of 2-bit values, where
 * 32 bytes hold 128 elements: bits 0-1 elements 0..31, bits 2-3 elements 32..63 and so on; f16 d, f16 dmin. */
static void q2_k(const uint8_t *p, float *out) {
    float d = f16_at(p + 80), dmin = f16_at(p + 82);
    for (int i = 0; i < 256; i++) {
        int sc = p[i / 16], q = (p[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        float dl = d * (float)(sc & 15), ml = dmin * (float)(sc >> 4);
        out[i] = dl * (float)q - ml;
    }
}

/* 32 bytes of high bits (bit i/32 of byte i%32; clear: subtract 4), 64 of 2-bit values as in q2_k, 12 of 6-bit scales
 * (low nibbles of scale j in byte j%8, top two bits in byte 8 + j%4), f16 d. */
static void q3_k(const uint8_t *p, float *out) {
    float d = f16_at(p + 108);
    const uint8_t *s = p + 96;
    for (int i = 0; i < 256; i++) {
        int j = i / 16;
        int lo = (s[j % 8] >> (j / 8 * 4)) & 15, hi = (s[8 + j % 4] >> (j / 4 * 2)) & 3;
        float dl = d * (float)((lo | hi << 4) - 32);
        int q = (p[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        if (!((p[i % 32] >> (i / 32)) & 1)) q -= 4;
        out[i] = dl * (float)q;
    }
}

/* Scale and minimum of sub-block j in 12 bytes of 6-bit numbers (Q4_K and Q5_K). */
static void scale_min(const uint8_t *s, int j, int *sc, int *m) {
    if (j < 4) {
        *sc = s[j] & 63;
        *m = s[j + 4] & 63;
    } else {
        *sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *m = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    }
}

/* f16 d, f16 dmin, 12 bytes of scales, 128 of nibbles: 32 bytes hold sub-block 2j (low) and 2j+1 (high). */
static void q4_k(const uint8_t *p, float *out) {
    float d = f16_at(p), dmin = f16_at(p + 2);
    for (int j = 0; j < 8; j++) {
        int sc, m;
        scale_min(p + 4, j, &sc, &m);
        float dl = d * (float)sc, ml = dmin * (float)m;
        for (int i = 0; i < 32; i++) out[j * 32 + i] = dl * (float)((p[16 + j / 2 * 32 + i] >> (j % 2 * 4)) & 15) - ml;
    }
}

/* As Q4_K with 32 bytes of fifth bits (bit j of byte i: sub-block j, element i) before the nibbles. */
static void q5_k(const uint8_t *p, float *out) {
    float d = f16_at(p), dmin = f16_at(p + 2);
    for (int j = 0; j < 8; j++) {
        int sc, m;
        scale_min(p + 4, j, &sc, &m);
        float dl = d * (float)sc, ml = dmin * (float)m;
        for (int i = 0; i < 32; i++) {
            int q = ((p[48 + j / 2 * 32 + i] >> (j % 2 * 4)) & 15) | ((p[16 + i] >> j) & 1) << 4;
            out[j * 32 + i] = dl * (float)q - ml;
        }
    }
}

/* 128 bytes of low nibbles (64 hold 128 elements: low 0..63, high 64..127), 64 of 2-bit tops, 16 int8 scales, f16 d. */
static void q6_k(const uint8_t *p, float *out) {
    float d = f16_at(p + 208);
    for (int i = 0; i < 256; i++) {
        float dl = d * (float)(int8_t)p[192 + i / 16];
        int lo = (p[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15;
        int hi = (p[128 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        out[i] = dl * (float)((lo | hi << 4) - 32);
    }
}

/* Q4_0's layout, the nibble an index into a fixed, non-linear scale. */
static void iq4_nl(const uint8_t *p, float *out) {
    static const int8_t value[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    float d = f16_at(p);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)value[p[2 + i] & 15];
        out[i + 16] = d * (float)value[p[2 + i] >> 4];
    }
}

void qn_dequant(enum qn_type type, const void *blocks, float *out, size_t n) {
    static void (*const block_of[])(const uint8_t *, float *) = {
        [QN_F32] = f32,   [QN_F16] = f16,   [QN_Q4_0] = q4_0, [QN_Q4_1] = q4_1, [QN_Q5_0] = q5_0,
        [QN_Q5_1] = q5_1, [QN_Q8_0] = q8_0, [QN_Q2_K] = q2_k, [QN_Q3_K] = q3_k, [QN_Q4_K] = q4_k,
        [QN_Q5_K] = q5_k, [QN_Q6_K] = q6_k, [QN_IQ4_NL] = iq4_nl, [QN_BF16] = bf16,
    };
    const uint8_t *p = blocks;
    const struct qn_type_info *t = &infos[type];
    for (size_t i = 0; i < n; i += (size_t)t->block_elems, p += t->block_bytes) block_of[type](p, out + i);
}
