/* Fibers: one block at a time on an OS thread, a fiber for each of its threads, and the two ways in which they meet: at the block's
 * barrier and at an operation of a warp.
 *
 * A fiber runs until it waits or ends; then the next one is chosen among those that can go on: by mask, the lowest or highest warp
 * and lane, or any (QN_EMU_ORDER). So nothing here runs at the same time as something else, and what kernels may not rely on, the
 * order between two meetings, is ours to vary. The switch saves what the System V ABI of x86-64 calls callee-saved, and the stack
 * pointer; ucontext would ask the kernel for the signal mask each time.
 *
 * One primitive serves shuffles, votes, __syncwarp, mma and ldmatrix: a lane leaves a pointer to its record on its own stack and
 * waits; the last lane computes the results of all lanes in place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/cuda/emu/check.h"

__thread struct qn_emu_here *qn_emu_me;

extern "C" void qn_emu_switch(void **save, void *load);
__asm__(".text\n.globl qn_emu_switch\n.hidden qn_emu_switch\n.type qn_emu_switch,@function\n"
        "qn_emu_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size qn_emu_switch,.-qn_emu_switch\n");

/* Stacks are mapped once and their tops staggered: equal low bits would all fall into the same cache sets. ASan's frames are larger. */
#ifdef __SANITIZE_ADDRESS__
enum { STACK = 256 * 1024, GUARD = 4096, STAGGERS = 32, STAGGER = 320 };
#else
enum { STACK = 64 * 1024, GUARD = 4096, STAGGERS = 32, STAGGER = 320 };
#endif

static unsigned char *map(size_t bytes) {
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) perror("cuda emulator: mmap"), abort();
    return static_cast<unsigned char *>(p);
}

/* `bytes`, with a page that nobody may touch on each side; returns the end, so that an overrun meets the page. */
static unsigned char *map_arena(size_t bytes) {
    unsigned char *p = map(bytes + 2 * GUARD);
    if (mprotect(p, GUARD, PROT_NONE) || mprotect(p + GUARD + bytes, GUARD, PROT_NONE)) perror("cuda emulator: mprotect"), abort();
    EMU_POISON(p + GUARD, bytes);
    return p + GUARD + bytes;
}

static size_t whole_pages(size_t bytes) { return (bytes + GUARD - 1) / GUARD * GUARD; }
static void unmap_arena(unsigned char *end, size_t bytes) {
    EMU_UNPOISON(end - bytes, bytes);
    munmap(end - bytes - GUARD, bytes + 2 * GUARD);
}

emu_block *emu_block_new() {
    emu_block *b = static_cast<emu_block *>(calloc(1, sizeof *b));
    if (!b) abort();
    b->stacks = map((size_t)EMU_THREADS_MAX * STACK);
    for (int i = 0; i < EMU_THREADS_MAX; i++)
        if (mprotect(b->stacks + (size_t)i * STACK, GUARD, PROT_NONE)) perror("cuda emulator: mprotect"), abort();
    b->arena_static_end = map_arena(whole_pages(EMU_SHARED_STATIC));
    b->arena_dynamic_end = map_arena(whole_pages(EMU_SHARED_MOST));
    return b;
}

void emu_block_free(emu_block *b) {
    if (!b) return;
    EMU_UNPOISON(b->stacks, (size_t)EMU_THREADS_MAX * STACK);
    munmap(b->stacks, (size_t)EMU_THREADS_MAX * STACK);
    unmap_arena(b->arena_static_end, whole_pages(EMU_SHARED_STATIC));
    unmap_arena(b->arena_dynamic_end, whole_pages(EMU_SHARED_MOST));
    free(b);
}

/* Which thread's stack p lies in, or -1. */
int emu_stack_owner(const emu_block *b, const void *p) {
    size_t off = (size_t)((uintptr_t)p - (uintptr_t)b->stacks);
    return off < (size_t)EMU_THREADS_MAX * STACK ? (int)(off / STACK) : -1;
}
bool emu_in_arena(const emu_block *b, const void *p) {
    const unsigned char *c = static_cast<const unsigned char *>(p);
    return (c < b->arena_static_end + GUARD && c >= b->arena_static_end - EMU_SHARED_STATIC) || (c < b->arena_dynamic_end + GUARD && c >= b->arena_dynamic_end - EMU_SHARED_MOST);
}

static unsigned choose(emu_block *b, unsigned set) {
    if (b->order == ORDER_FORWARD) return (unsigned)__builtin_ctz(set);
    if (b->order == ORDER_REVERSE) return 31u - (unsigned)__builtin_clz(set);
    for (unsigned skip = b->random.below((unsigned)__builtin_popcount(set)); skip; skip--) set &= set - 1;
    return (unsigned)__builtin_ctz(set);
}
static void set_ready(emu_block *b, unsigned warp, unsigned lanes) {
    b->warps[warp].ready |= lanes;
    if (b->warps[warp].ready) b->ready_warps |= 1u << warp;
}
static emu_fiber *next_ready(emu_block *b) {
    if (!b->ready_warps) return nullptr;
    unsigned w = choose(b, b->ready_warps), l = choose(b, b->warps[w].ready);
    b->warps[w].ready &= ~(1u << l);
    if (!b->warps[w].ready) b->ready_warps &= ~(1u << w);
    return &b->fibers[w * EMU_LANES + l];
}

static void go(void **save, emu_fiber *f) {
    qn_emu_me = &f->here;
    qn_emu_switch(save, f->sp);
}
/* Leaves the block for good, from a fiber: after its last one, or after a report. */
void emu_leave(emu_block *b) {
    qn_emu_me = nullptr;
    qn_emu_switch(&b->dropped_sp, b->main_sp);
}

/* One line for each place where somebody waits: thread and place of the first one there. */
static void report_deadlock(emu_block *b, const char *file, int line) {
    char text[600];
    size_t n = 0;
    const emu_fiber *shown[4];
    unsigned n_shown = 0;
    for (unsigned i = 0; i < b->n_threads && n_shown < 4; i++) {
        const emu_fiber *f = &b->fibers[i];
        bool seen = !(b->warps[f->warp].alive >> f->lane & 1u);
        for (unsigned k = 0; k < n_shown; k++) seen |= shown[k]->wait_line == f->wait_line && shown[k]->warp == f->warp;
        if (seen) continue;
        shown[n_shown++] = f;
        n += (size_t)snprintf(text + n, sizeof text - n, "; thread %u at %s %s:%d", i, f->at_barrier ? "the barrier" : "a warp operation", f->wait_file, f->wait_line);
        if (n >= sizeof text) break;
    }
    emu_report(file, line, "deadlock: all of the %u threads left wait%s", b->n_alive, text);
}

static void wait_at(emu_fiber *f, const char *file, int line) {
    f->wait_file = file, f->wait_line = line;
    emu_fiber *n = next_ready(f->block);
    if (!n) report_deadlock(f->block, file, line);
    if (n != f) go(&f->sp, n);
    else qn_emu_me = &f->here;
}

/* Random order does not favour the lane that came last. */
static void maybe_yield(emu_fiber *f, const char *file, int line) {
    if (f->block->order != ORDER_RANDOM) return;
    set_ready(f->block, f->warp, 1u << f->lane);
    wait_at(f, file, line);
}

static void check_member(emu_fiber *f, emu_warp *w, unsigned mask, const char *file, int line) {
    if (!(mask >> f->lane & 1u)) emu_report(file, line, "lane %u is outside its own mask 0x%08x", f->lane, mask);
    if (mask & ~w->all) emu_report(file, line, "partial warp: mask 0x%08x names lanes that do not exist (0x%08x)", mask, mask & ~w->all);
    if (mask & ~w->alive) emu_report(file, line, "mask 0x%08x names lanes that have returned (0x%08x)", mask, mask & ~w->alive);
}
static emu_meeting *find_meeting(emu_warp *w, qn_emu_warp_fn fn, unsigned mask, const char *file, int line) {
    for (unsigned i = 0; i < w->n_open; i++) {
        emu_meeting *m = &w->open[i];
        if (!(m->mask & mask)) continue;
        if (m->mask != mask) emu_report(file, line, "mask 0x%08x here, but lanes wait with mask 0x%08x at %s:%d", mask, m->mask, m->file, m->line);
        if (m->fn != fn || m->line != line || (m->file != file && strcmp(m->file, file)))
            emu_report(file, line, "lanes of one mask at different places: others wait at %s:%d", m->file, m->line);
        return m;
    }
    emu_meeting *m = &w->open[w->n_open++];
    *m = emu_meeting{fn, mask, 0, file, line};
    return m;
}

extern "C" void qn_emu_meet(qn_emu_warp_fn fn, void *args, unsigned mask, const char *file, int line) {
    emu_fiber *f = emu_self();
    emu_warp *w = &f->block->warps[f->warp];
    check_member(f, w, mask, file, line);
    emu_meeting *m = find_meeting(w, fn, mask, file, line);
    w->args[f->lane] = args;
    f->wait_file = file, f->wait_line = line;
    m->arrived |= 1u << f->lane;
    if (m->arrived != mask) {
        f->at_barrier = false;
        wait_at(f, file, line);
        return;
    }
    *m = w->open[--w->n_open];
    fn(w->args, mask);
    if (fn == qn_emu_op_sync && mask == w->all) w->epoch++;
    set_ready(f->block, f->warp, mask & ~(1u << f->lane));
    maybe_yield(f, file, line);
}

extern "C" void qn_emu_barrier(const char *file, int line) {
    emu_fiber *f = emu_self();
    emu_block *b = f->block;
    if (b->n_alive != b->n_threads) emu_report(file, line, "barrier: %u of %u threads have returned before it", b->n_threads - b->n_alive, b->n_threads);
    if (!b->at_barrier) b->barrier_file = file, b->barrier_line = line;
    else if (b->barrier_line != line || strcmp(b->barrier_file, file))
        emu_report(file, line, "threads of the block at different barriers: others wait at %s:%d", b->barrier_file, b->barrier_line);
    if (++b->at_barrier < b->n_threads) {
        f->at_barrier = true;
        wait_at(f, file, line);
        return;
    }
    b->at_barrier = 0;
    b->epoch++;
    for (unsigned w = 0; w < b->n_warps; w++) {
        b->warps[w].epoch++;
        set_ready(b, w, b->warps[w].all & ~(w == f->warp ? 1u << f->lane : 0u));
    }
    maybe_yield(f, file, line);
}

static void check_exit(emu_fiber *f, emu_block *b) {
    if (f->n_copies) emu_report(f->copies[0].file, f->copies[0].line, "the thread returned with %u copies by cp.async not waited for", f->n_copies);
    if (b->at_barrier) emu_report(b->barrier_file, b->barrier_line, "a thread returned, but %u wait for it at this barrier", b->at_barrier);
    emu_warp *w = &b->warps[f->warp];
    for (unsigned i = 0; i < w->n_open; i++)
        if (w->open[i].mask >> f->lane & 1u)
            emu_report(w->open[i].file, w->open[i].line, "lane %u returned, but lanes 0x%08x wait for it here", f->lane, w->open[i].arrived);
}

/* First frame of every fiber. */
static void start() {
    emu_fiber *f = emu_self();
    emu_block *b = f->block;
    b->launch->call->run();
    check_exit(f, b);
    b->warps[f->warp].alive &= ~(1u << f->lane);
    if (--b->n_alive == 0) emu_leave(b);
    emu_fiber *n = next_ready(b);
    if (!n) report_deadlock(b, nullptr, 0);
    go(&b->dropped_sp, n);
}

static void prepare_fiber(emu_block *b, unsigned i, const uint3 &at) {
    emu_fiber *f = &b->fibers[i];
    const emu_launch *l = b->launch;
    f->here.thread = uint3{i % l->block.x, i / l->block.x % l->block.y, i / l->block.x / l->block.y};
    f->here.block = at;
    f->here.block_dim = l->block;
    f->here.grid_dim = l->grid;
    f->block = b;
    f->warp = i / EMU_LANES, f->lane = i % EMU_LANES;
    f->group = f->n_copies = 0;
    uintptr_t top = (uintptr_t)b->stacks + (size_t)(i + 1) * STACK - (size_t)(i % STAGGERS) * STAGGER - 64;
    void **sp = reinterpret_cast<void **>(top & ~(uintptr_t)15);
    *--sp = nullptr; /* start() must find the stack as after a call; it has no caller */
    *--sp = reinterpret_cast<void *>(&start);
    for (int r = 0; r < 6; r++) *--sp = nullptr;
    f->sp = sp;
}

/* Runs block `linear` of the launch. */
void emu_block_run(emu_block *b, emu_launch *l, uint64_t linear) {
    const emu_settings &s = emu_config();
    b->launch = l;
    b->linear = linear;
    b->order = s.order;
    b->random.seed(s.seed + l->number * 1000003u + linear);
    b->n_threads = b->n_alive = l->block.x * l->block.y * l->block.z;
    b->n_warps = (b->n_threads + EMU_LANES - 1) / EMU_LANES;
    b->at_barrier = b->epoch = b->ready_warps = 0;
    b->shared_static = b->shared_dynamic = nullptr;
    uint3 at = {(unsigned)(linear % l->grid.x), (unsigned)(linear / l->grid.x % l->grid.y), (unsigned)(linear / l->grid.x / l->grid.y)};
    for (unsigned i = 0; i < b->n_threads; i++) prepare_fiber(b, i, at);
    for (unsigned w = 0; w < b->n_warps; w++) {
        unsigned lanes = b->n_threads - w * EMU_LANES;
        b->warps[w].ready = 0;
        b->warps[w].n_open = b->warps[w].epoch = 0;
        b->warps[w].all = b->warps[w].alive = lanes >= EMU_LANES ? 0xffffffffu : (1u << lanes) - 1;
        set_ready(b, w, b->warps[w].all);
    }
    emu_block_begins(b);
    go(&b->main_sp, next_ready(b));
    emu_block_ends(b);
    if (l->failed) EMU_UNPOISON(b->stacks, (size_t)EMU_THREADS_MAX * STACK); /* frames that were left */
    if (b->shared_static) EMU_POISON(b->shared_static, b->static_bytes);
    if (b->shared_dynamic) EMU_POISON(b->shared_dynamic, l->dynamic);
}

/* Shared memory lies against the guard page at its end. New for each block: 0xff, which is NaN in every float format. */
static void place_shared(unsigned char **at, unsigned char *end, size_t bytes, size_t align) {
    unsigned char *p = end - (bytes + 127) / 128 * 128;
    if (align > 128 || (uintptr_t)p % 128) abort();
    *at = p;
    EMU_UNPOISON(p, bytes);
    emu_fill(p, bytes);
}
extern "C" void *qn_emu_shared(size_t bytes, size_t align, const char *file, int line) {
    emu_block *b = emu_self()->block;
    if (!b->shared_static) {
        if (bytes > EMU_SHARED_STATIC) emu_report(file, line, "%zu bytes of static shared memory, %d are allowed", bytes, EMU_SHARED_STATIC);
        b->static_bytes = bytes, b->static_file = file, b->static_line = line;
        place_shared(&b->shared_static, b->arena_static_end, bytes, align);
        if (bytes + b->launch->dynamic > EMU_SHARED_MOST) emu_report(file, line, "%zu bytes of shared memory, static and dynamic", bytes + b->launch->dynamic);
    }
    if (b->static_bytes != bytes || b->static_line != line || strcmp(b->static_file, file))
        emu_report(file, line, "a second QN_SHARED in one kernel; the first is at %s:%d", b->static_file, b->static_line);
    return b->shared_static;
}
extern "C" void *qn_emu_shared_dyn(size_t bytes, size_t align, const char *file, int line) {
    emu_block *b = emu_self()->block;
    if (bytes > b->launch->dynamic) emu_report(file, line, "the struct of shared memory has %zu bytes, the launch gave %zu", bytes, b->launch->dynamic);
    if (!b->shared_dynamic) place_shared(&b->shared_dynamic, b->arena_dynamic_end, b->launch->dynamic, align);
    return b->shared_dynamic;
}
