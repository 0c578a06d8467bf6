"""The access log in the table: one item for each notebook, day and kind of entry, in a partition of its own.

| attribute   | holds                                                                                    |
|-------------|------------------------------------------------------------------------------------------|
| `b_<id>`    | an entry as it began: `who`, `from`, `begin`, of a session `path`, of a certificate `end` |
| `e_<id>`    | when a session ended                                                                     |
| `count`     | entries that were written; those after the last that is kept are in `more`               |
| `notebook`, `kind`, `day`, `expires` | what the item is of, and when it is deleted (TTL)               |

What was written is never overwritten by a report, so that what a notebook has reported is not rewritten there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from notebook_ssh.adapters.attributes import item_of, to_attribute
from notebook_ssh.adapters.clients import call, client, code_of, message_of
from notebook_ssh.adapters.table import Conflict, CountUp, Once, Table
from notebook_ssh.model.access import MOST_OF_A_DAY, Certificate, Session, day_of, expiry

ACCESS = "access"


def save_certificate(table: Table, notebook: str, certificate: Certificate, now: int, days: int) -> None:
    """Write that a certificate is about to be signed. Raises RetryableError; then none may be."""
    entry = {"who": certificate.who, "from": certificate.address, "begin": certificate.begin, "end": certificate.end}
    _save(table, notebook, "certificate", {f"b_{certificate.serial}": entry}, 1, now, days)


def save_sessions(table: Table, notebook: str, sessions: Sequence[Session], more: int, now: int, days: int) -> None:
    """Write what a notebook reports of its sessions, in one request. more: how many it has not kept itself."""
    began = {
        f"b_{each.id}": {"who": each.who, "from": each.address, "path": each.path, "begin": each.begin}
        for each in sessions
    }
    ended = {f"e_{each.id}": each.end for each in sessions if each.end is not None}
    count = sum(not each.known for each in sessions)
    _save(table, notebook, "session", began | ended, count, now, days, more)


def read(table: Table, notebook: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the items of one notebook (case-insensitive), or of all, in no order that matters."""
    condition, values = "pk = :pk", {":pk": ACCESS}
    if notebook is not None:
        condition += " AND begins_with(sk, :notebook)"
        values[":notebook"] = notebook.lower() + "#"
    page: Mapping[str, Any] = {}
    while not page or "LastEvaluatedKey" in page:
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]} if page else {}
        page = call(
            client("dynamodb").query,
            TableName=table.name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues={name: to_attribute(value) for name, value in values.items()},
            **start,
        )
        yield from map(item_of, page["Items"])


def _save(
    table: Table, notebook: str, kind: str, entries: Mapping[str, Any], count: int, now: int, days: int, more: int = 0
) -> None:
    day = day_of(now)
    key = f"{notebook.lower()}#{day}#{kind}"
    fixed = {"notebook": notebook, "kind": kind, "day": day, "expires": expiry(now, days)}
    written = {name: Once(value) for name, value in entries.items()}
    try:
        outcome = table.update(
            ACCESS,
            key,
            set={**fixed, **written, "count": CountUp(count), "more": CountUp(more)},
            condition="attribute_not_exists(#count) OR #count < :most",
            values={"most": MOST_OF_A_DAY},
        )
        full = isinstance(outcome, Conflict)
    except ClientError as error:
        # An item has at most 400 KB (developer guide, "Service quotas"), which a notebook that lies could fill.
        full = code_of(error) == "ValidationException" and "size" in message_of(error)
        if not full:
            raise
    if full:
        table.update(ACCESS, key, set={**fixed, "more": CountUp(count + more)})
