/* Opcodes of the PTX interpreter, one row a case: the line, its operands, the value that the ISA manual (9.0) gives. The values are
 * worked out by hand from the manual's text, on the awkward side: shift counts past the width, fields past the end, NaN, signed
 * zeros, the smallest integer, ties. Each row runs in lanes of its own beside lanes that are off and must not change. */
#include "tests/cuda/ptx/ptx.h"
#include "tests/run.h"

#include <stdint.h>

struct row {
    const char *op;
    uint64_t want, a, b, c, d;
};

/* Letters of the operands, destination first: h w l as in the interpreter's tables, f and d for floats, p for a predicate. */
static const char *load_of(char c) { return c == 'h' ? "u16" : c == 'w' ? "u32" : c == 'f' ? "f32" : c == 'd' ? "f64" : "u64"; }
static const char *reg_of(char c) { return c == 'h' ? "%h" : c == 'w' ? "%w" : c == 'f' ? "%f" : c == 'd' ? "%d" : "%l"; }

/* Runs `op` with the operands in lanes 0..15; lanes 16..31 keep the mark. Returns lane 5's value. */
static uint64_t run_one(const struct row *r, const char *kinds) {
    char text[4096], body[2048];
    uint64_t in[4] = {r->a, r->b, r->c, r->d}, out[32];
    int n = 0, k = (int)strlen(kinds);
    n += snprintf(body + n, sizeof body - (size_t)n, "mov.b64 %%l0, 0x1111111111111111; mov.b32 %%w0, 0x11111111; mov.b16 %%h0, 0x1111; mov.b32 %%f0, 0x11111111; mov.b64 %%d0, 0x1111111111111111;\n");
    for (int s = 1; s < k; s++)
        if (kinds[s] != 'p') n += snprintf(body + n, sizeof body - (size_t)n, "ld.global.%s %s%d, [%%in+%d];\n", load_of(kinds[s]), reg_of(kinds[s]), s, 8 * (s - 1));
        else n += snprintf(body + n, sizeof body - (size_t)n, "ld.global.u32 %%x, [%%in+%d]; setp.ne.u32 %%p%d, %%x, 0;\n", 8 * (s - 1), s);
    n += snprintf(body + n, sizeof body - (size_t)n, "setp.lt.u32 %%on, %%lane, 16;\n@%%on %s ", r->op);
    for (int s = 0; s < k; s++) n += snprintf(body + n, sizeof body - (size_t)n, "%s%s%d", s ? ", " : "", kinds[s] == 'p' ? "%p" : reg_of(kinds[s]), s);
    if (kinds[0] == 'p') n += snprintf(body + n, sizeof body - (size_t)n, ";\nselp.b32 %%w0, 1, 0, %%p0; @!%%on mov.b32 %%w0, 0x11111111");
    snprintf(text, sizeof text,
             ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry t(.param .u64 pin, .param .u64 pout) {\n"
             ".reg .b16 %%h<6>; .reg .b32 %%w<6>; .reg .b64 %%l<6>; .reg .f32 %%f<6>; .reg .f64 %%d<6>; .reg .pred %%p<6>, %%on; .reg .b32 %%lane, %%x; .reg .b64 %%in, %%out, %%o;\n"
             "ld.param.u64 %%in, [pin]; ld.param.u64 %%out, [pout]; mov.u32 %%lane, %%tid.x; mul.wide.u32 %%o, %%lane, 8; add.s64 %%out, %%out, %%o;\n"
             "%s;\nst.global.%s [%%out], %s0;\nret;\n}\n",
             body, load_of(kinds[0] == 'p' ? 'w' : kinds[0]), kinds[0] == 'p' ? "%w" : reg_of(kinds[0]));
    memset(out, 0, sizeof out);
    qn_ptx_allow(in, sizeof in, 0);
    qn_ptx_allow(out, sizeof out, 1);
    const void *pi = in, *po = out;
    struct qn_ptx_arg args[2] = {{&pi, 8}, {&po, 8}};
    struct qn_ptx *m = qn_ptx_parse(text, r->op);
    qn_ptx_launch(m, "t", (unsigned[3]){1, 1, 1}, (unsigned[3]){32, 1, 1}, 0, args, 2);
    qn_ptx_close(m);
    qn_ptx_forbid(in);
    qn_ptx_forbid(out);
    uint64_t mark = kinds[0] == 'h' ? 0x1111 : kinds[0] == 'l' || kinds[0] == 'd' ? 0x1111111111111111ull : 0x11111111;
    for (int l = 0; l < 16; l++) EXPECT(out[l] == out[5]);
    for (int l = 16; l < 32; l++) EXPECT(out[l] == mark);
    return out[5];
}

static void run_rows(const struct row *r, size_t n, const char *kinds) {
    for (size_t k = 0; k < n; k++) {
        uint64_t got = run_one(&r[k], kinds);
        if (got != r[k].want)
            qn_test_fail(__FILE__, __LINE__, "%s %llx %llx %llx %llx = %llx, wanted %llx", r[k].op, (unsigned long long)r[k].a, (unsigned long long)r[k].b, (unsigned long long)r[k].c,
                         (unsigned long long)r[k].d, (unsigned long long)got, (unsigned long long)r[k].want);
    }
}
#define ROWS(kinds, ...)                                                \
    do {                                                                \
        const struct row rows_[] = {__VA_ARGS__};                       \
        run_rows(rows_, sizeof rows_ / sizeof *rows_, kinds);           \
    } while (0)

TEST(ptx_ops, integers) {
    ROWS("www", {"add.s32", 0x80000000, 0x7fffffff, 1, 0, 0}, {"sub.u32", 0xffffffff, 0, 1, 0, 0}, {"mul.lo.s32", 1, 0xffffffff, 0xffffffff, 0, 0},
         {"mul.hi.s32", 0, 0xffffffff, 0xffffffff, 0, 0}, {"mul.hi.u32", 0xfffffffe, 0xffffffff, 0xffffffff, 0, 0}, {"min.s32", 0x80000000, 0x80000000, 5, 0, 0},
         {"min.u32", 5, 0x80000000, 5, 0, 0}, {"max.s32", 5, 0x80000000, 5, 0, 0}, {"div.s32", 0xfffffffd, 0xfffffff9, 2, 0, 0}, {"rem.s32", 0xffffffff, 0xfffffff9, 2, 0, 0},
         {"div.u32", 0x7ffffffc, 0xfffffff9, 2, 0, 0}, {"div.s32", 0x80000000, 0x80000000, 0xffffffff, 0, 0}, {"rem.s32", 0, 0x80000000, 0xffffffff, 0, 0}, {"rem.u32", 7, 7, 0, 0, 0},
         {"and.b32", 0x0c, 0x0f, 0x3c, 0, 0}, {"or.b32", 0x3f, 0x0f, 0x3c, 0, 0}, {"xor.b32", 0x33, 0x0f, 0x3c, 0, 0});
    ROWS("lll", {"add.s64", 0, ~0ull, 1, 0, 0}, {"mul.lo.u64", 1, ~0ull, ~0ull, 0, 0}, {"mul.hi.u64", ~0ull - 1, ~0ull, ~0ull, 0, 0}, {"mul.hi.s64", 0, ~0ull, ~0ull, 0, 0},
         {"div.s64", ~0ull - 2, ~0ull - 6, 2, 0, 0}, {"rem.s64", ~0ull, ~0ull - 6, 2, 0, 0}, {"min.s64", 1ull << 63, 1ull << 63, 5, 0, 0}, {"max.u64", 1ull << 63, 1ull << 63, 5, 0, 0});
    ROWS("hhh", {"add.s16", 0x8000, 0x7fff, 1, 0, 0}, {"mul.lo.s16", 0xfffe, 0xffff, 2, 0, 0}, {"mul.lo.u16", 1, 0xffff, 0xffff, 0, 0}, {"min.s16", 0x8000, 0x8000, 1, 0, 0}, {"max.u16", 0x8000, 0x8000, 1, 0, 0},
         {"mul.hi.s16", 0xffff, 0xffff, 2, 0, 0}, {"mul.hi.u16", 1, 0xffff, 2, 0, 0}, {"div.s16", 0xfffd, 0xfff9, 2, 0, 0}, {"rem.u16", 1, 0xfff9, 2, 0, 0});
    ROWS("ww", {"abs.s32", 5, 0xfffffffb, 0, 0, 0}, {"abs.s32", 0x80000000, 0x80000000, 0, 0, 0}, {"neg.s32", 0xfffffffb, 5, 0, 0, 0}, {"not.b32", 0xfffffffa, 5, 0, 0, 0}, {"popc.b32", 32, 0xffffffff, 0, 0, 0},
         {"clz.b32", 32, 0, 0, 0, 0}, {"clz.b32", 31, 1, 0, 0, 0}, {"brev.b32", 0x80000000, 1, 0, 0, 0}, {"bfind.u32", 31, 0x80000000, 0, 0, 0}, {"bfind.u32", 0xffffffff, 0, 0, 0, 0},
         {"bfind.s32", 0, 0xfffffffe, 0, 0, 0}, {"bfind.shiftamt.u32", 31, 1, 0, 0, 0});
    ROWS("wl", {"popc.b64", 64, ~0ull, 0, 0, 0}, {"clz.b64", 63, 1, 0, 0, 0});
    ROWS("ll", {"neg.s64", ~0ull, 1, 0, 0, 0}, {"abs.s64", 1, ~0ull, 0, 0, 0}, {"brev.b64", 1, 1ull << 63, 0, 0, 0}, {"not.b64", ~0ull, 0, 0, 0, 0});
}

TEST(ptx_ops, products_that_widen) {
    ROWS("whh", {"mul.wide.u16", 0xfffe0001, 0xffff, 0xffff, 0, 0}, {"mul.wide.s16", 1, 0xffff, 0xffff, 0, 0}, {"mul.wide.s16", 0xffff8000, 0x8000, 1, 0, 0});
    ROWS("lww", {"mul.wide.u32", 0xfffffffe00000001ull, 0xffffffff, 0xffffffff, 0, 0}, {"mul.wide.s32", 1, 0xffffffff, 0xffffffff, 0, 0}, {"mul.wide.s32", 0xffffffff80000000ull, 0x80000000, 1, 0, 0});
    ROWS("lwwl", {"mad.wide.s32", 0xfffffffffffffffeull, 0xffffffff, 4, 2, 0}, {"mad.wide.u32", 0x400000000ull - 4 + 2, 0xffffffff, 4, 2, 0});
    ROWS("whhw", {"mad.wide.s16", 0xfffffffe, 0xffff, 4, 2, 0}, {"mad.wide.u16", 0x3fffe, 0xffff, 4, 2, 0});
    ROWS("wwww", {"mad.lo.s32", 11, 3, 3, 2, 0}, {"mad.hi.u32", 3, 0x80000000, 2, 2, 0}, {"mad.hi.s32", 1, 0x80000000, 2, 2, 0});
    ROWS("llll", {"mad.lo.s64", 11, 3, 3, 2, 0});
    ROWS("hhhh", {"mad.lo.u16", 0x0003, 0xffff, 0xffff, 2, 0});
}

TEST(ptx_ops, shifts_and_fields) {
    ROWS("www", {"shl.b32", 0x80000000, 1, 31, 0, 0}, {"shl.b32", 0, 1, 32, 0, 0}, {"shl.b32", 0, 1, 0xffffffff, 0, 0}, {"shr.u32", 0, 0x80000000, 32, 0, 0}, {"shr.s32", 0xffffffff, 0x80000000, 32, 0, 0},
         {"shr.s32", 0xffffffff, 0x80000000, 0xffffffff, 0, 0}, {"shr.b32", 1, 0x80000000, 31, 0, 0});
    ROWS("llw", {"shl.b64", 1ull << 63, 1, 63, 0, 0}, {"shl.b64", 0, 1, 64, 0, 0}, {"shr.s64", ~0ull, 1ull << 63, 200, 0, 0}, {"shr.u64", 0, ~0ull, 64, 0, 0}, {"shr.b64", 1, 1ull << 63, 63, 0, 0});
    ROWS("hhw", {"shl.b16", 0x8000, 1, 15, 0, 0}, {"shl.b16", 0, 1, 16, 0, 0}, {"shr.s16", 0xffff, 0x8000, 20, 0, 0}, {"shr.u16", 0, 0x8000, 16, 0, 0});
    /* d = the high word of b:a << c, the low word of b:a >> c. */
    ROWS("wwww", {"shf.l.wrap.b32", 0x23456788, 0x89abcdef, 0x12345678, 4 + 32, 0}, {"shf.r.wrap.b32", 0x889abcde, 0x89abcdef, 0x12345678, 4 + 32, 0}, {"shf.l.wrap.b32", 0x12345678, 0x89abcdef, 0x12345678, 32, 0},
         {"shf.l.clamp.b32", 0x89abcdef, 0x89abcdef, 0x12345678, 40, 0}, {"shf.r.clamp.b32", 0x12345678, 0x89abcdef, 0x12345678, 40, 0}, {"shf.r.clamp.b32", 0x889abcde, 0x89abcdef, 0x12345678, 4, 0});
    ROWS("wwww", {"prmt.b32", 0x33221100, 0x33221100, 0x77665544, 0x3210, 0}, {"prmt.b32", 0x44556677, 0x33221100, 0x77665544, 0x4567, 0}, {"prmt.b32", 0xff00ffff, 0x80007f80, 0, 0xb988, 0},
         {"prmt.b32", 0x00000000, 0x33221100, 0x77665544, 0xba98, 0});
    ROWS("wwww", {"bfe.u32", 0x67, 0x12345678, 4, 8, 0}, {"bfe.s32", 0xffffff9a, 0x000019a0 & 0x9a0, 4, 8, 0}, {"bfe.u32", 0x1, 0x12345678, 28, 8, 0}, {"bfe.s32", 0xffffffff, 0xf0000000, 28, 8, 0}, {"bfe.u32", 0, 0xffffffff, 4, 0, 0},
         {"bfe.s32", 0, 0xffffffff, 4, 0, 0}, {"bfe.s32", 0xffffffff, 0x80000000, 40, 4, 0}, {"bfe.u32", 0, 0x80000000, 40, 4, 0});
    ROWS("llww", {"bfe.u64", 0xabc, 0xabc0000000000000ull, 52, 20, 0}, {"bfe.s64", ~0ull, 1ull << 63, 63, 1, 0});
    ROWS("wwwww", {"bfi.b32", 0xfffff0af, 0xa, 0xfffff0ff, 4, 4}, {"bfi.b32", 0xaf000000, 0xaf, 0, 24, 8}, {"bfi.b32", 0xf0000000, 0xaf, 0, 28, 8}, {"bfi.b32", 5, 0xaf, 5, 4, 0}, {"bfi.b32", 5, 0xaf, 5, 32, 4});
    ROWS("lllww", {"bfi.b64", 0xaf00000000000000ull, 0xaf, 0, 56, 8}, {"bfi.b64", 0x000a000000000000ull, 0xa, 0, 48, 4});
    ROWS("wwwww", {"lop3.b32", 0x0f0f0f0f & 0x33333333, 0x0f0f0f0f, 0x33333333, 0x55555555, 0xc0}, {"lop3.b32", 0x0f0f0f0f ^ 0x33333333 ^ 0x55555555, 0x0f0f0f0f, 0x33333333, 0x55555555, 0x96},
         {"lop3.b32", ~0x0f0f0f0fu, 0x0f0f0f0f, 1, 2, 0x0f});
    ROWS("wwww", {"dp4a.s32.s32", (uint32_t)(-4 * 127 + 3), 0xffffffff, 0x7f7f7f7f, 3, 0}, {"dp4a.u32.u32", 4 * 255 * 127 + 3, 0xffffffff, 0x7f7f7f7f, 3, 0}, {"dp4a.s32.u32", (uint32_t)-1020, 0xffffffff, 0xffffffff, 0, 0},
         {"dp4a.u32.s32", (uint32_t)-1020, 0xffffffff, 0xffffffff, 0, 0}, {"dp4a.s32.s32", 4, 0x00000004, 0xffffff01, 0, 0});
}

#define F_NAN 0x7fffffff
#define F(x) ((union { float f; uint32_t u; }){x}.u)
#define DD(x) ((union { double d; uint64_t u; }){x}.u)

static uint64_t run_f(const char *op, float a, float b, float c, const char *kinds) {
    struct row r = {op, 0, F(a), F(b), F(c), 0};
    return run_one(&r, kinds);
}
static float as_float(uint64_t u) { float f; uint32_t w = (uint32_t)u; memcpy(&f, &w, 4); return f; }
#define FEQ(op, kinds, a, b, c, want)                                                                       \
    do {                                                                                                    \
        float got_ = as_float(run_f(op, a, b, c, kinds)), want_ = want;                                     \
        if (isnan(want_) ? !isnan(got_) : F(got_) != F(want_)) qn_test_fail(__FILE__, __LINE__, "%s = %a, wanted %a", op, (double)got_, (double)want_); \
    } while (0)

TEST(ptx_ops, floats_and_their_rounding) {
    FEQ("add.f32", "fff", 1, 0x1p-24f, 0, 1);                       /* a tie, to even */
    FEQ("add.rn.f32", "fff", 0x1.000002p0f, 0x1p-24f, 0, 0x1.000004p0f);
    FEQ("add.rz.f32", "fff", 1, 0x1.8p-24f, 0, 1);
    FEQ("add.rp.f32", "fff", 1, 0x1p-60f, 0, 0x1.000002p0f);
    FEQ("add.rm.f32", "fff", 1, -0x1p-60f, 0, 0x1.fffffep-1f);
    FEQ("mul.rz.f32", "fff", 0x1.fffffep0f, 0x1.fffffep0f, 0, 0x1.fffffcp1f);
    FEQ("sub.f32", "fff", INFINITY, INFINITY, 0, NAN);
    FEQ("fma.rn.f32", "ffff", 0x1.000002p0f, 0x1.000002p0f, -0x1.000004p0f, 0x1p-46f); /* not fused: 0 */
    FEQ("fma.rm.f32", "ffff", 1, 1, 0x1.8p-24f, 1);
    FEQ("fma.rp.f32", "ffff", 1, 1, 0x1p-60f, 0x1.000002p0f);
    FEQ("fma.rz.f32", "ffff", -1, 1, -0x1.8p-24f, -1);
    FEQ("div.rn.f32", "fff", 1, 3, 0, 1.0f / 3);
    FEQ("div.rn.f32", "fff", 1, 0, 0, INFINITY);
    FEQ("sqrt.rn.f32", "ff", 2, 0, 0, sqrtf(2));
    FEQ("rcp.rn.f32", "ff", 3, 0, 0, 1.0f / 3);
    FEQ("neg.f32", "ff", 0, 0, 0, -0.0f);
    FEQ("abs.f32", "ff", -0.0f, 0, 0, 0);
    FEQ("copysign.f32", "fff", -1, 5, 0, -5); /* the sign of a, the value of b */
    FEQ("mov.f32", "ff", 5, 0, 0, 5);
    EXPECT(run_one(&(struct row){"fma.rn.f64", 0, DD(0x1.0000000000001p0), DD(0x1.0000000000001p0), DD(-0x1.0000000000002p0), 0}, "dddd") == DD(0x1p-104));
    EXPECT(run_one(&(struct row){"div.rn.f64", 0, DD(1), DD(3), 0, 0}, "ddd") == DD(1.0 / 3));
}

TEST(ptx_ops, minimum_maximum_and_nan) {
    FEQ("min.f32", "fff", NAN, 1, 0, 1);
    FEQ("min.f32", "fff", 1, NAN, 0, 1);
    FEQ("min.f32", "fff", NAN, NAN, 0, NAN);
    FEQ("max.f32", "fff", NAN, -INFINITY, 0, -INFINITY);
    FEQ("max.NaN.f32", "fff", 1, NAN, 0, NAN);
    FEQ("min.NaN.f32", "fff", NAN, 1, 0, NAN);
    FEQ("min.f32", "fff", 0, -0.0f, 0, -0.0f);
    FEQ("min.f32", "fff", -0.0f, 0, 0, -0.0f);
    FEQ("max.f32", "fff", -0.0f, 0, 0, 0);
    FEQ("max.f32", "fff", 0, -0.0f, 0, 0);
    ROWS("hhh", {"min.f16", 0x3c00, 0x7e00, 0x3c00, 0, 0}, {"max.f16", 0x4000, 0x3c00, 0x4000, 0, 0}, {"max.NaN.f16", 0x7fff, 0x7e00, 0x4000, 0, 0}, {"max.bf16", 0x4000, 0x3f80, 0x4000, 0, 0});
}

/* One unit in the last place of the value: the ISA allows ex2 2 ulp, rsqrt 2 ulp or so; ours are rounded once from double. */
static void near_ulp(const char *op, float x, double want) {
    float got = as_float(run_f(op, x, 0, 0, "ff"));
    EXPECT_NEAR(got, want, fabs(want) * 0x1p-23);
}
TEST(ptx_ops, approximations) {
    near_ulp("ex2.approx.ftz.f32", 0.3f, exp2(0.3f));
    near_ulp("ex2.approx.f32", -140, 0x1p-140);
    FEQ("ex2.approx.ftz.f32", "ff", -140, 0, 0, 0);
    FEQ("ex2.approx.ftz.f32", "ff", -INFINITY, 0, 0, 0);
    FEQ("ex2.approx.ftz.f32", "ff", NAN, 0, 0, NAN);
    near_ulp("lg2.approx.f32", 3, log2(3));
    near_ulp("rsqrt.approx.f32", 7, 1 / sqrt(7));
    FEQ("rsqrt.approx.f32", "ff", 0, 0, 0, INFINITY);
    FEQ("rsqrt.approx.f32", "ff", -1, 0, 0, NAN);
    near_ulp("rcp.approx.ftz.f32", 7, 1.0 / 7);
    near_ulp("sqrt.approx.f32", 7, sqrt(7));
    near_ulp("tanh.approx.f32", 0.5f, tanh(0.5));
    near_ulp("sin.approx.f32", 0.5f, sin(0.5));
    near_ulp("cos.approx.f32", 0.5f, cos(0.5));
}

TEST(ptx_ops, sixteen_bit_floats) {
    ROWS("hhh", {"add.f16", 0x4000, 0x3c00, 0x3c00, 0, 0}, {"sub.f16", 0x7fff, 0x7c00, 0x7c00, 0, 0}, {"mul.f16", 0x7c00, 0x7bff, 0x4000, 0, 0}, {"add.f16", 0x0002, 0x0001, 0x0001, 0, 0}, /* subnormals stay */
         {"add.f16", 0x6800, 0x6800, 0x3c00, 0, 0},                                                                    /* 2048 + 1: tie to even */
         {"add.bf16", 0x4000, 0x3f80, 0x3f80, 0, 0}, {"mul.bf16", 0x4010, 0x3fc0, 0x3fc0, 0, 0}, {"add.bf16", 0x4380, 0x4380, 0x3f80, 0, 0}); /* 256 + 1: tie */
    /* 1 + 2^-10 squared is 1 + 2^-9 + 2^-20: with the sum -(1 + 2^-9) exactly 2^-20 is left, a subnormal; rounded twice it were 0. */
    ROWS("hhhh", {"fma.rn.f16", 0x0010, 0x3c01, 0x3c01, 0xbc02, 0}, {"fma.rn.bf16", 0x3880, 0x3f81, 0x3f81, 0xbf82, 0},
         /* 2048 + 2^-10 * 2^-14: a hair above a representable number, and above the tie at 2049. */
         {"fma.rn.f16", 0x6800, 0x1400, 0x0400, 0x6800, 0});
    ROWS("www", {"add.f16x2", 0x40004200, 0x3c004000, 0x3c003c00, 0, 0}, {"add.bf16x2", 0x40004040, 0x3f804000, 0x3f803f80, 0, 0}, {"max.f16x2", 0x3c004000, 0x3c004000, 0xbc003c00, 0, 0});
    ROWS("wwww", {"fma.rn.f16x2", 0x42004700, 0x3c004000, 0x3c004200, 0x40003c00, 0});
    ROWS("ww", {"neg.f16x2", 0xbc003c00, 0x3c00bc00, 0, 0, 0}, {"abs.f16x2", 0x3c003c00, 0x3c00bc00, 0, 0, 0});
    ROWS("hh", {"neg.f16", 0x8000, 0, 0, 0, 0}, {"abs.bf16", 0x3f80, 0xbf80, 0, 0, 0});
}

TEST(ptx_ops, conversions_of_integers) {
    ROWS("lw", {"cvt.s64.s32", ~0ull, 0xffffffff, 0, 0, 0}, {"cvt.u64.u32", 0xffffffff, 0xffffffff, 0, 0, 0}, {"cvt.s64.s8", ~0ull, 0x12ff, 0, 0, 0});
    ROWS("wl", {"cvt.u32.u64", 0x9abcdef0, 0x123456789abcdef0ull, 0, 0, 0});
    ROWS("ww", {"cvt.s32.s8", 0xffffff80, 0x12345680, 0, 0, 0}, {"cvt.u32.u8", 0x80, 0x12345680, 0, 0, 0}, {"cvt.s8.s32", 0xffffff80, 0x12345680, 0, 0, 0}, {"cvt.u8.u32", 0x80, 0x12345680, 0, 0, 0},
         {"cvt.sat.s8.s32", 127, 300, 0, 0, 0}, {"cvt.sat.s8.s32", 0xffffff80, 0xfffffe00, 0, 0, 0}, {"cvt.sat.u8.s32", 0, 0xffffffff, 0, 0, 0}, {"cvt.sat.u8.u32", 255, 0xffffffff, 0, 0, 0}, {"cvt.s32.s16", 0xffff8000, 0x18000, 0, 0, 0});
    ROWS("wh", {"cvt.u32.u16", 0x8000, 0x8000, 0, 0, 0}, {"cvt.s32.s16", 0xffff8000, 0x8000, 0, 0, 0}, {"cvt.s32.s8", 0xffffff80, 0x0180, 0, 0, 0});
    ROWS("hw", {"cvt.u16.u32", 0x5678, 0x12345678, 0, 0, 0}, {"cvt.u16.u8", 0x78, 0x12345678, 0, 0, 0}, {"cvt.s16.s8", 0xff80, 0x12345680, 0, 0, 0}, {"cvt.sat.s16.s32", 0x7fff, 0x12345678, 0, 0, 0});
    ROWS("wwww", {"cvt.pack.sat.s8.s32.b32", 0xabcd7f80, 300, 0xfffffe00, 0x1234abcd, 0}, {"cvt.pack.sat.u8.s32.b32", 0xabcdff00, 300, 0xfffffe00, 0x1234abcd, 0});
}

TEST(ptx_ops, conversions_of_floats) {
    ROWS("wf", {"cvt.rni.s32.f32", 2, F(2.5f), 0, 0, 0}, {"cvt.rni.s32.f32", 4, F(3.5f), 0, 0, 0}, {"cvt.rzi.s32.f32", (uint32_t)-2, F(-2.9f), 0, 0, 0}, {"cvt.rmi.s32.f32", (uint32_t)-3, F(-2.1f), 0, 0, 0}, {"cvt.rpi.s32.f32", 3, F(2.1f), 0, 0, 0},
         {"cvt.rzi.s32.f32", 0x7fffffff, F(1e20f), 0, 0, 0}, {"cvt.rzi.s32.f32", 0x80000000, F(-1e20f), 0, 0, 0}, {"cvt.rzi.u32.f32", 0, F(-5.0f), 0, 0, 0}, {"cvt.rzi.u32.f32", 0xffffffff, F(1e20f), 0, 0, 0},
         {"cvt.rzi.s32.f32", 0, F_NAN, 0, 0, 0}, {"cvt.rzi.u32.f32", 0, F_NAN, 0, 0, 0}, {"cvt.rni.s8.f32", 127, F(1000.0f), 0, 0, 0}, {"cvt.rni.s8.f32", 0xffffff80, F(-1000.0f), 0, 0, 0});
    ROWS("lf", {"cvt.rzi.s64.f32", 1ull << 63, F_NAN, 0, 0, 0}, {"cvt.rzi.u64.f32", 1ull << 63, F(0x1p63f), 0, 0, 0});
    ROWS("hf", {"cvt.rn.f16.f32", 0x3c00, F(1.0f), 0, 0, 0}, {"cvt.rn.f16.f32", 0x7c00, F(65520.0f), 0, 0, 0}, {"cvt.rn.f16.f32", 0x7bff, F(65519.0f), 0, 0, 0}, {"cvt.rz.f16.f32", 0x7bff, F(1e9f), 0, 0, 0},
         {"cvt.rn.f16.f32", 0x0001, F(0x1.8p-25f), 0, 0, 0}, {"cvt.rn.f16.f32", 0, F(0x1p-25f), 0, 0, 0}, {"cvt.rn.bf16.f32", 0x3f80, F(0x1.01p0f), 0, 0, 0}, {"cvt.rn.bf16.f32", 0x3f82, F(0x1.03p0f), 0, 0, 0},
         {"cvt.rz.bf16.f32", 0x3f81, F(0x1.03p0f), 0, 0, 0}, {"cvt.rp.f16.f32", 0x3c01, F(0x1.000002p0f), 0, 0, 0}, {"cvt.rn.f16.f32", 0x7fff, F_NAN, 0, 0, 0});
    ROWS("fh", {"cvt.f32.f16", F(0x1p-24f), 0x0001, 0, 0, 0}, {"cvt.f32.f16", F(-INFINITY), 0xfc00, 0, 0, 0}, {"cvt.f32.bf16", F(1.0f), 0x3f80, 0, 0, 0});
    ROWS("wff", {"cvt.rn.f16x2.f32", 0x3c004000, F(1.0f), F(2.0f), 0, 0}, {"cvt.rn.bf16x2.f32", 0x3f804000, F(1.0f), F(2.0f), 0, 0}); /* the first to the high half */
    ROWS("fw", {"cvt.rn.f32.s32", F(-1.0f), 0xffffffff, 0, 0, 0}, {"cvt.rn.f32.u32", F(4294967296.0f), 0xffffffff, 0, 0, 0}, {"cvt.rz.f32.u32", F(4294967040.0f), 0xffffffff, 0, 0, 0}, {"cvt.rn.f32.s32", F(16777216.0f), 16777217, 0, 0, 0},
         {"cvt.rn.f32.s8", F(-128.0f), 0x80, 0, 0, 0}, {"cvt.rn.f32.u8", F(128.0f), 0x80, 0, 0, 0});
    ROWS("fl", {"cvt.rn.f32.u64", F(0x1p64f), ~0ull, 0, 0, 0}, {"cvt.rn.f32.s64", F(-1.0f), ~0ull, 0, 0, 0});
    ROWS("hw", {"cvt.rn.f16.s32", 0x6800, 2049, 0, 0, 0}, {"cvt.rn.f16.s32", 0x6802, 2051, 0, 0, 0}, {"cvt.rp.f16.s32", 0x6801, 2049, 0, 0, 0}, {"cvt.rz.f16.s32", 0x6801, 2051, 0, 0, 0});
    ROWS("fd", {"cvt.rn.f32.f64", F(1.0f), DD(1 + 0x1p-24), 0, 0, 0}, {"cvt.rp.f32.f64", F(0x1.000002p0f), DD(1 + 0x1p-40), 0, 0, 0});
    ROWS("df", {"cvt.f64.f32", DD(0.5), F(0.5f), 0, 0, 0});
    ROWS("ff", {"cvt.sat.f32.f32", F(1.0f), F(7.0f), 0, 0, 0}, {"cvt.sat.f32.f32", 0, F(-7.0f), 0, 0, 0}, {"cvt.sat.f32.f32", 0, F_NAN, 0, 0, 0}, {"cvt.rni.f32.f32", F(2.0f), F(2.5f), 0, 0, 0},
         {"cvt.rzi.f32.f32", F(-2.0f), F(-2.5f), 0, 0, 0}, {"cvt.rmi.f32.f32", F(-3.0f), F(-2.5f), 0, 0, 0}, {"cvt.rpi.f32.f32", F(3.0f), F(2.5f), 0, 0, 0});
}

TEST(ptx_ops, comparisons) {
    ROWS("pww", {"setp.lt.s32", 1, 0xffffffff, 0, 0, 0}, {"setp.lt.u32", 0, 0xffffffff, 0, 0, 0}, {"setp.ge.s32", 1, 5, 5, 0, 0}, {"setp.ne.b32", 0, 5, 5, 0, 0}, {"setp.hi.u32", 1, 5, 4, 0, 0}, {"setp.ls.u32", 1, 5, 5, 0, 0});
    ROWS("pll", {"setp.gt.s64", 0, ~0ull, 0, 0, 0}, {"setp.gt.u64", 1, ~0ull, 0, 0, 0}, {"setp.eq.b64", 0, 1ull << 32, 0, 0, 0});
    ROWS("phh", {"setp.lt.s16", 1, 0x8000, 0, 0, 0}, {"setp.lt.u16", 0, 0x8000, 0, 0, 0}, {"setp.lt.f16", 1, 0x3c00, 0x4000, 0, 0}, {"setp.geu.bf16", 1, 0x7fc0, 0x4000, 0, 0});
    ROWS("pff", {"setp.eq.f32", 0, F_NAN, F_NAN, 0, 0}, {"setp.ne.f32", 0, F_NAN, F(1.0f), 0, 0}, {"setp.neu.f32", 1, F_NAN, F(1.0f), 0, 0}, {"setp.ltu.f32", 1, F_NAN, F(1.0f), 0, 0}, {"setp.lt.f32", 0, F_NAN, F(1.0f), 0, 0},
         {"setp.equ.f32", 1, F_NAN, F(1.0f), 0, 0}, {"setp.num.f32", 0, F_NAN, F(1.0f), 0, 0}, {"setp.nan.f32", 1, F_NAN, F(1.0f), 0, 0}, {"setp.eq.f32", 1, F(0.0f), F(-0.0f), 0, 0}, {"setp.ge.f32", 0, F(1.0f), F_NAN, 0, 0});
    ROWS("pwwp", {"setp.lt.and.s32", 0, 1, 2, 0, 0}, {"setp.lt.or.s32", 1, 1, 2, 0, 0}, {"setp.lt.xor.s32", 0, 1, 2, 1, 0}, {"setp.lt.and.s32", 1, 1, 2, 1, 0});
    ROWS("ppp", {"and.pred", 0, 1, 0, 0, 0}, {"or.pred", 1, 1, 0, 0, 0}, {"xor.pred", 1, 1, 0, 0, 0});
    ROWS("pp", {"not.pred", 1, 0, 0, 0, 0}, {"not.pred", 0, 1, 0, 0, 0});
    ROWS("wwwp", {"selp.b32", 5, 5, 6, 1, 0}, {"selp.u32", 6, 5, 6, 0, 0});
    ROWS("lllp", {"selp.b64", 5, 5, 6, 1, 0});
}

TEST(ptx_ops, selecting_by_sign) {
    ROWS("wwww", {"slct.b32.s32", 5, 5, 6, 0, 0}, {"slct.b32.s32", 6, 5, 6, 0xffffffff, 0});
    ROWS("pf", {"testp.infinite.f32", 1, F(INFINITY), 0, 0, 0}, {"testp.finite.f32", 0, F_NAN, 0, 0, 0}, {"testp.subnormal.f32", 1, 1, 0, 0, 0}, {"testp.normal.f32", 0, 0, 0, 0, 0});
    ROWS("wff", {"set.lt.u32.f32", 0xffffffff, F(1.0f), F(2.0f), 0, 0}, {"set.lt.f32.f32", 0x3f800000, F(1.0f), F(2.0f), 0, 0});
}
