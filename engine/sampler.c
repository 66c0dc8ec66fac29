/* One token from one row of logits. The passes over the vocabulary are sampler_vec.c's, the edits sampler_edit.c's, what is
 * kept sampler_filter.c's; here is what is drawn, and the log-probabilities.
 *
 *   edits (bias, mask, bans, penalties; touch few entries) -> greatest -> temperature 0: done
 *      no filter:  sums of exp by chunk -> draw a chunk -> draw in it                  two reads of the row, no write
 *      filters:    candidates -> draw
 *
 * Everything is a function of the row, the parameters, the history, the seed, the branch and the position: sums run in
 * one order on every machine, ties go to the lowest id, and the draw takes 48 bits of the counter-based generator. */
#include "engine/sampler_impl.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"

#define LOGPROB_LEAST (-9999.0f)

int qn_sampler_open(struct qn_sampler **out, uint32_t n_vocab) {
    if (n_vocab < 1 || n_vocab > INT32_MAX / 8) return QN_E_RANGE;
    struct qn_sampler *s = calloc(1, sizeof *s);
    if (!s) return QN_E_NOMEM;
    s->vec = qn_vec_ops(NULL);
    s->n_vocab = n_vocab;
    s->groups = malloc(QN_VEC_GROUPS(n_vocab) * sizeof *s->groups);
    s->chunks = malloc(QN_VEC_CHUNKS(n_vocab) * sizeof *s->chunks);
    s->row = malloc(n_vocab * sizeof *s->row);
    s->x = malloc(n_vocab * sizeof *s->x);
    s->w = malloc(n_vocab * sizeof *s->w);
    s->y = malloc(n_vocab * sizeof *s->y);
    s->id = malloc(n_vocab * sizeof *s->id);
    s->work = malloc(n_vocab * sizeof *s->work);
    s->count = calloc(n_vocab, sizeof *s->count);
    s->touched = malloc(n_vocab * sizeof *s->touched);
    if (!s->groups || !s->chunks || !s->row || !s->x || !s->w || !s->y || !s->id || !s->work || !s->count || !s->touched ||
        qn_sampler_reserve(s, n_vocab) < 0) {
        qn_sampler_close(s);
        return QN_E_NOMEM;
    }
    *out = s;
    return 0;
}

void qn_sampler_close(struct qn_sampler *s) {
    if (!s) return;
    free(s->groups);
    free(s->chunks);
    free(s->row);
    free(s->x);
    free(s->w);
    free(s->y);
    free(s->id);
    free(s->work);
    free(s->count);
    free(s->touched);
    free(s->repeats);
    free(s);
}

int qn_sampler_reserve(struct qn_sampler *s, size_t n) {
    if (n <= s->n_repeats) return 0;
    uint32_t *more = realloc(s->repeats, n * sizeof *more);
    if (!more) return QN_E_NOMEM;
    s->repeats = more;
    s->n_repeats = n;
    return 0;
}

/* ---- the draw ---- */

static double uniform(const struct qn_sampling *p, uint32_t branch, uint32_t position) {
    return (double)qn_rng_uniform(p->seed, branch, position, 0) + 0x1p-24 * (double)qn_rng_uniform(p->seed, branch, position, 1);
}

/* The entry in whose share of the cumulative sum `at` falls; the last one with a share when rounding leaves none. */
static uint32_t draw_in(const float *w, uint32_t n, double at) {
    double sum = 0;
    uint32_t last = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (w[i] > 0) last = i;
        sum += (double)w[i];
        if (sum > at) return i;
    }
    return last;
}

static uint32_t draw_whole(struct qn_sampler *s, const float *x, float max, float temperature, double u) {
    float inv_t = 1 / temperature;
    double at = u * s->vec->sum_exp(x, s->n_vocab, max, inv_t, s->chunks), sum = 0, before = 0;
    uint32_t hit = 0;
    for (uint32_t c = 0; c < QN_VEC_CHUNKS(s->n_vocab); c++) {
        if (s->chunks[c] > 0) hit = c, before = sum;
        sum += s->chunks[c];
        if (sum > at) break;
    }
    uint32_t from = hit * QN_VEC_CHUNK, n = s->n_vocab - from < QN_VEC_CHUNK ? s->n_vocab - from : QN_VEC_CHUNK;
    s->vec->exp(x + from, n, max, inv_t, s->w);
    return from + draw_in(s->w, n, at - before);
}

static uint32_t greatest(const struct qn_sampler *s, const float *x, float max) {
    uint32_t g = 0;
    while (s->groups[g] != max) g++;
    uint32_t i = g * QN_VEC_GROUP;
    while (!(x[i] >= max)) i++; /* +inf counts as max */
    return i;
}

static float chance(const struct qn_sampling *p, uint32_t branch, uint32_t position) {
    return qn_rng_uniform(p->seed, branch, position, 2);
}

static float mu_of(const struct qn_sampling *p, const struct qn_history *h) {
    return h && h->mu ? *h->mu : 2 * p->mirostat_tau;
}

/* What the token that was drawn taught; `share`: of what it was drawn from. */
static void learn(const struct qn_sampling *p, const struct qn_history *h, double share) {
    if (!p->mirostat || !h || !h->mu) return;
    double surprise = -qn_vec_log(share) / 0.69314718055994530942;
    *h->mu = (float)((double)*h->mu - (double)p->mirostat_eta * (surprise - (double)p->mirostat_tau));
}

static int32_t choose(struct qn_sampler *s, const struct qn_sampling *p, const float *x, const struct qn_history *h, uint32_t branch, uint32_t position) {
    float max = s->vec->max(x, s->n_vocab, s->groups);
    if (max == -INFINITY) return -1;
    float t = qn_sampler_temperature(s, p, x, max);
    if (t < QN_TEMPERATURE_LEAST) return (int32_t)greatest(s, x, max);
    double u = uniform(p, branch, position);
    if (!qn_sampler_filters(s, p)) return (int32_t)draw_whole(s, x, max, t, u);
    uint32_t n = qn_sampler_filter(s, p, x, max, t, chance(p, branch, position), mu_of(p, h));
    double total = qn_sampler_total(s->w, n);
    uint32_t i = draw_in(s->w, n, u * total);
    learn(p, h, (double)s->w[i] / total);
    return (int32_t)s->id[i];
}

uint32_t qn_sampler_dist(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h, uint32_t branch,
                         uint32_t position, const uint32_t *ban, uint32_t n_ban, const uint32_t *mask, uint32_t *ids, double *probs) {
    qn_sampler_edit(s, p, logits, h, ban, n_ban, mask);
    float max = s->vec->max(logits, s->n_vocab, s->groups), t = 0;
    if (max == -INFINITY) return 0;
    uint32_t n = 1, m = 0;
    if ((t = qn_sampler_temperature(s, p, logits, max)) < QN_TEMPERATURE_LEAST) {
        s->id[0] = greatest(s, logits, max);
        s->w[0] = 1;
    } else if (qn_sampler_filters(s, p)) {
        n = qn_sampler_filter(s, p, logits, max, t, chance(p, branch, position), mu_of(p, h));
    } else {
        n = qn_sampler_all(s, logits, max, t);
    }
    double total = qn_sampler_total(s->w, n);
    for (uint32_t i = 0; i < n; i++) {
        if (!(s->w[i] > 0)) continue;
        ids[m] = s->id[i];
        probs[m++] = (double)s->w[i] / total;
    }
    return m;
}

/* ---- log-probabilities ---- */

static float logprob_of(float x, float max, double log_sum) {
    if (!(x > -INFINITY) || max == -INFINITY) return LOGPROB_LEAST;
    double v = (double)(x > FLT_MAX ? FLT_MAX : x) - (double)max - log_sum;
    return v < (double)LOGPROB_LEAST ? LOGPROB_LEAST : (float)v;
}

/* Fills lp->top; returns the greatest logit and, in *log_sum, ln of the sum of exp(x - greatest). */
static float fill_top(struct qn_sampler *s, const float *x, int n_top, struct qn_logprobs *lp, double *log_sum) {
    float max = s->vec->max(x, s->n_vocab, s->groups);
    lp->n_top = 0;
    *log_sum = 0;
    if (max == -INFINITY) return max;
    *log_sum = qn_vec_log(s->vec->sum_exp(x, s->n_vocab, max, 1, s->chunks));
    uint32_t want = n_top < 0 ? 0 : n_top > QN_LOGPROBS_MAX ? QN_LOGPROBS_MAX : (uint32_t)n_top;
    if (want == 0) return max;
    struct qn_cut c;
    uint32_t n = qn_sampler_best(s, x, want, &c);
    for (uint32_t i = 0; i < n; i++) {
        if (!qn_cut_keeps(c, s->x[i], i)) continue;
        uint32_t k = lp->n_top++; /* insertion: at most 20, and ids ascend, so ties stay in order */
        float v = logprob_of(s->x[i], max, *log_sum);
        for (; k > 0 && x[lp->top[k - 1].id] < x[s->id[i]]; k--) lp->top[k] = lp->top[k - 1];
        lp->top[k] = (struct qn_top){s->id[i], v};
    }
    return max;
}

static void fill_chosen(const struct qn_sampler *s, const float *x, uint32_t id, float max, double log_sum, struct qn_logprobs *lp) {
    float v = x[id] == x[id] ? x[id] : -INFINITY;
    lp->logprob = logprob_of(v, max, log_sum);
    lp->rank = s->vec->rank(x, s->n_vocab, v, id);
}

void qn_sampler_score(struct qn_sampler *s, const float *logits, uint32_t id, int n_top, struct qn_logprobs *lp) {
    double log_sum;
    float max = fill_top(s, logits, n_top, lp, &log_sum);
    fill_chosen(s, logits, id < s->n_vocab ? id : 0, max, log_sum, lp);
}

int32_t qn_sampler_pick(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h,
                        uint32_t branch, uint32_t position, const uint32_t *ban, uint32_t n_ban, const uint32_t *mask,
                        int n_top, struct qn_logprobs *lp) {
    float *x = logits, max = 0;
    double log_sum = 0;
    int edits = qn_sampler_edits(p, h, n_ban, mask);
    if (lp) max = fill_top(s, logits, n_top, lp, &log_sum);
    if (lp && edits) x = memcpy(s->row, logits, s->n_vocab * sizeof *x);
    if (edits) qn_sampler_edit(s, p, x, h, ban, n_ban, mask);
    int32_t id = choose(s, p, x, h, branch, position);
    if (lp && id >= 0) fill_chosen(s, logits, (uint32_t)id, max, log_sum, lp);
    return id;
}
