"""When the record of a lifecycle configuration is written: before its script is touched, and after."""

from __future__ import annotations

from dataclasses import replace

from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.controllers.observe import remember
from notebook_ssh.planning.actions import Action
from notebook_ssh.planning.observation import LifecycleConfig, LifecycleConfigRecord


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
        after = after and replace(after, modified=written.modified)
    if after is None and before is not None:
        cache.delete(before.name)
    elif after is not None and after != before:
        cache.save(after)
