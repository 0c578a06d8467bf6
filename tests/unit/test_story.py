"""How the local run tells what happens: on terminals of any width and encoding, and where there is no terminal."""

from __future__ import annotations

import codecs
import fcntl
import io
import os
import re
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

from story import Story

LIMIT = 60
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HEAD = "The event reaches the stack, which writes its block into the on-start script of the notebook"
PARAGRAPH = "AWS is emulated, and so are ngrok's cloud and the computers. " * 3


class Screen(io.StringIO):
    """What is written to a terminal of `columns`, or to a pipe where there are none, in an `encoding`."""

    def __init__(self, columns: int | None = 80, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding, self._ends = encoding, os.openpty() if columns is not None else ()
        self.written = threading.Condition()
        if columns is not None:
            self.resize(columns)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only there as well
        return self._encoding

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._ends[1], termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def isatty(self) -> bool:
        return bool(self._ends)

    def fileno(self) -> int:
        if not self._ends:
            raise io.UnsupportedOperation("fileno")
        return self._ends[1]

    def write(self, text: str) -> int:
        text.encode(self._encoding)  # as a terminal's stream does
        with self.written:
            self.written.notify_all()
            return super().write(text)

    def wait_for(self, times: int, text: str) -> None:
        """Until `text` was written so often."""
        with self.written:
            assert self.written.wait_for(lambda: self.getvalue().count(text) >= times, LIMIT), self.getvalue()

    def lines(self) -> list[str]:
        """What stays: without colours, and of lines that were redrawn only the last state."""
        return [line.rpartition("\x1b[K")[2] for line in COLOUR.sub("", self.getvalue()).splitlines()]

    def close(self) -> None:
        for end in self._ends:
            os.close(end)
        super().close()


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture(params=[60, 80, 100])
def screen(request: pytest.FixtureRequest) -> Iterator[Screen]:
    made = Screen(request.param)
    yield made
    made.close()


@pytest.mark.xfail(strict=True, reason="the width is 96, whatever the terminal's is")
def test_no_line_is_wider_than_the_terminal(screen: Screen) -> None:
    story = Story(screen)
    story.say(PARAGRAPH)
    with story.step(HEAD):
        pass
    columns = os.get_terminal_size(screen.fileno()).columns
    assert [line for line in screen.lines() if len(line) > columns] == []
    assert " ".join(screen.lines()).split()[: len(PARAGRAPH.split())] == PARAGRAPH.split()


@pytest.mark.xfail(strict=True, reason="a live line of 96 columns becomes two lines, and each redrawing adds another")
def test_a_live_line_keeps_to_one_line(screen: Screen) -> None:
    story = Story(screen)
    with story.step(HEAD):
        screen.wait_for(3, "\r")
    columns = os.get_terminal_size(screen.fileno()).columns
    redrawn = COLOUR.sub("", screen.getvalue()).split("\r\x1b[K")[1:-1]
    assert [line for line in redrawn if len(line) >= columns] == []


@pytest.mark.xfail(strict=True, reason="a line every two seconds says what is awaited")
def test_where_there_is_no_terminal_a_step_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = threading.Event()
    monkeypatch.setattr("threading.Event.wait", lambda *_: waited.is_set())  # no time passes between signs of life
    screen = Screen(None)
    with Story(screen).step("The event reaches the stack"):
        for _ in range(1000):
            if "…" in screen.getvalue():
                break
            os.sched_yield()
        waited.set()
    assert len(screen.lines()) == 1


@pytest.mark.xfail(strict=True, reason="what the encoding cannot hold ends the run with a traceback")
@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_what_an_encoding_does_not_hold_is_written_otherwise(encoding: str) -> None:
    screen = Screen(80, encoding)
    Story(screen).show("told by a program …")
    assert codecs.encode(screen.getvalue(), encoding)
    screen.close()
