/* Tokens to statements, and the compile entry.
 *
 * Statements are Jinja2's without those that reach other templates (include, import, from, extends, block): they are
 * refused by name. Loop controls and transformers' generation block are known. A compiled template is read-only. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "engine/base/hash.h"
#include "engine/base/rng.h"
#include "engine/base/utf8.h"

enum { COMPILE_BYTES_MAX = 128 << 20 };

void qn_jparse_fail(struct qn_jparse *p, int code, uint32_t line, const char *fmt, ...) {
    char text[QN_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    text[qn_utf8_whole(text, strlen(text))] = 0;
    qn_fail(p->err, code, "chat template, line %u: %s", line, text);
    p->rc = code;
    longjmp(p->out_of, 1);
}

void *qn_jparse_alloc(struct qn_jparse *p, size_t n) {
    void *v = qn_arena_alloc(&p->t->mem, n ? n : 1);
    if (!v) qn_jparse_fail(p, QN_E_NOMEM, 0, "no memory");
    return v;
}

int qn_jparse_name(struct qn_jparse *p, const char *s, size_t n) {
    struct qn_jinja *t = p->t;
    for (int i = 0; i < t->n_names; i++)
        if (t->names[i].n == n && !memcmp(t->names[i].p, s, n)) return i;
    if (t->n_names == 1024) qn_jparse_fail(p, QN_E_LIMIT, qn_jparse_cur(p)->line, "more than 1024 names");
    if (t->n_names == t->cap_names) {
        int cap = t->cap_names ? t->cap_names * 2 : 64;
        struct qn_jname *v = qn_jparse_alloc(p, (size_t)cap * sizeof *v);
        if (t->n_names) memcpy(v, t->names, (size_t)t->n_names * sizeof *v);
        t->names = v;
        t->cap_names = cap;
    }
    char *copy = qn_jparse_alloc(p, n + 1);
    memcpy(copy, s, n);
    t->names[t->n_names] = (struct qn_jname){copy, (uint32_t)n, 0};
    return t->n_names++;
}

struct qn_jnode *qn_jparse_node(struct qn_jparse *p, int kind, uint32_t line) {
    struct qn_jnode *n = qn_jparse_alloc(p, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

void qn_jparse_push(struct qn_jparse *p, struct qn_jnodes *l, struct qn_jnode *n) {
    if ((l->n & (l->n - 1)) == 0) { /* 0 and powers of two: full */
        struct qn_jnode **v = qn_jparse_alloc(p, (l->n ? (size_t)l->n * 2 : 1) * sizeof *v);
        if (l->n) memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
    }
    l->v[l->n++] = n;
}

struct qn_jtoken *qn_jparse_next(struct qn_jparse *p) {
    struct qn_jtoken *k = &p->tok[p->at];
    if (k->t != TOK_EOF) p->at++;
    return k;
}

int qn_jparse_is(struct qn_jparse *p, const char *name) {
    struct qn_jtoken *k = qn_jparse_cur(p);
    return k->t == TOK_NAME && strlen(name) == k->n && !memcmp(k->p, name, k->n);
}

int qn_jparse_skip(struct qn_jparse *p, int tok) {
    if (qn_jparse_cur(p)->t != tok) return 0;
    qn_jparse_next(p);
    return 1;
}

int qn_jparse_skip_name(struct qn_jparse *p, const char *name) {
    if (!qn_jparse_is(p, name)) return 0;
    qn_jparse_next(p);
    return 1;
}

static const char *tok_name(int t) {
/* clang-format off */
    static const char *const names[] = {
        "end of template", "text", "begin of statement block", "end of statement block", "begin of print statement",
        "end of print statement", "name", "string", "integer", "float", "'+'", "'-'", "'*'", "'/'", "'//'", "'%'", "'**'",
        "'~'",
        "'['", "']'", "'('", "')'", "'{'", "'}'", "'=='", "'!='", "'<'", "'<='", "'>'", "'>='", "'='", "'.'", "':'", "'|'",
        "','", "';'",
    };
/* clang-format on */
    return names[t];
}

const char *qn_jparse_describe(struct qn_jparse *p) {
    struct qn_jtoken *k = qn_jparse_cur(p);
    if (k->t != TOK_NAME) return tok_name(k->t);
    size_t n = k->n < 40 ? k->n : 40;
    char *s = qn_jparse_alloc(p, n + 3);
    snprintf(s, n + 3, "'%.*s'", (int)n, k->p);
    return s;
}

struct qn_jtoken *qn_jparse_expect(struct qn_jparse *p, int tok) {
    struct qn_jtoken *k = qn_jparse_cur(p);
    if (k->t != tok) qn_jparse_fail(p, QN_E_DATA, k->line, "expected %s, got %s", tok_name(tok), qn_jparse_describe(p));
    return qn_jparse_next(p);
}

void qn_jparse_expect_name(struct qn_jparse *p, const char *name) {
    if (!qn_jparse_skip_name(p, name))
        qn_jparse_fail(p, QN_E_DATA, qn_jparse_cur(p)->line, "expected '%s', got %s", name, qn_jparse_describe(p));
}

/* ---- statements ---- */

static struct qn_jnode *statement(struct qn_jparse *p);

static int ends_here(struct qn_jparse *p, const char *const *ends) {
    for (; *ends; ends++)
        if (qn_jparse_is(p, *ends)) return 1;
    return 0;
}

/* Statements up to one of `ends` (NULL: the end of the template), whose name is left as the current token. */
static struct qn_jnodes statements(struct qn_jparse *p, const char *const *ends) {
    struct qn_jnodes body = {0};
    while (qn_jparse_cur(p)->t != TOK_EOF) {
        struct qn_jtoken *k = qn_jparse_next(p);
        struct qn_jnode *n;
        switch (k->t) {
        case TOK_DATA:
            n = qn_jparse_node(p, N_DATA, k->line);
            n->str = qn_jparse_alloc(p, sizeof *n->str);
            *n->str = (struct qn_jstr){.p = k->p, .n = k->n, .trust = TRUST_ALL};
            qn_jparse_push(p, &body, n);
            break;
        case TOK_VAR_BEGIN:
            n = qn_jparse_node(p, N_PRINT, k->line);
            n->a = qn_jparse_tuple(p, 0);
            qn_jparse_expect(p, TOK_VAR_END);
            qn_jparse_push(p, &body, n);
            break;
        default:
            if (ends && ends_here(p, ends)) return body;
            n = statement(p);
            qn_jparse_push(p, &body, n);
            qn_jparse_expect(p, TOK_BLOCK_END);
        }
    }
    if (ends) qn_jparse_fail(p, QN_E_DATA, qn_jparse_cur(p)->line, "unexpected end of template, looking for '%s'", *ends);
    return body;
}

/* The rest of an opening tag, then the body. */
static struct qn_jnodes block(struct qn_jparse *p, const char *const *ends) {
    qn_jparse_skip(p, TOK_COLON);
    qn_jparse_expect(p, TOK_BLOCK_END);
    if (++p->depth > QN_J_PARSE_DEPTH_MAX) qn_jparse_fail(p, QN_E_LIMIT, qn_jparse_cur(p)->line, "it nests too deeply");
    struct qn_jnodes body = statements(p, ends);
    p->depth--;
    return body;
}

static struct qn_jnodes whole_block(struct qn_jparse *p, const char *end) {
    const char *ends[] = {end, NULL};
    struct qn_jnodes body = block(p, ends);
    qn_jparse_next(p);
    return body;
}

/* A body that is a function of its own: no break or continue reaches out of it. */
static struct qn_jnodes function_block(struct qn_jparse *p, const char *end) {
    int loops = p->loops;
    p->loops = 0;
    struct qn_jnodes body = whole_block(p, end);
    p->loops = loops;
    return body;
}

static struct qn_jnode *parse_if(struct qn_jparse *p, struct qn_jnode *n) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    n->a = qn_jparse_tuple(p, PT_NO_COND);
    n->body = block(p, ends);
    while (qn_jparse_is(p, "elif")) {
        struct qn_jnode *e = qn_jparse_node(p, N_IF, qn_jparse_next(p)->line);
        e->a = qn_jparse_tuple(p, PT_NO_COND);
        e->body = block(p, ends);
        qn_jparse_push(p, &n->list, e);
    }
    if (qn_jparse_skip_name(p, "else")) n->other = whole_block(p, "endif");
    else qn_jparse_expect_name(p, "endif");
    return n;
}

static struct qn_jnode *parse_for(struct qn_jparse *p, struct qn_jnode *n) {
    static const char *const ends[] = {"endfor", "else", NULL};
    p->loops++;
    n->a = qn_jparse_target(p, PT_END_IN);
    p->loops--;
    qn_jparse_expect_name(p, "in");
    n->b = qn_jparse_tuple(p, PT_NO_COND | PT_END_RECURSIVE);
    if (qn_jparse_skip_name(p, "if")) n->c = qn_jparse_expr(p);
    if (qn_jparse_skip_name(p, "recursive")) n->flags |= NF_RECURSIVE;
    p->loops++;
    n->body = block(p, ends);
    p->loops--;
    if (qn_jparse_skip_name(p, "else")) {
        n->flags |= NF_ELSE;
        n->other = whole_block(p, "endfor");
    } else {
        qn_jparse_next(p);
    }
    return n;
}

static struct qn_jnode *parse_set(struct qn_jparse *p, struct qn_jnode *n) {
    n->a = qn_jparse_target(p, PT_NS);
    if (qn_jparse_skip(p, TOK_ASSIGN)) {
        n->b = qn_jparse_tuple(p, 0);
        return n;
    }
    n->kind = N_SETBLOCK;
    n->b = qn_jparse_filters(p, NULL, 0);
    n->body = function_block(p, "endset");
    return n;
}

/* (a, b=1): names in list, defaults (or NULL) as their node's b. */
static void signature(struct qn_jparse *p, struct qn_jnode *n) {
    int defaults = 0;
    qn_jparse_expect(p, TOK_LPAREN);
    while (qn_jparse_cur(p)->t != TOK_RPAREN) {
        if (n->list.n) qn_jparse_expect(p, TOK_COMMA);
        struct qn_jtoken *k = qn_jparse_expect(p, TOK_NAME);
        struct qn_jnode *arg = qn_jparse_node(p, N_NAME, k->line);
        arg->id = qn_jparse_name(p, k->p, k->n);
        arg->name = p->t->names[arg->id].p;
        for (uint32_t i = 0; i < n->list.n; i++)
            if (n->list.v[i]->id == arg->id) qn_jparse_fail(p, QN_E_DATA, k->line, "argument '%s' repeated", arg->name);
        if (qn_jparse_skip(p, TOK_ASSIGN)) {
            arg->b = qn_jparse_expr(p);
            defaults = 1;
        } else if (defaults) {
            qn_jparse_fail(p, QN_E_DATA, k->line, "non-default argument follows default argument");
        }
        qn_jparse_push(p, &n->list, arg);
    }
    qn_jparse_next(p);
}

/* Which of the hidden arguments the body reads: tokens between from and to tell, nested macros included (harmless). */
static void hidden_arguments(struct qn_jparse *p, struct qn_jnode *n, uint32_t from) {
    static const struct {
        const char *name;
        uint16_t flag;
    } hidden[] = {{"caller", NF_CALLER}, {"kwargs", NF_KWARGS}, {"varargs", NF_VARARGS}};
    for (uint32_t i = from; i < p->at; i++) {
        const struct qn_jtoken *k = &p->tok[i];
        if (k->t != TOK_NAME || (i && p->tok[i - 1].t == TOK_DOT)) continue;
        for (size_t h = 0; h < 3; h++)
            if (k->n == strlen(hidden[h].name) && !memcmp(k->p, hidden[h].name, k->n)) n->flags |= hidden[h].flag;
    }
    for (uint32_t i = 0; i < n->list.n; i++)
        for (size_t h = 0; h < 3; h++)
            if (!strcmp(n->list.v[i]->name, hidden[h].name)) n->flags &= (uint16_t)~hidden[h].flag;
}

static struct qn_jnode *parse_macro(struct qn_jparse *p, struct qn_jnode *n) {
    struct qn_jtoken *k = qn_jparse_expect(p, TOK_NAME);
    n->id = qn_jparse_name(p, k->p, k->n);
    n->name = p->t->names[n->id].p;
    signature(p, n);
    uint32_t from = p->at;
    n->body = function_block(p, "endmacro");
    hidden_arguments(p, n, from);
    return n;
}

/* The macro that caller() runs is in c. */
static struct qn_jnode *parse_call(struct qn_jparse *p, struct qn_jnode *n) {
    n->c = qn_jparse_node(p, N_MACRO, n->line);
    n->c->name = "caller";
    if (qn_jparse_cur(p)->t == TOK_LPAREN) signature(p, n->c);
    n->a = qn_jparse_expr(p);
    if (n->a->kind != N_CALL) qn_jparse_fail(p, QN_E_DATA, n->line, "expected call");
    uint32_t from = p->at;
    n->c->body = function_block(p, "endcall");
    hidden_arguments(p, n->c, from);
    return n;
}

static struct qn_jnode *parse_filter(struct qn_jparse *p, struct qn_jnode *n) {
    n->b = qn_jparse_filters(p, NULL, 1);
    n->body = function_block(p, "endfilter");
    return n;
}

static struct qn_jnode *parse_with(struct qn_jparse *p, struct qn_jnode *n) {
    while (qn_jparse_cur(p)->t != TOK_BLOCK_END) {
        if (n->list.n) qn_jparse_expect(p, TOK_COMMA);
        struct qn_jnode *set = qn_jparse_node(p, N_SET, n->line);
        set->a = qn_jparse_target(p, 0);
        qn_jparse_expect(p, TOK_ASSIGN);
        set->b = qn_jparse_expr(p);
        qn_jparse_push(p, &n->list, set);
    }
    n->body = whole_block(p, "endwith");
    return n;
}

static struct qn_jnode *parse_generation(struct qn_jparse *p, struct qn_jnode *n) {
    n->body = function_block(p, "endgeneration");
    return n;
}

static struct qn_jnode *parse_autoescape(struct qn_jparse *p, struct qn_jnode *n) {
    struct qn_jnode *on = qn_jparse_expr(p);
    if (on->kind != N_CONST || on->value.t != J_BOOL || on->value.b)
        qn_jparse_fail(p, QN_E_UNSUPPORTED, n->line, "'autoescape' other than false");
    n->body = whole_block(p, "endautoescape");
    return n;
}

static struct qn_jnode *parse_print(struct qn_jparse *p, struct qn_jnode *n) {
    while (qn_jparse_cur(p)->t != TOK_BLOCK_END) {
        if (n->body.n) qn_jparse_expect(p, TOK_COMMA);
        struct qn_jnode *one = qn_jparse_node(p, N_PRINT, n->line);
        one->a = qn_jparse_expr(p);
        qn_jparse_push(p, &n->body, one);
    }
    return n;
}

static struct qn_jnode *parse_control(struct qn_jparse *p, struct qn_jnode *n) {
    if (!p->loops) qn_jparse_fail(p, QN_E_DATA, n->line, "'%s' outside a loop", n->kind == N_BREAK ? "break" : "continue");
    return n;
}

static struct qn_jnode *statement(struct qn_jparse *p) {
    static const struct {
        const char *name;
        struct qn_jnode *(*parse)(struct qn_jparse *, struct qn_jnode *);
        int kind;
    } all[] = {
/* clang-format off */
        {"if", parse_if, N_IF}, {"set", parse_set, N_SET}, {"for", parse_for, N_FOR}, {"macro", parse_macro, N_MACRO},
        {"break", parse_control, N_BREAK}, {"continue", parse_control, N_CONTINUE}, {"generation", parse_generation, N_SCOPE},
        {"call", parse_call, N_CALLBLOCK}, {"filter", parse_filter, N_FILTERBLOCK}, {"with", parse_with, N_WITH},
        {"print", parse_print, N_SCOPE}, {"autoescape", parse_autoescape, N_SCOPE},
        {"include", NULL, 0}, {"import", NULL, 0}, {"from", NULL, 0}, {"extends", NULL, 0}, {"block", NULL, 0},
    };
/* clang-format on */
    struct qn_jtoken *k = qn_jparse_cur(p);
    if (k->t != TOK_NAME) qn_jparse_fail(p, QN_E_DATA, k->line, "tag name expected");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!qn_jparse_is(p, all[i].name)) continue;
        if (!all[i].parse) qn_jparse_fail(p, QN_E_UNSUPPORTED, k->line, "'%s' is not supported in a chat template", all[i].name);
        qn_jparse_next(p);
        return all[i].parse(p, qn_jparse_node(p, all[i].kind, k->line));
    }
    qn_jparse_fail(p, QN_E_DATA, k->line, "Encountered unknown tag %s", qn_jparse_describe(p));
}

void qn_jparse_template(struct qn_jparse *p) { p->t->body = statements(p, NULL); }

/* ---- the entry ---- */

static const char *normalised(struct qn_jparse *p, const char *s, size_t n) {
    char *to = qn_jparse_alloc(p, n + 1);
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r' && i + 1 < n && s[i + 1] == '\n') continue;
        to[o++] = s[i] == '\r' ? '\n' : s[i];
    }
    if (o && to[o - 1] == '\n') o--;
    to[o] = 0;
    p->n = o;
    return to;
}

static void compile(struct qn_jparse *p, const char *text, size_t n) {
    struct qn_jinja *t = p->t;
    if (n > QN_J_TEXT_MAX) qn_jparse_fail(p, QN_E_LIMIT, 0, "longer than %d bytes", QN_J_TEXT_MAX);
    if (!qn_utf8_valid(text, n)) qn_jparse_fail(p, QN_E_DATA, 0, "not valid UTF-8");
    p->src = normalised(p, text, n);
    qn_jparse_lex(p);
    t->id_loop = qn_jparse_name(p, "loop", 4);
    t->id_caller = qn_jparse_name(p, "caller", 6);
    t->id_kwargs = qn_jparse_name(p, "kwargs", 6);
    t->id_varargs = qn_jparse_name(p, "varargs", 7);
    qn_jparse_template(p);
}

int qn_jinja_compile(struct qn_jinja **out, const char *text, size_t n, struct qn_err *err) {
    struct qn_jinja *t = calloc(1, sizeof *t);
    if (!t) return qn_fail(err, QN_E_NOMEM, "chat template: no memory");
    qn_arena_init(&t->mem, COMPILE_BYTES_MAX);
    qn_rng_bytes(t->key, sizeof t->key);
    struct qn_jparse *p = qn_arena_alloc(&t->mem, sizeof *p); /* lives as long as what it makes; survives the jump */
    int rc = QN_E_NOMEM;
    if (p) {
        p->t = t;
        p->err = err;
        if (!setjmp(p->out_of)) compile(p, text, n);
        rc = p->rc;
    }
    if (rc < 0) qn_jinja_free(t);
    else *out = t;
    return rc;
}

void qn_jinja_free(struct qn_jinja *t) {
    if (!t) return;
    qn_arena_done(&t->mem);
    free(t);
}

int qn_jinja_mentions(const struct qn_jinja *t, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < t->n_names; i++)
        if (t->names[i].loaded && t->names[i].n == n && !memcmp(t->names[i].p, name, n)) return 1;
    return 0;
}
