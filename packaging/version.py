"""The project's version. It is one, and stands where each part can read it by itself.

    python3 packaging/version.py          prints it
    python3 packaging/version.py 1.2.3    writes it everywhere, and heads the unreleased changes in CHANGELOG.md with it

`make version` and `make version NEW=1.2.3` call it.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SOURCE = "layers/core/notebook_ssh/__init__.py"
"""Where it is read from; the other places follow."""

PLACES = {
    SOURCE: r'^(__version__ = ")([^"]+)(")$',
    "client/notebook_ssh_client/__init__.py": r'^(__version__ = ")([^"]+)(")$',
    "docs/block.md": r"^(# >>> notebook-ssh .* version=)(\S+)( )",
}
CHANGES, UNRELEASED = "CHANGELOG.md", "## Unreleased\n"


class VersionError(Exception):
    """The version cannot be read or written; the sentence says what to do."""


def versions(project: Path = PROJECT) -> dict[str, str]:
    """The version that each place names."""
    return {place: _found(project, place)[2] for place in PLACES}


def read(project: Path = PROJECT) -> str:
    """The version. Raises VersionError when the places disagree."""
    named = versions(project)
    if len(set(named.values())) != 1:
        said = ", ".join(f"{place}: {version}" for place, version in named.items())
        raise VersionError(f"the version is not the same everywhere ({said}); run: make version NEW=x.y.z")
    return named[SOURCE]


def write(new: str, today: datetime.date, project: Path = PROJECT) -> None:
    """Make `new` the version everywhere. Raises VersionError before anything is changed."""
    old = read(project)
    if not re.fullmatch(r"\d+\.\d+\.\d+", new):
        raise VersionError(f"{new} is no version: it has the form 1.2.3 (https://semver.org)")
    if _numbers(new) <= _numbers(old):
        raise VersionError(f"{new} is not newer than {old}")
    changes = (project / CHANGES).read_text("utf-8")
    if UNRELEASED not in changes:
        raise VersionError(f"{CHANGES} has no unreleased changes; write them under `{UNRELEASED.strip()}` first")
    for place in PLACES:
        found = _found(project, place)
        text = found.string
        (project / place).write_text(f"{text[: found.start(2)]}{new}{text[found.end(2) :]}", "utf-8")
    (project / CHANGES).write_text(changes.replace(UNRELEASED, f"## {new} – {today}\n", 1), "utf-8")


def _found(project: Path, place: str) -> re.Match[str]:
    found = re.search(PLACES[place], (project / place).read_text("utf-8"), re.MULTILINE)
    if not found:
        raise VersionError(f"{place} names no version; packaging/version.py says how it should")
    return found


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def main(words: list[str]) -> int:
    """The command line described at the top of this file."""
    try:
        if words:
            write(words[0], datetime.datetime.now(datetime.UTC).date())
        print(read())
    except VersionError as error:
        print(f"version: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
