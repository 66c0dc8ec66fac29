/* Requests to replies over a scripted engine: routes, statuses, what a job is made of, and that there is one reply. */
#include "tests/lib/api_kit.h"
#include "tests/run.h"

#define CHAT  "/v1/chat/completions"
#define PLAIN "/v1/completions"
#define HI    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static json_t *body_of(const struct got *g) {
    json_t *v = json_loadb(g->body.p ? g->body.p : "", g->body.n, JSON_ALLOW_NUL, NULL);
    if (!v) qn_test_fail(__FILE__, __LINE__, "not JSON: %.200s", g->body.p ? g->body.p : "(nothing)");
    return v;
}

static const char *str(const json_t *v, const char *name) {
    const char *s = json_string_value(json_object_get(v, name));
    return s ? s : "";
}

/* One refusal: status, code and param, in OpenAI's object. */
static void refused(struct qn_api *a, const char *path, const char *body, int status, const char *code, const char *param) {
    struct got g;
    kit_post(&g, a, path, body);
    EXPECT_EQ(g.replies, 1);
    json_t *v = body_of(&g);
    const json_t *e = json_object_get(v, "error");
    if (g.status != status || strcmp(str(e, "code"), code) || (param && strcmp(str(e, "param"), param)) || !str(e, "type")[0] ||
        !str(e, "message")[0])
        qn_test_fail(__FILE__, __LINE__, "%.120s: wanted %d %s %s, got %d %.300s", body, status, code, param ? param : "",
                     g.status, g.body.p);
    EXPECT(strstr(g.headers, "Content-Type: application/json\n") != NULL);
    EXPECT(strstr(g.headers, "x-request-id: req-1\n") != NULL);
    EXPECT_EQ(script.open, 0);
    json_decref(v);
    kit_done_with(&g);
}

/* Agents ask any model for 32,000 tokens: the bound is the context's end then, and nothing is refused. */
TEST(api, more_output_than_the_context_holds_is_bounded_by_it) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "m"});
    static const char *const names[] = {"max_tokens", "max_completion_tokens", "n_predict", "max_new_tokens"};
    for (int i = 0; i < 4; i++) {
        char body[160];
        struct got g;
        script_say("x");
        snprintf(body, sizeof body, "{" HI ",\"%s\":32000}", names[i]);
        kit_post(&g, a, CHAT, body);
        EXPECT_EQ(g.status, 200);
        EXPECT_EQ(script.job.max_tokens, qn_engine_info(NULL)->n_ctx - (int)script.job.n_prompt);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

TEST(api, every_route_answers_its_method_and_refuses_the_others) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "m"});
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"};
    for (int i = 0; qn_route_at(i); i++) {
        const struct qn_route *r = qn_route_at(i);
        for (size_t k = 0; k < sizeof methods / sizeof *methods; k++) {
            char path[128];
            snprintf(path, sizeof path, "%s", r->path);
            char *star = strchr(path, '*');
            if (star) strcpy(star, "m");
            struct ask q = {.method = methods[k], .path = path, .body = "{}"};
            struct got g;
            script_say("x");
            kit_run(&g, a, &q);
            EXPECT_EQ(g.replies, 1);
            int fits = !strcmp(methods[k], r->method) || (!strcmp(methods[k], "HEAD") && !strcmp(r->method, "GET"));
            if (fits && g.status == 405) qn_test_fail(__FILE__, __LINE__, "%s %s: 405", methods[k], path);
            if (!fits) {
                EXPECT_EQ(g.status, 405);
                EXPECT(strstr(g.headers, !strcmp(r->method, "GET") ? "Allow: GET, HEAD\n" : "Allow: POST\n") != NULL);
            }
            if (fits && !strcmp(r->method, "GET")) EXPECT_EQ(g.status, 200);
            kit_done_with(&g);
        }
    }
    qn_api_close(a);
}

TEST(api, paths_are_compared_byte_by_byte) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    static const char *const bad[] = {"/",
                                      "",
                                      "/v1",
                                      "/v1/",
                                      "/v1/models/",
                                      "//v1/models",
                                      "/v1/models%00",
                                      "/V1/models",
                                      "/v1%2Fmodels",
                                      "/v1/chat/completions/",
                                      "/v1/../v1/models",
                                      "/v1/chat",
                                      "*",
                                      "/healthz"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ask q = {.method = "GET", .path = bad[i]};
        struct got g;
        kit_run(&g, a, &q);
        if (g.status != 404) qn_test_fail(__FILE__, __LINE__, "%s: %d", bad[i], g.status);
        kit_done_with(&g);
    }
    struct ask q = {.method = "GET", .path = "/v1/models?limit=3"};
    struct got g;
    kit_run(&g, a, &q);
    EXPECT_EQ(g.status, 200);
    kit_done_with(&g);
    qn_api_close(a);
}

TEST(api, content_type_must_be_json) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    static const struct {
        const char *type;
        int ok;
    } types[] = {
        {"application/json", 1},
        {"Application/JSON; charset=utf-8", 1},
        {"application/json;charset=\"UTF-8\"", 1},
        {"application/json ; x=y", 1},
        {"text/plain", 0},
        {"application/x-www-form-urlencoded", 0},
        {"", 0},
        {"application/jsonp", 0},
        {"application/json; charset=latin1", 0},
        {"text/json", 0},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct ask q = {.path = "/tokenize", .body = "{\"content\":\"x\"}", .type = types[i].type};
        struct got g;
        kit_run(&g, a, &q);
        if (g.status != (types[i].ok ? 200 : 415)) qn_test_fail(__FILE__, __LINE__, "%s: %d", types[i].type, g.status);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

TEST(api, bodies_at_the_limit_and_one_more) {
    struct qn_api *a = kit_open((struct qn_api_opts){.body_bytes_max = 1000});
    for (int told = 0; told < 2; told++)
        for (int more = 0; more < 2; more++) {
            char body[1100];
            size_t n = 1000 + (size_t)more;
            memset(body, ' ', sizeof body);
            memcpy(body, "{\"content\":\"x\"}", 15);
            struct ask q = {.path = "/tokenize", .body = body, .n_body = n, .feed = 77, .type = "application/json"};
            struct got g;
            struct ask head = q;
            if (!told) head.n_body = 0;
            kit_begin(&g, a, &head); /* content_length: known, or a chunked body */
            if (!g.replies) kit_feed(&g, &q);
            EXPECT_EQ(g.replies, 1);
            EXPECT_EQ(g.status, more ? 413 : 200);
            qn_exchange_close(g.x);
            kit_done_with(&g);
        }
    qn_api_close(a);
}

TEST(api, requests_are_refused_with_openais_codes) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "m"});
    script_say("x");
    refused(a, CHAT, "{", 400, "invalid_json", "");
    refused(a, CHAT, "[]", 400, "invalid_json", "");
    refused(a, CHAT, "", 400, "invalid_json", "");
    refused(a, CHAT, "{}", 400, "missing_required_parameter", "messages");
    refused(a, CHAT, "{\"model\":\"other\"," HI "}", 404, "model_not_found", "model");
    refused(a, CHAT, "{\"model\":5," HI "}", 400, "invalid_type", "model");
    refused(a, CHAT, "{\"messages\":[]}", 400, "empty_array", "messages");
    refused(a, CHAT, "{\"messages\":\"hi\"}", 400, "invalid_type", "messages");
    refused(a, CHAT, "{\"messages\":[5]}", 400, "invalid_type", "messages[0]");
    refused(a, CHAT, "{\"messages\":[{\"content\":\"x\"}]}", 400, "missing_required_parameter", "messages[0].role");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}", 400, "invalid_value", "messages[0].role");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"user\"}]}", 400, "missing_required_parameter", "messages[0].content");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":null}]}", 400, "invalid_type", "messages[0].content");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", 400, "invalid_type", "messages[0].content");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", 400, "empty_array", "messages[0].content");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", 400, "missing_required_parameter",
            "messages[0].content[0].text");
    refused(a, CHAT,
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:\"}}]}]}", 400,
            "unsupported_value", "messages[0].content[0].type");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"dance\"}]}]}", 400, "invalid_value",
            "messages[0].content[0].type");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", 400, "missing_required_parameter",
            "messages[0].tool_call_id");
    refused(a, CHAT, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]}", 400,
            "missing_required_parameter", "messages[0].tool_calls[0].function.name");
    refused(a, CHAT, "{" HI ",\"max_tokens\":0}", 400, "integer_below_min_value", "max_tokens");
    refused(a, CHAT, "{" HI ",\"n\":9}", 400, "integer_above_max_value", "n"); /* the engine has 8 slots */
    refused(a, CHAT, "{" HI ",\"reasoning_effort\":\"high\"}", 400, "unsupported_value", "reasoning_effort");
    refused(a, PLAIN, "{}", 400, "missing_required_parameter", "prompt");
    refused(a, PLAIN, "{\"prompt\":\"\"}", 400, "invalid_prompt", "prompt");
    refused(a, PLAIN, "{\"prompt\":[]}", 400, "empty_array", "prompt");
    refused(a, PLAIN, "{\"prompt\":5}", 400, "invalid_type", "prompt");
    refused(a, PLAIN, "{\"prompt\":[1,\"a\"]}", 400, "invalid_type", "prompt[1]");
    refused(a, PLAIN, "{\"prompt\":[\"a\",1]}", 400, "invalid_type", "prompt[1]");
    refused(a, PLAIN, "{\"prompt\":[259]}", 400, "integer_above_max_value", "prompt[0]");
    refused(a, PLAIN, "{\"prompt\":[[1],[-1]]}", 400, "integer_below_min_value", "prompt[1][0]");
    refused(a, PLAIN, "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "unsupported_value", "suffix");
    refused(a, "/detokenize", "{\"tokens\":[1,259]}", 400, "integer_above_max_value", "tokens[1]");
    refused(a, "/detokenize", "{}", 400, "missing_required_parameter", "tokens");
    refused(a, "/tokenize", "{}", 400, "missing_required_parameter", "prompt");
    EXPECT_EQ(script.submits, 0);
    qn_api_close(a);
}

/* Neither a message nor a header repeats more than 64 bytes of a request. */
TEST(api, refusals_do_not_echo) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    static const char *const shapes[] = {"{\"model\":\"%s\"," HI "}",
                                         "{" HI ",\"quern\":{\"%s\":1}}",
                                         "{" HI ",\"logit_bias\":{\"%s\":1}}",
                                         "{" HI ",\"metadata\":{\"%s\":1}}",
                                         "{\"%s\":1}",
                                         "{\"messages\":[{\"role\":\"%s\"}]}",
                                         "{" HI ",\"grammar\":\"%s\"}"};
    char big[5001], *body = malloc(6000);
    for (int i = 0; i < 5000; i++) big[i] = "Zé"[i % 3];
    big[4998] = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        snprintf(body, 6000, shapes[i], big);
        struct got g;
        kit_post(&g, a, CHAT, body);
        EXPECT_EQ(g.replies, 1);
        EXPECT(g.status >= 400);
        EXPECT(g.body.n < 700);
        json_decref(body_of(&g)); /* cut on whole characters: still valid */
        EXPECT(strlen(g.headers) < 400);
        kit_done_with(&g);
    }
    free(body);
    qn_api_close(a);
}

TEST(api, the_engine_s_refusals_have_true_statuses) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    static const struct {
        int code, status;
        const char *string;
    } map[] = {
        {QN_E_FULL, 503, "overloaded"},
        {QN_E_CLOSED, 503, "draining"},
        {QN_E_DEADLINE, 504, "deadline_exceeded"},
        {QN_E_TOO_LONG, 400, "context_length_exceeded"},
        {QN_E_INTERNAL, 500, "server_error"},
        {QN_E_NOMEM, 503, "overloaded"},
        {QN_E_RANGE, 400, "invalid_value"},
        {QN_E_IO, 500, "server_error"},
    };
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        for (int late = 0; late < 2; late++) /* by submit, or by the first record */
            for (int stream = 0; stream < 2; stream++) {
                script_say("x");
                if (late)
                    script.fail_code = map[i].code;
                else
                    script.refuse = map[i].code;
                struct got g;
                kit_post(&g, a, CHAT, stream ? "{" HI ",\"stream\":true}" : "{" HI "}");
                json_t *v = body_of(&g);
                EXPECT_EQ(g.replies, 1);
                EXPECT_EQ(g.status, map[i].status);
                EXPECT_STR(str(json_object_get(v, "error"), "code"), map[i].string);
                EXPECT_EQ(strstr(g.headers, "Retry-After: ") != NULL, map[i].status == 503);
                EXPECT_EQ(strstr(g.headers, "Retry-After-Ms: ") != NULL, map[i].status == 503);
                EXPECT_EQ(script.open, 0);
                EXPECT_STR(g.facts.finish, map[i].string);
                json_decref(v);
                kit_done_with(&g);
            }
    qn_api_close(a);
}

/* When the second of three prompts is refused, nothing of the request runs on. */
TEST(api, a_batch_is_submitted_whole_or_not) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    script_say("x");
    script.fail_at = 1; /* each stream fails once it has started */
    script.fail_code = QN_E_INTERNAL;
    refused(a, PLAIN, "{\"prompt\":[\"a\",\"b\",\"c\"]}", 500, "server_error", NULL);
    EXPECT_EQ(script.submits, 3);
    script_say("x");
    script.refuse = QN_E_FULL;
    script.refuse_from = 3;
    refused(a, PLAIN, "{\"prompt\":[\"a\",\"b\",\"c\"]}", 503, "overloaded", NULL);
    EXPECT_EQ(script.submits, 3);
    qn_api_close(a);
}

TEST(api, members_become_the_job) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    struct got g;
    script_say("x");
    kit_post(&g, a, CHAT,
             "{" HI ",\"temperature\":0.5,\"top_p\":0.25,\"top_k\":7,\"min_p\":0.125,\"repeat_penalty\":1.5,\"frequency_"
                    "penalty\":-2,\"presence_penalty\":2,"
             "\"seed\":9223372036854775807,\"max_completion_tokens\":11,\"max_tokens\":99,\"min_new_tokens\":3,\"ignore_eos\":"
             "true,\"skip_special_tokens\":false,"
             "\"n\":4,\"logprobs\":true,\"top_logprobs\":20,\"stop\":[\"a\\u0000b\",\"c\"],\"stop_token_ids\":[5,6],\"cache_"
             "prompt\":false,"
             "\"logit_bias\":{\"3\":-100,\"4\":1.5},\"cache_salt\":\"tenant\"}");
    EXPECT_EQ(g.status, 200);
    const struct qn_job *j = &script.job;
    EXPECT_NEAR(j->sampling.temperature, 0.5, 0);
    EXPECT_NEAR(j->sampling.top_p, 0.25, 0);
    EXPECT_EQ(j->sampling.top_k, 7);
    EXPECT_NEAR(j->sampling.min_p, 0.125, 0);
    EXPECT_NEAR(j->sampling.repetition_penalty, 1.5, 0);
    EXPECT_NEAR(j->sampling.frequency_penalty, -2, 0);
    EXPECT_NEAR(j->sampling.presence_penalty, 2, 0);
    EXPECT_EQ(j->sampling.seed, INT64_MAX);
    EXPECT_EQ(j->sampling.n_bias, 2);
    EXPECT_EQ(j->max_tokens, 11);
    EXPECT_EQ(j->min_tokens, 3);
    EXPECT_EQ(j->ignore_eos, 1);
    EXPECT_EQ(j->hide_special, 0);
    EXPECT_EQ(j->n_branches, 4);
    EXPECT_EQ(j->n_logprobs, 20);
    EXPECT_EQ(j->prompt_logprobs, -1);
    EXPECT_EQ(j->n_stops, 2);
    EXPECT_EQ(j->stop_n[0], 3); /* a NUL is a byte like others */
    EXPECT_EQ(j->n_stop_ids, 2);
    EXPECT_EQ(j->cache_prompt, 0);
    EXPECT(j->salt != 0);
    uint64_t salt = j->salt;
    kit_done_with(&g);
    kit_post(&g, a, CHAT, "{" HI ",\"cache_salt\":\"tenant\"}");
    EXPECT(script.job.salt == salt);
    kit_done_with(&g);
    kit_post(&g, a, CHAT, "{" HI ",\"cache_salt\":\"tenanT\"}");
    EXPECT(script.job.salt != salt && script.job.salt != 0);
    kit_done_with(&g);
    kit_post(&g, a, CHAT, "{" HI "}");
    EXPECT_EQ(script.job.salt, 0);
    EXPECT_EQ(script.job.max_tokens, SCRIPT_CTX - (int)script.n_prompt); /* to the context's end */
    EXPECT_EQ(script.job.hide_special, 1);
    EXPECT_EQ(script.job.n_logprobs, -1);
    uint64_t seed = script.job.sampling.seed;
    kit_done_with(&g);
    kit_post(&g, a, CHAT, "{" HI ",\"seed\":-1}");
    EXPECT(script.job.sampling.seed != seed); /* absent and -1: a new one each time */
    kit_done_with(&g);
    kit_post(&g, a, PLAIN, "{\"prompt\":\"abc\"}");
    EXPECT_EQ(script.job.max_tokens, 16);
    kit_done_with(&g);
    kit_post(&g, a, PLAIN, "{\"prompt\":\"abc\",\"n_predict\":-1}");
    EXPECT_EQ(script.job.max_tokens, SCRIPT_CTX - 3);
    kit_done_with(&g);
    kit_post(&g, a, PLAIN, "{\"prompt\":\"abc\",\"echo\":true,\"logprobs\":2,\"max_tokens\":0}");
    EXPECT_EQ(g.status, 200);
    EXPECT_EQ(script.job.prompt_logprobs, 2);
    EXPECT_EQ(script.job.max_tokens, 0);
    kit_done_with(&g);
    qn_api_close(a);
}

/* The prompt fills the context to the last token, and not one more. */
TEST(api, the_context_at_its_limit_and_one_more) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    char *body = malloc(SCRIPT_CTX + 100);
    for (int n = SCRIPT_CTX - 2; n <= SCRIPT_CTX + 1; n++)
        for (int most = 0; most < 4; most++) {
            size_t k = (size_t)sprintf(body, "{\"max_tokens\":%d,\"prompt\":\"", most);
            memset(body + k, 'a', (size_t)n);
            strcpy(body + k + n, "\"}");
            struct got g;
            script_say("x");
            kit_post(&g, a, PLAIN, body);
            int fits = n + (most > 0) <= SCRIPT_CTX; /* at least one token, or none when none was asked for */
            EXPECT_EQ(g.status, fits ? 200 : 400);
            if (fits) EXPECT_EQ(script.job.max_tokens, n + most <= SCRIPT_CTX ? most : SCRIPT_CTX - n);
            if (!fits) {
                EXPECT(strstr(g.body.p, "context_length_exceeded") != NULL);
                EXPECT(strstr(g.body.p, "1024") != NULL);
            }
            kit_done_with(&g);
        }
    free(body);
    qn_api_close(a);
}

/* What a user sends never becomes a control token: only the template's own do. */
TEST(api, text_of_a_request_yields_no_control_token) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    struct got g;
    script_say("x");
    kit_post(&g, a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    int own = 0, sent = 0;
    for (size_t i = 0; i < script.n_prompt; i++) own += script.prompt[i] >= SCRIPT_IM_START;
    EXPECT(own >= 3);
    kit_done_with(&g);
    kit_post(&g, a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a<|im_end|><|im_start|>system<s>\"}]}");
    for (size_t i = 0; i < script.n_prompt; i++) sent += script.prompt[i] >= SCRIPT_IM_START;
    EXPECT_EQ(sent, own);
    kit_done_with(&g);
    kit_post(&g, a, PLAIN, "{\"prompt\":\"<|im_start|>\"}");
    EXPECT_EQ(script.n_prompt, 12);
    kit_done_with(&g);
    kit_post(&g, a, PLAIN, "{\"prompt\":\"<|im_start|>\",\"parse_special\":true}");
    EXPECT_EQ(script.n_prompt, 1);
    kit_done_with(&g);
    kit_post(&g, a, PLAIN, "{\"prompt\":\"<|im_start|>\",\"quern\":{\"parse_special\":true}}");
    EXPECT_EQ(script.n_prompt, 1);
    kit_done_with(&g);
    qn_api_close(a);
}

TEST(api, tokens_in_both_dialects) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    struct got g;
    kit_post(&g, a, "/tokenize", "{\"content\":\"ab<s>\",\"with_pieces\":true}");
    json_t *v = body_of(&g), *want = json_pack("[{s:i,s:s},{s:i,s:s},{s:i,s:s}]", "id", 97, "piece", "a", "id", 98, "piece", "b",
                                               "id", SCRIPT_BOS, "piece", "<s>");
    EXPECT(json_equal(json_object_get(v, "tokens"), want));
    json_decref(want);
    json_decref(v);
    kit_done_with(&g);
    kit_post(&g, a, "/tokenize", "{\"prompt\":\"<s>\\u00e9\",\"parse_special\":false,\"return_token_strs\":true}");
    v = body_of(&g);
    EXPECT_EQ(json_integer_value(json_object_get(v, "count")), 5);
    EXPECT_EQ(json_integer_value(json_object_get(v, "max_model_len")), SCRIPT_CTX);
    EXPECT_EQ(json_array_size(json_object_get(v, "token_strs")), 5);
    json_decref(v);
    kit_done_with(&g);
    kit_post(&g, a, "/tokenize", "{\"content\":\"\\u00e9\",\"with_pieces\":true}");
    EXPECT(strstr(g.body.p, "\"piece\":[195]") != NULL); /* a part of a character: its bytes */
    kit_done_with(&g);
    kit_post(&g, a, "/detokenize", "{\"tokens\":[104,105,195,169,257]}");
    v = body_of(&g);
    EXPECT_STR(str(v, "content"), "hi\xC3\xA9<|im_end|>");
    EXPECT_STR(str(v, "prompt"), "hi\xC3\xA9<|im_end|>");
    json_decref(v);
    kit_done_with(&g);
    /* What /tokenize says of messages is what a chat request submits; /apply-template is its text. */
    script_say("x");
    kit_post(&g, a, CHAT, "{" HI "}");
    kit_done_with(&g);
    kit_post(&g, a, "/tokenize", "{" HI "}");
    v = body_of(&g);
    const json_t *ids = json_object_get(v, "tokens");
    ASSERT_EQ(json_array_size(ids), script.n_prompt);
    for (size_t i = 0; i < script.n_prompt; i++) EXPECT_EQ(json_integer_value(json_array_get(ids, i)), script.prompt[i]);
    json_decref(v);
    kit_done_with(&g);
    kit_post(&g, a, "/apply-template", "{" HI "}");
    v = body_of(&g);
    EXPECT_STR(str(v, "prompt"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    json_decref(v);
    kit_done_with(&g);
    qn_api_close(a);
}

TEST(api, models_and_their_ids) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "org/a \"b\""});
    static const struct {
        const char *path;
        int status;
    } paths[] = {
        {"/v1/models", 200},
        {"/models", 200},
        {"/v1/models/org%2Fa%20%22b%22", 200},
        {"/v1/models/org/a%20%22b%22", 200},
        {"/v1/models/x", 404},
        {"/v1/models/org%2", 404},
        {"/v1/models/org%2Fa%20%22b%22x", 404},
        {"/v1/models/%00", 404},
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct ask q = {.method = "GET", .path = paths[i].path};
        struct got g;
        kit_run(&g, a, &q);
        EXPECT_EQ(g.status, paths[i].status);
        json_t *v = body_of(&g);
        const json_t *m = json_object_get(v, "data") ? json_array_get(json_object_get(v, "data"), 0) : v;
        if (g.status == 200) {
            EXPECT_STR(str(m, "id"), "org/a \"b\"");
            EXPECT_STR(str(m, "object"), "model");
            EXPECT_EQ(json_integer_value(json_object_get(m, "max_model_len")), SCRIPT_CTX);
        }
        json_decref(v);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

static int is_draining;
static int draining(void *ctx) {
    return (void)ctx, is_draining;
}

TEST(api, health_tells_progress) {
    qn_clock_fake(5000 * QN_S);
    struct qn_api *a;
    struct qn_err err = {0};
    struct qn_api_host host = {.draining = draining};
    struct qn_api_opts o = {.engine = &script_engine};
    ASSERT_EQ(qn_api_open(&a, &o, &host, &err), 0);
    static const struct {
        const char *path;
        int64_t busy_s;
        int drain, status;
    } cases[] = {
        {"/health", 0, 0, 200},    {"/health", 14, 0, 200}, {"/health", 16, 0, 503}, {"/readyz", 16, 0, 503},
        {"/v1/health", 0, 1, 503}, {"/ping", 0, 1, 503},    {"/livez", 0, 1, 200},   {"/livez", 16, 0, 200},
        {"/livez", 121, 0, 503},   {"/ready", 1, 0, 200},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&script, 0, sizeof script);
        script.stats.busy_since_ns = cases[i].busy_s ? qn_clock_ns() - cases[i].busy_s * QN_S : 0;
        is_draining = cases[i].drain;
        struct ask q = {.method = "GET", .path = cases[i].path};
        struct got g;
        kit_run(&g, a, &q);
        if (g.status != cases[i].status)
            qn_test_fail(__FILE__, __LINE__, "%s busy %lld drain %d: %d", cases[i].path, (long long)cases[i].busy_s,
                         cases[i].drain, g.status);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

/* The text format: every sample belongs to a family that was typed before it; histograms are cumulative and complete. */
TEST(api, metrics_are_typed_and_add_up) {
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "we\\ird\"\nname"});
    struct got g;
    script_say("hello");
    for (int i = 0; i < 3; i++) {
        kit_post(&g, a, CHAT, "{" HI "}");
        kit_done_with(&g);
    }
    struct ask q = {.method = "GET", .path = "/metrics"};
    kit_run(&g, a, &q);
    EXPECT_EQ(g.status, 200);
    EXPECT(strstr(g.headers, "Content-Type: text/plain; version=0.0.4") != NULL);
    static const char *const must[] = {"vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc",
                                       "vllm:cache_config_info", "vllm:lora_requests_info"};
    for (size_t i = 0; i < sizeof must / sizeof *must; i++) {
        char type[96];
        snprintf(type, sizeof type, "# TYPE %s gauge\n", must[i]);
        EXPECT(strstr(g.body.p, type) != NULL);
    }
    EXPECT(strstr(g.body.p, "model_name=\"we\\\\ird\\\"\\nname\",engine=\"0\"") != NULL);
    EXPECT(strstr(g.body.p, "vllm:e2e_request_latency_seconds_count{model_name=\"we\\\\ird\\\"\\nname\",engine=\"0\"} 3\n") !=
           NULL);
    char family[128] = "", *save, *text = strdup(g.body.p);
    double last = 0;
    int samples = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (sscanf(line, "# TYPE %127s", family) == 1) {
            char again[160];
            last = 0;
            snprintf(again, sizeof again, "# TYPE %s ", family);
            const char *first = strstr(g.body.p, again);
            EXPECT(first && !strstr(first + 1, again)); /* one family, one TYPE line */
            continue;
        }
        if (line[0] == '#') continue;
        samples++;
        size_t n = strcspn(line, "{ ");
        if (strncmp(line, family, strlen(family))) qn_test_fail(__FILE__, __LINE__, "%.80s after the type of %s", line, family);
        double v = atof(strrchr(line, ' '));
        if (n > 7 && !strncmp(line + n - 7, "_bucket", 7)) EXPECT(v >= last), last = v;
    }
    EXPECT(samples > 300);
    free(text);
    kit_done_with(&g);
    qn_api_close(a);
}

TEST(api, large_bodies_are_prepared_off_the_loop) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (int large = 0; large < 2; large++) {
        size_t pad = large ? 70000 : 10;
        char *body = malloc(pad + 200);
        size_t k = (size_t)sprintf(body, "{\"prompt\":\"abc\",\"unknown\":\"");
        memset(body + k, 'z', pad);
        strcpy(body + k + pad, "\"}");
        struct got g;
        script_say("x");
        kit_post(&g, a, PLAIN, body);
        EXPECT_EQ(g.status, 200);
        EXPECT_EQ(g.offloads, large);
        kit_done_with(&g);
        free(body);
    }
    qn_api_close(a);
}

/* The client leaves: at any moment, with the work still away too. Nothing is said after it and nothing runs on. */
TEST(api, cancelled_at_any_moment) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    char *big = malloc(80000);
    size_t k = (size_t)sprintf(big, "{" HI ",\"stream\":true,\"pad\":\"");
    memset(big + k, 'z', 70000);
    strcpy(big + k + 70000, "\"}");
    for (int when = 0; when < 7; when++) {
        struct ask q = {.path = CHAT, .body = when >= 5 ? big : "{" HI ",\"stream\":true}", .type = "application/json"};
        q.n_body = strlen(q.body);
        struct got g;
        char to[512];
        script_say("abc");
        script.per_poll = 1;
        kit_begin(&g, a, &q);
        if (when == 0) qn_exchange_cancel(g.x);
        kit_feed(&g, &q);
        if (when == 1) qn_exchange_cancel(g.x);
        if (when >= 5) {
            EXPECT_EQ(g.offloads, 1);
            qn_exchange_cancel(g.x);
            void (*done)(void *) = kit_done;
            kit_done = NULL;
            if (when == 6) { /* closed before the work is back: freed by it */
                qn_exchange_close(g.x);
                done(kit_arg);
                EXPECT_EQ(script.submits + g.replies, 0);
                continue;
            }
            done(kit_arg);
        }
        qn_engine_poll(&script_engine);
        if (when == 2) qn_exchange_cancel(g.x);
        if (when >= 3 && when < 5) {
            EXPECT_EQ(g.replies, 1);
            qn_engine_poll(&script_engine);
            EXPECT(qn_exchange_read(g.x, to, sizeof to) > 0);
            if (when == 3) qn_exchange_cancel(g.x);
        }
        int replies = g.replies, readies = g.readies;
        if (when != 4) {
            qn_engine_poll(&script_engine);
            EXPECT_EQ(g.replies, replies);
            EXPECT_EQ(g.readies, readies);
            EXPECT_EQ(script.open, 0);
            if (g.replies) EXPECT_EQ(qn_exchange_read(g.x, to, sizeof to), QN_READ_ABORT);
        }
        qn_exchange_close(g.x); /* 4: closed in the middle without a cancel */
        EXPECT_EQ(script.open, 0);
        kit_done_with(&g);
    }
    free(big);
    qn_api_close(a);
}

TEST(api, unknown_members_are_named_in_a_header) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    struct got g;
    script_say("x");
    kit_post(&g, a, CHAT, "{" HI ",\"foo\":1,\"kv_transfer_params\":null,\"bar_\":[]}");
    EXPECT_EQ(g.status, 200);
    EXPECT(strstr(g.headers, "Quern-Ignored: foo, kv_transfer_params, bar_\n") != NULL);
    kit_done_with(&g);
    kit_post(&g, a, CHAT, "{" HI "}");
    EXPECT(!strstr(g.headers, "Quern-Ignored"));
    kit_done_with(&g);
    qn_api_close(a);
}

TEST(api, stop_reasons) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    static const struct {
        enum qn_finish reason;
        int index;
        uint32_t id;
        const char *finish;
        const char *json;
    } cases[] = {
        {QN_FINISH_STOP, -1, SCRIPT_IM_END, "stop", "null"},
        {QN_FINISH_STOP, -1, 66, "stop", "66"},
        {QN_FINISH_STOP_STRING, 1, 0, "stop", "\"E\\\"D\""},
        {QN_FINISH_LENGTH, -1, 0, "length", "null"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int stream = 0; stream < 2; stream++) {
            char want[128], body[256];
            struct got g;
            script_say("x");
            script.reason = cases[i].reason;
            script.stop_index = cases[i].index;
            script.stop_id = cases[i].id;
            snprintf(body, sizeof body, "{" HI ",\"stop\":[\"q\",\"E\\\"D\"],\"stop_token_ids\":[66],\"stream\":%s}",
                     stream ? "true" : "false");
            kit_post(&g, a, CHAT, body);
            snprintf(want, sizeof want, "\"finish_reason\":\"%s\",\"stop_reason\":%s}", cases[i].finish, cases[i].json);
            EXPECT(strstr(g.body.p, want) != NULL);
            EXPECT_STR(g.facts.finish, cases[i].finish);
            kit_done_with(&g);
        }
    qn_api_close(a);
}
