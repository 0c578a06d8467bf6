"""Every policy of the deployed stack under a policy linter: roles, who may assume them, queues, topic, API, key.

parliament knows each action of IAM, the resources and the condition keys that it takes, and their types. Its
auditors look for privilege escalation, for exposed credentials and for actions that manage permissions.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import pytest
from support.stack import ACCOUNT, PROJECT, WITH_BASTION, Stack

PRINCIPAL = f"arn:aws:iam::{ACCOUNT}:role/people"
OPTIONS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "with a bastion": WITH_BASTION,
    "with everything": {
        **WITH_BASTION,
        "KeyArn": f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/00000000-0000-4000-8000-000000000000",
        "Tracing": "true",
        "AccessLogs": "true",
        "ApiVpcEndpoints": "vpce-0a1b2c3d",
        "NotebookRoleArns": f"arn:aws:iam::{ACCOUNT}:role/notebook",
        "RepositorySecrets": f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:git-AbCdEf",
    },
}

EXCEPTIONS = {
    # The statement grants the new rule alone, because the group is granted under a condition that rules do not have.
    ("ReconcileRulesRole", "NewRules", "RESOURCE_MISMATCH"),
    # A grant on the key of a notebook's volume, which SageMaker makes when it starts one; for AWS's own services alone.
    ("StartNotebookPolicy", "GrantOnKey", "PERMISSIONS_MANAGEMENT_ACTIONS"),
    # The roles of a parameter, which is empty by default; to SageMaker alone.
    ("StartNotebookPolicy", "PassNotebookRoles", "PERMISSIONS_MANAGEMENT_ACTIONS"),
}
"""What the linter says and what stays: policy, statement, finding."""


@cache
def stack(options: str) -> Stack:
    # `*`, the default, is no ARN; what an admin writes there is one.
    people = dict.fromkeys(("LookupPrincipals", "ReportPrincipals", "StartPrincipals"), PRINCIPAL)
    return Stack(**people, **OPTIONS[options])


def statements(options: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement with the resource that it belongs to, as IAM reads it."""
    made = stack(options)
    for name, resource in made.resources.items():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::IAM::Role":
                documents = [policy["PolicyDocument"] for policy in properties["Policies"]]
                for trust in properties["AssumeRolePolicyDocument"]["Statement"]:
                    yield f"{name}, who assumes it", trust | {"Resource": made.arn(name)}
            case "AWS::IAM::ManagedPolicy" | "AWS::SQS::QueuePolicy" | "AWS::SNS::TopicPolicy":
                documents = [properties["PolicyDocument"]]
            case "AWS::ApiGateway::RestApi":
                documents = [properties["Body"]["x-amazon-apigateway-policy"]]
            case _:
                documents = []
        for document in documents:
            for statement in document["Statement"]:
                yield name, _spelt_out(statement, made)


def _spelt_out(statement: dict[str, Any], made: Stack) -> dict[str, Any]:
    """With whole ARNs where API Gateway allows short ones and where CloudFormation's Ref would give one."""
    text = json.dumps(statement)
    text = text.replace('"execute-api:/', f'"arn:aws:execute-api:eu-central-1:{ACCOUNT}:a1b2c3d4e5/')
    text = text.replace("<Api>", "a1b2c3d4e5")
    return dict(json.loads(re.sub(r"<(\w+)>", lambda found: made.arn(found[1]), text)))


@cache
def linter() -> Callable[..., Any]:
    """parliament's, which leaves a file open when it is imported."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        from parliament import analyze_policy_string
    return cast("Callable[..., Any]", analyze_policy_string)


def findings(statement: dict[str, Any]) -> set[str]:
    # The auditors take the right to be assumed for a right to assume.
    trust = statement["Action"] == "sts:AssumeRole"
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    return {finding.issue for finding in linter()(document, include_community_auditors=not trust).findings}


@pytest.mark.parametrize("options", OPTIONS)
def test_the_linter_finds_nothing_but_what_is_justified(options: str) -> None:
    linted = list(statements(options))
    assert len(linted) > 40
    found = {(name, part.get("Sid", ""), issue) for name, part in linted for issue in findings(part)}
    assert found <= EXCEPTIONS


def test_every_exception_is_needed() -> None:
    linted = statements("with everything")
    assert {(name, part.get("Sid", ""), issue) for name, part in linted for issue in findings(part)} == EXCEPTIONS


@pytest.mark.parametrize("options", OPTIONS)
def test_a_service_acts_for_this_stack_or_account_alone(options: str) -> None:
    """Lambda passes no source when it assumes a role; any other service could act for another account (confused deputy)."""
    for name, statement in statements(options):
        service = statement["Principal"].get("Service") if isinstance(statement.get("Principal"), dict) else None
        if service is None or service == "lambda.amazonaws.com":
            continue
        named = {key.lower() for operator in statement.get("Condition", {}).values() for key in operator}
        assert named & {"aws:sourcearn", "aws:sourceaccount"}, name


@pytest.mark.parametrize("options", OPTIONS)
def test_every_policy_of_the_stack_is_among_them(options: str) -> None:
    """Whatever says `Effect` somewhere is linted."""
    text = json.dumps(stack(options).resources)
    assert text.count('"Effect"') == sum(1 for _ in statements(options))


FAULTY: dict[str, dict[str, Any]] = {
    "UNKNOWN_ACTION": {"Action": "sqs:SendMesage"},
    "RESOURCE_MISMATCH": {"Action": "sqs:SendMessage", "Resource": f"arn:aws:sns:eu-central-1:{ACCOUNT}:topic"},
    "UNKNOWN_CONDITION_FOR_ACTION": {"Condition": {"StringEquals": {"dynamodb:LeadingKeys": "x"}}},
    "UNKNOWN_OPERATOR": {"Condition": {"StringEqual": {"aws:SourceAccount": ACCOUNT}}},
    "PERMISSIONS_MANAGEMENT_ACTIONS": {"Action": "iam:PutRolePolicy", "Resource": f"arn:aws:iam::{ACCOUNT}:role/x"},
    "PRIVILEGE_ESCALATION": {"Action": ["iam:PassRole", "ec2:RunInstances"], "Resource": "*"},
}


@pytest.mark.parametrize("issue", FAULTY)
def test_a_fault_would_be_found(issue: str) -> None:
    good = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": f"arn:aws:sqs:eu-central-1:{ACCOUNT}:queue"}
    assert findings(good) == set()
    assert issue in findings(good | FAULTY[issue])


def test_each_star_says_why() -> None:
    """In a comment right above its statement."""
    lines = (PROJECT / "template.yaml").read_text("utf-8").splitlines()
    of_a_policy = re.compile(r'(\b(Resource|Principal|Action): (!Sub )?|- !Sub )"?(arn:|execute-api:|\*)')
    stars = [number for number, line in enumerate(lines) if of_a_policy.search(line) and "*" in line]
    assert len(stars) > 20
    assert [number + 1 for number in stars if not _explained(lines, number)] == []


def _explained(lines: list[str], number: int) -> bool:
    while not re.match(r"\s*- (Sid|Effect)\b", lines[number]):
        number -= 1
    in_condition = re.match(r"\s*- Fn::If:", lines[number - 2])
    return lines[number - (3 if in_condition else 1)].lstrip().startswith("# ")
