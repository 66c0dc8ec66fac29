/* What the service manager is told (sd_notify(3)), without libsystemd: readiness, reload, status, stopping, the watchdog.
 * No policy: the caller decides when. Does nothing where no manager asked. Thread: loop. */
#ifndef QN_NOTIFY_H
#define QN_NOTIFY_H

#include <stdint.h>

/* Reads NOTIFY_SOCKET and WATCHDOG_USEC once and takes them out of the environment. */
void qn_notify_setup(void);
/* 1 when somebody listens. */
int qn_notify_on(void);
/* Nanoseconds between two signs of life that the manager waits for at most; 0: it does not. Send them at half of it. */
int64_t qn_notify_watchdog_ns(void);

void qn_notify_ready(const char *status);
void qn_notify_reloading(void);     /* then qn_notify_ready when done */
void qn_notify_stopping(void);
void qn_notify_status(const char *status);
void qn_notify_alive(void);

#endif
