#!/usr/bin/env python3
"""Bytes that are no request, or that two programs would read as two different ones. Every trap that was measured in
libmicrohttpd and every ambiguity that proxies are attacked with, sent over a plain socket; what is wanted is one answer (or
none), then the end of the connection, and never a second answer to the same bytes."""
import json, os, sys, time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from front import fake, real
from qtest import add_test, connect, eq, main, parse_responses, raw_request, test

H = b"Host: localhost\r\n"
BODY = b'{"content":"hi"}'
J = b"Content-Type: application/json\r\n"


def get(head=b"", line=b"GET /health HTTP/1.1", host=H):
    return line + b"\r\n" + host + head + b"\r\n"


def post(head, body=b"", line=b"POST /tokenize HTTP/1.1", host=H):
    return line + b"\r\n" + host + J + head + b"\r\n" + body


SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
L = b"Content-Length: %d\r\n"
long_path = b"/health?" + b"a" * (8192 - 8)

# name: (bytes, statuses that are right)
REFUSED = {
    # lengths and codings: where one message ends and the next begins
    "length_twice_different": (post(L % 0 + L % len(SMUGGLED), SMUGGLED), {400}),
    "length_twice_equal": (post(L % 16 + L % 16, BODY), {400}),
    "length_list": (post(b"Content-Length: 16, 16\r\n", BODY), {400}),
    "length_plus_sign": (post(b"Content-Length: +16\r\n", BODY), {400}),
    "length_minus_sign": (post(b"Content-Length: -16\r\n", BODY), {400}),
    "length_hex": (post(b"Content-Length: 0x10\r\n", BODY), {400}),
    "length_empty": (post(b"Content-Length: \r\n", BODY), {400}),
    "length_space_inside": (post(b"Content-Length: 1 6\r\n", BODY), {400}),
    "length_nul_inside": (post(b"Content-Length: 3\x000\r\n", BODY), {400}),
    "length_not_a_number": (post(b"Content-Length: many\r\n", BODY), {400}),
    "length_overflow": (post(b"Content-Length: 18446744073709551617\r\n", BODY), {400, 413}),
    "length_too_large": (post(b"Content-Length: 99999999999\r\n", BODY), {413}),
    "length_and_chunked": (post(L % 5 + CHUNKED, b"0\r\n\r\n" + SMUGGLED), {400}),
    "chunked_and_length": (post(CHUNKED + L % 5, b"0\r\n\r\n" + SMUGGLED), {400}),
    "chunked_twice": (post(CHUNKED + CHUNKED, b"0\r\n\r\n"), {400}),
    "chunked_in_http_1_0": (post(CHUNKED, b"0\r\n\r\n" + SMUGGLED, b"POST /tokenize HTTP/1.0"), {400}),
    "coding_space_before_colon": (post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n" + SMUGGLED), {400}),
    "length_space_before_colon": (post(b"Content-Length : 16\r\n", BODY), {400}),
    "coding_tab_before_colon": (post(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n" + SMUGGLED), {400}),
    "coding_nul_after": (post(b"Transfer-Encoding: chunked\0\r\n", b"0\r\n\r\n"), {400}),
    "coding_vertical_tab": (post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), {400}),
    "coding_tab": (post(b"Transfer-Encoding: chunked\t\r\n", b"0\r\n\r\n"), {400}),
    "length_tab": (post(b"Content-Length: 16\t\r\n", BODY), {400}),
    "coding_unknown": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "coding_identity": (post(b"Transfer-Encoding: identity\r\n", BODY), {400, 501}),
    "coding_gzip_chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    "coding_chunked_gzip": (post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), {400, 501}),
    "coding_chunked_chunked": (post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), {400}),
    "coding_empty": (post(b"Transfer-Encoding: \r\n", b"0\r\n\r\n"), {400}),
    "coding_quoted": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), {400, 501}),
    "coding_folded": (post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), {400}),
    "coding_bare_cr_before": (post(b"X: y\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), {400}),
    # chunks
    "chunk_size_empty": (post(CHUNKED, b"\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_not_hex": (post(CHUNKED, b"xyz\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_minus": (post(CHUNKED, b"-3\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_plus": (post(CHUNKED, b"+3\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_0x": (post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_space_before": (post(CHUNKED, b" 3\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_space_after": (post(CHUNKED, b"3 \r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_overflow": (post(CHUNKED, b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_size_too_large": (post(CHUNKED, b"FFFFFFFFFFFFFFF\r\n" + b"a" * 9_000_000), {413}),
    "chunk_bare_lf": (post(CHUNKED, b"3\nabc\n0\n\n"), {400}),
    "chunk_bare_lf_after_data": (post(CHUNKED, b"3\r\nabc\n0\r\n\r\n"), {400}),
    "chunk_bare_cr": (post(CHUNKED, b"3\rabc\r\n0\r\n\r\n"), {400}),
    "chunk_data_longer": (post(CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"), {400}),
    "chunk_extension_bare_lf": (post(CHUNKED, b"3;a\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_extension_nul": (post(CHUNKED, b"3;\0\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_extension_64k": (post(CHUNKED, b"3;" + b"a" * 65536 + b"\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk_overhead": (post(CHUNKED, b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n"), {400}),
    "chunk_trailer_bad_name": (post(CHUNKED, b"0\r\nX y: 1\r\n\r\n"), {400}),
    "chunk_trailer_no_colon": (post(CHUNKED, b"0\r\nXy\r\n\r\n"), {400}),
    "chunk_trailer_too_long": (post(CHUNKED, b"0\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"), {400}),
    # lines
    "bare_lf_everywhere": (b"GET /health HTTP/1.1\nHost: localhost\n\n", {400}),
    "bare_lf_in_fields": (b"GET /health HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", {400}),
    "bare_lf_ends_head": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\n", {400}),
    "bare_cr_in_line": (b"GET /health HTTP/1.1\rHost: localhost\r\n\r\n", {400}),
    "bare_cr_in_value": (get(b"X: a\rb\r\n"), {400}),
    "folded_field": (get(b"X: a\r\n b\r\n"), {400}),
    "folded_first_field": (b"GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n", {400}),
    "nul_in_value": (get(b"X: a\0b\r\n"), {400}),
    "control_in_value": (get(b"X: a\x01b\r\n"), {400}),
    "delete_in_value": (get(b"X: a\x7fb\r\n"), {400}),
    "escape_in_value": (get(b"X: \x1b[31m\r\n"), {400}),
    "name_empty": (get(b": x\r\n"), {400}),
    "name_with_space": (get(b"X Y: x\r\n"), {400}),
    "name_space_before_colon": (get(b"X : x\r\n"), {400}),
    "name_control": (get(b"X\x01: x\r\n"), {400}),
    "name_nul": (get(b"X\0: x\r\n"), {400}),
    "name_non_ascii": (get(b"X\xc3\xa9: x\r\n"), {400}),
    "name_parentheses": (get(b"X(y): x\r\n"), {400}),
    "no_colon": (get(b"Xyz\r\n"), {400}),
    "two_empty_lines_first": (b"\r\n\r\n" + get(), {400}),
    "space_before_method": (b" " + get(), {400}),
    # the request line
    "no_version": (b"GET /health\r\n\r\n", {400}),
    "http_0_9": (b"GET /health\r\n", {400, None}),
    "http_2_preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {505, 400}),
    "version_2_0": (get(line=b"GET /health HTTP/2.0"), {505}),
    "version_1_2": (get(line=b"GET /health HTTP/1.2"), {505}),
    "version_1_9": (get(line=b"GET /health HTTP/1.9"), {505}),
    "version_1_10": (get(line=b"GET /health HTTP/1.10"), {400}),
    "version_01_1": (get(line=b"GET /health HTTP/01.1"), {400}),
    "version_lower_case": (get(line=b"GET /health http/1.1"), {400}),
    "version_garbage": (get(line=b"GET /health HTTP/x.y"), {400}),
    "version_other_protocol": (get(line=b"GET /health RTSP/1.0"), {400}),
    "two_spaces_after_method": (get(line=b"GET  /health HTTP/1.1"), {400}),
    "two_spaces_before_version": (get(line=b"GET /health  HTTP/1.1"), {400}),
    "space_after_version": (get(line=b"GET /health HTTP/1.1 "), {400}),
    "tab_in_line": (get(line=b"GET\t/health\tHTTP/1.1"), {400}),
    "space_in_target": (get(line=b"GET /hea lth HTTP/1.1"), {400}),
    "fragment_in_target": (get(line=b"GET /health#x HTTP/1.1"), {400}),
    "control_in_target": (get(line=b"GET /hea\x01lth HTTP/1.1"), {400}),
    "non_ascii_in_target": (get(line=b"GET /hea\xc3\xa9 HTTP/1.1"), {400}),
    "nul_in_target": (get(line=b"GET /health\0 HTTP/1.1"), {400}),
    "escaped_nul_in_target": (get(line=b"GET /health%00/../x HTTP/1.1"), {400}),
    "broken_escape": (get(line=b"GET /health%2 HTTP/1.1"), {400}),
    "broken_escape_letters": (get(line=b"GET /health?%zz HTTP/1.1"), {400}),
    "relative_target": (get(line=b"GET health HTTP/1.1"), {400}),
    "authority_target": (get(line=b"GET localhost:80 HTTP/1.1"), {400}),
    "star_target": (get(line=b"GET * HTTP/1.1"), {400}),
    "https_target": (get(line=b"GET https://localhost/health HTTP/1.1"), {400}),
    "absolute_other_host": (get(line=b"GET http://evil.example/health HTTP/1.1"), {400}),
    "absolute_userinfo": (get(line=b"GET http://a@localhost/health HTTP/1.1"), {400}),
    "absolute_no_path": (get(line=b"GET http://localhost HTTP/1.1"), {400}),
    "connect": (get(line=b"CONNECT localhost:80 HTTP/1.1"), {400, 405, 501}),
    "trace": (get(line=b"TRACE /health HTTP/1.1"), {405, 501}),
    "method_lower_case": (get(line=b"get /health HTTP/1.1"), {400, 501}),
    "method_unknown": (get(line=b"BREW /health HTTP/1.1"), {501}),
    "method_bad_bytes": (get(line=b"G(T /health HTTP/1.1"), {400}),
    "method_empty": (get(line=b" /health HTTP/1.1"), {400}),
    "method_very_long": (get(line=b"A" * 9000 + b" /health HTTP/1.1"), {400, 414, 501}),
    # Host
    "host_missing": (get(host=b""), {400}),
    "host_twice": (get(H), {400}),
    "host_twice_different": (get(b"Host: other\r\n"), {400}),
    "host_empty": (get(host=b"Host: \r\n"), {400}),
    "host_slash": (get(host=b"Host: a/?\r\n"), {400}),
    "host_userinfo": (get(host=b"Host: a@localhost\r\n"), {400}),
    "host_space": (get(host=b"Host: local host\r\n"), {400}),
    "host_comma": (get(host=b"Host: localhost, evil\r\n"), {400}),
    "host_bad_port": (get(host=b"Host: localhost:99999\r\n"), {400}),
    "host_port_letters": (get(host=b"Host: localhost:80a\r\n"), {400}),
    "host_brackets": (get(host=b"Host: [::1\r\n"), {400}),
    "host_non_ascii": (get(host=b"Host: l\xc3\xb6calhost\r\n"), {400}),
    "host_of_another_site": (get(host=b"Host: evil.example\r\n"), {403}),
    "host_looks_local": (get(host=b"Host: 127.0.0.1.evil.example\r\n"), {403}),
    "host_localhost_prefix": (get(host=b"Host: localhost.evil.example\r\n"), {403}),
    "origin_of_another_site": (get(b"Origin: https://evil.example\r\n"), {403}),
    "origin_null": (get(b"Origin: null\r\n"), {403}),
    # fields that may come once
    "authorization_twice": (get(b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), {400}),
    "content_type_twice": (post(J + L % 16, BODY), {400}),
    # expectations and sizes
    "expect_unknown": (post(b"Expect: 200-maybe\r\n" + L % 16, BODY), {417}),
    "target_8k_and_one": (b"GET " + long_path + b"a HTTP/1.1\r\n" + H + b"\r\n", {414}),
    "target_40k": (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n" + H + b"\r\n", {414, 431}),
    "line_without_end": (b"GET /" + b"a" * 40000, {414, 431}),
    "fields_101": (get(b"X: y\r\n" * 100), {431}),
    "head_16k_and_one": (get(b"X: " + b"a" * (16384 - len(get()) - 5 + 1) + b"\r\n"), {431}),
    "head_without_end": (b"GET /health HTTP/1.1\r\n" + H + b"X: y\r\n" * 10_000, {431}),
    # other protocols
    "tls_client_hello": (bytes.fromhex("160301020001fc0303") + bytes(200), {400}),
    "binary": (bytes(range(256)), {400}),
    "smtp": (b"EHLO example\r\n", {400, None}),
}

ACCEPTED = {  # odd, but right
    "plain": (get(b"Connection: close\r\n"), [200]),
    "one_empty_line_first": (b"\r\n" + get(b"Connection: close\r\n"), [200]),
    "host_with_port": (get(b"Connection: close\r\n", host=b"Host: localhost:8080\r\n"), [200]),
    "host_empty_port": (get(b"Connection: close\r\n", host=b"Host: localhost:\r\n"), [200]),
    "host_v6": (get(b"Connection: close\r\n", host=b"Host: [::1]:80\r\n"), [200]),
    "host_upper_case": (get(b"Connection: close\r\n", host=b"HOST: LOCALHOST\r\n"), [200]),
    "absolute_target": (get(b"Connection: close\r\n", line=b"GET http://localhost/health HTTP/1.1"), [200]),
    "no_space_after_colon": (get(b"X:y\r\nConnection:close\r\n"), [200]),
    "spaces_around_value": (get(b"Connection: \t close \t \r\n"), [200]),
    "connection_list": (get(b"Connection: keep-alive, close\r\n"), [200]),
    "empty_value": (get(b"X:\r\nConnection: close\r\n"), [200]),
    "obs_text_value": (get(b"X: caf\xe9\r\nConnection: close\r\n"), [200]),
    "http_1_0": (get(line=b"GET /health HTTP/1.0", host=b""), [200]),
    "http_1_0_expect": (post(b"Expect: 100-continue\r\n" + L % 16, BODY, b"POST /tokenize HTTP/1.0"), [200]),
    "fields_100": (get(b"X: y\r\n" * 98 + b"Connection: close\r\n"), [200]),
    "head_16k": (get(b"Connection: close\r\nX: " + b"a" * (16384 - len(get()) - 5 - 19) + b"\r\n"), [200]),
    "target_8k": (b"GET " + long_path + b" HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n", [200]),
    "query_is_not_routed": (get(b"Connection: close\r\n", line=b"GET /health?x=%2F..&y HTTP/1.1"), [200]),
    "escaped_slash_is_not_a_slash": (get(b"Connection: close\r\n", line=b"GET /v1%2Fmodels HTTP/1.1"), [404]),
    "dot_segments_are_not_resolved": (get(b"Connection: close\r\n", line=b"GET /x/../health HTTP/1.1"), [404]),
    "double_slash_is_another_path": (get(b"Connection: close\r\n", line=b"GET //health HTTP/1.1"), [404]),
    "escaped_letters_are_another_path": (get(b"Connection: close\r\n", line=b"GET /%68ealth HTTP/1.1"), [404]),
    "crlf_escaped": (get(b"Connection: close\r\n", line=b"GET /health%0d%0aX:y HTTP/1.1"), [404]),
    "body_with_length": (post(L % 16 + b"Connection: close\r\n", BODY), [200]),
    "body_chunked": (post(CHUNKED + b"Connection: close\r\n", b"10\r\n" + BODY + b"\r\n0\r\n\r\n"), [200]),
    "coding_upper_case": (post(b"TRANSFER-ENCODING: Chunked\r\nConnection: close\r\n", b"10\r\n" + BODY + b"\r\n0\r\n\r\n"), [200]),
    "coding_spaces": (post(b"Transfer-Encoding:  chunked  \r\nConnection: close\r\n", b"10\r\n" + BODY + b"\r\n0\r\n\r\n"), [200]),
    "chunks_of_one": (post(CHUNKED + b"Connection: close\r\n", b"".join(b"1\r\n%c\r\n" % c for c in BODY) + b"0\r\n\r\n"), [200]),
    "chunk_leading_zeros": (post(CHUNKED + b"Connection: close\r\n", b"000010\r\n" + BODY + b"\r\n000\r\n\r\n"), [200]),
    "chunk_extension": (post(CHUNKED + b"Connection: close\r\n", b'10;a="b";c\r\n' + BODY + b"\r\n0;x\r\n\r\n"), [200]),
    "chunk_trailers": (post(CHUNKED + b"Connection: close\r\n", b"10\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\nX: y\r\n\r\n"), [200]),
    "get_with_body": (get(L % 16 + b"Connection: close\r\n") + BODY, [200]),
    "pipelined_two": (get() + get(b"Connection: close\r\n"), [200, 200]),
    "pipelined_body_then_get": (post(L % 16, BODY) + get(b"Connection: close\r\n"), [200, 200]),
    "pipelined_chunked_then_get": (post(CHUNKED, b"10\r\n" + BODY + b"\r\n0\r\n\r\n") + get(b"Connection: close\r\n"), [200, 200]),
    "pipelined_bad_second": (get() + b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", [200, 400]),
    "pipelined_not_found_goes_on": (get(line=b"GET /nowhere HTTP/1.1") + get(b"Connection: close\r\n"), [404, 200]),
    "refused_body_is_not_a_request": (post(L % len(SMUGGLED), SMUGGLED, b"POST /nowhere HTTP/1.1") + get(b"Connection: close\r\n"), [404, 200]),
    "after_close_nothing_is_read": (get(b"Connection: close\r\n") + SMUGGLED, [200]),
    "upgrade_is_ignored": (get(b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, close\r\n"), [200]),
    "own_origin": (get(b"Origin: http://localhost:8080\r\nConnection: close\r\n", host=b"Host: localhost:8080\r\n"), [200]),
}


def check_refused(data, want):
    got = raw_request(real().addr, data, 8)
    if not got:
        assert None in want, "no answer"
        return
    rs = parse_responses(got)
    eq(len(rs), 1, "answers")
    r = rs[0]
    assert r.status in want, f"{r.status} {r.body[:200]!r}, wanted one of {want}"
    e = r.error
    assert e["message"] and e["type"] and e["code"], e
    eq(r.header("content-type"), "application/json")
    assert r.header("x-request-id")
    eq((r.header("connection") or "").lower(), "close")
    if r.status == 405:
        assert r.header("allow")


def check_accepted(data, want):
    got = raw_request(real().addr, data, 8)
    eq([r.status for r in parse_responses(got)], want)


for name, (data, want) in REFUSED.items():
    if None not in want and want != {403}:
        add_test(f"hostile/{name}", lambda d=data, w=want: check_refused(d, w))
    elif want == {403}:
        def forbidden(d=data):
            with connect(real().addr) as c:
                c.send(d)
                r = c.response()
                eq(r.status, 403)
                r.error
        add_test(f"hostile/{name}", forbidden)
    else:
        def hangs(d=data, w=want):  # no whole head: an answer at once, or the head's deadline
            with connect(fake("--set", "server.head_s=1").addr) as c:
                c.send(d)
                got = c.rest(4)
                for r in parse_responses(got):
                    assert r.status in w | {408}, r
        add_test(f"hostile/{name}", hangs)
for name, (data, want) in ACCEPTED.items():
    add_test(f"hostile/{name}", lambda d=data, w=want: check_accepted(d, w))


@test
def every_cut_of_a_request_reads_the_same():
    """The gate sees bytes in whatever pieces the network makes of them."""
    data = post(CHUNKED, b'5;x=y\r\n{"con\r\nb\r\ntent":"hi"}\r\n0\r\nT: v\r\n\r\n') + get(b"Connection: close\r\n")
    d = real()
    whole = [(r.status, r.body) for r in parse_responses(raw_request(d.addr, data))]
    eq([s for s, _ in whole], [200, 200])
    for cut in range(1, len(data)):
        with connect(d.addr) as c:
            c.send(data[:cut])
            time.sleep(0.001)
            c.send(data[cut:])
            got = c.rest(5)
        eq([(r.status, r.body) for r in parse_responses(got)], whole, f"cut at {cut}")


@test
def every_byte_alone():
    data = post(CHUNKED, b'5;x=y\r\n{"con\r\nb\r\ntent":"hi"}\r\n0\r\nT: v\r\n\r\n') + get(b"Connection: close\r\n")
    with connect(real().addr) as c:
        for i in range(len(data)):
            c.send(data[i:i + 1])
        eq([r.status for r in parse_responses(c.rest(5))], [200, 200])


@test
def a_hundred_pipelined_requests_get_a_hundred_answers():
    data = b"".join(get() if i % 3 else post(L % 16, BODY) for i in range(99)) + get(b"Connection: close\r\n")
    eq([r.status for r in parse_responses(raw_request(real().addr, data, 10))], [200] * 100)


@test
def pipelined_bodies_larger_than_any_buffer():
    body = b"x" * 70_000
    one = post(L % len(body), body, b"POST /echo HTTP/1.1")
    data = one * 5 + get(b"Connection: close\r\n")
    rs = parse_responses(raw_request(fake().addr, data, 10))
    eq([r.status for r in rs], [200] * 6)
    assert all(r.body == body for r in rs[:5])


@test
def canary_beside_mutations():
    """Random damage to good requests: an answer or a closed connection, and a neighbour's request is never touched."""
    import random
    rng = random.Random(7)
    seeds = [v[0] for v in ACCEPTED.values()] + [v[0] for v in REFUSED.values() if len(v[0]) < 4000]
    d = fake("--set", "server.head_s=1")
    with connect(d.addr) as canary:
        for i in range(600):
            data = bytearray(rng.choice(seeds))
            for _ in range(rng.randrange(1, 5)):
                k = rng.randrange(len(data) + 1)
                what = rng.randrange(4)
                if what == 0 and data:
                    data[k % len(data)] = rng.choice(b"\r\n\0 :;,0aA\x0b\x7f\xff/")
                elif what == 1:
                    data[k:k] = rng.choice([b"\r\n", b"\n", b"\r", b" ", b"\0", b"0", b"Content-Length: 3\r\n", b"chunked", b"GET / HTTP/1.1\r\n"])
                elif what == 2:
                    del data[k:k + rng.randrange(1, 9)]
                else:
                    data[k:k] = data[k:k + rng.randrange(1, 40)]
            with connect(d.addr) as c:
                try:
                    c.send(bytes(data))
                except OSError:
                    pass
            if i % 20 == 0:
                canary.send_request("POST", "/echo", b"canary %d" % i)
                r = canary.response()
                eq((r.status, r.body), (200, b"canary %d" % i))


main()
