/* The tools of a request, checked: tools, tool_choice, parallel_tool_calls, and the deprecated functions and function_call.
 *
 * Custom tools take text, not JSON. To a template and a model they are functions with one parameter, `input`; answer.c takes the
 * text out again. Tools of types that run elsewhere (web_search…) are left out and named in Quern-Ignored. Any thread. */
#ifndef QN_TOOLS_H
#define QN_TOOLS_H

#include <jansson.h>

#include "api/calls.h"

struct qn_exchange;

enum { QN_TOOLS_MAX = 128 };

struct qn_tools {
    json_t *list;    /* [{type function, function{name, description, parameters, strict}}], as templates take them; NULL: none */
    json_t *allowed; /* those of the list that may be called */
    json_t *custom;  /* {name: what the request says of that custom tool} */
    enum qn_tool_mode mode;
    int parallel;
    int legacy;      /* functions: the answer is a function_call */
};

/* Of x->params, into x->tools. QN_E_RANGE with x->refusal. */
int qn_tools_read(struct qn_exchange *x);
void qn_tools_done(struct qn_tools *t);
int qn_tools_called(const struct qn_tools *t); /* 1: the answer may hold calls */

#endif
