/* Products with matrices of 4-bit values in groups of 16: Q3_K and Q2_K, unpacked to 4 bits. */
#include "engine/cuda/mm_run.cuh"

extern "C" int qn_mm_q4_16(const qn_mm_args *a, int rows_bound, qn_cuda_stream stream) {
    switch (a->mat[0].w.form) {
    case QN_CW_4K16: return qn_mm_run<QN_CW_4K16>(*a, rows_bound, stream);
    case QN_CW_4K16M: return qn_mm_run<QN_CW_4K16M>(*a, rows_bound, stream);
    }
    return -1;
}
