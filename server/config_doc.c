/* Everything that is written from the option table: help, dumps, the commented example file, the manual page and a JSON
 * Schema. One pass over the rows each; words are the table's. */
#include "server/config.h"

#include <stdio.h>
#include <string.h>

enum { WIDTH = 100 };
static const struct { const char *name, *title; } sections[] = {
    { "server", "addresses, limits and deadlines of the HTTP front end" },
    { "model", "what is served" },
    { "engine", "how it is computed" },
    { "limits", "what one request may ask for" },
    { "log", "lines on standard error" },
};

static int in_section(const struct qn_option *o, const char *section) {
    size_t n = strlen(section);
    return !strncmp(o->name, section, n) && o->name[n] == '.';
}

static const char *key(const struct qn_option *o) { return strchr(o->name, '.') + 1; }

/* Text broken into lines that start with `lead`. */
static void wrap(struct qn_buf *out, const char *lead, const char *text) {
    size_t room = WIDTH - strlen(lead);
    while (*text) {
        size_t n = strlen(text);
        if (n > room) {
            for (n = room; n > 0 && text[n] != ' ';) n--;
            if (n == 0) n = strcspn(text, " ");
        }
        qn_buf_puts(out, lead);
        qn_buf_put(out, text, n);
        qn_buf_putc(out, '\n');
        text += n;
        while (*text == ' ') text++;
    }
}

static void print_range(const struct qn_option *o, struct qn_buf *out) {
    struct qn_config c;
    struct qn_option plain = *o;
    if (o->choices) {
        qn_buf_puts(out, o->choices);
        return;
    }
    static const char *const kinds[] = { "text", "list", "", "", "", "", "true or false", "", "" };
    if (*kinds[o->kind]) {
        qn_buf_puts(out, kinds[o->kind]);
        return;
    }
    memset(&c, 0, sizeof c);
    plain.dflt = "";
    int is_auto = !strcmp(o->dflt, "auto");
    int64_t *v = (int64_t *)(void *)((char *)&c + o->offset);
    if (is_auto) qn_buf_puts(out, "auto, or ");
    *v = is_auto ? 1 : o->min;
    qn_option_print(&plain, &c, out);
    qn_buf_puts(out, " to ");
    *v = o->max;
    qn_option_print(&plain, &c, out);
}

void qn_config_dump(const struct qn_settings *s, struct qn_buf *out) {
    static const char *const from[] = { "default", "file", "environment", "flag" };
    for (size_t k = 0; k < sizeof sections / sizeof *sections; k++) {
        qn_buf_printf(out, "%s:\n", sections[k].name);
        for (int i = 0; i < qn_n_options; i++) {
            const struct qn_option *o = &qn_options[i];
            if (!in_section(o, sections[k].name)) continue;
            size_t start = out->n;
            qn_buf_printf(out, "  %s: ", key(o));
            qn_option_print(o, &s->c, out);
            if (s->source[i] != QN_FROM_DEFAULT) {
                while (out->n - start < 40 && !out->failed) qn_buf_putc(out, ' ');
                qn_buf_printf(out, " # %s", from[s->source[i]]);
            }
            qn_buf_putc(out, '\n');
        }
    }
}

void qn_config_example(struct qn_buf *out) {
    struct qn_settings s;
    qn_settings_init(&s);
    qn_buf_puts(out, "# Quern's configuration, every option with its default. Nothing here has to be set: remove a # to change a line.\n"
                     "# quernd --config FILE reads it; the environment (QUERN_SERVER_LISTEN=…) and flags (--set server.listen=…) win over it.\n"
                     "# quernd --check-config says what is wrong with a file, with line and column. SIGHUP reads it again: options marked\n"
                     "# [reload] change at once, the others at the next start.\n"
                     "#\n"
                     "# Made from the option table by quernd --dump-example; edit server/options.c instead.\n");
    for (size_t k = 0; k < sizeof sections / sizeof *sections; k++) {
        qn_buf_printf(out, "\n%s: # %s\n", sections[k].name, sections[k].title);
        for (int i = 0; i < qn_n_options; i++) {
            const struct qn_option *o = &qn_options[i];
            if (!in_section(o, sections[k].name)) continue;
            qn_buf_putc(out, '\n');
            wrap(out, "  # ", o->help);
            qn_buf_puts(out, "  # (");
            print_range(o, out);
            qn_buf_puts(out, o->reload == QN_RELOAD ? ") [reload]\n" : ")\n");
            qn_buf_printf(out, "  #%s: ", key(o));
            qn_option_print(o, &s.c, out);
            qn_buf_putc(out, '\n');
        }
    }
    qn_settings_done(&s);
}

/* Text that troff takes literally, in lines that an editor shows whole. */
static void man_text(struct qn_buf *out, const char *s) {
    size_t start = out->n;
    for (const char *c = s; *c; c++) {
        if (*c == ' ' && out->n - start > 60 && c[1] != '.' && c[1] != '\'') {
            qn_buf_putc(out, '\n');
            start = out->n;
            continue;
        }
        if (*c == '\\') qn_buf_puts(out, "\\e");
        else if (*c == '-') qn_buf_puts(out, "\\-");
        else if ((*c == '.' || *c == '\'') && (c == s || c[-1] == '\n')) qn_buf_printf(out, "\\&%c", *c);
        else qn_buf_putc(out, *c);
    }
}

void qn_config_man(struct qn_buf *out) {
    struct qn_settings s;
    struct qn_buf v;
    qn_settings_init(&s);
    qn_buf_init(&v, 8192);
    qn_buf_puts(out, ".\\\" Made from the option table by quernd --dump-man; edit server/options.c instead.\n"
                     ".TH QUERN.YAML 5 \"November 24, 2026\" \"Quern " QN_VERSION "\" \"File formats\"\n"
                     ".SH NAME\nquern.yaml \\- configuration of the Quern model server\n"
                     ".SH DESCRIPTION\n"
                     ".BR quernd (8)\nreads this file when it is started with\n.BR \\-\\-config .\n"
                     "It is YAML: sections that hold keys with values.\n"
                     "Anchors, aliases, tags, merges, several documents and keys given twice are\nrefused.\n"
                     "Every mistake is reported with its line and column, and the daemon then\nexits with status 78.\n"
                     ".PP\nThe same options can be set in the environment, as\n.B QUERN_SECTION_KEY\n"
                     "(lists separated by commas), and with\n.BR \\-\\-set \" \" section.key=value .\n"
                     "Flags win over the environment, the environment over the file.\n"
                     ".PP\nSizes take the units K, M, G and T (powers of 1024), times s, m, h or ms.\n"
                     "On SIGHUP the file is read again; when it is right as a whole, options marked\n.I reload\n"
                     "change at once and the others are reported as waiting for a restart.\n");
    for (size_t k = 0; k < sizeof sections / sizeof *sections; k++) {
        qn_buf_printf(out, ".SH \"SECTION %s\"\n", sections[k].name);
        for (int i = 0; i < qn_n_options; i++) {
            const struct qn_option *o = &qn_options[i];
            if (!in_section(o, sections[k].name)) continue;
            qn_buf_puts(out, ".TP\n.BR ");
            man_text(out, o->name);
            qn_buf_reset(&v);
            print_range(o, &v);
            qn_buf_puts(out, " \" (");
            man_text(out, v.p ? v.p : "");
            qn_buf_puts(out, ")\"\n");
            man_text(out, o->help);
            qn_buf_reset(&v);
            qn_option_print(o, &s.c, &v);
            qn_buf_puts(out, "\nDefault: ");
            man_text(out, v.p && strcmp(v.p, "\"\"") && strcmp(v.p, "[]") ? v.p : "none");
            qn_buf_puts(out, ".");
            if (o->flag) {
                qn_buf_puts(out, " Flag: ");
                man_text(out, o->flag);
                qn_buf_puts(out, ".");
            }
            qn_buf_puts(out, o->reload == QN_RELOAD ? "\n.I reload\n" : "\n");
        }
    }
    qn_buf_puts(out, ".SH EXAMPLE\n.nf\nserver:\n  listen: [127.0.0.1:8080, unix:/run/quern/quern.sock]\nmodel:\n  path: /var/lib/quern/model.gguf\n"
                     "  name: assistant\nengine:\n  threads: 8\n  kv_bytes: 4G\n.fi\n.SH SEE ALSO\n.BR quernd (8)\n");
    qn_buf_done(&v);
    qn_settings_done(&s);
}

static void json_text(struct qn_buf *out, const char *s) {
    qn_buf_putc(out, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') qn_buf_putc(out, '\\');
        qn_buf_putc(out, *s);
    }
    qn_buf_putc(out, '"');
}

static void schema_type(const struct qn_option *o, struct qn_buf *out) {
    if (o->choices && strstr(o->choices, ":N")) {
        qn_buf_puts(out, "\"type\":\"string\",\"pattern\":\"^(");
        for (const char *w = o->choices; *w; w++) {
            if (*w == 'N') qn_buf_puts(out, "[0-9]{1,3}");
            else qn_buf_putc(out, *w == ' ' ? '|' : *w);
        }
        qn_buf_puts(out, ")$\"");
    } else if (o->choices) {
        qn_buf_puts(out, "\"enum\":[");
        for (const char *w = o->choices; *w;) {
            size_t n = strcspn(w, " ");
            qn_buf_printf(out, "%s\"%.*s\"", w == o->choices ? "" : ",", (int)n, w);
            w += n + (w[n] == ' ');
        }
        qn_buf_puts(out, "]");
    } else if (o->kind == QN_OPT_STR) qn_buf_puts(out, "\"type\":\"string\"");
    else if (o->kind == QN_OPT_LIST) qn_buf_puts(out, "\"type\":[\"array\",\"string\"],\"items\":{\"type\":\"string\"}");
    else if (o->kind == QN_OPT_BOOL) qn_buf_puts(out, "\"type\":\"boolean\"");
    else if (o->kind == QN_OPT_INT && strcmp(o->dflt, "auto")) qn_buf_printf(out, "\"type\":\"integer\",\"minimum\":%lld,\"maximum\":%lld", (long long)o->min, (long long)o->max);
    else qn_buf_puts(out, "\"type\":[\"integer\",\"string\"]");
}

void qn_config_schema(struct qn_buf *out) {
    struct qn_settings s;
    struct qn_buf v;
    qn_settings_init(&s);
    qn_buf_init(&v, 8192);
    qn_buf_puts(out, "{\n\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\n\"title\":\"quern.yaml\",\n\"type\":\"object\",\n\"additionalProperties\":false,\n\"properties\":{");
    for (size_t k = 0; k < sizeof sections / sizeof *sections; k++) {
        qn_buf_printf(out, "%s\n\"%s\":{\"type\":[\"object\",\"null\"],\"additionalProperties\":false,\"properties\":{", k ? "," : "", sections[k].name);
        for (int i = 0, n = 0; i < qn_n_options; i++) {
            const struct qn_option *o = &qn_options[i];
            if (!in_section(o, sections[k].name)) continue;
            qn_buf_printf(out, "%s\n  \"%s\":{", n++ ? "," : "", key(o));
            schema_type(o, out);
            qn_buf_reset(&v);
            print_range(o, &v);
            qn_buf_puts(out, ",\"description\":");
            json_text(out, o->help);
            qn_buf_puts(out, ",\"default\":");
            if (o->kind == QN_OPT_LIST) qn_buf_printf(out, *o->dflt ? "[\"%s\"]" : "[]", o->dflt);
            else if (o->kind == QN_OPT_BOOL || (o->kind == QN_OPT_INT && strcmp(o->dflt, "auto"))) qn_buf_puts(out, o->dflt);
            else json_text(out, o->dflt);
            qn_buf_putc(out, '}');
        }
        qn_buf_puts(out, "}}");
    }
    qn_buf_puts(out, "\n}}\n");
    qn_buf_done(&v);
    qn_settings_done(&s);
}

void qn_config_help(struct qn_buf *out) {
    for (int i = 0; i < qn_n_options; i++) {
        const struct qn_option *o = &qn_options[i];
        if (!o->flag) continue;
        size_t end = strcspn(o->help, ".:;");
        qn_buf_printf(out, "  %-16s %-22s %.*s (%s)\n", o->flag, o->meta, (int)end, o->help, o->name);
    }
}
