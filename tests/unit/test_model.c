/* Descriptions of real files against their models' published configurations, and models broken in one place: each is
 * refused with a message that names the key or the tensor, what it has and what was wanted. */
#include "engine/model.h"

#include <unistd.h>

#include "tests/lib/engine_client.h"
#include "tests/run.h"

/* config.json of HuggingFaceTB/SmolLM2-135M-Instruct, Qwen/Qwen2.5-Coder-0.5B-Instruct and google/gemma-3-270m. */
static const struct { const char *file, *arch; int layers, heads, kv, hd, d, ff, vocab, ctx; double eps, base; int tied; } real[] = {
    {"smollm2-135m-instruct-q4_1", "llama", 30, 9, 3, 64, 576, 1536, 49152, 8192, 1e-5, 100000, 1},
    {"qwen2.5-coder-0.5b-instruct-q4_k_m", "qwen2", 24, 14, 2, 64, 896, 4864, 151936, 32768, 1e-6, 1000000, 0 /* this file unties */},
    {"gemma-3-270m-q4_k_m", "gemma3", 18, 4, 1, 256, 640, 2048, 262144, 32768, 1e-6, 1000000, 1},
};

TEST(model, real_files_are_described_as_their_configurations_say) {
    for (int i = 0; i < 3; i++) {
        struct qn_model *m = NULL;
        struct qn_err err = {0};
        const char *path = client_model(real[i].file);
        ASSERT(path != NULL);
        int rc = qn_model_open(&m, path, &err);
        if (rc < 0) qn_test_fail(__FILE__, __LINE__, "%s", err.text);
        ASSERT_EQ(rc, 0);
        const struct qn_model_desc *d = &m->desc;
        EXPECT_STR(d->arch, real[i].arch);
        EXPECT(d->name[0] != 0);
        EXPECT(d->n_layers == real[i].layers && d->n_heads == real[i].heads && d->n_kv_heads == real[i].kv && d->head_dim == real[i].hd);
        EXPECT(d->d_model == real[i].d && d->d_ff == real[i].ff && d->n_vocab == real[i].vocab && d->n_ctx_train == real[i].ctx);
        EXPECT(d->rope_dim == real[i].hd && d->embed_scale == (i == 2 ? sqrtf(640) : 1));
        EXPECT_NEAR(d->norm_eps, real[i].eps, 1e-12);
        EXPECT_NEAR(d->attn_scale, 1 / sqrt(real[i].hd), 1e-9);
        EXPECT_NEAR(d->inv_freq[0][1], pow(real[i].base, -2.0 / real[i].hd), 1e-7);
        EXPECT_EQ(d->rope_kind, i == 0 ? QN_ROPE_NORM : QN_ROPE_NEOX);
        EXPECT_EQ(m->output == NULL, real[i].tied);
        EXPECT_EQ(m->layers[0].bq != NULL, i == 1);
        EXPECT_EQ(m->layers[0].q_norm != NULL && m->layers[0].ffn_post_norm != NULL, i == 2);
        for (int l = 0; l < d->n_layers; l++) { /* five local layers to a global one */
            int local = i == 2 && l % 6 != 5;
            EXPECT_EQ(d->window[l], local ? 512 : 0);
            EXPECT_EQ(d->rope_set[l], local);
        }
        if (i == 2) EXPECT_NEAR(d->inv_freq[1][1], pow(10000, -2.0 / 256), 1e-7);
        qn_model_close(m);
    }
}

/* Overwrites bytes after the first place where `at` stands in the file. */
struct broken {
    const char *file, *at;
    int skip;               /* from the end of `at` */
    const char *bytes;
    size_t n;
    int code;
    const char *says;
};
#define U32(v) ((const char[]){(char)((v) & 255), (char)((v) >> 8 & 255), (char)((v) >> 16 & 255), (char)((v) >> 24 & 255)}), 4
#define KEY 4               /* over the value's type */
static const struct broken broken[] = {
    {"llama", "general.architectur", 0, "X", 1, QN_E_DATA, "key general.architecture is missing"},
    {"llama", "general.architecture", KEY + 8, "mamba", 5, QN_E_UNSUPPORTED, "architecture 'mamba' is not one we know (llama, qwen2, qwen3, gemma3)"},
    {"llama", "general.architecture", KEY + 8, "a\nb\x1b\xff", 5, QN_E_UNSUPPORTED, "architecture 'a?b?\?'"},
    {"llama", "general.architecture", KEY + 8, "qwen2", 5, QN_E_DATA, "key qwen2.block_count is missing"},
    {"llama", "llama.block_coun", 0, "X", 1, QN_E_DATA, "key llama.block_count is missing"},
    {"llama", "llama.block_count", KEY, U32(0), QN_E_DATA, "key llama.block_count is 0: 1..512"},
    {"llama", "llama.block_count", KEY, U32(513), QN_E_DATA, "key llama.block_count is 513"},
    {"llama", "llama.block_count", KEY, U32(0xFFFFFFFFu), QN_E_DATA, "key llama.block_count is 4294967295"},
    {"llama", "llama.block_count", 0, U32(6), QN_E_DATA, "key llama.block_count is not an integer"},
    {"llama", "llama.block_count", KEY, U32(3), QN_E_DATA, "tensor blk.2.attn_norm.weight is missing"},
    {"llama", "llama.block_count", KEY, U32(1), QN_E_UNSUPPORTED, "tensor blk.1."},
    {"llama", "llama.embedding_length", KEY, U32(0), QN_E_DATA, "key llama.embedding_length is 0"},
    {"llama", "llama.embedding_length", KEY, U32(64), QN_E_DATA, "tensor token_embd.weight is [32, 288] in 2 dimensions, wanted [64, 288]"},
    {"llama", "llama.embedding_length", KEY, U32(1u << 31), QN_E_DATA, "key llama.embedding_length is 2147483648"},
    {"llama", "llama.feed_forward_length", KEY, U32(0), QN_E_DATA, "key llama.feed_forward_length is 0"},
    {"llama", "llama.feed_forward_length", KEY, U32(96), QN_E_DATA, "ffn_gate.weight is [32, 64] in 2 dimensions, wanted [32, 96]"},
    {"llama", "llama.attention.head_count", KEY, U32(0), QN_E_DATA, "key llama.attention.head_count is 0"},
    {"llama", "llama.attention.head_count", KEY, U32(4097), QN_E_DATA, "key llama.attention.head_count is 4097: 1..4096"},
    {"llama", "llama.attention.head_count", KEY, U32(3), QN_E_DATA, "attn_q.weight is [32, 32] in 2 dimensions, wanted [32, 48]"},
    {"llama", "llama.attention.head_count_kv", KEY, U32(0), QN_E_DATA, "key llama.attention.head_count_kv is 0"},
    {"llama", "llama.attention.head_count_kv", KEY, U32(3), QN_E_DATA, "2 heads do not divide over 3 KV heads"},
    {"llama", "llama.attention.head_count_kv", KEY, U32(2), QN_E_DATA, "attn_k.weight is [32, 16] in 2 dimensions, wanted [32, 32]"},
    {"llama", "llama.attention.key_length", KEY, U32(0), QN_E_DATA, "key llama.attention.key_length is 0"},
    {"llama", "llama.attention.key_length", KEY, U32(1025), QN_E_DATA, "key llama.attention.key_length is 1025: 1..1024"},
    {"llama", "llama.attention.value_length", KEY, U32(8), QN_E_UNSUPPORTED, "keys of 16 and values of 8 elements a head"},
    {"llama", "llama.rope.dimension_count", KEY, U32(0), QN_E_DATA, "key llama.rope.dimension_count is 0"},
    {"llama", "llama.rope.dimension_count", KEY, U32(15), QN_E_DATA, "rope.dimension_count 15 is odd"},
    {"llama", "llama.rope.dimension_count", KEY, U32(18), QN_E_DATA, "key llama.rope.dimension_count is 18: 2..16"},
    {"llama", "llama.context_length", KEY, U32(0), QN_E_DATA, "key llama.context_length is 0"},
    {"llama", "llama.context_length", KEY, U32(0x7FFFFFFF), QN_E_DATA, "key llama.context_length is 2147483647"},
    {"llama", "layer_norm_rms_epsilon", KEY, U32(0x7FC00000), QN_E_DATA, "layer_norm_rms_epsilon is nan"},
    {"llama", "layer_norm_rms_epsilon", KEY, U32(0xBF800000u), QN_E_DATA, "layer_norm_rms_epsilon is -1"},
    {"llama", "layer_norm_rms_epsilon", 0, U32(4), QN_E_DATA, "layer_norm_rms_epsilon is not a number"},
    {"llama", "llama.rope.freq_base", KEY, U32(0), QN_E_DATA, "key llama.rope.freq_base is 0"},
    {"llama", "llama.rope.freq_base", KEY, U32(0x7F800000), QN_E_DATA, "key llama.rope.freq_base is inf"},
    {"llama-linear", "llama.rope.scaling.factor", KEY, U32(0xC0000000u), QN_E_DATA, "key llama.rope.scaling.factor is -2"},
    {"llama-linear", "llama.rope.scaling.type", KEY + 8, "dynami", 6, QN_E_UNSUPPORTED, "key llama.rope.scaling.type is not none, linear or yarn"},
    {"qwen2-yarn", "original_context_length", KEY, U32(0), QN_E_DATA, "key qwen2.rope.scaling.original_context_length is 0"},
    {"llama3", "rope_freqs.weight", 4, U32(4), QN_E_DATA, "tensor rope_freqs.weight is F32 [4] in 1 dimensions, wanted F32 [8]"},
    {"gemma3", "gemma3.attention.sliding_window_pattern", KEY, U32(0), QN_E_DATA, "sliding_window_pattern is 0"},
    {"llama", "token_embd.weigh", 0, "X", 1, QN_E_DATA, "tensor token_embd.weight is missing"},
    {"llama", "output_norm.weigh", 0, "X", 1, QN_E_DATA, "tensor output_norm.weight is missing"},
    {"llama", "blk.1.ffn_down.weigh", 0, "X", 1, QN_E_DATA, "tensor blk.1.ffn_down.weight is missing"},
    {"llama", "blk.0.attn_norm.weight", 4, U32(16), QN_E_DATA, "tensor blk.0.attn_norm.weight has 16 elements in 1 dimensions, wanted [32]"},
    {"qwen2", "blk.0.attn_q.bia", 0, "X", 1, QN_E_DATA, "tensor blk.0.attn_q.bias is missing"},
    {"qwen3", "blk.1.attn_k_norm.weigh", 0, "X", 1, QN_E_DATA, "tensor blk.1.attn_k_norm.weight is missing"},
    {"gemma3", "blk.5.post_ffw_norm.weigh", 0, "X", 1, QN_E_DATA, "tensor blk.5.post_ffw_norm.weight is missing"},
    {"llama3", "rope_freqs.weigh", 0, "X", 1, QN_E_UNSUPPORTED, "tensor rope_freqs.weighX is not one that a llama model has"},
};

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    char *p = malloc(1 << 20);
    ASSERT(f && p);
    *n = fread(p, 1, 1 << 20, f);
    fclose(f);
    return p;
}

/* Writes the bytes to a file of its own and opens that. */
static int open_bytes(const char *p, size_t n, struct qn_model **m, struct qn_err *err) {
    char path[] = "/tmp/quern-model-XXXXXX";
    int fd = mkstemp(path);
    ASSERT(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
    int rc = qn_model_open(m, path, err);
    unlink(path);
    return rc;
}

TEST(model, what_does_not_fit_is_refused_by_name) {
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const struct broken *b = &broken[i];
        char path[128];
        size_t n;
        struct qn_model *m = NULL;
        struct qn_err err = {0};
        snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", b->file);
        char *p = slurp(path, &n), *at = memmem(p, n, b->at, strlen(b->at));
        if (!at) qn_test_fail(__FILE__, __LINE__, "%s has no '%s'", path, b->at);
        ASSERT(at != NULL);
        memcpy(at + strlen(b->at) + b->skip, b->bytes, b->n);
        int rc = open_bytes(p, n, &m, &err);
        if (rc != b->code || m || !strstr(err.text, b->says))
            qn_test_fail(__FILE__, __LINE__, "row %zu (%s, %s): code %d, \"%s\", wanted %d, \"%s\"", i, b->file, b->at, rc, err.text, b->code, b->says);
        EXPECT(!strncmp(err.text, "model file '/tmp/quern-model-", 29));
        free(p);
    }
}

/* Whatever the header says after a careless or hostile edit, opening ends with a model or a message. */
TEST(model, edited_headers_end_in_a_model_or_a_message) {
    static const uint32_t odd[] = {0, 1, 2, 3, 7, 31, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu, 0x10000};
    static const char *const files[] = {"gemma3", "llama3", "qwen2-yarn"};
    int opened = 0, refused = 0;
    for (int k = 0; k < 3; k++) {
        char path[128];
        size_t n;
        snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", files[k]);
        char *p = slurp(path, &n), *end = memmem(p, n, "tokenizer.ggml.model", 20);
        ASSERT(end != NULL);
        for (char *at = p + 24; at + 4 < end; at += 3) {
            char keep[4];
            uint32_t v = odd[(size_t)(at - p) / 3 % (sizeof odd / sizeof *odd)];
            struct qn_model *m = NULL;
            struct qn_err err = {0};
            memcpy(keep, at, 4);
            memcpy(at, &v, 4);
            int rc = open_bytes(p, n, &m, &err);
            memcpy(at, keep, 4);
            if (rc == 0) {
                opened++;
                qn_model_close(m);
            } else {
                refused++;
                EXPECT(!m && err.text[0]);
            }
        }
        free(p);
    }
    EXPECT(opened > 0 && refused > 100);
}
