/* 16-bit matrices: mma with 16 inputs a step for any number of rows, so that one row and a hundred see the same sums.
 *
 * The order of inputs within a group of 32 is bent so that both operands come in 16-byte pieces: lane (g, t) holds inputs 8t .. 8t + 7 of
 * its rows and feeds the first four to one mma as columns 2t, 2t + 1, 2t + 8, 2t + 9, the others to the next. A sum does not mind, as long
 * as every kernel does it alike: they all step through qn_wide_step.
 *
 * These two are bound by bytes of weights, which they read straight from memory; a block makes a tile of 32 outputs (of a gated unit: of
 * both matrices). Up to 8 rows: a warp takes a slice of the inner dimension. A few dozen: a warp takes a quarter of a matrix and keeps
 * 32 rows. */
#ifndef QN_CUDA_WIDE_CUH
#define QN_CUDA_WIDE_CUH

#include "engine/cuda/matmul.cuh"

enum { QN_WIDE_WARPS = 8, QN_WIDE_ROWS = 8, QN_WIDE_GROUP_BYTES = 64, QN_WIDE_STRIDE = QN_MM_TILE + 4 /* meets all banks */ };
enum { QN_WIDE_BATCH_TILE = 32 /* rows of a block */, QN_WIDE_BATCH_ROWS = 64 /* more are gemm's */ };

struct qn_wide_shared {
    float part[2 * QN_CUDA_SLICES][QN_WIDE_ROWS][QN_WIDE_STRIDE]; /* of (matrix, slice) */
};

/* c[16 outputs][8 rows] += 32 inputs. w0, w1: 16 bytes of outputs g and g + 8; x: of row g. */
template <bool BF16> QN_DEVICE void qn_wide_step(float c[4], const qn_vec16 &w0, const qn_vec16 &w1, const qn_vec16 &x) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        uint32_t a[4] = {w0.x[i], w1.x[i], w0.x[i + 1], w1.x[i + 1]}, b[2] = {x.x[i], x.x[i + 1]};
        if (BF16) qn_mma_bf16(c, a, b);
        else qn_mma_f16(c, a, b);
    }
}

/* Groups [g, g1) of a tile for rows row0 .. row0 + 8 NT - 1, of which those below n_rows exist. */
template <bool BF16, int NT>
QN_DEVICE void qn_wide_groups(qn_mm_sums<NT> &s, const uint8_t *tile, const qn_cuda_act &a, int g, int g1, int row0, int n_rows, int lane) {
    const uint8_t *from = tile + lane / 4 * QN_WIDE_GROUP_BYTES + lane % 4 * QN_MM_CHUNK;
    const uint16_t *h = a.h[BF16] + (size_t)(row0 + lane / 4) * a.stride + lane % 4 * 8;
#pragma unroll(NT == 1 ? 4 : 2)
    for (; g < g1; g++) {
        const uint8_t *p = from + (size_t)g * QN_MM_TILE * QN_WIDE_GROUP_BYTES;
        qn_vec16 v[4], x[NT];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = qn_load16_stream(p + i * 8 * QN_WIDE_GROUP_BYTES);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            x[n] = {{0, 0, 0, 0}};
            if (row0 + n * 8 + lane / 4 < n_rows) x[n] = qn_load16(h + (size_t)n * 8 * a.stride + g * QN_MM_GROUP);
        }
#pragma unroll
        for (int n = 0; n < NT; n++) {
            if (row0 + n * 8 >= n_rows) break;
            qn_wide_step<BF16>(s.c[n][0], v[0], v[1], x[n]);
            qn_wide_step<BF16>(s.c[n][1], v[2], v[3], x[n]);
        }
    }
}

/* --- up to 8 rows --------------------------------------------------------------------------------------------------- */

template <bool BF16> QN_DEVICE void qn_wide_finish(const qn_mm_args &a, const qn_wide_shared &sh, int m, int tile, int n_rows) {
    int n_slices = a.mat[m].w.n_slices;
    for (int i = (int)threadIdx.x; i < QN_WIDE_ROWS * QN_MM_TILE; i += (int)blockDim.x) {
        int r = i / QN_MM_TILE, lane = i % QN_MM_TILE, o = tile * QN_MM_TILE + lane;
        float sum = 0, up = 0;
        sum = qn_mm_slices(&sh.part[0][r][lane], sizeof sh.part[0] / sizeof(float), a.mat[m].w);
        if (a.mode == QN_MM_GLU) up = qn_mm_slices(&sh.part[n_slices][r][lane], sizeof sh.part[0] / sizeof(float), a.mat[m].w);
        if (r < n_rows && o < a.mat[m].w.n_out) qn_mm_finish(a, m, r, o, sum, up, BF16 ? 1.0f : __ldg(a.act.h_scale + r));
    }
}

template <bool BF16> QN_KERNEL(QN_WIDE_WARPS * 32, 2) qn_wide_kernel(qn_mm_args a) {
    QN_SHARED(qn_wide_shared, sh);
    int tile, m = qn_mm_matrix(a, (int)blockIdx.x, tile), lane = (int)threadIdx.x % 32;
    int n_rows = __ldg(a.n_rows), n_slices = a.mat[m].w.n_slices;
    if (n_rows <= 0) return;
    for (int i = (int)threadIdx.x / 32; i < (a.mode == QN_MM_GLU ? 2 : 1) * n_slices; i += (int)blockDim.x / 32) {
        const qn_cuda_weight &w = a.mat[i < n_slices ? m : 1].w;
        int slice = w.slice_sb * 8, g = (i < n_slices ? i : i - n_slices) * slice;
        qn_mm_sums<1> c;
        qn_mm_clear(c);
        qn_wide_groups<BF16, 1>(c, w.tiles + (size_t)tile * w.tile_bytes, a.act, g, g + slice < w.n_groups ? g + slice : w.n_groups, 0, n_rows, lane);
        qn_mm_store(sh.part[i][0], QN_WIDE_STRIDE, c, lane);
    }
    __syncthreads();
    qn_wide_finish<BF16>(a, sh, m, tile, n_rows);
}

/* --- a few dozen rows ----------------------------------------------------------------------------------------------- */

struct qn_wide_batch_shared {
    float part[2][4][QN_WIDE_BATCH_TILE][QN_WIDE_STRIDE]; /* of (matrix, quarter) */
};

/* One warp's quarter of one matrix, to shared memory. */
template <bool BF16> QN_DEVICE void qn_wide_quarter(float *to, const qn_cuda_weight &w, int tile, const qn_cuda_act &a, int quarter, int row0, int n_rows, int lane) {
    int slice = w.slice_sb * 8, g1 = (quarter + 1) * w.quarter_slices * slice;
    qn_mm_sums<QN_WIDE_BATCH_TILE / 8> c, part;
    qn_mm_clear(c), qn_mm_clear(part);
    for (int g = quarter * w.quarter_slices * slice; g < g1 && g < w.n_groups; g += slice) {
        qn_wide_groups<BF16, QN_WIDE_BATCH_TILE / 8>(c, w.tiles + (size_t)tile * w.tile_bytes, a, g, g + slice < w.n_groups ? g + slice : w.n_groups, row0, n_rows, lane);
        qn_mm_fold(part, c);
    }
    qn_mm_store(to, QN_WIDE_STRIDE, part, lane);
}

template <bool BF16> QN_KERNEL(QN_WIDE_WARPS * 32, 1) qn_wide_batch_kernel(qn_mm_args a) {
    QN_SHARED(qn_wide_batch_shared, sh);
    const int size = QN_WIDE_BATCH_TILE * QN_WIDE_STRIDE;
    int tile, m = qn_mm_matrix(a, (int)blockIdx.x, tile), lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int row0 = (int)blockIdx.y * QN_WIDE_BATCH_TILE, n_rows = __ldg(a.n_rows);
    if (row0 >= n_rows) return;
    qn_wide_quarter<BF16>(sh.part[warp / 4][warp % 4][0], a.mat[warp < 4 ? m : 1].w, tile, a.act, warp % 4, row0, n_rows, lane);
    __syncthreads();
    const qn_cuda_weight &w = a.mat[m].w;
    for (int i = (int)threadIdx.x; i < QN_WIDE_BATCH_TILE * QN_MM_TILE; i += (int)blockDim.x) {
        int r = i / QN_MM_TILE, l = i % QN_MM_TILE, o = tile * QN_MM_TILE + l, row = row0 + r;
        if (row >= n_rows || o >= w.n_out) continue;
        float sum = qn_mm_quarters(&sh.part[0][0][r][l], size, w), up = a.mode == QN_MM_GLU ? qn_mm_quarters(&sh.part[1][0][r][l], size, w) : 0;
        qn_mm_finish(a, m, row, o, sum, up, BF16 ? 1.0f : __ldg(a.act.h_scale + row));
    }
}

/* --- launches ------------------------------------------------------------------------------------------------------ */

template <bool BF16> static int qn_wide(qn_mm_args a, int rows_bound, qn_cuda_stream stream) {
    int items, blocks = qn_mm_blocks(a, 1, items), threads = (items < QN_WIDE_WARPS ? items : QN_WIDE_WARPS) * 32;
    if (rows_bound <= QN_WIDE_ROWS) QN_LAUNCH((qn_wide_kernel<BF16>), blocks, threads, 0, stream, a);
    else QN_LAUNCH((qn_wide_batch_kernel<BF16>), dim3(blocks, (rows_bound + QN_WIDE_BATCH_TILE - 1) / QN_WIDE_BATCH_TILE), a.mode == QN_MM_GLU ? 256 : 128, 0, stream, a);
    return 0;
}

#endif
