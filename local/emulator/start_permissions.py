"""What StartNotebookInstance checks besides itself, while the answer to `start-permissions` is `all`.

These are what StartNotebookPolicy of template.yaml grants for a notebook in a VPC, and iam:PassRole of its role. Keys and
private repositories, for which it grants more, no notebook of the local run has.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.core.router import extract_access_key_id

from emulator import answers, sagemaker
from emulator.moto_services import Handler, Query

START = "SageMaker.StartNotebookInstance"

DESCRIBED = (
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)


def with_start_check(handle: Handler) -> Handler:
    """The SageMaker handler `handle`, which first checks what a start needs besides its own permission."""

    async def checked(method: str, path: str, headers: dict[str, str], body: bytes, query: Query) -> Any:
        if headers.get("x-amz-target") == START and answers.of("start-permissions") == "all":
            refused = _refusal(headers, body)
            if refused:
                return refused
        return await handle(method, path, headers, body, query)

    return checked


def _refusal(headers: dict[str, str], body: bytes) -> Any:
    name = json.loads(body or b"{}").get("NotebookInstanceName")
    known = sagemaker.notebooks(get_account_id(), get_region())
    for notebook in (each for each in known if each.notebook_instance_name == name):
        for action, resource, context in _checks(notebook):
            denied = iam_evaluator.enforce(
                extract_access_key_id(headers),
                action,
                action.partition(":")[0],
                get_region(),
                resource_arn=resource,
                service_context=context,
            )
            if denied:
                return iam_actions.access_denied_response(
                    "sagemaker",
                    action,
                    denied.principal_arn,
                    secrets.token_hex(8),
                    headers=headers,
                    resource_arn=resource,
                )
    return None


def _checks(notebook: sagemaker.Notebook) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Actions, resources and condition keys."""
    yield "iam:PassRole", notebook.role_arn, {"iam:PassedToService": "sagemaker.amazonaws.com"}
    if not notebook.subnet_id:
        return
    head = f"arn:aws:ec2:{get_region()}:{get_account_id()}"
    interface, groups = f"{head}:network-interface/*", [f"{head}:security-group/{each}" for each in _groups(notebook)]
    # The machine is in an account of SageMaker's own.
    machine = f"arn:aws:ec2:{get_region()}:000000000000:instance/*"
    for action, resources in (
        ("ec2:CreateNetworkInterface", [interface, f"{head}:subnet/{notebook.subnet_id}", *groups]),
        ("ec2:AttachNetworkInterface", [interface, machine]),
        ("ec2:ModifyNetworkInterfaceAttribute", [interface, *groups, machine]),
    ):
        yield from ((action, resource, {}) for resource in resources)
    yield from ((action, "*", {}) for action in DESCRIBED)


def _groups(notebook: sagemaker.Notebook) -> list[str]:
    return list(notebook.security_group_ids or [])
