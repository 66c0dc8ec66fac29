/* A generating request from ids to answer: chat and completions alike; the two differ by a qn_shape.
 *
 * A request has PARTS (one for each prompt, each one job and stream of the engine) and CHOICES (n for each part). A whole
 * answer is gathered as news comes; a streamed one is pulled by qn_gen_read, which formats records straight into the
 * server's buffer (chunks.c). Thread: loop, but for qn_gen_new and what prepare fills. */
#ifndef QN_GEN_H
#define QN_GEN_H

#include "api/answer.h"
#include "api/exchange.h"
#include "api/logprobs.h"

struct qn_choice {
    struct qn_buf text; /* whole answers only */
    struct qn_answer *answer; /* NULL: the text is the answer */
    struct qn_lp lp;    /* the same; streamed: scratch of one record */
    size_t chars;       /* characters of text so far, for text_offset */
    int opened;         /* streamed: the role, or the echoed prompt, was sent */
    int finished, stop_index, n_seen, n_output;
    enum qn_finish reason;
    uint32_t stop_id;
    int64_t first_ns, last_ns;
    struct qn_buf ids;  /* return_token_ids: "1,2,3" */
    struct qn_buf canon; /* select.h: what it says; votes: 1 when it says something */
    int votes, fits, n_lp; /* fits: of the form that the request asks for */
    double sum_lp;
};

struct qn_part {
    struct qn_exchange *x;
    struct qn_stream *st; /* NULL: not submitted, or done with */
    struct qn_ids ids;
    struct qn_buf echo; /* completions with echo: the prompt's text */
    struct qn_lp prompt_lp;
    struct qn_buf prompt_list; /* prompt_logprobs */
    int max_tokens, started, n_cached, n_finished, has_ev;
    struct qn_event ev; /* streamed: read, but not written yet */
    int64_t submit_ns, start_ns;
};

struct qn_shape {
    int chat;
    const char *id_prefix, *object, *chunk_object, *prompt_member;
    /* A chunk's choice is  {"index":N  + what is sent +  ,"logprobs":…,"finish_reason":…}  */
    const char *text_open, *text_close, *first, *last;
    int64_t max_default; /* QN_ABSENT: to the context's end */
    /* The middle of a whole choice: after {"index":N and before ,"logprobs": */
    void (*whole)(const struct qn_choice *c, const struct qn_part *p, struct qn_buf *out);
};
extern const struct qn_shape qn_shape_chat, qn_shape_completions;

enum qn_gen_over { QN_GEN_RUNS, QN_GEN_DONE, QN_GEN_CUT };

struct qn_gen {
    const struct qn_shape *shape;
    struct qn_part *parts;
    struct qn_choice *choices;
    struct qn_beam *beam; /* use_beam_search: beam.h; parts have no streams then */
    int n_parts, n, n_choices, n_finished, next_part; /* n: branches of a part; choices are all branches */
    int n_shown, *shown; /* of each part; which choices, [n_parts * n_shown]; select.h */
    struct qn_ids prediction;
    struct qn_constraint *constraint; /* of every branch; NULL: none */
    char id[64];
    int64_t created_s, first_ns;
    int n_started, n_accepted, n_rejected, n_thinking;
    enum qn_gen_over over; /* nothing more will be made; streamed: the tail lies in carry */
    struct qn_buf head;    /* data: {"id":…,"choices":[{"index":  */
    struct qn_buf tail;    /* ,"logprobs":null,"finish_reason":null}]… of a plain text chunk, without usage */
    struct qn_buf carry;   /* bytes that did not fit into the reader's buffer */
    size_t carry_at;
    int want_ping;
    int64_t last_write_ns;
};

/* x->gen with room for n_parts prompts and their choices. */
int qn_gen_new(struct qn_exchange *x, const struct qn_shape *shape, size_t n_parts);
/* The ids are in place: output bounds against the context. */
int qn_gen_fit(struct qn_exchange *x);
void qn_gen_tick(struct qn_exchange *x, int64_t now_ns);
void qn_gen_stop(struct qn_exchange *x); /* closes every stream */
void qn_gen_free(struct qn_exchange *x);
long qn_gen_read(struct qn_exchange *x, char *to, size_t max);

/* Between gen.c and beam.c. */
void qn_gen_job(struct qn_exchange *x, struct qn_part *p, struct qn_job *out);
void qn_gen_whole(struct qn_exchange *x); /* all choices are finished: the answer */
void qn_gen_refuse(struct qn_exchange *x, int code, const struct qn_err *err);
/* Between gen.c and chunks.c. */
int qn_gen_next(struct qn_part *p, struct qn_event *ev); /* qn_stream_next, with the figures noted */
void qn_gen_finished(struct qn_part *p, const struct qn_event *ev);
/* The choice is finished and its answer complete: is it of the form that was asked for? QN_E_INTERNAL with x->refusal when it is not. */
int qn_gen_check(struct qn_exchange *x, const struct qn_choice *c);
/* Why the engine could not go on, where the request has a part in it: fills x->refusal. */
void qn_gen_explain(struct qn_exchange *x, int code);
void qn_gen_part_over(struct qn_part *p); /* closes its stream when all its choices are finished */
void qn_gen_usage(const struct qn_gen *g, struct qn_buf *out);
/* "finish_reason":"stop","stop_reason":… of a finished choice. */
void qn_gen_reason(const struct qn_exchange *x, const struct qn_choice *c, struct qn_buf *out);
int qn_gen_chunks_open(struct qn_exchange *x); /* renders head and tail */

#endif
