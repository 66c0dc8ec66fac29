/* Tokenizers against what others computed (tests/vectors/tokenizer/make.py; the .inp/.out files of llama.cpp) and against
 * what they promise: round trips, no control tokens from outside, linear time. Needs the fetched vocabularies. */
#include "engine/pretok.h"
#include "engine/tokenizer.h"
#include "engine/unicode.h"
#include "tests/run.h"

#include <jansson.h>
#include <pthread.h>
#include <time.h>

#define VECTORS "tests/vectors/tokenizer/"

static const char *cache_path(const char *what, const char *name, const char *suffix) {
    static char path[1024];
    const char *root = getenv("QUERN_CACHE"), *home = getenv("HOME");
    char fallback[512];
    snprintf(fallback, sizeof fallback, "%s/.cache/quern", home ? home : "");
    snprintf(path, sizeof path, "%s/%s%s%s", root && *root ? root : fallback, what, name, suffix);
    return path;
}
#define VOCAB(name, suffix) cache_path("vectors/llama.cpp-0.3.36/models/ggml-vocab-", name, suffix)

struct file {
    struct qn_gguf *g;
    struct qn_tokenizer *t;
};

static struct file open_file(const char *path) {
    struct file f = {0};
    struct qn_err err = {0};
    if (qn_gguf_open(&f.g, path, &err) < 0 || qn_tokenizer_open(&f.t, f.g, &err) < 0) {
        qn_test_fail(__FILE__, __LINE__, "%s: %s (scripts/fetch-model.sh and scripts/fetch-vectors.sh fetch what is missing)",
                     path, err.text);
        qn_test_stop();
    }
    return f;
}
static void close_file(struct file f) {
    qn_tokenizer_close(f.t);
    qn_gguf_close(f.g);
}

/* Files by the name of their vectors. */
static const char *const names[] = {"smollm2", "qwen2.5", "gemma-3", "gemma-4", "llama-spm", "llama-bpe", "gpt-2", "deepseek-llm",
                                    "deepseek-coder", "falcon", "starcoder", "refact", "command-r", "mpt", "qwen35", "phi-3"};
enum { N_NAMES = sizeof names / sizeof *names };

static struct file open_name(const char *name) {
    if (!strcmp(name, "smollm2")) return open_file(cache_path("models/", "smollm2-135m-instruct-q4_1", ".gguf"));
    if (!strcmp(name, "qwen2.5")) return open_file(cache_path("models/", "qwen2.5-coder-0.5b-instruct-q4_k_m", ".gguf"));
    if (!strcmp(name, "gemma-3")) return open_file(cache_path("models/", "gemma-3-270m-q4_k_m", ".gguf"));
    return open_file(VOCAB(name, ".gguf"));
}

static struct qn_ids encode_trusted(const struct qn_tokenizer *t, const char *p, size_t n, const struct qn_range *r, size_t n_r) {
    struct qn_ids ids = {0};
    struct qn_err err = {0};
    struct qn_text text = {p, n, r, n_r};
    if (qn_tokenizer_encode(t, &text, 0, 0, &ids, &err) < 0) {
        qn_test_fail(__FILE__, __LINE__, "encode: %s", err.text);
        qn_test_stop();
    }
    return ids;
}
static struct qn_ids encode(const struct qn_tokenizer *t, const char *p, size_t n) { return encode_trusted(t, p, n, NULL, 0); }

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        qn_test_fail(__FILE__, __LINE__, "%s is missing (scripts/fetch-vectors.sh)", path);
        qn_test_stop();
    }
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    ASSERT(p && fread(p, 1, *n, f) == *n);
    p[*n] = 0;
    fclose(f);
    return p;
}

/* Compares with a line of decimal ids and moves *line behind it. */
static void want_ids(const char *what, long which, struct qn_ids got, char **line) {
    size_t i = 0;
    int bad = 0;
    for (; **line && **line != '\n';) {
        char *end;
        unsigned long id = strtoul(*line, &end, 10);
        if (end == *line) { /* a blank at the end */
            (*line)++;
            continue;
        }
        bad |= i >= got.n || got.v[i] != id;
        i++;
        *line = end;
    }
    if (**line == '\n') (*line)++;
    if (bad || i != got.n)
        qn_test_fail(__FILE__, __LINE__, "%s: text %ld: %zu ids instead of %zu, or others", what, which, got.n, i);
    free(got.v);
}

static void check_llama_vectors(const char *name) {
    static const char gap[] = "\n__ggml_vocab_test__\n";
    size_t n, n_out;
    char *in = slurp(VOCAB(name, ".gguf.inp"), &n), *out = slurp(VOCAB(name, ".gguf.out"), &n_out), *line = out;
    struct file f = open_name(name);
    long count = 0;
    for (const char *p = in; p < in + n; count++) {
        const char *end = memmem(p, (size_t)(in + n - p), gap, strlen(gap));
        size_t len = (size_t)((end ? end : in + n) - p);
        want_ids(name, count, encode(f.t, p, len), &line);
        p += len + strlen(gap);
    }
    EXPECT(count >= 46);
    EXPECT_EQ(line - out, n_out);
    free(in);
    free(out);
    close_file(f);
}

/* llama.cpp's own vectors, which Hugging Face's tokenizers made. */
#define LLAMA(id, name) TEST(tokenizer, llama_vectors_##id) { check_llama_vectors(name); }
LLAMA(command_r, "command-r")
LLAMA(deepseek_coder, "deepseek-coder")
LLAMA(deepseek_llm, "deepseek-llm")
LLAMA(falcon, "falcon")
LLAMA(gemma_4, "gemma-4")
LLAMA(gpt_2, "gpt-2")
LLAMA(llama_bpe, "llama-bpe")
LLAMA(llama_spm, "llama-spm")
LLAMA(mpt, "mpt")
LLAMA(phi_3, "phi-3")
LLAMA(qwen2, "qwen2")
LLAMA(qwen35, "qwen35")
LLAMA(refact, "refact")
LLAMA(starcoder, "starcoder")

/* Our 920 hostile texts. */
struct texts {
    size_t n;
    json_t **v;
};
static struct texts texts(void) {
    struct texts x = {0, calloc(4096, sizeof *x.v)};
    size_t n;
    char *p = slurp(VECTORS "texts.jsonl", &n);
    for (char *line = p, *next; (next = strchr(line, '\n')); line = next + 1) {
        ASSERT(x.n < 4096 && x.v != NULL);
        x.v[x.n] = json_loadb(line, (size_t)(next - line), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        ASSERT(json_is_string(x.v[x.n]));
        x.n++;
    }
    free(p);
    ASSERT(x.n >= 500);
    return x;
}
static void texts_done(struct texts x) {
    for (size_t i = 0; i < x.n; i++) json_decref(x.v[i]);
    free(x.v);
}

static void check_hostile(const char *name) {
    char path[256];
    size_t n;
    snprintf(path, sizeof path, VECTORS "%s.ids", name);
    char *want = slurp(path, &n), *line = want;
    struct texts x = texts();
    struct file f = open_name(name);
    for (size_t i = 0; i < x.n; i++)
        want_ids(name, (long)i, encode(f.t, json_string_value(x.v[i]), json_string_length(x.v[i])), &line);
    EXPECT_EQ(line - want, n);
    free(want);
    texts_done(x);
    close_file(f);
}
#define HOSTILE(id, name) TEST(tokenizer, hostile_unicode_##id) { check_hostile(name); }
HOSTILE(smollm2, "smollm2")
HOSTILE(qwen25, "qwen2.5")
HOSTILE(gemma_3, "gemma-3")
HOSTILE(gemma_4, "gemma-4")
HOSTILE(llama_spm, "llama-spm")
HOSTILE(llama_bpe, "llama-bpe")
HOSTILE(gpt_2, "gpt-2")
HOSTILE(deepseek_llm, "deepseek-llm")
HOSTILE(deepseek_coder, "deepseek-coder")
HOSTILE(falcon, "falcon")
HOSTILE(starcoder, "starcoder")
HOSTILE(refact, "refact")
HOSTILE(command_r, "command-r")
HOSTILE(mpt, "mpt")
HOSTILE(qwen35, "qwen35")

struct cuts {
    char said[65536];
    size_t n;
};
static int on_piece(void *ctx, const char *p, size_t n) {
    struct cuts *c = ctx;
    (void)p;
    c->n += (size_t)snprintf(c->said + c->n, sizeof c->said - c->n, "%s%zu", c->n ? " " : "", n);
    return 0;
}

/* Pre-tokenizers by themselves, also those that no fetched vocabulary uses. */
TEST(tokenizer, words_are_cut_where_the_reference_cuts) {
    static struct cuts c;
    size_t n, i = 0, rows = 0;
    char *want = slurp(VECTORS "split.tsv", &n);
    struct texts x = texts();
    for (char *line = want, *next; (next = strchr(line, '\n')); line = next + 1, i++, rows++) {
        char *tab = memchr(line, '\t', (size_t)(next - line));
        ASSERT(tab != NULL);
        const struct qn_pretok *pre = qn_pretok_find(line, (size_t)(tab - line));
        ASSERT(pre != NULL);
        const char *t = json_string_value(x.v[i % x.n]);
        c.n = 0;
        c.said[0] = *next = 0;
        EXPECT_EQ(qn_pretok_split(pre, t, json_string_length(x.v[i % x.n]), on_piece, &c), 0);
        if (strcmp(c.said, tab + 1))
            qn_test_fail(__FILE__, __LINE__, "%s: text %zu: '%.200s' instead of '%.200s'", pre->name, i % x.n, c.said, tab + 1);
    }
    EXPECT(rows >= 10 * x.n);
    free(want);
    texts_done(x);
}

/* Concatenated pieces; the caller frees p. */
static char *decode(const struct qn_tokenizer *t, struct qn_ids ids, size_t *n) {
    char *p = malloc(ids.n * qn_tokenizer_piece_max(t) + 1);
    size_t o = 0, len;
    ASSERT(p != NULL);
    for (size_t i = 0; i < ids.n; i++) {
        const char *piece = qn_tokenizer_piece(t, ids.v[i], &len);
        ASSERT(len <= qn_tokenizer_piece_max(t));
        memcpy(p + o, piece, len);
        o += len;
    }
    *n = o;
    return p;
}

/* What a model's own normalisation leaves of a text, so that the rest must come back byte for byte. */
static char *normal_form(const char *name, const char *p, size_t n, size_t *out_n) {
    char *out;
    if (!strcmp(name, "qwen2.5") || !strcmp(name, "command-r") || !strcmp(name, "mpt")) {
        ASSERT_EQ(qn_uni_nfc(p, n, &out, out_n), 0);
        return out;
    }
    out = malloc(n + 1);
    ASSERT(out != NULL);
    *out_n = 0;
    int spaced = !strncmp(name, "gemma", 5) || !strcmp(name, "llama-spm") || !strcmp(name, "phi-3");
    for (size_t i = 0; i < n; i++) {
        if (spaced && n - i >= 3 && !memcmp(p + i, "\xE2\x96\x81", 3)) {
            out[(*out_n)++] = ' ';
            i += 2;
        } else {
            out[(*out_n)++] = p[i];
        }
    }
    return out;
}

TEST_SLOW(tokenizer, decoding_gives_the_text_back, 60) {
    struct texts x = texts();
    for (int k = 0; k < N_NAMES; k++) {
        struct file f = open_name(names[k]);
        int lacks[256] = {0}, checked = 0;
        for (int b = 0; b < 256; b++) { /* bytes that the vocabulary has no token for are left out, as in the reference */
            char c = (char)b;
            struct qn_ids one = encode(f.t, &c, 1);
            lacks[b] = one.n == 0;
            free(one.v);
        }
        for (size_t i = 0; i < x.n; i++) {
            size_t n, m;
            char *want = normal_form(names[k], json_string_value(x.v[i]), json_string_length(x.v[i]), &n);
            int skip = 0;
            for (size_t j = 0; j < n; j++) skip |= lacks[(unsigned char)want[j]];
            struct qn_ids ids = encode(f.t, json_string_value(x.v[i]), json_string_length(x.v[i]));
            char *got = decode(f.t, ids, &m);
            size_t strip = (size_t)qn_tokenizer_strips_space(f.t);
            if (m > 0 && strip && got[0] != ' ') strip = 0;
            if (m == 0) strip = 0;
            if (!skip && (m - strip != n || memcmp(got + strip, want, n)))
                qn_test_fail(__FILE__, __LINE__, "%s: text %zu comes back with %zu bytes instead of %zu, or others", names[k], i,
                             m - strip, n);
            checked += !skip;
            free(ids.v);
            free(got);
            free(want);
        }
        EXPECT(checked > 800);
        close_file(f);
    }
    texts_done(x);
}

static int is_control(const struct qn_tokenizer *t, uint32_t id) {
    return qn_tokenizer_kind(t, id) == QN_TOKEN_CONTROL || qn_tokenizer_kind(t, id) == QN_TOKEN_UNKNOWN ||
           qn_tokenizer_ends(t, id);
}
static int count_control(const struct qn_tokenizer *t, struct qn_ids ids) {
    int n = 0;
    for (size_t i = 0; i < ids.n; i++) n += is_control(t, ids.v[i]);
    free(ids.v);
    return n;
}

/* Every control spelling of every vocabulary: none of it from outside, whatever the border; all of it from a template,
 * also when two trusted ranges meet in its middle. */
TEST_SLOW(tokenizer, no_control_token_from_untrusted_text, 60) {
    for (int k = 0; k < N_NAMES; k++) {
        struct file f = open_name(names[k]);
        size_t cap = 1 << 20, n_all = 0, found = 0;
        char *all = malloc(cap);
        ASSERT(all != NULL);
        for (uint32_t id = 0; id < qn_tokenizer_n_vocab(f.t); id++) {
            size_t n;
            const char *p = qn_tokenizer_piece(f.t, id, &n);
            if (!is_control(f.t, id) || n == 0) continue;
            found++;
            ASSERT(n_all + n + 1 < cap);
            memcpy(all + n_all, p, n);
            n_all += n;
            for (size_t cut = 0; cut < n; cut += n > 40 ? 7 : 1) {
                struct qn_range head = {0, cut}, tail = {cut + 1, n}, both[2] = {{0, cut}, {cut, n}};
                if (count_control(f.t, encode_trusted(f.t, p, n, &head, 1)))
                    qn_test_fail(__FILE__, __LINE__, "%s: token %u from its trusted head of %zu bytes", names[k], id, cut);
                if (count_control(f.t, encode_trusted(f.t, p, n, &tail, 1)))
                    qn_test_fail(__FILE__, __LINE__, "%s: token %u from its trusted tail after %zu bytes", names[k], id, cut);
                struct qn_ids ids = encode_trusted(f.t, p, n, both, 2);
                if (ids.n != 1 || ids.v[0] != id)
                    qn_test_fail(__FILE__, __LINE__, "%s: token %u is not found when trusted", names[k], id);
                free(ids.v);
            }
            EXPECT_EQ(qn_tokenizer_find(f.t, p, n), id);
        }
        EXPECT(found > 0);
        EXPECT_EQ(count_control(f.t, encode(f.t, all, n_all)), 0);
        for (size_t step = 1; step <= 2; step++) { /* trusted and not in turns, so that no spelling is trusted as a whole */
            static struct qn_range r[1 << 19];
            size_t n = 0;
            for (size_t at = 0; at < n_all; at += 2 * step) r[n++] = (struct qn_range){at, at + step < n_all ? at + step : n_all};
            EXPECT_EQ(count_control(f.t, encode_trusted(f.t, all, n_all, r, n)), 0);
        }
        free(all);
        close_file(f);
    }
}

/* Markers that files list as added text, not as control tokens, are guarded all the same. */
TEST(tokenizer, markers_of_structure_are_guarded_whatever_their_kind) {
    static const struct { const char *name, *text; } rows[] = {
        {"qwen2.5", "<tool_call>"}, {"qwen2.5", "</tool_call>"}, {"command-r", "<|START_OF_TURN_TOKEN|>"},
        {"command-r", "<|SYSTEM_TOKEN|>"}, {"phi-3", "</s>"}, {"gemma-3", "<start_of_image>"}, {"gemma-4", "<|tool_call>"},
        {"gemma-4", "<channel|>"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct file f = open_name(rows[i].name);
        size_t n = strlen(rows[i].text);
        struct qn_range whole = {0, n};
        int64_t id = qn_tokenizer_find(f.t, rows[i].text, n);
        EXPECT(id >= 0);
        struct qn_ids no = encode(f.t, rows[i].text, n), yes = encode_trusted(f.t, rows[i].text, n, &whole, 1);
        EXPECT(no.n > 1);
        EXPECT(yes.n == 1 && yes.v[0] == id);
        free(no.v);
        free(yes.v);
        close_file(f);
    }
    struct file f = open_name("gemma-3"); /* and what is text stays text everywhere */
    static const char *const kept[] = {"<table>", "</s>", "\n\n\n", "        ", "[multimodal]"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        struct qn_ids ids = encode(f.t, kept[i], strlen(kept[i]));
        EXPECT_EQ(ids.n, 1);
        free(ids.v);
    }
    EXPECT_EQ(qn_tokenizer_ends(f.t, (uint32_t)qn_tokenizer_find(f.t, "</s>", 4)), 0);
    close_file(f);
    f = open_name("qwen2.5"); /* an ordinary token there, which no key and no kind makes special */
    EXPECT_EQ(qn_tokenizer_find(f.t, "</s>", 4), -1);
    EXPECT_EQ(qn_tokenizer_ends(f.t, 128247), 0);
    close_file(f);
}

TEST(tokenizer, borders_of_trust_do_not_cut_text) {
    struct texts x = texts();
    static const char *const some[] = {"smollm2", "qwen2.5", "gemma-3", "llama-spm"};
    for (size_t k = 0; k < sizeof some / sizeof *some; k++) {
        struct file f = open_name(some[k]);
        for (size_t i = 0; i < x.n; i++) {
            const char *p = json_string_value(x.v[i]);
            size_t n = json_string_length(x.v[i]);
            struct qn_range r[3] = {{n / 7, n / 3}, {n / 2, n / 2 + n / 5}, {n - n / 9, n}};
            struct qn_ids a = encode(f.t, p, n), b = encode_trusted(f.t, p, n, r, 3);
            EXPECT(a.n == b.n && (a.n == 0 || !memcmp(a.v, b.v, a.n * sizeof *a.v)));
            free(a.v);
            free(b.v);
        }
        close_file(f);
    }
    texts_done(x);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* clang-format off */
static const char *const unit[] = {
    "a", " ", "\n", "<", "\xCC\x81", "9", "'", "\xE2\x96\x81", "<|im_", "ab", "\xF0\x9F\x91\xA9\xE2\x80\x8D",
    "\xFF", "\xE4\xBD\xA0", "\t ", "A", ".", " \n", "\xCC\x81\xCC\x96", "\xEF\xB7\xBA",
};
/* clang-format on */
enum { N_UNITS = sizeof unit / sizeof *unit + 1 };
/* n bytes of unit u over and over; the last "unit" is random letters without a space. */
static void repeat(char *p, size_t n, size_t u) {
    uint32_t s = 1;
    for (size_t i = 0; i < n; i++)
        p[i] = u < N_UNITS - 1 ? unit[u][i % strlen(unit[u])] : (char)('a' + ((s = s * 1664525 + 1013904223) >> 16) % 26);
}

/* A megabyte of whatever defeats words. What is quadratic takes minutes here; what is not takes 0.3 s on one busy core. */
TEST_SLOW(tokenizer, a_megabyte_of_anything_takes_no_time, 120) {
    enum { MB = 1 << 20 };
    static const char *const some[] = {"qwen2.5", "gemma-3"};
    char *p = malloc(MB);
    ASSERT(p != NULL);
    for (size_t k = 0; k < sizeof some / sizeof *some; k++) {
        struct file f = open_name(some[k]);
        for (size_t u = 0; u < N_UNITS; u++) {
            repeat(p, MB, u);
            double t0 = seconds();
            struct qn_ids ids = encode(f.t, p, MB);
            double took = seconds() - t0;
            if (took > 10) qn_test_fail(__FILE__, __LINE__, "%s: unit %zu: %.1f s", some[k], u, took);
            free(ids.v);
        }
        close_file(f);
    }
    free(p);
}

static int count_words(void *ctx, const char *p, size_t n) {
    (void)p;
    *(size_t *)ctx += n;
    return 0;
}
TEST_SLOW(tokenizer, every_pre_tokenizer_is_linear, 60) {
    enum { SIZE = 1 << 18 };
    char *p = malloc(SIZE), list[1024], *save = NULL;
    ASSERT(p != NULL);
    snprintf(list, sizeof list, "%s", qn_pretok_names());
    int rows = 0;
    for (char *name = strtok_r(list, ", ()", &save); name; name = strtok_r(NULL, ", ()", &save), rows++) {
        const struct qn_pretok *pre = qn_pretok_find(name, strlen(name)); /* so the list of names is right, too */
        ASSERT(pre != NULL);
        for (size_t u = 0; u < N_UNITS; u++) {
            size_t sum = 0;
            repeat(p, SIZE, u);
            double t0 = seconds();
            EXPECT_EQ(qn_pretok_split(pre, p, SIZE, count_words, &sum), 0);
            double took = seconds() - t0;
            EXPECT_EQ(sum, SIZE);
            if (took > 2) qn_test_fail(__FILE__, __LINE__, "%s: unit %zu: %.1f s", name, u, took);
        }
    }
    EXPECT(rows >= 20);
    free(p);
}

enum { N_THREADS = 4 };
static void *encode_all(void *arg) {
    const struct qn_tokenizer *t = arg;
    struct texts x = texts();
    size_t sum = 0;
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < x.n; i++) {
            struct qn_ids ids = encode(t, json_string_value(x.v[i]), json_string_length(x.v[i]));
            for (size_t k = 0; k < ids.n; k++) sum = sum * 31 + ids.v[k];
            free(ids.v);
        }
    texts_done(x);
    return (void *)sum;
}
/* What one thread learns about words (bpe.h, `whole`) another may read at once. */
TEST(tokenizer, threads_may_share_one) {
    static const char *const some[] = {"smollm2", "llama-spm"};
    for (size_t k = 0; k < sizeof some / sizeof *some; k++) {
        struct file f = open_name(some[k]);
        pthread_t th[N_THREADS];
        void *sum[N_THREADS];
        for (int i = 0; i < N_THREADS; i++) ASSERT_EQ(pthread_create(&th[i], NULL, encode_all, f.t), 0);
        for (int i = 0; i < N_THREADS; i++) ASSERT_EQ(pthread_join(th[i], &sum[i]), 0);
        for (int i = 1; i < N_THREADS; i++) EXPECT(sum[i] == sum[0]);
        close_file(f);
    }
}

TEST(tokenizer, limit_and_one_more) {
    struct file f = open_name("smollm2");
    struct qn_text text = {"one two three four", 18, NULL, 0};
    struct qn_ids ids = {0};
    struct qn_err err = {0};
    EXPECT_EQ(qn_tokenizer_encode(f.t, &text, 0, 4, &ids, &err), 0);
    EXPECT_EQ(ids.n, 4);
    EXPECT_EQ(qn_tokenizer_encode(f.t, &text, 0, 7, &ids, &err), QN_E_LIMIT);
    EXPECT(strstr(err.text, "more than 7 tokens") != NULL);
    EXPECT(ids.n <= 7);
    free(ids.v);
    char *big = malloc(50 << 20);
    ASSERT(big != NULL);
    memset(big, 'x', 50 << 20);
    struct qn_text huge = {big, 50 << 20, NULL, 0};
    ids = (struct qn_ids){0};
    err = (struct qn_err){0};
    double t0 = seconds();
    EXPECT_EQ(qn_tokenizer_encode(f.t, &huge, 0, 2048, &ids, &err), QN_E_LIMIT); /* refused by its length alone */
    EXPECT(seconds() - t0 < 1);
    free(ids.v);
    free(big);
    close_file(f);
}

/* What the models' own configuration files say. */
TEST(tokenizer, special_tokens_of_known_models) {
    static const struct { const char *name; int64_t bos, eos; int adds_bos, strips; const char *ends[3]; } rows[] = {
        {"smollm2", 1, 2, 0, 0, {"<|im_end|>", "<|endoftext|>", NULL}},
        {"qwen2.5", 151643, 151645, 0, 0, {"<|im_end|>", "<|endoftext|>", NULL}},
        {"gemma-3", 2, 1, 1, 0, {"<eos>", "<end_of_turn>", NULL}},
        {"llama-bpe", 128000, 128001, 1, 0, {"<|end_of_text|>", "<|eot_id|>", NULL}},
        {"llama-spm", 1, 2, 1, 1, {"</s>", NULL}},
        {"phi-3", 1, 32000, 1, 1, {"<|end|>", "<|endoftext|>", NULL}},
        {"command-r", 5, 255001, 1, 0, {"<|END_OF_TURN_TOKEN|>", NULL}},
        {"gpt-2", 50256, 50256, 0, 0, {"<|endoftext|>", NULL}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct file f = open_name(rows[i].name);
        EXPECT_EQ(qn_tokenizer_bos(f.t), rows[i].bos);
        EXPECT_EQ(qn_tokenizer_eos(f.t), rows[i].eos);
        EXPECT_EQ(qn_tokenizer_adds_bos(f.t), rows[i].adds_bos);
        EXPECT_EQ(qn_tokenizer_adds_eos(f.t), 0);
        EXPECT_EQ(qn_tokenizer_strips_space(f.t), rows[i].strips);
        for (int e = 0; rows[i].ends[e]; e++) {
            int64_t id = qn_tokenizer_find(f.t, rows[i].ends[e], strlen(rows[i].ends[e]));
            EXPECT(id >= 0 && qn_tokenizer_ends(f.t, (uint32_t)id));
        }
        struct qn_ids ids = {0};
        struct qn_text text = {"hi", 2, NULL, 0};
        EXPECT_EQ(qn_tokenizer_encode(f.t, &text, QN_TOK_ADD_SPECIAL, 0, &ids, NULL), 0);
        EXPECT_EQ(ids.n > 0 && ids.v[0] == rows[i].bos, rows[i].adds_bos);
        free(ids.v);
        close_file(f);
    }
}
