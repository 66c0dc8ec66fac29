/* What an answer says, in a form that can be compared: its final number, its JSON value, or its text. Pure; any thread. */
#ifndef QN_CANON_H
#define QN_CANON_H

#include "api/request.h"
#include "engine/base/buf.h"

/* Appends the canonical form of the answer that `text` gives. 1: there is one. 0: none of this kind. QN_E_NOMEM.
 *   number  the content of the last \boxed{}, else the last number of the text: no $, %, thousands commas, leading or trailing zeros
 *   json    the text, or its last fenced block, as a JSON value with sorted keys
 *   text    without blanks around it
 *   auto    json if it is an object or an array, else a \boxed{} text or number, else number, else text */
int qn_canon_answer(enum qn_answer_kind kind, const char *text, size_t n, struct qn_buf *out);

#endif
