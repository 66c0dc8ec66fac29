/* One libmicrohttpd daemon a listener, each with its own epoll polled by uv. The library gets no timeout of its own (it
 * would only count inactivity, and scan for it): a timer sweeps over the connections instead. It is pumped by MHD_run
 * until it has nothing left to do at once: a resumed stream needs two passes, and one that closed a connection needs
 * another to listen again when it stood at its limit. */
#include "server/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "server/conn.h"
#include "server/log.h"

enum { PASSES_MAX = 64, SWEEP_MS = 250, GONE_BATCH = 256, SPARE_CONNECTIONS = 64, SPARE_FDS = 256, SEND_BUFFER = 64 * 1024 };
enum { POOL_BYTES = 8 * 1024 }; /* of a connection; an idle stream costs about 10 KB with it */

/* ---- pumping ---- */

static void on_again(uv_timer_t *t) { qn_http_pump(t->data); }

static void pump_one(struct qn_listener *l) {
    MHD_UNSIGNED_LONG_LONG wait;
    int passes = 0;
    if (l->pumping || !l->daemon) return;
    l->pumping = 1;
    do {
        l->closed = l->dirty = 0;
        MHD_run(l->daemon);
    } while (((MHD_get_timeout(l->daemon, &wait) == MHD_YES && wait == 0) || l->closed || l->dirty) && ++passes < PASSES_MAX);
    if (passes == PASSES_MAX) { /* others first, then more */
        l->dirty = 1;
        uv_timer_start(&l->http->again, on_again, 0, 0);
    }
    l->pumping = 0;
}

void qn_http_pump(struct qn_http *h) {
    int inside = 0;
    for (int i = 0; i < h->n_listeners; i++) inside |= h->listener[i]->pumping;
    for (int i = 0; i < h->n_listeners; i++)
        if (h->listener[i]->dirty) pump_one(h->listener[i]);
    if (!inside && h->draining && h->metrics.active == 0 && h->on_idle) {
        void (*idle)(void *) = h->on_idle;
        h->on_idle = NULL;
        idle(h->user);
    }
}

static void on_library(uv_poll_t *p, int status, int events) {
    struct qn_listener *l = p->data;
    (void)status, (void)events;
    l->dirty = 1;
    qn_http_pump(l->http);
}

/* ---- what the library calls ---- */

static void *identity(void *cls, struct MHD_Connection *mhd, char *s) {
    (void)cls, (void)mhd, (void)s;
    return NULL;
}

static size_t no_unescape(void *cls, struct MHD_Connection *mhd, char *s) {
    (void)cls, (void)mhd;
    return strlen(s);
}

static struct qn_conn *conn_of(struct MHD_Connection *mhd) {
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return i ? i->socket_context : NULL;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                  const char *upload, size_t *n_upload, void **req_cls) {
    struct qn_conn *c = conn_of(mhd);
    (void)cls, (void)url, (void)method, (void)version; /* of the canonical head; the real ones are the gate's */
    return c ? qn_conn_request(c, upload, n_upload, req_cls) : MHD_NO;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **req_cls, enum MHD_RequestTerminationCode how) {
    struct qn_conn *c = conn_of(mhd);
    (void)cls;
    if (c) qn_conn_completed(c, req_cls, how);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode what) {
    struct qn_listener *l = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        int fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        struct qn_conn *c = qn_conn_open(l, mhd, fd);
        struct epoll_event ev = { .events = EPOLLRDHUP | EPOLLET, .data.ptr = c };
        *context = c;
        if (c) epoll_ctl(l->http->gone_fd, EPOLL_CTL_ADD, fd, &ev);
        return;
    }
    l->closed = 1;
    struct qn_conn *c = *context;
    if (!c) return;
    epoll_ctl(l->http->gone_fd, EPOLL_CTL_DEL, c->fd, NULL);
    qn_conn_close(c);
    *context = NULL;
}

/* ---- clients that leave ---- */

static void on_gone(uv_poll_t *p, int status, int events) {
    struct qn_http *h = p->data;
    struct epoll_event ev[GONE_BATCH];
    (void)status, (void)events;
    int n = epoll_wait(h->gone_fd, ev, GONE_BATCH, 0);
    for (int i = 0; i < n; i++) /* the whole batch before a pump: none of these can be freed until then */
        if (ev[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) qn_conn_gone(ev[i].data.ptr);
    qn_http_pump(h);
}

static void on_sweep(uv_timer_t *t) {
    struct qn_http *h = t->data;
    int64_t now = qn_clock_ns();
    for (struct qn_conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        qn_conn_sweep(c, now);
    }
    qn_linger_sweep(&h->linger, now);
    qn_http_pump(h);
}

/* ---- opening ---- */

/* Every connection needs one descriptor, and the rest of the process some. */
static void make_room(struct qn_http *h) {
    struct rlimit lim;
    h->connections_max = h->cfg->connections_max;
    if (getrlimit(RLIMIT_NOFILE, &lim)) return;
    if (lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &lim)) getrlimit(RLIMIT_NOFILE, &lim);
    }
    int64_t have = lim.rlim_cur > INT32_MAX ? INT32_MAX : (int64_t)lim.rlim_cur, most = have - SPARE_FDS - SPARE_CONNECTIONS;
    if (most < have / 2) most = have / 2;
    if (h->connections_max <= most) return;
    qn_log(QN_LOG_WARN, "limits", "server.connections_max lowered from %lld to %lld: the process may have %lld descriptors (LimitNOFILE)",
           (long long)h->connections_max, (long long)most, (long long)have);
    h->connections_max = most;
}

void qn_http_configure(struct qn_http *h) {
    h->limits.target_bytes = (size_t)h->cfg->target_bytes_max;
    h->limits.fields = (int)h->cfg->fields_max;
    /* The gates' one buffer was made for the size at start; a reload may lower it. */
    if (!h->limits.head_bytes || (size_t)h->cfg->head_bytes_max < h->limits.head_bytes) h->limits.head_bytes = (size_t)h->cfg->head_bytes_max;
}

int qn_http_open(struct qn_http *h, uv_loop_t *loop, struct qn_config *cfg, struct qn_err *err) {
    memset(h, 0, sizeof *h);
    h->loop = loop;
    h->cfg = cfg;
    h->gone_fd = -1;
    make_room(h);
    qn_http_configure(h);
    int rc = qn_gate_init();
    if (rc == QN_E_UNSUPPORTED) return qn_fail(err, rc, "libmicrohttpd does not read through this program (is it linked statically?)");
    if (rc < 0) return qn_fail(err, rc, "no memory for connections");
    h->gone_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->gone_fd < 0) return qn_fail(err, QN_E_IO, "epoll_create1: %s", strerror(errno));
    uv_poll_init(loop, &h->gone_poll, h->gone_fd);
    uv_timer_init(loop, &h->sweep);
    uv_timer_init(loop, &h->again);
    h->gone_poll.data = h->sweep.data = h->again.data = h;
    h->n_handles = 3;
    uv_poll_start(&h->gone_poll, UV_READABLE, on_gone);
    uv_timer_start(&h->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    return 0;
}

/* Set on the listening socket, inherited by each connection: no system call there. */
static void tune(int fd, int is_unix, int64_t stall_s) {
    int one = 1, idle = 60, interval = 15, probes = 4, buffer = SEND_BUFFER, ms = (int)(stall_s < 2000000 ? stall_s * 1000 : 2000000000);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer); /* else the kernel keeps megabytes of a stream nobody reads */
    if (is_unix) return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms); /* peers that vanish without a word */
}

static int serve(struct qn_http *h, int fd, const struct qn_address *a, struct qn_err *err) {
    struct qn_listener *l = calloc(1, sizeof *l);
    if (!l) {
        close(fd);
        return qn_fail(err, QN_E_NOMEM, "%s: no memory", a->text);
    }
    l->http = h;
    l->addr = *a;
    tune(fd, a->is_unix, h->cfg->stall_s);
    l->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, l,
                                 MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd,
                                 MHD_OPTION_NOTIFY_COMPLETED, on_completed, l,
                                 MHD_OPTION_NOTIFY_CONNECTION, on_connection, l,
                                 MHD_OPTION_URI_LOG_CALLBACK, identity, NULL,
                                 MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, NULL,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)(h->connections_max + SPARE_CONNECTIONS),
                                 MHD_OPTION_STRICT_FOR_CLIENT, 0,
                                 MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
                                 MHD_OPTION_END);
    const union MHD_DaemonInfo *i = l->daemon ? MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!i) {
        if (!l->daemon) close(fd);
        else MHD_stop_daemon(l->daemon);
        free(l);
        return qn_fail(err, QN_E_IO, "%s: libmicrohttpd does not start", a->text);
    }
    uv_poll_init(h->loop, &l->poll, i->epoll_fd);
    l->poll.data = l;
    uv_poll_start(&l->poll, UV_READABLE, on_library);
    h->listener[h->n_listeners++] = l;
    l->dirty = 1;
    return 0;
}

static int keep(struct qn_http *h, int fd, const struct qn_address *a, struct qn_err *err) {
    if (h->n_bound == QN_LISTENERS_MAX) {
        close(fd);
        return qn_fail(err, QN_E_RANGE, "%s: more than %d addresses", a->text, QN_LISTENERS_MAX);
    }
    h->bound[h->n_bound].fd = fd;
    h->bound[h->n_bound++].addr = *a;
    return 0;
}

int qn_http_bind(struct qn_http *h, struct qn_err *err) {
    struct qn_address a;
    int fd, rc = 0;
    while (rc == 0 && (fd = qn_listen_inherited(h->n_bound, &a, err)) >= 0) {
        h->inherited = 1;
        if (a.is_public && !h->cfg->allow_public)
            rc = qn_fail(err, QN_E_RANGE, "the socket passed by systemd (%s) can be reached by other machines and there are no API keys; set server.allow_public: true", a.text);
        if (rc == 0) rc = keep(h, fd, &a, err);
    }
    if (rc == 0 && err->code) rc = err->code;
    qn_listen_inherited_done();
    for (int i = 0; !h->inherited && rc == 0 && i < h->cfg->listen.n; i++) {
        rc = qn_address_parse(&a, h->cfg->listen.p[i], err);
        if (rc == 0 && (fd = qn_listen_open(&a, (int)h->cfg->unix_mode, err)) < 0) rc = fd;
        if (rc == 0) rc = keep(h, fd, &a, err);
    }
    if (rc == 0 && h->n_bound == 0) rc = qn_fail(err, QN_E_RANGE, "server.listen is empty: give --listen ADDR:PORT");
    return rc;
}

int qn_http_serve(struct qn_http *h, struct qn_err *err) {
    int rc = 0;
    for (int i = 0; i < h->n_bound && rc == 0; i++) {
        int fd = h->bound[i].fd;
        if (listen(fd, (int)h->cfg->backlog)) return qn_fail(err, QN_E_IO, "cannot listen on %s: %s", h->bound[i].addr.text, errno == EADDRINUSE ? "the address is in use" : strerror(errno));
        h->bound[i].fd = -1;
        rc = serve(h, fd, &h->bound[i].addr, err);
    }
    if (rc == 0) qn_http_pump(h);
    return rc;
}

/* ---- the end ---- */

void qn_http_drain(struct qn_http *h) {
    if (h->draining) return;
    h->draining = 1;
    for (int i = 0; i < h->n_listeners; i++) {
        struct qn_listener *l = h->listener[i];
        MHD_socket fd = MHD_quiesce_daemon(l->daemon);
        l->dirty = 1;
        pump_one(l); /* it takes the socket out of its epoll before we close it */
        if (fd != MHD_INVALID_SOCKET) close(fd);
        if (!h->inherited) qn_listen_forget(&l->addr); /* else systemd's, which goes on with it */
    }
    qn_http_pump(h);
}

static void cut_all(struct qn_http *h) {
    for (struct qn_conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        qn_conn_cut(c);
    }
}

void qn_http_cut(struct qn_http *h) {
    h->cut = 1;
    cut_all(h);
    qn_http_pump(h);
}

static void free_listener(uv_handle_t *handle) { free(handle->data); }

void qn_http_close(struct qn_http *h) {
    for (int i = 0; i < h->n_bound; i++) {
        if (h->bound[i].fd < 0) continue; /* never served */
        close(h->bound[i].fd);
        if (!h->inherited) qn_listen_forget(&h->bound[i].addr);
    }
    if (!h->n_handles) return;
    h->on_idle = NULL;
    cut_all(h);
    for (int i = 0; i < h->n_listeners; i++) {
        struct qn_listener *l = h->listener[i];
        uv_poll_stop(&l->poll);
        l->dirty = 1;
        pump_one(l); /* nothing may be suspended when the library stops */
        MHD_stop_daemon(l->daemon);
        if (!h->draining && !h->inherited) qn_listen_forget(&l->addr);
        l->daemon = NULL;
        uv_close((uv_handle_t *)&l->poll, free_listener);
    }
    h->n_listeners = 0;
    uv_poll_stop(&h->gone_poll);
    uv_close((uv_handle_t *)&h->gone_poll, NULL);
    uv_close((uv_handle_t *)&h->sweep, NULL);
    uv_close((uv_handle_t *)&h->again, NULL);
    close(h->gone_fd);
    qn_linger_done(&h->linger);
    h->n_handles = 0;
}
