/* Opens a backend by its name. A plug-in is used as it is found: when its ABI differs it is refused, as structs of another
 * shape would be read wrongly in silence. */
#include "engine/device.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct { const char *prefix, *file, *how; } plugins[] = {
    { "cuda", "quern-cuda.so", "make CUDA=1 builds it" },
    { "cuda-emu", "quern-cuda-emu.so", "make cuda-emu builds it, for tests" },
};
enum { CUDA, CUDA_EMU, N_PLUGINS };

/* --- finding a plug-in -------------------------------------------------------------------------------------------- */

/* The executable's folder; "" when the system does not tell. */
static void own_folder(char *out, size_t n) {
    ssize_t k = readlink("/proc/self/exe", out, n - 1);
    out[k > 0 ? k : 0] = 0;
    char *slash = strrchr(out, '/');
    if (slash) *slash = 0;
    else *out = 0;
}

/* The path of plug-in `which` in *out, or QN_E_DEVICE. */
static int find(int which, const char *device, const char *dir, char *out, size_t n, struct qn_err *err) {
    char own[PATH_MAX];
    own_folder(own, sizeof own);
    const char *const places[2] = { dir ? dir : own, dir ? NULL : "/../lib/quern" };
    for (int i = 0; i < 2 && (i == 0 || places[1]); i++) {
        int k = snprintf(out, n, "%s%s/%s", i ? own : places[0], i ? places[1] : "", plugins[which].file);
        if (k > 0 && (size_t)k < n && access(out, F_OK) == 0) return 0;
    }
    return qn_fail(err, QN_E_DEVICE, "device %.16s: there is no %s in %.80s%s (%s)", device, plugins[which].file, places[0],
                   dir ? "" : " nor in ../lib/quern from there", plugins[which].how);
}

static int load(int which, const char *device, const char *dir, const struct qn_device_plugin **out, struct qn_err *err) {
    static const int sizes[3] = QN_DEVICE_SIZES;
    char path[PATH_MAX];
    int rc = find(which, device, dir, path, sizeof path, err);
    if (rc < 0) return rc;
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so) return qn_fail(err, QN_E_DEVICE, "device %.16s: %s", device, dlerror());
    void *symbol = dlsym(so, QN_DEVICE_SYMBOL);
    qn_device_plugin_fn fn;
    memcpy(&fn, &symbol, sizeof fn); /* ISO C has no cast from an object's pointer to a function's */
    const struct qn_device_plugin *p = fn ? fn() : NULL;
    if (!p || p->abi != QN_DEVICE_ABI || memcmp(p->sizes, sizes, sizeof sizes)) {
        dlclose(so);
        return qn_fail(err, QN_E_DEVICE, "device %.16s: %.140s belongs to another version of quernd; both have to be built together", device, path);
    }
    *out = p; /* never closed: a driver's threads and exit handlers live on in it */
    return 0;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

/* "cuda", "cuda:3", "cuda-emu" to a plug-in and a card's number; -1: none of these. */
static int plugin_of(const char *device, int *card) {
    *card = 0;
    for (int i = 0; i < N_PLUGINS; i++)
        if (!strcmp(device, plugins[i].prefix)) return i;
    if (strncmp(device, "cuda:", 5) || device[5] < '0' || device[5] > '9') return -1;
    char *end;
    errno = 0;
    long n = strtol(device + 5, &end, 10);
    if (*end || errno || n > 1023) return -1;
    *card = (int)n;
    return CUDA;
}

static int open_plugin(struct qn_backend **out, int which, int card, const char *device, const char *dir, uint64_t need, struct qn_device_info *info,
                       const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err) {
    const struct qn_device_plugin *p = NULL;
    int rc = load(which, device, dir, &p, err);
    if (rc == 0) rc = p->probe(card, info, err);
    if (rc < 0) return rc;
    if (need > info->free_bytes)
        return qn_fail(err, QN_E_NOMEM, "%s has %llu MiB free, the model needs %llu", info->name, (unsigned long long)(info->free_bytes >> 20),
                       (unsigned long long)(need >> 20));
    struct qn_backend_opts own = *o;
    own.device = card;
    return p->open(out, desc, &own, err);
}

/* Card 0, or the CPU and why not the card. */
static int open_auto(struct qn_backend **out, const char *dir, uint64_t need, const struct qn_model_desc *desc, const struct qn_backend_opts *o,
                     char *note, struct qn_err *err) {
    struct qn_err why = { 0 };
    struct qn_device_info info = { 0 };
    if (open_plugin(out, CUDA, 0, plugins[CUDA].prefix, dir, need, &info, desc, o, &why) == 0) {
        snprintf(note, QN_DEVICE_NOTE_MAX, "cuda: %s has %llu MiB free, the model needs %llu", info.name, (unsigned long long)(info.free_bytes >> 20),
                 (unsigned long long)(need >> 20));
        return 0;
    }
    snprintf(note, QN_DEVICE_NOTE_MAX, "cpu: %s", why.text);
    return qn_cpu_open(out, desc, o, err);
}

int qn_device_open(struct qn_backend **out, const char *device, const char *plugin_dir, const struct qn_model_desc *desc,
                   const struct qn_backend_opts *o, uint64_t need_bytes, char note[QN_DEVICE_NOTE_MAX], struct qn_err *err) {
    struct qn_device_info info = { 0 };
    int card;
    *note = 0;
    if (!strcmp(device, "cpu")) return qn_cpu_open(out, desc, o, err);
    if (!strcmp(device, "cpu-ref")) return qn_cpu_ref_open(out, desc, o, err);
    if (!strcmp(device, "auto")) return open_auto(out, plugin_dir, need_bytes, desc, o, note, err);
    int which = plugin_of(device, &card);
    if (which < 0) return qn_fail(err, QN_E_RANGE, "device '%s' is not one of cpu, cpu-ref, auto, cuda, cuda:N, cuda-emu", device);
    return open_plugin(out, which, card, device, plugin_dir, 0, &info, desc, o, err);
}
