"""The policies of docs/permissions.md do what the page says, as IAM evaluates them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.granted import evaluator
from support.stack import ACCOUNT, PROJECT

PAGE = (PROJECT / "docs" / "permissions.md").read_text("utf-8")
POLICIES: dict[str, dict[str, Any]] = {
    policy["Statement"][0]["Sid"]: policy
    for text in re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)
    if (policy := json.loads(text.replace("ACCOUNT", ACCOUNT)))
}
OURS, OTHERS = "team-a-7", "team-b-1"
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def allows(*policies: dict[str, Any], action: str, notebook: str = OURS, tags: Any = (), **more: Any) -> bool:
    """Whether the policies together allow a role `ana` the action. tags: as given; keys alone for those taken away."""
    resource = more.pop("resource", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:notebook-instance/{notebook}")
    context: dict[str, Any] = {"aws:tagkeys": list(tags)} if tags else {}
    if isinstance(tags, dict):
        context |= {f"aws:requesttag/{key.lower()}": value for key, value in tags.items()}
    iam = evaluator()
    asked = iam.EvalContext(
        principal_arn=more.get("principal", f"arn:aws:iam::{ACCOUNT}:role/ana"),
        principal_type="AssumedRole",
        principal_account=ACCOUNT,
        action=action,
        resource_arn=resource,
        region="us-east-1",
        service_context=context | more.get("context", {}),
    )
    return bool(iam.evaluate(asked, [iam.parse_policy_document(policy) for policy in policies]).decision == "Allow")


@pytest.mark.parametrize(
    ("action", "notebook", "tags", "allowed"),
    [
        ("sagemaker:AddTags", OURS, {"ssh": "ngrok"}, True),
        ("sagemaker:AddTags", OURS, {"ssh": "off"}, True),
        ("sagemaker:AddTags", OURS, {"ssh": "ngrok", "ssh-until": "2030-01-01T00:00Z"}, True),
        ("sagemaker:AddTags", OTHERS, {"ssh": "ngrok"}, False),
        ("sagemaker:AddTags", OURS, {"ssh": "anything"}, False),
        ("sagemaker:AddTags", OURS, {"ssh-until": "2030-01-01T00:00Z"}, False),
        ("sagemaker:AddTags", OURS, {"ssh": "ngrok", "ssh-users": "eve"}, False),
        ("sagemaker:AddTags", OURS, {"ssh": "ngrok", "ssh-restart": "now"}, False),
        ("sagemaker:AddTags", OURS, {"ssh-wake": "yes"}, False),
        ("sagemaker:DeleteTags", OURS, ["ssh"], True),
        ("sagemaker:DeleteTags", OURS, ["ssh-until"], False),
        ("sagemaker:DeleteTags", OURS, ["ssh", "ssh-until"], False),
        ("sagemaker:DeleteTags", OTHERS, ["ssh"], False),
        ("sagemaker:ListTags", OURS, (), True),
        ("sagemaker:StopNotebookInstance", OURS, (), False),
    ],
)
def test_a_tagger_turns_on_and_off_and_nothing_else(action: str, notebook: str, tags: Any, allowed: bool) -> None:
    assert allows(POLICIES["TurnOnAndOff"], action=action, notebook=notebook, tags=tags) is allowed


@pytest.mark.parametrize(
    ("tags", "allowed"),
    [
        ({"ssh-users": "ana"}, True),
        ({"ssh-users": "eve"}, False),
        ({"ssh-users": "ana eve"}, False),
        ({"ssh-users": "ana", "ssh-restart": "now"}, False),
    ],
)
def test_who_admits_oneself_admits_no_one_else(tags: dict[str, str], allowed: bool) -> None:
    policy = json.loads(json.dumps(POLICIES["AdmitMyself"]).replace("${aws:PrincipalTag/ssh-user}", "ana"))
    assert allows(policy, action="sagemaker:AddTags", tags=tags) is allowed


@pytest.mark.parametrize("action", ["sagemaker:AddTags", "sagemaker:DeleteTags", "sagemaker:CreateNotebookInstance"])
@pytest.mark.parametrize("key", ["ssh-users", "ssh-restart", "ssh-wake", "ssh-until", "ssh", "team"])
@pytest.mark.parametrize("role", ["ana", "ssh-admins"])
def test_the_guard_keeps_what_admits_to_one_role(action: str, key: str, role: str) -> None:
    principal = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    allowed = allows(
        ALL,
        POLICIES["OnlySshAdminsAdmit"],
        action=action,
        tags=[key, "Name"],
        principal=principal,
        context={"aws:principalarn": principal},
    )
    assert allowed is (role == "ssh-admins" or key in ("ssh", "team"))


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("cloudformation:CreateChangeSet", f"cloudformation:us-east-1:{ACCOUNT}:stack/notebook-ssh/1", True),
        ("cloudformation:DeleteStack", f"cloudformation:us-east-1:{ACCOUNT}:stack/payroll/1", False),
        ("iam:CreateRole", f"iam::{ACCOUNT}:role/notebook-ssh-SweepRole-1", True),
        ("iam:CreateRole", f"iam::{ACCOUNT}:role/admin", False),
        ("iam:PassRole", f"iam::{ACCOUNT}:role/notebook-ssh-SweepRole-1", True),
        ("lambda:CreateFunction", f"lambda:us-east-1:{ACCOUNT}:function:notebook-ssh-Sweep-1", True),
        ("lambda:InvokeFunction", f"lambda:us-east-1:{ACCOUNT}:function:payroll", False),
        ("sqs:CreateQueue", f"sqs:us-east-1:{ACCOUNT}:notebook-ssh-NotebookQueue-1", True),
        ("logs:CreateLogGroup", f"logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/notebook-ssh-sweep", True),
        ("s3:PutObject", "s3:::CODE-BUCKET/code.zip", True),
        ("s3:PutObject", "s3:::payroll/code.zip", False),
        ("sagemaker:UpdateNotebookInstance", f"sagemaker:us-east-1:{ACCOUNT}:notebook-instance/x", False),
    ],
)
def test_a_deployer_makes_this_stack_and_no_other(action: str, resource: str, allowed: bool) -> None:
    assert allows(POLICIES["Stack"], action=action, resource=f"arn:aws:{resource}") is allowed


def test_every_policy_of_the_page_is_judged_here() -> None:
    judged = re.findall(r'POLICIES\["(\w+)"\]', (PROJECT / "tests/security/test_documented_policies.py").read_text())
    assert set(POLICIES) == set(judged)


def test_every_key_that_users_write_is_documented() -> None:
    from notebook_ssh.model.spec import spec_tag_keys

    rows = set(re.findall(r"^\| `(ssh[a-z-]*)` \|", PAGE, re.MULTILINE))
    assert rows == set(spec_tag_keys("ssh"))


@pytest.mark.parametrize(
    ("port", "address", "seconds", "endpoint", "allowed"),
    [
        ("22", "10.0.3.7", "3600", "eice-0a1b2c3d4e5f60718", True),
        ("3389", "10.0.3.7", "3600", "eice-0a1b2c3d4e5f60718", False),
        ("22", "10.0.4.7", "3600", "eice-0a1b2c3d4e5f60718", False),
        ("22", "10.0.3.7", "7200", "eice-0a1b2c3d4e5f60718", False),
        ("22", "10.0.3.7", "3600", "eice-0a1b2c3d4e5f60719", False),
    ],
)
def test_tunnels_are_opened_to_the_port_the_network_and_for_the_time_that_the_page_allows(
    port: str, address: str, seconds: str, endpoint: str, allowed: bool
) -> None:
    page = (PROJECT / "docs" / "eice.md").read_text("utf-8")
    (policy,) = re.findall(r"```json\n(.+?)```", page, re.DOTALL)
    context = {"remoteport": port, "privateipaddress": address, "maxtunnelduration": seconds}
    assert allowed is allows(
        json.loads(policy.replace("ACCOUNT", ACCOUNT)),
        action="ec2-instance-connect:OpenTunnel",
        resource=f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance-connect-endpoint/{endpoint}",
        context={f"ec2-instance-connect:{key}": value for key, value in context.items()},
    )
