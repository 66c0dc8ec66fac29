/* What kernels over rows share: four neighbouring floats at a time, sums and maxima of a block in one order, and four floats as an
 * act has them. Lane l of a warp has elements 4l .. 4l + 3 of 128, so eight lanes hold the 32 inputs that share a scale. */
#ifndef QN_CUDA_ROWS_CUH
#define QN_CUDA_ROWS_CUH

#include "engine/cuda/portable.cuh"
#include "engine/cuda/step.h"

#define QN_ALL_LANES 0xffffffffu
#define QN_ABS_BITS 0x7fffffffu
#define QN_INF_BITS 0x7f800000u

struct qn_quad { float v[4]; };

/* Elements at .. at + 3 of a row, zeros behind its end. Rows whose width is a multiple of 4 lie aligned. */
QN_DEVICE qn_quad qn_quad_load(const float *row, int at, int width) {
    qn_quad r = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (width % 4 == 0) {
        if (at >= width) return r;
        qn_vec16 w = qn_load16(row + at);
        for (int k = 0; k < 4; k++) r.v[k] = __uint_as_float(w.x[k]);
        return r;
    }
    for (int k = 0; k < 4; k++)
        if (at + k < width) r.v[k] = row[at + k];
    return r;
}

QN_DEVICE void qn_quad_store(float *row, int at, int width, const qn_quad &q) {
    if (width % 4 == 0) {
        if (at < width) qn_store16(row + at, qn_vec16{{__float_as_uint(q.v[0]), __float_as_uint(q.v[1]), __float_as_uint(q.v[2]), __float_as_uint(q.v[3])}});
        return;
    }
    for (int k = 0; k < 4; k++)
        if (at + k < width) row[at + k] = q.v[k];
}

/* Greatest |x| as bits: as integers they are in order, infinity above all numbers and NaN above infinity. */
QN_DEVICE uint32_t qn_quad_most(const qn_quad &q) {
    uint32_t m = 0;
    for (int k = 0; k < 4; k++) m = max(m, __float_as_uint(q.v[k]) & QN_ABS_BITS);
    return m;
}

QN_DEVICE uint32_t qn_warp_most(uint32_t m, int lanes) {
    for (int b = lanes / 2; b > 0; b /= 2) m = max(m, __shfl_xor_sync(QN_ALL_LANES, m, b));
    return m;
}

/* Over the block; `part` [32] is used once. Every thread gets the result. */
QN_DEVICE float qn_block_sum(float x, float *part) {
    int lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;
    x = qn_warp_sum(x);
    if (lane == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    return qn_warp_sum(lane < warps ? part[lane] : 0.0f);
}

QN_DEVICE uint32_t qn_block_most(uint32_t m, uint32_t *part) {
    int lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;
    m = qn_warp_most(m, 32);
    if (lane == 0) part[threadIdx.x / 32] = m;
    __syncthreads();
    return qn_warp_most(lane < warps ? part[lane] : 0u, 32);
}

/* e of the row's h_scale 2^e: the greatest entry comes to 2^14 .. 2^15; rows near the end of the floats' range come lower. */
QN_DEVICE int qn_act_exponent(uint32_t most) {
    return most == 0 || most >= QN_INF_BITS ? 0 : max((int)(most >> 23) - 127, -112) - 14;
}
QN_DEVICE float qn_power_of_two(int e) { return __int_as_float((e + 127) << 23); }

struct qn_block32 { float inv, d; }; /* of 32 inputs */
QN_DEVICE qn_block32 qn_block32_of(uint32_t most) {
    float m = __uint_as_float(most);
    if (most >= QN_INF_BITS) return qn_block32{0.0f, __uint_as_float(0x7fffffffu)};
    return m > 1e-30f ? qn_block32{__fdiv_rn(127.0f, m), __fdiv_rn(m, 127.0f)} : qn_block32{0.0f, 0.0f};
}

QN_DEVICE void qn_act_store_q(const qn_cuda_act &a, size_t row, int at, const qn_quad &x) {
    qn_block32 b = qn_block32_of(qn_warp_most(qn_quad_most(x), 8));
    uint32_t packed = 0;
    int sum = 0;
    for (int k = 0; k < 4; k++) {
        int q = b.inv > 0.0f ? __float2int_rn(__fmul_rn(x.v[k], b.inv)) : 0;
        packed |= ((uint32_t)q & 255u) << (8 * k);
        sum += q;
    }
    sum += __shfl_xor_sync(QN_ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(QN_ALL_LANES, sum, 2);
    *reinterpret_cast<uint32_t *>(a.q + row * (size_t)a.stride + at) = packed;
    if (at % 16 == 0) a.sum[row * (size_t)(a.stride / 16) + at / 16] = (int16_t)sum;
    if (at % 32 == 0) a.d[row * (size_t)(a.stride / 32) + at / 32] = b.d;
}

QN_DEVICE uint64_t qn_four16(uint32_t a, uint32_t b, uint32_t c, uint32_t d) { return (uint64_t)(a | b << 16) | (uint64_t)(c | d << 16) << 32; }

/* Elements at .. at + 3 of a row of the act, at = 4 * lane + a multiple of 128 below the stride; `exponent` of the row, for f16. Whole
 * warps; x is 0 at and beyond the width. */
QN_DEVICE void qn_act_store(const qn_cuda_act &a, size_t row, int at, const qn_quad &x, int exponent) {
    size_t to = row * (size_t)a.stride + (size_t)at;
    uint32_t h[4];
    qn_act_store_q(a, row, at, x);
    if (a.h[0]) {
        float up = qn_power_of_two(-exponent);
        for (int k = 0; k < 4; k++) h[k] = __half_as_ushort(__float2half_rn(__fmul_rn(x.v[k], up)));
        *reinterpret_cast<uint64_t *>(a.h[0] + to) = qn_four16(h[0], h[1], h[2], h[3]);
        if (at == 0) a.h_scale[row] = qn_power_of_two(exponent);
    }
    if (a.h[1]) {
        for (int k = 0; k < 4; k++) h[k] = __bfloat16_as_ushort(__float2bfloat16_rn(x.v[k]));
        *reinterpret_cast<uint64_t *>(a.h[1] + to) = qn_four16(h[0], h[1], h[2], h[3]);
    }
}

#endif
