/* Activations on their way into matrices: the quantised records (and the f32 or bf16 form where a matrix reads it), and
 * the row operations that write them: embedding, residual and norm. Rows are spread over the threads when there are
 * enough of them to pay for it. */
#include <assert.h>
#include <string.h>

#include "engine/cpu/cpu.h"

enum { GRAIN_ELEMS = 8192 }; /* about 2 us of row work: less is not worth another thread */

static int row_grain(int width) { return width >= GRAIN_ELEMS ? 1 : GRAIN_ELEMS / width; }

static void put_pairs(const struct qn_cpu *b, uint32_t *h, int g, int block0, int blocks, int n_pairs, const float *x) {
    for (int i = block0; i < block0 + blocks; i++, x += QN_ABLOCK) {
        uint32_t pair[QN_ABLOCK / 2];
        int p0 = i * (QN_ABLOCK / 2), n = n_pairs - p0 < QN_ABLOCK / 2 ? n_pairs - p0 : QN_ABLOCK / 2;
        b->isa->to_bf16((uint16_t *)pair, x, QN_ABLOCK);
        for (int k = 0; k < n; k++) h[(size_t)(p0 + k) * (size_t)g] = pair[k];
    }
}

void qn_act_put(const struct qn_cpu *b, struct qn_act *a, int rows, int row, int block0, int blocks, const float *x) {
    int gi = qn_group_of(rows, row), r0 = qn_group_at(rows, gi), g = qn_group_at(rows, gi + 1) - r0, c = row - r0;
    if (a->need->q8) {
        uint8_t *rec = a->q + ((size_t)r0 * (size_t)a->n_blocks + (size_t)block0 * (size_t)g) * QN_AREC;
        b->isa->quant(x, blocks, rec, g, c);
    }
    if (a->need->f32) {
        int k0 = block0 * QN_ABLOCK, k1 = k0 + blocks * QN_ABLOCK < a->width ? k0 + blocks * QN_ABLOCK : a->width;
        float *f = a->f + (size_t)r0 * (size_t)a->width + c;
        for (int k = k0; k < k1; k++) f[(size_t)k * (size_t)g] = x[k - k0];
    }
    if (a->need->bf16) put_pairs(b, a->h + (size_t)r0 * (size_t)qn_pairs(a->width) + c, g, block0, blocks, qn_pairs(a->width), x);
}

struct embed_job {
    struct qn_vec *x;
    const struct qn_tensor *w;
    const int32_t *token;
    float scale;
    size_t row_bytes;
};

static void embed_range(void *arg, int begin, int end, int thread) {
    const struct embed_job *j = arg;
    (void)thread;
    for (int r = begin; r < end; r++) {
        float *x = j->x->p + (size_t)r * (size_t)j->x->stride;
        assert(j->token[r] >= 0 && (uint64_t)j->token[r] < j->w->dim[1]);
        qn_dequant(j->w->type, (const uint8_t *)j->w->data + (size_t)j->token[r] * j->row_bytes, x, (size_t)j->x->width);
        for (int i = 0; i < j->x->width; i++) x[i] *= j->scale;
    }
}

void qn_cpu_embed(struct qn_backend *base, struct qn_vec *x, const struct qn_tensor *w, float scale) {
    struct qn_cpu *b = qn_cpu_of(base);
    const struct qn_type_info *info = qn_type_info(w->type);
    assert(info && w->dim[0] == (uint64_t)x->width);
    struct embed_job j = { x, w, b->batch->token, scale, (size_t)x->width / (size_t)info->block_elems * (size_t)info->block_bytes };
    qn_pool_run(b->pool, b->batch->n_rows, row_grain(x->width), embed_range, &j);
}

void qn_cpu_narrow(struct qn_backend *base, const struct qn_batch *batch, const int32_t *rows, struct qn_vec *const *v, int n) {
    struct qn_cpu *b = qn_cpu_of(base);
    for (int k = 0; k < n; k++)
        for (int i = 0; i < batch->n_rows; i++) /* ascending, so a row never lands on one that is still to be moved */
            memmove(v[k]->p + (size_t)i * (size_t)v[k]->stride, v[k]->p + (size_t)rows[i] * (size_t)v[k]->stride, (size_t)v[k]->stride * sizeof *v[k]->p);
    b->batch = batch;
}

struct norm_job {
    struct qn_cpu *b;
    struct qn_vec *x;
    const struct qn_vec *y;
    const float *post, *gain;
    float scale, eps;
    struct qn_act *act;
};

static void norm_range(void *arg, int begin, int end, int thread) {
    const struct norm_job *j = arg;
    struct qn_cpu *b = j->b;
    float *out = j->act ? b->scratch + (size_t)thread * b->scratch_stride : NULL;
    int d = j->x->width;
    if (out) memset(out + d, 0, (size_t)(j->x->stride - d) * sizeof *out);
    for (int r = begin; r < end; r++) {
        float *x = j->x->p + (size_t)r * (size_t)j->x->stride;
        const float *y = j->y ? j->y->p + (size_t)r * (size_t)j->y->stride : NULL;
        b->isa->add_norm(x, y, j->post, j->scale, j->gain, j->eps, d, out);
        if (out) qn_act_put(b, j->act, b->batch->n_rows, r, 0, j->act->n_blocks, out);
    }
}

void qn_cpu_add_norm(struct qn_backend *base, struct qn_vec *x, const struct qn_vec *y, const struct qn_weight *post, float scale,
                     const struct qn_weight *gain, float eps, struct qn_act *act) {
    struct qn_cpu *b = qn_cpu_of(base);
    struct norm_job j = { b, x, y, post ? post->vec : NULL, gain ? gain->vec : NULL, scale, eps, act };
    assert((!y || y->width == x->width) && (!act || act->width == x->width));
    qn_pool_run(b->pool, b->batch->n_rows, row_grain(x->width), norm_range, &j);
}
