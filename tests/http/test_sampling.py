#!/usr/bin/env python3
"""Request members that shape the draw, through the daemon on a real model: each is honoured, its range is checked by name,
and "off" is what each peer sends for it."""
import os, sys

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import eq, main, shared_daemon, test

MODEL = "smollm2-135m-instruct-q4_1"


def daemon():
    return shared_daemon(MODEL)


def ask(path="/v1/chat/completions", status=200, **more):
    body = {"max_tokens": 24, "temperature": 0, **more}
    body.setdefault(*(("messages", [{"role": "user", "content": "Count from one to nine."}]) if "chat" in path else ("prompt", "One, two, three,")))
    r = daemon().post(path, body)
    eq(r.status, status, r.text[:400])
    return r.json()


def text(**more):
    return ask(**more)["choices"][0]["message"]["content"]


@test(seconds=60)
def bad_words_never_appear():
    question = {"messages": [{"role": "user", "content": "Describe the sea in one sentence."}]}
    plain = text(**question)
    word = next(w for w in plain.split() if w.isalpha() and len(w) > 3)
    without = text(**question, bad_words=[word])
    assert word not in without, (word, without)
    assert without != plain


@test(seconds=60)
def only_allowed_ids_come():
    ids = daemon().post("/tokenize", {"prompt": " yes no", "add_special_tokens": False}).json()["tokens"]
    got = ask(allowed_token_ids=ids, temperature=1.5, seed=3, max_tokens=12)["choices"][0]["message"]["content"]
    assert set(got.split()) <= {"yes", "no"} and got.strip(), got


@test(seconds=60)
def off_is_off_in_every_peers_spelling():
    plain = text()
    for more in ({"typical_p": 1.0}, {"typical": 1}, {"top_n_sigma": -1}, {"xtc_probability": 0, "xtc_threshold": 0.1}, {"dynatemp_range": 0}, {"mirostat": 0, "mirostat_tau": 5},
                 {"dry_multiplier": 0.0, "dry_base": 1.75}, {"dry_multiplier": 1, "dry_penalty_last_n": 0}, {"repetition_penalty": 1.8, "repeat_last_n": 0},
                 {"bad_words": []}, {"min_keep": 0}):
        eq(text(**more), plain, str(more))


@test(seconds=60)
def each_changes_the_draw_and_repeats_with_its_seed():
    on = {"temperature": 1.1, "seed": 12}
    plain = text(**on)
    for more in ({"typical_p": 0.3}, {"top_n_sigma": 0.5}, {"xtc_probability": 1, "xtc_threshold": 0.05}, {"dynatemp_range": 0.9}, {"mirostat": 1, "mirostat_tau": 1},
                 {"mirostat": 2, "mirostat_tau": 2}, {"dry_multiplier": 5, "dry_allowed_length": 0, "dry_sequence_breakers": []}):
        got = text(**on, **more)
        assert got != plain, more
        eq(text(**on, **more), got, str(more))


@test
def ranges_are_named():
    for member, value in (("typical_p", 0), ("typical_p", 1.5), ("xtc_probability", 2), ("xtc_threshold", -0.1), ("mirostat", 3), ("mirostat", 1.5), ("mirostat_tau", -1), ("dry_base", 0.5),
                          ("dry_multiplier", -1), ("dry_allowed_length", -1), ("min_keep", -1), ("repeat_last_n", -2), ("top_n_sigma", 1000), ("dynatemp_range", 3),
                          ("bad_words", "x"), ("allowed_token_ids", [10**9]), ("dry_sequence_breakers", [""])):
        e = ask(status=400, **{member: value})["error"]
        assert e["param"].startswith(member), (member, e)
    eq(ask(status=400, bad_words=["ok", "  "])["error"]["param"], "bad_words[1]")
    eq(ask(status=400, allowed_token_ids=[])["error"]["param"], "allowed_token_ids")
    eq(ask(status=400, bad_words=["a " * 500] * 12)["error"]["param"], "bad_words")


main()
