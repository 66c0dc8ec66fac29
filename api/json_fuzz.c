/* Any bytes: the guard never overlooks what jansson would build. If the body passes, its depth and its number of values are
 * within the bounds; if it does not, there is one refusal with a code. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "api/json_guard.h"

struct size {
    int depth;
    long values;
};

/* Depth is bounded by the guard, so this may recurse. */
static struct size measure(const json_t *v) {
    struct size s = {0, 1};
    const char *k;
    json_t *e;
    size_t i;
    int deepest = 0;
#define ADD()                                                                                                                    \
    do {                                                                                                                         \
        struct size in = measure(e);                                                                                             \
        if (in.depth > deepest) deepest = in.depth;                                                                              \
        s.values += in.values;                                                                                                   \
    } while (0)
    if (json_is_array(v)) json_array_foreach(v, i, e) ADD();
    if (json_is_object(v)) json_object_foreach((json_t *)(uintptr_t)v, k, e) ADD();
    s.depth = deepest + (json_is_array(v) || json_is_object(v));
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    json_t *v = NULL;
    struct qn_refusal r = {0};
    const char *p = (const char *)data;
    size_t at = 0;
    int rc = qn_json_parse(&v, p, n, &r);
    if (rc < 0) {
        assert(!v && r.status == 400 && r.code && r.message[0]);
        return 0;
    }
    assert(r.status == 0 && json_is_object(v));
    struct size s = measure(v);
    assert(s.depth <= QN_JSON_DEPTH_MAX && s.values <= QN_JSON_NODES_MAX);
    assert(qn_json_guard(p, n, s.depth, s.values, &at) == 0); /* exact, not only an upper bound */
    assert(qn_json_guard(p, n, s.depth - 1, s.values, &at) < 0);
    assert(qn_json_guard(p, n, s.depth, s.values - 1, &at) < 0 && at < n);
    json_decref(v);
    return 0;
}
