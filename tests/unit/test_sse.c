/* Streams of events: whatever the pieces and whatever the reader's buffer, the deltas are the answer. */
#include "engine/base/utf8.h"
#include "tests/lib/api_kit.h"
#include "tests/run.h"

#define CHAT  "/v1/chat/completions"
#define PLAIN "/v1/completions"

struct sum { /* what a stream said, by choice */
    struct qn_buf text[8];
    char finish[8][24];
    int roles[8], n_finish, n_usage, n_events, done, errors, chunks_after_finish;
    long prompt_tokens, completion_tokens, cached_tokens;
    char code[64];
};

static void add_chunk(struct sum *s, const json_t *chunk, int chat, int want_usage) {
    const json_t *choices = json_object_get(chunk, "choices"), *usage = json_object_get(chunk, "usage"), *c;
    size_t k;
    if (want_usage && json_array_size(choices)) EXPECT(usage && json_is_null(usage));
    if (json_is_object(usage)) {
        s->n_usage++;
        EXPECT_EQ(json_array_size(choices), 0);
        s->prompt_tokens = (long)json_integer_value(json_object_get(usage, "prompt_tokens"));
        s->completion_tokens = (long)json_integer_value(json_object_get(usage, "completion_tokens"));
        s->cached_tokens =
            (long)json_integer_value(json_object_get(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"));
    }
    json_array_foreach(choices, k, c) {
        int i = (int)json_integer_value(json_object_get(c, "index"));
        ASSERT(i >= 0 && i < 8);
        const json_t *delta = json_object_get(c, "delta"),
                     *t = chat ? json_object_get(delta, "content") : json_object_get(c, "text");
        if (s->finish[i][0]) s->chunks_after_finish++;
        if (t) {
            EXPECT(qn_utf8_valid(json_string_value(t), json_string_length(t)));
            qn_buf_put(&s->text[i], json_string_value(t), json_string_length(t));
        }
        if (chat && json_object_get(delta, "role")) {
            s->roles[i]++;
            EXPECT_EQ(s->text[i].n, 0); /* the role comes first */
        }
        const json_t *f = json_object_get(c, "finish_reason");
        ASSERT(f);
        if (json_is_null(f)) continue;
        s->n_finish++;
        snprintf(s->finish[i], sizeof s->finish[i], "%s", json_string_value(f));
    }
}

static void sum_up(struct sum *s, const struct got *g, int chat, int want_usage) {
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 8; i++) qn_buf_init(&s->text[i], 1 << 24);
    const char *at = g->body.p ? g->body.p : "", *line;
    while ((line = kit_event(&at))) {
        s->n_events++;
        EXPECT(!s->done);
        if (!strcmp(line, "[DONE]")) {
            s->done = 1;
            continue;
        }
        json_t *v = json_loads(line, JSON_ALLOW_NUL, NULL);
        ASSERT(v);
        const json_t *e = json_object_get(v, "error");
        if (e) {
            s->errors++;
            snprintf(s->code, sizeof s->code, "%s", json_string_value(json_object_get(e, "code")));
        } else {
            add_chunk(s, v, chat, want_usage);
        }
        json_decref(v);
    }
    EXPECT_EQ(*at, 0); /* nothing but events */
}

static void sum_done(struct sum *s) {
    for (int i = 0; i < 8; i++) qn_buf_done(&s->text[i]);
}

static void run_stream(struct got *g, struct sum *s, struct qn_api *a, const char *path, const char *body, size_t read_max,
                       int want_usage) {
    struct ask q = {.path = path, .body = body, .read_max = read_max};
    kit_run(g, a, &q);
    ASSERT_EQ(g->replies, 1);
    ASSERT_EQ(g->status, 200);
    EXPECT(g->streamed);
    sum_up(s, g, !strcmp(path, CHAT), want_usage);
}

static const char story[] = "Hé \"llo\"\n\t\\ \x01 日本 \xF0\x9F\x98\x80!";

/* Every set of borders between characters of a short text, times branches, poll sizes and reader sizes. */
TEST_SLOW(sse, every_split_adds_up_to_the_whole, 60) {
    static const char *const texts[] = {"ab\"", "Hé\n日x", "\xF0\x9F\x98\x80\\a\x01"};
    static const size_t reads[] = {512, 700, 65536};
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        size_t ends[16], n = strlen(texts[t]);
        int n_ends = 0;
        for (size_t i = 1; i <= n; i++)
            if (i == n || ((unsigned char)texts[t][i] & 0xC0) != 0x80) ends[n_ends++] = i;
        for (unsigned set = 0; set < 1u << (n_ends - 1); set++)
            for (int held = 0; held < 2; held++)
                for (int k = 0; k < 3; k++) {
                    size_t cuts[16];
                    int n_cuts = 0;
                    for (int e = 0; e < n_ends; e++)
                        if (e == n_ends - 1 || (set >> e & 1)) cuts[n_cuts++] = ends[e];
                    script_say(texts[t]);
                    script.cuts = cuts;
                    script.n_cuts = n_cuts;
                    script.held = held ? n - (n_ends > 1 ? ends[n_ends - 2] : 0) : 0;
                    script.per_poll = k == 0 ? 0 : k;
                    script.n_cached = 5;
                    struct got g;
                    struct sum s;
                    run_stream(&g, &s, a, CHAT,
                               "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"n\":2,\"stream_"
                               "options\":{\"include_usage\":true}}",
                               reads[k], 1);
                    for (int i = 0; i < 2; i++) {
                        EXPECT_MEM(s.text[i].p, s.text[i].n, texts[t], n);
                        EXPECT_STR(s.finish[i], "stop");
                        EXPECT_EQ(s.roles[i], 1);
                    }
                    EXPECT_EQ(s.n_finish, 2);
                    EXPECT_EQ(s.chunks_after_finish, 0);
                    EXPECT_EQ(s.n_usage, 1);
                    EXPECT_EQ(s.cached_tokens, 5);
                    EXPECT_EQ(s.prompt_tokens, (long)script.n_prompt);
                    EXPECT(s.done && g.end == QN_READ_END);
                    EXPECT_EQ(script.open, 0);
                    sum_done(&s);
                    kit_done_with(&g);
                }
    }
    qn_api_close(a);
}

/* Whole and streamed are the same answer, for chat and completions, with log-probabilities or not, in any buffer. */
TEST(sse, streamed_is_what_whole_says) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (size_t max = 512; max < 1400; max += 37)
        for (int kind = 0; kind < 4; kind++) {
            char body[512];
            const char *path = kind & 1 ? PLAIN : CHAT;
            const char *what = kind & 1 ? "\"prompt\":\"p\"" : "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]";
            const char *lp = !(kind & 2) ? "" : kind & 1 ? ",\"logprobs\":2" : ",\"logprobs\":true,\"top_logprobs\":2";
            struct got w, g;
            struct sum s;
            script_say(story);
            snprintf(body, sizeof body, "{%s%s,\"max_tokens\":50}", what, lp);
            kit_post(&w, a, path, body);
            ASSERT_EQ(w.status, 200);
            json_t *v = json_loadb(w.body.p, w.body.n, 0, NULL);
            ASSERT(v);
            const json_t *c = json_array_get(json_object_get(v, "choices"), 0);
            const json_t *text =
                kind & 1 ? json_object_get(c, "text") : json_object_get(json_object_get(c, "message"), "content");
            EXPECT_MEM(json_string_value(text), json_string_length(text), story, sizeof story - 1);
            snprintf(body, sizeof body, "{%s%s,\"max_tokens\":50,\"stream\":true}", what, lp);
            run_stream(&g, &s, a, path, body, max, 0);
            EXPECT_MEM(s.text[0].p, s.text[0].n, json_string_value(text), json_string_length(text));
            EXPECT_STR(s.finish[0], json_string_value(json_object_get(c, "finish_reason")));
            json_decref(v);
            sum_done(&s);
            kit_done_with(&w);
            kit_done_with(&g);
        }
    qn_api_close(a);
}

/* The log-probabilities of the chunks are those of the whole answer, in order. */
TEST(sse, logprobs_of_the_chunks_join_to_those_of_the_whole) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (int chat = 0; chat < 2; chat++) {
        struct got w, g;
        char body[256];
        const char *what = chat ? "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"logprobs\":true,\"top_logprobs\":3"
                                : "\"prompt\":\"pq\",\"echo\":true,\"logprobs\":3";
        const char *list = chat ? "content" : "tokens";
        script_say(story);
        snprintf(body, sizeof body, "{%s,\"max_tokens\":50}", what);
        kit_post(&w, a, chat ? CHAT : PLAIN, body);
        snprintf(body, sizeof body, "{%s,\"max_tokens\":50,\"stream\":true}", what);
        kit_post(&g, a, chat ? CHAT : PLAIN, body);
        json_t *v = json_loadb(w.body.p, w.body.n, 0, NULL), *joined = json_array(), *offsets = json_array();
        ASSERT(v);
        const json_t *whole = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "logprobs");
        const char *at = g.body.p, *line;
        while ((line = kit_event(&at)) && strcmp(line, "[DONE]")) {
            json_t *chunk = json_loads(line, 0, NULL);
            ASSERT(chunk);
            const json_t *lp = json_object_get(json_array_get(json_object_get(chunk, "choices"), 0), "logprobs");
            json_array_extend(joined, json_object_get(lp, list));
            if (!chat) json_array_extend(offsets, json_object_get(lp, "text_offset"));
            json_decref(chunk);
        }
        EXPECT(json_array_size(joined) > 5);
        EXPECT(json_equal(joined, json_object_get(whole, list)));
        if (!chat) EXPECT(json_equal(offsets, json_object_get(whole, "text_offset")));
        json_decref(joined);
        json_decref(offsets);
        json_decref(v);
        kit_done_with(&w);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

TEST(sse, a_record_larger_than_the_readers_buffer_arrives_in_parts) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    size_t n = 20000, cut = 20000;
    char *text = malloc(n + 1);
    for (size_t i = 0; i < n; i++) text[i] = "a\"\n\x02"[i % 4];
    text[n] = 0;
    script_say(text);
    script.cuts = &cut;
    script.n_cuts = 1;
    struct got g;
    struct sum s;
    run_stream(&g, &s, a, PLAIN, "{\"prompt\":\"p\",\"stream\":true,\"max_tokens\":9}", 512, 0);
    EXPECT_MEM(s.text[0].p, s.text[0].n, text, n);
    EXPECT(s.done);
    sum_done(&s);
    kit_done_with(&g);
    free(text);
    qn_api_close(a);
}

/* A backlog far larger than the reader's buffer, in small records that each grow by escaping. */
TEST(sse, a_backlog_fills_every_buffer_and_no_more) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    char *text = malloc(2001);
    for (int i = 0; i < 2000; i++) text[i] = "ab\x01\"c\n"[i * 7 % 6];
    text[2000] = 0;
    for (size_t max = 512; max < 900; max += 29)
        for (int usage = 0; usage < 3; usage++) {
            static const char *const opts[] = {"", ",\"stream_options\":{\"include_usage\":true}",
                                               ",\"stream_options\":{\"continuous_usage_stats\":true}"};
            char body[256];
            struct got g;
            script_say(text);
            snprintf(body, sizeof body, "{\"prompt\":\"p\",\"stream\":true,\"max_tokens\":9%s}", opts[usage]);
            struct ask q = {.path = PLAIN, .body = body, .read_max = max};
            kit_run(&g, a, &q);
            struct qn_buf all;
            const char *at = g.body.p, *line;
            qn_buf_init(&all, 1 << 20);
            while ((line = kit_event(&at)) && strcmp(line, "[DONE]")) {
                json_t *v = json_loads(line, 0, NULL);
                ASSERT(v);
                const json_t *t = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "text");
                qn_buf_put(&all, json_string_value(t), json_string_length(t));
                json_decref(v);
            }
            EXPECT_MEM(all.p, all.n, text, 2000);
            qn_buf_done(&all);
            kit_done_with(&g);
        }
    free(text);
    qn_api_close(a);
}

TEST(sse, waiting_records_merge_into_one_chunk) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    script_say("one two three four five");
    struct got g;
    struct sum s;
    run_stream(&g, &s, a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}", 65536, 0);
    EXPECT_EQ(s.n_events, 4); /* role, text, finish, [DONE] */
    sum_done(&s);
    kit_done_with(&g);
    qn_api_close(a);
}

TEST(sse, prompts_times_n_are_the_choices) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (int per = 0; per < 4; per++) {
        script_say("xyz");
        script.per_poll = per;
        script.reason = QN_FINISH_LENGTH;
        struct got g;
        struct sum s;
        run_stream(&g, &s, a, PLAIN,
                   "{\"prompt\":[\"ab\",\"cde\",\"f\"],\"n\":2,\"echo\":true,\"stream\":true,\"stream_options\":{\"include_"
                   "usage\":true}}",
                   600, 1);
        static const char *const want[] = {"abxyz", "abxyz", "cdexyz", "cdexyz", "fxyz", "fxyz"};
        for (int i = 0; i < 6; i++) {
            EXPECT_MEM(s.text[i].p, s.text[i].n, want[i], strlen(want[i]));
            EXPECT_STR(s.finish[i], "length");
        }
        EXPECT_EQ(s.prompt_tokens, 6); /* each prompt once, not n times */
        EXPECT_EQ(s.completion_tokens, 18);
        EXPECT_EQ(s.n_finish, 6);
        EXPECT(s.done);
        EXPECT_EQ(script.open, 0);
        sum_done(&s);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

TEST(sse, usage_on_every_chunk_when_asked) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    for (size_t max = 512; max <= 4096; max *= 2) {
        script_say("abcdef");
        script.per_poll = 1;
        struct ask q = {.path = CHAT,
                        .read_max = max,
                        .body = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"stream_options\":{"
                                "\"include_usage\":true,\"continuous_usage_stats\":true}}"};
        struct got g;
        kit_run(&g, a, &q);
        const char *at = g.body.p, *line;
        long last = 0;
        int n = 0;
        while ((line = kit_event(&at)) && strcmp(line, "[DONE]")) {
            json_t *v = json_loads(line, 0, NULL);
            ASSERT(v);
            const json_t *made = json_object_get(json_object_get(v, "usage"), "completion_tokens");
            ASSERT(json_is_integer(made));
            EXPECT(json_integer_value(made) >= last);
            last = (long)json_integer_value(made);
            n++;
            json_decref(v);
        }
        EXPECT_EQ(last, 6);
        EXPECT(n >= 9);
        kit_done_with(&g);
    }
    qn_api_close(a);
}

/* An error after the 200 is one event; no [DONE] follows, and the connection is cut. */
TEST(sse, an_error_inside_a_stream_is_one_event_then_the_end) {
    struct qn_api *a = kit_open((struct qn_api_opts){0});
    static const struct {
        int code;
        const char *string;
    } codes[] = {{QN_E_DEADLINE, "deadline_exceeded"}, {QN_E_INTERNAL, "server_error"}, {QN_E_CLOSED, "draining"}};
    for (size_t k = 0; k < sizeof codes / sizeof *codes; k++)
        for (int at = 1; at < 4; at++) {
            script_say("abcdef");
            script.fail_at = at;
            script.fail_code = codes[k].code;
            struct got g;
            struct sum s;
            run_stream(&g, &s, a, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}", 600, 0);
            EXPECT_EQ(s.errors, 1);
            EXPECT_STR(s.code, codes[k].string);
            EXPECT(!s.done && s.n_finish == 0);
            EXPECT_EQ(g.end, QN_READ_ABORT);
            EXPECT_EQ((long)s.text[0].n, at - 1);
            EXPECT_EQ(script.open, 0);
            sum_done(&s);
            kit_done_with(&g);
        }
    qn_api_close(a);
}

TEST(sse, a_silent_stream_pings) {
    qn_clock_fake(1000 * QN_S);
    struct qn_api *a = kit_open((struct qn_api_opts){.ping_ms = 5000});
    struct got g;
    struct ask q = {.path = CHAT,
                    .body = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}",
                    .type = "application/json"};
    q.n_body = strlen(q.body);
    script_say("ab");
    script.per_poll = 1;
    kit_begin(&g, a, &q);
    kit_feed(&g, &q);
    char to[512];
    qn_exchange_tick(g.x, qn_clock_ns() + 60 * QN_S); /* before the status nothing may be sent */
    EXPECT_EQ(g.readies, 0);
    qn_engine_poll(&script_engine);
    EXPECT_EQ(g.status, 200);
    EXPECT_EQ(qn_exchange_read(g.x, to, sizeof to), QN_READ_WAIT);
    qn_exchange_tick(g.x, 1004 * QN_S);
    EXPECT_EQ(g.readies, 0);
    qn_clock_fake(1005 * QN_S);
    qn_exchange_tick(g.x, 1005 * QN_S);
    EXPECT_EQ(g.readies, 1);
    long n = qn_exchange_read(g.x, to, sizeof to);
    EXPECT_MEM(to, n, ": ping\n\n", 8);
    EXPECT_EQ(qn_exchange_read(g.x, to, sizeof to), QN_READ_WAIT);
    qn_exchange_tick(g.x, 1006 * QN_S);
    EXPECT_EQ(g.readies, 1);
    qn_exchange_cancel(g.x);
    EXPECT_EQ(script.open, 0);
    EXPECT_EQ(qn_exchange_read(g.x, to, sizeof to), QN_READ_ABORT);
    qn_exchange_close(g.x);
    kit_done_with(&g);
    qn_api_close(a);
}
