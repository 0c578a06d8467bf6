"""The function that signs: real requests in, certificates that OpenSSH reads out, with a key of moto's KMS."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.api_env import CONTEXT, ApiEnv, api_env
from support.builders import NOW, a_record, an_api_event

from issue_certificate import handler as issue_certificate
from notebook_ssh.adapters import access_log, secrets
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.signing_key import public_key_info
from notebook_ssh.adapters.table import Table
from notebook_ssh.controllers import certificate
from notebook_ssh.model.access import entries
from notebook_ssh.model.certificate import authority_line
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.text import iso_time

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBI6q1bjcIVxL5Q0TrEQ0MSGUj6bJ8sAKp7hTkgyvIJD"
ARN = "arn:aws:sts::123456789012:assumed-role/data-science/mario"
ROUTE = "/notebooks/{name}/certificate"


class Issuer:
    """The function, and what it is called with."""

    def __init__(self, env: ApiEnv) -> None:
        self.env = env
        self.signed: list[dict[str, Any]] = []

    def knows(self, **parts: Any) -> Record:
        return self.env.knows(a_record(**({"name": "Demo", "created_at": NOW - 5000} | parts)))

    def ask(self, name: str = "Demo", arn: str = ARN, body: Any = None, **parts: Any) -> tuple[int, Any]:
        event = an_api_event("POST", ROUTE, name, **({"path": f"/notebooks/{name}/certificate"} | parts))
        event["requestContext"]["identity"] |= {"userArn": arn, "caller": "AROAEXAMPLE:mario"}
        given = {"public_key": KEY} if body is None else body
        event["body"] = given if isinstance(given, str) else json.dumps(given)
        answer = issue_certificate.handle(event, CONTEXT, clock=lambda: self.env.now)
        return answer["statusCode"], json.loads(answer["body"])


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    with api_env(monkeypatch) as env:
        kms = client("kms")
        key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
        monkeypatch.setenv("CERTIFICATE_KEY", key)
        monkeypatch.setenv("CERTIFICATE_AUTHORITIES", authority_line(public_key_info(key)))
        monkeypatch.setenv("CERTIFICATE_SECONDS", "1800")
        certificate.forget()
        issuer = Issuer(env)
        sign = kms.sign

        def noted(**given: Any) -> Any:
            issuer.signed.append(given)
            return sign(**given)

        monkeypatch.setattr(kms, "sign", noted)
        yield issuer


def test_a_caller_gets_a_certificate_for_one_notebook(issuer: Issuer, tmp_path: Path) -> None:
    issuer.knows()
    status, body = issuer.ask(body={"public_key": KEY + " mario@laptop", "seconds": 600})
    assert (status, body["valid_before"], body["server_time"]) == (201, NOW + 600, NOW)
    assert body["principal"] == f"team-ssh/Demo/{NOW - 5000}"
    path = tmp_path / "id-cert.pub"
    path.write_text(body["certificate"] + "\n")
    said = subprocess.run(["ssh-keygen", "-L", "-f", path], capture_output=True, text=True, check=True).stdout
    assert f'Key ID: "{ARN} AROAEXAMPLE:mario"' in said
    assert f"Serial: {body['serial']}" in said
    assert body["principal"] in said


def test_one_signature_for_each_and_in_the_way_that_the_key_policy_allows(issuer: Issuer) -> None:
    issuer.knows()
    bodies = [issuer.ask()[1] for _ in range(3)]
    assert len({body["serial"] for body in bodies}) == 3
    assert [(each["MessageType"], each["SigningAlgorithm"]) for each in issuer.signed] == [("RAW", "ECDSA_SHA_256")] * 3
    assert len({bytes(each["Message"]) for each in issuer.signed}) == 3


def test_the_roles_of_all_notebooks_are_read_once_a_minute(issuer: Issuer) -> None:
    issuer.knows()
    issuer.env.since()
    for _ in range(3):
        issuer.ask()
    assert issuer.env.since() == {"GetItem": 3, "Query": 1, "GetParametersByPath": 1}
    issuer.env.now += certificate.ROLES_MAX_AGE_S
    issuer.ask()
    assert issuer.env.since() == {"GetItem": 1, "Query": 1, "GetParametersByPath": 1}


@pytest.mark.parametrize(
    ("seconds", "until", "end"),
    [(None, None, 1800), (60, None, 60), (999_999, None, 1800), (None, 300, 300), (60, 300, 60)],
)
def test_it_ends_with_access_at_the_latest(issuer: Issuer, seconds: int | None, until: int | None, end: int) -> None:
    issuer.knows(spec=NotebookSpec(modes=(Mode.NGROK,), until=until and NOW + until))
    _, body = issuer.ask(body={"public_key": KEY} | ({"seconds": seconds} if seconds else {}))
    assert body["valid_before"] == NOW + end


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", 400, "bad-request"),
        ("{", 400, "bad-request"),
        ("[]", 400, "bad-request"),
        ("[" * 5000, 400, "bad-request"),
        ({"public_key": KEY, "seconds": 0}, 400, "bad-request"),
        ({"public_key": KEY, "seconds": -1}, 400, "bad-request"),
        ({"public_key": KEY, "seconds": True}, 400, "bad-request"),
        ({"public_key": KEY, "seconds": "600"}, 400, "bad-request"),
        ({"public_key": KEY, "seconds": 1e400}, 400, "bad-request"),
        ({}, 400, "bad-key"),
        ({"public_key": None}, 400, "bad-key"),
        ({"public_key": [KEY]}, 400, "bad-key"),
        ({"public_key": "restrict " + KEY}, 400, "bad-key"),
        ({"public_key": KEY + "\n" + KEY}, 400, "bad-key"),
        ({"public_key": KEY[:-4]}, 400, "bad-key"),
        ({"public_key": KEY, "more": 9000 * "x"}, 413, "too-large"),
    ],
)
def test_what_is_no_request_is_refused_and_nothing_signed(issuer: Issuer, body: Any, status: int, error: str) -> None:
    issuer.knows()
    answer = issuer.ask(body=body)
    assert (answer[0], answer[1]["error"]) == (status, error)
    assert issuer.signed == []


def test_a_stranger_a_notebooks_role_and_another_spelling_are_refused(issuer: Issuer) -> None:
    issuer.knows()
    issuer.env.knows(a_record(name="other", role="other-role"))
    of_other = "arn:aws:sts::123456789012:assumed-role/other-role/SageMaker"
    answers = [
        issuer.ask(arn="arn:aws:sts::210987654321:assumed-role/data-science/mario"),
        issuer.ask(arn="arn:aws:sts::123456789012:assumed-role/demo-role/SageMaker"),
        issuer.ask(arn=of_other),
        issuer.ask(name="demo"),
        issuer.ask(path="/notebooks/%44emo/certificate"),
        issuer.ask(name="nobody"),
        issuer.ask(name="-"),
    ]
    assert [(status, body["error"]) for status, body in answers] == [
        (403, "not-a-principal"),
        (403, "notebook-role"),
        (403, "notebook-role"),
        (409, "other-spelling"),
        (409, "other-spelling"),
        (404, "unknown-notebook"),
        (400, "bad-name"),
    ]
    assert issuer.signed == []


def test_none_while_the_stack_is_paused(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer.knows()
    monkeypatch.setenv("PAUSED", "true")
    status, body = issuer.ask()
    assert (status, body["error"], issuer.signed) == (503, "paused", [])


@pytest.mark.parametrize(
    ("attributes", "answers"),
    [
        ({"name": {"N": "1"}, "role": {"S": "other-role"}}, (201, 403)),
        ({"role": {"S": "other-role"}}, (201, 403)),
        ({"name": {"S": "broken"}, "role": {"L": []}}, (503, 503)),
        ({"name": {"S": "broken"}, "role": {"N": "7"}}, (503, 503)),
    ],
)
def test_an_unreadable_record_hides_no_role(issuer: Issuer, attributes: Any, answers: tuple[int, int]) -> None:
    """Who asks is a usual caller, and the role of the notebook whose record has another form."""
    issuer.knows()
    client("dynamodb").put_item(
        TableName="records", Item={"pk": {"S": "notebook"}, "sk": {"S": "broken"}, **attributes}
    )
    roles_own = issuer.ask(arn="arn:aws:sts::123456789012:assumed-role/other-role/SageMaker")
    assert (issuer.ask()[0], roles_own[0]) == answers


@pytest.mark.parametrize(
    "code", ["DisabledException", "KMSInvalidStateException", "NotFoundException", "AccessDeniedException"]
)
def test_a_key_that_cannot_sign_is_named_with_what_an_admin_does(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def refused(**given: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "arn:aws:kms:secret detail"}}, "Sign")

    monkeypatch.setattr(client("kms"), "sign", refused)
    issuer.knows()
    status, body = issuer.ask()
    assert (status, body["error"]) == (503, "signing-key-unavailable")
    assert "docs/security.md" in body["message"]
    assert "secret detail" not in json.dumps(body)


@pytest.mark.parametrize("code", ["ThrottlingException", "KMSInternalException"])
def test_a_key_that_is_busy_is_asked_again_later(issuer: Issuer, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def busy(**given: Any) -> Any:
        response: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 500}}
        raise ClientError(response, "Sign")

    monkeypatch.setattr(client("kms"), "sign", busy)
    issuer.knows()
    status, body = issuer.ask()
    assert (status, body["error"]) == (503, "later")


def test_the_log_says_who_got_it_and_nothing_of_the_key(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    issuer.knows()
    with caplog.at_level(logging.INFO):
        _, body = issuer.ask()
    (line,) = [each for each in caplog.records if each.message == "certificate issued"]
    assert (line.notebook, line.key_id) == ("Demo", f"{ARN} AROAEXAMPLE:mario")  # type: ignore[attr-defined]
    assert str(line.serial) == body["serial"]  # type: ignore[attr-defined]
    assert KEY.split()[1] not in caplog.text


def test_who_gets_one_is_written_before_it_is_signed(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCESS_DAYS", "30")
    issuer.knows()
    _, body = issuer.ask(body={"public_key": KEY, "seconds": 600})
    (entry,) = entries(access_log.read(Table("records")))["entries"]
    assert (entry["kind"], entry["witness"], entry["notebook"]) == ("certificate", "stack", "Demo")
    assert (entry["id"], entry["who"]) == (body["serial"], f"{ARN} AROAEXAMPLE:mario")
    assert (entry["from"], entry["begin"], entry["end"]) == ("203.0.113.7", iso_time(NOW), iso_time(NOW + 600))

    def refused(**given: Any) -> Any:
        raise ClientError({"Error": {"Code": "DisabledException", "Message": ""}}, "Sign")

    monkeypatch.setattr(client("kms"), "sign", refused)
    assert issuer.ask()[0] == 503
    assert len(entries(access_log.read(Table("records")))["entries"]) == 2


def test_none_is_signed_that_cannot_be_written_down(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCESS_DAYS", "30")
    issuer.knows()

    def busy(**given: Any) -> Any:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, "UpdateItem")

    monkeypatch.setattr(client("dynamodb"), "update_item", busy)
    status, body = issuer.ask()
    assert (status, body["error"], issuer.signed) == (503, "later", [])


def revoke(text: str) -> None:
    """As `notebook-ssh revoke` does."""
    client("ssm").put_parameter(Name=f"/keys/revoked/{abs(hash(text))}", Value=text, Type="String", Overwrite=True)
    secrets.forget()


def test_a_withdrawn_caller_gets_none_and_others_one_of_the_next_generation(issuer: Issuer, tmp_path: Path) -> None:
    issuer.knows()
    before = issuer.ask()[1]["principal"]
    revoke("4711")
    status, body = issuer.ask()
    assert status == 201, "a serial withdraws one certificate, and nobody"
    assert body["principal"].startswith(before + "/")
    (tmp_path / "id-cert.pub").write_text(body["certificate"] + "\n")
    said = subprocess.run(
        ["ssh-keygen", "-L", "-f", tmp_path / "id-cert.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert body["principal"] in said
    signed = len(issuer.signed)
    for text in (ARN, "arn:aws:iam::123456789012:role/data-science"):
        revoke(text)
        status, body = issuer.ask()
        assert (status, body["error"], len(issuer.signed)) == (403, "revoked", signed)
        client("ssm").delete_parameter(Name=f"/keys/revoked/{abs(hash(text))}")
        secrets.forget()


def test_none_is_signed_while_it_is_unknown_what_was_withdrawn(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(**given: Any) -> Any:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, "GetParametersByPath")

    issuer.knows()
    monkeypatch.setattr(client("ssm"), "get_parameters_by_path", busy)
    secrets.forget()
    assert issuer.ask()[0] == 503
    assert issuer.signed == []
