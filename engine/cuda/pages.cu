/* KV blocks that move: a prefix of one to another (copy on write), and whole blocks to and from pinned host memory (swap).
 *
 * A block is contiguous, all layers of it (step.h), so a swap is one plain copy, which the copy engines do beside the kernels; for
 * 8B models 2 MiB, which fills the bus. The first tokens of a block are a strip of every head's page: a kernel, 16 bytes a thread,
 * 2 * 2 * n_tokens * head_pad bytes read and written for each layer and KV head. Order between streams is the caller's, by events. */
#include "engine/cuda/rows.h"

#include "engine/cuda/portable.cuh"
#include "engine/cuda/runtime.h"

#include <assert.h>

enum { COPY_THREADS = 128 };

struct copy_args {
    const uint16_t *from;
    uint16_t *to;
    int32_t strip, page;    /* elements: of the tokens, of a page */
    int32_t n_pages;
};

QN_KERNEL(COPY_THREADS, 8) copy_strips(copy_args a) {
    size_t per = (size_t)a.strip / 8, i = (size_t)blockIdx.x * COPY_THREADS + threadIdx.x, page = i / per;
    if (page >= (size_t)a.n_pages) return;
    size_t at = page * (size_t)a.page + i % per * 8;
    qn_store16(a.to + at, qn_load16(a.from + at));
}

static size_t block_elements(const qn_cuda_kv *kv) { return (size_t)qn_cuda_kv_block_bytes(kv) / sizeof *kv->pages; }

extern "C" void qn_cuda_kv_copy(const qn_cuda_kv *kv, int32_t from, int32_t to, int n_tokens, qn_cuda_stream stream) {
    assert(from != to && n_tokens >= 1 && n_tokens <= QN_CUDA_PAGE);
    copy_args a = {kv->pages + (size_t)from * block_elements(kv), kv->pages + (size_t)to * block_elements(kv), n_tokens * kv->head_pad,
                   QN_CUDA_PAGE * kv->head_pad, kv->n_layers * kv->n_kv_heads * 2};
    size_t threads = (size_t)a.n_pages * (size_t)(a.strip / 8);
    QN_LAUNCH(copy_strips, (unsigned)((threads + COPY_THREADS - 1) / COPY_THREADS), COPY_THREADS, 0, stream, a);
}

/* How many of blocks[0..n) follow each other. */
static int run_of(const int32_t *blocks, int n) {
    int k = 1;
    while (k < n && blocks[k] == blocks[0] + k) k++;
    return k;
}

extern "C" void qn_cuda_kv_swap_out(const qn_cuda_kv *kv, const int32_t *blocks, int n, void *host, qn_cuda_stream stream) {
    size_t bytes = (size_t)qn_cuda_kv_block_bytes(kv);
    for (int i = 0, k; i < n; i += k) {
        k = run_of(blocks + i, n - i);
        cudaMemcpyAsync((char *)host + (size_t)i * bytes, kv->pages + (size_t)blocks[i] * block_elements(kv), (size_t)k * bytes, cudaMemcpyDeviceToHost, stream);
    }
}

extern "C" void qn_cuda_kv_swap_in(const qn_cuda_kv *kv, const int32_t *blocks, int n, const void *host, qn_cuda_stream stream) {
    size_t bytes = (size_t)qn_cuda_kv_block_bytes(kv);
    for (int i = 0, k; i < n; i += k) {
        k = run_of(blocks + i, n - i);
        cudaMemcpyAsync(kv->pages + (size_t)blocks[i] * block_elements(kv), (const char *)host + (size_t)i * bytes, (size_t)k * bytes, cudaMemcpyHostToDevice, stream);
    }
}
