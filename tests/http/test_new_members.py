#!/usr/bin/env python3
"""Every member that shapes an answer, with every wrong kind of value: the reply is a 200, or a 400 whose `param` is that member or
something in it, and never a 500, a hang, or the end of the daemon. Then what is easily said twice, said where it means nothing,
or said in a way that a compiler of grammars trips over: honoured or refused by name, never dropped."""
import json, os, sys

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import add_test, eq, main, shared_daemon, test

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
NESTED = {"a": [{"b": {"c": [None, 1, "x"]}}]}
WRONG = [None, True, False, -1, 0, 1e308, "", "x" * 10000, "\u0000", [], {}, [None], [""], [[]], [1e308], NESTED, [NESTED], {"type": 5}, {"type": "json"}, {"": ""}]

SAMPLING = """typical_p typical top_n_sigma xtc_probability xtc_threshold dynatemp_range dynatemp_exponent mirostat mirostat_tau mirostat_eta
    dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers repeat_last_n min_keep bad_words allowed_token_ids stop_regex
    include_stop_str_in_output no_stop_trim repetition_detection prompt_logprobs return_token_ids return_tokens_as_token_ids
    truncate_prompt_tokens truncation_side use_beam_search length_penalty early_stopping best_of""".split()
FORMS = """response_format structured_outputs guided_json guided_regex guided_choice guided_grammar guided_whitespace_pattern json_schema grammar regex
    ebnf structural_tag""".split()
CALLS = """tools tool_choice parallel_tool_calls functions function_call parse_tool_calls include_reasoning separate_reasoning stream_reasoning
    reasoning_format thinking thinking_token_budget reasoning_budget_tokens thinking_budget_tokens reasoning_budget_message custom_params nvext
    enable_thinking reasoning_effort""".split()
INNER = {  # what stands inside, each a body around the value
    "structured_outputs": "json regex choice grammar json_object structural_tag disable_any_whitespace disable_additional_properties whitespace_pattern".split(),
    "repetition_detection": "max_pattern_size min_pattern_size min_count".split(),
    "quern": "samples select answer thinking deadline_ms parse_special".split(),
    "thinking": ["type", "budget_tokens"],
    "custom_params": ["thinking_budget"],
    "nvext": ["max_thinking_tokens"],
}


def daemon():
    return shared_daemon("tiny")


def body_of(path, **more):
    at = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"prompt": "hi"}
    return {**at, "max_tokens": 1, "temperature": 0, **more}


def refused(r, *names):
    """A 400 whose param begins with one of the names."""
    eq(r.status, 400, r.text[:300])
    e = r.error
    assert e["type"] == "invalid_request_error" and e["param"] and any(e["param"].startswith(n) for n in names), (names, e)
    assert len(e["message"]) < 1000, e
    return e


def take(conn, path, body, *names):
    conn.send_request("POST", path, body)
    r = conn.response()
    if r.status != 200:
        try:
            if r.error["code"] != "context_length_exceeded":
                refused(r, *names)
        except AssertionError as e:
            raise AssertionError(f"{json.dumps(body)[:300]}: {e}") from None
    return r


def wrong_values(names, path):
    def run():
        with daemon().connect() as c:
            for name in names:
                for v in WRONG:
                    take(c, path, body_of(path, **{name: v}), name)
        eq(daemon().metric("quern_requests_running"), 0)
    return run


for kind, names in (("sampling", SAMPLING), ("forms", FORMS)):
    for path in (CHAT, PLAIN):
        add_test(f"new_members/wrong_values_of_{kind}_{'chat' if path == CHAT else 'plain'}", wrong_values(names, path), 60)
add_test("new_members/wrong_values_of_calls_chat", wrong_values(CALLS, CHAT), 60)


@test(seconds=60)
def wrong_values_inside():
    with daemon().connect() as c:
        for outer, names in INNER.items():
            for name in names:
                for v in WRONG:
                    # An option of a form needs that form beside it, which is then all that is right.
                    take(c, CHAT, body_of(CHAT, **{outer: {name: v}}), outer, name)


@test(seconds=60)
def wrong_values_deep_in_tools_and_formats():
    def at(path, v):  # {"a.b": …} from inside out
        for name in reversed(path.split(".")):
            v = {name: v}
        return v

    places = [("response_format", {"type": t}, m) for t in ("json_schema", "json_object", "json", "regex", "ebnf", "grammar", "structural_tag")
              for m in ("json_schema", "schema", "value", "regex", "pattern", "ebnf", "grammar", "structures", "triggers")]
    places += [("response_format", {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}, m) for m in ("type",)]
    places += [("grammar", {"type": t}, "value") for t in ("json", "regex", "lark", "gbnf")]
    with daemon().connect() as c:
        for name, base, member in places:
            for v in WRONG:
                take(c, CHAT, body_of(CHAT, **{name: {**base, member: v}}), name)
        for member in ("name", "schema", "strict", "description"):
            for v in WRONG:
                take(c, CHAT, body_of(CHAT, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}, member: v}}), "response_format")
        for member in ("name", "parameters", "strict", "description"):
            for v in WRONG:
                tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, member: v}}
                for choice in ("auto", "required"):
                    take(c, CHAT, body_of(CHAT, tools=[tool], tool_choice=choice), "tools[0]")
                take(c, CHAT, body_of(CHAT, functions=[tool["function"]], function_call="auto"), "functions[0]")
        for v in WRONG:
            for shape in ({"type": v}, {"type": "function", "function": v}, {"type": "custom", "custom": v}, {"type": "allowed_tools", "allowed_tools": v},
                          {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": v}}, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [v]}},
                          {"type": "allowed_tools", "allowed_tools": {"mode": v, "tools": [{"type": "function", "function": {"name": "f"}}]}},
                          {"type": "function", "function": {"name": v}}):
                take(c, CHAT, body_of(CHAT, tools=[TOOL], tool_choice=shape), "tool_choice")
            for shape in ({"type": v}, {"type": "custom", "custom": v}, {"type": "custom", "custom": {"name": v}}, {"type": "custom", "custom": {"name": "c", "format": v}},
                          {"type": "custom", "custom": {"name": "c", "format": {"type": v}}}, {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": v}}},
                          {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": v}}}},
                          {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {"syntax": v, "definition": "a"}}}}, v):
                take(c, CHAT, body_of(CHAT, tools=[shape]), "tools")


@test(seconds=60)
def wrong_values_in_the_history():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with daemon().connect() as c:
        for v in WRONG:
            for turn in ({"role": "assistant", "tool_calls": v}, {"role": "assistant", "tool_calls": [v]}, {"role": "assistant", "content": v, "tool_calls": [call]},
                         {"role": "assistant", "tool_calls": [{**call, "function": v}]}, {"role": "assistant", "tool_calls": [{**call, "id": v}]},
                         {"role": "assistant", "tool_calls": [{**call, "type": v}]}, {"role": "assistant", "tool_calls": [{**call, "function": {"name": "f", "arguments": v}}]},
                         {"role": "assistant", "tool_calls": [{**call, "function": {"name": v, "arguments": "{}"}}]}, {"role": "assistant", "function_call": v},
                         {"role": "assistant", "content": "x", "reasoning_content": v}, {"role": "assistant", "content": "x", "reasoning": v},
                         {"role": "tool", "content": v, "tool_call_id": "c1"}, {"role": "tool", "content": "x", "tool_call_id": v}, {"role": "function", "name": v, "content": "x"}):
                take(c, CHAT, body_of(CHAT, messages=[{"role": "user", "content": "hi"}, turn, {"role": "user", "content": "and"}]), "messages")


# Schemas' keywords with values of the wrong kind: a refusal that names the place, or what JSON Schema says of them.
KEYWORDS = """type enum const properties required additionalProperties patternProperties propertyNames minProperties maxProperties items prefixItems
    additionalItems contains minItems maxItems uniqueItems minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern
    format $ref $defs definitions allOf anyOf oneOf not if then else nullable dependentRequired dependentSchemas unevaluatedProperties
    unevaluatedItems title description default examples $schema $id $anchor""".split()


@test(seconds=60)
def wrong_values_of_schema_keywords():
    with daemon().connect() as c:
        for k in KEYWORDS:
            for v in WRONG:
                take(c, CHAT, body_of(CHAT, json_schema={k: v}), "json_schema")

SCHEMA = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
TAG = {"begin": "<f>", "schema": SCHEMA, "end": "</f>"}
SAID = [  # the request's members, and what the refusal names
    # Two that say the same, or the contrary.
    ({"response_format": {"type": "json_object"}, "regex": "a"}, "regex"),
    ({"structured_outputs": {"regex": "a"}, "guided_choice": ["a"]}, "guided_choice"),
    ({"response_format": {"type": "json_object", "json_schema": {"name": "n", "schema": SCHEMA}}}, "response_format.json_schema"),
    ({"response_format": {"type": "text", "schema": SCHEMA}}, "response_format.schema"),
    ({"response_format": {"type": "json_schema", "schema": SCHEMA, "json_schema": {"name": "n", "schema": {}}}}, "response_format.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema_": SCHEMA}}}, "response_format.json_schema.schema_"),
    ({"response_format": {"type": "regex", "regex": "a", "pattern": "b"}}, "response_format"),
    ({"grammar": {"type": "regex", "value": "a", "flags": "i"}}, "grammar.flags"),
    ({"structural_tag": {"structures": [{**TAG, "content": {}}], "triggers": ["<f"]}}, "structural_tag.structures[0].content"),
    ({"json_schema": SCHEMA, "guided_whitespace_pattern": " ", "structured_outputs": {"whitespace_pattern": " "}}, "structured_outputs"),
    ({"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " ", "disable_any_whitespace": True}}, "structured_outputs.whitespace_pattern"),
    ({"structured_outputs": {"json": SCHEMA, "whitespace_pattern": "("}}, "structured_outputs.whitespace_pattern"),
    ({"json_schema": SCHEMA, "guided_whitespace_pattern": "x"}, "guided_whitespace_pattern"),
    ({"tools": [TOOL], "functions": [TOOL["function"]]}, "functions"),
    # Where it means nothing.
    ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern"),
    ({"regex": "a", "guided_whitespace_pattern": " "}, "guided_whitespace_pattern"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"tools": [TOOL], "function_call": {"name": "f"}}, "function_call"),
    ({"functions": [TOOL["function"]], "tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"quern": {"samples": 2, "select": "schema"}}, "quern.select"),
    # A model that does not think.
    ({"thinking_token_budget": 5}, "thinking_token_budget"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "thinking.type"),
    ({"thinking": {"type": "disabled", "budget_tokens": 2048}}, "thinking.budget_tokens"),
    ({"reasoning_budget_message": "stop"}, "reasoning_budget_message"),
    ({"quern": {"thinking": {"hand_in": "x"}}}, "quern.thinking"),
    ({"enable_thinking": True, "reasoning_effort": "none"}, "reasoning_effort"),
    # Arguments that are no object; no prompt at all.
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]}, "tools[0].function.parameters.type"),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    # Nothing that could come.
    ({"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a("}}}}]}, "tools[0].custom.format.grammar.definition"),
    ({"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a\u0000b"}}}}]}, "tools[0].custom.format.grammar.definition"),
    ({"grammar": "root ::= \"a\"\nx ::= (\"b\""}, "grammar"),
    ({"guided_grammar": "start: \"a\" b"}, "guided_grammar"),
    ({"regex": "(a+)+$b"}, "regex"),
    ({"json_schema": {"$ref": "#"}}, "json_schema"),
    ({"json_schema": {"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False}}, "json_schema"),
]


@test
def said_twice_or_for_nothing_is_refused_by_name():
    with daemon().connect() as c:
        for more, name in SAID:
            r = take(c, CHAT, body_of(CHAT, **more), name)
            eq(r.status, 400, json.dumps(more))
    # A refusal that only the model's vocabulary can find: the form asks for letters, the list leaves none.
    r = daemon().post(CHAT, body_of(CHAT, guided_choice=["yes", "no"], allowed_token_ids=[1]))
    eq((r.status, r.error["code"]), (400, "invalid_value"))


@test
def what_is_ignored_is_named():
    with daemon().connect() as c:
        for more, named in (({"tools": [{**TOOL, "strict": True}]}, "tools.0.strict"), ({"tools": [{"type": "function", "function": {"name": "f", "input_schema": {}}}]}, "tools.0.function.input_schema"),
                            ({"tools": [{"type": "web_search"}]}, "tools.0"), ({"thinking": {"type": "adaptive", "display": "x"}}, "thinking.display"),
                            ({"frobnicate": 1}, "frobnicate"), ({"kv_transfer_params": {}}, "kv_transfer_params"), ({"tools": [TOOL], "guided_regex": "a"}, None)):
            r = take(c, CHAT, body_of(CHAT, **more))
            eq((r.status, r.header("quern-ignored")), (200, named), json.dumps(more))


@test(seconds=60)
def what_the_docs_call_honoured_is_never_named_as_ignored():
    """Both ways round: the rows of docs/api-fields.md against the header."""
    at, rows = None, {}
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/api-fields.md")) as f:
        for line in f:
            if line.startswith("## "):
                at = line[3:].strip()
            elif line.startswith("| `"):
                cells = [x.strip() for x in line.replace("\\|", "/").strip("| \n").split(" | ")]
                rows.setdefault(at, {})[cells[0].strip("`")] = cells[1]
    with daemon().connect() as c:
        for path in (CHAT, PLAIN):
            table = rows["POST " + path]
            assert len(table) > 100, len(table)
            for name, use in table.items():
                if name in ("messages", "prompt"):
                    continue
                r = take(c, path, body_of(path, **{name: []}), name, "messages")  # only IGNORED takes a list whatever it is
                listed = r.status == 200 and r.header("quern-ignored") == name
                eq(listed, use.startswith("ignored"), f"{path} {name}: {use}")


@test(seconds=60)
def odd_schemas_are_kept_or_refused():
    deep = {"type": "integer"}
    for _ in range(60):
        deep = {"type": "array", "items": deep, "maxItems": 1}
    node = {"type": "object", "properties": {"v": {"enum": [1, 2]}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["v", "next"], "additionalProperties": False}
    fine = [node, {"type": "object", "properties": {"gr\u00f6\u00dfe": {"const": 1}, "": {"const": None}, "a\"b\\\n": {"const": True}}, "required": ["gr\u00f6\u00dfe", "", "a\"b\\\n"], "additionalProperties": False},
            {"enum": [1, "1", None, True, 1.5, {"a": [1]}, []]}, {"const": None}, {"type": "string", "nullable": True, "maxLength": 1}, {"type": "array", "items": {"const": 0}, "maxItems": 10 ** 9},
            {"type": "string", "pattern": "^[\u00e4\U0001f600]{2}$"}, {"type": "object", "description": "root ::= \"x\" \u0000 {{ ]]>", "properties": {}, "additionalProperties": False},
            {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object", "properties": {"b": {"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$", "maxLength": 4}}, "required": ["b"], "additionalProperties": False}}]
    with daemon().connect() as c:
        take(c, CHAT, body_of(CHAT, json_schema=deep), "json_schema")
        for s in fine:
            r = take(c, CHAT, body_of(CHAT, json_schema=s, max_tokens=200, seed=7, temperature=1))
            eq(r.status, 200, json.dumps(s))
            choice = r.json()["choices"][0]
            if choice["finish_reason"] == "stop":
                json.loads(choice["message"]["content"])
        eq(json.loads(take(c, CHAT, body_of(CHAT, json_schema=fine[1], max_tokens=400)).json()["choices"][0]["message"]["content"]), {"gr\u00f6\u00dfe": 1, "": None, "a\"b\\\n": True})


@test(seconds=60)
def a_stop_string_inside_a_call_is_no_finished_call():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"const": "one two"}}, "required": ["a"], "additionalProperties": False}}}
    ask = body_of(CHAT, tools=[tool], tool_choice={"type": "function", "function": {"name": "f"}}, max_tokens=300)
    whole = daemon().post(CHAT, ask).json()["choices"][0]
    eq((whole["finish_reason"], json.loads(whole["message"]["tool_calls"][0]["function"]["arguments"])), ("tool_calls", {"a": "one two"}))
    cut = daemon().post(CHAT, {**ask, "stop": ["two"]}).json()["choices"][0]
    eq((cut["finish_reason"], cut["stop_reason"]), ("stop", "two"))
    ends = [c["finish_reason"] for e in daemon().stream(CHAT, {**ask, "stop": ["two"], "stream": True}) if e.data and not e.done for c in e.json()["choices"] if c["finish_reason"]]
    eq(ends, ["stop"])


@test(seconds=60)
def two_hundred_schemas_keep_memory_bounded():
    with daemon().connect() as c:
        for i in range(200):
            s = {"type": "object", "properties": {f"p{i}_{k}": {"type": "string", "pattern": f"^[a-z]{{1,{k + 1}}}$"} for k in range(10)}, "required": [f"p{i}_0"], "additionalProperties": False}
            eq(take(c, CHAT, body_of(CHAT, json_schema=s, max_tokens=2)).status, 200)
    assert daemon().metric("quern_constraints_kept") <= 64
    assert daemon().metric("quern_constraints_bytes") <= 256 << 20


if __name__ == "__main__":
    main()
