/* Loading: vectors become padded f32, matrices are repacked by all threads. The file's bytes are never kept. Thread: the
 * owner's, before the first step. */
#include <stdlib.h>
#include <string.h>

#include "engine/cpu/repack.h"

struct repack_job {
    const struct qn_weight *w;
    const struct qn_tensor *t;
};

static void repack_range(void *arg, int begin, int end, int thread) {
    const struct repack_job *j = arg;
    (void)thread;
    for (int i = begin; i < end; i++)
        qn_repack_tile(j->t->type, j->t->data, j->w->n_in, j->w->n_out, i, (uint8_t *)j->w->data + (size_t)i * j->w->tile_bytes);
}

static int load_vector(struct qn_cpu *b, struct qn_weight *w, const struct qn_tensor *t, struct qn_err *err) {
    const struct qn_type_info *info = qn_type_info(t->type);
    uint64_t n = t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
    if (!info || n % (uint64_t)info->block_elems || n > INT32_MAX)
        return qn_fail(err, QN_E_UNSUPPORTED, "tensor '%.*s': %llu elements of type %d make no vector", (int)t->name.n, t->name.p,
                       (unsigned long long)n, (int)t->type);
    w->n_out = (int)n;
    w->vec = qn_cpu_alloc(b, ((size_t)n + 31) / 32 * 32 * sizeof *w->vec);
    if (!w->vec) return qn_fail(err, QN_E_NOMEM, "tensor '%.*s': no memory for %llu floats", (int)t->name.n, t->name.p, (unsigned long long)n);
    qn_dequant(t->type, t->data, w->vec, (size_t)n);
    return 0;
}

static int load_matrix(struct qn_cpu *b, struct qn_weight *w, const struct qn_tensor *t, struct qn_err *err) {
    int fmt = qn_repack_fmt(t->type);
    if (fmt < 0) return qn_fail(err, QN_E_UNSUPPORTED, "tensor '%.*s': no kernel for type %d", (int)t->name.n, t->name.p, (int)t->type);
    const struct qn_fmt_info *info = &qn_fmt_info[fmt];
    if (t->dim[0] == 0 || t->dim[0] > (1 << 24) || (t->dim[0] % (uint64_t)info->step_elems && !qn_fmt_is_float((enum qn_fmt)fmt)) || t->dim[1] == 0 || t->dim[1] > (1 << 26) ||
        t->dim[2] != 1 || t->dim[3] != 1)
        return qn_fail(err, QN_E_UNSUPPORTED, "tensor '%.*s': shape [%llu, %llu] is not one for type %d", (int)t->name.n, t->name.p,
                       (unsigned long long)t->dim[0], (unsigned long long)t->dim[1], (int)t->type);
    w->fmt = (enum qn_fmt)fmt;
    w->n_in = (int)t->dim[0], w->n_out = (int)t->dim[1];
    w->n_tiles = (w->n_out + QN_LANES - 1) / QN_LANES;
    w->steps = (w->n_in + info->step_elems - 1) / info->step_elems;
    w->tile_bytes = (size_t)w->steps * (size_t)info->step_bytes;
    struct qn_need *need = qn_cpu_need(b, w->n_in);
    if (!need) return qn_fail(err, QN_E_UNSUPPORTED, "tensor '%.*s': more than %d different matrix widths", (int)t->name.n, t->name.p, QN_NEEDS_MAX);
    *(w->fmt == QN_FMT_BF16 ? &need->bf16 : qn_fmt_is_float(w->fmt) ? &need->f32 : &need->q8) = 1;
    w->data = qn_cpu_alloc(b, w->tile_bytes * (size_t)w->n_tiles);
    if (!w->data)
        return qn_fail(err, QN_E_NOMEM, "tensor '%.*s': no memory for %zu bytes", (int)t->name.n, t->name.p, w->tile_bytes * (size_t)w->n_tiles);
    struct repack_job j = { w, t };
    qn_pool_run(b->pool, w->n_tiles, 4, repack_range, &j);
    return 0;
}

int qn_cpu_weight(struct qn_backend *base, const struct qn_tensor *t, int vector, struct qn_weight **out, int *keeps, struct qn_err *err) {
    struct qn_cpu *b = qn_cpu_of(base);
    struct qn_weight *w = calloc(1, sizeof *w);
    if (!w) return qn_fail(err, QN_E_NOMEM, "no memory for a weight");
    int rc = vector ? load_vector(b, w, t, err) : load_matrix(b, w, t, err);
    if (rc < 0) {
        free(w);
        return rc;
    }
    if (keeps) *keeps = 0;
    *out = w;
    return 0;
}
