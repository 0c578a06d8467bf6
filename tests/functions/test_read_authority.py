"""The custom resource that knows the public keys: read at each deployment that changes them, and CloudFormation is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from support.builders import a_lambda_context

from notebook_ssh.adapters.clients import client
from notebook_ssh.controllers.authority import ATTEMPTS
from notebook_ssh.model.ssh_keys import public_key
from read_authority import handler


class CloudFormation:
    """What CloudFormation hears, and for how long the function waits."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.answers: list[dict[str, Any]] = []
        self.waited = 0.0
        patch.setattr("urllib.request.urlopen", self._heard)

    def _heard(self, request: Any, timeout: int) -> Any:
        self.answers.append(json.loads(request.data))
        return nullcontext()

    def _sleep(self, seconds: float) -> None:
        self.waited += seconds

    def ask(self, request: str, *keys: str) -> dict[str, Any]:
        event = {
            "RequestType": request,
            "ResponseURL": "https://cloudformation.example/answer",
            "StackId": "stack-id",
            "RequestId": "request-id",
            "LogicalResourceId": "CertificateAuthority",
            "ResourceProperties": {"ServiceToken": "arn", "Keys": list(keys)},
        }
        handler.handle(event, a_lambda_context(log_stream_name="stream"), sleep=self._sleep)
        return self.answers[-1]


@pytest.fixture
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudFormation]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield CloudFormation(monkeypatch)


def a_key(spec: Any = "ECC_NIST_P256") -> str:
    return client("kms").create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]


@pytest.mark.parametrize("request_type", ["Create", "Update"])
def test_the_lines_are_in_the_order_of_the_keys(cloudformation: CloudFormation, request_type: str) -> None:
    first, second = a_key(), a_key()
    answer = cloudformation.ask(request_type, first, second)
    lines = answer["Data"]["Lines"].split(",")
    assert [public_key(line).material for line in lines] == lines
    assert cloudformation.ask("Update", second, first)["Data"]["Lines"].split(",") == lines[::-1]
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", "CertificateAuthority-authority")


def test_deleting_it_asks_nothing(cloudformation: CloudFormation) -> None:
    assert cloudformation.ask("Delete", "arn:aws:kms:us-east-1:1:key/gone")["Status"] == "SUCCESS"


def test_a_role_that_is_seconds_old_is_waited_for(
    cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, read, denied = a_key(), client("kms").get_public_key, ["AccessDeniedException"] * 3

    def at_first_denied(**given: Any) -> Any:
        if denied:
            raise ClientError({"Error": {"Code": denied.pop(), "Message": ""}}, "GetPublicKey")
        return read(**given)

    monkeypatch.setattr(client("kms"), "get_public_key", at_first_denied)
    assert cloudformation.ask("Create", key)["Status"] == "SUCCESS"
    assert 0 < cloudformation.waited < 60


def test_what_lasts_fails_the_deployment_within_the_functions_time(cloudformation: CloudFormation) -> None:
    answer = cloudformation.ask("Create", "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000")
    assert answer["Status"] == "FAILED"
    assert "signing-key-unavailable" in answer["Reason"]
    assert cloudformation.waited == (ATTEMPTS - 1) * 5 < 100


def test_a_key_of_another_kind_fails_at_once(cloudformation: CloudFormation) -> None:
    answer = cloudformation.ask("Create", a_key("ECC_NIST_P384"))
    assert (answer["Status"], cloudformation.waited) == ("FAILED", 0)
    assert "ECC_NIST_P256" in answer["Reason"]
