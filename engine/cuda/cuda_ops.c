/* The operations of a step as launches. Each is a few lines: arguments from the step's descriptor, bounds from its bucket, the
 * launcher of the room that owns the kernel. None of them waits for the card but `logits`, `sample` and `read_late`, whose results the
 * host reads.
 *
 * A card that fails says so once; from then on nothing is launched and every logit is NaN, which the engine turns into a failure of
 * each request (backend.h, `lost`). Thread: engine. */
#include "engine/cuda/cuda.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/rows.h"

enum { CALL_EMBED, CALL_NORM, CALL_LINEAR, CALL_GLU, CALL_ROPE, CALL_ATTENTION };

/* --- scratch ------------------------------------------------------------------------------------------------------ */

static void op_weight_free(struct qn_backend *b, struct qn_weight *w) {
    (void)b;
    free(w); /* its data goes with the backend */
}

static struct qn_vec *op_vec(struct qn_backend *b, int width) {
    struct qn_cuda *c = qn_cuda_of(b);
    struct qn_vec *v = calloc(1, sizeof *v);
    if (!v) return NULL;
    v->next = c->vecs;
    c->vecs = v;
    return qn_cuda_vec_init(c, v, width, b->opts.rows_max) == 0 ? v : NULL;
}

static struct qn_act *op_act(struct qn_backend *b, int width) {
    struct qn_cuda *c = qn_cuda_of(b);
    struct qn_act *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    a->next = c->acts;
    c->acts = a;
    return qn_cuda_act_init(c, a, width, b->opts.rows_max) == 0 ? a : NULL;
}

/* --- the step ----------------------------------------------------------------------------------------------------- */

/* The card belongs to a thread, not to the process. */
static void op_attach(struct qn_backend *b) { qn_cuda_ok(qn_cuda_of(b), cudaSetDevice(b->opts.device)); }

uint8_t *qn_cuda_next_host(struct qn_cuda *c, struct qn_cuda_upload *u) {
    u->turn ^= 1;
    qn_cuda_ok(c, cudaEventSynchronize(u->sent[u->turn]));
    return u->host[u->turn];
}

void qn_cuda_send(struct qn_cuda *c, struct qn_cuda_upload *u, size_t n) {
    if (c->lost) return;
    qn_cuda_ok(c, cudaMemcpyAsync(u->dev, u->host[u->turn], n, cudaMemcpyHostToDevice, c->compute));
    qn_cuda_ok(c, cudaEventRecord(u->sent[u->turn], c->compute));
}

/* Tokens that the last draw left on the card, into the descriptor that has just been sent. */
static void feed(struct qn_cuda *c, const struct qn_batch *batch) {
    int r = 0;
    while (r < batch->n_rows && batch->token[r] >= 0) r++;
    if (r < batch->n_rows && !c->lost) qn_cuda_feed_tokens((int32_t *)(void *)(c->up.dev + c->layout.token), c->sampling.feed, &c->step, batch->n_rows, c->compute);
}

static void op_begin(struct qn_backend *b, const struct qn_batch *batch) {
    struct qn_cuda *c = qn_cuda_of(b);
    c->n_logits = batch->n_out < b->opts.out_max ? batch->n_out : b->opts.out_max;
    uint8_t *host = qn_cuda_next_host(c, &c->up);
    size_t n = qn_cuda_layout_fill(&c->layout, host, batch, batch->out_row, batch->n_out, c->n_logits, &c->limits, &c->plan);
    qn_cuda_send(c, &c->up, n);
    feed(c, batch);
    c->now = &c->step;
    c->rows = batch->n_rows;
    qn_cuda_graph_begin(c, batch);
}

static void op_end(struct qn_backend *b) {
    struct qn_cuda *c = qn_cuda_of(b);
    qn_cuda_graph_end(c);
    qn_cuda_ok(c, cudaGetLastError());
}

static void op_embed(struct qn_backend *b, struct qn_vec *x, const struct qn_tensor *w, float scale) {
    struct qn_cuda *c = qn_cuda_of(b);
    assert(c->table && c->table->data == w->data);
    if (qn_cuda_call(c, CALL_EMBED, w)) qn_cuda_embed(&x->d, &c->table->m, scale, c->now, c->rows, c->compute);
}

static void op_add_norm(struct qn_backend *b, struct qn_vec *x, const struct qn_vec *y, const struct qn_weight *post, float scale,
                        const struct qn_weight *gain, float eps, struct qn_act *act) {
    struct qn_cuda *c = qn_cuda_of(b);
    if (qn_cuda_call(c, CALL_NORM, gain))
        qn_cuda_add_norm(&x->d, y ? &y->d : NULL, post ? post->v : NULL, scale, gain ? gain->v : NULL, eps, act ? &act->d : NULL, c->now, c->rows, c->compute);
}

static void op_linear(struct qn_backend *b, const struct qn_act *a, const struct qn_linear *l, int n) {
    struct qn_cuda *c = qn_cuda_of(b);
    struct qn_cuda_product all[QN_CUDA_LINEAR_MAX];
    assert(n >= 1 && n <= QN_CUDA_LINEAR_MAX);
    for (int i = 0; i < n; i++) all[i] = (struct qn_cuda_product){.w = l[i].w->m, .bias = l[i].bias ? l[i].bias->v : NULL, .out = l[i].out->d};
    if (qn_cuda_call(c, CALL_LINEAR, l[0].w)) qn_cuda_linear(&a->d, all, n, c->now, c->rows, c->compute);
}

static void op_glu(struct qn_backend *b, const struct qn_act *a, const struct qn_weight *gate, const struct qn_weight *up, enum qn_act_kind kind,
                   struct qn_act *out) {
    struct qn_cuda *c = qn_cuda_of(b);
    if (!qn_cuda_call(c, CALL_GLU, gate)) return;
    qn_cuda_glu(&a->d, &gate->m, &up->m, kind == QN_ACT_GELU_TANH, &c->wide.d, c->now, c->rows, c->compute);
    qn_cuda_quantise(&c->wide.d, &out->d, c->now, c->rows, c->compute);
}

static void op_rope_kv(struct qn_backend *b, int layer, struct qn_vec *q, struct qn_vec *k, const struct qn_vec *v, const struct qn_weight *q_norm,
                       const struct qn_weight *k_norm, float eps) {
    struct qn_cuda *c = qn_cuda_of(b);
    if (!qn_cuda_call(c, CALL_ROPE, q_norm)) return;
    const struct qn_model_desc *d = b->desc;
    struct qn_cuda_rope r = {.q = q->d, .k = k->d, .v = v->d, .q_norm = q_norm ? q_norm->v : NULL, .k_norm = k_norm ? k_norm->v : NULL, .eps = eps,
                             .table = c->rope[d->rope_set[layer]], .rope_dim = d->rope_dim, .neox = d->rope_kind == QN_ROPE_NEOX, .layer = layer, .kv = c->kv};
    qn_cuda_rope_kv(&r, c->now, c->rows, c->compute);
}

static void op_attention(struct qn_backend *b, int layer, const struct qn_vec *q, struct qn_act *out) {
    struct qn_cuda *c = qn_cuda_of(b);
    if (!qn_cuda_call(c, CALL_ATTENTION, q)) return;
    struct qn_cuda_attn a = {.step = *c->now, .kv = c->kv, .q = q->d.v, .out = c->attn_out.d.v, .records = c->records, .records_max = c->limits.records_max,
                             .layer = layer, .window = b->desc->window[layer], .scale = b->desc->attn_scale, .softcap = b->desc->attn_softcap};
    if (qn_cuda_attention(&a, c->plan.n_items, c->plan.kinds, c->compute) < 0) qn_cuda_ok(c, cudaErrorLaunchFailure);
    qn_cuda_quantise(&c->attn_out.d, &out->d, c->now, c->rows, c->compute);
}

/* A second descriptor, for the rows that go on: steps of prompts only, which take milliseconds beside its copy. */
static void op_narrow(struct qn_backend *b, const struct qn_batch *batch, const int32_t *rows, struct qn_vec *const *v, int n) {
    struct qn_cuda *c = qn_cuda_of(b);
    assert(c->mode == QN_CUDA_DIRECT);
    uint8_t *host = qn_cuda_next_host(c, &c->up_narrow);
    size_t bytes = qn_cuda_layout_fill(&c->layout, host, batch, rows, batch->n_rows, 0, &c->limits, &c->plan);
    qn_cuda_send(c, &c->up_narrow, bytes);
    c->now = &c->step_narrow;
    c->rows = batch->n_rows;
    for (int i = 0; i < n && !c->lost; i++) qn_cuda_narrow(&v[i]->d, c->now, c->rows, c->compute);
}

/* --- logits ------------------------------------------------------------------------------------------------------- */

/* The descriptor of a logits call. As a rule it is on the card already: as many rows as the step's second head says, side by side. */
static struct qn_cuda_step logits_step(struct qn_cuda *c, const int32_t *rows, int n) {
    int foreseen = n == c->n_logits;
    for (int i = 0; i < n && foreseen; i++) foreseen = rows[i] == rows[0] + i;
    if (foreseen) {
        struct qn_cuda_step s = c->step_logits;
        s.out_row = c->iota + rows[0];
        return s;
    }
    uint8_t *host = qn_cuda_next_host(c, &c->up_out);
    struct qn_cuda_head head = {.n_rows = n, .n_out = n};
    memcpy(host, &head, sizeof head);
    memcpy(host + c->out_layout.out_row, rows, (size_t)n * sizeof *rows);
    qn_cuda_send(c, &c->up_out, c->out_layout.out_row + (size_t)n * sizeof *rows);
    return c->step_out;
}

void qn_cuda_make_logits(struct qn_cuda *c, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain, float eps,
                         const struct qn_weight *w, const struct qn_weight *bias) {
    const struct qn_model_desc *d = c->base.desc;
    assert(n >= 1 && n <= c->base.opts.out_max);
    struct qn_cuda_step s = logits_step(c, rows, n);
    struct qn_cuda_product l = {.w = w->m, .bias = bias ? bias->v : NULL, .out = {.width = d->n_vocab, .v = c->logits}};
    if (c->lost) return;
    qn_cuda_norm_out(&x->d, gain->v, eps, &c->out_act.d, &s, n, c->compute);
    qn_cuda_logits(&c->out_act.d, &l, d->logit_scale, d->logit_softcap, &s, n, c->compute);
}

void qn_cuda_wait(struct qn_cuda *c) {
    if (c->lost) return;
    qn_cuda_ok(c, cudaEventRecord(c->logits_done, c->compute));
    qn_cuda_ok(c, cudaEventSynchronize(c->logits_done));
    qn_cuda_ok(c, cudaGetLastError());
}

const float *qn_cuda_fetch_logits(struct qn_cuda *c, int n) {
    size_t count = (size_t)n * (size_t)c->base.desc->n_vocab;
    if (!c->lost) qn_cuda_ok(c, cudaMemcpyAsync(c->logits_host, c->logits, count * sizeof(float), cudaMemcpyDeviceToHost, c->compute));
    qn_cuda_wait(c);
    for (size_t i = 0; c->lost && i < count; i++) c->logits_host[i] = NAN;
    return c->logits_host;
}

static const float *op_logits(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain, float eps,
                              const struct qn_weight *w, const struct qn_weight *bias) {
    qn_cuda_make_logits(qn_cuda_of(b), x, rows, n, gain, eps, w, bias);
    return qn_cuda_fetch_logits(qn_cuda_of(b), n);
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

static void op_kv_copy(struct qn_backend *b, int32_t from, int32_t to, int n_tokens) {
    struct qn_cuda *c = qn_cuda_of(b);
    if (!c->lost) qn_cuda_kv_copy(&c->kv, from, to, n_tokens, c->compute);
}

static void op_parallel(struct qn_backend *b, int n, void (*fn)(void *arg, int i), void *arg) {
    (void)b;
    for (int i = 0; i < n; i++) fn(arg, i);
}

static const char *op_lost(const struct qn_backend *b) { return ((const struct qn_cuda *)b)->lost; }

static uint64_t op_bytes(const struct qn_backend *b, uint64_t *kv_bytes) {
    const struct qn_cuda *c = (const struct qn_cuda *)b;
    if (kv_bytes) *kv_bytes = c->kv_held;
    return c->held;
}

const struct qn_backend_ops qn_cuda_ops = {
#ifdef QN_CUDA_EMU
    .name = "cuda-emu",
#else
    .name = "cuda",
#endif
    .weight = qn_cuda_load, .weight_free = op_weight_free, .table = qn_cuda_table, .vec = op_vec, .act = op_act, .kv_pool = qn_cuda_kv_pool,
    .attach = op_attach, .begin = op_begin, .end = op_end, .embed = op_embed, .add_norm = op_add_norm, .linear = op_linear, .glu = op_glu,
    .rope_kv = op_rope_kv, .attention = op_attention, .logits = op_logits, .sample = qn_cuda_op_sample, .draw_late = qn_cuda_op_draw_late, .read_late = qn_cuda_op_read_late,
    .narrow = op_narrow, .kv_copy = op_kv_copy, .parallel = op_parallel,
    .lost = op_lost, .bytes = op_bytes, .close = qn_cuda_close,
};
