/* Attention of the CPU backend, as a share of what this machine can do, both measured in the same run.
 *   bench_attention [threads] [isa] [kv-type] [model-prefix]
 * The limits: f32 multiply-adds on registers and reading memory. Then, for the heads of SmolLM2 135M and Qwen2.5 0.5B and
 * 1.5B: a prompt's chunk of 256 rows (64 behind long contexts) and one decode row, behind contexts of growing length. Layers take turns, as in a
 * model, so that a layer's pages are as cold as they would be. With one thread its own processor time counts. The best of many calls is the
 * figure, as neighbours disturb; "share" is the median of calls, each over a burst of multiply-adds right after it, and so
 * says something on a busy machine too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/clock.h"
#include "tests/kernels/kit.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { READ_BYTES = 128 << 20, PEAK_LOOPS = 10000, CALLS_MAX = 2000, CTX_MAX = 16384, ROWS = 256 };

/* kit.h reports through the test runner, which has a main of its own. */
int qn_test_fail(const char *file, int line, const char *fmt, ...) {
    fprintf(stderr, "%s:%d: %s\n", file, line, fmt);
    return 1;
}
_Noreturn void qn_test_stop(void) { exit(1); }

static volatile float sink;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double peak_avx512(void) { /* operations of a call */
    __m512 a[12], x = _mm512_set1_ps(0.9f);
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) a[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < PEAK_LOOPS; k++) {
        __asm__ volatile("" : "+v"(x));
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) a[i] = _mm512_fmadd_ps(a[i], x, x);
    }
#pragma GCC unroll 12
    for (int i = 1; i < 12; i++) a[0] = _mm512_add_ps(a[0], a[i]);
    sink += _mm512_reduce_add_ps(a[0]);
    return 2.0 * 16 * 12 * PEAK_LOOPS;
}
__attribute__((target("avx2,fma"))) static double peak_avx2(void) {
    __m256 a[12], x = _mm256_set1_ps(0.9f);
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) a[i] = _mm256_set1_ps((float)i);
    for (int k = 0; k < PEAK_LOOPS; k++) {
        __asm__ volatile("" : "+x"(x));
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) a[i] = _mm256_fmadd_ps(a[i], x, x);
    }
#pragma GCC unroll 12
    for (int i = 1; i < 12; i++) a[0] = _mm256_add_ps(a[0], a[i]);
    sink += _mm256_cvtss_f32(a[0]);
    return 2.0 * 8 * 12 * PEAK_LOOPS;
}
#endif
static double peak_none(void) { return 0; }

struct limit_job { double (*peak)(void); double ops[QN_THREADS_MAX]; const uint8_t *mem; size_t part; };

static void peak_range(void *arg, int begin, int end, int thread) {
    struct limit_job *j = arg;
    for (int i = begin; i < end; i++) { /* each thread's best burst */
        int64_t t = qn_clock_ns();
        double ops = j->peak(), rate = ops / (double)(qn_clock_ns() - t);
        if (rate > j->ops[thread]) j->ops[thread] = rate;
    }
}
static void read_range(void *arg, int begin, int end, int thread) {
    struct limit_job *j = arg;
    uint64_t s[8] = { 0 };
    (void)thread;
    for (int i = begin; i < end; i++)
        for (const uint8_t *p = j->mem + (size_t)i * j->part, *e = p + j->part; p < e; p += 64) {
            uint64_t v[8];
            memcpy(v, p, 64);
            for (int k = 0; k < 8; k++) s[k] ^= v[k];
        }
    sink += (float)(s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7]);
}

static void limits(struct qn_pool *p, double (*peak)(void), double *ops, double *gb) {
    struct limit_job j = { .peak = peak };
    *ops = *gb = 0;
    qn_pool_run(p, 400 * qn_pool_threads(p), 1, peak_range, &j);
    for (int i = 0; i < QN_THREADS_MAX; i++) *ops += j.ops[i];
    uint8_t *mem = aligned_alloc(2 << 20, READ_BYTES);
    memset(mem, 1, READ_BYTES);
    for (int rep = 0; rep < 32; rep++) {
        j = (struct limit_job){ .mem = mem + (size_t)(rep % 4) * (READ_BYTES / 4), .part = 64 << 10 };
        int64_t t = qn_clock_ns();
        qn_pool_run(p, READ_BYTES / 4 / (64 << 10), 1, read_range, &j);
        double r = READ_BYTES / 4 / (double)(qn_clock_ns() - t);
        if (r > *gb) *gb = r;
    }
    free(mem);
}

static const struct shape { const char *name; int layers, heads, kv_heads, head_dim; } shapes[] = {
    { "smollm2", 30, 9, 3, 64 }, { "qwen05", 24, 14, 2, 64 }, { "qwen15", 28, 12, 2, 128 },
};

struct bench {
    const struct shape *s;
    struct qn_backend *b;
    struct qn_vec *q, *k, *v;
    struct qn_act *a;
    int32_t blocks[CTX_MAX / QN_KV_BLOCK], token[ROWS], pos[ROWS];
    struct qn_batch_seq seq;
    struct qn_batch batch;
};

static void set_batch(struct bench *n, int rows, int ctx) {
    n->seq = (struct qn_batch_seq){ 0, rows, ctx, n->blocks };
    n->batch = (struct qn_batch){ .n_rows = rows, .n_seqs = 1, .token = n->token, .pos = n->pos, .seqs = &n->seq };
    for (int i = 0; i < rows; i++) n->pos[i] = ctx - rows + i;
}

static void fill(struct bench *n) {
    struct kit_rng r = { 5, 0 };
    int kv_width = n->s->kv_heads * n->s->head_dim;
    for (int i = 0; i < ROWS; i++) {
        for (int e = 0; e < n->s->heads * n->s->head_dim; e++) kit_row(n->b, n->q, i)[e] = kit_f(&r);
        for (int e = 0; e < kv_width; e++) kit_row(n->b, n->k, i)[e] = kit_f(&r), kit_row(n->b, n->v, i)[e] = kit_f(&r);
    }
    for (int at = ROWS; at <= CTX_MAX; at += ROWS) {
        set_batch(n, ROWS, at);
        n->b->ops->begin(n->b, &n->batch);
        for (int l = 0; l < n->s->layers; l++) n->b->ops->rope_kv(n->b, l, n->q, n->k, n->v, NULL, NULL, 0);
        n->b->ops->end(n->b);
    }
}

/* ns: the clock, or what the only thread got of the processor. */
static double now(int threads) {
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int cmp(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static void measure(struct bench *n, int rows, int ctx, int threads, double (*peak)(void), double ops_limit, double read_limit) {
    static double ns[CALLS_MAX], share[CALLS_MAX];
    int calls = 0;
    uint64_t kv_bytes;
    double seen = 0;
    n->b->ops->bytes(n->b, &kv_bytes);
    set_batch(n, rows, ctx);
    for (int r = 0; r < rows; r++) seen += ctx - rows + r + 1;
    double ops = 4.0 * seen * n->s->heads * n->s->head_dim, bytes = (double)kv_bytes / CTX_MAX / n->s->layers * ctx;
    n->b->ops->begin(n->b, &n->batch);
    for (double total = 0; calls < CALLS_MAX && (total < 0.5e9 || calls < n->s->layers); calls++) {
        double t = now(threads);
        n->b->ops->attention(n->b, calls % n->s->layers, n->q, n->a);
        total += ns[calls] = now(threads) - t;
        t = now(threads);
        double burst = 0;
        do burst += peak(); while (now(threads) - t < ns[calls] / 4);
        share[calls] = ops / ns[calls] / (burst * threads / (now(threads) - t));
    }
    n->b->ops->end(n->b);
    qsort(ns, (size_t)calls, sizeof *ns, cmp), qsort(share, (size_t)calls, sizeof *share, cmp);
    double best = ns[calls / 50];
    printf("| %-8s | %4d | %6d | %9.1f | %9.1f | %6.1f | %3.0f %% | %3.0f %% | %5.1f | %3.0f %% |\n", n->s->name, rows, ctx, best / 1e3, ns[calls / 2] / 1e3,
           ops / best, ops_limit > 0 ? 100 * ops / best / ops_limit : 0, 100 * share[calls / 2], bytes / best, 100 * bytes / best / read_limit);
    fflush(stdout);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    const char *isa = argc > 2 && *argv[2] ? argv[2] : NULL, *type = argc > 3 ? argv[3] : "f16", *prefix = argc > 4 ? argv[4] : "";
    enum qn_kv_type kv = !strcmp(type, "q8_0") ? QN_KV_Q8_0 : !strcmp(type, "bf16") ? QN_KV_BF16 : QN_KV_F16;
    struct qn_pool *p = NULL;
    if (qn_pool_open(&p, threads, NULL, NULL) < 0) return 1;
    double (*peak)(void) = peak_none, ops, rd;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) peak = peak_avx2;
    if (__builtin_cpu_supports("avx512f") && (!isa || !strcmp(isa, "avx512"))) peak = peak_avx512;
#endif
    limits(p, peak, &ops, &rd);
    printf("%s, %d threads: f32 limit %.0f GFLOP/s, read limit %.1f GB/s\n\n", type, qn_pool_threads(p), ops, rd);
    printf("| heads of | rows | context | best us  | median us | GFLOP/s | f32  | share | GB/s | read  |\n|---|---|---|---|---|---|---|---|---|---|\n");
    threads = qn_pool_threads(p);
    qn_pool_close(p);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        static struct bench n;
        const struct shape *s = &shapes[i];
        if (strncmp(s->name, prefix, strlen(prefix))) continue;
        struct qn_model_desc *d = kit_desc(s->heads * s->head_dim, s->heads, s->kv_heads, s->head_dim, 16);
        d->n_layers = s->layers;
        n.s = s;
        n.b = kit_open_kv(d, isa ? isa : "avx512", threads, ROWS, CTX_MAX / QN_KV_BLOCK, CTX_MAX, kv);
        if (!n.b) return 1;
        for (int k = 0; k < CTX_MAX / QN_KV_BLOCK; k++) n.blocks[k] = k;
        n.q = n.b->ops->vec(n.b, s->heads * s->head_dim), n.k = n.b->ops->vec(n.b, s->kv_heads * s->head_dim);
        n.v = n.b->ops->vec(n.b, s->kv_heads * s->head_dim), n.a = n.b->ops->act(n.b, s->heads * s->head_dim);
        fill(&n);
        static const int decode[] = { 256, 1024, 4096, 16384 }, prefill[] = { 256, 1024, 4096 };
        for (int k = 0; k < 3; k++) measure(&n, k ? ROWS / 4 : ROWS, prefill[k], threads, peak, ops, rd);
        for (int k = 0; k < 4; k++) measure(&n, 1, decode[k], threads, peak, ops, rd);
        n.b->ops->close(n.b);
        kit_desc_free(d);
    }
    return 0;
}
