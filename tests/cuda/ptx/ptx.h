/* Runs kernels from the PTX text that nvcc made of them, on the host: layer L3 of docs/cuda.md. It reads the text for what it
 * means by the PTX ISA manual (version 9.0), so it sees what nvcc made of the device branch of engine/cuda/portable.cuh, inline
 * assembly included, which the emulator (engine/cuda/emu) never compiles. Speed, caches and the order of memory between warps
 * are not modelled. What it does not know, or what a kernel must not do (an address outside the ranges below, a barrier that
 * not everybody reaches, lanes missing at a .sync), ends the process with the text of the line: it never guesses.
 *
 * Global addresses are host addresses. One thread may launch at a time. */
#ifndef QN_TESTS_CUDA_PTX_H
#define QN_TESTS_CUDA_PTX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct qn_ptx;
struct qn_ptx_arg {
    const void *p;
    size_t n; /* bytes; must be what the entry declares */
};

/* A file of PTX, or its text; `name` is for messages. The module owns its tables and device variables. */
struct qn_ptx *qn_ptx_open(const char *path);
struct qn_ptx *qn_ptx_parse(const char *text, const char *name);
void qn_ptx_close(struct qn_ptx *m);

/* Name of the entry: mangled as in the text, or the plain name of a kernel that no other shares ("rms" finds _Z3rmsPf). NULL if
 * there is none; an ambiguous one ends the process. */
const char *qn_ptx_entry(struct qn_ptx *m, const char *name);
/* Runs all blocks to their end. Shared memory: the entry's own, then `dynamic` bytes; all of it 0xFF before each block. */
void qn_ptx_launch(struct qn_ptx *m, const char *name, const unsigned grid[3], const unsigned block[3], size_t dynamic, const struct qn_ptx_arg *args, int n_args);

/* Memory that kernels may touch. Ranges do not overlap. */
void qn_ptx_allow(const void *p, size_t n, int writable);
void qn_ptx_forbid(const void *p);
/* Asked about an address that no range holds: 1 with the range around it, else 0. */
typedef int (*qn_ptx_find_fn)(uint64_t address, uint64_t *low, uint64_t *high);
void qn_ptx_on_find(qn_ptx_find_fn find);

/* cp.async: 1 (the default) brings the bytes at the wait that covers them and leaves 0xFF until then, 0 brings them at once. */
void qn_ptx_late_copies(int late);
/* mma of 16-bit floats: 0 (the default) sums in double and rounds once, 1 adds products one by one to the f32 accumulator. */
void qn_ptx_mma_in_order(int yes);
/* Order of warps within a block, and of blocks: 0 forward (the default), 1 backward. */
void qn_ptx_backward(int backward);
/* How often instructions with this opcode ("mma.sync.aligned...") ran, in all modules of the process. */
uint64_t qn_ptx_ran(const char *opcode);
uint64_t qn_ptx_steps(void);

#ifdef __cplusplus
}
#endif

#endif
