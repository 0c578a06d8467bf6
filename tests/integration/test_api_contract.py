"""The deployed API over HTTP, signed by real curl and by botocore, IAM enforced: who is let in, and what is refused unread.

`docs/openapi.yaml` says what it answers; test_api_description.py tries that.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

import processes
from emulator.process import ACCOUNT, REGION
from environment import STACK, LocalEnv
from patience import LIMIT_S as LIMIT

Keys = Mapping[str, str]

OTHER_ACCOUNT = "999988887777"
ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

ROUTES: dict[tuple[str, str], tuple[int, str | None]] = {
    ("GET", "/notebooks"): (200, None),
    ("GET", "/ssh-config"): (200, None),
    ("GET", "/known-hosts"): (200, None),
    ("GET", "/plan"): (200, None),
    ("GET", "/notebooks/contract"): (200, None),
    ("GET", "/notebooks/contract/ssh"): (409, "no-address"),
    ("GET", "/notebooks/contract/address"): (409, "no-address"),
    ("GET", "/notebooks/contract/ssh-config"): (409, "no-address"),
    ("GET", "/notebooks/contract/known-hosts"): (409, "no-address"),
    ("GET", "/notebooks/contract/doctor"): (200, None),
    ("POST", "/notebooks/contract/start"): (403, "not-wakeable"),
    ("POST", "/notebooks/contract/report"): (403, "other-role"),
}
"""What the functions answer to a role of the account about a notebook that never reported: status and error."""

A_REPORT = json.dumps(
    {
        "boot": "0b5e0c4e-8f6b-4a52-9c5e-1f6a2f1d0a55",
        "booted_at": 1,
        "sequence": 1,
        "modes": ["ngrok"],
        "phase": "failed",
        "problem": {"code": "ngrok-failed", "message": "é ü 日本"},
    },
    ensure_ascii=False,
)


@dataclass(frozen=True)
class Response:
    status: int
    body: str


# ---- two ways to sign ----------------------------------------------------------------------------


def by_curl(url: str, method: str, keys: Keys, body: str = "") -> Response:
    """Signed and sent by real curl, whichever version is installed."""
    token = keys.get("AWS_SESSION_TOKEN")
    done = subprocess.run(
        [
            *("curl", "-s", "-X", method, "-w", "\n%{http_code}"),
            *("--aws-sigv4", f"aws:amz:{REGION}:execute-api"),
            *("--user", f"{keys['AWS_ACCESS_KEY_ID']}:{keys['AWS_SECRET_ACCESS_KEY']}"),
            *(("-H", f"x-amz-security-token: {token}") if token else ()),
            *(("-H", "Content-Type: application/json", "--data", body) if body else ()),
            url,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    text, _, status = done.stdout.rpartition("\n")
    return Response(int(status), text)


def by_botocore(url: str, method: str, keys: Keys, body: str = "") -> Response:
    """Signed by botocore, which the agent and the client use."""
    return send(signed(url, method, keys, body))


def signed(url: str, method: str, keys: Keys, body: str = "") -> AWSRequest:
    request = AWSRequest(method=method, url=url, data=body.encode(), headers={"Content-Type": "application/json"})
    credentials = Credentials(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN"))
    SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
    return request


def send(request: AWSRequest) -> Response:
    response = URLLib3Session().send(request.prepare())
    return Response(response.status_code, response.content.decode())


SIGNERS = {"curl": by_curl, "botocore": by_botocore}
Signer = Callable[..., Response]


@pytest.fixture(params=SIGNERS)
def ask(request: pytest.FixtureRequest) -> Signer:
    signer: Signer = SIGNERS[request.param]
    return signer


# ---- whom it knows -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def role(env: LocalEnv) -> dict[str, str]:
    """A session of a role of the account that may do nothing by itself."""
    return session_of_role(env, ACCOUNT, "visitor")


@pytest.fixture(scope="module")
def stranger(env: LocalEnv) -> dict[str, str]:
    """A session of a role of another account, which there may do anything."""
    return session_of_role(env, OTHER_ACCOUNT, "stranger", ANYTHING)


def session_of_role(env: LocalEnv, account: str, name: str, policy: Any = None) -> dict[str, str]:
    # The emulator takes an account's number for the keys of its root user.
    root = {"AWS_ACCESS_KEY_ID": account, "AWS_SECRET_ACCESS_KEY": "test"}
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
        ],
    }
    iam = env.emulator.client("iam", root)
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    if policy:
        iam.put_role_policy(RoleName=name, PolicyName="given", PolicyDocument=json.dumps(policy))
    session = env.emulator.client("sts", root).assume_role(RoleArn=made["Arn"], RoleSessionName="contract")
    given = session["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }


@pytest.fixture(scope="module")
def known(env: LocalEnv) -> str:
    """A notebook that the stack knows and whose agent never speaks."""
    env.create_notebook("contract")
    env.tag("contract", ssh="ngrok")
    processes.wait_until("it is known", lambda: env.curl("/notebooks/contract").status == 200)
    return "contract"


# ---- what was run --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meter:
    """Counts how often the functions behind the API have run, by what they log at each run."""

    env: LocalEnv

    def runs(self, function: str) -> int:
        group, logs = f"/aws/lambda/{STACK}-{function}", self.env.emulator.client("logs")
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        return sum(event["message"].startswith("START ") for page in pages for event in page["events"])

    def item(self, name: str) -> dict[str, Any]:
        key = {"pk": {"S": "notebook"}, "sk": {"S": name}}
        table = self.env.stack.outputs["TableName"]
        return dict(self.env.emulator.client("dynamodb").get_item(TableName=table, Key=key).get("Item", {}))


@pytest.fixture
def nothing_runs(env: LocalEnv, known: str) -> Any:
    """Fails the test when a function that answers people has run because of it, or the notebook's record changed.

    A run is logged before its answer is given, so there is nothing to wait for: the last question shows that.
    """
    meter = Meter(env)
    before = meter.runs("lookup-api"), meter.runs("start-notebook"), meter.item(known)
    yield
    assert (meter.runs("lookup-api"), meter.runs("start-notebook"), meter.item(known)) == before
    assert env.curl(f"/notebooks/{known}").status == 200
    assert meter.runs("lookup-api") == before[0] + 1


# ---- let in --------------------------------------------------------------------------------------


def test_a_role_without_any_policy_may_look_up_and_ask_for_a_start(
    env: LocalEnv, known: str, role: Keys, ask: Signer
) -> None:
    def is_listed() -> bool:
        """In a list that is at most ten seconds old, and that has a limit of its own."""
        listed = ask(f"{env.stack.api}/notebooks", "GET", role)
        return listed.status == 200 and known in [each["name"] for each in json.loads(listed.body)]

    processes.wait_until("the notebook is in the list", is_listed, LIMIT)
    start = ask(f"{env.stack.api}/notebooks/{known}/start", "POST", role)
    assert (start.status, json.loads(start.body)["error"]) == (403, "not-wakeable"), start


@pytest.mark.parametrize(("method", "path", "status", "error"), [(*route, *said) for route, said in ROUTES.items()])
def test_every_route_lets_in_and_the_function_answers(
    env: LocalEnv, known: str, role: Keys, ask: Signer, method: str, path: str, status: int, error: str | None
) -> None:
    answers: list[Response] = []

    def is_answered() -> bool:
        answers[:] = [ask(env.stack.api + path, method, role, A_REPORT if path.endswith("/report") else "")]
        return answers[0].status != 429

    processes.wait_until("the method's own limit lets it through", is_answered, LIMIT)
    (answer,) = answers
    assert answer.status == status
    if error:
        assert json.loads(answer.body)["error"] == error


# ---- refused, and nothing read -------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), list(ROUTES))
@pytest.mark.usefixtures("nothing_runs")
def test_unsigned(env: LocalEnv, method: str, path: str) -> None:
    answer = send(AWSRequest(method=method, url=env.stack.api + path, data="{}" if method == "POST" else ""))
    assert (answer.status, is_the_gateways(answer)) == (403, True)


@pytest.mark.usefixtures("nothing_runs")
def test_a_wrong_secret(env: LocalEnv, role: Keys, ask: Signer) -> None:
    for keys in (env.person.keys, role):
        for method, path in ROUTES:
            answer = ask(env.stack.api + path, method, {**keys, "AWS_SECRET_ACCESS_KEY": "wrong"})
            assert (answer.status, is_the_gateways(answer)) == (403, True)


@pytest.mark.usefixtures("nothing_runs")
def test_a_key_without_an_owner(env: LocalEnv, ask: Signer) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wrong"}
    assert ask(f"{env.stack.api}/notebooks", "GET", keys).status == 403


@pytest.mark.usefixtures("nothing_runs")
def test_a_session_without_its_token_or_with_anothers(env: LocalEnv, role: Keys, stranger: Keys, ask: Signer) -> None:
    without = {name: value for name, value in role.items() if name != "AWS_SESSION_TOKEN"}
    for keys in (without, {**role, "AWS_SESSION_TOKEN": stranger["AWS_SESSION_TOKEN"]}):
        assert ask(f"{env.stack.api}/notebooks", "GET", keys).status == 403


@pytest.mark.usefixtures("nothing_runs")
def test_another_account_however_mighty_there(env: LocalEnv, stranger: Keys, ask: Signer) -> None:
    """Its role allows it everything, so it is the API's own policy that refuses."""
    for method, path in ROUTES:
        answer = ask(env.stack.api + path, method, stranger)
        assert (answer.status, is_the_gateways(answer)) == (403, True), (path, answer)
        assert "not authorized to perform: execute-api:Invoke" in answer.body


@pytest.mark.usefixtures("nothing_runs")
def test_a_signature_that_has_expired(env: LocalEnv, role: Keys) -> None:
    long_ago = (datetime.now(UTC) - timedelta(minutes=20)).replace(tzinfo=None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=long_ago):
        request = signed(f"{env.stack.api}/notebooks", "GET", role)
    answer = send(request)
    assert (answer.status, "Signature expired" in answer.body) == (403, True), answer


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda url: url.replace("/contract", "/other"), id="another notebook"),
        pytest.param(lambda url: url.replace("/contract/ssh", "/contract"), id="a shorter path"),
        pytest.param(lambda url: url.replace("/contract/ssh", "/contract/ssh?x=1"), id="a query"),
        pytest.param(lambda url: url.replace("/contract/ssh", "/contract/ssh/"), id="a slash more"),
    ],
)
@pytest.mark.usefixtures("nothing_runs")
def test_a_path_that_was_not_signed(env: LocalEnv, role: Keys, change: Callable[[str], str]) -> None:
    request = signed(f"{env.stack.api}/notebooks/contract/ssh", "GET", role)
    request.url = change(str(request.url))
    assert request.url != f"{env.stack.api}/notebooks/contract/ssh"
    assert send(request).status == 403


@pytest.mark.usefixtures("nothing_runs")
def test_a_method_or_a_body_that_was_not_signed(env: LocalEnv, role: Keys) -> None:
    request = signed(f"{env.stack.api}/notebooks/contract/start", "GET", role)
    request.method = "POST"
    assert send(request).status == 403
    request = signed(f"{env.stack.api}/notebooks/contract/report", "POST", role, "{}")
    request.data = A_REPORT.encode()
    assert send(request).status == 403


@pytest.mark.usefixtures("nothing_runs")
def test_a_path_that_does_not_exist(env: LocalEnv, role: Keys, ask: Signer) -> None:
    for path in ("/", "/nothing", "/notebooks/contract/nothing", "/notebooks/contract/ssh/more"):
        assert ask(env.stack.api + path, "GET", role).status in (403, 404)
    assert ask(f"{env.stack.api}/notebooks", "DELETE", role).status == 403


def is_the_gateways(answer: Response) -> bool:
    """Whether API Gateway itself answered: its codes, where it gives one, are in capitals, and ours never are."""
    told = json.loads(answer.body)
    return isinstance(told, dict) and bool({"message", "Message"} & set(told)) and told.get("error", "A").isupper()


# ---- canonicalisation ----------------------------------------------------------------------------


def test_names_of_every_allowed_kind_are_signed_alike(env: LocalEnv, role: Keys, ask: Signer) -> None:
    """curl before 8.3 signs what needs escaping otherwise than AWS does: no path of ours has anything to escape."""
    for name in ("a", "A-9", "x" * 63, "9-9", "a--b"):
        answer = ask(f"{env.stack.api}/notebooks/{name}", "GET", role)
        assert (answer.status, json.loads(answer.body)["error"]) == (404, "unknown-notebook")
