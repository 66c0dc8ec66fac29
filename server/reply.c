/* Why three ways to answer: libmicrohttpd takes a whole reply or pulls a streamed one, but only for a request whose end it
 * has seen (or as the very first answer to its head); a bad head, a body past its limit or past its time is answered by
 * one sendmsg() of our own and the end of the connection. Long whole bodies are pulled as well, so that a reader's
 * progress shows. */
#include "server/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "engine/base/clock.h"
#include "engine/base/rng.h"
#include "server/log.h"

enum { READ_MIN = 512, BLOCK_1_0 = 4096 };

/* ---- request identities ---- */

/* UUID version 7 (RFC 9562) as 32 hex digits: sorts by time, and needs no state. */
static void new_id(char out[QN_ID_MAX + 1]) {
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

void qn_reply_id(char out[QN_ID_MAX + 1], const char *wish) {
    size_t n = wish ? strnlen(wish, QN_ID_MAX + 1) : 0;
    if (n >= 1 && n <= QN_ID_MAX && strspn(wish, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-") == n) memcpy(out, wish, n + 1);
    else new_id(out);
}

/* ---- replies ---- */

void qn_reply_raw(struct qn_conn *c, const char *id, int status, const char *extra, const char *body, size_t n) {
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

void qn_reply_refuse(struct qn_conn *c, const struct qn_verdict *why) {
    struct qn_buf b;
    char id[QN_ID_MAX + 1];
    if (c->x) memcpy(id, c->x->id, sizeof id);
    else new_id(id);
    qn_buf_init(&b, 8192);
    qn_api_error_body(&b, why->status, why->code, NULL, why->message);
    qn_reply_raw(c, id, why->status, why->status == 405 ? "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" : "", b.p ? b.p : "", b.n);
    if (c->x) c->x->status = why->status;
    else {
        log_refusal(c, id, why);
        qn_metrics_observe(&c->at->http->metrics, why->status, 0);
    }
    qn_buf_done(&b);
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
        qn_conn_suspend(c);
        return 0;
    }
    return n == QN_READ_END ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

int qn_reply_pulled(const struct qn_xchg *x) { return x->streamed || x->n_body > QN_WHOLE_MAX; }

static struct MHD_Response *make_response(struct qn_xchg *x) {
    if (x->streamed) return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, x->minor ? 1 : BLOCK_1_0, read_stream, x, NULL);
    if (qn_reply_pulled(x)) return MHD_create_response_from_callback(x->n_body, QN_WHOLE_MAX, read_body, x, NULL); /* so that its progress shows */
    return MHD_create_response_from_buffer_with_free_callback(x->n_body, x->body ? x->body : "", NULL);
}

void qn_reply_set(struct qn_xchg *x, int status, const struct qn_header *headers, int n_headers, char *body, size_t n_body, int streamed) {
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

void qn_reply_error(struct qn_xchg *x, int status, const char *code, const char *message) {
    static const struct qn_header h[] = { { "Content-Type", "application/json" }, { "Retry-After", "1" } };
    struct qn_buf b;
    size_t n;
    qn_buf_init(&b, 8192);
    qn_api_error_body(&b, status, code, NULL, message);
    char *p = qn_buf_take(&b, &n);
    qn_reply_set(x, status, h, status == 503 ? 2 : 1, p, n, 0);
}

/* ---- the sink ---- */

static void sink_reply(void *ctx, const struct qn_reply *r) {
    struct qn_xchg *x = ctx;
    qn_reply_set(x, r->status, r->headers, r->n_headers, r->body, r->n_body, r->body == NULL);
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

void qn_reply_release(struct qn_xchg *x) {
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
    qn_reply_release(x);
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

const struct qn_sink qn_reply_sink = { sink_reply, sink_ready, sink_offload };
