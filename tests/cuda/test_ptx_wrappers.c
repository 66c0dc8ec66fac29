/* Every wrapper of portable.cuh that is inline assembly on a card, as nvcc's PTX (tests/cuda/ptx/wrappers.cu) and for both front ends of
 * nvcc, against plain C from the definitions: matrices are multiplied as matrices, bytes are moved as bytes. The last test reads
 * portable.cuh, finds the assembly in it and fails for a wrapper whose instruction none of this executed. Needs PTX, so nvcc. */
#include "tests/cuda/kit.h"
#include "tests/cuda/ptx/ptx.h"
#include "tests/run.h"

#include <ctype.h>

static const char *const archs[] = {"sm_80", "sm_100"};
static struct qn_ptx *module;

static struct qn_ptx *open_for(const char *arch) {
    char path[256];
    snprintf(path, sizeof path, "build/ptx/%s/wrappers.ptx", arch);
    FILE *f = fopen(path, "rb");
    if (!f) SKIP("no PTX: it takes an nvcc 13 (scripts/deps-cuda.sh)");
    fclose(f);
    return module = qn_ptx_open(path);
}
static void launch(const char *kernel, unsigned threads, const struct qn_ptx_arg *args, int n) {
    qn_ptx_launch(module, kernel, (unsigned[3]){1, 1, 1}, (unsigned[3]){threads, 1, 1}, 0, args, n);
}
#define ARG(x) {&(x), sizeof(x)}
#define LAUNCH(kernel, threads, ...) launch(kernel, threads, (const struct qn_ptx_arg[]){__VA_ARGS__}, (int)(sizeof((const struct qn_ptx_arg[]){__VA_ARGS__}) / sizeof(struct qn_ptx_arg)))

/* Aligned memory that the kernel may read, or write too. */
static void *memory(size_t bytes, int writable) {
    void *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!p) abort();
    memset(p, 0xee, bytes);
    qn_ptx_allow(p, bytes, writable);
    return p;
}
static void give_back(void *p) {
    qn_ptx_forbid(p);
    free(p);
}
static uint8_t *random_bytes(size_t n) {
    uint8_t *p = memory(n, 0);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)rnd();
    return p;
}

static void load16_stream(void) {
    uint8_t *in = random_bytes(512), *out = memory(512, 1);
    LAUNCH("wr_load16_stream", 32, ARG(out), ARG(in));
    for (int l = 0; l < 32; l++) EXPECT(!memcmp(out + l * 16, in + (31 - l) * 16, 16));
    give_back(in), give_back(out);
}

static void cp_async(void) {
    uint8_t *in = random_bytes(1024), *out = memory(1536, 1);
    int taken = 20;
    for (int late = 0; late < 2; late++) {
        qn_ptx_late_copies(late);
        LAUNCH("wr_cp_async", 32, ARG(out), ARG(in), ARG(taken));
        for (int b = 0; b < 512; b++) {
            EXPECT(out[b] == (b < 16 * taken ? in[b] : 0));
            EXPECT(out[512 + b] == (late ? 0xff : in[512 + b])); /* the second group is still under way */
            EXPECT(out[1024 + b] == in[512 + (31 - b / 16) * 16 + b % 16]);
        }
    }
    qn_ptx_late_copies(1);
    give_back(in), give_back(out);
}

static void ldmatrix(void) {
    uint16_t *in = (uint16_t *)random_bytes(512);
    uint32_t *out = memory(512, 1);
    for (int trans = 0; trans < 2; trans++) {
        LAUNCH("wr_ldmatrix", 32, ARG(out), ARG(in), ARG(trans));
        for (int m = 0; m < 4; m++)
            for (int l = 0; l < 32; l++)
                for (int h = 0; h < 2; h++) {
                    int row = l / 4, col = 2 * (l % 4) + h;
                    EXPECT((uint16_t)(out[l * 4 + m] >> (16 * h)) == in[(8 * m + (trans ? col : row)) * 8 + (trans ? row : col)]);
                }
    }
    give_back(in), give_back(out);
}

/* The interpreter sums 16 exact products and c in double and rounds once: half an ulp of the result, and 17 roundings of double. */
static void mma_float(void) {
    uint16_t *a = memory(16 * 16 * 2, 0), *b = memory(16 * 8 * 2, 0);
    float *c = memory(16 * 8 * 4, 1), c0[128];
    for (int bf16 = 0; bf16 < 2; bf16++) {
        double (*value)(uint16_t) = bf16 ? bf16_value : half_value;
        for (int i = 0; i < 256; i++) a[i] = bf16 ? bf16_of(rnd_float() * (float)(1 + i)) : half_of(rnd_float() * (float)(1 + i));
        for (int i = 0; i < 128; i++) b[i] = bf16 ? bf16_of(rnd_float() / (float)(1 + i)) : half_of(rnd_float() / (float)(1 + i)), c[i] = c0[i] = rnd_float();
        LAUNCH("wr_mma16", 32, ARG(c), ARG(a), ARG(b), ARG(bf16));
        for (int r = 0; r < 16; r++)
            for (int n = 0; n < 8; n++) {
                double sum = (double)c0[r * 8 + n], size = fabs(sum);
                for (int k = 0; k < 16; k++) sum += value(a[r * 16 + k]) * value(b[k * 8 + n]), size += fabs(value(a[r * 16 + k]) * value(b[k * 8 + n]));
                EXPECT_NEAR(c[r * 8 + n], sum, fabs(sum) * 0x1p-24 + size * 17 * 0x1p-52);
            }
    }
    give_back(a), give_back(b), give_back(c);
}

static void mma_int(void) {
    int8_t *a = (int8_t *)random_bytes(16 * 32), *b = (int8_t *)random_bytes(32 * 8);
    int32_t *c = memory(16 * 8 * 4, 1), c0[128];
    for (int k = 16; k <= 32; k += 16) {
        for (int i = 0; i < 128; i++) c[i] = c0[i] = (int32_t)rnd(); /* so that sums wrap */
        LAUNCH("wr_mma8", 32, ARG(c), ARG(a), ARG(b), ARG(k));
        for (int r = 0; r < 16; r++)
            for (int n = 0; n < 8; n++) {
                uint32_t sum = (uint32_t)c0[r * 8 + n];
                for (int j = 0; j < k; j++) sum += (uint32_t)(a[r * k + j] * b[j * 8 + n]);
                EXPECT_EQ((uint32_t)c[r * 8 + n], sum);
            }
    }
    give_back(a), give_back(b), give_back(c);
}

static void approximations(void) {
    float *in = memory(128, 0), *out = memory(128, 1);
    for (int i = 0; i < 32; i++) in[i] = rnd_float() * 20;
    in[0] = -INFINITY, in[1] = NAN, in[2] = 200, in[3] = -130, in[4] = 0, in[5] = -0.0f;
    LAUNCH("wr_exp2", 32, ARG(out), ARG(in));
    EXPECT(out[0] == 0 && isnan(out[1]) && out[2] == INFINITY && out[3] == 0 && out[4] == 1 && out[5] == 1);
    for (int i = 6; i < 32; i++) EXPECT_NEAR(out[i], exp2((double)in[i]), exp2((double)in[i]) * 0x1p-23); /* a card: 2 ulp */
    LAUNCH("wr_rsqrt", 32, ARG(out), ARG(in));
    EXPECT(isnan(out[0]) && isnan(out[1]) && isnan(out[3]) && out[4] == INFINITY);
    for (int i = 6; i < 32; i++) EXPECT(in[i] < 0 ? isnan(out[i]) : fabs((double)out[i] * sqrt((double)in[i]) - 1) <= 0x1p-22);
    give_back(in), give_back(out);
}

static void warp_operations(void) {
    float *x = memory(128, 0), *out = memory(5 * 128, 1), sum[32], max = -1;
    int positive = 0, big = 0;
    for (int i = 0; i < 32; i++) sum[i] = x[i] = rnd_float(), max = fmaxf(max, x[i]), positive += x[i] > 0, big |= x[i] > 0.5f;
    for (int m = 16; m > 0; m >>= 1) { /* the butterfly of portable.cuh, bit for bit */
        float next[32];
        for (int i = 0; i < 32; i++) next[i] = sum[i] + sum[i ^ m];
        memcpy(sum, next, sizeof sum);
    }
    LAUNCH("wr_warp", 32, ARG(out), ARG(x));
    for (int i = 0; i < 32; i++) {
        EXPECT(out[i] == sum[i] && out[32 + i] == max && out[64 + i] == x[i * 7 % 32]);
        EXPECT(out[96 + i] == x[i < 3 ? i : i - 3] + x[i > 26 ? i : i + 5] + x[i ^ 6]);
        EXPECT(out[128 + i] == (float)(positive + 100 * big + 1000));
    }
    give_back(x), give_back(out);
}

static int walk(int x, int t, int *steps) { /* wr_diverge, one lane */
    int sum = 0;
    for (int i = 0; i < x % 11; i++) {
        if ((i + t) % 3 == 0) continue;
        switch ((x + i) % 7) {
        case 0: sum += 3; break;
        case 1: sum = sum * 5 + i; break;
        case 2: sum ^= x; break;
        case 3: if (sum & 1) sum += t; else sum -= i; break;
        case 4: while (sum > 100) sum /= 2, ++*steps; break;
        case 5: sum += 1000; break;
        default: sum++;
        }
        if (sum > 5000) break;
    }
    return sum;
}
static void lanes_that_part(void) {
    int *in = memory(512, 0), *out = memory(1024, 1), n = 100;
    uint16_t flat[128];
    int sums[128];
    for (int t = 0; t < 128; t++) {
        int steps = 0;
        in[t] = (int)(rnd() % 4000);
        sums[t] = walk(in[t], t, &steps);
        flat[t] = t < n ? (uint16_t)(sums[t] + steps) : 7;
    }
    for (int backward = 0; backward < 2; backward++) {
        qn_ptx_backward(backward);
        LAUNCH("wr_diverge", 128, ARG(out), ARG(in), ARG(n));
        for (int t = 0; t < 128; t++) {
            int all = 0;
            for (int l = 0; l < 32; l++) all += flat[(((t & ~31) + l) * 37 + 5) % 128];
            EXPECT_EQ(out[t], sums[t]);
            EXPECT_EQ(out[128 + t], all);
        }
    }
    qn_ptx_backward(0);
    give_back(in), give_back(out);
}

static void types_of_every_size(void) {
    struct { int8_t a; int16_t b; int32_t c; int64_t d; uint8_t e[3]; float f; } m = {-5, -300, 70000, -5000000000, {200, 201, 202}, -7.9f};
    static const int8_t table[5] = {-1, 2, -3, 100, -128};
    int8_t a = -3;
    uint16_t b = 65535;
    uint64_t c = 0xfedcba9876543210;
    int16_t *in = memory(128, 0);
    long long *out = memory(65 * 8, 1);
    unsigned *counter = memory(12, 1);
    float *sum = memory(4, 1);
    for (int t = 0; t < 64; t++) in[t] = (int16_t)(rnd() % 500);
    in[3] = -300;
    counter[0] = 1, counter[1] = 0, counter[2] = 5, *sum = 1;
    LAUNCH("wr_types", 64, ARG(out), ARG(m), ARG(a), ARG(b), ARG(c), ARG(in), ARG(counter), ARG(sum));
    for (int t = 0; t < 64; t++) {
        long long part[6] = {m.a, m.b, m.c, m.d, m.e[t % 3], (long long)m.f};
        long long want = part[(t + in[t]) % 6 < 0 ? 0 : (t + in[t] + 600) % 6] + a * b + (long long)(c >> (t % 64)) + table[t % 5];
        EXPECT_EQ(out[t], want);
    }
    EXPECT_EQ(counter[0], 1 + 63 * 32);
    EXPECT_EQ(counter[1], 63);
    EXPECT_EQ(counter[2], 9);
    EXPECT_EQ(out[64], 5);
    EXPECT(*sum == 33);
    give_back(in), give_back(out), give_back(counter), give_back(sum);
}

static const struct { const char *name; void (*check)(void); } checks[] = {
    {"load16_stream", load16_stream}, {"cp_async", cp_async}, {"ldmatrix", ldmatrix}, {"mma_float", mma_float}, {"mma_int", mma_int},
    {"approximations", approximations}, {"warp_operations", warp_operations}, {"lanes_that_part", lanes_that_part}, {"types", types_of_every_size},
};
enum { N_CHECKS = sizeof checks / sizeof *checks };

static void on_both(void (*check)(void)) {
    for (int k = 0; k < 2; k++) {
        struct qn_ptx *m = open_for(archs[k]);
        check();
        qn_ptx_close(m);
    }
}
TEST(ptx_wrappers, loads_past_the_cache) { on_both(load16_stream); }
TEST(ptx_wrappers, copies_arrive_at_their_wait) { on_both(cp_async); }
TEST(ptx_wrappers, ldmatrix_straight_and_transposed) { on_both(ldmatrix); }
TEST(ptx_wrappers, mma_of_16_bit_floats) { on_both(mma_float); }
TEST(ptx_wrappers, mma_of_bytes) { on_both(mma_int); }
TEST(ptx_wrappers, exp2_and_rsqrt) { on_both(approximations); }
TEST(ptx_wrappers, shuffles_and_votes) { on_both(warp_operations); }
TEST(ptx_wrappers, lanes_that_part_meet_again) { on_both(lanes_that_part); }
TEST(ptx_wrappers, values_of_every_size) { on_both(types_of_every_size); }

/* asm [volatile]("OPCODE …": the opcode is the first word of the text. */
TEST(ptx_wrappers, every_inline_assembly_has_run) {
    char line[1024], function[64] = "?";
    int found = 0;
    for (int k = 0; k < N_CHECKS; k++) on_both(checks[k].check);
    FILE *f = fopen("engine/cuda/portable.cuh", "rb");
    ASSERT(f);
    while (fgets(line, sizeof line, f)) {
        char *open = strchr(line, '('), *text = strstr(line, "asm");
        if (!strncmp(line, "QN_DEVICE", 9) || !strncmp(line, "template", 8)) { /* the name ends at the first parenthesis */
            char *end = open, *begin;
            if (end) {
                for (begin = end; begin > line && (isalnum((unsigned char)begin[-1]) || begin[-1] == '_'); begin--) {}
                snprintf(function, sizeof function, "%.*s", (int)(end - begin), begin);
            }
        }
        if (!text || line[0] == '/' || !strncmp(line, " *", 2)) continue;
        char *quote = strchr(text, '"'), opcode[128];
        ASSERT(quote);
        snprintf(opcode, sizeof opcode, "%.*s", (int)strcspn(quote + 1, " ;"), quote + 1);
        found++;
        if (!qn_ptx_ran(opcode)) qn_test_fail(__FILE__, __LINE__, "%s: no test executed %s", function, opcode);
    }
    fclose(f);
    EXPECT(found >= 11);
}
