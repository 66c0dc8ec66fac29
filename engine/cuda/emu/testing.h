/* What tests may ask of the emulator beyond CUDA. Plain C. By default a report ends the process (SIGABRT); a test that plants a bug
 * collects reports instead: the kernel's remaining blocks are then left out and the launch counts as failed (cudaErrorLaunchFailure).
 * Settings hold from the next launch on; NULL or 0 leaves one as it is. */
#ifndef QN_CUDA_EMU_TESTING_H
#define QN_CUDA_EMU_TESTING_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void qn_emu_collect(int on);
/* Reports since the last call with forget; the text lives until then. */
int qn_emu_n_reports(void);
const char *qn_emu_report_text(int i);
void qn_emu_forget_reports(void);

/* As the environment variables of runtime.h: "reverse", "random:7"; "lazy"; "late"; threads. */
void qn_emu_set(const char *order, const char *streams, const char *cp_async, int threads);

/* Runs grids in the emulator's place, from the next launch on (NULL: the emulator again): the PTX interpreter of tests/cuda/ptx. Called
 * with the launch's lock held; returns 0, or the launch counts as failed. `emulate` runs the grid here after all, to compare. */
struct qn_emu_grid {
    const void *kernel; /* address of the host function */
    const char *name;
    unsigned grid[3], block[3];
    size_t dynamic;
    const void *const *args;
    const size_t *arg_bytes;
    int n_args;
    int (*emulate)(const struct qn_emu_grid *g); /* 0, or something was reported */
    void *launch;
};
typedef int (*qn_emu_runner)(const struct qn_emu_grid *g);
void qn_emu_run_with(qn_emu_runner run);
/* The allocation of device memory that holds p, or else the next one above p (`at_or_above`): 1, or 0. */
int qn_emu_device_region(const void *p, int at_or_above, void **base, size_t *bytes);

/* 1 in the checked build (races, bounds, unwritten bytes; the profile below), which is slower: tests take smaller shapes. */
int qn_emu_is_checked(void);

/* What the requests of warps cost; counted between profile(1) and profile(0), kept until the next profile(1). "Least": if the bytes
 * wanted lay side by side (sectors), if no banks conflicted (wavefronts). */
struct qn_emu_traffic {
    unsigned long long requests, bytes, sectors, sectors_least, wavefronts, wavefronts_least;
};
enum qn_emu_traffic_kind { QN_EMU_DEVICE_READS, QN_EMU_DEVICE_WRITES, QN_EMU_SHARED_READS, QN_EMU_SHARED_WRITES };
void qn_emu_profile(int on);
/* Sum over the places in kernels whose name contains `kernel` that access `bytes` a lane (0: any); how many places. */
int qn_emu_profile_get(const char *kernel, enum qn_emu_traffic_kind kind, int bytes, struct qn_emu_traffic *out);
/* A line for each place, on standard output. */
void qn_emu_profile_print(void);

#ifdef __cplusplus
}
#endif

#endif
