/* The members of a request that shape the draw beyond OpenAI's: lists of words and ids, and what "off" means to each peer. The
 * ranges stand in the table; the order in which all this is applied stands in engine/sampler.h. Any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"

enum { BAD_WORDS_MAX = 256 };

static int is_text(const json_t *v, const char *param, size_t most, struct qn_refusal *r) {
    if (!json_is_string(v)) return qn_refuse_type(r, param, "a string", v);
    size_t n = json_string_length(v);
    if (n < 1 || n > most)
        return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': expected a string of 1 to %zu bytes, but got one of %zu.", param, most, n);
    return 0;
}

static int is_list(const json_t *v, const char *param, size_t least, size_t most, struct qn_refusal *r) {
    if (!json_is_array(v)) return qn_refuse_type(r, param, "an array", v);
    size_t n = json_array_size(v);
    if (n < least || n > most)
        return qn_refuse(r, 400, n < least ? "empty_array" : "array_above_max_length", param, "Invalid '%s': expected %zu to %zu entries, but got %zu.", param,
                         least, most, n);
    return 0;
}

/* --- bad_words ---------------------------------------------------------------------------------------------------- */

static int encode(const struct qn_bounds *b, const char *text, size_t n, struct qn_ids *ids) {
    struct qn_text t = {.p = text, .n = n};
    ids->n = 0;
    return qn_tokenizer_encode(b->tok, &t, 0, QN_BAD_MAX, ids, NULL);
}

static int add_bad(struct qn_params *p, const struct qn_ids *ids) {
    if (p->n_bad + ids->n + 1 > QN_BAD_MAX) return QN_E_RANGE;
    p->bad[p->n_bad++] = (uint32_t)ids->n;
    memcpy(p->bad + p->n_bad, ids->v, ids->n * sizeof *ids->v);
    p->n_bad += (uint32_t)ids->n;
    return 0;
}

/* The word as it is, and with a space before it: inside a line it comes as other tokens. (vLLM takes the second only when it is as
 * many, and so lets words through.) */
static int add_bad_word(struct qn_params *p, const json_t *v, const struct qn_bounds *b, struct qn_ids *bare, struct qn_ids *spaced, struct qn_buf *text) {
    const char *word = json_string_value(v);
    size_t n = json_string_length(v);
    while (n && (*word == ' ' || *word == '\t' || *word == '\n')) word++, n--;
    if (n == 0) return 0; /* nothing but blanks: refused by the caller */
    qn_buf_reset(text);
    qn_buf_putc(text, ' ');
    qn_buf_put(text, word, n);
    if (text->failed) return QN_E_NOMEM;
    int rc = encode(b, word, n, bare);
    if (rc == 0) rc = encode(b, text->p, text->n, spaced);
    if (rc == 0) rc = add_bad(p, bare);
    if (rc == 0 && (spaced->n != bare->n || memcmp(spaced->v, bare->v, bare->n * sizeof *bare->v))) rc = add_bad(p, spaced);
    return rc < 0 ? rc : 1;
}

static int read_bad_words(struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    const json_t *v = p->bad_words_value;
    if (!v || (json_is_array(v) && json_array_size(v) == 0)) return 0;
    int rc = is_list(v, "bad_words", 0, BAD_WORDS_MAX, r);
    if (rc < 0) return rc;
    struct qn_ids bare = {0}, spaced = {0};
    struct qn_buf text;
    qn_buf_init(&text, 4096);
    p->bad = malloc(QN_BAD_MAX * sizeof *p->bad);
    if (!p->bad) rc = qn_refuse_code(r, QN_E_NOMEM, NULL);
    for (size_t i = 0; rc == 0 && i < json_array_size(v); i++) {
        char param[32];
        snprintf(param, sizeof param, "bad_words[%zu]", i);
        rc = is_text(json_array_get(v, i), param, 1024, r);
        if (rc < 0) break;
        rc = add_bad_word(p, json_array_get(v, i), b, &bare, &spaced, &text);
        if (rc == 0) rc = qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': a word of blanks alone.", param);
        else if (rc == QN_E_NOMEM) rc = qn_refuse_code(r, rc, NULL);
        else if (rc < 0) rc = qn_refuse(r, 400, "array_above_max_length", "bad_words", "Invalid 'bad_words': more than %d tokens in all.", QN_BAD_MAX);
        else rc = 0;
    }
    free(bare.v);
    free(spaced.v);
    qn_buf_done(&text);
    return rc;
}

/* --- allowed_token_ids, dry_sequence_breakers --------------------------------------------------------------------- */

static int read_allowed(struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    const json_t *v = p->allowed_value;
    if (!v) return 0;
    int rc = is_list(v, "allowed_token_ids", 1, b->n_vocab, r);
    if (rc < 0) return rc;
    p->allowed = calloc((b->n_vocab + 31) / 32, sizeof *p->allowed);
    if (!p->allowed) return qn_refuse_code(r, QN_E_NOMEM, NULL);
    for (size_t i = 0; i < json_array_size(v); i++) {
        char param[40];
        double id;
        snprintf(param, sizeof param, "allowed_token_ids[%zu]", i);
        rc = qn_field_number(json_array_get(v, i), param, 0, (double)b->n_vocab - 1, 1, &id, r);
        if (rc < 0) return rc;
        p->allowed[(uint32_t)id / 32] |= 1u << ((uint32_t)id % 32);
    }
    return 0;
}

static int read_breakers(struct qn_params *p, struct qn_refusal *r) {
    static const struct qn_breakers usual = {.n = 4, .text = {"\n", ":", "\"", "*"}, .bytes = {1, 1, 1, 1}}; /* llama.cpp's */
    const json_t *v = p->dry_breakers_value;
    p->breakers = usual;
    if (!v) return 0;
    int rc = is_list(v, "dry_sequence_breakers", 0, QN_BREAKERS_MAX, r);
    p->breakers.n = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(v); i++) {
        const json_t *s = json_array_get(v, i);
        char param[48];
        snprintf(param, sizeof param, "dry_sequence_breakers[%zu]", i);
        rc = is_text(s, param, QN_BREAKER_BYTES_MAX, r);
        if (rc < 0) break;
        p->breakers.text[p->breakers.n] = json_string_value(s);
        p->breakers.bytes[p->breakers.n++] = json_string_length(s);
    }
    return rc;
}

int qn_params_read_sampling(struct qn_params *p, const struct qn_bounds *b, struct qn_refusal *r) {
    int rc = read_bad_words(p, b, r);
    if (rc == 0) rc = read_allowed(p, b, r);
    return rc == 0 ? read_breakers(p, r) : rc;
}

void qn_params_done(struct qn_params *p) {
    for (int i = 0; i < QN_STOP_REGEX_MAX; i++) qn_constraint_unref(p->stop_regex[i]);
    memset(p->stop_regex, 0, sizeof p->stop_regex);
    p->n_stop_regex = 0;
    free(p->bad);
    free(p->allowed);
    p->bad = p->allowed = NULL;
}

/* A double above 0 that a float cannot hold must not become 0. */
static float above_0(double v) { return v < 1e-30 ? 1e-30f : (float)v; }

void qn_params_sampling(const struct qn_params *p, struct qn_sampling *s) {
    *s = (struct qn_sampling){
        .temperature = (float)p->temperature, .top_p = above_0(p->top_p), .min_p = (float)p->min_p, .top_k = (int32_t)p->top_k,
        .repetition_penalty = above_0(p->repetition_penalty), .frequency_penalty = (float)p->frequency_penalty, .presence_penalty = (float)p->presence_penalty,
        .bias = p->bias, .n_bias = p->n_bias,
        .top_n_sigma = p->top_n_sigma > 0 ? (float)p->top_n_sigma : 0, .typical_p = above_0(p->typical_p),
        .xtc_probability = (float)p->xtc_probability, .xtc_threshold = (float)p->xtc_threshold,
        .dynatemp_range = (float)p->dynatemp_range, .dynatemp_exponent = (float)p->dynatemp_exponent,
        .mirostat = (int32_t)p->mirostat, .mirostat_tau = (float)p->mirostat_tau, .mirostat_eta = (float)p->mirostat_eta,
        .min_keep = (int32_t)p->min_keep, .penalty_window = p->repeat_last_n > 0 ? (int32_t)p->repeat_last_n : 0,
        .dry_multiplier = p->dry_penalty_last_n == 0 ? 0 : (float)p->dry_multiplier, .dry_base = (float)p->dry_base,
        .dry_allowed_length = (int32_t)p->dry_allowed_length, .dry_window = p->dry_penalty_last_n > 0 ? (int32_t)p->dry_penalty_last_n : 0,
        .bad = p->bad, .n_bad = p->n_bad, .allowed = p->allowed,
    };
    if (s->dry_multiplier > 0) s->dry_breakers = &p->breakers;
    if (p->repeat_last_n != 0) return;
    s->repetition_penalty = 1; /* llama.cpp: a window of none */
    s->frequency_penalty = s->presence_penalty = 0;
}
