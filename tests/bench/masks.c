/* What a token mask costs: documents, one a line, as a model would write them, walked token by token through a grammar made from each
 * document's own shape (tests/lib/json_grammar.h). Prints compile and mask times; a row for each way of walking.
 *   bench/masks MODEL.gguf DOCUMENTS.jsonl [member]     member: the document is this member of each line */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/base/clock.h"
#include "engine/grammar/constraint.h"
#include "tests/lib/json_grammar.h"

/* Of this thread, so that a busy machine does not count. */
static int64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * QN_S + t.tv_nsec;
}

struct times {
    int64_t *v;
    size_t n, cap;
};

static void put(struct times *t, int64_t ns) {
    if (t->n == t->cap) t->v = realloc(t->v, (t->cap = t->cap * 2 + 1024) * sizeof *t->v);
    if (!t->v) abort();
    t->v[t->n++] = ns;
}

static int by_time(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void print(const char *what, struct times *t) {
    int64_t sum = 0;
    qsort(t->v, t->n, sizeof *t->v, by_time);
    for (size_t i = 0; i < t->n; i++) sum += t->v[i];
    if (t->n == 0) return;
    printf("%-24s n %7zu  mean %8.1f us  p50 %8.1f  p90 %8.1f  p99 %8.1f  max %8.1f\n", what, t->n, (double)sum / (double)t->n / 1e3,
           (double)t->v[t->n / 2] / 1e3, (double)t->v[t->n * 9 / 10] / 1e3, (double)t->v[t->n * 99 / 100] / 1e3, (double)t->v[t->n - 1] / 1e3);
}

struct bench {
    struct qn_tokenizer *tok;
    struct qn_token_trie *trie;
    struct times compile, mask;
    size_t refused, lost, states, bytes;
};

static void walk(struct bench *b, const json_t *doc, int bounded, uint32_t *mask) {
    struct qn_grammar *g = NULL;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    char *text = json_dumps(doc, JSON_ENCODE_ANY);
    struct qn_text in = {text, strlen(text), NULL, 0};
    struct qn_ids ids = {0};
    struct qn_constraint_counts n;
    if (qn_grammar_new(&g, NULL) < 0 || qn_tokenizer_encode(b->tok, &in, 0, 0, &ids, &err) < 0) abort();
    int64_t start = cpu_ns();
    qn_gnode root = jg_like(g, doc, bounded);
    if (qn_constraint_new(&c, g, root, b->trie, &err) < 0) {
        b->refused++;
    } else {
        put(&b->compile, cpu_ns() - start);
        qn_cstate s = qn_constraint_start(c);
        for (size_t i = 0; i < ids.n; i++) {
            int64_t from = cpu_ns();
            qn_constraint_mask(c, s, mask);
            s = qn_constraint_token(c, s, ids.v[i]);
            put(&b->mask, cpu_ns() - from);
            if (!(mask[ids.v[i] / 32] >> (ids.v[i] % 32) & 1)) {
                b->lost++;
                break;
            }
        }
        if (!qn_constraint_accepts(c, s)) b->lost++;
        qn_constraint_counts(c, &n);
        if (n.states > b->states) b->states = n.states;
        if (n.bytes > b->bytes) b->bytes = n.bytes;
        qn_constraint_unref(c);
    }
    free(ids.v);
    free(text);
}

int main(int argc, char **argv) {
    struct qn_gguf *gguf = NULL;
    struct bench b = {0};
    struct qn_err err = {0};
    if (argc < 3) return fprintf(stderr, "usage: masks MODEL.gguf DOCUMENTS.jsonl [member]\n"), 64;
    if (qn_gguf_open(&gguf, argv[1], &err) < 0 || qn_tokenizer_open(&b.tok, gguf, &err) < 0) return fprintf(stderr, "%s\n", err.text), 66;
    int64_t from = qn_clock_ns();
    if (qn_token_trie_open(&b.trie, b.tok, &err) < 0) return fprintf(stderr, "%s\n", err.text), 71;
    printf("trie of %u tokens: %.0f ms\n", qn_tokenizer_n_vocab(b.tok), (double)(qn_clock_ns() - from) / 1e6);
    fflush(stdout);
    uint32_t *mask = calloc((qn_tokenizer_n_vocab(b.tok) + 31) / 32, sizeof *mask);
    for (int bounded = 0; bounded < 2; bounded++) {
        FILE *f = fopen(argv[2], "r");
        char *line = NULL;
        size_t cap = 0;
        if (!f) return perror(argv[2]), 66;
        while (getline(&line, &cap, f) > 0) {
            json_t *j = json_loads(line, JSON_DECODE_ANY, NULL);
            const json_t *doc = argc > 3 ? json_object_get(j, argv[3]) : j;
            if (doc) walk(&b, doc, bounded, mask);
            json_decref(j);
        }
        free(line);
        fclose(f);
        printf("%s: %zu refused, %zu not followed to the end; at most %zu states, %.1f MB\n", bounded ? "strings and arrays bounded" : "no bounds", b.refused,
               b.lost, b.states, (double)b.bytes / 1e6);
        print("  compile", &b.compile);
        print("  mask and step", &b.mask);
        b.compile.n = b.mask.n = b.refused = b.lost = b.states = b.bytes = 0;
    }
    free(mask);
    free(b.compile.v);
    free(b.mask.v);
    qn_token_trie_close(b.trie);
    qn_tokenizer_close(b.tok);
    qn_gguf_close(gguf);
    return 0;
}
