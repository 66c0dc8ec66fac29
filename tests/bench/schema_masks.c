/* Compile and mask times of JSON Schemas for scripts/bench/masks.py, which runs another program over the same ids beside it.
 *
 *   bench/schema_masks MODEL.gguf
 *   {"schema": any, "texts": [text, …]} a line on stdin -> {"error": message, "compile_ns": n}  or
 *   {"compile_ns", "wall_ns": the same by the wall clock, "texts": [{"ids", "first_ns": [of each mask], "again_ns": [with what the first pass left
 *    behind], "lost": index of an id that its mask did not hold, or -1, "bytes", "states", "failed"}]}
 *
 * The times are processor time of the thread, so that a busy machine does not count; a mask's is that of asking, whether it was made
 * or found. Every text has a constraint of its own, then goes through it once more: as the second request with that schema would. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/schema.h"
#include "engine/base/clock.h"
#include "engine/grammar/constraint.h"

enum { WHY = 1536 };

struct bench {
    struct qn_tokenizer *tok;
    struct qn_token_trie *trie;
    uint32_t *mask, n_vocab;
};

static int64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * QN_S + t.tv_nsec;
}

static int compile(const struct bench *b, const json_t *schema, struct qn_constraint **c, char *why, size_t n) {
    struct qn_schema_opts o = {0};
    struct qn_refusal r = {0};
    struct qn_err err = {0};
    struct qn_grammar *g;
    qn_gnode root;
    if (qn_grammar_new(&g, NULL) < 0) abort();
    if (qn_schema_node(g, schema, &o, "schema", &root, &r) < 0) {
        qn_grammar_free(g);
        snprintf(why, n, "%s: %s", r.param, r.message);
        return -1;
    }
    if (qn_constraint_new(c, g, root, b->trie, &err) == 0) return 0;
    snprintf(why, n, "%s", err.text);
    return -1;
}

/* The masks of one text, in order; the index of the first id that is not in its mask, or -1. */
static json_int_t follow(const struct bench *b, struct qn_constraint *c, const struct qn_ids *ids, json_t *ns) {
    qn_cstate s = qn_constraint_start(c);
    for (size_t i = 0; i < ids->n; i++) {
        int64_t from = cpu_ns();
        qn_constraint_mask(c, s, b->mask);
        json_array_append_new(ns, json_integer(cpu_ns() - from));
        if (!(b->mask[ids->v[i] / 32] >> (ids->v[i] % 32) & 1)) return (json_int_t)i;
        s = qn_constraint_token(c, s, ids->v[i]);
    }
    return -1;
}

static json_t *one_text(const struct bench *b, const json_t *schema, const json_t *text) {
    struct qn_constraint *c;
    struct qn_ids ids = {0};
    char why[WHY];
    struct qn_text in = {.p = json_string_value(text), .n = json_string_length(text)};
    if (qn_tokenizer_encode(b->tok, &in, 0, 0, &ids, NULL) < 0 || compile(b, schema, &c, why, sizeof why) < 0) abort();
    json_t *v = json_array(), *first = json_array(), *again = json_array();
    for (size_t i = 0; i < ids.n; i++) json_array_append_new(v, json_integer(ids.v[i]));
    json_int_t lost = follow(b, c, &ids, first);
    follow(b, c, &ids, again);
    struct qn_constraint_counts n;
    qn_constraint_counts(c, &n);
    int failed = qn_constraint_failed(c);
    qn_constraint_unref(c);
    free(ids.v);
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:b}", "ids", v, "first_ns", first, "again_ns", again, "lost", lost, "bytes", (json_int_t)n.bytes,
                     "states", (json_int_t)n.states, "failed", failed);
}

static json_t *answer(const struct bench *b, const json_t *in) {
    struct qn_constraint *c;
    char why[WHY];
    const json_t *schema = json_object_get(in, "schema"), *texts = json_object_get(in, "texts");
    int64_t wall = qn_clock_ns(), cpu = cpu_ns();
    int rc = compile(b, schema, &c, why, sizeof why);
    cpu = cpu_ns() - cpu;
    wall = qn_clock_ns() - wall;
    if (rc < 0) return json_pack("{s:s, s:I, s:I}", "error", why, "compile_ns", (json_int_t)cpu, "wall_ns", (json_int_t)wall);
    qn_constraint_unref(c);
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(texts); i++) json_array_append_new(out, one_text(b, schema, json_array_get(texts, i)));
    return json_pack("{s:I, s:I, s:o}", "compile_ns", (json_int_t)cpu, "wall_ns", (json_int_t)wall, "texts", out);
}

static void say(json_t *v) {
    json_dumpf(v, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(v);
}

int main(int argc, char **argv) {
    struct qn_gguf *gguf = NULL;
    struct bench b = {0};
    struct qn_err err = {0};
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (argc < 2) return fprintf(stderr, "usage: schema_masks MODEL.gguf\n"), 64;
    if (qn_gguf_open(&gguf, argv[1], &err) < 0 || qn_tokenizer_open(&b.tok, gguf, &err) < 0 || qn_token_trie_open(&b.trie, b.tok, &err) < 0)
        return fprintf(stderr, "%s\n", err.text), 66;
    b.n_vocab = qn_tokenizer_n_vocab(b.tok);
    b.mask = calloc((b.n_vocab + 31) / 32, sizeof *b.mask);
    if (!b.mask) return 71;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json_t *in = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
        say(in ? answer(&b, in) : json_pack("{s:s, s:i, s:i}", "error", "not JSON, or numbers too large for us", "compile_ns", 0, "wall_ns", 0));
        json_decref(in);
    }
    free(line);
    free(b.mask);
    qn_token_trie_close(b.trie);
    qn_tokenizer_close(b.tok);
    qn_gguf_close(gguf);
    return 0;
}
