/* Checks instances of schemas for the Python tests: a JSON object per line on stdin, one per line on stdout.
 *
 *   {"schema": …, "values": [value, …]}  ->  {"valid": [bool, …], "why": [text, …]} */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/schema.h"

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json_t *in = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL), *out = json_pack("{s:[], s:[]}", "valid", "why");
        json_t *values = json_object_get(in, "values");
        for (size_t i = 0; i < json_array_size(values); i++) {
            char why[128];
            json_array_append_new(json_object_get(out, "valid"), json_boolean(qn_schema_check(json_object_get(in, "schema"), json_array_get(values, i), why, sizeof why)));
            json_array_append_new(json_object_get(out, "why"), json_string(why));
        }
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(in);
        json_decref(out);
    }
    free(line);
    return 0;
}
