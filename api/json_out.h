/* JSON by hand for what is sent often: escaping and a few scalars. No objects, no state. Any thread. */
#ifndef QN_JSON_OUT_H
#define QN_JSON_OUT_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/buf.h"

enum { QN_ESCAPE_MAX = 6 }; /* one byte becomes at most \u00XX */

/* Writes s escaped, without quotes, at `to` (room for QN_ESCAPE_MAX * n); returns the end. s is valid UTF-8. */
char *qn_json_escape(char *to, const char *s, size_t n);
/* "s" with quotes; invalid UTF-8 leaves as U+FFFD. */
void qn_json_string(struct qn_buf *out, const char *s, size_t n);
/* A float so that it reads back as the same float; never NaN or infinite (those become the floor). */
void qn_json_float(struct qn_buf *out, float v);
/* Decimal digits at `to` (room for 20); returns the end. */
char *qn_json_u64(char *to, uint64_t v);

#endif
