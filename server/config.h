/* The configuration: one table of options (options.c) from which everything follows - the YAML file, the environment
 * (QUERN_SECTION_KEY), the flags, --dump-config, conf/quern.yaml, the manual page and the JSON Schema.
 *
 *   defaults < file < environment < --set and the short flags
 *
 * Fills a struct and touches nothing else: no socket, no model. Every mistake of a file is reported in one pass, with line
 * and column. Thread: its owner's. */
#ifndef QN_CONFIG_H
#define QN_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/buf.h"
#include "engine/base/err.h"

struct qn_strs { char **p; int n; };

enum { QN_LOG_DEBUG, QN_LOG_INFO, QN_LOG_WARN, QN_LOG_ERROR };
enum { QN_LOG_AUTO, QN_LOG_JSON, QN_LOG_PRETTY };

struct qn_config { /* numbers are int64_t whatever they count, strings are owned, "" where nothing was given */
    struct qn_strs listen, hosts, origins;
    int64_t allow_public, unix_mode, backlog, connections_max;
    int64_t head_bytes_max, target_bytes_max, fields_max, body_bytes_max;
    int64_t head_s, body_s, body_rate_min, keep_alive_s, stall_s, ping_s, drain_s, watchdog_s;
    char *model_path, *model_name, *chat_template, *tool_format;
    int64_t ctx;
    char *device, *isa, *affinity, *kv_type;
    int64_t threads, max_seqs, step_rows, prefill_chunk, step_stretch, speculation, draft_rows, kv_bytes, waiting_max, waiting_tokens_max, wait_ms_max, prefix_cache;
    int64_t n_max;
    int64_t log_level, log_format, log_requests;
};

enum qn_option_kind { QN_OPT_STR, QN_OPT_LIST, QN_OPT_INT, QN_OPT_BYTES, QN_OPT_S, QN_OPT_MS, QN_OPT_BOOL, QN_OPT_ENUM, QN_OPT_OCTAL };
enum qn_option_reload { QN_RESTART, QN_RELOAD };

struct qn_option {
    const char *name;       /* "section.key" */
    enum qn_option_kind kind;
    size_t offset;          /* in struct qn_config: int64_t, char * or struct qn_strs */
    int64_t min, max;       /* numbers; with min 0 the word "auto" stands for 0 where the default is "auto" */
    const char *dflt;       /* as it would be written in the file; lists: "" or one item */
    const char *choices;    /* ENUM: words separated by a space, in the order of their values; STR: NULL: any */
    enum qn_option_reload reload;
    const char *flag;       /* "--threads", or NULL */
    const char *meta;       /* the flag's argument in --help */
    const char *help;       /* one sentence or a few */
};

extern const struct qn_option qn_options[];
extern const int qn_n_options;

enum qn_config_source { QN_FROM_DEFAULT, QN_FROM_FILE, QN_FROM_ENV, QN_FROM_FLAG };

struct qn_settings {        /* a configuration with the story of each option */
    struct qn_config c;
    unsigned char source[64];
    struct qn_buf errors;   /* one line each */
    int n_errors;
    int no_memory;          /* something is missing above: do not use it */
};

void qn_settings_init(struct qn_settings *s);   /* the defaults */
void qn_settings_done(struct qn_settings *s);

/* One option from text. A list is replaced by the first value of a stronger source and grows by the following ones.
 * `where` starts the error's line ("FILE:3:7", "--set", "QUERN_LOG_LEVEL"). Returns 0, or QN_E_RANGE / QN_E_NOT_FOUND with a
 * line in s->errors. */
int qn_settings_set(struct qn_settings *s, const char *name, const char *value, enum qn_config_source from, const char *where);
/* A YAML file: a mapping of sections to mappings. `label` names it in errors. Returns 0, or QN_E_DATA with lines in s->errors. */
int qn_settings_yaml(struct qn_settings *s, const char *text, size_t n, const char *label);
/* Reads the file. QN_E_NOT_FOUND, QN_E_IO: no such file, unreadable (a line in s->errors too). */
int qn_settings_file(struct qn_settings *s, const char *path);
/* QUERN_SECTION_KEY of `environ`-like env; lists are separated by commas. Unknown QUERN_ names are errors. */
int qn_settings_env(struct qn_settings *s, char **env);
/* What options forbid each other. Call it once, last. */
int qn_settings_check(struct qn_settings *s);

/* Adds a line to s->errors. */
__attribute__((format(printf, 2, 3)))
void qn_settings_complain(struct qn_settings *s, const char *fmt, ...);
/* NULL: no option of that name. */
const struct qn_option *qn_option_find(const char *name);
/* The option whose name is likely meant, or NULL. */
const struct qn_option *qn_option_near(const char *name);
/* The value as the file would spell it (a list: one line a value, as " - x"). */
void qn_option_print(const struct qn_option *o, const struct qn_config *c, struct qn_buf *out);
int qn_option_equal(const struct qn_option *o, const struct qn_config *a, const struct qn_config *b);
/* Moves every reloadable option's value from `from` to `to` (from keeps the old one). Calls changed(ctx, option, applied) for
 * each option that differs; applied is 0 when it needs a restart. */
void qn_config_reload(struct qn_config *to, struct qn_config *from, void (*changed)(void *ctx, const struct qn_option *o, int applied), void *ctx);

/* server/config_doc.c: what is made from the table. */
void qn_config_dump(const struct qn_settings *s, struct qn_buf *out);   /* effective values with their sources */
void qn_config_example(struct qn_buf *out);                             /* conf/quern.yaml */
void qn_config_man(struct qn_buf *out);                                 /* conf/quern.yaml.5 */
void qn_config_schema(struct qn_buf *out);                              /* JSON Schema of the file */
void qn_config_help(struct qn_buf *out);                                /* the flags, for --help */

#endif
