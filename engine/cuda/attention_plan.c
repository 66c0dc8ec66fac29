/* Shares a batch's attention out as items (attention.h). Groups first: rows of one sequence whose (row, head) pairs fill a block. Then,
 * if there are fewer blocks than the card can keep busy, the chunks of the longest groups are dealt out to several items each, which
 * leave records. No effect on any bit of the output, so nothing here needs to be the same from batch to batch.
 *
 * Where it stands between too few blocks and too many records: a group is split only while it is longer than its fair share of
 * all chunks, and only as far as there is room for items and records; a group that finds none is walked by one block. */
#include <assert.h>

#include "engine/backend.h"
#include "engine/cuda/attention.h"

enum {
    NARROW_PAIRS = 16,      /* (row, head) pairs of a block with a team of four warps (attention.cu) */
    BLOCKS_PER_SM = 4       /* that a card should have to choose from: enough to even out blocks of different length */
};

/* Pairs of a block for prompts: shape<>::pairs of the instance that attention.cu takes for the width. */
static int wide_pairs(int head_dim) { return head_dim > 128 ? 32 : 64; }

static int min_int(int a, int b) { return a < b ? a : b; }

struct group { int row0, n_rows, chunk0, chunk1; };

/* Rows of a sequence that go together: all if they fit in a narrow block, else as many as a wide block holds. */
static int rows_together(const struct qn_cuda_attn_limits *lim, int n_rows) {
    int heads = lim->n_heads / lim->n_kv_heads, wide = wide_pairs(lim->head_dim) / heads;
    if (n_rows * heads <= NARROW_PAIRS) return n_rows;
    return wide > 1 ? wide : 1;
}

static struct group group_at(const struct qn_batch *b, const struct qn_cuda_attn_limits *lim, int row0, int n_rows) {
    int first = b->pos[row0], last = b->pos[row0 + n_rows - 1];
    int from = lim->window > 0 && first + 1 > lim->window ? first + 1 - lim->window : 0;
    return (struct group){row0, n_rows, from / QN_CUDA_CHUNK, last / QN_CUDA_CHUNK + 1};
}

/* Groups of a batch one by one; longest first within a sequence, so that what is left at the end of a launch is short. */
struct walk { int seq, end; /* rows of the sequence that are still to come: [row0, end) */ };

static int next_group(const struct qn_batch *b, const struct qn_cuda_attn_limits *lim, struct walk *w, struct group *g) {
    while (w->seq < b->n_seqs) {
        const struct qn_batch_seq *s = &b->seqs[w->seq];
        if (w->end < 0) w->end = s->row0 + s->n_rows;
        if (w->end > s->row0) {
            int n = min_int(rows_together(lim, s->n_rows), w->end - s->row0);
            w->end -= n;
            *g = group_at(b, lim, w->end, n);
            return 1;
        }
        w->seq++;
        w->end = -1;
    }
    return 0;
}

static int blocks_wanted(const struct qn_cuda_attn_limits *lim) {
    int n = BLOCKS_PER_SM * lim->n_sms / lim->n_kv_heads;
    return n > 1 ? n : 1;
}

/* Chunks of a fair share, and the number of groups. */
static int fair_share(const struct qn_batch *b, const struct qn_cuda_attn_limits *lim, int *n_groups) {
    struct walk w = {0, -1};
    struct group g;
    int64_t chunks = 0;
    *n_groups = 0;
    while (next_group(b, lim, &w, &g)) {
        chunks += g.chunk1 - g.chunk0;
        (*n_groups)++;
    }
    int want = blocks_wanted(lim);
    return (int)((chunks + want - 1) / want);
}

static int kind_of(const struct qn_cuda_attn_limits *lim, int n_rows) {
    return n_rows * (lim->n_heads / lim->n_kv_heads) <= NARROW_PAIRS ? QN_CUDA_ATTN_NARROW : QN_CUDA_ATTN_WIDE;
}

void qn_cuda_attn_plan(const struct qn_batch *b, const struct qn_cuda_attn_limits *lim, struct qn_cuda_item *items, struct qn_cuda_attn_plan *out) {
    int left, share = fair_share(b, lim, &left);
    struct walk w = {0, -1};
    struct group g;
    *out = (struct qn_cuda_attn_plan){0};
    while (next_group(b, lim, &w, &g)) {
        int n = g.chunk1 - g.chunk0, parts = (n + share - 1) / share;
        left--;
        assert(out->n_items + 1 + left <= lim->items_max);
        parts = min_int(parts, lim->items_max - left - out->n_items);
        if (parts > 1 && (int64_t)n * g.n_rows > lim->records_max - out->n_records) parts = 1;
        for (int i = 0; i < parts; i++) {
            int c0 = (int)((int64_t)n * i / parts), c1 = (int)((int64_t)n * (i + 1) / parts);
            items[out->n_items++] = (struct qn_cuda_item){
                .seq = w.seq, .row0 = g.row0, .n_rows = g.n_rows, .chunk0 = g.chunk0 + c0, .chunk1 = g.chunk0 + c1,
                .record = parts > 1 ? out->n_records + c0 * g.n_rows : -1, .first = g.chunk0,
            };
        }
        if (parts > 1) out->n_records += n * g.n_rows;
        out->kinds |= kind_of(lim, g.n_rows) | (parts > 1 ? QN_CUDA_ATTN_SPLIT : 0);
    }
}

/* The sum over groups of chunks / share, each rounded up: shares are so large that they make no more than the blocks wanted. */
int qn_cuda_attn_items(const struct qn_cuda_attn_limits *lim, int n_rows) {
    return n_rows + blocks_wanted(lim);
}

int64_t qn_cuda_attn_record_bytes(const struct qn_cuda_kv *kv, int n) {
    return (int64_t)n * kv->n_heads * (kv->head_pad + 2) * (int64_t)sizeof(float);
}
