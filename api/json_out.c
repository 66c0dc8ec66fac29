/* Most text needs no escape at all, so runs of plain bytes are found by a table and copied whole. */
#include "api/json_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/utf8.h"

/* 0: plain; 'u': \u00XX; else the letter after the backslash. */
static const unsigned char escape[256] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',         'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', ['"'] = '"', ['\\'] = '\\',
};

char *qn_json_escape(char *to, const char *s, size_t n) {
    static const char hex[] = "0123456789abcdef";
    size_t i = 0;
    while (i < n) {
        size_t from = i;
        while (i < n && !escape[(unsigned char)s[i]]) i++;
        memcpy(to, s + from, i - from);
        to += i - from;
        if (i == n) break;
        unsigned char c = (unsigned char)s[i++];
        *to++ = '\\';
        *to++ = (char)escape[c];
        if (escape[c] != 'u') continue;
        *to++ = '0';
        *to++ = '0';
        *to++ = hex[c >> 4];
        *to++ = hex[c & 15];
    }
    return to;
}

static void put_escaped(struct qn_buf *out, const char *s, size_t n) {
    char *to = qn_buf_reserve(out, n * QN_ESCAPE_MAX);
    if (!to) return;
    out->n = (size_t)(qn_json_escape(to, s, n) - out->p);
    out->p[out->n] = 0;
}

enum { PART = 4096 };

/* In parts, so that the room asked for is what is used and not six times a long text. */
void qn_json_string(struct qn_buf *out, const char *s, size_t n) {
    int valid = qn_utf8_valid(s, n);
    qn_buf_putc(out, '"');
    while (n > 0) {
        size_t part = n > PART ? PART : n;
        if (!valid && part < n) {
            size_t whole = qn_utf8_whole(s, part);
            if (whole) part = whole;
        }
        if (valid) {
            put_escaped(out, s, part);
        } else {
            char mended[3 * PART];
            put_escaped(out, mended, qn_utf8_mend(s, part, mended));
        }
        s += part;
        n -= part;
    }
    qn_buf_putc(out, '"');
}

void qn_json_float(struct qn_buf *out, float v) {
    if (!(v > -9999.0f)) v = -9999.0f; /* NaN too */
    if (v > 3.0e38f) v = 3.0e38f;
    char text[32];
    snprintf(text, sizeof text, "%.9g", (double)v);
    qn_buf_puts(out, text);
    if (!strpbrk(text, ".en")) qn_buf_puts(out, ".0");
}

char *qn_json_u64(char *to, uint64_t v) {
    char digits[20];
    int n = 0;
    do digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n) *to++ = digits[--n];
    return to;
}
