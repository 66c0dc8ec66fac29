/* From the messages of a chat request to the prompt's text, by the model's own chat template.
 *
 * Knows what the peers' servers do around the template: text parts are flattened for templates that expect a string,
 * arguments of tool calls are parsed for templates that expect a mapping, `developer` becomes `system` where the template
 * does not know it, and a model without a template gets one that its vocabulary suggests (ChatML, Gemma turns, Llama 3
 * headers, else plain "role: content" lines). No token ids. Thread: const after open, renders anywhere. */
#ifndef QN_TEMPLATE_H
#define QN_TEMPLATE_H

#include <jansson.h>
#include <stdint.h>

#include "api/jinja.h"
#include "engine/base/err.h"
#include "engine/tokenizer.h"

struct qn_template;

struct qn_template_input {
    const json_t *messages;     /* array of objects, already checked by the endpoint */
    const json_t *tools;        /* array, or NULL */
    const json_t *kwargs;       /* chat_template_kwargs: object, or NULL */
    const json_t *documents;    /* array of objects, or NULL */
    int add_generation_prompt;
    int continue_final_message; /* the prompt ends with the last message's content; not with add_generation_prompt */
    int64_t now_s;              /* UTC, for strftime_now */
};

/* `text` NULL: the default that fits the vocabulary. `tok` (may be NULL: no bos/eos) is read during the call only.
 * QN_E_DATA (malformed template, with its line), QN_E_UNSUPPORTED, QN_E_NOMEM. */
int qn_template_open(struct qn_template **out, const char *text, size_t n, const struct qn_tokenizer *tok,
                     struct qn_err *err);
/* The same with the spellings themselves; NULL: none. */
int qn_template_open_plain(struct qn_template **out, const char *text, size_t n, const char *bos, const char *eos,
                           struct qn_err *err);
void qn_template_close(struct qn_template *t);

/* QN_E_RANGE: something in the input (err names it: "chat_template_kwargs.messages …"); QN_E_RAISED: the template
 * refused these messages; QN_E_DATA: a type error while it ran; QN_E_UNSUPPORTED: it reached something we do not have;
 * QN_E_LIMIT. All are the request's (400). Takes less than 256 KiB of stack. The prompt
 * holds BOS where the template writes it, so it is to be tokenised without QN_TOK_ADD_SPECIAL when
 * qn_template_writes_bos. `out` is filled on success only; free it with qn_rendered_done. */
int qn_template_render(const struct qn_template *t, const struct qn_template_input *in, struct qn_rendered *out,
                       struct qn_err *err);

/* 1 when the template itself begins the text with BOS (as far as its first bytes tell). */
int qn_template_writes_bos(const struct qn_template *t);
/* 1 when the template reads `name` ("tools", "enable_thinking", "reasoning_effort"…). */
int qn_template_mentions(const struct qn_template *t, const char *name);
/* The template's text (for /props and the like); never NULL. */
const char *qn_template_text(const struct qn_template *t);

#endif
