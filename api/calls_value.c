/* Values: where a JSON value ends, what a JSON string stands for, and values of other spellings as JSON.
 *
 * A literal is JSON, Python's (True, 'text', (1, 2)) or gemma's (bare keys, <|"|>text<|"|>); one reader takes them all. A
 * parameter between marks is read by its schema: text where only a string is valid, else JSON, else a literal, else text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"
#include "api/fields.h"
#include "api/json_out.h"
#include "engine/base/utf8.h"

enum { DEPTH_MAX = 64 };
static const char GEMMA_QUOTE[] = "<|\"|>";
enum { GEMMA_QUOTE_N = 5 };

/* --- JSON as it streams ------------------------------------------------------------------------------------------- */

static int ends_scalar(char c) {
    return c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

size_t qn_json_scan(struct qn_json_scan *js, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (!js->begun) {
            js->begun = 1;
            js->kind = (unsigned char)c;
        } else if (!js->depth && !js->in_string && js->kind != '"' && ends_scalar(c)) {
            js->over = 1;
            return i;
        }
        if (js->in_string) {
            if (js->escaped) js->escaped = 0;
            else if (c == '\\') js->escaped = 1;
            else if (c == '"') js->in_string = 0;
        } else if (c == '"') {
            js->in_string = 1;
        } else if (c == '{' || c == '[') {
            js->depth++;
        } else if ((c == '}' || c == ']') && js->depth) {
            js->depth--;
        }
        int closes = js->kind == '{' || js->kind == '[' || js->kind == '"';
        if (closes && !js->depth && !js->in_string) {
            js->over = 1;
            return i + 1;
        }
    }
    return n;
}

static void put_rune(struct qn_buf *out, uint32_t r) {
    char c[4];
    qn_buf_put(out, c, (size_t)qn_utf8_encode(r, c));
}

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

enum { U_PLAIN, U_ESCAPE, U_HEX /* four of them */, U_LOW = U_HEX + 4 /* a low half must follow */, U_LOW_U };

static void unit(struct qn_unescape *u, struct qn_buf *out) {
    if (u->high && u->code >= 0xDC00 && u->code < 0xE000) {
        put_rune(out, 0x10000 + ((u->high - 0xD800) << 10) + (u->code - 0xDC00));
        u->high = 0;
    } else {
        if (u->high) put_rune(out, QN_RUNE_BAD);
        u->high = 0;
        if (u->code >= 0xD800 && u->code < 0xDC00) u->high = u->code;
        else put_rune(out, u->code >= 0xDC00 && u->code < 0xE000 ? QN_RUNE_BAD : u->code);
    }
    u->state = u->high ? U_LOW : U_PLAIN;
    u->code = 0;
}

size_t qn_json_unescape(struct qn_unescape *u, const char *s, size_t n, struct qn_buf *out, int *over) {
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    *over = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (u->state >= U_HEX && u->state < U_HEX + 4) {
            int d = hex(c);
            if (d >= 0) {
                u->code = u->code << 4 | (unsigned)d;
                if (++u->state == U_HEX + 4) unit(u, out);
                continue;
            }
            put_rune(out, QN_RUNE_BAD); /* no escape after all; this byte is read again */
            *u = (struct qn_unescape){0};
        }
        if (u->state == U_LOW && c == '\\') {
            u->state = U_LOW_U;
            continue;
        }
        if (u->state == U_LOW_U && c == 'u') {
            u->state = U_HEX;
            continue;
        }
        if (u->high) { /* half a pair */
            put_rune(out, QN_RUNE_BAD);
            u->state = u->state == U_LOW_U ? U_ESCAPE : U_PLAIN;
            u->high = 0;
        }
        if (u->state == U_ESCAPE) {
            const char *k = strchr(from, c);
            u->state = c == 'u' ? U_HEX : U_PLAIN;
            if (c != 'u') qn_buf_putc(out, k && c ? to[k - from] : c);
        } else if (c == '"') {
            *over = 1;
            return i + 1;
        } else if (c == '\\') {
            u->state = U_ESCAPE;
        } else {
            qn_buf_putc(out, c);
        }
    }
    return n;
}

/* --- what the request says of them -------------------------------------------------------------------------------- */

const json_t *qn_tool_function(const json_t *tools, const char *name) {
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *f = json_object_get(json_array_get(tools, i), "function");
        const char *n = json_string_value(json_object_get(f, "name"));
        if (n && !strcmp(n, name)) return f;
    }
    return NULL;
}

const json_t *qn_schema_property(const json_t *schema, const char *name) {
    return json_object_get(json_object_get(schema, "properties"), name);
}

int qn_schema_is_text(const json_t *schema) {
    const json_t *type = json_object_get(schema, "type"), *all = json_object_get(schema, "enum");
    if (json_is_string(type)) return !strcmp(json_string_value(type), "string");
    if (json_is_array(type))
        return json_array_size(type) == 1 && json_is_string(json_array_get(type, 0)) &&
               !strcmp(json_string_value(json_array_get(type, 0)), "string");
    if (!json_array_size(all)) return -1;
    for (size_t i = 0; i < json_array_size(all); i++)
        if (!json_is_string(json_array_get(all, i))) return 0;
    return 1;
}

/* --- literals ----------------------------------------------------------------------------------------------------- */

struct lit {
    const char *p, *end;
    struct qn_buf *out;
    int depth;
};

static int value(struct lit *l);

static void blanks(struct lit *l) {
    while (l->p < l->end && (*l->p == ' ' || *l->p == '\n' || *l->p == '\t' || *l->p == '\r')) l->p++;
}

static int at_gemma_quote(const struct lit *l) {
    return l->end - l->p >= GEMMA_QUOTE_N && !memcmp(l->p, GEMMA_QUOTE, GEMMA_QUOTE_N);
}

/* One escape of Python's or JSON's behind the backslash. */
static int escape(struct lit *l, struct qn_buf *s) {
    static const char from[] = "abfnrtv", to[] = "\a\b\f\n\r\t\v";
    char c = *l->p++;
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t r = 0;
    if (!digits) {
        const char *k = c ? strchr(from, c) : NULL;
        if (c != '\n') qn_buf_putc(s, k ? to[k - from] : c);
        return 0;
    }
    if (l->end - l->p < digits) return -1;
    for (int i = 0; i < digits; i++) {
        int d = hex(*l->p++);
        if (d < 0) return -1;
        r = r << 4 | (uint32_t)d;
    }
    if (r >= 0xD800 && r < 0xDC00 && l->end - l->p >= 6 && l->p[0] == '\\' && l->p[1] == 'u') {
        uint32_t low = 0;
        for (int i = 2; i < 6; i++) low = low << 4 | (uint32_t)(hex(l->p[i]) < 0 ? 0 : hex(l->p[i]));
        if (low >= 0xDC00 && low < 0xE000) {
            r = 0x10000 + ((r - 0xD800) << 10) + (low - 0xDC00);
            l->p += 6;
        }
    }
    put_rune(s, r > 0x10FFFF || (r >= 0xD800 && r < 0xE000) ? QN_RUNE_BAD : r);
    return 0;
}

static int string(struct lit *l) {
    struct qn_buf s;
    int rc = -1;
    qn_buf_init(&s, l->out->max);
    if (at_gemma_quote(l)) {
        const char *end = memmem(l->p + GEMMA_QUOTE_N, (size_t)(l->end - l->p) - GEMMA_QUOTE_N, GEMMA_QUOTE, GEMMA_QUOTE_N);
        if (end) {
            qn_buf_put(&s, l->p + GEMMA_QUOTE_N, (size_t)(end - l->p) - GEMMA_QUOTE_N);
            l->p = end + GEMMA_QUOTE_N;
            rc = 0;
        }
    } else {
        char q = *l->p++;
        while (l->p < l->end && *l->p != q) {
            if (*l->p == '\\' && l->p + 1 < l->end) {
                l->p++;
                if (escape(l, &s) < 0) break;
            } else {
                qn_buf_putc(&s, *l->p++);
            }
        }
        if (l->p < l->end && *l->p == q) {
            l->p++;
            rc = 0;
        }
    }
    if (rc == 0) qn_json_string(l->out, s.p ? s.p : "", s.n);
    qn_buf_done(&s);
    return rc;
}

static int bare_key(struct lit *l) {
    const char *from = l->p;
    while (l->p < l->end && (unsigned char)*l->p > ' ' && !memchr(":,{}[]()\"'", *l->p, 10)) l->p++;
    if (l->p == from) return -1;
    qn_json_string(l->out, from, (size_t)(l->p - from));
    return 0;
}

static int is_quote(const struct lit *l) {
    return l->p < l->end && (*l->p == '"' || *l->p == '\'' || at_gemma_quote(l));
}

/* Items up to `close`, keys before them when it is a brace. */
static int items(struct lit *l, char close) {
    int n = 0;
    qn_buf_putc(l->out, close == '}' ? '{' : '[');
    for (l->p++;; n++) {
        blanks(l);
        if (n && l->p < l->end && *l->p == ',') {
            l->p++;
            blanks(l);
        } else if (n && l->p < l->end && *l->p != close) {
            return -1;
        }
        if (l->p >= l->end) return -1;
        if (*l->p == close) break;
        if (n) qn_buf_puts(l->out, ", ");
        if (close == '}') {
            if ((is_quote(l) ? string(l) : bare_key(l)) < 0) return -1;
            blanks(l);
            if (l->p >= l->end || *l->p++ != ':') return -1;
            qn_buf_puts(l->out, ": ");
        }
        if (value(l) < 0) return -1;
    }
    l->p++;
    qn_buf_putc(l->out, close == '}' ? '}' : ']');
    return 0;
}

static int word(struct lit *l) {
    static const char *const words[][2] = {{"true", "true"},  {"false", "false"}, {"null", "null"},
                                           {"True", "true"},  {"False", "false"}, {"None", "null"}};
    const char *from = l->p;
    while (l->p < l->end && !ends_scalar(*l->p) && *l->p != ')') l->p++;
    size_t n = (size_t)(l->p - from);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n == strlen(words[i][0]) && !memcmp(from, words[i][0], n)) {
            qn_buf_puts(l->out, words[i][1]);
            return 0;
        }
    json_t *j = n ? json_loadb(from, n, JSON_DECODE_ANY, NULL) : NULL;
    int ok = json_is_number(j);
    json_decref(j);
    if (ok) qn_buf_put(l->out, from, n);
    return ok ? 0 : -1;
}

static int value(struct lit *l) {
    blanks(l);
    if (l->p >= l->end || l->depth >= DEPTH_MAX) return -1;
    char c = *l->p;
    int rc;
    l->depth++;
    if (is_quote(l)) rc = string(l);
    else if (c == '{' || c == '[' || c == '(') rc = items(l, c == '{' ? '}' : c == '[' ? ']' : ')');
    else rc = word(l);
    l->depth--;
    return rc;
}

int qn_literal_json(const char *s, size_t n, struct qn_buf *out) {
    struct lit l = {s, s + n, out, 0};
    if (value(&l) < 0) return -1;
    blanks(&l);
    return l.p == l.end ? 0 : -1;
}

size_t qn_literal_end(const char *s, size_t n, const char *stops) {
    struct lit l = {s, s + n, NULL, 0};
    for (int depth = 0; l.p < l.end;) {
        char c = *l.p;
        if (!depth && strchr(stops, c)) return (size_t)(l.p - s);
        if (c == '<' && l.end - l.p < GEMMA_QUOTE_N && !memcmp(l.p, GEMMA_QUOTE, (size_t)(l.end - l.p))) return SIZE_MAX;
        if (at_gemma_quote(&l)) {
            const char *e = memmem(l.p + GEMMA_QUOTE_N, (size_t)(l.end - l.p) - GEMMA_QUOTE_N, GEMMA_QUOTE, GEMMA_QUOTE_N);
            if (!e) return SIZE_MAX;
            l.p = e + GEMMA_QUOTE_N;
            continue;
        }
        if (c == '"' || c == '\'') {
            for (l.p++; l.p < l.end && *l.p != c; l.p++) l.p += *l.p == '\\' && l.p + 1 < l.end;
            if (l.p >= l.end) return SIZE_MAX;
        }
        depth += c == '{' || c == '[' || c == '(';
        depth -= c == '}' || c == ']' || c == ')';
        l.p++;
    }
    return SIZE_MAX;
}

/* --- parameters between marks ------------------------------------------------------------------------------------- */

/* A string is wanted when the schema takes strings and not what the text would be as JSON. */
static int takes(const json_t *schema, const json_t *v) {
    const json_t *type = json_object_get(schema, "type");
    static const char *const names[] = {[JSON_OBJECT] = "object", [JSON_ARRAY] = "array",   [JSON_STRING] = "string",
                                        [JSON_INTEGER] = "integer", [JSON_REAL] = "number", [JSON_TRUE] = "boolean",
                                        [JSON_FALSE] = "boolean",   [JSON_NULL] = "null"};
    const char *is = names[json_typeof(v)];
    if (!json_is_array(type)) return !json_is_string(v) || qn_schema_is_text(schema) != -1;
    int strings = 0;
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *t = json_string_value(json_array_get(type, i));
        if (t && (!strcmp(t, is) || (!strcmp(t, "number") && json_is_integer(v))) && !json_is_string(v)) return 1;
        strings |= t && !strcmp(t, "string");
    }
    return !strings;
}

void qn_param_json(const json_t *schema, const char *s, size_t n, struct qn_buf *out) {
    while (n && (*s == ' ' || *s == '\n') && qn_schema_is_text(schema) == 0) s++, n--;
    json_t *v = json_loadb(s, n, JSON_DECODE_ANY, NULL);
    int raw = v && takes(schema, v);
    int tried = v != NULL;
    json_decref(v);
    while (raw && n && (s[n - 1] == ' ' || s[n - 1] == '\n' || s[n - 1] == '\r' || s[n - 1] == '\t')) n--;
    while (raw && n && (*s == ' ' || *s == '\n' || *s == '\r' || *s == '\t')) s++, n--;
    if (raw) {
        qn_buf_put(out, s, n);
        return;
    }
    size_t was = out->n;
    if (!tried && qn_schema_is_text(schema) <= 0 && n && qn_literal_json(s, n, out) == 0) return;
    out->n = was;
    if (out->p) out->p[was] = 0;
    qn_json_string(out, s, n);
}

/* --- nested elements ---------------------------------------------------------------------------------------------- */

/* The element at s: its name, its inside; returns the place behind it, or NULL. */
static const char *element(const char *mark, const char *s, const char *end, struct qn_chars *name, struct qn_chars *inside) {
    char close[320];
    size_t k = strlen(mark);
    const char *gt = (size_t)(end - s) > k && !memcmp(s, mark, k) ? memchr(s + k, '>', (size_t)(end - s) - k) : NULL;
    if (!gt || gt - s - (ptrdiff_t)k > 200 || s[k] == '/') return NULL;
    *name = (struct qn_chars){s + k, (size_t)(gt - s) - k};
    int nc = snprintf(close, sizeof close, "%s/%.*s>", mark, (int)name->n, name->p), depth = 1;
    for (const char *p = gt + 1; (p = memmem(p, (size_t)(end - p), mark, k)) != NULL; p += k) {
        if ((size_t)(end - p) >= (size_t)nc && !memcmp(p, close, (size_t)nc)) {
            if (--depth == 0) {
                *inside = (struct qn_chars){gt + 1, (size_t)(p - gt) - 1};
                return p + nc;
            }
        } else if ((size_t)(end - p) > k + name->n && !memcmp(p + k, name->p, name->n) && p[k + name->n] == '>') {
            depth++;
        }
    }
    return NULL;
}

static int is_type(const json_t *schema, const char *type) {
    const char *t = json_string_value(json_object_get(schema, "type"));
    return t && !strcmp(t, type);
}

static void nested(const json_t *schema, const char *mark, const char *s, size_t n, struct qn_buf *out, int depth) {
    const char *end = s + n, *p = s;
    struct qn_chars name, inside;
    while (p < end && (*p == ' ' || *p == '\n')) p++;
    if (depth > DEPTH_MAX || !element(mark, p, end, &name, &inside)) {
        if (n) qn_param_json(schema, s, n, out);
        else qn_buf_puts(out, qn_schema_is_text(schema) > 0 ? "\"\"" : is_type(schema, "array") ? "[]" : is_type(schema, "object") ? "{}" : "null");
        return;
    }
    int list = name.n == 4 && !memcmp(name.p, "item", 4);
    qn_buf_putc(out, list ? '[' : '{');
    for (int i = 0; (p = element(mark, p, end, &name, &inside)) != NULL; i++) {
        char key[256];
        if (i) qn_buf_puts(out, ", ");
        snprintf(key, sizeof key, "%.*s", (int)name.n, name.p);
        if (!list) {
            qn_json_string(out, name.p, name.n);
            qn_buf_puts(out, ": ");
        }
        nested(list ? json_object_get(schema, "items") : qn_schema_property(schema, key), mark, inside.p, inside.n, out, depth + 1);
        while (p < end && (*p == ' ' || *p == '\n')) p++;
    }
    qn_buf_putc(out, list ? ']' : '}');
}

void qn_nested_json(const json_t *schema, const char *mark, const char *s, size_t n, struct qn_buf *out) {
    nested(schema, mark, s, n, out, 0);
}
