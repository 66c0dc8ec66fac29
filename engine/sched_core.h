/* What sched.c (groups come and go) and sched_plan.c (one step's plan) share. Nobody else includes this. */
#ifndef QN_SCHED_CORE_H
#define QN_SCHED_CORE_H

#include "engine/sched.h"
#include "engine/vtc.h"

struct qn_sched {
    struct qn_sched_cfg cfg;
    struct qn_kvcache *kv;
    struct qn_vtc *vtc;
    int slots_kept[QN_CLASSES];  /* slots and blocks that a class must leave to those above it */
    int blocks_kept[QN_CLASSES];

    struct qn_group *first, *last; /* waiting, in no particular order */
    int n_waiting;
    int64_t waiting_tokens;
    struct qn_group **run;       /* [seqs_max] running, sorted by each plan: the last yields first */
    int n_run, n_slots;

    struct qn_plan plan;
    struct qn_plan_item *items, *prefills; /* [seqs_max] */
    struct qn_plan_copy *copies;           /* [seqs_max] */
    struct qn_plan_drop *drops;            /* [waiting_max + seqs_max] */
    struct qn_group **started;             /* [seqs_max] */

    int64_t now_ns;              /* of the last plan */
    int64_t expires_ns;          /* nothing expires before this; INT64_MAX: nothing at all */
    int hold_prefill;            /* for the next plan */
    int rows_left, draft_left;   /* of this plan, for prefill and for guesses */
    int64_t cost_left;           /* the same for prefill in row_ctx-ths of a row at position 0 */
    uint64_t stuck_order;        /* the group that found too few blocks last, and how many nobody had a claim to */
    int stuck_room;
    uint64_t n_orders, preemptions, rejected, dropped, joins;
    unsigned preempt_turn;
    int32_t *seen;               /* audit: references counted for each block */
};

/* Tokens of the prompt's shared computation: all of a lone branch, else the prompt. */
int qn_sched_target(const struct qn_group *g);
/* The branch that computes it: the first of the wave. */
struct qn_seq *qn_sched_leader(const struct qn_group *g);
int qn_sched_blocks(const struct qn_sched *s, int n_tokens); /* to hold so many */
/* Puts run[i] back into the waiting list without its blocks. */
void qn_sched_yield(struct qn_sched *s, int i);
void qn_sched_unwait(struct qn_sched *s, struct qn_group *g);

#endif
