/* Drafts against a plain search for the newest earlier occurrence. */
#include "engine/draft.h"
#include "tests/run.h"

static int slow_guess(const int32_t *t, size_t n, int len, size_t *at) {
    for (size_t p = n - 1; p >= (size_t)len; p--)
        if (n >= (size_t)len && !memcmp(t + p - len, t + n - len, (size_t)len * sizeof *t)) {
            *at = p;
            return 1;
        }
    return 0;
}

/* A new one for each look, so that no earlier guess has a say. */
TEST(draft, finds_the_newest_occurrence) {
    static int32_t t[3000];
    int found = 0, missed = 0;
    for (size_t n = 1; n < 3000; n++) t[n - 1] = (int32_t)((n * 7919u >> 5) * 2654435761u % 9u); /* a small alphabet repeats itself */
    for (size_t n = 9; n < 3000; n += 7) {
        struct qn_draft *d = qn_draft_new(3000, NULL, 0);
        ASSERT(d != NULL);
        qn_draft_feed(d, t, n);
        int32_t got[8];
        size_t at = 0;
        if (slow_guess(t, n, 8, &at) || slow_guess(t, n, 4, &at)) { /* a collision in the table may lose an entry, rarely */
            found++;
            missed += qn_draft_guess(d, got, 8) != 8 || t[at] != got[0];
        }
        qn_draft_free(d);
    }
    EXPECT(found > 300);
    EXPECT(missed < found / 20);
}

/* Text once, then again with one token changed in each of some lines: after a change the very next guess goes on behind it. */
TEST(draft, goes_on_behind_a_changed_token) {
    enum { N = 200, MOST = 8 };
    static int32_t t[2 * N];
    for (int i = 0; i < N; i++) t[i] = t[N + i] = 100 + i;
    for (int i = 20; i < N - MOST; i += 20) t[N + i] = 1000 + i;
    struct qn_draft *d = qn_draft_new(2 * N, NULL, 0);
    for (int n = N + 3; n < 2 * N - MOST; n++) {
        int32_t got[MOST];
        qn_draft_feed(d, t, (size_t)n);
        ASSERT_EQ(qn_draft_guess(d, got, MOST), MOST);
        EXPECT_MEM(got, sizeof got, t + n - N, sizeof got);
    }
    qn_draft_free(d);
}

/* A token too many, or one left out, is a change of place: found again by what comes after it. */
TEST(draft, finds_its_place_again_after_an_insertion) {
    enum { N = 100 };
    int32_t t[2 * N + 1], got[4];
    for (int i = 0; i < N; i++) t[i] = 100 + i;
    for (int i = 0; i <= N; i++) t[N + i] = i < 50 ? 100 + i : i == 50 ? 7 : 99 + i;
    struct qn_draft *d = qn_draft_new(2 * N + 1, NULL, 0);
    for (int n = N + 2; n < 2 * N - 8; n++) {
        qn_draft_feed(d, t, (size_t)n);
        int k = qn_draft_guess(d, got, 4), after = n - N - 51; /* tokens that came after the inserted one */
        if (after >= -4 && after < 2) continue; /* on its way over it */
        ASSERT_EQ(k, 4);
        EXPECT_MEM(got, sizeof got, t + n, sizeof got);
    }
    qn_draft_free(d);
}

TEST(draft, periodic_text_goes_on) {
    int32_t t[] = {5, 6, 7, 5, 6, 7, 5, 6, 7}, got[6], want[6] = {5, 6, 7, 5, 6, 7};
    struct qn_draft *d = qn_draft_new(64, NULL, 0);
    qn_draft_feed(d, t, 9);
    ASSERT_EQ(qn_draft_guess(d, got, 6), 6);
    EXPECT_MEM(got, sizeof got, want, sizeof want);
    qn_draft_free(d);
}

TEST(draft, says_nothing_about_new_text) {
    int32_t t[] = {1, 2, 3, 4, 1, 2}, got[4];
    struct qn_draft *d = qn_draft_new(64, NULL, 0);
    qn_draft_feed(d, t, 4);
    EXPECT_EQ(qn_draft_guess(d, got, 4), 0);
    qn_draft_feed(d, t, 6);
    ASSERT_EQ(qn_draft_guess(d, got, 2), 2);
    EXPECT_EQ(got[0], 3);
    EXPECT_EQ(got[1], 4);
    qn_draft_free(d);
}

TEST(draft, a_prediction_is_followed_from_the_start) {
    uint32_t prior[] = {10, 11, 12, 13, 14, 15};
    int32_t t[] = {1, 2, 10, 11}, got[4], want[4] = {12, 13, 14, 15};
    struct qn_draft *d = qn_draft_new(64, prior, 6);
    qn_draft_feed(d, t, 4);
    ASSERT_EQ(qn_draft_guess(d, got, 4), 4);
    EXPECT_MEM(got, sizeof got, want, sizeof want);
    qn_draft_free(d);
}
