/* See plain.h. First what expressions know of themselves (plain_node.c), which costs nothing; else by looking where each byte leads. */
#include "engine/grammar/plain.h"

#include <string.h>

enum { KNOWN = 64 }; /* added to qn_state.run when it was computed */

/* The state after any plain character; DEAD: none may come; -1: it depends. */
static int64_t plain_next(struct qn_states *s, uint32_t state) {
    const struct qn_state *t = qn_state_at(s, state);
    int any = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        enum qn_gplain p = qn_g_plain(s->g, t->item[i].node);
        if (p == QN_PLAIN_DIFFER) return -1;
        any |= p == QN_PLAIN_SAME;
    }
    return any ? (int64_t)qn_states_by_byte(s, state, QN_PLAIN_ONE) : QN_S_DEAD;
}

uint32_t qn_plain_run(struct qn_states *s, uint32_t state) {
    uint32_t run = 0, at = state;
    if (qn_state_at(s, state)->run) return qn_state_at(s, state)->run - KNOWN;
    while (run < QN_PLAIN_MAX) {
        int64_t next = plain_next(s, at);
        if (next == QN_S_DEAD) break;
        if (next < 0) run = QN_PLAIN_DEPENDS;
        else if (next == at) run = QN_PLAIN_MAX;
        else run++;
        at = next < 0 ? at : (uint32_t)next;
    }
    if (!s->g->error) qn_state_at(s, state)->run = (uint8_t)(KNOWN + run);
    return run;
}

/* --- characters that are alike --- */

/* Every sequence of bytes in these ranges leads to `next`. */
static int all_lead(struct qn_states *s, uint32_t state, const uint8_t *range, int n, uint32_t next) {
    uint32_t good = QN_S_DEAD; /* the last that was found good: there are few */
    for (unsigned b = range[0]; b <= range[1] && !s->g->error; b++) {
        uint32_t to = qn_states_by_byte(s, state, b);
        if (n == 1 ? to != next : to == QN_S_DEAD || (to != good && !all_lead(s, to, range + 2, n - 1, next))) return 0;
        good = to;
    }
    return !s->g->error;
}

/* The first bytes beyond ASCII whose characters all lead to a->next. */
static void others(struct qn_states *s, uint32_t state, struct qn_alike *a) {
    for (int i = 0; i < 8; i++) {
        const uint8_t *range = qn_utf8_sequence[i];
        uint32_t good = QN_S_DEAD;
        for (unsigned b = range[0]; b <= range[1]; b++) {
            uint32_t to = qn_states_by_byte(s, state, b);
            if (to == QN_S_DEAD || (to != good && !all_lead(s, to, range + 2, qn_utf8_sequence_len(i) - 1, a->next))) continue;
            good = to;
            qn_leads_put(&a->leads, b);
        }
    }
}

/* The state that most plain ASCII bytes lead to, and which. */
static void most(struct qn_states *s, uint32_t state, struct qn_alike *a) {
    const struct qn_classes *k = qn_states_classes(s, state);
    uint16_t count[256] = {0};
    uint32_t best = 0;
    for (unsigned b = 0; k && b < 128; b++)
        if (qn_set_has(qn_plain_ascii, b)) count[k->of[b]]++;
    for (uint32_t c = 0; k && c < k->n; c++) { /* by classes: two that lead to one state are rare */
        uint32_t to = count[c] > best ? qn_states_by_class(s, state, c) : QN_S_DEAD;
        if (to == QN_S_DEAD) continue;
        best = count[c];
        a->next = to;
    }
    for (unsigned b = 0; best && b < 128; b++)
        if (qn_set_has(qn_plain_ascii, b) && qn_states_by_byte(s, state, b) == a->next) qn_leads_put(&a->leads, b);
}

static const struct qn_alike *alike(struct qn_states *s, uint32_t state) {
    struct qn_state *t = qn_state_at(s, state);
    struct qn_alike a = {0};
    if (t->alike) return t->alike;
    most(s, state, &a);
    if (a.next != QN_S_DEAD) others(s, state, &a);
    struct qn_alike *keep = s->g->error ? NULL : qn_g_take(s->g, &s->g->rows, sizeof *keep);
    if (!keep) return NULL;
    *keep = a;
    keep->run = 0; /* not counted yet: a next state gives at least 1 */
    return t->alike = keep;
}

const struct qn_alike *qn_plain_alike(struct qn_states *s, uint32_t state) {
    const struct qn_alike *a = alike(s, state), *b = a;
    uint32_t at = state, run = 0;
    if (!a || a->run || a->next == QN_S_DEAD) return a;
    for (; run < QN_PLAIN_MAX && b && b->next != QN_S_DEAD && qn_leads_within(&a->leads, &b->leads); run++) {
        if (b->next == at) run = QN_PLAIN_MAX - 1;
        at = b->next;
        b = alike(s, at);
    }
    ((struct qn_alike *)(uintptr_t)a)->run = (uint8_t)run;
    return s->g->error ? NULL : a;
}

int qn_plain_all(struct qn_states *s, uint32_t state, const struct qn_trie_below *b) {
    uint32_t run = qn_plain_run(s, state);
    if (run != QN_PLAIN_DEPENDS) return run >= b->height;
    const struct qn_alike *a = qn_plain_alike(s, state);
    return a && a->run >= b->height && qn_leads_within(&b->leads, &a->leads);
}
