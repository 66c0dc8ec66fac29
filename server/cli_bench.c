/* One thread, one epoll, a socket for each client: the client costs little beside the server it measures. A client sends
 * a request, reads its stream, notes when each piece of text arrived, and starts the next until all are done.
 *
 * It reads just enough HTTP: the status line, then every line that begins with "data:", whatever framing lies between
 * (a chunk-size line never begins so). Text is recognised by a non-empty "content" or "reasoning…" member; token counts
 * come from the usage chunk where the server sends one, else pieces are counted. */
#include "server/cli_bench.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "engine/base/buf.h"
#include "engine/base/clock.h"
#include "engine/base/rng.h"

enum { CLIENTS_MAX = 4096, REQUESTS_MAX = 1000000, WORDS_MAX = 100000, LINE_MAX_BYTES = 1 << 20, READ_BYTES = 1 << 16 };

struct options {
    const char *host, *port, *path, *unix_path, *model, *key;
    int clients, requests, words, shared, max_tokens, json, seconds_max;
    double temperature;
};

struct samples { /* seconds */
    double *v;
    size_t n, cap;
};

struct client {
    int fd, status, index, in_line_cut;
    size_t sent;
    struct qn_buf request, line;
    int64_t t0, first, last;
    long pieces, usage_out, usage_in;
    int ended;
};

struct bench {
    struct options o;
    struct sockaddr_storage addr;
    socklen_t addr_n;
    int ep, started, finished, failed, first_status;
    long out_tokens, in_tokens;
    struct samples ttft, gaps, total;
};

/* --- figures ---------------------------------------------------------------------------------------------------- */

static void add(struct samples *s, double v) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 1024;
        double *p = realloc(s->v, cap * sizeof *p);
        if (!p) return;
        s->v = p;
        s->cap = cap;
    }
    s->v[s->n++] = v;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(struct samples *s, double p) {
    if (s->n == 0) return 0;
    qsort(s->v, s->n, sizeof *s->v, by_value);
    size_t i = (size_t)(p * (double)s->n);
    return s->v[i < s->n ? i : s->n - 1] * 1e3;
}

/* --- requests --------------------------------------------------------------------------------------------------- */

static const char *const words[] = {
    "river", "stone", "flour", "mill", "wheel", "water", "grain", "bread", "field", "harvest", "barn", "oven", "market", "road", "cart",
    "village", "winter", "summer", "morning", "evening", "cloud", "rain", "sun", "wind", "tree", "bridge", "boat", "lamp", "table", "window",
    "garden", "letter", "story", "number", "question", "answer", "colour", "sound", "paper", "clock", "friend", "child", "mother", "father",
};
enum { N_WORDS = sizeof words / sizeof *words };

static const char *word(uint64_t who, int k) {
    uint32_t out[4];
    qn_philox4x32((uint32_t[4]){(uint32_t)k, (uint32_t)who, (uint32_t)(who >> 32), 7}, (uint32_t[2]){1, 2}, out);
    return words[out[0] % N_WORDS];
}

static void make_request(const struct options *o, int index, struct qn_buf *out) {
    struct qn_buf body;
    qn_buf_init(&body, LINE_MAX_BYTES);
    qn_buf_printf(&body, "{\"model\":\"%s\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":%d,\"temperature\":%g,"
                         "\"ignore_eos\":true,\"seed\":%d,\"messages\":[{\"role\":\"user\",\"content\":\"Continue this list of words:",
                  o->model, o->max_tokens, o->temperature, index);
    for (int k = 0; k < o->words; k++) qn_buf_printf(&body, " %s", word(k < o->shared ? 0 : (uint64_t)index + 1, k));
    qn_buf_puts(&body, "\"}]}");
    qn_buf_reset(out);
    qn_buf_printf(out, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n", o->path,
                  o->host ? o->host : "localhost", body.n);
    if (o->key) qn_buf_printf(out, "Authorization: Bearer %s\r\n", o->key);
    qn_buf_puts(out, "\r\n");
    qn_buf_put(out, body.p, body.n);
    if (body.failed) out->failed = body.failed;
    qn_buf_done(&body);
}

static int start(struct bench *b, struct client *c) {
    c->index = b->started++;
    c->status = c->ended = 0;
    c->sent = 0;
    c->pieces = c->usage_out = c->usage_in = 0;
    c->first = c->last = 0;
    qn_buf_reset(&c->line);
    make_request(&b->o, c->index, &c->request);
    c->fd = socket(b->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || c->request.failed) return -1;
    c->t0 = qn_clock_ns();
    if (connect(c->fd, (struct sockaddr *)&b->addr, b->addr_n) < 0 && errno != EINPROGRESS) return -1;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    return epoll_ctl(b->ep, EPOLL_CTL_ADD, c->fd, &ev);
}

static int push(struct bench *b, struct client *c) {
    while (c->sent < c->request.n) {
        ssize_t n = send(c->fd, c->request.p + c->sent, c->request.n - c->sent, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
        c->sent += (size_t)n;
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    return epoll_ctl(b->ep, EPOLL_CTL_MOD, c->fd, &ev);
}

/* --- replies ---------------------------------------------------------------------------------------------------- */

/* 1 when the line has a string member whose name begins with `name` (opening quote included) and is not empty. */
static int has_text(const char *line, const char *name) {
    for (const char *p = strstr(line, name); p; p = strstr(p + 1, name)) {
        const char *q = strchr(p + 1, '"');
        if (!q) return 0;
        for (q++; *q == ' ' || *q == ':'; q++) {}
        if (*q == '"' && q[1] != '"') return 1;
    }
    return 0;
}

static long number_after(const char *line, const char *name, long fallback) {
    const char *p = strstr(line, name);
    return p ? strtol(p + strlen(name), NULL, 10) : fallback;
}

static void take_line(struct bench *b, struct client *c, int64_t now) {
    const char *s = c->line.p ? c->line.p : "";
    if (!c->status) {
        c->status = !strncmp(s, "HTTP/1.", 7) && strlen(s) > 9 ? (int)strtol(s + 9, NULL, 10) : -1;
        return;
    }
    if (strncmp(s, "data:", 5)) return;
    if (has_text(s, "\"content") || has_text(s, "\"reasoning")) {
        if (c->pieces++ == 0) {
            c->first = now;
            add(&b->ttft, (double)(now - c->t0) / 1e9);
        } else {
            add(&b->gaps, (double)(now - c->last) / 1e9);
        }
        c->last = now;
    }
    c->usage_out = number_after(s, "\"completion_tokens\":", c->usage_out);
    c->usage_in = number_after(s, "\"prompt_tokens\":", c->usage_in);
}

/* 1: the reply has ended; -1: broken. */
static int pull(struct bench *b, struct client *c) {
    static char buf[READ_BYTES];
    for (;;) {
        ssize_t n = recv(c->fd, buf, sizeof buf, 0);
        if (n < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
        if (n == 0) return 1;
        int64_t now = qn_clock_ns();
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != '\n') {
                qn_buf_putc(&c->line, buf[i]);
                continue;
            }
            take_line(b, c, now);
            qn_buf_reset(&c->line);
        }
    }
}

static void finish(struct bench *b, struct client *c, int ok) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    b->finished++;
    if (!ok || c->status != 200 || c->pieces == 0) {
        if (!b->failed++) b->first_status = c->status;
    } else {
        add(&b->total, (double)(qn_clock_ns() - c->t0) / 1e9);
        b->out_tokens += c->usage_out > 0 ? c->usage_out : c->pieces;
        b->in_tokens += c->usage_in;
    }
    while (b->started < b->o.requests) {
        if (start(b, c) == 0) return;
        if (c->fd >= 0) close(c->fd);
        c->fd = -1;
        b->finished++;
        b->failed++;
    }
    c->ended = 1;
}

static void serve(struct bench *b, struct client *c, uint32_t events) {
    int end = 0;
    if (events & EPOLLOUT && push(b, c) < 0) end = -1;
    if (end == 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) end = pull(b, c);
    if (end) finish(b, c, end > 0);
}

/* --- command line ------------------------------------------------------------------------------------------------- */

static const char usage_text[] =
    "usage: quern bench [--url http://HOST:PORT[/PATH] | --unix PATH] [--model NAME] [--clients N] [--requests N]\n"
    "                   [--words N] [--shared N] [--max-tokens N] [--temperature T] [--key KEY] [--seconds N] [--json]\n"
    "Streams chat completions and prints time to first token, gaps between tokens, and throughput.\n";

static int parse_url(struct options *o, char *url) {
    static const char scheme[] = "http://";
    if (strncmp(url, scheme, sizeof scheme - 1)) return -1;
    char *host = url + sizeof scheme - 1, *slash = strchr(host, '/'), *colon = strrchr(host, ':');
    if (slash && slash[1]) o->path = strdup(slash);
    if (slash) *slash = 0;
    if (colon) *colon = 0;
    o->host = host;
    if (colon) o->port = colon + 1;
    return *host && *o->port && o->path ? 0 : -1;
}

static int parse_int(const char *s, int least, int most, int *out) {
    char *end;
    long v = strtol(s, &end, 10);
    if (*end || end == s || v < least || v > most) return -1;
    *out = (int)v;
    return 0;
}

static int parse(struct options *o, int argc, char **argv) {
    const struct { const char *name; int least, most, *out; } ints[] = {
        {"--clients", 1, CLIENTS_MAX, &o->clients}, {"--requests", 1, REQUESTS_MAX, &o->requests}, {"--words", 1, WORDS_MAX, &o->words},
        {"--shared", 0, WORDS_MAX, &o->shared}, {"--max-tokens", 1, 1 << 20, &o->max_tokens}, {"--seconds", 1, 86400, &o->seconds_max},
    };
    const struct { const char *name; const char **out; } strings[] = {{"--model", &o->model}, {"--key", &o->key}, {"--unix", &o->unix_path}};
    for (int i = 1; i < argc; i++) {
        int known = 0;
        if (!strcmp(argv[i], "--json")) {
            o->json = 1;
            continue;
        }
        if (i + 1 == argc) return -1;
        for (size_t k = 0; k < sizeof ints / sizeof *ints; k++)
            if (!strcmp(argv[i], ints[k].name)) {
                if (parse_int(argv[i + 1], ints[k].least, ints[k].most, ints[k].out) < 0) return -1;
                known = 1;
            }
        for (size_t k = 0; k < sizeof strings / sizeof *strings; k++)
            if (!strcmp(argv[i], strings[k].name)) {
                *strings[k].out = argv[i + 1];
                known = 1;
            }
        if (!strcmp(argv[i], "--temperature")) {
            char *end;
            o->temperature = strtod(argv[i + 1], &end);
            known = !*end && end != argv[i + 1] && o->temperature >= 0 && o->temperature <= 2;
        }
        if (!strcmp(argv[i], "--url") && parse_url(o, argv[i + 1]) == 0) known = 1;
        if (!known) return -1;
        i++;
    }
    if (o->model && strpbrk(o->model, "\"\\")) return -1;
    if (!o->requests) o->requests = o->clients * 4;
    if (o->clients > o->requests) o->clients = o->requests;
    return 0;
}

static int resolve(struct bench *b) {
    if (b->o.unix_path) {
        struct sockaddr_un *u = (struct sockaddr_un *)&b->addr;
        if (strlen(b->o.unix_path) >= sizeof u->sun_path) return -1;
        u->sun_family = AF_UNIX;
        memcpy(u->sun_path, b->o.unix_path, strlen(b->o.unix_path) + 1);
        b->addr_n = sizeof *u;
        return 0;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(b->o.host, b->o.port, &hints, &found);
    if (rc) {
        fprintf(stderr, "quern bench: %s:%s: %s\n", b->o.host, b->o.port, gai_strerror(rc));
        return -1;
    }
    memcpy(&b->addr, found->ai_addr, found->ai_addrlen);
    b->addr_n = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* The first model that the server lists. */
static int ask_model(struct bench *b, char *name, size_t cap) {
    char request[512], reply[1 << 14];
    size_t n = 0;
    int fd = socket(b->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&b->addr, b->addr_n) < 0) {
        fprintf(stderr, "quern bench: no server there: %s\n", strerror(errno));
        if (fd >= 0) close(fd);
        return -1;
    }
    int m = snprintf(request, sizeof request, "GET /v1/models HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s%.200s\r\n\r\n",
                     b->o.host, b->o.key ? "Authorization: Bearer " : "X-Client: ", b->o.key ? b->o.key : "quern-bench");
    if (send(fd, request, (size_t)m, MSG_NOSIGNAL) != m) m = -1;
    for (ssize_t k; m > 0 && n < sizeof reply - 1 && (k = recv(fd, reply + n, sizeof reply - 1 - n, 0)) > 0;) n += (size_t)k;
    close(fd);
    reply[n] = 0;
    const char *id = strstr(reply, "\"id\":"), *from = id ? strchr(id + 5, '"') : NULL, *to = from ? strchr(from + 1, '"') : NULL;
    if (!to || (size_t)(to - from) > cap) {
        fprintf(stderr, "quern bench: the server lists no model; name one with --model\n");
        return -1;
    }
    memcpy(name, from + 1, (size_t)(to - from - 1));
    name[to - from - 1] = 0;
    return 0;
}

static void report(struct bench *b, double seconds) {
    double out_rate = (double)b->out_tokens / seconds, all_rate = (double)(b->out_tokens + b->in_tokens) / seconds;
    double t50 = percentile(&b->ttft, .5), t99 = percentile(&b->ttft, .99), g50 = percentile(&b->gaps, .5), g99 = percentile(&b->gaps, .99);
    if (b->o.json) {
        printf("{\"clients\":%d,\"requests\":%d,\"failed\":%d,\"seconds\":%.2f,\"out_tok_s\":%.1f,\"total_tok_s\":%.1f,\"ttft_p50_ms\":%.1f,"
               "\"ttft_p99_ms\":%.1f,\"gap_p50_ms\":%.2f,\"gap_p99_ms\":%.2f,\"e2e_p50_ms\":%.1f}\n",
               b->o.clients, b->finished, b->failed, seconds, out_rate, all_rate, t50, t99, g50, g99, percentile(&b->total, .5));
        return;
    }
    printf("%d requests by %d clients in %.2f s, %d failed", b->finished, b->o.clients, seconds, b->failed);
    if (b->failed) printf(" (first status: %d)", b->first_status);
    printf("\n  output              %9.1f tokens/s\n  prompt and output   %9.1f tokens/s\n", out_rate, all_rate);
    printf("  time to first token %9.1f ms median %9.1f ms p99\n", t50, t99);
    printf("  gap between tokens  %9.2f ms median %9.2f ms p99\n", g50, g99);
    printf("  whole request       %9.1f ms median\n", percentile(&b->total, .5));
}

static void run(struct bench *b, struct client *clients) {
    int64_t end = qn_clock_ns() + b->o.seconds_max * QN_S;
    for (int i = 0; i < b->o.clients; i++) {
        clients[i].fd = -1;
        qn_buf_init(&clients[i].request, LINE_MAX_BYTES);
        qn_buf_init(&clients[i].line, LINE_MAX_BYTES);
        if (start(b, &clients[i]) < 0) finish(b, &clients[i], 0);
    }
    while (b->finished < b->o.requests && qn_clock_ns() < end) {
        struct epoll_event ev[64];
        int n = epoll_wait(b->ep, ev, 64, 100);
        for (int i = 0; i < n; i++) serve(b, ev[i].data.ptr, ev[i].events);
    }
    for (int i = 0; i < b->o.clients; i++) {
        if (clients[i].fd >= 0) close(clients[i].fd);
        qn_buf_done(&clients[i].request);
        qn_buf_done(&clients[i].line);
    }
}

int qn_cli_bench(int argc, char **argv) {
    struct bench b = {.o = {.host = "127.0.0.1", .port = "8080", .path = "/v1/chat/completions", .clients = 8, .words = 100,
                            .max_tokens = 64, .seconds_max = 600}};
    if (parse(&b.o, argc, argv) < 0) {
        fputs(usage_text, stderr);
        return EX_USAGE;
    }
    char model[256];
    if (resolve(&b) < 0) return EX_NOHOST;
    if (!b.o.model) {
        if (ask_model(&b, model, sizeof model) < 0) return EX_UNAVAILABLE;
        b.o.model = model;
    }
    struct client *clients = calloc((size_t)b.o.clients, sizeof *clients);
    b.ep = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || b.ep < 0) return EX_OSERR;
    int64_t t0 = qn_clock_ns();
    run(&b, clients);
    report(&b, (double)(qn_clock_ns() - t0) / 1e9);
    free(clients);
    free(b.ttft.v);
    free(b.gaps.v);
    free(b.total.v);
    close(b.ep);
    return b.finished < b.o.requests || b.failed ? EX_UNAVAILABLE : 0;
}
