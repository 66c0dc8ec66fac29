/* Attention of one tile, written once over vec_*.h: softmax(scale * q.K^T) V for up to 16 (row, head) columns that read
 * the same KV head, so that a block of K or V is loaded and widened once for all of them.
 *
 * Two passes rather than the online softmax of FlashAttention: the scores of a row are kept (4 bytes a position), the
 * maximum is known before the first exp, and nothing is ever rescaled. That costs a scratch of n_ctx floats a column
 * and saves a multiplication of the whole output for every block. What a column yields depends on its own positions
 * only: a score is one fma chain over the head's elements, the sum of exps runs lane by lane over its blocks, and each
 * output element is one fma chain over positions lo..hi. Blocks that all columns see in full go through the shared
 * kernel, those at the edges go row by row, so that no slot outside lo..hi is ever multiplied in. */
#ifndef QN_CPU_ATTN_BODY_H
#define QN_CPU_ATTN_BODY_H

#include "engine/cpu/cpu.h"

/* s[c][lane] = sum over d of q[d][c] * K[d][lane]. */
V_INL void qk_cols(const uint16_t *k, const float *q, int q_stride, int head_dim, float *s, size_t s_stride, const int nc) {
    v16 acc[V_QK_COLS];
    for (int c = 0; c < nc; c++) acc[c] = v_zero();
    for (int d = 0; d < head_dim; d++) {
        v16 kd = v_load_h(k + d * 16);
        for (int c = 0; c < nc; c++) acc[c] = v_fma(kd, v_set1(q[(size_t)d * (size_t)q_stride + (size_t)c]), acc[c]);
    }
    for (int c = 0; c < nc; c++) v_store(s + (size_t)c * s_stride, acc[c]);
}

#define QK_CASE(n) case n: if (n <= V_QK_COLS) qk_cols(k, q, q_stride, head_dim, s, s_stride, n <= V_QK_COLS ? n : 1); break;
static void qk_block(const uint16_t *k, const float *q, int q_stride, int head_dim, float *s, size_t s_stride, int nc) {
    switch (nc) {
    QK_CASE(1) QK_CASE(2) QK_CASE(3) QK_CASE(4) QK_CASE(5) QK_CASE(6) QK_CASE(7) QK_CASE(8)
    QK_CASE(9) QK_CASE(10) QK_CASE(11) QK_CASE(12) QK_CASE(13) QK_CASE(14) QK_CASE(15) QK_CASE(16)
    }
}

/* o[c][lane] += sum over blocks b0..b1-1 and their slots s0..s1-1 of p[c][position] * V[position][lane], for nl lane
 * vectors from lane l0. p is indexed from block `first`. */
V_INL void pv_cols(const struct qn_attn_tile *t, int b0, int b1, int s0, int s1, const float *p, size_t p_stride, int first,
                   int l0, float *o, const int nc, const int nl) {
    v16 acc[V_PV_COLS][V_PV_LANES];
    for (int c = 0; c < nc; c++)
        for (int l = 0; l < nl; l++) acc[c][l] = v_load(o + (size_t)c * (size_t)t->hd_pad + l0 + l * 16);
    for (int b = b0; b < b1; b++) {
        const uint16_t *v = (const uint16_t *)(t->kv + (size_t)t->blocks[b] * t->block_bytes + t->v_offset) + l0;
        const float *pb = p + (size_t)(b - first) * 16;
        for (int s = s0; s < s1; s++) {
            v16 x[V_PV_LANES];
            for (int l = 0; l < nl; l++) x[l] = v_load_h(v + (size_t)s * (size_t)t->hd_pad + l * 16);
            for (int c = 0; c < nc; c++) {
                v16 w = v_set1(pb[(size_t)c * p_stride + (size_t)s]);
                for (int l = 0; l < nl; l++) acc[c][l] = v_fma(w, x[l], acc[c][l]);
            }
        }
    }
    for (int c = 0; c < nc; c++)
        for (int l = 0; l < nl; l++) v_store(o + (size_t)c * (size_t)t->hd_pad + l0 + l * 16, acc[c][l]);
}

#define PV_CASE(n, m) \
    case n * 8 + m: \
        if (n <= V_PV_COLS && m <= V_PV_LANES) \
            pv_cols(t, b0, b1, s0, s1, p, p_stride, first, l, o, n <= V_PV_COLS ? n : 1, m <= V_PV_LANES ? m : 1); \
        break;
#define PV_CASES(n) PV_CASE(n, 1) PV_CASE(n, 2) PV_CASE(n, 3) PV_CASE(n, 4)
static void pv_range(const struct qn_attn_tile *t, int b0, int b1, int s0, int s1, const float *p, size_t p_stride, int first,
                     float *o, int nc) {
    for (int c = 0; c < nc; c += V_PV_COLS, p += V_PV_COLS * p_stride, o += (size_t)V_PV_COLS * (size_t)t->hd_pad) {
        int n = nc - c < V_PV_COLS ? nc - c : V_PV_COLS;
        for (int l = 0; l < t->hd_pad; l += 16 * V_PV_LANES) {
            int m = (t->hd_pad - l) / 16 < V_PV_LANES ? (t->hd_pad - l) / 16 : V_PV_LANES;
            switch (n * 8 + m) { PV_CASES(1) PV_CASES(2) PV_CASES(3) PV_CASES(4) PV_CASES(5) PV_CASES(6) }
        }
    }
}

/* Turns the scores of a column, from block `first` on, into exp(score - max); returns 1 / their sum. */
static float softmax_col(float *s, int first, int lo, int hi, float softcap) {
    int b0 = lo / 16, b1 = hi / 16;
    v16 most = v_set1(-INFINITY);
    s += (size_t)(b0 - first) * 16;
    for (int b = b0; b <= b1; b++) {
        float *sb = s + (size_t)(b - b0) * 16;
        v16 v = v_load(sb);
        if (softcap > 0.0f) v = v_mul(v_set1(softcap), v_tanh(v_div(v, v_set1(softcap))));
        int from = b == b0 ? lo - b * 16 : 0, to = b == b1 ? hi - b * 16 + 1 : 16;
        if (from > 0 || to < 16) v = v_keep(v, from, to, -INFINITY);
        v_store(sb, v);
        most = v_max(most, v);
    }
    v16 m = v_set1(v_most(most)), sum = v_zero();
    for (int b = b0; b <= b1; b++, s += 16) {
        v16 e = v_exp(v_sub(v_load(s), m));
        v_store(s, e);
        sum = v_add(sum, e);
    }
    return 1.0f / v_sum(sum);
}

/* The blocks from..to-1 that not every column sees in full, for columns that share a row (and so lo and hi) at a time. */
static void pv_edges(const struct qn_attn_tile *t, int from, int to, const float *p, size_t p_stride, int first, float *o) {
    for (int c = 0, n; c < t->nq; c += n) {
        int lo = t->col[c].lo, hi = t->col[c].hi;
        for (n = 1; c + n < t->nq && t->col[c + n].lo == lo && t->col[c + n].hi == hi;) n++;
        int b0 = lo / 16 > from ? lo / 16 : from, b1 = hi / 16 + 1 < to ? hi / 16 + 1 : to;
        for (int b = b0; b < b1; b++) {
            int s0 = lo > b * 16 ? lo - b * 16 : 0, s1 = hi < b * 16 + 15 ? hi - b * 16 + 1 : 16;
            pv_range(t, b, b + 1, s0, s1, p + (size_t)c * p_stride, p_stride, first, o + (size_t)c * (size_t)t->hd_pad, n);
        }
    }
}

static void attn_tile(const struct qn_attn_tile *t) {
    int nq = t->nq, first = t->col[0].lo / 16, last = t->col[nq - 1].hi / 16;
    float *q = t->scratch, *o = q + (size_t)QN_ATTN_COLS * (size_t)t->hd_pad, *s = o + (size_t)QN_ATTN_COLS * (size_t)t->hd_pad;
    size_t s_stride = (size_t)(last - first + 1) * 16;
    for (int c = 0; c < nq; c++)
        for (int d = 0; d < t->head_dim; d++) q[d * nq + c] = t->col[c].q[d] * t->scale;
    for (int b = first; b <= last; b++) {
        const uint16_t *k = (const uint16_t *)(t->kv + (size_t)t->blocks[b] * t->block_bytes);
        for (int c = 0; c < nq; c += V_QK_COLS)
            qk_block(k, q + c, nq, t->head_dim, s + (size_t)c * s_stride + (size_t)(b - first) * 16, s_stride,
                     nq - c < V_QK_COLS ? nq - c : V_QK_COLS);
    }
    float inv[QN_ATTN_COLS];
    for (int c = 0; c < nq; c++) inv[c] = softmax_col(s + (size_t)c * s_stride, first, t->col[c].lo, t->col[c].hi, t->softcap);

    memset(o, 0, (size_t)nq * (size_t)t->hd_pad * sizeof *o);
    int full0 = (t->col[nq - 1].lo + 15) / 16, full1 = (t->col[0].hi + 1) / 16; /* seen in full by all */
    if (full1 < full0) full1 = full0;
    if (full0 > last + 1) full0 = full1 = last + 1;
    pv_edges(t, first, full0, s, s_stride, first, o);
    if (full1 > full0) pv_range(t, full0, full1, 0, 16, s, s_stride, first, o, nq);
    pv_edges(t, full1, last + 1, s, s_stride, first, o);
    for (int c = 0; c < nq; c++) {
        v16 w = v_set1(inv[c]);
        for (int d = 0; d < t->head_dim; d += 16) {
            int m = t->head_dim - d < 16 ? t->head_dim - d : 16;
            v_store_n(t->col[c].out + d, v_mul(v_load(o + (size_t)c * (size_t)t->hd_pad + d), w), m);
        }
    }
}

#endif
