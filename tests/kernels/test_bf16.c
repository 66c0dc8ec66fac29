/* The arithmetic of BF16 matrices: what the processor's vdpbf16ps does on random and awkward pairs, held against the same in
 * plain C (engine/cpu/matmul_float_generic.c), against two fma with FTZ and DAZ set (AVX2, AVX-512 without BF16), and
 * the rounding of activations against engine/quant.c. */
#include "tests/kernels/kit.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { STEPS = 3, LANES = 16, COLS = 16 };

struct pairs {
    uint16_t w[STEPS][LANES][2], x[STEPS][COLS][2];
};

static const struct qn_cpu_isa *const sets[] = {
    &qn_cpu_generic,
#if defined(__x86_64__)
    &qn_cpu_avx2, &qn_cpu_avx512_vnni, &qn_cpu_avx512_bf16,
#endif
};
enum { SETS = (int)(sizeof sets / sizeof *sets) };

static int can(const struct qn_cpu_isa *isa) {
    struct qn_model_desc *d = kit_desc(16, 1, 1, 4, 16);
    struct qn_backend *b = kit_open(d, isa->name, 1, 1, 1, 16);
    if (b) b->ops->close(b);
    kit_desc_free(d);
    return b != NULL;
}

static uint16_t bits(struct kit_rng *r, int exponent, uint32_t mantissa) {
    exponent = exponent < 0 ? 0 : exponent > 254 ? 254 : exponent;
    return (uint16_t)((kit_u32(r) & 0x8000u) | (uint32_t)exponent << 7 | (mantissa & 0x7fu));
}

/* Factors whose product has an exponent of about `exponent` (unbiased). */
static void factors(struct kit_rng *r, uint16_t *a, uint16_t *b, int exponent) {
    int e = -126 + (int)(kit_u32(r) % 120);
    if (exponent - e < -126) e = exponent + 126;
    *a = bits(r, e + 127, kit_u32(r) % 3 ? kit_u32(r) : 0), *b = bits(r, exponent - e + 127, kit_u32(r) % 3 ? kit_u32(r) : 0);
}

static uint16_t any(struct kit_rng *r) {
    static const uint16_t odd_ones[] = { 0x7f80, 0xff80, 0, 0x8000, 1, 0x8001, 0x7f, 0x7fc0, 0x7f81, 0x80, 0x8080, 0x7f7f, 0xff7f };
    return kit_u32(r) % 4 ? (uint16_t)kit_u32(r) : odd_ones[kit_u32(r) % (sizeof odd_ones / sizeof *odd_ones)];
}

static void fill(struct kit_rng *r, struct pairs *p, int kind) {
    for (int s = 0; s < STEPS; s++)
        for (int i = 0; i < LANES; i++)
            for (int h = 0; h < 2; h++) {
                uint16_t *w = &p->w[s][i][h], *x = &p->x[s][i][h];
                switch (kind) {
                case 0: *w = bits(r, 120 + (int)(kit_u32(r) % 10), kit_u32(r)), *x = bits(r, 120 + (int)(kit_u32(r) % 10), kit_u32(r)); break;
                case 1: *w = any(r), *x = any(r); break;
                case 2: factors(r, w, x, -150 + (int)(kit_u32(r) % 40)); break;
                default: /* a sum of about 2^-126, then what moves its last bits; lanes and columns share exponents, so that any pair does */
                    *x = bits(r, 127 - 75, kit_u32(r) % 2 ? kit_u32(r) : 0);
                    *w = s == 0 && h == 1 ? bits(r, 127 - 51, kit_u32(r) % 2 ? kit_u32(r) : 0)
                                          : bits(r, 127 - 66 - (int)(kit_u32(r) % 16), kit_u32(r) % 2 ? kit_u32(r) : 0);
                }
            }
}

static void run(const struct qn_cpu_isa *isa, const struct pairs *p, float out[COLS][LANES]) {
    isa->tile[QN_FMT_BF16]((const uint8_t *)p->w, STEPS, (const uint8_t *)p->w, p->x, COLS, out[0], LANES);
}

static float to_f(uint16_t h) { return qn_bf16_to_f32(h); }
static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
static int same(float a, float b) { return !memcmp(&a, &b, 4) || (isnan(a) && isnan(b)); }

/* Other readings of the instruction: the even product first, no flushing, flushing what fma rounded. If the inputs did not tell
 * them apart, agreement would mean nothing. */
static float other(const struct pairs *p, int lane, int col, int reading) {
    float acc = 0;
    for (int s = 0; s < STEPS; s++)
        for (int k = 1; k >= 0; k--) {
            int h = reading == 0 ? 1 - k : k;
            float a = to_f(p->w[s][lane][h]), b = to_f(p->x[s][col][h]);
            if (reading == 1) acc = fmaf(a, b, acc);
            else acc = flushed(fmaf(flushed(a), flushed(b), acc));
        }
    return acc;
}

TEST_SLOW(bf16, a_pair_is_summed_as_the_instruction_does_it, 60) {
    struct kit_rng r = { 77, 0 };
    struct pairs p;
    long told[3] = { 0 };
    int ok[SETS];
    for (int i = 0; i < SETS; i++) ok[i] = can(sets[i]);
    for (int it = 0; it < 8000; it++) { /* two million sums of three pairs */
        float want[COLS][LANES], got[COLS][LANES];
        fill(&r, &p, it % 4);
        run(&qn_cpu_generic, &p, want);
        for (int i = 1; i < SETS; i++) {
            if (!ok[i]) continue;
            run(sets[i], &p, got);
            for (int c = 0; c < COLS; c++)
                for (int l = 0; l < LANES; l++)
                    if (!same(want[c][l], got[c][l]))
                        qn_test_fail(__FILE__, __LINE__, "kind %d, %s: %a, in C %a", it % 4, sets[i]->name, (double)got[c][l], (double)want[c][l]), qn_test_stop();
        }
        for (int c = 0; c < COLS; c++)
            for (int k = 0; k < 3; k++) told[k] += !same(want[c][it % LANES], other(&p, it % LANES, c, k));
    }
    for (int k = 0; k < 3; k++) EXPECT(told[k] > 100);
    if (!ok[SETS - 1]) SKIP("no vdpbf16ps to ask");
}

#if defined(__x86_64__)
TEST(bf16, a_tile_puts_the_float_mode_back) {
    struct kit_rng r = { 5, 0 };
    struct pairs p;
    float out[COLS][LANES];
    unsigned mode = _mm_getcsr();
    fill(&r, &p, 0);
    for (int i = 1; i < SETS; i++) {
        if (!can(sets[i])) continue;
        run(sets[i], &p, out);
        EXPECT_EQ(_mm_getcsr() & 0xffc0u, mode & 0xffc0u);
    }
}
#endif

TEST(bf16, activations_round_to_nearest_even_on_every_set) {
    static float x[4096];
    static uint16_t got[4096];
    for (int i = 0; i < SETS; i++) {
        if (!can(sets[i])) continue;
        for (uint32_t low = 0; low < 6; low++)
            for (uint32_t at = 0; at < 65536; at += 4096) {
                static const uint32_t lows[] = { 0, 1, 0x7fff, 0x8000, 0x8001, 0xffff };
                for (uint32_t k = 0; k < 4096; k++) {
                    uint32_t u = (at + k) << 16 | lows[low];
                    memcpy(&x[k], &u, 4);
                }
                sets[i]->to_bf16(got, x, 4096);
                for (int k = 0; k < 4096; k++)
                    if (got[k] != qn_f32_to_bf16(x[k]))
                        qn_test_fail(__FILE__, __LINE__, "%s: bf16 of %a is %04x, wanted %04x", sets[i]->name, (double)x[k], got[k], qn_f32_to_bf16(x[k])), qn_test_stop();
            }
    }
}
