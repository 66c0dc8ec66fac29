"""Daemons for the tests of the front end: real() is quernd with the committed tiny model, fake() the same front end with a
scripted api behind it (fake_api.c), where a stream's size and pace are the test's choice."""
import os

from qtest import BUILD, ROOT, Daemon, shared_daemon

FAKE = os.path.join(BUILD, "fake-quernd")
NO_MODEL = os.path.join(ROOT, "tests/http/fake_api.c")  # any file that exists


def fake(*flags, **kw):
    return shared_daemon(NO_MODEL, list(flags), exe=FAKE, **kw)


def own_fake(*flags, **kw):
    return Daemon(NO_MODEL, list(flags), exe=FAKE, **kw)


def real(*flags, **kw):
    if os.environ.get("QN_FRONT_FAKE"):
        return fake(*flags, **kw)
    return shared_daemon("tiny", list(flags), **kw)
