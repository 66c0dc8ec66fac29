#!/usr/bin/env python3
"""The n-th allocation fails: at the start quernd ends with a line and a code of sysexits, in a request the client gets an
error or a closed connection, and the next client gets the same answer as before. Never a signal, never a hang.

failing.c is preloaded; the countdown lies in a file that this test maps too. Sanitizers bring allocators of their own, so
their builds are left out."""
import os, subprocess

from fault import Fault, spread
from qtest import QUERND, Daemon, connect, eq, free_port, main, model_path, sse_parse, test, text_of

CHAT = {"messages": [{"role": "user", "content": "Say something about mills."}], "max_tokens": 8, "temperature": 0,
        "ignore_eos": True, "logprobs": True, "top_logprobs": 2, "stop": ["\u0001"], "logit_bias": {"5": -1}}
EXITS = {0, 64, 65, 66, 69, 70, 71, 74, 78}


@test(seconds=240)
def a_start_without_memory_ends_with_a_reason():
    f = Fault()
    big = 1 << 40
    f.arm(big)
    with Daemon(env=f.env):
        n = big - f.left
    assert n > 50, n
    aborts = []
    for at in spread(n, 60):
        f.arm(at)
        p = subprocess.Popen([QUERND, "--model", model_path("tiny"), "--listen", f"127.0.0.1:{free_port()}"], env={**os.environ, **f.env},
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, err = p.communicate(timeout=1.5)
        except subprocess.TimeoutExpired:  # it did without: then it serves and ends well
            p.terminate()
            _, err = p.communicate(timeout=20)
        if p.returncode == -6:
            aborts.append(at)
            continue
        assert p.returncode in EXITS, f"allocation {at} of {n}: ended with {p.returncode}\n{err[-2000:]}"
        if p.returncode:
            assert err.strip(), f"allocation {at} of {n}: exit {p.returncode} without a word"
    # libuv aborts when pthread_atfork has no memory (uv_signal_init, as of 1.44); that is one place, before anything serves.
    assert len(aborts) <= 1, f"aborted at allocations {aborts} of {n}"


def request(d, path, body):
    """The reply's status and text; (None, what came) when the connection ended early."""
    with connect(d.addr, 10) as c:
        try:
            c.send_request("POST", path, body)
            r = c.response()
        except (AssertionError, ConnectionResetError, BrokenPipeError) as e:
            return None, str(e)
        return r.status, r


def answer(d, path, body, when=""):
    status, r = request(d, path, body)
    eq(status, 200, f"{when}: {r}")
    if not body.get("stream"):
        return r.json()["choices"]
    events = sse_parse(r.body)  # how the text is cut into events is a matter of timing
    assert events[-1].done, r
    return [text_of(events, i) for i in range(body.get("n", 1))]


def survive(path, body, points):
    f = Fault()
    with Daemon(env=f.env) as d:
        want = answer(d, path, body)
        eq(answer(d, path, body), want, "the same request twice")
        big = 1 << 40
        f.arm(big)
        answer(d, path, body)
        n = big - f.left
        f.arm(0)
        failed = 0
        for at in spread(n, points):
            f.arm(at)
            status, r = request(d, path, body)
            f.arm(0)
            assert d.running(), f"allocation {at} of {n}: quernd ended with {d.proc.returncode}\n{d.log_tail()}"
            if status and status >= 400:
                assert r.error["message"], r
                failed += 1
            elif status is None:
                failed += 1
            when = f"after the failure of allocation {at} of {n}, which gave {status}"
            eq(answer(d, path, body, when), want, when)
        eq(d.metric("vllm:num_requests_running"), 0)
        assert failed > 0, f"none of {n} allocations mattered: is the fault armed?"


@test(seconds=240)
def a_request_without_memory_is_refused_alone():
    survive("/v1/chat/completions", CHAT, 120)


@test(seconds=240)
def a_stream_without_memory_ends_alone():
    survive("/v1/chat/completions", dict(CHAT, stream=True, n=2, stream_options={"include_usage": True}), 120)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "required": ["a"],
                                                                        "additionalProperties": False}}}]
CALLED = [{"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"a\": \"b\"}"}}]},
          {"role": "tool", "tool_call_id": "a", "content": "c"}]


@test(seconds=240)
def a_call_without_memory_is_refused_alone():
    survive("/v1/chat/completions", {"messages": CHAT["messages"] + CALLED, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0,
                                     "max_tokens": 40, "stream": True}, 120)


@test(seconds=120)
def a_completion_without_memory_is_refused_alone():
    survive("/v1/completions", {"prompt": ["One two", "three"], "max_tokens": 4, "temperature": 0, "echo": True, "logprobs": 2}, 80)


@test(seconds=60)
def no_memory_at_all_for_a_while():
    """Every allocation fails during one request: it ends somehow, and what comes after is as before."""
    f = Fault()
    with Daemon(env=f.env) as d:
        want = answer(d, "/v1/chat/completions", CHAT)
        for at in (1, 3, 10, 30, 100):
            f.arm(at, 1)
            request(d, "/v1/chat/completions", CHAT)
            f.arm(0, 0)
            assert d.running(), d.log_tail()
            eq(answer(d, "/v1/chat/completions", CHAT), want)


main()
