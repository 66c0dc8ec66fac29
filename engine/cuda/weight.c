/* From GGUF blocks to the tiles of weight.h. Host code only: what the bytes of a block mean is quant.c's description, here they are
 * taken apart into small integers and scales (one function a type) and laid out for the card (one function a plane).
 *
 * Allocation, upload and threads are the caller's: tiles are independent of each other. Nothing is rounded but F32. Thread: any. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "engine/base/err.h"
#include "engine/cuda/weight.h"
#include "engine/gguf.h"
#include "engine/quant.h"

enum { SB = 256, GROUP = 32, TILE = QN_CUDA_TILE, CHUNK = 16 };

/* 256 inputs of one output. q: the low bits that the form keeps, two's complement in forms without a minimum. */
struct sb {
    uint8_t q[SB];
    uint16_t scale[8], min[8];      /* f16 of 32 inputs */
    uint8_t code[16], min_code[16]; /* K types: of 16 or 32 inputs, times d and dmin */
    uint16_t d, dmin;
};

static uint16_t u16_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

/* --- blocks apart: group j of the super-block, or all of it (K types) ------------------------------------------------ */

static void nibbles(const uint8_t *p, uint8_t *q) {
    for (int i = 0; i < 16; i++) {
        q[i] = p[i] & 15;
        q[i + 16] = p[i] >> 4;
    }
}

static void fifth(const uint8_t *p, uint8_t *q) {
    for (int i = 0; i < GROUP; i++) q[i] |= (uint8_t)(((p[i / 8] >> (i % 8)) & 1) << 4);
}

static void q4_0(const uint8_t *p, struct sb *s, int j) {
    s->scale[j] = u16_at(p);
    nibbles(p + 2, s->q + j * GROUP);
    for (int i = 0; i < GROUP; i++) s->q[j * GROUP + i] ^= 8; /* q - 8 in 4 bits */
}

static void q4_1(const uint8_t *p, struct sb *s, int j) {
    s->scale[j] = u16_at(p);
    s->min[j] = u16_at(p + 2);
    nibbles(p + 4, s->q + j * GROUP);
}

static void q5_0(const uint8_t *p, struct sb *s, int j) {
    s->scale[j] = u16_at(p);
    nibbles(p + 6, s->q + j * GROUP);
    fifth(p + 2, s->q + j * GROUP);
    for (int i = 0; i < GROUP; i++) s->q[j * GROUP + i] ^= 16;
}

static void q5_1(const uint8_t *p, struct sb *s, int j) {
    s->scale[j] = u16_at(p);
    s->min[j] = u16_at(p + 2);
    nibbles(p + 8, s->q + j * GROUP);
    fifth(p + 4, s->q + j * GROUP);
}

static void q8_0(const uint8_t *p, struct sb *s, int j) {
    s->scale[j] = u16_at(p);
    memcpy(s->q + j * GROUP, p + 2, GROUP);
}

static void iq4_nl(const uint8_t *p, struct sb *s, int j) {
    static const int8_t level[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    s->scale[j] = u16_at(p);
    nibbles(p + 2, s->q + j * GROUP);
    for (int i = 0; i < GROUP; i++) s->q[j * GROUP + i] = (uint8_t)level[s->q[j * GROUP + i]];
}

static void q2_k(const uint8_t *p, struct sb *s, int j) {
    (void)j;
    s->d = u16_at(p + 80), s->dmin = u16_at(p + 82);
    for (int i = 0; i < 16; i++) s->code[i] = p[i] & 15, s->min_code[i] = p[i] >> 4;
    for (int i = 0; i < SB; i++) s->q[i] = (p[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
}

static void q3_k(const uint8_t *p, struct sb *s, int j) {
    (void)j;
    s->d = u16_at(p + 108), s->dmin = 0;
    for (int i = 0; i < 16; i++) {
        int lo = (p[96 + i % 8] >> (i / 8 * 4)) & 15, hi = (p[104 + i % 4] >> (i / 4 * 2)) & 3;
        s->code[i] = (uint8_t)((lo | hi << 4) - 32);
    }
    for (int i = 0; i < SB; i++) {
        int q = (p[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        s->q[i] = (uint8_t)(q - ((p[i % 32] >> (i / 32)) & 1 ? 0 : 4)) & 15;
    }
}

static void k_codes(const uint8_t *p, struct sb *s) {
    s->d = u16_at(p), s->dmin = u16_at(p + 2);
    p += 4;
    for (int j = 0; j < 4; j++) {
        s->code[j] = p[j] & 63;
        s->min_code[j] = p[j + 4] & 63;
        s->code[j + 4] = (uint8_t)((p[j + 8] & 15) | (p[j] >> 6) << 4);
        s->min_code[j + 4] = (uint8_t)((p[j + 8] >> 4) | (p[j + 4] >> 6) << 4);
    }
}

static void q4_k(const uint8_t *p, struct sb *s, int j) {
    (void)j;
    k_codes(p, s);
    for (int i = 0; i < SB; i++) s->q[i] = (p[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 15;
}

static void q5_k(const uint8_t *p, struct sb *s, int j) {
    (void)j;
    k_codes(p, s);
    for (int i = 0; i < SB; i++) {
        int lo = (p[48 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 15;
        s->q[i] = (uint8_t)(lo | ((p[16 + i % 32] >> (i / 32)) & 1) << 4);
    }
}

static void q6_k(const uint8_t *p, struct sb *s, int j) {
    (void)j;
    s->d = u16_at(p + 208), s->dmin = 0;
    memcpy(s->code, p + 192, 16);
    for (int i = 0; i < SB; i++) {
        int lo = (p[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15;
        int hi = (p[128 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        s->q[i] = (uint8_t)(lo | hi << 4) ^ 32;
    }
}

/* --- what types and forms are ------------------------------------------------------------------------------------- */

static const struct {
    int form;
    void (*apart)(const uint8_t *block, struct sb *s, int j); /* NULL: 16-bit */
} types[] = {
    [QN_F32] = {QN_CW_F16, NULL},     [QN_F16] = {QN_CW_F16, NULL},      [QN_BF16] = {QN_CW_BF16, NULL},
    [QN_Q4_0] = {QN_CW_4, q4_0},      [QN_Q4_1] = {QN_CW_4M, q4_1},      [QN_Q5_0] = {QN_CW_5, q5_0},
    [QN_Q5_1] = {QN_CW_5M, q5_1},     [QN_Q8_0] = {QN_CW_8, q8_0},       [QN_IQ4_NL] = {QN_CW_8, iq4_nl},
    [QN_Q2_K] = {QN_CW_4K16M, q2_k},  [QN_Q3_K] = {QN_CW_4K16, q3_k},    [QN_Q4_K] = {QN_CW_4K, q4_k},
    [QN_Q5_K] = {QN_CW_5K, q5_k},     [QN_Q6_K] = {QN_CW_6K16, q6_k},
};

enum scales { SC_F16, SC_F16_MIN, SC_CODE_MIN, SC_CODE16, SC_CODE16_MIN };

static const struct form {
    int q_bits, high_bits; /* of a value in each plane */
    enum scales scales;
} forms[QN_CW_FORMS] = {
    [QN_CW_4] = {4, 0, SC_F16},          [QN_CW_4M] = {4, 0, SC_F16_MIN},
    [QN_CW_4K] = {4, 0, SC_CODE_MIN},    [QN_CW_4K16] = {4, 0, SC_CODE16},
    [QN_CW_4K16M] = {4, 0, SC_CODE16_MIN}, [QN_CW_5] = {4, 1, SC_F16},
    [QN_CW_5M] = {4, 1, SC_F16_MIN},     [QN_CW_5K] = {4, 1, SC_CODE_MIN},
    [QN_CW_6K16] = {4, 2, SC_CODE16},    [QN_CW_8] = {8, 0, SC_F16},
    [QN_CW_F16] = {16, 0, SC_F16},       [QN_CW_BF16] = {16, 0, SC_F16},
};

static int is_wide(int form) { return forms[form].q_bits == 16; }

int qn_cuda_form_need(int form) {
    return form == QN_CW_F16 ? QN_CUDA_NEED_F16 : form == QN_CW_BF16 ? QN_CUDA_NEED_BF16 : QN_CUDA_NEED_Q;
}

/* --- planes ------------------------------------------------------------------------------------------------------- */

static void put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8); }

static void put_q(const struct form *f, const uint8_t *q, uint8_t *tile, int g, int lane) {
    int chunks = f->q_bits / 4;
    uint8_t *to = tile + ((size_t)g * (size_t)chunks * TILE + (size_t)lane) * CHUNK;
    for (int i = 0; i < 16; i++) {
        if (chunks == 1) to[i] = (uint8_t)((q[i] & 15) | q[i + 16] << 4);
        else to[i] = q[i], to[TILE * CHUNK + i] = q[i + 16];
    }
}

static void put_high(const struct form *f, const uint8_t *q, uint8_t *high, int g, int lane) {
    int bits = f->high_bits, per = 4 / bits; /* groups of a chunk */
    uint8_t *to = high + ((size_t)(g / per) * TILE + (size_t)lane) * CHUNK + g % per * 4 * bits;
    memset(to, 0, (size_t)(4 * bits));
    for (int e = 0; e < GROUP; e++) {
        int half = e / 16, t = e % 16 / 4, b = e % 4;
        if (bits == 1) to[b] |= (uint8_t)((q[e] >> 4 & 1) << (4 * half + t));
        else to[4 * half + b] |= (uint8_t)((q[e] >> 4 & 3) << (2 * t));
    }
}

static void put_scales(const struct form *f, const struct sb *s, uint8_t *scale, uint8_t *super, int at, int lane) {
    int chunks = f->scales == SC_F16_MIN ? 2 : 1;
    uint8_t *to = scale + ((size_t)at * (size_t)chunks * TILE + (size_t)lane) * CHUNK;
    for (int j = 0; j < 8; j++) {
        if (f->scales == SC_F16) put16(to + 2 * j, s->scale[j]);
        if (f->scales == SC_F16_MIN) {
            put16(to + j / 4 * TILE * CHUNK + j % 4 * 4, s->scale[j]);
            put16(to + j / 4 * TILE * CHUNK + j % 4 * 4 + 2, s->min[j]);
        }
        if (f->scales == SC_CODE_MIN) to[2 * j] = s->code[j], to[2 * j + 1] = s->min_code[j];
    }
    if (f->scales == SC_CODE16) memcpy(to, s->code, 16);
    if (f->scales == SC_CODE16_MIN)
        for (int j = 0; j < 16; j++) to[j] = (uint8_t)(s->code[j] | s->min_code[j] << 4);
    if (f->scales < SC_CODE_MIN) return;
    put16(super + ((size_t)at * TILE + (size_t)lane) * 4, s->d);
    put16(super + ((size_t)at * TILE + (size_t)lane) * 4 + 2, s->dmin);
}

/* --- tiles -------------------------------------------------------------------------------------------------------- */

static void put_row(const struct qn_cuda_weight *w, enum qn_type type, const uint8_t *row, uint8_t *tile, int lane) {
    const struct form *f = &forms[w->form];
    const struct qn_type_info *info = qn_type_info(type);
    for (int i = 0; i < w->n_sb; i++) {
        struct sb s = {0};
        int groups = w->n_groups - i * 8 < 8 ? w->n_groups - i * 8 : 8;
        for (int j = 0; j < groups; j += info->block_elems / GROUP, row += info->block_bytes) types[type].apart(row, &s, j);
        for (int j = 0; j < groups; j++) {
            put_q(f, s.q + j * GROUP, tile, i * 8 + j, lane);
            if (f->high_bits) put_high(f, s.q + j * GROUP, tile + w->high_at, i * 8 + j, lane);
        }
        put_scales(f, &s, tile + w->scale_at, tile + w->super_at, i, lane);
    }
}

static void put_wide_row(const struct qn_cuda_weight *w, enum qn_type type, const uint8_t *row, uint8_t *tile, int lane) {
    for (int i = 0; i < w->n_in; i++) {
        uint16_t h;
        if (type == QN_F32) {
            float f;
            memcpy(&f, row + (size_t)i * 4, 4);
            h = qn_f32_to_f16(f / w->scale);
        } else h = u16_at(row + (size_t)i * 2);
        put16(tile + ((size_t)(i / GROUP) * TILE + (size_t)lane) * 64 + i % GROUP * 2, h);
    }
}

void qn_cuda_weight_repack(const struct qn_cuda_weight *w, const struct qn_tensor *t, int tile0, int n, void *out) {
    const struct qn_type_info *info = qn_type_info(t->type);
    size_t row_bytes = (size_t)w->n_in / (size_t)info->block_elems * (size_t)info->block_bytes;
    memset(out, 0, (size_t)n * w->tile_bytes);
    for (int o = tile0 * TILE; o < (tile0 + n) * TILE && o < w->n_out; o++) {
        const uint8_t *row = (const uint8_t *)t->data + (size_t)o * row_bytes;
        uint8_t *tile = (uint8_t *)out + (size_t)(o / TILE - tile0) * w->tile_bytes;
        if (is_wide(w->form)) put_wide_row(w, t->type, row, tile, o % TILE);
        else put_row(w, t->type, row, tile, o % TILE);
    }
}

/* The power of two that brings the largest value of an F32 matrix below 2^15. */
static int f32_scale(struct qn_cuda_weight *w, const struct qn_tensor *t, struct qn_err *err) {
    const float *v = t->data;
    float most = 0;
    for (uint64_t i = 0; i < t->dim[0] * t->dim[1]; i++) {
        if (!isfinite(v[i]))
            return qn_fail(err, QN_E_UNSUPPORTED, "tensor '%.*s': element %llu is not a finite number", (int)t->name.n, t->name.p, (unsigned long long)i);
        most = fmaxf(most, fabsf(v[i]));
    }
    int e = 15;
    if (most > 0) frexpf(most, &e); /* most < 2^e */
    w->scale = ldexpf(1, e - 15 < -140 ? -140 : e - 15);
    return 0;
}

static void plan_planes(struct qn_cuda_weight *w) {
    const struct form *f = &forms[w->form];
    size_t row = (size_t)TILE * CHUNK, groups = (size_t)w->n_groups, sbs = (size_t)w->n_sb;
    size_t q = groups * row * (size_t)f->q_bits / 4;
    size_t high = f->high_bits ? (groups * (size_t)f->high_bits + 3) / 4 * row : 0;
    size_t scale = is_wide(w->form) ? 0 : sbs * row * (f->scales == SC_F16_MIN ? 2 : 1);
    size_t super = f->scales >= SC_CODE_MIN ? sbs * TILE * 4 : 0;
    w->high_at = (uint32_t)q;
    w->scale_at = (uint32_t)(q + high);
    w->super_at = (uint32_t)(q + high + scale);
    w->tile_bytes = (uint32_t)(q + high + scale + super);
}

int qn_cuda_weight_plan(struct qn_cuda_weight *w, const struct qn_tensor *t, struct qn_err *err) {
    const struct qn_type_info *info = qn_type_info(t->type);
    if (!info) return qn_fail(err, QN_E_UNSUPPORTED, "tensor '%.*s': no kernel for type %d", (int)t->name.n, t->name.p, (int)t->type);
    if (t->dim[0] == 0 || t->dim[0] > 1 << 24 || t->dim[0] % (uint64_t)info->block_elems || t->dim[1] == 0 || t->dim[1] > 1 << 26 || t->dim[2] != 1 ||
        t->dim[3] != 1)
        return qn_fail(err, QN_E_UNSUPPORTED, "tensor '%.*s': shape [%llu, %llu] is not one for type %s", (int)t->name.n, t->name.p,
                       (unsigned long long)t->dim[0], (unsigned long long)t->dim[1], info->name);
    struct qn_cuda_weight p = {.form = types[t->type].form, .n_in = (int)t->dim[0], .n_out = (int)t->dim[1], .scale = 1};
    p.n_groups = (p.n_in + GROUP - 1) / GROUP;
    p.n_sb = (p.n_groups + 7) / 8;
    p.slice_sb = (p.n_sb + QN_CUDA_SLICES - 1) / QN_CUDA_SLICES;
    p.n_slices = (p.n_sb + p.slice_sb - 1) / p.slice_sb;
    p.quarter_slices = (p.n_slices + 3) / 4;
    p.n_tiles = (p.n_out + TILE - 1) / TILE;
    plan_planes(&p);
    int rc = t->type == QN_F32 ? f32_scale(&p, t, err) : 0;
    if (rc == 0) *w = p;
    return rc;
}
