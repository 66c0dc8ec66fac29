/* Launchers of matrix products: which matrices share a launch, which kernels they get. Host code, no state. The kernels: gemv.cuh,
 * gemm.cuh, wide.cuh, in files by form (mm_*.cu). */
#include <assert.h>
#include <stddef.h>

#include "engine/cuda/mm_forms.h"

typedef int (*launch_fn)(const struct qn_mm_args *a, int rows_bound, qn_cuda_stream stream);

static const launch_fn launch_of[QN_CW_FORMS] = {
    [QN_CW_4] = qn_mm_q4,        [QN_CW_4M] = qn_mm_q4,        [QN_CW_4K] = qn_mm_q4,      [QN_CW_4K16] = qn_mm_q4_16,
    [QN_CW_4K16M] = qn_mm_q4_16, [QN_CW_5] = qn_mm_q5,         [QN_CW_5M] = qn_mm_q5,      [QN_CW_5K] = qn_mm_q5,
    [QN_CW_6K16] = qn_mm_q68,    [QN_CW_8] = qn_mm_q68,        [QN_CW_F16] = qn_mm_wide,   [QN_CW_BF16] = qn_mm_wide,
};

int qn_cuda_matmul_init(void) {
    for (int form = 0; form < QN_CW_FORMS; form++) {
        struct qn_mm_args a = {.n_mat = 1, .mat = {{.w = {.form = form}}}};
        if (launch_of[form](&a, -1, NULL) < 0) return -1;
    }
    return 0;
}

static void launch(const struct qn_mm_args *a, int rows_bound, qn_cuda_stream stream) {
    if (rows_bound > 0) launch_of[a->mat[0].w.form](a, rows_bound, stream);
}

static struct qn_mm_args args(const struct qn_cuda_act *act, const struct qn_cuda_weight *w, const int32_t *n_rows) {
    assert(w->n_in == act->width);
    (void)w;
    return (struct qn_mm_args){.act = *act, .n_rows = n_rows, .logit_scale = 1};
}

void qn_cuda_linear(const struct qn_cuda_act *act, const struct qn_cuda_product *l, int n, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    assert(n > 0 && n <= QN_CUDA_LINEAR_MAX);
    for (int i = 0; i < n; i++) {
        struct qn_mm_args a = args(act, &l[i].w, &step->head->n_rows);
        int done = 0;
        for (int k = 0; k < i; k++) done |= l[k].w.form == l[i].w.form;
        if (done) continue;
        for (int k = i; k < n; k++)
            if (l[k].w.form == l[i].w.form) a.mat[a.n_mat++] = l[k];
        launch(&a, rows_bound, stream);
    }
}

void qn_cuda_glu(const struct qn_cuda_act *act, const struct qn_cuda_weight *gate, const struct qn_cuda_weight *up, int gelu, const struct qn_cuda_vec *out,
                 const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    assert(gate->n_in == up->n_in && gate->n_out == up->n_out);
    struct qn_mm_args a = args(act, gate, &step->head->n_rows);
    a.gelu = gelu;
    a.mat[0] = (struct qn_cuda_product){*gate, NULL, *out};
    a.mat[1] = (struct qn_cuda_product){*up, NULL, *out};
    if (gate->form == up->form) {
        a.mode = QN_MM_GLU;
        a.n_mat = 2;
        launch(&a, rows_bound, stream);
        return;
    }
    a.n_mat = 1;
    launch(&a, rows_bound, stream); /* gates to out, where the other product finds them */
    a.mode = QN_MM_GATED;
    a.mat[0] = a.mat[1];
    launch(&a, rows_bound, stream);
}

void qn_cuda_logits(const struct qn_cuda_act *act, const struct qn_cuda_product *l, float scale, float softcap, const struct qn_cuda_step *step, int rows_bound,
                    qn_cuda_stream stream) {
    struct qn_mm_args a = args(act, &l->w, &step->head->n_out);
    a.n_mat = 1;
    a.mat[0] = *l;
    a.logit_scale = scale;
    a.softcap = softcap;
    launch(&a, rows_bound, stream);
}
