/* Special tokens: their spellings, found in text from the left, longest first; and the judgement which of them plain
 * text from outside may never become. No ids of ordinary text. Thread: const after init. */
#ifndef QN_SPECIAL_H
#define QN_SPECIAL_H

#include "engine/vocab.h"

enum { QN_SPECIAL_LEN_MAX = 512 }; /* longer spellings are not looked for: bounds the work for each byte of text */

struct qn_special_entry {
    const char *p;
    uint32_t n, id;
    int guarded; /* only where all of it is trusted */
};

struct qn_specials {
    struct qn_special_entry *entry; /* [n] sorted by bytes */
    uint32_t n;
    uint32_t from[257];             /* entries that begin with byte b: from[b] .. from[b + 1) */
    int spaces;                     /* U+2581 in the text counts as a space (SentencePiece) */
};

/* Takes in every token of kind CONTROL, UNKNOWN or USER. `spaces` as above. QN_E_NOMEM. */
int qn_specials_init(struct qn_specials *s, const struct qn_vocab *v, const unsigned char *guarded, int spaces,
                     struct qn_err *err);
void qn_specials_done(struct qn_specials *s);
/* The longest special at p[0..n): its entry and *len, the bytes of text that it covers; NULL: none. Guarded ones only when
 * they end within the first `trusted` bytes. */
const struct qn_special_entry *qn_specials_match(const struct qn_specials *s, const char *p, size_t n, size_t trusted,
                                                 size_t *len);
/* The first place in p[0..n) where one might begin, or n. */
size_t qn_specials_next(const struct qn_specials *s, const char *p, size_t n);
/* The entry with this exact spelling, or NULL. */
const struct qn_special_entry *qn_specials_find(const struct qn_specials *s, const char *p, size_t n);

/* 1 when a spelling looks like a marker of structure (<|im_start|>, <start_of_turn>, <tool_call>, [INST]) and not like text
 * that a tokenizer keeps whole for its own sake (runs of spaces, HTML tags, [multimodal]). `html`: the vocabulary holds
 * HTML tags, so <s> is strikethrough. */
int qn_special_looks_structural(struct qn_str s, int html);
/* 1 when a spelling is known to end a turn or a text. */
int qn_special_looks_final(struct qn_str s);

#endif
