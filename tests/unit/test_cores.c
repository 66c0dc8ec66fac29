/* Lists of cores, and what a control group's quota leaves: trees as the kernel's documentation has them (cgroup-v2.rst, "CPU
 * Interface Files"; sched-bwc.rst). */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cpu/cores.h"
#include "tests/run.h"

static void set_of(struct qn_cores *c, const char *list) {
    struct qn_err err = { 0 };
    if (qn_cores_open(c, list, &err) < 0) qn_test_fail(__FILE__, __LINE__, "%s: %s", list, err.text), qn_test_stop();
}

TEST(cores, none_given_are_those_of_the_process) {
    struct qn_cores a, b;
    cpu_set_t mine;
    EXPECT_EQ(sched_getaffinity(0, sizeof mine, &mine), 0);
    set_of(&a, NULL);
    set_of(&b, "");
    EXPECT(CPU_EQUAL(&a.set, &mine) && CPU_EQUAL(&b.set, &mine));
    EXPECT_EQ(a.n, CPU_COUNT(&mine));
}

TEST(cores, lists_name_numbers_and_ranges) {
    struct qn_cores c, all;
    char text[64];
    set_of(&all, NULL);
    int first = 0, last = CPU_SETSIZE - 1;
    while (!CPU_ISSET((size_t)first, &all.set)) first++;
    while (!CPU_ISSET((size_t)last, &all.set)) last--;
    snprintf(text, sizeof text, "%d", first);
    set_of(&c, text);
    EXPECT(c.n == 1 && CPU_ISSET((size_t)first, &c.set));
    snprintf(text, sizeof text, "%d,%d-%d,%d", first, first, first, first);
    set_of(&c, text);
    EXPECT_EQ(c.n, 1);
    snprintf(text, sizeof text, "%d-%d", first, last);
    if (all.n == last - first + 1) {
        set_of(&c, text);
        EXPECT(CPU_EQUAL(&c.set, &all.set));
    }
}

TEST(cores, what_is_no_list_or_no_core_of_ours_is_refused_with_its_place) {
    static const struct { const char *list, *says; } bad[] = {
        { "a", "offset 0" }, { "0,", "offset 2" }, { ",0", "offset 0" }, { "0-", "offset 2" }, { "-1", "offset 0" }, { "0 ", "offset 1" },
        { "0-0-0", "offset 3" }, { "1024", "at most 1023" }, { "99999999999999999999", "at most 1023" }, { "3-1", "backwards" }, { "1023", "core 1023" },
        { "0x1", "offset 1" }, { "+1", "offset 0" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct qn_cores c = { .n = -7 };
        struct qn_err err = { 0 };
        EXPECT_EQ(qn_cores_open(&c, bad[i].list, &err), QN_E_RANGE);
        if (!strstr(err.text, bad[i].says)) qn_test_fail(__FILE__, __LINE__, "'%s' says \"%s\", not \"%s\"", bad[i].list, err.text, bad[i].says);
        EXPECT_EQ(c.n, -7);
    }
}

static char root[64];

static void put(const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')); *s++ = '/') *s = 0, mkdir(full, 0700);
    FILE *f = fopen(full, "w");
    EXPECT(f != NULL);
    if (f) fputs(text, f), fclose(f);
}

static double quota_of(const char *const *files) {
    snprintf(root, sizeof root, "/tmp/quern-cores-XXXXXX");
    if (!mkdtemp(root)) return -1;
    for (; *files; files += 2) put(files[0], files[1]);
    double q = qn_cores_quota(root);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command) == 0 ? q : -1;
}

TEST(cores, the_tightest_quota_of_the_groups_above_counts) {
    static const struct { double want; const char *files[10]; } cases[] = {
        { 0, { "/proc/self/cgroup", "0::/\n" } },
        { 0, { "/proc/self/cgroup", "0::/\n", "/sys/fs/cgroup/cpu.max", "max 100000\n" } },
        { 2, { "/proc/self/cgroup", "0::/\n", "/sys/fs/cgroup/cpu.max", "200000 100000\n" } },
        { 1.5, { "/proc/self/cgroup", "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n", "/sys/fs/cgroup/a/cpu.max", "75000 50000\n" } },
        { 4, { "/proc/self/cgroup", "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n", "/sys/fs/cgroup/a/cpu.max", "max 100000\n" } },
        { 0.5, { "/proc/self/cgroup", "12:memory:/x\n4:cpu,cpuacct:/docker/f00\n0::/\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n",
                 "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n" } },
        { 0, { "/proc/self/cgroup", "4:cpu:/\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n" } },
        { 3, { "/proc/self/cgroup", "1:cpu:/g\n0::/g\n", "/sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "300000\n", "/sys/fs/cgroup/cpu/g/cpu.cfs_period_us",
               "100000\n", "/sys/fs/cgroup/unified/g/cpu.max", "max 100000\n" } },
        { 0, { "/proc/self/cgroup", "nothing of the kind\n:\n::\n" } },
        { 0, { "/proc/self/other", "" } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) EXPECT_NEAR(quota_of(cases[i].files), cases[i].want, 1e-9);
}

TEST(cores, threads_are_whole_cores_of_the_quota) {
    static const struct { int cores; double quota; int want; } cases[] = {
        { 64, 0, 64 }, { 64, 2, 2 }, { 64, 2.5, 2 }, { 64, 0.2, 1 }, { 2, 8, 2 }, { 1, 0, 1 }, { 4, 4, 4 }, { 4, 3.99, 3 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qn_cores c = { .n = cases[i].cores };
        EXPECT_EQ(qn_cores_threads(&c, cases[i].quota), cases[i].want);
    }
}
