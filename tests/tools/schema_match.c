/* Compiles JSON Schemas for the Python tests: a JSON object per line on stdin, one per line on stdout.
 *
 *   {"schema": any, "strict": bool, "no_whitespace": bool, "whitespace": text, "object": bool (json_object mode instead of a schema),
 *    "texts": [text, …], "walks": n, "seed": n, "length": bytes after which a walk hurries to its end}
 *   -> {"accepts": [bool | null, …], "walks": [text | null, …], "ms": to compile, "bytes": memory held after that}
 *   or {"param": path, "message": …, "code": …, "ms": …}
 * A walk chooses each byte among those that lead somewhere, so what it writes is a random member of the grammar; null: it did not end. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/schema.h"
#include "engine/base/buf.h"
#include "engine/base/clock.h"
#include "engine/base/rng.h"
#include "engine/grammar/constraint.h"

enum { LONGEST = 65536 };

struct walk {
    struct qn_constraint *c;
    uint64_t seed;
    uint32_t n, at;
    size_t hurry;
    int in_string, escaped;
};

static uint32_t draw(struct walk *w, uint32_t below) { return (uint32_t)(qn_rng_uniform(w->seed, w->n, w->at++, 0) * (float)below); }

static int may(struct walk *w, qn_cstate s, int b) {
    char ch = (char)b;
    return qn_constraint_text(w->c, s, &ch, 1) != QN_C_DEAD;
}

/* A byte that may come; whatever closes something is likelier, and sure once the walk hurries. -1: none. */
static int next_byte(struct walk *w, qn_cstate s, size_t n) {
    const char *closing = w->in_string ? "\"" : "}]";
    char forced;
    if (qn_constraint_forced(w->c, s, &forced, 1)) return (unsigned char)forced;
    if (n > w->hurry || draw(w, 8) == 0)
        for (const char *p = closing; *p; p++)
            if (may(w, s, *p)) return *p;
    for (int tries = 0; tries < 40; tries++) { /* mostly ASCII without blanks: most places take it */
        int b = tries % 8 == 7 ? (int)draw(w, 256) : 0x21 + (int)draw(w, 0x5E);
        if (may(w, s, b)) return b;
    }
    int from = (int)draw(w, 256);
    for (int b = 0; b < 256; b++)
        if (may(w, s, (from + b) & 255)) return (from + b) & 255;
    return -1;
}

static void note(struct walk *w, char ch) {
    if (w->escaped) w->escaped = 0;
    else if (ch == '\\') w->escaped = w->in_string;
    else if (ch == '"') w->in_string = !w->in_string;
}

static json_t *walk(struct walk *w) {
    struct qn_buf b;
    qn_cstate s = qn_constraint_start(w->c);
    json_t *out = NULL;
    qn_buf_init(&b, LONGEST);
    while (!b.failed) {
        int ends = qn_constraint_accepts(w->c, s);
        if (ends && (b.n > w->hurry || draw(w, 4) == 0)) break;
        int byte = next_byte(w, s, b.n);
        char ch = (char)byte;
        if (byte < 0 && !ends) b.failed = 1;
        if (byte < 0) break;
        qn_buf_putc(&b, ch);
        note(w, ch);
        s = qn_constraint_text(w->c, s, &ch, 1);
    }
    if (!b.failed) out = json_stringn(b.p, b.n);
    qn_buf_done(&b);
    return out ? out : json_null();
}

static json_t *accepts(struct qn_constraint *c, const json_t *texts) {
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *t = json_array_get(texts, i);
        qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), json_string_value(t), json_string_length(t));
        json_array_append_new(out, qn_constraint_failed(c) ? json_null() : json_boolean(s != QN_C_DEAD && qn_constraint_accepts(c, s)));
    }
    return out;
}

static json_t *walks(struct qn_constraint *c, const json_t *in) {
    json_t *out = json_array();
    struct walk w = {.c = c, .seed = (uint64_t)json_integer_value(json_object_get(in, "seed")), .hurry = (size_t)json_integer_value(json_object_get(in, "length"))};
    for (; w.n < (uint32_t)json_integer_value(json_object_get(in, "walks")); w.n++, w.at = 0, w.in_string = w.escaped = 0) json_array_append_new(out, walk(&w));
    return out;
}

static int compile(const json_t *in, struct qn_constraint **c, struct qn_refusal *r) {
    struct qn_grammar *g;
    struct qn_err err = {0};
    const json_t *ws = json_object_get(in, "whitespace");
    struct qn_schema_opts o = {.no_whitespace = json_is_true(json_object_get(in, "no_whitespace")), .whitespace = json_string_value(ws),
                               .n_whitespace = json_string_length(ws), .whitespace_path = "whitespace", .strict = json_is_true(json_object_get(in, "strict"))};
    qn_gnode root = QN_G_NONE;
    if (qn_grammar_new(&g, NULL) < 0) exit(1);
    if (json_is_true(json_object_get(in, "object"))) root = qn_schema_object(g, &o);
    else if (qn_schema_node(g, json_object_get(in, "schema"), &o, "schema", &root, r) < 0) {
        qn_grammar_free(g);
        return QN_E_RANGE;
    }
    if (qn_constraint_new(c, g, root, NULL, &err) == 0) return 0;
    return qn_refuse(r, 400, "invalid_value", "schema", "%s", err.text);
}

static json_t *answer(const json_t *in) {
    struct qn_constraint *c = NULL;
    struct qn_refusal r = {0};
    struct qn_constraint_counts counts;
    int64_t start = qn_clock_ns();
    int rc = compile(in, &c, &r);
    double ms = (double)(qn_clock_ns() - start) / 1e6;
    if (rc < 0) return json_pack("{s:s, s:s, s:s, s:f}", "param", r.param, "message", r.message, "code", r.code, "ms", ms);
    qn_constraint_counts(c, &counts);
    json_t *texts = accepts(c, json_object_get(in, "texts")), *written = walks(c, in);
    int failed = qn_constraint_failed(c);
    qn_constraint_unref(c);
    return json_pack("{s:o, s:o, s:f, s:I, s:b}", "accepts", texts, "walks", written, "ms", ms, "bytes", (json_int_t)counts.bytes, "failed", failed);
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json_t *in = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL), *out = in ? answer(in) : json_pack("{s:s}", "unreadable", line);
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(in);
        json_decref(out);
    }
    free(line);
    return 0;
}
