/* Products with matrices of 5-bit values: Q5_0, Q5_1, Q5_K. */
#include "engine/cuda/mm_run.cuh"

extern "C" int qn_mm_q5(const qn_mm_args *a, int rows_bound, qn_cuda_stream stream) {
    switch (a->mat[0].w.form) {
    case QN_CW_5: return qn_mm_run<QN_CW_5>(*a, rows_bound, stream);
    case QN_CW_5M: return qn_mm_run<QN_CW_5M>(*a, rows_bound, stream);
    case QN_CW_5K: return qn_mm_run<QN_CW_5K>(*a, rows_bound, stream);
    }
    return -1;
}
