/* JSON Schema to grammar: the compiler's frame. Conjunctions are interned here and compiled once each into the node of a
 * JSON value; what they expand to is schema_merge.c's business, each type's language that of a file of its own.
 *
 * Objects and arrays become rules, so that expressions stay shallow and a schema may refer to itself; scalars stay
 * expressions of bytes, which and/not can work on. What is written: no spelling of a character but the plain one (escapes
 * only for `"`, `\` and controls), numbers of bounded length, members in the schema's order, whitespace between tokens at
 * most a space or a line break with indentation. Any thread, one compile at a time on a grammar. */
#include "api/schema_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

/* ---- refusals ---- */

/* The path of `want` below `at`, appended to buf. Depth is bounded by the index walk, or by jansson's parser before it. */
static int path_of(const json_t *at, const json_t *want, char *buf, size_t cap, int depth) {
    size_t n = strlen(buf);
    if (at == want) return 1;
    if (depth > QN_SCHEMA_DEPTH_MAX + 1) return 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)at, key, v) {
        snprintf(buf + n, cap - n, ".%s", key);
        if (path_of(v, want, buf, cap, depth + 1)) return 1;
    }
    for (size_t i = 0; i < json_array_size(at); i++) {
        snprintf(buf + n, cap - n, "[%zu]", i);
        if (path_of(json_array_get(at, i), want, buf, cap, depth + 1)) return 1;
    }
    buf[n] = 0;
    return 0;
}

int qn_s_refuse(struct qn_schema *c, const json_t *s, const char *kw, const char *code, const char *fmt, ...) {
    char param[QN_PARAM_MAX], text[QN_MESSAGE_MAX / 2], quoted[QN_QUOTE_MAX + 4];
    if (c->failed) return c->failed;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(param, sizeof param, "%s", c->path);
    size_t n = strlen(param);
    if (s && !path_of(c->root, s, param, sizeof param, 0)) param[n] = 0;
    n = strlen(param);
    if (kw && kw[0] != '\x01') snprintf(param + n, sizeof param - n, ".%s", kw);
    for (char *p = param; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?';
    c->failed = qn_refuse(c->r, 400, code, param, "Invalid schema at '%s': %s.", qn_quote(quoted, param, strlen(param)), text);
    return c->failed;
}

/* Counts a step of work: the grammar's clock, and our own fuel against combinations. */
int qn_s_tick(struct qn_schema *c) {
    if (QN_S_FAILED(c)) return QN_E_RANGE;
    if (++c->steps > QN_SCHEMA_STEPS_MAX)
        return qn_s_refuse(c, NULL, NULL, "invalid_value", "too many combinations of alternatives to work out");
    return c->steps % 16 ? 0 : qn_grammar_tick(c->g);
}

/* ---- memory ---- */

static void *no_memory(struct qn_schema *c) {
    if (!c->failed) qn_refuse_code(c->r, QN_E_NOMEM, NULL);
    c->failed = QN_E_RANGE;
    return NULL;
}

void *qn_s_alloc(struct qn_schema *c, size_t n) {
    void *p = qn_arena_alloc(&c->mem, n);
    return p ? p : no_memory(c);
}

void *qn_s_grow(struct qn_schema *c, void *v, uint32_t n, uint32_t *cap, size_t size) {
    if (n < *cap) return v;
    uint32_t more = *cap ? *cap * 2 : 8;
    void *p = qn_s_alloc(c, more * size);
    if (!p) return NULL;
    if (n) memcpy(p, v, n * size);
    *cap = more;
    return p;
}

json_t *qn_s_own(struct qn_schema *c, json_t *j) {
    if (j && json_array_append_new(c->own, j) == 0) return j;
    return no_memory(c);
}

static size_t slot_of(const struct qn_smap *m, const void *k, uint32_t what) {
    size_t at = ((uintptr_t)k >> 4) * 0x9E3779B97F4A7C15u + what * 0x85EBCA6Bu;
    for (at ^= at >> 29;; at++)
        if (!m->slot[at & (m->cap - 1)].used || (m->slot[at & (m->cap - 1)].k == k && m->slot[at & (m->cap - 1)].what == what))
            return at & (m->cap - 1);
}

int qn_s_recall(const struct qn_schema *c, const void *k, uint32_t what, uintptr_t *v) {
    if (!c->map.cap) return 0;
    size_t at = slot_of(&c->map, k, what);
    if (c->map.slot[at].used) *v = c->map.slot[at].v;
    return (int)c->map.slot[at].used;
}

int qn_s_remember(struct qn_schema *c, const void *k, uint32_t what, uintptr_t v) {
    if (c->map.n * 2 >= c->map.cap) {
        struct qn_smap old = c->map;
        c->map.cap = old.cap ? old.cap * 2 : 256;
        c->map.slot = qn_s_alloc(c, c->map.cap * sizeof *c->map.slot);
        if (!c->map.slot) {
            c->map = old;
            no_memory(c);
            return QN_E_RANGE;
        }
        for (size_t i = 0; i < old.cap; i++)
            if (old.slot[i].used) c->map.slot[slot_of(&c->map, old.slot[i].k, old.slot[i].what)] = old.slot[i];
    }
    size_t at = slot_of(&c->map, k, what);
    if (!c->map.slot[at].used) c->map.n++;
    c->map.slot[at].k = k;
    c->map.slot[at].what = what;
    c->map.slot[at].used = 1;
    c->map.slot[at].v = v;
    return 0;
}

/* ---- conjunctions ---- */

static int by_pointer(const void *a, const void *b) {
    const json_t *const *x = a, *const *y = b;
    return (*x > *y) - (*x < *y);
}

static uint32_t conj_hash(const json_t **v, size_t n) {
    static const uint64_t key[2] = {0x7163, 0x6f6e};
    return (uint32_t)qn_siphash(key, v, n * sizeof *v);
}

static int conj_room(struct qn_schema *c) {
    if (c->n_conj * 2 < c->conj_mask) return 0;
    uint32_t size = c->conj_mask ? (c->conj_mask + 1) * 2 : 256;
    uint32_t *t = qn_s_alloc(c, size * sizeof *t);
    if (!t) return no_memory(c), QN_E_RANGE;
    for (uint32_t i = 0; i < c->n_conj; i++) {
        uint32_t at = conj_hash(c->conj[i]->v, c->conj[i]->n);
        while (t[at & (size - 1)]) at++;
        t[at & (size - 1)] = i + 1;
    }
    c->conj_table = t;
    c->conj_mask = size - 1;
    return 0;
}

static qn_conj conj_add(struct qn_schema *c, const json_t **v, uint32_t n) {
    struct qn_sconj *k = qn_s_alloc(c, sizeof *k + n * sizeof *v);
    struct qn_sconj **room = qn_s_grow(c, c->conj, c->n_conj, &c->cap_conj, sizeof *c->conj);
    if (!k || !room) return no_memory(c), QN_CONJ_NEVER;
    k->v = (const json_t **)(k + 1);
    if (n) memcpy(k->v, v, n * sizeof *v);
    k->n = n;
    c->conj = room;
    c->conj[c->n_conj] = k;
    return (qn_conj)c->n_conj++;
}

qn_conj qn_s_conj(struct qn_schema *c, const json_t **v, size_t n) {
    uint32_t m = 0;
    if (QN_S_FAILED(c) || conj_room(c) < 0) return QN_CONJ_NEVER;
    for (size_t i = 0; i < n; i++) {
        if (json_is_false(v[i])) return QN_CONJ_NEVER;
        if (!json_is_true(v[i]) && json_object_size(v[i])) v[m++] = v[i];
    }
    qsort(v, m, sizeof *v, by_pointer);
    n = m;
    m = 0;
    for (size_t i = 0; i < n; i++)
        if (!m || v[m - 1] != v[i]) v[m++] = v[i];
    uint32_t at = conj_hash(v, m);
    for (; c->conj_table[at & c->conj_mask]; at++) {
        uint32_t i = c->conj_table[at & c->conj_mask] - 1;
        if (c->conj[i]->n == m && memcmp(c->conj[i]->v, v, m * sizeof *v) == 0) return (qn_conj)i;
    }
    qn_conj k = conj_add(c, v, m);
    if (k >= 0) c->conj_table[at & c->conj_mask] = (uint32_t)k + 1;
    return k;
}

/* ---- values ---- */

qn_gnode qn_s_settle(struct qn_schema *c, qn_gnode n) {
    return n == QN_G_NONE || qn_g_is_empty(c->g, n) == 1 ? QN_G_NONE : n;
}

static qn_gnode bytes(struct qn_schema *c, const char *s) { return qn_g_bytes(c->g, s, strlen(s)); }

qn_gnode qn_s_token(struct qn_schema *c, const char *text) { return qn_g_cat(c->g, bytes(c, text), c->ws); }

static qn_gnode scalars(struct qn_schema *c, const struct qn_scase *k) {
    qn_gnode v[5] = {0}, q = bytes(c, "\"");
    if (k->types & QN_T_NULL) v[0] = bytes(c, "null");
    if (k->types & QN_T_FALSE) v[1] = bytes(c, "false");
    if (k->types & QN_T_TRUE) v[2] = bytes(c, "true");
    if (k->types & QN_T_NUMBER) v[3] = qn_s_number(c, k);
    if (k->types & QN_T_STRING) v[4] = qn_s_string(c, k);
    if (v[4]) v[4] = qn_g_cat(c->g, q, qn_g_cat(c->g, v[4], q));
    return qn_g_alt_n(c->g, v, 5);
}

/* Any value, or any object when `object`, whose containers nest at most `depth` deep. */
static qn_gnode any_level(struct qn_schema *c, int depth, int object) {
    const struct qn_scase all = {NULL, 0, QN_T_SCALAR};
    qn_gnode out = object ? QN_G_NONE : scalars(c, &all), q = bytes(c, "\"");
    if (depth == 0) return out;
    qn_gnode value = qn_g_cat(c->g, qn_s_any(c, depth - 1), c->ws), comma = qn_s_token(c, ",");
    qn_gnode key = qn_g_cat(c->g, q, qn_g_cat(c->g, qn_g_repeat(c->g, c->chr, 0, QN_G_INF), q));
    qn_gnode item[2] = {value, qn_g_cat(c->g, key, qn_g_cat(c->g, c->colon, value))};
    for (int i = object; i < 2; i++) {
        qn_gnode more = qn_g_repeat(c->g, qn_g_cat(c->g, comma, item[i]), 0, QN_G_INF);
        qn_gnode some = qn_g_alt(c->g, QN_G_EMPTY, qn_g_cat(c->g, item[i], more));
        qn_gnode v = qn_g_cat(c->g, qn_s_token(c, i ? "{" : "["), qn_g_cat(c->g, some, bytes(c, i ? "}" : "]")));
        out = qn_g_alt(c->g, out, v);
    }
    return out;
}

qn_gnode qn_s_any(struct qn_schema *c, int depth) {
    if (c->any[depth]) return c->any[depth];
    if (depth > 0 && qn_s_any(c, depth - 1) == QN_G_NONE) return QN_G_NONE;
    qn_gnode body = any_level(c, depth, 0);
    if (depth == 0) return c->any[0] = body;
    c->any[depth] = qn_g_rule(c->g);
    qn_g_rule_set(c->g, c->any[depth], body);
    return c->any[depth];
}

static qn_gnode case_node(struct qn_schema *c, const struct qn_scase *k) {
    qn_gnode v[3] = {scalars(c, k), QN_G_NONE, QN_G_NONE};
    if (k->types & QN_T_OBJECT) v[1] = qn_s_object(c, k);
    if (k->types & QN_T_ARRAY) v[2] = qn_s_array(c, k);
    return qn_g_alt_n(c->g, v, 3);
}

/* The body; *rules: it holds objects or arrays. */
static qn_gnode make(struct qn_schema *c, struct qn_sconj *k, unsigned *rules) {
    unsigned types = 0;
    *rules = 0;
    if (k->n == 0) return qn_s_any(c, QN_SCHEMA_ANY_DEPTH);
    if (qn_s_expand(c, k) < 0) return QN_G_NONE;
    qn_gnode *v = qn_s_alloc(c, (k->n_cases + 1) * sizeof *v);
    if (!v) return no_memory(c), QN_G_NONE;
    for (uint32_t i = 0; i < k->n_cases && qn_s_tick(c) == 0; i++) {
        v[i] = case_node(c, &k->cases[i]);
        types |= k->cases[i].types;
    }
    *rules = types & ~(unsigned)QN_T_SCALAR;
    return qn_g_alt_n(c->g, v, k->n_cases);
}

qn_gnode qn_s_node(struct qn_schema *c, qn_conj id) {
    if (id == QN_CONJ_NEVER || QN_S_FAILED(c)) return QN_G_NONE;
    struct qn_sconj *k = c->conj[id];
    unsigned rules = 0;
    if (k->made == QN_S_YES) return k->node;
    if (k->made == QN_S_BUSY) return k->rule ? k->rule : (k->rule = qn_g_rule(c->g));
    if (c->nest >= QN_SCHEMA_NEST_MAX) {
        qn_s_refuse(c, k->n ? k->v[0] : NULL, NULL, "invalid_value", "nested more than %d deep", QN_SCHEMA_NEST_MAX);
        return QN_G_NONE;
    }
    k->made = QN_S_BUSY;
    c->nest++;
    k->node = make(c, k, &rules);
    c->nest--;
    /* What was referred to meanwhile needs a body, even if that is nothing. */
    if (!k->rule && rules && k->node != QN_G_NONE) k->rule = qn_g_rule(c->g);
    if (k->rule) qn_g_rule_set(c->g, k->rule, k->node);
    if (k->rule && k->node != QN_G_NONE) k->node = k->rule;
    k->made = QN_S_YES;
    return k->node;
}

int qn_s_sat(struct qn_schema *c, qn_conj id) {
    if (id == QN_CONJ_NEVER) return 0;
    struct qn_sconj *k = c->conj[id];
    uint8_t *sat = &k->sat[c->no_formats];
    if (k->n == 0 || *sat == QN_S_BUSY || QN_S_FAILED(c)) return 1;
    if (*sat != QN_S_NEW) return *sat == QN_S_YES;
    *sat = QN_S_BUSY;
    int yes = qn_s_expand(c, k) < 0 || c->nest >= QN_SCHEMA_NEST_MAX;
    c->nest++;
    for (uint32_t i = 0; i < k->n_cases && !yes && qn_s_tick(c) == 0; i++) {
        const struct qn_scase *s = &k->cases[i];
        yes = scalars(c, s) != QN_G_NONE || (s->types & QN_T_OBJECT && qn_s_object_sat(c, s)) ||
              (s->types & QN_T_ARRAY && qn_s_array_sat(c, s));
    }
    c->nest--;
    yes |= QN_S_FAILED(c);
    *sat = yes ? QN_S_YES : QN_S_NO;
    return yes;
}

/* ---- the entries ---- */

/* What may stand between tokens: by default at most a space, or a line break with up to 32 spaces or 16 tabs. */
static qn_gnode whitespace(struct qn_schema *c) {
    struct qn_err err = {0};
    if (c->o->no_whitespace) return QN_G_EMPTY;
    if (!c->o->whitespace) {
        qn_gnode pad = qn_g_alt(c->g, qn_g_repeat(c->g, bytes(c, " "), 0, 32), qn_g_repeat(c->g, bytes(c, "\t"), 0, 16));
        return qn_g_alt(c->g, qn_g_repeat(c->g, bytes(c, " "), 0, 1), qn_g_cat(c->g, bytes(c, "\n"), pad));
    }
    static const struct qn_codes blank[] = {{' ', ' '}, {'\t', '\n'}, {'\r', '\r'}};
    qn_gnode w = qn_g_regex(c->g, c->o->whitespace, c->o->n_whitespace, NULL, &err);
    const char *path = c->o->whitespace_path ? c->o->whitespace_path : "whitespace_pattern";
    if (err.code) c->failed = qn_refuse(c->r, 400, "invalid_value", path, "Invalid '%s': %s.", path, err.text);
    w = qn_s_settle(c, qn_g_and(c->g, w, qn_g_repeat(c->g, qn_g_chars(c->g, blank, 3), 0, QN_G_INF)));
    if (w == QN_G_NONE && !QN_S_FAILED(c))
        c->failed = qn_refuse(c->r, 400, "invalid_value", path, "Invalid '%s': it matches no JSON whitespace.", path);
    return w;
}

static int begin(struct qn_schema *c, struct qn_grammar *g, const json_t *schema, const struct qn_schema_opts *o, const char *path,
                 struct qn_refusal *r) {
    static const struct qn_schema_opts none = {0};
    static const struct qn_codes any[] = {{0, 0x10FFFF}};
    *c = (struct qn_schema){.g = g, .root = schema, .o = o ? o : &none, .path = path, .r = r};
    qn_arena_init(&c->mem, 64u << 20);
    c->own = json_array();
    if (!c->own) return no_memory(c), QN_E_RANGE;
    c->ws = whitespace(c);
    c->chr = qn_s_code(NULL, g, any, 1);
    c->colon = qn_s_token(c, ":");
    return c->failed;
}

static void done(struct qn_schema *c) {
    json_decref(c->own);
    qn_arena_done(&c->mem);
}

/* The grammar's own failure in the words of a request. */
static int grammar_failed(struct qn_schema *c) {
    int code = qn_grammar_error(c->g);
    if (code == QN_E_NOMEM) return qn_refuse_code(c->r, code, NULL);
    return qn_refuse(c->r, 400, "invalid_value", c->path, code == QN_E_LIMIT ? "The schema at '%s' is too large to compile, or takes too long."
                     : "The schema at '%s' cannot be compiled.", c->path);
}

int qn_schema_node(struct qn_grammar *g, const json_t *schema, const struct qn_schema_opts *o, const char *path, qn_gnode *out,
                   struct qn_refusal *r) {
    struct qn_schema c;
    if (begin(&c, g, schema, o, path, r) == 0 && qn_s_index(&c) == 0) {
        qn_gnode n = qn_s_node(&c, qn_s_conj(&c, &schema, 1));
        if (!c.failed && qn_grammar_error(g) < 0) c.failed = grammar_failed(&c);
        if (!c.failed && n == QN_G_NONE) qn_s_refuse(&c, schema, NULL, "invalid_value", "no value satisfies it");
        if (!c.failed) *out = n;
    } else if (!c.failed)
        c.failed = grammar_failed(&c);
    done(&c);
    return c.failed ? QN_E_RANGE : 0;
}

qn_gnode qn_schema_object(struct qn_grammar *g, const struct qn_schema_opts *o) {
    struct qn_schema c;
    struct qn_refusal r = {0};
    qn_gnode out = begin(&c, g, NULL, o, "", &r) == 0 ? any_level(&c, QN_SCHEMA_DEPTH_MAX, 1) : QN_G_NONE;
    if (c.failed == 0 && qn_s_any(&c, QN_SCHEMA_DEPTH_MAX - 1) == QN_G_NONE) out = QN_G_NONE;
    done(&c);
    return out;
}
