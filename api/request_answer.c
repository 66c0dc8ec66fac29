/* The members of a request that say how an answer ends and what is told of it: stop_regex, repetition_detection, prompt_logprobs,
 * token ids, cutting of prompts, best_of and the quern object's samples. Any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "api/request_table.h"

/* A search is compiled on whatever thread reads the request, which may be the loop's: small. */
enum { REGEX_BYTES_MAX = 1024, REGEX_MEMORY = 4 << 20, REGEX_MS = 20 };

/* --- stop_regex --------------------------------------------------------------------------------------------------- */

static int compile(const json_t *v, struct qn_constraint **out, struct qn_err *err) {
    struct qn_grammar_limits limits = {.bytes_max = REGEX_MEMORY, .compile_ns = REGEX_MS * 1000000LL};
    struct qn_regex_opts o = {.search = 1};
    struct qn_grammar *g;
    int rc = qn_grammar_new(&g, &limits);
    if (rc < 0) return qn_fail(err, rc, "no memory");
    qn_gnode root = qn_g_regex(g, json_string_value(v), json_string_length(v), &o, err);
    if (root == QN_G_NONE) {
        rc = qn_grammar_error(g);
        qn_grammar_free(g);
        return qn_fail(err, rc < 0 ? rc : QN_E_DATA, "it matches nothing");
    }
    return qn_constraint_new(out, g, root, NULL, err);
}

static int add_regex(struct qn_params *p, const json_t *v, const char *param, struct qn_refusal *r) {
    struct qn_err err = {0};
    if (!json_is_string(v)) return qn_refuse_type(r, param, "a string", v);
    size_t n = json_string_length(v);
    if (n < 1 || n > REGEX_BYTES_MAX)
        return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': expected 1 to %d bytes, but got %zu.", param, REGEX_BYTES_MAX, n);
    int rc = compile(v, &p->stop_regex[p->n_stop_regex], &err);
    if (rc == QN_E_NOMEM) return qn_refuse_code(r, rc, NULL);
    if (rc < 0) return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': %s.", param, err.text[0] ? err.text : qn_err_name(rc));
    struct qn_constraint *c = p->stop_regex[p->n_stop_regex];
    p->stop_regex_text[p->n_stop_regex++] = v;
    if (qn_constraint_accepts(c, qn_constraint_start(c)))
        return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': it matches the empty text.", param);
    return 0;
}

static int read_regex(struct qn_params *p, struct qn_refusal *r) {
    const json_t *v = p->stop_regex_value;
    if (!v) return 0;
    if (json_is_string(v)) return json_string_length(v) ? add_regex(p, v, "stop_regex", r) : 0;
    if (!json_is_array(v)) return qn_refuse_type(r, "stop_regex", "a string or an array of strings", v);
    if (json_array_size(v) > QN_STOP_REGEX_MAX)
        return qn_refuse(r, 400, "array_above_max_length", "stop_regex", "Invalid 'stop_regex': expected at most %d entries, but got %zu.", QN_STOP_REGEX_MAX,
                         json_array_size(v));
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(v); i++) {
        char param[40];
        snprintf(param, sizeof param, "stop_regex[%zu]", i);
        rc = add_regex(p, json_array_get(v, i), param, r);
    }
    return rc;
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

static int read_repetition(struct qn_params *p, unsigned on, struct qn_buf *ignored, struct qn_refusal *r) {
    const json_t *v = p->repetition_value;
    if (!v) return 0;
    if (!json_is_object(v)) return qn_refuse_type(r, "repetition_detection", "an object", v);
    struct qn_walk w = {qn_repetition_table, qn_repetition_rows, on, "repetition_detection.", 1, ignored, r};
    int rc = qn_fields_walk(&w, v, p);
    if (rc < 0 || p->max_pattern_size == 0) return rc; /* 0 is vLLM's "off" */
    if (p->min_pattern_size == 0) p->min_pattern_size = 1;
    if (p->min_pattern_size > p->max_pattern_size)
        return qn_refuse(r, 400, "invalid_value", "repetition_detection.min_pattern_size", "Invalid 'repetition_detection': 'min_pattern_size' is larger than 'max_pattern_size'.");
    if (p->min_count < 2)
        return qn_refuse(r, 400, "integer_below_min_value", "repetition_detection.min_count", "Invalid 'repetition_detection.min_count': expected at least 2.");
    return 0;
}

static int check_side(struct qn_params *p, struct qn_refusal *r) {
    const struct qn_chars *s = &p->truncation_side;
    p->cut_right = s->p && s->n == 5 && !memcmp(s->p, "right", 5);
    if (!s->p || p->cut_right || (s->n == 4 && !memcmp(s->p, "left", 4))) return 0;
    return qn_refuse(r, 400, "invalid_value", "truncation_side", "Invalid value for 'truncation_side': expected 'left' or 'right'.");
}

static int check_best_of(const struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    if (p->best_of == QN_ABSENT || p->best_of == p->n) return 0;
    if (p->best_of < p->n) return qn_refuse(r, 400, "invalid_value", "best_of", "Invalid 'best_of': it must be at least 'n' (%lld).", (long long)p->n);
    if (p->best_of > b->n_max)
        return qn_refuse(r, 400, "integer_above_max_value", "best_of", "Invalid 'best_of': expected a value of at most %d.", b->n_max);
    if (p->stream) return qn_refuse(r, 400, "invalid_value", "best_of", "'best_of' larger than 'n' cannot be streamed.");
    return 0;
}

static int is_one_of(const struct qn_chars *s, const char *const *words, int n) {
    for (int i = 0; i < n; i++)
        if (s->n == strlen(words[i]) && !memcmp(s->p, words[i], s->n)) return i;
    return -1;
}

static int check_samples(struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    static const char *const ways[] = {"majority", "mean_logprob", "schema"}, *const kinds[] = {"auto", "number", "json", "text"};
    int way = p->select.p ? is_one_of(&p->select, ways, 3) : 0, kind = p->answer.p ? is_one_of(&p->answer, kinds, 4) : 0;
    if (way < 0) return qn_refuse(r, 400, "invalid_value", "quern.select", "Invalid value for 'quern.select': expected 'majority', 'mean_logprob' or 'schema'.");
    if (kind < 0) return qn_refuse(r, 400, "invalid_value", "quern.answer", "Invalid value for 'quern.answer': expected 'auto', 'number', 'json' or 'text'.");
    p->select_by = (enum qn_select)(way + 1);
    p->answer_kind = (enum qn_answer_kind)kind;
    if (p->samples == QN_ABSENT) {
        p->select_by = QN_SELECT_NONE;
        if (!p->select.p && !p->answer.p) return 0;
        return qn_refuse(r, 400, "missing_required_parameter", "quern.samples", "'quern.select' and 'quern.answer' need 'quern.samples'.");
    }
    if (p->samples > b->n_max)
        return qn_refuse(r, 400, "integer_above_max_value", "quern.samples", "Invalid 'quern.samples': expected a value from 1 to %d, but got %lld instead.", b->n_max,
                         (long long)p->samples);
    if (p->n != 1 || (p->best_of != QN_ABSENT && p->best_of != 1))
        return qn_refuse(r, 400, "invalid_value", "quern.samples", "'quern.samples' gives one answer: 'n' and 'best_of' must be 1.");
    if (p->stream) return qn_refuse(r, 400, "invalid_value", "quern.samples", "'quern.samples' cannot be streamed: there is no answer before the vote.");
    return 0;
}

static int check_beams(struct qn_params *p, struct qn_refusal *r) {
    const json_t *v = p->early_stopping;
    if (v && json_is_true(v)) p->stop_beams = QN_BEAMS_EARLY;
    else if (v && json_is_string(v) && !strcmp(json_string_value(v), "never")) p->stop_beams = QN_BEAMS_NEVER;
    else if (v && !json_is_false(v)) return qn_refuse_type(r, "early_stopping", "a boolean or \"never\"", v);
    if (p->use_beam_search || (p->length_penalty == 1 && p->stop_beams == QN_BEAMS_LATE)) return 0;
    return qn_refuse(r, 400, "invalid_value", p->length_penalty != 1 ? "length_penalty" : "early_stopping", "'length_penalty' and 'early_stopping' need 'use_beam_search'.");
}

int qn_params_read_answer(struct qn_params *p, unsigned on, const struct qn_bounds *b, struct qn_buf *ignored, struct qn_refusal *r) {
    int rc = read_regex(p, r);
    if (rc == 0) rc = read_repetition(p, on, ignored, r);
    if (rc == 0) rc = check_side(p, r);
    if (rc == 0) rc = check_best_of(p, b, r);
    if (rc == 0) rc = check_samples(p, b, r);
    if (rc == 0) rc = check_beams(p, r);
    if (rc == 0 && p->truncate_prompt_tokens == 0)
        rc = qn_refuse(r, 400, "integer_below_min_value", "truncate_prompt_tokens", "Invalid 'truncate_prompt_tokens': 0 leaves no prompt; expected -1 or at least 1.");
    if (rc == 0 && p->truncate_prompt_tokens != QN_ABSENT && p->truncate_prompt_tokens > b->n_ctx)
        rc = qn_refuse(r, 400, "integer_above_max_value", "truncate_prompt_tokens", "Invalid 'truncate_prompt_tokens': expected at most the context's length, %d.", b->n_ctx);
    if (rc == 0 && p->prompt_logprobs != QN_ABSENT && p->stream)
        rc = qn_refuse(r, 400, "invalid_value", "prompt_logprobs", "'prompt_logprobs' are not available when 'stream' is true.");
    return rc;
}

int qn_params_branches(const struct qn_params *p) {
    return (int)(p->samples != QN_ABSENT ? p->samples : p->best_of != QN_ABSENT ? p->best_of : p->n);
}

void qn_params_answer(const struct qn_params *p, struct qn_job *job) {
    job->n_branches = qn_params_branches(p);
    job->keep_stop = p->keep_stop;
    job->n_stop_regex = p->n_stop_regex;
    memcpy(job->stop_regex, p->stop_regex, sizeof job->stop_regex);
    if (p->repetition_value && p->max_pattern_size)
        job->repetition = (struct qn_repetition){(int)p->min_pattern_size, (int)p->max_pattern_size, (int)p->min_count};
    /* The best of several is found by what the model thinks of them. */
    if (job->n_logprobs < 0 && (p->select_by != QN_SELECT_NONE || job->n_branches > (int)p->n)) job->n_logprobs = 0;
    int scored = p->prompt_logprobs == QN_ABSENT ? -1 : (int)p->prompt_logprobs;
    if (scored > job->prompt_logprobs) job->prompt_logprobs = scored;
}
