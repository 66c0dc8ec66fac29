/* Attention over the KV pages: the pool of pages, and who computes which tile.
 *
 *      pool   [kv_blocks / QN_KV_RUN]      32 blocks (512 tokens): what is touched together
 *        run  [n_layers][n_kv_heads]
 *          head  [QN_KV_RUN] pages         16 tokens each, layout at struct qn_kv_page
 *
 * A head's pages of neighbouring blocks lie side by side, or every layer would read its context in strides that use a
 * few sets of the caches only (measured: half the speed from 1,000 positions on). Memory is mapped at open and comes from the
 * kernel when used, but the next run a page each step: a whole run at once stalled every stream for 20 ms and more.
 *
 * An item is a KV head of one sequence and some of its rows, so that at most 16 query vectors share what is loaded. Where
 * that leaves too few items for the threads, a tile's chunks of positions become items too and are merged afterwards. A
 * row's arithmetic is the same in any tile and either way (attn_body.h). */
#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/cpu/cpu.h"

/* A step's sequence. */
struct qn_attn_seq {
    int item, merge;        /* its first item of both loops */
    int chunk0, chunks;     /* that any of its rows sees */
    int spans, per_span;    /* items of a tile, and chunks of one; spans 0: not shared out */
    size_t records;         /* where the records of its first tile are */
};

enum { SPANS_A_THREAD = 4, MERGE_GRAIN = 512 };

/* Asks for at least n bytes more, in whole huge pages: what comes next must begin at a page, and runs of q8_0 need not. */
static void bring(struct qn_cpu *b, size_t n) {
    size_t left = b->kv_bytes - b->kv_there;
    n = (n + QN_HUGE_BYTES - 1) / QN_HUGE_BYTES * QN_HUGE_BYTES;
    if (n > left) n = left;
#if defined(MADV_POPULATE_WRITE)
    if (madvise(b->kv + b->kv_there, n, MADV_POPULATE_WRITE) < 0) n = left; /* an old kernel, or no memory: the write will tell */
#else
    n = left;
#endif
    b->kv_there += n;
}

int qn_cpu_kv_init(struct qn_cpu *b, struct qn_err *err) {
    const struct qn_model_desc *d = b->base.desc;
    enum qn_kv_type type = b->base.opts.kv_type == QN_KV_AUTO ? QN_KV_F16 : b->base.opts.kv_type;
    int pad = type == QN_KV_Q8_0 ? 32 : 16, hd = (d->head_dim + pad - 1) / pad * pad, blocks = b->base.opts.kv_blocks;
    size_t half = (size_t)hd * QN_KV_BLOCK * (type == QN_KV_Q8_0 ? 1 : 2), scales = type == QN_KV_Q8_0 ? (size_t)hd / 32 * QN_KV_BLOCK * 2 : 0;
    b->page = (struct qn_kv_page){ type, d->head_dim, hd, half, 2 * half, 2 * half + scales, 2 * (half + scales) };
    b->kv_run = QN_KV_RUN * b->page.bytes * (size_t)d->n_kv_heads * (size_t)d->n_layers;
    b->bytes_kv = (uint64_t)qn_kv_block_bytes(d, type) * (uint64_t)blocks;
    assert(b->kv_run == QN_KV_RUN * (size_t)qn_kv_block_bytes(d, type));
    if (__builtin_mul_overflow(b->kv_run, ((size_t)blocks + QN_KV_RUN - 1) / QN_KV_RUN, &b->kv_bytes) || !(b->kv = qn_cpu_reserve(b, b->kv_bytes)))
        return qn_fail(err, QN_E_NOMEM, "no memory for a KV pool of %d blocks of %lld bytes", blocks, (long long)qn_kv_block_bytes(d, type));
    bring(b, b->kv_run); /* so that the first prompt does not wait for it */
    return 0;
}

/* Blocks are given out from the lowest on, so the run after the highest that is in use is the next to be touched. */
void qn_cpu_kv_ahead(struct qn_cpu *b) {
    for (int s = 0; s < b->batch->n_seqs; s++) {
        const struct qn_batch_seq *q = &b->batch->seqs[s];
        for (int i = (q->n_ctx - q->n_rows) / QN_KV_BLOCK; i <= (q->n_ctx - 1) / QN_KV_BLOCK; i++)
            if (q->blocks[i] / QN_KV_RUN + 1 > b->kv_run_next) b->kv_run_next = q->blocks[i] / QN_KV_RUN + 1;
    }
    size_t want = ((size_t)b->kv_run_next + 1) * b->kv_run;
    if (b->kv_there >= (want < b->kv_bytes ? want : b->kv_bytes)) return;
    bring(b, QN_HUGE_BYTES);
}

/* Fewer tiles than SPANS_A_THREAD a thread are ever shared out, as each holds more than such a part of the work. */
int qn_cpu_attn_init(struct qn_cpu *b) {
    size_t chunks = (size_t)b->base.opts.n_ctx / QN_ATTN_CHUNK + 2, tiles = SPANS_A_THREAD * (size_t)qn_pool_threads(b->pool);
    b->records_max = tiles * chunks * QN_ATTN_COLS * qn_attn_record((b->base.desc->head_dim + 31) / 32 * 32);
    b->records = qn_cpu_reserve(b, b->records_max * sizeof *b->records);
    b->attn_seq = qn_cpu_alloc(b, (size_t)b->base.opts.rows_max * sizeof *b->attn_seq);
    return b->records && b->attn_seq ? 0 : QN_E_NOMEM;
}

static void copy_slots(const struct qn_kv_page *p, uint8_t *to, const uint8_t *from, int n) {
    int q8 = p->type == QN_KV_Q8_0, quads = q8 ? p->hd / 4 : p->hd, width = q8 ? 4 : 2; /* K: [quads][16] of width bytes */
    for (int i = 0; i < quads; i++) memcpy(to + i * QN_KV_BLOCK * width, from + i * QN_KV_BLOCK * width, (size_t)(n * width));
    memcpy(to + p->v, from + p->v, (size_t)(n * p->hd * (q8 ? 1 : 2)));
    for (size_t at = p->k_scale; at < p->bytes; at += QN_KV_BLOCK * 2) memcpy(to + at, from + at, (size_t)n * 2);
}

void qn_cpu_kv_copy(struct qn_backend *base, int32_t from, int32_t to, int n_tokens) {
    struct qn_cpu *b = qn_cpu_of(base);
    assert(n_tokens >= 0 && n_tokens <= QN_KV_BLOCK);
    for (int l = 0; l < b->base.desc->n_layers; l++)
        for (int h = 0; h < b->base.desc->n_kv_heads; h++) {
            uint8_t *dst = qn_kv_page_at(b, to, l, h);
            const uint8_t *src = qn_kv_page_at(b, from, l, h);
            if (n_tokens == QN_KV_BLOCK) memcpy(dst, src, b->page.bytes);
            else copy_slots(&b->page, dst, src, n_tokens);
        }
}

struct attn_job {
    struct qn_cpu *b;
    int layer, rows_of_tile, heads_of_tile, head_cuts, direct;
    const struct qn_vec *q;
    struct qn_act *out;
};

struct place { int kvh, cut, row, end; }; /* of a tile: KV head, part of its group, rows */

static struct place place_of(const struct attn_job *j, const struct qn_batch_seq *s, int tile) {
    int per_rows = j->b->base.desc->n_kv_heads * j->head_cuts, h = tile % per_rows, row = tile / per_rows * j->rows_of_tile;
    return (struct place){ h / j->head_cuts, h % j->head_cuts, row, row + j->rows_of_tile < s->n_rows ? row + j->rows_of_tile : s->n_rows };
}

static void make_tile(struct qn_attn_tile *t, const struct attn_job *j, const struct qn_batch_seq *s, const struct place *p, int thread) {
    struct qn_cpu *b = j->b;
    const struct qn_model_desc *d = b->base.desc;
    int group = d->n_heads / d->n_kv_heads, h0 = p->cut * j->heads_of_tile, window = d->window[j->layer];
    int h1 = h0 + j->heads_of_tile < group ? h0 + j->heads_of_tile : group;
    t->nq = 0;
    t->blocks = s->blocks, t->kv = qn_kv_page_at(b, 0, j->layer, p->kvh), t->run = b->kv_run, t->page = &b->page;
    t->scale = d->attn_scale, t->softcap = d->attn_softcap;
    t->scratch = b->scratch + (size_t)thread * b->scratch_stride;
    t->records = NULL;
    for (int r = p->row; r < p->end; r++)
        for (int h = h0; h < h1; h++) {
            size_t at = (size_t)(p->kvh * group + h) * (size_t)d->head_dim;
            int pos = s->n_ctx - s->n_rows + r;
            t->col[t->nq].q = j->q->p + (size_t)(s->row0 + r) * (size_t)j->q->stride + at;
            t->col[t->nq].out = b->attn_out.p + (size_t)(s->row0 + r) * (size_t)b->attn_out.stride + at;
            t->col[t->nq].hi = pos;
            t->col[t->nq++].lo = window > 0 && pos >= window ? pos - window + 1 : 0;
        }
    t->chunk0 = t->col[0].lo / QN_ATTN_CHUNK;
    t->chunk1 = t->col[t->nq - 1].hi / QN_ATTN_CHUNK + 1;
}

static void put_rows(const struct attn_job *j, const struct qn_batch_seq *s, const struct place *p) {
    struct qn_cpu *b = j->b;
    const struct qn_model_desc *d = b->base.desc;
    int group = d->n_heads / d->n_kv_heads, h0 = p->cut * j->heads_of_tile, h1 = h0 + j->heads_of_tile < group ? h0 + j->heads_of_tile : group;
    if (!j->direct) return;
    int blocks = (h1 - h0) * d->head_dim / QN_ABLOCK, block0 = (p->kvh * group + h0) * d->head_dim / QN_ABLOCK;
    for (int r = p->row; r < p->end; r++)
        qn_act_put(b, j->out, b->batch->n_rows, s->row0 + r, block0, blocks,
                   b->attn_out.p + (size_t)(s->row0 + r) * (size_t)b->attn_out.stride + (size_t)block0 * QN_ABLOCK);
}

/* Where the records of a tile's chunk are. */
static float *records_of(const struct attn_job *j, const struct qn_attn_seq *a, int tile, int chunk) {
    size_t one = QN_ATTN_COLS * qn_attn_record(j->b->page.hd);
    return j->b->records + a->records + ((size_t)tile * (size_t)a->chunks + (size_t)(chunk - a->chunk0)) * one;
}

static void one_item(const struct attn_job *j, int seq, int i, int thread) {
    const struct qn_batch_seq *s = &j->b->batch->seqs[seq];
    const struct qn_attn_seq *a = &j->b->attn_seq[seq];
    struct qn_attn_tile t;
    struct place p = place_of(j, s, a->spans ? i / a->spans : i);
    make_tile(&t, j, s, &p, thread);
    if (a->spans) {
        int from = a->chunk0 + i % a->spans * a->per_span, to = from + a->per_span;
        if (from > t.chunk0) t.chunk0 = from;
        if (to < t.chunk1) t.chunk1 = to;
        t.records = records_of(j, a, i / a->spans, t.chunk0);
        if (t.chunk0 < t.chunk1) j->b->isa->attn(&t);
        return;
    }
    j->b->isa->attn(&t);
    put_rows(j, s, &p);
}

static void attn_range(void *arg, int begin, int end, int thread) {
    const struct attn_job *j = arg;
    const struct qn_batch *batch = j->b->batch;
    const struct qn_attn_seq *a = j->b->attn_seq;
    int lo = 0, hi = batch->n_seqs - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (a[mid].item <= begin) lo = mid;
        else hi = mid - 1;
    }
    for (int i = begin, s = lo; i < end; i++) {
        while (s + 1 < batch->n_seqs && a[s + 1].item <= i) s++;
        one_item(j, s, i - a[s].item, thread);
    }
}

static void merge_range(void *arg, int begin, int end, int thread) {
    const struct attn_job *j = arg;
    const struct qn_batch *batch = j->b->batch;
    const struct qn_attn_seq *a = j->b->attn_seq;
    for (int i = begin, s = 0; i < end; i++) {
        while (s + 1 < batch->n_seqs && a[s + 1].merge <= i) s++;
        struct qn_attn_tile t;
        struct place p = place_of(j, &batch->seqs[s], i - a[s].merge);
        make_tile(&t, j, &batch->seqs[s], &p, thread);
        t.records = records_of(j, &a[s], i - a[s].merge, t.chunk0);
        j->b->isa->attn_merge(&t);
        put_rows(j, &batch->seqs[s], &p);
    }
}

static void quant_range(void *arg, int begin, int end, int thread) {
    const struct attn_job *j = arg;
    (void)thread;
    for (int r = begin; r < end; r++)
        qn_act_put(j->b, j->out, j->b->batch->n_rows, r, 0, j->out->n_blocks, j->b->attn_out.p + (size_t)r * (size_t)j->b->attn_out.stride);
}

struct plan { int items, merges, merge_records; int64_t work; };

/* Lays out the items. A tile that holds more than 1/SPANS_A_THREAD of a thread's share is shared out in spans of chunks. */
static struct plan make_plan(const struct attn_job *j) {
    struct qn_cpu *b = j->b;
    const struct qn_batch *batch = b->batch;
    struct plan p = { 0 };
    int per_rows = b->base.desc->n_kv_heads * j->head_cuts, window = b->base.desc->window[j->layer];
    size_t records = 0, one = QN_ATTN_COLS * qn_attn_record(b->page.hd);
    for (int s = 0; s < batch->n_seqs; s++) {
        const struct qn_batch_seq *q = &batch->seqs[s];
        int first = q->n_ctx - q->n_rows, lo = window > 0 && first >= window ? first - window + 1 : 0;
        b->attn_seq[s].chunk0 = lo / QN_ATTN_CHUNK;
        b->attn_seq[s].chunks = (q->n_ctx - 1) / QN_ATTN_CHUNK - lo / QN_ATTN_CHUNK + 1;
        p.work += (int64_t)q->n_rows * (q->n_ctx - lo) * per_rows;
    }
    int64_t share = p.work / (SPANS_A_THREAD * qn_pool_threads(b->pool)) + 1;
    for (int s = 0; s < batch->n_seqs; s++) {
        const struct qn_batch_seq *q = &batch->seqs[s];
        struct qn_attn_seq *a = &b->attn_seq[s];
        int tiles = (q->n_rows + j->rows_of_tile - 1) / j->rows_of_tile * per_rows, rows = q->n_rows < j->rows_of_tile ? q->n_rows : j->rows_of_tile;
        int64_t chunk = (int64_t)rows * QN_ATTN_CHUNK;
        size_t need = (size_t)tiles * (size_t)a->chunks * one;
        int apart = qn_pool_threads(b->pool) > 1 && a->chunks > 1 && chunk * a->chunks > share && records + need <= b->records_max;
        a->item = p.items, a->merge = p.merges, a->spans = 0, a->records = records;
        if (apart) {
            a->per_span = share > chunk ? (int)(share / chunk) : 1;
            a->spans = (a->chunks + a->per_span - 1) / a->per_span;
            records += need;
            p.merges += tiles;
            p.merge_records += tiles * a->chunks * rows * j->heads_of_tile;
        }
        p.items += tiles * (apart ? a->spans : 1);
    }
    return p;
}

void qn_cpu_attention(struct qn_backend *base, int layer, const struct qn_vec *q, struct qn_act *out) {
    struct qn_cpu *b = qn_cpu_of(base);
    const struct qn_model_desc *d = b->base.desc;
    int group = d->n_heads / d->n_kv_heads, most = b->isa->attn_cols;
    struct attn_job j = { .b = b, .layer = layer, .q = q, .out = out };
    j.heads_of_tile = group < most ? group : most;
    j.head_cuts = (group + j.heads_of_tile - 1) / j.heads_of_tile;
    j.rows_of_tile = most / j.heads_of_tile;
    j.direct = j.heads_of_tile * d->head_dim % QN_ABLOCK == 0 && group * d->head_dim % QN_ABLOCK == 0;
    struct plan p = make_plan(&j);
    int64_t work = p.work * j.heads_of_tile * d->head_dim; /* multiply-adds, half of them */
    int64_t grain = work > 0 ? 64 * 1024 * (int64_t)p.items / work + 1 : 1;
    qn_pool_run(b->pool, p.items, grain < p.items ? (int)grain : p.items, attn_range, &j);
    if (p.merges) qn_pool_run(b->pool, p.merges, p.merge_records < MERGE_GRAIN ? p.merges : 1, merge_range, &j);
    if (!j.direct) qn_pool_run(b->pool, b->batch->n_rows, 16, quant_range, &j);
}
