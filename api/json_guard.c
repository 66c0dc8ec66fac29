/* The scan needs no grammar: as long as a text is JSON its strings, brackets and commas are where the scan sees them, and
 * where it stops being JSON jansson stops too, at the same byte or before. So jansson never nests deeper than was counted. */
#include "api/json_guard.h"

#include <string.h>

/* Past the closing quote of the string whose opening quote is at p[i]. */
static size_t skip_string(const char *p, size_t n, size_t i) {
    for (i++; i < n && p[i] != '"'; i++)
        if (p[i] == '\\') i++;
    return i < n ? i + 1 : n;
}

static int in_scalar(char c) {
    switch (c) {
    case '"':
    case '{':
    case '}':
    case '[':
    case ']':
    case ',':
    case ':':
    case ' ':
    case '\t':
    case '\r':
    case '\n': return 0;
    default: return 1;
    }
}

int qn_json_guard(const char *p, size_t n, int depth_max, long nodes_max, size_t *at) {
    int depth = 0;
    long nodes = 0;
    for (size_t i = 0; i < n;) {
        size_t here = i;
        switch (p[i]) {
        case '"':
            i = skip_string(p, n, i);
            nodes++;
            break;
        case '{':
        case '[':
            depth++;
            nodes++;
            i++;
            break;
        case '}':
        case ']':
            depth--;
            i++;
            break;
        case ':': /* the string before it was a key */
            nodes--;
            i++;
            break;
        case ',':
        case ' ':
        case '\t':
        case '\r':
        case '\n': i++; break;
        default:
            while (i < n && in_scalar(p[i])) i++;
            nodes++;
        }
        if (depth > depth_max || nodes > nodes_max) {
            *at = here;
            return QN_E_LIMIT;
        }
    }
    return 0;
}

static const struct {
    enum json_error_code code;
    const char *text;
} why[] = {
    {json_error_duplicate_key, "an object has the same key twice"},
    {json_error_invalid_utf8, "the body is not valid UTF-8"},
    {json_error_premature_end_of_input, "the body ends too early"},
    {json_error_end_of_input_expected, "something follows the object"},
    {json_error_numeric_overflow, "a number is too large"},
    {json_error_null_byte_in_key, "a key holds a NUL"},
    {json_error_null_character, "a key holds a NUL"},
    {json_error_stack_overflow, "it nests too deep"},
    {json_error_out_of_memory, "no memory"},
};

static const char *reason(const json_error_t *e) {
    for (size_t i = 0; i < sizeof why / sizeof *why; i++)
        if (why[i].code == json_error_code(e)) return why[i].text;
    return "it is not valid JSON";
}

int qn_json_parse(json_t **out, const char *p, size_t n, struct qn_refusal *r) {
    size_t at = 0;
    if (n == 0) return qn_refuse(r, 400, "invalid_json", NULL, "The body is empty; a JSON object is needed.");
    if (qn_json_guard(p, n, QN_JSON_DEPTH_MAX, QN_JSON_NODES_MAX, &at) < 0)
        return qn_refuse(r, 400, "invalid_json", NULL,
                         "The body nests deeper than %d levels or holds more than %d values (byte %zu).", QN_JSON_DEPTH_MAX,
                         QN_JSON_NODES_MAX, at);
    json_error_t e = {0};
    json_t *v = json_loadb(p, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (!v)
        return qn_refuse(r, 400, "invalid_json", NULL, "The body cannot be parsed as JSON: %s (line %d, column %d, byte %d).",
                         reason(&e), e.line, e.column, e.position);
    if (!json_is_object(v)) {
        json_decref(v);
        return qn_refuse(r, 400, "invalid_json", NULL, "The body is not a JSON object.");
    }
    *out = v;
    return 0;
}
