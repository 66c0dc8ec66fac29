/* What the files of the CPU backend share: layouts, the table of kernels of an instruction set, and the backend itself.
 *
 * LANES. Everything is made of lanes of 16: 16 outputs of a matrix side by side (a "tile"), 16 positions of a KV block,
 * 16 elements of a row. An instruction set with narrower registers works on the same lanes in pieces, with the same
 * operations in the same order, so that generic, AVX2 and AVX-512 agree bit for bit.
 *
 * ROWS. A step's R rows are cut into ceil(R/16) groups of nearly equal size g <= 16. In `struct qn_act` a group is one
 * run of records, one for each 32 inputs:
 *      q[g][32] s8 | d[g] f32 | ds[g] f32 | n[g] i32 | n0[g] i32 | n1[g] i32           (52*g bytes)
 * with x ~ d*q, ds = d * sum(q), n = -128 * sum(q), n0 and n1 the same of the first and second 16. So a kernel for g
 * columns finds everything at constant offsets, and a single row is a dense stream. For F32 and F16 weights the group is
 * [n_in][g] f32; for BF16 weights [(n_in + 1) / 2][g] pairs of bf16, the even input in the low half, rounded to nearest
 * even. A pass writes the forms that the loaded matrices of its width read.
 *
 * WEIGHTS. A tile is a run of steps (32 or 256 inputs, 1 or 2 for floats) of 16 outputs; repack.h has the bytes. */
#ifndef QN_CPU_CPU_H
#define QN_CPU_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "engine/backend.h"
#include "engine/cpu/threads.h"

enum {
    QN_LANES = 16,
    QN_GROUP = 16,      /* most rows of a group */
    QN_ABLOCK = 32,     /* inputs of an activation block */
    QN_AREC = 52,       /* bytes of a record, a row */
    QN_ATTN_COLS = 16,  /* most (row, head) pairs of an attention tile */
};

enum qn_fmt { /* of repacked matrices; repack.h */
    QN_FMT_F32, QN_FMT_F16, QN_FMT_BF16,
    QN_FMT_Q4S, QN_FMT_Q4N, QN_FMT_Q4A, QN_FMT_Q5S, QN_FMT_Q5A, QN_FMT_Q8S,
    QN_FMT_K2, QN_FMT_K4, QN_FMT_K5, QN_FMT_K6, QN_FMT_COUNT,
};
static inline int qn_fmt_is_float(enum qn_fmt f) { return f <= QN_FMT_BF16; }

/* A page is what one block keeps of one layer's head, 16 positions of K and V (hd: the head padded to 16 or 32):
 *      f16, bf16   K [hd][16] | V [16][hd]
 *      q8_0        K [hd/4][16][4] s8 | V [16][hd] s8 | scales of K [hd/32][16] f16 | scales of V [hd/32][16] f16
 * so that 16 positions are a lane vector for q.k, and 16 elements one for p.v. A position's bytes are its own. */
struct qn_kv_page {
    enum qn_kv_type type;
    int head_dim, hd;
    size_t v, k_scale, v_scale, bytes;  /* offsets in bytes; of a page */
};

enum {
    QN_HUGE_BYTES = 2 << 20,
    QN_KV_RUN = 32,         /* blocks whose pages of a head lie side by side */
    QN_ATTN_CHUNK = 256,    /* positions that have a softmax of their own, at fixed places; then they are merged in order */
    QN_ATTN_STRIDE = QN_ATTN_CHUNK + 16,
    QN_ATTN_HEAD = 32,      /* floats before the output in a chunk's record: the maximum and the sum, 16 times each */
};

/* One tile of attention: nq query vectors that read the same KV head of one sequence. */
struct qn_attn_tile {
    int nq;
    struct {
        const float *q;     /* [head_dim] */
        float *out;         /* [head_dim] */
        int lo, hi;         /* positions it attends to, both included; neither falls from one column to the next */
    } col[QN_ATTN_COLS];
    const int32_t *blocks;
    const uint8_t *kv;      /* of this layer and head: block b's page at kv + b / QN_KV_RUN * run + b % QN_KV_RUN * bytes */
    size_t run;
    const struct qn_kv_page *page;
    float scale, softcap;
    float *scratch;         /* qn_attn_scratch floats */
    int chunk0, chunk1;     /* the chunks to visit */
    float *records;         /* NULL: visit all and write out; else a record of each column of each chunk is left here */
};

/* The kernels of one instruction set. Pointers are to memory of ours: 64-byte aligned and padded to whole lanes where a
 * length says "padded". */
struct qn_cpu_isa {
    const char *name;
    /* out[c*stride + lane] = sum over the inputs of w's 16 outputs for columns c < g of one group (g <= 16). `next` is the
     * tile that this thread will read after w, a hint for prefetching only. */
    void (*tile[QN_FMT_COUNT])(const uint8_t *w, int steps, const uint8_t *next, const void *group, int g, float *out, size_t stride);
    /* n_blocks*32 padded floats into column c of a group's records. */
    void (*quant)(const float *x, int n_blocks, uint8_t *rec, int g, int c);
    /* If y: x += scale * (post ? rmsnorm(y)*post : y). If out: out = rmsnorm(x)*gain. d elements, arrays padded to 16
     * with zeros. */
    void (*add_norm)(float *x, const float *y, const float *post, float scale, const float *gain, float eps, int d, float *out);
    /* h[d] = rmsnorm(h) * gain in place; any d and alignment. */
    void (*head_norm)(float *h, const float *gain, float eps, int d);
    /* Rotates the first rope_dim of h in place; cs is a row of the table (rope_kv.c). */
    void (*rope)(float *h, const float *cs, int rope_dim, enum qn_rope_kind kind);
    /* bf16 of x[n], to nearest even, NaN stays NaN; n padded to 16. */
    void (*to_bf16)(uint16_t *out, const float *x, int n);
    /* One position's k and v [head_dim], as slot 0..15 of a page. */
    void (*kv_put)(const struct qn_kv_page *p, uint8_t *page, int slot, const float *k, const float *v);
    /* h[n] = kind(gate[n]) * up[n]; n padded. */
    void (*glu)(float *h, const float *gate, const float *up, int n, enum qn_act_kind kind);
    /* x[n] = softcap(x * scale); cap 0: none. Any n and alignment. */
    void (*scale_cap)(float *x, int n, float scale, float cap);
    void (*attn)(const struct qn_attn_tile *t);
    void (*attn_merge)(const struct qn_attn_tile *t); /* out of the records of all chunks */
    void (*exp)(float *out, const float *x, int n); /* for tests; any n */
    int attn_cols; /* the tile size that suits it, <= QN_ATTN_COLS */
};

extern const struct qn_cpu_isa qn_cpu_generic, qn_cpu_avx2, qn_cpu_avx512_vnni, qn_cpu_avx512_bf16;

/* Floats of a record, and of the scratch of one attention tile (attn_body.h). */
static inline size_t qn_attn_record(int hd) { return QN_ATTN_HEAD + (size_t)hd; }
static inline size_t qn_attn_scratch(int head_dim) {
    size_t hd = ((size_t)head_dim + 31) / 32 * 32;
    return QN_ATTN_COLS * (2 * hd + 2 * qn_attn_record((int)hd) + 3 * QN_ATTN_STRIDE);
}

struct qn_weight {
    enum qn_fmt fmt;
    int n_in, n_out, n_tiles, steps;
    size_t tile_bytes;
    const uint8_t *data;    /* n_tiles * tile_bytes; NULL for a vector */
    float *vec;             /* vector: n_out floats padded to 32 with zeros */
};

struct qn_need { int width, q8, f32, bf16; }; /* which forms of an activation the loaded matrices read */

struct qn_act {
    int width, n_blocks;    /* n_blocks * 32 >= width */
    uint8_t *q;             /* records of all groups */
    float *f;
    uint32_t *h;            /* pairs of bf16 */
    const struct qn_need *need;
};

struct qn_vec {
    float *p;               /* [rows][stride], elements past width are zero */
    int width, stride;      /* stride: width padded to 32 */
};

struct qn_region { void *p; size_t n; };

enum { QN_NEEDS_MAX = 16, QN_CPU_MAPS_MAX = 4096 };

struct qn_cpu {
    struct qn_backend base;
    const struct qn_cpu_isa *isa;
    struct qn_pool *pool;
    const struct qn_batch *batch;

    struct qn_region *maps;     /* everything we mapped */
    int n_maps, maps_cap;
    uint8_t *bump;              /* what is left of the last map */
    size_t bump_left;
    uint64_t bytes_held, bytes_kv;

    struct qn_need need[QN_NEEDS_MAX];
    int n_needs;

    uint8_t *kv;                /* [kv_blocks / QN_KV_RUN][n_layers][n_kv_heads][QN_KV_RUN] pages */
    struct qn_kv_page page;
    size_t kv_run;              /* bytes of QN_KV_RUN blocks */
    size_t kv_bytes, kv_there;  /* of the pool; of its beginning that has been asked of the kernel */
    int kv_run_next;            /* the first run that no step has used yet */

    float *rope[QN_ROPE_SETS];  /* [n_ctx][2 * rope_dim or less], see rope_kv.c */
    int rope_filled[QN_ROPE_SETS], rope_stride;

    float *scratch;             /* per thread: attention, or a row of the widest vector */
    size_t scratch_stride;      /* floats */
    struct qn_vec attn_out;     /* [rows_max][n_heads*head_dim] */
    struct qn_attn_seq *attn_seq;   /* [rows_max], attention.c */
    float *records;             /* of tiles whose chunks are computed apart */
    size_t records_max;         /* floats */
    struct qn_act out_act;      /* [out_max][d_model] */
    float *logits;              /* [out_max][n_vocab] */
};

/* The page of layer and KV head in a block. */
static inline uint8_t *qn_kv_page_at(const struct qn_cpu *b, int32_t block, int layer, int head) {
    size_t i = ((size_t)layer * (size_t)b->base.desc->n_kv_heads + (size_t)head) * QN_KV_RUN + (size_t)block % QN_KV_RUN;
    return b->kv + (size_t)block / QN_KV_RUN * b->kv_run + i * b->page.bytes;
}

static inline struct qn_cpu *qn_cpu_of(struct qn_backend *b) { return (struct qn_cpu *)b; }

/* Pairs of bf16 of a row. */
static inline int qn_pairs(int width) { return (width + 1) / 2; }

/* Groups of R rows: how many, where one starts, which one holds a row. */
static inline int qn_groups(int rows) { return (rows + QN_GROUP - 1) / QN_GROUP; }
static inline int qn_group_at(int rows, int gi) { return (int)((int64_t)rows * gi / qn_groups(rows)); }
static inline int qn_group_of(int rows, int row) { return (int)((((int64_t)row + 1) * qn_groups(rows) - 1) / rows); }

/* Memory of the backend, zeroed, 64-byte aligned, given back by close. NULL: none left. */
void *qn_cpu_alloc(struct qn_cpu *b, size_t n);
/* The same in a map of its own, touched lazily and not counted. */
void *qn_cpu_reserve(struct qn_cpu *b, size_t n);
/* The entry for activations of this width; NULL when there are too many widths. */
struct qn_need *qn_cpu_need(struct qn_cpu *b, int width);
int qn_cpu_act_init(struct qn_cpu *b, struct qn_act *a, int width, int rows);

/* act.c: x [blocks*32, zero past width] as blocks [block0, block0 + blocks) of row `row` of `rows`. */
void qn_act_put(const struct qn_cpu *b, struct qn_act *a, int rows, int row, int block0, int blocks, const float *x);

/* The operations (backend.h), one file each family. */
int qn_cpu_weight(struct qn_backend *b, const struct qn_tensor *t, int vector, struct qn_weight **out, int *keeps, struct qn_err *err);
void qn_cpu_linear(struct qn_backend *b, const struct qn_act *a, const struct qn_linear *l, int n);
void qn_cpu_glu(struct qn_backend *b, const struct qn_act *a, const struct qn_weight *gate, const struct qn_weight *up,
                enum qn_act_kind kind, struct qn_act *out);
const float *qn_cpu_logits(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain,
                           float eps, const struct qn_weight *w, const struct qn_weight *bias);
void qn_cpu_embed(struct qn_backend *b, struct qn_vec *x, const struct qn_tensor *w, float scale);
void qn_cpu_add_norm(struct qn_backend *b, struct qn_vec *x, const struct qn_vec *y, const struct qn_weight *post, float scale,
                     const struct qn_weight *gain, float eps, struct qn_act *act);
void qn_cpu_narrow(struct qn_backend *b, const struct qn_batch *batch, const int32_t *rows, struct qn_vec *const *v, int n);
int qn_cpu_rope_init(struct qn_cpu *b, struct qn_err *err);
void qn_cpu_rope_fill(struct qn_cpu *b, int n_pos);
void qn_cpu_rope_kv(struct qn_backend *b, int layer, struct qn_vec *q, struct qn_vec *k, const struct qn_vec *v,
                    const struct qn_weight *q_norm, const struct qn_weight *k_norm, float eps);
int qn_cpu_kv_init(struct qn_cpu *b, struct qn_err *err);
void qn_cpu_kv_ahead(struct qn_cpu *b);
int qn_cpu_attn_init(struct qn_cpu *b);
void qn_cpu_kv_copy(struct qn_backend *b, int32_t from, int32_t to, int n_tokens);
void qn_cpu_attention(struct qn_backend *b, int layer, const struct qn_vec *q, struct qn_act *out);

#endif
