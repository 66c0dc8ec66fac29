/* The 16-lane vector of rows_body.h and attn_body.h in AVX-512; vec_generic.h says what each operation means. */
#ifndef QN_CPU_VEC_AVX512_H
#define QN_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define V_INL static inline __attribute__((always_inline))
#define V_QK_COLS 16   /* columns of the q.k kernel that fit the registers */
#define V_PV_COLS 6    /* columns and lane vectors of the p.v kernel */
#define V_PV_LANES 4
#define V_DOT_COLS 8   /* columns of the q.k kernel over int8 */
#define V_QK_PAIR 6    /* up to so many columns two blocks are taken at a time, or the fma chains would wait for themselves */
#define V_DOT_PAIR 4

typedef __m512 v16;

V_INL __mmask16 v_mask(int n) { return (__mmask16)((1u << n) - 1); }
V_INL v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
V_INL v16 v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(v_mask(n), p); }
V_INL void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
V_INL void v_store_n(float *p, v16 a, int n) { _mm512_mask_storeu_ps(p, v_mask(n), a); }
V_INL v16 v_set1(float x) { return _mm512_set1_ps(x); }
V_INL v16 v_zero(void) { return _mm512_setzero_ps(); }
V_INL v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
V_INL v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
V_INL v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
V_INL v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
V_INL v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
V_INL v16 v_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); }
V_INL v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
V_INL v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
V_INL v16 v_abs(v16 a) { return _mm512_abs_ps(a); }
V_INL v16 v_rint(v16 a) { return _mm512_roundscale_ps(a, 8); }
V_INL v16 v_pow2(v16 n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
V_INL v16 v_zero_below(v16 x, v16 lo, v16 v) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, lo, _CMP_NLT_UQ), v); }
V_INL v16 v_keep(v16 v, int from, int to, float other) {
    return _mm512_mask_mov_ps(_mm512_set1_ps(other), (__mmask16)(((1u << to) - 1) & ~((1u << from) - 1)), v);
}
V_INL v16 v_swap_pairs(v16 a) { return _mm512_permute_ps(a, 0xB1); }
V_INL v16 v_load_h(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
V_INL void v_store_h(uint16_t *p, v16 a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V_INL void v_store_b(uint16_t *p, v16 a) {
    __m512i u = _mm512_castps_si512(a), top = _mm512_srli_epi32(u, 16);
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), _mm512_and_si512(top, _mm512_set1_epi32(1)));
    r = _mm512_mask_or_epi32(_mm512_srli_epi32(r, 16), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), top, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(r));
}
V_INL v16 v_load_b(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
V_INL v16 v_load_q(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
V_INL v16 v_mul_pow2(v16 x, v16 n) { return _mm512_scalef_ps(x, n); }

/* vpdpbusd takes one operand unsigned: k + 128, and 128 times the sum of q off the start. */
typedef __m512i v16i;
typedef __m512i v16k;
V_INL v16i v_dot_start(int32_t q_sum) { return _mm512_set1_epi32(-128 * q_sum); }
V_INL v16k v_load_k(const int8_t *p) { return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8((char)0x80)); }
V_INL v16i v_dot4(v16i acc, v16k k, int32_t q) { return _mm512_dpbusd_epi32(acc, k, _mm512_set1_epi32(q)); }
V_INL v16 v_from_i(v16i a) { return _mm512_cvtepi32_ps(a); }

V_INL float v_sum(v16 a) {
    __m256 x = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
V_INL float v_most(v16 a) {
    __m256 x = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
V_INL int v_quant(int8_t *p, v16 x, int *bad) {
    __m512i i = _mm512_cvtps_epi32(x);
    *bad |= (int)_mm512_cmpeq_epi32_mask(i, _mm512_set1_epi32(INT32_MIN));
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(i));
    return _mm512_reduce_add_epi32(i);
}
/* Both halves of a block; sum[] of the first and of the second, which vpdpbusd takes from the bytes: where a value does not
 * fit them, *bad is set or the caller has seen to it. */
V_INL void v_quant32(int8_t *p, v16 a, v16 b, int sum[2], int *bad) {
    const __m512i none = _mm512_set1_epi32(INT32_MIN), i = _mm512_cvtps_epi32(a), j = _mm512_cvtps_epi32(b);
    *bad |= !_kortestz_mask16_u8(_mm512_cmpeq_epi32_mask(i, none), _mm512_cmpeq_epi32_mask(j, none));
    __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtsepi32_epi8(i)), _mm512_cvtsepi32_epi8(j), 1);
    _mm256_storeu_si256((__m256i *)p, q);
    __m256i s = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q);
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4E));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xB1));
    sum[0] = _mm256_cvtsi256_si32(s), sum[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(s, 1));
}

#endif
