/* The emulator against plain C: every primitive that kernels may use, streams and graphs, and a planted bug for each report. */
#include "engine/cuda/emu/testing.h"
#include "tests/cuda/emu_kernels.h"
#include "tests/run.h"

TEST(emu, adds_through_shared_memory) {
    enum { N = 1000 };
    float a[N], b[N], out[N], *da, *db, *dout;
    for (int i = 0; i < N; i++) a[i] = (float)i, b[i] = 0.5f * (float)(i % 7);
    ASSERT_EQ(cudaMalloc((void **)&da, sizeof a), 0);
    ASSERT_EQ(cudaMalloc((void **)&db, sizeof b), 0);
    ASSERT_EQ(cudaMalloc((void **)&dout, sizeof out), 0);
    cudaMemcpy(da, a, sizeof a, cudaMemcpyHostToDevice);
    cudaMemcpy(db, b, sizeof b, cudaMemcpyHostToDevice);
    emu_add(dout, da, db, N, NULL);
    EXPECT_EQ(cudaGetLastError(), 0);
    cudaMemcpy(out, dout, sizeof out, cudaMemcpyDeviceToHost);
    for (int i = 0; i < N; i++) EXPECT_NEAR(out[i], a[i] + b[i], 0);
}
