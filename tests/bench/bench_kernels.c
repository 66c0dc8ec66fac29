/* Kernels of the CPU backend as a share of what this machine can do, both measured in the same run.
 *   bench_kernels [threads] [isa] [name-prefix]
 * The limits, each with all threads: multiply-adds of int8, f32 and bf16 (loops of vpdpbusd, fma and vdpbf16ps on
 * registers; vpmaddubsw and fma in AVX2) and reading memory (a sum over 1 GiB in parts, none read twice in a round). Then for
 * the shapes of SmolLM2 135M and Qwen2.5 0.5B and 1.5B, at rows 1..512: the time of a call (best and median), GOP/s and
 * GB/s of weights read, and the shares of both limits; a shape's arithmetic limit is that of its type,
 * and the memory limit the best that was seen until then, measured again before each shape: it is the host's, not ours.
 * Weights rotate through copies of 512 MiB in all, many times the caches, as the layers of a model do. Neighbours disturb
 * it: the best of many short calls is the figure, the median tells how much. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/clock.h"
#include "tests/kernels/kit.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    READ_BYTES = 1 << 30, READ_PARTS = 32, READ_ROUNDS = 3, COPY_BYTES = 512 << 20, CALLS_MAX = 4000, COPIES_MAX = 4096, ROWS_MAX = 512,
    PEAK_LOOPS = 10000, BURSTS = 100,
};
enum limit { INT8, FLOAT, BF16, LIMITS };

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
#define PEAK_FLOAT(name, set, v, ops, set1, add, first, step) \
    __attribute__((target(set))) static double name(void) { \
        v a[12], x = set1(0.0f); \
        _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = set1((float)i); \
        for (int k = 0; k < PEAK_LOOPS; k++) { \
            __asm__ volatile("" : "+x"(x)); \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = step; \
        } \
        _Pragma("GCC unroll 12") for (int i = 1; i < 12; i++) a[0] = add(a[0], a[i]); \
        sink += (int)first; \
        return 2.0 * (ops) * 12 * PEAK_LOOPS; \
    }
PEAK_FLOAT(peak_f32_avx512, "avx512f", __m512, 16, _mm512_set1_ps, _mm512_add_ps, _mm512_cvtss_f32(a[0]), _mm512_fmadd_ps(x, x, a[i]))
PEAK_FLOAT(peak_f32_avx2, "avx2,fma", __m256, 8, _mm256_set1_ps, _mm256_add_ps, _mm256_cvtss_f32(a[0]), _mm256_fmadd_ps(x, x, a[i]))
PEAK_FLOAT(peak_bf16, "avx512f,avx512bf16", __m512, 32, _mm512_set1_ps, _mm512_add_ps, _mm512_cvtss_f32(a[0]),
           _mm512_dpbf16_ps(a[i], (__m512bh)x, (__m512bh)x))
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
        _mm_prefetch((const char *)p + k + 8192, _MM_HINT_T0);
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
    for (int rep = 0; peak && rep < 5; rep++) qn_pool_run(p, BURSTS * qn_pool_threads(p), 1, peak_range, &j);
    for (int i = 0; i < QN_THREADS_MAX; i++) sum += j.ops[i];
    return sum;
}
/* The best of all rounds so far; the memory is kept. */
static double limit_read(struct qn_pool *p, int rounds) {
    static uint8_t *mem;
    static double best;
    size_t part = READ_BYTES / READ_PARTS;
    if (!mem) {
        mem = aligned_alloc(2 << 20, READ_BYTES);
        if (!mem) exit(1);
        madvise(mem, READ_BYTES, MADV_HUGEPAGE); /* as the backend's */
        memset(mem, 1, READ_BYTES);
    }
    for (int rep = 0; rep < READ_PARTS * rounds; rep++) {
        struct limit_job j = { .mem = mem + (size_t)(rep % READ_PARTS) * part, .part = 64 << 10 };
        int64_t t = qn_clock_ns();
        qn_pool_run(p, (int)(part / j.part), 1, read_range, &j);
        double gb = (double)part / (double)(qn_clock_ns() - t);
        if (gb > best) best = gb;
    }
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
    { "f16", QN_F16, 2048, 2048, 0 },                { "f32", QN_F32, 2048, 2048, 0 },
    { "bf16.smollm2.qo", QN_BF16, 576, 576, 0 },     { "bf16.smollm2.gu", QN_BF16, 576, 1536, 1 },
    { "bf16.smollm2.dn", QN_BF16, 1536, 576, 0 },    { "bf16.2048", QN_BF16, 2048, 2048, 0 },
    { "bf16.qwen05.gu", QN_BF16, 896, 4864, 1 },
};

static int cmp(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* What a shape runs against: the weights in copies, and one activation. */
struct bed {
    const struct shape *s;
    struct qn_backend *b;
    struct qn_weight *w[COPIES_MAX];
    int n;
    struct qn_vec *x, *o;
    struct qn_act *a, *h;
    struct qn_weight *gain;
};

/* Another weight with the same bytes. */
static struct qn_weight *again(struct qn_backend *b, const struct qn_weight *w) {
    struct qn_weight *c = malloc(sizeof *c);
    size_t n = w->tile_bytes * (size_t)w->n_tiles;
    uint8_t *data = qn_cpu_alloc(qn_cpu_of(b), n);
    if (!c || !data) exit(1);
    memcpy(data, w->data, n);
    *c = *w, c->data = data;
    return c;
}

static void bench(struct bed *m, int rows, const double limit[LIMITS], double read_limit) {
    static double ns[CALLS_MAX];
    const struct shape *s = m->s;
    struct qn_backend *b = m->b;
    struct kit_batch k;
    int calls = 0, per = s->glu ? 2 : 1;
    double total = 0;
    b->ops->begin(b, kit_rows(&k, rows));
    b->ops->add_norm(b, m->x, NULL, NULL, 0.0f, m->gain, 1e-5f, m->a);
    while (calls < CALLS_MAX && (total < 0.15e9 || calls < 5)) {
        int at = calls % (m->n / per) * per;
        struct qn_linear l = { m->w[at], NULL, m->o };
        int64_t t0 = qn_clock_ns();
        if (s->glu) b->ops->glu(b, m->a, m->w[at], m->w[at + 1], QN_ACT_SILU, m->h);
        else b->ops->linear(b, m->a, &l, 1);
        ns[calls] = (double)(qn_clock_ns() - t0);
        total += ns[calls++];
    }
    b->ops->end(b);
    qsort(ns, (size_t)calls, sizeof *ns, cmp);
    enum limit kind = s->type == QN_BF16 ? (limit[BF16] > 0 ? BF16 : FLOAT) : s->type == QN_F16 || s->type == QN_F32 ? FLOAT : INT8;
    double bytes = (double)m->w[0]->tile_bytes * m->w[0]->n_tiles * per, best = ns[calls / 20];
    double ops = 2.0 * rows * s->n_in * s->n_out * per;
    printf("| %-15s | %3d | %9.1f | %9.1f | %6.0f | %5.1f | %3.0f %% | %3.0f %% |\n", s->name, rows, best / 1e3, ns[calls / 2] / 1e3, ops / best,
           bytes / best, limit[kind] > 0 ? 100 * ops / best / limit[kind] : 0, 100 * bytes / best / read_limit);
    fflush(stdout);
}

static void shape(const struct shape *s, const char *isa, int threads, const double limit[LIMITS], double read_limit) {
    static const int rows[] = { 1, 8, 32, 256, ROWS_MAX };
    static struct bed m;
    struct kit_rng r = { 1, 0 };
    struct qn_model_desc *d = kit_desc(s->n_in, 1, 1, 4, 16);
    struct qn_tensor t = kit_tensor(&r, s->type, s->n_in, s->n_out), ones = kit_ones(s->n_in);
    m = (struct bed){ .s = s, .b = kit_open(d, isa, threads, ROWS_MAX, 1, 16) };
    if (!m.b) {
        fprintf(stderr, "this processor has no '%s'\n", isa);
        exit(1);
    }
    m.gain = kit_weight(m.b, &ones, 1);
    m.w[m.n++] = kit_weight(m.b, &t, 0);
    size_t bytes = m.w[0]->tile_bytes * (size_t)m.w[0]->n_tiles;
    while (m.n < COPIES_MAX && (m.n < 2 || (size_t)m.n * bytes < COPY_BYTES)) m.w[m.n] = again(m.b, m.w[0]), m.n++;
    m.x = m.b->ops->vec(m.b, s->n_in), m.o = m.b->ops->vec(m.b, s->n_out);
    m.a = m.b->ops->act(m.b, s->n_in), m.h = m.b->ops->act(m.b, s->n_out);
    for (int i = 0; i < ROWS_MAX; i++) kit_fill(&r, kit_row(m.b, m.x, i), (size_t)s->n_in);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) bench(&m, rows[i], limit, read_limit);
    for (int i = 0; i < m.n; i++) m.b->ops->weight_free(m.b, m.w[i]);
    m.b->ops->weight_free(m.b, m.gain);
    m.b->ops->close(m.b);
    free((void *)(uintptr_t)t.data), free((void *)(uintptr_t)ones.data);
    kit_desc_free(d);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    const char *isa = argc > 2 && *argv[2] ? argv[2] : NULL, *prefix = argc > 3 ? argv[3] : "";
    double (*peak[LIMITS])(void) = { NULL }, limit[LIMITS];
    struct qn_pool *p = NULL;
    if (qn_pool_open(&p, threads, NULL, NULL) < 0) return 1;
#if defined(__x86_64__)
    int wide = !isa || !strncmp(isa, "avx512", 6);
    if (__builtin_cpu_supports("avx2")) peak[INT8] = peak_avx2, peak[FLOAT] = peak_f32_avx2;
    if (__builtin_cpu_supports("avx512vnni") && wide) peak[INT8] = peak_vnni, peak[FLOAT] = peak_f32_avx512;
    if (__builtin_cpu_supports("avx512bf16") && wide && (!isa || strcmp(isa, "avx512-vnni"))) peak[BF16] = peak_bf16;
    if (!isa) isa = peak[INT8] == peak_vnni ? "avx512" : peak[INT8] ? "avx2" : "generic";
#endif
    for (int i = 0; i < LIMITS; i++) limit[i] = limit_ops(p, peak[i]);
    double rd = limit_read(p, READ_ROUNDS);
    printf("%s, %d threads: limits int8 %.0f, f32 %.0f, bf16 %.0f GOP/s, read %.1f GB/s\n\n", isa ? isa : "generic", qn_pool_threads(p),
           limit[INT8], limit[FLOAT], limit[BF16], rd);
    printf("| shape           | rows | best us   | median us | GOP/s  | GB/s  | ops   | read  |\n|---|---|---|---|---|---|---|---|\n");
    threads = qn_pool_threads(p);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        if (!strncmp(shapes[s].name, prefix, strlen(prefix))) shape(&shapes[s], isa ? isa : "generic", threads, limit, limit_read(p, 1));
    qn_pool_close(p);
    return 0;
}
