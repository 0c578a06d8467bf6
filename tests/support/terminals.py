"""Runs a program on a terminal of its own, on POSIX systems."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from patience import LIMIT_S

if (
    sys.platform != "win32"
):  # where the tests that need a terminal are left out, and their files are imported all the same
    import fcntl
    import pty
    import termios
    import tty


def run_on_terminal(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    columns: int = 80,
    typed: Callable[[str], str] = lambda shown: "",
    raw: bool = False,
    cwd: Path | None = None,
) -> tuple[int, str]:
    """Run `command` as the foreground job of a new terminal; return its exit code and what the terminal shows.

    typed: returns what the user types next, given what is shown. raw: whether another program has the terminal.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    if raw:
        tty.setraw(slave)
    process = subprocess.Popen(
        [str(word) for word in command],
        env={"TERM": "xterm", **environment},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    shown, deadline = b"", time.monotonic() + LIMIT_S
    try:
        with contextlib.suppress(OSError):  # EIO: no process has the terminal any more
            while time.monotonic() < deadline:
                if select.select([master], [], [], 0.05)[0]:
                    data = os.read(master, 65536)
                    if not data:
                        break
                    shown += data
                    answer = typed(shown.decode("utf-8", "replace"))
                    if answer:
                        os.write(master, answer.encode())
                elif process.poll() is not None:
                    break
        return process.wait(LIMIT_S), shown.decode("utf-8", "replace").replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(master)
