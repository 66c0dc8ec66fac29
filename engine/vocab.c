/* GPT-2's byte letters (Radford et al. 2019, encoder.py, bytes_to_unicode): printable Latin-1 bytes stand for themselves
 * and the 68 others for U+0100, U+0101, ... in order, so that a vocabulary is printable text. */
#include "engine/vocab.h"

#include <stdlib.h>

#include "engine/base/rng.h"
#include "engine/base/utf8.h"

enum { N_LETTERS = 68 };

static int printable(unsigned b) { return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE; }

/* The byte that a letter stands for, or -1. */
static int byte_of(uint32_t r) {
    if (r < 0x100) return printable(r) ? (int)r : -1;
    if (r >= 0x100 + N_LETTERS) return -1;
    uint32_t k = r - 0x100; /* the k-th unprintable byte: 00..20, 7F..A0, AD */
    return (int)(k < 0x21 ? k : k < 0x43 ? 0x7F + (k - 0x21) : 0xAD);
}

static size_t raw_letters(struct qn_str s, char *out) {
    size_t o = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t r = 0;
        int len = qn_utf8_decode(s.p + i, s.n - i, &r), b = len ? byte_of(r) : -1;
        if (b < 0) {
            memcpy(out, s.p, s.n);
            return s.n;
        }
        out[o++] = (char)b;
        i += (size_t)len;
    }
    return o;
}

static size_t raw_spaces(struct qn_str s, char *out) {
    size_t o = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.n - i >= 3 && !memcmp(s.p + i, "\xE2\x96\x81", 3)) {
            out[o++] = ' ';
            i += 3;
        } else {
            out[o++] = s.p[i++];
        }
    }
    return o;
}

size_t qn_vocab_raw(enum qn_spelling spelling, struct qn_str s, char *out) {
    return spelling == QN_SPELL_BYTES ? raw_letters(s, out) : raw_spaces(s, out);
}

int qn_vocab_unreachable(enum qn_spelling spelling, struct qn_str s, size_t n_raw) {
    if (spelling != QN_SPELL_BYTES || n_raw != s.n) return 0; /* letters beyond ASCII are two bytes long: decoded is shorter */
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x21 || s.p[i] > 0x7E) return 1; /* plain char: what is beyond ASCII is negative or above */
    return 0;
}

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value of <0xNN>, or -1. */
static int byte_token(struct qn_str s) {
    if (s.n != 6 || memcmp(s.p, "<0x", 3) || s.p[5] != '>' || hex(s.p[3]) < 0 || hex(s.p[4]) < 0) return -1;
    return hex(s.p[3]) * 16 + hex(s.p[4]);
}

/* Piece `id` goes to v->bytes + v->at[id]; sets byte_id where it stands for one byte. */
static int piece(struct qn_vocab *v, uint32_t id, struct qn_err *err) {
    char *out = v->bytes + v->at[id];
    struct qn_str s = v->text[id];
    size_t n;
    int b = -1;
    switch (v->kind[id]) {
    case QN_TOKEN_BYTE:
        b = byte_token(s);
        if (b < 0)
            return qn_fail(err, QN_E_DATA, "tokenizer.ggml.tokens[%u]: a byte token that is not spelled <0xNN>", id);
        out[0] = (char)b;
        n = 1;
        break;
    case QN_TOKEN_NORMAL: n = qn_vocab_raw(v->spelling, s, out); break;
    default: /* spelled as text, but U+2581 means a space where it does elsewhere */
        n = v->spelling == QN_SPELL_SPACES ? raw_spaces(s, out) : (memcpy(out, s.p, s.n), s.n);
    }
    if (v->spelling == QN_SPELL_BYTES && (v->kind[id] == QN_TOKEN_NORMAL || v->kind[id] == QN_TOKEN_USER)) {
        /* DeepSeek spells its last byte letters as added tokens, hence USER. */
        uint32_t r = 0;
        if (s.n > 0 && qn_utf8_decode(s.p, s.n, &r) == (int)s.n) b = byte_of(r);
    }
    if (b >= 0 && v->byte_id[b] == QN_NO_ID) v->byte_id[b] = id;
    v->at[id + 1] = v->at[id] + (uint32_t)n;
    if (n > v->piece_max) v->piece_max = n;
    return 0;
}

int qn_vocab_init(struct qn_vocab *v, enum qn_spelling spelling, const struct qn_str *text, uint32_t n, unsigned char *kind,
                  struct qn_err *err) {
    uint64_t total = 0;
    *v = (struct qn_vocab){.n = n, .spelling = spelling, .text = text, .kind = kind, .unk = QN_NO_ID};
    memset(v->byte_id, 0xFF, sizeof v->byte_id);
    if (n == 0 || n > QN_VOCAB_MAX)
        return qn_fail(err, QN_E_LIMIT, "tokenizer.ggml.tokens: %u tokens, 1 to %u are possible", n, QN_VOCAB_MAX);
    for (uint32_t i = 0; i < n; i++) total += text[i].n; /* each lies in the mapping, at most 2^22 of them: no overflow */
    if (total > UINT32_MAX) return qn_fail(err, QN_E_LIMIT, "tokenizer.ggml.tokens: more than 4 GiB of spellings");
    if (qn_rng_bytes(v->key, sizeof v->key) < 0) return qn_fail(err, QN_E_IO, "getrandom: no random bytes");
    v->key[1] |= 1;
    v->bytes = malloc(total + 1);
    v->at = malloc(((size_t)n + 1) * sizeof *v->at);
    if (!v->bytes || !v->at) return qn_fail(err, QN_E_NOMEM, "vocabulary: no memory");
    v->at[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        int rc = piece(v, i, err);
        if (rc < 0) return rc;
    }
    return 0;
}

int qn_vocab_index(struct qn_vocab *v, const unsigned char *may, struct qn_err *err) {
    uint32_t cap = 64;
    while (cap < v->n + v->n / 2) cap *= 2;
    v->slot = malloc(cap * sizeof *v->slot);
    if (!v->slot) return qn_fail(err, QN_E_NOMEM, "vocabulary: no memory");
    memset(v->slot, 0xFF, cap * sizeof *v->slot);
    v->mask = cap - 1;
    for (uint32_t id = 0; id < v->n; id++) {
        const char *p = v->bytes + v->at[id];
        size_t n = v->at[id + 1] - v->at[id];
        if (!may[id] || n == 0 || qn_vocab_find(v, p, n) != QN_NO_ID) continue; /* of duplicates the first counts */
        uint64_t h = qn_vocab_hash(v, p, n);
        uint32_t i = (uint32_t)h & v->mask;
        while (v->slot[i].id != QN_NO_ID) i = (i + 1) & v->mask;
        v->slot[i] = (struct qn_vocab_slot){.tag = (uint32_t)(h >> 32), .id = id};
    }
    return 0;
}

void qn_vocab_done(struct qn_vocab *v) {
    free(v->kind);
    free(v->at);
    free(v->bytes);
    free(v->slot);
    *v = (struct qn_vocab){0};
}

int qn_ids_grow(struct qn_ids *ids) {
    size_t cap = ids->cap ? 2 * ids->cap : 64;
    uint32_t *v = cap > SIZE_MAX / sizeof *v ? NULL : realloc(ids->v, cap * sizeof *v);
    if (!v) return QN_E_NOMEM;
    ids->v = v;
    ids->cap = cap;
    return 0;
}
