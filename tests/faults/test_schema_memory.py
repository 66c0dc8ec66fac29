#!/usr/bin/env python3
"""The n-th allocation fails while a schema is compiled and run: the compile is refused, or it accepts no text that it refuses with all its
memory. Never a signal. failing.c is preloaded into tests/tools/schema_match."""
import json, os, subprocess

from fault import Fault, spread
from qtest import BUILD, main, test

SCHEMA = {"oneOf": [{"type": "object", "properties": {"k": {"enum": ["a", {"x": 1}, [2]]}, "n": {"$ref": "#"}}, "required": ["k"], "additionalProperties": False},
                    {"type": "object", "properties": {"k": {"const": "a"}, "m": {"type": "integer", "multipleOf": 7, "minimum": 3}}, "additionalProperties": False},
                    {"type": "array", "prefixItems": [{"not": {"enum": ["z", [1]]}}], "contains": {"type": "null"}, "maxItems": 4}],
          "not": {"anyOf": [{"type": "object", "required": ["q"]}, {"type": "array", "maxItems": 1}]}}
TEXTS = ['{"k":"a"}', '{"k":{"x":1}}', '{"k":{"x":2}}', '{"k":[2],"n":{"m":14}}', '{"m":14}', '{"m":15}', '{"k":"a","m":7}', '{"k":"b"}', '{"q":1}', '{}',
         "[null]", "[1,null]", '["z",null]', "[[1],null]", "[[2],null]", "[1,2]", "[null,1,2,3,4]", "3", '""']


class Tool:
    def __init__(self, env):
        self.p = subprocess.Popen([os.path.join(BUILD, "tests/tools/schema_match")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **env}, text=True)

    def ask(self, line):
        self.p.stdin.write(line)
        self.p.stdin.flush()
        return self.p.stdout.readline()


@test(seconds=240)
def a_schema_without_memory_is_refused_and_never_loosened():
    f, line, big = Fault(), json.dumps({"schema": SCHEMA, "texts": TEXTS}) + "\n", 1 << 40
    tool = Tool(f.env)
    want = json.loads(tool.ask(line))["accepts"]
    assert True in want and False in want, want
    f.arm(big)
    tool.ask(line)
    n = big - f.left
    refused = narrower = 0
    for at in spread(n, 400):
        f.arm(at)
        answer = tool.ask(line)
        f.arm(0)
        if tool.p.poll() is not None or not answer:
            assert tool.p.wait() == 1, f"allocation {at} of {n}: exit {tool.p.wait()}"  # the program's own: no grammar at all
            tool = Tool(f.env)
            continue
        try:
            accepts = json.loads(answer).get("accepts")
        except ValueError:  # the answer itself was not written
            continue
        refused += accepts is None
        for text, got, right in zip(TEXTS, accepts or [], want):
            assert not got or right, f"allocation {at} of {n}: {text} is accepted"
            narrower += right and not got
    print(f"    {n} allocations; {refused} refusals, {narrower} texts fewer")
    assert refused > 10, refused
    tool.p.stdin.close()
    assert tool.p.wait() == 0


main()
