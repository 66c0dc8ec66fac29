/* 16-bit floats in plain C, inline: for kernels that have no instruction for them and for repacking. Exact; rounding is
 * to nearest even. Any thread. */
#ifndef QN_CPU_HALF_H
#define QN_CPU_HALF_H

#include <stdint.h>
#include <string.h>

static inline float qn_bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline uint32_t qn_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* The exponent is moved by a multiplication, which also mends subnormals; infinities and NaN get theirs set. */
static inline float qn_half_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    if ((h & 0x7c00u) == 0x7c00u) /* the quiet bit as the conversion instruction sets it */
        return qn_bits_f32(sign | 0x7f800000u | rest | ((h & 0x3ffu) ? 0x00400000u : 0));
    return qn_bits_f32(sign | qn_f32_bits(qn_bits_f32(rest) * 0x1p112f));
}

static inline uint16_t qn_f32_half(float f) {
    uint32_t u = qn_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* subnormal: let the adder round at the right bit */
        float r = qn_bits_f32(a) + 0.5f;
        return (uint16_t)(sign | (qn_f32_bits(r) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1)) >> 13));
}

/* NaN stays NaN. */
static inline uint16_t qn_f32_bhalf(float f) {
    uint32_t u = qn_f32_bits(f), r = u + 0x7fffu + (u >> 16 & 1);
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : r >> 16);
}
static inline float qn_bhalf_f32(uint16_t h) { return qn_bits_f32((uint32_t)h << 16); }

#endif
