#!/usr/bin/env python3
"""Beam search against transformers (tests/vectors/beams.json, made by make_beams.py): the same answers in the same order, on the
backend that computes in plain float. And what it does not go with is refused by name."""
import json, os, sys

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import ROOT, eq, main, shared_daemon, test

PLAIN = "/v1/completions"


def daemon(model):
    return shared_daemon(os.path.join(ROOT, f"tests/data/{model}.gguf"), ["--device", "cpu-ref", "--ctx", "512"])


def agree(model):
    cases = [c for c in json.load(open(os.path.join(ROOT, "tests/vectors/beams.json"))) if c["model"] == model]
    assert len(cases) >= 5, len(cases)
    for c in cases:
        for n in {c["beams"], 1}:  # n of best_of: the best of as many beams
            r = daemon(model).post(PLAIN, {"prompt": c["prompt"], "max_tokens": c["max_tokens"], "n": n, "best_of": c["beams"], "use_beam_search": True, "length_penalty": c["length_penalty"],
                                           "early_stopping": c["early_stopping"], "stop_token_ids": c["stop"], "return_token_ids": True})
            eq(r.status, 200, r.text)
            got = r.json()
            eq([x["token_ids"] for x in got["choices"]], c["answers"][:n], json.dumps(c)[:600])
            eq([x["finish_reason"] for x in got["choices"]], ["stop" if a[-1] in [0, 2] + c["stop"] else "length" for a in c["answers"][:n]])
            eq(got["usage"]["completion_tokens"], sum(map(len, c["answers"][:n])))


@test(seconds=120)
def tiny_llama_finds_what_transformers_finds():
    agree("tiny-llama")


@test(seconds=120)
def tiny_qwen2_finds_what_transformers_finds():
    agree("tiny-qwen2")


@test
def one_beam_is_greedy():
    d = daemon("tiny-llama")
    body = {"prompt": [40, 41, 42, 43], "max_tokens": 30, "temperature": 0, "return_token_ids": True}
    eq(d.post(PLAIN, {**body, "use_beam_search": True}).json()["choices"][0]["token_ids"], d.post(PLAIN, body).json()["choices"][0]["token_ids"])
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
    eq(d.post("/v1/chat/completions", {**chat, "use_beam_search": True}).json()["choices"], d.post("/v1/chat/completions", chat).json()["choices"])
    eq(d.metric("quern_requests_running"), 0)


@test
def what_it_would_ignore_is_refused():
    d = daemon("tiny-llama")
    for more, param in (({"stream": True}, "stream"), ({"temperature": 0.5}, "temperature"), ({"logprobs": 1}, "logprobs"), ({"stop": "x"}, "stop"), ({"top_p": 0.5}, "top_p"),
                        ({"logit_bias": {"5": 1}}, "logit_bias"), ({"n": 11, "best_of": 11}, "best_of"), ({"prompt": ["a", "b"]}, "use_beam_search"), ({"max_tokens": 0}, "max_tokens"),
                        ({"response_format": {"type": "json_object"}}, "use_beam_search"), ({"quern": {"samples": 2}}, "quern.samples"), ({"early_stopping": "x"}, "early_stopping"),
                        ({"stop_token_ids": list(range(50, 64)), "n": 2}, "stop_token_ids"), ({"use_beam_search": False, "length_penalty": 2}, "length_penalty"),
                        ({"use_beam_search": False, "early_stopping": True}, "early_stopping")):
        r = d.post(PLAIN, {"prompt": "a", "max_tokens": 4, "use_beam_search": True, **more})
        eq((r.status, r.json()["error"]["param"]), (400, param), str(more))


main()
