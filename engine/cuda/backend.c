/* The CUDA backend: finding the card, opening, closing. The operations are cuda_ops.c's.
 *
 * What a step needs is made in two parts: what does not depend on the weights here in open, the rest (which form the output
 * matrix reads; attention's shared memory, which depends on the pool) by qn_cuda_finish when the first pool is made. Thread: the one
 * that opens the engine, then the engine's. */
#include "engine/cuda/cuda.h"
#include "engine/cuda/rows.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS_PER_SM = 8, CC_LEAST = 80 };

int qn_cuda_ok(struct qn_cuda *c, cudaError_t e) {
    if (e == cudaSuccess) return 0;
    if (!c->lost) c->lost = cudaGetErrorString(e);
    return -1;
}

/* --- the card ----------------------------------------------------------------------------------------------------- */

/* A driver's words, fit for a log line and a label. */
static void plain(char *out, size_t n, const char *text) {
    size_t k = 0;
    for (; text[k] && k + 1 < n; k++) out[k] = isprint((unsigned char)text[k]) && !strchr("\"\\", text[k]) ? text[k] : '?';
    out[k] = 0;
}

static int version_of(int v, char out[16]) { return snprintf(out, 16, "%d.%d", v / 1000, v % 1000 / 10); }

/* Without a driver there is no card to count, and NVIDIA's word for it is not one that helps. */
static int no_card(cudaError_t e, struct qn_err *err) {
    char driver[16], runtime[16];
    int have = 0;
    cudaDriverGetVersion(&have);
    version_of(have, driver);
    version_of(CUDART_VERSION, runtime);
    cudaGetLastError();
    if (!have) return qn_fail(err, QN_E_DEVICE, "device cuda: no NVIDIA driver is installed (libcuda.so.1 of CUDA %s or later)", runtime);
    return qn_fail(err, QN_E_DEVICE, "device cuda: %s (the driver is for CUDA %s, quern-cuda.so for %s)", cudaGetErrorString(e), driver, runtime);
}

int qn_cuda_probe(int device, struct qn_device_info *out, struct qn_err *err) {
    struct cudaDeviceProp p;
    size_t left = 0, total = 0;
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess) return no_card(e, err);
    if (device >= n) return qn_fail(err, QN_E_DEVICE, "device cuda:%d: this machine has %d cards, numbered from 0", device, n);
    if ((e = cudaGetDeviceProperties(&p, device)) != cudaSuccess || (e = cudaSetDevice(device)) != cudaSuccess || (e = cudaMemGetInfo(&left, &total)) != cudaSuccess)
        return qn_fail(err, QN_E_DEVICE, "device cuda:%d does not work: %s", device, cudaGetErrorString(e));
    if (p.major * 10 + p.minor < CC_LEAST)
        return qn_fail(err, QN_E_DEVICE, "device cuda:%d: compute capability %d.%d, at least %d.%d is needed", device, p.major, p.minor, CC_LEAST / 10, CC_LEAST % 10);
    plain(out->name, sizeof out->name, p.name);
    out->free_bytes = left;
    out->total_bytes = total;
    return 0;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static int check(const struct qn_model_desc *d, const struct qn_backend_opts *o, struct qn_err *err) {
    if (o->rows_max < 1 || o->out_max < 1 || o->n_ctx < 1)
        return qn_fail(err, QN_E_RANGE, "backend: rows_max %d, out_max %d and n_ctx %d must be at least 1", o->rows_max, o->out_max, o->n_ctx);
    if (o->kv_type == QN_KV_Q8_0) return qn_fail(err, QN_E_RANGE, "engine.kv_type: q8_0 is not for cards yet; f16 or bf16");
    if (d->head_dim < 1 || d->head_dim > 256 || d->rope_dim < 0 || d->rope_dim > d->head_dim || d->rope_dim % 2 || d->n_kv_heads < 1 || d->n_heads % d->n_kv_heads)
        return qn_fail(err, QN_E_UNSUPPORTED, "model: %d heads, %d KV heads, head size %d (at most 256 on a card), RoPE over %d elements", d->n_heads,
                       d->n_kv_heads, d->head_dim, d->rope_dim);
    return 0;
}

static int open_streams(struct qn_cuda *c) {
    int rc = qn_cuda_ok(c, cudaStreamCreateWithFlags(&c->compute, cudaStreamNonBlocking));
    if (rc == 0) rc = qn_cuda_ok(c, cudaStreamCreateWithFlags(&c->copy, cudaStreamNonBlocking));
    if (rc == 0) rc = qn_cuda_ok(c, cudaEventCreateWithFlags(&c->logits_done, cudaEventDisableTiming));
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = qn_cuda_ok(c, cudaHostAlloc((void **)&c->stage[i], QN_CUDA_STAGE, cudaHostAllocDefault));
        if (rc == 0) rc = qn_cuda_ok(c, cudaEventCreateWithFlags(&c->staged[i], cudaEventDisableTiming));
    }
    return rc;
}

int qn_cuda_upload_open(struct qn_cuda *c, struct qn_cuda_upload *u, size_t bytes) {
    int rc = (u->dev = qn_cuda_take(c, bytes)) ? 0 : -1;
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = qn_cuda_ok(c, cudaHostAlloc((void **)&u->host[i], bytes, cudaHostAllocDefault));
        if (rc == 0) rc = qn_cuda_ok(c, cudaEventCreateWithFlags(&u->sent[i], cudaEventDisableTiming));
        if (rc == 0) memset(u->host[i], 0, bytes);
    }
    return rc;
}

static void fill_iota(const void *arg, size_t at, size_t n, void *out) {
    (void)arg;
    for (size_t i = 0; i < n / sizeof(int32_t); i++) ((int32_t *)out)[i] = (int32_t)(at / sizeof(int32_t) + i);
}

/* How far back any layer looks; 0: some layer looks at everything. */
static int widest_window(const struct qn_model_desc *d) {
    int most = 0;
    for (int i = 0; i < d->n_layers; i++) {
        if (!d->window[i]) return 0;
        if (d->window[i] > most) most = d->window[i];
    }
    return most;
}

static int open_steps(struct qn_cuda *c) {
    const struct qn_backend_opts *o = &c->base.opts;
    const struct qn_model_desc *d = c->base.desc;
    c->limits = (struct qn_cuda_attn_limits){.n_heads = d->n_heads, .n_kv_heads = d->n_kv_heads, .head_dim = d->head_dim, .window = widest_window(d),
                                             .n_sms = c->n_sms, .records_max = RECORDS_PER_SM * c->n_sms};
    c->limits.items_max = qn_cuda_attn_items(&c->limits, o->rows_max);
    qn_cuda_layout_init(&c->layout, o->rows_max, o->seqs_max, o->n_ctx, c->limits.items_max);
    qn_cuda_layout_init(&c->out_layout, o->rows_max, 0, 0, 0);
    int rc = qn_cuda_upload_open(c, &c->up, c->layout.bytes);
    if (rc == 0) rc = qn_cuda_upload_open(c, &c->up_narrow, c->layout.bytes);
    if (rc == 0) rc = qn_cuda_upload_open(c, &c->up_out, c->out_layout.bytes);
    if (rc < 0) return rc;
    qn_cuda_layout_step(&c->layout, c->up.dev, &c->step, &c->step_logits);
    qn_cuda_layout_step(&c->layout, c->up_narrow.dev, &c->step_narrow, NULL);
    qn_cuda_layout_step(&c->out_layout, c->up_out.dev, &c->step_out, NULL);
    size_t iota = (size_t)o->rows_max * sizeof *c->iota;
    if (!(c->iota = qn_cuda_take(c, iota))) return -1;
    return qn_cuda_fill(c, c->iota, iota, sizeof *c->iota, fill_iota, NULL);
}

struct rope { const struct qn_model_desc *d; int set; };

static void fill_rope(const void *arg, size_t at, size_t n, void *out) {
    const struct rope *r = arg;
    size_t row = (size_t)r->d->rope_dim * sizeof(float);
    qn_cuda_rope_table(out, r->d->inv_freq[r->set], r->d->rope_dim, r->d->rope_mscale[r->set], (int)(at / row), (int)((at + n) / row));
}

static int open_rope(struct qn_cuda *c) {
    const struct qn_model_desc *d = c->base.desc;
    size_t row = (size_t)d->rope_dim * sizeof(float), bytes = (size_t)c->base.opts.n_ctx * row;
    for (int s = 0; s < QN_ROPE_SETS && bytes; s++) {
        if (!d->inv_freq[s]) continue;
        if (!(c->rope[s] = qn_cuda_take(c, bytes)) || qn_cuda_fill(c, c->rope[s], bytes, row, fill_rope, &(struct rope){d, s}) < 0) return -1;
    }
    return 0;
}

static int open_scratch(struct qn_cuda *c) {
    const struct qn_backend_opts *o = &c->base.opts;
    const struct qn_model_desc *d = c->base.desc;
    size_t logits = (size_t)o->out_max * (size_t)d->n_vocab * sizeof(float);
    c->logits = qn_cuda_take(c, logits);
    c->records = qn_cuda_take(c, (size_t)qn_cuda_attn_record_bytes(&c->kv, c->limits.records_max));
    int ok = c->logits && c->records && qn_cuda_vec_init(c, &c->wide, d->d_ff, o->rows_max) == 0 &&
             qn_cuda_vec_init(c, &c->attn_out, d->n_heads * d->head_dim, o->rows_max) == 0;
    return ok && qn_cuda_ok(c, cudaHostAlloc((void **)&c->logits_host, logits, cudaHostAllocDefault)) == 0 ? 0 : -1;
}

static void open_kv(struct qn_cuda *c) {
    const struct qn_model_desc *d = c->base.desc;
    c->kv = (struct qn_cuda_kv){.n_layers = d->n_layers, .n_kv_heads = d->n_kv_heads, .n_heads = d->n_heads, .head_dim = d->head_dim,
                                .head_pad = (d->head_dim + 15) / 16 * 16, .is_bf16 = c->base.opts.kv_type == QN_KV_BF16};
}

int qn_cuda_finish(struct qn_cuda *c, struct qn_err *err) {
    if (!c->out_act.d.width) {
        if (qn_cuda_act_init(c, &c->out_act, c->base.desc->d_model, c->base.opts.out_max) < 0)
            return qn_fail(err, QN_E_NOMEM, "%s has no memory for the logits' rows", c->base.device_name);
        if (qn_cuda_matmul_init() < 0 || qn_cuda_attention_open(&c->kv) < 0)
            return qn_fail(err, QN_E_DEVICE, "%s refuses the shared memory that the kernels need: %s", c->base.device_name, cudaGetErrorString(cudaGetLastError()));
    }
    return qn_cuda_ok(c, cudaStreamSynchronize(c->copy)) < 0 || qn_cuda_ok(c, cudaStreamSynchronize(c->compute)) < 0
               ? qn_fail(err, QN_E_DEVICE, "%s failed while loading: %s", c->base.device_name, c->lost) : 0;
}

static int name_device(struct qn_cuda *c, int device, struct qn_err *err) {
    struct qn_device_info info;
    struct cudaDeviceProp p;
    int rc = qn_cuda_probe(device, &info, err);
    if (rc < 0) return rc;
    cudaGetDeviceProperties(&p, device);
    c->n_sms = p.multiProcessorCount > 0 ? p.multiProcessorCount : 1;
    snprintf(c->base.device_name, sizeof c->base.device_name, "%s:%d %.40s sm_%d%d", qn_cuda_ops.name, device, info.name, p.major, p.minor);
    return 0;
}

int qn_cuda_open(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err) {
    int rc = check(desc, o, err);
    if (rc < 0) return rc;
    struct qn_cuda *c = calloc(1, sizeof *c);
    if (!c) return qn_fail(err, QN_E_NOMEM, "no memory for the CUDA backend");
    c->base = (struct qn_backend){.ops = &qn_cuda_ops, .desc = desc, .opts = *o};
    c->base.opts.n_threads = 1;
    if (o->picks_max < 1) c->base.opts.picks_max = o->out_max;
    if (o->seqs_max < 1 || o->seqs_max > o->rows_max) c->base.opts.seqs_max = o->rows_max;
    open_kv(c);
    rc = name_device(c, o->device, err);
    if (rc == 0 && (open_streams(c) < 0 || open_steps(c) < 0 || open_scratch(c) < 0 || open_rope(c) < 0 || qn_cuda_sample_open(c, c->base.opts.picks_max) < 0))
        rc = qn_fail(err, c->lost ? QN_E_DEVICE : QN_E_NOMEM, "%s has no memory for the scratch of %d rows%s%s", c->base.device_name, o->rows_max,
                     c->lost ? ": " : "", c->lost ? c->lost : "");
    if (rc < 0) qn_cuda_close(&c->base);
    else *out = &c->base;
    return rc;
}

/* --- closing: in reverse, and half-built ones too ----------------------------------------------------------------- */

static void close_upload(struct qn_cuda_upload *u) {
    for (int i = 0; i < 2; i++) {
        if (u->host[i]) cudaFreeHost(u->host[i]);
        if (u->sent[i]) cudaEventDestroy(u->sent[i]);
    }
}

void qn_cuda_close(struct qn_backend *b) {
    struct qn_cuda *c = qn_cuda_of(b);
    if (!c) return;
    if (c->compute) cudaStreamSynchronize(c->compute);
    if (c->copy) cudaStreamSynchronize(c->copy);
    qn_cuda_graphs_drop(c);
    if (c->kv.pages) cudaFree(c->kv.pages);
    for (int i = 0; i < c->n_taken; i++) cudaFree(c->taken[i]);
    close_upload(&c->up);
    close_upload(&c->up_narrow);
    close_upload(&c->up_out);
    close_upload(&c->up_picks);
    for (int i = 0; i < 2; i++) {
        if (c->stage[i]) cudaFreeHost(c->stage[i]);
        if (c->staged[i]) cudaEventDestroy(c->staged[i]);
        if (c->picked_host[i]) cudaFreeHost(c->picked_host[i]);
        if (c->picked[i]) cudaEventDestroy(c->picked[i]);
    }
    if (c->logits_host) cudaFreeHost(c->logits_host);
    if (c->logits_done) cudaEventDestroy(c->logits_done);
    if (c->copy) cudaStreamDestroy(c->copy);
    if (c->compute) cudaStreamDestroy(c->compute);
    for (struct qn_vec *v = c->vecs, *next; v; v = next) next = v->next, free(v);
    for (struct qn_act *a = c->acts, *next; a; a = next) next = a->next, free(a);
    free(c->table);
    free(c->taken);
    free(c);
}
