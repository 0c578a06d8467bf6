"""Facts that are not confirmed: each mark in the code names an entry of docs/facts.md, and each entry its files."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict

from support.stack import PROJECT

from emulator.answers import ANSWERS

PAGE = "docs/facts.md"
OF_MARKS = (PAGE, "CONTRIBUTING.md", "tests/template/test_facts.py")
"""Files that speak of marks and have none."""

OF_THE_USERS_MACHINE = {"windows-known-hosts", "windows-match-exec"}
"""Facts about no part of what is emulated."""

MARK = re.compile(r"UNCONFIRMED(?:\(([a-z-]+)\))?")
ENTRY = re.compile(r"^\| `([a-z-]+)` \|(.*)\|([^|]*)\|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)]+)\)")


ANSWERED = re.compile(r"^\| `([a-z-]+)` \| ((?:`[a-z0-9-]+`(?:, )?)+) \|.+\|$", re.MULTILINE)
"""An entry of the table of docs/local-run.md: a fact, and the answers to it."""


def marks() -> dict[str, set[str]]:
    """The files of the project by the ids that they mark; "" for a mark without an id."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    found = defaultdict(set)
    for name in listed.split("\0"):
        path = PROJECT / name
        if name in OF_MARKS or not path.is_file():
            continue
        for mark in MARK.finditer(path.read_text("utf-8", errors="replace")):
            found[mark[1] or ""].add(name)
    return found


def entries() -> dict[str, tuple[str, set[str]]]:
    """The entries of the page: what they say, and the files that they name."""
    page = PROJECT / PAGE
    return {
        entry[1]: (
            entry[2],
            {str((page.parent / link).resolve().relative_to(PROJECT)) for link in LINK.findall(entry[3])},
        )
        for entry in ENTRY.finditer(page.read_text("utf-8"))
    }


def test_every_mark_has_an_entry_and_every_entry_a_mark() -> None:
    assert marks().keys() == entries().keys()


def test_an_entry_names_the_files_of_its_marks() -> None:
    named = {identifier: files for identifier, (_, files) in entries().items()}
    marked = {id_: {file for file in files if not file.startswith("tests/")} for id_, files in marks().items()}
    # What only a test marks is an assumption of that test.
    assert all(marked.values())
    assert named == marked


def test_an_entry_has_a_source_and_says_what_happens_either_way() -> None:
    for identifier, (text, _) in entries().items():
        parts = [part.strip() for part in text.split("|")]
        assert len(parts) == 3, identifier
        assert all(parts), identifier


def test_the_emulator_has_both_answers_to_every_fact() -> None:
    assert ANSWERS.keys() == entries().keys() - OF_THE_USERS_MACHINE
    assert all(len(set(answers)) == len(answers) > 1 for answers in ANSWERS.values())


def test_the_page_on_the_local_run_has_every_answer_the_first_one_first() -> None:
    page = (PROJECT / "docs/local-run.md").read_text("utf-8")
    documented = {entry[1]: tuple(re.findall("[a-z0-9-]+", entry[2])) for entry in ANSWERED.finditer(page)}
    assert documented == dict(ANSWERS)
