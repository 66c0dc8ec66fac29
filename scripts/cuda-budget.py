#!/usr/bin/env python3
"""What the CUDA kernels cost on the cards they are built for, without one: compiles engine/cuda/*.cu for sm_80, sm_90, sm_100 and sm_120
with warnings as errors and compares registers, shared memory, occupancy and instructions with tests/cuda/budget.tsv.

    cuda-budget.py            compares; prints each kernel that is over its budget, lost an instruction or has no row; exit 1 then
    cuda-budget.py --write    rewrites the rows from what was measured (columns `dynamic` and `local` stay); review the diff
    cuda-budget.py --table    prints what was measured

Exit 69 with one line when there is no nvcc 13 (scripts/deps-cuda.sh). A row holds, by architecture where they differ (80/90/100/120):
  kernel     plain name and template arguments
  threads    of a block, from its launch bounds
  dynamic    bytes of dynamic shared memory that its launcher asks for; by hand, held to by tests/cuda/test_ptx_kernels.py
  registers  at most so many, a multiple of 8 as the card hands them out
  shared     static bytes, at most
  warps      on a multiprocessor, at least: by registers, shared memory and block slots
  local      bytes of local memory (spills, arrays indexed by variables), at most; 0 unless somebody writes a number here by hand
  sass       instructions that must be there: HMMA IMMA (mma), IDP (dp4a), LDSM (ldmatrix), LDGSTS (cp.async), LDG128 STG128 LDS128
             STS128 (16 bytes a thread)

Occupancy is the arithmetic of the CUDA programming guide's tables (compute capabilities) and of the occupancy calculator: registers go
out in units of 256 a warp from four parts of 16384; shared memory in units of 128 bytes with 1 KiB of the system's a block.
"""
import concurrent.futures, glob, hashlib, json, os, re, struct, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUDGET = "tests/cuda/budget.tsv"
ARCHS = ("80", "90", "100", "120")
# warps and blocks a multiprocessor holds, its shared memory, what a block may have
CARDS = {"80": (64, 32, 164 << 10, 163 << 10), "90": (64, 32, 228 << 10, 227 << 10), "100": (64, 32, 228 << 10, 227 << 10), "120": (48, 24, 100 << 10, 99 << 10)}
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-I.", "-Werror", "all-warnings", "-Xptxas", "-v"]  # as cuda.mk builds them
COLUMNS = ("kernel", "threads", "dynamic", "registers", "shared", "warps", "local", "sass")
SASS = {
    "HMMA": r"\bHMMA\.", "IMMA": r"\bIMMA\.", "IDP": r"\bIDP\.", "LDSM": r"\bLDSM\.", "LDGSTS": r"\bLDGSTS\.",
    "LDG128": r"\bLDG\.[\w.]*128", "STG128": r"\bSTG\.[\w.]*128", "LDS128": r"\bLDS\.[\w.]*128", "STS128": r"\bSTS\.[\w.]*128",
}


class Stop(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def tools():
    r = subprocess.run(["scripts/deps-cuda.sh", "--have"], capture_output=True, text=True)
    if r.returncode:
        raise Stop(69, r.stderr.strip() or "no nvcc 13")
    nvcc = r.stdout.strip()
    for d in [os.path.dirname(os.path.realpath(nvcc))] + os.environ.get("PATH", "").split(":"):
        if os.access(os.path.join(d, "nvdisasm"), os.X_OK):
            return nvcc, os.path.join(d, "nvdisasm")
    raise Stop(69, "no nvdisasm beside nvcc or in PATH (scripts/deps-cuda.sh fetches both)")


def plain_name(mangled):
    """_Z4rowsILi4ELb1EEvPf -> rows<4,1>, also in the anonymous namespace, whose name depends on the file; others as they are."""
    m = re.match(r"_ZN?L?(\d+)", mangled)
    while m and mangled[m.end():].startswith("_GLOBAL__N_"):
        mangled = "_Z" + mangled[m.end() + int(m.group(1)):]
        m = re.match(r"_ZL?(\d+)", mangled)
    if not m or mangled.startswith("_ZN"):
        return mangled
    end = m.end() + int(m.group(1))
    name, rest = mangled[m.end():end], mangled[end:]
    if not rest.startswith("I"):
        return name
    values = re.match(r"I((?:L[a-z]n?\d+E)+)E", rest)
    return f"{name}<{','.join(re.findall(r'L[a-z](n?[0-9]+)E', values.group(1))).replace('n', '-')}>" if values else mangled


# ---- measuring --------------------------------------------------------------------------------------------------------

def block_sizes(cubin):
    """Threads of a block for each kernel: attribute MAX_THREADS (5) of section .nv.info.KERNEL of the ELF file."""
    d = open(cubin, "rb").read()
    at, = struct.unpack_from("<Q", d, 40)
    size, n, names = struct.unpack_from("<HHH", d, 58)
    sections = [struct.unpack_from("<IIQQQQ", d, at + i * size) for i in range(n)]
    text = lambda o: d[sections[names][4] + o:d.index(b"\0", sections[names][4] + o)].decode()  # noqa: E731
    found = {}
    for s in sections:
        if not text(s[0]).startswith(".nv.info."):
            continue
        b, i = d[s[4]:s[4] + s[5]], 0
        while i < len(b):
            form, attribute = b[i], b[i + 1]
            length = struct.unpack_from("<H", b, i + 2)[0] if form == 4 else 0
            if form == 4 and attribute == 5:
                x, y, z = struct.unpack_from("<III", b, i + 4)
                found[text(s[0])[len(".nv.info."):]] = x * y * z
            i += 4 + length
    return found


def instructions(nvdisasm, cubin):
    out = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True)
    if out.returncode:
        raise Stop(1, f"nvdisasm: {out.stderr.strip()}")
    kernels = {}
    for part in re.split(r"^\s*\.section\s+", out.stdout, flags=re.M)[1:]:
        name = re.match(r"\.text\.([\w$]+)", part)
        if name:
            kernels[name.group(1)] = sorted(k for k, p in SASS.items() if re.search(p, part))
    return kernels


def parse_ptxas(text):
    found, name = {}, None
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '([\w$]+)'", line):
            name = m.group(1)
            found[name] = {"shared": 0}
        elif name and (m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)):
            found[name]["local"] = max(map(int, m.groups()))
        elif name and (m := re.search(r"Used (\d+) registers", line)):
            found[name]["registers"] = int(m.group(1))
            smem = re.search(r"(\d+) bytes smem", line)
            found[name]["shared"] = int(smem.group(1)) if smem else 0
            name = None
    return found


def included(path, seen):
    """The file and our headers that it includes."""
    if path not in seen and os.path.exists(path):
        seen.add(path)
        for header in re.findall(r'^#include "([^"]+)"', open(path).read(), re.M):
            included(header, seen)
    return seen


def compile_one(nvcc, nvdisasm, path, arch):
    """{kernel: figures}; kept in build/ under a name made of everything that goes in."""
    key = hashlib.sha256(" ".join([open(nvcc, "rb").read(1 << 16).hex(), arch, str(SASS)] + FLAGS).encode())
    for f in sorted(included(path, set())):
        key.update(open(f, "rb").read())
    stem = f"build/cuda-budget/{os.path.basename(path)[:-3]}.{arch}"
    kept = f"{stem}.{key.hexdigest()[:16]}.json"
    if os.path.exists(kept):
        return json.load(open(kept))
    for old in glob.glob(f"{stem}.*"):
        os.unlink(old)
    r = subprocess.run([nvcc, *FLAGS, f"-arch=sm_{arch}", "-cubin", "-o", f"{stem}.cubin", path], capture_output=True, text=True)
    complaints = [x for x in (r.stdout + r.stderr).splitlines() if re.search(r"warning|error", x, re.I)]
    kernels = parse_ptxas(r.stderr)
    if r.returncode or not kernels:
        raise Stop(1, f"{path} for sm_{arch}:\n    " + "\n    ".join(complaints or (r.stdout + r.stderr).splitlines()[-10:]))
    sizes, sass = block_sizes(f"{stem}.cubin"), instructions(nvdisasm, f"{stem}.cubin")
    os.unlink(f"{stem}.cubin")
    out = {}
    for name, k in kernels.items():
        out[plain_name(name)] = dict(k, threads=sizes.get(name, 0), sass=sass[name], file=path, complaints=[x for x in complaints if name in x])
    json.dump(out, open(kept, "w"))
    return out


def measure():
    nvcc, nvdisasm = tools()
    os.makedirs("build/cuda-budget", exist_ok=True)
    measured = {}  # kernel -> arch -> figures
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = {(p, a): pool.submit(compile_one, nvcc, nvdisasm, p, a) for p in sorted(glob.glob("engine/cuda/*.cu")) for a in ARCHS}
        for (path, arch), job in jobs.items():
            for kernel, k in job.result().items():
                if arch in measured.setdefault(kernel, {}):
                    raise Stop(1, f"two kernels are called {kernel}: {measured[kernel][arch]['file']} and {path}")
                measured[kernel][arch] = k
    return measured


def warps(arch, threads, registers, shared):
    """Warps on a multiprocessor; 0 if a block does not fit."""
    warps_max, blocks_max, shared_sm, shared_block = CARDS[arch]
    per_block = (threads + 31) // 32
    if not per_block or shared > shared_block:
        return 0
    by_registers = 4 * (16384 // max(256, (registers * 32 + 255) // 256 * 256))
    by_shared = shared_sm // ((shared + 1024 + 127) // 128 * 128)
    return per_block * min(warps_max // per_block, blocks_max, by_registers // per_block, by_shared)


# ---- the budget file --------------------------------------------------------------------------------------------------

def by_arch(text):
    v = text.split("/")
    return dict(zip(ARCHS, v * len(ARCHS) if len(v) == 1 else v))


def joined(values):
    v = [str(values[a]) for a in ARCHS]
    return v[0] if len(set(v)) == 1 else "/".join(v)


def read_budget():
    rows = {}
    if not os.path.exists(BUDGET):
        return rows
    for n, line in enumerate(open(BUDGET), 1):
        if line.startswith("#") or not line.strip():
            continue
        cells = line.rstrip("\n").split("\t")
        if len(cells) != len(COLUMNS):
            raise Stop(1, f"{BUDGET}:{n}: {len(cells)} columns, not {len(COLUMNS)}")
        rows[cells[0]] = dict(zip(COLUMNS, cells))
    return rows


def common_sass(kernel):
    return sorted(set.intersection(*(set(kernel[a]["sass"]) for a in ARCHS)))


def write_budget(measured, old):
    with open(BUDGET, "w") as f:
        f.write("# What kernels may cost; scripts/cuda-budget.py says what the columns mean, checks them and writes them. Values by\n")
        f.write("# architecture, sm_80/90/100/120, where they differ.\n#" + "\t".join(COLUMNS) + "\n")
        for kernel in sorted(measured):
            k, was = measured[kernel], old.get(kernel, {})
            dynamic = was.get("dynamic", "0")
            registers = {a: (k[a]["registers"] + 7) // 8 * 8 for a in ARCHS}
            row = {
                "kernel": kernel, "threads": joined({a: k[a]["threads"] for a in ARCHS}), "dynamic": dynamic, "registers": joined(registers),
                "shared": joined({a: k[a]["shared"] for a in ARCHS}), "local": was.get("local", "0"), "sass": ",".join(common_sass(k)) or "-",
                "warps": joined({a: warps(a, k[a]["threads"], registers[a], k[a]["shared"] + int(by_arch(dynamic)[a])) for a in ARCHS}),
            }
            f.write("\t".join(row[c] for c in COLUMNS) + "\n")


def compare(measured, rows):
    wrong = [f"{k}: in {BUDGET}, but no file of engine/cuda has it" for k in rows if k not in measured]
    for kernel in sorted(measured):
        if kernel not in rows:
            wrong.append(f"{kernel} ({measured[kernel][ARCHS[0]]['file']}): has no row in {BUDGET}")
            continue
        row = rows[kernel]
        want = {c: by_arch(row[c]) for c in ("threads", "dynamic", "registers", "shared", "warps", "local")}
        needed = set() if row["sass"] == "-" else set(row["sass"].split(","))
        for a in ARCHS:
            k = measured[kernel][a]
            say = lambda what, got, limit, k=k, a=a: wrong.append(f"{kernel} ({k['file']}) on sm_{a}: {what} {got}, budget {limit}")  # noqa: E731
            if k["threads"] != int(want["threads"][a]):
                say("threads", k["threads"], want["threads"][a])
            for c in ("registers", "shared", "local"):
                if k[c] > int(want[c][a]):
                    say({"registers": "registers", "shared": "static shared bytes", "local": "bytes of local memory or spills"}[c], k[c], want[c][a])
            got = warps(a, k["threads"], k["registers"], k["shared"] + int(want["dynamic"][a]))
            if got < int(want["warps"][a]) or got == 0:
                say("warps", got, want["warps"][a] if got else "a block that fits")
            for s in sorted(needed - set(k["sass"])):
                say("instruction", "missing", s)
            if k["complaints"] and int(want["local"][a]) == 0:
                say("ptxas:", k["complaints"][0], "no warnings")
    return wrong


def main(argv):
    os.chdir(ROOT)
    try:
        if argv not in ([], ["--write"], ["--table"]):
            raise Stop(64, "usage: cuda-budget.py [--write | --table]")
        measured, rows = measure(), read_budget()
        if argv == ["--write"]:
            write_budget(measured, rows)
        elif argv == ["--table"]:
            for kernel in sorted(measured):
                for a in ARCHS:
                    k = measured[kernel][a]
                    print(f"{kernel}\tsm_{a}\t{k['threads']} threads\t{k['registers']} registers\t{k['shared']} shared\t{k['local']} local\t{','.join(k['sass'])}")
        else:
            wrong = compare(measured, rows)
            print("\n".join(wrong) if wrong else f"{len(measured)} kernels within their budgets on sm_{', sm_'.join(ARCHS)}")
            return 1 if wrong else 0
    except Stop as e:
        print(f"cuda-budget: {e}", file=sys.stderr)
        return e.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
