"""Runs of the local system that leave nothing, whatever ends them, and whenever.

What runs is a process of its own, and everything that it starts is below it. The supervisor does nothing but wait for its
end or for a signal; then it ends every process below, removes the run's folder and files, and says so. So it matters
neither what was being done at that moment nor how often the signal comes.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import processes
from progress import Progress, UnheardError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal that was closed."""

PATIENCE = 2.0
"""Seconds that processes have to end by themselves."""


class Supervisor:
    """Within it, the signals of ENDING end the run; at its end nothing is left of it.

    folder: where everything of the run is, in the system's folder for temporary files.
    """

    def __init__(self) -> None:
        self.folder = Path()
        self._files: list[Path] = []
        self._arrived, self._arrivals = os.pipe()

    def __enter__(self) -> Self:
        os.set_blocking(self._arrivals, False)
        signal.set_wakeup_fd(self._arrivals, warn_on_full_buffer=False)
        for number in (*ENDING, signal.SIGCHLD):
            # nohup(1) has a run survive its terminal. Other signals may be ignored because a script started this
            # process in its background (POSIX, Shell Command Language, 2.11), and end it all the same.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        processes.adopt_orphans()
        self.folder = Path(tempfile.mkdtemp(prefix="notebook-ssh-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes.end_all(PATIENCE)
        for file in self._files:
            file.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_at_the_end(self, file: Path) -> None:
        """Remove `file`, which is outside of the run's folder, when the run is over."""
        self._files.append(file)

    def run(self, work: Callable[[Path], int]) -> int | None:
        """What `work` returns, which is given the run's folder; or None when a signal came first.

        It runs in a process and a session of its own, out of reach of the terminal's signals. If this process is
        killed, that one ends everything instead.
        """
        stays_open, closes = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            os.close(closes)
            os.dup2(stays_open, 0)
            self._work(work)
        os.close(stays_open)
        while True:
            while (ended := _reap()) is not None:
                if ended[0] == child:
                    return os.waitstatus_to_exitcode(ended[1])
            if set(os.read(self._arrived, 64)) & set(ENDING):
                return None

    def say_that_it_ended(self, status: int) -> int:
        """Say that nothing is left, if anybody still listens; and `status`."""
        left = [path for path in (self.folder, *self._files) if path.exists()]
        progress = Progress()
        try:
            if left:
                progress.failed(f"Ended, but these could not be removed: {', '.join(map(str, left))}")
            else:
                progress.end("Ended: nothing is left running, and nothing on the disk.")
        except UnheardError:
            pass  # the terminal is gone
        return status

    def _work(self, work: Callable[[Path], int]) -> NoReturn:
        """Be the process that does the work."""
        status = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (*ENDING, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            processes.adopt_orphans()
            processes.when_abandoned(self._abandoned)
            _settle(self.folder)
            status = work(self.folder)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _abandoned(self) -> NoReturn:
        """The supervisor was killed."""
        try:
            self.__exit__(None, None, None)
        finally:
            os._exit(1)


def _settle(folder: Path) -> None:
    """Let nothing of the environment lead away from this machine, or leave anything outside of `folder`."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, ("127.0.0.1", os.environ.get(name))))
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def _reap() -> tuple[int, int] | None:
    """The id and the status of a child that has ended, also of an orphan that was adopted; None when there is none."""
    try:
        ended = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return ended if ended[0] else None
