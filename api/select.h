/* Which of several answers to one prompt are shown: best_of, and the quern object's samples. A prompt's branches share its
 * prefill; choices of a request are all branches, and `shown` of them go out. Thread: loop. */
#ifndef QN_SELECT_H
#define QN_SELECT_H

#include "api/gen.h"

/* After the form of the answer was read: what `select` needs is there. QN_E_RANGE with x->refusal. */
int qn_select_check(struct qn_exchange *x);
/* A branch has finished: what does it say? QN_E_NOMEM. */
int qn_select_finished(struct qn_exchange *x, struct qn_choice *c);
/* 1: what is still running cannot change what is shown. */
int qn_select_over(const struct qn_exchange *x);
/* Fills g->shown. */
void qn_select_pick(struct qn_exchange *x);
/* ,"quern":{…} of an answer that was selected by `samples`; nothing otherwise. */
void qn_select_write(const struct qn_exchange *x, struct qn_buf *out);

#endif
