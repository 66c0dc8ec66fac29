/* Positions: the table of cosines and sines, and q, k and v of a step on their way into the KV pages.
 *
 * The table is computed in double from the model's inv_freq and filled up to the largest position that a step uses; its
 * memory is reserved when the backend opens, so a step allocates nothing. A row holds 2*rope_dim floats for adjacent
 * pairs (each cosine twice, then -sin and +sin alternating: a rotation is then one swap, one product and one fma), or
 * rope_dim floats for split halves (cosines, sines). */
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"

enum { ROWS_GRAIN_ELEMS = 8192, FILL_GRAIN = 64 };

int qn_cpu_rope_init(struct qn_cpu *b, struct qn_err *err) {
    const struct qn_model_desc *d = b->base.desc;
    b->rope_stride = (d->rope_kind == QN_ROPE_NORM ? 2 : 1) * d->rope_dim;
    for (int s = 0; s < QN_ROPE_SETS; s++) {
        if (!d->inv_freq[s] || d->rope_dim == 0) continue;
        b->rope[s] = qn_cpu_reserve(b, (size_t)b->base.opts.n_ctx * (size_t)b->rope_stride * sizeof(float));
        if (!b->rope[s]) return qn_fail(err, QN_E_NOMEM, "no memory for the RoPE table of %d positions", b->base.opts.n_ctx);
    }
    return 0;
}

struct fill_job { struct qn_cpu *b; int set, from; };

static void fill_range(void *arg, int begin, int end, int thread) {
    const struct fill_job *j = arg;
    const struct qn_model_desc *d = j->b->base.desc;
    (void)thread;
    for (int i = begin; i < end; i++) {
        int pos = j->from + i, half = d->rope_dim / 2;
        float *row = j->b->rope[j->set] + (size_t)pos * (size_t)j->b->rope_stride;
        for (int k = 0; k < half; k++) {
            double a = (double)pos * (double)d->inv_freq[j->set][k], m = (double)d->rope_mscale[j->set];
            float c = (float)(cos(a) * m), s = (float)(sin(a) * m);
            if (d->rope_kind == QN_ROPE_NORM) {
                row[2 * k] = row[2 * k + 1] = c;
                row[d->rope_dim + 2 * k] = -s, row[d->rope_dim + 2 * k + 1] = s;
            } else {
                row[k] = c, row[half + k] = s;
            }
        }
    }
}

void qn_cpu_rope_fill(struct qn_cpu *b, int n_pos) {
    for (int s = 0; s < QN_ROPE_SETS; s++) {
        if (!b->rope[s] || b->rope_filled[s] >= n_pos) continue;
        struct fill_job j = { b, s, b->rope_filled[s] };
        qn_pool_run(b->pool, n_pos - b->rope_filled[s], FILL_GRAIN, fill_range, &j);
        b->rope_filled[s] = n_pos;
    }
}

struct rope_job {
    struct qn_cpu *b;
    int layer;
    struct qn_vec *q, *k;
    const struct qn_vec *v;
    const float *q_norm, *k_norm;
    float eps;
};

static void rope_row(const struct rope_job *j, int r, int32_t block, int slot) {
    struct qn_cpu *b = j->b;
    const struct qn_model_desc *d = b->base.desc;
    const float *table = b->rope[d->rope_set[j->layer]];
    const float *cs = table ? table + (size_t)b->batch->pos[r] * (size_t)b->rope_stride : NULL;
    float *q = j->q->p + (size_t)r * (size_t)j->q->stride, *k = j->k->p + (size_t)r * (size_t)j->k->stride;
    const float *v = j->v->p + (size_t)r * (size_t)j->v->stride;
    for (int h = 0; h < d->n_heads; h++, q += d->head_dim) {
        if (j->q_norm) b->isa->head_norm(q, j->q_norm, j->eps, d->head_dim);
        if (cs) b->isa->rope(q, cs, d->rope_dim, d->rope_kind);
    }
    for (int h = 0; h < d->n_kv_heads; h++, k += d->head_dim, v += d->head_dim) {
        if (j->k_norm) b->isa->head_norm(k, j->k_norm, j->eps, d->head_dim);
        if (cs) b->isa->rope(k, cs, d->rope_dim, d->rope_kind);
        b->isa->kv_put(&b->page, qn_kv_page_at(b, block, j->layer, h), slot, k, v);
    }
}

/* The sequence that holds row r: the last one that starts at or before it. */
static int seq_of(const struct qn_batch *batch, int r) {
    int lo = 0, hi = batch->n_seqs - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (batch->seqs[mid].row0 <= r) lo = mid;
        else hi = mid - 1;
    }
    return lo;
}

static void rope_range(void *arg, int begin, int end, int thread) {
    const struct rope_job *j = arg;
    const struct qn_batch *batch = j->b->batch;
    (void)thread;
    int s = seq_of(batch, begin);
    for (int r = begin; r < end; r++) {
        if (r >= batch->seqs[s].row0 + batch->seqs[s].n_rows) s++;
        int pos = batch->pos[r];
        rope_row(j, r, batch->seqs[s].blocks[pos / QN_KV_BLOCK], pos % QN_KV_BLOCK);
    }
}

void qn_cpu_rope_kv(struct qn_backend *base, int layer, struct qn_vec *q, struct qn_vec *k, const struct qn_vec *v,
                    const struct qn_weight *q_norm, const struct qn_weight *k_norm, float eps) {
    struct qn_cpu *b = qn_cpu_of(base);
    const struct qn_model_desc *d = b->base.desc;
    struct rope_job j = { b, layer, q, k, v, q_norm ? q_norm->vec : NULL, k_norm ? k_norm->vec : NULL, eps };
    int width = (d->n_heads + 2 * d->n_kv_heads) * d->head_dim;
    qn_pool_run(b->pool, b->batch->n_rows, width >= ROWS_GRAIN_ELEMS ? 1 : ROWS_GRAIN_ELEMS / width, rope_range, &j);
}
