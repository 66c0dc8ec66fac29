/* The engine from outside: tokens in, tokens out. The only header of engine/ that api/ includes (with base/ and
 * tokenizer.h, sampler.h, which it brings along).
 *
 * submit() hands a job over; what comes back is a STREAM: a bounded buffer of records that the engine thread writes and
 * the consumer (one thread: the loop) reads when it likes. The engine never waits for a consumer: a stream without room
 * pauses its own request only, and goes on when there is room again. One `wake` call a step (from the engine thread)
 * tells the loop that some streams have news; qn_engine_poll then calls on_news of each of those, on the loop thread. */
#ifndef QN_ENGINE_H
#define QN_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/err.h"
#include "engine/grammar/constraint.h"
#include "engine/sampler.h"
#include "engine/tokenizer.h"

enum { QN_STOPS_MAX = 16, QN_STOP_REGEX_MAX = 4, QN_REPETITION_MAX = 256, QN_STOP_BYTES_MAX = 1024, QN_STREAM_BYTES = 64 * 1024, QN_SHOWN_MAX = 32 };

struct qn_engine;
struct qn_stream;

struct qn_engine_opts {     /* 0 or NULL: the default */
    const char *model_path;
    const char *device;     /* "cpu" (default), "cpu-ref", "auto", "cuda", "cuda:N", "cuda-emu"; device.h */
    const char *plugin_dir; /* tests: where plug-ins lie; see device.h */
    const char *isa;        /* see backend.h */
    int n_threads;          /* default: see backend.h */
    const char *cores;      /* see backend.h */
    int n_ctx;              /* default: the model's, at most 8192 */
    int max_seqs;           /* default 32 */
    int step_rows;          /* default 512 */
    int prefill_chunk;      /* most prefill rows of a step that also decodes; default 256 */
    double stretch;         /* such a step takes at most this many times a decoding one, if rows allow; default 1.5; < 0: no bound */
    int64_t kv_bytes;       /* default: see engine.c */
    const char *kv_type;    /* "auto" (default), "f16", "bf16", "q8_0"; backend.h */
    int waiting_max;        /* default 1024 requests */
    int64_t waiting_tokens_max; /* default 4 M */
    int64_t wait_ms_max;    /* default 0: no limit */
    int no_prefix_cache;
    int no_speculation;
    int draft_rows;         /* decode rows and drafts of one step; default 16 */
    int no_overlap;         /* tests: read what a step drew before the next is planned, also where it need not be */
    int preempt_every;      /* tests: preempt somebody every n-th step; 0: never */
    void (*wake)(void *user); /* engine thread; must only signal */
    void *wake_user;
};

/* Reasoning before the answer, and its budget. The engine counts the tokens between the opening and the closing text, whoever
 * wrote them, and steers with forced tokens; what is text of which part is the api's to say. */
struct qn_thinking {
    int on;                 /* 0: nothing below counts */
    int opened;             /* 1: the prompt ends inside the thinking already */
    const char *open, *close; /* spellings; a control token counts by its spelling */
    size_t n_open, n_close;
    int min_tokens;         /* a closing text before that many is replaced by `more`; 0: none */
    int max_tokens;         /* at that many `hand_in` is forced; -1: no bound */
    const uint32_t *more;   /* "Wait": ids; needed when min_tokens > 0 */
    size_t n_more;
    const uint32_t *hand_in; /* ids, the closing text included; needed when max_tokens >= 0 */
    size_t n_hand_in;
};

/* A branch ends when its last tokens are min_count times the same run of min_size..max_size tokens. */
struct qn_repetition {
    int min_size, max_size; /* 1..QN_REPETITION_MAX; max_size 0: off */
    int min_count;          /* 2..QN_REPETITION_MAX */
};

struct qn_job {             /* everything is copied by submit unless said */
    const uint32_t *prompt; /* n_prompt >= 1 ids < n_vocab */
    size_t n_prompt;
    struct qn_sampling sampling; /* its bias array is copied too */
    int n_branches;         /* 1..128; branch i draws with (seed, i) */
    int max_tokens;         /* output bound of each branch; 0: score the prompt only */
    int min_tokens;
    int ignore_eos;
    const char *stop[QN_STOPS_MAX];
    size_t stop_n[QN_STOPS_MAX]; /* bytes, 1..QN_STOP_BYTES_MAX */
    int n_stops;
    const uint32_t *stop_ids;
    int n_stop_ids;         /* <= QN_STOP_IDS_MAX */
    int keep_stop;          /* 1: the stop string, or the stop token's text, is part of the answer */
    struct qn_constraint *stop_regex[QN_STOP_REGEX_MAX]; /* without masks; made to search; a reference is taken. Text that a match ends
                             * is kept, what follows it is not */
    int n_stop_regex;
    struct qn_repetition repetition;
    int hide_special;       /* 1: control tokens yield no text (skip_special_tokens) */
    int n_logprobs;         /* -1: none; 0..20 */
    int prompt_logprobs;    /* -1: none; 0..20: one PROMPT record for each prompt token */
    int priority_class;
    int64_t deadline_ns;    /* qn_clock_ns; 0: none */
    uint64_t tenant, salt;
    int cache_prompt;       /* 1: use and feed the prefix cache */
    int speculate;          /* 1: guess ahead by looking the text up in itself (n_branches 1; never changes the answer) */
    struct qn_constraint *constraint; /* NULL: none; a reference is taken. From the first output token, thinking included */
    struct qn_thinking thinking; /* its texts and ids are copied */
    const uint32_t *shown;  /* control tokens that yield text in spite of hide_special (marks of calls and thinking) */
    size_t n_shown;         /* <= QN_SHOWN_MAX */
    const uint32_t *prediction; /* ids that the output is expected to resemble; feeds the guesses */
    size_t n_prediction;
    void (*on_news)(void *user, struct qn_stream *st); /* loop thread, from qn_engine_poll */
    void *user;
};

enum qn_event_kind {
    QN_EV_STARTED,          /* first planned: n_cached is known; nothing was computed yet */
    QN_EV_PROMPT,           /* one prompt token: id, lp (the first token has no lp: lp->rank is UINT32_MAX) */
    QN_EV_TOKEN,            /* one sampled token: id, text (whole characters that became certain; may be empty), lp */
    QN_EV_FINISHED,         /* a branch ended: reason, text (what was still held back) */
    QN_EV_FAILED,           /* the request ended with `code`; nothing follows */
};

enum qn_finish { QN_FINISH_STOP /* EOS or a stop id */, QN_FINISH_STOP_STRING, QN_FINISH_LENGTH, QN_FINISH_STOP_REGEX, QN_FINISH_REPETITION };

struct qn_event {           /* pointers are valid until the next call for the same stream */
    enum qn_event_kind kind;
    int branch;
    uint32_t id;            /* TOKEN, PROMPT; FINISHED by a stop id: that id */
    const char *text;       /* TOKEN, FINISHED: valid UTF-8, ends on a character border */
    size_t n_text;
    const struct qn_logprobs *lp; /* NULL: not asked for */
    enum qn_finish reason;
    int stop_index;         /* STOP_STRING: which of job.stop; STOP_REGEX: which of those; else -1 */
    int n_cached, n_prompt; /* STARTED */
    int n_output;           /* FINISHED: tokens sampled by this branch, the ending one included */
    int n_thinking;         /* FINISHED: tokens of the thinking, its marks included */
    int n_accepted, n_rejected; /* FINISHED: guessed tokens that came true; that did not */
    int code;               /* FAILED: QN_E_* (DEADLINE, FULL: waited too long, TOO_LONG, INTERNAL; LIMIT: the constraint ran out of memory or
                             * work; RANGE: bans, allowed ids and the constraint together leave no token) */
};

struct qn_engine_info {     /* constant after open */
    const char *model_name, *arch, *device, *device_note; /* note: what "auto" chose and why; else "" */
    uint32_t n_vocab;
    int n_ctx, n_ctx_train, n_layers, d_model, max_seqs, block_tokens, kv_blocks;
    uint64_t n_params, weight_bytes, kv_bytes; /* kv_bytes: of the whole pool, touched as it is used */
    const char *kv_type;
    struct qn_str chat_template; /* p NULL: none */
};

struct qn_engine_stats {    /* a consistent snapshot taken once a step */
    int running, waiting;
    int64_t waiting_tokens;
    int kv_total, kv_free, kv_held, kv_cached;
    uint64_t steps, prompt_tokens, cached_tokens, output_tokens, preemptions, rejected;
    uint64_t prefix_queries, prefix_hits; /* tokens */
    uint64_t certain_tokens; /* output that was not sampled: forced by a constraint or a thinking's budget */
    uint64_t spec_drafts, spec_draft_tokens, spec_accepted_tokens;
    uint64_t steps_overlapped; /* given to the device before what the step before drew was read */
    uint64_t finished_stop, finished_length, finished_abort, finished_error;
    int64_t last_step_ns;   /* when the last step ended; 0: none yet */
    int64_t busy_since_ns;  /* work has been waiting or running without a finished step since then; 0: idle */
    double step_ms_mean;    /* moving average */
    double prefill_tok_s, decode_tok_s; /* live rates, moving averages */
    int threads_active;     /* see struct qn_backend_load */
    int64_t stalled_ns;
    uint64_t rescues;
};

/* Opens the model, starts the engine thread. Returns once the model can answer (a warm-up token was made). */
int qn_engine_open(struct qn_engine **out, const struct qn_engine_opts *o, struct qn_err *err);
/* Stops the thread and frees everything. All streams must have been closed. */
void qn_engine_close(struct qn_engine *e);

const struct qn_engine_info *qn_engine_info(const struct qn_engine *e);
const struct qn_tokenizer *qn_engine_tokenizer(const struct qn_engine *e);
/* For constraints: made when first asked for, about 100 ms; any thread but the loop. NULL: no memory. */
const struct qn_token_trie *qn_engine_trie(struct qn_engine *e, struct qn_err *err);
void qn_engine_stats(const struct qn_engine *e, struct qn_engine_stats *out); /* any thread */
/* NULL, or what the device said when it failed for good: every request fails from then on, and the process should start
 * anew. Any thread; `wake` follows the step that found out. */
const char *qn_engine_lost(const struct qn_engine *e);

/* Loop thread. Checks everything (every id < n_vocab, ranges, context) and queues the job. On success *out is the
 * consumer's until qn_stream_close. QN_E_RANGE, QN_E_TOO_LONG, QN_E_FULL (queue bound), QN_E_CLOSED (draining), QN_E_NOMEM. */
int qn_engine_submit(struct qn_engine *e, const struct qn_job *job, struct qn_stream **out, struct qn_err *err);
/* Loop thread, after wake: calls on_news for every stream with news. */
void qn_engine_poll(struct qn_engine *e);
/* New jobs are refused from now on (QN_E_CLOSED); running ones go on. Any thread. */
void qn_engine_drain(struct qn_engine *e);

/* Loop thread. 1: *ev holds the next record. 0: nothing now. After a FINISHED of every branch or a FAILED: always 0. */
int qn_stream_next(struct qn_stream *st, struct qn_event *ev);
/* 1 when a record is waiting. */
int qn_stream_ready(const struct qn_stream *st);
/* Stops the request if it still runs (within one step) and gives the stream back. No on_news after this. */
void qn_stream_close(struct qn_stream *st);

#endif
