/* What the kernels of matrix products share: their arguments, the forms of weight.h as types, how words of the planes become bytes
 * for dp4a and mma, the one order in which a group of 32 inputs enters a sum, and what happens to a finished sum.
 *
 * The order (step.h, batch-invariance): in a slice, group by group, acc = fma(scale * d, integer, acc), then, in forms with minima,
 * acc = fma(minimum, d * sum, acc); integers are exact, so it does not matter how they came about (dp4a or mma). Slices are added in
 * order to quarters that start at 0, these to a total that starts at 0. Products that feed a fused multiply-add are spelled so that no compiler can contract them
 * differently in two kernels. */
#ifndef QN_CUDA_MATMUL_CUH
#define QN_CUDA_MATMUL_CUH

#include "engine/cuda/mm_forms.h"
#include "engine/cuda/portable.cuh"

enum { QN_MM_GROUP = 32, QN_MM_TILE = QN_CUDA_TILE, QN_MM_CHUNK = 16, QN_MM_PLANE = QN_MM_TILE * QN_MM_CHUNK /* a chunk of every output */ };

/* --- forms -------------------------------------------------------------------------------------------------------- */

enum qn_mm_scales { QN_MM_F16, QN_MM_F16_MIN, QN_MM_CODE_MIN, QN_MM_CODE16, QN_MM_CODE16_MIN };

template <int BITS, bool SIGNED, qn_mm_scales SCALES> struct qn_mm_kind {
    static constexpr int bits = BITS;
    static constexpr bool is_signed = SIGNED;
    static constexpr qn_mm_scales scales = SCALES;
    static constexpr bool has_min = SCALES == QN_MM_F16_MIN || SCALES == QN_MM_CODE_MIN || SCALES == QN_MM_CODE16_MIN;
    static constexpr bool by16 = SCALES == QN_MM_CODE16 || SCALES == QN_MM_CODE16_MIN; /* scales of 16 inputs */
    static constexpr int q_chunks = BITS == 8 ? 2 : 1;                       /* of a group */
    static constexpr int high_groups = BITS == 5 ? 4 : BITS == 6 ? 2 : 0;    /* of a chunk of the high plane */
    static constexpr int scale_chunks = SCALES == QN_MM_F16_MIN ? 2 : 1;     /* of a super-block */
    static constexpr bool has_super = SCALES >= QN_MM_CODE_MIN;
    /* Signed values are left in the upper bits of their byte, which saves extending the sign: the integer is that many times too large. */
    static constexpr float unit = !SIGNED || BITS == 8 ? 1.0f : BITS == 4 ? 0.0625f : BITS == 5 ? 0.125f : 0.25f;
};
template <int FORM> struct qn_mm_form;
template <> struct qn_mm_form<QN_CW_4> : qn_mm_kind<4, true, QN_MM_F16> {};
template <> struct qn_mm_form<QN_CW_4M> : qn_mm_kind<4, false, QN_MM_F16_MIN> {};
template <> struct qn_mm_form<QN_CW_4K> : qn_mm_kind<4, false, QN_MM_CODE_MIN> {};
template <> struct qn_mm_form<QN_CW_4K16> : qn_mm_kind<4, true, QN_MM_CODE16> {};
template <> struct qn_mm_form<QN_CW_4K16M> : qn_mm_kind<4, false, QN_MM_CODE16_MIN> {};
template <> struct qn_mm_form<QN_CW_5> : qn_mm_kind<5, true, QN_MM_F16> {};
template <> struct qn_mm_form<QN_CW_5M> : qn_mm_kind<5, false, QN_MM_F16_MIN> {};
template <> struct qn_mm_form<QN_CW_5K> : qn_mm_kind<5, false, QN_MM_CODE_MIN> {};
template <> struct qn_mm_form<QN_CW_6K16> : qn_mm_kind<6, true, QN_MM_CODE16> {};
template <> struct qn_mm_form<QN_CW_8> : qn_mm_kind<8, true, QN_MM_F16> {};

/* Word t (0..3) of a group's nibbles as two words of bytes: elements 4t .. + 3 and 16 + 4t .. + 3. h0 and h1 are the group's words of the
 * high plane (one word in 5-bit forms). */
template <class F> QN_DEVICE void qn_mm_bytes(uint32_t x, uint32_t h0, uint32_t h1, int t, uint32_t &lo, uint32_t &hi) {
    if (F::bits == 4 && F::is_signed) lo = x << 4 & 0xf0f0f0f0u, hi = x & 0xf0f0f0f0u;
    if (F::bits == 4 && !F::is_signed) lo = x & 0x0f0f0f0fu, hi = x >> 4 & 0x0f0f0f0fu;
    if (F::bits == 5 && F::is_signed) {
        lo = (x << 3 & 0x78787878u) | (h0 << (7 - t) & 0x80808080u);
        hi = (x >> 1 & 0x78787878u) | (h0 << (3 - t) & 0x80808080u);
    }
    if (F::bits == 5 && !F::is_signed) {
        lo = (x & 0x0f0f0f0fu) | (h0 << (4 - t) & 0x10101010u);
        hi = (x >> 4 & 0x0f0f0f0fu) | (h0 >> t & 0x10101010u);
    }
    if (F::bits == 6) {
        lo = (x << 2 & 0x3c3c3c3cu) | (h0 << (6 - 2 * t) & 0xc0c0c0c0u);
        hi = (x >> 2 & 0x3c3c3c3cu) | (h1 << (6 - 2 * t) & 0xc0c0c0c0u);
    }
}

QN_DEVICE float qn_mm_half(uint32_t bits) { return __half2float(__ushort_as_half((unsigned short)bits)); }

/* What multiplies the integers of a group: value = scale * (code *) q + min (* code). */
struct qn_mm_scale {
    float scale, min;
    int code0, code1, min0, min1; /* of the halves, by16 only */
};
/* The 16 bits (F16_MIN: 32) that belong to group j (0..7) of a super-block, out of its scale chunks. */
template <class F> QN_DEVICE uint32_t qn_mm_scale_bits(const uint32_t *c, int j) { return F::scales == QN_MM_F16_MIN ? c[j] : c[j / 2] >> (j % 2 * 16) & 0xffffu; }

/* super: d and dmin of the super-block. */
template <class F> QN_DEVICE qn_mm_scale qn_mm_scale_of(uint32_t bits, uint32_t super) {
    qn_mm_scale s = {0, 0, 1, 1, 0, 0};
    float d = F::has_super ? qn_mm_half(super & 0xffffu) * F::unit : 0, dmin = F::has_super ? -qn_mm_half(super >> 16) : 0;
    if (F::scales == QN_MM_F16) s.scale = qn_mm_half(bits) * F::unit;
    if (F::scales == QN_MM_F16_MIN) s.scale = qn_mm_half(bits & 0xffffu) * F::unit, s.min = qn_mm_half(bits >> 16);
    if (F::scales == QN_MM_CODE_MIN) s.scale = d * (float)(int)(bits & 0xffu), s.min = dmin * (float)(int)(bits >> 8);
    if (F::scales == QN_MM_CODE16) s.scale = d, s.code0 = (int8_t)(bits & 0xffu), s.code1 = (int8_t)(bits >> 8);
    if (F::scales == QN_MM_CODE16_MIN) {
        s.scale = d, s.min = dmin;
        s.code0 = (int)(bits & 15u), s.min0 = (int)(bits >> 4 & 15u), s.code1 = (int)(bits >> 8 & 15u), s.min1 = (int)(bits >> 12);
    }
    return s;
}

/* The group enters the sum. dot0, dot1: products of the halves (dot1 0 if they are added already, not by16); d: the activations' scale;
 * sum: two int16, sums of the halves' activations. */
template <class F> QN_DEVICE float qn_mm_add(float acc, const qn_mm_scale &s, int dot0, int dot1, float d, uint32_t sum) {
    int dot = F::by16 ? s.code0 * dot0 + s.code1 * dot1 : dot0 + dot1;
    acc = fmaf(s.scale * d, (float)dot, acc);
    if (!F::has_min) return acc;
    int sum0 = (int16_t)(sum & 0xffffu), sum1 = (int16_t)(sum >> 16);
    int total = F::scales == QN_MM_CODE16_MIN ? s.min0 * sum0 + s.min1 * sum1 : sum0 + sum1;
    return fmaf(s.min, d * (float)total, acc);
}

/* The sum of a row and output out of the sums of its slices, `stride` floats apart. */
QN_DEVICE float qn_mm_slices(const float *part, int stride, const qn_cuda_weight &w) {
    float total = 0;
    for (int s = 0; s < w.n_slices; s += w.quarter_slices) {
        float quarter = 0;
        for (int i = s; i < w.n_slices && i < s + w.quarter_slices; i++) quarter += part[(size_t)i * stride];
        total += quarter;
    }
    return total;
}

/* The same out of the sums of its quarters. */
QN_DEVICE float qn_mm_quarters(const float *part, int stride, const qn_cuda_weight &w) {
    float total = 0;
    for (int k = 0; k * w.quarter_slices < w.n_slices; k++) total += part[(size_t)k * stride];
    return total;
}

/* Sums of 32 outputs and 8 NT rows as mma leaves them: element e of c[n][m] is row 8n + 2t + e % 2, output 16m + 8(e / 2) + g. */
template <int NT> struct qn_mm_sums {
    float c[NT][2][4];
};
template <int NT> QN_DEVICE void qn_mm_clear(qn_mm_sums<NT> &s) {
#pragma unroll
    for (int i = 0; i < 8 * NT; i++) s.c[i / 8][i / 4 % 2][i % 4] = 0;
}
/* into += from; from = 0. */
template <int NT> QN_DEVICE void qn_mm_fold(qn_mm_sums<NT> &into, qn_mm_sums<NT> &from) {
#pragma unroll
    for (int i = 0; i < 8 * NT; i++) into.c[i / 8][i / 4 % 2][i % 4] += from.c[i / 8][i / 4 % 2][i % 4];
    qn_mm_clear(from);
}
/* to[row][output], `stride` floats a row. Strides of 4 mod 32 meet all banks. */
template <int NT> QN_DEVICE void qn_mm_store(float *to, int stride, const qn_mm_sums<NT> &s, int lane) {
#pragma unroll
    for (int i = 0; i < 8 * NT; i++) {
        int row = i / 8 * 8 + lane % 4 * 2 + i % 2, o = i / 4 % 2 * 16 + i / 2 % 2 * 8 + lane / 4;
        to[row * stride + o] = s.c[i / 8][i / 4 % 2][i % 4];
    }
}

/* --- what becomes of a sum ---------------------------------------------------------------------------------------- */

QN_DEVICE float qn_mm_activation(int gelu, float g) {
    /* arXiv:1606.08415, the tanh form: (1 + tanh u) / 2 = 1 / (1 + e^-2u), u = sqrt(2 / pi) (g + 0.044715 g^3). */
    float z = gelu ? 1.59576912f * fmaf(0.044715f * g * g, g, g) : g;
    return g / (1.0f + qn_exp(-z));
}

/* Writes output o of a row; up: the second sum of a gated unit. h_scale: of the row's 16-bit activations. */
QN_DEVICE void qn_mm_finish(const qn_mm_args &a, int m, int row, int o, float sum, float up, float h_scale) {
    const qn_cuda_product &l = a.mat[m];
    float *out = l.out.v + (size_t)row * l.out.width + o;
    float v = fmaf(sum, l.w.scale * h_scale, l.bias ? l.bias[o] : 0.0f);
    if (a.mode == QN_MM_GLU) v = qn_mm_activation(a.gelu, v) * (up * (a.mat[1].w.scale * h_scale));
    if (a.mode == QN_MM_GATED) v *= qn_mm_activation(a.gelu, *out);
    v *= a.logit_scale;
    if (a.softcap > 0) v = a.softcap * qn_tanh(v / a.softcap);
    *out = v;
}

/* Host: gives each matrix its blocks of `tiles` tiles and returns how many there are; items: most slices that a block has to add. */
static inline int qn_mm_blocks(qn_mm_args &a, int tiles, int &items) {
    int blocks = 0, both = a.mode == QN_MM_GLU ? 2 : 1;
    items = 1;
    if (both == 2) a.n_mat = 1; /* its blocks are the gate's */
    for (int m = 0; m < a.n_mat; m++) {
        a.first[m] = blocks;
        blocks += (a.mat[m].w.n_tiles + tiles - 1) / tiles;
        items = both * a.mat[m].w.n_slices > items ? both * a.mat[m].w.n_slices : items;
    }
    return blocks;
}

/* The matrix of block x, and the block's number within it. */
QN_DEVICE int qn_mm_matrix(const qn_mm_args &a, int block, int &at) {
    int m = 0;
    if (a.n_mat > 1 && block >= a.first[1]) m = 1;
    if (a.n_mat > 2 && block >= a.first[2]) m = 2;
    at = block - a.first[m];
    return m;
}

#endif
