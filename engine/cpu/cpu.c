/* The cpu device. For now it is the yardstick under another name; the fast kernels replace this file. */
#include "engine/backend.h"

int qn_cpu_open(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err) {
    return qn_cpu_ref_open(out, desc, o, err);
}
