/* Arguments, attributes and the small callables: methods of dicts and lists, global functions, cycler, joiner, namespace.
 *
 * What would change a dict or a list is refused as the immutable sandbox refuses it: the attribute exists, using it fails.
 * Python methods that templates have no use for (encode, maketrans…) are known by name and refused when called. */
#include "api/jinja_calls.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/jinja_ast.h"
#include "api/jinja_methods.h"
#include "api/jinja_ops.h"
#include "api/jinja_show.h"

void qn_jcall_bind(struct qn_jx *x, const char *what, const char *spec, const struct qn_jargv *a,
                   struct qn_jv out[QN_JARGS_MAX]) {
    uint32_t n = 0, used = 0;
    int by_name = *spec != '!';
    if (!by_name) spec++;
    for (const char *s = spec; *s && n < QN_JARGS_MAX; n++) {
        size_t len = strcspn(s, ",="), optional = s[len] == '=';
        out[n] = qn_jv_missing();
        if (n < a->n) out[n] = a->pos[n];
        for (uint32_t k = 0; by_name && k < a->n_kw; k++) {
            if (a->kw[k].k.s->n != len || memcmp(a->kw[k].k.s->p, s, len)) continue;
            if (n < a->n) qn_jx_fail(x, QN_E_DATA, "%s() got multiple values for argument '%.*s'", what, (int)len, s);
            out[n] = a->kw[k].v;
            used++;
        }
        if (out[n].t == J_MISSING && !optional)
            qn_jx_fail(x, QN_E_DATA, "%s() missing a required argument: '%.*s'", what, (int)len, s);
        s += len + optional;
        if (*s == ',') s++;
    }
    if (a->n > n) qn_jx_fail(x, QN_E_DATA, "%s() takes at most %u argument(s) (%u given)", what, n, a->n);
    if (used < a->n_kw) qn_jx_fail(x, QN_E_DATA, "%s() got an unexpected keyword argument", what);
}

int64_t qn_jcall_int(struct qn_jx *x, struct qn_jv v, int64_t absent) {
    if (v.t == J_MISSING) return absent;
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    if (!qn_jv_is_int(v)) qn_jx_fail(x, QN_E_DATA, "'%s' object cannot be interpreted as an integer", qn_jv_type(v));
    return qn_jv_as_int(v);
}

struct qn_jstr *qn_jcall_str(struct qn_jx *x, struct qn_jv v, const char *what) {
    if (v.t != J_STR) qn_jx_fail(x, QN_E_DATA, "%s: must be str, not %s", what, qn_jv_type(v));
    return v.s;
}

/* ---- attributes ---- */

enum { T_S = 1, T_L = 2, T_T = 4, T_D = 8, T_R = 16, T_CYC = 32, T_LOOP = 64, T_DICTFN = 128 };
/* clang-format off */
static const struct {
    const char *name;
    uint16_t has, unsafe;
} methods[M_COUNT] = {
#define S(n) [M_##n] = {#n, T_S, 0}
    S(capitalize), S(casefold), S(center), S(encode), S(endswith), S(expandtabs), S(find), S(format), S(format_map), S(isalnum),
    S(isalpha), S(isascii), S(isdecimal), S(isdigit), S(isidentifier), S(islower), S(isnumeric), S(isprintable), S(isspace),
    S(istitle), S(isupper), S(join), S(ljust), S(lower), S(lstrip), S(maketrans), S(partition), S(removeprefix),
    S(removesuffix),
    S(replace), S(rfind), S(rindex), S(rjust), S(rpartition), S(rsplit), S(rstrip), S(split), S(splitlines), S(startswith),
    S(strip),
    S(swapcase), S(title), S(translate), S(upper), S(zfill),
#undef S
    [M_count] = {"count", T_S | T_L | T_T | T_R, 0}, [M_index] = {"index", T_S | T_L | T_T | T_R, 0},
    [M_copy] = {"copy", T_L | T_D, 0}, [M_get] = {"get", T_D, 0}, [M_items] = {"items", T_D, 0}, [M_keys] = {"keys", T_D, 0},
    [M_values] = {"values", T_D, 0}, [M_fromkeys] = {"fromkeys", T_D | T_DICTFN, 0},
    [M_clear] = {"clear", 0, T_L | T_D}, [M_pop] = {"pop", 0, T_L | T_D}, [M_popitem] = {"popitem", 0, T_D},
    [M_setdefault] = {"setdefault", 0, T_D}, [M_update] = {"update", 0, T_D}, [M_append] = {"append", 0, T_L},
    [M_extend] = {"extend", 0, T_L}, [M_insert] = {"insert", 0, T_L}, [M_remove] = {"remove", 0, T_L},
    [M_reverse] = {"reverse", 0, T_L}, [M_sort] = {"sort", 0, T_L},
    [M_next] = {"next", T_CYC, 0}, [M_reset] = {"reset", T_CYC, 0}, [M_cycle] = {"cycle", T_LOOP, 0},
    [M_changed] = {"changed", T_LOOP, 0},
};
/* clang-format on */

int qn_jcall_method(const char *name) {
    for (int i = 0; i < M_COUNT; i++)
        if (!strcmp(methods[i].name, name)) return i;
    return -1;
}

static unsigned type_bit(struct qn_jv o) {
    switch (o.t) {
    case J_STR: return T_S;
    case J_LIST: return T_L;
    case J_TUPLE: return T_T;
    case J_DICT: return T_D;
    case J_RANGE: return T_R;
    case J_CYCLER: return T_CYC;
    case J_LOOP: return T_LOOP;
    case J_FUNC: return o.i == F_dict ? T_DICTFN : 0;
    default: return 0;
    }
}

/* Attributes that are values: loop.index, cycler.current, a group's parts, range's numbers. */
static int value_attr(struct qn_jx *x, struct qn_jv o, struct qn_jstr *name, struct qn_jv *out) {
    if (o.t == J_LOOP) return qn_jeval_loop_attr(x, o.loop, name, out);
    if (o.t == J_CYCLER && qn_jstr_is(name, "current")) return *out = o.cyc->items.l->v[o.cyc->pos], 1;
    if (o.t == J_TUPLE && o.sub && qn_jstr_is(name, "grouper")) return *out = o.l->v[0], 1;
    if (o.t == J_TUPLE && o.sub && qn_jstr_is(name, "list")) return *out = o.l->v[1], 1;
    if (o.t == J_MACRO && qn_jstr_is(name, "name")) return *out = qn_jv_cstr(x, qn_jcall_macro_name(o)), 1;
    if (o.t == J_RANGE && qn_jstr_is(name, "start")) return *out = qn_jv_int(o.r->from), 1;
    if (o.t == J_RANGE && qn_jstr_is(name, "step")) return *out = qn_jv_int(o.r->step), 1;
    return 0;
}

int qn_jcall_attr(struct qn_jx *x, struct qn_jv o, struct qn_jstr *name, int id, struct qn_jv *out) {
    unsigned bit = type_bit(o);
    if (id >= 0 && (methods[id].unsafe & bit)) return QN_JATTR_UNSAFE;
    if (id >= 0 && (methods[id].has & bit)) {
        struct qn_jmethod *m = qn_jx_alloc(x, sizeof *m);
        *m = (struct qn_jmethod){o, id};
        *out = (struct qn_jv){.t = J_METHOD, .meth = m};
        return QN_JATTR_FOUND;
    }
    return value_attr(x, o, name, out) ? QN_JATTR_FOUND : QN_JATTR_NONE;
}

/* ---- methods of containers ---- */

static struct qn_jv view(struct qn_jv d, int which) {
    d.t = J_VIEW;
    d.sub = (uint8_t)which;
    return d;
}

static struct qn_jv seq_method(struct qn_jx *x, struct qn_jv self, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    if (id == M_copy) {
        qn_jcall_bind(x, "copy", "!", a, in);
        return self;
    }
    qn_jcall_bind(x, "index", "!value,start=,stop=", a, in);
    int64_t n = qn_jv_len(x, self), hits = 0, from = qn_jcall_int(x, in[1], 0), to = qn_jcall_int(x, in[2], n);
    if (from < 0) from = from + n < 0 ? 0 : from + n;
    if (to < 0) to += n;
    struct qn_jiter it = qn_jv_iter(x, self);
    int64_t i = 0;
    for (struct qn_jv v; qn_jv_next(x, &it, &v); i++) {
        if (!qn_jv_eq(x, v, in[0])) continue;
        hits++;
        if (id == M_index && i >= from && i < to) return qn_jv_int(i);
    }
    if (id == M_index) qn_jx_fail(x, QN_E_DATA, "the value is not in the %s", qn_jv_type(self));
    return qn_jv_int(hits);
}

/* dict(a=1), dict(mapping), dict(pairs) into a new dict. */
static struct qn_jv make_dict(struct qn_jx *x, const struct qn_jargv *a, const char *what) {
    struct qn_jv d = qn_jv_dict(x, a->n_kw);
    if (a->n > 1) qn_jx_fail(x, QN_E_DATA, "%s expected at most 1 argument, got %u", what, a->n);
    if (a->n && a->pos[0].t == J_DICT) {
        struct qn_jdict *from = qn_jdict_of(x, a->pos[0]);
        for (uint32_t i = 0; i < from->n; i++) qn_jdict_put(x, d.d, from->e[i].k, from->e[i].v);
    } else if (a->n) {
        struct qn_jiter it = qn_jv_iter(x, a->pos[0]);
        for (struct qn_jv v; qn_jv_next(x, &it, &v);) {
            struct qn_jlist *pair = qn_jv_to_list(x, v, J_LIST).l;
            if (pair->n != 2) qn_jx_fail(x, QN_E_DATA, "%s: an element has length %u; 2 is required", what, pair->n);
            qn_jdict_put(x, d.d, pair->v[0], pair->v[1]);
        }
    }
    for (uint32_t i = 0; i < a->n_kw; i++) qn_jdict_put(x, d.d, a->kw[i].k, a->kw[i].v);
    return d;
}

static struct qn_jv from_keys(struct qn_jx *x, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX], d = qn_jv_dict(x, 0);
    qn_jcall_bind(x, "fromkeys", "!keys,value=", a, in);
    struct qn_jiter it = qn_jv_iter(x, in[0]);
    for (struct qn_jv k; qn_jv_next(x, &it, &k);) qn_jdict_put(x, d.d, k, in[1].t == J_MISSING ? qn_jv_none() : in[1]);
    return d;
}

static struct qn_jv dict_method(struct qn_jx *x, struct qn_jv self, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX], *v;
    switch (id) {
    case M_get:
        qn_jcall_bind(x, "get", "!key,default=", a, in);
        v = qn_jdict_get(x, qn_jdict_of(x, self), in[0]);
        return v ? *v : in[1].t == J_MISSING ? qn_jv_none() : in[1];
    case M_fromkeys: return from_keys(x, a);
    default: qn_jcall_bind(x, methods[id].name, "!", a, in);
    }
    if (id == M_copy) return self;
    return view(self, id == M_keys ? VIEW_KEYS : id == M_values ? VIEW_VALUES : VIEW_ITEMS);
}

static struct qn_jv cycler_method(struct qn_jx *x, struct qn_jcycle *c, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    qn_jcall_bind(x, methods[id].name, "!", a, in);
    struct qn_jv now = c->items.l->v[c->pos];
    c->pos = id == M_reset ? 0 : (c->pos + 1) % c->items.l->n;
    return id == M_reset ? qn_jv_none() : now;
}

struct qn_jv qn_jcall_run_method(struct qn_jx *x, struct qn_jv self, int id, const struct qn_jargv *a) {
    switch (self.t) {
    case J_STR: return qn_jcall_str_method(x, self.s, id, a);
    case J_DICT: return dict_method(x, self, id, a);
    case J_CYCLER: return cycler_method(x, self.cyc, id, a);
    case J_LOOP: return qn_jeval_loop_method(x, self.loop, id == M_changed, a);
    case J_FUNC: return from_keys(x, a);
    default: return seq_method(x, self, id, a);
    }
}

/* ---- global functions ---- */

static const char *const funcs[F_COUNT] = {"range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"};

int qn_jcall_func(const char *name, size_t n) {
    for (int i = 0; i < F_COUNT; i++)
        if (strlen(funcs[i]) == n && !memcmp(funcs[i], name, n)) return i;
    return -1;
}

static struct qn_jv make_range(struct qn_jx *x, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    qn_jcall_bind(x, "range", "!start,stop=,step=", a, in);
    int64_t from = qn_jcall_int(x, in[0], 0), to = qn_jcall_int(x, in[1], 0), step = qn_jcall_int(x, in[2], 1);
    if (in[1].t == J_MISSING) {
        to = from;
        from = 0;
    }
    if (step == 0) qn_jx_fail(x, QN_E_DATA, "range() arg 3 must not be zero");
    __int128 span = step > 0 ? (__int128)to - from : (__int128)from - to, by = step > 0 ? step : -(__int128)step;
    __int128 n = span > 0 ? (span + by - 1) / by : 0;
    if (n > QN_J_RANGE_MAX) qn_jx_fail(x, QN_E_LIMIT, "a range of more than %d numbers", QN_J_RANGE_MAX);
    struct qn_jrange *r = qn_jx_alloc(x, sizeof *r);
    *r = (struct qn_jrange){from, step, (uint32_t)n};
    return (struct qn_jv){.t = J_RANGE, .r = r};
}

static struct qn_jv make_namespace(struct qn_jx *x, const struct qn_jargv *a) {
    struct qn_jv d = make_dict(x, a, "namespace");
    for (uint32_t i = 0; i < d.d->n; i++)
        if (d.d->e[i].k.t == J_STR && d.d->e[i].k.s->n && d.d->e[i].k.s->p[0] == '_')
            qn_jx_fail(x, QN_E_DATA, "underscore-prefixed attributes cannot be stored on a namespace");
    d.t = J_NS;
    return d;
}

static struct qn_jv make_cycle(struct qn_jx *x, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    struct qn_jcycle *c = qn_jx_alloc(x, sizeof *c);
    c->pos = 0;
    if (id == F_joiner) {
        qn_jcall_bind(x, "joiner", "sep=", a, in);
        c->items = in[0].t == J_MISSING ? qn_jv_cstr(x, ", ") : in[0];
        return (struct qn_jv){.t = J_JOINER, .cyc = c};
    }
    if (!a->n || a->n_kw) qn_jx_fail(x, QN_E_DATA, "at least one item has to be provided");
    c->items = qn_jv_list(x, J_TUPLE, a->n);
    memcpy(c->items.l->v, a->pos, a->n * sizeof *a->pos);
    return (struct qn_jv){.t = J_CYCLER, .cyc = c};
}

static struct qn_jv strftime_now(struct qn_jx *x, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    char text[512];
    qn_jcall_bind(x, "strftime_now", "format", a, in);
    struct qn_jstr *fmt = qn_jcall_str(x, in[0], "strftime_now");
    if (fmt->n > 100) qn_jx_fail(x, QN_E_LIMIT, "strftime_now: a format of more than 100 bytes");
    time_t t = (time_t)x->now_s;
    struct tm tm;
    if (!gmtime_r(&t, &tm)) qn_jx_fail(x, QN_E_DATA, "strftime_now: no such time");
    const char *f = qn_jstr_c(x, fmt);
    size_t n = strftime(text, sizeof text, f, &tm);
    return qn_jv_str(x, memcpy(qn_jx_alloc(x, n), text, n), n, fmt->trust == TRUST_ALL);
}

struct qn_jv qn_jcall_run_func(struct qn_jx *x, int id, const struct qn_jargv *a) {
    struct qn_jv in[QN_JARGS_MAX];
    switch (id) {
    case F_range: return make_range(x, a);
    case F_dict: return make_dict(x, a, "dict");
    case F_namespace: return make_namespace(x, a);
    case F_cycler: case F_joiner: return make_cycle(x, id, a);
    case F_strftime_now: return strftime_now(x, a);
    default:
        qn_jcall_bind(x, "raise_exception", "message", a, in);
        qn_jx_fail(x, QN_E_RAISED, "%s", qn_jstr_c(x, qn_jv_to_str(x, in[0])));
    }
}
