/* Repacking sixteen outputs at once against output by output: every byte, every type, whole and cut tiles. That the plain
 * way has the file's values is test_matmul.c's to say (each product is compared with the dequantised weights). */
#include "engine/cpu/repack.h"
#include "tests/kernels/kit.h"

static void check(enum qn_type type, int n_in, int n_out) {
    struct kit_rng r = { (uint32_t)type * 31u + (uint32_t)n_in + (uint32_t)n_out, 0 };
    const struct qn_fmt_info *info = &qn_fmt_info[qn_repack_fmt(type)];
    size_t n = (size_t)((n_in + info->step_elems - 1) / info->step_elems) * (size_t)info->step_bytes;
    uint8_t *got = malloc(n + 64), *want = malloc(n);
    struct qn_tensor t = kit_tensor(&r, type, n_in, n_out);
    uint8_t *exact = malloc(t.n_bytes); /* so that a read past the end is seen by a sanitizer */
    memcpy(exact, t.data, t.n_bytes);
    for (int tile = 0; tile < (n_out + 15) / 16; tile++) {
        memset(got, 0xa5, n + 64), memset(want, 0x5a, n);
        qn_repack_tile(type, exact, n_in, n_out, tile, got);
        qn_repack_plain(type, exact, n_in, n_out, tile, want);
        EXPECT_MEM(got, n, want, n);
        for (int i = 0; i < 64; i++) EXPECT_EQ(got[n + (size_t)i], 0xa5);
    }
    free(got), free(want), free(exact), free((void *)(uintptr_t)t.data);
}

TEST(repack, wide_and_plain_write_the_same_bytes) {
    for (int k = 0; k < KIT_TYPES; k++) {
        int step = qn_type_info(kit_types[k])->block_elems;
        const int ins[] = { 1, 2, 3, 7, 18 }, outs[] = { 1, 15, 16, 17, 48, 61 };
        for (size_t i = 0; i < sizeof ins / sizeof *ins; i++)
            for (size_t o = 0; o < sizeof outs / sizeof *outs; o++) check(kit_types[k], step * ins[i], outs[o]);
    }
}

TEST(repack, the_wide_way_knows_the_types_of_common_files) {
    uint8_t file[16 * 256], out[4096];
    const enum qn_type common[] = { QN_Q4_0, QN_Q4_1, QN_Q5_0, QN_Q5_1, QN_Q8_0, QN_Q4_K, QN_Q5_K, QN_Q6_K, QN_IQ4_NL };
    memset(file, 0, sizeof file);
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) {
        int bytes = qn_type_info(common[i])->block_bytes;
        EXPECT(qn_repack_wide(common[i], file, (size_t)bytes, bytes, 1, qn_fmt_info[qn_repack_fmt(common[i])].step_bytes, out));
    }
    EXPECT(!qn_repack_wide(QN_Q2_K, file, 84, 84, 1, 1600, out));
}
