/* The parser's outer half: text, thinking, message frames, and where a section of calls begins and ends.
 *
 * It looks at a window of text and moves only when what it sees decides; else it waits. So whatever the pieces, the decisions
 * are the same, and so are the deltas' sums. Held back are: what may become a mark, blanks before a mark, and a call until its
 * function is known. Blanks around thinking and calls belong to neither. */
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"

static const size_t WINDOW_MAX = 256u << 20;
enum { COMPACT = 4096, HEADER_MAX = 512 };
static const char MESSAGE[] = "<|message|>";

/* --- helpers of all steps ----------------------------------------------------------------------------------------- */

void qn_cp_give(struct qn_call_parser *p, enum qn_piece_kind kind, const char *s, size_t n) {
    int call = p->n_calls - 1;
    struct qn_piece_at *last = p->n_q ? &p->q[p->n_q - 1] : NULL;
    int merges = kind == QN_PIECE_TEXT || kind == QN_PIECE_REASONING || kind == QN_PIECE_ARGUMENTS;
    if (merges && !n) return;
    if (kind == QN_PIECE_ARGUMENTS) p->args_bytes += n;
    qn_buf_put(&p->out, s, n);
    if (last && merges && last->kind == kind && p->n_q > p->next_q) {
        last->n += n;
        return;
    }
    if (p->n_q == p->cap_q) {
        size_t cap = p->cap_q ? 2 * p->cap_q : 8;
        struct qn_piece_at *q = realloc(p->q, cap * sizeof *q);
        if (!q) {
            p->no_memory = 1;
            return;
        }
        p->q = q;
        p->cap_q = cap;
    }
    p->q[p->n_q++] = (struct qn_piece_at){kind, call, p->out.n - n, n};
}

int qn_cp_match(const struct qn_call_parser *p, size_t at, const char *mark) {
    size_t n = strlen(mark), have = p->in.n - at;
    if (have >= n) return !memcmp(p->in.p + at, mark, n);
    if (have && memcmp(p->in.p + at, mark, have)) return 0;
    return p->last == QN_ENDED || (p->last && p->st == CP_TEXT) ? 0 : -1;
}

static int is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

size_t qn_cp_blanks(const struct qn_call_parser *p, size_t at) {
    while (at < p->in.n && is_blank(p->in.p[at])) at++;
    return at;
}

size_t qn_cp_find(const struct qn_call_parser *p, size_t at, const char *mark, size_t *safe) {
    size_t n = strlen(mark);
    for (*safe = at; *safe < p->in.n; ++*safe) {
        const char *c = memchr(p->in.p + *safe, mark[0], p->in.n - *safe);
        *safe = c ? (size_t)(c - p->in.p) : p->in.n;
        size_t have = p->in.n - *safe;
        if (!have) break;
        if (have >= n && !memcmp(c, mark, n)) return *safe;
        if (have < n && p->last != QN_ENDED && !memcmp(c, mark, have)) break;
    }
    return SIZE_MAX;
}

/* --- sections ----------------------------------------------------------------------------------------------------- */

static void to_text(struct qn_call_parser *p) {
    p->st = CP_TEXT;
    p->fresh = 1;
    p->held = 0;
    p->after_thought = 0;
}

int qn_cp_no_call(struct qn_call_parser *p) {
    size_t n = p->mark_n;
    qn_cp_give(p, QN_PIECE_TEXT, p->in.p + p->from, n);
    p->at = p->from + n;
    to_text(p);
    p->fresh = 0;
    p->said = 1;
    return 1;
}

void qn_cp_call(struct qn_call_parser *p) {
    p->held = 0;
    p->begun = 1;
    p->n_calls++;
    p->calls_here++;
    p->n_params = p->gave_args = 0;
    p->args_bytes = 0;
    p->schema = json_object_get(qn_tool_function(p->o.tool_list, p->fn), "parameters");
    qn_cp_give(p, QN_PIECE_CALL, p->fn, strlen(p->fn));
}

int qn_cp_call_end(struct qn_call_parser *p, enum qn_cp_state next) {
    if (!p->args_bytes) qn_cp_give(p, QN_PIECE_ARGUMENTS, "{}", 2);
    qn_cp_give(p, QN_PIECE_CALL_END, "", 0);
    p->begun = 0;
    p->fn[0] = 0;
    p->st = p->o.one_call ? CP_OVER : next;
    return 1;
}

int qn_cp_leave(struct qn_call_parser *p, size_t at) {
    to_text(p);
    p->at = at;
    return 1;
}

static void enter_section(struct qn_call_parser *p, size_t from, size_t at, size_t n_mark) {
    p->st = CP_SECTION;
    p->held = 1;
    p->from = from;
    p->mark_n = at + n_mark - from;
    p->at = at;
    p->section_end = "";
    p->wary = (p->m.calls->flags & QN_CF_BARE) != 0;
    p->calls_here = p->in_list = p->begun = p->nest = 0;
    p->args_n = 0;
    p->fn[0] = 0;
}

/* --- text --------------------------------------------------------------------------------------------------------- */

enum { NO_MARK, PERHAPS, THOUGHT, SECTION, FENCE, OPEN, FRAME, HEADER, NO_THOUGHT };

static int may_think(const struct qn_call_parser *p) {
    return p->o.thinking && p->m.think && !p->m.calls->header && (p->m.think->anywhere || (p->fresh && !p->said && !p->n_calls));
}

static int loose(const struct qn_call_parser *p) {
    return (p->m.calls->flags & QN_CF_LOOSE) && !p->o.exact;
}

/* Which mark begins at `at`, and its length. */
static int mark_at(const struct qn_call_parser *p, size_t at, size_t *n) {
    const struct qn_call_format *f = p->m.calls;
    int fence = (f->flags & QN_CF_LOOSE) != 0, second = p->o.tools && f->begin[0] && f->begin[1] && (!fence || loose(p));
    const struct { int what; const char *mark; } fixed[] = {
        {THOUGHT, may_think(p) ? p->m.think->open : ""},
        {NO_THOUGHT, may_think(p) && p->fresh && !p->said ? p->m.think->close : ""}, /* "no thinking", said by the model */
        {HEADER, f->header ? f->header : ""},
        {SECTION, p->o.tools && f->begin[0] ? f->begin[0] : ""},
        {fence ? FENCE : SECTION, second ? f->begin[1] : ""},
        {SECTION, p->o.tools && f->begin[1] && f->begin[2] ? f->begin[2] : ""},
        {OPEN, p->o.tools && f->begin[0] && !f->begin[0][0] ? f->open : ""},
    };
    int perhaps = 0;
    for (size_t i = 0; i < 6 && f->noise[i]; i++) {
        int m = qn_cp_match(p, at, f->noise[i]);
        *n = strlen(f->noise[i]);
        if (m > 0) return FRAME;
        perhaps |= m < 0;
    }
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        if (!fixed[i].mark[0]) continue;
        int m = qn_cp_match(p, at, fixed[i].mark);
        *n = strlen(fixed[i].mark);
        if (m > 0 && perhaps) return PERHAPS; /* a longer one may begin with this one */
        if (m > 0) return fixed[i].what == SECTION && !strcmp(fixed[i].mark, f->open) ? OPEN : fixed[i].what;
        perhaps |= m < 0;
    }
    return perhaps ? PERHAPS : NO_MARK;
}

/* Text up to `to`; `keep`: blanks at its end are given, too. */
static void give_text(struct qn_call_parser *p, size_t to, int keep) {
    if (p->fresh) {
        size_t from = qn_cp_blanks(p, p->at);
        if (from >= to) {
            if (!keep || to == p->at) return;
            if (!p->after_thought && !p->n_calls) qn_cp_give(p, QN_PIECE_TEXT, p->in.p + p->at, to - p->at);
            p->at = to;
            return;
        }
        if (p->after_thought || (p->n_calls && !p->said)) p->at = from;
        p->fresh = 0;
        p->said = 1;
    }
    size_t end = to;
    while (!keep && end > p->at && is_blank(p->in.p[end - 1])) end--;
    qn_cp_give(p, QN_PIECE_TEXT, p->in.p + p->at, end - p->at);
    p->at = end;
}

static int found_mark(struct qn_call_parser *p, int what, size_t at, size_t n) {
    int blanks_go = what != FRAME;
    give_text(p, at, !blanks_go);
    switch (what) {
    case THOUGHT:
        p->st = CP_THINK;
        p->fresh = 1;
        p->at = at + n;
        break;
    case HEADER:
        p->st = CP_HEADER;
        p->at = at + n;
        break;
    case NO_THOUGHT: p->after_thought = 1; /* fall through */
    case FRAME: p->at = at + n; break;
    default:
        enter_section(p, p->at, at, n);
        if (what != OPEN) p->at = at + n;
        if (what != OPEN) p->section_end = what == FENCE ? "```" : p->m.calls->end;
        p->wary |= what == FENCE;
        break;
    }
    return 1;
}

/* An answer that begins like a bare call. */
static int bare_start(struct qn_call_parser *p) {
    const struct qn_call_format *f = p->m.calls;
    size_t at = qn_cp_blanks(p, p->at);
    if (!(f->flags & QN_CF_BARE || loose(p)) || !p->o.tools || p->said || p->n_calls || !p->fresh) return 0;
    if (at == p->in.n) return p->last ? 0 : -1;
    char c = p->in.p[at];
    if (f->flags & QN_CF_HEAD_FIRST) {
        const char *frame = f->noise[0] + strlen(f->open);
        int m = qn_cp_match(p, at, frame);
        if (m < 0) return -1;
        if (m > 0) {
            p->at = at + strlen(frame);
            p->said = 1; /* it has said that there is text */
            return 1;
        }
        enter_section(p, p->at, at, 0);
        p->st = CP_HEAD;
        return 1;
    }
    if (!(c == '[' && f->flags & QN_CF_BARE) && !(c == '{' && f->shape == QN_SHAPE_JSON)) return 0;
    enter_section(p, p->at, at, 1);
    p->wary = 1;
    return 1;
}

static int text_step(struct qn_call_parser *p) {
    int bare = bare_start(p);
    if (bare) return bare > 0;
    size_t i = p->at, n = 0;
    for (; i < p->in.n; i++) {
        unsigned char c = (unsigned char)p->in.p[i];
        if (!(p->first[c >> 3] & 1u << (c & 7))) continue;
        int what = mark_at(p, i, &n);
        if (what == PERHAPS) break;
        int inside = qn_cp_blanks(p, p->at) < i;
        if (inside && (what == NO_THOUGHT || (what == THOUGHT && !p->m.think->anywhere))) what = NO_MARK;
        if (what) return found_mark(p, what, i, n);
    }
    give_text(p, i, p->last != QN_MORE);
    return 0;
}

/* --- thinking and headers ----------------------------------------------------------------------------------------- */

static int think_step(struct qn_call_parser *p) {
    size_t safe, at;
    if (p->fresh) {
        p->at = qn_cp_blanks(p, p->at);
        if (p->at == p->in.n) return 0;
    }
    at = qn_cp_find(p, p->at, p->m.think->close, &safe);
    size_t end = at == SIZE_MAX ? safe : at;
    while (end > p->at && is_blank(p->in.p[end - 1])) end--;
    if (end > p->at) p->fresh = 0;
    qn_cp_give(p, QN_PIECE_REASONING, p->in.p + p->at, end - p->at);
    p->at = end;
    if (at == SIZE_MAX) return 0;
    to_text(p);
    p->at = at + strlen(p->m.think->close);
    p->after_thought = 1;
    return 1;
}

/* <|channel|>commentary to=functions.f <|constrain|>json<|message|>, in whatever order: channel and recipient. */
static int header_step(struct qn_call_parser *p) {
    size_t safe, end = qn_cp_find(p, p->at, MESSAGE, &safe);
    const char *s = p->in.p + p->at;
    if (end == SIZE_MAX) {
        if (p->in.n - p->at < HEADER_MAX && !p->last) return 0;
        if (p->last != QN_CUT) qn_cp_give(p, QN_PIECE_TEXT, s, p->in.n - p->at); /* no header: it is text */
        p->at = p->in.n;
        p->said = 1;
        to_text(p);
        return 1;
    }
    size_t n = end - p->at, k = 0;
    const char *to = memmem(s, n, "to=", 3), *channel = memmem(s, n, "analysis", 8);
    p->at = end + sizeof MESSAGE - 1;
    to_text(p);
    p->after_thought = 1; /* blanks at a message's start are its frame's */
    int named = to && (size_t)(s + n - to) > 13 && !memcmp(to, "to=functions.", 13) && (unsigned char)to[13] > ' ' && to[13] != '<';
    if (named && p->o.tools && p->m.calls->shape == QN_SHAPE_NAMED) {
        for (to += 13; to + k < s + n && k < sizeof p->fn - 1 && (unsigned char)to[k] > ' ' && to[k] != '<'; k++) p->fn[k] = to[k];
        p->fn[k] = 0;
        p->calls_here = 0;
        qn_cp_call(p);
        p->st = CP_VALUE;
        p->value_begun = 0;
    } else if ((channel || (to && (size_t)(s + n - to) >= 7 && !memcmp(to, "to=self", 7))) && p->o.thinking) {
        p->st = CP_THINK;
        p->fresh = 1;
    }
    return 1;
}

/* --- outside ------------------------------------------------------------------------------------------------------ */

static int over_step(struct qn_call_parser *p) {
    p->at = p->in.n;
    return 0;
}

static int (*const steps[])(struct qn_call_parser *p) = {
    [CP_TEXT] = text_step,          [CP_THINK] = think_step,          [CP_HEADER] = header_step,
    [CP_SECTION] = qn_cp_section,   [CP_HEAD] = qn_cp_head,           [CP_VALUE] = qn_cp_value,
    [CP_CLOSE] = qn_cp_close,       [CP_MEMBERS] = qn_cp_members,     [CP_MEMBER_VALUE] = qn_cp_member_value,
    [CP_PARAMS] = qn_cp_params,     [CP_PARAM_TEXT] = qn_cp_param_text, [CP_PARAM_HELD] = qn_cp_param_held,
    [CP_LITERALS] = qn_cp_literals, [CP_OVER] = over_step,
};

static void add_first(struct qn_call_parser *p, const char *mark) {
    if (mark && mark[0]) p->first[(unsigned char)mark[0] >> 3] |= (unsigned char)(1u << ((unsigned char)mark[0] & 7));
}

int qn_call_parser_new(struct qn_call_parser **out, const struct qn_call_marks *m, const struct qn_call_parser_opts *o) {
    struct qn_call_parser *p = calloc(1, sizeof *p);
    if (!p) return QN_E_NOMEM;
    p->m = *m;
    p->o = *o;
    qn_buf_init(&p->in, WINDOW_MAX);
    qn_buf_init(&p->out, WINDOW_MAX);
    qn_buf_init(&p->tmp, WINDOW_MAX);
    qn_buf_init(&p->key, 65536);
    qn_buf_init(&p->end, 65536);
    const struct qn_call_format *f = m->calls;
    for (int i = 0; i < 6 && f->noise[i]; i++) add_first(p, f->noise[i]);
    for (int i = 0; o->tools && i < QN_CALL_ALTS && f->begin[i]; i++) add_first(p, f->begin[i]);
    if (o->tools && f->begin[0] && !f->begin[0][0]) add_first(p, f->open);
    if (m->think && o->thinking) {
        add_first(p, m->think->open);
        add_first(p, m->think->close);
    }
    add_first(p, f->header);
    p->fresh = 1;
    p->st = f->header ? CP_HEADER : CP_TEXT;
    if (o->in_thinking && m->think) p->st = o->thinking ? CP_THINK : CP_TEXT;
    *out = p;
    return 0;
}

void qn_call_parser_free(struct qn_call_parser *p) {
    if (!p) return;
    qn_buf_done(&p->in);
    qn_buf_done(&p->out);
    qn_buf_done(&p->tmp);
    qn_buf_done(&p->key);
    qn_buf_done(&p->end);
    free(p->q);
    free(p);
}

/* Forgets what is decided. */
static void compact(struct qn_call_parser *p) {
    size_t cut = p->held && p->from < p->at ? p->from : p->at;
    if (cut < COMPACT && cut < p->in.n) return;
    memmove(p->in.p, p->in.p + cut, p->in.n - cut);
    p->in.n -= cut;
    p->at -= cut;
    p->from -= p->held ? cut : p->from;
    p->args_from -= p->args_n ? cut : p->args_from;
}

/* At the end: a call that is not certain is text, unless it was cut. */
static void decide(struct qn_call_parser *p) {
    while (p->held && p->st != CP_TEXT) {
        if (p->last == QN_CUT && !p->wary) {
            p->at = p->in.n;
            return;
        }
        qn_cp_no_call(p);
        while (steps[p->st](p)) {}
    }
}

int qn_call_parser_feed(struct qn_call_parser *p, const char *s, size_t n, enum qn_last last) {
    if (p->next_q == p->n_q) {
        p->next_q = p->n_q = 0;
        qn_buf_reset(&p->out);
    }
    if (n) qn_buf_put(&p->in, s, n);
    p->last = last;
    if (!p->in.failed && p->in.p) {
        while (steps[p->st](p)) {}
        if (last) decide(p);
        compact(p);
    }
    int failed = p->in.failed | p->out.failed | p->tmp.failed | p->key.failed | p->end.failed | p->no_memory;
    return failed ? QN_E_NOMEM : 0;
}

int qn_call_parser_next(struct qn_call_parser *p, struct qn_piece *out) {
    if (p->next_q == p->n_q) return 0;
    const struct qn_piece_at *a = &p->q[p->next_q++];
    *out = (struct qn_piece){a->kind, a->call, p->out.p + a->at, a->n};
    return 1;
}
