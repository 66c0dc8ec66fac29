/* Any template text over a few variables: it is refused, fails with a message, or renders to valid UTF-8 whose trusted
 * ranges are ascending and inside, never in more than the steps and memory it was given.
 *
 * The first byte picks the variables; the rest is the template. And a property of trust: what the request says is written in
 * a letter that the template's text does not hold, so no byte of that letter may be marked (case mappings aside: it has no case).
 */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja.h"
#include "engine/base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define ZH "\xE4\xB8\xAD" /* 中 */

static json_t *variables(unsigned pick) {
    static const char *const sets[] = {
        "{\"messages\": [{\"role\": \"user\", \"content\": \"" ZH
        "\"}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"" ZH "\", "
        "\"arguments\": {\"" ZH "\": [1, 2.5, true, \"" ZH " " ZH "\"]}}}]}], \"tools\": null, \"add_generation_prompt\": true}",
        "{\"messages\": [{\"role\": \"" ZH "\", \"content\": [{\"type\": \"text\", \"text\": \" " ZH "\\n" ZH
        " \"}]}], \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]}",
        "{\"s\": \"a" ZH "-b\", \"l\": [3, 1, \"" ZH "\"], \"d\": {\"" ZH
        "\": 1, \"k\": {\"x\": [[]]}}, \"n\": 7, \"f\": -0.5, \"e\": \"\"}",
        "{}",
    };
    return json_loads(sets[pick % 4], 0, NULL);
}

static void check(const struct qn_rendered *r, int foreign) {
    const char *p = r->text.p ? r->text.p : "";
    size_t at = 0;
    if (!qn_utf8_valid(p, r->text.n)) abort();
    for (size_t i = 0; i < r->n_trusted; i++) {
        struct qn_range t = r->trusted[i];
        if (t.from >= t.to || t.to > r->text.n || (i && t.from <= at)) abort();
        at = t.to;
        if (foreign && memmem(p + t.from, t.to - t.from, ZH, 3)) abort();
    }
}

/* The template could make the letter itself, by an escape or by a number. */
static int may_spell_it(const char *p, size_t n) {
    return memmem(p, n, ZH, 3) || memchr(p, '\\', n) || memmem(p, n, "%", 1) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!n) return 0;
    static json_t *vars[4];
    unsigned pick = data[0] % 4;
    if (!vars[pick]) vars[pick] = variables(pick);
    const char *text = (const char *)data + 1;
    struct qn_jinja *t = NULL;
    struct qn_err err = {0};
    int rc = qn_jinja_compile(&t, text, n - 1, &err);
    if (rc < 0) {
        if (err.code != rc || !err.text[0] || t) abort();
        return 0;
    }
    struct qn_jinja_limits lim = {.steps = 20000, .depth = 16, .out_bytes = 1 << 16, .memory_bytes = 4 << 20};
    struct qn_rendered r = {0};
    rc = qn_jinja_render(t, vars[pick], NULL, 0, &lim, &r, &err);
    if (rc < 0 && (err.code != rc || !qn_utf8_valid(err.text, strlen(err.text)))) abort();
    if (rc == 0) check(&r, !may_spell_it(text, n - 1));
    qn_rendered_done(&r);
    qn_jinja_free(t);
    return 0;
}
