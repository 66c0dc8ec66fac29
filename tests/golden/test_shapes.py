#!/usr/bin/env python3
"""The wanted replies of tests/golden against the types that the openai package publishes: strictly, so that a misspelt or
wrongly typed member fails, and with the members that it does not know listed here."""
import glob, json, os

from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from qtest import ROOT, add_test, eq, main

# Ours beside OpenAI's: peers' spellings that their clients read, and OpenAI's own that the package does not type.
EXTRAS = {"stop_reason", "reasoning_content", "reasoning", "root", "parent", "max_model_len", "context_length", "permission", "architecture", "status", "meta"}


def nulls_allowed(v, chunk=False):
    """Where OpenAI itself sends null although its type says otherwise: the log-probability of a prompt's first token, and the
    finish_reason of completions' chunks, which share the type of the whole answer."""
    if isinstance(v, dict) and v.get("object") == "text_completion":
        for c in v["choices"]:
            if chunk and c["finish_reason"] is None:
                c["finish_reason"] = "stop"
            lp = c.get("logprobs") or {}
            for k in ("token_logprobs", "top_logprobs"):
                if lp.get(k) and lp[k][0] is None:
                    lp[k][0] = 0.0 if k == "token_logprobs" else {}
    return v


def check_extras(m, path=""):
    for k in (m.model_extra or {}):
        assert k in EXTRAS, f"{path}.{k} is no member of {type(m).__name__}"
    for k, v in m:
        for x in v if isinstance(v, list) else [v]:
            if hasattr(x, "model_extra"):
                check_extras(x, f"{path}.{k}")


def check(kind, v, chunk=False):
    m = kind.model_validate(nulls_allowed(v, chunk), strict=True)
    check_extras(m)
    return m


def is_error(v):
    eq(list(v), ["error"])
    eq(set(v["error"]), {"message", "type", "param", "code"})
    assert all(isinstance(v["error"][k], str) and v["error"][k] for k in ("message", "type", "code"))


KINDS = {"chat.completion": ChatCompletion, "text_completion": Completion, "chat.completion.chunk": ChatCompletionChunk, "model": Model}


def whole(path):
    d = json.load(open(path))
    v = d["body"]
    if d["status"] >= 400:
        return is_error(v)
    for x in v["data"] if v.get("object") == "list" else [v]:
        if "object" in x:
            check(KINDS[x["object"]], x)


def stream(path):
    events = open(path, encoding="utf-8").read().split("\n\n")
    eq(events.pop(), "")
    assert all(e.startswith("data: ") and "\n" not in e for e in events)
    last = events.pop()[6:]
    if last != "[DONE]":
        is_error(json.loads(last))
    n = sum(len(check(KINDS[v["object"]], v, True).choices) for v in (json.loads(e[6:]) for e in events))
    assert n or last != "[DONE]"


for f in sorted(glob.glob(f"{ROOT}/tests/golden/*.want.*")):
    name = os.path.basename(f).split(".want.")[0]
    add_test(f"shapes/{name}", (lambda p: lambda: whole(p))(f) if f.endswith(".json") else (lambda p: lambda: stream(p))(f))
main()
