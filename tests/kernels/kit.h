/* What the tests of the CPU backend share: models without weights, random tensors of every type, and a look inside the
 * backend's rows. Inputs come from a fixed seed. */
#ifndef QN_TESTS_KERNELS_KIT_H
#define QN_TESTS_KERNELS_KIT_H

#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"
#include "engine/cpu/cpu.h"
#include "engine/quant.h"
#include "tests/run.h"

static const char *const kit_isas[] = { "generic", "avx2", "avx512-vnni", "avx512-bf16" };
enum { KIT_ISAS = 4 };

static const enum qn_type kit_types[] = { QN_F32, QN_F16, QN_BF16, QN_Q4_0, QN_Q4_1, QN_Q5_0, QN_Q5_1, QN_Q8_0, QN_Q2_K, QN_Q3_K, QN_Q4_K, QN_Q5_K, QN_Q6_K, QN_IQ4_NL };
enum { KIT_TYPES = (int)(sizeof kit_types / sizeof *kit_types) };

/* ref.c's own struct qn_vec and qn_act. */
struct kit_ref_rows { int width; float *v; };

struct kit_rng { uint32_t seed, n; };
static inline uint32_t kit_u32(struct kit_rng *r) {
    uint32_t ctr[4] = { r->n++, 0, 0, 0 }, key[2] = { r->seed, 1 }, out[4];
    qn_philox4x32(ctr, key, out);
    return out[0];
}
static inline float kit_f(struct kit_rng *r) { return (float)(int32_t)kit_u32(r) * 0x1p-31f; } /* -1..1 */

/* Values of a few sizes with an outlier now and then, as activations have them. */
static inline void kit_fill(struct kit_rng *r, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = kit_f(r) * (kit_u32(r) % 61 == 0 ? 12.0f : 1.0f);
}

/* Where a block keeps its f16 scales. */
static inline void kit_scales(enum qn_type t, int *a, int *b) {
    *a = t == QN_Q2_K ? 80 : t == QN_Q3_K ? 108 : t == QN_Q6_K ? 208 : 0;
    *b = t == QN_Q2_K ? 82 : t == QN_Q4_1 || t == QN_Q5_1 || t == QN_Q4_K || t == QN_Q5_K ? 2 : -1;
}

/* A random matrix [n_out][n_in]; data is the caller's to free. */
static inline struct qn_tensor kit_tensor(struct kit_rng *r, enum qn_type type, int n_in, int n_out) {
    const struct qn_type_info *info = qn_type_info(type);
    size_t blocks = (size_t)n_in / (size_t)info->block_elems * (size_t)n_out, bytes = blocks * (size_t)info->block_bytes;
    uint8_t *p = malloc(bytes);
    int a, b;
    kit_scales(type, &a, &b);
    for (size_t i = 0; i < blocks; i++) {
        uint8_t *q = p + i * (size_t)info->block_bytes;
        float f = kit_f(r);
        uint16_t h = type == QN_BF16 ? qn_f32_to_bf16(f) : qn_f32_to_f16(f);
        if (type == QN_F32) memcpy(q, &f, 4);
        else if (info->block_elems == 1) memcpy(q, &h, 2);
        else {
            for (int k = 0; k < info->block_bytes; k++) q[k] = (uint8_t)kit_u32(r);
            uint16_t d = qn_f32_to_f16(f * 0.02f), m = qn_f32_to_f16(kit_f(r) * 0.1f);
            memcpy(q + a, &d, 2);
            if (b >= 0) memcpy(q + b, &m, 2);
        }
    }
    return (struct qn_tensor){ .name = { "t", 1 }, .type = type, .n_dims = 2, .dim = { (uint64_t)n_in, (uint64_t)n_out, 1, 1 }, .data = p, .n_bytes = bytes };
}
static inline struct qn_tensor kit_vector(struct kit_rng *r, int n) {
    struct qn_tensor t = kit_tensor(r, QN_F32, n, 1);
    t.n_dims = 1;
    return t;
}
static inline struct qn_tensor kit_ones(int n) {
    struct kit_rng r = { 0, 0 };
    struct qn_tensor t = kit_vector(&r, n);
    for (int i = 0; i < n; i++) ((float *)(uintptr_t)t.data)[i] = 1.0f;
    return t;
}

static inline struct qn_model_desc *kit_desc(int d_model, int heads, int kv_heads, int head_dim, int n_vocab) {
    struct qn_model_desc *d = calloc(1, sizeof *d);
    d->n_layers = 2, d->n_heads = heads, d->n_kv_heads = kv_heads, d->head_dim = head_dim, d->d_model = d_model, d->d_ff = 4096, d->n_vocab = n_vocab;
    d->norm_eps = 1e-5f, d->embed_scale = d->logit_scale = d->residual_scale = 1.0f;
    d->attn_scale = 1.0f / sqrtf((float)head_dim);
    d->rope_kind = QN_ROPE_NEOX, d->rope_dim = head_dim / 2 * 2;
    d->rope_mscale[0] = d->rope_mscale[1] = 1.0f;
    for (int s = 0; s < QN_ROPE_SETS; s++) {
        d->inv_freq[s] = calloc((size_t)head_dim / 2 + 1, sizeof(float));
        for (int i = 0; i < d->rope_dim / 2; i++) d->inv_freq[s][i] = powf(s ? 500.0f : 10000.0f, -2.0f * (float)i / (float)d->rope_dim);
    }
    return d;
}
static inline void kit_desc_free(struct qn_model_desc *d) {
    for (int s = 0; s < QN_ROPE_SETS; s++) free(d->inv_freq[s]);
    free(d);
}

/* NULL isa: the yardstick. Returns NULL where the processor lacks the set. */
static inline struct qn_backend *kit_open_kv(const struct qn_model_desc *d, const char *isa, int threads, int rows, int kv_blocks, int n_ctx, enum qn_kv_type type) {
    struct qn_backend *b = NULL;
    struct qn_err err = { 0 };
    struct qn_backend_opts o = { .n_threads = threads, .isa = isa, .kv_blocks = kv_blocks, .kv_type = type, .rows_max = rows, .out_max = rows, .n_ctx = n_ctx };
    int rc = isa ? qn_cpu_open(&b, d, &o, &err) : qn_cpu_ref_open(&b, d, &o, &err);
    if (rc == QN_E_UNSUPPORTED && isa) return NULL;
    if (rc < 0) qn_test_fail(__FILE__, __LINE__, "open: %s", err.text), qn_test_stop();
    return b;
}

static inline struct qn_backend *kit_open(const struct qn_model_desc *d, const char *isa, int threads, int rows, int kv_blocks, int n_ctx) {
    return kit_open_kv(d, isa, threads, rows, kv_blocks, n_ctx, QN_KV_AUTO);
}

static inline struct qn_weight *kit_weight(struct qn_backend *b, const struct qn_tensor *t, int vector) {
    struct qn_weight *w = NULL;
    struct qn_err err = { 0 };
    int keeps = 7;
    if (b->ops->weight(b, t, vector, &w, &keeps, &err) < 0) qn_test_fail(__FILE__, __LINE__, "weight: %s", err.text), qn_test_stop();
    EXPECT_EQ(keeps, 0);
    return w;
}

static inline int kit_is_ref(const struct qn_backend *b) { return !strcmp(b->ops->name, "cpu-ref"); }
static inline float *kit_row(const struct qn_backend *b, struct qn_vec *v, int r) {
    if (kit_is_ref(b)) {
        struct kit_ref_rows *x = (struct kit_ref_rows *)v;
        return x->v + (size_t)r * (size_t)x->width;
    }
    return v->p + (size_t)r * (size_t)v->stride;
}

/* A batch of n rows of one sequence without KV. */
struct kit_batch {
    struct qn_batch b;
    struct qn_batch_seq seq;
    int32_t block;
    int32_t *token, *pos;
};
static inline const struct qn_batch *kit_rows(struct kit_batch *k, int n) {
    static int32_t zeros[4096];
    k->block = 0;
    k->seq = (struct qn_batch_seq){ 0, n, n, &k->block };
    k->b = (struct qn_batch){ .n_rows = n, .n_seqs = 1, .token = zeros, .pos = zeros, .seqs = &k->seq };
    return &k->b;
}

/* Largest |a-b| over the root mean square of a; NaN counts as infinite. */
static inline double kit_diff(const float *a, const float *b, size_t n) {
    double most = 0, sq = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most)) most = d == d ? d : INFINITY;
        sq += (double)a[i] * (double)a[i];
    }
    return most / (sqrt(sq / (double)n) + 1e-30);
}

/* The root mean square of a-b over that of a. */
static inline double kit_rms_diff(const float *a, const float *b, size_t n) {
    double d = 0, sq = 0;
    for (size_t i = 0; i < n; i++) d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]), sq += (double)a[i] * (double)a[i];
    return sqrt(d / (sq + 1e-30));
}

#endif
