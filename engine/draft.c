/* Places that may go on from here: the newest occurrence of the last 8, 4 and 2 tokens (in code being edited often the line just above),
 * and the place that the last guess read from, as far on as the text went since. The one whose past agrees with ours the longest wins; the
 * last place may differ in one token, so that after a changed name the rest of the line is guessed at once instead of
 * when the text is unmistakable again. The tables hold positions only; tokens are compared on a hit, so a collision costs a missed draft
 * and never a wrong one (and a wrong draft would only be rejected by verification); they are kept three quarters empty, since in tables of
 * as many slots as tokens a third of the places was lost, and with them half of the guesses. */
#include "engine/draft.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTHS = 3, SLOTS_A_TOKEN = 4, PAST_MOST = 16 };
static const int lengths[LENGTHS] = {8, 4, 2};

struct qn_draft {
    uint32_t mask;
    size_t n, n_prior;      /* tokens of the history; of its first part */
    size_t last, last_n;    /* where the last guess read from, and n at that time; last_n 0: no guess yet */
    int32_t *tokens;
    uint32_t *after[LENGTHS]; /* [mask + 1]: position that follows an n-gram; 0: none */
};

struct qn_draft *qn_draft_new(size_t n_max, const uint32_t *prior, size_t n_prior) {
    size_t slots = 64, all = n_max + n_prior;
    while (slots < SLOTS_A_TOKEN * all && slots < (size_t)1 << 30) slots *= 2;
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

/* How many of the tokens before `at` are those before the end, going back until more than `gaps` differ. */
static int common_past(const struct qn_draft *d, size_t at, int gaps) {
    int same = 0;
    for (size_t k = 1; k <= PAST_MOST && k <= at; k++) {
        if (d->tokens[at - k] == d->tokens[d->n - k]) same++;
        else if (gaps-- == 0) break;
    }
    return same;
}

/* The place to read from; 0: none. */
static size_t find_place(const struct qn_draft *d) {
    size_t best = 0;
    int past = 0;
    for (int i = 0; i < LENGTHS; i++) {
        size_t len = (size_t)lengths[i];
        if (d->n < len) continue;
        size_t at = d->after[i][hash(d->tokens + d->n - len, lengths[i]) & d->mask];
        if (at < len || at >= d->n) continue;
        int same = common_past(d, at, 0);
        if (same >= lengths[i] && same > past) best = at, past = same;
    }
    size_t at = d->last + (d->n - d->last_n);
    if (d->last_n && common_past(d, at, 1) > (past ? past : lengths[LENGTHS - 1] - 1)) best = at;
    return best;
}

int qn_draft_guess(struct qn_draft *d, int32_t *out, int most) {
    const int32_t *t = d->tokens;
    size_t n = d->n, at = find_place(d);
    if (!at) return 0;
    if (most > QN_DRAFT_MOST) most = QN_DRAFT_MOST;
    d->last = at;
    d->last_n = n;
    int k = 0;
    /* A run that reaches the end goes on by reading its own beginning again: periodic text stays periodic. */
    for (size_t from = at; k < most; k++, from++) out[k] = from < n ? t[from] : out[from - n];
    return k;
}
