/* The whole forward pass in a few rows, small enough for the checked build, which looks at every access of every kernel: a prompt that is
 * narrowed, a step captured and replayed beside surplus blocks, pages of which only the written positions may be read, draws. What the numbers
 * are is test_backend.c's question; here they have to be numbers. */
#include <math.h>

#include "engine/cuda/cuda.h"
#include "engine/forward.h"
#include "tests/run.h"

static const char *const families[] = {"llama", "qwen2", "qwen3", "gemma3"};

static void run(const char *family, enum qn_kv_type kv_type) {
    enum { PROMPT = 21, OTHER = 5 };
    char path[128];
    struct qn_err err = {0};
    struct qn_model *m = NULL;
    struct qn_backend *b = NULL;
    struct qn_forward *f = NULL;
    struct qn_backend_opts o = {.kv_type = kv_type, .rows_max = 32, .seqs_max = 8, .out_max = 8, .n_ctx = 64};
    int got;
    snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", family);
    ASSERT_EQ(qn_model_open(&m, path, &err), 0);
    ASSERT_EQ(qn_cuda_open(&b, &m->desc, &o, &err), 0);
    ASSERT_EQ(qn_forward_open(&f, m, b, &err), 0);
    ASSERT_EQ(b->ops->kv_pool(b, 8, 8, &got, &err), 0);

    int32_t token[32], pos[32], blocks[2][4] = {{6, 1, 3}, {0, 7, 2}}, last[2] = {PROMPT - 1, PROMPT + OTHER - 1}, both[3] = {0, 1, 2};
    for (int i = 0; i < PROMPT + OTHER; i++) token[i] = i * 37 % 256, pos[i] = i < PROMPT ? i : i - PROMPT;
    struct qn_batch_seq seqs[3] = {{0, PROMPT, PROMPT, blocks[0]}, {PROMPT, OTHER, OTHER, blocks[1]}};
    struct qn_batch batch = {.n_rows = PROMPT + OTHER, .n_seqs = 2, .token = token, .pos = pos, .seqs = seqs, .n_out = 2, .out_row = last};
    qn_forward_step(f, &batch);
    b->ops->kv_copy(b, 0, 5, OTHER);
    int32_t copy[4] = {5, 4};
    for (int t = 0; t < 3; t++) { /* direct, captured, replayed; three sequences in a bucket of four */
        struct qn_sampling how = {.temperature = 0.7f, .top_p = 0.9f, .repetition_penalty = 1, .seed = 5};
        struct qn_logprobs lp[3];
        struct qn_backend_pick picks[3];
        int n = t ? 3 : 2;
        for (int i = 0; i < n; i++) picks[i] = (struct qn_backend_pick){.row = i, .given = -1, .sampling = &how, .position = (uint32_t)t, .n_top = 2, .lp = &lp[i]};
        EXPECT(qn_forward_sample(f, t ? both : last, n, 280, picks, n) == NULL);
        for (int i = 0; i < n; i++) EXPECT(picks[i].id >= 0 && picks[i].id < 280 && isfinite(lp[i].logprob));
        const int32_t *where[3] = {blocks[0], blocks[1], copy};
        for (int i = 0; i < 3; i++) {
            pos[i] = (i == 0 ? PROMPT : OTHER) + t;
            token[i] = i < n ? picks[i].id : 9;
            seqs[i] = (struct qn_batch_seq){i, 1, pos[i] + 1, where[i]};
        }
        batch = (struct qn_batch){.n_rows = 3, .n_seqs = 3, .token = token, .pos = pos, .seqs = seqs, .n_out = 3, .out_row = both};
        qn_forward_step(f, &batch);
    }
    const float *l = qn_forward_logits(f, both, 3);
    for (int i = 0; i < 3 * m->desc.n_vocab; i++) EXPECT(isfinite(l[i]));
    EXPECT(qn_cuda_of(b)->captures == 1 && qn_cuda_of(b)->replays == 1);
    EXPECT(b->ops->lost(b) == NULL);
    qn_forward_close(f);
    b->ops->close(b);
    qn_model_close(m);
}

TEST_SLOW(forward, every_family_in_f16, 120) {
    for (int i = 0; i < 4; i++) run(families[i], QN_KV_F16);
}
TEST_SLOW(forward, and_in_bf16, 60) { run("gemma3", QN_KV_BF16); }
