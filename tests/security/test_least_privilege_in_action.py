"""What the functions are granted against what they do: every call of the simulated fleet, faults and all.

tests/template/test_template_permissions.py reads the same off the source; here it is what really was called.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from simulation.run import Run
from stack import WITH_BASTION, Stack

FUNCTIONS = {
    "notebooks": "ReconcileNotebook",
    "bastion": "ReconcileBastion",
    "sweep": "Sweep",
    "report": "RecordAddress",
    "start": "StartNotebook",
    "lookup": "LookupApi",
}
"""The functions by what the simulation calls their invocations."""

PREFIX = {"resourcegroupstaggingapi": "tag"}
RENAMED = {"sqs:SendMessageBatch": "sqs:SendMessage"}
"""Where IAM has another name than botocore."""

NOT_CALLED = {
    "ReconcileNotebook": {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"},  # Lambda does
    "ReconcileBastion": {
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
        "ec2:CreateTags",  # for the tags that a new rule comes with (Service Authorization Reference)
    },
}
"""Granted, and not for a call of the function's own."""


MOST_RUNS = 200


@cache
def made() -> dict[str, set[str]]:
    """By function, the IAM actions of every call that it made in twenty runs, and in more while a right is unused."""
    found: dict[str, set[str]] = {name: set() for name in FUNCTIONS.values()}
    for seed in range(MOST_RUNS):
        if seed >= 20 and not any(unused(name, found[name]) for name in found):
            break
        run = Run(seed, 1_500)
        run.play()
        for kind, service, method in run.calls:
            action = f"{PREFIX.get(service, service)}:{_operations(service)[method]}"
            found[FUNCTIONS[kind]].add(RENAMED.get(action, action))
    return found


def unused(function: str, called: set[str]) -> set[str]:
    return granted(function) - called - NOT_CALLED.get(function, set())


@cache
def _operations(service: str) -> dict[str, str]:
    names = botocore.session.get_session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


@cache
def granted(function: str) -> set[str]:
    stack = Stack(**WITH_BASTION)
    arn = stack.of_type("AWS::Lambda::Function")[function]["Role"]
    (role,) = (role for name, role in stack.of_type("AWS::IAM::Role").items() if stack.arn(name) == arn)
    statements: list[dict[str, Any]] = [
        statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]
    ]
    given = (statement["Action"] for statement in statements)
    actions = {action for each in given for action in ([each] if isinstance(each, str) else each)}
    return {action for action in actions if not action.startswith("logs:")}


@pytest.mark.parametrize("function", sorted(FUNCTIONS.values()))
def test_no_call_is_made_that_is_not_granted(function: str) -> None:
    assert made()[function]
    assert made()[function] <= granted(function)


@pytest.mark.parametrize("function", sorted(FUNCTIONS.values()))
def test_no_right_is_granted_that_no_run_ever_used(function: str) -> None:
    assert unused(function, made()[function]) == set()
