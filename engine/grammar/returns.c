/* Return sets of the rules that one state calls. A rule's set lists where each call goes on; a call made by the body of a called rule goes on
 * to that rule's own set, which may not be made yet. So sets are made as their parts become known; what is left then holds each
 * other and is made as one system. A set of its own that would say the same as one it holds is that one. */
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/states.h"

enum { CANDIDATES = 16 }; /* members of a set that it is compared with */

static int by_ret(const void *a, const void *b) {
    const struct qn_item *x = a, *y = b;
    if (x->ret != y->ret) return x->ret < y->ret ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

static void sort_items(struct qn_item *v, uint32_t n) {
    if (n > 16) {
        qsort(v, n, sizeof *v, by_ret);
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        struct qn_item x = v[i];
        uint32_t k = i;
        for (; k > 0 && by_ret(&v[k - 1], &x) > 0; k--) v[k] = v[k - 1];
        v[k] = x;
    }
}

uint32_t qn_items_order(struct qn_grammar *g, struct qn_item *v, uint32_t n, int empty) {
    uint32_t k = 0, at = g->pile.n;
    sort_items(v, n);
    for (uint32_t i = 0; i < n && !g->error;) {
        struct qn_item x = v[i];
        if (i + 1 == n || v[i + 1].ret != x.ret) {
            i++;
        } else {
            for (; i < n && v[i].ret == x.ret; i++) qn_g_push(g, &g->pile, v[i].node);
            x.node = qn_gn_alt_pile(g, at);
            g->pile.n = at;
        }
        if (empty || x.node != QN_G_EMPTY) v[k++] = x;
    }
    return k;
}

/* --- interning --- */

static uint32_t hash_of_ret(const void *user, uint32_t id) { return ((const struct qn_states *)user)->ret[id].hash; }

/* v, whose references to its own system are QN_R_CALL + place, is what stands under id. */
static int same_ret(const struct qn_states *s, uint32_t id, uint32_t base, const struct qn_item *v, uint32_t n) {
    const struct qn_return *r = &s->ret[id];
    if (r->n != n) return 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t ret = v[i].ret & QN_R_CALL ? base + (v[i].ret & ~QN_R_CALL) : v[i].ret;
        if (r->item[i].node != v[i].node || r->item[i].ret != ret) return 0;
    }
    return 1;
}

static uint32_t new_ret(struct qn_states *s, const struct qn_item *v, uint32_t n, uint32_t base, uint32_t size, uint32_t hash) {
    struct qn_grammar *g = s->g;
    uint32_t id = s->n_rets;
    struct qn_item *copy = qn_g_take(g, &g->keep, n * sizeof *copy + 1);
    if (!copy || qn_g_room(g, &s->ret, &s->rets_cap, id + 1, sizeof *s->ret) < 0) return QN_R_ROOT;
    for (uint32_t i = 0; i < n; i++) {
        copy[i] = v[i];
        if (v[i].ret & QN_R_CALL) copy[i].ret = base + (v[i].ret & ~QN_R_CALL);
    }
    s->ret[id] = (struct qn_return){.item = copy, .n = n, .hash = hash, .base = base, .size = size};
    s->n_rets++;
    return id;
}

static int into_table(struct qn_states *s, uint32_t id) {
    if (qn_gtable_room(s->g, &s->ret_table, hash_of_ret, s) < 0) return s->g->error;
    uint32_t k = s->ret[id].hash & s->ret_table.mask;
    while (s->ret_table.slot[k]) k = (k + 1) & s->ret_table.mask;
    s->ret_table.slot[k] = id;
    s->ret_table.n++;
    return 0;
}

/* One that v holds and that says all v says, or ROOT: itself put for v's references to v, nothing is new. */
static uint32_t says_the_same(struct qn_states *s, const struct qn_item *v, uint32_t n) {
    struct qn_grammar *g = s->g;
    struct qn_items *t = &s->trial;
    for (uint32_t c = 0; c < n && c < CANDIDATES && !g->error; c++) {
        uint32_t id = v[c].ret;
        if (id == QN_R_ROOT || id & QN_R_CALL || s->ret[id].size != 1 || s->ret[id].n > n) continue;
        if (qn_g_room(g, &t->v, &t->cap, n, sizeof *t->v) < 0) break;
        for (uint32_t i = 0; i < n; i++) t->v[i] = (struct qn_item){v[i].node, v[i].ret & QN_R_CALL ? id : v[i].ret};
        t->n = qn_items_order(g, t->v, n, 1);
        if (!g->error && same_ret(s, id, id, t->v, t->n)) return id;
    }
    return QN_R_ROOT;
}

static uint32_t hash_items(struct qn_grammar *g, const struct qn_item *v, uint32_t n) { return qn_g_hash(g, (const uint32_t *)(const void *)v, (size_t)n * 2); }

static uint32_t intern_one(struct qn_states *s, const struct qn_item *v, uint32_t n) {
    if (qn_gtable_room(s->g, &s->ret_table, hash_of_ret, s) < 0) return QN_R_ROOT;
    uint32_t hash = hash_items(s->g, v, n), id;
    for (uint32_t k = hash & s->ret_table.mask; (id = s->ret_table.slot[k]) != 0; k = (k + 1) & s->ret_table.mask)
        if (s->ret[id].hash == hash && s->ret[id].size == 1 && same_ret(s, id, id, v, n)) return id;
    id = says_the_same(s, v, n);
    if (id || s->g->error) return id;
    id = new_ret(s, v, n, s->n_rets, 1, hash);
    return id && into_table(s, id) == 0 ? id : QN_R_ROOT;
}

/* --- the rules of one state --- */

static int by_rule(const void *a, const void *b) {
    const struct qn_call *x = a, *y = b;
    if (x->rule != y->rule) return x->rule < y->rule ? -1 : 1;
    return by_ret(&x->back, &y->back);
}

/* What is known of the calls at [from, to), in s->group, in order: references to rule `self` or to a rule of the system as QN_R_CALL + place.
 * 0: a part of it is not made yet. */
static int gather(struct qn_states *s, uint32_t from, uint32_t to, int system) {
    struct qn_grammar *g = s->g;
    struct qn_items *v = &s->group;
    if (qn_g_room(g, &v->v, &v->cap, to - from, sizeof *v->v) < 0) return 0;
    v->n = 0;
    for (uint32_t i = from; i < to; i++) {
        struct qn_item x = s->call[i].back;
        if (x.ret & QN_R_CALL) {
            const struct qn_grule *r = &g->rules[x.ret & ~QN_R_CALL];
            if (r->ret != QN_R_ROOT) x.ret = r->ret;
            else if (system) x.ret = QN_R_CALL | r->place;
            else if ((x.ret & ~QN_R_CALL) == s->call[from].rule) x.ret = QN_R_CALL;
            else return 0;
        }
        v->v[v->n++] = x;
    }
    v->n = qn_items_order(g, v->v, v->n, 1);
    return !g->error;
}

static uint32_t end_of(const struct qn_states *s, uint32_t from) {
    uint32_t to = from + 1;
    while (to < s->n_calls && s->call[to].rule == s->call[from].rule) to++;
    return to;
}

/* Makes those whose parts are known. Returns how many remain. */
static uint32_t resolve_known(struct qn_states *s, uint32_t *made) {
    uint32_t left = 0;
    *made = 0;
    for (uint32_t i = 0, to; i < s->n_calls && !s->g->error; i = to) {
        struct qn_grule *r = &s->g->rules[s->call[i].rule];
        to = end_of(s, i);
        if (r->ret != QN_R_ROOT) continue;
        if (!gather(s, i, to, 0)) {
            r->place = left++;
            continue;
        }
        r->ret = intern_one(s, s->group.v, s->group.n);
        ++*made;
    }
    return left;
}

/* The system that stands at `id` is what the rules left over say. */
static int same_system(struct qn_states *s, uint32_t id, uint32_t size) {
    if (s->ret[id].base != id || s->ret[id].size != size) return 0;
    for (uint32_t i = 0, to, k = 0; i < s->n_calls && !s->g->error; i = to) {
        to = end_of(s, i);
        if (s->g->rules[s->call[i].rule].ret != QN_R_ROOT) continue;
        if (!gather(s, i, to, 1) || !same_ret(s, id + k++, id, s->group.v, s->group.n)) return 0;
    }
    return !s->g->error;
}

/* The rules left over hold each other: made, or found, as one. The table has only the first of them. */
static int resolve_system(struct qn_states *s, uint32_t size) {
    struct qn_grammar *g = s->g;
    uint32_t hash = size, base = 0, k = 0, id;
    for (uint32_t i = 0, to; i < s->n_calls && !g->error; i = to) {
        to = end_of(s, i);
        if (g->rules[s->call[i].rule].ret == QN_R_ROOT && gather(s, i, to, 1)) hash = hash * 31 + hash_items(g, s->group.v, s->group.n);
    }
    if (g->error || qn_gtable_room(g, &s->ret_table, hash_of_ret, s) < 0) return g->error;
    for (k = hash & s->ret_table.mask; (id = s->ret_table.slot[k]) != 0 && !base; k = (k + 1) & s->ret_table.mask)
        if (s->ret[id].hash == hash && same_system(s, id, size)) base = id;
    int found = base != 0;
    if (!found) base = s->n_rets;
    for (uint32_t i = 0, to; i < s->n_calls && !g->error && !found; i = to) {
        to = end_of(s, i);
        if (g->rules[s->call[i].rule].ret == QN_R_ROOT && gather(s, i, to, 1)) new_ret(s, s->group.v, s->group.n, base, size, hash);
    }
    if (!found && !g->error) into_table(s, base);
    for (uint32_t i = 0; i < s->n_calls; i++)
        if (g->rules[s->call[i].rule].ret == QN_R_ROOT) g->rules[s->call[i].rule].ret = base + g->rules[s->call[i].rule].place;
    return g->error;
}

int qn_returns_resolve(struct qn_states *s) {
    uint32_t made, left, k = 0;
    qsort(s->call, s->n_calls, sizeof *s->call, by_rule);
    for (uint32_t i = 0; i < s->n_calls; i++) {
        s->g->rules[s->call[i].rule].ret = QN_R_ROOT;
        if (k == 0 || memcmp(&s->call[k - 1], &s->call[i], sizeof *s->call)) s->call[k++] = s->call[i];
    }
    s->n_calls = k;
    do left = resolve_known(s, &made);
    while (left && made && !s->g->error);
    return left && !s->g->error ? resolve_system(s, left) : s->g->error;
}
