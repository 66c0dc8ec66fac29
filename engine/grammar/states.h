/* States of a running grammar: interned Earley sets (Earley 1970) whose items are derivatives and whose origins are states.
 *
 * An item (rule, origin, node): of a rule that was called in the set `origin`, `node` is still to come. Origins are numbers of
 * interned sets and not places in the text, so sets with the same future are one number at any place and depth. A call
 * in tail position hands its caller's origin on, so right recursion runs in one set (after Leo 1991).
 * Rules that match the empty string need no special care: derivatives step over them (after Aycock and Horspool 2002).
 * No vocabulary here. Owner: one at a time. */
#ifndef QN_GRAMMAR_STATES_H
#define QN_GRAMMAR_STATES_H

#include "engine/grammar/node.h"

enum {
    QN_S_DEAD = 0,            /* also the origin of the outermost rule */
    QN_S_ITEMS_MAX = 4096,
};

#define QN_S_SELF UINT32_MAX  /* origin: the set that the item is in */

struct qn_item {
    uint32_t rule, origin;
    qn_gnode node;
};

struct qn_state {
    const struct qn_item *item;      /* [n] ascending */
    uint32_t n, hash;
    const struct qn_classes *classes;/* NULL: not asked for yet */
    uint32_t *to;                    /* row by class, QN_G_UNKNOWN: not computed; NULL: no row. Lies in g->rows */
    uint32_t tokens;                 /* list of TOKEN nodes that may come, 0: not computed */
    uint32_t mask;                   /* mask.c */
    uint8_t accepts;
};

struct qn_states {
    struct qn_grammar *g;            /* borrowed */
    struct qn_state **seg;
    uint32_t n, n_segs, segs_cap;
    struct qn_gtable table;
    struct qn_item *work;            /* the set being made */
    uint32_t n_work, work_cap;
    struct qn_gtable work_table;
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

#endif
