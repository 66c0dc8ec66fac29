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
 * announces it and looks again; who brings news publishes it and then looks for sleepers.
 *
 * RESCUE. A thread that shares its core with a busy neighbour loses it for a scheduler's slice (milliseconds), mostly in the
 * middle of a chunk, and the kernel leaves it queued there even when another core falls idle, because it ran there a
 * moment ago. So whoever waits for it looks at its CPU clock, and if that stands still brings it here: one
 * sched_setaffinity(2) moves it to the waiter's core, and the waiter goes to sleep. A stall of milliseconds becomes one of
 * tens of microseconds, the results being none the wiser. Afterwards the owner keeps its core to itself: the workers
 * that were moved may run anywhere else, until nothing of the kind has happened for a while. What a hypervisor takes does not
 * show in the clock of a thread; there the waiter waits. */
#include "engine/cpu/threads.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/cpu/cores.h"

enum {
    ITEM_BITS = 18, ITEMS_MAX = (1 << ITEM_BITS) - 1,
    SPIN_COLD_NS = 20 * 1000,  /* a worker between steps, and the owner waiting for the last chunks */
    SPIN_HOT_NS = 200 * 1000,  /* a worker inside a step */
    PAUSES = 16,               /* between two looks at the clock */
    LOST_NS = 10 * 1000,       /* a thread whose CPU clock stands still for so long has lost its core */
    NAP_NS = 1000 * 1000,      /* the owner's sleep before it looks after the workers again */
    LOOKS = 3,                 /* at the workers' clocks before the owner sleeps */
    APART_NS = 100 * 1000 * 1000, /* how long a moved worker stays off the owner's core */
    STALL_NS = 100 * 1000,     /* a wait for chunks that were begun counts from here on; below, they were just uneven */
    WINDOW_NS = 20 * 1000 * 1000, BAD_WINDOWS = 3, HOLD_NS = 100 * 1000 * 1000, HOLD_MOST_NS = 1600 * 1000 * 1000,
    STACK_BYTES = 512 * 1024,
};

struct worker {
    struct qn_pool *pool;
    int index, apart;                       /* the core that it stays off, or -1 */
    int64_t ran_ns;                         /* its clock when the owner looked last */
    pthread_t thread;
    struct qn_cores_thread self;
    _Alignas(64) _Atomic int ready;         /* self is written */
    _Atomic int inside;                     /* it may hold a chunk */
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
    _Alignas(64) _Atomic uint32_t n_active; /* workers from this one on are parked here: it is their futex */
    _Atomic int owner_tid, owner_clock;     /* for workers; tid 0: not known */
    _Atomic int taken;                      /* the owner was moved by this worker; TAKEN_BUSY: is being moved; else 0 */
    _Atomic int64_t looked_at_ns, owner_ran_ns; /* workers' last look at the owner's clock */
    int n_threads, n_started, can_move, placed;
    struct qn_cores cores, owner_cores, owner_before; /* of the workers; of the owner; of its thread before qn_pool_attach */
    struct qn_cores_thread owner;
    int n_apart;
    int64_t apart_until_ns;
    struct pace {
        int64_t step_ns, until_ns, hold_ns; /* begin of the step; of the next try with one more thread; and between tries */
        int64_t ran_ns, stalled_ns;         /* steps of this window; stalls before it */
        int n_bad;                          /* windows in a row with a thread too many */
    } pace;
    struct qn_pool_stats stats;
    struct worker *workers;
};
enum { TAKEN_BUSY = -1 };

static uint64_t pack(uint64_t epoch, uint64_t items, uint64_t next) {
    return epoch << (2 * ITEM_BITS) | items << ITEM_BITS | next;
}
static uint32_t items_of(uint64_t s) { return (uint32_t)(s >> ITEM_BITS) & ITEMS_MAX; }
static uint32_t next_of(uint64_t s) { return (uint32_t)s & ITEMS_MAX; }
static int has_work(uint64_t s) { return next_of(s) < items_of(s); }

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t ns) {
    struct timespec t = { .tv_sec = 0, .tv_nsec = ns };
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, ns ? &t : NULL, NULL, 0);
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

/* --- the worker's side -------------------------------------------------------------------------------------------- */

/* Takes and runs chunks until there are none. */
static void work(struct qn_pool *p, int thread) {
    uint64_t s = atomic_load_explicit(&p->state, memory_order_acquire);
    uint32_t share = 2 * atomic_load_explicit(&p->n_active, memory_order_relaxed);
    while (has_work(s)) {
        uint32_t next = next_of(s), left = items_of(s) - next;
        qn_pool_fn fn = atomic_load_explicit(&p->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&p->arg, memory_order_relaxed);
        uint32_t grain = atomic_load_explicit(&p->grain, memory_order_relaxed);
        uint32_t unit = atomic_load_explicit(&p->unit, memory_order_relaxed);
        uint32_t n_real = atomic_load_explicit(&p->n_real, memory_order_relaxed);
        uint32_t take = left / share;
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

static int is_active(const struct worker *w) { return (uint32_t)w->index < atomic_load_explicit(&w->pool->n_active, memory_order_relaxed); }

/* The owner computes, or has lost its core: nothing of a step makes it sleep but the wait for the workers. */
static int owner_runs(struct qn_pool *p) {
    if (atomic_load_explicit(&p->owner_waits, memory_order_relaxed)) return 0;
    uint64_t s = atomic_load_explicit(&p->state, memory_order_relaxed);
    return atomic_load_explicit(&p->hot, memory_order_relaxed) || atomic_load_explicit(&p->done, memory_order_relaxed) != items_of(s);
}

/* Its clock stands still since the last look, by this worker or another: together they look once in LOST_NS. */
static int owner_lost(struct qn_pool *p, int64_t now) {
    struct qn_cores_thread owner = { atomic_load(&p->owner_tid), atomic_load(&p->owner_clock) };
    int64_t at = atomic_load_explicit(&p->looked_at_ns, memory_order_relaxed);
    if (!owner.tid || now - at < LOST_NS || !atomic_compare_exchange_strong(&p->looked_at_ns, &at, now)) return 0;
    int64_t ran = qn_cores_ran_ns(owner);
    return atomic_exchange(&p->owner_ran_ns, ran) == ran;
}

/* Moves the owner to this core, which the caller then leaves by sleeping. */
static void bring_owner(struct qn_pool *p, int index) {
    struct qn_cores_thread owner = { atomic_load(&p->owner_tid), atomic_load(&p->owner_clock) };
    int none = 0;
    if (!atomic_compare_exchange_strong(&p->taken, &none, TAKEN_BUSY)) return;
    int ok = qn_cores_pin(owner, sched_getcpu()) == 0;
    atomic_store(&p->taken, ok ? index : 0);
}

/* Spins until there is work or the time is up; 1 when there is work (or the pool stops). */
static int spin_for_work(struct qn_pool *p, const struct worker *w) {
    int64_t t0 = now_ns();
    for (;;) {
        for (int i = 0; i < PAUSES; i++) {
            if (has_work(atomic_load_explicit(&p->state, memory_order_acquire))) return 1;
            relax();
        }
        if (atomic_load_explicit(&p->stop, memory_order_relaxed)) return 1;
        int runs = owner_runs(p);
        int64_t t = now_ns();
        if (t - t0 > (runs ? SPIN_HOT_NS : SPIN_COLD_NS)) return 0;
        if (runs && t - t0 >= LOST_NS && owner_lost(p, t)) {
            bring_owner(p, w->index);
            return 0;
        }
    }
}

static void sleep_for_work(struct qn_pool *p) {
    atomic_fetch_add(&p->sleepers, 1);
    uint32_t seen = atomic_load(&p->wake);
    if (!has_work(atomic_load(&p->state)) && !atomic_load(&p->stop)) futex_wait(&p->wake, seen, 0);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void wake_sleepers(struct qn_pool *p, int n) {
    if (atomic_load(&p->sleepers) == 0) return;
    atomic_fetch_add(&p->wake, 1);
    futex_wake(&p->wake, n);
}

static void park(struct qn_pool *p, const struct worker *w) {
    uint32_t n = atomic_load(&p->n_active);
    if ((uint32_t)w->index >= n && !atomic_load(&p->stop)) futex_wait(&p->n_active, n, 0);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct qn_pool *p = w->pool;
    w->self = qn_cores_self();
    atomic_store(&w->ready, 1);
    while (!atomic_load_explicit(&p->stop, memory_order_acquire)) {
        if (!is_active(w)) park(p, w);
        else if (!spin_for_work(p, w)) sleep_for_work(p);
        if (!is_active(w)) continue;
        atomic_store_explicit(&w->inside, 1, memory_order_relaxed);
        work(p, w->index);
        atomic_store_explicit(&w->inside, 0, memory_order_relaxed);
    }
    return NULL;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static int start_workers(struct qn_pool *p, struct qn_err *err) {
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (p->placed) pthread_attr_setaffinity_np(&attr, sizeof p->cores.set, &p->cores.set);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop thread's business */
    int rc = 0;
    for (int i = 1; i < p->n_threads && rc == 0; i++) {
        struct worker *w = &p->workers[i];
        w->pool = p, w->index = i, w->apart = -1;
        rc = pthread_create(&w->thread, &attr, worker_main, w);
        if (rc == 0) p->n_started = i + 1;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return rc == 0 ? 0 : qn_fail(err, QN_E_IO, "pthread_create of compute thread %d of %d: %s", p->n_started, p->n_threads, strerror(rc));
}

static void *aligned_zeros(size_t n) {
    n = (n + 63) / 64 * 64;
    void *p = aligned_alloc(64, n);
    return p ? memset(p, 0, n) : NULL;
}

int qn_pool_open(struct qn_pool **out, int n_threads, const char *cores, struct qn_err *err) {
    struct qn_cores c;
    if (n_threads < 0 || n_threads > QN_THREADS_MAX)
        return qn_fail(err, QN_E_RANGE, "threads: %d is not within 0..%d", n_threads, QN_THREADS_MAX);
    int rc = qn_cores_open(&c, cores, err);
    if (rc < 0) return rc;
    if (n_threads == 0) n_threads = qn_cores_threads(&c, qn_cores_quota(""));
    if (n_threads > QN_THREADS_MAX) n_threads = QN_THREADS_MAX;
    struct qn_pool *p = aligned_zeros(sizeof *p);
    if (!p) return qn_fail(err, QN_E_NOMEM, "no memory for the thread pool");
    p->n_threads = n_threads;
    p->n_started = 1;
    p->cores = c;
    p->placed = cores && *cores;
    p->can_move = c.n > 1;
    p->pace.hold_ns = HOLD_NS;
    atomic_init(&p->n_active, (uint32_t)n_threads);
    p->workers = aligned_zeros((size_t)n_threads * sizeof *p->workers);
    rc = p->workers ? start_workers(p, err) : qn_fail(err, QN_E_NOMEM, "no memory for %d compute threads", n_threads);
    if (rc < 0) qn_pool_close(p);
    else *out = p;
    return rc;
}

void qn_pool_close(struct qn_pool *p) {
    if (!p) return;
    atomic_store(&p->stop, 1);
    atomic_fetch_add(&p->wake, 1);
    futex_wake(&p->wake, INT_MAX);
    atomic_store(&p->n_active, (uint32_t)p->n_threads + 1); /* another value: nobody goes to sleep on the old one */
    futex_wake(&p->n_active, INT_MAX);
    for (int i = 1; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    if (p->owner_before.n && p->owner.tid == qn_cores_self().tid) qn_cores_allow(p->owner, &p->owner_before, -1);
    free(p->workers);
    free(p);
}

int qn_pool_threads(const struct qn_pool *p) { return p->n_threads; }

void qn_pool_stats(const struct qn_pool *p, struct qn_pool_stats *out) {
    *out = p->stats;
    out->n_active = (int)atomic_load(&p->n_active);
}

/* --- the owner's side --------------------------------------------------------------------------------------------- */

/* After a rescue the worker runs where the owner does not: else the kernel may well queue it behind the owner. */
static void keep_apart(struct qn_pool *p, struct worker *w, int core) {
    if (w->apart == core || !atomic_load(&w->ready)) return;
    if (qn_cores_allow(w->self, &p->cores, core) < 0) return;
    p->n_apart += (core >= 0) - (w->apart >= 0);
    w->apart = core;
}

static void look_after_places(struct qn_pool *p, int64_t now) {
    int core = now < p->apart_until_ns ? sched_getcpu() : -1;
    for (int i = 1; i < p->n_started; i++)
        if (p->workers[i].apart >= 0) keep_apart(p, &p->workers[i], core);
}

/* A worker moved us to its core: now let us go, and it elsewhere. */
static void was_moved(struct qn_pool *p) {
    int index = atomic_load(&p->taken);
    if (index == TAKEN_BUSY) return;
    qn_cores_allow(p->owner, &p->owner_cores, -1);
    keep_apart(p, &p->workers[index], sched_getcpu());
    p->apart_until_ns = now_ns() + APART_NS;
    p->stats.rescues++;
    atomic_store(&p->taken, 0);
}

/* Brings every worker here that may hold a chunk and has not run since the last call. 1: some. */
static int bring_workers(struct qn_pool *p, int first_look) {
    int core = sched_getcpu(), some = 0;
    for (int i = 1; i < p->n_started; i++) {
        struct worker *w = &p->workers[i];
        if (!atomic_load_explicit(&w->inside, memory_order_relaxed) || !atomic_load(&w->ready)) {
            w->ran_ns = -1;
            continue;
        }
        int64_t ran = qn_cores_ran_ns(w->self);
        if (!first_look && ran == w->ran_ns && qn_cores_pin(w->self, core) == 0) {
            p->n_apart += w->apart < 0;
            w->apart = CPU_SETSIZE; /* no core's number: it is to be sent away again */
            p->stats.rescues++;
            some = 1;
        }
        w->ran_ns = ran;
    }
    return some;
}

/* Waits until all items are done. A worker that still runs one is microseconds away from its end, or has lost its core;
 * then ours is lent to it. */
static void wait_done(struct qn_pool *p, uint32_t items) {
    int64_t t0 = 0, t = 0, look_at = 0;
    int looks = 0, brought = 0;
    for (;;) {
        for (int i = 0; i < PAUSES; i++) {
            if (atomic_load_explicit(&p->done, memory_order_acquire) == items) goto done;
            relax();
        }
        t = now_ns();
        if (t0 == 0) t0 = t, look_at = t + LOST_NS;
        if (p->can_move && t >= look_at && looks < LOOKS) {
            int some = bring_workers(p, looks == 0);
            brought |= some;
            look_at = t + LOST_NS;
            looks = some ? LOOKS : looks + 1;
        }
        if (p->can_move ? looks < LOOKS : t - t0 < SPIN_COLD_NS) continue;
        atomic_store(&p->owner_waits, 1);
        uint32_t seen = atomic_load(&p->done);
        if (seen != items) futex_wait(&p->done, seen, NAP_NS);
        atomic_store(&p->owner_waits, 0);
        looks = 0;
    }
done:
    if (t0 == 0) return;
    t = now_ns();
    if (t - t0 > STALL_NS) p->stats.stalled_ns += t - t0 - STALL_NS;
    if (brought) {
        p->apart_until_ns = t + APART_NS;
        look_after_places(p, t);
    }
}

/* The pool is opened and warmed up on one thread and used on another. */
static void adopt_owner(struct qn_pool *p, pid_t tid) {
    p->owner = qn_cores_self();
    qn_cores_open(&p->owner_cores, NULL, NULL);
    atomic_store(&p->owner_clock, (int)p->owner.clock);
    atomic_store(&p->owner_tid, p->can_move ? (int)tid : 0);
}

void qn_pool_attach(struct qn_pool *p) {
    /* Loading and warming up stall on new pages, not on neighbours: they say nothing. */
    atomic_store(&p->n_active, (uint32_t)p->n_threads);
    futex_wake(&p->n_active, INT_MAX);
    p->pace = (struct pace){ .hold_ns = HOLD_NS, .stalled_ns = p->stats.stalled_ns };
    adopt_owner(p, qn_cores_self().tid);
    if (!p->placed || qn_cores_allow(p->owner, &p->cores, -1) < 0) return;
    p->owner_before = p->owner_cores;
    p->owner_cores = p->cores;
}

/* A thread too many is one whose chunks the others wait for longer than they would need to do them: with n threads, more than
 * 1/n of the time, and not just for once, as when new pages are cleared. It is then left out, and tried again later, more and
 * more seldom while that does not pay. */
static void set_active(struct qn_pool *p, uint32_t n) {
    atomic_store(&p->n_active, n);
    futex_wake(&p->n_active, INT_MAX);
}

static void pace_step(struct qn_pool *p) {
    struct pace *c = &p->pace;
    int64_t now = now_ns();
    uint32_t n = atomic_load_explicit(&p->n_active, memory_order_relaxed);
    c->ran_ns += now - c->step_ns;
    if (c->ran_ns < WINDOW_NS) return;
    int64_t stalled = p->stats.stalled_ns - c->stalled_ns;
    c->n_bad = stalled > c->ran_ns / n + c->ran_ns / 20 ? c->n_bad + 1 : 0;
    if (n > 1 && c->n_bad >= BAD_WINDOWS) {
        c->n_bad = 0;
        set_active(p, n - 1);
        c->until_ns = now + c->hold_ns;
        c->hold_ns = c->hold_ns * 2 < HOLD_MOST_NS ? c->hold_ns * 2 : HOLD_MOST_NS;
    } else if (n < (uint32_t)p->n_threads && now > c->until_ns) {
        set_active(p, n + 1);
        c->until_ns = now + c->hold_ns;
    } else if (now > c->until_ns) {
        c->hold_ns = HOLD_NS;
    }
    c->ran_ns = 0, c->stalled_ns = p->stats.stalled_ns;
}

void qn_pool_hot(struct qn_pool *p, int on) {
    static _Thread_local pid_t tid;
    if (p->n_threads == 1) return;
    if (on) {
        if (!tid) tid = qn_cores_self().tid;
        if (tid != p->owner.tid) adopt_owner(p, tid);
        p->pace.step_ns = now_ns();
        if (atomic_load_explicit(&p->taken, memory_order_relaxed)) was_moved(p);
        if (p->n_apart) look_after_places(p, p->pace.step_ns);
    } else {
        pace_step(p);
    }
    atomic_store(&p->hot, (uint32_t)on);
    if (on) wake_sleepers(p, p->n_threads - 1);
}

void qn_pool_run(struct qn_pool *p, int n, int grain, qn_pool_fn fn, void *arg) {
    if (n <= 0) return;
    if (atomic_load_explicit(&p->taken, memory_order_relaxed)) was_moved(p);
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
