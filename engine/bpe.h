/* Byte pair encoding by ranked merges (Sennrich et al. 2016), over bytes (GPT-2 and most others) or over characters with
 * byte fallback (Gemma 4). One word at a time; where words end is pretok.c's or spm.c's business.
 * Thread: const after open, but for an atomic note of words already proven to be one token. */
#ifndef QN_BPE_H
#define QN_BPE_H

#include "engine/merge.h"
#include "engine/vocab.h"

struct qn_bpe_slot { uint32_t left, right, rank, to; }; /* rank QN_NO_RANK: empty */

struct qn_bpe {
    const struct qn_vocab *v;
    struct qn_bpe_slot *slot; /* [mask + 1] */
    uint32_t mask;
    int whole_words;          /* a word that is a token is that token */
    _Atomic unsigned char *whole; /* [n] 1: merging the token's bytes gives this one token */
};

/* `v` is indexed and outlives b. A merge that names what is no token (or one that text may not become) is left out: it
 * could never apply. QN_E_DATA, QN_E_NOMEM. */
int qn_bpe_init(struct qn_bpe *b, const struct qn_vocab *v, const struct qn_str *merges, uint64_t n, int whole_words,
                struct qn_err *err);
void qn_bpe_done(struct qn_bpe *b);
/* Appends the tokens of one word, n < 2^31. Of a byte-level vocabulary that lacks a byte's token (SmolLM2 has none for six
 * control characters and planes 4 to 11) the byte is left out, as the reference does: the "unknown" token that such files
 * name is their end of text. Over characters it becomes the unknown token, QN_E_DATA when there is none. QN_E_LIMIT,
 * QN_E_NOMEM. */
int qn_bpe_word(const struct qn_bpe *b, struct qn_merge *m, const char *p, size_t n, size_t ids_max, struct qn_ids *out);

#endif
