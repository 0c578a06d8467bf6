"""What an event says we should look at. An event is never believed beyond that (docs/architecture.md, "Level-triggered").

Events come best effort: repeated, late, out of order or not at all. So nothing is read from them but names.
Shapes: events/*.json, each with where it is documented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from notebook_ssh.model.record import is_notebook_name
from notebook_ssh.model.spec import status_keys
from notebook_ssh.triggers.correlation import FIELD


@dataclass(frozen=True, slots=True)
class ReconcileNotebook:
    """name: as written in the event; from an ARN it is in lower case, whatever the real one is.

    at: not before this time (epoch seconds) is there anything to see; 0: at once.
    """

    name: str
    reason: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class ReconcileLifecycleConfig:
    """A lifecycle configuration, by name (or by lower-cased name, from an ARN).

    changed: when the change that the event tells of was made (`LastModifiedTime`, epoch milliseconds); 0: nobody says.
    """

    name: str
    reason: str
    changed: int = 0


@dataclass(frozen=True, slots=True)
class LookAtFleet:
    """Everything: the schedule's turn."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing to look at."""

    reason: str


ReconcileRequest = ReconcileNotebook | ReconcileLifecycleConfig | LookAtFleet | Ignore

_ARN = re.compile(
    r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:(notebook-instance|notebook-instance-lifecycle-config)/([A-Za-z0-9-]{1,63})"
)
_UNSAYABLE = re.compile(r"[^ -~]")


def parse_event(event: object, *, tag_key: str, caller: str = "") -> tuple[ReconcileRequest, ...]:
    """What to look at because of `event`: an EventBridge event or a message of our own. At least one signal, never an error.

    caller: the session name of our own calls as CloudTrail shows it (in Lambda, the function's name).
    """
    if not isinstance(event, Mapping):
        return (Ignore("not an event"),)
    if "request" in event:
        return (_own_message(event),)
    kind, detail = event.get("detail-type"), event.get("detail")
    detail = detail if isinstance(detail, Mapping) else {}
    match kind:
        case "Scheduled Event":
            return (LookAtFleet("schedule"),)
        case "SageMaker Notebook Instance State Change":
            return (_state_change(event, detail),)
        case "SageMaker Notebook Lifecycle Config State Change":
            return (_configuration_change(event, detail),)
        case "Tag Change on Resource":
            return _tag_change(event, detail, tag_key)
        case "AWS API Call via CloudTrail":
            return _api_call(detail, tag_key, caller)
    return (Ignore(f"no event of ours: {_said(kind, 60)}"),)


def merge(
    requests: Sequence[ReconcileNotebook | ReconcileLifecycleConfig],
) -> ReconcileNotebook | ReconcileLifecycleConfig:
    """One look in the place of several at the same thing."""
    first = requests[0]
    if isinstance(first, ReconcileNotebook):
        return first
    changes = [request.changed for request in requests if isinstance(request, ReconcileLifecycleConfig)]
    return replace(first, changed=max(changes) if all(changes) else 0)


def to_message(
    request: ReconcileNotebook | ReconcileLifecycleConfig, now: int, correlation_id: str
) -> tuple[dict[str, object], int]:
    """The message to ourselves that `parse_event` reads as `look`, and the seconds to hold it back.

    correlation_id: the ids of the signals that it is sent because of (triggers/correlation.py).
    """
    match request:
        case ReconcileNotebook(name, reason, at):
            message: dict[str, object] = {"request": {"notebook": name}, "reason": reason, FIELD: correlation_id}
            return message | ({"at": at} if at else {}), max(0, at - now)
        case ReconcileLifecycleConfig(name, reason):
            return {"request": {"lifecycle_config": name}, "reason": reason, FIELD: correlation_id}, 0


def _own_message(message: Mapping[Any, Any]) -> ReconcileRequest:
    what, reason, at = message["request"], _said(message.get("reason", ""), 100), message.get("at", 0)
    match what:
        case {"notebook": str(name)} if is_notebook_name(name):
            return ReconcileNotebook(name, reason, at if isinstance(at, int) else 0)
        case {"lifecycle_config": str(name)} if is_notebook_name(name):
            return ReconcileLifecycleConfig(name, reason)
        case "fleet":
            return LookAtFleet(reason)
    return Ignore("a message that names neither notebook nor configuration")


def _said(text: object, most: int) -> str:
    """What an event says, as it can stand in a log: at most so many characters, and none that a terminal obeys."""
    return _UNSAYABLE.sub("?", str(text)[:most])


def _state_change(event: Mapping[Any, Any], detail: Mapping[Any, Any]) -> ReconcileRequest:
    reason = f"state {_said(detail.get('NotebookInstanceStatus', 'unknown'), 20)}"
    return _named(detail.get("NotebookInstanceName"), ReconcileNotebook, reason) or _first(event, reason)


def _configuration_change(event: Mapping[Any, Any], detail: Mapping[Any, Any]) -> ReconcileRequest:
    reason = "configuration changed"
    name, changed = detail.get("NotebookInstanceLifecycleConfigName"), detail.get("LastModifiedTime")
    request = _named(name, ReconcileLifecycleConfig, reason)
    if isinstance(request, ReconcileLifecycleConfig) and type(changed) is int:
        return replace(request, changed=changed)
    return request or _first(event, reason)


def _tag_change(event: Mapping[Any, Any], detail: Mapping[Any, Any], tag_key: str) -> tuple[ReconcileRequest, ...]:
    # Documented: "Tag change events on AWS resources". `version` may come as a float; it is not needed.
    keys = detail.get("changed-tag-keys")
    if _irrelevant(keys, tag_key):
        return (Ignore("no tag of ours changed"),)
    return _arns(event.get("resources"), "tags changed")


def _api_call(detail: Mapping[Any, Any], tag_key: str, caller: str) -> tuple[ReconcileRequest, ...]:
    if detail.get("errorCode"):
        return (Ignore("the call failed"),)
    if caller and _session_of(detail) == caller:
        return (Ignore("our own call"),)
    call = _said(detail.get("eventName", ""), 60)
    given = _lower_camel(detail.get("requestParameters"))
    reason = f"call {call}"
    if call in _TAGGING:
        if _irrelevant(_TAGGING[call](given), tag_key):
            return (Ignore("no tag of ours changed"),)
        return _arns(given.get("resourceArn") or given.get("resourceARNList"), reason)
    if "LifecycleConfig" in call:
        signal = _named(given.get("notebookInstanceLifecycleConfigName"), ReconcileLifecycleConfig, reason)
    else:
        signal = _named(given.get("notebookInstanceName"), ReconcileNotebook, reason)
    return (signal or Ignore(f"the call {call} names nothing of ours"),)


def _lower_camel(given: object) -> dict[str, Any]:
    """Parameters of a call under their names in lowerCamelCase. UNCONFIRMED how CloudTrail spells them here."""
    if not isinstance(given, Mapping):
        return {}
    return {name[:1].lower() + name[1:]: value for name, value in given.items() if isinstance(name, str)}


def _keys_of_list(given: Mapping[Any, Any]) -> object:
    tags = given.get("tags")
    return [_lower_camel(tag).get("key") for tag in tags] if isinstance(tags, list) else None


def _keys_of_map(given: Mapping[Any, Any]) -> object:
    tags = given.get("tags")
    return list(tags) if isinstance(tags, Mapping) else None


_TAGGING: dict[str, Callable[[Mapping[Any, Any]], object]] = {
    "AddTags": _keys_of_list,
    "DeleteTags": lambda given: given.get("tagKeys"),
    "TagResources": _keys_of_map,
    "UntagResources": lambda given: given.get("tagKeys"),
}
"""How each tagging call names the keys. UNCONFIRMED for SageMaker: an unknown shape counts as ours."""


def _irrelevant(keys: object, tag_key: str) -> bool:
    """True when the keys are known, and none is one that people write. Not knowing them, we look."""
    if not isinstance(keys, Sequence) or isinstance(keys, str) or not keys:
        return False
    ours = status_keys(tag_key)
    return all(
        isinstance(key, str) and (key in ours or not (key == tag_key or key.startswith(f"{tag_key}-"))) for key in keys
    )


def _session_of(detail: Mapping[Any, Any]) -> str:
    who = detail.get("userIdentity")
    if not isinstance(who, Mapping) or who.get("type") != "AssumedRole":
        return ""
    return str(who.get("arn", "")).rpartition("/")[2]


def _named(
    name: object, factory: type[ReconcileNotebook] | type[ReconcileLifecycleConfig], reason: str
) -> ReconcileNotebook | ReconcileLifecycleConfig | None:
    return factory(name, reason) if isinstance(name, str) and is_notebook_name(name) else None


def _first(event: Mapping[Any, Any], reason: str) -> ReconcileRequest:
    return _arns(event.get("resources"), reason)[0]


def _arns(arns: object, reason: str) -> tuple[ReconcileRequest, ...]:
    """One signal for each ARN of a notebook or a lifecycle configuration; others are passed over."""
    texts = [arns] if isinstance(arns, str) else arns if isinstance(arns, list) else []
    signals: list[ReconcileRequest] = []
    for text in texts:
        arn = _ARN.fullmatch(text) if isinstance(text, str) else None
        if arn:
            factory = ReconcileNotebook if arn[1] == "notebook-instance" else ReconcileLifecycleConfig
            signals.append(factory(arn[2], reason))
    return tuple(signals) or (Ignore("no notebook and no configuration named"),)
