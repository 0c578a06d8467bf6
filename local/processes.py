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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from patience import LIMIT_S

PR_SET_CHILD_SUBREAPER = 36


def be_interrupted_by_signals() -> None:
    """From now on SIGINT and SIGTERM are KeyboardInterrupt, also if a script started this process in its background.

    A shell without job control starts such a process with SIGINT ignored (POSIX, Shell Command Language, 2.11).
    So is SIGHUP, when the terminal is closed; under nohup(1) it stays ignored.
    """

    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, interrupted)


def open_closed_streams() -> None:
    """Let standard streams that are closed lead nowhere; else the next file opened would be one of them for children."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            if (nowhere := os.open(os.devnull, os.O_RDWR)) != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  it stays open


def reach_the_loopback_directly() -> None:
    """Let no proxy that the environment names stand between this process, or its children, and 127.0.0.1."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "127.0.0.1" not in listed.split(","):
        listed = f"{listed},127.0.0.1".lstrip(",")
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = listed


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
    """Call `then` in a thread of its own once the process that started this one is gone or closes our standard input."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        then()

    threading.Thread(target=watch, name="when-abandoned", daemon=True).start()


class DidNotStartError(Exception):
    """A program ended at its start, or does not do its job within the limit; the sentence names it and its last words."""


BOUND = """\
exec 3<&0
"$@" 3<&- & child=$!
{ read -r _ <&3; kill $child; } & watch=$!
exec 3<&-
wait $child
status=$?
kill $watch 2>/dev/null
exit $status
"""
"""Runs a program until that ends, or until standard input closes. A background job reads nothing from standard input."""

AT_ONCE, AT_LEAST = 0.01, 0.1
"""Seconds between two looks at a program that starts: at first, and at the most."""


def start(
    name: str,
    command: Sequence[str],
    does_its_job: Callable[[], bool],
    *,
    log: Path,
    limit: float = LIMIT_S,
    bound: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program and return once it does its job. It ends when we are gone, at the latest; `dismiss` ends it.

    name: what people call it. log: the file to which everything that it says is added.
    bound: it cannot watch its standard input by itself, so a shell does.
    Raises DidNotStartError when it ends before, or does not do its job within `limit` seconds; then it does not run.
    """
    before = log.stat().st_size if log.exists() else 0
    with open(log, "ab") as output:
        try:
            child = subprocess.Popen(
                ["/bin/sh", "-c", BOUND, "bound", *command] if bound else command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=cwd,
                env=env,
            )
        except OSError as error:
            raise DidNotStartError(f"{name} cannot be started: {error}") from None
    try:
        try:
            _wait_until_started(child, does_its_job, limit)
        except DidNotStartError as error:
            raise DidNotStartError(f"{name} {error}{last_words(log, before)}") from None
    except BaseException:
        dismiss(child, patience=20)
        raise
    return child


def _wait_until_started(child: subprocess.Popen[bytes], does_its_job: Callable[[], bool], limit: float) -> None:
    deadline, pause = time.monotonic() + limit, AT_ONCE
    while True:
        done = does_its_job()
        # Asked afterwards: what answers may be another program where this one could not be.
        if (status := child.poll()) is not None:
            raise DidNotStartError(f"ended at its start {how(status)}")
        if done:
            return
        if time.monotonic() > deadline:
            raise DidNotStartError(f"does not do its job within {limit:g} s")
        time.sleep(pause)
        pause = min(2 * pause, AT_LEAST)


def how(status: int) -> str:
    """How a process ended, by what `Popen.poll` says."""
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


def last_words(log: Path, since: int = 0) -> str:
    """What the file `log` says after its byte `since`, to end a sentence with: the last lines, without Python's places."""
    with open(log, "rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip() and not line.startswith((" ", "\t", "Traceback "))]
    return f": {'; '.join(told[-3:])}" if told else ", and says nothing"


def dismiss(child: subprocess.Popen[bytes], patience: float) -> None:
    """End a `child` that `start` started, or that watches its standard input: close that, and after `patience` kill."""
    if child.stdin:
        with contextlib.suppress(BrokenPipeError):  # what was not read any more
            child.stdin.close()
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        # Its session is its own, so this is the group of the watching shell and what it runs.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdout:
        child.stdout.close()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


WAIT, WAIT_AT_MOST = 0.05, 0.5
"""Seconds between two looks at what is waited for.

A look that takes long is the rarer, so that it holds nothing up; and so is each one after a long wait.
"""


def wait_until(
    what: str, condition: Callable[[], bool], limit: float = LIMIT_S, *, alive: Callable[[], bool] = lambda: True
) -> None:
    """Return once `condition` holds. Raises TimeoutError naming `what` after `limit` seconds, or when not `alive`."""
    first = time.monotonic()
    while True:
        began = time.monotonic()
        if condition():
            return
        if not alive():
            raise TimeoutError(f"{what}: the process that should do it has ended")
        now = time.monotonic()
        if now > first + limit:
            raise TimeoutError(f"{what}: not within {limit:g} s")
        time.sleep(min(max(WAIT, 4 * (now - began), (now - first) / 10), WAIT_AT_MOST))
