"""A prefetching read-through cache of the table, for one batch of reconciliations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from notebook_ssh.adapters import backups, codec, deployments
from notebook_ssh.adapters.codec import UnreadableRecordError
from notebook_ssh.adapters.table import CONFIGURATION, COORDINATION, NOTEBOOK, Table
from notebook_ssh.adapters.write_slots import WRITE_SLOT
from notebook_ssh.model.record import Record
from notebook_ssh.planning.observation import Deployment, LifecycleConfigRecord

MAX_AGE_S = 2
"""Seconds after which the cache has expired, and its user reads again."""


class RecordCache:
    """Items of the table as they were at one time.

    An item that was not prefetched is read on first use. All reads are consistent. Every method can raise
    RetryableError; `record` and `config_record` can raise UnreadableRecordError, a subclass of it.
    """

    def __init__(self, table: Table, at: int) -> None:
        self.at = at
        """When reading began (epoch seconds): no item is older."""
        self._table = table
        self._items: dict[tuple[str, str], dict[str, Any] | None] = {}

    def prefetch(self, notebooks: Iterable[str], lifecycle_configs: Iterable[str]) -> None:
        """Read everything about these names in one request, and in another the configurations that the records name."""
        names = list(notebooks)
        keys = [(NOTEBOOK, name.lower()) for name in names]
        common = [(COORDINATION, WRITE_SLOT), (COORDINATION, deployments.DEPLOYMENT)]
        self._read([*common, *keys, *((CONFIGURATION, name) for name in lifecycle_configs)])
        self._read([(CONFIGURATION, name) for name in self._configs_of(names)])

    def is_expired(self, now: int) -> bool:
        """Return whether the cache is too old at a time (epoch seconds)."""
        return now > self.at + MAX_AGE_S

    def is_tearing_down(self) -> bool:
        """Return whether the stack is being deleted."""
        item = self._item(COORDINATION, WRITE_SLOT)
        return bool(item and item.get("tearing_down"))

    def deployment(self) -> Deployment:
        """Return what is recorded of the block that the stack has now."""
        return deployments.decode(self._item(COORDINATION, deployments.DEPLOYMENT))

    def record(self, notebook: str) -> Record | None:
        """Return the record of a notebook (case-insensitive), or None when there is none."""
        item = self._item(NOTEBOOK, notebook.lower())
        return codec.decode_record(item) if item and "name" in item else None

    def config_record(self, lifecycle_config: str) -> LifecycleConfigRecord | None:
        """Return the record of a lifecycle configuration, or None when there is none."""
        item = self._item(CONFIGURATION, lifecycle_config)
        return codec.decode_config_record(item) if item else None

    def save(self, record: LifecycleConfigRecord) -> None:
        """Write the record of a lifecycle configuration."""
        self._items.pop((CONFIGURATION, record.name), None)
        backups.save_config_record(self._table, record)

    def delete(self, lifecycle_config: str) -> None:
        """Delete the record of a lifecycle configuration."""
        self._items.pop((CONFIGURATION, lifecycle_config), None)
        self._table.delete(CONFIGURATION, lifecycle_config)

    def _configs_of(self, notebooks: Iterable[str]) -> Iterator[str]:
        for name in notebooks:
            # An unreadable record is raised when it is used, so that it delays no other notebook of the batch.
            with suppress(UnreadableRecordError):
                record = self.record(name)
                if record and record.lifecycle_config:
                    yield record.lifecycle_config

    def _read(self, keys: Iterable[tuple[str, str]]) -> None:
        unread = [key for key in keys if key not in self._items]
        if unread:
            self._items |= self._table.items_at(unread)

    def _item(self, pk: str, sk: str) -> dict[str, Any] | None:
        if (pk, sk) not in self._items:
            self._items[pk, sk] = self._table.item(pk, sk, consistent=True)
        return self._items[pk, sk]
