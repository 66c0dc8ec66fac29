/* Runs a compiled template: names and scopes, expressions, statements, macros and loops.
 *
 * Scopes are Jinja's: a for body, a macro, a block set, a filter block, `with` and a generation block have their own, `if`
 * has none; what a scope sets is gone after it, and a loop body's is cleared for every turn. Names of the top level are
 * looked up by number in an array, inner ones in short lists. A macro sees where it was defined, not where it is
 * called. Nodes cost a step each; recursion is counted twice, as macro depth (the limit of the caller) and as C frames. */
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_calls.h"
#include "api/jinja_ops.h"
#include "api/jinja_show.h"

struct slot { int id; struct qn_jv v; };
struct scope { struct scope *up; struct slot *v; uint32_t n, cap; };
struct qn_jmacro { const struct qn_jnode *node; struct scope *at; };
struct qn_jloop {
    const struct qn_jnode *node;
    struct scope *at;            /* outside the loop */
    struct qn_jlist *got;        /* items that passed the filter so far */
    struct qn_jiter rest;        /* what the filter has not seen */
    int done;                    /* no rest */
    uint32_t index0;
    int depth0;
    struct qn_jv changed;        /* last arguments of loop.changed() */
};
enum { RUN_ON, RUN_BREAK, RUN_CONTINUE };

static struct qn_jv eval(struct qn_jx *x, struct scope *s, const struct qn_jnode *n);
static int run(struct qn_jx *x, struct scope *s, const struct qn_jnodes *body);

/* ---- names ---- */

static struct qn_jv load(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    for (; s; s = s->up)
        for (uint32_t i = s->n; i-- > 0;)
            if (s->v[i].id == n->id) return s->v[i].v;
    struct qn_jv v = x->root[n->id];
    if (v.t == J_MISSING) v = x->globals[n->id];
    if (v.t == J_MISSING) return (struct qn_jv){.t = J_UNDEF, .sub = UNDEF_NAME, .name = n->name};
    return v;
}

static void store(struct qn_jx *x, struct scope *s, int id, struct qn_jv v) {
    if (!s) {
        x->root[id] = v;
        return;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->v[i].id != id) continue;
        s->v[i].v = v;
        return;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 8;
        struct slot *p = qn_jx_alloc(x, cap * sizeof *p);
        if (s->n) memcpy(p, s->v, s->n * sizeof *p);
        s->v = p;
        s->cap = cap;
    }
    s->v[s->n++] = (struct slot){id, v};
}

static struct scope *inner(struct qn_jx *x, struct scope *s) {
    struct scope *o = qn_jx_alloc(x, sizeof *o);
    *o = (struct scope){.up = s};
    return o;
}

static void assign_ns(struct qn_jx *x, struct scope *s, const struct qn_jnode *t, struct qn_jv v) {
    struct qn_jv ns = load(x, s, t);
    if (ns.t != J_NS) qn_jx_fail(x, QN_E_DATA, "cannot assign attribute on non-namespace object");
    if (t->str->n && t->str->p[0] == '_')
        qn_jx_fail(x, QN_E_DATA, "underscore-prefixed attributes cannot be stored on a namespace");
    qn_jdict_put(x, ns.d, (struct qn_jv){.t = J_STR, .s = t->str}, v);
}

static void assign(struct qn_jx *x, struct scope *s, const struct qn_jnode *t, struct qn_jv v) {
    if (t->kind == N_NAME) {
        store(x, s, t->id, v);
    } else if (t->kind == N_NSREF) {
        assign_ns(x, s, t, v);
    } else { /* as deep as it was parsed */
        struct qn_jv l = qn_jv_to_list(x, v, J_LIST);
        if (l.l->n != t->list.n)
            qn_jx_fail(x, QN_E_DATA,
                       l.l->n > t->list.n ? "too many values to unpack (expected %u)"
                                          : "not enough values to unpack (expected %u)",
                       t->list.n);
        for (uint32_t i = 0; i < t->list.n; i++) assign(x, s, t->list.v[i], l.l->v[i]);
    }
}

/* ---- calls ---- */

static void add_kw(struct qn_jx *x, struct qn_jargv *a, struct qn_jv k, struct qn_jv v) {
    for (uint32_t i = 0; i < a->n_kw; i++, qn_jx_step(x))
        if (qn_jstr_eq(x, a->kw[i].k.s, k.s))
            qn_jx_fail(x, QN_E_DATA, "got multiple values for keyword argument '%.60s'", qn_jstr_c(x, k.s));
    a->kw[a->n_kw++] = (struct qn_jpair){k, v};
}

static void arguments(struct qn_jx *x, struct scope *s, const struct qn_jargs *in, struct qn_jargv *a) {
    *a = (struct qn_jargv){0};
    if (!in) return;
    struct qn_jlist *star = NULL;
    struct qn_jdict *starstar = NULL;
    struct qn_jv *pos = in->pos.n ? qn_jx_array(x, in->pos.n, sizeof *pos) : NULL;
    for (uint32_t i = 0; i < in->pos.n; i++) pos[i] = eval(x, s, in->pos.v[i]);
    struct qn_jv *kw = in->n_kw ? qn_jx_array(x, in->n_kw, sizeof *kw) : NULL;
    for (uint32_t i = 0; i < in->n_kw; i++) kw[i] = eval(x, s, in->kw[i].v);
    if (in->star) star = qn_jv_to_list(x, eval(x, s, in->star), J_LIST).l;
    if (in->starstar) {
        struct qn_jv d = eval(x, s, in->starstar);
        if (d.t != J_DICT) qn_jx_fail(x, QN_E_DATA, "argument after ** must be a mapping, not %s", qn_jv_type(d));
        starstar = qn_jdict_of(x, d);
    }
    a->n = in->pos.n + (star ? star->n : 0);
    a->pos = pos;
    if (star && star->n) {
        a->pos = qn_jx_array(x, a->n, sizeof *pos);
        if (in->pos.n) memcpy(a->pos, pos, in->pos.n * sizeof *pos);
        memcpy(a->pos + in->pos.n, star->v, star->n * sizeof *pos);
    }
    uint32_t n_kw = in->n_kw + (starstar ? starstar->n : 0);
    if (!n_kw) return;
    a->kw = qn_jx_array(x, n_kw, sizeof *a->kw);
    for (uint32_t i = 0; i < in->n_kw; i++) add_kw(x, a, qn_jv_cstr(x, in->kw[i].name), kw[i]);
    for (uint32_t i = 0; starstar && i < starstar->n; i++) {
        if (starstar->e[i].k.t != J_STR) qn_jx_fail(x, QN_E_DATA, "keywords must be strings");
        add_kw(x, a, starstar->e[i].k, starstar->e[i].v);
    }
}

struct qn_jv qn_jcall(struct qn_jx *x, struct qn_jv f, const struct qn_jargv *a) {
    switch (f.t) {
    case J_MACRO: return qn_jeval_macro(x, f.m, a);
    case J_FUNC: return qn_jcall_run_func(x, (int)f.i, a);
    case J_METHOD: return qn_jcall_run_method(x, f.meth->self, f.meth->id, a);
    case J_LOOP: return qn_jeval_loop_again(x, f.loop, a);
    case J_JOINER: {
        struct qn_jv first = qn_jv_cstr(x, "");
        return f.cyc->pos++ ? f.cyc->items : first;
    }
    case J_UNDEF: qn_jx_undefined(x, f);
    default: qn_jx_fail(x, QN_E_DATA, "'%s' object is not callable", qn_jv_type(f));
    }
}

static struct qn_jv filter(struct qn_jx *x, struct scope *s, const struct qn_jnode *n, const struct qn_jv *given) {
    struct qn_jv v = n->a ? filter(x, s, n->a, given) : *given;
    struct qn_jargv a;
    arguments(x, s, n->args, &a);
    x->line = n->line;
    return qn_jcall_run_filter(x, n->id, n->name, v, &a);
}

/* ---- expressions ---- */

static struct qn_jv compare(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jv left = eval(x, s, n->a);
    for (uint32_t i = 0; i < n->list.n; i++) {
        const struct qn_jnode *o = n->list.v[i];
        struct qn_jv right = eval(x, s, o->a);
        int ok, c;
        x->line = n->line;
        switch (o->op) {
        case TOK_EQ: ok = qn_jv_eq(x, left, right); break;
        case TOK_NE: ok = !qn_jv_eq(x, left, right); break;
        case TOK_LT: ok = qn_jv_cmp(x, left, right, "<") == -1; break;
        case TOK_LE: c = qn_jv_cmp(x, left, right, "<="); ok = c == -1 || c == 0; break;
        case TOK_GT: ok = qn_jv_cmp(x, left, right, ">") == 1; break;
        case TOK_GE: c = qn_jv_cmp(x, left, right, ">="); ok = c == 1 || c == 0; break;
        case OP_IN: ok = qn_jv_in(x, left, right); break;
        default: ok = !qn_jv_in(x, left, right); break;
        }
        if (!ok) return qn_jv_bool(0);
        left = right;
    }
    return qn_jv_bool(1);
}

static struct qn_jv concat(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jstr *all = qn_jv_to_str(x, eval(x, s, n->list.v[0]));
    for (uint32_t i = 1; i < n->list.n; i++) all = qn_jstr_concat(x, all, qn_jv_to_str(x, eval(x, s, n->list.v[i]))).s;
    if (all->markup) {
        all = qn_jstr_sub(x, all, 0, all->n).s;
        all->markup = 0;
    }
    return (struct qn_jv){.t = J_STR, .s = all};
}

static struct qn_jv literal(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    if (n->kind != N_DICT) {
        struct qn_jv l = qn_jv_list(x, n->kind == N_LIST ? J_LIST : J_TUPLE, n->list.n);
        for (uint32_t i = 0; i < n->list.n; i++) l.l->v[i] = eval(x, s, n->list.v[i]);
        return l;
    }
    struct qn_jv d = qn_jv_dict(x, n->list.n / 2);
    for (uint32_t i = 0; i < n->list.n; i += 2) {
        struct qn_jv k = eval(x, s, n->list.v[i]);
        qn_jdict_put(x, d.d, k, eval(x, s, n->list.v[i + 1]));
    }
    return d;
}

static struct qn_jv item(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jv o = eval(x, s, n->a);
    if (n->b->kind != N_SLICE) {
        struct qn_jv k = eval(x, s, n->b);
        x->line = n->line;
        return qn_jv_item(x, o, k);
    }
    struct qn_jv from = n->b->a ? eval(x, s, n->b->a) : qn_jv_none(), to = n->b->b ? eval(x, s, n->b->b) : qn_jv_none();
    struct qn_jv step = n->b->c ? eval(x, s, n->b->c) : qn_jv_none();
    x->line = n->line;
    return qn_jv_slice(x, o, from, to, step);
}

static struct qn_jv call(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jargv a;
    struct qn_jv f = eval(x, s, n->a);
    arguments(x, s, n->args, &a);
    x->line = n->line;
    return qn_jcall(x, f, &a);
}

static struct qn_jv test(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jargv a;
    struct qn_jv v = eval(x, s, n->a);
    arguments(x, s, n->args, &a);
    x->line = n->line;
    return qn_jv_bool(qn_jcall_run_test(x, n->id, n->name, v, &a));
}

static struct qn_jv filtered(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jargv a;
    struct qn_jv v = eval(x, s, n->a);
    arguments(x, s, n->args, &a);
    x->line = n->line;
    return qn_jcall_run_filter(x, n->id, n->name, v, &a);
}

static struct qn_jv eval_in(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jv v;
    switch (n->kind) {
    case N_CONST: return n->value;
    case N_STR: return (struct qn_jv){.t = J_STR, .s = n->str};
    case N_NAME: return load(x, s, n);
    case N_LIST: case N_TUPLE: case N_DICT: return literal(x, s, n);
    case N_COND:
        if (qn_jv_true(x, eval(x, s, n->a))) return eval(x, s, n->b);
        return n->c ? eval(x, s, n->c)
                    : qn_jv_hint("the inline if-expression evaluated to false and no else section was defined.");
    case N_OR: v = eval(x, s, n->a); return qn_jv_true(x, v) ? v : eval(x, s, n->b);
    case N_AND: v = eval(x, s, n->a); return qn_jv_true(x, v) ? eval(x, s, n->b) : v;
    case N_NOT: return qn_jv_bool(!qn_jv_true(x, eval(x, s, n->a)));
    case N_COMPARE: return compare(x, s, n);
    case N_BINARY: {
        struct qn_jv a = eval(x, s, n->a), b = eval(x, s, n->b);
        x->line = n->line;
        return qn_jv_binary(x, n->op, a, b);
    }
    case N_CONCAT: return concat(x, s, n);
    case N_NEG: return qn_jv_negate(x, eval(x, s, n->a), -1);
    case N_POS: return qn_jv_negate(x, eval(x, s, n->a), 1);
    case N_ATTR: v = eval(x, s, n->a); x->line = n->line; return qn_jv_attr(x, v, n->str, n->id);
    case N_ITEM: return item(x, s, n);
    case N_CALL: return call(x, s, n);
    case N_FILTER: return filtered(x, s, n);
    case N_TEST: return test(x, s, n);
    default: qn_jx_fail(x, QN_E_DATA, "this cannot be evaluated");
    }
}

static struct qn_jv eval(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    qn_jx_step(x);
    qn_jx_enter(x);
    x->line = n->line;
    struct qn_jv v = eval_in(x, s, n);
    qn_jx_leave(x);
    return v;
}

/* ---- output kept in a string ---- */

static struct qn_jv captured(struct qn_jx *x, struct scope *s, const struct qn_jnodes *body) {
    struct qn_jsb b, *was = x->out;
    qn_jsb_init(&b, x);
    x->out = &b;
    run(x, s, body);
    x->out = was;
    return qn_jsb_done(&b);
}

/* ---- macros ---- */

static void deeper(struct qn_jx *x) {
    if (++x->depth > x->depth_max) qn_jx_fail(x, QN_E_LIMIT, "macros or recursive loops nest more than %d deep", x->depth_max);
}

static struct qn_jv *kw_of(struct qn_jx *x, const struct qn_jargv *a, const char *name, uint8_t *used) {
    for (uint32_t i = 0; i < a->n_kw; i++, qn_jx_step(x)) {
        if (used[i] || !qn_jstr_is(a->kw[i].k.s, name)) continue;
        used[i] = 1;
        return &a->kw[i].v;
    }
    return NULL;
}

/* Places of the hidden arguments caller, kwargs, varargs, as jinja2's Macro.__call__ fills them. */
static void hidden(struct qn_jx *x, struct qn_jmacro *m, const struct qn_jargv *a, uint8_t *used, struct scope *s) {
    const struct qn_jnode *n = m->node;
    if (n->flags & NF_CALLER) {
        struct qn_jv *c = kw_of(x, a, "caller", used);
        store(x, s, x->t->id_caller, c && c->t != J_NONE ? *c : qn_jv_hint("No caller defined"));
    }
    struct qn_jv rest = qn_jv_dict(x, 0);
    for (uint32_t i = 0; i < a->n_kw; i++) {
        if (used[i]) continue;
        if (!(n->flags & NF_KWARGS))
            qn_jx_fail(x, QN_E_DATA, "macro '%s' takes no keyword argument '%.60s'", n->name, qn_jstr_c(x, a->kw[i].k.s));
        qn_jdict_put(x, rest.d, a->kw[i].k, a->kw[i].v);
    }
    if (n->flags & NF_KWARGS) store(x, s, x->t->id_kwargs, rest);
    uint32_t extra = a->n > n->list.n ? a->n - n->list.n : 0;
    if (extra && !(n->flags & NF_VARARGS))
        qn_jx_fail(x, QN_E_DATA, "macro '%s' takes not more than %u argument(s)", n->name, n->list.n);
    if (!(n->flags & NF_VARARGS)) return;
    struct qn_jv more = qn_jv_list(x, J_TUPLE, extra);
    for (uint32_t i = 0; i < extra; i++) more.l->v[i] = a->pos[n->list.n + i];
    store(x, s, x->t->id_varargs, more);
}

struct qn_jv qn_jeval_macro(struct qn_jx *x, struct qn_jmacro *m, const struct qn_jargv *a) {
    const struct qn_jnode *n = m->node;
    struct scope *s = inner(x, m->at);
    uint8_t *used = qn_jx_alloc(x, (size_t)a->n_kw + 1), *given = qn_jx_alloc(x, (size_t)n->list.n + 1);
    deeper(x);
    for (uint32_t i = 0; i < n->list.n; i++) { /* all that were given first, since a default may read them */
        struct qn_jv *kw = i < a->n ? NULL : kw_of(x, a, n->list.v[i]->name, used);
        given[i] = i < a->n || kw;
        if (given[i]) store(x, s, n->list.v[i]->id, i < a->n ? a->pos[i] : *kw);
    }
    hidden(x, m, a, used, s);
    for (uint32_t i = 0; i < n->list.n; i++) {
        const struct qn_jnode *arg = n->list.v[i];
        if (given[i]) continue;
        store(x, s, arg->id, arg->b ? eval(x, s, arg->b) : (struct qn_jv){.t = J_UNDEF, .sub = UNDEF_NAME, .name = arg->name});
    }
    struct qn_jv v = captured(x, s, &n->body);
    x->depth--;
    return v;
}

const char *qn_jcall_macro_name(struct qn_jv m) { return m.m->node->name; }

static struct qn_jv new_macro(struct qn_jx *x, const struct qn_jnode *n, struct scope *s) {
    struct qn_jmacro *m = qn_jx_alloc(x, sizeof *m);
    *m = (struct qn_jmacro){n, s};
    return (struct qn_jv){.t = J_MACRO, .m = m};
}

static void call_block(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jargv a;
    struct qn_jv f = eval(x, s, n->a->a);
    arguments(x, s, n->a->args, &a);
    struct qn_jpair *kw = qn_jx_array(x, (size_t)a.n_kw + 1, sizeof *kw);
    if (a.n_kw) memcpy(kw, a.kw, a.n_kw * sizeof *kw);
    a.kw = kw;
    add_kw(x, &a, qn_jv_cstr(x, "caller"), new_macro(x, n->c, s));
    qn_jv_show(x, qn_jcall(x, f, &a), x->out);
}

/* ---- loops ---- */

/* Makes item i known; 0: there is none. */
static int fetch(struct qn_jx *x, struct qn_jloop *l, uint32_t i) {
    while (l->got->n <= i && !l->done) {
        struct qn_jv v;
        if (!qn_jv_next(x, &l->rest, &v)) {
            l->done = 1;
            break;
        }
        struct scope *s = inner(x, l->at);
        assign(x, s, l->node->a, v);
        if (qn_jv_true(x, eval(x, s, l->node->c))) qn_jlist_push(x, l->got, v);
    }
    return i < l->got->n;
}

static uint32_t length(struct qn_jx *x, struct qn_jloop *l) {
    fetch(x, l, UINT32_MAX - 1);
    return l->got->n;
}

int64_t qn_jcall_loop_length(struct qn_jx *x, struct qn_jv loop) { return length(x, loop.loop); }

int64_t qn_jcall_loop_index(struct qn_jv loop) { return (int64_t)loop.loop->index0 + 1; }

static int run_loop(struct qn_jx *x, struct scope *s, const struct qn_jnode *n, struct qn_jv over, int depth0) {
    struct qn_jloop *l = qn_jx_alloc(x, sizeof *l);
    *l = (struct qn_jloop){.node = n, .at = s, .depth0 = depth0, .changed = qn_jv_missing()};
    if (n->c) {
        l->rest = qn_jv_iter(x, over);
        l->got = qn_jv_list(x, J_LIST, 0).l;
    } else {
        l->got = qn_jv_to_list(x, over, J_LIST).l;
        l->done = 1;
    }
    struct scope *in = inner(x, s);
    int whole_turns = 0, how = RUN_ON;
    for (uint32_t i = 0; fetch(x, l, i) && how != RUN_BREAK; i++) {
        qn_jx_step(x);
        in->n = 0;
        l->index0 = i;
        store(x, in, x->t->id_loop, (struct qn_jv){.t = J_LOOP, .loop = l});
        assign(x, in, n->a, l->got->v[i]);
        how = run(x, in, &n->body);
        whole_turns += how == RUN_ON;
    }
    if ((n->flags & NF_ELSE) && !whole_turns) return run(x, inner(x, s), &n->other);
    return RUN_ON;
}

struct qn_jv qn_jeval_loop_again(struct qn_jx *x, struct qn_jloop *l, const struct qn_jargv *a) {
    if (!(l->node->flags & NF_RECURSIVE))
        qn_jx_fail(x, QN_E_DATA, "The loop must have the 'recursive' marker to be called recursively.");
    if (a->n != 1 || a->n_kw) qn_jx_fail(x, QN_E_DATA, "a recursive loop takes one argument");
    struct qn_jsb b, *was = x->out;
    qn_jsb_init(&b, x);
    deeper(x);
    x->out = &b;
    run_loop(x, l->at, l->node, a->pos[0], l->depth0 + 1);
    x->out = was;
    x->depth--;
    return qn_jsb_done(&b);
}

int qn_jeval_loop_attr(struct qn_jx *x, struct qn_jloop *l, struct qn_jstr *name, struct qn_jv *out) {
    static const char *const names[] = {"index",  "index0",   "first",     "last",  "previtem", "nextitem",
                                        "length", "revindex", "revindex0", "depth", "depth0"};
    size_t k = 0;
    while (k < sizeof names / sizeof *names && !qn_jstr_is(name, names[k])) k++;
    uint32_t i = l->index0;
    switch (k) {
    case 0: *out = qn_jv_int((int64_t)i + 1); return 1;
    case 1: *out = qn_jv_int(i); return 1;
    case 2: *out = qn_jv_bool(i == 0); return 1;
    case 3: *out = qn_jv_bool(!fetch(x, l, i + 1)); return 1;
    case 4: *out = i ? l->got->v[i - 1] : qn_jv_hint("there is no previous item"); return 1;
    case 5: *out = fetch(x, l, i + 1) ? l->got->v[i + 1] : qn_jv_hint("there is no next item"); return 1;
    case 6: *out = qn_jv_int(length(x, l)); return 1;
    case 7: *out = qn_jv_int((int64_t)length(x, l) - i); return 1;
    case 8: *out = qn_jv_int((int64_t)length(x, l) - i - 1); return 1;
    case 9: *out = qn_jv_int(l->depth0 + 1); return 1;
    case 10: *out = qn_jv_int(l->depth0); return 1;
    default: return 0;
    }
}

/* loop.cycle and loop.changed. */
struct qn_jv qn_jeval_loop_method(struct qn_jx *x, struct qn_jloop *l, int changed, const struct qn_jargv *a) {
    if (!changed) {
        if (!a->n) qn_jx_fail(x, QN_E_DATA, "no items for cycling given");
        return a->pos[l->index0 % a->n];
    }
    struct qn_jv now = qn_jv_list(x, J_TUPLE, a->n);
    for (uint32_t i = 0; i < a->n; i++) now.l->v[i] = a->pos[i];
    if (l->changed.t != J_MISSING && qn_jv_eq(x, l->changed, now)) return qn_jv_bool(0);
    l->changed = now;
    return qn_jv_bool(1);
}

/* ---- statements ---- */

static int run_if(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    if (qn_jv_true(x, eval(x, s, n->a))) return run(x, s, &n->body);
    for (uint32_t i = 0; i < n->list.n; i++)
        if (qn_jv_true(x, eval(x, s, n->list.v[i]->a))) return run(x, s, &n->list.v[i]->body);
    return run(x, s, &n->other);
}

static int run_with(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct scope *in = inner(x, s);
    for (uint32_t i = 0; i < n->list.n; i++) assign(x, in, n->list.v[i]->a, eval(x, s, n->list.v[i]->b));
    return run(x, in, &n->body);
}

static int statement(struct qn_jx *x, struct scope *s, const struct qn_jnode *n) {
    struct qn_jv v;
    qn_jx_step(x);
    x->line = n->line;
    switch (n->kind) {
    case N_DATA: qn_jsb_put(x->out, n->str->p, n->str->n, 1); return RUN_ON;
    case N_PRINT: qn_jv_show(x, eval(x, s, n->a), x->out); return RUN_ON;
    case N_IF: return run_if(x, s, n);
    case N_FOR: return run_loop(x, s, n, eval(x, s, n->b), 0);
    case N_SET: assign(x, s, n->a, eval(x, s, n->b)); return RUN_ON;
    case N_SETBLOCK:
        v = captured(x, inner(x, s), &n->body);
        assign(x, s, n->a, n->b ? filter(x, s, n->b, &v) : v);
        return RUN_ON;
    case N_FILTERBLOCK:
        v = captured(x, inner(x, s), &n->body);
        qn_jv_show(x, filter(x, s, n->b, &v), x->out);
        return RUN_ON;
    case N_MACRO: store(x, s, n->id, new_macro(x, n, s)); return RUN_ON;
    case N_CALLBLOCK: call_block(x, s, n); return RUN_ON;
    case N_WITH: return run_with(x, s, n);
    case N_SCOPE: return run(x, inner(x, s), &n->body);
    case N_BREAK: return RUN_BREAK;
    default: return RUN_CONTINUE;
    }
}

static int run(struct qn_jx *x, struct scope *s, const struct qn_jnodes *body) {
    int how = RUN_ON;
    qn_jx_enter(x);
    for (uint32_t i = 0; i < body->n && how == RUN_ON; i++) how = statement(x, s, body->v[i]);
    qn_jx_leave(x);
    return how;
}

void qn_jeval_template(struct qn_jx *x) { run(x, NULL, &x->t->body); }
