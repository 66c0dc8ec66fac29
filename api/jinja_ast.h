/* A compiled template: tokens, nodes, names (internal to api/jinja*.c).
 *
 * Nodes live in one arena. Names are interned at compile time, so that a render looks variables up by number. The
 * grammar is Jinja2 3.1's (its parser.py), lexing as with trim_blocks and lstrip_blocks. Syntax errors leave by longjmp
 * to qn_jinja_compile. */
#ifndef QN_JINJA_AST_H
#define QN_JINJA_AST_H

#include <setjmp.h>
#include <stdint.h>

#include "api/jinja_val.h"
#include "engine/base/arena.h"
#include "engine/base/err.h"

enum qn_jtok {
    TOK_EOF, TOK_DATA, TOK_BLOCK_BEGIN, TOK_BLOCK_END, TOK_VAR_BEGIN, TOK_VAR_END, TOK_NAME, TOK_STRING, TOK_INT, TOK_FLOAT,
    TOK_ADD, TOK_SUB, TOK_MUL, TOK_DIV, TOK_FLOORDIV, TOK_MOD, TOK_POW, TOK_TILDE, TOK_LBRACKET, TOK_RBRACKET, TOK_LPAREN,
    TOK_RPAREN, TOK_LBRACE, TOK_RBRACE, TOK_EQ, TOK_NE, TOK_LT, TOK_LE, TOK_GT, TOK_GE, TOK_ASSIGN, TOK_DOT, TOK_COLON,
    TOK_PIPE, TOK_COMMA, TOK_SEMICOLON
};

struct qn_jtoken {
    uint8_t t;
    uint32_t line, n;
    const char *p;  /* NAME, STRING (unescaped), DATA */
    int64_t i;
    double f;
};

enum qn_jkind {
    /* expressions */
    N_CONST, N_STR, N_NAME, N_LIST, N_TUPLE, N_DICT, N_COND, N_OR, N_AND, N_NOT, N_COMPARE, N_BINARY, N_CONCAT, N_NEG, N_POS,
    N_ATTR, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_NSREF,
    /* statements */
    N_DATA, N_PRINT, N_IF, N_FOR, N_SET, N_SETBLOCK, N_MACRO, N_CALLBLOCK, N_FILTERBLOCK, N_WITH, N_SCOPE, N_BREAK, N_CONTINUE
};

struct qn_jnode;
struct qn_jnodes { struct qn_jnode **v; uint32_t n; };

struct qn_jargs {
    struct qn_jnodes pos;
    struct { const char *name; int id; struct qn_jnode *v; } *kw;
    uint32_t n_kw;
    struct qn_jnode *star, *starstar;
};

struct qn_jnode {
    uint8_t kind, op;           /* op: token of the operator, or the constant's flags */
    uint16_t flags;
    uint32_t line;
    int32_t id;                 /* name number; filter or test number */
    const char *name;           /* NUL-terminated */
    struct qn_jnode *a, *b, *c; /* operands; FOR: target, iter, test; IF: test */
    struct qn_jnodes list, body, other; /* FOR: body, else; IF: body, branches(list), else(other) */
    struct qn_jargs *args;
    struct qn_jv value;         /* CONST; STR and DATA point to str */
    struct qn_jstr *str;
};
enum { NF_RECURSIVE = 1, NF_CALLER = 2, NF_KWARGS = 4, NF_VARARGS = 8, NF_ELSE = 16 };
enum { OP_IN = 100, OP_NOTIN = 101 };

struct qn_jname { const char *p; uint32_t n; uint8_t loaded; };

struct qn_jinja {
    struct qn_arena mem;
    struct qn_jnodes body;
    struct qn_jname *names;
    int n_names, cap_names;
    int id_loop, id_caller, id_kwargs, id_varargs;
    uint64_t key[2];            /* of the hash tables of renders */
};

struct qn_jparse {
    struct qn_jinja *t;
    const char *src;            /* newlines normalised, the last one dropped */
    size_t n;
    struct qn_jtoken *tok;
    uint32_t n_tok, cap_tok, at;
    int depth, loops;
    struct qn_err *err;
    int rc;
    jmp_buf out_of;
};

enum { QN_J_TEXT_MAX = 1 << 20, QN_J_PARSE_DEPTH_MAX = 120 };

__attribute__((noreturn, format(printf, 4, 5))) void qn_jparse_fail(struct qn_jparse *p, int code, uint32_t line, const char *fmt,
                                                                    ...);
void *qn_jparse_alloc(struct qn_jparse *p, size_t n);
void qn_jparse_lex(struct qn_jparse *p);                        /* fills p->tok */
void qn_jparse_template(struct qn_jparse *p);                   /* fills t->body */
int qn_jparse_name(struct qn_jparse *p, const char *s, size_t n); /* interns */

/* Shared by the statement and the expression parser. */
struct qn_jnode *qn_jparse_node(struct qn_jparse *p, int kind, uint32_t line);
void qn_jparse_push(struct qn_jparse *p, struct qn_jnodes *l, struct qn_jnode *n);
static inline struct qn_jtoken *qn_jparse_cur(struct qn_jparse *p) { return &p->tok[p->at]; }
struct qn_jtoken *qn_jparse_next(struct qn_jparse *p);
int qn_jparse_is(struct qn_jparse *p, const char *name);        /* current token is this name */
int qn_jparse_skip(struct qn_jparse *p, int tok);
int qn_jparse_skip_name(struct qn_jparse *p, const char *name);
struct qn_jtoken *qn_jparse_expect(struct qn_jparse *p, int tok);
void qn_jparse_expect_name(struct qn_jparse *p, const char *name);
const char *qn_jparse_describe(struct qn_jparse *p);

enum { PT_NO_COND = 1, PT_SIMPLE = 2, PT_PAREN = 4, PT_NS = 8, PT_END_IN = 16, PT_END_RECURSIVE = 32 };
struct qn_jnode *qn_jparse_expr(struct qn_jparse *p);
struct qn_jnode *qn_jparse_tuple(struct qn_jparse *p, int how);
struct qn_jnode *qn_jparse_target(struct qn_jparse *p, int how);
struct qn_jnode *qn_jparse_filters(struct qn_jparse *p, struct qn_jnode *on, int inline_first);

#endif
