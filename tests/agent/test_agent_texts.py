"""What the worker makes of people's texts: config.yml, authorized_keys, tags. Its functions, without a process."""

from __future__ import annotations

import ast
import base64
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from agent_world import PROGRAMS, TOKEN, a_key

from notebook.ngrok_stand_in import read_configuration


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


@pytest.mark.parametrize(
    ("tags", "mode", "until"),
    [
        ({}, "off", None),
        ({"ssh": " Bastion "}, "bastion", None),
        ({"ssh": "nonsense"}, "off", None),
        ({"ssh": "ngrok", "ssh-until": "2026-01-02T03:04:05Z"}, "ngrok", 1767323045),
        ({"ssh": "ngrok", "ssh-until": "tomorrow"}, "ngrok", 1000),
    ],
)
def test_tags_as_a_wish(tags: dict[str, str], mode: str, until: int | None) -> None:
    wish = worker.wish(tags, 1000)
    assert (wish["mode"], wish["until"]) == (mode, until)


@pytest.mark.parametrize("name", ["agent", "worker"])
def test_programs_are_python_3_9(name: str) -> None:
    """The system's Python on notebook-al2023-v1."""
    ast.parse((PROGRAMS / f"{name}.py").read_text(), feature_version=(3, 9))
