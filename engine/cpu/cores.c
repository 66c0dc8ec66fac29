/* Affinity through sched_setaffinity(2), which needs no privilege for threads of one's own; quotas of control groups, version 2
 * (cpu.max) and version 1 (cpu.cfs_quota_us). A container's view of its own group differs: with a namespace the path in
 * /proc/self/cgroup is "/", without one it names a folder that the container cannot see while the mounted root is
 * its own group. So the path is walked from the named folder up to the mount, and folders that do not exist are passed over. */
#include "engine/cpu/cores.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int parse(cpu_set_t *set, const char *list, struct qn_err *err) {
    CPU_ZERO(set);
    for (const char *p = list;;) {
        long v[2] = { 0, 0 };
        int n = 0;
        do {
            char *end;
            if (*p < '0' || *p > '9') return qn_fail(err, QN_E_RANGE, "affinity '%s', offset %d: a core's number is expected", list, (int)(p - list));
            errno = 0;
            v[n] = strtol(p, &end, 10);
            if (errno || v[n] >= CPU_SETSIZE)
                return qn_fail(err, QN_E_RANGE, "affinity '%s', offset %d: a core's number is at most %d", list, (int)(p - list), CPU_SETSIZE - 1);
            p = end;
        } while (++n < 2 && *p == '-' && p++);
        if (n == 1) v[1] = v[0];
        if (v[1] < v[0]) return qn_fail(err, QN_E_RANGE, "affinity '%s': the range %ld-%ld goes backwards", list, v[0], v[1]);
        for (long i = v[0]; i <= v[1]; i++) CPU_SET((size_t)i, set);
        if (!*p) return 0;
        if (*p != ',') return qn_fail(err, QN_E_RANGE, "affinity '%s', offset %d: a comma is expected", list, (int)(p - list));
        p++;
    }
}

int qn_cores_open(struct qn_cores *c, const char *list, struct qn_err *err) {
    struct qn_cores mine = { .n = 0 };
    CPU_ZERO(&mine.set);
    if (sched_getaffinity(0, sizeof mine.set, &mine.set) < 0 || CPU_COUNT(&mine.set) == 0) { /* over 1024 cores, or forbidden */
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        for (long i = 0; i < n && i < CPU_SETSIZE; i++) CPU_SET((size_t)i, &mine.set);
        if (n < 1) CPU_SET(0, &mine.set);
    }
    if (list && *list) {
        cpu_set_t want;
        int rc = parse(&want, list, err);
        if (rc < 0) return rc;
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET((size_t)i, &want) && !CPU_ISSET((size_t)i, &mine.set))
                return qn_fail(err, QN_E_RANGE, "affinity '%s': core %d does not exist or is not one that this process may use", list, i);
        mine.set = want;
    }
    mine.n = CPU_COUNT(&mine.set);
    *c = mine;
    return 0;
}

/* --- quotas --- */

static int read_text(const char *path, char *out, size_t size) {
    FILE *f = fopen(path, "re");
    if (!f) return -1;
    size_t n = fread(out, 1, size - 1, f);
    fclose(f);
    out[n] = 0;
    return (int)n;
}

static void tighten(double *least, double quota, double period) {
    if (quota > 0 && period > 0 && (*least == 0 || quota / period < *least)) *least = quota / period;
}

static void read_group(double *least, const char *dir) {
    char path[1200], text[128], more[64];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    if (read_text(path, text, sizeof text) > 0 && sscanf(text, "%lf %lf", &quota, &period) == 2) tighten(least, quota, period); /* "max": no number */
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (read_text(path, text, sizeof text) <= 0) return;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    if (read_text(path, more, sizeof more) > 0) tighten(least, strtod(text, NULL), strtod(more, NULL));
}

/* The group's folder and those above it, up to the mount. */
static void walk(double *least, const char *mount, const char *group) {
    char dir[1100];
    int base = snprintf(dir, sizeof dir, "%s", mount), n = snprintf(dir, sizeof dir, "%s%s", mount, group);
    if (n < 0 || (size_t)n >= sizeof dir) return;
    for (;;) {
        read_group(least, dir);
        char *slash = strrchr(dir, '/');
        if (!slash || slash - dir < base) return;
        *slash = 0;
    }
}

double qn_cores_quota(const char *root) {
    static const char *const mounts[2][3] = { { "cpu", "cpu,cpuacct", "cpuacct,cpu" }, { "", "unified", NULL } };
    char path[256], text[8192], mount[256];
    double least = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (read_text(path, text, sizeof text) <= 0) return 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) { /* number:controllers:path */
        char *what = strchr(line, ':'), *group = what ? strchr(what + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0, what++;
        int v2 = !*what, cpu = 0;
        char *rest = NULL;
        for (char *w = strtok_r(what, ",", &rest); w; w = strtok_r(NULL, ",", &rest)) cpu |= !strcmp(w, "cpu");
        if (!v2 && !cpu) continue;
        for (int i = 0; i < 3 && mounts[v2][i]; i++) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s%s", root, *mounts[v2][i] ? "/" : "", mounts[v2][i]);
            walk(&least, mount, group);
        }
    }
    return least;
}

/* Rounded down: a thread more than the quota pays for freezes all of them at the end of every period. */
int qn_cores_threads(const struct qn_cores *c, double quota) {
    if (quota > 0 && quota < c->n) return quota < 1 ? 1 : (int)quota;
    return c->n;
}

/* --- threads --- */

struct qn_cores_thread qn_cores_self(void) {
    struct qn_cores_thread t = { .tid = (pid_t)syscall(SYS_gettid) };
    if (pthread_getcpuclockid(pthread_self(), &t.clock) != 0) t.clock = CLOCK_MONOTONIC; /* always seems to run */
    return t;
}

int64_t qn_cores_ran_ns(struct qn_cores_thread t) {
    struct timespec ts = { 0, 0 };
    if (clock_gettime(t.clock, &ts) < 0) clock_gettime(CLOCK_MONOTONIC, &ts); /* unknown: seems to run */
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int qn_cores_allow(struct qn_cores_thread t, const struct qn_cores *c, int but) {
    cpu_set_t set = c->set;
    if (but >= 0 && but < CPU_SETSIZE) CPU_CLR((size_t)but, &set);
    return sched_setaffinity(t.tid, sizeof set, CPU_COUNT(&set) ? &set : &c->set);
}

int qn_cores_pin(struct qn_cores_thread t, int core) {
    cpu_set_t set;
    if (core < 0 || core >= CPU_SETSIZE) return -1;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    return sched_setaffinity(t.tid, sizeof set, &set);
}
