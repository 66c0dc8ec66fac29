/* Products on the card against double loops over the same quantised activations, and against themselves bit for bit: what a row yields
 * depends on weight and row alone (step.h). Bounds are derived in mm_kit.h. */
#include "tests/cuda/mm_kit.h"

static int k_type(enum qn_type t) { return qn_type_info(t)->block_elems == 256; }

static float *random_rows(struct kit_rng *r, int rows, int width) {
    float *x = malloc(((size_t)rows * (size_t)width + 1) * sizeof *x);
    kit_fill(r, x, (size_t)rows * (size_t)width);
    return x;
}

/* The product on the device: [rows_alloc][n_out] on the host, poisoned where nothing was written. */
static float *product(const struct mm_weight *m, const struct mm_act *a, const float *bias, int n_rows, int rows_bound) {
    int alloc = rows_bound > n_rows ? rows_bound : n_rows + 1;
    size_t bytes = (size_t)alloc * (size_t)m->w.n_out * sizeof(float);
    float *out = malloc(bytes), *dbias = bias ? mm_device(bias, (size_t)m->w.n_out * sizeof *bias) : NULL;
    struct qn_cuda_product l = {m->w, dbias, {m->w.n_out, mm_device(NULL, bytes)}};
    struct mm_step s = mm_step_open(n_rows, 0, NULL);
    ASSERT_EQ(qn_cuda_matmul_init(), 0);
    cudaMemset(l.out.v, MM_POISON, bytes);
    qn_cuda_linear(&a->dev, &l, 1, &s.step, rows_bound, NULL);
    mm_fetch(out, l.out.v, bytes);
    cudaFree(l.out.v);
    cudaFree(dbias);
    mm_step_close(&s);
    return out;
}

static int poisoned(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    return u == 0x01010101u * MM_POISON;
}

static void check_rows(const struct mm_weight *m, const struct mm_act *a, const float *bias, const float *out, int n_rows, int rows) {
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < m->w.n_out; o++) {
            float got = out[r * m->w.n_out + o];
            if (r >= n_rows) {
                if (!poisoned(got)) qn_test_fail(__FILE__, __LINE__, "row %d was written", r), qn_test_stop();
                continue;
            }
            double bound, want = mm_want(m, a, r, o, &bound) + (bias ? (double)bias[o] : 0);
            bound += bias ? fabs((double)bias[o]) * 0x1p-23 : 0;
            if (!(fabs((double)got - want) <= bound)) {
                qn_test_fail(__FILE__, __LINE__, "%s [%d, %d] %d rows, row %d output %d: %.9g, wanted %.9g +- %.3g", qn_type_info(m->t.type)->name, m->w.n_in,
                             m->w.n_out, n_rows, r, o, (double)got, want, bound);
                qn_test_stop();
            }
        }
}

static void agrees(struct kit_rng *r, enum qn_type type, int n_in, int n_out, int rows, int with_bias) {
    struct mm_weight m = mm_weight_open(r, type, n_in, n_out);
    float *x = random_rows(r, rows, n_in), *bias = random_rows(r, 1, n_out);
    struct mm_act a = mm_act_open(x, rows, n_in);
    float *out = product(&m, &a, with_bias ? bias : NULL, rows, rows);
    check_rows(&m, &a, with_bias ? bias : NULL, out, rows, rows + 1);
    free(out);
    free(x);
    free(bias);
    mm_act_close(&a);
    mm_weight_close(&m);
}

TEST_SLOW(cuda_matmul, agrees_with_sums_in_double, 120) {
    static const int widths[] = {32, 64, 288, 896}, k_widths[] = {256, 512, 768, 4352}, outs[] = {1, 17, 65}, rows[] = {0, 1, 3, 8, 9, 33, 70};
    struct kit_rng r = {11, 0};
    for (int t = 0; t < KIT_TYPES; t++)
        for (int i = 0; i < 7; i++) agrees(&r, kit_types[t], k_type(kit_types[t]) ? k_widths[(i + t) % 3] : widths[(i + t) % 4], outs[(i + i / 3 + t) % 3], rows[i], i & 1);
}

/* More slices than a warp takes at once, and slices of several super-blocks. */
TEST_SLOW(cuda_matmul, agrees_on_many_slices, 120) {
    static const enum qn_type types[] = {QN_Q4_K, QN_Q6_K, QN_Q5_0, QN_F16};
    static const int rows[] = {1, 10, 17, 65};
    struct kit_rng r = {12, 0};
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 4; i++) agrees(&r, types[t], t % 2 ? 4352 : 4096, 33, rows[i], 0);
}

TEST(cuda_matmul, sixteen_bit_widths_divide_nothing) {
    static const enum qn_type types[] = {QN_F32, QN_F16, QN_BF16};
    struct kit_rng r = {13, 0};
    for (int t = 0; t < 3; t++)
        for (int rows = 1; rows < 80; rows += rows == 1 ? 9 : 60) agrees(&r, types[t], t == 0 ? 1 : 333, 33, rows, 1);
}

/* --- the same bits, whoever else is there --------------------------------------------------------------------------- */

static void same_bits(struct kit_rng *r, enum qn_type type, int n_in, int n_out) {
    static const struct { int rows, at, bound; } in[] = {{1, 0, 4}, {1, 0, 8}, {1, 0, 64}, {4, 3, 4}, {7, 5, 7}, {8, 7, 8}, {9, 0, 9}, {1, 0, 16}, {17, 16, 24}, {20, 3, 128}, {64, 40, 64}, {100, 77, 128}};
    struct mm_weight m = mm_weight_open(r, type, n_in, n_out);
    float *bias = random_rows(r, 1, n_out), *x = random_rows(r, 1, n_in);
    struct mm_act one = mm_act_open(x, 1, n_in);
    float *want = product(&m, &one, bias, 1, 1);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        float *many = random_rows(r, in[i].rows, n_in);
        memcpy(many + (size_t)in[i].at * (size_t)n_in, x, (size_t)n_in * sizeof *x);
        struct mm_act a = mm_act_open(many, in[i].rows, n_in);
        float *out = product(&m, &a, bias, in[i].rows, in[i].bound);
        if (memcmp(out + in[i].at * n_out, want, (size_t)n_out * sizeof *out))
            qn_test_fail(__FILE__, __LINE__, "%s [%d, %d]: row %d of %d (bound %d) has other bits", qn_type_info(type)->name, n_in, n_out, in[i].at, in[i].rows, in[i].bound);
        free(out);
        free(many);
        mm_act_close(&a);
    }
    free(want);
    free(x);
    free(bias);
    mm_act_close(&one);
    mm_weight_close(&m);
}

TEST_SLOW(cuda_matmul, a_row_has_the_same_bits_in_any_batch, 120) {
    struct kit_rng r = {14, 0};
    for (int t = 0; t < KIT_TYPES; t++) same_bits(&r, kit_types[t], k_type(kit_types[t]) ? 768 : 544, 65);
}

TEST_SLOW(cuda_matmul, a_row_has_the_same_bits_over_long_slices, 120) {
    struct kit_rng r = {15, 0};
    same_bits(&r, QN_Q4_K, 4352, 17);
    same_bits(&r, QN_BF16, 4352, 17);
}

TEST(cuda_matmul, a_nan_stays_in_its_row) {
    static const enum qn_type types[] = {QN_Q4_1, QN_Q6_K, QN_Q8_0, QN_F16, QN_BF16};
    struct kit_rng r = {16, 0};
    for (int t = 0; t < 5; t++)
        for (int i = 0; i < 3; i++) {
            int rows = i == 0 ? 3 : i == 1 ? 12 : 66;
            struct mm_weight m = mm_weight_open(&r, types[t], 512, 33);
            float *x = random_rows(&r, rows, 512);
            struct mm_act clean = mm_act_open(x, rows, 512);
            float *want = product(&m, &clean, NULL, rows, rows);
            x[512 + 300] = t % 2 ? NAN : INFINITY;
            struct mm_act a = mm_act_open(x, rows, 512);
            float *out = product(&m, &a, NULL, rows, rows);
            for (int o = 0; o < 33; o++) EXPECT(!isfinite(out[33 + o]));
            EXPECT_MEM(out, 33 * sizeof *out, want, 33 * sizeof *want);
            EXPECT_MEM(out + 66, (size_t)(rows - 2) * 33 * sizeof *out, want + 66, (size_t)(rows - 2) * 33 * sizeof *want);
            free(out);
            free(want);
            free(x);
            mm_act_close(&a);
            mm_act_close(&clean);
            mm_weight_close(&m);
        }
}

/* --- several matrices ---------------------------------------------------------------------------------------------- */

static void three(struct kit_rng *r, const enum qn_type type[3], int rows) {
    static const int outs[3] = {70, 33, 17};
    struct mm_weight m[3];
    struct qn_cuda_product l[3];
    float *x = random_rows(r, rows, 512), *out = malloc((size_t)rows * 70 * sizeof *out);
    struct mm_act a = mm_act_open(x, rows, 512);
    struct mm_step s = mm_step_open(rows, 0, NULL);
    for (int k = 0; k < 3; k++) {
        m[k] = mm_weight_open(r, type[k], 512, outs[k]);
        l[k] = (struct qn_cuda_product){m[k].w, NULL, {outs[k], mm_device(NULL, (size_t)rows * (size_t)outs[k] * sizeof *out)}};
    }
    ASSERT_EQ(qn_cuda_matmul_init(), 0);
    qn_cuda_linear(&a.dev, l, 3, &s.step, rows, NULL);
    for (int k = 0; k < 3; k++) {
        mm_fetch(out, l[k].out.v, (size_t)rows * (size_t)outs[k] * sizeof *out);
        check_rows(&m[k], &a, NULL, out, rows, rows);
        cudaFree(l[k].out.v);
        mm_weight_close(&m[k]);
    }
    mm_step_close(&s);
    mm_act_close(&a);
    free(x);
    free(out);
}

TEST(cuda_matmul, query_key_and_value_share_a_launch_or_not) {
    static const enum qn_type types[][3] = {{QN_Q4_K, QN_Q4_K, QN_Q4_K}, {QN_Q4_K, QN_Q4_K, QN_Q6_K}, {QN_Q8_0, QN_F16, QN_Q8_0}, {QN_BF16, QN_BF16, QN_BF16}};
    static const int rows[] = {2, 11, 70};
    struct kit_rng r = {17, 0};
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 3; i++) three(&r, types[t], rows[i]);
}

static double activation(int gelu, double g) { return gelu ? 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g))) : g / (1 + exp(-g)); }

/* Both activations have slopes of at most 1.13; f32 in between costs at most 2^-20 of |gate * up|. */
static void gated(struct kit_rng *r, enum qn_type gate_type, enum qn_type up_type, int gelu, int rows) {
    enum { N_IN = 1280, N_OUT = 49 }; /* five slices, three quarters */
    struct mm_weight gate = mm_weight_open(r, gate_type, N_IN, N_OUT), up = mm_weight_open(r, up_type, N_IN, N_OUT);
    float *x = random_rows(r, rows, N_IN), *out = malloc((size_t)rows * N_OUT * sizeof *out);
    struct mm_act a = mm_act_open(x, rows, N_IN);
    struct mm_step s = mm_step_open(rows, 0, NULL);
    struct qn_cuda_vec v = {N_OUT, mm_device(NULL, (size_t)rows * N_OUT * sizeof *out)};
    ASSERT_EQ(qn_cuda_matmul_init(), 0);
    qn_cuda_glu(&a.dev, &gate.w, &up.w, gelu, &v, &s.step, rows, NULL);
    mm_fetch(out, v.v, (size_t)rows * N_OUT * sizeof *out);
    for (int i = 0; i < rows * N_OUT; i++) {
        double eg, eu, g = mm_want(&gate, &a, i / N_OUT, i % N_OUT, &eg), u = mm_want(&up, &a, i / N_OUT, i % N_OUT, &eu);
        double bound = 1.13 * eg * (fabs(u) + eu) + fabs(activation(gelu, g)) * eu + fabs(g * u) * 0x1p-20;
        EXPECT_NEAR(out[i], activation(gelu, g) * u, bound);
    }
    cudaFree(v.v);
    mm_step_close(&s);
    mm_act_close(&a);
    mm_weight_close(&gate);
    mm_weight_close(&up);
    free(x);
    free(out);
}

TEST(cuda_matmul, gated_units_of_one_form_and_of_two) {
    static const enum qn_type types[][2] = {{QN_Q4_K, QN_Q4_K}, {QN_Q5_1, QN_Q8_0}, {QN_F16, QN_F16}, {QN_Q2_K, QN_BF16}};
    static const int rows[] = {1, 10, 20, 74};
    struct kit_rng r = {18, 0};
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 4; i++) gated(&r, types[t][0], types[t][1], t & 1, rows[i]);
}

TEST(cuda_matmul, logits_are_scaled_and_capped) {
    struct kit_rng r = {19, 0};
    struct mm_weight m = mm_weight_open(&r, QN_Q4_1, 288, 65);
    float *x = random_rows(&r, 11, 288), *bias = random_rows(&r, 1, 65), out[11 * 65];
    struct mm_act a = mm_act_open(x, 11, 288);
    for (int n = 2; n < 12; n += 9) {
        struct mm_step s = mm_step_open(40, n, NULL); /* more rows in the step than logits */
        struct qn_cuda_product l = {m.w, mm_device(bias, 65 * sizeof *bias), {65, mm_device(NULL, sizeof out)}};
        ASSERT_EQ(qn_cuda_matmul_init(), 0);
        cudaMemset(l.out.v, MM_POISON, sizeof out);
        qn_cuda_logits(&a.dev, &l, 0.25f, 3.0f, &s.step, 11, NULL);
        mm_fetch(out, l.out.v, sizeof out);
        for (int i = 0; i < 11 * 65; i++) {
            double bound, want = 3 * tanh((mm_want(&m, &a, i / 65, i % 65, &bound) + (double)bias[i % 65]) * 0.25 / 3);
            if (i / 65 >= n) EXPECT(poisoned(out[i]));
            else EXPECT_NEAR(out[i], want, 0.25 * bound + 4 * 0x1p-22);
        }
        cudaFree((void *)(uintptr_t)l.bias);
        cudaFree(l.out.v);
        mm_step_close(&s);
    }
    free(x);
    free(bias);
    mm_act_close(&a);
    mm_weight_close(&m);
}

/* --- embedding ----------------------------------------------------------------------------------------------------- */

TEST(cuda_matmul, embedding_gives_the_values_of_the_file) {
    static const int32_t token[] = {0, 99, 31, 32, 99};
    struct kit_rng r = {20, 0};
    for (int t = 0; t < KIT_TYPES; t++) {
        int n_in = k_type(kit_types[t]) ? 512 : 288;
        struct mm_weight m = mm_weight_open(&r, kit_types[t], n_in, 100);
        struct mm_step s = mm_step_open(5, 0, token);
        size_t bytes = 6 * (size_t)n_in * sizeof(float);
        struct qn_cuda_vec x = {n_in, mm_device(NULL, bytes)};
        float *out = malloc(bytes);
        cudaMemset(x.v, MM_POISON, bytes);
        qn_cuda_embed(&x, &m.w, 1.7f, &s.step, 6, NULL);
        mm_fetch(out, x.v, bytes);
        for (int i = 0; i < 6 * n_in; i++) {
            if (i / n_in == 5) EXPECT(poisoned(out[i]));
            else EXPECT_NEAR(out[i], 1.7f * m.value[token[i / n_in] * n_in + i % n_in], kit_types[t] == QN_F32 ? fabs((double)out[i]) * 0x1p-10 + 0x1p-30 : 0);
        }
        free(out);
        cudaFree(x.v);
        mm_step_close(&s);
        mm_weight_close(&m);
    }
}
