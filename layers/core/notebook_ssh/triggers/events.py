"""Which resources to reconcile because of an event.

Delivery is best effort: events come repeated, late, out of order or not at all. So only names are read from them, and
every fact from its service (docs/architecture.md, "Level-triggered"). Shapes: events/*.json, each
with where it is documented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from notebook_ssh.model.record import is_notebook_name
from notebook_ssh.model.spec import status_keys
from notebook_ssh.triggers.requests import (
    ReconcileLifecycleConfig,
    ReconcileNotebook,
    ReconcileRequest,
    from_message,
    log_text,
)


@dataclass(frozen=True, slots=True)
class Ignore:
    """There is nothing to reconcile."""

    reason: str


_ARN = re.compile(
    r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:(notebook-instance|notebook-instance-lifecycle-config)/([A-Za-z0-9-]{1,63})"
)


def parse_event(event: object, *, tag_key: str, caller: str = "") -> tuple[ReconcileRequest | Ignore, ...]:
    """Return what to reconcile because of `event`: an EventBridge event or a message of this stack.

    Returns at least one element, and never raises for an unknown event.

    caller: the session name of this stack's own calls in CloudTrail (in Lambda, the function's name).
    """
    if not isinstance(event, Mapping):
        return (Ignore("not an event"),)
    if "request" in event:
        return (from_message(event) or Ignore("a message that names neither notebook nor configuration"),)
    kind, detail = event.get("detail-type"), event.get("detail")
    detail = detail if isinstance(detail, Mapping) else {}
    match kind:
        case "SageMaker Notebook Instance State Change":
            return (_state_change(event, detail),)
        case "SageMaker Notebook Lifecycle Config State Change":
            return (_configuration_change(event, detail),)
        case "Tag Change on Resource":
            return _tag_change(event, detail, tag_key)
        case "AWS API Call via CloudTrail":
            return _api_call(detail, tag_key, caller)
    return (Ignore(f"no event of ours: {log_text(kind, 60)}"),)


def _state_change(event: Mapping[Any, Any], detail: Mapping[Any, Any]) -> ReconcileRequest | Ignore:
    reason = f"state {log_text(detail.get('NotebookInstanceStatus', 'unknown'), 20)}"
    return _named(detail.get("NotebookInstanceName"), ReconcileNotebook, reason) or _first(event, reason)


def _configuration_change(event: Mapping[Any, Any], detail: Mapping[Any, Any]) -> ReconcileRequest | Ignore:
    reason = "configuration changed"
    name, changed = detail.get("NotebookInstanceLifecycleConfigName"), detail.get("LastModifiedTime")
    request = _named(name, ReconcileLifecycleConfig, reason)
    if isinstance(request, ReconcileLifecycleConfig) and type(changed) is int:
        return replace(request, changed=changed)
    return request or _first(event, reason)


def _tag_change(
    event: Mapping[Any, Any], detail: Mapping[Any, Any], tag_key: str
) -> tuple[ReconcileRequest | Ignore, ...]:
    # Documented: "Tag change events on AWS resources". `version` may come as a float; it is not needed.
    keys = detail.get("changed-tag-keys")
    if _irrelevant(keys, tag_key):
        return (Ignore("no tag of ours changed"),)
    return _arns(event.get("resources"), "tags changed")


def _api_call(detail: Mapping[Any, Any], tag_key: str, caller: str) -> tuple[ReconcileRequest | Ignore, ...]:
    if detail.get("errorCode"):
        return (Ignore("the call failed"),)
    if caller and _session_of(detail) == caller:
        return (Ignore("our own call"),)
    call = log_text(detail.get("eventName", ""), 60)
    given = _lower_camel(detail.get("requestParameters"))
    reason = f"call {call}"
    if call in _TAGGING:
        if _irrelevant(_TAGGING[call](given), tag_key):
            return (Ignore("no tag of ours changed"),)
        return _arns(given.get("resourceArn") or given.get("resourceARNList"), reason)
    if "LifecycleConfig" in call:
        request = _named(given.get("notebookInstanceLifecycleConfigName"), ReconcileLifecycleConfig, reason)
    else:
        request = _named(given.get("notebookInstanceName"), ReconcileNotebook, reason)
    return (request or Ignore(f"the call {call} names nothing of ours"),)


def _lower_camel(given: object) -> dict[str, Any]:
    """Return the parameters of a call by their names in lowerCamelCase. UNCONFIRMED(cloudtrail-shape) how CloudTrail spells them here."""
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
"""How to read the tag keys of each tagging call. UNCONFIRMED(cloudtrail-shape) for SageMaker: an unknown shape counts as relevant."""


def _irrelevant(keys: object, tag_key: str) -> bool:
    """Return whether the keys are known and none of them is a user's. Unknown keys count as relevant."""
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
) -> ReconcileRequest | None:
    return factory(name, reason) if isinstance(name, str) and is_notebook_name(name) else None


def _first(event: Mapping[Any, Any], reason: str) -> ReconcileRequest | Ignore:
    return _arns(event.get("resources"), reason)[0]


def _arns(arns: object, reason: str) -> tuple[ReconcileRequest | Ignore, ...]:
    """Return a request for each ARN of a notebook or lifecycle configuration whose tags changed; others are skipped."""
    texts = [arns] if isinstance(arns, str) else arns if isinstance(arns, list) else []
    requests: list[ReconcileRequest] = []
    for text in texts:
        arn = _ARN.fullmatch(text) if isinstance(text, str) else None
        if arn:
            if arn[1] == "notebook-instance":
                requests.append(ReconcileNotebook(arn[2], reason, tags_changed=True))
            else:
                requests.append(ReconcileLifecycleConfig(arn[2], reason))
    return tuple(requests) or (Ignore("no notebook and no configuration named"),)
