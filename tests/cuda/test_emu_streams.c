/* The emulator's runtime: memory, streams in both modes, events, graphs. Lazy streams must show every mistake that legal orders allow,
 * and nothing else. */
#include "engine/cuda/emu/testing.h"
#include "tests/cuda/emu_kernels.h"
#include "tests/cuda/kit.h"
#include "tests/run.h"

static const char *const orders[] = {"forward", "reverse", "random:1", "random:2", "random:3", "random:4"};
enum { N_ORDERS = sizeof orders / sizeof *orders };

static cudaStream_t stream(void) {
    cudaStream_t s;
    ASSERT_EQ(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), 0);
    return s;
}
static cudaEvent_t event(void) {
    cudaEvent_t e;
    ASSERT_EQ(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), 0);
    return e;
}
static int *pinned(int n) {
    int *p = NULL;
    ASSERT_EQ(cudaMallocHost((void **)&p, (size_t)n * sizeof *p), 0);
    return p;
}

TEST(emu_streams, new_memory_is_all_ones) {
    unsigned char host[1000];
    unsigned char *d = dev_new(sizeof host);
    EXPECT_EQ((uintptr_t)d % 256, 0);
    dev_read(host, d, sizeof host);
    for (size_t i = 0; i < sizeof host; i++) EXPECT_EQ(host[i], 0xff);
}

TEST(emu_streams, memory_runs_out_and_comes_back) {
    size_t before, after, total;
    void *p = NULL;
    ASSERT_EQ(cudaMemGetInfo(&before, &total), 0);
    EXPECT_EQ(cudaMalloc(&p, total + 1), cudaErrorMemoryAllocation);
    EXPECT(p == NULL);
    p = dev_new(1 << 20);
    cudaMemGetInfo(&after, &total);
    EXPECT_EQ(before - after, 1 << 20);
    EXPECT_EQ(cudaFree(p), 0);
    cudaMemGetInfo(&after, &total);
    EXPECT_EQ(after, before);
}

TEST(emu_streams, copies_are_checked) {
    int host[100] = {0}, *d = dev_new(sizeof host), *freed = dev_new(64);
    cudaFree(freed);
    struct { void *to; const void *from; size_t bytes; enum cudaMemcpyKind kind; } bad[] = {
        {d, host, sizeof host + 1, cudaMemcpyHostToDevice}, {d + 1, host, sizeof host, cudaMemcpyHostToDevice},
        {host, d, sizeof host, cudaMemcpyHostToDevice},     {d, host, sizeof host, cudaMemcpyDeviceToHost},
        {host, host + 50, 10, cudaMemcpyDeviceToDevice},    {host, d + 99, 8, cudaMemcpyDeviceToHost},
        {freed, host, 64, cudaMemcpyHostToDevice},          {d - 1, host, 4, cudaMemcpyHostToDevice},
    };
    qn_emu_collect(1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        EXPECT_EQ(cudaMemcpy(bad[i].to, bad[i].from, bad[i].bytes, bad[i].kind), cudaErrorInvalidValue);
        EXPECT_EQ(qn_emu_n_reports(), (int)i + 1);
    }
    EXPECT_EQ(cudaMemset(d, 0, sizeof host + 1), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(d + 1), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(d, host, sizeof host, cudaMemcpyDefault), 0);
}

/* The staging buffer is written again before the copy is known to be done: eager hides it, lazy shows it. */
TEST(emu_streams, lazy_shows_a_staging_buffer_reused_too_early) {
    for (int lazy = 0; lazy < 2; lazy++) {
        qn_emu_set("forward", lazy ? "lazy" : "eager", NULL, 0);
        cudaStream_t s = stream();
        int *h = pinned(1), *d = dev_new(4), got;
        *h = 1;
        cudaMemcpyAsync(d, h, 4, cudaMemcpyHostToDevice, s);
        *h = 2;
        cudaStreamSynchronize(s);
        dev_read(&got, d, 4);
        EXPECT_EQ(got, lazy ? 2 : 1);
        int pageable = 3; /* of this the driver takes a copy */
        cudaMemcpyAsync(d, &pageable, 4, cudaMemcpyHostToDevice, s);
        pageable = 4;
        cudaStreamSynchronize(s);
        dev_read(&got, d, 4);
        EXPECT_EQ(got, 3);
    }
}

/* upload -> add 1 -> download over three streams; with events the result is one number, without them some order shows another. */
static int chain(const char *order, int with_events) {
    qn_emu_set(order, "lazy", NULL, 0);
    cudaStream_t up = stream(), run = stream(), down = stream();
    cudaEvent_t uploaded = event(), ran = event(), got = event();
    int *h = pinned(2), *d = dev_copy(&(int){100}, 4);
    h[0] = 5, h[1] = 0;
    cudaMemcpyAsync(d, &h[0], 4, cudaMemcpyHostToDevice, up);
    cudaEventRecord(uploaded, up);
    if (with_events) cudaStreamWaitEvent(run, uploaded, 0);
    emu_inc(d, 1, 1, run);
    cudaEventRecord(ran, run);
    if (with_events) cudaStreamWaitEvent(down, ran, 0);
    cudaMemcpyAsync(&h[1], d, 4, cudaMemcpyDeviceToHost, down);
    cudaEventRecord(got, down);
    int polls = 0;
    while (cudaEventQuery(got) == cudaErrorNotReady) ASSERT(++polls < 100);
    int r = h[1];
    cudaDeviceSynchronize();
    cudaEventDestroy(uploaded), cudaEventDestroy(ran), cudaEventDestroy(got);
    cudaStreamDestroy(up), cudaStreamDestroy(run), cudaStreamDestroy(down);
    return r;
}
TEST(emu_streams, events_order_lazy_streams_and_their_absence_shows) {
    int wrong = 0;
    for (int o = 0; o < N_ORDERS; o++) {
        EXPECT_EQ(chain(orders[o], 1), 6);
        wrong += chain(orders[o], 0) != 6;
    }
    EXPECT(wrong >= 2);
}

/* A wait is for the record that was made last when it was called. */
TEST(emu_streams, an_event_recorded_again_keeps_its_earlier_waiters) {
    qn_emu_set("reverse", "lazy", NULL, 0);
    cudaStream_t a = stream(), b = stream(), c = stream();
    cudaEvent_t e = event();
    int *h = pinned(1), *d = dev_copy(&(int){0}, 4);
    emu_inc(d, 1, 1, a);
    cudaEventRecord(e, a);
    cudaStreamWaitEvent(c, e, 0);
    cudaMemcpyAsync(h, d, 4, cudaMemcpyDeviceToHost, c);
    cudaEventRecord(e, b); /* b has nothing to do: happens at once */
    cudaStreamSynchronize(c);
    EXPECT_EQ(*h, 1);
    cudaEventDestroy(e);
}

static void on_done(void *p) { *(int *)p = 1; }
TEST(emu_streams, host_functions_run_in_their_turn) {
    qn_emu_set("random:3", "lazy", NULL, 0);
    cudaStream_t s = stream();
    int done = 0, *d = dev_copy(&(int){0}, 4);
    emu_inc(d, 1, 1, s);
    cudaLaunchHostFunc(s, on_done, &done);
    EXPECT_EQ(done, 0);
    EXPECT_EQ(cudaStreamSynchronize(s), 0);
    EXPECT_EQ(done, 1);
    EXPECT_EQ(cudaStreamQuery(s), 0);
}

/* d[0] += 1; then on two streams d[0] += 10 and d[1] += 100; then both are copied to d[2..3]. */
TEST(emu_streams, a_graph_with_a_fork_is_replayed) {
    for (int o = 0; o < 2 * N_ORDERS; o++) {
        qn_emu_set(orders[o / 2], o % 2 ? "lazy" : "eager", NULL, 0);
        cudaStream_t s = stream(), side = stream();
        cudaEvent_t fork = event(), join = event();
        cudaGraph_t g;
        cudaGraphExec_t x;
        int zero[4] = {0}, out[4], *d = dev_copy(zero, sizeof zero), by = 1;
        ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), 0);
        emu_inc(d, 1, by, s);
        by = 1000; /* the argument was copied */
        cudaEventRecord(fork, s);
        cudaStreamWaitEvent(side, fork, 0);
        emu_inc(d, 1, 10, s);
        emu_inc(d + 1, 1, 100, side);
        cudaEventRecord(join, side);
        cudaStreamWaitEvent(s, join, 0);
        cudaMemcpyAsync(d + 2, d, 8, cudaMemcpyDeviceToDevice, s);
        ASSERT_EQ(cudaStreamEndCapture(s, &g), 0);
        ASSERT_EQ(cudaGraphInstantiate(&x, g, 0), 0);
        ASSERT_EQ(cudaGraphDestroy(g), 0);
        dev_read(out, d, sizeof out);
        EXPECT_EQ(out[0], 0); /* nothing ran yet */
        for (int i = 1; i <= 3; i++) {
            ASSERT_EQ(cudaGraphLaunch(x, s), 0);
            dev_read(out, d, sizeof out);
            EXPECT_EQ(out[2], 11 * i);
            EXPECT_EQ(out[3], 100 * i);
        }
        cudaGraphExecDestroy(x);
        cudaEventDestroy(fork), cudaEventDestroy(join);
        EXPECT_EQ(cudaStreamDestroy(side), 0);
    }
}

TEST(emu_streams, what_a_capture_does_not_allow_is_reported) {
    cudaStream_t s = stream(), side = stream();
    cudaEvent_t outside = event(), fork = event();
    cudaGraph_t g;
    int *d = dev_copy(&(int){0}, 4), host = 0;
    cudaEventRecord(outside, side);
    qn_emu_collect(1);
    ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), 0);
    EXPECT(cudaStreamSynchronize(s) != 0);
    EXPECT(cudaMemcpyAsync(&host, d, 4, cudaMemcpyDeviceToHost, s) != 0);
    EXPECT(cudaStreamWaitEvent(s, outside, 0) != 0);
    EXPECT(cudaFree(d) == 0 || qn_emu_n_reports() == 4);
    EXPECT_EQ(qn_emu_n_reports(), 4);
    cudaEventRecord(fork, s);
    cudaStreamWaitEvent(side, fork, 0);
    emu_inc(d, 1, 1, side); /* never joined */
    EXPECT(cudaStreamEndCapture(s, &g) != 0);
    EXPECT_EQ(qn_emu_n_reports(), 5);
    EXPECT(cudaStreamWaitEvent(side, fork, 0) != 0); /* of a capture that is over */
    EXPECT_EQ(qn_emu_n_reports(), 6);
    cudaEventDestroy(outside), cudaEventDestroy(fork);
}

TEST(emu_streams, the_null_stream_waits_for_blocking_streams_only) {
    qn_emu_set("reverse", "lazy", NULL, 0);
    cudaStream_t blocking, free_running = stream();
    cudaStreamCreate(&blocking);
    int zero[2] = {0}, out[2], *d = dev_copy(zero, sizeof zero);
    emu_inc(d, 1, 1, blocking);
    emu_inc(d + 1, 1, 1, free_running);
    cudaMemcpy(out, d, sizeof out, cudaMemcpyDeviceToHost);
    EXPECT_EQ(out[0], 1);
    EXPECT_EQ(out[1], 0);
}
