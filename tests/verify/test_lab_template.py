"""lab.yaml: what a run creates for its experiments is named after it, is for nobody else, and costs next to nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse
from support.verification import TEMPLATE

LAB: dict[str, Any] = yaml_parse(TEMPLATE.read_text("utf-8"))
RESOURCES: dict[str, Any] = LAB["Resources"]

WITHOUT_HOURLY_COST = {
    "AWS::EC2::SecurityGroup",
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "AWS::SSM::Parameter",
}

OF_A_SERVICE = {"NotebookRole"}
"""Roles that a service assumes; all others are for sessions of the account itself."""

ACCOUNT = {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}
OF_THE_RUN = ("${Prefix}", "${Id}", "aws:ResourceTag/nbssh-verify-run")
"""How a statement says that it is about what belongs to the run."""


def roles() -> dict[str, Any]:
    return {name: each["Properties"] for name, each in RESOURCES.items() if each["Type"] == "AWS::IAM::Role"}


def allowed(role: Any) -> Iterator[Any]:
    for policy in role.get("Policies", ()):
        yield from (each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Allow")


def test_nothing_costs_by_the_hour() -> None:
    assert {each["Type"] for each in RESOURCES.values()} <= WITHOUT_HOURLY_COST


def test_every_name_that_is_given_is_the_runs() -> None:
    names = [
        value
        for each in RESOURCES.values()
        for key, value in each["Properties"].items()
        if key in ("QueueName", "Name", "LogGroupName", "RoleName", "BucketName", "GroupName")
    ]
    assert names
    assert [name for name in names if not json.dumps(name).count("Prefix")] == []


@pytest.mark.parametrize("name", sorted(roles().keys() - OF_A_SERVICE))
def test_a_role_is_for_the_account_and_for_what_is_the_runs(name: str) -> None:
    role = roles()[name]
    assert [each["Principal"] for each in role["AssumeRolePolicyDocument"]["Statement"]] == [ACCOUNT]
    for statement in allowed(role):
        assert statement["Action"] not in ("*", ["*"])
        assert any(word in json.dumps(statement) for word in OF_THE_RUN), statement["Sid"]


def test_the_queue_takes_events_of_its_own_rules_alone() -> None:
    rules = {name for name, each in RESOURCES.items() if each["Type"] == "AWS::Events::Rule"}
    (statement,) = RESOURCES["EventQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    sources = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert {each["Fn::GetAtt"][0] for each in sources} == rules
