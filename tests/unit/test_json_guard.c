/* The scan before jansson, with jansson as the yardstick for what is JSON. */
#include "api/json_guard.h"
#include "tests/run.h"

static int parse(const char *s, size_t n, struct qn_refusal *r) {
    json_t *v = NULL;
    *r = (struct qn_refusal){0};
    int rc = qn_json_parse(&v, s, n, r);
    json_decref(v);
    return rc;
}

static char *nested(int depth, size_t *n) { /* {"a":[[…]]}: depth levels in all */
    char *s = malloc((size_t)depth * 2 + 16);
    size_t k = (size_t)sprintf(s, "{\"a\":");
    for (int i = 1; i < depth; i++) s[k++] = '[';
    for (int i = 1; i < depth; i++) s[k++] = ']';
    s[k++] = '}';
    *n = k;
    return s;
}

TEST(json_guard, depth_at_the_limit_and_one_more) {
    struct qn_refusal r;
    size_t n;
    char *s = nested(QN_JSON_DEPTH_MAX, &n);
    EXPECT_EQ(parse(s, n, &r), 0);
    free(s);
    s = nested(QN_JSON_DEPTH_MAX + 1, &n);
    EXPECT(parse(s, n, &r) < 0);
    EXPECT_STR(r.code, "invalid_json");
    EXPECT_EQ(r.status, 400);
    free(s);
}

TEST(json_guard, values_at_the_limit_and_one_more) {
    for (int more = 0; more < 2; more++) {
        int n_values = QN_JSON_NODES_MAX - 2 + more; /* the object and the array count too */
        char *s = malloc((size_t)n_values * 2 + 16);
        size_t n = (size_t)sprintf(s, "{\"a\":[");
        for (int i = 0; i < n_values; i++) s[n++] = '1', s[n++] = i + 1 < n_values ? ',' : ']';
        s[n++] = '}';
        struct qn_refusal r;
        EXPECT_EQ(parse(s, n, &r) < 0, more);
        free(s);
    }
}

TEST(json_guard, brackets_in_strings_do_not_count) {
    struct qn_refusal r;
    char s[512];
    size_t n = (size_t)sprintf(s, "{\"a\":\"");
    for (int i = 0; i < 200; i++) s[n++] = '[';
    n += (size_t)sprintf(s + n, "\\\"[[{\\\\\"}");
    EXPECT_EQ(parse(s, n, &r), 0);
}

static long count(const json_t *v) {
    long n = 1;
    size_t i;
    const char *k;
    json_t *e;
    if (json_is_array(v)) json_array_foreach(v, i, e) n += count(e);
    if (json_is_object(v)) json_object_foreach((json_t *)(uintptr_t)v, k, e) n += count(e);
    return n;
}

/* The scan's count is the number of values that jansson makes, for every shape of text. */
TEST(json_guard, counts_what_the_parser_makes) {
    static const char *const texts[] = {
        "{}",
        "{\"a\":1}",
        " { \"a\" : [ 1 , 2.5e-3 , true , null , \"x\" , { } , [ ] ] , \"b\" : { \"c\" : \"d\" } } ",
        "{\"a\\\"b\":\"\\\\\",\"c\":[[],[[]],{\"d\":{}}]}",
        "{\"k\":-0.0,\"l\":[false,false],\"m\":\"a,b:c{d}[e]\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *v = json_loads(texts[i], 0, NULL);
        ASSERT(v);
        long n = count(v);
        size_t at;
        EXPECT_EQ(qn_json_guard(texts[i], strlen(texts[i]), 64, n, &at), 0);
        EXPECT_EQ(qn_json_guard(texts[i], strlen(texts[i]), 64, n - 1, &at), QN_E_LIMIT);
        json_decref(v);
    }
}

TEST(json_guard, bad_bodies_are_refused_without_repeating_them) {
    static const struct {
        const char *s;
        size_t n;
    } bad[] = {
        {"", 0},
        {"[]", 2},
        {"1", 1},
        {"null", 4},
        {"\"x\"", 3},
        {"{", 1},
        {"{\"secret\":1,\"secret\":2}", 23},
        {"{\"a\":NaN}", 9},
        {"{\"a\":\"\xff\"}", 9},
        {"{\"a\":\"\\ud800\"}", 14},
        {"{\"a\":1}x", 8},
        {"\xef\xbb\xbf{}", 5},
        {"{\"a\":99999999999999999999}", 26},
        {"{\"a\":1e999}", 11},
        {"{'secret':1}", 12},
        {"{\"a\":\"secret\n\"}", 15},
        {"{\"\\u0000\":1}", 12},
        {"{\"a\":01}", 8},
        {"{\"a\":1,}", 8},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct qn_refusal r;
        EXPECT(parse(bad[i].s, bad[i].n, &r) < 0);
        EXPECT_EQ(r.status, 400);
        EXPECT_STR(r.code, "invalid_json");
        EXPECT(!strstr(r.message, "secret"));
    }
    struct qn_refusal r;
    EXPECT_EQ(parse("{\"a\":\"x\\u0000y\"}", 16, &r), 0); /* NUL in a value is legal */
}
