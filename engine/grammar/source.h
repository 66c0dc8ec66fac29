/* What readers of grammar files share (gbnf.c, lark.c): a place in a text that knows its line, names with their rules, and
 * messages that say where. Thread: its owner's. */
#ifndef QN_GRAMMAR_SOURCE_H
#define QN_GRAMMAR_SOURCE_H

#include "engine/grammar/grammar.h"

enum { QN_SOURCE_BYTES_MAX = 1 << 18, QN_SOURCE_DEPTH_MAX = 100, QN_SOURCE_COUNT_MAX = 1000000000, QN_NAME_SHOWN = 64 };

struct qn_source {
    struct qn_grammar *g;
    const char *what; /* "GBNF": begins messages */
    const char *p;
    size_t n, at;
    int line, depth, rc;
    struct qn_err *err;
};

/* Refuses what is too long, or no UTF-8. */
int qn_source_open(struct qn_source *s, struct qn_grammar *g, const char *what, const char *p, size_t n, struct qn_err *err);
/* The first failure fills err: "GBNF, line 3: …". Returns s->rc. */
__attribute__((format(printf, 3, 4))) int qn_source_fail(struct qn_source *s, int code, const char *fmt, ...);
/* The byte `ahead` of the place, or -1. */
static inline int qn_source_peek(const struct qn_source *s, size_t ahead) {
    return s->at + ahead < s->n ? (unsigned char)s->p[s->at + ahead] : -1;
}
/* One byte on, counting lines. */
static inline void qn_source_step(struct qn_source *s) { s->line += s->p[s->at++] == '\n'; }
/* 1, and past it, when the text goes on with `word`. */
int qn_source_skip(struct qn_source *s, const char *word);
/* The character at the place, and past it. */
uint32_t qn_source_char(struct qn_source *s);
/* A decimal number, at most QN_SOURCE_COUNT_MAX. 0: none stands here. */
int qn_source_number(struct qn_source *s, uint32_t *out);
/* Exactly `digits` hexadecimal digits; fails otherwise. */
uint32_t qn_source_hex(struct qn_source *s, int digits);
/* What a letter after a backslash stands for in strings of both kinds (n r t f v b 0, x u U with digits); other letters fail,
 * what is no letter is itself. The place is behind the backslash. */
uint32_t qn_source_escape(struct qn_source *s);

struct qn_name {
    const char *p; /* in the text */
    size_t n;
    int line;      /* where it was first seen */
    int defined;
    qn_gnode rule;
};

struct qn_names {
    struct qn_name *v;
    uint32_t *slots; /* open addressing: index + 1 */
    size_t n, cap, n_slots;
};

/* The index of a name, new or known; -1 without memory (s fails). */
int qn_names_get(struct qn_names *t, struct qn_source *s, const char *p, size_t n, int line);
/* -1: not known. */
int qn_names_find(const struct qn_names *t, const char *p, size_t n);
void qn_names_done(struct qn_names *t);
/* For messages: at most QN_NAME_SHOWN bytes. */
#define QN_NAME_ARGS(n_, p_) ((n_) > QN_NAME_SHOWN ? QN_NAME_SHOWN : (int)(n_)), (p_)

#endif
