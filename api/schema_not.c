/* Rewriting: schemas that say what a keyword of alternatives says, and negations.
 *
 * not S is "one of S's keywords is broken", and each broken keyword is a schema again: not minLength 3 is a string of maxLength 2,
 * not required [a] an object with a: false, not properties {a: S} an object that has an a which is not S. What only some member or some
 * item can break needs an "exists" (QN_KW_SOME_…), which schema_object.c and schema_array.c can count. So complement never meets a
 * recursive rule. oneOf is the union of its branches, each without what the others match, where two branches can meet at all.
 * What is written here lies in c->own and shares the document's parts. */
#include "api/schema_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SETS_OF = 5 /* branches of an anyOf whose sets are tried */ };

static json_t *share(const json_t *j) { return json_incref((json_t *)(uintptr_t)j); }
static json_t *pair(const char *k, json_t *v) { return json_pack("{s:o}", k, v); }
static json_t *negated(const json_t *s) { return pair("not", share(s)); }

/* What is lost for want of memory would loosen a constraint: the compile fails then. */
static void no_memory(struct qn_schema *c) { qn_s_own(c, NULL); }
static void put(struct qn_schema *c, json_t *list, json_t *j) {
    if (json_array_append_new(list, j) < 0) no_memory(c);
}

/* {type, kw: v} */
static json_t *typed(const char *type, const char *kw, json_t *v) { return json_pack("{s:s, s:o}", "type", type, kw, v); }

/* An object that has `name`, with a value that is `v`. */
static json_t *having(const char *name, json_t *v) {
    return json_pack("{s:s, s:[s], s:o}", "type", "object", "required", name, "properties", pair(name, v));
}
static json_t *lacking(const char *name) { return typed("object", "properties", pair(name, json_false())); }

/* An object or array as a schema that only it satisfies. */
static json_t *by_parts(struct qn_schema *c, const json_t *v) {
    const char *key;
    json_t *x, *kids = json_is_object(v) ? json_object() : json_array(), *names = json_array();
    json_object_foreach((json_t *)(uintptr_t)v, key, x) {
        if (json_object_set_new(kids, key, pair("const", share(x))) < 0) no_memory(c);
        put(c, names, json_string(key));
    }
    for (size_t i = 0; i < json_array_size(v); i++) put(c, kids, pair("const", share(json_array_get(v, i))));
    if (json_is_object(v)) return json_pack("{s:s, s:o, s:o, s:b}", "type", "object", "properties", kids, "required", names, "additionalProperties", 0);
    json_decref(names);
    json_int_t n = (json_int_t)json_array_size(v);
    return json_pack("{s:s, s:o, s:I, s:I}", "type", "array", "prefixItems", kids, "minItems", n, "maxItems", n);
}

/* The same, once for each value: not having it is the negation of having it then. NULL: failed. */
static json_t *exactly(struct qn_schema *c, const json_t *v) {
    uintptr_t known;
    if (qn_s_recall(c, v, QN_MAP_DECOMPOSED, &known)) return (json_t *)known;
    json_t *j = qn_s_own(c, by_parts(c, v));
    return j && qn_s_remember(c, v, QN_MAP_DECOMPOSED, (uintptr_t)j) == 0 ? j : NULL;
}

/* ---- what breaks a keyword: schemas appended to `out` ---- */

struct negation {
    struct qn_schema *c;
    const json_t *s; /* the schema that is negated */
    const char *kw;
    const json_t *v;
    json_t *out;
};

static int add(const struct negation *n, json_t *j) {
    if (json_array_append_new(n->out, j) == 0) return 0;
    return qn_s_refuse(n->c, n->s, n->kw, "invalid_value", "too large");
}

static int no_type(const struct negation *n) {
    static const struct { unsigned bits; const char *name; } names[] = {
        {QN_T_NULL, "null"}, {QN_T_BOOL, "boolean"}, {QN_T_OBJECT, "object"}, {QN_T_ARRAY, "array"},
        {QN_T_STRING, "string"}, {QN_T_INT, "integer"}, {QN_T_FRACTION, QN_KW_FRACTION},
    };
    json_t *bare = json_pack("{s:o}", "type", share(n->v)), *list = json_array();
    if (qn_s_kw(n->s, "nullable") && json_object_set_new(bare, "nullable", share(qn_s_kw(n->s, "nullable"))) < 0) no_memory(n->c);
    unsigned types = qn_s_types_of(bare);
    json_decref(bare);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(types & names[i].bits)) put(n->c, list, json_string(names[i].name));
    if (json_array_size(list)) return add(n, pair("type", list));
    json_decref(list);
    return 0;
}

/* A list of what equals one of the values: scalars by their own keyword, containers by structure. */
static int no_values(const struct negation *n) {
    json_t *plain = json_array(), *all = json_array(), *only = json_is_array(n->v) && strcmp(n->kw, "const") != 0 ? share(n->v) : json_pack("[O]", n->v);
    for (size_t i = 0; i < json_array_size(only); i++) {
        json_t *v = json_array_get(only, i);
        if (json_is_object(v) || json_is_array(v)) put(n->c, all, negated(exactly(n->c, v)));
        else put(n->c, plain, share(v));
    }
    if (json_array_size(plain)) put(n->c, all, pair(QN_KW_NOT_ENUM, share(plain)));
    json_decref(plain);
    json_decref(only);
    return add(n, pair("allOf", all));
}

static json_t *count_json(double v) { return json_integer((json_int_t)v); }

static int no_bound(const struct negation *n) {
    static const struct { const char *kw, *type, *instead; int by; } rows[] = {
        {"minLength", "string", "maxLength", -1}, {"maxLength", "string", "minLength", 1},
        {"minItems", "array", "maxItems", -1}, {"maxItems", "array", "minItems", 1},
        {"minProperties", "object", "maxProperties", -1}, {"maxProperties", "object", "minProperties", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double v = json_number_value(n->v) + rows[i].by;
        if (strcmp(rows[i].kw, n->kw) == 0) return v < 0 ? 0 : add(n, typed(rows[i].type, rows[i].instead, count_json(v)));
    }
    return 0;
}

static int no_range(const struct negation *n) {
    int low = strstr(n->kw, "inimum") != NULL, exclusive = n->kw[0] == 'e';
    if (exclusive && json_is_boolean(n->v)) return 0; /* draft 4: said with minimum or maximum */
    if (!exclusive) exclusive = json_is_true(qn_s_kw(n->s, low ? "exclusiveMinimum" : "exclusiveMaximum"));
    const char *instead = low ? (exclusive ? "maximum" : "exclusiveMaximum") : (exclusive ? "minimum" : "exclusiveMinimum");
    return add(n, typed("number", instead, share(n->v)));
}

static int no_text(const struct negation *n) {
    if (strcmp(n->kw, "format") == 0) return 0; /* to others it may be an annotation: nobody must need it to be broken */
    if (strcmp(n->kw, "multipleOf") == 0) return add(n, typed("number", QN_KW_NOT_MULTIPLE, share(n->v)));
    return add(n, typed("string", QN_KW_NOT_PATTERN, share(n->v)));
}

static int no_names(const struct negation *n) {
    for (size_t i = 0; i < json_array_size(n->v); i++)
        if (add(n, lacking(json_string_value(json_array_get(n->v, i)))) < 0) return QN_E_RANGE;
    return 0;
}

static int no_members(const struct negation *n) {
    const char *key;
    json_t *v;
    int patterns = strcmp(n->kw, "patternProperties") == 0;
    json_object_foreach((json_t *)(uintptr_t)n->v, key, v) {
        json_t *some = patterns ? json_pack("{s:s, s:o}", "key", key, "schema", negated(v)) : NULL;
        if (add(n, patterns ? typed("object", QN_KW_SOME_MEMBER, some) : having(key, negated(v))) < 0) return QN_E_RANGE;
    }
    return 0;
}

static int no_extra(const struct negation *n) {
    return add(n, typed("object", QN_KW_SOME_MEMBER, json_pack("{s:O, s:o}", "of", n->s, "schema", negated(n->v))));
}

static int no_name_schema(const struct negation *n) { return add(n, typed("object", QN_KW_BAD_NAME, share(n->v))); }

/* Of these, `k` items come first and are free. */
static json_t *free_items(struct qn_schema *c, size_t k, json_t *then) {
    json_t *list = json_array();
    for (size_t i = 0; i < k; i++) put(c, list, json_true());
    put(c, list, then);
    return list;
}

static int no_item_list(const struct negation *n) {
    for (size_t i = 0; i < json_array_size(n->v); i++) {
        json_t *list = free_items(n->c, i, negated(json_array_get(n->v, i)));
        if (add(n, json_pack("{s:s, s:I, s:o}", "type", "array", "minItems", (json_int_t)i + 1, "prefixItems", list)) < 0) return QN_E_RANGE;
    }
    return 0;
}

static int no_items(const struct negation *n) {
    const json_t *list = qn_s_kw(n->s, "prefixItems"), *items = qn_s_kw(n->s, "items");
    if (json_is_array(n->v)) return no_item_list(n);
    if (strcmp(n->kw, "additionalItems") == 0 && !json_is_array(items)) return 0;
    size_t from = json_array_size(json_is_array(items) ? items : list);
    return add(n, typed("array", QN_KW_SOME_ITEM, json_pack("{s:I, s:o}", "from", (json_int_t)from, "schema", negated(n->v))));
}

static int no_contains(const struct negation *n) {
    const json_t *lo = qn_s_kw(n->s, "minContains"), *hi = qn_s_kw(n->s, "maxContains");
    double least = lo ? json_number_value(lo) : 1;
    if (hi && add(n, json_pack("{s:s, s:O, s:o}", "type", "array", "contains", n->v, "minContains", count_json(json_number_value(hi) + 1))) < 0)
        return QN_E_RANGE;
    if (least == 1) return add(n, typed("array", "items", negated(n->v)));
    if (least == 0) return 0;
    return add(n, json_pack("{s:s, s:O, s:i, s:o}", "type", "array", "contains", n->v, "minContains", 0, "maxContains", count_json(least - 1)));
}

static int no_all(const struct negation *n) {
    for (size_t i = 0; i < json_array_size(n->v); i++)
        if (add(n, negated(json_array_get(n->v, i))) < 0) return QN_E_RANGE;
    return 0;
}

static int no_any(const struct negation *n) {
    json_t *all = json_array();
    for (size_t i = 0; i < json_array_size(n->v); i++) put(n->c, all, negated(json_array_get(n->v, i)));
    return add(n, pair("allOf", all));
}

/* None of them, or two. */
static int no_one(const struct negation *n) {
    if (no_any(n) < 0) return QN_E_RANGE;
    for (size_t i = 0; i < json_array_size(n->v); i++)
        for (size_t j = 0; j < i; j++)
            if (add(n, json_pack("{s:[O, O]}", "allOf", json_array_get(n->v, i), json_array_get(n->v, j))) < 0) return QN_E_RANGE;
    return 0;
}

static int no_not(const struct negation *n) { return add(n, share(n->v)); }

/* if, dependencies…: their list of alternatives, all broken. */
static int no_choice(const struct negation *n) {
    const json_t *list = qn_s_choice(n->c, n->s, n->kw);
    return list ? no_any(&(struct negation){n->c, n->s, n->kw, list, n->out}) : QN_E_RANGE;
}

static int no_ref(const struct negation *n) {
    const json_t *t = qn_s_deref(n->c, n->s, n->kw);
    return t ? add(n, negated(t)) : QN_E_RANGE;
}

static int refused(const struct negation *n) {
    if (strcmp(n->kw, "uniqueItems") == 0 && !json_is_true(n->v)) return 0;
    return qn_s_refuse(n->c, n->s, n->kw, "unsupported_value",
                       "`%s` is not supported below `not`, `if`, or in a `oneOf` whose branches can match the same value", n->kw);
}

/* A negation of ours, negated. */
static int again(const struct negation *n) {
    static const struct { const char *kw, *type, *instead; } rows[] = {
        {QN_KW_NOT_PATTERN, "string", "pattern"}, {QN_KW_NOT_MULTIPLE, "number", "multipleOf"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(n->kw, rows[i].kw) == 0) return add(n, typed(rows[i].type, rows[i].instead, share(n->v)));
    return add(n, pair("enum", share(n->v)));
}

static int undone(const struct negation *n) { /* "no member is…" and "no item is…" have no words of their own */
    return qn_s_refuse(n->c, NULL, NULL, "unsupported_value", "a `not`, `if` or `oneOf` is nested too deeply to be worked out (%s)", n->kw + 1);
}

static const struct {
    const char *kw;
    int (*breaks)(const struct negation *n);
} broken[] = {
    {"type", no_type}, {"enum", no_values}, {"const", no_values}, {"minLength", no_bound}, {"maxLength", no_bound}, {"minItems", no_bound},
    {"maxItems", no_bound}, {"minProperties", no_bound}, {"maxProperties", no_bound}, {"minimum", no_range}, {"maximum", no_range},
    {"exclusiveMinimum", no_range}, {"exclusiveMaximum", no_range}, {"pattern", no_text}, {"format", no_text}, {"multipleOf", no_text},
    {"required", no_names}, {"properties", no_members}, {"patternProperties", no_members}, {"additionalProperties", no_extra},
    {"propertyNames", no_name_schema}, {"prefixItems", no_items}, {"items", no_items}, {"additionalItems", no_items},
    {"contains", no_contains}, {"allOf", no_all}, {"anyOf", no_any}, {"oneOf", no_one}, {"not", no_not}, {"if", no_choice},
    {"dependencies", no_choice}, {"dependentSchemas", no_choice}, {"dependentRequired", no_choice}, {"$ref", no_ref}, {"$dynamicRef", no_ref},
    {"$recursiveRef", no_ref}, {"uniqueItems", refused}, {"unevaluatedProperties", refused}, {"unevaluatedItems", refused},
    {QN_KW_NOT_ENUM, again}, {QN_KW_NOT_PATTERN, again}, {QN_KW_NOT_MULTIPLE, again},
    {QN_KW_SOME_ITEM, undone}, {QN_KW_SOME_MEMBER, undone}, {QN_KW_BAD_NAME, undone},
};

static int break_each(struct qn_schema *c, const json_t *s, json_t *out) {
    int ref_only = qn_s_ref_only(c, s);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct negation n = {c, s, broken[i].kw, qn_s_kw(s, broken[i].kw), out};
        if (!n.v || (ref_only && strcmp(n.kw, "$ref") != 0)) continue;
        if (qn_s_tick(c) < 0 || broken[i].breaks(&n) < 0) return QN_E_RANGE;
    }
    return 0;
}

const json_t *qn_s_not(struct qn_schema *c, const json_t *s) {
    uintptr_t known;
    if (json_is_boolean(s)) return json_is_true(s) ? json_false() : json_true();
    if (json_object_size(s) == 0) return json_false();
    if (qn_s_recall(c, s, QN_MAP_NOT, &known)) return (const json_t *)known;
    /* not not S, where that is all it says */
    if (json_object_size(s) == 1 && qn_s_kw(s, "not")) return qn_s_kw(s, "not");
    json_t *list = json_array(), *j = qn_s_own(c, pair("anyOf", list));
    if (!j || qn_s_remember(c, s, QN_MAP_NOT, (uintptr_t)j) < 0) return NULL;
    c->negated++;
    return break_each(c, s, list) < 0 ? NULL : j;
}

/* ---- alternatives ---- */

static json_t *values(struct qn_schema *c, const json_t *v) {
    json_t *out = json_array(), *plain = json_array();
    for (size_t i = 0; i < json_array_size(v); i++) {
        json_t *x = json_array_get(v, i);
        if (json_is_object(x) || json_is_array(x)) put(c, out, share(exactly(c, x)));
        else put(c, plain, share(x));
    }
    if (json_array_size(plain)) put(c, out, pair("enum", share(plain)));
    json_decref(plain);
    return out;
}

static int meet(struct qn_schema *c, const json_t *a, const json_t *b, int no_formats) {
    const json_t *both[2] = {a, b};
    int was = c->no_formats;
    c->no_formats = no_formats;
    int yes = qn_s_sat(c, qn_s_conj(c, both, 2));
    c->no_formats = was;
    return yes;
}

/* 1: no value can satisfy both, not even for those to whom a format is an annotation. */
static int apart(struct qn_schema *c, const json_t *s, const json_t *a, const json_t *b) {
    if (!meet(c, a, b, 1)) return 1;
    if (qn_s_kw(a, "format") && qn_s_kw(b, "format") && !meet(c, a, b, 0))
        qn_s_refuse(c, s, "oneOf", "unsupported_value", "formats alone tell its branches apart, and to many a format is an annotation: say anyOf");
    return 0;
}

static json_t *one_of(struct qn_schema *c, const json_t *s) {
    const json_t *v = qn_s_kw(s, "oneOf");
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(v) && !QN_S_FAILED(c); i++) {
        json_t *all = json_pack("[O]", json_array_get(v, i));
        for (size_t j = 0; j < json_array_size(v); j++) {
            if (i != j && !apart(c, s, json_array_get(v, i), json_array_get(v, j))) put(c, all, negated(json_array_get(v, j)));
        }
        put(c, out, pair("allOf", all));
    }
    return out;
}

static json_t *if_then_else(const json_t *s) {
    const json_t *cond = qn_s_kw(s, "if"), *yes = qn_s_kw(s, "then"), *no = qn_s_kw(s, "else");
    if (!yes && !no) return json_pack("[O, b]", cond, 1); /* the first for what it evaluates */
    return json_pack("[{s:[O, o]}, {s:[o, o]}]", "allOf", cond, yes ? share(yes) : json_true(), "allOf", negated(cond), no ? share(no) : json_true());
}

/* One member of a dependency: without the name, or with it and what it asks for. */
static json_t *dependency(const char *name, const json_t *v) {
    json_t *then = json_is_array(v) ? pair("required", share(v)) : share(v);
    return json_pack("{s:[{s:o}, {s:[s], s:[o]}]}", "anyOf", "properties", pair(name, json_false()), "required", name, "allOf", then);
}

static json_t *dependencies(struct qn_schema *c, const json_t *v) {
    json_t *all = json_array(), *x;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)v, key, x) put(c, all, dependency(key, x));
    return json_pack("[{s:o}]", "allOf", all);
}

/* Where it matters which branches were looked at: every set of branches that may hold together. */
static json_t *any_of(struct qn_schema *c, const json_t *v) {
    size_t n = json_array_size(v);
    if (!c->unevaluated || n > SETS_OF) return share(v);
    json_t *out = json_array();
    for (unsigned set = 1; set < 1u << n; set++) {
        json_t *all = json_array();
        for (size_t i = 0; i < n; i++)
            if (set >> i & 1) put(c, all, share(json_array_get(v, i)));
        put(c, out, pair("allOf", all));
    }
    return out;
}

const json_t *qn_s_choice(struct qn_schema *c, const json_t *s, const char *kw) {
    uintptr_t known;
    const json_t *v = qn_s_kw(s, kw);
    uint32_t what = QN_MAP_CHOICE + (uint32_t)kw[0] * 32 + (uint32_t)strlen(kw); /* no two of the keywords below agree in these */
    if (qn_s_recall(c, s, what, &known)) return (const json_t *)known;
    json_t *out = strcmp(kw, "oneOf") == 0 ? one_of(c, s)
                : strcmp(kw, "anyOf") == 0 ? any_of(c, v)
                : strcmp(kw, "if") == 0    ? if_then_else(s)
                : strcmp(kw, "enum") == 0  ? values(c, v)
                : strcmp(kw, "const") == 0 ? json_pack("[O]", exactly(c, v))
                                           : dependencies(c, v);
    if (!qn_s_own(c, out) || qn_s_remember(c, s, what, (uintptr_t)out) < 0) return NULL;
    return out;
}
