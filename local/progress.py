"""How the local run tells what happens: numbered steps with their times, and the commands that were run.

On a terminal the line of a step moves while the step runs; elsewhere a step is one line, written when it is over.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TextIO

NARROWEST, WIDEST, ELSEWHERE = 60, 100, 80
"""Columns that are used of a terminal, at least and at the most, and where there is none."""

MARGIN, RESULT = "     ", "123.4 s"
BOLD, DIM, GREEN, RED, CYAN, PLAIN = "1", "2", "32", "31", "36", "0"
CLEAR = "\r\x1b[K"


@dataclass(frozen=True, slots=True)
class Marks:
    """The signs around the text."""

    ellipsis: str
    bar: str
    cross: str
    spinner: str


UNICODE, ASCII = Marks("…", "│", "✗", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"), Marks("...", "|", "x", "|/-\\")
IN_ASCII = str.maketrans({"…": "...", "│": "|", "–": "-", "—": "-", "×": "x", "→": "->", "“": '"', "”": '"', "’": "'"})

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")

WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+|\S+""", re.DOTALL)
"""A word of a shell's command line with its quotes; what is quoted wrongly, up to the next space."""


class NotReachedError(Exception):
    """What a step waited for did not happen; the sentence says what, and what was seen last."""


class UnheardError(Exception):
    """The output cannot be written, now or later; the sentence says why. left: the reader is gone, as `head` goes."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror}")
        self.left = isinstance(error, BrokenPipeError)


class Progress:
    """Writes to `out` (standard output), as wide as the terminal is, in the characters that its encoding holds.

    In colour on a terminal that has them, unless NO_COLOR is set and not empty (https://no-color.org).
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._live = self._out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._colour = self._live and not os.environ.get("NO_COLOR")
        self._encoding = getattr(self._out, "encoding", None) or "utf-8"
        self._marks = UNICODE if self._holds("".join(astuple(UNICODE))) else ASCII
        self._number = itertools.count(1)
        self._note = ""
        self._writing = threading.Lock()
        self._unheard: UnheardError | None = None
        self.began = time.monotonic()

    # ---- the paper -----------------------------------------------------------------------------

    def _columns(self) -> int:
        """The terminal's, now: it may have been resized."""
        try:
            return os.get_terminal_size(self._out.fileno()).columns or ELSEWHERE
        except (OSError, ValueError):
            return ELSEWHERE

    @property
    def width(self) -> int:
        """Columns that the text may take."""
        return min(max(self._columns(), NARROWEST), WIDEST)

    @property
    def room(self) -> int:
        """Columns for a line of a program's, next to the margin."""
        return self.width - len(MARGIN) - 2

    def _holds(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except UnicodeError:
            return False
        return True

    def _sayable(self, text: str) -> str:
        """`text` in characters that the encoding holds, and without any that moves the cursor."""
        text = CONTROL.sub("", text)
        if self._holds(text):
            return text
        return text.translate(IN_ASCII).encode(self._encoding, "replace").decode(self._encoding)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[{PLAIN}m" if self._colour and text and colour != PLAIN else text

    def _write(self, text: str, end: str = "\n") -> None:
        with self._writing:
            if self._unheard:
                raise self._unheard
            try:
                self._out.write(text + end)
                self._out.flush()
            except OSError as error:
                self._unheard = UnheardError(error)
                # What is in the buffer would fail again at the end of the process.
                with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
                    os.dup2(nothing.fileno(), self._out.fileno())
                raise self._unheard from None

    def _fill(self, text: str, colour: str = PLAIN, margin: str = "") -> None:
        """Write a paragraph, broken between words alone."""
        for line in _wrapped(self._sayable(text), self.width - len(margin)):
            self._write(margin + self._paint(line, colour))

    # ---- text ----------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        """What this is about."""
        self.chapter(text)

    def chapter(self, text: str) -> None:
        """A heading between steps."""
        self._write("")
        self._fill(text, BOLD)

    def say(self, text: str) -> None:
        """A paragraph of explanation below a step."""
        self._fill(text, margin=MARGIN)

    def show(self, text: str, *, cut: bool = False, whole: bool = False) -> None:
        """What a program printed, or a file's lines. A long line goes on in the next, between words.

        cut: it ends at the margin instead. whole: it is something to copy, and stays one line.
        """
        bar = MARGIN + self._paint(self._marks.bar, DIM) + " "
        room = self.room
        for line in self._sayable(text).expandtabs().rstrip("\n").splitlines():
            if whole or len(line) <= room:
                self._write(bar + line)
            elif cut:
                self._write(bar + self._cut(line, room))
            else:
                for part in _wrapped(line, room, "  "):
                    self._write(bar + part)

    def command(self, text: str) -> None:
        """A command as a person types it, which was really run. A long one is broken so that a shell takes it as it is."""
        margin = MARGIN + self._paint("$", DIM) + " "
        for line in _broken(self._sayable(text), self.room):
            self._write(margin + self._paint(line, CYAN))
            margin = MARGIN + "  "

    def paste(self, text: str) -> None:
        """Lines to copy into a shell, whole, with nothing but spaces before them."""
        self._write("\n" + textwrap.indent(self._sayable(text).rstrip("\n"), MARGIN) + "\n")

    def end(self, text: str) -> None:
        """The last line of a good run."""
        self._write("")
        self._fill(text, GREEN)

    def failed(self, text: str) -> None:
        """The last line of a run that stopped."""
        self._write("")
        self._fill(text, RED)

    def _cut(self, text: str, room: int) -> str:
        mark = self._marks.ellipsis
        return text if len(text) <= room else text[: max(0, room - len(mark))] + mark

    # ---- steps ---------------------------------------------------------------------------------

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A numbered step: on a terminal a line that moves while it runs, then how long it took."""
        head = f"{next(self._number):>3}  {self._sayable(text)}"
        self._note = ""
        began, over = time.monotonic(), threading.Event()
        signs = threading.Thread(target=self._sign_of_life, args=(head, began, over), daemon=True)
        if self._live:
            signs.start()
        result, colour = self._marks.cross, RED
        try:
            yield
            result, colour = f"{time.monotonic() - began:.1f} s", PLAIN
        finally:
            over.set()
            if self._live:
                signs.join()
            self._finish(head, result, colour)

    def _finish(self, head: str, result: str, colour: str) -> None:
        """The line of a step that is over: dots lead to the result, in a column of its own."""
        room = self.width - len(" " + RESULT)
        lines = _wrapped(head, room - len(" ..."), MARGIN)
        dots = "." * max(3, room - len(lines[-1]) - 1)
        lines[-1] += f" {self._paint(dots, DIM)} {self._paint(result.rjust(len(RESULT)), colour)}"
        self._write((CLEAR if self._live else "") + "\n".join(lines))

    def _sign_of_life(self, head: str, began: float, over: threading.Event) -> None:
        """Redraw the line of a step until it is over. It takes one line of the terminal, however long its text is."""
        for turn in itertools.count():
            if over.wait(0.2):
                return
            room = min(self._columns(), WIDEST) - 1  # in the last column some terminals begin a new line
            sign = self._marks.spinner[turn % len(self._marks.spinner)]
            tail = f" {sign} {time.monotonic() - began:.0f} s"
            line = self._cut(head, room - len(tail))
            left = room - len(line) - len(tail)
            note = self._cut(f"  {self._sayable(self._note)}", left) if self._note and left > len("  a note") else ""
            try:
                self._write(CLEAR + line + self._paint(tail + note, DIM), end="")
            except UnheardError:
                return

    def wait(self, what: str, look: Callable[[], str], until: Callable[[str], bool], limit: float = 180) -> str:
        """Look until `until` accepts what was seen, and return that. Each look is shown as the step's note.

        Raises NotReachedError naming `what` and the last look after `limit` seconds.
        """
        began = time.monotonic()
        while True:
            seen = look()
            self._note = f"{what}: {seen}"
            if until(seen):
                return seen
            waited = time.monotonic() - began
            if waited > limit:
                raise NotReachedError(f"{what}: still {seen!r} after {limit:g} s")
            time.sleep(min(max(0.1, waited / 10), 0.5))


def _wrapped(text: str, width: int, rest: str = "") -> list[str]:
    """The lines of a text, broken at spaces alone. `rest` begins all but the first."""
    return textwrap.wrap(text, width, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)


def _broken(command: str, width: int) -> list[str]:
    """A command line in lines of at most `width`, or of one word; all but the last end in a backslash.

    Inside quotes nothing is broken, since the spaces before the next line would become part of the word.
    """
    words = WORD.findall(command)
    if len(command) <= width or " ".join(words) != command:
        return [command]
    lines, line = [], words[0]
    for word, following in itertools.zip_longest(words[1:], words[2:], fillvalue=""):
        # An option's value stays with it.
        both = f"{word} {following}" if word.startswith("-") and not following.startswith("-") else word
        room = width - len(" \\") - len(line) - 1
        if len(word) > room or (len(both) > room and len("    " + both) <= width - len(" \\")):
            lines.append(line + " \\")
            line = "    " + word
        else:
            line += " " + word
    return [*lines, line]
