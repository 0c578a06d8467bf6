"""What the functions are granted against what they do: every call of the simulated fleet, faults and all.

Each call is judged as IAM would: action, resource and conditions, by the policies of the template. tests/functions/ run under the same policies (their conftest.py),
tests/template/test_template_permissions.py reads the same off the source, and the local run enforces IAM on a scenario.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import pytest
from simulation.account import BASTION_VPC
from simulation.run import Run
from support.granted import (
    OTHER_VPC,
    VPC,
    AuthorizeRule,
    Request,
    allows,
    authorizations,
    covering,
    operations,
    requests,
)

FUNCTIONS = {
    "notebooks": "ReconcileNotebook",
    "bastion": "ReconcileRules",
    "sweep": "Sweep",
    "report": "RecordAddress",
    "start": "StartNotebook",
    "lookup": "LookupApi",
    "issue": "IssueCertificate",
    "uninstall": "Uninstall",
}
"""The functions by what the simulation calls their invocations."""

EXERCISED = sorted(set(FUNCTIONS.values()) - {"Uninstall"})
"""Whose every grant the runs need. The end of a stack comes too seldom; test_template_permissions.py reads its off the source."""

MOST_RUNS = 200
RARE = (73, 9, 38)
"""Seeds of runs that need a grant which few others need. They come first, or it took seventy runs to need every grant."""

Made = dict[str, set[Request]]
"""By function, what its calls asked of IAM."""


def not_called(grant: AuthorizeRule) -> bool:
    """Granted, and not for a call of the function's own."""
    if grant.sid == "Consume":  # Lambda does, which delivers the queue's messages
        return True
    if grant.sid == "AccessLog":  # which is off in the runs: tests/functions/test_access_log.py
        return True
    # UNCONFIRMED(parameters-by-path) whether GetParametersByPath is checked on the path or on what is below it: both
    # are granted.
    return grant.action == "ssm:GetParametersByPath" and grant.resource.endswith("/*")


class Watched(Run):
    """A run that notes what its calls ask of IAM."""

    def __init__(self, seed: int, made: Made) -> None:
        super().__init__(seed, 1_500)
        self.made = made

    def call(self, service: str, operation: str, **given: Any) -> Any:
        worker = self.baton.current
        if worker is not None:
            in_vpc = self.account.groups.get(given.get("GroupId", "")) == BASTION_VPC
            asked = requests(service, operations(service)[operation], given, VPC if in_vpc else OTHER_VPC)
            self.made[FUNCTIONS[worker.kind]].update(asked)
        return super().call(service, operation, **given)


@cache
def made() -> Made:
    """What was asked in twenty runs, and in more while a grant is unused."""
    found: Made = defaultdict(set)
    for count, seed in enumerate(dict.fromkeys([*RARE, *range(MOST_RUNS)])):
        if count >= 20 and not any(unused(name, found[name]) for name in EXERCISED):
            break
        Watched(seed, found).play()
    return found


def unused(function: str, asked: set[Request]) -> set[AuthorizeRule]:
    used = set().union(*(covering(function, request) for request in asked))
    return {grant for grant in set(authorizations(function)) - used if not not_called(grant)}


@pytest.mark.parametrize("function", sorted(FUNCTIONS.values()))
def test_no_call_is_made_that_is_not_granted(function: str) -> None:
    asked = made()[function]
    assert asked
    assert {request for request in asked if not covering(function, request)} == set()


@pytest.mark.parametrize("function", EXERCISED)
def test_nothing_is_granted_that_no_run_ever_used(function: str) -> None:
    assert {str(grant) for grant in unused(function, made()[function])} == set()


@pytest.mark.parametrize("function", EXERCISED)
def test_any_grant_taken_away_would_be_missed(function: str) -> None:
    """Each used grant alone allows some request that was made: without it the fleet meets a refusal."""
    needed = {next(iter(found)) for each in made()[function] if len(found := covering(function, each)) == 1}
    assert {str(grant) for grant in set(authorizations(function)) - needed if not not_called(grant)} == set()


QUEUE = "arn:aws:sqs:eu-central-1:111122223333:notebook-ssh-NotebookQueue"
MINE = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": QUEUE}


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({}, True),
        ({"Action": "sqs:ReceiveMessage"}, False),
        ({"Resource": QUEUE + "2"}, False),
        ({"Condition": {"StringEquals": {"aws:RequestedRegion": "us-east-1"}}}, False),
        ({"Effect": "Deny"}, False),
    ],
)
def test_iam_evaluates_action_resource_and_condition(change: dict[str, Any], allowed: bool) -> None:
    assert allows(MINE | change, Request("sqs:SendMessage", QUEUE)) is allowed


FORBIDDEN = [
    ("RecordAddress", "dynamodb", "UpdateItem", {"Key": {"pk": {"S": "backup#team"}}}),
    ("RecordAddress", "dynamodb", "DeleteItem", {"Key": {"pk": {"S": "notebook"}}}),
    (
        "LookupApi",
        "dynamodb",
        "Query",
        _a_query := {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "backup#team"}}},
    ),
    ("Sweep", "dynamodb", "Query", _a_query),
    *(
        (
            function,
            "dynamodb",
            "Query",
            {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "access"}}},
        )
        for function in (
            *("LookupApi", "RecordAddress", "IssueCertificate", "ReconcileNotebook", "ReconcileRules"),
            *("StartNotebook", "Sweep", "Uninstall"),
        )
    ),
    ("AccessApi", "dynamodb", "Query", {**_a_query, "ExpressionAttributeValues": {":pk": {"S": "notebook"}}}),
    ("AccessApi", "dynamodb", "UpdateItem", {"Key": {"pk": {"S": "access"}}}),
    ("LookupApi", "dynamodb", "GetItem", {"Key": {"pk": {"S": "access"}}}),
    ("ReconcileNotebook", "dynamodb", "UpdateItem", {"Key": {"pk": {"S": "access"}}}),
    ("ReconcileNotebook", "dynamodb", "DeleteItem", {"Key": {"pk": {"S": "backup#team"}}}),
    ("Uninstall", "dynamodb", "DeleteItem", {"Key": {"pk": {"S": "backup#team"}}}),
    ("ReconcileNotebook", "sagemaker", "AddTags", {"ResourceArn": "a:notebook-instance/x", "Tags": [{"Key": "ssh"}]}),
    ("ReconcileNotebook", "sagemaker", "DeleteTags", {"ResourceArn": "a:notebook-instance/x", "TagKeys": ["ssh"]}),
    (
        "ReconcileNotebook",
        "sagemaker",
        "DeleteNotebookInstanceLifecycleConfig",
        {"NotebookInstanceLifecycleConfigName": "team"},
    ),
    ("ReconcileNotebook", "sagemaker", "DeleteNotebookInstance", {"NotebookInstanceName": "x"}),
    ("StartNotebook", "sagemaker", "StopNotebookInstance", {"NotebookInstanceName": "x"}),
]


@pytest.mark.parametrize(("function", "service", "operation", "given"), FORBIDDEN)
def test_what_a_function_has_no_business_with_is_denied(
    function: str, service: str, operation: str, given: dict[str, Any]
) -> None:
    asked = list(requests(service, operation, given))
    assert any(not covering(function, request) for request in asked)


def test_no_rule_is_changed_in_another_vpc() -> None:
    for operation in ("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"):
        (here, *_), (there, *_) = (
            list(requests("ec2", operation, {"GroupId": "sg-1"}, vpc)) for vpc in (VPC, OTHER_VPC)
        )
        assert covering("ReconcileRules", here)
        assert not covering("ReconcileRules", there)
