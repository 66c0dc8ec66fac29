/* The operations that forward.c may call; filled by cpu/ (fast), cpu/ref.c (the yardstick) and cuda/.
 *
 * Activations between operations come in two forms: plain f32 arrays in memory the backend owns (struct qn_vec), and
 * `struct qn_act`, the form that the backend's matrix products eat (int8 blocks on the CPU, bf16 or int8 on a card, f32
 * in ref.c), written by norms, attention and the gated unit so that quantising costs no pass of its own. forward.c only
 * hands them on.
 *
 * BATCH-INVARIANCE is part of every contract: what a row yields is bit-identical for any n_rows, any neighbours, any
 * number of threads, and for every cut of its prompt into chunks. So each element's sum runs over its inner dimension in
 * one fixed order, whichever kernel computes it; attention walks a row's positions in one fixed order.
 *
 * Shapes are row-major. R = rows of this step. The order of calls is the order of effects. Thread: engine; the backend's
 * own compute threads are its business. Operations cannot fail: all that can fail fails in open, weight, reserve. */
#ifndef QN_BACKEND_H
#define QN_BACKEND_H

#include <stdint.h>

#include "engine/base/err.h"
#include "engine/model.h"
#include "engine/sampler.h"

enum { QN_KV_BLOCK = 16 }; /* tokens of one KV block */

/* How keys and values are kept. Q8_0: int8 with an f16 scale for each position and 32 elements of a head. AUTO: f16, but
 * f32 in ref.c, which else rounds to the type and computes on as ever. */
enum qn_kv_type { QN_KV_AUTO, QN_KV_F16, QN_KV_BF16, QN_KV_Q8_0, QN_KV_TYPES };

/* Bytes of one block, all layers. Heads are padded to 16 elements, in q8_0 to 32. */
static inline int64_t qn_kv_block_bytes(const struct qn_model_desc *d, enum qn_kv_type type) {
    int64_t pad = type == QN_KV_Q8_0 ? 32 : 16, hd = (d->head_dim + pad - 1) / pad * pad;
    return 2 * QN_KV_BLOCK * (type == QN_KV_Q8_0 ? hd + hd / 32 * 2 : hd * 2) * d->n_layers * d->n_kv_heads;
}

struct qn_backend;
struct qn_weight;           /* a matrix or vector as the backend wants it */
struct qn_act;              /* R rows ready for a matrix product */
struct qn_vec;              /* R rows of f32 */

/* One sequence's share of a step: rows [row0, row0 + n_rows) hold positions [n_ctx - n_rows, n_ctx). */
struct qn_batch_seq {
    int row0, n_rows;       /* n_rows >= 1 */
    int n_ctx;              /* positions that exist once this step's are written */
    const int32_t *blocks;  /* position p lies in blocks[p / QN_KV_BLOCK] at p % QN_KV_BLOCK */
};

struct qn_batch {
    int n_rows, n_seqs;
    const int32_t *token;   /* [n_rows], each in 0..n_vocab-1 (invariant 2: asserted); or -1 - i: what pick i of the last draw_late drew */
    const int32_t *pos;     /* [n_rows] */
    const struct qn_batch_seq *seqs; /* rows in order, no gaps */
    int n_out;              /* rows whose logits are wanted */
    const int32_t *out_row; /* [n_out], ascending */
};

struct qn_backend_opts {
    int n_threads;          /* 0: as many as there are cores, or whole cores of the control group's quota */
    const char *cores;      /* the cores to compute on, "0-3,8"; NULL or "": any */
    const char *isa;        /* NULL: best; "generic", "avx2", "avx512": force (tests) */
    int kv_blocks;          /* size of the KV pool */
    enum qn_kv_type kv_type;
    int rows_max;           /* most rows of a step */
    int seqs_max;           /* most sequences of a step; 0: rows_max */
    int out_max;            /* most rows of one logits call */
    int picks_max;          /* most picks of one sample call; 0: out_max */
    int n_ctx;              /* most positions of a sequence */
    int device;             /* card number */
};

struct qn_linear {          /* out[R, n_out] = act . w^T (+ bias) */
    const struct qn_weight *w;
    const struct qn_weight *bias;  /* NULL: none */
    struct qn_vec *out;
};

struct qn_backend_pick {    /* one draw, or one score, from a row of logits: the arguments of qn_sampler_pick and _score */
    int32_t row;            /* of the rows of the call */
    int32_t given;          /* >= 0: nothing is drawn, this id is scored */
    const struct qn_sampling *sampling;
    uint32_t branch, position;
    const uint32_t *ban;
    uint32_t n_ban;
    int host;               /* 1: the host will draw it (a mask, a token that is certain) */
    int n_top;
    struct qn_logprobs *lp; /* out; NULL: not wanted */
    int32_t id;             /* out, of a draw */
    int done;               /* out: 1: id and lp are there; 0: left to the host */
};

struct qn_backend_load {    /* how the compute threads fare beside whatever else the machine runs */
    int threads_active;     /* in use: fewer than there are while fewer are faster */
    int64_t stalled_ns;     /* waited for threads whose core somebody else had */
    uint64_t rescues;       /* such threads moved to another core */
};

struct qn_backend_ops {
    const char *name;       /* "cpu", "cpu-ref", "cuda" */

    /* Copies or repacks t; `vector` is 1 for gains and biases (becomes f32). The tensor's bytes are not needed afterwards
     * unless *keeps is set to 1 (the weight borrows them). */
    int (*weight)(struct qn_backend *b, const struct qn_tensor *t, int vector, struct qn_weight **out, int *keeps, struct qn_err *err);
    void (*weight_free)(struct qn_backend *b, struct qn_weight *w);
    /* The matrix that `embed` will read. NULL: embed reads the tensor's own bytes, which stay. */
    int (*table)(struct qn_backend *b, const struct qn_tensor *w, struct qn_err *err);
    /* Scratch of `width` f32 (vec) or inputs (act) for rows_max rows; freed with the backend. NULL: no memory. */
    struct qn_vec *(*vec)(struct qn_backend *b, int width);
    struct qn_act *(*act)(struct qn_backend *b, int width);
    /* NULL: open has made the KV pool, of opts.kv_blocks. Else the pool is made here, when all of the above is there and lies in
     * a memory of its own: of as many blocks as that still holds, at least `least` and at most `most`; *out says how many. May
     * be called again, between steps; what the old pool held is lost. */
    int (*kv_pool)(struct qn_backend *b, int least, int most, int *out, struct qn_err *err);

    /* The calling thread makes the steps from now on (loading and the warm-up may run on another). NULL: no matter. */
    void (*attach)(struct qn_backend *b);
    /* Called once before and after the operations of a step. The batch stays valid between them. */
    void (*begin)(struct qn_backend *b, const struct qn_batch *batch);
    void (*end)(struct qn_backend *b);

    /* x[R, d] = scale * row token[r] of w (a token embedding [n_vocab, d], read from the file's own layout). */
    void (*embed)(struct qn_backend *b, struct qn_vec *x, const struct qn_tensor *w, float scale);
    /* If y: x += scale * (post ? rmsnorm(y) * post : y). Then, if act: act = rmsnorm(x) * gain. y is [R, d]. */
    void (*add_norm)(struct qn_backend *b, struct qn_vec *x, const struct qn_vec *y, const struct qn_weight *post, float scale,
                     const struct qn_weight *gain, float eps, struct qn_act *act);
    /* n matrices over the same rows, in one go (q, k, v). */
    void (*linear)(struct qn_backend *b, const struct qn_act *a, const struct qn_linear *l, int n);
    /* act = kind(a . gate^T) * (a . up^T). */
    void (*glu)(struct qn_backend *b, const struct qn_act *a, const struct qn_weight *gate, const struct qn_weight *up,
                enum qn_act_kind kind, struct qn_act *out);
    /* q [R, n_heads*head_dim], k and v [R, n_kv_heads*head_dim]: RMSNorm of every q and k head if q_norm (gains
     * [head_dim], eps), RoPE on q and k, then k and v into the layer's KV pages of the batch's sequences. */
    void (*rope_kv)(struct qn_backend *b, int layer, struct qn_vec *q, struct qn_vec *k, const struct qn_vec *v,
                    const struct qn_weight *q_norm, const struct qn_weight *k_norm, float eps);
    /* act [R, n_heads*head_dim] = softmax(scale * q.K^T) V over positions max(0, p - window + 1) .. p of the row's
     * sequence; head h reads KV head h / (n_heads / n_kv_heads). */
    void (*attention)(struct qn_backend *b, int layer, const struct qn_vec *q, struct qn_act *out);
    /* Logits [n, n_vocab] f32 in host memory, valid until the next call: rmsnorm(x[rows[i]]) * gain, times w^T (+ bias),
     * logit scale and softcap applied. n <= out_max. */
    const float *(*logits)(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain,
                           float eps, const struct qn_weight *w, const struct qn_weight *bias);

    /* NULL, or logits as above and draws from them where they are, over the first n_vocab ids (sampler.h). Which picks it does is a matter
     * of each pick alone, so that neighbours change no bits. Returns the logits in host memory if some are left, else NULL. */
    const float *(*sample)(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain, float eps,
                           const struct qn_weight *w, const struct qn_weight *bias, int n_vocab, struct qn_backend_pick *picks, int n_picks);

    /* NULL both, or `sample` in two halves for a device that goes on by itself. The first hands over the draws and comes back at once; they
     * stay on the device as the tokens -1 - i of the next step, which may be handed over too, also one that copies KV blocks over those that
     * this one reads (the order of calls is the order of effects). The second waits for the older of at most two such calls and fills id and
     * lp of its picks; -1 for all if the device failed. 0 from the first: some pick is left to the host, nothing was done. n and n_picks 0: only
     * the wait. The picks' pointers but lp may go after the first half. */
    int (*draw_late)(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain, float eps,
                     const struct qn_weight *w, const struct qn_weight *bias, int n_vocab, struct qn_backend_pick *picks, int n_picks);
    void (*read_late)(struct qn_backend *b, struct qn_backend_pick *picks, int n_picks);

    /* From here to `end`, the batch is `b`, whose rows are rows[0..b->n_rows-1] (ascending) of the one before: moves these
     * rows of the n vectors v together. b->n_rows >= 1; out_row of b is not read. */
    void (*narrow)(struct qn_backend *bk, const struct qn_batch *b, const int32_t *rows, struct qn_vec *const *v, int n);

    /* Copies the first n_tokens of KV block `from` to `to`, all layers (copy on write). Outside begin/end. */
    void (*kv_copy)(struct qn_backend *b, int32_t from, int32_t to, int n_tokens);
    /* Runs fn(arg, i) for i in 0..n-1 on the compute threads and returns when all are done (sampling of many rows). */
    void (*parallel)(struct qn_backend *b, int n, void (*fn)(void *arg, int i), void *arg);

    void (*load)(const struct qn_backend *b, struct qn_backend_load *out); /* NULL: has no compute threads */
    /* NULL, or what a device said when it failed for good: every logit is NaN from then on. Operation NULL: cannot fail. */
    const char *(*lost)(const struct qn_backend *b);
    uint64_t (*bytes)(const struct qn_backend *b, uint64_t *kv_bytes); /* memory held: weights and scratch; KV pool */
    void (*close)(struct qn_backend *b);
};

struct qn_backend { /* first member of each backend's own struct */
    const struct qn_backend_ops *ops;
    const struct qn_model_desc *desc;
    struct qn_backend_opts opts;
    char device_name[64];   /* "cpu avx512-vnni x2" */
};

/* Each takes desc by reference: it must outlive the backend. */
int qn_cpu_open(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err);
int qn_cpu_ref_open(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err);

#endif
