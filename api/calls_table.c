/* The table of formats, and which of them a model's template speaks.
 *
 * A template is known by spellings that its text has: marks stand in it as they will stand in answers, or in its own example.
 * Rows are tried from top to bottom, so the particular stand above the general. What no row knows gets `generic`: the tools are
 * described by api/calls_generic.c, and answers are read as `hermes`. Spellings were read from the templates of the
 * llama-cpp-python package and from the models' cards. */
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"

#define NONE ""
#define JSON_KEYS .name_key = "name", .args_key = "arguments"

/* clang-format off: a row is read across */
static const struct qn_call_format rows[] = {
    {.name = "harmony", .find = {"<|channel|>", "<|call|>"}, .shape = QN_SHAPE_NAMED, .flags = QN_CF_ONE, .begin = {NONE}, .end = NONE, .open = NONE,
     .close = "<|call|>", .skip_to = NONE, .drop = NONE, .sep = NONE, .header = "<|start|>assistant",
     .noise = {"<|end|>", "<|return|>", "<|call|>"}, .gap = NONE, .pre = "<|channel|>commentary to=functions.", .post = " <|constrain|>json<|message|>", .fin = NONE},
    {.name = "muse", .find = {"atem:", "to=self"}, .shape = QN_SHAPE_TAGS, .flags = QN_CF_FRAMED, .begin = {"<atem:function_calls>"},
     .end = "</atem:function_calls>", .open = "<atem:invoke name=\"", .close = "</atem:invoke>", .skip_to = NONE, .drop = NONE, .sep = "\">",
     .param = "<atem:parameter name=\"", .key_end = "\"", .value = ">", .value_end = "</atem:parameter>",
     .header = "<|start|>assistant", .noise = {"<|eom|>", "<|eot|>"}, .gap = "\n"},
    {.name = "kimi-k3", .find = {"<|open|>", "<|sep|>", "argument"}, .shape = QN_SHAPE_TAGS, .flags = QN_CF_FRAMED, .begin = {"<|open|>tools<|sep|>"},
     .end = "<|close|>tools<|sep|>", .open = "<|open|>call tool=\"", .close = "<|close|>call<|sep|>", .skip_to = NONE, .drop = NONE, .sep = "<|sep|>",
     .param = "<|open|>argument key=\"", .key_end = "\"", .value = "<|sep|>", .value_end = "<|close|>argument<|sep|>",
     .noise = {"<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>", "<|end_of_msg|>"}, .gap = NONE, .post = "\" index=\"#\"<|sep|>"},
    {.name = "kimi-k2", .find = {"<|tool_call_argument_begin|>"}, .shape = QN_SHAPE_NAMED, .begin = {"<|tool_calls_section_begin|>"},
     .end = "<|tool_calls_section_end|>", .open = "<|tool_call_begin|>", .close = "<|tool_call_end|>", .skip_to = NONE, .drop = "functions.",
     .sep = "<|tool_call_argument_begin|>", .gap = NONE, .post = ":#<|tool_call_argument_begin|>"},
    {.name = "deepseek-v3.2", .find = {"｜DSML｜", "function_calls"}, .shape = QN_SHAPE_TAGS, .begin = {"<｜DSML｜function_calls>"},
     .end = "</｜DSML｜function_calls>", .open = "<｜DSML｜invoke name=\"", .close = "</｜DSML｜invoke>", .skip_to = NONE, .drop = NONE, .sep = "\">",
     .param = "<｜DSML｜parameter name=\"", .key_end = "\"", .value = ">", .value_end = "</｜DSML｜parameter>", .gap = "\n"},
    {.name = "deepseek-v4", .find = {"｜DSML｜", "tool_calls"}, .shape = QN_SHAPE_TAGS, .begin = {"<｜DSML｜tool_calls>"},
     .end = "</｜DSML｜tool_calls>", .open = "<｜DSML｜invoke name=\"", .close = "</｜DSML｜invoke>", .skip_to = NONE, .drop = NONE, .sep = "\">",
     .param = "<｜DSML｜parameter name=\"", .key_end = "\"", .value = ">", .value_end = "</｜DSML｜parameter>", .gap = "\n"},
    {.name = "deepseek-v3", .find = {"<｜tool▁calls▁begin｜>", "```json"}, .shape = QN_SHAPE_NAMED, .begin = {"<｜tool▁calls▁begin｜>"},
     .end = "<｜tool▁calls▁end｜>", .open = "<｜tool▁call▁begin｜>", .close = "```<｜tool▁call▁end｜>", .skip_to = "<｜tool▁sep｜>", .drop = NONE,
     .sep = "```json", .gap = "\n", .pre = "function<｜tool▁sep｜>", .post = "\n```json\n", .fin = "\n```<｜tool▁call▁end｜>"},
    {.name = "deepseek-v3.1", .find = {"<｜tool▁calls▁begin｜>"}, .shape = QN_SHAPE_NAMED, .begin = {"<｜tool▁calls▁begin｜>"},
     .end = "<｜tool▁calls▁end｜>", .open = "<｜tool▁call▁begin｜>", .close = "<｜tool▁call▁end｜>", .skip_to = NONE, .drop = NONE,
     .sep = "<｜tool▁sep｜>", .gap = NONE},
    {.name = "minimax-m3", .find = {"]<]minimax[>["}, .shape = QN_SHAPE_TAGS, .flags = QN_CF_NESTED, .begin = {"]<]minimax[>[<tool_call>"},
     .end = "]<]minimax[>[</tool_call>", .open = "]<]minimax[>[<invoke name=\"", .close = "]<]minimax[>[</invoke>", .skip_to = NONE, .drop = NONE,
     .sep = "\">", .param = "]<]minimax[>[<", .key_end = ">", .value = NONE, .value_end = "]<]minimax[>[</", .gap = "\n"},
    {.name = "minimax-m2", .find = {"<minimax:tool_call>"}, .shape = QN_SHAPE_TAGS, .begin = {"<minimax:tool_call>"}, .end = "</minimax:tool_call>",
     .open = "<invoke name=\"", .close = "</invoke>", .skip_to = NONE, .drop = NONE, .sep = "\">", .param = "<parameter name=\"", .key_end = "\"",
     .value = ">", .value_end = "</parameter>", .gap = "\n"},
    {.name = "minimax-m1", .find = {"<tool_calls>", "<end_of_sentence>"}, .shape = QN_SHAPE_JSON, .begin = {"<tool_calls>"}, .end = "</tool_calls>",
     .open = NONE, .close = NONE, JSON_KEYS, .gap = "\n"},
    {.name = "apriel", .find = {"<tool_calls>["}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ARRAY, .begin = {"<tool_calls>"}, .end = "</tool_calls>",
     .open = NONE, .close = NONE, JSON_KEYS, .gap = ", "},
    {.name = "gemma4", .find = {"<|tool_call>call:"}, .shape = QN_SHAPE_LITERAL, .flags = QN_CF_EACH, .begin = {"<|tool_call>"}, .end = "<tool_call|>", .open = "call:",
     .close = "}", .skip_to = NONE, .drop = NONE, .sep = "{", .value = ":", .noise = {"<turn|>"}, .gap = NONE},
    {.name = "lfm2", .find = {"List of tools: "}, .shape = QN_SHAPE_LITERAL, .begin = {"<|tool_call_start|>"}, .end = "<|tool_call_end|>", .open = NONE,
     .close = ")", .skip_to = NONE, .drop = NONE, .sep = "(", .value = "=", .gap = ", ", .flags = QN_CF_ARRAY},
    {.name = "apertus", .find = {"<|tools_prefix|>"}, .shape = QN_SHAPE_KEYED, .flags = QN_CF_ARRAY, .begin = {"<|tools_prefix|>"},
     .end = "<|tools_suffix|>", .open = NONE, .close = NONE, .gap = ", "},
    {.name = "solar", .find = {"<|tool_call:begin|>"}, .shape = QN_SHAPE_NAMED, .begin = {"<|tool_calls|>"}, .end = "<|calls|>",
     .open = "<|tool_call:begin|>", .close = "<|tool_call:end|>", .skip_to = "<|tool_call:name|>", .drop = NONE, .sep = "<|tool_call:args|>",
     .noise = {"<|begin|>assistant", "<|content|>", "<|end|>"}, .gap = NONE, .pre = "#<|tool_call:name|>"},
    {.name = "seed", .find = {"<seed:tool_call>"}, .shape = QN_SHAPE_TAGS, .flags = QN_CF_EACH, .begin = {"<seed:tool_call>"}, .end = "</seed:tool_call>",
     .open = "<function=", .close = "</function>", .skip_to = NONE, .drop = NONE, .sep = ">", .param = "<parameter=", .key_end = ">", .value = NONE,
     .value_end = "</parameter>", .gap = "\n"},
    {.name = "hunyuan3", .find = {"<arg_key{}>"}, .shape = QN_SHAPE_TAGS, .begin = {"<tool_calls:opensource>"}, .end = "</tool_calls:opensource>",
     .open = "<tool_call:opensource>", .close = "</tool_call:opensource>", .skip_to = NONE, .drop = NONE, .sep = "<tool_sep:opensource>",
     .param = "<arg_key:opensource>", .key_end = "</arg_key:opensource>", .value = "<arg_value:opensource>",
     .value_end = "</arg_value:opensource>", .gap = "\n"},
    {.name = "glm", .find = {"<arg_key>"}, .shape = QN_SHAPE_TAGS, .begin = {NONE}, .end = NONE, .open = "<tool_call>", .close = "</tool_call>",
     .skip_to = NONE, .drop = NONE, .sep = NONE, .param = "<arg_key>", .key_end = "</arg_key>", .value = "<arg_value>", .value_end = "</arg_value>",
     .gap = "\n"},
    {.name = "qwen3-coder", .find = {"<function=", "<parameter="}, .shape = QN_SHAPE_TAGS, .flags = QN_CF_EACH | QN_CF_NEWLINES,
     .begin = {"<tool_call>", "<function="}, .end = "</tool_call>", .open = "<function=", .close = "</function>", .skip_to = NONE, .drop = NONE,
     .sep = ">", .param = "<parameter=", .key_end = ">", .value = NONE, .value_end = "</parameter>", .gap = "\n"},
    {.name = "minicpm5", .find = {"<function name=\""}, .shape = QN_SHAPE_TAGS, .flags = QN_CF_CDATA, .begin = {NONE}, .end = NONE, .open = "<function name=\"",
     .close = "</function>", .skip_to = NONE, .drop = NONE, .sep = "\">", .param = "<param name=\"", .key_end = "\"", .value = ">",
     .value_end = "</param>", .gap = "\n"},
    {.name = "functionary-v3.1", .find = {"<function="}, .shape = QN_SHAPE_NAMED, .begin = {NONE}, .end = NONE, .open = "<function=",
     .close = "</function>", .skip_to = NONE, .drop = NONE, .sep = ">", .gap = NONE},
    {.name = "functionary-v3.2", .find = {">>>", "all"}, .shape = QN_SHAPE_NAMED, .flags = QN_CF_BARE | QN_CF_HEAD_FIRST, .begin = {NONE},
     .end = NONE, .open = ">>>", .close = NONE, .skip_to = NONE, .drop = NONE, .sep = "\n", .noise = {">>>all\n"}, .gap = NONE},
    {.name = "nemotron-v2", .find = {"<TOOLCALL>"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ARRAY, .begin = {"<TOOLCALL>"}, .end = "</TOOLCALL>",
     .open = NONE, .close = NONE, JSON_KEYS, .gap = ", "},
    {.name = "firefunction", .find = {"functools["}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ARRAY, .begin = {"functools"}, .end = NONE, .open = NONE,
     .close = NONE, JSON_KEYS, .gap = ", "},
    {.name = "cohere", .find = {"<|START_ACTION|>"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ARRAY, .begin = {"<|START_ACTION|>"},
     .end = "<|END_ACTION|>", .open = NONE, .close = NONE, .name_key = "tool_name", .args_key = "parameters",
     .noise = {"<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"}, .gap = ",\n"},
    {.name = "command-r", .find = {"Action:", "```json"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ARRAY,
     .begin = {"Action: ```json", "Action:\n```json", "Action:```json"}, .end = "```", .open = NONE, .close = NONE, .name_key = "tool_name",
     .args_key = "parameters", .gap = ",\n"},
    {.name = "gigachat3.1", .find = {"<|function_call|>"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ONE, .begin = {"<|function_call|>"},
     .end = NONE, .open = NONE, .close = NONE, JSON_KEYS, .noise = {"<|message_sep|>"}, .gap = NONE},
    {.name = "gigachat3", .find = {"function call", "<|role_sep|>"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ONE,
     .begin = {"<|message_sep|>\n\nfunction call<|role_sep|>\n", "function call<|role_sep|>\n"}, .end = NONE, .open = NONE, .close = NONE,
     JSON_KEYS, .noise = {"<|message_sep|>"}, .gap = NONE},
    {.name = "granite", .find = {"<|tool_call|>"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ARRAY, .begin = {"<|tool_call|>", "<tool_call>"}, .end = NONE,
     .open = NONE, .close = NONE, JSON_KEYS, .noise = {"<response>", "</response>"}, .gap = ", "},
    {.name = "mistral-args", .find = {"[TOOL_CALLS]", "[ARGS]"}, .shape = QN_SHAPE_NAMED, .flags = QN_CF_NINE, .begin = {NONE}, .end = NONE,
     .open = "[TOOL_CALLS]", .close = NONE, .skip_to = NONE, .drop = NONE, .sep = "[ARGS]", .gap = NONE},
    {.name = "mistral", .find = {"[TOOL_CALLS]"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_NINE | QN_CF_ARRAY, .begin = {"[TOOL_CALLS]"}, .end = NONE,
     .open = NONE, .close = NONE, JSON_KEYS, .gap = ", "},
    {.name = "phi4", .find = {"<|tool|>", "<|/tool|>"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_ARRAY, .begin = {"<|tool_call|>", "functools"}, .end = NONE,
     .open = NONE, .close = NONE, JSON_KEYS, .noise = {"<|/tool_call|>"}, .gap = ", "},
    {.name = "hermes", .find = {"<tool_call>"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_LOOSE | QN_CF_EACH, .begin = {"<tool_call>", "```json"}, .end = "</tool_call>", .open = NONE, .close = NONE,
     JSON_KEYS, .gap = "\n"},
    {.name = "llama3", .find = {"\"parameters\": ", "Environment: ipython"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_BARE | QN_CF_ONE,
     .begin = {"<|python_tag|>"}, .end = NONE, .open = NONE, .close = NONE, .name_key = "name", .args_key = "parameters", .gap = "; "},
    {.name = "generic", .find = {"\x01"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_LOOSE | QN_CF_EACH, .begin = {"<tool_call>", "```json"}, .end = "</tool_call>", .open = NONE, .close = NONE, JSON_KEYS,
     .gap = "\n"},
    /* By the option only. */
    {.name = "pythonic", .find = {"\x01"}, .shape = QN_SHAPE_LITERAL, .flags = QN_CF_BARE | QN_CF_ARRAY, .begin = {"<|python_start|>"}, .end = NONE,
     .open = NONE, .close = ")", .skip_to = NONE, .drop = NONE, .sep = "(", .value = "=", .noise = {"<|python_end|>"}, .gap = ", "},
    {.name = "xlam", .find = {"\x01"}, .shape = QN_SHAPE_JSON, .flags = QN_CF_BARE | QN_CF_ARRAY, .begin = {NONE}, .end = NONE, .open = NONE,
     .close = NONE, JSON_KEYS, .gap = ", "},
};

static const struct qn_think_format thoughts[] = {
    {"<|channel|>", "<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant<|channel|>final<|message|>", 1},
    {"to=self", " to=self<|message|>", "<|eom|>", "<|start|>assistant to=user<|message|>", 1},
    {"<|START_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>", NONE, 0},
    {"<|channel>thought", "<|channel>thought", "<channel|>", NONE, 1},
    {"<seed:think>", "<seed:think>", "</seed:think>", NONE, 0},
    {"<mm:think>", "<mm:think>", "</mm:think>", NONE, 0},
    {"<think{}>", "<think:opensource>", "</think:opensource>", "\n\n", 0},
    {"open_tag('think')", "<|open|>think<|sep|>", "<|close|>think<|sep|>", NONE, 0},
    {"[BEGIN FINAL RESPONSE]", "Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]", "\n\n", 0},
    {"<|inner_prefix|>", "<|inner_prefix|>", "<|inner_suffix|>", NONE, 0},
    {"assistant<|think|>", "<|think|>", "<|end|>", "<|begin|>assistant<|content|>", 0},
    {"[THINK]", "[THINK]", "[/THINK]", NONE, 0},
    {"◁think▷", "◁think▷", "◁/think▷", "\n\n", 0},
    {"</think>", "<think>", "</think>", "\n\n", 0},
};
/* clang-format on */

enum { N_ROWS = sizeof rows / sizeof *rows, N_THOUGHTS = sizeof thoughts / sizeof *thoughts };

static const struct qn_call_format *row_named(const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (!strcmp(rows[i].name, name)) return &rows[i];
    return NULL;
}

static const struct qn_call_format *row_of(const char *text) {
    for (int i = 0; i < N_ROWS; i++) {
        int k = 0;
        while (k < 3 && rows[i].find[k] && strstr(text, rows[i].find[k])) k++;
        if (k == 3 || !rows[i].find[k]) return &rows[i];
    }
    return row_named("generic");
}

/* A vocabulary with both marks as entries of their own thinks even if its template does not say so (older conversions). */
static int in_vocabulary(const struct qn_tokenizer *tok, const struct qn_think_format *t) {
    return tok && qn_tokenizer_find(tok, t->open, strlen(t->open)) >= 0 && qn_tokenizer_find(tok, t->close, strlen(t->close)) >= 0;
}

void qn_call_formats_list(struct qn_buf *out) {
    for (int i = 0; i < N_ROWS; i++) {
        if (i) qn_buf_puts(out, ", ");
        qn_buf_puts(out, rows[i].name);
    }
}

int qn_call_format_known(const char *name) {
    return !strcmp(name, "auto") || row_named(name);
}

int qn_call_format_find(struct qn_call_marks *out, const struct qn_template *t, const struct qn_tokenizer *tok, const char *name,
                        struct qn_err *err) {
    const char *text = qn_template_text(t);
    *out = (struct qn_call_marks){0};
    if (name && strcmp(name, "auto")) {
        out->calls = row_named(name);
        if (!out->calls) return qn_fail(err, QN_E_RANGE, "tool format '%s' is not known", name);
    } else {
        out->calls = qn_template_mentions(t, "tools") ? row_of(text) : row_named("generic");
        /* functionary's v3.2 and firefunction's read lists of their own making */
        if (!strcmp(out->calls->name, "generic") && row_of(text) != out->calls) out->calls = row_of(text);
    }
    for (int i = 0; i < N_THOUGHTS && !out->think; i++)
        if (strstr(text, thoughts[i].find) || in_vocabulary(tok, &thoughts[i])) out->think = &thoughts[i];
    return 0;
}

/* Control tokens in a mark: the longest at each place. */
static size_t add_shown(const struct qn_tokenizer *tok, const char *mark, uint32_t *ids, size_t n, size_t max) {
    size_t len = mark ? strlen(mark) : 0;
    for (size_t i = 0; i < len; i++)
        for (size_t k = len - i; k > 1; k--) {
            int64_t id = qn_tokenizer_find(tok, mark + i, k);
            if (id < 0) continue;
            size_t j = 0;
            while (j < n && ids[j] != (uint32_t)id) j++;
            if (j == n && n < max && qn_tokenizer_kind(tok, (uint32_t)id) == QN_TOKEN_CONTROL) ids[n++] = (uint32_t)id;
            i += k - 1;
            break;
        }
    return n;
}

size_t qn_call_shown(const struct qn_call_marks *m, const struct qn_tokenizer *tok, uint32_t *ids, size_t max) {
    const struct qn_call_format *f = m->calls;
    const char *const marks[] = {m->think ? m->think->open : NULL, m->think ? m->think->close : NULL, f->begin[0], f->end, f->open, f->close,
                                 f->skip_to, f->sep, f->param, f->key_end, f->value, f->value_end, f->header, f->header ? "<|message|><|channel|>" : NULL,
                                 f->begin[0] ? f->begin[1] : NULL};
    size_t n = 0;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) n = add_shown(tok, marks[i], ids, n, max);
    for (size_t i = 0; i < 6 && f->noise[i]; i++) n = add_shown(tok, f->noise[i], ids, n, max);
    return n;
}

int qn_call_frames(const struct qn_call_marks *m) {
    return m->calls->header || m->calls->noise[0];
}

int qn_call_opens_thinking(const struct qn_call_marks *m, const char *text, size_t n) {
    static const char blanks[] = " \n\r\t";
    if (!m->think) return 0;
    size_t k = strlen(m->think->open);
    while (n && memchr(blanks, text[n - 1], 4)) n--;
    while (k && memchr(blanks, m->think->open[k - 1], 4)) k--;
    return n >= k && !memcmp(text + n - k, m->think->open, k);
}

size_t qn_call_thought_end(const struct qn_call_marks *m, const char *text, size_t n) {
    const char *at = m->think && n ? memmem(text, n, m->think->close, strlen(m->think->close)) : NULL;
    return at ? (size_t)(at - text) + strlen(m->think->close) : 0;
}

int qn_call_generic(const struct qn_call_marks *m) {
    return !strcmp(m->calls->name, "generic");
}

const char *qn_call_format_name(const struct qn_call_marks *m) {
    return m->calls->name;
}
