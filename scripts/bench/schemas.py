#!/usr/bin/env python3
"""JSON Schemas through our compiler, llguidance and xgrammar: how many compile, in what time, and whether what the automaton lets through is valid.

    scripts/bench/schemas.py FILE [WALKS]      a line of FILE (gzip or not) is {"name", "schema"}

Needs a Python with jsonschema, llguidance and xgrammar (pip; the versions are printed). Each engine walks at random over a vocabulary of
single bytes: among the bytes that its mask allows, closing ones likelier, as tests/tools/schema_match.c does. A schema is HELD when it compiles and all
its finished walks validate with jsonschema, numbers compared as decimals. An engine that crashes or is stuck for a minute fails the schema."""
import decimal, gzip, importlib.metadata, json, os, random, select, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LENGTH, LONGEST, STUCK_S = 300, 3000, 60
EOS = 256


def peer_llguidance():
    import llguidance as ll

    class Bytes:
        eos_token_id, bos_token_id, special_token_ids = EOS, None, [EOS]
        tokens = [bytes([i]) for i in range(256)] + [b"</s>"]

        def __call__(self, text):
            return list(text if isinstance(text, bytes) else text.encode())

    tok = ll.LLTokenizer(ll.TokenizerWrapper(Bytes()))

    def compile(schema):
        grammar = ll.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        m = ll.LLMatcher(tok, grammar)
        if m.is_error():
            raise ValueError(m.get_error())
        return grammar

    def start(grammar):
        m = ll.LLMatcher(tok, grammar)

        def allowed():
            bits = m.compute_bitmask()
            return {i for i in range(257) if bits[i // 8] >> (i % 8) & 1} if not m.is_stopped() else {EOS}
        return allowed, m.consume_token
    return compile, start


def peer_xgrammar():
    import torch, xgrammar as xgr
    info = xgr.TokenizerInfo([bytes([i]) for i in range(256)] + [b"</s>"], vocab_type=xgr.VocabType.RAW, stop_token_ids=[EOS])
    compiler = xgr.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile(schema):
        return compiler.compile_json_schema(json.dumps(schema), strict_mode=False)

    def start(compiled):
        m, mask = xgr.GrammarMatcher(compiled), xgr.allocate_token_bitmask(1, 257)

        def allowed():
            if m.is_terminated():
                return {EOS}
            m.fill_next_token_bitmask(mask)
            bits = mask[0].tolist()
            return {i for i in range(257) if bits[i // 32] >> (i % 32) & 1}
        return allowed, m.accept_token
    return compile, start


def walk(start, grammar, r):
    allowed, take = start(grammar)
    out, in_string, escaped = bytearray(), False, False
    while len(out) < LONGEST:
        may = allowed()
        if not may or (EOS in may and (len(out) > LENGTH or len(may) == 1 or r.random() < 0.25)):
            break
        may.discard(EOS)
        closing = [b for b in (b'"' if in_string else b"}]") if b in may] if len(out) > LENGTH or r.random() < 0.125 else []
        plain = [b for b in may if 0x20 < b < 0x7F]
        b = closing[0] if closing else r.choice(plain or list(may))
        take(b)
        out.append(b)
        if escaped: escaped = False
        elif b == 0x5C: escaped = in_string
        elif b == 0x22: in_string = not in_string
    return None if len(out) >= LONGEST else out.decode(errors="replace")


def worker(peer, path, walks):
    """Answers line by line; the number of the first schema comes as an argument."""
    compile, start = {"llguidance": peer_llguidance, "xgrammar": peer_xgrammar}[peer]()
    for i, d in list(enumerate(load(path)))[int(sys.argv[4]):]:
        t, answer = time.monotonic(), {}
        try:
            g = compile(d["schema"])
            answer["ms"] = (time.monotonic() - t) * 1e3
            answer["walks"] = [walk(start, g, random.Random(i * 100 + k)) for k in range(walks)]
        except Exception as e:  # noqa: BLE001 whatever the peer throws
            answer = {"message": str(e).replace("\n", " ")[:200]} if "ms" not in answer else dict(answer, walks=[], message=str(e)[:200])
        print(json.dumps(answer), flush=True)


def load(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        return [json.loads(x) for x in f]


def run_peer(peer, path, n, walks):
    out = []
    while len(out) < n:
        p = subprocess.Popen([sys.executable, os.path.abspath(__file__), path, str(walks), peer, str(len(out))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while len(out) < n:
            line = p.stdout.readline() if select.select([p.stdout], [], [], STUCK_S)[0] else b""
            if not line:
                out.append({"message": "crashed or stuck"})
                break
            out.append(json.loads(line))
        p.kill()
        p.wait()
    return out


def run_ours(docs, walks):
    lines = "".join(json.dumps({"schema": d["schema"], "walks": walks, "seed": 5, "length": LENGTH}) + "\n" for d in docs)
    p = subprocess.run([os.path.join(ROOT, "build/release/tests/tools/schema_match")], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(x) for x in p.stdout.decode().splitlines()]


def valid(schema, text):
    import jsonschema
    read = lambda t: json.loads(t, parse_float=decimal.Decimal)  # noqa: E731
    try:
        s = read(json.dumps(schema))
        cls = jsonschema.validators.validator_for(s)
        return cls(s, format_checker=cls.FORMAT_CHECKER).is_valid(read(text))
    except json.JSONDecodeError:
        return False
    except Exception:  # noqa: BLE001 the reference fails on the schema
        return True


def report(name, docs, answers):
    compiled = held = invalid = walks = unfinished = 0
    for d, a in zip(docs, answers):
        if "walks" not in a:
            continue
        compiled += 1
        done = [w for w in a["walks"] if w is not None]
        good = [valid(d["schema"], w) for w in done]
        unfinished += len(a["walks"]) - len(done)
        walks += len(done)
        invalid += good.count(False)
        held += all(good) and not (a.get("message"))
    ms = sorted(a["ms"] for a in answers if "walks" in a and "ms" in a) or [0]
    print(f"{name:24} {compiled:8} {held:6} {walks:6} {invalid:8} {unfinished:11} {ms[len(ms) // 2]:8.2f} {ms[int(len(ms) * .99)]:8.2f}", flush=True)


def main():
    path, walks = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4
    if len(sys.argv) > 4:
        return worker(sys.argv[3], path, walks)
    docs = load(path)
    print(f"{len(docs)} schemas, {walks} walks each")
    print("engine                   compiled   held  walks  invalid  unfinished   p50 ms   p99 ms")
    report("quern", docs, run_ours(docs, walks))
    for peer in ("llguidance", "xgrammar"):
        try:
            name = f"{peer} {importlib.metadata.version(peer)}"
        except importlib.metadata.PackageNotFoundError:
            print(f"{peer}: not installed")
            continue
        report(name, docs, run_peer(peer, path, len(docs), walks))


main()
