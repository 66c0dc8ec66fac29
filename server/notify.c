/* The protocol: newline-separated assignments in one datagram to an AF_UNIX socket whose name may be abstract (leading @).
 * A failed send is not an error of ours. */
#include "server/notify.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static struct { struct sockaddr_un to; socklen_t n; int fd; int64_t watchdog_ns; } manager = { .fd = -1 };

void qn_notify_setup(void) {
    const char *path = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    size_t n = path ? strlen(path) : 0;
    if (manager.fd >= 0) close(manager.fd);
    memset(&manager, 0, sizeof manager);
    manager.fd = -1;
    if (n > 1 && n < sizeof manager.to.sun_path && (path[0] == '/' || path[0] == '@')) {
        manager.to.sun_family = AF_UNIX;
        memcpy(manager.to.sun_path, path, n);
        if (path[0] == '@') manager.to.sun_path[0] = 0;
        manager.n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (usec && (!pid || strtol(pid, NULL, 10) == (long)getpid())) {
            long long us = strtoll(usec, NULL, 10);
            if (us > 0 && us < INT64_MAX / 1000) manager.watchdog_ns = us * 1000;
        }
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

int qn_notify_on(void) { return manager.fd >= 0; }

int64_t qn_notify_watchdog_ns(void) { return manager.watchdog_ns; }

static void tell(const char *text) {
    if (manager.fd < 0) return;
    (void)!sendto(manager.fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&manager.to, manager.n);
}

static void tell_status(const char *first, const char *status) {
    char text[512];
    snprintf(text, sizeof text, "%sSTATUS=%.400s", first, status);
    for (char *c = text + strlen(first); *c; c++)
        if (*c == '\n') *c = ' ';
    tell(text);
}

void qn_notify_ready(const char *status) { tell_status("READY=1\n", status); }

void qn_notify_reloading(void) {
    char text[96];
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* the manager compares it with its own clock */
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000);
    tell(text);
}

void qn_notify_stopping(void) { tell("STOPPING=1\nSTATUS=draining"); }
void qn_notify_status(const char *status) { tell_status("", status); }
void qn_notify_alive(void) { tell("WATCHDOG=1"); }
