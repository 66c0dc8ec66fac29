/* dup() is safe here: libmicrohttpd takes its own descriptor out of its epoll before it closes it, so no event can come for
 * the copy. When the table is full the oldest goes. */
#include "server/linger.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"

#define LINGER_NS (2 * QN_S)
enum { LINGER_BYTES_MAX = 16 * 1024 * 1024 };

static void drop(struct qn_linger *l, int i) {
    close(l->s[i].fd);
    l->n--;
    memmove(&l->s[i], &l->s[i + 1], sizeof l->s[0] * (size_t)(l->n - i));
}

/* 1 when it is over. */
static int discard(struct qn_linger *l, int i) {
    char waste[16384];
    for (int k = 0; k < 64; k++) {
        ssize_t r = recvfrom(l->s[i].fd, waste, sizeof waste, MSG_DONTWAIT, NULL, NULL);
        if (r == 0) return 1;
        if (r < 0) return 0; /* a reset ends at the deadline; it costs nothing */
        l->s[i].bytes += r;
    }
    return l->s[i].bytes > LINGER_BYTES_MAX;
}

void qn_linger_add(struct qn_linger *l, int fd, int64_t now_ns) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return;
    if (l->n == QN_LINGER_MAX) drop(l, 0);
    shutdown(copy, SHUT_WR);
    l->s[l->n].fd = copy;
    l->s[l->n].bytes = 0;
    l->s[l->n].until_ns = now_ns + LINGER_NS;
    l->n++;
    if (discard(l, l->n - 1)) drop(l, l->n - 1);
}

void qn_linger_sweep(struct qn_linger *l, int64_t now_ns) {
    for (int i = l->n - 1; i >= 0; i--)
        if (discard(l, i) || now_ns >= l->s[i].until_ns) drop(l, i);
}

void qn_linger_done(struct qn_linger *l) {
    while (l->n) drop(l, l->n - 1);
}
