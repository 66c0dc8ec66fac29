/* Tokens to expression trees. Precedence and quirks are Jinja2's parser.py: `-x|f` filters the negation, ** groups to the
 * left, a test may take one argument without brackets, neighbouring string literals join.
 *
 * Recursion is counted (depth): sixty thousand brackets end in an error value. */
#include <stdio.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_calls.h"

static struct qn_jnode *unary(struct qn_jparse *p, int with_filter);
static struct qn_jnode *condexpr(struct qn_jparse *p);
static struct qn_jnode *or_expr(struct qn_jparse *p);

static void enter(struct qn_jparse *p) {
    if (++p->depth > QN_J_PARSE_DEPTH_MAX) qn_jparse_fail(p, QN_E_LIMIT, qn_jparse_cur(p)->line, "it nests too deeply");
}

static const char *text(struct qn_jparse *p, const struct qn_jtoken *k) {
    char *s = qn_jparse_alloc(p, (size_t)k->n + 1);
    memcpy(s, k->p, k->n);
    return s;
}

static struct qn_jnode *binary(struct qn_jparse *p, int kind, int op, struct qn_jnode *a, struct qn_jnode *b, uint32_t line) {
    struct qn_jnode *n = qn_jparse_node(p, kind, line);
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return n;
}

static struct qn_jnode *constant(struct qn_jparse *p, struct qn_jv v, uint32_t line) {
    struct qn_jnode *n = qn_jparse_node(p, N_CONST, line);
    n->value = v;
    return n;
}

static struct qn_jnode *string(struct qn_jparse *p) {
    uint32_t first = p->at, line = qn_jparse_cur(p)->line;
    size_t n = 0;
    for (; qn_jparse_cur(p)->t == TOK_STRING; qn_jparse_next(p)) n += qn_jparse_cur(p)->n;
    char *s = qn_jparse_alloc(p, n + 1);
    size_t o = 0;
    for (uint32_t i = first; i < p->at; i++) {
        memcpy(s + o, p->tok[i].p, p->tok[i].n);
        o += p->tok[i].n;
    }
    struct qn_jnode *node = qn_jparse_node(p, N_STR, line);
    node->str = qn_jparse_alloc(p, sizeof *node->str);
    *node->str = (struct qn_jstr){.p = s, .n = (uint32_t)n, .trust = TRUST_ALL};
    node->str->chars = UINT32_MAX;
    qn_jstr_chars(node->str); /* now: a compiled template is shared between threads */
    return node;
}

static struct qn_jnode *name(struct qn_jparse *p, int with_ns) {
    struct qn_jtoken *k = qn_jparse_next(p);
    const char *s = text(p, k);
    if (!strcmp(s, "true") || !strcmp(s, "True")) return constant(p, qn_jv_bool(1), k->line);
    if (!strcmp(s, "false") || !strcmp(s, "False")) return constant(p, qn_jv_bool(0), k->line);
    if (!strcmp(s, "none") || !strcmp(s, "None")) return constant(p, qn_jv_none(), k->line);
    struct qn_jnode *n = qn_jparse_node(p, N_NAME, k->line);
    n->id = qn_jparse_name(p, k->p, k->n);
    n->name = s;
    if (with_ns && qn_jparse_skip(p, TOK_DOT)) {
        n->kind = N_NSREF;
        n->str = qn_jparse_alloc(p, sizeof *n->str);
        struct qn_jtoken *attr = qn_jparse_expect(p, TOK_NAME);
        *n->str = (struct qn_jstr){.p = attr->p, .n = attr->n, .chars = UINT32_MAX, .trust = TRUST_ALL};
        qn_jstr_chars(n->str);
    }
    p->t->names[n->id].loaded = 1;
    return n;
}

static struct qn_jnode *list_or_dict(struct qn_jparse *p, int close) {
    struct qn_jnode *n = qn_jparse_node(p, close == TOK_RBRACKET ? N_LIST : N_DICT, qn_jparse_next(p)->line);
    while (qn_jparse_cur(p)->t != close) {
        if (n->list.n) qn_jparse_expect(p, TOK_COMMA);
        if (qn_jparse_cur(p)->t == close) break;
        qn_jparse_push(p, &n->list, qn_jparse_expr(p));
        if (close == TOK_RBRACKET) continue;
        qn_jparse_expect(p, TOK_COLON);
        qn_jparse_push(p, &n->list, qn_jparse_expr(p));
    }
    qn_jparse_expect(p, close);
    return n;
}

static struct qn_jnode *primary(struct qn_jparse *p, int with_ns) {
    struct qn_jtoken *k = qn_jparse_cur(p);
    struct qn_jnode *n;
    switch (k->t) {
    case TOK_NAME: return name(p, with_ns);
    case TOK_STRING: return string(p);
    case TOK_INT: qn_jparse_next(p); return constant(p, qn_jv_int(k->i), k->line);
    case TOK_FLOAT: qn_jparse_next(p); return constant(p, qn_jv_float(k->f), k->line);
    case TOK_LPAREN:
        qn_jparse_next(p);
        n = qn_jparse_tuple(p, PT_PAREN);
        qn_jparse_expect(p, TOK_RPAREN);
        return n;
    case TOK_LBRACKET: return list_or_dict(p, TOK_RBRACKET);
    case TOK_LBRACE: return list_or_dict(p, TOK_RBRACE);
    default: qn_jparse_fail(p, QN_E_DATA, k->line, "unexpected %s", qn_jparse_describe(p));
    }
}

/* ---- what follows an operand ---- */

static struct qn_jargs *call_args(struct qn_jparse *p) {
    uint32_t line = qn_jparse_expect(p, TOK_LPAREN)->line, cap = 0;
    struct qn_jargs *a = qn_jparse_alloc(p, sizeof *a);
    for (int more = 0; qn_jparse_cur(p)->t != TOK_RPAREN; more = 1) {
        if (more) {
            qn_jparse_expect(p, TOK_COMMA);
            if (qn_jparse_cur(p)->t == TOK_RPAREN) break;
        }
        int ok;
        if (qn_jparse_skip(p, TOK_MUL)) {
            ok = !a->star && !a->starstar;
            a->star = qn_jparse_expr(p);
        } else if (qn_jparse_skip(p, TOK_POW)) {
            ok = !a->starstar;
            a->starstar = qn_jparse_expr(p);
        } else if (qn_jparse_cur(p)->t == TOK_NAME && p->tok[p->at + 1].t == TOK_ASSIGN) {
            ok = !a->starstar;
            if (a->n_kw == cap) {
                cap = cap ? cap * 2 : 4;
                void *v = qn_jparse_alloc(p, cap * sizeof *a->kw);
                if (a->n_kw) memcpy(v, a->kw, a->n_kw * sizeof *a->kw);
                a->kw = v;
            }
            struct qn_jtoken *k = qn_jparse_next(p);
            a->kw[a->n_kw].name = text(p, k);
            a->kw[a->n_kw].id = qn_jparse_name(p, k->p, k->n);
            for (uint32_t i = 0; i < a->n_kw; i++)
                if (a->kw[i].id == a->kw[a->n_kw].id)
                    qn_jparse_fail(p, QN_E_DATA, line, "keyword argument repeated: %s", a->kw[i].name);
            qn_jparse_next(p);
            struct qn_jnode *v = qn_jparse_expr(p);
            a->kw[a->n_kw++].v = v;
        } else {
            ok = !a->star && !a->starstar && !a->n_kw;
            qn_jparse_push(p, &a->pos, qn_jparse_expr(p));
        }
        if (!ok) qn_jparse_fail(p, QN_E_DATA, line, "invalid syntax for function call expression");
    }
    qn_jparse_expect(p, TOK_RPAREN);
    return a;
}

static struct qn_jnode *subscribed(struct qn_jparse *p) {
    uint32_t line = qn_jparse_cur(p)->line;
    struct qn_jnode *from = NULL;
    if (!qn_jparse_skip(p, TOK_COLON)) {
        from = qn_jparse_expr(p);
        if (!qn_jparse_skip(p, TOK_COLON)) return from;
    }
    struct qn_jnode *s = qn_jparse_node(p, N_SLICE, line);
    s->a = from;
    int t = qn_jparse_cur(p)->t;
    if (t != TOK_COLON && t != TOK_RBRACKET && t != TOK_COMMA) s->b = qn_jparse_expr(p);
    if (qn_jparse_skip(p, TOK_COLON)) {
        t = qn_jparse_cur(p)->t;
        if (t != TOK_RBRACKET && t != TOK_COMMA) s->c = qn_jparse_expr(p);
    }
    return s;
}

static struct qn_jnode *subscript(struct qn_jparse *p, struct qn_jnode *on) {
    struct qn_jtoken *k = qn_jparse_next(p);
    struct qn_jnode *n = qn_jparse_node(p, N_ITEM, k->line);
    n->a = on;
    if (k->t == TOK_DOT) {
        struct qn_jtoken *attr = qn_jparse_next(p);
        if (attr->t == TOK_INT) {
            n->b = constant(p, qn_jv_int(attr->i), attr->line);
            return n;
        }
        if (attr->t != TOK_NAME) qn_jparse_fail(p, QN_E_DATA, attr->line, "expected name or number");
        n->kind = N_ATTR;
        n->name = text(p, attr);
        n->id = qn_jcall_method(n->name);
        n->str = qn_jparse_alloc(p, sizeof *n->str);
        *n->str = (struct qn_jstr){.p = n->name, .n = attr->n, .chars = UINT32_MAX, .trust = TRUST_ALL};
        qn_jstr_chars(n->str);
        return n;
    }
    struct qn_jnode *many = qn_jparse_node(p, N_TUPLE, k->line);
    while (qn_jparse_cur(p)->t != TOK_RBRACKET) {
        if (many->list.n) qn_jparse_expect(p, TOK_COMMA);
        qn_jparse_push(p, &many->list, subscribed(p));
    }
    qn_jparse_expect(p, TOK_RBRACKET);
    n->b = many->list.n == 1 ? many->list.v[0] : many;
    if (n->b == many)
        for (uint32_t i = 0; i < many->list.n; i++)
            if (many->list.v[i]->kind == N_SLICE) qn_jparse_fail(p, QN_E_UNSUPPORTED, k->line, "a slice among several indices");
    return n;
}

static struct qn_jnode *call(struct qn_jparse *p, struct qn_jnode *on) {
    struct qn_jnode *n = qn_jparse_node(p, N_CALL, qn_jparse_cur(p)->line);
    n->a = on;
    n->args = call_args(p);
    return n;
}

/* A chain `x.a.b.c()…` becomes a tree as deep as it is long, so its length counts as nesting too. */
static struct qn_jnode *postfix(struct qn_jparse *p, struct qn_jnode *n) {
    for (int links = 0;; links++) {
        int t = qn_jparse_cur(p)->t;
        if (links > QN_J_PARSE_DEPTH_MAX) qn_jparse_fail(p, QN_E_LIMIT, qn_jparse_cur(p)->line, "it nests too deeply");
        if (t == TOK_DOT || t == TOK_LBRACKET) n = subscript(p, n);
        else if (t == TOK_LPAREN) n = call(p, n);
        else return n;
    }
}

static const char *dotted(struct qn_jparse *p) {
    const char *s = text(p, qn_jparse_expect(p, TOK_NAME));
    while (qn_jparse_skip(p, TOK_DOT)) {
        const char *more = text(p, qn_jparse_expect(p, TOK_NAME));
        size_t n = strlen(s) + strlen(more) + 2;
        char *both = qn_jparse_alloc(p, n);
        snprintf(both, n, "%s.%s", s, more);
        s = both;
    }
    return s;
}

struct qn_jnode *qn_jparse_filters(struct qn_jparse *p, struct qn_jnode *on, int inline_first) {
    for (int links = 0; inline_first || qn_jparse_cur(p)->t == TOK_PIPE; links++, inline_first = 0) {
        if (links > QN_J_PARSE_DEPTH_MAX) qn_jparse_fail(p, QN_E_LIMIT, qn_jparse_cur(p)->line, "it nests too deeply");
        if (!inline_first) qn_jparse_next(p);
        struct qn_jnode *n = qn_jparse_node(p, N_FILTER, qn_jparse_cur(p)->line);
        n->name = dotted(p);
        n->id = qn_jcall_filter(n->name);
        n->a = on;
        if (qn_jparse_cur(p)->t == TOK_LPAREN) n->args = call_args(p);
        on = n;
    }
    return on;
}

static struct qn_jnode *test(struct qn_jparse *p, struct qn_jnode *on) {
    struct qn_jnode *n = qn_jparse_node(p, N_TEST, qn_jparse_next(p)->line);
    int negated = qn_jparse_skip_name(p, "not");
    n->a = on;
    n->name = dotted(p);
    n->id = qn_jcall_test(n->name);
    int t = qn_jparse_cur(p)->t;
    if (t == TOK_LPAREN) {
        n->args = call_args(p);
    } else if ((t == TOK_NAME || t == TOK_STRING || t == TOK_INT || t == TOK_FLOAT || t == TOK_LBRACKET || t == TOK_LBRACE) &&
               !qn_jparse_is(p, "else") && !qn_jparse_is(p, "or") && !qn_jparse_is(p, "and")) {
        if (qn_jparse_is(p, "is")) qn_jparse_fail(p, QN_E_DATA, n->line, "You cannot chain multiple tests with is");
        n->args = qn_jparse_alloc(p, sizeof *n->args);
        enter(p);
        qn_jparse_push(p, &n->args->pos, postfix(p, primary(p, 0)));
        p->depth--;
    }
    if (!negated) return n;
    struct qn_jnode *not = qn_jparse_node(p, N_NOT, n->line);
    not->a = n;
    return not;
}

static struct qn_jnode *unary(struct qn_jparse *p, int with_filter) {
    struct qn_jtoken *k = qn_jparse_cur(p);
    struct qn_jnode *n;
    enter(p);
    if (k->t == TOK_SUB || k->t == TOK_ADD) {
        qn_jparse_next(p);
        n = qn_jparse_node(p, k->t == TOK_SUB ? N_NEG : N_POS, k->line);
        n->a = unary(p, 0);
    } else {
        n = primary(p, 0);
    }
    n = postfix(p, n);
    for (int links = 0; with_filter; links++) {
        if (links > QN_J_PARSE_DEPTH_MAX) qn_jparse_fail(p, QN_E_LIMIT, k->line, "it nests too deeply");
        if (qn_jparse_cur(p)->t == TOK_PIPE) n = qn_jparse_filters(p, n, 0);
        else if (qn_jparse_is(p, "is")) n = test(p, n);
        else if (qn_jparse_cur(p)->t == TOK_LPAREN) n = call(p, n);
        else break;
    }
    p->depth--;
    return n;
}

/* ---- operators, loosest last ---- */

static struct qn_jnode *power(struct qn_jparse *p) {
    uint32_t line = qn_jparse_cur(p)->line;
    struct qn_jnode *n = unary(p, 1);
    while (qn_jparse_skip(p, TOK_POW)) n = binary(p, N_BINARY, TOK_POW, n, unary(p, 1), line);
    return n;
}

static struct qn_jnode *product(struct qn_jparse *p) {
    uint32_t line = qn_jparse_cur(p)->line;
    struct qn_jnode *n = power(p);
    for (int t; t = qn_jparse_cur(p)->t, t == TOK_MUL || t == TOK_DIV || t == TOK_FLOORDIV || t == TOK_MOD;) {
        qn_jparse_next(p);
        n = binary(p, N_BINARY, t, n, power(p), line);
    }
    return n;
}

static struct qn_jnode *concat(struct qn_jparse *p) {
    struct qn_jnode *n = product(p);
    if (qn_jparse_cur(p)->t != TOK_TILDE) return n;
    struct qn_jnode *all = qn_jparse_node(p, N_CONCAT, n->line);
    qn_jparse_push(p, &all->list, n);
    while (qn_jparse_skip(p, TOK_TILDE)) qn_jparse_push(p, &all->list, product(p));
    return all;
}

static struct qn_jnode *sum(struct qn_jparse *p) {
    uint32_t line = qn_jparse_cur(p)->line;
    struct qn_jnode *n = concat(p);
    for (int t; t = qn_jparse_cur(p)->t, t == TOK_ADD || t == TOK_SUB;) {
        qn_jparse_next(p);
        n = binary(p, N_BINARY, t, n, concat(p), line);
    }
    return n;
}

static int compare_op(struct qn_jparse *p) {
    int t = qn_jparse_cur(p)->t;
    if (t >= TOK_EQ && t <= TOK_GE) return qn_jparse_next(p), t;
    if (qn_jparse_skip_name(p, "in")) return OP_IN;
    struct qn_jtoken *k = &p->tok[p->at + (t != TOK_EOF)];
    if (qn_jparse_is(p, "not") && k->t == TOK_NAME && k->n == 2 && !memcmp(k->p, "in", 2)) {
        p->at += 2;
        return OP_NOTIN;
    }
    return 0;
}

/* list: operands after the first, each with its operator in `op`. */
static struct qn_jnode *compare(struct qn_jparse *p) {
    struct qn_jnode *n = sum(p);
    struct qn_jnode *all = NULL;
    for (int op; (op = compare_op(p));) {
        if (!all) {
            all = qn_jparse_node(p, N_COMPARE, n->line);
            all->a = n;
        }
        qn_jparse_push(p, &all->list, binary(p, N_COMPARE, op, sum(p), NULL, n->line));
    }
    return all ? all : n;
}

static struct qn_jnode *not_expr(struct qn_jparse *p) {
    if (!qn_jparse_is(p, "not")) return compare(p);
    enter(p);
    struct qn_jnode *n = qn_jparse_node(p, N_NOT, qn_jparse_next(p)->line);
    n->a = not_expr(p);
    p->depth--;
    return n;
}

static struct qn_jnode *and_expr(struct qn_jparse *p) {
    struct qn_jnode *n = not_expr(p);
    while (qn_jparse_skip_name(p, "and")) n = binary(p, N_AND, 0, n, not_expr(p), n->line);
    return n;
}

static struct qn_jnode *or_expr(struct qn_jparse *p) {
    struct qn_jnode *n = and_expr(p);
    while (qn_jparse_skip_name(p, "or")) n = binary(p, N_OR, 0, n, and_expr(p), n->line);
    return n;
}

static struct qn_jnode *condexpr(struct qn_jparse *p) {
    enter(p);
    struct qn_jnode *n = or_expr(p);
    while (qn_jparse_skip_name(p, "if")) {
        struct qn_jnode *c = qn_jparse_node(p, N_COND, n->line);
        c->b = n;
        c->a = or_expr(p);
        if (qn_jparse_skip_name(p, "else")) c->c = condexpr(p);
        n = c;
    }
    p->depth--;
    return n;
}

struct qn_jnode *qn_jparse_expr(struct qn_jparse *p) { return condexpr(p); }

static int tuple_ends(struct qn_jparse *p, int how) {
    int t = qn_jparse_cur(p)->t;
    return t == TOK_VAR_END || t == TOK_BLOCK_END || t == TOK_RPAREN || ((how & PT_END_IN) && qn_jparse_is(p, "in")) ||
           ((how & PT_END_RECURSIVE) && qn_jparse_is(p, "recursive"));
}

struct qn_jnode *qn_jparse_tuple(struct qn_jparse *p, int how) {
    uint32_t line = qn_jparse_cur(p)->line;
    struct qn_jnode *n = qn_jparse_node(p, N_TUPLE, line);
    int is_tuple = 0;
    enter(p);
    for (;;) {
        if (n->list.n) qn_jparse_expect(p, TOK_COMMA);
        if (tuple_ends(p, how)) break;
        struct qn_jnode *one = how & PT_SIMPLE ? primary(p, how & PT_NS) : how & PT_NO_COND ? or_expr(p) : condexpr(p);
        qn_jparse_push(p, &n->list, one);
        if (qn_jparse_cur(p)->t != TOK_COMMA) break;
        is_tuple = 1;
    }
    p->depth--;
    if (is_tuple) return n;
    if (n->list.n) return n->list.v[0];
    if (!(how & PT_PAREN)) qn_jparse_fail(p, QN_E_DATA, line, "Expected an expression, got %s", qn_jparse_describe(p));
    return n;
}

static void check_target(struct qn_jparse *p, struct qn_jnode *n) {
    if (n->kind == N_TUPLE) {
        for (uint32_t i = 0; i < n->list.n; i++) check_target(p, n->list.v[i]); /* as deep as it was parsed */
    } else if (n->kind == N_CONST || (n->kind != N_NAME && n->kind != N_NSREF)) {
        qn_jparse_fail(p, QN_E_DATA, n->line, "can't assign to this");
    } else if (p->loops && n->kind == N_NAME && !strcmp(n->name, "loop")) {
        qn_jparse_fail(p, QN_E_DATA, n->line, "can't assign to the special name 'loop'");
    }
}

struct qn_jnode *qn_jparse_target(struct qn_jparse *p, int how) {
    struct qn_jnode *n = qn_jparse_tuple(p, how | PT_SIMPLE);
    check_target(p, n);
    return n;
}
