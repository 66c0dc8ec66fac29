/* The parts of the attention kernels (attention.cu has the whole and the reasons): who does what, tiles on their way into shared memory,
 * the two products, values that are not finite, and how results leave. Everything here is for all threads of a block or of a warp. */
#ifndef QN_CUDA_ATTENTION_CUH
#define QN_CUDA_ATTENTION_CUH

#include "engine/cuda/attention.h"
#include "engine/cuda/portable.cuh"

enum { QN_ATTN_THREADS = 128, QN_ATTN_WARPS = 4, QN_ATTN_STEPS = QN_CUDA_CHUNK / 16 /* of P . V in a chunk */ };

/* What a block has: pairs [pair0, pair0 + n) of the item's (row, head of the group), KV head, positions [lo, hi) that any of its rows
 * sees, in chunks [chunk, chunk_end). */
struct qn_attn_job {
    qn_cuda_item item;
    int kv_head, group, pair0, n;
    int lo, hi, chunk, chunk_end;
    int lo_last, hi_first;      /* [lo_last, hi_first) is seen by every row */
};

/* HP: head_dim rounded up to a width there is a kernel for; W: warps of a team. */
template <int HP, int W, bool BF16> struct qn_attn_shape {
    static constexpr int teams = QN_ATTN_WARPS / W, pairs = 16 * teams; /* (row, head) pairs of a block */
    static constexpr int tile = HP > 128 && W < 4 ? 32 : 64;            /* positions that are copied at once; the ring fits in 99 KiB */
    static constexpr int tiles = QN_CUDA_CHUNK / tile, steps = tile / 16;
    static constexpr int pages = steps / W;                             /* of 16 positions of a tile, for each warp's S */
    static constexpr int columns = (HP / 16 + W - 1) / W;               /* groups of 16 columns, for each warp's o */
    static constexpr int parts = BF16 ? 2 : 1;                          /* of q */
    static constexpr int stages = HP > 128 ? 2 : W < 4 ? (HP == 96 ? 2 : 3) : (HP > 96 ? 3 : 4);
    static constexpr int blocks = W < 4 || HP > 128 ? 2 : HP > 64 ? 3 : 4; /* on an SM with 164 KiB or more */
    struct shared {
        alignas(16) uint16_t ring[stages][tile][HP + 8];                /* + 8: rows of ldmatrix in different banks */
        alignas(16) uint16_t q[parts][pairs][HP + 8];
        qn_vec16 p[W > 1 ? teams : 1][W > 1 ? QN_ATTN_STEPS : 1][32];   /* P as fragments of A */
        qn_attn_job job;
        float row_max[QN_ATTN_WARPS][16];
        float q_scale[pairs];
        int from[pairs], last[pairs];                                   /* positions that a pair's row sees; -1: no such pair */
        uint32_t odd[3][tile / 32];                                     /* positions whose values are not finite */
    };
};

QN_DEVICE int qn_attn_lane() { return (int)threadIdx.x % 32; }
QN_DEVICE int qn_attn_warp() { return (int)threadIdx.x / 32; }

/* --- 16-bit floats -------------------------------------------------------------------------------------------------- */

template <bool BF16> QN_DEVICE uint32_t qn_attn_pack(float x, float y) {
    if constexpr (BF16) return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(x)) | (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(y)) << 16;
    else return (uint32_t)__half_as_ushort(__float2half_rn(x)) | (uint32_t)__half_as_ushort(__float2half_rn(y)) << 16;
}
template <bool BF16> QN_DEVICE void qn_attn_mma(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    if constexpr (BF16) qn_mma_bf16(c, a, b);
    else qn_mma_f16(c, a, b);
}
/* Whether one of two packed numbers is infinite or NaN. */
template <bool BF16> QN_DEVICE bool qn_attn_odd2(uint32_t v) {
    constexpr uint32_t e = BF16 ? 0x7f80u : 0x7c00u;
    return (v & e) == e || (v >> 16 & e) == e;
}

/* --- who does what -------------------------------------------------------------------------------------------------- */

QN_DEVICE int qn_attn_first_seen(int pos, int window) { return window > 0 && pos + 1 > window ? pos + 1 - window : 0; }
QN_DEVICE int qn_attn_row(const qn_attn_job &j, int pair) { return j.item.row0 + (j.pair0 + pair) / j.group; }
QN_DEVICE int qn_attn_head(const qn_attn_job &j, int pair) { return j.kv_head * j.group + (j.pair0 + pair) % j.group; }

/* False: nothing to do for this block of this kernel. */
QN_DEVICE bool qn_attn_find_job(qn_attn_job &j, const qn_cuda_attn &a, int pairs, bool narrow) {
    if ((int)blockIdx.x >= a.step.head->n_items) return false;
    j.item = a.step.items[blockIdx.x];
    j.kv_head = (int)blockIdx.y;
    j.group = a.kv.n_heads / a.kv.n_kv_heads;
    j.pair0 = (int)blockIdx.z * pairs;
    int all = j.item.n_rows * j.group;
    if ((all <= 16) != narrow || j.pair0 >= all) return false;
    j.n = min(pairs, all - j.pair0);
    int first = a.step.pos[qn_attn_row(j, 0)], last = a.step.pos[qn_attn_row(j, j.n - 1)];
    j.lo = qn_attn_first_seen(first, a.window);
    j.hi = last + 1;
    j.lo_last = qn_attn_first_seen(last, a.window);
    j.hi_first = first + 1;
    j.chunk = max(j.item.chunk0, j.lo / QN_CUDA_CHUNK);
    j.chunk_end = min(j.item.chunk1, (j.hi + QN_CUDA_CHUNK - 1) / QN_CUDA_CHUNK);
    return j.chunk < j.chunk_end;
}

/* Whether every row sees every position of the chunk. */
QN_DEVICE bool qn_attn_whole(const qn_attn_job &j, int chunk) { return chunk * QN_CUDA_CHUNK >= j.lo_last && (chunk + 1) * QN_CUDA_CHUNK <= j.hi_first; }

/* Tiles, numbered from position 0 on, of a chunk that hold positions of the job. */
template <class S> QN_DEVICE int qn_attn_first_tile(const qn_attn_job &j, int chunk) { return max(chunk * S::tiles, j.lo / S::tile); }
template <class S> QN_DEVICE int qn_attn_end_tile(const qn_attn_job &j, int chunk) { return min((chunk + 1) * S::tiles, (j.hi + S::tile - 1) / S::tile); }
template <class S> QN_DEVICE bool qn_attn_has_tile(const qn_attn_job &j, int chunk, int t) {
    t += chunk * S::tiles;
    return t >= qn_attn_first_tile<S>(j, chunk) && t < qn_attn_end_tile<S>(j, chunk);
}

/* --- tiles ------------------------------------------------------------------------------------------------------------ */

/* The order in which tiles are wanted: a chunk's keys, its values, the next chunk. One tile ahead of the copies, so that the page's
 * number is at hand when they begin. */
struct qn_attn_feed {
    int chunk, tile, value;
    int block;                  /* number of the page that this warp copies from */
};

/* 0 where the job sees nothing of the warp's rows of the tile: then nothing is read. */
template <class S> QN_DEVICE int qn_attn_page(const qn_attn_job &j, const qn_cuda_attn &a, int tile) {
    int pos = tile * S::tile + qn_attn_warp() * (S::tile / QN_ATTN_WARPS);
    bool any = pos < j.hi && pos + S::tile / QN_ATTN_WARPS > j.lo;
    return any ? a.step.blocks[(int64_t)j.item.seq * a.step.blocks_stride + pos / QN_CUDA_PAGE] : 0;
}

template <class S> QN_DEVICE void qn_attn_feed_next(qn_attn_feed &f, const qn_attn_job &j, const qn_cuda_attn &a) {
    if (++f.tile == qn_attn_end_tile<S>(j, f.chunk)) {
        f.chunk += f.value;
        f.value ^= 1;
        f.tile = qn_attn_first_tile<S>(j, f.chunk);
    }
    if (f.chunk < j.chunk_end) f.block = qn_attn_page<S>(j, a, f.tile);
}

/* Starts the copy of this warp's quarter of the tile; what no row of the job sees becomes zeros. */
template <class S, int HP> QN_DEVICE void qn_attn_copy(uint16_t (*tile)[HP + 8], const qn_attn_feed &f, const qn_attn_job &j, const qn_cuda_attn &a) {
    constexpr int rows = S::tile / QN_ATTN_WARPS;
    int pad = a.kv.head_pad, row0 = qn_attn_warp() * rows;
    unsigned seen = (unsigned)(j.hi - j.lo), at0 = (unsigned)(f.tile * S::tile + row0 - j.lo); /* at0 + row < seen: seen */
    int64_t head = ((int64_t)f.block * a.kv.n_layers + a.layer) * a.kv.n_kv_heads + j.kv_head;
    const uint16_t *from = a.kv.pages + ((head * 2 + f.value) * QN_CUDA_PAGE + row0 % QN_CUDA_PAGE) * pad;
#pragma unroll 4
    for (int i = 0; i < rows * HP / 256; i++) {
        int at = qn_attn_lane() + 32 * i, row = at / (HP / 8), col = at % (HP / 8) * 8;
        qn_cp_async16(&tile[row0 + row][col], from + row * pad + col, at0 + (unsigned)row < seen && col < pad);
    }
}

/* q of the block's pairs, scaled to 2^14..2^15, and what their rows see; a warp takes every fourth pair. */
template <class S, int HP, bool BF16> QN_DEVICE void qn_attn_load_q(typename S::shared &s, const qn_attn_job &j, const qn_cuda_attn &a) {
    int lane = qn_attn_lane();
    for (int pair = qn_attn_warp(); pair < S::pairs; pair += QN_ATTN_WARPS) {
        const float *q = a.q + ((int64_t)qn_attn_row(j, pair) * a.kv.n_heads + qn_attn_head(j, pair)) * a.kv.head_dim;
        float x[HP / 32], most = 0.0f;
#pragma unroll
        for (int i = 0; i < HP / 32; i++) {
            int col = lane + 32 * i;
            x[i] = pair < j.n && col < a.kv.head_dim ? q[col] : 0.0f;
            most = fmaxf(most, fabsf(x[i]));
        }
        int e = (int)(__float_as_uint(qn_warp_max(most)) >> 23) - 127;
        e = e == 128 ? 0 : min(max(e, -100), 100);
        float up = __uint_as_float((uint32_t)(127 + 14 - e) << 23);
#pragma unroll
        for (int i = 0; i < HP / 32; i++) {
            int col = lane + 32 * i;
            if constexpr (BF16) {
                __nv_bfloat16 h = __float2bfloat16_rn(x[i] * up);
                s.q[0][pair][col] = __bfloat16_as_ushort(h);
                s.q[1][pair][col] = __bfloat16_as_ushort(__float2bfloat16_rn(fmaf(x[i], up, -__bfloat162float(h))));
            } else {
                s.q[0][pair][col] = __half_as_ushort(__float2half_rn(x[i] * up));
            }
        }
        if (lane != 0) continue;
        s.q_scale[pair] = __uint_as_float((uint32_t)(127 - 14 + e) << 23);
        s.last[pair] = pair < j.n ? a.step.pos[qn_attn_row(j, pair)] : -1;
        s.from[pair] = qn_attn_first_seen(s.last[pair], a.window);
    }
}

/* --- products ----------------------------------------------------------------------------------------------------------- */

/* sc[page of the warp][8 positions] += q . K^T for one tile. */
template <class S, int HP, int W, bool BF16> QN_DEVICE void qn_attn_scores(float (&sc)[S::pages][2][4], const typename S::shared &s, const uint16_t (*tile)[HP + 8]) {
    int lane = qn_attn_lane(), team = qn_attn_warp() / W, part = qn_attn_warp() % W;
    const uint16_t(*k)[HP + 8] = tile + part * S::pages * 16 + (lane >> 4) * 8 + (lane & 7);
#pragma unroll
    for (int step = 0; step < HP / 16; step++) {
        uint32_t q[S::parts][4], b[4];
#pragma unroll
        for (int i = 0; i < S::parts; i++) qn_ldmatrix_x4(q[i], &s.q[i][team * 16 + (lane & 15)][step * 16 + (lane >> 4) * 8]);
#pragma unroll
        for (int page = 0; page < S::pages; page++) {
            qn_ldmatrix_x4(b, &k[page * 16][step * 16 + (lane >> 3 & 1) * 8]);
#pragma unroll
            for (int i = 0; i < S::parts; i++) {
                qn_attn_mma<BF16>(sc[page][0], q[i], b);
                qn_attn_mma<BF16>(sc[page][1], q[i], b + 2);
            }
        }
    }
}

/* o += P . V for 16 positions, l += P . 1 */
template <class S, int HP, int W, bool BF16> QN_DEVICE void qn_attn_values(float (&o)[S::columns][2][4], float (&l)[4], const uint32_t p[4], const uint16_t (*rows)[HP + 8]) {
    int lane = qn_attn_lane(), part = qn_attn_warp() % W;
    const uint32_t ones[2] = {BF16 ? 0x3f803f80u : 0x3c003c00u, BF16 ? 0x3f803f80u : 0x3c003c00u};
    qn_attn_mma<BF16>(l, p, ones);
#pragma unroll
    for (int i = 0; i < S::columns; i++) {
        int col = part * S::columns + i;
        if (HP / 16 % W != 0 && col >= HP / 16) continue; /* the same for the warp */
        uint32_t v[4];
        qn_ldmatrix_x4_trans(v, &rows[lane & 15][col * 16 + (lane >> 4) * 8]);
        qn_attn_mma<BF16>(o[i][0], p, v);
        qn_attn_mma<BF16>(o[i][1], p, v + 2);
    }
}

/* --- values that are not finite -------------------------------------------------------------------------------------------- */

/* Among what this thread copied into a tile of values. */
template <class S, int HP, bool BF16> QN_DEVICE void qn_attn_find_odd(uint16_t (*tile)[HP + 8], uint32_t *odd) {
    constexpr int rows = S::tile / QN_ATTN_WARPS;
#pragma unroll 1
    for (int i = 0; i < rows * HP / 256; i++) {
        int at = qn_attn_lane() + 32 * i, row = qn_attn_warp() * rows + at / (HP / 8);
        uint16_t *p = &tile[row][at % (HP / 8) * 8];
        qn_vec16 v = qn_load16(p);
        if (qn_attn_odd2<BF16>(v.x[0]) || qn_attn_odd2<BF16>(v.x[1]) || qn_attn_odd2<BF16>(v.x[2]) || qn_attn_odd2<BF16>(v.x[3])) {
            qn_store16(p, qn_vec16{{0, 0, 0, 0}});
            atomicOr(&odd[row / 32], 1u << row % 32);
        }
    }
}

/* P = NaN where the fragment's rows, of which from[0], last[0] and from[8], last[8] tell, see such a position; `odd`: of 16 from `pos` on. */
QN_DEVICE void qn_attn_spoil(uint32_t p[4], uint32_t odd, int pos, const int *from, const int *last) {
    int at = (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int k = at + (i & 1) + (i >> 2) * 8, r = i >> 1 & 1;
        bool sees = (odd >> k & 1u) && pos + k >= from[8 * r] && pos + k <= last[8 * r];
        if (sees) p[(i >> 2) * 2 + r] |= 0x7fffu << (i & 1) * 16;
    }
}

/* --- folding, and the way out ----------------------------------------------------------------------------------------------- */

/* (m, l, o) += (m2, l2, o2), in the weights for which qn_attn_fold() is called on l and on every o. */
QN_DEVICE void qn_attn_fold_weights(float &m, float m2, float &a, float &b) {
    float most = fmaxf(m, m2), base = most > -INFINITY ? most : 0.0f;
    a = qn_exp2(m - base);
    b = qn_exp2(m2 - base);
    m = most;
}
QN_DEVICE float qn_attn_fold(float x, float y, float a, float b) { return fmaf(x, a, __fmul_rn(y, b)); }
/* + 0: a sum that vanished has one sign, whatever was folded into it. */
QN_DEVICE float qn_attn_finish(float o, float inv) { return fmaf(o, inv, 0.0f); }

/* Sums of record `rec` and head; maximum and weight of the same. */
QN_DEVICE float *qn_attn_record_sums(const qn_cuda_attn &a, int64_t rec, int head) { return a.records + (rec * a.kv.n_heads + head) * a.kv.head_pad; }
QN_DEVICE float *qn_attn_record_weight(const qn_cuda_attn &a, int64_t rec, int head) {
    return a.records + (int64_t)a.records_max * a.kv.n_heads * a.kv.head_pad + (rec * a.kv.n_heads + head) * 2;
}

/* Columns col .. col + 3 of a row of `width`; aligned: every fourth column is at a multiple of 16 bytes. */
QN_DEVICE void qn_attn_put4(float *row, int col, int width, bool aligned, float x0, float x1, float x2, float x3) {
    if (aligned && col + 4 <= width) {
        qn_store16(row + col, qn_vec16{{__float_as_uint(x0), __float_as_uint(x1), __float_as_uint(x2), __float_as_uint(x3)}});
        return;
    }
    if (col < width) row[col] = x0;
    if (col + 1 < width) row[col + 1] = x1;
    if (col + 2 < width) row[col + 2] = x2;
    if (col + 3 < width) row[col + 3] = x3;
}

/* Lane t of a quad has columns 2t, 2t + 1 of eight in x[0], x[1] and of the next eight in x[2], x[3]; neighbours swap so that each stores
 * four columns in a row. */
QN_DEVICE void qn_attn_put(float *row, int col16, int width, bool aligned, bool keep, float x0, float x1, float x2, float x3) {
    const bool upper = threadIdx.x & 1;
    float y0 = __shfl_xor_sync(0xffffffffu, upper ? x0 : x2, 1), y1 = __shfl_xor_sync(0xffffffffu, upper ? x1 : x3, 1);
    int col = col16 + (upper ? 8 : 0) + (int)threadIdx.x % 4 / 2 * 4;
    if (keep) qn_attn_put4(row, col, width, aligned, upper ? y0 : x0, upper ? y1 : x1, upper ? x2 : y0, upper ? x3 : y1);
}

/* A warp's share of a chunk's record. */
template <class S, int W>
QN_DEVICE void qn_attn_put_record(const typename S::shared &s, const qn_cuda_attn &a, int chunk, const float (&o)[S::columns][2][4], const float l[4], const float m[2]) {
    const int part = qn_attn_warp() % W;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int pair = qn_attn_warp() / W * 16 + qn_attn_lane() / 4 + 8 * r, row = qn_attn_row(s.job, pair), head = qn_attn_head(s.job, pair);
        int64_t rec = s.job.item.record + (int64_t)(chunk - s.job.item.chunk0) * s.job.item.n_rows + (row - s.job.item.row0);
        bool keep = pair < s.job.n;
        float *to = qn_attn_record_sums(a, rec, head), *w = qn_attn_record_weight(a, rec, head);
        if (keep && part == 0 && qn_attn_lane() % 4 == 0) w[0] = m[r], w[1] = l[2 * r];
#pragma unroll
        for (int i = 0; i < S::columns; i++)
            qn_attn_put(to, (part * S::columns + i) * 16, a.kv.head_pad, true, keep, o[i][0][2 * r], o[i][0][2 * r + 1], o[i][1][2 * r], o[i][1][2 * r + 1]);
    }
}

/* A warp's share of the output. */
template <class S, int W> QN_DEVICE void qn_attn_put_output(const typename S::shared &s, const qn_cuda_attn &a, const float (&o)[S::columns][2][4], const float l[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int pair = qn_attn_warp() / W * 16 + qn_attn_lane() / 4 + 8 * r, hd = a.kv.head_dim;
        float *to = a.out + ((int64_t)qn_attn_row(s.job, pair) * a.kv.n_heads + qn_attn_head(s.job, pair)) * hd, inv = 1.0f / l[r];
#pragma unroll
        for (int i = 0; i < S::columns; i++)
            qn_attn_put(to, (qn_attn_warp() % W * S::columns + i) * 16, hd, hd % 4 == 0, pair < s.job.n, qn_attn_finish(o[i][0][2 * r], inv), qn_attn_finish(o[i][0][2 * r + 1], inv),
                        qn_attn_finish(o[i][1][2 * r], inv), qn_attn_finish(o[i][1][2 * r + 1], inv));
    }
}

#endif
