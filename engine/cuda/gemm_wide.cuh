/* 16-bit matrices times many rows: as gemm.cuh (64 outputs by 64 rows a block, one tile by 32 rows a warp, three stages), with the steps
 * of wide.cuh. A unit is 64 inputs. Operands are read by 16-byte loads: weights lie as in memory, chunk c of row r at c ^ 4 * (r & 1), so
 * that a quarter of a warp, which reads four chunks of two rows, meets all banks once. */
#ifndef QN_CUDA_GEMM_WIDE_CUH
#define QN_CUDA_GEMM_WIDE_CUH

#include "engine/cuda/gemm.cuh"
#include "engine/cuda/wide.cuh"

enum { QN_GEMM_WIDE_UNIT = 2 /* groups */, QN_GEMM_WIDE_GROUP = QN_MM_TILE * QN_WIDE_GROUP_BYTES };

struct qn_gemm_wide_stage {
    alignas(16) uint8_t w[QN_GEMM_TILES][QN_GEMM_WIDE_UNIT][QN_GEMM_WIDE_GROUP];
    uint8_t x[QN_GEMM_ROWS][QN_GEMM_WIDE_UNIT * QN_WIDE_GROUP_BYTES];
};
struct qn_gemm_wide_shared {
    union {
        qn_gemm_wide_stage stage[QN_GEMM_STAGES];
        float out[QN_GEMM_ROWS * QN_GEMM_OUT_STRIDE]; /* at the end */
    };
};

template <bool BF16> QN_DEVICE void qn_gemm_wide_load(qn_gemm_wide_stage &st, const qn_cuda_weight &w, const qn_cuda_act &a, const qn_gemm_job &job, int u) {
    const int chunks = QN_GEMM_WIDE_GROUP / QN_MM_CHUNK;
    int groups = w.n_groups - u * QN_GEMM_WIDE_UNIT;
#pragma unroll
    for (int t = 0; t < QN_GEMM_TILES; t++)
        qn_gemm_copy(st.w[t], job.tile[t] ? job.tile[t] + (size_t)u * QN_GEMM_WIDE_UNIT * QN_GEMM_WIDE_GROUP : NULL, QN_GEMM_WIDE_UNIT * chunks, groups * chunks,
                     {(int)threadIdx.x, QN_GEMM_THREADS});
    const uint16_t *h = a.h[BF16];
    for (int i = (int)threadIdx.x; i < QN_GEMM_ROWS * 8; i += QN_GEMM_THREADS) {
        int r = i / 8, c = i % 8;
        bool take = r < job.n_rows;
        qn_cp_async16(&st.x[r][(c ^ 4 * (r & 1)) * QN_MM_CHUNK], h + (take ? (size_t)(job.row0 + r) * a.stride + u * 64 + c * 8 : 0), take);
    }
}

template <bool BF16> QN_DEVICE void qn_gemm_wide_unit(qn_mm_sums<4> &s, const qn_gemm_wide_stage &st, int n_groups, int n_rows) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, row0 = warp / 2 * 32;
#pragma unroll
    for (int j = 0; j < QN_GEMM_WIDE_UNIT; j++) {
        if (j >= n_groups) break;
        qn_vec16 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = qn_load16(&st.w[warp % 2][j][(i * 8 + lane / 4) * QN_WIDE_GROUP_BYTES + lane % 4 * QN_MM_CHUNK]);
#pragma unroll
        for (int p = 0; p < 4; p++) {
            int r = row0 + p * 8 + lane / 4;
            if (row0 + p * 8 >= n_rows) break;
            qn_vec16 x = qn_load16(&st.x[r][((j * 4 + lane % 4) ^ 4 * (r & 1)) * QN_MM_CHUNK]);
            qn_wide_step<BF16>(s.c[p][0], v[0], v[1], x);
            qn_wide_step<BF16>(s.c[p][1], v[2], v[3], x);
        }
    }
}

template <bool BF16> QN_KERNEL(QN_GEMM_THREADS, 2) qn_gemm_wide_kernel(qn_mm_args a) {
    QN_SHARED_DYN(qn_gemm_wide_shared, sh);
    int at, m = qn_mm_matrix(a, (int)blockIdx.x, at);
    const qn_cuda_weight &w = a.mat[m].w;
    qn_gemm_job job = qn_gemm_job_of(a, m, at, __ldg(a.n_rows));
    if (job.n_rows <= 0) return;
    int n_units = (w.n_groups + QN_GEMM_WIDE_UNIT - 1) / QN_GEMM_WIDE_UNIT, slice = w.slice_sb * 4, quarter = slice * w.quarter_slices;
    qn_mm_sums<4> c, part, total;
    qn_mm_clear(c), qn_mm_clear(part), qn_mm_clear(total);
    for (int u = 1 - QN_GEMM_STAGES; u < n_units; u++) {
        if (u >= 0) {
            qn_cp_wait<QN_GEMM_STAGES - 2>();
            __syncthreads(); /* unit u is there for all, and all are done with the stage that comes next */
        }
        int next = u + QN_GEMM_STAGES - 1;
        if (next < n_units) qn_gemm_wide_load<BF16>(sh.stage[next % QN_GEMM_STAGES], w, a.act, job, next);
        qn_cp_commit();
        if (u < 0) continue;
        qn_gemm_wide_unit<BF16>(c, sh.stage[u % QN_GEMM_STAGES], w.n_groups - u * QN_GEMM_WIDE_UNIT, job.n_rows);
        if ((u + 1) % slice == 0 || u + 1 == n_units) qn_mm_fold(part, c);
        if ((u + 1) % quarter == 0 || u + 1 == n_units) qn_mm_fold(total, part);
    }
    qn_cp_wait<0>();
    __syncthreads();
    qn_gemm_finish(sh.out, total, a, m, at, job, !BF16);
}

template <bool BF16> static int qn_gemm_wide_allow() { return QN_ALLOW_SHARED((qn_gemm_wide_kernel<BF16>), sizeof(qn_gemm_wide_shared)); }

template <bool BF16> static int qn_gemm_wide(qn_mm_args a, int rows_bound, qn_cuda_stream stream) {
    int items, blocks = qn_mm_blocks(a, a.mode == QN_MM_GLU ? 1 : QN_GEMM_TILES, items);
    QN_LAUNCH((qn_gemm_wide_kernel<BF16>), dim3(blocks, (rows_bound + QN_GEMM_ROWS - 1) / QN_GEMM_ROWS), QN_GEMM_THREADS, sizeof(qn_gemm_wide_shared), stream, a);
    return 0;
}

#endif
