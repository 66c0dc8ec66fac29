/* Kernels for the emulator's own tests: each uses one primitive, plainly. */
#include "engine/cuda/portable.cuh"
#include "tests/cuda/emu_kernels.h"

struct reversed { float v[256]; };
QN_KERNEL(256, 2) add(float *out, const float *a, const float *b, int n) {
    QN_SHARED(reversed, s);
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x), t = (int)threadIdx.x;
    s.v[255 - t] = i < n ? a[i] : 0.0f;
    __syncthreads();
    if (i < n) out[i] = s.v[255 - t] + b[i];
}
extern "C" void emu_add(float *out, const float *a, const float *b, int n, cudaStream_t s) { QN_LAUNCH(add, (n + 255) / 256, 256, 0, s, out, a, b, n); }
