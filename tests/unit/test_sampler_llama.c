/* sampler: the samplers that llama.cpp has and vLLM has not, against llama.cpp's own (tests/vectors/sampler/llama.txt), and what a
 * pick with state or with another lane of the generator promises. */
#include "engine/breakers.h"
#include "engine/sampler.h"
#include "tests/run.h"

#include <stdint.h>

static const struct qn_sampling PLAIN = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

static uint32_t hash32(uint32_t h) {
    h = (h ^ (h >> 16)) * 0x7FEB352Du;
    h = (h ^ (h >> 15)) * 0x846CA68Bu;
    return h ^ (h >> 16);
}

/* The same row as make_llama.cpp's. */
static void row(float *x, uint32_t n, uint32_t seed) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t h = hash32(i * 0x9E3779B1u + seed * 0x85EBCA77u);
        x[i] = (float)((double)(h & 0xFFFFFF) * 0x1p-21 - 4 + (h >> 24 == 7 ? 3 : 0));
    }
}

/* Texts of which the lists of make_llama.cpp are the breakers: "\n" in one token, "||" across two. */
static const char *piece(const void *of, uint32_t id, size_t *n) {
    static const char *const text[] = {"word", "a\nb", "x|", "|y", "x|\n", "|\ny"};
    int k = id % 13 == 5 ? 2 : id % 13 == 6 ? 3 : 0;
    if (*(const int *)of & 1 && id % 11 == 3) k = k ? k + 2 : 1;
    *n = strlen(text[k]);
    return text[k];
}

struct want { /* one case */
    unsigned n, seed, kept;
    int breakers, hist, mod, xtc_always;
    struct qn_sampling p;
};

static int read_head(const char *line, struct want *w) {
    w->p = PLAIN;
    struct qn_sampling *p = &w->p;
    float xtc;
    int ok = sscanf(line, "case n=%u seed=%u kept=%u temp=%f sigma=%f min_p=%f typ=%f top_p=%f xtc=%f dyna=%f exponent=%f mult=%f base=%f tau=%f rep=%f freq=%f "
                          "pres=%f top_k=%d keep=%d mirostat=%d allowed=%d last_n=%d breakers=%d hist=%d mod=%d pen_n=%d",
                    &w->n, &w->seed, &w->kept, &p->temperature, &p->top_n_sigma, &p->min_p, &p->typical_p, &p->top_p, &xtc, &p->dynatemp_range,
                    &p->dynatemp_exponent, &p->dry_multiplier, &p->dry_base, &p->mirostat_tau, &p->repetition_penalty, &p->frequency_penalty,
                    &p->presence_penalty, &p->top_k, &p->min_keep, &p->mirostat, &p->dry_allowed_length, &p->dry_window, &w->breakers, &w->hist, &w->mod,
                    &p->penalty_window);
    p->xtc_threshold = xtc;
    p->xtc_probability = xtc > 0;
    p->mirostat_eta = 0.1f;
    return ok == 26;
}

static void one_case(FILE *f, const struct want *w) {
    struct qn_sampler *s;
    uint32_t *ids = malloc(w->n * sizeof *ids);
    double *probs = malloc(w->n * sizeof *probs);
    float *x = malloc(w->n * sizeof *x), mu = 2 * w->p.mirostat_tau;
    int32_t tokens[512];
    char line[64];
    ASSERT(ids && probs && x && w->hist <= 512 && qn_sampler_open(&s, w->n) == 0);
    ASSERT_EQ(qn_sampler_reserve(s, 512), 0);
    struct qn_err err = {0};
    ASSERT_EQ(qn_sampling_check(&w->p, w->n, &err), 0);
    for (int k = 0; k < w->hist; k++) tokens[k] = (int32_t)((k * k * 31 + (int)w->seed * 7 + (k % 5) * 3) % w->mod);
    struct qn_history h = {tokens, 0, (size_t)w->hist, &mu}; /* n_prompt 0: llama.cpp counts frequencies in the prompt too */
    struct qn_breakers b = {.n = w->breakers == 3 ? 2 : w->breakers != 0, .text = {w->breakers & 1 ? "\n" : "||", "||"}, .bytes = {w->breakers & 1 ? 1 : 2, 2}, .piece = piece, .of = &w->breakers};
    struct qn_sampling p = w->p;
    if (b.n) p.dry_breakers = &b;
    row(x, w->n, w->seed);
    uint32_t kept = qn_sampler_dist(s, &p, x, &h, 0, 0, NULL, 0, NULL, ids, probs);
    if (kept != w->kept) qn_test_fail(__FILE__, __LINE__, "case %u keeps %u, llama.cpp %u", w->seed, kept, w->kept);
    for (uint32_t i = 0; i < w->kept; i++) {
        unsigned id;
        double v;
        ASSERT(fgets(line, sizeof line, f) && sscanf(line, "%u %lf", &id, &v) == 2);
        if (i >= kept) continue;
        if (ids[i] != id) qn_test_fail(__FILE__, __LINE__, "case %u keeps %u where llama.cpp keeps %u", w->seed, ids[i], id);
        else if (!(fabs(probs[i] - v) <= 3e-5 * v + 1e-9)) qn_test_fail(__FILE__, __LINE__, "case %u: p(%u) = %g, llama.cpp %g", w->seed, id, probs[i], v);
    }
    qn_sampler_close(s);
    free(ids);
    free(probs);
    free(x);
}

TEST(sampler_llama, keeps_what_llama_cpp_keeps) {
    FILE *f = fopen("tests/vectors/sampler/llama.txt", "r");
    char line[512];
    struct want w;
    int n = 0;
    ASSERT(f);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, "case", 4)) {
            ASSERT(read_head(line, &w));
            one_case(f, &w), n++;
        }
    EXPECT_EQ(n, 39);
    fclose(f);
}

/* ---- what no other program can tell ---- */

enum { N = 300 };

struct kit {
    struct qn_sampler *s;
    float x[N];
};

static void open_kit(struct kit *k, uint32_t seed) {
    ASSERT_EQ(qn_sampler_open(&k->s, N), 0);
    row(k->x, N, seed);
}

static int32_t pick(struct kit *k, const struct qn_sampling *p, const struct qn_history *h, uint32_t branch, uint32_t position) {
    float x[N];
    memcpy(x, k->x, sizeof x);
    return qn_sampler_pick(k->s, p, x, h, branch, position, NULL, 0, NULL, 0, NULL);
}

TEST(sampler_llama, xtc_leaves_out_the_best_as_often_as_asked) {
    struct kit k;
    struct qn_sampling p = PLAIN;
    open_kit(&k, 9);
    p.xtc_probability = 0.3f, p.xtc_threshold = 0.02f, p.temperature = 0.3f, p.seed = 5;
    int32_t best = pick(&k, &(struct qn_sampling){.top_p = 1, .repetition_penalty = 1}, NULL, 0, 0);
    uint32_t ids[N];
    double probs[N], with = 0;
    float x[N];
    memcpy(x, k.x, sizeof x);
    struct qn_sampling off = p;
    off.xtc_probability = 0;
    uint32_t n = qn_sampler_dist(k.s, &off, x, NULL, 0, 0, NULL, 0, NULL, ids, probs);
    for (uint32_t i = 0; i < n; i++)
        if ((int32_t)ids[i] == best) with = probs[i];
    ASSERT(with > 0.02);
    int seen = 0, draws = 40000;
    for (int i = 0; i < draws; i++) seen += pick(&k, &p, NULL, 0, (uint32_t)i) == best;
    double want = with * 0.7, sd = sqrt(want * (1 - want) / draws);
    EXPECT_NEAR((double)seen / draws, want, 5 * sd);
    qn_sampler_close(k.s);
}

/* mu is what the picks before taught, by the formula of the paper: surprise of the drawn token in what it was drawn from. */
TEST(sampler_llama, mirostat_learns_from_each_pick) {
    for (int version = 1; version <= 2; version++) {
        struct kit k;
        struct qn_sampling p = PLAIN;
        open_kit(&k, 22);
        p.mirostat = version, p.mirostat_tau = 2, p.mirostat_eta = 0.2f, p.seed = 11;
        float mu = 4, again = 4;
        int32_t tokens[1] = {0};
        struct qn_history h = {tokens, 1, 1, &mu};
        double sum = 0;
        for (uint32_t i = 0; i < 400; i++) {
            uint32_t ids[N];
            double probs[N], share = 0;
            float x[N], before = mu;
            memcpy(x, k.x, sizeof x);
            uint32_t n = qn_sampler_dist(k.s, &p, x, &h, 0, i, NULL, 0, NULL, ids, probs);
            int32_t id = pick(&k, &p, &h, 0, i);
            for (uint32_t j = 0; j < n; j++)
                if ((int32_t)ids[j] == id) share = probs[j];
            ASSERT(share > 0);
            EXPECT_NEAR(mu, before - 0.2f * (float)(-log2(share) - 2), 1e-5);
            if (i >= 100) sum += -log2(share);
        }
        /* The surprise settles at tau: the sum telescopes into a difference of mu, which is bounded. */
        EXPECT_NEAR(sum / 300, 2, 0.25);
        h.mu = &again;
        for (uint32_t i = 0; i < 400; i++) pick(&k, &p, &h, 0, i);
        EXPECT(mu == again);
        qn_sampler_close(k.s);
    }
}

TEST(sampler_llama, bad_words_and_allowed_ids) {
    struct kit k;
    struct qn_sampling p = {.top_p = 1, .repetition_penalty = 1};
    open_kit(&k, 3);
    uint32_t bad[] = {1, 0, 3, 7, 8, 0}, allowed[(N + 31) / 32] = {0};
    int32_t best = pick(&k, &p, NULL, 0, 0), tokens[] = {7, 8, 7, 8};
    bad[1] = (uint32_t)best;
    p.bad = bad, p.n_bad = 2;
    struct qn_history h = {.tokens = tokens, .n_prompt = 2, .n = 4};
    EXPECT(pick(&k, &p, &h, 0, 4) != best);
    bad[5] = (uint32_t)best, p.bad = bad + 2, p.n_bad = 4;
    EXPECT(pick(&k, &p, &h, 0, 4) != best); /* 7 8 came */
    h.n = 3;
    EXPECT_EQ(pick(&k, &p, &h, 0, 3), best); /* only 7 */
    h.n_prompt = 4, h.n = 4;
    EXPECT_EQ(pick(&k, &p, &h, 0, 4), best); /* in the prompt: not the output's */
    struct qn_err err = {0};
    bad[2] = 9;
    EXPECT_EQ(qn_sampling_check(&p, N, &err), QN_E_RANGE);
    p.n_bad = 0;
    allowed[1] = 1u << 5 | 1u << 6;
    p.allowed = allowed;
    int32_t id = pick(&k, &p, &h, 0, 4);
    EXPECT(id == 37 || id == 38);
    EXPECT_EQ(id, k.x[37] >= k.x[38] ? 37 : 38);
    qn_sampler_close(k.s);
}

TEST(sampler_llama, a_breaker_counts_however_it_is_cut) {
    int both = 3;
    struct qn_breakers b = {.n = 2, .text = {"\n", "||"}, .bytes = {1, 2}, .piece = piece, .of = &both};
    const int32_t t[] = {0, 3, 1, 2, 5, 6, 1, 1}, u[] = {0, 1, 2}, v[] = {5, 1, 6};
    EXPECT_EQ(qn_breakers_since(&b, t, 8), 2);
    EXPECT_EQ(qn_breakers_since(&b, t, 5), 3);
    EXPECT_EQ(qn_breakers_since(&b, t, 2), 0);
    EXPECT_EQ(qn_breakers_since(&b, u, 3), 3);
    EXPECT_EQ(qn_breakers_since(&b, v, 3), 3);
    EXPECT_EQ(qn_breakers_in(&b, 3), 1);
    EXPECT_EQ(qn_breakers_in(&b, 5), 0);
}
