#!/usr/bin/env python3
"""Thinking through a real model: any model thinks if its template opens the thoughts, so that budgets, constraints behind them and
counts can be seen without one that was trained to."""
import json, os, tempfile

from qtest import Daemon, eq, main, test

TEMPLATE = """{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif -%}{#- </think> -#}"""
ASK = [{"role": "user", "content": "How much is 2 + 2?"}]
STOP = {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {"why": {"type": "string", "enum": ["a", "b"]}}, "required": ["why"]}}}


def ask(d, **more):
    r = d.post("/v1/chat/completions", {"messages": ASK, "temperature": 0, "max_tokens": 60, "seed": 1, **more})
    eq(r.status, 200, r.body[:500])
    v = r.json()
    return v["choices"][0], v["usage"]["completion_tokens_details"]["reasoning_tokens"]


@test(seconds=120)
def budgets_switches_and_calls_behind_thoughts():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t.jinja")
        open(path, "w").write(TEMPLATE)
        with Daemon(model="smollm2-135m-instruct-q4_1", flags=["--threads", "1", "--chat-template", path]) as d:
            c, n = ask(d, thinking_token_budget=4)
            m = c["message"]
            assert m["reasoning_content"] and m["reasoning_content"] == m["reasoning"] and m["content"], m
            assert "<think>" not in m["content"] and "</think>" not in m["content"], m
            assert 4 <= n <= 4 + 8, n  # and the closing text
            c, n = ask(d, reasoning_budget_tokens=4, reasoning_budget_message="Enough of this.")
            assert c["message"]["reasoning"].endswith("Enough of this."), c
            c, _ = ask(d, enable_thinking=False)
            assert "reasoning" not in c["message"] and c["message"]["content"], c
            c, n = ask(d, thinking_token_budget=4, include_reasoning=False)
            assert "reasoning" not in c["message"] and n >= 4, (c, n)
            c, n = ask(d, quern={"thinking": {"min_tokens": 10, "max_tokens": 30, "continue": "Wait", "hand_in": "So:"}})
            assert n >= 10, (c, n)
            c, _ = ask(d, thinking_token_budget=4, tools=[STOP], tool_choice="required", parallel_tool_calls=False)
            assert c["finish_reason"] == "tool_calls", c
            assert json.loads(c["message"]["tool_calls"][0]["function"]["arguments"])["why"] in ("a", "b") and c["message"]["reasoning"], c
            c, _ = ask(d, thinking_token_budget=4, reasoning_format="none", response_format={"type": "json_object"}, max_tokens=200)
            assert "</think>" in c["message"]["content"] and "reasoning" not in c["message"], c
            c, _ = ask(d, thinking_token_budget=4, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {
                "n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"], "additionalProperties": False}}})
            assert json.loads(c["message"]["content"]).keys() == {"n"} and c["message"]["reasoning"], c


main()
