/* Rules of libmicrohttpd that the code below lives by (0.9.75):
 *  - a reply may be queued in the first or in the last handler call of a request, never between; from the first it
 *    closes the connection when a body was announced;
 *  - all of an upload must be taken at once (*n = 0);
 *  - a reader that returns 0 must have suspended, or the library spins;
 *  - resuming wakes nothing: mark the listener dirty and pump;
 *  - the handler is called again after a resume, with the same req_cls. */
#include "server/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "engine/base/clock.h"
#include "server/log.h"
#include "server/reply.h"

enum { DRAIN_BYTES_MAX = 64 * 1024 };

#define TO(s) (1u << QN_CS_##s)
static const unsigned may_go[QN_CS_COUNT] = {
    [QN_CS_IDLE] = TO(BODY) | TO(CLOSED),
    [QN_CS_BODY] = TO(WAIT) | TO(REPLY) | TO(IDLE) | TO(CLOSED),
    [QN_CS_WAIT] = TO(REPLY) | TO(IDLE) | TO(CLOSED),
    [QN_CS_REPLY] = TO(IDLE) | TO(CLOSED),
};

static void go(struct qn_conn *c, enum qn_conn_state to) {
    if (!(may_go[c->state] & (1u << to))) qn_log(QN_LOG_ERROR, "bug", "connection state %d to %d", c->state, to);
    c->state = to;
}

/* ---- suspend and resume ---- */

void qn_conn_suspend(struct qn_conn *c) {
    c->suspended = 1;
    MHD_suspend_connection(c->mhd);
}

void qn_conn_resume(struct qn_conn *c) {
    if (!c->suspended) return;
    c->suspended = 0;
    MHD_resume_connection(c->mhd);
    c->at->dirty = 1;
}

/* ---- the start of a request ---- */

static const char *header_of(void *ctx, const char *name) { return qn_head_field(ctx, name); }

static int in_list(const struct qn_strs *l, const char *s) {
    for (int i = 0; i < l->n; i++)
        if (!strcasecmp(l->p[i], s)) return 1;
    return 0;
}

static int host_allowed(const struct qn_conn *c, const struct qn_request *r) {
    const struct qn_strs *names = &c->at->http->cfg->hosts;
    if (c->at->addr.is_unix || !r->host) return 1; /* no browser speaks HTTP/1.0 or over a UNIX socket */
    for (int i = 0; i < names->n; i++)
        if (qn_head_host_is(r->host, names->p[i]) || !strcasecmp(r->host, names->p[i])) return 1;
    if (qn_head_host_local(r->host)) return 1;
    return c->at->addr.is_public && names->n == 0;
}

/* The page's origin is listed, or it is our own (scheme aside, since a proxy may have ended TLS). */
static int origin_allowed(const struct qn_conn *c, const struct qn_request *r) {
    const struct qn_strs *listed = &c->at->http->cfg->origins;
    if (!r->origin || in_list(listed, "*") || in_list(listed, r->origin)) return 1;
    const char *authority = strstr(r->origin, "://");
    return authority && r->host && !strcasecmp(authority + 3, r->host);
}

/* 1 when the server has answered by itself. */
static int gatekeep(struct qn_conn *c, const struct qn_request *r, struct qn_xchg *x) {
    if (c->over) return qn_reply_error(x, 503, "overloaded", "The server has too many connections."), 1;
    if (!host_allowed(c, r)) return qn_reply_error(x, 403, "host_not_allowed", "The Host header names a server that this is not (server.hosts lists its names)."), 1;
    if (!origin_allowed(c, r)) return qn_reply_error(x, 403, "origin_not_allowed", "Pages of this origin may not call this server (server.origins)."), 1;
    if (r->origin && strlen(r->origin) <= QN_ORIGIN_MAX) snprintf(x->origin, sizeof x->origin, "%s", r->origin);
    if (strcmp(r->method, "OPTIONS")) return 0;
    static const struct qn_header pre[] = { { "Access-Control-Allow-Methods", "GET, POST, DELETE" }, { "Access-Control-Allow-Headers", "*, Authorization" },
                                            { "Access-Control-Max-Age", "600" }, { "Allow", "GET, HEAD, POST, DELETE, OPTIONS" } };
    if (!strcmp(r->target, "*") || (r->origin && qn_head_field(r, "access-control-request-method"))) {
        qn_reply_set(x, 204, r->origin ? pre : pre + 3, r->origin ? 4 : 1, NULL, 0, 0);
        return 1;
    }
    return 0;
}

static struct qn_xchg *begin(struct qn_conn *c, const struct qn_request *r) {
    struct qn_http *h = c->at->http;
    struct qn_xchg *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->conn = c;
    x->http = h;
    x->begin_ns = x->tick_ns = qn_clock_ns();
    x->minor = r->minor;
    snprintf(x->method_text, sizeof x->method_text, "%s", r->method);
    snprintf(x->path, sizeof x->path, "%.*s", (int)strcspn(r->target, "?"), r->target);
    qn_reply_id(x->id, qn_head_field(r, "x-request-id"));
    c->x = x;
    go(c, QN_CS_BODY);
    h->metrics.active++;
    if (gatekeep(c, r, x)) return x;
    int head_only = !strcmp(r->method, "HEAD");
    struct qn_head head = { .method = head_only ? "GET" : r->method, .target = r->target, .request_id = x->id, .header = header_of,
                            .header_ctx = (void *)(uintptr_t)r, .content_length = r->content_length };
    x->ex = qn_api_begin(h->api, &head, &qn_reply_sink, x);
    if (!x->ex) qn_reply_error(x, 503, "overloaded", "The server is out of memory.");
    return x;
}

static enum MHD_Result queue(struct qn_conn *c, struct qn_xchg *x) {
    if (c->state != QN_CS_REPLY) go(c, QN_CS_REPLY);
    x->queued = 1;
    x->progress_ns = qn_clock_ns();
    return MHD_queue_response(c->mhd, (unsigned)x->status, x->resp);
}

static enum MHD_Result first_call(struct qn_conn *c, void **req_cls) {
    const struct qn_request *r = qn_gate_request(&c->gate);
    if (!r) {
        qn_log(QN_LOG_ERROR, "bug", "a request came past the gate");
        return MHD_NO;
    }
    struct qn_xchg *x = begin(c, r);
    if (!x) return MHD_NO;
    *req_cls = x;
    int64_t body = r->content_length;
    if (!x->resp || body == 0 || (body > 0 && body <= DRAIN_BYTES_MAX && !r->expect_continue)) return MHD_YES;
    c->linger = 1; /* a refusal that does not wait for the body; the library closes after it */
    return queue(c, x);
}

static enum MHD_Result upload(struct qn_conn *c, struct qn_xchg *x, const char *p, size_t n) {
    if (x->resp || !x->ex) return MHD_YES; /* refused: the rest is dropped */
    qn_exchange_feed(x->ex, p, n);
    if (!x->resp) return MHD_YES;
    if (x->streamed) return MHD_NO;
    qn_reply_raw(c, x->id, x->status, "", x->body ? x->body : "", x->n_body); /* 413: nobody waits for the end of that */
    x->complete = 1;
    return MHD_NO;
}

enum MHD_Result qn_conn_request(struct qn_conn *c, const char *p, size_t *n, void **req_cls) {
    struct qn_xchg *x = *req_cls;
    if (c->gone) return MHD_NO;
    if (!x) return first_call(c, req_cls);
    if (*n) {
        size_t k = *n;
        *n = 0;
        return upload(c, x, p, k);
    }
    if (!x->ended) {
        x->ended = 1;
        if (x->ex && !x->resp) qn_exchange_end(x->ex);
    }
    if (x->resp && !x->kicked && qn_gate_more(&c->gate)) { /* a next request waits here: a resumed connection looks again */
        x->kicked = 1;
        qn_conn_suspend(c);
        qn_conn_resume(c);
        return MHD_YES;
    }
    if (x->resp) return queue(c, x);
    if (x->cancelled) return MHD_NO;
    if (c->state == QN_CS_BODY) go(c, QN_CS_WAIT);
    qn_conn_suspend(c);
    return MHD_YES;
}

/* ---- the end of a request ---- */

static void log_access(const struct qn_xchg *x, const struct qn_conn *c, int64_t now) {
    struct qn_exchange_facts f = { 0 };
    struct qn_log_line l;
    if (!qn_log_wants(QN_LOG_INFO) || !x->http->cfg->log_requests) return;
    if (x->ex) qn_exchange_facts(x->ex, &f);
    qn_log_begin(&l, QN_LOG_INFO, "request");
    qn_log_str(&l, "request_id", x->id);
    qn_log_str(&l, "method", x->method_text);
    qn_log_str(&l, "path", x->path);
    qn_log_int(&l, "status", x->status);
    if (f.route && *f.route) qn_log_str(&l, "route", f.route);
    if (f.finish && *f.finish) qn_log_str(&l, "finish", f.finish);
    if (f.prompt_tokens || f.output_tokens) {
        qn_log_int(&l, "prompt_tokens", f.prompt_tokens);
        qn_log_int(&l, "cached_tokens", f.cached_tokens);
        qn_log_int(&l, "output_tokens", f.output_tokens);
    }
    if (f.ttft_ns) qn_log_ms(&l, "ttft_ms", f.ttft_ns);
    qn_log_ms(&l, "e2e_ms", now - x->begin_ns);
    qn_log_int(&l, "bytes", (int64_t)(qn_reply_pulled(x) ? x->out_bytes : x->n_body));
    if (c->gone) qn_log_str(&l, "client", "gone");
    qn_log_end(&l);
}

void qn_conn_completed(struct qn_conn *c, void **req_cls, enum MHD_RequestTerminationCode how) {
    struct qn_xchg *x = *req_cls;
    *req_cls = NULL;
    if (!x || c->x != x) return;
    struct qn_http *h = c->at->http;
    int64_t now = qn_clock_ns();
    int whole = how == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    if (!whole && !x->cancelled) {
        x->cancelled = 1;
        if (x->ex) qn_exchange_cancel(x->ex);
    }
    if (!whole && !x->complete && (c->gone || !x->status) && !x->cut) {
        x->status = 499;
        h->metrics.gone++;
    }
    log_access(x, c, now);
    qn_metrics_observe(&h->metrics, x->status ? x->status : 500, now - x->begin_ns);
    h->metrics.out_bytes += qn_reply_pulled(x) ? x->out_bytes : x->n_body;
    h->metrics.active--;
    if (x->resp) MHD_destroy_response(x->resp);
    x->resp = NULL;
    free(x->body);
    x->body = NULL;
    x->conn = NULL;
    x->closing = 1;
    c->x = NULL;
    c->idle_ns = now;
    c->answered = 1;
    go(c, QN_CS_IDLE);
    qn_reply_release(x);
}

/* ---- the connection ---- */

/* gate.c found bytes that are no request of ours. */
static void on_refused(void *user, const struct qn_verdict *why) {
    struct qn_conn *c = user;
    c->at->http->metrics.refused++;
    qn_reply_refuse(c, why);
}

struct qn_conn *qn_conn_open(struct qn_listener *l, struct MHD_Connection *mhd, int fd) {
    struct qn_conn *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->at = l;
    c->mhd = mhd;
    c->fd = fd;
    c->opened_ns = c->idle_ns = qn_clock_ns();
    c->gate.limits = &l->http->limits;
    c->gate.refuse = on_refused;
    c->gate.user = c;
    if (qn_gate_open(&c->gate, fd) < 0) {
        free(c);
        return NULL;
    }
    struct qn_http *h = l->http;
    c->next = h->conns;
    if (h->conns) h->conns->prev = c;
    h->conns = c;
    h->metrics.connections++;
    if (++h->metrics.open > h->connections_max) {
        c->over = 1;
        h->metrics.over_limit++;
    }
    return c;
}

/* Bytes that the kernel holds for us: closing on them would send a reset. */
static int unread(int fd) {
    int n = 0;
    return ioctl(fd, FIONREAD, &n) == 0 && n > 0;
}

void qn_conn_close(struct qn_conn *c) {
    struct qn_http *h = c->at->http;
    h->metrics.in_bytes += c->gate.in_bytes;
    h->metrics.open--;
    if (!c->gone && (c->linger || unread(c->fd))) qn_linger_add(&h->linger, c->fd, qn_clock_ns());
    qn_gate_close(&c->gate);
    if (c->prev) c->prev->next = c->next;
    else h->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    free(c);
}

void qn_conn_gone(struct qn_conn *c) {
    if (c->gone) return;
    c->gone = 1;
    struct qn_xchg *x = c->x;
    if (x && !x->cancelled) {
        x->cancelled = 1;
        if (x->ex) qn_exchange_cancel(x->ex);
    }
    if (c->suspended) qn_conn_resume(c);
    else shutdown(c->fd, SHUT_RDWR); /* the library then sees the end, whatever it was doing */
}

static void too_late(struct qn_conn *c, const char *message) {
    const struct qn_verdict why = { 408, "timeout", message };
    c->at->http->metrics.timed_out++;
    if (message) qn_reply_refuse(c, &why);
    if (c->x) c->x->complete = 1; /* answered */
    qn_gate_break(&c->gate);
    shutdown(c->fd, SHUT_RDWR);
}

static void sweep_idle(struct qn_conn *c, const struct qn_config *cfg, int64_t now) {
    int64_t started = c->gate.since_ns ? c->gate.since_ns : c->answered ? 0 : c->opened_ns;
    if (c->gate.phase != QN_GATE_HEAD) return;
    if (started && now - started > cfg->head_s * QN_S) too_late(c, c->gate.n ? "The request's head did not arrive in time." : NULL);
    else if (!started && now - c->idle_ns > cfg->keep_alive_s * QN_S) shutdown(c->fd, SHUT_RDWR);
}

static void sweep_body(struct qn_conn *c, const struct qn_config *cfg, int64_t now) {
    int64_t t = now - c->gate.since_ns;
    if (c->gate.phase != QN_GATE_BODY && c->gate.phase != QN_GATE_CHUNKED) return;
    if (t > cfg->body_s * QN_S) too_late(c, "The request's body did not arrive in time.");
    else if (t > 5 * QN_S && c->gate.body_bytes < cfg->body_rate_min * (t / QN_MS) / 1000) too_late(c, "The request's body arrives too slowly.");
}

void qn_conn_sweep(struct qn_conn *c, int64_t now) {
    const struct qn_config *cfg = c->at->http->cfg;
    struct qn_xchg *x = c->x;
    if (c->state == QN_CS_IDLE) sweep_idle(c, cfg, now);
    else if (c->state == QN_CS_BODY) sweep_body(c, cfg, now);
    else if (c->state == QN_CS_REPLY && x) {
        if (x->progress_ns && !c->suspended && now - x->progress_ns > cfg->stall_s * QN_S) {
            c->at->http->metrics.stalled++;
            c->gone = 1;
            shutdown(c->fd, SHUT_RDWR);
        } else if (x->streamed && x->ex && !x->cut && now - x->tick_ns >= QN_S) {
            x->tick_ns = now;
            qn_exchange_tick(x->ex, now);
        }
    }
}

void qn_conn_cut(struct qn_conn *c) {
    struct qn_xchg *x = c->x;
    if (!x) {
        shutdown(c->fd, SHUT_RDWR);
        return;
    }
    x->cut = 1;
    if (!x->resp) qn_reply_error(x, 503, "draining", "The server is shutting down.");
    if (!x->cancelled) {
        x->cancelled = 1;
        if (x->ex) qn_exchange_cancel(x->ex);
    }
    if (c->state == QN_CS_BODY) shutdown(c->fd, SHUT_RDWR);
    qn_conn_resume(c);
}
