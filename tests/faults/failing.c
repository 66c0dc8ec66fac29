/* Preloaded into quernd by test_memory.py: the n-th allocation fails, once or from then on.
 *
 * The file named by QN_FAIL_FILE holds two int64: a countdown and a switch. While the countdown is positive every allocation of
 * the process takes one off; the one that takes the last fails, and with the switch at 1 all after it fail too. The test maps the
 * same file, so it arms the fault at a moment of its choice and reads off how many allocations something takes.
 * malloc, calloc, realloc, aligned_alloc and posix_memalign count, whoever calls them: ours, jansson, libmicrohttpd, libuv. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static struct { _Atomic int64_t left, sticky; } *fault;

__attribute__((constructor)) static void open_file(void) {
    const char *path = getenv("QN_FAIL_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *p = mmap(NULL, sizeof *fault, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED) fault = p;
}

static int fails(void) {
    if (!fault) return 0;
    int64_t left = atomic_load_explicit(&fault->left, memory_order_relaxed);
    if (left <= 0) { /* 0: off; -1: fired */
        if (left == 0 || !atomic_load_explicit(&fault->sticky, memory_order_relaxed)) return 0;
        errno = ENOMEM;
        return 1;
    }
    if (atomic_fetch_sub(&fault->left, 1) != 1) return 0;
    atomic_store(&fault->left, -1);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }

void *aligned_alloc(size_t align, size_t n) {
    void *p = fails() ? NULL : __libc_memalign(align, n);
    return p;
}

int posix_memalign(void **out, size_t align, size_t n) {
    void *p = fails() ? NULL : __libc_memalign(align, n);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}
