/* From a GGUF's metadata to a description and bound weights (model.h). A family is a row of `families`; what rows cannot
 * say (gemma's window pattern and scales) is one function named in the row.
 *
 * Numbers from the file are bounded before they are used, and every weight's shape is checked against the description,
 * so the forward pass can trust both. Key names and defaults: gguf.md and llama.cpp's llama-model.cpp (llama-cpp-python
 * 0.3.36); constants of the families: their transformers configurations. */
#include "engine/model.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rope.h"

enum {
    DIM_MOST = 1 << 18, HEADS_MOST = 4096, HEAD_DIM_MOST = 1024, VOCAB_MOST = 1 << 22, CTX_MOST = 1 << 24,
    GEMMA_PATTERN = 6, GEMMA_27B_LAYERS = 62,
};

struct reader { /* what every step of opening needs */
    struct qn_model *m;
    const struct family *f;
    uint8_t *bound;         /* for each tensor of the file: 1 once something uses it */
    struct qn_err *err;
};

struct family {
    const char *arch;
    enum qn_rope_kind rope;
    enum qn_act_kind act;
    int qkv_bias;           /* biases must be there (others may have them) */
    int qk_norm, post_norms;
    int (*finish)(struct reader *r);
};

/* --- reading numbers ---------------------------------------------------------------------------------------------- */

static void key_of(const struct reader *r, const char *suffix, char out[96]) { snprintf(out, 96, "%s.%s", r->f->arch, suffix); }

/* An integer in lo..hi. `fallback` < 0: the key must be there. */
static int read_int(struct reader *r, const char *suffix, int64_t lo, int64_t hi, int64_t fallback, int *out) {
    char key[96];
    int64_t v = fallback;
    key_of(r, suffix, key);
    int rc = qn_gguf_i64(r->m->gguf, key, &v);
    if (rc == QN_E_NOT_FOUND && fallback >= 0) v = fallback;
    else if (rc == QN_E_NOT_FOUND) return qn_fail(r->err, QN_E_DATA, "key %s is missing", key);
    else if (rc < 0) return qn_fail(r->err, QN_E_DATA, "key %s is not an integer", key);
    if (v < lo || v > hi) return qn_fail(r->err, QN_E_DATA, "key %s is %lld: %lld..%lld", key, (long long)v, (long long)lo, (long long)hi);
    *out = (int)v;
    return 0;
}

/* The same where a file may give one number for each layer: all must agree. */
static int read_int_or_layers(struct reader *r, const char *suffix, int64_t hi, int64_t fallback, int *out) {
    char key[96];
    uint64_t n = 0;
    key_of(r, suffix, key);
    if (qn_gguf_array_n(r->m->gguf, key, &n) < 0) return read_int(r, suffix, 1, hi, fallback, out);
    int64_t v[QN_LAYERS_MAX];
    if (n < 1 || n > QN_LAYERS_MAX || qn_gguf_array_i64(r->m->gguf, key, v, QN_LAYERS_MAX, &n) < 0)
        return qn_fail(r->err, QN_E_DATA, "key %s: an array of 1..%d integers", key, QN_LAYERS_MAX);
    for (uint64_t i = 0; i < n; i++)
        if (v[i] != v[0]) return qn_fail(r->err, QN_E_UNSUPPORTED, "key %s differs between layers (%lld and %lld)", key, (long long)v[0], (long long)v[i]);
    if (v[0] < 1 || v[0] > hi) return qn_fail(r->err, QN_E_DATA, "key %s is %lld: 1..%lld", key, (long long)v[0], (long long)hi);
    *out = (int)v[0];
    return 0;
}

static int read_float(struct reader *r, const char *suffix, double lo, double hi, double fallback, double *out) {
    char key[96];
    key_of(r, suffix, key);
    double v = fallback;
    int rc = qn_gguf_f64(r->m->gguf, key, &v);
    if (rc == QN_E_NOT_FOUND) v = fallback;
    else if (rc < 0) return qn_fail(r->err, QN_E_DATA, "key %s is not a number", key);
    if (!(v >= lo && v <= hi)) return qn_fail(r->err, QN_E_DATA, "key %s is %g: %g..%g", key, v, lo, hi);
    *out = v;
    return 0;
}

/* --- the description ---------------------------------------------------------------------------------------------- */

static int read_sizes(struct reader *r) {
    struct qn_model_desc *d = &r->m->desc;
    int n_experts = 0, rc = read_int(r, "expert_count", 0, 1 << 20, 0, &n_experts);
    if (rc == 0 && n_experts > 0) rc = qn_fail(r->err, QN_E_UNSUPPORTED, "key %s.expert_count is %d: mixtures of experts are not supported", r->f->arch, n_experts);
    if (rc == 0) rc = read_int(r, "block_count", 1, QN_LAYERS_MAX, -1, &d->n_layers);
    if (rc == 0) rc = read_int(r, "embedding_length", 1, DIM_MOST, -1, &d->d_model);
    if (rc == 0) rc = read_int_or_layers(r, "feed_forward_length", DIM_MOST, -1, &d->d_ff);
    if (rc == 0) rc = read_int_or_layers(r, "attention.head_count", HEADS_MOST, -1, &d->n_heads);
    if (rc == 0) rc = read_int_or_layers(r, "attention.head_count_kv", HEADS_MOST, d->n_heads, &d->n_kv_heads);
    if (rc == 0) rc = read_int(r, "context_length", 1, CTX_MOST, -1, &d->n_ctx_train);
    if (rc < 0) return rc;
    if (d->n_heads % d->n_kv_heads) return qn_fail(r->err, QN_E_DATA, "%d heads do not divide over %d KV heads", d->n_heads, d->n_kv_heads);
    int whole = d->d_model % d->n_heads == 0 && d->d_model / d->n_heads <= HEAD_DIM_MOST, value_dim;
    rc = read_int(r, "attention.key_length", 1, HEAD_DIM_MOST, whole ? d->d_model / d->n_heads : -1, &d->head_dim);
    if (rc == 0) rc = read_int(r, "attention.value_length", 1, HEAD_DIM_MOST, d->head_dim, &value_dim);
    if (rc == 0 && value_dim != d->head_dim) rc = qn_fail(r->err, QN_E_UNSUPPORTED, "keys of %d and values of %d elements a head", d->head_dim, value_dim);
    if (rc == 0) rc = read_int(r, "rope.dimension_count", 2, d->head_dim, d->head_dim, &d->rope_dim);
    if (rc == 0 && d->rope_dim % 2) rc = qn_fail(r->err, QN_E_DATA, "rope.dimension_count %d is odd", d->rope_dim);
    double eps = 0;
    if (rc == 0) rc = read_float(r, "attention.layer_norm_rms_epsilon", 0, 1, 1e-5, &eps);
    d->norm_eps = (float)eps;
    return rc;
}

static int read_scaling(struct reader *r, struct qn_rope_params *p) {
    char key[96];
    struct qn_str s;
    double factor = 1, attn = 1, ext = 1, fast = 32, slow = 1;
    key_of(r, "rope.scaling.type", key);
    int rc = read_float(r, "rope.scaling.factor", 0, 1e4, 1, &factor);
    if (rc == 0) rc = read_float(r, "rope.scaling.attn_factor", 0, 1e4, 1, &attn);
    if (rc == 0) rc = read_float(r, "rope.scaling.yarn_ext_factor", -1, 1e4, 1, &ext);
    if (rc == 0) rc = read_float(r, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32, &fast);
    if (rc == 0) rc = read_float(r, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1, &slow);
    if (rc == 0) rc = read_int(r, "rope.scaling.original_context_length", 1, CTX_MOST, r->m->desc.n_ctx_train, &p->n_ctx_orig);
    if (rc < 0) return rc;
    if (factor == 0) factor = 1; /* how writers say "none" */
    p->scaling = factor == 1 ? QN_ROPE_PLAIN : QN_ROPE_LINEAR;
    if (qn_gguf_str(r->m->gguf, key, &s) == 0) {
        if (s.n == 4 && !memcmp(s.p, "yarn", 4)) p->scaling = QN_ROPE_YARN;
        else if (s.n == 4 && !memcmp(s.p, "none", 4)) p->scaling = QN_ROPE_PLAIN;
        else if (s.n != 6 || memcmp(s.p, "linear", 6)) return qn_fail(r->err, QN_E_UNSUPPORTED, "key %s is not none, linear or yarn", key);
    }
    p->factor = factor;
    p->attn_factor = attn;
    p->ext_factor = ext < 0 ? 1 : ext;
    p->beta_fast = fast;
    p->beta_slow = slow;
    return 0;
}

static void use(struct reader *r, const struct qn_tensor *t) { r->bound[t - qn_gguf_tensor_at(r->m->gguf, 0)] = 1; }

/* Llama 3's per-pair divisors come as a tensor that a converter computed from the configuration. */
static int read_freq_factors(struct reader *r, float *out) {
    const struct qn_tensor *t = qn_gguf_tensor(r->m->gguf, "rope_freqs.weight");
    int half = r->m->desc.rope_dim / 2;
    if (!t) return 0;
    if (t->type != QN_F32 || t->n_dims != 1 || t->dim[0] != (uint64_t)half)
        return qn_fail(r->err, QN_E_DATA, "tensor rope_freqs.weight is %s [%llu] in %d dimensions, wanted F32 [%d]", qn_type_info((uint32_t)t->type)->name,
                       (unsigned long long)t->dim[0], t->n_dims, half);
    use(r, t);
    memcpy(out, t->data, (size_t)half * sizeof *out);
    for (int i = 0; i < half; i++)
        if (!(out[i] > 1e-6f && out[i] < 1e9f)) return qn_fail(r->err, QN_E_DATA, "rope_freqs.weight[%d] is %g", i, (double)out[i]);
    return 1;
}

static int make_rope(struct reader *r, int set, const struct qn_rope_params *p) {
    struct qn_model_desc *d = &r->m->desc;
    d->inv_freq[set] = calloc((size_t)p->dim / 2, sizeof(float));
    if (!d->inv_freq[set]) return qn_fail(r->err, QN_E_NOMEM, "no memory for the rope table");
    d->rope_mscale[set] = qn_rope_inv_freq(p, d->inv_freq[set]);
    return 0;
}

static int read_rope(struct reader *r) {
    float factors[HEAD_DIM_MOST];
    struct qn_rope_params p = {.dim = r->m->desc.rope_dim};
    int rc = read_float(r, "rope.freq_base", 1.0001, 1e12, 10000, &p.base);
    if (rc == 0) rc = read_scaling(r, &p);
    if (rc == 0) rc = read_freq_factors(r, factors);
    if (rc < 0) return rc;
    if (rc == 1) p.freq_factors = factors;
    return make_rope(r, 0, &p);
}

/* Gemma 3: embeddings scaled by sqrt(d), five local layers of a window to each
 * global one, local layers with their own unscaled rope. */
static int finish_gemma3(struct reader *r) {
    struct qn_model_desc *d = &r->m->desc;
    int window = 0, pattern = GEMMA_PATTERN;
    double cap = 0, local_base = 10000;
    int rc = read_int(r, "attention.sliding_window", 0, CTX_MOST, 0, &window);
    if (rc == 0) rc = read_float(r, "final_logit_softcapping", 0, 1e6, 0, &cap);
    if (rc == 0) rc = read_float(r, "rope.freq_base_swa", 1.0001, 1e12, 10000, &local_base);
    char key[96];
    key_of(r, "attention.sliding_window_pattern", key);
    uint64_t n = 0;
    int64_t local[QN_LAYERS_MAX];
    int listed = rc == 0 && qn_gguf_array_i64(r->m->gguf, key, local, QN_LAYERS_MAX, &n) == 0 && n == (uint64_t)d->n_layers;
    if (rc == 0 && !listed) rc = read_int(r, "attention.sliding_window_pattern", 1, QN_LAYERS_MAX, GEMMA_PATTERN, &pattern);
    if (rc < 0) return rc;
    d->embed_scale = sqrtf((float)d->d_model);
    if (d->n_layers == GEMMA_27B_LAYERS) d->attn_scale = 1 / sqrtf((float)(d->d_model / d->n_heads));
    d->logit_softcap = (float)cap;
    for (int i = 0; i < d->n_layers; i++) {
        int is_local = window > 0 && (listed ? local[i] != 0 : (i + 1) % pattern != 0);
        d->window[i] = is_local ? window : 0;
        d->rope_set[i] = is_local ? 1 : 0;
    }
    return make_rope(r, 1, &(struct qn_rope_params){.dim = d->rope_dim, .base = local_base, .factor = 1, .attn_factor = 1});
}

static const struct family families[] = {
    {"llama", QN_ROPE_NORM, QN_ACT_SILU, 0, 0, 0, NULL},
    {"qwen2", QN_ROPE_NEOX, QN_ACT_SILU, 1, 0, 0, NULL},
    {"qwen3", QN_ROPE_NEOX, QN_ACT_SILU, 0, 1, 0, NULL},
    {"gemma3", QN_ROPE_NEOX, QN_ACT_GELU_TANH, 0, 1, 1, finish_gemma3},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

static int find_family(struct reader *r) {
    struct qn_str s;
    if (qn_gguf_str(r->m->gguf, "general.architecture", &s) < 0) return qn_fail(r->err, QN_E_DATA, "key general.architecture is missing");
    char known[128] = "";
    for (int i = 0; i < N_FAMILIES; i++) {
        if (s.n == strlen(families[i].arch) && !memcmp(s.p, families[i].arch, s.n)) {
            r->f = &families[i];
            snprintf(r->m->desc.arch, sizeof r->m->desc.arch, "%s", families[i].arch);
            return 0;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", families[i].arch);
    }
    char shown[33] = "";
    for (size_t i = 0; i < s.n && i < sizeof shown - 1; i++) shown[i] = isprint((unsigned char)s.p[i]) ? s.p[i] : '?';
    return qn_fail(r->err, QN_E_UNSUPPORTED, "architecture '%s' is not one we know (%s)", shown, known);
}

static int describe(struct reader *r) {
    struct qn_model_desc *d = &r->m->desc;
    int rc = find_family(r);
    if (rc == 0) rc = read_sizes(r);
    if (rc < 0) return rc;
    d->embed_scale = d->logit_scale = d->residual_scale = 1;
    d->attn_scale = 1 / sqrtf((float)d->head_dim);
    d->rope_kind = r->f->rope;
    d->act = r->f->act;
    d->qk_norm = r->f->qk_norm;
    d->post_norms = r->f->post_norms;
    rc = read_rope(r);
    if (rc == 0 && r->f->finish) rc = r->f->finish(r);
    return rc;
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

/* Finds `name`; rows 0 means a vector of `cols`. Optional ones may be absent. */
static int bind(struct reader *r, const char *name, int64_t cols, int64_t rows, int optional, const struct qn_tensor **out) {
    const struct qn_tensor *t = qn_gguf_tensor(r->m->gguf, name);
    if (!t && optional) return 0;
    if (!t) return qn_fail(r->err, QN_E_DATA, "tensor %s is missing", name);
    int ok = rows ? t->n_dims == 2 && t->dim[0] == (uint64_t)cols && t->dim[1] == (uint64_t)rows : t->n_dims == 1 && t->dim[0] == (uint64_t)cols;
    if (!ok && rows)
        return qn_fail(r->err, QN_E_DATA, "tensor %s is [%llu, %llu] in %d dimensions, wanted [%lld, %lld]", name, (unsigned long long)t->dim[0],
                       (unsigned long long)t->dim[1], t->n_dims, (long long)cols, (long long)rows);
    if (!ok) return qn_fail(r->err, QN_E_DATA, "tensor %s has %llu elements in %d dimensions, wanted [%lld]", name,
                            (unsigned long long)t->dim[0], t->n_dims, (long long)cols);
    *out = t;
    use(r, t);
    r->m->desc.weight_bytes += t->n_bytes;
    r->m->desc.n_params += t->dim[0] * t->dim[1];
    return 0;
}

static int bind_layer(struct reader *r, int i) {
    const struct qn_model_desc *d = &r->m->desc;
    struct qn_layer *l = &r->m->layers[i];
    int64_t dm = d->d_model, wide = (int64_t)d->n_heads * d->head_dim, kv = (int64_t)d->n_kv_heads * d->head_dim, ff = d->d_ff;
    int no_qk = !d->qk_norm, no_post = !d->post_norms, no_bias = !r->f->qkv_bias;
    const struct { const char *name; int64_t cols, rows; int optional, skip; const struct qn_tensor **out; } all[] = {
        {"attn_norm.weight", dm, 0, 0, 0, &l->attn_norm}, {"attn_q.weight", dm, wide, 0, 0, &l->wq},
        {"attn_k.weight", dm, kv, 0, 0, &l->wk}, {"attn_v.weight", dm, kv, 0, 0, &l->wv},
        {"attn_q.bias", wide, 0, no_bias, 0, &l->bq}, {"attn_k.bias", kv, 0, no_bias, 0, &l->bk}, {"attn_v.bias", kv, 0, no_bias, 0, &l->bv},
        {"attn_q_norm.weight", d->head_dim, 0, 0, no_qk, &l->q_norm}, {"attn_k_norm.weight", d->head_dim, 0, 0, no_qk, &l->k_norm},
        {"attn_output.weight", wide, dm, 0, 0, &l->wo}, {"attn_output.bias", dm, 0, 1, 0, &l->bo},
        {"post_attention_norm.weight", dm, 0, 0, no_post, &l->attn_post_norm}, {"ffn_norm.weight", dm, 0, 0, 0, &l->ffn_norm},
        {"ffn_gate.weight", dm, ff, 0, 0, &l->w_gate}, {"ffn_up.weight", dm, ff, 0, 0, &l->w_up},
        {"ffn_down.weight", ff, dm, 0, 0, &l->w_down}, {"post_ffw_norm.weight", dm, 0, 0, no_post, &l->ffn_post_norm},
    };
    int rc = 0;
    for (size_t k = 0; k < sizeof all / sizeof *all && rc == 0; k++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", i, all[k].name);
        if (!all[k].skip) rc = bind(r, name, all[k].cols, all[k].rows, all[k].optional, all[k].out);
    }
    return rc;
}

/* A weight that nobody uses means a model that computes something else than we would: a bias that the family does not
 * have, an adapter, a head. Better no answer than a wrong one. */
static int nothing_left_over(struct reader *r) {
    for (uint64_t i = 0; i < qn_gguf_n_tensors(r->m->gguf); i++) {
        struct qn_str name = qn_gguf_tensor_at(r->m->gguf, i)->name;
        if (!r->bound[i]) return qn_fail(r->err, QN_E_UNSUPPORTED, "tensor %.*s is not one that a %s model has", (int)name.n, name.p, r->f->arch);
    }
    return 0;
}

static int bind_weights(struct reader *r) {
    struct qn_model *m = r->m;
    struct qn_model_desc *d = &m->desc;
    const struct qn_tensor *e = qn_gguf_tensor(m->gguf, "token_embd.weight");
    if (!e) return qn_fail(r->err, QN_E_DATA, "tensor token_embd.weight is missing");
    if (e->dim[1] < 1 || e->dim[1] > VOCAB_MOST) return qn_fail(r->err, QN_E_DATA, "token_embd.weight has %llu rows: 1..%d", (unsigned long long)e->dim[1], VOCAB_MOST);
    d->n_vocab = (int)e->dim[1];
    m->layers = calloc((size_t)d->n_layers, sizeof *m->layers);
    if (!m->layers) return qn_fail(r->err, QN_E_NOMEM, "no memory for %d layers", d->n_layers);
    int rc = bind(r, "token_embd.weight", d->d_model, d->n_vocab, 0, &m->token_embd);
    if (rc == 0) rc = bind(r, "output_norm.weight", d->d_model, 0, 0, &m->output_norm);
    if (rc == 0) rc = bind(r, "output.weight", d->d_model, d->n_vocab, 1, &m->output);
    if (rc == 0) rc = bind(r, "output.bias", d->n_vocab, 0, 1, &m->output_b);
    for (int i = 0; i < d->n_layers && rc == 0; i++) rc = bind_layer(r, i);
    return rc < 0 ? rc : nothing_left_over(r);
}

static void read_names(struct qn_model *m) {
    struct qn_str s;
    if (qn_gguf_str(m->gguf, "general.name", &s) < 0 || s.n == 0) s = (struct qn_str){m->desc.arch, strlen(m->desc.arch)};
    size_t n = 0;
    for (; n < s.n && n < sizeof m->desc.name - 1; n++) m->desc.name[n] = isprint((unsigned char)s.p[n]) ? s.p[n] : '?';
    m->desc.name[n] = 0;
    if (qn_gguf_str(m->gguf, "tokenizer.chat_template", &s) == 0 && s.n > 0) m->chat_template = s;
}

static int read_model(struct qn_model *m, const char *path, struct qn_err *err) {
    struct qn_err why = {0};
    struct reader r = {.m = m, .err = &why};
    uint64_t n = qn_gguf_n_tensors(m->gguf);
    r.bound = calloc(n ? n : 1, 1);
    int rc = r.bound ? describe(&r) : qn_fail(&why, QN_E_NOMEM, "no memory");
    if (rc == 0) rc = bind_weights(&r);
    free(r.bound);
    if (rc == 0) {
        read_names(m);
        return 0;
    }
    size_t len = strlen(path), from = len > 100 ? len - 100 : 0; /* the reason matters more than the head of a long path */
    return qn_fail(err, rc, "model file '%s%s': %s", from ? "..." : "", path + from, why.text);
}

int qn_model_open(struct qn_model **out, const char *path, struct qn_err *err) {
    struct qn_model *m = calloc(1, sizeof *m);
    if (!m) return qn_fail(err, QN_E_NOMEM, "no memory for the model");
    int rc = qn_gguf_open(&m->gguf, path, err);
    if (rc == 0) rc = read_model(m, path, err);
    if (rc < 0) qn_model_close(m);
    else *out = m;
    return rc;
}

void qn_model_close(struct qn_model *m) {
    if (!m) return;
    for (int i = 0; i < QN_ROPE_SETS; i++) free(m->desc.inv_freq[i]);
    free(m->layers);
    qn_gguf_close(m->gguf);
    free(m);
}
