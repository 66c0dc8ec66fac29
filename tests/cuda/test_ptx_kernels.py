"""The tests of the CUDA kernels once more, on the PTX that nvcc makes of them (layer L3; tests/cuda/ptx). Every program of tests/cuda that
launches kernels runs twice with the same cases and the same bounds:

sm_80    mma sums in double, copies arrive as late as they may, and the program's own references decide;
sm_100   another front end of nvcc orders the code otherwise; blocks and warps run backward, and after every launch all device memory
         is compared with what the emulator makes of the same launch, bit for bit (hook.c).

The whole backend runs on sm_80 only, by the tests named here: models of every family and SmolLM2 token by token. Programs about the
emulator itself, which plant bugs or count what it counts, are left out, so are those that launch in the plug-in (serve, pipeline), where no hook
is, and so is what takes minutes.

At the end: the dynamic shared memory that kernels were launched with is what tests/cuda/budget.tsv says (nvcc cannot know it, and occupancy
depends on it), and every kernel there was launched on both."""
import glob, importlib.util, os, re, subprocess
from qtest import BUILD, ROOT, add_test, main, skip

spec = importlib.util.spec_from_file_location("cuda_budget", f"{ROOT}/scripts/cuda-budget.py")
budget = importlib.util.module_from_spec(spec)
spec.loader.exec_module(budget)

MODES = {
    "sm_80": {},
    "sm_100": {"QN_PTX_COMPARE": "1", "QN_PTX_ORDER": "reverse"},
}
LEFT_OUT = ("test_emu", "test_ptx", "test_serve", "test_pipeline", "test_sample_many")
ON_THE_HOST = ("test_weight", "test_attention_plan", "test_step")  # launch nothing
seen = {a: {} for a in MODES}  # kernel -> the most dynamic shared bytes of a launch
to_run = set()  # (program, arch) that seen does not hold yet
BACKEND = ("backend/tiny_families", "backend/logits_are", "backend/captured_steps", "backend/smollm2")


def programs():
    return sorted(x for x in glob.glob(f"{ROOT}/tests/cuda/test_*.c") if not os.path.basename(x).startswith(LEFT_OUT + ON_THE_HOST))


def run(name, arch, names=()):
    if not BUILD.endswith("release"):
        skip("the interpreter runs in the release build only")
    folder = f"{ROOT}/build/ptx/{arch}"
    if not glob.glob(f"{folder}/*.ptx"):
        skip("no PTX: it takes an nvcc 13 (scripts/deps-cuda.sh)")
    env = dict(os.environ, QN_PTX=folder, QN_PTX_TELL="1", QN_TEST_SLOW="8", **MODES[arch])
    r = subprocess.run([f"{BUILD}/tests/cuda/{name}", *names], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True, errors="replace")
    said = [x for x in r.stdout.splitlines() if not re.match(r"ok |ptx: \d+ launches|ptx: \S+ takes", x)]
    launches = sum(int(x) for x in re.findall(r"^ptx: (\d+) launches", r.stdout, re.M))
    words = sum(int(x) for x in re.findall(r"(\d+) words written", r.stdout))
    assert r.returncode == 0, "\n".join(said[-40:])
    for entry, n in re.findall(r"^ptx: (\S+) takes (\d+) bytes of dynamic", r.stdout, re.M):
        kernel = budget.plain_name(entry)
        seen[arch][kernel] = max(int(n), seen[arch].get(kernel, 0))
    to_run.discard((name, arch))
    assert launches, f"{name} launches nothing: it belongs in ON_THE_HOST"
    print(f"    {name} on {arch}: {launches} launches" + (f", {words} words are the emulator's" if words else ""))


def dynamic_shared_memory_is_what_the_budget_says():
    os.chdir(ROOT)
    rows, wrong = budget.read_budget(), []
    if to_run:
        skip(f"programs that did not run before: {len(to_run)}")
    for arch in MODES:
        for kernel in sorted(set(rows) | set(seen[arch])):
            want = budget.by_arch(rows[kernel]["dynamic"])[arch[3:]] if kernel in rows else "a row"
            got = seen[arch].get(kernel, "launched by no test")
            if str(got) != want:
                wrong.append(f"{kernel} on {arch}: {got}, budget {want}")
    assert not wrong, "dynamic shared bytes:\n" + "\n".join(wrong)


for path in programs():
    for arch in MODES:
        name = os.path.basename(path)[:-2]
        if name != "test_backend":
            to_run.add((name, arch))
            add_test(f"ptx_kernels/{name[5:]}_{arch}", lambda name=name, arch=arch: run(name, arch), seconds=600)
add_test("ptx_kernels/backend_sm_80", lambda: run("test_backend", "sm_80", BACKEND), seconds=900)
add_test("ptx_kernels/dynamic_shared_memory_is_what_the_budget_says", dynamic_shared_memory_is_what_the_budget_says)

main()
