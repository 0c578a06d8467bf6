"""Each function may do what it does, and nothing else: granted actions against a reviewed table and against the code."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from stack import PROJECT, WITH_BASTION, Stack

REVIEWED = {
    "ReconcileNotebook": {
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "sagemaker:AddTags",
        "sagemaker:CreateNotebookInstanceLifecycleConfig",
        "sagemaker:DeleteNotebookInstanceLifecycleConfig",
        "sagemaker:DeleteTags",
        "sagemaker:DescribeNotebookInstance",
        "sagemaker:DescribeNotebookInstanceLifecycleConfig",
        "sagemaker:ListNotebookInstanceLifecycleConfigs",
        "sagemaker:ListNotebookInstances",
        "sagemaker:ListTags",
        "sagemaker:StartNotebookInstance",
        "sagemaker:StopNotebookInstance",
        "sagemaker:UpdateNotebookInstance",
        "sagemaker:UpdateNotebookInstanceLifecycleConfig",
        "sqs:SendMessage",
    },
    "ReconcileBastion": {
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "ec2:AuthorizeSecurityGroupEgress",
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:CreateTags",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroupRules",
        "ec2:DescribeSecurityGroups",
        "ec2:RevokeSecurityGroupEgress",
        "ec2:RevokeSecurityGroupIngress",
        "events:PutEvents",
    },
    "Sweep": {
        "dynamodb:Query",
        "sagemaker:ListNotebookInstanceLifecycleConfigs",
        "sagemaker:ListNotebookInstances",
        "sqs:SendMessage",
        "tag:GetResources",
    },
    "RecordAddress": {
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "events:PutEvents",
        "secretsmanager:GetSecretValue",
        "sqs:SendMessage",
        "ssm:GetParametersByPath",
    },
    "StartNotebook": {
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "sagemaker:StartNotebookInstance",
    },
    "LookupApi": {
        "dynamodb:GetItem",
        "dynamodb:Query",
    },
}
"""What each function is trusted with. A new line here is a decision for a review."""

EVERYBODYS = {"logs:CreateLogStream", "logs:PutLogEvents"}
CONSUMERS = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}

IMPLIED = {
    # Tags given at creation need the right to tag (Service Authorization Reference).
    "ec2:CreateTags": "ec2:AuthorizeSecurityGroupIngress",
}

MAY_BE_EVERYWHERE = {
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroupRules",
    "ec2:DescribeSecurityGroups",
    "sagemaker:ListNotebookInstanceLifecycleConfigs",
    "sagemaker:ListNotebookInstances",
    "tag:GetResources",
}
"""Actions that IAM cannot limit to resources (Service Authorization Reference)."""

PREFIX = {"resourcegroupstaggingapi": "tag"}
"""Where IAM's prefix is not the service's name in botocore."""

WITHOUT_ACTION = {"sqs:SendMessageBatch": "sqs:SendMessage"}
"""Operations that IAM knows under another action's name."""


def statements(function: str) -> list[dict[str, Any]]:
    stack = Stack(**WITH_BASTION)
    arn = stack.of_type("AWS::Lambda::Function")[function]["Role"]
    (role,) = (role for name, role in stack.of_type("AWS::IAM::Role").items() if stack.arn(name) == arn)
    assert not role.get("ManagedPolicyArns")
    return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


def actions_of(statement: dict[str, Any]) -> set[str]:
    given = statement["Action"]
    return {given} if isinstance(given, str) else set(given)


def granted(function: str) -> set[str]:
    return {action for statement in statements(function) for action in actions_of(statement)}


@pytest.mark.parametrize("function", sorted(REVIEWED))
def test_what_is_granted_was_reviewed(function: str) -> None:
    consumes = CONSUMERS if function.startswith("Reconcile") else set()
    assert granted(function) == REVIEWED[function] | EVERYBODYS | consumes


def test_every_function_was_reviewed() -> None:
    assert set(Stack().of_type("AWS::Lambda::Function")) == set(REVIEWED)


@pytest.mark.parametrize("function", sorted(REVIEWED))
def test_everything_is_allowed_by_name_on_named_resources(function: str) -> None:
    for statement in statements(function):
        assert statement["Effect"] == "Allow"
        assert not [action for action in actions_of(statement) if "*" in action], statement
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            if resource == "*":
                assert actions_of(statement) <= MAY_BE_EVERYWHERE, statement
            else:
                assert resource.startswith("arn:aws:"), statement
                assert "111122223333" in resource, statement


def test_our_own_tags_are_the_only_ones_we_may_write_or_take_away() -> None:
    written = {
        tuple(statement["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"])
        for statement in statements("ReconcileNotebook")
        if actions_of(statement) & {"sagemaker:AddTags", "sagemaker:DeleteTags"}
    }
    assert written == {
        ("ssh-status", "ssh-address"),
        ("ssh-status", "ssh-address", "ssh-restart"),
        ("notebook-ssh:stack",),
    }


def test_only_the_fallback_configuration_is_created_and_deleted() -> None:
    (resource,) = {
        statement["Resource"]
        for statement in statements("ReconcileNotebook")
        if "sagemaker:DeleteNotebookInstanceLifecycleConfig" in actions_of(statement)
    }
    assert resource.endswith(":notebook-instance-lifecycle-config/better-sagemaker")


def test_rules_are_changed_in_the_bastions_vpc_alone_and_not_at_all_without_one() -> None:
    (statement,) = (
        statement
        for statement in statements("ReconcileBastion")
        if "ec2:RevokeSecurityGroupIngress" in actions_of(statement)
    )
    vpc = WITH_BASTION["BastionVpc"]
    assert statement["Condition"]["ArnEquals"]["ec2:Vpc"] == f"arn:aws:ec2:eu-central-1:111122223333:vpc/{vpc}"
    without = json.dumps(Stack().of_type("AWS::IAM::Role")["ReconcileBastionRole"])
    assert "Revoke" not in without


def test_nobody_but_the_report_reads_the_token() -> None:
    assert [name for name in REVIEWED if "secretsmanager:GetSecretValue" in granted(name)] == ["RecordAddress"]


# What the code calls. Every call to AWS goes through `clients.client("<service>")`, which makes it findable.

ROOTS = (PROJECT / "functions", PROJECT / "layers" / "core")


def file_of(module: str) -> Path | None:
    for root in ROOTS:
        path = root / module.replace(".", "/")
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> Iterator[Path]:
    for node in ast.walk(tree_of(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            found = file_of(name)
            if found:
                yield found


def reachable(path: Path) -> set[Path]:
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting.extend(imported(here))
    return seen


def service_of(node: ast.expr) -> str | None:
    match node:
        case ast.Call(func=ast.Name(id="client"), args=[ast.Constant(value=str(service))]):
            return service
    return None


@cache
def operations_of(service: str) -> dict[str, str]:
    names = botocore.session.get_session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


@cache
def calls_in(path: Path) -> frozenset[str]:
    """The IAM actions of all calls to AWS that stand in the module."""
    found: set[str] = set()
    for scope in ast.walk(tree_of(path)):
        if not isinstance(scope, ast.Module | ast.FunctionDef):
            continue
        held = {
            target.id: service
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and (service := service_of(node.value))
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(scope):
            if not isinstance(node, ast.Attribute):
                continue
            service = service_of(node.value) or (held.get(node.value.id) if isinstance(node.value, ast.Name) else None)
            if service and node.attr in operations_of(service):
                found.add(action_of(service, node.attr))
        for node in ast.walk(scope):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=value, attr="get_paginator" | "get_waiter"),
                    args=[ast.Constant(value=str(operation))],
                ) if service := service_of(value):
                    found.add(action_of(service, operation))
    return frozenset(found)


def action_of(service: str, operation: str) -> str:
    action = f"{PREFIX.get(service, service)}:{operations_of(service)[operation]}"
    return WITHOUT_ACTION.get(action, action)


def handler_of(function: str) -> Path:
    module = Stack().of_type("AWS::Lambda::Function")[function]["Handler"].removesuffix(".handle")
    path = file_of(module)
    assert path
    return path


@pytest.mark.parametrize("function", sorted(REVIEWED))
def test_every_right_is_used_somewhere_in_the_functions_code(function: str) -> None:
    called = {action for path in reachable(handler_of(function)) for action in calls_in(path)}
    unused = {action for action in REVIEWED[function] if action not in called and IMPLIED.get(action) not in called}
    assert not unused


def test_every_call_in_the_code_is_granted_to_somebody() -> None:
    called = {action for root in ROOTS for path in root.rglob("*.py") for action in calls_in(path)}
    assert "dynamodb:GetItem" in called  # or nothing was found at all
    assert called <= set().union(*REVIEWED.values())


def test_every_service_that_is_called_is_in_the_layer_and_every_one_in_the_layer_is_called() -> None:
    import artifact

    named = {
        service
        for root in ROOTS
        for path in root.rglob("*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.expr) and (service := service_of(node))
    }
    assert named == set(artifact.SERVICES)
