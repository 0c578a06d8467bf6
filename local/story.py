"""How the local run tells what happens: numbered steps with their times, and a sign of life in every wait.

On a terminal a line moves while a step runs; elsewhere every two seconds a plain line says what is awaited.
"""

from __future__ import annotations

import itertools
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

WIDTH, MARGIN = 96, "     "
BOLD, DIM, GREEN, RED, CYAN, PLAIN = "1", "2", "32", "31", "36", "0"


class NotReached(Exception):
    """What a step waited for did not happen; the sentence says what, and what was seen last."""


class Story:
    """Writes to `out`, in colour when that is a terminal (https://no-color.org is respected)."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._live = out.isatty()
        self._colour = self._live and "NO_COLOR" not in os.environ
        self._number = itertools.count(1)
        self._note = ""
        self._writing = threading.Lock()
        self.began = time.monotonic()

    # ---- text ----------------------------------------------------------------------------------

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[{PLAIN}m" if self._colour else text

    def _write(self, text: str, end: str = "\n") -> None:
        with self._writing:
            self._out.write(text + end)
            self._out.flush()

    def title(self, text: str) -> None:
        """What this is about."""
        self._write("\n" + self._paint(text, BOLD))

    def chapter(self, text: str) -> None:
        """A heading between steps."""
        self._write("\n" + self._paint(text, BOLD))

    def say(self, text: str) -> None:
        """A paragraph of explanation below a step."""
        # Commands in the text stay as they are typed.
        wrap = textwrap.TextWrapper(WIDTH - 5, MARGIN, MARGIN, break_on_hyphens=False, break_long_words=False)
        self._write(wrap.fill(text))

    def show(self, text: str) -> None:
        """What a program printed, or a file's lines, as they are."""
        for line in text.rstrip("\n").splitlines():
            self._write("     " + self._paint("│ ", DIM) + line)

    def command(self, text: str) -> None:
        """A command as a person types it, which was really run."""
        self._write("     " + self._paint("$ ", DIM) + self._paint(text, CYAN))

    def end(self, text: str) -> None:
        """The last line of a good run."""
        self._write("\n" + self._paint(text, GREEN))

    def failed(self, text: str) -> None:
        """The last line of a run that stopped."""
        self._write("\n" + self._paint(text, RED))

    # ---- steps ---------------------------------------------------------------------------------

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A numbered step: a sign of life while it runs, then how long it took."""
        head = f"{next(self._number):>3}  {text}"
        self._note = ""
        began, over = time.monotonic(), threading.Event()
        signs = threading.Thread(target=self._sign_of_life, args=(head, began, over), daemon=True)
        signs.start()
        try:
            yield
        except BaseException:
            self._finish(over, signs, head, self._paint("✗", RED))
            raise
        self._finish(over, signs, head, f"{time.monotonic() - began:5.1f} s")

    def _finish(self, over: threading.Event, signs: threading.Thread, head: str, result: str) -> None:
        over.set()
        signs.join()
        clear = "\r\x1b[K" if self._live else ""
        dots = self._paint("." * max(3, WIDTH - 10 - len(head)), DIM)
        self._write(f"{clear}{head} {dots} {result}")

    def _sign_of_life(self, head: str, began: float, over: threading.Event) -> None:
        """On a terminal, a line that moves; elsewhere a line every two seconds, from the second on."""
        for turn in itertools.count():
            if over.wait(0.2 if self._live else 2.0):
                return
            seconds, note = time.monotonic() - began, self._note and f"  {self._note}"
            if self._live:
                sign = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[turn % 10]
                self._write(f"\r\x1b[K{head} {self._paint(f'{sign} {seconds:.0f} s{note}', DIM)}"[: WIDTH + 30], end="")
            else:
                self._write(f"     … {seconds:.0f} s{note}")

    def wait(self, what: str, look: Callable[[], str], until: Callable[[str], bool], limit: float = 45) -> str:
        """Look until `until` accepts what was seen, and return that. Each look is shown as the step's note.

        Raises NotReached naming `what` and the last look after `limit` seconds.
        """
        deadline = time.monotonic() + limit
        while True:
            seen = look()
            self._note = f"{what}: {seen}"
            if until(seen):
                return seen
            if time.monotonic() > deadline:
                raise NotReached(f"{what}: still {seen!r} after {limit:g} s")
            time.sleep(0.1)
