#!/usr/bin/env python3
"""curl in the ways that people and scripts use it: each test is a command line, judged by curl's own exit code and by what
it printed. (The README's curl lines are run by test_readme.py.)"""
import json, subprocess

from qtest import SseParser, eq, main, shared_daemon, test, text_of

CHAT = {"messages": [{"role": "user", "content": "Say something."}], "max_tokens": 6, "temperature": 0, "ignore_eos": True}


def daemon():
    return shared_daemon("tiny", both=True)


def curl(*args, path="/v1/chat/completions", body=None, code=0, stdin=None):
    """(status, headers as text, body bytes) of the last reply."""
    cmd = ["curl", "-sS", "-m", "30", "-i", *args]
    if body is not None:
        cmd += ["-H", "Content-Type: application/json", "--data-binary", body if isinstance(body, str) else json.dumps(body)]
    r = subprocess.run(cmd + [f"{daemon().url}{path}"], capture_output=True, timeout=40, input=stdin)
    eq(r.returncode, code, r.stderr.decode())
    out = r.stdout
    while True:  # interim replies stand before the last one
        head, _, rest = out.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status >= 200:
            return status, head.decode().lower(), rest
        out = rest


def content(reply):
    status, _, body = reply
    eq(status, 200, body[:300])
    return json.loads(body)["choices"][0]["message"]["content"]


@test
def plain_and_over_the_unix_socket_answer_alike():
    want = content(curl(body=CHAT))
    eq(content(curl("--unix-socket", daemon().unix_addr, body=CHAT)), want)


@test
def http10_gets_an_unframed_stream():
    status, head, body = curl("--http1.0", "-N", body=dict(CHAT, stream=True))
    eq(status, 200)
    assert "transfer-encoding" not in head and "text/event-stream" in head, head
    events = list(SseParser().feed(body))
    assert events[-1].done
    eq(text_of(events), content(curl(body=CHAT)))


@test
def a_large_body_waits_for_100_continue():
    long = dict(CHAT, messages=[{"role": "user", "content": "word " * 40}], metadata={"k": "x" * 500}, user="u" * 64)
    text = json.dumps(long) + " " * 1_100_000  # curl asks first above 1 MB
    with subprocess.Popen(["curl", "-sS", "-v", "-m", "30", "-H", "Content-Type: application/json", "--data-binary", "@-",
                           daemon().url + "/v1/chat/completions"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        out, err = p.communicate(text.encode())
    assert b"HTTP/1.1 100" in err and json.loads(out)["choices"], (out[-200:], err[-600:])


@test
def a_chunked_upload_is_read():
    eq(content(curl("-H", "Transfer-Encoding: chunked", body=CHAT)), content(curl(body=CHAT)))


@test
def connections_are_reused():
    url = daemon().url
    r = subprocess.run(["curl", "-sS", "-v", *[url + "/health"] * 20], capture_output=True, text=True, timeout=20)
    eq(r.returncode, 0)
    eq(r.stdout.count("ok"), 20)
    eq(r.stderr.count("Connected to"), 1, "twenty requests, one connection")


@test
def an_upgrade_to_http2_is_left_aside():
    status, head, _ = curl("--http2", path="/health")
    eq(status, 200)
    assert head.startswith("http/1.1"), head


@test
def compression_may_be_asked_for():
    status, _, body = curl("--compressed", path="/v1/models")
    eq((status, json.loads(body)["object"]), (200, "list"))


@test
def head_has_no_body():
    r = subprocess.run(["curl", "-sS", "-I", "-m", "10", daemon().url + "/health"], capture_output=True, text=True)
    eq(r.returncode, 0, r.stderr)
    assert r.stdout.startswith("HTTP/1.1 200"), r.stdout


@test
def mistakes_are_objects_with_the_right_status():
    for want, kw in ((400, dict(body="{")), (400, dict(body="[]")), (400, dict(body="")), (404, dict(path="/v1/nothing")),
                     (405, dict(path="/v1/chat/completions")), (404, dict(body=dict(CHAT, model="none"))),
                     (405, dict(path="/v1/models", body={}))):
        status, head, body = curl(**kw)
        e = json.loads(body)["error"]
        eq(status, want, f"{kw}: {e}")
        assert isinstance(e["message"], str) and e["message"] and "code" in e and "param" in e and e["type"], e
        assert "content-type: application/json" in head and "x-request-id: " in head, head
        assert want != 405 or "\nallow: " in head, head


@test
def a_form_is_refused():
    status, _, body = curl("-d", "a=b")
    eq(status, 415, body)
    assert json.loads(body)["error"]["message"]


@test
def fail_with_body_sees_the_error():
    status, _, body = curl("--fail-with-body", body=dict(CHAT, temperature=-1), code=22)
    eq((status, json.loads(body)["error"]["param"]), (400, "temperature"))


main()
