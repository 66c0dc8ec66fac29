/* The document before it is compiled: every keyword's kind and size is checked, identifiers are collected, and references
 * are resolved against them (RFC 3986 section 5 for what resolves against what, RFC 6901 for pointers). Nothing is
 * fetched: a reference that leaves the document is refused.
 *
 * The table below knows the assertion keywords and applicators of drafts 3 to 2020-12. What is not in it is an annotation, as the
 * standard says; what is in it and cannot be kept is refused here or where it is compiled. Content of enum, const, default and unknown
 * keywords holds no identifiers, but a pointer may lead into it: what it names is checked then. */
#include "api/schema_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    SCHEMA, SCHEMAS, SCHEMA_OR_LIST, MAP, MAP_DEPENDENCIES, TYPES, VALUES, ANY, NAMES, NAME_MAP, COUNT, NUMBER, POSITIVE, BOUND, BOOL, TEXT, PATTERN, NEVER,
};

static const struct row {
    const char *name;
    enum kind kind;
} rows[] = {
    {"type", TYPES}, {"enum", VALUES}, {"const", ANY},
    {"properties", MAP}, {"patternProperties", MAP}, {"additionalProperties", SCHEMA}, {"unevaluatedProperties", SCHEMA},
    {"propertyNames", SCHEMA}, {"required", NAMES}, {"minProperties", COUNT}, {"maxProperties", COUNT},
    {"dependentRequired", NAME_MAP}, {"dependentSchemas", MAP}, {"dependencies", MAP_DEPENDENCIES},
    {"items", SCHEMA_OR_LIST}, {"prefixItems", SCHEMAS}, {"additionalItems", SCHEMA}, {"unevaluatedItems", SCHEMA},
    {"contains", SCHEMA}, {"minContains", COUNT}, {"maxContains", COUNT}, {"minItems", COUNT}, {"maxItems", COUNT}, {"uniqueItems", BOOL},
    {"minimum", NUMBER}, {"maximum", NUMBER}, {"exclusiveMinimum", BOUND}, {"exclusiveMaximum", BOUND}, {"multipleOf", POSITIVE},
    {"minLength", COUNT}, {"maxLength", COUNT}, {"pattern", PATTERN}, {"format", TEXT}, {"nullable", BOOL},
    {"$ref", TEXT}, {"$dynamicRef", TEXT}, {"$recursiveRef", TEXT}, {"$anchor", TEXT}, {"$dynamicAnchor", TEXT}, {"$recursiveAnchor", BOOL},
    {"allOf", SCHEMAS}, {"anyOf", SCHEMAS}, {"oneOf", SCHEMAS}, {"not", SCHEMA}, {"if", SCHEMA}, {"then", SCHEMA}, {"else", SCHEMA},
    {"$defs", MAP}, {"definitions", MAP},
    {"extends", NEVER}, {"disallow", NEVER}, {"divisibleBy", NEVER},
};

static const struct row *row_of(const char *name) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, name) == 0) return &rows[i];
    return NULL;
}

/* ---- URIs ---- */

static size_t scheme_len(const char *u) {
    size_t n = strspn(u, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");
    return n && u[n] == ':' ? n + 1 : 0;
}

static size_t authority_end(const char *u) {
    size_t n = scheme_len(u);
    return strncmp(u + n, "//", 2) == 0 ? n + 2 + strcspn(u + n + 2, "/?#") : n;
}

/* Takes `.` and `..` out of the path p, in place. */
static void remove_dots(char *p) {
    char *out = p, *in = p;
    while (*in) {
        size_t n = (*in == '/') + strcspn(in + (*in == '/'), "/?");
        int slash = *in == '/';
        if (*in == '?') n = strlen(in);
        if (n - (size_t)slash == 1 && in[slash] == '.') {
            if (!in[n] || in[n] == '?') *out++ = '/';
        } else if (n - (size_t)slash == 2 && in[slash] == '.' && in[slash + 1] == '.') {
            while (out > p && *--out != '/') {}
            if (!in[n] || in[n] == '?') *out++ = '/';
        } else {
            memmove(out, in, n);
            out += n;
        }
        in += n;
    }
    *out = 0;
}

/* ref (n bytes, no fragment) against base. NULL: no memory. */
static char *uri_join(struct qn_schema *c, const char *base, const char *ref, size_t n) {
    size_t keep = strlen(base), auth = authority_end(base);
    char *out = qn_s_alloc(c, keep + n + 2);
    if (!out) return NULL;
    if (n == 0) return memcpy(out, base, keep);
    if (scheme_len(ref) && scheme_len(ref) <= n) keep = auth = 0;
    else if (strncmp(ref, "//", 2) == 0) keep = auth = scheme_len(base);
    else if (*ref == '/') keep = auth;
    else if (*ref == '?') keep = strcspn(base, "?");
    else {
        keep = auth + strcspn(base + auth, "?");
        while (keep > auth && base[keep - 1] != '/') keep--;
    }
    memcpy(out, base, keep);
    if (keep && keep == auth && *ref != '/' && authority_end(base) > scheme_len(base)) out[keep++] = '/';
    memcpy(out + keep, ref, n);
    if (!scheme_len(out) || strncmp(out + scheme_len(out), "//", 2) == 0) remove_dots(out + authority_end(out));
    return out;
}

/* ---- checks of one keyword ---- */

static int wrong(struct qn_schema *c, const json_t *s, const char *kw, const char *want) {
    return qn_s_refuse(c, s, kw, "invalid_value", "expected %s", want);
}

static int is_schema(const json_t *v) { return json_is_object(v) || json_is_boolean(v); }

static int all_names(const json_t *v) {
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_string(json_array_get(v, i))) return 0;
    return json_is_array(v);
}

static int is_count(const json_t *v) {
    double x = json_number_value(v);
    return json_is_number(v) && x >= 0 && x < 9e15 && floor(x) == x;
}

static int is_type_name(const json_t *v) {
    static const char *const names[] = {"null", "boolean", "object", "array", "number", "integer", "string"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_is_string(v) && strcmp(json_string_value(v), names[i]) == 0) return 1;
    return 0;
}

static int check_types(struct qn_schema *c, const json_t *s, const json_t *v) {
    if (is_type_name(v)) return 0;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!is_type_name(json_array_get(v, i))) return wrong(c, s, "type", "names of types");
    return json_array_size(v) ? 0 : wrong(c, s, "type", "the name of a type, or a list of such names");
}

static int check_names(struct qn_schema *c, const json_t *s, const char *kw, const json_t *v) {
    c->names += (uint32_t)json_array_size(v);
    return all_names(v) ? 0 : wrong(c, s, kw, "a list of strings");
}

static int walk(struct qn_schema *c, const json_t *s, uint32_t res, int depth);

static int walk_list(struct qn_schema *c, const json_t *s, const char *kw, const json_t *v, uint32_t res, int depth) {
    if (!json_is_array(v)) return wrong(c, s, kw, "a list of schemas");
    for (size_t i = 0; i < json_array_size(v); i++)
        if (walk(c, json_array_get(v, i), res, depth) < 0) return QN_E_RANGE;
    return 0;
}

static int walk_map(struct qn_schema *c, const json_t *s, const struct row *row, const json_t *v, uint32_t res, int depth) {
    const char *key;
    json_t *x;
    if (!json_is_object(v)) return wrong(c, s, row->name, "an object");
    if ((c->names += (uint32_t)json_object_size(v)) > QN_SCHEMA_NAMES_MAX)
        return qn_s_refuse(c, s, row->name, "invalid_value", "more than %d properties in all", QN_SCHEMA_NAMES_MAX);
    json_object_foreach((json_t *)(uintptr_t)v, key, x) {
        int names = row->kind == NAME_MAP || (row->kind == MAP_DEPENDENCIES && json_is_array(x));
        if (names ? check_names(c, s, row->name, x) < 0 : walk(c, x, res, depth) < 0) return QN_E_RANGE;
        if (strcmp(row->name, "patternProperties") == 0 && strlen(key) > QN_SCHEMA_PATTERN_MAX)
            return qn_s_refuse(c, s, row->name, "invalid_value", "a pattern is longer than %d bytes", QN_SCHEMA_PATTERN_MAX);
    }
    return 0;
}

static int check(struct qn_schema *c, const json_t *s, const struct row *row, const json_t *v, uint32_t res, int depth) {
    const char *kw = row->name;
    switch (row->kind) {
    case SCHEMA: return walk(c, v, res, depth);
    case SCHEMA_OR_LIST: return json_is_array(v) ? walk_list(c, s, kw, v, res, depth) : walk(c, v, res, depth);
    case SCHEMAS: return walk_list(c, s, kw, v, res, depth);
    case MAP:
    case MAP_DEPENDENCIES:
    case NAME_MAP: return walk_map(c, s, row, v, res, depth);
    case TYPES: return check_types(c, s, v);
    case VALUES:
        if (json_array_size(v) > QN_SCHEMA_ENUM_MAX) return qn_s_refuse(c, s, kw, "invalid_value", "more than %d values", QN_SCHEMA_ENUM_MAX);
        return json_is_array(v) ? 0 : wrong(c, s, kw, "a list of values");
    case ANY: return 0;
    case NAMES: return json_is_boolean(v) ? 0 : check_names(c, s, kw, v);
    case COUNT: return is_count(v) ? 0 : wrong(c, s, kw, "an integer of at least 0");
    case NUMBER: return json_is_number(v) ? 0 : wrong(c, s, kw, "a number");
    case POSITIVE: return json_is_number(v) && json_number_value(v) > 0 ? 0 : wrong(c, s, kw, "a number above 0");
    case BOUND: return json_is_number(v) || json_is_boolean(v) ? 0 : wrong(c, s, kw, "a number (or a boolean, in draft 4)");
    case BOOL: return json_is_boolean(v) ? 0 : wrong(c, s, kw, "a boolean");
    case PATTERN:
        if (json_string_length(v) > QN_SCHEMA_PATTERN_MAX)
            return qn_s_refuse(c, s, kw, "invalid_value", "longer than %d bytes", QN_SCHEMA_PATTERN_MAX);
        return json_is_string(v) ? 0 : wrong(c, s, kw, "a string");
    case TEXT: return json_is_string(v) ? 0 : wrong(c, s, kw, "a string");
    default: return qn_s_refuse(c, s, kw, "unsupported_value", "the keyword `%s` of draft 3 is not supported", kw);
    }
}

/* ---- identifiers ---- */

static int add_anchor(struct qn_schema *c, uint32_t res, const char *name, const json_t *s, int dynamic) {
    c->anchors = qn_s_grow(c, c->anchors, c->n_anchors, &c->cap_anchors, sizeof *c->anchors);
    if (!c->anchors) return QN_E_RANGE;
    c->anchors[c->n_anchors++] = (struct qn_sanchor){res, name, s, dynamic};
    return 0;
}

static int add_resource(struct qn_schema *c, const char *base, const char *id, const json_t *root) {
    c->res = qn_s_grow(c, c->res, c->n_res, &c->cap_res, sizeof *c->res);
    char *uri = c->res ? uri_join(c, base, id, strcspn(id, "#")) : NULL;
    if (!uri) return qn_s_refuse(c, NULL, NULL, "invalid_value", "too large");
    c->res[c->n_res++] = (struct qn_sres){uri, root};
    return 0;
}

static int identifiers(struct qn_schema *c, const json_t *s, uint32_t *res) {
    const char *id = json_string_value(qn_s_kw(s, c->draft <= QN_DRAFT_4 ? "id" : "$id"));
    if (id && *id == '#' && c->draft <= QN_DRAFT_7 && add_anchor(c, *res, id + 1, s, 0) < 0) return QN_E_RANGE;
    if (id && *id && *id != '#' && s != c->root) {
        if (add_resource(c, c->res[*res].uri, id, s) < 0) return QN_E_RANGE;
        *res = c->n_res - 1;
    }
    for (int i = 0; i < 2 && c->draft >= QN_DRAFT_2019; i++) {
        const char *name = json_string_value(qn_s_kw(s, i ? "$dynamicAnchor" : "$anchor"));
        if (name && add_anchor(c, *res, name, s, i) < 0) return QN_E_RANGE;
    }
    c->recursive_anchor |= json_is_true(qn_s_kw(s, "$recursiveAnchor"));
    return 0;
}

int qn_s_ref_only(const struct qn_schema *c, const json_t *s) { return c->draft <= QN_DRAFT_7 && json_is_string(qn_s_kw(s, "$ref")); }

static int walk(struct qn_schema *c, const json_t *s, uint32_t res, int depth) {
    uintptr_t known;
    const char *key;
    json_t *v;
    if (qn_s_tick(c) < 0) return QN_E_RANGE;
    if (json_is_boolean(s)) return 0;
    if (!json_is_object(s)) return wrong(c, s, NULL, "a schema: an object or a boolean");
    if (depth > QN_SCHEMA_DEPTH_MAX) return qn_s_refuse(c, s, NULL, "invalid_value", "nested more than %d deep", QN_SCHEMA_DEPTH_MAX);
    if (qn_s_recall(c, s, QN_MAP_RESOURCE, &known)) return 0;
    if (!qn_s_ref_only(c, s) && identifiers(c, s, &res) < 0) return QN_E_RANGE;
    if (qn_s_remember(c, s, QN_MAP_RESOURCE, res) < 0) return QN_E_RANGE;
    json_object_foreach((json_t *)(uintptr_t)s, key, v) {
        const struct row *row = row_of(key);
        if (key[0] == '\x01') return qn_s_refuse(c, s, NULL, "invalid_value", "a keyword begins with a control character");
        c->unevaluated |= strncmp(key, "unevaluated", 11) == 0;
        if (row && check(c, s, row, v, res, depth + 1) < 0) return QN_E_RANGE;
    }
    return 0;
}

static int draft_of(const json_t *root) {
    static const struct { const char *part; int draft; } drafts[] = {
        {"draft-03", QN_DRAFT_3}, {"draft-04", QN_DRAFT_4}, {"draft-05", QN_DRAFT_4}, {"draft-06", QN_DRAFT_6},
        {"draft-07", QN_DRAFT_7}, {"2019-09", QN_DRAFT_2019},
    };
    const char *s = json_string_value(qn_s_kw(root, "$schema"));
    for (size_t i = 0; s && i < sizeof drafts / sizeof *drafts; i++)
        if (strstr(s, drafts[i].part)) return drafts[i].draft;
    return QN_DRAFT_2020;
}

static int too_deep(const json_t *v, int depth) {
    const char *key;
    json_t *x;
    if (depth > QN_SCHEMA_DEPTH_MAX) return 1;
    json_object_foreach((json_t *)(uintptr_t)v, key, x)
        if (too_deep(x, depth + 1)) return 1;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (too_deep(json_array_get(v, i), depth + 1)) return 1;
    return 0;
}

static int count_chars(const char *p, size_t n, void *user) {
    size_t *left = user;
    (void)p;
    *left -= n <= *left ? n : *left;
    return *left ? 0 : -1;
}

int qn_s_index(struct qn_schema *c) {
    size_t left = QN_SCHEMA_CHARS_MAX + 1;
    if (too_deep(c->root, 1)) return qn_s_refuse(c, NULL, NULL, "invalid_value", "nested more than %d deep", QN_SCHEMA_DEPTH_MAX);
    if (json_dump_callback(c->root, count_chars, &left, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
        return qn_s_refuse(c, NULL, NULL, "invalid_value", "longer than %d characters", QN_SCHEMA_CHARS_MAX);
    c->draft = draft_of(c->root);
    const char *id = json_string_value(qn_s_kw(c->root, c->draft <= QN_DRAFT_4 ? "id" : "$id"));
    if (add_resource(c, "", id ? id : "", c->root) < 0) return QN_E_RANGE;
    return walk(c, c->root, 0, 0);
}

/* ---- references ---- */

static int hex(char ch) { return ch >= '0' && ch <= '9' ? ch - '0' : (ch | 32) >= 'a' && (ch | 32) <= 'f' ? (ch | 32) - 'a' + 10 : -1; }

/* The fragment without its percent signs. */
static char *decoded(struct qn_schema *c, const char *p) {
    char *out = qn_s_alloc(c, strlen(p) + 1), *w = out;
    if (out) memcpy(out, p, strlen(p));
    for (const char *q = out; q && *q; q++) {
        if (*q == '%' && hex(q[1]) >= 0 && hex(q[2]) >= 0 && (hex(q[1]) || hex(q[2]))) {
            *w++ = (char)(hex(q[1]) * 16 + hex(q[2]));
            q += 2;
        } else
            *w++ = *q;
    }
    if (out) *w = 0;
    return out;
}

/* One step of a JSON pointer, token of n bytes, unescaped in place. */
static const json_t *step(const json_t *at, char *tok, size_t n) {
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        int tilde = tok[i] == '~' && i + 1 < n && (tok[i + 1] == '0' || tok[i + 1] == '1');
        tok[w++] = tilde ? (tok[i + 1] == '0' ? '~' : '/') : tok[i];
        i += (size_t)tilde;
    }
    if (json_is_object(at)) return json_object_getn(at, tok, w);
    if (!json_is_array(at) || w == 0 || w > 8 || strspn(tok, "0123456789") < w) return NULL;
    char index[9] = {0};
    memcpy(index, tok, w);
    return json_array_get(at, strtoul(index, NULL, 10));
}

/* Follows a pointer; *res changes where it enters a schema with an identifier of its own. */
static const json_t *follow(struct qn_schema *c, const json_t *at, char *p, uint32_t *res) {
    uintptr_t r;
    while (at && *p == '/') {
        size_t n = strcspn(++p, "/");
        at = step(at, p, n);
        if (at && qn_s_recall(c, at, QN_MAP_RESOURCE, &r)) *res = (uint32_t)r;
        p += n;
    }
    return at;
}

static const json_t *anchor(struct qn_schema *c, uint32_t res, const char *name, const char *kw, int *ambiguous) {
    const json_t *found = NULL;
    int dynamic = 0, others = 0;
    for (uint32_t i = 0; i < c->n_anchors; i++) {
        const struct qn_sanchor *a = &c->anchors[i];
        if (strcmp(a->name, name) != 0) continue;
        others += a->dynamic;
        if (a->res != res || (found && dynamic)) continue;
        found = a->s;
        dynamic = a->dynamic;
    }
    *ambiguous = strcmp(kw, "$dynamicRef") == 0 && dynamic && others > 1;
    return found;
}

static const json_t *find(struct qn_schema *c, uint32_t *res, const char *ref, const char *kw, int *ambiguous) {
    size_t n = strcspn(ref, "#");
    char *fragment = decoded(c, ref[n] ? ref + n + 1 : ""), *uri = n ? uri_join(c, c->res[*res].uri, ref, n) : NULL;
    if (!fragment || (n && !uri)) return NULL;
    if (n) {
        uint32_t i = 0;
        while (i < c->n_res && strcmp(c->res[i].uri, uri) != 0) i++;
        if (i == c->n_res) return NULL;
        *res = i;
    }
    if (*fragment == 0) return c->res[*res].root;
    return *fragment == '/' ? follow(c, c->res[*res].root, fragment, res) : anchor(c, *res, fragment, kw, ambiguous);
}

const json_t *qn_s_deref(struct qn_schema *c, const json_t *s, const char *kw) {
    const char *ref = json_string_value(qn_s_kw(s, kw));
    char quoted[QN_QUOTE_MAX + 4];
    uintptr_t r = 0;
    int ambiguous = 0;
    if (!ref || !qn_s_recall(c, s, QN_MAP_RESOURCE, &r)) return NULL;
    uint32_t res = (uint32_t)r;
    const json_t *t = find(c, &res, ref, kw, &ambiguous);
    if (strcmp(kw, "$recursiveRef") == 0) ambiguous = c->recursive_anchor && c->n_res > 1;
    if (!t || !is_schema(t)) {
        qn_s_refuse(c, s, kw, "unsupported_value", "no schema '%s' in this document, and none is fetched", qn_quote(quoted, ref, strlen(ref)));
        return NULL;
    }
    if (ambiguous) {
        qn_s_refuse(c, s, kw, "unsupported_value", "a dynamic reference with more than one target is not supported");
        return NULL;
    }
    return walk(c, t, res, 1) < 0 ? NULL : t;
}
