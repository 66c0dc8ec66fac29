/* Pre-tokenizers: where byte-level BPE cuts a text into words before it merges. One row per name that GGUF files give in
 * tokenizer.ggml.pre, each a chain of stages; a stage is a hand-written matcher of one regular expression of the model's
 * own tokenizer.json. No vocabularies, no regex library. Pure functions, any thread; time linear in the text. */
#ifndef QN_PRETOK_H
#define QN_PRETOK_H

#include <stddef.h>

enum { QN_PRE_STAGES_MAX = 6 };

/* Length of the first piece of p[0..n), n >= 1: 1..n. */
typedef size_t (*qn_pre_stage)(const char *p, size_t n);

struct qn_pretok {
    const char *name;
    qn_pre_stage stage[QN_PRE_STAGES_MAX + 1]; /* ends with NULL */
    unsigned char nfc;           /* text is put into Unicode's composed form first */
    unsigned char whole_words;   /* a word that is a token is that token, whatever the merges say */
    unsigned char adds_bos;      /* where the file does not say */
};

/* The row for a name, or NULL. */
const struct qn_pretok *qn_pretok_find(const char *name, size_t n);
/* All names, separated by ", ". */
const char *qn_pretok_names(void);

/* Calls word() for each word of p[0..n) in order; stops when it returns a value < 0 and returns that, else 0. */
int qn_pretok_split(const struct qn_pretok *t, const char *p, size_t n, int (*word)(void *ctx, const char *p, size_t n),
                    void *ctx);

#endif
