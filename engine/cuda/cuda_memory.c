/* Memory of the card: scratch, weights on their way into it, the KV pool. Everything that can lack memory does so here, before
 * the first step.
 *
 * A weight is repacked tile by tile into one of two pinned buffers and uploaded from there, so that the card's engine copies
 * one buffer while this thread fills the other. Copies through pinned memory in stream order need no wait but for the buffer's reuse. */
#include "engine/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

#include "engine/quant.h"

/* Free memory that stays free: graphs, and kernels that the driver loads at their first launch, come after the pool. */
static const uint64_t SPARE_BYTES = 256ULL << 20;
enum { SPARE_PART = 64 /* and this part of the card */, QN_CUDA_STRIDE = 128 /* inputs of an act are padded to: step.h */ };

void *qn_cuda_take(struct qn_cuda *c, size_t bytes) {
    void *p = NULL;
    if (c->n_taken == c->taken_cap) {
        int cap = c->taken_cap ? 2 * c->taken_cap : 256;
        void **more = realloc(c->taken, (size_t)cap * sizeof *more);
        if (!more) return NULL;
        c->taken = more;
        c->taken_cap = cap;
    }
    if (cudaMalloc(&p, bytes) != cudaSuccess) {
        cudaGetLastError(); /* lack of memory is our caller's to tell, not a failed card */
        return NULL;
    }
    c->taken[c->n_taken++] = p;
    c->held += bytes;
    return qn_cuda_ok(c, cudaMemsetAsync(p, 0, bytes, c->compute)) == 0 ? p : NULL;
}

/* --- activations -------------------------------------------------------------------------------------------------- */

int qn_cuda_vec_init(struct qn_cuda *c, struct qn_vec *v, int width, int rows) {
    v->d.width = width;
    v->d.v = qn_cuda_take(c, (size_t)rows * (size_t)width * sizeof(float));
    return v->d.v ? 0 : QN_E_NOMEM;
}

static int need_of(const struct qn_cuda *c, int width) {
    for (int i = 0; i < c->n_widths; i++)
        if (c->width[i].width == width) return c->width[i].need;
    return QN_CUDA_NEED_Q;
}

static int add_need(struct qn_cuda *c, int width, int need) {
    for (int i = 0; i < c->n_widths; i++)
        if (c->width[i].width == width) {
            c->width[i].need |= need;
            return 0;
        }
    if (c->n_widths == QN_CUDA_WIDTHS) return QN_E_UNSUPPORTED;
    c->width[c->n_widths].width = width;
    c->width[c->n_widths++].need = need;
    return 0;
}

/* The integer form is always there; the 16-bit ones if a loaded matrix of this width reads them. */
int qn_cuda_act_init(struct qn_cuda *c, struct qn_act *a, int width, int rows) {
    int need = need_of(c, width), stride = (width + QN_CUDA_STRIDE - 1) / QN_CUDA_STRIDE * QN_CUDA_STRIDE;
    size_t n = (size_t)rows * (size_t)stride;
    a->d = (struct qn_cuda_act){.width = width, .stride = stride};
    a->d.q = qn_cuda_take(c, n);
    a->d.d = qn_cuda_take(c, n / 32 * sizeof(float));
    a->d.sum = qn_cuda_take(c, n / 16 * sizeof(int16_t));
    int ok = a->d.q && a->d.d && a->d.sum;
    if (need & QN_CUDA_NEED_F16) {
        a->d.h[0] = qn_cuda_take(c, n * sizeof(uint16_t));
        a->d.h_scale = qn_cuda_take(c, (size_t)rows * sizeof(float));
        ok = ok && a->d.h[0] && a->d.h_scale;
    }
    if (need & QN_CUDA_NEED_BF16) ok = ok && (a->d.h[1] = qn_cuda_take(c, n * sizeof(uint16_t))) != NULL;
    return ok ? 0 : QN_E_NOMEM;
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

/* Device memory is zeroed on `compute` and filled on `copy`: the zeros come first. */
int qn_cuda_fill(struct qn_cuda *c, void *to, size_t bytes, size_t grain, void (*fill)(const void *arg, size_t at, size_t n, void *out), const void *arg) {
    size_t part = QN_CUDA_STAGE / grain * grain;
    int rc = qn_cuda_ok(c, cudaStreamSynchronize(c->compute));
    for (size_t at = 0; at < bytes && rc == 0; at += part) {
        size_t n = bytes - at < part ? bytes - at : part;
        int i = c->stage_turn ^= 1;
        rc = qn_cuda_ok(c, cudaEventSynchronize(c->staged[i])); /* until the card has read what it held */
        if (rc < 0) break;
        fill(arg, at, n, c->stage[i]);
        rc = qn_cuda_ok(c, cudaMemcpyAsync((uint8_t *)to + at, c->stage[i], n, cudaMemcpyHostToDevice, c->copy));
        if (rc == 0) rc = qn_cuda_ok(c, cudaEventRecord(c->staged[i], c->copy));
    }
    return rc;
}

static int no_room(const struct qn_tensor *t, struct qn_err *err) {
    return qn_fail(err, QN_E_NOMEM, "the card has no memory for %.*s", (int)t->name.n, t->name.p);
}

static int broken(struct qn_cuda *c, struct qn_err *err) { return qn_fail(err, QN_E_DEVICE, "%s failed while loading: %s", c->base.device_name, c->lost); }

static void fill_vector(const void *arg, size_t at, size_t n, void *out) {
    const struct qn_tensor *t = arg;
    const struct qn_type_info *info = qn_type_info(t->type);
    size_t from = at / sizeof(float) / (size_t)info->block_elems * (size_t)info->block_bytes;
    qn_dequant(t->type, (const uint8_t *)t->data + from, out, n / sizeof(float));
}

static int load_vector(struct qn_cuda *c, struct qn_weight *w, const struct qn_tensor *t, struct qn_err *err) {
    size_t bytes = (size_t)(t->dim[0] * t->dim[1]) * sizeof(float);
    w->v = qn_cuda_take(c, bytes);
    if (!w->v) return no_room(t, err);
    return qn_cuda_fill(c, w->v, bytes, (size_t)qn_type_info(t->type)->block_elems * sizeof(float), fill_vector, t) < 0 ? broken(c, err) : 0;
}

struct matrix { const struct qn_cuda_weight *w; const struct qn_tensor *t; };

static void fill_matrix(const void *arg, size_t at, size_t n, void *out) {
    const struct matrix *m = arg;
    qn_cuda_weight_repack(m->w, m->t, (int)(at / m->w->tile_bytes), (int)(n / m->w->tile_bytes), out);
}

static int load_matrix(struct qn_cuda *c, struct qn_weight *w, const struct qn_tensor *t, struct qn_err *err) {
    int rc = qn_cuda_weight_plan(&w->m, t, err);
    if (rc < 0) return rc;
    if (w->m.tile_bytes > QN_CUDA_STAGE || add_need(c, w->m.n_in, qn_cuda_form_need(w->m.form)) < 0)
        return qn_fail(err, QN_E_UNSUPPORTED, "%.*s: %d inputs are too many for a card, or matrices have more than %d widths", (int)t->name.n, t->name.p,
                       w->m.n_in, QN_CUDA_WIDTHS);
    size_t bytes = (size_t)w->m.n_tiles * w->m.tile_bytes;
    uint8_t *tiles = qn_cuda_take(c, bytes);
    if (!tiles) return no_room(t, err);
    w->m.tiles = tiles;
    return qn_cuda_fill(c, tiles, bytes, w->m.tile_bytes, fill_matrix, &(struct matrix){&w->m, t}) < 0 ? broken(c, err) : 0;
}

int qn_cuda_load(struct qn_backend *b, const struct qn_tensor *t, int vector, struct qn_weight **out, int *keeps, struct qn_err *err) {
    struct qn_cuda *c = qn_cuda_of(b);
    struct qn_weight *w = calloc(1, sizeof *w);
    if (!w) return qn_fail(err, QN_E_NOMEM, "no memory for %.*s", (int)t->name.n, t->name.p);
    int rc = 0;
    if (!vector && c->table && c->table->data == t->data) w->m = c->table->m; /* tied */
    else rc = vector ? load_vector(c, w, t, err) : load_matrix(c, w, t, err);
    w->data = t->data;
    *keeps = 0;
    if (rc < 0) free(w); /* what it took goes with the backend */
    else *out = w;
    return rc;
}

int qn_cuda_table(struct qn_backend *b, const struct qn_tensor *t, struct qn_err *err) {
    int keeps;
    return qn_cuda_load(b, t, 0, &qn_cuda_of(b)->table, &keeps, err);
}

/* --- the KV pool -------------------------------------------------------------------------------------------------- */

/* Blocks for which there is room, with something to spare. */
static int64_t room(struct qn_cuda *c, int64_t block_bytes) {
    size_t left = 0, total = 0;
    if (qn_cuda_ok(c, cudaMemGetInfo(&left, &total)) < 0) return 0;
    uint64_t spare = SPARE_BYTES + total / SPARE_PART;
    return left > spare ? (int64_t)((left - spare) / (uint64_t)block_bytes) : 0;
}

/* The old pool and what points to it go first. */
static void drop_pool(struct qn_cuda *c) {
    cudaStreamSynchronize(c->compute);
    qn_cuda_graphs_drop(c);
    if (c->kv.pages) cudaFree(c->kv.pages);
    c->kv.pages = NULL;
    c->kv_held = 0;
}

int qn_cuda_kv_pool(struct qn_backend *b, int least, int most, int *out, struct qn_err *err) {
    struct qn_cuda *c = qn_cuda_of(b);
    int64_t block = qn_kv_block_bytes(b->desc, b->opts.kv_type), n = most;
    void *p = NULL;
    drop_pool(c);
    if (most > least && room(c, block) < n) n = room(c, block);
    if (n < least) n = least;
    if (cudaMalloc(&p, (size_t)(n * block)) != cudaSuccess) {
        cudaGetLastError();
        return qn_fail(err, QN_E_NOMEM, "%s has no memory for %lld KV blocks (%lld MiB) beside the model", b->device_name, (long long)n, (long long)((n * block) >> 20));
    }
    c->kv.pages = p;
    c->kv_held = (uint64_t)(n * block);
    b->opts.kv_blocks = *out = (int)n;
    return qn_cuda_finish(c, err);
}
