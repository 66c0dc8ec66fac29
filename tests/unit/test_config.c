/* The option table's own consistency and the reading of values. Files with mistakes, and what the daemon says to them, are in
 * tests/http/test_service.py. */
#include "server/config.h"
#include "server/listen.h"
#include "tests/run.h"

static int set(struct qn_settings *s, const char *name, const char *value) { return qn_settings_set(s, name, value, QN_FROM_FLAG, "test"); }

TEST(config, every_row_is_sound) {
    struct qn_settings s;
    qn_settings_init(&s);
    EXPECT_EQ(s.n_errors, 0); /* every default is a value of its own option */
    for (int i = 0; i < qn_n_options; i++) {
        const struct qn_option *o = &qn_options[i];
        EXPECT(strchr(o->name, '.') && strlen(o->help) > 10 && o->help[strlen(o->help) - 1] == '.');
        EXPECT(qn_option_find(o->name) == o);
        for (int k = 0; k < i; k++) EXPECT(strcmp(o->name, qn_options[k].name) && o->offset != qn_options[k].offset);
        EXPECT(!o->flag == !o->meta);
    }
    EXPECT_EQ(s.c.body_bytes_max, 8 << 20);
    EXPECT_EQ(s.c.unix_mode, 0660);
    EXPECT_EQ(s.c.keep_alive_s, 75);
    EXPECT_EQ(s.c.threads, 0);
    EXPECT_EQ(s.c.log_level, QN_LOG_INFO);
    EXPECT_EQ(s.c.listen.n, 1);
    EXPECT_STR(s.c.listen.p[0], "127.0.0.1:8080");
    qn_settings_done(&s);
}

TEST(config, numbers_and_units) {
    static const struct { const char *name, *value; int64_t want; } rows[] = {
        { "engine.kv_bytes", "512", 512 }, { "engine.kv_bytes", "3G", 3LL << 30 }, { "engine.kv_bytes", "3GiB", 3LL << 30 }, { "engine.kv_bytes", "64 MiB", 64 << 20 },
        { "engine.kv_bytes", "auto", 0 }, { "engine.kv_bytes", "2t", 2LL << 40 }, { "engine.wait_ms_max", "2s", 2000 }, { "engine.wait_ms_max", "5ms", 5 },
        { "engine.wait_ms_max", "1m", 60000 }, { "server.head_s", "1m", 60 }, { "server.drain_s", "1h", 3600 }, { "server.unix_mode", "0777", 0777 }, { "server.unix_mode", "0o600", 0600 },
        { "engine.threads", "8", 8 }, { "engine.kv_bytes", "1.5G", -1 }, { "engine.kv_bytes", "-1", -1 }, { "engine.kv_bytes", "9223372036854775807G", -1 }, { "engine.kv_bytes", "5Q", -1 },
        { "engine.kv_bytes", "G", -1 }, { "engine.kv_bytes", "", -1 }, { "engine.kv_bytes", " 5", -1 }, { "engine.kv_bytes", "99999999999999999999", -1 }, { "server.unix_mode", "0888", -1 }, { "server.unix_mode", "01000", -1 },
        { "server.head_s", "5ms", -1 }, { "server.head_s", "auto", -1 }, { "engine.threads", "0x8", -1 }, { "engine.threads", "8K", -1 }, { "engine.prefix_cache", "maybe", -1 }, { "engine.prefix_cache", "off", 0 }, { "log.level", "debug", 0 },
        { "log.level", "deb", -1 }, { "log.level", "debug info", -1 }, { "log.level", "", -1 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct qn_settings s;
        qn_settings_init(&s);
        int rc = set(&s, rows[i].name, rows[i].value);
        int64_t v = 0;
        memcpy(&v, (char *)&s.c + qn_option_find(rows[i].name)->offset, sizeof v);
        if ((rc < 0) != (rows[i].want < 0) || (rc == 0 && v != rows[i].want)) EXPECT_STR(rows[i].value, "read right");
        EXPECT_EQ(s.n_errors, rc < 0);
        qn_settings_done(&s);
    }
}

TEST(config, what_is_printed_is_read_again) {
    for (int i = 0; i < qn_n_options; i++) {
        const struct qn_option *o = &qn_options[i];
        if (o->kind == QN_OPT_STR || o->kind == QN_OPT_LIST) continue;
        for (int which = 0; which < 3; which++) {
            struct qn_settings s;
            struct qn_buf b;
            int64_t v = which == 0 ? o->min : which == 1 ? o->max : o->min + (o->max - o->min) / 3, got;
            qn_settings_init(&s);
            qn_buf_init(&b, 4096);
            memcpy((char *)&s.c + o->offset, &v, sizeof v);
            qn_option_print(o, &s.c, &b);
            EXPECT_EQ(set(&s, o->name, b.p), 0);
            memcpy(&got, (char *)&s.c + o->offset, sizeof got);
            EXPECT_EQ(got, v);
            qn_buf_done(&b);
            qn_settings_done(&s);
        }
    }
}

TEST(config, a_stronger_source_replaces_a_list) {
    struct qn_settings s;
    qn_settings_init(&s);
    qn_settings_set(&s, "server.listen", "127.0.0.1:1", QN_FROM_FILE, "f");
    qn_settings_set(&s, "server.listen", "127.0.0.1:2", QN_FROM_FILE, "f");
    EXPECT_EQ(s.c.listen.n, 2);
    qn_settings_set(&s, "server.listen", "127.0.0.1:3", QN_FROM_FLAG, "f");
    EXPECT_EQ(s.c.listen.n, 1);
    qn_settings_set(&s, "server.listen", "127.0.0.1:4", QN_FROM_FLAG, "f");
    EXPECT_EQ(s.c.listen.n, 2);
    EXPECT_STR(s.c.listen.p[1], "127.0.0.1:4");
    qn_settings_done(&s);
}

TEST(config, near_names) {
    static const struct { const char *name, *want; } rows[] = {
        { "server.listten", "server.listen" }, { "engine.thread", "engine.threads" }, { "engine.max-seqs", "engine.max_seqs" }, { "model.threads", "engine.threads" },
        { "Log.Level", "log.level" }, { "engine.kvbytes", "engine.kv_bytes" }, { "completely.different", NULL }, { "x", NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct qn_option *o = qn_option_near(rows[i].name);
        if (!rows[i].want) EXPECT(o == NULL);
        else EXPECT_STR(o ? o->name : "(none)", rows[i].want);
    }
}

static int n_applied, n_held;
static void on_change(void *ctx, const struct qn_option *o, int applied) {
    (void)ctx, (void)o;
    if (applied) n_applied++;
    else n_held++;
}

TEST(config, reload_moves_what_it_may) {
    struct qn_settings a, b;
    qn_settings_init(&a);
    qn_settings_init(&b);
    set(&b, "server.stall_s", "5");
    set(&b, "server.hosts", "one");
    set(&b, "server.hosts", "two");
    set(&b, "engine.threads", "3");
    qn_config_reload(&a.c, &b.c, on_change, NULL);
    EXPECT_EQ(n_applied, 2);
    EXPECT_EQ(n_held, 1);
    EXPECT_EQ(a.c.stall_s, 5);
    EXPECT_EQ(a.c.hosts.n, 2);
    EXPECT_EQ(b.c.hosts.n, 0);
    EXPECT_EQ(a.c.threads, 0);
    qn_settings_done(&a);
    qn_settings_done(&b);
}

TEST(config, addresses) {
    static const struct { const char *text; int is_unix, is_public, rc; } rows[] = {
        { "127.0.0.1:8080", 0, 0, 0 }, { "127.5.5.5:1", 0, 0, 0 }, { "localhost:80", 0, 0, 0 }, { "[::1]:80", 0, 0, 0 }, { "[::ffff:127.0.0.1]:80", 0, 0, 0 },
        { "0.0.0.0:80", 0, 1, 0 }, { "*:80", 0, 1, 0 }, { "[::]:80", 0, 1, 0 }, { "10.0.0.1:80", 0, 1, 0 }, { "[2001:db8::1]:80", 0, 1, 0 }, { "128.0.0.1:1", 0, 1, 0 },
        { "unix:/run/x", 1, 0, 0 }, { "unix:@x", 1, 0, 0 }, { "127.0.0.1:0", 0, 0, 0 }, { "127.0.0.1:65535", 0, 0, 0 },
        { "127.0.0.1", 0, 0, QN_E_RANGE }, { "127.0.0.1:65536", 0, 0, QN_E_RANGE }, { "127.0.0.1:", 0, 0, QN_E_RANGE }, { "127.0.0.1:8o", 0, 0, QN_E_RANGE }, { "host.example:80", 0, 0, QN_E_RANGE },
        { "::1:80", 0, 0, QN_E_RANGE }, { "[::1:80", 0, 0, QN_E_RANGE }, { "[::g]:80", 0, 0, QN_E_RANGE }, { "127.1:80", 0, 0, QN_E_RANGE }, { ":80", 0, 0, QN_E_RANGE }, { "unix:", 0, 0, QN_E_RANGE }, { "", 0, 0, QN_E_RANGE }, { "127.0.0.1:-1", 0, 0, QN_E_RANGE }, { "127.0.0.1: 80", 0, 0, QN_E_RANGE },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct qn_address a;
        struct qn_err err = { 0 };
        int rc = qn_address_parse(&a, rows[i].text, &err);
        if (rc != rows[i].rc || (rc == 0 && (a.is_unix != rows[i].is_unix || a.is_public != rows[i].is_public))) EXPECT_STR(rows[i].text, "parsed right");
    }
    struct qn_address a;
    char path[200] = "unix:/";
    memset(path + 6, 'x', 101);
    path[107 + 5] = 0;
    EXPECT_EQ(qn_address_parse(&a, path, NULL), 0);
    memset(path + 6, 'x', 107);
    path[113] = 0;
    EXPECT_EQ(qn_address_parse(&a, path, NULL), QN_E_RANGE);
}
