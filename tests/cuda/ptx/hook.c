/* Puts the interpreter under the launchers of the CUDA backend, in any program that links the emulator: the same tests then run the
 * device branch. Off unless the environment asks:
 *   QN_PTX=FOLDER      run every launch from the .ptx files there (build/ptx/sm_80, build/ptx/sm_100)
 *   QN_PTX_COMPARE=1   run it in the emulator as well, from the same memory, and compare all device memory afterwards
 *   QN_PTX_TELL=1      count launches, words and dynamic shared memory (budget.tsv) on stdout at exit
 *   QN_PTX_ORDER=reverse, QN_PTX_COPIES=early   as in ptx.h
 * An entry is found by the host function's symbol, which both compilers mangle alike but for the L of internal linkage.
 *
 * How memory compares: bit for bit. Both compute what a card may approximate (ex2, rsqrt) in double and round once, and kernels take nothing
 * from a library of either side that is not exact, so the first word that differs is a bug and ends the process. */
#include "tests/cuda/ptx/impl.h"

#include "engine/cuda/emu/testing.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MODULES_MAX = 64, KERNELS_MAX = 1024, REGIONS_MAX = 4096 };
static struct qn_ptx *modules[MODULES_MAX];
static int n_modules;
static struct { const void *host; struct qn_ptx *m; const char *entry; size_t dynamic; } kernels[KERNELS_MAX];
static int n_kernels, comparing;
static struct { uint64_t launches, words; } seen;

static _Noreturn void stop(const char *what, const char *about) {
    fprintf(stderr, "ptx: %s: %s\n", what, about);
    abort();
}

/* ---- the symbol of a host function ---- */

/* The name of the function at `value` in a mapped ELF file, or NULL. */
static const char *symbol_in(const uint8_t *file, size_t size, uint64_t value) {
    const Elf64_Ehdr *h = (const Elf64_Ehdr *)file;
    if (size < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) || h->e_shoff + (uint64_t)h->e_shnum * sizeof(Elf64_Shdr) > size) return NULL;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(file + h->e_shoff);
    for (int k = 0; k < h->e_shnum; k++) {
        const Elf64_Shdr *s = &sections[k];
        if (s->sh_type != SHT_SYMTAB || s->sh_offset + s->sh_size > size) continue;
        const char *names = (const char *)file + sections[s->sh_link].sh_offset;
        const Elf64_Sym *y = (const Elf64_Sym *)(file + s->sh_offset);
        for (size_t n = s->sh_size / sizeof *y; n; n--, y++)
            if (ELF64_ST_TYPE(y->st_info) == STT_FUNC && y->st_value == value) return names + y->st_name;
    }
    return NULL;
}
static void symbol_of(const void *function, char name[NAME_MAX_]) {
    Dl_info where;
    struct stat st;
    if (!dladdr(function, &where)) stop("no file holds the kernel's function", "dladdr");
    int fd = open(where.dli_fname, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) stop("cannot be read", where.dli_fname);
    void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED) stop("cannot be mapped", where.dli_fname);
    const char *s = symbol_in(file, (size_t)st.st_size, (uint64_t)((uintptr_t)function - (uintptr_t)where.dli_fbase));
    if (!s) stop("has no symbol for a kernel (stripped?)", where.dli_fname);
    snprintf(name, NAME_MAX_, "%s", s);
    munmap(file, (size_t)st.st_size);
}

static void open_modules(void) {
    const char *folder = getenv("QN_PTX");
    DIR *d = opendir(folder);
    if (!d) stop("cannot be opened", folder);
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        size_t n = strlen(e->d_name);
        if (n < 4 || strcmp(e->d_name + n - 4, ".ptx")) continue;
        if (n_modules == MODULES_MAX) stop("too many files", folder);
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        modules[n_modules++] = qn_ptx_open(path);
    }
    closedir(d);
    if (!n_modules) stop("holds no .ptx files", folder);
}

/* The two compilers' names for one function, made equal: without the L of internal linkage, without the anonymous namespace, which nvcc
 * numbers by file. _ZL3rmsPf and _Z3rmsPf; _ZN12_GLOBAL__N_1L3rmsEPf and _ZN45_GLOBAL__N__96b7de91_7_rows_cu_551f201e3rmsEPf. */
static void normal_name(const char *s, char out[NAME_MAX_]) {
    size_t n = 2 + (!strncmp(s, "_ZN", 3)), length;
    char *end;
    snprintf(out, NAME_MAX_, "%.*s", (int)n, s);
    for (s += n; *s == 'L' || (*s >= '0' && *s <= '9');) {
        if (*s == 'L') { s++; continue; }
        length = strtoul(s, &end, 10);
        if (strncmp(end, "_GLOBAL__N_", 11) || strlen(end) < length) break;
        s = end + length;
    }
    snprintf(out + n, NAME_MAX_ - n, "%s", s);
}
static void find_kernel(const void *host, const char *launched) {
    char symbol[NAME_MAX_], name[NAME_MAX_], other[NAME_MAX_];
    symbol_of(host, symbol);
    normal_name(symbol, name);
    if (n_kernels == KERNELS_MAX) stop("too many kernels", launched);
    struct qn_ptx *in = NULL;
    const char *entry = NULL;
    for (int k = 0; k < n_modules; k++)
        for (int e = 0; e < modules[k]->n_entries; e++) {
            normal_name(modules[k]->entries[e].name, other);
            if (strcmp(other, name)) continue;
            if (in) stop("two files have an entry of this name", name);
            in = modules[k], entry = modules[k]->entries[e].name;
        }
    if (!in) stop("no file has this entry", name);
    kernels[n_kernels].host = host, kernels[n_kernels].m = in, kernels[n_kernels++].entry = entry;
}

static int find_memory(uint64_t address, uint64_t *low, uint64_t *high) {
    void *base;
    size_t bytes;
    if (!qn_emu_device_region((const void *)(uintptr_t)address, 0, &base, &bytes)) return 0;
    *low = (uint64_t)(uintptr_t)base, *high = *low + bytes;
    return 1;
}

/* ---- comparing ---- */

static struct region { uint8_t *at, *before, *ptx; size_t bytes; } regions[REGIONS_MAX];
static int n_regions;

static uint8_t *copy_of(const uint8_t *p, size_t n) {
    uint8_t *c = malloc(n ? n : 1);
    if (!c) abort();
    memcpy(c, p, n);
    return c;
}
static void save_regions(void) {
    void *base = NULL;
    size_t bytes = 0;
    for (n_regions = 0; qn_emu_device_region((uint8_t *)base + bytes, 1, &base, &bytes); n_regions++) {
        if (n_regions == REGIONS_MAX) stop("too many allocations", "to compare");
        regions[n_regions] = (struct region){.at = base, .bytes = bytes, .before = copy_of(base, bytes)};
    }
}

static void compare_regions(const char *kernel) {
    for (int k = 0; k < n_regions; k++) {
        struct region *r = &regions[k];
        for (size_t n = 0; n < r->bytes; n += 4) {
            uint32_t was = 0, here = 0, ptx = 0;
            size_t left = r->bytes - n < 4 ? r->bytes - n : 4;
            memcpy(&was, r->before + n, left), memcpy(&here, r->at + n, left), memcpy(&ptx, r->ptx + n, left);
            seen.words += here != was || ptx != was;
            if (here == ptx) continue;
            fprintf(stderr, "ptx: %s: word %zu of the allocation of %zu bytes at %p: emulator 0x%08x, PTX 0x%08x, before 0x%08x\n", kernel, n / 4, r->bytes, (void *)r->at, here, ptx, was);
            abort();
        }
        free(r->before), free(r->ptx);
    }
}

static int run(const struct qn_emu_grid *g) {
    int k = 0;
    struct qn_ptx_arg args[64];
    if (!n_modules) open_modules();
    while (k < n_kernels && kernels[k].host != g->kernel) k++;
    if (k == n_kernels) find_kernel(g->kernel, g->name);
    for (int a = 0; a < g->n_args; a++) args[a] = (struct qn_ptx_arg){g->args[a], g->arg_bytes[a]};
    if (g->dynamic > kernels[k].dynamic) kernels[k].dynamic = g->dynamic;
    if (comparing) save_regions();
    qn_ptx_launch(kernels[k].m, kernels[k].entry, g->grid, g->block, g->dynamic, args, g->n_args);
    seen.launches++;
    if (!comparing) return 0;
    for (int n = 0; n < n_regions; n++) {
        regions[n].ptx = copy_of(regions[n].at, regions[n].bytes);
        memcpy(regions[n].at, regions[n].before, regions[n].bytes);
    }
    int rc = g->emulate(g);
    if (rc == 0) compare_regions(kernels[k].entry);
    return rc;
}

static void tell(void) {
    for (int k = 0; k < n_kernels; k++) fprintf(stdout, "ptx: %s takes %zu bytes of dynamic shared memory\n", kernels[k].entry, kernels[k].dynamic);
    if (seen.launches) fprintf(stdout, "ptx: %llu launches, %llu words written\n", (unsigned long long)seen.launches, (unsigned long long)seen.words);
}
__attribute__((constructor)) static void install(void) {
    const char *order = getenv("QN_PTX_ORDER"), *copies = getenv("QN_PTX_COPIES"), *both = getenv("QN_PTX_COMPARE");
    if (!getenv("QN_PTX")) return;
    comparing = both && !strcmp(both, "1");
    qn_ptx_backward(order && !strcmp(order, "reverse"));
    qn_ptx_late_copies(!(copies && !strcmp(copies, "early")));
    qn_ptx_mma_in_order(comparing); /* so that differences are bugs */
    qn_ptx_on_find(find_memory);
    qn_emu_run_with(run);
    if (getenv("QN_PTX_TELL")) atexit(tell);
}
