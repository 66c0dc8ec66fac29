/* Any bytes, cut by any ranges of trust, under four small vocabularies that know every byte. Properties: the pieces joined
 * give the text back (but for what the model's own normal form changes); no control token comes out where nothing
 * is trusted; a limit on the ids holds. The first bytes of the input choose; the rest is text. */
#include "engine/tokenizer.h"
#include "tests/unit/tiny_gguf.h"

#include <stdio.h>

#define CHECK(c) do { if (!(c)) { fprintf(stderr, "tokenizer_fuzz: %s (line %d)\n", #c, __LINE__); abort(); } } while (0)

enum { N_VOCABS = 4, RANGES_MAX = 16 };
/* clang-format off */
static const char *const words[] = {
    "th", "in", "er", "the", "ing", "aa", "aaaa", "00", "\xC4\xA0t", "\xC4\xA0the", "\xC4\xA0\xC4\xA0",
    "\xC4\x8A\xC4\x8A", "\xC3\x8C\xC4\xA3", "'s",
};
static const char *const merges[] = {
    "t h", "i n", "e r", "th e", "in g", "a a", "aa aa", "0 0", "\xC4\xA0 t", "\xC4\xA0t he", "\xC4\xA0 the",
    "\xC4\xA0 \xC4\xA0", "\xC4\x8A \xC4\x8A", "\xC3\x8C \xC4\xA3", "' s",
};
static const char *const pieces[] = {
    "\xE2\x96\x81", "t", "h", "e", "a", "th", "\xE2\x96\x81t", "the", "\xE2\x96\x81the", "aa", "aaaa",
    "\xE2\x96\x81\xE2\x96\x81",
};
/* clang-format on */
static const char *const specials[] = {"<|a|>", "<|ab|>", "<|", "</s>", "<s>", "\n\n", "  "};
static const int special_kind[] = {3, 3, 3, 3, 3, 4, 4};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct { /* live until the process ends, where a leak checker can see them */
    struct qn_tokenizer *t;
    struct qn_gguf *g;
    char *bytes;
} vocab[N_VOCABS];

static void build(int k, const char *model, const char *pre) {
    struct tiny_gguf w;
    struct qn_gguf *g;
    struct qn_tokenizer *t;
    struct qn_err err = {0};
    int bytes = !strcmp(model, "gpt2");
    uint64_t n_words = bytes ? COUNT(words) : COUNT(pieces), n = 256 + n_words + COUNT(specials);
    tiny_open(&w);
    tiny_kv_str(&w, "tokenizer.ggml.model", model);
    tiny_kv_str(&w, "tokenizer.ggml.pre", pre);
    tiny_kv_array(&w, "tokenizer.ggml.tokens", TINY_STR, n);
    for (unsigned i = 0; i < 256; i++) {
        char s[8];
        if (bytes) tiny_letter(i, s);
        else snprintf(s, sizeof s, "<0x%02X>", i);
        tiny_text(&w, s, strlen(s));
    }
    for (uint64_t i = 0; i < n_words; i++) tiny_text(&w, bytes ? words[i] : pieces[i], strlen(bytes ? words[i] : pieces[i]));
    for (size_t i = 0; i < COUNT(specials); i++) tiny_text(&w, specials[i], strlen(specials[i]));
    tiny_kv_array(&w, "tokenizer.ggml.token_type", TINY_I32, n);
    for (uint64_t i = 0; i < n; i++)
        tiny_u32(&w, i < 256 ? (bytes ? 1 : 6) : i < 256 + n_words ? 1 : (uint32_t)special_kind[i - 256 - n_words]);
    tiny_kv_array(&w, "tokenizer.ggml.scores", TINY_F32, n);
    for (uint64_t i = 0; i < n; i++) {
        float score = -(float)i;
        tiny_put(&w, &score, 4);
    }
    tiny_kv_u32(&w, "tokenizer.ggml.bos_token_id", (uint32_t)(256 + n_words + 4));
    tiny_kv_u32(&w, "tokenizer.ggml.eos_token_id", (uint32_t)(256 + n_words + 3));
    tiny_strs(&w, "tokenizer.ggml.merges", merges, COUNT(merges));
    tiny_close(&w);
    if (qn_gguf_parse(&g, w.p, w.n, &err) < 0 || qn_tokenizer_open(&t, g, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    vocab[k].t = t;
    vocab[k].g = g;
    vocab[k].bytes = w.p;
}

/* U+2581 is a space to SentencePiece. */
static size_t spaced(const char *p, size_t n, char *out) {
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        if (n - i >= 3 && !memcmp(p + i, "\xE2\x96\x81", 3)) {
            out[o++] = ' ';
            i += 2;
        } else {
            out[o++] = p[i];
        }
    }
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const pre[N_VOCABS] = {"smollm", "llama-bpe", "deepseek-llm", "default"};
    struct qn_range r[RANGES_MAX];
    size_t n_r = 0, at = 0;
    if (n < 2) return 0;
    int k = data[0] % N_VOCABS, spm = k == N_VOCABS - 1;
    if (!vocab[k].t) build(k, spm ? "llama" : "gpt2", pre[k]);
    const struct qn_tokenizer *t = vocab[k].t;
    size_t want_r = data[1] % RANGES_MAX, head = 2 + 2 * want_r;
    if (head > n) return 0;
    const char *p = (const char *)data + head;
    size_t len = n - head;
    for (size_t i = 0; i < want_r; i++) { /* ascending, disjoint, often adjacent */
        size_t from = at + data[2 + 2 * i] % 8, to = from + data[3 + 2 * i] % 64;
        if (to > len) break;
        if (to > from) r[n_r++] = (struct qn_range){from, to};
        at = to;
    }
    struct qn_text x = {p, len, r, n_r};
    struct qn_ids ids = {0};
    struct qn_err err = {0};
    CHECK(qn_tokenizer_encode(t, &x, 0, 0, &ids, &err) == 0);
    char *got = malloc(ids.n * qn_tokenizer_piece_max(t) + 1), *want = malloc(len + 1);
    size_t o = 0, m = 0;
    CHECK(got && want);
    for (size_t i = 0; i < ids.n; i++) {
        size_t bytes;
        CHECK(ids.v[i] < qn_tokenizer_n_vocab(t));
        const char *piece = qn_tokenizer_piece(t, ids.v[i], &bytes);
        if (qn_tokenizer_kind(t, ids.v[i]) == QN_TOKEN_CONTROL) CHECK(n_r > 0);
        memcpy(got + o, piece, bytes);
        o += bytes;
    }
    if (spm) {
        m = spaced(p, len, want);
        /* One space goes in front of every part of text, after special tokens too; only the first is the decoder's to strip. */
        int plain = 1;
        for (size_t i = 0; i < ids.n; i++)
            plain &= qn_tokenizer_kind(t, ids.v[i]) != QN_TOKEN_CONTROL && qn_tokenizer_kind(t, ids.v[i]) != QN_TOKEN_USER;
        if (plain && len > 0) CHECK(o == m + 1 && got[0] == ' ' && !memcmp(got + 1, want, m));
        CHECK(o >= m);
    } else {
        CHECK(o == len && !memcmp(got, p, len));
    }
    if (ids.n > 1) {
        struct qn_ids few = {0};
        CHECK(qn_tokenizer_encode(t, &x, 0, ids.n - 1, &few, NULL) == QN_E_LIMIT && few.n <= ids.n - 1);
        few.n = 0;
        CHECK(qn_tokenizer_encode(t, &x, 0, ids.n, &few, NULL) == 0 && few.n == ids.n &&
              !memcmp(few.v, ids.v, ids.n * sizeof *ids.v));
        free(few.v);
    }
    free(got);
    free(want);
    free(ids.v);
    return 0;
}
