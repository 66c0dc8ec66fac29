#!/usr/bin/env python3
"""Every chat template of the llama-cpp-python package that knows tools: an assistant's message rendered by Jinja2 is what that
model writes, and taking it apart must give the message back. Whatever the pieces it comes in, and cut at any byte (calls_parse.c).

What templates do not write back into the prompt (some show calls only in their instructions) is written here after the model's
card, with its source."""
import glob, json, os, re, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from qtest import test, add_test, main, eq, ROOT, CACHE
from jinja_reference import environment, Tool

FOLDER = os.path.join(CACHE, "vectors", "llama.cpp-0.3.36", "models", "templates")
FILES = {os.path.basename(p)[:-6]: p for p in sorted(glob.glob(os.path.join(FOLDER, "*.jinja")))}

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "A city."}, "days": {"type": "integer", "description": "How many."},
        "where": {"type": "object", "description": "A place.", "properties": {"lat": {"type": "number"}, "names": {"type": "array", "items": {"type": "string"}}}},
        "ok": {"type": "boolean", "description": "Fine."}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "stop", "description": "Stops.", "parameters": {"type": "object", "properties": {}}}},
]
PLAIN = {"city": "Paris", "days": 3}
WILD = {"city": "Pa\"ris \\ é😀\n\tline </b> 'q' {x} [y]", "days": -3, "where": {"lat": 1.5, "names": ["a", "b, c"]}, "ok": True}
SIMPLE = {"city": "Zürich", "where": {"lat": -0.25, "names": []}, "ok": False}


def call(name, args, id_="call12345"):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": args}}


MESSAGES = {
    "plain": dict(content="Just text, 2 < 3 and {\"a\": 1}."),
    "one": dict(calls=[call("get_weather", PLAIN)]),
    "nothing": dict(calls=[call("stop", {})]),
    "two": dict(calls=[call("get_weather", PLAIN), call("stop", {}, "abcdefghi")]),
    "after_text": dict(content="Let me look.", calls=[call("get_weather", PLAIN)]),
    "wild": dict(calls=[call("get_weather", WILD)]),
    "nested": dict(calls=[call("get_weather", SIMPLE)]),
    "thought": dict(content="Done.", reasoning="I must think.\n\nTwice."),
    "thought_call": dict(reasoning="Call it.", calls=[call("get_weather", PLAIN)]),
}


ENDS = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>", "<｜end▁of▁sentence｜>", "<|end_of_text|>", "<|END_OF_TURN_TOKEN|>", "<|observation|>", "[e~[",
        "<end_of_sentence>", "<seed:eos>", "<SPECIAL_12>", "<turn|>", "<|role_end|>", "</assistant>", "<｜hy_eos:opensource｜>", "<sep>", "<|user|>",
        "<|assistant_end|>", "[R", "<|tool_response>", "\n<|end|>", "\n<|begin_tool_result|>", "<|message_sep|>\n\nfunction result", "<|calls|>", "<|call|>", "<|return|>",
        "<|end|><|begin|>tool", "<|end|><|begin|>user", "<|start|>tool", "<|eot|>", "<|end_of_msg|>", "<end_of_turn>", "<|end|>\n"]


def turns(path):
    """What the model writes after the prompt for each of MESSAGES: name -> (prompt, text)."""
    env, text = environment(), open(path, encoding="utf-8", newline="").read()
    env.is_safe_attribute = lambda *a: True  # one template appends to a list
    t, out = env.from_string(text), {}
    for name, want in MESSAGES.items():
        for as_text in (0, 1):
            for with_result in (1, 0):
                if name not in out: out.update(turn(t, name, want, as_text, with_result))
    return text, out


def turn(t, name, want, as_text, with_result):
    thinks = "reasoning" in want
    more = dict(tools=TOOLS, documents=None, bos_token="<s>", eos_token="</s>", functions="[]", datetime="now", enable_thinking=thinks, thinking=thinks)
    calls = [{**c, "function": {**c["function"], "arguments": json.dumps(c["function"]["arguments"], ensure_ascii=False) if as_text else c["function"]["arguments"]}}
             for c in want.get("calls", [])]
    user, m = {"role": "user", "content": "HI"}, {"role": "assistant", "content": want.get("content", "")}
    if calls: m["tool_calls"] = calls
    if thinks: m.update(reasoning_content=want["reasoning"], thinking=want["reasoning"], reasoning=want["reasoning"])
    after = [{"role": "tool", "tool_call_id": c["id"], "name": c["function"]["name"], "content": "RESULT"} for c in calls] if with_result else []
    try:
        history = t.render(messages=[user], add_generation_prompt=False, **more)
        prompt = t.render(messages=[user], add_generation_prompt=True, **more)
        whole = t.render(messages=[user, m] + after, add_generation_prompt=False, **more)
    except Exception:
        return {}
    k = common(history, whole)
    k -= len(re.search(r"(<[^<>]*)?$", whole[:k]).group())
    head, said = prompt[k:], whole[k:]
    n = common(head, said)
    if n < len(head):  # it opens or skips thinking, which the history does not show: as if the model had been asked without
        n -= len(re.search(r"(<[^<>]*)?$", head[:n]).group())
    said, rest = said[n:], head[n:]
    cut = min((said.find(e) for e in ENDS if e in said), default=len(said))
    said = said[:cut]
    if not all(c["function"]["name"] in said for c in want.get("calls", [])[:1]): return {}
    return {name: (prompt[:k + n], rest, said)}


def common(a, b):
    k = 0
    while k < min(len(a), len(b)) and a[k] == b[k]: k += 1
    return k


# What templates describe but do not write back, after the models' cards.
def hermes(f, a): return '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>' % (f, a)
def lfm(f, a): return "<|tool_call_start|>[%s(%s)]<|tool_call_end|>" % (f, ", ".join(f"{k}={v!r}" for k, v in json.loads(a).items()))
def granite(f, a): return '<|tool_call|>[{"name": "%s", "arguments": %s}]' % (f, a)
def command_r(f, a): return 'Action: ```json\n[\n    {\n        "tool_name": "%s",\n        "parameters": %s\n    }\n]```' % (f, a)
def deepseek(f, a): return "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>%s\n```json\n%s\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>" % (f, a)


BY_HAND = {"HuggingFaceTB-SmolLM3-3B": hermes, "LFM2-8B-A1B": lfm, "LFM2.5-Instruct": lfm, "ibm-granite-granite-3.3-2B-Instruct": granite,
           "CohereForAI-c4ai-command-r-plus-tool_use": command_r, "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": deepseek, "llama-cpp-deepseek-r1": deepseek}
NO_TOOLS = {"google-gemma-2-2b-it", "llama-cpp-rwkv-world", "microsoft-Phi-3.5-mini-instruct"}


def by_hand(write):
    out = {}
    for name, want in MESSAGES.items():
        calls = [write(c["function"]["name"], json.dumps(c["function"]["arguments"], ensure_ascii=False)) for c in want.get("calls", [])]
        if len(calls) < 2 and "reasoning" not in want: out[name] = ("", "", want.get("content", "") + "".join(calls))
    return out


# Where a template writes calls in another way than our grammar makes a model write them: ids between name and arguments, blanks in
# lists, quotes of its own. The parser reads both.
OTHERWISE = {"apriel", "cohere", "command-r", "lfm2", "gemma4", "mistral-args", "mistral", "harmony", "solar", "kimi-k3", "muse"}


class Parse(Tool):
    name = "calls_parse"


def check(got, name, said):
    want, m = MESSAGES[name], got["message"]
    assert got["same"] is True, f"{name}: pieces that end at {got['same']} of {said!r} give another message"
    assert got["cut"] is True, f"{name}: cut at {got['cut']} of {said!r} gives what is no part of it"
    calls = [c["function"] for c in want.get("calls", []) if c["function"]["name"] in said]
    eq([c["name"] for c in m["calls"]], [c["name"] for c in calls])
    for c, w in zip(m["calls"], calls):
        eq(json.loads(c["arguments"]), w["arguments"])
    content = want.get("content", "")
    if "reasoning" in want and want["reasoning"] in said:
        eq(m["reasoning"], want["reasoning"])
    elif content and content in m["reasoning"] and content in said:  # gpt-oss's template writes it as thoughts
        eq((m["reasoning"], m["content"]), (content, ""))
        return
    else:
        eq(m["reasoning"], "")
    eq(m["content"].strip(), content if content in said else "")
    if not calls: return
    assert m["content"] == m["content"].rstrip(), f"{name}: blanks are left before the call: {m['content']!r}"


def takes_apart(n, path):
    def run():
        text, out = turns(path)
        tool = Parse()
        if n in BY_HAND: out = {**by_hand(BY_HAND[n]), **{k: v for k, v in out.items() if "calls" not in MESSAGES[k]}}
        for name, (before, rest, said) in out.items():
            thoughts = MESSAGES[name].get("reasoning", "\0")  # the history may leave out a mark that the prompt has
            prompt = before + rest if thoughts in said and not rest.startswith("</") and not said.strip().startswith(rest.strip()) else before
            got = tool.ask(template=text, tools=TOOLS, prompt=prompt, text=said, cuts=20)
            check(got, name, said)
            if name == "one" and got["format"] not in OTHERWISE:
                alone = said.split(got["thinks"][1] or "\0")[-1].strip()
                eq(tool.ask(template=text, tools=TOOLS, text=alone, accept=True)["accepts"], True)
        tool.close()
        seen = {k for k in out}
        assert n in NO_TOOLS or {"plain", "one", "nothing", "wild"} <= seen, f"only {sorted(seen)} were rendered"
    return run


for n, path in FILES.items():
    add_test("calls/" + n, takes_apart(n, path), 120)

if __name__ == "__main__" and "--show" in sys.argv:
    for n, p in FILES.items():
        print("=====", n)
        for name, (a, rest, said) in turns(p)[1].items(): print(f"  {name}: {a[-30:]!r} | {rest!r} | {said!r}")
    sys.exit()

main()
