/* Steering of one branch (guide.h).
 *
 * Marks of thinking are found in bytes, so it does not matter into how many tokens a model cuts them: n_match is the state of
 * a Knuth-Morris-Pratt search. What is certain comes from three places: the text that ends a thinking at its cap, the text
 * that goes on with one that would end too early (budget forcing: Muennighoff et al., "s1", 2025), and a constraint that
 * leaves no choice (jump-ahead). */
#include "engine/guide.h"

#include <stdlib.h>
#include <string.h>

enum { TAIL_TOKENS = 4, TAIL_BYTES = 96, FORCED_BYTES = 160, FORCED_LEAST = 2 };

/* --- thinking ----------------------------------------------------------------------------------------------------- */

/* Bytes of `mark` matched after one byte more. The marks are short: their borders are found by trying. */
static int match(const char *mark, int n_mark, int n, char byte) {
    if (n < n_mark && mark[n] == byte) return n + 1;
    for (int k = n; k > 0; k--)
        if (mark[k - 1] == byte && !memcmp(mark, mark + n - (k - 1), (size_t)(k - 1))) return k;
    return 0;
}

static int blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static void begin(struct qn_guide *g, const char *p, size_t n, const struct qn_thinking *t) {
    for (size_t i = 0; i < n; i++) {
        if (g->n_match == 0 && blank(p[i])) continue;
        if (p[i] != t->open[g->n_match]) {
            g->phase = QN_PHASE_ANSWER;
            g->n_thinking = 0;
            return;
        }
        if ((size_t)++g->n_match < t->n_open) continue;
        g->phase = QN_PHASE_THINKING;
        g->n_match = 0;
        return; /* a token that goes on beyond the mark counts as the mark */
    }
}

/* 1: the mark that closes the thinking ends in these bytes. */
static int closes(int *n_match, const char *p, size_t n, const struct qn_thinking *t) {
    for (size_t i = 0; i < n; i++) {
        *n_match = match(t->close, (int)t->n_close, *n_match, p[i]);
        if ((size_t)*n_match == t->n_close) return 1;
    }
    return 0;
}

static void think(struct qn_guide *g, const struct qn_guide_plan *p, const char *piece, size_t n) {
    const struct qn_thinking *t = &p->thinking;
    g->n_thinking++;
    if (g->phase == QN_PHASE_BEFORE) {
        begin(g, piece, n, t);
        return;
    }
    if (closes(&g->n_match, piece, n, t)) {
        g->phase = QN_PHASE_ANSWER;
        return;
    }
    g->n_thought++;
}

static void hand_in(struct qn_guide *g, const struct qn_thinking *t) {
    if (g->phase != QN_PHASE_THINKING || g->n_certain || t->max_tokens < 0 || g->n_thought < t->max_tokens) return;
    g->certain = t->hand_in;
    g->n_certain = (uint32_t)t->n_hand_in;
}

uint32_t qn_guide_replaces(const struct qn_guide *g, const struct qn_guide_plan *p, uint32_t id) {
    const struct qn_thinking *t = &p->thinking;
    if (!t->on || g->phase != QN_PHASE_THINKING || g->n_thought >= t->min_tokens || g->n_certain) return id;
    if (t->max_tokens >= 0 && (size_t)g->n_thought + t->n_more > (size_t)t->max_tokens) return id;
    size_t n;
    const char *piece = qn_tokenizer_piece(p->tok, id, &n);
    int n_match = g->n_match;
    return qn_tokenizer_ends(p->tok, id) || closes(&n_match, piece, n, t) ? t->more[0] : id;
}

/* --- both --------------------------------------------------------------------------------------------------------- */

void qn_guide_init(struct qn_guide *g, const struct qn_guide_plan *p) {
    const struct qn_thinking *t = &p->thinking;
    *g = (struct qn_guide){.phase = !t->on ? QN_PHASE_ANSWER : t->opened ? QN_PHASE_THINKING : QN_PHASE_BEFORE};
    if (p->constraint) g->state = qn_constraint_start(p->constraint);
    hand_in(g, t);
}

void qn_guide_took(struct qn_guide *g, const struct qn_guide_plan *p, uint32_t id, int replaced) {
    const struct qn_thinking *t = &p->thinking;
    size_t n;
    const char *piece = qn_tokenizer_piece(p->tok, id, &n);
    if (g->n_certain && id == g->certain[0]) {
        g->certain++;
        g->n_certain--;
    } else if (replaced) {
        g->certain = t->more + 1;
        g->n_certain = (uint32_t)t->n_more - 1;
    } else {
        g->n_certain = 0;
    }
    if (p->constraint) g->state = qn_constraint_token(p->constraint, g->state, id);
    if (g->phase == QN_PHASE_ANSWER) return;
    think(g, p, piece, n);
    hand_in(g, t);
}

int qn_guide_over(const struct qn_guide *g, const struct qn_guide_plan *p) {
    return p->constraint && g->n_certain == 0 && qn_constraint_over(p->constraint, g->state);
}

/* --- jump-ahead --------------------------------------------------------------------------------------------------- */

struct text { char p[TAIL_BYTES + FORCED_BYTES]; size_t n; uint32_t tail[TAIL_TOKENS]; size_t n_tail; };

/* The last tokens of the output, as many as fit: their end is where the new ones must fit on. */
static void take_tail(struct text *t, const struct qn_tokenizer *tok, const int32_t *out, size_t n_out) {
    size_t from = n_out, bytes = 0;
    while (from > 0 && n_out - from < TAIL_TOKENS) {
        size_t n;
        qn_tokenizer_piece(tok, (uint32_t)out[from - 1], &n);
        if (qn_tokenizer_kind(tok, (uint32_t)out[from - 1]) != QN_TOKEN_NORMAL || bytes + n > TAIL_BYTES) break;
        bytes += n;
        from--;
    }
    for (; from < n_out; from++) {
        size_t n;
        const char *piece = qn_tokenizer_piece(tok, (uint32_t)out[from], &n);
        memcpy(t->p + t->n, piece, n);
        t->n += n;
        t->tail[t->n_tail++] = (uint32_t)out[from];
    }
}

/* Bytes of the text whose tokens are the same whatever the constraint lets follow. */
static size_t settled(const struct text *t, const struct qn_guide_plan *p, qn_cstate after) {
    int final = qn_constraint_over(p->constraint, after) || qn_constraint_forced_token(p->constraint, after) >= 0;
    return final ? t->n : qn_tokenizer_settled(p->tok, t->p, t->n);
}

void qn_guide_look_ahead(struct qn_guide *g, const struct qn_guide_plan *p, const int32_t *out, size_t n_out, uint32_t *room) {
    struct qn_constraint *c = p->constraint;
    struct text t = {.n = 0};
    struct qn_ids ids = {0};
    if (!c || p->no_jump || g->n_certain || g->phase == QN_PHASE_THINKING) return;
    int64_t special = qn_constraint_forced_token(c, g->state);
    if (special >= 0) {
        room[g->n_certain++] = (uint32_t)special;
        g->certain = room;
        return;
    }
    take_tail(&t, p->tok, out, n_out);
    size_t n_forced = qn_constraint_forced(c, g->state, t.p + t.n, FORCED_BYTES), k = 0;
    if (n_forced < FORCED_LEAST) return;
    qn_cstate after = qn_constraint_text(c, g->state, t.p + t.n, n_forced);
    t.n += n_forced;
    struct qn_text text = {.p = t.p, .n = settled(&t, p, after)};
    int rc = qn_tokenizer_encode(p->tok, &text, 0, 0, &ids, NULL);
    while (rc == 0 && k < ids.n && k < t.n_tail && ids.v[k] == t.tail[k]) k++;
    /* Else the output is not spelled as the tokenizer would have spelled it; then each token is sampled. */
    while (rc == 0 && k >= t.n_tail && k < ids.n && g->n_certain < QN_CERTAIN_MOST) room[g->n_certain++] = ids.v[k++];
    g->certain = room;
    free(ids.v);
}
