/* One token from one row of logits. The passes over the vocabulary are sampler_vec.c's, the selection sampler_cut.c's;
 * here is what is kept and what is drawn.
 *
 *   edits (bias, mask, bans, penalties; touch few entries) -> greatest -> temperature 0: done
 *      no filter:  sums of exp by chunk -> draw a chunk -> draw in it                  two reads of the row, no write
 *      filters:    candidates above a bound that no kept entry can lie below -> min_p -> top_k -> top_p -> draw
 *
 * The bound keeps the candidates few: min_p and top_k give one directly (the k-th greatest of the maxima of groups of 64
 * is no greater than the k-th greatest entry); for top_p one pass sums what lies above a few levels.
 *
 * Everything is a function of the row, the parameters, the history, the seed, the branch and the position: sums run in
 * one order on every machine, ties go to the lowest id, and the draw takes 48 bits of the counter-based generator. */
#include "engine/sampler.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"
#include "engine/sampler_cut.h"
#include "engine/sampler_vec.h"

#define LOGPROB_LEAST (-9999.0f)
#define TEMPERATURE_LEAST 1e-5f /* below it exp() would overflow its range: greedy, as vLLM has it */
#define IN_HISTORY 0x80000000u

struct qn_sampler {
    const struct qn_vec_ops *vec;
    uint32_t n_vocab;
    float *groups;           /* [groups] greatest of each */
    double *chunks;          /* [chunks] */
    float *row;              /* [n_vocab] the edited row, when the given one must stay */
    float *x, *w;            /* [n_vocab] candidates: logit and exp, by id */
    uint32_t *id, *work;     /* [n_vocab] */
    uint32_t *count;         /* [n_vocab] of the history; all 0 between calls */
    uint32_t *touched;       /* [n_vocab] */
};

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
    s->id = malloc(n_vocab * sizeof *s->id);
    s->work = malloc(n_vocab * sizeof *s->work);
    s->count = calloc(n_vocab, sizeof *s->count);
    s->touched = malloc(n_vocab * sizeof *s->touched);
    if (!s->groups || !s->chunks || !s->row || !s->x || !s->w || !s->id || !s->work || !s->count || !s->touched) {
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
    free(s->id);
    free(s->work);
    free(s->count);
    free(s->touched);
    free(s);
}

int qn_sampling_check(const struct qn_sampling *p, uint32_t n_vocab, struct qn_err *err) {
    const struct { const char *name; float v, lo, hi; int open; } f[] = { /* open: lo itself is outside */
        {"temperature", p->temperature, 0, 2, 0},
        {"top_p", p->top_p, 0, 1, 1},
        {"min_p", p->min_p, 0, 1, 0},
        {"repetition_penalty", p->repetition_penalty, 0, 2, 1},
        {"frequency_penalty", p->frequency_penalty, -2, 2, 0},
        {"presence_penalty", p->presence_penalty, -2, 2, 0},
    };
    for (size_t i = 0; i < sizeof f / sizeof *f; i++)
        if (!((f[i].open ? f[i].v > f[i].lo : f[i].v >= f[i].lo) && f[i].v <= f[i].hi))
            return qn_fail(err, QN_E_RANGE, "%s is %g, must be %s %g and at most %g", f[i].name, (double)f[i].v,
                           f[i].open ? "above" : "at least", (double)f[i].lo, (double)f[i].hi);
    if (p->top_k < -1) return qn_fail(err, QN_E_RANGE, "top_k is %d, must be -1, 0 or more", (int)p->top_k);
    if (p->n_bias > QN_BIAS_MAX) return qn_fail(err, QN_E_RANGE, "logit_bias has %u entries, at most %d are taken", (unsigned)p->n_bias, QN_BIAS_MAX);
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].id >= n_vocab)
            return qn_fail(err, QN_E_RANGE, "logit_bias names token %u, the vocabulary has %u", (unsigned)p->bias[i].id, (unsigned)n_vocab);
        if (!(p->bias[i].add >= -100 && p->bias[i].add <= 100))
            return qn_fail(err, QN_E_RANGE, "logit_bias of token %u is %g, must be at least -100 and at most 100", (unsigned)p->bias[i].id,
                           (double)p->bias[i].add);
    }
    return 0;
}

/* ---- edits ---- */

static void apply_mask(float *x, uint32_t n, const uint32_t *mask) {
    for (uint32_t i = 0; i < n; i += 32) {
        uint32_t word = mask[i / 32];
        if (word == UINT32_MAX) continue;
        for (uint32_t k = 0; k < 32 && i + k < n; k++)
            if (!(word >> k & 1)) x[i + k] = -INFINITY;
    }
}

/* Repetition divides a positive logit and multiplies a negative one (Keskar et al., CTRL); the other two are OpenAI's. */
static void apply_penalties(struct qn_sampler *s, const struct qn_sampling *p, float *x, const struct qn_history *h) {
    int repeats = p->repetition_penalty != 1;
    uint32_t n = 0;
    for (size_t i = repeats ? 0 : h->n_prompt; i < h->n; i++) {
        uint32_t id = (uint32_t)h->tokens[i];
        if (id >= s->n_vocab) continue;
        if (s->count[id] == 0) s->touched[n++] = id;
        s->count[id] = (s->count[id] + (i >= h->n_prompt)) | IN_HISTORY;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = s->touched[i], count = s->count[id] & ~IN_HISTORY;
        s->count[id] = 0;
        if (repeats) x[id] = x[id] > 0 ? x[id] / p->repetition_penalty : x[id] * p->repetition_penalty;
        if (count) x[id] -= p->frequency_penalty * (float)count + p->presence_penalty;
    }
}

static int has_penalties(const struct qn_sampling *p) {
    return p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0;
}

static void edit(struct qn_sampler *s, const struct qn_sampling *p, float *x, const struct qn_history *h, const uint32_t *ban,
                 uint32_t n_ban, const uint32_t *mask) {
    for (uint32_t i = 0; i < p->n_bias; i++) {
        uint32_t id = p->bias[i].id;
        if (id < s->n_vocab) x[id] = p->bias[i].add <= -100 ? -INFINITY : x[id] + p->bias[i].add;
    }
    if (mask) apply_mask(x, s->n_vocab, mask);
    for (uint32_t i = 0; i < n_ban; i++)
        if (ban[i] < s->n_vocab) x[ban[i]] = -INFINITY;
    if (h && has_penalties(p)) apply_penalties(s, p, x, h);
}

/* ---- candidates ---- */

/* Entries not below `least`, in order of id; +inf as the largest float. groups[] must be of this row. */
static uint32_t gather(struct qn_sampler *s, const float *x, float least) {
    uint32_t m = 0;
    if (!(least >= -FLT_MAX)) least = -FLT_MAX;
    for (uint32_t g = 0; g < QN_VEC_GROUPS(s->n_vocab); g++) {
        if (!(s->groups[g] >= least)) continue;
        uint32_t from = g * QN_VEC_GROUP, to = from + QN_VEC_GROUP < s->n_vocab ? from + QN_VEC_GROUP : s->n_vocab;
        for (uint32_t i = from; i < to; i++) {
            s->x[m] = x[i] > FLT_MAX ? FLT_MAX : x[i];
            s->id[m] = i;
            m += x[i] >= least;
        }
    }
    return m;
}

static struct qn_cut cut_all(struct qn_sampler *s, const float *w, uint32_t n, double target) {
    for (uint32_t i = 0; i < n; i++) s->work[i] = i;
    return qn_sampler_cut(s->x, w, s->work, n, target);
}

/* A bound that at least k entries are not below, or -inf. */
static float bound_of_top(struct qn_sampler *s, uint32_t k) {
    uint32_t n = QN_VEC_GROUPS(s->n_vocab), m = 0;
    if (k > n) return -INFINITY;
    for (uint32_t g = 0; g < n; g++)
        if (s->groups[g] > -INFINITY) s->x[m++] = s->groups[g];
    if (m < k) return -INFINITY;
    return cut_all(s, NULL, m, (double)k).x;
}

/* Logit below which every exp is less than e; the slack covers what rounding may do. */
static float bound_of_weight(float max, float temperature, double e) {
    double x = (double)max + (double)temperature * (qn_vec_log(e) - 1e-3) - fabs((double)max) * 1e-6;
    return x < -(double)FLT_MAX ? -FLT_MAX : (float)x;
}

static double total_of(const float *w, uint32_t n) {
    double sum[4] = {0}; /* in four strands, for speed; always the same four */
    for (uint32_t i = 0; i < n; i++) sum[i % 4] += (double)w[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static uint32_t keep(struct qn_sampler *s, uint32_t n, struct qn_cut c) {
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++) { /* without a branch: which entries stay cannot be predicted */
        uint32_t stays = (uint32_t)(s->x[i] > c.x) | ((uint32_t)(s->x[i] == c.x) & (uint32_t)(i <= c.at));
        s->x[m] = s->x[i];
        s->w[m] = s->w[i];
        s->id[m] = s->id[i];
        m += stays;
    }
    return m;
}

static uint32_t keep_min_p(struct qn_sampler *s, uint32_t n, float min_p) {
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t stays = s->w[i] >= min_p;
        s->x[m] = s->x[i];
        s->w[m] = s->w[i];
        s->id[m] = s->id[i];
        m += stays;
    }
    return m;
}

/* Only top_p: one pass tells how much weighs above each of a few levels, so that only the entries between two of them
 * need be looked at one by one. An entry whose exp is below (1 - p) / n of the total is never kept: all such together weigh
 * no more than what is cut away. */
static uint32_t filter_top_p(struct qn_sampler *s, const float *x, float max, float temperature, double p) {
    double above[QN_VEC_BANDS], total = s->vec->bands(x, s->n_vocab, max, 1 / temperature, above);
    double target = p * total, least = (1 - p) * total / s->n_vocab;
    int b = 0;
    while (b < QN_VEC_BANDS && above[b] < target) b++;
    double low = b < QN_VEC_BANDS ? (double)qn_vec_bands[b] : least < 1e-30 ? 1e-30 : least;
    float high = b > 0 ? qn_vec_bands[b - 1] : INFINITY;
    uint32_t n = gather(s, x, bound_of_weight(max, temperature, low)), m = 0;
    s->vec->exp(s->x, n, max, 1 / temperature, s->w);
    for (uint32_t i = 0; i < n; i++) {
        s->work[m] = i;
        m += s->w[i] < high;
    }
    if (m == 0) return n;
    return keep(s, n, qn_sampler_cut(s->x, s->w, s->work, m, b > 0 ? target - above[b - 1] : target));
}

/* Fills x, w, id with what the filters keep, by id; returns how many (>= 1). */
static uint32_t filter(struct qn_sampler *s, const struct qn_sampling *p, const float *x, float max) {
    int has_k = p->top_k > 0 && (uint32_t)p->top_k < s->n_vocab, has_p = p->top_p < 1, has_min = p->min_p > 0;
    float inv_t = 1 / p->temperature;
    if (!has_k && !has_min) return filter_top_p(s, x, max, p->temperature, (double)p->top_p);
    float least = has_min ? bound_of_weight(max, p->temperature, (double)p->min_p) : -INFINITY;
    float least_k = has_k ? bound_of_top(s, (uint32_t)p->top_k) : -INFINITY;
    uint32_t n = gather(s, x, least > least_k ? least : least_k);
    s->vec->exp(s->x, n, max, inv_t, s->w);
    if (has_min) n = keep_min_p(s, n, p->min_p);
    if (has_k && n > (uint32_t)p->top_k) n = keep(s, n, cut_all(s, NULL, n, (double)p->top_k));
    if (has_p) n = keep(s, n, cut_all(s, s->w, n, (double)p->top_p * total_of(s->w, n)));
    return n;
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

static int has_filter(const struct qn_sampler *s, const struct qn_sampling *p) {
    return p->min_p > 0 || p->top_p < 1 || (p->top_k > 0 && (uint32_t)p->top_k < s->n_vocab);
}

static int32_t choose(struct qn_sampler *s, const struct qn_sampling *p, const float *x, uint32_t branch, uint32_t position) {
    float max = s->vec->max(x, s->n_vocab, s->groups);
    if (max == -INFINITY) return -1;
    if (p->temperature < TEMPERATURE_LEAST) return (int32_t)greatest(s, x, max);
    double u = uniform(p, branch, position);
    if (!has_filter(s, p)) return (int32_t)draw_whole(s, x, max, p->temperature, u);
    uint32_t n = filter(s, p, x, max);
    return (int32_t)s->id[draw_in(s->w, n, u * total_of(s->w, n))];
}

uint32_t qn_sampler_dist(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h,
                         const uint32_t *ban, uint32_t n_ban, const uint32_t *mask, uint32_t *ids, double *probs) {
    edit(s, p, logits, h, ban, n_ban, mask);
    float max = s->vec->max(logits, s->n_vocab, s->groups);
    if (max == -INFINITY) return 0;
    uint32_t n = 1, m = 0;
    if (p->temperature < TEMPERATURE_LEAST) {
        s->id[0] = greatest(s, logits, max);
        s->w[0] = 1;
    } else if (has_filter(s, p)) {
        n = filter(s, p, logits, max);
    } else {
        n = gather(s, logits, -INFINITY);
        s->vec->exp(s->x, n, max, 1 / p->temperature, s->w);
    }
    double total = total_of(s->w, n);
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
    uint32_t n = gather(s, x, bound_of_top(s, want));
    struct qn_cut c = cut_all(s, NULL, n, (double)want);
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
    int edits = p->n_bias || n_ban || mask || (h && has_penalties(p));
    if (lp) max = fill_top(s, logits, n_top, lp, &log_sum);
    if (lp && edits) x = memcpy(s->row, logits, s->n_vocab * sizeof *x);
    if (edits) edit(s, p, x, h, ban, n_ban, mask);
    int32_t id = choose(s, p, x, branch, position);
    if (lp && id >= 0) fill_chosen(s, logits, (uint32_t)id, max, log_sum, lp);
    return id;
}
