/* Attention over the KV pages: the pool of pages, and who computes which tile.
 *
 *      kv pool  [kv_blocks]            one block of 16 tokens: everything a layer needs is close, a copy is one memcpy
 *        block  [n_layers][n_kv_heads]
 *          head   K [head_dim][16] f16 (16 positions are one lane vector), V [16][hd_pad] f16
 *
 * An item is a KV head of one sequence and some of its rows, so that at most 16 query vectors share what is loaded. A
 * row's arithmetic is the same in any tile (attn_body.h). Memory of the pool is mapped at open and touched when used. */
#include <assert.h>
#include <string.h>

#include "engine/cpu/cpu.h"

int qn_cpu_kv_init(struct qn_cpu *b, struct qn_err *err) {
    const struct qn_model_desc *d = b->base.desc;
    b->hd_pad = (d->head_dim + 15) / 16 * 16;
    b->v_offset = ((size_t)d->head_dim * QN_KV_BLOCK * 2 + 63) / 64 * 64;
    b->kv_head = b->v_offset + (size_t)QN_KV_BLOCK * (size_t)b->hd_pad * 2;
    b->kv_layer = b->kv_head * (size_t)d->n_kv_heads;
    b->kv_block = b->kv_layer * (size_t)d->n_layers;
    size_t bytes;
    if (__builtin_mul_overflow(b->kv_block, (size_t)b->base.opts.kv_blocks, &bytes) || !(b->kv = qn_cpu_reserve(b, bytes)))
        return qn_fail(err, QN_E_NOMEM, "no memory for a KV pool of %d blocks of %zu bytes", b->base.opts.kv_blocks, b->kv_block);
    b->bytes_kv = bytes;
    return 0;
}

/* Slots are copied one by one in K, whose positions lie side by side. */
void qn_cpu_kv_copy(struct qn_backend *base, int32_t from, int32_t to, int n_tokens) {
    struct qn_cpu *b = qn_cpu_of(base);
    const struct qn_model_desc *d = b->base.desc;
    const uint8_t *src = b->kv + (size_t)from * b->kv_block;
    uint8_t *dst = b->kv + (size_t)to * b->kv_block;
    assert(n_tokens >= 0 && n_tokens <= QN_KV_BLOCK);
    if (n_tokens == QN_KV_BLOCK) {
        memcpy(dst, src, b->kv_block);
        return;
    }
    for (int i = 0; i < d->n_layers * d->n_kv_heads; i++, src += b->kv_head, dst += b->kv_head) {
        for (int e = 0; e < d->head_dim; e++) memcpy(dst + e * QN_KV_BLOCK * 2, src + e * QN_KV_BLOCK * 2, (size_t)n_tokens * 2);
        memcpy(dst + b->v_offset, src + b->v_offset, (size_t)n_tokens * (size_t)b->hd_pad * 2);
    }
}

struct attn_job {
    struct qn_cpu *b;
    int layer, rows_of_tile, heads_of_tile, head_cuts, direct;
    const struct qn_vec *q;
    struct qn_act *out;
};

static void one_tile(const struct attn_job *j, const struct qn_batch_seq *s, int kvh, int cut, int row, float *scratch) {
    struct qn_cpu *b = j->b;
    const struct qn_model_desc *d = b->base.desc;
    int group = d->n_heads / d->n_kv_heads, h0 = cut * j->heads_of_tile, window = d->window[j->layer];
    int h1 = h0 + j->heads_of_tile < group ? h0 + j->heads_of_tile : group;
    int end = row + j->rows_of_tile < s->n_rows ? row + j->rows_of_tile : s->n_rows;
    struct qn_attn_tile t = {
        .blocks = s->blocks, .kv = b->kv + (size_t)j->layer * b->kv_layer + (size_t)kvh * b->kv_head, .block_bytes = b->kv_block,
        .v_offset = b->v_offset, .head_dim = d->head_dim, .hd_pad = b->hd_pad, .scale = d->attn_scale, .softcap = d->attn_softcap,
        .scratch = scratch,
    };
    for (int r = row; r < end; r++)
        for (int h = h0; h < h1; h++) {
            size_t at = (size_t)(kvh * group + h) * (size_t)d->head_dim;
            int pos = s->n_ctx - s->n_rows + r;
            t.col[t.nq].q = j->q->p + (size_t)(s->row0 + r) * (size_t)j->q->stride + at;
            t.col[t.nq].out = b->attn_out.p + (size_t)(s->row0 + r) * (size_t)b->attn_out.stride + at;
            t.col[t.nq].hi = pos;
            t.col[t.nq++].lo = window > 0 && pos >= window ? pos - window + 1 : 0;
        }
    b->isa->attn(&t);
    if (!j->direct) return;
    int blocks = (h1 - h0) * d->head_dim / QN_ABLOCK, block0 = (kvh * group + h0) * d->head_dim / QN_ABLOCK;
    for (int r = row; r < end; r++)
        qn_act_put(b, j->out, b->batch->n_rows, s->row0 + r, block0, blocks,
                   b->attn_out.p + (size_t)(s->row0 + r) * (size_t)b->attn_out.stride + (size_t)block0 * QN_ABLOCK);
}

static void attn_range(void *arg, int begin, int end, int thread) {
    const struct attn_job *j = arg;
    struct qn_cpu *b = j->b;
    const struct qn_batch *batch = b->batch;
    int lo = 0, hi = batch->n_seqs - 1, per_tile = b->base.desc->n_kv_heads * j->head_cuts;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (b->item_seq[mid] <= begin) lo = mid;
        else hi = mid - 1;
    }
    for (int i = begin, s = lo; i < end; i++) {
        while (s + 1 < batch->n_seqs && b->item_seq[s + 1] <= i) s++;
        int at = i - b->item_seq[s], h = at % per_tile;
        one_tile(j, &batch->seqs[s], h / j->head_cuts, h % j->head_cuts, at / per_tile * j->rows_of_tile,
                 b->scratch + (size_t)thread * b->scratch_stride);
    }
}

static void quant_range(void *arg, int begin, int end, int thread) {
    const struct attn_job *j = arg;
    (void)thread;
    for (int r = begin; r < end; r++)
        qn_act_put(j->b, j->out, j->b->batch->n_rows, r, 0, j->out->n_blocks, j->b->attn_out.p + (size_t)r * (size_t)j->b->attn_out.stride);
}

void qn_cpu_attention(struct qn_backend *base, int layer, const struct qn_vec *q, struct qn_act *out) {
    struct qn_cpu *b = qn_cpu_of(base);
    const struct qn_model_desc *d = b->base.desc;
    const struct qn_batch *batch = b->batch;
    int group = d->n_heads / d->n_kv_heads, most = b->isa->attn_cols;
    struct attn_job j = { .b = b, .layer = layer, .q = q, .out = out };
    j.heads_of_tile = group < most ? group : most;
    j.head_cuts = (group + j.heads_of_tile - 1) / j.heads_of_tile;
    j.rows_of_tile = most / j.heads_of_tile;
    j.direct = j.heads_of_tile * d->head_dim % QN_ABLOCK == 0 && group * d->head_dim % QN_ABLOCK == 0;
    int items = 0;
    int64_t work = 0;
    for (int s = 0; s < batch->n_seqs; s++) {
        b->item_seq[s] = items;
        items += (batch->seqs[s].n_rows + j.rows_of_tile - 1) / j.rows_of_tile * d->n_kv_heads * j.head_cuts;
        work += (int64_t)batch->seqs[s].n_rows * batch->seqs[s].n_ctx;
    }
    work *= (int64_t)d->n_heads * d->head_dim; /* multiply-adds, half of them */
    int64_t grain = work > 0 ? 64 * 1024 * (int64_t)items / work + 1 : 1;
    qn_pool_run(b->pool, items, grain < items ? (int)grain : items, attn_range, &j);
    if (!j.direct) qn_pool_run(b->pool, batch->n_rows, 16, quant_range, &j);
}
