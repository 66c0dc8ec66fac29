"""The n-th allocation of a program fails: tests/faults/failing.c preloaded, and the countdown that it shares with the test."""
import mmap, os, struct, subprocess, tempfile

from qtest import BUILD, ROOT, SLOW, skip


class Fault:
    """The countdown that quernd's allocations run down."""

    def __init__(self):
        if SLOW > 1:
            skip("a sanitizer has an allocator of its own")
        self.so = os.path.join(BUILD, "failing.so")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", self.so, os.path.join(ROOT, "tests/faults/failing.c"), "-ldl"], check=True)
        self.file = tempfile.NamedTemporaryFile()
        self.file.write(bytes(16))
        self.file.flush()
        self.map = mmap.mmap(self.file.fileno(), 16)
        self.env = {"LD_PRELOAD": self.so, "QN_FAIL_FILE": self.file.name}

    def arm(self, left, sticky=0):
        self.map[0:16] = struct.pack("<qq", left, sticky)

    @property
    def left(self):
        return struct.unpack("<q", self.map[0:8])[0]


def spread(n, points):
    """Every number up to points/2, then further and further apart up to n."""
    out, x = [], 1.0
    while x <= n:
        out.append(int(x))
        x = max(x + 1, x * (n / (points / 2)) ** (2 / points)) if x >= points / 2 else x + 1
    return out
