/* What a token mask costs, walking a document token by token as a model would write it. CPU time of compiling, and of mask and step together.
 *   bench/masks MODEL.gguf schemas LINES.jsonl [member]    JSON Schemas, one a line (or a member of each); the documents are drawn at
 *                                                          random from what the schema allows
 *   bench/masks MODEL.gguf documents LINES.jsonl [member]  documents, each through a grammar of its own shape (tests/lib/json_grammar.h)
 *   bench/masks MODEL.gguf bounded LINES.jsonl [member]    the same with a maximum on every string and array */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/schema.h"
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

enum how { SCHEMAS, DOCUMENTS, BOUNDED };

struct bench {
    struct qn_tokenizer *tok;
    struct qn_token_trie *trie;
    enum how how;
    struct times compile, mask;
    size_t refused, failed, lost, states, bytes;
    uint32_t *room; /* for a mask */
    uint64_t rng;
};

static double draw(struct bench *b) {
    b->rng = b->rng * 6364136223846793005u + 1442695040888963407u;
    return (double)(b->rng >> 11) / 9007199254740992.0;
}

/* How a model would rather go on: words and not escapes, and an end after a while. */
static double weight(unsigned byte, size_t n) {
    double end = n < 200 ? 6 : n < 2000 ? 20 : 1e6;
    if (byte == '"' || byte == '}' || byte == ']') return end;
    if (byte == ',') return n < 2000 ? 12 : 1;
    if (byte >= 'a' && byte <= 'z') return 3;
    if (byte == '\\' || byte < 32) return 0.05;
    return byte < 127 ? 1 : 0.01;
}

/* A text of the constraint, drawn byte by byte. Returns its length, 0: none within the room. */
static size_t draw_text(struct bench *b, struct qn_constraint *c, char *out, size_t room) {
    qn_cstate s = qn_constraint_start(c);
    for (size_t n = 0; n < room; n++) {
        qn_cstate next[256], to = QN_C_DEAD;
        double sum = 0;
        if (qn_constraint_over(c, s) || (qn_constraint_accepts(c, s) && draw(b) < 0.5)) return n;
        for (unsigned x = 0; x < 256; x++) {
            next[x] = qn_constraint_text(c, s, (char[]){(char)x}, 1);
            if (next[x] != QN_C_DEAD) sum += weight(x, n);
        }
        double r = draw(b) * sum;
        for (unsigned x = 0; x < 256 && to == QN_C_DEAD; x++) {
            if (next[x] == QN_C_DEAD || (r -= weight(x, n)) > 0) continue;
            out[n] = (char)x;
            to = next[x];
        }
        if (to == QN_C_DEAD) return 0;
        s = to;
    }
    return 0;
}

static struct qn_constraint *compile(struct bench *b, const json_t *doc, const struct qn_token_trie *trie, int64_t *ns) {
    struct qn_grammar *g = NULL;
    struct qn_constraint *c = NULL;
    struct qn_refusal r = {0};
    qn_gnode root;
    int64_t from = cpu_ns();
    if (qn_grammar_new(&g, NULL) < 0) abort();
    if (b->how != SCHEMAS) root = jg_like(g, doc, b->how == BOUNDED);
    else if (qn_schema_node(g, doc, &(struct qn_schema_opts){0}, "schema", &root, &r) < 0) return qn_grammar_free(g), NULL;
    if (qn_constraint_new(&c, g, root, trie, NULL) < 0) return NULL;
    *ns = cpu_ns() - from;
    return c;
}

static void follow(struct bench *b, struct qn_constraint *c, const char *text, size_t n) {
    struct qn_text in = {text, n, NULL, 0};
    struct qn_ids ids = {0};
    struct qn_constraint_counts k;
    qn_cstate s = qn_constraint_start(c);
    size_t i = 0;
    if (qn_tokenizer_encode(b->tok, &in, 0, 0, &ids, NULL) < 0) abort();
    for (; i < ids.n; i++) {
        int64_t from = cpu_ns();
        qn_constraint_mask(c, s, b->room);
        s = qn_constraint_token(c, s, ids.v[i]);
        put(&b->mask, cpu_ns() - from);
        if (!(b->room[ids.v[i] / 32] >> (ids.v[i] % 32) & 1)) break;
    }
    b->lost += i < ids.n || !qn_constraint_accepts(c, s);
    b->failed += qn_constraint_failed(c) != 0;
    qn_constraint_counts(c, &k);
    if (k.states > b->states) b->states = k.states;
    if (k.bytes > b->bytes) b->bytes = k.bytes;
    free(ids.v);
}

static void one(struct bench *b, const json_t *doc) {
    static char text[16000];
    int64_t ns;
    struct qn_constraint *c = compile(b, doc, b->trie, &ns), *d = NULL;
    if (!c) {
        b->refused++;
        return;
    }
    put(&b->compile, ns);
    if (b->how == SCHEMAS) {
        d = compile(b, doc, NULL, &ns); /* drawn from another, so that this one has seen nothing */
        size_t n = d ? draw_text(b, d, text, sizeof text) : 0;
        follow(b, c, text, n);
    } else {
        char *dump = json_dumps(doc, JSON_ENCODE_ANY);
        follow(b, c, dump, strlen(dump));
        free(dump);
    }
    qn_constraint_unref(c);
    qn_constraint_unref(d);
}

int main(int argc, char **argv) {
    static const char *const hows[] = {"schemas", "documents", "bounded"};
    struct qn_gguf *gguf = NULL;
    struct bench b = {.rng = 7};
    struct qn_err err = {0};
    char *line = NULL;
    size_t cap = 0;
    FILE *f = argc > 3 ? fopen(argv[3], "r") : NULL;
    while (argc > 3 && b.how <= BOUNDED && strcmp(argv[2], hows[b.how])) b.how++;
    if (!f || b.how > BOUNDED) return fprintf(stderr, "usage: masks MODEL.gguf schemas|documents|bounded LINES.jsonl [member]\n"), 64;
    if (qn_gguf_open(&gguf, argv[1], &err) < 0 || qn_tokenizer_open(&b.tok, gguf, &err) < 0) return fprintf(stderr, "%s\n", err.text), 66;
    int64_t from = cpu_ns();
    if (qn_token_trie_open(&b.trie, b.tok, &err) < 0) return fprintf(stderr, "%s\n", err.text), 71;
    printf("trie of %u tokens: %.0f ms\n", qn_tokenizer_n_vocab(b.tok), (double)(cpu_ns() - from) / 1e6);
    b.room = calloc((qn_tokenizer_n_vocab(b.tok) + 31) / 32, sizeof *b.room);
    while (getline(&line, &cap, f) > 0) {
        json_t *j = json_loads(line, JSON_DECODE_ANY, NULL);
        const json_t *doc = argc > 4 ? json_object_get(j, argv[4]) : j;
        if (doc) one(&b, doc);
        json_decref(j);
    }
    printf("%zu refused, %zu not followed to the end, %zu failed; at most %zu states, %.1f MB\n", b.refused, b.lost, b.failed, b.states, (double)b.bytes / 1e6);
    print("  compile", &b.compile);
    print("  mask and step", &b.mask);
    free(line);
    fclose(f);
    free(b.room);
    free(b.compile.v);
    free(b.mask.v);
    qn_token_trie_close(b.trie);
    qn_tokenizer_close(b.tok);
    qn_gguf_close(gguf);
    return 0;
}
