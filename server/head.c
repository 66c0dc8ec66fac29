/* The rules are tables where they are lists (byte classes, fields that may come once, methods) and straight code where
 * their order decides the answer. Whatever is refused here would be taken, or read in another way, by some program of
 * those that stand in front of a model server; threats.md's list is replayed by tests/http/test_hostile.py. */
#include "server/head.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { TOKEN = 1, VALUE = 2, TARGET = 4, HEX = 8, DIGIT = 16, REGNAME = 32 };

static unsigned char classes[256];

static unsigned char classify(unsigned char c) {
    int k = 0;
    int alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    if (alnum || (c && strchr("!#$%&'*+-.^_`|~", c))) k |= TOKEN;
    if (c == '\t' || (c >= 32 && c != 127)) k |= VALUE; /* obs-text (>= 128) is data, RFC 9110 5.5 */
    if (c > 32 && c < 127 && c != '#') k |= TARGET;
    if (c >= '0' && c <= '9') k |= DIGIT | HEX;
    if ((c | 32) >= 'a' && (c | 32) <= 'f') k |= HEX;
    if (alnum || (c && strchr("-._~!$&'()*+,;=", c))) k |= REGNAME;
    return (unsigned char)k;
}

__attribute__((constructor)) static void fill_classes(void) {
    for (int c = 0; c < 256; c++) classes[c] = classify((unsigned char)c);
}

static unsigned class_of(unsigned char c) { return classes[c]; }

static int all(const char *s, size_t n, unsigned class) {
    for (size_t i = 0; i < n; i++)
        if (!(class_of((unsigned char)s[i]) & class)) return 0;
    return 1;
}

static int refuse(struct qn_verdict *why, int status, const char *code, const char *message) {
    *why = (struct qn_verdict){ status, code, message };
    return -1;
}

static int bad(struct qn_verdict *why, const char *message) { return refuse(why, 400, "invalid_request", message); }

static int too_long(const char *p, size_t n, struct qn_verdict *why) {
    if (!memchr(p, '\n', n)) return refuse(why, 414, "request_too_large", "The request line is too long.");
    return refuse(why, 431, "request_too_large", "The request's header section is too large.");
}

long qn_head_scan(const char *p, size_t n, size_t *from, const struct qn_head_limits *lim, struct qn_verdict *why) {
    if (n >= 1 && !(class_of((unsigned char)p[0]) & TOKEN) && p[0] != '\r') {
        if (p[0] == 0x16) return bad(why, "This address speaks plain HTTP, not TLS.");
        return bad(why, "The request does not start with a method.");
    }
    size_t i = *from;
    for (; i < n && i < lim->head_bytes; i++) {
        if (p[i] == '\n') {
            if (i == 0 || p[i - 1] != '\r') return bad(why, "A line of the request's head ends without CR LF.");
            if (i == 1) continue; /* one empty line may come first, RFC 9112 2.2 */
            if (i >= 3 && p[i - 2] == '\n') {
                if (i == 3) return bad(why, "The request starts with empty lines.");
                return (long)i + 1;
            }
        } else if (i > 0 && p[i - 1] == '\r') {
            return bad(why, "A CR without LF stands in the request's head.");
        } else if (p[i] == 0) {
            return bad(why, "A NUL byte stands in the request's head.");
        }
    }
    *from = i;
    if (i >= lim->head_bytes) return too_long(p, i, why);
    if (i > lim->target_bytes + 64 && !memchr(p + 2, '\n', i - 2)) return too_long(p, 0, why);
    return 0;
}

/* ---- the request line ---- */

static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS" };

static int judge_method(const char *m, struct qn_verdict *why) {
    if (!all(m, strlen(m), TOKEN) || !*m) return bad(why, "The request's method is malformed.");
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (!strcmp(m, methods[i])) return 0;
    if (!strcmp(m, "CONNECT") || !strcmp(m, "TRACE")) return refuse(why, 405, "method_not_allowed", "This method is not allowed.");
    return refuse(why, 501, "unsupported_method", "The request's method is not implemented.");
}

static int judge_version(const char *v, int *minor, struct qn_verdict *why) {
    if (strlen(v) != 8 || memcmp(v, "HTTP/", 5) || !all(v + 5, 1, DIGIT) || v[6] != '.' || !all(v + 7, 1, DIGIT))
        return bad(why, "The request line is malformed.");
    if (v[5] != '1' || (v[7] != '0' && v[7] != '1'))
        return refuse(why, 505, "unsupported_version", "Only HTTP/1.1 and HTTP/1.0 are spoken here.");
    *minor = v[7] - '0';
    return 0;
}

static int judge_path(const char *t, struct qn_verdict *why) {
    for (const char *c = t; *c; c++) {
        if (!(class_of((unsigned char)*c) & TARGET)) return bad(why, "The request's target holds a byte that must be escaped.");
        if (*c != '%') continue;
        if (!c[1] || !all(c + 1, 1, HEX) || !c[2] || !all(c + 2, 1, HEX)) return bad(why, "The request's target holds a broken % escape.");
        if (c[1] == '0' && c[2] == '0') return bad(why, "The request's target holds an escaped NUL.");
    }
    return 0;
}

/* Origin form as it is; absolute form loses scheme and authority (*authority keeps it, cut in place). */
static int judge_target(char *t, const struct qn_head_limits *lim, struct qn_request *r, char **authority, struct qn_verdict *why) {
    if (strlen(t) > lim->target_bytes) return refuse(why, 414, "request_too_large", "The request's target is too long.");
    *authority = NULL;
    if (!strcmp(t, "*")) {
        if (strcmp(r->method, "OPTIONS")) return bad(why, "The target * belongs to OPTIONS.");
        r->target = t;
        return 0;
    }
    if (*t != '/') {
        if (strncasecmp(t, "http://", 7)) return bad(why, "The request's target is neither a path nor an http URL.");
        char *host = t + 7, *path = strpbrk(host, "/?");
        if (!path || *path != '/') return bad(why, "The request's target has no path.");
        size_t n = (size_t)(path - host);
        memmove(t, host, n); /* room for a NUL between authority and path */
        t[n] = 0;
        *authority = t;
        t = path;
    }
    r->target = t;
    return judge_path(t, why);
}

static int parse_line(char *line, const struct qn_head_limits *lim, struct qn_request *r, char **authority, struct qn_verdict *why) {
    char *t = strchr(line, ' '), *v = t ? strchr(t + 1, ' ') : NULL;
    if (!t || !v || strchr(v + 1, ' ')) {
        if (strlen(line) > lim->target_bytes) return refuse(why, 414, "request_too_large", "The request line is too long.");
        return bad(why, "The request line is malformed.");
    }
    *t++ = 0;
    *v++ = 0;
    r->method = line;
    int minor = 0;
    if (judge_version(v, &minor, why) < 0 || judge_method(r->method, why) < 0) return -1;
    r->minor = minor;
    return judge_target(t, lim, r, authority, why);
}

/* ---- the fields ---- */

enum single { S_HOST, S_LENGTH, S_CODING, S_TYPE, S_AUTH, S_KEY, S_ORIGIN, S_EXPECT, S_COUNT };
static const char *const single_name[S_COUNT] = { /* may come once: two readers could take different ones */
    "host", "content-length", "transfer-encoding", "content-type", "authorization", "x-api-key", "origin", "expect",
};

static int parse_field(char *line, struct qn_request *r, const char *single[S_COUNT], struct qn_verdict *why) {
    if (*line == ' ' || *line == '\t') return bad(why, "A header field is folded over two lines.");
    char *colon = strchr(line, ':');
    if (!colon) return bad(why, "A header line has no colon.");
    if (colon == line || !all(line, (size_t)(colon - line), TOKEN)) return bad(why, "A header field's name is malformed.");
    *colon = 0;
    int tab = strchr(colon + 1, '\t') != NULL;
    char *value = colon + 1 + strspn(colon + 1, " \t"), *end = value + strlen(value);
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
    *end = 0;
    if (!all(value, (size_t)(end - value), VALUE)) return bad(why, "A header field's value holds a control character.");
    for (int i = 0; i < S_COUNT; i++) {
        if (strcasecmp(line, single_name[i])) continue;
        if (single[i]) return bad(why, "A header field that may come once comes twice.");
        if (tab && (i == S_LENGTH || i == S_CODING)) return bad(why, "The body's framing is given with a tab."); /* nginx would not read it */
        single[i] = value;
    }
    r->field[r->n_fields++] = (struct qn_field){ line, value };
    return 0;
}

/* 1 when the comma-separated list holds the token, any case. */
static int has_token(const char *list, const char *token) {
    size_t n = strlen(token);
    for (const char *p = list; *p;) {
        p += strspn(p, " \t,");
        size_t k = strcspn(p, ",");
        size_t len = k;
        while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t')) len--;
        if (len == n && !strncasecmp(p, token, n)) return 1;
        p += k;
    }
    return 0;
}

static int judge_length(const char *v, struct qn_request *r, struct qn_verdict *why) {
    size_t n = strlen(v);
    if (n == 0 || !all(v, n, DIGIT)) return bad(why, "Content-Length is not a number.");
    if (n > 18) return refuse(why, 413, "request_too_large", "Content-Length is too large.");
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum = sum * 10 + (v[i] - '0');
    r->content_length = sum;
    return 0;
}

static int judge_coding(const char *v, struct qn_request *r, struct qn_verdict *why) {
    if (r->minor == 0) return bad(why, "Transfer-Encoding does not belong into HTTP/1.0.");
    if (strcasecmp(v, "chunked")) {
        if (!*v || has_token(v, "chunked")) return bad(why, "Transfer-Encoding must be chunked alone.");
        return refuse(why, 501, "unsupported_value", "No Transfer-Encoding but chunked is implemented.");
    }
    r->chunked = 1;
    r->content_length = -1;
    return 0;
}

static int judge_fields(struct qn_request *r, const char *single[S_COUNT], const char *authority, struct qn_verdict *why) {
    r->host = single[S_HOST];
    r->origin = single[S_ORIGIN];
    if (!r->host && r->minor == 1) return bad(why, "The Host header is missing.");
    if (r->host && !qn_head_host_valid(r->host)) return bad(why, "The Host header is malformed.");
    if (authority && (!r->host || strcasecmp(authority, r->host))) return bad(why, "The target's authority is not the Host header's.");
    if (single[S_LENGTH] && single[S_CODING]) return bad(why, "Content-Length and Transfer-Encoding exclude each other.");
    if (single[S_LENGTH] && judge_length(single[S_LENGTH], r, why) < 0) return -1;
    if (single[S_CODING] && judge_coding(single[S_CODING], r, why) < 0) return -1;
    r->keep_alive = r->minor == 1;
    for (int i = 0; i < r->n_fields; i++) {
        if (strcasecmp(r->field[i].name, "connection")) continue;
        if (has_token(r->field[i].value, "close")) r->keep_alive = -1; /* wins over keep-alive wherever it stands */
        else if (r->keep_alive == 0 && has_token(r->field[i].value, "keep-alive")) r->keep_alive = 1;
    }
    if (r->keep_alive < 0) r->keep_alive = 0;
    if (single[S_EXPECT] && r->minor == 1) {
        if (strcasecmp(single[S_EXPECT], "100-continue"))
            return refuse(why, 417, "unsupported_value", "No expectation but 100-continue can be met.");
        r->expect_continue = r->content_length != 0;
    }
    return 0;
}

int qn_head_parse(char *p, size_t n, const struct qn_head_limits *lim, struct qn_request *r, struct qn_verdict *why) {
    const char *single[S_COUNT] = { 0 };
    char *authority = NULL, *end = p + n;
    memset(r, 0, offsetof(struct qn_request, field));
    if (n >= 2 && p[0] == '\r') p += 2;
    for (int first = 1; p < end; first = 0) {
        char *eol = memchr(p, '\r', (size_t)(end - p));
        if (!eol || eol + 1 >= end || eol[1] != '\n' || memchr(p, 0, (size_t)(eol - p))) return bad(why, "The request's head is malformed.");
        *eol = 0;
        char *line = p;
        p = eol + 2;
        if (first) {
            if (parse_line(line, lim, r, &authority, why) < 0) return -1;
            continue;
        }
        if (!*line) return p == end ? judge_fields(r, single, authority, why) : bad(why, "The request's head is malformed.");
        if (r->n_fields >= lim->fields || r->n_fields >= QN_HEAD_FIELDS_MAX)
            return refuse(why, 431, "request_too_large", "The request has too many header fields.");
        if (parse_field(line, r, single, why) < 0) return -1;
    }
    return bad(why, "The request's head is malformed.");
}

const char *qn_head_field(const struct qn_request *r, const char *name) {
    for (int i = 0; i < r->n_fields; i++)
        if (!strcasecmp(r->field[i].name, name)) return r->field[i].value;
    return NULL;
}

size_t qn_head_canonical(const struct qn_request *r, char out[QN_HEAD_CANONICAL_MAX]) {
    int n = snprintf(out, QN_HEAD_CANONICAL_MAX, "%s / HTTP/1.%d\r\nHost: q\r\nConnection: %s\r\n%s", r->method, r->minor,
                     r->keep_alive ? "keep-alive" : "close", r->expect_continue ? "Expect: 100-continue\r\n" : "");
    if (r->chunked) n += snprintf(out + n, QN_HEAD_CANONICAL_MAX - (size_t)n, "Transfer-Encoding: chunked\r\n\r\n");
    else if (r->content_length) n += snprintf(out + n, QN_HEAD_CANONICAL_MAX - (size_t)n, "Content-Length: %lld\r\n\r\n", (long long)r->content_length);
    else n += snprintf(out + n, QN_HEAD_CANONICAL_MAX - (size_t)n, "\r\n");
    return (size_t)n;
}

/* ---- hosts ---- */

/* Length of the host part of host[:port], or -1. */
static long host_part(const char *h) {
    size_t n;
    if (*h == '[') {
        const char *e = strchr(h, ']');
        if (!e || e == h + 1) return -1;
        for (const char *c = h + 1; c < e; c++)
            if (!(class_of((unsigned char)*c) & HEX) && *c != ':' && *c != '.') return -1;
        n = (size_t)(e - h) + 1;
    } else {
        n = strcspn(h, ":");
        if (n == 0 || n > 255 || !all(h, n, REGNAME)) return -1;
    }
    if (!h[n]) return (long)n;
    const char *port = h + n + 1;
    size_t digits = strlen(port);
    if (h[n] != ':' || digits > 5 || !all(port, digits, DIGIT)) return -1;
    long v = 0;
    for (size_t i = 0; i < digits; i++) v = v * 10 + (port[i] - '0');
    return v > 65535 ? -1 : (long)n;
}

int qn_head_host_valid(const char *host) { return host_part(host) > 0; }

int qn_head_host_is(const char *host, const char *name) {
    long n = host_part(host);
    if (n <= 0) return 0;
    if (host[n - 1] == '.') n--; /* a name may end in its root dot */
    return strlen(name) == (size_t)n && !strncasecmp(host, name, (size_t)n);
}

int qn_head_host_local(const char *host) {
    if (qn_head_host_is(host, "localhost") || qn_head_host_is(host, "[::1]")) return 1;
    int a, b, c, d, used = 0;
    long n = host_part(host);
    if (n <= 0 || strncmp(host, "127.", 4)) return 0;
    if (sscanf(host, "%3d.%3d.%3d.%3d%n", &a, &b, &c, &d, &used) != 4 || used != n) return 0;
    return b <= 255 && c <= 255 && d <= 255 && b >= 0 && c >= 0 && d >= 0;
}
