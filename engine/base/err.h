/* Error codes and the one-line reason that a person reads.
 *
 * Fallible functions return 0 or more, or one of these negative codes. Where somebody will read the reason the last
 * parameter is a `struct qn_err *` (may be NULL); the first failure fills it and later ones leave it alone.
 * Thread: any; the struct belongs to its caller. */
#ifndef QN_BASE_ERR_H
#define QN_BASE_ERR_H

enum {
    QN_OK = 0,
    QN_E_NOMEM = -1,      /* an allocation failed */
    QN_E_IO = -2,         /* a system call failed; the text has its name */
    QN_E_DATA = -3,       /* a file or a template is malformed */
    QN_E_UNSUPPORTED = -4,/* well formed, but not something we do */
    QN_E_RANGE = -5,      /* a value outside its documented range */
    QN_E_FULL = -6,       /* a bounded queue or buffer is full: try later */
    QN_E_TOO_LONG = -7,   /* prompt + output does not fit the context */
    QN_E_CLOSED = -8,     /* draining or closed */
    QN_E_LIMIT = -9,      /* fuel, depth, size or time limit met */
    QN_E_NOT_FOUND = -10,
    QN_E_RAISED = -11,    /* a chat template called raise_exception */
    QN_E_CANCELLED = -12,
    QN_E_DEADLINE = -13,
    QN_E_INTERNAL = -14,  /* a promise of ours was broken; never a request's fault */
    QN_E_AGAIN = -15,     /* nothing now; not an error */
    QN_E_DEVICE = -16,    /* the device asked for is missing or does not work */
};

#define QN_ERR_TEXT_MAX 256

struct qn_err {
    int code;                    /* 0 while nothing failed */
    char text[QN_ERR_TEXT_MAX];  /* one line, no trailing newline, valid UTF-8 */
};

/* Fills `err` (may be NULL) unless it already holds a failure, and returns `code`. */
__attribute__((format(printf, 3, 4)))
int qn_fail(struct qn_err *err, int code, const char *fmt, ...);

/* The code's name without its prefix, for logs: "NOMEM". */
const char *qn_err_name(int code);

#endif
