/* Matches texts by grammars for the Python tests: a JSON object per line on stdin, one per line on stdout.
 *
 *   {"kind": "regex" | "gbnf" | "lark", "text": grammar, "search": bool, "ignore_case": bool, "texts": [text, …]}
 *   -> {"accepts": [bool, …], "ms": to compile}  or  {"error": code name, "message": …, "ms": …}; accepts: null where memory ran out
 *
 * Started with a model (GGUF), also {"kind": also "schema", whose "text" is the schema itself, "walk": text}: the text's tokens one by one
 *   -> {"ids": [id, …], "allowed": [how many might come before each, …], "us": [mask and step, …], "followed": bool, "ms": …} */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/schema.h"
#include "engine/base/clock.h"
#include "engine/grammar/constraint.h"

static struct qn_tokenizer *tok; /* NULL without a model */
static struct qn_token_trie *trie;

static void open_model(const char *path) {
    struct qn_gguf *g;
    struct qn_err err = {0};
    if (qn_gguf_open(&g, path, &err) == 0 && qn_tokenizer_open(&tok, g, &err) == 0 && qn_token_trie_open(&trie, tok, &err) == 0) return;
    fprintf(stderr, "%s\n", err.text);
    exit(66);
}

static json_t *walk(struct qn_constraint *c, json_t *text, double ms) {
    struct qn_text in = {json_string_value(text), json_string_length(text), NULL, 0};
    struct qn_ids ids = {0};
    json_t *id = json_array(), *allowed = json_array(), *us = json_array();
    uint32_t *mask = calloc((qn_tokenizer_n_vocab(tok) + 31) / 32, sizeof *mask);
    qn_cstate s = qn_constraint_start(c);
    if (!mask || qn_tokenizer_encode(tok, &in, 0, 0, &ids, NULL) < 0) exit(1);
    for (size_t i = 0; i < ids.n; i++) {
        int64_t from = qn_clock_ns();
        uint32_t n = qn_constraint_mask(c, s, mask);
        s = qn_constraint_token(c, s, ids.v[i]);
        json_array_append_new(us, json_real((double)(qn_clock_ns() - from) / 1e3));
        json_array_append_new(id, json_integer(ids.v[i]));
        json_array_append_new(allowed, json_integer(n));
    }
    int followed = qn_constraint_accepts(c, s);
    free(mask);
    free(ids.v);
    qn_constraint_unref(c);
    return json_pack("{s:o,s:o,s:o,s:b,s:f}", "ids", id, "allowed", allowed, "us", us, "followed", followed, "ms", ms);
}

static qn_gnode read_grammar(struct qn_grammar *g, json_t *in, struct qn_err *err) {
    const char *kind = json_string_value(json_object_get(in, "kind"));
    json_t *text = json_object_get(in, "text");
    struct qn_regex_opts o = {.search = json_is_true(json_object_get(in, "search")), .ignore_case = json_is_true(json_object_get(in, "ignore_case"))};
    struct qn_refusal r = {0};
    qn_gnode root = QN_G_NONE;
    if (!strcmp(kind, "schema")) {
        if (qn_schema_node(g, text, &(struct qn_schema_opts){0}, "schema", &root, &r) < 0) qn_fail(err, QN_E_UNSUPPORTED, "%.200s", r.message);
        return root;
    }
    if (!strcmp(kind, "gbnf")) return qn_g_gbnf(g, json_string_value(text), json_string_length(text), err);
    if (!strcmp(kind, "lark")) return qn_g_lark(g, json_string_value(text), json_string_length(text), err);
    return qn_g_regex(g, json_string_value(text), json_string_length(text), &o, err);
}

static json_t *answer(json_t *in) {
    struct qn_grammar *g;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    int64_t start = qn_clock_ns();
    if (qn_grammar_new(&g, NULL) < 0) exit(1);
    qn_gnode root = read_grammar(g, in, &err);
    int nothing = root == QN_G_NONE && err.code == 0;
    if (err.code || nothing) qn_grammar_free(g);
    else qn_constraint_new(&c, g, root, trie, &err);
    double ms = (double)(qn_clock_ns() - start) / 1e6;
    if (err.code) return json_pack("{s:s,s:s,s:f}", "error", qn_err_name(err.code), "message", err.text, "ms", ms);
    if (c && tok && json_object_get(in, "walk")) return walk(c, json_object_get(in, "walk"), ms);
    json_t *out = json_array(), *texts = json_object_get(in, "texts");
    for (size_t i = 0; i < json_array_size(texts); i++) {
        json_t *t = json_array_get(texts, i);
        if (nothing) {
            json_array_append_new(out, json_false());
            continue;
        }
        qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), json_string_value(t), json_string_length(t));
        json_array_append_new(out, qn_constraint_failed(c) ? json_null() : json_boolean(s != QN_C_DEAD && qn_constraint_accepts(c, s)));
    }
    qn_constraint_unref(c);
    return json_pack("{s:o,s:f}", "accepts", out, "ms", ms);
}

int main(int argc, char **argv) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (argc > 1) open_model(argv[1]);
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json_t *in = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL), *out = answer(in);
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(in);
        json_decref(out);
    }
    free(line);
    return 0;
}
