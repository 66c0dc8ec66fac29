/* States of a running grammar: interned sets of items, what is still to come on each way of reading the text so far.
 *
 * An item (node, ret): `node` comes, then one of the continuations of the return set `ret`, each an item again. Return sets are
 * interned by what they hold and not by where the call was made, so this is Earley's method (1970) on a graph-structured stack whose
 * equal parts are one (Scott and Johnstone 2010), and texts with the same future have one number, at any depth. Left recursion makes a return set that
 * holds itself; one that says no more than another it holds is that one, so ambiguous grammars stay finite too. A call in tail position takes its
 * caller's return set along (after Leo 1991): right recursion needs no stack. Rules that match the empty string need no
 * special care, as derivatives step over them. No vocabulary here. Owner: one at a time. */
#ifndef QN_GRAMMAR_STATES_H
#define QN_GRAMMAR_STATES_H

#include "engine/grammar/node.h"

enum {
    QN_S_DEAD = 0,
    QN_R_ROOT = 0,            /* the return set of the whole: after it the text is over */
    QN_S_ITEMS_MAX = 4096,    /* of a state, while it is made; calls likewise */
};

struct qn_item {
    qn_gnode node;
    uint32_t ret;
};

struct qn_return {
    const struct qn_item *item;      /* [n] ascending by ret, no ret twice */
    uint32_t n, hash;
    uint32_t base, size;             /* those that hold each other are numbers base .. base + size */
};

struct qn_state {
    const struct qn_item *item;      /* likewise */
    uint32_t n, hash;
    const struct qn_classes *classes;/* NULL: not asked for yet */
    uint32_t *to;                    /* row by class, QN_G_UNKNOWN: not computed; NULL: no row. Lies in g->rows */
    uint32_t tokens;                 /* list of TOKEN nodes that may come, 0: not computed */
    uint32_t mask;                   /* mask.c */
    uint8_t accepts, run;            /* run, alike: plain.c */
    const struct qn_alike *alike;
};

struct qn_items { /* scratch */
    struct qn_item *v;
    uint32_t n, cap;
};

struct qn_call { /* of a rule: where it goes on */
    uint32_t rule;
    struct qn_item back;
};

struct qn_states {
    struct qn_grammar *g;            /* borrowed */
    struct qn_state **seg;
    uint32_t n, n_segs, segs_cap;
    struct qn_gtable table;
    struct qn_return *ret;           /* [n_rets] */
    uint32_t n_rets, rets_cap;
    struct qn_gtable ret_table;
    struct qn_items work, group, trial; /* the set being made; one being brought in order; and one compared */
    struct qn_gtable work_table;
    struct qn_call *call;            /* [n_calls] of the set being made */
    uint32_t n_calls, calls_cap, round;
};

enum { QN_S_SEGMENT = 256 };
static inline struct qn_state *qn_state_at(const struct qn_states *s, uint32_t i) { return &s->seg[i / QN_S_SEGMENT][i % QN_S_SEGMENT]; }

/* g is sealed; rule 0 is the outermost. Makes the DEAD state and the first, which it returns, or DEAD. */
uint32_t qn_states_init(struct qn_states *s, struct qn_grammar *g);
void qn_states_done(struct qn_states *s);
/* NULL on failure. */
const struct qn_classes *qn_states_classes(struct qn_states *s, uint32_t state);
/* The row of next states, some of them unknown; good until rows are dropped. NULL on failure. */
uint32_t *qn_states_row(struct qn_states *s, uint32_t state);
/* The next state by a byte of this class; DEAD also on failure. */
uint32_t qn_states_by_class(struct qn_states *s, uint32_t state, unsigned cls);
uint32_t qn_states_by_byte(struct qn_states *s, uint32_t state, unsigned b);
/* By a TOKEN node. */
uint32_t qn_states_by_token(struct qn_states *s, uint32_t state, qn_gnode token);
/* The list of TOKEN nodes that may come next; 0: failed. */
uint32_t qn_states_tokens(struct qn_states *s, uint32_t state);
/* The state whose texts are those of a and those of b. */
uint32_t qn_states_union(struct qn_states *s, uint32_t a, uint32_t b);
/* Forgets all rows and derivatives; states keep their numbers. */
void qn_states_drop_rows(struct qn_states *s);

/* returns.c, for states.c */
/* v sorted by ret, items of one ret joined by alternation, in place; `empty`: keep those with nothing to come. Returns how many. */
uint32_t qn_items_order(struct qn_grammar *g, struct qn_item *v, uint32_t n, int empty);
/* Makes the return sets of all rules that s->call names and leaves them in g->rules[].ret. */
int qn_returns_resolve(struct qn_states *s);
/* While a set is made, the return set of a rule called in it. */
#define QN_R_CALL 0x80000000u

#endif
