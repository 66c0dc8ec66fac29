#!/usr/bin/env python3
"""Where quernd finds what computes: plug-ins beside it and in ../lib/quern, exit 69 when a named device is missing or does
not work, and what "auto" says of its choice. The daemon is the real one, copied to a folder of its own; plug-ins are a few
lines of C that answer as a driver without a card would."""
import json, os, shutil, subprocess, sys, tempfile

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import BUILD, QUERND, ROOT, SLOW, Daemon, eq, main, skip, test

TINY = os.path.join(ROOT, "tests/data/tiny-llama.gguf")
PLUGIN = r"""
#include "engine/device.h"
static int probe(int device, struct qn_device_info *out, struct qn_err *err) {
    (void)device;
    *out = (struct qn_device_info){.name = "Pretend 1", .free_bytes = FREE, .total_bytes = FREE};
    return FREE ? 0 : qn_fail(err, QN_E_DEVICE, "no CUDA driver answers");
}
static int open(struct qn_backend **out, const struct qn_model_desc *d, const struct qn_backend_opts *o, struct qn_err *err) {
    (void)out, (void)d, (void)o;
    return qn_fail(err, QN_E_UNSUPPORTED, "pretends only");
}
static const struct qn_device_plugin self = {.abi = ABI, .sizes = QN_DEVICE_SIZES, .probe = probe, .open = open};
__attribute__((visibility("default"))) const struct qn_device_plugin *SYMBOL(void) { return &self; }
"""

# The yardstick under another name, which refuses weights if !FREE, and fails for good at its LOGITS-th call of logits, as a card does that fell off its bus.
FAILING = r"""
#include <math.h>
#include "engine/device.h"
static struct qn_backend_ops ops;
static const float *(*real)(struct qn_backend *, const struct qn_vec *, const int32_t *, int, const struct qn_weight *, float, const struct qn_weight *, const struct qn_weight *);
static int calls;
static const float *logits(struct qn_backend *b, const struct qn_vec *x, const int32_t *r, int n, const struct qn_weight *g, float eps, const struct qn_weight *w, const struct qn_weight *bias) {
    float *l = (float *)(uintptr_t)real(b, x, r, n, g, eps, w, bias);
    if (++calls >= LOGITS) for (int i = 0; i < n * b->desc->n_vocab; i++) l[i] = NAN;
    return l;
}
static const char *lost(const struct qn_backend *b) { return (void)b, calls >= LOGITS ? "GPU has fallen off the bus" : NULL; }
static int refuse(struct qn_backend *b, const struct qn_tensor *t, struct qn_err *err) {
    (void)b, (void)t;
    return FREE ? 0 : qn_fail(err, QN_E_UNSUPPORTED, "no kernel for these weights");
}
static int probe(int device, struct qn_device_info *out, struct qn_err *err) {
    (void)device, (void)err;
    *out = (struct qn_device_info){.name = "Pretend 1", .free_bytes = 1ULL << 40};
    return 0;
}
static int open(struct qn_backend **out, const struct qn_model_desc *d, const struct qn_backend_opts *o, struct qn_err *err) {
    int rc = qn_cpu_ref_open(out, d, o, err);
    if (rc < 0) return rc;
    ops = *(*out)->ops;
    real = ops.logits;
    ops.name = "cuda", ops.logits = logits, ops.lost = lost, ops.table = refuse;
    (*out)->ops = &ops;
    return 0;
}
static const struct qn_device_plugin self = {.abi = QN_DEVICE_ABI, .sizes = QN_DEVICE_SIZES, .probe = probe, .open = open};
__attribute__((visibility("default"))) const struct qn_device_plugin *quern_device_plugin(void) { return &self; }
"""


YARDSTICK = ("engine/base/err.c", "engine/quant.c", "engine/cpu/ref.c")


class Place:
    """A folder bin/ with quernd, beside it lib/quern/."""

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory()
        self.bin, self.lib = os.path.join(self.dir.name, "bin"), os.path.join(self.dir.name, "lib/quern")
        os.makedirs(self.bin), os.makedirs(self.lib)
        self.quernd = shutil.copy(QUERND, self.bin)
        return self

    def __exit__(self, *_):
        self.dir.cleanup()

    def plugin(self, where, text=PLUGIN, sources=("engine/base/err.c",), abi="QN_DEVICE_ABI", symbol="quern_device_plugin", free=0, logits=0):
        source = os.path.join(self.dir.name, "plugin.c")
        with open(source, "w") as f:
            f.write(text)
        subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-I", ROOT, f"-DABI={abi}", f"-DSYMBOL={symbol}", f"-DFREE={free}", f"-DLOGITS={logits}", "-o",
                        os.path.join(where, "quern-cuda.so"), source, *(os.path.join(ROOT, x) for x in sources), "-lm"], check=True)

    def run(self, device):
        """One start that must end by itself: exit code and its lines."""
        r = subprocess.run([self.quernd, "--model", TINY, "--device", device, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=30 * SLOW)
        return r.returncode, r.stderr.strip().splitlines()

    def fails(self, device, *needles, code=69):
        got, lines = self.run(device)
        eq(got, code, lines)
        eq(len(lines), 1, lines)
        for n in needles:
            assert n in lines[0], lines[0]

    def auto(self):
        """The log lines of a daemon that was started with `auto`, its /version and /metrics."""
        with Daemon(model="tiny", exe=self.quernd, flags=["--device", "auto", "--set", "log.format=json"]) as d:
            version = json.loads(d.get("/version").body)
            return [json.loads(x) for x in d.log().splitlines() if x.startswith("{")], version, d.get("/metrics").text


@test
def a_device_without_its_plugin_is_69():
    with Place() as p:
        p.fails("cuda", "device cuda:", "quern-cuda.so", p.bin, "make CUDA=1")
        p.fails("cuda:3", "device cuda:3:", "quern-cuda.so")
        p.fails("cuda-emu", "quern-cuda-emu.so")


@test
def names_that_are_no_device_are_usage():
    with Place() as p:
        for bad in ("gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:12345", "CUDA"):
            p.fails(bad, "engine.device must be", "cuda:N", code=64)


@test
def a_driver_without_a_card_is_69_and_says_so():
    with Place() as p:
        p.plugin(p.bin)
        p.fails("cuda", "no CUDA driver answers")


@test
def plugins_lie_in_lib_quern_too_and_beside_it_comes_first():
    with Place() as p:
        p.plugin(p.lib)
        p.fails("cuda", "no CUDA driver answers")
        p.plugin(p.bin, free="1ULL << 40")
        p.fails("cuda", "pretends only", code=65)


@test
def what_is_no_plugin_of_this_version_is_69():
    with Place() as p:
        p.plugin(p.bin, abi=99)
        p.fails("cuda", "another version of quernd", "built together")
        p.plugin(p.bin, symbol="something_else")
        p.fails("cuda", "another version of quernd")
        with open(os.path.join(p.bin, "quern-cuda.so"), "w") as f:
            f.write("not a library")
        p.fails("cuda", "quern-cuda.so")


@test(seconds=60)
def auto_takes_the_cpu_and_says_why():
    for free, why in ((None, "there is no quern-cuda.so"), (0, "no CUDA driver answers"), (1 << 20, "Pretend 1 has 1 MiB free"), ("1ULL << 40", "pretends only")):
        with Place() as p:
            if free is not None:
                p.plugin(p.bin, free=free)
            lines, version, metrics = p.auto()
            said = [x["message"] for x in lines if x.get("event") == "device"]
            eq(len(said), 1, lines)
            assert said[0].startswith("auto chose cpu: ") and why in said[0], said
            assert version["quern"]["device"].startswith("cpu ") and 'device="cpu ' in metrics, version


@test(seconds=60)
def auto_takes_a_card_that_works():
    with Place() as p:
        p.plugin(p.bin, text=FAILING, sources=YARDSTICK, free=1, logits=1 << 30)
        lines, version, _ = p.auto()
        assert any(x["message"].startswith("auto chose cuda: Pretend 1 has 1048576 MiB free, the model needs ") for x in lines if x["event"] == "device"), lines


@test(seconds=60)
def auto_takes_the_cpu_where_the_card_has_no_kernel_for_the_model_and_cuda_refuses():
    with Place() as p:
        p.plugin(p.bin, text=FAILING, sources=YARDSTICK, free=0, logits=1 << 30)
        lines, version, _ = p.auto()
        assert any(x["message"] == "auto chose cpu: the card cannot serve this model: no kernel for these weights" for x in lines if x["event"] == "device"), lines
        assert version["quern"]["device"].startswith("cpu "), version
        p.fails("cuda", "no kernel for these weights", code=65)


@test
def a_card_that_does_not_compute_at_the_start_is_69():
    with Place() as p:
        p.plugin(p.bin, text=FAILING, sources=YARDSTICK, free=1, logits=1)
        p.fails("cuda", "does not compute: GPU has fallen off the bus")


@test(seconds=60)
def a_card_that_fails_while_serving_ends_the_daemon_with_69():
    """Its requests get an error and no text; nothing is served by another device."""
    with Place() as p:
        p.plugin(p.bin, text=FAILING, sources=YARDSTICK, free=1, logits=6)
        with Daemon(model="tiny", exe=p.quernd, flags=["--device", "cuda", "--ctx", "128", "--max-seqs", "2"], checks=False) as d:
            r = d.post("/v1/completions", {"prompt": "the", "max_tokens": 32, "ignore_eos": True})
            assert r.status == 500 and "error" in r.json(), r
            eq(d.wait_exit(), 69)
            assert "has failed: GPU has fallen off the bus" in d.log(), d.log()


@test
def the_real_plugin_without_a_card_is_69():
    so = os.path.join(BUILD, "quern-cuda.so")
    if not os.path.exists(so):
        skip("no quern-cuda.so was built (make CUDA=1)")
    if os.path.getmtime(so) < os.path.getmtime(QUERND):
        skip("quern-cuda.so is older than quernd (make CUDA=1)")
    if os.path.exists("/dev/nvidiactl"):
        skip("there is a card")
    with Place() as p:
        shutil.copy(so, p.bin)
        p.fails("cuda", "CUDA")
        lines, _, _ = p.auto()
        assert any("auto chose cpu: " in x.get("message", "") for x in lines), lines


main()
