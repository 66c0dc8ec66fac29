/* The event loop and what reaches it from outside: signals, the engine's wake-up, the service manager's watchdog. No HTTP.
 * Thread: the one that runs it; qn_loop_wake may be called from any. */
#ifndef QN_LOOP_H
#define QN_LOOP_H

#include <stdatomic.h>
#include <uv.h>

#include "engine/base/err.h"

struct qn_loop_calls {      /* all on the loop thread */
    void (*on_wake)(void *user);            /* the engine has news */
    void (*on_term)(void *user, int times); /* SIGTERM or SIGINT; times counts from 1 */
    void (*on_hup)(void *user);
    void (*on_alive)(void *user);           /* half of the watchdog's interval is over */
    void (*on_deadline)(void *user);        /* the timer set with qn_loop_deadline */
};

struct qn_loop {
    uv_loop_t uv;
    uv_poll_t wake;
    int wake_fd;
    _Atomic int woken;          /* wake_fd was written and not read yet */
    uv_signal_t term, intr, hup;
    uv_timer_t watchdog, deadline;
    const struct qn_loop_calls *calls;
    void *user;
    int n_term, is_open;
};

int qn_loop_open(struct qn_loop *l, const struct qn_loop_calls *calls, void *user, struct qn_err *err);
/* From now on signals come as calls; before it they end the process, as they should while a model is being read. */
int qn_loop_signals(struct qn_loop *l, struct qn_err *err);
/* Any thread. */
void qn_loop_wake(void *loop);
/* Calls on_alive every ns nanoseconds (0: never). */
void qn_loop_watchdog(struct qn_loop *l, int64_t ns);
/* Calls on_deadline once after ms milliseconds; a new call replaces the old one. */
void qn_loop_deadline(struct qn_loop *l, int64_t ms);
void qn_loop_run(struct qn_loop *l);
void qn_loop_stop(struct qn_loop *l);
/* Closes its own handles, runs until all closed ones are gone, ends the loop. */
void qn_loop_close(struct qn_loop *l);

#endif
