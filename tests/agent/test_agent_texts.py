"""What the worker makes of people's texts: config.yml, authorized_keys, tags. Its functions, without a process."""

from __future__ import annotations

import ast
import base64
import contextlib
import itertools
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from agent_world import PROGRAMS, PROJECT, TOKEN, Download, Server, a_key, ngrok_archive, program
from hypothesis import given, strategies as st
from unit import test_tags

from notebook.ngrok_stand_in import read_configuration
from notebook_ssh.model.spec import parse_spec, spec_tag_keys
from patience import LIMIT_S

program("agent")
worker = program("worker")


@pytest.fixture
def agents_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for what the agent and ngrok log, and for ngrok's own files."""
    monkeypatch.setattr(worker, "NGROK", f"{tmp_path}/.ngrok/")
    monkeypatch.setattr(worker, "log", lambda text: None)
    monkeypatch.setattr(worker, "NGROK_LOG", str(tmp_path / "ngrok.log"))


def speaks(line: str) -> subprocess.Popen[bytes]:
    """A program that says this and ends, in the place of ngrok."""
    return subprocess.Popen(["sh", "-c", 'cat >&2; echo "$0"', line], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


FIXED = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
"""The data of an Ed25519 key; its numbers are of no importance."""

GUIDE = """\
authtoken: old_token_of_2020
tunnels:
  ssh:
    proto: tcp
    addr: 22
"""
V2 = """\
# mine
version: "2"
authtoken: oldtoken
region: eu   # near
tunnels:
    web:
        proto: http
        addr: 8888
    ssh:
        proto: tcp
        addr: 22
        remote_addr: 1.tcp.eu.ngrok.io:12345
"""
V3 = """\
version: 3
agent:
  # the team's
  authtoken: oldtoken
  web_addr: 0.0.0.0:1

# what I expose
endpoints:
- name: docs
  url: https://docs.example.com
  upstream:
    url: 8080
- url: tcp://5.tcp.ngrok.io:20000
  name: "ssh"
  upstream:
    url: tcp://127.0.0.1:2222
"""


class TestConfiguration:
    @pytest.mark.parametrize("text", ["", GUIDE, V2, V3, V2.rstrip("\n"), V3.replace("\n", "\r\n")])
    def test_loads_with_our_endpoint_and_the_token_and_stays_put(self, text: str) -> None:
        made = worker.configure(text, TOKEN, None)
        loaded = read_configuration(made)
        assert loaded.token == TOKEN
        assert [each.name for each in loaded.endpoints].count("ssh") == 1
        assert next(each for each in loaded.endpoints if each.name == "ssh").wish.startswith("tcp://")
        assert loaded.web_address.startswith("127.0.0.1:")
        settings = yaml.safe_load(made)
        assert settings.get("agent", settings)["remote_management"] is False
        assert worker.configure(made, TOKEN, None) == made

    @pytest.mark.parametrize("text", [V2, V3])
    def test_keeps_every_line_that_a_person_wrote(self, text: str) -> None:
        made = worker.configure(text, TOKEN, None).splitlines()
        theirs = [line for line in text.splitlines() if "authtoken" not in line and "web_addr" not in line]
        assert [line for line in made if line in theirs] == theirs

    @pytest.mark.parametrize(
        ("text", "own"), [(V2, "tcp://1.tcp.eu.ngrok.io:12345"), (V3, "tcp://5.tcp.ngrok.io:20000"), ("", "tcp://")]
    )
    def test_an_address_by_hand_counts_unless_the_tag_names_one(self, text: str, own: str) -> None:
        def address(configuration: str) -> str:
            return str(next(e for e in read_configuration(configuration).endpoints if e.name == "ssh").wish)

        by_hand = worker.configure(text, TOKEN, None)
        assert address(by_hand) == own
        by_tag = worker.configure(by_hand, TOKEN, "tcp://7.tcp.ngrok.io:7")
        assert address(by_tag) == "tcp://7.tcp.ngrok.io:7"
        assert address(worker.configure(by_tag, TOKEN, None)) == "tcp://"

    def test_without_a_new_token_the_one_that_is_there_stays(self) -> None:
        assert read_configuration(worker.configure(V3, None, None)).token == "oldtoken"

    def test_an_endpoint_without_url_would_be_https(self) -> None:
        text = "version: 3\nendpoints:\n  - name: ssh\n    upstream:\n      url: tcp://127.0.0.1:22\n"
        assert read_configuration(worker.configure(text, TOKEN, None)).endpoints[0].wish == "tcp://"

    @pytest.mark.parametrize("text", ["version: 3\nagent: {authtoken: x}\n", "version: 3\nendpoints: []\n"])
    def test_flow_style_is_refused_with_the_place(self, text: str) -> None:
        with pytest.raises(worker.Trouble, match=r"config\.yml.*(agent|endpoints)"):
            worker.configure(text, TOKEN, None)


class TestKeys:
    def test_comments_blanks_endings_options_and_repeats(self) -> None:
        one, two = a_key("one").strip(), a_key("two").strip()
        text = f'# people\r\n\r\n{one}\r\n  {one} again\r\nfrom="10.0.0.0/8",command="echo \\"a b\\"" {two}\r\n'
        good, bad = worker.parse_keys(text)
        assert list(good.values()) == [one, f'from="10.0.0.0/8",command="echo \\"a b\\"" {two}']
        assert bad == []

    @pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
    def test_what_ssh_keygen_makes(self, tmp_path: Path, kind: str) -> None:
        for words in (["-t", kind, "-N", "", "-f", "key"], ["-s", "key", "-I", "x", "key.pub"]):
            subprocess.run(["ssh-keygen", "-q", *words], cwd=tmp_path, check=True, timeout=LIMIT_S)
        lines = (tmp_path / "key.pub").read_text() + (tmp_path / "key-cert.pub").read_text()
        good, bad = worker.parse_keys(lines)
        assert (len(good), bad) == (2, [])
        assert list(good.values()) == lines.splitlines()
        _, private = worker.parse_keys((tmp_path / "key").read_text())
        assert private[0] == {"line": 1, "reason": "part of a private key: remove it from this file"}

    @pytest.mark.parametrize(
        ("kind", "parts"),
        [
            (b"sk-ssh-ed25519@openssh.com", [bytes(32), b"ssh:"]),
            (b"sk-ecdsa-sha2-nistp256@openssh.com", [b"nistp256", bytes(65), b"ssh:"]),
            (b"sk-ssh-ed25519-cert-v01@openssh.com", [bytes(32), bytes(32), b"ssh:"]),
        ],
    )
    def test_of_security_keys(self, kind: bytes, parts: list[bytes]) -> None:
        """OpenSSH, PROTOCOL.u2f; a certificate goes on with numbers that are no lengths (PROTOCOL.certkeys)."""
        data = b"".join(struct.pack(">I", len(part)) + part for part in [kind, *parts])
        data += struct.pack(">Q", 1 << 40) if b"-cert-" in kind else b""
        line = f"no-touch-required {kind.decode()} {base64.b64encode(data).decode()} me"
        good, bad = worker.parse_keys(line + "\n")
        assert (list(good.values()), bad) == ([line], [])

    @pytest.mark.parametrize(
        "line",
        [
            "ssh-ed25519",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
            f"ssh-rsa {FIXED}",
            f"ssh-ed25519 {FIXED[:48]}",
            "hello world",
            "AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        ],
    )
    def test_that_are_none_are_told_by_number(self, line: str) -> None:
        good, bad = worker.parse_keys(f"# first\n{line}\n")
        assert good == {}
        assert [each["line"] for each in bad] == [2]
        assert line not in bad[0]["reason"]


def _rows(*tests: Callable[..., None]) -> list[dict[str, str]]:
    """The tags in the tables of these tests, as a notebook bears them."""
    rows = []
    for test in tests:
        for first, _ in test.pytestmark[0].args[1]:  # type: ignore[attr-defined]
            named = {"ssh": first} if isinstance(first, str) else {"ssh": "ngrok"} | first
            rows.append({key.replace("_", "-"): value for key, value in named.items()})
    return rows


def _as_the_stack_reads(tags: dict[str, str]) -> dict[str, Any]:
    asked = parse_spec(tags, "ssh")
    return {
        "mode": asked.mode.value,
        "until": asked.until,
        "ngrok": {"url": asked.ngrok_url},
        "users": list(asked.users),
    }


class TestTags:
    """Without the stack the agent reads the tags itself: the same words, with the same meaning."""

    @pytest.mark.parametrize(
        "tags",
        _rows(
            test_tags.test_the_mode,
            test_tags.test_what_goes_with_a_mode,
            test_tags.test_what_cannot_be_understood_is_off_and_says_why,
        ),
        ids=str,
    )
    def test_mean_what_they_mean_to_the_stack(self, tags: dict[str, str]) -> None:
        assert worker.wish(tags) == _as_the_stack_reads(tags)

    @given(
        st.dictionaries(st.sampled_from(spec_tag_keys("ssh")), test_tags.TEXT), st.sampled_from(["ngrok", "bastion"])
    )
    def test_of_any_text_mean_what_they_mean_to_the_stack(self, tags: dict[str, str], mode: str) -> None:
        tags = {"ssh": mode} | tags
        assert worker.wish(tags) == _as_the_stack_reads(tags)

    def test_take_the_stacks_own_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOTEBOOK_SSH_TAG_KEY", "tunnel")
        assert worker.wish({"tunnel": "bastion", "ssh": "off"})["mode"] == "bastion"

    def test_admit_no_more_people_than_were_admitted_and_are_still_named(self) -> None:
        kept = {"mode": "ngrok", "authorized_keys": [{"user": name, "keys": ["k"]} for name in ("ana", "mario")]}
        assert worker.by_tags(kept, {"ssh": "ngrok", "ssh-users": "mario eve"})["authorized_keys"] == [
            {"user": "mario", "keys": ["k"]}
        ]
        assert worker.by_tags(kept, {"ssh": "ngrok"})["authorized_keys"] == []


# Sources: https://ngrok.com/docs/errors; the code that a person looks up, and what the status is called.
REFUSALS = {
    "ngrok-token-invalid": (105, 107, 300, 4018),
    "ngrok-session-limit": (108, 348, 349),
    "ngrok-agent-old": (121,),
    "ngrok-address-refused": (307, 309, 310, 311),
    "ngrok-address-busy": (334,),
    "ngrok-monthly-limit": (725, 726, 729),
    "ngrok-card-required": (8013,),
    "ngrok-proxy-plan": (9009,),
    "ngrok-failed": (3208,),
}


class TestWhatNgrokSays:
    @pytest.mark.parametrize(("code", "number"), [(code, n) for code, numbers in REFUSALS.items() for n in numbers])
    @pytest.mark.parametrize(
        "line", ["ERROR:  ERR_NGROK_{}", '{{"lvl":"eror","err":"no. ERR_NGROK_{}","msg":"closing"}}']
    )
    def test_becomes_a_status_with_what_to_do(self, line: str, code: str, number: int, agents_log: None) -> None:
        tunnel = worker.Tunnel()
        tunnel.hear_line(line.format(number))
        assert tunnel.trouble[0] == code
        assert f"ERR_NGROK_{number}" in tunnel.trouble[1]
        assert code == "ngrok-failed" or len(tunnel.trouble[1].split()) > 6, "a sentence that says what to do"

    def test_never_repeats_the_token(self, agents_log: None) -> None:
        """ngrok prints the token that it refuses; it may be the stack's, or one that stands in config.yml alone."""
        Path(worker.NGROK_LOG).touch()
        for wished, configured in ((TOKEN, "old"), (None, TOKEN), (None, f'"{TOKEN}"')):
            Path(worker.NGROK).mkdir(exist_ok=True)
            Path(worker.NGROK, "config.yml").write_text(f"version: 3\nagent:\n  authtoken: {configured}  # mine\n")
            tunnel = worker.Tunnel()
            tunnel.wish = wished, None
            with patch.object(worker, "start", lambda *_: speaks(f"ERROR:  Your authtoken: {TOKEN} ERR_NGROK_9999")):
                tunnel.start()
            while tunnel.child:
                tunnel.hear()
            assert TOKEN not in tunnel.trouble[1]
            assert "Your authtoken: ..." in tunnel.trouble[1]
        assert TOKEN not in Path(worker.NGROK_LOG).read_text()
        assert Path(worker.NGROK_LOG).read_text().count("Your authtoken: ...") == 3

    @pytest.mark.parametrize(
        ("number", "later", "phase"), [(334, 1, "connecting"), (8013, 120, "failed"), (105, 120, "failed")]
    )
    def test_for_a_person_to_clear_is_tried_slowly(
        self, number: int, later: int, phase: str, agents_log: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What lingers after a restart is tried again in a second; what costs a person a click, in two minutes."""
        now = 1000.0
        monkeypatch.setattr(worker, "time", a_clock(lambda: now))
        tunnel = worker.Tunnel()
        tunnel.wish = None, None
        with subprocess.Popen(["echo", f"ERROR:  ERR_NGROK_{number}"], stdout=subprocess.PIPE) as tunnel.child:
            tunnel.starts = 1
            while tunnel.child:
                tunnel.hear()
        assert tunnel.due - now == later
        assert tunnel.phase == phase


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (0, "timed out", "api-unreachable", "proxy, NAT or VPC endpoint"),
        (403, '{"message": "Forbidden"}', "api-refused", "VPC endpoint for execute-api"),
        (403, '{"error": "other-role", "message": "reports with role a"}', "api-refused", "(403): reports with role a"),
        (404, "<html>no such page</html>", "api-refused", "(404)"),
        (413, "[]", "api-refused", "(413)"),
        (429, '{"message": "Too Many Requests"}', "api-refused", "Too Many Requests"),
        (500, "", "api-unavailable", "(500): it is tried again"),
    ],
)
def test_a_report_that_is_not_taken_is_explained(status: int, body: str, code: str, said: str) -> None:
    told = worker.explain(status, body)
    assert told[0] == code
    assert said in told[1]


class TestWhereNgrokComesFrom:
    @pytest.fixture
    def asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What `install` downloads, in order; the download itself leaves a program."""
        addresses: list[str] = []

        def download(url: str, wanted: str, path: str) -> None:
            addresses.append(url)
            Path(path).write_text("#!/bin/sh\n")
            Path(path).chmod(0o755)

        monkeypatch.setattr(worker, "NGROK", f"{tmp_path}/")
        monkeypatch.setattr(worker, "download", download)
        return addresses

    def _machine(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        machine = SimpleNamespace(machine=name)
        monkeypatch.setattr(worker.os, "uname", lambda: machine)

    @pytest.mark.parametrize(("machine", "arch"), [("x86_64", "amd64"), ("aarch64", "arm64")])
    def test_is_chosen_by_the_machine(
        self, asked: list[str], monkeypatch: pytest.MonkeyPatch, machine: str, arch: str
    ) -> None:
        self._machine(monkeypatch, machine)
        worker.install(renew=False)
        monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", "https://mirror.example.com/{arch}/ngrok.tgz")
        worker.install(renew=False)
        assert asked == [
            f"https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz",
            f"https://mirror.example.com/{arch}/ngrok.tgz",
        ]

    def test_is_asked_again_for_another_machine_or_checksum_and_not_otherwise(
        self, asked: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The volume goes with the notebook when its instance type becomes one of another processor."""
        for machine, checksum in (
            ("x86_64", ""),
            ("x86_64", ""),
            ("aarch64", ""),
            ("aarch64", "a" * 64),
            ("aarch64", "a" * 64),
        ):
            self._machine(monkeypatch, machine)
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_SHA256", checksum)
            worker.install(renew=False)
        assert len(asked) == 3

    @pytest.mark.parametrize(("days", "times"), [(364, 1), (366, 2), (14 * 30, 2)])
    def test_is_renewed_before_ngrok_ends_its_support(self, asked: list[str], days: int, times: int) -> None:
        """Agents are supported for 14 months (https://ngrok.com/docs/agent/version-support-policy)."""
        path = worker.install(renew=False)
        then = time.time() - days * 86400
        os.utime(path, (then, then))
        worker.install(renew=False)
        assert len(asked) == times


def a_clock(monotonic: Callable[[], float]) -> SimpleNamespace:
    """The module `time`, but for its monotonic clock."""
    names = {name: getattr(time, name) for name in dir(time) if name[0] != "_"}
    return SimpleNamespace(**names | {"monotonic": monotonic})


@contextlib.contextmanager
def trickling(head: bytes) -> Iterator[int]:
    """The port of one who sends `head`, and then a byte each hundredth of a second, to whoever comes."""
    over = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError), door.accept()[0] as visitor:
            visitor.recv(4096)
            visitor.sendall(head)
            while not over.wait(0.01):
                visitor.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as door:
        sending = threading.Thread(target=trickle, daemon=True)
        sending.start()
        yield door.getsockname()[1]
        over.set()
        sending.join(LIMIT_S)


class Endless(Server):
    """A local API whose answer is larger than any that is read."""

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return 200, b'{"endpoints": ["' + b"x" * (1 << 21) + b'"]}'


class TestADownload:
    """What it does where the one who sends, or the disk, does not play along. With a server that is real."""

    @pytest.fixture
    def ngrok(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The program on the volume, which is to be renewed."""
        program = tmp_path / "ngrok"
        program.write_text("the one that works")
        program.chmod(0o755)
        monkeypatch.setattr(worker, "NGROK", f"{tmp_path}/")
        return program

    def test_that_trickles_ends_at_its_limit(self, ngrok: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A byte now and then keeps a connection alive for ever; each look at the clock here is 100 s after the last."""
        monkeypatch.setattr(worker, "time", a_clock(itertools.count(0, 100).__next__))
        with trickling(b"HTTP/1.0 200 OK\r\n\r\n") as port:
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"http://127.0.0.1:{port}/ngrok.tgz")
            said: list[str] = []
            monkeypatch.setattr(worker, "say", said.append)
            renewal = threading.Thread(target=worker.install, args=(True,), daemon=True)
            renewal.start()
            renewal.join(LIMIT_S)
            assert not renewal.is_alive()
        assert "longer than 5 minutes" in said[0]
        assert ngrok.read_text() == "the one that works"
        assert [path.name for path in ngrok.parent.iterdir()] == ["ngrok"]

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>404</html>", ngrok_archive()[:-100], ngrok_archive("#!/bin/sh\necho no\n")],
        ids=["empty", "a page that says 404", "torn", "a program that does not run"],  # an archive holds its time
    )
    def test_that_is_broken_leaves_the_one_that_works(
        self, ngrok: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        said: list[str] = []
        monkeypatch.setattr(worker, "say", said.append)
        with Download() as download:
            download.content = content
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"{download.url}/ngrok.tgz")
            assert worker.install(renew=True) == str(ngrok)
            assert download.fetched == 1
        assert "was not renewed" in said[0]
        assert ngrok.read_text() == "the one that works"
        assert [path.name for path in ngrok.parent.iterdir()] == ["ngrok"]

    def test_that_finds_the_disk_full_leaves_the_one_that_works(
        self, ngrok: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "anew", lambda path: Path("/dev/full").open("wb"))  # noqa: SIM115
        said: list[str] = []
        monkeypatch.setattr(worker, "say", said.append)
        with Download() as download:
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"{download.url}/ngrok.tgz")
            assert worker.install(renew=True) == str(ngrok)
            ngrok.unlink()
            with pytest.raises(worker.Trouble, match="No space left"):
                worker.install(renew=True)
        assert "No space left" in said[0]
        assert list(ngrok.parent.iterdir()) == []


@pytest.mark.parametrize("head", [b"", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["its head", "its body"])
def test_a_local_api_that_trickles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """Each byte comes within the limit of a read; the whole answer would never be there."""
    monkeypatch.setattr(worker, "API_PATIENCE", 0.3)
    with trickling(head) as port, pytest.raises(TimeoutError, match=f"{port} takes longer than"):
        worker.local_api(f"127.0.0.1:{port}", "endpoints")


def test_a_local_api_that_sends_without_end_is_read_to_a_limit() -> None:
    with Endless() as server, pytest.raises(ValueError, match="Unterminated string"):
        worker.local_api(f"127.0.0.1:{server.port}", "endpoints")


def test_a_child_that_says_no_more_and_does_not_end_is_ended(agents_log: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the place of ngrok may close its output and stay."""
    monkeypatch.setattr(worker, "PATIENCE", 0.1)
    tunnel = worker.Tunnel()
    tunnel.wish = None, None
    stays = ["sh", "-c", "exec >&-; exec sleep 1000"]
    with subprocess.Popen(stays, stdout=subprocess.PIPE) as tunnel.child:
        tunnel.starts = 1
        while tunnel.child:
            tunnel.hear()
    assert tunnel.trouble == ("ngrok-ended", f"ngrok ended with status -9; its log is {worker.NGROK_LOG}")


def test_what_comes_and_goes_is_told_at_once_five_times_and_then_each_20_seconds(
    agents_log: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel that flutters for an hour, with something new in each second, must not become a storm of reports."""
    seconds, changes = itertools.count(1000.0), itertools.count()
    monkeypatch.setattr(worker, "time", a_clock(seconds.__next__))
    worried = worker.Worker.__new__(worker.Worker)
    worried.exchange = SimpleNamespace(failures=0, mode=lambda: "bastion")
    worried.tunnel, worried.troubles, worried.told, worried.facts = worker.Tunnel(), {}, None, changes.__next__
    worried.credit, worried.credit_at = 5.0, next(seconds)
    told = [worried.has_news() for _ in range(3600)]
    assert told[:5] == [True] * 5
    assert 180 <= sum(told) <= 186


def test_an_end_that_passed_while_everything_slept_is_met_within_a_minute(
    agents_log: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock by which the worker waits stands still in a sleep (clock_gettime(2)); the calendar's goes on."""
    waits: list[float] = []

    def select(*ears_and_limit: Any) -> tuple[list[Any], list[Any], list[Any]]:
        waits.append(ears_and_limit[-1])
        return [], [], []

    monkeypatch.setattr(worker, "select", SimpleNamespace(select=select))
    asleep = worker.Worker.__new__(worker.Worker)
    asleep.exchange = SimpleNamespace(answer={"until": time.time() + 8 * 3600}, ahead=0, mode=lambda: "bastion")
    asleep.tunnel, asleep.troubles, asleep.ears = worker.Tunnel(), {}, None
    asleep.sync_at = asleep.files_at = time.monotonic() + 9 * 3600
    asleep.wait()
    asleep.exchange.answer["until"] = time.time() - 1
    asleep.wait()
    assert 59 < waits[0] <= 60
    assert waits[1] == 0


def test_what_a_login_without_a_terminal_prints_is_nothing(tmp_path: Path) -> None:
    """scp, sftp, rsync and an editor's server run shells that are not interactive; `/etc/profile` reads this file in each."""
    home = tmp_path / "home"
    (home / "SageMaker").mkdir(parents=True)
    (home / "anaconda3/etc/profile.d").mkdir(parents=True)
    (home / "anaconda3/etc/profile.d/conda.sh").write_text("echo conda was read\n")
    profile = tmp_path / "profile.sh"
    profile.write_text(worker.PROFILE.format(home=home, region="eu-west-1"))

    def told(options: str, **environment: str) -> str:
        words = [
            "bash",
            "--norc",
            "--noprofile",
            options,
            f'. "{profile}"; echo "$AWS_DEFAULT_REGION $AWS_REGION $PATH"',
        ]
        there = {"PATH": "/usr/bin:/bin"} | environment
        return subprocess.run(words, env=there, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout

    plain = "  /usr/bin:/bin\n"
    assert told("-c", SSH_CONNECTION="1 2 3 4") == plain
    assert told("-ic") == plain, "Jupyter's own terminal"
    assert (
        told("-ic", SSH_CONNECTION="1 2 3 4")
        == f"conda was read\neu-west-1 eu-west-1 {home}/anaconda3/bin:/usr/bin:/bin\n"
    )
    assert "mine mine" in told("-ic", SSH_CONNECTION="1 2 3 4", AWS_DEFAULT_REGION="mine")


class TestOfThePrograms:
    """The texts themselves, read and not run."""

    @pytest.mark.parametrize("name", ["agent", "worker", "boot"])
    def test_the_language_is_python_3_9(self, name: str) -> None:
        """The system's Python on notebook-al2023-v1."""
        text = (PROGRAMS / f"{name}.py").read_text()
        ast.parse(text, feature_version=(3, 9))
        assert not re.findall(NEW_IN_3_10, text)

    def test_nothing_is_newer_than_python_3_10(self) -> None:
        """mypy knows since when the standard library has a name; 3.10 is the oldest that it still judges."""
        programs = [PROGRAMS / f"{name}.py" for name in ("agent", "worker", "boot")]
        options = ["--config-file=", "--python-version=3.10", "--check-untyped-defs", "--ignore-missing-imports"]
        words: list[str | Path] = [
            sys.executable,
            "-m",
            "mypy",
            *options,
            f"--cache-dir={PROJECT}/.mypy_cache",
            *programs,
        ]
        told = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, cwd=PROGRAMS)
        assert "error:" in told.stdout, f"they have no annotations, so mypy has much to say: {told.stdout}{told.stderr}"
        lacking = (
            r"Module has no attribute|Unexpected keyword|No overload variant|\"(?:str|bytes|int|dict\[.*)\" has no attr"
        )
        assert not [line for line in told.stdout.splitlines() if re.search(lacking, line)]

    @pytest.mark.parametrize("name", ["agent", "worker"])
    def test_every_wait_has_an_end(self, name: str) -> None:
        """Each call that can wait names its limit; those of `ENDLESS` wait for what must be waited for, and say why."""
        text = (PROGRAMS / f"{name}.py").read_text()
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        waiting = {ast.unparse(call) for call in calls if _last_word(call.func) in LIMITS and not _is_limited(call)}
        assert waiting == ENDLESS[name].keys()


NEW_IN_3_10 = (
    r"\b(?:aiter|anext|pairwise|aclosing|bit_count|orig_argv|stdlib_module_names|hardlink_to|eventfd|splice|NoneType"
    r"|root_dir|ignore_cleanup_errors|strict=|get_annotations|b32hex)\b"
)
"""Names that came with Python 3.10 (docs.python.org/3/whatsnew/3.10.html), as far as one could want them here."""

LIMITS = {
    "run": 9, "communicate": 2, "wait": 1, "urlopen": 3, "create_connection": 2, "select": 4, "open": 9, "acquire": 2,
    "lockf": 9, "join": 1, "recv": 9, "accept": 9, "stdout.read": 9,
}  # fmt: skip
"""Calls that can wait, and with how many arguments by place a limit is among them. Opening waits for a pipe's other end."""

ENDLESS = {
    "agent": {
        "child.stdout.read(1 << 20)": "the keeper waits for its children: that is its work",
        "child.stdout.read(1)": "the same",
        "os.open(RUN + 'lock', os.O_RDWR | os.O_CREAT, 384)": "below a folder of root's",
        "os.open(new, flags, mode)": "it makes the file: O_EXCL",
        "open(os.open(new, flags, mode), 'w', encoding='utf8', errors='surrogateescape', newline='')": "it is open already",
        "os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)": "below a folder of root's",
    },
    "worker": {
        "child.wait()": "it was killed just before",
        "open(path, 'xb')": "it makes the file",
        "open(NGROK_LOG, 'r+b')": "below a folder of root's",
        "os.open(NGROK_LOG, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 384)": "below a folder of root's",
        "tarfile.open(archive)": "a file that we just wrote",
        "probe.recv(4)": "the connection has its limit",
        "Worker().run()": "it is what must go on",
        "self.wait()": "the worker's own, which has limits",
    },
}


def _last_word(function: ast.expr) -> str:
    words = ast.unparse(function).split(".")
    return ".".join(words[-2:] if words[-2:] == ["stdout", "read"] else words[-1:])


def _is_limited(call: ast.Call) -> bool:
    """Whether a limit is among the arguments; or the call waits for nothing (O_NONBLOCK, O_EXCL, LOCK_NB)."""
    named = {word.arg for word in call.keywords} & {"timeout", "opener"}
    return (
        bool(named)
        or len(call.args) >= LIMITS[_last_word(call.func)]
        or bool(re.search("O_NONBLOCK|O_EXCL|LOCK_NB", ast.unparse(call)))
    )
