/* An interpreter for the Jinja subset that chat templates are written in, as transformers runs them (trim_blocks,
 * lstrip_blocks, loop controls, tojson that keeps non-ASCII, raise_exception, strftime_now, generation blocks).
 *
 * No host objects, no I/O, pure values only; fuel, depth and output are bounded. Every string knows which of its bytes
 * the template wrote itself (TRUSTED) and which came from the request, through every filter and operator; where a
 * filter cannot tell, its output is untrusted. Thread: a compiled template is const and may be rendered anywhere. */
#ifndef QN_JINJA_H
#define QN_JINJA_H

#include <jansson.h>

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/tokenizer.h"

struct qn_jinja;

struct qn_jinja_limits {    /* 0: the default */
    long steps;             /* 1,000,000 */
    int depth;              /* 64 */
    size_t out_bytes;       /* 4 MiB */
    size_t memory_bytes;    /* 64 MiB of values */
};

/* Compiles. QN_E_DATA with line and reason; QN_E_UNSUPPORTED names the construct. */
int qn_jinja_compile(struct qn_jinja **out, const char *text, size_t n, struct qn_err *err);
void qn_jinja_free(struct qn_jinja *t);

struct qn_rendered {
    struct qn_buf text;
    struct qn_range *trusted; /* owned, n_trusted */
    size_t n_trusted;
};

/* Renders with the members of `vars` (an object) as globals; strings in `vars` are untrusted, those of `trusted_vars`
 * (bos_token, eos_token…; may be NULL) trusted. now_s: what strftime_now sees (UTC seconds).
 * QN_E_RAISED: the template raised, err has its message (a 400). QN_E_LIMIT, QN_E_DATA (a type error: err says which). */
int qn_jinja_render(const struct qn_jinja *t, const json_t *vars, const json_t *trusted_vars, int64_t now_s,
                    const struct qn_jinja_limits *lim, struct qn_rendered *out, struct qn_err *err);
void qn_rendered_done(struct qn_rendered *r);

/* 1 when the template reads the global `name` anywhere ("tools", "enable_thinking"…). */
int qn_jinja_mentions(const struct qn_jinja *t, const char *name);

#endif
