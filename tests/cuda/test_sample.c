/* Sampling on the card against the definition (entries sorted, filtered and added up in double), against qn_sampler_pick on a few hundred picks
 * of every kind, and what surrounds it: scores of given ids, a pick alone and among others, ids that feed the next step. Many more picks
 * are compared in test_sample_many.c, which is too long for the checked build. */
#include "tests/cuda/sample_kit.h"

TEST_SLOW(cuda_sample, agrees_with_the_cpu_on_small_vocabularies, 60) {
    static const int sizes[] = {1, 2, 31, 33, 63, 257, 1000, 1023, 1024, 1025};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) EXPECT_EQ(sk_agree(sizes[i], 2 * SK_KINDS, 5, (uint32_t)(1000 * i)), 0);
}

/* ---- alone, and among others ---- */

TEST_SLOW(cuda_sample, a_pick_is_the_same_alone, 60) {
    enum { N = 24 };
    struct sk_batch all, one;
    sk_batch_random(&all, 7, N, 1100, 3, SK_PEAKED);
    sk_batch_random(&one, 7, N, 1100, 3, SK_PEAKED);
    sk_run(&all, 0, N, NULL);
    for (int i = 0; i < N; i++) {
        sk_run(&one, i, 1, NULL);
        int n_top = all.picks[i].n_top;
        EXPECT_EQ(one.out[i].id, all.out[i].id);
        if (n_top < 0) continue;
        size_t bytes = offsetof(struct qn_cuda_picked, top) + (size_t)all.out[i].n_top * sizeof all.out[i].top[0];
        EXPECT_MEM(&one.out[i], bytes, &all.out[i], bytes);
    }
    sk_batch_free(&all), sk_batch_free(&one);
}

/* ---- against the definition ---- */

struct entry { float x; double w; int id; };

static int by_order(const void *a, const void *b) {
    const struct entry *p = a, *q = b;
    return p->x != q->x ? (p->x < q->x ? 1 : -1) : p->id - q->id;
}
static int by_id(const void *a, const void *b) { return ((const struct entry *)a)->id - ((const struct entry *)b)->id; }

static double sum_of(const struct entry *e, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += e[i].w;
    return sum;
}

/* How many of the sorted entries the filters keep; *more: as many again may stay or not, by rounding of the weights (2 units of 2^-24). */
static int kept(const struct qn_sampling *p, const struct entry *e, int n, int *more) {
    int k = 0;
    double slack = 1e-6, sum = 0;
    while (k < n && (k == 0 || e[k].w >= (double)p->min_p * (1 + slack))) k++; /* the greatest always */
    int with = k;
    while (with < n && e[with].w >= (double)p->min_p * (1 - slack)) with++;
    if (p->top_k > 0 && k > p->top_k) k = p->top_k;
    if (p->top_k > 0 && with > p->top_k) with = p->top_k;
    if (p->top_p < 1) {
        double least = (double)p->top_p * sum_of(e, k) * (1 - slack), most = (double)p->top_p * sum_of(e, with) * (1 + slack);
        int a = 0, b;
        while (a < k && sum < least) sum += e[a++].w;
        for (b = a; b < with && sum < most; b++) sum += e[b].w;
        k = a > 1 ? a : 1, with = b;
    }
    *more = with - k;
    return k;
}

/* The id lies among the kept ones, where the cumulative sum by id crosses u. */
static int is_drawn(const struct qn_sampling *p, const struct sk_pick *k, struct entry *e, int n, int id) {
    int more, m = kept(p, e, n, &more), in = 0;
    double u = (double)qn_rng_uniform(p->seed, k->branch, k->position, 0) + 0x1p-24 * (double)qn_rng_uniform(p->seed, k->branch, k->position, 1), sum = 0;
    double open = sum_of(e + m, more), total = sum_of(e, m), slack = open / total + 1e-5;
    m += more;
    qsort(e, (size_t)m, sizeof *e, by_id);
    for (int i = 0; i < m; i++) {
        if (e[i].id == id) in = sum / total <= u + slack && (sum + e[i].w) / total >= u - slack;
        sum += e[i].w;
    }
    return in;
}

TEST_SLOW(cuda_sample, keeps_and_draws_as_defined, 60) {
    enum { N = 96, VOCAB = 1500 };
    struct entry *e = malloc(VOCAB * sizeof *e);
    for (uint32_t seed = 1; seed < 9; seed++) {
        struct sk_batch b;
        sk_batch_random(&b, seed, N, VOCAB, 4, seed % 4 == 3 ? SK_WIDE : (int)seed % 4);
        for (int i = 0; i < N; i++) b.picks[i].p.n_bias = b.picks[i].n_ban = 0, b.picks[i].has_mask = b.picks[i].has_history = 0;
        sk_run(&b, 0, N, NULL);
        for (int i = 0; i < N; i++) {
            const struct sk_pick *k = &b.picks[i];
            const float *x = b.logits + k->row * b.stride;
            float max = -INFINITY;
            for (int v = 0; v < VOCAB; v++) max = fmaxf(max, x[v]);
            double t = (double)k->p.temperature < 1e-5 ? 1e-30 : (double)k->p.temperature;
            for (int v = 0; v < VOCAB; v++) e[v] = (struct entry){x[v], exp(((double)x[v] - (double)max) / t), v};
            qsort(e, VOCAB, sizeof *e, by_order);
            int ok = t < 1e-5 ? b.out[i].id == e[0].id : is_drawn(&k->p, k, e, VOCAB, b.out[i].id);
            if (!ok) qn_test_fail(__FILE__, __LINE__, "seed %u, pick %d: id %d (T %g, top_p %g, min_p %g, top_k %d)", seed, i,
                                  b.out[i].id, t, (double)k->p.top_p, (double)k->p.min_p, k->p.top_k);
        }
        sk_batch_free(&b);
    }
    free(e);
}

/* ---- scores of given ids; what feeds the next step ---- */

static void give(struct qn_cuda_pick *p, int i) { p->given = i * 37 % 1200, p->n_top = i % 21; }

TEST(cuda_sample, scores_given_ids) {
    enum { N = 40, VOCAB = 1150 }; /* some ids are outside: scored as 0, as on the CPU */
    struct qn_sampler *s;
    ASSERT_EQ(qn_sampler_open(&s, VOCAB), 0);
    for (int kind = 0; kind < SK_KINDS; kind++) {
        struct sk_batch b;
        sk_batch_random(&b, 11 + (uint32_t)kind, N, VOCAB, 3, kind);
        sk_run(&b, 0, N, give);
        for (int i = 0; i < N; i++) {
            struct sk_cpu_pick r = {.id = i * 37 % 1200};
            qn_sampler_score(s, b.logits + b.picks[i].row * b.stride, (uint32_t)r.id, i % 21, &r.lp);
            EXPECT_EQ(b.out[i].id, r.id < VOCAB ? r.id : 0);
            if (!sk_same_logprobs(&b.out[i], &r)) qn_test_fail(__FILE__, __LINE__, "kind %d, id %d: rank %u, wanted %u", kind, r.id, b.out[i].rank, r.lp.rank);
        }
        sk_batch_free(&b);
    }
    qn_sampler_close(s);
}

TEST(cuda_sample, ids_that_the_host_does_not_know_are_filled_in) {
    enum { N = 300 };
    static int32_t token[N + 2], feed[64], want[N + 2];
    for (int i = 0; i < 64; i++) feed[i] = 1000 + i;
    for (int i = 0; i < N + 2; i++) {
        token[i] = i % 3 ? i : -1 - i % 64;
        want[i] = i % 3 || i >= N ? token[i] : 1000 + i % 64;
    }
    struct rk_step s = rk_step_open(N, 0, NULL);
    int32_t *dtoken = rk_device(token, sizeof token), *dfeed = rk_device(feed, sizeof feed);
    qn_cuda_feed_tokens(dtoken, dfeed, &s.step, N + 2, NULL);
    int32_t *now = rk_fetch(dtoken, sizeof token);
    EXPECT_MEM(now, sizeof token, want, sizeof want);
    rk_step_close(&s);
    cudaFree(dtoken), cudaFree(dfeed);
    free(now);
}
