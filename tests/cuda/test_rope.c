/* RoPE, head norms and the write into KV pages against a plain loop in double; copies and swaps of pages by bytes.
 *
 * Bounds, u = 2^-24. Table entries are rounded once: u * mscale. A turned element is two products and a sum of them, |x| + |y| <= 2 m for
 * m = max(|x|, |y|): within 2 m (u table + u) + u of the result < 6 u m * mscale. A normed element before is within 20 u (test_rows.c), so 26 u
 * in all, 28 u with slack. Pages then round: f16 2^-11 relative and 2^-25 absolute, bf16 2^-8 relative.
 *
 * Only written slots are filled: everything else must keep the 0xff that fresh memory has. */
#include "tests/cuda/rows_kit.h"

#define U 0x1p-24

enum { SEQS = 3, BLOCKS = 9, STRIDE = 4, LAYERS = 2, LAYER = 1, ROWS = 7, MORE = 2, N_POS = 64 };

/* Sequence 0: one row at 37; 1: rows at 15, 16, 17 across a border; 2: rows at 0, 1, 63. */
static const int32_t seq_of[ROWS + MORE] = {0, 1, 1, 1, 2, 2, 2, 0, 0}, pos_of[ROWS + MORE] = {37, 15, 16, 17, 0, 1, 63, 1, 2};
static const int32_t block_of[SEQS * STRIDE] = {4, 0, 7, -1, 2, 8, -1, -1, 1, -1, -1, 5};

struct rope_case { int heads, kv_heads, hd, rope_dim, neox, norm, bf16; float mscale, size; };

struct rope_run {
    struct rope_case c;
    int pad, qw, kw;
    float *q, *k, *v, *q_gain, *k_gain, inv_freq[256];
    float *q_now;
    uint16_t *pages;
    size_t pages_n;
};

static size_t page_at(const struct rope_run *t, int block, int layer, int head, int is_v, int slot) {
    size_t slab = (((size_t)block * LAYERS + (size_t)layer) * (size_t)t->c.kv_heads + (size_t)head) * 2 + (size_t)is_v;
    return (slab * QN_CUDA_PAGE + (size_t)slot) * (size_t)t->pad;
}

static void run(struct rope_run *t, const struct rope_case *c, uint32_t seed) {
    struct kit_rng g = {seed, 0};
    size_t all = ROWS + MORE, table_n = (size_t)N_POS * (size_t)c->rope_dim;
    *t = (struct rope_run){.c = *c, .pad = (c->hd + 15) / 16 * 16, .qw = c->heads * c->hd, .kw = c->kv_heads * c->hd};
    t->q = rk_random(&g, all * (size_t)t->qw, c->size), t->k = rk_random(&g, all * (size_t)t->kw, c->size), t->v = rk_random(&g, all * (size_t)t->kw, c->size);
    t->q_gain = rk_random(&g, (size_t)c->hd, 1), t->k_gain = rk_random(&g, (size_t)c->hd, 1);
    if (c->size > 10) t->v[0] = 1e6f, t->v[1] = -1e6f, t->v[2] = NAN, t->k[0] = 7e4f;
    for (int i = 0; i < c->rope_dim / 2; i++) t->inv_freq[i] = (float)pow(10000, -2.0 * i / c->rope_dim);
    float *table = malloc(table_n * 4 + 4);
    qn_cuda_rope_table(table, t->inv_freq, c->rope_dim, c->mscale, 0, N_POS / 2);
    qn_cuda_rope_table(table + table_n / 2, t->inv_freq, c->rope_dim, c->mscale, N_POS / 2, N_POS);
    t->pages_n = page_at(t, BLOCKS, 0, 0, 0, 0);
    struct qn_cuda_rope r = {.q = {t->qw, rk_device(t->q, all * (size_t)t->qw * 4)}, .k = {t->kw, rk_device(t->k, all * (size_t)t->kw * 4)},
                             .v = {t->kw, rk_device(t->v, all * (size_t)t->kw * 4)}, .q_norm = c->norm ? rk_device(t->q_gain, (size_t)c->hd * 4) : NULL,
                             .k_norm = c->norm ? rk_device(t->k_gain, (size_t)c->hd * 4) : NULL, .eps = 1e-6f, .table = table_n ? rk_device(table, table_n * 4) : NULL,
                             .rope_dim = c->rope_dim, .neox = c->neox, .layer = LAYER,
                             .kv = {.pages = rk_device(NULL, t->pages_n * 2), .n_layers = LAYERS, .n_kv_heads = c->kv_heads, .n_heads = c->heads, .head_dim = c->hd,
                                    .head_pad = t->pad, .is_bf16 = c->bf16}};
    struct rk_step s = rk_step_open(ROWS, 0, NULL);
    s.parts[2] = rk_device(seq_of, sizeof seq_of), s.parts[3] = rk_device(pos_of, sizeof pos_of), s.parts[4] = rk_device(block_of, sizeof block_of);
    s.step.seq = s.parts[2], s.step.pos = s.parts[3], s.step.blocks = s.parts[4], s.step.blocks_stride = STRIDE;
    qn_cuda_rope_kv(&r, &s.step, ROWS + MORE, NULL);
    t->q_now = rk_fetch(r.q.v, all * (size_t)t->qw * 4);
    t->pages = rk_fetch(r.kv.pages, t->pages_n * 2);
    const void *dev[] = {r.q.v, r.k.v, r.v.v, r.q_norm, r.k_norm, r.table, r.kv.pages};
    for (int i = 0; i < 7; i++) cudaFree((void *)(uintptr_t)dev[i]);
    rk_step_close(&s);
    free(table);
}

static void run_free(struct rope_run *t) { free(t->q), free(t->k), free(t->v), free(t->q_gain), free(t->k_gain), free(t->q_now), free(t->pages); }

/* want[hd] and, for each, the size m that its bound grows with. */
static void turned(const struct rope_run *t, const float *x, const float *gain, int pos, double *want, double *m) {
    int hd = t->c.hd, half = t->c.rope_dim / 2;
    double sum = 0, inv = 1;
    for (int i = 0; i < hd; i++) sum += (double)x[i] * (double)x[i];
    if (gain) inv = 1 / sqrt(sum / hd + 1e-6);
    for (int i = 0; i < hd; i++) want[i] = (double)x[i] * inv * (gain ? (double)gain[i] : 1), m[i] = fabs(want[i]);
    for (int i = 0; i < half; i++) {
        int p = t->c.neox ? i : 2 * i, q = t->c.neox ? i + half : 2 * i + 1;
        double angle = pos * (double)t->inv_freq[i], c = cos(angle) * (double)t->c.mscale, s = sin(angle) * (double)t->c.mscale, a = want[p], b = want[q];
        want[p] = a * c - b * s, want[q] = a * s + b * c;
        m[p] = m[q] = fmax(fabs(a), fabs(b)) * fmax(1, (double)t->c.mscale);
    }
}

/* One head's slot in a page against want; clears what it has seen to 0xffff, so that the rest can be compared whole. */
static int slot_is(struct rope_run *t, size_t at, const double *want, const double *m, double rel) {
    int wrong = 0;
    for (int i = 0; i < t->pad; i++) {
        uint16_t *h = &t->pages[at + (size_t)i];
        double w = i < t->c.hd ? want[i] : 0, got = (double)(t->c.bf16 ? qn_bf16_to_f32(*h) : qn_f16_to_f32(*h));
        if (!t->c.bf16 && fabs(w) > 65504) w = copysign(65504, w);
        double tol = i < t->c.hd ? m[i] * rel + fabs(w) * (t->c.bf16 ? 0x1p-8 : 0x1p-11) + 0x1p-25 : 0;
        wrong |= isnan(w) ? !isnan(got) : !(fabs(got - w) <= tol);
        *h = 0xffff;
    }
    return !wrong;
}

static void check(struct rope_run *t) {
    double want[512], m[512];
    const struct rope_case *c = &t->c;
    int bad_q = 0, bad_k = 0, bad_v = 0, hd = c->hd;
    double rel = (c->norm ? 28 : 8) * U;
    for (int r = 0; r < ROWS; r++) {
        for (int h = 0; h < c->heads; h++) {
            const float *now = t->q_now + r * t->qw + h * hd;
            turned(t, t->q + r * t->qw + h * hd, c->norm ? t->q_gain : NULL, pos_of[r], want, m);
            for (int i = 0; i < hd; i++) bad_q += !(fabs((double)now[i] - want[i]) <= m[i] * rel);
        }
        for (int h = 0; h < c->kv_heads; h++) {
            int block = block_of[seq_of[r] * STRIDE + pos_of[r] / 16], slot = pos_of[r] % 16;
            turned(t, t->k + r * t->kw + h * hd, c->norm ? t->k_gain : NULL, pos_of[r], want, m);
            bad_k += !slot_is(t, page_at(t, block, LAYER, h, 0, slot), want, m, rel);
            for (int i = 0; i < hd; i++) want[i] = (double)t->v[r * t->kw + h * hd + i], m[i] = 0;
            bad_v += !slot_is(t, page_at(t, block, LAYER, h, 1, slot), want, m, 0);
        }
    }
    if (bad_q || bad_k || bad_v)
        qn_test_fail(__FILE__, __LINE__, "heads %d/%d of %d, rope %d, neox %d, norm %d, bf16 %d: %d of q, %d heads of k, %d of v are wrong", c->heads, c->kv_heads, hd,
                     c->rope_dim, c->neox, c->norm, c->bf16, bad_q, bad_k, bad_v);
    EXPECT(rk_untouched(t->pages, t->pages_n * 2));
    EXPECT_MEM(t->q_now + ROWS * t->qw, (size_t)(MORE * t->qw) * 4, t->q + ROWS * t->qw, (size_t)(MORE * t->qw) * 4);
}

TEST_SLOW(cuda_rope, turns_heads_and_fills_pages, 60) {
    static const int shapes[][4] = { /* heads, KV heads, head_dim, rope_dim */
        {1, 1, 2, 2}, {2, 1, 6, 4}, {3, 3, 16, 16}, {9, 3, 64, 64}, {4, 2, 64, 32}, {2, 2, 80, 80}, {5, 1, 96, 64}, {8, 2, 100, 0}, {32, 8, 128, 128},
        {2, 1, 130, 130}, {4, 1, 256, 256}, {3, 1, 192, 64}, {1, 1, 512, 512}, {128, 8, 64, 64}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < 8; k++) {
            const struct rope_case c = {shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], k & 1, k >> 1 & 1, k >> 2 & 1, k == 3 ? 1.25f : 1, k == 5 ? 1e-3f : 1};
            struct rope_run t;
            run(&t, &c, (uint32_t)(10 * i) + (uint32_t)k);
            check(&t);
            run_free(&t);
        }
}

TEST(cuda_rope, pages_hold_what_f16_can_and_nan_stays) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct rope_run t;
        run(&t, &(struct rope_case){2, 1, 8, 8, 0, 0, bf16, 1, 100}, 3);
        size_t at = page_at(&t, block_of[pos_of[0] / 16], LAYER, 0, 1, pos_of[0] % 16);
        EXPECT_EQ(t.pages[at], bf16 ? qn_f32_to_bf16(1e6f) : 0x7bff);
        EXPECT_EQ(t.pages[at + 1], bf16 ? qn_f32_to_bf16(-1e6f) : 0xfbff);
        check(&t);
        run_free(&t);
    }
}

TEST(cuda_rope, the_table_is_right_far_out) {
    float inv_freq[2] = {1, 0.01f}, t[4 * 4];
    enum { FAR = 1000000 };
    qn_cuda_rope_table(t, inv_freq, 4, 2, FAR, FAR + 4);
    for (int i = 0; i < 8; i++) {
        long double angle = (long double)(FAR + i / 2) * (long double)inv_freq[i % 2];
        EXPECT_NEAR((double)t[2 * i], (double)(2 * cosl(angle)), 2 * U + 1e-9);
        EXPECT_NEAR((double)t[2 * i + 1], (double)(2 * sinl(angle)), 2 * U + 1e-9);
    }
}

/* --- pages that move ---------------------------------------------------------------------------------------------- */

static struct qn_cuda_kv pool(int n_blocks, uint16_t **host, size_t *block) {
    struct qn_cuda_kv kv = {.n_layers = 3, .n_kv_heads = 2, .n_heads = 4, .head_dim = 24, .head_pad = 32};
    struct kit_rng g = {9, 0};
    *block = (size_t)qn_cuda_kv_block_bytes(&kv) / 2;
    *host = malloc((size_t)n_blocks * *block * 2);
    for (size_t i = 0; i < (size_t)n_blocks * *block; i++) (*host)[i] = (uint16_t)kit_u32(&g);
    kv.pages = rk_device(*host, (size_t)n_blocks * *block * 2);
    return kv;
}

TEST(cuda_pages, a_copy_takes_the_first_tokens_of_all_layers) {
    enum { N = 5 };
    for (int n = 1; n <= QN_CUDA_PAGE; n += n == 1 ? 2 : n == 15 ? 1 : 3) {
        uint16_t *want;
        size_t block, page = QN_CUDA_PAGE * 32, strip = (size_t)n * 32;
        struct qn_cuda_kv kv = pool(N, &want, &block);
        EXPECT_EQ(block, 3 * 2 * 2 * page);
        qn_cuda_kv_copy(&kv, 3, 1, n, NULL);
        uint16_t *now = rk_fetch(kv.pages, N * block * 2);
        for (size_t p = 0; p < block / page; p++) memcpy(want + block + p * page, want + 3 * block + p * page, strip * 2);
        EXPECT_MEM(now, N * block * 2, want, N * block * 2);
        cudaFree(kv.pages);
        free(want), free(now);
    }
}

TEST(cuda_pages, a_swap_out_and_in_elsewhere_moves_whole_blocks) {
    static const int32_t out[] = {2, 3, 4, 0, 6}, in[] = {5, 1, 0, 6, 7};
    enum { N = 8, MOVED = 5 };
    uint16_t *was, *host = NULL, *want;
    size_t block;
    struct qn_cuda_kv kv = pool(N, &was, &block);
    ASSERT_EQ(cudaHostAlloc((void **)&host, MOVED * block * 2, cudaHostAllocDefault), 0);
    qn_cuda_kv_swap_out(&kv, out, MOVED, host, NULL);
    ASSERT_EQ(cudaDeviceSynchronize(), 0);
    for (int i = 0; i < MOVED; i++) EXPECT_MEM(host + (size_t)i * block, block * 2, was + (size_t)out[i] * block, block * 2);
    qn_cuda_kv_swap_in(&kv, in, MOVED, host, NULL);
    uint16_t *now = rk_fetch(kv.pages, N * block * 2);
    want = malloc(N * block * 2);
    memcpy(want, was, N * block * 2);
    for (int i = 0; i < MOVED; i++) memcpy(want + (size_t)in[i] * block, was + (size_t)out[i] * block, block * 2);
    EXPECT_MEM(now, N * block * 2, want, N * block * 2);
    cudaFree(kv.pages), cudaFreeHost(host);
    free(was), free(now), free(want);
}
