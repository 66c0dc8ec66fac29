/* What a request asks of the sampler, checked where it enters, and its lists kept for its life. Any thread. */
#include <stdlib.h>
#include <string.h>

#include "engine/breakers.h"
#include "engine/sampler.h"

static int check_bad(const struct qn_sampling *p, uint32_t n_vocab, struct qn_err *err) {
    if (p->n_bad > QN_BAD_MAX) return qn_fail(err, QN_E_RANGE, "bad_words have %u ids, at most %d are taken", (unsigned)p->n_bad, QN_BAD_MAX);
    for (uint32_t at = 0, n; at < p->n_bad; at += n + 1) {
        n = p->bad[at];
        if (n < 1 || n >= p->n_bad - at) return qn_fail(err, QN_E_RANGE, "bad_words: a sequence of %u ids", (unsigned)n);
        for (uint32_t k = 1; k <= n; k++)
            if (p->bad[at + k] >= n_vocab) return qn_fail(err, QN_E_RANGE, "bad_words name token %u", (unsigned)p->bad[at + k]);
    }
    return 0;
}

int qn_sampling_check(const struct qn_sampling *p, uint32_t n_vocab, struct qn_err *err) {
    const struct { const char *name; float v, lo, hi; int open; } f[] = { /* open: lo itself is outside */
        {"temperature", p->temperature, 0, 2, 0},
        {"top_p", p->top_p, 0, 1, 1},
        {"min_p", p->min_p, 0, 1, 0},
        {"repetition_penalty", p->repetition_penalty, 0, 2, 1},
        {"frequency_penalty", p->frequency_penalty, -2, 2, 0},
        {"presence_penalty", p->presence_penalty, -2, 2, 0},
        {"top_n_sigma", p->top_n_sigma, 0, 100, 0},
        {"typical_p", p->typical_p, 0, 1, 0},
        {"xtc_probability", p->xtc_probability, 0, 1, 0},
        {"xtc_threshold", p->xtc_threshold, 0, 1, 0},
        {"dynatemp_range", p->dynatemp_range, 0, 2, 0},
        {"dynatemp_exponent", p->dynatemp_exponent, 0, 10, 0},
        {"mirostat", (float)p->mirostat, 0, 2, 0},
        {"mirostat_tau", p->mirostat_tau, 0, 100, 0},
        {"mirostat_eta", p->mirostat_eta, 0, 10, 0},
        {"dry_multiplier", p->dry_multiplier, 0, 100, 0},
        {"dry_base", p->dry_base, p->dry_multiplier > 0, 100, 0},
    };
    const struct { const char *name; int32_t v; } least0[] = {
        {"min_keep", p->min_keep}, {"repeat_last_n", p->penalty_window}, {"dry_allowed_length", p->dry_allowed_length}, {"dry_penalty_last_n", p->dry_window},
    };
    for (size_t i = 0; i < sizeof f / sizeof *f; i++)
        if (!((f[i].open ? f[i].v > f[i].lo : f[i].v >= f[i].lo) && f[i].v <= f[i].hi))
            return qn_fail(err, QN_E_RANGE, "%s is %g, must be %s %g and at most %g", f[i].name, (double)f[i].v,
                           f[i].open ? "above" : "at least", (double)f[i].lo, (double)f[i].hi);
    for (size_t i = 0; i < sizeof least0 / sizeof *least0; i++)
        if (least0[i].v < 0) return qn_fail(err, QN_E_RANGE, "%s is %d, must be 0 or more", least0[i].name, (int)least0[i].v);
    if (p->top_k < -1) return qn_fail(err, QN_E_RANGE, "top_k is %d, must be -1, 0 or more", (int)p->top_k);
    if (p->n_bias > QN_BIAS_MAX) return qn_fail(err, QN_E_RANGE, "logit_bias has %u entries, at most %d are taken", (unsigned)p->n_bias, QN_BIAS_MAX);
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].id >= n_vocab)
            return qn_fail(err, QN_E_RANGE, "logit_bias names token %u, the vocabulary has %u", (unsigned)p->bias[i].id, (unsigned)n_vocab);
        if (!(p->bias[i].add >= -100 && p->bias[i].add <= 100))
            return qn_fail(err, QN_E_RANGE, "logit_bias of token %u is %g, must be at least -100 and at most 100", (unsigned)p->bias[i].id,
                           (double)p->bias[i].add);
    }
    return check_bad(p, n_vocab, err);
}

int qn_sampling_plain(const struct qn_sampling *p) {
    return p->repetition_penalty == 1 && p->frequency_penalty == 0 && p->presence_penalty == 0 && p->dry_multiplier <= 0 && p->n_bad == 0 &&
           !p->allowed && p->top_n_sigma <= 0 && !(p->typical_p > 0 && p->typical_p < 1) && p->xtc_probability <= 0 && p->dynatemp_range <= 0 &&
           p->mirostat == 0 && p->min_keep == 0;
}

static size_t up16(size_t n) { return (n + 15) & ~(size_t)15; }

int qn_sampling_own(struct qn_sampling *p, uint32_t n_vocab, const char *(*piece)(const void *of, uint32_t id, size_t *n), const void *of, void **mem) {
    const struct qn_breakers *from = p->dry_breakers;
    size_t bias = up16(p->n_bias * sizeof *p->bias), bad = up16(p->n_bad * sizeof *p->bad);
    size_t allowed = p->allowed ? up16(((size_t)n_vocab + 31) / 32 * sizeof *p->allowed) : 0, breakers = from ? up16(sizeof *from) : 0, text = 0;
    for (int i = 0; from && i < from->n; i++) text += from->bytes[i];
    char *m = malloc(bias + bad + allowed + breakers + text + 1);
    if (!m) return QN_E_NOMEM;
    *mem = m;
    if (p->n_bias) p->bias = memcpy(m, p->bias, p->n_bias * sizeof *p->bias);
    m += bias;
    if (p->n_bad) p->bad = memcpy(m, p->bad, p->n_bad * sizeof *p->bad);
    m += bad;
    if (p->allowed) p->allowed = memcpy(m, p->allowed, ((size_t)n_vocab + 31) / 32 * sizeof *p->allowed);
    m += allowed;
    if (!from) return 0;
    struct qn_breakers *b = memcpy(m, from, sizeof *b);
    m += breakers;
    for (int i = 0; i < b->n; m += b->bytes[i++]) b->text[i] = memcpy(m, from->text[i], b->bytes[i]);
    b->piece = piece;
    b->of = of;
    p->dry_breakers = b;
    return 0;
}
