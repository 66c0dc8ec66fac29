/* Whatever the grammar of calls lets a model write, the parser reads as calls whose arguments the tool's schema accepts: texts
 * drawn at random from the grammar of every format. And what models write that is no call stays text. */
#include "api/calls_impl.h"
#include "engine/engine.h"
#include "tests/run.h"

static const char TOOLS[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\",\"minimum\":-5,\"maximum\":30},\"unit\":{\"type\":\"string\",\"enum\":[\"c\",\"f\"]},"
    "\"code\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}[0-9]+$\"},\"short\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":3},"
    "\"where\":{\"$ref\":\"#/$defs/place\"},\"ok\":{\"type\":\"boolean\"}},\"required\":[\"city\",\"where\"],\"additionalProperties\":false,"
    "\"$defs\":{\"place\":{\"type\":\"object\",\"properties\":{\"lat\":{\"type\":\"number\"},\"names\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},"
    "\"required\":[\"lat\"],\"additionalProperties\":false}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"stop\",\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}}}]";

static struct qn_call_marks marks_of(const char *format) {
    struct qn_template *t = NULL;
    struct qn_call_marks m;
    struct qn_err err = {0};
    ASSERT(qn_template_open_plain(&t, "{{ tools }}", 11, "", "", &err) == 0);
    ASSERT(qn_call_format_find(&m, t, NULL, format, &err) == 0);
    qn_template_close(t);
    return m;
}

static unsigned next_random(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 12;
}

/* A text of the grammar: forced bytes as they are, else one of those that are possible, letters preferred. */
static size_t draw(struct qn_constraint *c, unsigned seed, char *out, size_t max) {
    qn_cstate s = qn_constraint_start(c);
    size_t n = 0;
    while (n < max) {
        if (qn_constraint_accepts(c, s) && (qn_constraint_over(c, s) || next_random(&seed) % 2)) return n;
        size_t k = qn_constraint_forced(c, s, out + n, max - n);
        if (k) {
            s = qn_constraint_text(c, s, out + n, k);
            n += k;
            continue;
        }
        unsigned char can[256];
        unsigned n_can = 0;
        for (unsigned b = 1; b < 0x80; b++) {
            char ch = (char)b;
            if (qn_constraint_text(c, s, &ch, 1) == QN_C_DEAD) continue;
            int ends = b == '"' || b == '<' || b == '}' || b == ']' || b == '\n' || b == ','; /* or strings never end */
            for (int w = ends ? 30 : b >= 'a' && b <= 'z' ? 2 : 1; w > 0 && n_can < 256; w--) can[n_can++] = (unsigned char)b;
        }
        if (!n_can) return 0;
        out[n] = (char)can[next_random(&seed) % n_can];
        s = qn_constraint_text(c, s, out + n++, 1);
    }
    return 0;
}

static void check(const struct qn_call_marks *m, const json_t *tools, const char *text, size_t n) {
    struct qn_call_parser *p;
    struct qn_call_parser_opts o = {.tools = 1, .tool_list = tools};
    struct qn_piece piece;
    struct qn_buf args;
    char name[140] = "", why[200];
    int calls = 0, said = 0;
    qn_buf_init(&args, 1 << 20);
    ASSERT(qn_call_parser_new(&p, m, &o) == 0);
    ASSERT(qn_call_parser_feed(p, text, n, QN_ENDED) == 0);
    while (qn_call_parser_next(p, &piece)) {
        if (piece.kind == QN_PIECE_TEXT) said = 1;
        if (piece.kind == QN_PIECE_CALL) snprintf(name, sizeof name, "%.*s", (int)piece.n, piece.text), qn_buf_reset(&args);
        if (piece.kind == QN_PIECE_ARGUMENTS) qn_buf_put(&args, piece.text, piece.n);
        if (piece.kind != QN_PIECE_CALL_END) continue;
        calls++;
        const json_t *f = qn_tool_function(tools, name);
        json_t *v = json_loadb(args.p, args.n, JSON_ALLOW_NUL, NULL);
        if (!f || !v || !qn_schema_check(json_object_get(f, "parameters"), v, why, sizeof why))
            qn_test_fail(__FILE__, __LINE__, "%s: %s(%s): %s, of\n%.*s", m->calls->name, name, args.p, f && v ? why : "no call", (int)n, text);
        json_decref(v);
    }
    if (!calls || said) qn_test_fail(__FILE__, __LINE__, "%s: %d calls, text %d, of\n%.*s", m->calls->name, calls, said, (int)n, text);
    qn_call_parser_free(p);
    qn_buf_done(&args);
}

static int formats(char names[64][32]) {
    struct qn_buf b;
    int n = 0;
    qn_buf_init(&b, 4096);
    qn_call_formats_list(&b);
    for (char *save, *s = strtok_r(b.p, ", ", &save); s && n < 64; s = strtok_r(NULL, ", ", &save)) snprintf(names[n++], 32, "%s", s);
    qn_buf_done(&b);
    return n;
}

TEST_SLOW(calls, what_the_grammar_allows_validates, 120) {
    char names[64][32];
    int n = formats(names), drawn = 0, refused = 0;
    json_t *tools = json_loads(TOOLS, 0, NULL);
    ASSERT(n > 30 && tools);
    for (int i = 0; i < n; i++) {
        struct qn_call_marks m = marks_of(names[i]);
        struct qn_grammar *g;
        struct qn_constraint *c;
        struct qn_refusal r = {0};
        struct qn_err err = {0};
        struct qn_schema_opts o = {0};
        struct qn_tool_choice choice = {.mode = QN_TOOLS_REQUIRED, .tools = tools, .all = tools, .parallel = 1};
        qn_gnode root;
        ASSERT(qn_grammar_new(&g, NULL) == 0);
        if (qn_calls_node(g, &m, NULL, &choice, &o, qn_g_text(g), &root, &r) < 0) {
            refused++;
            EXPECT(m.calls->flags & QN_CF_FRAMED);
            qn_grammar_free(g);
            continue;
        }
        if (qn_constraint_new(&c, g, root, NULL, &err) < 0) {
            qn_test_fail(__FILE__, __LINE__, "%s: %s", names[i], err.text);
            continue;
        }
        static char text[4096];
        for (unsigned seed = 1; seed <= 60; seed++) {
            size_t len = draw(c, seed, text, sizeof text);
            if (!len) continue;
            check(&m, tools, text, len);
            drawn++;
        }
        qn_constraint_unref(c);
    }
    printf("    %d formats, %d refused, %d texts\n", n, refused, drawn);
    EXPECT(drawn > n * 20);
    json_decref(tools);
}

/* --- what is no call ---------------------------------------------------------------------------------------------- */

static void parse(const char *format, const char *text, enum qn_last last, char content[512], int *calls) {
    struct qn_call_marks m = marks_of(format);
    json_t *tools = json_loads(TOOLS, 0, NULL);
    struct qn_call_parser_opts o = {.tools = 1, .tool_list = tools};
    struct qn_call_parser *p;
    struct qn_piece piece;
    size_t n = 0;
    *calls = 0;
    content[0] = 0;
    ASSERT(qn_call_parser_new(&p, &m, &o) == 0);
    for (size_t i = 0; i <= strlen(text); i++) {
        ASSERT(qn_call_parser_feed(p, text + i, text[i] ? 1 : 0, text[i] ? QN_MORE : last) == 0);
        while (qn_call_parser_next(p, &piece)) {
            *calls += piece.kind == QN_PIECE_CALL;
            if (piece.kind == QN_PIECE_TEXT) n += (size_t)snprintf(content + n, 512 - n, "%.*s", (int)piece.n, piece.text);
        }
    }
    qn_call_parser_free(p);
    json_decref(tools);
}

TEST(calls, what_is_none_stays_text) {
    static const struct { const char *format, *text; } cases[] = {
        {"hermes", "a <tool_call> b"},
        {"hermes", "use <tool_call>{\"nam\": 1}</tool_call> to call"},
        {"hermes", "<tool_call>\n{\"name\": 7}\n</tool_call>"},
        {"hermes", "<tool_call></tool_call>"},
        {"hermes", "<tool_call>\n{\"name\": \"get_weather"},
        {"hermes", "x <tool_"},
        {"hermes", "a\n\n<tool_call>[1, 2]</tool_call>\n<tool_call>"},
        {"hermes", "See:\n```json\n{\"name\": \"Bob\", \"age\": 3}\n```\nand\n```json\n[1]\n```"},
        {"hermes", "{\"name\": \"nobody\", \"arguments\": {}}"},
        {"llama3", "{\"name\": \"nobody\", \"parameters\": {}}"},
        {"llama3", "{\"a\": [1, 2, {\"name\": \"stop\"}]}"},
        {"llama3", "{\"name\": \"st"},
        {"llama3", "Call {\"name\": \"stop\", \"parameters\": {}}"},
        {"mistral", "[TOOL_CALLS]nothing"},
        {"mistral-args", "[TOOL_CALLS]{\"a\": 1}"},
        {"qwen3-coder", "<tool_call>\nhello</tool_call>"},
        {"qwen3-coder", "see <function=> and <function"},
        {"glm", "<tool_call></tool_call>"},
        {"deepseek-v3", "<｜tool▁calls▁begin｜>none<｜tool▁calls▁end｜>"},
        {"functionary-v3.2", "nobody\n{\"a\": 1}"},
        {"pythonic", "[1, 2, 3]"},
        {"pythonic", "[see(1)]"},
        {"lfm2", "<|tool_call_start|>[]<|tool_call_end|>"},
        {"gemma4", "<|tool_call>no call<tool_call|>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char content[512];
        int calls;
        parse(cases[i].format, cases[i].text, QN_ENDED, content, &calls);
        EXPECT_EQ(calls, 0);
        EXPECT_STR(content, cases[i].text);
    }
}

TEST(calls, a_call_that_is_cut_before_its_name_is_no_text) {
    char content[512];
    int calls;
    parse("hermes", "Look.\n<tool_call>\n{\"name\": \"get_we", QN_CUT, content, &calls);
    EXPECT_STR(content, "Look.");
    parse("hermes", "<tool_call>\n{\"name\": \"stop\", \"arguments\": {", QN_CUT, content, &calls);
    EXPECT_EQ(calls, 1);
}

TEST(calls, marks_that_a_model_forgot_are_forgiven) {
    static const char *const texts[] = {
        "{\"name\": \"stop\", \"arguments\": {}}",
        "```json\n{\n  \"name\": \"stop\",\n  \"arguments\": {}\n}\n```",
        "```json\n[{\"name\": \"stop\", \"arguments\": {}}]\n```\n",
    };
    char content[512];
    int calls;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        parse("hermes", texts[i], QN_ENDED, content, &calls);
        EXPECT_EQ(calls, 1);
        EXPECT_STR(content, "");
    }
}

TEST(calls, text_goes_on_after_a_broken_call) {
    char content[512];
    int calls;
    parse("hermes", "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>\nDone <b>.", QN_ENDED, content, &calls);
    EXPECT_EQ(calls, 1);
    EXPECT_STR(content, "Done <b>.");
    parse("qwen3-coder", "<tool_call>\n<function=stop>\noops", QN_ENDED, content, &calls);
    EXPECT_EQ(calls, 1);
    EXPECT_STR(content, "oops");
}
