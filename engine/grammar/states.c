/* See states.h. A set is made in `work`: first what the step leaves of the old items, then, item by item until nothing is new,
 * what they complete and what they call; then items of one rule and origin become one by alternation, and the set is interned. */
#include "engine/grammar/states.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_items(const struct qn_grammar *g, const struct qn_item *v, uint32_t n, int accepts) {
    return qn_g_hash(g, (const uint32_t *)(const void *)v, (size_t)n * 3) + (uint32_t)accepts;
}

static uint32_t hash_of_state(const void *user, uint32_t id) { return qn_state_at(user, id)->hash; }

static uint32_t hash_of_item(const struct qn_item *x) {
    uint64_t h = (x->node * 0x9E3779B97F4A7C15u) ^ (x->rule * 0xC2B2AE3D27D4EB4Fu) ^ (x->origin * 0x165667B19E3779F9u);
    return (uint32_t)(h ^ h >> 29);
}

static uint32_t hash_of_work(const void *user, uint32_t id) { return hash_of_item(&((const struct qn_states *)user)->work[id - 1]); }

enum { SCAN_MAX = 16 }; /* up to here a set is searched from end to end */

static int is_new(struct qn_states *s, const struct qn_item *x) {
    if (s->n_work <= SCAN_MAX) {
        for (uint32_t i = 0; i < s->n_work; i++)
            if (!memcmp(&s->work[i], x, sizeof *x)) return 0;
        return 1;
    }
    uint32_t k = hash_of_item(x) & s->work_table.mask;
    for (; s->work_table.slot[k]; k = (k + 1) & s->work_table.mask)
        if (!memcmp(&s->work[s->work_table.slot[k] - 1], x, sizeof *x)) return 0;
    return 1;
}

static void index_work(struct qn_states *s, uint32_t id) {
    uint32_t k = hash_of_work(s, id) & s->work_table.mask;
    while (s->work_table.slot[k]) k = (k + 1) & s->work_table.mask;
    s->work_table.slot[k] = id;
    s->work_table.n++;
}

static void add(struct qn_states *s, uint32_t rule, uint32_t origin, qn_gnode node) {
    struct qn_item x = {rule, origin, node};
    if (node == QN_G_NONE || s->g->error || !qn_g_live(s->g, node) || !is_new(s, &x)) return;
    if (s->n_work >= QN_S_ITEMS_MAX) {
        qn_g_fail(s->g, QN_E_LIMIT);
        return;
    }
    if (qn_g_room(s->g, &s->work, &s->work_cap, s->n_work + 1, sizeof *s->work) < 0) return;
    s->work[s->n_work++] = x;
    if (s->n_work <= SCAN_MAX) return;
    if (qn_gtable_room(s->g, &s->work_table, hash_of_work, s) < 0) return;
    if (s->n_work == SCAN_MAX + 1)
        for (uint32_t i = 1; i < s->n_work; i++) index_work(s, i);
    index_work(s, s->n_work);
}

static void clear_work(struct qn_states *s) {
    if (s->work_table.n) memset(s->work_table.slot, 0, (s->work_table.mask + 1) * sizeof *s->work_table.slot);
    s->work_table.n = 0;
    s->n_work = 0;
}

/* All that waits for `rule` in the set `origin` goes on. */
static void complete(struct qn_states *s, uint32_t rule, uint32_t origin) {
    const struct qn_state *o = qn_state_at(s, origin);
    for (uint32_t i = 0; i < o->n; i++) {
        const struct qn_item *w = &o->item[i];
        add(s, w->rule, w->origin == QN_S_SELF ? origin : w->origin, qn_g_by_symbol(s->g, w->node, s->g->rules[rule].ref));
    }
}

static void call(struct qn_states *s, struct qn_item x) {
    uint32_t list = qn_g_first(s->g, x.node, QN_FIRST_RULES);
    for (uint32_t i = 0; list && i < s->g->lists[list].n; i++) {
        qn_gnode ref = s->g->lists[list].v[i];
        uint32_t rule = qn_gn(s->g, ref)->a;
        qn_gnode rest = qn_g_by_symbol(s->g, x.node, ref);
        if (!rest || !qn_g_live(s->g, rest)) continue;
        if (rest == QN_G_EMPTY) add(s, x.rule, x.origin, s->g->rules[rule].body);
        else add(s, rule, QN_S_SELF, s->g->rules[rule].body);
    }
}

static int by_item(const void *a, const void *b) {
    const struct qn_item *x = a, *y = b;
    if (x->rule != y->rule) return x->rule < y->rule ? -1 : 1;
    if (x->origin != y->origin) return x->origin < y->origin ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

/* Items of one rule and origin become one; those with nothing to come are left out. */
static void unite(struct qn_states *s) {
    struct qn_grammar *g = s->g;
    uint32_t k = 0, at = g->pile.n;
    qsort(s->work, s->n_work, sizeof *s->work, by_item);
    for (uint32_t i = 0; i < s->n_work && !g->error;) {
        struct qn_item x = s->work[i];
        for (; i < s->n_work && s->work[i].rule == x.rule && s->work[i].origin == x.origin; i++) qn_g_push(g, &g->pile, s->work[i].node);
        x.node = g->pile.n == at + 1 ? g->pile.v[at] : qn_gn_alt_pile(g, at);
        g->pile.n = at;
        if (x.node != QN_G_EMPTY) s->work[k++] = x;
    }
    s->n_work = k;
}

static uint32_t intern(struct qn_states *s, int accepts) {
    struct qn_grammar *g = s->g;
    if (g->error || (s->n_work == 0 && !accepts)) return QN_S_DEAD;
    uint32_t hash = hash_items(g, s->work, s->n_work, accepts);
    if (qn_gtable_room(g, &s->table, hash_of_state, s) < 0) return QN_S_DEAD;
    uint32_t k = hash & s->table.mask;
    for (; s->table.slot[k]; k = (k + 1) & s->table.mask) {
        const struct qn_state *t = qn_state_at(s, s->table.slot[k]);
        if (t->hash == hash && t->n == s->n_work && t->accepts == accepts && !memcmp(t->item, s->work, s->n_work * sizeof *s->work))
            return s->table.slot[k];
    }
    struct qn_item *copy = qn_g_take(g, &g->keep, s->n_work * sizeof *copy + 1);
    if (!copy) return QN_S_DEAD;
    memcpy(copy, s->work, s->n_work * sizeof *copy);
    if (s->n == s->n_segs * QN_S_SEGMENT) {
        if (qn_g_room(g, &s->seg, &s->segs_cap, s->n_segs + 1, sizeof *s->seg) < 0) return QN_S_DEAD;
        struct qn_state *seg = qn_g_take(g, &g->keep, QN_S_SEGMENT * sizeof *seg);
        if (!seg) return QN_S_DEAD;
        s->seg[s->n_segs++] = seg;
    }
    *qn_state_at(s, s->n) = (struct qn_state){.item = copy, .n = s->n_work, .hash = hash, .accepts = (uint8_t)accepts};
    s->table.slot[k] = s->n;
    s->table.n++;
    return s->n++;
}

/* Closes and interns what is in work; `accepts`: the empty rest was already seen to be accepted. */
static uint32_t close_work(struct qn_states *s, int accepts) {
    for (uint32_t i = 0; i < s->n_work && !s->g->error; i++) {
        struct qn_item x = s->work[i];
        if (qn_gn_nullable(s->g, x.node)) {
            if (x.rule == 0) accepts = 1;
            else if (x.origin != QN_S_SELF) complete(s, x.rule, x.origin);
        }
        if (qn_gn(s->g, x.node)->flags & QN_F_IMPURE) call(s, x);
    }
    unite(s);
    return intern(s, accepts);
}

/* What a byte or symbol leaves of the items of `state`, into work. */
static void step(struct qn_states *s, uint32_t state, int byte, qn_gnode sym) {
    struct qn_state *t = qn_state_at(s, state);
    clear_work(s);
    for (uint32_t i = 0; i < t->n; i++) {
        const struct qn_item *x = &t->item[i];
        qn_gnode d = byte >= 0 ? qn_g_by_byte(s->g, x->node, (unsigned)byte) : qn_g_by_symbol(s->g, x->node, sym);
        add(s, x->rule, x->origin == QN_S_SELF ? state : x->origin, d);
    }
}

uint32_t qn_states_init(struct qn_states *s, struct qn_grammar *g) {
    *s = (struct qn_states){.g = g};
    struct qn_state *seg = qn_g_take(g, &g->keep, QN_S_SEGMENT * sizeof *seg);
    if (!seg || qn_g_room(g, &s->seg, &s->segs_cap, 1, sizeof *s->seg) < 0) return QN_S_DEAD;
    s->seg[s->n_segs++] = seg;
    seg[0] = (struct qn_state){0};
    s->n = 1;
    add(s, 0, QN_S_DEAD, g->rules[0].body);
    return close_work(s, 0);
}

void qn_states_done(struct qn_states *s) {
    free(s->seg);
    free(s->table.slot);
    free(s->work);
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
    for (int k = 0; k < 2; k++) {
        uint32_t id = k ? b : a;
        const struct qn_state *t = qn_state_at(s, id);
        for (uint32_t i = 0; i < t->n; i++)
            add(s, t->item[i].rule, t->item[i].origin == QN_S_SELF ? id : t->item[i].origin, t->item[i].node);
    }
    return close_work(s, qn_state_at(s, a)->accepts | qn_state_at(s, b)->accepts);
}

void qn_states_drop_rows(struct qn_states *s) {
    for (uint32_t i = 0; i < s->n; i++) qn_state_at(s, i)->to = NULL;
    for (qn_gnode i = 0; i < s->g->n_nodes; i++) qn_gn(s->g, i)->to = NULL;
    qn_garena_empty(s->g, &s->g->rows);
}
