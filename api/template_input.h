/* A request's messages made to fit a template (internal to api/template*.c). */
#ifndef QN_TEMPLATE_INPUT_H
#define QN_TEMPLATE_INPUT_H

#include <jansson.h>

#include "api/template.h"

struct qn_template {
    struct qn_jinja *j;
    char *text;
    json_t *trusted;         /* bos_token, eos_token */
    int takes_lists;         /* content parts as they are */
    int takes_strings;       /* content as a string; else it is wrapped into one text part */
    int text_arguments;      /* a tool call's arguments as JSON text, not as a mapping */
    int knows_developer;
    int empty_for_null;      /* "" for a content of null or none */
    int writes_bos;
};

struct qn_template_continue {
    char tag[48];            /* put behind the final message's content; ends with a blank */
    char *text;              /* owned: that content without blanks around it */
    size_t n;
};

/* The template's variables as a new object (json_decref when done). Members of the request are shared by reference while
 * it lives; none of them is changed. cut->text is NULL unless continue_final_message. QN_E_RANGE names the member. */
int qn_template_vars(const struct qn_template *t, const struct qn_template_input *in, json_t **vars,
                     struct qn_template_continue *cut, struct qn_err *err);
/* Cuts the text behind the final message's content. */
int qn_template_cut(const struct qn_template_continue *cut, struct qn_rendered *r, struct qn_err *err);

#endif
