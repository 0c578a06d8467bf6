"""What tests of several parts start from: one usual notebook, and what it says."""

from __future__ import annotations

from base64 import b64encode
from types import SimpleNamespace
from typing import Any

from notebook_ssh.model.record import NotebookState, Phase, Record, Report
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.stack import Bastion
from notebook_ssh.settings import Settings

NOW = 1_800_000_000
"""The time at which the tests play: 2027-01-15T08:00:00Z."""


def wire(*fields: bytes) -> str:
    """Fields of an SSH key, each with its length before it (RFC 4251 §5), as base64."""
    return b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


HOST_KEY = f"ssh-ed25519 {wire(b'ssh-ed25519', bytes(range(32)))}"
RSA_KEY = f"ssh-rsa {wire(b'ssh-rsa', bytes([1, 0, 1]), bytes([0]) + bytes([0xA5]) * 256)}"

BASTION = Bastion("bastion.example.com", "jumper", "sg-0123456789abcdef0", "vpc-0123456789abcdef0")
SETTINGS = Settings(
    stack="team-ssh",
    tag_key="ssh",
    table="records",
    api_url="",
    region="us-east-1",
    sync_seconds=300,
    default_config="better-sagemaker",
    ngrok_secret="ngrok-token",
    keys_path="/keys",
    notebook_queue="",
    rule_queue="",
    bastion=BASTION,
    dry_run=False,
)


def a_lambda_context(**parts: Any) -> Any:
    """What Lambda gives a handler about the invocation (Lambda, "AWS Lambda context object in Python")."""
    usual: dict[str, Any] = {
        "function_name": "team-ssh-function",
        "memory_limit_in_mb": 256,
        "invoked_function_arn": "arn:aws:lambda:us-east-1:123456789012:function:team-ssh-function",
        "aws_request_id": "request",
        "log_stream_name": "log",
        "get_remaining_time_in_millis": lambda: 60_000,
    }
    return SimpleNamespace(**(usual | parts))


def a_record(**parts: Any) -> Record:
    """A notebook in mode ngrok that was started with the block in place, and that has not reported yet."""
    usual: dict[str, Any] = {
        "name": "demo",
        "arn": "arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/demo",
        "role": "demo-role",
        "spec": NotebookSpec(modes=(Mode.NGROK,)),
        "state": NotebookState.IN_SERVICE,
        "state_since": NOW - 500,
        "started_at": NOW - 600,
        "lifecycle_config": "demo-configuration",
        "block_since": NOW - 5000,
        "observed_at": NOW - 500,
    }
    return Record(**(usual | parts))


def a_report(**parts: Any) -> Report:
    """The report of a connected tunnel, just received."""
    usual: dict[str, Any] = {
        "boot": "boot-1",
        "booted_at": NOW - 550,
        "sequence": 5,
        "received_at": NOW - 10,
        "modes": (Mode.NGROK,),
        "phase": Phase.CONNECTED,
        "agent": "1.0",
        "host": "0.tcp.ngrok.io",
        "port": 17887,
        "host_keys": (HOST_KEY,),
        "keys_own": 1,
        "connected_since": NOW - 400,
        "phase_since": NOW - 400,
    }
    return Report(**(usual | parts))


def a_body(**parts: Any) -> dict[str, Any]:
    """The body of a connected agent's report."""
    report = a_report()
    usual: dict[str, Any] = {
        "agent": report.agent,
        "boot": report.boot,
        "booted_at": report.booted_at,
        "sequence": report.sequence,
        "modes": ["ngrok"],
        "phase": "connected",
        "host": report.host,
        "port": report.port,
        "host_keys": list(report.host_keys),
        "keys": {"own": 1, "central": 0, "rejected": []},
        "sessions": {"open": 0, "active_at": None},
        "problem": None,
        "token_version": None,
    }
    return usual | parts


def an_api_event(method: str, resource: str, name: str = "demo", **parts: Any) -> dict[str, Any]:
    """An event of API Gateway's REST proxy integration, as a notebook's role or a person's role causes it."""
    return {
        "resource": resource,
        "path": resource.replace("{name}", name),
        "httpMethod": method,
        "headers": {"Accept": "*/*", "Host": "api.execute-api.us-east-1.amazonaws.com"},
        "queryStringParameters": None,
        "pathParameters": {"name": name} if "{name}" in resource else None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": resource,
            "httpMethod": method,
            "stage": "v1",
            "requestId": "8e2cf1c6-0000-4000-8000-000000000001",
            "accountId": "123456789012",
            "identity": {
                "accountId": "123456789012",
                "sourceIp": "203.0.113.7",
                "userArn": "arn:aws:sts::123456789012:assumed-role/demo-role/SageMaker",
            },
        },
        "body": None,
        "isBase64Encoded": False,
    } | parts
