/* Any bytes: the head is refused with a status that we document, or it is a request whose parts obey their grammar and
 * whose canonical form fits; how the bytes are cut changes nothing. What follows the head goes through the chunk filter:
 * whole or byte by byte it makes the same bytes, and what it made it accepts again unchanged. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/chunk.h"
#include "server/head.h"

static const struct qn_head_limits lim = { 16384, 8192, 100 };

static void want(int c) {
    if (!c) abort();
}

static void check_verdict(const struct qn_verdict *v) {
    static const int known[] = { 400, 405, 413, 414, 417, 431, 501, 505 };
    int ok = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok |= v->status == known[i];
    want(ok && v->code && v->message);
}

static void check_request(const struct qn_request *r) {
    char out[QN_HEAD_CANONICAL_MAX];
    want(r->method && *r->method);
    want(r->target[0] == '/' || !strcmp(r->target, "*"));
    for (const char *c = r->target; *c; c++) want((unsigned char)*c > 32 && (unsigned char)*c < 127);
    want(r->minor == 0 || r->minor == 1);
    want(r->content_length >= -1 && (r->content_length == -1) == (r->chunked != 0));
    want(r->host ? qn_head_host_valid(r->host) : r->minor == 0);
    want(r->n_fields >= 0 && r->n_fields <= lim.fields);
    for (int i = 0; i < r->n_fields; i++) {
        want(r->field[i].name[0] && !strpbrk(r->field[i].name, " \t\r\n:"));
        want(!strpbrk(r->field[i].value, "\r\n"));
    }
    size_t n = qn_head_canonical(r, out);
    want(n > 20 && n < sizeof out && !memcmp(out + n - 4, "\r\n\r\n", 4));
}

static long scan_cut(const char *p, size_t n, size_t step, struct qn_verdict *why) {
    size_t from = 0;
    for (size_t k = step < n ? step : n;; k += step) {
        if (k > n) k = n;
        long r = qn_head_scan(p, k, &from, &lim, why);
        if (r || k == n) return r;
    }
}

static void check_chunks(const char *p, size_t n) {
    struct qn_chunk whole, step, again;
    char *a = malloc(n + 1), *b = malloc(n + 1), *c = malloc(n + 1);
    size_t na = 0, nb = 0, used = n;
    want(a && b && c);
    memcpy(a, p, n);
    qn_chunk_init(&whole);
    int rc = qn_chunk_pass(&whole, a, &used, a, &na);
    want(used <= n && na <= used);
    qn_chunk_init(&step);
    int rs = QN_CHUNK_MORE;
    size_t i = 0;
    for (; i < n && rs == QN_CHUNK_MORE; i++) {
        size_t one = 1, made = 0;
        rs = qn_chunk_pass(&step, p + i, &one, b + nb, &made);
        want(made <= 1);
        nb += made;
    }
    want(rs == rc && i == used && na == nb && !memcmp(a, b, na));
    if (rc == QN_CHUNK_END) {
        size_t n_in = na, n_out = 0;
        qn_chunk_init(&again);
        want(qn_chunk_pass(&again, a, &n_in, c, &n_out) == QN_CHUNK_END);
        want(n_in == na && n_out == na && !memcmp(a, c, na));
    }
    free(a);
    free(b);
    free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct qn_request r;
    struct qn_verdict why = { 0 }, why2 = { 0 };
    const char *p = (const char *)data;
    size_t from = 0;
    long len = qn_head_scan(p, n, &from, &lim, &why);
    want(scan_cut(p, n, n ? data[0] % 7 + 1u : 1, &why2) == len && why.status == why2.status);
    if (len < 0) check_verdict(&why);
    if (len > 0) {
        char *copy = malloc((size_t)len);
        want(copy && (size_t)len <= n);
        memcpy(copy, p, (size_t)len);
        if (qn_head_parse(copy, (size_t)len, &lim, &r, &why) < 0) check_verdict(&why);
        else check_request(&r);
        free(copy);
        check_chunks(p + len, n - (size_t)len);
    } else {
        check_chunks(p, n);
    }
    return 0;
}
