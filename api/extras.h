/* What vLLM's clients may ask to be told beside an answer: token ids of prompt and answer, and the prompt's log-probabilities; and the
 * cutting of a prompt. Thread: loop, but for qn_extras_cut (as prepare). */
#ifndef QN_EXTRAS_H
#define QN_EXTRAS_H

#include "api/gen.h"

/* truncate_prompt_tokens: fewer ids, and the echo of those. */
void qn_extras_cut(struct qn_exchange *x, struct qn_part *p);
/* Notes a prompt's token of a whole answer, an answer's token of any. */
void qn_extras_prompt(const struct qn_exchange *x, struct qn_part *p, const struct qn_event *ev);
void qn_extras_token(const struct qn_exchange *x, struct qn_choice *c, const struct qn_event *ev);
/* Members of a whole choice, and of the whole answer. */
void qn_extras_choice(const struct qn_exchange *x, const struct qn_part *p, const struct qn_choice *c, struct qn_buf *out);
void qn_extras_whole(const struct qn_exchange *x, struct qn_buf *out);
/* Of a chunk's choice: the tokens since the chunk before; and of a first chunk, which it also closes: ...}] */
void qn_extras_delta(const struct qn_exchange *x, struct qn_choice *c, struct qn_buf *out);
void qn_extras_first(const struct qn_exchange *x, const struct qn_part *p, struct qn_buf *out);

#endif
