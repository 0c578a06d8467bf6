"""Nothing that the tests start outlives a pytest that is killed.

Linux has a process die with its parent only if it asks for that itself, and what it starts does not: agents detach on
purpose. So a process of its own waits for the end of pytest, by a pipe, and then kills whatever has the run's folder for
temporary files in its command line, its environment or as its working directory, and whatever is below that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "NOTEBOOK_SSH_TESTS"
"""Has the folder as its value, for what would not name it otherwise."""


def kill_all_when_killed(folder: Path) -> Callable[[], None]:
    """From now on, let nothing outlive this process that has to do with `folder`. What is returned ends that."""
    os.environ[VARIABLE] = str(folder)
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,  # out of reach of a signal to the process group
    )

    def end() -> None:
        guard.communicate(b"all is well")

    return end


def processes_of(folder: str) -> set[int]:
    """The ids of the processes that name `folder`, or something in it, and of all below them; without this one."""
    names = (f"{folder}/".encode(), f"{folder}\0".encode())
    found, children = set[int](), dict[int, list[int]]()
    for entry in Path("/proc").glob("[0-9]*"):
        process = int(entry.name)
        try:
            state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            parts = [
                (entry / "cmdline").read_bytes(),
                (entry / "environ").read_bytes(),
                os.readlink(entry / "cwd").encode(),
            ]
        except OSError:
            continue  # it has ended, or is another user's
        if process == os.getpid() or state == b"Z":
            continue
        children.setdefault(int(parent), []).append(process)
        told = b"\0".join([*parts, b""])
        if any(name in told for name in names):
            found.add(process)
    level = list(found)
    while level:
        level = [child for process in level for child in children.get(process, ()) if child not in found]
        found.update(level)
    return found


def signal_all(processes: set[int], number: int) -> None:
    """Send each of them a signal, unless it has ended."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def main(folder: str) -> None:
    """Wait until standard input closes. Unless it said before that all is well, kill until there is nothing to be killed."""
    if sys.stdin.buffer.read():
        return
    stopped = set[int]()
    while found := processes_of(folder):
        # All are stopped first: one that is killed no longer shows what is below it.
        more = found - stopped
        signal_all(more or found, signal.SIGSTOP if more else signal.SIGKILL)
        stopped |= more
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1])
