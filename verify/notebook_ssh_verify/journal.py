"""The journal of a run: a line on this machine before each creation, so that what a run made is found after any end.

One file a run, in `$XDG_STATE_HOME/notebook-ssh-verify` (`~/.local/state/notebook-ssh-verify`), readable by its owner.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from notebook_ssh_verify.ownership import Created, Kind, Run


class Place(NamedTuple):
    """Where a run creates things. endpoint: of AWS, if it is not AWS's own."""

    account: str
    region: str
    endpoint: str = ""


class JournalError(Exception):
    """The journal cannot be written; the message says why. Nothing may be created then."""


def folder(environ: Mapping[str, str]) -> Path:
    """Return where the journals are."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "notebook-ssh-verify"


class Journal:
    """The journal of one run."""

    def __init__(self, path: Path, run: Run, place: Place) -> None:
        self.path, self.run, self.place = path, run, place

    @classmethod
    def begin(cls, where: Path, run: Run, place: Place) -> Self:
        """Create the journal of a new run. Raises JournalError."""
        try:
            where.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise JournalError(f"the folder {where} cannot be made: {error.strerror}") from error
        journal = cls(where / f"{run.id}.jsonl", run, place)
        journal._write({"run": run.id, "began": run.began, **place._asdict()})
        return journal

    @property
    def folder(self) -> Path:
        """Where the run's other files are, such as its SSH key: they go with the journal."""
        return self.path.with_suffix("")

    def note(self, created: Created) -> None:
        """Write down what is about to be created, and return once the disk has it. Raises JournalError."""
        self._write({"kind": created.kind.name, "name": created.name})

    def created(self) -> list[Created]:
        """Return what was written down."""
        found = [line for line in _lines(self.path) if "kind" in line]
        return [Created(Kind[str(line["kind"])], str(line["name"])) for line in found]

    def end(self) -> None:
        """Remove the journal and the run's other files: everything is deleted."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _write(self, line: Mapping[str, object]) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, json.dumps(line).encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error


def unfinished(where: Path) -> Iterator[Journal]:
    """Yield the journals of runs that did not delete everything, the oldest first."""
    found = []
    for path in where.glob("*.jsonl"):
        first = next(iter(_lines(path)), {})
        if {"run", "began", "account", "region"} <= first.keys():
            place = Place(str(first["account"]), str(first["region"]), str(first.get("endpoint", "")))
            found.append(Journal(path, Run(str(first["run"]), int(str(first["began"]))), place))
    yield from sorted(found, key=lambda journal: journal.run.began)


def _lines(path: Path) -> Iterator[dict[str, object]]:
    """Lines that are whole: a run that was killed while it wrote had not created what the line names."""
    for text in path.read_text("utf-8", "replace").splitlines():
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict):
                yield line
