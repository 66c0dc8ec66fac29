/* How the PTX interpreter runs lanes, barriers and memory, and what it refuses, on PTX written by hand: blocks of code in an order that
 * no "lowest first" survives, barriers that some miss, addresses outside, copies nobody waits for, instructions it does not know. A
 * refusal is a message with the line and SIGABRT, so it is looked at from a parent process. */
#include "tests/cuda/ptx/ptx.h"
#include "tests/run.h"

#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEAD ".version 9.0\n.target sm_80\n.address_size 64\n"
#define ENTRY "(.param .u64 pout) {\n.reg .b32 %r<20>; .reg .b64 %rd<8>; .reg .pred %p<8>; .reg .b16 %rs<4>; .reg .f32 %f<4>;\n" \
              "ld.param.u64 %rd1, [pout]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n"

static uint32_t out[256];
static void run(const char *body, unsigned threads, unsigned blocks, size_t dynamic) {
    char text[8192];
    const void *p = out;
    struct qn_ptx_arg arg = {&p, 8};
    snprintf(text, sizeof text, "%s.visible .entry t%s%s\nret;\n}\n", HEAD, ENTRY, body);
    memset(out, 0, sizeof out);
    qn_ptx_allow(out, sizeof out, 1);
    struct qn_ptx *m = qn_ptx_parse(text, "text");
    qn_ptx_launch(m, "t", (unsigned[3]){blocks, 1, 1}, (unsigned[3]){threads, 1, 1}, dynamic, &arg, 1);
    qn_ptx_close(m);
    qn_ptx_forbid(out);
}

/* The process that runs `body` ends by abort and says `what`. */
static void refused(const char *body, unsigned threads, const char *what) {
    int pipe_[2], status;
    char said[4096];
    size_t n = 0;
    ssize_t got;
    if (pipe(pipe_)) abort();
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipe_[1], 2);
        close(pipe_[0]), close(pipe_[1]);
        run(body, threads, 1, 0);
        _exit(0);
    }
    close(pipe_[1]);
    while (n < sizeof said - 1 && (got = read(pipe_[0], said + n, sizeof said - 1 - n)) > 0) n += (size_t)got;
    said[n] = 0;
    close(pipe_[0]);
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(said, what)) qn_test_fail(__FILE__, __LINE__, "wanted \"%s\", status %x, said: %s", what, (unsigned)status, said);
}

TEST(ptx_run, branches_part_and_join) {
    /* Odd lanes jump ahead and come back to a block that lies before their way: the join is above the code that leads to it. */
    run("mov.b32 %r2, 0; and.b32 %r3, %r1, 1; setp.eq.u32 %p1, %r3, 1; bra.uni START;\n"
        "JOIN: shfl.sync.bfly.b32 %r4|%p2, %r2, 1, 31, -1; add.s32 %r5, %r4, %r2; st.global.u32 [%rd3], %r5; bra.uni END;\n"
        "START: @%p1 bra ODD; mov.b32 %r2, 5; bra.uni JOIN;\n"
        "ODD: add.s32 %r2, %r1, 100; bra.uni JOIN;\n"
        "END:", 32, 1, 0);
    for (uint32_t l = 0; l < 32; l++) EXPECT_EQ(out[l], 5 + 100 + (l | 1));
}

TEST(ptx_run, loops_of_different_lengths) {
    run("mov.b32 %r2, 0; mov.b32 %r3, 0;\nL: setp.ge.u32 %p1, %r2, %r1; @%p1 bra D; add.s32 %r3, %r3, %r2; add.s32 %r2, %r2, 1; bra.uni L;\nD: activemask.b32 %r4; "
        "setp.ne.b32 %p2, %r4, -1; @%p2 add.s32 %r3, %r3, 1000; st.global.u32 [%rd3], %r3;", 32, 1, 0);
    for (uint32_t l = 0; l < 32; l++) EXPECT_EQ(out[l], l * (l - 1) / 2); /* all 32 met again */
}

TEST(ptx_run, a_switch_jumps_by_table) {
    run("and.b32 %r2, %r1, 3; mov.b32 %r3, 9;\nTS: .branchtargets A, B, C;\nsetp.gt.u32 %p1, %r2, 2; @%p1 bra E; brx.idx %r2, TS;\n"
        "C: add.s32 %r3, %r3, 1;\nB: add.s32 %r3, %r3, 10; bra.uni E;\nA: mov.b32 %r3, 1;\nE: st.global.u32 [%rd3], %r3;", 32, 1, 0);
    for (uint32_t l = 0; l < 32; l++) EXPECT_EQ(out[l], (l & 3) == 0 ? 1 : (l & 3) == 1 ? 19 : (l & 3) == 2 ? 20 : 9);
}

TEST(ptx_run, shuffles_stay_in_their_segment) {
    run("shfl.sync.up.b32 %r2|%p1, %r1, 3, 0, -1; shfl.sync.down.b32 %r3|%p2, %r1, 3, 31, -1; shfl.sync.idx.b32 %r4, %r1, 9, 6175, -1; shfl.sync.bfly.b32 %r5|%p3, %r1, 5, 6175, -1;\n"
        "selp.b32 %r6, 1, 0, %p1; selp.b32 %r7, 1, 0, %p2; shl.b32 %r3, %r3, 8; shl.b32 %r4, %r4, 16; shl.b32 %r5, %r5, 24; or.b32 %r2, %r2, %r3; or.b32 %r2, %r2, %r4; or.b32 %r2, %r2, %r5; st.global.u32 [%rd3], %r2;"
        "shl.b32 %r7, %r7, 1; or.b32 %r6, %r6, %r7; st.global.u32 [%rd3+128], %r6;", 32, 1, 0);
    for (uint32_t l = 0; l < 32; l++) { /* 6175 = 0x181f: segments of eight */
        uint32_t up = l < 3 ? l : l - 3, down = l > 28 ? l : l + 3, idx = (l & 24) | 1, xor = l ^ 5;
        EXPECT_EQ(out[l], up | down << 8 | idx << 16 | xor << 24);
        EXPECT_EQ(out[32 + l], (l >= 3) | (uint32_t)(l <= 28) << 1);
    }
}

TEST(ptx_run, blocks_share_memory_between_barriers) {
    const char *body = ".shared .align 4 .b8 s[512]; mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3; ld.shared.u32 %r9, [%r4]; st.shared.u32 [%r4], %r1; bar.sync 0;\n"
                       "sub.s32 %r5, 508, %r3; add.s32 %r6, %r2, %r5; ld.shared.u32 %r7, [%r6]; mov.u32 %r8, %ctaid.x; mad.lo.s32 %r7, %r8, 1000, %r7; and.b32 %r7, %r7, %r9; red.global.add.u32 [%rd3], %r7;";
    for (int back = 0; back < 2; back++) {
        qn_ptx_backward(back);
        run(body, 128, 3, 0);
        for (uint32_t t = 0; t < 128; t++) EXPECT_EQ(out[t], 3000 + 3 * (127 - t)); /* 0xffffffff before: and keeps the value */
    }
}

TEST(ptx_run, dynamic_shared_memory_lies_behind_the_static) {
    char text[2048];
    const void *p = out;
    struct qn_ptx_arg arg = {&p, 8};
    snprintf(text, sizeof text, "%s.extern .shared .align 128 .b8 dyn[];\n.visible .entry t%s.shared .align 4 .b8 s[20]; mov.u32 %%r2, dyn; mov.u32 %%r3, s; sub.s32 %%r2, %%r2, %%r3; st.global.u32 [%%rd3], %%r2; st.shared.u8 [dyn+99], %%r2; ret;\n}\n", HEAD, ENTRY);
    qn_ptx_allow(out, sizeof out, 1);
    struct qn_ptx *m = qn_ptx_parse(text, "text");
    qn_ptx_launch(m, "t", (unsigned[3]){1, 1, 1}, (unsigned[3]){1, 1, 1}, 100, &arg, 1);
    EXPECT_EQ(out[0], 128);
    qn_ptx_close(m);
}

TEST(ptx_run, names_of_registers_live_in_their_braces) {
    run("mov.b32 %r2, 1;\n{ .reg .b32 %r2; .reg .b16 lo, hi; mov.b32 %r2, 0x00020003; mov.b32 {lo, hi}, %r2; mov.b32 %r3, {hi, lo}; }\nadd.s32 %r3, %r3, %r2; st.global.u32 [%rd3], %r3;", 32, 1, 0);
    EXPECT_EQ(out[7], 0x00030003);
}

TEST(ptx_run, loads_widen_by_the_sign_of_their_type) {
    run("mov.b32 %r2, 0x8081ff80; st.global.u32 [%rd3], %r2; bar.warp.sync -1;\n"
        "ld.global.s8 %r3, [%rd3]; ld.global.u8 %r4, [%rd3]; ld.global.s16 %rd4, [%rd3+2]; shr.u64 %rd5, %rd4, 32; cvt.u32.u64 %r5, %rd5; ld.global.s8 %rs1, [%rd3+3]; cvt.u32.u16 %r6, %rs1;\n"
        "add.s32 %r3, %r3, %r4; xor.b32 %r5, %r5, %r6; st.global.v2.u32 [%rd1+512], {%r3, %r5};", 32, 1, 0);
    EXPECT_EQ(out[128], 0);          /* -128 + 128 */
    EXPECT_EQ(out[129], 0xffff007f); /* all ones ^ 0xff80 */
}

TEST(ptx_run, local_memory_belongs_to_the_lane) {
    run(".local .align 8 .b8 depot[32]; .reg .b64 %SP, %SPL; mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL; st.local.u32 [%SPL+8], %r1; add.u64 %rd4, %SP, 8; ld.u32 %r2, [%rd4]; add.s32 %r2, %r2, 1; st.u32 [%rd4], %r2; ld.local.u32 %r3, [%SPL+8]; st.global.u32 [%rd3], %r3;", 64, 1, 0);
    for (uint32_t t = 0; t < 64; t++) EXPECT_EQ(out[t], t + 1);
}

TEST(ptx_run, a_copy_is_waited_for_by_group) {
    /* Two groups; after wait_group 1 the first is there, the second is not. */
    const char *body = ".shared .align 16 .b8 s[1024]; mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.s32 %r4, %r2, %r3; mul.wide.u32 %rd4, %r3, 1; add.s64 %rd5, %rd1, %rd4; mov.b32 %r9, 7; st.global.u32 [%rd5], %r9;\n"
                       "cp.async.ca.shared.global [%r4], [%rd5], 4; cp.async.commit_group; cp.async.cg.shared.global [%r4+512], [%rd5], 16; cp.async.commit_group; cp.async.wait_group 1;\n"
                       "ld.shared.u32 %r5, [%r4]; ld.shared.u32 %r6, [%r4+512]; cp.async.wait_all; ld.shared.u32 %r7, [%r4+512]; setp.eq.u32 %p1, %r6, -1; selp.b32 %r6, 1, 0, %p1; mad.lo.s32 %r5, %r5, 100, %r7; mad.lo.s32 %r5, %r6, 1000, %r5; st.global.u32 [%rd5], %r5;";
    run(body, 32, 1, 0);
    EXPECT_EQ(out[4], 1707);
    qn_ptx_late_copies(0);
    run(body, 32, 1, 0);
    EXPECT_EQ(out[4], 707);
}

TEST(ptx_run, tables_are_read_only_and_initialised) {
    char text[2048];
    const void *p = out;
    struct qn_ptx_arg arg = {&p, 8};
    snprintf(text, sizeof text, "%s.const .align 4 .b8 t8[8] = {1, 2, 3, 255};\n.global .f32 f = 0f3FC00000;\n.visible .entry t%sld.const.u32 %%r2, [t8]; ld.const.u32 %%r3, [t8+4]; ld.global.f32 %%f1, [f]; cvt.rzi.u32.f32 %%r4, %%f1; add.s32 %%r2, %%r2, %%r3; add.s32 %%r2, %%r2, %%r4; st.global.u32 [%%rd3], %%r2; ret;\n}\n", HEAD, ENTRY);
    qn_ptx_allow(out, sizeof out, 1);
    struct qn_ptx *m = qn_ptx_parse(text, "text");
    qn_ptx_launch(m, "t", (unsigned[3]){1, 1, 1}, (unsigned[3]){1, 1, 1}, 0, &arg, 1);
    EXPECT_EQ(out[0], 0xff030201 + 1);
    qn_ptx_close(m);
}

TEST(ptx_run, bad_addresses_are_refused) {
    refused("st.global.u32 [%rd3+1024], %r1;", 32, "not the kernel's in t, block 0,0,0 warp 0 lane 0: st.global.u32 [%rd3+1024], %r1");
    refused("add.s64 %rd3, %rd3, 1; st.global.u32 [%rd3], %r1;", 32, "not aligned");
    refused("st.global.v4.u32 [%rd3], {%r1, %r1, %r1, %r1};", 32, "16 bytes at global address");
    refused(".shared .align 4 .b8 s[64]; mov.u32 %r2, s; ld.shared.u32 %r3, [%r2+64];", 32, "shared address 0x40, which is not the kernel's");
    refused("mov.b64 %rd4, 0; ld.u32 %r2, [%rd4];", 32, "generic address 0");
    refused(".local .align 4 .b8 d[8]; mov.u64 %rd4, d; st.local.u32 [%rd4+8], %r1;", 32, "local address");
    refused("ld.param.u32 %r2, [pout+8];", 32, "parameter address");
}

TEST(ptx_run, lanes_that_do_not_come_are_reported) {
    refused("setp.lt.u32 %p1, %r1, 7; @%p1 ret; bar.warp.sync -1;", 32, "waits for a lane that has ended");
    refused("setp.lt.u32 %p1, %r1, 7; @%p1 bra A; bar.warp.sync -1; bra.uni B;\nA: bar.warp.sync -1;\nB:", 32, "all lanes wait, not at the same place");
    refused("setp.lt.u32 %p1, %r1, 7; @%p1 bra A; bar.sync 0; bra.uni B;\nA: bar.sync 0;\nB:", 32, "all lanes wait, not at the same place");
    refused("setp.lt.u32 %p1, %r1, 32; @%p1 bra A; bar.sync 0; bra.uni B;\nA: bar.sync 0;\nB:", 64, "other warps stand at another barrier");
    refused("setp.lt.u32 %p1, %r1, 32; @%p1 ret; bar.sync 0;", 64, "1 warps ended before this barrier");
    refused("mov.b32 %r2, 1; shfl.sync.bfly.b32 %r3, %r1, 1, 31, %r2;", 32, "not in its own member mask");
    refused("shfl.sync.bfly.b32 %r3, %r1, 1, 31, %r1;", 32, "member masks differ");
    refused("bar.warp.sync -1;", 20, "waits for a lane that has ended");
    refused("trap;", 32, "traps");
}

TEST(ptx_run, copies_nobody_waits_for_are_reported) {
    refused(".shared .align 16 .b8 s[1024]; mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.s32 %r2, %r2, %r3; cp.async.cg.shared.global [%r2], [%rd1], 16; cp.async.commit_group;", 32, "a copy that nothing waited for");
    refused(".shared .align 16 .b8 s[1024]; mov.u32 %r2, s; cp.async.cg.shared.global [%r2], [%rd1+8], 16; cp.async.wait_all;", 32, "not a multiple of 16");
    refused(".shared .align 16 .b8 s[1024]; mov.u32 %r2, s; cp.async.cg.shared.global [%r2], [%rd1+1024], 16; cp.async.wait_all;", 32, "not the kernel's");
}

TEST(ptx_run, what_is_unknown_is_refused_with_its_line) {
    static const char *const unknown[] = {
        "frobnicate.b32 %r2, %r1;", "add.sat.u64 %rd4, %rd3, %rd2;", "add.ftz.f32 %f1, %f2, %f3;", "ld.global.v3.u32 {%r2, %r3, %r4}, [%rd3];", "ld.global.wonderful.u32 %r2, [%rd3];", "st.shared.nc.u32 [%r1], %r1;",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%f1,%f1,%f1,%f1}, {%r1,%r1,%r1,%r1}, {%r1,%r1}, {%f1,%f1,%f1,%f1};", "cvt.u32.f32 %r2, %f1;", "cvt.rn.f32.f16 %f1, %rs1;", "cvt.f16.f32 %rs1, %f1;",
        "setp.lt.b32 %p1, %r1, %r1, %r1;", "setp.lo.s32 %p1, %r1, %r1;", "atom.global.add.b32 %r2, [%rd3], %r1;", "cp.async.cg.shared.global [%r1], [%rd3], 8;", "call foo;", "prmt.b32.f4e %r2, %r1, %r1, 0;", "vote.sync.any.pred %p1, %p1;", "bar.sync 1;",
    };
    static const char *const wrong[][2] = {
        {"add.s32 %r2, %rd3, %r1;", "has 8 bytes, the instruction wants 4"}, {"add.s32 %r2, %r1;", "too few operands"}, {"add.s32 %r2, %r1, %r1, %r1;", "too many operands"}, {"add.s32 %r2, %r1, 4294967296;", "does not fit"},
        {"add.s32 %r99, %r1, %r1;", "does not know the name '%r99'"}, {"mov.u32 %r1, %clock;", "does not know the name"}, {"add.s32 5, %r1, %r1;", "constant"}, {"bra NOWHERE;", "no such label"}, {"X: X: ret;", "second time"}, {".wonder 5;", "directive that is not known"},
        {"@%r1 ret;", "guarded by no predicate"}, {"st.global.u32 %r1, [%rd3];", "is no address"},
    };
    for (size_t k = 0; k < sizeof unknown / sizeof *unknown; k++) {
        char want[160];
        snprintf(want, sizeof want, ": %.*s", (int)strcspn(unknown[k], ";"), unknown[k]);
        refused(unknown[k], 32, want);
    }
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) refused(wrong[k][0], 32, wrong[k][1]);
}

TEST(ptx_run, launches_that_do_not_fit_are_refused) {
    refused("", 1025, "1025 threads a block");
}

/* Without hardware the lanes of a late warp hold what registers held: 0xff everywhere, never the last block's values. */
TEST(ptx_run, registers_start_undefined) {
    run("@%p1 bra A;\nA: st.global.u32 [%rd3], %r9;", 32, 2, 0);
    EXPECT_EQ(out[3], 0xffffffff);
}
