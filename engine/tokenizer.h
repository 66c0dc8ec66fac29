/* Text to token ids and back; no prompt formats.
 *
 * Byte-level BPE (with each model's pre-tokenizer) and SentencePiece BPE with byte fallback. Agreement with the
 * reference implementations is id for id, also on hostile Unicode.
 *
 * Special tokens (invariant 8 of ARCHITECTURE.md): a control token is recognised only where its whole spelling lies in
 * TRUSTED bytes, those that a chat template wrote itself. In every other byte its spelling is plain text. Ordinary text
 * is never cut at a border between trusted and untrusted bytes, so user text tokenises as the reference does. Added tokens
 * of kind USER are found in all text, as in the reference, when they are text (spaces, HTML tags); those that mark
 * structure (<tool_call>, <|...|>, [INST]) are kept to trusted bytes like control tokens (engine/special.c).
 * Thread: const after open, safe anywhere. */
#ifndef QN_TOKENIZER_H
#define QN_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/err.h"
#include "engine/gguf.h"

struct qn_tokenizer;

struct qn_range { /* bytes [from, to) */
    size_t from, to;
};

struct qn_text {
    const char *p;
    size_t n;
    const struct qn_range *trusted; /* ascending, disjoint; NULL with n_trusted 0: nothing is trusted */
    size_t n_trusted;
};

struct qn_ids { /* growable list; owned by the caller: zero it, free(v) when done */
    uint32_t *v;
    size_t n, cap;
};

enum {
    QN_TOK_ADD_SPECIAL = 1,  /* add BOS/EOS where the model's own tokenizer does */
};

enum qn_token_kind { QN_TOKEN_NORMAL = 1, QN_TOKEN_UNKNOWN, QN_TOKEN_CONTROL, QN_TOKEN_USER, QN_TOKEN_UNUSED, QN_TOKEN_BYTE };

/* Reads tokenizer.ggml.* of g, whose mapping must outlive the tokenizer. QN_E_DATA, QN_E_UNSUPPORTED (unknown model or
 * pre-tokenizer: named), QN_E_NOMEM. */
int qn_tokenizer_open(struct qn_tokenizer **out, const struct qn_gguf *g, struct qn_err *err);
void qn_tokenizer_close(struct qn_tokenizer *t);

/* Appends the ids of `text` to out. Time is near linear in text->n for any input. Stops with QN_E_LIMIT when out would
 * pass `ids_max` (0: no limit); QN_E_NOMEM. Invalid UTF-8 becomes the tokens of its raw bytes. A byte that a byte-level
 * vocabulary has no token for is left out, as in the reference; QN_E_DATA when SentencePiece has neither byte tokens nor an
 * unknown token. On an error `out` may hold some ids. */
int qn_tokenizer_encode(const struct qn_tokenizer *t, const struct qn_text *text, unsigned flags, size_t ids_max,
                        struct qn_ids *out, struct qn_err *err);

/* How many leading bytes of p[0..n) keep their tokens whatever text follows: those before the last word. 0 where words are not cut
 * (SentencePiece). */
size_t qn_tokenizer_settled(const struct qn_tokenizer *t, const char *p, size_t n);

uint32_t qn_tokenizer_n_vocab(const struct qn_tokenizer *t);
/* The raw bytes that a token stands for (SentencePiece's U+2581 already turned into a space, byte tokens into their
 * byte). Not NUL-terminated; lives as long as the tokenizer. id < n_vocab. A control token yields its spelling;
 * `kind` lets the caller decide to hide it. */
const char *qn_tokenizer_piece(const struct qn_tokenizer *t, uint32_t id, size_t *n);
enum qn_token_kind qn_tokenizer_kind(const struct qn_tokenizer *t, uint32_t id);
/* Longest piece in bytes. */
size_t qn_tokenizer_piece_max(const struct qn_tokenizer *t);
/* Length of the leading space that the model's own decoder strips from the start of a text: 0 or 1. */
int qn_tokenizer_strips_space(const struct qn_tokenizer *t);

/* -1 where the model has none. */
int64_t qn_tokenizer_bos(const struct qn_tokenizer *t);
int64_t qn_tokenizer_eos(const struct qn_tokenizer *t);
/* 1 for tokens that end generation: EOS, EOT, EOM and the well-known end-of-turn spellings. */
int qn_tokenizer_ends(const struct qn_tokenizer *t, uint32_t id);
/* 1 for control tokens and those that mark structure: only trusted bytes become them. */
int qn_tokenizer_guarded(const struct qn_tokenizer *t, uint32_t id);
int qn_tokenizer_adds_bos(const struct qn_tokenizer *t);
int qn_tokenizer_adds_eos(const struct qn_tokenizer *t);
/* Id of a control or user-defined token by its exact spelling, or -1. */
int64_t qn_tokenizer_find(const struct qn_tokenizer *t, const char *s, size_t n);

#endif
