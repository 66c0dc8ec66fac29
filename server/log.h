/* The only writer of log lines: one event, one line, on standard error; JSON or text for people. Whatever a value holds,
 * the line stays one line of valid UTF-8 without a control character. Prompts, outputs and keys are never given to it.
 * Lower layers return errors instead of writing. Thread: loop (and main before and after it). */
#ifndef QN_LOG_H
#define QN_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "server/config.h"

enum { QN_LOG_LINE_MAX = 4096, QN_LOG_VALUE_MAX = 512 };

struct qn_log_line { char p[QN_LOG_LINE_MAX]; size_t n; int level, cut; };

/* level: QN_LOG_DEBUG…; format: QN_LOG_AUTO looks whether fd is a terminal. */
void qn_log_setup(int fd, int level, int format);
/* 1 when lines of this level are written. */
int qn_log_wants(int level);
/* The lines that were lost because nobody read the other end. */
uint64_t qn_log_lost(void);

/* A line with fields: begin, any number of fields, end (writes it). event is a constant word. */
void qn_log_begin(struct qn_log_line *l, int level, const char *event);
void qn_log_str(struct qn_log_line *l, const char *key, const char *value); /* cut after QN_LOG_VALUE_MAX bytes */
void qn_log_int(struct qn_log_line *l, const char *key, int64_t value);
void qn_log_ms(struct qn_log_line *l, const char *key, int64_t ns);         /* milliseconds with three decimals */
void qn_log_end(struct qn_log_line *l);
/* A line with one "message". */
__attribute__((format(printf, 3, 4)))
void qn_log(int level, const char *event, const char *fmt, ...);

#endif
