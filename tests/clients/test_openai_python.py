#!/usr/bin/env python3
"""The openai Python SDK against a running quernd: what its users see. The SDK's own parsing (pydantic, strict enough to lose
what is misspelt) and its exception classes are the yardstick; figures are compared with each other and with /metrics."""
import asyncio, json, math, time

import openai
from openai import AsyncOpenAI, OpenAI

from qtest import eq, main, shared_daemon, test, wait_for

MODEL = "smollm2-135m-instruct-q4_1"
ASK = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def daemon():
    return shared_daemon(MODEL, ["--model-name", MODEL])


def client(**kw):
    return OpenAI(base_url=daemon().url + "/v1", api_key="none", max_retries=0, timeout=60, **kw)


def aclient():
    return AsyncOpenAI(base_url=daemon().url + "/v1", api_key="none", max_retries=0, timeout=60)


def chat(**kw):
    return client().chat.completions.create(**{"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 24, **kw})


def raises(kind, fn, status, param=None, code=None):
    try:
        fn()
    except openai.APIStatusError as e:
        eq(type(e), kind, "exception class")
        eq(e.status_code, status)
        if param is not None:
            eq(e.param, param)
        if code is not None:
            eq(e.code, code)
        assert e.request_id, "an error carries its request id"
        assert isinstance(e.body, dict) and isinstance(e.body["message"], str) and e.body["type"], f"body {e.body!r}"
        return e
    raise AssertionError(f"no {kind.__name__}")


@test
def lists_and_retrieves_the_model():
    c = client()
    models = c.models.list().data
    eq([m.id for m in models], [MODEL])
    m = c.models.retrieve(MODEL)
    eq((m.id, m.object), (MODEL, "model"))
    assert m.created > 1_600_000_000 and m.owned_by
    raises(openai.NotFoundError, lambda: c.models.retrieve("no-such"), 404, code="model_not_found")


@test(seconds=60)
def chat_answers():
    r = chat()
    assert "Paris" in r.choices[0].message.content, r.choices[0].message.content
    eq(len(r.choices), 1)
    eq(r.choices[0].message.role, "assistant")
    assert r.id.startswith("chatcmpl-") and r.object == "chat.completion" and r.model == MODEL
    assert abs(r.created - time.time()) < 120
    u = r.usage
    assert u.prompt_tokens > 10 and 0 < u.completion_tokens <= 24
    eq(u.total_tokens, u.prompt_tokens + u.completion_tokens)
    eq(r.choices[0].finish_reason, "stop" if u.completion_tokens < 24 else "length")
    assert 0 <= u.prompt_tokens_details.cached_tokens < u.prompt_tokens


@test(seconds=60)
def the_stream_adds_up_to_the_answer():
    whole = chat()
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    eq(len({(c.id, c.created, c.model, c.object) for c in chunks}), 1, "id, created, model of the chunks")
    eq(chunks[0].object, "chat.completion.chunk")
    eq(chunks[0].choices[0].delta.role, "assistant")
    eq("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), whole.choices[0].message.content)
    eq([c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason], [whole.choices[0].finish_reason])
    eq([c.choices for c in chunks if c.usage], [[]], "usage comes in one chunk of its own")
    u, w = chunks[-1].usage, whole.usage
    eq((u.prompt_tokens, u.completion_tokens, u.total_tokens), (w.prompt_tokens, w.completion_tokens, w.total_tokens))


@test(seconds=60)
def a_stream_without_usage_has_none():
    assert all(c.usage is None and len(c.choices) == 1 for c in chat(stream=True, max_tokens=4))


@test(seconds=60)
def sdk_stream_helper_accumulates():
    with client().chat.completions.stream(model=MODEL, messages=ASK, temperature=0, max_tokens=24) as s:
        for _ in s:
            pass
        eq(s.get_final_completion().choices[0].message.content, chat().choices[0].message.content)


@test(seconds=90)
def many_async_streams_equal_the_single_ones():
    asks = [f"Say something about the number {i}." for i in range(8)]
    kw = dict(model=MODEL, temperature=0.8, max_tokens=16)
    alone = [client().chat.completions.create(messages=[{"role": "user", "content": a}], seed=i, **kw).choices[0].message.content
             for i, a in enumerate(asks)]

    async def one(c, i):
        stream = await c.chat.completions.create(messages=[{"role": "user", "content": asks[i]}], seed=i, stream=True, **kw)
        return "".join([x.choices[0].delta.content or "" async for x in stream if x.choices])

    async def all_at_once():
        async with aclient() as c:
            return await asyncio.gather(*[one(c, i) for i in range(8)])

    eq(asyncio.run(all_at_once()), alone)


@test(seconds=60)
def n_branches_differ_and_repeat_with_the_seed():
    kw = dict(n=3, temperature=1.2, seed=11, max_tokens=12)
    a = chat(**kw)
    eq([c.index for c in a.choices], [0, 1, 2])
    texts = [c.message.content for c in a.choices]
    assert len(set(texts)) > 1, f"three equal branches at temperature 1.2: {texts}"
    eq([c.message.content for c in chat(**kw).choices], texts, "the same seed")
    eq(chat(**dict(kw, n=1)).choices[0].message.content, texts[0], "branch 0 alone")
    parts = {0: "", 1: "", 2: ""}
    finishes = []
    for c in chat(stream=True, **kw):
        for x in c.choices:
            parts[x.index] += x.delta.content or ""
            finishes += [x.index] if x.finish_reason else []
    eq([parts[i] for i in range(3)], texts, "streamed")
    eq(sorted(finishes), [0, 1, 2])
    eq(a.usage.completion_tokens > 12, True, "usage counts every branch")


@test(seconds=60)
def logprobs_belong_to_the_text():
    r = chat(logprobs=True, top_logprobs=4)
    items = r.choices[0].logprobs.content
    shown = b"".join(bytes(t.bytes) for t in items)
    text = r.choices[0].message.content.encode()
    assert shown.startswith(text) or text == shown, f"{shown!r} against {text!r}"
    assert len(items) in (r.usage.completion_tokens, r.usage.completion_tokens - 1), "one entry a token (the end token has no text)"
    for t in items:
        eq(len(t.top_logprobs), 4)
        assert t.logprob <= 0 and math.isfinite(t.logprob)
        eq(t.top_logprobs[0].token, t.token, "greedy takes the likeliest")
        down = [x.logprob for x in t.top_logprobs]
        eq(down, sorted(down, reverse=True))
        assert sum(math.exp(x) for x in down) <= 1.0001
    streamed = [t for c in chat(logprobs=True, top_logprobs=4, stream=True) if c.choices and c.choices[0].logprobs
                for t in c.choices[0].logprobs.content or []]
    eq([(t.token, t.logprob) for t in streamed], [(t.token, t.logprob) for t in items], "streamed")


@test(seconds=60)
def stop_strings_end_the_text_before_them():
    whole = chat(max_tokens=24).choices[0].message.content
    word = whole.split()[2]
    for kw in ({}, {"stream": True}):
        r = chat(stop=[word, "\n\n\n"], **kw)
        text = "".join(c.choices[0].delta.content or "" for c in r if c.choices) if kw else r.choices[0].message.content
        eq(text, whole[:whole.index(word)])


@test(seconds=60)
def length_is_kept_to_the_token():
    r = chat(max_tokens=openai.NOT_GIVEN, max_completion_tokens=5, extra_body={"ignore_eos": True})
    eq((r.choices[0].finish_reason, r.usage.completion_tokens), ("length", 5))


@test(seconds=60)
def roles_parts_and_tool_messages_are_accepted():
    r = chat(max_tokens=4, messages=[
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye", "name": "ann"}], user="u1", metadata={"k": "v"})
    assert r.usage.completion_tokens > 0


@test
def extensions_pass_and_unknown_members_are_named():
    raw = client().chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, max_tokens=2,
        extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 1, "stop_token_ids": [7], "ignore_eos": True,
                    "skip_special_tokens": True, "wibble": 1})
    eq(raw.headers.get("quern-ignored"), "wibble")
    assert raw.headers.get("x-request-id")
    eq(raw.parse().usage.completion_tokens, 2)


@test
def bad_requests_name_their_member():
    bad, kind = lambda **kw: (lambda: chat(**kw)), openai.BadRequestError
    raises(kind, bad(temperature=2.5), 400, "temperature")
    raises(kind, bad(top_p=0), 400, "top_p")
    raises(kind, bad(max_tokens=0), 400, "max_tokens")
    raises(kind, bad(messages=[]), 400, "messages")
    raises(kind, bad(messages=[{"role": "robot", "content": "x"}]), 400, "messages[0].role")
    raises(kind, bad(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]), 400)
    raises(kind, bad(top_logprobs=3), 400, "top_logprobs")
    raises(kind, bad(logit_bias={"99999999": 1}), 400)
    raises(kind, bad(n=0), 400, "n")
    raises(kind, bad(stop=""), 400)
    raises(kind, bad(stream_options={"include_usage": True}), 400, "stream_options")
    raises(openai.NotFoundError, bad(model="gpt-9"), 404, "model", "model_not_found")


@test
def too_long_a_prompt_says_so():
    e = raises(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": "word " * 20000}]), 400, code="context_length_exceeded")
    assert any(x.isdigit() for x in e.message), "the numbers are in the message"


@test
def what_is_not_built_is_refused_by_name():
    for kw, param in (({"extra_body": {"lora": [{"id": 0, "scale": 1}]}}, "lora"),
                      ({"extra_body": {"chat_template": "{{ x }}"}}, "chat_template")):
        try:
            chat(**kw)
        except openai.APIStatusError as e:
            assert e.status_code in (400, 501) and (e.param or "").startswith(param), f"{kw}: {e.status_code} {e.param}"
        else:
            raise AssertionError(f"{kw} was taken in silence")
    try:
        client().embeddings.create(model=MODEL, input="x")
    except openai.APIStatusError as e:
        assert e.status_code in (400, 404, 501) and e.body["message"], e
    else:
        raise AssertionError("embeddings of a model that has none")


WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"], "additionalProperties": False}}}
STOP = {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}}


def is_call(calls, name=None):
    eq(len(calls), 1)
    c = calls[0]
    assert c.id and c.type == "function" and c.function.name in ("get_weather", "stop"), c
    args = json.loads(c.function.arguments)
    if name: eq(c.function.name, name)
    if c.function.name == "stop": eq(args, {})
    else: assert set(args) == {"city", "unit"} and args["unit"] in ("celsius", "fahrenheit") and len(args["city"]) <= 20, args


@test(seconds=120)
def calls_that_are_required_validate_whole_and_streamed():
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice, name in (("required", None), (named, "get_weather")):
        for seed in range(3):
            kw = dict(model=MODEL, messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=[WEATHER, STOP], tool_choice=choice,
                      parallel_tool_calls=False, temperature=1, seed=seed, max_tokens=120)
            r = client().chat.completions.create(**kw)
            eq((r.choices[0].finish_reason, r.choices[0].message.content), ("tool_calls", None))
            is_call(r.choices[0].message.tool_calls, name)
            with client().chat.completions.stream(**kw) as s:
                deltas = "".join(e.arguments_delta for e in s if e.type == "tool_calls.function.arguments.delta")
                f = s.get_final_completion()
            is_call(f.choices[0].message.tool_calls, name)
            eq(deltas, f.choices[0].message.tool_calls[0].function.arguments)
            eq(deltas, r.choices[0].message.tool_calls[0].function.arguments, "streamed and whole")


@test(seconds=60)
def a_call_and_its_result_are_taken_back():
    r = client().chat.completions.create(model=MODEL, messages=ASK, tools=[STOP], tool_choice="required", max_tokens=60)
    m = r.choices[0].message
    again = client().chat.completions.create(model=MODEL, messages=ASK + [m, {"role": "tool", "tool_call_id": m.tool_calls[0].id, "content": "stopped"}],
                                             tools=[STOP], max_tokens=8)
    assert again.usage.prompt_tokens > r.usage.prompt_tokens


@test(seconds=60)
def completions_in_every_form():
    c = client().completions
    kw = dict(model=MODEL, temperature=0, max_tokens=8)
    text = c.create(prompt="The capital of France is", **kw)
    assert text.object == "text_completion" and text.id.startswith("cmpl-") and "Paris" in text.choices[0].text, text
    two = c.create(prompt=["The capital of France is", "Two and two make"], n=1, **kw)
    eq([x.index for x in two.choices], [0, 1])
    eq(two.choices[0].text, text.choices[0].text, "the first of two prompts")
    ids = daemon().post("/tokenize", {"content": "The capital of France is", "add_special": False}).json()["tokens"]
    eq(c.create(prompt=ids, **kw).choices[0].text, text.choices[0].text, "token ids")
    eq("".join(x.choices[0].text for x in c.create(prompt="The capital of France is", stream=True, **kw) if x.choices), text.choices[0].text)
    echo = c.create(prompt="The capital of France is", echo=True, **kw)
    eq(echo.choices[0].text, "The capital of France is" + text.choices[0].text)


@test(seconds=60)
def echo_with_logprobs_scores_the_prompt():
    prompt = "The capital of France is Paris"
    r = client().completions.create(model=MODEL, prompt=prompt, echo=True, max_tokens=0, logprobs=2, temperature=0)
    lp = r.choices[0].logprobs
    eq("".join(lp.tokens), prompt)
    eq(r.choices[0].text, prompt)
    assert lp.token_logprobs[0] is None and all(x <= 0 for x in lp.token_logprobs[1:]), lp.token_logprobs
    eq(lp.text_offset, [len("".join(lp.tokens[:i])) for i in range(len(lp.tokens))])
    eq(len(lp.top_logprobs), len(lp.tokens))
    eq(r.usage.completion_tokens, 0)
    # The score of a prompt and the sampler's own figure for the same token are one number: batch-invariance.
    g = client().completions.create(model=MODEL, prompt="The capital of France is", max_tokens=1, logprobs=1, temperature=0)
    if g.choices[0].text == lp.tokens[-1]:
        eq(g.choices[0].logprobs.token_logprobs[0], lp.token_logprobs[-1])


@test(seconds=60)
def leaving_a_stream_frees_its_work():
    d = daemon()
    s = chat(stream=True, max_tokens=4000, extra_body={"ignore_eos": True})
    for _, c in zip(range(4), s):
        assert c.choices
    assert d.metric("vllm:num_requests_running") >= 1
    s.close()
    wait_for(lambda: d.metric("vllm:num_requests_running") == 0, 2, "the stream's request ended")


@test(seconds=60)
def async_cancellation_frees_its_work():
    d = daemon()

    async def go():
        async with aclient() as c:
            task = asyncio.create_task(c.chat.completions.create(model=MODEL, messages=ASK, max_tokens=4000, extra_body={"ignore_eos": True}))
            while not d.metric("vllm:num_requests_running"):
                await asyncio.sleep(0.02)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return True
    eq(asyncio.run(go()), True)
    wait_for(lambda: d.metric("vllm:num_requests_running") == 0, 2, "the cancelled request ended")


@test(seconds=60)
def a_client_timeout_is_the_sdks_and_frees_the_work():
    d = daemon()
    try:
        client().with_options(timeout=0.5).chat.completions.create(model=MODEL, messages=ASK, max_tokens=4000, extra_body={"ignore_eos": True})
    except openai.APITimeoutError:
        pass
    else:
        raise AssertionError("4,000 tokens within half a second?")
    wait_for(lambda: d.metric("vllm:num_requests_running") == 0, 2, "the request ended")


@test(seconds=60)
def a_shared_prefix_is_reported_as_cached():
    story = "Once upon a time there was a miller who had a stone for every grain. " * 12
    ask = [{"role": "user", "content": story + "Who?"}]
    chat(messages=ask, max_tokens=1)
    again = chat(messages=[{"role": "user", "content": story + "What?"}], max_tokens=1)
    assert again.usage.prompt_tokens_details.cached_tokens > again.usage.prompt_tokens // 2, again.usage
    salted = chat(messages=ask, max_tokens=1, extra_body={"cache_salt": "another-tenant"})
    eq(salted.usage.prompt_tokens_details.cached_tokens, 0, "another salt shares nothing")


main()
