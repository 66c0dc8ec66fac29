/* What hot kernels move, by the profile of the checked emulator: sectors of device memory a request, wavefronts of shared memory a request.
 * A figure here is part of a kernel's design (docs/cuda.md): whoever changes an access pattern finds out. Plain build: nothing to see. */
#include "engine/cuda/emu/testing.h"
#include "tests/cuda/mm_kit.h"

/* One product of full tiles, profiled; n_in * n_out weights. */
static void product(enum qn_type type, int n_in, int n_out, int rows) {
    struct kit_rng r = {5, 0};
    struct mm_weight m = mm_weight_open(&r, type, n_in, n_out);
    float *x = malloc((size_t)rows * (size_t)n_in * sizeof *x);
    kit_fill(&r, x, (size_t)rows * (size_t)n_in);
    struct mm_act a = mm_act_open(x, rows, n_in);
    struct qn_cuda_product l = {m.w, NULL, {n_out, mm_device(NULL, (size_t)rows * (size_t)n_out * sizeof(float))}};
    struct mm_step s = mm_step_open(rows, 0, NULL);
    ASSERT_EQ(qn_cuda_matmul_init(), 0);
    qn_emu_profile(1);
    qn_cuda_linear(&a.dev, &l, 1, &s.step, rows, NULL);
    qn_emu_profile(0);
    ASSERT_EQ(cudaGetLastError(), 0);
    cudaFree(l.out.v);
    mm_step_close(&s);
    mm_act_close(&a);
    mm_weight_close(&m);
    free(x);
}

/* Sectors or wavefronts beyond the least, in percent of the least. */
static double beyond(const char *kernel, enum qn_emu_traffic_kind kind, int bytes) {
    struct qn_emu_traffic t;
    ASSERT(qn_emu_profile_get(kernel, kind, bytes, &t) > 0);
    double least = (double)(t.sectors_least + t.wavefronts_least);
    return ((double)(t.sectors + t.wavefronts) - least) * 100 / least;
}

static const struct { enum qn_type type; int rows; const char *kernel; double reads, shared_reads; } cases[] = {
    /* kernel, and by how much device reads and shared reads may exceed the least, in percent. Rows' scales and sums lie 16 bytes a row: half a
     * sector each, which is all that is lost. */
    {QN_Q4_0, 1, "qn_gemv_kernel", 0, 0},         {QN_Q4_0, 8, "qn_gemv_kernel", 6, 0},    {QN_Q4_0, 16, "qn_batch_kernel", 6, 0},
    {QN_Q4_0, 128, "qn_gemm_kernel", 8, 0},       {QN_Q4_K, 1, "qn_gemv_kernel", 0, 0},    {QN_Q4_K, 128, "qn_gemm_kernel", 14, 0},
    {QN_Q6_K, 1, "qn_gemv_kernel", 0, 0},         {QN_Q6_K, 16, "qn_batch_kernel", 6, 0},  {QN_Q6_K, 128, "qn_gemm_kernel", 8, 0},
    {QN_Q8_0, 1, "qn_gemv_kernel", 0, 0},         {QN_Q8_0, 128, "qn_gemm_kernel", 8, 0},  {QN_F16, 1, "qn_wide_kernel", 0, 0},
    {QN_F16, 128, "qn_gemm_wide_kernel", 0, 0},
};
TEST_SLOW(emu_traffic, products_read_whole_sectors_and_meet_all_banks, 120) {
    if (!qn_emu_is_checked()) SKIP("plain build");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        product(cases[i].type, 1024, 64, cases[i].rows);
        double reads = beyond(cases[i].kernel, QN_EMU_DEVICE_READS, 0), shared = beyond(cases[i].kernel, QN_EMU_SHARED_READS, 0);
        if (reads > cases[i].reads || shared > cases[i].shared_reads) {
            qn_emu_profile_print();
            qn_test_fail(__FILE__, __LINE__, "case %zu: device reads %.1f %% beyond the least, shared reads %.1f %%", i, reads, shared);
        }
        EXPECT_NEAR(beyond(cases[i].kernel, QN_EMU_DEVICE_WRITES, 0), 0, 0);
    }
}

/* Every byte of a matrix goes over the bus once: 18 bytes of Q4_0 for 32 weights. */
TEST(emu_traffic, decode_reads_each_weight_once) {
    struct qn_emu_traffic t;
    if (!qn_emu_is_checked()) SKIP("plain build");
    product(QN_Q4_0, 1024, 64, 1);
    ASSERT(qn_emu_profile_get("qn_gemv_kernel", QN_EMU_DEVICE_READS, 16, &t) > 0);
    unsigned long long weights = 1024 * 64 / 32 * 18, act = 2 * (1024 + 1024 / 32 * 4); /* by either tile's block */
    EXPECT_EQ(t.sectors * 32, weights + act);
}
