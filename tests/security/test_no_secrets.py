"""No secret in the repository: every file that git knows is searched for what keys and tokens look like."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

SHAPES = {
    # IAM User Guide, "Unique identifiers": long-term and temporary access keys. Documentation's own end in EXAMPLE.
    "access key": re.compile(rb"\b(?:AKIA|ASIA)(?![A-Z0-9]*EXAMPLE)[A-Z0-9]{16}\b"),
    "private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}"),
    # ngrok's authtokens: 27 letters and digits, an underscore, 20 and more.
    "ngrok token": re.compile(rb"\b[0-9][A-Za-z0-9]{26}_[A-Za-z0-9]{20,24}\b"),
    "GitHub token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,}\b"),
    "secret access key": re.compile(rb"(?i)aws_secret_access_key\W{1,5}[A-Za-z0-9/+]{40}\b"),
}
EXAMPLES = {
    "access key": b"AKIA" + b"I23456789ABCDEFG",
    "private key": b"-----BEGIN OPENSSH " + b"PRIVATE KEY-----\n" + b"b3BlbnNzaC1r" * 4,
    "ngrok token": b"2" + b"a" * 26 + b"_" + b"B" * 22,
    "GitHub token": b"ghp_" + b"a" * 36,
    "secret access key": b"aws_secret_access_key = " + b"a" * 40,
}


def known_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    paths = (PROJECT / name.decode() for name in listed.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("kind", SHAPES)
def test_no_file_holds_one(kind: str) -> None:
    files = known_files()
    assert len(files) > 100
    assert [path for path in files if SHAPES[kind].search(path.read_bytes())] == []


@pytest.mark.parametrize("kind", SHAPES)
def test_one_would_be_found(kind: str) -> None:
    assert SHAPES[kind].search(b"x = '" + EXAMPLES[kind] + b"'\n")
