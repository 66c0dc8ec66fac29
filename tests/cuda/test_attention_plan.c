/* The plan of attention: whatever the batch and however little room there is, each row has each chunk it looks back on exactly once,
 * in items that a block can hold, and records that no two items share. */
#include "engine/backend.h"
#include "engine/cuda/attention.h"
#include "tests/cuda/kit.h"
#include "tests/run.h"

enum { ROWS_MAX = 600, SEQS = 40, CHUNKS_MAX = 64, ITEMS_MAX = 4000, RECORDS = 20000 };

struct random_batch {
    struct qn_batch b;
    struct qn_batch_seq seqs[SEQS];
    int32_t pos[ROWS_MAX];
};

static void fill(struct random_batch *r, int n_seqs, int rows_each, int n_ctx_max) {
    r->b = (struct qn_batch){.n_seqs = n_seqs, .pos = r->pos, .seqs = r->seqs};
    for (int s = 0; s < n_seqs; s++) {
        int rows = 1 + (int)(rnd() % (uint32_t)rows_each), n_ctx = rows + (int)(rnd() % (uint32_t)n_ctx_max);
        r->seqs[s] = (struct qn_batch_seq){r->b.n_rows, rows, n_ctx, NULL};
        for (int i = 0; i < rows; i++) r->pos[r->b.n_rows++] = n_ctx - rows + i;
    }
}

static uint8_t seen[ROWS_MAX][CHUNKS_MAX], used[RECORDS];

static void check_item(const struct random_batch *r, const struct qn_cuda_attn_limits *lim, const struct qn_cuda_item *it, int *kinds) {
    const struct qn_batch_seq *s = &r->seqs[it->seq];
    int pairs = it->n_rows * (lim->n_heads / lim->n_kv_heads);
    ASSERT(it->seq >= 0 && it->seq < r->b.n_seqs && it->n_rows >= 1 && it->row0 >= s->row0 && it->row0 + it->n_rows <= s->row0 + s->n_rows);
    ASSERT(it->chunk0 < it->chunk1 && it->first <= it->chunk0);
    EXPECT(it->n_rows == 1 || pairs <= 16 || pairs <= (lim->head_dim > 128 ? 32 : 64));
    *kinds |= pairs <= 16 ? QN_CUDA_ATTN_NARROW : QN_CUDA_ATTN_WIDE;
    for (int i = 0; i < it->n_rows; i++)
        for (int c = it->chunk0; c < it->chunk1; c++) {
            seen[it->row0 + i][c]++;
            if (it->record < 0) continue;
            int rec = it->record + (c - it->chunk0) * it->n_rows + i;
            ASSERT(rec < lim->records_max);
            EXPECT_EQ(used[rec]++, 0);
            *kinds |= QN_CUDA_ATTN_SPLIT;
        }
}

/* Where the merge looks for a row's records: from the item with the first chunk on. */
static void check_group(const struct qn_cuda_item *items, int n, const struct qn_cuda_item *it) {
    int heads = 0;
    for (int i = 0; i < n; i++)
        if (items[i].row0 == it->row0 && items[i].chunk0 == items[i].first) {
            heads++;
            EXPECT_EQ(items[i].n_rows, it->n_rows);
            EXPECT_EQ(it->record, items[i].record + (it->chunk0 - it->first) * it->n_rows);
        }
    EXPECT_EQ(heads, 1);
}

static void check(const struct random_batch *r, const struct qn_cuda_attn_limits *lim) {
    static struct qn_cuda_item items[ITEMS_MAX];
    struct qn_cuda_attn_plan plan;
    int kinds = 0;
    qn_cuda_attn_plan(&r->b, lim, items, &plan);
    ASSERT(plan.n_items <= lim->items_max && plan.n_records <= lim->records_max);
    memset(seen, 0, sizeof seen);
    memset(used, 0, sizeof used);
    for (int i = 0; i < plan.n_items; i++) {
        check_item(r, lim, &items[i], &kinds);
        if (items[i].record >= 0) check_group(items, plan.n_items, &items[i]);
    }
    EXPECT_EQ(kinds, plan.kinds);
    for (int row = 0; row < r->b.n_rows; row++)
        for (int c = 0; c < CHUNKS_MAX; c++) {
            int first = lim->window && r->pos[row] + 1 > lim->window ? r->pos[row] + 1 - lim->window : 0;
            int looks = c >= first / QN_CUDA_CHUNK && c <= r->pos[row] / QN_CUDA_CHUNK;
            if (seen[row][c] > 1 || (looks && !seen[row][c])) qn_test_fail(__FILE__, __LINE__, "row %d chunk %d: %d times", row, c, seen[row][c]);
        }
}

TEST(attention_plan, every_row_has_every_chunk_once) {
    static const struct { int heads, kv_heads, head_dim; } models[] = {{9, 3, 64}, {32, 8, 128}, {28, 4, 128}, {16, 16, 64}, {71, 1, 64}, {8, 4, 256}};
    for (int i = 0; i < 1500; i++) {
        struct random_batch r;
        int n_seqs = 1 + (int)(rnd() % SEQS);
        fill(&r, n_seqs, i % 3 == 0 ? 1 : ROWS_MAX / n_seqs, i % 5 == 0 ? 15000 : 900);
        int m = (int)(rnd() % (sizeof models / sizeof *models));
        struct qn_cuda_attn_limits lim = {models[m].heads, models[m].kv_heads, models[m].head_dim, i % 4 == 0 ? 1 + (int)(rnd() % 1000) : 0, 1 + (int)(rnd() % 150), 0, 0};
        lim.items_max = i % 2 ? r.b.n_rows : qn_cuda_attn_items(&lim, r.b.n_rows); /* the least there may be, and what is worth having */
        lim.records_max = i % 7 == 0 ? 0 : (int)(rnd() % RECORDS);
        ASSERT(lim.items_max <= ITEMS_MAX);
        check(&r, &lim);
    }
}

/* One long context alone is dealt out to the whole card, many are not. */
TEST(attention_plan, splits_when_blocks_are_few) {
    struct random_batch r;
    struct qn_cuda_attn_plan plan;
    static struct qn_cuda_item items[ITEMS_MAX];
    struct qn_cuda_attn_limits lim = {32, 8, 128, 0, 132, ITEMS_MAX, RECORDS};
    fill(&r, 1, 1, 1);
    r.pos[0] = 8191, r.seqs[0].n_ctx = 8192;
    qn_cuda_attn_plan(&r.b, &lim, items, &plan);
    EXPECT_EQ(plan.n_items, 32);
    EXPECT_EQ(plan.n_records, 32);
    EXPECT_EQ(plan.kinds, QN_CUDA_ATTN_NARROW | QN_CUDA_ATTN_SPLIT);

    fill(&r, SEQS, 1, 1);
    for (int s = 0; s < SEQS; s++) r.pos[s] = 2047, r.seqs[s].n_ctx = 2048;
    lim.n_sms = 16; /* 8 blocks wanted, 40 there */
    qn_cuda_attn_plan(&r.b, &lim, items, &plan);
    EXPECT_EQ(plan.n_items, SEQS);
    EXPECT_EQ(plan.kinds, QN_CUDA_ATTN_NARROW);
}

/* The bound of qn_cuda_attn_items holds for what the planner makes of it when nothing else limits it. */
TEST(attention_plan, never_wants_more_items_than_it_says) {
    for (int i = 0; i < 500; i++) {
        struct random_batch r;
        struct qn_cuda_attn_plan plan;
        static struct qn_cuda_item items[ITEMS_MAX];
        fill(&r, 1 + (int)(rnd() % SEQS), 1 + (int)(rnd() % 15), 15000);
        struct qn_cuda_attn_limits lim = {32, 8, 128, 0, 1 + (int)(rnd() % 150), ITEMS_MAX, RECORDS};
        qn_cuda_attn_plan(&r.b, &lim, items, &plan);
        EXPECT(plan.n_items <= qn_cuda_attn_items(&lim, r.b.n_rows));
    }
}
