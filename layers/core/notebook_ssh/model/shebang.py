"""The interpreter of a script, from its first line."""

from __future__ import annotations

from notebook_ssh.errors import Problem

SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "zsh"})
"""Interpreters under which the block's frame was tested (tests/agent/test_block_frame.py)."""


def first_line_problem(script: bytes) -> Problem | None:
    """Return why the script's first line leaves the block without a shell that runs it; None if it does not."""
    interpreter = _foreign_interpreter(script)
    if interpreter is not None:
        return Problem(
            "config-not-shell",
            f"The on-start script's first line names {interpreter!r}, and the block is shell text that needs "
            f"one of {', '.join(sorted(SHELLS))}: start the script in a shell and call {interpreter!r} from there.",
        )
    first = _first_line(script)
    if first.startswith(b"#!") and first.endswith(b"\r"):  # execve(2): it belongs to the interpreter's name or option
        return Problem(
            "config-line-ends",
            "The on-start script's first line ends in a carriage return, which is a part of the shell's name for Linux, "
            "so the notebook cannot start with this script: save it with Unix line ends (LF).",
        )
    return None


def _foreign_interpreter(script: bytes) -> str | None:
    """Return the interpreter that the first line names if it is none of `SHELLS`, else None.

    A script without a shebang line is run by a shell (execve(2) fails with ENOEXEC, and shells then run it).
    """
    first = _first_line(script)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("utf-8", "backslashreplace").rstrip("\r").replace("\t", " ").split(" ")
    named = list(_program([word for word in words if word]))
    return None if named and named[0].rpartition("/")[2] in SHELLS else " ".join(named[:1]) or "nothing"


def _first_line(script: bytes) -> bytes:
    return script.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]


def _program(words: list[str]) -> list[str]:
    """Return the words of a shebang line from the shell on, without `env` and its options or `busybox`."""
    if not words:
        return []
    match words[0].rpartition("/")[2]:
        case "busybox":
            return words[1:]
        case "env":
            rest = words[1:]
            while rest and (rest[0].startswith("-") or "=" in rest[0]):
                # `-u NAME` and `-C DIR` take a word of their own (coreutils env(1)); `-S` may touch the next one.
                taken = 2 if rest[0] in ("-u", "--unset", "-C", "--chdir") else 1
                touching = rest[0].removeprefix("-S")
                rest = [touching, *rest[1:]] if rest[0].startswith("-S") and touching else rest[taken:]
            return rest
        case _:
            return words
