/* Turns a batch into a descriptor. Thread: engine, once or twice a step; costs a copy of the block tables (2 KiB for a sequence of
 * 8192 positions) and the plan. */
#include "engine/cuda/cuda_step.h"

#include <assert.h>
#include <string.h>

enum { ALIGN = 64 };
_Static_assert((int)QN_CUDA_PAGE == (int)QN_KV_BLOCK, "a page of the card is a block of the cache");

static size_t part(size_t *at, size_t bytes) {
    size_t here = *at;
    *at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return here;
}

void qn_cuda_layout_init(struct qn_cuda_layout *l, int rows_max, int seqs_max, int n_ctx, int items_max) {
    size_t at = 0, rows = (size_t)rows_max * sizeof(int32_t);
    *l = (struct qn_cuda_layout){.rows_max = rows_max, .seqs_max = seqs_max, .stride = (n_ctx + QN_KV_BLOCK - 1) / QN_KV_BLOCK, .items_max = items_max};
    part(&at, sizeof(struct qn_cuda_head));
    l->out_head = part(&at, sizeof(struct qn_cuda_head));
    l->token = part(&at, rows);
    l->pos = part(&at, rows);
    l->seq = part(&at, rows);
    l->out_row = part(&at, rows);
    l->items = part(&at, (size_t)items_max * sizeof(struct qn_cuda_item));
    l->blocks = part(&at, (size_t)seqs_max * (size_t)l->stride * sizeof(int32_t));
    l->bytes = at;
}

void qn_cuda_layout_step(const struct qn_cuda_layout *l, uint8_t *base, struct qn_cuda_step *step, struct qn_cuda_step *out) {
    *step = (struct qn_cuda_step){
        .head = (const void *)base, .token = (const void *)(base + l->token), .pos = (const void *)(base + l->pos), .seq = (const void *)(base + l->seq),
        .blocks = (const void *)(base + l->blocks), .items = (const void *)(base + l->items), .out_row = (const void *)(base + l->out_row),
        .rows_max = l->rows_max, .seqs_max = l->seqs_max, .blocks_stride = l->stride,
    };
    if (!out) return;
    *out = *step;
    out->head = (const void *)(base + l->out_head);
}

static void fill_seqs(const struct qn_cuda_layout *l, uint8_t *host, const struct qn_batch *b) {
    int32_t *seq = (void *)(host + l->seq), *blocks = (void *)(host + l->blocks);
    for (int s = 0; s < b->n_seqs; s++) {
        const struct qn_batch_seq *q = &b->seqs[s];
        int n = (q->n_ctx + QN_KV_BLOCK - 1) / QN_KV_BLOCK;
        assert(n <= l->stride);
        memcpy(blocks + (size_t)s * (size_t)l->stride, q->blocks, (size_t)n * sizeof *blocks);
        for (int r = q->row0; r < q->row0 + q->n_rows; r++) seq[r] = s;
    }
}

size_t qn_cuda_layout_fill(const struct qn_cuda_layout *l, uint8_t *host, const struct qn_batch *b, const int32_t *out_row, int n_out, int head_rows,
                           const struct qn_cuda_attn_limits *lim, struct qn_cuda_attn_plan *plan) {
    size_t rows = (size_t)b->n_rows * sizeof(int32_t);
    assert(b->n_rows >= 1 && b->n_rows <= l->rows_max && b->n_seqs <= l->seqs_max && n_out <= l->rows_max);
    if (b->token) memcpy(host + l->token, b->token, rows);
    memcpy(host + l->pos, b->pos, rows);
    if (n_out) memcpy(host + l->out_row, out_row, (size_t)n_out * sizeof(int32_t));
    fill_seqs(l, host, b);
    qn_cuda_attn_plan(b, lim, (struct qn_cuda_item *)(void *)(host + l->items), plan);
    assert(plan->n_items <= l->items_max && plan->n_records <= lim->records_max);
    struct qn_cuda_head head = {.n_rows = b->n_rows, .n_seqs = b->n_seqs, .n_items = plan->n_items, .n_out = n_out};
    struct qn_cuda_head out = {.n_rows = head_rows, .n_out = head_rows};
    memcpy(host, &head, sizeof head);
    memcpy(host + l->out_head, &out, sizeof out);
    return l->blocks + (size_t)b->n_seqs * (size_t)l->stride * sizeof(int32_t);
}

/* --- buckets ------------------------------------------------------------------------------------------------------ */

int qn_cuda_rows_bucket(int n) {
    static const int sizes[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (n <= sizes[i]) return sizes[i];
    return 0;
}

int qn_cuda_items_bucket(int n) {
    int b = 1;
    while (b < n) b *= 2;
    return b;
}
