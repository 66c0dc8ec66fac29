/* Integer and bit opcodes (PTX ISA, "Integer Arithmetic", "Extended-Precision", "Logic and Shift"): a list of rows, each an opcode,
 * its operands and the value as an expression of a, b, c. Signed sums and products wrap, so they are written unsigned. */
#include "tests/cuda/ptx/impl.h"

typedef __int128 s128;
typedef unsigned __int128 u128;

static uint32_t prmt(uint32_t a, uint32_t b, uint32_t sel) {
    uint64_t v = (uint64_t)b << 32 | a;
    uint32_t r = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t s = sel >> (4 * k), byte = (uint32_t)(v >> (8 * (s & 7))) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        r |= byte << (8 * k);
    }
    return r;
}

static uint64_t field(uint64_t a, uint32_t pos, uint32_t len, int bits, bool sign) {
    pos &= 0xff, len &= 0xff;
    /* The sign lies at the field's end, or at the register's when the field goes past it (ISA, bfe). */
    uint32_t at = pos + len - 1 < (uint32_t)bits - 1 ? pos + len - 1 : (uint32_t)bits - 1;
    uint64_t fill = sign && len && a >> at & 1 ? ~0ull : 0;
    uint64_t r = 0;
    for (uint32_t k = 0; k < (uint32_t)bits; k++) r |= (k < len && pos + k < (uint32_t)bits ? a >> (pos + k) & 1 : fill & 1) << k;
    return r;
}

static uint64_t insert(uint64_t a, uint64_t b, uint32_t pos, uint32_t len, int bits) {
    pos &= 0xff, len &= 0xff;
    for (uint32_t k = 0; k < len && pos + k < (uint32_t)bits; k++) b = (b & ~(1ull << (pos + k))) | (a >> k & 1) << (pos + k);
    return b;
}

static uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t r = 0;
    for (int k = 0; k < 8; k++)
        if (table >> k & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return r;
}

static uint32_t dp4(uint32_t a, uint32_t b, uint32_t c, bool sa, bool sb) {
    for (int k = 0; k < 32; k += 8) c += (uint32_t)((sa ? (int8_t)(a >> k) : (uint8_t)(a >> k)) * (sb ? (int8_t)(b >> k) : (uint8_t)(b >> k)));
    return c;
}

static uint32_t reverse32(uint32_t a) {
    uint32_t r = 0;
    for (int k = 0; k < 32; k++) r |= (a >> k & 1) << (31 - k);
    return r;
}

static uint32_t highest(uint64_t a) { return a ? 63u - (uint32_t)__builtin_clzll(a) : ALL; }

/* Quotients: what the ISA leaves open (by zero) is all ones here, and the smallest by -1 wraps. */
#define QUOT(T, a, b) ((b) == 0 ? (T)-1 : (T)((b) == (T)-1 && (T)-1 < (T)1 ? 0 - (uint64_t)(a) : (uint64_t)((a) / ((b) == 0 ? 1 : (b)))))
#define REST(T, a, b) ((b) == 0 ? (a) : (b) == (T)-1 && (T)-1 < (T)1 ? (T)0 : (T)((a) % ((b) == 0 ? 1 : (b))))

/* V(op, type, C type, letter, value): two operands of one type. */
#define OF_WIDTHS(V, op, e16, e32, e64) V(op, u16, uint16_t, h, e16) V(op, s16, int16_t, h, e16) V(op, u32, uint32_t, w, e32) V(op, s32, int32_t, w, e32) V(op, u64, uint64_t, l, e64) V(op, s64, int64_t, l, e64)
#define TWO(V)                                                                                                                 \
    OF_WIDTHS(V, add, a + b, (uint32_t)a + (uint32_t)b, (uint64_t)a + (uint64_t)b)                                            \
    OF_WIDTHS(V, sub, a - b, (uint32_t)a - (uint32_t)b, (uint64_t)a - (uint64_t)b)                                            \
    OF_WIDTHS(V, mul_lo, (uint32_t)a * (uint32_t)b, (uint32_t)a * (uint32_t)b, (uint64_t)a * (uint64_t)b)                     \
    OF_WIDTHS(V, min, a < b ? a : b, a < b ? a : b, a < b ? a : b)                                                            \
    OF_WIDTHS(V, max, a > b ? a : b, a > b ? a : b, a > b ? a : b)                                                            \
    V(div, u16, uint16_t, h, QUOT(uint16_t, a, b)) V(div, s16, int16_t, h, QUOT(int16_t, a, b))                               \
    V(div, u32, uint32_t, w, QUOT(uint32_t, a, b)) V(div, s32, int32_t, w, QUOT(int32_t, a, b))                               \
    V(div, u64, uint64_t, l, QUOT(uint64_t, a, b)) V(div, s64, int64_t, l, QUOT(int64_t, a, b))                               \
    V(rem, u16, uint16_t, h, REST(uint16_t, a, b)) V(rem, s16, int16_t, h, REST(int16_t, a, b))                               \
    V(rem, u32, uint32_t, w, REST(uint32_t, a, b)) V(rem, s32, int32_t, w, REST(int32_t, a, b))                               \
    V(rem, u64, uint64_t, l, REST(uint64_t, a, b)) V(rem, s64, int64_t, l, REST(int64_t, a, b))                               \
    V(mul_hi, u16, uint16_t, h, ((uint32_t)a * (uint32_t)b) >> 16) V(mul_hi, s16, int16_t, h, (a * b) >> 16)                  \
    V(mul_hi, u32, uint32_t, w, ((uint64_t)a * b) >> 32) V(mul_hi, s32, int32_t, w, ((int64_t)a * b) >> 32)                   \
    V(mul_hi, u64, uint64_t, l, (u128)a * b >> 64) V(mul_hi, s64, int64_t, l, (s128)a * b >> 64)                              \
    V(and, b16, uint16_t, h, a & b) V(and, b32, uint32_t, w, a & b) V(and, b64, uint64_t, l, a & b)                           \
    V(or, b16, uint16_t, h, a | b) V(or, b32, uint32_t, w, a | b) V(or, b64, uint64_t, l, a | b)                              \
    V(xor, b16, uint16_t, h, a ^ b) V(xor, b32, uint32_t, w, a ^ b) V(xor, b64, uint64_t, l, a ^ b)
#define FN_TWO(op, ty, T, p, e) HANDLER(op##_##ty) { D(T, 0); S(T, pa, 1); S(T, pb, 2); LANES(T a = pa[l]; T b = pb[l]; d[l] = (T)(e)) }
#define ROW_TWO(op, ty, T, p, e) {#op "_" #ty, #p "=" #p #p, op##_##ty, K_PLAIN, -1},

/* One operand; D type and letter, S type and letter. */
#define ONE(V)                                                                                                                 \
    V(abs, s16, int16_t, h, int16_t, h, a < 0 ? -a : a) V(abs, s32, uint32_t, w, int32_t, w, a < 0 ? 0u - (uint32_t)a : (uint32_t)a) \
    V(abs, s64, uint64_t, l, int64_t, l, a < 0 ? 0ull - (uint64_t)a : (uint64_t)a)                                            \
    V(neg, s16, int16_t, h, int16_t, h, -a) V(neg, s32, uint32_t, w, uint32_t, w, 0u - a) V(neg, s64, uint64_t, l, uint64_t, l, 0ull - a) \
    V(not, b16, uint16_t, h, uint16_t, h, ~a) V(not, b32, uint32_t, w, uint32_t, w, ~a) V(not, b64, uint64_t, l, uint64_t, l, ~a) \
    V(popc, b32, uint32_t, w, uint32_t, w, __builtin_popcount(a)) V(popc, b64, uint32_t, w, uint64_t, l, __builtin_popcountll(a)) \
    V(clz, b32, uint32_t, w, uint32_t, w, a ? __builtin_clz(a) : 32) V(clz, b64, uint32_t, w, uint64_t, l, a ? __builtin_clzll(a) : 64) \
    V(brev, b32, uint32_t, w, uint32_t, w, reverse32(a))                                                                      \
    V(brev, b64, uint64_t, l, uint64_t, l, (uint64_t)reverse32((uint32_t)a) << 32 | reverse32((uint32_t)(a >> 32)))           \
    V(bfind, u32, uint32_t, w, uint32_t, w, highest(a)) V(bfind, s32, uint32_t, w, int32_t, w, highest((uint32_t)(a < 0 ? ~a : a))) \
    V(bfind, u64, uint32_t, w, uint64_t, l, highest(a)) V(bfind, s64, uint32_t, w, int64_t, l, highest((uint64_t)(a < 0 ? ~a : a))) \
    V(bfind_shiftamt, u32, uint32_t, w, uint32_t, w, a ? 31 - highest(a) : ALL)
#define FN_ONE(op, ty, TD, pd, T, p, e) HANDLER(op##_##ty) { D(TD, 0); S(T, pa, 1); LANES(T a = pa[l]; d[l] = (TD)(e)) }
#define ROW_ONE(op, ty, TD, pd, T, p, e) {#op "_" #ty, #pd "=" #p, op##_##ty, K_PLAIN, -1},

/* Two or three operands of different types: V(name, D type, A, B, C, pattern, value). */
#define MIXED(V)                                                                                                               \
    V(shl_b16, uint16_t, uint16_t, uint32_t, uint8_t, "h=hw", b > 15 ? 0 : a << b)                                            \
    V(shl_b32, uint32_t, uint32_t, uint32_t, uint8_t, "w=ww", b > 31 ? 0 : a << (b & 31))                                     \
    V(shl_b64, uint64_t, uint64_t, uint32_t, uint8_t, "l=lw", b > 63 ? 0 : a << (b & 63))                                     \
    V(shr_u16, uint16_t, uint16_t, uint32_t, uint8_t, "h=hw", b > 15 ? 0 : a >> b)                                            \
    V(shr_b16, uint16_t, uint16_t, uint32_t, uint8_t, "h=hw", b > 15 ? 0 : a >> b)                                            \
    V(shr_s16, int16_t, int16_t, uint32_t, uint8_t, "h=hw", a >> (b > 15 ? 15 : b))                                           \
    V(shr_u32, uint32_t, uint32_t, uint32_t, uint8_t, "w=ww", b > 31 ? 0 : a >> (b & 31))                                     \
    V(shr_b32, uint32_t, uint32_t, uint32_t, uint8_t, "w=ww", b > 31 ? 0 : a >> (b & 31))                                     \
    V(shr_s32, int32_t, int32_t, uint32_t, uint8_t, "w=ww", a >> (b > 31 ? 31 : b))                                           \
    V(shr_u64, uint64_t, uint64_t, uint32_t, uint8_t, "l=lw", b > 63 ? 0 : a >> (b & 63))                                     \
    V(shr_b64, uint64_t, uint64_t, uint32_t, uint8_t, "l=lw", b > 63 ? 0 : a >> (b & 63))                                     \
    V(shr_s64, int64_t, int64_t, uint32_t, uint8_t, "l=lw", a >> (b > 63 ? 63 : b))                                           \
    V(mul_wide_u16, uint32_t, uint16_t, uint16_t, uint8_t, "w=hh", (uint32_t)a * b)                                           \
    V(mul_wide_s16, int32_t, int16_t, int16_t, uint8_t, "w=hh", a * b)                                                        \
    V(mul_wide_u32, uint64_t, uint32_t, uint32_t, uint8_t, "l=ww", (uint64_t)a * b)                                           \
    V(mul_wide_s32, int64_t, int32_t, int32_t, uint8_t, "l=ww", (int64_t)a * b)

#define THREE(V)                                                                                                               \
    V(mad_wide_u16, uint32_t, uint16_t, uint16_t, uint32_t, "w=hhw", (uint32_t)a * b + c)                                     \
    V(mad_wide_s16, uint32_t, int16_t, int16_t, uint32_t, "w=hhw", (uint32_t)(a * b) + c)                                     \
    V(mad_wide_u32, uint64_t, uint32_t, uint32_t, uint64_t, "l=wwl", (uint64_t)a * b + c)                                     \
    V(mad_wide_s32, uint64_t, int32_t, int32_t, uint64_t, "l=wwl", (uint64_t)((int64_t)a * b) + c)                            \
    V(mad_lo_u16, uint16_t, uint16_t, uint16_t, uint16_t, "h=hhh", (uint32_t)a * b + c)                                       \
    V(mad_lo_s16, uint16_t, uint16_t, uint16_t, uint16_t, "h=hhh", (uint32_t)a * b + c)                                       \
    V(mad_lo_u32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", a * b + c)                                                 \
    V(mad_lo_s32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", a * b + c)                                                 \
    V(mad_lo_u64, uint64_t, uint64_t, uint64_t, uint64_t, "l=lll", a * b + c)                                                 \
    V(mad_lo_s64, uint64_t, uint64_t, uint64_t, uint64_t, "l=lll", a * b + c)                                                 \
    V(mad_hi_u32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", (((uint64_t)a * b) >> 32) + c)                             \
    V(mad_hi_s32, uint32_t, int32_t, int32_t, uint32_t, "w=www", (uint64_t)(((int64_t)a * b) >> 32) + c)                      \
    V(shf_l_wrap_b32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", (((uint64_t)b << 32 | a) << (c & 31)) >> 32)           \
    V(shf_r_wrap_b32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", ((uint64_t)b << 32 | a) >> (c & 31))                   \
    V(shf_l_clamp_b32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", c > 31 ? a : (((uint64_t)b << 32 | a) << c) >> 32)    \
    V(shf_r_clamp_b32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", ((uint64_t)b << 32 | a) >> (c > 32 ? 32 : c))         \
    V(prmt_b32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", prmt(a, b, c))                                               \
    V(bfe_u32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", field(a, b, c, 32, false))                                    \
    V(bfe_s32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", field(a, b, c, 32, true))                                     \
    V(bfe_u64, uint64_t, uint64_t, uint32_t, uint32_t, "l=lww", field(a, b, c, 64, false))                                    \
    V(bfe_s64, uint64_t, uint64_t, uint32_t, uint32_t, "l=lww", field(a, b, c, 64, true))                                     \
    V(dp4a_s32_s32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", dp4(a, b, c, true, true))                                \
    V(dp4a_u32_u32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", dp4(a, b, c, false, false))                              \
    V(dp4a_s32_u32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", dp4(a, b, c, true, false))                               \
    V(dp4a_u32_s32, uint32_t, uint32_t, uint32_t, uint32_t, "w=www", dp4(a, b, c, false, true))
#define FN_MIXED(name, TD, A, B, C, p, e) HANDLER(name) { D(TD, 0); S(A, pa, 1); S(B, pb, 2); LANES(A a = pa[l]; B b = pb[l]; d[l] = (TD)(e)) }
#define FN_THREE(name, TD, A, B, C, p, e) HANDLER(name) { D(TD, 0); S(A, pa, 1); S(B, pb, 2); S(C, pc, 3); LANES(A a = pa[l]; B b = pb[l]; C c = pc[l]; d[l] = (TD)(e)) }
#define ROW_MIXED(name, TD, A, B, C, p, e) {#name, p, name, K_PLAIN, -1},

HANDLER(bfi_b32) { D(uint32_t, 0); S(uint32_t, a, 1); S(uint32_t, b, 2); S(uint32_t, c, 3); S(uint32_t, n, 4); LANES(d[l] = (uint32_t)insert(a[l], b[l], c[l], n[l], 32)) }
HANDLER(bfi_b64) { D(uint64_t, 0); S(uint64_t, a, 1); S(uint64_t, b, 2); S(uint32_t, c, 3); S(uint32_t, n, 4); LANES(d[l] = insert(a[l], b[l], c[l], n[l], 64)) }
HANDLER(lop3_b32) { D(uint32_t, 0); S(uint32_t, a, 1); S(uint32_t, b, 2); S(uint32_t, c, 3); S(uint32_t, t, 4); LANES(d[l] = lop3(a[l], b[l], c[l], t[l])) }

/* Predicates are masks: 32 lanes at once. */
#define PRED2(name, e) HANDLER(name) { D(uint32_t, 0); S(uint32_t, pa, 1); S(uint32_t, pb, 2); uint32_t a = *pa; uint32_t b = *pb; *d = (*d & ~m) | ((e) & m); }
PRED2(and_pred, a & b)
PRED2(or_pred, a | b)
PRED2(xor_pred, a ^ b)
HANDLER(not_pred) { D(uint32_t, 0); S(uint32_t, a, 1); *d = (*d & ~m) | (~*a & m); }
HANDLER(mov_pred) { D(uint32_t, 0); S(uint32_t, a, 1); *d = (*d & ~m) | (*a & m); }

#define SELECT(name, T) HANDLER(name) { D(T, 0); S(T, a, 1); S(T, b, 2); S(uint32_t, p, 3); uint32_t pm = *p; LANES(d[l] = pm >> l & 1 ? a[l] : b[l]) }
SELECT(select16, uint16_t)
SELECT(select32, uint32_t)
SELECT(select64, uint64_t)
#define SLCT(name, T, C) HANDLER(name) { D(T, 0); S(T, a, 1); S(T, b, 2); S(C, c, 3); LANES(d[l] = c[l] >= 0 ? a[l] : b[l]) }
SLCT(slct32_s32, uint32_t, int32_t)
SLCT(slct64_s32, uint64_t, int32_t)
SLCT(slct32_f32, uint32_t, float)

TWO(FN_TWO)
ONE(FN_ONE)
MIXED(FN_MIXED)
THREE(FN_THREE)

const struct op_row qn_ptx_rows_int[] = {
    TWO(ROW_TWO) ONE(ROW_ONE) MIXED(ROW_MIXED) THREE(ROW_MIXED)
    {"bfi_b32", "w=wwww", bfi_b32, K_PLAIN, -1}, {"bfi_b64", "l=llww", bfi_b64, K_PLAIN, -1}, {"lop3_b32", "w=wwww", lop3_b32, K_PLAIN, -1},
    {"and_pred", "p=pp", and_pred, K_PLAIN, -1}, {"or_pred", "p=pp", or_pred, K_PLAIN, -1}, {"xor_pred", "p=pp", xor_pred, K_PLAIN, -1},
    {"not_pred", "p=p", not_pred, K_PLAIN, -1}, {"mov_pred", "p=p", mov_pred, K_PLAIN, -1},
    {"selp_b16", "h=hhp", select16, K_PLAIN, -1}, {"selp_u16", "h=hhp", select16, K_PLAIN, -1}, {"selp_s16", "h=hhp", select16, K_PLAIN, -1},
    {"selp_b32", "w=wwp", select32, K_PLAIN, -1}, {"selp_u32", "w=wwp", select32, K_PLAIN, -1}, {"selp_s32", "w=wwp", select32, K_PLAIN, -1},
    {"selp_f32", "w=wwp", select32, K_PLAIN, -1}, {"selp_b64", "l=llp", select64, K_PLAIN, -1}, {"selp_u64", "l=llp", select64, K_PLAIN, -1},
    {"selp_s64", "l=llp", select64, K_PLAIN, -1}, {"selp_f64", "l=llp", select64, K_PLAIN, -1},
    {"slct_b32_s32", "w=www", slct32_s32, K_PLAIN, -1}, {"slct_u32_s32", "w=www", slct32_s32, K_PLAIN, -1}, {"slct_s32_s32", "w=www", slct32_s32, K_PLAIN, -1},
    {"slct_f32_s32", "w=www", slct32_s32, K_PLAIN, -1}, {"slct_f32_f32", "w=www", slct32_f32, K_PLAIN, -1}, {"slct_b64_s32", "l=llw", slct64_s32, K_PLAIN, -1},
    {NULL, NULL, NULL, 0, 0},
};
