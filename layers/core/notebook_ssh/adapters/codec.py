"""The stored form of records: the name, the default and the type of every attribute in the table.

Two versions of the stack read one table during a deployment and after a rollback. Therefore:

- Attribute names and defaults are written down here and do not follow the names in the model.
- An attribute that is missing or null has its default. An attribute equal to its default is not stored, except for
  those marked `always`.
- An attribute that this version does not know is ignored when read, and kept when written: writers update their own
  attributes only.
- A value that this version does not know makes its record unreadable (`UnreadableRecordError`), and no other record.

Each `Attribute` below has the field's name and then the stored one, which differs where it is shorter: the item of a
usual notebook has at most 1,024 bytes, which DynamoDB writes for one write unit (developer guide, "DynamoDB read and
write operations").

The attributes of the other items are in the modules that own them: `backups`, `deployments`, `workers`, `write_slots`,
`lease`, `mail_ledger`, and `Table.save_rule_sync`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from notebook_ssh.adapters.shapes import (
    REQUIRED,
    Attribute,
    Shape,
    Type,
    UnknownValueError,
    enum_of,
    exactly,
    list_of,
    part_of,
)
from notebook_ssh.errors import Problem, RetryableError
from notebook_ssh.model.record import (
    ROUTED,
    Endpoint,
    Mails,
    Network,
    NotebookState,
    PathReport,
    Phase,
    Record,
    RejectedKey,
    Report,
    Restart,
    RestartStep,
    Route,
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


def _modes() -> Type:
    """Modes as the tag has them, `ngrok`, or several words, or `off`.

    A version that knows one mode only reads what this one wrote, and this one what that one wrote: several words are an
    unknown value to it. A list next to the word, for both, made the record of a usual notebook larger than the kilobyte
    of one write unit (tests/functions/test_write_units.py).
    """

    def read(value: Any) -> tuple[Mode, ...]:
        return () if value == OFF else tuple(map(Mode, value.split(" ")))

    return Type(read, tag_value)


_TEXT, _NUMBER, _FLAG = exactly(str), exactly(int), exactly(bool)
_TEXTS = list_of(_TEXT)
_MODES = _modes()

_PROBLEM = Shape(
    Problem,
    Attribute("code", "code", _TEXT, REQUIRED),
    Attribute("message", "message", _TEXT, REQUIRED),
)
_SPEC = Shape(
    NotebookSpec,
    Attribute("modes", "mode", _MODES, (), always=True),
    Attribute("ngrok_url", "ngrok_url", _TEXT, None),
    Attribute("users", "users", _TEXTS, ()),
    Attribute("until", "until", _NUMBER, None),
    Attribute("restart", "restart", _FLAG, False),
    Attribute("wake", "wake", _FLAG, False),
    Attribute("problem", "problem", part_of(_PROBLEM), None),
)
_NETWORK = Shape(
    Network,
    Attribute("subnet", "subnet", _TEXT, None),
    Attribute("security_groups", "groups", _TEXTS, ()),
    Attribute("interface", "interface", _TEXT, None),
)
_RESTART = Shape(
    Restart,
    Attribute("step", "step", enum_of(RestartStep), REQUIRED),
    Attribute("since", "since", _NUMBER, REQUIRED),
    Attribute("at", "at", _NUMBER, REQUIRED),
)
_MAILS = Shape(
    Mails,
    Attribute("sent_at", "sent_at", _NUMBER, 0),
    Attribute("held", "held", _NUMBER, 0),
    Attribute("digest_at", "digest_at", _NUMBER, 0),
)
_ENDPOINT = Shape(
    Endpoint,
    Attribute("id", "id", _TEXT, REQUIRED),
    Attribute("dns_name", "dns_name", _TEXT, REQUIRED),
)
_ROUTE = Shape(
    Route,
    Attribute("open", "open", _FLAG, False, always=True),
    Attribute("private_ip", "private_ip", _TEXT, None),
    Attribute("since", "since", _NUMBER, 0),
    Attribute("problem", "problem", part_of(_PROBLEM), None),
    Attribute("endpoint", "endpoint", part_of(_ENDPOINT), None),
)
_ROUTES = tuple(
    # The bastion's is as old as the table; every other has the word of its tag, which no rename in the model changes.
    Attribute("routes", "route" if mode is Mode.BASTION else mode.value, part_of(_ROUTE), None, key=mode)
    for mode in ROUTED
)
_REJECTED_KEY = Shape(
    RejectedKey,
    Attribute("line", "line", _NUMBER, REQUIRED),
    Attribute("reason", "reason", _TEXT, REQUIRED),
)
_PATH = Shape(
    PathReport,
    Attribute("mode", "mode", enum_of(Mode), REQUIRED),
    Attribute("phase", "phase", enum_of(Phase), REQUIRED),
    Attribute("problem", "problem", part_of(_PROBLEM), None),
)
_HEARTBEAT = (
    Attribute("sequence", "sequence", _NUMBER, REQUIRED),
    Attribute("received_at", "received_at", _NUMBER, REQUIRED),
    Attribute("sessions", "sessions", _NUMBER, 0),
    Attribute("active_at", "active_at", _NUMBER, None),
)
_STABLE = (
    Attribute("boot", "boot", _TEXT, REQUIRED),
    Attribute("booted_at", "booted_at", _NUMBER, REQUIRED),
    Attribute("modes", "mode", _MODES, REQUIRED),
    Attribute("phase", "phase", enum_of(Phase), REQUIRED),
    Attribute("agent", "agent", _TEXT, ""),
    Attribute("host", "host", _TEXT, None),
    Attribute("port", "port", _NUMBER, None),
    Attribute("host_keys", "host_keys", _TEXTS, ()),
    Attribute("keys_own", "keys_own", _NUMBER, 0),
    Attribute("keys_central", "keys_central", _NUMBER, 0),
    Attribute("authorities", "authorities", _NUMBER, 0),
    Attribute("unknown_sessions", "unknown", _NUMBER, 0),
    Attribute("rejected", "rejected", list_of(part_of(_REJECTED_KEY)), ()),
    Attribute("problem", "problem", part_of(_PROBLEM), None),
    Attribute("paths", "paths", list_of(part_of(_PATH)), ()),
)
_SERVER = (
    Attribute("connected_since", "connected_since", _NUMBER, None),
    Attribute("phase_since", "phase_since", _NUMBER, 0),
    Attribute("paths_since", "paths_since", list_of(_NUMBER), ()),
)
_REPORT = Shape(Report, *_HEARTBEAT, *_STABLE, *_SERVER)
_OBSERVED = (
    Attribute("name", "name", _TEXT, REQUIRED),
    Attribute("arn", "arn", _TEXT, ""),
    Attribute("created_at", "created", _NUMBER, 0),
    Attribute("role", "role", _TEXT, "", always=True),
    Attribute("spec", "spec", part_of(_SPEC), NotebookSpec(), always=True),
    Attribute("state", "state", enum_of(NotebookState), NotebookState.STOPPED),
    Attribute("state_since", "state_since", _NUMBER, 0),
    Attribute("lifecycle_config", "config", _TEXT, None),
    Attribute("block_since", "block_since", _NUMBER, None),
    Attribute("network", "network", part_of(_NETWORK), Network()),
    Attribute("unsupported_platform", "platform", _TEXT, ""),
    Attribute("failure", "failure", _TEXT, ""),
    Attribute("problem", "problem", part_of(_PROBLEM), None),
    Attribute("observed_hash", "hash", _TEXT, "", always=True),
    Attribute("observed_at", "observed_at", _NUMBER, 0, always=True),
    Attribute("started_at", "started_at", _NUMBER, None),
    Attribute("attached_config", "attached", _TEXT, None),
    Attribute("attached_hash", "attached_hash", _TEXT, ""),
    Attribute("restart", "restart", part_of(_RESTART), None),
    Attribute("planned", "planned", _TEXTS, ()),
    Attribute("status_tags_at", "tagged_at", _NUMBER, 0),
    Attribute("status_tags_left", "tags_left", _FLAG, False),
    Attribute("notified_status", "notified", _TEXT, ""),
    Attribute("mails", "mails", part_of(_MAILS), None),
    Attribute("spec_changed_at", "spec_changed_at", _NUMBER, None),
    Attribute("first_connected", "first_connected", _FLAG, False),
)
_RECORD = Shape(
    Record,
    *_OBSERVED,
    Attribute("wake_at", "wake_at", _NUMBER, None),
    *_ROUTES,
    Attribute("report", "report", part_of(_REPORT), None),
)
_CONFIG_RECORD = Shape(
    dict,
    Attribute("modified", "modified", _NUMBER, 0),
    Attribute("block", "block", _TEXT, ""),
    Attribute("tried", "tried", _TEXT, ""),
    Attribute("block_since", "block_since", _NUMBER, None),
    Attribute("problem", "problem", part_of(_PROBLEM), None),
    Attribute("replaced_at", "replaced_at", _NUMBER, None),
)

RECONCILER_FIELDS = tuple(attribute.field for attribute in _OBSERVED)
"""The fields of a record that the notebook reconciler writes."""
RECONCILER_ATTRIBUTES = tuple(attribute.stored for attribute in _OBSERVED)
"""Their stored names."""
STABLE_ATTRIBUTES = tuple(attribute.stored for attribute in _STABLE)
"""The stored attributes of a report that are equal in two reports when nothing has changed on the notebook."""
ROUTES = tuple(f"{attribute.field}.{attribute.key}" for attribute in _ROUTES)
"""The fields of a record that the rules reconciler writes, one for each mode that needs rules."""
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


def encode_route(route: Route) -> dict[str, Any]:
    """Return a route as plain values, without those at their default."""
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
    """Return the stored form of a path of a record's fields: `report.host_keys`, `routes.bastion.private_ip`.

    Raises KeyError when a record has no such field.
    """
    return ".".join(_RECORD.path(path.split(".")))


def _decoded(shape: Shape, item: Mapping[str, Any], name: str) -> Any:
    try:
        return shape.decode(item)
    except UnknownValueError as error:
        attribute, value = error.args
        raise UnreadableRecordError(name, attribute, value, _security_groups(item)) from None


def _security_groups(item: Mapping[str, Any]) -> tuple[str, ...] | None:
    try:
        network: Network = _NETWORK.decode(item.get("network") or {})
    except (UnknownValueError, AttributeError):
        return None
    return network.security_groups
