"""The lock that ensures a single supervisor, and processes of other users that try to hold it."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent_env import load_agent

HOLD_LOCK = """
import fcntl, os, struct, sys, time
lock = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOTEBOOK_SSH_ROOT", str(tmp_path))
    folder = tmp_path / "run/notebook-ssh"
    folder.mkdir(parents=True)
    return folder / "lock"


def test_only_root_can_open_it(lock: Path) -> None:
    before = os.umask(0o22)
    try:
        os.close(load_agent().acquire_agent_lock())
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_the_holder_of_an_open_file_lock_is_not_killed(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel returns -1 as its holder (fcntl(2), "Open file description locks"); for kill(2) that is every process."""
    lock.touch()
    agent = load_agent()
    killed: list[int] = []
    monkeypatch.setattr(agent.os, "kill", lambda pid, number: killed.append(pid))
    monkeypatch.setattr(agent.time, "sleep", lambda seconds: None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with open(lock, "r+b") as file:
            flock = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        assert struct.unpack("hhqqi4x", flock)[4] == -1
        with pytest.raises(SystemExit, match="another agent holds the lock"):
            agent.acquire_agent_lock()
        holder.communicate(b"")
    assert killed == []
