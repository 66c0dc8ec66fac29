/* Dequantisation against gguf-py (tests/vectors/make_quant.py), bit for bit; half floats against the compiler's own. */
#include "engine/quant.h"

#include "tests/run.h"

static unsigned char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    unsigned char *p = malloc(1 << 20);
    *n = p ? fread(p, 1, 1 << 20, f) : 0;
    fclose(f);
    return p;
}

static uint32_t u32_at(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

TEST(quant, every_type_agrees_with_gguf_py_bit_for_bit) {
    size_t n = 0, at = 0;
    unsigned char *p = slurp("tests/vectors/quant.bin", &n);
    ASSERT(p && n > 12);
    int types = 0;
    static float out[4096];
    while (at + 12 <= n) {
        uint32_t type = u32_at(p + at), elems = u32_at(p + at + 4), bytes = u32_at(p + at + 8);
        at += 12;
        const struct qn_type_info *t = qn_type_info(type);
        ASSERT(t && elems <= 4096 && at + bytes + 4 * elems <= n);
        ASSERT_EQ((size_t)elems / (size_t)t->block_elems * (size_t)t->block_bytes, bytes);
        qn_dequant((enum qn_type)type, p + at, out, elems);
        at += bytes;
        int bad = 0;
        for (uint32_t i = 0; i < elems; i++) {
            float want, got = out[i];
            memcpy(&want, p + at + 4 * i, 4);
            if (isnan(want) ? !isnan(got) : memcmp(&want, &got, 4) != 0) bad++;
        }
        if (bad) qn_test_fail(__FILE__, __LINE__, "%s: %d of %u elements differ", t->name, bad, elems);
        at += 4 * elems;
        types++;
    }
    EXPECT_EQ(at, n);
    EXPECT_EQ(types, 14);
    free(p);
}

TEST(quant, unknown_types_have_no_info) {
    EXPECT(!qn_type_info(4) && !qn_type_info(5) && !qn_type_info(9) && !qn_type_info(15) && !qn_type_info(31));
    EXPECT(!qn_type_info(UINT32_MAX));
    EXPECT_STR(qn_type_info(QN_Q4_K)->name, "Q4_K");
}

/* _Float16 is the compiler's (IEEE 754 binary16), so nobody here wrote it. */
TEST(quant, half_floats_convert_as_ieee_754_says) {
#ifndef __FLT16_MANT_DIG__
    SKIP("this compiler has no _Float16");
#else
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t u = (uint16_t)h;
        _Float16 v;
        memcpy(&v, &u, 2);
        float want = (float)v, got = qn_f16_to_f32(u);
        if (isnan(want) ? !isnan(got) : memcmp(&want, &got, 4) != 0) EXPECT_EQ(h, -1);
        if (!isnan(want)) EXPECT_EQ(qn_f32_to_f16(got), u);
    }
    uint64_t s = 1;
    for (int i = 0; i < 2000000; i++) {
        s = s * 6364136223846793005ULL + 1442695040888963407ULL;
        uint32_t b = (uint32_t)(s >> 32);
        if (i % 2) b = (b & 0x807FFFFF) | (uint32_t)(100 + (s >> 20) % 46) << 23; /* where f16 lives */
        float f;
        memcpy(&f, &b, 4);
        if (isnan(f)) continue;
        _Float16 v = (_Float16)f;
        uint16_t want;
        memcpy(&want, &v, 2);
        if (qn_f32_to_f16(f) != want) EXPECT_EQ(qn_f32_to_f16(f), want);
    }
#endif
}

TEST(quant, bfloats_round_to_nearest_even_and_keep_nan) {
    EXPECT_EQ(qn_f32_to_bf16(1.0f), 0x3F80);
    EXPECT_EQ(qn_f32_to_bf16(0x1.01p0f), 0x3F80);     /* a tie: down to even */
    EXPECT_EQ(qn_f32_to_bf16(0x1.03p0f), 0x3F82);     /* a tie: up to even */
    EXPECT_EQ(qn_f32_to_bf16(0x1.010002p0f), 0x3F81);
    EXPECT_EQ(qn_f32_to_bf16(3.4028235e38f), 0x7F80); /* overflows to infinity */
    EXPECT_EQ(qn_f32_to_bf16(-INFINITY), 0xFF80);
    EXPECT(isnan(qn_bf16_to_f32(qn_f32_to_bf16(NAN))));
    uint32_t quiet_low = 0x7F800001; /* would become infinity if cut */
    float f;
    memcpy(&f, &quiet_low, 4);
    EXPECT(isnan(qn_bf16_to_f32(qn_f32_to_bf16(f))));
}
