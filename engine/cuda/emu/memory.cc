/* Device and pinned memory. Device memory is one reserved range of addresses, given out once and never again, so that what was freed
 * stays forbidden. An allocation ends at a page that nobody may touch (less what alignment to 256 leaves), and is filled with 0xff. A
 * fault in a kernel becomes a report with the nearest allocation. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <map>
#include <string>

#include "engine/cuda/emu/block.h"
#include "engine/cuda/emu/testing.h"

#ifdef QN_EMU_CHECKED
static const size_t RANGE = (size_t)1 << 34; /* the shadow has 41 bytes a byte */
#else
static const size_t RANGE = (size_t)1 << 38;
#endif
static const size_t PAGE = 4096, ALIGN = 256;
struct region {
    size_t bytes;
    unsigned char *map;
    size_t map_bytes;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char *range, *range_free; /* used up to here */
static std::map<uintptr_t, region> device, pinned;
static size_t device_used;

static unsigned char *reserve_range() {
    if (range) return range;
    void *p = mmap(nullptr, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) perror("cuda emulator: address space for device memory"), abort();
    range = range_free = static_cast<unsigned char *>(p);
    return range;
}
bool emu_in_device_range(const void *p) { return range && (size_t)((uintptr_t)p - (uintptr_t)range) < RANGE; }
const void *emu_device_base() { return reserve_range(); }
size_t emu_device_bytes() { return RANGE; }

void emu_fill(void *p, size_t bytes) {
    memset(p, 0xff, bytes);
    emu_shadow_fresh(p, bytes);
}

/* [map: guard | slack | bytes | slack < ALIGN], the guard of the next region follows. */
static void *place(unsigned char *map, size_t map_bytes, size_t bytes, std::map<uintptr_t, region> &in) {
    unsigned char *p = map + map_bytes - (bytes + ALIGN - 1) / ALIGN * ALIGN;
    in[(uintptr_t)p] = region{bytes, map, map_bytes};
    memset(p, 0xff, bytes);
    EMU_POISON(map, (size_t)(p - map));
    EMU_POISON(p + bytes, (size_t)(map + map_bytes - (p + bytes)));
    return p;
}
static size_t pages(size_t bytes) { return ((bytes + ALIGN - 1) / ALIGN * ALIGN + PAGE - 1) / PAGE * PAGE; }

extern "C" cudaError_t cudaMalloc(void **out, size_t bytes) {
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    size_t n = pages(bytes);
    pthread_mutex_lock(&lock);
    reserve_range();
    bool fits = device_used + n <= emu_config().memory && (size_t)(range + RANGE - range_free) >= n + PAGE;
    unsigned char *map = range_free;
    if (fits && mprotect(map, n, PROT_READ | PROT_WRITE) == 0) {
        range_free += n + PAGE;
        device_used += n;
        *out = place(map, n, bytes, device);
        emu_shadow_fresh(*out, bytes);
    }
    pthread_mutex_unlock(&lock);
    return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}
extern "C" cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    size_t n = pages(bytes);
    void *map = mmap(nullptr, n + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return cudaErrorMemoryAllocation;
    mprotect(static_cast<unsigned char *>(map) + n, PAGE, PROT_NONE);
    pthread_mutex_lock(&lock);
    *out = place(static_cast<unsigned char *>(map), n, bytes, pinned);
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}
extern "C" cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaHostAlloc(out, bytes, 0); }

static bool take_out(std::map<uintptr_t, region> &from, void *p, region *r) {
    pthread_mutex_lock(&lock);
    auto it = from.find((uintptr_t)p);
    bool there = it != from.end();
    if (there) *r = it->second, from.erase(it);
    pthread_mutex_unlock(&lock);
    return there;
}
/* Both wait for the whole device, as the card's do. */
extern "C" cudaError_t cudaFree(void *p) {
    region r;
    if (!p) return cudaSuccess;
    cudaDeviceSynchronize();
    if (!take_out(device, p, &r)) return emu_report(nullptr, 0, "cudaFree(%p): no allocation starts there", p), cudaErrorInvalidValue;
    device_used -= r.map_bytes;
    emu_shadow_gone(p, r.bytes);
    madvise(r.map, r.map_bytes, MADV_DONTNEED);
    mprotect(r.map, r.map_bytes, PROT_NONE);
    return cudaSuccess;
}
extern "C" cudaError_t cudaFreeHost(void *p) {
    region r;
    if (!p) return cudaSuccess;
    cudaDeviceSynchronize();
    if (!take_out(pinned, p, &r)) return emu_report(nullptr, 0, "cudaFreeHost(%p): no allocation starts there", p), cudaErrorInvalidValue;
    EMU_UNPOISON(r.map, r.map_bytes);
    munmap(r.map, r.map_bytes + PAGE);
    return cudaSuccess;
}
extern "C" cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    *total_bytes = emu_config().memory;
    *free_bytes = *total_bytes - device_used;
    return cudaSuccess;
}

static bool holds(const std::map<uintptr_t, region> &in, uintptr_t a, size_t *bytes) {
    auto it = in.upper_bound(a);
    if (it == in.begin()) return false;
    --it;
    if (a - it->first >= it->second.bytes) return false;
    *bytes = it->first + it->second.bytes - a;
    return true;
}
emu_place emu_where(const void *p, size_t *bytes) {
    pthread_mutex_lock(&lock);
    emu_place r = PLACE_HOST;
    *bytes = 0;
    if (holds(device, (uintptr_t)p, bytes)) r = PLACE_DEVICE;
    else if (emu_in_device_range(p)) r = PLACE_DEVICE_GAP;
    else if (holds(pinned, (uintptr_t)p, bytes)) r = PLACE_PINNED;
    pthread_mutex_unlock(&lock);
    return r;
}

extern "C" int qn_emu_device_region(const void *p, int at_or_above, void **base, size_t *bytes) {
    uintptr_t a = (uintptr_t)p;
    pthread_mutex_lock(&lock);
    auto it = device.upper_bound(a);
    bool inside = it != device.begin() && a - std::prev(it)->first < std::prev(it)->second.bytes;
    if (inside) --it;
    bool found = it != device.end() && (inside || at_or_above);
    if (found) *base = (void *)it->first, *bytes = it->second.bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

/* "N bytes past the end of the M bytes at P", for reports. No lock: it may be a signal handler that asks. */
const char *emu_describe(const void *p, char *text, size_t room) {
    uintptr_t a = (uintptr_t)p;
    auto it = device.upper_bound(a);
    if (!emu_in_device_range(p)) snprintf(text, room, "%p, not device memory", p);
    else if (it != device.begin()) {
        --it;
        size_t off = a - it->first;
        if (off < it->second.bytes) snprintf(text, room, "%p, byte %zu of the %zu at %p", p, off, it->second.bytes, (void *)it->first);
        else snprintf(text, room, "%p, %zu bytes past the end of the %zu at %p", p, off - it->second.bytes, it->second.bytes, (void *)it->first);
    } else snprintf(text, room, "%p, before all device memory", p);
    return text;
}

/* First line of what addr2line, if there is one, says of an instruction; for reports only. */
static bool ask_addr2line(const char *options, const void *pc, char *line, int room) {
    Dl_info info;
    char cmd[600];
    if (!dladdr(pc, &info) || !info.dli_fname) return false;
    snprintf(cmd, sizeof cmd, "addr2line %s -e '%s' 0x%zx 2>/dev/null", options, info.dli_fname, (size_t)((uintptr_t)pc - (uintptr_t)info.dli_fbase));
    FILE *f = popen(cmd, "r");
    bool ok = f && fgets(line, room, f) && line[0] != '?';
    if (ok) line[strcspn(line, "\n")] = 0;
    if (f) pclose(f);
    return ok;
}
const char *emu_code_place(const void *pc, char *text, size_t room) {
    char line[500];
    if (!ask_addr2line("", pc, line, sizeof line)) snprintf(text, room, "code at %p", pc);
    else line[strcspn(line, " ")] = 0, snprintf(text, room, "%s", line);
    return text;
}
/* Without result, scope and parameters. */
static std::string short_name(std::string s) {
    static const char *const drop[] = {"void ", "(anonymous namespace)::"};
    for (const char *d : drop)
        for (size_t at; (at = s.find(d)) != std::string::npos;) s.erase(at, strlen(d));
    return s.substr(0, s.find('('));
}
const char *emu_kernel_name(const void *kernel, const char *otherwise, char *text, size_t room) {
    static std::map<const void *, std::string> names; /* asking takes milliseconds */
    static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
    char line[500];
    pthread_mutex_lock(&names_lock);
    std::string &name = names[kernel];
    if (name.empty() && ask_addr2line("-f -C", kernel, line, sizeof line)) name = short_name(line);
    if (name.empty()) name = otherwise;
    snprintf(text, room, "%s", name.c_str());
    pthread_mutex_unlock(&names_lock);
    return text;
}

#ifdef __SANITIZE_ADDRESS__
void emu_catch_faults() {} /* ASan reports them */
#else
static void on_fault(int sig, siginfo_t *info, void *context) {
    char where[200], code[600];
    const emu_fiber *f = emu_self();
    if (!f) { /* not ours: the default action, on return */
        signal(sig, SIG_DFL);
        return;
    }
    const void *pc = (const void *)static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP];
    emu_code_place(pc, code, sizeof code);
    int owner = emu_stack_owner(f->block, info->si_addr);
    if (owner >= 0) emu_report(nullptr, 0, "%s: fault at %p, under the stack of thread %d", code, info->si_addr, owner);
    else emu_report(nullptr, 0, "%s: fault at %s", code, emu_describe(info->si_addr, where, sizeof where));
}
void emu_catch_faults() {
    stack_t ss = {};
    ss.ss_size = 256 * 1024;
    ss.ss_sp = mmap(nullptr, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ss.ss_sp == MAP_FAILED || sigaltstack(&ss, nullptr)) return;
    struct sigaction sa = {};
    sa.sa_sigaction = on_fault;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &sa, nullptr);
    sigaction(SIGBUS, &sa, nullptr);
}
#endif
