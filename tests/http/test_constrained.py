#!/usr/bin/env python3
"""A form of the answer together with everything else that a request may ask for: several streamed branches, logprobs, seeds, stop strings, bans, bounds,
a full KV pool; and a form that uses up its memory. On the random model, whose text is noise wherever the form leaves a choice; Python's re and json
are the yardsticks."""
import json, os, re, sys, threading

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import Daemon, eq, main, shared_daemon, test, text_of

CHAT = "/v1/chat/completions"
WORD = "[a-z]{5,40}"
ROWS = {"type": "array", "minItems": 3, "maxItems": 5, "items": {
    "type": "object", "properties": {"id": {"type": "integer", "minimum": 0, "maximum": 99}, "state": {"enum": ["on", "off", "unknown"]},
                                     "size": {"type": ["number", "null"], "minimum": -1, "maximum": 1, "multipleOf": 0.25}},
    "required": ["id", "state", "size"], "additionalProperties": False}}
# Each text needs another state at nearly every byte: an automaton of it has 2^500 of them.
GREEDY_OF_MEMORY = "[ab]*a[ab]{500}"


def daemon():
    return shared_daemon("tiny", ("--ctx", "4096"))


def body(**more):
    return {"messages": [{"role": "user", "content": "Say something."}], "max_tokens": 300, "temperature": 1, "seed": 7, **more}


def ask(status=200, to=None, **more):
    r = (to or daemon()).post(CHAT, body(**more), timeout=90)
    eq(r.status, status, r.text[:400])
    return r.json()


def texts(reply):
    return [c["message"]["content"] for c in sorted(reply["choices"], key=lambda c: c["index"])]


def check_rows(text):
    rows = json.loads(text)
    assert 3 <= len(rows) <= 5, text
    for x in rows:
        eq(list(x), ["id", "state", "size"])
        assert type(x["id"]) is int and 0 <= x["id"] <= 99 and x["state"] in ("on", "off", "unknown"), text
        assert x["size"] is None or -1 <= x["size"] <= 1 and x["size"] * 4 == int(x["size"] * 4), text


@test(seconds=60)
def streamed_branches_with_logprobs_are_the_whole_answers_and_repeat():
    for form in ({"regex": WORD}, {"json_schema": ROWS}):
        wish = {**form, "n": 3, "logprobs": True, "top_logprobs": 2}
        whole = ask(**wish)
        eq(texts(ask(**wish)), texts(whole), "the same seed")
        assert len(set(texts(whole))) == 3, "three branches draw alike"
        events = list(daemon().stream(CHAT, body(**wish, stream=True)))
        assert events[-1].done
        for c in whole["choices"]:
            i, text = c["index"], c["message"]["content"]
            eq(c["finish_reason"], "stop")
            eq(text_of(events, i), text)
            if "regex" in form:
                assert re.fullmatch(WORD, text), text
            else:
                check_rows(text)
            said = b"".join(bytes(t["bytes"]) for t in c["logprobs"]["content"]).decode()
            assert said.startswith(text), (said, text)
            assert all(t["logprob"] <= 0 and len(t["top_logprobs"]) == 2 for t in c["logprobs"]["content"])


@test(seconds=60)
def a_stop_string_may_cut_an_answer_anywhere():
    c = ask(regex="abcde[0-9]{3}fghij", stop=["f"])["choices"][0]
    assert re.fullmatch("abcde[0-9]{3}", c["message"]["content"]), c
    eq((c["finish_reason"], c["stop_reason"]), ("stop", "f"))
    c = ask(json_schema={"const": {"a": 1}}, stop=["1"])["choices"][0] # not JSON, and no error either: so it was asked for
    assert re.fullmatch(r'\{\s*"a"\s*:\s*', c["message"]["content"]), c


@test(seconds=60)
def an_answer_is_cut_at_max_tokens_and_says_so():
    for form in ({"regex": "[a-c]{500}"}, {"json_schema": {"type": "string", "minLength": 500}}):
        r = ask(**form, max_tokens=10)
        eq(r["choices"][0]["finish_reason"], "length")
        eq(r["usage"]["completion_tokens"], 10)
    for n in range(1, 9): # wherever that falls, inside certain tokens too
        c = ask(regex="certainly (yes|no)", max_tokens=n)["choices"][0]
        whole = c["finish_reason"] == "stop"
        assert re.fullmatch("certainly (yes|no)", c["message"]["content"]) if whole else "certainly yes".startswith(c["message"]["content"][:11]), c


@test(seconds=60)
def the_form_ends_an_answer_whatever_else_wants_more():
    for more in ({"ignore_eos": True}, {"min_tokens": 50}, {"ignore_eos": True, "min_tokens": 50}):
        for form, pattern in (({"regex": "[a-c]{5}"}, "[a-c]{5}"), ({"json_schema": {"const": True}}, "true"), ({"guided_choice": ["x"]}, "x")):
            c = ask(**form, **more)["choices"][0]
            eq(c["finish_reason"], "stop")
            assert re.fullmatch(pattern, c["message"]["content"]), c
    c = ask(regex="[a-c]*", min_tokens=50)["choices"][0] # where it may end, min_tokens keeps it from it
    assert len(c["message"]["content"]) >= 25, c
    r = ask(regex="[a-c]*", ignore_eos=True, max_tokens=40)
    eq((r["choices"][0]["finish_reason"], r["usage"]["completion_tokens"]), ("length", 40))


@test(seconds=60)
def what_a_form_needs_and_bans_forbid_is_an_error_by_name():
    only = daemon().post("/tokenize", {"prompt": "z", "add_special_tokens": False}).json()["tokens"]
    for form in ({"regex": "[ab]a{3}"}, {"regex": "aaa"}, {"json_schema": {"const": "a"}}):
        for ban in ({"bad_words": ["a"]}, {"allowed_token_ids": only}):
            if "json_schema" in form and "bad_words" in ban:
                continue # "\u0061" is left
            r = daemon().post(CHAT, body(**form, **ban))
            eq((r.status, r.error["code"]), (400, "invalid_value"), r.text)
            assert "bad_words" in r.error["message"], r.text
    with daemon().connect() as c:
        c.send_request("POST", CHAT, body(regex="[ab]a{3}", bad_words=["a"], stream=True))
        got = c.rest(10)
        assert b'"code":"invalid_value"' in got and b"[DONE]" not in got, got
    a = daemon().post("/tokenize", {"prompt": "a", "add_special_tokens": False}).json()["tokens"][0]
    eq(texts(ask(regex="[ab]a{3}", logit_bias={str(a): -100}))[0][1:], "aaa") # a bias weighs; it forbids nothing


@test(seconds=120)
def what_others_left_behind_changes_no_answer():
    """The prefix cache, shared constraints, and streams beside it: the same request always has the same answer."""
    wish = {"json_schema": ROWS, "messages": [{"role": "user", "content": "A long and shared beginning of a prompt. " * 20}]}
    first, got = texts(ask(**wish)), []
    again = ask(**wish)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    eq(texts(again), first)
    threads = [threading.Thread(target=lambda i=i: got.append((i % 2, texts(ask(**{**wish, "seed": 7 if i % 2 else i}))))) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    eq(len(got), 12)
    for same, text in got:
        check_rows(text[0])
        assert not same or text == first


@test(seconds=120)
def answers_survive_losing_their_blocks():
    """A pool too small for all: some give up their blocks and are computed again, and nobody can tell from the answers."""
    wish, alone, got = {"regex": "[a-z]{300}", "max_tokens": 400}, {}, {}
    with Daemon("tiny", ["--ctx", "512", "--set", "engine.kv_bytes=" + "128K"]) as d:
        for seed in range(6):
            alone[seed] = texts(ask(to=d, seed=seed, **wish))[0]
        before = d.metric("quern_preemptions_total")
        for _ in range(20): # they may miss each other
            threads = [threading.Thread(target=lambda s=seed: got.__setitem__(s, texts(ask(to=d, seed=s, **wish))[0])) for seed in range(6)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            eq(got, alone)
            if d.metric("quern_preemptions_total") > before:
                break
        assert d.metric("quern_preemptions_total") > before, "the pool was large enough: the test proves nothing"
    for text in got.values():
        assert re.fullmatch("[a-z]{300}", text), text


@test(seconds=240)
def a_form_that_used_up_its_memory_fails_alone():
    """Answers share a compiled form and what it learned; one answer takes about 8 MB of its 64 here. None may fail for what others took."""
    done = 0
    for seed in range(24):
        c = ask(regex=GREEDY_OF_MEMORY, seed=seed, max_tokens=1500)["choices"][0]
        done += c["finish_reason"] == "stop"
        assert re.fullmatch(GREEDY_OF_MEMORY if c["finish_reason"] == "stop" else "[ab]*", c["message"]["content"]), c
    assert done > 6
    assert daemon().metric("quern_constraints_bytes") < 256 << 20


@test(seconds=240)
def one_answer_that_takes_too_much_is_told_so():
    hungry = {"regex": "|".join(f"[ab]*a[ab]{{2000}}c{{{i}}}" for i in range(1, 9)), "max_tokens": 1900}
    r = daemon().post(CHAT, body(**hungry), timeout=120)
    eq((r.status, r.error["code"], r.error["param"]), (500, "structured_output_limit", "regex"), r.text)
    with daemon().connect(timeout=120) as c:
        c.send_request("POST", CHAT, body(**hungry, stream=True))
        got = c.rest(100)
        assert b'"code":"structured_output_limit"' in got and b"[DONE]" not in got, got[-400:]
    assert re.fullmatch("[ab]*", texts(ask(**{**hungry, "max_tokens": 200}))[0]) # the next one starts anew
    eq(texts(ask(regex="b{3}")), ["bbb"])


main()
