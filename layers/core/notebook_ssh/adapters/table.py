"""The table: one item for each notebook, one for each lifecycle configuration that is managed, and the backups.

| pk                 | sk                              | holds                                                   |
|--------------------|---------------------------------|---------------------------------------------------------|
| `notebook`         | the name in lower case          | a `Record`                                              |
| `lifecycle_config` | the configuration's name        | a `LifecycleConfigRecord`                               |
| `backup#<name>`    | the script's SHA-256, 16 digits | a script before the stack changed it (`backups`)        |
| `worker`           | its SHA-256                     | the program of an agent's worker (`workers`)            |
| `access`           | notebook, day and kind          | who was let in (`access_log`)                           |
| `coordination`     | what is coordinated             | the next write slot, a lease, the last rule sync, or |
|                    |                                 | the present block (`deployments`)                       |

`expires` is the table's TTL attribute (epoch seconds). The attributes of records are in `codec`. Parts of a record are
maps, so that each writer replaces its own part in one UpdateItem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from botocore.exceptions import ClientError

from notebook_ssh.adapters import codec
from notebook_ssh.adapters.attributes import item_of, key, to_attribute
from notebook_ssh.adapters.clients import call, client, code_of
from notebook_ssh.adapters.codec import UnreadableRecordError
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.record import Record, Report, Route
from notebook_ssh.model.spec import Mode

NOTEBOOK = "notebook"
CONFIGURATION = "lifecycle_config"
COORDINATION = "coordination"
RULE_SYNC = "bastion"  # its stored name is older than the endpoint

BATCH = 100
"""Most keys of one request (API reference, BatchGetItem)."""
LONGEST_INVOCATION_S = 900
"""Seconds that an invocation lasts at most (Lambda quotas, "Function timeout")."""
TRIES = 3
"""How many times DynamoDB is asked for keys that it left out (API reference, BatchGetItem, `UnprocessedKeys`)."""

CONDITION_FAILED = "ConditionalCheckFailedException"

_ALIAS = re.compile(r"#(\w+)")

_REPORTED = (
    *("boot", "booted_at", "sequence", "received_at", "modes", "phase"),
    *("host", "port", "problem", "sessions", "active_at"),
)
_KEYS = ("keys_own", "keys_central", "authorities")
STATUS = (
    *("name", "spec", "state", "state_since", "started_at", "lifecycle_config", "block_since"),
    *("problem", "failure", "unsupported_platform", "spec_changed_at"),
    *codec.ROUTES,
    *(f"report.{field}" for field in (*_REPORTED, *_KEYS, "connected_since", "phase_since", "paths", "paths_since")),
)
"""The fields of a record on which a status and an address depend."""


class Conflict(NamedTuple):
    """The condition of an update was false, and nothing was written."""

    item: dict[str, Any] | None
    """The item as it is, in plain values; None when there is none."""


class Increment(NamedTuple):
    """A value for `Table.update` that is added to the number stored."""

    by: int


class CountUp(NamedTuple):
    """A value for `Table.update` that is added to the number stored, or to 0 where there is none."""

    by: int


class Once(NamedTuple):
    """A value for `Table.update` that is stored unless the attribute has one."""

    value: Any


class WriteResult(NamedTuple):
    """The outcome of writing a report."""

    written: bool
    record: Record | None
    """The record after the write. When nothing was written: the record that prevented it, None when there is none."""


class Table:
    """The table with a name.

    Every method is one request to DynamoDB, except those that page: `records`, `items`, `items_at`. Every method can
    raise RetryableError, and those that return records UnreadableRecordError, a subclass of it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    # ---- records

    def record(self, name: str, *, consistent: bool = False) -> Record | None:
        """Return the record of the notebook `name` (case-insensitive), or None when there is none."""
        item = self.item(NOTEBOOK, name.lower(), consistent=consistent)
        return codec.decode_record(item) if item and "name" in item else None

    def records(
        self,
        *,
        consistent: bool = False,
        only: Sequence[str] = (),
        on_unreadable: Callable[[UnreadableRecordError], None] | None = None,
    ) -> Iterator[Record]:
        """Yield the record of every notebook, in the order of their names.

        only: the fields wanted, `part.field` within a part; the others have their default.
        on_unreadable: as in `codec.decode_each`: by default an unreadable record is raised after all others.
        """
        paths = [codec.stored_path(path) for path in only]
        items = (item for item in self.items(NOTEBOOK, consistent=consistent, only=paths) if "name" in item)
        return codec.decode_each(items, codec.decode_record, on_unreadable)

    def save_observed(self, record: Record, before: Record | None, *, expires: int | None = None) -> bool:
        """Write the notebook reconciler's part of a record, and leave the other writers' parts unchanged.

        before: the record that this one was made from, None when there was none.
        expires: when the record is deleted, in epoch seconds; None: never.

        Returns False, with nothing written, when another reconciliation has saved the record since `before` was read:
        its results must not be replaced by older ones.
        """
        observed = codec.encode_observed(record)
        written = observed if expires is None else observed | {"expires": expires}
        condition, values = "attribute_not_exists(#observed_at)", {}
        if before is not None:
            condition = "#observed_at = :at_before AND #hash = :hash_before"
            values = {"at_before": before.observed_at, "hash_before": before.observed_hash}
        outcome = self.update(
            NOTEBOOK,
            record.name.lower(),
            set=written,
            remove=[name for name in (*codec.RECONCILER_ATTRIBUTES, "expires") if name not in written],
            condition=condition,
            values=values,
        )
        if isinstance(outcome, Conflict):
            # botocore may have sent this very write twice.
            found = outcome.item or {}
            return {name: found[name] for name in codec.RECONCILER_ATTRIBUTES if name in found} == observed
        return True

    def delete_record(self, record: Record) -> None:
        """Delete a record with all its parts, unless another reconciliation has saved it since it was read."""
        self.delete(
            NOTEBOOK,
            record.name.lower(),
            condition="#observed_at = :at AND #hash = :hash",
            values={"at": record.observed_at, "hash": record.observed_hash},
        )

    def save_heartbeat(self, name: str, role: str, report: Report, *, heard_since: int) -> WriteResult:
        """Write a report that differs from the last one in nothing but its sequence, time and sessions.

        role: name of the role that reports. Only the notebook's own execution role may.
        heard_since: epoch seconds; the last report must have been received after this.
        """
        stored = codec.encode_report(report)
        conditions = {
            "is_newer": "#report.#sequence < :sequence",
            "is_not_stale": "#report.#received_at > :heard_since",
            # `boot` is among these, because `sequence` counts within one boot.
            "is_otherwise_equal": " AND ".join(
                f"#report.#{name} = :{name}" if name in stored else f"attribute_not_exists(#report.#{name})"
                for name in codec.STABLE_ATTRIBUTES
            ),
        }
        compared = {name: stored[name] for name in (*codec.STABLE_ATTRIBUTES, "sequence") if name in stored}
        return self._write_report(
            name,
            role,
            {f"report.{attribute}": value for attribute, value in codec.encode_heartbeat(report).items()},
            conditions,
            {"heard_since": heard_since, **compared},
        )

    def replace_report(self, name: str, role: str, report: Report, before: Report | None) -> WriteResult:
        """Write a report in place of `before`, unless another report was written since.

        role: as in `save_heartbeat`. before: the report that this one was compared with, None when there was none.
        """
        conditions = {"is_first": "attribute_not_exists(#report)"}
        values: dict[str, Any] = {}
        if before is not None:
            conditions = {"replaces_before": "#report.#boot = :boot AND #report.#sequence = :sequence"}
            values = {"boot": before.boot, "sequence": before.sequence}
        return self._write_report(name, role, {"report": codec.encode_report(report)}, conditions, values)

    def _write_report(
        self,
        name: str,
        role: str,
        changes: Mapping[str, Any],
        conditions: dict[str, str],
        values: Mapping[str, Any],
    ) -> WriteResult:
        registered = {"is_registered": "attribute_exists(#name)", "role_matches": "#role = :role"}
        outcome = self.update(
            NOTEBOOK,
            name.lower(),
            set=changes,
            condition=" AND ".join((registered | conditions).values()),
            values={"role": role, **values},
            returns="ALL_NEW",
        )
        written = not isinstance(outcome, Conflict)
        item = outcome.item if isinstance(outcome, Conflict) else outcome
        return WriteResult(written, codec.decode_record(item) if item and "name" in item else None)

    def claim_wake(self, record: Record, now: int) -> bool:
        """Record that the API starts this notebook; False when another request has claimed the start before.

        now: epoch seconds. Two requests in one second may both succeed: SageMaker starts a notebook once.
        """
        is_unclaimed = "attribute_not_exists(#wake_at)" if record.wake_at is None else "#wake_at = :wake_before"
        outcome = self.update(
            NOTEBOOK,
            record.name.lower(),
            set={"wake_at": now},
            # The last alternative: botocore sent this very claim again because its answer was lost.
            condition=f"attribute_exists(#name) AND ({is_unclaimed} OR #wake_at = :now)",
            values={"now": now} | ({} if record.wake_at is None else {"wake_before": record.wake_at}),
        )
        return not isinstance(outcome, Conflict)

    def release_wake(self, record: Record) -> None:
        """Undo `claim_wake` after a start that did not happen."""
        self.update(NOTEBOOK, record.name.lower(), remove=["wake_at"], condition="attribute_exists(#name)")

    def save_route(self, name: str, mode: Mode, route: Route) -> None:
        """Write the rules reconciler's part of a record. A notebook whose record was deleted gets none."""
        attribute = codec.stored_path(f"routes.{mode}")
        self.update(
            NOTEBOOK, name.lower(), set={attribute: codec.encode_route(route)}, condition="attribute_exists(#pk)"
        )

    # ---- coordination

    def needs_admin(self, now: int) -> list[str]:
        """Return what stands in the coordination items that an admin should know of. now: epoch seconds."""
        found: list[str] = []
        for item in self.items(COORDINATION):
            found += item.get("stuck") or []
            if item.get("next", 0) > (now + LONGEST_INVOCATION_S) * 1000:
                found.append("The next write slot is farther ahead than any function could have reserved it.")
        return found

    def last_rule_sync(self) -> int | None:
        """Return when the last complete rule sync began (epoch seconds), or None when there was none."""
        item = self.item(COORDINATION, RULE_SYNC, consistent=True)
        return item["observed_from"] if item else None

    def save_rule_sync(self, observed_from: int, stuck: Sequence[str] = ()) -> None:
        """Record when a complete rule sync began (epoch seconds), and the rules that it could not revoke."""
        self.update(COORDINATION, RULE_SYNC, set={"observed_from": observed_from, "stuck": list(stuck)})

    # ---- items

    def update(
        self,
        pk: str,
        sk: str,
        *,
        set: Mapping[str, Any] | None = None,  # noqa: A002  the word of the expression
        remove: Sequence[str] = (),
        condition: str = "",
        values: Mapping[str, Any] | None = None,
        returns: Literal["NONE", "ALL_NEW", "UPDATED_OLD"] = "NONE",
    ) -> dict[str, Any] | Conflict:
        """Change attributes of one item, and leave the others unchanged. The item is created when it does not exist.

        set: plain values, or `Increment`, `CountUp`, `Once`, by attribute; `part.attribute` within a part that exists.
        remove: attributes to remove.
        condition: a condition expression with `#name` for attributes and `:name` for `values`.
        returns: which attributes to return (API reference, UpdateItem, `ReturnValues`).

        Returns these attributes, or Conflict when the condition was false.
        """
        try:
            response = call(
                client("dynamodb").update_item,
                TableName=self.name,
                Key=key(pk, sk),
                ReturnValues=returns,
                **_expressions(set or {}, remove, condition, values or {}),
            )
        except ClientError as error:
            if code_of(error) != CONDITION_FAILED:
                raise
            found: Any = error.response
            return Conflict(item_of(found["Item"]) if found.get("Item") else None)
        return item_of(response.get("Attributes", {}))

    def delete(self, pk: str, sk: str, *, condition: str = "", values: Mapping[str, Any] | None = None) -> None:
        """Delete one item, if there is one and the condition is true. condition, values: as in `update`."""
        try:
            call(
                client("dynamodb").delete_item,
                TableName=self.name,
                Key=key(pk, sk),
                **_expressions(condition=condition, values=values or {}),
            )
        except ClientError as error:
            if code_of(error) != CONDITION_FAILED:
                raise

    def put(self, pk: str, sk: str, attributes: Mapping[str, Any]) -> None:
        """Write a whole item from plain values, in place of the one that has this key."""
        item = key(pk, sk) | {name: to_attribute(value) for name, value in attributes.items()}
        call(client("dynamodb").put_item, TableName=self.name, Item=item)

    def item(self, pk: str, sk: str, *, consistent: bool = False) -> dict[str, Any] | None:
        """Return one item as plain values, or None."""
        response = call(client("dynamodb").get_item, TableName=self.name, Key=key(pk, sk), ConsistentRead=consistent)
        return item_of(response["Item"]) if "Item" in response else None

    def items_at(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any] | None]:
        """Return the current items with these keys (pk, sk), None for one that does not exist. One request for each 100.

        Raises RetryableError when DynamoDB leaves some out of every answer: what was not read is not absent.
        """
        found: dict[tuple[str, str], dict[str, Any] | None] = dict.fromkeys(keys)
        pending = list(found)
        for start in range(0, len(pending), BATCH):
            for item in self._batch(pending[start : start + BATCH]):
                found[item["pk"], item["sk"]] = item
        return found

    def _batch(self, keys: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        requested: Any = {self.name: {"Keys": [key(pk, sk) for pk, sk in keys], "ConsistentRead": True}}
        for _ in range(TRIES):
            response = call(client("dynamodb").batch_get_item, RequestItems=requested)
            yield from map(item_of, response["Responses"].get(self.name, ()))
            requested = response.get("UnprocessedKeys")
            if not requested:
                return
        raise RetryableError(f"BatchGetItem: {len(requested[self.name]['Keys'])} of {len(keys)} keys were not read")

    def items(self, pk: str, *, consistent: bool = False, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """Yield all items of one partition, page by page. only: the stored attributes wanted, `part.attribute` within a part."""
        optional: dict[str, Any] = {}
        if only:
            names = dict.fromkeys(name for path in only for name in path.split("."))
            optional["ProjectionExpression"] = ", ".join("#" + path.replace(".", ".#") for path in only)
            optional["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        while True:
            page = call(
                client("dynamodb").query,
                TableName=self.name,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": pk}},
                ConsistentRead=consistent,
                **optional,
            )
            yield from map(item_of, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            optional["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _expressions(
    changes: Mapping[str, Any] = MappingProxyType({}),
    removed: Sequence[str] = (),
    condition: str = "",
    values: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the expression parameters of an UpdateItem or DeleteItem. DynamoDB refuses empty and unused ones."""
    update = []
    if changes:
        update.append("SET " + ", ".join(_assignment(path, value) for path, value in changes.items()))
    if removed:
        update.append("REMOVE " + ", ".join(f"#{name}" for name in removed))
    # `name`, `state` and others are reserved words in expressions, so every name has an alias.
    names = [name for path in changes for name in path.split(".")] + [*removed, *_ALIAS.findall(condition)]
    sent = {f":{name}": to_attribute(value) for name, value in values.items()}
    sent |= {_placeholder(path): to_attribute(_operand(value)) for path, value in changes.items()}
    sent |= {_NOTHING: to_attribute(0)} if any(isinstance(value, CountUp) for value in changes.values()) else {}
    parameters = {
        "UpdateExpression": " ".join(update),
        "ConditionExpression": condition,
        "ExpressionAttributeNames": {f"#{name}": name for name in names},
        "ExpressionAttributeValues": sent,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD" if condition else "",
    }
    return {name: value for name, value in parameters.items() if value}


_NOTHING = ":zero"


def _placeholder(path: str) -> str:
    return ":new_" + path.replace(".", "_")


def _operand(value: Any) -> Any:
    match value:
        case Increment(by) | CountUp(by):
            return by
        case Once(stored):
            return stored
    return value


def _assignment(path: str, value: Any) -> str:
    target = "#" + path.replace(".", ".#")
    operand = _placeholder(path)
    match value:
        case Increment():
            operand = f"{target} + {operand}"
        case CountUp():
            operand = f"if_not_exists({target}, {_NOTHING}) + {operand}"
        case Once():
            operand = f"if_not_exists({target}, {operand})"
    return f"{target} = {operand}"
