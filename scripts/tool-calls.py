#!/usr/bin/env python3
"""Asks a running server for calls and counts how many validate: N requests by the openai SDK, half required and half of a named tool,
half streamed, at temperature 1. Needs openai and jsonschema.

    scripts/tool-calls.py [--url http://127.0.0.1:8080/v1] [--n 200] [--auto]

Exits 1 unless all validate. --auto: leaves the choice to the model, and only counts."""
import argparse, json, sys

import jsonschema
from openai import OpenAI


def tool(name, description, required, **properties):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": properties, "required": required, "additionalProperties": False}}}


S, I, N, B = ({"type": t} for t in ("string", "integer", "number", "boolean"))
TOOLS = [
    tool("get_weather", "Weather of a city.", ["city", "unit"], city=S, unit={"type": "string", "enum": ["celsius", "fahrenheit"]}, days={**I, "minimum": 1, "maximum": 14}),
    tool("send_email", "Sends an email.", ["to", "subject", "body"], to={"type": "array", "items": S, "minItems": 1, "maxItems": 5}, subject=S, body=S, urgent=B),
    tool("search_flights", "Searches flights.", ["from", "to", "date"], **{"from": {**S, "pattern": "^[A-Z]{3}$"}, "to": {**S, "pattern": "^[A-Z]{3}$"},
         "date": {**S, "format": "date"}, "passengers": {**I, "minimum": 1, "maximum": 9}}),
    tool("create_event", "Puts an event into the calendar.", ["title", "when"], title=S, when={"type": "object", "properties": {"day": S, "hour": {**I, "minimum": 0, "maximum": 23}},
         "required": ["day", "hour"], "additionalProperties": False}, guests={"type": "array", "items": {"type": "object", "properties": {"name": S, "email": {**S, "format": "email"}},
         "required": ["name"], "additionalProperties": False}, "maxItems": 4}),
    tool("calculate", "Adds, subtracts, multiplies or divides.", ["op", "a", "b"], op={"enum": ["add", "sub", "mul", "div"]}, a=N, b=N),
    tool("stop", "Ends the conversation.", []),
]
QUESTIONS = ["What is the weather in Zürich for the next 3 days, in celsius?", "Tell bob@example.com and eve@example.com that the meeting is at 5. It's urgent!",
             "Find flights from Frankfurt to San Francisco on 12 May 2026 for two people.", "Put lunch with Ann (ann@example.com) into my calendar, Friday at noon.",
             "How much is 12.5 times -3?", "Say \"goodbye\" and end this.", "Write a mail to my mother: quote 'C:\\path\\new' and a line break, please."]


def ask(client, model, i, auto):
    name = TOOLS[i % len(TOOLS)]["function"]["name"]
    choice = "auto" if auto else "required" if i % 2 else {"type": "function", "function": {"name": name}}
    kw = dict(model=model, messages=[{"role": "user", "content": QUESTIONS[i // 2 % len(QUESTIONS)]}], tools=TOOLS, tool_choice=choice, temperature=1, seed=i,
              parallel_tool_calls=i % 3 != 0, max_tokens=600)
    if i // 2 % 2:
        with client.chat.completions.stream(**kw) as s:
            pieces = {}
            for e in s:
                if e.type == "tool_calls.function.arguments.delta": pieces[e.index] = pieces.get(e.index, "") + e.arguments_delta
            m = s.get_final_completion().choices[0]
        for k, c in enumerate(m.message.tool_calls or []):
            assert pieces.get(k, "") == c.function.arguments, "the deltas do not add up"
    else:
        m = client.chat.completions.create(**kw).choices[0]
    calls = m.message.tool_calls or []
    if not auto: assert calls, f"no call: {m}"
    if isinstance(choice, dict): assert [c.function.name for c in calls] == [name], f"{calls}: not the named tool"
    for c in calls:
        schema = next(t for t in TOOLS if t["function"]["name"] == c.function.name)["function"]["parameters"]
        if m.finish_reason == "length" and c is calls[-1]: return "cut"
        jsonschema.validate(json.loads(c.function.arguments), schema, format_checker=jsonschema.FormatChecker())
    return "called" if calls else "text"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--url", default="http://127.0.0.1:8080/v1")
    p.add_argument("--n", type=int, default=200)
    p.add_argument("--auto", action="store_true")
    a = p.parse_args()
    client, counts = OpenAI(base_url=a.url, api_key="none", timeout=300, max_retries=0), {}
    model = client.models.list().data[0].id
    for i in range(a.n):
        try:
            r = ask(client, model, i, a.auto)
        except Exception as e:
            r = "wrong"
            print(f"{i}: {type(e).__name__}: {str(e)[:300]}", flush=True)
        counts[r] = counts.get(r, 0) + 1
    print(json.dumps(counts))
    return 0 if a.auto or counts.get("called", 0) == a.n else 1


sys.exit(main())
