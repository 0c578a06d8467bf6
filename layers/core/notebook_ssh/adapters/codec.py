"""The stored form of records: the name, the default and the type of every attribute in the table.

Two versions of the stack read one table during a deployment and after a rollback. Therefore:

- Attribute names and defaults are written down here and do not follow the names in the model.
- An attribute that is missing or null has its default. An attribute equal to its default is not stored, except for
  those marked `always`.
- An attribute that this version does not know is ignored when read, and kept when written: writers update their own
  attributes only.
- A value that this version does not know makes its record unreadable (`UnreadableRecordError`), and no other record.

Each `_Attribute` below has the field's name and then the stored one, which differs where it is shorter: the item of a
usual notebook has at most 1,024 bytes, which DynamoDB writes for one write unit (developer guide, "DynamoDB read and
write operations").

The attributes of the other items are in the modules that own them: `backups`, `deployments`, `workers`, `write_slots`,
`lease`, `mail_ledger`, and `Table.save_bastion_sync`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from notebook_ssh.errors import Problem, RetryableError
from notebook_ssh.model.record import (
    BastionRoute,
    Mails,
    Network,
    NotebookState,
    Phase,
    Record,
    RejectedKey,
    Report,
    Restart,
    RestartStep,
)
from notebook_ssh.model.spec import OFF, Mode, NotebookSpec, tag_value

if TYPE_CHECKING:
    from notebook_ssh.planning.observation import LifecycleConfigRecord

T = TypeVar("T")


class UnreadableRecordError(RetryableError):
    """A stored value is not known to this version, for example a mode that a newer version introduced.

    Retryable, because it ends with the deployment or rollback that caused it. A reader of the whole fleet must treat
    it as partial knowledge: the record exists, and nothing may be removed on the assumption that it does not.
    """

    def __init__(
        self, record: str, attribute: str, value: object, security_groups: tuple[str, ...] | None = None
    ) -> None:
        found = (
            "is missing" if value is None else f"is {str(value)[:60]!r}, which this version of the stack does not know"
        )
        super().__init__(f"the record of {record} cannot be read: its attribute {attribute} {found}")
        self.record = record
        """Name of the notebook or lifecycle configuration."""
        self.attribute = attribute
        """Stored name of the attribute, `part.attribute` within a part."""
        self.security_groups = security_groups
        """The notebook's security groups; None if they cannot be read either."""


# ---- shapes ------------------------------------------------------------------------------------


class _UnknownValueError(ValueError):
    """A stored value could not be read. args: path of the attribute, value."""


class _Type(NamedTuple):
    """How one attribute's value is read and written."""

    read: Callable[[Any], Any]
    """Converts the stored value. Raises ValueError or TypeError when this version does not know it."""
    write: Callable[[Any], Any]
    """Converts the field's value to a plain value."""
    shape: _Shape | None = None
    """The parts of the value, when it is a map."""
    plain: type | None = None
    """The type of values that are stored as they are, and need not be converted."""


class _Attribute(NamedTuple):
    field: str
    stored: str
    type: _Type
    default: Any
    """The value when the attribute is missing; REQUIRED when there is none."""
    always: bool = False
    """Whether it is stored even when equal to its default: conditions of updates compare it."""


REQUIRED = object()
"""Marks an attribute without which its part cannot be read. It is always stored."""


class _Shape:
    """The stored form of one dataclass, as a map or as an item."""

    def __init__(self, make: Callable[..., Any], *attributes: _Attribute) -> None:
        self.make = make
        self.attributes = attributes

    def decode(self, stored: Mapping[str, Any]) -> Any:
        """Return the dataclass. Raises _UnknownValueError."""
        values: dict[str, Any] = {}
        # Unpacked, and without a call for the usual values: a sweep decodes every record of the fleet.
        for field, name, kind, default, _ in self.attributes:
            value = stored.get(name)
            if type(value) is kind.plain:
                values[field] = value
                continue
            if value is None and default is not REQUIRED:
                values[field] = default
                continue
            try:
                values[field] = kind.read(value)
            except _UnknownValueError as inner:
                raise _UnknownValueError(f"{name}.{inner.args[0]}", inner.args[1]) from None
            except (ValueError, TypeError, AttributeError):
                raise _UnknownValueError(name, value) from None
        return self.make(**values)

    def encode(self, value: Any) -> dict[str, Any]:
        """Return the attributes to store: all but those that are None or equal to their default."""
        plain: dict[str, Any] = {}
        for attribute in self.attributes:
            part = getattr(value, attribute.field)
            if part is not None and (attribute.always or part != attribute.default):
                plain[attribute.stored] = attribute.type.write(part)
        return plain

    def path(self, fields: Sequence[str]) -> Iterator[str]:
        """Yield the stored name of each field of a path into nested parts. Raises KeyError when there is no such field."""
        by_field = {attribute.field: attribute for attribute in self.attributes}
        attribute = by_field[fields[0]]
        yield attribute.stored
        if fields[1:]:
            if attribute.type.shape is None:
                raise KeyError(fields[1])
            yield from attribute.type.shape.path(fields[1:])


def _exactly(kind: type) -> _Type:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return _Type(read, lambda value: value, plain=kind)


def _enum(kind: type[Enum]) -> _Type:
    return _Type(kind, lambda value: str(value.value))


def _part(shape: _Shape) -> _Type:
    return _Type(shape.decode, shape.encode, shape)


def _list_of(kind: _Type) -> _Type:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError
        return tuple(map(kind.read, value))

    return _Type(read, lambda value: [kind.write(each) for each in value])


def _modes() -> _Type:
    """Modes as the tag has them, `ngrok`, or several words, or `off`.

    A version that knows one mode only reads what this one wrote, and this one what that one wrote: several words are an
    unknown value to it. A list next to the word, for both, made the record of a usual notebook larger than the kilobyte
    of one write unit (tests/functions/test_write_units.py).
    """

    def read(value: Any) -> tuple[Mode, ...]:
        return () if value == OFF else tuple(map(Mode, value.split(" ")))

    return _Type(read, tag_value)


_TEXT, _NUMBER, _FLAG = _exactly(str), _exactly(int), _exactly(bool)
_TEXTS = _list_of(_TEXT)
_MODES = _modes()

_PROBLEM = _Shape(
    Problem,
    _Attribute("code", "code", _TEXT, REQUIRED),
    _Attribute("message", "message", _TEXT, REQUIRED),
)
_SPEC = _Shape(
    NotebookSpec,
    _Attribute("modes", "mode", _MODES, (), always=True),
    _Attribute("ngrok_url", "ngrok_url", _TEXT, None),
    _Attribute("users", "users", _TEXTS, ()),
    _Attribute("until", "until", _NUMBER, None),
    _Attribute("restart", "restart", _FLAG, False),
    _Attribute("wake", "wake", _FLAG, False),
    _Attribute("problem", "problem", _part(_PROBLEM), None),
)
_NETWORK = _Shape(
    Network,
    _Attribute("subnet", "subnet", _TEXT, None),
    _Attribute("security_groups", "groups", _TEXTS, ()),
    _Attribute("interface", "interface", _TEXT, None),
)
_RESTART = _Shape(
    Restart,
    _Attribute("step", "step", _enum(RestartStep), REQUIRED),
    _Attribute("since", "since", _NUMBER, REQUIRED),
    _Attribute("at", "at", _NUMBER, REQUIRED),
)
_MAILS = _Shape(
    Mails,
    _Attribute("sent_at", "sent_at", _NUMBER, 0),
    _Attribute("held", "held", _NUMBER, 0),
    _Attribute("digest_at", "digest_at", _NUMBER, 0),
)
_ROUTE = _Shape(
    BastionRoute,
    _Attribute("open", "open", _FLAG, False, always=True),
    _Attribute("private_ip", "private_ip", _TEXT, None),
    _Attribute("since", "since", _NUMBER, 0),
    _Attribute("problem", "problem", _part(_PROBLEM), None),
)
_REJECTED_KEY = _Shape(
    RejectedKey,
    _Attribute("line", "line", _NUMBER, REQUIRED),
    _Attribute("reason", "reason", _TEXT, REQUIRED),
)
_HEARTBEAT = (
    _Attribute("sequence", "sequence", _NUMBER, REQUIRED),
    _Attribute("received_at", "received_at", _NUMBER, REQUIRED),
    _Attribute("sessions", "sessions", _NUMBER, 0),
    _Attribute("active_at", "active_at", _NUMBER, None),
)
_STABLE = (
    _Attribute("boot", "boot", _TEXT, REQUIRED),
    _Attribute("booted_at", "booted_at", _NUMBER, REQUIRED),
    _Attribute("modes", "mode", _MODES, REQUIRED),
    _Attribute("phase", "phase", _enum(Phase), REQUIRED),
    _Attribute("agent", "agent", _TEXT, ""),
    _Attribute("host", "host", _TEXT, None),
    _Attribute("port", "port", _NUMBER, None),
    _Attribute("host_keys", "host_keys", _TEXTS, ()),
    _Attribute("keys_own", "keys_own", _NUMBER, 0),
    _Attribute("keys_central", "keys_central", _NUMBER, 0),
    _Attribute("rejected", "rejected", _list_of(_part(_REJECTED_KEY)), ()),
    _Attribute("problem", "problem", _part(_PROBLEM), None),
)
_SERVER = (
    _Attribute("connected_since", "connected_since", _NUMBER, None),
    _Attribute("phase_since", "phase_since", _NUMBER, 0),
)
_REPORT = _Shape(Report, *_HEARTBEAT, *_STABLE, *_SERVER)
_OBSERVED = (
    _Attribute("name", "name", _TEXT, REQUIRED),
    _Attribute("arn", "arn", _TEXT, ""),
    _Attribute("created_at", "created", _NUMBER, 0),
    _Attribute("role", "role", _TEXT, "", always=True),
    _Attribute("spec", "spec", _part(_SPEC), NotebookSpec(), always=True),
    _Attribute("state", "state", _enum(NotebookState), NotebookState.STOPPED),
    _Attribute("state_since", "state_since", _NUMBER, 0),
    _Attribute("lifecycle_config", "config", _TEXT, None),
    _Attribute("block_since", "block_since", _NUMBER, None),
    _Attribute("network", "network", _part(_NETWORK), Network()),
    _Attribute("unsupported_platform", "platform", _TEXT, ""),
    _Attribute("problem", "problem", _part(_PROBLEM), None),
    _Attribute("observed_hash", "hash", _TEXT, "", always=True),
    _Attribute("observed_at", "observed_at", _NUMBER, 0, always=True),
    _Attribute("started_at", "started_at", _NUMBER, None),
    _Attribute("attached_config", "attached", _TEXT, None),
    _Attribute("attached_hash", "attached_hash", _TEXT, ""),
    _Attribute("restart", "restart", _part(_RESTART), None),
    _Attribute("planned", "planned", _TEXTS, ()),
    _Attribute("status_tags_at", "tagged_at", _NUMBER, 0),
    _Attribute("status_tags_left", "tags_left", _FLAG, False),
    _Attribute("notified_status", "notified", _TEXT, ""),
    _Attribute("mails", "mails", _part(_MAILS), None),
    _Attribute("spec_changed_at", "spec_changed_at", _NUMBER, None),
    _Attribute("first_connected", "first_connected", _FLAG, False),
)
_RECORD = _Shape(
    Record,
    *_OBSERVED,
    _Attribute("wake_at", "wake_at", _NUMBER, None),
    _Attribute("route", "route", _part(_ROUTE), None),
    _Attribute("report", "report", _part(_REPORT), None),
)
_CONFIG_RECORD = _Shape(
    dict,
    _Attribute("modified", "modified", _NUMBER, 0),
    _Attribute("block", "block", _TEXT, ""),
    _Attribute("tried", "tried", _TEXT, ""),
    _Attribute("block_since", "block_since", _NUMBER, None),
    _Attribute("problem", "problem", _part(_PROBLEM), None),
    _Attribute("replaced_at", "replaced_at", _NUMBER, None),
)

RECONCILER_FIELDS = tuple(attribute.field for attribute in _OBSERVED)
"""The fields of a record that the notebook reconciler writes."""
RECONCILER_ATTRIBUTES = tuple(attribute.stored for attribute in _OBSERVED)
"""Their stored names."""
STABLE_ATTRIBUTES = tuple(attribute.stored for attribute in _STABLE)
"""The stored attributes of a report that are equal in two reports when nothing has changed on the notebook."""
CONFIG_RECORD_ATTRIBUTES = tuple(attribute.stored for attribute in _CONFIG_RECORD.attributes)
"""The stored attributes of a lifecycle configuration's record, without its key."""


# ---- records -----------------------------------------------------------------------------------


def decode_record(item: Mapping[str, Any]) -> Record:
    """Return the record in an item of plain values. Raises UnreadableRecordError."""
    return _decoded(_RECORD, item, item["name"])  # type: ignore[no-any-return]


def encode_record(record: Record) -> dict[str, Any]:
    """Return all attributes of a record as plain values, without those at their default."""
    return _RECORD.encode(record)


def encode_observed(record: Record) -> dict[str, Any]:
    """Return the attributes of a record that the notebook reconciler writes, without those at their default."""
    return {name: value for name, value in _RECORD.encode(record).items() if name in RECONCILER_ATTRIBUTES}


def encode_report(report: Report) -> dict[str, Any]:
    """Return a report as plain values, without those at their default."""
    return _REPORT.encode(report)


def encode_heartbeat(report: Report) -> dict[str, Any]:
    """Return what differs from one report to the next while nothing happens. What is None keeps its last value."""
    values = {attribute.stored: getattr(report, attribute.field) for attribute in _HEARTBEAT}
    return {name: value for name, value in values.items() if value is not None}


def encode_route(route: BastionRoute) -> dict[str, Any]:
    """Return a bastion route as plain values, without those at their default."""
    return _ROUTE.encode(route)


def decode_config_record(item: Mapping[str, Any]) -> LifecycleConfigRecord:
    """Return the record of a lifecycle configuration in an item of plain values. Raises UnreadableRecordError."""
    # Imported here because the lookup, which reads no such record, would load all of planning at its start.
    from notebook_ssh.planning.observation import LifecycleConfigRecord

    return LifecycleConfigRecord(name=item["sk"], **_decoded(_CONFIG_RECORD, item, item["sk"]))


def encode_config_record(record: LifecycleConfigRecord) -> dict[str, Any]:
    """Return the record of a lifecycle configuration as plain values, without its key and those at their default."""
    return _CONFIG_RECORD.encode(record)


def decode_each(
    items: Iterable[Mapping[str, Any]],
    decode: Callable[[Mapping[str, Any]], T],
    on_unreadable: Callable[[UnreadableRecordError], None] | None = None,
) -> Iterator[T]:
    """Yield every item that can be decoded.

    on_unreadable: called with the error of each that cannot. By default the first of these errors is raised at the
    end, after all readable items, so that the caller cannot take them for all there are.
    """
    unreadable: UnreadableRecordError | None = None
    for item in items:
        try:
            value = decode(item)
        except UnreadableRecordError as error:
            if on_unreadable is not None:
                on_unreadable(error)
            unreadable = unreadable or error
        else:
            yield value
    if unreadable is not None and on_unreadable is None:
        raise unreadable


def stored_path(path: str) -> str:
    """Return the stored form of a path of a record's fields: `report.host_keys`, `network.security_groups`.

    Raises KeyError when a record has no such field.
    """
    return ".".join(_RECORD.path(path.split(".")))


def _decoded(shape: _Shape, item: Mapping[str, Any], name: str) -> Any:
    try:
        return shape.decode(item)
    except _UnknownValueError as error:
        attribute, value = error.args
        raise UnreadableRecordError(name, attribute, value, _security_groups(item)) from None


def _security_groups(item: Mapping[str, Any]) -> tuple[str, ...] | None:
    try:
        network: Network = _NETWORK.decode(item.get("network") or {})
    except (_UnknownValueError, AttributeError):
        return None
    return network.security_groups
