/* Which tokens may be drawn: the filters of sampler.h, in its order, over candidates by id.
 *
 * Candidates are gathered above a bound that no kept entry can lie below. It keeps them few: min_p, top_k and top_n_sigma give one
 * directly (the k-th greatest of the maxima of groups of 64 is no greater than the k-th greatest entry); for top_p alone one pass
 * sums what lies above a few levels. typical_p may keep what is least likely, so it looks at all. Every cut is sampler_cut.c's
 * question; sums run in one order. What llama.cpp does that is followed here is checked against it (tests/vectors/sampler). */
#include "engine/sampler_impl.h"

#include <float.h>
#include <math.h>

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

double qn_sampler_total(const float *w, uint32_t n) {
    double sum[4] = {0}; /* in four strands, for speed; always the same four */
    for (uint32_t i = 0; i < n; i++) sum[i % 4] += (double)w[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* The cut is of `key`, which is x or y. */
static uint32_t keep_by(struct qn_sampler *s, const float *key, uint32_t n, struct qn_cut c) {
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++) { /* without a branch: which entries stay cannot be predicted */
        uint32_t stays = (uint32_t)(key[i] > c.x) | ((uint32_t)(key[i] == c.x) & (uint32_t)(i <= c.at));
        s->x[m] = s->x[i];
        s->w[m] = s->w[i];
        s->id[m] = s->id[i];
        m += stays;
    }
    return m;
}

static uint32_t keep(struct qn_sampler *s, uint32_t n, struct qn_cut c) { return keep_by(s, s->x, n, c); }

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

/* The shortest run of the greatest by `key` that weighs `target`, but at least min_keep of them. */
static uint32_t keep_mass(struct qn_sampler *s, const float *key, uint32_t n, double target, int32_t min_keep) {
    for (uint32_t i = 0; i < n; i++) s->work[i] = i;
    struct qn_cut c = qn_sampler_cut(key, s->w, s->work, n, target);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n && min_keep > 1; i++) kept += (uint32_t)qn_cut_keeps(c, key[i], i);
    if (min_keep > 1 && kept < (uint32_t)min_keep) {
        for (uint32_t i = 0; i < n; i++) s->work[i] = i;
        c = qn_sampler_cut(key, NULL, s->work, n, (double)min_keep);
    }
    return keep_by(s, key, n, c);
}

/* Entropy of the candidates, in nats: ln Z + sum of w times what x lies below the greatest. */
static double entropy(const struct qn_sampler *s, uint32_t n, float max, float t, double *log_total) {
    double sum[4] = {0}, total = qn_sampler_total(s->w, n);
    for (uint32_t i = 0; i < n; i++) sum[i % 4] += (double)s->w[i] * ((double)max - (double)s->x[i]);
    *log_total = qn_vec_log(total);
    return *log_total + ((sum[0] + sum[1]) + (sum[2] + sum[3])) / total / (double)t;
}

/* Nearest to the entropy first. */
static uint32_t keep_typical(struct qn_sampler *s, uint32_t n, float max, float t, double p, int32_t min_keep) {
    double log_total, h = entropy(s, n, max, t, &log_total);
    for (uint32_t i = 0; i < n; i++) s->y[i] = (float)-fabs(((double)max - (double)s->x[i]) / (double)t + log_total - h);
    return keep_mass(s, s->y, n, p * qn_sampler_total(s->w, n), min_keep);
}

/* "Exclude top choices": all that reach the threshold but the least of them, if others or enough of them are left. */
static uint32_t keep_xtc(struct qn_sampler *s, uint32_t n, double threshold, int32_t min_keep) {
    double least = threshold * qn_sampler_total(s->w, n);
    uint32_t above = 0, last = 0, m = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!((double)s->w[i] >= least)) continue;
        if (!above++ || s->x[i] <= s->x[last]) last = i;
    }
    if (above < 2 || n - (above - 1) < (uint32_t)min_keep) return n;
    for (uint32_t i = 0; i < n; i++) {
        if (i != last && (double)s->w[i] >= least) continue;
        s->x[m] = s->x[i];
        s->w[m] = s->w[i];
        s->id[m++] = s->id[i];
    }
    return m;
}

/* ---- mirostat ---- */

enum { MIROSTAT_M = 100 };

/* Zipf's exponent from the ratios of the weights of the most likely tokens, in order (Basu et al., 2020, section 4); 0: cannot tell. */
static double zipf_exponent(const float *best, uint32_t m) {
    double tb = 0, tt = 0;
    for (uint32_t i = 0; i + 1 < m; i++) {
        double t = qn_vec_log((double)(i + 2) / (double)(i + 1));
        tb += t * qn_vec_log((double)best[i] / (double)best[i + 1]);
        tt += t * t;
    }
    return tt > 0 ? tb / tt : 0;
}

/* How many tokens give the wanted surprise. */
static uint32_t mirostat_k(double s, double mu, uint32_t n_vocab, uint32_t n) {
    const double ln2 = 0.69314718055994530942;
    if (!(s > 1e-6)) return n;
    double e = s - 1, log_n = qn_vec_log((double)n_vocab);
    double below = fabs(e) < 1e-9 ? log_n : (1 - qn_vec_exp_double(-e * log_n)) / e;
    double log_k = (mu * ln2 - qn_vec_log(below)) / s;
    if (log_k >= qn_vec_log((double)n)) return n;
    double k = qn_vec_exp_double(log_k);
    return k < 1 ? 1 : (uint32_t)k;
}

static uint32_t keep_mirostat1(struct qn_sampler *s, uint32_t n, float mu) {
    float best[MIROSTAT_M];
    uint32_t m = 0;
    struct qn_cut c = cut_all(s, NULL, n, (double)MIROSTAT_M);
    for (uint32_t i = 0; i < n; i++) {
        if (!qn_cut_keeps(c, s->x[i], i) || !(s->w[i] > 0) || m == MIROSTAT_M) continue;
        uint32_t k = m++;
        for (; k > 0 && best[k - 1] < s->w[i]; k--) best[k] = best[k - 1];
        best[k] = s->w[i];
    }
    if (m < 2) return keep(s, n, cut_all(s, NULL, n, 1));
    uint32_t k = mirostat_k(zipf_exponent(best, m), (double)mu, s->n_vocab, n);
    return k < n ? keep(s, n, cut_all(s, NULL, n, (double)k)) : n;
}

/* Surprise of at most mu bits; at least the greatest. */
static uint32_t keep_mirostat2(struct qn_sampler *s, uint32_t n, float mu) {
    double least = qn_sampler_total(s->w, n) * qn_vec_exp_double(-(double)mu * 0.69314718055994530942);
    struct qn_cut c = cut_all(s, NULL, n, 1);
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!((double)s->w[i] >= least) && i != c.at) continue;
        s->x[m] = s->x[i];
        s->w[m] = s->w[i];
        s->id[m++] = s->id[i];
    }
    return m;
}

/* ---- all of them ---- */

uint32_t qn_sampler_all(struct qn_sampler *s, const float *x, float max, float t) {
    uint32_t n = gather(s, x, -INFINITY);
    s->vec->exp(s->x, n, max, 1 / t, s->w);
    return n;
}

uint32_t qn_sampler_best(struct qn_sampler *s, const float *x, uint32_t n_top, struct qn_cut *cut) {
    uint32_t n = gather(s, x, bound_of_top(s, n_top));
    *cut = cut_all(s, NULL, n, (double)n_top);
    return n;
}

float qn_sampler_temperature(struct qn_sampler *s, const struct qn_sampling *p, const float *x, float max) {
    if (!(p->dynatemp_range > 0)) return p->temperature;
    uint32_t n = qn_sampler_all(s, x, max, 1);
    if (n < 2) return p->temperature;
    double log_total, share = entropy(s, n, max, 1, &log_total) / qn_vec_log((double)n);
    double lo = (double)p->temperature - (double)p->dynatemp_range, hi = (double)p->temperature + (double)p->dynatemp_range;
    if (lo < 0) lo = 0;
    double power = share > 0 ? qn_vec_exp_double((double)p->dynatemp_exponent * qn_vec_log(share)) : 0;
    return (float)(lo + (hi - lo) * power);
}

/* Below so many standard deviations under the greatest nothing is kept (arXiv:2411.07641). */
static float bound_of_sigma(const struct qn_sampler *s, const float *x, float max, double n_sigma) {
    double sum[4] = {0}, square[4] = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (x[i] > -INFINITY) sum[n++ % 4] += (double)(x[i] > FLT_MAX ? FLT_MAX : x[i]);
    double mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / n;
    uint32_t k = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (x[i] > -INFINITY) {
            double d = (double)(x[i] > FLT_MAX ? FLT_MAX : x[i]) - mean;
            square[k++ % 4] += d * d;
        }
    return (float)((double)max - n_sigma * sqrt(((square[0] + square[1]) + (square[2] + square[3])) / n));
}

static int has_k(const struct qn_sampler *s, const struct qn_sampling *p) { return p->top_k > 0 && (uint32_t)p->top_k < s->n_vocab; }
static int has_typical(const struct qn_sampling *p) { return p->typical_p > 0 && p->typical_p < 1; }
static int has_xtc(const struct qn_sampling *p, float u) { return p->xtc_probability > 0 && p->xtc_threshold <= 0.5f && u <= p->xtc_probability; }

int qn_sampler_filters(const struct qn_sampler *s, const struct qn_sampling *p) {
    return p->min_p > 0 || p->top_p < 1 || has_k(s, p) || p->top_n_sigma > 0 || has_typical(p) || p->xtc_probability > 0 || p->mirostat;
}

static float bound(struct qn_sampler *s, const struct qn_sampling *p, const float *x, float max, float t) {
    float least = -INFINITY, b;
    if (p->min_p > 0) {
        least = bound_of_weight(max, t, (double)p->min_p);
        if (p->min_keep > 1 && (b = bound_of_top(s, (uint32_t)p->min_keep)) < least) least = b;
    }
    if (has_k(s, p) && (b = bound_of_top(s, (uint32_t)p->top_k)) > least) least = b;
    if (p->top_n_sigma > 0 && (b = bound_of_sigma(s, x, max, (double)p->top_n_sigma)) > least) least = b;
    return least;
}

/* min_p keeps a run of the greatest, and so do min_keep of them: the longer run. */
static uint32_t apply_min_p(struct qn_sampler *s, const struct qn_sampling *p, uint32_t n) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n && p->min_keep > 1; i++) kept += s->w[i] >= p->min_p;
    if (p->min_keep > 1 && kept < (uint32_t)p->min_keep) return keep(s, n, cut_all(s, NULL, n, (double)p->min_keep));
    return keep_min_p(s, n, p->min_p);
}

uint32_t qn_sampler_filter(struct qn_sampler *s, const struct qn_sampling *p, const float *x, float max, float t, float u, float mu) {
    uint32_t n;
    int only_p = p->top_p < 1 && !has_k(s, p) && !(p->min_p > 0) && !(p->top_n_sigma > 0) && !has_typical(p) && p->min_keep < 2;
    if (only_p) {
        n = filter_top_p(s, x, max, t, (double)p->top_p);
    } else {
        n = gather(s, x, bound(s, p, x, max, t));
        s->vec->exp(s->x, n, max, 1 / t, s->w);
        if (p->min_p > 0) n = apply_min_p(s, p, n);
        if (has_k(s, p) && n > (uint32_t)p->top_k) n = keep(s, n, cut_all(s, NULL, n, (double)p->top_k));
        if (has_typical(p)) n = keep_typical(s, n, max, t, (double)p->typical_p, p->min_keep);
        if (p->top_p < 1) n = keep_mass(s, s->x, n, (double)p->top_p * qn_sampler_total(s->w, n), p->min_keep);
    }
    if (has_xtc(p, u)) n = keep_xtc(s, n, (double)p->xtc_threshold, p->min_keep);
    if (p->mirostat == 1) n = keep_mirostat1(s, n, mu);
    if (p->mirostat == 2) n = keep_mirostat2(s, n, mu);
    return n;
}
