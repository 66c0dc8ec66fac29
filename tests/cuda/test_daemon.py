#!/usr/bin/env python3
"""The whole daemon with `device: cuda-emu`: the CUDA backend as a plug-in over the emulator, asked by HTTP. Greedy answers of tiny models of
every family and of SmolLM2 are the CPU backend's; a request's bits are the same alone, together with others, in other prefill chunks, and
with streams drained late. Nothing here says how fast a card is."""
import concurrent.futures, json, os, sys

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import BUILD, CACHE, ROOT, Daemon, eq, main, shared_daemon, skip, test

EMU = os.path.join(BUILD, "quern-cuda-emu.so")
SMOL = "smollm2-135m-instruct-q4_1"
FAMILIES = ("llama", "llama3", "llama-linear", "qwen2", "qwen2-yarn", "qwen3", "gemma3")
PROMPTS = ["The capital of France is", "an and the in of", "I", "one two three four five six seven", "the the the the", "What is on the table? Nothing."]
SMALL = ["--ctx", "256", "--set", "engine.kv_bytes=64M", "--max-seqs", "8"]


def tiny(family):
    return os.path.join(ROOT, f"tests/data/tiny-{family}.gguf")


def need_emulator():
    if not os.path.exists(EMU):
        skip("no quern-cuda-emu.so was built (make cuda-emu)")


def serve(model, device, *flags, **kw):
    return Daemon(model, ["--device", device, *SMALL, *flags], **kw)


def ask(d, prompt, n=8):
    """Tokens and log-probabilities of a greedy answer, as the reply has them."""
    r = d.post("/v1/completions", {"prompt": prompt, "max_tokens": n, "temperature": 0, "logprobs": 3, "ignore_eos": True}, timeout=120)
    eq(r.status, 200, r.body[:300])
    lp = r.json()["choices"][0]["logprobs"]
    return lp["tokens"], lp["token_logprobs"], lp["top_logprobs"]


def together(d, prompts, n=8):
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda p: ask(d, p, n), prompts))


@test
def version_and_metrics_name_the_device():
    need_emulator()
    with serve("tiny", "cuda-emu") as d:
        device = d.get("/version").json()["quern"]["device"]
        assert device.startswith("cuda-emu:0 ") and "sm_" in device, device
        assert f'device="{device}"' in d.get("/metrics").text
        assert d.metric("quern_kv_pool_bytes") > 0


@test(seconds=120)
def every_family_says_what_the_cpu_says():
    """Log-probabilities: the weights are f16, the card's activations too (relative 2^-11 each), and logits reach 6."""
    need_emulator()
    for f in FAMILIES:
        with serve(tiny(f), "cuda-emu") as card, serve(tiny(f), "cpu") as cpu:
            for p in PROMPTS[:3]:
                got, want = ask(card, p), ask(cpu, p)
                eq(got[0], want[0], f"{f}, {p!r}")
                far = max(abs(a - b) for a, b in zip(got[1], want[1]))
                assert far < 3e-2, f"{f}, {p!r}: {far}"


@test(seconds=120)
def bits_do_not_depend_on_company_chunks_or_streams():
    need_emulator()
    want = None
    for flags, env in (((), {}), (("--set", "engine.prefill_chunk=3"), {}), (("--set", "engine.step_rows=9", "--set", "engine.prefill_chunk=5"), {}),
                       ((), {"QN_EMU_STREAMS": "lazy", "QN_EMU_ORDER": "random:5"})):
        with serve(tiny("qwen3"), "cuda-emu", *flags, env=env) as d:
            alone = [ask(d, p) for p in PROMPTS]
            want = want or alone
            for got in (alone, together(d, PROMPTS), together(d, PROMPTS[::-1])[::-1]):
                eq(got, want, f"{flags} {env}")
            assert d.metric("quern_steps_overlapped_total") > 0


@test(seconds=60)
def sampled_answers_are_the_cpus_or_their_own_again():
    """Draws are a function of seed and position: the same request twice, alone and beside others."""
    need_emulator()
    with serve("tiny", "cuda-emu") as d:
        body = {"prompt": "the", "max_tokens": 12, "temperature": 0.8, "seed": 7, "logprobs": 1, "ignore_eos": True, "n": 3}
        first = d.post("/v1/completions", body).json()["choices"]
        together(d, PROMPTS[:3])
        eq(d.post("/v1/completions", body).json()["choices"], first)


@test
def a_pool_that_was_not_given_is_sized_by_what_is_left():
    need_emulator()
    with Daemon("tiny", ["--device", "cuda-emu", "--ctx", "128", "--max-seqs", "2"]) as d:
        ask(d, PROMPTS[0])
        assert d.metric("quern_kv_blocks_total") >= 9


@test
def kv_types_that_cards_lack_are_refused_by_name():
    need_emulator()
    d = Daemon("tiny", ["--device", "cuda-emu", *SMALL, "--set", "engine.kv_type=q8_0"], wait=False, checks=False)
    eq(d.wait_exit(), 78)
    assert "engine.kv_type" in d.log(), d.log()


@test(seconds=240)
def smollm2_says_what_the_cpu_says():
    need_emulator()
    if not os.path.exists(os.path.join(CACHE, "models", SMOL + ".gguf")):
        skip(f"the model {SMOL} is not in the cache")
    with serve(SMOL, "cpu") as cpu:
        want = ask(cpu, PROMPTS[0])
    with serve(SMOL, "cuda-emu", ready_seconds=120) as card:
        got = ask(card, PROMPTS[0])
    eq(got[0], want[0])
    far = max(abs(a - b) for a, b in zip(got[1], want[1]))
    assert far < 0.15, far


main()
