/* The numbers of the forward pass against transformers: tiny random models of every family and rope scaling in float32,
 * and the real models' quantised weights (tests/vectors/README.md tells how the vectors were made, and what llama.cpp
 * gets on the same texts). */
#include <unistd.h>

#include "engine/forward.h"
#include "tests/lib/engine_client.h"
#include "tests/run.h"

enum { TOP = 4, CHUNK = 128, OUT = 32, TOKENS_MAX = 2048 };

struct reader {
    unsigned char *p;
    size_t n, at;
};

static struct reader slurp(const char *path) {
    struct reader r = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return r;
    r.p = malloc(1 << 22);
    r.n = fread(r.p, 1, 1 << 22, f);
    fclose(f);
    return r;
}

static void take(struct reader *r, void *to, size_t n) {
    ASSERT(r->at + n <= r->n);
    memcpy(to, r->p + r->at, n);
    r->at += n;
}

struct setup {
    struct qn_model *m;
    struct qn_backend *b;
    struct qn_forward *f;
};

static struct setup open_setup(const char *path, int ref) {
    struct setup s = {0};
    struct qn_err err = {0};
    struct qn_backend_opts o = {.n_threads = 2, .kv_blocks = TOKENS_MAX / QN_KV_BLOCK, .rows_max = CHUNK, .out_max = OUT, .n_ctx = TOKENS_MAX};
    int rc = qn_model_open(&s.m, path, &err);
    if (rc == 0) rc = (ref ? qn_cpu_ref_open : qn_cpu_open)(&s.b, &s.m->desc, &o, &err);
    if (rc == 0) rc = qn_forward_open(&s.f, s.m, s.b, &err);
    if (rc < 0) printf("    %s\n", err.text);
    ASSERT_EQ(rc, 0);
    return s;
}

static void close_setup(struct setup *s) {
    qn_forward_close(s->f);
    s->b->ops->close(s->b);
    qn_model_close(s->m);
}

/* Teacher-forces ids[n] in chunks and calls use() with each position's logits. */
static void force(struct setup *s, const int32_t *ids, int n, void (*use)(void *arg, int pos, const float *logits, int n_vocab), void *arg) {
    static int32_t blocks[TOKENS_MAX / QN_KV_BLOCK], pos[CHUNK], rows[CHUNK];
    for (int i = 0; i < TOKENS_MAX / QN_KV_BLOCK; i++) blocks[i] = TOKENS_MAX / QN_KV_BLOCK - 1 - i; /* any order will do */
    ASSERT(n <= TOKENS_MAX);
    for (int at = 0; at < n; at += CHUNK) {
        int k = n - at < CHUNK ? n - at : CHUNK;
        for (int i = 0; i < k; i++) pos[i] = at + i, rows[i] = i;
        struct qn_batch_seq seq = {.n_rows = k, .n_ctx = at + k, .blocks = blocks};
        struct qn_batch b = {.n_rows = k, .n_seqs = 1, .token = ids + at, .pos = pos, .seqs = &seq, .n_out = k, .out_row = rows};
        qn_forward_step(s->f, &b);
        for (int r = 0; r < k; r += OUT) {
            int m = k - r < OUT ? k - r : OUT;
            const float *logits = qn_forward_logits(s->f, rows + r, m);
            for (int i = 0; i < m; i++) use(arg, at + r + i, logits + (size_t)i * (size_t)s->m->desc.n_vocab, s->m->desc.n_vocab);
        }
    }
}

/* --- tiny models: every logit --------------------------------------------------------------------------------------- */

struct tiny {
    uint32_t n_rows, n_vocab;
    const struct reader *r;
    size_t rows_at;
    double worst;
    int seen;
};

static void compare_row(void *arg, int pos, const float *logits, int n_vocab) {
    struct tiny *t = arg;
    ASSERT_EQ(n_vocab, t->n_vocab);
    size_t row_bytes = 4 + 4 * (size_t)t->n_vocab;
    for (uint32_t i = 0; i < t->n_rows; i++) {
        const unsigned char *p = t->r->p + t->rows_at + i * row_bytes;
        uint32_t at;
        memcpy(&at, p, 4);
        if ((int)at != pos) continue;
        t->seen++;
        for (uint32_t v = 0; v < t->n_vocab; v++) {
            float want;
            memcpy(&want, p + 4 + 4 * v, 4);
            double d = fabs((double)logits[v] - (double)want);
            if (!(d <= t->worst)) t->worst = d; /* NaN gets in */
        }
    }
}

static double tiny_error(const char *name, int ref) {
    char path[128];
    snprintf(path, sizeof path, "tests/vectors/tiny-%s.bin", name);
    struct reader r = slurp(path);
    ASSERT(r.p != NULL);
    char magic[4];
    uint32_t head[3];
    static int32_t ids[TOKENS_MAX];
    take(&r, magic, 4);
    take(&r, head, sizeof head);
    ASSERT(!memcmp(magic, "QNTV", 4) && head[0] <= TOKENS_MAX);
    take(&r, ids, head[0] * sizeof *ids);
    struct tiny t = {.n_rows = head[1], .n_vocab = head[2], .r = &r, .rows_at = r.at};
    ASSERT_EQ(r.at + head[1] * (4 + 4 * (size_t)head[2]), r.n);
    snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", name);
    struct setup s = open_setup(path, ref);
    force(&s, ids, (int)head[0], compare_row, &t);
    close_setup(&s);
    EXPECT_EQ(t.seen, head[1]);
    free(r.p);
    return t.worst;
}

static const char *const families[] = {"llama", "llama3", "llama-linear", "qwen2", "qwen2-yarn", "qwen3", "gemma3"};

TEST(logits, the_yardstick_is_transformers_in_f32) {
    for (int i = 0; i < 7; i++) {
        double worst = tiny_error(families[i], 1);
        printf("    %s: %.2g\n", families[i], worst);
        EXPECT_NEAR(worst, 0, 1e-3);
    }
}

/* Weights are f16 here and taken exactly; what is left is the 16-bit KV cache. Logits reach 6. */
TEST(logits, the_fast_backend_is_near_it) {
    for (int i = 0; i < 7; i++) {
        double worst = tiny_error(families[i], 0);
        printf("    %s: %.2g\n", families[i], worst);
        EXPECT_NEAR(worst, 0, 2e-2);
    }
}

/* --- real models ------------------------------------------------------------------------------------------------------ */

struct real {
    const int32_t *ids;
    const float *want;      /* log-probability of the next token at each position */
    const int32_t *want_top;
    int n, n_top, n_seen, n_same;
    double sum;
};

static double log_sum_exp(const float *x, int n) {
    float most = x[0];
    for (int i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)(x[i] - most));
    return (double)most + log(sum);
}

static void compare_real(void *arg, int pos, const float *logits, int n_vocab) {
    struct real *t = arg;
    if (pos >= t->n - 1) return;
    int best = 0;
    for (int i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best]) best = i;
    double lp = (double)logits[t->ids[pos + 1]] - log_sum_exp(logits, n_vocab);
    t->sum += fabs(lp - (double)t->want[pos]);
    t->n_same += best == t->want_top[pos];
    t->n_seen++;
}

struct outcome { double top1, mean; int n; };

static struct outcome run_real(const char *name, int ref, int tokens_most) {
    char path[160];
    snprintf(path, sizeof path, "tests/vectors/logits-%s.bin", name);
    struct reader r = slurp(path);
    ASSERT(r.p != NULL);
    const char *model = client_model(name);
    if (!model) printf("    the model %s is not in the cache: scripts/fetch-model.sh %s\n", name, name);
    ASSERT(model != NULL);
    struct setup s = open_setup(model, ref);
    char magic[4];
    uint32_t n_prompts;
    take(&r, magic, 4);
    take(&r, &n_prompts, 4);
    ASSERT(!memcmp(magic, "QNLG", 4));
    struct real t = {0};
    static int32_t ids[TOKENS_MAX], top[TOKENS_MAX];
    static float want[TOKENS_MAX];
    for (uint32_t i = 0; i < n_prompts && t.n_seen < tokens_most; i++) {
        uint32_t n;
        take(&r, &n, 4);
        ASSERT(n <= TOKENS_MAX);
        take(&r, ids, n * sizeof *ids);
        for (uint32_t k = 0; k + 1 < n; k++) {
            struct { int32_t id; float lp; } rows[TOP];
            take(&r, &want[k], 4);
            take(&r, rows, sizeof rows);
            top[k] = rows[0].id;
        }
        t.ids = ids;
        t.want = want;
        t.want_top = top;
        t.n = (int)n;
        if (ref && t.n > tokens_most) t.n = tokens_most;
        force(&s, ids, t.n, compare_real, &t);
    }
    close_setup(&s);
    free(r.p);
    struct outcome o = {(double)t.n_same / t.n_seen, t.sum / t.n_seen, t.n_seen};
    printf("    %s%s: %d positions, top-1 %.4f, mean |d logprob| %.4f\n", name, ref ? " (cpu-ref)" : "", o.n, o.top1, o.mean);
    return o;
}

/* What llama.cpp gets on the same positions (README.md of the vectors), and the standard error of its top-1 share. */
static void no_worse(const char *name, double peer_top1, double top1_error, double peer_mean) {
    struct outcome o = run_real(name, 0, 1 << 20);
    EXPECT(o.top1 >= peer_top1 - 2 * top1_error);
    EXPECT(o.mean <= peer_mean);
}

TEST_SLOW(logits, smollm2_is_no_worse_than_llama_cpp, 240) { no_worse("smollm2-135m-instruct-q4_1", 0.9650, 0.0036, 0.0565); }
TEST_SLOW(logits, qwen_is_no_worse_than_llama_cpp, 240) { no_worse("qwen2.5-coder-0.5b-instruct-q4_k_m", 0.9825, 0.0028, 0.0330); }
TEST_SLOW(logits, gemma_is_no_worse_than_llama_cpp, 240) { no_worse("gemma-3-270m-q4_k_m", 0.9523, 0.0045, 0.0772); }

/* Dequantised weights in float32 on both sides: what remains is rounding. */
TEST_SLOW(logits, the_yardstick_is_transformers_on_real_weights, 240) {
    const char *names[] = {"smollm2-135m-instruct-q4_1", "gemma-3-270m-q4_k_m"};
    for (int i = 0; i < 2; i++) {
        struct outcome o = run_real(names[i], 1, 20);
        EXPECT_NEAR(o.top1, 1, 0);
        EXPECT_NEAR(o.mean, 0, 1e-3);
    }
}
