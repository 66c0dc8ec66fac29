/* What a body must be before anything looks into it: a JSON object within our bounds.
 *
 * One pass over the bytes bounds nesting and the number of values, since jansson allows 2,048 levels and takes 79 bytes of
 * memory for each byte of `[{},{},...]`. Then jansson parses: UTF-8, escapes, duplicate keys, numbers. NUL in a string is
 * legal JSON and allowed; whoever reads a string takes its length. Any thread. */
#ifndef QN_JSON_GUARD_H
#define QN_JSON_GUARD_H

#include <jansson.h>

#include "api/error.h"

enum { QN_JSON_DEPTH_MAX = 64, QN_JSON_NODES_MAX = 200000 };

/* 0, or QN_E_LIMIT when p nests deeper than depth_max or holds more than nodes_max values (*at: where). Says nothing
 * about whether p is JSON. */
int qn_json_guard(const char *p, size_t n, int depth_max, long nodes_max, size_t *at);

/* The object, to be given back with json_decref. Otherwise QN_E_RANGE and r holds a 400 invalid_json that names the
 * place and repeats nothing of the body. */
int qn_json_parse(json_t **out, const char *p, size_t n, struct qn_refusal *r);

#endif
