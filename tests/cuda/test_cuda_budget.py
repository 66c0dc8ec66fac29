"""Layer L1: every kernel of engine/cuda within the budget of tests/cuda/budget.tsv on four architectures (scripts/cuda-budget.py), and
that script's own arithmetic, on figures that NVIDIA's occupancy calculator gives."""
import importlib.util, os, subprocess, sys
from qtest import BUILD, ROOT, eq, main, skip, test

spec = importlib.util.spec_from_file_location("cuda_budget", f"{ROOT}/scripts/cuda-budget.py")
budget = importlib.util.module_from_spec(spec)
spec.loader.exec_module(budget)


@test(seconds=900)
def kernels_stay_within_their_budgets():
    if not BUILD.endswith("release"):
        skip("compiled for cards once, beside the release build")
    r = subprocess.run([sys.executable, f"{ROOT}/scripts/cuda-budget.py"], capture_output=True, text=True)
    if r.returncode == 69:
        skip(r.stderr.strip())
    print(r.stdout.strip()[-6000:])
    assert r.returncode == 0, (r.stdout + r.stderr)[-6000:] + "\n(if it is meant: scripts/cuda-budget.py --write, and review the diff)"


@test
def occupancy_is_the_calculators():
    # (arch, threads, registers, shared bytes) -> warps. Worked out by the rules of the calculator: registers in units of 256 a warp
    # from four parts, shared memory in 128 bytes with 1 KiB of the system's.
    for arch, threads, registers, shared, want in (
        ("80", 256, 32, 0, 64), ("80", 256, 33, 0, 48), ("80", 256, 64, 0, 32), ("80", 256, 255, 0, 8), ("80", 1024, 65, 0, 0), ("80", 128, 168, 0, 12), ("80", 32, 16, 0, 32),
        ("80", 256, 32, 48 << 10, 24), ("90", 256, 32, 48 << 10, 32), ("90", 128, 32, 227 << 10, 4), ("90", 128, 32, (227 << 10) + 1, 0), ("120", 256, 32, 0, 48), ("120", 512, 40, 0, 48),
        ("120", 64, 32, 0, 48), ("120", 32, 32, 0, 24), ("120", 128, 32, 99 << 10, 4), ("120", 128, 32, 50 << 10, 4), ("100", 1024, 32, 0, 64),
    ):
        eq(budget.warps(arch, threads, registers, shared), want, f"sm_{arch} {threads} threads {registers} registers {shared} shared")


@test
def reports_are_read():
    text = """ptxas info    : Compiling entry function '_Z3rmsPf' for 'sm_80'
ptxas info    : Function properties for _Z3rmsPf
    8 bytes stack frame, 16 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 28 registers, used 1 barriers, 1280 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_Z4rowsILi4ELb1EEvPf' for 'sm_80'
ptxas info    : Function properties for _Z4rowsILi4ELb1EEvPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers
"""
    eq(budget.parse_ptxas(text), {"_Z3rmsPf": {"shared": 1280, "local": 16, "registers": 28}, "_Z4rowsILi4ELb1EEvPf": {"shared": 0, "local": 0, "registers": 255}})
    eq([budget.plain_name(x) for x in ("_Z3rmsPf", "_Z4rowsILi4ELb1EEvPf", "_Z4rowsILin4EEvv", "_ZN1a1bEv", "_ZN17_GLOBAL__N__x_cu_6attendILi64EEEvv")], ["rms", "rows<4,1>", "rows<-4>", "_ZN1a1bEv", "attend<64>"])


@test
def what_went_over_is_named():
    k = {"threads": 256, "registers": 40, "shared": 0, "local": 0, "sass": ["IDP"], "file": "f.cu", "complaints": []}
    measured = {"good": {a: dict(k) for a in budget.ARCHS}, "bad": {a: dict(k) for a in budget.ARCHS}, "new": {a: dict(k) for a in budget.ARCHS}}
    measured["bad"]["90"].update(registers=41, local=8, sass=[])
    row = dict(threads="256", dynamic="0", registers="40", shared="0", warps="48/48/48/48", local="0", sass="IDP")
    row["warps"] = "48/48/48/48"
    wrong = budget.compare(measured, {"good": row, "bad": row, "gone": row})
    said = "\n".join(wrong)
    for part in ("gone: in", "new (f.cu): has no row", "bad (f.cu) on sm_90: registers 41, budget 40", "bad (f.cu) on sm_90: bytes of local memory or spills 8", "bad (f.cu) on sm_90: instruction missing, budget IDP"):
        assert part in said, f"{part} not in:\n{said}"
    assert "good" not in said and "sm_80" not in said, said


main()
