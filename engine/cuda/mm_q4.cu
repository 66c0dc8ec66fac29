/* Products with matrices of 4-bit values in groups of 32: Q4_0, Q4_1, Q4_K. */
#include "engine/cuda/mm_run.cuh"

extern "C" int qn_mm_q4(const qn_mm_args *a, int rows_bound, qn_cuda_stream stream) {
    switch (a->mat[0].w.form) {
    case QN_CW_4: return qn_mm_run<QN_CW_4>(*a, rows_bound, stream);
    case QN_CW_4M: return qn_mm_run<QN_CW_4M>(*a, rows_bound, stream);
    case QN_CW_4K: return qn_mm_run<QN_CW_4K>(*a, rows_bound, stream);
    }
    return -1;
}
