/* str(), repr(), json.dumps and HTML escapes, as CPython 3.11 prints them.
 *
 * A container is first looked through for anything of the request; its brackets and commas are trusted only when there is
 * nothing. JSON that was not unfolded yet answers that at once. */
#include "api/jinja_show.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_ops.h"
#include "api/jinja_unicode.h"
#include "engine/base/utf8.h"

/* Shortest digits that read back the same; the exponent form outside 1e-4 .. 1e16, as repr does. */
size_t qn_jv_float_text(double f, char out[40]) {
    if (isnan(f)) return (size_t)snprintf(out, 40, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 40, f < 0 ? "-inf" : "inf");
    char e[40];
    int prec = 0;
    do snprintf(e, sizeof e, "%.*e", prec, f);
    while (strtod(e, NULL) != f && ++prec < 17);
    int exp = (int)strtol(strchr(e, 'e') + 1, NULL, 10);
    if (exp < -4 || exp >= 16) {
        char *mark = strchr(e, 'e');
        return (size_t)snprintf(out, 40, "%.*se%c%02d", (int)(mark - e), e, exp < 0 ? '-' : '+', abs(exp));
    }
    int decimals = prec - exp;
    return (size_t)snprintf(out, 40, "%.*f", decimals < 1 ? 1 : decimals, f);
}

int qn_jv_tainted(struct qn_jx *x, struct qn_jv v) {
    int bad = 0;
    qn_jx_step(x);
    switch (v.t) {
    case J_STR: return v.s->n && v.s->trust != TRUST_ALL;
    case J_LIST: case J_TUPLE: case J_GEN:
        if (v.l->json) return !v.l->trusted;
        qn_jx_enter(x);
        for (uint32_t i = 0; i < v.l->n && !bad; i++) bad = qn_jv_tainted(x, v.l->v[i]);
        qn_jx_leave(x);
        return bad;
    case J_DICT: case J_VIEW: case J_NS:
        if (v.d->json) return !v.d->trusted;
        qn_jx_enter(x);
        for (uint32_t i = 0; i < v.d->n && !bad; i++) bad = qn_jv_tainted(x, v.d->e[i].k) || qn_jv_tainted(x, v.d->e[i].v);
        qn_jx_leave(x);
        return bad;
    default: return v.dirty;
    }
}

/* ---- repr ---- */

struct show {
    struct qn_jsb *b;
    int trusted; /* of what is written now */
};

static void put(struct show *o, const char *s) { qn_jsb_put(o->b, s, strlen(s), o->trusted); }

static void repr_str(struct show *o, const struct qn_jstr *s) {
    char quote = memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    char q[2] = {quote, 0}, e[12];
    if (s->markup) put(o, "Markup(");
    put(o, q);
    size_t from = 0;
    qn_jx_fuel(o->b->x, s->n >> 4);
    for (size_t i = 0; i < s->n;) {
        uint32_t r = (unsigned char)s->p[i];
        int k = 1;
        if (r >= 0x80) k = qn_utf8_decode(s->p + i, s->n - i, &r);
        if (k < 1) k = 1;
        int plain =
            r >= 0x80 ? !qn_ju_is(r, QN_JU_UNPRINTABLE) : r >= 0x20 && r != 0x7F && r != '\\' && r != (unsigned char)quote;
        if (plain) {
            i += (size_t)k;
            continue;
        }
        qn_jsb_put(o->b, s->p + from, i - from, o->trusted);
        if (r == '\\' || r == (unsigned char)quote) snprintf(e, sizeof e, "\\%c", (char)r);
        else if (r == '\n' || r == '\r' || r == '\t') snprintf(e, sizeof e, "\\%c", r == '\n' ? 'n' : r == '\r' ? 'r' : 't');
        else snprintf(e, sizeof e, r < 0x100 ? "\\x%02x" : r < 0x10000 ? "\\u%04x" : "\\U%08x", r);
        put(o, e);
        i += (size_t)k;
        from = i;
    }
    qn_jsb_put(o->b, s->p + from, s->n - from, o->trusted);
    put(o, q);
    if (s->markup) put(o, ")");
}

static void repr(struct show *o, struct qn_jv v);

static void repr_seq(struct show *o, struct qn_jlist *l, const char *open, const char *close) {
    put(o, open);
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) put(o, ", ");
        repr(o, l->v[i]);
    }
    put(o, close);
}

static void repr_dict(struct show *o, struct qn_jdict *d) {
    put(o, "{");
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) put(o, ", ");
        repr(o, d->e[i].k);
        put(o, ": ");
        repr(o, d->e[i].v);
    }
    put(o, "}");
}

static void repr_view(struct show *o, struct qn_jv v) {
    static const char *const open[] = {"dict_keys([", "dict_values([", "dict_items(["};
    struct qn_jiter it = qn_jv_iter(o->b->x, v);
    put(o, open[v.sub]);
    for (struct qn_jv m; qn_jv_next(o->b->x, &it, &m);) {
        if (it.i > 1) put(o, ", ");
        repr(o, m);
    }
    put(o, "])");
}

static void repr(struct show *o, struct qn_jv v) {
    struct qn_jx *x = o->b->x;
    char text[80];
    int was = o->trusted;
    qn_jx_enter(x);
    qn_jx_step(x);
    switch (v.t) {
    case J_UNDEF: put(o, "Undefined"); break;
    case J_NONE: put(o, "None"); break;
    case J_BOOL: put(o, v.b ? "True" : "False"); break;
    case J_INT: snprintf(text, sizeof text, "%lld", (long long)v.i); put(o, text); break;
    case J_FLOAT: qn_jv_float_text(v.f, text); put(o, text); break;
    case J_STR: repr_str(o, v.s); break;
    case J_LIST: repr_seq(o, qn_jlist_of(x, v), "[", "]"); break;
    case J_TUPLE: repr_seq(o, v.l, "(", v.l->n == 1 ? ",)" : ")"); break;
    case J_DICT: repr_dict(o, qn_jdict_of(x, v)); break;
    case J_VIEW: repr_view(o, v); break;
    case J_NS: put(o, "<Namespace "); repr_dict(o, v.d); put(o, ">"); break;
    case J_RANGE:
        snprintf(text, sizeof text, v.r->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)", (long long)v.r->from,
                 (long long)(v.r->from + v.r->n * v.r->step), (long long)v.r->step);
        put(o, text);
        break;
    case J_MACRO: put(o, "<Macro "); put(o, qn_jcall_macro_name(v)); put(o, ">"); break;
    case J_LOOP:
        snprintf(text, sizeof text, "<LoopContext %lld/%lld>", (long long)qn_jcall_loop_index(v), (long long)qn_jv_len(x, v));
        put(o, text);
        break;
    default: put(o, "<"); put(o, qn_jv_type(v)); put(o, ">"); break;
    }
    o->trusted = was;
    qn_jx_leave(x);
}

void qn_jv_repr(struct qn_jx *x, struct qn_jv v, struct qn_jsb *b) {
    struct show o = {b, !qn_jv_tainted(x, v)};
    repr(&o, v);
}

void qn_jv_show(struct qn_jx *x, struct qn_jv v, struct qn_jsb *b) {
    if (v.t == J_STR) qn_jsb_str(b, v.s);
    else if (v.t != J_UNDEF) qn_jv_repr(x, v, b);
}

struct qn_jstr *qn_jv_to_str(struct qn_jx *x, struct qn_jv v) {
    if (v.t == J_STR) return v.s;
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    qn_jv_show(x, v, &b);
    return qn_jsb_done(&b).s;
}

struct qn_jv qn_jv_escape(struct qn_jx *x, struct qn_jv v) {
    struct qn_jstr *s = qn_jv_to_str(x, v);
    if (s->markup) return (struct qn_jv){.t = J_STR, .s = s};
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    size_t from = 0, run;
    qn_jx_fuel(x, s->n >> 4);
    for (size_t i = 0; i < s->n; i++) {
        char c = s->p[i];
        const char *e = c == '&'    ? "&amp;"
                        : c == '<'  ? "&lt;"
                        : c == '>'  ? "&gt;"
                        : c == '"'  ? "&#34;"
                        : c == '\'' ? "&#39;"
                                    : NULL;
        if (!e) continue;
        qn_jsb_sub(&b, s, from, i);
        qn_jsb_put(&b, e, strlen(e), qn_jstr_trusted(s, i, &run));
        from = i + 1;
    }
    qn_jsb_sub(&b, s, from, s->n);
    struct qn_jv r = qn_jsb_done(&b);
    r.s->markup = 1;
    return r;
}

/* ---- JSON ---- */

struct json {
    struct qn_jsb *b;
    const struct qn_jjson *how;
    int trusted, level;
};

static void raw(struct json *o, const char *s, size_t n) { qn_jsb_put(o->b, s, n, o->trusted); }

static void json_str(struct json *o, const struct qn_jstr *s) {
    static const char from_[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    size_t from = 0;
    char e[16];
    raw(o, "\"", 1);
    qn_jx_fuel(o->b->x, s->n >> 5);
    for (size_t i = 0; i < s->n;) {
        unsigned char c = (unsigned char)s->p[i];
        if (c >= 0x20 && c != '"' && c != '\\' && (!o->how->ascii || c < 0x7F)) {
            i++;
            continue;
        }
        raw(o, s->p + from, i - from);
        uint32_t r = c;
        int k = c >= 0x80 ? qn_utf8_decode(s->p + i, s->n - i, &r) : 1, n;
        const char *hit = c && c < 0x80 ? strchr(from_, c) : NULL;
        if (hit) n = snprintf(e, sizeof e, "\\%c", to[hit - from_]);
        else if (r < 0x10000) n = snprintf(e, sizeof e, "\\u%04x", r);
        else n = snprintf(e, sizeof e, "\\u%04x\\u%04x", 0xD800 + ((r - 0x10000) >> 10), 0xDC00 + (r & 0x3FF));
        raw(o, e, (size_t)n);
        i += k > 0 ? (size_t)k : 1;
        from = i;
    }
    raw(o, s->p + from, s->n - from);
    raw(o, "\"", 1);
}

static void json_line(struct json *o) {
    if (!o->how->pretty) return;
    raw(o, "\n", 1);
    for (int i = 0; i < o->level; i++) raw(o, o->how->indent, o->how->n_indent);
}

static void json_key(struct json *o, struct qn_jv k) {
    struct qn_jx *x = o->b->x;
    struct qn_jsb b;
    char text[40];
    struct qn_jstr s = {.p = text};
    switch (k.t) {
    case J_STR: json_str(o, k.s); return;
    case J_NONE: s.p = "null"; break;
    case J_BOOL: s.p = k.b ? "true" : "false"; break;
    case J_INT: case J_FLOAT:
        qn_jsb_init(&b, x);
        qn_jv_repr(x, k, &b);
        s = *qn_jsb_done(&b).s;
        json_str(o, &s);
        return;
    default: qn_jx_fail(x, QN_E_DATA, "keys must be str, int, float, bool or None, not %s", qn_jv_type(k));
    }
    s.n = (uint32_t)strlen(s.p);
    json_str(o, &s);
}

static void json_value(struct json *o, struct qn_jv v);

static void json_seq(struct json *o, struct qn_jlist *l) {
    if (!l->n) {
        raw(o, "[]", 2);
        return;
    }
    raw(o, "[", 1);
    o->level++;
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) raw(o, o->how->item, o->how->n_item);
        json_line(o);
        json_value(o, l->v[i]);
    }
    o->level--;
    json_line(o);
    raw(o, "]", 1);
}

static void json_dict(struct json *o, struct qn_jdict *d) {
    struct qn_jx *x = o->b->x;
    struct qn_jpair *e = d->e;
    if (!d->n) {
        raw(o, "{}", 2);
        return;
    }
    if (o->how->sort) {
        e = qn_jx_array(x, d->n, sizeof *e);
        memcpy(e, d->e, d->n * sizeof *e);
        qn_jcall_sort_pairs(x, e, d->n);
    }
    raw(o, "{", 1);
    o->level++;
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) raw(o, o->how->item, o->how->n_item);
        json_line(o);
        json_key(o, e[i].k);
        raw(o, o->how->key, o->how->n_key);
        json_value(o, e[i].v);
    }
    o->level--;
    json_line(o);
    raw(o, "}", 1);
}

static void json_value(struct json *o, struct qn_jv v) {
    struct qn_jx *x = o->b->x;
    char text[48];
    qn_jx_enter(x);
    qn_jx_step(x);
    if (o->level > QN_J_VALUE_DEPTH_MAX) qn_jx_fail(x, QN_E_LIMIT, "a value nests too deeply");
    switch (v.t) {
    case J_NONE: raw(o, "null", 4); break;
    case J_BOOL: raw(o, v.b ? "true" : "false", v.b ? 4 : 5); break;
    case J_INT: raw(o, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)v.i)); break;
    case J_FLOAT:
        if (isnan(v.f)) raw(o, "NaN", 3);
        else if (isinf(v.f)) raw(o, v.f < 0 ? "-Infinity" : "Infinity", v.f < 0 ? 9 : 8);
        else raw(o, text, qn_jv_float_text(v.f, text));
        break;
    case J_STR: json_str(o, v.s); break;
    case J_LIST: case J_TUPLE: json_seq(o, qn_jlist_of(x, v)); break;
    case J_DICT: json_dict(o, qn_jdict_of(x, v)); break;
    default: qn_jx_fail(x, QN_E_DATA, "Object of type %s is not JSON serializable", qn_jv_type(v));
    }
    qn_jx_leave(x);
}

struct qn_jv qn_jv_tojson(struct qn_jx *x, struct qn_jv v, const struct qn_jjson *how) {
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    struct json o = {.b = &b, .how = how, .trusted = !qn_jv_tainted(x, v)};
    json_value(&o, v);
    return qn_jsb_done(&b);
}
