/* How libmicrohttpd drives this: it calls recv() when its epoll (edge-triggered) said the socket is readable, and takes a
 * short count as "empty until the next edge" (connection.c, recv_param_adapter). So a short count is only given when the
 * socket is empty or the message ends; for the second case qn_gate_more tells conn.c to let the library look again. The
 * library runs the request's first handler call right after the recv that completed its head, before any other recv, so
 * one parsed request a thread is enough. */
#include "server/gate.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "engine/base/clock.h"
#include "engine/base/err.h"

enum { READ_BYTES = 16 * 1024, KEEP_ROUND = 512, FDS_MAX = 1 << 20 };

static struct {
    struct qn_gate **by_fd;
    size_t n_fds;
    struct qn_request request;
    char *bytes;            /* the request's own, room for the largest head */
    size_t bytes_cap;
    uint64_t turn;          /* counts parsed heads; a gate remembers its own */
} all_gates;
static _Thread_local int on_loop_thread;

/* Unbuffered, past our own recv. */
static ssize_t kernel_recv(int fd, void *buf, size_t n, int flags) { return recvfrom(fd, buf, n, flags, NULL, NULL); }

int qn_gate_init(void) {
    struct rlimit lim;
    size_t n = 1024;
    if (!getrlimit(RLIMIT_NOFILE, &lim)) n = lim.rlim_max > FDS_MAX ? FDS_MAX : (size_t)lim.rlim_max;
    if (!all_gates.by_fd) {
        all_gates.by_fd = calloc(n, sizeof *all_gates.by_fd);
        all_gates.n_fds = n;
    }
    if (!all_gates.by_fd) return QN_E_NOMEM;
    on_loop_thread = 1;
    return dlsym(RTLD_DEFAULT, "recv") == (void *)recv ? 0 : QN_E_UNSUPPORTED;
}

int qn_gate_open(struct qn_gate *g, int fd) {
    g->fd = fd;
    g->phase = QN_GATE_HEAD;
    g->since_ns = 0;
    if (fd < 0 || (size_t)fd >= all_gates.n_fds) return QN_E_FULL;
    if (all_gates.bytes_cap < g->limits->head_bytes + 1) {
        char *p = realloc(all_gates.bytes, g->limits->head_bytes + 1);
        if (!p) return QN_E_NOMEM;
        all_gates.bytes = p;
        all_gates.bytes_cap = g->limits->head_bytes + 1;
    }
    all_gates.by_fd[fd] = g;
    return 0;
}

void qn_gate_close(struct qn_gate *g) {
    if (g->fd >= 0 && (size_t)g->fd < all_gates.n_fds && all_gates.by_fd[g->fd] == g) all_gates.by_fd[g->fd] = NULL;
    free(g->held);
    g->held = NULL;
    g->n = g->at = g->cap = 0;
}

void qn_gate_break(struct qn_gate *g) { g->phase = QN_GATE_BROKEN; }

const struct qn_request *qn_gate_request(const struct qn_gate *g) {
    return g->turn && g->turn == all_gates.turn ? &all_gates.request : NULL;
}

int qn_gate_more(const struct qn_gate *g) { return g->phase == QN_GATE_HEAD && (g->n > 0 || !g->drained); }

static ssize_t reset(struct qn_gate *g) {
    g->phase = QN_GATE_BROKEN;
    errno = ECONNRESET;
    return -1;
}

static ssize_t refused(struct qn_gate *g, const struct qn_verdict *why) {
    g->phase = QN_GATE_BROKEN;
    g->refuse(g->user, why);
    return reset(g);
}

static ssize_t from_socket(struct qn_gate *g, void *buf, size_t n) {
    ssize_t r = kernel_recv(g->fd, buf, n, MSG_DONTWAIT);
    g->drained = r < (ssize_t)n;
    if (r > 0) g->in_bytes += (uint64_t)r;
    return r;
}

/* Reads behind what is held. */
static ssize_t fill(struct qn_gate *g) {
    if (g->at) {
        memmove(g->held, g->held + g->at, g->n);
        g->at = 0;
    }
    if (g->cap - g->n < READ_BYTES) {
        char *p = realloc(g->held, g->n + READ_BYTES);
        if (!p) return reset(g);
        g->held = p;
        g->cap = g->n + READ_BYTES;
    }
    ssize_t r = from_socket(g, g->held + g->n, g->cap - g->n);
    if (r > 0) g->n += (size_t)r;
    return r;
}

/* Gives memory back: none while nothing is held, little while a head trickles in. */
static void settle(struct qn_gate *g) {
    if (g->n == 0) {
        free(g->held);
        g->held = NULL;
        g->at = g->cap = 0;
    } else if (g->cap - g->n > 2 * KEEP_ROUND && g->at == 0) {
        size_t want = (g->n + KEEP_ROUND) / KEEP_ROUND * KEEP_ROUND;
        char *p = realloc(g->held, want);
        if (p) {
            g->held = p;
            g->cap = want;
        }
    }
}

static size_t take(struct qn_gate *g, char *out, size_t n) {
    if (n > g->n) n = g->n;
    if (n) memcpy(out, g->held + g->at, n);
    g->at += n;
    g->n -= n;
    return n;
}

/* The next head, whole and good: its canonical form goes to out. Else what recv is to return (0, -1). */
static ssize_t next_head(struct qn_gate *g, char *out, size_t n) {
    struct qn_verdict why = { 0 };
    long len;
    while (g->n == 0 || (len = qn_head_scan(g->held + g->at, g->n, &g->scanned, g->limits, &why)) == 0) {
        ssize_t r = fill(g);
        if (r <= 0) return r;
        if (!g->since_ns) g->since_ns = qn_clock_ns();
    }
    if (len < 0) return refused(g, &why);
    take(g, all_gates.bytes, (size_t)len);
    g->scanned = 0;
    g->turn = ++all_gates.turn;
    struct qn_request *r = &all_gates.request;
    if (qn_head_parse(all_gates.bytes, (size_t)len, g->limits, r, &why) < 0) return refused(g, &why);
    if (n < QN_HEAD_CANONICAL_MAX) return reset(g); /* the library's buffer is never that small */
    if (r->content_length) {
        g->phase = r->chunked ? QN_GATE_CHUNKED : QN_GATE_BODY;
        g->left = r->content_length;
        qn_chunk_init(&g->chunk);
        g->body_bytes = 0;
        g->since_ns = qn_clock_ns();
    } else {
        g->since_ns = 0;
    }
    return (ssize_t)qn_head_canonical(r, out);
}

static void end_message(struct qn_gate *g) {
    g->phase = QN_GATE_HEAD;
    g->since_ns = g->n ? qn_clock_ns() : 0;
}

/* Some of the body into out[0..n): > 0, or what recv is to return. */
static ssize_t next_body(struct qn_gate *g, char *out, size_t n) {
    if (g->phase == QN_GATE_BODY && (int64_t)n > g->left) n = (size_t)g->left;
    ssize_t r = g->n ? (ssize_t)take(g, out, n) : from_socket(g, out, n);
    if (r <= 0) return r;
    g->body_bytes += r;
    if (g->phase == QN_GATE_BODY) {
        g->left -= r;
        if (!g->left) end_message(g);
        return r;
    }
    size_t used = (size_t)r, made = 0;
    int rc = qn_chunk_pass(&g->chunk, out, &used, out, &made);
    if (rc == QN_CHUNK_BAD) {
        static const struct qn_verdict why = { 400, "invalid_request", "The body's chunked framing is malformed." };
        return refused(g, &why);
    }
    if (rc != QN_CHUNK_END) return made ? (ssize_t)made : -2; /* -2: only framing was read, go on */
    size_t over = (size_t)r - used;
    if (over) { /* what follows belongs to the next message: back to the front of what is held. In place it may lie */
        char *p = malloc(over + g->n); /* where the output went, but `made` <= `used` keeps it whole */
        if (!p) return reset(g);
        memcpy(p, out + used, over);
        if (g->n) memcpy(p + over, g->held + g->at, g->n);
        free(g->held);
        g->held = p;
        g->at = 0;
        g->cap = g->n += over;
    }
    end_message(g);
    return (ssize_t)made;
}

static ssize_t pass(struct qn_gate *g, char *out, size_t n) {
    size_t o = 0;
    ssize_t r = 0;
    if (g->phase == QN_GATE_HEAD) {
        r = next_head(g, out, n);
        if (r <= 0) return r;
        o = (size_t)r;
    }
    while (o < n && (g->phase == QN_GATE_BODY || g->phase == QN_GATE_CHUNKED)) {
        r = next_body(g, out + o, n - o);
        if (r == -2) continue;
        if (r <= 0) break;
        o += (size_t)r;
    }
    if (g->phase == QN_GATE_BROKEN) return reset(g);
    return o ? (ssize_t)o : r;
}

/* The C library's recv() for everything in this process that is linked dynamically. */
ssize_t recv(int fd, void *buf, size_t n, int flags) {
    if (!on_loop_thread || fd < 0 || (size_t)fd >= all_gates.n_fds || !all_gates.by_fd[fd]) return kernel_recv(fd, buf, n, flags);
    struct qn_gate *g = all_gates.by_fd[fd];
    ssize_t r = pass(g, buf, n);
    int e = errno;
    settle(g);
    errno = e;
    return r;
}
