/* One atomic stands between the caller and the kernel: a test sets it and time stands still for every thread. The
 * kernel is asked through the vDSO, so a reading costs tens of nanoseconds. */
#include "engine/base/clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t faked = -1;

static int64_t read_clock(clockid_t id) {
    int64_t f = atomic_load_explicit(&faked, memory_order_relaxed);
    if (f >= 0) return f;
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * QN_S + t.tv_nsec;
}

int64_t qn_clock_ns(void) { return read_clock(CLOCK_MONOTONIC); }
int64_t qn_clock_thread_ns(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }
int64_t qn_clock_wall_ns(void) { return read_clock(CLOCK_REALTIME); }
void qn_clock_fake(int64_t ns) { atomic_store(&faked, ns); }
