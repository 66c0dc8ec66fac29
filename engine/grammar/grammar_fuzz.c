/* Any bytes as a little program that builds a grammar, then a text. Properties: no operation fails but by a limit; memory stays below its
 * bound; an accepting state is alive and one that is over has no way on; the mask is what its definition says for every token of a small
 * vocabulary; what is forced is the only way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/grammar/constraint.h"
#include "tests/unit/tiny_gguf.h"

#define CHECK(c) do { if (!(c)) { fprintf(stderr, "grammar_fuzz: %s (line %d)\n", #c, __LINE__); abort(); } } while (0)

enum { STACK = 32, BYTES_MAX = 4 << 20, RULES = 4 };
static const char *const words[] = {"aa", "ab", "abc", "aaaa", "\"a", "a\"", "\",", "a:", ": ", "\xC3\x84\xC2\xA9", "\xC3\x83\xC2\xA9", "bb", "ba", "abab", "a1", "12"};
static const char *const specials[] = {"<|a|>", "<|im_end|>", "<call>"};
enum { N_WORDS = sizeof words / sizeof *words, N_TOKENS = 256 + N_WORDS + 3 };

static struct { /* lives until the process ends */
    struct qn_gguf *g;
    struct qn_tokenizer *t;
    struct qn_token_trie *trie;
    struct tiny_gguf w;
} vocab;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void open_vocab(void) {
    struct tiny_gguf *w = &vocab.w;
    static const char *const merges[] = {"a a"};
    struct qn_err err = {0};
    tiny_open(w);
    tiny_kv_str(w, "tokenizer.ggml.model", "gpt2");
    tiny_kv_str(w, "tokenizer.ggml.pre", "gpt-2");
    tiny_kv_array(w, "tokenizer.ggml.tokens", TINY_STR, N_TOKENS);
    for (unsigned i = 0; i < 256; i++) {
        char s[8];
        tiny_text(w, s, tiny_letter(i, s));
    }
    for (int i = 0; i < N_WORDS; i++) tiny_text(w, words[i], strlen(words[i]));
    for (int i = 0; i < 3; i++) tiny_text(w, specials[i], strlen(specials[i]));
    tiny_kv_array(w, "tokenizer.ggml.token_type", TINY_I32, N_TOKENS);
    for (int i = 0; i < N_TOKENS; i++) tiny_u32(w, i < N_TOKENS - 3 ? 1 : 3);
    tiny_strs(w, "tokenizer.ggml.merges", merges, 1);
    tiny_kv_u32(w, "tokenizer.ggml.eos_token_id", N_TOKENS - 2);
    tiny_close(w);
    CHECK(qn_gguf_parse(&vocab.g, w->p, w->n, &err) == 0 && qn_tokenizer_open(&vocab.t, vocab.g, &err) == 0);
    CHECK(qn_token_trie_open(&vocab.trie, vocab.t, &err) == 0);
}

struct reader {
    const uint8_t *p;
    size_t n;
};
static uint8_t next(struct reader *r) { return r->n ? (r->n--, *r->p++) : 0; }

/* A stack machine: operands are what lies on top. */
static qn_gnode build(struct qn_grammar *g, struct reader *r) {
    qn_gnode st[STACK] = {QN_G_EMPTY}, rule[RULES];
    unsigned at = 1;
    for (int i = 0; i < RULES; i++) rule[i] = qn_g_rule(g);
    uint8_t kind = next(r);
    for (unsigned ops = next(r), k = 0; k < ops && r->n; k++) {
        uint8_t op = next(r) % 14, x = next(r);
        if (kind % 8 && (kind % 2 ? op == 6 || op == 7 : op == 4 || op == 5)) op -= 4; /* both at once are refused: mostly one or the other */
        qn_gnode a = st[at - 1], b = at > 1 ? st[at - 2] : QN_G_EMPTY, out;
        int takes = 1;
        switch (op) {
        case 0: out = qn_g_cat(g, b, a); takes = 2; break;
        case 1: out = qn_g_alt(g, b, a); takes = 2; break;
        case 2: out = qn_g_repeat(g, a, x & 3u, x & 4 ? QN_G_INF : (x & 3u) + (x >> 4)); break;
        case 3: out = qn_g_repeat(g, a, x, 40u * x); break;
        case 4: out = qn_g_and(g, b, a); takes = 2; break;
        case 5: out = qn_g_not(g, a); break;
        case 6: out = rule[x % RULES]; takes = 0; break;
        case 7: out = qn_g_token(g, x % 2 ? N_TOKENS - 3 : x); takes = 0; break;
        case 8: out = qn_g_bytes(g, words[x % N_WORDS], strlen(words[x % N_WORDS])); takes = 0; break;
        case 9: out = qn_g_chars(g, &(struct qn_codes){x, x + 16u * next(r)}, 1); takes = 0; break;
        case 10: out = qn_g_text(g); takes = 0; break;
        case 11: out = a; takes = 0; break; /* twice */
        case 12: out = qn_g_alt_n(g, st, at); break;
        default: out = qn_g_bytes(g, (char[]){(char)('a' + x % 3)}, 1); takes = 0; break;
        }
        at -= (unsigned)takes < at ? (unsigned)takes : at;
        if (at == STACK) at--;
        st[at++] = out;
    }
    for (unsigned i = 0; i < RULES; i++) qn_g_rule_set(g, rule[i], st[i < at ? i : at - 1]);
    return st[at - 1];
}

static void check_mask(struct qn_constraint *c, qn_cstate s) {
    uint32_t mask[(N_TOKENS + 31) / 32], n = qn_constraint_mask(c, s, mask);
    for (uint32_t id = 0; id < N_TOKENS && !qn_constraint_failed(c); id++) {
        int may = qn_constraint_token(c, s, id) != QN_C_DEAD;
        if (!qn_constraint_failed(c)) CHECK((mask[id / 32] >> (id % 32) & 1) == (uint32_t)may);
        n -= (uint32_t)may;
    }
    CHECK(n == 0 || qn_constraint_failed(c));
}

static void check_state(struct qn_constraint *c, qn_cstate s) {
    char only[4];
    size_t n = qn_constraint_forced(c, s, only, 1);
    int over = qn_constraint_over(c, s), ways = 0;
    for (unsigned b = 0; b < 256; b++) {
        int alive = qn_constraint_text(c, s, (char[]){(char)b}, 1) != QN_C_DEAD;
        ways += alive;
        if (n && !qn_constraint_failed(c)) CHECK(alive == (b == (unsigned char)only[0]));
    }
    CHECK(!(over && ways));
    CHECK(!over || qn_constraint_accepts(c, s) || qn_constraint_failed(c));
    check_mask(c, s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct qn_grammar *g;
    struct qn_constraint *c = NULL;
    struct qn_constraint_counts k;
    struct reader r = {data, n};
    if (!vocab.trie) open_vocab();
    CHECK(qn_grammar_new(&g, &(struct qn_grammar_limits){.bytes_max = BYTES_MAX, .compile_ns = 50 * QN_MS}) == 0);
    qn_gnode root = build(g, &r);
    int rc = qn_grammar_error(g);
    CHECK(rc == 0 || rc == QN_E_LIMIT || rc == QN_E_UNSUPPORTED);
    rc = qn_constraint_new(&c, g, root, vocab.trie, NULL);
    CHECK(rc == 0 || rc == QN_E_LIMIT || rc == QN_E_UNSUPPORTED || rc == QN_E_DATA);
    if (rc < 0) return 0;
    qn_cstate s = qn_constraint_start(c);
    for (int i = 0; i < 24 && s != QN_C_DEAD; i++) {
        if (i % 4 == 0) check_state(c, s);
        s = qn_constraint_text(c, s, (char[]){(char)next(&r)}, 1);
    }
    qn_constraint_counts(c, &k);
    CHECK(k.bytes <= BYTES_MAX);
    CHECK(qn_constraint_failed(c) == 0 || qn_constraint_failed(c) == QN_E_LIMIT);
    qn_constraint_unref(c);
    return 0;
}
