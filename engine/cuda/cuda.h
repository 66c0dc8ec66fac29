/* What the host files of the CUDA backend share: backend.c (opening, closing), cuda_ops.c (the operations of a step),
 * cuda_memory.c (memory, weights, the KV pool), cuda_step.c (a step's descriptor), cuda_graph.c (captured steps).
 *
 * STREAMS. `compute` carries everything that a step does, the upload of its descriptor and the download of logits included, so
 * that the order of calls is the order of effects; `copy` uploads weights while the next ones are repacked. The default
 * stream is never used, and nothing waits for the card between begin and end. So a step may be handed over while the one before runs:
 * its KV blocks may be those that the other gave up, its tokens those that the other draws. Thread: the owner's. */
#ifndef QN_CUDA_CUDA_H
#define QN_CUDA_CUDA_H

#include <stddef.h>

#include "engine/backend.h"
#include "engine/cuda/cuda_step.h"
#include "engine/cuda/matmul.h"
#include "engine/device.h"
#include "engine/cuda/runtime.h"
#include "engine/cuda/sample.h"
#include "engine/cuda/step.h"

enum {
    QN_CUDA_WIDTHS = 16,            /* different numbers of inputs that a model's matrices have */
    QN_CUDA_STAGE = 8 << 20,        /* bytes of one of the two pinned buffers through which weights go */
    QN_CUDA_GRAPHS = 96,
};

struct qn_weight {
    struct qn_cuda_weight m;        /* a matrix; or */
    float *v;                       /* a vector on the card, else NULL */
    const void *data;               /* of the tensor, to know it again (tied embeddings) */
};
struct qn_vec { struct qn_cuda_vec d; struct qn_vec *next; };
struct qn_act { struct qn_cuda_act d; struct qn_act *next; };

/* A descriptor on the card and the pinned memory it is uploaded from, twice: while one is on its way the next is filled. */
struct qn_cuda_upload {
    uint8_t *host[2], *dev;
    cudaEvent_t sent[2];            /* the copy that last read host[i] is done */
    int turn;
};

/* A step that was captured: the same calls for up to `rows` rows and `items` items of attention. */
struct qn_cuda_graph {
    int rows, items, kinds;         /* QN_CUDA_ATTN_* */
    uint64_t calls;                 /* what was called, as one number */
    cudaGraphExec_t exec;
};

enum qn_cuda_mode { QN_CUDA_DIRECT /* calls launch */, QN_CUDA_CAPTURE /* they go into a graph */, QN_CUDA_REPLAY /* they do nothing */ };

struct qn_cuda {
    struct qn_backend base;
    int n_sms;
    cudaStream_t compute, copy;
    const char *lost;               /* what the card said when it failed; NULL: it works */

    void **taken;                   /* device memory, freed by close */
    int n_taken, taken_cap;
    uint64_t held, kv_held;
    uint8_t *stage[2];              /* pinned */
    cudaEvent_t staged[2];
    int stage_turn;
    struct { int width, need; } width[QN_CUDA_WIDTHS]; /* the forms (QN_CUDA_NEED_*) that matrices of so many inputs read */
    int n_widths;
    struct qn_weight *table;        /* what embed reads; the output matrix too where it is tied */
    struct qn_vec *vecs;
    struct qn_act *acts;

    struct qn_cuda_kv kv;
    float *rope[QN_ROPE_SETS];      /* cosines and sines of every position */
    struct qn_vec wide, attn_out;   /* [rows_max, d_ff]; [rows_max, heads * head_dim] */
    struct qn_act out_act;          /* [out_max, d_model] */
    float *logits, *logits_host;    /* [out_max, n_vocab], on the card and pinned */
    cudaEvent_t logits_done;
    struct qn_cuda_upload up_picks;
    struct qn_cuda_sampling sampling;
    struct qn_cuda_picked *picked_host[2]; /* pinned; what draw n put there is n % 2's */
    cudaEvent_t picked[2];          /* it is there */
    unsigned n_drawn, n_read;       /* calls of draw_late; those that were read */

    struct qn_cuda_layout layout, out_layout; /* of steps; of logits calls that the step's descriptor did not foresee */
    struct qn_cuda_upload up, up_narrow, up_out;
    struct qn_cuda_step step, step_narrow, step_out, step_logits; /* device addresses within up, up_narrow, up_out; up's second head */
    int32_t *iota;                  /* 0, 1, … rows_max - 1 on the card */
    const struct qn_cuda_step *now; /* step or step_narrow */
    int rows;                       /* bound of the launches: the rows of this step, or of its bucket */
    struct qn_cuda_attn_limits limits;
    struct qn_cuda_attn_plan plan;  /* n_items: of this step, or of its bucket */
    float *records;
    int n_logits;                   /* that up's second head speaks of */

    enum qn_cuda_mode mode;
    struct qn_cuda_graph graph[QN_CUDA_GRAPHS];
    int n_graphs, no_graphs;
    struct qn_cuda_graph *graph_now; /* REPLAY, CAPTURE: which */
    uint64_t calls;
    uint64_t captures, replays;
};

static inline struct qn_cuda *qn_cuda_of(struct qn_backend *b) { return (struct qn_cuda *)b; }

/* Keeps the first error; 0 or -1. */
int qn_cuda_ok(struct qn_cuda *c, cudaError_t e);

/* cuda_memory.c. Memory that close frees; zeros. NULL: none left. */
void *qn_cuda_take(struct qn_cuda *c, size_t bytes);
int qn_cuda_act_init(struct qn_cuda *c, struct qn_act *a, int width, int rows);
int qn_cuda_vec_init(struct qn_cuda *c, struct qn_vec *v, int width, int rows);
int qn_cuda_load(struct qn_backend *b, const struct qn_tensor *t, int vector, struct qn_weight **out, int *keeps, struct qn_err *err);
int qn_cuda_table(struct qn_backend *b, const struct qn_tensor *t, struct qn_err *err);
int qn_cuda_kv_pool(struct qn_backend *b, int least, int most, int *out, struct qn_err *err);

/* Host bytes to the card by way of the pinned buffers; 0 or -1. `fill` writes bytes at .. at + n - 1 of them; `grain` divides the cuts. */
int qn_cuda_fill(struct qn_cuda *c, void *to, size_t bytes, size_t grain, void (*fill)(const void *arg, size_t at, size_t n, void *out), const void *arg);

/* cuda_graph.c. Between the upload and the first operation; picks the mode and sets rows and items to the bucket's. */
void qn_cuda_graph_begin(struct qn_cuda *c, const struct qn_batch *batch);
void qn_cuda_graph_end(struct qn_cuda *c);
void qn_cuda_graphs_drop(struct qn_cuda *c);
/* Notes a call; 1: launch it. */
int qn_cuda_call(struct qn_cuda *c, int kind, const void *what);

/* cuda_ops.c */
extern const struct qn_backend_ops qn_cuda_ops;
/* The host buffer whose last copy is over: that was two uploads ago, so nobody waits. send: its first n bytes, in `compute`'s order. */
uint8_t *qn_cuda_next_host(struct qn_cuda *c, struct qn_cuda_upload *u);
void qn_cuda_send(struct qn_cuda *c, struct qn_cuda_upload *u, size_t n);
/* Logits on the card; in host memory, NaN if the card is lost. Waits for everything before. */
void qn_cuda_make_logits(struct qn_cuda *c, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain, float eps,
                         const struct qn_weight *w, const struct qn_weight *bias);
const float *qn_cuda_fetch_logits(struct qn_cuda *c, int n);
void qn_cuda_wait(struct qn_cuda *c);

/* cuda_sample.c */
int qn_cuda_sample_open(struct qn_cuda *c, int picks_max);
const float *qn_cuda_op_sample(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n_rows, const struct qn_weight *gain, float eps,
                               const struct qn_weight *w, const struct qn_weight *bias, int n_vocab, struct qn_backend_pick *picks, int n);
int qn_cuda_op_draw_late(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n_rows, const struct qn_weight *gain, float eps,
                         const struct qn_weight *w, const struct qn_weight *bias, int n_vocab, struct qn_backend_pick *picks, int n);
void qn_cuda_op_read_late(struct qn_backend *b, struct qn_backend_pick *picks, int n);

/* backend.c */
int qn_cuda_upload_open(struct qn_cuda *c, struct qn_cuda_upload *u, size_t bytes);
int qn_cuda_probe(int device, struct qn_device_info *out, struct qn_err *err);
int qn_cuda_open(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err);
void qn_cuda_close(struct qn_backend *b);
/* What depends on the weights; waits until everything is on the card. Called when there is a pool. */
int qn_cuda_finish(struct qn_cuda *c, struct qn_err *err);

#endif
