/* Attention over the KV pages of a card: a planner on the host that shares a batch out as items (step.h), and the launchers that
 * work them off. Plain C and C++. Writes f32 rows; making them ready for the next product is the rows' own kernel (rows.h).
 *
 * A row's bits depend on its own q and on the pages it looks back on, never on the plan: a chunk of QN_CUDA_CHUNK positions is always
 * computed from scratch, in the same order, and chunks are folded in order by the same function, whether one block walks them or
 * several leave records to be merged (attention.cu tells how). So plans may follow the batch freely. */
#ifndef QN_CUDA_ATTENTION_H
#define QN_CUDA_ATTENTION_H

#include "engine/cuda/step.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a step needs launched. A captured graph names all that any batch of its bucket may need. */
enum { QN_CUDA_ATTN_NARROW = 1, QN_CUDA_ATTN_WIDE = 2, QN_CUDA_ATTN_SPLIT = 4 };

struct qn_cuda_attn_limits {
    int n_heads, n_kv_heads, head_dim;
    int window;             /* how far back any layer looks, itself included; 0: one looks back on everything */
    int n_sms;              /* of the card: how many blocks are worth having */
    int items_max;          /* room in `items`: at least the rows of the batch */
    int records_max;        /* room for records; 0: nothing is split */
};

struct qn_cuda_attn_plan {
    int n_items, n_records;
    int kinds;              /* QN_CUDA_ATTN_* or-ed */
};

#ifndef __cplusplus /* to C++ the function would hide the struct's constructor */
struct qn_batch;

/* Fills items[0 .. n_items-1]: every row of the batch with every chunk it looks back on, each once. Pure. */
void qn_cuda_attn_plan(const struct qn_batch *batch, const struct qn_cuda_attn_limits *lim, struct qn_cuda_item *items, struct qn_cuda_attn_plan *out);
#endif

/* Items worth having room for with batches of up to n_rows rows: as many as the planner ever makes while rows are few. */
int qn_cuda_attn_items(const struct qn_cuda_attn_limits *lim, int n_rows);

/* Bytes of n records. One record is one row's share of one chunk: [n_heads][head_pad] sums and [n_heads][2] maxima and weights, f32. */
int64_t qn_cuda_attn_record_bytes(const struct qn_cuda_kv *kv, int n);

struct qn_cuda_attn {
    struct qn_cuda_step step;   /* head->n_items, items, pos, blocks are read */
    struct qn_cuda_kv kv;
    const float *q;             /* [rows_max][n_heads * head_dim], rotated */
    float *out;                 /* the same shape; rows of no item stay as they are */
    float *records;             /* qn_cuda_attn_record_bytes of records_max; NULL: nothing is split */
    int32_t records_max;
    int32_t layer;
    int32_t window;             /* of the layer: a row sees the last `window` positions, itself included; 0: all */
    float scale, softcap;       /* softcap 0: none */
};

/* Once for each card and shape of kv, before the first launch. 0, or -1 where the card refuses the shared memory. head_dim 1..256. */
int qn_cuda_attention_open(const struct qn_cuda_kv *kv);

/* out = softmax(scale * q.K^T) V for all items. `items`: how many the grid covers, >= the head's n_items of every replay. Up to three
 * launches. Whatever lies in slots that no row of the batch looks back on has no influence. 0, or -1 if a launch was refused. */
int qn_cuda_attention(const struct qn_cuda_attn *a, int items, int kinds, qn_cuda_stream stream);

#ifdef __cplusplus
}
#endif

#endif
