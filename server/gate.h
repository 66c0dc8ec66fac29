/* The gate: every byte that libmicrohttpd reads from a client passes here first.
 *
 * libmicrohttpd (0.9.75) takes requests that two readers can read in two ways, and tells nobody. It reads sockets through
 * the C library's recv(), and a dynamically linked library finds the executable's definition first: so recv() is ours
 * (gate.c). For a descriptor with a gate it collects the head, judges it (head.h), and hands libmicrohttpd a canonical
 * head of our own making, then exactly that message's body with checked framing (chunk.h), and nothing of the next
 * message before the library asks again. A bad head or framing goes to `refuse` and the library sees a reset. No copy of
 * the connection, no extra system call, no thread; any other descriptor of the process goes straight to the kernel.
 *
 * The real request is lent by qn_gate_request during the library's first handler call. Thread: the one that called
 * qn_gate_init (the loop); other threads pass by. */
#ifndef QN_GATE_H
#define QN_GATE_H

#include <stddef.h>
#include <stdint.h>

#include "server/chunk.h"
#include "server/head.h"

enum qn_gate_phase { QN_GATE_HEAD, QN_GATE_BODY, QN_GATE_CHUNKED, QN_GATE_BROKEN };

struct qn_gate {
    int fd;
    enum qn_gate_phase phase;
    const struct qn_head_limits *limits;
    void (*refuse)(void *user, const struct qn_verdict *why); /* may write to fd; must not close it */
    void *user;
    char *held;             /* bytes read from the socket and not yet handed on: [at, at + n) */
    size_t at, n, cap, scanned;
    int64_t left;           /* BODY: bytes to come */
    struct qn_chunk chunk;
    int drained;            /* the last read emptied the socket */
    int64_t since_ns;       /* HEAD: its first byte (0: none yet); body: its start */
    int64_t body_bytes;     /* raw bytes of the body so far */
    uint64_t in_bytes, turn;
};

/* Makes the calling thread the loop thread and the table as large as the descriptors can become. Returns 0, QN_E_NOMEM, or
 * QN_E_UNSUPPORTED when recv() is not found here by other libraries (a static libmicrohttpd). */
int qn_gate_init(void);

/* g->limits, refuse and user are set by the caller. */
int qn_gate_open(struct qn_gate *g, int fd);
void qn_gate_close(struct qn_gate *g);
/* From now on the library reads a reset. */
void qn_gate_break(struct qn_gate *g);

/* The request whose canonical head the library just read, or NULL when there is none (then the library read past the
 * gate: refuse). Its strings may be used until the next recv of any gate. */
const struct qn_request *qn_gate_request(const struct qn_gate *g);
/* 1 when bytes of a next message may wait although the kernel will not say so again (edge-triggered epoll). */
int qn_gate_more(const struct qn_gate *g);

#endif
