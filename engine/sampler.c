/* Thin path: greedy, and temperature by the cumulative sum; filters and penalties follow. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"

struct qn_sampler {
    uint32_t n_vocab;
    double *p;
};

int qn_sampler_open(struct qn_sampler **out, uint32_t n_vocab) {
    struct qn_sampler *s = calloc(1, sizeof *s);
    if (!s) return QN_E_NOMEM;
    s->n_vocab = n_vocab;
    s->p = calloc(n_vocab, sizeof *s->p);
    if (!s->p) {
        free(s);
        return QN_E_NOMEM;
    }
    *out = s;
    return 0;
}

void qn_sampler_close(struct qn_sampler *s) {
    if (!s) return;
    free(s->p);
    free(s);
}

int qn_sampling_check(const struct qn_sampling *p, uint32_t n_vocab, struct qn_err *err) {
    (void)n_vocab;
    if (!(p->temperature >= 0 && p->temperature <= 2)) return qn_fail(err, QN_E_RANGE, "temperature must be in 0..2");
    return 0;
}

static uint32_t argmax(const float *x, uint32_t n) {
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > -INFINITY && (best == UINT32_MAX || x[i] > x[best])) best = i;
    return best;
}

void qn_sampler_score(struct qn_sampler *s, const float *logits, uint32_t id, int n_top, struct qn_logprobs *lp) {
    uint32_t best = argmax(logits, s->n_vocab);
    double sum = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) sum += exp((double)(logits[i] - logits[best]));
    double lse = (double)logits[best] + log(sum);
    memset(lp, 0, sizeof *lp);
    lp->logprob = (float)((double)logits[id] - lse);
    for (uint32_t i = 0; i < s->n_vocab; i++) lp->rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    for (int k = 0; k < n_top && k < QN_LOGPROBS_MAX; k++) {
        uint32_t top = UINT32_MAX;
        for (uint32_t i = 0; i < s->n_vocab; i++) {
            int used = 0;
            for (uint32_t m = 0; m < lp->n_top; m++) used |= lp->top[m].id == i;
            if (!used && (top == UINT32_MAX || logits[i] > logits[top])) top = i;
        }
        if (top == UINT32_MAX) break;
        lp->top[lp->n_top++] = (struct qn_top){top, (float)((double)logits[top] - lse)};
    }
}

int32_t qn_sampler_pick(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h,
                        uint32_t branch, uint32_t position, const uint32_t *ban, uint32_t n_ban, const uint32_t *mask,
                        int n_top, struct qn_logprobs *lp) {
    (void)h;
    uint32_t id = UINT32_MAX;
    float *x = logits;
    struct qn_logprobs all;
    if (lp) qn_sampler_score(s, x, 0, n_top, &all);
    for (uint32_t i = 0; i < n_ban; i++) x[ban[i]] = -INFINITY;
    for (uint32_t i = 0; mask && i < s->n_vocab; i++)
        if (!(mask[i / 32] >> (i % 32) & 1)) x[i] = -INFINITY;
    uint32_t best = argmax(x, s->n_vocab);
    if (best == UINT32_MAX) return -1;
    id = best;
    if (p->temperature > 0) {
        double sum = 0;
        for (uint32_t i = 0; i < s->n_vocab; i++) s->p[i] = sum += exp((double)(x[i] - x[best]) / (double)p->temperature);
        double at = (double)qn_rng_uniform(p->seed, branch, position, 0) * sum;
        for (uint32_t i = 0; i < s->n_vocab; i++)
            if (s->p[i] > at) {
                id = i;
                break;
            }
    }
    if (lp) {
        qn_sampler_score(s, logits, id, 0, lp);
        memcpy(lp->top, all.top, sizeof lp->top);
        lp->n_top = all.n_top;
    }
    return (int32_t)id;
}
