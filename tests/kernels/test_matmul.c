/* Matrix products of the CPU backend: every weight type and awkward shapes against double sums over the dequantised
 * weights and the quantised activations, against the yardstick backend, and bit for bit between instruction sets, batch
 * sizes and thread counts. */
#include "tests/kernels/kit.h"

enum { ROWS = 67 };

struct lin {
    struct qn_backend *b;
    struct qn_weight *gain, *w, *bias;
    struct qn_vec *x, *out;
    struct qn_act *a;
    struct qn_model_desc *d;
};

static int lin_open(struct lin *l, const char *isa, int threads, const struct qn_tensor *w, const struct qn_tensor *bias) {
    int n_in = (int)w->dim[0], n_out = (int)w->dim[1];
    l->d = kit_desc(n_in, 1, 1, 4, n_out);
    l->b = kit_open(l->d, isa, threads, ROWS, 1, 16);
    if (!l->b) {
        kit_desc_free(l->d);
        return 0;
    }
    struct qn_tensor ones = kit_ones(n_in);
    l->gain = kit_weight(l->b, &ones, 1);
    free((void *)(uintptr_t)ones.data);
    l->w = kit_weight(l->b, w, 0);
    l->bias = bias ? kit_weight(l->b, bias, 1) : NULL;
    l->x = l->b->ops->vec(l->b, n_in), l->out = l->b->ops->vec(l->b, n_out), l->a = l->b->ops->act(l->b, n_in);
    ASSERT(l->x && l->out && l->a);
    return 1;
}
static void lin_close(struct lin *l) {
    l->b->ops->weight_free(l->b, l->gain), l->b->ops->weight_free(l->b, l->w);
    if (l->bias) l->b->ops->weight_free(l->b, l->bias);
    l->b->ops->close(l->b);
    kit_desc_free(l->d);
}
/* Rows [from, from + n) of x (stride n_in) through norm and matrix. */
static void lin_run(struct lin *l, const float *x, int from, int n, float *out) {
    int n_in = l->d->d_model, n_out = l->d->n_vocab;
    struct kit_batch k;
    for (int r = 0; r < n; r++) memcpy(kit_row(l->b, l->x, r), x + (size_t)(from + r) * (size_t)n_in, (size_t)n_in * sizeof *x);
    l->b->ops->begin(l->b, kit_rows(&k, n));
    l->b->ops->add_norm(l->b, l->x, NULL, NULL, 0.0f, l->gain, 1e-5f, l->a);
    struct qn_linear one = { l->w, l->bias, l->out };
    l->b->ops->linear(l->b, l->a, &one, 1);
    l->b->ops->end(l->b);
    for (int r = 0; r < n; r++) memcpy(out + (size_t)r * (size_t)n_out, kit_row(l->b, l->out, r), (size_t)n_out * sizeof *out);
}

/* The activation as the matrix reads it: d*q, bf16 or f32. */
static void act_row(const struct qn_act *a, enum qn_fmt fmt, int rows, int row, double *x) {
    int gi = qn_group_of(rows, row), r0 = qn_group_at(rows, gi), g = qn_group_at(rows, gi + 1) - r0, c = row - r0;
    for (int k = 0; k < a->width; k++) {
        if (fmt == QN_FMT_BF16) {
            uint32_t pair = a->h[((size_t)r0 * (size_t)qn_pairs(a->width)) + (size_t)(k / 2) * (size_t)g + (size_t)c];
            x[k] = (double)qn_bf16_to_f32((uint16_t)(pair >> k % 2 * 16));
            continue;
        }
        if (qn_fmt_is_float(fmt)) {
            x[k] = (double)a->f[(size_t)r0 * (size_t)a->width + (size_t)k * (size_t)g + (size_t)c];
            continue;
        }
        const uint8_t *rec = a->q + ((size_t)r0 * (size_t)a->n_blocks + (size_t)(k / 32) * (size_t)g) * QN_AREC;
        float d;
        memcpy(&d, rec + g * 32 + c * 4, 4);
        x[k] = (double)d * (double)(int8_t)rec[c * 32 + k % 32];
    }
}

static void check_shape(enum qn_type type, int n_in, int n_out, int with_bias) {
    struct kit_rng r = { (uint32_t)type * 977u + (uint32_t)n_in, 0 };
    struct qn_tensor w = kit_tensor(&r, type, n_in, n_out), bias = kit_vector(&r, n_out);
    float *x = malloc(sizeof *x * (size_t)ROWS * (size_t)n_in), *wf = malloc(sizeof *wf * (size_t)n_in * (size_t)n_out);
    float *first = malloc(sizeof *first * (size_t)ROWS * (size_t)n_out), *out = malloc(sizeof *out * (size_t)ROWS * (size_t)n_out);
    double *xr = malloc(sizeof *xr * (size_t)n_in);
    kit_fill(&r, x, (size_t)ROWS * (size_t)n_in);
    qn_dequant(type, w.data, wf, (size_t)n_in * (size_t)n_out);
    int rows = 21, have = 0;
    for (int i = 0; i < KIT_ISAS; i++) {
        struct lin l;
        if (!lin_open(&l, kit_isas[i], 2, &w, with_bias ? &bias : NULL)) continue;
        lin_run(&l, x, 0, rows, out);
        for (int row = 0; row < rows; row++) {
            act_row(l.a, l.w->fmt, rows, row, xr);
            for (int o = 0; o < n_out; o++) {
                double sum = with_bias ? (double)((const float *)bias.data)[o] : 0, size = fabs(sum);
                for (int k = 0; k < n_in; k++) {
                    double p = (double)wf[(size_t)o * (size_t)n_in + (size_t)k] * xr[k];
                    sum += p, size += fabs(p);
                }
                /* formats with a minimum cancel inside a block: q and m are bounded by the block's own values */
                double got = (double)out[(size_t)row * (size_t)n_out + (size_t)o];
                if (!(fabs(got - sum) <= 4e-6 * size + 1e-6)) {
                    qn_test_fail(__FILE__, __LINE__, "type %d [%d,%d] %s row %d out %d: %.9g, wanted %.9g", (int)type, n_out, n_in, kit_isas[i], row, o, got, sum);
                    o = n_out, row = rows;
                }
            }
        }
        if (have) EXPECT_MEM(out, sizeof *out * (size_t)rows * (size_t)n_out, first, sizeof *first * (size_t)rows * (size_t)n_out);
        else memcpy(first, out, sizeof *out * (size_t)rows * (size_t)n_out);
        have = 1;
        lin_close(&l);
    }
    /* and the whole against exact activations: int8 blocks of 32 cost less than 1 % of the output's size, bf16 0.2 % */
    struct lin l;
    ASSERT(lin_open(&l, NULL, 1, &w, with_bias ? &bias : NULL));
    lin_run(&l, x, 0, rows, out);
    double e = 0, s = 0;
    for (int i = 0; i < rows * n_out; i++) e += pow((double)out[i] - (double)first[i], 2), s += pow((double)out[i], 2);
    double rel = sqrt(e / (s + 1e-30)), bound = type == QN_F32 || type == QN_F16 ? 2e-6 : type == QN_BF16 ? 0.003 : 0.02;
    if (!(rel <= bound)) qn_test_fail(__FILE__, __LINE__, "type %d [%d,%d]: %.3g from the yardstick", (int)type, n_out, n_in, rel);
    lin_close(&l);
    free(x), free(wf), free(first), free(out), free(xr), free((void *)(uintptr_t)w.data), free((void *)(uintptr_t)bias.data);
}

TEST(matmul, every_type_sums_right_and_alike_on_every_set) {
    for (int t = 0; t < KIT_TYPES; t++) {
        int step = qn_type_info(kit_types[t])->block_elems;
        check_shape(kit_types[t], step == 1 ? 16 : step, 1, 0);
        check_shape(kit_types[t], step == 1 ? 77 : step * 3, 50, 1);
        check_shape(kit_types[t], step == 1 ? 131 : step == 32 ? 576 : 512, 96, 0);
    }
}

/* Alone, in every batch of 1..67 rows, by 1..4 threads: the same bits. */
static void check_batches(enum qn_type type, const char *isa) {
    struct kit_rng r = { 5, 0 };
    int n_in = 256, n_out = 83;
    struct qn_tensor w = kit_tensor(&r, type, n_in, n_out);
    float *x = malloc(sizeof *x * (size_t)ROWS * (size_t)n_in);
    float *alone = malloc(sizeof *x * (size_t)ROWS * (size_t)n_out), *out = malloc(sizeof *x * (size_t)ROWS * (size_t)n_out);
    kit_fill(&r, x, (size_t)ROWS * (size_t)n_in);
    for (int threads = 1; threads <= 4; threads++) {
        struct lin l;
        if (!lin_open(&l, isa, threads, &w, NULL)) break;
        if (threads == 1)
            for (int row = 0; row < ROWS; row++) lin_run(&l, x, row, 1, alone + (size_t)row * (size_t)n_out);
        for (int n = 1; n <= ROWS; n += threads == 2 ? 1 : 11) {
            int from = (ROWS - n) / 2;
            lin_run(&l, x, from, n, out);
            size_t bytes = sizeof *out * (size_t)n * (size_t)n_out;
            if (memcmp(out, alone + (size_t)from * (size_t)n_out, bytes))
                qn_test_fail(__FILE__, __LINE__, "type %d, %s, %d threads: %d rows differ from rows alone", (int)type, isa, threads, n);
        }
        lin_close(&l);
    }
    free(x), free(alone), free(out), free((void *)(uintptr_t)w.data);
}
TEST(matmul, a_row_yields_the_same_bits_in_any_batch_avx512) {
    for (int t = 0; t < KIT_TYPES; t++) check_batches(kit_types[t], "avx512");
    check_batches(QN_BF16, "avx512-vnni");
}
TEST(matmul, a_row_yields_the_same_bits_in_any_batch_avx2) {
    for (int t = 0; t < KIT_TYPES; t++) check_batches(kit_types[t], "avx2");
}
TEST_SLOW(matmul, a_row_yields_the_same_bits_in_any_batch_generic, 60) {
    check_batches(QN_F16, "generic"), check_batches(QN_BF16, "generic"), check_batches(QN_Q4_1, "generic"), check_batches(QN_Q6_K, "generic");
}

TEST(matmul, three_matrices_in_one_go_equal_three_calls) {
    struct kit_rng r = { 8, 0 };
    struct qn_tensor w[3] = { kit_tensor(&r, QN_Q4_K, 256, 40), kit_tensor(&r, QN_Q6_K, 256, 7), kit_tensor(&r, QN_F16, 256, 33) };
    struct qn_tensor ones = kit_ones(256);
    struct qn_model_desc *d = kit_desc(256, 1, 1, 4, 8);
    struct qn_backend *b = kit_open(d, "generic", 3, 9, 1, 16);
    struct qn_vec *x = b->ops->vec(b, 256), *o[6];
    struct qn_act *a = b->ops->act(b, 256);
    struct qn_weight *gain = kit_weight(b, &ones, 1);
    struct qn_linear l[3];
    struct kit_batch k;
    for (int i = 0; i < 6; i++) o[i] = b->ops->vec(b, (int)w[i % 3].dim[1]);
    for (int i = 0; i < 3; i++) l[i] = (struct qn_linear){ kit_weight(b, &w[i], 0), NULL, o[i] };
    for (int i = 0; i < 9; i++) kit_fill(&r, kit_row(b, x, i), 256);
    b->ops->begin(b, kit_rows(&k, 9));
    b->ops->add_norm(b, x, NULL, NULL, 0.0f, gain, 1e-5f, a);
    b->ops->linear(b, a, l, 3);
    for (int i = 0; i < 3; i++) {
        struct qn_linear one = l[i];
        one.out = o[i + 3];
        b->ops->linear(b, a, &one, 1);
        EXPECT_MEM(o[i]->p, 9 * (size_t)o[i]->stride * 4, o[i + 3]->p, 9 * (size_t)o[i]->stride * 4);
    }
    b->ops->end(b);
    for (int i = 0; i < 3; i++) b->ops->weight_free(b, (struct qn_weight *)(uintptr_t)l[i].w), free((void *)(uintptr_t)w[i].data);
    b->ops->weight_free(b, gain), free((void *)(uintptr_t)ones.data);
    b->ops->close(b);
    kit_desc_free(d);
}

/* glu, down, logits in a row on every set and the yardstick; d_ff such that the last unit is half empty. */
static void chain(const char *isa, int threads, int rows, enum qn_type type, enum qn_act_kind kind, float *out) {
    struct kit_rng r = { 21, 0 };
    int d_model = 64, d_ff = type == QN_F32 ? 45 : 352, n_vocab = 131;
    struct qn_tensor t[5] = { kit_tensor(&r, type, d_model, d_ff), kit_tensor(&r, type, d_model, d_ff), kit_tensor(&r, type, d_ff, d_model),
                              kit_tensor(&r, type, d_model, n_vocab), kit_ones(d_model) };
    struct qn_model_desc *d = kit_desc(d_model, 1, 1, 4, n_vocab);
    d->logit_softcap = 30.0f, d->logit_scale = 0.5f;
    struct qn_backend *b = kit_open(d, isa, threads, rows, 1, 16);
    memset(out, 0, sizeof *out * (size_t)rows * (size_t)n_vocab);
    if (b) {
        struct qn_weight *w[5];
        struct qn_vec *x = b->ops->vec(b, d_model), *y = b->ops->vec(b, d_model);
        struct qn_act *a = b->ops->act(b, d_model), *h = b->ops->act(b, d_ff);
        struct kit_batch k;
        int32_t which[64];
        for (int i = 0; i < 5; i++) w[i] = kit_weight(b, &t[i], i == 4);
        for (int i = 0; i < rows; i++) kit_fill(&r, kit_row(b, x, i), (size_t)d_model), which[i] = i;
        b->ops->begin(b, kit_rows(&k, rows));
        b->ops->add_norm(b, x, NULL, NULL, 0.0f, w[4], 1e-5f, a);
        b->ops->glu(b, a, w[0], w[1], kind, h);
        struct qn_linear l = { w[2], NULL, y };
        b->ops->linear(b, h, &l, 1);
        memcpy(out, b->ops->logits(b, y, which, rows, w[4], 1e-5f, w[3], NULL), sizeof *out * (size_t)rows * (size_t)n_vocab);
        b->ops->end(b);
        for (int i = 0; i < 5; i++) b->ops->weight_free(b, w[i]);
        b->ops->close(b);
    }
    for (int i = 0; i < 5; i++) free((void *)(uintptr_t)t[i].data);
    kit_desc_free(d);
}
TEST(matmul, gated_unit_and_logits_follow_the_yardstick) {
    static float ref[64 * 131], a[64 * 131], c[64 * 131];
    enum qn_type types[] = { QN_F32, QN_Q8_0 };
    for (int t = 0; t < 2; t++)
        for (int kind = QN_ACT_SILU; kind <= QN_ACT_GELU_TANH; kind++) {
            chain(NULL, 1, 19, types[t], (enum qn_act_kind)kind, ref);
            for (int i = 0; i < KIT_ISAS; i++) {
                chain(kit_isas[i], 2, 19, types[t], (enum qn_act_kind)kind, a);
                if (a[0] == 0.0f && a[1] == 0.0f) continue;
                EXPECT_NEAR(kit_diff(ref, a, 19 * 131), 0, types[t] == QN_F32 ? 2e-5 : 0.12);
                if (i == 0) memcpy(c, a, sizeof a);
                EXPECT_MEM(a, 19 * 131 * sizeof *a, c, 19 * 131 * sizeof *a);
            }
        }
}

TEST(matmul, a_row_with_nan_spoils_only_itself) {
    struct kit_rng r = { 3, 0 };
    struct qn_tensor w = kit_tensor(&r, QN_Q4_1, 64, 20);
    float x[5 * 64], good[5 * 20], bad[5 * 20];
    kit_fill(&r, x, 5 * 64);
    for (int i = 0; i < KIT_ISAS; i++) {
        struct lin l;
        if (!lin_open(&l, kit_isas[i], 1, &w, NULL)) continue;
        lin_run(&l, x, 0, 5, good);
        float keep = x[2 * 64 + 9];
        for (int k = 0; k < 2; k++) {
            x[2 * 64 + 9] = k ? INFINITY : NAN;
            lin_run(&l, x, 0, 5, bad);
            for (int row = 0; row < 5; row++)
                for (int o = 0; o < 20; o++) EXPECT(row == 2 ? isnan(bad[row * 20 + o]) : bad[row * 20 + o] == good[row * 20 + o]);
        }
        x[2 * 64 + 9] = keep;
        lin_close(&l);
    }
    free((void *)(uintptr_t)w.data);
}

TEST(matmul, what_has_no_kernel_is_refused_by_name) {
    struct qn_model_desc *d = kit_desc(64, 1, 1, 4, 8);
    struct qn_backend *b = kit_open(d, "generic", 1, 1, 1, 16);
    struct qn_err err = { 0 };
    struct qn_weight *w;
    int keeps;
    uint8_t bytes[4096] = { 0 };
    struct qn_tensor t = { .name = { "blk.0.x", 7 }, .type = QN_Q4_K, .n_dims = 2, .dim = { 64, 2, 1, 1 }, .data = bytes, .n_bytes = 64 };
    EXPECT_EQ(b->ops->weight(b, &t, 0, &w, &keeps, &err), QN_E_UNSUPPORTED);
    EXPECT(strstr(err.text, "blk.0.x") && strstr(err.text, "64"));
    b->ops->close(b);
    struct qn_backend_opts o = { .isa = "sse9", .kv_blocks = 1, .rows_max = 1, .out_max = 1, .n_ctx = 1 };
    memset(&err, 0, sizeof err);
    EXPECT_EQ(qn_cpu_open(&b, d, &o, &err), QN_E_UNSUPPORTED);
    EXPECT(strstr(err.text, "sse9"));
    kit_desc_free(d);
}
