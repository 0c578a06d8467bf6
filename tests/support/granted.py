"""What a function's role grants, action by action and resource by resource, and which calls that covers.

The policies are the template's. Whether one allows a request is for ministack to say, whose evaluator the local run is
under as well; here it is asked without a server. Who calls what on which resource is from the Service Authorization
Reference.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import botocore.session
from botocore import xform_name
from support.stack import ACCOUNT, PROJECT, REGIONS, WITH_BASTION, WITH_EVERYTHING, Stack

REGION = REGIONS["aws"]
VPC = f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/{WITH_BASTION['BastionVpc']}"
OTHER_VPC = f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/vpc-0fffffffffffffff0"

HANDLERS = {
    "reconcile_notebook.handler": "ReconcileNotebook",
    "reconcile_rules.handler": "ReconcileRules",
    "sweep.handler": "Sweep",
    "record_address.handler": "RecordAddress",
    "start_notebook.handler": "StartNotebook",
    "lookup_api.handler": "LookupApi",
    "issue_certificate.handler": "IssueCertificate",
    "access_api.handler": "AccessApi",
    "uninstall.handler": "Uninstall",
}
"""The functions by the modules of their handlers."""


@dataclass(frozen=True)
class Request:
    """What IAM is asked: may this role do `action` to `resource`? context: condition keys with their values."""

    action: str
    resource: str
    context: tuple[tuple[str, str | tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class AuthorizeRule:
    """One action on one resource pattern, as one statement of a role grants it under its condition."""

    sid: str
    action: str
    resource: str

    def __str__(self) -> str:
        return f"{self.sid}: {self.action} on {self.resource}"


# ---- what a call asks of IAM


def requests(service: str, operation: str, given: Mapping[str, Any], vpc: str = VPC) -> Iterator[Request]:
    """The requests to IAM that one call is. operation: as IAM writes it. vpc: the ARN of the VPC of the call's group."""
    match service, operation:
        case "dynamodb", _:
            yield from _of_the_table(operation, given)
        case "sqs", _:
            queue = "RuleQueue" if "bastion" in given["QueueUrl"] else "NotebookQueue"
            yield Request(f"sqs:{operation.removesuffix('Batch')}", stack().arn(queue))
        case "sagemaker", _:
            yield from _of_sagemaker(operation, given)
        case "ec2", _ if operation.startswith("Describe"):
            yield Request(f"ec2:{operation}", "*")
        case "ec2", _:
            yield from _of_a_group(operation, given, vpc)
        case "events", "PutEvents":
            yield Request("events:PutEvents", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default")
        case "sns", "Publish":
            yield Request("sns:Publish", stack().arn("AlarmTopic"))
        case "secretsmanager", "GetSecretValue":
            yield Request("secretsmanager:GetSecretValue", stack().arn("NgrokToken"))
        case "ssm", "GetParametersByPath":
            path = "/notebook-ssh/notebook-ssh/authorized-keys"
            path += "/revoked" if given["Path"].endswith("/revoked") else ""
            yield Request("ssm:GetParametersByPath", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{path}")
        case "kms", "Sign":
            return  # granted by the key's own policy: tests/integration/test_certificates.py
        case "resourcegroupstaggingapi", "GetResources":
            yield Request("tag:GetResources", "*")
        case _:
            raise NotImplementedError(f"{service} {operation}: say here which resource that is")


def _of_the_table(operation: str, given: Mapping[str, Any]) -> Iterator[Request]:
    if operation == "BatchGetItem":
        keys = [key["pk"]["S"] for table in given["RequestItems"].values() for key in table["Keys"]]
    elif operation == "Query":
        assert given["KeyConditionExpression"].split(" AND ")[0] == "pk = :pk"
        keys = [given["ExpressionAttributeValues"][":pk"]["S"]]
    else:
        keys = [(given.get("Key") or given["Item"])["pk"]["S"]]
    leading = tuple(sorted(set(keys)))
    yield Request(f"dynamodb:{operation}", stack().arn("Table"), (("dynamodb:leadingkeys", leading),))


def _of_sagemaker(operation: str, given: Mapping[str, Any]) -> Iterator[Request]:
    resource = "*"
    for member, kind in (
        ("NotebookInstanceName", "notebook-instance"),
        ("NotebookInstanceLifecycleConfigName", "notebook-instance-lifecycle-config"),
    ):
        if member in given:
            resource = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{given[member].lower()}"
    if "ResourceArn" in given:
        resource = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{given['ResourceArn'].rpartition(':')[2]}"
    keys = tuple([tag["Key"] for tag in given.get("Tags", ())] + list(given.get("TagKeys", ())))
    context = (("aws:tagkeys", keys),) if keys else ()
    yield Request(f"sagemaker:{operation}", resource, context)
    if operation.startswith("Create") and keys:
        yield Request("sagemaker:AddTags", resource, context)


def _of_a_group(operation: str, given: Mapping[str, Any], vpc: str) -> Iterator[Request]:
    owned = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
    yield Request(f"ec2:{operation}", f"{owned}:security-group/{given['GroupId']}", (("ec2:vpc", vpc),))
    if "TagSpecifications" in given:
        rule = f"{owned}:security-group-rule/*"
        yield Request(f"ec2:{operation}", rule)
        yield Request("ec2:CreateTags", rule, (("ec2:createaction", operation),))


@cache
def operations(service: str) -> dict[str, str]:
    """The operations of a service, by the names of the methods of botocore's clients."""
    names = botocore.session.get_session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


# ---- what is granted


@cache
def stack() -> Stack:
    """The stack with everything that a function may be allowed."""
    return Stack(**WITH_EVERYTHING)


@cache
def authorizations(function: str) -> dict[AuthorizeRule, dict[str, Any]]:
    """Every grant of a function's role, each with the statement that it makes by itself; logs are Lambda's business."""
    arn = stack().of_type("AWS::Lambda::Function")[function]["Role"]
    (role,) = (role for name, role in stack().of_type("AWS::IAM::Role").items() if stack().arn(name) == arn)
    found = {}
    for statement in (each for policy in role["Policies"] for each in policy["PolicyDocument"]["Statement"]):
        for action in _listed(statement["Action"]):
            for resource in _listed(statement["Resource"]):
                if not action.startswith("logs:"):
                    alone = statement | {"Action": action, "Resource": resource}
                    found[AuthorizeRule(statement["Sid"], action, resource)] = alone
    return found


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@cache
def covering(function: str, request: Request) -> frozenset[AuthorizeRule]:
    """The grants of a function that allow `request`; none: it is denied."""
    return frozenset(grant for grant, statement in authorizations(function).items() if allows(statement, request))


def allows(statement: dict[str, Any], request: Request) -> bool:
    """Whether this one statement of a policy allows `request`."""
    iam = evaluator()
    context = iam.EvalContext(
        principal_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/function/session",
        principal_type="AssumedRole",
        principal_account=ACCOUNT,
        action=request.action,
        resource_arn=request.resource,
        region=REGION,
        service_context={key: list(value) if isinstance(value, tuple) else value for key, value in request.context},
    )
    policy = iam.parse_policy_document({"Version": "2012-10-17", "Statement": [statement]})
    return bool(iam.evaluate(context, [policy]).decision == "Allow")


_EVALUATOR = ".venv/emulator/lib/python3*/site-packages/ministack/core/iam_evaluator.py"


def evaluator_is_installed() -> bool:
    """Whether there is an environment with ministack in it."""
    return any(PROJECT.glob(_EVALUATOR))


@cache
def evaluator() -> ModuleType:
    """ministack's evaluator of policies. Its file needs nothing but Python, so it is read without its environment."""
    (path,) = PROJECT.glob(_EVALUATOR)
    spec = importlib.util.spec_from_file_location("ministack_iam_evaluator", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
