/* Norms, quantising and narrowing. What a row comes to is written in backend.h and ref.c; the act's forms in step.h.
 *
 * A norm has a block for each row and the row in registers, so x is read and written once, and y read once, whatever is asked: 8 bytes an
 * element of x, 4 of y, and out go 1 + 4/32 + 2/16 for the integer form and 2 for each 16-bit plane; gains come from L2. At one
 * row the kernel is a chain of two or three reductions, some microseconds that no traffic explains. RMSNorm: arXiv:1910.07467.
 *
 * Sums of squares run in float: a thread adds its elements in order, lanes meet by butterfly, warps by another. Relative error below
 * (4 * NV + 10) * 2^-24. Squares overflow above 1.8e19, where the row becomes NaN or zeros; no model comes near.
 *
 * Quantising needs nothing but its 32 inputs, so rows are shared out over blocks, but for the f16 plane, whose scale is the row's: then
 * one block reads the row twice. */
#include "engine/cuda/rows.h"

#include "engine/cuda/rows.cuh"

#include <assert.h>

/* --- norms -------------------------------------------------------------------------------------------------------- */

struct norm_args {
    float *x;
    const float *y, *post, *gain;
    const int32_t *count, *from;    /* rows; row i of the act is row from[i] of x, NULL: i */
    float scale, eps;
    int32_t width, has_act;
    qn_cuda_act act;
};

struct norm_shared {
    float y[32], x[32];
    uint32_t most[32];
};

QN_DEVICE float inv_rms(float sum, int width, float eps) {
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)width), eps)));
}

template <int NV> QN_DEVICE float squares(const qn_quad *q) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < NV; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) sum = fmaf(q[i].v[k], q[i].v[k], sum);
    return sum;
}

/* q *= inv * gain, element by element. */
template <int NV> QN_DEVICE void normalise(qn_quad *q, float inv, const float *gain, int width) {
#pragma unroll
    for (int i = 0; i < NV; i++) {
        qn_quad g = qn_quad_load(gain, ((int)threadIdx.x + i * (int)blockDim.x) * 4, width);
#pragma unroll
        for (int k = 0; k < 4; k++) q[i].v[k] = __fmul_rn(__fmul_rn(q[i].v[k], inv), g.v[k]);
    }
}

template <int NV> QN_DEVICE void load_row(qn_quad *q, const float *row, int width) {
#pragma unroll
    for (int i = 0; i < NV; i++) q[i] = qn_quad_load(row, ((int)threadIdx.x + i * (int)blockDim.x) * 4, width);
}

/* x += scale * y, after y's own norm. */
template <int NV> QN_DEVICE void add(qn_quad *x, const norm_args &a, size_t row, norm_shared &s) {
    qn_quad y[NV];
    load_row<NV>(y, a.y + row * (size_t)a.width, a.width);
    if (a.post) normalise<NV>(y, inv_rms(qn_block_sum(squares<NV>(y), s.y), a.width, a.eps), a.post, a.width);
#pragma unroll
    for (int i = 0; i < NV; i++) {
#pragma unroll
        for (int k = 0; k < 4; k++) x[i].v[k] = fmaf(a.scale, y[i].v[k], x[i].v[k]);
        qn_quad_store(a.x + row * (size_t)a.width, ((int)threadIdx.x + i * (int)blockDim.x) * 4, a.width, x[i]);
    }
}

template <int NV> QN_DEVICE void norm_to_act(qn_quad *x, const norm_args &a, size_t row, norm_shared &s) {
    normalise<NV>(x, inv_rms(qn_block_sum(squares<NV>(x), s.x), a.width, a.eps), a.gain, a.width);
    uint32_t most = 0;
    if (a.act.h[0]) {
#pragma unroll
        for (int i = 0; i < NV; i++) most = max(most, qn_quad_most(x[i]));
        most = qn_block_most(most, s.most);
    }
#pragma unroll
    for (int i = 0; i < NV; i++) {
        int at = ((int)threadIdx.x + i * (int)blockDim.x) * 4;
        if (at < a.act.stride) qn_act_store(a.act, row, at, x[i], qn_act_exponent(most)); /* the same for the warp: strides are multiples of 128 */
    }
}

template <int THREADS, int NV> QN_KERNEL(THREADS, 1) add_norm(norm_args a) {
    QN_SHARED(norm_shared, s);
    size_t to = blockIdx.x, row;
    if ((int)to >= *a.count) return;
    row = a.from ? (size_t)a.from[to] : to;
    qn_quad x[NV];
    load_row<NV>(x, a.x + row * (size_t)a.width, a.width);
    if (a.y) add<NV>(x, a, row, s);
    if (a.has_act) norm_to_act<NV>(x, a, to, s);
}

/* The smallest that holds the row. */
static const struct norm_size {
    int width, threads;
    void (*kernel)(norm_args);
} norm_sizes[] = {
    {512, 128, add_norm<128, 1>},   {1024, 256, add_norm<256, 1>},  {2048, 256, add_norm<256, 2>},
    {4096, 256, add_norm<256, 4>},  {8192, 512, add_norm<512, 4>},  {QN_CUDA_WIDTH_MAX, 1024, add_norm<1024, 4>},
};

static void launch_norm(const norm_args &a, int rows_bound, qn_cuda_stream stream) {
    const norm_size *s = norm_sizes;
    assert(a.width >= 1 && a.width <= QN_CUDA_WIDTH_MAX && (!a.has_act || (a.act.width == a.width && a.act.stride % 128 == 0)));
    if (rows_bound <= 0) return;
    while (s->width < a.width) s++;
    void (*kernel)(norm_args) = s->kernel;
    QN_LAUNCH(kernel, rows_bound, s->threads, 0, stream, a);
}

extern "C" void qn_cuda_add_norm(const qn_cuda_vec *x, const qn_cuda_vec *y, const float *post, float scale, const float *gain, float eps,
                                 const qn_cuda_act *act, const qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    norm_args a = {x->v, y ? y->v : nullptr, post, gain, &step->head->n_rows, nullptr, scale, eps, x->width, act != nullptr, {}};
    if (act) a.act = *act;
    assert(y || act);
    launch_norm(a, rows_bound, stream);
}

extern "C" void qn_cuda_norm_out(const qn_cuda_vec *x, const float *gain, float eps, const qn_cuda_act *act, const qn_cuda_step *step, int rows_bound,
                                 qn_cuda_stream stream) {
    norm_args a = {x->v, nullptr, nullptr, gain, &step->head->n_out, step->out_row, 0.0f, eps, x->width, 1, *act};
    launch_norm(a, rows_bound, stream);
}

/* --- quantising --------------------------------------------------------------------------------------------------- */

enum { QUANT_THREADS = 256, QUANT_SPAN = 4 * QUANT_THREADS };

struct quant_args {
    const float *x;
    const int32_t *count;
    qn_cuda_act act;
};

template <bool ROW> struct quant_shared { uint32_t most[32]; };

/* Grid [spans, rows]; ROW: one block has the whole row. */
template <bool ROW> QN_KERNEL(QUANT_THREADS, 4) quantise(quant_args a) {
    size_t row = blockIdx.y;
    if ((int)row >= *a.count) return;
    const float *x = a.x + row * (size_t)a.act.width;
    int at0 = ((int)blockIdx.x * QUANT_THREADS + (int)threadIdx.x) * 4, step = (int)gridDim.x * QUANT_SPAN;
    uint32_t most = 0;
    if (ROW) {
        QN_SHARED(quant_shared<ROW>, s);
        for (int at = at0; at < a.act.stride; at += step) most = max(most, qn_quad_most(qn_quad_load(x, at, a.act.width)));
        most = qn_block_most(most, s.most);
    }
    for (int at = at0; at < a.act.stride; at += step) qn_act_store(a.act, row, at, qn_quad_load(x, at, a.act.width), qn_act_exponent(most));
}

extern "C" void qn_cuda_quantise(const qn_cuda_vec *x, const qn_cuda_act *act, const qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    quant_args a = {x->v, &step->head->n_rows, *act};
    assert(x->width == act->width && act->stride % 128 == 0);
    if (rows_bound <= 0) return;
    if (act->h[0]) {
        QN_LAUNCH(quantise<true>, dim3(1, (unsigned)rows_bound), QUANT_THREADS, 0, stream, a);
    } else {
        dim3 grid((unsigned)((act->stride + QUANT_SPAN - 1) / QUANT_SPAN), (unsigned)rows_bound);
        QN_LAUNCH(quantise<false>, grid, QUANT_THREADS, 0, stream, a);
    }
}

/* --- narrowing ---------------------------------------------------------------------------------------------------- */

enum { NARROW_THREADS = 64, NARROW_AHEAD = 4 };

struct narrow_args {
    float *v;
    const int32_t *count, *from;
    int32_t width;
};

/* In place, so a thread has four columns of all rows and goes down them: row from[i] >= i is read before row i is written, and no other
 * thread touches these columns. Reads of NARROW_AHEAD rows are under way at once. */
QN_KERNEL(NARROW_THREADS, 8) narrow(narrow_args a) {
    int at = ((int)blockIdx.x * NARROW_THREADS + (int)threadIdx.x) * 4, n = *a.count;
    if (at >= a.width) return;
    for (int i = 0; i < n; i += NARROW_AHEAD) {
        qn_quad q[NARROW_AHEAD];
#pragma unroll
        for (int k = 0; k < NARROW_AHEAD; k++)
            if (i + k < n) q[k] = qn_quad_load(a.v + (size_t)a.from[i + k] * (size_t)a.width, at, a.width);
#pragma unroll
        for (int k = 0; k < NARROW_AHEAD; k++)
            if (i + k < n) qn_quad_store(a.v + (size_t)(i + k) * (size_t)a.width, at, a.width, q[k]);
    }
}

extern "C" void qn_cuda_narrow(const qn_cuda_vec *v, const qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    narrow_args a = {v->v, &step->head->n_out, step->out_row, v->width};
    int per_block = NARROW_THREADS * 4;
    if (rows_bound > 0) QN_LAUNCH(narrow, (v->width + per_block - 1) / per_block, NARROW_THREADS, 0, stream, a);
}
