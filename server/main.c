/* quernd: starts configuration, engine, api and loop, and stops them in mirror order; nothing per request. The one place
 * that sees all three layers. Every mistake at the start is one line that names what is wrong, and an exit code of
 * sysexits(3) that scripts can tell apart. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>
#include <unistd.h>

#include "api/api.h"
#include "engine/base/clock.h"
#include "engine/engine.h"
#include "server/config.h"
#include "server/http.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/notify.h"

enum { TEMPLATE_BYTES_MAX = 1 << 20, FLUSH_MS = 500, OUT_MAX = 1 << 20 };
enum what { SERVE, CHECK, DUMP, DUMP_EXAMPLE, DUMP_MAN, DUMP_SCHEMA, VERSION, HELP };

struct daemon {
    struct qn_settings settings;
    int argc;
    char **argv;
    struct qn_loop loop;
    struct qn_http http;
    struct qn_engine *engine;
    struct qn_api *api;
    char *template_text;
    char name[256];         /* served name where none is configured */
    int cutting, sick, lost;
};

extern char **environ;

/* ---- the command line ---- */

static int usage(struct qn_settings *s, const char *fmt, const char *arg) {
    char text[256];
    snprintf(text, sizeof text, fmt, arg);
    qn_settings_complain(s, "%s (quernd --help lists the flags)", text);
    return EX_USAGE;
}

/* The value of a flag at argv[*i]: behind '=' or the next argument. NULL: there is none. */
static const char *flag_value(int argc, char **argv, int *i) {
    const char *eq = strchr(argv[*i], '=');
    if (eq) return eq + 1;
    return *i + 1 < argc ? argv[++*i] : NULL;
}

static int is_flag(const char *arg, const char *name) {
    size_t n = strlen(name);
    return !strncmp(arg, name, n) && (!arg[n] || arg[n] == '=');
}

static int set_pair(struct qn_settings *s, const char *pair) {
    char name[128];
    const char *eq = strchr(pair, '=');
    if (!eq || (size_t)(eq - pair) >= sizeof name) return usage(s, "--set takes section.key=value, not \"%.64s\"", pair);
    memcpy(name, pair, (size_t)(eq - pair));
    name[eq - pair] = 0;
    return qn_settings_set(s, name, eq + 1, QN_FROM_FLAG, "--set") < 0 ? EX_USAGE : 0;
}

static const struct { const char *flag; enum what what; } modes[] = {
    { "--check-config", CHECK }, { "--dump-config", DUMP }, { "--dump-example", DUMP_EXAMPLE }, { "--dump-man", DUMP_MAN },
    { "--dump-schema", DUMP_SCHEMA }, { "--version", VERSION }, { "-V", VERSION }, { "--help", HELP }, { "-h", HELP },
};

/* One argument: a mode, --config (taken by find_config), --set, or a flag of the option table. */
static int one_flag(struct qn_settings *s, int argc, char **argv, int *i, enum what *what) {
    const char *arg = argv[*i], *v;
    for (size_t k = 0; k < sizeof modes / sizeof *modes; k++)
        if (!strcmp(arg, modes[k].flag)) return *what = modes[k].what, 0;
    if (is_flag(arg, "--config")) return flag_value(argc, argv, i) ? 0 : usage(s, "%s needs a value", "--config");
    if (is_flag(arg, "--set")) return (v = flag_value(argc, argv, i)) ? set_pair(s, v) : usage(s, "%s needs a value", "--set");
    for (int k = 0; k < qn_n_options; k++) {
        const struct qn_option *o = &qn_options[k];
        if (!o->flag || !is_flag(arg, o->flag)) continue;
        if (!(v = flag_value(argc, argv, i))) return usage(s, "%s needs a value", o->flag);
        return qn_settings_set(s, o->name, v, QN_FROM_FLAG, o->flag) < 0 ? EX_USAGE : 0;
    }
    return usage(s, "unknown flag \"%.64s\"", arg);
}

static const char *find_config(int argc, char **argv) {
    const char *path = NULL;
    for (int i = 1; i < argc; i++)
        if (is_flag(argv[i], "--config")) path = flag_value(argc, argv, &i);
    return path;
}

/* All sources, all mistakes. Returns 0 or an exit code. */
static int read_settings(struct qn_settings *s, int argc, char **argv, enum what *what) {
    const char *file = find_config(argc, argv);
    int code = 0;
    qn_settings_init(s);
    if (file) {
        int rc = qn_settings_file(s, file);
        if (rc < 0) code = rc == QN_E_NOT_FOUND ? EX_NOINPUT : EX_CONFIG;
    }
    if (qn_settings_env(s, environ) < 0) code = EX_CONFIG;
    for (int i = 1; i < argc; i++) {
        int rc = one_flag(s, argc, argv, &i, what);
        if (rc && !code) code = rc;
    }
    if (s->no_memory) {
        fputs("quernd: no memory for the configuration\n", stderr);
        return EX_OSERR;
    }
    if (qn_settings_check(s) < 0 && !code) code = EX_CONFIG;
    return code;
}

static void complain(const char *lines) {
    for (const char *p = lines; p && *p;) {
        size_t n = strcspn(p, "\n");
        fprintf(stderr, "quernd: %.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
}

static int print(void (*make)(struct qn_buf *)) {
    struct qn_buf b;
    qn_buf_init(&b, OUT_MAX);
    make(&b);
    int bad = b.failed || fwrite(b.p, 1, b.n, stdout) != b.n || fflush(stdout);
    qn_buf_done(&b);
    return bad ? EX_IOERR : 0;
}

static void help(struct qn_buf *out) {
    qn_buf_puts(out, "quernd serves a language model over HTTP, in OpenAI's protocol.\n\n"
                     "usage: quernd [--config FILE] [--set section.key=value]... [flags]\n\n"
                     "  --config FILE                           Configuration in YAML, quern.yaml(5)\n"
                     "  --set section.key=value                 Any option of it, may be repeated\n");
    qn_config_help(out);
    qn_buf_puts(out, "  --check-config                          Say what is wrong with the configuration, and exit\n"
                     "  --dump-config                           Print every option's value and where it comes from\n"
                     "  --dump-example, --dump-man, --dump-schema   Print a commented file, its manual page, its JSON Schema\n"
                     "  --version, --help\n\n"
                     "Exit codes: 0 drained, 64 usage, 65 model data, 66 no such file, 69 device not available, 71 operating system,\n"
                     "74 input or output failed, 78 configuration. Signals: TERM and INT drain (a second one ends at once), HUP reloads.\n");
}

/* ---- starting ---- */

static int code_of(int rc) {
    switch (rc) {
    case QN_E_NOT_FOUND: return EX_NOINPUT;
    case QN_E_RANGE: return EX_CONFIG; /* an option; what a model holds is DATA */
    case QN_E_DATA: case QN_E_UNSUPPORTED: case QN_E_TOO_LONG: case QN_E_RAISED: case QN_E_LIMIT: return EX_DATAERR;
    case QN_E_IO: return EX_IOERR;
    case QN_E_NOMEM: return EX_OSERR;
    case QN_E_DEVICE: return EX_UNAVAILABLE;
    default: return EX_SOFTWARE;
    }
}

static int fail(int code, const char *text) {
    fprintf(stderr, "quernd: %s\n", text);
    return code;
}

static int find_model(const struct qn_config *c) {
    char text[4608];
    if (!*c->model_path) return fail(EX_USAGE, "no model: give --model FILE (a GGUF file), or set model.path");
    if (!access(c->model_path, R_OK)) return 0;
    snprintf(text, sizeof text, "model '%.4000s': %s", c->model_path, errno == ENOENT ? "no such file" : strerror(errno));
    return fail(EX_NOINPUT, text);
}

static int read_template(struct daemon *d) {
    const char *path = d->settings.c.chat_template;
    char text[4608];
    if (!*path) return 0;
    FILE *f = fopen(path, "rb");
    d->template_text = f ? calloc(1, TEMPLATE_BYTES_MAX + 2) : NULL;
    size_t n = d->template_text ? fread(d->template_text, 1, TEMPLATE_BYTES_MAX + 1, f) : 0;
    snprintf(text, sizeof text, "chat template '%.4000s': %s", path, !f ? strerror(errno) : "larger than 1 MiB, or holds a NUL");
    if (f) fclose(f);
    if (!d->template_text) return fail(EX_NOINPUT, text);
    return n > TEMPLATE_BYTES_MAX || strlen(d->template_text) != n ? fail(EX_DATAERR, text) : 0;
}

static int64_t count(int64_t v) { return v > INT32_MAX ? INT32_MAX : v; }

static int start_engine(struct daemon *d) {
    const struct qn_config *c = &d->settings.c;
    struct qn_err err = { 0 };
    struct qn_engine_opts o = {
        .model_path = c->model_path, .device = c->device, .isa = strcmp(c->isa, "auto") ? c->isa : NULL,
        .n_threads = (int)count(c->threads), .cores = c->affinity, .n_ctx = (int)count(c->ctx), .max_seqs = (int)count(c->max_seqs), .step_rows = (int)count(c->step_rows),
        .prefill_chunk = (int)count(c->prefill_chunk), .kv_bytes = c->kv_bytes, .kv_type = c->kv_type, .waiting_max = (int)count(c->waiting_max),
        .waiting_tokens_max = c->waiting_tokens_max, .wait_ms_max = c->wait_ms_max, .no_prefix_cache = !c->prefix_cache,
        .stretch = c->step_stretch ? (double)c->step_stretch / 100 : -1, .no_speculation = !c->speculation, .draft_rows = (int)count(c->draft_rows),
        .wake = qn_loop_wake, .wake_user = &d->loop,
    };
    int64_t t0 = qn_clock_ns();
    int rc = qn_engine_open(&d->engine, &o, &err);
    if (rc < 0) return fail(code_of(rc), err.code ? err.text : "the engine does not start");
    const struct qn_engine_info *i = qn_engine_info(d->engine);
    struct qn_log_line l;
    if (i->device_note && *i->device_note) qn_log(QN_LOG_INFO, "device", "auto chose %s", i->device_note);
    qn_log_begin(&l, QN_LOG_INFO, "model");
    qn_log_str(&l, "path", c->model_path);
    qn_log_str(&l, "name", i->model_name);
    qn_log_str(&l, "arch", i->arch);
    qn_log_str(&l, "device", i->device);
    qn_log_int(&l, "ctx", i->n_ctx);
    qn_log_int(&l, "max_seqs", i->max_seqs);
    qn_log_str(&l, "kv_type", i->kv_type);
    qn_log_int(&l, "kv_mib", (int64_t)(i->kv_bytes >> 20));
    qn_log_int(&l, "kv_tokens", (int64_t)i->kv_blocks * i->block_tokens);
    qn_log_ms(&l, "load_ms", qn_clock_ns() - t0);
    qn_log_end(&l);
    return 0;
}

static int is_draining(void *ctx) { return ((struct daemon *)ctx)->http.draining; }
static void print_metrics(void *ctx, struct qn_buf *out) { qn_metrics_print(&((struct daemon *)ctx)->http.metrics, out); }

/* The file's name without folder and ending. */
static void name_of(char *out, size_t n, const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    int len = dot && dot > base && !strcasecmp(dot, ".gguf") ? (int)(dot - base) : (int)strlen(base);
    snprintf(out, n, "%.*s", len, base);
}

static int start_api(struct daemon *d) {
    const struct qn_config *c = &d->settings.c;
    struct qn_err err = { 0 };
    name_of(d->name, sizeof d->name, c->model_path);
    struct qn_api_opts o = { .engine = d->engine, .model_name = *c->model_name ? c->model_name : d->name, .chat_template = d->template_text,
                             .tool_format = c->tool_format,
                             .body_bytes_max = (size_t)c->body_bytes_max, .n_max = (int)c->n_max, .ping_ms = c->ping_s * 1000, .version = QN_VERSION };
    struct qn_api_host host = { .ctx = d, .draining = is_draining, .metrics = print_metrics };
    int rc = qn_api_open(&d->api, &o, &host, &err);
    if (rc < 0) return fail(code_of(rc), err.code ? err.text : "the api does not start");
    d->http.api = d->api;
    return 0;
}

/* ---- what reaches the loop ---- */

static void on_idle(void *user) { qn_loop_stop(&((struct daemon *)user)->loop); }

static void cut(struct daemon *d) {
    if (d->http.metrics.active) qn_log(QN_LOG_WARN, "drain", "%lld requests are cut off", (long long)d->http.metrics.active);
    d->cutting = 1;
    qn_loop_deadline(&d->loop, FLUSH_MS);
    qn_http_cut(&d->http);
}

/* A process cannot get a failed card back; the next one can (exit 69, and the unit's Restart=). */
static void on_lost(struct daemon *d, const char *why) {
    if (d->lost) return;
    d->lost = 1;
    qn_log(QN_LOG_ERROR, "device", "%s has failed: %s", qn_engine_info(d->engine)->device, why);
    qn_engine_drain(d->engine);
    if (!d->cutting) cut(d);
}

static void on_wake(void *user) {
    struct daemon *d = user;
    qn_engine_poll(d->engine);
    qn_http_pump(&d->http);
    const char *why = qn_engine_lost(d->engine);
    if (why) on_lost(d, why);
}

static void on_term(void *user, int times) {
    struct daemon *d = user;
    if (times > 1) {
        if (!d->cutting) cut(d);
        return;
    }
    qn_log(QN_LOG_INFO, "drain", "no new connections; %lld requests may run for %lld s more", (long long)d->http.metrics.active, (long long)d->settings.c.drain_s);
    qn_notify_stopping();
    qn_engine_drain(d->engine);
    qn_loop_deadline(&d->loop, d->settings.c.drain_s * 1000);
    d->http.on_idle = on_idle;
    d->http.user = d;
    qn_http_drain(&d->http);
}

static void on_deadline(void *user) {
    struct daemon *d = user;
    if (d->cutting) qn_loop_stop(&d->loop);
    else cut(d);
}

static void on_change(void *ctx, const struct qn_option *o, int applied) {
    (void)ctx;
    qn_log(applied ? QN_LOG_INFO : QN_LOG_WARN, "reload", applied ? "%s changed" : "%s differs; it changes at the next start", o->name);
}

static void setup_log(const struct qn_config *c) { qn_log_setup(STDERR_FILENO, (int)c->log_level, (int)c->log_format); }

static void ready(struct daemon *d) {
    char text[256];
    snprintf(text, sizeof text, "serving on %s%s", d->http.listener[0]->addr.text, d->http.n_listeners > 1 ? " and others" : "");
    qn_notify_ready(text);
}

/* Wholly right or not at all. */
static void on_hup(void *user) {
    struct daemon *d = user;
    struct qn_settings fresh;
    enum what what;
    if (d->http.draining) return;
    qn_notify_reloading();
    if (read_settings(&fresh, d->argc, d->argv, &what)) {
        for (char *p = fresh.errors.p, *next; p && *p; p = next) {
            next = p + strcspn(p, "\n");
            if (*next) *next++ = 0;
            qn_log(QN_LOG_ERROR, "reload", "%s", p);
        }
        qn_log(QN_LOG_ERROR, "reload", "the configuration is wrong; the old one stays");
    } else {
        qn_config_reload(&d->settings.c, &fresh.c, on_change, d);
        setup_log(&d->settings.c);
        qn_http_configure(&d->http);
        qn_log(QN_LOG_INFO, "reload", "done");
    }
    qn_settings_done(&fresh);
    ready(d);
}

/* The manager hears from us only while the engine gets on with its work. */
static void on_alive(void *user) {
    struct daemon *d = user;
    struct qn_engine_stats st;
    char text[128];
    qn_engine_stats(d->engine, &st);
    int sick = st.busy_since_ns && qn_clock_ns() - st.busy_since_ns > d->settings.c.watchdog_s * QN_S;
    if (sick && !d->sick) qn_log(QN_LOG_ERROR, "watchdog", "work waits and no step has ended for %lld s", (long long)d->settings.c.watchdog_s);
    d->sick = sick;
    if (sick) return;
    qn_notify_alive();
    snprintf(text, sizeof text, "%d running, %d waiting, %lld connections", st.running, st.waiting, (long long)d->http.metrics.open);
    if (!d->http.draining) qn_notify_status(text);
}

static const struct qn_loop_calls calls = { on_wake, on_term, on_hup, on_alive, on_deadline };

static int start(struct daemon *d) {
    struct qn_err err = { 0 };
    int code = find_model(&d->settings.c);
    if (!code) code = read_template(d);
    if (code) return code;
    if (qn_loop_open(&d->loop, &calls, d, &err) < 0 || qn_http_open(&d->http, &d->loop.uv, &d->settings.c, &err) < 0) return fail(EX_OSERR, err.text);
    int rc = qn_http_bind(&d->http, &err);
    if (rc < 0) return fail(rc == QN_E_RANGE ? EX_CONFIG : EX_OSERR, err.text);
    if ((code = start_engine(d)) || (code = start_api(d))) return code;
    if (qn_http_serve(&d->http, &err) < 0 || qn_loop_signals(&d->loop, &err) < 0) return fail(EX_OSERR, err.text);
    for (int i = 0; i < d->http.n_listeners; i++) qn_log(QN_LOG_INFO, "listen", "%s", d->http.listener[i]->addr.text);
    ready(d);
    qn_loop_watchdog(&d->loop, qn_notify_watchdog_ns() / 2);
    return 0;
}

static void stop(struct daemon *d) {
    qn_http_close(&d->http);
    while (d->http.n_offloads) uv_run(&d->loop.uv, UV_RUN_ONCE); /* work on the pool still holds exchanges */
    qn_api_close(d->api);
    qn_engine_close(d->engine);
    qn_loop_close(&d->loop);
    free(d->template_text);
}

static int serve(struct daemon *d) {
    setup_log(&d->settings.c);
    qn_notify_setup();
    json_object_seed(0); /* before there are threads */
    int code = start(d);
    if (!code) {
        qn_loop_run(&d->loop);
        qn_log(QN_LOG_INFO, "exit", "%s", d->cutting ? "requests were cut off" : "drained");
        if (d->lost) code = EX_UNAVAILABLE;
    }
    stop(d);
    return code;
}

int main(int argc, char **argv) {
    static struct daemon d;
    enum what what = SERVE;
    d.argc = argc;
    d.argv = argv;
    int code = read_settings(&d.settings, argc, argv, &what);
    if (what == HELP) code = print(help);
    else if (what == VERSION) code = printf("quernd %s\n", QN_VERSION) < 0;
    else if (what == DUMP_EXAMPLE) code = print(qn_config_example);
    else if (what == DUMP_MAN) code = print(qn_config_man);
    else if (what == DUMP_SCHEMA) code = print(qn_config_schema);
    else if (code) complain(d.settings.errors.p);
    else if (what == CHECK) puts("the configuration is right");
    else if (what == DUMP) {
        struct qn_buf b;
        qn_buf_init(&b, OUT_MAX);
        qn_config_dump(&d.settings, &b);
        fwrite(b.p, 1, b.n, stdout);
        qn_buf_done(&b);
    } else code = serve(&d);
    qn_settings_done(&d.settings);
    return code;
}
