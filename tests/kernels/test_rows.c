/* Row operations and attention of the CPU backend against the yardstick, bit for bit between instruction sets, and bit
 * for bit under every cut of a sequence into steps and beside any neighbours. */
#include "tests/kernels/kit.h"

TEST(rows, exp_is_within_its_stated_error) {
    enum { N = 200003 };
    static float x[N], y[N], z[N];
    int have = 0;
    for (int i = 0; i < N; i++) x[i] = -87.3f + 175.6f * (float)i / (float)(N - 1);
    x[0] = 0.0f, x[1] = -0.0f, x[2] = 1e-30f, x[3] = -87.0f;
    struct qn_model_desc *d = kit_desc(16, 1, 1, 4, 8);
    for (int s = 0; s < KIT_ISAS; s++) {
        struct qn_backend *b = kit_open(d, kit_isas[s], 1, 1, 1, 16);
        if (!b) continue;
        const struct qn_cpu_isa *isa = qn_cpu_of(b)->isa;
        isa->exp(y, x, N);
        double worst = 0;
        for (int i = 0; i < N; i++) worst = fmax(worst, fabs((double)y[i] / exp((double)x[i]) - 1));
        EXPECT_NEAR(worst, 0, 2e-7);
        EXPECT(y[0] == 1.0f && y[1] == 1.0f);
        float odd[5] = { -INFINITY, -1000.0f, NAN, INFINITY, 1000.0f }, o[5];
        isa->exp(o, odd, 5);
        EXPECT(o[0] == 0.0f && o[1] == 0.0f && isnan(o[2]) && o[3] > 1e38f && o[4] > 1e38f);
        for (int i = 0; i < 40; i++) { /* an element's value does not depend on where it lies */
            float one;
            isa->exp(&one, x + i * 31, 1);
            EXPECT(one == y[i * 31]);
        }
        if (have) EXPECT_MEM(y, sizeof y, z, sizeof z);
        memcpy(z, y, sizeof y);
        have = 1;
        b->ops->close(b);
    }
    kit_desc_free(d);
}

TEST(rows, quantised_blocks_hold_the_row) {
    struct kit_rng r = { 11, 0 };
    struct qn_model_desc *d = kit_desc(16, 1, 1, 4, 8);
    _Alignas(64) float x[96];
    uint8_t rec[3 * 3 * QN_AREC], other[sizeof rec];
    for (int s = 0, have = 0; s < KIT_ISAS; s++) {
        struct qn_backend *b = kit_open(d, kit_isas[s], 1, 1, 1, 16);
        if (!b) continue;
        struct kit_rng again = r;
        memset(rec, 0, sizeof rec);
        for (int c = 0; c < 3; c++) {
            kit_fill(&again, x, 96);
            if (c == 1) memset(x, 0, 32 * sizeof *x);
            qn_cpu_of(b)->isa->quant(x, 3, rec, 3, c);
            for (int k = 0; k < 96; k++) {
                const uint8_t *p = rec + k / 32 * 3 * QN_AREC;
                const float *f = (const float *)(p + 96);
                const int32_t *n = (const int32_t *)(f + 6);
                EXPECT_NEAR((double)f[c] * (int8_t)p[c * 32 + k % 32], (double)x[k], (double)f[c] * 0.50001);
                int sum0 = 0, sum1 = 0;
                for (int i = 0; i < 16; i++) sum0 += (int8_t)p[c * 32 + i], sum1 += (int8_t)p[c * 32 + 16 + i];
                EXPECT(n[c] == -128 * (sum0 + sum1) && n[3 + c] == -128 * sum0 && n[6 + c] == -128 * sum1);
                EXPECT(f[3 + c] == f[c] * (float)(sum0 + sum1));
            }
        }
        if (have) EXPECT_MEM(rec, sizeof rec, other, sizeof other);
        memcpy(other, rec, sizeof rec);
        have = 1;
        b->ops->close(b);
    }
    kit_desc_free(d);
}

/* Embedding, residual with and without a norm of its own, final norm: x afterwards. */
TEST(rows, embed_and_add_norm_follow_the_yardstick) {
    int widths[] = { 16, 30, 64, 576, 1536 };
    for (size_t wi = 0; wi < sizeof widths / sizeof *widths; wi++) {
        int d_model = widths[wi], rows = 23;
        struct kit_rng r = { 31, 0 };
        struct qn_tensor table = kit_tensor(&r, QN_F16, d_model, 50), post = kit_vector(&r, d_model), gain = kit_vector(&r, d_model);
        struct qn_model_desc *d = kit_desc(d_model, 1, 1, 4, 8);
        float *out[KIT_ISAS + 1], *y = malloc(sizeof *y * (size_t)rows * (size_t)d_model);
        kit_fill(&r, y, (size_t)rows * (size_t)d_model);
        for (int s = 0; s <= KIT_ISAS; s++) {
            out[s] = calloc((size_t)rows * (size_t)d_model, sizeof(float));
            struct qn_backend *b = kit_open(d, s < KIT_ISAS ? kit_isas[s] : NULL, 2, rows, 1, 16);
            if (!b) {
                free(out[s]);
                out[s] = NULL;
                continue;
            }
            struct qn_vec *x = b->ops->vec(b, d_model), *yv = b->ops->vec(b, d_model);
            struct qn_weight *p = kit_weight(b, &post, 1), *g = kit_weight(b, &gain, 1);
            struct qn_act *a = b->ops->act(b, d_model);
            struct kit_batch k;
            int32_t token[32];
            kit_rows(&k, rows);
            for (int i = 0; i < rows; i++) {
                token[i] = i * 7 % 50;
                memcpy(kit_row(b, yv, i), y + (size_t)i * (size_t)d_model, sizeof *y * (size_t)d_model);
            }
            k.b.token = token;
            b->ops->begin(b, &k.b);
            b->ops->embed(b, x, &table, 1.5f);
            b->ops->add_norm(b, x, NULL, NULL, 0.0f, g, 1e-6f, a);
            b->ops->add_norm(b, x, yv, NULL, 0.7f, g, 1e-6f, a);
            b->ops->add_norm(b, x, yv, p, 1.0f, NULL, 1e-6f, NULL);
            b->ops->end(b);
            for (int i = 0; i < rows; i++) memcpy(out[s] + (size_t)i * (size_t)d_model, kit_row(b, x, i), sizeof *y * (size_t)d_model);
            b->ops->weight_free(b, p), b->ops->weight_free(b, g);
            b->ops->close(b);
        }
        size_t n = (size_t)rows * (size_t)d_model;
        EXPECT_NEAR(kit_diff(out[KIT_ISAS], out[0], n), 0, 1e-5);
        for (int s = 1; s < KIT_ISAS; s++)
            if (out[s]) EXPECT_MEM(out[s], n * 4, out[0], n * 4);
        for (int s = 0; s <= KIT_ISAS; s++) free(out[s]);
        free(y), free((void *)(uintptr_t)table.data), free((void *)(uintptr_t)post.data), free((void *)(uintptr_t)gain.data);
        kit_desc_free(d);
    }
}

/* Attention over sequences cut into steps. Rows come from a fixed seed by (sequence, position), so every cut sees the same
 * inputs. */
enum { SEQS = 3, POS = 600, KV_BLOCKS = 121, SEQ_BLOCKS = POS / QN_KV_BLOCK + 1 };

struct attn_case {
    int heads, kv_heads, head_dim, window, rope_dim;
    enum qn_rope_kind kind;
    float softcap;
    int qk_norm;
    int len;                /* of the first sequence, <= POS */
    enum qn_kv_type kv;
};

static void attn_inputs(const struct attn_case *c, int seq, int pos, float *q, float *k, float *v) {
    struct kit_rng r = { (uint32_t)(seq * 1000 + pos), 0 };
    for (int i = 0; i < c->heads * c->head_dim; i++) q[i] = 2.0f * kit_f(&r);
    for (int i = 0; i < c->kv_heads * c->head_dim; i++) k[i] = 2.0f * kit_f(&r), v[i] = qn_f16_to_f32(qn_f32_to_f16(kit_f(&r)));
}

/* Runs the sequences up to len[s] positions each; the i-th step takes cut[i % n_cuts] positions of every sequence that is
 * among `with` (a bit set) and not done. out[s][pos] is the attention row. */
static void attn_run(const struct attn_case *c, const char *isa, int threads, const int *len, unsigned with, const int *cut, int n_cuts, float *out) {
    struct qn_model_desc *d = kit_desc(c->heads * c->head_dim, c->heads, c->kv_heads, c->head_dim, 8);
    d->rope_kind = c->kind, d->rope_dim = c->rope_dim, d->attn_softcap = c->softcap;
    d->window[1] = c->window, d->rope_set[1] = 1, d->rope_mscale[1] = 1.1f;
    int width = c->heads * c->head_dim, kv_width = c->kv_heads * c->head_dim, rows_max = SEQS * POS;
    struct qn_backend *b = kit_open_kv(d, isa, threads, rows_max, KV_BLOCKS, POS, c->kv);
    if (b) {
        struct qn_vec *q = b->ops->vec(b, width), *k = b->ops->vec(b, kv_width), *v = b->ops->vec(b, kv_width);
        struct qn_act *a = b->ops->act(b, width);
        struct kit_rng r = { 77, 0 };
        struct qn_tensor gain = kit_vector(&r, c->head_dim);
        struct qn_weight *g = c->qk_norm ? kit_weight(b, &gain, 1) : NULL;
        if (!kit_is_ref(b)) memset(qn_cpu_of(b)->kv, 0xff, qn_cpu_of(b)->kv_run * ((KV_BLOCKS + QN_KV_RUN - 1) / QN_KV_RUN)); /* NaN everywhere */
        static int32_t blocks[SEQS][SEQ_BLOCKS], token[SEQS * POS], pos[SEQS * POS];
        int at[SEQS] = { 0 };
        for (int s = 0; s < SEQS; s++)
            for (int i = 0; i < SEQ_BLOCKS; i++) blocks[s][i] = (i * SEQS + s) * 5 % KV_BLOCKS;
        for (int step = 0;; step++) {
            struct qn_batch_seq seqs[SEQS];
            struct qn_batch batch = { .token = token, .pos = pos, .seqs = seqs };
            int who[SEQS];
            for (int s = 0; s < SEQS; s++) {
                int n = cut[(step + s) % n_cuts];
                if (!(with >> s & 1) || at[s] == len[s]) continue;
                if (n > len[s] - at[s]) n = len[s] - at[s];
                for (int i = 0; i < n; i++) {
                    pos[batch.n_rows + i] = at[s] + i;
                    attn_inputs(c, s, at[s] + i, kit_row(b, q, batch.n_rows + i), kit_row(b, k, batch.n_rows + i), kit_row(b, v, batch.n_rows + i));
                }
                who[batch.n_seqs] = s;
                seqs[batch.n_seqs++] = (struct qn_batch_seq){ batch.n_rows, n, at[s] + n, blocks[s] };
                batch.n_rows += n;
            }
            if (batch.n_seqs == 0) break;
            b->ops->begin(b, &batch);
            b->ops->rope_kv(b, 1, q, k, v, g, g, 1e-6f);
            b->ops->attention(b, 1, q, a);
            b->ops->end(b);
            for (int i = 0; i < batch.n_seqs; i++)
                for (int r2 = 0; r2 < seqs[i].n_rows; r2++) {
                    const float *row = kit_is_ref(b) ? ((struct kit_ref_rows *)a)->v + (size_t)(seqs[i].row0 + r2) * (size_t)width
                                                     : qn_cpu_of(b)->attn_out.p + (size_t)(seqs[i].row0 + r2) * (size_t)qn_cpu_of(b)->attn_out.stride;
                    memcpy(out + ((size_t)who[i] * POS + (size_t)(at[who[i]] + r2)) * (size_t)width, row, sizeof *row * (size_t)width);
                }
            for (int i = 0; i < batch.n_seqs; i++) at[who[i]] += seqs[i].n_rows;
        }
        if (g) b->ops->weight_free(b, g);
        free((void *)(uintptr_t)gain.data);
        b->ops->close(b);
    }
    kit_desc_free(d);
}

/* A sanitizer makes all this twenty times slower: then without AVX2 and without steps of single rows. */
static int few(void) {
    const char *build = getenv("QN_BUILD");
    return build && strstr(build, "san") != NULL;
}

static void attn_check(const struct attn_case *c) {
    static const int odd[] = { 5, 1, 16, 2, 31 }, long_odd[] = { 300, 1, 6, 90, 2 }, single[] = { 1 }, whole[] = { POS };
    const int len[SEQS] = { c->len, c->len * 4 / 9, 17 };
    size_t width = (size_t)(c->heads * c->head_dim), n = SEQS * POS * width;
    float *ref = calloc(n, 4), *first = calloc(n, 4), *o = calloc(n, 4);
    attn_run(c, NULL, 1, len, 7, whole, 1, ref);
    attn_run(c, "generic", 1, len, 7, whole, 1, first);
    for (int s = 0; s < SEQS; s++) {
        /* The largest difference; for q8_0, where q is in int8 here and not there, their root mean square. */
        double e = (c->kv == QN_KV_Q8_0 ? kit_rms_diff : kit_diff)(ref + (size_t)s * POS * width, first + (size_t)s * POS * width, (size_t)len[s] * width);
        if (!(e <= 0.01))
            qn_test_fail(__FILE__, __LINE__, "%d/%d heads of %d, window %d, KV type %d: %.3g from the yardstick", c->heads, c->kv_heads, c->head_dim, c->window, c->kv, e);
    }
    for (int s = 0; s < KIT_ISAS; s++) {
        if (few() && s == 1) continue;
        const int *cut = c->len > 100 ? long_odd : odd;
        struct { const int *cut; int n_cuts, threads; unsigned with; } how[] = { { whole, 1, 2, 7 }, { single, 1, 2, 7 }, { cut, 5, 3, 7 }, { cut, 4, 1, 1 } };
        for (int h = 0; h < 4; h++) {
            if (few() && h == 1) continue;
            memset(o, 0, n * 4);
            attn_run(c, kit_isas[s], how[h].threads, len, how[h].with, how[h].cut, how[h].n_cuts, o);
            if (o[0] == 0.0f && o[1] == 0.0f) break; /* the processor lacks it */
            size_t m = how[h].with == 7 ? n : POS * width;
            if (memcmp(o, first, m * 4))
                qn_test_fail(__FILE__, __LINE__, "%d/%d heads of %d, window %d, KV type %d, %s: other bits under cut %d", c->heads, c->kv_heads, c->head_dim, c->window, c->kv, kit_isas[s], h);
        }
    }
    free(ref), free(first), free(o);
}

static void attn_check_types(struct attn_case c) {
    for (int t = QN_KV_AUTO; t < QN_KV_TYPES; t++) {
        c.kv = (enum qn_kv_type)t;
        if (!few() || t == QN_KV_AUTO || t == QN_KV_Q8_0) attn_check(&c);
    }
}

TEST_SLOW(rows, attention_of_small_and_odd_heads, 120) {
    attn_check_types((struct attn_case){ 4, 4, 4, 0, 4, QN_ROPE_NORM, 0, 0, 75, 0 });
    attn_check_types((struct attn_case){ 6, 2, 80, 0, 80, QN_ROPE_NEOX, 0, 1, 75, 0 });
    attn_check_types((struct attn_case){ 3, 1, 20, 9, 10, QN_ROPE_NORM, 0, 0, 75, 0 });
}
TEST_SLOW(rows, attention_as_llama_and_qwen_have_it, 120) {
    attn_check_types((struct attn_case){ 9, 3, 64, 0, 64, QN_ROPE_NORM, 0, 0, 75, 0 });
    attn_check_types((struct attn_case){ 14, 2, 64, 0, 64, QN_ROPE_NEOX, 0, 0, 75, 0 });
    attn_check_types((struct attn_case){ 4, 2, 128, 0, 128, QN_ROPE_NEOX, 0, 1, 75, 0 });
}
TEST_SLOW(rows, attention_with_windows_and_softcap, 120) {
    attn_check_types((struct attn_case){ 4, 1, 256, 20, 256, QN_ROPE_NEOX, 0, 1, 75, 0 });
    attn_check_types((struct attn_case){ 20, 1, 96, 16, 96, QN_ROPE_NEOX, 30.0f, 0, 75, 0 });
    attn_check_types((struct attn_case){ 2, 2, 64, 1, 64, QN_ROPE_NEOX, 0, 0, 75, 0 });
}
TEST_SLOW(rows, attention_over_several_chunks, 120) {
    attn_check_types((struct attn_case){ 3, 1, 32, 0, 32, QN_ROPE_NEOX, 0, 0, POS, 0 });
    attn_check_types((struct attn_case){ 7, 1, 16, 250, 16, QN_ROPE_NEOX, 0, 0, POS, 0 });
    attn_check_types((struct attn_case){ 2, 1, 40, 400, 40, QN_ROPE_NEOX, 20.0f, 0, POS, 0 });
}

/* The slot that byte `at` of a page belongs to, by the layout that cpu.h draws. */
static int slot_of(const struct qn_kv_page *p, size_t at) {
    int q8 = p->type == QN_KV_Q8_0;
    if (at >= p->k_scale) return (int)((at - p->k_scale) / 2 % 16);
    return at < p->v ? (int)(at / (q8 ? 4 : 2) % 16) : (int)((at - p->v) / ((size_t)p->hd * (q8 ? 1 : 2)));
}

TEST(rows, copied_blocks_attend_alike) {
    struct qn_model_desc *d = kit_desc(128, 2, 2, 48, 8);
    for (int k = 0; k < 2 * QN_KV_TYPES; k++) {
        struct qn_backend *b = kit_open_kv(d, "generic", 1, 16, 40, 32, (enum qn_kv_type)(k / 2));
        struct qn_cpu *c = qn_cpu_of(b);
        struct kit_rng r = { 1, 0 };
        size_t bytes = 2 * c->kv_run;
        for (size_t i = 0; i < bytes; i++) c->kv[i] = (uint8_t)kit_u32(&r);
        uint8_t *was = malloc(bytes);
        memcpy(was, c->kv, bytes);
        int n = k % 2 ? 16 : 5, changed = 0;
        b->ops->kv_copy(b, 1, 33, n);
        for (int l = 0; l < 2; l++)
            for (int h = 0; h < 2; h++) {
                uint8_t *from = qn_kv_page_at(c, 1, l, h), *to = qn_kv_page_at(c, 33, l, h);
                for (size_t i = 0; i < c->page.bytes; i++) {
                    int copied = slot_of(&c->page, i) < n;
                    EXPECT_EQ(to[i], copied ? from[i] : was[to + i - c->kv]);
                    changed += copied;
                }
                memcpy(was + (to - c->kv), to, c->page.bytes);
            }
        EXPECT_EQ(changed, 4 * (int)c->page.bytes * n / 16);
        EXPECT_MEM(c->kv, bytes, was, bytes); /* and nothing else */
        free(was);
        b->ops->close(b);
    }
    kit_desc_free(d);
}

TEST(rows, pages_cost_what_their_type_says) {
    static const struct { int head_dim; enum qn_kv_type type; int bytes; } want[] = { /* of a block, 2 layers, 3 heads, K and V */
        { 64, QN_KV_AUTO, 12 * 16 * 128 }, { 64, QN_KV_F16, 12 * 16 * 128 }, { 64, QN_KV_BF16, 12 * 16 * 128 }, { 64, QN_KV_Q8_0, 12 * 16 * 68 },
        { 80, QN_KV_F16, 12 * 16 * 160 }, { 80, QN_KV_Q8_0, 12 * 16 * 102 }, { 20, QN_KV_BF16, 12 * 16 * 64 },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct qn_model_desc *d = kit_desc(3 * want[i].head_dim, 3, 3, want[i].head_dim, 8);
        struct qn_backend *b = kit_open_kv(d, "generic", 1, 4, 10, 32, want[i].type);
        uint64_t kv = 0;
        b->ops->bytes(b, &kv);
        EXPECT_EQ(kv, 10 * want[i].bytes);
        EXPECT_EQ(qn_kv_block_bytes(d, want[i].type), want[i].bytes);
        b->ops->close(b);
        kit_desc_free(d);
    }
}

TEST(rows, bytes_tells_weights_and_pages) {
    struct qn_model_desc *d = kit_desc(256, 2, 1, 64, 8);
    struct qn_backend *b = kit_open(d, "generic", 1, 4, 10, 32);
    struct kit_rng r = { 2, 0 };
    struct qn_tensor t = kit_tensor(&r, QN_Q4_K, 256, 160);
    uint64_t kv = 0, before = b->ops->bytes(b, &kv);
    struct qn_weight *w = kit_weight(b, &t, 0);
    EXPECT_EQ(kv, 10 * 2 /* layers */ * 2 * 16 * 64 * 2);
    EXPECT_EQ(b->ops->bytes(b, &kv) - before, 10 /* tiles */ * 2368);
    b->ops->weight_free(b, w);
    b->ops->close(b);
    free((void *)(uintptr_t)t.data);
    kit_desc_free(d);
}
