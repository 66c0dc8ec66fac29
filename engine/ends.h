/* Two more ways for a branch to end: its tokens repeat a pattern, or its text matches a regular expression. Pure; thread: engine. */
#ifndef QN_ENDS_H
#define QN_ENDS_H

#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"

/* 1: with `id` behind tokens[0..n) the end is `count` times the same run of min..max tokens. */
int qn_ends_repeat(const struct qn_repetition *r, const int32_t *tokens, size_t n, int32_t id);

/* Feeds more text to the matchers states[i] of regex[0..n_regex): the first that is met tells, as does how many bytes of the text it
 * took (*used). -1: none. A character that is none, or a matcher without memory, is as good as the text's beginning. */
int qn_ends_regex(struct qn_constraint *const *regex, int n_regex, qn_cstate *states, const char *text, size_t n, size_t *used);

#endif
