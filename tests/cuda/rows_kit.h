/* What the tests of rows on the card share: arrays on the device, rows of random numbers with hostile ones among them, a step. */
#ifndef QN_TESTS_CUDA_ROWS_KIT_H
#define QN_TESTS_CUDA_ROWS_KIT_H

#include "engine/cuda/rows.h"
#include "engine/cuda/runtime.h"
#include "tests/kernels/kit.h"

/* A step's parts that row operations read; arrays are copied, NULL: none. */
struct rk_step {
    struct qn_cuda_step step;
    void *parts[5];
};

static inline void *rk_device(const void *from, size_t bytes) {
    void *p = NULL;
    ASSERT_EQ(cudaMalloc(&p, bytes), 0);
#ifndef QN_CUDA_EMU /* the emulator's is full of 0xff, and it knows that nobody has written there */
    ASSERT_EQ(cudaMemset(p, 0xff, bytes), 0);
#endif
    if (from) ASSERT_EQ(cudaMemcpy(p, from, bytes, cudaMemcpyHostToDevice), 0);
    return p;
}

static inline void *rk_fetch(const void *from, size_t bytes) {
    void *p = malloc(bytes);
    ASSERT_EQ(cudaDeviceSynchronize(), 0);
    ASSERT_EQ(cudaGetLastError(), 0);
    ASSERT_EQ(cudaMemcpy(p, from, bytes, cudaMemcpyDeviceToHost), 0);
    return p;
}

static inline struct rk_step rk_step_open(int n_rows, int n_out, const int32_t *out_row) {
    struct qn_cuda_head h = {.n_rows = n_rows, .n_out = n_out};
    struct rk_step s = {.parts = {rk_device(&h, sizeof h), out_row ? rk_device(out_row, (size_t)n_out * sizeof *out_row) : NULL}};
    s.step = (struct qn_cuda_step){.head = s.parts[0], .out_row = s.parts[1], .rows_max = n_rows};
    return s;
}

static inline void rk_step_close(struct rk_step *s) {
    for (int i = 0; i < 5; i++) cudaFree(s->parts[i]);
}

/* Every byte of p is 0xff: nobody wrote there. */
static inline int rk_untouched(const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)p)[i] != 0xff) return 0;
    return 1;
}

static inline float *rk_random(struct kit_rng *g, size_t n, float size) {
    float *x = malloc(n * sizeof *x);
    kit_fill(g, x, n);
    for (size_t i = 0; i < n; i++) x[i] *= size;
    return x;
}

#endif
