/* Integer matrices times 1 to 8 rows (decode): reads every weight once, straight from memory, and dots in dp4a.
 *
 * A block makes a tile of 32 outputs, or of a gated unit the same tile of both matrices. A warp takes a slice of the inner dimension,
 * lanes are outputs, so a load is 512 bytes in a row and sums need no shuffles; the slices' sums meet in shared memory. Activations
 * are the same for all lanes of a warp: broadcast loads out of L1. Bound by bytes of weights; see docs/cuda.md. */
#ifndef QN_CUDA_GEMV_CUH
#define QN_CUDA_GEMV_CUH

#include "engine/cuda/matmul.cuh"

enum { QN_GEMV_ROWS = 8, QN_GEMV_UNIT = 4 /* groups whose loads fly together */ };

/* Warps of a block, and blocks that registers must leave room for: 64 registers do for one row, but not of 6-bit values. */
template <class F, int R> struct qn_gemv_size {
    static constexpr int warps = R == 1 && F::bits != 6 ? 16 : 8;
    static constexpr int blocks = R == 1 && F::bits == 6 ? 3 : 2;
};

template <int R> struct qn_gemv_shared {
    float part[2 * QN_CUDA_SLICES][R][QN_MM_TILE]; /* of (matrix, slice) */
};

/* The unit's chunks of one output. */
template <class F> struct qn_gemv_unit {
    qn_vec16 q[QN_GEMV_UNIT * F::q_chunks], high[F::high_groups == 2 ? 2 : 1];
};
template <class F> QN_DEVICE void qn_gemv_load(qn_gemv_unit<F> &u, const uint8_t *tile, const qn_cuda_weight &w, int g0, int lane) {
#pragma unroll
    for (int j = 0; j < QN_GEMV_UNIT; j++) {
        int g = g0 + j < w.n_groups ? g0 + j : w.n_groups - 1; /* read again rather than branch between loads */
#pragma unroll
        for (int c = 0; c < F::q_chunks; c++) u.q[j * F::q_chunks + c] = qn_load16_stream(tile + (size_t)(g * F::q_chunks + c) * QN_MM_PLANE + lane * QN_MM_CHUNK);
    }
    const uint8_t *high = tile + w.high_at + lane * QN_MM_CHUNK;
    if (F::high_groups == 4) u.high[0] = qn_load16_stream(high + (size_t)(g0 / 4) * QN_MM_PLANE);
    if (F::high_groups == 2) {
        int last = (w.n_groups - 1) / 2;
#pragma unroll
        for (int c = 0; c < 2; c++) u.high[c] = qn_load16_stream(high + (size_t)(g0 / 2 + c < last ? g0 / 2 + c : last) * QN_MM_PLANE);
    }
}

/* Group j of the unit as eight words of bytes, elements in order. */
template <class F> QN_DEVICE void qn_gemv_bytes(uint32_t b[8], const qn_gemv_unit<F> &u, int j) {
#pragma unroll
    for (int t = 0; t < 4; t++) {
        if (F::bits == 8) {
            b[t] = u.q[j * F::q_chunks].x[t];
            b[4 + t] = u.q[j * F::q_chunks + F::q_chunks - 1].x[t];
            continue;
        }
        uint32_t h0 = 0, h1 = 0;
        if (F::high_groups == 4) h0 = u.high[0].x[j];
        if (F::high_groups == 2) h0 = u.high[j / 2].x[j % 2 * 2], h1 = u.high[j / 2].x[j % 2 * 2 + 1];
        qn_mm_bytes<F>(u.q[j].x[t], h0, h1, t, b[t], b[4 + t]);
    }
}

template <class F, int R> QN_DEVICE void qn_gemv_group(float acc[R], const uint32_t b[8], const qn_mm_scale &s, const qn_cuda_act &a, int g, int n_rows) {
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (r >= n_rows) break;
        const int8_t *q = a.q + (size_t)r * a.stride + g * QN_MM_GROUP;
        qn_vec16 lo = qn_load16(q), hi = qn_load16(q + 16);
        int dot0 = 0, dot1 = 0;
#pragma unroll
        for (int t = 0; t < 4; t++) {
            dot0 = __dp4a((int)b[t], (int)lo.x[t], dot0);
            dot1 = __dp4a((int)b[4 + t], (int)hi.x[t], dot1);
        }
        size_t at = (size_t)r * (a.stride / QN_MM_GROUP) + g;
        uint32_t sum = F::has_min ? __ldg(reinterpret_cast<const unsigned *>(a.sum) + at) : 0u;
        acc[r] = qn_mm_add<F>(acc[r], s, dot0, dot1, __ldg(a.d + at), sum);
    }
}

/* One lane's share: output `lane` of the tile, groups of slice s. */
template <class F, int R> QN_DEVICE void qn_gemv_slice(float acc[R], const qn_cuda_weight &w, const uint8_t *tile, const qn_cuda_act &a, int slice, int lane, int n_rows) {
    int sb1 = (slice + 1) * w.slice_sb < w.n_sb ? (slice + 1) * w.slice_sb : w.n_sb;
    for (int sb = slice * w.slice_sb; sb < sb1; sb++) {
        uint32_t c[4 * F::scale_chunks], super = 0;
#pragma unroll
        for (int i = 0; i < F::scale_chunks; i++) {
            qn_vec16 v = qn_load16_stream(tile + w.scale_at + (size_t)(sb * F::scale_chunks + i) * QN_MM_PLANE + lane * QN_MM_CHUNK);
#pragma unroll
            for (int k = 0; k < 4; k++) c[4 * i + k] = v.x[k];
        }
        if (F::has_super) super = __ldg(reinterpret_cast<const unsigned *>(tile + w.super_at) + sb * QN_MM_TILE + lane);
#pragma unroll
        for (int part = 0; part < 2; part++) {
            int g0 = sb * 8 + part * QN_GEMV_UNIT;
            if (g0 >= w.n_groups) break;
            qn_gemv_unit<F> u;
            qn_gemv_load(u, tile, w, g0, lane);
#pragma unroll
            for (int j = 0; j < QN_GEMV_UNIT; j++) {
                if (g0 + j >= w.n_groups) break;
                uint32_t b[8];
                qn_gemv_bytes(b, u, j);
                qn_gemv_group<F, R>(acc, b, qn_mm_scale_of<F>(qn_mm_scale_bits<F>(c, part * QN_GEMV_UNIT + j), super), a, g0 + j, n_rows);
            }
        }
    }
}

template <int R> QN_DEVICE void qn_gemv_finish(const qn_mm_args &a, const qn_gemv_shared<R> &sh, int m, int tile, int n_rows) {
    int n_slices = a.mat[m].w.n_slices;
    for (int i = (int)threadIdx.x; i < n_rows * QN_MM_TILE; i += (int)blockDim.x) {
        int r = i / QN_MM_TILE, lane = i % QN_MM_TILE, o = tile * QN_MM_TILE + lane;
        float sum = 0, up = 0;
        sum = qn_mm_slices(&sh.part[0][r][lane], R * QN_MM_TILE, a.mat[m].w);
        if (a.mode == QN_MM_GLU) up = qn_mm_slices(&sh.part[n_slices][r][lane], R * QN_MM_TILE, a.mat[m].w);
        if (o < a.mat[m].w.n_out) qn_mm_finish(a, m, r, o, sum, up, 1.0f);
    }
}

template <int FORM, int R>
QN_KERNEL((qn_gemv_size<qn_mm_form<FORM>, R>::warps * 32), (qn_gemv_size<qn_mm_form<FORM>, R>::blocks)) qn_gemv_kernel(qn_mm_args a) {
    using F = qn_mm_form<FORM>;
    QN_SHARED(qn_gemv_shared<R>, sh);
    int tile, m = qn_mm_matrix(a, (int)blockIdx.x, tile), lane = (int)threadIdx.x % 32;
    int n_slices = a.mat[m].w.n_slices, n_rows = __ldg(a.n_rows);
    n_rows = n_rows < R ? n_rows : R;
    for (int i = (int)threadIdx.x / 32; i < (a.mode == QN_MM_GLU ? 2 : 1) * n_slices; i += (int)blockDim.x / 32) {
        const qn_cuda_weight &w = a.mat[i < n_slices ? m : 1].w;
        float acc[R];
#pragma unroll
        for (int r = 0; r < R; r++) acc[r] = 0;
        qn_gemv_slice<F, R>(acc, w, w.tiles + (size_t)tile * w.tile_bytes, a.act, i < n_slices ? i : i - n_slices, lane, n_rows);
#pragma unroll
        for (int r = 0; r < R; r++) sh.part[i][r][lane] = acc[r];
    }
    __syncthreads();
    qn_gemv_finish<R>(a, sh, m, tile, n_rows);
}

template <int FORM, int R> static void qn_gemv_rows(qn_mm_args a, qn_cuda_stream stream) {
    const int warps = qn_gemv_size<qn_mm_form<FORM>, R>::warps;
    int items, blocks = qn_mm_blocks(a, 1, items), threads = (items < warps ? items : warps) * 32;
    QN_LAUNCH((qn_gemv_kernel<FORM, R>), blocks, threads, 0, stream, a);
}

template <int FORM> static int qn_gemv(const qn_mm_args &a, int rows_bound, qn_cuda_stream stream) {
    if (rows_bound <= 1) qn_gemv_rows<FORM, 1>(a, stream);
    else if (rows_bound <= 4) qn_gemv_rows<FORM, 4>(a, stream);
    else qn_gemv_rows<FORM, 8>(a, stream);
    return 0;
}

#endif
