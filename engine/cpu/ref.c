/* The yardstick: every operation of backend.h as plain loops over dequantised weights, sums in double, KV in f32 (rounded
 * to the KV type, if one is named), one thread. Slow and obvious on purpose; the fast backends are held against it, and `device: cpu-ref` serves with it.
 *
 * Batch-invariant by construction: no loop looks at another row. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend.h"
#include "engine/quant.h"

struct qn_weight {          /* f32 [rows, cols]; a vector has rows 1 */
    int64_t rows, cols;
    float *v;
};
struct qn_vec { int width; float *v; };
struct qn_act { int width; float *v; };

struct scratch {
    struct scratch *next;
    struct qn_vec vec;
    struct qn_act act;
};

struct ref {
    struct qn_backend base;
    const struct qn_batch *batch;
    struct scratch *scratch;
    float *k, *v;           /* [kv_blocks * QN_KV_BLOCK][n_layers][n_kv_heads * head_dim] */
    float *logits, *normed, *scores; /* [out_max, n_vocab], [out_max, d_model], [n_ctx] */
    float *gate;            /* [rows_max, d_ff] */
    uint64_t bytes;
};

static struct ref *self(struct qn_backend *b) { return (struct ref *)b; }

/* --- memory ------------------------------------------------------------------------------------------------------- */

static int ref_weight(struct qn_backend *b, const struct qn_tensor *t, int vector, struct qn_weight **out, int *keeps, struct qn_err *err) {
    (void)vector;
    struct qn_weight *w = calloc(1, sizeof *w);
    uint64_t n = t->dim[0] * t->dim[1];
    if (w) w->v = malloc(n * sizeof(float));
    if (!w || !w->v) {
        free(w);
        return qn_fail(err, QN_E_NOMEM, "no memory for %.*s", (int)t->name.n, t->name.p);
    }
    w->cols = (int64_t)t->dim[0];
    w->rows = (int64_t)t->dim[1];
    qn_dequant(t->type, t->data, w->v, n);
    self(b)->bytes += n * sizeof(float);
    *keeps = 0;
    *out = w;
    return 0;
}

static void ref_weight_free(struct qn_backend *b, struct qn_weight *w) {
    (void)b;
    free(w->v);
    free(w);
}

static struct scratch *scratch(struct qn_backend *b, int width) {
    struct ref *r = self(b);
    struct scratch *s = calloc(1, sizeof *s);
    float *v = calloc((size_t)b->opts.rows_max * (size_t)width, sizeof *v);
    if (!s || !v) {
        free(s);
        free(v);
        return NULL;
    }
    s->vec.width = s->act.width = width;
    s->vec.v = s->act.v = v;
    s->next = r->scratch;
    r->scratch = s;
    r->bytes += (uint64_t)b->opts.rows_max * (uint64_t)width * sizeof *v;
    return s;
}

static struct qn_vec *ref_vec(struct qn_backend *b, int width) {
    struct scratch *s = scratch(b, width);
    return s ? &s->vec : NULL;
}

static struct qn_act *ref_act(struct qn_backend *b, int width) {
    struct scratch *s = scratch(b, width);
    return s ? &s->act : NULL;
}

static void ref_begin(struct qn_backend *b, const struct qn_batch *batch) { self(b)->batch = batch; }
static void ref_end(struct qn_backend *b) { (void)b; }

/* --- rows --------------------------------------------------------------------------------------------------------- */

/* out = x / rms(x) * gain (RMSNorm, arXiv:1910.07467); out may be x. */
static void rmsnorm(float *out, const float *x, const float *gain, int d, float eps) {
    double sum = 0;
    for (int i = 0; i < d; i++) sum += (double)x[i] * x[i];
    double scale = 1 / sqrt(sum / d + (double)eps);
    for (int i = 0; i < d; i++) out[i] = (float)(x[i] * scale) * (gain ? gain[i] : 1);
}

static void ref_embed(struct qn_backend *b, struct qn_vec *x, const struct qn_tensor *w, float scale) {
    const struct qn_batch *batch = self(b)->batch;
    int d = x->width;
    uint64_t row_bytes = w->n_bytes / w->dim[1];
    for (int r = 0; r < batch->n_rows; r++) {
        float *row = x->v + (size_t)r * (size_t)d;
        qn_dequant(w->type, (const char *)w->data + (uint64_t)batch->token[r] * row_bytes, row, (size_t)d);
        for (int i = 0; i < d; i++) row[i] *= scale;
    }
}

static void ref_add_norm(struct qn_backend *b, struct qn_vec *x, const struct qn_vec *y, const struct qn_weight *post, float scale,
                         const struct qn_weight *gain, float eps, struct qn_act *act) {
    int d = x->width;
    float *tmp = self(b)->normed;
    for (int r = 0; r < self(b)->batch->n_rows; r++) {
        float *row = x->v + (size_t)r * (size_t)d;
        if (y) {
            const float *add = y->v + (size_t)r * (size_t)d;
            if (post) {
                rmsnorm(tmp, add, post->v, d, eps);
                add = tmp;
            }
            for (int i = 0; i < d; i++) row[i] += scale * add[i];
        }
        if (act) rmsnorm(act->v + (size_t)r * (size_t)d, row, gain->v, d, eps);
    }
}

/* One fixed order for every element: eight partial sums over i mod 8, then those in pairs. */
static float dot(const float *w, const float *x, int64_t n, double start) {
    double lane[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) lane[k] += (double)w[i + k] * (double)x[i + k];
    for (int k = 0; i < n; i++, k++) lane[k] += (double)w[i] * (double)x[i];
    return (float)(start + ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])));
}

/* out[rows, w->rows] = x[rows, w->cols] . w^T + bias. Weights outside, so that they are read once a step. */
static void matmul(float *out, const float *x, int rows, const struct qn_weight *w, const struct qn_weight *bias) {
    for (int64_t o = 0; o < w->rows; o++)
        for (int r = 0; r < rows; r++)
            out[r * w->rows + o] = dot(w->v + o * w->cols, x + r * w->cols, w->cols, bias ? (double)bias->v[o] : 0);
}

static void ref_linear(struct qn_backend *b, const struct qn_act *a, const struct qn_linear *l, int n) {
    for (int k = 0; k < n; k++) matmul(l[k].out->v, a->v, self(b)->batch->n_rows, l[k].w, l[k].bias);
}

static double activation(enum qn_act_kind kind, double g) {
    if (kind == QN_ACT_SILU) return g / (1 + exp(-g));
    return 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g))); /* arXiv:1606.08415, the tanh form */
}

static void ref_glu(struct qn_backend *b, const struct qn_act *a, const struct qn_weight *gate, const struct qn_weight *up,
                    enum qn_act_kind kind, struct qn_act *out) {
    struct ref *s = self(b);
    int rows = s->batch->n_rows;
    matmul(s->gate, a->v, rows, gate, NULL);
    matmul(out->v, a->v, rows, up, NULL);
    for (size_t i = 0; i < (size_t)rows * (size_t)out->width; i++) out->v[i] = (float)(activation(kind, (double)s->gate[i]) * (double)out->v[i]);
}

/* --- attention ---------------------------------------------------------------------------------------------------- */

static float *slot(const struct ref *r, float *pool, const int32_t *blocks, int pos, int layer) {
    const struct qn_model_desc *d = r->base.desc;
    size_t width = (size_t)d->n_kv_heads * (size_t)d->head_dim;
    size_t at = (size_t)blocks[pos / QN_KV_BLOCK] * QN_KV_BLOCK + (size_t)(pos % QN_KV_BLOCK);
    return pool + (at * (size_t)d->n_layers + (size_t)layer) * width;
}

static void rotate(float *h, int pos, const struct qn_model_desc *d, int set) {
    int half = d->rope_dim / 2;
    for (int i = 0; i < half; i++) {
        double angle = (double)pos * (double)d->inv_freq[set][i], m = (double)d->rope_mscale[set];
        double c = cos(angle) * m, s = sin(angle) * m;
        int p = d->rope_kind == QN_ROPE_NEOX ? i : 2 * i, q = d->rope_kind == QN_ROPE_NEOX ? i + half : 2 * i + 1;
        double x = (double)h[p], y = (double)h[q];
        h[p] = (float)(x * c - y * s);
        h[q] = (float)(x * s + y * c);
    }
}

/* to[n] = from[n] as the type keeps it. */
static void keep(enum qn_kv_type type, float *to, const float *from, int n) {
    for (int i = 0; i < n; i += 32) {
        int m = n - i < 32 ? n - i : 32;
        float most = 0;
        for (int k = i; k < i + m; k++) most = fmaxf(most, fabsf(from[k]));
        float d = qn_f16_to_f32(qn_f32_to_f16(most / 127));
        for (int k = i; k < i + m; k++) {
            float x = from[k];
            if (type == QN_KV_F16) x = qn_f16_to_f32(qn_f32_to_f16(x > 65504 ? 65504 : x < -65504 ? -65504 : x));
            if (type == QN_KV_BF16) x = qn_bf16_to_f32(qn_f32_to_bf16(x));
            if (type == QN_KV_Q8_0) x = d > 0 ? d * fminf(127, fmaxf(-127, rintf(x / d))) : 0;
            to[k] = x;
        }
    }
}

static void ref_rope_kv(struct qn_backend *b, int layer, struct qn_vec *q, struct qn_vec *k, const struct qn_vec *v,
                        const struct qn_weight *q_norm, const struct qn_weight *k_norm, float eps) {
    struct ref *r = self(b);
    const struct qn_model_desc *d = b->desc;
    int hd = d->head_dim, set = d->rope_set[layer];
    for (int s = 0; s < r->batch->n_seqs; s++) {
        const struct qn_batch_seq *sq = &r->batch->seqs[s];
        for (int i = 0; i < sq->n_rows; i++) {
            int row = sq->row0 + i, pos = r->batch->pos[row];
            float *qr = q->v + (size_t)row * (size_t)q->width, *kr = k->v + (size_t)row * (size_t)k->width;
            for (int h = 0; h < d->n_heads + d->n_kv_heads; h++) {
                int is_q = h < d->n_heads;
                float *head = is_q ? qr + h * hd : kr + (h - d->n_heads) * hd;
                const struct qn_weight *gain = is_q ? q_norm : k_norm;
                if (gain) rmsnorm(head, head, gain->v, hd, eps);
                rotate(head, pos, d, set);
            }
            for (int h = 0; h < d->n_kv_heads * hd; h += hd) {
                keep(b->opts.kv_type, slot(r, r->k, sq->blocks, pos, layer) + h, kr + h, hd);
                keep(b->opts.kv_type, slot(r, r->v, sq->blocks, pos, layer) + h, v->v + (size_t)row * (size_t)v->width + h, hd);
            }
        }
    }
}

/* softmax(scale * q.K^T) V for one head of one row. */
static void attend(struct ref *r, int layer, const struct qn_batch_seq *sq, int pos, int kv_head, const float *q, float *out) {
    const struct qn_model_desc *d = r->base.desc;
    int hd = d->head_dim, window = d->window[layer], first = window && pos + 1 > window ? pos + 1 - window : 0;
    double most = -INFINITY, total = 0;
    for (int p = first; p <= pos; p++) {
        double s = (double)dot(slot(r, r->k, sq->blocks, p, layer) + kv_head * hd, q, hd, 0) * (double)d->attn_scale;
        if (d->attn_softcap > 0) s = (double)d->attn_softcap * tanh(s / (double)d->attn_softcap);
        r->scores[p - first] = (float)s;
        if (s > most) most = s;
    }
    double acc[1024] = {0};
    assert(hd <= 1024);
    for (int p = first; p <= pos; p++) {
        const float *v = slot(r, r->v, sq->blocks, p, layer) + kv_head * hd;
        double w = exp((double)r->scores[p - first] - most);
        total += w;
        for (int i = 0; i < hd; i++) acc[i] += w * (double)v[i];
    }
    for (int i = 0; i < hd; i++) out[i] = (float)(acc[i] / total);
}

static void ref_attention(struct qn_backend *b, int layer, const struct qn_vec *q, struct qn_act *out) {
    struct ref *r = self(b);
    const struct qn_model_desc *d = b->desc;
    int group = d->n_heads / d->n_kv_heads;
    for (int s = 0; s < r->batch->n_seqs; s++) {
        const struct qn_batch_seq *sq = &r->batch->seqs[s];
        for (int row = sq->row0; row < sq->row0 + sq->n_rows; row++)
            for (int h = 0; h < d->n_heads; h++)
                attend(r, layer, sq, r->batch->pos[row], h / group, q->v + (size_t)row * (size_t)q->width + h * d->head_dim,
                       out->v + (size_t)row * (size_t)out->width + h * d->head_dim);
    }
}

/* --- the end of a step -------------------------------------------------------------------------------------------- */

static const float *ref_logits(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain,
                               float eps, const struct qn_weight *w, const struct qn_weight *bias) {
    struct ref *r = self(b);
    const struct qn_model_desc *d = b->desc;
    for (int i = 0; i < n; i++)
        rmsnorm(r->normed + (size_t)i * (size_t)x->width, x->v + (size_t)rows[i] * (size_t)x->width, gain->v, x->width, eps);
    matmul(r->logits, r->normed, n, w, bias);
    for (size_t i = 0; i < (size_t)n * (size_t)d->n_vocab; i++) {
        float *out = &r->logits[i];
        *out *= d->logit_scale;
        if (d->logit_softcap > 0) *out = d->logit_softcap * tanhf(*out / d->logit_softcap);
    }
    return r->logits;
}

static void ref_narrow(struct qn_backend *b, const struct qn_batch *batch, const int32_t *rows, struct qn_vec *const *v, int n) {
    for (int k = 0; k < n; k++)
        for (int i = 0; i < batch->n_rows; i++)
            memmove(v[k]->v + (size_t)i * (size_t)v[k]->width, v[k]->v + (size_t)rows[i] * (size_t)v[k]->width, (size_t)v[k]->width * sizeof(float));
    self(b)->batch = batch;
}

static void ref_kv_copy(struct qn_backend *b, int32_t from, int32_t to, int n_tokens) {
    struct ref *r = self(b);
    const struct qn_model_desc *d = b->desc;
    size_t token = (size_t)d->n_layers * (size_t)d->n_kv_heads * (size_t)d->head_dim;
    size_t f = (size_t)from * QN_KV_BLOCK * token, t = (size_t)to * QN_KV_BLOCK * token, n = (size_t)n_tokens * token * sizeof(float);
    memcpy(r->k + t, r->k + f, n);
    memcpy(r->v + t, r->v + f, n);
}

static void ref_parallel(struct qn_backend *b, int n, void (*fn)(void *arg, int i), void *arg) {
    (void)b;
    for (int i = 0; i < n; i++) fn(arg, i);
}

static uint64_t kv_bytes(const struct qn_backend *b) {
    const struct qn_model_desc *d = b->desc;
    return 2ULL * (uint64_t)b->opts.kv_blocks * QN_KV_BLOCK * (uint64_t)d->n_layers * (uint64_t)d->n_kv_heads * (uint64_t)d->head_dim * sizeof(float);
}

static uint64_t ref_bytes(const struct qn_backend *b, uint64_t *kv) {
    *kv = kv_bytes(b);
    return ((const struct ref *)b)->bytes;
}

static void ref_close(struct qn_backend *b) {
    struct ref *r = self(b);
    for (struct scratch *s = r->scratch, *next; s; s = next) {
        next = s->next;
        free(s->vec.v);
        free(s);
    }
    free(r->k);
    free(r->v);
    free(r->logits);
    free(r->normed);
    free(r->scores);
    free(r->gate);
    free(r);
}

static const struct qn_backend_ops ref_ops = {
    .name = "cpu-ref", .weight = ref_weight, .weight_free = ref_weight_free, .vec = ref_vec, .act = ref_act, .begin = ref_begin,
    .end = ref_end, .embed = ref_embed, .add_norm = ref_add_norm, .linear = ref_linear, .glu = ref_glu, .rope_kv = ref_rope_kv,
    .attention = ref_attention, .logits = ref_logits, .narrow = ref_narrow, .kv_copy = ref_kv_copy, .parallel = ref_parallel, .bytes = ref_bytes,
    .close = ref_close,
};

int qn_cpu_ref_open(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err) {
    struct ref *r = calloc(1, sizeof *r);
    if (!r) return qn_fail(err, QN_E_NOMEM, "no memory for the backend");
    r->base = (struct qn_backend){.ops = &ref_ops, .desc = desc, .opts = *o, .device_name = "cpu-ref"};
    size_t half_pool = kv_bytes(&r->base) / 2, out_max = o->out_max > 0 ? (size_t)o->out_max : 1;
    r->k = calloc(1, half_pool);
    r->v = calloc(1, half_pool);
    r->logits = malloc(out_max * (size_t)desc->n_vocab * sizeof(float));
    r->normed = malloc(out_max * (size_t)desc->d_model * sizeof(float));
    r->scores = malloc((size_t)o->n_ctx * sizeof(float));
    r->gate = malloc((size_t)o->rows_max * (size_t)desc->d_ff * sizeof(float));
    if (r->k && r->v && r->logits && r->normed && r->scores && r->gate) {
        *out = &r->base;
        return 0;
    }
    ref_close(&r->base);
    return qn_fail(err, QN_E_NOMEM, "no memory for %zu bytes of KV and %d rows of logits", 2 * half_pool, o->out_max);
}
