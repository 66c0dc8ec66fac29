/* Values as text: str(), repr(), JSON, HTML escapes, % and str.format (internal to api/jinja*.c).
 *
 * Taint: a string keeps its marks; a container's text is trusted only when nothing in it came from the request. */
#ifndef QN_JINJA_SHOW_H
#define QN_JINJA_SHOW_H

#include "api/jinja_calls.h"
#include "api/jinja_val.h"

void qn_jv_show(struct qn_jx *x, struct qn_jv v, struct qn_jsb *b);  /* str(v) */
void qn_jv_repr(struct qn_jx *x, struct qn_jv v, struct qn_jsb *b);
struct qn_jstr *qn_jv_to_str(struct qn_jx *x, struct qn_jv v);       /* soft_str: a string stays itself */
struct qn_jv qn_jv_escape(struct qn_jx *x, struct qn_jv v);          /* markupsafe.escape */
int qn_jv_tainted(struct qn_jx *x, struct qn_jv v);
size_t qn_jv_float_text(double f, char out[40]);                     /* repr(f) */

struct qn_jjson { const char *indent, *item, *key; size_t n_indent, n_item, n_key; int pretty, sort, ascii; };
struct qn_jv qn_jv_tojson(struct qn_jx *x, struct qn_jv v, const struct qn_jjson *how);

struct qn_jv qn_jv_percent(struct qn_jx *x, struct qn_jstr *fmt, struct qn_jv args);
struct qn_jv qn_jv_format(struct qn_jx *x, struct qn_jstr *fmt, const struct qn_jargv *a);

#endif
