"""Formats what the user reads on a terminal: tables that fit its width, colours, times with their ages.

Written here and not taken from a library: docs/decisions/0009-no-library-for-tables.md.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TextIO

GAP = 2  # spaces between two columns

# Select Graphic Rendition (ECMA-48): the colour of each word that a table shows.
_COLOURS = {
    **dict.fromkeys(("connected", "ready", "ok"), "32"),
    **dict.fromkeys(("starting", "reconnecting", "stale", "waiting", "pending-restart", "pending-stop"), "33"),
    **dict.fromkeys(("error", "invalid-tag", "failed", "expired"), "31"),
    **dict.fromkeys(("off", "stopped"), "2"),
}


def has_colour(stream: TextIO | None) -> bool:
    """Return whether to colour what is printed to `stream`: a terminal that can, and no NO_COLOR (no-color.org)."""
    if stream is None or not stream.isatty() or os.environ.get("NO_COLOR"):
        return False
    return os.environ.get("TERM") != "dumb"


def width(stream: TextIO | None) -> int | None:
    """Return the columns of the terminal, or None where the output is for a program and lines stay whole.

    COLUMNS overrides it.
    """
    if os.environ.get("COLUMNS", "").isdecimal() or (stream is not None and stream.isatty()):
        return max(20, shutil.get_terminal_size().columns)
    return None


def format_table(rows: Sequence[Sequence[str]], columns: int | None, *, colour: bool) -> str:
    """Return a table; the first row is the heading.

    Where it is wider than `columns`, cells continue on further lines, broken at spaces; where even that is too wide,
    each row becomes a block of its own.
    """
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    least = [max(len(word) for row in rows for word in row[number].split() or [""]) for number in range(len(widths))]
    available = None if columns is None else columns - GAP * (len(widths) - 1)
    while available is not None and sum(widths) > available:
        spare = [size - minimum for size, minimum in zip(widths, least)]
        if max(spare) == 0:
            return _format_blocks(rows, columns, colour=colour)
        widths[spare.index(max(spare))] -= 1
    lines = []
    for row in rows:
        cells = [wrap(cell, size) for cell, size in zip(row, widths)]
        for number in range(max(map(len, cells))):
            parts = [(cell[number] if number < len(cell) else "").ljust(size) for cell, size in zip(cells, widths)]
            lines.append((" " * GAP).join(map(paint, parts) if colour else parts).rstrip())
    return "\n".join(lines)


def _format_blocks(rows: Sequence[Sequence[str]], columns: int | None, *, colour: bool) -> str:
    headings, lines = rows[0], []
    indent = max(map(len, headings)) + 2 * GAP
    for row in rows[1:]:
        lines += wrap(row[0], columns, "  ")
        for heading, cell in zip(headings[1:], row[1:]):
            label = f"{'':{GAP}}{heading:<{indent - GAP}}"
            for number, part in enumerate(wrap(cell, None if columns is None else columns - indent)):
                lines.append((label if number == 0 else " " * indent) + (paint(part) if colour else part))
    return "\n".join(lines)


def paint(cell: str) -> str:
    """Return `cell` in the colour of its word."""
    word = cell.strip()
    return f"\x1b[{_COLOURS[word]}m{cell}\x1b[0m" if word in _COLOURS else cell


def wrap(text: str, columns: int | None, indent: str = "") -> list[str]:
    """Return `text` in lines of at most `columns`, broken at spaces where there are some; `indent` precedes the others."""
    if columns is None or len(text) <= columns:
        return [text]
    return textwrap.wrap(text, max(columns, len(indent) + 8), subsequent_indent=indent) or [""]


def format_age(seconds: float) -> str:
    """Return how long ago something was, in the largest unit: `40 s ago`, `3 min ago`, `2 h ago`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def time_and_age(text: object, now: float, separator: str = " ({})") -> str:
    """Return an ISO 8601 time of the API as `2026-07-01 08:00Z (3 min ago)`; as it is if it is not one, `-` if None."""
    if not text:
        return "-"
    try:
        moment = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return str(text)
    return f"{moment:%Y-%m-%d %H:%MZ}" + separator.format(format_age(now - moment.timestamp()))
