/* Refusals: the only map from QN_E_* to status, type and code, and the OpenAI error object.
 *
 * A refusal is filled once (the first failure wins) and written once. Its texts are ours; of a request it repeats at most
 * 64 bytes, on whole characters and without control characters (qn_quote). Any thread. */
#ifndef QN_API_ERROR_H
#define QN_API_ERROR_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/buf.h"
#include "engine/base/err.h"

enum { QN_QUOTE_MAX = 64, QN_PARAM_MAX = 160, QN_MESSAGE_MAX = 512 };

struct qn_refusal {
    int status;               /* 0: nothing was refused */
    const char *code;         /* OpenAI's string; static */
    int64_t retry_ms;         /* 0: no Retry-After */
    char param[QN_PARAM_MAX]; /* path of the member; "": null */
    char message[QN_MESSAGE_MAX];
};

/* Fills r unless it is filled. Returns QN_E_RANGE. param may be NULL. */
__attribute__((format(printf, 5, 6))) int qn_refuse(struct qn_refusal *r, int status, const char *code, const char *param,
                                                    const char *fmt, ...);

/* What the engine or a lower layer said. `err` may be NULL or empty; its text is shown where it speaks of the request
 * (400), never for failures of ours. Returns `code`. */
int qn_refuse_code(struct qn_refusal *r, int code, const struct qn_err *err);

/* type of the error object: "invalid_request_error" for 400… */
const char *qn_error_type(int status);

/* Copies at most 64 bytes of s for a message: whole characters, control characters as '?'. Returns out. */
const char *qn_quote(char out[QN_QUOTE_MAX + 4], const char *s, size_t n);

#endif
