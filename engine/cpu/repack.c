/* File blocks to lane order (repack.h). For each of a tile's 16 outputs and each step, the file's block is opened into
 * plain quants and scales, and those are spread over the planes: the yardstick, and what tiles and types do that
 * repack_wide.c has no quicker way for. Block layouts are those of engine/quant.h. */
#include "engine/cpu/repack.h"

#include <string.h>

#include "engine/cpu/half.h"

enum { STEP_MAX = 256, FILE_BLOCK_MAX = 256 };

const struct qn_fmt_info qn_fmt_info[QN_FMT_COUNT] = {
    [QN_FMT_F32] = { 1, 64 },     [QN_FMT_F16] = { 1, 32 },     [QN_FMT_BF16] = { 2, 64 },
    [QN_FMT_Q4S] = { 32, 288 },   [QN_FMT_Q4N] = { 32, 288 },   [QN_FMT_Q4A] = { 32, 320 },
    [QN_FMT_Q5S] = { 32, 352 },   [QN_FMT_Q5A] = { 32, 384 },   [QN_FMT_Q8S] = { 32, 544 },
    [QN_FMT_K2] = { 256, 1600 },  [QN_FMT_K4] = { 256, 2368 },  [QN_FMT_K5] = { 256, 2880 },
    [QN_FMT_K6] = { 256, 3392 },
};

/* One output's step, opened. */
struct step {
    uint8_t q[STEP_MAX];
    uint16_t d, m;          /* f16: scale; minimum or dmin */
    uint8_t s[16], mn[16];  /* K: scales and mins of sub-blocks; s of K6 is signed */
};

static uint16_t rd16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t rd32(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

static void nibbles32(uint8_t *q, const uint8_t *p) {
    for (int i = 0; i < 16; i++) q[i] = p[i] & 15, q[i + 16] = p[i] >> 4;
}
static void fifth32(uint8_t *q, uint32_t bits) {
    for (int i = 0; i < 32; i++) q[i] |= (uint8_t)((bits >> i & 1) << 4);
}

static void open_q4_0(struct step *s, const uint8_t *p) { s->d = rd16(p), nibbles32(s->q, p + 2); }
static void open_q4_1(struct step *s, const uint8_t *p) { s->d = rd16(p), s->m = rd16(p + 2), nibbles32(s->q, p + 4); }
static void open_q5_0(struct step *s, const uint8_t *p) { s->d = rd16(p), nibbles32(s->q, p + 6), fifth32(s->q, rd32(p + 2)); }
static void open_q5_1(struct step *s, const uint8_t *p) {
    s->d = rd16(p), s->m = rd16(p + 2), nibbles32(s->q, p + 8), fifth32(s->q, rd32(p + 4));
}
static void open_q8_0(struct step *s, const uint8_t *p) {
    s->d = rd16(p);
    for (int i = 0; i < 32; i++) s->q[i] = (uint8_t)(p[2 + i] ^ 0x80);
}

/* Four 2-bit planes of 32 bytes each hold 128 elements; twice. */
static void pairs256(uint8_t *q, const uint8_t *p) {
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++) q[h * 128 + j * 32 + i] = p[h * 32 + i] >> (2 * j) & 3;
}

static void open_q2_k(struct step *s, const uint8_t *p) {
    for (int i = 0; i < 16; i++) s->s[i] = p[i] & 15, s->mn[i] = p[i] >> 4;
    pairs256(s->q, p + 16);
    s->d = rd16(p + 80), s->m = rd16(p + 82);
}

/* As K6: q - 4 of Q3_K is q' - 32 with q' = q + 28. */
static void open_q3_k(struct step *s, const uint8_t *p) {
    const uint8_t *high = p, *sc = p + 96;
    pairs256(s->q, p + 32);
    for (int i = 0; i < 256; i++) s->q[i] = (uint8_t)(s->q[i] + 28 + (high[i % 32] >> (i / 32) & 1) * 4);
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? sc[i] & 15 : sc[i - 8] >> 4, top = sc[8 + i % 4] >> (2 * (i / 4)) & 3;
        s->s[i] = (uint8_t)(int8_t)((low | top << 4) - 32);
    }
    s->d = rd16(p + 108);
}

/* Eight 6-bit scales and eight 6-bit mins in twelve bytes. */
static void scales_k4(struct step *s, const uint8_t *p) {
    for (int j = 0; j < 4; j++) {
        s->s[j] = p[j] & 63, s->mn[j] = p[j + 4] & 63;
        s->s[j + 4] = (uint8_t)((p[j + 8] & 15) | p[j] >> 6 << 4);
        s->mn[j + 4] = (uint8_t)(p[j + 8] >> 4 | p[j + 4] >> 6 << 4);
    }
}
static void nibbles256(uint8_t *q, const uint8_t *p) { /* 64 elements from each 32 bytes: low nibbles first */
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 32; i++) q[j * 64 + i] = p[j * 32 + i] & 15, q[j * 64 + 32 + i] = p[j * 32 + i] >> 4;
}
static void open_q4_k(struct step *s, const uint8_t *p) {
    s->d = rd16(p), s->m = rd16(p + 2), scales_k4(s, p + 4), nibbles256(s->q, p + 16);
}
static void open_q5_k(struct step *s, const uint8_t *p) {
    s->d = rd16(p), s->m = rd16(p + 2), scales_k4(s, p + 4), nibbles256(s->q, p + 48);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) s->q[j * 32 + i] |= (uint8_t)((p[16 + i] >> j & 1) << 4);
}
static void open_q6_k(struct step *s, const uint8_t *p) {
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *low = p + h * 64, *high = p + 128 + h * 32;
            uint8_t *q = s->q + h * 128 + i;
            q[0] = (uint8_t)((low[i] & 15) | (high[i] & 3) << 4), q[32] = (uint8_t)((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4);
            q[64] = (uint8_t)(low[i] >> 4 | (high[i] >> 4 & 3) << 4), q[96] = (uint8_t)(low[i + 32] >> 4 | (high[i] >> 6) << 4);
        }
    memcpy(s->s, p + 192, 16);
    s->d = rd16(p + 208);
}

static const struct source { /* of each file type: its target, its block, and how to open it */
    enum qn_type type;
    enum qn_fmt fmt;
    int block_elems, block_bytes;
    void (*open)(struct step *, const uint8_t *);
} sources[] = {
    { QN_F32, QN_FMT_F32, 1, 4, NULL },             { QN_F16, QN_FMT_F16, 1, 2, NULL },
    { QN_BF16, QN_FMT_BF16, 1, 2, NULL },           { QN_Q4_0, QN_FMT_Q4S, 32, 18, open_q4_0 },
    { QN_Q4_1, QN_FMT_Q4A, 32, 20, open_q4_1 },     { QN_Q5_0, QN_FMT_Q5S, 32, 22, open_q5_0 },
    { QN_Q5_1, QN_FMT_Q5A, 32, 24, open_q5_1 },     { QN_Q8_0, QN_FMT_Q8S, 32, 34, open_q8_0 },
    { QN_Q2_K, QN_FMT_K2, 256, 84, open_q2_k },     { QN_Q3_K, QN_FMT_K6, 256, 110, open_q3_k },
    { QN_Q4_K, QN_FMT_K4, 256, 144, open_q4_k },    { QN_Q5_K, QN_FMT_K5, 256, 176, open_q5_k },
    { QN_Q6_K, QN_FMT_K6, 256, 210, open_q6_k },    { QN_IQ4_NL, QN_FMT_Q4N, 32, 18, open_q4_0 },
};

static const struct source *source_of(enum qn_type type) {
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        if (sources[i].type == type) return &sources[i];
    return NULL;
}

int qn_repack_fmt(enum qn_type type) {
    const struct source *s = source_of(type);
    return s ? (int)s->fmt : -1;
}

/* q: 32 quants of output `lane`. */
static void put_nibbles(uint8_t *plane, const uint8_t *q, int lane) {
    for (int j = 0; j < 16; j++) plane[j / 4 * 64 + lane * 4 + j % 4] = (uint8_t)((q[j] & 15) | q[j + 16] << 4);
}
static void put_bit(uint8_t *plane, const uint8_t *q, int lane) {
    for (int j = 0; j < 4; j++) {
        uint8_t v = 0;
        for (int i = 0; i < 8; i++) v |= (uint8_t)((q[4 * i + j] >> 4 & 1) << i);
        plane[lane * 4 + j] = v;
    }
}
static void put_pairs(uint8_t *plane, const uint8_t *q, int lane, int shift) {
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++) {
            uint8_t v = 0;
            for (int i = 0; i < 4; i++) v |= (uint8_t)((q[16 * h + 4 * i + j] >> shift & 3) << (2 * i));
            plane[h * 64 + lane * 4 + j] = v;
        }
}
static void put_bytes(uint8_t *plane, const uint8_t *q, int lane) {
    for (int i = 0; i < 8; i++) memcpy(plane + i * 64 + lane * 4, q + i * 4, 4);
}
static void put16(uint8_t *p, uint16_t v, int lane) { memcpy(p + lane * 2, &v, 2); }
static void put_subs(uint8_t *p, const uint8_t *s, int n, int lane) {
    for (int i = 0; i < n; i++) p[i * 16 + lane] = s[i];
}

static void put_step(enum qn_fmt fmt, uint8_t *o, const struct step *s, int lane) {
    switch (fmt) {
    case QN_FMT_Q4S: case QN_FMT_Q4N:
        put_nibbles(o, s->q, lane), put16(o + 256, s->d, lane);
        break;
    case QN_FMT_Q4A:
        put_nibbles(o, s->q, lane), put16(o + 256, s->d, lane), put16(o + 288, s->m, lane);
        break;
    case QN_FMT_Q5S:
        put_nibbles(o, s->q, lane), put_bit(o + 256, s->q, lane), put16(o + 320, s->d, lane);
        break;
    case QN_FMT_Q5A:
        put_nibbles(o, s->q, lane), put_bit(o + 256, s->q, lane), put16(o + 320, s->d, lane), put16(o + 352, s->m, lane);
        break;
    case QN_FMT_Q8S:
        put_bytes(o, s->q, lane), put16(o + 512, s->d, lane);
        break;
    case QN_FMT_K2:
        for (int b = 0; b < 8; b++) put_pairs(o + b * 128, s->q + b * 32, lane, 0);
        put_subs(o + 1024, s->s, 16, lane), put_subs(o + 1280, s->mn, 16, lane);
        put16(o + 1536, s->d, lane), put16(o + 1568, s->m, lane);
        break;
    case QN_FMT_K4: case QN_FMT_K5:
        for (int b = 0; b < 8; b++) put_nibbles(o + b * 256, s->q + b * 32, lane);
        o += 2048;
        if (fmt == QN_FMT_K5) {
            for (int b = 0; b < 8; b++) put_bit(o + b * 64, s->q + b * 32, lane);
            o += 512;
        }
        put_subs(o, s->s, 8, lane), put_subs(o + 128, s->mn, 8, lane), put16(o + 256, s->d, lane), put16(o + 288, s->m, lane);
        break;
    case QN_FMT_K6: {
        float d = qn_half_f32(s->d);
        for (int b = 0; b < 8; b++)
            put_nibbles(o + b * 256, s->q + b * 32, lane), put_pairs(o + 2048 + b * 128, s->q + b * 32, lane, 4);
        put_subs(o + 3072, s->s, 16, lane), memcpy(o + 3328 + lane * 4, &d, 4);
        break;
    }
    default: break;
    }
}

/* Floats: columns of the file's rows side by side, `bytes` (2 or 4) of each at a time; what an odd row lacks of a pair is zero. */
static void interleave(uint8_t *out, const uint8_t *p, size_t row_bytes, int lanes, int steps, size_t bytes) {
    size_t whole = row_bytes / bytes, rest = row_bytes % bytes;
    for (size_t i = 0; i < whole; i++)
        for (size_t lane = 0; lane < (size_t)lanes; lane++) {
            if (bytes == 4) memcpy(out + (i * 16 + lane) * 4, p + lane * row_bytes + i * 4, 4);
            else memcpy(out + (i * 16 + lane) * 2, p + lane * row_bytes + i * 2, 2);
        }
    if (!rest) return;
    out += ((size_t)steps - 1) * 16 * bytes, p += whole * bytes;
    memset(out, 0, 16 * bytes);
    for (int lane = 0; lane < lanes; lane++) memcpy(out + (size_t)lane * bytes, p + (size_t)lane * row_bytes, rest);
}

void qn_repack_plain(enum qn_type type, const void *data, int n_in, int n_out, int tile, uint8_t *out) {
    const struct source *src = source_of(type);
    const struct qn_fmt_info *info = &qn_fmt_info[src->fmt];
    int blocks = n_in / src->block_elems, steps = (n_in + info->step_elems - 1) / info->step_elems, lanes = n_out - tile * 16 < 16 ? n_out - tile * 16 : 16;
    size_t row_bytes = (size_t)blocks * (size_t)src->block_bytes;
    const uint8_t *p = (const uint8_t *)data + (size_t)tile * 16 * row_bytes;
    if (lanes < 16) memset(out, 0, (size_t)steps * (size_t)info->step_bytes);
    if (!src->open) {
        interleave(out, p, row_bytes, lanes, steps, (size_t)(info->step_bytes / 16));
        return;
    }
    for (int i = 0; i < steps; i++, out += info->step_bytes)
        for (int lane = 0; lane < lanes; lane++) {
            const uint8_t *block = p + (size_t)lane * row_bytes + (size_t)i * (size_t)src->block_bytes;
            struct step s;
            src->open(&s, block);
            put_step(src->fmt, out, &s, lane);
        }
}

void qn_repack_tile(enum qn_type type, const void *data, int n_in, int n_out, int tile, uint8_t *out) {
    const struct source *src = source_of(type);
    int steps = n_in / src->block_elems, step_bytes = qn_fmt_info[src->fmt].step_bytes;
    size_t row_bytes = (size_t)steps * (size_t)src->block_bytes;
    const uint8_t *p = (const uint8_t *)data + (size_t)tile * 16 * row_bytes;
    if (n_out - tile * 16 < 16 || !qn_repack_wide(type, p, row_bytes, src->block_bytes, steps, step_bytes, out))
        qn_repack_plain(type, data, n_in, n_out, tile, out);
}
