/* A grammar being built: a directed graph of expressions over bytes, rules that may recurse, and special tokens.
 *
 * All front ends (JSON Schema in api/, regular expressions, GBNF, Lark, choices, formats of tool calls) build with these
 * few operations, and constraint.h runs what they built. Expressions are interned: equal ones have one handle, so a
 * graph that shares its tails stays small. Matching takes derivatives (Brzozowski 1964; Owens, Reppy and Turon 2009),
 * which is why intersection and complement cost nothing extra; they take expressions of bytes only, no rules, no tokens.
 * A repeat keeps its bounds as numbers: {0,1000000} is one node.
 *
 * Errors stick: after the first failure every operation returns QN_G_NONE and qn_grammar_error tells why; so a front end
 * may build on and ask once. Thread: one owner at a time. */
#ifndef QN_GRAMMAR_H
#define QN_GRAMMAR_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/err.h"

typedef uint32_t qn_gnode;

enum { QN_G_NONE = 0 /* matches nothing */, QN_G_EMPTY = 1 /* the empty string */ };
#define QN_G_INF UINT32_MAX

struct qn_grammar;

struct qn_grammar_limits { /* 0: the default */
    size_t bytes_max;      /* memory of this grammar and of what running it interns; default 64 MiB */
    int64_t compile_ns;    /* of one thread's own time, from qn_grammar_new to the end of qn_constraint_new; default 250 ms */
};

struct qn_codes {          /* code points from..to, both included */
    uint32_t from, to;
};

int qn_grammar_new(struct qn_grammar **out, const struct qn_grammar_limits *limits);
void qn_grammar_free(struct qn_grammar *g);
/* 0, or QN_E_LIMIT (memory or time), QN_E_NOMEM, QN_E_UNSUPPORTED (a rule or a token inside and/not). */
int qn_grammar_error(const struct qn_grammar *g);
/* Front ends call it in their loops: QN_E_LIMIT once the time is up. */
int qn_grammar_tick(struct qn_grammar *g);

qn_gnode qn_g_byte_set(struct qn_grammar *g, const uint64_t set[4]); /* one byte of the set; 0xFF is never in it */
qn_gnode qn_g_bytes(struct qn_grammar *g, const char *p, size_t n);  /* exactly these bytes */
/* One character of the ranges (any order, may overlap), as UTF-8; surrogates are left out. */
qn_gnode qn_g_chars(struct qn_grammar *g, const struct qn_codes *ranges, size_t n);
qn_gnode qn_g_any_char(struct qn_grammar *g);                        /* any character, newline too */
qn_gnode qn_g_text(struct qn_grammar *g);                            /* any text: any_char* */
qn_gnode qn_g_cat(struct qn_grammar *g, qn_gnode a, qn_gnode b);
qn_gnode qn_g_cat_n(struct qn_grammar *g, const qn_gnode *v, size_t n); /* long sequences: one by one costs the square of their length */
qn_gnode qn_g_alt(struct qn_grammar *g, qn_gnode a, qn_gnode b);
qn_gnode qn_g_alt_n(struct qn_grammar *g, const qn_gnode *v, size_t n); /* quicker than one by one; n 0: NONE */
qn_gnode qn_g_repeat(struct qn_grammar *g, qn_gnode a, uint32_t min, uint32_t max); /* max QN_G_INF: no bound */
qn_gnode qn_g_and(struct qn_grammar *g, qn_gnode a, qn_gnode b);     /* bytes only */
/* Every string of bytes that `a` does not match, broken UTF-8 too: meet it with qn_g_text. Bytes only. */
qn_gnode qn_g_not(struct qn_grammar *g, qn_gnode a);
/* A rule: first its reference, then its body once (which may refer to it, also on the left). */
qn_gnode qn_g_rule(struct qn_grammar *g);
void qn_g_rule_set(struct qn_grammar *g, qn_gnode rule, qn_gnode body);
/* Exactly this vocabulary entry, whatever its spelling: for control tokens, which no bytes match. */
qn_gnode qn_g_token(struct qn_grammar *g, uint32_t id);

/* 1 when the empty string is in it; bytes only. */
int qn_g_nullable(const struct qn_grammar *g, qn_gnode a);
/* 1 when no string at all is in it. 0: some is, or the search (with and/not it is one) gave up. -1: it holds rules or tokens. */
int qn_g_is_empty(struct qn_grammar *g, qn_gnode a);

/* Front ends for text. Each returns a node, or QN_G_NONE with err filled: QN_E_DATA (syntax: what and where),
 * QN_E_UNSUPPORTED (a construct that we do not have: named), QN_E_LIMIT. */

/* A regular expression in the common subset of ECMA-262, PCRE and Rust: groups (also named and (?:)), classes, \d \w \s \p{..},
 * lazy marks (no meaning here), (?i) (?s), bounded repeats. `search` 0: the whole text must match (anchors at the ends are no
 * matter); 1: JSON Schema's `pattern`, found anywhere unless anchored. No look-around, no back references.
 * `code`, when given, makes the node of one set of characters instead of qn_g_chars: JSON Schema escapes what lies in a string. */
struct qn_regex_opts {
    int search;
    int ignore_case;
    qn_gnode (*code)(void *user, struct qn_grammar *g, const struct qn_codes *ranges, size_t n);
    void *user;
};
qn_gnode qn_g_regex(struct qn_grammar *g, const char *p, size_t n, const struct qn_regex_opts *o, struct qn_err *err);
/* llama.cpp's GBNF; the start rule is `root`. */
qn_gnode qn_g_gbnf(struct qn_grammar *g, const char *p, size_t n, struct qn_err *err);
/* Lark's grammar files: rules, terminals, templates no, %ignore, %import common.X, ranges, flags, ?rule and !rule; start rule `start`. */
qn_gnode qn_g_lark(struct qn_grammar *g, const char *p, size_t n, struct qn_err *err);

#endif
