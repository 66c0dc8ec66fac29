/* schema: the digit automata of numbers against arithmetic. Every integer of a range, and decimals of up to three digits after the point,
 * are written down and asked for; whether they lie within random bounds is decided by comparing scaled integers. */
#include <jansson.h>

#include "api/schema.h"
#include "engine/base/rng.h"
#include "engine/grammar/constraint.h"
#include "tests/run.h"

enum { SPAN = 1200, DECIMALS = 1500 };

static struct qn_constraint *compile(const char *schema) {
    struct qn_grammar *g;
    struct qn_constraint *c = NULL;
    struct qn_refusal r = {0};
    struct qn_err err = {0};
    qn_gnode root;
    json_t *j = json_loads(schema, 0, NULL);
    ASSERT(j != NULL);
    ASSERT_EQ(qn_grammar_new(&g, NULL), 0);
    if (qn_schema_node(g, j, NULL, "schema", &root, &r) < 0) qn_grammar_free(g);
    else ASSERT_EQ(qn_constraint_new(&c, g, root, NULL, &err), 0);
    json_decref(j);
    return c;
}

static int takes(struct qn_constraint *c, const char *text) {
    if (!c) return 0; /* no number lies within */
    qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), text, strlen(text));
    return s != QN_C_DEAD && qn_constraint_accepts(c, s);
}

static uint32_t draw(uint32_t round, uint32_t lane, uint32_t below) { return (uint32_t)(qn_rng_uniform(11, 0, round, lane) * (float)below); }
static int64_t between(uint32_t round, uint32_t lane, int64_t lo, int64_t hi) { return lo + draw(round, lane, (uint32_t)(hi - lo + 1)); }

struct range { /* in units of 10^-scale */
    int64_t lo, hi, step;
    int has_lo, has_hi, open_lo, open_hi;
};

static int inside(const struct range *r, int64_t v) {
    if (r->has_lo && (r->open_lo ? v <= r->lo : v < r->lo)) return 0;
    if (r->has_hi && (r->open_hi ? v >= r->hi : v > r->hi)) return 0;
    return r->step == 0 || v % r->step == 0;
}

/* v / 10^scale, exactly; `pad`: with trailing zeros. */
static const char *spell(char *buf, int64_t v, int scale, int pad) {
    int64_t unit = scale == 3 ? 1000 : scale == 2 ? 100 : scale == 1 ? 10 : 1, a = v < 0 ? -v : v;
    int n = snprintf(buf, 40, "%s%lld", v < 0 ? "-" : "", (long long)(a / unit));
    if (scale) n += snprintf(buf + n, 20, ".%0*lld", scale, (long long)(a % unit));
    while (scale && !pad && buf[n - 1] == '0') buf[--n] = 0;
    if (buf[n - 1] == '.') buf[--n] = 0;
    return buf;
}

static struct qn_constraint *within(const char *type, const struct range *r, int scale) {
    char text[400], a[64], b[64], c[64];
    int n = snprintf(text, sizeof text, "{\"type\":\"%s\"", type);
    if (r->has_lo) n += snprintf(text + n, 100, ",\"%s\":%s", r->open_lo ? "exclusiveMinimum" : "minimum", spell(a, r->lo, scale, 0));
    if (r->has_hi) n += snprintf(text + n, 100, ",\"%s\":%s", r->open_hi ? "exclusiveMaximum" : "maximum", spell(b, r->hi, scale, 0));
    if (r->step) n += snprintf(text + n, 100, ",\"multipleOf\":%s", spell(c, r->step, scale, 0));
    snprintf(text + n, 4, "}");
    return compile(text);
}

static struct range random_range(uint32_t round, int64_t span, int steps) {
    struct range r = {between(round, 0, -span, span), between(round, 1, -span, span), 0, draw(round, 2, 4) > 0, draw(round, 3, 4) > 0,
                      draw(round, 4, 2) > 0, draw(round, 5, 2) > 0};
    if (steps && draw(round, 6, 2)) r.step = between(round, 7, 1, 60);
    return r;
}

TEST_SLOW(schema_number, integers_lie_within_their_bounds, 120) {
    char text[64];
    for (uint32_t round = 0; round < 150; round++) {
        struct range r = random_range(round, SPAN - 100, 1);
        struct qn_constraint *c = within("integer", &r, 0);
        int64_t some = 0;
        for (int64_t v = -SPAN; v <= SPAN; v++) {
            int want = inside(&r, v);
            some += want;
            if (takes(c, spell(text, v, 0, 0)) != want)
                qn_test_fail(__FILE__, __LINE__, "%s in %lld..%lld open %d %d step %lld: wanted %d", text, (long long)r.lo, (long long)r.hi, r.open_lo,
                             r.open_hi, (long long)r.step, want);
        }
        EXPECT((c != NULL) || some == 0);
        qn_constraint_unref(c);
    }
}

TEST_SLOW(schema_number, decimals_lie_within_their_bounds, 120) {
    char text[64];
    for (uint32_t round = 0; round < 120; round++) {
        int scale = (int)draw(round, 9, 4);
        struct range r = random_range(round, 2500, 1);
        struct qn_constraint *c = within("number", &r, scale);
        for (uint32_t i = 0; i < DECIMALS; i++) {
            int64_t v = i < 40 ? (i % 2 ? r.lo : r.hi) + (int64_t)(i / 4) - 5 : between(round * DECIMALS + i, 20, -4000, 4000);
            int pad = draw(round * DECIMALS + i, 21, 2) > 0, want = inside(&r, v);
            spell(text, v, scale, pad);
            if (strncmp(text, "-0", 2) == 0 && strspn(text, "-0.") == strlen(text)) continue; /* there is no negative zero */
            if (takes(c, text) != want)
                qn_test_fail(__FILE__, __LINE__, "%s in %lld..%lld of scale %d open %d %d step %lld: wanted %d", text, (long long)r.lo, (long long)r.hi,
                             scale, r.open_lo, r.open_hi, (long long)r.step, want);
        }
        qn_constraint_unref(c);
    }
}

TEST(schema_number, a_bound_that_a_double_cannot_tell_from_is_kept_away_from) {
    struct qn_constraint *c = compile("{\"type\":\"number\",\"exclusiveMinimum\":0.1,\"maximum\":1e-1}");
    EXPECT(c == NULL);
    c = compile("{\"type\":\"number\",\"exclusiveMinimum\":0.1,\"maximum\":5}");
    EXPECT(takes(c, "0.11") && takes(c, "0.1000000001"));
    EXPECT(!takes(c, "0.1") && !takes(c, "0.10000000000000000001"));
    qn_constraint_unref(c);
    c = compile("{\"type\":\"number\",\"minimum\":1e300}");
    EXPECT(c == NULL);
    c = compile("{\"type\":\"number\",\"minimum\":-1e300,\"exclusiveMaximum\":1e-60}");
    EXPECT(takes(c, "0") && takes(c, "-12.5") && !takes(c, "0.000000000001"));
    qn_constraint_unref(c);
}

TEST(schema_number, what_is_written_can_be_read_as_64_bits) {
    struct qn_constraint *c = compile("{\"type\":\"integer\"}");
    EXPECT(takes(c, "999999999999999999") && takes(c, "-999999999999999999") && takes(c, "0"));
    EXPECT(!takes(c, "1000000000000000000") && !takes(c, "-0") && !takes(c, "01") && !takes(c, "1.0") && !takes(c, "1e2") && !takes(c, "+1"));
    qn_constraint_unref(c);
    c = compile("{\"type\":\"number\"}");
    EXPECT(takes(c, "1.5e10") && takes(c, "-2E-3") && takes(c, "3") && !takes(c, "1e400") && !takes(c, "1.") && !takes(c, ".5"));
    qn_constraint_unref(c);
}

TEST(schema_number, large_divisors) {
    struct qn_constraint *c = compile("{\"type\":\"integer\",\"multipleOf\":25000}");
    EXPECT(takes(c, "0") && takes(c, "25000") && takes(c, "-1000000000000") && !takes(c, "20000") && !takes(c, "25"));
    qn_constraint_unref(c);
    c = compile("{\"type\":\"number\",\"multipleOf\":0.01}");
    EXPECT(takes(c, "19.99") && takes(c, "0.1") && takes(c, "5") && takes(c, "0.070") && !takes(c, "0.001"));
    qn_constraint_unref(c);
    EXPECT(compile("{\"type\":\"integer\",\"multipleOf\":7919}") == NULL);
}
