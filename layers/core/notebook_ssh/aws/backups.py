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

from notebook_ssh.aws.clients import client, transient
from notebook_ssh.aws.table import CONFIGURATION, Table, key, to_attribute
from notebook_ssh.errors import Problem
from notebook_ssh.rules.notebook import Configuration, Kept

KEEP_SECONDS = 90 * 86_400
"""How long copies stay after nobody who uses the configuration asks for SSH any more."""


def all_kept(table: Table) -> Iterator[Kept]:
    """What the table keeps about every configuration that we look after."""
    for item in table.items(CONFIGURATION):
        yield kept_of(item)


def kept_of(item: dict[str, Any]) -> Kept:
    """The entry in a plain item."""
    problem = item.get("problem")
    return Kept(
        name=item["sk"],
        modified=item.get("modified", 0),
        block=item.get("block", ""),
        tried=item.get("tried", ""),
        block_since=item.get("block_since"),
        problem=Problem(problem["code"], problem["message"]) if problem else None,
    )


def keep(table: Table, entry: Kept) -> None:
    """Keep `entry`, in place of what was kept about the configuration before."""
    parts = {name: to_attribute(value) for name, value in asdict(entry).items() if name != "name"}
    _put(table, {**key(CONFIGURATION, entry.name), **parts})


def back_up(table: Table, configuration: Configuration, because: str, now: int) -> None:
    """Keep a copy of the on-start script, byte for byte, with the time and the reason. The other hook is never changed.

    The same script again takes the place of its former copy, so that whoever flips a tag for a day fills no table.
    """
    script = configuration.on_start
    when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(script or b"").hexdigest()
    _put(
        table,
        {
            **key(_partition(configuration.name), digest[:16]),
            "at": to_attribute(when),
            "content": to_attribute(None if script is None else base64.b64encode(script).decode()),
            "sha256": to_attribute(digest),
            "because": to_attribute(because),
        },
    )


def let_backups_end(table: Table, configuration: str, at: int | None) -> None:
    """Let every copy of the configuration's scripts end at `at` (epoch seconds); None: keep them."""
    for item in list(table.items(_partition(configuration))):
        if item.get("expires") != at:
            _update_expiry(table, _partition(configuration), item["sk"], at)


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
        raise (transient(error) or error) from error


def _partition(configuration: str) -> str:
    return f"backup#{configuration}"


def _put(table: Table, item: dict[str, Any]) -> None:
    try:
        client("dynamodb").put_item(TableName=table.name, Item=item)
    except (ClientError, BotoCoreError) as error:
        raise (transient(error) or error) from error
