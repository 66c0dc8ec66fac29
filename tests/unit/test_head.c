/* The head's grammar against RFC 9110 5.6.2 (token), 5.5 (field values) and 7.2 (Host), byte by byte; limits at the limit and
 * one more; and the chunk filter in every cut. Whole messages are in tests/http/test_hostile.py. */
#include "server/chunk.h"
#include "server/head.h"
#include "tests/run.h"

static const struct qn_head_limits lim = { 16384, 8192, 100 };
static struct qn_request req;
static struct qn_verdict why;
static char scratch[70000];

/* 0 and req filled, or the status. */
static int judge_n(const char *s, size_t n) {
    size_t from = 0;
    memset(&why, 0, sizeof why);
    long len = qn_head_scan(s, n, &from, &lim, &why);
    if (len < 0) return why.status;
    if (len == 0) return -1;
    memcpy(scratch, s, (size_t)len);
    return qn_head_parse(scratch, (size_t)len, &lim, &req, &why) < 0 ? why.status : 0;
}

static int judge(const char *s) { return judge_n(s, strlen(s)); }

static int with(const char *fields) {
    char s[4096];
    snprintf(s, sizeof s, "POST /x HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
    return judge(s);
}

TEST(head, a_request_is_read) {
    ASSERT_EQ(judge("POST /v1/x?y=%20z HTTP/1.1\r\nHost: localhost:8080\r\nContent-Length: 12\r\nX-A:  b c\t\r\nExpect: 100-Continue\r\nOrigin: null\r\n\r\n"), 0);
    EXPECT_STR(req.method, "POST");
    EXPECT_STR(req.target, "/v1/x?y=%20z");
    EXPECT_STR(req.host, "localhost:8080");
    EXPECT_STR(req.origin, "null");
    EXPECT_STR(qn_head_field(&req, "x-a"), "b c");
    EXPECT(qn_head_field(&req, "x-b") == NULL);
    EXPECT_EQ(req.content_length, 12);
    EXPECT_EQ(req.minor, 1);
    EXPECT_EQ(req.keep_alive, 1);
    EXPECT_EQ(req.expect_continue, 1);
    char out[QN_HEAD_CANONICAL_MAX];
    size_t n = qn_head_canonical(&req, out);
    static const char want[] = "POST / HTTP/1.1\r\nHost: q\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n";
    EXPECT_MEM(out, n, want, sizeof want - 1);
}

TEST(head, names_are_tokens_of_rfc_9110) {
    static const char tchar[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for (int c = 0; c < 256; c++) {
        char s[64];
        int n = snprintf(s, sizeof s, "GET /x HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\n\r\n");
        *strchr(s, '_') = (char)c;
        int want = c && strchr(tchar, c) ? 0 : 400;
        if (c == ':') want = 0; /* then X is the name */
        if (judge_n(s, (size_t)n) != want) EXPECT_EQ(c, -1);
    }
}

TEST(head, values_are_vchar_space_tab_and_obs_text) {
    for (int c = 0; c < 256; c++) {
        char s[64];
        int n = snprintf(s, sizeof s, "GET /x HTTP/1.1\r\nHost: a\r\nX: 1_2\r\n\r\n");
        *strchr(s, '_') = (char)c;
        int want = c == '\t' || (c >= 32 && c != 127) ? 0 : 400;
        if (judge_n(s, (size_t)n) != want) EXPECT_EQ(c, -1);
    }
}

TEST(head, targets_are_visible_ascii_without_a_fragment) {
    for (int c = 0; c < 256; c++) {
        char s[64];
        int n = snprintf(s, sizeof s, "GET /x_y HTTP/1.1\r\nHost: a\r\n\r\n");
        *strchr(s, '_') = (char)c;
        int want = c > 32 && c < 127 && c != '#' && c != '%' ? 0 : 400;
        if (judge_n(s, (size_t)n) != want) EXPECT_EQ(c, -1);
    }
}

TEST(head, first_byte_decides_early) {
    size_t from = 0;
    for (int c = 0; c < 256; c++) {
        char b = (char)c;
        from = 0;
        long r = qn_head_scan(&b, 1, &from, &lim, &why);
        int may = c == '\r' || (c && strchr("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", c));
        if ((r == 0) != (may != 0)) EXPECT_EQ(c, -1);
    }
}

TEST(head, framing_is_decided_once) {
    EXPECT_EQ(with("Content-Length: 0\r\nContent-Length: 0\r\n"), 400);
    EXPECT_EQ(with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400);
    EXPECT_EQ(with("Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n"), 400);
    EXPECT_EQ(with("Transfer-Encoding: gzip, chunked\r\n"), 400);
    EXPECT_EQ(with("Transfer-Encoding: br\r\n"), 501);
    EXPECT_EQ(with("Content-Length: 999999999999999999\r\n"), 0);
    EXPECT_EQ(req.content_length, 999999999999999999);
    EXPECT_EQ(with("Content-Length: 1000000000000000000\r\n"), 413);
    EXPECT_EQ(with("Content-Length: 007\r\n"), 0);
    EXPECT_EQ(req.content_length, 7);
    EXPECT_EQ(with("Transfer-Encoding: \tchunked\r\n"), 400);
    EXPECT_EQ(with("Transfer-Encoding:  CHUNKED \r\n"), 0);
    EXPECT_EQ(req.content_length, -1);
    EXPECT_EQ(req.chunked, 1);
    EXPECT_EQ(with(""), 0);
    EXPECT_EQ(req.content_length, 0);
}

TEST(head, connection_is_a_list) {
    static const struct { const char *line, *fields; int keep; } rows[] = {
        { "GET / HTTP/1.1", "", 1 }, { "GET / HTTP/1.1", "Connection: close\r\n", 0 }, { "GET / HTTP/1.1", "Connection: x, CLOSE ,y\r\n", 0 },
        { "GET / HTTP/1.1", "Connection: closed\r\n", 1 }, { "GET / HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", 0 },
        { "GET / HTTP/1.1", "Connection: close\r\nConnection: keep-alive\r\n", 0 }, { "GET / HTTP/1.0", "", 0 },
        { "GET / HTTP/1.0", "Connection: Keep-Alive\r\n", 1 }, { "GET / HTTP/1.0", "Connection: keep-alive, close\r\n", 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char s[256];
        snprintf(s, sizeof s, "%s\r\nHost: a\r\n%s\r\n", rows[i].line, rows[i].fields);
        ASSERT_EQ(judge(s), 0);
        EXPECT_EQ(req.keep_alive, rows[i].keep);
    }
}

TEST(head, limits_at_the_limit_and_one_more) {
    static char s[40000];
    for (int over = 0; over < 2; over++) {
        int n = sprintf(s, "GET /%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 8191 + over, 0);
        EXPECT_EQ(judge_n(s, (size_t)n), over ? 414 : 0);
        n = sprintf(s, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (int i = 0; i < 99 + over; i++) n += sprintf(s + n, "X: %d\r\n", i);
        n += sprintf(s + n, "\r\n");
        EXPECT_EQ(judge_n(s, (size_t)n), over ? 431 : 0);
        n = sprintf(s, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
        int room = 16384 - n - 4 + over;
        n += sprintf(s + n, "%0*d\r\n\r\n", room, 0);
        EXPECT_EQ(n, 16384 + over);
        EXPECT_EQ(judge_n(s, (size_t)n), over ? 431 : 0);
    }
}

TEST(head, a_scan_stops_at_the_heads_end) {
    static const char two[] = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost : b\r\n\r\n";
    size_t from = 0;
    EXPECT_EQ(qn_head_scan(two, sizeof two - 1, &from, &lim, &why), 28);
    for (size_t cut = 1; cut < 28; cut++) {
        from = 0;
        EXPECT_EQ(qn_head_scan(two, cut, &from, &lim, &why), 0);
        EXPECT_EQ(qn_head_scan(two, sizeof two - 1, &from, &lim, &why), 28);
    }
}

TEST(head, hosts) {
    static const char *const good[] = { "a", "a.b-c_d", "localhost:8080", "a:", "a:0", "a:65535", "[::1]", "[::1]:80", "[2001:db8::1]:443", "1.2.3.4", "a.", "x%20y" + 1 - 1 };
    static const char *const wrong[] = { "", ":80", "a b", "a/b", "a?b", "a#b", "a@b", "a:b", "a:65536", "a:123456", "a:-1", "a:80:80", "[::1", "[]", "[::1]x", "[::g]", "a\\b", "a,b:", "\xc3\xa9", "a\"b", "<a>", "a:+1" };
    for (size_t i = 0; i + 1 < sizeof good / sizeof *good; i++)
        if (!qn_head_host_valid(good[i])) EXPECT_STR(good[i], "valid");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (!strcmp(wrong[i], "a,b:")) continue; /* a comma is a sub-delim, RFC 3986 3.2.2 */
        if (qn_head_host_valid(wrong[i])) EXPECT_STR(wrong[i], "refused");
    }
    static const char *const local[] = { "localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:80" };
    static const char *const other[] = { "localhost.evil", "xlocalhost", "127.0.0.1.evil", "127.0.0.1.", "127.0.0.256", "127.0.0", "128.0.0.1", "0127.0.0.1", "[::2]", "evil", "127.0.0.1a" };
    for (size_t i = 0; i < sizeof local / sizeof *local; i++) EXPECT(qn_head_host_local(local[i]));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (qn_head_host_local(other[i])) EXPECT_STR(other[i], "not local");
    EXPECT(qn_head_host_is("Quern.Example:443", "quern.example"));
    EXPECT(!qn_head_host_is("quern.example.evil", "quern.example"));
}

/* ---- chunks ---- */

static int pass_cut(const char *s, size_t n, size_t step, char *out, size_t *n_out, size_t *used) {
    struct qn_chunk c;
    int rc = QN_CHUNK_MORE;
    qn_chunk_init(&c);
    *used = *n_out = 0;
    while (*used < n && rc == QN_CHUNK_MORE) {
        char piece[64];
        size_t k = n - *used < step ? n - *used : step, made;
        memcpy(piece, s + *used, k);
        rc = qn_chunk_pass(&c, piece, &k, piece, &made);
        memcpy(out + *n_out, piece, made);
        *n_out += made;
        *used += k;
    }
    return rc;
}

TEST(head, chunks_in_every_cut) {
    static const char in[] = "5;a=\"b\"\r\nhello\r\n00A \r\n", good[] = "5;a=\"b\"\r\nhello\r\n000A\r\n0123456789\r\n0;last\r\nX: y\r\nZ:\r\n\r\nNEXT";
    static const char want[] = "5\r\nhello\r\n0A\r\n0123456789\r\n0\r\n\r\n";
    char out[128];
    size_t n, used;
    for (size_t step = 1; step < sizeof good; step++) {
        EXPECT_EQ(pass_cut(good, sizeof good - 1, step, out, &n, &used), QN_CHUNK_END);
        EXPECT_MEM(out, n, want, sizeof want - 1);
        EXPECT_EQ(used, sizeof good - 1 - 4);
        EXPECT_EQ(pass_cut(in, sizeof in - 1, step, out, &n, &used), QN_CHUNK_BAD);
    }
}

TEST(head, chunk_sizes) {
    static const struct { const char *s; int rc; } rows[] = {
        { "FFFFFFFFFFFFFFF\r\n", QN_CHUNK_MORE }, { "1000000000000000\r\n", QN_CHUNK_BAD }, { "000000000000000000001\r\nx\r\n0\r\n\r\n", QN_CHUNK_END },
        { "g\r\n", QN_CHUNK_BAD }, { "\r\n", QN_CHUNK_BAD }, { ";x\r\n", QN_CHUNK_BAD }, { "1\n", QN_CHUNK_BAD }, { "1\r\nxy", QN_CHUNK_BAD }, { "1\r\nx\n", QN_CHUNK_BAD },
        { "0\r\n\n", QN_CHUNK_BAD }, { "0\r\n :x\r\n\r\n", QN_CHUNK_BAD }, { "0\r\n:x\r\n\r\n", QN_CHUNK_BAD }, { "0\r\na\r\n\r\n", QN_CHUNK_BAD }, { "0\r\na:\x01\r\n\r\n", QN_CHUNK_BAD },
    };
    char out[128];
    size_t n, used;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (pass_cut(rows[i].s, strlen(rows[i].s), 64, out, &n, &used) != rows[i].rc) EXPECT_STR(rows[i].s, "right");
}
