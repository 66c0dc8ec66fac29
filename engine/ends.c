/* A repetition is looked for backwards from the newest token, for each length that is allowed: as vLLM's repetition_detection
 * has it, but comparing only until a token differs. */
#include "engine/ends.h"

static int repeats(const int32_t *tokens, size_t n, int32_t id, size_t length, size_t count) {
    if (n + 1 < length * count) return 0;
    size_t need = length * (count - 1); /* tokens that equal the one `length` before them */
    for (size_t k = 0; k < need; k++) {
        size_t at = n - k; /* index n is `id` */
        if ((k ? tokens[at] : id) != tokens[at - length]) return 0;
    }
    return 1;
}

int qn_ends_repeat(const struct qn_repetition *r, const int32_t *tokens, size_t n, int32_t id) {
    for (int length = r->min_size; length > 0 && length <= r->max_size; length++)
        if (repeats(tokens, n, id, (size_t)length, (size_t)r->min_count)) return 1;
    return 0;
}

int qn_ends_regex(struct qn_constraint *const *regex, int n_regex, qn_cstate *states, const char *text, size_t n, size_t *used) {
    for (size_t k = 0; k < n; k++)
        for (int i = 0; i < n_regex; i++) {
            states[i] = qn_constraint_text(regex[i], states[i], text + k, 1);
            if (states[i] == QN_C_DEAD) states[i] = qn_constraint_start(regex[i]);
            if (!qn_constraint_accepts(regex[i], states[i])) continue;
            *used = k + 1;
            return i;
        }
    return -1;
}
