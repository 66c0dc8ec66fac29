/* Strings: what lies between the quotes, as JSON spells it. Every character has one spelling (itself; \" \\ \b \f \n \r \t;
 * \u00xx in lower case for the other controls), so that "not this name" means what it says. Lengths count characters.
 * Patterns are regular expressions whose character sets are made by qn_s_code; so are formats (schema_format.c). */
#include "api/schema_impl.h"

#include <stdio.h>
#include <string.h>

/* ---- characters ---- */

static qn_gnode escape_of(struct qn_grammar *g, uint32_t ch) {
    static const char letters[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    char text[8];
    for (size_t i = 0; i + 1 < sizeof letters; i += 2)
        if ((uint32_t)letters[i] == ch) return qn_g_bytes(g, (char[]){'\\', letters[i + 1]}, 2);
    snprintf(text, sizeof text, "\\u%04x", (unsigned)ch);
    return qn_g_bytes(g, text, 6);
}

qn_gnode qn_s_code(void *user, struct qn_grammar *g, const struct qn_codes *v, size_t n) {
    static const struct qn_codes raw[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
    qn_gnode out = QN_G_NONE;
    (void)user;
    for (size_t i = 0; i < n; i++) {
        struct qn_codes part[3];
        size_t m = 0;
        for (size_t k = 0; k < 3; k++) {
            struct qn_codes p = {v[i].from > raw[k].from ? v[i].from : raw[k].from, v[i].to < raw[k].to ? v[i].to : raw[k].to};
            if (p.from <= p.to) part[m++] = p;
        }
        if (m) out = qn_g_alt(g, out, qn_g_chars(g, part, m));
        for (uint32_t ch = v[i].from; ch <= v[i].to && ch <= 0x5C; ch++)
            if (ch < 0x20 || ch == 0x22 || ch == 0x5C) out = qn_g_alt(g, out, escape_of(g, ch));
    }
    return out;
}

qn_gnode qn_s_escaped(struct qn_schema *c, const char *p, size_t n) {
    char *out = qn_s_alloc(c, n * 6 + 1), *w = out;
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    for (size_t i = 0; out && i < n; i++) {
        const char *at = p[i] ? strchr(from, p[i]) : NULL;
        if (at) {
            *w++ = '\\';
            *w++ = to[at - from];
        } else if ((unsigned char)p[i] < 0x20)
            w += snprintf(w, 7, "\\u%04x", (unsigned)p[i]);
        else *w++ = p[i];
    }
    return out ? qn_g_bytes(c->g, out, (size_t)(w - out)) : QN_G_NONE;
}

/* ---- patterns ---- */

static qn_gnode regex(struct qn_schema *c, const json_t *s, const char *kw, const char *p, size_t n, int search) {
    struct qn_regex_opts o = {.search = search, .code = qn_s_code};
    struct qn_err err = {0};
    qn_gnode out = qn_g_regex(c->g, p, n, &o, &err);
    if (err.code && qn_grammar_error(c->g) == 0)
        qn_s_refuse(c, s, kw, err.code == QN_E_UNSUPPORTED ? "unsupported_value" : "invalid_value", "%s", err.text);
    return out;
}

qn_gnode qn_s_pattern(struct qn_schema *c, const json_t *s, const char *kw, const char *p, size_t n) {
    uintptr_t known;
    if (qn_s_recall(c, p, QN_MAP_PATTERN, &known)) return (qn_gnode)known;
    qn_gnode out = regex(c, s, kw, p, n, 1);
    return qn_s_remember(c, p, QN_MAP_PATTERN, out) < 0 ? QN_G_NONE : out;
}

static qn_gnode pattern_of(struct qn_schema *c, const json_t *s, const char *kw) {
    const json_t *v = qn_s_kw(s, kw);
    return qn_s_pattern(c, s, kw, json_string_value(v), json_string_length(v));
}

static qn_gnode format_of(struct qn_schema *c, const json_t *s, const char *kw, const char *p) {
    uintptr_t known;
    if (qn_s_recall(c, p, QN_MAP_PATTERN, &known)) return (qn_gnode)known;
    qn_gnode out = regex(c, s, kw, p, strlen(p), 0);
    return qn_s_remember(c, p, QN_MAP_PATTERN, out) < 0 ? QN_G_NONE : out;
}

/* ---- one case ---- */

struct strings {
    double min, max; /* characters; max < 0: no bound */
    qn_gnode all;    /* what all patterns and formats allow; NONE: anything */
    int met;         /* a pattern or a format was met */
};

static void meet(struct qn_schema *c, struct strings *t, qn_gnode n) {
    t->all = t->met ? qn_g_and(c->g, t->all, n) : n;
    t->met = 1;
}

static void meet_atom(struct qn_schema *c, struct strings *t, const json_t *s) {
    static const struct { const char *kw; int format, negated; } rows[] = {{"pattern", 0, 0}, {QN_KW_NOT_PATTERN, 0, 1}, {"format", 1, 0}};
    const json_t *lo = qn_s_kw(s, "minLength"), *hi = qn_s_kw(s, "maxLength");
    if (lo && json_number_value(lo) > t->min) t->min = json_number_value(lo);
    if (hi && (t->max < 0 || json_number_value(hi) < t->max)) t->max = json_number_value(hi);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !c->failed; i++) {
        const json_t *v = qn_s_kw(s, rows[i].kw);
        uint32_t most = 0;
        const char *re = v && rows[i].format ? qn_s_format(json_string_value(v), json_string_length(v), &most) : NULL;
        if (!v || (rows[i].format && (!re || c->no_formats))) continue;
        qn_gnode n = re ? format_of(c, s, rows[i].kw, re) : pattern_of(c, s, rows[i].kw);
        if (most) n = qn_g_and(c->g, n, qn_g_repeat(c->g, c->chr, 0, most));
        meet(c, t, rows[i].negated ? qn_g_not(c->g, n) : n);
    }
}

static int has(const json_t *list, const json_t *v) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (qn_s_equal(json_array_get(list, i), v)) return 1;
    return 0;
}

/* 1: no atom's enum or const speaks against it. */
static int listed(struct qn_schema *c, const struct qn_scase *k, const json_t *v) {
    for (uint32_t i = 0; i < k->n; i++) {
        const json_t *s = qn_s_atom(c, k, i), *list = qn_s_kw(s, "enum"), *one = qn_s_kw(s, "const");
        if ((list && !has(list, v)) || (one && !qn_s_equal(one, v)) || has(qn_s_kw(s, QN_KW_NOT_ENUM), v)) return 0;
    }
    return 1;
}

/* The values of the first enum or const that are strings (or numbers) and in all others. 0: there is no such keyword. */
int qn_s_listed(struct qn_schema *c, const struct qn_scase *k, unsigned types, qn_gnode *out) {
    const json_t *list = NULL, *one = NULL;
    for (uint32_t i = 0; i < k->n && !list && !one; i++) {
        list = qn_s_kw(qn_s_atom(c, k, i), "enum");
        one = list ? NULL : qn_s_kw(qn_s_atom(c, k, i), "const");
    }
    if (!list && !one) return 0;
    size_t n = one ? 1 : json_array_size(list), m = 0;
    qn_gnode *v = qn_s_alloc(c, (n + 1) * sizeof *v);
    for (size_t i = 0; v && i < n && qn_s_tick(c) == 0; i++) {
        const json_t *x = one ? one : json_array_get(list, i);
        if (qn_s_type_of_value(x) & types && listed(c, k, x)) v[m++] = qn_s_value(c, x);
    }
    *out = v ? qn_g_alt_n(c->g, v, m) : QN_G_NONE;
    return 1;
}

static uint32_t bound(double v) { return v < 0 || v >= QN_G_INF ? QN_G_INF : (uint32_t)v; }

qn_gnode qn_s_string(struct qn_schema *c, const struct qn_scase *k) {
    struct strings t = {0, -1, QN_G_NONE, 0};
    qn_gnode some = QN_G_NONE;
    for (uint32_t i = 0; i < k->n; i++) {
        const json_t *s = qn_s_atom(c, k, i), *no = qn_s_kw(s, QN_KW_NOT_ENUM);
        meet_atom(c, &t, s);
        for (size_t x = 0; x < json_array_size(no); x++)
            if (json_is_string(json_array_get(no, x))) some = qn_g_alt(c->g, some, qn_s_value(c, json_array_get(no, x)));
    }
    if (t.max >= 0 && t.min > t.max) return QN_G_NONE;
    if (some != QN_G_NONE) meet(c, &t, qn_g_not(c->g, some));
    int is_listed = qn_s_listed(c, k, QN_T_STRING, &some), sized = t.min > 0 || t.max >= 0;
    if (is_listed) meet(c, &t, some);
    if (!t.met) return qn_g_repeat(c->g, c->chr, bound(t.min), bound(t.max));
    if (sized || !is_listed) meet(c, &t, qn_g_repeat(c->g, c->chr, bound(t.min), bound(t.max)));
    return qn_s_settle(c, t.all);
}

qn_gnode qn_s_strings(struct qn_schema *c, qn_conj id) {
    qn_gnode out = QN_G_NONE;
    if (id == QN_CONJ_NEVER) return QN_G_NONE;
    if (c->conj[id]->n == 0) return qn_g_repeat(c->g, c->chr, 0, QN_G_INF);
    if (qn_s_expand(c, c->conj[id]) < 0) return QN_G_NONE;
    for (uint32_t i = 0; i < c->conj[id]->n_cases; i++)
        if (c->conj[id]->cases[i].types & QN_T_STRING) out = qn_g_alt(c->g, out, qn_s_string(c, &c->conj[id]->cases[i]));
    return out;
}
