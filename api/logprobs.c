/* A token that is no text by itself (a part of a character) shows U+FFFD in chat, where `bytes` tells the rest, and OpenAI's
 * "bytes:\xe2\x80" in completions, where strings are also keys and must differ. */
#include "api/logprobs.h"

#include <stdio.h>
#include <string.h>

#include "api/json_out.h"
#include "engine/base/utf8.h"

static const size_t LP_MAX = 256u << 20;

void qn_lp_init(struct qn_lp *l) {
    qn_buf_init(&l->tokens, LP_MAX);
    qn_buf_init(&l->values, LP_MAX);
    qn_buf_init(&l->tops, LP_MAX);
    qn_buf_init(&l->offsets, LP_MAX);
    l->n = 0;
}

void qn_lp_done(struct qn_lp *l) {
    qn_buf_done(&l->tokens);
    qn_buf_done(&l->values);
    qn_buf_done(&l->tops);
    qn_buf_done(&l->offsets);
}

void qn_lp_reset(struct qn_lp *l) {
    qn_buf_reset(&l->tokens);
    qn_buf_reset(&l->values);
    qn_buf_reset(&l->tops);
    qn_buf_reset(&l->offsets);
    l->n = 0;
}

int qn_lp_failed(const struct qn_lp *l) {
    return l->tokens.failed || l->values.failed || l->tops.failed || l->offsets.failed;
}

size_t qn_lp_chars(const struct qn_tokenizer *tok, uint32_t id, int hide_special) {
    size_t n, chars = 0;
    const char *p = qn_tokenizer_piece(tok, id, &n);
    enum qn_token_kind k = qn_tokenizer_kind(tok, id);
    if (hide_special && (k == QN_TOKEN_CONTROL || k == QN_TOKEN_UNKNOWN || k == QN_TOKEN_UNUSED)) return 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)p[i] & 0xC0) != 0x80;
    return chars;
}

/* token, logprob and bytes of one chat entry, the object left open. */
static void chat_entry(struct qn_buf *out, const struct qn_tokenizer *tok, int as_id, uint32_t id, float logprob) {
    size_t n;
    const char *p = qn_tokenizer_piece(tok, id, &n);
    qn_buf_puts(out, "{\"token\":");
    if (as_id) qn_buf_printf(out, "\"token_id:%u\"", id);
    else qn_json_string(out, p, n);
    qn_buf_puts(out, ",\"logprob\":");
    qn_json_float(out, logprob);
    qn_buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++) qn_buf_printf(out, i ? ",%d" : "%d", (unsigned char)p[i]);
    qn_buf_putc(out, ']');
}

static void plain_token(struct qn_buf *out, const struct qn_tokenizer *tok, int as_id, uint32_t id) {
    size_t n;
    const char *p = qn_tokenizer_piece(tok, id, &n);
    if (as_id) {
        qn_buf_printf(out, "\"token_id:%u\"", id);
        return;
    }
    if (qn_utf8_valid(p, n)) {
        qn_json_string(out, p, n);
        return;
    }
    qn_buf_puts(out, "\"bytes:");
    for (size_t i = 0; i < n; i++) qn_buf_printf(out, "\\\\x%02x", (unsigned char)p[i]);
    qn_buf_putc(out, '"');
}

static void add_chat(struct qn_lp *l, const struct qn_tokenizer *tok, uint32_t id, const struct qn_logprobs *lp) {
    struct qn_buf *out = &l->tokens;
    chat_entry(out, tok, l->as_ids, id, lp->logprob);
    qn_buf_puts(out, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < lp->n_top; i++) {
        if (i) qn_buf_putc(out, ',');
        chat_entry(out, tok, l->as_ids, lp->top[i].id, lp->top[i].logprob);
        qn_buf_putc(out, '}');
    }
    qn_buf_puts(out, "]}");
}

/* The most likely tokens, and the chosen one when it is not among them. */
static void plain_tops(struct qn_buf *out, const struct qn_tokenizer *tok, int as_id, uint32_t id, const struct qn_logprobs *lp) {
    int seen = 0;
    qn_buf_putc(out, '{');
    for (uint32_t i = 0; i < lp->n_top; i++) {
        if (i) qn_buf_putc(out, ',');
        plain_token(out, tok, as_id, lp->top[i].id);
        qn_buf_putc(out, ':');
        qn_json_float(out, lp->top[i].logprob);
        seen |= lp->top[i].id == id;
    }
    if (!seen) {
        if (lp->n_top) qn_buf_putc(out, ',');
        plain_token(out, tok, as_id, id);
        qn_buf_putc(out, ':');
        qn_json_float(out, lp->logprob);
    }
    qn_buf_putc(out, '}');
}

static void add_plain(struct qn_lp *l, const struct qn_tokenizer *tok, uint32_t id, const struct qn_logprobs *lp, size_t offset) {
    plain_token(&l->tokens, tok, l->as_ids, id);
    qn_buf_printf(&l->offsets, "%zu", offset);
    if (lp->rank == UINT32_MAX) { /* a prompt's first token follows nothing */
        qn_buf_puts(&l->values, "null");
        qn_buf_puts(&l->tops, "null");
    } else {
        qn_json_float(&l->values, lp->logprob);
        plain_tops(&l->tops, tok, l->as_ids, id, lp);
    }
}

void qn_lp_add(struct qn_lp *l, const struct qn_tokenizer *tok, int chat, uint32_t id, const struct qn_logprobs *lp,
               size_t offset) {
    if (l->n++) {
        qn_buf_putc(&l->tokens, ',');
        if (!chat) {
            qn_buf_putc(&l->values, ',');
            qn_buf_putc(&l->tops, ',');
            qn_buf_putc(&l->offsets, ',');
        }
    }
    if (chat)
        add_chat(l, tok, id, lp);
    else
        add_plain(l, tok, id, lp, offset);
}

static void put_list(struct qn_buf *out, const char *name, const struct qn_buf *before, const struct qn_buf *b) {
    qn_buf_puts(out, name);
    if (before && before->n) qn_buf_put(out, before->p, before->n);
    if (before && before->n && b->n) qn_buf_putc(out, ',');
    if (b->n) qn_buf_put(out, b->p, b->n);
    qn_buf_putc(out, ']');
}

void qn_lp_write(const struct qn_lp *before, const struct qn_lp *l, int chat, struct qn_buf *out) {
    if (chat) {
        put_list(out, "{\"content\":[", before ? &before->tokens : NULL, &l->tokens);
        qn_buf_puts(out, ",\"refusal\":null}");
        return;
    }
    put_list(out, "{\"text_offset\":[", before ? &before->offsets : NULL, &l->offsets);
    put_list(out, ",\"token_logprobs\":[", before ? &before->values : NULL, &l->values);
    put_list(out, ",\"tokens\":[", before ? &before->tokens : NULL, &l->tokens);
    put_list(out, ",\"top_logprobs\":[", before ? &before->tops : NULL, &l->tops);
    qn_buf_putc(out, '}');
}
