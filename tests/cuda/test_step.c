/* The descriptor of a step: where its parts lie, what a batch becomes, where the copy ends; the buckets of captured steps. */
#include "engine/cuda/cuda_step.h"
#include "tests/run.h"

enum { ROWS = 96, SEQS = 5, CTX = 1000, CANARY = 0x5A };

static struct qn_cuda_attn_limits limits(int items, int records) {
    return (struct qn_cuda_attn_limits){.n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .n_sms = 16, .items_max = items, .records_max = records};
}

TEST(step, parts_lie_side_by_side_in_their_order) {
    struct qn_cuda_layout l;
    qn_cuda_layout_init(&l, ROWS, SEQS, CTX, 40);
    EXPECT_EQ(l.stride, 63); /* 1000 / 16, rounded up */
    const size_t at[] = {0, l.out_head, l.token, l.pos, l.seq, l.out_row, l.items, l.blocks, l.bytes};
    const size_t least[] = {sizeof(struct qn_cuda_head), sizeof(struct qn_cuda_head), ROWS * 4, ROWS * 4, ROWS * 4, ROWS * 4, 40 * sizeof(struct qn_cuda_item), SEQS * 63 * 4};
    for (int i = 0; i < 8; i++) EXPECT(at[i] % 64 == 0 && at[i + 1] >= at[i] + least[i] && at[i + 1] < at[i] + least[i] + 64);
    uint8_t base[1];
    struct qn_cuda_step s, out;
    qn_cuda_layout_step(&l, base, &s, &out);
    EXPECT((const uint8_t *)s.head == base && (const uint8_t *)out.head == base + l.out_head && s.token == out.token);
    EXPECT((const uint8_t *)s.items == base + l.items && (const uint8_t *)s.blocks == base + l.blocks && s.blocks_stride == 63);
    EXPECT(s.rows_max == ROWS && s.seqs_max == SEQS);
}

/* A prompt of 40 rows from position 300, a decode at 999, a decode at 0, a draft of 3 rows at 50. */
TEST(step, a_batch_becomes_its_descriptor) {
    static const int n_rows[] = {40, 1, 1, 3}, n_ctx[] = {340, 1000, 1, 53};
    int32_t blocks[4][63], token[ROWS], pos[ROWS], out_row[] = {39, 40, 41, 42, 43, 44};
    struct qn_batch_seq seqs[4];
    int row = 0;
    for (int s = 0; s < 4; s++) {
        for (int i = 0; i < 63; i++) blocks[s][i] = s * 100 + i;
        seqs[s] = (struct qn_batch_seq){row, n_rows[s], n_ctx[s], blocks[s]};
        for (int i = 0; i < n_rows[s]; i++, row++) token[row] = row * 3, pos[row] = n_ctx[s] - n_rows[s] + i;
    }
    struct qn_batch b = {.n_rows = row, .n_seqs = 4, .token = token, .pos = pos, .seqs = seqs, .n_out = 6, .out_row = out_row};
    struct qn_cuda_attn_limits lim = limits(0, 64);
    lim.items_max = qn_cuda_attn_items(&lim, ROWS);
    struct qn_cuda_layout l;
    qn_cuda_layout_init(&l, ROWS, SEQS, CTX, lim.items_max);
    uint8_t *host = malloc(l.bytes + 64);
    ASSERT(host != NULL);
    memset(host, CANARY, l.bytes + 64);
    struct qn_cuda_attn_plan plan;
    size_t n = qn_cuda_layout_fill(&l, host, &b, b.out_row, b.n_out, 4, &lim, &plan);
    EXPECT_EQ(n, l.blocks + 4 * 63 * 4); /* the fifth sequence's table stays behind */
    for (size_t i = n; i < l.bytes + 64; i++) EXPECT_EQ(host[i], CANARY);

    struct qn_cuda_step s, out;
    qn_cuda_layout_step(&l, host, &s, &out);
    EXPECT(s.head->n_rows == 45 && s.head->n_seqs == 4 && s.head->n_out == 6 && s.head->n_items == plan.n_items);
    EXPECT(out.head->n_rows == 4 && out.head->n_out == 4);
    EXPECT_MEM(s.token, 45 * 4, token, 45 * 4);
    EXPECT_MEM(s.pos, 45 * 4, pos, 45 * 4);
    EXPECT_MEM(s.out_row, sizeof out_row, out_row, sizeof out_row);
    for (int q = 0; q < 4; q++) {
        size_t used = (size_t)(n_ctx[q] + 15) / 16 * 4;
        EXPECT_MEM(s.blocks + q * 63, used, blocks[q], used);
        for (int i = seqs[q].row0; i < seqs[q].row0 + seqs[q].n_rows; i++) EXPECT_EQ(s.seq[i], q);
    }
    int seen[ROWS] = {0};
    for (int i = 0; i < plan.n_items; i++) {
        const struct qn_cuda_item *it = &s.items[i];
        EXPECT(it->n_rows >= 1 && it->seq >= 0 && it->seq < 4 && it->chunk1 > it->chunk0);
        for (int r = it->row0; r < it->row0 + it->n_rows; r++) {
            EXPECT_EQ(s.seq[r], it->seq);
            seen[r] += it->chunk1 - it->chunk0;
        }
    }
    for (int r = 0; r < 45; r++) EXPECT(seen[r] >= pos[r] / QN_CUDA_CHUNK + 1); /* every chunk that it looks back on */
    free(host);
}

/* The rows that go on have no tokens, and nobody wants logits of this descriptor. */
TEST(step, a_narrowed_batch_has_no_tokens) {
    int32_t block = 3, pos = 17, row = 5;
    struct qn_batch_seq seq = {.n_rows = 1, .n_ctx = 18, .blocks = (const int32_t[]){block, block}};
    struct qn_batch b = {.n_rows = 1, .n_seqs = 1, .pos = &pos, .seqs = &seq};
    struct qn_cuda_attn_limits lim = limits(8, 0);
    struct qn_cuda_layout l;
    qn_cuda_layout_init(&l, 8, 1, 32, 8);
    uint8_t *host = calloc(1, l.bytes);
    ASSERT(host != NULL);
    struct qn_cuda_attn_plan plan;
    EXPECT_EQ(qn_cuda_layout_fill(&l, host, &b, &row, 1, 0, &lim, &plan), l.blocks + 2 * 4);
    struct qn_cuda_step s;
    qn_cuda_layout_step(&l, host, &s, NULL);
    EXPECT(s.head->n_rows == 1 && s.head->n_out == 1 && s.out_row[0] == 5 && s.pos[0] == 17 && s.blocks[1] == 3);
    free(host);
}

TEST(step, buckets_hold_what_they_are_asked_for) {
    int last = 0, kinds = 0;
    for (int n = 1; n <= 128; n++) {
        int b = qn_cuda_rows_bucket(n);
        EXPECT(b >= n && b >= last && qn_cuda_rows_bucket(b) == b);
        kinds += b != last;
        last = b;
    }
    EXPECT_EQ(kinds, 11);
    EXPECT_EQ(qn_cuda_rows_bucket(129), 0);
    for (int n = 1; n < 5000; n++) {
        int b = qn_cuda_items_bucket(n);
        EXPECT(b >= n && b < 2 * n && (b & (b - 1)) == 0);
    }
}
