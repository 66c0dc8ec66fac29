/* After the table has done the scalars, the lists and the rules between members. The first failure wins. */
#include "api/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/request_table.h"

enum { METADATA_KEYS_MAX = 16, METADATA_KEY_MAX = 64, METADATA_VALUE_MAX = 512 };

static void defaults(struct qn_params *p) {
    memset(p, 0, sizeof *p);
    p->temperature = p->top_p = p->repetition_penalty = p->typical_p = p->dynatemp_exponent = p->length_penalty = 1;
    p->xtc_threshold = p->mirostat_eta = 0.1;
    p->mirostat_tau = 5;
    p->dry_base = 1.75;
    p->dry_allowed_length = 2;
    p->repeat_last_n = p->dry_penalty_last_n = -1;
    p->max_completion_tokens = p->max_tokens = p->n_predict = p->max_new_tokens = QN_ABSENT;
    p->seed = p->best_of = p->top_logprobs = p->prompt_logprobs = p->truncate_prompt_tokens = p->samples = QN_ABSENT;
    p->n = 1;
    p->skip_special_tokens = p->cache_prompt = 1;
    p->add_special_tokens = p->parse_special = p->add_generation_prompt = p->continue_final_message = p->enable_thinking = -1;
    p->n_logprobs = -1;
    p->parallel_tool_calls = p->parse_tool_calls = p->include_reasoning = p->separate_reasoning = p->stream_reasoning = 1;
    p->thinking_token_budget = p->reasoning_budget_tokens = p->thinking_budget_tokens = QN_ABSENT;
}

/* --- lists -------------------------------------------------------------------------------------------------------- */

static int too_many(struct qn_refusal *r, const char *param, size_t most, size_t n) {
    return qn_refuse(r, 400, "array_above_max_length", param, "Invalid '%s': array too long. Expected at most %zu, but got %zu.",
                     param, most, n);
}

static int add_stop(struct qn_params *p, const json_t *v, const char *param, struct qn_refusal *r) {
    if (!json_is_string(v)) return qn_refuse_type(r, param, "a string", v);
    size_t n = json_string_length(v);
    if (n == 0) return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': a stop string cannot be empty.", param);
    if (n > QN_STOP_BYTES_MAX)
        return qn_refuse(r, 400, "string_above_max_length", param,
                         "Invalid '%s': string too long. Expected at most %d bytes, but got %zu.", param, QN_STOP_BYTES_MAX, n);
    p->stop[p->n_stops] = json_string_value(v);
    p->stop_n[p->n_stops++] = n;
    return 0;
}

static int read_stop(struct qn_params *p, struct qn_refusal *r) {
    const json_t *v = p->stop_value;
    if (!v) return 0;
    if (json_is_string(v)) return add_stop(p, v, "stop", r);
    if (!json_is_array(v)) return qn_refuse_type(r, "stop", "a string or an array of strings", v);
    size_t n = json_array_size(v);
    if (n > QN_STOPS_MAX) return too_many(r, "stop", QN_STOPS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        char param[32];
        snprintf(param, sizeof param, "stop[%zu]", i);
        int rc = add_stop(p, json_array_get(v, i), param, r);
        if (rc < 0) return rc;
    }
    return 0;
}

static int read_stop_ids(struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    const json_t *v = p->stop_ids_value;
    if (!v) return 0;
    if (!json_is_array(v)) return qn_refuse_type(r, "stop_token_ids", "an array of integers", v);
    size_t n = json_array_size(v);
    if (n > QN_STOP_IDS_MAX) return too_many(r, "stop_token_ids", QN_STOP_IDS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        char param[40];
        double id;
        snprintf(param, sizeof param, "stop_token_ids[%zu]", i);
        int rc = qn_field_number(json_array_get(v, i), param, 0, (double)b->n_vocab - 1, 1, &id, r);
        if (rc < 0) return rc;
        p->stop_ids[p->n_stop_ids++] = (uint32_t)id;
    }
    return 0;
}

/* --- logit_bias --------------------------------------------------------------------------------------------------- */

static int add_bias(struct qn_params *p, uint32_t id, double add, struct qn_refusal *r) {
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].id == id) {
            p->bias[i].add = (float)add;
            return 0;
        }
    if (p->n_bias == QN_BIAS_MAX)
        return qn_refuse(r, 400, "array_above_max_length", "logit_bias",
                         "Invalid 'logit_bias': too many entries. Expected at most %d.", QN_BIAS_MAX);
    p->bias[p->n_bias++] = (struct qn_bias){id, (float)add};
    return 0;
}

static int bias_map(struct qn_params *p, const json_t *map, const struct qn_bounds *b, struct qn_refusal *r) {
    const char *key;
    json_t *v;
    if (json_object_size(map) > QN_BIAS_MAX) return too_many(r, "logit_bias", QN_BIAS_MAX, json_object_size(map));
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        char param[QN_PARAM_MAX], quoted[QN_QUOTE_MAX + 4], *end;
        double add;
        snprintf(param, sizeof param, "logit_bias.%s", qn_quote(quoted, key, strlen(key)));
        errno = 0;
        unsigned long id = strtoul(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end || errno || id >= b->n_vocab)
            return qn_refuse(r, 400, "invalid_value", param, "Invalid key in 'logit_bias': expected a token id from 0 to %u.",
                             b->n_vocab - 1);
        int rc = qn_field_number(v, param, -100, 100, 0, &add, r);
        if (rc == 0) rc = add_bias(p, (uint32_t)id, add, r);
        if (rc < 0) return rc;
    }
    return 0;
}

/* A text biases each of its tokens, as llama.cpp does. */
static int bias_text(struct qn_params *p, const json_t *s, double add, const struct qn_bounds *b, struct qn_refusal *r) {
    struct qn_ids ids = {0};
    struct qn_text text = {.p = json_string_value(s), .n = json_string_length(s)};
    int rc = qn_tokenizer_encode(b->tok, &text, 0, QN_BIAS_MAX, &ids, NULL);
    if (rc < 0)
        rc = qn_refuse(r, 400, "array_above_max_length", "logit_bias", "Invalid 'logit_bias': a text of more than %d tokens.",
                       QN_BIAS_MAX);
    for (size_t i = 0; rc == 0 && i < ids.n; i++) rc = add_bias(p, ids.v[i], add, r);
    free(ids.v);
    return rc;
}

static int bias_pair(struct qn_params *p, const json_t *pair, size_t i, const struct qn_bounds *b, struct qn_refusal *r) {
    char param[48];
    double id, add = -100;
    snprintf(param, sizeof param, "logit_bias[%zu]", i);
    if (!json_is_array(pair) || json_array_size(pair) != 2)
        return qn_refuse_type(r, param, "an array of two: id or text, and bias", pair);
    const json_t *what = json_array_get(pair, 0), *by = json_array_get(pair, 1);
    snprintf(param, sizeof param, "logit_bias[%zu][1]", i);
    int rc = json_is_false(by) ? 0 : qn_field_number(by, param, -100, 100, 0, &add, r);
    if (rc < 0) return rc;
    if (json_is_string(what)) return bias_text(p, what, add, b, r);
    snprintf(param, sizeof param, "logit_bias[%zu][0]", i);
    rc = qn_field_number(what, param, 0, (double)b->n_vocab - 1, 1, &id, r);
    return rc < 0 ? rc : add_bias(p, (uint32_t)id, add, r);
}

static int read_bias(struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    const json_t *v = p->bias_value;
    if (!v) return 0;
    if (json_is_object(v)) return bias_map(p, v, b, r);
    if (!json_is_array(v)) return qn_refuse_type(r, "logit_bias", "an object", v);
    if (json_array_size(v) > QN_BIAS_MAX) return too_many(r, "logit_bias", QN_BIAS_MAX, json_array_size(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        int rc = bias_pair(p, json_array_get(v, i), i, b, r);
        if (rc < 0) return rc;
    }
    return 0;
}

/* --- rules between members ---------------------------------------------------------------------------------------- */

static int read_logprobs(struct qn_params *p, unsigned on, struct qn_refusal *r) {
    const json_t *v = p->logprobs_value;
    int asked = v && json_is_true(v);
    if (on == QN_ON_CHAT) {
        if (v && !json_is_boolean(v)) return qn_refuse_type(r, "logprobs", "a boolean", v);
        if (p->top_logprobs != QN_ABSENT && p->top_logprobs > 0 && !asked)
            return qn_refuse(r, 400, "invalid_value", "top_logprobs", "top_logprobs requires logprobs: set 'logprobs' to true.");
        if (asked) p->n_logprobs = p->top_logprobs == QN_ABSENT ? 0 : (int)p->top_logprobs;
        return 0;
    }
    double n;
    if (!v || json_is_false(v)) return 0;
    int rc = qn_field_number(v, "logprobs", 0, QN_LOGPROBS_MAX, 1, &n, r);
    if (rc == 0) p->n_logprobs = (int)n;
    return rc;
}

static int read_stream_options(struct qn_params *p, unsigned on, struct qn_buf *ignored, struct qn_refusal *r) {
    const json_t *v = p->stream_options;
    if (!v) return 0;
    if (!json_is_object(v)) return qn_refuse_type(r, "stream_options", "an object", v);
    if (!p->stream)
        return qn_refuse(r, 400, "invalid_value", "stream_options", "Stream options can only be defined when `stream=True`.");
    struct qn_walk w = {qn_stream_options_table, qn_stream_options_rows, on, "stream_options.", 0, ignored, r};
    return qn_fields_walk(&w, v, p);
}

static int read_own(struct qn_params *p, unsigned on, struct qn_buf *ignored, struct qn_refusal *r) {
    if (!p->quern) return 0;
    if (!json_is_object(p->quern)) return qn_refuse_type(r, "quern", "an object", p->quern);
    struct qn_walk w = {qn_own_table, qn_own_rows, on, "quern.", 1, ignored, r};
    return qn_fields_walk(&w, p->quern, p);
}

static int read_structured(struct qn_params *p, unsigned on, struct qn_buf *ignored, struct qn_refusal *r) {
    const json_t *v = p->structured_value;
    if (!v) return 0;
    if (!json_is_object(v)) return qn_refuse_type(r, "structured_outputs", "an object", v);
    struct qn_walk w = {qn_structured_table, qn_structured_rows, on, "structured_outputs.", 1, ignored, r};
    return qn_fields_walk(&w, v, p);
}

static int check_metadata(const struct qn_params *p, struct qn_refusal *r) {
    const char *key;
    json_t *v;
    if (!p->metadata) return 0;
    if (!json_is_object(p->metadata)) return qn_refuse_type(r, "metadata", "an object", p->metadata);
    if (json_object_size(p->metadata) > METADATA_KEYS_MAX)
        return qn_refuse(r, 400, "object_above_max_properties", "metadata",
                         "Invalid 'metadata': too many properties. Expected at most %d, but got %zu.", METADATA_KEYS_MAX,
                         json_object_size(p->metadata));
    json_object_foreach((json_t *)(uintptr_t)p->metadata, key, v) {
        char param[QN_PARAM_MAX], quoted[QN_QUOTE_MAX + 4];
        snprintf(param, sizeof param, "metadata.%s", qn_quote(quoted, key, strlen(key)));
        if (strlen(key) > METADATA_KEY_MAX)
            return qn_refuse(r, 400, "string_above_max_length", param, "Invalid 'metadata': a key has more than %d bytes.",
                             METADATA_KEY_MAX);
        if (!json_is_string(v)) return qn_refuse_type(r, param, "a string", v);
        if (json_string_length(v) > METADATA_VALUE_MAX)
            return qn_refuse(r, 400, "string_above_max_length", param,
                             "Invalid '%s': string too long. Expected at most %d bytes.", param, METADATA_VALUE_MAX);
    }
    return 0;
}

static int check_salt(const struct qn_params *p, struct qn_refusal *r) {
    if (!p->cache_salt.p) return 0;
    for (size_t i = 0; i < p->cache_salt.n; i++) {
        char c = p->cache_salt.p[i];
        if (c == 0 || c == '@' || c == '/' || c == '\\')
            return qn_refuse(r, 400, "invalid_value", "cache_salt",
                             "Invalid 'cache_salt': 1 to 128 bytes without @, /, \\ or NUL.");
    }
    if (p->cache_salt.n == 0) return qn_refuse(r, 400, "invalid_value", "cache_salt", "Invalid 'cache_salt': 1 to 128 bytes.");
    return 0;
}

static int check_counts(const struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    if (p->n > b->n_max)
        return qn_refuse(r, 400, "integer_above_max_value", "n",
                         "Invalid 'n': integer above maximum value. Expected a value from 1 to %d, but got %lld instead.",
                         b->n_max, (long long)p->n);
    if (p->add_generation_prompt == 1 && p->continue_final_message == 1)
        return qn_refuse(r, 400, "invalid_value", "continue_final_message",
                         "'continue_final_message' and 'add_generation_prompt' cannot both be true.");
    const char *name;
    int64_t most = qn_params_max_tokens(p, &name);
    if (most >= 0 && p->min_tokens > most)
        return qn_refuse(r, 400, "integer_above_max_value", "min_tokens", "Invalid 'min_tokens': it is larger than '%s' (%lld).",
                         name, (long long)most);
    return 0;
}

static int check_kwargs(const struct qn_params *p, struct qn_refusal *r) {
    if (p->kwargs && !json_is_object(p->kwargs)) return qn_refuse_type(r, "chat_template_kwargs", "an object", p->kwargs);
    if (p->documents && !json_is_array(p->documents)) return qn_refuse_type(r, "documents", "an array of objects", p->documents);
    for (size_t i = 0; p->documents && i < json_array_size(p->documents); i++) {
        char param[32];
        snprintf(param, sizeof param, "documents[%zu]", i);
        if (!json_is_object(json_array_get(p->documents, i)))
            return qn_refuse_type(r, param, "an object", json_array_get(p->documents, i));
    }
    return 0;
}

int qn_params_read(struct qn_params *p, const json_t *body, unsigned on, const struct qn_bounds *b, struct qn_buf *ignored,
                   struct qn_refusal *r) {
    defaults(p);
    struct qn_walk w = {qn_request_table, qn_request_rows, on, "", 0, ignored, r};
    int rc = qn_fields_walk(&w, body, p);
    if (rc == 0) rc = read_own(p, on, ignored, r);
    if (rc == 0) rc = read_stream_options(p, on, ignored, r);
    if (rc == 0) rc = read_logprobs(p, on, r);
    if (rc == 0) rc = read_stop(p, r);
    if (rc == 0) rc = read_stop_ids(p, b, r);
    if (rc == 0) rc = read_bias(p, b, r);
    if (rc == 0) rc = qn_params_read_sampling(p, b, r);
    if (rc == 0) rc = check_counts(p, b, r);
    if (rc == 0) rc = read_structured(p, on, ignored, r);
    if (rc == 0) rc = qn_params_read_answer(p, on, b, ignored, r);
    if (rc == 0) rc = check_metadata(p, r);
    if (rc == 0) rc = check_salt(p, r);
    if (rc == 0) rc = check_kwargs(p, r);
    return rc;
}

int64_t qn_params_max_tokens(const struct qn_params *p, const char **name) {
    const struct {
        int64_t v;
        const char *name;
    } said[] = {
        {p->max_completion_tokens, "max_completion_tokens"},
        {p->max_tokens, "max_tokens"},
        {p->n_predict, "n_predict"},
        {p->max_new_tokens, "max_new_tokens"},
    };
    *name = "max_tokens";
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (said[i].v != QN_ABSENT) {
            *name = said[i].name;
            return said[i].v;
        }
    return QN_ABSENT;
}

void qn_params_job(const struct qn_params *p, struct qn_job *job) {
    qn_params_sampling(p, &job->sampling);
    job->min_tokens = (int)p->min_tokens;
    job->ignore_eos = p->ignore_eos;
    job->hide_special = p->skip_special_tokens;
    job->n_logprobs = p->n_logprobs;
    job->prompt_logprobs = p->echo > 0 && p->n_logprobs >= 0 ? p->n_logprobs : -1;
    job->cache_prompt = p->cache_prompt;
    job->n_stops = p->n_stops;
    memcpy(job->stop, p->stop, sizeof job->stop);
    memcpy(job->stop_n, p->stop_n, sizeof job->stop_n);
    job->stop_ids = p->stop_ids;
    job->n_stop_ids = p->n_stop_ids;
    qn_params_answer(p, job);
}
