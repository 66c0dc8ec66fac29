/* The datagrams of sd_notify(3), received by the test. The daemon's use of them is in tests/http/test_service.py. */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/notify.h"
#include "tests/run.h"

static int manager;

static void serve_as(const char *name, int abstract) {
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    memcpy(a.sun_path, name, strlen(name));
    if (abstract) a.sun_path[0] = 0;
    manager = socket(AF_UNIX, SOCK_DGRAM, 0);
    ASSERT_EQ(bind(manager, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))), 0);
    setenv("NOTIFY_SOCKET", name, 1);
}

static const char *hears(void) {
    static char text[1024];
    ssize_t n = recv(manager, text, sizeof text - 1, MSG_DONTWAIT);
    text[n < 0 ? 0 : n] = 0;
    return text;
}

TEST(notify, says_what_systemd_reads) {
    char name[64];
    snprintf(name, sizeof name, "@quern-test-%d", (int)getpid());
    serve_as(name, 1);
    qn_notify_setup();
    EXPECT(qn_notify_on());
    EXPECT(getenv("NOTIFY_SOCKET") == NULL); /* children do not speak for us */
    qn_notify_ready("serving on x\nEXTRA=1");
    EXPECT_STR(hears(), "READY=1\nSTATUS=serving on x EXTRA=1");
    qn_notify_reloading();
    EXPECT(!strncmp(hears(), "RELOADING=1\nMONOTONIC_USEC=", 27));
    qn_notify_status("fine");
    EXPECT_STR(hears(), "STATUS=fine");
    qn_notify_alive();
    EXPECT_STR(hears(), "WATCHDOG=1");
    qn_notify_stopping();
    EXPECT(!strncmp(hears(), "STOPPING=1", 10));
}

TEST(notify, watchdog_is_for_us_only) {
    char name[64], pid[32];
    snprintf(name, sizeof name, "@quern-test-%d", (int)getpid());
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    serve_as(name, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    qn_notify_setup();
    EXPECT_EQ(qn_notify_watchdog_ns(), 3000000000LL);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    qn_notify_setup();
    EXPECT_EQ(qn_notify_watchdog_ns(), 0);
}

TEST(notify, without_a_manager_nothing_happens) {
    unsetenv("NOTIFY_SOCKET");
    qn_notify_setup();
    EXPECT(!qn_notify_on());
    qn_notify_ready("x");
    setenv("NOTIFY_SOCKET", "relative", 1);
    qn_notify_setup();
    EXPECT(!qn_notify_on());
    setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
    qn_notify_setup();
    qn_notify_ready("x"); /* nobody there: no error of ours */
}
