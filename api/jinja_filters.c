/* Jinja's filters: the table, and those that make text or one value. Filters over sequences are in jinja_seq.c.
 *
 * An unknown filter fails when it is reached, not before, as in Jinja2: a template may hold one in a branch that
 * this server never takes. tojson is transformers' (no HTML escapes; ensure_ascii, indent, separators, sort_keys). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_calls.h"
#include "api/jinja_methods.h"
#include "api/jinja_ops.h"
#include "api/jinja_seq.h"
#include "api/jinja_show.h"
#include "api/jinja_str.h"
#include "api/jinja_unicode.h"
#include "engine/base/utf8.h"

typedef struct qn_jv filter_fn(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in);

static struct qn_jv of(struct qn_jstr *s) { return (struct qn_jv){.t = J_STR, .s = s}; }
static struct qn_jstr *text(struct qn_jx *x, struct qn_jv v) { return qn_jv_to_str(x, v); }
static struct qn_jstr *given_str(struct qn_jx *x, struct qn_jv v) {
    return v.t == J_MISSING || v.t == J_NONE ? NULL : qn_jcall_str(x, v, "a filter's argument");
}

static struct qn_jv f_upper(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    return qn_jstr_case(x, text(x, v), CASE_UPPER);
}
static struct qn_jv f_lower(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    return qn_jstr_case(x, text(x, v), CASE_LOWER);
}
static struct qn_jv f_title(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    return qn_jstr_case(x, text(x, v), CASE_WORDS);
}
static struct qn_jv f_capitalize(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    return qn_jstr_case(x, text(x, v), CASE_CAPITAL);
}
static struct qn_jv f_string(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) { (void)in; return of(text(x, v)); }
static struct qn_jv f_escape(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) { (void)in; return qn_jv_escape(x, v); }

static struct qn_jv f_safe(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    struct qn_jstr *s = text(x, v);
    struct qn_jv r = qn_jstr_sub(x, s, 0, s->n);
    r.s->markup = 1;
    return r;
}

static struct qn_jv f_forceescape(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    struct qn_jv s = qn_jstr_sub(x, text(x, v), 0, text(x, v)->n);
    s.s->markup = 0;
    return qn_jv_escape(x, s);
}

static struct qn_jv f_trim(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    return qn_jstr_strip(x, text(x, v), given_str(x, in[0]), STRIP_LEFT | STRIP_RIGHT);
}

static struct qn_jv f_replace(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jv s = qn_jstr_sub(x, text(x, v), 0, text(x, v)->n);
    s.s->markup = 0;
    return qn_jstr_replace(x, s.s, text(x, in[0]), text(x, in[1]), in[2].t == J_NONE ? -1 : qn_jcall_int(x, in[2], -1));
}

static struct qn_jv f_default(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    if (v.t != J_UNDEF && !(qn_jv_true(x, in[1]) && !qn_jv_true(x, v))) return v;
    return in[0].t == J_MISSING ? qn_jv_cstr(x, "") : in[0];
}

static struct qn_jv f_length(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    return qn_jv_int(qn_jv_len(x, v));
}

static struct qn_jv f_center(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jv w = in[0].t == J_MISSING ? qn_jv_int(80) : in[0];
    return qn_jcall_str_method(x, text(x, v), M_center, &(struct qn_jargv){.pos = &w, .n = 1});
}

static struct qn_jv f_indent(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    struct qn_jstr *s = qn_jcall_str(x, v, "indent"), *by;
    struct qn_jstr newline = {.p = "\n", .n = 1, .chars = 1, .trust = TRUST_ALL},
                   blank = {.p = " ", .n = 1, .chars = 1, .trust = TRUST_ALL};
    int first = qn_jv_true(x, in[1]), blanks = qn_jv_true(x, in[2]);
    if (in[0].t == J_STR) {
        by = in[0].s;
    } else {
        int64_t n = qn_jcall_int(x, in[0], 4);
        by = qn_jstr_pad(x, qn_jv_cstr(x, "").s, n, 0, &blank).s;
    }
    struct qn_jlist *l = qn_jstr_lines(x, qn_jstr_concat(x, s, &newline).s, 0).l;
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) qn_jsb_str(&b, &newline);
        if (i ? blanks || l->v[i].s->n : first) qn_jsb_str(&b, by);
        qn_jsb_str(&b, l->v[i].s);
    }
    struct qn_jv r = qn_jsb_done(&b);
    r.s->markup = s->markup;
    return r;
}

static struct qn_jv f_truncate(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jstr *end = in[2].t == J_MISSING ? qn_jv_cstr(x, "...").s : qn_jcall_str(x, in[2], "truncate");
    int64_t length = qn_jcall_int(x, in[0], 255), leeway = in[3].t == J_NONE ? 5 : qn_jcall_int(x, in[3], 5),
            n_end = qn_jstr_chars(end);
    if (length < n_end || leeway < 0)
        qn_jx_fail(x, QN_E_DATA, "truncate: expected length >= %lld and leeway >= 0", (long long)n_end);
    if (length > INT32_MAX || leeway > INT32_MAX || qn_jv_len(x, v) <= length + leeway) return v;
    struct qn_jstr *s = qn_jcall_str(x, v, "truncate");
    struct qn_jstr *cut = qn_jstr_sub(x, s, 0, qn_jstr_at(s, (uint32_t)(length - n_end))).s;
    if (!qn_jv_true(x, in[1])) cut = qn_jstr_split(x, cut, qn_jv_cstr(x, " ").s, 1, 1).l->v[0].s;
    return qn_jstr_concat(x, cut, end);
}

static struct qn_jv f_wordcount(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    struct qn_jstr *s = text(x, v);
    int64_t words = 0;
    int inside = 0;
    uint32_t r = 0;
    qn_jx_fuel(x, s->n >> 4);
    for (size_t i = 0; i < s->n;) {
        int k = qn_utf8_decode(s->p + i, s->n - i, &r);
        i += k > 0 ? (size_t)k : 1;
        int word = r == '_' || qn_ju_is(r, QN_JU_ALPHA) || qn_ju_is(r, QN_JU_NUMERIC);
        words += word && !inside;
        inside = word;
    }
    return qn_jv_int(words);
}

/* ---- numbers ---- */

/* Text of a number without blanks around it and underscores inside; 0: empty, too long or not ASCII. */
static size_t number_text(struct qn_jx *x, struct qn_jstr *s, char *to, size_t size) {
    struct qn_jstr *t = qn_jstr_strip(x, s, NULL, STRIP_LEFT | STRIP_RIGHT).s;
    size_t o = 0;
    for (size_t i = 0; i < t->n; i++) {
        char c = t->p[i];
        if (c == '_' && i && i + 1 < t->n && t->p[i - 1] != '_' && strchr("0123456789abcdefABCDEF", t->p[i + 1])) continue;
        if (c <= 0x20 || c == '_' || c == 0x7F || o + 1 >= size) return 0;
        to[o++] = c;
    }
    to[o] = 0;
    return o;
}

static int parse_float(struct qn_jx *x, struct qn_jstr *s, double *out) {
    char t[512], *end;
    size_t n = number_text(x, s, t, sizeof t);
    if (!n || strpbrk(t, "xXpP(")) return 0;
    *out = strtod(t, &end);
    return end == t + n;
}

static int parse_int(struct qn_jx *x, struct qn_jstr *s, int64_t base, int64_t *out) {
    char t[128];
    size_t n = number_text(x, s, t, sizeof t), i = 0;
    if (!n || base == 1 || base < 0 || base > 36) return 0;
    int minus = t[0] == '-';
    if (t[0] == '-' || t[0] == '+') i++;
    char p = t[i] == '0' ? (char)(t[i + 1] | 0x20) : 0;
    int64_t named = p == 'x' ? 16 : p == 'o' ? 8 : p == 'b' ? 2 : 0;
    if (named && (base == 0 || base == named)) {
        base = named;
        i += 2;
    } else if (base == 0) {
        if (t[i] == '0' && strspn(t + i, "0") != n - i) return 0;
        base = 10;
    }
    int64_t v = 0;
    size_t from = i;
    for (; i < n; i++) {
        char c = (char)(t[i] | 0x20);
        int d = t[i] >= '0' && t[i] <= '9' ? t[i] - '0' : c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
        if (d >= base) return 0;
        if (__builtin_mul_overflow(v, base, &v) || __builtin_sub_overflow(v, (int64_t)d, &v))
            qn_jx_fail(x, QN_E_DATA, "an integer does not fit 64 bits");
    }
    if (i == from) return 0;
    if (!minus && __builtin_sub_overflow(0, v, &v)) qn_jx_fail(x, QN_E_DATA, "an integer does not fit 64 bits");
    *out = v;
    return 1;
}

static int whole(struct qn_jx *x, double f, int64_t *out) {
    if (!isfinite(f)) return 0;
    if (!(f > -9.2e18 && f < 9.2e18)) qn_jx_fail(x, QN_E_DATA, "an integer does not fit 64 bits");
    *out = (int64_t)f;
    return 1;
}

static struct qn_jv f_int(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jv fallback = in[0].t == J_MISSING ? qn_jv_int(0) : in[0];
    struct qn_jv r = qn_jv_int(0);
    double f;
    r.dirty = v.dirty || (v.t == J_STR && v.s->trust != TRUST_ALL);
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    if (qn_jv_is_int(v)) return r.i = qn_jv_as_int(v), r;
    if (v.t == J_FLOAT) {
        if (isinf(v.f)) return fallback;
        return whole(x, v.f, &r.i) ? r : fallback;
    }
    if (v.t != J_STR) return fallback;
    if ((in[1].t == J_MISSING || qn_jv_is_int(in[1])) && parse_int(x, v.s, qn_jcall_int(x, in[1], 10), &r.i)) return r;
    return parse_float(x, v.s, &f) && whole(x, f, &r.i) ? r : fallback;
}

static struct qn_jv f_float(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jv r = qn_jv_float(0);
    r.dirty = v.dirty || (v.t == J_STR && v.s->trust != TRUST_ALL);
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    if (qn_jv_is_num(v)) return r.f = qn_jv_as_num(v), r;
    if (v.t == J_STR && parse_float(x, v.s, &r.f)) return r;
    return in[0].t == J_MISSING ? qn_jv_float(0) : in[0];
}

static struct qn_jv f_abs(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    (void)in;
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    if (!qn_jv_is_num(v)) qn_jx_fail(x, QN_E_DATA, "bad operand type for abs(): '%s'", qn_jv_type(v));
    if (v.t == J_FLOAT) return v.f = fabs(v.f), v;
    return qn_jv_negate(x, v, qn_jv_as_int(v) < 0 ? -1 : 1);
}

/* Rounding to decimals goes through the shortest text that a double prints, which is exactly CPython's round(). */
static double round_to(double f, int64_t digits) {
    char t[400];
    if (!isfinite(f)) return f;
    if (digits > 22) return f;
    if (digits < 0) {
        if (digits < -308) return copysign(0, f);
        double p = pow(10, (double)-digits), q = f / p, r = round(q);
        if (fabs(q - r) == 0.5) r = 2 * round(q / 2);
        return r * p;
    }
    snprintf(t, sizeof t, "%.*f", (int)digits, f);
    return strtod(t, NULL);
}

static struct qn_jv f_round(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    int64_t digits = qn_jcall_int(x, in[0], 0);
    struct qn_jstr *how = in[1].t == J_MISSING ? qn_jv_cstr(x, "common").s : qn_jcall_str(x, in[1], "round");
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    if (!qn_jv_is_num(v)) qn_jx_fail(x, QN_E_DATA, "type %s doesn't define __round__ method", qn_jv_type(v));
    struct qn_jv r = v;
    if (qn_jstr_is(how, "common")) {
        if (v.t == J_FLOAT) return r.f = round_to(v.f, digits), r;
        r = qn_jv_int(qn_jv_as_int(v));
        r.dirty = v.dirty;
        if (digits < 0) { /* an int stays one: to the even ten */
            if (digits < -18) return r.i = 0, r;
            int64_t p = qn_jv_pow_int(x, 10, -digits).i, rest = r.i % p, half = p / 2, q = r.i / p;
            if (llabs(rest) > half || (llabs(rest) == half && q % 2)) q += r.i < 0 ? -1 : 1;
            if (__builtin_mul_overflow(q, p, &r.i)) qn_jx_fail(x, QN_E_DATA, "an integer does not fit 64 bits");
        }
        return r;
    }
    if (!qn_jstr_is(how, "ceil") && !qn_jstr_is(how, "floor")) qn_jx_fail(x, QN_E_DATA, "method must be common, ceil or floor");
    struct qn_jv p = qn_jv_binary(x, TOK_POW, qn_jv_int(10), qn_jv_int(digits)), up = qn_jv_binary(x, TOK_MUL, v, p);
    double f = qn_jv_as_num(up);
    int64_t i = 0;
    if (!whole(x, how->p[0] == 'c' ? ceil(f) : floor(f), &i)) qn_jx_fail(x, QN_E_DATA, "cannot convert float to integer");
    r = qn_jv_binary(x, TOK_DIV, qn_jv_int(i), p);
    r.dirty = v.dirty;
    return r;
}

/* ---- JSON ---- */

static struct qn_jv f_tojson(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jjson how = {.item = ", ", .n_item = 2, .key = ": ", .n_key = 2, .indent = ""};
    how.ascii = qn_jv_true(x, in[0]);
    how.sort = qn_jv_true(x, in[3]);
    if (in[1].t != J_MISSING && in[1].t != J_NONE) {
        how.pretty = 1;
        how.n_item = 1;
        struct qn_jstr blank = {.p = " ", .n = 1, .chars = 1, .trust = TRUST_ALL};
        struct qn_jstr *by =
            in[1].t == J_STR ? in[1].s : qn_jstr_pad(x, qn_jv_cstr(x, "").s, qn_jcall_int(x, in[1], 0), 0, &blank).s;
        how.indent = by->p;
        how.n_indent = by->n;
    }
    if (in[2].t != J_MISSING && in[2].t != J_NONE) {
        struct qn_jlist *l = qn_jv_to_list(x, in[2], J_LIST).l;
        if (l->n != 2) qn_jx_fail(x, QN_E_DATA, "tojson: separators must be two");
        struct qn_jstr *item = qn_jcall_str(x, l->v[0], "separators"), *key = qn_jcall_str(x, l->v[1], "separators");
        how.item = item->p;
        how.n_item = item->n;
        how.key = key->p;
        how.n_key = key->n;
    }
    return qn_jv_tojson(x, v, &how);
}

static struct qn_jv f_attr(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jstr *name = qn_jcall_str(x, in[0], "attr");
    const char *c = qn_jstr_c(x, name);
    if (v.t == J_DICT && qn_jcall_method(c) < 0) return (struct qn_jv){.t = J_UNDEF, .sub = UNDEF_ATTR, .of = v.t, .name = c};
    return qn_jv_attr(x, v, qn_jv_cstr(x, c).s, qn_jcall_method(c));
}

/* ---- the table ---- */

enum { SEQ = 1, PICK, FORMAT };
/* clang-format off */
static const struct { const char *name, *spec; filter_fn *fn; uint8_t kind, op; } filters[] = {
    {"abs", "", f_abs, 0, 0}, {"attr", "name", f_attr, 0, 0}, {"capitalize", "", f_capitalize, 0, 0},
    {"center", "width=", f_center, 0, 0},
    {"count", "", f_length, 0, 0}, {"length", "", f_length, 0, 0}, {"d", "default_value=,boolean=", f_default, 0, 0},
    {"default", "default_value=,boolean=", f_default, 0, 0}, {"e", "", f_escape, 0, 0}, {"escape", "", f_escape, 0, 0},
    {"forceescape", "", f_forceescape, 0, 0}, {"float", "default=", f_float, 0, 0}, {"int", "default=,base=", f_int, 0, 0},
    {"indent", "width=,first=,blank=", f_indent, 0, 0}, {"lower", "", f_lower, 0, 0},
    {"replace", "old,new,count=", f_replace, 0, 0},
    {"round", "precision=,method=", f_round, 0, 0}, {"safe", "", f_safe, 0, 0}, {"string", "", f_string, 0, 0},
    {"title", "", f_title, 0, 0},
    {"tojson", "ensure_ascii=,indent=,separators=,sort_keys=", f_tojson, 0, 0}, {"trim", "chars=", f_trim, 0, 0},
    {"truncate", "length=,killwords=,end=,leeway=", f_truncate, 0, 0}, {"upper", "", f_upper, 0, 0},
    {"wordcount", "", f_wordcount, 0, 0},
    {"batch", "linecount,fill_with=", NULL, SEQ, SQ_BATCH}, {"slice", "slices,fill_with=", NULL, SEQ, SQ_SLICE},
    {"dictsort", "case_sensitive=,by=,reverse=", NULL, SEQ, SQ_DICTSORT}, {"first", "", NULL, SEQ, SQ_FIRST},
    {"last", "", NULL, SEQ, SQ_LAST},
    {"groupby", "attribute,default=,case_sensitive=", NULL, SEQ, SQ_GROUPBY}, {"items", "", NULL, SEQ, SQ_ITEMS},
    {"join", "d=,attribute=", NULL, SEQ, SQ_JOIN}, {"list", "", NULL, SEQ, SQ_LIST},
    {"max", "case_sensitive=,attribute=", NULL, SEQ, SQ_MAX},
    {"min", "case_sensitive=,attribute=", NULL, SEQ, SQ_MIN}, {"reverse", "", NULL, SEQ, SQ_REVERSE},
    {"sort", "reverse=,case_sensitive=,attribute=", NULL, SEQ, SQ_SORT}, {"sum", "attribute=,start=", NULL, SEQ, SQ_SUM},
    {"unique", "case_sensitive=,attribute=", NULL, SEQ, SQ_UNIQUE}, {"map", "", NULL, PICK, SQ_MAP},
    {"select", "", NULL, PICK, SQ_SELECT},
    {"reject", "", NULL, PICK, SQ_REJECT}, {"selectattr", "", NULL, PICK, SQ_SELECTATTR},
    {"rejectattr", "", NULL, PICK, SQ_REJECTATTR},
    {"format", "", NULL, FORMAT, 0},
};
/* clang-format on */

int qn_jcall_filter(const char *name) {
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (!strcmp(filters[i].name, name)) return (int)i;
    return -1;
}

static struct qn_jv f_format(struct qn_jx *x, struct qn_jv v, const struct qn_jargv *a) {
    if (a->n && a->n_kw) qn_jx_fail(x, QN_E_DATA, "can't handle positional and keyword arguments at the same time");
    struct qn_jv args;
    if (a->n_kw) {
        args = qn_jv_dict(x, a->n_kw);
        for (uint32_t i = 0; i < a->n_kw; i++) qn_jdict_put(x, args.d, a->kw[i].k, a->kw[i].v);
    } else {
        args = qn_jv_list(x, J_TUPLE, a->n);
        for (uint32_t i = 0; i < a->n; i++) args.l->v[i] = a->pos[i];
    }
    return qn_jv_percent(x, text(x, v), args);
}

struct qn_jv qn_jcall_run_filter(struct qn_jx *x, int id, const char *name, struct qn_jv v, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    if (id < 0) qn_jx_fail(x, QN_E_UNSUPPORTED, "No filter named '%.60s'.", name);
    if (filters[id].kind == PICK) return qn_jseq_pick(x, filters[id].op, v, a);
    if (filters[id].kind == FORMAT) return f_format(x, v, a);
    qn_jcall_bind(x, name, filters[id].spec, a, in);
    return filters[id].kind == SEQ ? qn_jseq_filter(x, filters[id].op, v, in) : filters[id].fn(x, v, in);
}
