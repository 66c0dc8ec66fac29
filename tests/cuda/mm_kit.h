/* What the tests of matrices on the card share: buffers on the device, steps, activations quantised as step.h defines it, and the values
 * of a repacked tile read from the description in weight.h, by a way of its own. */
#ifndef QN_TESTS_CUDA_MM_KIT_H
#define QN_TESTS_CUDA_MM_KIT_H

#include "engine/cuda/matmul.h"
#include "engine/cuda/runtime.h"
#include "tests/kernels/kit.h"

enum { MM_POISON = 0x7b };

static inline void *mm_device(const void *from, size_t bytes) {
    void *p = NULL;
    ASSERT_EQ(cudaMalloc(&p, bytes ? bytes : 1), 0);
    if (from) ASSERT_EQ(cudaMemcpy(p, from, bytes, cudaMemcpyHostToDevice), 0);
    return p;
}
static inline void mm_fetch(void *to, const void *from, size_t bytes) {
    ASSERT_EQ(cudaDeviceSynchronize(), 0);
    ASSERT_EQ(cudaGetLastError(), 0);
    ASSERT_EQ(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), 0);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

struct mm_step {
    struct qn_cuda_step step;
    void *head, *token;
};
static inline struct mm_step mm_step_open(int n_rows, int n_out, const int32_t *token) {
    struct qn_cuda_head h = {.n_rows = n_rows, .n_out = n_out};
    struct mm_step s = {.head = mm_device(&h, sizeof h)};
    s.token = token ? mm_device(token, (size_t)n_rows * sizeof *token) : NULL;
    s.step = (struct qn_cuda_step){.head = s.head, .token = s.token, .rows_max = n_rows};
    return s;
}
static inline void mm_step_close(struct mm_step *s) {
    cudaFree(s->head);
    cudaFree(s->token);
}

/* --- activations -------------------------------------------------------------------------------------------------- */

struct mm_act {
    struct qn_cuda_act dev;
    int rows, width, stride;
    int8_t *q;          /* the same on the host */
    float *d;
    int16_t *sum;
    uint16_t *h[2];
    float *h_scale;
};

static inline void mm_quantise(struct mm_act *a, int row, const float *x) {
    for (int b = 0; b < a->stride / 32; b++) {
        float most = 0, v[32];
        int bad = 0;
        for (int i = 0; i < 32; i++) {
            v[i] = b * 32 + i < a->width ? x[b * 32 + i] : 0;
            bad |= !isfinite(v[i]);
            most = fabsf(v[i]) > most ? fabsf(v[i]) : most;
        }
        size_t at = (size_t)row * (size_t)a->stride + (size_t)b * 32;
        a->d[at / 32] = bad ? NAN : most / 127;
        for (int i = 0; i < 32; i++) {
            a->q[at + (size_t)i] = (int8_t)(bad || most <= 0 ? 0 : rintf(v[i] * 127 / most));
            a->sum[(at + (size_t)i) / 16] = (int16_t)(a->sum[(at + (size_t)i) / 16] + a->q[at + (size_t)i]);
        }
    }
}

/* f16 with the row's largest value near 2^10, bf16 as it is. */
static inline void mm_round(struct mm_act *a, int row, const float *x) {
    float most = 0;
    int e;
    for (int i = 0; i < a->width; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    frexpf(most > 0 ? most : 1, &e);
    a->h_scale[row] = ldexpf(1, e - 10);
    for (int i = 0; i < a->width; i++) {
        size_t at = (size_t)row * (size_t)a->stride + (size_t)i;
        a->h[0][at] = qn_f32_to_f16(x[i] / a->h_scale[row]);
        a->h[1][at] = qn_f32_to_bf16(x[i]);
    }
}

static inline struct mm_act mm_act_open(const float *x, int rows, int width) {
    struct mm_act a = {.rows = rows, .width = width, .stride = (width + 127) / 128 * 128};
    size_t n = (size_t)(rows ? rows : 1) * (size_t)a.stride;
    a.q = calloc(n, 1), a.d = calloc(n / 32, 4), a.sum = calloc(n / 16, 2), a.h[0] = calloc(n, 2), a.h[1] = calloc(n, 2), a.h_scale = calloc(n, 4);
    for (int r = 0; r < rows; r++) {
        mm_quantise(&a, r, x + (size_t)r * (size_t)width);
        mm_round(&a, r, x + (size_t)r * (size_t)width);
    }
    a.dev = (struct qn_cuda_act){
        .width = width, .stride = a.stride, .q = mm_device(a.q, n), .d = mm_device(a.d, n / 32 * 4), .sum = mm_device(a.sum, n / 16 * 2),
        .h = {mm_device(a.h[0], n * 2), mm_device(a.h[1], n * 2)}, .h_scale = mm_device(a.h_scale, (size_t)(rows ? rows : 1) * 4),
    };
    return a;
}
static inline void mm_act_close(struct mm_act *a) {
    void *dev[] = {a->dev.q, a->dev.d, a->dev.sum, a->dev.h[0], a->dev.h[1], a->dev.h_scale}, *host[] = {a->q, a->d, a->sum, a->h[0], a->h[1], a->h_scale};
    for (int i = 0; i < 6; i++) {
        cudaFree(dev[i]);
        free(host[i]);
    }
}
/* What input k of a row is worth to a matrix of this form. */
static inline double mm_act_value(const struct mm_act *a, int form, int row, int k) {
    size_t at = (size_t)row * (size_t)a->stride + (size_t)k;
    if (form == QN_CW_F16) return (double)qn_f16_to_f32(a->h[0][at]) * (double)a->h_scale[row];
    if (form == QN_CW_BF16) return (double)qn_bf16_to_f32(a->h[1][at]);
    return (double)a->q[at] * (double)a->d[at / 32];
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

/* A value of a tile, and |scale * q| + |minimum|, which bounds what rounding can do to it. */
static inline double mm_tile_value(const struct qn_cuda_weight *w, const uint8_t *tile, int o, int k, double *size) {
    static const struct { int bits, is_signed, code; } form[QN_CW_FORMS] = { /* code: 0 f16, 1 with minimum, 2 bytes, 3 of 16, 4 nibbles of 16 */
        {4, 1, 0}, {4, 0, 1}, {4, 0, 2}, {4, 1, 3}, {4, 0, 4}, {5, 1, 0}, {5, 0, 1}, {5, 0, 2}, {6, 1, 3}, {8, 1, 0}, {16, 0, 0}, {16, 0, 0},
    };
    int bits = form[w->form].bits, code = form[w->form].code, g = k / 32, e = k % 32, i = e % 16, half = e / 16, j = g % 8, q;
    size_t sb = (size_t)g / 8, lane = (size_t)o * 16;
#define F16_AT(p) ((double)qn_f16_to_f32((uint16_t)((p)[0] | (p)[1] << 8)))
    if (bits == 16) {
        const uint8_t *p = tile + (size_t)g * 2048 + (size_t)o * 64 + (size_t)e * 2;
        double v = (w->form == QN_CW_F16 ? F16_AT(p) : (double)qn_bf16_to_f32((uint16_t)(p[0] | p[1] << 8))) * (double)w->scale;
        *size = fabs(v);
        return v;
    }
    if (bits == 8) q = (int8_t)tile[(size_t)(2 * g + half) * 512 + lane + (size_t)i];
    else q = tile[(size_t)g * 512 + lane + (size_t)i] >> (4 * half) & 15;
    const uint8_t *high = tile + w->high_at;
    if (bits == 5) q |= (high[(size_t)(g / 4) * 512 + lane + (size_t)(g % 4 * 4 + i % 4)] >> (4 * half + i / 4) & 1) << 4;
    if (bits == 6) q |= (high[(size_t)(g / 2) * 512 + lane + (size_t)(g % 2 * 8 + half * 4 + i % 4)] >> (2 * (i / 4)) & 3) << 4;
    if (form[w->form].is_signed && bits < 8 && q >= 1 << (bits - 1)) q -= 1 << bits;
    const uint8_t *s = tile + w->scale_at + sb * 512 * (code == 1 ? 2 : 1) + lane, *d = tile + w->super_at + sb * 128 + (size_t)o * 4;
    double scale = 0, min = 0;
    if (code == 0) scale = F16_AT(s + 2 * j);
    if (code == 1) s += j / 4 * 512 + j % 4 * 4, scale = F16_AT(s), min = F16_AT(s + 2);
    if (code == 2) scale = F16_AT(d) * s[2 * j], min = -F16_AT(d + 2) * s[2 * j + 1];
    if (code == 3) scale = F16_AT(d) * (int8_t)s[2 * j + half];
    if (code == 4) scale = F16_AT(d) * (s[2 * j + half] & 15), min = -F16_AT(d + 2) * (s[2 * j + half] >> 4);
#undef F16_AT
    *size = fabs(scale * q) + fabs(min);
    return scale * q + min;
}

struct mm_weight {
    struct qn_cuda_weight w;
    struct qn_tensor t;
    uint8_t *tiles;     /* on the host */
    float *value;       /* qn_dequant */
};
static inline struct mm_weight mm_weight_open(struct kit_rng *r, enum qn_type type, int n_in, int n_out) {
    struct mm_weight m = {.t = kit_tensor(r, type, n_in, n_out)};
    struct qn_err err = {0};
    size_t n = (size_t)n_in * (size_t)n_out;
    m.value = malloc(n * sizeof(float));
    qn_dequant(type, m.t.data, m.value, n);
    if (qn_cuda_weight_plan(&m.w, &m.t, &err) < 0) qn_test_fail(__FILE__, __LINE__, "%s", err.text);
    size_t bytes = (size_t)m.w.n_tiles * m.w.tile_bytes;
    m.tiles = malloc(bytes);
    qn_cuda_weight_repack(&m.w, &m.t, 0, m.w.n_tiles, m.tiles);
    m.w.tiles = mm_device(m.tiles, bytes);
    return m;
}
static inline void mm_weight_close(struct mm_weight *m) {
    cudaFree((void *)(uintptr_t)m->w.tiles);
    free(m->tiles);
    free(m->value);
    free((void *)(uintptr_t)m->t.data);
}

/* Output o of a row in double, and the most that f32 sums in any of our orders may be off: every group adds two fused operations and one
 * product (16-bit: 32 additions of mma, which may truncate), every slice an addition, the end a few, each at most 2^-24 of the sum of
 * sizes (2^-23 where mma truncates). */
static inline double mm_want(const struct mm_weight *m, const struct mm_act *a, int row, int o, double *bound) {
    const uint8_t *tile = m->tiles + (size_t)(o / 32) * m->w.tile_bytes;
    double sum = 0, total = 0, size;
    for (int k = 0; k < m->w.n_in; k++) {
        double x = mm_act_value(a, m->w.form, row, k), w = mm_tile_value(&m->w, tile, o % 32, k, &size);
        sum += w * x;
        total += size * fabs(x);
    }
    int wide = m->w.form >= QN_CW_F16;
    *bound = total * (wide ? (32 * m->w.n_groups + 20) * 0x1p-23 : (3 * m->w.n_groups + 20) * 0x1p-24) + 0x1p-120;
    return sum;
}

#endif
