/* Regular expressions to grammars: the second half, from the tree of regex_parse.c to nodes.
 *
 * Derivatives know no anchors, so they are worked out here. ^ and $ ask one thing of the place where they stand: is it the
 * text's start, is it its end. Inside a concatenation that place is known once it is known which factors matched nothing,
 * so every expression is made for up to four places (`l`: nothing stands before it, `r`: nothing after) and in two shapes:
 * FULL, and SOME without the empty string. For a factor a before the rest b,
 *     a·b at (l, r)  =  some(a, l, 0)·some(b, 0, r)  |  some(b, l, r) if a matches nothing at (l, 0)
 *                       |  some(a, l, r) if b matches nothing at (0, r)  |  nothing, if both do at (l, r);
 * where neither asks about the border between them this is plain full·full, as in every pattern without anchors.
 * In a search the text before and after is itself any text, empty or not. Thread: the grammar's. */
#include "engine/grammar/regex_ast.h"

struct make {
    struct qn_grammar *g;
    struct qn_rx *x;
    const struct qn_regex_opts *o;
};

static qn_gnode chars(struct make *m, const struct qn_codes *v, size_t n) {
    return m->o->code ? m->o->code(m->o->user, m->g, v, n) : qn_g_chars(m->g, v, n);
}

static qn_gnode set_node(struct make *m, uint32_t i) {
    struct qn_rx_set *s = &m->x->sets[i];
    if (!s->have) s->made = chars(m, m->x->codes + s->at, s->n);
    s->have = 1;
    return s->made;
}

static qn_gnode full(struct make *m, uint32_t i, int l, int r);
static qn_gnode some(struct make *m, uint32_t i, int l, int r);

static int empty(const struct qn_rx_node *n, int l, int r) { return n->empty >> QN_RX_PLACE(l, r) & 1; }

static qn_gnode alternatives(struct make *m, uint32_t i, int l, int r, int is_some) {
    qn_gnode out = QN_G_NONE;
    for (uint32_t k = 0; k < m->x->nodes[i].n_kids; k++) {
        uint32_t kid = m->x->kids[m->x->nodes[i].kid + k];
        out = qn_g_alt(m->g, out, is_some ? some(m, kid, l, r) : full(m, kid, l, r));
        if (qn_grammar_tick(m->g) < 0) return QN_G_NONE;
    }
    return out;
}

/* The rest of a concatenation, for both answers to "is its start the text's start". */
struct rest {
    qn_gnode full[2], some[2];
    int empty[2], on_start;
};

static void prepend(struct make *m, uint32_t kid, int r, int want_some, const struct rest *b, struct rest *out) {
    const struct qn_rx_node *a = &m->x->nodes[kid];
    struct qn_grammar *g = m->g;
    for (int l = 0; l < 2; l++) {
        int apart = !((a->on & QN_RX_ON_END) && r) && !(b->on_start && l), some_too = want_some || !apart;
        qn_gnode all = QN_G_NONE;
        if (apart) out->full[l] = qn_g_cat(g, full(m, kid, l, r), b->full[l]);
        out->empty[l] = empty(a, l, r) && b->empty[l];
        if (!some_too) continue;
        if (apart && !out->empty[l]) all = out->full[l];
        else {
            all = qn_g_cat(g, some(m, kid, l, 0), b->some[0]);
            if (empty(a, l, 0)) all = qn_g_alt(g, all, b->some[l]);
            if (b->empty[0]) all = qn_g_alt(g, all, some(m, kid, l, r));
        }
        out->some[l] = all;
        if (!apart) out->full[l] = out->empty[l] ? qn_g_alt(g, all, QN_G_EMPTY) : all;
    }
    out->on_start = b->on_start || (a->on & QN_RX_ON_START);
}

static qn_gnode concatenation(struct make *m, uint32_t i, int l, int r, int is_some) {
    struct rest b = {{QN_G_EMPTY, QN_G_EMPTY}, {QN_G_NONE, QN_G_NONE}, {1, 1}, 0}, next = b;
    int want_some = is_some || m->x->nodes[i].on;
    for (uint32_t k = m->x->nodes[i].n_kids; k-- > 0;) {
        prepend(m, m->x->kids[m->x->nodes[i].kid + k], r, want_some, &b, &next);
        b = next;
        if (qn_grammar_tick(m->g) < 0) return QN_G_NONE;
    }
    return is_some ? b.some[l] : b.full[l];
}

static uint32_t less(uint32_t bound, uint32_t by) { return bound == QN_G_INF ? bound : bound > by ? bound - by : 0; }

/* Rounds that match nothing are of no matter but for the minimum: where one may, it stands for as many as are missing. */
static qn_gnode repeat_some(struct make *m, uint32_t i, int l, int r) {
    const struct qn_rx_node *n = &m->x->nodes[i], *a = &m->x->nodes[n->kid];
    struct qn_grammar *g = m->g;
    if (n->max == 0) return QN_G_NONE;
    if (!a->on && !a->empty) return qn_g_repeat(g, full(m, n->kid, 0, 0), n->min ? n->min : 1, n->max);
    if (!a->on) return qn_g_cat(g, some(m, n->kid, 0, 0), qn_g_repeat(g, full(m, n->kid, 0, 0), 0, less(n->max, 1)));
    uint32_t min = empty(a, l, 0) || empty(a, 0, r) || n->min == 0 ? 1 : n->min;
    qn_gnode out = min == 1 ? some(m, n->kid, l, r) : QN_G_NONE;
    if (n->max < 2) return out;
    qn_gnode middle = qn_g_repeat(g, some(m, n->kid, 0, 0), less(min, 2), less(n->max, 2));
    return qn_g_alt(g, out, qn_g_cat(g, some(m, n->kid, l, 0), qn_g_cat(g, middle, some(m, n->kid, 0, r))));
}

static qn_gnode make(struct make *m, uint32_t i, int l, int r, int is_some) {
    const struct qn_rx_node *n = &m->x->nodes[i];
    switch (n->kind) {
    case QN_RX_SET: return set_node(m, n->kid);
    case QN_RX_CAT: return concatenation(m, i, l, r, is_some);
    case QN_RX_ALT: return alternatives(m, i, l, r, is_some);
    case QN_RX_REPEAT:
        if (!is_some && !n->on) return qn_g_repeat(m->g, full(m, n->kid, 0, 0), n->min, n->max);
        return is_some || !empty(n, l, r) ? repeat_some(m, i, l, r) : qn_g_alt(m->g, QN_G_EMPTY, repeat_some(m, i, l, r));
    default: return !is_some && empty(n, l, r) ? QN_G_EMPTY : QN_G_NONE;
    }
}

/* Each shape at each place once: nested repeats ask for the same ones again and again. */
static qn_gnode made(struct make *m, uint32_t i, int l, int r, int is_some) {
    struct qn_rx_node *n = &m->x->nodes[i];
    l = l && (n->on & QN_RX_ON_START);
    r = r && (n->on & QN_RX_ON_END);
    unsigned k = QN_RX_PLACE(l, r) * 2u + (unsigned)is_some;
    if (n->have >> k & 1) return n->made[k];
    qn_gnode out = make(m, i, l, r, is_some);
    n->made[k] = out;
    n->have = (uint8_t)(n->have | 1u << k);
    return out;
}

static qn_gnode full(struct make *m, uint32_t i, int l, int r) { return made(m, i, l, r, 0); }
static qn_gnode some(struct make *m, uint32_t i, int l, int r) { return made(m, i, l, r, 1); }

/* p somewhere in any text. */
static qn_gnode found(struct make *m) {
    static const struct qn_codes any[] = {{0, QN_RUNE_MAX}};
    const struct qn_rx_node *n = &m->x->nodes[m->x->root];
    struct qn_grammar *g = m->g;
    uint32_t p = m->x->root;
    qn_gnode c = m->o->code ? chars(m, any, 1) : qn_g_any_char(g);
    qn_gnode text = qn_g_repeat(g, c, 0, QN_G_INF), more = qn_g_repeat(g, c, 1, QN_G_INF), out = QN_G_NONE;
    if (empty(n, 0, 0)) return text;
    for (int l = 0; l < 2; l++)
        for (int r = 0; r < 2; r++) {
            int ask_l = n->on & QN_RX_ON_START, ask_r = n->on & QN_RX_ON_END;
            if ((l && !ask_l) || (r && !ask_r)) continue;
            qn_gnode v = full(m, p, l, r);
            if (!l) v = qn_g_cat(g, ask_l ? more : text, v);
            if (!r) v = qn_g_cat(g, v, ask_r ? more : text);
            out = qn_g_alt(g, out, v);
        }
    return out;
}

qn_gnode qn_g_regex(struct qn_grammar *g, const char *p, size_t n, const struct qn_regex_opts *o, struct qn_err *err) {
    static const struct qn_regex_opts none = {0};
    struct qn_rx x = {0};
    struct make m = {g, &x, o ? o : &none};
    int rc = qn_rx_parse(&x, g, p, n, m.o->ignore_case, err);
    qn_gnode out = rc < 0 ? QN_G_NONE : m.o->search ? found(&m) : full(&m, x.root, 1, 1);
    qn_rx_done(&x);
    if (rc == 0 && qn_grammar_error(g) < 0) {
        qn_fail(err, qn_grammar_error(g), "regular expression: too large, or it took too long");
        return QN_G_NONE;
    }
    return out;
}
