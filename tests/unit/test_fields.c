/* The table of request members: every row at its limits, every alias, and the document that is made from it. */
#include <unistd.h>

#include "api/request_table.h"
#include "tests/lib/api_kit.h"
#include "tests/run.h"

static int walk(const struct qn_field *t, size_t n, unsigned on, json_t *obj, struct qn_refusal *r, struct qn_buf *ignored) {
    static struct qn_params p;
    struct qn_walk w = {t, n, on, "", 0, ignored, r};
    *r = (struct qn_refusal){0};
    return qn_fields_walk(&w, obj, &p);
}

static void one(const struct qn_field *f, unsigned on, json_t *v, const char *code) {
    struct qn_refusal r;
    struct qn_buf ignored;
    qn_buf_init(&ignored, 1024);
    json_t *obj = json_pack("{so}", f->name, v);
    int rc = walk(qn_request_table, qn_request_rows, on, obj, &r, &ignored);
    if (code) {
        if (rc >= 0 || strcmp(r.code, code) || strcmp(r.param, f->name) || r.status != 400)
            qn_test_fail(__FILE__, __LINE__, "%s: wanted %s, got %s for %s", f->name, code, rc < 0 ? r.code : "no error",
                         r.param);
    } else if (rc < 0) {
        qn_test_fail(__FILE__, __LINE__, "%s: refused: %s", f->name, r.message);
    }
    json_decref(obj);
    qn_buf_done(&ignored);
}

TEST(fields, every_number_at_its_limits_and_beyond) {
    int rows = 0;
    for (size_t i = 0; i < qn_request_rows; i++) {
        const struct qn_field *f = &qn_request_table[i];
        for (unsigned on = 1; on <= QN_ON_TEMPLATE; on <<= 1) {
            if (!(f->on & on) || f->use != QN_F_HONOURED || (f->kind != QN_F_INT && f->kind != QN_F_NUM)) continue;
            rows++;
            one(f, on, json_string("1"), "invalid_type");
            one(f, on, json_true(), "invalid_type");
            one(f, on, json_array(), "invalid_type");
            one(f, on, json_null(), NULL);
            if (f->kind == QN_F_INT) one(f, on, json_real(1.5), "invalid_type");
            if (f->hi > 1e15) { /* 64 bits: all of them */
                one(f, on, json_integer(INT64_MAX), NULL);
                one(f, on, json_integer(INT64_MIN), NULL);
                continue;
            }
            if (f->kind == QN_F_INT) {
                one(f, on, json_integer((json_int_t)f->lo), NULL);
                one(f, on, json_integer((json_int_t)f->hi), NULL);
                one(f, on, json_integer((json_int_t)f->lo - 1), "integer_below_min_value");
                one(f, on, json_integer((json_int_t)f->hi + 1), "integer_above_max_value");
                one(f, on, json_real(f->hi), NULL); /* 16.0 is 16 */
            } else {
                one(f, on, json_real(f->lo), f->lo_open ? "decimal_below_min_value" : NULL);
                one(f, on, json_real(f->hi), NULL);
                one(f, on, json_real(f->lo - 0.001), "decimal_below_min_value");
                one(f, on, json_real(f->hi + 0.001), "decimal_above_max_value");
                if (f->lo_open) one(f, on, json_real(f->lo + 0.001), NULL);
            }
        }
    }
    EXPECT(rows > 30);
}

TEST(fields, every_unbuilt_member_passes_at_its_default_and_is_refused_otherwise) {
    int rows = 0;
    for (size_t i = 0; i < qn_request_rows; i++) {
        const struct qn_field *f = &qn_request_table[i];
        if (f->use != QN_F_DEFAULT_ONLY) continue;
        for (unsigned on = 1; on <= QN_ON_TEMPLATE; on <<= 1) {
            if (!(f->on & on)) continue;
            rows++;
            one(f, on, json_null(), NULL);
            one(f, on, json_string("certainly not the default"), "unsupported_value");
            char passes[128], *save, *a;
            snprintf(passes, sizeof passes, "%s", f->passes);
            for (a = strtok_r(passes, "|", &save); a; a = strtok_r(NULL, "|", &save)) {
                json_t *v = json_loads(a, JSON_DECODE_ANY, NULL);
                ASSERT(v); /* each alternative is JSON */
                one(f, on, v, NULL);
            }
        }
    }
    EXPECT(rows > 60);
}

TEST(fields, names_are_unique_for_each_endpoint) {
    for (size_t i = 0; i < qn_request_rows; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(qn_request_table[i].name, qn_request_table[k].name))
                EXPECT_EQ(qn_request_table[i].on & qn_request_table[k].on, 0);
}

/* Everything that the published schemas of OpenAI's chat and completions name is in the table. */
TEST(fields, knows_every_member_of_openai) {
    static const char *const chat[] = {
        "messages",
        "model",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    };
    static const char *const plain[] = {
        "model",
        "prompt",
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
    };
    for (int pass = 0; pass < 2; pass++) {
        const char *const *names = pass ? plain : chat;
        size_t n = pass ? sizeof plain / sizeof *plain : sizeof chat / sizeof *chat;
        for (size_t i = 0; i < n; i++) {
            int found = 0;
            for (size_t k = 0; k < qn_request_rows; k++)
                found |= (qn_request_table[k].on & (pass ? QN_ON_COMPLETIONS : QN_ON_CHAT)) &&
                         !strcmp(qn_request_table[k].name, names[i]);
            if (!found) qn_test_fail(__FILE__, __LINE__, "no row for %s", names[i]);
        }
    }
}

static int read_params(const char *body, unsigned on, struct qn_params *p, struct qn_refusal *r, struct qn_buf *ignored) {
    static const struct qn_bounds b = {&script_tok, SCRIPT_VOCAB, SCRIPT_CTX, 16};
    static json_t *keep;
    json_decref(keep);
    keep = json_loads(body, 0, NULL);
    ASSERT(keep);
    *r = (struct qn_refusal){0};
    qn_params_done(p); /* of the read before */
    return qn_params_read(p, keep, on, &b, ignored, r);
}

TEST(fields, lists_at_their_limits) {
    static struct qn_params p;
    struct qn_refusal r;
    struct qn_buf ignored, body;
    qn_buf_init(&ignored, 1024);
    qn_buf_init(&body, 1 << 20);
    static const struct {
        const char *name, *item, *code;
        int max;
    } lists[] = {
        {"stop", "\"x\"", "array_above_max_length", QN_STOPS_MAX},
        {"stop_token_ids", "7", "array_above_max_length", QN_STOP_IDS_MAX},
        {"logit_bias", "[7,1.5]", "array_above_max_length", QN_BIAS_MAX},
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (int more = 0; more < 2; more++) {
            qn_buf_reset(&body);
            qn_buf_printf(&body, "{\"%s\":[", lists[i].name);
            for (int k = 0; k < lists[i].max + more; k++) qn_buf_printf(&body, "%s%s", k ? "," : "", lists[i].item);
            qn_buf_puts(&body, "]}");
            int rc = read_params(body.p, QN_ON_CHAT, &p, &r, &ignored);
            EXPECT_EQ(rc < 0, more);
            if (!more) continue;
            EXPECT_STR(r.code, lists[i].code);
            EXPECT_STR(r.param, lists[i].name);
        }
    qn_buf_done(&body);
    qn_buf_done(&ignored);
}

TEST(fields, rules_between_members) {
    static struct qn_params p;
    struct qn_refusal r;
    struct qn_buf ignored;
    qn_buf_init(&ignored, 1024);
    static const struct {
        const char *body;
        unsigned on;
        const char *code, *param;
    } bad[] = {
        {"{\"top_logprobs\":3}", QN_ON_CHAT, "invalid_value", "top_logprobs"},
        {"{\"top_logprobs\":3,\"logprobs\":false}", QN_ON_CHAT, "invalid_value", "top_logprobs"},
        {"{\"logprobs\":3}", QN_ON_CHAT, "invalid_type", "logprobs"},
        {"{\"logprobs\":true}", QN_ON_COMPLETIONS, "invalid_type", "logprobs"},
        {"{\"logprobs\":21}", QN_ON_COMPLETIONS, "integer_above_max_value", "logprobs"},
        {"{\"stream_options\":{\"include_usage\":true}}", QN_ON_CHAT, "invalid_value", "stream_options"},
        {"{\"stream\":true,\"stream_options\":{\"include_obfuscation\":true}}", QN_ON_CHAT, "unsupported_value",
         "stream_options.include_obfuscation"},
        {"{\"stream\":true,\"stream_options\":3}", QN_ON_CHAT, "invalid_type", "stream_options"},
        {"{\"stop\":\"\"}", QN_ON_CHAT, "invalid_value", "stop"},
        {"{\"stop\":[\"a\",\"\"]}", QN_ON_CHAT, "invalid_value", "stop[1]"},
        {"{\"stop\":[\"a\",5]}", QN_ON_CHAT, "invalid_type", "stop[1]"},
        {"{\"stop_token_ids\":[259]}", QN_ON_CHAT, "integer_above_max_value", "stop_token_ids[0]"},
        {"{\"logit_bias\":{\"259\":1}}", QN_ON_CHAT, "invalid_value", "logit_bias.259"},
        {"{\"logit_bias\":{\"-1\":1}}", QN_ON_CHAT, "invalid_value", "logit_bias.-1"},
        {"{\"logit_bias\":{\"5\":100.5}}", QN_ON_CHAT, "decimal_above_max_value", "logit_bias.5"},
        {"{\"logit_bias\":[[259,1]]}", QN_ON_CHAT, "integer_above_max_value", "logit_bias[0][0]"},
        {"{\"logit_bias\":[[1]]}", QN_ON_CHAT, "invalid_type", "logit_bias[0]"},
        {"{\"n\":17}", QN_ON_CHAT, "integer_above_max_value", "n"},
        {"{\"best_of\":2,\"n\":3}", QN_ON_COMPLETIONS, "invalid_value", "best_of"},
        {"{\"best_of\":17}", QN_ON_COMPLETIONS, "integer_above_max_value", "best_of"},
        {"{\"best_of\":2,\"stream\":true}", QN_ON_COMPLETIONS, "invalid_value", "best_of"},
        {"{\"stop_regex\":\"(\"}", QN_ON_CHAT, "invalid_value", "stop_regex"},
        {"{\"stop_regex\":[\"a\",\"b*\"]}", QN_ON_CHAT, "invalid_value", "stop_regex[1]"},
        {"{\"stop_regex\":7}", QN_ON_CHAT, "invalid_type", "stop_regex"},
        {"{\"repetition_detection\":{\"max_pattern_size\":9}}", QN_ON_CHAT, "integer_below_min_value", "repetition_detection.min_count"},
        {"{\"repetition_detection\":{\"max_pattern_size\":2,\"min_pattern_size\":3,\"min_count\":2}}", QN_ON_CHAT, "invalid_value", "repetition_detection.min_pattern_size"},
        {"{\"truncation_side\":\"up\"}", QN_ON_CHAT, "invalid_value", "truncation_side"},
        {"{\"prompt_logprobs\":1,\"stream\":true}", QN_ON_CHAT, "invalid_value", "prompt_logprobs"},
        {"{\"quern\":{\"samples\":17}}", QN_ON_CHAT, "integer_above_max_value", "quern.samples"},
        {"{\"quern\":{\"samples\":4},\"n\":2}", QN_ON_CHAT, "invalid_value", "quern.samples"},
        {"{\"quern\":{\"samples\":4},\"stream\":true}", QN_ON_CHAT, "invalid_value", "quern.samples"},
        {"{\"quern\":{\"samples\":4,\"select\":\"best\"}}", QN_ON_CHAT, "invalid_value", "quern.select"},
        {"{\"quern\":{\"select\":\"majority\"}}", QN_ON_CHAT, "missing_required_parameter", "quern.samples"},
        {"{\"add_generation_prompt\":true,\"continue_final_message\":true}", QN_ON_CHAT, "invalid_value",
         "continue_final_message"},
        {"{\"max_tokens\":4,\"min_tokens\":5}", QN_ON_CHAT, "integer_above_max_value", "min_tokens"},
        {"{\"repetition_penalty\":1.1,\"repeat_penalty\":1.2}", QN_ON_CHAT, "invalid_value", NULL},
        {"{\"structured_outputs\":1}", QN_ON_CHAT, "invalid_type", "structured_outputs"},
        {"{\"structured_outputs\":{\"jsn\":{}}}", QN_ON_CHAT, "unknown_parameter", "structured_outputs.jsn"},
        {"{\"metadata\":{\"a\":1}}", QN_ON_CHAT, "invalid_type", "metadata.a"},
        {"{\"cache_salt\":\"a/b\"}", QN_ON_CHAT, "invalid_value", "cache_salt"},
        {"{\"cache_salt\":\"\"}", QN_ON_CHAT, "invalid_value", "cache_salt"},
        {"{\"quern\":{\"what\":1}}", QN_ON_CHAT, "unknown_parameter", "quern.what"},
        {"{\"quern\":{\"parse_special\":true}}", QN_ON_CHAT, "unknown_parameter", "quern.parse_special"},
        {"{\"quern\":[]}", QN_ON_CHAT, "invalid_type", "quern"},
        {"{\"chat_template_kwargs\":[]}", QN_ON_CHAT, "invalid_type", "chat_template_kwargs"},
        {"{\"documents\":[1]}", QN_ON_CHAT, "invalid_type", "documents[0]"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int rc = read_params(bad[i].body, bad[i].on, &p, &r, &ignored);
        if (rc >= 0 || strcmp(r.code, bad[i].code) || (bad[i].param && strcmp(r.param, bad[i].param)))
            qn_test_fail(__FILE__, __LINE__, "%s: wanted %s at %s, got %s at %s", bad[i].body, bad[i].code,
                         bad[i].param ? bad[i].param : "any", rc < 0 ? r.code : "no error", r.param);
    }
    EXPECT_EQ(read_params("{\"repetition_penalty\":1.25,\"repeat_penalty\":1.25,\"n\":16,\"best_of\":16}", QN_ON_COMPLETIONS, &p,
                          &r, &ignored),
              0);
    qn_buf_done(&ignored);
}

TEST(fields, what_routers_add_to_every_body_passes) {
    static struct qn_params p;
    struct qn_refusal r;
    struct qn_buf ignored;
    qn_buf_init(&ignored, 1024);
    EXPECT_EQ(
        read_params("{\"no_stop_trim\":false,\"ignore_eos\":false,\"continue_final_message\":false,\"skip_special_tokens\":true,"
                    "\"separate_reasoning\":true,\"stream_reasoning\":true,\"return_hidden_states\":false,\"include_reasoning\":"
                    "true,\"min_tokens\":0}",
                    QN_ON_CHAT, &p, &r, &ignored),
        0);
    EXPECT_EQ(ignored.n, 0);
    EXPECT_EQ(p.skip_special_tokens, 1);
    qn_buf_done(&ignored);
}

TEST(fields, unknown_members_are_named_cleanly_and_within_bounds) {
    static struct qn_params p;
    struct qn_refusal r;
    struct qn_buf ignored, body;
    qn_buf_init(&ignored, 1024);
    EXPECT_EQ(
        read_params("{\"what_is_this\":1,\"a\\r\\nSet-Cookie: b\":2,\"kv_transfer_params\":{}}", QN_ON_CHAT, &p, &r, &ignored),
        0);
    EXPECT(strstr(ignored.p, "what_is_this"));
    EXPECT(strstr(ignored.p, "kv_transfer_params"));
    EXPECT(!strpbrk(ignored.p, "\r\n:"));
    qn_buf_reset(&ignored);
    qn_buf_init(&body, 1 << 20);
    qn_buf_puts(&body, "{");
    for (int i = 0; i < 500; i++) qn_buf_printf(&body, "%s\"unknown_member_number_%d\":0", i ? "," : "", i);
    qn_buf_puts(&body, "}");
    EXPECT_EQ(read_params(body.p, QN_ON_CHAT, &p, &r, &ignored), 0);
    EXPECT(ignored.n < 600 && !ignored.failed);
    EXPECT(strstr(ignored.p, "..."));
    qn_buf_done(&body);
    qn_buf_done(&ignored);
}

TEST(fields, the_document_is_what_the_table_says) {
    struct qn_buf out;
    qn_buf_init(&out, 1 << 20);
    qn_params_markdown(&out);
    if (getenv("QN_GOLDEN_WRITE")) {
        FILE *f = fopen("docs/api-fields.md", "wb");
        ASSERT(f);
        fwrite(out.p, 1, out.n, f);
        fclose(f);
    }
    FILE *f = fopen("docs/api-fields.md", "rb");
    ASSERT(f); /* run from the top of the tree; QN_GOLDEN_WRITE=1 writes it */
    char *have = calloc(1, out.n + 2);
    size_t n = fread(have, 1, out.n + 1, f);
    fclose(f);
    EXPECT_MEM(have, n, out.p, out.n);
    free(have);
    qn_buf_done(&out);
}
