"""The table: one item for each notebook, one for each configuration we look after, and the backups.

| pk              | sk                         | holds                                               |
|-----------------|----------------------------|-----------------------------------------------------|
| `notebook`      | the name in lower case     | a `Record`                                          |
| `configuration` | the configuration's name   | what we last saw and wrote there                    |
| `backup#<name>` | the script's SHA-256, cut  | an owner's script, before we changed it             |
| `clock`         | what is paced or claimed   | the next free second, or who holds it until when    |

`expires` is the table's TTL attribute (epoch seconds). Parts of a record are maps, so that each writer
replaces its own part in one UpdateItem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, code_of, retryable
from notebook_ssh.errors import Problem, RetryableError
from notebook_ssh.model.record import (
    BastionRoute,
    Network,
    NotebookState,
    Phase,
    Record,
    RejectedKey,
    Report,
    Restart,
    RestartStep,
)
from notebook_ssh.model.spec import Mode, NotebookSpec

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

NOTEBOOK = "notebook"
CONFIGURATION = "lifecycle_config"
COORDINATION = "coordination"
BASTION_SYNC = "bastion"

BATCH = 100
"""Most keys of one request (BatchGetItem)."""
TRIES = 3
"""How often DynamoDB is asked for keys that it left out (BatchGetItem, `UnprocessedKeys`)."""


def to_attribute(value: Any) -> AttributeValueTypeDef:
    """A plain value (None, bool, int, str, list, tuple, dict) as DynamoDB writes it.

    No bytes and no sets: the packed client sends and answers attributes as they go over the wire (packaging/artifact.py).
    """
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case Enum():
            return {"S": str(value.value)}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case list() | tuple():
            return {"L": [to_attribute(item) for item in value]}
        case dict():
            return {"M": {key: to_attribute(item) for key, item in value.items()}}
    raise TypeError(f"{type(value).__name__} cannot be kept in the table")


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """The plain value of what DynamoDB answers. Numbers are whole: the table holds no others."""
    ((kind, value),) = attribute.items()
    match kind:
        case "NULL":
            return None
        case "N":
            return int(value)
        case "L":
            return [from_attribute(item) for item in value]
        case "M":
            return {key: from_attribute(item) for key, item in value.items()}
        case _:
            return value


def key(pk: str, sk: str) -> dict[str, AttributeValueTypeDef]:
    """The primary key of an item."""
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def item_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A whole item as plain values."""
    return {name: from_attribute(value) for name, value in attributes.items()}


def _problem(part: Mapping[str, Any] | None) -> Problem | None:
    return Problem(code=part["code"], message=part["message"]) if part else None


def _wish(part: Mapping[str, Any]) -> NotebookSpec:
    return NotebookSpec(
        mode=Mode(part["mode"]),
        ngrok_url=part.get("ngrok_url"),
        users=tuple(part.get("users") or ()),
        until=part.get("until"),
        restart=part.get("restart", False),
        wake=part.get("wake", False),
        problem=_problem(part.get("problem")),
    )


def report_of(part: Mapping[str, Any]) -> Report:
    """The report kept in `part`."""
    return Report(
        boot=part["boot"],
        booted_at=part["booted_at"],
        sequence=part["sequence"],
        received_at=part["received_at"],
        mode=Mode(part["mode"]),
        phase=Phase(part["phase"]),
        agent=part.get("agent", ""),
        host=part.get("host"),
        port=part.get("port"),
        host_keys=tuple(part.get("host_keys") or ()),
        keys_own=part.get("keys_own", 0),
        keys_central=part.get("keys_central", 0),
        rejected=tuple(RejectedKey(line["line"], line["reason"]) for line in part.get("rejected") or ()),
        sessions=part.get("sessions", 0),
        active_at=part.get("active_at"),
        problem=_problem(part.get("problem")),
        connected_since=part.get("connected_since"),
        phase_since=part.get("phase_since", 0),
    )


def record_of(item: Mapping[str, Any]) -> Record:
    """The record in a plain item. Parts that were never written have their defaults."""
    network = item.get("network") or {}
    route = item.get("route")
    restart = item.get("restart")
    report = item.get("report")
    return Record(
        name=item["name"],
        arn=item.get("arn", ""),
        role=item.get("role", ""),
        spec=_wish(item["spec"]) if "spec" in item else NotebookSpec(),
        state=NotebookState(item.get("state", NotebookState.STOPPED)),
        state_since=item.get("state_since", 0),
        lifecycle_config=item.get("lifecycle_config"),
        block_since=item.get("block_since"),
        network=Network(
            subnet=network.get("subnet"),
            security_groups=tuple(network.get("security_groups") or ()),
            interface=network.get("interface"),
        ),
        problem=_problem(item.get("problem")),
        observed_hash=item.get("observed_hash", ""),
        observed_at=item.get("observed_at", 0),
        started_at=item.get("started_at"),
        attached_config=item.get("attached_config"),
        attached_hash=item.get("attached_hash", ""),
        restart=Restart(RestartStep(restart["step"]), restart["since"], restart.get("at", item.get("observed_at", 0)))
        if restart
        else None,
        planned=tuple(item.get("planned") or ()),
        status_tags_at=item.get("status_tags_at", 0),
        notified_status=item.get("notified_status", ""),
        spec_changed_at=item.get("spec_changed_at"),
        first_connected=item.get("first_connected", False),
        wake_at=item.get("wake_at"),
        route=BastionRoute(
            open=route["open"],
            private_ip=route.get("private_ip"),
            since=route.get("since", 0),
            problem=_problem(route.get("problem")),
        )
        if route
        else None,
        report=report_of(report) if report else None,
    )


RECONCILER_FIELDS = (
    "name",
    "arn",
    "role",
    "spec",
    "state",
    "state_since",
    "lifecycle_config",
    "block_since",
    "network",
    "problem",
    "observed_hash",
    "observed_at",
    "started_at",
    "attached_config",
    "attached_hash",
    "restart",
    "planned",
    "status_tags_at",
    "notified_status",
    "spec_changed_at",
    "first_connected",
)
"""The attributes that the notebook reconciler owns."""


HEARTBEAT_FIELDS = ("sequence", "received_at", "sessions", "active_at")
"""What differs from one report to the next while nothing happens."""

SERVER_FIELDS = ("connected_since", "phase_since")
"""What the stack adds to a report; not told by the notebook."""

STABLE_FIELDS = tuple(field.name for field in fields(Report) if field.name not in (*HEARTBEAT_FIELDS, *SERVER_FIELDS))
"""What is as it was in a report that is more of the same."""


ALWAYS_WRITTEN = frozenset({"mode", "open", "role", "observed_hash", "observed_at"})
"""What a condition compares, or a version of the stack that wrote all attributes cannot read a record without."""

_DEFAULTS: dict[type, dict[str, Any]] = {
    Report: {field.name: field.default for field in fields(Report) if field.default is not MISSING},
    BastionRoute: asdict(BastionRoute()),
}
_DEFAULTS[Record] = asdict(Record(name="")) | {"report": _DEFAULTS[Report], "route": _DEFAULTS[BastionRoute]}


def encode_sparse(part: Record | Report | BastionRoute) -> dict[str, Any]:
    """`part` as plain values, without those at their default, which `record_of` fills in.

    A record of a usual notebook has less than 1 KB so, and a write of it costs one unit (docs/cost.md).
    """
    return _encode_sparse(asdict(part), _DEFAULTS[type(part)])


def _encode_sparse(part: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _encode_sparse(value, defaults.get(name) or {}) if isinstance(value, dict) else value
        for name, value in part.items()
        if value is not None and (isinstance(value, dict) or name in ALWAYS_WRITTEN or value != defaults.get(name))
    }


_REPORTED = ("boot", "booted_at", "sequence", "received_at", "mode", "phase", "host", "port", "problem")
STATUS = (
    *("name", "spec", "state", "state_since", "started_at", "lifecycle_config", "block_since"),
    *("problem", "spec_changed_at", "route"),
    *(f"report.{field}" for field in (*_REPORTED, "keys_own", "keys_central", "connected_since", "phase_since")),
)
"""The attributes on which a status and an address depend."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a report.

    kept: it was written, and `record` holds it. Otherwise `record` is what stood in the way, None when there is none.
    """

    config_record: bool
    record: Record | None


class Table:
    """The table by name. Every method is one request to DynamoDB, except those that page: `records`, `items`, `items_at`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def record(self, name: str, *, consistent: bool = False) -> Record | None:
        """The record of the notebook `name` (any capitals), or None when there is none. One request."""
        item = self.item(NOTEBOOK, name.lower(), consistent=consistent)
        return record_of(item) if item and "name" in item else None

    def records(self, *, consistent: bool = False, only: Sequence[str] = ()) -> Iterator[Record]:
        """Every notebook's record, in the order of their names. only: as in `items`; the rest is at its default."""
        for item in self.items(NOTEBOOK, consistent=consistent, only=only):
            if "name" in item:
                yield record_of(item)

    def save_observed(self, record: Record, before: Record | None, *, expires: int | None = None) -> bool:
        """Write the notebook reconciler's part of `record`, and leave the other writers' parts alone.

        before: the record that this one was made from, None when there was none. False, with nothing written, when
        another look has saved one since: what it did and noted must not be undone by older news.
        """
        observed = {
            name: to_attribute(value) for name, value in encode_sparse(record).items() if name in RECONCILER_FIELDS
        }
        written = observed if expires is None else observed | {"expires": to_attribute(expires)}
        taken_away = [name for name in (*RECONCILER_FIELDS, "expires") if name not in written]
        # `name`, `state` and others are reserved words in DynamoDB expressions, so all are aliased.
        names = {f"#{name}": name for name in (*written, *taken_away)}
        values = {f":{name}": value for name, value in written.items()}
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in written)
        if taken_away:
            expression += " REMOVE " + ", ".join(f"#{name}" for name in taken_away)
        is_unchanged = "attribute_not_exists(#observed_at)"
        if before is not None:
            is_unchanged = "#observed_at = :at_before AND #observed_hash = :hash_before"
            values |= {
                ":at_before": to_attribute(before.observed_at),
                ":hash_before": to_attribute(before.observed_hash),
            }
        try:
            client("dynamodb").update_item(
                TableName=self.name,
                Key=key(NOTEBOOK, record.name.lower()),
                UpdateExpression=expression,
                ConditionExpression=is_unchanged,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Exception as error:
            if isinstance(error, ClientError) and code_of(error) == "ConditionalCheckFailedException":
                item = cast(Any, error.response).get("Item") or {}
                # Our own write, when botocore had to send it twice.
                return {name: item[name] for name in RECONCILER_FIELDS if name in item} == observed
            raise (retryable(error) or error) from error
        return True

    def save_heartbeat(self, name: str, role: str, report: Report, *, heard_since: int) -> WriteResult:
        """Keep `report` when it is more of the same, in one request.

        heard_since: epoch seconds after which the last report must have come.
        """
        changing = {field: to_attribute(getattr(report, field)) for field in HEARTBEAT_FIELDS}
        encoded = {field: to_attribute(value) for field, value in encode_sparse(report).items()}
        same = {field: encoded.get(field) for field in STABLE_FIELDS}
        conditions = {
            "somebody_tagged_it": "attribute_exists(#name)",
            "the_caller_is_the_notebook": "#role = :role",
            "it_is_newer": "#report.#sequence < :sequence",
            "there_was_no_silence": "#report.#received_at > :heard_since",
            # `boot` is among these, so that `sequence` counts within one boot.
            "all_else_is_as_it_was": " AND ".join(
                f"#report.#{field} = :{field}" if value else f"attribute_not_exists(#report.#{field})"
                for field, value in same.items()
            ),
        }
        return self._keep_report(
            name,
            conditions,
            "SET " + ", ".join(f"#report.#{field} = :{field}" for field in changing),
            names={"#role": "role", "#name": "name"} | {f"#{field}": field for field in (*same, *changing)},
            values={":role": to_attribute(role), ":heard_since": to_attribute(heard_since)}
            | {f":{field}": value for field, value in (same | changing).items() if value},
        )

    def replace_report(self, name: str, role: str, report: Report, before: Report | None) -> WriteResult:
        """Keep `report` in the place of `before`, as `save_heartbeat` does, unless another came in between."""
        names = {"#role": "role", "#name": "name", "#report": "report"}
        values = {":role": to_attribute(role), ":report": to_attribute(encode_sparse(report))}
        conditions = {
            "somebody_tagged_it": "attribute_exists(#name)",
            "the_caller_is_the_notebook": "#role = :role",
        }
        if before is None:
            conditions["it_is_the_first"] = "attribute_not_exists(#report)"
        else:
            conditions["it_replaces_the_one_it_was_compared_with"] = (
                "#report.#boot = :boot AND #report.#sequence = :sequence"
            )
            names |= {"#boot": "boot", "#sequence": "sequence"}
            values |= {":boot": to_attribute(before.boot), ":sequence": to_attribute(before.sequence)}
        return self._keep_report(name, conditions, "SET #report = :report", names=names, values=values)

    def _keep_report(
        self, name: str, conditions: Mapping[str, str], update: str, *, names: dict[str, str], values: dict[str, Any]
    ) -> WriteResult:
        try:
            answer = client("dynamodb").update_item(
                TableName=self.name,
                Key=key(NOTEBOOK, name.lower()),
                UpdateExpression=update,
                ConditionExpression=" AND ".join(conditions.values()),
                ExpressionAttributeNames={"#report": "report"} | names,
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Exception as error:
            if isinstance(error, ClientError) and code_of(error) == "ConditionalCheckFailedException":
                item = item_of(cast(Any, error.response).get("Item") or {})
                return WriteResult(False, record_of(item) if "name" in item else None)
            raise (retryable(error) or error) from error
        return WriteResult(True, record_of(item_of(answer["Attributes"])))

    def claim_wake(self, record: Record, now: int) -> bool:
        """Note that `record`'s notebook is being started for somebody; False when another request was faster."""
        # Or it was this very claim, whose answer was lost, so that botocore sent it again. Two who ask in one second may both
        # have it: SageMaker starts a notebook once.
        nobody_was_faster = (
            "#wake_at = :wake_before" if record.wake_at is not None else "attribute_not_exists(#wake_at)"
        )
        wake_before = {":wake_before": to_attribute(record.wake_at)} if record.wake_at is not None else {}
        try:
            client("dynamodb").update_item(
                TableName=self.name,
                Key=key(NOTEBOOK, record.name.lower()),
                UpdateExpression="SET #wake_at = :now",
                ConditionExpression=f"attribute_exists(#name) AND ({nobody_was_faster} OR #wake_at = :now)",
                ExpressionAttributeNames={"#wake_at": "wake_at", "#name": "name"},
                ExpressionAttributeValues={":now": to_attribute(now), **wake_before},
            )
        except Exception as error:
            if isinstance(error, ClientError) and code_of(error) == "ConditionalCheckFailedException":
                return False
            raise (retryable(error) or error) from error
        return True

    def release_wake(self, record: Record) -> None:
        """Take back `claim_wake` after a start that did not happen."""
        try:
            client("dynamodb").update_item(
                TableName=self.name,
                Key=key(NOTEBOOK, record.name.lower()),
                UpdateExpression="REMOVE #wake_at",
                ConditionExpression="attribute_exists(#name)",
                ExpressionAttributeNames={"#wake_at": "wake_at", "#name": "name"},
            )
        except Exception as error:
            if not (isinstance(error, ClientError) and code_of(error) == "ConditionalCheckFailedException"):
                raise (retryable(error) or error) from error

    def save_route(self, name: str, route: BastionRoute) -> None:
        """Write the bastion reconciler's part. A notebook without a record gets none: it is gone."""
        try:
            client("dynamodb").update_item(
                TableName=self.name,
                Key=key(NOTEBOOK, name.lower()),
                UpdateExpression="SET #route = :route",
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeNames={"#route": "route"},
                ExpressionAttributeValues={":route": to_attribute(encode_sparse(route))},
            )
        except (ClientError, BotoCoreError) as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise (retryable(error) or error) from error

    def last_bastion_sync(self) -> int | None:
        """When the bastion reconciler's last completed look at the whole fleet began (epoch seconds), or None."""
        item = self.item(COORDINATION, BASTION_SYNC, consistent=True)
        return item["observed_from"] if item else None

    def save_bastion_sync(self, observed_from: int) -> None:
        """Remember when a completed look at the whole fleet began."""
        try:
            client("dynamodb").update_item(
                TableName=self.name,
                Key=key(COORDINATION, BASTION_SYNC),
                UpdateExpression="SET observed_from = :observed_from",
                ExpressionAttributeValues={":observed_from": to_attribute(observed_from)},
            )
        except (ClientError, BotoCoreError) as error:
            raise (retryable(error) or error) from error

    def forget(self, pk: str, sk: str) -> None:
        """Delete one item; deleting what is not there is fine."""
        try:
            client("dynamodb").delete_item(TableName=self.name, Key=key(pk, sk))
        except (ClientError, BotoCoreError) as error:
            raise (retryable(error) or error) from error

    def item(self, pk: str, sk: str, *, consistent: bool = False) -> dict[str, Any] | None:
        """One item as plain values, or None."""
        try:
            answer = client("dynamodb").get_item(TableName=self.name, Key=key(pk, sk), ConsistentRead=consistent)
        except Exception as error:
            raise (retryable(error) or error) from error
        return item_of(answer["Item"]) if "Item" in answer else None

    def items_at(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any] | None]:
        """The items with these keys as they are now, None for one that is not there. One request for each 100.

        RetryableError when DynamoDB leaves some out whenever it is asked: what was not read is not absent.
        """
        found: dict[tuple[str, str], dict[str, Any] | None] = dict.fromkeys(keys)
        waiting = list(found)
        for start in range(0, len(waiting), BATCH):
            for item in self._batch(waiting[start : start + BATCH]):
                found[item["pk"], item["sk"]] = item
        return found

    def _batch(self, keys: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        asked: Any = {self.name: {"Keys": [key(pk, sk) for pk, sk in keys], "ConsistentRead": True}}
        for _ in range(TRIES):
            try:
                answer = client("dynamodb").batch_get_item(RequestItems=asked)
            except Exception as error:
                raise (retryable(error) or error) from error
            yield from map(item_of, answer["Responses"].get(self.name, ()))
            asked = answer.get("UnprocessedKeys")
            if not asked:
                return
        raise RetryableError(f"BatchGetItem: {len(asked[self.name]['Keys'])} of {len(keys)} keys were not read")

    def items(self, pk: str, *, consistent: bool = False, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """All items of one partition, page by page. only: the attributes wanted, `part.attribute` within a part."""
        given: dict[str, Any] = {}
        if only:
            # Each name is aliased, because many are reserved words in expressions.
            names = dict.fromkeys(name for path in only for name in path.split("."))
            given["ProjectionExpression"] = ", ".join("#" + path.replace(".", ".#") for path in only)
            given["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        while True:
            try:
                page = client("dynamodb").query(
                    TableName=self.name,
                    KeyConditionExpression="pk = :pk",
                    ExpressionAttributeValues={":pk": {"S": pk}},
                    ConsistentRead=consistent,
                    **given,
                )
            except Exception as error:
                raise (retryable(error) or error) from error
            for attributes in page["Items"]:
                yield item_of(attributes)
            if "LastEvaluatedKey" not in page:
                return
            given["ExclusiveStartKey"] = page["LastEvaluatedKey"]
