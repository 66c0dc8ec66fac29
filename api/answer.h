/* A choice of a chat answer that is more than plain text: thinking, tool calls, frames of marks. It takes the model's text as it
 * comes and yields the message's parts, as chunks' deltas or as the whole message.
 *
 * A choice without any of that has no answer (NULL) and costs nothing. Thread: loop, but for _open. */
#ifndef QN_ANSWER_H
#define QN_ANSWER_H

#include "api/calls.h"
#include "engine/engine.h"

struct qn_exchange;
struct qn_answer;

/* One for a choice of x, or *out NULL: its text is its content. After the prompt was made. QN_E_NOMEM. */
int qn_answer_open(struct qn_answer **out, const struct qn_exchange *x);
void qn_answer_begin(struct qn_answer *a, uint64_t seed); /* of its calls' ids */
void qn_answer_close(struct qn_answer *a);
/* More text. `end`: no more will come; NULL otherwise. */
int qn_answer_feed(struct qn_answer *a, const char *text, size_t n, const enum qn_finish *end);
/* Streamed: writes the next delta's members, `"content":"…"`, to out. 0: none now. */
int qn_answer_delta(struct qn_answer *a, struct qn_buf *out);
/* Whole: takes what has come, then writes the message's members from "content" on. */
void qn_answer_gather(struct qn_answer *a);
void qn_answer_message(const struct qn_answer *a, struct qn_buf *out);
/* "tool_calls" or "function_call" when the answer ends with calls, else NULL. `end`: why it ended. */
const char *qn_answer_reason(const struct qn_answer *a, enum qn_finish end);
/* The content alone; QN_E_NOMEM when something of it was lost. */
int qn_answer_content(const struct qn_answer *a, const char **text, size_t *n);

#endif
