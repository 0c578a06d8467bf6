"""`make fresh`: what it reads of this machine, what it hands through, when it refuses, and that it leaves nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fresh
import pytest
from fresh import Machine, Source
from support import needs

DEBIAN, SECURITY = "http://mirror.example/debian", "http://mirror.example/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
STANZAS = f"""\
# The distribution's own.
Types: deb deb-src
URIs: {DEBIAN}
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}

Types: deb
URIs: {SECURITY}
Suites: bookworm-security
Components: main
"""

READ = {
    "stanzas, as Debian 12 has them": ("debian.sources", STANZAS, [
        Source(DEBIAN, "bookworm", ("main", "contrib"), KEYRING),
        Source(DEBIAN, "bookworm-updates", ("main", "contrib"), KEYRING),
        Source(SECURITY, "bookworm-security", ("main",)),
    ]),
    "lines": ("sources.list", f"deb {DEBIAN} bookworm main contrib\n", [Source(DEBIAN, "bookworm", ("main", "contrib"))]),
    "a line with options": ("x.list", f"deb [arch=amd64 signed-by={KEYRING}] {DEBIAN} sid main # all\n", [
        Source(DEBIAN, "sid", ("main",), KEYRING),
    ]),
    "lines that name no packages": ("x.list", f"# deb {DEBIAN} sid main\ndeb-src {DEBIAN} sid main\n\ndeb {DEBIAN} ./\n", []),
    "a stanza that is off": ("x.sources", STANZAS.partition("\n\n")[0] + "\nEnabled: no\n", []),
    "sources alone": ("x.sources", f"Types: deb-src\nURIs: {DEBIAN}\nSuites: sid\nComponents: main\n", []),
    "a key in the stanza": ("x.sources",
        f"Types: deb\nURIs: {DEBIAN}\nSuites:\n sid\n experimental\nComponents: main\nSigned-By:\n -----BEGIN\n .\n Abc\n",
        [Source(DEBIAN, "sid", ("main",)), Source(DEBIAN, "experimental", ("main",))]),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_apts_sources_are_read(what: str) -> None:
    name, text, found = READ[what]
    assert fresh.read_sources(name, text) == found


def test_of_a_list_of_mirrors_the_first_is_taken(tmp_path: Path) -> None:
    listed = tmp_path / "mirrors.txt"
    listed.write_text("# near\n\nhttp://near.example/debian/\tpriority:1\nhttp://far.example/debian/\tpriority:2\n")
    assert fresh.first_mirror(f"mirror+file:{listed}") == "http://near.example/debian/"
    assert fresh.first_mirror(DEBIAN) == DEBIAN


OWN = fresh.read_sources("debian.sources", STANZAS)
OTHERS = [
    Source("https://packages.example/apt", "bookworm", ("main",), "/etc/apt/keyrings/example.gpg"),
    Source("https://packages.example/docker", "bookworm", ("stable",)),
    Source(DEBIAN, "bookworm-backports", ("main",), KEYRING),
]
CHOSEN = {
    "the machine's own": ("bookworm", OWN, ["bookworm", "bookworm-updates", "bookworm-security"]),
    "another of the same mirror": ("trixie", OWN, ["trixie", "trixie-updates", "trixie-security"]),
    "what others offer for it is left out": ("bookworm", OTHERS + OWN, ["bookworm", "bookworm-updates", "bookworm-security"]),
    "an archive by its other name": ("trixie", [Source(DEBIAN, "stable", ("main",))], ["trixie"]),
    "no updates without the archive": ("bookworm", OWN[1:], []),
    "nothing of the distribution": ("bookworm", OTHERS[1:2], []),
}  # fmt: skip


@pytest.mark.parametrize("what", CHOSEN)
def test_the_archive_comes_first_and_is_the_distributions(what: str) -> None:
    wanted, sources, suites = CHOSEN[what]
    found = fresh.sources_for(wanted, "bookworm", "debian", sources)
    assert [source.suite for source in found] == suites
    assert all(source.uri in (DEBIAN, SECURITY) for source in found)


DUMP = """\
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://apt.example:3142";
Acquire::https::Proxy "DIRECT";
Acquire::https::CAInfo "/etc/ssl/corporate.pem";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
Acquire::Languages:: "none";
APT::Install-Recommends "0";
Dir::Etc "etc/apt";
"""
PROXIES = {
    "none": ({}, "", {}),
    "variables, in both spellings": ({"http_proxy": "http://a", "HTTPS_PROXY": "http://b", "NO_PROXY": "example.com", "HOME": "/"},
        "", {"http_proxy": "http://a", "https_proxy": "http://b", "no_proxy": "example.com"}),
    "apt's": ({}, DUMP, {"http_proxy": "http://apt.example:3142"}),
    "a variable before apt's": ({"http_proxy": "http://a"}, DUMP, {"http_proxy": "http://a"}),
}  # fmt: skip


@pytest.mark.parametrize("what", PROXIES)
def test_proxies_are_handed_through(what: str) -> None:
    environment, dump, found = PROXIES[what]
    assert fresh.proxies(environment, dump) == found


def test_of_apts_settings_those_of_connections_are_handed_through() -> None:
    assert fresh.apt_settings(DUMP) == "".join(f"{line}\n" for line in DUMP.splitlines()[2:7])


PIP = {
    "nothing": ({"HOME": "/root", "PIP_NO_CACHE_DIR": "1"}, [], {}),
    "variables": ({"PIP_INDEX_URL": "https://a/simple", "PIP_CERT": "/c.pem", "PIP_DEFAULT_TIMEOUT": "9"}, [],
        {"index-url": "https://a/simple", "cert": "/c.pem"}),
    "a file": ({}, ["[global]\nindex-url = https://a/simple\nquiet = 1\n[install]\ntrusted-host = a\n[list]\nproxy = no\n"],
        {"index-url": "https://a/simple", "trusted-host": "a"}),
    "the later file, and a variable before all": ({"PIP_TIMEOUT": "5"},
        ["[global]\ntimeout = 1\nproxy = a\n", "[global]\nproxy = b\n"], {"timeout": "5", "proxy": "b"}),
    "no folders of this machine": ({"PIP_FIND_LINKS": "/opt/wheels"},
        ["[global]\nfind-links = /opt/wheels\nextra-index-url = file:///opt/simple https://b/simple\nindex-url = file:///c\n"],
        {"extra-index-url": "https://b/simple"}),
    "the machine's authorities": ({"SSL_CERT_FILE": "/s.pem", "REQUESTS_CA_BUNDLE": "/r.pem"}, [], {"cert": "/r.pem"}),
    "pip's own authorities before them": ({"SSL_CERT_FILE": "/s.pem"}, ["[global]\ncert = /p.pem\n"], {"cert": "/p.pem"}),
    "no file of pip's": ({}, ["what is this?"], {}),
}  # fmt: skip


@pytest.mark.parametrize("what", PIP)
def test_pips_way_to_its_indexes_is_handed_through(what: str) -> None:
    environment, files, found = PIP[what]
    assert fresh.pip_settings(environment, files) == found


def machine(**differing: object) -> Machine:
    """A Debian 12 where everything is well, but for what is said."""
    scripts = {"bookworm": "sid", "trixie": "sid", "noble": "gutsy"}
    well = {
        "euid": 0,
        "apt": True,
        "own": "bookworm",
        "distribution": "debian",
        "sources": OWN,
        "scripts": scripts,
        "free": 9_000,
    }
    return Machine(**well | differing)  # type: ignore[arg-type]


REFUSED = {
    "nothing": ("bookworm", machine(), None),
    "another suite": ("trixie", machine(), None),
    "no apt": ("bookworm", machine(apt=False, sources=[], scripts={}), "needs apt"),
    "not root": ("bookworm", machine(euid=1000, scripts={}), "needs root.*sudo make fresh"),
    "a suite that nobody knows": ("bokworm", machine(), "knows no suite 'bokworm'.*SUITE=bookworm"),
    "another distribution's": ("noble", machine(), "noble is none of Debian's suites"),
    "no archive": ("bookworm", machine(sources=OTHERS[1:]), "no source with the component main for bookworm"),
    "no space": ("bookworm", machine(free=5_999), r"needs 6,000 MB.*5,999 MB are free"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_sentence(what: str) -> None:
    suite, there, reason = REFUSED[what]
    said = fresh.refusal(there, suite)
    assert (said is None) == (reason is None)
    assert said is None or (re.search(str(reason), said) and "\n" not in said), said


PARTS = {"": "demo user test", "test": "test", "test demo": "demo test", "user": "demo user"}


@pytest.mark.parametrize("named", PARTS)
def test_parts_run_in_their_order_and_an_ordinary_user_after_root(named: str) -> None:
    assert fresh.chosen(named.split()) == PARTS[named].split()


# ---- it leaves nothing -------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
import fresh

with fresh._passing_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("large")
    print(folder, flush=True)
    sys.stdin.readline()
"""
RUN = """
import sys
from pathlib import Path
import fresh

there, seconds = Path(sys.argv[1]), sys.argv[2]
with fresh.Space(fresh.FOR_DEBOOTSTRAP) as space:
    words = ["sh", "-c", f"mount -t tmpfs none '{there}/mounted' && (sleep {seconds} & wait)"]
    sys.exit(space.run(words, there / "log"))
"""


def start(script: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=Path(fresh.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def the_end(process: subprocess.Popen[str], how: str) -> None:
    if how == "kill -9":
        process.send_signal(signal.SIGKILL)
    process.communicate("")


@pytest.mark.parametrize("how", ["its end", "kill -9"])
def test_the_copy_is_removed_after(how: str, tmp_path: Path) -> None:
    left = tmp_path / "run-of-a-machine-that-lost-its-power"
    left.mkdir()
    process = start(HOLD, tmp_path)
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "file").exists()
    the_end(process, how)
    until(lambda: list(tmp_path.iterdir()) == [])


def test_the_copy_of_a_concurrent_run_stays(tmp_path: Path) -> None:
    one = start(HOLD, tmp_path)
    assert one.stdout
    folder = Path(one.stdout.readline().strip())
    with fresh._passing_folder(tmp_path) as other:
        assert {folder, other} == set(tmp_path.iterdir())
    assert (folder / "file").exists()
    the_end(one, "its end")


@pytest.mark.needs_root
def test_nothing_runs_or_stays_mounted_after_a_sudden_end(tmp_path: Path) -> None:
    needs.root("for namespaces")
    seconds = 100_000 + os.getpid()  # nobody else sleeps that long
    (tmp_path / "mounted").mkdir()
    process = start(RUN, tmp_path, seconds)

    def sleeping() -> bool:
        words = f"sleep\0{seconds}\0".encode()
        return any(_words(entry) == words for entry in Path("/proc").glob("[0-9]*"))

    until(sleeping)
    assert not os.path.ismount(tmp_path / "mounted"), "what is mounted inside is not seen outside"
    the_end(process, "kill -9")
    until(lambda: not sleeping())


def _words(process: Path) -> bytes:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""
