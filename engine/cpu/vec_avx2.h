/* The 16-lane vector of rows_body.h and attn_body.h as two AVX2 registers; vec_generic.h says what each operation
 * means. */
#ifndef QN_CPU_VEC_AVX2_H
#define QN_CPU_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define V_INL static inline __attribute__((always_inline))
#define V_QK_COLS 6
#define V_PV_COLS 3
#define V_PV_LANES 2
#define V_DOT_COLS 3
#define V_QK_PAIR 2
#define V_DOT_PAIR 1

typedef struct { __m256 a, b; } v16;

V_INL __m256i v_mask8(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
#define V_MAP1(f, x) ((v16){ f((x).a), f((x).b) })
#define V_MAP2(f, x, y) ((v16){ f((x).a, (y).a), f((x).b, (y).b) })

V_INL v16 v_load(const float *p) { return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
V_INL v16 v_load_n(const float *p, int n) {
    return (v16){ _mm256_maskload_ps(p, v_mask8(n)), n > 8 ? _mm256_maskload_ps(p + 8, v_mask8(n - 8)) : _mm256_setzero_ps() };
}
V_INL void v_store(float *p, v16 x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
V_INL void v_store_n(float *p, v16 x, int n) {
    _mm256_maskstore_ps(p, v_mask8(n), x.a);
    if (n > 8) _mm256_maskstore_ps(p + 8, v_mask8(n - 8), x.b);
}
V_INL v16 v_set1(float x) { return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
V_INL v16 v_zero(void) { return v_set1(0.0f); }
V_INL v16 v_add(v16 x, v16 y) { return V_MAP2(_mm256_add_ps, x, y); }
V_INL v16 v_sub(v16 x, v16 y) { return V_MAP2(_mm256_sub_ps, x, y); }
V_INL v16 v_mul(v16 x, v16 y) { return V_MAP2(_mm256_mul_ps, x, y); }
V_INL v16 v_div(v16 x, v16 y) { return V_MAP2(_mm256_div_ps, x, y); }
V_INL v16 v_fma(v16 x, v16 y, v16 z) { return (v16){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) }; }
V_INL v16 v_fnma(v16 x, v16 y, v16 z) { return (v16){ _mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b) }; }
V_INL v16 v_max(v16 x, v16 y) { return V_MAP2(_mm256_max_ps, x, y); }
V_INL v16 v_min(v16 x, v16 y) { return V_MAP2(_mm256_min_ps, x, y); }
V_INL v16 v_abs(v16 x) {
    __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return (v16){ _mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m) };
}
V_INL v16 v_rint(v16 x) { return (v16){ _mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8) }; }
V_INL __m256 v_pow2_8(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
V_INL v16 v_pow2(v16 n) { return V_MAP1(v_pow2_8, n); }
V_INL v16 v_zero_below(v16 x, v16 lo, v16 v) {
    return (v16){ _mm256_and_ps(_mm256_cmp_ps(x.a, lo.a, _CMP_NLT_UQ), v.a), _mm256_and_ps(_mm256_cmp_ps(x.b, lo.b, _CMP_NLT_UQ), v.b) };
}
V_INL v16 v_keep(v16 v, int from, int to, float other) {
    __m256 o = _mm256_set1_ps(other);
    __m256i lo = _mm256_andnot_si256(v_mask8(from), v_mask8(to)), hi = _mm256_andnot_si256(v_mask8(from - 8), v_mask8(to - 8));
    return (v16){ _mm256_blendv_ps(o, v.a, _mm256_castsi256_ps(lo)), _mm256_blendv_ps(o, v.b, _mm256_castsi256_ps(hi)) };
}
V_INL v16 v_swap_pairs(v16 x) { return (v16){ _mm256_permute_ps(x.a, 0xB1), _mm256_permute_ps(x.b, 0xB1) }; }
V_INL v16 v_load_h(const uint16_t *p) {
    return (v16){ _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))) };
}
V_INL void v_store_h(uint16_t *p, v16 x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V_INL __m256i v_bf16_8(__m256 x) { /* in the low halves */
    __m256i u = _mm256_castps_si256(x), top = _mm256_srli_epi32(u, 16);
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), _mm256_and_si256(top, _mm256_set1_epi32(1)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(_mm256_srli_epi32(r, 16), _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
}
V_INL void v_store_b(uint16_t *p, v16 x) {
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(_mm256_packus_epi32(v_bf16_8(x.a), v_bf16_8(x.b)), 0xD8));
}
V_INL __m256 v_load_b8(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
V_INL v16 v_load_b(const uint16_t *p) { return (v16){ v_load_b8(p), v_load_b8(p + 8) }; }
V_INL __m256 v_load_q8(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
V_INL v16 v_load_q(const int8_t *p) { return (v16){ v_load_q8(p), v_load_q8(p + 8) }; }
V_INL v16 v_mul_pow2(v16 x, v16 n) { return v_mul(x, v_pow2(n)); }

/* vpmaddubsw adds pairs in 16 bits: |k| times q with k's sign stays below 2 * 127 * 127. */
typedef struct { __m256i a, b; } v16i;
typedef v16i v16k;
V_INL v16i v_dot_start(int32_t q_sum) {
    (void)q_sum;
    return (v16i){ _mm256_setzero_si256(), _mm256_setzero_si256() };
}
V_INL v16k v_load_k(const int8_t *p) {
    return (v16k){ _mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 32)) };
}
V_INL __m256i v_dot4_8(__m256i acc, __m256i k, __m256i q) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(k), _mm256_sign_epi8(q, k));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
V_INL v16i v_dot4(v16i acc, v16k k, int32_t q) {
    __m256i x = _mm256_set1_epi32(q);
    return (v16i){ v_dot4_8(acc.a, k.a, x), v_dot4_8(acc.b, k.b, x) };
}
V_INL v16 v_from_i(v16i x) { return (v16){ _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b) }; }

V_INL float v_sum(v16 v) {
    __m256 x = _mm256_add_ps(v.a, v.b);
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
V_INL float v_most(v16 v) {
    __m256 x = _mm256_max_ps(v.a, v.b);
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
V_INL int v_quant(int8_t *p, v16 x, int *bad) {
    __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b), least = _mm256_set1_epi32(INT32_MIN);
    *bad |= _mm256_movemask_epi8(_mm256_or_si256(_mm256_cmpeq_epi32(a, least), _mm256_cmpeq_epi32(b, least)));
    __m256i s = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
    __m256i t = _mm256_add_epi32(a, b);
    __m128i u = _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    u = _mm_add_epi32(u, _mm_shuffle_epi32(u, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(u, _mm_shuffle_epi32(u, 0xB1)));
}
/* Both halves of a block; sum[] of the first and of the second. */
V_INL void v_quant32(int8_t *p, v16 a, v16 b, int sum[2], int *bad) { sum[0] = v_quant(p, a, bad), sum[1] = v_quant(p + 16, b, bad); }

#endif
