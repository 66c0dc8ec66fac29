/* SentencePiece's BPE (Kudo and Richardson 2018, src/bpe_model.cc): of all adjacent pairs that spell a token the one with
 * the best score joins first, the leftmost among equals; characters that are no tokens fall back to byte tokens.
 *
 * Also the cuts: SentencePiece has no pre-tokenizer, but a text may be cut between two characters that no token contains
 * side by side, with the same result. So a text becomes words even there. Thread: const after init. */
#ifndef QN_SPM_H
#define QN_SPM_H

#include "engine/merge.h"
#include "engine/vocab.h"

struct qn_cuts { uint64_t *bit; }; /* a hashed set of neighbours within tokens; strangers may collide, which only joins */

int qn_cuts_init(struct qn_cuts *c, const struct qn_vocab *v, const unsigned char *may, struct qn_err *err);
void qn_cuts_done(struct qn_cuts *c);
/* Length of the first word of p[0..n), n >= 1. */
size_t qn_cuts_word(const struct qn_cuts *c, const char *p, size_t n);

struct qn_spm {
    const struct qn_vocab *v;
    uint32_t *rank;               /* [n] lower joins first */
    _Atomic unsigned char *whole; /* [n] 1: merging the token's characters gives this one token */
};

/* score[v->n]; any float will do, NaN counts as the worst. v is indexed and outlives s. */
int qn_spm_init(struct qn_spm *s, const struct qn_vocab *v, const float *score, struct qn_err *err);
void qn_spm_done(struct qn_spm *s);
/* As qn_bpe_word. A run of characters that are neither tokens nor byte tokens becomes one unknown token; *unknown carries
 * that from word to word of one text, 0 at its start. */
int qn_spm_word(const struct qn_spm *s, struct qn_merge *m, const char *p, size_t n, int *unknown, size_t ids_max,
                struct qn_ids *out);

#endif
