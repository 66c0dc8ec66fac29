/* See states.h. A set is made in `work`: first what the step leaves of the old items, then, item by item until nothing is new, where
 * they return to and what they call; then the called rules get their return sets (returns.c), items of one return set become one by
 * alternation, and the set is interned. */
#include "engine/grammar/states.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_of_state(const void *user, uint32_t id) { return qn_state_at(user, id)->hash; }

static uint32_t hash_of_item(const struct qn_item *x) {
    uint64_t h = (x->node * 0x9E3779B97F4A7C15u) ^ (x->ret * 0x165667B19E3779F9u);
    return (uint32_t)(h ^ h >> 29);
}

static uint32_t hash_of_work(const void *user, uint32_t id) { return hash_of_item(&((const struct qn_states *)user)->work.v[id - 1]); }

enum { SCAN_MAX = 16 }; /* up to here a set is searched from end to end */

static int same_item(const struct qn_item *x, const struct qn_item *y) { return x->node == y->node && x->ret == y->ret; }

static int is_new(struct qn_states *s, const struct qn_item *x) {
    if (s->work.n <= SCAN_MAX) {
        for (uint32_t i = 0; i < s->work.n; i++)
            if (same_item(&s->work.v[i], x)) return 0;
        return 1;
    }
    uint32_t k = hash_of_item(x) & s->work_table.mask;
    for (; s->work_table.slot[k]; k = (k + 1) & s->work_table.mask)
        if (same_item(&s->work.v[s->work_table.slot[k] - 1], x)) return 0;
    return 1;
}

static void index_work(struct qn_states *s, uint32_t id) {
    uint32_t k = hash_of_work(s, id) & s->work_table.mask;
    while (s->work_table.slot[k]) k = (k + 1) & s->work_table.mask;
    s->work_table.slot[k] = id;
    s->work_table.n++;
}

static void add(struct qn_states *s, qn_gnode node, uint32_t ret) {
    struct qn_grammar *g = s->g;
    struct qn_item x = {node, ret};
    if (node == QN_G_NONE || qn_g_charge(g, 1) < 0 || !qn_g_live(g, node) || !is_new(s, &x)) return;
    if (s->work.n >= QN_S_ITEMS_MAX) {
        qn_g_fail(g, QN_E_LIMIT);
        return;
    }
    if (qn_g_room(g, &s->work.v, &s->work.cap, s->work.n + 1, sizeof x) < 0) return;
    s->work.v[s->work.n++] = x;
    if (s->work.n <= SCAN_MAX || qn_gtable_room(g, &s->work_table, hash_of_work, s) < 0) return;
    for (uint32_t i = s->work.n == SCAN_MAX + 1 ? 1 : s->work.n; i <= s->work.n; i++) index_work(s, i);
}

static void clear_work(struct qn_states *s) {
    if (s->work_table.n) memset(s->work_table.slot, 0, (s->work_table.mask + 1) * sizeof *s->work_table.slot);
    s->work_table.n = 0;
    s->work.n = s->n_calls = 0;
    s->round++;
}

static void call(struct qn_states *s, uint32_t rule, qn_gnode rest, uint32_t ret) {
    struct qn_grammar *g = s->g;
    struct qn_grule *r = &g->rules[rule];
    if (s->n_calls >= 4 * QN_S_ITEMS_MAX) {
        qn_g_fail(g, QN_E_LIMIT);
        return;
    }
    if (qn_g_room(g, &s->call, &s->calls_cap, s->n_calls + 1, sizeof *s->call) < 0) return;
    s->call[s->n_calls++] = (struct qn_call){rule, {rest, ret}};
    if (r->round == s->round) return;
    r->round = s->round;
    add(s, r->body, QN_R_CALL | rule);
}

static void calls_of(struct qn_states *s, struct qn_item x) {
    struct qn_grammar *g = s->g;
    uint32_t list = qn_g_first(g, x.node, QN_FIRST_RULES);
    for (uint32_t i = 0; list && i < g->lists[list].n && !g->error; i++) {
        qn_gnode ref = g->lists[list].v[i], rest = qn_g_by_symbol(g, x.node, ref);
        if (!rest || !qn_g_live(g, rest)) continue;
        if (rest == QN_G_EMPTY) add(s, g->rules[qn_gn(g, ref)->a].body, x.ret);
        else call(s, qn_gn(g, ref)->a, rest, x.ret);
    }
}

/* A called rule that may be empty needs no return here: what calls it has stepped over it. */
static int returns_of(struct qn_states *s, struct qn_item x) {
    if (x.ret == QN_R_ROOT) return 1;
    if (x.ret & QN_R_CALL) return 0;
    for (uint32_t i = 0; i < s->ret[x.ret].n; i++) {
        struct qn_item to = s->ret[x.ret].item[i];
        add(s, to.node, to.ret);
    }
    return 0;
}

static uint32_t intern(struct qn_states *s, int accepts) {
    struct qn_grammar *g = s->g;
    if (g->error || (s->work.n == 0 && !accepts)) return QN_S_DEAD;
    uint32_t hash = qn_g_hash(g, (const uint32_t *)(const void *)s->work.v, (size_t)s->work.n * 2) + (uint32_t)accepts;
    if (qn_gtable_room(g, &s->table, hash_of_state, s) < 0) return QN_S_DEAD;
    uint32_t k = hash & s->table.mask;
    size_t bytes = s->work.n * sizeof *s->work.v;
    for (; s->table.slot[k]; k = (k + 1) & s->table.mask) {
        const struct qn_state *t = qn_state_at(s, s->table.slot[k]);
        if (t->hash == hash && t->n == s->work.n && t->accepts == accepts && (bytes == 0 || !memcmp(t->item, s->work.v, bytes))) return s->table.slot[k];
    }
    struct qn_item *copy = qn_g_take(g, &g->keep, bytes + 1);
    if (!copy) return QN_S_DEAD;
    if (bytes) memcpy(copy, s->work.v, bytes);
    if (s->n == s->n_segs * QN_S_SEGMENT) {
        if (qn_g_room(g, &s->seg, &s->segs_cap, s->n_segs + 1, sizeof *s->seg) < 0) return QN_S_DEAD;
        struct qn_state *seg = qn_g_take(g, &g->keep, QN_S_SEGMENT * sizeof *seg);
        if (!seg) return QN_S_DEAD;
        s->seg[s->n_segs++] = seg;
    }
    *qn_state_at(s, s->n) = (struct qn_state){.item = copy, .n = s->work.n, .hash = hash, .accepts = (uint8_t)accepts};
    s->table.slot[k] = s->n;
    s->table.n++;
    return s->n++;
}

/* Closes and interns what is in work; `accepts`: the empty rest was already seen to be accepted. */
static uint32_t close_work(struct qn_states *s, int accepts) {
    struct qn_grammar *g = s->g;
    for (uint32_t i = 0; i < s->work.n && !g->error; i++) {
        struct qn_item x = s->work.v[i];
        if (qn_gn_nullable(g, x.node)) accepts |= returns_of(s, x);
        if (qn_gn(g, x.node)->flags & QN_F_IMPURE) calls_of(s, x);
    }
    if (s->n_calls && !g->error && qn_returns_resolve(s) == 0)
        for (uint32_t i = 0; i < s->work.n; i++)
            if (s->work.v[i].ret & QN_R_CALL) s->work.v[i].ret = g->rules[s->work.v[i].ret & ~QN_R_CALL].ret;
    if (!g->error) s->work.n = qn_items_order(g, s->work.v, s->work.n, 0);
    return intern(s, accepts);
}

/* What a byte or symbol leaves of the items of `state`, into work. */
static void step(struct qn_states *s, uint32_t state, int byte, qn_gnode sym) {
    const struct qn_state *t = qn_state_at(s, state);
    clear_work(s);
    for (uint32_t i = 0; i < t->n && !s->g->error; i++) {
        const struct qn_item *x = &t->item[i];
        add(s, byte >= 0 ? qn_g_by_byte(s->g, x->node, (unsigned)byte) : qn_g_by_symbol(s->g, x->node, sym), x->ret);
    }
}

uint32_t qn_states_init(struct qn_states *s, struct qn_grammar *g) {
    *s = (struct qn_states){.g = g, .n = 1, .n_rets = 1};
    struct qn_state *seg = qn_g_take(g, &g->keep, QN_S_SEGMENT * sizeof *seg);
    if (!seg || qn_g_room(g, &s->seg, &s->segs_cap, 1, sizeof *s->seg) < 0 || qn_g_room(g, &s->ret, &s->rets_cap, 1, sizeof *s->ret) < 0) {
        s->n = 0;
        return QN_S_DEAD;
    }
    s->seg[s->n_segs++] = seg;
    seg[QN_S_DEAD] = (struct qn_state){0};
    s->ret[QN_R_ROOT] = (struct qn_return){0};
    clear_work(s);
    add(s, g->rules[0].body, QN_R_ROOT);
    return close_work(s, 0);
}

void qn_states_done(struct qn_states *s) {
    free(s->seg);
    free(s->table.slot);
    free(s->ret);
    free(s->ret_table.slot);
    free(s->work.v);
    free(s->group.v);
    free(s->trial.v);
    free(s->call);
    free(s->work_table.slot);
    *s = (struct qn_states){0};
}

static uint32_t first_of_items(struct qn_states *s, uint32_t state, int what) {
    struct qn_grammar *g = s->g;
    struct qn_state *t = qn_state_at(s, state);
    if (t->n == 1) return qn_g_first(g, t->item[0].node, what);
    uint32_t at = g->pile.n, list;
    for (uint32_t i = 0; i < t->n; i++) {
        list = qn_g_first(g, t->item[i].node, what);
        for (uint32_t k = 0; list && k < g->lists[list].n; k++) qn_g_push(g, &g->pile, g->lists[list].v[k]);
    }
    list = g->error ? 0 : qn_g_list(g, g->pile.v + at, g->pile.n - at);
    g->pile.n = at;
    return list;
}

const struct qn_classes *qn_states_classes(struct qn_states *s, uint32_t state) {
    struct qn_state *t = qn_state_at(s, state);
    if (!t->classes) t->classes = qn_g_classes(s->g, first_of_items(s, state, QN_FIRST_SETS));
    return t->classes;
}

uint32_t *qn_states_row(struct qn_states *s, uint32_t state) {
    const struct qn_classes *c = qn_states_classes(s, state);
    struct qn_state *t = qn_state_at(s, state);
    if (t->to || !c) return t->to;
    t->to = qn_g_take(s->g, &s->g->rows, c->n * sizeof *t->to);
    if (t->to) memset(t->to, 0xFF, c->n * sizeof *t->to);
    return t->to;
}

uint32_t qn_states_by_class(struct qn_states *s, uint32_t state, unsigned cls) {
    uint32_t *row = qn_states_row(s, state);
    if (!row || s->g->error) return QN_S_DEAD;
    if (row[cls] != QN_G_UNKNOWN) return row[cls];
    step(s, state, qn_state_at(s, state)->classes->some[cls], QN_G_NONE);
    uint32_t next = close_work(s, 0);
    return s->g->error ? QN_S_DEAD : (row[cls] = next);
}

uint32_t qn_states_by_byte(struct qn_states *s, uint32_t state, unsigned b) {
    const struct qn_classes *c = qn_states_classes(s, state);
    return c ? qn_states_by_class(s, state, c->of[b]) : QN_S_DEAD;
}

uint32_t qn_states_by_token(struct qn_states *s, uint32_t state, qn_gnode token) {
    step(s, state, -1, token);
    uint32_t next = close_work(s, 0);
    return s->g->error ? QN_S_DEAD : next;
}

uint32_t qn_states_tokens(struct qn_states *s, uint32_t state) {
    struct qn_state *t = qn_state_at(s, state);
    if (!t->tokens) t->tokens = first_of_items(s, state, QN_FIRST_TOKENS);
    return t->tokens;
}

uint32_t qn_states_union(struct qn_states *s, uint32_t a, uint32_t b) {
    if (a == QN_S_DEAD || a == b) return b;
    if (b == QN_S_DEAD) return a;
    clear_work(s);
    const struct qn_state *x = qn_state_at(s, a), *y = qn_state_at(s, b);
    for (uint32_t i = 0; i < x->n; i++) add(s, x->item[i].node, x->item[i].ret);
    for (uint32_t i = 0; i < y->n; i++) add(s, y->item[i].node, y->item[i].ret);
    return close_work(s, x->accepts | y->accepts);
}

void qn_states_drop_rows(struct qn_states *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        qn_state_at(s, i)->to = NULL;
        qn_state_at(s, i)->alike = NULL;
    }
    for (qn_gnode i = 0; i < s->g->n_nodes; i++) qn_gn(s->g, i)->to = NULL;
    qn_garena_empty(s->g, &s->g->rows);
}
