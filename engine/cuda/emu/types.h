/* CUDA's built-in types and arithmetic for the emulator: vectors, dim3, the two 16-bit floats and the intrinsics on numbers that
 * kernels use. Pure functions: nothing here knows of threads or memory. Names and results are those of the CUDA Math API; a NaN that
 * is narrowed becomes 0x7fff, as the card's conversions do. Needs F16C. */
#ifndef QN_CUDA_EMU_TYPES_H
#define QN_CUDA_EMU_TYPES_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define QN_EMU_FN static inline __attribute__((unused))

struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(4) char4 { signed char x, y, z, w; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(4) short2 { short x, y; };
struct alignas(4) ushort2 { unsigned short x, y; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
QN_EMU_FN float2 make_float2(float x, float y) { return float2{x, y}; }
QN_EMU_FN float3 make_float3(float x, float y, float z) { return float3{x, y, z}; }
QN_EMU_FN float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
QN_EMU_FN int2 make_int2(int x, int y) { return int2{x, y}; }
QN_EMU_FN int4 make_int4(int x, int y, int z, int w) { return int4{x, y, z, w}; }
QN_EMU_FN uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }
QN_EMU_FN uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }
QN_EMU_FN char4 make_char4(signed char x, signed char y, signed char z, signed char w) { return char4{x, y, z, w}; }
QN_EMU_FN uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) { return uchar4{x, y, z, w}; }
QN_EMU_FN short2 make_short2(short x, short y) { return short2{x, y}; }
QN_EMU_FN ushort2 make_ushort2(unsigned short x, unsigned short y) { return ushort2{x, y}; }

template <class To, class From> QN_EMU_FN To qn_emu_bits(From v) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To r;
    memcpy(&r, &v, sizeof r);
    return r;
}
QN_EMU_FN int __float_as_int(float v) { return qn_emu_bits<int>(v); }
QN_EMU_FN unsigned __float_as_uint(float v) { return qn_emu_bits<unsigned>(v); }
QN_EMU_FN float __int_as_float(int v) { return qn_emu_bits<float>(v); }
QN_EMU_FN float __uint_as_float(unsigned v) { return qn_emu_bits<float>(v); }
QN_EMU_FN long long __double_as_longlong(double v) { return qn_emu_bits<long long>(v); }
QN_EMU_FN double __longlong_as_double(long long v) { return qn_emu_bits<double>(v); }

/* 16-bit floats. As on the card they are structs of raw bits, so that a copy is a 2- or 4-byte access. */
struct __half_raw { unsigned short x; };
struct alignas(2) __half {
    unsigned short bits;
    __half() = default;
    __half(__half_raw r) : bits(r.x) {}
};
struct alignas(4) __half2 { __half x, y; };
struct __nv_bfloat16_raw { unsigned short x; };
struct alignas(2) __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(__nv_bfloat16_raw r) : bits(r.x) {}
};
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

QN_EMU_FN __half __ushort_as_half(unsigned short v) { return __half(__half_raw{v}); }
QN_EMU_FN unsigned short __half_as_ushort(__half h) { return h.bits; }
QN_EMU_FN __half __short_as_half(short v) { return __ushort_as_half((unsigned short)v); }
QN_EMU_FN short __half_as_short(__half h) { return (short)h.bits; }
QN_EMU_FN float __half2float(__half h) { return _cvtsh_ss(h.bits); }
QN_EMU_FN __half __float2half_rn(float v) {
    if (v != v) return __ushort_as_half(0x7fff);
    return __ushort_as_half((unsigned short)_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
QN_EMU_FN __half __float2half(float v) { return __float2half_rn(v); }
QN_EMU_FN __half2 __halves2half2(__half x, __half y) { return __half2{x, y}; }
QN_EMU_FN __half2 __half2half2(__half x) { return __half2{x, x}; }
QN_EMU_FN __half2 __floats2half2_rn(float x, float y) { return __half2{__float2half_rn(x), __float2half_rn(y)}; }
QN_EMU_FN __half2 __float2half2_rn(float x) { return __floats2half2_rn(x, x); }
QN_EMU_FN __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
QN_EMU_FN float2 __half22float2(__half2 h) { return float2{__half2float(h.x), __half2float(h.y)}; }
QN_EMU_FN __half __low2half(__half2 h) { return h.x; }
QN_EMU_FN __half __high2half(__half2 h) { return h.y; }
QN_EMU_FN float __low2float(__half2 h) { return __half2float(h.x); }
QN_EMU_FN float __high2float(__half2 h) { return __half2float(h.y); }
/* A product or sum of two halves is exact in double, and so rounded once. */
QN_EMU_FN __half qn_emu_half(double v) {
    float f = (float)v; /* to odd, or the second rounding could differ */
    if (f == f && (double)f != v && !(__float_as_uint(f) & 1)) f = nextafterf(f, v > (double)f ? INFINITY : -INFINITY);
    return __float2half_rn(f);
}
QN_EMU_FN __half __hadd(__half a, __half b) { return qn_emu_half((double)__half2float(a) + (double)__half2float(b)); }
QN_EMU_FN __half __hsub(__half a, __half b) { return qn_emu_half((double)__half2float(a) - (double)__half2float(b)); }
QN_EMU_FN __half __hmul(__half a, __half b) { return qn_emu_half((double)__half2float(a) * (double)__half2float(b)); }
QN_EMU_FN __half2 __hadd2(__half2 a, __half2 b) { return __half2{__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
QN_EMU_FN __half2 __hsub2(__half2 a, __half2 b) { return __half2{__hsub(a.x, b.x), __hsub(a.y, b.y)}; }
QN_EMU_FN __half2 __hmul2(__half2 a, __half2 b) { return __half2{__hmul(a.x, b.x), __hmul(a.y, b.y)}; }

QN_EMU_FN __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) { return __nv_bfloat16(__nv_bfloat16_raw{v}); }
QN_EMU_FN unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
QN_EMU_FN float __bfloat162float(__nv_bfloat16 h) { return __uint_as_float((unsigned)h.bits << 16); }
QN_EMU_FN __nv_bfloat16 __float2bfloat16_rn(float v) {
    if (v != v) return __ushort_as_bfloat16(0x7fff);
    unsigned u = __float_as_uint(v);
    return __ushort_as_bfloat16((unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16));
}
QN_EMU_FN __nv_bfloat16 __float2bfloat16(float v) { return __float2bfloat16_rn(v); }
QN_EMU_FN __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return __nv_bfloat162{x, y}; }
QN_EMU_FN __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return __nv_bfloat162{x, x}; }
QN_EMU_FN __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return __nv_bfloat162{__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }
QN_EMU_FN __nv_bfloat162 __float2bfloat162_rn(float x) { return __floats2bfloat162_rn(x, x); }
QN_EMU_FN __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
QN_EMU_FN float2 __bfloat1622float2(__nv_bfloat162 h) { return float2{__bfloat162float(h.x), __bfloat162float(h.y)}; }
QN_EMU_FN __nv_bfloat16 __low2bfloat16(__nv_bfloat162 h) { return h.x; }
QN_EMU_FN __nv_bfloat16 __high2bfloat16(__nv_bfloat162 h) { return h.y; }
QN_EMU_FN float __low2float(__nv_bfloat162 h) { return __bfloat162float(h.x); }
QN_EMU_FN float __high2float(__nv_bfloat162 h) { return __bfloat162float(h.y); }

/* Rounding is the host's: nearest even. */
QN_EMU_FN float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
QN_EMU_FN float __fadd_rn(float a, float b) { return a + b; }
QN_EMU_FN float __fsub_rn(float a, float b) { return a - b; }
QN_EMU_FN float __fmul_rn(float a, float b) { return a * b; }
QN_EMU_FN float __fdiv_rn(float a, float b) { return a / b; }
QN_EMU_FN float __fsqrt_rn(float a) { return sqrtf(a); }
QN_EMU_FN float __frcp_rn(float a) { return 1.0f / a; }
QN_EMU_FN float __fdividef(float a, float b) { return a / b; }
QN_EMU_FN float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; } /* NaN becomes 0 */
/* max.f32 and min.f32: a NaN is ignored, and -0 is below +0, which libm leaves open. */
QN_EMU_FN float qn_emu_max(float a, float b) { return a != a ? b : b != b ? a : a > b || (a == b && !signbit(a)) ? a : b; }
QN_EMU_FN float qn_emu_min(float a, float b) { return a != a ? b : b != b ? a : a < b || (a == b && signbit(a)) ? a : b; }
#define fmaxf qn_emu_max
#define fminf qn_emu_min
QN_EMU_FN float rsqrtf(float a) { return 1.0f / sqrtf(a); }
QN_EMU_FN float __int2float_rn(int v) { return (float)v; }
QN_EMU_FN float __uint2float_rn(unsigned v) { return (float)v; }
/* Out of range saturates and NaN is 0, where C leaves both undefined. */
QN_EMU_FN int qn_emu_to_int(float v) {
    if (v != v) return 0;
    if (v >= 2147483648.0f) return INT32_MAX;
    if (v < -2147483648.0f) return INT32_MIN;
    return (int)v;
}
QN_EMU_FN int __float2int_rn(float v) { return qn_emu_to_int(nearbyintf(v)); }
QN_EMU_FN int __float2int_rz(float v) { return qn_emu_to_int(truncf(v)); }
QN_EMU_FN int __float2int_rd(float v) { return qn_emu_to_int(floorf(v)); }
QN_EMU_FN int __float2int_ru(float v) { return qn_emu_to_int(ceilf(v)); }

QN_EMU_FN int __popc(unsigned v) { return __builtin_popcount(v); }
QN_EMU_FN int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
QN_EMU_FN int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
QN_EMU_FN int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
QN_EMU_FN int __ffs(int v) { return __builtin_ffs(v); }
QN_EMU_FN int __ffsll(long long v) { return __builtin_ffsll(v); }
QN_EMU_FN unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1u) << (31 - i);
    return r;
}
QN_EMU_FN int __mulhi(int a, int b) { return (int)(((long long)a * b) >> 32); }
QN_EMU_FN unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
QN_EMU_FN unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)(((unsigned __int128)a * b) >> 64); }
QN_EMU_FN unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) { return (unsigned)(((((unsigned long long)hi) << 32 | lo) << (s & 31)) >> 32); }
QN_EMU_FN unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s) { return (unsigned)((((unsigned long long)hi) << 32 | lo) >> (s & 31)); }
/* Byte i of the result is byte s[4i .. 4i+2] of y:x; bit 4i+3 spreads its sign instead. */
QN_EMU_FN unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
    unsigned long long v = (unsigned long long)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned sel = s >> (4 * i) & 15u, b = (unsigned)(v >> (8 * (sel & 7u))) & 255u;
        if (sel & 8u) b = b & 128u ? 255u : 0u;
        r |= b << (8 * i);
    }
    return r;
}
/* acc + the sum of four products of bytes, all signed or all unsigned; wraps. */
QN_EMU_FN int __dp4a(int a, int b, int acc) {
    unsigned r = (unsigned)acc;
    for (int i = 0; i < 4; i++) r += (unsigned)((int)(int8_t)((unsigned)a >> (8 * i)) * (int)(int8_t)((unsigned)b >> (8 * i)));
    return (int)r;
}
QN_EMU_FN unsigned __dp4a(unsigned a, unsigned b, unsigned acc) {
    for (int i = 0; i < 4; i++) acc += (a >> (8 * i) & 255u) * (b >> (8 * i) & 255u);
    return acc;
}
QN_EMU_FN int __dp4a(char4 a, char4 b, int acc) { return __dp4a(qn_emu_bits<int>(a), qn_emu_bits<int>(b), acc); }
QN_EMU_FN unsigned __dp4a(uchar4 a, uchar4 b, unsigned acc) { return __dp4a(qn_emu_bits<unsigned>(a), qn_emu_bits<unsigned>(b), acc); }

QN_EMU_FN int min(int a, int b) { return a < b ? a : b; }
QN_EMU_FN int max(int a, int b) { return a > b ? a : b; }
QN_EMU_FN unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
QN_EMU_FN unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
QN_EMU_FN unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
QN_EMU_FN unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
QN_EMU_FN unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
QN_EMU_FN unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
QN_EMU_FN long long min(long long a, long long b) { return a < b ? a : b; }
QN_EMU_FN long long max(long long a, long long b) { return a > b ? a : b; }
QN_EMU_FN long min(long a, long b) { return a < b ? a : b; }
QN_EMU_FN long max(long a, long b) { return a > b ? a : b; }
QN_EMU_FN unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
QN_EMU_FN unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }
QN_EMU_FN unsigned long min(unsigned long a, unsigned long b) { return a < b ? a : b; }
QN_EMU_FN unsigned long max(unsigned long a, unsigned long b) { return a > b ? a : b; }
QN_EMU_FN float min(float a, float b) { return fminf(a, b); }
QN_EMU_FN float max(float a, float b) { return fmaxf(a, b); }

#endif
