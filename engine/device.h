/* Which device computes: the names that engine.device takes, the plug-ins behind some of them, and how "auto" chooses.
 *
 * A PLUG-IN is a shared object with one visible function, quern_device_plugin, that brings a backend which the daemon
 * itself does not link: quern-cuda.so (a card, through NVIDIA's runtime), quern-cuda-emu.so (the same kernels on an
 * emulator; test builds only). It is looked for beside the executable and in ../lib/quern from there, nowhere else, and
 * stays loaded until the process ends. Thread: the one that opens the engine. */
#ifndef QN_DEVICE_H
#define QN_DEVICE_H

#include "engine/backend.h"

enum { QN_DEVICE_ABI = 2, QN_DEVICE_NOTE_MAX = 320 }; /* the ABI goes up when backend.h, model.h or this file changes */

struct qn_device_info {
    char name[48];          /* "NVIDIA H100 80GB HBM3" */
    uint64_t free_bytes, total_bytes;
};

struct qn_device_plugin {
    int abi;                /* QN_DEVICE_ABI of its sources */
    int sizes[3];           /* of qn_backend_ops, qn_backend_opts, qn_model_desc there: a second look at the same thing */
    /* Is card `device` there and usable? QN_E_DEVICE and why not. */
    int (*probe)(int device, struct qn_device_info *out, struct qn_err *err);
    /* As qn_cpu_open. QN_E_DEVICE: the card does not work; QN_E_UNSUPPORTED: the model or an option is not for it. */
    int (*open)(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err);
};
#define QN_DEVICE_SIZES {sizeof(struct qn_backend_ops), sizeof(struct qn_backend_opts), sizeof(struct qn_model_desc)}
typedef const struct qn_device_plugin *(*qn_device_plugin_fn)(void);
#define QN_DEVICE_SYMBOL "quern_device_plugin"

/* Opens the backend that `device` names: "cpu", "cpu-ref", "cuda", "cuda:N", "cuda-emu", or "auto", which takes card 0 if
 * it works and has need_bytes free, else the CPU. `note` gets what auto chose and why ("" for the others). plugin_dir: the
 * only folder to look in (tests); NULL: the two above. A named device that is missing or does not work is QN_E_DEVICE;
 * nothing else is opened in its place. */
int qn_device_open(struct qn_backend **out, const char *device, const char *plugin_dir, const struct qn_model_desc *desc,
                   const struct qn_backend_opts *o, uint64_t need_bytes, char note[QN_DEVICE_NOTE_MAX], struct qn_err *err);

#endif
