/* Requests as data: tests/golden/<case>.req.json holds a path, a body and what the scripted engine says; <case>.want.json or
 * .want.sse beside it is the reply, byte for byte. Clock, ids and seeds are fixed. QN_GOLDEN_WRITE=1 rewrites the wants (make
 * golden); the diff is then to be read. tests/golden/test_shapes.py holds the same files against OpenAI's own types. */
#include <dirent.h>

#include "tests/lib/api_kit.h"
#include "tests/run.h"

#define DIR_NAME "tests/golden"

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *p = calloc(1, 1 << 20);
    *n = fread(p, 1, (1 << 20) - 1, f);
    fclose(f);
    return p;
}

static void render(struct qn_buf *out, const struct got *g) {
    if (g->streamed) {
        qn_buf_put(out, g->body.p, g->body.n);
        return;
    }
    json_t *body = json_loadb(g->body.p, g->body.n, JSON_ALLOW_NUL, NULL), *headers = json_object();
    char all[2048], *save;
    snprintf(all, sizeof all, "%s", g->headers);
    for (char *h = strtok_r(all, "\n", &save); h; h = strtok_r(NULL, "\n", &save)) {
        char *colon = strstr(h, ": ");
        *colon = 0;
        json_object_set_new(headers, h, json_string(colon + 2));
    }
    ASSERT(body);
    json_t *reply = json_pack("{s:i,s:o,s:o}", "status", g->status, "headers", headers, "body", body);
    char *text = json_dumps(reply, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    qn_buf_puts(out, text);
    qn_buf_putc(out, '\n');
    free(text);
    json_decref(reply);
}

static void set_script(const json_t *req) {
    static size_t cuts[256];
    const json_t *s = json_object_get(req, "script");
    const char *text = json_string_value(json_object_get(s, "text"));
    script_say(text ? text : "");
    script.held = (size_t)json_integer_value(json_object_get(s, "held"));
    script.n_cached = (int)json_integer_value(json_object_get(s, "cached"));
    script.per_poll = (int)json_integer_value(json_object_get(s, "per_poll"));
    script.fail_at = (int)json_integer_value(json_object_get(s, "fail_at"));
    script.fail_code = (int)json_integer_value(json_object_get(s, "fail_code"));
    const char *reason = json_string_value(json_object_get(s, "reason"));
    if (reason && !strcmp(reason, "length")) script.reason = QN_FINISH_LENGTH;
    if (reason && !strcmp(reason, "stop_string")) script.reason = QN_FINISH_STOP_STRING, script.stop_index = 0;
    const json_t *c = json_object_get(s, "cuts");
    for (size_t i = 0; i < json_array_size(c) && i < 256; i++) cuts[i] = (size_t)json_integer_value(json_array_get(c, i));
    if (json_array_size(c)) script.cuts = cuts, script.n_cuts = (int)json_array_size(c);
}

static void run_case(struct qn_api *a, const char *name) {
    char path[512], want_path[512];
    size_t n = 0, n_want = 0;
    snprintf(path, sizeof path, DIR_NAME "/%s.req.json", name);
    char *text = slurp(path, &n);
    json_t *req = text ? json_loadb(text, n, 0, NULL) : NULL;
    ASSERT(req);
    json_t *body = json_object_get(req, "body");
    char *sent = body ? json_dumps(body, JSON_COMPACT) : strdup("");
    struct ask q = {.method = json_string_value(json_object_get(req, "method")),
                    .path = json_string_value(json_object_get(req, "path")),
                    .body = sent};
    struct got g;
    struct qn_buf out;
    qn_buf_init(&out, 1 << 20);
    set_script(req);
    a->n_ids = 0;
    kit_run(&g, a, &q);
    EXPECT_EQ(g.replies, 1);
    render(&out, &g);
    snprintf(want_path, sizeof want_path, DIR_NAME "/%s.want.%s", name, g.streamed ? "sse" : "json");
    if (getenv("QN_GOLDEN_WRITE")) {
        FILE *f = fopen(want_path, "wb");
        ASSERT(f);
        fwrite(out.p, 1, out.n, f);
        fclose(f);
    }
    char *want = slurp(want_path, &n_want);
    if (!want || n_want != out.n || memcmp(want, out.p, out.n)) qn_test_fail(want_path, 0, "differs; got:\n%s", out.p);
    free(want);
    free(sent);
    free(text);
    json_decref(req);
    kit_done_with(&g);
    qn_buf_done(&out);
}

TEST(golden, requests_get_their_wanted_replies) {
    int cases = 0;
    qn_clock_fake(1700000000 * QN_S);
    struct qn_api *a = kit_open((struct qn_api_opts){.model_name = "quern-test", .version = "0.0.0"});
    DIR *d = opendir(DIR_NAME);
    ASSERT(d); /* run from the top of the tree */
    for (struct dirent *e; (e = readdir(d));) {
        char name[256];
        char *end;
        snprintf(name, sizeof name, "%s", e->d_name);
        if (!(end = strstr(name, ".req.json"))) continue;
        *end = 0;
        run_case(a, name);
        cases++;
    }
    closedir(d);
    EXPECT(cases >= 12);
    qn_api_close(a);
}
