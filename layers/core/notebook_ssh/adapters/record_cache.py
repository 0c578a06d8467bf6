"""What the table knows when a batch of looks begins: read for all of them at once, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from notebook_ssh.adapters import backups
from notebook_ssh.adapters.table import CONFIGURATION, COORDINATION, NOTEBOOK, Table, record_of
from notebook_ssh.adapters.write_slots import WRITE_SLOT
from notebook_ssh.model.record import Record
from notebook_ssh.planning.observation import LifecycleConfigRecord

MAX_AGE_S = 2
"""Seconds for which it counts as what is so. Whoever acts on older news looks once more."""


class RecordCache:
    """What is asked for is read when it was not read ahead; reading ahead only saves requests. All reads are consistent.

    at: when reading began (epoch seconds), so that nothing here is older. Every method can raise RetryableError.
    """

    def __init__(self, table: Table, at: int) -> None:
        self.at = at
        self._table = table
        self._items: dict[tuple[str, str], dict[str, Any] | None] = {}

    def prefetch(self, notebooks: Iterable[str], lifecycle_configs: Iterable[str]) -> None:
        """One request for everything about these names, and one for the configurations that the notebooks' records name."""
        names = [(NOTEBOOK, name.lower()) for name in notebooks]
        self._read([(COORDINATION, WRITE_SLOT), *names, *((CONFIGURATION, name) for name in lifecycle_configs)])
        records = (self.record(name) for _, name in names)
        self._read(
            [(CONFIGURATION, record.lifecycle_config) for record in records if record and record.lifecycle_config]
        )

    def is_expired(self, now: int) -> bool:
        """Whether it is time to read again."""
        return now > self.at + MAX_AGE_S

    def is_tearing_down(self) -> bool:
        """Whether the stack is being deleted."""
        item = self._item(COORDINATION, WRITE_SLOT)
        return bool(item and item.get("closed"))

    def record(self, notebook: str) -> Record | None:
        """The record of the notebook (any capitals), or None when there is none."""
        item = self._item(NOTEBOOK, notebook.lower())
        return record_of(item) if item and "name" in item else None

    def config_record(self, lifecycle_config: str) -> LifecycleConfigRecord | None:
        """What is kept about the configuration, or None."""
        item = self._item(CONFIGURATION, lifecycle_config)
        return backups.config_record_of(item) if item else None

    def keep(self, entry: LifecycleConfigRecord) -> None:
        """Keep `entry` in the table, in place of what was kept about the configuration before."""
        self._items.pop((CONFIGURATION, entry.name), None)
        backups.keep(self._table, entry)

    def forget(self, lifecycle_config: str) -> None:
        """Keep nothing about the configuration any more."""
        self._items.pop((CONFIGURATION, lifecycle_config), None)
        self._table.forget(CONFIGURATION, lifecycle_config)

    def _read(self, keys: Iterable[tuple[str, str]]) -> None:
        unread = [key for key in keys if key not in self._items]
        if unread:
            self._items |= self._table.items_at(unread)

    def _item(self, pk: str, sk: str) -> dict[str, Any] | None:
        if (pk, sk) not in self._items:
            self._items[pk, sk] = self._table.item(pk, sk, consistent=True)
        return self._items[pk, sk]
