/* Any bytes as a configuration file: either every mistake is a line that starts with the file's name, or the values are in
 * their ranges and a dump of them, read again, gives the same dump. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"

static void want(int c) {
    if (!c) abort();
}

static void check_errors(const struct qn_settings *s) {
    int lines = 0;
    for (const char *p = s->errors.p; p && *p;) {
        size_t n = strcspn(p, "\n");
        want(n > 5 && (!strncmp(p, "fuzz:", 5)));
        for (size_t i = 0; i < n; i++) want((unsigned char)p[i] >= 32 && p[i] != 127);
        lines++;
        p += n + (p[n] == '\n');
    }
    want(lines == s->n_errors || s->errors.failed);
}

static void check_values(const struct qn_settings *s) {
    for (int i = 0; i < qn_n_options; i++) {
        const struct qn_option *o = &qn_options[i];
        if (o->kind == QN_OPT_STR || o->kind == QN_OPT_LIST) continue;
        int64_t v;
        memcpy(&v, (const char *)&s->c + o->offset, sizeof v);
        want(v >= o->min && v <= o->max);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct qn_settings a, b;
    struct qn_buf da, db;
    qn_settings_init(&a);
    int rc = qn_settings_yaml(&a, (const char *)data, n, "fuzz");
    want((rc == 0) == (a.n_errors == 0));
    check_errors(&a);
    check_values(&a);
    if (rc == 0) {
        qn_buf_init(&da, 1 << 22);
        qn_buf_init(&db, 1 << 22);
        qn_config_dump(&a, &da);
        qn_settings_init(&b);
        want(qn_settings_yaml(&b, da.p, da.n, "fuzz") == 0);
        memset(a.source, QN_FROM_FILE, sizeof a.source); /* sources are comments */
        memset(b.source, QN_FROM_FILE, sizeof b.source);
        qn_buf_reset(&da);
        qn_config_dump(&a, &da);
        qn_config_dump(&b, &db);
        want(da.n == db.n && !memcmp(da.p, db.p, da.n));
        qn_settings_done(&b);
        qn_buf_done(&da);
        qn_buf_done(&db);
    }
    qn_settings_done(&a);
    return 0;
}
