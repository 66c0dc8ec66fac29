/* An exchange's answering side: its identity, the replies (whole, streamed, or written past libmicrohttpd when that cannot
 * send one any more), and the sink that api/ answers through. States and deadlines are conn.c's. Thread: loop. */
#ifndef QN_REPLY_H
#define QN_REPLY_H

#include "server/conn.h"

enum { QN_ID_MAX = 128, QN_PATH_SHOWN = 256, QN_ORIGIN_MAX = 256, QN_WHOLE_MAX = 32 * 1024 };

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
    char method_text[12], id[QN_ID_MAX + 1], path[QN_PATH_SHOWN + 1], origin[QN_ORIGIN_MAX + 1];
};

extern const struct qn_sink qn_reply_sink;

/* `wish` when it is [A-Za-z0-9._:-]{1,128}, else a new identity. */
void qn_reply_id(char out[QN_ID_MAX + 1], const char *wish);
/* The reply, once; a second one, or one that nobody waits for any more, is dropped. Takes `body`, copies the headers,
 * resumes the connection if it waits. */
void qn_reply_set(struct qn_xchg *x, int status, const struct qn_header *headers, int n_headers, char *body, size_t n_body, int streamed);
/* The same with the error object as its body. */
void qn_reply_error(struct qn_xchg *x, int status, const char *code, const char *message);
/* Writes the reply straight to the socket, after which the connection ends: for what libmicrohttpd cannot answer (no request
 * yet, or one whose body is not over). Nothing else is being sent on it at that moment. */
void qn_reply_raw(struct qn_conn *c, const char *id, int status, const char *extra_headers, const char *body, size_t n);
/* The same for a refusal; logged and counted here when there is no exchange to do that. */
void qn_reply_refuse(struct qn_conn *c, const struct qn_verdict *why);
/* The connection has let go of the exchange: it is freed now, or when the last offloaded work is back. */
void qn_reply_release(struct qn_xchg *x);
/* 1 while its body is read piece by piece, so that out_bytes counts it. */
int qn_reply_pulled(const struct qn_xchg *x);

#endif
