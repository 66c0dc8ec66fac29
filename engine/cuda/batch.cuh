/* Integer matrices times a few dozen rows (decode of many sequences): still bound by bytes of weights, so a matrix is cut into as many
 * blocks as in gemv.cuh, but dotted by int8 mma.
 *
 * A block makes one tile of 32 outputs (of a gated unit: of both matrices, one after the other) for 16 or 32 rows. Each of its four warps
 * takes a quarter of the inner dimension with stages of its own, so that no barrier holds it; a warp's units follow each other without a
 * gap between slices and matrices. Quarters meet in shared memory. */
#ifndef QN_CUDA_BATCH_CUH
#define QN_CUDA_BATCH_CUH

#include "engine/cuda/gemm_parts.cuh"

enum { QN_BATCH_WARPS = 4 /* quarters */, QN_BATCH_ROWS = 64 /* more are gemm's */, QN_BATCH_STRIDE = QN_MM_TILE + 4 };

template <class F, int NT> struct qn_batch_shared {
    static constexpr int stages = NT > 2 ? 2 : 3; /* as many as leave a block within 99 KiB, what small cards have */
    union {
        qn_gemm_stage<F, 8 * NT, 1> stage[QN_BATCH_WARPS][stages];
        float part[QN_BATCH_WARPS][8 * NT * QN_BATCH_STRIDE]; /* at the end: quarters of the (last) matrix */
    };
    float gate[QN_BATCH_WARPS][8 * NT * QN_BATCH_STRIDE];
};

/* A warp's way through its quarter: units [first, first + n) of `both` matrices. */
struct qn_batch_job {
    int32_t tile, row0, n_rows, first, n, both;
};
QN_DEVICE qn_batch_job qn_batch_job_of(const qn_mm_args &a, const qn_cuda_weight &w, int tile, int rows) {
    int n_units = (w.n_groups + QN_GEMM_UNIT - 1) / QN_GEMM_UNIT, quarter = w.slice_sb * 2 * w.quarter_slices, row0 = (int)blockIdx.y * rows;
    int first = (int)threadIdx.x / 32 * quarter, n = n_units - first < quarter ? n_units - first : quarter, n_rows = __ldg(a.n_rows) - row0;
    return {tile, row0, n_rows < rows ? n_rows : rows, first, n > 0 ? n : 0, a.mode == QN_MM_GLU ? 2 : 1};
}

template <class F, int NT>
QN_DEVICE void qn_batch_load(qn_gemm_stage<F, 8 * NT, 1> &st, const qn_mm_args &a, int m, const qn_batch_job &job, int i) {
    const qn_cuda_weight &w = a.mat[i < job.n ? m : 1].w;
    qn_gemm_filler lane = {(int)threadIdx.x % 32, 32};
    int u = job.first + (i < job.n ? i : i - job.n);
    qn_gemm_load_tile(st, w, w.tiles + (size_t)job.tile * w.tile_bytes, 0, u, lane);
    qn_gemm_load_rows(st, a.act, job.row0, job.n_rows, u, lane);
}

/* The warp's quarter of the last matrix; of a gated unit the gate's is left in shared memory. */
template <class F, int NT> QN_DEVICE void qn_batch_quarter(qn_mm_sums<NT> &part, qn_batch_shared<F, NT> &sh, const qn_mm_args &a, int m, const qn_batch_job &job) {
    const int stages = qn_batch_shared<F, NT>::stages;
    const qn_cuda_weight &w = a.mat[m].w;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, slice = w.slice_sb * 2;
    qn_mm_sums<NT> c;
    qn_mm_clear(c), qn_mm_clear(part);
    for (int i = 1 - stages; i < job.both * job.n; i++) {
        if (i >= 0) {
            qn_cp_wait<stages - 2>();
            __syncwarp(); /* unit i is there for all lanes, and all are done with the stage that comes next */
        }
        int next = i + stages - 1;
        if (next < job.both * job.n) qn_batch_load<F, NT>(sh.stage[warp][next % stages], a, m, job, next);
        qn_cp_commit();
        if (i < 0) continue;
        int u = job.first + (i < job.n ? i : i - job.n);
        bool last = i + 1 == job.n || i + 1 == 2 * job.n;
        qn_gemm_unit(c, sh.stage[warp][i % stages], 0, 0, job.n_rows, w.n_groups - u * QN_GEMM_UNIT, u % 2, lane);
        if ((u + 1) % slice == 0 || last) qn_mm_fold(part, c);
        if (last && i + 1 < job.both * job.n) {
            qn_mm_store(sh.gate[warp], QN_BATCH_STRIDE, part, lane);
            qn_mm_clear(part);
        }
    }
    qn_cp_wait<0>();
}

template <int FORM, int NT> QN_KERNEL(QN_BATCH_WARPS * 32, 2) qn_batch_kernel(qn_mm_args a) {
    using F = qn_mm_form<FORM>;
    using S = qn_batch_shared<F, NT>;
    QN_SHARED_DYN(S, sh);
    const int size = 8 * NT * QN_BATCH_STRIDE;
    int tile, m = qn_mm_matrix(a, (int)blockIdx.x, tile);
    const qn_cuda_weight &w = a.mat[m].w;
    qn_batch_job job = qn_batch_job_of(a, w, tile, 8 * NT);
    if (job.n_rows <= 0) return;
    qn_mm_sums<NT> part;
    qn_batch_quarter<F, NT>(part, sh, a, m, job);
    __syncthreads(); /* all are done with all stages */
    qn_mm_store(sh.part[threadIdx.x / 32], QN_BATCH_STRIDE, part, (int)threadIdx.x % 32);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < job.n_rows * QN_MM_TILE; i += QN_BATCH_WARPS * 32) {
        int r = i / QN_MM_TILE, lane = i % QN_MM_TILE, o = tile * QN_MM_TILE + lane, at = r * QN_BATCH_STRIDE + lane;
        float sum = qn_mm_quarters(sh.part[0] + at, size, w), gate = job.both == 2 ? qn_mm_quarters(sh.gate[0] + at, size, w) : sum;
        if (o < w.n_out) qn_mm_finish(a, m, job.row0 + r, o, gate, sum, 1.0f);
    }
}

template <int FORM, int NT> static size_t qn_batch_bytes() {
    static_assert(sizeof(qn_batch_shared<qn_mm_form<FORM>, NT>) <= 99 * 1024, "shared memory of sm_86 and sm_120");
    return sizeof(qn_batch_shared<qn_mm_form<FORM>, NT>);
}

template <int FORM> static int qn_batch_allow() {
    return QN_ALLOW_SHARED((qn_batch_kernel<FORM, 2>), (qn_batch_bytes<FORM, 2>())) < 0 || QN_ALLOW_SHARED((qn_batch_kernel<FORM, 4>), (qn_batch_bytes<FORM, 4>())) < 0 ? -1 : 0;
}

template <int FORM> static int qn_batch(qn_mm_args a, int rows_bound, qn_cuda_stream stream) {
    int items, blocks = qn_mm_blocks(a, 1, items), rows = rows_bound <= 16 ? 16 : 32;
    dim3 grid(blocks, (rows_bound + rows - 1) / rows);
    if (rows == 16) QN_LAUNCH((qn_batch_kernel<FORM, 2>), grid, QN_BATCH_WARPS * 32, (qn_batch_bytes<FORM, 2>()), stream, a);
    else QN_LAUNCH((qn_batch_kernel<FORM, 4>), grid, QN_BATCH_WARPS * 32, (qn_batch_bytes<FORM, 4>()), stream, a);
    return 0;
}

#endif
