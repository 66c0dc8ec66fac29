/* Filters that take or give sequences: sorting (a stable merge sort), grouping, picking by attribute or test.
 *
 * Attribute paths are Jinja's: dots reach inside, parts made of digits are indices, sort takes several separated by commas. */
#include "api/jinja_seq.h"

#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_ops.h"
#include "api/jinja_show.h"
#include "api/jinja_str.h"
#include "api/jinja_unicode.h"

static struct qn_jv gen(struct qn_jv list) {
    list.t = J_GEN;
    return list;
}

static struct qn_jv lowered(struct qn_jx *x, struct qn_jv v, int case_sensitive) {
    return v.t == J_STR && !case_sensitive ? qn_jstr_case(x, v.s, CASE_LOWER) : v;
}

/* ---- attribute paths ---- */

static struct qn_jv part(struct qn_jx *x, struct qn_jv v, struct qn_jstr *name, struct qn_jv fallback) {
    int64_t n = 0;
    size_t i = 0;
    while (i < name->n && i < 9 && name->p[i] >= '0' && name->p[i] <= '9') n = n * 10 + (name->p[i++] - '0');
    struct qn_jv key = name->n && i == name->n ? qn_jv_int(n) : (struct qn_jv){.t = J_STR, .s = name};
    v = qn_jv_item(x, v, key);
    return v.t == J_UNDEF && fallback.t != J_MISSING && fallback.t != J_NONE ? fallback : v;
}

static struct qn_jv by_path(struct qn_jx *x, struct qn_jv v, struct qn_jv path, struct qn_jv fallback) {
    if (path.t == J_NONE || path.t == J_MISSING) return v;
    if (path.t != J_STR) {
        v = qn_jv_item(x, v, path);
        return v.t == J_UNDEF && fallback.t != J_MISSING && fallback.t != J_NONE ? fallback : v;
    }
    if (!memchr(path.s->p, '.', path.s->n)) return part(x, v, path.s, fallback);
    struct qn_jlist *parts = qn_jstr_split(x, path.s, qn_jv_cstr(x, ".").s, -1, 0).l;
    for (uint32_t i = 0; i < parts->n; i++) v = part(x, v, parts->v[i].s, fallback);
    return v;
}

/* ---- sorting ---- */

struct sort { struct qn_jx *x; struct qn_jv *key; uint32_t *at, *tmp; int reverse; };

static int goes_first(struct sort *s, uint32_t right, uint32_t left) { /* strictly before */
    int c = s->reverse ? qn_jv_cmp(s->x, s->key[left], s->key[right], "<") : qn_jv_cmp(s->x, s->key[right], s->key[left], "<");
    return c == -1;
}

static void merge(struct sort *s, uint32_t from, uint32_t to) {
    if (to - from < 2) return;
    uint32_t mid = from + (to - from) / 2;
    merge(s, from, mid);
    merge(s, mid, to);
    uint32_t i = from, j = mid, o = from;
    while (i < mid && j < to) s->tmp[o++] = goes_first(s, s->at[j], s->at[i]) ? s->at[j++] : s->at[i++];
    while (i < mid) s->tmp[o++] = s->at[i++];
    while (j < to) s->tmp[o++] = s->at[j++];
    memcpy(s->at + from, s->tmp + from, (to - from) * sizeof *s->at);
}

static uint32_t *sorted(struct qn_jx *x, struct qn_jv *keys, uint32_t n, int reverse) {
    struct sort s = {x, keys, qn_jx_array(x, n, 4), qn_jx_array(x, n, 4), reverse};
    for (uint32_t i = 0; i < n; i++) s.at[i] = i;
    merge(&s, 0, n);
    return s.at;
}

void qn_jcall_sort(struct qn_jx *x, struct qn_jv *v, struct qn_jv *keys, uint32_t n, int reverse) {
    uint32_t *at = sorted(x, keys, n, reverse);
    struct qn_jv *copy = qn_jx_array(x, n, sizeof *copy);
    if (n) memcpy(copy, v, n * sizeof *copy);
    for (uint32_t i = 0; i < n; i++) v[i] = copy[at[i]];
}

void qn_jcall_sort_pairs(struct qn_jx *x, struct qn_jpair *e, uint32_t n) {
    struct qn_jv *keys = qn_jx_array(x, n, sizeof *keys);
    for (uint32_t i = 0; i < n; i++) keys[i] = e[i].k;
    uint32_t *at = sorted(x, keys, n, 0);
    struct qn_jpair *copy = qn_jx_array(x, n, sizeof *copy);
    if (n) memcpy(copy, e, n * sizeof *copy);
    for (uint32_t i = 0; i < n; i++) e[i] = copy[at[i]];
}

/* A list of its own, whose members may be moved. */
static struct qn_jlist *own_list(struct qn_jx *x, struct qn_jv v) {
    struct qn_jlist *from = qn_jv_to_list(x, v, J_LIST).l;
    struct qn_jlist *l = qn_jv_list(x, J_LIST, from->n).l;
    qn_jx_fuel(x, from->n);
    if (from->n) memcpy(l->v, from->v, from->n * sizeof *l->v);
    return l;
}

static struct qn_jv sort(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jlist *l = own_list(x, v);
    int case_sensitive = qn_jv_true(x, in[1]);
    struct qn_jv *keys = qn_jx_array(x, l->n, sizeof *keys);
    struct qn_jlist *paths = NULL;
    if (in[2].t == J_STR) paths = qn_jstr_split(x, in[2].s, qn_jv_cstr(x, ",").s, -1, 0).l;
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t n = paths ? paths->n : 1;
        keys[i] = qn_jv_list(x, J_LIST, n);
        for (uint32_t k = 0; k < n; k++)
            keys[i].l->v[k] = lowered(x, by_path(x, l->v[i], paths ? paths->v[k] : in[2], qn_jv_missing()), case_sensitive);
    }
    qn_jcall_sort(x, l->v, keys, l->n, qn_jcall_int(x, in[0], 0) != 0);
    return (struct qn_jv){.t = J_LIST, .l = l};
}

static struct qn_jv pair(struct qn_jx *x, struct qn_jv a, struct qn_jv b) {
    struct qn_jv t = qn_jv_list(x, J_TUPLE, 2);
    t.l->v[0] = a;
    t.l->v[1] = b;
    return t;
}

static struct qn_jv dictsort(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    int by_value = 0;
    if (in[1].t != J_MISSING) {
        struct qn_jstr *by = qn_jcall_str(x, in[1], "dictsort");
        by_value = qn_jstr_is(by, "value");
        if (!by_value && !qn_jstr_is(by, "key")) qn_jx_fail(x, QN_E_DATA, "You can only sort by either \"key\" or \"value\"");
    }
    if (v.t == J_UNDEF) qn_jx_undefined(x, v);
    if (v.t != J_DICT) qn_jx_fail(x, QN_E_DATA, "'%s' object has no attribute 'items'", qn_jv_type(v));
    struct qn_jdict *d = qn_jdict_of(x, v);
    struct qn_jv l = qn_jv_list(x, J_LIST, d->n), *keys = qn_jx_array(x, d->n, sizeof *keys);
    for (uint32_t i = 0; i < d->n; i++) {
        l.l->v[i] = pair(x, d->e[i].k, d->e[i].v);
        keys[i] = lowered(x, by_value ? d->e[i].v : d->e[i].k, qn_jv_true(x, in[0]));
    }
    qn_jcall_sort(x, l.l->v, keys, d->n, qn_jcall_int(x, in[2], 0) != 0);
    return l;
}

static struct qn_jv groupby(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jlist *l = own_list(x, v);
    int case_sensitive = qn_jv_true(x, in[2]);
    struct qn_jv *keys = qn_jx_array(x, l->n, sizeof *keys), out = qn_jv_list(x, J_LIST, 0);
    for (uint32_t i = 0; i < l->n; i++) keys[i] = lowered(x, by_path(x, l->v[i], in[0], in[1]), case_sensitive);
    uint32_t *at = sorted(x, keys, l->n, 0);
    for (uint32_t i = 0, j; i < l->n; i = j) {
        struct qn_jv group = qn_jv_list(x, J_LIST, 0);
        for (j = i; j < l->n && qn_jv_eq(x, keys[at[j]], keys[at[i]]); j++) qn_jlist_push(x, group.l, l->v[at[j]]);
        if (j == i) j = i + 1; /* a NaN equals nothing */
        struct qn_jv t = pair(x, by_path(x, l->v[at[i]], in[0], in[1]), group);
        t.sub = 1;
        qn_jlist_push(x, out.l, t);
    }
    return out;
}

static struct qn_jv least(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in, int want) {
    struct qn_jiter it = qn_jv_iter(x, v);
    struct qn_jv best = qn_jv_hint("No aggregated item, sequence was empty."), key = best, m;
    for (int first = 1; qn_jv_next(x, &it, &m); first = 0) {
        struct qn_jv k = lowered(x, by_path(x, m, in[1], qn_jv_missing()), qn_jv_true(x, in[0]));
        if (!first && qn_jv_cmp(x, k, key, want < 0 ? "<" : ">") != want) continue;
        best = m;
        key = k;
    }
    return best;
}

static struct qn_jv unique(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jiter it = qn_jv_iter(x, v);
    struct qn_jv out = qn_jv_list(x, J_LIST, 0), seen = qn_jv_dict(x, 8);
    for (struct qn_jv m; qn_jv_next(x, &it, &m);) {
        struct qn_jv k = lowered(x, by_path(x, m, in[1], qn_jv_missing()), qn_jv_true(x, in[0]));
        if (qn_jdict_get(x, seen.d, k)) continue;
        qn_jdict_put(x, seen.d, k, qn_jv_none());
        qn_jlist_push(x, out.l, m);
    }
    return gen(out);
}

static struct qn_jv sum(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jiter it = qn_jv_iter(x, v);
    struct qn_jv total = in[1].t == J_MISSING ? qn_jv_int(0) : in[1];
    if (total.t == J_STR) qn_jx_fail(x, QN_E_DATA, "sum() can't sum strings [use ''.join(seq) instead]");
    for (struct qn_jv m; qn_jv_next(x, &it, &m);) total = qn_jv_binary(x, TOK_ADD, total, by_path(x, m, in[0], qn_jv_missing()));
    return total;
}

/* ---- cutting ---- */

static struct qn_jv batch(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    int64_t size = qn_jv_is_int(in[0]) ? qn_jv_as_int(in[0]) : -1; /* only compared with: another type is never met */
    struct qn_jiter it = qn_jv_iter(x, v);
    struct qn_jv out = qn_jv_list(x, J_LIST, 0), row = qn_jv_list(x, J_LIST, 0);
    for (struct qn_jv m; qn_jv_next(x, &it, &m);) {
        if (row.l->n == size) {
            qn_jlist_push(x, out.l, row);
            row = qn_jv_list(x, J_LIST, 0);
        }
        qn_jlist_push(x, row.l, m);
    }
    if (!row.l->n) return gen(out);
    if (in[1].t != J_MISSING && in[1].t != J_NONE)
        while (row.l->n < qn_jcall_int(x, in[0], 1)) qn_jlist_push(x, row.l, in[1]);
    qn_jlist_push(x, out.l, row);
    return gen(out);
}

static struct qn_jv slices(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jlist *l = qn_jv_to_list(x, v, J_LIST).l;
    int64_t n = qn_jcall_int(x, in[0], 1), at = 0;
    if (n == 0) qn_jx_fail(x, QN_E_DATA, "integer division or modulo by zero");
    if (n > QN_J_RANGE_MAX) qn_jx_fail(x, QN_E_LIMIT, "more than %d slices", QN_J_RANGE_MAX);
    struct qn_jv out = qn_jv_list(x, J_LIST, 0);
    for (int64_t k = 0; k < n; k++) {
        int64_t more = l->n / n + (k < l->n % n);
        struct qn_jv row = qn_jv_list(x, J_LIST, 0);
        for (int64_t i = 0; i < more; i++) qn_jlist_push(x, row.l, l->v[at++]);
        if (in[1].t != J_MISSING && in[1].t != J_NONE && k >= l->n % n) qn_jlist_push(x, row.l, in[1]);
        qn_jlist_push(x, out.l, row);
    }
    return gen(out);
}

static struct qn_jv reverse(struct qn_jx *x, struct qn_jv v) {
    if (v.t == J_STR) return qn_jv_slice(x, v, qn_jv_none(), qn_jv_none(), qn_jv_int(-1));
    struct qn_jlist *l = own_list(x, v);
    for (uint32_t i = 0; i < l->n / 2; i++) {
        struct qn_jv t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    struct qn_jv r = {.t = J_LIST, .l = l};
    return v.t == J_GEN ? r : gen(r); /* reversed() of a sequence, a list of anything else */
}

static struct qn_jv last(struct qn_jx *x, struct qn_jv v) {
    if (v.t == J_GEN || v.t == J_LOOP) qn_jx_fail(x, QN_E_DATA, "'%s' object is not reversible", qn_jv_type(v));
    if (v.t == J_UNDEF) return qn_jv_hint("No last item, sequence was empty.");
    struct qn_jv r = qn_jv_hint("No last item, sequence was empty.");
    if (v.t == J_STR || v.t == J_LIST || v.t == J_TUPLE || v.t == J_RANGE) {
        if (qn_jv_len(x, v)) r = qn_jv_item(x, v, qn_jv_int(-1));
        return r;
    }
    struct qn_jlist *l = qn_jv_to_list(x, v, J_LIST).l;
    return l->n ? l->v[l->n - 1] : r;
}

static struct qn_jv first(struct qn_jx *x, struct qn_jv v) {
    struct qn_jv m;
    if (v.t == J_GEN) { /* takes one and leaves the rest */
        if (!v.l->n) return qn_jv_hint("No first item, sequence was empty.");
        m = v.l->v[0];
        v.l->v++;
        v.l->n--;
        return m;
    }
    struct qn_jiter it = qn_jv_iter(x, v);
    return qn_jv_next(x, &it, &m) ? m : qn_jv_hint("No first item, sequence was empty.");
}

static struct qn_jv join(struct qn_jx *x, struct qn_jv v, const struct qn_jv *in) {
    struct qn_jstr *sep = in[0].t == J_MISSING ? qn_jv_cstr(x, "").s : qn_jv_to_str(x, in[0]);
    if (in[1].t != J_MISSING && in[1].t != J_NONE) {
        struct qn_jv l = qn_jv_list(x, J_LIST, 0), m;
        struct qn_jiter it = qn_jv_iter(x, v);
        while (qn_jv_next(x, &it, &m)) qn_jlist_push(x, l.l, by_path(x, m, in[1], qn_jv_missing()));
        v = l;
    }
    return qn_jstr_join(x, sep, v, 1);
}

struct qn_jv qn_jseq_filter(struct qn_jx *x, int op, struct qn_jv v, const struct qn_jv *in) {
    switch (op) {
    case SQ_BATCH: return batch(x, v, in);
    case SQ_SLICE: return slices(x, v, in);
    case SQ_DICTSORT: return dictsort(x, v, in);
    case SQ_FIRST: return first(x, v);
    case SQ_LAST: return last(x, v);
    case SQ_GROUPBY: return groupby(x, v, in);
    case SQ_ITEMS:
        if (v.t == J_UNDEF) return gen(qn_jv_list(x, J_LIST, 0));
        if (v.t != J_DICT) qn_jx_fail(x, QN_E_DATA, "Can only get item pairs from a mapping.");
        v.t = J_VIEW;
        v.sub = VIEW_ITEMS;
        return gen(qn_jv_to_list(x, v, J_LIST));
    case SQ_JOIN: return join(x, v, in);
    case SQ_LIST: return qn_jv_to_list(x, v, J_LIST);
    case SQ_MAX: return least(x, v, in, 1);
    case SQ_MIN: return least(x, v, in, -1);
    case SQ_REVERSE: return reverse(x, v);
    case SQ_SORT: return sort(x, v, in);
    case SQ_SUM: return sum(x, v, in);
    default: return unique(x, v, in);
    }
}

/* ---- map, select, reject and their attr forms ---- */

static struct qn_jv *kw(const struct qn_jargv *a, const char *name) {
    for (uint32_t i = 0; i < a->n_kw; i++)
        if (qn_jstr_is(a->kw[i].k.s, name)) return &a->kw[i].v;
    return NULL;
}

static struct qn_jv map(struct qn_jx *x, struct qn_jv v, const struct qn_jargv *a) {
    struct qn_jv out = qn_jv_list(x, J_LIST, 0), m, *attr = a->n ? NULL : kw(a, "attribute"), *fallback = kw(a, "default");
    struct qn_jargv rest = *a;
    const char *name = NULL;
    int id = -1;
    if (attr && a->n_kw > 1u + (fallback != NULL)) qn_jx_fail(x, QN_E_DATA, "map: unexpected keyword argument");
    if (!attr) {
        if (!a->n) qn_jx_fail(x, QN_E_DATA, "map requires a filter argument");
        name = qn_jstr_c(x, qn_jcall_str(x, a->pos[0], "map"));
        id = qn_jcall_filter(name);
        rest.pos++;
        rest.n--;
    }
    struct qn_jiter it = qn_jv_iter(x, v);
    while (qn_jv_next(x, &it, &m))
        qn_jlist_push(x, out.l,
                      attr ? by_path(x, m, *attr, fallback ? *fallback : qn_jv_missing())
                           : qn_jcall_run_filter(x, id, name, m, &rest));
    return gen(out);
}

struct qn_jv qn_jseq_pick(struct qn_jx *x, int op, struct qn_jv v, const struct qn_jargv *a) {
    struct qn_jv out = qn_jv_list(x, J_LIST, 0), m;
    if (!qn_jv_true(x, v)) return gen(out);
    qn_jx_enter(x);
    if (op == SQ_MAP) {
        out = map(x, v, a);
        qn_jx_leave(x);
        return out;
    }
    int by_attr = op == SQ_SELECTATTR || op == SQ_REJECTATTR, want = op == SQ_SELECT || op == SQ_SELECTATTR, id = -1;
    const char *name = NULL;
    struct qn_jargv rest = *a;
    if (by_attr) {
        if (!a->n) qn_jx_fail(x, QN_E_DATA, "Missing parameter for attribute name");
        rest.pos++;
        rest.n--;
    }
    if (rest.n) {
        name = qn_jstr_c(x, qn_jcall_str(x, rest.pos[0], "test"));
        id = qn_jcall_test(name);
        rest.pos++;
        rest.n--;
    }
    struct qn_jiter it = qn_jv_iter(x, v);
    while (qn_jv_next(x, &it, &m)) {
        struct qn_jv on = by_attr ? by_path(x, m, a->pos[0], qn_jv_missing()) : m;
        int yes = name ? qn_jcall_run_test(x, id, name, on, &rest) : qn_jv_true(x, on);
        if (yes == want) qn_jlist_push(x, out.l, m);
    }
    qn_jx_leave(x);
    return gen(out);
}
