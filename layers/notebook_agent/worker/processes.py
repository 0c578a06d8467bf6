"""What the kernel says of a process to every user of the machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from agent import read_text

PROC = "/proc/"
TITLE = re.compile(r"sshd\S*: \S+")
"""What sshd calls the process of a session: `sshd: user@pts/0`, `user@notty`, or `user` without one, as for `ssh -N`."""


@dataclass(frozen=True)
class Process:
    """One process: a later one with the same `pid` has another `start` (proc(5), field 22: clock ticks since the boot).

    uid: who may signal it. title: its command line, which a program may replace.
    """

    pid: int
    parent: int
    start: int
    uid: int
    title: str


def read_process(pid: int) -> Process | None:
    """Return the process `pid`, or None if there is none.

    /proc/PID itself belongs to root once a process has changed its user, and so do the links in it: `status` and `stat`
    say to everybody whose it is and when it began.
    """
    try:
        # pid (comm) state ppid …; comm may hold anything, so read from its last bracket.
        fields = read_text(f"{PROC}{pid}/stat").rpartition(")")[2].split()
        status = read_text(f"{PROC}{pid}/status")
        title = read_text(f"{PROC}{pid}/cmdline").strip("\0 ")
        uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
        return Process(pid, int(fields[1]), int(fields[19]), int(uid), title)
    except (OSError, LookupError, ValueError, StopIteration):
        return None


def all_pids() -> list[int]:
    """Return the ids of all processes, in no order."""
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]
