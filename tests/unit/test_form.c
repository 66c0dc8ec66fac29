/* What requests say of their answer's form: every spelling becomes the constraint that it means, contradictions and nonsense are refused by
 * name, a finished answer is checked once more, and compiled forms are shared. Over a scripted engine, which ignores constraints. */
#include <pthread.h>

#include "api/gen.h"
#include "engine/base/clock.h"
#include "tests/lib/api_kit.h"
#include "tests/run.h"

#define CHAT   "/v1/chat/completions"
#define HI     "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define SCHEMA "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"],\"additionalProperties\":false}"
#define STRING "\"{\\\"type\\\":\\\"object\\\",\\\"properties\\\":{\\\"a\\\":{\\\"type\\\":\\\"integer\\\"}},\\\"required\\\":[\\\"a\\\"]}\""
#define GBNF   "\"root ::= \\\"yes\\\" | \\\"no\\\"\""
#define LARK   "\"start: \\\"yes\\\" | \\\"no\\\"\""
#define TAGS   "\"structures\":[{\"begin\":\"<f>\",\"schema\":" SCHEMA ",\"end\":\"</f>\"}],\"triggers\":[\"<f\"]"

static int takes(struct qn_constraint *c, const char *text) {
    qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), text, strlen(text));
    return s != QN_C_DEAD && qn_constraint_accepts(c, s);
}

static void post(struct got *g, struct qn_api *a, const char *path, const char *members) {
    static char body[400000];
    snprintf(body, sizeof body, "{%s,%s}", strcmp(path, CHAT) ? "\"prompt\":\"x\"" : HI, members);
    kit_post(g, a, path, body);
}

static const struct {
    const char *members, *say, *yes, *no;
} spellings[] = {
    {"\"response_format\":{\"type\":\"json_object\"}", "{}", "{\"x\": [1, null]}", "[1]"},
    {"\"response_format\":{\"type\":\"json_object\",\"schema\":" SCHEMA "}", "{\"a\":1}", "{\"a\": 1}", "{\"a\": \"1\"}"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"strict\":true,\"schema\":" SCHEMA "}}", "{\"a\":1}", "{\"a\":12}", "{}"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"strict\":false,\"schema\":" SCHEMA "}}", "{\"a\":1}", "{\"a\":12}", "{}"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\"}}", "{}", "{}", "1"},
    {"\"response_format\":{\"type\":\"json_schema\",\"schema\":" SCHEMA "}", "{\"a\":1}", "{\"a\":12}", "{}"},
    {"\"response_format\":{\"type\":\"json\",\"value\":" SCHEMA "}", "{\"a\":1}", "{\"a\":12}", "{}"},
    {"\"response_format\":{\"type\":\"json\",\"schema\":" SCHEMA "}", "{\"a\":1}", "{\"a\":12}", "{}"},
    {"\"response_format\":{\"type\":\"regex\",\"value\":\"[0-9]{2}\"}", "12", "12", "123"},
    {"\"response_format\":{\"type\":\"regex\",\"regex\":\"^[0-9]{2}$\"}", "12", "12", "1"},
    {"\"response_format\":{\"type\":\"ebnf\",\"ebnf\":" GBNF "}", "no", "yes", "maybe"},
    {"\"response_format\":{\"type\":\"grammar\",\"grammar\":" LARK "}", "no", "yes", "maybe"},
    {"\"response_format\":{\"type\":\"structural_tag\"," TAGS "}", "text", "say <f>{\"a\":1}</f>.", "say <f>{}</f>"},
    {"\"structured_outputs\":{\"json\":" SCHEMA "}", "{\"a\":1}", "{\"a\": 1}", "{}"},
    {"\"structured_outputs\":{\"json\":" STRING "}", "{\"a\":1}", "{\"a\": 1}", "{}"},
    {"\"structured_outputs\":{\"json\":" SCHEMA ",\"disable_any_whitespace\":true}", "{\"a\":1}", "{\"a\":1}", "{\"a\": 1}"},
    {"\"structured_outputs\":{\"json\":" SCHEMA ",\"whitespace_pattern\":\" {0,3}\"}", "{\"a\":1}", "{   \"a\":  1}", "{\n\"a\":1}"},
    {"\"structured_outputs\":{\"json\":{\"properties\":{\"a\":{}}},\"disable_additional_properties\":true}", "{}", "{\"a\":1}", "{\"b\":1}"},
    {"\"structured_outputs\":{\"json_object\":true}", "{}", "{}", "3"},
    {"\"structured_outputs\":{\"regex\":\"a+\"}", "a", "aaa", "b"},
    {"\"structured_outputs\":{\"choice\":[\"red\",\"green\"]}", "red", "green", "blue"},
    {"\"structured_outputs\":{\"grammar\":" GBNF "}", "no", "yes", "maybe"},
    {"\"structured_outputs\":{\"grammar\":" LARK "}", "no", "yes", "maybe"},
    {"\"structured_outputs\":{\"structural_tag\":{" TAGS "}}", "", "<f>{\"a\":1}</f><f>{\"a\":2}</f>", "<f"},
    {"\"guided_json\":" SCHEMA ",\"guided_decoding_backend\":\"xgrammar\"", "{\"a\":1}", "{\"a\": 1}", "{}"},
    {"\"guided_json\":" STRING ",\"guided_whitespace_pattern\":\" {0,3}\"", "{\"a\":1}", "{\"a\":   1}", "{\"a\":\n1}"},
    {"\"guided_regex\":\"a+\"", "a", "aaa", "b"},
    {"\"guided_choice\":[\"é\",\"\"]", "", "é", "e"},
    {"\"guided_grammar\":" LARK, "no", "yes", "maybe"},
    {"\"guided_grammar\":" GBNF, "no", "yes", "maybe"},
    {"\"json_schema\":" SCHEMA, "{\"a\":1}", "{\"a\": 1}", "{}"},
    {"\"json_schema\":{}", "1", "[true]", "{"},
    {"\"grammar\":" GBNF, "no", "yes", "maybe"},
    {"\"grammar\":{\"type\":\"lark\",\"value\":" LARK "}", "no", "yes", "maybe"},
    {"\"grammar\":{\"type\":\"json\",\"value\":" SCHEMA "}", "{\"a\":1}", "{\"a\": 1}", "{}"},
    {"\"grammar\":{\"type\":\"json_schema\",\"value\":" SCHEMA "}", "{\"a\":1}", "{\"a\": 1}", "{}"},
    {"\"grammar\":{\"type\":\"regex\",\"value\":\"a+\"}", "a", "aaa", "b"},
    {"\"regex\":\"a+\"", "a", "aaa", "b"},
    {"\"ebnf\":" GBNF, "no", "yes", "maybe"},
    {"\"structural_tag\":{" TAGS "}", "x", "x", "<f>{}</f>"},
};

TEST(form, every_spelling_becomes_what_it_means) {
    static const char *const paths[] = {CHAT, "/v1/completions"};
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
            struct got g;
            script_say(spellings[i].say);
            script.reason = QN_FINISH_STOP;
            post(&g, a, paths[k], spellings[i].members);
            struct qn_constraint *c = script.job.constraint; /* the cache holds it */
            if (g.status != 200 || !c || !takes(c, spellings[i].yes) || takes(c, spellings[i].no))
                qn_test_fail(__FILE__, __LINE__, "%s: %d %.300s", spellings[i].members, g.status, g.body.p ? g.body.p : "");
            kit_done_with(&g);
        }
    qn_api_close(a);
}

TEST(form, nothing_asked_is_no_constraint) {
    static const char *const members[] = {"\"response_format\":{\"type\":\"text\"}", "\"response_format\":null", "\"grammar\":\"\"", "\"guided_regex\":\"\",\"ebnf\":\"\"", "\"json_schema\":null"};
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        struct got g;
        script_say("anything");
        post(&g, a, CHAT, members[i]);
        EXPECT_EQ(g.status, 200);
        EXPECT(script.job.constraint == NULL);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

static const struct {
    const char *members, *code, *param, *says;
} refusals[] = {
    {"\"response_format\":{\"type\":\"json_object\"},\"guided_regex\":\"a\"", "invalid_value", "guided_regex", "'response_format' and 'guided_regex'"},
    {"\"regex\":\"a\",\"ebnf\":" GBNF, "invalid_value", "ebnf", "'regex' and 'ebnf'"},
    {"\"structured_outputs\":{\"regex\":\"a\",\"json_object\":true}", "invalid_value", "structured_outputs.json_object", "'structured_outputs.regex'"},
    {"\"structured_outputs\":{}", "missing_required_parameter", "structured_outputs", "exactly one"},
    {"\"structured_outputs\":{\"json_object\":false}", "missing_required_parameter", "structured_outputs", "exactly one"},
    {"\"structured_outputs\":{\"jsn\":{}}", "unknown_parameter", "structured_outputs.jsn", "jsn"},
    {"\"response_format\":{}", "missing_required_parameter", "response_format.type", "type"},
    {"\"response_format\":[]", "invalid_type", "response_format", "object"},
    {"\"response_format\":{\"type\":\"xml\"}", "invalid_value", "response_format.type", "xml"},
    {"\"response_format\":{\"type\":\"json_schema\"}", "missing_required_parameter", "response_format.json_schema", ""},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a b\",\"schema\":{}}}", "invalid_value", "response_format.json_schema.name", "letters"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"strict\":1}}", "invalid_type", "response_format.json_schema.strict", "boolean"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":3}}", "invalid_type", "response_format.json_schema.schema", "Schema"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"properties\":{\"x\":{\"pattern\":\"(?=a)\"}}}}}", "unsupported_value",
     "response_format.json_schema.schema.properties.x.pattern", "look-ahead"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"$ref\":\"http://x/y\"}}}", "unsupported_value", "response_format.json_schema.schema.$ref", ""},
    {"\"response_format\":{\"type\":\"structural_tag\",\"format\":{}}", "unsupported_value", "response_format", "format"},
    {"\"structural_tag\":{\"structures\":[{\"begin\":\"x\",\"end\":\"y\"}],\"triggers\":[\"<f\"]}", "invalid_value", "structural_tag.structures[0].begin", "trigger"},
    {"\"guided_json\":\"{\"", "invalid_value", "guided_json", "JSON"},
    {"\"guided_json\":3", "invalid_type", "guided_json", ""},
    {"\"guided_choice\":[]", "empty_array", "guided_choice", ""},
    {"\"guided_choice\":[1]", "invalid_type", "guided_choice", "strings"},
    {"\"guided_regex\":\"(a\"", "invalid_value", "guided_regex", "byte 0"},
    {"\"guided_regex\":\"a(?!b)\"", "unsupported_value", "guided_regex", "look-ahead"},
    {"\"grammar\":\"root ::= foo\"", "invalid_value", "grammar", "'foo'"},
    {"\"grammar\":\"start: foo\"", "invalid_value", "grammar", "'foo'"},
    {"\"grammar\":{\"type\":\"xml\",\"value\":\"a\"}", "unsupported_value", "grammar.type", ""},
    {"\"grammar\":{\"type\":\"regex\"}", "missing_required_parameter", "grammar.value", ""},
    {"\"ebnf\":\"root ::= <[259]> | <[999999999]>\"", "invalid_value", "ebnf", "no token"}, /* the scripted vocabulary has 259 */
    {"\"ebnf\":\"root ::= <[99999999999]>\"", "invalid_value", "ebnf", "number"},
    {"\"grammar\":\"start: <[259]>\"", "invalid_value", "grammar", "no token 259"},
    {"\"ebnf\":\"root ::= root\"", "invalid_value", "ebnf", "no text"},
    {"\"structured_outputs\":{\"json\":{\"type\":\"string\",\"whitespace_pattern\":1},\"whitespace_pattern\":\"(\"}", "invalid_value", NULL, ""},
};

TEST(form, contradictions_and_nonsense_are_refused_by_name) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct got g;
        script_say("x");
        post(&g, a, CHAT, refusals[i].members);
        json_t *v = json_loadb(g.body.p, g.body.n, 0, NULL);
        const json_t *e = json_object_get(v, "error");
        const char *code = json_string_value(json_object_get(e, "code")), *param = json_string_value(json_object_get(e, "param"));
        const char *says = json_string_value(json_object_get(e, "message"));
        if (g.status != 400 || !code || strcmp(code, refusals[i].code) || (refusals[i].param && (!param || strcmp(param, refusals[i].param))) || !strstr(says, refusals[i].says))
            qn_test_fail(__FILE__, __LINE__, "%s: %d %.300s", refusals[i].members, g.status, g.body.p);
        json_decref(v);
        kit_done_with(&g);
    }
    EXPECT_EQ(script.submits, 0);
    qn_api_close(a);
}

/* The scripted engine writes what it likes, so a bug of the constraint engine can be played: such an answer never looks like a good one. */
TEST(form, an_answer_of_another_form_is_an_error_and_counted) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    static const struct { const char *members, *text; enum qn_finish reason; int bad; } cases[] = {
        {"\"json_schema\":" SCHEMA, "{\"a\":1}", QN_FINISH_STOP, 0}, {"\"json_schema\":" SCHEMA, "{\"a\":\"1\"}", QN_FINISH_STOP, 1},
        {"\"json_schema\":" SCHEMA, "{\"a\":", QN_FINISH_LENGTH, 0}, {"\"json_schema\":" SCHEMA, "{\"a\":", QN_FINISH_STOP, 1},
        {"\"response_format\":{\"type\":\"json_object\"}", "[]", QN_FINISH_STOP, 1}, {"\"guided_choice\":[\"a\"]", "b", QN_FINISH_STOP, 1},
        {"\"json_schema\":{}", "123456789012345678901234567890", QN_FINISH_STOP, 0}, {"\"json_schema\":{}", "1e999", QN_FINISH_STOP, 0}};
    int bad = 0;
    for (int stream = 0; stream < 2; stream++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            char members[512];
            struct got g;
            script_say(cases[i].text);
            script.reason = cases[i].reason;
            snprintf(members, sizeof members, "%s,\"stream\":%s", cases[i].members, stream ? "true" : "false");
            post(&g, a, CHAT, members);
            int found = strstr(g.body.p, "invalid_structured_output") != NULL;
            EXPECT_EQ(g.status, cases[i].bad && !stream ? 500 : 200);
            if (found != cases[i].bad) qn_test_fail(__FILE__, __LINE__, "%s: %.400s", members, g.body.p);
            if (stream) EXPECT_EQ(strstr(g.body.p, "[DONE]") == NULL, cases[i].bad);
            if (stream && cases[i].bad) EXPECT(strstr(g.body.p, "\"finish_reason\":\"stop\"") == NULL);
            bad += cases[i].bad;
            kit_done_with(&g);
        }
    EXPECT_EQ(a->metrics.invalid_outputs, bad);
    EXPECT_EQ(script.open, 0);
    qn_api_close(a);
}

static struct qn_constraint *constraint_of(struct qn_api *a, const char *members) {
    struct got g;
    script_say("1");
    post(&g, a, CHAT, members);
    kit_done_with(&g);
    return script.job.constraint; /* for comparing */
}

TEST(form, equal_content_is_compiled_once_and_the_cache_is_bounded) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    struct qn_constraints_counts n;
    struct qn_constraint *first = constraint_of(a, "\"json_schema\":{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}}}");
    EXPECT(first == constraint_of(a, "\"guided_json\" : { \"properties\" : {\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}}}"));
    EXPECT(first != constraint_of(a, "\"json_schema\":{\"properties\":{\"b\":{\"type\":\"integer\"},\"a\":{\"type\":\"integer\"}}}")); /* another order */
    EXPECT(first != constraint_of(a, "\"structured_outputs\":{\"json\":{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}}},\"disable_any_whitespace\":true}"));
    EXPECT(constraint_of(a, "\"regex\":\"[0-9]\"") != constraint_of(a, "\"ebnf\":\"root ::= [0-9]\""));
    qn_constraints_counts(a->constraints, &n);
    EXPECT_EQ(n.compiled, 5);
    EXPECT_EQ(n.found, 1);
    for (int i = 0; i < 200; i++) {
        char members[64];
        snprintf(members, sizeof members, "\"regex\":\"1|a%d\"", i);
        constraint_of(a, members);
    }
    qn_constraints_counts(a->constraints, &n);
    EXPECT_EQ(n.compiled, 205);
    EXPECT_EQ(n.kept, 64);
    EXPECT(n.bytes > 0 && n.bytes < 64u << 20);
    constraint_of(a, "\"regex\":\"1|a199\"");
    constraint_of(a, "\"regex\":\"1|a0\""); /* thrown out long ago */
    qn_constraints_counts(a->constraints, &n);
    EXPECT_EQ(n.found, 2);
    EXPECT_EQ(n.compiled, 206);
    qn_api_close(a);
}

/* Compiling may take a quarter of a second, which the loop does not have; a name may be spelled with escapes. */
TEST(form, a_body_that_may_ask_for_a_form_is_prepared_off_the_loop) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        struct got g;
        script_say(spellings[i].say);
        post(&g, a, CHAT, spellings[i].members);
        EXPECT_EQ(g.offloads, 1);
        kit_done_with(&g);
    }
    struct got g;
    script_say("a");
    post(&g, a, CHAT, "\"\\u0072egex\":\"a\"");
    EXPECT_EQ(g.offloads, 1);
    EXPECT(script.job.constraint != NULL);
    kit_done_with(&g);
    post(&g, a, CHAT, "\"temperature\":0");
    EXPECT_EQ(g.offloads, 0);
    kit_done_with(&g);
    qn_api_close(a);
}

static void put_times(char *to, const char *what, int n) {
    for (size_t len = strlen(what); n--; to += len) memcpy(to, what, len + 1);
}

/* Each is a 400 in time, or a constraint of bounded memory. */
TEST(form, bombs_end_in_time) {
    static char big[4][300000], names[200000];
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    put_times(big[0] + sprintf(big[0], "\"regex\":\""), "(", 60000);
    strcat(big[0], "\"");
    put_times(big[1] + sprintf(big[1], "\"grammar\":\"root ::= "), "(", 60000);
    strcat(big[1], "\"");
    char *p = names;
    for (int i = 0; i < 900; i++) p += sprintf(p, "%s\"value number %d of a long list that goes on and on\"", i ? "," : "", i);
    snprintf(big[2], sizeof big[2], "\"json_schema\":{\"enum\":[%s]}", names);
    snprintf(big[3], sizeof big[3], "\"guided_choice\":[%s]", names);
    const char *bombs[] = {big[0], big[1], big[2], big[3],
                           "\"regex\":\"(((a*)*)*)*b\"", "\"regex\":\"(a{0,1000}){0,1000}\"", "\"regex\":\"[ab]*a[ab]{13}\"", "\"regex\":\"(.*a){20}\"",
                           "\"json_schema\":{\"type\":\"string\",\"maxLength\":1000000000}", "\"json_schema\":{\"type\":\"array\",\"maxItems\":1000000000,\"items\":{\"type\":\"integer\"}}",
                           "\"json_schema\":{\"$ref\":\"#\"}", "\"json_schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"},\"b\":{\"$ref\":\"#\"}}}",
                           "\"json_schema\":{\"allOf\":[{\"$ref\":\"#\"}]}", "\"json_schema\":{\"type\":\"string\",\"pattern\":\"^(a?){500}a{500}$\"}",
                           "\"ebnf\":\"root ::= (\\\"a\\\"*)*\"", "\"ebnf\":\"root ::= root root | \\\"a\\\"\""};
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        struct got g;
        struct qn_constraint_counts n = {0};
        script_say("x");
        script.reason = QN_FINISH_LENGTH;
        int64_t start = qn_clock_ns();
        post(&g, a, CHAT, bombs[i]);
        double ms = (double)(qn_clock_ns() - start) / 1e6;
        if (g.status != 400 && g.status != 200) qn_test_fail(__FILE__, __LINE__, "%.60s: %d %.200s", bombs[i], g.status, g.body.p);
        if (script.job.constraint) {
            takes(script.job.constraint, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
            qn_constraint_counts(script.job.constraint, &n);
        }
        printf("    %-46.46s %d %6.1f ms %8.0f KiB\n", bombs[i], g.status, ms, (double)n.bytes / 1024);
        EXPECT(n.bytes <= 64u << 20);
        EXPECT(ms < 1000); /* the limit of compiling is 250; the rest is reading, and a machine that does something else */
        kit_done_with(&g);
    }
    qn_api_close(a);
}

static const char thinker[] =
    "{%- if tools %}{{ tools|tojson }}{% endif %}{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- if m.tool_calls %}<tool_call>{% endif %}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
    "{#- </think> #}";
#define CALL  "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>"

/* Constraints are the answer's: the prompt ended inside the thinking, which goes on freely. */
TEST(form, thinking_and_calls_stand_around_it) {
    struct qn_api *a = kit_open((struct qn_api_opts){.chat_template = thinker});
    static const struct { const char *members, *yes[3], *no[3]; } cases[] = {
        {"\"json_schema\":" SCHEMA, {"so {}\n</think>\n\n{\"a\":1}", "</think>{\"a\": 1}"}, {"{\"a\":1}", "x</think>no"}},
        {"\"json_schema\":" SCHEMA ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":" SCHEMA "}}]",
         {"x</think>{\"a\":1}", "x</think>" CALL}, {"x</think>hello", "x</think><tool_call>"}},
        {"\"tool_choice\":\"required\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":" SCHEMA "}}]", {"x</think>" CALL}, {"x</think>hello"}},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":" SCHEMA "}}]", {"x</think>hello", "x</think>" CALL},
         {"x</think><tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"}},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":" SCHEMA "}}]", {NULL}, {NULL}}, /* nothing to constrain */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct got g;
        script_say("x</think>" CALL);
        script.reason = QN_FINISH_LENGTH;
        post(&g, a, CHAT, cases[i].members);
        struct qn_constraint *c = script.job.constraint;
        if (g.status != 200 || !c != !cases[i].yes[0]) qn_test_fail(__FILE__, __LINE__, "%s: %d %.300s", cases[i].members, g.status, g.body.p);
        for (int k = 0; c && k < 3 && cases[i].yes[k]; k++)
            if (!takes(c, cases[i].yes[k])) qn_test_fail(__FILE__, __LINE__, "%s: refuses %s", cases[i].members, cases[i].yes[k]);
        for (int k = 0; c && k < 3 && cases[i].no[k]; k++)
            if (takes(c, cases[i].no[k])) qn_test_fail(__FILE__, __LINE__, "%s: takes %s", cases[i].members, cases[i].no[k]);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

TEST(form, only_the_content_is_checked) {
    struct qn_api *a = kit_open((struct qn_api_opts){.chat_template = thinker});
    static const struct { const char *text; int bad; } cases[] = {{"so [1]\n</think>\n\n{\"a\":1}", 0}, {"so {\"a\":1}</think>[1]", 1}, {"x</think>" CALL, 0}};
    for (int stream = 0; stream < 2; stream++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct got g;
            char members[1024];
            script_say(cases[i].text);
            snprintf(members, sizeof members, "\"json_schema\":" SCHEMA ",\"stream\":%s,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":" SCHEMA "}}]", stream ? "true" : "false");
            post(&g, a, CHAT, members);
            int found = strstr(g.body.p, "invalid_structured_output") != NULL;
            if (found != cases[i].bad) qn_test_fail(__FILE__, __LINE__, "%s: %.600s", members, g.body.p);
            kit_done_with(&g);
        }
    qn_api_close(a);
}

/* Bodies are prepared on several threads: the same few forms, asked for at once. */
static void *ask_often(void *arg) {
    struct qn_gen gen = {.shape = &qn_shape_completions};
    for (unsigned i = 0, r = (unsigned)(uintptr_t)gen.shape; i < 300; i++) {
        char pattern[32];
        struct qn_constraint *c;
        struct qn_exchange x = {.api = arg, .gen = &gen};
        r = r * 1103515245u + 12345u;
        snprintf(pattern, sizeof pattern, "a{%u}", 1 + (r >> 16) % 90); /* more than the cache keeps */
        x.params.regex = (struct qn_chars){pattern, strlen(pattern)};
        if (qn_constrain(&x, &c) < 0 || !c) return "refused";
        char text[100] = {0};
        memset(text, 'a', 1 + (r >> 16) % 90);
        if (!takes(c, text)) return "another one's constraint";
        qn_constraint_unref(c);
    }
    return NULL;
}

TEST(form, threads_share_the_cache) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    struct qn_err err = {0};
    struct qn_constraints_counts n;
    pthread_t t[4];
    ASSERT(qn_engine_trie(&script_engine, &err) != NULL); /* the script's own is not made for threads */
    for (int i = 0; i < 4; i++) ASSERT_EQ(pthread_create(&t[i], NULL, ask_often, a), 0);
    for (int i = 0; i < 4; i++) {
        void *said;
        pthread_join(t[i], &said);
        if (said) qn_test_fail(__FILE__, __LINE__, "%s", (const char *)said);
    }
    qn_constraints_counts(a->constraints, &n);
    EXPECT_EQ(n.compiled + n.found, 1200);
    EXPECT_EQ(n.kept, 64);
    qn_api_close(a);
}
