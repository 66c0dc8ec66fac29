/* 16-bit matrices: mma with 16 inputs a step for any number of rows, so that one row and a hundred see the same sums.
 *
 * The order of inputs within a group of 32 is bent so that both operands come in 16-byte pieces: lane (g, t) holds inputs 8t .. 8t + 7 of
 * its rows and feeds the first four to one mma as columns 2t, 2t + 1, 2t + 8, 2t + 9, the others to the next. A sum does not mind, as long
 * as every kernel does it alike: they all step through qn_wide_step.
 *
 * This one is for few rows (decode): a block makes a tile of 32 outputs (of a gated unit: of both matrices) for 8 rows, a warp takes a
 * slice of the inner dimension and reads weights straight from memory. */
#ifndef QN_CUDA_WIDE_CUH
#define QN_CUDA_WIDE_CUH

#include "engine/cuda/matmul.cuh"

enum { QN_WIDE_WARPS = 8, QN_WIDE_ROWS = 8, QN_WIDE_GROUP_BYTES = 64 };

struct qn_wide_shared {
    float part[2 * QN_CUDA_SLICES][QN_WIDE_ROWS][QN_MM_TILE + 4]; /* of (matrix, slice) */
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

template <bool BF16> QN_DEVICE void qn_wide_slice(float c[2][4], const qn_cuda_weight &w, const uint8_t *tile, const qn_cuda_act &a, int slice, int lane, int row0, int n_rows) {
    int g1 = (slice + 1) * w.slice_sb * 8 < w.n_groups ? (slice + 1) * w.slice_sb * 8 : w.n_groups, row = row0 + lane / 4;
    const uint8_t *from = tile + lane / 4 * QN_WIDE_GROUP_BYTES + lane % 4 * QN_MM_CHUNK;
    const uint16_t *h = a.h[BF16] + (size_t)row * a.stride + lane % 4 * 8;
#pragma unroll 4
    for (int g = slice * w.slice_sb * 8; g < g1; g++) {
        const uint8_t *p = from + (size_t)g * QN_MM_TILE * QN_WIDE_GROUP_BYTES;
        qn_vec16 v[4], x = {{0, 0, 0, 0}};
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = qn_load16_stream(p + i * 8 * QN_WIDE_GROUP_BYTES);
        if (row < n_rows) x = qn_load16(h + g * QN_MM_GROUP);
        qn_wide_step<BF16>(c[0], v[0], v[1], x);
        qn_wide_step<BF16>(c[1], v[2], v[3], x);
    }
}

template <bool BF16> QN_DEVICE void qn_wide_finish(const qn_mm_args &a, const qn_wide_shared &sh, int m, int tile, int row0, int n_rows) {
    int n_slices = a.mat[m].w.n_slices;
    for (int i = (int)threadIdx.x; i < QN_WIDE_ROWS * QN_MM_TILE; i += (int)blockDim.x) {
        int r = i / QN_MM_TILE, lane = i % QN_MM_TILE, o = tile * QN_MM_TILE + lane;
        float sum = 0, up = 0;
        sum = qn_mm_slices(&sh.part[0][r][lane], sizeof sh.part[0] / sizeof(float), a.mat[m].w);
        if (a.mode == QN_MM_GLU) up = qn_mm_slices(&sh.part[n_slices][r][lane], sizeof sh.part[0] / sizeof(float), a.mat[m].w);
        if (row0 + r < n_rows && o < a.mat[m].w.n_out) qn_mm_finish(a, m, row0 + r, o, sum, up, BF16 ? 1.0f : __ldg(a.act.h_scale + row0 + r));
    }
}

template <bool BF16> QN_KERNEL(QN_WIDE_WARPS * 32, 2) qn_wide_kernel(qn_mm_args a) {
    QN_SHARED(qn_wide_shared, sh);
    int tile, m = qn_mm_matrix(a, (int)blockIdx.x, tile), lane = (int)threadIdx.x % 32;
    int n_rows = __ldg(a.n_rows), row0 = (int)blockIdx.y * QN_WIDE_ROWS, n_slices = a.mat[m].w.n_slices;
    if (row0 >= n_rows) return;
    for (int i = (int)threadIdx.x / 32; i < (a.mode == QN_MM_GLU ? 2 : 1) * n_slices; i += (int)blockDim.x / 32) {
        const qn_cuda_weight &w = a.mat[i < n_slices ? m : 1].w;
        float c[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        qn_wide_slice<BF16>(c, w, w.tiles + (size_t)tile * w.tile_bytes, a.act, i < n_slices ? i : i - n_slices, lane, row0, n_rows);
#pragma unroll
        for (int k = 0; k < 8; k++) sh.part[i][lane % 4 * 2 + k % 2][k / 2 * 8 + lane / 4] = c[k / 4][k % 4];
    }
    __syncthreads();
    qn_wide_finish<BF16>(a, sh, m, tile, row0, n_rows);
}

template <bool BF16> static int qn_wide(qn_mm_args a, int rows_bound, qn_cuda_stream stream) {
    int items, blocks = qn_mm_blocks(a, 1, items), threads = (items < QN_WIDE_WARPS ? items : QN_WIDE_WARPS) * 32;
    QN_LAUNCH((qn_wide_kernel<BF16>), dim3(blocks, (rows_bound + QN_WIDE_ROWS - 1) / QN_WIDE_ROWS), threads, 0, stream, a);
    return 0;
}

#endif
