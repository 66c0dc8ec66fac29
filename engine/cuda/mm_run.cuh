/* Which kernel of an integer form multiplies how many rows. The choice is one of speed alone (step.h). */
#ifndef QN_CUDA_MM_RUN_CUH
#define QN_CUDA_MM_RUN_CUH

#include "engine/cuda/batch.cuh"
#include "engine/cuda/gemm.cuh"
#include "engine/cuda/gemv.cuh"

template <int FORM> static int qn_mm_run(const qn_mm_args &a, int rows_bound, qn_cuda_stream stream) {
    if (rows_bound < 0) return qn_batch_allow<FORM>() < 0 ? -1 : qn_gemm_allow<FORM>();
    if (rows_bound <= QN_GEMV_ROWS) return qn_gemv<FORM>(a, rows_bound, stream);
    return rows_bound <= QN_BATCH_ROWS ? qn_batch<FORM>(a, rows_bound, stream) : qn_gemm<FORM>(a, rows_bound, stream);
}

#endif
