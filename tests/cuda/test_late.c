/* Draws that stay on the card and feed the next step (draw_late, read_late; cuda_sample.c): what is drawn so is what is drawn when each step
 * is read before the next is handed over, whatever the order of sequences and streams; and nobody waits in between. */
#include "engine/cuda/cuda.h"
#include "tests/lib/forcing.h"
#include "tests/run.h"
#ifdef QN_CUDA_EMU
#include "engine/cuda/emu/testing.h"
#endif

enum { OUT = 32, TOKENS = 64, BLOCKS = TOKENS / QN_KV_BLOCK * OUT, STEPS_MAX = 6 };

static struct forcing open_card(const char *path) {
    return forcing_open(path, qn_cuda_open, &(struct qn_backend_opts){.n_threads = 1, .kv_blocks = BLOCKS, .kv_type = QN_KV_F16, .rows_max = OUT, .out_max = OUT, .n_ctx = TOKENS});
}

/* Decodes n_seqs sequences, `steps` tokens each, to out[steps][n_seqs]. Late: step t + 1 is handed over before what step t drew is read, its
 * tokens are stand-ins. Row r of step t is sequence (r + t) % n_seqs, so what pick r + 1 of the step before drew. `after`, if given, is
 * asked when both steps are handed over. */
static void decode(struct forcing *s, int n_seqs, int steps, int late, int32_t *out, void (*after)(struct qn_cuda *c, int t)) {
    static struct qn_sampling how[2] = {{.top_p = 1, .repetition_penalty = 1}, {.top_p = 1, .repetition_penalty = 1, .temperature = 1.2f, .seed = 7}};
    static int32_t blocks[OUT];
    static struct qn_backend_pick picks[2][OUT];
    int32_t token[OUT], pos[OUT], rows[OUT];
    struct qn_batch_seq seqs[OUT];
    int n_vocab = s->m->desc.n_vocab;
    ASSERT(n_seqs <= OUT && steps <= QN_KV_BLOCK);
    for (int i = 0; i < n_seqs; i++) blocks[i] = i;
    for (int t = 0; t <= steps; t++) {
        struct qn_backend_pick *now = picks[t % 2], *before = picks[(t + 1) % 2];
        for (int r = 0; r < n_seqs && t < steps; r++) {
            int q = (r + t) % n_seqs, from = (r + 1) % n_seqs;
            seqs[r] = (struct qn_batch_seq){.row0 = r, .n_rows = 1, .n_ctx = t + 1, .blocks = &blocks[q]};
            token[r] = t == 0 ? (q * 31 + 7) % n_vocab : late ? -1 - from : before[from].id;
            pos[r] = t, rows[r] = r;
            now[r] = (struct qn_backend_pick){.row = r, .given = -1, .sampling = &how[q % 2], .branch = (uint32_t)q, .position = (uint32_t)t + 1};
        }
        struct qn_batch b = {.n_rows = n_seqs, .n_seqs = n_seqs, .token = token, .pos = pos, .seqs = seqs, .n_out = n_seqs, .out_row = rows};
        if (t < steps) qn_forward_step(s->f, &b);
        if (t < steps && late) ASSERT_EQ(qn_forward_draw_late(s->f, rows, n_seqs, n_vocab, now, n_seqs), 1);
        if (t < steps && !late) EXPECT(qn_forward_sample(s->f, rows, n_seqs, n_vocab, now, n_seqs) == NULL);
        if (t == 0) continue;
        if (after && t < steps) after(qn_cuda_of(s->b), t);
        if (late) s->b->ops->read_late(s->b, before, n_seqs);
        for (int r = 0; r < n_seqs; r++) out[(t - 1) * n_seqs + (r + t - 1) % n_seqs] = before[r].id;
    }
}

static int32_t want[STEPS_MAX * OUT], got[STEPS_MAX * OUT];

TEST_SLOW(late, what_a_step_drew_feeds_the_next_one, 90) {
    static const int sizes[] = {1, 3, 9, 30};
    struct forcing s = open_card("tests/data/tiny-qwen3.gguf");
    for (int i = 0; i < 4; i++)
        for (int direct = 0; direct < 2; direct++) {
            qn_cuda_of(s.b)->no_graphs = direct;
            decode(&s, sizes[i], STEPS_MAX, 0, want, NULL);
            decode(&s, sizes[i], STEPS_MAX, 1, got, NULL);
            EXPECT_MEM(got, (size_t)(STEPS_MAX * sizes[i]) * sizeof *got, want, (size_t)(STEPS_MAX * sizes[i]) * sizeof *want);
        }
    forcing_close(&s);
}

/* A step without draws is waited for too; one with a pick that is the host's is not begun; a card that failed draws nothing. */
TEST(late, draws_know_their_limits) {
    static struct qn_sampling greedy = {.top_p = 1, .repetition_penalty = 1}, penal = {.top_p = 1, .repetition_penalty = 1, .presence_penalty = 1};
    int32_t token = 5, zero = 0, block = 0;
    struct forcing s = open_card("tests/data/tiny-llama.gguf");
    struct qn_cuda *c = qn_cuda_of(s.b);
    struct qn_batch_seq seq = {.n_rows = 1, .n_ctx = 1, .blocks = &block};
    struct qn_batch b = {.n_rows = 1, .n_seqs = 1, .token = &token, .pos = &zero, .seqs = &seq, .n_out = 1, .out_row = &zero};
    struct qn_backend_pick p = {.given = -1, .sampling = &greedy, .position = 1, .id = -7};
    qn_forward_step(s.f, &b);
    EXPECT_EQ(qn_forward_draw_late(s.f, NULL, 0, 288, NULL, 0), 1);
    s.b->ops->read_late(s.b, NULL, 0);
    p.sampling = &penal;
    EXPECT_EQ(qn_forward_draw_late(s.f, &zero, 1, 288, &p, 1), 0);
    EXPECT(c->n_drawn == 1 && c->n_read == 1);
    p.sampling = &greedy;
    EXPECT_EQ(qn_forward_draw_late(s.f, &zero, 1, 288, &p, 1), 1);
    s.b->ops->read_late(s.b, &p, 1);
    EXPECT(p.id >= 0 && p.id < 288);
    EXPECT_EQ(qn_forward_draw_late(s.f, &zero, 1, 288, &p, 1), 1);
    c->lost = "it fell off the bus";
    s.b->ops->read_late(s.b, &p, 1);
    EXPECT_EQ(p.id, -1);
    EXPECT_EQ(qn_forward_draw_late(s.f, &zero, 1, 288, &p, 1), 0);
    c->lost = NULL;
    forcing_close(&s);
}

#ifdef QN_CUDA_EMU
static int n_asked;

/* On streams that only move when somebody waits: both steps are handed over, and the first has not drawn yet. (A query moves them by one
 * item, of dozens.) */
static void neither_is_done(struct qn_cuda *c, int t) {
    EXPECT_EQ(cudaEventQuery(c->picked[(t - 1) % 2]), cudaErrorNotReady);
    EXPECT_EQ(cudaEventQuery(c->picked[t % 2]), cudaErrorNotReady);
    n_asked++;
}

TEST_SLOW(late, a_step_is_handed_over_without_waiting_for_the_one_before, 90) {
    struct forcing s = open_card("tests/data/tiny-llama.gguf");
    qn_cuda_of(s.b)->no_graphs = 1;
    decode(&s, 5, 4, 0, want, NULL);
    qn_emu_set("forward", "lazy", "now", 0);
    decode(&s, 5, 4, 1, got, neither_is_done);
    EXPECT_EQ(n_asked, 3);
    EXPECT_MEM(got, 5 * 4 * sizeof *got, want, 5 * 4 * sizeof *want);
    forcing_close(&s);
}

TEST_SLOW(late, the_order_of_streams_does_not_matter, 90) {
    static const char *const orders[] = {"reverse", "random:3", "random:11"};
    struct forcing s = open_card("tests/data/tiny-gemma3.gguf");
    decode(&s, 6, 3, 0, want, NULL);
    for (int i = 0; i < 3; i++) {
        qn_emu_set(orders[i], "lazy", i % 2 ? "late" : "now", 0);
        decode(&s, 6, 3, 1, got, NULL);
        EXPECT_MEM(got, 6 * 3 * sizeof *got, want, 6 * 3 * sizeof *want);
    }
    forcing_close(&s);
}
#endif
