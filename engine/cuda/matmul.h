/* Matrix products on the card: launchers. Plain C.
 *
 * All of them read row counts from the step's head in device memory; `rows_bound` (>= the count, the bucket of a captured graph)
 * sizes grids and chooses kernels, which never changes a bit of a result (step.h). Rows at and beyond the count are not written.
 * rows_bound 0 launches nothing. Errors stay in cudaGetLastError. Thread: the owner of the stream. */
#ifndef QN_CUDA_MATMUL_H
#define QN_CUDA_MATMUL_H

#include "engine/cuda/step.h"
#include "engine/cuda/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QN_CUDA_LINEAR_MAX = 3 };

struct qn_cuda_product {       /* out[row][n_out] = act . w^T (+ bias) */
    struct qn_cuda_weight w;
    const float *bias;          /* [n_out], or NULL */
    struct qn_cuda_vec out;     /* width >= n_out */
};

/* Once for the current device, before any launch: allows kernels their shared memory. 0 or -1. */
int qn_cuda_matmul_init(void);

/* n <= QN_CUDA_LINEAR_MAX products of the same act, rows head->n_rows: one launch if their forms agree, else one for each form. */
void qn_cuda_linear(const struct qn_cuda_act *a, const struct qn_cuda_product *l, int n, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);

/* out = act(a . gate^T) * (a . up^T); gate and up have the same shape. gelu: the tanh form, else silu. */
void qn_cuda_glu(const struct qn_cuda_act *a, const struct qn_cuda_weight *gate, const struct qn_cuda_weight *up, int gelu, const struct qn_cuda_vec *out,
                 const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);

/* As linear over rows head->n_out (the act holds just the rows whose logits are wanted): x = (a . w^T + bias) * scale, then, if
 * softcap > 0, softcap * tanh(x / softcap). */
void qn_cuda_logits(const struct qn_cuda_act *a, const struct qn_cuda_product *l, float scale, float softcap, const struct qn_cuda_step *step, int rows_bound,
                    qn_cuda_stream stream);

/* x[r] = scale * row step->token[r] of w, rows head->n_rows. x->width == w->n_in. */
void qn_cuda_embed(const struct qn_cuda_vec *x, const struct qn_cuda_weight *w, float scale, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);

#ifdef __cplusplus
}
#endif

#endif
