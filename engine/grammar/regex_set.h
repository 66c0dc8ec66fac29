/* Sets of characters for the front ends that read classes: ranges that are added in any order, then ordered and merged.
 *
 * The named sets are ECMA-262's: \d and \w are ASCII, \s is its WhiteSpace and LineTerminator; \p{..} knows the general
 * categories of engine/unicode.h. Thread: its owner's. */
#ifndef QN_REGEX_SET_H
#define QN_REGEX_SET_H

#include "engine/grammar/grammar.h"

enum { QN_RUNE_MAX = 0x10FFFF };

struct qn_set {
    struct qn_codes *v; /* owned */
    size_t n, cap;
    int failed; /* QN_E_NOMEM: later calls do nothing */
};

void qn_set_done(struct qn_set *s);
void qn_set_add(struct qn_set *s, uint32_t from, uint32_t to);
/* Ordered, none overlapping or touching. */
void qn_set_tidy(struct qn_set *s);
/* All other characters. Tidies. */
void qn_set_invert(struct qn_set *s);
/* Adds what differs from a member by case only (simple folding). Tidies. */
void qn_set_fold(struct qn_set *s);
/* What d, D, w, W, s, S mean after a backslash; 0 for another letter. */
int qn_set_add_escape(struct qn_set *s, char letter);
/* A Unicode property by name: a general category, short or long, also "gc=Lu"; Any, ASCII, White_Space. 0: not known. */
int qn_set_add_property(struct qn_set *s, const char *name, size_t n, int inverted);
/* POSIX names as in [:alpha:], ASCII. 0: not known. */
int qn_set_add_posix(struct qn_set *s, const char *name, size_t n, int inverted);

#endif
