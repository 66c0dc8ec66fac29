/* Any JSON as a schema: it is refused with a status and a text, or it is a grammar whose random members our own check of instances, which
 * shares no code with the compiler, finds valid. Numbers with an exponent and keys that come twice are left to that check's reader. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "api/schema.h"
#include "engine/base/buf.h"
#include "engine/grammar/constraint.h"

enum { LONGEST = 400 };

/* A member of the grammar, chosen by the bytes of `seed`. 0: it did not end. */
static int member(struct qn_constraint *c, const uint8_t *seed, size_t n, struct qn_buf *out) {
    qn_cstate s = qn_constraint_start(c);
    for (size_t i = 0; !out->failed && !qn_constraint_accepts(c, s); i++) {
        unsigned from = n ? seed[i % n] + (unsigned)i * 7u : (unsigned)i;
        char ch = 0;
        qn_cstate next = QN_C_DEAD;
        for (unsigned k = 0; k < 256 && next == QN_C_DEAD; k++) {
            ch = (char)(from + k);
            next = qn_constraint_text(c, s, &ch, 1);
        }
        if (next == QN_C_DEAD) return 0;
        qn_buf_putc(out, ch);
        s = next;
    }
    return !out->failed;
}

static void check(struct qn_constraint *c, const json_t *schema, const uint8_t *data, size_t n) {
    struct qn_buf b;
    char why[256];
    qn_buf_init(&b, LONGEST);
    if (member(c, data, n, &b)) {
        json_t *v = json_loadb(b.p ? b.p : "", b.n, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
        if (v && !memchr(b.p, 'e', b.n) && !memchr(b.p, 'E', b.n)) assert(qn_schema_check(schema, v, why, sizeof why));
        json_decref(v);
    }
    qn_buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    json_t *schema = json_loadb((const char *)data, n, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    struct qn_grammar *g = NULL;
    struct qn_constraint *c = NULL;
    struct qn_refusal r = {0};
    struct qn_err err = {0};
    qn_gnode root;
    if (!schema) return 0;
    if (qn_grammar_new(&g, NULL) < 0) return 0;
    if (qn_schema_node(g, schema, NULL, "schema", &root, &r) < 0) {
        assert(r.status >= 400 && r.message[0] && r.code);
        qn_grammar_free(g);
    } else if (qn_constraint_new(&c, g, root, NULL, &err) == 0) check(c, schema, data, n);
    qn_constraint_unref(c);
    json_decref(schema);
    return 0;
}
