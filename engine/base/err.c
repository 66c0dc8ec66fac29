/* The reason is cut at a character border so that it can be put into JSON as it is. */
#include "engine/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int qn_fail(struct qn_err *err, int code, const char *fmt, ...) {
    if (!err || err->code) return code;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n < 0) err->text[0] = 0;
    if (n >= (int)sizeof err->text) {
        size_t end = sizeof err->text - 1;
        while (end > 0 && ((unsigned char)err->text[end - 1] & 0xC0) == 0x80) end--;
        if (end > 0 && (unsigned char)err->text[end - 1] >= 0xC0) end--;
        err->text[end] = 0;
    }
    err->code = code;
    return code;
}

const char *qn_err_name(int code) {
    static const char *const names[] = {
        "OK", "NOMEM", "IO", "DATA", "UNSUPPORTED", "RANGE", "FULL", "TOO_LONG", "CLOSED", "LIMIT",
        "NOT_FOUND", "RAISED", "CANCELLED", "DEADLINE", "INTERNAL", "AGAIN", "DEVICE",
    };
    unsigned i = (unsigned)-code;
    return code <= 0 && i < sizeof names / sizeof *names ? names[i] : "?";
}
