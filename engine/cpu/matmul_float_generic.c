/* Tiles of float matrices in plain C: the definition of what the fast ones compute, to the bit.
 *
 *   F32, F16:  acc = fma(w, x, acc), input by input, in f32; x is f32
 *   BF16:      acc = F(w[1], x[1], acc), acc = F(w[0], x[0], acc), pair by pair; x is rounded to bf16
 * F is vdpbf16ps's step: an fma that rounds once, to nearest even, takes subnormal operands for zeros and makes a zero of
 * the sign of the result where that is tiny. That is, the odd product of a pair comes first and both are fused, as
 * the pseudo-code of Intel's manual has it and as AMD's Zen 4 does it (tests/kernels/test_bf16.c asks the processor);
 * so it equals two fma with FTZ and DAZ set, which is how sets without the instruction do it. "Tiny" is meant after
 * rounding to 24 bits as if exponents had no end (the x86 rule), hence the look at the exact sum where a result rounds to the least
 * normal number. */
#include <math.h>
#include <string.h>

#include "engine/cpu/half.h"
#include "engine/cpu/repack.h"
#include "engine/cpu/tiles.h"

static float flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

/* a and b are bf16 and flushed: their product is exact in a double; c + it is a double and an error term (Knuth). */
static int is_tiny(float a, float b, float c) {
    const double bound = 0x1p-126 * (1 - 0x1p-25); /* what rounds up to 2^-126 */
    double p = (double)a * (double)b, s = p + (double)c, t = s - p, err = (p - (s - t)) + ((double)c - t);
    return fabs(s) < bound || (fabs(s) == bound && (s > 0) == (err < 0) && err != 0);
}

static float step_bf16(float a, float b, float c) {
    c = flush(c);
    float r = fmaf(a, b, c);
    if (fabsf(r) > 0x1p-126f || r != r) return r;
    return fabsf(r) < 0x1p-126f || is_tiny(a, b, c) ? copysignf(0.0f, r) : r;
}

void qn_tile_bf16_generic(QN_TILE_ARGS) {
    const uint32_t *x = group;
    (void)next;
    float acc[QN_GROUP][16] = { { 0 } };
    for (int s = 0; s < steps; s++, x += g, w += 64)
        for (int r = 0; r < 16; r++) {
            uint32_t pair;
            memcpy(&pair, w + r * 4, 4);
            float w0 = flush(qn_bits_f32(pair << 16)), w1 = flush(qn_bits_f32(pair & 0xffff0000u));
            for (int c = 0; c < g; c++) {
                float x0 = flush(qn_bits_f32(x[c] << 16)), x1 = flush(qn_bits_f32(x[c] & 0xffff0000u));
                acc[c][r] = step_bf16(w0, x0, step_bf16(w1, x1, acc[c][r]));
            }
        }
    for (int c = 0; c < g; c++) memcpy(out + (size_t)c * stride, acc[c], sizeof acc[c]);
}

static void tile_float(enum qn_fmt fmt, QN_TILE_ARGS) {
    const float *x = group;
    (void)next;
    float acc[QN_GROUP][16] = { { 0 } };
    for (int s = 0; s < steps; s++, x += g, w += qn_fmt_info[fmt].step_bytes) {
        float wf[16];
        for (int r = 0; r < 16; r++) {
            uint16_t h;
            memcpy(&h, w + r * 2, 2);
            if (fmt == QN_FMT_F32) memcpy(&wf[r], w + r * 4, 4);
            else wf[r] = qn_half_f32(h);
        }
        for (int c = 0; c < g; c++)
            for (int r = 0; r < 16; r++) acc[c][r] = fmaf(wf[r], x[c], acc[c][r]);
    }
    for (int c = 0; c < g; c++) memcpy(out + (size_t)c * stride, acc[c], sizeof acc[c]);
}

void qn_tile_f32_generic(QN_TILE_ARGS) { tile_float(QN_FMT_F32, w, steps, next, group, g, out, stride); }
void qn_tile_f16_generic(QN_TILE_ARGS) { tile_float(QN_FMT_F16, w, steps, next, group, g, out, stride); }
