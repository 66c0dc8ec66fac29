/* Where the references of a schema lead: identifiers by RFC 3986 section 5.2, anchors, JSON pointers (RFC 6901), and the dynamic scope of
 * $dynamicRef (2020-12) and $recursiveRef (2019-09). Written apart from the compiler's (schema_ref.c): each is the other's witness. */
#include <stdlib.h>
#include <string.h>

#include "api/schema_check.h"

void *qn_check_grow(struct qn_check *c, void *v, int n, int *cap, size_t size) {
    if (n < *cap) return v;
    int more = *cap ? *cap * 2 : 8;
    void *p = qn_arena_alloc(&c->mem, (size_t)more * size);
    if (!p) return NULL;
    if (n) memcpy(p, v, (size_t)n * size);
    *cap = more;
    return p;
}

/* --- URIs --------------------------------------------------------------------------------------------------------- */

struct uri { size_t scheme, authority, path; }; /* where each part ends: "http:" "//host" "/a/b" rest is the query */

static struct uri split(const char *u) {
    struct uri s = {0};
    size_t colon = strcspn(u, ":/?");
    if (u[colon] == ':' && colon) s.scheme = colon + 1;
    s.authority = s.scheme;
    if (strncmp(u + s.scheme, "//", 2) == 0) s.authority += 2 + strcspn(u + s.scheme + 2, "/?");
    s.path = s.authority + strcspn(u + s.authority, "?");
    return s;
}

/* "a/./b/../c" becomes "a/c", in place; segment by segment onto a stack that is the output itself. */
static void without_dots(char *path, size_t n) {
    size_t out = 0, i = 0;
    int absolute = n && path[0] == '/';
    if (absolute) out = i = 1;
    while (i < n) {
        size_t end = i;
        while (end < n && path[end] != '/') end++;
        size_t len = end - i;
        if (len == 2 && path[i] == '.' && path[i + 1] == '.') {
            if (out > (size_t)absolute) out--;
            while (out > (size_t)absolute && path[out - 1] != '/') out--;
        } else if (!(len == 1 && path[i] == '.')) {
            memmove(path + out, path + i, len);
            out += len;
            if (end < n) path[out++] = '/';
        }
        i = end + 1;
    }
    path[out] = 0;
}

/* The reference of n bytes (its fragment cut off) against an absolute base. NULL: no memory. */
static char *join(struct qn_check *c, const char *base, const char *ref, size_t n) {
    char *r = qn_arena_dup(&c->mem, ref, n), *out = qn_arena_alloc(&c->mem, strlen(base) + n + 3);
    if (!r || !out) return NULL;
    struct uri b = split(base), u = split(r);
    size_t keep = 0;
    if (n == 0) return memcpy(out, base, strlen(base) + 1);
    if (u.scheme) keep = 0;
    else if (u.authority) keep = b.scheme;
    else if (u.path == 0) keep = b.path;
    else if (r[0] == '/') keep = b.authority;
    else
        for (keep = b.path; keep > b.authority && base[keep - 1] != '/'; keep--) {}
    memcpy(out, base, keep);
    if (keep == b.authority && b.authority > b.scheme && r[0] != '/' && u.path && !u.scheme) out[keep++] = '/';
    memcpy(out + keep, r, n);
    struct uri o = split(out);
    char *query = qn_arena_dup(&c->mem, out + o.path, strlen(out + o.path));
    int is_path = o.authority > o.scheme || out[o.scheme] == '/' || o.scheme == 0; /* "urn:a:b" has none */
    if (!query) return NULL;
    if (is_path) {
        without_dots(out + o.authority, o.path - o.authority);
        memcpy(out + strlen(out), query, strlen(query) + 1);
    }
    return out;
}

/* --- index -------------------------------------------------------------------------------------------------------- */

static int add_resource(struct qn_check *c, const char *uri, const json_t *root) {
    void *v = qn_check_grow(c, c->res, c->n_res, &c->cap_res, sizeof *c->res);
    if (!v || !uri) return c->undecided = 1, 0;
    c->res = v;
    c->res[c->n_res] = (struct qn_check_resource){uri, root};
    return c->n_res++;
}

static void add_anchor(struct qn_check *c, int res, const json_t *name, const json_t *schema, int dynamic, size_t skip) {
    if (!json_is_string(name)) return;
    void *v = qn_check_grow(c, c->anchors, c->n_anchors, &c->cap_anchors, sizeof *c->anchors);
    if (!v) {
        c->undecided = 1;
        return;
    }
    c->anchors = v;
    c->anchors[c->n_anchors++] = (struct qn_check_anchor){res, json_string_value(name) + skip, schema, dynamic};
}

static void walk(struct qn_check *c, const json_t *s, int res, int depth);

/* What a keyword holds: s a schema, l a list of them, m a map, e either s or l, d a map of schemas or lists of names. */
static const struct { const char *name; char kind; } holders[] = {
    {"$defs", 'm'}, {"definitions", 'm'}, {"properties", 'm'}, {"patternProperties", 'm'}, {"dependentSchemas", 'm'}, {"dependencies", 'm'},
    {"additionalProperties", 's'}, {"unevaluatedProperties", 's'}, {"propertyNames", 's'}, {"items", 'e'}, {"prefixItems", 'l'},
    {"additionalItems", 's'}, {"unevaluatedItems", 's'}, {"contains", 's'}, {"allOf", 'l'}, {"anyOf", 'l'}, {"oneOf", 'l'}, {"not", 's'},
    {"if", 's'}, {"then", 's'}, {"else", 's'},
};

static void walk_all(struct qn_check *c, const json_t *v, int res, int depth, int map) {
    const char *key;
    json_t *kid;
    if (map)
        json_object_foreach((json_t *)(uintptr_t)v, key, kid) walk(c, kid, res, depth);
    for (size_t i = 0; i < json_array_size(v); i++) walk(c, json_array_get(v, i), res, depth);
}

static void walk(struct qn_check *c, const json_t *s, int res, int depth) {
    enum { DEPTH_MAX = 200 };
    if (!json_is_object(s) || depth > DEPTH_MAX) return;
    const json_t *id = json_object_get(s, c->draft_4 ? "id" : "$id");
    int alone = c->old && json_is_string(json_object_get(s, "$ref"));
    if (json_is_string(id) && !alone) {
        const char *u = json_string_value(id);
        size_t n = strcspn(u, "#");
        if (n || s == c->root) {
            int made = s == c->root ? 0 : add_resource(c, join(c, c->res[res].uri, u, n), s);
            res = made;
        }
        if (c->old && n == 0 && u[0] == '#') add_anchor(c, res, id, s, 0, 1);
    }
    add_anchor(c, res, json_object_get(s, "$anchor"), s, 0, 0);
    add_anchor(c, res, json_object_get(s, "$dynamicAnchor"), s, 1, 0);
    if (json_object_get(s, "unevaluatedProperties") || json_object_get(s, "unevaluatedItems")) c->tracks = 1;
    for (size_t i = 0; i < sizeof holders / sizeof *holders; i++) {
        const json_t *v = json_object_get(s, holders[i].name);
        if (!v) continue;
        if (holders[i].kind == 's' || (holders[i].kind == 'e' && json_is_object(v))) walk(c, v, res, depth + 1);
        else walk_all(c, v, res, depth + 1, holders[i].kind == 'm');
    }
}

void qn_check_index(struct qn_check *c) {
    const json_t *id = json_object_get(c->root, c->draft_4 ? "id" : "$id");
    const char *u = json_is_string(id) ? json_string_value(id) : "";
    add_resource(c, join(c, "", u, strcspn(u, "#")), c->root);
    if (c->n_res) walk(c, c->root, 0, 0);
}

int qn_check_enter(const struct qn_check *c, const json_t *schema, int res) {
    for (int i = 0; i < c->n_res; i++)
        if (c->res[i].root == schema) return i;
    return res;
}

/* --- references --------------------------------------------------------------------------------------------------- */

static int digit(char ch) { return ch >= '0' && ch <= '9' ? ch - '0' : (ch | 32) >= 'a' && (ch | 32) <= 'f' ? (ch | 32) - 'a' + 10 : -1; }

/* %41 is A. */
static char *unescaped(struct qn_check *c, const char *s) {
    char *out = qn_arena_dup(&c->mem, s, strlen(s));
    size_t n = 0;
    for (size_t i = 0; out && s[i]; i++) {
        int hi = s[i] == '%' ? digit(s[i + 1]) : -1, lo = hi < 0 ? -1 : digit(s[i + 2]);
        out[n++] = lo < 0 ? s[i] : (char)(hi * 16 + lo);
        if (lo >= 0) i += 2;
    }
    if (out) out[n] = 0;
    return out;
}

/* One token of a pointer, ~1 and ~0 resolved in place. */
static const json_t *child(const json_t *at, char *token) {
    size_t n = 0;
    for (size_t i = 0; token[i]; i++) {
        int tilde = token[i] == '~' && (token[i + 1] == '0' || token[i + 1] == '1');
        token[n++] = !tilde ? token[i] : token[++i] == '1' ? '/' : '~';
    }
    token[n] = 0;
    if (json_is_object(at)) return json_object_get(at, token);
    if (!json_is_array(at) || n == 0 || n > 9 || strspn(token, "0123456789") != n) return NULL;
    return json_array_get(at, strtoul(token, NULL, 10));
}

static const json_t *pointed(struct qn_check *c, const json_t *at, char *pointer, int *res) {
    while (at && *pointer == '/') {
        size_t n = strcspn(++pointer, "/");
        char more = pointer[n];
        pointer[n] = 0;
        at = child(at, pointer);
        pointer += n;
        *pointer = more;
        *res = qn_check_enter(c, at, *res);
    }
    return at;
}

static const struct qn_check_anchor *anchor(const struct qn_check *c, int res, const char *name) {
    for (int i = 0; i < c->n_anchors; i++)
        if (c->anchors[i].res == res && strcmp(c->anchors[i].name, name) == 0) return &c->anchors[i];
    return NULL;
}

/* The outermost resource of the dynamic scope that has the anchor too. */
static const json_t *outermost(const struct qn_check *c, const struct qn_check_scope *scope, const char *name, const json_t *found, int *res) {
    for (; scope; scope = scope->outer)
        for (int i = 0; i < c->n_anchors; i++) {
            const struct qn_check_anchor *a = &c->anchors[i];
            if (a->res != scope->res || !a->dynamic || strcmp(a->name, name) != 0) continue;
            found = a->schema;
            *res = a->res;
        }
    return found;
}

static const json_t *recursive(const struct qn_check *c, const struct qn_check_scope *scope, int *res) {
    *res = scope->res;
    const json_t *found = c->res[*res].root;
    if (!json_is_true(json_object_get(found, "$recursiveAnchor"))) return found;
    for (; scope; scope = scope->outer)
        if (json_is_true(json_object_get(c->res[scope->res].root, "$recursiveAnchor"))) *res = scope->res;
    return c->res[*res].root;
}

const json_t *qn_check_deref(struct qn_check *c, const char *kw, const char *ref, const struct qn_check_scope *scope, int *res) {
    size_t n = strcspn(ref, "#");
    if (strcmp(kw, "$recursiveRef") == 0) return recursive(c, scope, res);
    char *uri = join(c, c->res[scope->res].uri, ref, n), *fragment = unescaped(c, ref[n] ? ref + n + 1 : "");
    if (!uri || !fragment) return NULL;
    *res = n == 0 ? scope->res : -1;
    for (int i = 0; n && i < c->n_res && *res < 0; i++)
        if (strcmp(c->res[i].uri, uri) == 0) *res = i;
    if (*res < 0) return NULL;
    if (*fragment == 0 || *fragment == '/') return pointed(c, c->res[*res].root, fragment, res);
    const struct qn_check_anchor *a = anchor(c, *res, fragment);
    if (!a) return NULL;
    return strcmp(kw, "$dynamicRef") == 0 && a->dynamic ? outermost(c, scope, fragment, a->schema, res) : a->schema;
}
