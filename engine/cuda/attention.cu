/* Attention over paged keys and values: one arithmetic for one row and for thousands (FlashAttention-2, arXiv:2307.08691, with the
 * split over positions of Flash-Decoding; grouped heads share a tile as in GQA, arXiv:2305.13245).
 *
 * The unit is a chunk: QN_CUDA_CHUNK positions at a fixed place against 16 (row, head) pairs of one KV head, the 16 rows of an mma.
 *     S = q . K^T       mma over head_dim, 16 at a time; then scale (and softcap), and -inf where the row does not look
 *     m = max S, P = 2^(S - m) rounded to 16 bits
 *     o = P . V, l = P . 1   mma over positions, 16 at a time, in order
 * and (m, l, o) of a row's chunks are folded in order, by fold(), here or in the merge kernel. Within a chunk nothing is rescaled, so a
 * team of W warps may share it: each has 16 * 4/W positions of a tile of 64 for S and 1/W of the columns for o, and P goes through
 * shared memory. W = 4 is for items of up to 16 pairs (decode), W = 1, or 2 for wide heads, for 64 or 32 pairs that share the tiles they
 * load (prefill). An element of S, m, P, o and l is the same sum in the same order for every W, so the bits are the same. This
 * needs of mma that a row of the result depends on no other row of A, nor on its place, and that products of zero leave a sum alone.
 *
 * Tiles of 64 positions (four pages, one a warp) come through cp.async into a ring of STAGES, K's of a chunk, then V's. Positions
 * outside the block's reach become zeros without being read. q is scaled by a power of two for each row and head to 2^14..2^15, so
 * no magnitude overflows f16 or loses bits; with bf16 pages it is the sum of two bf16, for eight bits would move large scores.
 *
 * A value that is not finite must not reach rows that do not look at its position (0 * inf), so the tiles of chunks in which some row
 * does not see everything are searched: such values become zeros, and P becomes NaN for the rows that look at them. Which columns of
 * those rows are NaN is not promised. Products next to sums are fmaf() or kept apart, or contraction would differ between kernels. */
#include "engine/cuda/attention.h"
#include "engine/cuda/portable.cuh"

namespace {

enum { THREADS = 128, WARPS = 4, TILE = 64, PAGE = QN_CUDA_PAGE, CHUNK_TILES = QN_CUDA_CHUNK / TILE, CHUNK_STEPS = QN_CUDA_CHUNK / 16 };
static_assert(TILE == WARPS * PAGE, "a warp copies one page of a tile");

/* What a block has: pairs [pair0, pair0 + n) of the item's (row, head of the group), KV head, positions [lo, hi) that any of its rows
 * sees, in chunks [chunk, chunk_end). The same for all threads. */
struct job {
    qn_cuda_item item;
    int kv_head, group, pair0, n;
    int lo, hi, chunk, chunk_end;
    int lo_last, hi_first;      /* [lo_last, hi_first) is seen by every row */
};

/* HP: head_dim rounded up to a width there is a kernel for. */
template <int HP, int W, bool BF16> struct shape {
    static constexpr int teams = WARPS / W, pairs = 16 * teams;     /* (row, head) pairs of a block */
    static constexpr int pages = WARPS / W;                         /* of a tile, for each warp's S */
    static constexpr int columns = (HP / 16 + W - 1) / W;           /* groups of 16 columns, for each warp's o */
    static constexpr int parts = BF16 ? 2 : 1;                      /* of q */
    static constexpr int stages = W < 4 || HP > 128 ? 2 : HP > 96 ? 3 : 4;
    static constexpr int blocks = W < 4 || HP > 128 ? 2 : HP > 64 ? 3 : 4; /* on an SM */
    struct shared {
        job j;
        alignas(16) uint16_t tile[stages][TILE][HP + 8];            /* + 8: rows of ldmatrix in different banks */
        alignas(16) uint16_t q[parts][pairs][HP + 8];
        qn_vec16 p[W > 1 ? teams : 1][W > 1 ? CHUNK_STEPS : 1][32]; /* P as fragments of A */
        float row_max[WARPS][16];
        float q_scale[pairs];
        int from[pairs], last[pairs];                               /* positions that a pair's row sees */
        uint32_t odd[3][TILE / 32];                                 /* positions whose values are not finite */
    };
};

/* --- what both kernels do ------------------------------------------------------------------------------------------- */

/* (m, l, o) += (m2, l2, o2), in the weights for which fold() is called on l and on every o. */
QN_DEVICE void fold_weights(float &m, float m2, float &a, float &b) {
    float most = fmaxf(m, m2), base = most > -INFINITY ? most : 0.0f;
    a = qn_exp2(m - base);
    b = qn_exp2(m2 - base);
    m = most;
}
QN_DEVICE float fold(float x, float y, float a, float b) { return fmaf(x, a, __fmul_rn(y, b)); }
/* + 0: a sum that vanished has one sign, whatever was folded into it. */
QN_DEVICE float finish(float o, float inv) { return fmaf(o, inv, 0.0f); }

QN_DEVICE int first_seen(int pos, int window) { return window > 0 && pos + 1 > window ? pos + 1 - window : 0; }

QN_DEVICE void put4(float *row, int col, int width, bool aligned, float x0, float x1, float x2, float x3) {
    if (aligned && col + 4 <= width) {
        qn_store16(row + col, qn_vec16{{__float_as_uint(x0), __float_as_uint(x1), __float_as_uint(x2), __float_as_uint(x3)}});
        return;
    }
    if (col < width) row[col] = x0;
    if (col + 1 < width) row[col + 1] = x1;
    if (col + 2 < width) row[col + 2] = x2;
    if (col + 3 < width) row[col + 3] = x3;
}

/* Sums of record `rec` and head; maximum and weight of the same. */
QN_DEVICE float *record_sums(const qn_cuda_attn &a, int64_t rec, int head) { return a.records + (rec * a.kv.n_heads + head) * a.kv.head_pad; }
QN_DEVICE float *record_weight(const qn_cuda_attn &a, int64_t rec, int head) {
    return a.records + (int64_t)a.records_max * a.kv.n_heads * a.kv.head_pad + (rec * a.kv.n_heads + head) * 2;
}

/* --- 16-bit floats -------------------------------------------------------------------------------------------------- */

template <bool BF16> QN_DEVICE uint32_t pack(float x, float y) {
    if constexpr (BF16) return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(x)) | (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(y)) << 16;
    else return (uint32_t)__half_as_ushort(__float2half_rn(x)) | (uint32_t)__half_as_ushort(__float2half_rn(y)) << 16;
}
template <bool BF16> QN_DEVICE void mma(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    if constexpr (BF16) qn_mma_bf16(c, a, b);
    else qn_mma_f16(c, a, b);
}
/* Whether one of two packed numbers is infinite or NaN. */
template <bool BF16> QN_DEVICE bool odd2(uint32_t v) {
    constexpr uint32_t e = BF16 ? 0x7f80u : 0x7c00u;
    return (v & e) == e || (v >> 16 & e) == e;
}

/* --- a block's work ------------------------------------------------------------------------------------------------- */

QN_DEVICE int row_of(const job &j, int pair) { return j.item.row0 + (j.pair0 + pair) / j.group; }
QN_DEVICE int head_of(const job &j, int pair) { return j.kv_head * j.group + (j.pair0 + pair) % j.group; }

QN_DEVICE bool find_job(job &j, const qn_cuda_attn &a, int pairs, bool narrow) {
    if ((int)blockIdx.x >= a.step.head->n_items) return false;
    j.item = a.step.items[blockIdx.x];
    j.kv_head = (int)blockIdx.y;
    j.group = a.kv.n_heads / a.kv.n_kv_heads;
    j.pair0 = (int)blockIdx.z * pairs;
    int all = j.item.n_rows * j.group;
    if ((all <= 16) != narrow || j.pair0 >= all) return false;
    j.n = min(pairs, all - j.pair0);
    int first = a.step.pos[row_of(j, 0)], last = a.step.pos[row_of(j, j.n - 1)];
    j.lo = first_seen(first, a.window);
    j.hi = last + 1;
    j.lo_last = first_seen(last, a.window);
    j.hi_first = first + 1;
    j.chunk = max(j.item.chunk0, j.lo / QN_CUDA_CHUNK);
    j.chunk_end = min(j.item.chunk1, (j.hi + QN_CUDA_CHUNK - 1) / QN_CUDA_CHUNK);
    return j.chunk < j.chunk_end;
}

/* Tiles of a chunk that hold positions of the job. */
QN_DEVICE int first_tile(const job &j, int chunk) { return max(chunk * CHUNK_TILES, j.lo / TILE); }
QN_DEVICE int end_tile(const job &j, int chunk) { return min((chunk + 1) * CHUNK_TILES, (j.hi + TILE - 1) / TILE); }

/* The order in which tiles are wanted: a chunk's keys, its values, the next chunk. One tile ahead of the copies, so that the page's
 * number is at hand when they begin. */
struct feed {
    int chunk, tile, value;
    int block;                  /* page number of this warp's part of the tile */
};

/* 0 where the job sees nothing of the page: then nothing of it is read. */
QN_DEVICE int page_number(const job &j, const qn_cuda_attn &a, int tile) {
    int page = tile * WARPS + (int)threadIdx.x / 32;
    bool any = page * PAGE < j.hi && (page + 1) * PAGE > j.lo;
    return any ? a.step.blocks[(int64_t)j.item.seq * a.step.blocks_stride + page] : 0;
}

QN_DEVICE void feed_next(feed &f, const job &j, const qn_cuda_attn &a) {
    if (++f.tile == end_tile(j, f.chunk)) {
        f.chunk += f.value;
        f.value ^= 1;
        f.tile = first_tile(j, f.chunk);
    }
    if (f.chunk < j.chunk_end) f.block = page_number(j, a, f.tile);
}

/* Starts the copy of this warp's page of the tile. */
template <int HP> QN_DEVICE void copy_page(uint16_t (*tile)[HP + 8], const feed &f, const job &j, const qn_cuda_attn &a) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, pad = a.kv.head_pad;
    unsigned seen = (unsigned)(j.hi - j.lo), at0 = (unsigned)((f.tile * WARPS + warp) * PAGE - j.lo); /* at0 + row < seen: seen */
    int64_t head = ((int64_t)f.block * a.kv.n_layers + a.layer) * a.kv.n_kv_heads + j.kv_head;
    const uint16_t *from = a.kv.pages + (head * 2 + f.value) * PAGE * pad;
#pragma unroll 2
    for (int i = 0; i < HP / 16; i++) {
        int at = lane + 32 * i, row = at / (HP / 8), col = at % (HP / 8) * 8;
        qn_cp_async16(&tile[warp * PAGE + row][col], from + row * pad + col, at0 + (unsigned)row < seen && col < pad);
    }
}

/* q of the block's pairs, scaled to 2^14..2^15; a warp takes every fourth pair. */
template <int HP, int W, bool BF16> QN_DEVICE void load_q(typename shape<HP, W, BF16>::shared &s, const job &j, const qn_cuda_attn &a) {
    int lane = (int)threadIdx.x % 32;
    for (int pair = (int)threadIdx.x / 32; pair < shape<HP, W, BF16>::pairs; pair += WARPS) {
        const float *q = a.q + ((int64_t)row_of(j, pair) * a.kv.n_heads + head_of(j, pair)) * a.kv.head_dim;
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
        if (lane == 0) s.q_scale[pair] = __uint_as_float((uint32_t)(127 - 14 + e) << 23);
    }
}

/* --- products -------------------------------------------------------------------------------------------------------- */

/* sc[page of the warp][8 positions] += q . K^T for one tile. */
template <int HP, int W, bool BF16>
QN_DEVICE void scores(float (&sc)[WARPS / W][2][4], const typename shape<HP, W, BF16>::shared &s, const uint16_t (*tile)[HP + 8]) {
    using sh = shape<HP, W, BF16>;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, team = warp / W, part = warp % W;
    const uint16_t(*k)[HP + 8] = tile + part * sh::pages * PAGE + (lane >> 4) * 8 + (lane & 7);
#pragma unroll
    for (int step = 0; step < HP / 16; step++) {
        uint32_t q[sh::parts][4], b[4];
#pragma unroll
        for (int i = 0; i < sh::parts; i++) qn_ldmatrix_x4(q[i], &s.q[i][team * 16 + (lane & 15)][step * 16 + (lane >> 4) * 8]);
#pragma unroll
        for (int page = 0; page < sh::pages; page++) {
            qn_ldmatrix_x4(b, &k[page * PAGE][step * 16 + (lane >> 3 & 1) * 8]);
#pragma unroll
            for (int i = 0; i < sh::parts; i++) {
                mma<BF16>(sc[page][0], q[i], b);
                mma<BF16>(sc[page][1], q[i], b + 2);
            }
        }
    }
}

/* o += P . V for 16 positions, l += P . 1 */
template <int HP, int W, bool BF16>
QN_DEVICE void values(float (&o)[shape<HP, W, BF16>::columns][2][4], float (&l)[4], const uint32_t p[4], const uint16_t (*rows)[HP + 8]) {
    using sh = shape<HP, W, BF16>;
    int lane = (int)threadIdx.x % 32, part = (int)threadIdx.x / 32 % W;
    const uint32_t ones[2] = {BF16 ? 0x3f803f80u : 0x3c003c00u, BF16 ? 0x3f803f80u : 0x3c003c00u};
    mma<BF16>(l, p, ones);
#pragma unroll
    for (int i = 0; i < sh::columns; i++) {
        int col = part * sh::columns + i;
        if (HP / 16 % W != 0 && col >= HP / 16) continue; /* the same for the warp */
        uint32_t v[4];
        qn_ldmatrix_x4_trans(v, &rows[lane & 15][col * 16 + (lane >> 4) * 8]);
        mma<BF16>(o[i][0], p, v);
        mma<BF16>(o[i][1], p, v + 2);
    }
}

/* --- values that are not finite ---------------------------------------------------------------------------------------- */

/* Among what this thread copied into a tile of values. */
template <int HP, bool BF16> QN_DEVICE void find_odd(uint16_t (*tile)[HP + 8], uint32_t *odd) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
#pragma unroll 1
    for (int i = 0; i < HP / 16; i++) {
        int at = lane + 32 * i, row = warp * PAGE + at / (HP / 8);
        uint16_t *p = &tile[row][at % (HP / 8) * 8];
        qn_vec16 v = qn_load16(p);
        if (odd2<BF16>(v.x[0]) || odd2<BF16>(v.x[1]) || odd2<BF16>(v.x[2]) || odd2<BF16>(v.x[3])) {
            qn_store16(p, qn_vec16{{0, 0, 0, 0}});
            atomicOr(&odd[row / 32], 1u << row % 32);
        }
    }
}

/* P = NaN where rows (from .. last of the fragment's two) see such a position; `odd`: 16 positions from `pos` on. */
QN_DEVICE void spoil(uint32_t p[4], uint32_t odd, int pos, const int *from, const int *last) {
    int at = (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int k = at + (i & 1) + (i >> 2) * 8, r = i >> 1 & 1;
        bool sees = (odd >> k & 1u) && pos + k >= from[8 * r] && pos + k <= last[8 * r];
        if (sees) p[(i >> 2) * 2 + r] |= 0x7fffu << (i & 1) * 16;
    }
}

/* --- the kernel ---------------------------------------------------------------------------------------------------------- */

QN_DEVICE float tanh_of(float x) {
    float e = qn_exp2(fabsf(x) * -2.8853900817779268f);
    return copysignf(__fdividef(1.0f - e, 1.0f + e), x);
}

/* Four columns in a row for each lane of a quad, which has 2t, 2t + 1 of eight columns in x[0], x[1] and of the next eight in x[2], x[3]. */
QN_DEVICE void put_columns(float *row, int col16, int width, bool aligned, bool keep, const float x[4]) {
    const bool upper = threadIdx.x & 1;
    float y0 = __shfl_xor_sync(0xffffffffu, upper ? x[0] : x[2], 1), y1 = __shfl_xor_sync(0xffffffffu, upper ? x[1] : x[3], 1);
    int col = col16 + (upper ? 8 : 0) + (int)threadIdx.x % 4 / 2 * 4;
    if (keep) put4(row, col, width, aligned, upper ? y0 : x[0], upper ? y1 : x[1], upper ? x[2] : y0, upper ? x[3] : y1);
}

/* A warp's share of a chunk's record. */
template <int HP, int W, bool BF16>
QN_DEVICE void put_record(const typename shape<HP, W, BF16>::shared &s, const qn_cuda_attn &a, int chunk, const float (&po)[shape<HP, W, BF16>::columns][2][4], const float pl[4], const float base[2]) {
    using sh = shape<HP, W, BF16>;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, part = warp % W;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int pair = warp / W * 16 + lane / 4 + 8 * r, row = row_of(s.j, pair), head = head_of(s.j, pair);
        bool keep = pair < s.j.n;
        int64_t rec = s.j.item.record + (int64_t)(chunk - s.j.item.chunk0) * s.j.item.n_rows + (row - s.j.item.row0);
        float *to = record_sums(a, rec, head), *w = record_weight(a, rec, head);
        if (keep && part == 0 && lane % 4 == 0) w[0] = base[r], w[1] = pl[2 * r];
#pragma unroll
        for (int i = 0; i < sh::columns; i++) {
            const float x[4] = {po[i][0][2 * r], po[i][0][2 * r + 1], po[i][1][2 * r], po[i][1][2 * r + 1]};
            put_columns(to, (part * sh::columns + i) * 16, a.kv.head_pad, true, keep, x);
        }
    }
}

/* A warp's share of the output. */
template <int HP, int W, bool BF16>
QN_DEVICE void put_output(const typename shape<HP, W, BF16>::shared &s, const qn_cuda_attn &a, const float (&o)[shape<HP, W, BF16>::columns][2][4], const float l[2]) {
    using sh = shape<HP, W, BF16>;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int pair = warp / W * 16 + lane / 4 + 8 * r;
        float *to = a.out + ((int64_t)row_of(s.j, pair) * a.kv.n_heads + head_of(s.j, pair)) * a.kv.head_dim, inv = 1.0f / l[r];
#pragma unroll
        for (int i = 0; i < sh::columns; i++) {
            const float x[4] = {finish(o[i][0][2 * r], inv), finish(o[i][0][2 * r + 1], inv), finish(o[i][1][2 * r], inv), finish(o[i][1][2 * r + 1], inv)};
            put_columns(to, (warp % W * sh::columns + i) * 16, a.kv.head_dim, a.kv.head_dim % 4 == 0, pair < s.j.n, x);
        }
    }
}

template <int HP, int W, bool BF16> QN_KERNEL(THREADS, (shape<HP, W, BF16>::blocks)) attend(const qn_cuda_attn a) {
    using sh = shape<HP, W, BF16>;
    QN_SHARED_DYN(typename sh::shared, s);
    {
        job mine;
        if (!find_job(mine, a, sh::pairs, W == 4)) return;
        if (threadIdx.x == 0) s.j = mine;
        __syncthreads();
    }
    const job &j = s.j;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, team = warp / W, part = warp % W;

    feed f = {j.chunk, first_tile(j, j.chunk), 0, 0};
    f.block = page_number(j, a, f.tile);
    int used = 0; /* tiles so far; sh::stages - 1 more are under way */
    auto start = [&](int n) { /* the copy of the n-th tile, if there is one; a group either way */
        if (f.chunk < j.chunk_end) {
            copy_page<HP>(s.tile[n % sh::stages], f, j, a);
            feed_next(f, j, a);
        }
        qn_cp_commit();
    };
    for (int i = 0; i < sh::stages - 1; i++) start(i);
    load_q<HP, W, BF16>(s, j, a);
    if (threadIdx.x < 3 * TILE / 32) s.odd[threadIdx.x / (TILE / 32)][threadIdx.x % (TILE / 32)] = 0;
    if (threadIdx.x < sh::pairs) {
        int pair = (int)threadIdx.x, pos = pair < j.n ? a.step.pos[row_of(j, pair)] : -1;
        s.last[pair] = pos;
        s.from[pair] = first_seen(pos, a.window);
    }

    /* Of this thread's two rows of the team's tile. */
    const int row0 = team * 16 + lane / 4;
    float m[2] = {-INFINITY, -INFINITY}, l[2] = {0.0f, 0.0f}, o[sh::columns][2][4] = {};

#pragma unroll 1
    for (int chunk = j.chunk; chunk < j.chunk_end; chunk++) {
        const int chunk_pos = chunk * QN_CUDA_CHUNK;
        float sc[CHUNK_TILES][sh::pages][2][4] = {};
#pragma unroll
        for (int t = 0; t < CHUNK_TILES; t++) {
            if (t + chunk * CHUNK_TILES < first_tile(j, chunk) || t + chunk * CHUNK_TILES >= end_tile(j, chunk)) continue;
            qn_cp_wait<sh::stages - 2>();
            __syncthreads();
            start(used + sh::stages - 1);
            scores<HP, W, BF16>(sc[t], s, s.tile[used++ % sh::stages]);
        }

        /* Scores in powers of two are sc * c. */
        float c[2] = {a.scale * 1.4426950408889634f * s.q_scale[row0], a.scale * 1.4426950408889634f * s.q_scale[row0 + 8]};
        float base[2] = {-INFINITY, -INFINITY};
        if (a.softcap > 0.0f) {
            const float in = __fdividef(a.scale, a.softcap), x[2] = {in * s.q_scale[row0], in * s.q_scale[row0 + 8]};
#pragma unroll
            for (int i = 0; i < CHUNK_TILES * sh::pages * 8; i++) {
                float &y = sc[i / 8 / sh::pages][i / 8 % sh::pages][i / 4 % 2][i % 4];
                y = tanh_of(__fmul_rn(y, x[i / 2 % 2]));
            }
            c[0] = c[1] = a.softcap * 1.4426950408889634f;
        }
        const bool whole = chunk_pos >= j.lo_last && chunk_pos + QN_CUDA_CHUNK <= j.hi_first;
        if (!whole) {
#pragma unroll
            for (int i = 0; i < CHUNK_TILES * sh::pages * 8; i++) {
                int t = i / 8 / sh::pages, page = i / 8 % sh::pages, n = i / 4 % 2, r = i / 2 % 2;
                int pos = chunk_pos + t * TILE + (part * sh::pages + page) * PAGE + n * 8 + lane % 4 * 2 + i % 2;
                if (pos < s.from[row0 + 8 * r] || pos > s.last[row0 + 8 * r]) sc[t][page][n][i % 4] = -INFINITY;
            }
        }
#pragma unroll
        for (int i = 0; i < CHUNK_TILES * sh::pages * 8; i++) base[i / 2 % 2] = fmaxf(base[i / 2 % 2], sc[i / 8 / sh::pages][i / 8 % sh::pages][i / 4 % 2][i % 4]);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            base[r] = fmaxf(base[r], __shfl_xor_sync(0xffffffffu, base[r], 1));
            base[r] = fmaxf(base[r], __shfl_xor_sync(0xffffffffu, base[r], 2));
        }
        if constexpr (W > 1) {
            if (lane % 4 == 0) s.row_max[warp][lane / 4] = base[0], s.row_max[warp][lane / 4 + 8] = base[1];
            __syncthreads();
#pragma unroll
            for (int i = 0; i < W; i++)
#pragma unroll
                for (int r = 0; r < 2; r++) base[r] = fmaxf(base[r], s.row_max[team * W + i][lane / 4 + 8 * r]);
        }

        uint32_t p[CHUNK_TILES][sh::pages][4];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            base[r] = __fmul_rn(base[r], c[r]);
            const float less = base[r] > -INFINITY ? base[r] : 0.0f;
#pragma unroll
            for (int i = 0; i < CHUNK_TILES * sh::pages * 2; i++) {
                const float *x = &sc[i / 2 / sh::pages][i / 2 % sh::pages][i % 2][2 * r];
                p[i / 2 / sh::pages][i / 2 % sh::pages][i % 2 * 2 + r] = pack<BF16>(qn_exp2(fmaf(x[0], c[r], -less)), qn_exp2(fmaf(x[1], c[r], -less)));
            }
        }
        if constexpr (W > 1) {
#pragma unroll
            for (int i = 0; i < CHUNK_TILES * sh::pages; i++) {
                const uint32_t *x = p[i / sh::pages][i % sh::pages];
                qn_store16(&s.p[team][i / sh::pages * WARPS + part * sh::pages + i % sh::pages][lane], qn_vec16{{x[0], x[1], x[2], x[3]}});
            }
        }

        float po[sh::columns][2][4] = {}, pl[4] = {};
#pragma unroll
        for (int t = 0; t < CHUNK_TILES; t++) {
            if (t + chunk * CHUNK_TILES < first_tile(j, chunk) || t + chunk * CHUNK_TILES >= end_tile(j, chunk)) continue;
            const bool search = chunk_pos < j.lo_last || chunk_pos + QN_CUDA_CHUNK > j.hi_first;
            qn_cp_wait<sh::stages - 2>();
            if (search) find_odd<HP, BF16>(s.tile[used % sh::stages], s.odd[(chunk * CHUNK_TILES + t) % 3]);
            __syncthreads();
            start(used + sh::stages - 1);
            if (threadIdx.x < TILE / 32) s.odd[(chunk * CHUNK_TILES + t + 2) % 3][threadIdx.x] = 0;
            const uint16_t(*tile)[HP + 8] = s.tile[used % sh::stages];
#pragma unroll
            for (int k = 0; k < WARPS; k++) {
                uint32_t x[4];
                if constexpr (W > 1) {
                    qn_vec16 v = qn_load16(&s.p[team][t * WARPS + k][lane]);
                    x[0] = v.x[0], x[1] = v.x[1], x[2] = v.x[2], x[3] = v.x[3];
                } else {
                    x[0] = p[t][k][0], x[1] = p[t][k][1], x[2] = p[t][k][2], x[3] = p[t][k][3];
                }
                uint32_t odd = s.odd[(chunk * CHUNK_TILES + t) % 3][k / 2] >> k % 2 * 16 & 0xffffu;
                if (odd) spoil(x, odd, chunk_pos + t * TILE + k * PAGE, &s.from[row0], &s.last[row0]);
                values<HP, W, BF16>(po, pl, x, tile + k * PAGE);
            }
            used++;
        }

        if (j.item.record >= 0) {
            put_record<HP, W, BF16>(s, a, chunk, po, pl, base);
            continue;
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float wa, wb;
            fold_weights(m[r], base[r], wa, wb);
            l[r] = fold(l[r], pl[2 * r], wa, wb);
#pragma unroll
            for (int i = 0; i < sh::columns * 4; i++) {
                float &x = o[i / 4][i / 2 % 2][2 * r + i % 2];
                x = fold(x, po[i / 4][i / 2 % 2][2 * r + i % 2], wa, wb);
            }
        }
    }
    if (j.item.record < 0) put_output<HP, W, BF16>(s, a, o, l);
}

/* Folds the records of a split item's rows: as attend() would have, chunk after chunk. The item with the first chunk does it for all
 * of its rows; four columns a thread. */
QN_KERNEL(THREADS, 8) merge(const qn_cuda_attn a) {
    if ((int)blockIdx.x >= a.step.head->n_items) return;
    const qn_cuda_item item = a.step.items[blockIdx.x];
    if (item.record < 0 || item.chunk0 != item.first) return;
    const int group = a.kv.n_heads / a.kv.n_kv_heads, quads = a.kv.head_pad / 4;
    for (int i = (int)threadIdx.x; i < item.n_rows * group * quads; i += THREADS) {
        int pair = i / quads, col = i % quads * 4, row = item.row0 + pair / group, head = (int)blockIdx.y * group + pair % group;
        int pos = a.step.pos[row], end = pos / QN_CUDA_CHUNK + 1;
        float m = -INFINITY, l = 0.0f, o[4] = {};
#pragma unroll 4
        for (int chunk = first_seen(pos, a.window) / QN_CUDA_CHUNK; chunk < end; chunk++) {
            int64_t rec = item.record + (int64_t)(chunk - item.first) * item.n_rows + (row - item.row0);
            const float *w = record_weight(a, rec, head);
            qn_vec16 x = qn_load16(record_sums(a, rec, head) + col);
            float wa, wb;
            fold_weights(m, w[0], wa, wb);
            l = fold(l, w[1], wa, wb);
#pragma unroll
            for (int k = 0; k < 4; k++) o[k] = fold(o[k], __uint_as_float(x.x[k]), wa, wb);
        }
        float inv = 1.0f / l;
        put4(a.out + ((int64_t)row * a.kv.n_heads + head) * a.kv.head_dim, col, a.kv.head_dim, a.kv.head_dim % 4 == 0, finish(o[0], inv), finish(o[1], inv), finish(o[2], inv), finish(o[3], inv));
    }
}

/* --- launches ------------------------------------------------------------------------------------------------------------ */

/* One instance of attend: its attribute, or its launch. */
template <int HP, int W, bool BF16> int allow() { return QN_ALLOW_SHARED((attend<HP, W, BF16>), sizeof(typename shape<HP, W, BF16>::shared)); }

template <int HP, int W, bool BF16> void launch(const qn_cuda_attn &a, int items, qn_cuda_stream stream) {
    int group = a.kv.n_heads / a.kv.n_kv_heads, pairs = shape<HP, W, BF16>::pairs, z = W == 4 ? 1 : (group + pairs - 1) / pairs;
    QN_LAUNCH((attend<HP, W, BF16>), dim3((unsigned)items, (unsigned)a.kv.n_kv_heads, (unsigned)(z > 1 ? z : 1)), THREADS, sizeof(typename shape<HP, W, BF16>::shared), stream, a);
}

/* The planner's qn_cuda_attn_pairs() says the same of WIDE. */
template <int HP, int WIDE, bool BF16> int allow_both() { return allow<HP, 4, BF16>() < 0 || allow<HP, WIDE, BF16>() < 0 ? -1 : 0; }
template <int HP, int WIDE, bool BF16> void launch_both(const qn_cuda_attn &a, int items, int kinds, qn_cuda_stream stream) {
    if (kinds & QN_CUDA_ATTN_NARROW) launch<HP, 4, BF16>(a, items, stream);
    if (kinds & QN_CUDA_ATTN_WIDE) launch<HP, WIDE, BF16>(a, items, stream);
}

struct width {
    int head_dim_max;
    int (*allow[2])(void);
    void (*launch[2])(const qn_cuda_attn &a, int items, int kinds, qn_cuda_stream stream);
};
const width widths[] = {
    {64, {allow_both<64, 1, false>, allow_both<64, 1, true>}, {launch_both<64, 1, false>, launch_both<64, 1, true>}},
    {96, {allow_both<96, 1, false>, allow_both<96, 1, true>}, {launch_both<96, 1, false>, launch_both<96, 1, true>}},
    {128, {allow_both<128, 1, false>, allow_both<128, 1, true>}, {launch_both<128, 1, false>, launch_both<128, 1, true>}},
    {256, {allow_both<256, 2, false>, allow_both<256, 2, true>}, {launch_both<256, 2, false>, launch_both<256, 2, true>}},
};

const width *width_of(int head_dim) {
    for (const width &w : widths)
        if (head_dim <= w.head_dim_max) return &w;
    return nullptr;
}

} // namespace

extern "C" int qn_cuda_attention_open(const struct qn_cuda_kv *kv) {
    const width *w = width_of(kv->head_dim);
    return w ? w->allow[kv->is_bf16 != 0]() : -1;
}

extern "C" int qn_cuda_attention(const struct qn_cuda_attn *a, int items, int kinds, qn_cuda_stream stream) {
    if (items > 0) {
        width_of(a->kv.head_dim)->launch[a->kv.is_bf16 != 0](*a, items, kinds, stream);
        if (kinds & QN_CUDA_ATTN_SPLIT) QN_LAUNCH(merge, dim3((unsigned)items, (unsigned)a->kv.n_kv_heads), THREADS, 0, stream, *a);
    }
    return cudaGetLastError() == cudaSuccess ? 0 : -1;
}
