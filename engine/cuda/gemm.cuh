/* Integer matrices times many rows (prefill, wide batches): int8 mma with the weights as the 16-side, three stages of shared memory filled
 * by cp.async.
 *
 * A block makes 64 outputs (two tiles side by side; of a gated unit the same tile of both matrices) for 64 rows; a warp one tile for 32
 * rows. A unit is 128 inputs. Weights lie in shared memory as in memory (weight.h): ldmatrix gives a lane four bytes of each of its rows,
 * which become two words of an mma operand by a shift and a mask. Rows' activations lie 128 bytes a row, chunk c of row r at c ^ (r & 7).
 *
 * Each sum runs through the inner dimension alone, in the order of matmul.cuh, so that the bits are those of gemv.cuh. */
#ifndef QN_CUDA_GEMM_CUH
#define QN_CUDA_GEMM_CUH

#include "engine/cuda/matmul.cuh"

enum { QN_GEMM_THREADS = 128, QN_GEMM_ROWS = 64, QN_GEMM_TILES = 2, QN_GEMM_STAGES = 3, QN_GEMM_UNIT = 4 /* groups */, QN_GEMM_OUTS = QN_GEMM_TILES * QN_MM_TILE };

template <class F> struct qn_gemm_stage {
    static constexpr int high_chunks = F::high_groups == 4 ? 1 : F::high_groups == 2 ? 2 : 0;
    alignas(16) uint8_t q[QN_GEMM_TILES][QN_GEMM_UNIT][F::q_chunks][QN_MM_PLANE];
    uint8_t high[QN_GEMM_TILES][high_chunks > 0 ? high_chunks : 1][high_chunks > 0 ? QN_MM_PLANE : 16];
    uint8_t scale[QN_GEMM_TILES][QN_MM_PLANE];
    uint32_t super[QN_GEMM_TILES][F::has_super ? QN_MM_TILE : 4];
    int8_t x[QN_GEMM_ROWS][QN_GEMM_UNIT * QN_MM_GROUP];
    float d[QN_GEMM_ROWS][QN_GEMM_UNIT];
    int16_t sum[F::has_min ? QN_GEMM_ROWS : 1][2 * QN_GEMM_UNIT];
};
template <class F> struct qn_gemm_shared {
    union {
        qn_gemm_stage<F> stage[QN_GEMM_STAGES];
        float out[QN_GEMM_ROWS][QN_GEMM_OUTS + 4]; /* at the end */
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

/* Chunks [0, n) of a piece of a tile, to shared memory by the threads that come with i = their number; only those below `valid` exist. */
QN_DEVICE void qn_gemm_copy(void *to, const uint8_t *from, int n, int valid) {
    for (int i = (int)threadIdx.x; i < n; i += QN_GEMM_THREADS) {
        bool take = from && i < valid;
        qn_cp_async16(static_cast<uint8_t *>(to) + i * QN_MM_CHUNK, take ? from + (size_t)i * QN_MM_CHUNK : from, take);
    }
}

template <class F> QN_DEVICE void qn_gemm_load_tile(qn_gemm_stage<F> &st, const qn_cuda_weight &w, const uint8_t *tile, int t, int u) {
    int groups = w.n_groups - u * QN_GEMM_UNIT, sb = u / 2;
    const int group_chunks = F::q_chunks * QN_MM_TILE;
    qn_gemm_copy(st.q[t], tile ? tile + (size_t)u * QN_GEMM_UNIT * group_chunks * QN_MM_CHUNK : NULL, QN_GEMM_UNIT * group_chunks, groups * group_chunks);
    if (F::high_groups > 0) {
        const int chunks = qn_gemm_stage<F>::high_chunks, per = F::high_groups > 0 ? F::high_groups : 1;
        qn_gemm_copy(st.high[t], tile ? tile + w.high_at + (size_t)u * chunks * QN_MM_PLANE : NULL, chunks * QN_MM_TILE, (groups + per - 1) / per * QN_MM_TILE);
    }
    int at = F::scales == QN_MM_F16_MIN ? u : sb; /* a unit has its own chunk there */
    qn_gemm_copy(st.scale[t], tile ? tile + w.scale_at + (size_t)at * QN_MM_PLANE : NULL, QN_MM_TILE, QN_MM_TILE);
    if (F::has_super) qn_gemm_copy(st.super[t], tile ? tile + w.super_at + (size_t)sb * QN_MM_TILE * 4 : NULL, QN_MM_TILE / 4, QN_MM_TILE / 4);
}

template <class F> QN_DEVICE void qn_gemm_load_rows(qn_gemm_stage<F> &st, const qn_cuda_act &a, const qn_gemm_job &job, int u) {
    size_t row0 = (size_t)job.row0, groups = (size_t)a.stride / QN_MM_GROUP;
    for (int i = (int)threadIdx.x; i < QN_GEMM_ROWS * 8; i += QN_GEMM_THREADS) {
        int r = i / 8, c = i % 8;
        bool take = r < job.n_rows;
        qn_cp_async16(&st.x[r][(c ^ (r & 7)) * QN_MM_CHUNK], a.q + (take ? (row0 + r) * a.stride + u * 128 + c * QN_MM_CHUNK : 0), take);
    }
    int r = (int)threadIdx.x % QN_GEMM_ROWS;
    bool take = r < job.n_rows;
    if (threadIdx.x < QN_GEMM_ROWS) qn_cp_async16(st.d[r], a.d + (take ? (row0 + r) * groups + u * QN_GEMM_UNIT : 0), take);
    else if (F::has_min) qn_cp_async16(st.sum[F::has_min ? r : 0], a.sum + (take ? ((row0 + r) * groups + u * QN_GEMM_UNIT) * 2 : 0), take);
}

/* A group's weights of one tile: of rows g, g + 8, g + 16, g + 24 the bytes 4t .. + 3 of both halves, and their scales. */
struct qn_gemm_weights {
    uint32_t lo[4], hi[4];
    qn_mm_scale s[4];
};
template <class F> QN_DEVICE void qn_gemm_weights_of(qn_gemm_weights &v, const qn_gemm_stage<F> &st, int tile, int j, int odd_unit, int lane) {
    uint32_t q[4];
    qn_ldmatrix_x4(q, st.q[tile][j][0] + lane * QN_MM_CHUNK);
    if (F::bits == 8) qn_ldmatrix_x4(v.hi, st.q[tile][j][F::q_chunks - 1] + lane * QN_MM_CHUNK);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = i * 8 + lane / 4;
        uint32_t h0 = 0, h1 = 0;
        if (F::high_groups == 4) h0 = reinterpret_cast<const uint32_t *>(st.high[tile][0])[row * 4 + j];
        if (F::high_groups == 2) {
            const uint32_t *h = reinterpret_cast<const uint32_t *>(st.high[tile][j / 2 % (qn_gemm_stage<F>::high_chunks | 1)]) + row * 4 + j % 2 * 2;
            h0 = h[0], h1 = h[1];
        }
        if (F::bits == 8) v.lo[i] = q[i];
        else qn_mm_bytes<F>(q[i], h0, h1, lane % 4, v.lo[i], v.hi[i]);
        uint32_t bits;
        if (F::scales == QN_MM_F16_MIN) bits = reinterpret_cast<const uint32_t *>(st.scale[tile])[row * 4 + j];
        else bits = reinterpret_cast<const uint16_t *>(st.scale[tile])[row * 8 + odd_unit * QN_GEMM_UNIT + j];
        v.s[i] = qn_mm_scale_of<F>(bits, F::has_super ? st.super[tile][F::has_super ? row : 0] : 0u);
    }
}

/* c[2 x 16 outputs][8 rows] += a group; x: the rows' bytes, row: the first of the lane's two rows. */
template <class F> QN_DEVICE void qn_gemm_group(float c[2][4], const qn_gemm_weights &v, const uint32_t x[2], const qn_gemm_stage<F> &st, int row, int j) {
    float d[2] = {st.d[row][j], st.d[row + 1][j]};
    uint32_t sum[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 2; i++)
        if (F::has_min) sum[i] = reinterpret_cast<const uint32_t *>(st.sum[F::has_min ? row + i : 0])[j];
#pragma unroll
    for (int m = 0; m < 2; m++) {
        int32_t n0[4] = {0, 0, 0, 0}, n1[4] = {0, 0, 0, 0};
        uint32_t a[4] = {v.lo[2 * m], v.lo[2 * m + 1], v.hi[2 * m], v.hi[2 * m + 1]};
        if (F::by16) {
            qn_mma_s8_k16(n0, a, x[0]);
            qn_mma_s8_k16(n1, a + 2, x[1]);
        } else qn_mma_s8_k32(n0, a, x);
#pragma unroll
        for (int e = 0; e < 4; e++) c[m][e] = qn_mm_add<F>(c[m][e], v.s[2 * m + e / 2], n0[e], n1[e], d[e % 2], sum[e % 2]);
    }
}

/* One warp's share of a unit: c[rows / 8][outputs / 16]. */
template <class F> QN_DEVICE void qn_gemm_unit(float c[4][2][4], const qn_gemm_stage<F> &st, int n_groups, int odd_unit, int n_rows) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, row0 = warp / 2 * 32;
#pragma unroll
    for (int j = 0; j < QN_GEMM_UNIT; j++) {
        if (j >= n_groups) break;
        qn_gemm_weights v;
        qn_gemm_weights_of<F>(v, st, warp % 2, j, odd_unit, lane);
#pragma unroll
        for (int p = 0; p < 2; p++) {
            int at = row0 + p * 16;
            if (at >= n_rows) break;
            uint32_t x[4];
            int r = at + lane / 16 * 8 + lane % 8, chunk = 2 * j + lane / 8 % 2;
            qn_ldmatrix_x4(x, &st.x[r][(chunk ^ (r & 7)) * QN_MM_CHUNK]);
            qn_gemm_group<F>(c[2 * p], v, x, st, at + lane % 4 * 2, j);
            qn_gemm_group<F>(c[2 * p + 1], v, x + 2, st, at + 8 + lane % 4 * 2, j);
        }
    }
}

QN_DEVICE void qn_gemm_fold(float total[4][2][4], float c[4][2][4]) {
#pragma unroll
    for (int i = 0; i < 32; i++) {
        total[i / 8][i / 4 % 2][i % 4] += c[i / 8][i / 4 % 2][i % 4];
        c[i / 8][i / 4 % 2][i % 4] = 0;
    }
}

/* The block's sums through shared memory, so that neighbours write neighbours and a gated unit has both. */
QN_DEVICE void qn_gemm_finish(float (*sh)[QN_GEMM_OUTS + 4], const float total[4][2][4], const qn_mm_args &a, int m, int at, const qn_gemm_job &job, bool h_scaled) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, outs = a.mode == QN_MM_GLU ? (int)QN_MM_TILE : (int)QN_GEMM_OUTS;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        int row = warp / 2 * 32 + i / 8 * 8 + lane % 4 * 2 + i % 2, o = warp % 2 * QN_MM_TILE + i / 4 % 2 * 16 + i / 2 % 2 * 8 + lane / 4;
        sh[row][o] = total[i / 8][i / 4 % 2][i % 4];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < job.n_rows * outs; i += QN_GEMM_THREADS) {
        int r = i / outs, o = at * outs + i % outs;
        if (o < a.mat[m].w.n_out)
            qn_mm_finish(a, m, job.row0 + r, o, sh[r][i % outs], sh[r][i % outs + QN_GEMM_OUTS - outs], h_scaled ? __ldg(a.act.h_scale + job.row0 + r) : 1.0f);
    }
}

template <int FORM> QN_KERNEL(QN_GEMM_THREADS, 3) qn_gemm_kernel(qn_mm_args a) {
    using F = qn_mm_form<FORM>;
    QN_SHARED_DYN(qn_gemm_shared<F>, sh);
    int at, m = qn_mm_matrix(a, (int)blockIdx.x, at);
    const qn_cuda_weight &w = a.mat[m].w;
    qn_gemm_job job = qn_gemm_job_of(a, m, at, __ldg(a.n_rows));
    if (job.n_rows <= 0) return;
    int n_units = (w.n_groups + QN_GEMM_UNIT - 1) / QN_GEMM_UNIT, slice_units = w.slice_sb * 2;
    float c[4][2][4], total[4][2][4];
#pragma unroll
    for (int i = 0; i < 32; i++) c[i / 8][i / 4 % 2][i % 4] = total[i / 8][i / 4 % 2][i % 4] = 0;
    for (int u = 1 - QN_GEMM_STAGES; u < n_units; u++) {
        if (u >= 0) {
            qn_cp_wait<QN_GEMM_STAGES - 2>();
            __syncthreads(); /* unit u is there for all, and all are done with the stage that comes next */
        }
        int next = u + QN_GEMM_STAGES - 1;
        if (next < n_units) {
            qn_gemm_stage<F> &st = sh.stage[next % QN_GEMM_STAGES];
            qn_gemm_load_tile<F>(st, w, job.tile[0], 0, next);
            qn_gemm_load_tile<F>(st, w, job.tile[1], 1, next);
            qn_gemm_load_rows<F>(st, a.act, job, next);
        }
        qn_cp_commit();
        if (u < 0) continue;
        qn_gemm_unit<F>(c, sh.stage[u % QN_GEMM_STAGES], w.n_groups - u * QN_GEMM_UNIT, u % 2, job.n_rows);
        if ((u + 1) % slice_units == 0 || u + 1 == n_units) qn_gemm_fold(total, c);
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
