"""How the worker parses and edits the user's texts: config.yml, authorized_keys, tags. Its functions, in process."""

from __future__ import annotations

import ast
import base64
import contextlib
import errno
import io
import itertools
import json
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.agent_env import (
    PROGRAMS,
    PROJECT,
    TOKEN,
    Download,
    NotebookHost,
    Server,
    Stack,
    WorkerModules,
    free_port,
    load_agent,
    make_public_key,
    make_reply,
    ngrok_archive,
    wait_until,
)
from unit import test_spec

from notebook.ngrok_stand_in import Configuration, Endpoint, read_configuration
from notebook_ssh.errors import Problem
from notebook_ssh.model.problems import CODES, problem_owner
from notebook_ssh.model.spec import parse_spec, spec_tag_keys, tag_value
from notebook_ssh.model.ssh_keys import InvalidKeyError, public_key
from patience import LIMIT_S

agent_module = load_agent()
worker = WorkerModules()


@pytest.fixture
def log_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the logs of agent and ngrok, and for ngrok's own files."""
    monkeypatch.setattr(worker, "USER_CONFIG", f"{tmp_path}/config.yml")
    monkeypatch.setattr(worker, "OWN_CONFIG", f"{tmp_path}/ngrok.yml")
    monkeypatch.setattr(worker, "log", lambda text: None)
    monkeypatch.setattr(worker, "NGROK_LOG", str(tmp_path / "ngrok.log"))


def process_printing(line: str) -> subprocess.Popen[bytes]:
    """Start a program in the place of ngrok that prints a line and exits."""
    return subprocess.Popen(["sh", "-c", 'cat >&2; echo "$0"', line], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


FIXED = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
"""The data of an Ed25519 key, with arbitrary numbers."""

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


V3_WITH_TUNNELS = """\
"version": "3"
agent:
    authtoken: oldtoken
    proxy_url: http://proxy.example.com:3128
tunnels:
    web:
        proto: http
        addr: 8888
    ssh:
        proto: tcp
        addr: 22
        remote_addr: 1.tcp.eu.ngrok.io:12345
"""
"""What `ngrok config upgrade` makes of a file of version 2: the tunnels stay as they were."""
BRACES = """\
version: '3' # mine
agent: {authtoken: oldtoken, log_level: info}
endpoints: [{name: web, url: "https://docs.example.com", upstream: {url: 8080}}]
tunnels: {ssh: {proto: tcp, addr: 22, remote_addr: "1.tcp.eu.ngrok.io:12345"}}
"""
HTTPS_SSH = "version: 3\nendpoints:\n  - name: ssh\n    upstream:\n      url: tcp://127.0.0.1:22\n"
FILES = [V2, V3, V3_WITH_TUNNELS, BRACES, HTTPS_SSH, V2.rstrip("\n"), V3.replace("\n", "\r\n")]


class TestConfiguration:
    """The user's file and the agent's, as ngrok merges them."""

    @staticmethod
    def merged(text: str, token: str | None, url: str | None, port: int = 22) -> tuple[Configuration, Endpoint]:
        """Return the configuration that ngrok has, and the endpoint that leads to sshd."""
        user = worker.parse_user_config(text)
        name, own = worker.own_config(user, token, url, port)
        configuration = read_configuration(*([text] if text else []), json.dumps(own))
        (endpoint,) = [each for each in configuration.endpoints if each.name == name]
        return configuration, endpoint

    @pytest.mark.parametrize("text", ["", *FILES])
    def test_has_one_endpoint_for_ssh_and_the_stacks_token(self, text: str) -> None:
        configuration, endpoint = self.merged(text, TOKEN, None)
        assert configuration.token == TOKEN
        assert endpoint.requested_url.startswith("tcp://")
        assert configuration.web_address.startswith("127.0.0.1:")

    @pytest.mark.parametrize("text", FILES)
    def test_keeps_everything_of_the_user(self, text: str) -> None:
        alone, (configuration, endpoint) = read_configuration(text), self.merged(text, TOKEN, "tcp://7.tcp.ngrok.io:7")
        theirs = [each for each in configuration.endpoints if each is not endpoint]
        assert [each for each in alone.endpoints if each.name != endpoint.name] == theirs

    @pytest.mark.parametrize(
        ("text", "own"),
        [
            (V2, "tcp://1.tcp.eu.ngrok.io:12345"),
            (V3, "tcp://5.tcp.ngrok.io:20000"),
            (V3_WITH_TUNNELS, "tcp://1.tcp.eu.ngrok.io:12345"),
            (BRACES, "tcp://1.tcp.eu.ngrok.io:12345"),
            (HTTPS_SSH, "tcp://"),
            ("", "tcp://"),
        ],
    )
    def test_the_users_address_is_kept_unless_the_tag_has_another(self, text: str, own: str) -> None:
        assert self.merged(text, TOKEN, None)[1].requested_url == own
        assert self.merged(text, TOKEN, "tcp://7.tcp.ngrok.io:7")[1].requested_url == "tcp://7.tcp.ngrok.io:7"
        if own != "tcp://":
            configuration, endpoint = self.merged(text, TOKEN, own)
            assert [each.requested_url for each in configuration.endpoints].count(own) == 1, "not online twice"
            assert endpoint.requested_url == own

    @pytest.mark.parametrize("text", ["", *FILES])
    def test_leads_to_the_port_of_the_agents_own_sshd(self, text: str) -> None:
        assert self.merged(text, TOKEN, None, port=2022)[1].upstream == "tcp://127.0.0.1:2022"

    @pytest.mark.parametrize("text", FILES)
    def test_without_a_token_of_the_stack_the_users_counts(self, text: str) -> None:
        assert self.merged(text, None, None)[0].token == read_configuration(text).token

    @pytest.mark.parametrize(
        "line", ["version: 3", 'version: "3"', "'version': '3'  # mine", '"version":3', "{version: 3}"]
    )
    def test_the_version_is_read_however_it_is_written(self, line: str) -> None:
        assert worker.parse_user_config(line).version == 3
        assert worker.parse_user_config(line.replace("3", "2")).version == 2

    def test_a_file_from_before_the_versions_has_none(self) -> None:
        assert worker.parse_user_config(GUIDE).version is None

    @given(st.text(alphabet="ssh: {}[],-\n\"'#tcpunelagvro3", max_size=80))
    def test_of_any_text_is_read(self, text: str) -> None:
        worker.own_config(worker.parse_user_config(text), TOKEN, None, 22)


class TestKeys:
    def test_comments_spaces_line_ends_options_and_duplicates(self) -> None:
        one, two = make_public_key("one").strip(), make_public_key("two").strip()
        text = f'# users\r\n\r\n{one}\r\n  {one} again\r\nfrom="10.0.0.0/8",command="echo \\"a b\\"" {two}\r\n'
        valid, rejected = worker.parse_keys(text)
        assert list(valid.values()) == [one, f'from="10.0.0.0/8",command="echo \\"a b\\"" {two}']
        assert rejected == []

    @pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
    def test_made_by_ssh_keygen(self, tmp_path: Path, kind: str) -> None:
        for words in (["-t", kind, "-N", "", "-f", "key"], ["-s", "key", "-I", "x", "key.pub"]):
            subprocess.run(["ssh-keygen", "-q", *words], cwd=tmp_path, check=True, timeout=LIMIT_S)
        lines = (tmp_path / "key.pub").read_text() + (tmp_path / "key-cert.pub").read_text()
        valid, rejected = worker.parse_keys(lines)
        assert (len(valid), rejected) == (2, [])
        assert list(valid.values()) == lines.splitlines()
        _, private = worker.parse_keys((tmp_path / "key").read_text())
        assert private[0] == {"line": 1, "reason": "part of a private key: remove it from this file"}

    @pytest.mark.parametrize(
        ("bits", "reason"), [(1024, "fewer than 2048 bits"), (2047, "fewer than 2048 bits"), (2048, "")]
    )
    def test_of_rsa_have_2048_bits_or_more(self, tmp_path: Path, bits: int, reason: str) -> None:
        """As the stack holds it for central keys, and with a certificate too."""
        for words in (["-t", "rsa", "-b", str(bits), "-N", "", "-f", "key"], ["-s", "key", "-I", "x", "key.pub"]):
            subprocess.run(["ssh-keygen", "-q", *words], cwd=tmp_path, check=True, timeout=LIMIT_S)
        for name in ("key.pub", "key-cert.pub"):
            line = (tmp_path / name).read_text()
            valid, rejected = worker.parse_keys(line)
            assert len(valid) == (not reason)
            assert all(reason in each["reason"] for each in rejected)
            with pytest.raises(InvalidKeyError, match=reason) if reason else contextlib.nullcontext():
                public_key(line)

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
        valid, rejected = worker.parse_keys(line + "\n")
        assert (list(valid.values()), rejected) == ([line], [])

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
    def test_that_are_invalid_are_reported_by_number(self, line: str) -> None:
        valid, rejected = worker.parse_keys(f"# first\n{line}\n")
        assert valid == {}
        assert [each["line"] for each in rejected] == [2]
        assert line not in rejected[0]["reason"]


def _rows(*tests: Callable[..., None]) -> list[dict[str, str]]:
    """Return the tags in the tables of these tests, with the keys of a notebook's tags."""
    rows = []
    for test in tests:
        for first, *_ in test.pytestmark[0].args[1]:  # type: ignore[attr-defined]
            named = {"ssh": first} if isinstance(first, str) else {"ssh": "ngrok"} | first
            rows.append({key.replace("_", "-"): value for key, value in named.items()})
    return rows


def _parsed_by_the_stack(tags: dict[str, str]) -> dict[str, Any]:
    spec = parse_spec(tags, "ssh")
    return {
        "modes": [str(mode) for mode in spec.modes],
        "mode": tag_value(spec.modes),
        "until": spec.until,
        "ngrok": {"url": spec.ngrok_url},
        "users": list(spec.users),
    }


class TestTags:
    """Without the stack the agent parses the tags itself, as the stack does."""

    @pytest.mark.parametrize(
        "tags",
        _rows(
            test_spec.test_the_modes,
            test_spec.test_what_goes_with_a_mode,
            test_spec.test_what_cannot_be_parsed_is_off_and_says_why,
            test_spec.test_a_key_that_differs_in_case_alone_is_named_and_gives_no_access,
            test_spec.test_what_asks_for_nothing_is_no_mistake_in_any_case,
        ),
        ids=str,
    )
    def test_are_parsed_as_the_stack_does(self, tags: dict[str, str]) -> None:
        assert worker.parse_tags(tags) == _parsed_by_the_stack(tags)

    @given(st.dictionaries(st.sampled_from(spec_tag_keys("ssh")), test_spec.TEXT), test_spec.WORDS)
    def test_of_any_text_are_parsed_as_the_stack_does(self, tags: dict[str, str], mode: str) -> None:
        tags = {"ssh": mode} | tags
        assert worker.parse_tags(tags) == _parsed_by_the_stack(tags)

    def test_have_the_configured_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOTEBOOK_SSH_TAG_KEY", "tunnel")
        assert worker.parse_tags({"tunnel": "bastion", "ssh": "off"})["modes"] == ["bastion"]

    def test_admit_only_users_who_were_admitted_and_are_still_named(self) -> None:
        saved = {"mode": "ngrok", "authorized_keys": [{"user": name, "keys": ["k"]} for name in ("ana", "mario")]}
        assert worker.apply_tags(saved, {"ssh": "ngrok", "ssh-users": "mario eve"})["authorized_keys"] == [
            {"user": "mario", "keys": ["k"]}
        ]
        assert worker.apply_tags(saved, {"ssh": "ngrok"})["authorized_keys"] == []

    @pytest.mark.parametrize(
        "until",
        [
            "1970-01-01T00:00Z",
            "1969-12-31T23:59Z",
            "2020-01-01T00:00Z",
        ],
    )
    def test_with_an_end_in_the_past_turn_everything_off(self, tmp_path: Path, until: str) -> None:
        """Whatever the second: 0 is a time, and no end is None."""
        client = agent_module.StackClient.__new__(agent_module.StackClient)
        client.clock_offset = 0
        client.reply = worker.apply_tags({"mode": "ngrok"}, {"ssh": "ngrok", "ssh-until": until})
        assert client.mode() == "off"
        ended = worker.Worker.__new__(worker.Worker)
        ended.sessions = worker.Sessions()
        ended.client, ended.tunnel, ended.problems = client, worker.Tunnel(), {}
        ended.sync_at = ended.files_at = time.monotonic() + 3600
        assert ended.seconds_to_wait() == 0


# Problem codes and the error codes of ngrok that they stand for (https://ngrok.com/docs/errors).
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


class TestNgroksErrors:
    @pytest.mark.parametrize(("code", "number"), [(code, n) for code, numbers in REFUSALS.items() for n in numbers])
    @pytest.mark.parametrize(
        "line", ["ERROR:  ERR_NGROK_{}", '{{"lvl":"eror","err":"no. ERR_NGROK_{}","msg":"closing"}}']
    )
    def test_become_a_problem_with_an_action(self, line: str, code: str, number: int, log_dir: None) -> None:
        tunnel = worker.Tunnel()
        tunnel.parse_log_line(line.format(number))
        assert tunnel.problem[0] == code
        assert f"ERR_NGROK_{number}" in tunnel.problem[1]
        assert code == "ngrok-failed" or len(tunnel.problem[1].split()) > 6, "a sentence with the action"

    def test_of_several_lines_are_reported_as_a_whole(self, log_dir: None) -> None:
        """ngrok's first line says that something is wrong, the next ones what, and where."""
        tunnel = worker.Tunnel()
        for line in (
            "ERROR:  Error reading configuration file '/x/config.yml': YAML parsing error: yaml: unmarshal errors:",
            "ERROR:    line 3: field authtokn not found in type config.v3yamlConfig",
            "ERROR:  ",
            "ERROR:    line 9: cannot unmarshal !!str `x` into int",
        ):
            tunnel.parse_log_line(line)
        code, message = tunnel.problem
        assert code == "ngrok-config"
        for part in ("config.yml", "line 3: field authtokn not found", "line 9: cannot unmarshal", "correct"):
            assert part in message
        for number in range(100):
            tunnel.parse_log_line(f"ERROR:  {number} more and more")
        assert len(tunnel.problem[1]) <= 400

    BUSY = (
        "ERROR:  failed to start tunnel: The endpoint '{}' is already online. Either",
        "ERROR:  1. stop your existing endpoint first, or",
        "ERROR:  2. start both endpoints with pooling.",
        "ERROR:  ",
        "ERROR:  ERR_NGROK_334",
    )

    @pytest.mark.parametrize("url", [None, "tcp://1.tcp.ngrok.io:12345"])
    @pytest.mark.parametrize(
        "lines",
        [
            BUSY,
            ('{{"lvl":"eror","name":"docs","err":"The endpoint \'{}\' is already online.\\r\\n\\r\\nERR_NGROK_334"}}',),
            ('{{"lvl":"eror","err":"The endpoint \'{}\' is already online.\\r\\n\\r\\nERR_NGROK_334"}}',),
        ],
    )
    def test_of_another_endpoint_name_that_one(self, log_dir: None, lines: tuple[str, ...], url: str | None) -> None:
        """`start --all` starts the user's endpoints, too, and any of them may be online elsewhere."""
        tunnel = worker.Tunnel()
        tunnel.desired = {"url": url}
        for line in lines:
            tunnel.parse_log_line(line.format("https://docs.example.com"))
        code, message = tunnel.problem
        assert code == "ngrok-other-endpoint"
        assert "https://docs.example.com" in message
        assert "config.yml" in message
        assert "ERR_NGROK_334" in message

    def test_of_the_reserved_address_name_that_one(self, log_dir: None) -> None:
        """The tag's, or the one that config.yml reserves for ssh."""
        tunnel = worker.Tunnel()
        for desired, text in (
            ({"url": "tcp://1.tcp.ngrok.io:12345"}, ""),
            ({"url": None}, V2.replace("1.tcp.eu.ngrok.io", "1.tcp.ngrok.io")),
        ):
            Path(worker.USER_CONFIG).write_text(text)
            tunnel.problem, tunnel.desired, tunnel.error_lines = None, desired, []
            for line in self.BUSY:
                tunnel.parse_log_line(line.format("tcp://1.tcp.ngrok.io:12345"))
            assert tunnel.problem[0] == "ngrok-address-busy"

    def test_never_contain_the_token(self, log_dir: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """ngrok prints the token that it refuses; it may be the stack's, or one that is only in config.yml."""
        Path(worker.NGROK_LOG).touch()
        for requested, configured in ((TOKEN, "old"), (None, TOKEN), (None, f'"{TOKEN}"')):
            Path(worker.USER_CONFIG).write_text(f"version: 3\nagent:\n  authtoken: {configured}  # mine\n")
            tunnel = worker.Tunnel()
            tunnel.desired = {"token": requested}
            line = f"ERROR:  Your authtoken: {TOKEN} ERR_NGROK_9999"
            monkeypatch.setattr(worker, "spawn", lambda *_, line=line: process_printing(line))
            tunnel.start()
            while tunnel.child:
                tunnel.read_log()
            assert TOKEN not in tunnel.problem[1]
            assert "Your authtoken: ..." in tunnel.problem[1]
        assert TOKEN not in Path(worker.NGROK_LOG).read_text()
        assert Path(worker.NGROK_LOG).read_text().count("Your authtoken: ...") == 3

    def test_reach_no_terminal_with_escapes(self, log_dir: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """ngrok prints what its servers answer, and the user prints its log."""
        Path(worker.NGROK_LOG).touch()
        tunnel = worker.Tunnel()
        line = "ERROR:  \x1b]0;owned\x07 no \x1b[2J ERR_NGROK_9999"
        monkeypatch.setattr(worker, "spawn", lambda *_: process_printing(line))
        tunnel.start()
        while tunnel.child:
            tunnel.read_log()
        assert tunnel.problem[0] == "ngrok-failed"
        assert tunnel.problem[1].isprintable()
        assert all(each.isprintable() for each in Path(worker.NGROK_LOG).read_text().split("\n"))

    @pytest.mark.parametrize(
        ("number", "delay", "phase"), [(334, 1, "connecting"), (8013, 120, "failed"), (105, 120, "failed")]
    )
    def test_that_a_user_has_to_fix_are_retried_slowly(
        self, number: int, delay: int, phase: str, log_dir: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Errors that follow a restart are retried after a second; those that a user has to fix, after two minutes."""
        now = 1000.0
        monkeypatch.setattr(worker, "time", fake_time(lambda: now))
        tunnel = worker.Tunnel()
        with subprocess.Popen(["echo", f"ERROR:  ERR_NGROK_{number}"], stdout=subprocess.PIPE) as tunnel.child:
            tunnel.starts = 1
            while tunnel.child:
                tunnel.read_log()
        assert tunnel.due_at - now == delay
        assert tunnel.phase == phase


CAUSES = [
    (0, "URLError(TimeoutError('timed out'))", "api-unreachable", "NAT"),
    (0, "URLError(gaierror(-2, 'Name or service not known'))", "api-name-unknown", "DNS"),
    (
        0,
        "URLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] …'))",
        "api-certificate",
        "certificate",
    ),
    (0, "URLError(OSError('Tunnel connection failed: 407 Proxy Authentication Required'))", "api-proxy-refused", "407"),
    (0, "JSONDecodeError('Expecting value: line 1 column 1 (char 0)')", "api-no-credentials", "role"),
    (0, "KeyError('Token')", "api-no-credentials", "role"),
    (200, "unreadable", "api-proxy-page", "(200)"),
    (403, "<html><body>Access denied by proxy</body></html>", "api-proxy-page", "(403)"),
    (404, "<!DOCTYPE html>", "api-proxy-page", "(404)"),
    (502, " <HTML>", "api-proxy-page", "NO_PROXY"),
    (301, "", "api-proxy-page", "(301)"),
    (403, '{"message": "Forbidden"}', "api-private-endpoint", "VPC endpoint for execute-api"),
    (
        403,
        '{"Message": "User: arn:aws:sts::1:assumed-role/a/b is not authorized to perform: execute-api:Invoke"}',
        "api-not-allowed",
        "assumed-role/a/b",
    ),
    (
        403,
        '{"message": "User: anonymous is not authorized to access this resource with an explicit deny"}',
        "api-not-allowed",
        "explicit deny",
    ),
    (403, '{"message": "The security token included in the request is expired"}', "api-credentials-refused", "expired"),
    (403, '{"message": "The request signature we calculated does not match"}', "api-credentials-refused", "signature"),
    (403, '{"message": "Signature expired: 2 is now earlier than 3"}', "api-clock", "clock"),
    (403, '{"message": "Signature not yet current"}', "api-clock", "clock"),
    (403, '{"message": "Missing Authentication Token"}', "api-not-found", "restart"),
    (403, '{"error": "other-role", "message": "reports with role a"}', "api-refused", "(403): reports with role a"),
    (404, '{"message": "Not Found"}', "api-not-found", "restart"),
    (400, '{"error": "mode", "message": "mode: must be one of"}', "api-refused", "must be one of"),
    (413, "[]", "api-refused", "(413)"),
    (429, '{"message": "Too Many Requests"}', "api-busy", "Too Many Requests"),
    (500, "", "api-unavailable", "(500)"),
    (503, '{"Message": "Service Unavailable"}', "api-unavailable", "Service Unavailable"),
]
"""What was seen (status, and what came instead of a reply), the code, and a part of the sentence."""


class TestAReportThatFailed:
    def test_is_reported_by_its_cause(self) -> None:
        for status, body, code, text in CAUSES:
            problem = worker.explain(status, body)
            assert problem[0] == code, body
            assert text in problem[1], body

    def test_for_want_of_credentials_is_no_network_trouble(self, notebook: NotebookHost, stack: Stack) -> None:
        """Neither by the text of the error, which may be the same, nor by its code."""
        stack.reply = make_reply("bastion", sync_after=1)
        notebook.start()
        notebook.wait_connected()
        notebook.stop()
        for endpoint, code in ((free_port(), "api-no-credentials"), (None, "api-unreachable")):
            if endpoint:
                notebook.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"http://127.0.0.1:{endpoint}"
            else:
                del notebook.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
                notebook.settings["API"] = f"http://127.0.0.1:{free_port()}/v1"
            notebook.start()
            wait_until(lambda code=code: code in notebook.instructions.read_text(), code, notebook)  # type: ignore[misc]
            notebook.stop()

    def test_has_a_code_that_the_stack_knows_and_gives_to_the_agent(self) -> None:
        """The doctor's check, and docs/statuses.md."""
        documented = set(re.findall(r"`([a-z-]+)`", (PROJECT / "docs/statuses.md").read_text()))
        codes = {cause.code for cause in worker.CAUSES}
        assert codes == {code for _, _, code, _ in CAUSES}
        assert codes <= CODES & documented
        assert {problem_owner(Problem(code, ""), "tunnel") for code in codes} == {"agent"}


class TestAReply:
    """What is not as docs/protocol.md specifies counts as absent."""

    @pytest.mark.parametrize(
        ("field", "value", "taken"),
        [
            ("mode", "bast\x1b[2Jion", "off"),
            ("mode", "two words", "two words"),
            ("modes", ["ngrok", 7, "bast\x1bion"], ["ngrok"]),
            ("modes", "ngrok", []),
            ("until", None, None),
            ("until", 1_900_000_000, 1_900_000_000),
            ("until", "tomorrow", 0),
            ("until", float("nan"), 0),
            ("ngrok", {"url": None, "token_version": "v1", "token": "t"}, {"token_version": "v1", "token": "t"}),
            ("ngrok", "none", None),
            ("bastion", {"host": "b", "user": "$(reboot)", "private_ip": "10.0.0.1"}, None),
            (
                "bastion",
                {"host": "2001:db8::5", "user": "me", "private_ip": "`x`"},
                {"host": "2001:db8::5", "user": "me", "private_ip": None},
            ),
            ("authorized_keys", [{"user": "ana", "keys": ["k"]}, {"user": 1, "keys": []}, {"user": "eve"}, 7], None),
            ("problem", {"code": "paused", "message": "two\nlines\x07"}, {"code": "paused", "message": "two lines"}),
            ("problem", {"code": "Pa used", "message": ""}, None),
        ],
    )
    def test_is_checked_field_by_field(self, field: str, value: Any, taken: Any) -> None:
        checked = worker.check_reply({"mode": "bastion", "sync_after": 60, field: value})
        assert checked[field] == (taken if field != "authorized_keys" else [{"user": "ana", "keys": ["k"]}])
        assert checked["sync_after"] == 60

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each)))
    def test_of_anything_is_a_reply(self, value: Any) -> None:
        for field in ("mode", "until", "ngrok", "bastion", "authorized_keys", "problem"):
            worker.check_reply({field: value, "x": value})


class TestNgroksSource:
    @pytest.fixture
    def downloads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The URLs that `install_ngrok` downloads, in order; the download only creates a program."""
        urls: list[str] = []

        def download(url: str, sha256: str, path: str) -> None:
            urls.append(url)
            Path(path).write_text("#!/bin/sh\n")
            Path(path).chmod(0o755)

        monkeypatch.setattr(worker, "NGROK_DIR", f"{tmp_path}/")
        monkeypatch.setattr(worker, "download_ngrok", download)
        return urls

    def _machine(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        machine = SimpleNamespace(machine=name)
        monkeypatch.setattr(worker.os, "uname", lambda: machine)

    @pytest.mark.parametrize(("machine", "arch"), [("x86_64", "amd64"), ("aarch64", "arm64")])
    def test_depends_on_the_machine(
        self, downloads: list[str], monkeypatch: pytest.MonkeyPatch, machine: str, arch: str
    ) -> None:
        self._machine(monkeypatch, machine)
        worker.install_ngrok(force=False)
        monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", "https://mirror.example.com/{arch}/ngrok.tgz")
        worker.install_ngrok(force=False)
        assert downloads == [
            f"https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz",
            f"https://mirror.example.com/{arch}/ngrok.tgz",
        ]

    def test_is_used_again_only_for_another_machine_or_checksum(
        self, downloads: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The volume stays when the notebook's instance type becomes one with another processor."""
        for machine, checksum in (
            ("x86_64", ""),
            ("x86_64", ""),
            ("aarch64", ""),
            ("aarch64", "a" * 64),
            ("aarch64", "a" * 64),
        ):
            self._machine(monkeypatch, machine)
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_SHA256", checksum)
            worker.install_ngrok(force=False)
        assert len(downloads) == 3

    @pytest.mark.parametrize(("days", "times"), [(364, 1), (366, 2), (14 * 30, 2)])
    def test_is_used_again_before_ngrok_ends_its_support(self, downloads: list[str], days: int, times: int) -> None:
        """Agents are supported for 14 months (https://ngrok.com/docs/agent/version-support-policy)."""
        path = worker.install_ngrok(force=False)
        then = time.time() - days * 86400
        os.utime(path, (then, then))
        worker.install_ngrok(force=False)
        assert len(downloads) == times


def fake_time(monotonic: Callable[[], float]) -> SimpleNamespace:
    """Return the module `time` with another monotonic clock."""
    names = {name: getattr(time, name) for name in dir(time) if name[0] != "_"}
    return SimpleNamespace(**names | {"monotonic": monotonic})


@contextlib.contextmanager
def slow_server(head: bytes) -> Iterator[int]:
    """Serve `head` to a client, and then one byte each hundredth of a second; yields the port."""
    stop = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(head)
            while not stop.wait(0.01):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        stop.set()
        thread.join(LIMIT_S)


class Endless(Server):
    """A local API whose response is larger than what is read."""

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return 200, b'{"endpoints": ["' + b"x" * (1 << 21) + b'"]}'


class TestADownload:
    """Downloads in which the server or the disk fails. With a real server."""

    @pytest.fixture
    def ngrok(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The installed program, which is to be updated."""
        program = tmp_path / "ngrok"
        program.write_text("the installed program")
        program.chmod(0o755)
        monkeypatch.setattr(worker, "NGROK_DIR", f"{tmp_path}/")
        return program

    def test_that_is_too_slow_is_aborted(self, ngrok: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Single bytes keep a connection alive without end; here each reading of the clock is 100 s after the last."""
        monkeypatch.setattr(worker, "time", fake_time(itertools.count(0, 100).__next__))
        with slow_server(b"HTTP/1.0 200 OK\r\n\r\n") as port:
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"http://127.0.0.1:{port}/ngrok.tgz")
            emitted: list[str] = []
            monkeypatch.setattr(worker, "emit", emitted.append)
            update = threading.Thread(target=worker.install_ngrok, args=(True,), daemon=True)
            update.start()
            update.join(LIMIT_S)
            assert not update.is_alive()
        assert "longer than 5 minutes" in emitted[0]
        assert ngrok.read_text() == "the installed program"
        assert [path.name for path in ngrok.parent.iterdir()] == ["ngrok"]

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>404</html>", ngrok_archive()[:-100], ngrok_archive("#!/bin/sh\necho no\n")],
        ids=["empty", "a page for 404", "truncated", "a program that does not run"],  # an archive holds its time
    )
    def test_that_is_broken_leaves_the_installed_program(
        self, ngrok: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        emitted: list[str] = []
        monkeypatch.setattr(worker, "emit", emitted.append)
        with Download() as download:
            download.archive = content
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"{download.url}/ngrok.tgz")
            assert worker.install_ngrok(force=True) == str(ngrok)
            assert download.requests == 1
        assert "was not updated" in emitted[0]
        assert ngrok.read_text() == "the installed program"
        assert [path.name for path in ngrok.parent.iterdir()] == ["ngrok"]

    @pytest.mark.parametrize(
        ("start", "target", "followed"),
        [
            ("https://bin.equinox.io/c/x/ngrok.tgz", "https://bin.ngrok.com/c/x/ngrok.tgz", True),
            ("https://bin.ngrok.com/c/x/ngrok.tgz", "https://bin.ngrok.com/a/x/ngrok.tgz", True),
            ("https://bin.equinox.io/c/x/ngrok.tgz", "http://bin.ngrok.com/c/x/ngrok.tgz", False),
            ("https://bin.equinox.io/c/x/ngrok.tgz", "https://example.com/ngrok.tgz", False),
            ("https://bin.equinox.io/c/x/ngrok.tgz", "https://bin.ngrok.com.example.com/ngrok.tgz", False),
            ("https://bin.equinox.io/c/x/ngrok.tgz", "https://bin.ngrok.com@example.com/ngrok.tgz", False),
            ("https://mirror.example.com/ngrok.tgz", "https://mirror.example.com/elsewhere.tgz", False),
            ("https://mirror.example.com/ngrok.tgz", "https://bin.ngrok.com/ngrok.tgz", False),
            ("http://127.0.0.1:4000/ngrok.tgz", "http://127.0.0.1:4000/moved/ngrok.tgz", True),
            ("http://127.0.0.1:4000/ngrok.tgz", "http://example.com/ngrok.tgz", False),
            ("http://127.0.0.1:4000/ngrok.tgz", "https://bin.ngrok.com/ngrok.tgz", False),
            ("https://bin.equinox.io/c/x/ngrok.tgz", "http://127.0.0.1:4000/ngrok.tgz", False),
        ],
    )
    def test_follows_a_redirect_among_ngroks_own_hosts_alone(self, start: str, target: str, followed: bool) -> None:
        """UNCONFIRMED(ngrok-redirect) whether ngrok's address redirects: it answered itself, and its files move to ngrok.com."""
        request = urllib.request.Request(start)
        new = worker.NgrokRedirects().redirect_request(request, None, 302, "Found", {}, target)
        assert (new.full_url if new else None) == (target if followed else None)

    def test_is_requested_over_https_alone(self, ngrok: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        emitted: list[str] = []
        monkeypatch.setattr(worker, "emit", emitted.append)
        monkeypatch.setattr(worker, "open_exclusive", lambda path: pytest.fail("nothing is requested"))
        for url in ("http://mirror.example.com/ngrok.tgz", "ftp://mirror.example.com/x", f"file://{ngrok}"):
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", url)
            worker.install_ngrok(force=True)
            assert "https" in emitted[-1]

    @pytest.mark.parametrize("name", ["ngrok", "another"])
    def test_that_unpacks_to_too_much_is_aborted(self, ngrok: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Zeros compress to a thousandth: the archive's own limit is none for what is in it, wherever it stands."""
        monkeypatch.setattr(worker, "MAX_UNPACKED_BYTES", 1 << 20)
        emitted: list[str] = []
        monkeypatch.setattr(worker, "emit", emitted.append)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for member in (name, "ngrok"):
                entry = tarfile.TarInfo(member)
                entry.size = 1 << 21
                archive.addfile(entry, io.BytesIO(bytes(entry.size)))
        with Download() as download:
            download.archive = packed.getvalue()
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"{download.url}/ngrok.tgz")
            worker.install_ngrok(force=True)
        assert "unpacks to more than" in emitted[0]
        assert [path.name for path in ngrok.parent.iterdir()] == ["ngrok"]

    def test_whose_program_is_a_link_is_refused(self, ngrok: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        emitted: list[str] = []
        monkeypatch.setattr(worker, "emit", emitted.append)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            text = b"#!/bin/sh\necho ngrok version 3.0\n"
            entry = tarfile.TarInfo("program")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
            link = tarfile.TarInfo("ngrok")
            link.type, link.linkname = tarfile.SYMTYPE, "program"
            archive.addfile(link)
        with Download() as download:
            download.archive = packed.getvalue()
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"{download.url}/ngrok.tgz")
            worker.install_ngrok(force=True)
        assert "no file named ngrok" in emitted[0]
        assert ngrok.read_text() == "the installed program"

    def test_to_a_full_disk_leaves_the_installed_program(self, ngrok: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "open_exclusive", lambda path: Path("/dev/full").open("wb"))  # noqa: SIM115
        emitted: list[str] = []
        monkeypatch.setattr(worker, "emit", emitted.append)
        with Download() as download:
            monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", f"{download.url}/ngrok.tgz")
            assert worker.install_ngrok(force=True) == str(ngrok)
            ngrok.unlink()
            with pytest.raises(worker.AgentError, match="disk-full"):
                worker.install_ngrok(force=True)
        assert "No space left" in emitted[0]
        assert list(ngrok.parent.iterdir()) == []


class TestAFullDisk:
    """ENOSPC of a write names no file: the agent knows which one it was, and notices when there is room."""

    def _fail(self, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    @pytest.mark.parametrize(
        ("name", "where"),
        [("SageMaker/.notebook-ssh/reply.json", "~/SageMaker"), (".ssh/authorized_keys", "root volume")],
    )
    def test_is_reported_with_the_file_and_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
    ) -> None:
        monkeypatch.setattr(worker, "HOME", str(tmp_path))
        monkeypatch.setattr(worker, "VOLUME_DIR", f"{tmp_path}/SageMaker/")
        monkeypatch.setattr(worker, "write_text", self._fail)
        with pytest.raises(OSError, match="No space") as caught:
            worker.write_file(f"{tmp_path}/{name}", "text")
        code, message = worker.explain_os_error(caught.value, "/elsewhere")
        assert code == "disk-full"
        assert f"{tmp_path}/{name}" in message
        assert where in message
        assert "elsewhere" not in message

    def test_during_the_download_is_no_fault_of_the_address(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "NGROK_DIR", f"{tmp_path}/")
        monkeypatch.setattr(worker, "download_ngrok", self._fail)
        with pytest.raises(worker.AgentError) as caught:
            worker.install_ngrok(force=False)
        code, message = caught.value.args
        assert (code, str(tmp_path) in message) == ("disk-full", True)

    def test_is_over_seconds_after_there_is_room(self, log_dir: None, monkeypatch: pytest.MonkeyPatch) -> None:
        now, free, starts = 1000.0, 0, list[float]()
        monkeypatch.setattr(worker, "time", fake_time(lambda: now))
        monkeypatch.setattr(worker, "free_bytes", lambda: free)
        tunnel = worker.Tunnel()

        def fail() -> None:
            starts.append(now)
            tunnel.schedule_restart()

        monkeypatch.setattr(tunnel, "start", fail)
        tunnel.desired = {"token": None, "url": None, "port": 22, "saved": False}
        tunnel.starts, tunnel.problem = 7, ("disk-full", "the volume is full")
        tunnel.schedule_restart()
        for now in range(1001, 1100):
            free = (now > 1060) << 30
            tunnel.ensure(None, None, 22, saved=False)
            if starts:
                break
        assert len(starts) == 1
        assert 1061 <= starts[0] <= 1066
        until = now + 1000
        while now < until:
            now += 1
            tunnel.ensure(None, None, 22, saved=False)
        assert len(starts) == 2, "without more room it is tried in minutes, since a download is large"

    def test_of_files_is_tried_again_in_seconds(self, log_dir: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "sync_authorized_keys", self._fail)
        full = worker.Worker.__new__(worker.Worker)
        full.sessions = worker.Sessions()
        full.client, full.problems = SimpleNamespace(mode=lambda: "bastion", reply={}), {}
        full.tunnel = worker.Tunnel()
        full.sshd_at = full.files_at = time.monotonic() + 300
        monkeypatch.setattr(full, "ensure_sshd", lambda: None)
        full.ensure_files()
        assert full.problems["files"][0] == "disk-full"
        assert full.files_at <= time.monotonic() + 10


class TestAnSshdOfTheAgent:
    """A message is all that is told: it names the thing, and what to do about it."""

    @pytest.mark.parametrize(
        ("allowed", "manager", "told"),
        [
            ("", True, "an admin sets InstallSshd=true"),
            ("yes", True, "the repository"),
            ("yes", False, "neither dnf nor yum"),
        ],
    )
    def test_that_is_not_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str, manager: bool, told: str
    ) -> None:
        monkeypatch.setenv("NOTEBOOK_SSH_INSTALL_SSHD", allowed)
        monkeypatch.setattr(worker, "PROGRAM_DIRS", str(tmp_path))
        if manager:
            (tmp_path / "yum").touch(0o755)
        code, message = worker.start_own("network")
        assert code == "sshd-missing"
        assert told in message

    def test_whose_port_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "sshd").touch(0o755)
        monkeypatch.setattr(worker, "PROGRAM_DIRS", str(tmp_path))
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            monkeypatch.setattr(worker, "SSH_PORT", port)
            code, message = worker.start_own("network")
        assert code == "sshd-port-taken"
        assert f"`ss -ltnp sport = {port}`" in message


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "NGROK_DIR", f"{tmp_path}/")
    monkeypatch.setenv("NOTEBOOK_SSH_NGROK_DOWNLOAD", "http://127.0.0.1:9/ngrok.tgz")
    with pytest.raises(worker.AgentError) as raised:
        worker.install_ngrok(False)
    code, message = raised.value.args
    assert code == "ngrok-download"
    assert "http://127.0.0.1:9/ngrok.tgz" in message
    assert "allow this notebook to reach it, or an admin sets NgrokDownload" in message


@pytest.mark.parametrize("head", [b"", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["its head", "its body"])
def test_a_slow_local_api_times_out(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """Each byte comes within the timeout of a read; the response would never be complete."""
    monkeypatch.setattr(worker, "API_TIMEOUT_S", 0.3)
    with slow_server(head) as port, pytest.raises(TimeoutError, match=f"{port} takes longer than"):
        worker.query_local_api(f"127.0.0.1:{port}", "endpoints")


def test_an_endless_response_of_the_local_api_is_read_to_a_limit() -> None:
    with Endless() as server, pytest.raises(ValueError, match="Unterminated string"):
        worker.query_local_api(f"127.0.0.1:{server.port}", "endpoints")


def test_a_child_that_closes_its_output_and_does_not_exit_is_killed(
    log_dir: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the place of ngrok may close its output and continue to run."""
    monkeypatch.setattr(worker, "EXIT_TIMEOUT_S", 0.1)
    tunnel = worker.Tunnel()
    command = ["sh", "-c", "exec >&-; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tunnel.child:
        tunnel.starts = 1
        while tunnel.child:
            tunnel.read_log()
    assert tunnel.problem == ("ngrok-ended", f"ngrok exited with status -9; its log is {worker.NGROK_LOG}")


def test_changes_are_reported_at_once_five_times_and_then_every_20_seconds(
    log_dir: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel that changes every second for an hour must not cause a storm of reports."""
    seconds, changes = itertools.count(1000.0), itertools.count()
    monkeypatch.setattr(worker, "time", fake_time(seconds.__next__))
    busy = worker.Worker.__new__(worker.Worker)
    busy.sessions = worker.Sessions()
    busy.client = SimpleNamespace(failures=0, mode=lambda: "bastion", reply={})
    busy.tunnel, busy.problems, busy.reported, busy.build_report = worker.Tunnel(), {}, None, changes.__next__
    busy.report_budget, busy.report_budget_at = 5.0, next(seconds)
    due = [busy.report_due() for _ in range(3600)]
    assert due[:5] == [True] * 5
    assert 180 <= sum(due) <= 186


def test_an_end_time_that_passed_during_a_suspend_is_noticed_within_a_minute(
    log_dir: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stops in a suspend (clock_gettime(2)); the real-time clock does not."""
    waits: list[float] = []

    def select(*arguments: Any) -> tuple[list[Any], list[Any], list[Any]]:
        waits.append(arguments[-1])
        return [], [], []

    monkeypatch.setattr(worker, "select", SimpleNamespace(select=select))
    suspended = worker.Worker.__new__(worker.Worker)
    suspended.sessions = worker.Sessions()
    suspended.client = SimpleNamespace(reply={"until": time.time() + 8 * 3600}, clock_offset=0, mode=lambda: "bastion")
    suspended.tunnel, suspended.problems, suspended.wake_fifo = worker.Tunnel(), {}, None
    suspended.sync_at = suspended.files_at = time.monotonic() + 9 * 3600
    suspended.wait()
    suspended.client.reply["until"] = time.time() - 1
    suspended.wait()
    assert 59 < waits[0] <= 60
    assert waits[1] == 0


class TestASetUpByHand:
    """What the guide of 2020 leaves in an on-start script: its own commands, and an ngrok agent of its own."""

    @pytest.fixture
    def machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A machine with the agent's own ngrok, process 100, and other programs."""
        monkeypatch.setattr(worker, "PROC", f"{tmp_path}/proc/")
        monkeypatch.setattr(worker, "COMMAND_DIRS", [f"{tmp_path}/usr/bin/", f"{tmp_path}/bin/"])
        for pid, words in (
            (100, ["ngrok", "start", "--all"]),
            (101, ["vim", "ngrok"]),
            (102, []),
            (103, ["ngrok", "http", "80"]),
        ):
            self.run(tmp_path, pid, *words)
        (tmp_path / "usr/bin").mkdir(parents=True)
        (tmp_path / "bin").symlink_to("usr/bin")
        (tmp_path / "usr/bin/ssh-add").touch()
        return tmp_path

    @staticmethod
    def run(machine: Path, pid: int, *words: str) -> None:
        (machine / f"proc/{pid}").mkdir(parents=True)
        (machine / f"proc/{pid}/cmdline").write_text("".join(word + "\0" for word in words))

    def test_is_found_by_its_commands_and_its_agent(self, machine: Path) -> None:
        assert worker.setup_by_hand(100) == ""
        (machine / "usr/bin/copy-ssh-keys").touch()
        seen = worker.setup_by_hand(100)
        assert seen.count("copy-ssh-keys") == 1, "a folder and a link to it are one"
        self.run(
            machine, 104, "/home/ec2-user/SageMaker/.ngrok/ngrok", "start", "--all", "--config", "c", "--log=stdout"
        )
        assert "process 104" in worker.setup_by_hand(100)
        self.run(machine, 105, "ngrok", "tcp", "22")
        assert "process 104" in worker.setup_by_hand(100)

    def test_that_overwrites_the_keys_is_undone_at_once(
        self, log_dir: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its `copy-ssh-keys` is a `cp` over the whole file; the worker wakes at least once a minute."""
        monkeypatch.setattr(worker, "HOME", str(tmp_path))
        (tmp_path / ".ssh").mkdir()
        keys = tmp_path / ".ssh/authorized_keys"
        keys.write_text("# ours\n")
        written = worker.Worker.__new__(worker.Worker)
        written.sessions = worker.Sessions()
        written.client, written.tunnel = SimpleNamespace(mode=lambda: "bastion", reply={}), worker.Tunnel()
        written.problems, written.files_at, ensured = {}, time.monotonic() + 300, list[bool]()
        written.keys_stamp = worker.keys_stamp()
        monkeypatch.setattr(written, "ensure_files", lambda: ensured.append(True))
        monkeypatch.setattr(written, "write_status", lambda: None)
        written.apply()
        assert ensured == []
        for change in (lambda: keys.write_text("# theirs\n"), keys.unlink, lambda: keys.write_text("# ours\n")):
            change()
            written.apply()
            written.keys_stamp = worker.keys_stamp()
        assert ensured == [True] * 3

    def test_is_reported_when_there_is_no_other_problem(self, log_dir: None, monkeypatch: pytest.MonkeyPatch) -> None:
        told = worker.Worker.__new__(worker.Worker)
        told.sessions = worker.Sessions()
        told.client, told.tunnel, told.problems = SimpleNamespace(mode=lambda: "bastion", reply={}), worker.Tunnel(), {}
        monkeypatch.setattr(worker, "setup_by_hand", lambda own: "/usr/bin/copy-ssh-keys")
        told.look_for_setup_by_hand()
        assert told.phase() == "connected", "it works nevertheless"
        assert told.problem()["code"] == "setup-by-hand"
        assert "/usr/bin/copy-ssh-keys" in told.problem()["message"]
        told.set_problem("sshd", "sshd-down", "no sshd")
        assert told.problem()["code"] == "sshd-down"
        monkeypatch.setattr(worker, "setup_by_hand", lambda own: "")
        told.look_for_setup_by_hand()
        assert [code for code, _ in told.problems.values()] == ["sshd-down"]


@pytest.mark.parametrize(
    ("title", "count"),
    [
        ("sshd: {}@notty", 1),
        ("sshd: {}@pts/1000000,notty", 0),  # the terminal is gone, and soon the process
        ("sshd: {}", 1),
        ("sshd-session: {}", 1),
        ("sshd-session: {}@notty", 1),
        ("sshd: {} [priv]", 0),
        ("sshd-session: {} [priv]", 0),
        ("sshd: {} [net]", 0),
        ("sshd: {}2", 0),
        ("sshd: {}2@notty", 0),
        ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", 0),
    ],
)
def test_a_connection_counts_with_and_without_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str, count: int
) -> None:
    """A port forward alone is use, too: `ssh -N -L`. The titles are sshd's."""
    monkeypatch.setattr(worker, "HOME", str(tmp_path))
    user = pwd.getpwuid(tmp_path.stat().st_uid).pw_name
    before = worker.sessions()["open"]
    command = ["bash", "-c", 'exec -a "$0" cat', title.format(user)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # it has its title
        found = worker.sessions()
        assert found["open"] - before == count
        assert not count or time.time() - found["active_at"] < LIMIT_S
        process.stdin.close()


@pytest.mark.posix
@pytest.mark.parametrize(
    ("policy", "included"),
    [
        (None, False),
        ("Ciphers aes256-gcm@openssh.com\n", True),
        ("CRYPTO_POLICY='-oCiphers=aes256-gcm@openssh.com'\n", False),  # an older system's: options of the command line
    ],
)
def test_the_agents_own_sshd_follows_the_systems_crypto_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str | None, included: bool
) -> None:
    """sshd itself says what it would do (`sshd -T`): the policy's ciphers, and public keys alone."""
    program = shutil.which("sshd", path=worker.PROGRAM_DIRS)
    assert program
    if policy:
        (tmp_path / "policy").write_text(policy)
    for name, value in (("CRYPTO_POLICY", tmp_path / "policy"), ("OWN_DIR", f"{tmp_path}/"), ("HOME", tmp_path)):
        monkeypatch.setattr(worker, name, str(value))
    key = tmp_path / "ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=LIMIT_S)
    assert worker.configure(program, 2022, "loopback", [str(key)]) == ""
    command = [str(program), "-T", "-f", str(tmp_path / "sshd_config")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout.splitlines()
    assert ("ciphers aes256-gcm@openssh.com" in told) == included
    user = pwd.getpwuid(tmp_path.stat().st_uid).pw_name
    assert {
        "port 2022",
        "listenaddress 127.0.0.1:2022",
        f"allowusers {user}",
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "authenticationmethods publickey",
    } <= set(told)


def test_a_mode_that_the_worker_does_not_know_is_reported(log_dir: None) -> None:
    """The stack may be newer than the block and the worker."""
    outdated = worker.Worker.__new__(worker.Worker)
    outdated.sessions = worker.Sessions()
    mode = "carrier-pigeon"
    outdated.client = SimpleNamespace(mode=lambda: mode, reply={})
    outdated.tunnel, outdated.problems, outdated.keys = worker.Tunnel(), {}, {}
    outdated.files_at, outdated.keys_stamp = time.monotonic() + 3600, worker.keys_stamp()
    outdated.write_status = lambda: None
    outdated.apply()
    report = outdated.build_report()
    assert (report["modes"], report["phase"], report["problem"]["code"]) == ([mode], "failed", "agent-outdated")
    mode = "bastion"
    outdated.apply()
    assert (outdated.build_report()["phase"], outdated.build_report()["problem"]) == ("connected", None)


def test_while_ssh_is_paused_the_instructions_do_not_ask_for_a_tag() -> None:
    paused = "An admin has paused SSH for all notebooks of this stack."
    text = worker.render_instructions({"modes": [], "problems": [["paused", paused]]})
    assert paused in text
    assert "Ask your admin" in text
    assert "=ngrok" not in text
    assert "=ngrok" in worker.render_instructions({"modes": [], "problems": []})
    assert "=ngrok, ssh=bastion, ssh=eice" in worker.render_instructions({"modes": []})


CONNECTED = {
    "notebook": "Demo",
    "modes": ["ngrok"],
    "phase": "connected",
    "command": "ssh -p 17887 ec2-user@0.tcp.ngrok.io",
    "problems": [],
    "host_keys": ["ssh-ed25519 AAAA"],
    "keys": {"own": 1, "central": 0, "rejected": []},
}


def test_the_client_and_its_verified_key_come_before_plain_ssh() -> None:
    text = worker.render_instructions(CONNECTED)
    lines = text.splitlines()
    client, plain = lines.index("    ssh Demo"), lines.index("    ssh -p 17887 ec2-user@0.tcp.ngrok.io")
    assert client < plain
    assert "notebook-ssh" in lines[client - 2]
    assert "verifies the host key" in " ".join(lines[:client])
    assert "compare" in lines[plain - 2]
    assert "Copy a file here:   scp FILE Demo:SageMaker/" in lines
    assert max(map(len, lines)) <= 100


def test_nothing_to_type_is_named_before_there_is_an_address() -> None:
    text = worker.render_instructions({**CONNECTED, "phase": "starting", "command": None})
    assert "    There is no address yet: starting.\n" in text
    assert "ssh Demo" not in text


def test_a_login_without_a_terminal_prints_nothing(tmp_path: Path) -> None:
    """scp, sftp, rsync and an editor's server run shells that are not interactive; `/etc/profile` reads this file in each."""
    home = tmp_path / "home"
    (home / "SageMaker").mkdir(parents=True)
    (home / "anaconda3/etc/profile.d").mkdir(parents=True)
    (home / "anaconda3/etc/profile.d/conda.sh").write_text("echo conda was read\n")
    profile = tmp_path / "profile.sh"
    profile.write_text(worker.PROFILE_SCRIPT.format(home=home, region="eu-west-1"))

    def output(options: str, **environment: str) -> str:
        command = [
            "bash",
            "--norc",
            "--noprofile",
            options,
            f'. "{profile}"; echo "$AWS_DEFAULT_REGION $AWS_REGION $PATH"',
        ]
        variables = {"PATH": "/usr/bin:/bin"} | environment
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, check=True, timeout=LIMIT_S
        ).stdout

    plain = "  /usr/bin:/bin\n"
    assert output("-c", SSH_CONNECTION="1 2 3 4") == plain
    assert output("-ic") == plain, "Jupyter's own terminal"
    assert (
        output("-ic", SSH_CONNECTION="1 2 3 4")
        == f"conda was read\neu-west-1 eu-west-1 {home}/anaconda3/bin:/usr/bin:/bin\n"
    )
    assert "mine mine" in output("-ic", SSH_CONNECTION="1 2 3 4", AWS_DEFAULT_REGION="mine")


@pytest.mark.parametrize("shell", ["bash -eu", "bash --posix -eu", "dash -eu"])
def test_the_profile_script_ends_no_strict_shell(tmp_path: Path, shell: str) -> None:
    """A script may read /etc/profile after `set -eu`, and with nothing in its environment."""
    (tmp_path / "SageMaker").mkdir()
    profile = tmp_path / "profile.sh"
    profile.write_text(worker.PROFILE_SCRIPT.format(home=tmp_path, region="eu-west-1"))
    script = f'. "{profile}"; SSH_CONNECTION="1 2 3 4"; . "{profile}"; unset PATH; . "{profile}"; echo continues'
    done = subprocess.run([*shell.split(), "-c", script], env={}, capture_output=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"continues\n", b"")


@pytest.mark.parametrize(
    ("host", "jump"),
    [
        ("bastion.example.com", "jump@bastion.example.com"),
        ("bastion.example.com:2222", "jump@bastion.example.com:2222"),
        ("203.0.113.7", "jump@203.0.113.7"),
        ("2001:db8::5", "jump@[2001:db8::5]"),
    ],
)
def test_the_command_leads_ssh_to_the_bastion(log_dir: None, host: str, jump: str) -> None:
    """ssh(1), -J: `user@host:port`; ssh itself says whom it takes for the host."""
    reply = {"bastion": {"host": host, "user": "jump", "private_ip": "10.0.3.7"}}
    ready = worker.Worker.__new__(worker.Worker)
    ready.sessions = worker.Sessions()
    ready.client, ready.tunnel = SimpleNamespace(mode=lambda: "bastion", reply=reply), worker.Tunnel()
    ready.problems = {}
    command = ready.ssh_command()
    assert command == f"ssh -J {jump} ec2-user@10.0.3.7"
    read = subprocess.run(
        ["ssh", "-G", *command.split()[1:]], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert f"proxyjump jump@{host}\n" in re.sub(r"[][]", "", read.stdout)


MODULES = sorted((PROGRAMS / "worker").glob("*.py"))
SOURCES = [*(PROGRAMS / f"{name}.py" for name in ("agent", "boot", "loader")), *MODULES]


class TestTheSources:
    """The sources themselves, not run."""

    @pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
    def test_the_language_is_python_3_9(self, path: Path) -> None:
        """Python 3.9 is the system's on notebook-al2023-v1."""
        text = path.read_text()
        ast.parse(text, feature_version=(3, 9))
        assert not re.findall(NEW_IN_3_10, text)

    def test_they_are_typed_and_use_nothing_newer_than_python_3_10(self) -> None:
        """mypy knows which version of Python added a name; 3.10 is the oldest that it supports."""
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "mypy",
            "--config-file=",
            "--strict",
            "--python-version=3.10",
        ]
        command += [
            f"--cache-dir={PROJECT}/.mypy_cache",
            *SOURCES,
        ]
        completed = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=PROGRAMS)
        assert completed.returncode == 0, completed.stdout + completed.stderr

    @pytest.mark.parametrize("name", ["agent.py", "boot.py", "block.sh"])
    def test_the_block_names_no_mode_except_off(self, name: str) -> None:
        """A mode can be added without another block."""
        assert not re.search("ngrok|bastion", (PROGRAMS / name).read_text())

    def test_every_module_of_the_worker_has_at_most_400_lines(self) -> None:
        assert {path.name for path in MODULES if len(path.read_text().splitlines()) > 400} == set()

    @pytest.mark.parametrize(("name", "paths"), [("agent", [PROGRAMS / "agent.py"]), ("worker", MODULES)])
    def test_every_blocking_call_has_a_timeout(self, name: str, paths: list[Path]) -> None:
        """Each call that can block has a timeout, except those of `UNLIMITED`, with the reason."""
        trees = [ast.parse(path.read_text()) for path in paths]
        calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
        unlimited = {ast.unparse(call) for call in calls if _last_word(call.func) in LIMITS and not _is_limited(call)}
        assert unlimited == UNLIMITED[name].keys()


NEW_IN_3_10 = (
    r"\b(?:aiter|anext|pairwise|aclosing|bit_count|orig_argv|stdlib_module_names|hardlink_to|eventfd|splice|NoneType"
    r"|root_dir|ignore_cleanup_errors|strict=|get_annotations|b32hex)\b"
)
"""Names that are new in Python 3.10 (docs.python.org/3/whatsnew/3.10.html) and could be used here."""

LIMITS = {
    "run": 9, "communicate": 2, "wait": 1, "urlopen": 3, "create_connection": 2, "select": 4, "open": 9, "acquire": 2,
    "lockf": 9, "join": 1, "recv": 9, "accept": 9, "stdout.read": 9,
    "stdout.read1": 9, "flock": 9,
}  # fmt: skip
"""Calls that can block, with the number of positional arguments that includes a timeout. Opening a FIFO blocks."""

UNLIMITED = {
    "agent": {
        "child.stdout.read(1 << 20)": "the supervisor waits for its children",
        "child.stdout.read1(1 << 20)": "the same",
        "os.open(RUN_DIR + 'lock', os.O_RDWR | os.O_CREAT, 384)": "in a directory of root",
        "open(file, 'w', encoding='utf8', errors='surrogateescape', newline='')": "a descriptor",
        "os.open(ROOT + '/var/log/notebook-ssh.log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)": "in a directory of root",
    },
    "worker": {
        "child.wait()": "it was killed just before",
        "open(path, 'xb')": "it creates the file",
        "open(NGROK_LOG, 'r+b')": "in a directory of root",
        "os.open('/dev/' + name, flags)": "O_NONBLOCK",
        "os.open(NGROK_LOG, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 384)": "in a directory of root",
        "tarfile.open(fileobj=unpacked, mode='r|')": "a file that the worker has just written",
        "probe.recv(4)": "the connection has a timeout",
        "Worker().run()": "the worker runs without end",
        "self.wait()": "the worker's own method, which has a timeout",
    },
}


def _last_word(function: ast.expr) -> str:
    words = ast.unparse(function).split(".")
    return ".".join(words[-2:] if words[-2] == "stdout" else words[-1:]) if words[1:] else words[0]


def _is_limited(call: ast.Call) -> bool:
    """Return whether the call has a timeout, or does not block (O_NONBLOCK, O_EXCL, LOCK_NB)."""
    named = {word.arg for word in call.keywords} & {"timeout", "opener"}
    return (
        bool(named)
        or len(call.args) >= LIMITS[_last_word(call.func)]
        or bool(re.search("O_NONBLOCK|O_EXCL|LOCK_NB", ast.unparse(call)))
    )


AUTHORITY = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPdOmUCWccDIhlegpb5sbicMUDc8jUjPSQJw9d87cAxj"
    "xc/gcsUrdWv7RnV2g4maTGjbL21CPJNC/ujPBjeMl6w="
)
CERTIFICATES = {"authorities": [AUTHORITY], "principal": "team-ssh/My-Box/1796039785"}


def test_each_authority_has_a_line_for_this_notebook_alone() -> None:
    assert worker.check_certificates(CERTIFICATES) == CERTIFICATES
    assert worker.authority_lines(CERTIFICATES) == [
        "# certificates",
        f'cert-authority,principals="team-ssh/My-Box/1796039785" {AUTHORITY}',
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"authorities": []},
        {"authorities": "x"},
        {"authorities": [1]},
        {"authorities": [AUTHORITY, "ssh-ed25519 AAAA"]},
        {"authorities": [AUTHORITY + "\nssh-ed25519 AAAA"]},
        {"authorities": ["restrict " + AUTHORITY]},
        {"authorities": [AUTHORITY[:-8]]},
        {"authorities": [AUTHORITY] * 5},
        {"principal": None},
        {"principal": ""},
        {"principal": "*"},
        {"principal": "team-ssh/My-Box/1,root"},
        {"principal": 'team-ssh/My-Box/1",command="x'},
        {"principal": "team-ssh/My-Box/1\n"},
        {"principal": "team-ssh/My-Box"},
    ],
)
def test_what_is_no_authority_or_principal_counts_as_absent(change: dict[str, Any]) -> None:
    """Nothing else gets into authorized_keys by this line, whatever a stack says."""
    assert worker.check_certificates(CERTIFICATES | change) is None
    assert worker.authority_lines(None) == []


def test_no_escape_of_anothers_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    status = {"modes": ["bastion", "\x1b]0;another title\x07"], "tunnel_started_at": 0}
    assert worker.show_status(status, restart=True) == 1
    worker.show("Problem: \x1b[2Jall is well\x9b1A\nsshd is down")
    shown = capsys.readouterr().out
    assert shown == (
        "This notebook is in mode bastion  ]0;another title : there is no tunnel to start.\n"
        "Problem:  [2Jall is well 1A\nsshd is down\n"
    )
