"""Retired names and words are found where they count, and the list keeps its own rules."""

from __future__ import annotations

import pytest
import retired_words
from retired_words import ListError, Retired, find, parse
from support.stack import PROJECT

RETIRED = Retired(("read_wish",), ("nobody", "look at"), ("mischief",), frozenset({("docs/x.md", "nobody")}))


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("layers/x.py", "spec = read_wish(tags)\n", [(1, "read_wish")]),
        ("tests/x.py", "\nfrom tags import read_wish\n", [(2, "read_wish")]),
        ("layers/x.py", "read_wishes = 1\n", []),
        ("docs/y.md", "Nobody may. Look at it.\n", [(1, "Nobody"), (1, "Look at")]),
        ("layers/x.py", "user = 'nobody-else'\n", []),
        ("tests/x.py", "# nobody\n", []),
        ("tests/x.py", "# Mischief, or none\n", [(1, "Mischief")]),
        ("docs/y.md", "mischief\n", []),
        ("docs/x.md", "nobody\n", []),
        ("docs/decisions/0001.md", "read_wish, nobody\n", []),
    ],
)
def test_what_is_found(path: str, text: str, found: list[tuple[int, str]]) -> None:
    assert list(find(path, text, RETIRED)) == found


def test_the_list_is_parsed() -> None:
    text = (
        "# why\n[identifiers]\nread_wish\n[words]\nlook at\n[test words]\nmischief\n"
        "[exceptions]\ndocs/x.md: look at: a quotation\n"
    )
    assert parse(text) == Retired(("read_wish",), ("look at",), ("mischief",), frozenset({("docs/x.md", "look at")}))


@pytest.mark.parametrize(
    "lines",
    [
        ["docs/x.md: nobody"],
        [f"docs/{number}.md: nobody: a reason" for number in range(retired_words.MAX_EXCEPTIONS + 1)],
    ],
)
def test_an_exception_has_a_reason_and_there_are_few(lines: list[str]) -> None:
    with pytest.raises(ListError):
        parse("[exceptions]\n" + "\n".join(lines))


def test_the_committed_list_can_be_used() -> None:
    retired = parse((PROJECT / retired_words.LIST).read_text("utf-8"))
    assert retired.identifiers
    assert retired.words
