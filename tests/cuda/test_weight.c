/* Repacked matrices against qn_dequant: the bytes of every tile, read back from the layout's description. */
#include "tests/cuda/mm_kit.h"

static int k_type(enum qn_type t) { return qn_type_info(t)->block_elems == 256; }

/* All values are exact but F32's: f16 keeps 11 bits (half an ulp: 2^-11 of the value as bound), subnormals half of 2^-24 while the largest
 * value is at least 2^14 in the same unit. */
static void check(struct kit_rng *r, enum qn_type type, int n_in, int n_out) {
    struct mm_weight m = mm_weight_open(r, type, n_in, n_out);
    double most = 0, size;
    for (int i = 0; i < n_in * n_out; i++) most = fmax(most, fabs((double)m.value[i]));
    for (int o = 0; o < m.w.n_tiles * 32; o++)
        for (int k = 0; k < n_in; k++) {
            double got = mm_tile_value(&m.w, m.tiles + (size_t)(o / 32) * m.w.tile_bytes, o % 32, k, &size);
            double want = o < n_out ? (double)m.value[o * n_in + k] : 0;
            double tol = type == QN_F32 ? fabs(want) * 0x1p-11 + most * 0x1p-39 : 0;
            if (type != QN_F32) got = (double)(float)got; /* q4_1, q5_1: qn_dequant rounds the last addition */
            if (!(fabs(got - want) <= tol)) {
                qn_test_fail(__FILE__, __LINE__, "%s [%d, %d] output %d input %d: %.9g, wanted %.9g", qn_type_info(type)->name, n_in, n_out, o, k, got, want);
                qn_test_stop();
            }
        }
    mm_weight_close(&m);
}

TEST(cuda_weight, repacking_keeps_every_value) {
    static const int widths[] = {32, 64, 288, 896}, k_widths[] = {256, 512, 768, 4352}, outs[] = {1, 17, 65};
    struct kit_rng r = {3, 0};
    for (int t = 0; t < KIT_TYPES; t++)
        for (int i = 0; i < 4; i++)
            for (int o = 0; o < (k_type(kit_types[t]) && i == 3 ? 1 : 3); o++) check(&r, kit_types[t], k_type(kit_types[t]) ? k_widths[i] : widths[i], outs[o]);
}

TEST(cuda_weight, widths_that_divide_nothing_are_padded_with_zeros) {
    struct kit_rng r = {4, 0};
    for (int n = 1; n < 70; n += 23) {
        struct mm_weight m = mm_weight_open(&r, QN_BF16, n, 3);
        EXPECT_EQ(m.w.n_groups, (n + 31) / 32);
        double size;
        for (int k = 0; k < m.w.n_groups * 32; k++) EXPECT_NEAR(mm_tile_value(&m.w, m.tiles, 2, k, &size), k < n ? m.value[2 * n + k] : 0, 0);
        mm_weight_close(&m);
    }
}

TEST(cuda_weight, tiles_are_repacked_one_by_one) {
    struct kit_rng r = {5, 0};
    for (int t = 0; t < KIT_TYPES; t++) {
        struct mm_weight m = mm_weight_open(&r, kit_types[t], 512, 100);
        uint8_t *tile = malloc(m.w.tile_bytes);
        for (int i = 0; i < m.w.n_tiles; i++) {
            qn_cuda_weight_repack(&m.w, &m.t, i, 1, tile);
            EXPECT_MEM(tile, m.w.tile_bytes, m.tiles + (size_t)i * m.w.tile_bytes, m.w.tile_bytes);
        }
        free(tile);
        mm_weight_close(&m);
    }
}

TEST(cuda_weight, slices_lie_at_fixed_places) {
    struct kit_rng r = {6, 0};
    static const struct { int n_in, n_slices, slice_sb; } want[] = {{256, 1, 1}, {4096, 16, 1}, {4352, 9, 2}, {14336, 14, 4}};
    for (int i = 0; i < 4; i++) {
        struct mm_weight m = mm_weight_open(&r, QN_Q4_0, want[i].n_in, 1);
        EXPECT_EQ(m.w.n_slices, want[i].n_slices);
        EXPECT_EQ(m.w.slice_sb, want[i].slice_sb);
        mm_weight_close(&m);
    }
}

/* An f32 matrix beyond f16 in both directions is scaled by a power of two. */
TEST(cuda_weight, f32_has_a_range_of_its_own) {
    float v[64];
    for (int e = -120; e <= 120; e += 40) {
        for (int i = 0; i < 64; i++) v[i] = ldexpf(1 + (float)i / 64, e - i % 8);
        struct qn_tensor t = {.name = {"f", 1}, .type = QN_F32, .n_dims = 2, .dim = {64, 1, 1, 1}, .data = v, .n_bytes = sizeof v};
        struct qn_cuda_weight w;
        uint8_t tile[2 * 2048];
        double size;
        ASSERT_EQ(qn_cuda_weight_plan(&w, &t, NULL), 0);
        qn_cuda_weight_repack(&w, &t, 0, 1, tile);
        for (int i = 0; i < 64; i++) EXPECT_NEAR(mm_tile_value(&w, tile, 0, i, &size), v[i], (double)v[i] * 0x1p-11);
    }
}

TEST(cuda_weight, refuses_what_it_cannot_hold) {
    float v[32] = {0};
    struct qn_tensor t = {.name = {"f", 1}, .type = QN_F32, .n_dims = 2, .dim = {32, 1, 1, 1}, .data = v, .n_bytes = sizeof v};
    struct qn_cuda_weight w;
    struct qn_err err = {0};
    ASSERT_EQ(qn_cuda_weight_plan(&w, &t, &err), 0);
    v[7] = INFINITY;
    EXPECT_EQ(qn_cuda_weight_plan(&w, &t, &err), QN_E_UNSUPPORTED);
    EXPECT_STR(err.text, "tensor 'f': element 7 is not a finite number");
    t.type = QN_Q4_K;
    err.code = 0;
    EXPECT_EQ(qn_cuda_weight_plan(&w, &t, &err), QN_E_UNSUPPORTED);
    EXPECT_STR(err.text, "tensor 'f': shape [32, 1] is not one for type Q4_K");
    t.type = 99;
    EXPECT_EQ(qn_cuda_weight_plan(&w, &t, NULL), QN_E_UNSUPPORTED);
    t.type = QN_F16;
    t.dim[2] = 2;
    EXPECT_EQ(qn_cuda_weight_plan(&w, &t, NULL), QN_E_UNSUPPORTED);
}
