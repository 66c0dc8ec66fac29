/* The decoder-only transformer, in the order of its equations (Vaswani et al. 2017; pre-norm and gated FFN as in
 * Llama, arXiv:2302.13971; qk-norm and post-norms as in Gemma 3, arXiv:2503.19786). Shapes: backend.h.
 *
 *   x = scale * E[token]
 *   for each layer:   a = norm(x)             q,k,v = a Wq, a Wk, a Wv (+ b)
 *                     q,k = rope(norm?(q)), rope(norm?(k))     KV pages <- k, v
 *                     x += post?(attention(q) Wo)
 *                     a = norm(x)             x += post?((act(a Wg) * (a Wu)) Wd)
 *   logits = norm(x) Wout
 *
 * Each residual is added by the norm that reads the sum next, so x is passed over once a sublayer. Once the last layer's
 * keys and values are written, only the rows whose logits are wanted go on: of a chunk of a prompt one, or none. */
#include "engine/forward.h"

#include <assert.h>
#include <stdlib.h>

struct layer_weights {
    struct qn_weight *attn_norm, *wq, *wk, *wv, *bq, *bk, *bv, *q_norm, *k_norm, *wo, *bo, *attn_post_norm;
    struct qn_weight *ffn_norm, *w_gate, *w_up, *w_down, *ffn_post_norm;
};

struct qn_forward {
    const struct qn_model *m;
    struct qn_backend *b;
    struct layer_weights *layers;
    struct qn_weight *output_norm, *output, *output_b;
    struct qn_vec *x, *y, *q, *k, *v;   /* [R, d_model] twice; [R, heads*head_dim], [R, kv_heads*head_dim] twice */
    struct qn_act *a, *attn, *ffn;      /* inputs of width d_model, heads*head_dim, d_ff */
    struct qn_batch last;               /* what is left of the batch for the end of the last layer */
    struct qn_batch_seq *last_seqs;     /* [rows_max] */
    int32_t *last_pos, *last_rows;      /* [rows_max] */
    int32_t *at;                        /* [rows_max]: where a row of the step lies in x now */
};

/* Loads one tensor; an absent one stays NULL. */
static int load(struct qn_forward *f, const struct qn_tensor *t, int vector, struct qn_weight **out, struct qn_err *err) {
    if (!t) return 0;
    int keeps = 0, rc = f->b->ops->weight(f->b, t, vector, out, &keeps, err);
    /* A tied embedding is read from the mapping for as long as the model lives. */
    if (rc == 0 && !keeps && t != f->m->token_embd) qn_gguf_forget(f->m->gguf, t);
    return rc;
}

static int load_layer(struct qn_forward *f, const struct qn_layer *l, struct layer_weights *w, struct qn_err *err) {
    const struct { const struct qn_tensor *t; int vector; struct qn_weight **out; } all[] = {
        {l->attn_norm, 1, &w->attn_norm}, {l->wq, 0, &w->wq}, {l->wk, 0, &w->wk}, {l->wv, 0, &w->wv},
        {l->bq, 1, &w->bq}, {l->bk, 1, &w->bk}, {l->bv, 1, &w->bv}, {l->q_norm, 1, &w->q_norm}, {l->k_norm, 1, &w->k_norm},
        {l->wo, 0, &w->wo}, {l->bo, 1, &w->bo}, {l->attn_post_norm, 1, &w->attn_post_norm}, {l->ffn_norm, 1, &w->ffn_norm},
        {l->w_gate, 0, &w->w_gate}, {l->w_up, 0, &w->w_up}, {l->w_down, 0, &w->w_down}, {l->ffn_post_norm, 1, &w->ffn_post_norm},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && rc == 0; i++) rc = load(f, all[i].t, all[i].vector, all[i].out, err);
    return rc;
}

static void free_layer(struct qn_forward *f, struct layer_weights *w) {
    struct qn_weight *all[] = {w->attn_norm, w->wq, w->wk, w->wv, w->bq, w->bk, w->bv, w->q_norm, w->k_norm, w->wo, w->bo,
                               w->attn_post_norm, w->ffn_norm, w->w_gate, w->w_up, w->w_down, w->ffn_post_norm};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]) f->b->ops->weight_free(f->b, all[i]);
}

static int reserve(struct qn_forward *f, struct qn_err *err) {
    const struct qn_model_desc *d = &f->m->desc;
    const struct qn_backend_ops *op = f->b->ops;
    int wide = d->n_heads * d->head_dim, kv = d->n_kv_heads * d->head_dim;
    f->x = op->vec(f->b, d->d_model);
    f->y = op->vec(f->b, d->d_model);
    f->q = op->vec(f->b, wide);
    f->k = op->vec(f->b, kv);
    f->v = op->vec(f->b, kv);
    f->a = op->act(f->b, d->d_model);
    f->attn = op->act(f->b, wide);
    f->ffn = op->act(f->b, d->d_ff);
    size_t rows = (size_t)f->b->opts.rows_max;
    f->last_seqs = calloc(rows, sizeof *f->last_seqs);
    f->last_pos = calloc(rows, sizeof *f->last_pos);
    f->last_rows = calloc(rows, sizeof *f->last_rows);
    f->at = calloc(rows, sizeof *f->at);
    int ok = f->last_seqs && f->last_pos && f->last_rows && f->at;
    if (ok && f->x && f->y && f->q && f->k && f->v && f->a && f->attn && f->ffn) return 0;
    return qn_fail(err, QN_E_NOMEM, "no memory for the activations of %d rows", f->b->opts.rows_max);
}

int qn_forward_open(struct qn_forward **out, const struct qn_model *m, struct qn_backend *b, struct qn_err *err) {
    struct qn_forward *f = calloc(1, sizeof *f);
    if (!f) return qn_fail(err, QN_E_NOMEM, "no memory for the forward pass");
    f->m = m;
    f->b = b;
    f->layers = calloc((size_t)m->desc.n_layers, sizeof *f->layers);
    int rc = f->layers ? 0 : qn_fail(err, QN_E_NOMEM, "no memory for %d layers", m->desc.n_layers);
    if (rc == 0 && b->ops->table) rc = b->ops->table(b, m->token_embd, err);
    for (int i = 0; i < m->desc.n_layers && rc == 0; i++) rc = load_layer(f, &m->layers[i], &f->layers[i], err);
    if (rc == 0) rc = load(f, m->output_norm, 1, &f->output_norm, err);
    if (rc == 0) rc = load(f, m->output ? m->output : m->token_embd, 0, &f->output, err);
    if (rc == 0) rc = load(f, m->output_b, 1, &f->output_b, err);
    if (rc == 0) rc = reserve(f, err);
    if (rc < 0) qn_forward_close(f);
    else *out = f;
    return rc;
}

void qn_forward_close(struct qn_forward *f) {
    if (!f) return;
    for (int i = 0; f->layers && i < f->m->desc.n_layers; i++) free_layer(f, &f->layers[i]);
    struct qn_weight *rest[] = {f->output_norm, f->output, f->output_b};
    for (int i = 0; i < 3; i++)
        if (rest[i]) f->b->ops->weight_free(f->b, rest[i]);
    free(f->last_seqs);
    free(f->last_pos);
    free(f->last_rows);
    free(f->at);
    free(f->layers);
    free(f);
}

/* Fills f->last with the rows whose logits are wanted. 0 when they are not the last rows of their sequences, so that no
 * batch can describe them; then all rows stay. */
static int find_last(struct qn_forward *f, const struct qn_batch *batch) {
    int n = 0, seqs = 0;
    for (int s = 0; s < batch->n_seqs; s++) {
        const struct qn_batch_seq *sq = &batch->seqs[s];
        int end = sq->row0 + sq->n_rows, from = n;
        for (; n < batch->n_out && batch->out_row[n] < end; n++) {
            f->last_rows[n] = batch->out_row[n];
            f->last_pos[n] = batch->pos[batch->out_row[n]];
        }
        if (n == from) continue;
        if (f->last_rows[n - 1] != end - 1 || f->last_rows[from] != end - (n - from)) return 0;
        f->last_seqs[seqs++] = (struct qn_batch_seq){.row0 = from, .n_rows = n - from, .n_ctx = sq->n_ctx, .blocks = sq->blocks};
    }
    f->last = (struct qn_batch){.n_rows = n, .n_seqs = seqs, .pos = f->last_pos, .seqs = f->last_seqs};
    return 1;
}

/* Leaves the wanted rows of x and q; the number of rows that are left. */
static int narrow(struct qn_forward *f, const struct qn_batch *batch) {
    int can = find_last(f, batch);
    if (can && f->last.n_rows < batch->n_rows) {
        for (int i = 0; i < f->last.n_rows; i++) f->at[f->last_rows[i]] = i;
        if (f->last.n_rows) f->b->ops->narrow(f->b, &f->last, f->last_rows, (struct qn_vec *const[]){f->x, f->q}, 2);
        return f->last.n_rows;
    }
    for (int i = 0; i < batch->n_rows; i++) f->at[i] = i;
    return batch->n_rows;
}

void qn_forward_step(struct qn_forward *f, const struct qn_batch *batch) {
    const struct qn_backend_ops *op = f->b->ops;
    const struct qn_model_desc *d = &f->m->desc;
    struct qn_backend *b = f->b;
    const struct qn_weight *post = NULL; /* norm of the sublayer before, where the family has one */
    struct qn_vec *y = NULL;             /* its output, not yet added to x */
    op->begin(b, batch);
    op->embed(b, f->x, f->m->token_embd, d->embed_scale);
    for (int i = 0; i < d->n_layers; i++) {
        const struct layer_weights *w = &f->layers[i];
        op->add_norm(b, f->x, y, post, d->residual_scale, w->attn_norm, d->norm_eps, f->a);
        const struct qn_linear qkv[3] = {{w->wq, w->bq, f->q}, {w->wk, w->bk, f->k}, {w->wv, w->bv, f->v}};
        op->linear(b, f->a, qkv, 3);
        op->rope_kv(b, i, f->q, f->k, f->v, w->q_norm, w->k_norm, d->norm_eps);
        if (i == d->n_layers - 1 && narrow(f, batch) == 0) {
            op->end(b);
            return;
        }
        op->attention(b, i, f->q, f->attn);
        y = f->y;
        op->linear(b, f->attn, &(struct qn_linear){w->wo, w->bo, y}, 1);
        op->add_norm(b, f->x, y, w->attn_post_norm, d->residual_scale, w->ffn_norm, d->norm_eps, f->a);
        op->glu(b, f->a, w->w_gate, w->w_up, d->act, f->ffn);
        op->linear(b, f->ffn, &(struct qn_linear){w->w_down, NULL, y}, 1);
        post = w->ffn_post_norm;
    }
    op->add_norm(b, f->x, y, post, d->residual_scale, NULL, d->norm_eps, NULL);
    op->end(b);
}

/* Where the wanted rows lie now. */
static const int32_t *rows_now(struct qn_forward *f, const int32_t *rows, int n) {
    assert(n >= 1 && n <= f->b->opts.out_max && n <= f->b->opts.rows_max);
    for (int i = 0; i < n; i++) f->last_rows[i] = f->at[rows[i]];
    return f->last_rows;
}

const float *qn_forward_logits(struct qn_forward *f, const int32_t *rows, int n) {
    return f->b->ops->logits(f->b, f->x, rows_now(f, rows, n), n, f->output_norm, f->m->desc.norm_eps, f->output, f->output_b);
}

const float *qn_forward_sample(struct qn_forward *f, const int32_t *rows, int n, int n_vocab, struct qn_backend_pick *picks, int n_picks) {
    return f->b->ops->sample(f->b, f->x, rows_now(f, rows, n), n, f->output_norm, f->m->desc.norm_eps, f->output, f->output_b, n_vocab, picks, n_picks);
}

int qn_forward_draw_late(struct qn_forward *f, const int32_t *rows, int n, int n_vocab, struct qn_backend_pick *picks, int n_picks) {
    if (n) rows = rows_now(f, rows, n);
    return f->b->ops->draw_late(f->b, f->x, rows, n, f->output_norm, f->m->desc.norm_eps, f->output, f->output_b, n_vocab, picks, n_picks);
}
