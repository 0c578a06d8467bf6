"""`notebook-ssh help`: docs/connect.md by its headings, without a network or a checkout."""

from __future__ import annotations

import os
import re

from notebook_ssh_client.errors import EXIT_FAILURE, EXIT_USAGE, CliError

_PACKAGE = os.path.dirname(os.path.abspath(__file__))

# Where the package is installed, and where it runs from a checkout (client/hatch_build.py).
PAGES = (
    os.path.join(_PACKAGE, "connect.md"),
    os.path.join(os.path.dirname(os.path.dirname(_PACKAGE)), "docs", "connect.md"),
)


def topics() -> dict[str, str]:
    """Return the text below each heading of the page, in its order. Raises CliError if there is no page."""
    for path in PAGES:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return _parts(file.read())
    raise CliError("this installation has no documentation; see docs/connect.md of the project", EXIT_FAILURE)


def text(words: str) -> str:
    """Return the parts whose headings contain `words`; the list of headings if there are none. Raises CliError."""
    found = topics()
    if not words:
        lines = "\n".join(f"  {heading}" for heading in found)
        return f"notebook-ssh help WORD prints the topics with this word:\n{lines}"
    parts = [f"{heading}\n\n{part}" for heading, part in found.items() if words.lower() in heading.lower()]
    if not parts:
        raise CliError(f"no topic has {words!r} in its name; notebook-ssh help lists them", EXIT_USAGE)
    return "\n\n".join(parts)


def _parts(page: str) -> dict[str, str]:
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    is_block = False
    for line in page.splitlines():
        is_block ^= line.startswith("```")
        if line.startswith("#") and not is_block:
            lines = parts[line.lstrip("# ")] = []
        else:
            lines.append(line if is_block else _without_links(line))
    found = {heading: "\n".join(part).strip() for heading, part in parts.items()}
    return {heading: part for heading, part in found.items() if part}


def _without_links(line: str) -> str:
    """Return a line without the addresses of other pages and places, which are not here."""
    return re.sub(r"\[([^]]+)\]\((?!http)[^)]+\)", r"\1", line)
