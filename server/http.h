/* libmicrohttpd inside the loop: listeners, connections, deadlines and the watch on clients that leave; no JSON, no routes.
 * What happens on a connection is conn.c's. Thread: loop. */
#ifndef QN_HTTP_H
#define QN_HTTP_H

#include <microhttpd.h>
#include <uv.h>

#include "api/api.h"
#include "server/config.h"
#include "server/gate.h"
#include "server/linger.h"
#include "server/listen.h"
#include "server/metrics.h"

enum { QN_LISTENERS_MAX = 16 };

struct qn_conn;

struct qn_listener {
    struct qn_http *http;
    struct MHD_Daemon *daemon;
    struct qn_address addr;
    uv_poll_t poll;         /* on the daemon's epoll */
    int closed, dirty, pumping;
};

struct qn_http {
    uv_loop_t *loop;
    struct qn_config *cfg;  /* borrowed; reloadable members may change between events */
    struct qn_api *api;     /* borrowed */
    struct qn_head_limits limits;
    struct qn_metrics metrics;
    struct qn_listener *listener[QN_LISTENERS_MAX];
    int n_listeners;
    struct { int fd; struct qn_address addr; } bound[QN_LISTENERS_MAX];
    int n_bound, inherited; /* sockets; from systemd */
    struct qn_conn *conns;  /* all of them */
    int gone_fd;            /* an epoll that only reports peers that left */
    uv_poll_t gone_poll;
    uv_timer_t sweep, again;
    struct qn_linger linger;
    int64_t connections_max; /* the option, or what the process may have */
    int draining, cut, n_handles, n_offloads;
    void (*on_idle)(void *user); /* draining, and the last request has ended */
    void *user;
};

/* cfg and api are borrowed. Raises the limit of descriptors as far as it may. */
int qn_http_open(struct qn_http *h, uv_loop_t *loop, struct qn_config *cfg, struct qn_err *err);
/* Takes every address of the configuration, or the sockets that systemd passed; nobody can connect yet. err is not NULL. */
int qn_http_bind(struct qn_http *h, struct qn_err *err);
/* Listens and answers from now on (h->api is set). */
int qn_http_serve(struct qn_http *h, struct qn_err *err);
/* After a reload of *cfg. */
void qn_http_configure(struct qn_http *h);
/* Lets libmicrohttpd go on where something was resumed. Call it at the end of whatever the loop did. */
void qn_http_pump(struct qn_http *h);
/* No new connections; replies close theirs; on_idle comes when the last request has ended (maybe at once). */
void qn_http_drain(struct qn_http *h);
/* Every request still running is ended with an error event or a 503. */
void qn_http_cut(struct qn_http *h);
/* Closes what is left. The loop must run once more for its handles. */
void qn_http_close(struct qn_http *h);

#endif
