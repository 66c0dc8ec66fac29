"""Forms of an answer that are built to cost, as (name, members of a request): for tests/http/test_bombs.py and scripts/bench/constrained.py."""


def chain(keyword, depth):
    """Each definition names the next one twice: as text short, written out 2^depth long."""
    defs = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(depth)}
    return {"$defs": {**defs, f"d{depth}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


def nested(depth):
    s = {"type": "integer"}
    for i in range(depth):
        s = {"allOf": [s, {"minimum": i}]}
    return s


PAREN = 60000
REGEX = {
    "nested_counts": "((a{0,1000}){0,1000})", "deeper_counts": "((((a{1,30}){1,30}){1,30}){1,30})", "counts_within_bounds": "(([ab]{0,300}c?){0,300})",
    "nested_stars": "((a*)*)*b?", "overlapping": "(a|aa)+$", "many_optionals": "(a|b)?" * 70 + "c", "parentheses": "(" * PAREN + "a" + ")" * PAREN,
    "exponential_automaton": "(a|b)*a(a|b){400}", "two_exponential_automata": "((a|b)*a(a|b){100}|(a|b)*b(a|b){99})*", "many_classes": "(" + "|".join(f"[{chr(97 + i % 26)}-z]{{1,9}}" for i in range(900)) + ")*",
    "counted_classes": r"[\p{L}\p{N}]{900}", "unfinished": "(" * PAREN, "escapes": r"\w" * 8000,
}
GBNF = {
    "left_recursion": 'root ::= root "a" | "b"', "hidden_left_recursion": 'root ::= a root "c" | "b"\na ::= "" | a', "only_itself": "root ::= root",
    "ambiguity": 'root ::= root root | "a" | ""', "more_ambiguity": 'root ::= root root root | root root | "a" | "b"', "stars_of_stars": 'root ::= s*\ns ::= t*\nt ::= s | "a"',
    "parentheses": "root ::= " + "(" * PAREN + '"a"' + ")" * PAREN, "repeats": 'root ::= (("a"{0,1000}){0,1000}){0,1000}',
    "many_rules": "root ::= r0\n" + "\n".join(f'r{i} ::= r{i + 1} r{i + 1}' for i in range(3000)) + '\nr3000 ::= "a"',
}
LARK = {
    "left_recursion": 'start: start "a" | "b"', "ambiguity": 'start: start start | "a" |', "right_recursion": 'start: "a"* start | "b"',
    "parentheses": "start: " + "(" * PAREN + '"a"' + ")" * PAREN, "repeats": 'start: (("a"~0..1000)~0..1000)~0..1000', "patterns": "start: X\nX: /((a{0,1000}){0,1000})/",
}
SCHEMA = {
    "itself": {"$ref": "#"}, "in_a_circle": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "tree": {"type": "object", "properties": {"v": {"type": "integer"}, "c": {"type": "array", "items": {"$ref": "#"}}}, "required": ["v"]},
    "all_of_itself": {"allOf": [{"$ref": "#"}, {"type": "object"}]}, "doubling_anyOf": chain("anyOf", 25), "doubling_allOf": chain("allOf", 25),
    "doubling_oneOf": chain("oneOf", 25), "deep_allOf": nested(25), "deeper_than_json_may_be": nested(200),
    "product_of_alternatives": {"allOf": [{"anyOf": [{"required": [f"p{i}_{k}"], "properties": {f"p{i}_{k}": {"type": "string"}}} for k in range(10)]} for i in range(10)]},
    "enum_of_1000": {"enum": [f"value number {i}" for i in range(1000)]}, "enum_of_100000": {"enum": [f"value number {i}" for i in range(100000)]},
    "maxLength": {"type": "string", "maxLength": 10**9}, "minLength": {"type": "string", "minLength": 10**9}, "pattern_and_length": {"type": "string", "pattern": "^(ab|b)*$", "minLength": 10**6},
    "minItems": {"type": "array", "minItems": 10**6, "maxItems": 10**9, "items": {"type": "boolean"}}, "minProperties": {"type": "object", "minProperties": 10**5},
    "properties_4000": {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(4000)}},
    "properties_5000": {"type": "object", "properties": {f"p{i}": {} for i in range(5000)}},
    "properties_required": {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(2000)}, "required": [f"p{i}" for i in range(2000)]},
    "properties_unordered": {"type": "object", "required": [f"p{i}" for i in range(500)], "additionalProperties": {"type": "null"}},
    "overlapping_names": {"type": "object", "patternProperties": {f"^.*{a}.*{b}.*$": {"type": "integer"} for a in "abcdef" for b in "uvwxyz"}},
    "pattern": {"type": "string", "pattern": "^((a{0,1000}){0,1000})$"}, "multipleOf": {"type": "number", "multipleOf": 1e-300}, "large_bound": {"type": "integer", "minimum": -(10**18), "maximum": 10**18, "multipleOf": 999999937},
    "not_of_much": {"not": {"not": {"not": {"enum": [f"v{i}" for i in range(300)]}}}}, "unique": {"type": "array", "uniqueItems": True, "items": {"enum": list(range(400))}},
    "contains": {"type": "array", "contains": {"const": 1}, "minContains": 10**6},
}
BOMBS = [*(("regex/" + k, {"regex": v}) for k, v in REGEX.items()), *(("gbnf/" + k, {"ebnf": v}) for k, v in GBNF.items()),
         *(("lark/" + k, {"structured_outputs": {"grammar": v}}) for k, v in LARK.items()),
         *(("schema/" + k, {"response_format": {"type": "json_schema", "json_schema": {"name": "bomb", "schema": v}}}) for k, v in SCHEMA.items())]
