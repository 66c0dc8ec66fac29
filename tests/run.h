/* The smallest test runner that keeps tests apart: every TEST runs in a process of its own, with a deadline.
 *
 *   TEST(sched, admits_only_what_the_cache_can_hold) { EXPECT_EQ(f(), 3); }
 *   TEST_SLOW(sim, ten_thousand_seeds, 300) { ... }      // deadline in seconds
 *
 * EXPECT_* go on after a failure (up to 20 are printed), ASSERT_* end the test. SKIP(reason) ends it as skipped.
 * A program takes `--list`, or prefixes of module/name to run; it prints a line for each test. */
#ifndef QN_TESTS_RUN_H
#define QN_TESTS_RUN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*qn_test_fn)(void);
void qn_test_add(const char *module, const char *name, qn_test_fn fn, int seconds);
int qn_test_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void qn_test_stop(void);
_Noreturn void qn_test_skip(const char *why);

#define TEST_SLOW(module, name, seconds)                                                        \
    static void test_##module##_##name(void);                                                   \
    __attribute__((constructor)) static void add_##module##_##name(void) {                      \
        qn_test_add(#module, #name, test_##module##_##name, seconds);                           \
    }                                                                                           \
    static void test_##module##_##name(void)
#define TEST(module, name) TEST_SLOW(module, name, 30)

#define SKIP(why) qn_test_skip(why)
#define EXPECT(c) ((c) ? 0 : qn_test_fail(__FILE__, __LINE__, "%s", #c))
#define ASSERT(c) do { if (!(c)) { qn_test_fail(__FILE__, __LINE__, "%s", #c); qn_test_stop(); } } while (0)
#define EXPECT_EQ(a, b) do { long long a_ = (long long)(a), b_ = (long long)(b);                \
    if (a_ != b_) qn_test_fail(__FILE__, __LINE__, "%s = %lld, wanted %lld", #a, a_, b_); } while (0)
#define ASSERT_EQ(a, b) do { long long a_ = (long long)(a), b_ = (long long)(b);                \
    if (a_ != b_) { qn_test_fail(__FILE__, __LINE__, "%s = %lld, wanted %lld", #a, a_, b_); qn_test_stop(); } } while (0)
#define EXPECT_STR(a, b) do { const char *a_ = (a), *b_ = (b);                                  \
    if (!a_ || strcmp(a_, b_)) qn_test_fail(__FILE__, __LINE__, "%s = \"%s\", wanted \"%s\"", #a, a_ ? a_ : "(null)", b_); } while (0)
#define EXPECT_MEM(a, na, b, nb) do { if ((size_t)(na) != (size_t)(nb) || memcmp(a, b, (size_t)(nb)))             \
    qn_test_fail(__FILE__, __LINE__, "%s (%zu bytes) differs from %s (%zu bytes)", #a, (size_t)(na), #b, (size_t)(nb)); } while (0)
/* NaN never passes. */
#define EXPECT_NEAR(a, b, tol) do { double a_ = (a), b_ = (b);                                  \
    if (!(fabs(a_ - b_) <= (tol))) qn_test_fail(__FILE__, __LINE__, "%s = %.9g, wanted %.9g +- %g", #a, a_, b_, (double)(tol)); } while (0)

#endif
