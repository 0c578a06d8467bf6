"""Responses to CloudFormation, for a custom resource."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any


def respond(event: Mapping[str, Any], *, success: bool, reason: str) -> None:
    """Send the response to CloudFormation (User Guide, "Custom resource response objects")."""
    body = json.dumps(
        {
            "Status": "SUCCESS" if success else "FAILED",
            "Reason": reason,
            "PhysicalResourceId": event.get("PhysicalResourceId") or f"{event['LogicalResourceId']}-cleanup",
            "StackId": event["StackId"],
            "RequestId": event["RequestId"],
            "LogicalResourceId": event["LogicalResourceId"],
        }
    ).encode()
    # The address comes from CloudFormation itself: a presigned one, of S3. It wants no content type.
    address = event["ResponseURL"]
    request = urllib.request.Request(address, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass
