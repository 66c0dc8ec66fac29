/* Integer matrices times many rows (prefill): int8 mma, three stages of shared memory filled by cp.async.
 *
 * A block makes 64 outputs (two tiles side by side; of a gated unit the same tile of both matrices) for 64 rows; a warp one tile for 32
 * rows, through the whole inner dimension. Its sums have the bits of gemv.cuh and batch.cuh. */
#ifndef QN_CUDA_GEMM_CUH
#define QN_CUDA_GEMM_CUH

#include "engine/cuda/gemm_parts.cuh"

enum { QN_GEMM_THREADS = 128, QN_GEMM_ROWS = 64, QN_GEMM_TILES = 2, QN_GEMM_STAGES = 3, QN_GEMM_OUTS = QN_GEMM_TILES * QN_MM_TILE, QN_GEMM_OUT_STRIDE = QN_GEMM_OUTS + 4 };

template <class F> struct qn_gemm_shared {
    union {
        qn_gemm_stage<F, QN_GEMM_ROWS, QN_GEMM_TILES> stage[QN_GEMM_STAGES];
        float out[QN_GEMM_ROWS * QN_GEMM_OUT_STRIDE]; /* at the end */
    };
};

/* What a block works on. */
struct qn_gemm_job {
    const uint8_t *tile[QN_GEMM_TILES]; /* NULL: none */
    int32_t row0, n_rows;
};
QN_DEVICE qn_gemm_job qn_gemm_job_of(const qn_mm_args &a, int m, int at, int n_rows) {
    qn_gemm_job j;
    const qn_cuda_weight &w = a.mat[m].w;
    j.row0 = (int)blockIdx.y * QN_GEMM_ROWS;
    j.n_rows = n_rows - j.row0 < QN_GEMM_ROWS ? n_rows - j.row0 : QN_GEMM_ROWS;
    if (a.mode == QN_MM_GLU) {
        j.tile[0] = w.tiles + (size_t)at * w.tile_bytes;
        j.tile[1] = a.mat[1].w.tiles + (size_t)at * w.tile_bytes;
        return j;
    }
    j.tile[0] = w.tiles + (size_t)(2 * at) * w.tile_bytes;
    j.tile[1] = 2 * at + 1 < w.n_tiles ? j.tile[0] + w.tile_bytes : NULL;
    return j;
}

/* The block's sums through shared memory, so that neighbours write neighbours and a gated unit has both. */
QN_DEVICE void qn_gemm_finish(float *sh, const qn_mm_sums<4> &total, const qn_mm_args &a, int m, int at, const qn_gemm_job &job, bool h_scaled) {
    int warp = (int)threadIdx.x / 32, outs = a.mode == QN_MM_GLU ? (int)QN_MM_TILE : (int)QN_GEMM_OUTS;
    qn_mm_store(sh + warp / 2 * 32 * QN_GEMM_OUT_STRIDE + warp % 2 * QN_MM_TILE, QN_GEMM_OUT_STRIDE, total, (int)threadIdx.x % 32);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < job.n_rows * outs; i += QN_GEMM_THREADS) {
        int r = i / outs, o = at * outs + i % outs;
        const float *sum = sh + r * QN_GEMM_OUT_STRIDE + i % outs;
        if (o < a.mat[m].w.n_out) qn_mm_finish(a, m, job.row0 + r, o, sum[0], sum[QN_GEMM_OUTS - outs], h_scaled ? __ldg(a.act.h_scale + job.row0 + r) : 1.0f);
    }
}

template <int FORM> QN_KERNEL(QN_GEMM_THREADS, 2) qn_gemm_kernel(qn_mm_args a) {
    using F = qn_mm_form<FORM>;
    QN_SHARED_DYN(qn_gemm_shared<F>, sh);
    int at, m = qn_mm_matrix(a, (int)blockIdx.x, at), warp = (int)threadIdx.x / 32;
    const qn_cuda_weight &w = a.mat[m].w;
    qn_gemm_job job = qn_gemm_job_of(a, m, at, __ldg(a.n_rows));
    qn_gemm_filler all = {(int)threadIdx.x, QN_GEMM_THREADS};
    if (job.n_rows <= 0) return;
    int n_units = (w.n_groups + QN_GEMM_UNIT - 1) / QN_GEMM_UNIT, slice = w.slice_sb * 2, quarter = slice * w.quarter_slices;
    qn_mm_sums<4> c, part, total;
    qn_mm_clear(c), qn_mm_clear(part), qn_mm_clear(total);
    for (int u = 1 - QN_GEMM_STAGES; u < n_units; u++) {
        if (u >= 0) {
            qn_cp_wait<QN_GEMM_STAGES - 2>();
            __syncthreads(); /* unit u is there for all, and all are done with the stage that comes next */
        }
        int next = u + QN_GEMM_STAGES - 1;
        if (next < n_units) {
            auto &st = sh.stage[next % QN_GEMM_STAGES];
            qn_gemm_load_tile(st, w, job.tile[0], 0, next, all);
            qn_gemm_load_tile(st, w, job.tile[1], 1, next, all);
            qn_gemm_load_rows(st, a.act, job.row0, job.n_rows, next, all);
        }
        qn_cp_commit();
        if (u < 0) continue;
        qn_gemm_unit(c, sh.stage[u % QN_GEMM_STAGES], warp % 2, warp / 2 * 32, job.n_rows, w.n_groups - u * QN_GEMM_UNIT, u % 2, (int)threadIdx.x % 32);
        if ((u + 1) % slice == 0 || u + 1 == n_units) qn_mm_fold(part, c);
        if ((u + 1) % quarter == 0 || u + 1 == n_units) qn_mm_fold(total, part);
    }
    qn_cp_wait<0>();
    __syncthreads();
    qn_gemm_finish(sh.out, total, a, m, at, job, false);
}

template <int FORM> static int qn_gemm_allow() { return QN_ALLOW_SHARED((qn_gemm_kernel<FORM>), sizeof(qn_gemm_shared<qn_mm_form<FORM>>)); }

template <int FORM> static int qn_gemm(qn_mm_args a, int rows_bound, qn_cuda_stream stream) {
    int items, blocks = qn_mm_blocks(a, a.mode == QN_MM_GLU ? 1 : QN_GEMM_TILES, items);
    dim3 grid(blocks, (rows_bound + QN_GEMM_ROWS - 1) / QN_GEMM_ROWS);
    QN_LAUNCH((qn_gemm_kernel<FORM>), grid, QN_GEMM_THREADS, sizeof(qn_gemm_shared<qn_mm_form<FORM>>), stream, a);
    return 0;
}

#endif
