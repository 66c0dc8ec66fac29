/* SIGPIPE is ignored: a send to a client that left is an error value, not the end of the process.
 *
 * The wake-up is an eventfd of our own and not a uv_async_t: that one lets the woken loop spin, and yield, for as long as the
 * waker is still on its way out of write(2). A waker that lost its core right there to the loop that it woke gets it back by the yield
 * and computes on for a whole tick of the scheduler, with the news lying about. */
#include "server/loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct qn_loop *of(void *data) { return data; }

/* Drained before `woken` is cleared: until then nobody writes, so no wake-up can be swallowed. */
static void on_wake(uv_poll_t *p, int status, int events) {
    struct qn_loop *l = of(p->data);
    (void)events;
    if (status == 0) {
        eventfd_t n;
        if (eventfd_read(l->wake_fd, &n) == 0) atomic_exchange(&l->woken, 0);
    }
    l->calls->on_wake(l->user);
}

static void on_term(uv_signal_t *s, int sig) {
    struct qn_loop *l = s->data;
    (void)sig;
    l->calls->on_term(l->user, ++l->n_term);
}

static void on_hup(uv_signal_t *s, int sig) {
    (void)sig;
    of(s->data)->calls->on_hup(of(s->data)->user);
}

static void on_watchdog(uv_timer_t *t) { of(t->data)->calls->on_alive(of(t->data)->user); }
static void on_deadline(uv_timer_t *t) { of(t->data)->calls->on_deadline(of(t->data)->user); }

int qn_loop_open(struct qn_loop *l, const struct qn_loop_calls *calls, void *user, struct qn_err *err) {
    memset(l, 0, sizeof *l);
    l->calls = calls;
    l->user = user;
    signal(SIGPIPE, SIG_IGN);
    int rc = uv_loop_init(&l->uv);
    if (rc < 0) return qn_fail(err, QN_E_IO, "event loop: %s", uv_strerror(rc));
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake_fd < 0) {
        uv_loop_close(&l->uv);
        return qn_fail(err, QN_E_IO, "event loop: eventfd: %s", strerror(errno));
    }
    l->is_open = 1;
    uv_poll_init(&l->uv, &l->wake, l->wake_fd);
    uv_signal_init(&l->uv, &l->term);
    uv_signal_init(&l->uv, &l->intr);
    uv_signal_init(&l->uv, &l->hup);
    uv_timer_init(&l->uv, &l->watchdog);
    uv_timer_init(&l->uv, &l->deadline);
    l->wake.data = l->term.data = l->intr.data = l->hup.data = l->watchdog.data = l->deadline.data = l;
    rc = uv_poll_start(&l->wake, UV_READABLE, on_wake);
    if (rc == 0) return 0;
    qn_loop_close(l);
    return qn_fail(err, QN_E_IO, "event loop: %s", uv_strerror(rc));
}

int qn_loop_signals(struct qn_loop *l, struct qn_err *err) {
    int rc = uv_signal_start(&l->term, on_term, SIGTERM);
    if (rc == 0) rc = uv_signal_start(&l->intr, on_term, SIGINT);
    if (rc == 0) rc = uv_signal_start(&l->hup, on_hup, SIGHUP);
    return rc < 0 ? qn_fail(err, QN_E_IO, "signals: %s", uv_strerror(rc)) : 0;
}

void qn_loop_wake(void *loop) {
    struct qn_loop *l = of(loop);
    if (atomic_exchange(&l->woken, 1) == 0) eventfd_write(l->wake_fd, 1);
}

void qn_loop_watchdog(struct qn_loop *l, int64_t ns) {
    uint64_t ms = (uint64_t)(ns / 1000000);
    if (ns <= 0) uv_timer_stop(&l->watchdog);
    else uv_timer_start(&l->watchdog, on_watchdog, 0, ms ? ms : 1);
}

void qn_loop_deadline(struct qn_loop *l, int64_t ms) { uv_timer_start(&l->deadline, on_deadline, (uint64_t)ms, 0); }

void qn_loop_run(struct qn_loop *l) { uv_run(&l->uv, UV_RUN_DEFAULT); }

void qn_loop_stop(struct qn_loop *l) { uv_stop(&l->uv); }

void qn_loop_close(struct qn_loop *l) {
    if (!l->is_open) return;
    uv_handle_t *own[] = { (uv_handle_t *)&l->wake, (uv_handle_t *)&l->term, (uv_handle_t *)&l->intr, (uv_handle_t *)&l->hup,
                           (uv_handle_t *)&l->watchdog, (uv_handle_t *)&l->deadline };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) uv_close(own[i], NULL);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    uv_loop_close(&l->uv);
    close(l->wake_fd);
    l->is_open = 0;
}
