/* Numbers are compared as decimal text, never as floats: 0.1 and 0.10 agree, 2^53 and 2^53 + 1 do not. A minus sign belongs to a
 * number when nothing that could be subtracted from stands before it; digits inside a word (H2O) are no number. */
#include "api/canon.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct span {
    const char *p;
    size_t n;
};

static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static int is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static struct span trim(struct span s) {
    while (s.n && is_blank(s.p[0])) s.p++, s.n--;
    while (s.n && is_blank(s.p[s.n - 1])) s.n--;
    return s;
}

/* --- numbers ------------------------------------------------------------------------------------------------------ */

static size_t digits_at(struct span s, size_t at) {
    size_t n = 0;
    while (at + n < s.n && is_digit(s.p[at + n])) n++;
    return n;
}

/* Length of the number whose digits begin at `at`: 1,234,567.89 */
static size_t number_at(struct span s, size_t at) {
    size_t i = at + digits_at(s, at);
    if (i > at && i - at <= 3)
        while (i < s.n && s.p[i] == ',' && digits_at(s, i + 1) == 3) i += 4;
    if (i < s.n && s.p[i] == '.' && digits_at(s, i + 1)) i += 1 + digits_at(s, i + 1);
    return i - at;
}

static int is_negative(struct span s, size_t at) {
    size_t sign = at;
    while (sign && s.p[sign - 1] == '$') sign--;
    if (sign >= 3 && !memcmp(s.p + sign - 3, "\xe2\x88\x92", 3)) sign -= 3; /* U+2212 */
    else if (sign && s.p[sign - 1] == '-') sign--;
    else return 0;
    while (sign && s.p[sign - 1] == ' ') sign--;
    return sign == 0 || !(is_digit(s.p[sign - 1]) || is_letter(s.p[sign - 1]) || s.p[sign - 1] == ')' || s.p[sign - 1] == '%');
}

static int last_number(struct span s, size_t *at, size_t *n) {
    int found = 0;
    for (size_t i = 0; i < s.n;) {
        int point = s.p[i] == '.' && i + 1 < s.n && is_digit(s.p[i + 1]) && !(i && is_digit(s.p[i - 1])), begins = is_digit(s.p[i]) || point;
        size_t len = begins ? number_at(s, i) : 1;
        if (begins && !(i && is_letter(s.p[i - 1]))) {
            *at = i;
            *n = len;
            found = 1;
        }
        i += len;
    }
    return found;
}

static int put_number(struct span s, struct qn_buf *out) {
    size_t at, n;
    if (!last_number(s, &at, &n)) return 0;
    struct span v = {s.p + at, n};
    size_t point = 0;
    while (point < v.n && v.p[point] != '.') point++;
    while (v.n > point && (v.p[v.n - 1] == '0' || v.p[v.n - 1] == '.')) v.n--; /* of a fraction: zeros, then its point */
    size_t begin = out->n, whole = point;
    if (is_negative(s, at)) qn_buf_putc(out, '-');
    size_t first = 0;
    while (first < whole && (v.p[first] == '0' || v.p[first] == ',')) first++;
    if (first == whole) qn_buf_putc(out, '0');
    for (size_t i = first; i < whole; i++)
        if (v.p[i] != ',') qn_buf_putc(out, v.p[i]);
    if (point < v.n) qn_buf_put(out, v.p + point, v.n - point);
    if (!out->failed && out->n - begin == 2 && !memcmp(out->p + begin, "-0", 2)) {
        out->p[begin] = '0';
        out->n--;
    }
    return 1;
}

/* --- what a text holds -------------------------------------------------------------------------------------------- */

/* The content of the last \boxed{} whose braces are balanced. */
static int boxed(struct span s, struct span *out) {
    static const char mark[] = "\\boxed{";
    for (size_t i = s.n; i-- > 0;) {
        if (s.p[i] != '\\' || s.n - i < sizeof mark - 1 || memcmp(s.p + i, mark, sizeof mark - 1)) continue;
        size_t from = i + sizeof mark - 1, depth = 1;
        for (size_t k = from; k < s.n; k++) {
            depth += s.p[k] == '{';
            depth -= s.p[k] == '}';
            if (depth) continue;
            *out = trim((struct span){s.p + from, k - from});
            return 1;
        }
    }
    return 0;
}

/* The content of the last block between lines of ```, without its language. */
static int fenced(struct span s, struct span *out) {
    size_t ends[2] = {0}, n = 0;
    for (size_t i = s.n; i >= 3 && n < 2; i--)
        if (!memcmp(s.p + i - 3, "```", 3)) {
            ends[n++] = i - 3;
            i -= 2;
        }
    if (n < 2) return 0;
    size_t from = ends[1] + 3;
    while (from < ends[0] && s.p[from] != '\n' && s.p[from] != '{' && s.p[from] != '[') from++;
    *out = trim((struct span){s.p + from, ends[0] - from});
    return 1;
}

/* Only objects and arrays, if `structured`. */
static int put_json(struct span s, int structured, struct qn_buf *out) {
    struct span inner;
    s = trim(s);
    json_t *v = json_loadb(s.p, s.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!v && fenced(s, &inner)) v = json_loadb(inner.p, inner.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!v) return 0;
    int fits = !structured || json_is_object(v) || json_is_array(v);
    char *text = fits ? json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
    json_decref(v);
    if (!text) return fits ? QN_E_NOMEM : 0;
    qn_buf_puts(out, text);
    free(text);
    return 1;
}

int qn_canon_answer(enum qn_answer_kind kind, const char *text, size_t n, struct qn_buf *out) {
    struct span s = {text, n}, inner;
    int found = 0;
    if (kind == QN_ANSWER_JSON || kind == QN_ANSWER_AUTO) found = put_json(s, kind == QN_ANSWER_AUTO, out);
    if (!found && (kind == QN_ANSWER_NUMBER || kind == QN_ANSWER_AUTO)) {
        if (boxed(s, &inner)) {
            found = put_number(inner, out);
            if (!found && kind == QN_ANSWER_AUTO) found = 1, qn_buf_put(out, inner.p, inner.n);
        }
        if (!found) found = put_number(s, out);
    }
    if (!found && (kind == QN_ANSWER_TEXT || kind == QN_ANSWER_AUTO)) {
        inner = trim(s);
        qn_buf_put(out, inner.p, inner.n);
        found = 1;
    }
    return out->failed ? out->failed : found;
}
