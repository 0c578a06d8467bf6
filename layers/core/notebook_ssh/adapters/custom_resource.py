"""Responses to CloudFormation, for a custom resource."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def respond(
    event: Mapping[str, Any],
    *,
    success: bool,
    reason: str,
    name: str = "cleanup",
    data: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Send the response to CloudFormation (User Guide, "Custom resource response objects").

    name: ends the resource's physical id, which never changes. data: its attributes for `Fn::GetAtt`.
    """
    body = json.dumps(
        {
            "Status": "SUCCESS" if success else "FAILED",
            "Reason": reason,
            "PhysicalResourceId": event.get("PhysicalResourceId") or f"{event['LogicalResourceId']}-{name}",
            "StackId": event["StackId"],
            "RequestId": event["RequestId"],
            "LogicalResourceId": event["LogicalResourceId"],
            "Data": dict(data),
        }
    ).encode()
    # The address comes from CloudFormation itself: a presigned one, of S3. It wants no content type.
    address = event["ResponseURL"]
    request = urllib.request.Request(address, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass
