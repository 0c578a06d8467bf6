"""Processes that must not outlive the one that started them, also when they detach, fork twice or change session.

Linux gives a process that asks for it all orphans of its own descendants (prctl(2), PR_SET_CHILD_SUBREAPER).
So the tree below such a process holds everything that it ever started, and can be ended as a whole,
without containers, control groups or privileges.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36


def be_interrupted_by_signals() -> None:
    """From now on SIGINT and SIGTERM are KeyboardInterrupt, also if a script started this process in its background.

    A shell without job control starts such a process with SIGINT ignored (POSIX, Shell Command Language, 2.11).
    """

    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)


def adopt_orphans() -> None:
    """From now on whatever descends from this process stays below it until it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this kernel cannot adopt orphans (prctl PR_SET_CHILD_SUBREAPER)")


def descendants(of: int | None = None) -> list[int]:
    """The ids of all living processes below `of` (this process), children before grandchildren."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # proc(5): pid (comm) state ppid …; comm may hold anything, so read from its last bracket.
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    level = children.get(of or os.getpid(), [])
    while level:
        found += level
        level = [grandchild for child in level for grandchild in children.get(child, [])]
    return found


def end_all(patience: float = 2.0) -> None:
    """End every process below this one, which adopts orphans: asked first, after `patience` seconds killed.

    Returns when none is left.
    """
    deadline = time.monotonic() + patience
    asked: set[int] = set()
    # Until there is no child, rather than until /proc shows nothing more: it misses a process whose parent ends while it
    # is read. Whatever lives below a process that adopts orphans has an ancestor that is its child.
    while reap():
        late = time.monotonic() > deadline
        for process in descendants():
            if late or process not in asked:
                _signal(process, signal.SIGKILL if late else signal.SIGTERM)
                asked.add(process)
        time.sleep(0.02)


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def reap() -> bool:
    """Take leave of children that have ended, so that they do not stay as zombies. Whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def when_abandoned(then: Callable[[], object]) -> None:
    """Call `then` in a thread of its own once whoever started this process is gone or closes our standard input."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        then()

    threading.Thread(target=watch, name="when-abandoned", daemon=True).start()


def start_bound(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a program that cannot watch its standard input by itself: a shell does, and ends it when we are gone.

    `dismiss` ends it.
    """
    watch = '"$@" & child=$!; cat; kill $child; wait $child'
    return subprocess.Popen(
        ["/bin/sh", "-c", watch, "bound", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def dismiss(child: subprocess.Popen[bytes], patience: float) -> None:
    """End a `child` that watches its standard input (`when_abandoned`): close it, wait, and after `patience` kill."""
    if child.stdin:
        child.stdin.close()
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    what: str, condition: Callable[[], bool], limit: float, *, alive: Callable[[], bool] = lambda: True
) -> None:
    """Return once `condition` holds. Raises TimeoutError naming `what` after `limit` seconds, or when not `alive`."""
    deadline = time.monotonic() + limit
    while not condition():
        if not alive():
            raise TimeoutError(f"{what}: the process that should do it has ended")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit:g} s")
        time.sleep(0.05)
