/* What the rooms of the CUDA backend share: a step, activations, KV pages as they lie on the card. Plain C and C++; kernels get
 * these structs by value, so all pointers in them are device addresses that stay the same for the backend's life (a captured
 * graph replays them) and only what they point to is uploaded anew.
 *
 * Batch-invariance (backend.h) on a card, so that every kernel for every batch size yields the same bits:
 *  - A matrix product cuts its inner dimension into slices at fixed places, which depend on the weight alone. Within a slice blocks of 32
 *    inputs follow each other: acc = fma(scale, (float)integer dot product, acc), then the block's minimum term; slices are added in order
 *    within quarters (at most 4 slices each), quarters in order.
 *    16-bit matrices always run through mma with 16 inputs a step, also for one row.
 *  - Attention cuts positions into chunks of QN_CUDA_CHUNK at fixed places. A chunk starts from scratch and goes through tiles of
 *    positions at fixed places by mma, also for one row; chunks are folded in order, by the same function wherever it happens. */
#ifndef QN_CUDA_STEP_H
#define QN_CUDA_STEP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { QN_CUDA_CHUNK = 256, QN_CUDA_PAGE = 16 /* == QN_KV_BLOCK */ };

struct CUstream_st;
typedef struct CUstream_st *qn_cuda_stream; /* cudaStream_t */

/* Kernels read how much there is from `head`: grids are sized for a bucket, blocks beyond the counts do nothing. */
struct qn_cuda_head {
    int32_t n_rows, n_seqs, n_items, n_out;
    int32_t pad[4];
};

/* Share of the attention of one sequence's rows: rows [row0, row0 + n_rows) against chunks [chunk0, chunk1). */
struct qn_cuda_item {
    int32_t seq, row0, n_rows, chunk0, chunk1;
    int32_t record; /* -1: the item has all chunks of its rows and writes the output; else its first partial record */
    int32_t first;  /* chunk of the rows' first record, when other items have the rest */
    int32_t pad;
};

struct qn_cuda_step {
    const struct qn_cuda_head *head;
    const int32_t *token, *pos;     /* [rows_max] */
    const int32_t *seq;             /* [rows_max]: row -> index of its sequence in the step */
    const int32_t *blocks;          /* [seqs_max][blocks_stride]: position p of a sequence lies in blocks[p / 16] at p % 16 */
    const struct qn_cuda_item *items;
    const int32_t *out_row;         /* rows whose logits are wanted, or that `narrow` keeps */
    int32_t rows_max, seqs_max, blocks_stride;
};

/* Rows ready for a matrix product. Integer form: 32 inputs share a scale, x = d * q. Widths are padded to a multiple of 128 with
 * zeros (q, d, sum and h alike: 16-byte copies of four blocks' d and sum then align). q = rint(x * 127 / max|x|), d = max|x| / 127; a block that holds NaN or infinity has d = NaN and q = 0. 16-bit form, only
 * if some weight of the model needs it: x = h * h_scale[row], h_scale a power of two (1 for bf16). */
struct qn_cuda_act {
    int32_t width, stride;  /* inputs; inputs padded */
    int8_t *q;              /* [rows_max][stride] */
    float *d;               /* [rows_max][stride / 32] */
    int16_t *sum;           /* [rows_max][stride / 16]: of q, for weights with minima */
    uint16_t *h[2];         /* [rows_max][stride], f16 and bf16; NULL: not wanted */
    float *h_scale;         /* [rows_max], for f16 */
};

struct qn_cuda_vec {
    int32_t width;
    float *v;               /* [rows_max][width] */
};

/* KV pages: [block][layer][kv_head][K, V][16 slots][head_pad] of 16-bit floats (f16 or bf16); head_pad = head_dim up to a multiple of
 * 16, the rest zeros. Position p of a sequence: slot p % 16 of block blocks[p / 16]. */
struct qn_cuda_kv {
    uint16_t *pages;
    int32_t n_layers, n_kv_heads, n_heads, head_dim, head_pad;
    int32_t is_bf16;
};

#ifdef __cplusplus
}
#endif

#endif
