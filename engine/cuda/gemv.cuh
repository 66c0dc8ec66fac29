/* Integer matrices times 1 to 8 rows (decode): reads every weight once, straight from memory, and dots in dp4a.
 *
 * A block makes a tile of 32 outputs, or of a gated unit the same tile of both matrices. A warp takes a slice of the inner dimension,
 * lanes are outputs, so a load is 512 bytes in a row and sums need no shuffles; the slices' sums meet in shared memory. A step is 8 groups
 * (4 where registers or shared memory are short): all its weights are on their way at once, and the rows' share of it comes to shared
 * memory meanwhile, where all lanes read the same word. Bound by bytes of weights; see docs/cuda.md. */
#ifndef QN_CUDA_GEMV_CUH
#define QN_CUDA_GEMV_CUH

#include "engine/cuda/matmul.cuh"

enum { QN_GEMV_ROWS = 8 };

/* Warps of a block, blocks that registers must leave room for, groups of a step. */
template <class F, int R> struct qn_gemv_size {
    static constexpr int warps = R == 1 ? 16 : 8; /* 16: all slices at once, so that a small matrix fills the card */
    static constexpr int blocks = F::bits == 6 && R == 8 ? 1 : 16 / warps; /* 128 registers, or a few more */
    static constexpr int unit = F::bits == 8 || R > 1 ? 4 : 8;
};

/* A step's activations: of a row the bytes, the scales, the sums of halves. */
template <class F, int R> struct qn_gemv_rows {
    static constexpr int unit = qn_gemv_size<F, R>::unit, row_chunks = unit * 2 + unit / 4 * (F::has_min ? 2 : 1);
    struct row {
        int8_t q[unit * QN_MM_GROUP];
        float d[unit];
        uint32_t sum[F::has_min ? unit : 4];
    } row[R];
};
template <class F, int R> struct qn_gemv_shared {
    float part[2 * QN_CUDA_SLICES][R][QN_MM_TILE]; /* of (matrix, slice) */
    alignas(16) qn_gemv_rows<F, R> rows[qn_gemv_size<F, R>::warps];
};

/* Groups g0 .. of the rows; zeros behind their end. */
template <class F, int R> QN_DEVICE void qn_gemv_fetch(qn_gemv_rows<F, R> &to, const qn_cuda_act &a, int g0, int n_rows, int lane) {
    const int unit = qn_gemv_rows<F, R>::unit, per = qn_gemv_rows<F, R>::row_chunks, groups = a.stride / QN_MM_GROUP;
#pragma unroll
    for (int k = 0; k < (R * per + 31) / 32; k++) {
        int i = k * 32 + lane, r = i / per, c = i % per;
        if (r >= n_rows) break;
        int8_t *dst = to.row[r].q + c * QN_MM_CHUNK;
        const void *src = a.q + (size_t)r * a.stride + g0 * QN_MM_GROUP + c * QN_MM_CHUNK;
        int g = g0 + c / 2;
        if (c >= unit * 2) {
            bool is_sum = c >= unit * 2 + unit / 4;
            g = g0 + (c - unit * 2 - (is_sum ? unit / 4 : 0)) * 4; /* four groups a chunk, of scales and of sums */
            src = is_sum ? static_cast<const void *>(a.sum + ((size_t)r * groups + g) * 2) : static_cast<const void *>(a.d + (size_t)r * groups + g);
        }
        qn_cp_async16(dst, g < groups ? src : a.q, g < groups);
    }
    qn_cp_commit();
}

/* A step's chunks of one output. */
template <class F, int R> struct qn_gemv_weights {
    static constexpr int unit = qn_gemv_size<F, R>::unit, high_chunks = F::high_groups > 0 ? unit / (F::high_groups | 1 >> F::high_groups) : 1;
    qn_vec16 q[unit * F::q_chunks], high[high_chunks];
};
template <class F, int R> QN_DEVICE void qn_gemv_load(qn_gemv_weights<F, R> &u, const uint8_t *tile, const qn_cuda_weight &w, int g0, int lane) {
    const uint8_t *mine = tile + lane * QN_MM_CHUNK;
#pragma unroll
    for (int j = 0; j < qn_gemv_size<F, R>::unit; j++) {
        int g = g0 + j < w.n_groups ? g0 + j : w.n_groups - 1; /* read again rather than branch between loads */
#pragma unroll
        for (int c = 0; c < F::q_chunks; c++) u.q[j * F::q_chunks + c] = qn_load16_stream(mine + (size_t)(g * F::q_chunks + c) * QN_MM_PLANE);
    }
    if (F::high_groups == 0) return;
    const int per = F::high_groups > 0 ? F::high_groups : 1;
#pragma unroll
    for (int c = 0; c < qn_gemv_weights<F, R>::high_chunks; c++) {
        int at = g0 / per + c, last = (w.n_groups - 1) / per;
        u.high[c] = qn_load16_stream(mine + w.high_at + (size_t)(at < last ? at : last) * QN_MM_PLANE);
    }
}

/* Group j of the step as eight words of bytes, elements in order. */
template <class F, int R> QN_DEVICE void qn_gemv_bytes(uint32_t b[8], const qn_gemv_weights<F, R> &u, int j) {
#pragma unroll
    for (int t = 0; t < 4; t++) {
        if (F::bits == 8) {
            b[t] = u.q[j * F::q_chunks].x[t];
            b[4 + t] = u.q[j * F::q_chunks + F::q_chunks - 1].x[t];
            continue;
        }
        uint32_t h0 = 0, h1 = 0;
        if (F::high_groups == 4) h0 = u.high[j / 4].x[j % 4];
        if (F::high_groups == 2) h0 = u.high[j / 2].x[j % 2 * 2], h1 = u.high[j / 2].x[j % 2 * 2 + 1];
        qn_mm_bytes<F>(u.q[j].x[t], h0, h1, t, b[t], b[4 + t]);
    }
}

template <class F, int R> QN_DEVICE void qn_gemv_group(float acc[R], const uint32_t b[8], const qn_mm_scale &s, const qn_gemv_rows<F, R> &x, int j, int n_rows, bool valid) {
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (R > 1 && r >= n_rows) break;
        qn_vec16 lo = qn_load16(x.row[r].q + j * QN_MM_GROUP), hi = qn_load16(x.row[r].q + j * QN_MM_GROUP + 16);
        int dot0 = 0, dot1 = 0;
#pragma unroll
        for (int t = 0; t < 4; t++) {
            dot0 = __dp4a((int)b[t], (int)lo.x[t], dot0);
            dot1 = __dp4a((int)b[4 + t], (int)hi.x[t], dot1);
        }
        float sum = qn_mm_add<F>(acc[r], s, dot0, dot1, x.row[r].d[j], F::has_min ? x.row[r].sum[j] : 0u);
        acc[r] = valid ? sum : acc[r];
    }
}

/* One lane's share: output `lane` of the tile, groups of a slice. */
template <class F, int R>
QN_DEVICE void qn_gemv_slice(float acc[R], qn_gemv_rows<F, R> &x, const qn_cuda_weight &w, const uint8_t *tile, const qn_cuda_act &a, int slice, int lane, int n_rows) {
    const int unit = qn_gemv_size<F, R>::unit;
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
        for (int j0 = 0; j0 < 8; j0 += unit) {
            int g0 = sb * 8 + j0;
            if (g0 >= w.n_groups) break;
            qn_gemv_weights<F, R> u;
            qn_gemv_load<F, R>(u, tile, w, g0, lane);
            __syncwarp(); /* all lanes are done with the rows of the step before */
            qn_gemv_fetch<F, R>(x, a, g0, n_rows, lane);
            qn_cp_wait<0>();
            __syncwarp();
#pragma unroll
            for (int j = 0; j < unit; j++) {
                uint32_t b[8];
                qn_gemv_bytes<F, R>(b, u, j);
                qn_gemv_group<F, R>(acc, b, qn_mm_scale_of<F>(qn_mm_scale_bits<F>(c, j0 + j), super), x, j, n_rows, g0 + j < w.n_groups);
            }
        }
    }
}

template <int FORM, int R>
QN_KERNEL((qn_gemv_size<qn_mm_form<FORM>, R>::warps * 32), (qn_gemv_size<qn_mm_form<FORM>, R>::blocks)) qn_gemv_kernel(qn_mm_args a) {
    using F = qn_mm_form<FORM>;
    using S = qn_gemv_shared<F, R>;
    QN_SHARED(S, sh);
    int tile, m = qn_mm_matrix(a, (int)blockIdx.x, tile), lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int n_slices = a.mat[m].w.n_slices, n_rows = __ldg(a.n_rows);
    n_rows = n_rows < R ? n_rows : R;
    if (n_rows <= 0) return;
    for (int i = warp; i < (a.mode == QN_MM_GLU ? 2 : 1) * n_slices; i += (int)blockDim.x / 32) {
        const qn_cuda_weight &w = a.mat[i < n_slices ? m : 1].w;
        float acc[R];
#pragma unroll
        for (int r = 0; r < R; r++) acc[r] = 0;
        qn_gemv_slice<F, R>(acc, sh.rows[warp], w, w.tiles + (size_t)tile * w.tile_bytes, a.act, i < n_slices ? i : i - n_slices, lane, n_rows);
#pragma unroll
        for (int r = 0; r < R; r++) sh.part[i][r][lane] = acc[r];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n_rows * QN_MM_TILE; i += (int)blockDim.x) {
        int r = i / QN_MM_TILE, l = i % QN_MM_TILE, o = tile * QN_MM_TILE + l;
        float sum = qn_mm_slices(&sh.part[0][r][l], R * QN_MM_TILE, a.mat[m].w), up = 0;
        if (a.mode == QN_MM_GLU) up = qn_mm_slices(&sh.part[n_slices][r][l], R * QN_MM_TILE, a.mat[m].w);
        if (o < a.mat[m].w.n_out) qn_mm_finish(a, m, r, o, sum, up, 1.0f);
    }
}

template <int FORM, int R> static void qn_gemv_launch(qn_mm_args a, qn_cuda_stream stream) {
    const int warps = qn_gemv_size<qn_mm_form<FORM>, R>::warps;
    int items, blocks = qn_mm_blocks(a, 1, items), threads = (items < warps ? items : warps) * 32;
    QN_LAUNCH((qn_gemv_kernel<FORM, R>), blocks, threads, 0, stream, a);
}

template <int FORM> static int qn_gemv(const qn_mm_args &a, int rows_bound, qn_cuda_stream stream) {
    if (rows_bound <= 1) qn_gemv_launch<FORM, 1>(a, stream);
    else if (rows_bound <= 4) qn_gemv_launch<FORM, 4>(a, stream);
    else qn_gemv_launch<FORM, 8>(a, stream);
    return 0;
}

#endif
