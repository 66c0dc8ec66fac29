/* The numbers of the forward pass against transformers: tiny random models of every family and rope scaling in float32,
 * and the real models' quantised weights (tests/vectors/README.md tells how the vectors were made, and what llama.cpp
 * gets on the same texts). */
#include <unistd.h>

#include "tests/lib/engine_client.h"
#include "tests/lib/forcing.h"
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

static enum qn_kv_type kv_type = QN_KV_AUTO; /* of what is opened next */

static struct forcing open_setup(const char *path, int ref) {
    return forcing_open(path, ref ? qn_cpu_ref_open : qn_cpu_open,
                        &(struct qn_backend_opts){.n_threads = 2, .kv_blocks = TOKENS_MAX / QN_KV_BLOCK, .kv_type = kv_type, .rows_max = CHUNK, .out_max = OUT, .n_ctx = TOKENS_MAX});
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
    struct forcing s = open_setup(path, ref);
    forcing_run(&s, ids, (int)head[0], CHUNK, compare_row, &t);
    forcing_close(&s);
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

/* Keys and values in other types: the yardstick rounds them by its own code, so what a type costs must be the same in
 * both (q8_0: and q in int8 in the fast one). These models have heads of 16 random elements and average nothing out. */
TEST(logits, kv_types_cost_what_they_cost_the_yardstick) {
    static const struct { enum qn_kv_type type; double most, times; } rows[] = {
        {QN_KV_F16, 2e-2, 1.1}, {QN_KV_BF16, 0.15, 1.1}, {QN_KV_Q8_0, 0.5, 2.5},
    };
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 7; i++) {
            kv_type = rows[k].type;
            double ref = tiny_error(families[i], 1), fast = tiny_error(families[i], 0);
            printf("    type %d, %s: %.2g, the yardstick %.2g\n", (int)rows[k].type, families[i], fast, ref);
            EXPECT(ref <= rows[k].most && fast <= rows[k].times * ref + 1e-3);
        }
}

/* --- real models ------------------------------------------------------------------------------------------------------ */

struct wanted {             /* as the file has it */
    float lp;               /* log-probability of the next token */
    struct { int32_t id; float lp; } top[TOP];
};

struct real {
    const int32_t *ids;
    const struct wanted *want; /* of each position */
    int n, n_seen, n_same;
    int n_tied;             /* another token won where the first two are within rounding of each other */
    double sum, worst;      /* |d log-probability| of the next tokens; the greatest over those and the top ones */
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
    const struct wanted *w = &t->want[pos];
    double lse = log_sum_exp(logits, n_vocab), d = fabs((double)logits[t->ids[pos + 1]] - lse - (double)w->lp);
    t->sum += d;
    if (!(d <= t->worst)) t->worst = d;
    for (int k = 0; k < TOP; k++) {
        double e = fabs((double)logits[w->top[k].id] - lse - (double)w->top[k].lp);
        if (!(e <= t->worst)) t->worst = e;
    }
    t->n_same += best == w->top[0].id;
    t->n_tied += best != w->top[0].id && w->top[0].lp - w->top[1].lp < 1e-3f;
    t->n_seen++;
}

struct outcome { double top1, mean, worst; int n, n_tied; };

/* The first `most` positions of every prompt; 0: all. */
static struct outcome run_real(const char *name, int ref, int most) {
    char path[160];
    snprintf(path, sizeof path, "tests/vectors/logits-%s.bin", name);
    struct reader r = slurp(path);
    ASSERT(r.p != NULL);
    const char *model = client_model(name);
    if (!model) printf("    the model %s is not in the cache: scripts/fetch-model.sh %s\n", name, name);
    ASSERT(model != NULL);
    struct forcing s = open_setup(model, ref);
    char magic[4];
    uint32_t n_prompts;
    take(&r, magic, 4);
    take(&r, &n_prompts, 4);
    ASSERT(!memcmp(magic, "QNLG", 4));
    struct real t = {0};
    static int32_t ids[TOKENS_MAX];
    static struct wanted want[TOKENS_MAX];
    for (uint32_t i = 0; i < n_prompts; i++) {
        uint32_t n;
        take(&r, &n, 4);
        ASSERT(n >= 2 && n <= TOKENS_MAX);
        take(&r, ids, n * sizeof *ids);
        take(&r, want, (n - 1) * sizeof *want);
        t.ids = ids;
        t.want = want;
        t.n = (int)n;
        forcing_run(&s, ids, most && most < t.n ? most : t.n, CHUNK, compare_real, &t);
    }
    ASSERT_EQ(r.at, r.n);
    forcing_close(&s);
    free(r.p);
    struct outcome o = {(double)t.n_same / t.n_seen, t.sum / t.n_seen, t.worst, t.n_seen, t.n_tied};
    printf("    %s%s: %d positions, top-1 %.4f, mean |d logprob| %.4f, worst %.2g\n", name, ref ? " (cpu-ref)" : "", o.n, o.top1, o.mean, o.worst);
    return o;
}

/* As the runner tells: a sanitizer makes all this ten times slower, so it sees the beginning of each prompt only. */
static int under_sanitizer(void) {
    const char *build = getenv("QN_BUILD");
    return build && strstr(build, "san") != NULL;
}

/* Against what llama.cpp gets on the same positions (README.md of the vectors): its agreement and mean with the standard
 * errors that as many positions as are run here have. */
static void no_worse(const char *name, double peer_top1, double top1_deviation, double peer_mean, double mean_deviation) {
    int some = under_sanitizer();
    struct outcome o = run_real(name, 0, some ? 40 : 0);
    EXPECT(o.n > (some ? 190 : 2000));
    EXPECT(o.top1 >= peer_top1 - (some ? 3 : 2) * top1_deviation / sqrt(o.n));
    EXPECT(o.mean <= peer_mean + (some ? 3 * mean_deviation / sqrt(o.n) : 0));
}

/* docs/performance.md, "KV types", has what this prints for all positions. */
static void kv_types_are_near(const char *name, double bf16, double q8) {
    double f16 = run_real(name, 0, 60).mean;
    kv_type = QN_KV_BF16;
    EXPECT(run_real(name, 0, 60).mean <= f16 + bf16);
    kv_type = QN_KV_Q8_0;
    EXPECT(run_real(name, 0, 60).mean <= f16 + q8);
}
TEST_SLOW(logits, kv_types_on_smollm2, 240) { kv_types_are_near("smollm2-135m-instruct-q4_1", 0.004, 0.008); }

TEST_SLOW(logits, smollm2_is_no_worse_than_llama_cpp, 240) { no_worse("smollm2-135m-instruct-q4_1", 0.9650, 0.184, 0.0565, 0.061); }
TEST_SLOW(logits, qwen_is_no_worse_than_llama_cpp, 240) { no_worse("qwen2.5-coder-0.5b-instruct-q4_k_m", 0.9825, 0.131, 0.0330, 0.042); }
TEST_SLOW(logits, gemma_is_no_worse_than_llama_cpp, 240) { no_worse("gemma-3-270m-q4_k_m", 0.9523, 0.213, 0.0772, 0.095); }

/* Dequantised weights in float32 on both sides: what remains is rounding (6e-5 measured). */
static void yardstick_agrees(const char *name, int most) {
    if (under_sanitizer()) most = most / 8 + 1;
    struct outcome o = run_real(name, 1, most);
    EXPECT_EQ(o.n, 5 * most);
    EXPECT_EQ((int)lround(o.top1 * o.n) + o.n_tied, o.n);
    EXPECT_NEAR(o.worst, 0, 1e-3);
}

TEST_SLOW(logits, the_yardstick_is_transformers_on_smollm2, 240) { yardstick_agrees("smollm2-135m-instruct-q4_1", 40); }
TEST_SLOW(logits, the_yardstick_is_transformers_on_qwen, 240) { yardstick_agrees("qwen2.5-coder-0.5b-instruct-q4_k_m", 8); }
TEST_SLOW(logits, the_yardstick_is_transformers_on_gemma, 240) { yardstick_agrees("gemma-3-270m-q4_k_m", 12); }

/* --- how a prompt is cut ---------------------------------------------------------------------------------------------- */

static void cuts_keep_bits(const char *path, int ref, int n) {
    static const int cuts[][2] = {{1, 1}, {3, 1}, {7, 17}, {16, 2}, {31, 5}, {32, 90}};
    int32_t ids[CHUNK];
    struct forcing s = open_setup(path, ref);
    size_t bytes = (size_t)n * (size_t)s.m->desc.n_vocab * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes);
    ASSERT(want && got && n <= CHUNK);
    for (int i = 0; i < n; i++) ids[i] = (i * 7919 + 11) % s.m->desc.n_vocab;
    forcing_run(&s, ids, n, CHUNK, forcing_keep, want);
    for (size_t i = 0; i < 2 * (sizeof cuts / sizeof *cuts); i++) {
        int a = cuts[i / 2][0], b = cuts[i / 2][1], some = i % 2;
        if (!some) memset(got, 0, bytes); /* else what is not asked for stays from before */
        forcing_beside(&s, ids, n, a, b, some, got);
        if (memcmp(want, got, bytes)) qn_test_fail(__FILE__, __LINE__, "%s, %s: %d rows beside %d differ (%s wanted)", path, s.b->ops->name, a, b, some ? "some" : "all");
    }
    free(want);
    free(got);
    forcing_close(&s);
}

TEST(logits, bits_do_not_depend_on_cuts_and_neighbours_in_any_family) {
    for (int i = 0; i < 7; i++)
        for (int ref = 0; ref < 2; ref++) {
            char path[128];
            snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", families[i]);
            cuts_keep_bits(path, ref, 100);
        }
}

TEST_SLOW(logits, bits_do_not_depend_on_cuts_and_neighbours_in_a_real_model, 240) {
    const char *path = client_model("smollm2-135m-instruct-q4_1");
    ASSERT(path != NULL);
    cuts_keep_bits(path, 0, under_sanitizer() ? 40 : 100);
}
