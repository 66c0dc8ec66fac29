/* A scripted api and engine for the server alone: the same main, loop and connections as quernd, with no model. It serves
 *   GET  /health /readyz       200, or 503 while draining
 *   POST /echo                 the body as it came (above 64 KiB by way of the thread pool)
 *   POST /stream?n=&ms=&size=&pause=   n events of `size` bytes, one each ms milliseconds (0: as fast as they are taken)
 *   POST /late?ms=             a whole reply after ms; POST /never: none
 *   GET  /seen                 counters: exchanges begun, cancelled, closed, events sent, pings
 *   GET  /headers?name=        the value of a request header
 * One thread stands for the engine: each millisecond it wakes the loop when somebody waits. tests/http and the front end's
 * cost (events a second without a model) are measured with it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "engine/base/clock.h"

struct qn_engine {
    pthread_t thread;
    void (*wake)(void *);
    void *user;
    atomic_int waiting, stop, tick_us;
    struct qn_api *api;
};

struct qn_exchange {
    struct qn_exchange *prev, *next;
    struct qn_api *api;
    const struct qn_sink *sink;
    void *ctx;
    struct qn_buf body;
    char id[129];
    const char *route;
    long n, size, sent, ready;
    int64_t ms, due_ns, begun_ns;
    int kind, streaming, waiting, replied, cancelled, late_body, off;
};

struct qn_api {
    struct qn_engine *engine;
    struct qn_api_host host;
    struct qn_exchange *all;
    size_t body_max;
    long begun, cancelled, closed, events, pings;
};

enum { NONE, HEALTH, ECHO, STREAM, LATE, NEVER, SEEN, HEADERS, METRICS };

static const struct { const char *method, *path; int kind; } routes[] = {
    { "GET", "/health", HEALTH }, { "GET", "/readyz", HEALTH }, { "POST", "/echo", ECHO }, { "POST", "/stream", STREAM }, { "POST", "/late", LATE },
    { "POST", "/tokenize", ECHO }, { "POST", "/never", NEVER }, { "GET", "/seen", SEEN }, { "GET", "/headers", HEADERS }, { "GET", "/metrics", METRICS },
};

/* ---- the engine's side ---- */

static void *engine_thread(void *arg) {
    struct qn_engine *e = arg;
    while (!e->stop) {
        usleep((useconds_t)e->tick_us);
        if (e->waiting) e->wake(e->user);
    }
    return NULL;
}

int qn_engine_open(struct qn_engine **out, const struct qn_engine_opts *o, struct qn_err *err) {
    struct qn_engine *e = calloc(1, sizeof *e);
    (void)err;
    e->wake = o->wake;
    e->user = o->wake_user;
    e->tick_us = getenv("FAKE_TICK_US") ? atoi(getenv("FAKE_TICK_US")) : 1000;
    pthread_create(&e->thread, NULL, engine_thread, e);
    *out = e;
    return 0;
}

void qn_engine_close(struct qn_engine *e) {
    if (!e) return;
    e->stop = 1;
    pthread_join(e->thread, NULL);
    free(e);
}

const struct qn_engine_info *qn_engine_info(const struct qn_engine *e) {
    static const struct qn_engine_info i = { .model_name = "fake", .arch = "fake", .device = "none", .n_ctx = 1, .max_seqs = 1 };
    (void)e;
    return &i;
}

void qn_engine_stats(const struct qn_engine *e, struct qn_engine_stats *out) {
    memset(out, 0, sizeof *out);
    (void)e;
    if (getenv("FAKE_SICK")) out->busy_since_ns = 1;
}

void qn_engine_drain(struct qn_engine *e) { (void)e; }
const char *qn_engine_lost(const struct qn_engine *e) { return (void)e, NULL; }

/* ---- the api's side ---- */

static void reply(struct qn_exchange *x, int status, const char *type, char *body, size_t n) {
    struct qn_header h[4] = { { "Content-Type", type }, { "x-request-id", x->id }, { "Allow", "GET, POST" }, { 0 } };
    struct qn_reply r = { status, h, status == 405 ? 3 : 2, body, n };
    x->replied = 1;
    if (!body) {
        h[2] = (struct qn_header){ "Cache-Control", "no-cache" };
        r.n_headers = 3;
    }
    x->sink->reply(x->ctx, &r);
}

static void reply_buf(struct qn_exchange *x, const char *type, struct qn_buf *b) {
    size_t n;
    char *p = qn_buf_take(b, &n);
    reply(x, 200, type, p, n);
}

static void refuse(struct qn_exchange *x, int status, const char *code, const char *message) {
    struct qn_buf b;
    size_t n;
    qn_buf_init(&b, 4096);
    qn_api_error_body(&b, status, code, NULL, message);
    char *p = qn_buf_take(&b, &n);
    reply(x, status, "application/json", p, n);
}

void qn_engine_poll(struct qn_engine *e) {
    struct qn_api *a = e->api;
    int64_t now = qn_clock_ns();
    int waiting = 0;
    for (struct qn_exchange *x = a ? a->all : NULL, *next; x; x = next) {
        next = x->next;
        if (x->cancelled) continue;
        if (x->late_body && now >= x->due_ns && !x->replied) reply(x, 200, "application/json", strdup("{\"late\":true}"), 13);
        if (x->streaming && x->ms && x->ready < x->n && now >= x->due_ns) {
            x->ready++;
            x->due_ns += x->ms * QN_MS;
            if (x->waiting) {
                x->waiting = 0;
                x->sink->ready(x->ctx);
            }
        }
        waiting |= (x->late_body && !x->replied) || (x->streaming && x->ready < x->n);
    }
    e->waiting = waiting;
}

int qn_api_open(struct qn_api **out, const struct qn_api_opts *o, const struct qn_api_host *host, struct qn_err *err) {
    struct qn_api *a = calloc(1, sizeof *a);
    (void)err;
    a->engine = o->engine;
    a->host = *host;
    a->body_max = o->body_bytes_max;
    o->engine->api = a;
    *out = a;
    return 0;
}

void qn_api_close(struct qn_api *a) {
    if (a && a->all) fprintf(stderr, "LEAK: an exchange was not closed\n");
    if (a) a->engine->api = NULL;
    free(a);
}

static long query(const char *target, const char *name, long dflt) {
    char key[32];
    snprintf(key, sizeof key, "%s=", name);
    const char *q = strchr(target, '?'), *p = q ? strstr(q, key) : NULL;
    return p ? atol(p + strlen(key)) : dflt;
}

struct qn_exchange *qn_api_begin(struct qn_api *a, const struct qn_head *head, const struct qn_sink *sink, void *ctx) {
    struct qn_exchange *x = calloc(1, sizeof *x);
    size_t n = strcspn(head->target, "?");
    int path_known = 0;
    x->api = a;
    x->sink = sink;
    x->ctx = ctx;
    x->begun_ns = qn_clock_ns();
    a->begun++;
    snprintf(x->id, sizeof x->id, "%s", head->request_id);
    qn_buf_init(&x->body, a->body_max);
    x->next = a->all;
    if (a->all) a->all->prev = x;
    a->all = x;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strlen(routes[i].path) != n || strncmp(routes[i].path, head->target, n)) continue;
        path_known = 1;
        if (!strcmp(routes[i].method, head->method)) x->kind = routes[i].kind, x->route = routes[i].path + 1;
    }
    x->n = query(head->target, "n", 5);
    x->ms = query(head->target, "ms", 0);
    x->size = query(head->target, "size", 100);
    if (!path_known) refuse(x, 404, "not_found", "There is no such path.");
    else if (!x->kind) refuse(x, 405, "method_not_allowed", "Another method is needed.");
    else if (head->content_length > (int64_t)a->body_max) refuse(x, 413, "request_too_large", "The body is too large.");
    else if (x->kind == HEADERS) {
        const char *q = strstr(head->target, "name="), *v = q ? head->header(head->header_ctx, q + 5) : NULL;
        reply(x, 200, "text/plain", strdup(v ? v : "(none)"), strlen(v ? v : "(none)"));
    }
    return x;
}

int qn_exchange_feed(struct qn_exchange *x, const char *p, size_t n) {
    if (x->replied) return 0;
    qn_buf_put(&x->body, p, n);
    if (!x->body.failed) return 0;
    refuse(x, 413, "request_too_large", "The body is too large.");
    return QN_E_LIMIT;
}

static void echo(struct qn_exchange *x) {
    size_t n = x->body.n;
    char *p = qn_buf_take(&x->body, &n);
    reply(x, 200, "application/octet-stream", p ? p : strdup(""), p ? n : 0);
}

static void off_work(void *arg) { ((struct qn_exchange *)arg)->off = 1; }
static void off_done(void *arg) {
    struct qn_exchange *x = arg;
    if (!x->cancelled) echo(x);
}

void qn_exchange_end(struct qn_exchange *x) {
    struct qn_api *a = x->api;
    struct qn_buf b;
    qn_buf_init(&b, 65536);
    switch (x->kind) {
    case HEALTH:
        if (a->host.draining(a->host.ctx)) refuse(x, 503, "draining", "The server is shutting down.");
        else reply(x, 200, "application/json", strdup("{\"status\":\"ok\"}"), 15);
        break;
    case ECHO:
        if (x->body.n > 65536) x->sink->offload(x->ctx, off_work, off_done, x);
        else echo(x);
        break;
    case STREAM:
        x->streaming = 1;
        x->due_ns = qn_clock_ns();
        if (!x->ms) x->ready = x->n;
        a->engine->waiting = 1;
        reply(x, 200, "text/event-stream; charset=utf-8", NULL, 0);
        break;
    case LATE:
        x->late_body = 1;
        x->due_ns = qn_clock_ns() + x->ms * QN_MS;
        a->engine->waiting = 1;
        break;
    case SEEN:
        qn_buf_printf(&b, "{\"begun\":%ld,\"cancelled\":%ld,\"closed\":%ld,\"events\":%ld,\"pings\":%ld}", a->begun, a->cancelled, a->closed, a->events, a->pings);
        reply_buf(x, "application/json", &b);
        break;
    case METRICS:
        a->host.metrics(a->host.ctx, &b);
        reply_buf(x, "text/plain; version=0.0.4", &b);
        break;
    default:
        break;
    }
    qn_buf_done(&b);
}

long qn_exchange_read(struct qn_exchange *x, char *to, size_t max) {
    size_t at = 0;
    while (x->sent < x->ready) {
        int n = snprintf(NULL, 0, "data: %ld ", x->sent);
        size_t all = (size_t)n + (size_t)x->size + 2;
        if (at + all > max) break;
        sprintf(to + at, "data: %ld ", x->sent);
        memset(to + at + n, 'x', (size_t)x->size);
        memcpy(to + at + all - 2, "\n\n", 2);
        at += all;
        x->sent++;
        x->api->events++;
    }
    if (at) return (long)at;
    if (x->sent == x->n) {
        x->sent++;
        memcpy(to, "data: [DONE]\n\n", 14);
        return 14;
    }
    if (x->sent > x->n) return QN_READ_END;
    x->waiting = 1;
    return QN_READ_WAIT;
}

void qn_exchange_tick(struct qn_exchange *x, int64_t now_ns) {
    (void)now_ns;
    x->api->pings++;
}

void qn_exchange_cancel(struct qn_exchange *x) {
    x->cancelled = 1;
    x->api->cancelled++;
}

void qn_exchange_close(struct qn_exchange *x) {
    if (x->prev) x->prev->next = x->next;
    else x->api->all = x->next;
    if (x->next) x->next->prev = x->prev;
    x->api->closed++;
    qn_buf_done(&x->body);
    free(x);
}

void qn_exchange_facts(const struct qn_exchange *x, struct qn_exchange_facts *out) {
    memset(out, 0, sizeof *out);
    out->route = x->route;
    out->output_tokens = (int)x->sent;
}

void qn_api_error_body(struct qn_buf *out, int status, const char *code, const char *param, const char *message) {
    (void)param;
    qn_buf_printf(out, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}", message, status >= 500 ? "server_error" : "invalid_request_error", code);
}
