"""What the table knows when a batch of looks begins: read for all of them at once, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from notebook_ssh.aws import backups
from notebook_ssh.aws.pacing import SLOTS
from notebook_ssh.aws.table import CLOCK, CONFIGURATION, NOTEBOOK, Table, record_of
from notebook_ssh.rules.notebook import Kept
from notebook_ssh.rules.record import Record

FRESH = 2
"""Seconds for which it counts as what is so. Whoever acts on older news looks once more."""


class Known:
    """What is asked for is read when it was not read ahead; reading ahead only saves requests. All reads are consistent.

    at: when reading began (epoch seconds), so that nothing here is older. Every method can raise Transient.
    """

    def __init__(self, table: Table, at: int) -> None:
        self.at = at
        self._table = table
        self._items: dict[tuple[str, str], dict[str, Any] | None] = {}

    def read_ahead(self, notebooks: Iterable[str], configurations: Iterable[str]) -> None:
        """One request for everything about these names, and one for the configurations that the notebooks' records name."""
        names = [(NOTEBOOK, name.lower()) for name in notebooks]
        self._read([(CLOCK, SLOTS), *names, *((CONFIGURATION, name) for name in configurations)])
        records = (self.record(name) for _, name in names)
        self._read([(CONFIGURATION, record.configuration) for record in records if record and record.configuration])

    def is_old(self, now: int) -> bool:
        """Whether it is time to read again."""
        return now > self.at + FRESH

    def closed(self) -> bool:
        """Whether the stack is being deleted."""
        item = self._item(CLOCK, SLOTS)
        return bool(item and item.get("closed"))

    def record(self, notebook: str) -> Record | None:
        """The record of the notebook (any capitals), or None when there is none."""
        item = self._item(NOTEBOOK, notebook.lower())
        return record_of(item) if item and "name" in item else None

    def kept(self, configuration: str) -> Kept | None:
        """What is kept about the configuration, or None."""
        item = self._item(CONFIGURATION, configuration)
        return backups.kept_of(item) if item else None

    def keep(self, entry: Kept) -> None:
        """Keep `entry` in the table, in place of what was kept about the configuration before."""
        self._items.pop((CONFIGURATION, entry.name), None)
        backups.keep(self._table, entry)

    def forget(self, configuration: str) -> None:
        """Keep nothing about the configuration any more."""
        self._items.pop((CONFIGURATION, configuration), None)
        self._table.forget(CONFIGURATION, configuration)

    def _read(self, keys: Iterable[tuple[str, str]]) -> None:
        unread = [key for key in keys if key not in self._items]
        if unread:
            self._items |= self._table.items_at(unread)

    def _item(self, pk: str, sk: str) -> dict[str, Any] | None:
        if (pk, sk) not in self._items:
            self._items[pk, sk] = self._table.item(pk, sk, consistent=True)
        return self._items[pk, sk]
