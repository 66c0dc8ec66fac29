/* What tests may ask of the emulator beyond CUDA. Plain C. By default a report ends the process (SIGABRT); a test that plants a bug
 * collects reports instead: the kernel's remaining blocks are then left out and the launch counts as failed (cudaErrorLaunchFailure).
 * Settings hold from the next launch on; NULL or 0 leaves one as it is. */
#ifndef QN_CUDA_EMU_TESTING_H
#define QN_CUDA_EMU_TESTING_H

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

#ifdef __cplusplus
}
#endif

#endif
