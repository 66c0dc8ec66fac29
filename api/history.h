/* What a conversation says of tools, before a template sees it.
 *
 * Deprecated and custom spellings become tool_calls: function_call, messages of role function, calls of custom tools. For a
 * template that knows no tools, calls and results become text in the spelling that `generic` answers have, and the tools are
 * described in the system message. Any thread. */
#ifndef QN_HISTORY_H
#define QN_HISTORY_H

#include <jansson.h>

#include "api/calls.h"

enum qn_history_place { QN_IN_SYSTEM, QN_IN_USER /* for templates that refuse a system message */ };

/* A new array, or NULL in *out when messages are fine as they are. `tools`: to be described, or NULL. 0 or QN_E_NOMEM. */
int qn_history(const json_t *messages, int generic, const json_t *tools, enum qn_history_place place, json_t **out);

#endif
