/* setp and set: a comparison, optionally joined with a predicate, and cvt: conversions between all scalar types (PTX ISA, "Comparison
 * and Selection", "cvt"). Their forms are too many for a table of rows, so the opcode's parts are read here. */
#include "tests/cuda/ptx/impl.h"

#include <immintrin.h>
#include <math.h>

enum cmp { C_EQ, C_NE, C_LT, C_LE, C_GT, C_GE, C_EQU, C_NEU, C_LTU, C_LEU, C_GTU, C_GEU, C_NUM, C_NAN, C_COUNT };
static const char *const cmp_names[C_COUNT] = {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
enum join { J_NONE, J_AND, J_OR, J_XOR };

static uint32_t mask_of(const int32_t flag[LANES_N]) {
    uint32_t r = 0;
    for (int k = 0; k < LANES_N; k += 8) r |= (uint32_t)_mm256_movemask_ps(_mm256_loadu_ps((const float *)(flag + k))) << k;
    return r;
}

#define EACH(e) for (int l = 0; l < LANES_N; l++) flag[l] = (e) ? -1 : 0; break
/* All lanes, also those that are off: comparing has no effect. */
#define COMPARE_(name, T, load, unordered)                                                                   \
    static uint32_t name(struct warp *w, const struct insn *i, int first) {                                  \
        S(T, pa, first);                                                                                     \
        S(T, pb, first + 1);                                                                                 \
        int32_t flag[LANES_N];                                                                               \
        switch (i->sub) {                                                                                    \
        case C_EQ: EACH(load(pa[l]) == load(pb[l]));                                                         \
        case C_NE: EACH(load(pa[l]) != load(pb[l]) && !(unordered));                                         \
        case C_LT: EACH(load(pa[l]) < load(pb[l]));                                                          \
        case C_LE: EACH(load(pa[l]) <= load(pb[l]));                                                         \
        case C_GT: EACH(load(pa[l]) > load(pb[l]));                                                          \
        case C_GE: EACH(load(pa[l]) >= load(pb[l]));                                                         \
        case C_EQU: EACH(load(pa[l]) == load(pb[l]) || (unordered));                                         \
        case C_NEU: EACH(load(pa[l]) != load(pb[l]));                                                        \
        case C_LTU: EACH(load(pa[l]) < load(pb[l]) || (unordered));                                          \
        case C_LEU: EACH(load(pa[l]) <= load(pb[l]) || (unordered));                                         \
        case C_GTU: EACH(load(pa[l]) > load(pb[l]) || (unordered));                                          \
        case C_GEU: EACH(load(pa[l]) >= load(pb[l]) || (unordered));                                         \
        case C_NUM: EACH(!(unordered));                                                                      \
        default: EACH(unordered);                                                                            \
        }                                                                                                    \
        return mask_of(flag);                                                                                \
    }
#define UNORDERED(load) (load(pa[l]) != load(pa[l]) || load(pb[l]) != load(pb[l]))
COMPARE_(cmp_u16, uint16_t, , 0)
COMPARE_(cmp_s16, int16_t, , 0)
COMPARE_(cmp_u32, uint32_t, , 0)
COMPARE_(cmp_s32, int32_t, , 0)
COMPARE_(cmp_u64, uint64_t, , 0)
COMPARE_(cmp_s64, int64_t, , 0)
COMPARE_(cmp_f32, float, , UNORDERED())
COMPARE_(cmp_f64, double, , UNORDERED())
COMPARE_(cmp_f16, uint16_t, qn_ptx_from_half, UNORDERED(qn_ptx_from_half))
COMPARE_(cmp_bf16, uint16_t, qn_ptx_from_bf16, UNORDERED(qn_ptx_from_bf16))

typedef uint32_t (*cmp_fn)(struct warp *, const struct insn *, int);
static const cmp_fn compares[T_COUNT] = {
    [T_B16] = cmp_u16, [T_U16] = cmp_u16, [T_S16] = cmp_s16, [T_B32] = cmp_u32, [T_U32] = cmp_u32, [T_S32] = cmp_s32, [T_B64] = cmp_u64,
    [T_U64] = cmp_u64, [T_S64] = cmp_s64, [T_F32] = cmp_f32, [T_F64] = cmp_f64, [T_F16] = cmp_f16, [T_BF16] = cmp_bf16,
};
static bool is_float(int t) { return t == T_F16 || t == T_BF16 || t == T_F32 || t == T_F64; }

static uint32_t joined(int how, uint32_t a, uint32_t c) { return how == J_AND ? a & c : how == J_OR ? a | c : how == J_XOR ? a ^ c : a; }
HANDLER(setp) {
    uint32_t r = compares[i->atype](w, i, i->n_dst), c = i->vec == J_NONE ? 0 : reg_of(w, i->o[i->n_dst + 2])->u32[0];
    uint32_t *p = reg_of(w, i->o[0])->u32, first = joined(i->vec, r, c), second = joined(i->vec, ~r, c);
    *p = (*p & ~m) | (first & m);
    if (i->n_dst == 2) p = reg_of(w, i->o[1])->u32, *p = (*p & ~m) | (second & m);
}
HANDLER(set32) {
    D(uint32_t, 0);
    uint32_t r = compares[i->atype](w, i, 1), yes = i->type == T_F32 ? 0x3f800000u : ALL;
    LANES(d[l] = r >> l & 1 ? yes : 0)
}

static int cmp_of(const char *s, int type) {
    static const struct { const char *name; int cmp; } of_unsigned[] = {{"lo", C_LT}, {"ls", C_LE}, {"hi", C_GT}, {"hs", C_GE}};
    for (int k = 0; k < 4; k++)
        if (!strcmp(s, of_unsigned[k].name) && (type == T_U16 || type == T_U32 || type == T_U64)) return of_unsigned[k].cmp;
    for (int k = 0; k < C_COUNT; k++)
        if (!strcmp(s, cmp_names[k]) && (k <= C_GE || is_float(type))) return k;
    return -1;
}

/* setp.cmp[.bool].type p[|q], a, b[, c]   and   set.cmp.{u32,s32,f32}.type d, a, b */
static int decode_set(struct insn *i, struct line *ln) {
    bool is_p = !strcmp(ln->part[0], "setp");
    if (!is_p && strcmp(ln->part[0], "set")) return 0;
    int n = ln->n_parts;
    i->kind = K_PLAIN;
    i->atype = (uint8_t)qn_ptx_type(ln->part[n - 1]);
    if (!compares[i->atype]) return 0;
    int cmp = cmp_of(ln->part[1], i->atype);
    if (cmp < 0) return 0;
    i->sub = (uint8_t)cmp;
    if (is_p) {
        if (n == 4) i->vec = !strcmp(ln->part[2], "and") ? J_AND : !strcmp(ln->part[2], "or") ? J_OR : !strcmp(ln->part[2], "xor") ? J_XOR : 99;
        i->n_dst = ln->n > 1 && ln->o[1].first == 0 ? 2 : 1;
        if (n > 4 || i->vec == 99 || ln->n != i->n_dst + 2 + (i->vec != J_NONE)) return 0;
        i->fn = setp;
        for (int k = 0; k < i->n_dst; k++) qn_ptx_take(i, ln, k, 1);
        if (i->vec != J_NONE) qn_ptx_take(i, ln, i->n_dst + 2, 1);
    } else {
        i->type = (uint8_t)qn_ptx_type(ln->part[2]);
        if (n != 4 || ln->n != 3 || (i->type != T_U32 && i->type != T_S32 && i->type != T_F32)) return 0;
        i->fn = set32, i->n_dst = 1;
        qn_ptx_take(i, ln, 0, 4);
    }
    qn_ptx_take(i, ln, i->n_dst, qn_ptx_bytes(i->atype));
    qn_ptx_take(i, ln, i->n_dst + 1, qn_ptx_bytes(i->atype));
    return 1;
}

/* ---- cvt ---- */

static bool is_signed(int t) { return t == T_S8 || t == T_S16 || t == T_S32 || t == T_S64; }
static bool is_int(int t) { return is_signed(t) || t == T_U8 || t == T_U16 || t == T_U32 || t == T_U64; }

static int64_t extend(uint64_t v, int type) {
    unsigned drop = 64 - 8 * qn_ptx_bytes(type);
    return is_signed(type) ? (int64_t)(v << drop) >> drop : (int64_t)(v << drop >> drop);
}
static double to_double(uint64_t v, int type) {
    double d;
    float f;
    switch (type) {
    case T_F16: return (double)qn_ptx_from_half((uint16_t)v);
    case T_BF16: return (double)qn_ptx_from_bf16((uint16_t)v);
    case T_F32: memcpy(&f, &v, 4); return (double)f;
    default: memcpy(&d, &v, 8); return d;
    }
}
static unsigned mxcsr_of(int round) { return round == RD_RZ ? _MM_ROUND_TOWARD_ZERO : round == RD_RM ? _MM_ROUND_DOWN : round == RD_RP ? _MM_ROUND_UP : _MM_ROUND_NEAREST; }
static double whole(double x, int round) {
    return round == RD_RNI ? nearbyint(x) : round == RD_RZI ? trunc(x) : round == RD_RMI ? floor(x) : round == RD_RPI ? ceil(x) : x;
}

static uint64_t clamp_int(int64_t v, int from, int to) {
    unsigned bits = 8 * qn_ptx_bytes(to);
    int64_t low = is_signed(to) ? (int64_t)(~0ull << (bits - 1)) : 0;
    uint64_t high = is_signed(to) ? (1ull << (bits - 1)) - 1 : bits == 64 ? ~0ull : (1ull << bits) - 1;
    if (!is_signed(from)) return (uint64_t)v > high ? high : (uint64_t)v;
    return v < low ? (uint64_t)low : v > 0 && (uint64_t)v > high ? high : (uint64_t)v;
}

/* Out of range gives the nearest end; NaN gives zero, or the top bit where 64 bits are involved (ISA, cvt). */
static uint64_t float_to_int(double x, int from, int to) {
    unsigned bits = 8 * qn_ptx_bytes(to);
    if (x != x) return from == T_F64 || bits == 64 ? 1ull << (bits - 1) : 0;
    double low = is_signed(to) ? -ldexp(1, (int)bits - 1) : 0, high = ldexp(1, (int)bits - is_signed(to));
    if (x <= low) return is_signed(to) ? ~0ull << (bits - 1) : 0;
    if (x >= high) return is_signed(to) ? (1ull << (bits - 1)) - 1 : bits == 64 ? ~0ull : (1ull << bits) - 1;
    return is_signed(to) ? (uint64_t)(int64_t)x : (uint64_t)x;
}

static __attribute__((noinline)) uint64_t to_float(double x, int round, int to) {
    union { double d; float f; uint64_t u; } v = {.u = 0};
    if (to == T_F64) { v.d = x; return v.u; }
    unsigned old = _mm_getcsr();
    volatile double in = x;
    volatile float out;
    _mm_setcsr((old & ~_MM_ROUND_MASK) | mxcsr_of(to == T_F32 ? round : RD_RZ));
    out = (float)in;
    _mm_setcsr(old);
    v.f = out;
    if (to == T_F32) return v.u;
    /* To 16 bits from double: toward zero with the lost part kept as a one at the end, then once more as asked. */
    if ((double)out != x && x == x) v.u |= 1;
    return to == T_F16 ? qn_ptx_to_half(v.f, round) : qn_ptx_to_bf16(v.f, round);
}
/* Integers of 64 bits do not fit in a double: they go to f32 and f64 directly. */
static __attribute__((noinline)) uint64_t int_to_float(int64_t x, bool sign, int round, int to) {
    union { double d; float f; uint64_t u; } v = {.u = 0};
    if (to == T_F16 || to == T_BF16) return to_float(sign ? (double)x : (double)(uint64_t)x, round, to);
    unsigned old = _mm_getcsr();
    volatile int64_t in = x;
    _mm_setcsr((old & ~_MM_ROUND_MASK) | mxcsr_of(round));
    volatile double wide = 0;
    volatile float narrow = 0;
    if (to == T_F64) wide = sign ? (double)in : (double)(uint64_t)in;
    else narrow = sign ? (float)in : (float)(uint64_t)in;
    _mm_setcsr(old);
    if (to == T_F64) v.d = wide;
    else v.f = narrow;
    return v.u;
}

static uint64_t convert(const struct insn *i, uint64_t raw) {
    int from = i->atype, to = i->type;
    if (is_int(from) && is_int(to)) return i->sat ? clamp_int(extend(raw, from), from, to) : (uint64_t)extend((uint64_t)extend(raw, from), to);
    if (is_int(from)) return int_to_float(extend(raw, from), is_signed(from), i->round, to);
    double x = to_double(raw, from);
    if (i->ftz && fabs(x) < 0x1p-126) x = copysign(0, x);
    if (is_int(to)) return float_to_int(whole(x, i->round), from, to);
    if (i->round >= RD_RNI) x = whole(x, i->round);
    if (i->sat) x = x > 0 ? fmin(x, 1) : 0;
    if (i->sub) x = x != x ? x : fmax(x, 0); /* relu */
    return to_float(x, i->round, to);
}

HANDLER(cvt) {
    uint64_t v[LANES_N];
    qn_ptx_get(v, w, i, 1, qn_ptx_bytes(i->atype));
    for (int l = 0; l < LANES_N; l++)
        if (m >> l & 1) v[l] = convert(i, v[l]);
    if (is_signed(i->type)) /* a narrow result is widened by its sign to the register */
        for (int l = 0; l < LANES_N; l++) v[l] = (uint64_t)extend(v[l], i->type);
    qn_ptx_put(w, i, 0, v, m);
}
/* The frequent ones, without the way through 64 bits. */
HANDLER(f32_s32) { D(float, 0); S(int32_t, a, 1); LANES(d[l] = (float)a[l]) }
HANDLER(f32_f16) { D(float, 0); S(uint16_t, a, 1); LANES(d[l] = qn_ptx_from_half(a[l])) }
HANDLER(f16_f32) { D(uint16_t, 0); S(float, a, 1); LANES(d[l] = qn_ptx_to_half(a[l], RD_RN)) }
HANDLER(u64_u32) { D(uint64_t, 0); S(uint32_t, a, 1); LANES(d[l] = a[l]) }
HANDLER(s64_s32) { D(int64_t, 0); S(int32_t, a, 1); LANES(d[l] = a[l]) }
HANDLER(u32_u64) { D(uint32_t, 0); S(uint64_t, a, 1); LANES(d[l] = (uint32_t)a[l]) }
HANDLER(u32_u16) { D(uint32_t, 0); S(uint16_t, a, 1); LANES(d[l] = a[l]) }
HANDLER(s32_s16) { D(int32_t, 0); S(int16_t, a, 1); LANES(d[l] = a[l]) }
HANDLER(u16_u32) { D(uint16_t, 0); S(uint32_t, a, 1); LANES(d[l] = (uint16_t)a[l]) }
HANDLER(sat_f32) { D(float, 0); S(float, a, 1); LANES(float x = a[l]; d[l] = x > 0 ? (x < 1 ? x : 1) : 0) }
static const struct { const char *op; op_fn fn; uint8_t dst, src; } quick[] = {
    {"cvt.rn.f32.s32", f32_s32, 4, 4}, {"cvt.f32.f16", f32_f16, 4, 2}, {"cvt.rn.f16.f32", f16_f32, 2, 4}, {"cvt.u64.u32", u64_u32, 8, 4},
    {"cvt.s64.s32", s64_s32, 8, 4},    {"cvt.u32.u64", u32_u64, 4, 8}, {"cvt.u32.u16", u32_u16, 4, 2},    {"cvt.s32.s16", s32_s16, 4, 2},
    {"cvt.u16.u32", u16_u32, 2, 4},    {"cvt.sat.f32.f32", sat_f32, 4, 4},
};

/* Two f32 to a pair: the first operand goes to the high half. */
HANDLER(cvt_pair) {
    D(uint32_t, 0);
    S(float, high, 1);
    S(float, low, 2);
    for (int l = 0; l < LANES_N; l++) {
        if (!(m >> l & 1)) continue;
        float h = high[l], o = low[l];
        if (i->sub) h = h > 0 || h != h ? h : 0, o = o > 0 || o != o ? o : 0;
        d[l] = i->type == T_F16X2 ? (uint32_t)qn_ptx_to_half(h, i->round) << 16 | qn_ptx_to_half(o, i->round) : (uint32_t)qn_ptx_to_bf16(h, i->round) << 16 | qn_ptx_to_bf16(o, i->round);
    }
}
/* cvt.pack.sat.T.s32.b32 d, a, b, c: b to the low end, a above it, c shifted up behind both. */
HANDLER(cvt_pack) {
    D(uint32_t, 0);
    S(int32_t, a, 1);
    S(int32_t, b, 2);
    S(uint32_t, c, 3);
    unsigned bits = 8 * qn_ptx_bytes(i->type);
    uint32_t mask = (1u << bits) - 1;
    LANES(d[l] = (uint32_t)(clamp_int(b[l], T_S32, i->type) & mask) | (uint32_t)(clamp_int(a[l], T_S32, i->type) & mask) << bits | (bits == 8 ? c[l] << 16 : 0))
}

/* Which roundings a conversion must or may name (ISA, cvt). */
static bool rounding_fits(int from, int to, int round) {
    if (is_int(from) && is_int(to)) return round == RD_NONE;
    if (is_int(from)) return round >= RD_RN && round <= RD_RP;
    if (is_int(to)) return round >= RD_RNI;
    if (qn_ptx_bytes(to) < qn_ptx_bytes(from) || (from != to && qn_ptx_bytes(to) == 2 && qn_ptx_bytes(from) == 2)) return round >= RD_RN && round <= RD_RP;
    return from == to ? round == RD_NONE || round >= RD_RNI : round == RD_NONE;
}

static int decode_pack(struct insn *i, struct line *ln) {
    i->type = (uint8_t)qn_ptx_type(ln->part[3]);
    int with = i->type == T_S8 || i->type == T_U8;
    if (!is_int(i->type) || qn_ptx_bytes(i->type) > 2 || strcmp(ln->part[2], "sat") || strcmp(ln->part[4], "s32") || ln->n_parts != 5 + with || ln->n != 3 + with) return 0;
    if (with && strcmp(ln->part[5], "b32")) return 0;
    i->fn = cvt_pack, i->n_dst = 1;
    for (int k = 0; k < ln->n; k++) qn_ptx_take(i, ln, k, 4);
    if (!with) i->o[3] = i->o[2];
    return 1;
}

int qn_ptx_decode_cvt(struct insn *i, struct line *ln) {
    static const char *const rounds[] = {"", "rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi"};
    if (decode_set(i, ln)) return 1;
    if (strcmp(ln->part[0], "cvt") || ln->n_parts < 3) return 0;
    i->kind = K_PLAIN;
    if (!strcmp(ln->part[1], "pack")) return ln->n_parts >= 5 && decode_pack(i, ln);
    int n = ln->n_parts;
    for (int k = 1; k < n - 2; k++) {
        int round = 0;
        for (int r = RD_RN; r <= RD_RPI; r++)
            if (!strcmp(ln->part[k], rounds[r])) round = r;
        if (round && i->round == RD_NONE) i->round = (uint8_t)round;
        else if (!strcmp(ln->part[k], "sat")) i->sat = 1;
        else if (!strcmp(ln->part[k], "ftz")) i->ftz = 1;
        else if (!strcmp(ln->part[k], "relu")) i->sub = 1;
        else return 0;
    }
    i->type = (uint8_t)qn_ptx_type(ln->part[n - 2]);
    i->atype = (uint8_t)qn_ptx_type(ln->part[n - 1]);
    i->n_dst = 1;
    if ((i->type == T_F16X2 || i->type == T_BF16X2) && i->atype == T_F32 && ln->n == 3 && !i->sat && !i->ftz && i->round >= RD_RN && i->round <= RD_RP) {
        i->fn = cvt_pair;
        for (int k = 0; k < 3; k++) qn_ptx_take(i, ln, k, 4);
        return 1;
    }
    bool known = (is_int(i->type) || is_float(i->type)) && (is_int(i->atype) || is_float(i->atype));
    if (!known || ln->n != 2 || !rounding_fits(i->atype, i->type, i->round)) return 0;
    i->fn = cvt;
    qn_ptx_take(i, ln, 0, 0);
    qn_ptx_take(i, ln, 1, ln->o[1].kind == OPD_IMM ? qn_ptx_bytes(i->atype) < 2 ? 2 : qn_ptx_bytes(i->atype) : 0);
    if (i->width[0] < qn_ptx_bytes(i->type) || i->width[1] < qn_ptx_bytes(i->atype)) return 0;
    for (size_t k = 0; k < sizeof quick / sizeof *quick; k++)
        if (!strcmp(ln->op, quick[k].op) && i->width[0] == quick[k].dst && i->width[1] == quick[k].src) i->fn = quick[k].fn;
    return 1;
}
