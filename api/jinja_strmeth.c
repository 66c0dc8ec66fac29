/* str's methods: arguments as Python takes them, work done in jinja_str.c. */
#include <limits.h>
#include <string.h>

#include "api/jinja_calls.h"
#include "api/jinja_methods.h"
#include "api/jinja_ops.h"
#include "api/jinja_show.h"
#include "api/jinja_str.h"
#include "api/jinja_unicode.h"
#include "engine/base/utf8.h"

static struct qn_jv of(struct qn_jstr *s) { return (struct qn_jv){.t = J_STR, .s = s}; }

static struct qn_jstr *optional_str(struct qn_jx *x, struct qn_jv v, const char *what) {
    return v.t == J_MISSING || v.t == J_NONE ? NULL : qn_jcall_str(x, v, what);
}

static int64_t optional_int(struct qn_jx *x, struct qn_jv v, int64_t absent) {
    return v.t == J_NONE ? absent : qn_jcall_int(x, v, absent);
}

/* [from, to) in bytes of Python's start and end arguments; 0 when the window is impossible. */
static int window(struct qn_jx *x, struct qn_jstr *s, struct qn_jv start, struct qn_jv end, size_t *from, size_t *to) {
    *from = 0;
    *to = s->n;
    if (start.t == J_MISSING && end.t == J_MISSING) return 1;
    int64_t n = qn_jstr_chars(s), a = optional_int(x, start, 0), z = optional_int(x, end, n);
    qn_jx_bytes(x, s->n);
    if (a < 0) a = a + n < 0 ? 0 : a + n;
    if (z < 0) z = z + n < 0 ? 0 : z + n;
    if (z > n) z = n;
    if (a > z) return 0;
    *from = qn_jstr_at(s, (uint32_t)a);
    *to = qn_jstr_at(s, (uint32_t)z);
    return 1;
}

static int64_t chars_before(const struct qn_jstr *s, size_t at) {
    int64_t c = 0;
    for (size_t i = 0; i < at; i++) c += ((unsigned char)s->p[i] & 0xC0) != 0x80;
    return c;
}

static struct qn_jv find(struct qn_jx *x, struct qn_jstr *s, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    size_t from, to;
    qn_jcall_bind(x, "find", "!sub,start=,end=", a, in);
    struct qn_jstr *sub = qn_jcall_str(x, in[0], "find");
    int last = id == M_rfind || id == M_rindex;
    const char *hit = NULL;
    if (window(x, s, in[1], in[2], &from, &to)) {
        qn_jx_bytes(x, to - from);
        if (last) {
            struct qn_jstr part = {.p = s->p + from, .n = (uint32_t)(to - from)};
            for (size_t i = part.n; sub->n <= part.n; i--) { /* from the right; each place costs a step */
                if (i + sub->n <= part.n && !memcmp(part.p + i, sub->p, sub->n) &&
                    (i == part.n || ((unsigned char)part.p[i] & 0xC0) != 0x80)) {
                    hit = part.p + i;
                    break;
                }
                if (!i) break;
                if (!(i & 15)) qn_jx_step(x);
            }
        } else {
            hit = sub->n ? memmem(s->p + from, to - from, sub->p, sub->n) : s->p + from;
        }
    }
    if (!hit && (id == M_index || id == M_rindex)) qn_jx_fail(x, QN_E_DATA, "substring not found");
    return qn_jv_int(hit ? chars_before(s, (size_t)(hit - s->p)) : -1);
}

static struct qn_jv count(struct qn_jx *x, struct qn_jstr *s, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    size_t from, to;
    qn_jcall_bind(x, "count", "!sub,start=,end=", a, in);
    struct qn_jstr *sub = qn_jcall_str(x, in[0], "count");
    if (!window(x, s, in[1], in[2], &from, &to)) return qn_jv_int(0);
    qn_jx_bytes(x, to - from);
    if (!sub->n) return qn_jv_int(chars_before(s, to) - chars_before(s, from) + 1);
    int64_t hits = 0;
    for (const char *hit; (hit = memmem(s->p + from, to - from, sub->p, sub->n)); hits++, qn_jx_step(x))
        from = (size_t)(hit - s->p) + sub->n;
    return qn_jv_int(hits);
}

static int affix(const struct qn_jstr *s, size_t from, size_t to, const struct qn_jstr *t, int end) {
    return t->n <= to - from && !memcmp(s->p + (end ? to - t->n : from), t->p, t->n);
}

static struct qn_jv starts(struct qn_jx *x, struct qn_jstr *s, int end, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    size_t from, to;
    const char *what = end ? "endswith" : "startswith";
    qn_jcall_bind(x, what, "!affix,start=,end=", a, in);
    int ok = window(x, s, in[1], in[2], &from, &to), hit = 0;
    if (in[0].t != J_TUPLE) {
        struct qn_jstr *t = qn_jcall_str(x, in[0], what);
        qn_jx_bytes(x, t->n);
        return qn_jv_bool(ok && affix(s, from, to, t, end));
    }
    for (uint32_t i = 0; i < in[0].l->n && !hit; i++) {
        struct qn_jstr *t = qn_jcall_str(x, in[0].l->v[i], what);
        qn_jx_fuel(x, 1 + t->n / 128);
        hit = ok && affix(s, from, to, t, end);
    }
    return qn_jv_bool(hit);
}

static struct qn_jv partition(struct qn_jx *x, struct qn_jstr *s, int right, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX], r = qn_jv_list(x, J_TUPLE, 3);
    qn_jcall_bind(x, "partition", "!sep", a, in);
    struct qn_jstr *sep = qn_jcall_str(x, in[0], "partition");
    struct qn_jlist *l = qn_jstr_split(x, s, sep, 1, right).l;
    for (int i = 0; i < 3; i++) r.l->v[i] = qn_jstr_sub(x, s, 0, 0);
    if (l->n == 2) {
        r.l->v[0] = l->v[0];
        r.l->v[1] = qn_jstr_sub(x, sep, 0, sep->n);
        r.l->v[1].s->markup = s->markup;
        r.l->v[2] = l->v[1];
    } else {
        r.l->v[right ? 2 : 0] = of(s);
    }
    return r;
}

static struct qn_jv pad(struct qn_jx *x, struct qn_jstr *s, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    qn_jcall_bind(x, "pad", id == M_zfill ? "!width" : "!width,fillchar=", a, in);
    int64_t need = qn_jcall_int(x, in[0], 0) - (int64_t)qn_jstr_chars(s);
    struct qn_jstr blank = {.p = id == M_zfill ? "0" : " ", .n = 1, .chars = 1, .trust = TRUST_ALL}, *fill = &blank;
    if (id != M_zfill && in[1].t != J_MISSING) fill = qn_jcall_str(x, in[1], "fill character");
    if (qn_jstr_chars(fill) != 1) qn_jx_fail(x, QN_E_DATA, "The fill character must be exactly one character long");
    if (need <= 0) return of(s);
    if (id == M_center) { /* CPython puts the odd one left when both are odd */
        int64_t left = need / 2 + (need & (int64_t)(qn_jcall_int(x, in[0], 0)) & 1);
        return qn_jstr_pad(x, s, left, need - left, fill);
    }
    if (id == M_ljust) return qn_jstr_pad(x, s, 0, need, fill);
    if (id == M_zfill && s->n && (s->p[0] == '+' || s->p[0] == '-')) {
        struct qn_jv rest = qn_jstr_pad(x, qn_jstr_sub(x, s, 1, s->n).s, need, 0, fill);
        return qn_jstr_concat(x, qn_jstr_sub(x, s, 0, 1).s, rest.s);
    }
    return qn_jstr_pad(x, s, need, 0, fill);
}

static int has(uint32_t r, int id, size_t i) {
    switch (id) {
    case M_isalpha: return qn_ju_is(r, QN_JU_ALPHA);
    case M_isdecimal: return qn_ju_is(r, QN_JU_DECIMAL);
    case M_isdigit: return qn_ju_is(r, QN_JU_DIGIT);
    case M_isnumeric: return qn_ju_is(r, QN_JU_NUMERIC);
    case M_isalnum: return qn_ju_is(r, QN_JU_ALPHA) || qn_ju_is(r, QN_JU_NUMERIC);
    case M_isspace: return qn_ju_is(r, QN_JU_SPACE);
    case M_isascii: return r < 0x80;
    case M_isprintable: return !qn_ju_is(r, QN_JU_UNPRINTABLE);
    default: return r == '_' || qn_ju_is(r, QN_JU_ALPHA) || (i && qn_ju_is(r, QN_JU_DECIMAL));
    }
}

static struct qn_jv all_have(struct qn_jx *x, struct qn_jstr *s, int id) {
    uint32_t r = 0;
    qn_jx_fuel(x, s->n >> 4);
    if (!s->n) return qn_jv_bool(id == M_isascii || id == M_isprintable);
    for (size_t i = 0; i < s->n;) {
        int k = qn_utf8_decode(s->p + i, s->n - i, &r);
        if (!has(r, id, i)) return qn_jv_bool(0);
        i += k > 0 ? (size_t)k : 1;
    }
    return qn_jv_bool(1);
}

static struct qn_jv is_title(struct qn_jx *x, struct qn_jstr *s) {
    int cased = 0, any = 0;
    uint32_t r = 0;
    qn_jx_fuel(x, s->n >> 4);
    for (size_t i = 0; i < s->n;) {
        int k = qn_utf8_decode(s->p + i, s->n - i, &r);
        i += k > 0 ? (size_t)k : 1;
        int head = qn_ju_is(r, QN_JU_UPPER) || qn_ju_is(r, QN_JU_TITLE), low = qn_ju_is(r, QN_JU_LOWER);
        if ((head && cased) || (low && !cased)) return qn_jv_bool(0);
        cased = head || low;
        any |= cased;
    }
    return qn_jv_bool(any);
}

static struct qn_jv expand_tabs(struct qn_jx *x, struct qn_jstr *s, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    qn_jcall_bind(x, "expandtabs", "tabsize=", a, in);
    int64_t width = qn_jcall_int(x, in[0], 8), col = 0;
    if (width > 1024) qn_jx_fail(x, QN_E_LIMIT, "a tab of more than 1024 columns");
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    for (size_t i = 0, run; i < s->n; i++) {
        qn_jx_step(x);
        if (s->p[i] == '\t') {
            int t = qn_jstr_trusted(s, i, &run);
            for (int64_t k = width > 0 ? width - col % width : 0; k > 0; k--, col++) qn_jsb_put(&b, " ", 1, t);
            continue;
        }
        qn_jsb_sub(&b, s, i, i + 1);
        if (s->p[i] == '\n' || s->p[i] == '\r') col = 0;
        else col += ((unsigned char)s->p[i] & 0xC0) != 0x80;
    }
    return qn_jsb_done(&b);
}

static struct qn_jv replace(struct qn_jx *x, struct qn_jstr *s, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    qn_jcall_bind(x, "replace", "!old,new,count=", a, in);
    if (s->markup && in[1].t == J_STR) in[1] = qn_jv_escape(x, in[1]);
    return qn_jstr_replace(x, s, qn_jcall_str(x, in[0], "replace"), qn_jcall_str(x, in[1], "replace"),
                           qn_jcall_int(x, in[2], -1));
}

static struct qn_jv without(struct qn_jx *x, struct qn_jstr *s, int end, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    qn_jcall_bind(x, end ? "removesuffix" : "removeprefix", "!affix", a, in);
    struct qn_jstr *t = qn_jcall_str(x, in[0], "affix");
    qn_jx_bytes(x, t->n);
    if (!affix(s, 0, s->n, t, end)) return of(s);
    return end ? qn_jstr_sub(x, s, 0, s->n - t->n) : qn_jstr_sub(x, s, t->n, s->n);
}

static struct qn_jv case_method(struct qn_jx *x, struct qn_jstr *s, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    qn_jcall_bind(x, "case", "!", a, in);
    switch (id) {
    case M_upper: return qn_jstr_case(x, s, CASE_UPPER);
    case M_title: return qn_jstr_case(x, s, CASE_TITLE);
    case M_capitalize: return qn_jstr_case(x, s, CASE_CAPITAL);
    case M_swapcase: return qn_jstr_case(x, s, CASE_SWAP);
    case M_casefold:
        if (qn_jstr_chars(s) != s->n) qn_jx_fail(x, QN_E_UNSUPPORTED, "casefold() of other than ASCII");
        return qn_jstr_case(x, s, CASE_LOWER);
    case M_islower: case M_isupper: return qn_jv_bool(qn_jstr_has_case(x, s, id == M_isupper));
    case M_istitle: return is_title(x, s);
    case M_lower: return qn_jstr_case(x, s, CASE_LOWER);
    default: return all_have(x, s, id);
    }
}

struct qn_jv qn_jcall_str_method(struct qn_jx *x, struct qn_jstr *s, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    switch (id) {
    case M_strip: case M_lstrip: case M_rstrip:
        qn_jcall_bind(x, "strip", "!chars=", a, in);
        return qn_jstr_strip(x, s, optional_str(x, in[0], "strip"),
                             id == M_strip    ? STRIP_LEFT | STRIP_RIGHT
                             : id == M_lstrip ? STRIP_LEFT
                                              : STRIP_RIGHT);
    case M_split: case M_rsplit:
        qn_jcall_bind(x, "split", "sep=,maxsplit=", a, in);
        return qn_jstr_split(x, s, optional_str(x, in[0], "split"), qn_jcall_int(x, in[1], -1), id == M_rsplit);
    case M_splitlines:
        qn_jcall_bind(x, "splitlines", "keepends=", a, in);
        return qn_jstr_lines(x, s, qn_jv_true(x, in[0]));
    case M_join: qn_jcall_bind(x, "join", "!iterable", a, in); return qn_jstr_join(x, s, in[0], 0);
    case M_replace: return replace(x, s, a);
    case M_startswith: return starts(x, s, 0, a);
    case M_endswith: return starts(x, s, 1, a);
    case M_find: case M_rfind: case M_index: case M_rindex: return find(x, s, id, a);
    case M_count: return count(x, s, a);
    case M_partition: return partition(x, s, 0, a);
    case M_rpartition: return partition(x, s, 1, a);
    case M_removeprefix: return without(x, s, 0, a);
    case M_removesuffix: return without(x, s, 1, a);
    case M_center: case M_ljust: case M_rjust: case M_zfill: return pad(x, s, id, a);
    case M_expandtabs: return expand_tabs(x, s, a);
    case M_format: return qn_jv_format(x, s, a);
    case M_format_map: {
        qn_jcall_bind(x, "format_map", "!mapping", a, in);
        if (in[0].t != J_DICT) qn_jx_fail(x, QN_E_DATA, "format_map() needs a mapping");
        struct qn_jdict *d = qn_jdict_of(x, in[0]);
        return qn_jv_format(x, s, &(struct qn_jargv){.kw = d->e, .n_kw = d->n});
    }
    case M_encode: case M_maketrans: case M_translate: qn_jx_fail(x, QN_E_UNSUPPORTED, "this method of str is not supported");
    default: return case_method(x, s, id, a);
    }
}
