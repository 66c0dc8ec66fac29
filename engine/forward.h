/* The transformer as equations over backend.h. Owns the backend's weights and scratch for one model.
 * Thread: engine. */
#ifndef QN_FORWARD_H
#define QN_FORWARD_H

#include "engine/backend.h"
#include "engine/model.h"

struct qn_forward;

/* Loads every weight of m into b. m and b must outlive it. */
int qn_forward_open(struct qn_forward **out, const struct qn_model *m, struct qn_backend *b, struct qn_err *err);
void qn_forward_close(struct qn_forward *f);

/* Runs the layers over the batch (KV is written, hidden states stay in scratch). Between this and the next step,
 * qn_forward_logits may be called any number of times for rows among the batch's out_row. */
void qn_forward_step(struct qn_forward *f, const struct qn_batch *batch);

/* [n, n_vocab] f32, valid until the next call; rows are row numbers of the last step; n <= out_max. */
const float *qn_forward_logits(struct qn_forward *f, const int32_t *rows, int n);

/* As logits, and the picks drawn where the logits are. Only if the backend has `sample`; see there. */
const float *qn_forward_sample(struct qn_forward *f, const int32_t *rows, int n, int n_vocab, struct qn_backend_pick *picks, int n_picks);
/* The first half of that (backend.h, draw_late); n 0: no rows. */
int qn_forward_draw_late(struct qn_forward *f, const int32_t *rows, int n, int n_vocab, struct qn_backend_pick *picks, int n_picks);

#endif
