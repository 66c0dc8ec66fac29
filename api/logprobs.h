/* Log-probabilities in the two shapes of OpenAI: chat's list of objects, and the four parallel lists of completions. Built
 * up token by token; a list may begin with a prompt's. No thread of its own. */
#ifndef QN_LOGPROBS_H
#define QN_LOGPROBS_H

#include "engine/base/buf.h"
#include "engine/engine.h"

struct qn_lp {
    struct qn_buf tokens;                /* chat: the objects; completions: the strings */
    struct qn_buf values, tops, offsets; /* completions */
    size_t n;
    int as_ids;                          /* 1: tokens are called token_id:N, as vLLM has it */
};

void qn_lp_init(struct qn_lp *l);
void qn_lp_done(struct qn_lp *l);
void qn_lp_reset(struct qn_lp *l);
int qn_lp_failed(const struct qn_lp *l);
/* `offset`: characters of text before this token (completions). */
void qn_lp_add(struct qn_lp *l, const struct qn_tokenizer *tok, int chat, uint32_t id, const struct qn_logprobs *lp,
               size_t offset);
/* The object that stands after "logprobs":. before: a prompt's, or NULL. */
void qn_lp_write(const struct qn_lp *before, const struct qn_lp *l, int chat, struct qn_buf *out);
/* Characters that the token adds to a text (a character cut between tokens counts where it begins). */
size_t qn_lp_chars(const struct qn_tokenizer *tok, uint32_t id, int hide_special);

#endif
