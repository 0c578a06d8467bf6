"""Records of lifecycle configurations, and backups of their scripts, in the table.

A backup holds the script as SageMaker stores it (base64), so that an admin can restore it unchanged: docs/operations.md,
"Put a script back". Its attributes: `at` (time, ISO 8601), `content`, `sha256`, `reason`, `expires`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from notebook_ssh.adapters import codec
from notebook_ssh.adapters.codec import UnreadableRecordError
from notebook_ssh.adapters.table import CONFIGURATION, Table
from notebook_ssh.planning.observation import LifecycleConfig, LifecycleConfigRecord

BACKUP_RETENTION_S = 90 * 86_400
"""Seconds for which backups are kept after the last notebook with SSH stopped using the configuration."""


def config_records(
    table: Table, on_unreadable: Callable[[UnreadableRecordError], None] | None = None
) -> Iterator[LifecycleConfigRecord]:
    """Yield the record of every lifecycle configuration that is managed. on_unreadable: as in `codec.decode_each`."""
    return codec.decode_each(table.items(CONFIGURATION), codec.decode_config_record, on_unreadable)


def save_config_record(table: Table, record: LifecycleConfigRecord) -> None:
    """Write the record of a lifecycle configuration."""
    stored = codec.encode_config_record(record)
    absent = [name for name in codec.CONFIG_RECORD_ATTRIBUTES if name not in stored]
    table.update(CONFIGURATION, record.name, set=stored, remove=absent)


def backup_script(table: Table, lifecycle_config: LifecycleConfig, reason: str, now: int) -> None:
    """Store a copy of the on-start script, with the time and the reason. The on-create script is never changed.

    now: epoch seconds. A copy of the same script replaces the earlier one, so that a tag that changes often does not
    fill the table.
    """
    script = lifecycle_config.on_start
    digest = hashlib.sha256(script or b"").hexdigest()
    table.put(
        _partition(lifecycle_config.name),
        digest[:16],
        {
            "at": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "content": None if script is None else base64.b64encode(script).decode(),
            "sha256": digest,
            "reason": reason,
        },
    )


def set_backup_expiry(table: Table, lifecycle_config: str, at: int | None) -> None:
    """Set when all backups of a configuration's scripts expire, in epoch seconds; None: never.

    An end that a copy has already stays, so that each attempt goes on where the one before it ended.
    """
    for item in list(table.items(_partition(lifecycle_config), only=("pk", "sk", "expires"))):
        if at is None and "expires" in item:
            table.update(item["pk"], item["sk"], remove=["expires"])
        elif at is not None and "expires" not in item:
            table.update(item["pk"], item["sk"], set={"expires": at})


def _partition(lifecycle_config: str) -> str:
    return f"backup#{lifecycle_config}"
