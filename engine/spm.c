/* Scores are turned into unsigned ranks once (their order is the order of their bits), so that a queue entry is one
 * integer. Tokens of kind UNUSED take no part: SentencePiece lets them join and takes them apart again, which differs
 * only where a vocabulary was restricted after training. */
#include "engine/spm.h"

#include <math.h>
#include <stdatomic.h>

#include "engine/unicode.h"

enum { CUT_BITS = 21 };

static uint32_t cut_bit(uint32_t a, uint32_t b) {
    return (uint32_t)(((uint64_t)a * 0x9E3779B97F4A7C15u ^ (uint64_t)b * 0xC2B2AE3D27D4EB4Fu) >> (64 - CUT_BITS));
}

int qn_cuts_init(struct qn_cuts *c, const struct qn_vocab *v, const unsigned char *may, struct qn_err *err) {
    c->bit = calloc((1u << CUT_BITS) / 64, sizeof *c->bit);
    if (!c->bit) return qn_fail(err, QN_E_NOMEM, "vocabulary: no memory");
    for (uint32_t id = 0; id < v->n; id++) {
        const char *p = v->bytes + v->at[id];
        size_t n = v->at[id + 1] - v->at[id];
        uint32_t a = 0, b = 0;
        for (size_t i = 0; may[id] && i < n; a = b) {
            size_t first = i;
            i += qn_uni_next(p + i, n - i, &b);
            if (first > 0) c->bit[cut_bit(a, b) / 64] |= (uint64_t)1 << (cut_bit(a, b) % 64);
        }
    }
    return 0;
}

void qn_cuts_done(struct qn_cuts *c) {
    free(c->bit);
    c->bit = NULL;
}

size_t qn_cuts_word(const struct qn_cuts *c, const char *p, size_t n) {
    uint32_t a, b;
    size_t i = qn_uni_next(p, n, &a);
    for (size_t len; i < n; i += len, a = b) {
        len = qn_uni_next(p + i, n - i, &b);
        if (!(c->bit[cut_bit(a, b) / 64] >> (cut_bit(a, b) % 64) & 1)) break;
    }
    return i;
}

static uint32_t rank_of(float score) {
    uint32_t bits;
    if (isnan(score)) return QN_NO_RANK - 1;
    score += 0.0f; /* -0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u; /* larger floats, larger integers */
    return ~bits < QN_NO_RANK ? ~bits : QN_NO_RANK - 1;
}

int qn_spm_init(struct qn_spm *s, const struct qn_vocab *v, const float *score, struct qn_err *err) {
    *s = (struct qn_spm){.v = v, .rank = malloc(v->n * sizeof *s->rank), .whole = calloc(v->n, 1)};
    if (!s->rank || !s->whole) return qn_fail(err, QN_E_NOMEM, "vocabulary: no memory");
    for (uint32_t i = 0; i < v->n; i++) s->rank[i] = rank_of(score[i]);
    return 0;
}

void qn_spm_done(struct qn_spm *s) {
    free(s->rank);
    free((void *)s->whole);
    *s = (struct qn_spm){0};
}

struct word {
    const struct qn_spm *s;
    const char *p;
};

static uint32_t pair(const void *ctx, const struct qn_merge *m, size_t i, size_t j, uint32_t end, uint32_t *to) {
    const struct word *w = ctx;
    (void)j;
    uint32_t id = qn_vocab_find(w->s->v, w->p + m->start[i], end - m->start[i]);
    if (id == QN_NO_ID) return QN_NO_RANK;
    *to = id;
    return w->s->rank[id];
}

/* A character that is no token: its byte tokens, or the unknown token unless the character before it became that too. */
static int fall_back(const struct qn_vocab *v, const char *p, size_t n, int *unknown, size_t ids_max, struct qn_ids *out) {
    int rc = 0, was = *unknown;
    *unknown = 0;
    for (size_t i = 0; i < n; i++)
        if (v->byte_id[(unsigned char)p[i]] == QN_NO_ID) *unknown = 1;
    if (*unknown && v->unk == QN_NO_ID) return QN_E_DATA;
    if (*unknown) return was ? 0 : qn_ids_push(out, ids_max, v->unk);
    for (size_t i = 0; i < n && rc == 0; i++) rc = qn_ids_push(out, ids_max, v->byte_id[(unsigned char)p[i]]);
    return rc;
}

int qn_spm_word(const struct qn_spm *s, struct qn_merge *m, const char *p, size_t n, int *unknown, size_t ids_max,
                struct qn_ids *out) {
    const struct qn_vocab *v = s->v;
    uint32_t id = qn_vocab_find(v, p, n);
    if (id != QN_NO_ID && atomic_load_explicit(&s->whole[id], memory_order_relaxed)) {
        *unknown = 0;
        return qn_ids_push(out, ids_max, id);
    }
    int rc = qn_merge_reserve(m, n + 1);
    if (rc < 0) return rc;
    size_t k = 0;
    for (size_t i = 0; i < n; k++) {
        uint32_t r;
        m->start[k] = (uint32_t)i;
        m->id[k] = QN_NO_ID;
        i += qn_uni_next(p + i, n - i, &r);
    }
    m->start[k] = (uint32_t)n;
    struct word w = {s, p};
    k = qn_merge_run(m, k, pair, &w);
    for (size_t i = 0; i < k && rc == 0; i++) {
        const char *q = p + m->start[i];
        size_t len = m->start[i + 1] - m->start[i];
        uint32_t one = m->id[i] != QN_NO_ID ? m->id[i] : qn_vocab_find(v, q, len);
        if (k == 1 && one == id && id != QN_NO_ID) atomic_store_explicit(&s->whole[id], 1, memory_order_relaxed);
        if (one == QN_NO_ID) rc = fall_back(v, q, len, unknown, ids_max, out);
        else {
            *unknown = 0;
            rc = qn_ids_push(out, ids_max, one);
        }
    }
    return rc;
}
