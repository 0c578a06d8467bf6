"""Each function may do what it does, and nothing else: granted actions against a reviewed table and against the code."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import calls
import pytest
from botocore import xform_name
from support.stack import WITH_BASTION, WITH_CERTIFICATES, WITH_ENDPOINT, WITH_EVERYTHING, Stack

REVIEWED = {
    "ReconcileNotebook": {
        "dynamodb:BatchGetItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "events:PutEvents",
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
        "sns:Publish",
        "sqs:SendMessage",
    },
    "ReconcileRules": {
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "ec2:AuthorizeSecurityGroupEgress",
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:CreateTags",
        "ec2:DescribeInstanceConnectEndpoints",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroupRules",
        "ec2:DescribeSecurityGroups",
        "ec2:RevokeSecurityGroupEgress",
        "ec2:RevokeSecurityGroupIngress",
        "sqs:SendMessage",
    },
    "Sweep": {
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "sagemaker:ListNotebookInstanceLifecycleConfigs",
        "sagemaker:ListNotebookInstances",
        "sns:Publish",
        "sqs:SendMessage",
        "tag:GetResources",
    },
    "RecordAddress": {
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue",
        "sqs:SendMessage",
        "ssm:GetParametersByPath",
    },
    "StartNotebook": {
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "sagemaker:StartNotebookInstance",
    },
    "Uninstall": {
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroupRules",
        "ec2:DescribeSecurityGroups",
        "ec2:RevokeSecurityGroupEgress",
        "ec2:RevokeSecurityGroupIngress",
        "sagemaker:DeleteNotebookInstanceLifecycleConfig",
        "sagemaker:DeleteTags",
        "sagemaker:DescribeNotebookInstance",
        "sagemaker:DescribeNotebookInstanceLifecycleConfig",
        "sagemaker:ListNotebookInstanceLifecycleConfigs",
        "sagemaker:ListNotebookInstances",
        "sagemaker:ListTags",
        "sagemaker:UpdateNotebookInstance",
        "sagemaker:UpdateNotebookInstanceLifecycleConfig",
        "sqs:SendMessage",
    },
    "LookupApi": {
        "dynamodb:GetItem",
        "dynamodb:Query",
    },
    "AccessApi": {"dynamodb:Query"},
    "IssueCertificate": {
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "kms:Sign",
        "ssm:GetParametersByPath",
    },
    "ReadAuthority": {
        "kms:GetPublicKey",
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
    "ec2:DescribeInstanceConnectEndpoints",
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
    stack = Stack(**WITH_EVERYTHING)
    arn = stack.of_type("AWS::Lambda::Function")[function]["Role"]
    (role,) = (role for name, role in stack.of_type("AWS::IAM::Role").items() if stack.arn(name) == arn)
    assert set(role.get("ManagedPolicyArns", ())) <= {"<StartNotebookPolicy>"}
    return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


def actions_of(statement: dict[str, Any]) -> set[str]:
    given = statement["Action"]
    return {given} if isinstance(given, str) else set(given)


def granted(function: str) -> set[str]:
    return {action for statement in [*statements(function), *by_keys(function)] for action in actions_of(statement)}


def by_keys(function: str) -> list[dict[str, Any]]:
    """What the policies of the stack's KMS keys allow the function: a role and a key cannot name each other."""
    stack = Stack(**WITH_EVERYTHING)
    role = stack.of_type("AWS::Lambda::Function")[function]["Role"]
    keys = stack.of_type("AWS::KMS::Key").values()
    allowed = [each for key in keys for each in key["KeyPolicy"]["Statement"] if each["Effect"] == "Allow"]
    return [each for each in allowed if each["Principal"] == {"AWS": role}]


def test_the_signing_keys_sign_for_one_function_alone() -> None:
    """Neither the account's administrators nor a grant: only who changes the policy, which rings an alarm."""
    stack = Stack(**WITH_EVERYTHING)
    first, second = stack.of_type("AWS::KMS::Key").values()
    assert first["KeyPolicy"] == second["KeyPolicy"]
    assert (first["KeySpec"], first["KeyUsage"]) == ("ECC_NIST_P256", "SIGN_VERIFY")
    issuer = stack.of_type("AWS::Lambda::Function")["IssueCertificate"]["Role"]
    rules = first["KeyPolicy"]["Statement"]
    signing = [each for each in rules if "kms:Sign" in actions_of(each)]
    assert [(each["Effect"], each["Principal"]) for each in signing] == [("Allow", {"AWS": issuer}), ("Deny", "*")]
    assert signing[0]["Condition"] == {
        "StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256", "kms:MessageType": "RAW"}
    }
    assert signing[1]["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": issuer}}
    (grants,) = [each for each in rules if "kms:CreateGrant" in actions_of(each)]
    assert (grants["Effect"], grants["Principal"], "Condition" in grants) == ("Deny", "*", False)
    assert not [action for each in rules for action in actions_of(each) if "*" in action]


@pytest.mark.parametrize(
    ("numbers", "signs", "admitted"),
    [("1", "1", ["1"]), ("1 2", "1", ["1", "2"]), ("2 1", "2", ["2", "1"]), ("2", "2", ["2"])],
)
def test_a_key_is_rotated_in_steps_that_lock_out_no_one(numbers: str, signs: str, admitted: list[str]) -> None:
    stack = Stack(**WITH_CERTIFICATES | {"CertificateKeys": numbers})
    variables = stack.of_type("AWS::Lambda::Function")["IssueCertificate"]["Environment"]["Variables"]
    (authority,) = stack.of_type("Custom::CertificateAuthority").values()
    assert variables["CERTIFICATE_KEY"] == authority["Keys"][0] == stack.arn(f"SigningKey{signs}")
    assert authority["Keys"] == [stack.arn(f"SigningKey{number}") for number in admitted]
    assert set(stack.of_type("AWS::KMS::Key")) == {f"SigningKey{number}" for number in admitted}


def test_without_certificates_there_is_no_key_no_route_and_no_line() -> None:
    stack = Stack(**WITH_BASTION)
    assert not stack.of_type("AWS::KMS::Key")
    assert "IssueCertificate" not in stack.of_type("AWS::Lambda::Function")
    variables = stack.of_type("AWS::Lambda::Function")["RecordAddress"]["Environment"]["Variables"]
    assert variables["CERTIFICATE_AUTHORITIES"] == ""
    assert "certificate" not in json.dumps(stack.of_type("AWS::ApiGateway::RestApi"))


@pytest.mark.parametrize("function", sorted(REVIEWED))
def test_what_is_granted_was_reviewed(function: str) -> None:
    consumes = CONSUMERS if function.startswith("Reconcile") else set()
    assert granted(function) == REVIEWED[function] | EVERYBODYS | consumes


def test_every_function_was_reviewed() -> None:
    assert set(Stack(**WITH_EVERYTHING).of_type("AWS::Lambda::Function")) == set(REVIEWED)


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


@pytest.mark.parametrize("function", ["ReconcileRules", "Uninstall"])
@pytest.mark.parametrize("given", [WITH_BASTION, WITH_ENDPOINT, WITH_BASTION | WITH_ENDPOINT])
def test_rules_are_changed_in_the_entrances_vpcs_alone(function: str, given: dict[str, str]) -> None:
    role = Stack(**given).of_type("AWS::IAM::Role")[f"{function}Role"]
    (statement,) = (
        statement
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "ec2:RevokeSecurityGroupIngress" in actions_of(statement)
    )
    vpcs = [given[name] for name in ("BastionVpc", "EndpointVpc") if name in given]
    expected = [f"arn:aws:ec2:eu-central-1:111122223333:vpc/{vpc}" for vpc in vpcs]
    assert statement["Condition"]["ArnEquals"]["ec2:Vpc"] == expected


def test_no_rule_is_changed_without_an_entrance() -> None:
    for function in ("ReconcileRules", "Uninstall"):
        assert "security-group/*" not in json.dumps(Stack().of_type("AWS::IAM::Role")[f"{function}Role"])


def test_only_the_role_that_starts_notebooks_grants_sagemaker_what_a_start_in_a_vpc_takes() -> None:
    stack = Stack(**WITH_BASTION)
    roles = stack.of_type("AWS::IAM::Role")
    lenders = {
        stack.arn(name) for name, role in roles.items() if "<StartNotebookPolicy>" in role.get("ManagedPolicyArns", ())
    }
    functions = stack.of_type("AWS::Lambda::Function").items()
    assert {name for name, function in functions if function["Role"] in lenders} == {
        name for name, reviewed in REVIEWED.items() if "sagemaker:StartNotebookInstance" in reviewed
    }
    lent = stack.of_type("AWS::IAM::ManagedPolicy")["StartNotebookPolicy"]["PolicyDocument"]["Statement"]
    for statement in lent:
        if any(action.startswith("kms:") for action in actions_of(statement)):
            through = statement["Condition"]["StringEquals"]["kms:ViaService"]
            assert {service.partition(".")[0] for service in through} == {"sagemaker", "ec2"}
        if "kms:CreateGrant" in actions_of(statement):
            assert statement["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}


STARTING = {
    "ec2:AttachNetworkInterface",
    "ec2:CreateNetworkInterface",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ec2:ModifyNetworkInterfaceAttribute",
    "kms:CreateGrant",
    "kms:DescribeKey",
}
"""What a principal that starts a notebook must be allowed (SageMaker API permissions reference, StartNotebookInstance)."""
SECRETS = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:git-*"
ROLES = "arn:aws:iam::111122223333:role/notebook-a,arn:aws:iam::111122223333:role/team/*"


def test_a_start_has_everything_that_aws_lists_and_more_only_by_a_parameter() -> None:
    def lent(**parameters: str) -> list[dict[str, Any]]:
        stack = Stack(**parameters)
        return list(stack.of_type("AWS::IAM::ManagedPolicy")["StartNotebookPolicy"]["PolicyDocument"]["Statement"])

    assert set().union(*map(actions_of, lent())) == STARTING
    more = lent(RepositorySecrets=SECRETS, NotebookRoleArns=ROLES)
    assert set().union(*map(actions_of, more)) == STARTING | {"secretsmanager:GetSecretValue", "iam:PassRole"}
    by_action = {action: each for each in more for action in actions_of(each)}
    assert by_action["secretsmanager:GetSecretValue"]["Resource"] == [SECRETS]
    assert by_action["iam:PassRole"]["Resource"] == ROLES.split(",")
    assert by_action["iam:PassRole"]["Condition"] == {
        "StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}
    }
    for action in ("ec2:AttachNetworkInterface", "ec2:CreateNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute"):
        assert all(each.startswith("arn:aws:ec2:eu-central-1:") for each in by_action[action]["Resource"])


def test_only_the_report_function_reads_the_token() -> None:
    assert [name for name in REVIEWED if "secretsmanager:GetSecretValue" in granted(name)] == ["RecordAddress"]


@cache
def operations_of(service: str) -> dict[str, str]:
    names = botocore.session.get_session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


def actions(called: set[calls.Call]) -> set[str]:
    """The IAM actions of calls that the code makes."""
    named = (f"{PREFIX.get(service, service)}:{operations_of(service)[method]}" for service, method in called)
    return {WITHOUT_ACTION.get(action, action) for action in named}


@pytest.mark.parametrize("function", sorted(REVIEWED))
def test_every_right_is_used_somewhere_in_the_functions_code(function: str) -> None:
    handler = Stack(**WITH_EVERYTHING).of_type("AWS::Lambda::Function")[function]["Handler"].removesuffix(".handle")
    path = calls.module_file(handler)
    assert path
    called = actions(calls.calls_from(path))
    unused = {action for action in REVIEWED[function] if action not in called and IMPLIED.get(action) not in called}
    assert not unused


def test_every_call_in_the_code_is_granted_to_a_function() -> None:
    called = actions(calls.all_calls())
    assert "dynamodb:GetItem" in called  # or nothing was found at all
    assert called <= set().union(*REVIEWED.values())


def test_calls_are_found_however_they_are_written(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "client('sqs').send_message()\n"
        "held = client('ec2')\n"
        "held.create_tags()\n"
        "def f():\n"
        "    pages = client('ssm').get_paginator('get_parameters_by_path')\n"
        "    return ask(client('events').put_events, 1)\n"
        "other.delete_everything()\n"
    )
    assert calls.calls_in(module) == {
        ("sqs", "send_message"),
        ("ec2", "create_tags"),
        ("ssm", "get_parameters_by_path"),
        ("events", "put_events"),
    }
