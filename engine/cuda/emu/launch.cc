/* Settings, reports, and the launch of a kernel: blocks shared out over OS threads, each of which runs one block after the other.
 *
 * Helpers are started once and sleep between launches; a fork's child starts its own. Launches never overlap: a host that calls from
 * several threads takes turns. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "engine/cuda/emu/block.h"
#include "engine/cuda/emu/testing.h"

static emu_settings settings;
static pthread_once_t settings_once = PTHREAD_ONCE_INIT;

static void set_order(const char *v) {
    if (!strcmp(v, "forward")) settings.order = ORDER_FORWARD;
    else if (!strcmp(v, "reverse")) settings.order = ORDER_REVERSE;
    else if (!strncmp(v, "random:", 7)) settings.order = ORDER_RANDOM, settings.seed = strtoull(v + 7, nullptr, 10);
    else fprintf(stderr, "cuda emulator: order '%s': forward, reverse or random:SEED\n", v), abort();
}
static bool second_of(const char *v, const char *first, const char *second) {
    if (strcmp(v, first) && strcmp(v, second)) fprintf(stderr, "cuda emulator: '%s': %s or %s\n", v, first, second), abort();
    return !strcmp(v, second);
}
static int cores() {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < EMU_WORKERS_MAX ? n : EMU_WORKERS_MAX;
}
static void forget_pool();
static void read_settings() {
    const char *v;
    settings.threads = cores();
    settings.memory = (size_t)2048 << 20;
    if ((v = getenv("QN_EMU_ORDER"))) set_order(v);
    if ((v = getenv("QN_EMU_STREAMS"))) settings.lazy_streams = second_of(v, "eager", "lazy");
    if ((v = getenv("QN_EMU_CP_ASYNC"))) settings.late_copies = second_of(v, "now", "late");
    if ((v = getenv("QN_EMU_THREADS")) && atoi(v) > 0) settings.threads = atoi(v) < EMU_WORKERS_MAX ? atoi(v) : EMU_WORKERS_MAX;
    if ((v = getenv("QN_EMU_MEMORY")) && atoll(v) > 0) settings.memory = (size_t)atoll(v) << 20;
#ifdef QN_EMU_CHECKED
    settings.threads = 1; /* the shadow has no locks */
#endif
    pthread_atfork(nullptr, nullptr, forget_pool);
}
const emu_settings &emu_config() {
    pthread_once(&settings_once, read_settings);
    return settings;
}
extern "C" void qn_emu_set(const char *order, const char *streams, const char *cp_async, int threads) {
    emu_config();
    if (order) set_order(order);
    if (streams) settings.lazy_streams = second_of(streams, "eager", "lazy");
    if (cp_async) settings.late_copies = second_of(cp_async, "now", "late");
#ifndef QN_EMU_CHECKED
    if (threads > 0) settings.threads = threads < EMU_WORKERS_MAX ? threads : EMU_WORKERS_MAX;
#else
    (void)threads;
#endif
}

/* Reports. */
static bool collecting;
static std::vector<std::string> reports;
static pthread_mutex_t reports_lock = PTHREAD_MUTEX_INITIALIZER;

extern "C" void qn_emu_collect(int on) { collecting = on != 0; }
extern "C" int qn_emu_n_reports(void) { return (int)reports.size(); }
extern "C" const char *qn_emu_report_text(int i) { return i >= 0 && i < (int)reports.size() ? reports[(size_t)i].c_str() : ""; }
extern "C" void qn_emu_forget_reports(void) { reports.clear(); }

void emu_report(const char *file, int line, const char *fmt, ...) {
    char text[1600];
    size_t n = 0;
    emu_fiber *f = emu_self();
    if (f) {
        const qn_emu_here &h = f->here;
        char name[300];
        n += (size_t)snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ",
                              emu_kernel_name(f->block->launch->kernel, f->block->launch->name, name, sizeof name), h.block.x, h.block.y, h.block.z, h.thread.x, h.thread.y, h.thread.z);
    }
    if (file) n += (size_t)snprintf(text + n, sizeof text - n, "%s:%d: ", file, line);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - n, fmt, ap);
    va_end(ap);
    if (!collecting) {
        fprintf(stderr, "cuda emulator: %s\n", text);
        fflush(nullptr);
        abort();
    }
    pthread_mutex_lock(&reports_lock);
    reports.emplace_back(text);
    pthread_mutex_unlock(&reports_lock);
    if (!f) return;
    f->block->launch->failed = 1;
    emu_leave(f->block);
}

/* The launch under way. Block numbers are drawn from a counter and mapped to the order wanted. */
static pthread_mutex_t launch_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pool_work = PTHREAD_COND_INITIALIZER, pool_done = PTHREAD_COND_INITIALIZER;
static int n_helpers, n_busy, n_wanted;
static uint64_t pool_round;
static emu_launch *current;
static uint64_t n_blocks, next_block;
static std::vector<uint32_t> shuffled;

static void forget_pool() {
    n_helpers = n_busy = n_wanted = 0;
    pthread_mutex_init(&pool_lock, nullptr);
    pthread_mutex_init(&launch_lock, nullptr);
    pthread_cond_init(&pool_work, nullptr);
    pthread_cond_init(&pool_done, nullptr);
}

static uint64_t block_of(uint64_t i) {
    if (settings.order == ORDER_REVERSE) return n_blocks - 1 - i;
    return shuffled.empty() ? i : shuffled[i];
}
/* Of this OS thread; goes with it. */
static emu_block *own_block() {
    static thread_local struct own {
        emu_block *b = nullptr;
        ~own() { emu_block_free(b); }
    } own;
    if (!own.b) own.b = emu_block_new(), emu_catch_faults();
    return own.b;
}
static void run_blocks(emu_launch *l) {
    emu_block *b = own_block();
    for (;;) {
        uint64_t i = __atomic_fetch_add(&next_block, 1, __ATOMIC_RELAXED);
        if (i >= n_blocks || l->failed) return;
        emu_block_run(b, l, block_of(i));
    }
}
static void *helper(void *arg) {
    uint64_t seen = (uint64_t)(uintptr_t)arg;
    pthread_mutex_lock(&pool_lock);
    for (;;) {
        while (pool_round == seen || n_wanted == 0) {
            if (pool_round != seen) seen = pool_round; /* others took this round */
            pthread_cond_wait(&pool_work, &pool_lock);
        }
        seen = pool_round;
        n_wanted--;
        emu_launch *l = current;
        pthread_mutex_unlock(&pool_lock);
        run_blocks(l);
        pthread_mutex_lock(&pool_lock);
        if (--n_busy == 0) pthread_cond_signal(&pool_done);
    }
    return nullptr;
}

static void call_helpers(int wanted) {
    pthread_mutex_lock(&pool_lock);
    while (n_helpers < wanted) {
        pthread_t t;
        if (pthread_create(&t, nullptr, helper, (void *)(uintptr_t)pool_round)) break;
        pthread_detach(t);
        n_helpers++;
    }
    n_wanted = n_busy = wanted < n_helpers ? wanted : n_helpers;
    pool_round++;
    if (n_wanted) pthread_cond_broadcast(&pool_work);
    pthread_mutex_unlock(&pool_lock);
}
static void wait_for_helpers() {
    pthread_mutex_lock(&pool_lock);
    while (n_busy) pthread_cond_wait(&pool_done, &pool_lock);
    pthread_mutex_unlock(&pool_lock);
}

static void shuffle_blocks(uint64_t number) {
    shuffled.clear();
    if (settings.order != ORDER_RANDOM || n_blocks > 1u << 20) return;
    emu_random r;
    r.seed(settings.seed + number);
    for (uint32_t i = 0; i < n_blocks; i++) {
        uint32_t j = r.below(i + 1);
        shuffled.push_back(i);
        std::swap(shuffled[i], shuffled[j]);
    }
}

static bool run_here(emu_launch *l) {
    n_blocks = (uint64_t)l->grid.x * l->grid.y * l->grid.z;
    next_block = 0;
    current = l;
    shuffle_blocks(l->number);
    int helpers = (int)(n_blocks < (uint64_t)settings.threads ? n_blocks : (uint64_t)settings.threads) - 1;
    if (helpers > 0) call_helpers(helpers);
    run_blocks(l);
    if (helpers > 0) wait_for_helpers();
    return !l->failed;
}

static qn_emu_runner runner;
extern "C" void qn_emu_run_with(qn_emu_runner run) { runner = run; }
static int emulate(const qn_emu_grid *g) { return run_here(static_cast<emu_launch *>(g->launch)) ? 0 : -1; }
static bool run_elsewhere(emu_launch *l) {
    enum { ARGS_MAX = 32 };
    const void *at[ARGS_MAX];
    size_t bytes[ARGS_MAX];
    int n = l->call->arguments(at, bytes, ARGS_MAX);
    if (n > ARGS_MAX) return emu_report(nullptr, 0, "%s has %d arguments", l->name, n), false;
    qn_emu_grid g = {l->kernel, l->name, {l->grid.x, l->grid.y, l->grid.z}, {l->block.x, l->block.y, l->block.z}, l->dynamic, at, bytes, n, emulate, l};
    return runner(&g) == 0;
}

bool emu_run(emu_launch *l) {
    static uint64_t n_launches;
    emu_config();
    if (qn_emu_me) emu_report(nullptr, 0, "a launch from a kernel");
    pthread_mutex_lock(&launch_lock);
    l->number = ++n_launches;
    l->failed = 0;
    bool ok = runner ? run_elsewhere(l) : run_here(l);
    pthread_mutex_unlock(&launch_lock);
    return ok;
}
