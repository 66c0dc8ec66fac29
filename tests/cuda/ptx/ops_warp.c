/* What a warp does together: shuffles, votes, reductions, ldmatrix and mma (PTX ISA, "shfl.sync", "vote.sync", "Warp Level Matrix
 * Multiply-Accumulate"). run.c sees to it that all lanes of the member mask are here. The fragments' layouts are written from the
 * manual's formulas for row and column, not from portable.cuh or the emulator.
 *
 * A card leaves open how mma sums: here products are exact, summed in double and rounded to f32 once; or, if asked for, added to the
 * accumulator one by one in f32, as the emulator does it. */
#include "tests/cuda/ptx/impl.h"

static int in_order;
void qn_ptx_mma_in_order(int yes) { in_order = yes; }

enum { UP, DOWN, BFLY, IDX };
static void shuffle(struct warp *w, const struct insn *i, uint32_t m, int how) {
    uint32_t from[LANES_N], ok = 0;
    D(uint32_t, 0);
    S(uint32_t, a, 2);
    S(uint32_t, b, 3);
    S(uint32_t, c, 4);
    memcpy(from, a, sizeof from);
    uint32_t out[LANES_N];
    for (int l = 0; l < LANES_N; l++) {
        if (!(m >> l & 1)) continue;
        int seg = c[l] >> 8 & 31, clamp = c[l] & 31, n = b[l] & 31, low = l & seg, high = low | (clamp & ~seg & 31), j;
        bool in;
        switch (how) {
        case UP: j = l - n; in = j >= high; break;
        case DOWN: j = l + n; in = j <= high; break;
        case BFLY: j = l ^ n; in = j <= high; break;
        default: j = low | (n & ~seg & 31); in = j <= high; break;
        }
        if (!in) j = l;
        if (!(m >> j & 1)) qn_ptx_fail(w, i, l, "shuffles from lane %d, which is not here (lanes 0x%08x)", j, m);
        out[l] = from[j];
        ok |= (uint32_t)in << l;
    }
    LANES(d[l] = out[l])
    if (i->o[1] != R_SINK) {
        uint32_t *p = reg_of(w, i->o[1])->u32;
        *p = (*p & ~m) | (ok & m);
    }
}
HANDLER(shfl_sync_up_b32) { shuffle(w, i, m, UP); }
HANDLER(shfl_sync_down_b32) { shuffle(w, i, m, DOWN); }
HANDLER(shfl_sync_bfly_b32) { shuffle(w, i, m, BFLY); }
HANDLER(shfl_sync_idx_b32) { shuffle(w, i, m, IDX); }

static uint32_t voted(struct warp *w, const struct insn *i, uint32_t m) { return reg_of(w, i->o[1])->u32[0] & m; }
static void set_pred(struct warp *w, const struct insn *i, uint32_t m, bool yes) {
    uint32_t *p = reg_of(w, i->o[0])->u32;
    *p = (*p & ~m) | (yes ? m : 0);
}
HANDLER(vote_sync_any_pred) { set_pred(w, i, m, voted(w, i, m) != 0); }
HANDLER(vote_sync_all_pred) { set_pred(w, i, m, voted(w, i, m) == m); }
HANDLER(vote_sync_uni_pred) { set_pred(w, i, m, voted(w, i, m) == m || !voted(w, i, m)); }
HANDLER(vote_sync_ballot_b32) { D(uint32_t, 0); uint32_t v = voted(w, i, m); LANES(d[l] = v) }
HANDLER(activemask_b32) { D(uint32_t, 0); LANES(d[l] = m) }
HANDLER(bar_warp_sync) { (void)w, (void)i, (void)m; }
HANDLER(match_any_sync_b32) {
    D(uint32_t, 0);
    uint32_t a[LANES_N];
    memcpy(a, reg_of(w, i->o[1])->u32, sizeof a);
    LANES(uint32_t r = 0; for (int j = 0; j < LANES_N; j++) r |= (uint32_t)(m >> j & 1 && a[j] == a[l]) << j; d[l] = r)
}

#define REDUX(name, T, e)                                                                               \
    HANDLER(name) {                                                                                     \
        D(T, 0);                                                                                        \
        S(T, from, 1);                                                                                  \
        T a = 0;                                                                                        \
        bool first = true;                                                                              \
        for (int l = 0; l < LANES_N; l++)                                                               \
            if (m >> l & 1) { T b = from[l]; a = first ? b : (T)(e); first = false; }                   \
        LANES(d[l] = a)                                                                                 \
    }
REDUX(redux_sync_add_u32, uint32_t, a + b)
REDUX(redux_sync_min_u32, uint32_t, a < b ? a : b)
REDUX(redux_sync_max_u32, uint32_t, a > b ? a : b)
REDUX(redux_sync_min_s32, int32_t, a < b ? a : b)
REDUX(redux_sync_max_s32, int32_t, a > b ? a : b)
REDUX(redux_sync_and_b32, uint32_t, a & b)
REDUX(redux_sync_or_b32, uint32_t, a | b)
REDUX(redux_sync_xor_b32, uint32_t, a ^ b)

/* ---- ldmatrix: lane 8k + r holds the address of row r of matrix k ---- */

static void load_matrices(struct warp *w, const struct insn *i, int n, bool trans) {
    uint16_t e[4][8][8];
    const union reg *ra = reg_of(w, i->o[n]);
    for (int k = 0; k < n; k++)
        for (int r = 0; r < 8; r++) {
            int l = 8 * k + r;
            uint64_t at = i->width[n] == 8 ? ra->u64[l] + (uint64_t)i->imm : (uint32_t)(ra->u32[l] + (uint32_t)i->imm);
            memcpy(e[k][r], qn_ptx_at(w, i, S_SHARED, at, l, 16, false), 16);
        }
    for (int k = 0; k < n; k++) {
        uint32_t *d = reg_of(w, i->o[k])->u32;
        for (int l = 0; l < LANES_N; l++) {
            int row = l / 4, col = l % 4 * 2;
            d[l] = trans ? e[k][col][row] | (uint32_t)e[k][col + 1][row] << 16 : e[k][row][col] | (uint32_t)e[k][row][col + 1] << 16;
        }
    }
}
#define LDMATRIX(name, n, trans) HANDLER(name) { (void)m; load_matrices(w, i, n, trans); }
LDMATRIX(ldmatrix_x1, 1, false)
LDMATRIX(ldmatrix_x2, 2, false)
LDMATRIX(ldmatrix_x4, 4, false)
LDMATRIX(ldmatrix_x1_trans, 1, true)
LDMATRIX(ldmatrix_x2_trans, 2, true)
LDMATRIX(ldmatrix_x4_trans, 4, true)

/* ---- mma: d[16][8] = a[16][k] . b[k][8] + c ----
 * Element number e of a lane's part of A, in registers of `per` elements each: the ISA's formulas, with group = lane / 4 and
 * thread = lane % 4. 16-bit, k = 16 (and 8): row = group for e in {0, 1, 4, 5}, else group + 8; column = 2 thread + (e & 1), + 8 for
 * e >= 4. 8-bit, k = 32: row = group for e / 4 even, else group + 8; column = 4 thread + (e & 3), + 16 for e >= 8; k = 16 has e < 8.
 * B: 16-bit row = 2 thread + (e & 1), + 8 for e >= 2; 8-bit row = 4 thread + (e & 3), + 16 for e >= 4; column = group. C and D:
 * row = group, + 8 for e >= 2; column = 2 thread + (e & 1). */

static int a_row16(int l, int e) { return l / 4 + (e % 4 < 2 ? 0 : 8); }
static int a_col16(int l, int e) { return l % 4 * 2 + e % 2 + (e >= 4 ? 8 : 0); }
static int a_row8(int l, int e) { return l / 4 + (e / 4 % 2 ? 8 : 0); }
static int a_col8(int l, int e) { return l % 4 * 4 + e % 4 + (e >= 8 ? 16 : 0); }
static int b_row16(int l, int e) { return l % 4 * 2 + e % 2 + (e >= 2 ? 8 : 0); }
static int b_row8(int l, int e) { return l % 4 * 4 + e % 4 + (e >= 4 ? 16 : 0); }
static int c_row(int l, int e) { return l / 4 + (e >= 2 ? 8 : 0); }
static int c_col(int l, int e) { return l % 4 * 2 + e % 2; }

static void mma16(struct warp *w, const struct insn *i, int depth, float (*from)(uint16_t)) {
    double a[16][16], b[16][8], d[16][8];
    int n_a = depth == 16 ? 4 : 2, n_b = depth == 16 ? 2 : 1;
    for (int l = 0; l < LANES_N; l++) {
        for (int e = 0; e < 2 * n_a; e++) a[a_row16(l, e)][a_col16(l, e)] = (double)from((uint16_t)(reg_of(w, i->o[4 + e / 2])->u32[l] >> (16 * (e & 1))));
        for (int e = 0; e < 2 * n_b; e++) b[b_row16(l, e)][l / 4] = (double)from((uint16_t)(reg_of(w, i->o[4 + n_a + e / 2])->u32[l] >> (16 * (e & 1))));
        for (int e = 0; e < 4; e++) d[c_row(l, e)][c_col(l, e)] = (double)reg_of(w, i->o[4 + n_a + n_b + e])->f32[l];
    }
    for (int r = 0; r < 16 && in_order; r++)
        for (int k = 0; k < depth; k++)
            for (int c = 0; c < 8; c++) d[r][c] = (double)__builtin_fmaf((float)a[r][k], (float)b[k][c], (float)d[r][c]);
    for (int r = 0; r < 16 && !in_order; r++) {
        double sum[8] = {0};
        for (int k = 0; k < depth; k++)
            for (int c = 0; c < 8; c++) sum[c] += a[r][k] * b[k][c];
        for (int c = 0; c < 8; c++) d[r][c] += sum[c];
    }
    for (int l = 0; l < LANES_N; l++)
        for (int e = 0; e < 4; e++) reg_of(w, i->o[e])->f32[l] = (float)d[c_row(l, e)][c_col(l, e)];
}
HANDLER(mma_k16_f16) { (void)m; mma16(w, i, 16, qn_ptx_from_half); }
HANDLER(mma_k16_bf16) { (void)m; mma16(w, i, 16, qn_ptx_from_bf16); }
HANDLER(mma_k8_f16) { (void)m; mma16(w, i, 8, qn_ptx_from_half); }
HANDLER(mma_k8_bf16) { (void)m; mma16(w, i, 8, qn_ptx_from_bf16); }

static void mma8(struct warp *w, const struct insn *i, int depth) {
    int32_t a[16][32], b[32][8];
    uint32_t d[16][8];
    int n_a = depth == 32 ? 4 : 2, n_b = depth == 32 ? 2 : 1;
    for (int l = 0; l < LANES_N; l++) {
        for (int e = 0; e < 4 * n_a; e++) a[a_row8(l, e)][a_col8(l, e)] = (int8_t)(reg_of(w, i->o[4 + e / 4])->u32[l] >> (8 * (e & 3)));
        for (int e = 0; e < 4 * n_b; e++) b[b_row8(l, e)][l / 4] = (int8_t)(reg_of(w, i->o[4 + n_a + e / 4])->u32[l] >> (8 * (e & 3)));
        for (int e = 0; e < 4; e++) d[c_row(l, e)][c_col(l, e)] = reg_of(w, i->o[4 + n_a + n_b + e])->u32[l];
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < depth; k++)
            for (int c = 0; c < 8; c++) d[r][c] += (uint32_t)(a[r][k] * b[k][c]);
    for (int l = 0; l < LANES_N; l++)
        for (int e = 0; e < 4; e++) reg_of(w, i->o[e])->u32[l] = d[c_row(l, e)][c_col(l, e)];
}
HANDLER(mma_k32_s8) { (void)m; mma8(w, i, 32); }
HANDLER(mma_k16_s8) { (void)m; mma8(w, i, 16); }

const struct op_row qn_ptx_rows_warp[] = {
    {"shfl_sync_up_b32", "wP=wwww", shfl_sync_up_b32, K_SYNC, 5}, {"shfl_sync_down_b32", "wP=wwww", shfl_sync_down_b32, K_SYNC, 5},
    {"shfl_sync_bfly_b32", "wP=wwww", shfl_sync_bfly_b32, K_SYNC, 5}, {"shfl_sync_idx_b32", "wP=wwww", shfl_sync_idx_b32, K_SYNC, 5},
    {"vote_sync_any_pred", "p=pw", vote_sync_any_pred, K_SYNC, 2}, {"vote_sync_all_pred", "p=pw", vote_sync_all_pred, K_SYNC, 2},
    {"vote_sync_uni_pred", "p=pw", vote_sync_uni_pred, K_SYNC, 2}, {"vote_sync_ballot_b32", "w=pw", vote_sync_ballot_b32, K_SYNC, 2},
    {"activemask_b32", "w=", activemask_b32, K_PLAIN, -1}, {"bar_warp_sync", "=w", bar_warp_sync, K_SYNC, 0},
    {"match_any_sync_b32", "w=ww", match_any_sync_b32, K_SYNC, 2},
    {"redux_sync_add_u32", "w=ww", redux_sync_add_u32, K_SYNC, 2}, {"redux_sync_add_s32", "w=ww", redux_sync_add_u32, K_SYNC, 2},
    {"redux_sync_min_u32", "w=ww", redux_sync_min_u32, K_SYNC, 2}, {"redux_sync_max_u32", "w=ww", redux_sync_max_u32, K_SYNC, 2},
    {"redux_sync_min_s32", "w=ww", redux_sync_min_s32, K_SYNC, 2}, {"redux_sync_max_s32", "w=ww", redux_sync_max_s32, K_SYNC, 2},
    {"redux_sync_and_b32", "w=ww", redux_sync_and_b32, K_SYNC, 2}, {"redux_sync_or_b32", "w=ww", redux_sync_or_b32, K_SYNC, 2},
    {"redux_sync_xor_b32", "w=ww", redux_sync_xor_b32, K_SYNC, 2},
    {"ldmatrix_sync_aligned_m8n8_x1_shared_b16", "w=m", ldmatrix_x1, K_SYNC, -1}, {"ldmatrix_sync_aligned_m8n8_x2_shared_b16", "ww=m", ldmatrix_x2, K_SYNC, -1},
    {"ldmatrix_sync_aligned_m8n8_x4_shared_b16", "wwww=m", ldmatrix_x4, K_SYNC, -1}, {"ldmatrix_sync_aligned_m8n8_x1_trans_shared_b16", "w=m", ldmatrix_x1_trans, K_SYNC, -1},
    {"ldmatrix_sync_aligned_m8n8_x2_trans_shared_b16", "ww=m", ldmatrix_x2_trans, K_SYNC, -1}, {"ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16", "wwww=m", ldmatrix_x4_trans, K_SYNC, -1},
    {"mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32", "wwww=wwwwwwwwww", mma_k16_f16, K_SYNC, -1},
    {"mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32", "wwww=wwwwwwwwww", mma_k16_bf16, K_SYNC, -1},
    {"mma_sync_aligned_m16n8k8_row_col_f32_f16_f16_f32", "wwww=wwwwwww", mma_k8_f16, K_SYNC, -1},
    {"mma_sync_aligned_m16n8k8_row_col_f32_bf16_bf16_f32", "wwww=wwwwwww", mma_k8_bf16, K_SYNC, -1},
    {"mma_sync_aligned_m16n8k32_row_col_s32_s8_s8_s32", "wwww=wwwwwwwwww", mma_k32_s8, K_SYNC, -1},
    {"mma_sync_aligned_m16n8k16_row_col_s32_s8_s8_s32", "wwww=wwwwwww", mma_k16_s8, K_SYNC, -1},
    /* These belong to run.c. */
    {"bar_sync", "=w", bar_warp_sync, K_BAR, -1}, {"barrier_sync", "=w", bar_warp_sync, K_BAR, -1}, {"barrier_cta_sync", "=w", bar_warp_sync, K_BAR, -1},
    {"ret", "=", bar_warp_sync, K_EXIT, -1}, {"exit", "=", bar_warp_sync, K_EXIT, -1}, {"trap", "=", bar_warp_sync, K_TRAP, -1},
    {NULL, NULL, NULL, 0, 0},
};
