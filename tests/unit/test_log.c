/* Hostile values in every field, read back by a JSON parser that is not ours (jansson). */
#include <jansson.h>
#include <signal.h>
#include <unistd.h>

#include "engine/base/rng.h"
#include "server/log.h"
#include "tests/run.h"

static int pipe_fd[2];

static void setup(int format) {
    ASSERT_EQ(pipe(pipe_fd), 0);
    qn_log_setup(pipe_fd[1], QN_LOG_INFO, format);
}

static size_t line(char *out, size_t n) {
    ssize_t r = read(pipe_fd[0], out, n - 1);
    ASSERT(r > 0);
    out[r] = 0;
    return (size_t)r;
}

static void no_control(const char *s, size_t n) {
    for (size_t i = 0; i + 1 < n; i++) ASSERT((unsigned char)s[i] >= 32 && s[i] != 127);
    ASSERT_EQ(s[n - 1], '\n');
}

TEST(log, a_line_is_json) {
    char out[QN_LOG_LINE_MAX + 1];
    struct qn_log_line l;
    setup(QN_LOG_JSON);
    qn_log_begin(&l, QN_LOG_WARN, "request");
    qn_log_str(&l, "path", "/a\"b\\c\n\x1b[31m\x7f\xc2\x85\xe2\x80\xae");
    qn_log_int(&l, "status", -5);
    qn_log_ms(&l, "ms", 1234567);
    qn_log_end(&l);
    no_control(out, line(out, sizeof out));
    json_t *j = json_loads(out, 0, NULL);
    ASSERT(j != NULL);
    EXPECT_STR(json_string_value(json_object_get(j, "level")), "warn");
    EXPECT_STR(json_string_value(json_object_get(j, "path")), "/a\"b\\c\n\x1b[31m\x7f\xc2\x85\xe2\x80\xae");
    EXPECT_EQ(json_integer_value(json_object_get(j, "status")), -5);
    EXPECT_NEAR(json_real_value(json_object_get(j, "ms")), 1.235, 1e-9);
    EXPECT(strstr(out, "\xe2\x80\xae") == NULL); /* what turns text around is escaped */
    json_decref(j);
}

TEST(log, hostile_values_stay_one_line) {
    static const char *const nasty[] = { "\r\n", "\x1b]0;x\x07", "\"}\n{\"", "\\", "\xff\xfe", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x80\xa8", "\xef\xbb\xbf", "\x9b", "\xc2\x9b", "\x01", "x", "\xf0\x9f\x98\x80", "\t" };
    static char out[QN_LOG_LINE_MAX + 1];
    struct qn_log_line l;
    setup(QN_LOG_JSON);
    for (int round = 0; round < 20000; round++) {
        char v[4][700];
        qn_log_begin(&l, QN_LOG_INFO, "x");
        for (int k = 0; k < 4; k++) {
            size_t n = 0, want = (size_t)(qn_rng_uniform(1, (unsigned)round, (unsigned)k, 0) * 690);
            for (unsigned i = 0; n < want; i++) {
                const char *piece = nasty[(size_t)(qn_rng_uniform(2, (unsigned)round, (unsigned)k, i) * 16) % 16];
                if (n + strlen(piece) > want) break;
                memcpy(v[k] + n, piece, strlen(piece));
                n += strlen(piece);
            }
            v[k][n] = 0;
            static const char *const keys[] = { "a", "b", "c", "d" };
            qn_log_str(&l, keys[k], v[k]);
        }
        qn_log_end(&l);
        size_t n = line(out, sizeof out);
        no_control(out, n);
        json_error_t e;
        json_t *j = json_loads(out, JSON_REJECT_DUPLICATES, &e);
        if (!j) ASSERT(!"JSON");
        json_decref(j);
    }
}

TEST(log, too_much_is_cut_and_said) {
    static char out[QN_LOG_LINE_MAX + 1], big[6000];
    struct qn_log_line l;
    setup(QN_LOG_JSON);
    memset(big, 'x', sizeof big - 1);
    qn_log_begin(&l, QN_LOG_INFO, "x");
    for (int i = 0; i < 40; i++) qn_log_str(&l, "k", big);
    qn_log_end(&l);
    size_t n = line(out, sizeof out);
    EXPECT(n <= QN_LOG_LINE_MAX);
    EXPECT(strstr(out, "\"cut\":true}\n") != NULL);
    json_t *j = json_loads(out, 0, NULL);
    ASSERT(j != NULL);
    EXPECT_EQ(json_string_length(json_object_get(j, "k")), QN_LOG_VALUE_MAX + 3);
    json_decref(j);
}

TEST(log, text_for_people) {
    char out[QN_LOG_LINE_MAX + 1];
    struct qn_log_line l;
    setup(QN_LOG_PRETTY);
    qn_log_begin(&l, QN_LOG_INFO, "request");
    qn_log_str(&l, "path", "/v1/models");
    qn_log_str(&l, "agent", "a b\n");
    qn_log_int(&l, "status", 200);
    qn_log_end(&l);
    line(out, sizeof out);
    EXPECT_STR(out + 13, "info  request path=/v1/models agent=\"a b\\u000a\" status=200\n");
}

TEST(log, levels) {
    char out[QN_LOG_LINE_MAX + 1];
    setup(QN_LOG_JSON);
    qn_log(QN_LOG_DEBUG, "x", "not wanted");
    qn_log(QN_LOG_ERROR, "x", "%s", "wanted");
    size_t n = line(out, sizeof out);
    EXPECT(strstr(out, "\"message\":\"wanted\"") != NULL);
    EXPECT_EQ(out[n - 1], '\n');
    EXPECT(strstr(out, "not wanted") == NULL);
}

TEST(log, a_reader_that_is_gone_holds_nobody_up) {
    setup(QN_LOG_JSON);
    close(pipe_fd[0]);
    signal(SIGPIPE, SIG_IGN);
    qn_log(QN_LOG_INFO, "x", "lost");
    EXPECT_EQ(qn_log_lost(), 1);
}
