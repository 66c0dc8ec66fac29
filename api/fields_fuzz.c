/* Any body to each endpoint over a scripted engine: one reply, every error OpenAI's object, every answer JSON or whole
 * events with one finish for each choice; nothing is left open. The first byte picks endpoint, pieces and buffer.
 *
 * Bytes are seldom JSON after a mutation. So input that begins with 'T' is not a body but a list of picks: pairs of a row of
 * the members' table and a value from the pool below, added to a request that is fine by itself. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "api/request_table.h"
#include "tests/lib/api_kit.h"

static const char *const paths[] = {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template"};

static void check_error(const json_t *e) {
    const json_t *param = json_object_get(e, "param");
    assert(json_object_size(e) == 4 && json_is_string(json_object_get(e, "message")) &&
           json_is_string(json_object_get(e, "type")));
    assert(json_is_string(json_object_get(e, "code")) && param && (json_is_null(param) || json_is_string(param)));
    assert(json_string_length(json_object_get(e, "message")) < QN_MESSAGE_MAX);
}

/* The script does not heed constraints, so where a form was asked for its answer is found out in the end. */
static void check_form_error(const json_t *e) {
    check_error(e);
    assert(!strcmp(json_string_value(json_object_get(e, "code")), "invalid_structured_output") && script.job.constraint);
}

static void check_stream(const struct got *g) {
    const char *at = g->body.p, *line;
    int finishes = 0, done = 0;
    assert(at);
    while ((line = kit_event(&at))) {
        assert(!done);
        if (!strcmp(line, "[DONE]")) {
            done = 1;
            continue;
        }
        json_t *v = json_loads(line, JSON_ALLOW_NUL, NULL), *c;
        size_t i;
        assert(v);
        if (json_object_get(v, "error")) {
            check_form_error(json_object_get(v, "error"));
            assert(!*at && g->end == QN_READ_ABORT);
            json_decref(v);
            return;
        }
        json_array_foreach(json_object_get(v, "choices"), i, c) finishes += json_is_string(json_object_get(c, "finish_reason"));
        json_decref(v);
    }
    assert(!*at && done && g->end == QN_READ_END);
    assert(finishes >= 1 && finishes <= QN_CHOICES_MAX && finishes % script.job.n_branches == 0);
}

static const char *const pool[] = {
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "-2",
    "4",
    "16",
    "20",
    "21",
    "0.5",
    "1.0",
    "1e-30",
    "1e300",
    "-0.0",
    "9223372036854775807",
    "-9223372036854775808",
    "\"\"",
    "\"m\"",
    "\"none\"",
    "\"auto\"",
    "\"a\\u0000b\"",
    "\"\\u65e5\\ud83d\\ude00\"",
    "\"<|im_end|>\"",
    "[]",
    "{}",
    "[1]",
    "[258]",
    "[259]",
    "[[1,2],[3]]",
    "[\"a\",\"b\"]",
    "[[5,-100],[\"xy\",false]]",
    "{\"5\":1.5}",
    "{\"258\":-100,\"0\":100}",
    "{\"include_usage\":true}",
    "{\"include_usage\":true,\"continuous_usage_stats\":true}",
    "{\"type\":\"text\"}",
    "{\"parse_special\":true}",
    "{\"deadline_ms\":1}",
    "{\"k\":\"v\"}",
    "{\"type\":\"content\",\"content\":\"say\"}",
    "[{\"role\":\"user\",\"content\":\"x\"}]",
    "[{\"role\":\"assistant\",\"content\":null}]",
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]",
    "{\"type\":\"json_object\"}",
    "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"properties\":{\"a\":{\"type\":\"integer\"}}}}}",
    "{\"type\":\"string\"}",
    "{\"type\":\"regex\",\"value\":\"[^x]*\"}",
    "{\"regex\":\"[^x]*\"}",
    "{\"choice\":[\"a\"]}",
    "\"root ::= [^x]*\"",
    "\"start: /[^x]*/\"",
    "1023",
    "1024",
};
enum { POOL = sizeof pool / sizeof *pool };

/* data: byte 0 as above, byte 1 'T', then pairs. */
static void build(struct qn_buf *out, const uint8_t *data, size_t n) {
    static const char *const base[] = {"\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]", "\"prompt\":\"hi\"",
                                       "\"content\":\"hi\"", "\"tokens\":[1]",
                                       "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"};
    unsigned char used[512] = {0};
    qn_buf_printf(out, "{%s", base[data[0] % 5]);
    for (size_t i = 2; i + 1 < n && i < 64; i += 2) {
        const struct qn_field *f = &qn_request_table[data[i] % qn_request_rows];
        size_t row = 0; /* the first row of that name: names must not repeat */
        while (strcmp(qn_request_table[row].name, f->name)) row++;
        char quoted[80];
        snprintf(quoted, sizeof quoted, "{\"%s\"", f->name);
        if (used[row % 512]++ || strstr(base[data[0] % 5], quoted + 1) == base[data[0] % 5]) continue;
        qn_buf_printf(out, ",\"%s\":%s", f->name, pool[data[i + 1] % POOL]);
    }
    qn_buf_putc(out, '}');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct qn_api *a;
    if (!a) a = kit_open((struct qn_api_opts){.model_name = "m"});
    if (n == 0) return 0;
    unsigned pick = data[0];
    struct qn_buf built;
    qn_buf_init(&built, 1 << 20);
    struct ask q = {.path = paths[pick % 5],
                    .body = (const char *)data + 1,
                    .n_body = n - 1,
                    .type = "application/json",
                    .feed = pick & 32 ? 7 : 0,
                    .read_max = pick & 64 ? 512 : 65536};
    struct got g;
    script_say("say \"\xC3\xA9\xE6\x97\xA5\"\n");
    script.per_poll = pick & 128 ? 1 : 0;
    if (q.n_body == 0) q.body = "";
    if (n > 1 && data[1] == 'T') {
        build(&built, data, n);
        q.body = built.p;
        q.n_body = built.n;
    }
    kit_run(&g, a, &q);
    assert(g.replies == 1 && script.open == 0);
    assert(g.status == 200 || g.status == 400 || g.status == 404 || g.status == 500);
    if (g.streamed) {
        assert(g.status == 200);
        check_stream(&g);
    } else {
        json_t *v = json_loadb(g.body.p, g.body.n, JSON_ALLOW_NUL, NULL);
        assert(v && json_is_object(v));
        if (g.status == 500)
            check_form_error(json_object_get(v, "error"));
        else if (g.status != 200)
            check_error(json_object_get(v, "error"));
        else
            assert(!json_object_get(v, "error"));
        json_decref(v);
    }
    kit_done_with(&g);
    qn_buf_done(&built);
    return 0;
}
