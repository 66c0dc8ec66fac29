/* A line is built in a fixed buffer and written with one write(), so lines of several processes do not mix. A value that
 * would not fit is cut; a field that would not fit is left out and "cut":true says so. If the reader of a pipe is so slow
 * that it is full and non-blocking, the line is lost and counted: the log never holds up the loop. */
#include "server/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/utf8.h"

enum { TAIL_ROOM = 32 };
static struct { int fd, level, pretty; uint64_t lost; } out = { 2, QN_LOG_INFO, 0, 0 };
static const char *const level_name[] = { "debug", "info", "warn", "error" };

void qn_log_setup(int fd, int level, int format) {
    out.fd = fd;
    out.level = level;
    out.pretty = format == QN_LOG_PRETTY || (format == QN_LOG_AUTO && isatty(fd));
}

int qn_log_wants(int level) { return level >= out.level; }

uint64_t qn_log_lost(void) { return out.lost; }

/* Appends s[0..n) whole or not at all. */
static int put(struct qn_log_line *l, const char *s, size_t n) {
    if (l->n + n > sizeof l->p - TAIL_ROOM) return 0;
    memcpy(l->p + l->n, s, n);
    l->n += n;
    return 1;
}

/* One character of a hostile value at s[0..n): writes what may stand in a line, returns the bytes read. */
static size_t put_char(struct qn_log_line *l, const char *s, size_t n, int *fits) {
    char esc[16];
    uint32_t rune;
    int k = qn_utf8_decode(s, n, &rune);
    if (k == 0) {
        *fits = put(l, "\xEF\xBF\xBD", 3);
        return 1;
    }
    if (rune == '"' || rune == '\\') *fits = put(l, esc, (size_t)snprintf(esc, sizeof esc, "\\%c", (char)rune));
    else if (rune < 32 || (rune >= 127 && rune < 160) || rune == 0x2028 || rune == 0x2029 || rune == 0xFEFF || (rune >= 0x202A && rune <= 0x202E) || (rune >= 0x2066 && rune <= 0x2069))
        *fits = put(l, esc, (size_t)snprintf(esc, sizeof esc, "\\u%04x", rune)); /* C0, C1, line ends and what turns text around */
    else *fits = put(l, s, (size_t)k);
    return (size_t)k;
}

static void put_key(struct qn_log_line *l, const char *key) {
    if (out.pretty) put(l, " ", 1), put(l, key, strlen(key)), put(l, "=", 1);
    else put(l, ",\"", 2), put(l, key, strlen(key)), put(l, "\":", 2);
}

static void put_string(struct qn_log_line *l, const char *value) {
    size_t n = strlen(value), i = 0;
    int fits = 1, bare = out.pretty && n > 0 && n == strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@");
    if (!bare) put(l, "\"", 1);
    while (i < n && fits && i < QN_LOG_VALUE_MAX) i += put_char(l, value + i, n - i, &fits);
    if (i < n) put(l, "\xE2\x80\xA6", 3);
    if (!bare) put(l, "\"", 1);
}

static void stamp(char to[32], int pretty) {
    int64_t ns = qn_clock_wall_ns();
    time_t s = (time_t)(ns / QN_S);
    struct tm tm;
    if (pretty) localtime_r(&s, &tm);
    else gmtime_r(&s, &tm);
    size_t k = strftime(to, 32, pretty ? "%H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(to + k, 32 - k, pretty ? ".%03d" : ".%03dZ", (int)(ns % QN_S / QN_MS));
}

void qn_log_begin(struct qn_log_line *l, int level, const char *event) {
    char ts[32];
    l->level = level;
    l->cut = 0;
    stamp(ts, out.pretty);
    int n = out.pretty ? snprintf(l->p, sizeof l->p, "%s %-5s %s", ts, level_name[level], event)
                       : snprintf(l->p, sizeof l->p, "{\"ts\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"", ts, level_name[level], event);
    l->n = n > 0 && (size_t)n < sizeof l->p ? (size_t)n : 0;
}

static int room(struct qn_log_line *l, size_t n) {
    if (l->n + n < sizeof l->p - TAIL_ROOM) return 1;
    l->cut = 1;
    return 0;
}

void qn_log_str(struct qn_log_line *l, const char *key, const char *value) {
    size_t n = value ? strnlen(value, QN_LOG_VALUE_MAX + 1) : 0;
    if (!value || !room(l, strlen(key) + n * 6 + 16)) return;
    put_key(l, key);
    put_string(l, value);
}

void qn_log_int(struct qn_log_line *l, const char *key, int64_t value) {
    char num[24];
    if (!room(l, strlen(key) + sizeof num + 8)) return;
    put_key(l, key);
    put(l, num, (size_t)snprintf(num, sizeof num, "%lld", (long long)value));
}

void qn_log_ms(struct qn_log_line *l, const char *key, int64_t ns) {
    char num[40];
    if (!room(l, strlen(key) + sizeof num + 8)) return;
    put_key(l, key);
    put(l, num, (size_t)snprintf(num, sizeof num, "%.3f", (double)ns / 1e6));
}

void qn_log_end(struct qn_log_line *l) {
    static const char cut_json[] = ",\"cut\":true", cut_text[] = " cut";
    if (l->level < out.level) return;
    const char *cut = !l->cut ? "" : out.pretty ? cut_text : cut_json;
    memcpy(l->p + l->n, cut, strlen(cut));
    l->n += strlen(cut);
    if (!out.pretty) l->p[l->n++] = '}';
    l->p[l->n++] = '\n';
    ssize_t r;
    do r = write(out.fd, l->p, l->n);
    while (r < 0 && errno == EINTR);
    if (r < (ssize_t)l->n) out.lost++;
}

void qn_log(int level, const char *event, const char *fmt, ...) {
    if (!qn_log_wants(level)) return;
    char text[QN_LOG_VALUE_MAX];
    struct qn_log_line l;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    qn_log_begin(&l, level, event);
    qn_log_str(&l, "message", text);
    qn_log_end(&l);
}
