/* What an expression may begin with, and what remains of it after one byte, one rule or one token (Brzozowski 1964). Bytes that
 * no first set tells apart give one derivative (the classes of Owens, Reppy and Turon 2009, section 4.2), so a row is a few numbers;
 * rows are kept until memory is short. Recursion is as deep as qn_gnode_s.depth, which intern() bounds. */
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/node.h"

/* --- first sets --- */

static uint32_t hash_of_list(const void *user, uint32_t id) { return ((const struct qn_grammar *)user)->lists[id].hash; }

uint32_t qn_g_list(struct qn_grammar *g, uint32_t *v, uint32_t n) {
    n = qn_g_sort_unique(v, n);
    if (qn_gtable_room(g, &g->list_table, hash_of_list, g) < 0) return 0;
    uint32_t hash = qn_g_hash(g, v, n), k = hash & g->list_table.mask, id;
    for (; (id = g->list_table.slot[k]) != 0; k = (k + 1) & g->list_table.mask) {
        const struct qn_glist *l = &g->lists[id];
        if (l->hash == hash && l->n == n && !memcmp(l->v, v, n * sizeof *v)) return id;
    }
    id = g->n_lists ? g->n_lists : 1; /* 0 means not computed */
    uint32_t *copy = qn_g_take(g, &g->keep, n * sizeof *v + 1);
    if (!copy || qn_g_room(g, &g->lists, &g->lists_cap, id + 1, sizeof *g->lists) < 0) return 0;
    memcpy(copy, v, n * sizeof *v);
    g->lists[id] = (struct qn_glist){.n = n, .hash = hash, .v = copy};
    g->n_lists = id + 1;
    g->list_table.slot[k] = id;
    g->list_table.n++;
    return id;
}

static void push_list(struct qn_grammar *g, uint32_t list) {
    qn_g_charge(g, 2);
    for (uint32_t i = 0; list && i < g->lists[list].n; i++) qn_g_push(g, &g->pile, g->lists[list].v[i]);
}

static void push_first(struct qn_grammar *g, qn_gnode i, int what) {
    struct qn_gnode_s *x = qn_gn(g, i);
    static const uint8_t leaf[QN_FIRSTS] = {[QN_FIRST_SETS] = QN_K_SET, [QN_FIRST_RULES] = QN_K_RULE, [QN_FIRST_TOKENS] = QN_K_TOKEN};
    switch (x->kind) {
    case QN_K_SET:
    case QN_K_RULE:
    case QN_K_TOKEN:
        if (x->kind == leaf[what]) qn_g_push(g, &g->pile, i);
        break;
    case QN_K_CAT:
        for (; x->kind == QN_K_CAT; i = x->b, x = qn_gn(g, i)) {
            push_list(g, qn_g_first(g, x->a, what));
            if (!qn_gn_nullable(g, x->a)) return;
        }
        push_list(g, qn_g_first(g, i, what));
        break;
    case QN_K_ALT:
    case QN_K_AND:
        for (uint32_t k = 0; k < x->n; k++) push_list(g, qn_g_first(g, ((const uint32_t *)x->more)[k], what));
        break;
    case QN_K_NOT:
    case QN_K_REPEAT: push_list(g, qn_g_first(g, x->a, what)); break;
    default: break;
    }
}

uint32_t qn_g_first(struct qn_grammar *g, qn_gnode i, int what) {
    struct qn_gnode_s *x = qn_gn(g, i);
    if (x->first[what] || g->error) return x->first[what];
    uint32_t at = g->pile.n;
    int may = what == QN_FIRST_SETS || x->flags & (what == QN_FIRST_TOKENS ? QN_F_TOKEN : QN_F_IMPURE);
    if (may && !(x->flags & QN_F_DEAD)) push_first(g, i, what); /* what leads nowhere is not a beginning */
    uint32_t list = g->error ? 0 : qn_g_list(g, g->pile.v + at, g->pile.n - at);
    g->pile.n = at;
    return x->first[what] = list;
}

/* --- classes --- */

static void split(struct qn_classes *c, const uint64_t set[4]) {
    int in[256], out[256]; /* the class for what lies inside and outside of an old one, -1: none yet */
    uint32_t n = 0;
    memset(in, -1, sizeof in);
    memset(out, -1, sizeof out);
    for (unsigned b = 0; b < 256; b++) {
        int *to = qn_set_has(set, b) ? &in[c->of[b]] : &out[c->of[b]];
        if (*to < 0) *to = (int)n++;
        c->of[b] = (uint8_t)*to;
    }
    c->n = n;
}

const struct qn_classes *qn_g_classes(struct qn_grammar *g, uint32_t list) {
    if (!list || g->lists[list].classes) return list ? g->lists[list].classes : NULL;
    struct qn_classes *c = qn_g_take(g, &g->keep, sizeof *c);
    if (!c) return NULL;
    *c = (struct qn_classes){.n = 1};
    for (uint32_t i = 0; i < g->lists[list].n; i++) split(c, qn_gn(g, g->lists[list].v[i])->more);
    for (unsigned b = 256; b-- > 0;) {
        c->some[c->of[b]] = (uint8_t)b;
        c->size[c->of[b]]++;
    }
    return g->lists[list].classes = c;
}

/* --- derivatives --- */

enum { BY_BYTE, BY_SYMBOL };
struct step {
    int by;
    uint32_t sym; /* the byte, or the RULE or TOKEN node */
};

static qn_gnode derive(struct qn_grammar *g, qn_gnode i, struct step s) {
    return s.by == BY_BYTE ? qn_g_by_byte(g, i, s.sym) : qn_g_by_symbol(g, i, s.sym);
}

static qn_gnode of_cat(struct qn_grammar *g, qn_gnode i, struct step s) {
    uint32_t at = g->pile.n;
    const struct qn_gnode_s *x = qn_gn(g, i);
    for (; x->kind == QN_K_CAT && !g->error; i = x->b, x = qn_gn(g, i)) {
        qn_gnode d = derive(g, x->a, s);
        if (d) qn_g_push(g, &g->pile, qn_g_cat(g, d, x->b));
        if (!qn_gn_nullable(g, x->a)) break;
    }
    if (x->kind != QN_K_CAT) qn_g_push(g, &g->pile, derive(g, i, s));
    qn_gnode d = qn_gn_alt_pile(g, at);
    g->pile.n = at;
    return d;
}

static qn_gnode of_members(struct qn_grammar *g, const struct qn_gnode_s *x, struct step s) {
    uint32_t at = g->pile.n;
    const uint32_t *v = x->more;
    qn_gnode d = QN_G_NONE;
    for (uint32_t k = 0; k < x->n && !g->error; k++) {
        d = derive(g, v[k], s);
        if (d) qn_g_push(g, &g->pile, d);
        else if (x->kind == QN_K_AND) break;
    }
    if (!g->error && (d || x->kind == QN_K_ALT)) d = x->kind == QN_K_ALT ? qn_gn_alt_pile(g, at) : qn_gn_and_pile(g, at);
    g->pile.n = at;
    return g->error ? QN_G_NONE : d;
}

static qn_gnode of_repeat(struct qn_grammar *g, const struct qn_gnode_s *x, struct step s) {
    qn_gnode d = derive(g, x->a, s);
    if (!d) return d;
    qn_gnode rest = qn_g_repeat(g, x->a, x->n ? x->n - 1 : 0, x->b == QN_G_INF ? QN_G_INF : x->b - 1);
    return qn_g_cat(g, d, rest);
}

static qn_gnode compute(struct qn_grammar *g, qn_gnode i, struct step s) {
    const struct qn_gnode_s *x = qn_gn(g, i);
    switch (x->kind) {
    case QN_K_CAT: return of_cat(g, i, s);
    case QN_K_ALT:
    case QN_K_AND: return of_members(g, x, s);
    case QN_K_NOT: return qn_g_not(g, derive(g, x->a, s));
    case QN_K_REPEAT: return of_repeat(g, x, s);
    default: return QN_G_NONE;
    }
}

static uint32_t *row_of(struct qn_grammar *g, struct qn_gnode_s *x, uint32_t n) {
    if (x->to) return x->to;
    uint32_t *row = qn_g_take(g, &g->rows, n * sizeof *row);
    if (row) memset(row, 0xFF, n * sizeof *row);
    return x->to = row;
}

qn_gnode qn_g_by_byte(struct qn_grammar *g, qn_gnode i, unsigned b) {
    struct qn_gnode_s *x = qn_gn(g, i);
    if (x->kind == QN_K_SET) return qn_set_has(x->more, b) ? QN_G_EMPTY : QN_G_NONE;
    if (x->kind < QN_K_SET || x->kind == QN_K_RULE || x->kind == QN_K_TOKEN || g->error) return QN_G_NONE;
    if (x->kind == QN_K_CAT && qn_gn(g, x->a)->kind == QN_K_SET) return qn_set_has(qn_gn(g, x->a)->more, b) ? x->b : QN_G_NONE;
    const struct qn_classes *c = qn_g_classes(g, qn_g_first(g, i, QN_FIRST_SETS));
    uint32_t *row = c ? row_of(g, x, c->n) : NULL;
    if (!row) return QN_G_NONE;
    if (row[c->of[b]] != QN_G_UNKNOWN) return row[c->of[b]];
    if (qn_g_charge(g, 2) < 0) return QN_G_NONE;
    qn_gnode d = compute(g, i, (struct step){BY_BYTE, b});
    return g->error ? QN_G_NONE : (row[c->of[b]] = d);
}

static struct qn_gstep *find_step(struct qn_grammar *g, qn_gnode node, qn_gnode sym) {
    uint32_t k = qn_g_hash(g, (uint32_t[]){node, sym}, 2) & g->by_symbol_mask;
    while (g->by_symbol[k].sym && (g->by_symbol[k].node != node || g->by_symbol[k].sym != sym)) k = (k + 1) & g->by_symbol_mask;
    return &g->by_symbol[k];
}

static int more_steps(struct qn_grammar *g) {
    uint32_t old = g->by_symbol ? g->by_symbol_mask + 1 : 0, size = old ? old * 2 : 64, cap = 0;
    struct qn_gstep *was = g->by_symbol, *v = NULL;
    if (old && g->n_by_symbol < old / 4 * 3) return 0;
    if (qn_g_room(g, &v, &cap, size, sizeof *v) < 0) return g->error;
    memset(v, 0, cap * sizeof *v);
    g->by_symbol = v;
    g->by_symbol_mask = size - 1;
    for (uint32_t i = 0; i < old; i++)
        if (was[i].sym) *find_step(g, was[i].node, was[i].sym) = was[i];
    g->used -= old * sizeof *was;
    free(was);
    return 0;
}

qn_gnode qn_g_by_symbol(struct qn_grammar *g, qn_gnode i, qn_gnode sym) {
    const struct qn_gnode_s *x = qn_gn(g, i);
    if (x->kind == QN_K_RULE || x->kind == QN_K_TOKEN) return i == sym ? QN_G_EMPTY : QN_G_NONE;
    if (!(x->flags & QN_F_IMPURE) || g->error || more_steps(g) < 0) return QN_G_NONE;
    struct qn_gstep *at = find_step(g, i, sym);
    if (at->sym) return at->to;
    qn_gnode d = compute(g, i, (struct step){BY_SYMBOL, sym});
    if (g->error || more_steps(g) < 0) return QN_G_NONE;
    *find_step(g, i, sym) = (struct qn_gstep){i, sym, d};
    g->n_by_symbol++;
    return d;
}
