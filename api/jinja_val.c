/* Memory and containers of the interpreter.
 *
 * Templates build text and lists by `s = s + piece` in a loop, which would be quadratic with copies. So a concatenation
 * leaves spare room behind its bytes and the next one, if its left side ends exactly there, appends in place and shares:
 * strings never change, only the unused room behind them is filled. The ranges of trust grow in the same way; a
 * shared last range may reach past an older string's end, which is why ranges are clipped when they are read. */
#include "api/jinja_val.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_ops.h"
#include "engine/base/hash.h"
#include "engine/base/utf8.h"

enum { INDEX_FROM = 8 };

void qn_jx_fail(struct qn_jx *x, int code, const char *fmt, ...) {
    char text[QN_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = ' ';
    size_t whole = qn_utf8_whole(text, strlen(text));
    text[whole] = 0;
    if (!qn_utf8_valid(text, whole)) text[0] = 0;
    if (code == QN_E_RAISED) qn_fail(x->err, code, "%s", text);
    else qn_fail(x->err, code, "chat template, line %u: %s", x->line, text);
    x->rc = code;
    longjmp(x->out_of, 1);
}

void qn_jx_fuel(struct qn_jx *x, size_t steps) {
    if (x->steps >= 0 && (size_t)x->steps >= steps) {
        x->steps -= (long)steps;
        return;
    }
    qn_jx_fail(x, QN_E_LIMIT, "it takes too many steps");
}

void *qn_jx_alloc(struct qn_jx *x, size_t n) {
    void *p = qn_arena_alloc(&x->mem, n ? n : 1);
    if (!p) qn_jx_fail(x, QN_E_LIMIT, "it takes too much memory");
    return p;
}

void *qn_jx_array(struct qn_jx *x, size_t n, size_t each) {
    size_t bytes;
    if (__builtin_mul_overflow(n, each, &bytes)) qn_jx_fail(x, QN_E_LIMIT, "it takes too much memory");
    qn_jx_bytes(x, bytes);
    return qn_jx_alloc(x, bytes);
}

void qn_jx_enter(struct qn_jx *x) {
    if (++x->nest > QN_J_NEST_MAX) qn_jx_fail(x, QN_E_LIMIT, "it nests too deeply");
}

/* ---- strings ---- */

static struct qn_jstr *new_str(struct qn_jx *x, const char *p, size_t n, int trust) {
    if (n >= UINT32_MAX) qn_jx_fail(x, QN_E_LIMIT, "a string is too long");
    struct qn_jstr *s = qn_jx_alloc(x, sizeof *s);
    *s = (struct qn_jstr){.p = p, .n = (uint32_t)n, .chars = n ? UINT32_MAX : 0, .trust = (uint8_t)trust};
    if (n == 0) s->trust = TRUST_ALL;
    return s;
}

static struct qn_jv of_str(struct qn_jstr *s) { return (struct qn_jv){.t = J_STR, .s = s}; }

struct qn_jv qn_jv_str(struct qn_jx *x, const char *p, size_t n, int trusted) {
    return of_str(new_str(x, p, n, trusted ? TRUST_ALL : TRUST_NONE));
}

struct qn_jv qn_jv_cstr(struct qn_jx *x, const char *s) { return qn_jv_str(x, s, strlen(s), 1); }

uint32_t qn_jstr_chars(struct qn_jstr *s) {
    if (s->chars == UINT32_MAX) {
        uint32_t c = 0;
        for (uint32_t i = 0; i < s->n; i++) c += ((unsigned char)s->p[i] & 0xC0) != 0x80;
        s->chars = c;
    }
    return s->chars;
}

size_t qn_jstr_at(struct qn_jstr *s, uint32_t ch) {
    if (qn_jstr_chars(s) == s->n) return ch;
    size_t i = 0;
    for (; ch && i < s->n; ch--) {
        i++;
        while (i < s->n && ((unsigned char)s->p[i] & 0xC0) == 0x80) i++;
    }
    return i;
}

/* First range that ends behind byte i (in the string's coordinates). */
static uint32_t range_at(const struct qn_jstr *s, size_t i) {
    uint32_t lo = 0, hi = s->n_r;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->r[mid].to <= i + s->r_off) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

int qn_jstr_trusted(const struct qn_jstr *s, size_t i, size_t *run) {
    size_t left = s->n - i;
    *run = left;
    if (s->trust != TRUST_SOME) return s->trust == TRUST_ALL;
    uint32_t k = range_at(s, i);
    if (k == s->n_r) return 0;
    size_t at = i + s->r_off, to = s->r[k].from > at ? s->r[k].from : s->r[k].to;
    if (to - at < left) *run = to - at;
    return s->r[k].from <= at;
}

struct qn_jv qn_jstr_sub(struct qn_jx *x, const struct qn_jstr *s, size_t from, size_t to) {
    struct qn_jstr *o = new_str(x, s->p + from, to - from, s->trust);
    o->markup = s->markup;
    if (s->chars == s->n) o->chars = o->n;
    if (o->trust != TRUST_SOME || !o->n) return of_str(o);
    size_t run;
    int t = qn_jstr_trusted(s, from, &run);
    if (run >= to - from) {
        o->trust = t ? TRUST_ALL : TRUST_NONE;
        return of_str(o);
    }
    uint32_t a = range_at(s, from), b = a;
    while (b < s->n_r && s->r[b].from < to + s->r_off) b++;
    o->r = s->r + a;
    o->n_r = b - a;
    o->r_off = s->r_off + from;
    return of_str(o);
}

int qn_jstr_eq(struct qn_jx *x, const struct qn_jstr *a, const struct qn_jstr *b) {
    if (a->n != b->n) return 0;
    qn_jx_bytes(x, a->n);
    return !memcmp(a->p, b->p, a->n);
}

int qn_jstr_is(const struct qn_jstr *s, const char *lit) {
    size_t n = strlen(lit);
    return s->n == n && !memcmp(s->p, lit, n);
}

const char *qn_jstr_c(struct qn_jx *x, const struct qn_jstr *s) {
    char *p = qn_jx_alloc(x, (size_t)s->n + 1);
    memcpy(p, s->p, s->n);
    return p;
}

/* ---- builders ---- */

void qn_jsb_init(struct qn_jsb *b, struct qn_jx *x) { *b = (struct qn_jsb){.x = x, .max = SIZE_MAX}; }

static void sb_room(struct qn_jsb *b, size_t n) {
    if (n > b->max - b->n) qn_jx_fail(b->x, QN_E_LIMIT, "its output is too long");
    if (n <= b->cap - b->n) return;
    size_t cap = b->cap ? b->cap * 2 : 64;
    if (cap < b->n + n) cap = b->n + n;
    char *p = qn_jx_alloc(b->x, cap);
    if (b->n) memcpy(p, b->p, b->n);
    b->p = p;
    b->cap = cap;
}

static void sb_mark(struct qn_jsb *b, size_t from, size_t to) {
    if (b->n_r && b->r[b->n_r - 1].to == from) {
        b->r[b->n_r - 1].to = to;
        return;
    }
    if (b->n_r == b->cap_r) {
        uint32_t cap = b->cap_r ? b->cap_r * 2 : 4;
        struct qn_range *r = qn_jx_alloc(b->x, cap * sizeof *r);
        if (b->n_r) memcpy(r, b->r, b->n_r * sizeof *r);
        b->r = r;
        b->cap_r = cap;
    }
    b->r[b->n_r++] = (struct qn_range){from, to};
}

void qn_jsb_put(struct qn_jsb *b, const char *p, size_t n, int trusted) {
    if (!n) return;
    qn_jx_bytes(b->x, n);
    sb_room(b, n);
    memcpy(b->p + b->n, p, n);
    if (trusted) sb_mark(b, b->n, b->n + n);
    b->n += n;
}

void qn_jsb_sub(struct qn_jsb *b, const struct qn_jstr *s, size_t from, size_t to) {
    if (s->trust != TRUST_SOME) {
        qn_jsb_put(b, s->p + from, to - from, s->trust == TRUST_ALL);
        return;
    }
    for (size_t run; from < to; from += run) {
        int t = qn_jstr_trusted(s, from, &run);
        if (run > to - from) run = to - from;
        qn_jx_step(b->x);
        qn_jsb_put(b, s->p + from, run, t);
    }
}

void qn_jsb_str(struct qn_jsb *b, const struct qn_jstr *s) { qn_jsb_sub(b, s, 0, s->n); }

struct qn_jv qn_jsb_done(struct qn_jsb *b) {
    struct qn_jstr *s = new_str(b->x, b->p ? b->p : "", b->n, TRUST_NONE);
    if (b->n_r == 1 && b->r[0].from == 0 && b->r[0].to == b->n) {
        s->trust = TRUST_ALL;
    } else if (b->n_r) {
        s->trust = TRUST_SOME;
        s->r = b->r;
        s->n_r = b->n_r;
    }
    struct qn_jspace *sp = NULL;
    if (b->cap - b->n >= 16 && b->cap >= 256) { /* worth appending to */
        sp = qn_jx_alloc(b->x, sizeof *sp);
        *sp = (struct qn_jspace){b->p, b->n, b->cap, b->r, b->n_r, b->cap_r};
    }
    s->space = sp;
    return of_str(s);
}

/* Appends to a's own room when a ends there; else copies a into a builder with room to spare. */
struct qn_jv qn_jstr_concat(struct qn_jx *x, const struct qn_jstr *a, const struct qn_jstr *b) {
    if (!a->n) return of_str((struct qn_jstr *)(uintptr_t)b);
    if (!b->n) return of_str((struct qn_jstr *)(uintptr_t)a);
    struct qn_jspace *sp = a->space;
    struct qn_jsb o;
    qn_jsb_init(&o, x);
    if (sp && a->p + a->n == sp->base + sp->used && sp->cap - sp->used >= b->n && a->p == sp->base) {
        o.p = sp->base;
        o.n = sp->used;
        o.cap = sp->cap;
        if (a->trust == TRUST_SOME && a->r == sp->r && a->n_r == sp->n_r && !a->r_off) {
            o.r = sp->r;
            o.n_r = sp->n_r;
            o.cap_r = sp->cap_r;
        } else {
            for (size_t i = 0, run; i < a->n; i += run)
                if (qn_jstr_trusted(a, i, &run)) sb_mark(&o, i, i + run);
        }
    } else {
        if (a->n >= 128) sb_room(&o, ((size_t)a->n + b->n) * 2);
        qn_jsb_str(&o, a);
    }
    qn_jsb_str(&o, b);
    if (sp && o.p == sp->base) sp->used = o.n; /* taken, so that no other string appends here */
    struct qn_jv v = qn_jsb_done(&o);
    if (a->chars == a->n && b->chars == b->n) v.s->chars = v.s->n;
    return v;
}

/* ---- lists ---- */

struct qn_jv qn_jv_list(struct qn_jx *x, int type, uint32_t n) {
    struct qn_jlist *l = qn_jx_alloc(x, sizeof *l);
    *l = (struct qn_jlist){.v = n ? qn_jx_array(x, n, sizeof *l->v) : NULL, .n = n};
    return (struct qn_jv){.t = (uint8_t)type, .l = l};
}

struct qn_jlist *qn_jlist_of(struct qn_jx *x, struct qn_jv v) {
    struct qn_jlist *l = v.l;
    if (!l->json) return l;
    size_t n = json_array_size(l->json);
    qn_jx_fuel(x, n);
    struct qn_jv *a = qn_jx_array(x, n, sizeof *a);
    for (size_t i = 0; i < n; i++) a[i] = qn_jv_json(x, json_array_get(l->json, i), l->trusted);
    l->v = a;
    l->n = (uint32_t)n;
    l->json = NULL;
    return l;
}

static void list_room(struct qn_jx *x, struct qn_jlist *l, uint32_t more) {
    if (l->room && l->v + l->n == l->room->base + l->room->used && l->room->cap - l->room->used >= more) return;
    if (more > (uint32_t)INT32_MAX - l->n) qn_jx_fail(x, QN_E_LIMIT, "a list is too long");
    uint32_t cap = l->n + more < 4 ? 8 : (l->n + more) * 2;
    struct qn_jroom *room = qn_jx_alloc(x, sizeof *room);
    struct qn_jv *v = qn_jx_array(x, cap, sizeof *v);
    if (l->n) memcpy(v, l->v, l->n * sizeof *v);
    *room = (struct qn_jroom){v, l->n, cap};
    l->v = v;
    l->room = room;
}

void qn_jlist_push(struct qn_jx *x, struct qn_jlist *l, struct qn_jv v) {
    qn_jx_step(x);
    list_room(x, l, 1);
    l->v[l->n++] = v;
    l->room->used++;
}

struct qn_jv qn_jlist_concat(struct qn_jx *x, struct qn_jv a, struct qn_jv b) {
    struct qn_jlist *la = qn_jlist_of(x, a), *lb = qn_jlist_of(x, b);
    struct qn_jlist *o = qn_jx_alloc(x, sizeof *o);
    *o = *la;
    list_room(x, o, lb->n ? lb->n : 1);
    qn_jx_fuel(x, lb->n);
    if (lb->n) memcpy(o->v + o->n, lb->v, lb->n * sizeof *o->v);
    o->n += lb->n;
    o->room->used += lb->n;
    return (struct qn_jv){.t = a.t, .l = o};
}

/* ---- dicts ---- */

struct qn_jv qn_jv_dict(struct qn_jx *x, uint32_t cap) {
    struct qn_jdict *d = qn_jx_alloc(x, sizeof *d);
    *d = (struct qn_jdict){.e = cap ? qn_jx_array(x, cap, sizeof *d->e) : NULL, .cap = cap};
    return (struct qn_jv){.t = J_DICT, .d = d};
}

struct qn_jdict *qn_jdict_of(struct qn_jx *x, struct qn_jv v) {
    struct qn_jdict *d = v.d;
    if (!d->json) return d;
    json_t *j = (json_t *)(uintptr_t)d->json;
    uint32_t n = (uint32_t)json_object_size(j);
    qn_jx_fuel(x, n);
    d->e = n ? qn_jx_array(x, n, sizeof *d->e) : NULL;
    d->cap = n;
    d->n = 0;
    for (void *it = json_object_iter(j); it && d->n < n; it = json_object_iter_next(j, it)) {
        struct qn_jpair *e = &d->e[d->n++];
        e->k = qn_jv_str(x, json_object_iter_key(it), json_object_iter_key_len(it), d->trusted);
        e->v = qn_jv_json(x, json_object_iter_value(it), d->trusted);
    }
    d->json = NULL;
    return d;
}

/* Equal keys hash alike: True, 1 and 1.0 are one key, as in Python. */
static uint64_t hash_of(struct qn_jx *x, struct qn_jv k) {
    switch (k.t) {
    case J_STR: qn_jx_bytes(x, k.s->n); return qn_siphash(x->t->key, k.s->p, k.s->n);
    case J_BOOL: k.i = k.b; /* fall through */
    case J_INT: return qn_siphash(x->t->key, &k.i, sizeof k.i);
    case J_FLOAT:
        if (k.f >= -9e18 && k.f <= 9e18 && k.f == (double)(int64_t)k.f) {
            int64_t i = (int64_t)k.f;
            return qn_siphash(x->t->key, &i, sizeof i);
        }
        return qn_siphash(x->t->key, &k.f, sizeof k.f);
    case J_TUPLE: {
        uint64_t h = 7;
        qn_jx_enter(x);
        for (uint32_t i = 0; i < k.l->n; i++) h = h * 1000003u ^ hash_of(x, k.l->v[i]);
        qn_jx_leave(x);
        return h;
    }
    case J_LIST: case J_DICT: case J_VIEW: qn_jx_fail(x, QN_E_DATA, "unhashable type: '%s'", qn_jv_type(k));
    default: return k.t;
    }
}

static void index_put(struct qn_jdict *d, uint64_t h, uint32_t entry) {
    uint32_t at = (uint32_t)h & d->mask;
    while (d->index[at]) at = (at + 1) & d->mask;
    d->index[at] = entry + 1;
}

static void index_build(struct qn_jx *x, struct qn_jdict *d, uint32_t want) {
    uint32_t size = 32;
    while (size < want * 2) size *= 2;
    d->index = qn_jx_array(x, size, sizeof *d->index);
    d->mask = size - 1;
    qn_jx_fuel(x, d->n);
    for (uint32_t i = 0; i < d->n; i++) index_put(d, hash_of(x, d->e[i].k), i);
}

static struct qn_jpair *lookup(struct qn_jx *x, struct qn_jdict *d, struct qn_jv k) {
    if (d->n <= INDEX_FROM) {
        if (k.t == J_LIST || k.t == J_DICT || k.t == J_VIEW || k.t == J_TUPLE) hash_of(x, k);
        for (uint32_t i = 0; i < d->n; i++) {
            struct qn_jv e = d->e[i].k;
            if (e.t == J_STR && k.t == J_STR ? qn_jstr_eq(x, e.s, k.s) : e.t != J_STR && k.t != J_STR && qn_jv_eq(x, e, k))
                return &d->e[i];
        }
        return NULL;
    }
    if (!d->index) index_build(x, d, d->n);
    uint64_t h = hash_of(x, k);
    for (uint32_t at = (uint32_t)h & d->mask; d->index[at]; at = (at + 1) & d->mask) {
        struct qn_jpair *e = &d->e[d->index[at] - 1];
        if (qn_jv_eq(x, e->k, k)) return e;
        qn_jx_step(x);
    }
    return NULL;
}

struct qn_jv *qn_jdict_get(struct qn_jx *x, struct qn_jdict *d, struct qn_jv k) {
    struct qn_jpair *e = lookup(x, d, k);
    return e ? &e->v : NULL;
}

struct qn_jv *qn_jdict_find(struct qn_jx *x, struct qn_jdict *d, const char *name) {
    struct qn_jstr s = {.p = name, .n = (uint32_t)strlen(name)};
    return qn_jdict_get(x, d, (struct qn_jv){.t = J_STR, .s = &s});
}

void qn_jdict_put(struct qn_jx *x, struct qn_jdict *d, struct qn_jv k, struct qn_jv v) {
    struct qn_jpair *e = lookup(x, d, k);
    if (e) {
        e->v = v;
        return;
    }
    qn_jx_step(x);
    if (d->n == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 4;
        struct qn_jpair *p = qn_jx_array(x, cap, sizeof *p);
        if (d->n) memcpy(p, d->e, d->n * sizeof *p);
        d->e = p;
        d->cap = cap;
    }
    d->e[d->n++] = (struct qn_jpair){k, v};
    if (d->index && d->n * 2 > d->mask) index_build(x, d, d->n * 2);
    else if (d->index) index_put(d, hash_of(x, k), d->n - 1);
}

/* ---- from JSON ---- */

struct qn_jv qn_jv_json(struct qn_jx *x, const json_t *j, int trusted) {
    struct qn_jv v = {.t = J_NONE, .dirty = !trusted};
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = qn_jv_dict(x, 0);
        v.d->json = j;
        v.d->trusted = trusted != 0;
        return v;
    case JSON_ARRAY:
        v = qn_jv_list(x, J_LIST, 0);
        v.l->json = j;
        v.l->trusted = trusted != 0;
        return v;
    case JSON_STRING: return qn_jv_str(x, json_string_value(j), json_string_length(j), trusted);
    case JSON_INTEGER: v.t = J_INT; v.i = json_integer_value(j); return v;
    case JSON_REAL: v.t = J_FLOAT; v.f = json_real_value(j); return v;
    case JSON_TRUE: v.t = J_BOOL; v.b = 1; return v;
    case JSON_FALSE: v.t = J_BOOL; v.b = 0; return v;
    case JSON_NULL: break;
    }
    return v;
}

const char *qn_jv_type(struct qn_jv v) {
    static const char *const names[] = {
        "Undefined", "NoneType", "bool", "int", "float", "str", "list", "tuple", "dict", "dict_items", "range", "generator",
        "Namespace", "Macro", "function", "builtin_function_or_method", "LoopContext", "Cycler", "Joiner", "missing",
    };
    return names[v.t];
}
