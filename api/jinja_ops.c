/* Truth, equality, order, containment, arithmetic, lookup and iteration with Python's meaning and, where templates can see
 * it, Python's errors. Integers are 64 bits: what would need more is refused. Recursion over nested values is counted. */
#include "api/jinja_ops.h"

#include <math.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_calls.h"
#include "api/jinja_show.h"

void qn_jx_undefined(struct qn_jx *x, struct qn_jv v) {
    switch (v.sub) {
    case UNDEF_NAME: qn_jx_fail(x, QN_E_DATA, "'%.100s' is undefined", v.name);
    case UNDEF_ATTR:
        qn_jx_fail(x, QN_E_DATA, "'%s object' has no attribute '%.100s'", qn_jv_type((struct qn_jv){.t = v.of}), v.name);
    case UNDEF_UNSAFE:
        qn_jx_fail(x, QN_E_DATA, "access to attribute '%.100s' of '%s' object is unsafe.", v.name,
                   qn_jv_type((struct qn_jv){.t = v.of}));
    default: qn_jx_fail(x, QN_E_DATA, "%s", v.name);
    }
}

static int is_seq(struct qn_jv v) { return v.t == J_LIST || v.t == J_TUPLE; }

int qn_jv_true(struct qn_jx *x, struct qn_jv v) {
    switch (v.t) {
    case J_UNDEF: case J_NONE: case J_MISSING: return 0;
    case J_BOOL: return v.b;
    case J_INT: return v.i != 0;
    case J_FLOAT: return v.f != 0;
    case J_STR: return v.s->n != 0;
    case J_LIST: case J_TUPLE: return qn_jlist_of(x, v)->n != 0;
    case J_DICT: case J_VIEW: return qn_jdict_of(x, v)->n != 0;
    case J_RANGE: return v.r->n != 0;
    default: return 1;
    }
}

static int seq_eq(struct qn_jx *x, struct qn_jlist *a, struct qn_jlist *b) {
    if (a->n != b->n) return 0;
    for (uint32_t i = 0; i < a->n; i++)
        if (!qn_jv_eq(x, a->v[i], b->v[i])) return 0;
    return 1;
}

static int dict_eq(struct qn_jx *x, struct qn_jdict *a, struct qn_jdict *b) {
    if (a->n != b->n) return 0;
    for (uint32_t i = 0; i < a->n; i++) {
        struct qn_jv *v = qn_jdict_get(x, b, a->e[i].k);
        if (!v || !qn_jv_eq(x, a->e[i].v, *v)) return 0;
    }
    return 1;
}

int qn_jv_eq(struct qn_jx *x, struct qn_jv a, struct qn_jv b) {
    qn_jx_step(x);
    if (qn_jv_is_num(a) && qn_jv_is_num(b)) {
        if (a.t == J_FLOAT || b.t == J_FLOAT) return qn_jv_as_num(a) == qn_jv_as_num(b);
        return qn_jv_as_int(a) == qn_jv_as_int(b);
    }
    if (a.t != b.t) return 0;
    switch (a.t) {
    case J_UNDEF: case J_NONE: return 1;
    case J_STR: return qn_jstr_eq(x, a.s, b.s);
    case J_RANGE: return a.r->n == b.r->n && (!a.r->n || (a.r->from == b.r->from && (a.r->n == 1 || a.r->step == b.r->step)));
    case J_LIST: case J_TUPLE: case J_DICT: {
        qn_jx_enter(x);
        int eq =
            a.t == J_DICT ? dict_eq(x, qn_jdict_of(x, a), qn_jdict_of(x, b)) : seq_eq(x, qn_jlist_of(x, a), qn_jlist_of(x, b));
        qn_jx_leave(x);
        return eq;
    }
    case J_FUNC: return a.i == b.i;
    default: return a.s == b.s; /* identity */
    }
}

int qn_jv_cmp(struct qn_jx *x, struct qn_jv a, struct qn_jv b, const char *op) {
    qn_jx_step(x);
    if (a.t == J_UNDEF) qn_jx_undefined(x, a);
    if (b.t == J_UNDEF) qn_jx_undefined(x, b);
    if (qn_jv_is_int(a) && qn_jv_is_int(b)) {
        int64_t p = qn_jv_as_int(a), q = qn_jv_as_int(b);
        return (p > q) - (p < q);
    }
    if (qn_jv_is_num(a) && qn_jv_is_num(b)) {
        double p = qn_jv_as_num(a), q = qn_jv_as_num(b);
        return p < q ? -1 : p > q ? 1 : p == q ? 0 : 2; /* 2: not a number is in no order */
    }
    if (a.t == J_STR && b.t == J_STR) { /* the order of UTF-8 bytes is that of code points */
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        qn_jx_bytes(x, n);
        int c = memcmp(a.s->p, b.s->p, n);
        return c < 0 ? -1 : c > 0 ? 1 : (a.s->n > b.s->n) - (a.s->n < b.s->n);
    }
    if (is_seq(a) && a.t == b.t) {
        struct qn_jlist *p = qn_jlist_of(x, a), *q = qn_jlist_of(x, b);
        qn_jx_enter(x);
        for (uint32_t i = 0; i < p->n && i < q->n; i++) {
            if (qn_jv_eq(x, p->v[i], q->v[i])) continue;
            int c = qn_jv_cmp(x, p->v[i], q->v[i], op);
            qn_jx_leave(x);
            return c;
        }
        qn_jx_leave(x);
        return (p->n > q->n) - (p->n < q->n);
    }
    qn_jx_fail(x, QN_E_DATA, "'%s' not supported between instances of '%s' and '%s'", op, qn_jv_type(a), qn_jv_type(b));
}

int qn_jv_in(struct qn_jx *x, struct qn_jv needle, struct qn_jv in) {
    switch (in.t) {
    case J_STR:
        if (needle.t != J_STR)
            qn_jx_fail(x, QN_E_DATA, "'in <string>' requires string as left operand, not %s", qn_jv_type(needle));
        qn_jx_bytes(x, in.s->n);
        return !needle.s->n || memmem(in.s->p, in.s->n, needle.s->p, needle.s->n) != NULL;
    case J_DICT: return qn_jdict_get(x, qn_jdict_of(x, in), needle) != NULL;
    case J_VIEW:
        if (in.sub == VIEW_KEYS) return qn_jdict_get(x, qn_jdict_of(x, in), needle) != NULL;
        break;
    default:;
    }
    struct qn_jiter it = qn_jv_iter(x, in);
    for (struct qn_jv v; qn_jv_next(x, &it, &v);)
        if (qn_jv_eq(x, v, needle)) return 1;
    return 0;
}

int qn_jv_has_len(struct qn_jv v) {
    return v.t == J_UNDEF || v.t == J_STR || is_seq(v) || v.t == J_DICT || v.t == J_VIEW || v.t == J_RANGE || v.t == J_LOOP;
}

int64_t qn_jv_len(struct qn_jx *x, struct qn_jv v) {
    switch (v.t) {
    case J_UNDEF: return 0;
    case J_STR: qn_jx_bytes(x, v.s->n); return qn_jstr_chars(v.s);
    case J_LIST: case J_TUPLE: return qn_jlist_of(x, v)->n;
    case J_DICT: case J_VIEW: return qn_jdict_of(x, v)->n;
    case J_RANGE: return v.r->n;
    case J_LOOP: return qn_jcall_loop_length(x, v);
    default: qn_jx_fail(x, QN_E_DATA, "object of type '%s' has no len()", qn_jv_type(v));
    }
}

/* ---- arithmetic ---- */

_Noreturn static void no_operator(struct qn_jx *x, const char *op, struct qn_jv a, struct qn_jv b) {
    qn_jx_fail(x, QN_E_DATA, "unsupported operand type(s) for %s: '%s' and '%s'", op, qn_jv_type(a), qn_jv_type(b));
}

_Noreturn static void too_big(struct qn_jx *x) { qn_jx_fail(x, QN_E_DATA, "an integer does not fit 64 bits"); }

static struct qn_jv floats(struct qn_jx *x, int op, double a, double b) {
    if ((op == TOK_DIV || op == TOK_FLOORDIV || op == TOK_MOD) && b == 0) qn_jx_fail(x, QN_E_DATA, "division by zero");
    double m;
    switch (op) {
    case TOK_ADD: return qn_jv_float(a + b);
    case TOK_SUB: return qn_jv_float(a - b);
    case TOK_MUL: return qn_jv_float(a * b);
    case TOK_DIV: return qn_jv_float(a / b);
    case TOK_POW:
        if (a == 0 && b < 0) qn_jx_fail(x, QN_E_DATA, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b) && isfinite(a) && isfinite(b)) qn_jx_fail(x, QN_E_DATA, "complex numbers are not supported");
        m = pow(a, b);
        if (isinf(m) && isfinite(a) && isfinite(b)) qn_jx_fail(x, QN_E_DATA, "Numerical result out of range");
        return qn_jv_float(m);
    default: /* the remainder takes the divisor's sign */
        m = fmod(a, b);
        if (m != 0 && (m < 0) != (b < 0)) m += b;
        if (op == TOK_MOD) return qn_jv_float(m == 0 ? copysign(0, b) : m);
        double q = (a - m) / b, f = floor(q);
        return qn_jv_float(q == 0 ? copysign(0, a / b) : q - f > 0.5 ? f + 1 : f);
    }
}

struct qn_jv qn_jv_pow_int(struct qn_jx *x, int64_t a, int64_t e) {
    int64_t r = 1;
    for (;;) {
        if ((e & 1) && __builtin_mul_overflow(r, a, &r)) too_big(x);
        if (!(e >>= 1)) return qn_jv_int(r);
        if (__builtin_mul_overflow(a, a, &a)) too_big(x);
    }
}

static struct qn_jv ints(struct qn_jx *x, int op, int64_t a, int64_t b) {
    int64_t r = 0;
    int over = 0;
    switch (op) {
    case TOK_ADD: over = __builtin_add_overflow(a, b, &r); break;
    case TOK_SUB: over = __builtin_sub_overflow(a, b, &r); break;
    case TOK_MUL: over = __builtin_mul_overflow(a, b, &r); break;
    case TOK_DIV: return floats(x, op, (double)a, (double)b);
    case TOK_POW: return b < 0 ? floats(x, op, (double)a, (double)b) : qn_jv_pow_int(x, a, b);
    default:
        if (b == 0) qn_jx_fail(x, QN_E_DATA, "integer division or modulo by zero");
        if (b == -1) {
            over = op == TOK_FLOORDIV && __builtin_sub_overflow(0, a, &r);
            break;
        }
        r = a % b;
        if (r && (r < 0) != (b < 0)) r += b;
        if (op == TOK_FLOORDIV) r = (a - r) / b;
    }
    if (over) too_big(x);
    return qn_jv_int(r);
}

static struct qn_jv repeat(struct qn_jx *x, struct qn_jv v, int64_t times) {
    if (times < 0) times = 0;
    if (v.t == J_STR) {
        if (!v.s->n) return v;
        if (times > (int64_t)(UINT32_MAX / v.s->n)) qn_jx_fail(x, QN_E_LIMIT, "a string is too long");
        struct qn_jsb b;
        qn_jsb_init(&b, x);
        qn_jx_fuel(x, (size_t)times / 8 + 1);
        for (; times > 0; times--) qn_jsb_str(&b, v.s);
        struct qn_jv r = qn_jsb_done(&b);
        r.s->markup = v.s->markup;
        return r;
    }
    struct qn_jlist *l = qn_jlist_of(x, v);
    if (l->n && times > (int64_t)(INT32_MAX / l->n)) qn_jx_fail(x, QN_E_LIMIT, "a list is too long");
    struct qn_jv r = qn_jv_list(x, v.t, l->n * (uint32_t)times);
    qn_jx_fuel(x, r.l->n);
    for (uint32_t i = 0; i < r.l->n; i++) r.l->v[i] = l->v[i % l->n];
    return r;
}

static struct qn_jv add_str(struct qn_jx *x, struct qn_jv a, struct qn_jv b) {
    int markup = a.s->markup || b.s->markup;
    if (markup && !a.s->markup) a = qn_jv_escape(x, a);
    if (markup && !b.s->markup) b = qn_jv_escape(x, b);
    struct qn_jv r = qn_jstr_concat(x, a.s, b.s);
    if (markup && !r.s->markup) {
        r = qn_jstr_sub(x, r.s, 0, r.s->n);
        r.s->markup = 1;
    }
    return r;
}

struct qn_jv qn_jv_binary(struct qn_jx *x, int op, struct qn_jv a, struct qn_jv b) {
    static const char *const sign[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    if (qn_jv_is_num(a) && qn_jv_is_num(b)) {
        struct qn_jv r = a.t == J_FLOAT || b.t == J_FLOAT ? floats(x, op, qn_jv_as_num(a), qn_jv_as_num(b))
                                                          : ints(x, op, qn_jv_as_int(a), qn_jv_as_int(b));
        r.dirty = a.dirty | b.dirty;
        return r;
    }
    if (op == TOK_MOD && a.t == J_STR) return qn_jv_percent(x, a.s, b);
    if (a.t == J_UNDEF) qn_jx_undefined(x, a);
    if (b.t == J_UNDEF) qn_jx_undefined(x, b);
    if (op == TOK_ADD) {
        if (a.t == J_STR && b.t == J_STR) return add_str(x, a, b);
        if (is_seq(a) && a.t == b.t) return qn_jlist_concat(x, a, b);
        if (a.t == J_STR) qn_jx_fail(x, QN_E_DATA, "can only concatenate str (not \"%s\") to str", qn_jv_type(b));
        if (is_seq(a))
            qn_jx_fail(x, QN_E_DATA, "can only concatenate %s (not \"%s\") to %s", qn_jv_type(a), qn_jv_type(b), qn_jv_type(a));
    }
    if (op == TOK_MUL) {
        if ((a.t == J_STR || is_seq(a)) && qn_jv_is_int(b)) return repeat(x, a, qn_jv_as_int(b));
        if ((b.t == J_STR || is_seq(b)) && qn_jv_is_int(a)) return repeat(x, b, qn_jv_as_int(a));
    }
    no_operator(x, sign[op - TOK_ADD], a, b);
}

struct qn_jv qn_jv_negate(struct qn_jx *x, struct qn_jv v, int sign) {
    struct qn_jv r = v;
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    if (v.t == J_FLOAT) {
        if (sign < 0) r.f = -v.f;
        return r;
    }
    if (!qn_jv_is_int(v)) qn_jx_fail(x, QN_E_DATA, "bad operand type for unary %c: '%s'", sign < 0 ? '-' : '+', qn_jv_type(v));
    r = qn_jv_int(qn_jv_as_int(v));
    r.dirty = v.dirty;
    if (sign < 0 && __builtin_sub_overflow(0, r.i, &r.i)) too_big(x);
    return r;
}

/* ---- lookup ---- */

static struct qn_jv undefined_attr(struct qn_jv o, const char *name, int unsafe) {
    return (struct qn_jv){.t = J_UNDEF, .sub = unsafe ? UNDEF_UNSAFE : UNDEF_ATTR, .of = o.t, .name = name};
}

/* Python's getattr on the value itself, with the sandbox's refusals; 1 when it decided. */
static int own_attr(struct qn_jx *x, struct qn_jv o, struct qn_jstr *name, int method_id, struct qn_jv *out) {
    if (o.t == J_NS) {
        struct qn_jv *v = qn_jdict_get(x, o.d, (struct qn_jv){.t = J_STR, .s = name});
        if (v) *out = *v;
        return v != NULL;
    }
    if (name->n > 4 && !memcmp(name->p, "__", 2) && !memcmp(name->p + name->n - 2, "__", 2)) {
        *out = undefined_attr(o, qn_jstr_c(x, name), 1);
        return 1;
    }
    int how = qn_jcall_attr(x, o, name, method_id, out);
    if (how == QN_JATTR_UNSAFE) *out = undefined_attr(o, qn_jstr_c(x, name), 1);
    return how != QN_JATTR_NONE;
}

struct qn_jv qn_jv_attr(struct qn_jx *x, struct qn_jv o, struct qn_jstr *name, int method_id) {
    struct qn_jv out;
    if (o.t == J_UNDEF) qn_jx_undefined(x, o);
    if (own_attr(x, o, name, method_id, &out)) return out;
    if (o.t == J_DICT) {
        struct qn_jv *v = qn_jdict_get(x, qn_jdict_of(x, o), (struct qn_jv){.t = J_STR, .s = name});
        if (v) return *v;
    }
    return undefined_attr(o, name->p, 0);
}

int qn_jv_hashable(struct qn_jx *x, struct qn_jv v) {
    int ok = v.t != J_LIST && v.t != J_DICT && v.t != J_VIEW;
    if (v.t != J_TUPLE) return ok;
    qn_jx_enter(x);
    for (uint32_t i = 0; i < v.l->n && ok; i++) ok = qn_jv_hashable(x, v.l->v[i]);
    qn_jx_leave(x);
    return ok;
}

static int nth(int64_t i, int64_t n, int64_t *at) {
    *at = i < 0 ? i + n : i;
    return *at >= 0 && *at < n;
}

/* obj[key] itself; 1 when found. */
static int own_item(struct qn_jx *x, struct qn_jv o, struct qn_jv key, struct qn_jv *out) {
    int64_t at;
    switch (o.t) {
    case J_DICT: {
        if (!qn_jv_hashable(x, key)) return 0;
        struct qn_jv *v = qn_jdict_get(x, qn_jdict_of(x, o), key);
        if (v) *out = *v;
        return v != NULL;
    }
    case J_LIST: case J_TUPLE: {
        struct qn_jlist *l = qn_jlist_of(x, o);
        if (!qn_jv_is_int(key) || !nth(qn_jv_as_int(key), l->n, &at)) return 0;
        *out = l->v[at];
        return 1;
    }
    case J_RANGE:
        if (!qn_jv_is_int(key) || !nth(qn_jv_as_int(key), o.r->n, &at)) return 0;
        *out = qn_jv_int(o.r->from + at * o.r->step);
        return 1;
    case J_STR: {
        if (!qn_jv_is_int(key) || !nth(qn_jv_as_int(key), qn_jv_len(x, o), &at)) return 0;
        qn_jx_bytes(x, o.s->n);
        size_t from = qn_jstr_at(o.s, (uint32_t)at), to = from + 1;
        while (to < o.s->n && ((unsigned char)o.s->p[to] & 0xC0) == 0x80) to++;
        *out = qn_jstr_sub(x, o.s, from, to);
        return 1;
    }
    default: return 0;
    }
}

struct qn_jv qn_jv_item(struct qn_jx *x, struct qn_jv o, struct qn_jv key) {
    struct qn_jv out;
    if (o.t == J_UNDEF) qn_jx_undefined(x, o);
    if (own_item(x, o, key, &out)) return out;
    if (key.t != J_STR) {
        struct qn_jsb b;
        qn_jsb_init(&b, x);
        qn_jsb_put(&b, "element ", 8, 1);
        qn_jv_repr(x, key, &b);
        return undefined_attr(o, qn_jstr_c(x, qn_jsb_done(&b).s), 0);
    }
    const char *name = qn_jstr_c(x, key.s);
    if (own_attr(x, o, key.s, qn_jcall_method(name), &out)) return out;
    return undefined_attr(o, name, 0);
}

static int64_t bound(struct qn_jx *x, struct qn_jv v, int64_t n, int64_t absent, int64_t lo, int64_t hi) {
    if (v.t == J_NONE || v.t == J_MISSING) return absent;
    if (!qn_jv_is_int(v)) qn_jx_fail(x, QN_E_DATA, "slice indices must be integers or None or have an __index__ method");
    int64_t i = qn_jv_as_int(v);
    if (i < 0) i = i < -n ? lo : i + n;
    return i < lo ? lo : i > hi ? hi : i;
}

static struct qn_jv slice_str(struct qn_jx *x, struct qn_jstr *s, int64_t from, int64_t step, int64_t n) {
    qn_jx_bytes(x, s->n);
    if (step == 1) return qn_jstr_sub(x, s, qn_jstr_at(s, (uint32_t)from), qn_jstr_at(s, (uint32_t)(from + n)));
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    if (qn_jstr_chars(s) != s->n) { /* code points by their places first */
        uint32_t *place = qn_jx_array(x, (size_t)s->chars + 1, sizeof *place), c = 0;
        for (uint32_t i = 0; i < s->n; i++)
            if (((unsigned char)s->p[i] & 0xC0) != 0x80) place[c++] = i;
        place[c] = s->n;
        for (; n > 0; n--, from += step, qn_jx_step(x)) qn_jsb_sub(&b, s, place[from], place[from + 1]);
    } else {
        for (; n > 0; n--, from += step, qn_jx_step(x)) qn_jsb_sub(&b, s, (size_t)from, (size_t)from + 1);
    }
    return qn_jsb_done(&b);
}

struct qn_jv qn_jv_slice(struct qn_jx *x, struct qn_jv o, struct qn_jv vfrom, struct qn_jv vto, struct qn_jv vstep) {
    if (o.t == J_UNDEF) qn_jx_undefined(x, o);
    if (o.t != J_STR && !is_seq(o) && o.t != J_RANGE)
        qn_jx_fail(x, QN_E_DATA, "'%s' object is not subscriptable by a slice", qn_jv_type(o));
    int64_t len = qn_jv_len(x, o), step = 1;
    if (vstep.t != J_NONE && vstep.t != J_MISSING) {
        if (!qn_jv_is_int(vstep)) qn_jx_fail(x, QN_E_DATA, "slice indices must be integers or None or have an __index__ method");
        step = qn_jv_as_int(vstep);
        if (step == 0) qn_jx_fail(x, QN_E_DATA, "slice step cannot be zero");
        if (step > INT32_MAX) step = INT32_MAX;
        if (step < -INT32_MAX) step = -INT32_MAX;
    }
    int64_t lo = step < 0 ? -1 : 0, hi = step < 0 ? len - 1 : len;
    int64_t from = bound(x, vfrom, len, step < 0 ? hi : lo, lo, hi), to = bound(x, vto, len, step < 0 ? lo : hi, lo, hi);
    int64_t n = step > 0 ? (to > from ? (to - from - 1) / step + 1 : 0) : (from > to ? (from - to - 1) / -step + 1 : 0);
    if (o.t == J_STR) return n ? slice_str(x, o.s, from, step, n) : qn_jstr_sub(x, o.s, 0, 0);
    if (o.t == J_RANGE) {
        struct qn_jrange *r = qn_jx_alloc(x, sizeof *r);
        *r = (struct qn_jrange){o.r->from + from * o.r->step, o.r->step * step, (uint32_t)n};
        return (struct qn_jv){.t = J_RANGE, .r = r};
    }
    struct qn_jlist *l = qn_jlist_of(x, o);
    struct qn_jv r = qn_jv_list(x, o.t, 0);
    if (step == 1) { /* shares */
        r.l->v = n ? l->v + from : NULL;
        r.l->n = (uint32_t)n;
        return r;
    }
    r = qn_jv_list(x, o.t, (uint32_t)n);
    qn_jx_fuel(x, (size_t)n);
    for (int64_t i = 0; i < n; i++) r.l->v[i] = l->v[from + i * step];
    return r;
}

/* ---- iteration ---- */

int qn_jv_iterable(struct qn_jv v) {
    return v.t == J_UNDEF || v.t == J_STR || is_seq(v) || v.t == J_DICT || v.t == J_VIEW || v.t == J_RANGE || v.t == J_GEN ||
           v.t == J_LOOP;
}

struct qn_jiter qn_jv_iter(struct qn_jx *x, struct qn_jv v) {
    if (!qn_jv_iterable(v) || v.t == J_LOOP) qn_jx_fail(x, QN_E_DATA, "'%s' object is not iterable", qn_jv_type(v));
    struct qn_jiter it = {.v = v};
    if (v.t == J_GEN) { /* what is left of it is this iteration's */
        struct qn_jv rest = qn_jv_list(x, J_GEN, 0);
        *rest.l = *v.l;
        v.l->n = 0;
        it.v = rest;
    } else if (is_seq(v)) {
        qn_jlist_of(x, v);
    } else if (v.t == J_DICT || v.t == J_VIEW) {
        qn_jdict_of(x, v);
    }
    return it;
}

int qn_jv_next(struct qn_jx *x, struct qn_jiter *it, struct qn_jv *out) {
    struct qn_jv v = it->v;
    size_t i = it->i;
    qn_jx_step(x);
    switch (v.t) {
    case J_LIST: case J_TUPLE: case J_GEN:
        if (i >= v.l->n) return 0;
        *out = v.l->v[it->i++];
        return 1;
    case J_DICT: case J_VIEW: {
        if (i >= v.d->n) return 0;
        const struct qn_jpair *e = &v.d->e[it->i++];
        if (v.t == J_VIEW && v.sub == VIEW_VALUES) {
            *out = e->v;
        } else if (v.t == J_VIEW && v.sub == VIEW_ITEMS) {
            *out = qn_jv_list(x, J_TUPLE, 2);
            out->l->v[0] = e->k;
            out->l->v[1] = e->v;
        } else {
            *out = e->k;
        }
        return 1;
    }
    case J_RANGE:
        if (i >= v.r->n) return 0;
        *out = qn_jv_int(v.r->from + (int64_t)it->i++ * v.r->step);
        return 1;
    case J_STR: {
        if (i >= v.s->n) return 0;
        size_t to = i + 1;
        while (to < v.s->n && ((unsigned char)v.s->p[to] & 0xC0) == 0x80) to++;
        *out = qn_jstr_sub(x, v.s, i, to);
        out->s->markup = 0;
        it->i = to;
        return 1;
    }
    default: return 0;
    }
}

struct qn_jv qn_jv_to_list(struct qn_jx *x, struct qn_jv v, int type) {
    struct qn_jiter it = qn_jv_iter(x, v);
    if (it.v.t == J_LIST || it.v.t == J_TUPLE || it.v.t == J_GEN) { /* members are never changed: share them */
        struct qn_jv r = qn_jv_list(x, type, 0);
        r.l->v = it.v.l->v;
        r.l->n = it.v.l->n;
        return r;
    }
    struct qn_jv r = qn_jv_list(x, type, 0);
    for (struct qn_jv m; qn_jv_next(x, &it, &m);) qn_jlist_push(x, r.l, m);
    return r;
}
