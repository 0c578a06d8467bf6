"""The events that SageMaker's changes, and calls to KMS, cause on the account's event bus, in the shapes that AWS sends.

Which of the two kinds of tag event the real service emits for notebooks could not be confirmed, so a run chooses with
which it begins: `aws.tag`, `cloudtrail`, `both` or `none` (nothing but the sweep notices). The answers to `tag-events` and
`cloudtrail-shape` (`answers.py`) change that while it runs.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from emulator import answers
from emulator.place import REGION
from emulator.sagemaker import ConfigurationChanged, Happening, StatusChanged, TagsChanged

Emit = Callable[[str, str, dict[str, Any]], None]
"""Puts one PutEvents entry on the default bus of an account and region."""


class TagEvents(StrEnum):
    """Which events a change of tags causes."""

    TAG = "aws.tag"
    CLOUDTRAIL = "cloudtrail"
    BOTH = "both"
    NONE = "none"


def entry_of(happening: Happening) -> dict[str, Any] | None:
    """The PutEvents entry that tells of `happening`, or None when it causes none."""
    match happening:
        case StatusChanged():
            return _status_entry(happening)
        case ConfigurationChanged():
            detail = {
                "NotebookInstanceLifecycleConfigArn": happening.arn,
                "NotebookInstanceLifecycleConfigName": happening.name,
                "LastModifiedTime": _milliseconds(happening.modified),
                "Tags": {},
            }
            return _entry("aws.sagemaker", "SageMaker Notebook Lifecycle Config State Change", happening.arn, detail)
        case TagsChanged():
            return _tag_entry(happening) if answers.of("tag-events") == "emitted" else None


def _status_entry(happening: StatusChanged) -> dict[str, Any]:
    told = (
        "NotebookInstanceArn",
        "NotebookInstanceName",
        "NotebookInstanceStatus",
        "InstanceType",
        "SubnetId",
        "SecurityGroups",
        "RoleArn",
        "NetworkInterfaceId",
        "DirectInternetAccess",
        "FailureReason",
        "NotebookInstanceLifecycleConfigName",
    )
    known = happening.notebook
    detail = {name: known[name] for name in told if name in known}
    detail |= {name: _milliseconds(known[name]) for name in ("LastModifiedTime", "CreationTime")}
    detail["Tags"] = dict(known["Tags"])
    return _entry("aws.sagemaker", "SageMaker Notebook Instance State Change", known["NotebookInstanceArn"], detail)


def _tag_entry(happening: TagsChanged) -> dict[str, Any]:
    kind = happening.arn.split(":")[-1].partition("/")[0]
    detail = {
        "changed-tag-keys": list(happening.changed),
        "tags": dict(happening.tags),
        "service": "sagemaker",
        "resource-type": kind,
        "version": _milliseconds(datetime.now(UTC)),
    }
    return _entry("aws.tag", "Tag Change on Resource", happening.arn, detail)


CALL = "AWS API Call via CloudTrail"
"""The detail type of an event by which CloudTrail tells of a call."""

KEY_CALLS: Mapping[str, bool] = {
    "PutKeyPolicy": False,
    "CreateGrant": False,
    "DisableKey": False,
    "ScheduleKeyDeletion": False,
    "Sign": True,
}
"""The calls of KMS that SigningKeyRule watches, and whether each counts as one that reads."""


def cloudtrail_entry(operation: str, parameters: Mapping[str, Any], caller: Mapping[str, Any]) -> dict[str, Any]:
    """The event by which CloudTrail tells of a call to SageMaker.

    operation: as in `X-Amz-Target`. parameters: the request's body. caller: CloudTrail's `userIdentity`.
    """
    detail = {"requestParameters": _spelled(parameters), "readOnly": False}
    return _call_entry("sagemaker", operation, caller, detail)


def key_entry(operation: str, key: str | None, caller: Mapping[str, Any], error: str | None) -> dict[str, Any]:
    """The event by which CloudTrail tells of a call in KEY_CALLS.

    (AWS KMS Developer Guide, "Logging AWS KMS API calls with CloudTrail".) key: its ARN, if there is one. error: the code
    of the refusal.
    """
    detail: dict[str, Any] = {"requestParameters": {"keyId": key}, "readOnly": KEY_CALLS[operation]}
    if key and answers.of("key-in-trail") == "named":
        detail["resources"] = [{"accountId": key.split(":")[4], "type": "AWS::KMS::Key", "ARN": key}]
    if error:
        # As the guide's example of a refusal has it, without the exception's ending.
        detail["errorCode"] = error.replace("AccessDeniedException", "AccessDenied")
    return _call_entry("kms", operation, caller, detail)


def _call_entry(service: str, operation: str, caller: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    detail = {
        "eventVersion": "1.09",
        "eventID": str(uuid.uuid4()),
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": f"{service}.amazonaws.com",
        "eventName": operation,
        "awsRegion": REGION,
        "userIdentity": dict(caller),
        **more,
    }
    return _entry(f"aws.{service}", CALL, None, detail)


def _spelled(parameters: Mapping[str, Any]) -> Any:
    """A request's parameters as CloudTrail writes them."""
    return dict(parameters) if answers.of("cloudtrail-shape") == "as-sent" else _camel(parameters)


def _camel(value: Any) -> Any:
    """The names in lowerCamelCase."""
    match value:
        case dict():
            return {key[:1].lower() + key[1:]: _camel(item) for key, item in value.items()}
        case list():
            return [_camel(item) for item in value]
        case _:
            return value


def _entry(source: str, kind: str, resource: str | None, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Source": source,
        "DetailType": kind,
        "Resources": [resource] if resource else [],
        "Detail": json.dumps(detail, default=str),
    }


def _milliseconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000)
