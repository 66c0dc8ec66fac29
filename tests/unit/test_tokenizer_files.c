/* Tokenizer keys of a hostile or careless file: each ends in a value that names the key, or is handled. No fetched files. */
#include "engine/tokenizer.h"
#include "tests/run.h"
#include "tests/unit/tiny_gguf.h"

/* A byte-level vocabulary: 256 bytes, then some words, then markers; ids as listed. */
enum { N_WORDS = 6, ID_HE = 256, ID_LL, ID_HELL, ID_HELLO, ID_EMPTY, ID_HE_AGAIN, ID_END, ID_UNK, ID_TOOL, ID_PAD, N_TOKENS };
static const char *const words[N_WORDS] = {"he", "ll", "hell", "hello", "", "he"};
static const char *const markers[4] = {"<|im_end|>", "<unk>", "<tool_call>", "[PAD265]"};
static const int marker_kinds[4] = {3, 2, 4, 4};
static const char *const merges[] = {"h e", "l l", "he ll", "hell o"};

struct bits { /* what a test changes */
    const char *model, *pre;
    const char *const *merges;
    uint64_t n_merges, n_types;
    int no_tokens, no_merges, no_types, lacks_byte, bad_kind;
    uint32_t eos, bos, unk;
};
static struct bits usual(void) {
    return (struct bits){.model = "gpt2", .pre = "gpt-2", .merges = merges, .n_merges = 4, .n_types = N_TOKENS, .lacks_byte = -1,
                         .eos = ID_END, .bos = ID_END, .unk = ID_UNK};
}

static int open_bits(struct bits b, struct qn_gguf **g, struct tiny_gguf *w, struct qn_tokenizer **t, struct qn_err *err) {
    char letter[3];
    tiny_open(w);
    tiny_kv_str(w, "general.architecture", "llama");
    tiny_kv_str(w, "tokenizer.ggml.model", b.model);
    if (b.pre) tiny_kv_str(w, "tokenizer.ggml.pre", b.pre);
    if (!b.no_tokens) {
        tiny_kv_array(w, "tokenizer.ggml.tokens", TINY_STR, N_TOKENS);
        for (int i = 0; i < 256; i++) {
            size_t n = tiny_letter((unsigned)i, letter);
            if (i == b.lacks_byte) tiny_text(w, "not a byte", 10);
            else tiny_text(w, letter, n);
        }
        for (int i = 0; i < N_WORDS; i++) tiny_text(w, words[i], strlen(words[i]));
        for (int i = 0; i < 4; i++) tiny_text(w, markers[i], strlen(markers[i]));
    }
    if (!b.no_types) {
        tiny_kv_array(w, "tokenizer.ggml.token_type", TINY_I32, b.n_types);
        for (uint64_t i = 0; i < b.n_types; i++)
            tiny_u32(w, b.bad_kind && i == ID_HELLO   ? (uint32_t)b.bad_kind
                        : i >= ID_END && i < N_TOKENS ? (uint32_t)marker_kinds[i - ID_END]
                                                      : 1);
    }
    if (!b.no_merges) tiny_strs(w, "tokenizer.ggml.merges", b.merges, b.n_merges);
    tiny_kv_u32(w, "tokenizer.ggml.eos_token_id", b.eos);
    tiny_kv_u32(w, "tokenizer.ggml.bos_token_id", b.bos);
    tiny_kv_u32(w, "tokenizer.ggml.unknown_token_id", b.unk);
    tiny_close(w);
    int rc = qn_gguf_parse(g, w->p, w->n, err);
    return rc < 0 ? rc : qn_tokenizer_open(t, *g, err);
}

static void refused(struct bits b, int code, const char *says, const char *also) {
    struct qn_gguf *g = NULL;
    struct qn_tokenizer *t = NULL;
    struct tiny_gguf w;
    struct qn_err err = {0};
    EXPECT_EQ(open_bits(b, &g, &w, &t, &err), code);
    EXPECT(t == NULL);
    if (!strstr(err.text, says) || (also && !strstr(err.text, also)))
        qn_test_fail(__FILE__, __LINE__, "'%s' does not say '%s' and '%s'", err.text, says, also ? also : "");
    qn_gguf_close(g);
    free(w.p);
}

static void encodes(struct bits b, const char *text, size_t n, int trusted, const uint32_t *want, size_t n_want) {
    struct qn_gguf *g = NULL;
    struct qn_tokenizer *t = NULL;
    struct tiny_gguf w;
    struct qn_err err = {0};
    struct qn_ids ids = {0};
    struct qn_range all = {0, n};
    struct qn_text x = {text, n, &all, (size_t)trusted};
    if (open_bits(b, &g, &w, &t, &err) < 0 || qn_tokenizer_encode(t, &x, 0, 0, &ids, &err) < 0) {
        qn_test_fail(__FILE__, __LINE__, "%s", err.text);
        qn_test_stop();
    }
    EXPECT_MEM(ids.n ? (const void *)ids.v : "", ids.n * sizeof *ids.v, n_want ? (const void *)want : "", n_want * sizeof *want);
    free(ids.v);
    qn_tokenizer_close(t);
    qn_gguf_close(g);
    free(w.p);
}
#define IDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4

TEST(tokenizer_files, a_sound_file_works) {
    encodes(usual(), "hello", 5, 0, IDS(ID_HELLO));
    encodes(usual(), "hell he", 7, 0, IDS(ID_HELL, ' ', ID_HE)); /* of duplicates the first */
    encodes(usual(), "he<|im_end|>", 12, 1, IDS(ID_HE, ID_END));
    encodes(usual(), "<|im_end|>", 10, 0, IDS('<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>'));
    encodes(usual(), "<tool_call>", 11, 1, IDS(ID_TOOL));
    encodes(usual(), "[PAD265]", 8, 1, IDS('[', 'P', 'A', 'D', '2', '6', '5', ']')); /* padding is never text */
    encodes(usual(), "\xFF\x80\xC3", 3, 0, IDS(0xFF, 0x80, 0xC3));
}

TEST(tokenizer_files, missing_keys_are_named) {
    struct bits b = usual();
    b.no_tokens = 1;
    refused(b, QN_E_DATA, "tokenizer.ggml.tokens", "missing");
    b = usual();
    b.no_merges = 1;
    refused(b, QN_E_DATA, "tokenizer.ggml.merges", "missing");
    b = usual();
    b.model = "llama";
    refused(b, QN_E_DATA, "tokenizer.ggml.scores", NULL);
    b = usual();
    b.pre = NULL; /* llama.cpp's default rule */
    encodes(b, "hello", 5, 0, IDS(ID_HELLO));
    b.no_types = 1;
    encodes(b, "hello", 5, 0, IDS(ID_HELLO));
    encodes(b, "<|im_end|>", 10, 0, IDS('<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>')); /* a turn's end by its name alone */
    encodes(b, "<|im_end|>", 10, 1, IDS(ID_END));
}

TEST(tokenizer_files, unknown_rules_are_refused_by_name) {
    struct bits b = usual();
    b.pre = "frobnicate-9";
    refused(b, QN_E_UNSUPPORTED, "'frobnicate-9'", "smollm, qwen2, ");
    b.pre = "";
    refused(b, QN_E_UNSUPPORTED, "''", "known");
    b = usual();
    b.model = "wordpiece";
    refused(b, QN_E_UNSUPPORTED, "'wordpiece'", "gpt2");
}

TEST(tokenizer_files, types_that_do_not_fit) {
    struct bits b = usual();
    b.n_types = N_TOKENS - 1;
    refused(b, QN_E_DATA, "tokenizer.ggml.token_type", "shorter");
    b.n_types = 0;
    refused(b, QN_E_DATA, "tokenizer.ggml.token_type", NULL);
    b.n_types = N_TOKENS + 40; /* more than tokens: harmless */
    encodes(b, "hello", 5, 0, IDS(ID_HELLO));
    b = usual();
    b.bad_kind = 77; /* no kind: kept out of texts */
    encodes(b, "hello", 5, 0, IDS(ID_HELL, 'o'));
    b.bad_kind = -5;
    encodes(b, "hello", 5, 0, IDS(ID_HELL, 'o'));
    b.bad_kind = 3; /* a control token is no result of a merge */
    encodes(b, "hello", 5, 0, IDS(ID_HELL, 'o'));
    b.bad_kind = 6;
    refused(b, QN_E_DATA, "tokens[259]", "<0xNN>");
}

TEST(tokenizer_files, merges_that_make_no_sense) {
    static const char *const none[] = {"he"}, *const odd[] = {"h e", "x yz", "he he",     "\xC4\xA0 nowhere",
                                                              "l l", "  ",   "\xFF \xFE", "h e"};
    struct bits b = usual();
    b.merges = none;
    b.n_merges = 1;
    refused(b, QN_E_DATA, "tokenizer.ggml.merges[0]", NULL);
    b.merges = odd;
    b.n_merges = 8;
    encodes(b, "hello", 5, 0, IDS(ID_HE, ID_LL, 'o'));
    b.n_merges = 0;
    encodes(b, "hello", 5, 0, IDS('h', 'e', 'l', 'l', 'o'));
}

TEST(tokenizer_files, ids_beyond_the_vocabulary) {
    struct bits b = usual();
    b.eos = N_TOKENS;
    b.bos = UINT32_MAX;
    b.unk = 1u << 31;
    struct qn_gguf *g = NULL;
    struct qn_tokenizer *t = NULL;
    struct tiny_gguf w;
    ASSERT_EQ(open_bits(b, &g, &w, &t, NULL), 0);
    EXPECT_EQ(qn_tokenizer_eos(t), -1);
    EXPECT_EQ(qn_tokenizer_bos(t), -1);
    EXPECT_EQ(qn_tokenizer_adds_bos(t), 0);
    EXPECT_EQ(qn_tokenizer_ends(t, ID_END), 1); /* by its spelling */
    EXPECT_EQ(qn_tokenizer_ends(t, N_TOKENS + 7), 0);
    size_t n = 9;
    qn_tokenizer_piece(t, UINT32_MAX, &n);
    EXPECT_EQ(n, 0);
    EXPECT_EQ(qn_tokenizer_find(t, "nothing", 7), -1);
    EXPECT_EQ(qn_tokenizer_find(t, "", 0), -1);
    qn_tokenizer_close(t);
    qn_gguf_close(g);
    free(w.p);
}

TEST(tokenizer_files, a_byte_without_a_token_is_left_out) {
    struct bits b = usual();
    b.lacks_byte = 'x';
    encodes(b, "hxe", 3, 0, IDS(ID_HE)); /* as Hugging Face does, before it merges */
    encodes(b, "x", 1, 0, NULL, 0);
    b.unk = ID_END; /* and never becomes what ends a turn */
    encodes(b, "hx", 2, 0, IDS('h'));
}

/* SentencePiece: scores of any float, equal ones, NaN; missing byte tokens. */
static int open_spm(const float *score, uint64_t n_score, int with_bytes, struct qn_gguf **g, struct tiny_gguf *w,
                    struct qn_tokenizer **t, struct qn_err *err) {
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "a", "b", "ab", "ba", "\xE2\x96\x81", "\xE2\x96\x81" "a"};
    uint64_t n = 9 + (with_bytes ? 256 : 0);
    tiny_open(w);
    tiny_kv_str(w, "tokenizer.ggml.model", "llama");
    tiny_kv_array(w, "tokenizer.ggml.tokens", TINY_STR, n);
    for (int i = 0; i < 9; i++) tiny_text(w, tokens[i], strlen(tokens[i]));
    for (uint64_t i = 9; i < n; i++) {
        char s[8];
        snprintf(s, sizeof s, "<0x%02X>", (unsigned)(i - 9));
        tiny_text(w, s, 6);
    }
    tiny_kv_array(w, "tokenizer.ggml.token_type", TINY_I32, n);
    for (uint64_t i = 0; i < n; i++) tiny_u32(w, i == 0 ? 2 : i < 3 ? 3 : i < 9 ? 1 : 6);
    tiny_kv_array(w, "tokenizer.ggml.scores", TINY_F32, n_score ? n_score : n);
    for (uint64_t i = 0; i < (n_score ? n_score : n); i++) tiny_put(w, &score[i < 9 ? i : 8], 4);
    tiny_close(w);
    int rc = qn_gguf_parse(g, w->p, w->n, err);
    return rc < 0 ? rc : qn_tokenizer_open(t, *g, err);
}

static void spm_encodes(const float *score, int with_bytes, const char *text, int code, const uint32_t *want, size_t n_want) {
    struct qn_gguf *g = NULL;
    struct qn_tokenizer *t = NULL;
    struct tiny_gguf w;
    struct qn_err err = {0};
    struct qn_ids ids = {0};
    struct qn_text x = {text, strlen(text), NULL, 0};
    ASSERT_EQ(open_spm(score, 0, with_bytes, &g, &w, &t, &err), 0);
    EXPECT_EQ(qn_tokenizer_encode(t, &x, 0, 0, &ids, &err), code);
    EXPECT_MEM(ids.n ? (const void *)ids.v : "", ids.n * sizeof *ids.v, n_want ? (const void *)want : "", n_want * sizeof *want);
    free(ids.v);
    qn_tokenizer_close(t);
    qn_gguf_close(g);
    free(w.p);
}

TEST(tokenizer_files, scores_of_any_kind) {
    static const float sound[9] = {0, 0, 0, -1, -2, -3, -4, -5, -6}, worse[9] = {0, 0, 0, -1, -2, -4, -3, -5, -6},
                       equal[9] = {0}, odd[9] = {0, 0, 0, NAN, INFINITY, -INFINITY, NAN, -0.0f, 1e-45f};
    spm_encodes(sound, 1, "bab", 0, IDS(7, 4, 5));  /* ab is better than ba */
    spm_encodes(worse, 1, "bab", 0, IDS(7, 6, 4));  /* ba is */
    spm_encodes(equal, 1, "bab", 0, IDS(7, 6, 4));  /* the left one */
    spm_encodes(odd, 1, "ab", 0, IDS(8, 4));        /* NaN and infinities order somehow, and end */
    spm_encodes(sound, 1, "\xC3\xA9", 0, IDS(7, 9 + 0xC3, 9 + 0xA9));
    spm_encodes(sound, 0, "xyzb", 0, IDS(7, 0, 4)); /* no byte tokens: one unknown for the run */
    struct qn_gguf *g = NULL;
    struct qn_tokenizer *t = NULL;
    struct tiny_gguf w;
    struct qn_err err = {0};
    EXPECT_EQ(open_spm(sound, 8, 0, &g, &w, &t, &err), QN_E_DATA);
    EXPECT(strstr(err.text, "tokenizer.ggml.scores") != NULL);
    qn_gguf_close(g);
    free(w.p);
}
