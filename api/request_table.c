/* One row for each member that OpenAI documents or a peer accepts, so that none is silently dropped: people find a
 * member that is accepted and ignored in production. docs/api-fields.md is made from this table. */
#include "api/request_table.h"

#define AT(m)  offsetof(struct qn_params, m)
#define GEN    (QN_ON_CHAT | QN_ON_COMPLETIONS)
#define CHATTY (QN_ON_CHAT | QN_ON_TEMPLATE | QN_ON_TOKENIZE)
#define ALL    (GEN | QN_ON_TOKENIZE | QN_ON_DETOKENIZE | QN_ON_TEMPLATE)

#define BOOL(name, on, m, def, note)                                                                                             \
    { name, QN_F_BOOL, QN_F_HONOURED, on, 0, 0, 0, AT(m), def, note }
#define INT(name, on, m, lo, hi, def, note)                                                                                      \
    { name, QN_F_INT, QN_F_HONOURED, on, lo, hi, 0, AT(m), def, note }
#define NUM(name, on, m, lo, hi, def, note)                                                                                      \
    { name, QN_F_NUM, QN_F_HONOURED, on, lo, hi, 0, AT(m), def, note }
#define OPEN(name, on, m, lo, hi, def, note)                                                                                     \
    { name, QN_F_NUM, QN_F_HONOURED, on, lo, hi, 1, AT(m), def, note }
#define STR(name, on, m, most, def, note)                                                                                        \
    { name, QN_F_STR, QN_F_HONOURED, on, 0, most, 0, AT(m), def, note }
#define ANY(name, on, m, def, note)                                                                                              \
    { name, QN_F_ANY, QN_F_HONOURED, on, 0, 0, 0, AT(m), def, note }
#define ONLY(name, on, passes, note)                                                                                             \
    { name, QN_F_ANY, QN_F_DEFAULT_ONLY, on, 0, 0, 0, 0, passes, note }
#define FREE(name, on, note)                                                                                                     \
    { name, QN_F_ANY, QN_F_NO_EFFECT, on, 0, 0, 0, 0, "", note }
#define SKIP(name, on, note)                                                                                                     \
    { name, QN_F_ANY, QN_F_IGNORED, on, 0, 0, 0, 0, "", note }

enum { TOKENS_MOST = 1 << 24 };

/* clang-format off: one row a line */
const struct qn_field qn_request_table[] = {
    STR("model", ALL, model, 512, "", "must be the served model when given"),
    ANY("messages", CHATTY, messages, "", "1..4096; text only"),
    ANY("prompt", QN_ON_COMPLETIONS | QN_ON_TOKENIZE, prompt, "", "string, list of strings, token ids, list of lists of ids"),
    ANY("content", QN_ON_TOKENIZE, content, "", "llama.cpp's spelling of prompt"),
    ANY("tokens", QN_ON_DETOKENIZE, tokens, "", "ids below the vocabulary's size"),
    INT("max_completion_tokens", GEN, max_completion_tokens, 1, TOKENS_MOST, "to the context's end", "wins over max_tokens; bounded by the context"),
    INT("max_tokens", QN_ON_CHAT, max_tokens, 1, TOKENS_MOST, "to the context's end", ""),
    INT("max_tokens", QN_ON_COMPLETIONS, max_tokens, 0, TOKENS_MOST, "16", "0 with echo and logprobs scores the prompt"),
    INT("n_predict", GEN, n_predict, -1, TOKENS_MOST, "", "llama.cpp's max_tokens; -1: to the context's end"),
    INT("max_new_tokens", GEN, max_new_tokens, 1, TOKENS_MOST, "", "alias of max_tokens"),
    NUM("temperature", GEN, temperature, 0, 2, "1", "0: greedy"),
    OPEN("top_p", GEN, top_p, 0, 1, "1", ""),
    INT("top_k", GEN, top_k, -1, 1e9, "0", "0 and -1: off"),
    NUM("min_p", GEN, min_p, 0, 1, "0", ""),
    OPEN("repetition_penalty", GEN, repetition_penalty, 0, 2, "1", "over prompt and output"),
    OPEN("repeat_penalty", GEN, repetition_penalty, 0, 2, "1", "alias of repetition_penalty"),
    NUM("frequency_penalty", GEN, frequency_penalty, -2, 2, "0", ""),
    NUM("presence_penalty", GEN, presence_penalty, -2, 2, "0", ""),
    INT("repeat_last_n", GEN, repeat_last_n, -1, 1e9, "-1", "tokens that the three penalties see; -1: all, 0: no penalties"),
    OPEN("typical_p", GEN, typical_p, 0, 1, "1", "1: off; after top_k, before top_p"),
    OPEN("typical", GEN, typical_p, 0, 1, "1", "alias of typical_p"),
    NUM("top_n_sigma", GEN, top_n_sigma, -1, 100, "-1", "0 and below: off"),
    NUM("xtc_probability", GEN, xtc_probability, 0, 1, "0", "after top_p"),
    NUM("xtc_threshold", GEN, xtc_threshold, 0, 1, "0.1", "above 0.5: off"),
    NUM("dynatemp_range", GEN, dynatemp_range, 0, 2, "0", "temperature -+ range, by the entropy of the whole row"),
    NUM("dynatemp_exponent", GEN, dynatemp_exponent, 0, 10, "1", ""),
    INT("mirostat", GEN, mirostat, 0, 2, "0", "1 or 2; among what the filters keep"),
    NUM("mirostat_tau", GEN, mirostat_tau, 0, 100, "5", ""),
    NUM("mirostat_eta", GEN, mirostat_eta, 0, 10, "0.1", ""),
    NUM("dry_multiplier", GEN, dry_multiplier, 0, 100, "0", ""),
    NUM("dry_base", GEN, dry_base, 1, 100, "1.75", ""),
    INT("dry_allowed_length", GEN, dry_allowed_length, 0, 1e9, "2", ""),
    INT("dry_penalty_last_n", GEN, dry_penalty_last_n, -1, 1e9, "-1", "-1: the whole context, 0: off"),
    ANY("dry_sequence_breakers", GEN, dry_breakers_value, "[\"\\n\",\":\",\"\\\"\",\"*\"]", "at most 16 of 1..40 bytes"),
    INT("min_keep", GEN, min_keep, 0, 1e9, "0", "min_p, typical_p, top_p and XTC leave so many"),
    ANY("bad_words", GEN, bad_words_value, "[]", "at most 256; each also with a space before it"),
    ANY("allowed_token_ids", GEN, allowed_value, "", "the only ids that may come; at least one"),
    ANY("logit_bias", GEN, bias_value, "{}", "map of id to -100..100, or [[id or text, number or false]]; at most 300"),
    INT("seed", GEN, seed, -9.3e18, 9.3e18, "random", "-1: random"),
    ANY("stop", GEN, stop_value, "", "a string or up to 16, each 1..1024 bytes"),
    ANY("stop_token_ids", GEN, stop_ids_value, "[]", "at most 64"),
    BOOL("use_beam_search", GEN, use_beam_search, "false", "the n best of best_of (else n) beams, at most 10, by transformers' rules; not with stream, sampling, stop strings, logprobs or constraints; each step "
         "computes what a block of the prefix cache does not hold again; usage counts the answers returned"),
    NUM("length_penalty", GEN, length_penalty, -10, 10, "1", "score: sum of log-probabilities / length ^ penalty"),
    ANY("early_stopping", GEN, early_stopping, "false", "true: when as many are finished as there are beams; \"never\": when none can get better"),
    ANY("stop_regex", GEN, stop_regex_value, "", "a string or up to 4, each 1..1024 bytes; ends where a match first ends, the match is kept; stop_reason is the expression"),
    BOOL("include_stop_str_in_output", GEN, keep_stop, "false", "the text of a stop token too"),
    BOOL("no_stop_trim", GEN, keep_stop, "false", "alias of include_stop_str_in_output"),
    ANY("repetition_detection", GEN, repetition_value, "", "ends a branch that repeats itself: finish_reason stop, stop_reason repetition"),
    INT("min_tokens", GEN, min_tokens, 0, TOKENS_MOST, "0", ""),
    INT("min_new_tokens", GEN, min_tokens, 0, TOKENS_MOST, "0", "alias of min_tokens"),
    BOOL("ignore_eos", GEN, ignore_eos, "false", ""),
    BOOL("skip_special_tokens", GEN, skip_special_tokens, "true", ""),
    INT("n", GEN, n, 1, QN_N_HARD_MAX, "1", "branches share one prefill; at most the configured n_max"),
    ANY("logprobs", GEN, logprobs_value, "", "chat: boolean; completions: 0..20"),
    INT("top_logprobs", QN_ON_CHAT, top_logprobs, 0, QN_LOGPROBS_MAX, "0", "needs logprobs"),
    INT("prompt_logprobs", GEN, prompt_logprobs, 0, QN_LOGPROBS_MAX, "", "vLLM's shape: a list of {id: {logprob, rank, decoded_token}}; not with stream"),
    BOOL("return_token_ids", GEN, return_token_ids, "false", "prompt_token_ids, and token_ids of each choice and chunk"),
    BOOL("return_tokens_as_token_ids", GEN, tokens_as_ids, "false", "tokens in logprobs are token_id:N"),
    INT("truncate_prompt_tokens", GEN, truncate_prompt_tokens, -1, TOKENS_MOST, "", "keeps so many tokens of a prompt, not 0; -1: as many as the context has room for"),
    STR("truncation_side", GEN, truncation_side, 8, "left", "left: the beginning goes"),
    BOOL("echo", QN_ON_COMPLETIONS, echo, "false", "with logprobs: scores the prompt"),
    INT("best_of", GEN, best_of, 1, QN_N_HARD_MAX, "n", "the n of so many with the highest mean log-probability; larger than n not with stream; usage counts all"),
    BOOL("stream", GEN, stream, "false", ""),
    ANY("stream_options", GEN, stream_options, "", "needs stream"),
    BOOL("add_generation_prompt", CHATTY, add_generation_prompt, "true", ""),
    BOOL("continue_final_message", CHATTY, continue_final_message, "false", "not with add_generation_prompt"),
    BOOL("add_special_tokens", ALL, add_special_tokens, "true for plain prompts",
         "chat: BOS only where the template writes none"),
    BOOL("add_special", QN_ON_TOKENIZE, add_special, "false", "with content"),
    BOOL("parse_special", QN_ON_COMPLETIONS | QN_ON_TOKENIZE, parse_special, "false; /tokenize: true",
         "spellings of control tokens in a plain prompt become those tokens"),
    BOOL("with_pieces", QN_ON_TOKENIZE, with_pieces, "false", ""),
    BOOL("return_token_strs", QN_ON_TOKENIZE, return_token_strs, "false", ""),
    ANY("chat_template_kwargs", CHATTY, kwargs, "{}", "variables for the template"),
    BOOL("enable_thinking", CHATTY, enable_thinking, "", "the same in chat_template_kwargs"),
    STR("reasoning_effort", CHATTY, reasoning_effort, 16, "", "none switches thinking off; others need a template that reads it"),
    ANY("documents", CHATTY, documents, "[]", "for templates that read them"),
    ANY("tools", CHATTY, tools, "[]", "at most 128 functions and custom tools; other types are left out and named in Quern-Ignored"),
    ANY("tool_choice", CHATTY, tool_choice, "auto with tools", "none, auto, required, a function, a custom tool, allowed_tools"),
    BOOL("parallel_tool_calls", CHATTY, parallel_tool_calls, "true", "false: at most one call"),
    ANY("functions", CHATTY, functions, "[]", "deprecated spelling of tools; answered by function_call"),
    ANY("function_call", CHATTY, function_call, "auto with functions", "none, auto or {name}"),
    BOOL("parse_tool_calls", QN_ON_CHAT, parse_tool_calls, "true", "false: calls stay text"),
    BOOL("include_reasoning", QN_ON_CHAT, include_reasoning, "true", "false: what the model thinks is left out"),
    BOOL("separate_reasoning", QN_ON_CHAT, separate_reasoning, "true", "false: it stays in content"),
    BOOL("stream_reasoning", QN_ON_CHAT, stream_reasoning, "true", "false: it comes in one piece"),
    STR("reasoning_format", QN_ON_CHAT, reasoning_format, 16, "auto", "auto and deepseek: apart; none: in content"),
    ANY("thinking", QN_ON_CHAT, thinking, "", "{type: enabled, disabled or adaptive, budget_tokens: at least 1024}"),
    INT("thinking_token_budget", QN_ON_CHAT, thinking_token_budget, -1, TOKENS_MOST, "-1", "most tokens of thinking; -1: no bound"),
    INT("reasoning_budget_tokens", QN_ON_CHAT, reasoning_budget_tokens, -1, TOKENS_MOST, "-1", "the same"),
    INT("thinking_budget_tokens", QN_ON_CHAT, thinking_budget_tokens, -1, TOKENS_MOST, "-1", "the same"),
    STR("reasoning_budget_message", QN_ON_CHAT, budget_message, 4096, "", "what is put at the thinking's end when the bound is met"),
    ANY("custom_params", QN_ON_CHAT, custom_params, "{}", "{thinking_budget}: the same as thinking_token_budget"),
    ANY("nvext", QN_ON_CHAT, nvext, "{}", "{max_thinking_tokens}: the same as thinking_token_budget"),
    ANY("response_format", GEN, response_format, "{\"type\":\"text\"}", "text, json_object, json_schema; json, regex, ebnf, grammar, structural_tag: docs/structured-output.md"),
    ANY("structured_outputs", GEN, structured_value, "", "exactly one of json, regex, choice, grammar, json_object, structural_tag"),
    ANY("guided_json", GEN, guided_json, "", "a JSON Schema, or a string that holds one"),
    STR("guided_regex", GEN, guided_regex, 0, "\"\"", "the whole answer matches"),
    ANY("guided_choice", GEN, guided_choice, "", "1 to 1000 strings"),
    STR("guided_grammar", GEN, guided_grammar, 0, "\"\"", "GBNF where it says ::=, else Lark"),
    STR("guided_whitespace_pattern", GEN, guided_whitespace_pattern, 512, "", "between the tokens of JSON; only where the answer is JSON"),
    ANY("json_schema", GEN, json_schema, "", "a JSON Schema, or a string that holds one"),
    ANY("grammar", GEN, grammar, "\"\"", "GBNF where it says ::=, else Lark; or {type, value}"),
    STR("regex", GEN, regex, 0, "\"\"", "the whole answer matches"),
    STR("ebnf", GEN, ebnf, 0, "\"\"", "GBNF"),
    ANY("structural_tag", GEN, structural_tag, "", "{structures, triggers}, or a string that holds it"),
    STR("cache_salt", GEN, cache_salt, 128, "", "prompts with different salts share no cache entry"),
    BOOL("cache_prompt", GEN, cache_prompt, "true", ""),
    STR("user", GEN, user, 512, "", "accepted, not interpreted"),
    ANY("metadata", GEN, metadata, "", "at most 16 keys of 64 bytes with values of 512; sent back"),
    ANY("quern", GEN, quern, "{}", "our own members, see below; an unknown one is refused"),

    FREE("safety_identifier", GEN, ""),
    FREE("prompt_cache_key", GEN, "prefixes are found by content"),
    FREE("prompt_cache_options", GEN, ""),
    FREE("prompt_cache_retention", GEN, ""),
    FREE("separate_reasoning", QN_ON_COMPLETIONS, "no reasoning is parsed here"),
    FREE("stream_reasoning", QN_ON_COMPLETIONS, "no reasoning is parsed here"),
    FREE("sse_ping_interval", GEN, "the server's own interval holds"),

    ONLY("include_reasoning", QN_ON_COMPLETIONS, "true", ""),
    ONLY("return_hidden_states", GEN, "false", ""),
    ONLY("verbosity", QN_ON_CHAT, "\"medium\"", ""),
    ONLY("modalities", QN_ON_CHAT, "[\"text\"]|[]", ""),
    ONLY("audio", QN_ON_CHAT, "", ""),
    ANY("prediction", QN_ON_CHAT, prediction, "", "type content: text to guess ahead by; needs n 1"),
    ONLY("store", GEN, "false", ""),
    ONLY("service_tier", GEN, "\"auto\"|\"default\"", ""),
    ONLY("moderation", QN_ON_CHAT, "", ""),
    ONLY("web_search_options", QN_ON_CHAT, "", ""),
    ONLY("suffix", QN_ON_COMPLETIONS, "\"\"", ""),
    ONLY("echo", QN_ON_CHAT, "false", ""),
    ONLY("adaptive_target", GEN, "-1", ""),
    FREE("adaptive_decay", GEN, "adaptive_target is off"),
    ONLY("samplers", GEN, "[]", "the order is fixed"),
    ONLY("post_sampling_probs", GEN, "false", ""),
    ONLY("spaces_between_special_tokens", GEN, "true", ""),
    ONLY("n_probs", GEN, "0", "use logprobs"),
    ONLY("logprob_token_ids", GEN, "[]", ""),
    ONLY("return_tokens", GEN, "false", ""),
    ONLY("return_prompt_text", GEN, "false", ""),
    ONLY("chat_template", CHATTY, "\"\"", "a request cannot bring a template"),
    ONLY("mm_processor_kwargs", GEN, "{}", ""),
    ONLY("media_io_kwargs", GEN, "{}", ""),
    FREE("guided_decoding_backend", GEN, "there is one"),
    ONLY("grammar_lazy", GEN, "false", ""),
    ONLY("grammar_triggers", GEN, "[]", ""),
    ONLY("n_cache_reuse", GEN, "0", ""),
    ONLY("id_slot", GEN, "-1", ""),
    ONLY("n_keep", GEN, "0|-1", "prompts are never cut"),
    ONLY("n_discard", GEN, "0", "prompts are never cut"),
    ONLY("t_max_predict_ms", GEN, "0|-1", "use quern.deadline_ms"),
    ONLY("return_progress", GEN, "false", ""),
    ONLY("timings_per_token", GEN, "false", ""),
    ONLY("response_fields", GEN, "[]", ""),
    ONLY("lora", GEN, "[]", ""),
    ONLY("lora_path", GEN, "", ""),
    ONLY("adapter", GEN, "", ""),
    ONLY("adapter_id", GEN, "", ""),
    ONLY("parse_tool_calls", QN_ON_COMPLETIONS, "false|true", "there are no tool calls here"),
    ONLY("reasoning_format", QN_ON_COMPLETIONS, "\"none\"|\"auto\"", ""),
    ONLY("reasoning_control", GEN, "false", ""),
    ONLY("thinking_forced_open", GEN, "false", ""),
    ONLY("thinking_token_budget", QN_ON_COMPLETIONS, "-1", ""),
    ONLY("reasoning_budget_tokens", QN_ON_COMPLETIONS, "-1", ""),
    ONLY("thinking_budget_tokens", QN_ON_COMPLETIONS, "-1", ""),
    ONLY("reasoning_budget_message", QN_ON_COMPLETIONS, "\"\"", ""),
    ONLY("custom_params", QN_ON_COMPLETIONS, "{}", ""),
    ONLY("nvext", QN_ON_COMPLETIONS, "{}", ""),
    ONLY("thinking", QN_ON_COMPLETIONS, "{\"type\":\"disabled\"}", ""),
    ONLY("reasoning", GEN, "{}", "use reasoning_effort"),
    ONLY("priority", GEN, "0", ""),
    ONLY("watermarking", GEN, "false", ""),
    ONLY("watermark", GEN, "false", ""),
    ONLY("repetition_ngram_size", GEN, "0", ""),
    ONLY("repetition_ngram_threshold", GEN, "0", ""),
    ONLY("stream_interval", GEN, "1", ""),
    ONLY("options", GEN, "{}", ""),
    ONLY("verbose", GEN, "false", ""),
    SKIP("kv_transfer_params", GEN, ""),
    SKIP("vllm_xargs", GEN, ""),
    SKIP("request_id", GEN, "use the header x-request-id"),
    SKIP("rid", GEN, "use the header x-request-id"),
    SKIP("session_id", GEN, "prefixes are found by content"),
    SKIP("extra_key", GEN, "use cache_salt"),
    SKIP("keep_alive", GEN, ""),
};
const size_t qn_request_rows = sizeof qn_request_table / sizeof *qn_request_table;

const struct qn_field qn_stream_options_table[] = {
    BOOL("include_usage", GEN, include_usage, "false", "a last chunk with usage; usage is null on the others"),
    BOOL("continuous_usage_stats", GEN, continuous_usage, "false", "usage on every chunk"),
    ONLY("include_obfuscation", GEN, "false", ""),
};
const size_t qn_stream_options_rows = sizeof qn_stream_options_table / sizeof *qn_stream_options_table;

const struct qn_field qn_structured_table[] = {
    ANY("json", GEN, structured.json, "", "a JSON Schema, or a string that holds one"),
    STR("regex", GEN, structured.regex, 0, "", "the whole answer matches"),
    ANY("choice", GEN, structured.choice, "", "1 to 1000 strings"),
    STR("grammar", GEN, structured.grammar, 0, "", "GBNF where it says ::=, else Lark"),
    BOOL("json_object", GEN, structured.json_object, "false", ""),
    ANY("structural_tag", GEN, structured.structural_tag, "", "{structures, triggers}, or a string that holds it"),
    BOOL("disable_any_whitespace", GEN, structured.disable_any_whitespace, "false", "none between the tokens of JSON"),
    BOOL("disable_additional_properties", GEN, structured.disable_additional_properties, "false", "additionalProperties absent means false"),
    STR("whitespace_pattern", GEN, structured.whitespace_pattern, 512, "", "between the tokens of JSON"),
    FREE("disable_fallback", GEN, "there is one engine for all"),
};
const size_t qn_structured_rows = sizeof qn_structured_table / sizeof *qn_structured_table;

const struct qn_field qn_repetition_table[] = {
    INT("max_pattern_size", GEN, max_pattern_size, 0, QN_REPETITION_MAX, "0", "0: off"),
    INT("min_pattern_size", GEN, min_pattern_size, 0, QN_REPETITION_MAX, "1", ""),
    INT("min_count", GEN, min_count, 0, QN_REPETITION_MAX, "", "at least 2"),
};
const size_t qn_repetition_rows = sizeof qn_repetition_table / sizeof *qn_repetition_table;

const struct qn_field qn_own_table[] = {
    BOOL("parse_special", QN_ON_COMPLETIONS, parse_special, "false", ""),
    ANY("thinking", QN_ON_CHAT, own_thinking, "", "{min_tokens, max_tokens, continue: \"Wait\", hand_in: text}: docs/tools.md"),
    INT("deadline_ms", GEN, deadline_ms, 1, 86400000, "none", "the whole answer by then, or 504"),
    INT("samples", GEN, samples, 1, QN_N_HARD_MAX, "", "so many answers are made over one prefill and one is returned; needs n 1, not with stream; usage counts all"),
    STR("select", GEN, select, 16, "majority", "majority: the answer that most agree on; mean_logprob: the likeliest; schema: the likeliest that response_format's schema accepts"),
    STR("answer", GEN, answer, 8, "auto", "what a vote compares: number (the last one, or \\boxed{}), json, text; auto: the first of these that there is"),
};
/* clang-format on */
const size_t qn_own_rows = sizeof qn_own_table / sizeof *qn_own_table;

void qn_params_markdown(struct qn_buf *out) {
    static const struct {
        const char *title;
        unsigned on;
    } part[] = {
        {"POST /v1/chat/completions", QN_ON_CHAT}, {"POST /v1/completions", QN_ON_COMPLETIONS},
        {"POST /tokenize", QN_ON_TOKENIZE},        {"POST /detokenize", QN_ON_DETOKENIZE},
        {"POST /apply-template", QN_ON_TEMPLATE},
    };
    qn_buf_puts(
        out, "# Request members\n\nMade from api/request_table.c by the test that compares them. A member that no row names is "
             "ignored and listed in the response header `Quern-Ignored`.\n`null` means absent everywhere.\n");
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        qn_buf_printf(out, "\n## %s\n\n", part[i].title);
        qn_fields_markdown(out, qn_request_table, qn_request_rows, part[i].on);
    }
    qn_buf_puts(out, "\n## stream_options\n\n");
    qn_fields_markdown(out, qn_stream_options_table, qn_stream_options_rows, GEN);
    qn_buf_puts(out, "\n## structured_outputs\n\n");
    qn_fields_markdown(out, qn_structured_table, qn_structured_rows, GEN);
    qn_buf_puts(out, "\n## repetition_detection\n\n");
    qn_fields_markdown(out, qn_repetition_table, qn_repetition_rows, GEN);
    qn_buf_puts(out, "\n## quern\n\n");
    qn_fields_markdown(out, qn_own_table, qn_own_rows, GEN);
}
