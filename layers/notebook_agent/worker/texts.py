"""Texts of another's: printable, and in one line, before a terminal or a file gets them."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with a space for each character, but a newline, that a terminal could interpret."""
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


def one_line(text: object, limit: int = 400) -> str:
    """Return `text` as one printable line of at most `limit` characters, with one space between words."""
    return " ".join(printable(str(text)).split())[:limit]
