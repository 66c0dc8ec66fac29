/* Products with 16-bit matrices: F16 (and F32, see weight.h), BF16. */
#include "engine/cuda/gemm_wide.cuh"

template <bool BF16> static int run(const qn_mm_args &a, int rows_bound, qn_cuda_stream stream) {
    if (rows_bound < 0) return qn_gemm_wide_allow<BF16>();
    return rows_bound <= QN_WIDE_BATCH_ROWS ? qn_wide<BF16>(a, rows_bound, stream) : qn_gemm_wide<BF16>(a, rows_bound, stream);
}

extern "C" int qn_mm_wide(const qn_mm_args *a, int rows_bound, qn_cuda_stream stream) {
    return a->mat[0].w.form == QN_CW_BF16 ? run<true>(*a, rows_bound, stream) : run<false>(*a, rows_bound, stream);
}
