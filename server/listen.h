/* Addresses to listen on, and the sockets of them: TCP, UNIX (path or abstract), or passed by systemd. No HTTP.
 * Thread: loop. */
#ifndef QN_LISTEN_H
#define QN_LISTEN_H

#include <sys/socket.h>

#include "engine/base/err.h"

struct qn_address {
    char text[128];         /* as it was written; for a socket that is open: as it became (a port of 0 is known then) */
    struct sockaddr_storage sa;
    socklen_t sa_len;
    int is_unix, is_public; /* neither: loopback */
};

/* "127.0.0.1:8080", "[::1]:8080", "localhost:8080", "*:8080", "unix:/run/quern.sock", "unix:@name". QN_E_RANGE. */
int qn_address_parse(struct qn_address *a, const char *text, struct qn_err *err);
/* A bound, non-blocking, close-on-exec socket; listen() is the caller's. A stale UNIX socket (nobody answers) is replaced, a live one is not.
 * Returns the descriptor, or QN_E_IO with the reason; a->text is brought up to date. */
int qn_listen_open(struct qn_address *a, int unix_mode, struct qn_err *err);
/* The socket systemd passed as number i (LISTEN_FDS, LISTEN_PID): its descriptor with *a filled, or QN_E_NOT_FOUND when there
 * are no more, or QN_E_UNSUPPORTED when it is no listening stream socket. */
int qn_listen_inherited(int i, struct qn_address *a, struct qn_err *err);
/* Takes those variables out of the environment: they are not meant for children. */
void qn_listen_inherited_done(void);
/* Removes the file of a UNIX socket that qn_listen_open made. */
void qn_listen_forget(const struct qn_address *a);

#endif
