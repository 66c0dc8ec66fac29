/* What row operations and sampling move, by the profile of the checked emulator: device memory in whole sectors, and each row as often as
 * docs/cuda.md says. Plain build: nothing to see. */
#include "engine/cuda/emu/testing.h"
#include "tests/cuda/sample_kit.h"

/* Bytes that accesses of `bytes` a lane (0: any) ask for; their sectors may exceed the least by a part of it. */
static unsigned long long moved(const char *kernel, enum qn_emu_traffic_kind kind, int bytes, double beyond_least) {
    struct qn_emu_traffic t;
    ASSERT(qn_emu_profile_get(kernel, kind, bytes, &t) > 0);
    if ((double)t.sectors > (double)t.sectors_least * (1 + beyond_least)) {
        qn_emu_profile_print();
        qn_test_fail(__FILE__, __LINE__, "%s: %llu sectors, least %llu", kernel, t.sectors, t.sectors_least);
    }
    return t.bytes;
}

TEST(emu_traffic_rows, a_norm_reads_and_writes_rows_once) {
    enum { D = 4096, ROWS = 3 };
    if (!qn_emu_is_checked()) SKIP("plain build");
    struct kit_rng g = {1, 0};
    float *x = rk_random(&g, ROWS * D, 1);
    struct qn_cuda_vec v = {D, rk_device(x, ROWS * D * 4)}, y = {D, rk_device(x, ROWS * D * 4)};
    float *gain = rk_device(x, D * 4);
    struct qn_cuda_act a = {.width = D, .stride = D, .q = rk_device(NULL, ROWS * D), .d = rk_device(NULL, ROWS * D / 8), .sum = rk_device(NULL, ROWS * D / 8)};
    struct rk_step s = rk_step_open(ROWS, 0, NULL);
    qn_emu_profile(1);
    qn_cuda_add_norm(&v, &y, NULL, 1, gain, 1e-5f, &a, &s.step, ROWS, NULL);
    qn_emu_profile(0);
    EXPECT_EQ(moved("add_norm", QN_EMU_DEVICE_READS, 16, 0), ROWS * 12ull * D); /* x, y, gain */
    EXPECT_EQ(moved("add_norm", QN_EMU_DEVICE_WRITES, 16, 0), ROWS * 4ull * D); /* x */
    /* q, and of every 32 inputs a scale and two sums: a warp has four of them, half a sector. */
    EXPECT_EQ(moved("add_norm", QN_EMU_DEVICE_WRITES, 0, 0), ROWS * (4ull * D + D + D / 8 + D / 8));
    rk_step_close(&s);
    cudaFree(v.v), cudaFree(y.v), cudaFree(gain), cudaFree(a.q), cudaFree(a.d), cudaFree(a.sum);
    free(x);
}

TEST(emu_traffic_rows, rope_reads_heads_and_writes_pages_by_whole_sectors) {
    enum { HEADS = 4, KV = 2, HD = 128, ROWS = 2 };
    static const int32_t pos[ROWS] = {3, 4}, zero[ROWS] = {0};
    if (!qn_emu_is_checked()) SKIP("plain build");
    struct kit_rng g = {2, 0};
    float *x = rk_random(&g, ROWS * HEADS * HD, 1);
    struct qn_cuda_rope r = {.q = {HEADS * HD, rk_device(x, ROWS * HEADS * HD * 4)}, .k = {KV * HD, rk_device(x, ROWS * KV * HD * 4)},
                             .v = {KV * HD, rk_device(x, ROWS * KV * HD * 4)},
                             .table = rk_device(x, 5 * HD * 4), .rope_dim = HD, .neox = 1,
                             .kv = {.pages = rk_device(NULL, 2 * KV * 16 * HD * 2), .n_layers = 1, .n_kv_heads = KV, .n_heads = HEADS, .head_dim = HD, .head_pad = HD}};
    struct rk_step s = rk_step_open(ROWS, 0, NULL);
    s.parts[2] = rk_device(zero, sizeof zero), s.parts[3] = rk_device(pos, sizeof pos), s.parts[4] = rk_device(zero, sizeof zero);
    s.step.seq = s.parts[2], s.step.pos = s.parts[3], s.step.blocks = s.parts[4], s.step.blocks_stride = 1;
    qn_emu_profile(1);
    qn_cuda_rope_kv(&r, &s.step, ROWS, NULL);
    qn_emu_profile(0);
    moved("rope_kv", QN_EMU_DEVICE_READS, 0, 0);
    EXPECT_EQ(moved("rope_kv", QN_EMU_DEVICE_WRITES, 0, 0), ROWS * HD * (4ull * HEADS + 2 * KV + 2 * KV));
    const void *dev[] = {r.q.v, r.k.v, r.v.v, r.table, r.kv.pages};
    for (int i = 0; i < 5; i++) cudaFree((void *)(uintptr_t)dev[i]);
    rk_step_close(&s);
    free(x);
}

/* top_k of 20 out of 8192: the maxima in one read; then at most four rounds, the sum, and a chunk for the draw. */
TEST(emu_traffic_rows, sampling_passes_over_a_row_in_whole_sectors) {
    enum { VOCAB = 8192, ROW = VOCAB * 4, CHUNK = 1024 * 4 };
    if (!qn_emu_is_checked()) SKIP("plain build");
    struct sk_batch b;
    sk_batch_random(&b, 4, 1, VOCAB, 1, SK_PEAKED);
    struct sk_pick *k = &b.picks[0];
    k->p.temperature = 0.8f, k->p.top_p = 1, k->p.min_p = 0, k->p.top_k = 20, k->p.n_bias = k->n_ban = 0, k->has_mask = k->has_history = 0, k->n_top = -1;
    b.stride = VOCAB; /* aligned rows */
    qn_emu_profile(1);
    sk_run(&b, 0, 1, NULL);
    qn_emu_profile(0);
    EXPECT_EQ(moved("edit", QN_EMU_DEVICE_READS, 16, 0), ROW);
    EXPECT(moved("pick_token", QN_EMU_DEVICE_READS, 16, 0) <= 5 * ROW + CHUNK);
    k->p.top_k = 0; /* no filter: sums of chunks, then one chunk */
    qn_emu_profile(1);
    sk_run(&b, 0, 1, NULL);
    qn_emu_profile(0);
    struct qn_emu_traffic t; /* the row, and the descriptor's fields, a sector each for a warp */
    EXPECT(qn_emu_profile_get("sum_chunks", QN_EMU_DEVICE_READS, 4, &t) > 0 && t.sectors * 32 >= ROW && t.sectors * 32 < ROW + ROW / 8);
    EXPECT(moved("pick_token", QN_EMU_DEVICE_READS, 16, 0) <= CHUNK);
    sk_batch_free(&b);
}
