/* Continuous batching: who runs, who waits, who yields. Pure: clock, counts and jobs in, a plan out.
 *
 * A GROUP is one request: a prompt and n branches that share its prefill and its blocks (copy on write). A SEQ is one
 * branch. Branches that slots or blocks cannot hold at once run in waves. One step has a budget of rows: running decodes
 * first, then prefill chunks, all in one mixed batch. Order by class (0 is the highest), then earliest deadline, then fair
 * share between tenants (virtual token counters, VTC, OSDI 2024), then arrival. When blocks run out the lowest class
 * yields, latest deadline and youngest first, by dropping its blocks (recompute); and a higher class that waits takes the
 * place of a lower one. A seq that may not run (its reader is slow) keeps its blocks, but past a second yields to anyone.
 * The queue is bounded in requests and tokens.
 *
 *        admit            plan: blocks found          all prompt rows computed
 *   ─────────> WAITING ──────────────────> PREFILL ───────────────────────> DECODE ──> finished by the engine
 *                 ^                            │ preempted                      │
 *                 └────────────────────────────┴────────────────────────────────┘
 *
 * Thread: engine, except qn_group_new/free before admit (any). No allocation after qn_group_new. */
#ifndef QN_SCHED_H
#define QN_SCHED_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/err.h"
#include "engine/kvcache.h"

enum { QN_CLASSES = 4, QN_BRANCHES_MAX = 128, QN_SCHED_BLOCK_MIN = 8 };

enum qn_seq_state { QN_SEQ_WAITING, QN_SEQ_PREFILL, QN_SEQ_DECODE, QN_SEQ_DONE };

struct qn_group;

struct qn_seq { /* read by the engine; written by sched.c only, but for `user` */
    struct qn_group *group;
    int branch;
    enum qn_seq_state state;
    int32_t *tokens;        /* prompt then output; room for n_prompt + max_tokens; the last may be a stand-in (append_late) */
    int n_tokens;
    int n_computed;         /* leading tokens whose KV is written */
    int32_t *blocks;
    int n_blocks;
    int n_ahead;            /* sched.c's: drafted tokens after n_tokens whose rows this step computed */
    int n_published;        /* sched.c's: leading blocks that the cache knows */
    int in_wave;            /* sched.c's: holds a slot */
    int may_run;            /* sched.c's: what cfg.may_run said in this plan */
    void *user;             /* the engine's stream of this branch */
};

struct qn_group_spec {
    const int32_t *prompt;  /* copied */
    int n_prompt;           /* >= 1 */
    int max_tokens;         /* output bound of each branch, >= 0; n_prompt + max_tokens <= n_ctx */
    int n_branches;         /* 1..QN_BRANCHES_MAX */
    int priority_class;     /* 0..QN_CLASSES-1 */
    int64_t deadline_ns;    /* 0: none; past it the group is dropped wherever it is */
    uint64_t tenant;        /* fair share */
    uint64_t salt;          /* prefix cache isolation */
    int cache_prompt;       /* 0: neither look up nor publish */
    int score_prompt;       /* logits of every prompt row are wanted: no prefix hits, rows from position 0 */
    void *user;             /* the engine's request */
};

struct qn_group {
    struct qn_group_spec spec; /* spec.prompt points at own memory */
    struct qn_seq *seqs;       /* [n_branches]; branches 1.. come to life when the prompt is computed */
    int n_alive;               /* branches not DONE */
    int n_cached;              /* prompt tokens found in the prefix cache when its first rows were planned */
    int started;               /* 1 once rows of it have been planned */
    int n_preempted;
    int64_t arrived_ns, started_ns;
    /* The rest is sched.c's. */
    struct qn_group *next, *prev; /* the waiting list */
    uint64_t order;            /* arrival number */
    int running, forked;       /* holds slots; its branches have parted */
    int wave_max;              /* most branches at once: what slots and pool can hold */
    int n_wave;                /* slots held */
    int n_scored;              /* score_prompt: leading rows whose logits were given */
    int resumes;               /* was preempted and waits to go on */
    int fresh;                 /* tokens appended since it started last */
    int rank;                  /* class less what waiting has earned; QN_CLASSES: paused for long */
    int tenant;
    int64_t lack_ns, lacked_ns; /* without service since (-1: served); sum of earlier such times */
    int64_t paused_ns;         /* may_run says no since; -1: it may run */
};

/* Allocates a group with everything it will ever need. QN_E_NOMEM, QN_E_RANGE. Any thread. */
int qn_group_new(struct qn_group **out, const struct qn_group_spec *spec);
void qn_group_free(struct qn_group *g);

struct qn_sched_cfg {
    int step_rows_max;      /* budget of one step */
    int prefill_chunk_max;  /* most prefill rows of one step while somebody decodes; 0: step_rows_max */
    int row_ctx;            /* so many positions behind it make a prefill row cost twice what one at position 0 does: rows far
                             * into a prompt count as several of that chunk; 0: all rows count alike */
    int seqs_max;           /* most sequences running at once */
    int waiting_max;        /* groups that may wait */
    int64_t waiting_tokens_max;
    int64_t wait_ns_max;    /* a group that has not started by then is dropped; 0: no limit */
    int n_ctx;
    int block_tokens;
    int reserved_seqs[QN_CLASSES];   /* slots kept for a class and those above it */
    int reserved_blocks[QN_CLASSES]; /* blocks that lower classes leave free for it */
    int64_t age_ns;         /* each time a group has lacked service for so long it counts one class higher, at last above
                             * all deadlines: nobody starves; 0: 30 s; < 0: never */
    /* Speculation: writes up to `most` guesses of what follows the seq's tokens to out and returns how many; their rows are
     * computed in the same step behind the seq's own. NULL: none. Asked for seqs in DECODE only. */
    int (*draft)(const struct qn_seq *seq, int32_t *out, int most);
    /* How many tokens are certain to follow (draft will give them): they are computed in this step like rows of a prompt, and need
     * logits behind the last only if *logits is set. NULL: none. */
    int (*certain)(const struct qn_seq *seq, int *logits);
    int draft_rows_max;     /* decode rows and drafts of one step together */
    /* May this seq run now? (its output buffer has room). NULL: always. */
    int (*may_run)(const struct qn_seq *seq);
};

enum qn_drop_reason { QN_DROP_DEADLINE, QN_DROP_WAIT, QN_DROP_NO_BLOCKS /* can never fit */ };

struct qn_plan_item {       /* rows [start, start + n_rows) of the seq's tokens are computed in this step */
    struct qn_seq *seq;
    int start, n_rows;
    int logits;             /* how many of the last rows need logits: 0, 1, or n_rows (score_prompt, drafts that may be wrong) */
    int n_draft;            /* rows behind the seq's last token: guesses, written to its tokens past n_tokens */
    int sample;             /* 1: after computed() the last row's logits give the next token: of `seq`, or, with `fork`, of
                             * every branch with qn_sched_first(branch). 0 when max_tokens is 0: the state DECODE of a seq
                             * then tells that its prompt is done */
    int fork;               /* 1: the last row ends the prompt that several branches share */
};

struct qn_plan_copy {
    int32_t from, to;
    int n_tokens;
};

struct qn_plan_drop {
    struct qn_group *group; /* no longer known to the scheduler; the engine owns it again */
    enum qn_drop_reason reason;
};

struct qn_plan {            /* valid until the next plan() */
    int n_items, n_rows;
    const struct qn_plan_item *items; /* decodes first */
    int n_copies;
    const struct qn_plan_copy *copies; /* to be done before the step, in order */
    int n_drops;
    const struct qn_plan_drop *drops;
    int n_started;
    struct qn_group *const *started;  /* rows of theirs are planned for the first time */
    int n_preempted;
    int64_t wake_ns;        /* with no items: when to plan again without an event (a deadline); 0: only on an event */
};

struct qn_sched_counts {
    int waiting, running;   /* groups waiting; sequences that hold a slot */
    int prompts;            /* groups that hold a slot and whose prompt is under way */
    int64_t waiting_tokens;
    uint64_t preemptions, rejected, dropped;
    uint64_t joins;         /* times a prefill let another one compute a prefix of both */
};

struct qn_sched;

/* seqs_max < step_rows_max and block_tokens >= QN_SCHED_BLOCK_MIN, else QN_E_RANGE. */
int qn_sched_open(struct qn_sched **out, const struct qn_sched_cfg *cfg, struct qn_kvcache *kv);
void qn_sched_close(struct qn_sched *s);

/* Takes `g` on success; on error the caller still owns it. QN_E_FULL: waiting_max or waiting_tokens_max is met.
 * QN_E_TOO_LONG: it could never fit. */
int qn_sched_admit(struct qn_sched *s, struct qn_group *g, int64_t now_ns);
/* From the next plan on: cfg.prefill_chunk_max becomes `rows` (1..step_rows_max). */
void qn_sched_set_chunk(struct qn_sched *s, int rows);
/* The next plan takes no prefill rows if somebody decodes (it may then be empty though there is work: plan again). */
void qn_sched_hold_prefill(struct qn_sched *s);
/* Plans a step. Blocks for every row are allocated. A plan with items is either carried out and given to computed(), or
 * the groups of all its items are removed; finish, append and remove come after that, not between. */
const struct qn_plan *qn_sched_plan(struct qn_sched *s, int64_t now_ns);
/* The planned rows were computed: publishes full blocks, and when a prompt is complete turns its group's branches into
 * DECODE (forking them over shared blocks). */
void qn_sched_computed(struct qn_sched *s, const struct qn_plan *p);
/* 1: this branch is in DECODE with its prompt computed and nothing sampled yet. After computed() of an item with `fork`
 * these are the branches to sample from its last row. (Branches that found no slot yet are not among them: they come with
 * a later item. After a preemption some may have tokens already.) */
int qn_sched_first(const struct qn_seq *q);
/* Adds a sampled token to a seq in DECODE whose rows are all computed. If it is the next drafted one, its row counts as
 * computed and the token after it may be appended too, and so on; any other token ends the drafts of this step. */
void qn_sched_append(struct qn_sched *s, struct qn_seq *q, int32_t token);
/* As append(), for a token that the device has drawn and the host has not read: `stand_in` (< 0) is planned like any other
 * token, and the next append() to this seq puts the token in its place, which must come before the next append_late(). Blocks
 * that hold a stand-in are not published, and nothing is guessed behind it. The last token that max_tokens allows needs
 * none, as its row is never computed. Meanwhile the seq may be preempted, finished, removed. */
void qn_sched_append_late(struct qn_seq *q, int32_t stand_in);
/* 1: the seq's last token is a stand-in. */
static inline int qn_sched_is_late(const struct qn_seq *q) { return q->tokens[q->n_tokens - 1] < 0; }
/* Ends one branch: its blocks go back (full ones stay cached). Returns 1 when it was the group's last: the group is then
 * out of the scheduler and the engine's to free. */
int qn_sched_finish(struct qn_sched *s, struct qn_seq *q);
/* Takes the whole group out, wherever it is. The engine frees it. */
void qn_sched_remove(struct qn_sched *s, struct qn_group *g);
/* Tests: preempts one group that has gained a token since it started last, another one each time. Not between plan() and
 * computed(). Returns 1 when somebody was preempted. */
int qn_sched_preempt_one(struct qn_sched *s);
void qn_sched_counts(const struct qn_sched *s, struct qn_sched_counts *out);
/* NULL, or what is broken (tests). */
const char *qn_sched_audit(const struct qn_sched *s);

#endif
