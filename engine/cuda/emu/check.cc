/* The checked build. Kernels are compiled with -fsanitize=thread but not linked with its library: the entry points that the compiler
 * calls at every access are ours (at the end), and wrappers call emu_access themselves. Each access is looked at for
 *  - what it touches: device memory, this block's shared memory, the thread's own stack, constants; the rest is an error;
 *  - bounds and alignment; whether every byte read was written before;
 *  - races: a shadow cell per byte keeps the last writer and two readers, each with thread, block, and how many barriers of the block
 *    and synchronisations of the warp had been passed. Two accesses of different threads conflict if one writes, not both are atomic,
 *    and neither a later barrier (same block) nor a later __syncwarp (same warp) stands between them. As the order is that of the
 *    program and not of the run, one run shows it. Cells are not cleared: they carry the launch (device) or block (shared) they are of.
 * Blocks order each other in one way only: fence, atomic in one; atomic on the same address in the other ("last block finishes").
 *
 * Not seen: an access that lies in another allocation by chance; bytes copied by a call of memcpy in a kernel; stale stack. */
#ifdef QN_EMU_CHECKED
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <map>
#include <unordered_map>
#include <vector>

#include "engine/cuda/emu/check.h"
#include "engine/cuda/emu/testing.h"

/* Thread 10 bits, block 21, barriers 14, warp synchronisations 18, atomic 1. Never 0, since barriers count from 1. */
typedef uint64_t stamp;
enum { BARRIERS_MAX = (1 << 14) - 2, SYNCS_MAX = (1 << 18) - 1 };
static unsigned thread_of(stamp s) { return (unsigned)(s & 1023u); }
static unsigned block_of(stamp s) { return (unsigned)(s >> 10 & 0x1fffffu); }
static unsigned barriers_of(stamp s) { return (unsigned)(s >> 31 & 0x3fffu); }
static unsigned syncs_of(stamp s) { return (unsigned)(s >> 45 & 0x3ffffu); }
static bool is_atomic(stamp s) { return s >> 63; }
static unsigned warp_of(stamp s) { return thread_of(s) / EMU_LANES; }

struct cell {
    stamp writer, reader[2];
    uint32_t generation, writer_site, reader_site[2];
};
enum state : unsigned char { NOTHING, UNWRITTEN, WRITTEN };

static cell *device_cells, *static_cells, *dynamic_cells;
static unsigned char *device_states, static_states[EMU_SHARED_STATIC + 4096], dynamic_states[EMU_SHARED_MOST + 4096];
static uint32_t shared_generation;

static void *reserve(size_t bytes) {
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) perror("cuda emulator: shadow"), abort();
    return p;
}
static void open_shadow() {
    if (device_cells) return;
    device_cells = static_cast<cell *>(reserve(emu_device_bytes() * sizeof(cell)));
    device_states = static_cast<unsigned char *>(reserve(emu_device_bytes()));
    static_cells = static_cast<cell *>(reserve(sizeof static_states * sizeof(cell)));
    dynamic_cells = static_cast<cell *>(reserve(sizeof dynamic_states * sizeof(cell)));
}
static size_t device_offset(const void *p) { return (size_t)((const unsigned char *)p - (const unsigned char *)emu_device_base()); }

/* Shadow of shared memory counts from the ends of the two arenas, where the memory lies. */
struct place {
    cell *cells;
    unsigned char *states;
};
static bool shared_place(const emu_block *b, const void *p, size_t bytes, place *out) {
    const unsigned char *c = static_cast<const unsigned char *>(p);
    if (b->shared_static && c >= b->shared_static && c + bytes <= b->shared_static + b->static_bytes) {
        size_t off = (size_t)(c - b->shared_static);
        *out = place{static_cells + off, static_states + off};
        return true;
    }
    if (b->shared_dynamic && c >= b->shared_dynamic && c + bytes <= b->shared_dynamic + b->launch->dynamic) {
        size_t off = (size_t)(c - b->shared_dynamic);
        *out = place{dynamic_cells + off, dynamic_states + off};
        return true;
    }
    return false;
}

/* What the host does to memory. */
void emu_shadow_fresh(const void *p, size_t bytes) {
    open_shadow();
    place at;
    if (emu_in_device_range(p)) memset(device_states + device_offset(p), UNWRITTEN, bytes);
    else if (emu_self() && shared_place(emu_self()->block, p, bytes, &at)) memset(at.states, UNWRITTEN, bytes);
}
void emu_shadow_gone(const void *p, size_t bytes) { memset(device_states + device_offset(p), NOTHING, bytes); }
void emu_shadow_written(const void *p, size_t bytes) {
    if (emu_in_device_range(p)) memset(device_states + device_offset(p), WRITTEN, bytes);
}
void emu_shadow_copied(const void *to, const void *from, size_t bytes) {
    if (!emu_in_device_range(to)) return;
    if (emu_in_device_range(from)) memmove(device_states + device_offset(to), device_states + device_offset(from), bytes);
    else emu_shadow_written(to, bytes);
}

/* Sites have numbers: code within 1 GiB of here by distance, others by a table. */
static std::vector<emu_site> named_sites;
static uint32_t site_number(const emu_site &s) {
    if (s.pc) return (uint32_t)((intptr_t)s.pc - (intptr_t)&open_shadow + (1 << 30)) & 0x7fffffffu;
    static struct { const char *file; int line; uint32_t n; } recent[1024];
    static std::map<std::pair<const char *, int>, uint32_t> numbers;
    auto &slot = recent[((uintptr_t)s.file * 31 + (uintptr_t)s.line * 7) % 1024];
    if (slot.file != s.file || slot.line != s.line) {
        auto it = numbers.emplace(std::make_pair(s.file, s.line), (uint32_t)named_sites.size());
        if (it.second) named_sites.push_back(s);
        slot = {s.file, s.line, it.first->second};
    }
    return slot.n | 0x80000000u;
}
const char *emu_site_text(uint32_t n, char *text, size_t room) {
    if (!(n & 0x80000000u)) return emu_code_place((const void *)((intptr_t)&open_shadow + (intptr_t)n - (1 << 30) - 1), text, room);
    const emu_site &s = named_sites[n & 0x7fffffffu];
    snprintf(text, room, "%s:%d", s.file, s.line);
    return text;
}
static void complain(emu_fiber *f, const emu_site &at, const char *what) {
    char text[600];
    qn_emu_me = &f->here; /* ldmatrix looks at other lanes */
    if (at.pc) emu_report(nullptr, 0, "%s: %s", emu_site_text(site_number(at), text, sizeof text), what);
    else emu_report(at.file, at.line, "%s", what);
}

/* Releases by fence and atomic, per address, in this launch; what the running block has acquired of others. */
struct release { stamp by; };
struct acquired { stamp release, acquire; };
static std::unordered_map<uintptr_t, std::vector<release>> releases;
static std::unordered_map<unsigned, acquired> known;
static uint64_t releases_of; /* launch */
static bool block_fenced;

static bool before_in_block(stamp a, stamp b) {
    return thread_of(a) == thread_of(b) || barriers_of(a) < barriers_of(b) || (warp_of(a) == warp_of(b) && syncs_of(a) < syncs_of(b));
}
static bool ordered(stamp earlier, stamp me) {
    if (block_of(earlier) == block_of(me)) return before_in_block(earlier, me);
    if (known.empty()) return false;
    auto it = known.find(block_of(earlier));
    return it != known.end() && before_in_block(earlier, it->second.release) && before_in_block(it->second.acquire, me);
}
static void synchronise(emu_fiber *, const void *p, stamp me) {
    std::vector<release> &at = releases[(uintptr_t)p];
    for (const release &r : at)
        if (block_of(r.by) != block_of(me)) known.emplace(block_of(r.by), acquired{r.by, me});
    if (block_fenced) at.push_back(release{me});
}
void emu_fence_of(emu_fiber *) { block_fenced = true; }

void emu_block_begins(emu_block *b) {
    open_shadow();
    shared_generation++;
    known.clear();
    block_fenced = false;
    if (releases_of != b->launch->number) releases.clear(), releases_of = b->launch->number;
}
void emu_block_ends(emu_block *b) {
    if (emu_profiling) emu_profile_block_ends(b);
}

static stamp stamp_of(const emu_fiber *f, bool atomic) {
    const emu_block *b = f->block;
    uint32_t barriers = b->epoch, syncs = b->warps[f->warp].epoch;
    if (barriers > BARRIERS_MAX || syncs > SYNCS_MAX) emu_report(nullptr, 0, "more than %d barriers or %d warp synchronisations: a smaller shape, please", BARRIERS_MAX, SYNCS_MAX);
    return (stamp)(f->warp * EMU_LANES + f->lane) | (b->linear & 0x1fffffu) << 10 | (stamp)(barriers + 1) << 31 | (stamp)syncs << 45 | (stamp)atomic << 63;
}

static const char *const verbs[] = {"read", "write", "atomic"};
static void report_race(emu_fiber *f, const emu_site &at, const void *p, size_t bytes, int how, stamp other, uint32_t site, bool other_wrote) {
    char text[1200], place[600];
    snprintf(text, sizeof text, "race: %s of %zu bytes at %p, but thread %u of block %u %s there at %s, with no barrier or __syncwarp between", verbs[how], bytes, p,
             thread_of(other), block_of(other), is_atomic(other) ? "has an atomic" : other_wrote ? "writes" : "reads", emu_site_text(site, place, sizeof place));
    complain(f, at, text);
}
static void keep_reader(cell *c, stamp me, uint32_t site) {
    int slot = 1;
    for (int i = 1; i >= 0; i--) {
        stamp r = c->reader[i];
        if (!r || (thread_of(r) == thread_of(me) && block_of(r) == block_of(me)) || ordered(r, me)) slot = i;
    }
    /* Both of others: one of the own warp is worth less than one of another. */
    stamp r = c->reader[slot];
    if (slot == 1 && r && !ordered(r, me) && warp_of(r) != warp_of(c->reader[0])) return;
    c->reader[slot] = me, c->reader_site[slot] = site;
}
static void check_races(emu_fiber *f, cell *cells, uint32_t generation, const void *p, size_t bytes, int how, const emu_site &at) {
    stamp me = stamp_of(f, how == QN_EMU_ATOMIC);
    uint32_t site = site_number(at);
    for (size_t i = 0; i < bytes; i++) {
        cell *c = &cells[i];
        if (c->generation != generation) *c = cell{0, {0, 0}, generation, 0, {0, 0}};
        if (c->writer && !(how == QN_EMU_ATOMIC && is_atomic(c->writer)) && !ordered(c->writer, me)) report_race(f, at, p, bytes, how, c->writer, c->writer_site, true);
        if (how == QN_EMU_READ) {
            if (c->reader[0] != me) keep_reader(c, me, site);
            continue;
        }
        for (int k = 0; k < 2; k++)
            if (c->reader[k] && !ordered(c->reader[k], me)) report_race(f, at, p, bytes, how, c->reader[k], c->reader_site[k], false);
        c->reader[0] = c->reader[1] = 0;
        c->writer = me, c->writer_site = site;
    }
}
static void check_states(emu_fiber *f, unsigned char *states, const void *p, size_t bytes, int how, const emu_site &at) {
    char text[400], where[200];
    for (size_t i = 0; i < bytes; i++) {
        if (states[i] == WRITTEN) continue;
        if (states[i] == NOTHING) {
            snprintf(text, sizeof text, "%s of %zu bytes outside all allocations: %s", verbs[how], bytes, emu_describe((const unsigned char *)p + i, where, sizeof where));
            complain(f, at, text);
        }
        if (how != QN_EMU_WRITE) {
            snprintf(text, sizeof text, "%s of %zu bytes at %p that nobody has written", verbs[how], bytes, p);
            complain(f, at, text);
        }
        states[i] = WRITTEN;
    }
}

/* Read-only parts of the program: constant tables. */
struct range { uintptr_t from, to; };
static std::vector<range> constants;
static int add_constants(struct dl_phdr_info *info, size_t, void *) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &h = info->dlpi_phdr[i];
        bool fixed = (h.p_type == PT_LOAD && !(h.p_flags & PF_W)) || h.p_type == PT_GNU_RELRO;
        if (fixed) constants.push_back(range{info->dlpi_addr + h.p_vaddr, info->dlpi_addr + h.p_vaddr + h.p_memsz});
    }
    return 0;
}
static bool is_constant(uintptr_t a, size_t bytes) {
    for (int again = 0; again < 2; again++) {
        for (const range &r : constants)
            if (a >= r.from && a + bytes <= r.to) return true;
        if (again == 0) constants.clear(), dl_iterate_phdr(add_constants, nullptr); /* plug-ins come later */
    }
    return false;
}
static void check_other(emu_fiber *f, const void *p, size_t bytes, int how, const emu_site &at) {
    char text[300];
    size_t room;
    const emu_block *b = f->block;
    int owner = emu_stack_owner(b, p);
    if (owner >= 0) snprintf(text, sizeof text, "%s of %zu bytes at %p, on the stack of thread %d", verbs[how], bytes, p, owner);
    else if (how == QN_EMU_READ && is_constant((uintptr_t)p, bytes)) return;
    else if (emu_where(p, &room) == PLACE_PINNED && room >= bytes) return;
    else if (emu_in_arena(b, p)) snprintf(text, sizeof text, "%s of %zu bytes at %p, outside the block's shared memory", verbs[how], bytes, p);
    else snprintf(text, sizeof text, "%s of %zu bytes at %p, which is host memory", verbs[how], bytes, p);
    complain(f, at, text);
}

void emu_access(emu_fiber *f, const void *p, size_t bytes, int how, const emu_site &at) {
    place sh;
    char text[200];
    if (emu_stack_owner(f->block, p) == (int)(f->warp * EMU_LANES + f->lane)) return;
    if (bytes <= 16 && (bytes & (bytes - 1)) == 0 && (uintptr_t)p % bytes) {
        snprintf(text, sizeof text, "%s of %zu bytes at %p, not aligned", verbs[how], bytes, p);
        complain(f, at, text);
    }
    bool device = emu_in_device_range(p);
    if (device) sh = place{device_cells + device_offset(p), device_states + device_offset(p)};
    else if (!shared_place(f->block, p, bytes, &sh)) return check_other(f, p, bytes, how, at);
    check_states(f, sh.states, p, bytes, how, at);
    check_races(f, sh.cells, device ? (uint32_t)f->block->launch->number : shared_generation, p, bytes, how, at);
    if (how == QN_EMU_ATOMIC && device) synchronise(f, p, stamp_of(f, true));
    if (emu_profiling && how != QN_EMU_ATOMIC) emu_profile_note(f, p, bytes, how == QN_EMU_WRITE, !device, site_number(at));
}

void emu_copy_begins(emu_fiber *f, const emu_copy &c) {
    const emu_site at = {nullptr, c.file, c.line};
    place to;
    if (c.from) emu_access(f, c.from, 16, QN_EMU_READ, at);
    emu_access(f, c.to, 16, QN_EMU_WRITE, at);
    if (shared_place(f->block, c.to, 16, &to)) memset(to.states, UNWRITTEN, 16);
}
/* From here on the thread may read it, and others after a barrier from here. */
void emu_copy_lands(emu_fiber *f, const emu_copy &c) {
    const emu_site at = {nullptr, c.file, c.line};
    place to;
    if (!shared_place(f->block, c.to, 16, &to)) return;
    memset(to.states, WRITTEN, 16);
    check_races(f, to.cells, shared_generation, c.to, 16, QN_EMU_WRITE, at);
    if (c.from) check_races(f, device_cells + device_offset(c.from), (uint32_t)f->block->launch->number, c.from, 16, QN_EMU_READ, at);
}

/* What the compiler calls. Host code in the same files passes here too: no fiber, no check. */
static inline void seen(const void *p, size_t bytes, int how, const void *pc) {
    emu_fiber *f = emu_self();
    if (f) emu_access(f, p, bytes, how, emu_site{pc, nullptr, 0});
}
#define PC __builtin_return_address(0)
#define ENTRY(n)                                                                        \
    void __tsan_read##n(void *p) { seen(p, n, QN_EMU_READ, PC); }                       \
    void __tsan_write##n(void *p) { seen(p, n, QN_EMU_WRITE, PC); }                     \
    void __tsan_unaligned_read##n(const void *p) { seen(p, n, QN_EMU_READ, PC); }       \
    void __tsan_unaligned_write##n(void *p) { seen(p, n, QN_EMU_WRITE, PC); }           \
    void __tsan_volatile_read##n(void *p) { seen(p, n, QN_EMU_READ, PC); }              \
    void __tsan_volatile_write##n(void *p) { seen(p, n, QN_EMU_WRITE, PC); }
extern "C" {
ENTRY(1)
ENTRY(2)
ENTRY(4)
ENTRY(8)
ENTRY(16)
void __tsan_read_range(void *p, size_t n) { seen(p, n, QN_EMU_READ, PC); }
void __tsan_write_range(void *p, size_t n) { seen(p, n, QN_EMU_WRITE, PC); }
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
}
#endif
