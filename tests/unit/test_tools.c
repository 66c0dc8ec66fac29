/* Tools, thinking and their members through the api, with a scripted engine: what is refused, what the job says, and that
 * streamed deltas add up to the whole message. */
#include "tests/lib/api_kit.h"
#include "tests/run.h"

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}"

static const char thinker[] =
    "{%- if tools %}{{ tools|tojson }}{% endif %}{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- if m.tool_calls %}<tool_call>{% endif %}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
    "{#- </think> #}";

static struct qn_api *thinks(void) {
    return kit_open((struct qn_api_opts){.model_name = "m", .chat_template = thinker});
}

static json_t *reply(struct qn_api *a, const char *body, int status) {
    struct got g;
    kit_post(&g, a, "/v1/chat/completions", body);
    if (g.status != status) printf("    %s\n    -> %d %.400s\n", body, g.status, g.body.p ? g.body.p : "");
    EXPECT_EQ(g.status, status);
    json_t *j = json_loadb(g.body.p, g.body.n, 0, NULL);
    kit_done_with(&g);
    return j;
}

static const char *text_at(const json_t *j, const char *name) {
    const char *s = json_string_value(json_object_get(j, name));
    return s ? s : "(none)";
}

static const json_t *message(const json_t *j) {
    return json_object_get(json_array_get(json_object_get(j, "choices"), 0), "message");
}

TEST(tools, bad_requests_are_named) {
    static const struct { const char *members, *code, *param; } bad[] = {
        {"\"tools\":1", "invalid_type", "tools"},
        {"\"tools\":[1]", "invalid_type", "tools[0]"},
        {"\"tools\":[{}]", "missing_required_parameter", "tools[0].type"},
        {"\"tools\":[{\"type\":\"function\"}]", "missing_required_parameter", "tools[0].function"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{}}]", "missing_required_parameter", "tools[0].function.name"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]", "invalid_value", "tools[0].function.name"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"\"}}]", "invalid_value", "tools[0].function.name"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}}]",
         "string_above_max_length", "tools[0].function.name"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"parameters\":[]}}]", "invalid_type", "tools[0].function.parameters"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"strict\":1}}]", "invalid_type", "tools[0].function.strict"},
        {"\"tools\":[" TOOL("a") "," TOOL("a") "]", "invalid_value", "tools[1].function.name"},
        {"\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"a\",\"format\":{\"type\":\"x\"}}}]", "invalid_value", "tools[0].custom.format.type"},
        {"\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"a\",\"format\":{\"type\":\"grammar\",\"grammar\":{\"syntax\":\"bnf\"}}}}]",
         "invalid_value", "tools[0].custom.format.grammar.syntax"},
        {"\"tool_choice\":\"required\"", "invalid_value", "tool_choice"},
        {"\"tools\":[],\"tool_choice\":\"required\"", "invalid_value", "tool_choice"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":\"some\"", "invalid_value", "tool_choice"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":7", "invalid_type", "tool_choice"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":{}", "missing_required_parameter", "tool_choice.type"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":{\"type\":\"x\"}", "invalid_value", "tool_choice.type"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":{\"type\":\"function\"}", "missing_required_parameter", "tool_choice.function"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"b\"}}", "invalid_value", "tool_choice.function.name"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"none\"}}", "invalid_value",
         "tool_choice.allowed_tools.mode"},
        {"\"tools\":[" TOOL("a") "],\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[{\"type\":\"function\","
         "\"function\":{\"name\":\"b\"}}]}}", "invalid_value", "tool_choice.allowed_tools.tools[0].name"},
        {"\"functions\":[{\"name\":\"a\"}],\"function_call\":\"required\"", "invalid_value", "function_call"},
        {"\"functions\":[{\"name\":\"a\"}],\"function_call\":{\"name\":\"b\"}", "invalid_value", "function_call.name"},
        {"\"functions\":[{\"name\":\"a\"}],\"tools\":[" TOOL("a") "]", "invalid_value", "functions"},
        {"\"thinking_token_budget\":5", "unsupported_value", "thinking_token_budget"},
        {"\"thinking\":{\"type\":\"x\"}", "invalid_value", "thinking.type"},
        {"\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2000}", "unsupported_value", "thinking.type"},
        {"\"nvext\":{\"greed_sampling\":true}", "unknown_parameter", "nvext.greed_sampling"},
        {"\"quern\":{\"thinking\":{\"min_tokens\":5}}", "unsupported_value", "quern.thinking"},
        {"\"reasoning_format\":\"deepseek-legacy\"", "unsupported_value", "reasoning_format"},
    };
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "m"});
    script_say("x");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char body[1024];
        snprintf(body, sizeof body, "{" USER ",%s}", bad[i].members);
        json_t *j = reply(a, body, 400), *e = json_object_get(j, "error");
        if (strcmp(text_at(e, "code"), bad[i].code) || strcmp(text_at(e, "param"), bad[i].param))
            qn_test_fail(__FILE__, __LINE__, "%s: %s at %s, wanted %s at %s", bad[i].members, text_at(e, "code"), text_at(e, "param"), bad[i].code,
                         bad[i].param);
        json_decref(j);
    }
    qn_api_close(a);
}

TEST(tools, as_many_as_128_and_no_more) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "m", .chat_template = thinker});
    for (int n = 128; n <= 129; n++) {
        struct qn_buf b;
        qn_buf_init(&b, 1 << 20);
        qn_buf_puts(&b, "{" USER ",\"max_tokens\":1,\"tool_choice\":\"none\",\"tools\":[");
        for (int i = 0; i < n; i++) qn_buf_printf(&b, "%s{\"type\":\"%s\",\"function\":{\"name\":\"f%d\"}}", i ? "," : "", i < 2 ? "function" : "x", i);
        qn_buf_puts(&b, "]}");
        script_say("x");
        json_decref(reply(a, b.p, n == 128 ? 200 : 400));
        qn_buf_done(&b);
    }
    qn_api_close(a);
}

/* --- streamed and whole ------------------------------------------------------------------------------------------- */

/* Adds a string delta to the member of the same name. */
static void append(json_t *to, const char *name, const char *s) {
    char all[4096];
    snprintf(all, sizeof all, "%s%s", json_is_string(json_object_get(to, name)) ? text_at(to, name) : "", s);
    json_object_set_new(to, name, json_string(all));
}

/* As openai's clients do: strings add up, calls by their index. */
static void merge(json_t *m, const json_t *delta) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)delta, key, v) {
        if (json_is_string(v) && strcmp(key, "role")) append(m, key, json_string_value(v));
        if (strcmp(key, "tool_calls")) continue;
        const json_t *d = json_array_get(v, 0), *f = json_object_get(d, "function");
        json_t *calls = json_object_get(m, "tool_calls");
        if (!calls) json_object_set_new(m, "tool_calls", calls = json_array());
        size_t i = (size_t)json_integer_value(json_object_get(d, "index"));
        if (i == json_array_size(calls)) {
            EXPECT(json_object_get(d, "id") && json_object_get(d, "type") && !strcmp(text_at(f, "arguments"), ""));
            json_array_append_new(calls, json_pack("{s:O, s:O, s:{s:O, s:s}}", "id", json_object_get(d, "id"), "type", json_object_get(d, "type"),
                                                   "function", "name", json_object_get(f, "name"), "arguments", ""));
        } else {
            EXPECT(!json_object_get(d, "id") && !json_object_get(f, "name"));
            append(json_object_get(json_array_get(calls, i), "function"), "arguments", text_at(f, "arguments"));
        }
    }
}

static json_t *streamed(struct qn_api *a, const char *body, char reason[32]) {
    struct got g;
    json_t *m = json_object();
    kit_post(&g, a, "/v1/chat/completions", body);
    EXPECT(g.streamed);
    const char *at = g.body.p, *e;
    while ((e = kit_event(&at)) && strcmp(e, "[DONE]")) {
        json_t *j = json_loads(e, 0, NULL);
        const json_t *c = json_array_get(json_object_get(j, "choices"), 0);
        merge(m, json_object_get(c, "delta"));
        if (json_is_string(json_object_get(c, "finish_reason"))) snprintf(reason, 32, "%s", text_at(c, "finish_reason"));
        json_decref(j);
    }
    kit_done_with(&g);
    return m;
}

static const char said[] = "I must\n look.\n</think>\n\nHere: é.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Z\\u00fcrich </tool_call> \\\"q\\\"\"}}\n"
                           "</tool_call>\n<tool_call>\n{\"arguments\": {\"city\": [1, {\"a\": null}]}, \"name\": \"g\"}\n</tool_call>";

TEST(tools, deltas_add_up_to_the_whole_message) {
    struct qn_api *a = thinks();
    static const char tools[] = USER ",\"tools\":[" TOOL("f") "," TOOL("g") "]";
    char body[1024], reason[32] = "";
    script_say(said);
    snprintf(body, sizeof body, "{%s}", tools);
    a->n_ids = 0;
    json_t *j = reply(a, body, 200);
    const json_t *whole = message(j);
    EXPECT_STR(text_at(whole, "content"), "Here: é.");
    EXPECT_STR(text_at(whole, "reasoning"), "I must\n look.");
    EXPECT_STR(text_at(whole, "reasoning_content"), "I must\n look.");
    EXPECT_EQ(json_array_size(json_object_get(whole, "tool_calls")), 2);
    EXPECT_STR(text_at(json_array_get(json_object_get(j, "choices"), 0), "finish_reason"), "tool_calls");
    for (size_t step = 1; step < sizeof said; step += step < 8 ? 1 : 13) {
        size_t cuts[sizeof said], n = 0;
        for (size_t i = step; i < sizeof said - 1; i += step)
            if (((unsigned char)said[i] & 0xC0) != 0x80) cuts[n++] = i;
        cuts[n++] = sizeof said - 1;
        script_say(said);
        script.cuts = cuts;
        script.n_cuts = (int)n;
        script.per_poll = (int)(step % 3);
        snprintf(body, sizeof body, "{%s,\"stream\":true}", tools);
        json_t *m = streamed(a, body, reason);
        EXPECT_STR(reason, "tool_calls");
        static const char *const names[] = {"content", "reasoning", "reasoning_content"};
        for (int i = 0; i < 3; i++) EXPECT_STR(text_at(m, names[i]), text_at(whole, names[i]));
        if (!json_equal(json_object_get(m, "tool_calls"), json_object_get(whole, "tool_calls"))) qn_test_fail(__FILE__, __LINE__, "step %zu: calls differ", step);
        json_decref(m);
    }
    json_decref(j);
    qn_api_close(a);
}

TEST(tools, reasoning_is_shown_as_asked) {
    static const struct { const char *members, *content, *reasoning; } cases[] = {
        {"\"include_reasoning\":true", "Done.", "Hm."},
        {"\"include_reasoning\":false", "Done.", "(none)"},
        {"\"separate_reasoning\":false", "Hm.</think>Done.", "(none)"},
        {"\"reasoning_format\":\"none\"", "Hm.</think>Done.", "(none)"},
        {"\"stream_reasoning\":false", "Done.", "Hm."},
    };
    struct qn_api *a = thinks();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int stream = 0; stream < 2; stream++) {
            char body[256], reason[32];
            snprintf(body, sizeof body, "{" USER ",%s,\"stream\":%s}", cases[i].members, stream ? "true" : "false");
            script_say("Hm.</think>Done.");
            json_t *j = stream ? streamed(a, body, reason) : reply(a, body, 200);
            const json_t *m = stream ? j : message(j);
            EXPECT_STR(text_at(m, "content"), cases[i].content);
            EXPECT_STR(text_at(m, "reasoning"), cases[i].reasoning);
            json_decref(j);
        }
    qn_api_close(a);
}

TEST(tools, budgets_reach_the_engine_under_every_spelling) {
    static const char *const spellings[] = {
        "\"thinking_token_budget\":2000", "\"reasoning_budget_tokens\":2000", "\"thinking_budget_tokens\":2000",
        "\"custom_params\":{\"thinking_budget\":2000}", "\"nvext\":{\"max_thinking_tokens\":2000}",
        "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2000}", "\"quern\":{\"thinking\":{\"max_tokens\":2000,\"min_tokens\":7}}",
    };
    struct qn_api *a = thinks();
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        char body[256];
        snprintf(body, sizeof body, "{" USER ",%s}", spellings[i]);
        script_say("Hm.</think>Done.");
        json_decref(reply(a, body, 200));
        EXPECT_EQ(script.job.thinking.on, 1);
        EXPECT_EQ(script.job.thinking.opened, 1);
        EXPECT_EQ(script.job.thinking.max_tokens, 2000);
        EXPECT_EQ(script.job.thinking.n_hand_in, strlen("\n</think>\n\n"));
        EXPECT_EQ(script.job.thinking.min_tokens, i == 6 ? 7 : 0);
        EXPECT_EQ(script.job.thinking.n_more, i == 6 ? strlen("Wait") : 0);
    }
    script_say("x");
    json_decref(reply(a, "{" USER ",\"reasoning_budget_tokens\":5,\"reasoning_budget_message\":\"Enough.\"}", 200));
    EXPECT_EQ(script.job.thinking.n_hand_in, strlen("Enough.\n</think>\n\n"));
    script_say("x"); /* a template without a switch: off is a bound of 0 */
    json_decref(reply(a, "{" USER ",\"enable_thinking\":false}", 200));
    EXPECT_EQ(script.job.thinking.max_tokens, 0);
    script_say("x");
    json_decref(reply(a, "{" USER ",\"thinking_token_budget\":5,\"reasoning_budget_tokens\":6}", 400));
    qn_api_close(a);
}

/* --- a template that knows no tools ------------------------------------------------------------------------------- */

TEST(tools, are_described_to_a_template_that_knows_none) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "m"});
    struct got g;
    kit_post(&g, a, "/apply-template",
             "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\","
             "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"city\\\": 1}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"cold\"}],\"tools\":[" TOOL("f") "]}");
    EXPECT_EQ(g.status, 200);
    json_t *j = json_loadb(g.body.p, g.body.n, 0, NULL);
    const char *prompt = text_at(j, "prompt");
    EXPECT(strstr(prompt, "<|im_start|>system\nYou can call functions"));
    EXPECT(strstr(prompt, "\"name\": \"f\""));
    EXPECT(strstr(prompt, "<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": 1}}\n</tool_call><|im_end|>"));
    EXPECT(strstr(prompt, "<|im_start|>user\n<tool_response>\ncold\n</tool_response><|im_end|>"));
    json_decref(j);
    kit_done_with(&g);
    qn_api_close(a);
    static const char stern[] = "{%- for m in messages %}{%- if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}[{{ m.role }}]{{ m.content }}{%- endfor %}";
    a = kit_open((struct qn_api_opts){.model_name = "m", .chat_template = stern});
    kit_post(&g, a, "/apply-template", "{" USER ",\"tools\":[" TOOL("f") "]}");
    j = json_loadb(g.body.p, g.body.n, 0, NULL);
    EXPECT(strstr(text_at(j, "prompt"), "[user]You can call functions"));
    json_decref(j);
    kit_done_with(&g);
    qn_api_close(a);
}

TEST(tools, only_allowed_ones_are_called) {
    struct qn_api *a = thinks();
    static const char text[] = "</think><tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
    static const char *const choices[] = {"g", "f"};
    for (int i = 0; i < 2; i++) {
        char body[1024];
        snprintf(body, sizeof body,
                 "{" USER ",\"tools\":[" TOOL("f") "," TOOL("g") "],\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[{"
                 "\"type\":\"function\",\"function\":{\"name\":\"%s\"}}]}}}", choices[i]);
        script_say(text);
        json_t *j = reply(a, body, 200);
        EXPECT_EQ(json_array_size(json_object_get(message(j), "tool_calls")), i == 0);
        EXPECT_STR(text_at(message(j), "content"), i == 0 ? "(none)" : text + strlen("</think>"));
        json_decref(j);
    }
    qn_api_close(a);
}

TEST(tools, a_tool_format_can_be_chosen) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "m", .tool_format = "llama3"});
    script_say("{\"name\": \"f\", \"parameters\": {\"city\": \"x\"}}");
    json_t *j = reply(a, "{" USER ",\"tools\":[" TOOL("f") "]}", 200);
    EXPECT_EQ(json_array_size(json_object_get(message(j), "tool_calls")), 1);
    json_decref(j);
    script_say("{\"name\": \"unknown\", \"parameters\": {\"city\": \"x\"}}"); /* an answer in JSON is no call */
    j = reply(a, "{" USER ",\"tools\":[" TOOL("f") "]}", 200);
    EXPECT_STR(text_at(message(j), "content"), "{\"name\": \"unknown\", \"parameters\": {\"city\": \"x\"}}");
    json_decref(j);
    qn_api_close(a);
}
