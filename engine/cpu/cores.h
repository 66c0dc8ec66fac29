/* The cores that a process may compute on, how many threads they are worth, and moving a thread between them. Thread: any;
 * nothing here keeps state. */
#ifndef QN_CPU_CORES_H
#define QN_CPU_CORES_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "engine/base/err.h"

struct qn_cores { cpu_set_t set; int n; };

/* `list` as in "0-3,8": numbers and ranges, each core once or more. NULL or "": all that this process may use. QN_E_RANGE
 * when it is no such list or names a core that this process may not use. */
int qn_cores_open(struct qn_cores *c, const char *list, struct qn_err *err);

/* Cores that the control group's quota pays for (the least of the process' group and those above it; 0: no quota). `root` is
 * the file system's root, "" but in tests. */
double qn_cores_quota(const char *root);

/* Compute threads worth having: one a core, no more than whole cores of the quota, at least 1. */
int qn_cores_threads(const struct qn_cores *c, double quota);

/* A thread as others see it. */
struct qn_cores_thread { pid_t tid; clockid_t clock; };
struct qn_cores_thread qn_cores_self(void);
/* Time that it has run so far. It stands still while the thread is asleep, or waits for a core that somebody else has. */
int64_t qn_cores_ran_ns(struct qn_cores_thread t);
/* May run on the cores of `set` only (`set` less core `but`, if that leaves any; -1: none); moves it at once if it must. 0, or
 * -1 where the system does not allow it. */
int qn_cores_allow(struct qn_cores_thread t, const struct qn_cores *set, int but);
int qn_cores_pin(struct qn_cores_thread t, int core);

#endif
