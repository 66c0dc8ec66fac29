/* What the emulator's own files share: settings, reports, launches, memory and the fibers of one block. Not for kernels. */
#ifndef QN_CUDA_EMU_CORE_H
#define QN_CUDA_EMU_CORE_H

#include <stddef.h>
#include <stdint.h>



#include "engine/cuda/portable.cuh"

enum {
    EMU_LANES = 32, EMU_WARPS_MAX = 32, EMU_THREADS_MAX = 1024, EMU_MEETINGS = 32,
    EMU_SHARED_STATIC = 48 * 1024, EMU_SHARED_MOST = 227 * 1024, EMU_WORKERS_MAX = 64
};
enum emu_order { ORDER_FORWARD, ORDER_REVERSE, ORDER_RANDOM };

struct emu_settings {
    emu_order order;
    uint64_t seed;
    bool lazy_streams, late_copies;
    int threads;
    size_t memory;
};
const emu_settings &emu_config();
struct emu_random { /* xorshift64* (Vigna 2016) */
    uint64_t s;
    void seed(uint64_t v) { s = v * 0x9e3779b97f4a7c15u + 0x1234567u; if (!s) s = 1; }
    uint32_t next() { s ^= s >> 12; s ^= s << 25; s ^= s >> 27; return (uint32_t)((s * 0x2545f4914f6cdd1du) >> 32); }
    uint32_t below(uint32_t n) { return (uint32_t)(((uint64_t)next() * n) >> 32); }
};

struct emu_launch {
    const qn_emu_call *call;
    const void *kernel;
    const char *name;
    dim3 grid, block;
    size_t dynamic;
    uint64_t number;
    volatile int failed;
};
/* Runs all blocks and returns; false if something was reported. Any thread that is no fiber. */
bool emu_run(emu_launch *l);

/* Prints (or collects) a report with the place of the running fiber, if there is one, and does not come back to a fiber: its
 * block is left. Outside fibers it returns, if reports are collected. file may be NULL. */
void emu_report(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A copy under way: made by cp.async, not waited for yet. */
struct emu_copy {
    unsigned char *to;
    const unsigned char *from; /* NULL: zeros */
    unsigned group;
    const char *file;
    int line;
};
struct emu_block;
struct emu_fiber {
    qn_emu_here here; /* first: what qn_emu_me points to */
    void *sp;
    emu_block *block;
    unsigned warp, lane;
    const char *wait_file; /* where it waits, for reports */
    int wait_line;
    bool at_barrier;
    unsigned group, n_copies, copies_max; /* cp.async: group being filled; copies not yet waited for */
    emu_copy *copies;
};
struct emu_meeting {
    qn_emu_warp_fn fn;
    unsigned mask, arrived;
    const char *file;
    int line;
};
struct emu_warp {
    unsigned ready, alive, all;
    unsigned n_open;
    uint32_t epoch; /* __syncwarps of the full warp and barriers so far */
    emu_meeting open[EMU_MEETINGS];
    void *args[EMU_LANES];
};
struct emu_block {
    emu_launch *launch;
    unsigned n_threads, n_warps, n_alive, at_barrier;
    unsigned ready_warps;
    uint32_t epoch; /* barriers so far */
    uint64_t linear; /* index in the grid */
    const char *barrier_file;
    int barrier_line;
    unsigned char *shared_static, *shared_dynamic; /* NULL until asked for */
    size_t static_bytes;
    const char *static_file;
    int static_line;
    unsigned char *arena_static_end, *arena_dynamic_end; /* guard pages follow */
    emu_random random;
    emu_order order;
    void *main_sp, *dropped_sp; /* the latter is of fibers that end: no variable of theirs, whose redzones ASan would keep */
    emu_warp warps[EMU_WARPS_MAX];
    emu_fiber fibers[EMU_THREADS_MAX];
    unsigned char *stacks; /* of all fibers, guard page below each */
};
static inline emu_fiber *emu_self() { return reinterpret_cast<emu_fiber *>(qn_emu_me); }

/* Device memory (memory.cc). What holds p, or NULL; *bytes: from p to its end. */
enum emu_place { PLACE_HOST, PLACE_DEVICE, PLACE_DEVICE_GAP, PLACE_PINNED };
emu_place emu_where(const void *p, size_t *bytes);
void emu_fill(void *p, size_t bytes); /* with 0xff, also for the checkers */
bool emu_in_device_range(const void *p);
const void *emu_device_base();
size_t emu_device_bytes(); /* of the reserved range */
const char *emu_describe(const void *p, char *text, size_t room);
const char *emu_code_place(const void *pc, char *text, size_t room);                                       /* "file:line" */
const char *emu_kernel_name(const void *kernel, const char *otherwise, char *text, size_t room);           /* "name<1, 2>" */
void emu_catch_faults(); /* once a thread that runs fibers */

/* The checked build's shadow (check.cc) is told what happens to memory outside kernels. */
#ifdef QN_EMU_CHECKED
void emu_shadow_fresh(const void *p, size_t bytes);   /* not initialised */
void emu_shadow_gone(const void *p, size_t bytes);
void emu_shadow_written(const void *p, size_t bytes); /* by the host */
void emu_shadow_copied(const void *to, const void *from, size_t bytes);
#else
static inline void emu_shadow_fresh(const void *, size_t) {}
static inline void emu_shadow_gone(const void *, size_t) {}
static inline void emu_shadow_written(const void *, size_t) {}
static inline void emu_shadow_copied(const void *, const void *, size_t) {}
#endif

/* Poisoning by hand for ASan. */
#ifdef __SANITIZE_ADDRESS__
extern "C" void __asan_poison_memory_region(void const volatile *, size_t);
extern "C" void __asan_unpoison_memory_region(void const volatile *, size_t);
#define EMU_POISON(p, n) __asan_poison_memory_region((p), (n))
#define EMU_UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define EMU_POISON(p, n) ((void)(p), (void)(n))
#define EMU_UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#endif
