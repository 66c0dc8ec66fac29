/* Products with matrices of 6-bit values in groups of 16 (Q6_K) and of bytes (Q8_0, IQ4_NL). */
#include "engine/cuda/mm_run.cuh"

extern "C" int qn_mm_q68(const qn_mm_args *a, int rows_bound, qn_cuda_stream stream) {
    switch (a->mat[0].w.form) {
    case QN_CW_6K16: return qn_mm_run<QN_CW_6K16>(*a, rows_bound, stream);
    case QN_CW_8: return qn_mm_run<QN_CW_8>(*a, rows_bound, stream);
    }
    return -1;
}
