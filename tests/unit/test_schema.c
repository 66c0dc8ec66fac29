/* schema: what is refused and with which path, limits at the limit and one past it, what hostile schemas cost, options. What a schema
 * accepts is compared with the official suite and with python-jsonschema in tests/vectors. */
#include <jansson.h>

#include "api/schema.h"
#include "engine/base/buf.h"
#include "engine/base/clock.h"
#include "engine/grammar/constraint.h"
#include "tests/run.h"

/* NULL and r filled, or a constraint. */
static struct qn_constraint *compile(const char *schema, const struct qn_schema_opts *o, struct qn_refusal *r) {
    struct qn_grammar *g;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    qn_gnode root;
    json_t *j = json_loads(schema, JSON_DECODE_ANY, NULL);
    ASSERT(j != NULL);
    ASSERT_EQ(qn_grammar_new(&g, NULL), 0);
    *r = (struct qn_refusal){0};
    if (qn_schema_node(g, j, o, "s", &root, r) < 0) {
        qn_grammar_free(g);
        EXPECT_EQ(r->status, 400);
    } else if (qn_constraint_new(&c, g, root, NULL, &err) < 0) {
        EXPECT(err.code == QN_E_LIMIT || err.code == QN_E_DATA /* only endless values */);
        qn_refuse(r, 400, "invalid_value", "s", "%s", err.text);
    }
    json_decref(j);
    return c;
}

static int takes(struct qn_constraint *c, const char *text) {
    qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), text, strlen(text));
    return s != QN_C_DEAD && qn_constraint_accepts(c, s);
}

static void expect_refused(const char *schema, const char *param) {
    struct qn_refusal r;
    struct qn_constraint *c = compile(schema, NULL, &r);
    if (c) qn_test_fail(__FILE__, __LINE__, "compiled: %s", schema);
    EXPECT_STR(r.param, param);
    qn_constraint_unref(c);
}

TEST(schema, a_refusal_names_the_path_and_the_keyword) {
    static const struct { const char *schema, *param; } cases[] = {
        {"{\"properties\":{\"a\":{\"items\":[{},{\"pattern\":\"(?=x)\"}]}}}", "s.properties.a.items[1].pattern"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"uniqueItems\":true}", "s.uniqueItems"},
        {"{\"$ref\":\"https://example.com/other\"}", "s.$ref"},
        {"{\"$ref\":\"#/$defs/none\"}", "s.$ref"},
        {"{\"anyOf\":[{\"$ref\":\"#\"}]}", "s"},
        {"{\"type\":\"strnig\"}", "s.type"},
        {"{\"minLength\":-1}", "s.minLength"},
        {"{\"properties\":{\"a\":3}}", "s.properties.a"},
        {"{\"required\":\"a\"}", "s.required"},
        {"{\"disallow\":\"string\"}", "s.disallow"},
        {"{\"not\":{\"uniqueItems\":true,\"type\":\"array\"}}", "s.not.uniqueItems"},
        {"{\"multipleOf\":0}", "s.multipleOf"},
        {"{\"oneOf\":[{\"type\":\"string\",\"format\":\"ipv4\"},{\"type\":\"string\",\"format\":\"ipv6\"}]}", "s.oneOf"},
        {"{\"\\u0001notEnum\":[1]}", "s"},
        {"{\"type\":\"object\",\"minProperties\":2}", "s.minProperties"},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "s"},
        {"false", "s"},
        {"[]", "s"},
        {"\"text\"", "s"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) expect_refused(cases[i].schema, cases[i].param);
}

/* before, n times `each` with its number, after. */
static char *repeated(const char *before, const char *each, int n, const char *after) {
    static struct qn_buf b;
    qn_buf_done(&b);
    qn_buf_init(&b, 1u << 20);
    qn_buf_puts(&b, before);
    for (int i = 0; i < n; i++) {
        if (i) qn_buf_putc(&b, ',');
        for (const char *p = each; *p; p++) {
            if (*p == '#') qn_buf_printf(&b, "%d", i);
            else qn_buf_putc(&b, *p);
        }
    }
    qn_buf_puts(&b, after);
    ASSERT(!b.failed);
    return b.p;
}

static char *nested(const char *open, int n, const char *inner, const char *close) {
    static struct qn_buf b;
    qn_buf_done(&b);
    qn_buf_init(&b, 1u << 20);
    for (int i = 0; i < n; i++) qn_buf_puts(&b, open);
    qn_buf_puts(&b, inner);
    for (int i = 0; i < n; i++) qn_buf_puts(&b, close);
    return b.p;
}

static void expect(const char *schema, int compiles) {
    struct qn_refusal r;
    int64_t t = qn_clock_ns();
    struct qn_constraint *c = compile(schema, NULL, &r);
    double ms = (double)(qn_clock_ns() - t) / 1e6;
    if ((c != NULL) != compiles) qn_test_fail(__FILE__, __LINE__, "%.60s…: %s", schema, c ? "compiled" : r.message);
    if (ms > 5000) qn_test_fail(__FILE__, __LINE__, "%.60s…: %.0f ms", schema, ms); /* the clock stops it at 250 on a machine of its own */
    qn_constraint_unref(c);
}

TEST_SLOW(schema, limits_are_where_they_are_said_to_be, 120) {
    expect(repeated("{\"enum\":[", "\"v#\"", 1000, "]}"), 1);
    expect(repeated("{\"enum\":[", "\"v#\"", 1001, "]}"), 0);
    expect(repeated("{\"properties\":{", "\"p#\":{}", 5001, "}}"), 0);
    expect(nested("{\"not\":", 63, "{}", "}"), 0 /* no value */);
    expect(nested("{\"items\":", 62, "{\"type\":\"null\"}", "}"), 1);
    expect(nested("{\"items\":", 63, "{\"type\":\"null\"}", "}"), 0);
    char pattern[700];
    snprintf(pattern, sizeof pattern, "{\"pattern\":\"%0512d\"}", 0);
    expect(pattern, 1);
    snprintf(pattern, sizeof pattern, "{\"pattern\":\"%0513d\"}", 0);
    expect(pattern, 0);
    expect(repeated("{\"description\":\"", "#2345678", 12800, "\"}"), 0);
}

TEST_SLOW(schema, many_optional_members_are_linear, 60) {
    struct qn_refusal r;
    struct qn_constraint *c = compile(repeated("{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{", "\"p#\":{\"type\":\"integer\"}", 1000, "}}"), NULL, &r);
    if (!c) qn_test_fail(__FILE__, __LINE__, "%s", r.message);
    ASSERT(c != NULL);
    EXPECT(takes(c, "{}") && takes(c, "{\"p0\":1}") && takes(c, "{\"p3\": 1, \"p500\": 2,\n  \"p999\": 3}"));
    EXPECT(!takes(c, "{\"p5\":1,\"p3\":1}") && !takes(c, "{\"p1000\":1}") && !takes(c, "{\"p1\":1,}"));
    struct qn_constraint_counts n;
    qn_constraint_counts(c, &n);
    EXPECT(n.bytes < (16u << 20));
    qn_constraint_unref(c);
}

TEST_SLOW(schema, what_is_made_to_hurt_is_refused_or_bounded, 240) {
    expect("{\"type\":\"string\",\"maxLength\":1000000000,\"minLength\":999999999}", 1);
    expect("{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1000000000}", 1);
    expect("{\"type\":\"array\",\"contains\":{\"type\":\"integer\"},\"minContains\":1000000000}", 0);
    expect("{\"type\":\"object\",\"maxProperties\":1000000000,\"minProperties\":1}", 1);
    expect("{\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}},\"$ref\":\"#/$defs/a\"}", 0);
    expect("{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", 0);
    expect(repeated("{\"allOf\":[", "{\"anyOf\":[{\"type\":\"integer\"},{\"minimum\":#}]}", 30, "]}"), 0);
    expect(repeated("{\"oneOf\":[", "{\"type\":\"object\",\"properties\":{\"a\":{\"maximum\":#},\"b\":{\"minimum\":#}}}", 60, "]}"), 0);
    expect(repeated("{\"type\":\"object\",\"dependentRequired\":{", "\"a#\":[\"b#\"]", 30, "}}"), 0);
    expect(repeated("{\"patternProperties\":{", "\"a#|b\":{\"minimum\":#}", 60, "}}"), 0);
    expect(repeated("{\"type\":\"object\",\"minProperties\":600,\"properties\":{", "\"p#\":{}", 1200, "}}"), 0);
    expect("{\"type\":\"string\",\"pattern\":\"^((a{1,30}){1,30}){1,30}$\"}", 1);
}

TEST(schema, strict_closes_objects_that_name_their_members) {
    struct qn_refusal r;
    const char *schema = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"o\":{\"type\":\"object\"}}}";
    struct qn_schema_opts strict = {.strict = 1};
    struct qn_constraint *open = compile(schema, NULL, &r), *closed = compile(schema, &strict, &r);
    ASSERT(open && closed);
    EXPECT(takes(open, "{\"a\":1,\"zz\":2}") && !takes(closed, "{\"a\":1,\"zz\":2}"));
    EXPECT(takes(closed, "{\"a\":1}") && takes(closed, "{\"o\":{\"free\":1}}"));
    qn_constraint_unref(open);
    qn_constraint_unref(closed);
}

TEST(schema, whitespace_is_bounded_or_as_told) {
    struct qn_refusal r;
    const char *schema = "{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}";
    struct qn_schema_opts none = {.no_whitespace = 1}, own = {.whitespace = "[ ]{0,3}", .n_whitespace = 8}, bad = {.whitespace = "x+", .n_whitespace = 2};
    struct qn_constraint *c = compile(schema, NULL, &r);
    EXPECT(takes(c, "[1,2]") && takes(c, "[1, 2]") && takes(c, "[\n  1,\n  2\n]") && takes(c, "[\n\t1\n]") && !takes(c, "[1,  2]") && !takes(c, "[1,\n\n2]"));
    qn_constraint_unref(c);
    c = compile(schema, &none, &r);
    EXPECT(takes(c, "[1,2]") && !takes(c, "[1, 2]"));
    qn_constraint_unref(c);
    c = compile(schema, &own, &r);
    EXPECT(takes(c, "[1,   2]") && !takes(c, "[1,\n2]"));
    qn_constraint_unref(c);
    EXPECT(compile(schema, &bad, &r) == NULL);
    EXPECT_STR(r.param, "whitespace_pattern");
}

TEST(schema, json_object_is_any_object_of_a_bounded_depth) {
    struct qn_grammar *g;
    struct qn_constraint *c;
    struct qn_err err = {0};
    char text[512] = "";
    ASSERT_EQ(qn_grammar_new(&g, NULL), 0);
    ASSERT_EQ(qn_constraint_new(&c, g, qn_schema_object(g, NULL), NULL, &err), 0);
    EXPECT(takes(c, "{}") && takes(c, "{\"a\": [1, {\"b\": null}], \"\": \"\\n\"}") && !takes(c, "[]") && !takes(c, "1") && !takes(c, "{\"a\"}"));
    for (int depth = 64; depth <= 65; depth++) {
        memset(text, 0, sizeof text);
        strcpy(text, "{\"a\":");
        memset(text + 5, '[', (size_t)depth - 1);
        memset(text + 5 + depth - 1, ']', (size_t)depth - 1);
        text[5 + 2 * (depth - 1)] = '}';
        EXPECT_EQ(takes(c, text), depth == 64);
    }
    qn_constraint_unref(c);
}
