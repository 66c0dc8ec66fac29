/* The vocabulary of a tokenizer: spellings as raw bytes, kinds, and two hash tables (bytes -> id). Read from GGUF by
 * tokenizer.c; bpe.c and spm.c look tokens up here. No merging and no text handling.
 *
 * "Raw bytes" means: GPT-2's byte letters decoded (byte-level BPE), or U+2581 turned into a space (SentencePiece), so
 * that text is looked up without being transcribed first. Thread: const after open. */
#ifndef QN_VOCAB_H
#define QN_VOCAB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/err.h"
#include "engine/gguf.h"
#include "engine/tokenizer.h"

#define QN_NO_ID UINT32_MAX
#define QN_VOCAB_MAX (4u << 20)

enum qn_spelling { QN_SPELL_BYTES /* GPT-2 byte letters */, QN_SPELL_SPACES /* U+2581 for space, <0xNN> bytes */ };

struct qn_vocab_slot { uint32_t tag, id; }; /* id QN_NO_ID: empty */

struct qn_vocab {
    uint32_t n;
    enum qn_spelling spelling;
    const struct qn_str *text;  /* [n] spelling in the file, borrowed from the mapping */
    unsigned char *kind;        /* [n] enum qn_token_kind */
    uint32_t *at;               /* [n + 1] piece i is bytes[at[i] .. at[i + 1]) */
    char *bytes;
    size_t piece_max;
    uint32_t byte_id[256];      /* token that stands for one byte, or QN_NO_ID */
    uint32_t unk;               /* or QN_NO_ID */
    uint64_t key[2];            /* random, so that no file can steer the tables */
    struct qn_vocab_slot *slot; /* [mask + 1] tokens that ordinary text may become */
    uint32_t mask;
};

/* `kind` is taken (freed by done, also on failure). QN_E_DATA, QN_E_LIMIT, QN_E_NOMEM. */
int qn_vocab_init(struct qn_vocab *v, enum qn_spelling spelling, const struct qn_str *text, uint32_t n, unsigned char *kind,
                  struct qn_err *err);
void qn_vocab_done(struct qn_vocab *v);
/* Builds the table of tokens that ordinary text may become: those with may[id] != 0. Once, after init. */
int qn_vocab_index(struct qn_vocab *v, const unsigned char *may, struct qn_err *err);
/* Writes the raw bytes of a spelling to out (room for s.n bytes) and returns their number. A spelling with a letter
 * that stands for no byte is copied as it is, as the reference's decoder does. */
size_t qn_vocab_raw(enum qn_spelling spelling, struct qn_str s, char *out);
/* 1 when s holds a letter that stands for no byte, though the vocabulary is spelled in byte letters: no text of bytes
 * ever becomes such a token (command-r has two dozen). `n_raw` is what qn_vocab_raw gave. */
int qn_vocab_unreachable(enum qn_spelling spelling, struct qn_str s, size_t n_raw);

/* Multiply and fold (the idea of wyhash and MUM): fast on the 3..16 bytes that tokens have. */
static inline uint64_t qn_fold(uint64_t a, uint64_t b) {
    unsigned __int128 m = (unsigned __int128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}
static inline uint64_t qn_vocab_hash(const struct qn_vocab *v, const char *p, size_t n) {
    uint64_t h = v->key[0] ^ n, w = 0;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&w, p, 8);
        h = qn_fold(h ^ w, v->key[1]);
    }
    w = 0;
    if (n >= 4) { /* two overlapping halves, no loop over single bytes */
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        w = (uint64_t)a << 32 | b;
    } else if (n > 0) {
        w = (uint64_t)(unsigned char)p[0] << 16 | (uint64_t)(unsigned char)p[n / 2] << 8 | (unsigned char)p[n - 1];
    }
    return qn_fold(qn_fold(h ^ w, v->key[1]) ^ v->key[0], 0x9E3779B97F4A7C15u);
}
/* Id of the token whose raw bytes are p[0..n) and which text may become, or QN_NO_ID. */
static inline uint32_t qn_vocab_find(const struct qn_vocab *v, const char *p, size_t n) {
    if (n == 0 || n > v->piece_max) return QN_NO_ID;
    uint64_t h = qn_vocab_hash(v, p, n);
    for (uint32_t i = (uint32_t)h & v->mask;; i = (i + 1) & v->mask) {
        uint32_t id = v->slot[i].id;
        if (id == QN_NO_ID) return QN_NO_ID;
        if (v->slot[i].tag == (uint32_t)(h >> 32) && v->at[id + 1] - v->at[id] == n && !memcmp(v->bytes + v->at[id], p, n))
            return id;
    }
}

/* Appends to ids, unless that would pass max (0: no limit). QN_E_LIMIT, QN_E_NOMEM. */
int qn_ids_grow(struct qn_ids *ids);
static inline int qn_ids_push(struct qn_ids *ids, size_t max, uint32_t id) {
    if (max && ids->n >= max) return QN_E_LIMIT;
    if (ids->n == ids->cap && qn_ids_grow(ids) < 0) return QN_E_NOMEM;
    ids->v[ids->n++] = id;
    return 0;
}

#endif
