/* The newest occurrence wins: in code being edited it is the line just above. The tables hold positions only; the tokens
 * themselves are compared on a hit, so a collision costs a missed draft and never a wrong one (and a wrong draft would
 * only be rejected by verification). */
#include "engine/draft.h"

#include <stdlib.h>
#include <string.h>

enum { LONG_N = 4, SHORT_N = 2, LENGTHS = 2 };
static const int lengths[LENGTHS] = {LONG_N, SHORT_N};

struct qn_draft {
    uint32_t mask;
    size_t n, n_prior;      /* tokens of the history; of its first part */
    int32_t *tokens;
    uint32_t *after[LENGTHS]; /* [mask + 1]: position that follows an n-gram; 0: none */
};

struct qn_draft *qn_draft_new(size_t n_max, const uint32_t *prior, size_t n_prior) {
    size_t slots = 64, all = n_max + n_prior;
    while (slots < all && slots < (size_t)1 << 30) slots *= 2;
    struct qn_draft *d = calloc(1, sizeof *d + (LENGTHS * slots + all) * sizeof(uint32_t));
    if (!d) return NULL;
    d->mask = (uint32_t)slots - 1;
    for (int i = 0; i < LENGTHS; i++) d->after[i] = (uint32_t *)(void *)(d + 1) + (size_t)i * slots;
    d->tokens = (int32_t *)(void *)(d->after[LENGTHS - 1] + slots);
    if (n_prior) qn_draft_feed(d, (const int32_t *)(const void *)prior, n_prior);
    d->n_prior = n_prior;
    return d;
}

void qn_draft_free(struct qn_draft *d) { free(d); }

static uint32_t hash(const int32_t *t, int n) {
    uint64_t h = 0x9E3779B97F4A7C15ULL;
    for (int i = 0; i < n; i++) h = (h ^ (uint32_t)t[i]) * 0xFF51AFD7ED558CCDULL;
    return (uint32_t)(h >> 32);
}

void qn_draft_feed(struct qn_draft *d, const int32_t *tokens, size_t n) {
    for (size_t i = d->n - d->n_prior; i < n; i++) {
        size_t at = d->n++;
        d->tokens[at] = tokens[i];
        for (int k = 0; k < LENGTHS; k++) /* the n-gram that ends before `at` is followed by tokens[at] */
            if (at >= (size_t)lengths[k]) d->after[k][hash(d->tokens + at - lengths[k], lengths[k]) & d->mask] = (uint32_t)at;
    }
}

int qn_draft_guess(const struct qn_draft *d, int32_t *out, int most) {
    const int32_t *t = d->tokens;
    size_t n = d->n;
    if (most > QN_DRAFT_MOST) most = QN_DRAFT_MOST;
    for (int i = 0; i < LENGTHS; i++) {
        int len = lengths[i];
        if (n < (size_t)len) continue;
        size_t at = d->after[i][hash(t + n - len, len) & d->mask];
        if (at < (size_t)len || at >= n || memcmp(t + at - len, t + n - len, (size_t)len * sizeof *t)) continue;
        int k = 0;
        /* A run that reaches the end goes on by reading its own beginning again: periodic text stays periodic. */
        for (size_t from = at; k < most; k++, from++) out[k] = from < n ? t[from] : out[from - n];
        return k;
    }
    return 0;
}
