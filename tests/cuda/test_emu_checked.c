/* The checked build: a planted bug for each thing that it looks for, a kernel without one, and the profile's figures by hand. In the
 * plain build there is nothing to test. */
#include "engine/cuda/emu/testing.h"
#include "tests/cuda/emu_kernels.h"
#include "tests/cuda/kit.h"
#include "tests/run.h"

static const char *const said[CHECKED_COUNT] = {
    [CHECKED_NO_BARRIER] = "race: ",
    [CHECKED_NO_SYNCWARP] = "race: ",
    [CHECKED_SHUFFLE_ORDERS_NOTHING] = "race: ",
    [CHECKED_WRITE_AFTER_READ] = "race: ",
    [CHECKED_BLOCKS_RACE] = "race: ",
    [CHECKED_PLAIN_FOR_ATOMIC] = "race: ",
    [CHECKED_LAST_BLOCK_NO_FENCE] = "race: ",
    [CHECKED_LAST_BLOCK_NO_BARRIER] = "race: ",
    [CHECKED_UNWRITTEN_SHARED] = "nobody has written",
    [CHECKED_UNWRITTEN_DEVICE] = "nobody has written",
    [CHECKED_ONE_PAST_DEVICE] = "0 bytes past the end of the 1024",
    [CHECKED_ONE_PAST_SHARED] = "outside the block's shared memory",
    [CHECKED_HOST_MEMORY] = "host memory",
    [CHECKED_OTHER_STACK] = "on the stack of thread",
    [CHECKED_CP_BEFORE_WAIT] = "nobody has written",
    [CHECKED_CP_NO_BARRIER] = "race: ",
    [CHECKED_UNALIGNED] = "not aligned",
    [CHECKED_LDMATRIX_NO_SYNC] = "race: ",
};
/* The order of fibers must not matter: where a bug shows as a race or as unwritten bytes depends on who comes first. */
static const char *const orders[] = {"forward", "reverse", "random:1", "random:2"};

TEST(emu_checked, every_planted_bug_is_reported_in_one_run) {
    if (!qn_emu_is_checked()) SKIP("plain build");
    for (int o = 0; o < 8; o++)
        for (int bug = 0; bug < CHECKED_COUNT; bug++) {
            static int host[16], zero[256];
            int *mem = dev_copy(zero, sizeof zero), *fresh = dev_new(sizeof zero);
            qn_emu_set(orders[o / 2], NULL, o % 2 ? "late" : "now", 1);
            qn_emu_collect(1);
            emu_checked_bug((enum emu_checked_bug)bug, mem, 256, fresh, host, NULL);
            qn_emu_collect(0);
            cudaGetLastError();
            const char *text = qn_emu_report_text(0);
            int as_said = said[bug] ? strstr(text, said[bug]) && strstr(text, "emu_checked_bugs.cu:") : qn_emu_n_reports() == 0;
            int unwritten_first = said[bug] && !strcmp(said[bug], "race: ") && strstr(text, "nobody has written");
            if (!as_said && !unwritten_first) qn_test_fail(__FILE__, __LINE__, "bug %d, order %s: \"%s\", wanted \"%s\"", bug, orders[o / 2], text, said[bug] ? said[bug] : "nothing");
            qn_emu_forget_reports();
            cudaFree(mem), cudaFree(fresh);
        }
}

/* 32 lanes, 4 bytes each, at a distance of 4 * stride bytes: sectors = min(32, 4 * stride); shared, as stride goes through the banks:
 * words of one bank are 32 / gcd(32, stride) lanes apart. */
TEST(emu_checked, profile_counts_sectors_and_wavefronts) {
    static float in[1024], out[32];
    static const struct { int stride; unsigned sectors, wave4, wave8, wave16; } want[] = {
        {1, 4, 1, 2, 4}, {2, 8, 2, 4, 8}, {3, 12, 1, 2, 4}, {8, 32, 8, 16, 32},
    };
    if (!qn_emu_is_checked()) SKIP("plain build");
    float *din = dev_copy(in, sizeof in), *dout = dev_copy(out, sizeof out);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct qn_emu_traffic t;
        qn_emu_profile(1);
        emu_strides(dout, din, want[i].stride, NULL);
        qn_emu_profile(0);
        ASSERT(qn_emu_profile_get("strides", QN_EMU_DEVICE_READS, 4, &t) >= 1);
        EXPECT_EQ(t.requests, 2); /* in, and out for += */
        EXPECT_EQ(t.sectors, want[i].sectors + 4);
        EXPECT_EQ(t.sectors_least, 8);
        ASSERT_EQ(qn_emu_profile_get("strides", QN_EMU_SHARED_READS, 16, &t), 1);
        EXPECT_EQ(t.wavefronts, want[i].wave16);
        EXPECT_EQ(t.wavefronts_least, 4);
        ASSERT_EQ(qn_emu_profile_get("strides", QN_EMU_SHARED_READS, 8, &t), 1);
        EXPECT_EQ(t.wavefronts, want[i].wave8);
        ASSERT_EQ(qn_emu_profile_get("strides", QN_EMU_SHARED_READS, 4, &t), 1);
        EXPECT_EQ(t.wavefronts, want[i].wave4);
        EXPECT_EQ(t.requests, 1);
    }
}
