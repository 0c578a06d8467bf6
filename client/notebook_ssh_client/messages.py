"""Messages to the user, and the standard streams that carry them.

ssh runs two of the client's commands. Their standard error is not always seen: with ControlPersist, OpenSSH connects it
to /dev/null, and editors hide it. So these commands also write to the terminal, where that disturbs no other program's screen,
and into a small log, which `notebook-ssh doctor` shows.
"""

from __future__ import annotations

import os
import sys
import time

from notebook_ssh_client import files
from notebook_ssh_client.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import TextIO

TERMINAL = "/dev/tty"
TERMINAL_DELAY_S = 2.0  # a wait that is shorter is not worth a line on the terminal

LOG_NAME = "log"
MAX_LOG_SIZE = 64 * 1024  # bytes; the older half goes when it is full

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Return `text` with every character replaced that a terminal could obey; line feeds stay."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character == "\n" else REPLACEMENT for character in text)


def one_line(text: str) -> str:
    """Return `text` on one line, printable."""
    return printable(" ".join(text.splitlines()))


def write(text: str, stream: TextIO | None = None) -> None:
    """Print `text` and a line feed, printable, to `stream` or standard output. A closed stream is ignored."""
    write_formatted(printable(text), stream)


def write_formatted(text: str, stream: TextIO | None = None) -> None:
    """Print `text`, whose only escapes are the client's own, and a line feed. A closed stream is ignored."""
    stream = stream or sys.stdout
    if stream is not None:  # None: the program was started with this stream closed
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()


_verbosity = {"is_verbose": False}


def set_verbose(is_verbose: bool) -> None:
    """Print what `explain` is given from now on, or do not."""
    _verbosity["is_verbose"] = is_verbose


def explain(message: str) -> None:
    """Print `message` if the user wants to know each step (-v)."""
    if _verbosity["is_verbose"]:
        report(message)


def report(message: str) -> None:
    """Print `message` to standard error on one line, after the program's name."""
    if sys.stderr is not None:
        write(f"notebook-ssh: {one_line(message)}", sys.stderr)


def open_standard_streams() -> None:
    """Connect a closed standard stream to the null device, so that no socket or file gets its descriptor."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor, which is this one


def take_standard_input() -> int:
    """Return a descriptor for standard input, which is the null device for everything else from now on.

    A ProxyCommand's input is ssh's connection: what asks the user a question must not take the answer from there.
    """
    source, null = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = None  # as Python does itself for a closed one
    return source


def open_terminal() -> int | None:
    """Return a descriptor of the user's terminal, or None if it must not be written to or read from now.

    That is so without a terminal, for a background job, and while another program has the terminal in raw mode.
    """
    if os.name == "nt":
        return None
    try:
        terminal = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    import termios

    try:
        if os.tcgetpgrp(terminal) == os.getpgrp() and termios.tcgetattr(terminal)[3] & termios.ICANON:
            return terminal
    except (OSError, termios.error):
        pass  # the terminal has gone
    os.close(terminal)
    return None


class Messenger:
    """The messages of a command that ssh runs for `host`."""

    def __init__(self, home: str, host: str) -> None:
        self._home = home
        self._host = host
        self._started_at = time.monotonic()
        self._pending = ""
        self._timer: threading.Timer | None = None

    def waiting(self, message: str) -> None:
        """Report why the connection takes longer: on the terminal only after TERMINAL_DELAY_S."""
        append_to_log(self._home, self._host, message)
        report(message)
        self._pending = message
        elapsed = time.monotonic() - self._started_at
        if elapsed >= TERMINAL_DELAY_S:
            self._show_pending()
        elif self._timer is None:
            import threading  # a connection that waits for nothing does without

            self._timer = threading.Timer(TERMINAL_DELAY_S - elapsed, self._show_pending)
            self._timer.daemon = True
            self._timer.start()

    def noted(self, message: str) -> None:
        """Report how the connection is made, at once."""
        report(message)
        _show_on_terminal(message)

    def ending(self, message: str) -> None:
        """Report that the connection ends: on the terminal at any time, since what is on its screen ends with it."""
        append_to_log(self._home, self._host, message)
        line = f"\r\nnotebook-ssh: {one_line(message)}\r\n".encode("utf-8", "replace")
        terminal = 2 if os.isatty(2) else _terminal_behind_ssh()
        try:
            if terminal is None:
                report(message)
            else:
                os.write(terminal, line)
        except OSError:
            return  # the terminal has gone
        finally:
            if terminal not in (None, 2):
                os.close(terminal)

    def failed(self, message: str) -> None:
        """Report why there is no connection."""
        self.connected()
        append_to_log(self._home, self._host, message)
        report(message)
        _show_on_terminal(message)

    def connected(self) -> None:
        """Show nothing that is still pending: the wait is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._pending = ""

    def _show_pending(self) -> None:
        message, self._pending = self._pending, ""
        if message:
            _show_on_terminal(message)


def append_to_log(home: str, host: str, message: str) -> None:
    """Add a line to the log. A log that cannot be written is no reason to fail."""
    path, flags = os.path.join(home, LOG_NAME), os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {one_line(host)} {one_line(message)}\n"
    try:
        files.require_private(home)
        descriptor = os.open(path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size > MAX_LOG_SIZE:
                os.lseek(descriptor, size - MAX_LOG_SIZE // 2, os.SEEK_SET)
                kept = os.read(descriptor, MAX_LOG_SIZE).partition(b"\n")[2]
                os.ftruncate(descriptor, 0)
                os.write(descriptor, kept)
            os.write(descriptor, line.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
    except (OSError, CliError):
        return


def logged(home: str, host: str) -> list[tuple[str, str]]:
    """Return the time (ISO 8601) and the message of each line about `host` in the log, oldest first."""
    try:
        with open(os.path.join(home, LOG_NAME), encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split(" ", 2) for line in file]
    except OSError:
        return []
    return [(fields[0], printable(fields[2])) for fields in lines if len(fields) == 3 and fields[1] == host]


def _show_on_terminal(message: str) -> None:
    """Write `message` to the terminal if standard error is the null device, unless the user chose that."""
    if not _is_null(2) or _is_muted_by_the_user():
        return
    terminal = open_terminal()
    if terminal is not None:
        try:
            os.write(terminal, f"notebook-ssh: {one_line(message)}\n".encode("utf-8", "replace"))
        except OSError:
            return  # the terminal has gone
        finally:
            os.close(terminal)


def _terminal_behind_ssh() -> int | None:
    """Return the terminal if standard error leads nowhere and there is one, in whichever mode."""
    if os.name == "nt" or not _is_null(2) or _is_muted_by_the_user():
        return None
    try:
        return os.open(TERMINAL, os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return None


def _is_null(descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
    except OSError:
        return False


def _is_muted_by_the_user() -> bool:
    """Return whether ssh's own standard error is the null device, as in `ssh name 2>/dev/null` (Linux: proc(5))."""
    try:
        return os.readlink(f"/proc/{os.getppid()}/fd/2") == os.devnull
    except OSError:
        return False
