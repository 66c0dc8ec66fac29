#!/usr/bin/env python3
"""Every chat template of the llama-cpp-python package, rendered by us and by Jinja2 in transformers' settings.

Byte for byte on a few dozen conversations each, raises included; and no byte of a request is ever marked as trusted, for
each special spelling that a template knows, also where the request splits it over two fields."""
import glob, hashlib, json, os, re, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from qtest import test, add_test, main, eq, CACHE
from jinja_reference import environment, Ours

FOLDER = os.path.join(CACHE, "vectors", "llama.cpp-0.3.36", "models", "templates")
FILES = sorted(glob.glob(os.path.join(FOLDER, "*.jinja")))
WANTED = 70

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather of a place.", "parameters": {
        "type": "object", "properties": {
            "city": {"type": "string", "description": "Name, e.g. \"Łódź\""},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "integer", "minimum": 1},
            "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": ["number", "null"]}}, "required": ["lat"]},
            "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["city"]}}},
    {"type": "function", "function": {"name": "stop", "description": "Ends it.", "parameters": {"type": "object", "properties": {}}}},
]
CALL = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": {
    "city": "Paris <b>&\"it's\"", "days": 3, "unit": None, "where": {"lat": 48.85, "lon": -2.0}, "tags": ["a", "é"], "ok": True}}}
CALL2 = {"id": "abcdefghi", "type": "function", "function": {"name": "stop", "arguments": {}}}
USER, SYSTEM = {"role": "user", "content": "Hello, who are you?"}, {"role": "system", "content": "You are terse."}
ANSWER = {"role": "assistant", "content": "I am a test."}


def result(id_, content, **more):
    return {"role": "tool", "tool_call_id": id_, "name": "get_weather", "content": content, **more}


def text(s):
    return {"type": "text", "text": s}


CASES = {
    "plain": dict(messages=[USER]),
    "no_prompt": dict(messages=[USER], add_generation_prompt=False),
    "system": dict(messages=[SYSTEM, USER]),
    "turns": dict(messages=[SYSTEM, USER, ANSWER, {"role": "user", "content": "And now?"}, {"role": "assistant", "content": " Still. "}, USER]),
    "ends_with_answer": dict(messages=[USER, ANSWER], add_generation_prompt=False),
    "developer": dict(messages=[{"role": "developer", "content": "Be kind."}, USER]),
    "parts": dict(messages=[{"role": "user", "content": [text("one"), text("two")]}]),
    "system_parts": dict(messages=[{"role": "system", "content": [text("S")]}, USER]),
    "image_part": dict(messages=[{"role": "user", "content": [text("what?"), {"type": "image_url", "image_url": {"url": "x"}}, {"type": "image"}]}]),
    "unicode": dict(messages=[{"role": "user", "content": "naïve \u2028 😀 \t\"quotes\" 'single' \\n {{ x }} <|im_end|> İstanbul ΟΔΟΣ ß\n\n"}]),
    "blanks": dict(messages=[{"role": "system", "content": "  \n"}, {"role": "user", "content": "\n  padded \u00a0\n"}, {"role": "assistant", "content": "\n\n x \n"}, USER]),
    "empty": dict(messages=[{"role": "system", "content": ""}, {"role": "user", "content": ""}, {"role": "assistant", "content": ""}, {"role": "user", "content": ""}]),
    "tools": dict(messages=[USER], tools=TOOLS),
    "tools_system": dict(messages=[SYSTEM, USER], tools=TOOLS[:1]),
    "tool_call": dict(messages=[USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, result("call12345", "{\"t\": 21}")], tools=TOOLS),
    "tool_call_text": dict(messages=[USER, {"role": "assistant", "content": "", "tool_calls": [
        {**CALL, "function": {**CALL["function"], "arguments": json.dumps(CALL["function"]["arguments"])}}]}, result("call12345", "21")], tools=TOOLS),
    "tool_call_none": dict(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, result("call12345", "21"), ANSWER], tools=TOOLS),
    "tool_call_missing": dict(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}, result("call12345", "21"), ANSWER, USER], tools=TOOLS),
    "tool_calls": dict(messages=[SYSTEM, USER, {"role": "assistant", "content": "Both.", "tool_calls": [CALL, CALL2]},
                                 result("call12345", "21"), result("abcdefghi", [text("done")]), ANSWER, USER], tools=TOOLS),
    "tool_json": dict(messages=[USER, {"role": "assistant", "content": "x", "tool_calls": [CALL]}, result("call12345", {"t": [1, 2.5, None]})], tools=TOOLS),
    "flat_tool": dict(messages=[USER, {"role": "assistant", "content": "", "tool_calls": [{"name": "stop", "arguments": {"a": 1}}]},
                                {"role": "tool", "content": "r"}], tools=[TOOLS[1]["function"]]),
    "thinking": dict(messages=[USER], kwargs={"enable_thinking": True, "thinking": True}),
    "no_thinking": dict(messages=[USER], kwargs={"enable_thinking": False, "thinking": False}),
    "effort": dict(messages=[SYSTEM, USER], kwargs={"reasoning_effort": "high", "thinking_budget": 512}),
    "reasoning": dict(messages=[USER, {"role": "assistant", "content": "42", "reasoning_content": "Let me see.\n", "thinking": "Let me see.\n"}, USER,
                                {"role": "assistant", "content": "43", "reasoning_content": "", "thinking": ""}, USER]),
    "reasoning_call": dict(messages=[USER, {"role": "assistant", "content": "", "reasoning_content": "Call it.", "tool_calls": [CALL]}, result("call12345", "21")], tools=TOOLS),
    "think_tags": dict(messages=[USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}, USER, {"role": "assistant", "content": "<think></think>No."}]),
    "documents": dict(messages=[USER], documents=[{"title": "T", "text": "Body", "doc_id": 1}, {"title": "U", "text": "More"}]),
    "builtin": dict(messages=[USER], tools=TOOLS, kwargs={"builtin_tools": ["browser", "python"], "model_identity": "You are X.", "date_string": "1 Jan 2025"}),
    "odd_roles": dict(messages=[{"role": "ipython", "content": "x"}, USER]),
    "two_users": dict(messages=[USER, USER]),
    "assistant_first": dict(messages=[ANSWER, USER]),
    "extra_members": dict(messages=[{**USER, "name": "bob", "items": 1, "weight": 0.5}, {**ANSWER, "prefix": True, "citations": []}, USER]),
    "choice": dict(messages=[USER], tools=TOOLS, kwargs={"tool_choice": "required", "response_format": {"type": "json_object"}, "custom_tools": None}),
    "schema": dict(messages=[USER], kwargs={"response_format": {"type": "json_schema", "json_schema": {"schema": TOOLS[0]["function"]["parameters"]}}}),
    "nothing": dict(messages=[]),
}
# Two templates of the package render nothing without variables that their servers always gave; so every case runs again with them.
SIMPLE = {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {
    "what": {"type": "string", "description": "What."}, "how": {"type": "object", "additionalProperties": {"type": "string"}, "description": "How."}},
    "required": ["what"]}}}
for name, case in list(CASES.items()):
    CASES[name + "+"] = {**case, "tools": [SIMPLE], "kwargs": {**case.get("kwargs", {}), "functions": "[]", "datetime": "now"}}
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}


def variables(case):
    return {"messages": case["messages"], "tools": case.get("tools"), "documents": case.get("documents"),
            "add_generation_prompt": case.get("add_generation_prompt", True), **case.get("kwargs", {})}


def source(path):
    return open(path, encoding="utf-8", newline="").read()


def both(env, ours, compiled, text_, case, name):
    v = variables(case)
    try:
        want = compiled.render(**json.loads(json.dumps(v)), **SPECIALS)
    except Exception as e:
        want = e
    got = ours.ask(template=text_, vars=v, trusted=SPECIALS)
    if isinstance(want, Exception):
        assert "error" in got, f"{name}: Jinja2 raises {want!r}, we print {got['text'][-300:]!r}"
        by_template = type(want).__name__ == "TemplateError"
        assert (got["error"] == "RAISED") == by_template, f"{name}: {want!r} but {got}"
        if by_template:
            clean = "".join(c if c >= " " and c != "\x7f" else " " for c in str(want))
            assert clean.encode().startswith(got["message"].encode()), f"{name}: message {got['message']!r}, wanted {clean!r}"
        return None
    assert "error" not in got, f"{name}: {got['error']}: {got['message']}; Jinja2 prints {want[-300:]!r}"
    if got["text"] != want:
        i = next((k for k, (a, b) in enumerate(zip(got["text"], want)) if a != b), min(len(want), len(got["text"])))
        raise AssertionError(f"{name}: differs at {i}: got {got['text'][max(0, i - 60):i + 60]!r}, wanted {want[max(0, i - 60):i + 60]!r}")
    check_ranges(got, name)
    return got


def check_ranges(got, name):
    n, at = len(got["text"].encode()), 0
    for i, (a, b) in enumerate(got["trusted"]):
        assert a < b <= n and (a > at or i == 0), f"{name}: ranges {got['trusted']}"
        at = b


def same_as_jinja2(path):
    def run():
        env, ours = environment(), Ours()
        text_ = source(path)
        compiled = env.from_string(text_)
        rendered = sum(both(env, ours, compiled, text_, case, name) is not None for name, case in CASES.items())
        ours.close()
        assert rendered >= 10, f"only {rendered} of {len(CASES)} conversations are rendered at all"
    return run


for path in FILES:
    add_test("templates/" + os.path.basename(path)[:-6], same_as_jinja2(path), 60)


@test
def all_files_are_there():
    assert len(FILES) == WANTED, f"{len(FILES)} templates in {FOLDER}; scripts/fetch-vectors.sh brings {WANTED}"


@test
def final_messages_are_continued_as_transformers_does():
    data = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "jinja", "continued.json"), encoding="utf-8"))
    ours, same = Ours(), 0
    eq(sorted(data["want"]), sorted(os.path.basename(p)[:-6] for p in FILES))
    for path in FILES:
        name = os.path.basename(path)[:-6]
        for final, want in zip(data["finals"], data["want"][name]):
            got = ours.ask(template=source(path), bos="<s>", eos="</s>", input={
                "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": final}], "continue_final_message": True})
            have = None if "error" in got else hashlib.sha256(got["text"].encode()).hexdigest()[:16]
            assert have == want, f"{name}, {final!r}: {got.get('text', got)!r:.800}"
            same += want is not None
    ours.close()
    assert same > 400, same


# ---- trust ----

SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|<｜[^｜\n]{1,40}｜>|</?[a-z_]{3,24}>|\[/?[A-Z_]{3,24}\]|<[a-z_]+_of_[a-z]+>")


OPEN, CLOSE = "\u2603", "\u2602"


def hostile(s, a, b):
    """Conversations in which s comes from the request, between fences, and split over neighbouring fields as a and b."""
    f = OPEN + s + CLOSE
    call = {"id": "call12345", "type": "function", "function": {"name": f, "arguments": {f: f}}}
    tool = {"type": "function", "function": {"name": f, "description": f, "parameters": {
        "type": "object", "properties": {f: {"type": "string", "description": f, "enum": [f]}}, "required": [f]}}}
    more = {"functions": f, "datetime": f}
    yield dict(messages=[{"role": "user", "content": f}, {"role": "assistant", "content": f}, USER], tools=[SIMPLE], kwargs=more)
    yield dict(messages=[{"role": "system", "content": f}, {"role": "user", "content": f}, {"role": "assistant", "content": f}, USER])
    yield dict(messages=[USER, {"role": "assistant", "content": f, "reasoning_content": f, "tool_calls": [call]},
                         {"role": "tool", "tool_call_id": "call12345", "name": f, "content": f}, USER], tools=[tool])
    yield dict(messages=[{"role": f, "content": f}, USER], documents=[{"title": f, "text": f}])
    yield dict(messages=[USER], kwargs={"reasoning_effort": f, "model_identity": f, "thinking_effort": f, "date_string": f, **more})
    split = {"id": "call12345", "type": "function", "function": {"name": a, "arguments": {b: a, a: b}}}
    tool = {"type": "function", "function": {"name": a, "description": b, "parameters": {
        "type": "object", "properties": {a: {"type": "string", "description": b, "enum": [a, b]}}, "required": [a, b]}}}
    yield dict(messages=[{"role": "user", "content": a}, {"role": "assistant", "content": b}, USER], tools=[SIMPLE], kwargs=more)
    yield dict(messages=[{"role": "user", "content": [text(a), text(b)]}])
    yield dict(messages=[{"role": a, "content": b}, USER], documents=[{"title": a, "text": b}])
    yield dict(messages=[USER, {"role": "assistant", "content": b, "reasoning_content": a, "tool_calls": [split, split]},
                         {"role": "tool", "tool_call_id": a, "name": b, "content": a}, {"role": "user", "content": b}], tools=[tool])


def marks(got):
    data = got["text"].encode()
    trusted = bytearray(len(data))
    for a, b in got["trusted"]: trusted[a:b] = b"\x01" * (b - a)
    return data, trusted


def spelled(got, s):
    """How often s stands in the text with every byte trusted."""
    data, trusted = marks(got)
    return sum(all(trusted[m.start():m.end()]) for m in re.finditer(re.escape(s.encode()), data))


def nothing_of_the_request_is_trusted(path):
    def run():
        ours, text_ = Ours(), source(path)
        fenced = split = 0
        ask = lambda case: ours.ask(template=text_, vars=variables(case), trusted=SPECIALS)
        for s in sorted(set(SPECIAL.findall(text_)) | {"<|im_end|>", "</s>"}):
            half = len(s) // 2
            benign = [ask(case) for case in hostile("word", "wo", "rd")]
            # A template that takes a message apart at </think> writes that tag anew: those bytes are its own.
            anew = re.search(r"split\(\s*['\"]" + re.escape(s), text_)
            for n, case in enumerate(hostile(s, s[:half], s[half:])):
                got = ask(case)
                if "error" in got: continue
                check_ranges(got, s)
                data, trusted = marks(got)
                for m in re.finditer(f"{OPEN}(?:(?!{OPEN}).)*?{CLOSE}".encode(), data, re.S):
                    fenced += 1
                    users = trusted[m.start():m.start() + 3] + trusted[m.end() - 3:m.end()] if anew else trusted[m.start():m.end()]
                    assert not any(users), f"{s!r} {n}: trusted bytes in {data[m.start() - 20:m.end() + 20]!r}"
                if n >= 5 and "error" not in benign[n] and not anew:
                    split += 1
                    have, may = spelled(got, s), spelled(benign[n], s)
                    assert have <= may, f"{s!r} {n}: trusted {have} times, {may} with other words: {got['text'][:1500]!r}"
        assert fenced > 2 and split > 2, f"only {fenced} fenced and {split} split texts came out"
        ours.close()
    return run


for path in FILES:
    add_test("trust/" + os.path.basename(path)[:-6], nothing_of_the_request_is_trusted(path), 60)

main()
