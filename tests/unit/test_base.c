/* base/: each piece against a published vector or the property it promises. */
#include "engine/base/arena.h"
#include "engine/base/buf.h"
#include "engine/base/chk.h"
#include "engine/base/clock.h"
#include "engine/base/err.h"
#include "engine/base/hash.h"
#include "engine/base/ring.h"
#include "engine/base/rng.h"
#include "engine/base/utf8.h"
#include "tests/run.h"

#include <pthread.h>

/* Random123 kat_vectors, philox4x32 10. */
TEST(base, philox_known_answers) {
    static const struct { uint32_t ctr[4], key[2], want[4]; } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];
        qn_philox4x32(kat[i].ctr, kat[i].key, out);
        EXPECT_MEM(out, sizeof out, kat[i].want, sizeof out);
    }
    for (uint32_t i = 0; i < 1000; i++) {
        float u = qn_rng_uniform(7, 0, i, 0);
        EXPECT(u >= 0 && u < 1);
    }
}

/* The first and last vectors of the SipHash reference implementation (key 00..0f, input 00, 00 01, ...). */
TEST(base, siphash_reference_vectors) {
    uint64_t key[2] = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};
    unsigned char in[64];
    for (int i = 0; i < 64; i++) in[i] = (unsigned char)i;
    EXPECT(qn_siphash(key, in, 0) == 0x726fdb47dd0e0e31ULL);
    EXPECT(qn_siphash(key, in, 15) == 0xa129ca6149be45e5ULL);
    EXPECT(qn_siphash(key, in, 63) == 0x958a324ceb064572ULL);
}

TEST(base, utf8_agrees_with_the_rfc) {
    static const struct { const char *s; int ok; } cases[] = {
        {"abc", 1}, {"\xC3\xA9", 1}, {"\xC0\x80", 0}, {"\xE0\x80\x80", 0}, {"\xED\xA0\x80", 0}, {"\xEF\xBF\xBF", 1},
        {"\xF0\x8F\xBF\xBF", 0}, {"\xF4\x8F\xBF\xBF", 1}, {"\xF4\x90\x80\x80", 0}, {"\x80", 0}, {"\xE2\x82", 0}, {"\xFF", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        EXPECT_EQ(qn_utf8_valid(cases[i].s, strlen(cases[i].s)), cases[i].ok);
    for (uint32_t r = 1; r < 0x110000; r += r < 0x3000 ? 1 : 97) {
        if (r >= 0xD800 && r < 0xE000) continue;
        char b[4];
        uint32_t back = 0;
        int n = qn_utf8_encode(r, b);
        ASSERT_EQ(qn_utf8_decode(b, (size_t)n, &back), n);
        ASSERT_EQ(back, r);
        for (int cut = 1; cut < n; cut++) ASSERT_EQ(qn_utf8_whole(b, (size_t)cut), 0);
        ASSERT_EQ(qn_utf8_whole(b, (size_t)n), n);
    }
    char out[64];
    size_t n = qn_utf8_mend("a\xE2\x82z\xF0\x9F", 6, out); /* the Unicode standard's example of maximal parts */
    EXPECT_MEM(out, n, "a\xEF\xBF\xBDz\xEF\xBF\xBD", 8);
    EXPECT_EQ(qn_utf8_whole("a\xFF", 2), 2);
}

TEST(base, buf_stops_at_its_maximum_and_stays_failed) {
    struct qn_buf b;
    qn_buf_init(&b, 10);
    qn_buf_puts(&b, "12345");
    qn_buf_printf(&b, "%d", 67890);
    EXPECT_STR(b.p, "1234567890");
    qn_buf_putc(&b, '!');
    EXPECT_EQ(b.failed, QN_E_LIMIT);
    EXPECT(qn_buf_take(&b, NULL) == NULL);
    qn_buf_done(&b);
}

TEST(base, err_keeps_the_first_reason_and_cuts_between_characters) {
    struct qn_err e = {0};
    EXPECT_EQ(qn_fail(&e, QN_E_DATA, "first %d", 1), QN_E_DATA);
    EXPECT_EQ(qn_fail(&e, QN_E_IO, "second"), QN_E_IO);
    EXPECT_STR(e.text, "first 1");
    struct qn_err l = {0};
    char long_text[400] = "x";
    for (int i = 1; i + 2 < 400; i += 2) memcpy(long_text + i, "\xC3\xA9", 3);
    qn_fail(&l, QN_E_DATA, "%s", long_text);
    EXPECT(qn_utf8_valid(l.text, strlen(l.text)));
}

TEST(base, checked_sums_agree_with_128_bits) {
    uint64_t odd[] = {0, 1, 2, 31, 32, 0xFFFFFFFF, 1ULL << 62, 1ULL << 63, ~0ULL - 31, ~0ULL};
    for (size_t i = 0; i < 10; i++)
        for (size_t j = 0; j < 10; j++) {
            unsigned __int128 s = (unsigned __int128)odd[i] + odd[j], m = (unsigned __int128)odd[i] * odd[j];
            uint64_t got = 5;
            EXPECT_EQ(qn_add_u64(odd[i], odd[j], &got), s >> 64 != 0);
            EXPECT(got == (s >> 64 ? 5 : (uint64_t)s));
            got = 5;
            EXPECT_EQ(qn_mul_u64(odd[i], odd[j], &got), m >> 64 != 0);
            EXPECT(got == (m >> 64 ? 5 : (uint64_t)m));
        }
}

TEST(base, arena_is_bounded_and_zeroed) {
    struct qn_arena a;
    qn_arena_init(&a, 100000);
    unsigned char *p = qn_arena_alloc(&a, 70000), *q = qn_arena_alloc(&a, 3);
    ASSERT(p && q);
    for (int i = 0; i < 70000; i++) ASSERT(p[i] == 0);
    EXPECT_STR(qn_arena_dup(&a, "quern!", 5), "quern");
    EXPECT(qn_arena_alloc(&a, 40000) == NULL);
    qn_arena_done(&a);
}

static void *produce(void *arg) {
    struct qn_ring *r = arg;
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t n = 4 + i % 90;
        unsigned char *p;
        while (!(p = qn_ring_reserve(r, n))) {}
        memcpy(p, &i, 4);
        memset(p + 4, (int)(i & 0xFF), n - 4);
        qn_ring_commit(r);
    }
    return NULL;
}

TEST(base, ring_keeps_order_and_bytes_between_threads) {
    struct qn_ring r;
    ASSERT_EQ(qn_ring_init(&r, 1000), 0);
    pthread_t t;
    ASSERT_EQ(pthread_create(&t, NULL, produce, &r), 0);
    for (uint32_t i = 0; i < 200000;) {
        uint32_t n, got;
        const unsigned char *p = qn_ring_peek(&r, &n);
        if (!p) continue;
        memcpy(&got, p, 4);
        ASSERT_EQ(got, i);
        ASSERT_EQ(n, 4 + i % 90);
        for (uint32_t k = 4; k < n; k++) ASSERT_EQ(p[k], i & 0xFF);
        qn_ring_consume(&r);
        i++;
    }
    pthread_join(t, NULL);
    EXPECT(qn_ring_empty(&r));
    qn_ring_done(&r);
}

TEST(base, fake_clock) {
    qn_clock_fake(5 * QN_S);
    EXPECT_EQ(qn_clock_ns(), 5 * QN_S);
    qn_clock_fake(-1);
    EXPECT(qn_clock_wall_ns() > 1700000000LL * QN_S);
}
