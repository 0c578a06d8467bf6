"""Requests to the API, the parsing of its responses, waiting for a start, and error messages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from support.laptop import REGION, notebook_json

from notebook_ssh_client import lookup
from notebook_ssh_client.api import ApiError
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.lookup import NotebookInfo
from notebook_ssh_client.settings import Stack

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPt4"
STACK = Stack("team", "team", REGION, "http://127.0.0.1:9/v1", "work")


def connectable(name: str = "demo", **overrides: Any) -> dict[str, Any]:
    return notebook_json(name, **{"host": "0.tcp.ngrok.io", "port": 17887, "host_keys": [HOST_KEY], **overrides})


def test_requests_are_signed_for_the_api(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = connectable()
    laptop.setup(api)
    assert laptop.run_client("address", "demo").stdout == "0.tcp.ngrok.io 17887\n"
    for method, path, headers in api.requests:
        assert f"/{REGION}/execute-api/aws4_request" in headers["Authorization"]
        assert headers["X-Amz-Security-Token"] == "token-example"
        assert headers["Authorization"] == expected_authorization(method, api.url + path, headers)


def expected_authorization(method: str, url: str, headers: dict[str, str]) -> str:
    """Return the Authorization header that botocore computes for these headers."""

    class FixedTimeAuth(SigV4Auth):
        def add_auth(self, request: Any) -> None:
            request.context["timestamp"] = headers["X-Amz-Date"]
            self._inject_signature_to_request(  # type: ignore[attr-defined]  # the stubs name what is public alone
                request, self.signature(self.string_to_sign(request, self.canonical_request(request)), request)
            )

    signed = {name: headers[name] for name in ("Accept", "X-Amz-Date", "X-Amz-Security-Token")}
    request = AWSRequest(method=method, url=url, headers=signed)
    auth = FixedTimeAuth(Credentials("AKIAEXAMPLE", "secret-example", "token-example"), "execute-api", REGION)
    auth.add_auth(request)
    return str(request.headers["Authorization"])


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("is_older", [True, False])
def test_a_name_in_other_capitals_is_asked_for_as_sagemaker_spells_it(
    laptop: Any, api: Any, is_listed: bool, is_older: bool
) -> None:
    api.compares_capitals = not is_older
    if not is_listed:
        laptop.setup(api)
    api.notebooks["my-notebook"] = connectable("My-Notebook")
    if is_listed:
        laptop.setup(api)
    for command in ("address", "doctor"):
        done = laptop.run_client(command, "mY-notebook")
        assert "My-Notebook" in done.stdout or done.stdout == "0.tcp.ngrok.io 17887\n", done.stderr
    asked = api.request_count("/notebooks/mY-notebook")
    assert asked == (0 if is_listed else 2)
    assert api.request_count("/notebooks/My-Notebook/doctor") == 1


def test_environment_variable_overrides_api_url(laptop: Any, api: Any, other_api: Any) -> None:
    laptop.setup(api)
    other_api.notebooks["demo"] = connectable()
    laptop.environment["AWS_ENDPOINT_URL_EXECUTE_API"] = other_api.url
    assert laptop.run_client("address", "demo").returncode == 0
    assert api.request_count("/notebooks/demo") == 0


@pytest.mark.parametrize(
    ("response", "exit_code", "message"),
    [
        ((403, {"message": "The security token included in the request is expired"}), 3, "expired; set new temporary"),
        ((403, {"message": "The security token included in the request is invalid."}), 3, "set new temporary"),
        (
            (403, {"Message": "User: x is not authorized to perform: execute-api:Invoke"}),
            3,
            "is not allowed to call the API",
        ),
        ((403, {"message": "Forbidden"}), 3, "is not allowed to call the API"),
        ((404, {"message": "Not Found"}), 1, "is not the API of a notebook-ssh stack"),
        (
            (400, {"error": "bad-name", "message": "The name is wrong."}),
            1,
            "stack team returned an error: The name is wrong.",
        ),
        ((200, ["surprise"]), 1, "update notebook-ssh"),
    ],
)
def test_error_response_is_one_line_with_the_next_step(
    laptop: Any, api: Any, response: tuple[int, Any], exit_code: int, message: str
) -> None:
    laptop.setup(api)
    api.queued_responses.append(response)
    result = laptop.run_client("address", "demo")
    assert result.returncode == exit_code
    assert message in result.stderr
    assert result.stderr.startswith("notebook-ssh: ")
    assert result.stderr.count("\n") == 1


def test_server_errors_are_retried(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    api.notebooks["demo"] = connectable()
    api.queued_responses += [(502, {}), (429, {})]
    assert laptop.run_client("address", "demo").returncode == 0
    api.queued_responses += [(503, {})] * 3
    result = laptop.run_client("address", "demo")
    assert (result.returncode, "returned status 503" in result.stderr) == (6, True)


def test_api_is_unreachable(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    api.server.shutdown()
    api.server.server_close()
    result = laptop.run_client("address", "demo")
    assert result.returncode == 6
    assert "cannot reach the API of stack team" in result.stderr


def test_unknown_name_suggests_a_similar_one(laptop: Any, api: Any) -> None:
    api.notebooks["my-notebook"] = connectable("My-Notebook")
    laptop.setup(api)
    result = laptop.run_client("address", "my-notebok")
    assert (result.returncode, "did you mean My-Notebook?" in result.stderr) == (4, True)
    assert "run: notebook-ssh list" in laptop.run_client("address", "zzz").stderr


@pytest.mark.parametrize("name", ["a_b", "-a", "a b", "a/../b", "a" * 64, "", "a;b"])
def test_invalid_name_sends_no_request(laptop: Any, api: Any, name: str) -> None:
    laptop.setup(api)
    before = len(api.requests)
    assert laptop.run_client("address", "--", name).returncode == 4
    assert len(api.requests) == before


def test_without_setup(laptop: Any) -> None:
    result = laptop.run_client("list")
    assert (result.returncode, result.stderr) == (
        2,
        "notebook-ssh: no stack is configured; run: notebook-ssh setup\n",
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no AWS credentials found on this machine; run: aws configure sso, or choose a profile"),
        ("", "AWS profile 'work' does not exist"),
        (
            "[profile work]\nsso_session = s\nsso_account_id = 111122223333\nsso_role_name = r\nregion = eu-west-1\n"
            "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://example.com/start\n",
            "run: aws sso login --profile work",
        ),
        ("[profile work]\ncredential_process = false\n", "AWS credentials could not be loaded"),
    ],
)
def test_missing_or_expired_credentials(laptop: Any, api: Any, config: str | None, message: str) -> None:
    laptop.setup(api)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        del laptop.environment[name]
    if config is not None:
        (laptop.folder / ".aws").mkdir()
        (laptop.folder / ".aws" / "config").write_text(config)
        laptop.environment["AWS_PROFILE"] = "work"
    result = laptop.run_client("address", "demo")
    assert (result.returncode, message in result.stderr) == (3, True), result.stderr
    if "sso" in (config or ""):
        assert "Traceback" not in result.stderr


def test_list(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = connectable()
    laptop.setup(api)
    heading, row = laptop.run_client("list").stdout.splitlines()
    assert heading.split() == ["NAME", "MODES", "STATUS", "ADDRESS", "SINCE", "SSH", "LAST", "USED"]
    assert re.fullmatch(
        r"demo  ngrok  connected  0\.tcp\.ngrok\.io:17887  2026-07-01 08:00Z \(\d+ d ago\) +ssh demo +-", row
    )
    assert json.loads(laptop.run_client("list", "--json").stdout)[0]["stack"] == "team"


def test_doctor_adds_a_check_from_this_machine(laptop: Any, api: Any, sshd: Any) -> None:
    server = sshd()
    api.notebooks["demo"] = server.notebook_json("demo")
    laptop.setup(api)
    checks = json.loads(laptop.run_client("doctor", "--json", "demo").stdout)["checks"]
    assert [check["check"] for check in checks] == ["tag", "from-here"]
    assert checks[1]["reason"].startswith(f"127.0.0.1 port {server.port} answers with SSH-2.0-")
    server.stop()
    result = laptop.run_client("doctor", "demo")
    assert result.returncode == 5
    assert "  failed   from-here     127.0.0.1 port" in result.stdout
    api.notebooks["demo"] = notebook_json("demo", "stopped")
    assert (
        "  waiting  from-here     there is no address to connect to yet\n" in laptop.run_client("doctor", "demo").stdout
    )


@pytest.mark.parametrize(
    "invalid",
    [
        {"host": "-oProxyCommand=x"},
        {"host": "a b"},
        {"port": 0},
        {"port": "22; x"},
        {"host_keys": ["ssh-ed25519 AAAA\n* ssh-rsa BBBB"]},
        {"host_keys": ["@cert-authority * ssh-rsa AAAA"]},
        {"jump": "me@-x"},
        {"jump": "me@bastion:0"},
        {"jump": "bastion"},
    ],
)
def test_invalid_values_in_a_response_are_rejected(invalid: dict[str, Any]) -> None:
    with pytest.raises(CliError, match="the API returned an invalid"):
        lookup.parse_address(notebook_info(connectable(**invalid)))


def test_response_without_host_keys_is_rejected() -> None:
    with pytest.raises(CliError, match="not reported its host keys"):
        lookup.parse_address(notebook_info(connectable(host_keys=[])))


def test_bastion_of_a_response_is_parsed() -> None:
    assert lookup.parse_address(notebook_info(connectable(jump="me@bastion.example.com"))).bastion == (
        "bastion.example.com",
        "me",
        22,
    )
    assert lookup.parse_address(notebook_info(connectable(jump="me@10.0.0.1:2222"))).bastion == ("10.0.0.1", "me", 2222)


@pytest.mark.parametrize(("jump", "port"), [("me@[2001:db8::5]", 22), ("me@[2001:db8::5]:2222", 2222)])
def test_a_bastion_with_an_ipv6_address_is_parsed(jump: str, port: int) -> None:
    """The API writes it as ssh(1), -J, takes it."""
    assert lookup.parse_address(notebook_info(connectable(jump=jump))).bastion == ("2001:db8::5", "me", port)


class FakeApiClient:
    """An API client that returns one response after the other, and a clock that only sleeping advances."""

    def __init__(self, *responses: dict[str, Any], conflicts: int = 0) -> None:
        self.responses, self.conflicts = list(responses), conflicts
        self.starts, self.time = 0, 0.0
        self.printed: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        return self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]

    def post(self, path: str) -> dict[str, Any]:
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "stopping", "It is still stopping.")
        self.starts += 1
        return {}

    def wait(self, *, start: bool, timeout_s: float = 900) -> NotebookInfo:
        first = NotebookInfo(STACK, self, "demo", self.get(""))  # type: ignore[arg-type]
        return lookup.wait_until_connectable(
            first,
            start=start,
            timeout_s=timeout_s,
            clock=lambda: self.time,
            sleep=self.sleep,
            waiting=self.printed.append,
        )

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_waiting_requests_one_start() -> None:
    stopped, starting = notebook_json("demo", "stopped"), notebook_json("demo", "starting")
    client = FakeApiClient(stopped, stopped, starting, starting, connectable())
    assert client.wait(start=True).status == "connected"
    assert (client.starts, client.time) == (1, 20)
    assert len(client.printed) == 2  # one line for each status, not for each request


def test_start_is_retried_while_the_notebook_is_stopping() -> None:
    stopped = notebook_json("demo", "stopped")
    client = FakeApiClient(stopped, stopped, stopped, connectable(), conflicts=2)
    client.wait(start=True)
    assert client.starts == 1


def test_waits_for_a_start_by_another_user() -> None:
    client = FakeApiClient(notebook_json("demo", "starting"), connectable())
    client.wait(start=False)
    assert client.starts == 0


@pytest.mark.parametrize("status", ["off", "error", "expired", "pending-restart", "pending-stop", "invalid-tag"])
def test_does_not_wait_in_a_status_that_needs_action(status: str) -> None:
    client = FakeApiClient(notebook_json("demo", status))
    assert client.wait(start=True).status == status
    assert (client.starts, client.time) == (0, 0)


def test_waiting_times_out() -> None:
    client = FakeApiClient(notebook_json("demo", "starting"))
    with pytest.raises(CliError, match="not ready after 15 min 00 s"):
        client.wait(start=False)
    assert client.time <= 900 + lookup.POLL_INTERVAL_S
    assert len(client.printed) == 31  # a progress line every 30 seconds


def test_start_waits_and_prints_how_to_connect(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = notebook_json("demo", "stopped")
    api.on_start = lambda _: api.notebooks.update(demo=connectable())
    laptop.setup(api)
    result = laptop.run_client("start", "demo")
    assert (result.returncode, result.stderr.splitlines()[-1]) == (0, "demo is connected. Connect with: ssh demo")
    assert laptop.run_client("start", "demo").returncode == 0
    assert api.request_count("/notebooks/demo/start") == 1


def test_start_that_the_stack_refuses_prints_its_message(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    error = {"error": "not-wakeable", "message": "demo has no tag ssh-wake=yes."}
    api.queued_responses += [(200, notebook_json("demo", "stopped")), (403, error)]
    result = laptop.run_client("start", "demo")
    assert (result.returncode, result.stderr) == (5, "notebook-ssh: demo has no tag ssh-wake=yes.\n")


def notebook_info(response: dict[str, Any]) -> NotebookInfo:
    return NotebookInfo(STACK, None, "demo", response)  # type: ignore[arg-type]
