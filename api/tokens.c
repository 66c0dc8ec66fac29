/* POST /tokenize, /detokenize, /apply-template: the unions of what llama.cpp and vLLM answer, so that either one's client
 * finds its members. Counting here and serving there agree, since both go through the same functions. */
#include <stdlib.h>
#include <string.h>

#include "api/exchange.h"
#include "api/json_out.h"
#include "engine/base/utf8.h"

/* A piece as llama.cpp shows it: text, or the list of its bytes when it is no text by itself. */
static void put_piece(const struct qn_api *a, uint32_t id, int bytes, struct qn_buf *out) {
    size_t n;
    const char *p = qn_tokenizer_piece(a->tok, id, &n);
    if (!bytes || qn_utf8_valid(p, n)) {
        qn_json_string(out, p, n);
        return;
    }
    for (size_t i = 0; i < n; i++) qn_buf_printf(out, "%c%d", i ? ',' : '[', (unsigned char)p[i]);
    qn_buf_putc(out, ']');
}

static void put_ids(const struct qn_exchange *x, const struct qn_ids *ids, struct qn_buf *out) {
    qn_buf_puts(out, "{\"tokens\":[");
    for (size_t i = 0; i < ids->n; i++) {
        char digits[24], *d = digits;
        if (i) qn_buf_putc(out, ',');
        if (x->params.with_pieces) qn_buf_puts(out, "{\"id\":");
        qn_buf_put(out, digits, (size_t)(qn_json_u64(d, ids->v[i]) - digits));
        if (!x->params.with_pieces) continue;
        qn_buf_puts(out, ",\"piece\":");
        put_piece(x->api, ids->v[i], 1, out);
        qn_buf_putc(out, '}');
    }
    qn_buf_printf(out, "],\"count\":%zu,\"max_model_len\":%d,\"token_strs\":", ids->n, x->api->info->n_ctx);
    for (size_t i = 0; x->params.return_token_strs && i < ids->n; i++) {
        qn_buf_putc(out, i ? ',' : '[');
        put_piece(x->api, ids->v[i], 0, out);
    }
    qn_buf_puts(out, !x->params.return_token_strs ? "null}" : ids->n ? "]}" : "[]}");
}

int qn_tokenize_prepare(struct qn_exchange *x) {
    struct qn_params *p = &x->params;
    struct qn_ids ids = {0};
    int rc = qn_exchange_parse(x, QN_ON_TOKENIZE);
    if (rc < 0) return rc;
    if (p->messages) {
        struct qn_rendered text = {0};
        rc = qn_messages_prompt(x, &text, &ids);
        if (rc == 0) qn_rendered_done(&text);
    } else {
        const json_t *s = p->content ? p->content : p->prompt;
        const char *name = p->content ? "content" : "prompt";
        int add = p->add_special_tokens >= 0 ? p->add_special_tokens : p->content ? p->add_special : 1;
        if (!s)
            rc = qn_refuse(&x->refusal, 400, "missing_required_parameter", "prompt",
                           "Missing required parameter: 'prompt', 'content' or 'messages'.");
        else if (!json_is_string(s))
            rc = qn_refuse_type(&x->refusal, name, "a string", s);
        else
            rc = qn_plain_ids(x->api, json_string_value(s), json_string_length(s), add, p->parse_special != 0, &ids, &x->refusal);
    }
    if (rc == 0) put_ids(x, &ids, &x->out);
    free(ids.v);
    return rc;
}

int qn_detokenize_prepare(struct qn_exchange *x) {
    struct qn_ids ids = {0};
    int rc = qn_exchange_parse(x, QN_ON_DETOKENIZE);
    if (rc < 0) return rc;
    const json_t *t = x->params.tokens;
    if (!t) return qn_refuse(&x->refusal, 400, "missing_required_parameter", "tokens", "Missing required parameter: 'tokens'.");
    if (!json_is_array(t)) return qn_refuse_type(&x->refusal, "tokens", "an array of integers", t);
    rc = qn_read_ids(x->api, t, "tokens", &ids, &x->refusal);
    if (rc == 0) {
        struct qn_buf text;
        qn_buf_init(&text, x->out.max);
        qn_ids_text(x->api, ids.v, ids.n, 0, &text);
        qn_buf_puts(&x->out, "{\"content\":");
        qn_json_string(&x->out, text.p ? text.p : "", text.n);
        qn_buf_puts(&x->out, ",\"prompt\":");
        qn_json_string(&x->out, text.p ? text.p : "", text.n);
        qn_buf_putc(&x->out, '}');
        if (text.failed) x->out.failed = text.failed;
        qn_buf_done(&text);
    }
    free(ids.v);
    return rc;
}

int qn_apply_template_prepare(struct qn_exchange *x) {
    struct qn_rendered text = {0};
    int rc = qn_exchange_parse(x, QN_ON_TEMPLATE);
    if (rc == 0) rc = qn_messages_prompt(x, &text, NULL);
    if (rc < 0) return rc;
    qn_buf_puts(&x->out, "{\"prompt\":");
    qn_json_string(&x->out, text.text.p ? text.text.p : "", text.text.n);
    qn_buf_putc(&x->out, '}');
    qn_rendered_done(&text);
    return 0;
}
