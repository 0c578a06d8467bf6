"""The register of facts: the table in docs/facts.md, which is part of this package when it is released."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

PAGE = "facts.md"

_ROW = re.compile(
    r"^\| `(?P<id>[a-z-]+)` \|(?P<sentence>[^|]*)\|(?P<source>[^|]*)\|(?P<either>[^|]*)\|(?P<where>[^|]*)\|$", re.M
)
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


class Fact(NamedTuple):
    """An entry of the register.

    id: as the code's marks name it. sentence: what is not confirmed. source: what its source says. either: what the
    stack does either way. where: files that depend on it, relative to the project.
    """

    id: str
    sentence: str
    source: str
    either: str
    where: tuple[str, ...]


class RegisterError(Exception):
    """The register cannot be read; the message says why."""


def read() -> dict[str, Fact]:
    """Return the facts by their ids, in the order of the page. Raises RegisterError."""
    released = resources.files("notebook_ssh_verify") / PAGE
    in_checkout = Path(__file__).resolve().parent.parent.parent / "docs" / PAGE
    try:
        text = (released if released.is_file() else in_checkout).read_text("utf-8")
    except OSError as error:
        raise RegisterError(f"{PAGE} is missing; run this from a checkout, or from an unpacked release") from error
    return {fact.id: fact for fact in parse(text)}


def parse(page: str) -> Iterator[Fact]:
    """Yield the facts of the page."""
    for row in _ROW.finditer(page):
        files = tuple(_path(link) for _, link in _LINK.findall(row["where"]))
        yield Fact(row["id"], _plain(row["sentence"]), _plain(row["source"]), _plain(row["either"]), files)


def _path(link: str) -> str:
    """A link of the page, which is in docs/, as a path in the project."""
    return link.removeprefix("../") if link.startswith("../") else f"docs/{link}"


def _plain(cell: str) -> str:
    return _LINK.sub(r"\1", cell).strip()
