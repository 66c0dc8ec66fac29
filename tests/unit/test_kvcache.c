/* kvcache: against a plain model that remembers every block's whole prefix, and the corners one by one. */
#include "engine/kvcache.h"
#include "tests/run.h"

#include <stdint.h>

static const uint64_t SECRET[2] = {0x1122334455667788ULL, 42};
enum { BT = 4 };

static struct qn_kvcache *open_cache(int n) {
    struct qn_kvcache *c = NULL;
    ASSERT_EQ(qn_kvcache_open(&c, n, BT, SECRET), 0);
    return c;
}

static void expect_counts(const struct qn_kvcache *c, int n_free, int held, int cached) {
    struct qn_kv_counts k;
    qn_kvcache_counts(c, &k);
    EXPECT_EQ(k.free, n_free);
    EXPECT_EQ(k.held, held);
    EXPECT_EQ(k.cached, cached);
    EXPECT_EQ(k.total, n_free + held + cached);
    const char *bad = qn_kvcache_audit(c);
    if (bad) qn_test_fail(__FILE__, __LINE__, "audit: %s", bad);
}

/* Allocates and publishes the chain of tokens[0..n*BT). */
static void chain(struct qn_kvcache *c, uint64_t salt, const int32_t *tokens, int32_t *blocks, int n) {
    for (int i = 0; i < n; i++) {
        blocks[i] = qn_kvcache_alloc(c);
        ASSERT(blocks[i] >= 0);
        EXPECT_EQ(qn_kvcache_publish(c, salt, tokens, blocks, i), 0);
    }
}

static void drop(struct qn_kvcache *c, const int32_t *blocks, int n) {
    while (n > 0) qn_kvcache_unref(c, blocks[--n]);
}

static const int32_t A[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const int32_t B[] = {1, 2, 3, 4, 5, 6, 7, 8, 90, 10, 11, 12, 13, 14, 15, 16};

TEST(kvcache, open_refuses_what_it_cannot_count) {
    struct qn_kvcache *c = NULL;
    EXPECT_EQ(qn_kvcache_open(&c, 0, BT, SECRET), QN_E_RANGE);
    EXPECT_EQ(qn_kvcache_open(&c, 1, 0, SECRET), QN_E_RANGE);
    EXPECT_EQ(qn_kvcache_open(&c, INT32_MAX, BT, SECRET), QN_E_RANGE);
    EXPECT(!c);
    qn_kvcache_close(NULL);
}

TEST(kvcache, a_block_is_free_held_or_cached) {
    struct qn_kvcache *c = open_cache(4);
    int32_t b[4], more[4];
    expect_counts(c, 4, 0, 0);
    chain(c, 0, A, b, 2);
    b[2] = qn_kvcache_alloc(c);
    expect_counts(c, 1, 3, 0);
    EXPECT(qn_kvcache_writable(c, b[2]) && !qn_kvcache_writable(c, b[0]));
    qn_kvcache_ref(c, b[2]);
    EXPECT(!qn_kvcache_writable(c, b[2]));
    EXPECT_EQ(qn_kvcache_refs(c, b[2]), 2);
    qn_kvcache_unref(c, b[2]);
    drop(c, b, 3);
    expect_counts(c, 2, 0, 2); /* what was not published is free at once */
    EXPECT_EQ(qn_kvcache_available(c), 4);
    for (int i = 0; i < 4; i++) ASSERT((more[i] = qn_kvcache_alloc(c)) >= 0);
    EXPECT_EQ(qn_kvcache_alloc(c), -1);
    expect_counts(c, 0, 4, 0);
    drop(c, more, 4);
    expect_counts(c, 4, 0, 0);
    qn_kvcache_close(c);
}

TEST(kvcache, finds_the_longest_chain_and_no_more) {
    struct qn_kvcache *c = open_cache(8);
    int32_t a[4], got[4];
    chain(c, 7, A, a, 4);
    drop(c, a, 4);
    EXPECT_EQ(qn_kvcache_probe(c, 7, A, 16), 16);
    EXPECT_EQ(qn_kvcache_probe(c, 7, A, 15), 12);
    EXPECT_EQ(qn_kvcache_probe(c, 7, A, 3), 0);
    EXPECT_EQ(qn_kvcache_probe(c, 7, B, 16), 8);
    EXPECT_EQ(qn_kvcache_probe(c, 8, A, 16), 0); /* another tenant's salt */
    EXPECT_EQ(qn_kvcache_probe(c, 7, A + 4, 12), 0); /* the same tokens elsewhere */
    EXPECT_EQ(qn_kvcache_match(c, 7, B, 16, got, 4), 2);
    EXPECT_MEM(got, 8, a, 8);
    expect_counts(c, 4, 2, 2);
    int n_idle;
    EXPECT_EQ(qn_kvcache_peek(c, 7, A, 16, &n_idle), 4);
    EXPECT_EQ(n_idle, 2);
    drop(c, got, 2);
    EXPECT_EQ(qn_kvcache_match(c, 7, A, 16, got, 3), 3);
    drop(c, got, 3);
    struct qn_kv_counts k;
    qn_kvcache_counts(c, &k);
    EXPECT_EQ(k.queries_tokens, 32);
    EXPECT_EQ(k.hits_tokens, 20);
    qn_kvcache_close(c);
}

TEST(kvcache, follows_a_chain_block_by_block) {
    struct qn_kvcache *c = open_cache(8);
    int32_t a[4], got[4];
    chain(c, 7, A, a, 4);
    qn_kvcache_unref(c, a[3]);
    EXPECT_EQ(got[0] = qn_kvcache_follow(c, 7, A, got, 0, 0), a[0]);
    EXPECT_EQ(qn_kvcache_refs(c, a[0]), 2);
    EXPECT_EQ(qn_kvcache_follow(c, 8, A, got, 0, 1), -1); /* another salt */
    for (int i = 1; i < 3; i++) EXPECT_EQ(got[i] = qn_kvcache_follow(c, 7, A, got, i, 0), a[i]);
    EXPECT_EQ(qn_kvcache_follow(c, 7, A, got, 3, 0), -1); /* known, but nobody holds it */
    EXPECT_EQ(got[3] = qn_kvcache_follow(c, 7, A, got, 3, 1), a[3]);
    EXPECT_EQ(qn_kvcache_follow(c, 7, B, got, 2, 1), -1);
    struct qn_kv_counts k;
    qn_kvcache_counts(c, &k);
    EXPECT_EQ(k.hits_tokens, 16);
    drop(c, got, 4);
    int32_t own = qn_kvcache_alloc(c); /* not published: nobody can stand behind it */
    EXPECT_EQ(qn_kvcache_follow(c, 7, A, &own, 1, 1), -1);
    EXPECT(!qn_kvcache_audit(c));
    qn_kvcache_close(c);
}

TEST(kvcache, equal_chains_become_one) {
    struct qn_kvcache *c = open_cache(8);
    int32_t a[2], b[2];
    chain(c, 0, A, a, 2);
    for (int i = 0; i < 2; i++) b[i] = qn_kvcache_alloc(c);
    expect_counts(c, 4, 4, 0);
    EXPECT_EQ(qn_kvcache_publish(c, 0, A, b, 0), 1);
    EXPECT_EQ(qn_kvcache_publish(c, 0, A, b, 1), 1);
    EXPECT_MEM(a, sizeof a, b, sizeof b);
    EXPECT_EQ(qn_kvcache_publish(c, 0, A, b, 1), 0); /* already known as itself */
    expect_counts(c, 6, 2, 0);
    drop(c, a, 2);
    expect_counts(c, 6, 2, 0);
    drop(c, b, 2);
    expect_counts(c, 6, 0, 2);
    qn_kvcache_close(c);
}

TEST(kvcache, evicts_the_least_recently_used_leaf) {
    struct qn_kvcache *c = open_cache(5);
    int32_t a[3], b[3], got[4], x[3];
    chain(c, 0, A, a, 3); /* A1 A2 A3 */
    EXPECT_EQ(qn_kvcache_match(c, 0, B, 12, b, 3), 2);
    b[2] = qn_kvcache_alloc(c);
    EXPECT_EQ(qn_kvcache_publish(c, 0, B, b, 2), 0); /* A1 A2 B3 */
    drop(c, a, 3);
    drop(c, b, 3); /* B3 was used last, A3 before it; A1 and A2 by both */
    for (int i = 0; i < 2; i++) x[i] = qn_kvcache_alloc(c); /* the free one, then A3 */
    EXPECT_EQ(qn_kvcache_probe(c, 0, A, 12), 8);
    EXPECT_EQ(qn_kvcache_probe(c, 0, B, 12), 12);
    EXPECT_EQ(qn_kvcache_match(c, 0, A, 4, got, 1), 1); /* A1 is in use: B3 and then A2 go first */
    x[2] = qn_kvcache_alloc(c);
    EXPECT_EQ(qn_kvcache_probe(c, 0, B, 12), 8);
    drop(c, got, 1);
    drop(c, x, 3);
    expect_counts(c, 3, 0, 2);
    qn_kvcache_flush(c);
    expect_counts(c, 5, 0, 0);
    EXPECT_EQ(qn_kvcache_probe(c, 0, A, 12), 0);
    qn_kvcache_close(c);
}

/* A holder may let go of the start of a chain first: the rest must not be evicted after it, nor found through its id. */
TEST(kvcache, parents_dropped_first) {
    struct qn_kvcache *c = open_cache(3);
    int32_t a[3], x[3];
    chain(c, 0, A, a, 3);
    for (int i = 0; i < 3; i++) qn_kvcache_unref(c, a[i]);
    expect_counts(c, 0, 0, 3);
    x[0] = qn_kvcache_alloc(c);
    EXPECT_EQ(qn_kvcache_probe(c, 0, A, 12), 8); /* the leaf went, not the root */
    qn_kvcache_unref(c, x[0]);
    qn_kvcache_close(c);

    for (uint64_t k = 0; k < 200; k++) { /* secrets enough that the two keys meet in one bucket, too */
        uint64_t secret[2] = {k, k};
        ASSERT_EQ(qn_kvcache_open(&c, 3, BT, secret), 0);
        chain(c, 0, A, a, 2);
        qn_kvcache_unref(c, a[0]); /* cached, while its child is held */
        for (int i = 0; i < 2; i++) x[i] = qn_kvcache_alloc(c); /* the free one, then a[0] */
        EXPECT(x[0] == a[0] || x[1] == a[0]);
        expect_counts(c, 0, 3, 0);
        int32_t again[2] = {a[0], 0};
        const int32_t other[] = {50, 51, 52, 53, 5, 6, 7, 8}; /* the same second block after another first */
        EXPECT_EQ(qn_kvcache_publish(c, 0, other, again, 0), 0);
        EXPECT_EQ(qn_kvcache_probe(c, 0, other, 8), 4); /* a[1] must not be taken for its child */
        EXPECT_EQ(qn_kvcache_probe(c, 0, A, 8), 0);
        qn_kvcache_unref(c, a[1]); /* nobody can reach it any more: free, not cached */
        expect_counts(c, 1, 2, 0);
        drop(c, x, 2);
        qn_kvcache_close(c);
    }
}

TEST(kvcache, an_unpublished_parent_publishes_no_child) {
    struct qn_kvcache *c = open_cache(3);
    int32_t a[2] = {qn_kvcache_alloc(c), qn_kvcache_alloc(c)};
    EXPECT_EQ(qn_kvcache_publish(c, 0, A, a, 1), 0);
    EXPECT_EQ(qn_kvcache_probe(c, 0, A, 8), 0);
    drop(c, a, 2);
    expect_counts(c, 3, 0, 0);
    qn_kvcache_close(c);
}

/* ---- random use against the plain model ---- */

enum { TOTAL = 24, DEPTH = 6, HOLDERS = 8 };

static uint64_t state;
static unsigned draw(unsigned n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(state >> 33) % n;
}

struct known { /* what the plain model believes of a block id */
    int published, n;
    uint64_t salt;
    int32_t tokens[DEPTH * BT];
};

static int model_probe(const struct known *k, uint64_t salt, const int32_t *tokens, int n) {
    int found = 0;
    for (int len = BT; len <= n; len += BT) {
        int hit = 0;
        for (int id = 0; id < TOTAL; id++)
            hit |= k[id].published && k[id].n == len && k[id].salt == salt && !memcmp(k[id].tokens, tokens, (size_t)len * sizeof *tokens);
        if (!hit) break;
        found = len;
    }
    return found;
}

TEST(kvcache, agrees_with_a_plain_model_under_random_use) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct qn_kvcache *c = open_cache(TOTAL);
        struct known k[TOTAL] = {0};
        struct { int n; uint64_t salt; int32_t tokens[DEPTH * BT], blocks[DEPTH]; } h[HOLDERS] = {0};
        state = seed;
        for (int t = 0; t < 400; t++) {
            unsigned i = draw(HOLDERS);
            if (h[i].n > 0) { /* grow by a block, or let go */
                if (h[i].n < DEPTH && draw(3)) {
                    int32_t b = qn_kvcache_alloc(c);
                    if (b < 0) continue;
                    k[b].published = 0; /* whatever it was has been evicted */
                    h[i].blocks[h[i].n] = b;
                    qn_kvcache_publish(c, h[i].salt, h[i].tokens, h[i].blocks, h[i].n++);
                    struct known *to = &k[h[i].blocks[h[i].n - 1]];
                    *to = (struct known){.published = 1, .n = h[i].n * BT, .salt = h[i].salt};
                    memcpy(to->tokens, h[i].tokens, (size_t)to->n * sizeof *to->tokens);
                } else {
                    drop(c, h[i].blocks, h[i].n);
                    h[i].n = 0;
                }
            } else {
                h[i].salt = draw(2);
                for (int j = 0; j < DEPTH * BT; j++) h[i].tokens[j] = j % BT ? 0 : (int32_t)draw(2);
                int want = model_probe(k, h[i].salt, h[i].tokens, DEPTH * BT);
                EXPECT_EQ(qn_kvcache_probe(c, h[i].salt, h[i].tokens, DEPTH * BT), want);
                h[i].n = qn_kvcache_match(c, h[i].salt, h[i].tokens, DEPTH * BT, h[i].blocks, DEPTH);
                ASSERT_EQ(h[i].n * BT, want);
                for (int j = 0; j < h[i].n; j++) {
                    const struct known *b = &k[h[i].blocks[j]];
                    ASSERT(b->published && b->n == (j + 1) * BT && b->salt == h[i].salt &&
                           !memcmp(b->tokens, h[i].tokens, (size_t)b->n * sizeof *b->tokens));
                }
                if (h[i].n == 0 && (h[i].blocks[0] = qn_kvcache_alloc(c)) >= 0) { /* a private block */
                    k[h[i].blocks[0]].published = 0;
                    qn_kvcache_unref(c, h[i].blocks[0]);
                }
            }
            const char *bad = qn_kvcache_audit(c);
            if (bad) qn_test_fail(__FILE__, __LINE__, "seed %llu: %s", (unsigned long long)seed, bad);
        }
        qn_kvcache_close(c);
    }
}
