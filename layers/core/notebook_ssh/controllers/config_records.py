"""When the record of a lifecycle configuration is written: before its script is touched, and after."""

from __future__ import annotations

from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.controllers.observe import remember
from notebook_ssh.planning.actions import Action
from notebook_ssh.planning.lifecycle_config import includes_change
from notebook_ssh.planning.observation import LifecycleConfig, LifecycleConfigRecord

OWN_WRITES = 100
"""Configurations whose last write is remembered."""

_own_writes: dict[str, LifecycleConfigRecord] = {}
"""Records as this process saved them after a write of its own, the most recent last."""


def forget() -> None:
    """Clear what this process remembers, for tests."""
    _own_writes.clear()


def is_own_write(name: str, changed: int) -> bool:
    """Return whether a change of a configuration (epoch milliseconds) is in what this process last wrote and recorded."""
    return includes_change(changed, _own_writes.get(name))


def record_before(
    before: LifecycleConfigRecord | None,
    after: LifecycleConfigRecord | None,
    actions: tuple[Action, ...],
    cache: RecordCache,
) -> None:
    """Record that this stack changes a configuration, so that the sweep finds it if this process dies before the end."""
    if before is None and after is not None and actions:
        cache.save(LifecycleConfigRecord(after.name))


def record_after(
    before: LifecycleConfigRecord | None,
    after: LifecycleConfigRecord | None,
    written: LifecycleConfig | None,
    cache: RecordCache,
) -> None:
    """Record what a configuration is now. written: as it was read after its script was written, if it was."""
    if written:
        remember(written, cache.at)
        after = after and after._replace(modified=written.modified)
    if after is None and before is not None:
        cache.delete(before.name)
    elif after is not None and after != before:
        cache.save(after)
        if written:
            _own_writes.pop(after.name, None)
            _own_writes[after.name] = after
            if len(_own_writes) > OWN_WRITES:
                del _own_writes[next(iter(_own_writes))]
