/* One connection and the exchange on it: what libmicrohttpd's handler calls become, and the sink that api/ answers through.
 *
 *   IDLE ─first call─> BODY ─final call─> WAIT ─sink.reply─> REPLY ─completed─> IDLE
 *     │                 └──────── refused early ─────────────^                    any ─> CLOSED
 *
 * WAIT and a stream without news are libmicrohttpd's "suspended": nothing runs for the connection until somebody resumes
 * it. A client that leaves is noticed by http.c's second epoll whatever the state. Thread: loop. */
#ifndef QN_CONN_H
#define QN_CONN_H

#include <microhttpd.h>
#include <stdint.h>

#include "server/http.h"

enum qn_conn_state { QN_CS_IDLE, QN_CS_BODY, QN_CS_WAIT, QN_CS_REPLY, QN_CS_CLOSED, QN_CS_COUNT };

struct qn_xchg;

struct qn_conn {
    struct qn_conn *prev, *next;
    struct qn_listener *at;
    struct MHD_Connection *mhd;
    struct qn_gate gate;
    struct qn_xchg *x;      /* NULL in IDLE */
    enum qn_conn_state state;
    int fd;
    int64_t opened_ns, idle_ns;
    unsigned gone : 1, suspended : 1, linger : 1, over : 1, answered : 1;
};

/* NOTIFY_CONNECTION. open returns NULL when there is no memory (the connection then gets no answer). */
struct qn_conn *qn_conn_open(struct qn_listener *l, struct MHD_Connection *mhd, int fd);
void qn_conn_close(struct qn_conn *c);
/* MHD_AccessHandlerCallback and MHD_OPTION_NOTIFY_COMPLETED. */
enum MHD_Result qn_conn_request(struct qn_conn *c, const char *upload, size_t *n_upload, void **req_cls);
void qn_conn_completed(struct qn_conn *c, void **req_cls, enum MHD_RequestTerminationCode how);
/* The peer closed its side (or all of it). */
void qn_conn_gone(struct qn_conn *c);
/* Absolute deadlines, stalled readers, pings. */
void qn_conn_sweep(struct qn_conn *c, int64_t now_ns);
/* The daemon ends: an error event or a 503, then the end. */
void qn_conn_cut(struct qn_conn *c);
/* The library leaves the connection alone until it is resumed. */
void qn_conn_suspend(struct qn_conn *c);
void qn_conn_resume(struct qn_conn *c);

#endif
