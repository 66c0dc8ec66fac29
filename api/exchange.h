/* Inside of an exchange, shared by the files of api/ that answer requests. Not for the server.
 *
 * A handler has two parts: prepare() reads the body, renders and tokenises; it touches its exchange and const parts of the
 * api only, so it may run off the loop for a large body. start() runs on the loop and answers, or submits work whose
 * events answer later. prepare fails by filling x->refusal. */
#ifndef QN_EXCHANGE_H
#define QN_EXCHANGE_H

#include <jansson.h>

#include "api/api.h"
#include "api/constrain.h"
#include "api/error.h"
#include "api/metrics.h"
#include "api/request.h"
#include "api/template.h"
#include "api/thinking.h"
#include "api/tools.h"
#include "engine/base/arena.h"

struct qn_gen;

struct qn_api {
    struct qn_api_opts opts;
    struct qn_api_host host;
    int has_host;
    const struct qn_engine_info *info;
    const struct qn_tokenizer *tok;
    struct qn_template *tmpl;
    struct qn_call_marks marks; /* what its answers look like */
    uint32_t shown[QN_SHOWN_MAX]; /* control tokens among those marks */
    size_t n_shown;
    char *model_name;
    char fingerprint[16]; /* "fp_0123456789" */
    int64_t created_s;
    struct qn_bounds bounds;
    uint64_t id_key[2], n_ids; /* ids and absent seeds are SipHash of a counter under a secret */
    int plain_ids;             /* tests: ids count from 1 */
    struct qn_metrics metrics;
    struct qn_constraints *constraints;
};

struct qn_route {
    const char *method;                    /* "GET" answers HEAD too */
    const char *path;                      /* ends in '*': the rest of the path is the argument */
    const char *name;                      /* for the log */
    int (*prepare)(struct qn_exchange *x); /* any thread; NULL: nothing to prepare */
    void (*start)(struct qn_exchange *x);  /* loop */
};

struct qn_exchange {
    struct qn_api *api;
    const struct qn_route *route;
    struct qn_sink sink;
    void *sink_ctx;
    char request_id[132];
    char arg[512]; /* what `*` of the route stood for */
    struct qn_buf body;
    int replied, ended, cancelled, offloaded, closing, anthropic;
    int64_t begin_ns;
    struct qn_refusal refusal;
    struct qn_buf ignored; /* names for Quern-Ignored */
    struct qn_buf out;     /* whole answer of the simple handlers */
    const char *out_type;  /* its Content-Type; NULL: application/json */
    json_t *json;
    struct qn_params params;
    struct qn_answer_form form;
    struct qn_tools tools;
    struct qn_thought thought;
    struct qn_gen *gen;
    struct qn_exchange_facts facts;
};

/* Parses x->body into x->json and x->params for endpoint `on`; checks the model's name. */
int qn_exchange_parse(struct qn_exchange *x, unsigned on);
/* Replies once; later calls do nothing. `out` is taken. */
void qn_exchange_whole(struct qn_exchange *x, int status, struct qn_buf *out, const char *type);
void qn_exchange_refused(struct qn_exchange *x);  /* with x->refusal */
void qn_exchange_streamed(struct qn_exchange *x); /* 200 text/event-stream */
void qn_exchange_send_out(struct qn_exchange *x); /* start() of handlers whose prepare filled x->out */
/* A number nobody can foretell, one for each (counter, lane). */
uint64_t qn_api_draw(struct qn_api *a, uint64_t lane);

/* The route of method and path; NULL with x->refusal filled (404, 405). `allow` (64 bytes) lists methods for a 405. */
const struct qn_route *qn_route_find(const char *method, const char *target, struct qn_exchange *x, char *allow);
const struct qn_route *qn_route_at(int i); /* NULL past the last: for tests that walk them */

/* messages.c: messages is an array of objects with known roles, their content text. */
int qn_messages_check(const json_t *messages, struct qn_refusal *r);
/* Renders x->params' messages by the model's template and tokenises (ids may be NULL: text only). */
int qn_messages_prompt(struct qn_exchange *x, struct qn_rendered *text, struct qn_ids *ids);
/* Plain text to ids: BOS where the model wants it if `add_special`; control tokens by their spelling if `parse_special`. */
int qn_plain_ids(const struct qn_api *a, const char *s, size_t n, int add_special, int parse_special, struct qn_ids *ids,
                 struct qn_refusal *r);
/* An array of ids; path names it in messages. */
int qn_read_ids(const struct qn_api *a, const json_t *list, const char *path, struct qn_ids *ids, struct qn_refusal *r);
/* Bytes of ids as text (mended UTF-8), without the space that the model's decoder strips. */
void qn_ids_text(const struct qn_api *a, const uint32_t *ids, size_t n, int hide_special, struct qn_buf *out);

/* Handlers, by the file that holds them. */
int qn_chat_prepare(struct qn_exchange *x);
int qn_completions_prepare(struct qn_exchange *x);
void qn_gen_start(struct qn_exchange *x);
int qn_tokenize_prepare(struct qn_exchange *x);
int qn_detokenize_prepare(struct qn_exchange *x);
int qn_apply_template_prepare(struct qn_exchange *x);
void qn_models_start(struct qn_exchange *x);
void qn_model_start(struct qn_exchange *x);
void qn_health_start(struct qn_exchange *x);
void qn_live_start(struct qn_exchange *x);
void qn_version_start(struct qn_exchange *x);
void qn_metrics_start(struct qn_exchange *x);
/* 0: ready; otherwise r is filled (503 draining or stalled). */
int qn_health(const struct qn_api *a, struct qn_refusal *r);

#endif
