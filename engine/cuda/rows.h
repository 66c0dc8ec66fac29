/* Operations on rows between the matrix products: norms, quantising, narrowing, RoPE with the write into the KV pages, and pages that
 * move. Launchers, plain C.
 *
 * Row counts come from the step's head in device memory; `rows_bound` (>= the count, the bucket of a captured graph) only sizes grids.
 * Rows at and beyond the count are neither read nor written. rows_bound 0 launches nothing. What a row yields depends on nothing but
 * that row: a block or a warp has one row and sums in one order. Errors stay in cudaGetLastError. Thread: the owner of the stream. */
#ifndef QN_CUDA_ROWS_H
#define QN_CUDA_ROWS_H

#include "engine/cuda/step.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QN_CUDA_WIDTH_MAX = 16384, QN_CUDA_HEAD_MAX = 512 };

/* rows.cu. If y: x += scale * (post ? rmsnorm(y) * post : y). Then, if act: act = rmsnorm(x) * gain. Rows head->n_rows. y or act are
 * there. Widths agree, at most QN_CUDA_WIDTH_MAX. */
void qn_cuda_add_norm(const struct qn_cuda_vec *x, const struct qn_cuda_vec *y, const float *post, float scale, const float *gain, float eps,
                      const struct qn_cuda_act *act, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);
/* act[i] = rmsnorm(x[step->out_row[i]]) * gain, i < head->n_out: the rows whose logits are wanted, side by side. */
void qn_cuda_norm_out(const struct qn_cuda_vec *x, const float *gain, float eps, const struct qn_cuda_act *act, const struct qn_cuda_step *step,
                      int rows_bound, qn_cuda_stream stream);
/* act = x, rows head->n_rows; all forms that the act has (step.h). Blocks whose greatest entry is below 1e-30 become zeros, as on the CPU.
 * h_scale is the power of two that brings the greatest entry of the row to 2^14 .. 2^15 (never below 2^-126; 1 for rows of zeros, infinities or NaN). */
void qn_cuda_quantise(const struct qn_cuda_vec *x, const struct qn_cuda_act *act, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);
/* v[i] = v[step->out_row[i]] in place, i < head->n_out; out_row ascends. */
void qn_cuda_narrow(const struct qn_cuda_vec *v, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);

/* rope.cu. One layer's heads: q in place, k and v into the pages. k itself stays as it was: nobody reads it afterwards. */
struct qn_cuda_rope {
    struct qn_cuda_vec q, k, v;     /* n_heads, n_kv_heads, n_kv_heads times head_dim */
    const float *q_norm, *k_norm;   /* gains [head_dim] of an RMSNorm over each head; NULL: none */
    float eps;
    const float *table;             /* device, [positions][rope_dim / 2][2], of qn_cuda_rope_table */
    int32_t rope_dim;               /* even, at most head_dim; 0: nothing turns */
    int32_t neox;                   /* pairs (i, i + rope_dim / 2), else (2i, 2i + 1) */
    int32_t layer;
    struct qn_cuda_kv kv;           /* head_dim even, at most QN_CUDA_HEAD_MAX */
};
/* Row r goes to position step->pos[r] of sequence step->seq[r]; two rows never to the same. Rows head->n_rows. */
void qn_cuda_rope_kv(const struct qn_cuda_rope *r, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);
/* table[p - from][i] = mscale * (cos, sin)(p * inv_freq[i]) for positions p = from .. to - 1, in double, rounded once. Host memory; pure. */
void qn_cuda_rope_table(float *table, const float *inv_freq, int rope_dim, float mscale, int from, int to);

/* pages.cu. The first n_tokens (1..16) of KV block `from` to block `to`, all layers. from != to. */
void qn_cuda_kv_copy(const struct qn_cuda_kv *kv, int32_t from, int32_t to, int n_tokens, qn_cuda_stream stream);
/* Blocks to and from pinned host memory [n][bytes of a block], `blocks` in host memory; runs of neighbours move as one copy. */
void qn_cuda_kv_swap_out(const struct qn_cuda_kv *kv, const int32_t *blocks, int n, void *host, qn_cuda_stream stream);
void qn_cuda_kv_swap_in(const struct qn_cuda_kv *kv, const int32_t *blocks, int n, const void *host, qn_cuda_stream stream);

static inline int64_t qn_cuda_kv_block_bytes(const struct qn_cuda_kv *kv) {
    return (int64_t)kv->n_layers * kv->n_kv_heads * 2 * QN_CUDA_PAGE * kv->head_pad * 2;
}

#ifdef __cplusplus
}
#endif

#endif
