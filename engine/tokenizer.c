/* Open: what a GGUF file says of its tokenizer, checked, with each model's own defaults where it is silent. Encode: a text
 * is cut at special tokens, each part between is brought into the model's form (NFC; or spaces in front) and cut into
 * words, each word is merged. The rules that differ by model are rows (pretok.c) or facts of the vocabulary.
 *
 * Facts: llama.cpp b-series of 2026 (src/llama-vocab.cpp) for what the keys mean; Hugging Face tokenizers and
 * SentencePiece for what the ids must be. */
#include "engine/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bpe.h"
#include "engine/pretok.h"
#include "engine/special.h"
#include "engine/spm.h"
#include "engine/unicode.h"

#define TEXT_MAX ((size_t)1 << 30)

enum scheme { BYTE_BPE, SPM, CHAR_BPE };

struct qn_tokenizer {
    enum scheme scheme;
    struct qn_vocab vocab;
    struct qn_bpe bpe;
    struct qn_spm spm;
    struct qn_cuts cuts;
    struct qn_specials specials;
    const struct qn_pretok *pre;
    unsigned char *ends;     /* [n] */
    unsigned char *may;      /* [n] ordinary text may become it */
    unsigned char *guarded;  /* [n] only trusted text may become it */
    int64_t bos, eos;
    int adds_bos, adds_eos;
    int space_prefix;        /* SentencePiece's dummy prefix, before each part of text */
    int eats_space;          /* Phi-3: white space after a special token belongs to it */
};

static const char *const schemes[] = {[BYTE_BPE] = "gpt2", [SPM] = "llama", [CHAR_BPE] = "gemma4"};

static int is_text(struct qn_str s, const char *t) { return s.n == strlen(t) && !memcmp(s.p, t, s.n); }
static int has_prefix(struct qn_str s, const char *t) { return s.n >= strlen(t) && !memcmp(s.p, t, strlen(t)); }

static int read_scheme(struct qn_tokenizer *t, const struct qn_gguf *g, struct qn_err *err) {
    struct qn_str model, pre = {"default", 7};
    if (qn_gguf_str(g, "tokenizer.ggml.model", &model) < 0)
        return qn_fail(err, QN_E_DATA, "tokenizer.ggml.model: missing or not a string");
    int found = -1;
    for (int i = 0; i < (int)(sizeof schemes / sizeof *schemes); i++)
        if (is_text(model, schemes[i])) found = i;
    if (found < 0)
        return qn_fail(err, QN_E_UNSUPPORTED, "tokenizer.ggml.model '%.*s': gpt2, llama and gemma4 are known",
                       (int)(model.n < 40 ? model.n : 40), model.p);
    t->scheme = (enum scheme)found;
    if (t->scheme != BYTE_BPE) return 0;
    int rc = qn_gguf_str(g, "tokenizer.ggml.pre", &pre);
    if (rc < 0 && rc != QN_E_NOT_FOUND) return qn_fail(err, QN_E_DATA, "tokenizer.ggml.pre: not a string");
    t->pre = qn_pretok_find(pre.p, pre.n);
    if (!t->pre)
        return qn_fail(err, QN_E_UNSUPPORTED, "tokenizer.ggml.pre '%.*s' is unknown; known: %s",
                       (int)(pre.n < 40 ? pre.n : 40), pre.p, qn_pretok_names());
    return 0;
}

/* The kinds of all tokens, allocated; NORMAL where the file has none. */
static int read_kinds(const struct qn_gguf *g, uint32_t n, unsigned char **out, struct qn_err *err) {
    uint64_t count = 0;
    int64_t *types = NULL;
    unsigned char *kind = malloc(n);
    int rc = kind ? qn_gguf_array_n(g, "tokenizer.ggml.token_type", &count) : QN_E_NOMEM;
    if (rc == QN_E_NOT_FOUND) {
        memset(kind, QN_TOKEN_NORMAL, n);
        *out = kind;
        return 0;
    }
    if (rc == 0) rc = count < n ? QN_E_DATA : 0;
    if (rc == 0 && !(types = malloc(n * sizeof *types))) rc = QN_E_NOMEM;
    if (rc == 0) rc = qn_gguf_array_i64(g, "tokenizer.ggml.token_type", types, n, &count);
    for (uint32_t i = 0; rc == 0 && i < n; i++) /* 0 is "undefined"; what we do not know is kept out of texts */
        kind[i] = types[i] >= QN_TOKEN_NORMAL && types[i] <= QN_TOKEN_BYTE ? (unsigned char)types[i] : QN_TOKEN_UNUSED;
    free(types);
    if (rc < 0) {
        free(kind);
        return qn_fail(err, rc, "tokenizer.ggml.token_type: %s",
                       rc == QN_E_NOMEM ? "no memory" : count < n ? "shorter than the token list" : "not integers");
    }
    *out = kind;
    return 0;
}

/* Padding that converters add: [PAD151646] and the like. No text is meant to become it. */
static int is_padding(struct qn_str s) {
    if (!has_prefix(s, "[PAD") || s.n < 6 || s.p[s.n - 1] != ']') return 0;
    for (size_t i = 4; i + 1 < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9') return 0;
    return 1;
}

/* An id from the file, `fallback` where it has none or one beyond the vocabulary (which llama.cpp ignores too). */
static int64_t read_id(const struct qn_gguf *g, const char *key, uint32_t n, int64_t fallback) {
    uint64_t v;
    if (qn_gguf_u64(g, key, &v) == 0 && v < n) return (int64_t)v;
    return fallback < (int64_t)n ? fallback : -1;
}

static int64_t find_text(const struct qn_str *text, uint32_t n, const char *s) {
    for (uint32_t i = 0; i < n; i++)
        if (is_text(text[i], s)) return i;
    return -1;
}

/* The keys whose tokens are special whatever their kind says. "seperator" is how the format spells it. */
enum { BOS, EOS, EOT, EOM, UNK, N_SPECIAL_KEYS = 15 };
static const char *const special_keys[N_SPECIAL_KEYS] = {
    [BOS] = "bos", [EOS] = "eos", [EOT] = "eot", [EOM] = "eom", [UNK] = "unknown", "padding", "seperator", "mask", "cls",
    "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"};

static int64_t special_id(const struct qn_gguf *g, int k, uint32_t n, int spm) {
    char key[64];
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", special_keys[k]);
    return read_id(g, key, n, !spm ? -1 : k == BOS ? 1 : k == EOS ? 2 : k == UNK ? 0 : -1); /* SentencePiece's own */
}

/* Kinds as they should be: padding is UNUSED; what names itself an end of turn is CONTROL even where a converter forgot,
 * and so is what a key names. A plain </s> is neither: Qwen has one for HTML. */
static void mend_kinds(const struct qn_gguf *g, const struct qn_str *text, uint32_t n, unsigned char *kind, int spm, int html) {
    for (uint32_t i = 0; i < n; i++) {
        if (kind[i] != QN_TOKEN_CONTROL && kind[i] != QN_TOKEN_BYTE && is_padding(text[i])) kind[i] = QN_TOKEN_UNUSED;
        if (kind[i] != QN_TOKEN_NORMAL && kind[i] != QN_TOKEN_USER) continue;
        if (kind[i] == QN_TOKEN_NORMAL && is_text(text[i], "</s>")) continue;
        if (qn_special_looks_final(text[i]) && qn_special_looks_structural(text[i], html)) kind[i] = QN_TOKEN_CONTROL;
    }
    for (int k = 0; k < N_SPECIAL_KEYS; k++) {
        int64_t id = special_id(g, k, n, spm);
        if (id >= 0 && kind[id] == QN_TOKEN_NORMAL && qn_special_looks_structural(text[id], html)) kind[id] = QN_TOKEN_CONTROL;
    }
}

static void set_ends(struct qn_tokenizer *t, const struct qn_gguf *g) {
    const struct qn_vocab *v = &t->vocab;
    int64_t more[] = {t->eos, special_id(g, EOT, v->n, 0), special_id(g, EOM, v->n, 0)};
    int64_t end = -1;
    int returns = 0, calls = 0, flushes = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        if (v->kind[i] != QN_TOKEN_CONTROL || !qn_special_looks_final(v->text[i])) continue;
        t->ends[i] = 1;
        if (is_text(v->text[i], "<|end|>")) end = i;
        returns |= is_text(v->text[i], "<|return|>");
        calls |= is_text(v->text[i], "<|call|>") || is_text(v->text[i], "<|calls|>");
        flushes |= is_text(v->text[i], "<|flush|>");
    }
    if (end >= 0 && calls && (returns || flushes)) t->ends[end] = 0; /* gpt-oss: ends a message, not the turn */
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (more[i] >= 0) t->ends[more[i]] = 1;
}

/* Which tokens text may become by merging, and which special ones only trusted text may name. */
static void set_rights(struct qn_tokenizer *t, const struct qn_gguf *g, int html) {
    const struct qn_vocab *v = &t->vocab;
    for (uint32_t i = 0; i < v->n; i++)
        t->guarded[i] = v->kind[i] == QN_TOKEN_CONTROL || v->kind[i] == QN_TOKEN_UNKNOWN ||
                        (v->kind[i] == QN_TOKEN_USER && qn_special_looks_structural(v->text[i], html)) ||
                        (t->ends[i] && qn_special_looks_structural(v->text[i], html));
    for (int k = 0; k < N_SPECIAL_KEYS; k++) {
        int64_t id = special_id(g, k, v->n, t->scheme == SPM);
        if (id >= 0 && v->kind[id] == QN_TOKEN_USER) t->guarded[id] = 1;
    }
    for (uint32_t i = 0; i < v->n; i++)
        t->may[i] = !t->guarded[i] && (v->kind[i] == QN_TOKEN_NORMAL || (v->kind[i] == QN_TOKEN_USER && t->scheme != BYTE_BPE)) &&
                    !qn_vocab_unreachable(v->spelling, v->text[i], v->at[i + 1] - v->at[i]);
    for (int b = 0; b < 256; b++) /* bytes too */
        if (v->byte_id[b] != QN_NO_ID && t->guarded[v->byte_id[b]]) t->vocab.byte_id[b] = QN_NO_ID;
}

static void read_flags(struct qn_tokenizer *t, const struct qn_gguf *g) {
    int flag;
    struct qn_str name;
    t->adds_bos = t->scheme != BYTE_BPE || t->pre->adds_bos;
    if (qn_gguf_bool(g, "tokenizer.ggml.add_bos_token", &flag) == 0) t->adds_bos = flag;
    if (t->scheme == CHAR_BPE) t->adds_bos = 1; /* files that say otherwise are wrong (llama.cpp pull 21500) */
    if (qn_gguf_bool(g, "tokenizer.ggml.add_eos_token", &flag) == 0) t->adds_eos = flag;
    t->adds_bos = t->adds_bos && t->bos >= 0;
    t->adds_eos = t->adds_eos && t->eos >= 0;
    t->space_prefix = t->scheme == SPM;
    if (t->scheme == SPM && qn_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &flag) == 0) t->space_prefix = flag;
    if (t->scheme == SPM && qn_gguf_str(g, "general.name", &name) == 0)
        t->eats_space = memmem(name.p, name.n, "phi-3", 5) || memmem(name.p, name.n, "Phi-3", 5) ||
                        memmem(name.p, name.n, "phi3", 4) || memmem(name.p, name.n, "Phi3", 4);
}

static int open_spm(struct qn_tokenizer *t, const struct qn_gguf *g, struct qn_err *err) {
    uint64_t count = 0;
    float *score = malloc(t->vocab.n * sizeof *score);
    int rc = score ? qn_gguf_array_f32(g, "tokenizer.ggml.scores", score, t->vocab.n, &count)
                   : qn_fail(err, QN_E_NOMEM, "vocabulary: no memory");
    if (rc == 0 && count < t->vocab.n) rc = QN_E_DATA;
    if (rc < 0)
        rc = qn_fail(err, rc == QN_E_NOT_FOUND ? QN_E_DATA : rc, "tokenizer.ggml.scores: missing, too short or not floats");
    if (rc == 0) rc = qn_spm_init(&t->spm, &t->vocab, score, err);
    free(score);
    return rc;
}

static int open_bpe(struct qn_tokenizer *t, const struct qn_gguf *g, struct qn_err *err) {
    const struct qn_str *merges;
    uint64_t n;
    if (qn_gguf_array_strs(g, "tokenizer.ggml.merges", &merges, &n) < 0)
        return qn_fail(err, QN_E_DATA, "tokenizer.ggml.merges: missing or not strings");
    return qn_bpe_init(&t->bpe, &t->vocab, merges, n, t->pre && t->pre->whole_words, err);
}

static int open_vocab(struct qn_tokenizer *t, const struct qn_gguf *g, struct qn_err *err) {
    const struct qn_str *text;
    unsigned char *kind = NULL;
    uint64_t n;
    if (qn_gguf_array_strs(g, "tokenizer.ggml.tokens", &text, &n) < 0)
        return qn_fail(err, QN_E_DATA, "tokenizer.ggml.tokens: missing or not strings");
    if (n == 0 || n > QN_VOCAB_MAX)
        return qn_fail(err, QN_E_LIMIT, "tokenizer.ggml.tokens: %llu tokens, 1 to %u are possible", (unsigned long long)n,
                       QN_VOCAB_MAX);
    int rc = read_kinds(g, (uint32_t)n, &kind, err);
    if (rc < 0) return rc;
    int html = find_text(text, (uint32_t)n, "<table>") >= 0;
    mend_kinds(g, text, (uint32_t)n, kind, t->scheme == SPM, html);
    rc = qn_vocab_init(&t->vocab, t->scheme == BYTE_BPE ? QN_SPELL_BYTES : QN_SPELL_SPACES, text, (uint32_t)n, kind, err);
    if (rc < 0) return rc;
    t->ends = calloc(n, 1);
    t->may = calloc(n, 1);
    t->guarded = calloc(n, 1);
    if (!t->ends || !t->may || !t->guarded) return qn_fail(err, QN_E_NOMEM, "vocabulary: no memory");
    t->bos = special_id(g, BOS, t->vocab.n, t->scheme == SPM);
    t->eos = special_id(g, EOS, t->vocab.n, t->scheme == SPM);
    int64_t unk = special_id(g, UNK, t->vocab.n, t->scheme == SPM);
    set_ends(t, g);
    t->vocab.unk = unk >= 0 && !t->ends[unk] && unk != t->bos ? (uint32_t)unk : QN_NO_ID; /* text must not end a turn */
    set_rights(t, g, html);
    rc = qn_vocab_index(&t->vocab, t->may, err);
    if (rc == 0) rc = qn_specials_init(&t->specials, &t->vocab, t->guarded, t->scheme != BYTE_BPE, err);
    if (rc == 0 && t->scheme != BYTE_BPE) rc = qn_cuts_init(&t->cuts, &t->vocab, t->may, err);
    return rc;
}

int qn_tokenizer_open(struct qn_tokenizer **out, const struct qn_gguf *g, struct qn_err *err) {
    struct qn_tokenizer *t = calloc(1, sizeof *t);
    int rc = t ? 0 : qn_fail(err, QN_E_NOMEM, "tokenizer: no memory");
    if (rc == 0) rc = read_scheme(t, g, err);
    if (rc == 0) rc = open_vocab(t, g, err);
    if (rc == 0) read_flags(t, g);
    if (rc == 0) rc = t->scheme == SPM ? open_spm(t, g, err) : open_bpe(t, g, err);
    if (rc < 0) qn_tokenizer_close(t);
    else *out = t;
    return rc;
}

void qn_tokenizer_close(struct qn_tokenizer *t) {
    if (!t) return;
    qn_bpe_done(&t->bpe);
    qn_spm_done(&t->spm);
    qn_cuts_done(&t->cuts);
    qn_specials_done(&t->specials);
    qn_vocab_done(&t->vocab);
    free(t->ends);
    free(t->may);
    free(t->guarded);
    free(t);
}

struct job { /* one call of encode */
    const struct qn_tokenizer *t;
    struct qn_merge merge;
    struct qn_ids *out;
    size_t ids_max;
    char *buf; /* a part in the model's form */
    size_t cap;
};

static int on_word(void *ctx, const char *p, size_t n) {
    struct job *j = ctx;
    return qn_bpe_word(&j->t->bpe, &j->merge, p, n, j->ids_max, j->out);
}

static int byte_bpe_part(struct job *j, const char *p, size_t n) {
    char *own = NULL;
    if (j->t->pre->nfc && !qn_uni_is_nfc(p, n)) {
        int rc = qn_uni_nfc(p, n, &own, &n);
        if (rc < 0) return rc;
        p = own;
    }
    int rc = qn_pretok_split(j->t->pre, p, n, on_word, j);
    free(own);
    return rc;
}

/* The part with its dummy space in front and U+2581 as spaces, cut where no token reaches over. */
static int spaced_part(struct job *j, const char *p, size_t n, int prefix) {
    const struct qn_tokenizer *t = j->t;
    if (j->cap < n + 1) {
        free(j->buf);
        j->cap = n + n / 4 + 64;
        j->buf = malloc(j->cap);
        if (!j->buf) {
            j->cap = 0;
            return QN_E_NOMEM;
        }
    }
    size_t k = 0;
    int unknown = 0;
    if (prefix) j->buf[k++] = ' ';
    k += qn_vocab_raw(QN_SPELL_SPACES, (struct qn_str){p, n}, j->buf + k);
    for (size_t i = 0, len; i < k; i += len) {
        len = qn_cuts_word(&t->cuts, j->buf + i, k - i);
        int rc = t->scheme == SPM ? qn_spm_word(&t->spm, &j->merge, j->buf + i, len, &unknown, j->ids_max, j->out)
                                  : qn_bpe_word(&t->bpe, &j->merge, j->buf + i, len, j->ids_max, j->out);
        if (rc < 0) return rc;
    }
    return 0;
}

/* Ordinary text between special tokens. */
static int encode_part(struct job *j, const char *p, size_t n, int prefix) {
    if (n == 0) return 0;
    return j->t->scheme == BYTE_BPE ? byte_bpe_part(j, p, n) : spaced_part(j, p, n, prefix);
}

/* End of the trusted bytes that go on without a gap from `at`, or `at` when it is not trusted. *r moves on. */
static size_t trusted_end(const struct qn_text *x, size_t at, size_t *r) {
    while (*r < x->n_trusted && x->trusted[*r].to <= at) ++*r;
    if (*r == x->n_trusted || x->trusted[*r].from > at) return at;
    size_t end = x->trusted[*r].to, k = *r + 1;
    for (; k < x->n_trusted && x->trusted[k].from <= end; k++)
        if (x->trusted[k].to > end) end = x->trusted[k].to;
    return end;
}

static int encode_text(struct job *j, const struct qn_text *x) {
    const struct qn_tokenizer *t = j->t;
    size_t from = 0, at = 0, r = 0, end = 0; /* [from, at) waits; bytes of [at, end) are trusted */
    int rc = 0, prefix = t->space_prefix;
    while (rc == 0 && (at += qn_specials_next(&t->specials, x->p + at, x->n - at)) < x->n) {
        size_t len = 1;
        if (end <= at) end = trusted_end(x, at, &r);
        const struct qn_special_entry *e = qn_specials_match(&t->specials, x->p + at, x->n - at, end - at, &len);
        if (!e) {
            at++;
            continue;
        }
        rc = encode_part(j, x->p + from, at - from, prefix);
        if (rc == 0) rc = qn_ids_push(j->out, j->ids_max, e->id);
        at += len;
        /* Phi-3's <unk>, <s> and <|endoftext|> do not eat what follows. */
        if (t->eats_space && e->guarded && e->id != t->vocab.unk && (int64_t)e->id != t->bos &&
            !is_text(t->vocab.text[e->id], "<|endoftext|>"))
            while (at < x->n && strchr(" \t\n\v\f\r", x->p[at]) && x->p[at]) at++;
        from = at;
        prefix = t->space_prefix;
    }
    return rc < 0 ? rc : encode_part(j, x->p + from, x->n - from, prefix);
}

int qn_tokenizer_encode(const struct qn_tokenizer *t, const struct qn_text *text, unsigned flags, size_t ids_max,
                        struct qn_ids *out, struct qn_err *err) {
    struct job j = {.t = t, .out = out, .ids_max = ids_max};
    int rc = text->n > TEXT_MAX ? QN_E_LIMIT : 0;
    /* No token is longer than piece_max, so much text needs more than ids_max of them (NFC may shorten it threefold). */
    if (rc == 0 && ids_max && text->n / 3 / (t->vocab.piece_max + 1) > ids_max) rc = QN_E_LIMIT;
    if (rc == 0 && (flags & QN_TOK_ADD_SPECIAL) && t->adds_bos) rc = qn_ids_push(out, ids_max, (uint32_t)t->bos);
    if (rc == 0) rc = encode_text(&j, text);
    if (rc == 0 && (flags & QN_TOK_ADD_SPECIAL) && t->adds_eos) rc = qn_ids_push(out, ids_max, (uint32_t)t->eos);
    qn_merge_done(&j.merge);
    free(j.buf);
    if (rc == QN_E_LIMIT)
        return qn_fail(err, rc, "text of %zu bytes: more than %zu tokens", text->n, ids_max ? ids_max : TEXT_MAX);
    if (rc == QN_E_DATA) return qn_fail(err, rc, "text holds a character that this vocabulary has no token for");
    if (rc < 0) return qn_fail(err, rc, "tokenizing %zu bytes: no memory", text->n);
    return 0;
}

uint32_t qn_tokenizer_n_vocab(const struct qn_tokenizer *t) { return t->vocab.n; }

const char *qn_tokenizer_piece(const struct qn_tokenizer *t, uint32_t id, size_t *n) {
    if (id >= t->vocab.n) { /* a promise of the caller, but one that costs nothing to check */
        *n = 0;
        return "";
    }
    *n = t->vocab.at[id + 1] - t->vocab.at[id];
    return t->vocab.bytes + t->vocab.at[id];
}

enum qn_token_kind qn_tokenizer_kind(const struct qn_tokenizer *t, uint32_t id) {
    return id < t->vocab.n ? (enum qn_token_kind)t->vocab.kind[id] : QN_TOKEN_UNUSED;
}
size_t qn_tokenizer_piece_max(const struct qn_tokenizer *t) { return t->vocab.piece_max; }
int qn_tokenizer_strips_space(const struct qn_tokenizer *t) { return t->space_prefix; }
int64_t qn_tokenizer_bos(const struct qn_tokenizer *t) { return t->bos; }
int64_t qn_tokenizer_eos(const struct qn_tokenizer *t) { return t->eos; }
int qn_tokenizer_ends(const struct qn_tokenizer *t, uint32_t id) { return id < t->vocab.n && t->ends[id]; }
int qn_tokenizer_guarded(const struct qn_tokenizer *t, uint32_t id) { return t->guarded[id]; }
int qn_tokenizer_adds_bos(const struct qn_tokenizer *t) { return t->adds_bos; }
int qn_tokenizer_adds_eos(const struct qn_tokenizer *t) { return t->adds_eos; }

int64_t qn_tokenizer_find(const struct qn_tokenizer *t, const char *s, size_t n) {
    const struct qn_special_entry *e = qn_specials_find(&t->specials, s, n);
    return e ? (int64_t)e->id : -1;
}

static int note_word(void *ctx, const char *p, size_t n) {
    (void)n;
    *(const char **)ctx = p;
    return 0;
}

size_t qn_tokenizer_settled(const struct qn_tokenizer *t, const char *p, size_t n) {
    const char *last = p;
    if (t->scheme != BYTE_BPE || n == 0) return 0; /* (a mark that composes reaches back into the last word only) */
    qn_pretok_split(t->pre, p, n, note_word, &last);
    return (size_t)(last - p);
}
