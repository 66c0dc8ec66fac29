/* From a conjunction to its cases: $ref and allOf are followed, and every keyword that offers alternatives (anyOf, oneOf,
 * if, dependencies, an enum that holds objects or arrays) is decided in all ways, depth first with truncation as undo. What
 * the types alone rule out is dropped at once, so unions of unlike values stay as many cases as they have branches. */
#include "api/schema_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct choice {
    const json_t *list;
    int32_t from, hidden;
};

struct work {
    struct qn_schema *c;
    struct qn_satom *atom;
    struct choice *choice;
    struct qn_scase *out;
    uint32_t n, cap, at;
    uint32_t n_choices, cap_choices, choice_at;
    uint32_t n_out, cap_out;
};

/* ---- values ---- */

unsigned qn_s_type_of_value(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return QN_T_OBJECT;
    case JSON_ARRAY: return QN_T_ARRAY;
    case JSON_STRING: return QN_T_STRING;
    case JSON_INTEGER: return QN_T_INT;
    case JSON_REAL: return floor(json_real_value(v)) == json_real_value(v) ? QN_T_INT : QN_T_FRACTION;
    case JSON_TRUE: return QN_T_TRUE;
    case JSON_FALSE: return QN_T_FALSE;
    default: return QN_T_NULL;
    }
}

const char *qn_s_integral(double x, char buf[32]) {
    if (floor(x) != x || !(fabs(x) < 9e18)) return NULL;
    snprintf(buf, 32, "%lld", (long long)x);
    return buf;
}

static int equal_numbers(const json_t *a, const json_t *b) {
    char x[32], y[32];
    if (json_is_integer(a) && json_is_integer(b)) return json_integer_value(a) == json_integer_value(b);
    if (json_is_real(a) && json_is_real(b)) return json_real_value(a) == json_real_value(b);
    const json_t *real = json_is_real(a) ? a : b, *whole = json_is_real(a) ? b : a;
    snprintf(y, sizeof y, "%lld", (long long)json_integer_value(whole));
    const char *s = qn_s_integral(json_real_value(real), x);
    return s && strcmp(s, y) == 0;
}

/* Depth is bounded by the document's. */
int qn_s_equal(const json_t *a, const json_t *b) {
    const char *key;
    json_t *v;
    if (json_is_number(a) && json_is_number(b)) return equal_numbers(a, b);
    if (json_typeof(a) != json_typeof(b)) return 0;
    if (!json_is_object(a) && !json_is_array(a)) return json_equal(a, b);
    if (json_object_size(a) != json_object_size(b) || json_array_size(a) != json_array_size(b)) return 0;
    json_object_foreach((json_t *)(uintptr_t)a, key, v) {
        const json_t *w = json_object_get(b, key);
        if (!w || !qn_s_equal(v, w)) return 0;
    }
    for (size_t i = 0; i < json_array_size(a); i++)
        if (!qn_s_equal(json_array_get(a, i), json_array_get(b, i))) return 0;
    return 1;
}

static unsigned type_named(const char *s) {
    static const struct { const char *name; unsigned bits; } names[] = {
        {"null", QN_T_NULL}, {"boolean", QN_T_BOOL}, {"object", QN_T_OBJECT}, {"array", QN_T_ARRAY},
        {"number", QN_T_NUMBER}, {"integer", QN_T_INT}, {"string", QN_T_STRING}, {QN_KW_FRACTION, QN_T_FRACTION},
    };
    for (size_t i = 0; s && i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, s) == 0) return names[i].bits;
    return 0;
}

unsigned qn_s_types_of(const json_t *s) {
    const json_t *type = qn_s_kw(s, "type"), *list = qn_s_kw(s, "enum"), *one = qn_s_kw(s, "const");
    unsigned types = type ? type_named(json_string_value(type)) : QN_T_ALL, values = 0;
    for (size_t i = 0; i < json_array_size(type); i++) types |= type_named(json_string_value(json_array_get(type, i)));
    if (type && json_is_true(qn_s_kw(s, "nullable"))) types |= QN_T_NULL;
    for (size_t i = 0; i < json_array_size(list); i++) values |= qn_s_type_of_value(json_array_get(list, i));
    if (list) types &= values;
    if (one) types &= qn_s_type_of_value(one);
    list = qn_s_kw(s, QN_KW_NOT_ENUM);
    for (size_t i = 0; i < json_array_size(list); i++)
        types &= ~(qn_s_type_of_value(json_array_get(list, i)) & (QN_T_NULL | QN_T_BOOL));
    return types;
}

/* ---- one atom ---- */

int qn_s_evaluates(const struct qn_scase *k, uint32_t i, uint32_t top) {
    int32_t at = (int32_t)i;
    for (; at >= 0 && (uint32_t)at != top; at = k->v[at].from)
        if (k->v[at].hidden) return 0;
    return at >= 0;
}


static int comes_from_itself(const struct work *w, const json_t *s, int32_t from) {
    for (; from >= 0; from = w->atom[from].from)
        if (w->atom[from].s == s) return 1;
    return 0;
}

static int push(struct work *w, const json_t *s, int32_t from, int hidden) {
    if (!s) return QN_E_RANGE;
    if (comes_from_itself(w, s, from))
        return qn_s_refuse(w->c, s, NULL, "invalid_value", "it refers to itself without a value in between");
    w->atom = qn_s_grow(w->c, w->atom, w->n, &w->cap, sizeof *w->atom);
    if (!w->atom) return QN_E_RANGE;
    w->atom[w->n++] = (struct qn_satom){s, from, hidden};
    return 0;
}

static int offer(struct work *w, const json_t *list, int32_t from, int hidden) {
    if (!list) return QN_E_RANGE;
    w->choice = qn_s_grow(w->c, w->choice, w->n_choices, &w->cap_choices, sizeof *w->choice);
    if (!w->choice) return QN_E_RANGE;
    w->choice[w->n_choices++] = (struct choice){list, from, hidden};
    return 0;
}

static int holds_containers(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (qn_s_type_of_value(json_array_get(list, i)) & (QN_T_OBJECT | QN_T_ARRAY)) return 1;
    return 0;
}

/* Everything but $ref that brings in further schemas. */
static int applicators(struct work *w, const json_t *s, int32_t i) {
    static const char *const choices[] = {"anyOf", "oneOf", "if", "dependencies", "dependentSchemas", "dependentRequired"};
    struct qn_schema *c = w->c;
    const json_t *v = qn_s_kw(s, "allOf"), *no = qn_s_kw(s, "not"), *one = qn_s_kw(s, "const");
    for (size_t k = 0; k < json_array_size(v); k++)
        if (push(w, json_array_get(v, k), i, 0) < 0) return QN_E_RANGE;
    if (no && push(w, qn_s_not(c, no), i, 1) < 0) return QN_E_RANGE;
    for (size_t k = 0; k < sizeof choices / sizeof *choices; k++)
        if (qn_s_kw(s, choices[k]) && offer(w, qn_s_choice(c, s, choices[k]), i, 0) < 0) return QN_E_RANGE;
    if (holds_containers(qn_s_kw(s, "enum")) && offer(w, qn_s_choice(c, s, "enum"), i, 1) < 0) return QN_E_RANGE;
    if (one && (json_is_object(one) || json_is_array(one)) && offer(w, qn_s_choice(c, s, "const"), i, 1) < 0) return QN_E_RANGE;
    return 0;
}

/* 1 when the atom and one before it are each other's negation. */
static int contradicts(struct work *w, const json_t *s) {
    uintptr_t no;
    for (uint32_t i = 0; w->c->negated && i < w->n; i++) {
        const json_t *t = w->atom[i].s;
        if (i % 16 == 15 && qn_grammar_tick(w->c->g) < 0) return 0; /* a long list: time counts in here too */
        if ((qn_s_recall(w->c, t, QN_MAP_NOT, &no) && (const json_t *)no == s) ||
            (qn_s_recall(w->c, s, QN_MAP_NOT, &no) && (const json_t *)no == t))
            return 1;
    }
    return 0;
}

/* Takes in the atoms that wait. 1: go on, 0: no value satisfies them. */
static int settle_atoms(struct work *w, unsigned *types) {
    static const char *const refs[] = {"$ref", "$dynamicRef", "$recursiveRef"};
    while (w->at < w->n) {
        int32_t i = (int32_t)w->at++;
        const json_t *s = w->atom[i].s;
        if (qn_s_tick(w->c) < 0) return QN_E_RANGE;
        if (json_is_false(s) || contradicts(w, s)) return 0;
        if (!json_is_object(s)) continue;
        for (int k = 0; k < 3; k++)
            if (qn_s_kw(s, refs[k]) && push(w, qn_s_deref(w->c, s, refs[k]), i, 0) < 0) return QN_E_RANGE;
        if (qn_s_ref_only(w->c, s)) continue;
        *types &= qn_s_types_of(s);
        if (*types == 0) return 0;
        if (applicators(w, s, i) < 0) return QN_E_RANGE;
    }
    return 1;
}

/* ---- cases ---- */

static int keep(struct work *w, unsigned types) {
    struct qn_schema *c = w->c;
    if (w->n_out >= QN_SCHEMA_CASES_MAX)
        return qn_s_refuse(c, w->n ? w->atom[0].s : NULL, NULL, "invalid_value", "more than %d combinations of alternatives", QN_SCHEMA_CASES_MAX);
    struct qn_satom *v = qn_s_alloc(c, (w->n + 1) * sizeof *v);
    w->out = qn_s_grow(c, w->out, w->n_out, &w->cap_out, sizeof *w->out);
    if (!v || !w->out) return qn_s_refuse(c, NULL, NULL, "invalid_value", "too large");
    if (w->n) memcpy(v, w->atom, w->n * sizeof *v);
    w->out[w->n_out++] = (struct qn_scase){v, w->n, types};
    return 0;
}

static int decide(struct work *w, unsigned types, int depth) {
    int more = settle_atoms(w, &types);
    if (more <= 0) return more;
    if (w->choice_at == w->n_choices) return keep(w, types);
    if (depth > QN_SCHEMA_NEST_MAX) return qn_s_refuse(w->c, w->atom[0].s, NULL, "invalid_value", "too many alternatives side by side");
    struct choice ch = w->choice[w->choice_at++];
    struct work mark = *w;
    for (size_t i = 0; i < json_array_size(ch.list); i++) {
        if (push(w, json_array_get(ch.list, i), ch.from, ch.hidden) < 0 || decide(w, types, depth + 1) < 0) return QN_E_RANGE;
        w->n = mark.n;
        w->at = mark.at;
        w->n_choices = mark.n_choices;
        w->choice_at = mark.choice_at;
    }
    return 0;
}

int qn_s_expand(struct qn_schema *c, struct qn_sconj *k) {
    struct work w = {.c = c};
    if (k->expanded) return QN_S_FAILED(c) ? QN_E_RANGE : 0;
    k->expanded = 1;
    for (uint32_t i = 0; i < k->n; i++)
        if (push(&w, k->v[i], -1, 0) < 0) return QN_E_RANGE;
    if (decide(&w, QN_T_ALL, 0) < 0) return QN_E_RANGE;
    k->cases = w.out;
    k->n_cases = w.n_out;
    return 0;
}
