/* What changes logits before anything is kept or drawn: bias, allowed ids, masks, bans, penalties, DRY. Touches few entries,
 * but for masks. Pure functions of row, parameters and history; the counts in the sampler are 0 again on return. */
#include "engine/sampler_impl.h"

#include <float.h>
#include <math.h>

#include "engine/breakers.h"

#define IN_HISTORY 0x80000000u

/* Forms allow few tokens, or all but few: the time goes by which are rarer, a word of the mask at a time. */
static void apply_mask(float *x, uint32_t n, const uint32_t *mask) {
    for (uint32_t i = 0; i < n; i += 32) {
        uint32_t off = ~mask[i / 32];
        if (n - i < 32) off &= (1u << (n - i)) - 1;
        if (off == UINT32_MAX)
            for (uint32_t k = 0; k < 32; k++) x[i + k] = -INFINITY;
        else
            for (; off; off &= off - 1) x[i + (uint32_t)__builtin_ctz(off)] = -INFINITY;
    }
}

/* Repetition divides a positive logit and multiplies a negative one (Keskar et al., CTRL); the other two are OpenAI's. */
static void apply_penalties(struct qn_sampler *s, const struct qn_sampling *p, float *x, const struct qn_history *h) {
    int repeats = p->repetition_penalty != 1;
    uint32_t n = 0;
    size_t first = p->penalty_window && (size_t)p->penalty_window < h->n ? h->n - (size_t)p->penalty_window : 0;
    if (!repeats && first < h->n_prompt) first = h->n_prompt;
    for (size_t i = first; i < h->n; i++) {
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

/* Bans the last id of every sequence whose other ids end the output. */
static void apply_bad(const struct qn_sampling *p, uint32_t n_vocab, float *x, const struct qn_history *h) {
    for (uint32_t at = 0, n; at < p->n_bad; at += n + 1) {
        n = p->bad[at];
        const uint32_t *seq = p->bad + at + 1;
        uint32_t k = 0, before = n - 1;
        if (before > h->n - h->n_prompt) continue;
        while (k < before && (uint32_t)h->tokens[h->n - before + k] == seq[k]) k++;
        if (k == before && seq[before] < n_vocab) x[seq[before]] = -INFINITY;
    }
}

/* len[k], 0 < k < n: how many of the last tokens also stand k places earlier; backwards, the Z-algorithm (Gusfield 1997, 1.4). */
static void find_repeats(const int32_t *tokens, size_t n, uint32_t *len) {
    const int32_t *last = tokens + n - 1;
    size_t left = 0, right = 0; /* tokens left..right-1 from the end equal those from 0 */
    for (size_t k = 1; k < n; k++) {
        size_t m = 0;
        if (k < right) m = len[k - left] < right - k ? len[k - left] : right - k;
        while (k + m < n && *(last - m) == *(last - m - k)) m++;
        len[k] = (uint32_t)m;
        if (k + m > right) left = k, right = k + m;
    }
}

/* multiplier * base^n, at most what a float holds. */
static float dry_penalty(const struct qn_sampling *p, uint32_t n) {
    double v = 1, b = (double)p->dry_base;
    for (; n > 0 && v < (double)FLT_MAX; n >>= 1, b *= b)
        if (n & 1) v *= b;
    v *= (double)p->dry_multiplier;
    return v < (double)FLT_MAX ? (float)v : FLT_MAX;
}

/* A token that would go on with a repetition of the text's end loses the more the longer that is ("DRY", llama.cpp's form): the
 * longest counts for each token, up to the last breaker, and breakers go free. */
static void apply_dry(struct qn_sampler *s, const struct qn_sampling *p, float *x, const struct qn_history *h) {
    size_t n = p->dry_window && (size_t)p->dry_window < h->n ? (size_t)p->dry_window : h->n;
    if (n > s->n_repeats) n = s->n_repeats;
    if (n <= (size_t)p->dry_allowed_length) return;
    const int32_t *t = h->tokens + h->n - n;
    size_t most = p->dry_breakers ? qn_breakers_since(p->dry_breakers, t, n) : n;
    if (most < (size_t)p->dry_allowed_length) return;
    find_repeats(t, n, s->repeats);
    uint32_t m = 0;
    for (size_t k = 1; k < n; k++) {
        uint32_t len = s->repeats[k] < most ? s->repeats[k] : (uint32_t)most, id = (uint32_t)t[n - k];
        if (len < (uint32_t)p->dry_allowed_length || id >= s->n_vocab) continue;
        if (!s->count[id]) s->touched[m++] = id;
        if (s->count[id] < len + 1) s->count[id] = len + 1;
    }
    for (uint32_t i = 0; i < m; i++) {
        uint32_t id = s->touched[i], len = s->count[id] - 1;
        s->count[id] = 0;
        if (!p->dry_breakers || !qn_breakers_in(p->dry_breakers, id)) x[id] -= dry_penalty(p, len - (uint32_t)p->dry_allowed_length);
    }
}

int qn_sampler_edits(const struct qn_sampling *p, const struct qn_history *h, uint32_t n_ban, const uint32_t *mask) {
    return p->n_bias || n_ban || mask || p->allowed || (h && (has_penalties(p) || p->n_bad || p->dry_multiplier > 0));
}

void qn_sampler_edit(struct qn_sampler *s, const struct qn_sampling *p, float *x, const struct qn_history *h, const uint32_t *ban,
                     uint32_t n_ban, const uint32_t *mask) {
    for (uint32_t i = 0; i < p->n_bias; i++) {
        uint32_t id = p->bias[i].id;
        if (id < s->n_vocab) x[id] = p->bias[i].add <= -100 ? -INFINITY : x[id] + p->bias[i].add;
    }
    if (p->allowed) apply_mask(x, s->n_vocab, p->allowed);
    if (mask) apply_mask(x, s->n_vocab, mask);
    for (uint32_t i = 0; i < n_ban; i++)
        if (ban[i] < s->n_vocab) x[ban[i]] = -INFINITY;
    if (h && p->n_bad) apply_bad(p, s->n_vocab, x, h);
    if (h && has_penalties(p)) apply_penalties(s, p, x, h);
    if (h && p->dry_multiplier > 0) apply_dry(s, p, x, h);
}
