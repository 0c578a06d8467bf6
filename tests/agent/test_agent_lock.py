"""The lock by which the keeper is the only one, and people of the notebook who would like to hold it."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from agent_world import program

HOLDS = """
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


def test_nobody_but_its_owner_can_open_it(lock: Path) -> None:
    before = os.umask(0o22)
    try:
        os.close(program("agent").take_over())
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_whoever_holds_it_by_an_open_file_is_no_process_to_end(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel names -1 as its holder (fcntl(2), "Open file description locks"); kill(2) would take that for everybody."""
    lock.touch()
    agent = program("agent")
    ended: list[int] = []
    monkeypatch.setattr(agent.os, "kill", lambda pid, sent: ended.append(pid))
    monkeypatch.setattr(agent.time, "sleep", lambda seconds: None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with open(lock, "r+b") as file:
            asked = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        assert struct.unpack("hhqqi4x", asked)[4] == -1
        with pytest.raises(SystemExit, match="another agent stays"):
            agent.take_over()
        holder.communicate(b"")
    assert ended == []
