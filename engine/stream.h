/* One request's way back: records from the engine thread to its consumer, and the text that they carry.
 *
 * The engine thread turns sampled ids into bytes, holds back what may still become part of a stop string or of a
 * character, and writes records into a single-producer single-consumer ring; the consumer reads them through engine.h.
 * A failure travels beside the ring, so it always gets through. Internal to engine/. */
#ifndef QN_STREAM_H
#define QN_STREAM_H

#include <stdatomic.h>

#include "engine/base/ring.h"
#include "engine/draft.h"
#include "engine/engine.h"
#include "engine/guide.h"
#include "engine/sched.h"

struct qn_branch {          /* one sequence's text; engine thread */
    char *held;             /* bytes that are not certain yet */
    uint32_t n_held, cap;
    int n_output;
    int done;
    qn_cstate regex[QN_STOP_REGEX_MAX];
    float mu;               /* mirostat's state: learnt from picks, which a preemption does not take back */
    int chain;              /* 1: the draft row before this one came true, so the next row's pick counts */
    int n_drafted, n_accepted, n_accepted_before; /* guesses asked for; that came true; in earlier steps */
    int certain;            /* the drafts of this step were certain, no guesses */
    struct qn_guide guide;
    uint32_t *ahead;        /* [QN_CERTAIN_MOST] guided requests only: what the guide's constraint makes certain */
};

struct qn_guesser {         /* speculation of a request with one branch; engine thread */
    struct qn_draft *draft; /* NULL: off */
    int length;             /* guesses to ask for now */
    int rest;               /* steps to leave out after guesses that did not pay */
    int penalty;            /* how long the next rest is */
};

enum qn_stream_place { QN_ST_SUBMITTED, QN_ST_SCHEDULED, QN_ST_OUT };

struct qn_stream {
    struct qn_engine *engine;
    struct qn_job job;      /* its pointers are into `copies` */
    void *copies;           /* owned: stops, stop ids, ban list */
    void *sampling_lists;   /* owned: what job.sampling points at */
    uint32_t *ban;          /* ids that may not come before min_tokens */
    uint32_t n_ban;
    struct qn_group *group; /* owned; in the scheduler's hands while place is SCHEDULED */
    struct qn_branch *branches;
    struct qn_guide_plan steer;
    struct qn_guesser guess;
    struct qn_ring ring;
    uint32_t record_max;    /* bytes of the largest record of one branch and step */
    uint32_t stop_bytes_max;
    uint32_t step_bytes, score_bytes; /* ring bytes that one step may need: records of branches; of scored rows */

    enum qn_stream_place place;   /* engine thread */
    int n_scored;           /* PROMPT records written */
    int counted;            /* 1 while the engine counts it as pending */

    _Atomic int failed;     /* QN_E_*, set once by the engine thread */
    _Atomic int queued;     /* on the news list */
    _Atomic int paused;     /* the engine found no room; the consumer wakes it */

    int fail_told, n_finished, peeked; /* consumer */
    int closed;                /* consumer */
    struct qn_stream *next_submitted, *next_closed, *next_news, *next_dead;
};

/* Copies the job. ends/n_ends: ids that end generation, for min_tokens. has_room() will be asked for up to n_steps. Any thread.
 * QN_E_NOMEM, QN_E_RANGE. */
int qn_stream_new(struct qn_stream **out, struct qn_engine *e, const struct qn_job *job, const struct qn_tokenizer *tok,
                  const uint32_t *ends, int n_ends, int step_rows, int n_steps);
void qn_stream_free(struct qn_stream *st);

/* Engine thread. 1 when everything that so many steps may write for this request fits. Sets `paused` otherwise. */
int qn_stream_has_room(struct qn_stream *st, int n_steps);
void qn_stream_started(struct qn_stream *st, int n_cached);
void qn_stream_prompt(struct qn_stream *st, uint32_t id, const struct qn_logprobs *lp);
/* Records a sampled token and says whether it ends the branch: -1 no, or QN_FINISH_*; the FINISHED record is then
 * written too. lp may be NULL. */
int qn_stream_token(struct qn_stream *st, int branch, uint32_t id, const struct qn_logprobs *lp, const struct qn_tokenizer *tok);
/* Ends a branch that sampled nothing more (max_tokens 0; a constraint that is over). */
void qn_stream_finish(struct qn_stream *st, int branch, enum qn_finish reason);

/* Tokens that are certain to follow, at most QN_CERTAIN_STEP: how many, and they. */
int qn_stream_certain(const struct qn_stream *st, int branch);
int qn_stream_take_certain(struct qn_stream *st, int branch, int32_t *out, int most);

/* Guesses for branch 0 whose tokens are tokens[0..n): writes up to `most`, returns how many. */
int qn_stream_guess(struct qn_stream *st, const int32_t *tokens, size_t n, int32_t *out, int most);
/* 1: the next guess would look for something. 0: off, or at rest. */
int qn_stream_guesses(const struct qn_stream *st);
void qn_stream_rested(struct qn_stream *st); /* a step of its rest is over, in which no guess was asked for */
/* What became of them: how many to ask for next time, or a rest. */
void qn_stream_guessed(struct qn_stream *st, int n_drafted, int n_accepted);

/* Makes the engine thread look around again (engine.c). Any thread. */
void qn_engine_nudge(struct qn_engine *e);

#endif
