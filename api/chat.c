/* POST /v1/chat/completions: messages to one prompt; the shape of chat answers and chunks. */
#include <stdlib.h>
#include <string.h>

#include "api/beam.h"
#include "api/gen.h"
#include "api/json_out.h"
#include "api/select.h"

static void whole(const struct qn_choice *c, const struct qn_part *p, struct qn_buf *out) {
    (void)p;
    qn_buf_puts(out, ",\"message\":{\"role\":\"assistant\",");
    if (c->answer) {
        qn_answer_message(c->answer, out);
    } else {
        qn_buf_puts(out, "\"content\":");
        qn_json_string(out, c->text.p ? c->text.p : "", c->text.n);
    }
    qn_buf_puts(out, ",\"refusal\":null,\"annotations\":[]}");
}

const struct qn_shape qn_shape_chat = {
    .chat = 1,
    .id_prefix = "chatcmpl-",
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .prompt_member = "messages",
    .text_open = ",\"delta\":{\"content\":\"",
    .text_close = "\"}",
    .first = ",\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}",
    .last = ",\"delta\":{}",
    .max_default = QN_ABSENT,
    .whole = whole,
};

/* prediction{type content, content}: what the answer is expected to resemble, to guess ahead by. */
static int read_prediction(struct qn_exchange *x) {
    const json_t *p = x->params.prediction, *c;
    struct qn_refusal *r = &x->refusal;
    struct qn_buf text;
    if (!p) return 0;
    if (!json_is_object(p)) return qn_refuse_type(r, "prediction", "an object", p);
    c = json_object_get(p, "content");
    if (!json_is_string(json_object_get(p, "type")) || strcmp(json_string_value(json_object_get(p, "type")), "content"))
        return qn_refuse(r, 400, "invalid_value", "prediction.type",
                         "Invalid value for 'prediction.type': the supported value is 'content'.");
    if (x->params.n != 1) return qn_refuse(r, 400, "invalid_value", "prediction", "'prediction' needs 'n' to be 1.");
    if (json_is_string(c)) return qn_plain_ids(x->api, json_string_value(c), json_string_length(c), 0, 0, &x->gen->prediction, r);
    if (!json_is_array(c))
        return c ? qn_refuse_type(r, "prediction.content", "a string or an array of content parts", c)
                 : qn_refuse(r, 400, "missing_required_parameter", "prediction.content",
                             "Missing required parameter: 'prediction.content'.");
    int rc = 0;
    qn_buf_init(&text, x->out.max);
    for (size_t i = 0; rc == 0 && i < json_array_size(c); i++) {
        const json_t *t = json_object_get(json_array_get(c, i), "text");
        if (!json_is_string(t))
            rc = qn_refuse(r, 400, "invalid_type", "prediction.content",
                           "Invalid type for 'prediction.content': expected text parts.");
        else
            qn_buf_put(&text, json_string_value(t), json_string_length(t));
    }
    if (rc == 0)
        rc = text.failed ? qn_refuse_code(r, text.failed, NULL)
                         : qn_plain_ids(x->api, text.p ? text.p : "", text.n, 0, 0, &x->gen->prediction, r);
    qn_buf_done(&text);
    return rc;
}

int qn_chat_prepare(struct qn_exchange *x) {
    struct qn_rendered text = {0};
    int rc = qn_exchange_parse(x, QN_ON_CHAT);
    if (rc == 0) rc = qn_gen_new(x, &qn_shape_chat, 1);
    if (rc == 0) rc = qn_messages_prompt(x, &text, &x->gen->parts[0].ids);
    if (rc < 0) return rc;
    rc = qn_thinking_prompt(x, &text);
    qn_rendered_done(&text);
    if (rc == 0) rc = read_prediction(x);
    if (rc == 0) rc = qn_gen_fit(x);
    if (rc == 0) rc = qn_constrain(x, &x->gen->constraint);
    if (rc == 0) rc = qn_select_check(x);
    for (int i = 0; rc == 0 && i < x->gen->n_choices; i++)
        if ((rc = qn_answer_open(&x->gen->choices[i].answer, x)) < 0) qn_refuse_code(&x->refusal, rc, NULL);
    return rc < 0 ? rc : qn_beam_check(x);
}
