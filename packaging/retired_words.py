"""Reports where a retired name or word of tools/retired_words.txt is used.

    python packaging/retired_words.py

Exits with 1 if there is one, and with 2 if the list itself is wrong.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LIST = "tools/retired_words.txt"

PRODUCT = ("layers/", "functions/", "client/", "docs/", "template.yaml", "README.md", "CONTRIBUTING.md", "SECURITY.md")
"""Where words count as well as identifiers."""

TESTS = ("tests/", "local/", "bench/")
"""Where the words for tests count."""

HISTORY = (LIST, "CHANGELOG.md", "docs/decisions/", "tests/golden/", "tests/template/test_retired_words.py")
"""What may name things as they were called before."""

MAX_EXCEPTIONS = 10


class ListError(Exception):
    """The list cannot be used; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Retired:
    """The list."""

    identifiers: tuple[str, ...]
    words: tuple[str, ...]
    test_words: tuple[str, ...]
    exceptions: frozenset[tuple[str, str]]  # (path, word)


def parse(text: str) -> Retired:
    """Parse the list. Raises ListError for an exception without a reason, and for more than MAX_EXCEPTIONS."""
    sections: dict[str, list[str]] = {"identifiers": [], "words": [], "test words": [], "exceptions": []}
    current = ""
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if entry.startswith("["):
            current = entry.strip("[]")
        elif entry:
            sections[current].append(entry)
    exceptions = set()
    for entry in sections["exceptions"]:
        path, _, rest = entry.partition(": ")
        word, _, reason = rest.partition(": ")
        if not reason:
            raise ListError(f"{entry!r}: an exception is written `path: word: reason`")
        exceptions.add((path, word))
    if len(exceptions) > MAX_EXCEPTIONS:
        raise ListError(f"there are {len(exceptions)} exceptions, and at most {MAX_EXCEPTIONS} are allowed")
    return Retired(
        tuple(sections["identifiers"]), tuple(sections["words"]), tuple(sections["test words"]), frozenset(exceptions)
    )


def find(path: str, text: str, retired: Retired) -> Iterator[tuple[int, str]]:
    """Yield (line, word) for each retired name or word in the file `path` with `text`."""
    if path.startswith(HISTORY):
        return
    patterns = [rf"(?<!\w)(?:{'|'.join(map(re.escape, retired.identifiers))})(?!\w)"] if retired.identifiers else []
    words = retired.words if path.startswith(PRODUCT) else retired.test_words if path.startswith(TESTS) else ()
    if words:
        patterns.append(rf"(?i:(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-]))")
    pattern = re.compile("|".join(patterns))
    for number, line in enumerate(text.splitlines(), 1):
        for found in pattern.finditer(line):
            if (path, found[0].lower()) not in retired.exceptions and (path, found[0]) not in retired.exceptions:
                yield number, found[0]


def tracked() -> list[str]:
    """Return the paths that git tracks, or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.split("\0") if path and (PROJECT / path).is_file()]


def main() -> int:
    """The command line described at the top of this file."""
    try:
        retired = parse((PROJECT / LIST).read_text("utf-8"))
    except ListError as error:
        print(f"{LIST}: {error}")
        return 2
    used = 0
    for path in tracked():
        try:
            text = (PROJECT / path).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, word in find(path, text, retired):
            print(f"{path}:{number}: {word}")
            used += 1
    return 1 if used else 0


if __name__ == "__main__":
    sys.exit(main())
