/* Attention over paged keys and values: one arithmetic for one row and for thousands (FlashAttention-2, arXiv:2307.08691, with the
 * split over positions of Flash-Decoding; grouped heads share a tile as in GQA, arXiv:2305.13245). Parts: attention.cuh.
 *
 * The unit is a chunk: QN_CUDA_CHUNK positions at a fixed place against 16 (row, head) pairs of one KV head, the 16 rows of an mma.
 *     S = q . K^T       mma over head_dim, 16 at a time; then scale (and softcap), and -inf where the row does not look
 *     m = max S, P = 2^(S - m) rounded to 16 bits
 *     o = P . V, l = P . 1   mma over positions, 16 at a time, in order
 * and (m, l, o) of a row's chunks are folded in order, by qn_attn_fold(), here or in the merge kernel. Within a chunk nothing is
 * rescaled, so a team of W warps may share it: each has 1/W of the positions of a tile for S and 1/W of the columns for o, and P goes
 * through shared memory. W = 4 is for items of up to 16 pairs (decode); W = 1, or 2 for wide heads, for 64 or 32 pairs that share the
 * tiles they load (prefill). An element of S, m, P, o and l is the same sum in the same order for every W, so the bits are the same.
 * This needs of mma that a row of the result depends on no other row of A, nor on its place, and that products of zero leave a sum alone.
 *
 * Tiles of 64 (or 32) positions come through cp.async into a ring, K's of a chunk, then V's; one barrier a tile. Positions outside the
 * block's reach become zeros without being read. q is scaled by a power of two for each row and head to 2^14..2^15, so no magnitude
 * overflows f16 or loses bits; with bf16 pages it is the sum of two bf16, for eight bits would move large scores.
 *
 * A value that is not finite must not reach rows that do not look at its position (0 * inf), so the tiles of chunks in which some row
 * does not see everything are searched: such values become zeros, and P becomes NaN for the rows that look at them. Which columns of
 * those rows are NaN is not promised. Products next to sums are fmaf() or kept apart, or contraction would differ between kernels.
 *
 * What a block knows of its job lies in shared memory, and copies are unrolled four at a time: S (or P and o) of a whole chunk beside the
 * folded o need 192 of the 255 registers that two blocks on an SM leave. */
#include "engine/cuda/attention.cuh"

/* --- from scores to P --------------------------------------------------------------------------------------------------- */

/* Element i of a thread's scores, in the order tile, page, eight positions, row, position. */
template <class S> QN_DEVICE float &qn_attn_at(float (&sc)[S::tiles][S::pages][2][4], int i) { return sc[i / 8 / S::pages][i / 8 % S::pages][i / 4 % 2][i % 4]; }

QN_DEVICE float qn_attn_tanh(float x) {
    float e = qn_exp2(fabsf(x) * -2.8853900817779268f);
    return copysignf(__fdividef(1.0f - e, 1.0f + e), x);
}

/* Leaves scores whose powers of two count when multiplied by c[row]. */
template <class S> QN_DEVICE void qn_attn_cap(float (&sc)[S::tiles][S::pages][2][4], float c[2], const qn_cuda_attn &a, const float *q_scale) {
    const float log2e = 1.4426950408889634f;
    c[0] = a.scale * log2e * q_scale[0], c[1] = a.scale * log2e * q_scale[8];
    if (!(a.softcap > 0.0f)) return;
    const float in = __fdividef(a.scale, a.softcap), x[2] = {in * q_scale[0], in * q_scale[8]};
#pragma unroll
    for (int i = 0; i < S::tiles * S::pages * 8; i++) qn_attn_at<S>(sc, i) = qn_attn_tanh(__fmul_rn(qn_attn_at<S>(sc, i), x[i / 2 % 2]));
    c[0] = c[1] = a.softcap * log2e;
}

/* -inf where a row does not look. pos: of the warp's first position in the chunk's first tile. (Rows that do not exist see it all.) */
template <class S> QN_DEVICE void qn_attn_hide(float (&sc)[S::tiles][S::pages][2][4], int pos, const int *from, const int *last) {
    const unsigned at[2] = {(unsigned)(pos + qn_attn_lane() % 4 * 2 - from[0]), (unsigned)(pos + qn_attn_lane() % 4 * 2 - from[8])};
    const unsigned seen[2] = {(unsigned)(last[0] - from[0]), (unsigned)(last[8] - from[8])};
#pragma unroll
    for (int i = 0; i < S::tiles * S::pages * 8; i++) {
        const unsigned off = (unsigned)(i / 8 / S::pages * S::tile + i / 8 % S::pages * 16 + i / 4 % 2 * 8 + i % 2);
        if (at[i / 2 % 2] + off > seen[i / 2 % 2]) qn_attn_at<S>(sc, i) = -INFINITY;
    }
}

/* Largest score of each of the thread's two rows, over the team. A barrier if there is more than one warp. */
template <class S, int W> QN_DEVICE void qn_attn_row_max(float most[2], float (&sc)[S::tiles][S::pages][2][4], typename S::shared &s) {
    const int g = qn_attn_lane() / 4, warp = qn_attn_warp();
    most[0] = most[1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < S::tiles * S::pages * 8; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], qn_attn_at<S>(sc, i));
#pragma unroll
    for (int r = 0; r < 2; r++) {
        most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 1));
        most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 2));
    }
    if constexpr (W > 1) {
        if (qn_attn_lane() % 4 == 0) s.row_max[warp][g] = most[0], s.row_max[warp][g + 8] = most[1];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < W; i++) {
            most[0] = fmaxf(most[0], s.row_max[warp / W * W + i][g]);
            most[1] = fmaxf(most[1], s.row_max[warp / W * W + i][g + 8]);
        }
    }
}

/* P as fragments of A; m: the maxima, in powers of two. */
template <class S, bool BF16> QN_DEVICE void qn_attn_weights(uint32_t (&p)[S::tiles][S::pages][4], float (&sc)[S::tiles][S::pages][2][4], const float c[2], const float m[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float less = m[r] > -INFINITY ? m[r] : 0.0f;
#pragma unroll
        for (int i = 0; i < S::tiles * S::pages * 2; i++) {
            const float *x = &sc[i / 2 / S::pages][i / 2 % S::pages][i % 2][2 * r];
            p[i / 2 / S::pages][i / 2 % S::pages][i % 2 * 2 + r] = qn_attn_pack<BF16>(qn_exp2(fmaf(x[0], c[r], -less)), qn_exp2(fmaf(x[1], c[r], -less)));
        }
    }
}

/* --- the kernel ------------------------------------------------------------------------------------------------------------ */

template <int HP, int W, bool BF16> QN_KERNEL(QN_ATTN_THREADS, (qn_attn_shape<HP, W, BF16>::blocks)) qn_attn_kernel(const qn_cuda_attn a) {
    using S = qn_attn_shape<HP, W, BF16>;
    QN_SHARED_DYN(typename S::shared, s);
    {
        qn_attn_job mine;
        if (!qn_attn_find_job(mine, a, S::pairs, W == 4)) return; /* the whole block */
        if (threadIdx.x == 0) s.job = mine;
        if (threadIdx.x < 3 * S::tile / 32) s.odd[threadIdx.x % 3][threadIdx.x / 3] = 0;
        __syncthreads();
    }
    const qn_attn_job &j = s.job;
    const int lane = qn_attn_lane(), team = qn_attn_warp() / W, part = qn_attn_warp() % W, row0 = team * 16 + lane / 4; /* and row0 + 8 */

    qn_attn_feed f = {j.chunk, qn_attn_first_tile<S>(j, j.chunk), 0, 0};
    f.block = qn_attn_page<S>(j, a, f.tile);
    int place = 0; /* in the ring, of the tile that is next; S::stages - 1 are under way */
    auto start = [&](int to) { /* the copy of the tile after those, if there is one; a group either way */
        if (f.chunk < j.chunk_end) {
            qn_attn_copy<S, HP>(s.ring[to], f, j, a);
            qn_attn_feed_next<S>(f, j, a);
        }
        qn_cp_commit();
    };
    auto start_behind = [&] { start(place == 0 ? S::stages - 1 : place - 1); };
    auto take = [&] {
        int at = place;
        place = at + 1 < S::stages ? at + 1 : 0;
        return s.ring[at];
    };
    for (int i = 0; i < S::stages - 1; i++) start(i);
    qn_attn_load_q<S, HP, BF16>(s, j, a);

    float m[2] = {-INFINITY, -INFINITY}, l[2] = {0.0f, 0.0f}, o[S::columns][2][4] = {};
#pragma unroll 1
    for (int chunk = j.chunk; chunk < j.chunk_end; chunk++) {
        float sc[S::tiles][S::pages][2][4] = {};
#pragma unroll
        for (int t = 0; t < S::tiles; t++) {
            if (!qn_attn_has_tile<S>(j, chunk, t)) continue;
            qn_cp_wait<S::stages - 2>();
            __syncthreads(); /* the tile is there for all, and all are done with the one whose place the next copy takes */
            start_behind();
            qn_attn_scores<S, HP, W, BF16>(sc[t], s, take());
        }

        float c[2], mc[2];
        uint32_t p[S::tiles][S::pages][4];
        qn_attn_cap<S>(sc, c, a, &s.q_scale[row0]);
        if (!qn_attn_whole(j, chunk)) qn_attn_hide<S>(sc, chunk * QN_CUDA_CHUNK + part * S::pages * 16, &s.from[row0], &s.last[row0]);
        qn_attn_row_max<S, W>(mc, sc, s);
        mc[0] = __fmul_rn(mc[0], c[0]), mc[1] = __fmul_rn(mc[1], c[1]);
        qn_attn_weights<S, BF16>(p, sc, c, mc);
        if constexpr (W > 1) {
#pragma unroll
            for (int i = 0; i < S::tiles * S::pages; i++) {
                const uint32_t *x = p[i / S::pages][i % S::pages];
                qn_store16(&s.p[team][i / S::pages * S::steps + part * S::pages + i % S::pages][lane], qn_vec16{{x[0], x[1], x[2], x[3]}});
            }
        }

        float oc[S::columns][2][4] = {}, lc[4] = {};
#pragma unroll
        for (int t = 0; t < S::tiles; t++) {
            if (!qn_attn_has_tile<S>(j, chunk, t)) continue;
            const int turn = chunk * S::tiles + t; /* of three flags: one is read, one may be set for the next tile, one is cleared */
            qn_cp_wait<S::stages - 2>();
            if (!qn_attn_whole(j, chunk)) qn_attn_find_odd<S, HP, BF16>(s.ring[place], s.odd[turn % 3]);
            __syncthreads(); /* as above; and P is there for the team */
            start_behind();
            if (threadIdx.x < S::tile / 32) s.odd[(turn + 2) % 3][threadIdx.x] = 0;
            const uint16_t(*tile)[HP + 8] = take();
#pragma unroll
            for (int k = 0; k < S::steps; k++) {
                uint32_t x[4];
                if constexpr (W > 1) {
                    qn_vec16 v = qn_load16(&s.p[team][t * S::steps + k][lane]);
                    x[0] = v.x[0], x[1] = v.x[1], x[2] = v.x[2], x[3] = v.x[3];
                } else {
                    x[0] = p[t][k][0], x[1] = p[t][k][1], x[2] = p[t][k][2], x[3] = p[t][k][3];
                }
                uint32_t odd = s.odd[turn % 3][k / 2] >> k % 2 * 16 & 0xffffu;
                if (odd) qn_attn_spoil(x, odd, turn * S::tile + k * 16, &s.from[row0], &s.last[row0]);
                qn_attn_values<S, HP, W, BF16>(oc, lc, x, tile + k * 16);
            }
        }

        if (j.item.record >= 0) {
            qn_attn_put_record<S, W>(s, a, chunk, oc, lc, mc);
            continue;
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float wa, wb;
            qn_attn_fold_weights(m[r], mc[r], wa, wb);
            l[r] = qn_attn_fold(l[r], lc[2 * r], wa, wb);
#pragma unroll
            for (int i = 0; i < S::columns * 4; i++) {
                float &x = o[i / 4][i / 2 % 2][2 * r + i % 2];
                x = qn_attn_fold(x, oc[i / 4][i / 2 % 2][2 * r + i % 2], wa, wb);
            }
        }
    }
    if (j.item.record < 0) qn_attn_put_output<S, W>(s, a, o, l);
}

/* Folds the records of a split item's rows: as the kernel above would have, chunk after chunk. The item with the first chunk does it for
 * all of its rows; four columns a thread. */
QN_KERNEL(QN_ATTN_THREADS, 8) qn_attn_merge_kernel(const qn_cuda_attn a) {
    if ((int)blockIdx.x >= a.step.head->n_items) return;
    const qn_cuda_item item = a.step.items[blockIdx.x];
    if (item.record < 0 || item.chunk0 != item.first) return;
    const int group = a.kv.n_heads / a.kv.n_kv_heads, quads = a.kv.head_pad / 4, hd = a.kv.head_dim;
    for (int i = (int)threadIdx.x; i < item.n_rows * group * quads; i += QN_ATTN_THREADS) {
        int pair = i / quads, col = i % quads * 4, row = item.row0 + pair / group, head = (int)blockIdx.y * group + pair % group;
        int pos = a.step.pos[row], end = pos / QN_CUDA_CHUNK + 1;
        float m = -INFINITY, l = 0.0f, o[4] = {};
#pragma unroll 4
        for (int chunk = qn_attn_first_seen(pos, a.window) / QN_CUDA_CHUNK; chunk < end; chunk++) {
            int64_t rec = item.record + (int64_t)(chunk - item.first) * item.n_rows + (row - item.row0);
            const float *w = qn_attn_record_weight(a, rec, head);
            qn_vec16 x = qn_load16(qn_attn_record_sums(a, rec, head) + col);
            float wa, wb;
            qn_attn_fold_weights(m, w[0], wa, wb);
            l = qn_attn_fold(l, w[1], wa, wb);
#pragma unroll
            for (int k = 0; k < 4; k++) o[k] = qn_attn_fold(o[k], __uint_as_float(x.x[k]), wa, wb);
        }
        float inv = 1.0f / l, *to = a.out + ((int64_t)row * a.kv.n_heads + head) * hd;
        qn_attn_put4(to, col, hd, hd % 4 == 0, qn_attn_finish(o[0], inv), qn_attn_finish(o[1], inv), qn_attn_finish(o[2], inv), qn_attn_finish(o[3], inv));
    }
}

/* --- launches ---------------------------------------------------------------------------------------------------------------- */

/* One instance of the kernel: its attribute, or its launch. */
template <int HP, int W, bool BF16> static int qn_attn_allow() { return QN_ALLOW_SHARED((qn_attn_kernel<HP, W, BF16>), sizeof(typename qn_attn_shape<HP, W, BF16>::shared)); }

template <int HP, int W, bool BF16> static void qn_attn_launch(const qn_cuda_attn &a, int items, qn_cuda_stream stream) {
    using S = qn_attn_shape<HP, W, BF16>;
    int group = a.kv.n_heads / a.kv.n_kv_heads, z = W == 4 ? 1 : (group + S::pairs - 1) / S::pairs;
    QN_LAUNCH((qn_attn_kernel<HP, W, BF16>), dim3((unsigned)items, (unsigned)a.kv.n_kv_heads, (unsigned)z), QN_ATTN_THREADS, sizeof(typename S::shared), stream, a);
}

/* The planner's wide_pairs() goes by the same WIDE. */
template <int HP, int WIDE, bool BF16> static int qn_attn_allow_both() { return qn_attn_allow<HP, 4, BF16>() < 0 || qn_attn_allow<HP, WIDE, BF16>() < 0 ? -1 : 0; }
template <int HP, int WIDE, bool BF16> static void qn_attn_launch_both(const qn_cuda_attn &a, int items, int kinds, qn_cuda_stream stream) {
    if (kinds & QN_CUDA_ATTN_NARROW) qn_attn_launch<HP, 4, BF16>(a, items, stream);
    if (kinds & QN_CUDA_ATTN_WIDE) qn_attn_launch<HP, WIDE, BF16>(a, items, stream);
}

struct qn_attn_width {
    int head_dim_max;
    int (*allow[2])(void);
    void (*launch[2])(const qn_cuda_attn &a, int items, int kinds, qn_cuda_stream stream);
};
static const qn_attn_width qn_attn_widths[] = {
    {64, {qn_attn_allow_both<64, 1, false>, qn_attn_allow_both<64, 1, true>}, {qn_attn_launch_both<64, 1, false>, qn_attn_launch_both<64, 1, true>}},
    {96, {qn_attn_allow_both<96, 1, false>, qn_attn_allow_both<96, 1, true>}, {qn_attn_launch_both<96, 1, false>, qn_attn_launch_both<96, 1, true>}},
    {128, {qn_attn_allow_both<128, 1, false>, qn_attn_allow_both<128, 1, true>}, {qn_attn_launch_both<128, 1, false>, qn_attn_launch_both<128, 1, true>}},
    {256, {qn_attn_allow_both<256, 2, false>, qn_attn_allow_both<256, 2, true>}, {qn_attn_launch_both<256, 2, false>, qn_attn_launch_both<256, 2, true>}},
};

static const qn_attn_width *qn_attn_width_of(int head_dim) {
    for (const qn_attn_width &w : qn_attn_widths)
        if (head_dim <= w.head_dim_max) return &w;
    return nullptr;
}

extern "C" int qn_cuda_attention_open(const struct qn_cuda_kv *kv) {
    const qn_attn_width *w = qn_attn_width_of(kv->head_dim);
    return w ? w->allow[kv->is_bf16 != 0]() : -1;
}

extern "C" int qn_cuda_attention(const struct qn_cuda_attn *a, int items, int kinds, qn_cuda_stream stream) {
    if (items > 0) {
        qn_attn_width_of(a->kv.head_dim)->launch[a->kv.is_bf16 != 0](*a, items, kinds, stream);
        if (kinds & QN_CUDA_ATTN_SPLIT) QN_LAUNCH(qn_attn_merge_kernel, dim3((unsigned)items, (unsigned)a->kv.n_kv_heads), QN_ATTN_THREADS, 0, stream, *a);
    }
    return cudaGetLastError() == cudaSuccess ? 0 : -1;
}
