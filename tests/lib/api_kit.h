/* Drives one exchange as the server would and keeps what came of it. Header only, beside scripted_engine.h. */
#ifndef QN_API_KIT_H
#define QN_API_KIT_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/exchange.h"
#include "tests/lib/scripted_engine.h"

#define KIT __attribute__((unused)) static

struct got {
    int replies, status, streamed, readies, offloads;
    char headers[2048];
    struct qn_buf body; /* whole, or all that was read */
    long end;           /* QN_READ_END or _ABORT of a stream */
    struct qn_exchange *x;
    struct qn_exchange_facts facts;
};

struct ask {
    const char *method, *path, *body, *type;
    size_t n_body, feed, read_max; /* 0: all, 65536 */
    int defer;                     /* 1: keep offloaded work until the exchange is idle */
};

static void (*kit_done)(void *);
static void *kit_arg;

static void kit_reply(void *ctx, const struct qn_reply *r) {
    struct got *g = ctx;
    size_t n = 0;
    g->replies++;
    g->status = r->status;
    g->headers[0] = 0;
    for (int i = 0; i < r->n_headers && n < sizeof g->headers; i++)
        n += (size_t)snprintf(g->headers + n, sizeof g->headers - n, "%s: %s\n", r->headers[i].name, r->headers[i].value);
    if (r->body) qn_buf_put(&g->body, r->body, r->n_body);
    g->streamed = !r->body;
    free(r->body);
}
static void kit_ready(void *ctx) {
    ((struct got *)ctx)->readies++;
}
static void kit_offload(void *ctx, void (*work)(void *), void (*done)(void *), void *arg) {
    ((struct got *)ctx)->offloads++;
    work(arg);
    kit_done = done;
    kit_arg = arg;
}
static const struct qn_sink kit_sink = {kit_reply, kit_ready, kit_offload};

static const char *kit_header(void *ctx, const char *name) {
    const struct ask *a = ctx;
    if (!strcasecmp(name, "content-type")) return a->type;
    return NULL;
}

KIT struct qn_api *kit_open(struct qn_api_opts o) {
    struct qn_api *a = NULL;
    struct qn_err err = {0};
    o.engine = &script_engine;
    if (!o.version) o.version = "0.0.0";
    if (qn_api_open(&a, &o, NULL, &err) < 0) {
        printf("    api: %s\n", err.text);
        exit(1);
    }
    a->plain_ids = 1;
    return a;
}

static void kit_begin(struct got *g, struct qn_api *a, const struct ask *q) {
    struct qn_head head = {.method = q->method ? q->method : "POST",
                           .target = q->path,
                           .request_id = "req-1",
                           .header = kit_header,
                           .header_ctx = (void *)(uintptr_t)q,
                           .content_length = (int64_t)q->n_body};
    memset(g, 0, sizeof *g);
    qn_buf_init(&g->body, 64u << 20);
    g->x = qn_api_begin(a, &head, &kit_sink, g);
}

static void kit_feed(struct got *g, const struct ask *q) {
    size_t step = q->feed ? q->feed : q->n_body;
    for (size_t i = 0; i < q->n_body; i += step) {
        size_t n = q->n_body - i < step ? q->n_body - i : step;
        char *exact = malloc(n ? n : 1); /* so that ASan sees a read past it */
        memcpy(exact, q->body + i, n);
        int rc = qn_exchange_feed(g->x, exact, n);
        free(exact);
        if (rc < 0) break;
    }
    qn_exchange_end(g->x);
}

static void kit_read(struct got *g, size_t max) {
    char *to = malloc(max + 64);
    memset(to + max, 0x5A, 64);
    for (long n; (n = qn_exchange_read(g->x, to, max)) != QN_READ_WAIT;) {
        if (n < 0) {
            g->end = n;
            break;
        }
        qn_buf_put(&g->body, to, (size_t)n);
        for (int i = 0; i < 64; i++)
            if (to[max + (size_t)i] != 0x5A || (size_t)n > max) abort(); /* written past its end */
    }
    free(to);
}

/* Runs it to its end: polls until there is a whole reply or the stream has ended (a bounded number of times). */
KIT void kit_run(struct got *g, struct qn_api *a, const struct ask *q) {
    struct ask full = *q;
    if (!full.n_body && full.body) full.n_body = strlen(full.body);
    if (!full.type) full.type = "application/json";
    kit_begin(g, a, &full);
    kit_feed(g, &full);
    if (kit_done) {
        void (*done)(void *) = kit_done;
        kit_done = NULL;
        done(kit_arg);
    }
    for (int i = 0; i < 100000 && !(g->replies && !g->streamed) && !g->end; i++) {
        qn_engine_poll(&script_engine);
        if (g->replies && g->streamed) kit_read(g, full.read_max ? full.read_max : 65536);
    }
    qn_exchange_facts(g->x, &g->facts);
    qn_exchange_close(g->x);
    g->x = NULL;
}

KIT void kit_post(struct got *g, struct qn_api *a, const char *path, const char *body) {
    struct ask q = {.path = path, .body = body};
    kit_run(g, a, &q);
}

KIT void kit_done_with(struct got *g) {
    qn_buf_done(&g->body);
}

/* The data lines of an event stream, one after the other. Returns the next, NUL-terminated in a static buffer, or NULL. */
KIT const char *kit_event(const char **at) {
    static char *line;
    const char *p = *at, *end;
    while (p && *p == ':') p = strstr(p, "\n\n") ? strstr(p, "\n\n") + 2 : NULL;
    if (!p || strncmp(p, "data: ", 6) || !(end = strstr(p, "\n\n"))) return NULL;
    free(line);
    line = strndup(p + 6, (size_t)(end - p - 6));
    *at = end + 2;
    return line;
}

KIT void script_say(const char *text) {
    memset(&script, 0, sizeof script);
    script.text = text;
    script.n_text = strlen(text);
    script.reason = QN_FINISH_STOP;
    script.stop_index = -1;
    script.stop_id = SCRIPT_IM_END;
}

#endif
