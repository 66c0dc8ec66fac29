/* Forks for each test, so that a crash, a leak of state or a hang costs that test alone. Output protocol, read by
 * drive.py: `ok NAME ms`, `FAIL NAME why`, `skip NAME why`, one line a test; a test's own output comes before its line. */
#include "tests/run.h"

#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TESTS_MAX = 4096, SHOWN_MAX = 20, EXIT_SKIPPED = 77 };

static struct {
    const char *module, *name;
    qn_test_fn fn;
    int seconds;
} tests[TESTS_MAX];
static int n_tests, n_failed_checks;

void qn_test_add(const char *module, const char *name, qn_test_fn fn, int seconds) {
    if (n_tests == TESTS_MAX) abort();
    tests[n_tests].module = module;
    tests[n_tests].name = name;
    tests[n_tests].fn = fn;
    tests[n_tests++].seconds = seconds;
}

int qn_test_fail(const char *file, int line, const char *fmt, ...) {
    if (n_failed_checks++ < SHOWN_MAX) {
        va_list ap;
        va_start(ap, fmt);
        fprintf(stdout, "    %s:%d: ", file, line);
        vfprintf(stdout, fmt, ap);
        fputc('\n', stdout);
        va_end(ap);
    }
    return 1;
}

void qn_test_stop(void) {
    fflush(stdout);
    _exit(1);
}

void qn_test_skip(const char *why) {
    fprintf(stdout, "    skipped: %s\n", why);
    fflush(stdout);
    _exit(EXIT_SKIPPED);
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Returns 1 when the test failed. QN_TEST_SLOW=n stretches deadlines, for runs under something that interprets. */
static int run_one(int i) {
    const char *slow = getenv("QN_TEST_SLOW");
    unsigned times = slow && *slow >= '1' && *slow <= '9' ? (unsigned)(*slow - '0') : 1;
    double t0 = now_ms();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        alarm((unsigned)tests[i].seconds * times);
        tests[i].fn();
        fflush(stdout);
        exit(n_failed_checks ? 1 : 0); /* exit, not _exit: LeakSanitizer looks here */
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) status = -1;
    if (pid > 0) kill(-pid, SIGKILL); /* whatever it left running */
    const char *m = tests[i].module, *n = tests[i].name;
    if (status == 0) printf("ok %s/%s %.0f\n", m, n, now_ms() - t0);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) printf("skip %s/%s\n", m, n);
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) printf("FAIL %s/%s not done within %d s\n", m, n, tests[i].seconds);
    else if (WIFSIGNALED(status)) printf("FAIL %s/%s signal %d (%s)\n", m, n, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else printf("FAIL %s/%s exit %d\n", m, n, WEXITSTATUS(status));
    fflush(stdout);
    return status != 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED);
}

static int wanted(int i, int argc, char **argv) {
    char full[256];
    snprintf(full, sizeof full, "%s/%s", tests[i].module, tests[i].name);
    if (argc == 1) return 1;
    for (int a = 1; a < argc; a++)
        if (!strncmp(full, argv[a], strlen(argv[a]))) return 1;
    return 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    if (argc == 2 && !strcmp(argv[1], "--list")) {
        for (int i = 0; i < n_tests; i++) printf("%s/%s\n", tests[i].module, tests[i].name);
        return 0;
    }
    for (int i = 0; i < n_tests; i++)
        if (wanted(i, argc, argv)) failed += run_one(i);
    return failed > 0;
}
