/* sampler: what is kept against transformers (tests/vectors/sampler), what is drawn against its own distribution. */
#include "engine/sampler.h"
#include "engine/sampler_cut.h"
#include "engine/sampler_vec.h"
#include "tests/run.h"

#include <float.h>
#include <stdint.h>

static uint32_t hash32(uint32_t h) {
    h = (h ^ (h >> 16)) * 0x7FEB352Du;
    h = (h ^ (h >> 15)) * 0x846CA68Bu;
    return h ^ (h >> 16);
}

/* The same row as make.py's. */
static void row(float *x, uint32_t n, uint32_t seed) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t h = hash32(i * 0x9E3779B1u + seed * 0x85EBCA77u);
        x[i] = (float)((double)(h & 0xFFFFFF) * 0x1p-21 - 4 + (h >> 24 == 7 ? 3 : 0));
    }
}

static const struct qn_sampling PLAIN = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

struct bench { /* everything a test needs for n ids */
    struct qn_sampler *s;
    float *x;
    uint32_t *ids, n;
    double *probs;
};

static struct bench set_up(uint32_t n) {
    struct bench b = {.n = n, .x = malloc(n * sizeof *b.x), .ids = malloc(n * sizeof *b.ids), .probs = malloc(n * sizeof *b.probs)};
    ASSERT(b.x && b.ids && b.probs);
    ASSERT_EQ(qn_sampler_open(&b.s, n), 0);
    return b;
}

static void tear_down(struct bench *b) {
    qn_sampler_close(b->s);
    free(b->x);
    free(b->ids);
    free(b->probs);
}

static int32_t pick(struct bench *b, const struct qn_sampling *p, uint32_t branch, uint32_t position) {
    return qn_sampler_pick(b->s, p, b->x, NULL, branch, position, NULL, 0, NULL, 0, NULL);
}

/* ---- against transformers ---- */

static void one_case(FILE *f, const char *head) {
    struct qn_sampling p = PLAIN;
    unsigned n, seed, n_history, n_prompt, n_kept, n_bias, n_ban;
    int top_k;
    ASSERT_EQ(sscanf(head, "case %u %u %f %f %f %d %f %f %f %u %u %u %u %u", &n, &seed, &p.temperature, &p.top_p, &p.min_p, &top_k,
                     &p.repetition_penalty, &p.frequency_penalty, &p.presence_penalty, &n_prompt, &n_history, &n_bias, &n_ban, &n_kept), 14);
    struct bench b = set_up(n);
    struct qn_bias bias[16];
    uint32_t ban[16];
    int32_t *tokens = calloc(n_history + 1, sizeof *tokens);
    ASSERT(tokens && n_bias <= 16 && n_ban <= 16);
    p.top_k = top_k;
    p.bias = bias;
    for (unsigned k = 0; k < n_history; k++) tokens[k] = (int32_t)((k * k * 31 + seed * 7 + (k % 5) * 3) % n);
    struct qn_history h = {.tokens = tokens, .n_prompt = n_prompt, .n = n_history};
    char line[256];
    uint32_t kept = 0, n_bans = 0, at = 0;
    int done = 0;
    while (!done && fgets(line, sizeof line, f)) {
        unsigned id, k;
        double v;
        float add;
        if (sscanf(line, "bias %u %f", &id, &add) == 2) bias[p.n_bias++] = (struct qn_bias){id, add};
        else if (sscanf(line, "ban %u", &id) == 1) ban[n_bans++] = id;
        else if (sscanf(line, "kept %u %lf", &id, &v) == 2) {
            if (kept == 0) {
                row(b.x, n, seed);
                kept = qn_sampler_dist(b.s, &p, b.x, &h, 0, 0, ban, n_bans, NULL, b.ids, b.probs);
                if (kept != n_kept) qn_test_fail(__FILE__, __LINE__, "case %u keeps %u, transformers %u", seed, kept, n_kept);
            }
            while (at < kept && b.ids[at] < id) at++;
            if (at == kept || b.ids[at] != id) qn_test_fail(__FILE__, __LINE__, "case %u does not keep %u", seed, id);
            else if (!(fabs(b.probs[at] - v) <= 2e-5 * v + 1e-9)) qn_test_fail(__FILE__, __LINE__, "case %u: p(%u) = %g, transformers %g", seed, id, b.probs[at], v);
        } else if (sscanf(line, "rank %u %u %lf", &k, &id, &v) == 3) {
            struct qn_logprobs lp;
            row(b.x, n, seed);
            qn_sampler_score(b.s, b.x, id, 20, &lp);
            EXPECT_EQ(lp.rank, k);
            EXPECT_NEAR(lp.logprob, v, 4e-6);
            EXPECT_EQ(lp.n_top, n < 20 ? n : 20);
            if (k < lp.n_top) {
                EXPECT_EQ(lp.top[k].id, id);
                EXPECT(lp.top[k].logprob == lp.logprob);
            }
        } else if (!strncmp(line, "end", 3)) {
            done = 1;
        } else {
            ASSERT(!"a line that is not understood");
        }
    }
    ASSERT(done && kept);
    free(tokens);
    tear_down(&b);
}

TEST(sampler, keeps_what_transformers_keeps) {
    FILE *f = fopen("tests/vectors/sampler/cases.txt", "r");
    char line[256];
    int n = 0;
    ASSERT(f);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, "case", 4)) one_case(f, line), n++;
    EXPECT_EQ(n, 26);
    fclose(f);
}

/* ---- draws ---- */

/* Pearson's statistic over ids whose expectation is at least 5 (the rest pooled); bound: mean + 5 standard deviations. */
static void chi_square(struct bench *b, const struct qn_sampling *p, int draws, const char *what) {
    uint32_t *seen = calloc(b->n, sizeof *seen);
    float *keep = malloc(b->n * sizeof *keep);
    ASSERT(seen && keep);
    memcpy(keep, b->x, b->n * sizeof *keep);
    uint32_t m = qn_sampler_dist(b->s, p, b->x, NULL, 0, 0, NULL, 0, NULL, b->ids, b->probs);
    memcpy(b->x, keep, b->n * sizeof *keep);
    for (int i = 0; i < draws; i++) {
        int32_t id = pick(b, p, (uint32_t)i % 7, (uint32_t)i / 7);
        ASSERT(id >= 0 && (uint32_t)id < b->n);
        seen[id]++;
    }
    double stat = 0, rest = 0, rest_seen = draws;
    int cells = 0;
    for (uint32_t i = 0; i < m; i++) {
        double want = b->probs[i] * draws, got = seen[b->ids[i]];
        if (want < 5) {
            rest += want;
            continue;
        }
        rest_seen -= got;
        stat += (got - want) * (got - want) / want;
        cells++;
    }
    if (rest >= 5) {
        stat += (rest_seen - rest) * (rest_seen - rest) / rest;
        cells++;
    } else if (rest == 0 && rest_seen != 0) {
        qn_test_fail(__FILE__, __LINE__, "%s: %g draws of ids that are not kept", what, rest_seen);
    }
    double df = cells - 1;
    if (stat > df + 5 * sqrt(2 * df) + 1) qn_test_fail(__FILE__, __LINE__, "%s: chi-square %g for %d cells", what, stat, cells);
    free(seen);
    free(keep);
}

TEST_SLOW(sampler, draws_follow_the_distribution, 60) {
    struct qn_sampling p = PLAIN;
    struct bench b = set_up(500);
    row(b.x, b.n, 3);
    p.seed = 0x1234567890ULL;
    chi_square(&b, &p, 200000, "temperature 1");
    p.temperature = 0.6f;
    p.top_p = 0.9f;
    chi_square(&b, &p, 200000, "top_p");
    p.top_k = 25;
    chi_square(&b, &p, 200000, "top_k and top_p");
    p.top_k = 0, p.top_p = 1, p.min_p = 0.05f;
    chi_square(&b, &p, 200000, "min_p");
    tear_down(&b);
    b = set_up(5000); /* more than one chunk: the draw goes by chunk first */
    row(b.x, b.n, 4);
    p = PLAIN;
    p.seed = 99;
    chi_square(&b, &p, 200000, "temperature 1, five chunks");
    tear_down(&b);
}

TEST(sampler, a_token_is_a_function_of_seed_branch_and_position) {
    struct bench a = set_up(3000), b = set_up(3000);
    struct qn_sampling p = PLAIN;
    int moved[3] = {0};
    row(a.x, a.n, 5);
    row(b.x, b.n, 5);
    p.top_p = 0.95f;
    for (uint32_t i = 0; i < 300; i++) {
        p.seed = i;
        int32_t id = pick(&a, &p, 2, 100);
        pick(&b, &PLAIN, i, i); /* what else the scratch did before */
        EXPECT_EQ(pick(&b, &p, 2, 100), id);
        moved[0] += pick(&a, &p, 3, 100) != id;
        moved[1] += pick(&a, &p, 2, 101) != id;
        p.seed += 1ULL << 40;
        moved[2] += pick(&a, &p, 2, 100) != id;
    }
    for (int k = 0; k < 3; k++) EXPECT(moved[k] > 250);
    tear_down(&a);
    tear_down(&b);
}

/* ---- the rules of sampler.h ---- */

TEST(sampler, greedy_takes_the_lowest_id_of_the_greatest) {
    struct bench b = set_up(1500);
    struct qn_sampling p = PLAIN;
    p.temperature = 0;
    for (uint32_t at = 0; at < b.n; at++) {
        for (uint32_t i = 0; i < b.n; i++) b.x[i] = i % 3 ? -1 : NAN;
        b.x[at] = b.x[b.n - 1] = 2;
        ASSERT_EQ(pick(&b, &p, 0, at), at);
    }
    tear_down(&b);
}

TEST(sampler, hostile_logits_end_in_a_value) {
    struct bench b = set_up(2049);
    struct qn_sampling all[4] = {PLAIN, PLAIN, PLAIN, PLAIN};
    all[0].temperature = 0;
    all[2].top_p = 0.9f;
    all[3].top_k = 7, all[3].min_p = 0.1f;
    for (int k = 0; k < 4; k++) {
        struct qn_logprobs lp;
        for (uint32_t i = 0; i < b.n; i++) b.x[i] = i % 2 ? NAN : -INFINITY;
        EXPECT_EQ(qn_sampler_pick(b.s, &all[k], b.x, NULL, 0, 0, NULL, 0, NULL, 5, &lp), -1);
        b.x[777] = -FLT_MAX; /* the only one that can be chosen */
        EXPECT_EQ(qn_sampler_pick(b.s, &all[k], b.x, NULL, 0, 0, NULL, 0, NULL, 5, &lp), 777);
        EXPECT(lp.logprob == 0 && lp.rank == 0 && lp.n_top == 1 && lp.top[0].id == 777);
        b.x[1000] = INFINITY;
        EXPECT_EQ(qn_sampler_pick(b.s, &all[k], b.x, NULL, 0, 0, NULL, 0, NULL, 5, &lp), 1000);
        EXPECT(lp.logprob == 0 && lp.n_top == 2 && lp.top[1].logprob == -9999);
        b.x[1001] = INFINITY; /* two of them: either */
        int seen[2] = {0};
        for (uint32_t i = 0; i < 40; i++) {
            int32_t id = pick(&b, &all[k], 0, i);
            ASSERT(id == 1000 || id == 1001);
            seen[id - 1000]++;
        }
        EXPECT(k == 0 ? seen[1] == 0 : seen[0] && seen[1]);
        for (uint32_t i = 0; i < b.n; i++) b.x[i] = 3; /* all alike */
        int32_t id = pick(&b, &all[k], 0, 1);
        EXPECT(id >= 0 && (k == 0 ? id == 0 : k == 3 ? id < 7 : 1));
        qn_sampler_score(b.s, b.x, 5, 20, &lp);
        EXPECT(lp.rank == 5 && lp.n_top == 20 && lp.top[19].id == 19);
        EXPECT_NEAR(lp.logprob, -log(2049), 1e-5);
    }
    tear_down(&b);
}

TEST(sampler, a_mask_or_a_ban_always_holds) {
    struct bench b = set_up(1000);
    struct qn_sampling p = PLAIN;
    uint32_t mask[32] = {0}, ban[] = {64, 65, 999};
    struct qn_bias bias[] = {{70, 100}, {71, -100}, {66, 100}};
    p.bias = bias;
    p.n_bias = 3;
    for (uint32_t i = 64; i < 72; i++) mask[i / 32] |= 1u << (i % 32);
    for (int greedy = 0; greedy < 2; greedy++) {
        p.temperature = greedy ? 0 : 1;
        int seen[8] = {0};
        for (uint32_t i = 0; i < 400; i++) {
            struct qn_logprobs lp, raw;
            row(b.x, b.n, i);
            qn_sampler_score(b.s, b.x, 70, 3, &raw);
            int32_t id = qn_sampler_pick(b.s, &p, b.x, NULL, 0, i, ban, 3, mask, 3, &lp);
            ASSERT(id >= 66 && id < 72 && id != 71);
            EXPECT_MEM(lp.top, sizeof lp.top[0] * 3, raw.top, sizeof lp.top[0] * 3); /* those of the model, not of the edits */
            qn_sampler_score(b.s, b.x, (uint32_t)id, 0, &raw);
            EXPECT(lp.logprob == raw.logprob && lp.rank == raw.rank);
            seen[id - 64]++;
        }
        EXPECT(seen[6] + seen[2] == 400 && seen[6] && seen[2]);
    }
    row(b.x, b.n, 1);
    memset(mask, 0, sizeof mask);
    EXPECT_EQ(qn_sampler_pick(b.s, &p, b.x, NULL, 0, 0, NULL, 0, mask, 0, NULL), -1);
    tear_down(&b);
}

TEST(sampler, penalties_count_what_they_say) {
    struct bench b = set_up(100);
    int32_t tokens[] = {1, 1, 2, 3, 4, 4, 4, 5, -1, 100, 1 << 30}; /* prompt: the first three; ids outside are ignored */
    struct qn_history h = {.tokens = tokens, .n_prompt = 3, .n = 11};
    struct qn_sampling p = PLAIN;
    p.repetition_penalty = 2;
    p.frequency_penalty = 0.5f;
    p.presence_penalty = 0.25f;
    for (int round = 0; round < 2; round++) { /* the counts are gone after a call */
        for (int i = 0; i < 100; i++) b.x[i] = i == 2 || i == 5 ? -4 : 4;
        ASSERT_EQ(qn_sampler_dist(b.s, &p, b.x, &h, 0, 0, NULL, 0, NULL, b.ids, b.probs), 100);
        float want[] = {4, 2, -8, 2 - 0.75f, 2 - 1.75f, -8 - 0.75f, 4};
        for (int i = 0; i < 7; i++) EXPECT(b.x[i] == want[i]);
    }
    tear_down(&b);
}

TEST(sampler, check_names_the_field) {
    static const struct qn_bias bad_id[] = {{1, 0}, {10, 1}}, bad_add[] = {{1, 101}}, nan_add[] = {{1, NAN}}, ok[] = {{9, -100}, {0, 100}};
    struct qn_sampling p[] = {
        {.temperature = 2.01f, .top_p = 1, .repetition_penalty = 1}, {.temperature = NAN, .top_p = 1, .repetition_penalty = 1},
        {.top_p = 0, .repetition_penalty = 1}, {.top_p = 1, .min_p = -0.1f, .repetition_penalty = 1}, {.top_p = 1, .repetition_penalty = 0},
        {.top_p = 1, .repetition_penalty = 1, .frequency_penalty = 2.5f}, {.top_p = 1, .repetition_penalty = 1, .presence_penalty = -2.5f},
        {.top_p = 1, .repetition_penalty = 1, .top_k = -2}, {.top_p = 1, .repetition_penalty = 1, .bias = bad_id, .n_bias = 2},
        {.top_p = 1, .repetition_penalty = 1, .bias = bad_add, .n_bias = 1}, {.top_p = 1, .repetition_penalty = 1, .bias = nan_add, .n_bias = 1},
        {.top_p = 1, .repetition_penalty = 1, .bias = ok, .n_bias = QN_BIAS_MAX + 1},
    };
    static const char *const name[] = {"temperature", "temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty",
        "presence_penalty", "top_k", "token 10", "token 1", "token 1", "logit_bias"};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++) {
        struct qn_err err = {0};
        EXPECT_EQ(qn_sampling_check(&p[i], 10, &err), QN_E_RANGE);
        if (!strstr(err.text, name[i])) qn_test_fail(__FILE__, __LINE__, "'%s' does not name %s", err.text, name[i]);
    }
    struct qn_sampling edge = {.temperature = 2, .top_p = 1, .min_p = 1, .top_k = -1, .repetition_penalty = 2, .frequency_penalty = -2,
        .presence_penalty = 2, .bias = ok, .n_bias = 2};
    EXPECT_EQ(qn_sampling_check(&edge, 10, NULL), 0);
    EXPECT_EQ(qn_sampling_check(&PLAIN, 10, NULL), 0);
}

/* ---- the parts ---- */

TEST(sampler, exp_and_log_are_as_exact_as_they_say) {
    const struct qn_vec_ops *v = qn_vec_ops("generic");
    double worst = 0;
    for (int i = 0; i < 2000000; i += 16) {
        float t[16], e[16];
        for (int k = 0; k < 16; k++) t[k] = -85.99f * (float)(i + k) / 2000000.0f;
        v->exp(t, 16, 0, 1, e);
        for (int k = 0; k < 16; k++) {
            double want = exp((double)t[k]), ulp = ldexp(1, ilogb(want) - 23);
            double off = fabs((double)e[k] - want) / ulp;
            worst = off > worst ? off : worst;
        }
    }
    EXPECT(worst < 2);
    float t[3] = {0, -86.5f, -INFINITY}, e[3];
    v->exp(t, 3, 0, 1, e);
    EXPECT(e[0] == 1 && e[1] == 0 && e[2] == 0);
    for (double x = 1e-300; x < 1e300; x *= 1.37) EXPECT_NEAR(qn_vec_log(x), log(x), 1e-14 * (1 + fabs(log(x))));
}

/* One binary, any machine: the same bits. Sizes around every group, chunk and lane border. */
TEST(sampler, every_instruction_set_computes_the_same_bits) {
    static const char *const isa[] = {"avx2", "avx512"};
    const struct qn_vec_ops *ref = qn_vec_ops("generic");
    enum { N = 5000 };
    static float x[N], g[2][QN_VEC_GROUPS(N)], e[2][N];
    static double c[2][QN_VEC_CHUNKS(N)], above[2][QN_VEC_BANDS];
    int tried = 0;
    for (int k = 0; k < 2; k++) {
        const struct qn_vec_ops *v = qn_vec_ops(isa[k]);
        if (!v) continue;
        tried++;
        EXPECT_STR(v->name, isa[k]);
        for (uint32_t n = 1; n < N; n += n < 2200 ? 1 : 13) {
            row(x, n, n);
            if (n % 5 == 0) x[n / 2] = NAN, x[n / 3] = INFINITY, x[n / 4] = -INFINITY;
            float max = ref->max(x, n, g[0]);
            ASSERT(v->max(x, n, g[1]) == max && !memcmp(g[0], g[1], QN_VEC_GROUPS(n) * sizeof **g));
            ref->exp(x, n, max, 1.25f, e[0]);
            v->exp(x, n, max, 1.25f, e[1]);
            ASSERT(!memcmp(e[0], e[1], n * sizeof **e));
            ASSERT(ref->sum_exp(x, n, max, 0.7f, c[0]) == v->sum_exp(x, n, max, 0.7f, c[1]));
            ASSERT(!memcmp(c[0], c[1], QN_VEC_CHUNKS(n) * sizeof **c));
            ASSERT(ref->bands(x, n, max, 0.7f, above[0]) == v->bands(x, n, max, 0.7f, above[1]));
            ASSERT(!memcmp(above[0], above[1], sizeof above[0]));
            uint32_t before = 0, id = n * 7 / 11;
            for (uint32_t i = 0; i < n; i++) before += x[i] > x[id] || (x[i] == x[id] && i < id);
            ASSERT(ref->rank(x, n, x[id], id) == before && v->rank(x, n, x[id], id) == before);
        }
    }
    if (!tried) SKIP("this machine has neither AVX2 nor AVX-512");
}

/* The cut against a full sort, with ties and clusters. */
static const float *sort_by;
static int descending(const void *a, const void *b) {
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    if (sort_by[i] != sort_by[k]) return sort_by[i] < sort_by[k] ? 1 : -1;
    return i < k ? -1 : 1;
}

TEST(sampler, cut_agrees_with_a_full_sort) {
    enum { N = 3000 };
    static float x[N], w[N];
    static uint32_t order[N], list[N];
    for (uint32_t t = 0; t < 3000; t++) {
        uint32_t n = 1 + hash32(t) % (t % 3 ? 200 : N), kind = t % 5;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t h = hash32(t * 65537 + i);
            x[i] = kind == 0 ? (float)(h % 7) : kind == 1 ? ldexpf(1, (int)(h % 200) - 100) : (float)h * 0x1p-20f;
            if (kind == 4 && i % 50 == 0) x[i] = FLT_MAX;
            w[i] = (float)(1 + h % 64) / 64; /* sums are exact */
            order[i] = list[i] = i;
        }
        double total = 0, sum = 0, target;
        for (uint32_t i = 0; i < n; i++) total += (double)w[i];
        int counts = t % 2;
        target = counts ? (double)(hash32(t + 9) % (n + 2)) : total * (hash32(t + 9) % 101) / 100.0;
        if (t % 17 == 0) target = total * 2 + n;
        sort_by = x;
        qsort(order, n, sizeof *order, descending);
        uint32_t k = 0;
        for (; k < n; k++)
            if ((sum += counts ? 1 : (double)w[order[k]]) >= target) break;
        if (k == n) k = n - 1;
        struct qn_cut c = qn_sampler_cut(x, counts ? NULL : w, list, n, target);
        ASSERT(c.at == order[k] && c.x == x[order[k]]);
    }
}
