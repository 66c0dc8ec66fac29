/* Is a finished value an instance of a schema? Keyword by keyword as the standard reads (JSON Schema Core and Validation, drafts 4 to
 * 2020-12), over parsed values and apart from the compiler that writes them, so that one is the other's witness.
 *
 * A keyword looks at values of its own type only and is silent about others. Where the document says unevaluatedProperties or
 * unevaluatedItems, each schema notes which members or items of the value it looked at; a schema that holds hands its notes to the one
 * around it, one that fails does not (Core 7.7.1, 11). `format` is an annotation. Work is bounded by fuel and depth; past them, or
 * when a reference leads out of the document, nothing is decided and the value passes: a schema that we compiled does neither. */
#include "api/schema_check.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/error.h"
#include "api/schema.h"

enum { DEPTH_MAX = 1000 };
static const long FUEL = 4000000;
static const size_t MEMORY_MAX = 16u << 20;

struct notes { /* which members (in iteration order) or items were evaluated */
    unsigned char *v;
    size_t n;
};

struct at { /* where we are */
    struct qn_check *c;
    const json_t *schema, *value;
    const struct qn_check_scope *scope;
    int depth;
    struct notes *notes; /* of this schema; NULL: nobody asks */
};

static int valid(struct qn_check *c, const json_t *schema, const json_t *value, const struct qn_check_scope *scope, int depth, struct notes *outer);

__attribute__((format(printf, 2, 3))) static int no(const struct at *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (a->c->why_n) vsnprintf(a->c->why, a->c->why_n, fmt, ap);
    va_end(ap);
    return 0;
}

static const json_t *get(const struct at *a, const char *kw) { return json_object_get(a->schema, kw); }

static int inside(const struct at *a, const json_t *schema, const json_t *value) { return valid(a->c, schema, value, a->scope, a->depth + 1, NULL); }

static int in_place(const struct at *a, const json_t *schema) { return valid(a->c, schema, a->value, a->scope, a->depth + 1, a->notes); }

static void note(const struct at *a, size_t i) {
    if (a->notes && i < a->notes->n) a->notes->v[i] = 1;
}

/* --- any value ---------------------------------------------------------------------------------------------------- */

static int equal(struct qn_check *c, const json_t *x, const json_t *y) {
    const char *key;
    json_t *kid;
    if (--c->fuel < 0) return c->undecided = 1;
    if (json_is_number(x) && json_is_number(y))
        return json_is_integer(x) && json_is_integer(y) ? json_integer_value(x) == json_integer_value(y) : json_number_value(x) == json_number_value(y);
    if (json_typeof(x) != json_typeof(y)) return 0;
    if (json_is_string(x)) return json_string_length(x) == json_string_length(y) && memcmp(json_string_value(x), json_string_value(y), json_string_length(x)) == 0;
    if (json_is_array(x)) {
        if (json_array_size(x) != json_array_size(y)) return 0;
        for (size_t i = 0; i < json_array_size(x); i++)
            if (!equal(c, json_array_get(x, i), json_array_get(y, i))) return 0;
        return 1;
    }
    if (!json_is_object(x)) return 1;
    if (json_object_size(x) != json_object_size(y)) return 0;
    json_object_foreach((json_t *)(uintptr_t)x, key, kid) {
        const json_t *other = json_object_get(y, key);
        if (!other || !equal(c, kid, other)) return 0;
    }
    return 1;
}

static int is_integer(const json_t *v) { return json_is_integer(v) || (json_is_real(v) && floor(json_real_value(v)) == json_real_value(v)); }

static int is_type(const json_t *v, const char *name) {
    if (!strcmp(name, "integer")) return is_integer(v);
    if (!strcmp(name, "number")) return json_is_number(v);
    if (!strcmp(name, "boolean")) return json_is_boolean(v);
    static const char *const names[] = {[JSON_OBJECT] = "object", [JSON_ARRAY] = "array", [JSON_STRING] = "string", [JSON_NULL] = "null"};
    json_type t = json_typeof(v);
    return (t == JSON_OBJECT || t == JSON_ARRAY || t == JSON_STRING || t == JSON_NULL) && !strcmp(names[t], name);
}

static int check_type(const struct at *a) {
    const json_t *t = get(a, "type");
    if (!t || (json_is_null(a->value) && json_is_true(get(a, "nullable")))) return 1;
    if (json_is_string(t) && is_type(a->value, json_string_value(t))) return 1;
    for (size_t i = 0; i < json_array_size(t); i++)
        if (json_is_string(json_array_get(t, i)) && is_type(a->value, json_string_value(json_array_get(t, i)))) return 1;
    return no(a, "type");
}

static int check_values(const struct at *a) {
    const json_t *one = get(a, "const"), *list = get(a, "enum");
    if (one && !equal(a->c, one, a->value)) return no(a, "const");
    if (!list) return 1;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (equal(a->c, json_array_get(list, i), a->value)) return 1;
    return no(a, "enum");
}

/* --- numbers ------------------------------------------------------------------------------------------------------ */

/* -1, 0, 1; exact between integers. */
static int compare(const json_t *x, const json_t *y) {
    if (json_is_integer(x) && json_is_integer(y)) return (json_integer_value(x) > json_integer_value(y)) - (json_integer_value(x) < json_integer_value(y));
    return (json_number_value(x) > json_number_value(y)) - (json_number_value(x) < json_number_value(y));
}

/* Decimal fractions are no doubles: a quotient that is off an integer by roundings alone counts as one. */
static int is_multiple(const json_t *x, const json_t *of) {
    if (json_is_integer(x) && json_is_integer(of)) return json_integer_value(of) == 0 || json_integer_value(of) == -1 || json_integer_value(x) % json_integer_value(of) == 0;
    double q = json_number_value(x) / json_number_value(of);
    if (!isfinite(q)) return fmod(json_number_value(x), json_number_value(of)) == 0;
    return fabs(q - round(q)) <= 8 * DBL_EPSILON * fmax(1, fabs(q));
}

static int check_number(const struct at *a) {
    static const struct { const char *kw, *exclusive; int sign; } bounds[] = {{"minimum", "exclusiveMinimum", 1}, {"maximum", "exclusiveMaximum", -1}};
    for (int i = 0; i < 2; i++) {
        const json_t *b = get(a, bounds[i].kw), *x = get(a, bounds[i].exclusive);
        int least = json_is_true(x) ? 1 : 0; /* draft 4: exclusive is a flag of the bound */
        if (json_is_number(b) && compare(a->value, b) * bounds[i].sign < least) return no(a, "%s", bounds[i].kw);
        if (json_is_number(x) && compare(a->value, x) * bounds[i].sign < 1) return no(a, "%s", bounds[i].exclusive);
    }
    const json_t *of = get(a, "multipleOf");
    return !json_is_number(of) || is_multiple(a->value, of) ? 1 : no(a, "multipleOf");
}

/* A count of the schema against n: the keywords `least` and `most`. */
static int check_counts(const struct at *a, size_t n, const char *least, const char *most) {
    const json_t *lo = get(a, least), *hi = get(a, most);
    if (json_is_number(lo) && (double)n < json_number_value(lo)) return no(a, "%s", least);
    return json_is_number(hi) && (double)n > json_number_value(hi) ? no(a, "%s", most) : 1;
}

/* --- strings ------------------------------------------------------------------------------------------------------ */

static size_t characters(const char *s, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) k += ((unsigned char)s[i] & 0xC0) != 0x80;
    return k;
}

static struct qn_constraint *compile(const char *text, size_t n) {
    struct qn_grammar *g;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    if (qn_grammar_new(&g, NULL) < 0) return NULL;
    qn_gnode root = qn_g_regex(g, text, n, &(struct qn_regex_opts){.search = 1}, &err);
    if (err.code || root == QN_G_NONE) qn_grammar_free(g);
    else qn_constraint_new(&c, g, root, NULL, &err);
    return c;
}

/* 1: `text` is found in s. Compiled once a check. */
static int matches(struct qn_check *c, const char *text, size_t text_n, const char *s, size_t n) {
    struct qn_check_pattern *p = NULL;
    for (int i = 0; i < c->n_patterns && !p; i++)
        if (c->patterns[i].text == text) p = &c->patterns[i];
    if (!p) {
        void *v = qn_check_grow(c, c->patterns, c->n_patterns, &c->cap_patterns, sizeof *c->patterns);
        if (!v) return c->undecided = 1;
        c->patterns = v;
        p = &c->patterns[c->n_patterns++];
        *p = (struct qn_check_pattern){text, compile(text, text_n)};
    }
    if (!p->c) return c->undecided = 1;
    qn_cstate at = qn_constraint_text(p->c, qn_constraint_start(p->c), s, n);
    if (qn_constraint_failed(p->c)) return c->undecided = 1;
    return at != QN_C_DEAD && qn_constraint_accepts(p->c, at);
}

static int check_string(const struct at *a) {
    const char *s = json_string_value(a->value);
    size_t n = json_string_length(a->value);
    const json_t *p = get(a, "pattern");
    if (!check_counts(a, characters(s, n), "minLength", "maxLength")) return 0;
    return !json_is_string(p) || matches(a->c, json_string_value(p), json_string_length(p), s, n) ? 1 : no(a, "pattern");
}

/* --- arrays ------------------------------------------------------------------------------------------------------- */

static int check_items(const struct at *a) {
    const json_t *items = get(a, "items"), *prefix = get(a, "prefixItems"), *rest = items;
    if (json_is_array(items)) prefix = items, rest = get(a, "additionalItems"); /* before 2020-12 */
    for (size_t i = 0; i < json_array_size(a->value); i++) {
        const json_t *s = i < json_array_size(prefix) ? json_array_get(prefix, i) : rest;
        if (!s) continue;
        note(a, i);
        if (!inside(a, s, json_array_get(a->value, i))) return 0;
    }
    return 1;
}

static int check_contains(const struct at *a) {
    const json_t *s = get(a, "contains"), *lo = get(a, "minContains"), *hi = get(a, "maxContains");
    size_t found = 0;
    if (!s) return 1;
    for (size_t i = 0; i < json_array_size(a->value); i++) {
        if (!inside(a, s, json_array_get(a->value, i))) continue;
        found++;
        if (a->c->marks_contained) note(a, i);
    }
    if (a->c->old) lo = hi = NULL;
    if ((double)found < (json_is_number(lo) ? json_number_value(lo) : 1)) return no(a, "contains");
    return json_is_number(hi) && (double)found > json_number_value(hi) ? no(a, "maxContains") : 1;
}

static int check_unique(const struct at *a) {
    if (!json_is_true(get(a, "uniqueItems"))) return 1;
    for (size_t i = 0; i < json_array_size(a->value) && !a->c->undecided; i++)
        for (size_t k = 0; k < i; k++)
            if (equal(a->c, json_array_get(a->value, i), json_array_get(a->value, k))) return a->c->undecided ? 1 : no(a, "uniqueItems");
    return 1;
}

static int check_array(const struct at *a) {
    return check_counts(a, json_array_size(a->value), "minItems", "maxItems") && check_items(a) && check_contains(a) && check_unique(a);
}

/* --- objects ------------------------------------------------------------------------------------------------------ */

/* One member by properties, patternProperties and additionalProperties. */
static int check_member(const struct at *a, size_t i, const char *key, size_t key_n, const json_t *v) {
    const json_t *s = json_object_getn(get(a, "properties"), key, key_n), *patterns = get(a, "patternProperties"), *other = get(a, "additionalProperties");
    const char *p;
    json_t *of;
    int named = s != NULL;
    if (s && !inside(a, s, v)) return 0;
    json_object_foreach((json_t *)(uintptr_t)patterns, p, of) {
        if (!matches(a->c, p, strlen(p), key, key_n)) continue;
        named = 1;
        if (!inside(a, of, v)) return 0;
    }
    if (named || other) note(a, i);
    return named || !other || inside(a, other, v) ? 1 : no(a, "additionalProperties");
}

static int check_names(const struct at *a, const json_t *names, const char *kw) {
    for (size_t i = 0; i < json_array_size(names); i++) {
        const json_t *name = json_array_get(names, i);
        if (json_is_string(name) && !json_object_getn(a->value, json_string_value(name), json_string_length(name))) return no(a, "%s", kw);
    }
    return 1;
}

/* dependentSchemas, dependentRequired, and dependencies, which were both. */
static int check_dependencies(const struct at *a) {
    static const char *const kws[] = {"dependentSchemas", "dependentRequired", "dependencies"};
    for (size_t k = 0; k < 3; k++) {
        const char *key;
        json_t *v;
        json_object_foreach((json_t *)(uintptr_t)get(a, kws[k]), key, v) {
            if (!json_object_get(a->value, key)) continue;
            if (json_is_array(v) ? !check_names(a, v, kws[k]) : json_is_string(v) ? !json_object_get(a->value, json_string_value(v)) : !in_place(a, v)) return 0;
        }
    }
    return 1;
}

static int check_object(const struct at *a) {
    const json_t *names = get(a, "propertyNames");
    const char *key;
    size_t key_n, i = 0;
    json_t *v;
    if (!check_counts(a, json_object_size(a->value), "minProperties", "maxProperties") || !check_names(a, get(a, "required"), "required")) return 0;
    json_object_keylen_foreach((json_t *)(uintptr_t)a->value, key, key_n, v) {
        if (!check_member(a, i++, key, key_n, v)) return 0;
        if (!names) continue;
        json_t *name = json_stringn(key, key_n);
        int ok = name ? inside(a, names, name) : (a->c->undecided = 1);
        json_decref(name);
        if (!ok) return 0;
    }
    return check_dependencies(a);
}

/* --- combinations ------------------------------------------------------------------------------------------------- */

/* How many of the list hold; all are asked where somebody wants to know what they evaluated, else until `enough` do. */
static size_t count(const struct at *a, const json_t *list, size_t enough) {
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(list) && (a->notes || n < enough); i++) n += in_place(a, json_array_get(list, i)) != 0;
    return n;
}

static int check_condition(const struct at *a) {
    const json_t *s = get(a, "if");
    if (!s) return 1;
    const json_t *then = get(a, in_place(a, s) ? "then" : "else");
    return !then || in_place(a, then);
}

static int check_combinations(const struct at *a) {
    const json_t *all = get(a, "allOf"), *any = get(a, "anyOf"), *one = get(a, "oneOf"), *not = get(a, "not");
    for (size_t i = 0; i < json_array_size(all); i++)
        if (!in_place(a, json_array_get(all, i))) return 0;
    if (any && count(a, any, 1) == 0) return no(a, "anyOf");
    if (one && count(a, one, 2) != 1) return no(a, "oneOf");
    if (not && inside(a, not, a->value) && !a->c->undecided) return no(a, "not");
    return check_condition(a);
}

static int check_reference(const struct at *a, const char *kw) {
    const json_t *ref = get(a, kw);
    int res = a->scope->res;
    if (!json_is_string(ref)) return 1;
    const json_t *to = qn_check_deref(a->c, kw, json_string_value(ref), a->scope, &res);
    if (!to) return a->c->undecided = 1;
    struct qn_check_scope scope = {res, a->scope};
    return valid(a->c, to, a->value, res == a->scope->res ? a->scope : &scope, a->depth + 1, a->notes);
}

static int check_unevaluated(const struct at *a) {
    const json_t *s = get(a, json_is_array(a->value) ? "unevaluatedItems" : "unevaluatedProperties");
    const char *key;
    size_t i = 0;
    json_t *v;
    if (!s || !a->notes) return 1;
    for (; i < json_array_size(a->value); i++)
        if (!a->notes->v[i] && !inside(a, s, json_array_get(a->value, i))) return no(a, "unevaluatedItems");
    json_object_foreach((json_t *)(uintptr_t)a->value, key, v)
        if (!a->notes->v[i++] && !inside(a, s, v)) return no(a, "unevaluatedProperties");
    if (a->notes->n) memset(a->notes->v, 1, a->notes->n);
    return 1;
}

static int check_schema(const struct at *a) {
    if (a->c->old && json_is_string(get(a, "$ref"))) return check_reference(a, "$ref");
    if (!check_type(a) || !check_values(a)) return 0;
    if (json_is_number(a->value) && !check_number(a)) return 0;
    if (json_is_string(a->value) && !check_string(a)) return 0;
    if (json_is_array(a->value) && !check_array(a)) return 0;
    if (json_is_object(a->value) && !check_object(a)) return 0;
    return check_reference(a, "$ref") && check_reference(a, "$dynamicRef") && check_reference(a, "$recursiveRef") && check_combinations(a) && check_unevaluated(a);
}

static int valid(struct qn_check *c, const json_t *schema, const json_t *value, const struct qn_check_scope *outer_scope, int depth, struct notes *outer) {
    if (--c->fuel < 0 || depth > DEPTH_MAX) c->undecided = 1;
    if (c->undecided || json_is_true(schema)) return 1;
    struct qn_check_scope scope = {qn_check_enter(c, schema, outer_scope->res), outer_scope};
    struct notes notes = {NULL, json_is_array(value) ? json_array_size(value) : json_object_size(value)};
    struct at a = {c, schema, value, scope.res == outer_scope->res ? outer_scope : &scope, depth, NULL};
    if (!json_is_object(schema)) return no(&a, "the schema false");
    if (c->tracks && notes.n) {
        notes.v = calloc(notes.n, 1);
        if (!notes.v) return c->undecided = 1;
        a.notes = &notes;
    }
    int ok = check_schema(&a);
    for (size_t i = 0; ok && outer && outer->v && notes.v && i < notes.n; i++) outer->v[i] |= notes.v[i];
    free(notes.v);
    return ok || c->undecided;
}

int qn_schema_check(const json_t *schema, const json_t *value, char *why, size_t n) {
    struct qn_check c = {.root = schema, .fuel = FUEL, .why = why, .why_n = n};
    const char *draft = json_string_value(json_object_get(schema, "$schema"));
    struct qn_check_scope scope = {0, NULL};
    c.draft_4 = draft && (strstr(draft, "draft-03") || strstr(draft, "draft-04") || strstr(draft, "draft-05"));
    c.old = c.draft_4 || (draft && (strstr(draft, "draft-06") || strstr(draft, "draft-07")));
    c.marks_contained = !draft || !strstr(draft, "2019-09");
    if (n) why[0] = 0;
    qn_arena_init(&c.mem, MEMORY_MAX);
    qn_check_index(&c);
    int ok = c.undecided || valid(&c, schema, value, &scope, 0, NULL);
    for (int i = 0; i < c.n_patterns; i++) qn_constraint_unref(c.patterns[i].c);
    qn_arena_done(&c.mem);
    return ok;
}
