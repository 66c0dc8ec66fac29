/* The members of all generating and token endpoints, as one table, and what they become: a checked qn_params.
 *
 * Everything that needs no model's text is checked here; prompts and messages are the endpoints' (messages.h, chat.c,
 * completions.c). Strings and lists point into the parsed body, which outlives the params. Any thread. */
#ifndef QN_REQUEST_H
#define QN_REQUEST_H

#include <jansson.h>

#include "api/error.h"
#include "api/fields.h"
#include "engine/engine.h"

enum { QN_ON_CHAT = 1, QN_ON_COMPLETIONS = 2, QN_ON_TOKENIZE = 4, QN_ON_DETOKENIZE = 8, QN_ON_TEMPLATE = 16 };
enum { QN_N_HARD_MAX = 128, QN_PROMPTS_MAX = 128, QN_CHOICES_MAX = 128 };

struct qn_structured {  /* vLLM's structured_outputs */
    const json_t *json, *choice, *structural_tag;
    struct qn_chars regex, grammar, whitespace_pattern;
    int json_object, disable_any_whitespace, disable_additional_properties;
};
enum qn_stop_beams { QN_BEAMS_LATE, QN_BEAMS_EARLY, QN_BEAMS_NEVER }; /* early_stopping: false, true, "never" */
enum qn_select { QN_SELECT_NONE, QN_SELECT_MAJORITY, QN_SELECT_LOGPROB, QN_SELECT_SCHEMA };
enum qn_answer_kind { QN_ANSWER_AUTO, QN_ANSWER_NUMBER, QN_ANSWER_JSON, QN_ANSWER_TEXT };

struct qn_params {
    struct qn_chars truncation_side, select, answer;
    int64_t prompt_logprobs, truncate_prompt_tokens, samples, min_pattern_size, max_pattern_size, min_count;
    int keep_stop, return_token_ids, tokens_as_ids, use_beam_search;
    double length_penalty;
    const json_t *early_stopping;
    const json_t *stop_regex_value, *repetition_value;
    struct qn_chars model, user, cache_salt, reasoning_effort;
    double temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
    double top_n_sigma, typical_p, xtc_probability, xtc_threshold, dynatemp_range, dynatemp_exponent;
    double mirostat_tau, mirostat_eta, dry_multiplier, dry_base;
    int64_t mirostat, min_keep, repeat_last_n, dry_allowed_length, dry_penalty_last_n;
    int64_t top_k, max_completion_tokens, max_tokens, n_predict, max_new_tokens; /* absent: QN_ABSENT */
    int64_t min_tokens, n, best_of, seed, top_logprobs, deadline_ms;
    int ignore_eos, skip_special_tokens, cache_prompt, stream, include_usage, continuous_usage;
    int echo, add_special_tokens, parse_special;                        /* -1: absent */
    int add_generation_prompt, continue_final_message, enable_thinking; /* -1: absent */
    int with_pieces, return_token_strs, add_special;                    /* tokenize */
    const json_t *prediction;
    const json_t *functions, *function_call, *thinking, *custom_params, *nvext, *own_thinking;
    struct qn_chars reasoning_format, budget_message;
    int64_t thinking_token_budget, reasoning_budget_tokens, thinking_budget_tokens;
    int parallel_tool_calls, parse_tool_calls, include_reasoning, separate_reasoning, stream_reasoning;
    const json_t *messages, *prompt, *content, *tokens, *tools, *tool_choice, *documents, *kwargs, *metadata;
    const json_t *bad_words_value, *allowed_value, *dry_breakers_value;
    const json_t *stop_value, *stop_ids_value, *bias_value, *logprobs_value, *stream_options, *quern, *response_format;

    /* The answer's form: form.h reads them. */
    const json_t *structured_value, *guided_json, *guided_choice, *json_schema, *grammar, *structural_tag;
    struct qn_chars guided_regex, guided_grammar, guided_whitespace_pattern, regex, ebnf;
    struct qn_structured structured;

    /* Made from the above. */
    int n_logprobs; /* -1: none */
    const char *stop[QN_STOPS_MAX];
    size_t stop_n[QN_STOPS_MAX];
    int n_stops;
    uint32_t stop_ids[QN_STOP_IDS_MAX];
    int n_stop_ids;
    struct qn_bias bias[QN_BIAS_MAX];
    uint32_t n_bias;
    uint32_t *bad, n_bad;           /* as in struct qn_sampling; owned, see qn_params_done */
    uint32_t *allowed;              /* the same */
    struct qn_breakers breakers;
    struct qn_constraint *stop_regex[QN_STOP_REGEX_MAX]; /* owned */
    const json_t *stop_regex_text[QN_STOP_REGEX_MAX];
    int n_stop_regex, cut_right;
    enum qn_select select_by;
    enum qn_stop_beams stop_beams;
    enum qn_answer_kind answer_kind;
};

#define QN_ABSENT INT64_MIN

struct qn_bounds {                  /* what the model and the configuration allow */
    const struct qn_tokenizer *tok; /* for logit_bias by text */
    uint32_t n_vocab;
    int n_ctx, n_max;
};

/* Reads `body` for the endpoint `on`. ignored collects names. QN_E_RANGE with r filled. */
int qn_params_read(struct qn_params *p, const json_t *body, unsigned on, const struct qn_bounds *b, struct qn_buf *ignored,
                   struct qn_refusal *r);
/* The output bound that was asked for, or QN_ABSENT. *name: the member that said so. */
int64_t qn_params_max_tokens(const struct qn_params *p, const char **name);
void qn_params_done(struct qn_params *p);
/* request_answer.c: its part of read and job. */
int qn_params_read_answer(struct qn_params *p, unsigned on, const struct qn_bounds *b, struct qn_buf *ignored, struct qn_refusal *r);
void qn_params_answer(const struct qn_params *p, struct qn_job *job);
int qn_params_branches(const struct qn_params *p); /* of each prompt; more than are shown with best_of and samples */
/* request_sampling.c: the same. */
int qn_params_read_sampling(struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r);
void qn_params_sampling(const struct qn_params *p, struct qn_sampling *s);
/* Fills a job's sampling, stops, lists and flags; prompt, max_tokens, seed and callbacks are the caller's. */
void qn_params_job(const struct qn_params *p, struct qn_job *job);
/* docs/api-fields.md. */
void qn_params_markdown(struct qn_buf *out);

#endif
