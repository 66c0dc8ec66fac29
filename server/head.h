/* The head of an HTTP/1.x request, judged byte by byte: RFC 9110 and 9112 where they say MUST, and the refusal wherever
 * two programs on the way could read the same bytes differently (two lengths, a space before the colon, a bare LF…).
 *
 * Pure: bytes in, a request or a verdict out. No sockets, no clock, no routes. gate.c feeds it what a client sent and
 * shows libmicrohttpd only what qn_head_canonical writes. Thread: any. */
#ifndef QN_HEAD_H
#define QN_HEAD_H

#include <stddef.h>
#include <stdint.h>

enum { QN_HEAD_FIELDS_MAX = 256, QN_HEAD_CANONICAL_MAX = 160 };

struct qn_head_limits {
    size_t head_bytes;      /* request line and fields */
    size_t target_bytes;
    int fields;             /* <= QN_HEAD_FIELDS_MAX */
};

struct qn_verdict {         /* why a request is refused; all strings are constants */
    int status;             /* 0: it is not */
    const char *code;       /* OpenAI's string */
    const char *message;
};

struct qn_field { const char *name, *value; };

struct qn_request {         /* strings lie in the bytes given to qn_head_parse, NUL-terminated there */
    const char *method, *target;
    const char *host;       /* NULL: none (HTTP/1.0 only); an absolute target's authority equals it */
    const char *origin;     /* NULL: none */
    int minor;              /* HTTP/1.minor: 0 or 1 */
    int64_t content_length; /* -1: chunked; 0: no body */
    int chunked, keep_alive, expect_continue;
    int n_fields;
    struct qn_field field[QN_HEAD_FIELDS_MAX];
};

/* Looks for the end of a head in p[0..n). `from` is where an earlier call on a shorter prefix stopped (0 at first) and is
 * moved on. Returns the head's length with its empty line, 0 when more bytes are needed, or -1 with *why filled: these
 * bytes cannot become a head that we take, whatever follows. */
long qn_head_scan(const char *p, size_t n, size_t *from, const struct qn_head_limits *lim, struct qn_verdict *why);

/* Parses a whole head p[0..n) as found by qn_head_scan, in place (p is written to). Returns 0, or -1 with *why. */
int qn_head_parse(char *p, size_t n, const struct qn_head_limits *lim, struct qn_request *r, struct qn_verdict *why);

/* Value of the field `name` (any case), or NULL. */
const char *qn_head_field(const struct qn_request *r, const char *name);

/* The same request as libmicrohttpd is to see it: framing, Expect, Connection and nothing of the client's own bytes.
 * Returns the length, < QN_HEAD_CANONICAL_MAX. */
size_t qn_head_canonical(const struct qn_request *r, char out[QN_HEAD_CANONICAL_MAX]);

/* 1 when `host` is a valid uri-host with an optional port and no userinfo (RFC 9110 7.2). */
int qn_head_host_valid(const char *host);
/* 1 when host (its port aside) is localhost, 127.0.0.0/8 or [::1]: what a page of another site cannot be (DNS rebinding). */
int qn_head_host_local(const char *host);
/* 1 when host without its port equals `name`, any case. */
int qn_head_host_is(const char *host, const char *name);

#endif
