/* A pool that runs one loop at a time on the caller and its workers.
 *
 * Made for steps of a few hundred short loops on cores that somebody else may take away: work is handed out in chunks
 * that shrink towards the end, nobody waits for a worker that has not begun, and who has nothing to do spins for
 * microseconds and then sleeps. Thread: one owner calls everything below; the loop's body runs on any. */
#ifndef QN_CPU_THREADS_H
#define QN_CPU_THREADS_H

#include "engine/base/err.h"

struct qn_pool;

/* Handles items begin..end-1; `thread` is 0 (the owner) .. n_threads-1, and no two bodies run with the same one. */
typedef void (*qn_pool_fn)(void *arg, int begin, int end, int thread);

enum { QN_THREADS_MAX = 256 };

/* n_threads 0: one for each core that this process may use. QN_E_RANGE, QN_E_NOMEM, QN_E_IO. */
int qn_pool_open(struct qn_pool **out, int n_threads, struct qn_err *err);
void qn_pool_close(struct qn_pool *p);
int qn_pool_threads(const struct qn_pool *p);

/* Runs fn over 0..n-1 and returns when all of it is done and visible. `grain` >= 1 is the fewest items worth handing
 * over; n <= grain runs on the caller alone. fn must not call the pool. */
void qn_pool_run(struct qn_pool *p, int n, int grain, qn_pool_fn fn, void *arg);

/* Between hot(1) and hot(0) idle workers spin longer (a step is running and the next loop is microseconds away).
 * hot(1) wakes them ahead of the first loop. */
void qn_pool_hot(struct qn_pool *p, int on);

#endif
