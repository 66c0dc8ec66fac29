#!/usr/bin/env python3
"""What a request may ask about its answer: several samples and one vote, best_of, token ids, the prompt's odds, other ends, a cut
prompt. Each is held against what the same daemon says when it is asked in another way."""
import json, os, sys

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import eq, main, shared_daemon, test

MODEL = "smollm2-135m-instruct-q4_1"
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"


def daemon():
    return shared_daemon(MODEL)


def ask(path=CHAT, status=200, **more):
    body = {"max_tokens": 24, "temperature": 0, **more}
    if path == CHAT:
        body.setdefault("messages", [{"role": "user", "content": "What is 12 + 5? Answer with a number."}])
    else:
        body.setdefault("prompt", "One, two, three, four,")
    r = daemon().post(path, body)
    eq(r.status, status, r.text[:400])
    return r.json()


def ids_of(text):
    return daemon().post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]


@test(seconds=60)
def samples_vote_and_the_vote_is_told():
    on = dict(temperature=0.8, seed=4, max_tokens=40)
    got = ask(**on, quern={"samples": 8, "select": "majority", "answer": "number"})
    eq(len(got["choices"]), 1)
    q = got["quern"]
    eq(q["samples"], 8)
    best = max(v["count"] for v in q["votes"]) if q["votes"] else 0
    assert 1 <= q["voted"] <= 8 and sum(v["count"] for v in q["votes"]) <= q["voted"], q
    if best:
        eq(next(v["count"] for v in q["votes"] if v["answer"] == q["selected"]), best)
        assert abs(q["agreement"] - best / q["voted"]) < 1e-5, q
        assert q["selected"].lstrip("-").split(".")[0] in got["choices"][0]["message"]["content"].replace(",", ""), got
    # The branches are those of n=8 with the same seed: the answer is one of them.
    eight = ask(**on, n=8)
    assert got["choices"][0]["message"]["content"] in [c["message"]["content"] for c in eight["choices"]]
    assert got["usage"]["completion_tokens"] <= eight["usage"]["completion_tokens"]
    assert got["usage"]["completion_tokens"] > 24
    eq(got["usage"]["prompt_tokens"], eight["usage"]["prompt_tokens"])
    eq(ask(**on, quern={"samples": 8, "select": "majority", "answer": "number"})["quern"], q)


@test(seconds=60)
def a_vote_that_is_decided_ends_the_others():
    # Greedy branches agree: after five of eight nothing can change; all end in the same step, so all are short.
    got = ask(quern={"samples": 8})
    eq(got["quern"]["agreement"], 1.0)
    eq(len(got["quern"]["votes"]), 1)
    eq(got["choices"][0]["message"]["content"], ask()["choices"][0]["message"]["content"])
    eq(daemon().metric("quern_requests_running"), 0)


def mean(choice):
    lp = choice["logprobs"]
    v = [e["logprob"] for e in lp["content"]] if "content" in lp else lp["token_logprobs"]
    return sum(v) / len(v)


@test(seconds=60)
def the_likeliest_is_selected():
    on = dict(temperature=1, seed=7, max_tokens=12)
    all_ = ask(PLAIN, **on, n=6, logprobs=0)["choices"]
    order = sorted(all_, key=lambda c: -mean(c))
    two = ask(PLAIN, **on, n=2, best_of=6)
    eq([c["text"] for c in two["choices"]], [c["text"] for c in order[:2]])
    eq([c["logprobs"] for c in two["choices"]], [None, None])
    eq([c["index"] for c in two["choices"]], [0, 1])
    eq(two["usage"]["completion_tokens"], sum(len(c["logprobs"]["tokens"]) for c in all_))
    one = ask(PLAIN, **on, quern={"samples": 6, "select": "mean_logprob"})
    eq(one["choices"][0]["text"], order[0]["text"])
    assert abs(one["quern"]["mean_logprob"] - mean(order[0])) < 1e-4
    both = ask(PLAIN, **on, n=1, best_of=3, prompt=["One, two,", "Red, green,"])
    eq(len(both["choices"]), 2)
    eq([c["text"] for c in both["choices"]], [max(ask(PLAIN, **on, n=3, logprobs=0, prompt=["One, two,", "Red, green,"])["choices"][3 * i:3 * i + 3], key=mean)["text"] for i in (0, 1)])


@test(seconds=60)
def a_valid_answer_is_selected():
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False}
    on = dict(temperature=1, seed=3, max_tokens=14, response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}})
    all_ = ask(**on, n=6, logprobs=True)["choices"]
    valid = [c for c in all_ if c["finish_reason"] == "stop"]
    assert valid, all_
    got = ask(**on, quern={"samples": 6, "select": "schema"})
    eq(got["choices"][0]["message"]["content"], max(valid, key=mean)["message"]["content"])
    eq(json.loads(got["quern"]["selected"]), json.loads(got["choices"][0]["message"]["content"]))
    eq(ask(status=400, quern={"samples": 2, "select": "schema"})["error"]["param"], "quern.select")
    eq(ask(PLAIN, status=400, prompt=["a", "b"], quern={"samples": 2})["error"]["param"], "quern.samples")


@test(seconds=60)
def token_ids_are_those_of_the_text():
    d = daemon()
    got = ask(return_token_ids=True, max_tokens=10)
    ids, prompt = got["choices"][0]["token_ids"], got["prompt_token_ids"]
    eq(len(ids), got["usage"]["completion_tokens"])
    eq(len(prompt), got["usage"]["prompt_tokens"])
    eq(d.post("/detokenize", {"tokens": ids}).json()["prompt"].replace("<|im_end|>", ""), got["choices"][0]["message"]["content"])
    again = ask(PLAIN, prompt=prompt, max_tokens=10, return_token_ids=True)["choices"][0]
    eq(again["prompt_token_ids"], prompt)
    eq(again["token_ids"], ids)
    events = [e.json() for e in d.stream(CHAT, {"messages": [{"role": "user", "content": "What is 12 + 5? Answer with a number."}], "max_tokens": 10, "temperature": 0, "stream": True,
                                                "return_token_ids": True}) if not e.done]
    eq(events[0]["prompt_token_ids"], prompt)
    eq([t for e in events for c in e["choices"] for t in c.get("token_ids", [])], ids)
    events = [e.json() for e in d.stream(PLAIN, {"prompt": prompt, "max_tokens": 10, "temperature": 0, "stream": True, "return_token_ids": True}) if not e.done]
    eq(events[0]["choices"][0]["prompt_token_ids"], prompt)
    eq([t for e in events for c in e["choices"] for t in c.get("token_ids", [])], ids)


@test
def tokens_may_be_called_by_their_ids():
    named = ask(logprobs=True, top_logprobs=2, max_tokens=4, return_tokens_as_token_ids=True, return_token_ids=True)["choices"][0]
    eq([e["token"] for e in named["logprobs"]["content"]], [f"token_id:{i}" for i in named["token_ids"]])
    assert all(t["token"].startswith("token_id:") for e in named["logprobs"]["content"] for t in e["top_logprobs"])
    plain = ask(PLAIN, logprobs=1, max_tokens=4, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert all(t.startswith("token_id:") for t in plain["tokens"])
    assert all(k.startswith("token_id:") for m in plain["top_logprobs"] for k in m)


@test
def prompt_logprobs_are_the_echos():
    echo = ask(PLAIN, echo=True, logprobs=3, max_tokens=1)["choices"][0]["logprobs"]
    got = ask(PLAIN, prompt_logprobs=3, max_tokens=1, return_token_ids=True)["choices"][0]
    rows, ids = got["prompt_logprobs"], got["prompt_token_ids"]
    eq(len(rows), len(ids))
    eq(rows[0], None)
    for i in range(1, len(ids)):
        row = rows[i]
        eq(row[str(ids[i])]["logprob"], echo["token_logprobs"][i])
        eq({v["decoded_token"]: v["logprob"] for v in row.values()}, echo["top_logprobs"][i])
        by_rank = sorted(row.values(), key=lambda v: v["rank"])
        eq([v["rank"] for v in by_rank][:3], [1, 2, 3])
        assert all(a["logprob"] >= b["logprob"] for a, b in zip(by_rank, by_rank[1:]))
    chat = ask(prompt_logprobs=0, max_tokens=1)
    eq([len(r) for r in chat["prompt_logprobs"][1:]], [1] * (chat["usage"]["prompt_tokens"] - 1))
    both = ask(PLAIN, echo=True, logprobs=1, prompt_logprobs=4, max_tokens=1)["choices"][0]
    assert max(len(m) for m in both["logprobs"]["top_logprobs"][1:]) <= 2


@test
def a_stop_string_may_stay():
    plain = ask(PLAIN, max_tokens=30)["choices"][0]["text"]
    cut = ask(PLAIN, max_tokens=30, stop=["six"])["choices"][0]
    eq(cut["text"], plain[:plain.index("six")])
    for name in ("include_stop_str_in_output", "no_stop_trim"):
        kept = ask(PLAIN, max_tokens=30, stop=["six"], **{name: True})["choices"][0]
        eq(kept["text"], cut["text"] + "six")
        eq((kept["finish_reason"], kept["stop_reason"]), ("stop", "six"))
    comma = ids_of(",")[0]
    one = ask(PLAIN, stop_token_ids=[comma], include_stop_str_in_output=True)["choices"][0]
    assert one["text"].endswith(","), one
    eq(one["stop_reason"], comma)


@test
def a_regular_expression_ends_an_answer():
    plain = ask(PLAIN, max_tokens=30)["choices"][0]["text"]
    got = ask(PLAIN, max_tokens=30, stop_regex="s[a-z]+n")["choices"][0]
    end = plain.index("seven") + 5
    eq(got["text"], plain[:end])
    eq((got["finish_reason"], got["stop_reason"]), ("stop", "s[a-z]+n"))
    events = [e.json() for e in daemon().stream(PLAIN, {"prompt": "One, two, three, four,", "max_tokens": 30, "temperature": 0, "stream": True, "stop_regex": ["zz+", "s[a-z]+n"]}) if not e.done]
    eq("".join(c["text"] for e in events for c in e["choices"]), plain[:end])
    eq(ask(PLAIN, max_tokens=30, stop_regex="q{9}x")["choices"][0]["text"], plain)
    eq(ask(status=400, stop_regex="(a" )["error"]["param"], "stop_regex")
    ask(status=400, stop_regex="((((a{1,1000}){1,1000}){1,1000}){1,1000})b" * 3)


@test(seconds=60)
def a_loop_is_noticed():
    def run(sizes, count, **on):
        c = ask(PLAIN, max_tokens=60, ignore_eos=True, return_token_ids=True, **on,
                repetition_detection={"max_pattern_size": sizes[1], "min_pattern_size": sizes[0], "min_count": count})["choices"][0]
        return c["token_ids"], c["finish_reason"], c["stop_reason"]

    one, two = ids_of(" yes no")
    for sizes, n in (((1, 3), 6), ((2, 5), 12), ((3, 3), 18), ((5, 9), 30)): # n: the shortest that is six times something
        eq(run(sizes, 6, allowed_token_ids=[one]), ([one] * n, "stop", "repetition"), str(sizes))
    eq(run((9, 11), 6, allowed_token_ids=[one])[1], "stop")
    eq(run((11, 12), 6, allowed_token_ids=[one])[1], "length")
    eq(run((1, 3), 6, allowed_token_ids=[one], min_tokens=20)[0], [one] * 21)
    # Two ids that may not come twice in a row alternate: a pattern of two, and none of one or three.
    twice = dict(allowed_token_ids=[one, two], bad_words=["yes yes", "no no", " yes yes", " no no"])
    eq(len(run((2, 2), 4, **twice)[0]), 8)
    eq(run((1, 1), 2, **twice)[1], "length")
    eq(run((3, 3), 2, **twice)[1], "length")
    eq(run((0, 0), 0, allowed_token_ids=[one])[1], "length")


@test
def prompts_are_cut_on_the_side_that_is_named():
    ids = list(range(100, 140))
    for more, want in (({"truncate_prompt_tokens": 7}, ids[-7:]), ({"truncate_prompt_tokens": 7, "truncation_side": "right"}, ids[:7]), ({"truncate_prompt_tokens": -1}, ids),
                       ({"truncate_prompt_tokens": 100}, ids)):
        got = ask(PLAIN, prompt=ids, max_tokens=1, return_token_ids=True, **more)
        eq(got["choices"][0]["prompt_token_ids"], want)
        eq(got["usage"]["prompt_tokens"], len(want))
    long = [200] * 9000
    eq(ask(PLAIN, prompt=long, max_tokens=4, truncate_prompt_tokens=20)["usage"]["prompt_tokens"], 20)
    ask(PLAIN, prompt=long, max_tokens=4, status=400)
    eq(ask(PLAIN, prompt=ids, truncate_prompt_tokens=0, status=400)["error"]["param"], "truncate_prompt_tokens")
    eq(ask(PLAIN, prompt=ids, truncate_prompt_tokens=9000, status=400)["error"]["param"], "truncate_prompt_tokens")
    got = ask(PLAIN, prompt="One, two, three, four, five", max_tokens=1, truncate_prompt_tokens=2, echo=True)
    assert got["choices"][0]["text"].startswith(" five") or got["choices"][0]["text"].startswith(", five"), got


main()
