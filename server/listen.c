/* Names are not resolved: an address in a configuration should mean one thing on every machine, and the daemon has no
 * business with DNS. localhost is the one exception, as 127.0.0.1. */
#include "server/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTEN_FDS_START = 3 };

static int parse_unix(struct qn_address *a, const char *path, struct qn_err *err) {
    struct sockaddr_un *u = (struct sockaddr_un *)&a->sa;
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof u->sun_path) return qn_fail(err, QN_E_RANGE, "unix:PATH takes 1 to %zu bytes", sizeof u->sun_path - 1);
    u->sun_family = AF_UNIX;
    memcpy(u->sun_path, path, n);
    a->sa_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (path[0] != '@'));
    if (path[0] == '@') u->sun_path[0] = 0;
    a->is_unix = 1;
    return 0;
}

static int loopback(const struct sockaddr *sa) {
    if (sa->sa_family == AF_INET) return (ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24) == 127;
    if (sa->sa_family != AF_INET6) return 1;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

int qn_address_parse(struct qn_address *a, const char *text, struct qn_err *err) {
    memset(a, 0, sizeof *a);
    if (strlen(text) >= sizeof a->text) return qn_fail(err, QN_E_RANGE, "an address of more than %zu bytes", sizeof a->text - 1);
    snprintf(a->text, sizeof a->text, "%s", text);
    if (!strncmp(text, "unix:", 5)) return parse_unix(a, text + 5, err);
    const char *colon = strrchr(text, ':');
    char host[64], *end;
    size_t n = colon ? (size_t)(colon - text) : 0;
    if (!colon || n >= sizeof host) return qn_fail(err, QN_E_RANGE, "\"%s\" is neither ADDR:PORT nor unix:PATH", text);
    memcpy(host, text, n);
    host[n] = 0;
    errno = 0;
    long port = strtol(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || port > 65535) return qn_fail(err, QN_E_RANGE, "\"%s\": the port must be 0 to 65535", text);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&a->sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->sa;
    const char *name = !strcmp(host, "localhost") ? "127.0.0.1" : !strcmp(host, "*") ? "0.0.0.0" : host;
    if (inet_pton(AF_INET, name, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        a->sa_len = sizeof *v4;
    } else {
        if (host[0] != '[' || n < 2 || host[n - 1] != ']') return qn_fail(err, QN_E_RANGE, "\"%s\": give an IPv4 address, an IPv6 address in [], or unix:PATH", text);
        host[n - 1] = 0;
        memset(&a->sa, 0, sizeof a->sa);
        if (inet_pton(AF_INET6, host + 1, &v6->sin6_addr) != 1) return qn_fail(err, QN_E_RANGE, "\"%s\": not an IPv6 address", text);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        a->sa_len = sizeof *v6;
    }
    a->is_public = !loopback((struct sockaddr *)&a->sa);
    return 0;
}

static void describe(struct qn_address *a) {
    char host[INET6_ADDRSTRLEN];
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->sa;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->sa;
    const struct sockaddr_un *u = (const struct sockaddr_un *)&a->sa;
    if (a->sa.ss_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host))
        snprintf(a->text, sizeof a->text, "%s:%d", host, ntohs(v4->sin_port));
    else if (a->sa.ss_family == AF_INET6 && inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host))
        snprintf(a->text, sizeof a->text, "[%s]:%d", host, ntohs(v6->sin6_port));
    else if (a->sa.ss_family == AF_UNIX) {
        size_t head = offsetof(struct sockaddr_un, sun_path), n = a->sa_len > head ? a->sa_len - head : 0;
        if (n && !u->sun_path[0]) snprintf(a->text, sizeof a->text, "unix:@%.*s", (int)n - 1, u->sun_path + 1);
        else snprintf(a->text, sizeof a->text, "unix:%.*s", (int)n, u->sun_path);
    }
}

/* A socket file that nobody serves may go; one that answers, or a file of another kind, may not. */
static int clear_stale(const struct qn_address *a, struct qn_err *err) {
    const char *path = ((const struct sockaddr_un *)&a->sa)->sun_path;
    struct stat st;
    if (!path[0] || lstat(path, &st)) return 0;
    if (!S_ISSOCK(st.st_mode)) return qn_fail(err, QN_E_IO, "%s: a file is in the way that is no socket", a->text);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int live = fd >= 0 && (!connect(fd, (const struct sockaddr *)&a->sa, a->sa_len) || errno == EAGAIN);
    if (fd >= 0) close(fd);
    if (live) return qn_fail(err, QN_E_IO, "%s: in use by another process", a->text);
    if (unlink(path) && errno != ENOENT) return qn_fail(err, QN_E_IO, "%s: a stale socket cannot be removed (%s)", a->text, strerror(errno));
    return 0;
}

static int why_not(const struct qn_address *a, struct qn_err *err) {
    const char *hint = errno == EADDRINUSE ? "the address is in use: another server runs there, or choose another with --listen"
                     : errno == EACCES ? "permission denied: ports below 1024 need CAP_NET_BIND_SERVICE"
                     : errno == EADDRNOTAVAIL ? "this machine has no such address" : strerror(errno);
    return qn_fail(err, QN_E_IO, "cannot listen on %s: %s", a->text, hint);
}

int qn_listen_open(struct qn_address *a, int unix_mode, struct qn_err *err) {
    if (a->is_unix && clear_stale(a, err) < 0) return QN_E_IO;
    int one = 1, fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return why_not(a, err);
    if (!a->is_unix) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->sa.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    const char *path = a->is_unix ? ((const struct sockaddr_un *)&a->sa)->sun_path : "";
    mode_t old = 0;
    if (*path) old = umask(0177); /* nobody slips in before the chmod */
    int rc = bind(fd, (const struct sockaddr *)&a->sa, a->sa_len);
    if (*path) umask(old);
    if (!rc && *path) rc = chmod(path, (mode_t)unix_mode);
    if (rc) {
        why_not(a, err);
        close(fd);
        return QN_E_IO;
    }
    socklen_t n = sizeof a->sa;
    if (!a->is_unix && !getsockname(fd, (struct sockaddr *)&a->sa, &n)) describe(a);
    return fd;
}

int qn_listen_inherited(int i, struct qn_address *a, struct qn_err *err) {
    const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    if (!count || !pid || strtol(pid, NULL, 10) != (long)getpid() || i >= strtol(count, NULL, 10) || i < 0) return QN_E_NOT_FOUND;
    int fd = LISTEN_FDS_START + i, listening = 0, type = 0;
    socklen_t n = sizeof listening;
    memset(a, 0, sizeof *a);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) || !listening || (n = sizeof type, getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n)) || type != SOCK_STREAM)
        return qn_fail(err, QN_E_UNSUPPORTED, "descriptor %d from LISTEN_FDS is no listening stream socket", fd);
    a->sa_len = sizeof a->sa;
    if (getsockname(fd, (struct sockaddr *)&a->sa, &a->sa_len)) return qn_fail(err, QN_E_IO, "descriptor %d from LISTEN_FDS: getsockname failed", fd);
    a->is_unix = a->sa.ss_family == AF_UNIX;
    a->is_public = !a->is_unix && !loopback((struct sockaddr *)&a->sa);
    describe(a);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

void qn_listen_inherited_done(void) {
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
}

void qn_listen_forget(const struct qn_address *a) {
    const char *path = ((const struct sockaddr_un *)&a->sa)->sun_path;
    if (a->is_unix && path[0]) unlink(path);
}
