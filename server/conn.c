/* Rules of libmicrohttpd that the code below lives by (0.9.75):
 *  - a reply may be queued in the first or in the last handler call of a request, never between; from the first it
 *    closes the connection when a body was announced;
 *  - all of an upload must be taken at once (*n = 0);
 *  - a reader that returns 0 must have suspended, or the library spins;
 *  - resuming wakes nothing: mark the listener dirty and pump;
 *  - the handler is called again after a resume, with the same req_cls. */
#include "server/conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "engine/base/clock.h"
#include "engine/base/rng.h"
#include "server/log.h"

enum { ID_MAX = 128, PATH_SHOWN = 256, DRAIN_BYTES_MAX = 64 * 1024, WHOLE_MAX = 32 * 1024, READ_MIN = 512, ORIGIN_MAX = 256 };

struct qn_xchg {            /* one request and its reply; outlives its connection while offloaded work is out */
    struct qn_conn *conn;   /* NULL: the connection is gone or has gone on */
    struct qn_http *http;
    struct qn_exchange *ex; /* NULL: answered by the server itself */
    struct MHD_Response *resp;
    int status, streamed, queued, ended, kicked, complete, cut, cut_sent, offloads, closing, cancelled, minor;
    char *body;             /* of a whole reply; belongs to resp */
    size_t n_body, sent;
    int64_t begin_ns, reply_ns, progress_ns, tick_ns;
    uint64_t out_bytes;
    char method_text[12], id[ID_MAX + 1], path[PATH_SHOWN + 1], origin[ORIGIN_MAX + 1];
};

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

static void suspend(struct qn_conn *c) {
    c->suspended = 1;
    MHD_suspend_connection(c->mhd);
}

void qn_conn_resume(struct qn_conn *c) {
    if (!c->suspended) return;
    c->suspended = 0;
    MHD_resume_connection(c->mhd);
    c->at->dirty = 1;
}

/* ---- request identities ---- */

/* UUID version 7 (RFC 9562) as 32 hex digits: sorts by time, and needs no state. */
static void new_id(char out[ID_MAX + 1]) {
    static const char hex[] = "0123456789abcdef";
    unsigned char u[16];
    uint64_t ms = (uint64_t)(qn_clock_wall_ns() / QN_MS);
    if (qn_rng_bytes(u, sizeof u) < 0) memset(u, 0, sizeof u);
    for (int i = 0; i < 6; i++) u[i] = (unsigned char)(ms >> (40 - 8 * i));
    u[6] = (unsigned char)((u[6] & 0x0F) | 0x70);
    u[8] = (unsigned char)((u[8] & 0x3F) | 0x80);
    for (int i = 0; i < 16; i++) {
        out[2 * i] = hex[u[i] >> 4];
        out[2 * i + 1] = hex[u[i] & 15];
    }
    out[32] = 0;
}

static void choose_id(char out[ID_MAX + 1], const char *wish) {
    size_t n = wish ? strnlen(wish, ID_MAX + 1) : 0;
    if (n >= 1 && n <= ID_MAX && strspn(wish, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-") == n) memcpy(out, wish, n + 1);
    else new_id(out);
}

/* ---- replies ---- */

/* A reply the library has no part in, when it could not send one (no request yet, or amid a body): written to the socket in
 * one go, then the connection ends. Nothing else is being sent on it at that moment. */
static void send_raw(struct qn_conn *c, const char *id, int status, const char *extra, const char *body, size_t n) {
    char head[1024], date[40];
    time_t now = (time_t)(qn_clock_wall_ns() / QN_S);
    struct tm tm;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    int k = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nx-request-id: %s\r\n%sConnection: close\r\n\r\n",
                     status, MHD_get_reason_phrase_for((unsigned)status), date, n, id, extra);
    struct iovec v[2] = { { head, (size_t)k }, { (void *)(uintptr_t)body, n } };
    struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
    (void)!sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    c->linger = 1;
    qn_gate_break(&c->gate);
}

static void log_refusal(struct qn_conn *c, const char *id, const struct qn_verdict *why) {
    struct qn_log_line l;
    if (!qn_log_wants(QN_LOG_INFO) || !c->at->http->cfg->log_requests) return;
    qn_log_begin(&l, QN_LOG_INFO, "refused");
    qn_log_str(&l, "request_id", id);
    qn_log_int(&l, "status", why->status);
    qn_log_str(&l, "code", why->code);
    qn_log_str(&l, "message", why->message);
    qn_log_str(&l, "listener", c->at->addr.text);
    qn_log_end(&l);
}

static void refuse_raw(struct qn_conn *c, const struct qn_verdict *why) {
    struct qn_buf b;
    char id[ID_MAX + 1];
    if (c->x) memcpy(id, c->x->id, sizeof id);
    else new_id(id);
    qn_buf_init(&b, 8192);
    qn_api_error_body(&b, why->status, why->code, NULL, why->message);
    send_raw(c, id, why->status, why->status == 405 ? "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" : "", b.p ? b.p : "", b.n);
    if (c->x) c->x->status = why->status;
    else {
        log_refusal(c, id, why);
        qn_metrics_observe(&c->at->http->metrics, why->status, 0);
    }
    qn_buf_done(&b);
}

/* gate.c found bytes that are no request of ours. */
static void on_refused(void *user, const struct qn_verdict *why) {
    struct qn_conn *c = user;
    c->at->http->metrics.refused++;
    refuse_raw(c, why);
}

static ssize_t read_body(void *cls, uint64_t pos, char *to, size_t max) {
    struct qn_xchg *x = cls;
    if (!x->conn || pos > x->n_body) return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = x->n_body - (size_t)pos;
    if (n > max) n = max;
    memcpy(to, x->body + pos, n);
    x->progress_ns = qn_clock_ns();
    x->out_bytes = pos + n;
    return (ssize_t)n;
}

/* The stream is over before its time: the error as its last event. */
static ssize_t read_cut(struct qn_xchg *x, char *to, size_t max) {
    struct qn_buf b;
    if (x->cut_sent++) return MHD_CONTENT_READER_END_OF_STREAM;
    qn_buf_init(&b, 1024);
    qn_buf_puts(&b, "data: ");
    qn_api_error_body(&b, 503, "draining", NULL, "The server is shutting down.");
    qn_buf_puts(&b, "\n\n");
    ssize_t n = b.p && b.n <= max ? (ssize_t)b.n : 0;
    if (n) memcpy(to, b.p, (size_t)n);
    qn_buf_done(&b);
    return n ? n : MHD_CONTENT_READER_END_WITH_ERROR;
}

static ssize_t read_stream(void *cls, uint64_t pos, char *to, size_t max) {
    struct qn_xchg *x = cls;
    struct qn_conn *c = x->conn;
    (void)pos;
    if (!c || c->gone || max < READ_MIN) return MHD_CONTENT_READER_END_WITH_ERROR;
    if (x->cut) return read_cut(x, to, max);
    long n = qn_exchange_read(x->ex, to, max);
    if (n > 0) {
        x->progress_ns = qn_clock_ns();
        x->out_bytes += (uint64_t)n;
        return n;
    }
    if (n == QN_READ_WAIT) {
        x->progress_ns = 0; /* it is not the client we wait for */
        suspend(c);
        return 0;
    }
    return n == QN_READ_END ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static struct MHD_Response *make_response(struct qn_xchg *x) {
    if (x->streamed) return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, x->minor ? 1 : 4096, read_stream, x, NULL);
    if (x->n_body > WHOLE_MAX) return MHD_create_response_from_callback(x->n_body, WHOLE_MAX, read_body, x, NULL); /* so that its progress shows */
    return MHD_create_response_from_buffer_with_free_callback(x->n_body, x->body ? x->body : "", NULL);
}

/* Takes `body`. Headers are copied. */
static void set_reply(struct qn_xchg *x, int status, const struct qn_header *headers, int n_headers, char *body, size_t n_body, int streamed) {
    char ms[32];
    int has_id = 0;
    if (x->resp || x->cancelled || !x->conn) {
        free(body);
        return;
    }
    x->status = status;
    x->streamed = streamed;
    x->body = body;
    x->n_body = n_body;
    x->reply_ns = qn_clock_ns();
    if (!(x->resp = make_response(x))) { /* no memory for a reply: the handler then closes */
        x->cancelled = 1;
        if (x->ex) qn_exchange_cancel(x->ex);
        qn_conn_resume(x->conn);
        return;
    }
    for (int i = 0; i < n_headers; i++) {
        if (!strcasecmp(headers[i].name, "x-request-id")) has_id = 1;
        MHD_add_response_header(x->resp, headers[i].name, headers[i].value);
    }
    if (!has_id) MHD_add_response_header(x->resp, "x-request-id", x->id);
    snprintf(ms, sizeof ms, "%lld", (long long)((x->reply_ns - x->begin_ns) / QN_MS));
    MHD_add_response_header(x->resp, "openai-processing-ms", ms);
    if (*x->origin) {
        MHD_add_response_header(x->resp, "Access-Control-Allow-Origin", x->origin);
        MHD_add_response_header(x->resp, "Vary", "Origin");
    }
    if (x->http->draining || x->conn->over) MHD_add_response_header(x->resp, "Connection", "close");
    qn_conn_resume(x->conn);
}

static void set_error(struct qn_xchg *x, int status, const char *code, const char *message) {
    static const struct qn_header h[] = { { "Content-Type", "application/json" }, { "Retry-After", "1" } };
    struct qn_buf b;
    size_t n;
    qn_buf_init(&b, 8192);
    qn_api_error_body(&b, status, code, NULL, message);
    char *p = qn_buf_take(&b, &n);
    set_reply(x, status, h, status == 503 ? 2 : 1, p, n, 0);
}

/* ---- the sink ---- */

static void sink_reply(void *ctx, const struct qn_reply *r) {
    struct qn_xchg *x = ctx;
    set_reply(x, r->status, r->headers, r->n_headers, r->body, r->n_body, r->body == NULL);
}

static void sink_ready(void *ctx) {
    struct qn_xchg *x = ctx;
    if (!x->conn || !x->streamed) return;
    if (x->conn->suspended && x->conn->state == QN_CS_REPLY) {
        x->progress_ns = qn_clock_ns(); /* now it is the client's turn */
        qn_conn_resume(x->conn);
    }
}

struct offloaded { uv_work_t req; struct qn_xchg *x; void (*work)(void *), (*done)(void *); void *arg; };

static void release(struct qn_xchg *x) {
    if (x->offloads || !x->closing) return;
    if (x->ex) qn_exchange_close(x->ex);
    free(x);
}

static void off_work(uv_work_t *req) {
    struct offloaded *o = req->data;
    o->work(o->arg);
}

static void off_done(uv_work_t *req, int status) {
    struct offloaded *o = req->data;
    struct qn_xchg *x = o->x;
    struct qn_http *h = x->http;
    (void)status;
    o->done(o->arg);
    free(o);
    x->offloads--;
    h->n_offloads--;
    release(x);
    qn_http_pump(h);
}

static void sink_offload(void *ctx, void (*work)(void *), void (*done)(void *), void *arg) {
    struct qn_xchg *x = ctx;
    struct offloaded *o = malloc(sizeof *o);
    if (o) {
        *o = (struct offloaded){ .x = x, .work = work, .done = done, .arg = arg };
        o->req.data = o;
        x->offloads++;
        x->http->n_offloads++;
        if (uv_queue_work(x->http->loop, &o->req, off_work, off_done) == 0) return;
        x->offloads--;
        x->http->n_offloads--;
        free(o);
    }
    work(arg); /* late is better than never */
    done(arg);
}

static const struct qn_sink sink = { sink_reply, sink_ready, sink_offload };

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
    if (c->over) return set_error(x, 503, "overloaded", "The server has too many connections."), 1;
    if (!host_allowed(c, r)) return set_error(x, 403, "host_not_allowed", "The Host header names a server that this is not (server.hosts lists its names)."), 1;
    if (!origin_allowed(c, r)) return set_error(x, 403, "origin_not_allowed", "Pages of this origin may not call this server (server.origins)."), 1;
    if (r->origin && strlen(r->origin) <= ORIGIN_MAX) snprintf(x->origin, sizeof x->origin, "%s", r->origin);
    if (strcmp(r->method, "OPTIONS")) return 0;
    static const struct qn_header pre[] = { { "Access-Control-Allow-Methods", "GET, POST, DELETE" }, { "Access-Control-Allow-Headers", "*, Authorization" },
                                            { "Access-Control-Max-Age", "600" }, { "Allow", "GET, HEAD, POST, DELETE, OPTIONS" } };
    if (!strcmp(r->target, "*") || (r->origin && qn_head_field(r, "access-control-request-method"))) {
        set_reply(x, 204, r->origin ? pre : pre + 3, r->origin ? 4 : 1, NULL, 0, 0);
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
    choose_id(x->id, qn_head_field(r, "x-request-id"));
    c->x = x;
    go(c, QN_CS_BODY);
    h->metrics.active++;
    if (gatekeep(c, r, x)) return x;
    int head_only = !strcmp(r->method, "HEAD");
    struct qn_head head = { .method = head_only ? "GET" : r->method, .target = r->target, .request_id = x->id, .header = header_of,
                            .header_ctx = (void *)(uintptr_t)r, .content_length = r->content_length };
    x->ex = qn_api_begin(h->api, &head, &sink, x);
    if (!x->ex) set_error(x, 503, "overloaded", "The server is out of memory.");
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
    send_raw(c, x->id, x->status, "", x->body ? x->body : "", x->n_body); /* 413: nobody waits for the end of that */
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
        suspend(c);
        qn_conn_resume(c);
        return MHD_YES;
    }
    if (x->resp) return queue(c, x);
    if (x->cancelled) return MHD_NO;
    if (c->state == QN_CS_BODY) go(c, QN_CS_WAIT);
    suspend(c);
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
    if (f.route) qn_log_str(&l, "route", f.route);
    if (f.finish) qn_log_str(&l, "finish", f.finish);
    if (f.prompt_tokens || f.output_tokens) {
        qn_log_int(&l, "prompt_tokens", f.prompt_tokens);
        qn_log_int(&l, "cached_tokens", f.cached_tokens);
        qn_log_int(&l, "output_tokens", f.output_tokens);
    }
    if (f.ttft_ns) qn_log_ms(&l, "ttft_ms", f.ttft_ns);
    qn_log_ms(&l, "e2e_ms", now - x->begin_ns);
    qn_log_int(&l, "bytes", (int64_t)(x->streamed || x->n_body > WHOLE_MAX ? x->out_bytes : x->n_body));
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
    h->metrics.out_bytes += x->streamed || x->n_body > WHOLE_MAX ? x->out_bytes : x->n_body;
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
    release(x);
}

/* ---- the connection ---- */

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

void qn_conn_close(struct qn_conn *c) {
    struct qn_http *h = c->at->http;
    h->metrics.in_bytes += c->gate.in_bytes;
    h->metrics.open--;
    if (c->linger && !c->gone) qn_linger_add(&h->linger, c->fd, qn_clock_ns());
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
    if (message) refuse_raw(c, &why);
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
    if (!x->resp) set_error(x, 503, "draining", "The server is shutting down.");
    if (!x->cancelled) {
        x->cancelled = 1;
        if (x->ex) qn_exchange_cancel(x->ex);
    }
    if (c->state == QN_CS_BODY) shutdown(c->fd, SHUT_RDWR);
    qn_conn_resume(c);
}
