"""What the table keeps about configurations: what we last saw of each, and copies of scripts before we changed them.

A copy holds the script as SageMaker takes it (base64), so that a person can put it back as it is:
docs/operations.md, "Put a script back".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, retryable
from notebook_ssh.adapters.table import CONFIGURATION, Table, key, to_attribute
from notebook_ssh.errors import Problem
from notebook_ssh.planning.observation import LifecycleConfig, LifecycleConfigRecord


def config_records(table: Table) -> Iterator[LifecycleConfigRecord]:
    """What the table keeps about every configuration that we look after."""
    for item in table.items(CONFIGURATION):
        yield config_record_of(item)


def config_record_of(item: dict[str, Any]) -> LifecycleConfigRecord:
    """The entry in a plain item."""
    problem = item.get("problem")
    return LifecycleConfigRecord(
        name=item["sk"],
        modified=item.get("modified", 0),
        block=item.get("block", ""),
        tried=item.get("tried", ""),
        block_since=item.get("block_since"),
        problem=Problem(problem["code"], problem["message"]) if problem else None,
    )


def keep(table: Table, entry: LifecycleConfigRecord) -> None:
    """Keep `entry`, in place of what was kept about the configuration before."""
    parts = {name: to_attribute(value) for name, value in asdict(entry).items() if name != "name"}
    _put(table, {**key(CONFIGURATION, entry.name), **parts})


def backup_script(table: Table, lifecycle_config: LifecycleConfig, reason: str, now: int) -> None:
    """Keep a copy of the on-start script, byte for byte, with the time and the reason. The other hook is never changed.

    The same script again takes the place of its former copy, so that whoever flips a tag for a day fills no table.
    """
    script = lifecycle_config.on_start
    when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(script or b"").hexdigest()
    _put(
        table,
        {
            **key(_partition(lifecycle_config.name), digest[:16]),
            "at": to_attribute(when),
            "content": to_attribute(None if script is None else base64.b64encode(script).decode()),
            "sha256": to_attribute(digest),
            "reason": to_attribute(reason),
        },
    )


def set_backup_expiry(table: Table, lifecycle_config: str, at: int | None) -> None:
    """Let every copy of the configuration's scripts end at `at` (epoch seconds); None: keep them."""
    for item in list(table.items(_partition(lifecycle_config))):
        if item.get("expires") != at:
            _update_expiry(table, _partition(lifecycle_config), item["sk"], at)


def _update_expiry(table: Table, pk: str, sk: str, at: int | None) -> None:
    change: dict[str, Any] = (
        {"UpdateExpression": "REMOVE #expires"}
        if at is None
        else {"UpdateExpression": "SET #expires = :at", "ExpressionAttributeValues": {":at": to_attribute(at)}}
    )
    try:
        client("dynamodb").update_item(
            TableName=table.name, Key=key(pk, sk), ExpressionAttributeNames={"#expires": "expires"}, **change
        )
    except (ClientError, BotoCoreError) as error:
        raise (retryable(error) or error) from error


def _partition(lifecycle_config: str) -> str:
    return f"backup#{lifecycle_config}"


def _put(table: Table, item: dict[str, Any]) -> None:
    try:
        client("dynamodb").put_item(TableName=table.name, Item=item)
    except (ClientError, BotoCoreError) as error:
        raise (retryable(error) or error) from error
