/* Beam search (use_beam_search) for one prompt: the likeliest answers, found without chance. Thread: loop. */
#ifndef QN_BEAM_H
#define QN_BEAM_H

#include "api/gen.h"

enum { QN_BEAMS_MAX = 10 };

/* After the form of the answer was read: beam search is honoured alone, so what it would ignore is a 400. QN_E_RANGE with x->refusal. */
int qn_beam_check(struct qn_exchange *x);
/* Begins the search of a request that asks for one; ends in the whole answer, or in a refusal. QN_E_*, err filled. */
int qn_beam_start(struct qn_exchange *x, struct qn_err *err);
void qn_beam_stop(struct qn_exchange *x); /* closes its streams */
void qn_beam_free(struct qn_exchange *x);

#endif
