/* Reasoning before the answer: what a request says of it under every peer's spelling, and what the engine is told.
 *
 * On or off, a bound and its message, and our own quern.thinking{min_tokens, max_tokens, continue, hand_in}. Any thread. */
#ifndef QN_THINKING_H
#define QN_THINKING_H

#include "engine/engine.h"

struct qn_exchange;
struct qn_rendered;

struct qn_thought {
    int on;                     /* the model thinks */
    int opened;                 /* and the prompt ends inside it */
    int apart;                  /* what it thinks is told apart from the answer */
    int show;                   /* in the answer; 0: left out */
    int piecewise;              /* streamed as it comes; 0: in one piece when it is over */
    int wanted;                 /* what the request said: 1, 0, -1: nothing */
    int64_t min_tokens, max_tokens; /* -1: no bound */
    struct qn_ids more, hand_in;
};

/* Before the prompt is rendered: switches and bounds. QN_E_RANGE with x->refusal. */
int qn_thinking_read(struct qn_exchange *x);
/* After it: whether it has opened the thinking, and the ids of what may be forced. */
int qn_thinking_prompt(struct qn_exchange *x, const struct qn_rendered *text);
void qn_thinking_job(const struct qn_exchange *x, struct qn_job *job);
void qn_thinking_done(struct qn_thought *t);

#endif
