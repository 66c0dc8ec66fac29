/* Picks at random, as the sampler of the CPU and as the card wants them, and what the two made of them. */
#ifndef QN_TESTS_CUDA_SAMPLE_KIT_H
#define QN_TESTS_CUDA_SAMPLE_KIT_H

#include <float.h>

#include "engine/cuda/sample.h"
#include "engine/sampler.h"
#include "tests/cuda/rows_kit.h"

enum { SK_LISTS = 40, SK_HISTORY = 120 };

/* One pick with all it names. */
struct sk_pick {
    struct qn_sampling p;
    struct qn_bias bias[SK_LISTS];
    uint32_t ban[SK_LISTS], n_ban, branch, position;
    int32_t history[SK_HISTORY];
    size_t n_prompt, n_history;
    int row, n_top, has_mask, has_history;
    uint32_t *mask;
};

/* A launch: many picks over a few rows. */
struct sk_batch {
    int n, n_vocab, n_rows, stride;
    struct sk_pick *picks;
    float *logits;          /* [n_rows][stride] */
    struct qn_cuda_picked *out;
    int32_t *feed;
    uint32_t *counts;       /* after the picks */
};

enum { SK_PEAKED, SK_FLAT, SK_STEPS, SK_EQUAL, SK_HOSTILE, SK_ALL_NAN, SK_WIDE, SK_DENORMAL, SK_ZEROS, SK_KINDS };

static inline float sk_gauss(struct kit_rng *g) {
    float s = 0;
    for (int i = 0; i < 6; i++) s += kit_f(g);
    return s;
}

static inline float sk_logit(struct kit_rng *g, int kind) {
    uint32_t u = kit_u32(g);
    switch (kind) {
    case SK_FLAT: return sk_gauss(g) * 0.3f;
    case SK_STEPS: return (float)((int)(u % 9) - 4) * (u >> 16 & 1 ? 0.5f : -0.5f); /* many ties */
    case SK_EQUAL: return 1.25f;
    case SK_HOSTILE: return u % 7 == 0 ? NAN : u % 7 == 1 ? -INFINITY : u % 401 == 2 ? INFINITY : u % 7 == 3 ? FLT_MAX : sk_gauss(g) * 1e30f;
    case SK_ALL_NAN: return u % 2 ? NAN : -INFINITY;
    case SK_WIDE: return sk_gauss(g) * 40.0f;
    case SK_ZEROS: return u & 1 ? 0.0f : -0.0f; /* of both signs: equal */
    case SK_DENORMAL: return kit_f(g) * 1e-41f;
    default: return sk_gauss(g) * 3.0f + (u % 300 == 0 ? 8.0f : 0.0f);
    }
}

static inline float sk_one_of(struct kit_rng *g, const float *v, int n) { return v[kit_u32(g) % (uint32_t)n]; }

static inline void sk_random_pick(struct kit_rng *g, struct sk_pick *k, int n_vocab, int n_rows) {
    static const float t[] = {0, 1e-6f, 0.1f, 0.6f, 0.8f, 1, 1, 1.3f, 2}, top_p[] = {1, 1, 0.95f, 0.9f, 0.5f, 0.1f, 0.01f, 0.999f, 0.9999999f};
    static const float min_p[] = {0, 0, 0, 0.02f, 0.1f, 0.5f, 1};
    static const int top_k[] = {0, -1, 0, 0, 1, 2, 7, 20, 40, 100, 1000};
    static const float rep[] = {1, 1.1f, 0.8f, 1.7f}, pen[] = {0, 0.5f, -0.7f, 1.5f};
    uint32_t n = (uint32_t)n_vocab;
    memset(k, 0, sizeof *k);
    k->p.repetition_penalty = 1, k->n_top = -1, k->row = (int)(kit_u32(g) % (uint32_t)n_rows);
    k->p.temperature = sk_one_of(g, t, 9), k->p.top_p = sk_one_of(g, top_p, 9), k->p.min_p = sk_one_of(g, min_p, 7);
    k->p.top_k = top_k[kit_u32(g) % 11];
    k->p.seed = (uint64_t)kit_u32(g) << 32 | kit_u32(g), k->branch = kit_u32(g) % 3, k->position = kit_u32(g) % 5000;
    if (kit_u32(g) % 3 == 0) k->n_top = (int)(kit_u32(g) % 21);
    if (kit_u32(g) % 4 == 0) k->p.n_bias = kit_u32(g) % SK_LISTS;
    for (uint32_t i = 0; i < k->p.n_bias; i++) /* few ids, so that some come twice; some ban */
        k->bias[i] = (struct qn_bias){kit_u32(g) % (kit_u32(g) % 2 ? n : n < 20 ? n : 20), kit_u32(g) % 5 == 0 ? -100.0f : kit_f(g) * 12.0f};
    if (kit_u32(g) % 4 == 0) k->n_ban = kit_u32(g) % SK_LISTS;
    for (uint32_t i = 0; i < k->n_ban; i++) k->ban[i] = kit_u32(g) % n;
    k->has_mask = kit_u32(g) % 5 == 0;
    k->mask = malloc((n + 31) / 32 * 4);
    for (uint32_t i = 0; i < (n + 31) / 32; i++) k->mask[i] = kit_u32(g) % 4 == 0 ? UINT32_MAX : kit_u32(g) & kit_u32(g);
    k->has_history = kit_u32(g) % 3 == 0;
    k->n_history = kit_u32(g) % SK_HISTORY, k->n_prompt = k->n_history ? kit_u32(g) % (k->n_history + 1) : 0;
    for (size_t i = 0; i < k->n_history; i++) k->history[i] = (int32_t)(kit_u32(g) % (kit_u32(g) % 2 ? n : n < 30 ? n : 30));
    if (k->n_history > 3) k->history[1] = n_vocab; /* outside: left out */
    if (k->has_history) k->p.repetition_penalty = sk_one_of(g, rep, 4), k->p.frequency_penalty = sk_one_of(g, pen, 4), k->p.presence_penalty = sk_one_of(g, pen, 4);
    k->p.bias = k->bias;
}

static inline void sk_batch_random(struct sk_batch *b, uint32_t seed, int n, int n_vocab, int n_rows, int kind) {
    struct kit_rng g = {seed, 0};
    *b = (struct sk_batch){.n = n, .n_vocab = n_vocab, .n_rows = n_rows, .stride = n_vocab + (seed % 2 ? 0 : 5)};
    b->picks = calloc((size_t)n, sizeof *b->picks);
    b->logits = malloc((size_t)n_rows * (size_t)b->stride * sizeof(float));
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < b->stride; i++) b->logits[r * b->stride + i] = i < n_vocab ? sk_logit(&g, kind) : 1e9f; /* behind the vocabulary: nobody's */
    for (int i = 0; i < n; i++) sk_random_pick(&g, &b->picks[i], n_vocab, n_rows);
}

static inline void sk_batch_free(struct sk_batch *b) {
    for (int i = 0; i < b->n; i++) free(b->picks[i].mask);
    free(b->picks), free(b->logits), free(b->out), free(b->feed), free(b->counts);
}

static inline struct qn_cuda_pick sk_card_pick(const struct sk_pick *k, int i) {
    return (struct qn_cuda_pick){.seed = k->p.seed, .branch = k->branch, .position = k->position, .row = k->row, .given = -1, .n_top = k->n_top,
                                 .temperature = k->p.temperature,
                                 .top_p = k->p.top_p, .min_p = k->p.min_p, .top_k = k->p.top_k, .repetition = k->p.repetition_penalty,
                                 .frequency = k->p.frequency_penalty, .presence = k->p.presence_penalty, .counts = k->has_history ? i : -1, .counts_add = i % 2,
                                 .bias0 = i * SK_LISTS, .n_bias = (int32_t)k->p.n_bias,
                                 .ban0 = i * SK_LISTS, .n_ban = (int32_t)k->n_ban, .mask = k->has_mask ? i : -1, .feed = i % 3 ? i : -1};
}

/* Runs the picks [first, first + n) of the batch in one launch; results into b->out from `first`. `edit` may change descriptors. */
static inline void sk_run(struct sk_batch *b, int first, int n, void (*edit)(struct qn_cuda_pick *p, int i)) {
    size_t m = (size_t)n, words = ((size_t)b->n_vocab + 31) / 32, vocab = (size_t)b->n_vocab;
    struct qn_cuda_pick *p = calloc(m, sizeof *p);
    struct qn_cuda_bias *bias = calloc(m * SK_LISTS, sizeof *bias);
    uint32_t *ban = calloc(m * SK_LISTS, 4), *masks = calloc(m * words, 4), *counts = rk_device(NULL, m * vocab * 4);
    int32_t n_picks = n;
    for (int i = 0; i < n; i++) {
        const struct sk_pick *k = &b->picks[first + i];
        p[i] = sk_card_pick(k, i);
        if (edit) edit(&p[i], first + i);
        memcpy(bias + i * SK_LISTS, k->bias, sizeof k->bias);
        memcpy(ban + i * SK_LISTS, k->ban, sizeof k->ban);
        memcpy(masks + (size_t)i * words, k->mask, words * 4);
        int32_t *tokens = rk_device(k->history, sizeof k->history);
        qn_cuda_counts_set(counts, b->n_vocab, i, tokens, (int)k->n_prompt, (int)k->n_history, NULL);
        ASSERT_EQ(cudaDeviceSynchronize(), 0);
        cudaFree(tokens);
    }
    struct qn_cuda_sampling s = {.n_picks = rk_device(&n_picks, 4), .picks = rk_device(p, m * sizeof *p), .bias = rk_device(bias, m * SK_LISTS * sizeof *bias),
                                 .ban = rk_device(ban, m * SK_LISTS * 4), .masks = rk_device(masks, m * words * 4), .counts = counts, .feed = rk_device(NULL, m * 4),
                                 .logits = rk_device(b->logits, (size_t)b->n_rows * (size_t)b->stride * 4), .out = rk_device(NULL, (m + 1) * sizeof *b->out),
                                 .scratch = rk_device(NULL, (size_t)qn_cuda_sample_scratch(n + 1, b->n_vocab)), .n_vocab = b->n_vocab, .logits_stride = b->stride,
                                 .picks_max = n + 1};
    qn_cuda_sample(&s, n + 1, NULL);
    if (!b->out) b->out = malloc((size_t)b->n * sizeof *b->out), b->feed = malloc((size_t)b->n * 4), b->counts = malloc((size_t)b->n * vocab * 4);
    struct qn_cuda_picked *out = rk_fetch(s.out, (m + 1) * sizeof *out);
    EXPECT(rk_untouched(out + m, sizeof *out));
    void *feed = rk_fetch(s.feed, m * 4), *now = rk_fetch(counts, m * vocab * 4);
    memcpy(b->out + first, out, m * sizeof *b->out);
    memcpy(b->feed + first, feed, m * 4);
    memcpy(b->counts + (size_t)first * vocab, now, m * vocab * 4);
    const void *dev[] = {s.n_picks, s.picks, s.bias, s.ban, s.masks, s.counts, s.feed, s.logits, s.out, s.scratch};
    for (int i = 0; i < 10; i++) cudaFree((void *)(uintptr_t)dev[i]);
    free(p), free(bias), free(ban), free(masks), free(out), free(feed), free(now);
}

/* --- against the CPU ---------------------------------------------------------------------------------------------- */

struct sk_cpu_pick { int32_t id; struct qn_logprobs lp; };

static inline struct sk_cpu_pick sk_cpu(struct qn_sampler *s, const struct sk_batch *b, const struct sk_pick *k, float *row) {
    struct sk_cpu_pick r = {0};
    struct qn_history h = {.tokens = k->history, .n_prompt = k->n_prompt, .n = k->n_history};
    memcpy(row, b->logits + (size_t)k->row * (size_t)b->stride, (size_t)b->n_vocab * sizeof *row);
    r.id = qn_sampler_pick(s, &k->p, row, k->has_history ? &h : NULL, k->branch, k->position, k->ban, k->n_ban, k->has_mask ? k->mask : NULL, k->n_top < 0 ? 0 : k->n_top,
                           k->n_top < 0 ? NULL : &r.lp);
    return r;
}

static inline int sk_same_logprobs(const struct qn_cuda_picked *c, const struct sk_cpu_pick *r) {
    int ok = c->n_top == r->lp.n_top;
    for (uint32_t i = 0; ok && i < c->n_top; i++) ok = c->top[i].id == r->lp.top[i].id && fabs((double)c->top[i].logprob - (double)r->lp.top[i].logprob) <= 1e-5;
    if (r->id < 0) return ok && c->logprob == -9999 && c->rank == 0;
    return ok && c->rank == r->lp.rank && fabs((double)c->logprob - (double)r->lp.logprob) <= 1e-5;
}

/* Counts after the pick: those of the history, and the drawn id if asked for. */
static inline int sk_counts_are(const struct sk_batch *b, const struct sk_pick *k, int i, int at, int32_t id) {
    const uint32_t *c = b->counts + (size_t)at * (size_t)b->n_vocab;
    int ok = 1;
    for (int32_t v = 0; v < b->n_vocab; v++) {
        uint32_t want = 0;
        for (size_t t = 0; t < k->n_history; t++)
            if (k->history[t] == v) want = (want + (t >= k->n_prompt)) | QN_CUDA_IN_HISTORY;
        if (k->has_history && i % 2 && v == id) want = (want + 1) | QN_CUDA_IN_HISTORY;
        ok &= c[v] == want;
    }
    return ok;
}

static inline int sk_compare(const struct sk_batch *b, struct qn_sampler *s, int with_counts) {
    float *row = malloc((size_t)b->n_vocab * sizeof *row);
    int wrong = 0;
    for (int i = 0; i < b->n; i++) {
        const struct sk_pick *k = &b->picks[i];
        struct sk_cpu_pick r = sk_cpu(s, b, k, row);
        const struct qn_cuda_picked *c = &b->out[i];
        int ok = c->id == r.id && (k->n_top < 0 || sk_same_logprobs(c, &r)) && (i % 3 == 0 || b->feed[i] == (r.id < 0 ? 0 : r.id));
        if (ok && (!with_counts || sk_counts_are(b, k, i, i, r.id))) continue;
        wrong++;
        qn_test_fail(__FILE__, __LINE__, "vocab %d, pick %d: id %d, wanted %d; rank %u, %u; logprob %.7g, %.7g (T %g, top_p %g, min_p %g, "
                     "top_k %d, bias %u, bans %u, mask %d, history %d, top %d)",
                     b->n_vocab, i, c->id, r.id, c->rank, r.lp.rank, (double)c->logprob, (double)r.lp.logprob, (double)k->p.temperature, (double)k->p.top_p, (double)k->p.min_p,
                     k->p.top_k, k->p.n_bias, k->n_ban, k->has_mask, k->has_history, k->n_top);
    }
    free(row);
    return wrong;
}

/* n launches of `per` picks each over rows of every kind. */
static inline int sk_agree(int n_vocab, int launches, int per, uint32_t seed) {
    struct qn_sampler *s;
    int wrong = 0;
    ASSERT_EQ(qn_sampler_open(&s, (uint32_t)n_vocab), 0);
    for (int i = 0; i < launches && wrong < 5; i++) {
        struct sk_batch b;
        sk_batch_random(&b, seed + (uint32_t)i, per, n_vocab, 4, i % 2 ? i / 2 % SK_KINDS : SK_PEAKED);
        sk_run(&b, 0, per, NULL);
        wrong += sk_compare(&b, s, i % 8 == 0);
        sk_batch_free(&b);
    }
    qn_sampler_close(s);
    return wrong;
}

#endif
