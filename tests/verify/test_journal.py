"""The journal: a line on the disk before each creation, whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebook_ssh_verify.journal import Journal, JournalError, Place, folder, unfinished
from notebook_ssh_verify.ownership import Created, Kind, Run

PLACE = Place("111122223333", "us-east-1")
A, B = Created(Kind.NOTEBOOK, "nbssh-verify-aaaaaaaa-a"), Created(Kind.LAB, "nbssh-verify-aaaaaaaa-lab")


def test_what_was_written_is_found_by_the_next_run(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path / "state", Run("aaaaaaaa", 5), PLACE)
    journal.note(A)
    journal.note(B)
    (found,) = unfinished(tmp_path / "state")
    assert (found.run, found.place, found.created()) == (Run("aaaaaaaa", 5), PLACE, [A, B])
    assert journal.path.stat().st_mode & 0o777 == 0o600
    found.end()
    assert list(unfinished(tmp_path / "state")) == []
    found.end()  # twice is as good


def test_half_a_line_is_as_none(tmp_path: Path) -> None:
    """The run was killed while it wrote, so it created nothing by that name."""
    journal = Journal.begin(tmp_path, Run("aaaaaaaa", 5), PLACE)
    journal.note(A)
    whole = journal.path.read_bytes()
    for cut in range(len(whole) - 40, len(whole)):
        journal.path.write_bytes(whole[:cut])
        assert journal.created() in ([], [A])
    journal.path.write_bytes(whole[:10])
    assert list(unfinished(tmp_path)) == []


def test_the_oldest_run_comes_first_and_other_files_are_none(tmp_path: Path) -> None:
    for name, began in (("bbbbbbbb", 9), ("aaaaaaaa", 5), ("cccccccc", 7)):
        Journal.begin(tmp_path, Run(name, began), PLACE)
    (tmp_path / "other.jsonl").write_text("not JSON\n[1]\n")
    assert [each.run.began for each in unfinished(tmp_path)] == [5, 7, 9]
    assert list(unfinished(tmp_path / "not there")) == []


def test_without_a_journal_nothing_is_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be made"):
        Journal.begin(tmp_path / "file" / "state", Run("aaaaaaaa", 5), PLACE)
    journal = Journal.begin(tmp_path / "state", Run("aaaaaaaa", 5), PLACE)
    journal.path.unlink()
    journal.path.mkdir()
    with pytest.raises(JournalError, match="cannot be written"):
        journal.note(A)


def test_where_it_is(tmp_path: Path) -> None:
    assert folder({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "notebook-ssh-verify"
    assert folder({}).parts[-3:] == (".local", "state", "notebook-ssh-verify")
