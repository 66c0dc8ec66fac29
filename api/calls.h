/* How a model writes tool calls and thinking, found by examining its chat template, and the parser that takes its text apart
 * while it streams: content, reasoning, calls with their arguments as deltas.
 *
 * For every split of a text into pieces the deltas add up to the same message. Thread: the format is const after detection;
 * a parser belongs to one choice. */
#ifndef QN_CALLS_H
#define QN_CALLS_H

#include <jansson.h>

#include "api/error.h"
#include "api/schema.h"
#include "api/template.h"
#include "engine/base/buf.h"

struct qn_call_format;      /* a row of a table: name, marks, shape of a call */
struct qn_think_format;     /* marks of thinking */
struct qn_call_marks {      /* what a model speaks */
    const struct qn_call_format *calls;
    const struct qn_think_format *think; /* NULL: it does not think */
};

/* By the template's text and the vocabulary's special tokens (tok may be NULL). `name` (an option) overrides the format of calls;
 * NULL and "auto": detect. QN_E_RANGE: no such name. */
int qn_call_format_find(struct qn_call_marks *out, const struct qn_template *t, const struct qn_tokenizer *tok, const char *name,
                        struct qn_err *err);
const char *qn_call_format_name(const struct qn_call_marks *m);
int qn_call_format_known(const char *name);
void qn_call_formats_list(struct qn_buf *out); /* "harmony, kimi-k2, …" */
/* 1: a prompt that ends like this has opened the thinking. */
int qn_call_opens_thinking(const struct qn_call_marks *m, const char *text, size_t n);
/* Where the answer begins in a text that has thoughts before it: behind their closing mark; 0: there is none. */
size_t qn_call_thought_end(const struct qn_call_marks *m, const char *text, size_t n);
/* 1: answers stand in a frame of marks that is no part of them, so that every answer must be parsed. */
int qn_call_frames(const struct qn_call_marks *m);
/* Ids of the control tokens that are marks: they must yield text to be seen. Returns how many, at most max. */
size_t qn_call_shown(const struct qn_call_marks *m, const struct qn_tokenizer *tok, uint32_t *ids, size_t max);
/* 1: the template knows no tools, so they are to be described to the model (calls_generic.c). */
int qn_call_generic(const struct qn_call_marks *m);

enum qn_piece_kind { QN_PIECE_TEXT, QN_PIECE_REASONING, QN_PIECE_CALL /* begins: name is known */, QN_PIECE_ARGUMENTS, QN_PIECE_CALL_END };

struct qn_piece {
    enum qn_piece_kind kind;
    int call;               /* index of the call */
    const char *text;       /* TEXT, REASONING, ARGUMENTS: bytes; CALL: the function's name. Valid until the next call */
    size_t n;
};

struct qn_call_parser;
struct qn_call_parser_opts {
    int tools, thinking;    /* 0: calls, or thinking, stay text (frames of messages are dropped in any case) */
    int in_thinking;        /* the prompt ended inside it */
    int exact;              /* the answer is constrained: what lacks the format's own marks is no call */
    int one_call;           /* parallel_tool_calls false: what follows the first call is dropped */
    int listed_only;        /* a call of a function that is not in the list is text */
    const json_t *tool_list; /* checked; for names and argument types */
};
int qn_call_parser_new(struct qn_call_parser **out, const struct qn_call_marks *m, const struct qn_call_parser_opts *o);
void qn_call_parser_free(struct qn_call_parser *p);
enum qn_last { QN_MORE, QN_ENDED, QN_CUT /* by a bound: a call that had begun is not text */ };
/* Takes text as it comes; then _next until 0. `last`: no more will come, so what was held back is decided. 0 or QN_E_NOMEM. */
int qn_call_parser_feed(struct qn_call_parser *p, const char *s, size_t n, enum qn_last last);
int qn_call_parser_next(struct qn_call_parser *p, struct qn_piece *out);

enum qn_tool_mode { QN_TOOLS_NONE, QN_TOOLS_AUTO, QN_TOOLS_REQUIRED };
struct qn_tool_choice {
    enum qn_tool_mode mode;
    const json_t *tools;    /* those that may be called (allowed_tools, or the named one); checked */
    const json_t *all;      /* the request's list, for the paths in messages */
    const json_t *custom;   /* {name: what the request says of that custom tool}, or NULL */
    int parallel;
};
/* 1: the answer needs qn_calls_node: calls are required, or some tool is strict or has a grammar. */
int qn_calls_constrained(const struct qn_tool_choice *c);
/* The grammar of an answer with calls: REQUIRED: calls only; AUTO: `text` (any text, or the node of a response_format) or calls,
 * with the arguments of strict tools constrained. */
int qn_calls_node(struct qn_grammar *g, const struct qn_call_marks *m, const struct qn_tokenizer *tok, const struct qn_tool_choice *c,
                  const struct qn_schema_opts *o, qn_gnode text, qn_gnode *out, struct qn_refusal *r);
/* Thinking before `rest`: opened: the prompt ended inside; else it may come or not. */
qn_gnode qn_thinking_node(struct qn_grammar *g, const struct qn_call_marks *m, const struct qn_tokenizer *tok, int opened, qn_gnode rest);

#endif
