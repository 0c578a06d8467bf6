"""What a second terminal of the local run reads in: in any shell, with the programs that it brings first in PATH."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import terminal

ENDPOINT = "http://127.0.0.1:4566"
HOSTILE = """it's $HOME, "or" not"""
API = "https://abc123.execute-api.us-east-1.amazonaws.com"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of a terminal on a machine where curl, ssh, scp and sftp print what they are given."""
    real = tmp_path / "of this machine"
    real.mkdir()
    for name in ("curl", "ssh", "scp", "sftp"):
        (real / name).write_text(f"#!/bin/sh\nprintf '%s\\n' {name} \"$@\"\n")
        (real / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{real}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "it's a folder"
    terminal.write_programs(folder, ENDPOINT, ssh_config=tmp_path / "ssh config")
    return folder


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
    programs: Path, typed: str, asked: str
) -> None:
    assert said(programs / "curl", "-H", typed, "--last") == ["curl", "-H", asked, "--last"]


@pytest.mark.parametrize("program", ["ssh", "scp", "sftp"])
def test_ssh_and_its_kin_read_the_configuration_of_the_terminal(programs: Path, tmp_path: Path, program: str) -> None:
    assert said(programs / program, "my-notebook", "a b") == [
        program,
        "-F",
        str(tmp_path / "ssh config"),
        "my-notebook",
        "a b",
    ]


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
def test_the_file_is_for_any_shell(programs: Path, tmp_path: Path, shell: str) -> None:
    file = tmp_path / "folder" / "aws.sh"
    text = terminal.environment({"AWS_REGION": "us-east-1", "QUOTED": HOSTILE}, programs)
    terminal.write_environment(file, text)
    typed = (
        f'. "{file}"; command -v ssh; printf "%s\\n" "$QUOTED" "${{AWS_PROFILE-unset}}" "${{AWS_SESSION_TOKEN-unset}}"'
    )
    environment = os.environ | {"AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "of yesterday"}
    done = subprocess.run([shell, "-euc", typed], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(programs / "ssh"), HOSTILE, "unset", "unset"]


def test_only_its_user_can_read_the_file(tmp_path: Path) -> None:
    file = tmp_path / "aws.sh"
    file.write_text("of another run, and for all to read")
    file.chmod(0o644)
    terminal.write_environment(file, "export AWS_SECRET_ACCESS_KEY=secret\n")
    assert file.stat().st_mode & 0o777 == 0o600
