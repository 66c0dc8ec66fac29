/* Matrices as they lie on the card, and how a GGUF tensor becomes one. Plain C and C++; the struct goes to kernels by value.
 *
 * A matrix [n_out, n_in] is cut into tiles of 32 outputs. A tile is one contiguous record, so that any range of tiles can be
 * repacked and uploaded by itself; all pieces are chunks of 16 bytes, the 32 outputs of a tile beside each other, so that a warp
 * whose lanes are outputs reads 512 bytes in a row and ldmatrix reads eight rows without bank conflicts. g = group of 32 inputs,
 * s = super-block of 256 (the last one may be short):
 *   q      [g][1 or 2 chunks][32]  4-bit: byte i holds element i (low) and 16 + i (high); 8-bit: elements 0..15, then 16..31
 *   high   1 bit: [g / 4][32] words of g % 4, element 16 * half + 4 * t + b at bit 8 * b + 4 * half + t
 *          2 bit: [g / 2][32] pairs of words (half 0, 1) of g % 2, element 4 * t + b of the half at bit 8 * b + 2 * t
 *   scale  [s][1 or 2 chunks][32]  f16 of the 8 groups; or (scale, minimum) f16 pairs of 4 + 4 groups; or codes of the K types: 8 pairs
 *          of bytes (scale, minimum), 16 signed bytes, 16 bytes (scale low, minimum high nibble)
 *   super  [s][32] f16 pairs (d, dmin), K types only
 *   16-bit [g][32][64 bytes]       32 inputs of an output, zeros behind n_in
 * Nothing is rounded: K types keep their small integers, so a value is the very f32 of qn_dequant. The exception is F32, which
 * becomes f16 times a power of two of the matrix (relative error 2^-11, absolute max|w| * 2^-39), which is as exact as the f16
 * activations that it meets.
 *
 * Slices: the inner dimension is cut at multiples of slice_sb super-blocks, at most 16 slices, and these are added in order within quarters
 * of quarter_slices, then the quarters, so that a kernel may give slices or quarters to its warps (step.h on batch-invariance). */
#ifndef QN_CUDA_WEIGHT_H
#define QN_CUDA_WEIGHT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { QN_CUDA_TILE = 32, QN_CUDA_SLICES = 16 };

enum qn_cuda_form { /* GGUF types */
    QN_CW_4,        /* Q4_0 */
    QN_CW_4M,       /* Q4_1 */
    QN_CW_4K,       /* Q4_K */
    QN_CW_4K16,     /* Q3_K */
    QN_CW_4K16M,    /* Q2_K */
    QN_CW_5,        /* Q5_0 */
    QN_CW_5M,       /* Q5_1 */
    QN_CW_5K,       /* Q5_K */
    QN_CW_6K16,     /* Q6_K */
    QN_CW_8,        /* Q8_0, IQ4_NL */
    QN_CW_F16,      /* F16, F32 */
    QN_CW_BF16,     /* BF16 */
    QN_CW_FORMS
};

struct qn_cuda_weight {
    const uint8_t *tiles;   /* device, 256-byte aligned; set by whoever allocates */
    uint32_t tile_bytes, high_at, scale_at, super_at; /* offsets within a tile */
    int32_t form;           /* enum qn_cuda_form */
    int32_t n_in, n_out;
    int32_t n_groups, n_sb, slice_sb, n_slices, quarter_slices;
    int32_t n_tiles;
    float scale;            /* on the result: a power of two for F32, else 1 */
};

/* Which parts of an act a form reads. */
enum { QN_CUDA_NEED_Q = 1, QN_CUDA_NEED_F16 = 2, QN_CUDA_NEED_BF16 = 4 };
int qn_cuda_form_need(int form);

struct qn_tensor;
struct qn_err;

/* Fills w for the tensor (all but `tiles`), which has to be a matrix; n_tiles * tile_bytes is what to allocate. Reads the data of F32 tensors.
 * Returns 0 or QN_E_UNSUPPORTED (a shape or type that has no kernel, infinity or NaN in F32). Any thread. */
int qn_cuda_weight_plan(struct qn_cuda_weight *w, const struct qn_tensor *t, struct qn_err *err);
/* Tiles tile0 .. tile0 + n - 1 to `out`, n * tile_bytes. Any thread. */
void qn_cuda_weight_repack(const struct qn_cuda_weight *w, const struct qn_tensor *t, int tile0, int n, void *out);

#ifdef __cplusplus
}
#endif

#endif
