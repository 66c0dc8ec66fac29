/* Statuses as the SDKs read them: they retry 408, 409, 429 and >= 500 and raise by status, so a refusal of the request is
 * 400 and never retried, and "we are full" is 503 with Retry-After (429 would say "you asked too much"). */
#include "api/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "api/json_out.h"
#include "engine/base/utf8.h"

static const struct {
    int code, status;
    const char *string, *text;
} map[] = {
    {QN_E_NOMEM, 503, "overloaded", "The server has no memory for this request now."},
    {QN_E_IO, 500, "server_error", "The server failed to answer."},
    {QN_E_DATA, 400, "invalid_value", NULL},
    {QN_E_UNSUPPORTED, 400, "unsupported_value", NULL},
    {QN_E_RANGE, 400, "invalid_value", NULL},
    {QN_E_FULL, 503, "overloaded", "The server is full: too many requests wait. Try again later."},
    {QN_E_TOO_LONG, 400, "context_length_exceeded", NULL},
    {QN_E_CLOSED, 503, "draining", "The server is shutting down."},
    {QN_E_LIMIT, 400, "invalid_value", NULL},
    {QN_E_NOT_FOUND, 404, "not_found", NULL},
    {QN_E_RAISED, 400, "invalid_prompt", NULL},
    {QN_E_CANCELLED, 503, "cancelled", "The request was cancelled."},
    {QN_E_DEADLINE, 504, "deadline_exceeded", "The request's deadline passed."},
    {QN_E_INTERNAL, 500, "server_error", "The server failed to answer."},
    {QN_E_DEVICE, 500, "server_error", "The server failed to answer."},
};

static const struct {
    int status;
    const char *type;
} types[] = {
    {400, "invalid_request_error"}, {401, "authentication_error"}, {402, "insufficient_credit"}, {403, "permission_error"},
    {404, "not_found_error"},       {429, "rate_limit_error"},     {501, "not_supported_error"}, {504, "timeout_error"},
};

const char *qn_error_type(int status) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].status == status) return types[i].type;
    return status < 500 ? "invalid_request_error" : "server_error";
}

int qn_refuse(struct qn_refusal *r, int status, const char *code, const char *param, const char *fmt, ...) {
    if (r->status) return QN_E_RANGE;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->message, sizeof r->message, fmt, ap);
    va_end(ap);
    r->message[qn_utf8_whole(r->message, strlen(r->message))] = 0;
    snprintf(r->param, sizeof r->param, "%s", param ? param : "");
    r->param[qn_utf8_whole(r->param, strlen(r->param))] = 0;
    r->code = code;
    r->status = status;
    return QN_E_RANGE;
}

int qn_refuse_code(struct qn_refusal *r, int code, const struct qn_err *err) {
    for (size_t i = 0; i < sizeof map / sizeof *map; i++) {
        if (map[i].code != code) continue;
        const char *text = map[i].text ? map[i].text : err && err->text[0] ? err->text : "The request cannot be answered.";
        qn_refuse(r, map[i].status, map[i].string, NULL, "%s", text);
        return code;
    }
    qn_refuse(r, 500, "server_error", NULL, "The server failed to answer.");
    return code;
}

const char *qn_quote(char out[QN_QUOTE_MAX + 4], const char *s, size_t n) {
    size_t take = n > QN_QUOTE_MAX ? QN_QUOTE_MAX : n, o = 0;
    if (take < n) take = qn_utf8_whole(s, take);
    for (size_t i = 0; i < take; i++) {
        unsigned char c = (unsigned char)s[i];
        out[o++] = c < 0x20 || c == 0x7F ? '?' : s[i];
    }
    if (take < n && o + 3 <= QN_QUOTE_MAX + 3) {
        memcpy(out + o, "...", 3);
        o += 3;
    }
    out[o] = 0;
    return out;
}

void qn_api_error_body(struct qn_buf *out, int status, const char *code, const char *param, const char *message) {
    qn_buf_puts(out, "{\"error\":{\"message\":");
    qn_json_string(out, message, strlen(message));
    qn_buf_printf(out, ",\"type\":\"%s\",\"param\":", qn_error_type(status));
    if (param && param[0])
        qn_json_string(out, param, strlen(param));
    else
        qn_buf_puts(out, "null");
    qn_buf_puts(out, ",\"code\":");
    if (code)
        qn_json_string(out, code, strlen(code));
    else
        qn_buf_puts(out, "null");
    qn_buf_puts(out, "}}");
}
