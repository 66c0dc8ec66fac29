/* The seam between the launchers (matmul.c) and the kernels of each form, which are compiled apart so that a build has something to do
 * side by side. Plain C. */
#ifndef QN_CUDA_MM_FORMS_H
#define QN_CUDA_MM_FORMS_H

#include "engine/cuda/matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

enum qn_mm_mode { QN_MM_LINEAR, QN_MM_GLU /* mat[0] gate, mat[1] up */, QN_MM_GATED /* out holds gates */ };

struct qn_mm_args {
    struct qn_cuda_product mat[QN_CUDA_LINEAR_MAX]; /* of one form */
    int32_t first[QN_CUDA_LINEAR_MAX]; /* block in x where the matrix begins; set by the launch */
    int32_t n_mat, mode, gelu;
    struct qn_cuda_act act;
    const int32_t *n_rows;
    float logit_scale, softcap;
};

/* One launch, or with rows_bound -1 the attribute calls of the form's kernels: 0 or -1. */
int qn_mm_q4(const struct qn_mm_args *a, int rows_bound, qn_cuda_stream stream);    /* QN_CW_4, 4M, 4K */
int qn_mm_q4_16(const struct qn_mm_args *a, int rows_bound, qn_cuda_stream stream); /* QN_CW_4K16, 4K16M */
int qn_mm_q5(const struct qn_mm_args *a, int rows_bound, qn_cuda_stream stream);    /* QN_CW_5, 5M, 5K */
int qn_mm_q68(const struct qn_mm_args *a, int rows_bound, qn_cuda_stream stream);   /* QN_CW_6K16, 8 */
int qn_mm_wide(const struct qn_mm_args *a, int rows_bound, qn_cuda_stream stream);  /* QN_CW_F16, BF16 */

#ifdef __cplusplus
}
#endif

#endif
