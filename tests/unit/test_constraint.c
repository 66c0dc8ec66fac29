/* constraint: masks of real vocabularies against the slow definition (a token may come when its text leads to a live state), special
 * tokens, what is forced, going back, many threads, and grammars made to hurt. Needs the fetched models. */
#include <pthread.h>

#include "engine/base/clock.h"
#include "engine/grammar/constraint.h"
#include "engine/special.h"
#include "tests/lib/json_grammar.h"
#include "tests/run.h"

static const char *const vocabularies[] = {"models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "models/smollm2-135m-instruct-q4_1.gguf",
                                           "models/gemma-3-270m-q4_k_m.gguf", "vectors/llama.cpp-0.3.36/models/ggml-vocab-llama-spm.gguf",
                                           "vectors/llama.cpp-0.3.36/models/ggml-vocab-command-r.gguf"};
enum { QWEN, SMOL, GEMMA, SPM, COMMAND_R, N_VOCABULARIES };

struct vocab {
    struct qn_gguf *g;
    struct qn_tokenizer *t;
    struct qn_token_trie *trie;
    uint32_t n, words;
};

static struct vocab open_vocab(int which) {
    char path[1024];
    const char *root = getenv("QUERN_CACHE"), *home = getenv("HOME");
    struct vocab v = {0};
    struct qn_err err = {0};
    if (root && *root) snprintf(path, sizeof path, "%s/%s", root, vocabularies[which]);
    else snprintf(path, sizeof path, "%s/.cache/quern/%s", home ? home : "", vocabularies[which]);
    if (qn_gguf_open(&v.g, path, &err) < 0 || qn_tokenizer_open(&v.t, v.g, &err) < 0 || qn_token_trie_open(&v.trie, v.t, &err) < 0) {
        qn_test_fail(__FILE__, __LINE__, "%s: %s (scripts/fetch-model.sh and scripts/fetch-vectors.sh fetch what is missing)", path, err.text);
        qn_test_stop();
    }
    v.n = qn_tokenizer_n_vocab(v.t);
    v.words = (v.n + 31) / 32;
    return v;
}

static void close_vocab(struct vocab *v) {
    qn_token_trie_close(v->trie);
    qn_tokenizer_close(v->t);
    qn_gguf_close(v->g);
}

static struct qn_constraint *compiled(struct qn_grammar *g, qn_gnode root, const struct vocab *v) {
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    if (qn_constraint_new(&c, g, root, v ? v->trie : NULL, &err) < 0) {
        qn_test_fail(__FILE__, __LINE__, "compile: %s", err.text);
        qn_test_stop();
    }
    return c;
}

static struct qn_grammar *patient(void) { /* sanitizers are slow */
    struct qn_grammar *g = NULL;
    ASSERT_EQ(qn_grammar_new(&g, &(struct qn_grammar_limits){.compile_ns = 20 * QN_S}), 0);
    return g;
}

static qn_cstate after(struct qn_constraint *c, const char *text) { return qn_constraint_text(c, qn_constraint_start(c), text, strlen(text)); }

static int allowed(const uint32_t *mask, uint32_t id) { return mask[id / 32] >> (id % 32) & 1; }

/* The mask of s against its definition. */
static void check_mask(struct qn_constraint *c, const struct vocab *v, qn_cstate s, const char *where) {
    uint32_t *mask = calloc(v->words, 4), *again = calloc(v->words, 4), n = qn_constraint_mask(c, s, mask), found = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        size_t len;
        const char *p = qn_tokenizer_piece(v->t, id, &len);
        enum qn_token_kind k = qn_tokenizer_kind(v->t, id);
        int text = len > 0 && k != QN_TOKEN_CONTROL && k != QN_TOKEN_UNKNOWN && k != QN_TOKEN_UNUSED && !qn_tokenizer_guarded(v->t, id) && !qn_tokenizer_ends(v->t, id);
        int may = text ? qn_constraint_text(c, s, p, len) != QN_C_DEAD : qn_tokenizer_ends(v->t, id) && qn_constraint_accepts(c, s);
        found += (uint32_t)may;
        if (may != allowed(mask, id)) {
            qn_test_fail(__FILE__, __LINE__, "after \"%s\": token %u \"%.*s\" is %s", where, id, (int)len, p, may ? "missing" : "allowed");
            break;
        }
        if (may != (qn_constraint_token(c, s, id) != QN_C_DEAD)) {
            qn_test_fail(__FILE__, __LINE__, "after \"%s\": token %u steps otherwise than its mask says", where, id);
            break;
        }
    }
    EXPECT_EQ(n, found);
    EXPECT_EQ(qn_constraint_mask(c, s, again), n); /* now from what was kept */
    EXPECT(!memcmp(mask, again, v->words * 4u));
    EXPECT_EQ(qn_constraint_failed(c), 0);
    free(mask);
    free(again);
}

static const char *const places[] = {"", "{", "{\"na", "{\"name\": \"", "{\"name\": \"J\xC3", "{\"name\": \"a\\", "{\"name\": \"a\\u00", "{\"name\": \"x\"", "{\"list\": [",
                                     "{\"list\": [12", "{\"list\": [12, -", "{\"any\": {\"a\": [[", "{\"any\": {\"a\": [[]], \"b\": \"", "{\"slug\": \"a-", "{\"free\": 1}"};

/* {"name": string of up to 9, "list": [numbers], "any": any value, "slug": [a-z-]{1,12}, "free": number}, one of them */
static qn_gnode sample(struct qn_grammar *g) {
    qn_gnode slug = qn_g_repeat(g, qn_g_alt(g, qn_g_chars(g, &(struct qn_codes){'a', 'z'}, 1), jg_lit(g, "-")), 1, 12);
    qn_gnode member[] = {
        qn_g_cat(g, jg_lit(g, "\"name\": "), jg_string(g, 0, 9)), qn_g_cat(g, jg_lit(g, "\"list\": "), jg_list(g, "[", jg_number(g), "]", QN_G_INF)),
        qn_g_cat(g, jg_lit(g, "\"any\": "), jg_value(g)), qn_g_cat_n(g, (qn_gnode[]){jg_lit(g, "\"slug\": \""), slug, jg_lit(g, "\"")}, 3),
        qn_g_cat(g, jg_lit(g, "\"free\": "), jg_number(g)),
    };
    return qn_g_cat_n(g, (qn_gnode[]){jg_lit(g, "{"), qn_g_alt_n(g, member, 5), jg_lit(g, "}")}, 3);
}

TEST_SLOW(constraint, masks_are_what_their_definition_says_on_every_vocabulary, 600) {
    for (int i = 0; i < N_VOCABULARIES; i++) {
        struct vocab v = open_vocab(i);
        struct qn_grammar *g = patient();
        struct qn_constraint *c = compiled(g, sample(g), &v);
        for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
            ASSERT(after(c, places[k]) != QN_C_DEAD);
            check_mask(c, &v, after(c, places[k]), places[k]);
        }
        qn_constraint_unref(c);
        close_vocab(&v);
    }
}

TEST_SLOW(constraint, masks_of_free_text_and_of_awkward_counts, 300) {
    struct vocab v = open_vocab(QWEN);
    static const struct { uint32_t min, max; const char *then, *at; } row[] = {
        {0, 3, "", "ab"}, {0, 40, "\"", "x"}, {30, 31, "\"", "0123456789"}, {2, 2, "abc", "a"}, {0, QN_G_INF, "<end>", "some <e"}, {5, QN_G_INF, "", "Gr\xC3\xBC"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct qn_grammar *g = patient();
        qn_gnode any = qn_g_repeat(g, qn_g_any_char(g), row[i].min, row[i].max), end = jg_lit(g, row[i].then);
        qn_gnode holds_end = qn_g_cat_n(g, (qn_gnode[]){qn_g_text(g), end, qn_g_text(g)}, 3);
        qn_gnode root = *row[i].then ? qn_g_cat(g, qn_g_and(g, any, qn_g_not(g, holds_end)), end) : any;
        struct qn_constraint *c = compiled(g, root, &v);
        ASSERT(after(c, row[i].at) != QN_C_DEAD);
        check_mask(c, &v, qn_constraint_start(c), "");
        check_mask(c, &v, after(c, row[i].at), row[i].at);
        qn_constraint_unref(c);
    }
    close_vocab(&v);
}

/* Sets of characters that are almost all, all of ASCII, all but some beyond it, and few; alone and counted. */
TEST_SLOW(constraint, masks_of_many_sets_of_characters, 300) {
    static const struct { const char *at; uint32_t max; struct qn_codes v[4]; } row[] = {
        {"ab", QN_G_INF, {{' ', 0x10FFFF}}}, {"ab", QN_G_INF, {{' ', '~'}}}, {"ab", 6, {{' ', '~'}}}, {"ab", QN_G_INF, {{' ', 0x4E2C}, {0x4E2E, 0x10FFFF}}},
        {"ab", QN_G_INF, {{' ', '9'}, {';', 0x10FFFF}}}, {"ab", 7, {{' ', '9'}, {';', 0x10FFFF}}}, {"ab", QN_G_INF, {{'a', 'z'}, {'0', '9'}, {'-', '-'}}},
        {"ab", 9, {{'A', 'Z'}, {'a', 'z'}, {'_', '_'}}}, {"", QN_G_INF, {{0x80, 0x10FFFF}}}, {"\xE4", QN_G_INF, {{0x80, 0x10FFFF}}}, {"a", QN_G_INF, {{0, 0x7FF}}},
        {"a", QN_G_INF, {{'\n', '\n'}, {' ', '!'}, {'#', '['}, {']', 0xFFFF}}}, {"1", 40, {{'0', '9'}}}, {"a", 3, {{' ', 0x10FFFF}}}};
    struct vocab v = open_vocab(QWEN);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct qn_grammar *g = patient();
        size_t n = 0;
        while (n < 4 && row[i].v[n].to) n++;
        qn_gnode many = qn_g_repeat(g, qn_g_chars(g, row[i].v, n), 0, row[i].max);
        struct qn_constraint *c = compiled(g, qn_g_cat(g, many, qn_g_repeat(g, jg_lit(g, "::"), 0, 1)), &v);
        ASSERT(after(c, row[i].at) != QN_C_DEAD);
        check_mask(c, &v, after(c, row[i].at), row[i].at);
        qn_constraint_unref(c);
    }
    close_vocab(&v);
}

TEST(constraint, special_tokens_match_where_they_are_named_and_nowhere_else) {
    struct vocab v = open_vocab(QWEN);
    int64_t call = qn_tokenizer_find(v.t, "<tool_call>", 11), end = qn_tokenizer_find(v.t, "<|im_end|>", 10);
    ASSERT(call >= 0 && end >= 0);
    struct qn_grammar *g = patient();
    qn_gnode digits = qn_g_repeat(g, jg_set(g, "0123456789"), 1, 3);
    struct qn_constraint *c = compiled(g, qn_g_cat_n(g, (qn_gnode[]){digits, qn_g_token(g, (uint32_t)call), jg_lit(g, "{}"), qn_g_token(g, (uint32_t)end)}, 4), &v);
    uint32_t *mask = calloc(v.words, 4);
    qn_cstate s = qn_constraint_start(c);
    qn_constraint_mask(c, s, mask);
    EXPECT(!allowed(mask, (uint32_t)call) && !allowed(mask, (uint32_t)end));
    EXPECT_EQ(qn_constraint_token(c, s, (uint32_t)call), QN_C_DEAD);
    s = after(c, "123");
    EXPECT_EQ(qn_constraint_mask(c, s, mask), 1);
    EXPECT(allowed(mask, (uint32_t)call));
    EXPECT_EQ(qn_constraint_forced_token(c, s), call);
    EXPECT_EQ(after(c, "123<tool_call>"), QN_C_DEAD); /* its spelling is not it */
    s = qn_constraint_token(c, s, (uint32_t)call);
    char out[8];
    EXPECT_EQ(qn_constraint_forced(c, s, out, sizeof out), 2);
    EXPECT(!memcmp(out, "{}", 2));
    EXPECT_EQ(qn_constraint_forced_token(c, s), -1);
    s = qn_constraint_text(c, s, "{}", 2);
    EXPECT(!qn_constraint_accepts(c, s));
    EXPECT_EQ(qn_constraint_mask(c, s, mask), 1); /* named, so it comes though nothing is accepted */
    s = qn_constraint_token(c, s, (uint32_t)end);
    EXPECT(qn_constraint_accepts(c, s) && qn_constraint_over(c, s));
    EXPECT_EQ(qn_constraint_token(c, s, (uint32_t)end), s); /* from here on as everywhere */
    EXPECT_EQ(qn_constraint_token(c, s, v.n + 5), QN_C_DEAD);
    EXPECT_EQ(qn_constraint_token(c, 1u << 30, 5), QN_C_DEAD);
    free(mask);
    qn_constraint_unref(c);
    close_vocab(&v);
}

TEST(constraint, what_is_forced_ends_before_every_choice) {
    struct qn_grammar *g = patient();
    qn_gnode tail = qn_g_alt(g, jg_lit(g, "xy"), jg_lit(g, "xz"));
    struct qn_constraint *c = compiled(g, qn_g_cat_n(g, (qn_gnode[]){jg_lit(g, "abc"), qn_g_repeat(g, jg_lit(g, "d"), 0, 1), jg_lit(g, "ef"), tail}, 4), NULL);
    static const struct { const char *at, *next; } row[] = {{"", "abc"}, {"ab", "c"}, {"abc", ""}, {"abcd", "efx"}, {"abce", "fx"}, {"abcefx", ""}, {"abcefxy", ""}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char out[16] = "";
        size_t n = qn_constraint_forced(c, after(c, row[i].at), out, sizeof out - 1);
        out[n] = 0;
        EXPECT_STR(out, row[i].next);
    }
    char two[2];
    EXPECT_EQ(qn_constraint_forced(c, qn_constraint_start(c), two, 2), 2);
    EXPECT_EQ(qn_constraint_forced(c, QN_C_DEAD, two, 2), 0);
    qn_constraint_unref(c);
    g = patient();
    c = compiled(g, qn_g_cat(g, jg_lit(g, "a"), qn_g_repeat(g, jg_lit(g, "a"), 0, 1)), NULL); /* may end after the first */
    EXPECT_EQ(qn_constraint_forced(c, qn_constraint_start(c), two, 2), 1);
    EXPECT_EQ(qn_constraint_over(c, after(c, "a")), 0);
    EXPECT_EQ(qn_constraint_over(c, after(c, "aa")), 1);
    qn_constraint_unref(c);
}

TEST(constraint, equal_futures_are_equal_numbers) {
    struct qn_grammar *g = patient();
    struct qn_constraint *c = compiled(g, jg_value(g), NULL);
    EXPECT_EQ(after(c, "[1, \"a\", "), after(c, "[true, [[]], "));
    EXPECT_EQ(after(c, "{\"a\": [[], \"x"), after(c, "{\"bc\": [1, \"yz"));
    EXPECT(after(c, "[[\"x") != after(c, "[\"x"));
    qn_cstate s = after(c, "{\"deep\": ");
    for (int i = 0; i < 1000; i++) s = qn_constraint_text(c, s, "[", 1);
    for (int i = 0; i < 1000; i++) s = qn_constraint_text(c, s, "]", 1);
    EXPECT_EQ(s, after(c, "{\"deep\": []"));
    EXPECT(qn_constraint_accepts(c, qn_constraint_text(c, s, "}", 1)));
    EXPECT_EQ(qn_constraint_failed(c), 0);
    qn_constraint_unref(c);
}

/* --- many threads --- */

struct shared {
    struct qn_constraint *c;
    const struct vocab *v;
    const uint32_t *want[8];
};

static void *masks_in_a_thread(void *arg) {
    const struct shared *s = arg;
    uint32_t *mask = calloc(s->v->words, 4);
    struct qn_constraint *mine = qn_constraint_ref(s->c);
    for (int i = 0; i < 40; i++) {
        int k = i % 8;
        qn_constraint_mask(mine, after(mine, places[k]), mask);
        if (memcmp(mask, s->want[k], s->v->words * 4u)) qn_test_fail(__FILE__, __LINE__, "another mask after \"%s\"", places[k]);
    }
    qn_constraint_unref(mine);
    free(mask);
    return NULL;
}

TEST_SLOW(constraint, many_threads_share_one, 120) {
    struct vocab v = open_vocab(SMOL);
    struct qn_grammar *g = patient();
    struct qn_constraint *alone = compiled(g, sample(g), &v);
    g = patient();
    struct shared s = {.c = compiled(g, sample(g), &v), .v = &v};
    uint32_t *want[8];
    pthread_t th[4];
    for (int i = 0; i < 8; i++) {
        s.want[i] = want[i] = calloc(v.words, 4);
        qn_constraint_mask(alone, after(alone, places[i]), want[i]);
    }
    for (int i = 0; i < 4; i++) ASSERT_EQ(pthread_create(&th[i], NULL, masks_in_a_thread, &s), 0);
    for (int i = 0; i < 4; i++) pthread_join(th[i], NULL);
    for (int i = 0; i < 8; i++) free(want[i]);
    qn_constraint_unref(s.c);
    qn_constraint_unref(alone);
    close_vocab(&v);
}

/* --- going on, going back, running short --- */

static uint32_t pick(const uint32_t *mask, uint32_t words, uint32_t n, uint64_t *rng) {
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    uint32_t k = (uint32_t)(*rng >> 33) % n;
    for (uint32_t w = 0; w < words; w++) {
        uint32_t here = (uint32_t)__builtin_popcount(mask[w]);
        if (k >= here) {
            k -= here;
            continue;
        }
        uint32_t x = mask[w];
        while (k-- > 0) x &= x - 1;
        return w * 32 + (uint32_t)__builtin_ctz(x);
    }
    return UINT32_MAX;
}

/* Any allowed token may be taken, whatever came before. Now and then some steps are taken back and others taken. */
static void random_walk(struct qn_constraint *c, const struct vocab *v, uint64_t seed, int tokens) {
    enum { KEEP = 8 };
    uint32_t *mask = calloc(v->words, 4);
    qn_cstate before[KEEP], s = qn_constraint_start(c);
    for (int i = 0; i < KEEP; i++) before[i] = s;
    for (int i = 0; i < tokens; i++) {
        uint32_t n = qn_constraint_mask(c, s, mask);
        before[i % KEEP] = s;
        if (n == 0) EXPECT(qn_constraint_over(c, s));
        uint32_t id = n ? pick(mask, v->words, n, &seed) : UINT32_MAX;
        if (n == 0 || qn_tokenizer_ends(v->t, id) || i % 13 == 12) {
            s = before[(i + 3) % KEEP];
            continue;
        }
        s = qn_constraint_token(c, s, id);
        if (s == QN_C_DEAD) {
            qn_test_fail(__FILE__, __LINE__, "token %u was allowed and leads nowhere", id);
            break;
        }
    }
    free(mask);
}

TEST_SLOW(constraint, random_walks_by_allowed_tokens_never_end_dead, 120) {
    struct vocab v = open_vocab(SMOL);
    struct qn_grammar *g = patient();
    struct qn_constraint *c = compiled(g, jg_value(g), &v);
    for (uint64_t seed = 0; seed < 60; seed++) random_walk(c, &v, seed, 80);
    qn_constraint_unref(c);
    g = patient();
    c = compiled(g, sample(g), &v);
    for (uint64_t seed = 0; seed < 60; seed++) random_walk(c, &v, seed, 80);
    qn_constraint_unref(c);
    close_vocab(&v);
}

/* Masks and rows go before states do, and what is computed again is the same. */
TEST_SLOW(constraint, little_memory_forgets_masks_first_and_fails_whole, 120) {
    struct vocab v = open_vocab(SMOL);
    struct qn_grammar *g = NULL, *roomy = patient();
    struct qn_constraint *c, *big = compiled(roomy, jg_string(roomy, 0, 100000), &v);
    enum { MAX = 2 << 20, STEPS = 4000 };
    ASSERT_EQ(qn_grammar_new(&g, &(struct qn_grammar_limits){.bytes_max = MAX, .compile_ns = 20 * QN_S}), 0);
    c = compiled(g, jg_string(g, 0, 100000), &v);
    uint32_t *mask = calloc(v.words, 4), *want = calloc(v.words, 4);
    qn_cstate s = after(c, "\""), t = after(big, "\"");
    struct qn_constraint_counts n;
    int i = 0;
    for (; i < STEPS && s != QN_C_DEAD; i++) {
        uint32_t k = qn_constraint_mask(c, s, mask);
        if (qn_constraint_failed(c)) break;
        if (i % 100 == 0) {
            EXPECT_EQ(k, qn_constraint_mask(big, t, want));
            EXPECT(!memcmp(mask, want, v.words * 4u));
        }
        s = qn_constraint_text(c, s, "x", 1);
        t = qn_constraint_text(big, t, "x", 1);
    }
    qn_constraint_counts(c, &n);
    EXPECT(n.bytes <= MAX);
    EXPECT(i > 600); /* about 170 masks would fit if nothing else were there */
    for (; s != QN_C_DEAD && i < 100000; i++) s = qn_constraint_text(c, s, "xy", 2);
    EXPECT_EQ(s, QN_C_DEAD);
    EXPECT_EQ(qn_constraint_failed(c), QN_E_LIMIT);
    EXPECT(qn_constraint_worn(c) && !qn_constraint_worn(big));
    EXPECT_EQ(qn_constraint_mask(c, qn_constraint_start(c), mask), 0);
    EXPECT_EQ(qn_constraint_token(c, qn_constraint_start(c), 5), QN_C_DEAD);
    qn_constraint_counts(c, &n);
    EXPECT(n.bytes <= MAX);
    free(mask);
    free(want);
    qn_constraint_unref(c);
    qn_constraint_unref(big);
    close_vocab(&v);
}
