/* Inside of api/calls*.c: a row of the table of formats, and the parser's state that its files share.
 *
 * A message is text, with SECTIONS in it; a section holds calls, and each call names a function and carries arguments. Rows
 * differ in their marks and in the shape of a call; calls_parse.c knows sections, calls_body.c the shapes, calls_value.c how
 * values that are no JSON become JSON. Thread: see calls.h. */
#ifndef QN_CALLS_IMPL_H
#define QN_CALLS_IMPL_H

#include "api/calls.h"

enum qn_call_shape {
    QN_SHAPE_JSON,    /* {"name": f, "arguments": {…}}: one, a list, or several in a row */
    QN_SHAPE_KEYED,   /* {f: {…}} */
    QN_SHAPE_NAMED,   /* f, then a JSON value */
    QN_SHAPE_TAGS,    /* f, then a pair of marks around each parameter's value */
    QN_SHAPE_LITERAL, /* f(key=value, …) or f{key:value,…} with values of Python or much like JSON */
};

enum {
    QN_CF_BARE = 1,      /* no mark begins a call: only at the answer's start, and only functions that the request has */
    QN_CF_NEWLINES = 2,  /* one newline after and before a parameter's value is not part of it */
    QN_CF_NESTED = 4,    /* a value that is no string is itself made of marked elements; value_end is completed by key and > */
    QN_CF_ARRAY = 8,     /* calls are written as a list, one call too */
    QN_CF_HEAD_FIRST = 16, /* the prompt ends with the first call's open mark */
    QN_CF_NINE = 32,     /* ids of calls are 9 letters and digits: the template insists */
    QN_CF_CDATA = 128,   /* a value may be wrapped in <![CDATA[ ]]> */
    QN_CF_EACH = 256,    /* every call has a section of its own */
    QN_CF_FRAMED = 512,  /* what stands before a call depends on more than the call: there is no grammar */
    QN_CF_LOOSE = 1024,  /* some models of this format forget its marks: calls are also seen in begin[1], a fence, and bare */
    QN_CF_ONE = 64,      /* the template writes at most one call in a message */
};

enum { QN_CALL_ALTS = 3 };

struct qn_call_format {
    const char *name;
    const char *find[3];    /* the template's text has all of these */
    enum qn_call_shape shape;
    unsigned flags;
    const char *begin[QN_CALL_ALTS]; /* of a section, the one that is written first; none: `open` begins it */
    const char *end;                 /* of a section; "": none */
    const char *open, *close;        /* of a call; "": none */
    const char *skip_to;    /* between open and name: everything up to this; "": nothing */
    const char *drop;       /* before the name, if it is there */
    const char *sep;        /* after the name, up to and with this; "": the name ends where its characters do */
    const char *name_key, *args_key; /* JSON */
    const char *param, *key_end, *value, *value_end; /* TAGS: <parameter= key > value </parameter>; LITERAL: value is : or = */
    const char *noise[6];   /* of the message's frame: dropped where they stand in text */
    const char *header;     /* what begins a message within the answer; to <|message|> it is a header with channel and recipient */
    const char *gap;        /* what the model writes between two calls: for the grammar, as are the next three */
    const char *pre, *post, *fin; /* between open and name, name and arguments, after those; NULL: drop, sep, close. #: some digits */
};

struct qn_think_format {
    const char *find;       /* in the template's text */
    const char *open, *close;
    const char *after;      /* follows close when we end the thinking */
    int anywhere;           /* it may come after text, too */
};

enum qn_cp_state {
    CP_TEXT, CP_THINK, CP_HEADER, CP_SECTION, CP_HEAD, CP_VALUE, CP_CLOSE, CP_MEMBERS, CP_MEMBER_VALUE, CP_PARAMS,
    CP_PARAM_TEXT, CP_PARAM_HELD, CP_LITERALS, CP_OVER,
};

struct qn_json_scan {       /* where a JSON value ends */
    int depth, in_string, escaped, kind, begun, over; /* kind: its first byte */
};

struct qn_unescape {        /* a JSON string's content, byte by byte */
    int state;
    unsigned code, high;
};

struct qn_piece_at {
    enum qn_piece_kind kind;
    int call;
    size_t at, n;
};

struct qn_call_parser {
    struct qn_call_marks m;
    struct qn_call_parser_opts o;
    struct qn_buf in;        /* what is not decided yet begins at `at` */
    size_t at;
    size_t from, mark_n;     /* held: the uncertain call's mark, with the blanks before it, and its length */
    int held;
    enum qn_last last;
    enum qn_cp_state st;
    unsigned char first[32]; /* bytes that begin a mark in text */

    int said, fresh, after_thought; /* content was given; nothing but blanks in this stretch of text yet; it follows thinking */
    int n_calls, calls_here, in_list; /* calls of the message, of this section; within [ ] */
    const char *section_end; /* the mark that ends it; "": none */
    int wary;                /* its beginning is weak evidence: only functions that the request has are calls */
    char fn[136];            /* the function of the call that is being read; "": not known */
    int begun, gave_args, nest, n_params; /* the call is certain; its arguments have begun; objects within it */
    size_t args_bytes;       /* given of its arguments */
    struct qn_buf key, end;  /* of the parameter that is being read: its name, and the mark after its value */
    const json_t *schema;    /* of its value, or of the call's parameters */
    struct qn_json_scan js;
    struct qn_unescape un;
    int is_args, value_begun;
    size_t args_from, args_n; /* arguments that came before the name, in `in` */
    int args_kind;           /* their first byte */

    struct qn_buf out, tmp;
    struct qn_piece_at *q;
    size_t n_q, cap_q, next_q;
    int no_memory;
};

/* calls_parse.c. A step returns 1 when it has moved, 0 when it needs more text. */
void qn_cp_give(struct qn_call_parser *p, enum qn_piece_kind kind, const char *s, size_t n);
int qn_cp_match(const struct qn_call_parser *p, size_t at, const char *mark); /* 1 here; 0 not; -1 more text will tell */
size_t qn_cp_blanks(const struct qn_call_parser *p, size_t at);               /* where the blanks at `at` end */
/* The first place of mark from `at` on, or SIZE_MAX; then *safe is how far it cannot begin. */
size_t qn_cp_find(const struct qn_call_parser *p, size_t at, const char *mark, size_t *safe);
int qn_cp_no_call(struct qn_call_parser *p); /* what began a call is text after all; returns 1 */
void qn_cp_call(struct qn_call_parser *p);   /* p->fn is known: the call is certain */
int qn_cp_call_end(struct qn_call_parser *p, enum qn_cp_state next);
int qn_cp_leave(struct qn_call_parser *p, size_t at); /* the section: text goes on at `at` */

/* calls_body.c */
int qn_cp_section(struct qn_call_parser *p);
int qn_cp_head(struct qn_call_parser *p);
int qn_cp_value(struct qn_call_parser *p);
int qn_cp_close(struct qn_call_parser *p);
int qn_cp_members(struct qn_call_parser *p);
int qn_cp_member_value(struct qn_call_parser *p);
/* calls_params.c */
int qn_cp_params(struct qn_call_parser *p);
int qn_cp_param_text(struct qn_call_parser *p);
int qn_cp_param_held(struct qn_call_parser *p);
int qn_cp_literals(struct qn_call_parser *p);

/* calls_value.c */
/* Bytes of s that belong to the value; js->over says that it ends there. */
size_t qn_json_scan(struct qn_json_scan *js, const char *s, size_t n);
/* Appends what `s`, the inside of a JSON string, stands for; stops behind an unescaped quote and sets *over. Returns bytes taken. */
size_t qn_json_unescape(struct qn_unescape *u, const char *s, size_t n, struct qn_buf *out, int *over);
/* The tool's function object by its name, or NULL. */
const json_t *qn_tool_function(const json_t *tools, const char *name);
const json_t *qn_schema_property(const json_t *schema, const char *name);
/* 1: only strings are valid, so that its text is the value; 0: other types, too; -1: the schema does not say. */
int qn_schema_is_text(const json_t *schema);
/* A literal of JSON, Python, or gemma's spelling, as JSON. 0, or -1: it is none. */
int qn_literal_json(const char *s, size_t n, struct qn_buf *out);
/* The length of a literal at the start of s, ended by one of `stops` at depth 0; SIZE_MAX: not all of it is there. */
size_t qn_literal_end(const char *s, size_t n, const char *stops);
/* A parameter's text as the JSON that its schema suggests. */
void qn_param_json(const json_t *schema, const char *s, size_t n, struct qn_buf *out);
/* The same, of elements: MARK<name>…MARK</name>. */
void qn_nested_json(const json_t *schema, const char *mark, const char *s, size_t n, struct qn_buf *out);

#endif
