"""The interpreter of a script, from its first line."""

from __future__ import annotations

SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "zsh"})
"""Interpreters under which the block's frame was tested (tests/agent/test_block_frame.py)."""


def foreign_interpreter(script: bytes) -> str | None:
    """Return the interpreter that the first line names if it is none of `SHELLS`, else None.

    A script without a shebang line is run by a shell (execve(2) fails with ENOEXEC, and shells then run it).
    """
    first = script.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("utf-8", "backslashreplace").rstrip("\r").replace("\t", " ").split(" ")
    named = list(_program([word for word in words if word]))
    return None if named and named[0].rpartition("/")[2] in SHELLS else " ".join(named[:1]) or "nothing"


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
