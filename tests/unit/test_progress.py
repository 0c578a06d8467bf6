"""How the local run tells what happens: on terminals of any width and encoding, and where there is no terminal."""

from __future__ import annotations

import fcntl
import io
import os
import re
import shlex
import struct
import termios
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings, strategies as st

from patience import LIMIT_S as LIMIT
from progress import NARROWEST, WIDEST, NotReachedError, Progress, UnheardError

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HEAD = "The event reaches the stack, which writes its block into the on-start script of the notebook"
PARAGRAPH = "AWS is emulated, and so are ngrok's cloud and the computers. " * 3


class Screen(io.StringIO):
    """What is written to a terminal of `columns`, or to a pipe where there are none, in an `encoding`."""

    def __init__(self, columns: int | None = 80, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding
        self._ends: tuple[int, ...] = os.openpty() if columns is not None else ()
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


def width(columns: int) -> int:
    return min(max(columns, NARROWEST), WIDEST)


# ---- width -------------------------------------------------------------------------------------

COLUMNS = st.integers(20, 200)
TEXTS = st.lists(st.text("abcdefgh-_/.:~", min_size=1, max_size=40), min_size=1, max_size=40)


@given(COLUMNS, TEXTS)
@settings(deadline=None)
def test_no_word_is_broken_and_no_line_is_wider_than_the_terminal(columns: int, words: list[str]) -> None:
    """But for a line that is one word, such as a path."""
    text = " ".join(words)
    for tell in (Progress.say, Progress.title, Progress.chapter, Progress.end, Progress.failed, Progress.show):
        with closing(Screen(columns)) as screen:
            tell(Progress(screen), text)
            lines = [line.replace("│", "").split() for line in screen.lines()]
            assert [word for line in lines for word in line] == words
            wide = [line for line in screen.lines() if len(line) > width(columns)]
            assert [line for line in wide if len(line.replace("│", "").split()) > 1] == []


@given(COLUMNS, TEXTS)
@settings(deadline=None)
def test_the_time_of_a_step_stands_in_the_last_columns(columns: int, words: list[str]) -> None:
    with closing(Screen(columns)) as screen:
        progress = Progress(screen)
        with progress.step(" ".join(words)):
            pass
        lines = screen.lines()
        assert " ".join(lines).split()[:-3] == ["1", *words]
        assert re.search(r" [.]{3,} +\d+[.]\d s$", lines[-1])
        assert len(lines[-1]) == width(columns) or len(max(words, key=len)) > NARROWEST - 20


WORDS = st.lists(
    st.one_of(
        st.sampled_from(["--request", "-H", '"x-amz-security-token: $AWS_SESSION_TOKEN"', "a\\ b", "''"]),
        st.text("abcdefgh-_/.:~", min_size=1, max_size=40),
        st.text("abc '$x\"", max_size=20).map(shlex.quote),
    ),
    min_size=1,
    max_size=20,
)


@given(COLUMNS, WORDS)
@settings(deadline=None)
def test_a_long_command_is_the_same_command_when_it_is_pasted(columns: int, words: list[str]) -> None:
    with closing(Screen(columns)) as screen:
        Progress(screen).command(" ".join(words))
        first, *rest = screen.lines()
        assert first.startswith("     $ ")
        assert shlex.split("\n".join([first[7:], *rest]).replace("\\\n", "")) == shlex.split(" ".join(words))
        wide = [line for line in screen.lines() if len(line) > width(columns)]
        assert [line for line in wide if len(shlex.split(line.removesuffix("\\").replace("     $ ", ""))) > 1] == []


def test_an_option_keeps_its_value_where_there_is_room() -> None:
    with closing(Screen(60)) as screen:
        Progress(screen).command(
            'curl --silent --show-error --aws-sigv4 "aws:amz:us-east-1:execute-api" --user "${KEY}:${SECRET}" '
            "http://127.0.0.1:43367/_aws/execute-api/2c2b8112/v1/notebooks/my-notebook/ssh"
        )
        assert screen.lines() == [
            "     $ curl --silent --show-error \\",
            '           --aws-sigv4 "aws:amz:us-east-1:execute-api" \\',
            '           --user "${KEY}:${SECRET}" \\',
            "           http://127.0.0.1:43367/_aws/execute-api/2c2b8112/v1/notebooks/my-notebook/ssh",
        ]


@pytest.mark.parametrize(
    ("how", "lines"),
    [
        ({}, ["     │ ssh -J mario-rossi@bastion.example.com:2222", "     │   ec2-user@10.0.0.1"]),
        ({"cut": True}, ["     │ ssh -J mario-rossi@bastion.example.com:2222 ec2-user…"]),
        ({"whole": True}, ["     │ ssh -J mario-rossi@bastion.example.com:2222 ec2-user@10.0.0.1"]),
    ],
)
def test_what_a_program_printed_is_wrapped_or_cut_or_left_to_be_copied(how: dict[str, bool], lines: list[str]) -> None:
    with closing(Screen(60)) as screen:
        Progress(screen).show("ssh -J mario-rossi@bastion.example.com:2222 ec2-user@10.0.0.1\n", **how)
        assert screen.lines() == lines


def test_the_text_follows_the_terminal_when_it_is_resized() -> None:
    with closing(Screen(120)) as screen:
        progress = Progress(screen)
        progress.say(PARAGRAPH)
        screen.resize(60)
        before = len(screen.lines())
        progress.say(PARAGRAPH)
        assert max(map(len, screen.lines()[:before])) > 80
        assert max(map(len, screen.lines()[before:])) <= 60


# ---- the line that moves ------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 60, 80, 120])
def test_a_step_that_runs_is_redrawn_in_one_line(columns: int) -> None:
    with closing(Screen(columns)) as screen:
        progress = Progress(screen)
        with progress.step(HEAD):
            progress.wait("SageMaker says", lambda: "InService, or so", lambda _: True)
            screen.wait_for(3, "\r")
        *redrawn, last = screen.getvalue().split("\r\x1b[K")[1:]
        for line in redrawn:
            plain = COLOUR.sub("", line)
            assert len(plain) < columns
            assert re.search(r" [⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] \d+ s", plain)
            assert "\n" not in plain
            assert "\x1b" not in plain
        assert last.count("\n") == len(COLOUR.sub("", last).splitlines())


def test_where_there_is_no_terminal_a_step_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.Event.wait", lambda event, *_: event.is_set())  # no time between signs of life
    with closing(Screen(None)) as screen:
        progress = Progress(screen)
        progress.title("It works")
        with progress.step("The event reaches the stack"):
            for _ in range(1000):
                os.sched_yield()
            assert screen.getvalue().count("\n") == 2
        with pytest.raises(NotReachedError), progress.step("The agent reports"):
            progress.wait("the stack says", lambda: "stale", lambda _: False, limit=0)
        assert re.sub(r"\d\.\d s", "0.0 s", screen.getvalue()).splitlines() == [
            "",
            "It works",
            f"  1  The event reaches the stack {'.' * 39}   0.0 s",
            f"  2  The agent reports {'.' * 49}       ✗",
        ]


# ---- colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "environment", "coloured", "moves"),
    [
        (80, {}, True, True),
        (80, {"NO_COLOR": ""}, True, True),
        (80, {"NO_COLOR": "0"}, False, True),
        (80, {"TERM": "dumb"}, False, False),
        (None, {}, False, False),
    ],
)
def test_colours_are_where_a_terminal_has_them(
    columns: int | None, environment: dict[str, str], coloured: bool, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with closing(Screen(columns)) as screen:
        progress = Progress(screen)
        with progress.step(HEAD):
            if moves:
                screen.wait_for(2, "\r")
        progress.chapter("Mario tags it")
        assert bool(COLOUR.search(screen.getvalue())) == coloured
        assert ("\r\x1b[K" in screen.getvalue()) == moves


# ---- encodings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, None])
@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "cp1252", "utf-8"])
def test_what_an_encoding_does_not_hold_is_written_otherwise(encoding: str, columns: int | None) -> None:
    with closing(Screen(columns, encoding)) as screen:
        progress = Progress(screen)
        everything = "naïve – “so” → 東京 \udce9 …"
        with pytest.raises(NotReachedError), progress.step(everything):
            progress.wait(everything, lambda: "stale", lambda _: False, limit=0.5)
        for tell in (progress.say, progress.show, progress.command, progress.title, progress.end, progress.failed):
            tell(everything)
        told = screen.getvalue()
        assert ("│" in told) == ("✗" in told) == (encoding == "utf-8")
        assert ("..." in told) or encoding == "utf-8"
        assert ("naïve" in told) == (encoding != "ascii")
        assert ("東京" in told) == (encoding == "utf-8")


def test_what_would_move_the_cursor_is_left_out() -> None:
    with closing(Screen(80)) as screen:
        Progress(screen).show("one\x1b[2J\ttwo\a\r\nthree")
        assert screen.lines() == ["     │ one[2J  two", "     │ three"]


# ---- nobody listens -----------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "left"), [("a pipe", True), ("/dev/full", False)])
def test_an_output_that_cannot_be_written_ends_the_demo(path: str, left: bool) -> None:
    if left:
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(path, os.O_WRONLY)
    with open(write, "w") as out:
        progress = Progress(out)
        with pytest.raises(UnheardError, match="the output cannot be written") as first:
            progress.title("It works")
        with pytest.raises(UnheardError) as second, progress.step("Something is done"):
            pass
        assert first.value.left == second.value.left == left
    # Closing it wrote what was in its buffer, which would fail: it leads nowhere now.
