/* The option table, and how a value is read, compared and printed. A new option is one row here and one member in
 * config.h; conf/quern.yaml and conf/quern.yaml.5 are then made again (quernd --dump-example, --dump-man). */
#include "server/config.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/base/utf8.h"

#define AT(member) offsetof(struct qn_config, member)
#define KI 1024LL
#define MI (1024 * KI)
#define GI (1024 * MI)

const struct qn_option qn_options[] = {
    { "server.listen", QN_OPT_LIST, AT(listen), 0, 0, "127.0.0.1:8080", NULL, QN_RESTART, "--listen", "ADDR:PORT|unix:PATH",
      "Where to listen: ADDR:PORT, [V6]:PORT or unix:PATH (unix:@NAME: abstract). May be given several times. Sockets passed by systemd (LISTEN_FDS) are used instead of this list. The default is reachable from this machine only." },
    { "server.allow_public", QN_OPT_BOOL, AT(allow_public), 0, 1, "false", NULL, QN_RESTART, NULL, NULL,
      "Allow addresses that other machines can reach. There are no API keys in this release: everybody who reaches the port may use the model, so put a proxy that checks keys in front." },
    { "server.hosts", QN_OPT_LIST, AT(hosts), 0, 0, "", NULL, QN_RELOAD, NULL, NULL,
      "Names that requests may carry in Host, beside localhost, 127.0.0.0/8 and [::1]. On a loopback address any other name is refused, since a web page of another site could reach it by rebinding its DNS name. On other addresses, once this list has an entry, it is enforced; UNIX sockets take any name." },
    { "server.origins", QN_OPT_LIST, AT(origins), 0, 0, "", NULL, QN_RELOAD, NULL, NULL,
      "Web origins (https://app.example) whose pages may call this server. Requests with any other Origin are refused, save the server's own. \"*\" allows every page: know what that means." },
    { "server.unix_mode", QN_OPT_OCTAL, AT(unix_mode), 0, 0777, "0660", NULL, QN_RESTART, NULL, NULL,
      "Permissions of UNIX sockets; a proxy often runs as another user of the same group." },
    { "server.backlog", QN_OPT_INT, AT(backlog), 1, 65535, "1024", NULL, QN_RESTART, NULL, NULL,
      "Connections that may wait in the kernel to be accepted." },
    { "server.connections_max", QN_OPT_INT, AT(connections_max), 1, 1000000, "10000", NULL, QN_RESTART, NULL, NULL,
      "Open connections. One more is answered 503 and closed. Lowered at start, with a word in the log, when the process may not have that many descriptors." },
    { "server.head_bytes_max", QN_OPT_BYTES, AT(head_bytes_max), 1 * KI, 64 * KI, "16K", NULL, QN_RELOAD, NULL, NULL,
      "Request line and header fields; above it 431." },
    { "server.target_bytes_max", QN_OPT_BYTES, AT(target_bytes_max), 64, 32 * KI, "8K", NULL, QN_RELOAD, NULL, NULL,
      "The path and query of a request line; above it 414." },
    { "server.fields_max", QN_OPT_INT, AT(fields_max), 8, 256, "100", NULL, QN_RELOAD, NULL, NULL,
      "Header fields of a request; above it 431." },
    { "server.body_bytes_max", QN_OPT_BYTES, AT(body_bytes_max), 1 * KI, 1 * GI, "8M", NULL, QN_RESTART, NULL, NULL,
      "A request's body; above it 413." },
    { "server.head_s", QN_OPT_S, AT(head_s), 1, 3600, "10s", NULL, QN_RELOAD, NULL, NULL,
      "Time from a connection's start, or a request's first byte, to the end of its head. Absolute: a byte now and then does not extend it." },
    { "server.body_s", QN_OPT_S, AT(body_s), 1, 86400, "30s", NULL, QN_RELOAD, NULL, NULL,
      "Time for a request's body, absolute as well; then 408." },
    { "server.body_rate_min", QN_OPT_BYTES, AT(body_rate_min), 0, 1 * GI, "1K", NULL, QN_RELOAD, NULL, NULL,
      "Bytes a second that a body must keep up after its first five seconds; 0: no such rule." },
    { "server.keep_alive_s", QN_OPT_S, AT(keep_alive_s), 1, 86400, "75s", NULL, QN_RELOAD, NULL, NULL,
      "How long a connection may stay idle between requests. A proxy in front should give up earlier than this." },
    { "server.stall_s", QN_OPT_S, AT(stall_s), 1, 86400, "30s", NULL, QN_RELOAD, NULL, NULL,
      "A client that takes none of its reply for so long is cut; its work stops." },
    { "server.ping_s", QN_OPT_S, AT(ping_s), 1, 3600, "15s", NULL, QN_RESTART, NULL, NULL,
      "A comment line is sent on a stream that was silent for so long, so that proxies keep it open." },
    { "server.drain_s", QN_OPT_S, AT(drain_s), 0, 86400, "30s", NULL, QN_RELOAD, NULL, NULL,
      "After SIGTERM running requests may go on for so long; what is left then gets an error event. A second signal ends at once." },
    { "server.watchdog_s", QN_OPT_S, AT(watchdog_s), 1, 86400, "60s", NULL, QN_RELOAD, NULL, NULL,
      "Longest time without a finished engine step while work waits before systemd's watchdog is no longer fed (and the unit restarts)." },

    { "model.path", QN_OPT_STR, AT(model_path), 0, 0, "", NULL, QN_RESTART, "--model", "PATH",
      "The model: a GGUF file." },
    { "model.name", QN_OPT_STR, AT(model_name), 0, 0, "", NULL, QN_RESTART, "--model-name", "NAME",
      "The name under which it is served; empty: the file's name without its ending." },
    { "model.chat_template", QN_OPT_STR, AT(chat_template), 0, 0, "", NULL, QN_RESTART, "--chat-template", "FILE",
      "A file with a Jinja chat template to use instead of the model's own." },
    { "model.tool_format", QN_OPT_STR, AT(tool_format), 0, 0, "auto",
      "auto harmony muse kimi-k3 kimi-k2 deepseek-v3.2 deepseek-v4 deepseek-v3 deepseek-v3.1 minimax-m3 minimax-m2 minimax-m1 apriel gemma4 lfm2 apertus solar seed hunyuan3 glm qwen3-coder minicpm5 functionary-v3.1 functionary-v3.2 nemotron-v2 firefunction cohere command-r gigachat3.1 gigachat3 granite mistral-args mistral phi4 hermes llama3 generic pythonic xlam",
      QN_RESTART, "--tool-format", "NAME",
      "How the model writes tool calls; auto: as its chat template says, and generic (the tools are described to it) where the template knows none. docs/tools.md has a row for each." },
    { "model.ctx", QN_OPT_INT, AT(ctx), 0, 16777216, "auto", NULL, QN_RESTART, "--ctx", "N",
      "Longest sequence, prompt and output, in tokens; auto: the model's own, at most 8192." },

    { "engine.device", QN_OPT_STR, AT(device), 0, 0, "cpu", "cpu cpu-ref auto cuda cuda:N cuda-emu", QN_RESTART, "--device", "NAME",
      "What computes: cpu; cuda or cuda:N, the first or the N-th NVIDIA card, which needs the plug-in quern-cuda.so beside quernd or in lib/quern (exit 69 where the plug-in, the driver or the card is missing); auto, a card if one works and the model fits, else the CPU, and the log says which and why; cpu-ref (the slow yardstick, for comparing); cuda-emu (the CUDA kernels on an emulator, slower still; only test builds have it)." },
    { "engine.isa", QN_OPT_STR, AT(isa), 0, 0, "auto", "auto generic avx2 avx512", QN_RESTART, NULL, NULL,
      "Instruction set of the CPU kernels; auto: the best that the processor has." },
    { "engine.threads", QN_OPT_INT, AT(threads), 0, 1024, "auto", NULL, QN_RESTART, "--threads", "N",
      "Threads that compute; auto: one for each core that they may run on, and no more than the control group's CPU quota pays for. While a neighbour keeps a core busy fewer may be in use." },
    { "engine.affinity", QN_OPT_STR, AT(affinity), 0, 0, "", NULL, QN_RESTART, "--affinity", "CORES",
      "The cores that compute, as in 0-3,8; empty: all that this process may use. Computing threads move among these cores as the load asks; other threads are not bound." },
    { "engine.max_seqs", QN_OPT_INT, AT(max_seqs), 0, 1024, "auto", NULL, QN_RESTART, "--max-seqs", "N",
      "Sequences that run together in one batch; auto: 32." },
    { "engine.step_rows", QN_OPT_INT, AT(step_rows), 0, 8192, "auto", NULL, QN_RESTART, NULL, NULL,
      "Most tokens of one step, prompts and outputs together; auto: 512." },
    { "engine.prefill_chunk", QN_OPT_INT, AT(prefill_chunk), 0, 8192, "auto", NULL, QN_RESTART, NULL, NULL,
      "Most prompt tokens of a step that running streams share; auto: 256. Less are taken where engine.step_stretch says so." },
    { "engine.step_stretch", QN_OPT_INT, AT(step_stretch), 0, 10000, "140", NULL, QN_RESTART, NULL, NULL,
      "Prompt tokens join running streams only while the step takes at most this many percent of its usual time, so that their gaps stay even; more while many wait; 0: no bound." },
    { "engine.speculation", QN_OPT_BOOL, AT(speculation), 0, 1, "true", NULL, QN_RESTART, NULL, NULL,
      "Guess tokens ahead from the text so far and check several in one step; answers stay the same, text that repeats itself comes faster." },
    { "engine.draft_rows", QN_OPT_INT, AT(draft_rows), 0, 64, "auto", NULL, QN_RESTART, NULL, NULL,
      "Most decoding tokens and guesses of one step together: above it nothing is guessed; auto: 16." },
    { "engine.kv_bytes", QN_OPT_BYTES, AT(kv_bytes), 0, 1024 * GI * KI, "auto", NULL, QN_RESTART, NULL, NULL,
      "Memory for keys and values of all sequences and of the prefix cache; auto: enough for the batch, within what the machine has; on a card, what is left of its memory beside the model, if the batch can use that much." },
    { "engine.kv_type", QN_OPT_STR, AT(kv_type), 0, 0, "auto", "auto f16 bf16 q8_0", QN_RESTART, "--kv-type", "NAME",
      "How keys and values are kept; q8_0 takes about half the memory of the others and reads long contexts faster, but costs accuracy (much with Qwen2 models) and is not for cards; auto: f16." },
    { "engine.waiting_max", QN_OPT_INT, AT(waiting_max), 0, 1000000, "1024", NULL, QN_RESTART, NULL, NULL,
      "Requests that may wait for a place in the batch; above it 503 with Retry-After." },
    { "engine.waiting_tokens_max", QN_OPT_INT, AT(waiting_tokens_max), 0, INT64_MAX / 2, "4000000", NULL, QN_RESTART, NULL, NULL,
      "Prompt tokens that may wait in all." },
    { "engine.wait_ms_max", QN_OPT_MS, AT(wait_ms_max), 0, 86400000, "0", NULL, QN_RESTART, NULL, NULL,
      "Longest wait of a request before it is given up with a 503; 0: no limit." },
    { "engine.prefix_cache", QN_OPT_BOOL, AT(prefix_cache), 0, 1, "true", NULL, QN_RESTART, NULL, NULL,
      "Keep the keys and values of finished prompts, so that a request that starts alike skips that work." },

    { "limits.n_max", QN_OPT_INT, AT(n_max), 1, 128, "16", NULL, QN_RESTART, NULL, NULL,
      "Most answers (n) of one request." },

    { "log.level", QN_OPT_ENUM, AT(log_level), 0, 3, "info", "debug info warn error", QN_RELOAD, NULL, NULL,
      "What is worth a line." },
    { "log.format", QN_OPT_ENUM, AT(log_format), 0, 2, "auto", "auto json pretty", QN_RELOAD, NULL, NULL,
      "One JSON object a line, or text for people; auto: text on a terminal." },
    { "log.requests", QN_OPT_BOOL, AT(log_requests), 0, 1, "true", NULL, QN_RELOAD, NULL, NULL,
      "A line for each request: identity, status, tokens and times; never a word of its text." },
};
const int qn_n_options = (int)(sizeof qn_options / sizeof *qn_options);
_Static_assert(sizeof qn_options / sizeof *qn_options <= sizeof((struct qn_settings *)0)->source, "more options than sources");

static int64_t *num(const struct qn_option *o, struct qn_config *c) { return (int64_t *)(void *)((char *)c + o->offset); }
static char **str(const struct qn_option *o, struct qn_config *c) { return (char **)(void *)((char *)c + o->offset); }
static struct qn_strs *list(const struct qn_option *o, struct qn_config *c) { return (struct qn_strs *)(void *)((char *)c + o->offset); }
static int is_auto(const struct qn_option *o) { return !strcmp(o->dflt, "auto") && o->kind != QN_OPT_STR && o->kind != QN_OPT_ENUM; }

/* ---- text to value ---- */

/* 1: `word` is w[0..k), whose last letter, if that is N, stands for a number. */
static int is_word(const char *w, size_t k, const char *word) {
    if (w[k - 1] != 'N') return strlen(word) == k && !strncmp(w, word, k);
    size_t digits = strncmp(w, word, k - 1) ? 0 : strspn(word + k - 1, "0123456789");
    return digits > 0 && digits < 4 && !word[k - 1 + digits];
}

/* Index of `word` among `words`, or -1. */
static int word_at(const char *words, const char *word) {
    int i = 0;
    for (const char *w = words; *w; i++) {
        size_t k = strcspn(w, " ");
        if (is_word(w, k, word)) return i;
        w += k + (w[k] == ' ');
    }
    return -1;
}

static const struct { const char *unit; int64_t mul; enum qn_option_kind kind; } units[] = {
    { "", 1, QN_OPT_INT }, { "", 1, QN_OPT_BYTES }, { "B", 1, QN_OPT_BYTES }, { "K", KI, QN_OPT_BYTES }, { "KiB", KI, QN_OPT_BYTES },
    { "M", MI, QN_OPT_BYTES }, { "MiB", MI, QN_OPT_BYTES }, { "G", GI, QN_OPT_BYTES }, { "GiB", GI, QN_OPT_BYTES }, { "T", 1024 * GI, QN_OPT_BYTES },
    { "TiB", 1024 * GI, QN_OPT_BYTES }, { "", 1, QN_OPT_S }, { "s", 1, QN_OPT_S }, { "m", 60, QN_OPT_S }, { "h", 3600, QN_OPT_S },
    { "", 1, QN_OPT_MS }, { "ms", 1, QN_OPT_MS }, { "s", 1000, QN_OPT_MS }, { "m", 60000, QN_OPT_MS },
};

static int parse_number(const struct qn_option *o, const char *v, int64_t *out) {
    if (is_auto(o) && !strcmp(v, "auto")) return *out = 0, 0;
    int64_t n = 0;
    const char *p = v;
    int base = o->kind == QN_OPT_OCTAL ? 8 : 10;
    if (o->kind == QN_OPT_OCTAL && p[0] == '0' && (p[1] == 'o' || p[1] == 'O')) p += 2;
    if (!isdigit((unsigned char)*p)) return -1;
    for (; isdigit((unsigned char)*p); p++) {
        if (*p - '0' >= base || __builtin_mul_overflow(n, (int64_t)base, &n) || __builtin_add_overflow(n, (int64_t)(*p - '0'), &n)) return -1;
    }
    while (*p == ' ') p++;
    if (o->kind == QN_OPT_OCTAL) {
        if (*p) return -1;
        *out = n;
        return n < o->min || n > o->max ? -2 : 0;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (units[i].kind != o->kind || strcasecmp(units[i].unit, p)) continue;
        if (__builtin_mul_overflow(n, units[i].mul, &n) || n < o->min || n > o->max) return -2;
        *out = n;
        return 0;
    }
    return -1;
}

static void print_amount(const struct qn_option *o, int64_t v, struct qn_buf *out) {
    static const struct { const char *unit; int64_t mul; } bytes[] = { { "T", 1024 * GI }, { "G", GI }, { "M", MI }, { "K", KI } };
    if (v == 0 && is_auto(o)) qn_buf_puts(out, "auto");
    else if (o->kind == QN_OPT_OCTAL) qn_buf_printf(out, "0%03llo", (unsigned long long)v);
    else if (o->kind == QN_OPT_S) qn_buf_printf(out, "%llds", (long long)v);
    else if (o->kind == QN_OPT_MS) qn_buf_printf(out, "%lldms", (long long)v);
    else {
        for (int i = 0; o->kind == QN_OPT_BYTES && i < 4; i++) {
            if (v == 0 || v % bytes[i].mul) continue;
            qn_buf_printf(out, "%lld%s", (long long)(v / bytes[i].mul), bytes[i].unit);
            return;
        }
        qn_buf_printf(out, "%lld", (long long)v);
    }
}

static int wrong(struct qn_settings *s, const struct qn_option *o, const char *value, const char *where) {
    static const char *const kinds[] = { "text", "text", "a whole number", "a size such as 512K, 64M or 8G", "a time such as 30s or 5m",
                                         "a time such as 500ms or 2s", "true or false", "", "an octal number such as 0660" };
    struct qn_buf b;
    qn_buf_init(&b, 4096);
    qn_buf_printf(&b, "%s must be ", o->name);
    if (o->choices) {
        for (const char *w = o->choices; *w;) {
            int k = (int)strcspn(w, " ");
            const char *next = w + k + (w[k] == ' ');
            qn_buf_printf(&b, "%s%.*s", w == o->choices ? "" : *next ? ", " : " or ", k, w);
            w = next;
        }
    } else {
        qn_buf_puts(&b, kinds[o->kind]);
    }
    if (o->kind != QN_OPT_STR && o->kind != QN_OPT_LIST && o->kind != QN_OPT_BOOL && o->kind != QN_OPT_ENUM) {
        qn_buf_puts(&b, ", ");
        if (is_auto(o)) qn_buf_puts(&b, "auto or ");
        print_amount(o, is_auto(o) ? o->min + 1 : o->min, &b);
        qn_buf_puts(&b, " to ");
        print_amount(o, o->max, &b);
    }
    qn_settings_complain(s, "%s: %s, not \"%.64s\"", where, b.p ? b.p : o->name, value);
    qn_buf_done(&b);
    return QN_E_RANGE;
}

static int set_string(char **to, const char *value) {
    char *copy = strdup(value);
    if (!copy) return QN_E_NOMEM;
    free(*to);
    *to = copy;
    return 0;
}

static void clear_list(struct qn_strs *l) {
    for (int i = 0; i < l->n; i++) free(l->p[i]);
    free(l->p);
    *l = (struct qn_strs){ 0 };
}

static int add_to_list(struct qn_strs *l, const char *value) {
    char **p = realloc(l->p, sizeof *p * (size_t)(l->n + 1));
    if (!p) return QN_E_NOMEM;
    l->p = p;
    p[l->n] = strdup(value);
    if (!p[l->n]) return QN_E_NOMEM;
    l->n++;
    return 0;
}

int qn_settings_set(struct qn_settings *s, const char *name, const char *value, enum qn_config_source from, const char *where) {
    const struct qn_option *o = qn_option_find(name);
    if (!o) {
        const struct qn_option *near = qn_option_near(name);
        if (near) qn_settings_complain(s, "%s: no option is called \"%.64s\"; is %s meant?", where, name, near->name);
        else qn_settings_complain(s, "%s: no option is called \"%.64s\" (--dump-config lists them)", where, name);
        return QN_E_NOT_FOUND;
    }
    size_t i = (size_t)(o - qn_options);
    int64_t v = 0;
    int rc = 0;
    switch (o->kind) {
    case QN_OPT_STR:
        if (o->choices && word_at(o->choices, value) < 0) return wrong(s, o, value, where);
        rc = set_string(str(o, &s->c), value);
        break;
    case QN_OPT_LIST:
        if (s->source[i] != from) clear_list(list(o, &s->c));
        if (*value) rc = add_to_list(list(o, &s->c), value);
        break;
    case QN_OPT_BOOL:
        if (!strcmp(value, "true") || !strcmp(value, "yes") || !strcmp(value, "on") || !strcmp(value, "1")) v = 1;
        else if (strcmp(value, "false") && strcmp(value, "no") && strcmp(value, "off") && strcmp(value, "0")) return wrong(s, o, value, where);
        *num(o, &s->c) = v;
        break;
    case QN_OPT_ENUM:
        v = word_at(o->choices, value);
        if (v < 0) return wrong(s, o, value, where);
        *num(o, &s->c) = v;
        break;
    case QN_OPT_INT: case QN_OPT_BYTES: case QN_OPT_S: case QN_OPT_MS: case QN_OPT_OCTAL:
        if (parse_number(o, value, &v) < 0) return wrong(s, o, value, where);
        *num(o, &s->c) = v;
        break;
    }
    s->source[i] = (unsigned char)from;
    if (rc == QN_E_NOMEM) s->no_memory = 1;
    return rc;
}

/* ---- the whole ---- */

void qn_settings_init(struct qn_settings *s) {
    memset(s, 0, sizeof *s);
    qn_buf_init(&s->errors, 64 * 1024);
    for (int i = 0; i < qn_n_options; i++) qn_settings_set(s, qn_options[i].name, qn_options[i].dflt, QN_FROM_DEFAULT, "default");
}

void qn_settings_done(struct qn_settings *s) {
    if (!s) return;
    for (int i = 0; i < qn_n_options; i++) {
        const struct qn_option *o = &qn_options[i];
        if (o->kind == QN_OPT_LIST) clear_list(list(o, &s->c));
        if (o->kind == QN_OPT_STR) free(*str(o, &s->c)), *str(o, &s->c) = NULL;
    }
    qn_buf_done(&s->errors);
}

void qn_settings_complain(struct qn_settings *s, const char *fmt, ...) {
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127) *c = '?'; /* a file's bytes go to a terminal */
    qn_buf_printf(&s->errors, "%s\n", line);
    if (s->errors.failed && !s->errors.n) s->no_memory = 1;
    s->n_errors++;
}

const struct qn_option *qn_option_find(const char *name) {
    for (int i = 0; i < qn_n_options; i++)
        if (!strcmp(qn_options[i].name, name)) return &qn_options[i];
    return NULL;
}

/* Edits between two short words (Levenshtein), the case and - against _ not counted. */
static int distance(const char *a, const char *b) {
    enum { MAX = 48 };
    int row[MAX + 1];
    size_t na = strlen(a), nb = strlen(b);
    if (na > MAX || nb > MAX) return MAX;
    for (size_t j = 0; j <= nb; j++) row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diag = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = b[j - 1];
            if (x == '-') x = '_';
            int best = diag + (x != y);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diag = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

const struct qn_option *qn_option_near(const char *name) {
    const struct qn_option *best = NULL;
    int best_d = 1000;
    for (int i = 0; i < qn_n_options; i++) {
        int d = distance(name, qn_options[i].name);
        const char *key = strchr(qn_options[i].name, '.') + 1, *own = strrchr(name, '.');
        int dk = distance(own ? own + 1 : name, key) + 1; /* the right key in the wrong section */
        if (dk < d) d = dk;
        if (d < best_d) best_d = d, best = &qn_options[i];
    }
    return best_d <= 3 && best_d < (int)strlen(name) / 2 + 1 ? best : NULL;
}

static int plain(const char *s) { /* may stand in YAML without quotes, in a flow list too */
    if (!*s || strchr("-?:,[]{}#&*!|>'\"%@` ", *s) || !strcasecmp(s, "true") || !strcasecmp(s, "false") || !strcasecmp(s, "null") || !strcmp(s, "~")) return 0;
    for (; *s; s++)
        if ((unsigned char)*s < 33 || (unsigned char)*s > 126 || strchr("#\"',[]{}", *s) || (*s == ':' && !s[1])) return 0;
    return 1;
}

static void print_string(const char *s, struct qn_buf *out) {
    if (plain(s)) {
        qn_buf_puts(out, s);
        return;
    }
    qn_buf_putc(out, '"');
    for (size_t n = strlen(s); n > 0;) {
        uint32_t r = (unsigned char)*s;
        int k = qn_utf8_decode(s, n, &r);
        if (k == 0) qn_buf_puts(out, "?"), k = 1; /* not to be had from a file; from a flag perhaps */
        else if (r == '"' || r == '\\') qn_buf_printf(out, "\\%c", (char)r);
        else if (r < 32 || (r >= 127 && r < 160) || r == 0x2028 || r == 0x2029 || r == 0xFEFF || (r & 0xFFFE) == 0xFFFE) qn_buf_printf(out, "\\U%08x", r);
        else qn_buf_put(out, s, (size_t)k);
        s += k;
        n -= (size_t)k;
    }
    qn_buf_putc(out, '"');
}

void qn_option_print(const struct qn_option *o, const struct qn_config *c, struct qn_buf *out) {
    struct qn_config *m = (struct qn_config *)(uintptr_t)c; /* the accessors do not write */
    if (o->kind == QN_OPT_STR) {
        print_string(*str(o, m), out);
    } else if (o->kind == QN_OPT_LIST) {
        const struct qn_strs *l = list(o, m);
        qn_buf_putc(out, '[');
        for (int i = 0; i < l->n; i++) {
            if (i) qn_buf_puts(out, ", ");
            print_string(l->p[i], out);
        }
        qn_buf_putc(out, ']');
    } else if (o->kind == QN_OPT_BOOL) {
        qn_buf_puts(out, *num(o, m) ? "true" : "false");
    } else if (o->kind == QN_OPT_ENUM) {
        const char *w = o->choices;
        for (int64_t i = *num(o, m); i > 0; i--) w += strcspn(w, " ") + 1;
        qn_buf_put(out, w, strcspn(w, " "));
    } else {
        print_amount(o, *num(o, m), out);
    }
}

int qn_option_equal(const struct qn_option *o, const struct qn_config *a, const struct qn_config *b) {
    struct qn_buf x, y;
    qn_buf_init(&x, 1 << 20);
    qn_buf_init(&y, 1 << 20);
    qn_option_print(o, a, &x);
    qn_option_print(o, b, &y);
    int same = x.n == y.n && (!x.n || !memcmp(x.p, y.p, x.n));
    qn_buf_done(&x);
    qn_buf_done(&y);
    return same;
}

void qn_config_reload(struct qn_config *to, struct qn_config *from, void (*changed)(void *ctx, const struct qn_option *o, int applied), void *ctx) {
    for (int i = 0; i < qn_n_options; i++) {
        const struct qn_option *o = &qn_options[i];
        if (qn_option_equal(o, to, from)) continue;
        if (o->reload == QN_RELOAD) {
            size_t n = o->kind == QN_OPT_LIST ? sizeof(struct qn_strs) : o->kind == QN_OPT_STR ? sizeof(char *) : sizeof(int64_t);
            char hold[sizeof(struct qn_strs)];
            memcpy(hold, (char *)to + o->offset, n);
            memcpy((char *)to + o->offset, (char *)from + o->offset, n);
            memcpy((char *)from + o->offset, hold, n);
        }
        changed(ctx, o, o->reload == QN_RELOAD);
    }
}
