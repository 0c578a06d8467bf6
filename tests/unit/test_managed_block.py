"""Splice, strip and inspect as a table that reads like their specification."""

from __future__ import annotations

import contextlib
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from notebook_ssh.model.managed_block import (
    LIMIT,
    Block,
    Damaged,
    Inserted,
    NoBlock,
    Original,
    Present,
    Refused,
    fingerprint,
    insert_block,
    inspect,
    remove_block,
)

OLD = Block("team", "1.0.0", "0" * 12, b"( echo old ) || :\n")
NEW_BODY = b"( echo new; echo newer ) || :\n"
NEW = Block("team", "1.1.0", "1" * 12, NEW_BODY)
OTHER = Block("team-2", "1.0.0", "2" * 12, b"( cat <<'X'\nit's theirs\nX\n) || :\n")
BASH = b"#!/bin/bash\n"
OWNERS = b"set -e\necho hello\n"


def put(script: bytes | None, block: Block = NEW) -> bytes:
    """`script` with `block`, which must be taken."""
    outcome = insert_block(script, block)
    assert isinstance(outcome, Inserted), outcome
    return outcome.script


def refused(script: bytes | None, block: Block = NEW) -> tuple[str, str]:
    """Code and message of the refusal of `script`."""
    outcome = insert_block(script, block)
    assert isinstance(outcome, Refused)
    return outcome.problem.code, outcome.problem.message


AS_IT_WAS = {
    "no script at all": None,
    "an empty script": b"",
    "a usual script": BASH + OWNERS,
    "carriage returns": b"#!/bin/bash\nset -e\r\necho hello\r\n",
    "both line ends": b"#!/bin/bash\nset -e\r\necho hello\n\r",
    "no final line end": BASH + b"echo hello",
    "a shebang line alone": b"#!/bin/bash",
    "our own shebang line alone": b"#!/bin/sh\n",
    "our own shebang line alone, not ended": b"#!/bin/sh",
    "a byte order mark": b"\xef\xbb\xbf#!/bin/bash\necho hello\n",
    "invalid UTF-8": BASH + b"echo '\xff\xfe\x80'\n",
    "NUL bytes": BASH + b"printf 'a\0b'\n\0",
    "no shebang line": b"echo hello\n",
    "a blank line alone": b"\n",
    "env with options": b"#!/usr/bin/env -S bash -eu\necho hello\n",
    "a script that ends itself": BASH + b"exec /sbin/reboot\n",
    "strict options": BASH + b"set -euo pipefail\ntrap 'echo bye' EXIT\nfalse\n",
    "our marker text in a here-document": BASH + b"cat <<'EOF'\n" + OLD.render(Original.COMPLETE)[:-20] + b"\nEOF\n",
    "another stack's block in a here-document": BASH + b"cat <<'EOF'\n" + OTHER.render(Original.COMPLETE) + b"EOF\n",
    "a comment about us": BASH + b"# notebook-ssh starts above\necho '# >>> notebook-ssh stack=team'\n",
    "another stack's block on top": BASH + OTHER.render(Original.COMPLETE) + OWNERS,
    "another stack's damaged block on top": BASH + OTHER.render(Original.COMPLETE)[:-30] + b"\n" + OWNERS,
}


@pytest.mark.parametrize("script", AS_IT_WAS.values(), ids=AS_IT_WAS.keys())
def test_what_was_spliced_is_stripped_to_the_byte(script: bytes | None) -> None:
    inserted = put(script)
    assert inserted != script
    assert remove_block(inserted, "team") == script
    assert inspect(inserted, "team") == Present("1.1.0", "1" * 12, intact=True, on_top=True, owner=script)
    assert insert_block(inserted, NEW) == Inserted(inserted, changed=False)


@pytest.mark.parametrize("script", AS_IT_WAS.values(), ids=AS_IT_WAS.keys())
def test_a_script_without_our_block_is_left_as_it_is_by_strip(script: bytes | None) -> None:
    assert inspect(script, "team") == NoBlock(script)
    assert remove_block(script, "team") is script


def test_the_block_stands_right_after_the_shebang_line() -> None:
    assert put(BASH + OWNERS) == BASH + NEW.render(Original.COMPLETE) + OWNERS


def test_without_a_shebang_line_the_block_comes_first() -> None:
    assert put(OWNERS) == NEW.render(Original.COMPLETE) + OWNERS


@pytest.mark.parametrize("script", [None, b""])
def test_a_script_made_of_nothing_can_be_run(script: bytes | None) -> None:
    assert put(script).startswith(b"#!/bin/sh\n# >>> notebook-ssh ")


def test_the_opening_line_says_what_it_is_in_one_line_of_text() -> None:
    opening, closing = (NEW.render(Original.NO_TRAILING_NEWLINE).splitlines()[place].decode() for place in (0, -1))
    assert opening == (
        f"# >>> notebook-ssh stack=team version=1.1.0 id={'1' * 12} sum={fingerprint(NEW_BODY)} original=unended"
        " >>> managed: edits inside are undone"
    )
    assert closing == "# <<< notebook-ssh stack=team <<<"


# --- an own block is there already ------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "comes"), [(OLD, NEW), (NEW, OLD)], ids=["older", "newer"])
def test_an_older_or_newer_block_is_replaced_where_it_stands(there: Block, comes: Block) -> None:
    before = BASH + there.render(Original.COMPLETE) + OTHER.render(Original.COMPLETE) + OWNERS
    assert put(before, comes) == BASH + comes.render(Original.COMPLETE) + OTHER.render(Original.COMPLETE) + OWNERS


@pytest.mark.parametrize("script", [None, b"", b"#!/bin/bash"], ids=["absent", "empty", "unended"])
def test_an_upgrade_remembers_how_the_script_was(script: bytes | None) -> None:
    assert remove_block(put(put(script, OLD), NEW), "team") == script


def test_the_same_source_packed_by_another_library_is_the_same_block() -> None:
    inserted = put(BASH + OWNERS)
    repacked = Block(NEW.stack, NEW.version, NEW.id, b"other bytes of the same source\n")
    assert insert_block(inserted, repacked) == Inserted(inserted, changed=False)


def test_another_version_of_the_same_source_is_written() -> None:
    again = Block(NEW.stack, "1.2.0", NEW.id, NEW.body)
    assert put(put(BASH), again) == put(BASH, again)


def test_an_edit_inside_is_found_and_undone() -> None:
    edited = put(BASH + OWNERS).replace(b"newer", b"never")
    found = inspect(edited, "team")
    assert isinstance(found, Present)
    assert not found.intact
    assert put(edited) == put(BASH + OWNERS)
    assert remove_block(edited, "team") == BASH + OWNERS


def test_line_ends_of_another_editor_are_an_edit() -> None:
    converted = put(BASH + OWNERS).replace(b"\n", b"\r\n")
    windows = (BASH + OWNERS).replace(b"\n", b"\r\n")
    assert remove_block(converted, "team") == windows
    assert refused(converted) == refused(windows)
    unix_first_line = converted.replace(b"#!/bin/bash\r\n", BASH)
    assert put(unix_first_line) == put(BASH + OWNERS.replace(b"\n", b"\r\n"))


def test_edits_outside_survive() -> None:
    edited = put(BASH + OWNERS).replace(b"hello", b"goodbye") + b"echo more\n"
    assert remove_block(edited, "team") == BASH + OWNERS.replace(b"hello", b"goodbye") + b"echo more\n"
    assert put(edited) == edited


@pytest.mark.parametrize("script", [None, b"", b"#!/bin/sh"], ids=["absent", "empty", "unended"])
def test_lines_that_the_owner_adds_to_a_script_made_by_us_stay_and_keep_the_shebang_line(script: bytes | None) -> None:
    assert remove_block(put(script) + b"echo mine\n", "team") == b"#!/bin/sh\necho mine\n"


def test_another_shebang_line_is_the_owners() -> None:
    assert remove_block(put(None).replace(b"#!/bin/sh", b"#!/bin/bash"), "team") == BASH


def test_a_block_that_lost_the_final_line_end_is_found() -> None:
    assert remove_block(put(BASH)[:-1], "team") == BASH
    assert put(put(BASH)[:-1], OTHER) == BASH + OTHER.render(Original.COMPLETE) + put(b"")[
        len(b"#!/bin/sh\n") : -1
    ].replace(b"original=empty", b"original=whole")


# --- the owner wrote above the block ----------------------------------------------------------------------------

ABOVE = {
    "options": b"set -euo pipefail\n",
    "a comment with an apostrophe": b"# don't touch\n",
    "quoted text": b"export TITLE=\"it's\"' fine'\n".replace(b"it's", b"its"),
    "an open function": b"main() {\n",
}


@pytest.mark.parametrize("above", ABOVE.values(), ids=ABOVE.keys())
def test_a_block_below_lines_of_the_owners_is_found_and_brought_back_on_top(above: bytes) -> None:
    moved = BASH + above + NEW.render(Original.COMPLETE) + OWNERS
    assert inspect(moved, "team") == Present("1.1.0", "1" * 12, True, on_top=False, owner=BASH + above + OWNERS)
    assert put(moved) == put(BASH + above + OWNERS)


def test_a_block_below_another_stacks_moved_block_is_found() -> None:
    moved = BASH + b"set -e\n" + OTHER.render(Original.COMPLETE) + NEW.render(Original.COMPLETE) + OWNERS
    assert remove_block(moved, "team") == BASH + b"set -e\n" + OTHER.render(Original.COMPLETE) + OWNERS


# --- nobody can tell: nothing is changed ------------------------------------------------------------------------

INSIDE = NEW.render(Original.COMPLETE)
DAMAGED = {
    "no closing line": BASH + INSIDE[: INSIDE.rindex(b"# <<<")] + OWNERS,
    "no opening line": BASH + INSIDE[INSIDE.index(b"\n") + 1 :] + OWNERS,
    "an opening line cut short": BASH + b"# >>> notebook-ssh stack=team\n" + INSIDE[INSIDE.index(b"\n") + 1 :] + OWNERS,
    "twice": BASH + INSIDE + INSIDE + OWNERS,
    "twice, with a line between": BASH + INSIDE + b"set -e\n" + INSIDE + OWNERS,
    "another opening line inside": BASH + INSIDE[: INSIDE.rindex(b"# <<<")] + INSIDE + OWNERS,
    "moved and edited": BASH + b"set -e\n" + INSIDE.replace(b"newer", b"never") + OWNERS,
    "below a here-document": BASH + b"cat <<X\n" + INSIDE + b"X\n" + OWNERS,
    "below an open quotation": BASH + b"echo '\n" + INSIDE + b"'\n",
    "below a continued line": BASH + b"echo \\\n" + INSIDE,
}


@pytest.mark.parametrize("script", DAMAGED.values(), ids=DAMAGED.keys())
def test_doubt_changes_nothing_and_names_the_line(script: bytes) -> None:
    found = inspect(script, "team")
    assert isinstance(found, Damaged)
    assert found.owner == script
    assert remove_block(script, "team") == script
    code, message = refused(script)
    assert code == found.problem.code == "block-damaged"
    assert message == found.problem.message
    line = int(message.split(" in line ")[1].split()[0])
    assert b"notebook-ssh stack=team" in script.splitlines()[line - 1]
    assert "# <<< notebook-ssh stack=team <<<" in message


@pytest.mark.parametrize("script", DAMAGED.values(), ids=DAMAGED.keys())
def test_another_stacks_damage_is_not_ours(script: bytes) -> None:
    assert remove_block(put(script, OTHER), "team-2") == script


# --- not a shell ------------------------------------------------------------------------------------------------

SHELL_LINES = [
    b"#!/bin/sh", b"#! /bin/bash -eu", b"#!/usr/bin/env bash", b"#!/usr/bin/env -S bash -eu -o pipefail",
    b"#!/usr/bin/env -Sbash -e", b"#!/usr/bin/env -i PATH=/bin dash", b"#!/usr/bin/env -u HOME ksh", b"#!/bin/zsh -f",
    b"#!/bin/busybox sh", b"#!\t/bin/bash\t-x",
]  # fmt: skip
OTHER_LINES = {
    b"#!/usr/bin/python3": "/usr/bin/python3",
    b"#!/usr/bin/env python3 -u": "python3",
    b"#!/usr/bin/env -S node --harmony": "node",
    b"#!/usr/bin/perl -w": "/usr/bin/perl",
    b"#!/bin/csh": "/bin/csh",
    b"#!/bin/busybox awk": "awk",
    b"\xef\xbb\xbf#!/usr/bin/python3": "/usr/bin/python3",
    b"#!/bin/bash\recho hello\r": "/bin/bash\\recho",
    b"#!/opt/\xff": "/opt/\\\\xff",
    b"#!": "nothing",
    b"#!/usr/bin/env": "nothing",
}


@pytest.mark.parametrize("line", SHELL_LINES)
def test_shells_are_known_by_their_shebang_lines(line: bytes) -> None:
    assert put(line + b"\n:\n").startswith(line + b"\n# >>> notebook-ssh")


@pytest.mark.parametrize(("line", "named"), OTHER_LINES.items())
def test_what_is_no_shell_is_refused_by_its_name(line: bytes, named: str) -> None:
    code, message = refused(line + b"\nprint('hello')\n")
    assert code == "config-not-shell"
    assert f"'{named}'" in message
    assert "bash" in message


CARRIAGE_RETURNS = [
    b"#!/bin/sh\r", b"#!/bin/sh -eu\r", b"#!/bin/sh \r", b"#!/usr/bin/env bash\r", b"#!/bin/bash -\r", b"#!/bin/bash\r\r",
]  # fmt: skip


@pytest.mark.parametrize("line", CARRIAGE_RETURNS)
def test_a_first_line_that_ends_in_a_carriage_return_is_refused(line: bytes, tmp_path: Path) -> None:
    """For the kernel it is a part of the program's name or of its option (execve(2)): no such script can run."""
    for text in (line + b"\nset -e\r\n:\r\n", line):
        code, message = refused(text)
        assert code == "config-line-ends"
        assert "carriage return" in message
    put(line.rstrip(b"\r") + b"\n")
    script = tmp_path / "OnStart"
    script.write_bytes(line + b"\necho started\n")
    script.chmod(0o700)
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run([script], capture_output=True, check=False)
        assert (done.returncode != 0, done.stdout) == (True, b"")


def test_a_block_can_be_taken_from_a_script_that_became_python() -> None:
    assert (
        remove_block(put(BASH + OWNERS).replace(BASH, b"#!/usr/bin/python3\n"), "team")
        == b"#!/usr/bin/python3\n" + OWNERS
    )


# --- room -------------------------------------------------------------------------------------------------------


def test_the_limit_is_exact_to_the_byte() -> None:
    room = LIMIT - len(put(BASH))
    full = put(BASH + b"#" * room)
    assert len(full) == LIMIT
    assert len(b64encode(full)) == 16_384
    assert remove_block(full, "team") == BASH + b"#" * room
    code, message = refused(BASH + b"#" * (room + 1))
    assert code == "config-too-large"
    block = len(NEW.render(Original.COMPLETE))
    for number in (len(BASH) + room + 1, block, LIMIT + 1, LIMIT):
        assert f"{number:,}" in message
    assert "1 less" in message


def test_a_full_script_keeps_its_block_and_can_lose_it() -> None:
    room = LIMIT - len(put(BASH, OLD))
    full = put(BASH + b"#" * room, OLD)
    assert insert_block(full, OLD) == Inserted(full, changed=False)
    assert refused(full, NEW)[0] == "config-too-large"
    assert remove_block(full, "team") == BASH + b"#" * room


# --- blocks that would be unreadable cannot be made ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (("a b", "1.0", "0" * 12, b"\n"), "stack"),
        (("team", "1.0 ", "0" * 12, b"\n"), "version"),
        (("team", "1.0", "xyz", b"\n"), "id"),
        (("team", "1.0", "0" * 12, b"echo"), "line end"),
        (("team", "1.0", "0" * 12, b":\n# <<< notebook-ssh stack=other <<<\n"), "marker"),
    ],
)
def test_a_block_that_could_not_be_found_again_is_not_made(parts: tuple[str, str, str, bytes], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Block(*parts).text()
