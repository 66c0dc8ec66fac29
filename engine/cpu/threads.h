/* A pool that runs one loop at a time on the caller and its workers.
 *
 * Made for steps of a few hundred short loops on cores that somebody else may take away: work is handed out in chunks
 * that shrink towards the end, nobody waits for a worker that has not begun, and who has nothing to do spins for
 * microseconds and then sleeps. Thread: one owner calls everything below; the loop's body runs on any. */
#ifndef QN_CPU_THREADS_H
#define QN_CPU_THREADS_H

#include <stdint.h>

#include "engine/base/err.h"

struct qn_pool;

/* Handles items begin..end-1; `thread` is 0 (the owner) .. n_threads-1, and no two bodies run with the same one. */
typedef void (*qn_pool_fn)(void *arg, int begin, int end, int thread);

enum { QN_THREADS_MAX = 256 };

/* cores: the list of cores that the workers may run on, as in "0-3,8"; NULL or "": all that the process may use. n_threads 0: one
 * for each of these, no more than the control group's quota pays for. QN_E_RANGE, QN_E_NOMEM, QN_E_IO. */
int qn_pool_open(struct qn_pool **out, int n_threads, const char *cores, struct qn_err *err);
void qn_pool_close(struct qn_pool *p);
int qn_pool_threads(const struct qn_pool *p);

/* The calling thread is the owner for good: it computes on the given cores as well, until it closes the pool or ends. */
void qn_pool_attach(struct qn_pool *p);

struct qn_pool_stats {
    int n_active;           /* threads in use now: fewer than there are while fewer are faster */
    int64_t stalled_ns;     /* the owner waited for threads that had begun something and lost their core */
    uint64_t rescues;       /* times that such a thread was moved to the core of who waited */
};
void qn_pool_stats(const struct qn_pool *p, struct qn_pool_stats *out); /* owner */

/* Runs fn over 0..n-1 and returns when all of it is done and visible. `grain` >= 1 is the fewest items worth handing
 * over; n <= grain runs on the caller alone. fn must not call the pool. */
void qn_pool_run(struct qn_pool *p, int n, int grain, qn_pool_fn fn, void *arg);

/* Between hot(1) and hot(0) idle workers spin longer (a step is running and the next loop is microseconds away).
 * hot(1) wakes them ahead of the first loop. */
void qn_pool_hot(struct qn_pool *p, int on);

#endif
