/* The emulator against plain C: every primitive that kernels may use, and a planted bug for each report. Streams and graphs: test_emu_streams.c. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/cuda/emu/testing.h"
#include "tests/cuda/emu_kernels.h"
#include "tests/cuda/kit.h"
#include "tests/run.h"

static const char *const orders[] = {"forward", "reverse", "random:1", "random:2", "random:3"};
enum { N_ORDERS = sizeof orders / sizeof *orders };

TEST(emu, adds_through_shared_memory) {
    enum { N = 1000 };
    float a[N], b[N], out[N];
    for (int i = 0; i < N; i++) a[i] = (float)i, b[i] = 0.5f * (float)(i % 7);
    float *da = dev_copy(a, sizeof a), *db = dev_copy(b, sizeof b), *dout = dev_new(sizeof out);
    for (int o = 0; o < N_ORDERS; o++) {
        qn_emu_set(orders[o], NULL, NULL, 1 + o % 3);
        cudaMemset(dout, 0xff, sizeof out);
        emu_add(dout, da, db, N, NULL);
        ASSERT_EQ(cudaGetLastError(), 0);
        dev_read(out, dout, sizeof out);
        for (int i = 0; i < N; i++) EXPECT_NEAR(out[i], a[i] + b[i], 0);
    }
}

/* PTX ISA, shfl: lanes whose source lies outside their part keep their own value; idx wraps within the part. */
static int shuffled(const int *in, int kind, int lane, int arg, int width) {
    int low = lane & ~(width - 1), high = low + width - 1, j;
    if (kind == 0) j = low | (arg & (width - 1));
    else if (kind == 1) j = lane - arg;
    else if (kind == 2) j = lane + arg;
    else j = lane ^ arg;
    int ok = kind == 1 ? j >= low : j <= high;
    return in[ok ? j : lane];
}
TEST(emu, shuffles_as_the_isa_says) {
    int in[32], arg[32], out[4][32];
    for (int i = 0; i < 32; i++) in[i] = (int)rnd() % 100000, arg[i] = (int)(rnd() % 64);
    int *din = dev_copy(in, sizeof in), *darg = dev_copy(arg, sizeof arg), *dout = dev_new(sizeof out);
    for (int width = 2; width <= 32; width *= 2)
        for (int by = 0; by < 32; by += 3) {
            qn_emu_set(orders[by % N_ORDERS], NULL, NULL, 1);
            emu_shuffles(dout, din, darg, by, width, NULL);
            dev_read(out, dout, sizeof out);
            for (int k = 0; k < 4; k++)
                for (int l = 0; l < 32; l++) EXPECT_EQ(out[k][l], shuffled(in, k, l, k ? by : arg[l], width));
        }
}

TEST(emu, votes) {
    int in[32];
    unsigned out[4][32];
    for (int i = 0; i < 32; i++) in[i] = (i * 7) % 32;
    int *din = dev_copy(in, sizeof in);
    unsigned *dout = dev_new(sizeof out);
    for (int limit = -1; limit <= 31; limit += 4) {
        unsigned want = 0;
        for (int i = 0; i < 32; i++) want |= (unsigned)(in[i] > limit) << i;
        emu_votes(dout, din, limit, NULL);
        dev_read(out, dout, sizeof out);
        for (int l = 0; l < 32; l++) {
            EXPECT_EQ(out[0][l], want);
            EXPECT_EQ(out[1][l], want != 0);
            EXPECT_EQ(out[2][l], want == 0xffffffffu);
            EXPECT_EQ(out[3][l], l < 16 ? want & 0xffffu : want & 0xffff0000u);
        }
    }
}

TEST(emu, atomics_from_many_blocks) {
    enum { BLOCKS = 50, N = BLOCKS * 64 };
    struct { int i, ext[2], turns; unsigned u; float f; unsigned long long l; } v = {0, {-1, 1}, 0, 0, 0.0f, 0}, *d = dev_copy(&v, sizeof v);
    qn_emu_set("random:9", NULL, NULL, 4);
    emu_atomics(&d->i, &d->u, &d->l, &d->f, d->ext, &d->turns, BLOCKS, NULL);
    dev_read(&v, d, sizeof v);
    long sum = (long)N * (N - 1) / 2; /* below 2^24: exact in float */
    EXPECT_EQ(v.i, -sum);
    EXPECT_EQ(v.u, sum);
    EXPECT_EQ(v.l, sum << 20);
    EXPECT_NEAR(v.f, (double)sum, 0);
    EXPECT_EQ(v.ext[0], N - 1);
    EXPECT_EQ(v.ext[1], 1 - N);
    EXPECT_EQ(v.turns, N);
}

/* Sums of 16 products of 11-bit significands, in float one rounding a step: 17 roundings of at most 2^-24 of the running sum. */
static void check_mma(int bf16, int by_ldmatrix) {
    uint16_t a[16][16], b[16][8];
    float c[16][8], d[16][8];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) a[i][j] = bf16 ? bf16_of(rnd_float() + 0.1f * (float)i) : half_of(rnd_float() + 0.1f * (float)i);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) b[i][j] = bf16 ? bf16_of(rnd_float() - 0.2f * (float)j) : half_of(rnd_float() - 0.2f * (float)j), c[i][j] = 3 * rnd_float();
    uint16_t *da = dev_copy(a, sizeof a), *db = dev_copy(b, sizeof b);
    float *dc = dev_copy(c, sizeof c), *dd = dev_new(sizeof d);
    if (by_ldmatrix) emu_mma_ldmatrix(dd, da, db, dc, NULL);
    else emu_mma_f16(dd, da, db, dc, bf16, NULL);
    dev_read(d, dd, sizeof d);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double want = c[i][j], size = fabs(want);
            for (int k = 0; k < 16; k++) {
                double x = bf16 ? bf16_value(a[i][k]) : half_value(a[i][k]), y = bf16 ? bf16_value(b[k][j]) : half_value(b[k][j]);
                want += x * y, size += fabs(x * y);
            }
            EXPECT_NEAR(d[i][j], want, 17 * 0x1p-24 * size);
        }
}
TEST(emu, mma_f16_against_three_loops) {
    for (int i = 0; i < 20; i++) qn_emu_set(orders[i % N_ORDERS], NULL, NULL, 1), check_mma(0, 0);
}
TEST(emu, mma_bf16_against_three_loops) {
    for (int i = 0; i < 20; i++) check_mma(1, 0);
}
TEST(emu, ldmatrix_and_its_transpose_feed_mma) {
    for (int i = 0; i < 20; i++) qn_emu_set(orders[i % N_ORDERS], NULL, NULL, 1), check_mma(0, 1);
}

static void check_mma_s8(int k) {
    int8_t a[16 * 32], b[32 * 8];
    int32_t c[128], d[128];
    for (int i = 0; i < 16 * k; i++) a[i] = (int8_t)rnd();
    for (int i = 0; i < 8 * k; i++) b[i] = (int8_t)rnd();
    for (int i = 0; i < 128; i++) c[i] = (int32_t)rnd();
    int8_t *da = dev_copy(a, (size_t)(16 * k)), *db = dev_copy(b, (size_t)(8 * k));
    int32_t *dc = dev_copy(c, sizeof c), *dd = dev_new(sizeof d);
    emu_mma_s8(dd, da, db, dc, k, NULL);
    dev_read(d, dd, sizeof d);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            uint32_t want = (uint32_t)c[i * 8 + j];
            for (int m = 0; m < k; m++) want += (uint32_t)(a[i * k + m] * b[m * 8 + j]);
            EXPECT_EQ(d[i * 8 + j], (int32_t)want);
        }
}
TEST(emu, mma_s8_against_three_loops) {
    for (int i = 0; i < 20; i++) check_mma_s8(32), check_mma_s8(16);
}

TEST(emu, cp_async_at_once_and_at_the_wait) {
    enum { TILES = 7, LOOPS = 9 };
    float in[TILES][128], out[128];
    for (int i = 0; i < TILES; i++)
        for (int j = 0; j < 128; j++) in[i][j] = (float)((i * 131 + j * 17) % 97);
    float *din = dev_copy(in, sizeof in), *dout = dev_new(sizeof out);
    for (int o = 0; o < 2 * N_ORDERS; o++) {
        qn_emu_set(orders[o / 2], NULL, o % 2 ? "late" : "now", 1);
        emu_pipeline(dout, din, TILES, LOOPS, NULL);
        dev_read(out, dout, sizeof out);
        for (int j = 0; j < 128; j++) {
            float want = 0;
            for (int i = 0; i < TILES; i++) want += in[i][j];
            EXPECT_NEAR(out[j], want, 0);
        }
    }
}

static uint32_t perm(uint32_t x, uint32_t y, uint32_t s) {
    uint8_t in[8], out[4];
    memcpy(in, &x, 4);
    memcpy(in + 4, &y, 4);
    for (int i = 0; i < 4; i++) {
        int sel = (int)(s >> (4 * i)) & 15;
        out[i] = sel < 8 ? in[sel] : (uint8_t)((int8_t)in[sel - 8] >> 7);
    }
    memcpy(&x, out, 4);
    return x;
}
static uint32_t dot4(uint32_t x, uint32_t y, uint32_t z, int is_signed) {
    for (int i = 0; i < 4; i++, x >>= 8, y >>= 8) z += is_signed ? (uint32_t)((int8_t)x * (int8_t)y) : (uint32_t)(uint8_t)x * (uint8_t)y;
    return z;
}
static uint32_t to_int(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    if (isnan(f)) return 0;
    return f >= 0x1p31f ? 0x7fffffffu : f < -0x1p31f ? 0x80000000u : (uint32_t)(int32_t)rint((double)f);
}
TEST(emu, intrinsics_on_numbers) {
    enum { N = 500, ROWS = 14 };
    static uint32_t a[N], b[N], c[N], out[ROWS][N];
    for (int i = 0; i < N; i++) a[i] = i % 3 ? rnd() : rnd() >> (i % 32), b[i] = rnd(), c[i] = rnd();
    a[0] = 0, a[1] = 0x80000000u, a[2] = 0x7fc00000u, a[3] = 0x4f000000u /* 2^31 */, a[4] = 0x40200000u /* 2.5 */;
    uint32_t *da = dev_copy(a, sizeof a), *db = dev_copy(b, sizeof b), *dc = dev_copy(c, sizeof c), *dout = dev_new(sizeof out);
    emu_intrinsics(dout, da, db, dc, N, NULL);
    dev_read(out, dout, sizeof out);
    for (int i = 0; i < N; i++) {
        uint32_t x = a[i], y = b[i], z = c[i], n = z % 32, reversed = 0, ones = 0;
        for (int k = 0; k < 32; k++) reversed = reversed << 1 | (x >> k & 1u), ones += x >> k & 1u;
        uint32_t lead = 0, first = 0;
        while (lead < 32 && !(x << lead & 0x80000000u)) lead++;
        while (x && !(x >> first++ & 1u)) {}
        EXPECT_EQ(out[0][i], perm(x, y, z));
        EXPECT_EQ(out[1][i], dot4(x, y, z, 1));
        EXPECT_EQ(out[2][i], dot4(x, y, z, 0));
        EXPECT_EQ(out[3][i], ones);
        EXPECT_EQ(out[4][i], lead);
        EXPECT_EQ(out[5][i], first);
        EXPECT_EQ(out[6][i], n ? y << n | x >> (32 - n) : y);
        EXPECT_EQ(out[7][i], n ? y << (32 - n) | x >> n : x);
        EXPECT_EQ(out[8][i], (uint32_t)((uint64_t)x * y >> 32));
        EXPECT_EQ(out[9][i], (int32_t)x < (int32_t)y ? x : y);
        EXPECT_EQ(out[10][i], x > y ? x : y);
        EXPECT_EQ(out[11][i], to_int(x));
        EXPECT_EQ(out[12][i], reversed);
        EXPECT_EQ(out[13][i], (uint32_t)((int64_t)(int32_t)x * (int32_t)y >> 32));
    }
}

static double value_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return (double)f;
}
TEST(emu, sixteen_bit_floats_widen) {
    static uint32_t out[2][65536];
    uint32_t *d = dev_new(sizeof out);
    emu_widen(d, NULL);
    dev_read(out, d, sizeof out);
    for (uint32_t i = 0; i < 65536; i++) {
        double h = half_value((uint16_t)i), v = value_of(out[0][i]);
        EXPECT(isnan(h) ? isnan(v) : h == v && signbit(h) == signbit(v));
        EXPECT_EQ(out[1][i], i << 16);
    }
}
TEST(emu, sixteen_bit_floats_narrow_to_the_nearest) {
    enum { N = 20000 };
    static uint32_t in[N];
    static uint16_t out[2][N];
    for (int i = 0; i < N; i++) in[i] = i % 2 ? rnd() : (0x33000000u + rnd() % 0x15000000u) | (rnd() & 0x80000000u);
    in[0] = 0x7fc00001u, in[1] = 0x477fefffu /* just below 65520 */, in[2] = 0x477ff000u /* 65520 */, in[3] = 0x33000000u /* 2^-25: half of the least */;
    uint32_t *din = dev_copy(in, sizeof in);
    uint16_t *d = dev_new(sizeof out);
    emu_narrow(d, din, N, NULL);
    dev_read(out, d, sizeof out);
    for (int i = 0; i < N; i++) {
        float f;
        memcpy(&f, &in[i], 4);
        EXPECT_EQ(out[0][i], isnan(f) ? 0x7fff : half_of(f));
        EXPECT_EQ(out[1][i], isnan(f) ? 0x7fff : bf16_of(f));
    }
}

/* Here 2^x is rounded once: e^x by two roundings more, tanh by three of numbers that are at most 1 / tanh(0.625) of it. */
TEST(emu, exponential_and_hyperbolic_tangent_are_libms) {
    enum { N = 200000 };
    static const float odd[] = {0, -0.0f, 1e-40f, -1e-30f, INFINITY, -INFINITY, 88.73f, 1e30f, -87.4f, -1e30f, 0.625f, 0.62499994f};
    enum { N_ODD = sizeof odd / sizeof *odd };
    static float in[N], out[2][N];
    for (int i = 0; i < N; i++) in[i] = i < N_ODD ? odd[i] : i % 2 ? (float)((int)(rnd() % 1751) - 873) * 0.1f + (float)(rnd() % 65536) * 0x1p-19f : ldexpf((float)(rnd() % 65536) - 32768.0f, (int)(rnd() % 24) - 36);
    in[N - 1] = NAN;
    float *din = dev_copy(in, sizeof in), *d = dev_new(sizeof out);
    emu_functions(d, din, N, NULL);
    dev_read(out, d, sizeof out);
    for (int i = 0; i < N - 1; i++) {
        double x = (double)in[i], e = exp(x), t = tanh(x);
        if (x > (double)88.72f || x < (double)-87.33f) EXPECT(out[0][i] == (x > 0 ? INFINITY : 0.0f));
        else EXPECT_NEAR(out[0][i], e, e * 1.125 * 0x1p-23);
        EXPECT_NEAR(out[1][i], t, fabs(t) * 0x1p-22);
    }
    EXPECT(isnan(out[0][N - 1]) && isnan(out[1][N - 1]));
}

TEST(emu, dynamic_shared_memory_up_to_its_limit) {
    enum { N = 227 * 256 };
    static float in[N], out[N];
    for (int i = 0; i < N; i++) in[i] = (float)i;
    float *din = dev_copy(in, sizeof in), *dout = dev_new(sizeof out);
    emu_big_shared(dout, din, 12 * 1024, 0, NULL);
    EXPECT_EQ(cudaGetLastError(), 0);
    qn_emu_collect(1);
    emu_big_shared(dout, din, 12 * 1024 + 1, 0, NULL);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
    EXPECT_EQ(qn_emu_n_reports(), 1);
    emu_big_shared(dout, din, N + 1, 1, NULL); /* more than a card has: refused */
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
    qn_emu_collect(0);
    emu_big_shared(dout, din, N, 1, NULL);
    dev_read(out, dout, sizeof out);
    for (int i = 0; i < N; i++) EXPECT_NEAR(out[i], N - 1 - i, 0);
}

TEST(emu, last_block_adds_up) {
    enum { BLOCKS = 37 };
    float in[BLOCKS * 64], sum = 0, out;
    for (int i = 0; i < BLOCKS * 64; i++) in[i] = (float)(i % 13), sum += in[i];
    float *din = dev_copy(in, sizeof in), *partial = dev_new(BLOCKS * 4), *dout = dev_new(4);
    for (int o = 0; o < N_ORDERS; o++) {
        unsigned zero = 0, *count = dev_copy(&zero, 4);
        qn_emu_set(orders[o], NULL, NULL, 3);
        emu_last_block(dout, partial, count, din, BLOCKS, NULL);
        dev_read(&out, dout, 4);
        EXPECT_NEAR(out, sum, 0);
    }
}

TEST(emu, launches_beyond_the_limits_are_reported) {
    static const struct { int gx, gy, block, bytes; } bad[] = {{1, 1, 1056, 0}, {1, 1, 0, 0}, {0, 1, 32, 0}, {1, 65536, 32, 0}, {1, 1, 32, 48 * 1024 + 1}};
    qn_emu_collect(1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        emu_nothing(bad[i].gx, bad[i].gy, bad[i].block, bad[i].bytes, NULL);
        EXPECT_EQ(qn_emu_n_reports(), 1);
        EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
        qn_emu_forget_reports();
    }
    emu_nothing(1, 65535, 32, 64, NULL);
    EXPECT_EQ(cudaGetLastError(), 0);
    emu_nothing(1, 1, 1024, 48 * 1024, NULL);
    EXPECT_EQ(cudaGetLastError(), 0);
}

/* By default a report is the end. */
TEST(emu, a_report_ends_the_process_with_its_place) {
    char text[2000];
    int to[2], status;
    int *mem = dev_new(4096);
    ASSERT_EQ(pipe(to), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(to[1], 2);
        emu_bug(BUG_BARRIER_LEFT, mem, NULL);
        _exit(0);
    }
    close(to[1]);
    ssize_t n = read(to[0], text, sizeof text - 1);
    ASSERT(n > 0);
    text[n] = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    EXPECT(strstr(text, "cuda emulator: kernel barrier_left, block (0, 0, 0), thread (") && strstr(text, "tests/cuda/emu_bugs.cu:"));
}

/* What the report of each planted bug has to say. */
static const char *const said[BUG_COUNT] = {
    [BUG_LANE_OUTSIDE_MASK] = "outside its own mask",
    [BUG_DIFFERENT_SITES] = "at different places",
    [BUG_PARTIAL_WARP] = "partial warp",
    [BUG_LEFT_BEFORE_SHUFFLE] = "returned",
    [BUG_BARRIER_LEFT] = "returned",
    [BUG_BARRIER_AFTER_LEAVING] = "returned",
    [BUG_BARRIER_SITES] = "different barriers",
    [BUG_DEADLOCK] = "deadlock",
    [BUG_OVERLAPPING_MASKS] = "lanes wait with mask",
    [BUG_NO_WAIT] = "not waited for",
    [BUG_MISALIGNED] = "not aligned",
    [BUG_SHUFFLE_OUTSIDE] = "not in the mask",
    [BUG_STATIC_TOO_LARGE] = "static shared memory",
    [BUG_DYNAMIC_TOO_SMALL] = "the launch gave 128",
    [BUG_TWO_SHARED] = "second QN_SHARED",
    [BUG_BEYOND_DEVICE] = "past the end",
    [BUG_BEYOND_SHARED] = "emu_bugs.cu",
    [BUG_CP_TARGET] = "not in shared memory",
    [BUG_LDMATRIX_GLOBAL] = "not in shared memory",
};
TEST(emu, every_planted_bug_is_reported) {
    for (int o = 0; o < N_ORDERS; o++)
        for (int bug = 0; bug < BUG_COUNT; bug++) {
            if (FAULTS_ARE_THE_SANITIZERS && (bug == BUG_BEYOND_DEVICE || bug == BUG_BEYOND_SHARED)) continue;
            int *mem = dev_new(4096);
            cudaMemset(mem, 0, 4096);
            qn_emu_set(orders[o], NULL, o % 2 ? "late" : "now", 2);
            qn_emu_collect(1);
            emu_bug((enum emu_bug)bug, mem, NULL);
            qn_emu_collect(0);
            EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
            EXPECT_EQ(qn_emu_n_reports(), 1);
            const char *text = qn_emu_report_text(0);
            if (!strstr(text, said[bug])) qn_test_fail(__FILE__, __LINE__, "bug %d, order %s: \"%s\" does not say \"%s\"", bug, orders[o], text, said[bug]);
            EXPECT(strstr(text, "kernel ") && strstr(text, "emu_bugs.cu:"));
            qn_emu_forget_reports();
            EXPECT_EQ(cudaFree(mem), 0);
        }
}
