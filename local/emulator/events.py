"""The events that SageMaker's changes cause on the account's event bus, in the shapes that AWS sends.

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


def cloudtrail_entry(operation: str, parameters: Mapping[str, Any], caller: Mapping[str, Any]) -> dict[str, Any]:
    """The event by which CloudTrail tells of a call to SageMaker.

    operation: as in `X-Amz-Target`. parameters: the request's body. caller: CloudTrail's `userIdentity`.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    detail = {
        "eventVersion": "1.09",
        "eventID": str(uuid.uuid4()),
        "eventTime": now,
        "eventSource": "sagemaker.amazonaws.com",
        "eventName": operation,
        "awsRegion": "us-east-1",
        "userIdentity": dict(caller),
        "requestParameters": _spelled(parameters),
        "readOnly": False,
    }
    return _entry("aws.sagemaker", "AWS API Call via CloudTrail", None, detail)


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
