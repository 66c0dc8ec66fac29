/* Walks a request object by a table of its members: name, kind, range, default, what we do with it.
 *
 * Three things can happen to a known member: it is HONOURED (its value is checked and stored), it is known but not built
 * (DEFAULT_ONLY: refused unless its value is the default or means off), or it has NO_EFFECT on an answer and is accepted.
 * A member that is in no row, or one that is recognised but not acted on (IGNORED), is named in the list that becomes
 * the header Quern-Ignored. null always means absent. No meaning lives here. Any thread. */
#ifndef QN_FIELDS_H
#define QN_FIELDS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "api/error.h"

enum qn_field_kind { QN_F_BOOL, QN_F_INT, QN_F_NUM, QN_F_STR, QN_F_ANY };
enum qn_field_use { QN_F_HONOURED, QN_F_DEFAULT_ONLY, QN_F_NO_EFFECT, QN_F_IGNORED };

struct qn_chars {
    const char *p;
    size_t n;
}; /* borrowed from the parsed body; p NULL: absent */

struct qn_field {
    const char *name;
    enum qn_field_kind kind;
    enum qn_field_use use;
    unsigned on;   /* endpoints that know it (bits) */
    double lo, hi; /* INT, NUM: both inclusive unless lo_open; STR: most bytes is hi (0: no bound) */
    int lo_open;
    size_t at;          /* HONOURED: where in the struct: int, int64_t, double, struct qn_chars, const json_t * by kind */
    const char *passes; /* the default as JSON; DEFAULT_ONLY: what passes, alternatives between `|` */
    const char *note;   /* for the documentation */
};

struct qn_walk {
    const struct qn_field *table;
    size_t n;
    unsigned on;            /* the endpoint's bit */
    const char *path;       /* prefix of paths in messages: "" or "stream_options." */
    int strict;             /* 1: an unknown member is a 400 unknown_parameter */
    struct qn_buf *ignored; /* names of members that were passed over, separated by ", " */
    struct qn_refusal *r;
};

/* Stores into `into` what the table says. Returns 0, or QN_E_RANGE with r filled by the first failure. */
int qn_fields_walk(const struct qn_walk *w, const json_t *obj, void *into);

/* One scalar by kind and range, for the values inside lists. param: its path. */
int qn_field_number(const json_t *v, const char *param, double lo, double hi, int integer, double *out, struct qn_refusal *r);
/* "a string", "an object"…: for messages about types. */
const char *qn_json_kind(const json_t *v);
/* invalid_type in OpenAI's words. */
int qn_refuse_type(struct qn_refusal *r, const char *param, const char *wanted, const json_t *got);
/* Adds a name to a list of ignored members: cleaned and bounded. */
void qn_ignored_add(struct qn_buf *list, const char *name);
/* The table as Markdown rows. */
void qn_fields_markdown(struct qn_buf *out, const struct qn_field *table, size_t n, unsigned on);

#endif
