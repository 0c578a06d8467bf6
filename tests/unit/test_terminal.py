"""A terminal of the local run: in any shell, with its programs first in PATH, and with a configuration of ssh of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import terminal
from terminal import EnvironmentFile, Terminal

ENDPOINT = "http://127.0.0.1:4566"
HOSTILE = """it's $HOME, "or" not"""
API = "https://abc123.execute-api.us-east-1.amazonaws.com"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal on a machine where curl, ssh, scp, sftp and the client print what they are given."""
    real = tmp_path / "of this machine"
    real.mkdir()
    for name in ("curl", "ssh", "scp", "sftp", "python"):
        (real / name).write_text(f"#!/bin/sh\nprintf '%s\\n' {name} \"$@\"\n")
        (real / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{real}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(terminal, "virtual_environment", lambda home, *_: real / "python")
    keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": HOSTILE}
    home = tmp_path / "it's a home"
    return Terminal(home, ENDPOINT, f"{ENDPOINT}/api", keys, tmp_path / "ports").set_up([home / "a 100% key"])


def said(*command: str | Path) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        (f"{API}/v1/notebooks", f"{ENDPOINT}/_aws/execute-api/abc123/v1/notebooks"),
        (f"{API}/v1/notebooks/a/ssh", f"{ENDPOINT}/_aws/execute-api/abc123/v1/notebooks/a/ssh"),
        (f"{API}.cn/v1/x", f"{ENDPOINT}/_aws/execute-api/abc123/v1/x"),
        ("https://example.com/execute-api/v1", "https://example.com/execute-api/v1"),
        ("x-amz-security-token: a b  c", "x-amz-security-token: a b  c"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_curl_finds_addresses_of_api_gateway_here_and_takes_every_other_word_as_it_is(
    made: Terminal, typed: str, asked: str
) -> None:
    assert said(made.programs / "curl", "-H", typed, "--last") == ["curl", "-H", asked, "--last"]


@pytest.mark.parametrize("program", ["ssh", "scp", "sftp"])
def test_ssh_and_its_kin_read_the_configuration_of_the_terminal(made: Terminal, program: str) -> None:
    assert said(made.programs / program, "my-notebook", "a b") == [
        program,
        "-F",
        str(made.config),
        "my-notebook",
        "a b",
    ]


@pytest.mark.parametrize(
    ("typed", "changed"),
    [
        (["setup"], ["setup", "--ssh-config", "CONFIG"]),
        (["setup", "--remove"], ["setup", "--ssh-config", "CONFIG", "--remove"]),
        (["setup", "--stack", "a b"], ["setup", "--ssh-config", "CONFIG", "--stack", "a b"]),
        (["list", "--json"], ["list", "--json"]),
        (["ssh", "setup"], ["ssh", "setup"]),
        ([], []),
    ],
)
def test_setup_changes_the_configuration_of_the_terminal(made: Terminal, typed: list[str], changed: list[str]) -> None:
    words = [str(made.config) if word == "CONFIG" else word for word in changed]
    assert said(made.programs / "notebook-ssh", *typed) == ["python", "-I", "-m", "notebook_ssh_client", *words]


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        ("127.3.1.4:22", "127.3.1.4:40123"),
        ("127.3.1.5:22", "127.3.1.5:22"),
        ("127.3.1.4:2222", "127.3.1.4:2222"),
        ("10.0.0.4:22", "10.0.0.4:22"),
    ],
)
def test_a_private_address_is_reached_where_this_user_may_listen(made: Terminal, target: str, reached: str) -> None:
    made.ports.mkdir()
    (made.ports / "127.3.1.4").write_text("Host 127.3.1.4\n  Port 40123\n")
    assert said(made.programs / "ssh", "-W", target, "--", "bastion")[3:] == ["-W", reached, "--", "bastion"]


def test_ssh_understands_the_configuration(made: Terminal) -> None:
    made.ports.mkdir()
    (made.ports / "127.3.1.4").write_text("Host 127.3.1.4\n  Port 40123\n")
    real = next(path for path in ("/usr/bin/ssh", "/bin/ssh") if os.path.exists(path))

    def seen(host: str) -> dict[str, str]:
        return dict(line.partition(" ")[::2] for line in said(real, "-G", "-F", made.config, host))

    assert (seen("127.3.1.4")["port"], seen("127.3.1.5")["port"]) == ("40123", "22")
    assert seen("anywhere")["identityfile"].replace("%%", "%") == str(made.home / "a 100% key")
    assert seen("anywhere")["userknownhostsfile"] == str(made.home / ".ssh/known_hosts")


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
def test_the_file_is_for_any_shell(made: Terminal, tmp_path: Path, shell: str) -> None:
    file = EnvironmentFile(tmp_path / "folder" / "local.sh")
    file.write(made.file({"MORE": HOSTILE}))
    typed = (
        f'. "{file.path}"; command -v ssh; printf "%s\\n" "$AWS_SECRET_ACCESS_KEY" "$MORE" '
        '"${AWS_PROFILE-unset}" "${AWS_SESSION_TOKEN-unset}" "$NO_PROXY" "$no_proxy"'
    )
    environment = os.environ | {"AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "of yesterday", "no_proxy": "example.com"}
    environment.pop("NO_PROXY", None)
    done = subprocess.run([shell, "-euc", typed], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        str(made.programs / "ssh"),
        HOSTILE,
        HOSTILE,
        "unset",
        "unset",
        "127.0.0.1",
        "127.0.0.1,example.com",
    ]


def test_only_its_user_can_read_the_file_whatever_lies_there(tmp_path: Path) -> None:
    left = tmp_path / "local.sh"
    left.write_text("of a run that was killed, and for all to read, and longer than what follows")
    left.chmod(0o644)
    file = EnvironmentFile(left)
    assert (file.path, left.read_text()) == (left, "")
    file.write("export A=b\n")
    assert (left.stat().st_mode & 0o777, left.read_text()) == (0o600, "export A=b\n")


def test_two_runs_have_a_file_each(tmp_path: Path) -> None:
    first, second, third = (EnvironmentFile(tmp_path / "local.sh") for _ in range(3))
    assert [file.path.name for file in (first, second, third)] == ["local.sh", "local-2.sh", "local-3.sh"]


@pytest.mark.parametrize(("folder", "line"), [("work", ". local.sh"), (".", ". work/local.sh")])
def test_the_line_that_reads_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, line: str) -> None:
    file = EnvironmentFile(tmp_path / "work" / "local.sh")
    monkeypatch.chdir(tmp_path / folder)
    assert file.command == line
