/* From a file, an environment and each other: where settings come from. YAML is read as libyaml's events, so that what
 * YAML can do and a configuration should not (anchors, aliases, tags, merges, several documents, keys twice) is refused
 * where it stands, and every mistake is told in one pass. */
#include "server/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "server/listen.h"

enum { FILE_BYTES_MAX = 1 << 20, NAME_MAX_BYTES = 128, EVENTS_MAX = 100000 };

struct reader {
    struct qn_settings *s;
    yaml_parser_t parser;
    const char *label;
    unsigned char seen[64];
    const char *sections_seen[16];
    int events;
};

static void at(const struct reader *r, const yaml_mark_t *m, char where[512]) {
    snprintf(where, 512, "%s:%zu:%zu", r->label, m->line + 1, m->column + 1);
}

/* The next event, or -1 when the text is not YAML (told). */
static int next(struct reader *r, yaml_event_t *ev) {
    char where[512];
    if (++r->events > EVENTS_MAX) {
        qn_settings_complain(r->s, "%s: too much", r->label);
        return -1;
    }
    if (yaml_parser_parse(&r->parser, ev)) return 0;
    at(r, &r->parser.problem_mark, where);
    qn_settings_complain(r->s, "%s: not YAML: %s%s%s", where, r->parser.problem ? r->parser.problem : "unreadable",
                         r->parser.context ? ", " : "", r->parser.context ? r->parser.context : "");
    return -1;
}

/* Refuses what a node may carry beside its value. */
static int odd_node(struct reader *r, const yaml_event_t *ev) {
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (ev->type == YAML_SCALAR_EVENT) anchor = ev->data.scalar.anchor, tag = ev->data.scalar.tag;
    if (ev->type == YAML_SEQUENCE_START_EVENT) anchor = ev->data.sequence_start.anchor, tag = ev->data.sequence_start.tag;
    if (ev->type == YAML_MAPPING_START_EVENT) anchor = ev->data.mapping_start.anchor, tag = ev->data.mapping_start.tag;
    const char *what = ev->type == YAML_ALIAS_EVENT ? "an alias" : anchor ? "an anchor" : tag ? "a tag" : NULL;
    char where[512];
    if (!what) return 0;
    at(r, &ev->start_mark, where);
    qn_settings_complain(r->s, "%s: %s has no place in a configuration", where, what);
    return 1;
}

/* Skips a node whose first event is ev (deleted here). */
static int skip(struct reader *r, yaml_event_t *ev) {
    int depth = 0, rc = 0;
    for (;;) {
        if (ev->type == YAML_SEQUENCE_START_EVENT || ev->type == YAML_MAPPING_START_EVENT) depth++;
        if (ev->type == YAML_SEQUENCE_END_EVENT || ev->type == YAML_MAPPING_END_EVENT) depth--;
        yaml_event_delete(ev);
        if (depth <= 0 || rc < 0) return rc;
        if ((rc = next(r, ev)) < 0) return rc;
    }
}

static int has_nul(const yaml_event_t *ev) { return memchr(ev->data.scalar.value, 0, ev->data.scalar.length) != NULL; }

static const char *text(const yaml_event_t *ev) { return (const char *)ev->data.scalar.value; }

static void set(struct reader *r, const char *name, const yaml_event_t *ev) {
    char where[512];
    at(r, &ev->start_mark, where);
    if (has_nul(ev)) qn_settings_complain(r->s, "%s: %s holds a NUL", where, name);
    else qn_settings_set(r->s, name, text(ev), QN_FROM_FILE, where);
}

static int value_list(struct reader *r, const char *name, const struct qn_option *o) {
    yaml_event_t ev;
    char where[512];
    int rc = 0, n = 0;
    while ((rc = next(r, &ev)) == 0 && ev.type != YAML_SEQUENCE_END_EVENT) {
        n++;
        if (odd_node(r, &ev) || ev.type != YAML_SCALAR_EVENT) {
            at(r, &ev.start_mark, where);
            if (ev.type != YAML_SCALAR_EVENT && ev.type != YAML_ALIAS_EVENT) qn_settings_complain(r->s, "%s: %s takes a list of plain values", where, name);
            if ((rc = skip(r, &ev)) < 0) return rc;
            continue;
        }
        if (o) set(r, name, &ev);
        yaml_event_delete(&ev);
    }
    if (rc == 0) {
        if (n == 0 && o) qn_settings_set(r->s, name, "", QN_FROM_FILE, r->label); /* an empty list clears the default */
        yaml_event_delete(&ev);
    }
    return rc;
}

/* The value of section.key. */
static int value(struct reader *r, const char *name, const yaml_mark_t *key_mark) {
    yaml_event_t ev;
    char where[512];
    if (next(r, &ev) < 0) return -1;
    const struct qn_option *o = qn_option_find(name);
    at(r, key_mark, where);
    if (!o) {
        qn_settings_set(r->s, name, "", QN_FROM_FILE, where); /* says that there is none, and what is near */
        return skip(r, &ev);
    }
    if (r->seen[o - qn_options]++) {
        qn_settings_complain(r->s, "%s: %s is given twice", where, name);
        return skip(r, &ev);
    }
    if (odd_node(r, &ev)) return skip(r, &ev);
    if (ev.type == YAML_SEQUENCE_START_EVENT && o->kind == QN_OPT_LIST) {
        yaml_event_delete(&ev);
        return value_list(r, name, o);
    }
    if (ev.type == YAML_SCALAR_EVENT) {
        if (!*text(&ev) && ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE) qn_settings_complain(r->s, "%s: %s has no value", where, name);
        else set(r, name, &ev);
        yaml_event_delete(&ev);
        return 0;
    }
    qn_settings_complain(r->s, "%s: %s takes %s", where, name, o->kind == QN_OPT_LIST ? "a list of plain values" : "one plain value");
    return skip(r, &ev);
}

static int known_section(const char *s) {
    size_t n = strlen(s);
    for (int i = 0; i < qn_n_options; i++)
        if (!strncmp(qn_options[i].name, s, n) && qn_options[i].name[n] == '.') return i;
    return -1;
}

/* The keys of a section; its MAPPING_START was read. */
static int section(struct reader *r, const char *name) {
    yaml_event_t ev;
    char where[512], full[NAME_MAX_BYTES + 8];
    int rc = 0;
    while ((rc = next(r, &ev)) == 0 && ev.type != YAML_MAPPING_END_EVENT) {
        yaml_mark_t mark = ev.start_mark;
        at(r, &mark, where);
        if (odd_node(r, &ev) || ev.type != YAML_SCALAR_EVENT || has_nul(&ev)) {
            if (ev.type != YAML_SCALAR_EVENT && ev.type != YAML_ALIAS_EVENT) qn_settings_complain(r->s, "%s: a key must be a plain word", where);
            if (skip(r, &ev) < 0 || next(r, &ev) < 0 || skip(r, &ev) < 0) return -1;
            continue;
        }
        if (!strcmp(text(&ev), "<<")) {
            qn_settings_complain(r->s, "%s: a merge has no place in a configuration", where);
            yaml_event_delete(&ev);
            if (next(r, &ev) < 0 || skip(r, &ev) < 0) return -1;
            continue;
        }
        snprintf(full, sizeof full, "%.63s.%.64s", name, text(&ev));
        yaml_event_delete(&ev);
        if (value(r, full, &mark) < 0) return -1;
    }
    if (rc == 0) yaml_event_delete(&ev);
    return rc;
}

/* One `section:` of the top mapping; ev is its key. */
static int top_key(struct reader *r, yaml_event_t *ev) {
    char where[512], name[NAME_MAX_BYTES];
    at(r, &ev->start_mark, where);
    int odd = odd_node(r, ev);
    if (odd || ev->type != YAML_SCALAR_EVENT || has_nul(ev)) {
        if (!odd) qn_settings_complain(r->s, "%s: a section must be a plain word", where);
        if (skip(r, ev) < 0 || next(r, ev) < 0) return -1;
        return skip(r, ev);
    }
    snprintf(name, sizeof name, "%s", text(ev));
    yaml_event_delete(ev);
    if (next(r, ev) < 0) return -1;
    int first = known_section(name);
    if (first < 0) {
        qn_settings_complain(r->s, "%s: no section is called \"%.64s\" (there are server, model, engine, limits and log)", where, name);
        return skip(r, ev);
    }
    for (int i = 0; i < 16; i++) {
        if (r->sections_seen[i] && !strcmp(r->sections_seen[i], qn_options[first].name)) {
            qn_settings_complain(r->s, "%s: section %s is given twice", where, name);
            return skip(r, ev);
        }
        if (!r->sections_seen[i]) {
            r->sections_seen[i] = qn_options[first].name;
            break;
        }
    }
    if (odd_node(r, ev)) return skip(r, ev);
    if (ev->type == YAML_SCALAR_EVENT && !*text(ev)) return skip(r, ev); /* a section with all its lines commented out */
    if (ev->type != YAML_MAPPING_START_EVENT) {
        qn_settings_complain(r->s, "%s: section %s takes keys with values", where, name);
        return skip(r, ev);
    }
    yaml_event_delete(ev);
    return section(r, name);
}

/* STREAM_START, DOCUMENT_START, MAPPING_START … in this order, or nothing at all. */
static int document(struct reader *r) {
    yaml_event_t ev;
    char where[512];
    int rc = 0;
    for (int started = 0;;) {
        if (next(r, &ev) < 0) return -1;
        yaml_event_type_t t = ev.type;
        if (t == YAML_STREAM_END_EVENT) {
            yaml_event_delete(&ev);
            return 0;
        }
        if (t == YAML_MAPPING_START_EVENT && started == 1 && !odd_node(r, &ev)) {
            yaml_event_delete(&ev);
            while ((rc = next(r, &ev)) == 0 && ev.type != YAML_MAPPING_END_EVENT)
                if (top_key(r, &ev) < 0) return -1;
            if (rc < 0) return -1;
            yaml_event_delete(&ev);
            continue;
        }
        at(r, &ev.start_mark, where);
        if (t == YAML_DOCUMENT_START_EVENT && started++) {
            qn_settings_complain(r->s, "%s: a second document has no place in a configuration", where);
            yaml_event_delete(&ev);
            return -1;
        }
        if (t == YAML_SCALAR_EVENT || t == YAML_SEQUENCE_START_EVENT || t == YAML_ALIAS_EVENT || t == YAML_MAPPING_START_EVENT) {
            if (t != YAML_SCALAR_EVENT || *text(&ev)) qn_settings_complain(r->s, "%s: the file must hold sections (server:, model:, engine:, limits:, log:)", where);
            if (skip(r, &ev) < 0) return -1;
            continue;
        }
        yaml_event_delete(&ev);
    }
}

int qn_settings_yaml(struct qn_settings *s, const char *bytes, size_t n, const char *label) {
    struct reader r;
    memset(&r, 0, sizeof r);
    r.s = s;
    r.label = label;
    int before = s->n_errors;
    if (!yaml_parser_initialize(&r.parser)) return QN_E_NOMEM;
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)bytes, n);
    document(&r);
    yaml_parser_delete(&r.parser);
    return s->n_errors > before ? QN_E_DATA : 0;
}

int qn_settings_file(struct qn_settings *s, const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        qn_settings_complain(s, "%s: cannot be read (%s)", path, strerror(errno));
        return errno == ENOENT ? QN_E_NOT_FOUND : QN_E_IO;
    }
    char *p = malloc(FILE_BYTES_MAX + 1);
    size_t n = p ? fread(p, 1, FILE_BYTES_MAX + 1, f) : 0;
    int rc = !p ? QN_E_NOMEM : ferror(f) ? QN_E_IO : 0;
    fclose(f);
    if (rc < 0) qn_settings_complain(s, "%s: cannot be read", path);
    else if (n > FILE_BYTES_MAX) qn_settings_complain(s, "%s: larger than 1 MiB", path), rc = QN_E_DATA;
    else rc = qn_settings_yaml(s, p, n, path);
    free(p);
    return rc;
}

/* QUERN_ENGINE_MAX_SEQS -> engine.max_seqs: the first word is the section. */
static void env_to_name(const char *env, size_t n, char name[NAME_MAX_BYTES]) {
    size_t i = 0;
    int dot = 0;
    for (size_t k = 0; k < n && i + 1 < NAME_MAX_BYTES; k++) {
        char c = (char)tolower((unsigned char)env[k]);
        if (c == '_' && !dot) c = '.', dot = 1;
        name[i++] = c;
    }
    name[i] = 0;
}

/* Set by others for their own ends; not options. */
static const char *const foreign[] = { "QUERN_CACHE", "QUERN_MODELS", "QUERN_MODEL_URL", "QUERN_HOME" };

int qn_settings_env(struct qn_settings *s, char **env) {
    int before = s->n_errors;
    for (; env && *env; env++) {
        const char *eq = strchr(*env, '=');
        if (strncmp(*env, "QUERN_", 6) || !eq) continue;
        int skip_it = 0;
        for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
            if (!strncmp(*env, foreign[i], strlen(foreign[i])) && (*env)[strlen(foreign[i])] == '=') skip_it = 1;
        if (skip_it) continue;
        char name[NAME_MAX_BYTES], where[NAME_MAX_BYTES];
        env_to_name(*env + 6, (size_t)(eq - *env) - 6, name);
        snprintf(where, sizeof where, "%.*s", (int)(eq - *env), *env);
        const struct qn_option *o = qn_option_find(name);
        if (!o || o->kind != QN_OPT_LIST || !eq[1]) {
            qn_settings_set(s, name, eq + 1, QN_FROM_ENV, where);
            continue;
        }
        for (const char *p = eq + 1; *p;) {
            size_t k = strcspn(p, ",");
            char item[512];
            snprintf(item, sizeof item, "%.*s", (int)k, p);
            qn_settings_set(s, name, item, QN_FROM_ENV, where);
            p += k + (p[k] == ',');
        }
    }
    return s->n_errors > before ? QN_E_DATA : 0;
}

int qn_settings_check(struct qn_settings *s) {
    int before = s->n_errors;
    struct qn_config *c = &s->c;
    struct qn_err err;
    for (int i = 0; i < c->listen.n; i++) {
        struct qn_address a;
        err.code = 0;
        if (qn_address_parse(&a, c->listen.p[i], &err) < 0) qn_settings_complain(s, "server.listen: %s", err.text);
        else if (a.is_public && !c->allow_public)
            qn_settings_complain(s, "server.listen: %s can be reached by other machines and there are no API keys; listen on 127.0.0.1, or set server.allow_public: true", c->listen.p[i]);
    }
    if (c->target_bytes_max >= c->head_bytes_max) qn_settings_complain(s, "server.target_bytes_max must be less than server.head_bytes_max");
    for (int i = 0; i < c->origins.n; i++) {
        const char *o = c->origins.p[i];
        if (strcmp(o, "*") && strcmp(o, "null") && !strstr(o, "://")) qn_settings_complain(s, "server.origins: \"%.64s\" is not an origin such as https://app.example", o);
    }
    return s->n_errors > before ? QN_E_DATA : 0;
}
