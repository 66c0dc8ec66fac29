/* Kernels of the CPU backend as a share of what this machine can do, both measured in the same run.
 *   bench_kernels [threads] [isa] [name-prefix]
 * The limits: int8 multiply-adds (a loop of vpdpbusd on registers, or vpmaddubsw where there is none) and reading memory
 * (a sum over 256 MiB), each with all threads. Then for the shapes of SmolLM2 135M and Qwen2.5 0.5B and 1.5B, at rows
 * 1..512: the time of a call (best and median), GOP/s and GB/s of weights read, and the share of the nearer limit.
 * Weights rotate through copies that do not fit the caches, as the layers of a model do. Neighbours disturb it: the best
 * of many short calls is the figure, the median tells how much. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "tests/kernels/kit.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { READ_BYTES = 256 << 20, COPY_BYTES = 96 << 20, CALLS_MAX = 4000, COPIES_MAX = 1024, PEAK_LOOPS = 10000, BURSTS = 200 };

/* kit.h reports through the test runner, which has a main of its own. */
int qn_test_fail(const char *file, int line, const char *fmt, ...) {
    fprintf(stderr, "%s:%d: %s\n", file, line, fmt);
    return 1;
}
_Noreturn void qn_test_stop(void) { exit(1); }

/* --- limits ------------------------------------------------------------------------------------------------------- */

static volatile int sink;

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) static double peak_vnni(void) { /* operations of a call */
    __m512i a[12], x = _mm512_set1_epi8(3);
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) a[i] = _mm512_set1_epi32(i); /* different, or one would do */
    for (int k = 0; k < PEAK_LOOPS; k++) {
        __asm__ volatile("" : "+v"(x));
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) a[i] = _mm512_dpbusd_epi32(a[i], x, x);
    }
#pragma GCC unroll 12
    for (int i = 1; i < 12; i++) a[0] = _mm512_add_epi32(a[0], a[i]);
    sink += _mm512_reduce_add_epi32(a[0]);
    return 2.0 * 64 * 12 * PEAK_LOOPS;
}
__attribute__((target("avx2"))) static double peak_avx2(void) {
    __m256i a[12], x = _mm256_set1_epi8(3);
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) a[i] = _mm256_set1_epi16((short)i);
    for (int k = 0; k < PEAK_LOOPS; k++) {
        __asm__ volatile("" : "+x"(x));
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) a[i] = _mm256_add_epi16(a[i], _mm256_maddubs_epi16(x, x));
    }
#pragma GCC unroll 12
    for (int i = 1; i < 12; i++) a[0] = _mm256_add_epi16(a[0], a[i]);
    sink += _mm256_extract_epi16(a[0], 0);
    return 2.0 * 32 * 12 * PEAK_LOOPS;
}
#endif
static double peak_none(void) { return 0; }

struct limit_job { double (*peak)(void); double ops[QN_THREADS_MAX]; const uint8_t *mem; size_t part; };

static void peak_range(void *arg, int begin, int end, int thread) {
    struct limit_job *j = arg;
    for (int i = begin; i < end; i++) { /* each thread's best burst: neighbours cannot lower it for long */
        int64_t t = qn_clock_ns();
        double ops = j->peak(), rate = ops / (double)(qn_clock_ns() - t);
        if (rate > j->ops[thread]) j->ops[thread] = rate;
    }
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) static int read_part(const uint8_t *p, size_t n) {
    __m256i s0 = _mm256_setzero_si256(), s1 = s0;
    for (size_t k = 0; k < n; k += 64) {
        _mm_prefetch((const char *)p + k + 2048, _MM_HINT_T0);
        s0 = _mm256_xor_si256(s0, _mm256_loadu_si256((const __m256i *)(p + k)));
        s1 = _mm256_xor_si256(s1, _mm256_loadu_si256((const __m256i *)(p + k + 32)));
    }
    return _mm256_extract_epi32(_mm256_xor_si256(s0, s1), 0);
}
#else
static int read_part(const uint8_t *p, size_t n) {
    uint64_t s = 0, v;
    for (size_t k = 0; k < n; k += 8) memcpy(&v, p + k, 8), s ^= v;
    return (int)s;
}
#endif
static void read_range(void *arg, int begin, int end, int thread) {
    struct limit_job *j = arg;
    (void)thread;
    for (int i = begin; i < end; i++) sink += read_part(j->mem + (size_t)i * j->part, j->part);
}

static double limit_ops(struct qn_pool *p, double (*peak)(void)) {
    struct limit_job j = { .peak = peak };
    double sum = 0;
    for (int rep = 0; rep < 5; rep++) qn_pool_run(p, BURSTS * qn_pool_threads(p), 1, peak_range, &j);
    for (int i = 0; i < QN_THREADS_MAX; i++) sum += j.ops[i];
    return sum;
}
static double limit_read(struct qn_pool *p) {
    uint8_t *mem = aligned_alloc(2 << 20, READ_BYTES);
    double best = 0;
    memset(mem, 1, READ_BYTES);
    for (int rep = 0; rep < 48; rep++) { /* 32 MiB at a time, in turn */
        struct limit_job j = { .mem = mem + (size_t)(rep % 8) * (READ_BYTES / 8), .part = 64 << 10 };
        int64_t t = qn_clock_ns();
        qn_pool_run(p, READ_BYTES / 8 / (64 << 10), 1, read_range, &j);
        double gb = READ_BYTES / 8 / (double)(qn_clock_ns() - t);
        if (gb > best) best = gb;
    }
    free(mem);
    return best;
}

/* --- matrices ----------------------------------------------------------------------------------------------------- */

static const struct shape { const char *name; enum qn_type type; int n_in, n_out; int glu; } shapes[] = {
    { "smollm2.qo", QN_Q4_1, 576, 576, 0 },          { "smollm2.gateup", QN_Q4_1, 576, 1536, 1 },
    { "smollm2.down", QN_Q4_1, 1536, 576, 0 },       { "smollm2.vocab", QN_Q6_K, 768, 49152, 0 },
    { "qwen05.qo", QN_Q5_0, 896, 896, 0 },           { "qwen05.gateup", QN_Q5_0, 896, 4864, 1 },
    { "qwen05.down", QN_Q6_K, 4864, 896, 0 },        { "qwen05.vocab", QN_Q8_0, 896, 151936, 0 },
    { "qwen15.qo", QN_Q4_K, 1536, 1536, 0 },         { "qwen15.gateup", QN_Q4_K, 1536, 8960, 1 },
    { "qwen15.down", QN_Q6_K, 8960, 1536, 0 },       { "qwen15.down4", QN_Q4_K, 8960, 1536, 0 },
    { "q4_0", QN_Q4_0, 2048, 2048, 0 },              { "q5_k", QN_Q5_K, 2048, 2048, 0 },
    { "f16", QN_F16, 2048, 2048, 0 },
};

static int cmp(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static void bench(const struct shape *s, int rows, const char *isa, int threads, double ops_limit, double read_limit) {
    static double ns[CALLS_MAX];
    struct kit_rng r = { 1, 0 };
    struct qn_model_desc *d = kit_desc(s->n_in, 1, 1, 4, 16);
    struct qn_backend *b = kit_open(d, isa, threads, rows, 1, 16);
    if (!b) exit(1);
    struct qn_tensor t = kit_tensor(&r, s->type, s->n_in, s->n_out), ones = kit_ones(s->n_in);
    uint64_t kv, before = b->ops->bytes(b, &kv);
    struct qn_weight *w[COPIES_MAX], *gain = kit_weight(b, &ones, 1);
    int n = 0;
    do {
        w[n++] = kit_weight(b, &t, 0);
        if (s->glu) w[n++] = kit_weight(b, &t, 0);
    } while (n < COPIES_MAX - 1 && b->ops->bytes(b, &kv) - before < COPY_BYTES && !(rows > 64 && n >= 4));
    double bytes = (double)w[0]->tile_bytes * w[0]->n_tiles * (s->glu ? 2 : 1);
    struct qn_vec *x = b->ops->vec(b, s->n_in), *o = b->ops->vec(b, s->n_out);
    struct qn_act *a = b->ops->act(b, s->n_in), *h = b->ops->act(b, s->n_out);
    struct kit_batch k;
    for (int i = 0; i < rows; i++) kit_fill(&r, kit_row(b, x, i), (size_t)s->n_in);
    b->ops->begin(b, kit_rows(&k, rows));
    b->ops->add_norm(b, x, NULL, NULL, 0.0f, gain, 1e-5f, a);
    int calls = 0;
    double total = 0;
    while (calls < CALLS_MAX && (total < 0.15e9 || calls < 5)) {
        int at = calls * (s->glu ? 2 : 1) % n;
        struct qn_linear l = { w[at], NULL, o };
        int64_t t0 = qn_clock_ns();
        if (s->glu) b->ops->glu(b, a, w[at], w[at + 1], QN_ACT_SILU, h);
        else b->ops->linear(b, a, &l, 1);
        ns[calls] = (double)(qn_clock_ns() - t0);
        total += ns[calls++];
    }
    b->ops->end(b);
    qsort(ns, (size_t)calls, sizeof *ns, cmp);
    double best = ns[calls / 20], ops = 2.0 * rows * s->n_in * s->n_out * (s->glu ? 2 : 1);
    double by_ops = ops_limit > 0 ? ops / best / ops_limit : 0, by_read = bytes / best / read_limit;
    printf("| %-14s | %3d | %9.1f | %9.1f | %6.0f | %5.1f | %3.0f %% | %3.0f %% |\n", s->name, rows, best / 1e3, ns[calls / 2] / 1e3, ops / best, bytes / best,
           100 * by_ops, 100 * by_read);
    fflush(stdout);
    for (int i = 0; i < n; i++) b->ops->weight_free(b, w[i]);
    b->ops->weight_free(b, gain);
    b->ops->close(b);
    free((void *)(uintptr_t)t.data), free((void *)(uintptr_t)ones.data);
    kit_desc_free(d);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    const char *isa = argc > 2 && *argv[2] ? argv[2] : NULL, *prefix = argc > 3 ? argv[3] : "";
    struct qn_pool *p = NULL;
    if (qn_pool_open(&p, threads, NULL) < 0) return 1;
    double (*peak)(void) = peak_none;
    const char *best = "generic";
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) peak = peak_avx2, best = "avx2";
    if (__builtin_cpu_supports("avx512vnni") && (!isa || !strcmp(isa, "avx512"))) peak = peak_vnni, best = "avx512";
#endif
    double ops = limit_ops(p, peak), rd = limit_read(p);
    printf("%s, %d threads: int8 limit %.0f GOP/s, read limit %.1f GB/s\n\n", isa ? isa : best, qn_pool_threads(p), ops, rd);
    printf("| shape          | rows | best us   | median us | GOP/s  | GB/s  | ops   | read  |\n|---|---|---|---|---|---|---|---|\n");
    threads = qn_pool_threads(p);
    qn_pool_close(p);
    static const int rows[] = { 1, 8, 32, 256, 512 };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        if (strncmp(shapes[s].name, prefix, strlen(prefix))) continue;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) bench(&shapes[s], rows[i], isa ? isa : best, threads, ops, rd);
    }
    return 0;
}
