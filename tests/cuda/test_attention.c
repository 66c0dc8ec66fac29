/* Attention on a card against its definition in double (attn_kit.h), bit for bit under every plan and beside any neighbours, and
 * with NaN wherever nobody should look. The planner: test_attention_plan.c. */
#include "tests/cuda/attn_kit.h"

/* Every row of a step against the definition; the largest share of the bound that was used. */
static double check_step(const struct world *w, const struct part *parts, int n_parts, const float *out) {
    int hd = w->sh.head_dim, row = 0;
    double most = 0, want[256], bound[256];
    for (int i = 0; i < n_parts; i++)
        for (int r = 0; r < parts[i].n_rows; r++, row++)
            for (int h = 0; h < w->sh.heads; h++) {
                const float *got = out + ((size_t)row * (size_t)w->sh.heads + (size_t)h) * (size_t)hd;
                int pos = parts[i].n_ctx - parts[i].n_rows + r;
                define(w, parts[i].seq, pos, h, want, bound);
                for (int d = 0; d < hd; d++) {
                    double off = fabs((double)got[d] - want[d]) / bound[d];
                    if (!(off <= most)) most = off;
                    if (!(off <= 1) && qn_test_fail(__FILE__, __LINE__, "seq %d pos %d head %d [%d]: %.9g, wanted %.9g +- %.3g", parts[i].seq, pos, h, d, (double)got[d], want[d], bound[d])) return most;
                }
            }
    return most;
}

static void check(struct shape sh, const int *n_ctx, int n_seqs, const struct part *parts, int n_parts, struct load load) {
    struct world *w = world_new(sh, n_seqs, n_ctx);
    struct qn_cuda_attn_plan plan;
    float *out = run_step(w, parts, n_parts, load, &plan);
    double used = check_step(w, parts, n_parts, out);
    printf("heads %d/%d of %d %s window %d cap %g bias %g: %d items, %d records, %.2f of the bound\n", sh.heads, sh.kv_heads, sh.head_dim, sh.bf16 ? "bf16" : "f16", sh.window, (double)sh.softcap,
           (double)sh.k_bias, plan.n_items, plan.n_records, used);
    free(out);
    world_free(w);
}

/* One row of every length beside each other. */
TEST_SLOW(attention, decodes_at_every_edge_of_tile_page_and_chunk, 120) {
    static const int n_ctx[] = {1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 513, 1000};
    enum { N = sizeof n_ctx / sizeof *n_ctx };
    struct part parts[N];
    for (int i = 0; i < N; i++) parts[i] = (struct part){i, 1, n_ctx[i]};
    static const struct shape shapes[] = {
        {4, 2, 64, 0, 0, 0, 0}, {4, 2, 64, 1, 0, 0, 0}, {8, 1, 128, 0, 0, 0, 0}, {3, 1, 128, 1, 100, 0, 0}, {2, 2, 80, 0, 256, 50, 0}, {4, 1, 256, 0, 0, 50, 0}, {1, 1, 256, 1, 17, 0, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check(shapes[i], n_ctx, N, parts, N, (struct load){100, 100, 0, 0});  /* split */
        if (i < 2) check(shapes[i], n_ctx, N, parts, N, (struct load){1, 0, 3, QN_CUDA_ATTN_WIDE}); /* walked, in a grid that is too large */
    }
}

/* Groups that share a tile, fill it, and are cut; odd head sizes. */
TEST_SLOW(attention, takes_any_number_of_heads_and_any_head_size, 120) {
    static const int n_ctx[] = {40, 300};
    static const struct part parts[] = {{0, 1, 40}, {1, 1, 290}, {1, 3, 300}};
    static const struct shape shapes[] = {
        {7, 1, 64, 0, 0, 0, 0},  {17, 1, 16, 0, 0, 0, 0}, {71, 1, 64, 0, 0, 0, 0}, {40, 1, 256, 1, 0, 0, 0}, {9, 3, 64, 1, 0, 0, 0},
        {5, 5, 1, 0, 0, 0, 0},   {6, 2, 30, 0, 0, 0, 0},  {6, 2, 33, 1, 0, 0, 0},  {2, 1, 96, 1, 33, 0, 0},  {3, 3, 112, 0, 0, 0, 0}, {2, 1, 192, 0, 0, 0, 0}, {2, 2, 254, 1, 0, 30, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(shapes[i], n_ctx, 2, parts, 3, (struct load){100, i % 2 ? 200 : 0, 0, 0});
}

/* Prompts in one go and in parts, from a fresh sequence and onto an old one. */
TEST_SLOW(attention, prefills_onto_any_context, 120) {
    static const int n_ctx[] = {70, 330, 1, 600};
    static const struct part parts[] = {{0, 70, 70}, {1, 90, 330}, {2, 1, 1}, {3, 17, 600}};
    static const struct shape shapes[] = {{4, 1, 64, 0, 0, 0, 0}, {2, 2, 64, 1, 40, 0, 0}, {2, 1, 128, 0, 300, 0, 0}, {3, 1, 128, 1, 0, 50, 0}, {1, 1, 80, 0, 0, 0, 0},
                                         {2, 1, 256, 0, 64, 0, 0}, {2, 2, 90, 1, 0, 0, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(shapes[i], n_ctx, 4, parts, 4, (struct load){i % 2 ? 60 : 1, 1000, 0, 0});
}

/* Biases of k as Qwen2 has them: scores of hundreds, most of it the same for all positions. */
TEST_SLOW(attention, large_keys_cost_no_more_than_their_rounding, 60) {
    static const int n_ctx[] = {300};
    static const struct part parts[] = {{0, 1, 300}, {0, 20, 290}};
    for (int bf16 = 0; bf16 < 2; bf16++) check((struct shape){4, 2, 64, bf16, 0, 0, 200}, n_ctx, 1, parts, 2, (struct load){8, 100, 0, 0});
}

/* --- the same bits ----------------------------------------------------------------------------------------------------- */

/* Row `pos` of sequence 0 out of a step in which its sequence has rows [from, end). */
static void row_bits(const struct world *w, int pos, int from, int end, const struct part *others, int n_others, struct load load, float *row) {
    struct part parts[SEQS_MAX];
    int at = 0, n = 0;
    for (; n < n_others / 2; n++) parts[n] = others[n], at += others[n].n_rows;
    parts[n++] = (struct part){0, end - from, end};
    for (int i = n_others / 2; i < n_others; i++) parts[n++] = others[i];
    size_t wide = (size_t)(w->sh.heads * w->sh.head_dim);
    float *out = run_step(w, parts, n, load, NULL);
    memcpy(row, out + (size_t)(at + pos - from) * wide, wide * sizeof *row);
    free(out);
}

TEST_SLOW(attention, a_row_has_the_same_bits_in_every_step, 200) {
    static const int n_ctx[] = {700, 90, 400};
    static const struct part others[] = {{1, 9, 90}, {2, 1, 400}};
    static const struct shape shapes[] = {{4, 2, 64, 0, 0, 0, 0}, {3, 1, 128, 1, 0, 30, 0}, {2, 2, 80, 0, 270, 0, 0}, {5, 1, 256, 0, 90, 0, 0}, {20, 1, 64, 1, 0, 0, 0}};
    static const int rows[] = {0, 255, 256, 650};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct world *w = world_new(shapes[i], 3, n_ctx);
        size_t bytes = (size_t)(w->sh.heads * w->sh.head_dim) * sizeof(float);
        float *want = malloc(bytes), *got = malloc(bytes);
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            int pos = rows[k];
            if (is_checked() && (i + k) % 4) continue;
            row_bits(w, pos, pos, pos + 1, NULL, 0, (struct load){1, 0, 0, 0}, want); /* alone, walked */
            for (int how = 0; how < 5; how++) {
                int before = (const int[]){0, 0, 3, 40, 2}[how], after = (const int[]){0, 0, 3, 23, 0}[how];
                int from = pos > before ? pos - before : 0, end = pos + after + 1 < n_ctx[0] ? pos + after + 1 : n_ctx[0];
                struct load load = how % 2 ? (struct load){1, 0, 0, 0} : (struct load){200, 2000, 0, 0};
                row_bits(w, pos, from, end, others, how ? 2 : 0, load, got);
                if (memcmp(want, got, bytes)) qn_test_fail(__FILE__, __LINE__, "shape %zu pos %d: another result in step %d", i, pos, how);
            }
        }
        free(want);
        free(got);
        world_free(w);
    }
}

/* --- numbers that are none ---------------------------------------------------------------------------------------------- */

static int n_bad(const float *x, int n) {
    int bad = 0;
    for (int i = 0; i < n; i++) bad += !isfinite(x[i]);
    return bad;
}

/* A NaN in one row's q stays there; infinite values of a position reach the rows that look at it and no other, whose bits are the same
 * as without. */
TEST_SLOW(attention, nan_reaches_only_rows_that_look_at_it, 120) {
    static const int n_ctx[] = {300, 20};
    static const struct shape shapes[] = {{4, 2, 64, 0, 0, 0, 0}, {4, 2, 64, 1, 30, 0, 0}, {2, 1, 256, 0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct world *w = world_new(shapes[i], 2, n_ctx);
        int hd = w->sh.head_dim, wide = w->sh.heads * hd, group = w->sh.heads / w->sh.kv_heads;
        for (int rows = 4; rows <= 48; rows += 44) { /* narrow and wide */
            struct part parts[] = {{0, rows, 300}, {1, 1, 20}};
            int odd = 300 - rows + 2; /* position */
            struct load load = {rows == 4 ? 100 : 1, 100, 0, 0};
            float *clean = run_step(w, parts, 2, load, NULL);

            float *q = w->q[0] + (size_t)odd * (size_t)wide + hd - 1;
            float was = *q;
            *q = NAN;
            float *out = run_step(w, parts, 2, load, NULL);
            *q = was;
            EXPECT_EQ(n_bad(out + 2 * wide, hd), hd);
            memcpy(out + 2 * wide, clean + 2 * wide, (size_t)hd * sizeof *out);
            EXPECT(!memcmp(out, clean, (size_t)((rows + 1) * wide) * sizeof *out));
            free(out);

            uint16_t *v = w->v[0] + (size_t)(odd * w->sh.kv_heads * hd + 3), v_was = *v, inf = w->sh.bf16 ? 0x7f80 : 0xfc00; /* KV head 0 */
            uint16_t *v2 = v + 37, v2_was = *v2; /* another lane's */
            *v = *v2 = inf;
            write_pages(w, 0, odd, odd + 1);
            out = run_step(w, parts, 2, load, NULL);
            *v = v_was, *v2 = v2_was;
            write_pages(w, 0, odd, odd + 1);
            for (int r = 0; r < rows; r++) {
                int looks = r >= 2 && (w->sh.window == 0 || r - 2 < w->sh.window);
                for (int h = 0; h < w->sh.heads; h++) {
                    float *x = out + r * wide + h * hd, *c = clean + r * wide + h * hd;
                    if (looks && h < group) EXPECT(!isfinite(x[3]) && !isfinite(x[40]));
                    else EXPECT(!memcmp(x, c, (size_t)hd * sizeof *x));
                }
            }
            EXPECT(!memcmp(out + rows * wide, clean + rows * wide, (size_t)wide * sizeof *out));
            free(out);
            free(clean);
        }
        world_free(w);
    }
}
