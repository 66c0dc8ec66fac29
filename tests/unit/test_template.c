/* Requests through chat templates: what is mended on the way in, what is refused, the defaults for models without a
 * template, and continued messages. Expected texts of continued messages are those of transformers 5.23. The templates are
 * the package's (scripts/fetch-vectors.sh) and the models' own. */
#include <jansson.h>
#include <pthread.h>
#include <unistd.h>

#include "api/template.h"
#include "engine/gguf.h"
#include "tests/run.h"

static char path_[4096];
static const char *cached(const char *below) {
    const char *cache = getenv("QUERN_CACHE"), *home = getenv("HOME");
    if (cache) snprintf(path_, sizeof path_, "%s/%s", cache, below);
    else snprintf(path_, sizeof path_, "%s/.cache/quern/%s", home ? home : "", below);
    if (access(path_, R_OK)) {
        fprintf(stderr, "%s is not there; scripts/fetch-vectors.sh and scripts/fetch-model.sh bring it\n", path_);
        ASSERT(!"a fetched file is missing");
    }
    return path_;
}

static struct qn_template *open_named(const char *name, const char *bos, const char *eos) {
    char below[256], *text = malloc(1 << 20);
    snprintf(below, sizeof below, "vectors/llama.cpp-0.3.36/models/templates/%s.jinja", name);
    FILE *f = fopen(cached(below), "rb");
    ASSERT(f && text);
    size_t n = fread(text, 1, 1 << 20, f);
    fclose(f);
    struct qn_template *t = NULL;
    struct qn_err err = {0};
    if (qn_template_open_plain(&t, text, n, bos, eos, &err) < 0) fprintf(stderr, "%s: %s\n", name, err.text);
    free(text);
    ASSERT(t);
    return t;
}

static struct qn_template *open_text(const char *text) {
    struct qn_template *t = NULL;
    struct qn_err err = {0};
    if (qn_template_open_plain(&t, text, text ? strlen(text) : 0, "<s>", "</s>", &err) < 0) fprintf(stderr, "%s\n", err.text);
    ASSERT(t);
    return t;
}

static struct qn_err last_err;

/* input: a JSON object with the members of struct qn_template_input. Owned text, or NULL with last_err. */
static char *render(const struct qn_template *t, const char *input, char **trusted) {
    json_error_t e;
    json_t *in = json_loads(input, 0, &e);
    if (!in) fprintf(stderr, "%s: %s\n", input, e.text);
    ASSERT(in);
    struct qn_template_input i = {json_object_get(in, "messages"), json_object_get(in, "tools"), json_object_get(in, "kwargs"), json_object_get(in, "documents"),
                                  json_is_true(json_object_get(in, "add")), json_is_true(json_object_get(in, "continue")), 0};
    struct qn_rendered r = {0};
    char *before = json_dumps(in, JSON_SORT_KEYS), *after, *text = NULL;
    last_err = (struct qn_err){0};
    int rc = qn_template_render(t, &i, &r, &last_err);
    after = json_dumps(in, JSON_SORT_KEYS);
    EXPECT_STR(after, before); /* the request is not changed */
    EXPECT(rc == 0 || last_err.code == rc);
    if (rc == 0) {
        text = strdup(r.text.p ? r.text.p : "");
        EXPECT_EQ(strlen(text), r.text.n);
        if (trusted) {
            *trusted = malloc(r.text.n + 1);
            memset(*trusted, '.', r.text.n);
            (*trusted)[r.text.n] = 0;
            for (size_t k = 0; k < r.n_trusted; k++) {
                EXPECT(r.trusted[k].from < r.trusted[k].to && r.trusted[k].to <= r.text.n);
                memcpy(*trusted + r.trusted[k].from, text + r.trusted[k].from, r.trusted[k].to - r.trusted[k].from);
            }
        }
    }
    qn_rendered_done(&r);
    free(before);
    free(after);
    json_decref(in);
    return text;
}

static void expect(int line, const struct qn_template *t, const char *input, const char *want) {
    char *got = render(t, input, NULL);
    if (!got || strcmp(got, want)) qn_test_fail(__FILE__, line, "%s: \"%s\" (%s), wanted \"%s\"", input, got ? got : "", last_err.text, want);
    free(got);
}
static void refuse(int line, const struct qn_template *t, const char *input, int code, const char *says) {
    char *got = render(t, input, NULL);
    if (got || last_err.code != code || !strstr(last_err.text, says))
        qn_test_fail(__FILE__, line, "%s: %d \"%s\", wanted %d with \"%s\"", input, last_err.code, got ? got : last_err.text, code, says);
    free(got);
}
#define EXPECT_TEXT(t, in, want) expect(__LINE__, t, in, want)
#define EXPECT_REFUSED(t, in, code, says) refuse(__LINE__, t, in, code, says)

#define STRINGS "{% for m in messages %}[{{ m.role }}]{{ m.content + '' }}{% endfor %}"
#define LISTS "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}({{ p.text }}){% endfor %}{% endfor %}"
#define BOTH "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}({{ p.text }}){% endfor %}{% endif %}{% endfor %}"
#define PARTS "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}]}"

TEST(template, content_parts_fit_the_template) {
    struct qn_template *s = open_text(STRINGS), *l = open_text(LISTS), *b = open_text(BOTH), *p = open_text("{{ messages[0].content }}");
    EXPECT_TEXT(s, PARTS, "[user]a\nb");
    EXPECT_TEXT(l, PARTS, "[user](a)(b)");
    EXPECT_TEXT(b, PARTS, "[user](a)(b)");
    EXPECT_TEXT(p, PARTS, "a\nb"); /* would print Python's list */
    EXPECT_TEXT(l, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "[user](x)"); /* strings become a part */
    EXPECT_TEXT(b, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "[user]x");
    EXPECT_TEXT(s, "{\"messages\": [{\"role\": \"user\", \"content\": []}]}", "[user]");
    EXPECT_REFUSED(s, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"image_url\"}]}]}", QN_E_RANGE, "messages[0].content[1]");
    EXPECT_REFUSED(s, "{\"messages\": []}", QN_E_RANGE, "messages");
    EXPECT_REFUSED(s, "{\"messages\": [5]}", QN_E_RANGE, "messages[0]");
    qn_template_close(s);
    qn_template_close(l);
    qn_template_close(b);
    qn_template_close(p);
}

#define CALL(args) "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"id\": \"c\", \"type\": \"function\", " \
                   "\"function\": {\"name\": \"f\", \"arguments\": " args "}}]}]}"
#define OBJ "{\"b\": 1, \"a\": {\"x\": [1.5, \"\\u00e9\"]}}"
#define STR "\"{\\\"b\\\": 1, \\\"a\\\": {\\\"x\\\": [1.5, \\\"\\u00e9\\\"]}}\""

TEST(template, tool_arguments_take_the_form_that_the_template_wants) {
    struct qn_template *t = open_named("Qwen-Qwen2.5-7B-Instruct", "", "<|im_end|>"); /* prints them with tojson */
    char *o = render(t, CALL(OBJ), NULL), *s = render(t, CALL(STR), NULL);
    ASSERT(o && s);
    EXPECT_STR(s, o);
    EXPECT(strstr(o, "\"arguments\": {\"b\": 1, \"a\": {\"x\": [1.5, \"\xC3\xA9\"]}}}\n</tool_call>"));
    free(o);
    free(s);
    o = render(t, CALL("\"not json\""), NULL); /* left as it is */
    ASSERT(o);
    EXPECT(strstr(o, "\"arguments\": \"not json\"}"));
    free(o);
    o = render(t, CALL("\"\""), NULL);
    ASSERT(o);
    EXPECT(strstr(o, "\"arguments\": {}}"));
    free(o);
    qn_template_close(t);
    t = open_named("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "<bos>", "<eos>"); /* adds them to a string */
    o = render(t, CALL(OBJ), NULL);
    s = render(t, CALL(STR), NULL);
    ASSERT(o && s);
    EXPECT_STR(s, o);
    EXPECT(strstr(o, "```json\n{\"b\": 1, \"a\": {\"x\": [1.5, \"\xC3\xA9\"]}}\n```"));
    free(o);
    free(s);
    qn_template_close(t);
}

TEST(template, developer_is_system_where_the_template_does_not_know_it) {
    struct qn_template *t = open_named("Qwen-Qwen2.5-7B-Instruct", "", "<|im_end|>");
    const char *in = "{\"messages\": [{\"role\": \"developer\", \"content\": \"D\"}, {\"role\": \"user\", \"content\": \"u\"}], \"add\": true}";
    EXPECT_TEXT(t, in, "<|im_start|>system\nD<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n");
    qn_template_close(t);
    t = open_named("openai-gpt-oss-120b", "<|startoftext|>", "<|return|>");
    char *s = render(t, in, NULL);
    ASSERT(s);
    EXPECT(strstr(s, "<|start|>developer<|message|># Instructions\n\nD"));
    free(s);
    qn_template_close(t);
}

TEST(template, no_content_does_not_print_none) {
    const char *null = "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"c\", \"type\": \"function\", "
                       "\"function\": {\"name\": \"f\", \"arguments\": {}}}]}]}";
    struct qn_template *t = open_text("{% for m in messages %}[{{ m.role }}]{{ m.content|trim }}{% endfor %}"); /* str(None) in Jinja2 */
    EXPECT_TEXT(t, null, "[user]u[assistant]");
    qn_template_close(t);
    t = open_text("{% for m in messages %}[{{ m.role }}]{{ m.content + '' }}{% endfor %}"); /* a type error in Jinja2 */
    EXPECT_TEXT(t, null, "[user]u[assistant]");
    qn_template_close(t);
    t = open_text("{% for m in messages %}[{{ m.role }}]{% if m.content is none %}null{% else %}{{ m.content }}{% endif %}{% endfor %}"); /* it knows */
    EXPECT_TEXT(t, null, "[user]u[assistant]null");
    qn_template_close(t);
}

TEST(template, reasoning_goes_by_all_its_names) {
    struct qn_template *t = open_text("{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{% endfor %}{{ messages[0].content }}");
    EXPECT_TEXT(t, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"c\", \"reasoning\": \"r\"}]}", "r|r|c");
    EXPECT_TEXT(t, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"c\", \"reasoning_content\": \"r\", \"thinking\": \"t\"}]}", "r|t|c");
    EXPECT_TEXT(t, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"c\", \"reasoning\": null}]}", "||c");
    qn_template_close(t);
}

TEST(template, kwargs_reach_the_template_and_nothing_else) {
    struct qn_template *t = open_named("Qwen-Qwen3-0.6B", "", "<|im_end|>");
#define WITH(kw) "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}], \"add\": true, \"kwargs\": " kw "}"
    EXPECT_TEXT(t, WITH("{}"), "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_TEXT(t, WITH("{\"enable_thinking\": false}"), "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    EXPECT_TEXT(t, WITH("null"), "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n");
    static const char *const names[] = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token", "chat_template",
                                        "tokenize", "raise_exception", "strftime_now", "namespace", "range", "dict", "loop", "caller"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char in[256], says[64];
        snprintf(in, sizeof in, WITH("{\"%s\": true}"), names[i]);
        snprintf(says, sizeof says, "chat_template_kwargs.%s", names[i]);
        EXPECT_REFUSED(t, in, QN_E_RANGE, says);
    }
    EXPECT_REFUSED(t, WITH("{\"\": 1}"), QN_E_RANGE, "chat_template_kwargs");
    EXPECT_REFUSED(t, WITH("{\"__class__\": 1}"), QN_E_RANGE, "chat_template_kwargs");
    EXPECT_REFUSED(t, WITH("{\"a-b\": 1}"), QN_E_RANGE, "chat_template_kwargs");
    EXPECT_REFUSED(t, WITH("[1]"), QN_E_RANGE, "must be an object");
    char many[2048] = "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}], \"kwargs\": {\"k0\": 0";
    for (int i = 1; i < 65; i++) snprintf(many + strlen(many), 32, ", \"k%d\": 0", i);
    strcat(many, "}}");
    EXPECT_REFUSED(t, many, QN_E_RANGE, "at most 64");
    EXPECT_EQ(qn_template_mentions(t, "enable_thinking"), 1);
    EXPECT_EQ(qn_template_mentions(t, "reasoning_effort"), 0);
    qn_template_close(t);
}

TEST(template, what_the_template_raises_is_the_requests_fault) {
    struct qn_template *t = open_named("google-gemma-2-2b-it", "<bos>", "<eos>");
    EXPECT_REFUSED(t, "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}]}", QN_E_RAISED, "System role not supported");
    EXPECT_TEXT(t, "{\"messages\": [{\"role\": \"user\", \"content\": \" u \"}], \"add\": true}", "<bos><start_of_turn>user\nu<end_of_turn>\n<start_of_turn>model\n");
    EXPECT_EQ(qn_template_writes_bos(t), 1);
    qn_template_close(t);
    t = open_named("Qwen-Qwen2.5-7B-Instruct", "<|endoftext|>", "<|im_end|>");
    EXPECT_EQ(qn_template_writes_bos(t), 0);
    qn_template_close(t);
}

TEST(template, final_message_is_continued_as_transformers_does) {
#define FINAL(c) "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": " c "}], \"continue\": true}"
#define QWEN "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    struct qn_template *t = open_named("Qwen-Qwen2.5-7B-Instruct", "", "<|im_end|>");
    EXPECT_TEXT(t, FINAL("\"Once upon\""), QWEN "Once upon");
    EXPECT_TEXT(t, FINAL("\"Once upon \\n\""), QWEN "Once upon \n"); /* it keeps blanks */
    EXPECT_TEXT(t, FINAL("\"Once <|im_end|> QNEND\""), QWEN "Once <|im_end|> QNEND");
    EXPECT_TEXT(t, FINAL("[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]"), QWEN "a\nb");
    EXPECT_REFUSED(t, FINAL("5"), QN_E_RANGE, "no text to continue");
    EXPECT_REFUSED(t, "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}], \"continue\": true, \"add\": true}", QN_E_RANGE, "add_generation_prompt");
    char *trusted = NULL, *s = render(t, FINAL("\"x<|im_end|>\""), &trusted);
    ASSERT(s && trusted);
    EXPECT_STR(trusted + strlen(trusted) - 12, "\n...........");
    free(s);
    free(trusted);
    qn_template_close(t);
    t = open_named("meta-llama-Llama-3.1-8B-Instruct", "<|begin_of_text|>", "<|eot_id|>"); /* it trims */
    s = render(t, FINAL("\"Once upon \\n\""), NULL);
    ASSERT(s);
    const char *tail = "<|start_header_id|>assistant<|end_header_id|>\n\nOnce upon";
    EXPECT_STR(s + strlen(s) - strlen(tail), tail);
    free(s);
    qn_template_close(t);
    t = open_text("{% for m in messages %}{{ m.role }}{% endfor %}"); /* it drops the content */
    EXPECT_REFUSED(t, FINAL("\"a\""), QN_E_RANGE, "continue_final_message");
    qn_template_close(t);
    t = open_text("{% for m in messages %}{{ m.content|upper }}{% endfor %}"); /* it changes it */
    EXPECT_REFUSED(t, FINAL("\"a\""), QN_E_RANGE, "continue_final_message");
    qn_template_close(t);
}

static struct qn_template *default_for(const char *model) {
    struct qn_gguf *g = NULL;
    struct qn_tokenizer *tok = NULL;
    struct qn_template *t = NULL;
    struct qn_err err = {0};
    char below[128];
    snprintf(below, sizeof below, "models/%s.gguf", model);
    if (qn_gguf_open(&g, cached(below), &err) < 0 || qn_tokenizer_open(&tok, g, &err) < 0 || qn_template_open(&t, NULL, 0, tok, &err) < 0)
        fprintf(stderr, "%s: %s\n", model, err.text);
    ASSERT(t);
    qn_tokenizer_close(tok); /* read during open only */
    qn_gguf_close(g);
    return t;
}

TEST(template, a_model_without_a_template_gets_what_its_vocabulary_suggests) {
    const char *in = "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": null}, "
                     "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"v\"}]}], \"add\": true}";
    struct qn_template *t = default_for("smollm2-135m-instruct-q4_1");
    EXPECT_TEXT(t, in, "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\nv<|im_end|>\n<|im_start|>assistant\n");
    qn_template_close(t);
    t = default_for("gemma-3-270m-q4_k_m");
    EXPECT_TEXT(t, in, "<bos><start_of_turn>user\ns\n\nu<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\n<start_of_turn>user\nv<end_of_turn>\n<start_of_turn>model\n");
    EXPECT_EQ(qn_template_writes_bos(t), 1);
    char *trusted = NULL, *s = render(t, "{\"messages\": [{\"role\": \"user\", \"content\": \"<end_of_turn>\"}]}", &trusted);
    ASSERT(s && trusted);
    EXPECT_STR(trusted, "<bos><start_of_turn>user\n.............<end_of_turn>\n");
    free(s);
    free(trusted);
    qn_template_close(t);
    t = open_text(NULL);
    EXPECT_TEXT(t, in, "<s>system: s\nuser: u\nassistant: \nuser: v\nassistant:");
    EXPECT(strstr(qn_template_text(t), "assistant:"));
    qn_template_close(t);
}

TEST(template, a_malformed_template_says_where) {
    struct qn_template *t = NULL;
    struct qn_err err = {0};
    const char *text = "a\n{% for %}";
    EXPECT_EQ(qn_template_open_plain(&t, text, strlen(text), NULL, NULL, &err), QN_E_DATA);
    EXPECT(t == NULL && strstr(err.text, "line 2"));
    err = (struct qn_err){0};
    EXPECT_EQ(qn_template_open_plain(&t, "{% include 'x' %}", 17, NULL, NULL, &err), QN_E_UNSUPPORTED);
}

static void *renders(void *arg) {
    const struct qn_template *t = arg;
    json_t *m = json_pack("[{ssss}{sssns[{s{ssss}}]}{ssss}]", "role", "developer", "content", "d", "role", "assistant", "content", "tool_calls", "function",
                          "name", "f", "arguments", "{\"a\": [1, \"<|im_end|>\"]}", "role", "user", "content", "u");
    struct qn_template_input in = {.messages = m, .add_generation_prompt = 1};
    size_t total = 0;
    for (int i = 0; i < 100; i++) {
        struct qn_rendered r = {0};
        struct qn_err err = {0};
        if (qn_template_render(t, &in, &r, &err) < 0) break;
        total += r.text.n;
        qn_rendered_done(&r);
    }
    json_decref(m);
    return (void *)total;
}

TEST(template, one_template_renders_in_many_threads) {
    struct qn_template *t = open_named("Qwen-Qwen3-0.6B", "", "<|im_end|>");
    pthread_t th[4];
    size_t got[4] = {0};
    for (int i = 0; i < 4; i++) ASSERT_EQ(pthread_create(&th[i], NULL, renders, t), 0);
    for (int i = 0; i < 4; i++) {
        void *r = NULL;
        pthread_join(th[i], &r);
        got[i] = (size_t)r;
    }
    EXPECT(got[0] > 100 * 50);
    for (int i = 1; i < 4; i++) EXPECT_EQ(got[i], got[0]);
    qn_template_close(t);
}
