/* Any text in any format: whole, byte by byte and in pieces of one size it is the same message, and calls come in order, one at a
 * time. The first byte chooses the format, the second the pieces and the options. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"

enum { PIECES_MAX = 1 << 16 };

struct heard {
    struct qn_buf all; /* every piece: kind, call, bytes; texts of one kind joined */
    int kind, calls, open;
};

static void hear(struct heard *h, const struct qn_piece *p) {
    int joins = p->kind == QN_PIECE_TEXT || p->kind == QN_PIECE_REASONING || p->kind == QN_PIECE_ARGUMENTS;
    if (p->kind == QN_PIECE_CALL) {
        assert(p->call == h->calls && !h->open && p->n > 0);
        h->calls++;
        h->open = 1;
    } else if (p->kind == QN_PIECE_ARGUMENTS || p->kind == QN_PIECE_CALL_END) {
        assert(h->open && p->call == h->calls - 1);
        if (p->kind == QN_PIECE_CALL_END) h->open = 0;
    }
    if (!joins || (int)p->kind != h->kind) qn_buf_printf(&h->all, "\n%d %d ", (int)p->kind, p->call);
    h->kind = joins ? (int)p->kind : -1;
    qn_buf_put(&h->all, p->text, p->n);
}

static void run(const struct qn_call_marks *m, const struct qn_call_parser_opts *o, const char *s, size_t n, size_t step, enum qn_last last,
                struct heard *h) {
    struct qn_call_parser *p;
    struct qn_piece piece;
    memset(h, 0, sizeof *h);
    h->kind = -1;
    qn_buf_init(&h->all, 64u << 20);
    if (qn_call_parser_new(&p, m, o) < 0) abort();
    for (size_t at = 0; at <= n; at += step) {
        size_t k = n - at < step ? n - at : step;
        assert(qn_call_parser_feed(p, s + at, k, QN_MORE) == 0);
        while (qn_call_parser_next(p, &piece)) hear(h, &piece);
    }
    assert(qn_call_parser_feed(p, "", 0, last) == 0);
    while (qn_call_parser_next(p, &piece)) hear(h, &piece);
    qn_call_parser_free(p);
}

static struct qn_call_marks marks_of(unsigned which) {
    static struct qn_template *t;
    struct qn_call_marks m;
    struct qn_buf b;
    qn_buf_init(&b, 4096);
    qn_call_formats_list(&b);
    char *save = NULL, *name = strtok_r(b.p, ", ", &save), *first = name;
    for (unsigned i = 0; i < which % 64; i++) {
        name = strtok_r(NULL, ", ", &save);
        if (!name) name = first;
    }
    if (!t && qn_template_open_plain(&t, "{{ tools }}{#- </think> #}", 26, "", "", NULL) < 0) abort();
    if (qn_call_format_find(&m, t, NULL, name, NULL) < 0) abort();
    qn_buf_done(&b);
    return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2 || n > PIECES_MAX) return 0;
    static json_t *tools;
    if (!tools)
        tools = json_pack("[{s:s, s:{s:s, s:{s:s, s:{s:{s:s}, s:{s:s}}}}}]", "type", "function", "function", "name", "f", "parameters", "type", "object",
                          "properties", "a", "type", "string", "b", "type", "object");
    struct qn_call_marks m = marks_of(data[0]);
    struct qn_call_parser_opts o = {.tools = !(data[1] & 1), .thinking = !(data[1] & 2), .in_thinking = (data[1] & 4) != 0, .tool_list = tools};
    enum qn_last last = data[1] & 8 ? QN_CUT : QN_ENDED;
    const char *s = (const char *)data + 2;
    struct heard whole, bytes, some;
    run(&m, &o, s, n - 2, n, last, &whole);
    run(&m, &o, s, n - 2, 1, last, &bytes);
    run(&m, &o, s, n - 2, 2 + (data[1] >> 4), last, &some);
    assert(whole.all.n == bytes.all.n && (!whole.all.n || !memcmp(whole.all.p, bytes.all.p, whole.all.n)));
    assert(whole.all.n == some.all.n && (!whole.all.n || !memcmp(whole.all.p, some.all.p, whole.all.n)));
    qn_buf_done(&whole.all);
    qn_buf_done(&bytes.all);
    qn_buf_done(&some.all);
    return 0;
}
