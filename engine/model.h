/* A model: its description as data and its weights by name, every shape checked. No forward pass.
 *
 * A family is a row of a table in model.c: GGUF architecture -> the members below. Thread: const after open. */
#ifndef QN_MODEL_H
#define QN_MODEL_H

#include <stdint.h>

#include "engine/base/err.h"
#include "engine/gguf.h"

enum qn_rope_kind { QN_ROPE_NORM /* pairs (2i, 2i+1) */, QN_ROPE_NEOX /* pairs (i, i + rope_dim/2) */ };
enum qn_act_kind { QN_ACT_SILU, QN_ACT_GELU_TANH };

enum { QN_LAYERS_MAX = 512, QN_ROPE_SETS = 2 };

struct qn_model_desc {
    char arch[32];          /* "llama", "qwen2", "qwen3", "gemma3" */
    char name[96];          /* general.name, made printable */
    int n_layers, n_heads, n_kv_heads, head_dim, d_model, d_ff, n_vocab;
    int n_ctx_train;
    float norm_eps;
    float embed_scale;      /* 1, or sqrt(d_model) (gemma) */
    float attn_scale;       /* on q.k; 1/sqrt(head_dim) or the family's own */
    float attn_softcap;     /* 0: none. s = cap*tanh(s/cap) */
    float logit_softcap;    /* 0: none */
    float logit_scale;      /* 1: none (granite, command-r) */
    float residual_scale;   /* 1: none (granite) */
    int norm_plus_one;      /* gain is (1 + w); GGUF files already have it added, safetensors not */
    enum qn_rope_kind rope_kind;
    int rope_dim;           /* elements of a head that are rotated */
    enum qn_act_kind act;
    int qk_norm;            /* RMSNorm of each q and k head before RoPE (qwen3, gemma3) */
    int post_norms;         /* gemma: norms after attention and after the FFN */
    uint64_t n_params, weight_bytes;
    /* Per layer. window 0: attends to everything; else to the last `window` positions, itself included. */
    int window[QN_LAYERS_MAX];
    uint8_t rope_set[QN_LAYERS_MAX];    /* which of inv_freq[] the layer uses */
    /* inv_freq[set][i], i < rope_dim/2: radians a position, scaling (linear, llama3, yarn) already in it. */
    float *inv_freq[QN_ROPE_SETS];
    float rope_mscale[QN_ROPE_SETS];    /* multiplies cos and sin (yarn); else 1 */
};

/* Weights of one layer; NULL where the family has none. Matrices are [n_out rows, n_in contiguous] = dim[1], dim[0]. */
struct qn_layer {
    const struct qn_tensor *attn_norm, *wq, *wk, *wv, *bq, *bk, *bv, *q_norm, *k_norm, *wo, *bo, *attn_post_norm;
    const struct qn_tensor *ffn_norm, *w_gate, *w_up, *w_down, *ffn_post_norm;
};

struct qn_model {
    struct qn_model_desc desc;
    struct qn_gguf *gguf;               /* owned */
    const struct qn_tensor *token_embd, *output_norm, *output /* NULL: tied to token_embd */, *output_b;
    struct qn_layer *layers;            /* [n_layers] */
    struct qn_str chat_template;        /* p NULL: none */
};

/* Opens the file, finds the family, binds and checks every weight. An unknown architecture is QN_E_UNSUPPORTED with the
 * list of those we know. */
int qn_model_open(struct qn_model **out, const char *path, struct qn_err *err);
void qn_model_close(struct qn_model *m);

#endif
