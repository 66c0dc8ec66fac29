/* Whether an expression treats all plain characters alike, judged from its parts, so that a string's 30,000 tokens of plain characters need no
 * walk: see plain.c and mask.c. Judged for sure or not at all: DIFFER may also mean that it was not seen. */
#include "engine/grammar/node.h"

/* Not plain: controls, the quote and backslash of JSON, and < with which markers begin. */
const uint64_t qn_plain_ascii[4] = {0xFFFFFFFF00000000u & ~(1ull << '"') & ~(1ull << '<'), 0x7FFFFFFFFFFFFFFFu & ~(1ull << ('\\' - 64)), 0, 0};

const uint8_t qn_utf8_sequence[8][8] = { /* Unicode 15, table 3-7 */
    {0xC2, 0xDF, 0x80, 0xBF},
    {0xE0, 0xE0, 0xA0, 0xBF, 0x80, 0xBF},
    {0xE1, 0xEC, 0x80, 0xBF, 0x80, 0xBF},
    {0xED, 0xED, 0x80, 0x9F, 0x80, 0xBF},
    {0xEE, 0xEF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF0, 0xF0, 0x90, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF1, 0xF3, 0x80, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF4, 0xF4, 0x80, 0x8F, 0x80, 0xBF, 0x80, 0xBF},
};

/* Every sequence of bytes in these ranges leaves `rest` of x. */
static int all_leave(struct qn_grammar *g, qn_gnode x, const uint8_t *range, int n, qn_gnode rest) {
    qn_gnode good = QN_G_NONE; /* the last that was found good: there are few */
    for (unsigned b = range[0]; b <= range[1] && !g->error; b++) {
        qn_gnode d = qn_g_by_byte(g, x, b);
        if (n == 1 ? d != rest : !d || (d != good && !all_leave(g, d, range + 2, n - 1, rest))) return 0;
        good = d;
    }
    return !g->error;
}

static enum qn_gplain try_all(struct qn_grammar *g, qn_gnode x) {
    qn_gnode rest = qn_g_by_byte(g, x, QN_PLAIN_ONE);
    if (!rest) return QN_PLAIN_DIFFER;
    for (unsigned b = 0; b < 128; b++)
        if (qn_set_has(qn_plain_ascii, b) && qn_g_by_byte(g, x, b) != rest) return QN_PLAIN_DIFFER;
    for (int i = 0; i < 8; i++)
        if (!all_leave(g, x, qn_utf8_sequence[i], qn_utf8_sequence_len(i), rest)) return QN_PLAIN_DIFFER;
    return QN_PLAIN_SAME;
}

/* 1: holds all plain ASCII; -1: holds no byte that begins a plain character; 0: some. */
static int of_set(const uint64_t s[4]) {
    if (!((s[0] & qn_plain_ascii[0]) | (s[1] & qn_plain_ascii[1]) | s[3])) return -1;
    return (qn_plain_ascii[0] & ~s[0]) == 0 && (qn_plain_ascii[1] & ~s[1]) == 0;
}

static enum qn_gplain of_members(struct qn_grammar *g, qn_gnode i) {
    const struct qn_gnode_s *x = qn_gn(g, i);
    const uint32_t *v = x->more;
    int same = 0, none = 0, ascii = 0;
    for (uint32_t k = 0; k < x->n; k++) {
        enum qn_gplain p = qn_g_plain(g, v[k]);
        same += p == QN_PLAIN_SAME;
        none += p == QN_PLAIN_NONE;
        ascii |= qn_gn(g, v[k])->kind == QN_K_SET && of_set(qn_gn(g, v[k])->more) > 0;
    }
    if (x->kind == QN_K_AND && none) return QN_PLAIN_NONE;
    if ((uint32_t)(same + none) == x->n) return same ? QN_PLAIN_SAME : QN_PLAIN_NONE;
    return x->kind == QN_K_ALT && ascii && !(x->flags & QN_F_IMPURE) ? try_all(g, i) : QN_PLAIN_DIFFER;
}

/* Of what something follows after. Unless it matches whole characters only, it may be over in the middle of one. */
static enum qn_gplain of_head(struct qn_grammar *g, qn_gnode i) {
    enum qn_gplain p = qn_g_plain(g, i);
    return p == QN_PLAIN_SAME && !(qn_gn(g, i)->flags & QN_F_TEXT) ? QN_PLAIN_DIFFER : p;
}

static enum qn_gplain of_cat(struct qn_grammar *g, const struct qn_gnode_s *x) {
    enum qn_gplain a = QN_PLAIN_NONE, b;
    for (;; x = qn_gn(g, x->b)) {
        b = of_head(g, x->a);
        if (a == QN_PLAIN_NONE || b == QN_PLAIN_DIFFER) a = b;
        if (a == QN_PLAIN_DIFFER || !qn_gn_nullable(g, x->a)) return a;
        if (qn_gn(g, x->b)->kind != QN_K_CAT) break;
    }
    b = qn_g_plain(g, x->b);
    return a == QN_PLAIN_NONE || b == QN_PLAIN_DIFFER ? b : a;
}

enum qn_gplain qn_g_plain(struct qn_grammar *g, qn_gnode i) {
    struct qn_gnode_s *x = qn_gn(g, i);
    enum qn_gplain p;
    if (x->plain) return x->plain;
    switch (x->kind) {
    case QN_K_SET: p = of_set(x->more) < 0 ? QN_PLAIN_NONE : QN_PLAIN_DIFFER; break;
    case QN_K_CAT: p = of_cat(g, x); break;
    case QN_K_ALT:
    case QN_K_AND: p = of_members(g, i); break;
    case QN_K_NOT: p = qn_g_plain(g, x->a) == QN_PLAIN_DIFFER ? QN_PLAIN_DIFFER : QN_PLAIN_SAME; break;
    case QN_K_REPEAT: p = of_head(g, x->a); break;
    default: p = QN_PLAIN_NONE; break;
    }
    if (!g->error) x->plain = (uint8_t)p;
    return p;
}
