/* The engine's inside, shared by engine.c (life, the loop's side), place.c (device and memory), step.c (the
 * engine thread's work), pipeline.c (steps that overlap) and stats.c.
 *
 * Who owns what: the loop thread owns the consumer's side of every stream; the engine thread owns model scratch, cache,
 * plan and the producer's side. They meet in four lists that any number of threads may push to and one takes whole
 * (submitted and closed streams down; news and dead streams up) and in the rings of the streams. */
#ifndef QN_ENGINE_IMPL_H
#define QN_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/device.h"
#include "engine/forward.h"
#include "engine/stream.h"

enum { QN_SAMPLERS_MAX = 64, QN_STATS_WORDS = (sizeof(struct qn_engine_stats) + 7) / 8 };

struct qn_pick {            /* one logits row to be sampled or scored; filled before the compute threads run */
    struct qn_stream *st;
    struct qn_seq *seq;
    int branch, logits_row; /* row of the logits call */
    int32_t score_id;       /* >= 0: score this prompt token instead of sampling */
    uint32_t position;
    int copy;               /* others sample from the same logits row */
    int follows;            /* a draft row behind another pick of the same seq */
    int32_t draft;          /* the guess that comes after this token, to be confirmed; -1: none */
    int32_t id;             /* out */
    int done;               /* it is made already */
    int replaced;           /* out: id stands where the sampled one would have ended a thinking too early */
    struct qn_logprobs lp;  /* out */
};

/* What steps cost, learnt while running (pace.c). A unit is one prefill row at position 0; a row at position p is
 * 1 + p / row_ctx of them. */
enum { QN_PACE_KEPT = 11 };
struct qn_pace_last { double v[QN_PACE_KEPT]; unsigned n; };
struct qn_pace {
    int row_ctx;
    struct qn_pace_last decodes, units;
    double decode_s;        /* median of the last steps that only decoded; 0: none yet */
    double unit_s;          /* median of what one unit added lately; 0: none yet */
    int decode_rows;        /* of the last step that only decoded */
    int n_mixed;            /* steps of decodes and prefill since then; -1: a step without prefill was asked for */
};

struct qn_step_cost {       /* what a step holds, for the figures */
    int64_t t0;
    int decode_rows, prefill_rows;
    double prefill_units;
};

/* A step that the device was given and whose draws the host has not read. */
struct qn_flight {
    int is_on, n_picks;
    struct qn_pick *picks;  /* [picks_max] */
    struct qn_backend_pick *drawn;
    struct qn_step_cost cost;
};
struct qn_lookout {         /* when requests may look for guesses, which they cannot while a step of theirs is under way */
    int asked;              /* the next plan may hold some */
    int rest;               /* steps to leave out, as nobody found any */
};

struct qn_engine {
    struct qn_engine_opts opts;
    struct qn_engine_info info;
    struct qn_model *model;
    struct qn_tokenizer *tok;
    struct qn_token_trie *trie; /* made on demand, under trie_lock */
    pthread_mutex_t trie_lock;
    struct qn_backend *backend;
    struct qn_forward *forward;
    struct qn_kvcache *kv;
    struct qn_sched *sched;
    enum qn_kv_type kv_type;
    char device_note[QN_DEVICE_NOTE_MAX];
    uint32_t *ends;         /* ids that end generation */
    int n_ends;

    pthread_t thread;
    int thread_runs;
    _Atomic uint32_t signal; /* futex: counts reasons to look around */
    _Atomic int asleep, stop, draining;
    _Atomic(const char *) lost; /* see qn_engine_lost */
    _Atomic(struct qn_stream *) submitted, closed, news, dead;
    _Atomic int64_t submitted_since; /* when the oldest submission that the engine has not seen was made; 0: none */
    _Atomic int pending;             /* requests that have not started */
    _Atomic int64_t pending_tokens;
    _Atomic int running;
    _Atomic uint64_t rejected;

    /* Engine thread. */
    int out_max, picks_max, n_samplers, n_waiting, told; /* told: some stream got news in this step */
    struct qn_sampler *samplers[QN_SAMPLERS_MAX];
    float *sampler_row[QN_SAMPLERS_MAX];
    uint32_t *sampler_mask[QN_SAMPLERS_MAX];
    _Atomic int sampler_busy[QN_SAMPLERS_MAX];
    int32_t *tokens, *positions, *out_rows;
    struct qn_batch_seq *batch_seqs;
    struct qn_pick *picks;
    struct qn_backend_pick *drawn; /* [picks_max]: the same as the backend sees them; NULL: it draws nothing */
    const float *logits;
    int overlaps;           /* pipeline.c is in use */
    struct qn_flight flight;
    struct qn_lookout lookout;
    struct qn_engine_stats now;
    struct qn_pace pace;
    _Atomic uint32_t stats_version;
    _Atomic uint64_t stats_words[QN_STATS_WORDS];
};

/* place.c */
extern const char *const qn_kv_names[QN_KV_TYPES];
/* Opens the backend and the forward pass on the device that was asked for, with a KV pool of the right size. */
int qn_engine_place(struct qn_engine *e, struct qn_err *err);
/* step.c */
void *qn_engine_thread(void *engine);
int qn_engine_step_open(struct qn_engine *e, struct qn_err *err); /* scratch, and the warm-up token */
void qn_engine_step_close(struct qn_engine *e);
/* What is to be drawn or scored from the logits of row k of an item, the logits_row-th row that has some; appended to e->picks. */
void qn_step_add_picks(struct qn_engine *e, const struct qn_plan_item *it, int k, int logits_row, int *n);
void qn_step_describe_picks(struct qn_engine *e, int n_picks); /* e->picks to e->drawn */
void qn_step_use_pick(struct qn_engine *e, const struct qn_pick *k);
/* pipeline.c */
int qn_pipeline_open(struct qn_engine *e, struct qn_err *err);
void qn_pipeline_close(struct qn_engine *e);
/* The step's rows were handed over. Its draws follow, if they may be read late: 1. Tells what the step before drew in any case. */
int qn_pipeline_step(struct qn_engine *e, const struct qn_plan *p, const struct qn_step_cost *c);
/* Waits for what is under way and tells it; 0: nothing was. */
int qn_pipeline_land(struct qn_engine *e);
/* The stream is about to go; nothing is told to it any more. */
void qn_pipeline_forget(struct qn_engine *e, const struct qn_stream *st);
/* pick.c */
/* Compute thread, with sampler s: draws for a branch that is guided. k->id < 0: nothing may come. */
void qn_pick_guided(struct qn_engine *e, struct qn_pick *k, int s, const float *row, const uint32_t *ban, uint32_t n_ban);
/* Engine thread, while a device computes the step: makes the masks that its draws will need. */
void qn_pick_prepare(struct qn_engine *e, const struct qn_plan *p);
/* Engine thread: the guide goes on by the token that was drawn and appended; 1: the answer is complete. */
int qn_pick_took(struct qn_engine *e, const struct qn_pick *k);
/* pace.c */
/* Positions after which attention costs a row of this model as much as its matrices. */
int qn_pace_row_ctx(const struct qn_model_desc *d);
void qn_pace_note(struct qn_pace *p, int decode_rows, double prefill_units, double seconds);
/* 1, once: what decoding takes was last seen long ago; a step of decodes only would tell. */
int qn_pace_stale(struct qn_pace *p);
/* Units of prefill that may join a step of running decodes so that it takes at most `stretch` times its usual time; with
 * n_waiting requests behind the one that is being prefilled, longer in proportion. At least 1. */
int qn_pace_chunk(const struct qn_pace *p, double stretch, int n_waiting, int most);
/* stats.c */
struct qn_step_cost qn_step_cost_of(const struct qn_engine *e, const struct qn_plan *p, int64_t t0);
void qn_step_count(struct qn_engine *e, const struct qn_step_cost *c, int64_t t1); /* it was over at t1 */
void qn_engine_note_load(struct qn_engine *e);
void qn_engine_publish(struct qn_engine *e);

#endif
