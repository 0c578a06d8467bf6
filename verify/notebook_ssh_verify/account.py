"""The AWS account as a run sees it: calls, each of them kept as evidence until the next experiment takes it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import botocore.session
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from notebook_ssh_verify.findings import Evidence
from notebook_ssh_verify.redaction import LONGEST, redact, shorten

MOST_EVIDENCE = 12
"""Calls that are kept for one experiment: the first and the last half of them."""

ROLE_LIMIT_S = 120.0
"""Seconds until a new role can be assumed: IAM is eventually consistent (IAM User Guide, "Troubleshoot IAM")."""

_RETRIED = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
_ONCE = Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60, max_pool_connections=40)


class Refusal(NamedTuple):
    """An error that AWS answered. code and message: AWS's own; status: the HTTP status."""

    code: str
    message: str
    status: int


class AwsError(Exception):
    """AWS refused a call that must succeed, or did not answer."""

    def __init__(self, call: str, refusal: Refusal) -> None:
        super().__init__(f"{call}: {refusal.code}: {refusal.message}")
        self.call, self.refusal = call, refusal


class Account:
    """An account and a region, as one principal. Calls are named as botocore's clients name them."""

    def __init__(self, session: botocore.session.Session, region: str) -> None:
        self.session, self.region = session, region
        self._clients: dict[tuple[str, bool], Any] = {}
        self._evidence: list[Evidence] = []
        self._roles_until = 0.0

    def call(self, service: str, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what AWS answers. Raises AwsError."""
        answer = self.attempt(service, method, **parameters)
        if isinstance(answer, Refusal):
            raise AwsError(f"{service}:{method}", answer)
        return answer

    def attempt(self, service: str, method: str, *, retry: bool = True, **parameters: Any) -> dict[str, Any] | Refusal:
        """Return what AWS answers, be it an error. retry: after throttling and lost connections, as SDKs do.

        Raises AwsError if AWS does not answer at all.
        """
        client = self.client(service, retry=retry)
        operation = client.meta.method_to_api_mapping.get(method, method)
        named = f"{service}:{operation}"
        try:
            answer: dict[str, Any] = getattr(client, method)(**parameters)
        except ClientError as error:
            refusal = _refusal(error)
            self.note(f"{named} {_brief(parameters)}", f"{refusal.status} {refusal.code}: {refusal.message}")
            return refusal
        except BotoCoreError as error:
            self.note(f"{named} {_brief(parameters)}", f"no answer: {error}")
            raise AwsError(named, Refusal(type(error).__name__, str(error), 0)) from error
        told = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
        self.note(f"{named} {_brief(parameters)}", _brief(told))
        return answer

    def client(self, service: str, *, retry: bool = True) -> Any:
        """Return botocore's client of a service, for what is no evidence."""
        key = service, retry
        if key not in self._clients:
            config = _RETRIED if retry else _ONCE
            self._clients[key] = self.session.create_client(service, region_name=self.region, config=config)
        return self._clients[key]

    def keys(self) -> ReadOnlyCredentials:
        """Return the keys that sign, for programs that do so themselves. Raises NoCredentialsError."""
        credentials = self.session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen: ReadOnlyCredentials = credentials.get_frozen_credentials()
        return frozen

    def as_role(self, arn: str, name: str) -> Account:
        """Return the account as a session of a role sees it, once it can be assumed. Raises AwsError after two minutes.

        Calls of either are evidence of this one.
        """
        # All roles of a run are created at once: what is refused for so long is refused for good.
        self._roles_until = self._roles_until or time.monotonic() + ROLE_LIMIT_S
        while True:
            answer = self.attempt("sts", "assume_role", RoleArn=arn, RoleSessionName=name, DurationSeconds=3600)
            if not isinstance(answer, Refusal):
                break
            if time.monotonic() > self._roles_until:
                raise AwsError("sts:AssumeRole", answer)
            time.sleep(2)
        keys = answer["Credentials"]
        session = botocore.session.Session()
        session.set_credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        other = Account(session, self.region)
        other._evidence = self._evidence
        return other

    def note(self, call: str, answer: str) -> None:
        """Keep a call as evidence, redacted and shortened; for calls that are not the SDK's."""
        self._evidence.append(Evidence(shorten(redact(call)), shorten(redact(answer))))

    def take_evidence(self) -> tuple[Evidence, ...]:
        """Return what was called since the last time."""
        half = MOST_EVIDENCE // 2
        calls = list(dict.fromkeys(self._evidence))
        self._evidence.clear()
        return tuple(calls if len(calls) <= MOST_EVIDENCE else calls[:half] + calls[-half:])


def _refusal(error: ClientError) -> Refusal:
    told = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return Refusal(str(told.get("Code", "")), str(told.get("Message", "")), int(status))


def _brief(value: Mapping[str, Any]) -> str:
    """What is told of parameters or an answer: without what is larger than a report takes (templates, archives)."""
    small = {
        name: each if len(each) <= LONGEST else "…" for name, each in value.items() if isinstance(each, str | bytes)
    }
    return json.dumps({**value, **small}, default=str, ensure_ascii=False)
