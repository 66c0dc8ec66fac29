/* A step's descriptor as bytes: laid out once, filled from the batch each step, uploaded with one copy. Pure; no CUDA call.
 *
 *   head | head of the logits | token | pos | seq | out_row | items | block tables
 *
 * What varies most comes last, so that the copy ends where this step's sequences end. */
#ifndef QN_CUDA_CUDA_STEP_H
#define QN_CUDA_CUDA_STEP_H

#include <stddef.h>

#include "engine/backend.h"
#include "engine/cuda/attention.h"
#include "engine/cuda/step.h"

struct qn_cuda_layout {
    int rows_max, seqs_max, stride, items_max;  /* stride: blocks of the longest sequence */
    size_t out_head, token, pos, seq, out_row, items, blocks, bytes; /* where each part begins; all of it */
};

void qn_cuda_layout_init(struct qn_cuda_layout *l, int rows_max, int seqs_max, int n_ctx, int items_max);
/* The parts' addresses where a descriptor of this layout lies at `base`. `out` (may be NULL): the same with the logits' head. */
void qn_cuda_layout_step(const struct qn_cuda_layout *l, uint8_t *base, struct qn_cuda_step *step, struct qn_cuda_step *out);
/* Writes a descriptor to host memory: the batch, the rows in `out_row`, the plan of its attention. head_rows is the number of logits
 * that the second head speaks of. Returns the bytes to upload. */
size_t qn_cuda_layout_fill(const struct qn_cuda_layout *l, uint8_t *host, const struct qn_batch *batch, const int32_t *out_row, int n_out, int head_rows,
                           const struct qn_cuda_attn_limits *lim, struct qn_cuda_attn_plan *plan);

/* The smallest bucket of captured steps that holds n; 0: none, n is too large for one. */
int qn_cuda_rows_bucket(int n);
int qn_cuda_items_bucket(int n);

#endif
