/* The whole CUDA backend on the emulator, under the forward pass: tiny models of every family and SmolLM2 against the yardstick and the
 * CPU backend, bits that do not depend on the batch, captured steps, streams drained in other orders. Programs of this folder are
 * linked with the emulator; on a card `make gpu-check` links the same sources with the real runtime. */
#include <math.h>
#include <unistd.h>

#include "engine/cuda/cuda.h"
#include "tests/lib/engine_client.h"
#include "tests/lib/forcing.h"
#include "tests/run.h"
#ifdef QN_CUDA_EMU
#include "engine/cuda/emu/testing.h"
#endif

enum { CHUNK = 64, OUT = 32, TOKENS = 512, BLOCKS = TOKENS / QN_KV_BLOCK, TINY_ROWS = 60 };
enum kind { REF, CPU, CARD };

static const char *const families[] = {"llama", "llama3", "llama-linear", "qwen2", "qwen2-yarn", "qwen3", "gemma3"};
enum { N_FAMILIES = sizeof families / sizeof *families };

static enum qn_kv_type kv_type = QN_KV_F16; /* of what is opened next */

static struct forcing open_setup(const char *path, enum kind kind) {
    static const forcing_open_fn open[] = {[REF] = qn_cpu_ref_open, [CPU] = qn_cpu_open, [CARD] = qn_cuda_open};
    return forcing_open(path, open[kind],
                        &(struct qn_backend_opts){.n_threads = 1, .kv_blocks = BLOCKS, .kv_type = kv_type, .rows_max = CHUNK, .seqs_max = 40, .out_max = OUT, .n_ctx = TOKENS});
}

static const char *tiny(const char *family) {
    static char path[128];
    snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", family);
    return path;
}

static float *forced(const char *path, enum kind kind, const int32_t *ids, int n, int cut) {
    struct forcing s = open_setup(path, kind);
    float *out = malloc((size_t)n * (size_t)s.m->desc.n_vocab * sizeof *out);
    ASSERT(out != NULL);
    forcing_run(&s, ids, n, cut, forcing_keep, out);
    forcing_close(&s);
    return out;
}

static void some_ids(int32_t *ids, int n, int n_vocab) {
    for (int i = 0; i < n; i++) ids[i] = (i * 7919 + 11) % n_vocab;
}

static int32_t best_of(const float *l, int n) {
    int best = 0;
    for (int v = 1; v < n; v++)
        if (l[v] > l[best]) best = v;
    return best;
}

/* The greatest difference; NaN if there is one on either side. */
static double worst(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most)) most = d;
        if (isnan(d)) break;
    }
    return most;
}

/* --- against the yardstick ---------------------------------------------------------------------------------------- */

/* Both keep K and V in the same 16-bit type. On the card the rows that meet 16-bit weights are f16 with a power of two of their own: a
 * relative 2^-11 for each of some ten roundings a layer, in logits that reach 6. Were they independent, 6 * 2^-11 * sqrt(10 * 2 layers) =
 * 0.013 would be a deviation; three of them. A bf16 rounding of K or V that falls to the other side costs 2^-8. */
static void near_the_yardstick(enum qn_kv_type type, double tolerance) {
    int32_t ids[TINY_ROWS];
    kv_type = type;
    for (int i = 0; i < N_FAMILIES; i++) {
        some_ids(ids, TINY_ROWS, 288);
        float *want = forced(tiny(families[i]), REF, ids, TINY_ROWS, CHUNK), *got = forced(tiny(families[i]), CARD, ids, TINY_ROWS, CHUNK);
        double d = worst(want, got, TINY_ROWS * 288);
        printf("    %s: %.2g\n", families[i], d);
        EXPECT_NEAR(d, 0, tolerance);
        free(want);
        free(got);
    }
}
TEST_SLOW(backend, tiny_families_are_near_the_yardstick, 60) { near_the_yardstick(QN_KV_F16, 4e-2); }
TEST_SLOW(backend, and_with_bf16_keys_and_values, 60) { near_the_yardstick(QN_KV_BF16, 0.15); }

/* What the emulator computed when emulator.bin was written (QN_GOLDEN_WRITE=1 writes it anew): the last row of every family. A card
 * adds up within an mma in its own way and its 2^x is off by two ulp, so roundings to f16 fall to the other side now and then, as they
 * do when a kernel sums in another order: half of what the distance to the yardstick may be. */
TEST_SLOW(backend, logits_are_those_that_the_emulator_left, 60) {
    static float stored[N_FAMILIES][288], now[N_FAMILIES][288];
    const char *path = "tests/cuda/emulator.bin";
    int32_t ids[TINY_ROWS];
    some_ids(ids, TINY_ROWS, 288);
    for (int i = 0; i < N_FAMILIES; i++) {
        float *all = forced(tiny(families[i]), CARD, ids, TINY_ROWS, 25);
        memcpy(now[i], all + (TINY_ROWS - 1) * 288, sizeof now[i]);
        free(all);
    }
    if (getenv("QN_GOLDEN_WRITE")) {
        FILE *to = fopen(path, "wb");
        ASSERT(to && fwrite(now, sizeof now, 1, to) == 1 && fclose(to) == 0);
    }
    FILE *f = fopen(path, "rb");
    ASSERT(f && fread(stored, sizeof stored, 1, f) == 1);
    fclose(f);
    double d = worst(stored[0], now[0], N_FAMILIES * 288);
    printf("    %.2g from what was stored\n", d);
    EXPECT_NEAR(d, 0, 2e-2);
}

/* --- bits do not depend on the batch ------------------------------------------------------------------------------ */

static void cuts_keep_bits(const char *path, int n) {
    static const struct { int a, b, some; } cuts[] = {{1, 0, 0}, {1, 1, 0}, {1, 7, 0}, {3, 1, 0}, {7, 17, 1}, {16, 2, 1}, {31, 5, 0}, {30, 32, 1}, {2, 2, 1}};
    int32_t ids[TINY_ROWS];
    ASSERT(n <= TINY_ROWS);
    struct forcing s = open_setup(path, CARD);
    size_t count = (size_t)n * (size_t)s.m->desc.n_vocab;
    float *want = malloc(count * sizeof *want), *got = malloc(count * sizeof *got);
    ASSERT(want && got);
    some_ids(ids, n, s.m->desc.n_vocab);
    forcing_run(&s, ids, n, n < OUT ? n : OUT, forcing_keep, want);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        memcpy(got, want, count * sizeof *got); /* rows that nobody asks for */
        forcing_beside(&s, ids, n, cuts[i].a, cuts[i].b, cuts[i].some, got);
        if (memcmp(want, got, count * sizeof *got))
            qn_test_fail(__FILE__, __LINE__, "%s: %d rows beside %d differ by %.3g (%s wanted)", path, cuts[i].a, cuts[i].b, worst(want, got, count), cuts[i].some ? "some" : "all");
    }
    free(want);
    free(got);
    forcing_close(&s);
}

TEST_SLOW(backend, bits_do_not_depend_on_cuts_and_neighbours, 90) {
    for (int i = 0; i < N_FAMILIES; i++) cuts_keep_bits(tiny(families[i]), TINY_ROWS);
}

/* --- captured steps ----------------------------------------------------------------------------------------------- */

/* Decodes n_seqs sequences of different lengths together, greedily, `steps` tokens each; ids to out[steps][n_seqs]. */
static void decode(struct forcing *s, int n_seqs, int steps, int32_t *out) {
    static int32_t blocks[CHUNK][2];
    int32_t token[CHUNK], pos[CHUNK], rows[CHUNK];
    struct qn_batch_seq seqs[CHUNK];
    int n_vocab = s->m->desc.n_vocab;
    for (int i = 0; i < n_seqs; i++) {
        blocks[i][0] = i % BLOCKS;
        token[i] = (i * 31 + 7) % n_vocab, pos[i] = 0, rows[i] = i;
    }
    for (int t = 0; t < steps; t++) {
        for (int i = 0; i < n_seqs; i++) seqs[i] = (struct qn_batch_seq){.row0 = i, .n_rows = 1, .n_ctx = t + 1, .blocks = blocks[i]}, pos[i] = t;
        struct qn_batch b = {.n_rows = n_seqs, .n_seqs = n_seqs, .token = token, .pos = pos, .seqs = seqs, .n_out = n_seqs, .out_row = rows};
        qn_forward_step(s->f, &b);
        for (int r = 0; r < n_seqs; r += OUT) {
            int m = n_seqs - r < OUT ? n_seqs - r : OUT;
            const float *l = qn_forward_logits(s->f, rows + r, m);
            for (int i = 0; i < m; i++) token[r + i] = out[t * n_seqs + r + i] = best_of(l + (size_t)i * (size_t)n_vocab, n_vocab);
        }
    }
}

TEST_SLOW(backend, captured_steps_yield_what_direct_ones_yield, 60) {
    static const int sizes[] = {1, 2, 3, 5, 9, 17, 30, 2, 1};
    enum { STEPS = 6 };
    int32_t direct[STEPS * CHUNK], captured[STEPS * CHUNK];
    struct forcing s = open_setup(tiny("gemma3"), CARD);
    struct qn_cuda *c = qn_cuda_of(s.b);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        c->no_graphs = 1;
        uint64_t before = c->captures + c->replays;
        decode(&s, sizes[i], STEPS, direct);
        EXPECT_EQ(c->captures + c->replays, before);
        c->no_graphs = 0;
        decode(&s, sizes[i], STEPS, captured);
        EXPECT(c->captures + c->replays >= before + STEPS - 1); /* all but a bucket's first */
        EXPECT_MEM(captured, (size_t)(STEPS * sizes[i]) * sizeof *captured, direct, (size_t)(STEPS * sizes[i]) * sizeof *direct);
    }
    EXPECT(c->captures == 7 && c->replays == 9 * STEPS - 14); /* one a bucket of rows: 1 2 4 8 16 24 32 */
    printf("    %llu captured, %llu replayed\n", (unsigned long long)c->captures, (unsigned long long)c->replays);
    forcing_close(&s);
}

TEST(backend, a_new_pool_forgets_what_was_captured_for_the_old_one) {
    int32_t before[4], after[4];
    int got;
    struct forcing s = open_setup(tiny("llama"), CARD);
    struct qn_err err = {0};
    decode(&s, 1, 4, before);
    EXPECT_EQ(s.b->ops->kv_pool(s.b, 4, BLOCKS, &got, &err), 0);
    EXPECT(got >= 4 && got <= BLOCKS && s.b->opts.kv_blocks == got);
    EXPECT_EQ(qn_cuda_of(s.b)->n_graphs, 0);
    decode(&s, 1, 4, after);
    EXPECT_MEM(after, sizeof after, before, sizeof before);
    forcing_close(&s);
}

/* --- draws where the logits are ------------------------------------------------------------------------------------ */

/* Picks of every kind from the rows of one step: what the host's sampler draws from the same logits. Those with penalties are left. */
TEST_SLOW(backend, draws_are_the_hosts_draws, 60) {
    enum { N = 12, VOCAB = 280 }; /* fewer than rows of the matrix, as where that is padded */
    static float logits[N][288];
    int32_t ids[N], pos[N], rows[N], blocks[2] = {0, 1};
    struct forcing s = open_setup(tiny("llama"), CARD);
    some_ids(ids, N, VOCAB);
    for (int i = 0; i < N; i++) pos[i] = i, rows[i] = i;
    struct qn_batch_seq seq = {.n_rows = N, .n_ctx = N, .blocks = blocks};
    struct qn_batch b = {.n_rows = N, .n_seqs = 1, .token = ids, .pos = pos, .seqs = &seq, .n_out = N, .out_row = rows};
    qn_forward_step(s.f, &b);
    memcpy(logits, qn_forward_logits(s.f, rows, N), sizeof logits);

    static const struct qn_bias bias[] = {{5, 40.0f}, {6, 39.5f}, {7, -100.0f}};
    uint32_t ban[] = {(uint32_t)best_of(logits[3], VOCAB), 5};
    struct qn_sampling how[N];
    struct qn_backend_pick picks[N];
    struct qn_logprobs got[N], want;
    for (int i = 0; i < N; i++) {
        how[i] = (struct qn_sampling){.temperature = i % 2 ? 0.8f : 0, .top_p = i % 3 ? 1 : 0.7f, .top_k = i == 5 ? 4 : 0, .min_p = i == 7 ? 0.1f : 0, .repetition_penalty = 1, .seed = (uint64_t)i};
        picks[i] = (struct qn_backend_pick){.row = N - 1 - i, .given = i == 8 ? 17 : -1, .sampling = &how[i], .branch = (uint32_t)i % 3, .position = (uint32_t)(20 + i), .n_top = i % 4, .lp = i == 2 ? NULL : &got[i]};
    }
    how[4].bias = bias, how[4].n_bias = 3;
    picks[N - 1 - 3].ban = ban, picks[N - 1 - 3].n_ban = 2;
    how[10].presence_penalty = 0.5f;
    const float *left = qn_forward_sample(s.f, rows, N, VOCAB, picks, N);
    EXPECT(left && !memcmp(left, logits, sizeof logits)); /* for the one with a penalty */

    struct qn_sampler *host;
    ASSERT_EQ(qn_sampler_open(&host, VOCAB), 0);
    for (int i = 0; i < N; i++) {
        float own[288];
        struct qn_history h = {.tokens = ids, .n_prompt = N, .n = N};
        memcpy(own, logits[picks[i].row], sizeof own);
        EXPECT_EQ(picks[i].done, i != 10);
        if (!picks[i].done) continue;
        if (picks[i].given >= 0) qn_sampler_score(host, own, 17, picks[i].n_top, &want);
        else EXPECT_EQ(picks[i].id, qn_sampler_pick(host, &how[i], own, &h, picks[i].branch, picks[i].position, picks[i].ban, picks[i].n_ban, NULL, picks[i].n_top, &want));
        if (!picks[i].lp) continue;
        EXPECT_EQ(got[i].rank, want.rank);
        EXPECT_EQ(got[i].n_top, want.n_top);
        EXPECT_NEAR(got[i].logprob, want.logprob, 1e-6);
        for (uint32_t k = 0; k < want.n_top; k++) {
            EXPECT_EQ(got[i].top[k].id, want.top[k].id);
            EXPECT_NEAR(got[i].top[k].logprob, want.top[k].logprob, 1e-6);
        }
    }
    EXPECT(picks[4].id == 5 && picks[8].done);
    picks[10].sampling = &how[9];
    EXPECT(qn_forward_sample(s.f, rows, N, VOCAB, picks, N) == NULL); /* nobody needs the logits */
    qn_sampler_close(host);
    forcing_close(&s);
}

/* --- streams in other orders -------------------------------------------------------------------------------------- */

#ifdef QN_CUDA_EMU
/* What a program may count on is the order within a stream, events, and what it waited for. */
TEST_SLOW(backend, the_order_of_streams_does_not_matter, 60) {
    int32_t ids[TINY_ROWS], eager[4 * 9], lazy[4 * 9];
    some_ids(ids, TINY_ROWS, 288);
    float *want = forced(tiny("qwen3"), CARD, ids, TINY_ROWS, 20);
    struct forcing s = open_setup(tiny("qwen3"), CARD);
    decode(&s, 9, 4, eager);
    forcing_close(&s);
    static const char *const orders[] = {"forward", "reverse", "random:3", "random:11"};
    for (int i = 0; i < 4; i++) {
        qn_emu_set(orders[i], "lazy", i % 2 ? "late" : "now", 0);
        float *got = forced(tiny("qwen3"), CARD, ids, TINY_ROWS, 20);
        EXPECT_MEM(got, TINY_ROWS * 288 * sizeof *got, want, TINY_ROWS * 288 * sizeof *want);
        free(got);
        s = open_setup(tiny("qwen3"), CARD);
        decode(&s, 9, 4, lazy);
        EXPECT_MEM(lazy, sizeof lazy, eager, sizeof eager);
        forcing_close(&s);
    }
    free(want);
}
#endif

/* --- what is refused ---------------------------------------------------------------------------------------------- */

static int refused(struct qn_backend_opts o, struct qn_err *err) {
    struct qn_model *m = NULL;
    struct qn_backend *b = NULL;
    *err = (struct qn_err){0};
    ASSERT_EQ(qn_model_open(&m, tiny("llama"), err), 0);
    int rc = qn_cuda_open(&b, &m->desc, &o, err);
    if (rc == 0) b->ops->close(b);
    qn_model_close(m);
    return rc;
}

TEST(backend, refuses_with_a_reason) {
    struct qn_err err;
    EXPECT_EQ(refused((struct qn_backend_opts){.rows_max = 8, .out_max = 8, .n_ctx = 64, .kv_type = QN_KV_Q8_0}, &err), QN_E_RANGE);
    EXPECT(strstr(err.text, "engine.kv_type"));
    EXPECT_EQ(refused((struct qn_backend_opts){.rows_max = 8, .out_max = 8, .n_ctx = 64, .device = 77}, &err), QN_E_DEVICE);
    EXPECT(strstr(err.text, "cuda:77"));
    EXPECT_EQ(refused((struct qn_backend_opts){.rows_max = 0, .out_max = 8, .n_ctx = 64}, &err), QN_E_RANGE);
    EXPECT_EQ(refused((struct qn_backend_opts){.rows_max = 8, .out_max = 8, .n_ctx = 64}, &err), 0);
}

TEST(backend, a_pool_that_does_not_fit_is_no_memory) {
    struct forcing s = open_setup(tiny("llama"), CARD);
    struct qn_err err = {0};
    int got;
    EXPECT_EQ(s.b->ops->kv_pool(s.b, 1 << 27, 1 << 27, &got, &err), QN_E_NOMEM);
    EXPECT(strstr(err.text, "KV blocks"));
    EXPECT_EQ(s.b->ops->kv_pool(s.b, BLOCKS, BLOCKS, &got, &err), 0);
    forcing_close(&s);
}

/* --- a real model ------------------------------------------------------------------------------------------------- */

enum { NEW = 8, SMOL_VOCAB = 49152 };

/* The prompt in one pass, then a row a step: say[t] where it is given (>= 0), else the likeliest. The likeliest to out, all logits to
 * logits[NEW][vocab]. */
static void say(const char *path, enum kind kind, const int32_t *prompt, int n, const int32_t *given, int32_t *out, float *logits) {
    struct forcing s = open_setup(path, kind);
    int32_t blocks[BLOCKS], pos[CHUNK], last = n - 1, token = 0, zero = 0;
    for (int i = 0; i < BLOCKS; i++) blocks[i] = i;
    for (int i = 0; i < n; i++) pos[i] = i;
    for (int t = 0; t < NEW; t++) {
        struct qn_batch_seq seq = {.n_rows = t ? 1 : n, .n_ctx = n + t, .blocks = blocks};
        int32_t at = n + t - 1;
        struct qn_batch b = {.n_rows = seq.n_rows, .n_seqs = 1, .token = t ? &token : prompt, .pos = t ? &at : pos, .seqs = &seq, .n_out = 1, .out_row = t ? &zero : &last};
        qn_forward_step(s.f, &b);
        memcpy(logits + (size_t)t * SMOL_VOCAB, qn_forward_logits(s.f, b.out_row, 1), SMOL_VOCAB * sizeof *logits);
        out[t] = best_of(logits + (size_t)t * SMOL_VOCAB, SMOL_VOCAB);
        token = given ? given[t] : out[t];
    }
    forcing_close(&s);
}

/* Eight greedy tokens; then the yardstick is led along them. The CPU and the card both round activations to 8 bits in blocks of 32, so the
 * one may be as far from the yardstick as the other: the CPU's own distance is the tolerance, with a quarter for chance. */
TEST_SLOW(backend, smollm2_says_what_the_cpu_says, 180) {
    static const int32_t prompt[] = {504, 3575, 282, 4649, 314}; /* "The capital of France is" */
    static float ref[NEW * SMOL_VOCAB], cpu[NEW * SMOL_VOCAB], card[NEW * SMOL_VOCAB];
    int32_t cpu_ids[NEW], card_ids[NEW], ref_ids[NEW];
    const char *path = client_model("smollm2-135m-instruct-q4_1");
    if (!path) SKIP("the model smollm2-135m-instruct-q4_1 is not in the cache");
    say(path, CPU, prompt, 5, NULL, cpu_ids, cpu);
    say(path, CARD, prompt, 5, NULL, card_ids, card);
    EXPECT_MEM(card_ids, sizeof card_ids, cpu_ids, sizeof cpu_ids);
    say(path, REF, prompt, 5, cpu_ids, ref_ids, ref);
    double cpu_far = worst(ref, cpu, NEW * SMOL_VOCAB), card_far = worst(ref, card, NEW * SMOL_VOCAB);
    printf("    worst logit: cpu %.3g, card %.3g\n", cpu_far, card_far);
    EXPECT(card_far <= 1.25 * cpu_far);
}
