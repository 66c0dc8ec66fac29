/* The protocol from outside: bytes of a request in, bytes of a reply out. All that the server sees of api/.
 *
 * An EXCHANGE is one request and its reply. The server feeds it the body, the exchange answers once through the sink
 * (status, headers, and either the whole body or "read me"), and a streamed body is PULLED: the server calls
 * qn_exchange_read when its client can take more. When read has nothing the server waits for sink->ready. So the only
 * buffer of a slow reader is the engine's own bounded stream, and deltas merge by themselves.
 *
 *   begin ──> feed* ──> end ──> [offload] ──> sink.reply(whole)                      ──> close
 *        └─> sink.reply (refused early)  └──> sink.reply(streamed) ──> read* / ready ──> close
 *                                            cancel (any time: the client left, a deadline) ──> close
 *
 * Nothing here knows sockets, uv or libmicrohttpd. Thread: loop, but for the offloaded work. */
#ifndef QN_API_H
#define QN_API_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/engine.h"

struct qn_api;
struct qn_exchange;

struct qn_api_opts {
    struct qn_engine *engine;       /* borrowed */
    const char *model_name;         /* served name; NULL: the file's */
    const char *chat_template;      /* text; NULL: the model's own */
    const char *tool_format;        /* how tool calls are written; NULL, "auto": as the template says */
    size_t body_bytes_max;          /* 0: 8 MiB */
    int n_max;                      /* most branches of a request; 0: 16 */
    int64_t ping_ms;                /* comment line on a silent stream; 0: 15 s */
    const char *version;            /* "0.1.0" */
};

struct qn_header { const char *name, *value; };

struct qn_head {                    /* borrowed for the call of begin */
    const char *method;
    const char *target;             /* raw, as on the request line */
    const char *request_id;         /* chosen by the server, [A-Za-z0-9._:-]{1,128} */
    /* Value of a request header (any case), or NULL. Valid during begin only. */
    const char *(*header)(void *ctx, const char *name);
    void *header_ctx;
    int64_t content_length;         /* -1: unknown (chunked) */
};

struct qn_reply {
    int status;
    const struct qn_header *headers; /* n_headers; copied by the server during the call */
    int n_headers;
    char *body;                     /* whole reply: malloc'd, the server frees it; NULL: streamed, to be read */
    size_t n_body;
};

struct qn_sink {                    /* given by the server; called on the loop thread */
    /* Once per exchange. Content-Type and x-request-id are among the headers. */
    void (*reply)(void *ctx, const struct qn_reply *r);
    /* A streamed exchange has more to read. */
    void (*ready)(void *ctx);
    /* Runs work(arg) off the loop, then done(arg) on the loop. The exchange is not closed in between. */
    void (*offload)(void *ctx, void (*work)(void *arg), void (*done)(void *arg), void *arg);
};

/* The server's own counters and health as the api's handlers need them for /health, /metrics (appended to the text). */
struct qn_api_host {
    void *ctx;
    int (*draining)(void *ctx);
    void (*metrics)(void *ctx, struct qn_buf *out);
};

int qn_api_open(struct qn_api **out, const struct qn_api_opts *o, const struct qn_api_host *host, struct qn_err *err);
void qn_api_close(struct qn_api *a);

/* Routes by method and raw path. May call sink->reply before it returns (404, 405, 413, 415…); the server then still
 * calls close. NULL: no memory. */
struct qn_exchange *qn_api_begin(struct qn_api *a, const struct qn_head *head, const struct qn_sink *sink, void *sink_ctx);
/* Bytes of the body, any cut. Returns 0, or QN_E_LIMIT when the body is past the maximum (413 was replied). */
int qn_exchange_feed(struct qn_exchange *x, const char *p, size_t n);
/* The body is complete. The reply comes now or later. */
void qn_exchange_end(struct qn_exchange *x);

enum { QN_READ_WAIT = 0, QN_READ_END = -1, QN_READ_ABORT = -2 };
/* Up to max bytes (max >= 512) of the streamed body; QN_READ_WAIT: nothing now; END: complete; ABORT: cut the connection. */
long qn_exchange_read(struct qn_exchange *x, char *to, size_t max);
/* About once a second while streaming: lets it ping. now_ns: qn_clock_ns. */
void qn_exchange_tick(struct qn_exchange *x, int64_t now_ns);
/* The client is gone or too late: work stops within a step. The reply is not wanted any more. */
void qn_exchange_cancel(struct qn_exchange *x);
/* Frees it (after offloaded work has come back). No call to the sink after this. */
void qn_exchange_close(struct qn_exchange *x);

struct qn_exchange_facts {          /* for the log, valid until close */
    const char *route, *finish;     /* "chat", "stop" or the error's code; never text of the request */
    int prompt_tokens, cached_tokens, output_tokens;
    int64_t ttft_ns;                /* 0: no token */
};
void qn_exchange_facts(const struct qn_exchange *x, struct qn_exchange_facts *out);

/* {"error":{message,type,param,code}} as the server sends it for what it refuses itself. code: OpenAI's string. */
void qn_api_error_body(struct qn_buf *out, int status, const char *code, const char *param, const char *message);

#endif
