"""docs/openapi.yaml against the deployed API over HTTP: requests made up from the description, answers held to it.

tests/template/test_openapi.py compares the description with template.yaml and with answers of every kind of record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis import GenerationMode, Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.examples import examples

import processes
from emulator.process import ACCOUNT, PROJECT, REGION
from environment import LocalEnv

DESCRIPTION = schemathesis.openapi.from_path(PROJECT / "docs" / "openapi.yaml")
ELSEWHERE = "/notebooks/{name}/certificate"
"""Only deployed with certificates: tests/integration/test_certificates.py asks for some."""

OPERATIONS: list[Any] = [
    operation
    for operation in (cast("Any", found).ok() for found in DESCRIPTION.get_all_operations())
    if operation.path != ELSEWHERE
]
OPERATION_NAMES = [f"{operation.method.upper()} {operation.path}" for operation in OPERATIONS]
NAME = "described"
"""The notebook and the role that ask."""
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


class Signed(AuthBase):
    """Signs what schemathesis sends with a role's session; headers that it makes up are sent and not signed."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        credentials = Credentials(
            keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN")
        )
        self._signer = SigV4Auth(credentials, "execute-api", REGION)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        signed = AWSRequest(method=request.method, url=request.url, data=request.body or b"")
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers))
        return request


@dataclass(frozen=True)
class Asked:
    """A notebook that the stack knows, and its own role as the one who asks."""

    env: LocalEnv
    name: str
    auth: Signed


@pytest.fixture(scope="module")
def audited(env: LocalEnv) -> Iterator[None]:
    """The stack keeps an access log, which the role of `asked` may read."""
    env.update(AccessDays="1", AuditPrincipals=f"arn:aws:iam::{ACCOUNT}:role/{NAME}")
    yield
    env.update()


@pytest.fixture(scope="module")
def unlimited(env: LocalEnv, audited: None) -> Iterator[None]:
    """The routes of lists answer at any rate: template.yaml lets them answer once in five seconds or so."""
    gateway = env.emulator.client("apigateway")
    api, stage = env.stack.api.rsplit("/", 2)[1:]
    settings = gateway.get_stage(restApiId=api, stageName=stage)["methodSettings"]
    rates = {each: value["throttlingRateLimit"] for each, value in settings.items() if each.endswith("/GET")}

    def limit(rates: dict[str, float]) -> None:
        for each, rate in rates.items():
            path, _, method = each.rpartition("/")
            setting = f"/{path.replace('/', '~1')}/{method}/throttling/rateLimit"
            change = {"op": "replace", "path": setting, "value": str(rate)}
            gateway.update_stage(restApiId=api, stageName=stage, patchOperations=[change])

    assert max(rates.values()) <= 1
    limit(dict.fromkeys(rates, 1000.0))
    yield
    limit(rates)


@pytest.fixture(scope="module")
def asked(env: LocalEnv, unlimited: None) -> Asked:
    iam = env.emulator.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
        ],
    }
    made = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    session = env.emulator.client("sts").assume_role(RoleArn=made["Arn"], RoleSessionName="SageMaker")["Credentials"]
    env.create_notebook(NAME, role=NAME)
    env.tag(NAME, ssh="ngrok", ssh_wake="yes")
    processes.wait_until("it is known", lambda: env.curl(f"/notebooks/{NAME}").status == 200)
    keys = {
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }
    return Asked(env, NAME, Signed(keys))


def bounded(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many requests; none is made shorter, which would take many more."""
    return settings(examples(number, *HealthCheck), phases=(Phase.generate,))


def cases(operation: Any, mode: GenerationMode) -> SearchStrategy[Any]:
    """Requests to `operation`, as described or not."""
    drawn: SearchStrategy[Any] = operation.as_strategy(generation_mode=mode)
    return drawn


def hold_to_description(case: Any, asked: Asked) -> Response:
    """Send `case`; fail unless the answer is one that the description has for it. The gateway's refusals are its own."""
    response: Response = case.call(base_url=asked.env.stack.api, auth=asked.auth)
    if response.headers.get("cache-control") == ["no-store"]:
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500, response.content
    else:
        assert response.status_code in (400, 403, 404, 415), response.content
        assert case.meta.generation.mode is GenerationMode.NEGATIVE, "a good request did not reach the function"
    return response


@pytest.mark.parametrize("operation", OPERATIONS, ids=OPERATION_NAMES)
def test_what_is_described_is_answered_as_described(asked: Asked, operation: Any) -> None:
    """About names that nobody knows, and about a notebook that is there."""
    statuses = set()

    @bounded(5)
    @given(case=cases(operation, GenerationMode.POSITIVE))
    def strangers(case: Any) -> None:
        statuses.add(hold_to_description(case, asked).status_code)

    @bounded(5)
    @given(case=cases(operation, GenerationMode.POSITIVE))
    def its_own(case: Any) -> None:
        case.path_parameters["name"] = asked.name
        statuses.add(hold_to_description(case, asked).status_code)

    strangers()
    if "{name}" in operation.path:
        its_own()
        assert statuses != {404}, "only strangers were asked about"


@pytest.mark.parametrize("operation", OPERATIONS, ids=OPERATION_NAMES)
def test_what_is_not_described_does_no_harm(asked: Asked, operation: Any) -> None:
    @bounded(8)
    @given(case=cases(operation, GenerationMode.NEGATIVE))
    def anything(case: Any) -> None:
        hold_to_description(case, asked)

    anything()
