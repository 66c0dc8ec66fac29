/* Matrix tiles in plain C: the definition of what the fast ones compute, to the bit.
 *
 * For one output and one column, with W the unpacked quants (unsigned) and q, d, ds, n, n0, n1 the activation's record:
 *   32 inputs, symmetric:    acc = fma(i, s*d, acc)                     i = sum W*q - offset * sum q
 *   32 inputs, with minimum: acc = fma(i, s*d, acc), acc = fma(m, ds, acc)
 *   2 x 16, symmetric:       t = i0*s0, t = fma(i1, s1, t), acc = fma(t, d, acc)
 *   2 x 16, with minimum:    the same with t = fma(n0, m0, t), t = fma(n1, m1, t) before the last
 * i is exact (below 2^24), blocks ascend, and every fma rounds once; so nothing depends on the number of columns, and
 * sets that scale W and s by opposite powers of two still agree. */
#include <math.h>
#include <string.h>

#include "engine/cpu/half.h"
#include "engine/cpu/repack.h"
#include "engine/cpu/tiles.h"

struct block { /* 32 inputs of 16 outputs */
    uint8_t w[8][64];
    float s[2][16], m[2][16];
};

static const int8_t iq4nl[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

static float lane_f16(const uint8_t *p, int lane) {
    uint16_t h;
    memcpy(&h, p + lane * 2, 2);
    return qn_half_f32(h);
}

static void open_nibbles(struct block *b, const uint8_t *p) {
    for (int j = 0; j < 4; j++)
        for (int x = 0; x < 64; x++) b->w[j][x] = p[j * 64 + x] & 15, b->w[j + 4][x] = p[j * 64 + x] >> 4;
}
static void open_bit(struct block *b, const uint8_t *p) {
    for (int i = 0; i < 8; i++)
        for (int x = 0; x < 64; x++) b->w[i][x] |= (uint8_t)((p[x] >> i & 1) << 4);
}
static void open_pairs(struct block *b, const uint8_t *p, int shift, int fresh) {
    for (int i = 0; i < 8; i++)
        for (int x = 0; x < 64; x++) {
            uint8_t v = (uint8_t)((p[i / 4 * 64 + x] >> (2 * (i % 4)) & 3) << shift);
            b->w[i][x] = fresh ? v : (uint8_t)(b->w[i][x] | v);
        }
}

/* What a format is made of. */
struct layout {
    int offset;             /* symmetric: what is taken from each quant */
    int by16, min;
    int bit_at, pairs_at;   /* of the step's first block; 0: none */
    int sub_at, d_at, m_at; /* K: sub-scales, mins follow; d; m or dmin */
};
static const struct layout layouts[QN_FMT_COUNT] = {
    [QN_FMT_Q4S] = { .offset = 8, .d_at = 256 },
    [QN_FMT_Q4N] = { .offset = 128, .d_at = 256 },
    [QN_FMT_Q4A] = { .min = 1, .d_at = 256, .m_at = 288 },
    [QN_FMT_Q5S] = { .offset = 16, .bit_at = 256, .d_at = 320 },
    [QN_FMT_Q5A] = { .min = 1, .bit_at = 256, .d_at = 320, .m_at = 352 },
    [QN_FMT_Q8S] = { .offset = 128, .d_at = 512 },
    [QN_FMT_K2] = { .by16 = 1, .min = 1, .sub_at = 1024, .d_at = 1536, .m_at = 1568 },
    [QN_FMT_K4] = { .min = 1, .sub_at = 2048, .d_at = 2304, .m_at = 2336 },
    [QN_FMT_K5] = { .min = 1, .bit_at = 2048, .sub_at = 2560, .d_at = 2816, .m_at = 2848 },
    [QN_FMT_K6] = { .by16 = 1, .offset = 32, .pairs_at = 2048, .sub_at = 3072, .d_at = 3328 },
};

static void open_scales(struct block *b, enum qn_fmt fmt, const struct layout *l, const uint8_t *p, int i) {
    for (int r = 0; r < 16; r++) {
        float d, m = l->m_at ? lane_f16(p + l->m_at, r) : 0.0f;
        if (fmt == QN_FMT_K6) memcpy(&d, p + l->d_at + r * 4, 4);
        else d = lane_f16(p + l->d_at, r);
        if (!l->sub_at) {
            b->s[0][r] = d, b->m[0][r] = m;
            continue;
        }
        int n = l->by16 ? 2 : 1;
        for (int h = 0; h < n; h++) {
            uint8_t s = p[l->sub_at + (i * n + h) * 16 + r];
            b->s[h][r] = d * (float)(fmt == QN_FMT_K6 ? (int8_t)s : s);
            if (l->min) {
                uint8_t mn = p[l->sub_at + (8 * n + i * n + h) * 16 + r];
                b->m[h][r] = l->by16 ? m * (float)mn * 0x1p-7f : -(m * (float)mn);
            }
        }
    }
}

static void open_block(struct block *b, enum qn_fmt fmt, const struct layout *l, const uint8_t *p, int i) {
    if (fmt == QN_FMT_Q8S) memcpy(b->w, p, 512);
    else if (fmt == QN_FMT_K2) open_pairs(b, p + i * 128, 0, 1);
    else open_nibbles(b, p + i * 256);
    if (l->bit_at) open_bit(b, p + l->bit_at + i * 64);
    if (l->pairs_at) open_pairs(b, p + l->pairs_at + i * 128, 4, 0);
    if (fmt == QN_FMT_Q4N)
        for (int x = 0; x < 512; x++) b->w[x / 64][x % 64] = (uint8_t)(iq4nl[b->w[x / 64][x % 64]] + 128);
    open_scales(b, fmt, l, p, i);
}

static void sums(const struct block *b, const int8_t *q, int i0, int i1, int32_t *out) {
    for (int r = 0; r < 16; r++) out[r] = 0;
    for (int i = i0; i < i1; i++)
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < 4; j++) out[r] += b->w[i][4 * r + j] * q[4 * i + j];
}

static void block_col(const struct block *b, const struct layout *l, const uint8_t *rec, int g, int c, float *acc) {
    const float *f = (const float *)(rec + (size_t)g * 32);
    const int32_t *n = (const int32_t *)(f + 2 * g);
    float d = f[c], ds = f[g + c];
    int32_t i0[16], i1[16];
    const int8_t *q = (const int8_t *)rec + c * 32;
    if (!l->by16) {
        sums(b, q, 0, 8, i0);
        for (int r = 0; r < 16; r++) {
            acc[r] = fmaf((float)(i0[r] + n[c] / 128 * l->offset), b->s[0][r] * d, acc[r]);
            if (l->min) acc[r] = fmaf(b->m[0][r], ds, acc[r]);
        }
        return;
    }
    sums(b, q, 0, 4, i0), sums(b, q, 4, 8, i1);
    int32_t n0 = n[g + c], n1 = n[2 * g + c];
    for (int r = 0; r < 16; r++) {
        float t = (float)(i0[r] + n0 / 128 * l->offset) * b->s[0][r];
        t = fmaf((float)(i1[r] + n1 / 128 * l->offset), b->s[1][r], t);
        if (l->min) t = fmaf((float)n0, b->m[0][r], t), t = fmaf((float)n1, b->m[1][r], t);
        acc[r] = fmaf(t, d, acc[r]);
    }
}

static void tile_quant(enum qn_fmt fmt, QN_TILE_ARGS) {
    (void)next;
    const struct layout *l = &layouts[fmt];
    const uint8_t *rec = group;
    int n = qn_fmt_info[fmt].step_elems / 32;
    float acc[QN_GROUP][16] = { { 0 } };
    for (int s = 0; s < steps; s++, w += qn_fmt_info[fmt].step_bytes)
        for (int i = 0; i < n; i++, rec += (size_t)g * QN_AREC) {
            struct block b;
            open_block(&b, fmt, l, w, i);
            for (int c = 0; c < g; c++) block_col(&b, l, rec, g, c, acc[c]);
        }
    for (int c = 0; c < g; c++) memcpy(out + (size_t)c * stride, acc[c], sizeof acc[c]);
}

#define TILE(F, f) \
    void qn_tile_##f##_generic(QN_TILE_ARGS) { \
        tile_quant(QN_FMT_##F, w, steps, next, group, g, out, stride); \
    }
#define TILE_OF(isa, F, f) TILE(F, f)
QN_EACH_BLOCK(TILE_OF, generic)
