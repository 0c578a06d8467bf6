"""IAM where ministack knows too little: action, resource and condition keys of a request, and in whose account it is.

ministack enforces policies for its own services. These additions let the policies of the stack be enforced for
SageMaker and for security groups as well: actions, resource ARNs, request tags and resource tags
(Service Authorization Reference, "Amazon SageMaker" and "Amazon EC2").
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.core.router import extract_access_key_id
from ministack.services import apigateway_v1, iam, tagging
from moto.ec2.models import ec2_backends

from emulator import answers, sagemaker

RULES_OF_GROUPS = {
    "AuthorizeSecurityGroupIngress",
    "AuthorizeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
    "RevokeSecurityGroupEgress",
}

BATCHES = {"sqs:SendMessageBatch", "sqs:DeleteMessageBatch", "sqs:ChangeMessageVisibilityBatch"}
"""Calls that IAM knows only by the action for one message (Amazon SQS Developer Guide, "API permissions")."""


def teach_access() -> None:
    """Make ministack check requests to SageMaker and EC2 as it checks its own."""
    _add_services()
    _name_actions_of_batches()
    _name_resources()
    _add_condition_keys()
    check_apis_in_their_own_account()
    compare_paths_as_sent()
    hand_on_paths_as_sent()
    know_apis_by_name()
    name_principals_by_their_role()
    for collectors in (tagging._COLLECTORS, tagging._RESOURCE_TAG_COLLECTORS):
        collectors["sagemaker"] = sagemaker_tags
        collectors["ec2"] = ec2_tags


def _add_services() -> None:
    iam_actions.SERVICE_TO_IAM_NAMESPACE["sagemaker"] = "sagemaker"
    # Known beforehand, so that ministack does not load the largest models of botocore to find out.
    iam_actions._TAG_OPERATIONS["sagemaker"] = frozenset(
        {"AddTags", "DeleteTags", "CreateNotebookInstance", "CreateNotebookInstanceLifecycleConfig"}
    )
    iam_actions._TAG_OPERATIONS["ec2"] = frozenset({*RULES_OF_GROUPS, "CreateTags", "CreateSecurityGroup"})
    for service in ("sagemaker", "ec2"):
        iam_actions._UNSIGNED_OPERATIONS[service] = frozenset()


def _name_actions_of_batches() -> None:
    action_of = iam_actions.extract_iam_action

    def extract_iam_action(
        service: str, method: str, path: str, headers: dict[str, str], body: bytes, query_params: dict[str, Any]
    ) -> str | None:
        action: str | None = action_of(service, method, path, headers, body, query_params)
        return action.removesuffix("Batch") if action in BATCHES else action

    iam_actions.extract_iam_action = extract_iam_action


def _name_resources() -> None:
    resource_of = iam_actions.extract_resource_arn

    def extract_resource_arn(
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query_params: dict[str, Any],
        region: str,
        account_id: str,
    ) -> str:
        if service == "sagemaker":
            return _sagemaker_resource(headers, body, region, account_id)
        if service == "ec2" and (found := _ec2_resources(query_params, region, account_id)):
            return found[0]
        if service == "ssm" and (below := _parameter_path(headers, body, region, account_id)):
            return below
        return str(resource_of(service, method, path, headers, body, query_params, region, account_id))

    iam_actions.extract_resource_arn = extract_resource_arn

    others_of = iam_actions.verified_access_resource_arns

    def verified_access_resource_arns(query_params: dict[str, Any], region: str, account_id: str) -> list[str]:
        return _ec2_resources(query_params, region, account_id) or list(others_of(query_params, region, account_id))

    iam_actions.verified_access_resource_arns = verified_access_resource_arns


def _add_condition_keys() -> None:
    context_of = iam_actions.request_tag_context

    def request_tag_context(service: str, iam_action: str, body: bytes, params: dict[str, Any]) -> dict[str, Any]:
        context = dict(context_of(service, iam_action, body, params))
        if service == "ec2" and (network := _network_of_group(params)):
            context["ec2:Vpc"] = network
        if service == "dynamodb" and (keys := _leading_keys(body)):
            context["dynamodb:LeadingKeys"] = keys
        if iam_action == "kms:Sign":
            context |= _way_of_signing(body)
        return context

    iam_actions.request_tag_context = request_tag_context


def name_principals_by_their_role() -> None:
    """Let `aws:PrincipalArn` be the role's ARN for a session of a role, where ministack has the session's.

    (IAM User Guide, "AWS global condition context keys", `aws:PrincipalArn`.)
    """
    value_of = iam_evaluator._resolve_condition_key

    def resolve_condition_key(key: str, context: Any) -> Any:
        value = value_of(key, context)
        if key.lower() != "aws:principalarn" or ":assumed-role/" not in str(value):
            return value
        account, name = str(value).split(":")[4], str(value).split("/")[1]
        role = iam._roles.get_scoped(account, None, name)
        return role["Arn"] if role else value

    iam_evaluator._resolve_condition_key = resolve_condition_key


# ---- SageMaker ---------------------------------------------------------------------------------


def trust_the_loopback() -> None:
    """Take a request for one over TLS: policies that demand TLS, as those of SAM's buckets, mean to keep out listeners.

    On the loopback there are none, and the emulator speaks plain HTTP.
    """
    pin = app.pin_request_origin
    app.pin_request_origin = lambda source_ip, secure_transport: pin(source_ip, True)


def _sagemaker_resource(headers: dict[str, str], body: bytes, region: str, account: str) -> str:
    try:
        asked = json.loads(body or b"{}")
    except ValueError:
        return "*"
    if "ResourceArn" in asked:
        return str(asked["ResourceArn"])
    operation = headers.get("x-amz-target", "").partition(".")[2]
    if operation.startswith("List"):
        return "*"
    for field, kind in (
        ("NotebookInstanceName", "notebook-instance"),
        ("NotebookInstanceLifecycleConfigName", "notebook-instance-lifecycle-config"),
    ):
        if field in asked:
            return f"arn:aws:sagemaker:{region}:{account}:{kind}/{str(asked[field]).lower()}"
    return "*"


def sagemaker_tags() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """ARN and tags of every notebook and lifecycle configuration of the request's account and region."""
    for resource in sagemaker.resources(get_account_id(), get_region()):
        yield resource.arn, list(resource.tags)


# ---- DynamoDB ----------------------------------------------------------------------------------


def _leading_keys(body: bytes) -> list[str]:
    """The partition keys that a request names, in a table whose partition key is `pk`: the value of LeadingKeys.

    (Amazon DynamoDB Developer Guide, "Using IAM policy conditions for fine-grained access control".)
    """
    try:
        asked = json.loads(body or b"{}")
    except ValueError:
        return []
    named = [asked.get("Key"), asked.get("Item")]
    named += [key for table in asked.get("RequestItems", {}).values() if "Keys" in table for key in table["Keys"]]
    queried = re.search(r"(?:^|\s)pk = (:\w+)", asked.get("KeyConditionExpression", ""))
    if queried:
        named.append({"pk": asked["ExpressionAttributeValues"][queried[1]]})
    return [key["pk"]["S"] for key in named if key and "S" in key.get("pk", {})]


# ---- Key Management Service --------------------------------------------------------------------


def _way_of_signing(body: bytes) -> dict[str, str]:
    """The condition keys of a Sign (AWS KMS Developer Guide, "AWS KMS condition keys")."""
    asked = json.loads(body or b"{}")
    # RAW by default (KMS API Reference, Sign, `MessageType`).
    return {
        "kms:SigningAlgorithm": str(asked.get("SigningAlgorithm", "")),
        "kms:MessageType": str(asked.get("MessageType", "RAW")),
    }


# ---- Systems Manager ---------------------------------------------------------------------------


def _parameter_path(headers: dict[str, str], body: bytes, region: str, account: str) -> str | None:
    """What GetParametersByPath is checked on: the path, written as a parameter's ARN, or whatever is below it.

    (Systems Manager User Guide, "Restricting access to Parameter Store parameters using IAM policies".)
    """
    if headers.get("x-amz-target", "").partition(".")[2] != "GetParametersByPath":
        return None
    try:
        path = str(json.loads(body)["Path"])
    except (ValueError, KeyError):
        return None
    below = "/*" if answers.of("parameters-by-path") == "below" else ""
    return f"arn:aws:ssm:{region}:{account}:parameter/{path.strip('/')}{below}"


# ---- APIs --------------------------------------------------------------------------------------


def check_apis_in_their_own_account() -> None:
    """Look for an API in every account, and check a call of it in the one that owns it, for every caller.

    ministack looks in the caller's account alone, so that an API's policy would never meet a stranger.
    """
    handle = app._handle_execute_api_request

    async def handle_in_owners_account(host: str, path: str, *rest: Any, **more: Any) -> Any:
        asked = app._parse_execute_api_url(host, path)
        owners = [account for (account, _, api), _ in apigateway_v1._rest_apis.all_items() if asked and api == asked[0]]
        sent = app._parse_execute_api_url(host, more.get("raw_path") or path)
        _sent_path.set(sent[2] if sent else "")
        with request_scope(owners[0] if owners else get_account_id(), get_region()):
            return await handle(host, path, *rest, **more)

    app._handle_execute_api_request = handle_in_owners_account


_sent_path: ContextVar[str] = ContextVar("_sent_path", default="")
"""The path below the stage of the request that is being handled, escapes included."""


def compare_paths_as_sent() -> None:
    """Check a call of an API on its path as it was sent, where ministack decodes it; or not, as `path-as-sent` says."""
    enforce = app._enforce_execute_api

    def enforce_as_sent(api_id: str, stage: str, method: str, execute_path: str, *rest: Any, **more: Any) -> Any:
        sent = _sent_path.get() if answers.of("path-as-sent") == "as-sent" else ""
        return enforce(api_id, stage, method, sent or execute_path, *rest, **more)

    app._enforce_execute_api = enforce_as_sent


def hand_on_paths_as_sent() -> None:
    """Give functions the path of a request as it was sent, where ministack decodes it: REST APIs keep its escapes.

    (Seen of live ones in public captures; nothing documents it. HTTP APIs decode.)
    """
    build = apigateway_v1._build_lambda_event_v1

    def build_as_sent(
        api_id: str, stage_name: str, stage: Any, resource: Any, request_path: str, *rest: Any, **more: Any
    ) -> Any:
        return build(api_id, stage_name, stage, resource, _sent_path.get() or request_path, *rest, **more)

    apigateway_v1._build_lambda_event_v1 = build_as_sent


def know_apis_by_name() -> None:
    """Let an API's address here have its name, which is the stack's, in place of its id: it can be told beforehand."""
    parse = app._parse_execute_api_url

    def parse_execute_api_url(host: str, path: str) -> tuple[str, str, str] | None:
        asked: tuple[str, str, str] | None = parse(host, path)
        apis = apigateway_v1._rest_apis.all_items() if asked else ()
        named = [api for (_, _, api), made in apis if asked and made.get("name") == asked[0]]
        return (named[0], *asked[1:]) if asked and named else asked

    app._parse_execute_api_url = parse_execute_api_url


# ---- EC2 ---------------------------------------------------------------------------------------


def _first(params: dict[str, Any], name: str) -> str:
    value = params.get(name, "")
    return str(value[0] if isinstance(value, list) else value)


def _ec2_resources(params: dict[str, Any], region: str, account: str) -> list[str]:
    """The resources a change of rules is checked on: the group, and the rules it makes with tags.

    Revoking is checked on the group alone, whichever rules it names.
    """
    if _first(params, "Action") not in RULES_OF_GROUPS:
        return []
    head = f"arn:aws:ec2:{region}:{account}"
    found = [f"{head}:security-group/{_first(params, 'GroupId')}"]
    if _makes_tags(params):
        found.append(f"{head}:security-group-rule/*")
    return found


def _makes_tags(params: dict[str, Any]) -> bool:
    return any(name.startswith("TagSpecification.") for name in params)


def _network_of_group(params: dict[str, Any]) -> str | None:
    backend = ec2_backends[get_account_id()][get_region()]
    group = backend.get_security_group_from_id(_first(params, "GroupId")) if "GroupId" in params else None
    return f"arn:aws:ec2:{get_region()}:{get_account_id()}:vpc/{group.vpc_id}" if group and group.vpc_id else None


def ec2_tags() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """ARN and tags of every tagged security group and rule of the request's account and region."""
    account, region = get_account_id(), get_region()
    backend = ec2_backends[account][region]
    for resource, tags in backend.tags.items():
        kind = {"sg": "security-group", "sgr": "security-group-rule"}.get(resource.rpartition("-")[0])
        if kind:
            listed = [{"Key": key, "Value": value} for key, value in tags.items()]
            yield f"arn:aws:ec2:{region}:{account}:{kind}/{resource}", listed


def may_tag_on_creation(params: dict[str, Any], access_key: str) -> Any:
    """None when the caller may put tags on the rules it makes, else ministack's denial.

    Making tagged rules also needs ec2:CreateTags, with the condition key ec2:CreateAction
    (EC2 User Guide, "Grant permission to tag Amazon EC2 resources during creation").
    """
    if _first(params, "Action") not in RULES_OF_GROUPS or not _makes_tags(params):
        return None
    action = _first(params, "Action")
    context = {
        **iam_actions.request_tag_context("ec2", f"ec2:{action}", b"", params),
        "ec2:CreateAction": action,
    }
    rules = f"arn:aws:ec2:{get_region()}:{get_account_id()}:security-group-rule/*"
    return iam_evaluator.enforce(
        access_key, "ec2:CreateTags", "ec2", get_region(), resource_arn=rules, service_context=context
    )


def with_tag_check(handle: Any) -> Any:
    """The EC2 handler `handle`, which first checks that the caller may tag what it makes."""

    async def checked(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
        params = {**query, **parse_qs(body.decode())}
        denied = may_tag_on_creation(params, extract_access_key_id(headers))
        if denied:
            return iam_actions.access_denied_response(
                "ec2", "ec2:CreateTags", denied.principal_arn, secrets.token_hex(8), headers=headers
            )
        return await handle(method, path, headers, body, query)

    return checked
