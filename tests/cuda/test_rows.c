/* Norms, quantising and narrowing on the card against plain loops in double, written from backend.h and step.h.
 *
 * Bounds, u = 2^-24. A sum of squares of n <= 4 * NV elements a thread, then two butterflies of 5: relative error below (16 + 10) u, half of
 * it in the root; division, root, the sum with eps and two products add 6 u: a normed value is within 20 u, 24 u with the gain's own
 * rounding and slack. The scales of an act follow: d within 26 u, so q (at most 127) is off its exact value by 127 * 52 u < 5e-4 beyond the
 * rounding of 1/2. f16: 2^-11 relative, 2^-25 of the scale absolute below the normal numbers; bf16: 2^-8 relative (8 significant bits). */
#include "tests/cuda/rows_kit.h"

#include <float.h>

#define U 0x1p-24

enum { MORE = 3 /* rows behind the count */ };

struct act_host { int8_t *q; float *d; int16_t *sum; uint16_t *h[2]; float *h_scale; };

static struct qn_cuda_act act_open(int width, int rows, int planes) {
    struct qn_cuda_act a = {.width = width, .stride = (width + 127) / 128 * 128};
    size_t n = (size_t)rows * (size_t)a.stride;
    a.q = rk_device(NULL, n), a.d = rk_device(NULL, n / 32 * 4), a.sum = rk_device(NULL, n / 16 * 2);
    if (planes & 1) a.h[0] = rk_device(NULL, n * 2), a.h_scale = rk_device(NULL, (size_t)rows * 4);
    if (planes & 2) a.h[1] = rk_device(NULL, n * 2);
    return a;
}

static struct act_host act_fetch(const struct qn_cuda_act *a, int rows) {
    size_t n = (size_t)rows * (size_t)a->stride;
    return (struct act_host){rk_fetch(a->q, n), rk_fetch(a->d, n / 32 * 4), rk_fetch(a->sum, n / 16 * 2),
                             {a->h[0] ? rk_fetch(a->h[0], n * 2) : NULL, a->h[1] ? rk_fetch(a->h[1], n * 2) : NULL},
                             a->h[0] ? rk_fetch(a->h_scale, (size_t)rows * 4) : NULL};
}

static void act_close(struct qn_cuda_act *a, struct act_host *h) {
    void *dev[] = {a->q, a->d, a->sum, a->h[0], a->h[1], a->h_scale}, *host[] = {h->q, h->d, h->sum, h->h[0], h->h[1], h->h_scale};
    for (int i = 0; i < 6; i++) cudaFree(dev[i]), free(host[i]);
}

/* 32 entries of row r against the exact values want (width beyond: zeros); `rel` is what they may be off already. */
static int block_is(const struct qn_cuda_act *a, const struct act_host *h, int r, int b, const double *want, double rel) {
    size_t at = (size_t)r * (size_t)a->stride + (size_t)b * 32;
    double v[32], most = 0;
    int bad = 0, wrong = 0;
    for (int i = 0; i < 32; i++) {
        v[i] = b * 32 + i < a->width ? want[b * 32 + i] : 0;
        bad |= !isfinite(v[i]);
        if (fabs(v[i]) > most) most = fabs(v[i]);
    }
    double d = bad ? (double)NAN : most > 1e-30 ? most / 127 : 0;
    wrong |= bad ? !isnan(h->d[at / 32]) : !(fabs((double)h->d[at / 32] - d) <= d * (rel + 2 * U));
    for (int s = 0; s < 2; s++) {
        int sum = 0;
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            int q = h->q[at + (size_t)i];
            wrong |= bad || d <= 0 ? q != 0 : !(fabs(q - v[i] / d) <= 0.5 + 127 * 2 * (rel + U));
            sum += q;
        }
        wrong |= h->sum[at / 16 + (size_t)s] != sum;
    }
    return !wrong;
}

/* The 16-bit planes of row r. */
static int planes_are(const struct qn_cuda_act *a, const struct act_host *h, int r, const double *want, double rel) {
    double most = 0, scale = h->h[0] ? (double)h->h_scale[r] : 1;
    int wrong = 0, all = 1, e = 0;
    for (int i = 0; i < a->width; i++) all &= isfinite(want[i]), most = fabs(want[i]) > most ? fabs(want[i]) : most;
    wrong |= !(frexp(scale, &e) == 0.5);
    if (!h->h[0] || !all || most == 0) wrong |= scale != 1;
    else if (most > 0x1p-110) wrong |= !(most / scale >= 0x1p14 * (1 - rel) && most / scale <= 0x1p15 * (1 + rel));
    for (int i = 0; i < a->stride; i++) {
        size_t at = (size_t)r * (size_t)a->stride + (size_t)i;
        double w = i < a->width ? want[i] : 0, f = h->h[0] ? (double)qn_f16_to_f32(h->h[0][at]) * scale : w, b = h->h[1] ? (double)qn_bf16_to_f32(h->h[1][at]) : w;
        if (isnan(w)) wrong |= !isnan(f) || !isnan(b);
        else if (isinf(w)) wrong |= f != w || b != w;
        else if (all) wrong |= !(fabs(f - w) <= fabs(w) * (0x1p-11 + rel) + scale * 0x1p-25) || !(fabs(b - w) <= fabs(w) * (0x1p-8 + rel) + 0x1p-134);
    }
    return !wrong;
}

static void expect_act(const struct qn_cuda_act *a, const struct act_host *h, int r, const double *want, double rel, const char *what) {
    for (int b = 0; b < a->stride / 32; b++)
        if (!block_is(a, h, r, b, want, rel)) {
            qn_test_fail(__FILE__, __LINE__, "%s: width %d, row %d, block %d", what, a->width, r, b);
            return;
        }
    if (!planes_are(a, h, r, want, rel)) qn_test_fail(__FILE__, __LINE__, "%s: width %d, row %d: 16-bit planes", what, a->width, r);
}

static void expect_rest_untouched(const struct qn_cuda_act *a, const struct act_host *h, int n, int rows) {
    size_t from = (size_t)n * (size_t)a->stride, more = (size_t)(rows - n) * (size_t)a->stride;
    EXPECT(rk_untouched(h->q + from, more) && rk_untouched(h->d + from / 32, more / 32 * 4) && rk_untouched(h->sum + from / 16, more / 16 * 2));
    for (int k = 0; k < 2; k++) EXPECT(!h->h[k] || rk_untouched(h->h[k] + from, more * 2));
    EXPECT(!h->h[0] || rk_untouched(h->h_scale + n, (size_t)(rows - n) * 4));
}

static double inv_rms(const float *x, int n, float eps) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return 1 / sqrt(sum / n + (double)eps);
}

struct norm_case { int width, rows, with_y, with_post, with_act, planes; float scale, size; };

/* x after the kernel against x + scale * norm?(y); then the act against the norm of the x that the card has. */
static void run_norm(const struct norm_case *c, uint32_t seed) {
    struct kit_rng g = {seed, 0};
    int all = c->rows + MORE, d = c->width;
    size_t n = (size_t)all * (size_t)d, row_bytes = (size_t)d * sizeof(float);
    float *x = rk_random(&g, n, c->size), *y = rk_random(&g, n, 0.5f), *post = rk_random(&g, (size_t)d, 1), *gain = rk_random(&g, (size_t)d, 1), eps = 1e-5f;
    double *want = malloc((size_t)d * sizeof *want);
    struct qn_cuda_vec dx = {d, rk_device(x, n * 4)}, dy = {d, rk_device(y, n * 4)};
    float *dpost = rk_device(post, row_bytes), *dgain = rk_device(gain, row_bytes);
    struct qn_cuda_act a = act_open(d, all, c->planes);
    struct rk_step s = rk_step_open(c->rows, 0, NULL);
    qn_cuda_add_norm(&dx, c->with_y ? &dy : NULL, c->with_post ? dpost : NULL, c->scale, c->with_act ? dgain : NULL, eps,
                     c->with_act ? &a : NULL, &s.step, all - 1, NULL);
    float *now = rk_fetch(dx.v, n * 4);
    struct act_host h = act_fetch(&a, all);
    for (int r = 0; r < c->rows; r++) {
        const float *xr = x + (size_t)r * (size_t)d, *yr = y + (size_t)r * (size_t)d, *nr = now + (size_t)r * (size_t)d;
        double inv = c->with_post ? inv_rms(yr, d, eps) : 1;
        int wrong = 0;
        for (int i = 0; i < d; i++) {
            double add = c->with_y ? (double)c->scale * (double)yr[i] * inv * (c->with_post ? (double)post[i] : 1) : 0, sum = (double)xr[i] + add;
            wrong |= !(fabs((double)nr[i] - sum) <= fabs(add) * 24 * U + fabs(sum) * U);
        }
        if (wrong) qn_test_fail(__FILE__, __LINE__, "x: width %d, row %d, y %d, post %d", d, r, c->with_y, c->with_post);
        inv = inv_rms(nr, d, eps);
        for (int i = 0; i < d; i++) want[i] = (double)nr[i] * inv * (double)gain[i];
        if (c->with_act) expect_act(&a, &h, r, want, 24 * U, "norm");
    }
    EXPECT_MEM(now + (size_t)c->rows * (size_t)d, (size_t)MORE * row_bytes, x + (size_t)c->rows * (size_t)d, (size_t)MORE * row_bytes);
    if (c->with_act) expect_rest_untouched(&a, &h, c->rows, all);
    act_close(&a, &h);
    rk_step_close(&s);
    cudaFree(dx.v), cudaFree(dy.v), cudaFree(dpost), cudaFree(dgain);
    free(x), free(y), free(post), free(gain), free(want), free(now);
}

TEST_SLOW(cuda_rows, norms_as_the_definition_has_them, 60) {
    static const int widths[] = {1, 4, 30, 32, 36, 127, 128, 130, 512, 513, 576, 1024, 1100, 2048, 2052, 4096, 5120, 8192, 12288, 16384};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int k = 0; k < 6; k++) {
            const struct norm_case c = {.width = widths[i], .rows = k == 0 ? 1 : k, .with_y = k > 0, .with_post = k >= 2 && k != 4, .with_act = k != 3, .planes = k % 4,
                                        .scale = k == 2 ? 0.22f : 1, .size = k == 5 ? 30 : 1};
            if (widths[i] <= 4096 || k < 3) run_norm(&c, (uint32_t)(100 * i) + (uint32_t)k);
        }
}

TEST(cuda_rows, no_rows_and_no_bound_do_nothing) {
    run_norm(&(struct norm_case){.width = 64, .rows = 0, .with_y = 1, .with_act = 1, .planes = 3, .scale = 1, .size = 1}, 1);
    struct qn_cuda_vec x = {64, rk_device(NULL, 256)};
    struct qn_cuda_act a = act_open(64, 1, 3);
    struct rk_step s = rk_step_open(1, 1, (const int32_t[]){0});
    qn_cuda_quantise(&x, &a, &s.step, 0, NULL);
    qn_cuda_add_norm(&x, NULL, NULL, 1, x.v, 1, &a, &s.step, 0, NULL);
    qn_cuda_norm_out(&x, x.v, 1, &a, &s.step, 0, NULL);
    qn_cuda_narrow(&x, &s.step, 0, NULL);
    struct act_host h = act_fetch(&a, 1);
    expect_rest_untouched(&a, &h, 0, 1);
    act_close(&a, &h);
    rk_step_close(&s);
    cudaFree(x.v);
}

/* One row: sizes from denormals to the edge of the floats, zeros, NaN and infinities here and there. */
static float hostile(struct kit_rng *g, int kind) {
    static const float size[] = {1, 1e-3f, 1e4f, 1e-31f, 1e-29f, 1e-42f, 1e30f, 3e38f, 0};
    float x = kit_f(g) * size[kind % 9];
    if (kind == 9 && kit_u32(g) % 50 == 0) return NAN;
    if (kind == 10 && kit_u32(g) % 50 == 0) return kit_u32(g) % 2 ? INFINITY : -INFINITY;
    if (kind == 11) return -0.0f;
    return kind >= 9 ? kit_f(g) : x;
}

TEST_SLOW(cuda_rows, quantises_hostile_rows_in_every_form, 60) {
    static const int widths[] = {1, 31, 32, 100, 128, 576, 1030, 1536, 4864};
    enum { ROWS = 12 };
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int planes = 0; planes < 4; planes++) {
            struct kit_rng g = {(uint32_t)(10 * i) + (uint32_t)planes, 0};
            int d = widths[i], all = ROWS + MORE;
            float *x = rk_random(&g, (size_t)all * (size_t)d, 1);
            double *want = malloc((size_t)d * sizeof *want);
            for (int r = 0; r < ROWS; r++)
                for (int k = 0; k < d; k++) x[r * d + k] = hostile(&g, r);
            struct qn_cuda_vec dx = {d, rk_device(x, (size_t)all * (size_t)d * 4)};
            struct qn_cuda_act a = act_open(d, all, planes);
            struct rk_step s = rk_step_open(ROWS, 0, NULL);
            qn_cuda_quantise(&dx, &a, &s.step, all, NULL);
            struct act_host h = act_fetch(&a, all);
            for (int r = 0; r < ROWS; r++) {
                for (int k = 0; k < d; k++) want[k] = (double)x[r * d + k];
                expect_act(&a, &h, r, want, 0, "quantise");
            }
            expect_rest_untouched(&a, &h, ROWS, all);
            act_close(&a, &h);
            rk_step_close(&s);
            cudaFree(dx.v);
            free(x), free(want);
        }
}

/* The forms of `n` of the rows, in one launch. */
static struct act_host norm_rows(const float *x, const float *y, int d, int first, int n, struct qn_cuda_act *a) {
    size_t bytes = (size_t)n * (size_t)d * 4;
    struct qn_cuda_vec dx = {d, rk_device(x + (size_t)first * (size_t)d, bytes)}, dy = {d, rk_device(y + (size_t)first * (size_t)d, bytes)};
    float *gain = rk_device(y, (size_t)d * 4);
    struct rk_step s = rk_step_open(n, 0, NULL);
    *a = act_open(d, n, 3);
    qn_cuda_add_norm(&dx, &dy, gain, 0.7f, gain, 1e-6f, a, &s.step, n, NULL);
    struct act_host h = act_fetch(a, n);
    rk_step_close(&s);
    cudaFree(dx.v), cudaFree(dy.v), cudaFree(gain);
    return h;
}

TEST(cuda_rows, a_row_has_the_same_bits_among_others) {
    enum { D = 1100, ROWS = 7 };
    struct kit_rng g = {5, 0};
    float *x = rk_random(&g, ROWS * D, 1), *y = rk_random(&g, ROWS * D, 1);
    x[3 * D + 5] = NAN; /* one row's trouble is no other row's */
    struct qn_cuda_act all, one;
    struct act_host a = norm_rows(x, y, D, 0, ROWS, &all);
    for (int r = 0; r < ROWS; r++) {
        struct act_host b = norm_rows(x, y, D, r, 1, &one);
        size_t n = (size_t)one.stride;
        EXPECT_MEM(a.q + (size_t)r * n, n, b.q, n);
        EXPECT_MEM(a.d + (size_t)r * (n / 32), n / 8, b.d, n / 8);
        EXPECT_MEM(a.sum + (size_t)r * (n / 16), n / 8, b.sum, n / 8);
        for (int k = 0; k < 2; k++) EXPECT_MEM(a.h[k] + (size_t)r * n, n * 2, b.h[k], n * 2);
        EXPECT_MEM(a.h_scale + r, 4, b.h_scale, 4);
        EXPECT(r != 3 || isnan(b.d[0]));
        act_close(&one, &b);
    }
    act_close(&all, &a);
    free(x), free(y);
}

TEST(cuda_rows, the_wanted_rows_are_normed_side_by_side) {
    static const int32_t rows[] = {1, 4, 5, 9};
    enum { D = 580, ALL = 10, N = 4 };
    struct kit_rng g = {6, 0};
    float *x = rk_random(&g, ALL * D, 3), *gain = rk_random(&g, D, 1);
    double want[D];
    struct qn_cuda_vec dx = {D, rk_device(x, ALL * D * 4)};
    float *dgain = rk_device(gain, D * 4);
    struct qn_cuda_act a = act_open(D, N + 1, 1);
    struct rk_step s = rk_step_open(ALL, N, rows);
    qn_cuda_norm_out(&dx, dgain, 1e-5f, &a, &s.step, N + 1, NULL);
    struct act_host h = act_fetch(&a, N + 1);
    float *now = rk_fetch(dx.v, ALL * D * 4);
    for (int i = 0; i < N; i++) {
        const float *row = x + rows[i] * D;
        double inv = inv_rms(row, D, 1e-5f);
        for (int k = 0; k < D; k++) want[k] = (double)row[k] * inv * (double)gain[k];
        expect_act(&a, &h, i, want, 24 * U, "norm_out");
    }
    expect_rest_untouched(&a, &h, N, N + 1);
    EXPECT_MEM(now, ALL * D * 4, x, ALL * D * 4);
    act_close(&a, &h);
    rk_step_close(&s);
    cudaFree(dx.v), cudaFree(dgain);
    free(x), free(gain), free(now);
}

TEST(cuda_rows, narrowing_moves_rows_down_and_leaves_the_rest) {
    static const int32_t lists[][9] = {{0}, {7}, {0, 1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 2, 3, 6, 9, 10, 11}, {3, 4, 5, 6, 7, 11}};
    static const int counts[] = {1, 1, 9, 9, 7, 6}, widths[] = {1, 4, 30, 64, 255, 256, 1000};
    enum { ALL = 12 };
    for (int l = 0; l < 6; l++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            struct kit_rng g = {(uint32_t)l, 0};
            size_t d = (size_t)widths[w];
            float *x = rk_random(&g, ALL * d, 1);
            struct qn_cuda_vec v = {widths[w], rk_device(x, ALL * d * 4)};
            struct rk_step s = rk_step_open(ALL, counts[l], lists[l]);
            qn_cuda_narrow(&v, &s.step, ALL, NULL);
            float *now = rk_fetch(v.v, ALL * d * 4);
            for (int i = 0; i < ALL; i++) EXPECT_MEM(now + (size_t)i * d, d * 4, x + (size_t)(i < counts[l] ? lists[l][i] : i) * d, d * 4);
            rk_step_close(&s);
            cudaFree(v.v);
            free(x), free(now);
        }
}
