/* The pool behind threads.h.
 *
 * All of a loop's bookkeeping is one 64-bit word, `state` = epoch | items | next, so that taking a chunk is one
 * compare-and-swap which fails if the loop has ended meanwhile: a worker that was descheduled between looking and taking
 * can neither run a chunk twice nor touch a loop that is over. The loop's function and argument are written while no
 * chunk can be taken (next == items), published by the release of `state`, and read between a look and a swap that
 * succeeds; so they are always those of the epoch that was taken.
 *
 * Chunks are guided (Polychronopoulos and Kuck 1987): each takes a share of what is left, so there are few of them and
 * the last ones are small. The owner waits for `done` to reach the number of items, that is, only for chunks that
 * somebody began. Sleeping is by futex with the usual pair of flags in sequentially consistent order: who goes to sleep
 * announces it and looks again; who brings news publishes it and then looks for sleepers. */
#include "engine/cpu/threads.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    ITEM_BITS = 18, ITEMS_MAX = (1 << ITEM_BITS) - 1,
    SPIN_COLD_NS = 20 * 1000,  /* a worker between steps, and the owner waiting for the last chunks */
    SPIN_HOT_NS = 200 * 1000,  /* a worker inside a step */
    PAUSES = 16,               /* between two looks at the clock */
    STACK_BYTES = 512 * 1024,
};

struct qn_pool {
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) _Atomic uint32_t done;     /* items finished; futex of the owner */
    _Atomic uint32_t owner_waits;
    _Alignas(64) _Atomic uint32_t wake;     /* futex of the workers; counts calls */
    _Atomic uint32_t sleepers;
    _Atomic uint32_t hot, stop;
    _Alignas(64) _Atomic(qn_pool_fn) fn;    /* of the running loop; see above */
    _Atomic(void *) arg;
    _Atomic uint32_t grain, unit, n_real;   /* an item of `state` is `unit` items of the caller */
    int n_threads, n_started;
    struct worker { struct qn_pool *pool; int index; pthread_t thread; } *workers;
};

static uint64_t pack(uint64_t epoch, uint64_t items, uint64_t next) {
    return epoch << (2 * ITEM_BITS) | items << ITEM_BITS | next;
}
static uint32_t items_of(uint64_t s) { return (uint32_t)(s >> ITEM_BITS) & ITEMS_MAX; }
static uint32_t next_of(uint64_t s) { return (uint32_t)s & ITEMS_MAX; }
static int has_work(uint64_t s) { return next_of(s) < items_of(s); }

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}
static void futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Takes and runs chunks until there are none. */
static void work(struct qn_pool *p, int thread) {
    uint64_t s = atomic_load_explicit(&p->state, memory_order_acquire);
    while (has_work(s)) {
        uint32_t next = next_of(s), left = items_of(s) - next;
        qn_pool_fn fn = atomic_load_explicit(&p->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&p->arg, memory_order_relaxed);
        uint32_t grain = atomic_load_explicit(&p->grain, memory_order_relaxed);
        uint32_t unit = atomic_load_explicit(&p->unit, memory_order_relaxed);
        uint32_t n_real = atomic_load_explicit(&p->n_real, memory_order_relaxed);
        uint32_t take = left / (uint32_t)(2 * p->n_threads);
        if (take < grain) take = grain;
        if (take > left) take = left;
        if (!atomic_compare_exchange_weak_explicit(&p->state, &s, s + take, memory_order_acq_rel, memory_order_acquire)) continue;
        uint64_t end = (uint64_t)(next + take) * unit;
        fn(arg, (int)(next * unit), (int)(end < n_real ? end : n_real), thread);
        atomic_fetch_add(&p->done, take);
        if (thread != 0 && atomic_load(&p->owner_waits)) futex_wake(&p->done, 1);
        s = atomic_load_explicit(&p->state, memory_order_acquire);
    }
}

/* Spins until there is work or the time is up; 1 when there is work (or the pool stops). */
static int spin_for_work(struct qn_pool *p) {
    int64_t t0 = now_ns();
    for (;;) {
        for (int i = 0; i < PAUSES; i++) {
            if (has_work(atomic_load_explicit(&p->state, memory_order_acquire))) return 1;
            relax();
        }
        if (atomic_load_explicit(&p->stop, memory_order_relaxed)) return 1;
        int64_t limit = atomic_load_explicit(&p->hot, memory_order_relaxed) ? SPIN_HOT_NS : SPIN_COLD_NS;
        if (now_ns() - t0 > limit) return 0;
    }
}

static void sleep_for_work(struct qn_pool *p) {
    atomic_fetch_add(&p->sleepers, 1);
    uint32_t seen = atomic_load(&p->wake);
    if (!has_work(atomic_load(&p->state)) && !atomic_load(&p->stop)) futex_wait(&p->wake, seen);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void wake_sleepers(struct qn_pool *p, int n) {
    if (atomic_load(&p->sleepers) == 0) return;
    atomic_fetch_add(&p->wake, 1);
    futex_wake(&p->wake, n);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct qn_pool *p = w->pool;
    while (!atomic_load_explicit(&p->stop, memory_order_acquire)) {
        if (!spin_for_work(p)) sleep_for_work(p);
        work(p, w->index);
    }
    return NULL;
}

static int cores(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static int start_workers(struct qn_pool *p, struct qn_err *err) {
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop thread's business */
    int rc = 0;
    for (int i = 1; i < p->n_threads && rc == 0; i++) {
        struct worker *w = &p->workers[i];
        *w = (struct worker){ .pool = p, .index = i };
        rc = pthread_create(&w->thread, &attr, worker_main, w);
        if (rc == 0) p->n_started = i + 1;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return rc == 0 ? 0 : qn_fail(err, QN_E_IO, "pthread_create of compute thread %d of %d: %s", p->n_started, p->n_threads, strerror(rc));
}

int qn_pool_open(struct qn_pool **out, int n_threads, struct qn_err *err) {
    if (n_threads < 0 || n_threads > QN_THREADS_MAX)
        return qn_fail(err, QN_E_RANGE, "threads: %d is not within 0..%d", n_threads, QN_THREADS_MAX);
    if (n_threads == 0) n_threads = cores();
    if (n_threads > QN_THREADS_MAX) n_threads = QN_THREADS_MAX;
    struct qn_pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) return qn_fail(err, QN_E_NOMEM, "no memory for the thread pool");
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    p->n_started = 1;
    p->workers = calloc((size_t)n_threads, sizeof *p->workers);
    int rc = p->workers ? start_workers(p, err) : qn_fail(err, QN_E_NOMEM, "no memory for %d compute threads", n_threads);
    if (rc < 0) qn_pool_close(p);
    else *out = p;
    return rc;
}

void qn_pool_close(struct qn_pool *p) {
    if (!p) return;
    atomic_store(&p->stop, 1);
    atomic_fetch_add(&p->wake, 1);
    futex_wake(&p->wake, INT_MAX);
    for (int i = 1; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    free(p->workers);
    free(p);
}

int qn_pool_threads(const struct qn_pool *p) { return p->n_threads; }

void qn_pool_hot(struct qn_pool *p, int on) {
    atomic_store(&p->hot, (uint32_t)on);
    if (on && p->n_threads > 1) wake_sleepers(p, p->n_threads - 1);
}

/* Waits until all items are done. A worker that still runs one is microseconds away from its end, or has lost its core;
 * then sleeping gives it ours. */
static void wait_done(struct qn_pool *p, uint32_t items) {
    int64_t t0 = 0;
    for (;;) {
        for (int i = 0; i < PAUSES; i++) {
            if (atomic_load_explicit(&p->done, memory_order_acquire) == items) return;
            relax();
        }
        int64_t t = now_ns();
        if (t0 == 0) t0 = t;
        if (t - t0 < SPIN_COLD_NS) continue;
        atomic_store(&p->owner_waits, 1);
        uint32_t seen = atomic_load(&p->done);
        if (seen != items) futex_wait(&p->done, seen);
        atomic_store(&p->owner_waits, 0);
    }
}

void qn_pool_run(struct qn_pool *p, int n, int grain, qn_pool_fn fn, void *arg) {
    if (n <= 0) return;
    if (n <= grain || p->n_threads == 1) {
        fn(arg, 0, n, 0);
        return;
    }
    uint32_t unit = ((uint32_t)n + ITEMS_MAX - 1) / ITEMS_MAX;
    uint32_t items = ((uint32_t)n + unit - 1) / unit;
    uint64_t epoch = (atomic_load_explicit(&p->state, memory_order_relaxed) >> (2 * ITEM_BITS)) + 1;
    atomic_store_explicit(&p->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&p->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&p->grain, ((uint32_t)grain + unit - 1) / unit, memory_order_relaxed);
    atomic_store_explicit(&p->unit, unit, memory_order_relaxed);
    atomic_store_explicit(&p->n_real, (uint32_t)n, memory_order_relaxed);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->state, pack(epoch, items, 0)); /* seq_cst: before the look at `sleepers` */
    uint32_t chunks = (items + (uint32_t)grain - 1) / (uint32_t)grain;
    wake_sleepers(p, (int)chunks - 1 < p->n_threads - 1 ? (int)chunks - 1 : p->n_threads - 1);
    work(p, 0);
    wait_done(p, items);
}
