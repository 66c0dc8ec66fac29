/* What the two int8 mma kernels share (gemm.cuh for many rows, batch.cuh for a few dozen): a stage of shared memory and its filling by
 * cp.async, a group of weights as operands, a unit of 128 inputs.
 *
 * Weights are the 16-side of mma. They lie in shared memory as in memory (weight.h): ldmatrix gives a lane four bytes of each of its rows,
 * which become two words of an operand by a shift and a mask. Rows' activations lie 128 bytes a row, chunk c of row r at c ^ (r & 7), so
 * that ldmatrix meets all banks. The order of sums is that of matmul.cuh. */
#ifndef QN_CUDA_GEMM_PARTS_CUH
#define QN_CUDA_GEMM_PARTS_CUH

#include "engine/cuda/matmul.cuh"

enum { QN_GEMM_UNIT = 4 /* groups */ };

template <class F, int ROWS, int TILES> struct qn_gemm_stage {
    static constexpr int high_chunks = F::high_groups == 4 ? 1 : F::high_groups == 2 ? 2 : 0; /* of a unit */
    alignas(16) uint8_t q[TILES][QN_GEMM_UNIT][F::q_chunks][QN_MM_PLANE];
    uint8_t high[TILES][high_chunks > 0 ? high_chunks : 1][high_chunks > 0 ? QN_MM_PLANE : 16];
    uint8_t scale[TILES][QN_MM_PLANE];
    uint32_t super[TILES][F::has_super ? QN_MM_TILE : 4];
    int8_t x[ROWS][QN_GEMM_UNIT * QN_MM_GROUP];
    float d[ROWS][QN_GEMM_UNIT];
    int16_t sum[F::has_min ? ROWS : 1][2 * QN_GEMM_UNIT];
};

/* Thread i of n that fill a stage. */
struct qn_gemm_filler {
    int i, n;
};

/* Chunks [0, n) of a piece of a tile; zeros from `valid` on, or where there is no tile. */
QN_DEVICE void qn_gemm_copy(void *to, const uint8_t *from, int n, int valid, qn_gemm_filler f) {
    for (int i = f.i; i < n; i += f.n) {
        bool take = from && i < valid;
        qn_cp_async16(static_cast<uint8_t *>(to) + i * QN_MM_CHUNK, take ? from + (size_t)i * QN_MM_CHUNK : from, take);
    }
}

/* Unit u of `tile` (NULL: none) as tile t of the stage. */
template <class F, int ROWS, int TILES>
QN_DEVICE void qn_gemm_load_tile(qn_gemm_stage<F, ROWS, TILES> &st, const qn_cuda_weight &w, const uint8_t *tile, int t, int u, qn_gemm_filler f) {
    int groups = w.n_groups - u * QN_GEMM_UNIT, sb = u / 2;
    const int group_chunks = F::q_chunks * QN_MM_TILE;
    qn_gemm_copy(st.q[t], tile ? tile + (size_t)u * QN_GEMM_UNIT * group_chunks * QN_MM_CHUNK : NULL, QN_GEMM_UNIT * group_chunks, groups * group_chunks, f);
    if (F::high_groups > 0) {
        const int chunks = qn_gemm_stage<F, ROWS, TILES>::high_chunks, per = F::high_groups > 0 ? F::high_groups : 1;
        qn_gemm_copy(st.high[t], tile ? tile + w.high_at + (size_t)u * chunks * QN_MM_PLANE : NULL, chunks * QN_MM_TILE, (groups + per - 1) / per * QN_MM_TILE, f);
    }
    int at = F::scales == QN_MM_F16_MIN ? u : sb; /* a unit has its own chunk there */
    qn_gemm_copy(st.scale[t], tile ? tile + w.scale_at + (size_t)at * QN_MM_PLANE : NULL, QN_MM_TILE, QN_MM_TILE, f);
    if (F::has_super) qn_gemm_copy(st.super[t], tile ? tile + w.super_at + (size_t)sb * QN_MM_TILE * 4 : NULL, QN_MM_TILE / 4, QN_MM_TILE / 4, f);
}

/* Unit u of rows row0 .. row0 + n_rows - 1; the other rows of the stage become zeros. */
template <class F, int ROWS, int TILES>
QN_DEVICE void qn_gemm_load_rows(qn_gemm_stage<F, ROWS, TILES> &st, const qn_cuda_act &a, int row0, int n_rows, int u, qn_gemm_filler f) {
    size_t groups = (size_t)a.stride / QN_MM_GROUP;
    for (int i = f.i; i < ROWS * 8; i += f.n) {
        int r = i / 8, c = i % 8;
        bool take = r < n_rows;
        qn_cp_async16(&st.x[r][(c ^ (r & 7)) * QN_MM_CHUNK], a.q + (take ? (size_t)(row0 + r) * a.stride + u * 128 + c * QN_MM_CHUNK : 0), take);
    }
    for (int r = f.i; r < ROWS; r += f.n) {
        bool take = r < n_rows;
        size_t at = take ? (size_t)(row0 + r) * groups + u * QN_GEMM_UNIT : 0;
        qn_cp_async16(st.d[r], a.d + at, take);
        if (F::has_min) qn_cp_async16(st.sum[F::has_min ? r : 0], a.sum + at * 2, take);
    }
}

/* A group's weights of one tile: of rows g, g + 8, g + 16, g + 24 the bytes 4t .. + 3 of both halves, and their scales. */
struct qn_gemm_weights {
    uint32_t lo[4], hi[4];
    qn_mm_scale s[4];
};
template <class F, int ROWS, int TILES>
QN_DEVICE void qn_gemm_weights_of(qn_gemm_weights &v, const qn_gemm_stage<F, ROWS, TILES> &st, int tile, int j, int odd_unit, int lane) {
    const int chunks = qn_gemm_stage<F, ROWS, TILES>::high_chunks;
    uint32_t q[4];
    qn_ldmatrix_x4(q, st.q[tile][j][0] + lane * QN_MM_CHUNK);
    if (F::bits == 8) qn_ldmatrix_x4(v.hi, st.q[tile][j][F::q_chunks - 1] + lane * QN_MM_CHUNK);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = i * 8 + lane / 4;
        uint32_t h0 = 0, h1 = 0, bits;
        const uint32_t *high = reinterpret_cast<const uint32_t *>(st.high[tile][chunks == 2 ? j / 2 : 0]) + (chunks > 0 ? row * 4 : 0);
        if (F::high_groups == 4) h0 = high[j];
        if (F::high_groups == 2) h0 = high[j % 2 * 2], h1 = high[j % 2 * 2 + 1];
        if (F::bits == 8) v.lo[i] = q[i];
        else qn_mm_bytes<F>(q[i], h0, h1, lane % 4, v.lo[i], v.hi[i]);
        if (F::scales == QN_MM_F16_MIN) bits = reinterpret_cast<const uint32_t *>(st.scale[tile])[row * 4 + j];
        else bits = reinterpret_cast<const uint16_t *>(st.scale[tile])[row * 8 + odd_unit * QN_GEMM_UNIT + j];
        v.s[i] = qn_mm_scale_of<F>(bits, F::has_super ? st.super[tile][F::has_super ? row : 0] : 0u);
    }
}

/* c[2 x 16 outputs][8 rows] += a group; x: the rows' bytes, row: the first of the lane's two rows in the stage. */
template <class F, int ROWS, int TILES>
QN_DEVICE void qn_gemm_group(float c[2][4], const qn_gemm_weights &v, const uint32_t x[2], const qn_gemm_stage<F, ROWS, TILES> &st, int row, int j) {
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

/* One warp's share of a unit: tile `tile` of the stage for its rows row0 .. row0 + 8 NT - 1, of which those below n_rows exist. */
template <class F, int NT, int ROWS, int TILES>
QN_DEVICE void qn_gemm_unit(qn_mm_sums<NT> &s, const qn_gemm_stage<F, ROWS, TILES> &st, int tile, int row0, int n_rows, int n_groups, int odd_unit, int lane) {
#pragma unroll
    for (int j = 0; j < QN_GEMM_UNIT; j++) {
        if (j >= n_groups) break;
        qn_gemm_weights v;
        qn_gemm_weights_of(v, st, tile, j, odd_unit, lane);
#pragma unroll
        for (int p = 0; p < NT / 2; p++) {
            int at = row0 + p * 16;
            if (at >= n_rows) break;
            uint32_t x[4];
            int r = at + lane / 16 * 8 + lane % 8, chunk = 2 * j + lane / 8 % 2;
            qn_ldmatrix_x4(x, &st.x[r][(chunk ^ (r & 7)) * QN_MM_CHUNK]);
            qn_gemm_group(s.c[2 * p], v, x, st, at + lane % 4 * 2, j);
            qn_gemm_group(s.c[2 * p + 1], v, x + 2, st, at + 8 + lane % 4 * 2, j);
        }
    }
}

#endif
