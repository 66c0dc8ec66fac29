/* Sockets whose last reply must not be lost: a close with unread bytes in the kernel sends a reset, and a reset can overtake
 * the reply. So after an early refusal the socket stays half open for a moment and what the client still sends is dropped
 * (the "lingering close" of every old web server). Bounded in number, bytes and time. Thread: loop. */
#ifndef QN_LINGER_H
#define QN_LINGER_H

#include <stdint.h>

enum { QN_LINGER_MAX = 128 };

struct qn_linger { struct { int fd; int64_t until_ns; int64_t bytes; } s[QN_LINGER_MAX]; int n; };

/* Keeps the connection behind fd open under a descriptor of its own; the caller closes fd as it likes. */
void qn_linger_add(struct qn_linger *l, int fd, int64_t now_ns);
/* Drops what came and closes what is over. Call it every few hundred milliseconds. */
void qn_linger_sweep(struct qn_linger *l, int64_t now_ns);
void qn_linger_done(struct qn_linger *l);

#endif
