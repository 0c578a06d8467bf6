"""Every program that the local run starts is waited for, and one that ends at its start says why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import world as local
from emulator.process import PROJECT

LIMIT = 120

BARE = """
import sys
from pathlib import Path
sys.path[:0] = ["local", "layers/core", "tests/unit"]
import test_programs_are_waited_for as here
account = here.an_account()
try:
    account.start_bastion()
    print(here.banner(account.bastion_port))
finally:
    account.close()
"""


def an_account() -> local.World:
    """An account that only has a user and a place for the bastion's files."""
    account = local.World()
    person = local.Person(account.emulator.home / "laptop", {})
    (person.home / ".ssh").mkdir(parents=True)
    local._make_key(person.identity, "mario")
    account.person = person
    return account


def banner(port: int) -> str:
    """What a server on 127.0.0.1 says first; nothing when none listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
            return connection.recv(64).decode()
    except OSError:
        return ""


@pytest.fixture
def account() -> Iterator[local.World]:
    made = an_account()
    yield made
    made.close()


def an_sshd(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The first sshd on PATH is this shell script from now on."""
    program = folder / "sshd"
    program.write_text(f"#!/bin/sh\n{text}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")
@pytest.mark.xfail(strict=True, reason="only a notebook's start makes /run/sshd, and the bastion starts before it")
def test_the_bastion_starts_on_a_machine_on_which_no_sshd_ever_ran() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", sys.executable, "-c", BARE],
        cwd=PROJECT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("SSH-2.0-"), done.stderr


@pytest.mark.xfail(strict=True, reason="no program is waited for")
def test_a_bastion_that_ends_at_its_start_stops_the_run_there(
    account: local.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_sshd(tmp_path, monkeypatch, "echo 'Missing privilege separation directory: /run/sshd' >&2\nexit 255\n")
    with pytest.raises(Exception, match="bastion.* 255: Missing privilege separation directory: /run/sshd"):
        account.start_bastion()


@pytest.mark.xfail(strict=True, reason="no program is waited for")
def test_a_bastion_that_listens_late_is_waited_for(
    account: local.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("sshd") or "/usr/sbin/sshd"
    an_sshd(tmp_path, monkeypatch, f'sleep 0.5\nexec {real} "$@"\n')
    account.start_bastion()
    assert banner(account.bastion_port).startswith("SSH-2.0-")
