/* Monotonic time that a test can set. Everything that waits or expires asks here and never the kernel. */
#ifndef QN_BASE_CLOCK_H
#define QN_BASE_CLOCK_H

#include <stdint.h>

#define QN_MS 1000000LL
#define QN_S 1000000000LL

/* Nanoseconds since some fixed moment. Any thread. */
int64_t qn_clock_ns(void);
/* What the calling thread has computed so far: time in which others had the processor is not counted. A system call. */
int64_t qn_clock_thread_ns(void);
/* Nanoseconds since 1970-01-01 UTC, for `created` fields and log lines only. */
int64_t qn_clock_wall_ns(void);
/* Tests: from now on all clocks answer `ns` (negative: the real ones again). Not while other threads read. */
void qn_clock_fake(int64_t ns);

#endif
