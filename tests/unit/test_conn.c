/* The gate, driven as libmicrohttpd drives it: recv() on one end of a socketpair whose other end plays the client. Whole
 * connections are in tests/http/test_connections.py. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/gate.h"
#include "tests/run.h"

static const struct qn_head_limits lim = { 16384, 8192, 100 };
static struct qn_gate g;
static int client, refused;
static struct qn_verdict last;

static void on_refuse(void *user, const struct qn_verdict *why) {
    (void)user;
    refused++;
    last = *why;
}

static void open_gate(void) {
    int s[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    client = s[1];
    memset(&g, 0, sizeof g);
    refused = 0;
    g.limits = &lim;
    g.refuse = on_refuse;
    ASSERT_EQ(qn_gate_init(), 0);
    ASSERT_EQ(qn_gate_open(&g, s[0]), 0);
}

static void shut(void) {
    int fd = g.fd;
    qn_gate_close(&g);
    close(fd);
    close(client);
}

static void says(const char *s, size_t n) { ASSERT_EQ(send(client, s, n, 0), n); }
#define SAYS(s) says(s, sizeof(s) - 1)

static char buf[65536];

/* What the library reads with room for n bytes; -EAGAIN and the like when it is an error. */
static long reads(size_t n) {
    long r = recv(g.fd, buf, n, 0);
    return r < 0 ? -errno : r;
}

#define EXPECT_READS(room, s) do { long r_ = reads(room); EXPECT_MEM(buf, r_ < 0 ? 0 : r_, s, sizeof(s) - 1); } while (0)
#define GET_IN "GET /a HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n"
#define GET_OUT "GET / HTTP/1.1\r\nHost: q\r\nConnection: keep-alive\r\n\r\n"
#define POST_IN "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
#define POST_OUT "POST / HTTP/1.1\r\nHost: q\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n"

TEST(conn, the_library_sees_a_canonical_head) {
    open_gate();
    EXPECT_EQ(reads(4096), -EAGAIN);
    SAYS("GET /a HTTP/1.1\r\nHos");
    EXPECT_EQ(reads(4096), -EAGAIN);
    EXPECT(qn_gate_request(&g) == NULL);
    SAYS("t: x\r\nX: y\r\n\r\n");
    EXPECT_READS(4096, GET_OUT);
    ASSERT(qn_gate_request(&g) != NULL);
    EXPECT_STR(qn_gate_request(&g)->target, "/a");
    EXPECT_STR(qn_head_field(qn_gate_request(&g), "x"), "y");
    EXPECT_EQ(qn_gate_more(&g), 0);
    EXPECT_EQ(reads(4096), -EAGAIN);
    close(client);
    client = -1;
    EXPECT_EQ(reads(4096), 0);
    shut();
}

TEST(conn, one_message_at_a_time) {
    open_gate();
    SAYS(GET_IN POST_IN "hello" GET_IN);
    EXPECT_READS(4096, GET_OUT);
    EXPECT_EQ(qn_gate_more(&g), 1);
    EXPECT_READS(4096, POST_OUT "hello");
    EXPECT_STR(qn_gate_request(&g)->target, "/b");
    EXPECT_EQ(qn_gate_more(&g), 1);
    EXPECT_READS(4096, GET_OUT);
    EXPECT_EQ(qn_gate_more(&g), 0);
    EXPECT(g.held == NULL);
    shut();
}

TEST(conn, a_body_larger_than_the_room_fills_it) {
    open_gate();
    SAYS("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n");
    static char body[30000];
    for (size_t i = 0; i < sizeof body; i++) body[i] = (char)(i * 31);
    says(body, sizeof body);
    SAYS(GET_IN);
    size_t got = 0;
    long r = reads(1000);
    EXPECT_EQ(r, 1000); /* never short while there is more: the library would wait for an edge */
    const char *start = (const char *)memmem(buf, 1000, "\r\n\r\n", 4) + 4;
    static char all[30000];
    got = (size_t)(buf + 1000 - start);
    memcpy(all, start, got);
    while (got < sizeof body) {
        r = reads(1000);
        ASSERT(r == 1000 || got + (size_t)r == sizeof body);
        memcpy(all + got, buf, (size_t)r);
        got += (size_t)r;
    }
    EXPECT_MEM(all, got, body, sizeof body);
    EXPECT_EQ(qn_gate_more(&g), 1);
    EXPECT_READS(4096, GET_OUT);
    shut();
}

TEST(conn, chunks_pass_plain_in_every_cut) {
    static const char in[] = "POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;ext\r\nabc\r\n02\r\nde\r\n0\r\nT: r\r\n\r\n" GET_IN;
    static const char want[] = "POST / HTTP/1.1\r\nHost: q\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n02\r\nde\r\n0\r\n\r\n" GET_OUT;
    for (size_t cut = 0; cut < sizeof in; cut++) {
        char all[512];
        size_t got = 0;
        open_gate();
        says(in, cut);
        for (int k = 0; k < 2; k++) {
            long r;
            while ((r = reads(256)) > 0) {
                memcpy(all + got, buf, (size_t)r);
                got += (size_t)r;
            }
            EXPECT_EQ(r, -EAGAIN);
            if (!k) says(in + cut, sizeof in - 1 - cut);
        }
        EXPECT_MEM(all, got, want, sizeof want - 1);
        EXPECT_EQ(refused, 0);
        shut();
    }
}

TEST(conn, what_is_refused_reads_as_a_reset) {
    open_gate();
    SAYS("GET / HTTP/1.1\r\nHost : x\r\n\r\n");
    EXPECT_EQ(reads(4096), -ECONNRESET);
    EXPECT_EQ(refused, 1);
    EXPECT_EQ(last.status, 400);
    EXPECT_EQ(reads(4096), -ECONNRESET);
    EXPECT_EQ(refused, 1);
    shut();
    open_gate();
    SAYS("POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    EXPECT_EQ(reads(4096), -ECONNRESET);
    EXPECT_EQ(refused, 1);
    shut();
    open_gate();
    SAYS(GET_IN "GARBAGE\n\n");
    EXPECT_READS(4096, GET_OUT); /* the good one first */
    EXPECT_EQ(refused, 0);
    EXPECT_EQ(reads(4096), -ECONNRESET);
    EXPECT_EQ(refused, 1);
    shut();
}

TEST(conn, a_trickling_head_keeps_little_memory) {
    open_gate();
    SAYS("GET /a HTTP/1.1\r\n");
    reads(4096);
    EXPECT(g.cap <= 1024);
    EXPECT(g.since_ns > 0);
    for (int i = 0; i < 500; i++) {
        SAYS("X: yyyyyyyyyy\r\n");
        if (reads(4096) != -EAGAIN) break;
    }
    EXPECT_EQ(refused, 0);
    EXPECT(g.cap <= 16384);
    SAYS("Host: x\r\n\r\n");
    EXPECT_EQ(reads(4096), -ECONNRESET);
    EXPECT_EQ(last.status, 431);
    shut();
}

TEST(conn, other_descriptors_go_to_the_kernel) {
    open_gate();
    int s[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    ASSERT_EQ(send(s[1], "raw\n", 4, 0), 4);
    EXPECT_EQ(recv(s[0], buf, 64, MSG_PEEK), 4);
    EXPECT_EQ(recv(s[0], buf, 64, 0), 4);
    EXPECT_MEM(buf, 4, "raw\n", 4);
    close(s[0]);
    EXPECT_EQ(recv(-1, buf, 1, 0), -1);
    close(s[1]);
    shut();
}
