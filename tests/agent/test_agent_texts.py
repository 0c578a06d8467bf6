"""What the worker makes of people's texts: config.yml, authorized_keys, tags. Its functions, without a process."""

from __future__ import annotations

import ast
import base64
import importlib.util
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from agent_world import PROGRAMS, TOKEN, a_key
from hypothesis import given, strategies as st
from unit import test_tags

from notebook.ngrok_stand_in import read_configuration
from notebook_ssh.rules.tags import read_wish, wish_keys


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_load("agent")
worker = _load("worker")


@pytest.fixture
def agents_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for what the agent and ngrok log."""
    monkeypatch.setattr(worker, "log", lambda text: None)
    monkeypatch.setattr(worker, "NGROK_LOG", str(tmp_path / "ngrok.log"))


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
            return next(e for e in read_configuration(configuration).endpoints if e.name == "ssh").wish

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
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"]
        subprocess.run(command, check=True, timeout=60)
        ca = ["ssh-keygen", "-q", "-s", tmp_path / "key", "-I", "x", tmp_path / "key.pub"]
        subprocess.run(ca, check=True, timeout=60)
        lines = (tmp_path / "key.pub").read_text() + (tmp_path / "key-cert.pub").read_text()
        good, bad = worker.parse_keys(lines)
        assert (len(good), bad) == (2, [])
        _, private = worker.parse_keys((tmp_path / "key").read_text())
        assert private[0] == {"line": 1, "reason": "part of a private key: remove it from this file"}

    def test_of_security_keys(self) -> None:
        kind = b"sk-ssh-ed25519@openssh.com"
        parts = [kind, bytes(32), b"ssh:"]
        data = base64.b64encode(b"".join(struct.pack(">I", len(part)) + part for part in parts)).decode()
        assert worker.parse_keys(f"{kind.decode()} {data} me\n")[1] == []

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
    asked = read_wish(tags, "ssh")
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

    @given(st.dictionaries(st.sampled_from(wish_keys("ssh")), test_tags.TEXT), st.sampled_from(["ngrok", "bastion"]))
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
        tunnel = worker.Tunnel()
        tunnel.wish = TOKEN, None
        tunnel.hear_line(f"ERROR:  the authtoken {TOKEN} is odd. ERR_NGROK_9999")
        assert TOKEN not in tunnel.trouble[1]
        assert "is odd" in tunnel.trouble[1]

    @pytest.mark.parametrize(
        ("number", "soonest", "phase"), [(334, 1, "connecting"), (8013, 60, "failed"), (105, 60, "failed")]
    )
    def test_for_a_person_to_clear_is_tried_slowly(
        self, number: int, soonest: int, phase: str, agents_log: None
    ) -> None:
        """What lingers after a restart is tried again in a second; what costs a person a click, in two minutes."""
        tunnel = worker.Tunnel()
        tunnel.wish = None, None
        with subprocess.Popen(["echo", f"ERROR:  ERR_NGROK_{number}"], stdout=subprocess.PIPE) as tunnel.child:
            tunnel.starts = 1
            before = time.monotonic()
            while tunnel.child:
                tunnel.hear()
        assert soonest <= tunnel.due - before < 4 * soonest
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


def test_what_a_login_without_a_terminal_prints_is_nothing(tmp_path: Path) -> None:
    """scp, sftp, rsync and an editor's server run shells that are not interactive; `/etc/profile` reads this file in each."""
    home = tmp_path / "home"
    (home / "SageMaker").mkdir(parents=True)
    (home / "anaconda3/etc/profile.d").mkdir(parents=True)
    (home / "anaconda3/etc/profile.d/conda.sh").write_text("echo conda was read\n")
    profile = tmp_path / "profile.sh"
    profile.write_text(worker.PROFILE.format(home=home, region="eu-west-1"))

    def told(options: str, **environment: str) -> str:
        words = ["bash", "--norc", "--noprofile", options, f'. "{profile}"; echo "$AWS_DEFAULT_REGION $PATH"']
        there = {"PATH": "/usr/bin:/bin"} | environment
        return subprocess.run(words, env=there, capture_output=True, text=True, check=True, timeout=20).stdout

    plain = " /usr/bin:/bin\n"
    assert told("-c", SSH_CONNECTION="1 2 3 4") == plain
    assert told("-ic") == plain, "Jupyter's own terminal"
    assert told("-ic", SSH_CONNECTION="1 2 3 4") == f"conda was read\neu-west-1 {home}/anaconda3/bin:/usr/bin:/bin\n"
    assert "mine" in told("-ic", SSH_CONNECTION="1 2 3 4", AWS_DEFAULT_REGION="mine")


@pytest.mark.parametrize("name", ["agent", "worker", "boot"])
def test_programs_are_python_3_9(name: str) -> None:
    """The system's Python on notebook-al2023-v1."""
    ast.parse((PROGRAMS / f"{name}.py").read_text(), feature_version=(3, 9))
