/* Arrays: a chain of places, each with the conjunction of what all atoms say of it, then a tail that repeats.
 *
 * The chain is made from its end with a state of two numbers: how many items matched `contains` so far (counted up to what
 * matters), or which values of a small enum are used (uniqueItems). Places with the same state are made once. Items of one kind in
 * any number are a repeat that keeps its bounds as numbers, so maxItems 10^9 costs nothing; only a counted chain is written out. */
#include "api/schema_impl.h"

#include <string.h>

enum { WRITTEN_MAX = 4096 /* places x states written out */, UNIQUE_MAX = 8 };

struct arr {
    struct qn_schema *c;
    const struct qn_scase *k;
    double min, max;            /* items; max < 0: no bound */
    uint32_t places;            /* with a schema of their own, the tail after them */
    const json_t *count;        /* `contains`, or what QN_KW_SOME_ITEM asks for; NULL: nothing is counted */
    uint32_t count_from;
    double least, most;         /* how often; most < 0: no bound */
    int unique;
    qn_gnode comma;
    uint32_t states;
    qn_gnode *made;             /* [place][state], 0: not yet (a made NONE is remembered in `known`) */
    uint8_t *known;
};

static size_t prefix(const json_t *s, const json_t **list) {
    const json_t *items = qn_s_kw(s, "items");
    *list = json_is_array(items) ? items : qn_s_kw(s, "prefixItems");
    return json_array_size(*list);
}

/* What atom s says of items after its list; NULL: nothing. */
static const json_t *rest(const json_t *s) {
    const json_t *items = qn_s_kw(s, "items");
    return json_is_array(items) ? qn_s_kw(s, "additionalItems") : items;
}

/* 1: item `place` was looked at by an atom that came in through atom `top` (or by itself). */
static int evaluated(const struct arr *a, uint32_t top, uint32_t place) {
    for (uint32_t i = top; i < a->k->n; i++) {
        const json_t *s = qn_s_atom(a->c, a->k, i), *list;
        if (!s || !qn_s_evaluates(a->k, i, top)) continue;
        if (place < prefix(s, &list) || rest(s) || (i != top && qn_s_kw(s, "unevaluatedItems"))) return 1;
    }
    return 0;
}

/* The conjunction at a place, with `more` (may be NULL) added. */
static qn_conj place(const struct arr *a, uint32_t at, const json_t *more) {
    const json_t **v = qn_s_alloc(a->c, (a->k->n * 2 + 1) * sizeof *v), *list;
    size_t n = 0;
    if (!v) return QN_CONJ_NEVER;
    for (uint32_t i = 0; i < a->k->n; i++) {
        const json_t *s = qn_s_atom(a->c, a->k, i), *r = rest(s), *u = qn_s_kw(s, "unevaluatedItems");
        if (at < prefix(s, &list)) v[n++] = json_array_get(list, at);
        else if (r) v[n++] = r;
        if (u && !evaluated(a, i, at)) v[n++] = u;
    }
    if (more) v[n++] = more;
    return qn_s_conj(a->c, v, n);
}

/* ---- what the atoms ask for ---- */

static int refuse(struct qn_schema *c, const json_t *s, const char *kw, const char *why) {
    return qn_s_refuse(c, s, kw, "unsupported_value", "%s", why);
}

static int count(struct arr *a, const json_t *s, const char *kw, const json_t *what, uint32_t from, double least, double most) {
    if (least <= 0 && most < 0) return 0;
    if (a->count && a->count != what) return refuse(a->c, s, kw, "more than one `contains` for one array is not supported");
    a->count = what;
    a->count_from = from;
    if (least > a->least) a->least = least;
    if (most >= 0 && (a->most < 0 || most < a->most)) a->most = most;
    return 0;
}

static int read_atom(struct arr *a, const json_t *s) {
    const json_t *lo = qn_s_kw(s, "minItems"), *hi = qn_s_kw(s, "maxItems"), *has = qn_s_kw(s, "contains"), *list,
                 *some = qn_s_kw(s, QN_KW_SOME_ITEM), *least = qn_s_kw(s, "minContains"), *most = qn_s_kw(s, "maxContains");
    if (lo && json_number_value(lo) > a->min) a->min = json_number_value(lo);
    if (hi && (a->max < 0 || json_number_value(hi) < a->max)) a->max = json_number_value(hi);
    if (prefix(s, &list) > a->places) a->places = (uint32_t)json_array_size(list);
    if (json_is_true(qn_s_kw(s, "uniqueItems"))) a->unique = 1;
    if (has && count(a, s, "contains", has, 0, least ? json_number_value(least) : 1, most ? json_number_value(most) : -1) < 0) return QN_E_RANGE;
    if (has && qn_s_kw(s, "unevaluatedItems")) return refuse(a->c, s, "unevaluatedItems", "`unevaluatedItems` beside `contains` is not supported");
    if (!some) return 0;
    return count(a, s, NULL, qn_s_kw(some, "schema"), (uint32_t)json_number_value(qn_s_kw(some, "from")), 1, -1);
}

static int read_atoms(struct arr *a) {
    a->max = a->most = -1;
    for (uint32_t i = 0; i < a->k->n; i++) {
        const json_t *s = qn_s_atom(a->c, a->k, i);
        if (s && read_atom(a, s) < 0) return QN_E_RANGE;
    }
    return 0;
}

/* ---- unique items: only of small enums ---- */

/* Where all items are scalars of one list, that list: uniqueItems is counting which of them are used. */
static const json_t *small_enum(struct arr *a) {
    qn_conj id = place(a, a->places, NULL);
    if (id < 0 || a->places || a->c->conj[id]->n == 0 || qn_s_expand(a->c, a->c->conj[id]) < 0 || a->c->conj[id]->n_cases != 1) return NULL;
    const struct qn_scase *k = &a->c->conj[id]->cases[0];
    if (k->types & (QN_T_OBJECT | QN_T_ARRAY)) return NULL;
    for (uint32_t i = 0; i < k->n; i++) {
        const json_t *list = qn_s_kw(qn_s_atom(a->c, k, i), "enum");
        if (list && json_array_size(list) <= UNIQUE_MAX) return list;
    }
    return NULL;
}

static int settle_unique(struct arr *a, const json_t **list) {
    *list = NULL;
    if (!a->unique || (a->max >= 0 && a->max <= 1)) return 0;
    if (qn_s_sat(a->c, place(a, 1, NULL)) == 0) return 0; /* there is no second item */
    *list = a->count ? NULL : small_enum(a);
    if (*list) return 0;
    for (uint32_t i = 0; i < a->k->n; i++)
        if (json_is_true(qn_s_kw(a->k->v[i].s, "uniqueItems")))
            return refuse(a->c, a->k->v[i].s, "uniqueItems", "`uniqueItems` is supported for at most one item and for an enum of up to 8 scalars");
    return 0;
}

/* All sequences of different values: `used` is a bit for each. */
static qn_gnode unique_rest(struct arr *a, const json_t *list, uint32_t used, uint32_t n) {
    if (a->known[used]) return a->made[used];
    qn_gnode out = n >= a->min ? QN_G_EMPTY : QN_G_NONE;
    for (size_t i = 0; i < json_array_size(list) && (a->max < 0 || n < a->max) && qn_s_tick(a->c) == 0; i++) {
        const json_t *v = json_array_get(list, i), *only;
        int again = 0;
        for (size_t j = 0; j < i; j++) again |= qn_s_equal(json_array_get(list, j), v);
        if (used >> i & 1 || again) continue;
        only = qn_s_own(a->c, json_pack("{s:O}", "const", v));
        qn_gnode item = only ? qn_s_node(a->c, place(a, 0, only)) : QN_G_NONE;
        item = qn_g_cat(a->c->g, qn_g_cat(a->c->g, item, a->c->ws), unique_rest(a, list, used | 1u << i, n + 1));
        out = qn_g_alt(a->c->g, out, n ? qn_g_cat(a->c->g, a->comma, item) : item);
    }
    a->known[used] = 1;
    return a->made[used] = out;
}

/* ---- the chain ---- */

/* `n` after a comma, unless it is the first. */
static qn_gnode element(struct arr *a, uint32_t at, qn_gnode n) {
    if (n == QN_G_NONE) return n;
    n = qn_g_cat(a->c->g, n, a->c->ws);
    return at ? qn_g_cat(a->c->g, a->comma, n) : n;
}

static uint32_t bound(double v) { return v < 0 || v >= QN_G_INF ? QN_G_INF : (uint32_t)v; }
static double less(double v, double by) { return v < 0 ? v : v > by ? v - by : 0; }

static const json_t *opposite(struct arr *a) { return a->most >= 0 ? qn_s_not(a->c, a->count) : NULL; }

/* Items from a place on where all places are alike and no minimum is left; the chain before has at least one item. */
static qn_gnode tail(struct arr *a, uint32_t at, uint32_t seen) {
    struct qn_grammar *g = a->c->g;
    uint32_t left = bound(less(a->max, at));
    if (!a->count) return qn_g_repeat(g, element(a, 1, qn_s_node(a->c, place(a, at, NULL))), bound(less(a->min, at)), left);
    qn_gnode plain = element(a, 1, qn_s_node(a->c, place(a, at, opposite(a)))), hit = element(a, 1, qn_s_node(a->c, place(a, at, a->count)));
    qn_gnode run = qn_g_repeat(g, plain, 0, QN_G_INF), once = qn_g_cat(g, run, hit);
    uint32_t most = a->most < 0 ? bound(less(a->least, seen)) : bound(less(a->most, seen));
    return qn_g_cat(g, qn_g_repeat(g, once, bound(less(a->least, seen)), most), run);
}

static qn_gnode chain(struct arr *a, uint32_t at, uint32_t seen);

static qn_gnode step(struct arr *a, uint32_t at, uint32_t seen) {
    struct qn_grammar *g = a->c->g;
    qn_gnode out = at >= a->min && seen >= a->least ? QN_G_EMPTY : QN_G_NONE;
    if (a->max >= 0 && at >= a->max) return out;
    int counts = a->count && at >= a->count_from;
    uint32_t hit_state = a->most < 0 && seen >= a->least ? seen : seen + 1; /* past the minimum nothing matters without a maximum */
    qn_gnode n = element(a, at, qn_s_node(a->c, place(a, at, counts ? opposite(a) : NULL)));
    if (n != QN_G_NONE) out = qn_g_alt(g, out, qn_g_cat(g, n, chain(a, at + 1, seen)));
    if (!counts || hit_state == seen || (a->most >= 0 && hit_state > a->most)) return out;
    n = element(a, at, qn_s_node(a->c, place(a, at, a->count)));
    return n == QN_G_NONE ? out : qn_g_alt(g, out, qn_g_cat(g, n, chain(a, at + 1, hit_state)));
}

/* Places up to which the chain is written out. */
static double written(const struct arr *a) {
    double n = a->places > 1 ? a->places : 1;
    if (!a->count) return n;
    if (a->count_from > n) n = a->count_from;
    if (a->min > n) n = a->min;
    return a->max > n ? a->max : n;
}

static qn_gnode chain(struct arr *a, uint32_t at, uint32_t seen) {
    size_t i = (size_t)at * a->states + seen;
    if (a->known[i]) return a->made[i];
    qn_gnode out = QN_G_NONE;
    if (qn_s_tick(a->c) == 0) {
        if (at >= written(a) && !(a->count && a->max >= 0)) out = tail(a, at, seen);
        else out = step(a, at, seen);
        if (at % 8 == 7 && out != QN_G_NONE) { /* or a long list would be a deep expression */
            qn_gnode rule = qn_g_rule(a->c->g);
            qn_g_rule_set(a->c->g, rule, out);
            out = rule;
        }
    }
    a->known[i] = 1;
    return a->made[i] = out;
}

static qn_gnode items(struct arr *a) {
    const json_t *list;
    if (read_atoms(a) < 0 || settle_unique(a, &list) < 0 || (a->max >= 0 && a->min > a->max)) return QN_G_NONE;
    double most = a->most < 0 ? a->least : a->most;
    double size = list ? 1 << UNIQUE_MAX : (written(a) + 2) * (most + 2);
    if (size > WRITTEN_MAX && a->count) {
        qn_s_refuse(a->c, a->k->n ? a->k->v[0].s : NULL, NULL, "unsupported_value", "`contains` with so many items is not supported");
        return QN_G_NONE;
    }
    a->states = (uint32_t)most + 2;
    a->made = qn_s_alloc(a->c, (size_t)size * sizeof *a->made);
    a->known = qn_s_alloc(a->c, (size_t)size);
    if (!a->made || !a->known) return QN_G_NONE;
    return list ? unique_rest(a, list, 0, 0) : chain(a, 0, 0);
}

qn_gnode qn_s_array(struct qn_schema *c, const struct qn_scase *k) {
    struct arr a = {.c = c, .k = k, .comma = qn_s_token(c, ",")};
    return qn_g_cat(c->g, qn_s_token(c, "["), qn_g_cat(c->g, items(&a), qn_g_bytes(c->g, "]", 1)));
}

int qn_s_array_sat(struct qn_schema *c, const struct qn_scase *k) {
    struct arr a = {.c = c, .k = k};
    if (read_atoms(&a) < 0) return 1;
    if (a.max >= 0 && a.min > a.max) return 0;
    for (uint32_t i = 0; i < a.min && i <= a.places; i++)
        if (!qn_s_sat(c, place(&a, i, NULL))) return 0;
    return a.count && a.least > 0 && a.places == 0 ? qn_s_sat(c, place(&a, 0, a.count)) : 1;
}
