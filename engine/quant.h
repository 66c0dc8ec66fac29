/* The weight types of GGUF: block shapes and exact dequantisation (the meaning of the bytes, not how to be fast with
 * them). Layouts: ggml-common.h of llama.cpp as of the llama-cpp-python 0.3.36 source package. Any thread. */
#ifndef QN_QUANT_H
#define QN_QUANT_H

#include <stddef.h>
#include <stdint.h>

enum qn_type { /* values are GGUF's own numbers */
    QN_F32 = 0, QN_F16 = 1, QN_Q4_0 = 2, QN_Q4_1 = 3, QN_Q5_0 = 6, QN_Q5_1 = 7, QN_Q8_0 = 8,
    QN_Q2_K = 10, QN_Q3_K = 11, QN_Q4_K = 12, QN_Q5_K = 13, QN_Q6_K = 14, QN_IQ4_NL = 20, QN_BF16 = 30,
};

struct qn_type_info {
    const char *name;   /* "Q4_K" */
    int block_elems;    /* elements of one block: 1, 32 or 256 */
    int block_bytes;
};

/* NULL for a type that we do not read. */
const struct qn_type_info *qn_type_info(uint32_t type);

/* out[n] = the values of n consecutive elements; n is a multiple of the type's block_elems. */
void qn_dequant(enum qn_type type, const void *blocks, float *out, size_t n);

float qn_f16_to_f32(uint16_t h);
uint16_t qn_f32_to_f16(float f); /* round to nearest even */
float qn_bf16_to_f32(uint16_t h);
uint16_t qn_f32_to_bf16(float f); /* round to nearest even, NaN stays NaN */

#endif
