"""What the client asks of the API, what it makes of the answers, and how it says that something is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from laptop import REGION, described

from notebook_ssh_client import lookup
from notebook_ssh_client.failures import Failure
from notebook_ssh_client.lookup import Found
from notebook_ssh_client.stacks import Stack

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPt4"
STACK = Stack("team", "team", REGION, "http://127.0.0.1:9/v1", "work")


def reachable(name: str = "demo", **more: Any) -> dict[str, Any]:
    return described(name, **{"host": "0.tcp.ngrok.io", "port": 17887, "host_keys": [KEY], **more})


def test_every_request_is_signed_for_the_api(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = reachable()
    laptop.set_up(api)
    assert laptop.client("address", "demo").stdout == "0.tcp.ngrok.io 17887\n"
    for method, path, headers in api.requests:
        assert f"/{REGION}/execute-api/aws4_request" in headers["Authorization"]
        assert headers["X-Amz-Security-Token"] == "token-example"
        assert headers["Authorization"] == signature(method, api.url + path, headers)


def signature(method: str, url: str, headers: dict[str, str]) -> str:
    """The Authorization header that these headers should carry, by botocore's own rules."""

    class At(SigV4Auth):
        def add_auth(self, request: Any) -> None:
            request.context["timestamp"] = headers["X-Amz-Date"]
            self._inject_signature_to_request(
                request, self.signature(self.string_to_sign(request, self.canonical_request(request)), request)
            )

    signed = {name: headers[name] for name in ("Accept", "X-Amz-Date", "X-Amz-Security-Token")}
    request = AWSRequest(method=method, url=url, headers=signed)
    auth = At(Credentials("AKIAEXAMPLE", "secret-example", "token-example"), "execute-api", REGION)
    auth.add_auth(request)
    return str(request.headers["Authorization"])


def test_the_environment_names_another_address(laptop: Any, api: Any, other_api: Any) -> None:
    laptop.set_up(api)
    other_api.notebooks["demo"] = reachable()
    laptop.environment["AWS_ENDPOINT_URL_EXECUTE_API"] = other_api.url
    assert laptop.client("address", "demo").returncode == 0
    assert api.asked("/notebooks/demo") == 0


@pytest.mark.parametrize(
    ("refusal", "code", "says"),
    [
        ((403, {"message": "The security token included in the request is expired"}), 3, "expired; run: aws sso login"),
        ((403, {"message": "The security token included in the request is invalid."}), 3, "run: aws sso login"),
        ((403, {"Message": "User: x is not authorized to perform: execute-api:Invoke"}), 3, "does not let"),
        ((403, {"message": "Forbidden"}), 3, "does not let"),
        ((404, {"message": "Not Found"}), 1, "is not the API of a notebook-ssh stack"),
        ((400, {"error": "bad-name", "message": "The name is wrong."}), 1, "stack team says: The name is wrong."),
        ((200, ["surprise"]), 1, "update notebook-ssh"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_remedy(
    laptop: Any, api: Any, refusal: tuple[int, Any], code: int, says: str
) -> None:
    laptop.set_up(api)
    api.refusals.append(refusal)
    done = laptop.client("address", "demo")
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.startswith("notebook-ssh: ")
    assert done.stderr.count("\n") == 1


def test_a_fault_of_the_service_is_tried_again(laptop: Any, api: Any) -> None:
    laptop.set_up(api)
    api.notebooks["demo"] = reachable()
    api.refusals += [(502, {}), (429, {})]
    assert laptop.client("address", "demo").returncode == 0
    api.refusals += [(503, {})] * 3
    done = laptop.client("address", "demo")
    assert (done.returncode, "answers 503" in done.stderr) == (6, True)


def test_nobody_answers(laptop: Any, api: Any) -> None:
    laptop.set_up(api)
    api.server.shutdown()
    api.server.server_close()
    done = laptop.client("address", "demo")
    assert done.returncode == 6
    assert "cannot be reached" in done.stderr


def test_an_unknown_name_is_told_from_a_similar_one(laptop: Any, api: Any) -> None:
    api.notebooks["my-notebook"] = reachable("My-Notebook")
    laptop.set_up(api)
    done = laptop.client("address", "my-notebok")
    assert (done.returncode, "did you mean My-Notebook?" in done.stderr) == (4, True)
    assert "run: notebook-ssh list" in laptop.client("address", "zzz").stderr


@pytest.mark.parametrize("name", ["a_b", "-a", "a b", "a/../b", "a" * 64, "", "a;b"])
def test_what_cannot_be_a_name_is_never_asked_for(laptop: Any, api: Any, name: str) -> None:
    laptop.set_up(api)
    asked = len(api.requests)
    assert laptop.client("address", "--", name).returncode == 4
    assert len(api.requests) == asked


def test_without_set_up(laptop: Any) -> None:
    done = laptop.client("list")
    assert (done.returncode, done.stderr) == (
        2,
        "notebook-ssh: no stack is known on this machine yet; run: notebook-ssh setup\n",
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "there are no AWS credentials on this machine; run: aws sso login (or: aws configure)"),
        ("", "AWS profile 'work' does not exist"),
        (
            "[profile work]\nsso_session = s\nsso_account_id = 111122223333\nsso_role_name = r\nregion = eu-west-1\n"
            "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://example.com/start\n",
            "run: aws sso login --profile work",
        ),
        ("[profile work]\ncredential_process = false\n", "your AWS credentials cannot be had"),
    ],
)
def test_credentials_that_are_missing_or_lapsed(laptop: Any, api: Any, config: str | None, says: str) -> None:
    laptop.set_up(api)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        del laptop.environment[name]
    if config is not None:
        (laptop.folder / ".aws").mkdir()
        (laptop.folder / ".aws" / "config").write_text(config)
        laptop.environment["AWS_PROFILE"] = "work"
    done = laptop.client("address", "demo")
    assert (done.returncode, says in done.stderr) == (3, True), done.stderr
    if "sso" in (config or ""):
        assert "Traceback" not in done.stderr


def test_list_and_doctor(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = reachable()
    laptop.set_up(api)
    assert laptop.client("list").stdout.splitlines() == [
        "NAME  MODE   STATUS     ADDRESS               SINCE",
        "demo  ngrok  connected  0.tcp.ngrok.io:17887  2026-07-01T08:00:00Z",
    ]
    assert json.loads(laptop.client("list", "--json").stdout)[0]["stack"] == "team"


def test_doctor_adds_the_way_from_here(laptop: Any, api: Any, sshd: Any) -> None:
    server = sshd()
    api.notebooks["demo"] = server.described("demo")
    laptop.set_up(api)
    hops = json.loads(laptop.client("doctor", "--json", "demo").stdout)["hops"]
    assert [hop["hop"] for hop in hops] == ["tag", "from-here"]
    assert hops[1]["reason"].startswith(f"127.0.0.1 port {server.port} greets with SSH-2.0-")
    server.stop()
    done = laptop.client("doctor", "demo")
    assert done.returncode == 5
    assert "From this machine: failed: 127.0.0.1 port" in done.stdout
    api.notebooks["demo"] = described("demo", "stopped")
    assert laptop.client("doctor", "demo").stdout.endswith("waiting: there is no address to try yet\n")


@pytest.mark.parametrize(
    "bad",
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
def test_an_answer_that_means_more_than_words_goes_nowhere(bad: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="which ssh cannot use"):
        lookup.place_in(found(reachable(**bad)))


def test_without_host_keys_there_is_no_connection() -> None:
    with pytest.raises(Failure, match="not reported its host keys"):
        lookup.place_in(found(reachable(host_keys=[])))


def test_the_way_through_a_bastion() -> None:
    assert lookup.place_in(found(reachable(jump="me@bastion.example.com"))).bastion == ("bastion.example.com", "me", 22)
    assert lookup.place_in(found(reachable(jump="me@10.0.0.1:2222"))).bastion == ("10.0.0.1", "me", 2222)


class Answers:
    """An API that answers one status after the other, and a clock that only waiting moves."""

    def __init__(self, *answers: dict[str, Any], too_early: int = 0) -> None:
        self.answers, self.too_early = list(answers), too_early
        self.starts, self.time, self.said = 0, 0.0, []

    def get(self, path: str) -> dict[str, Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def post(self, path: str) -> dict[str, Any]:
        if self.too_early:
            self.too_early -= 1
            raise lookup.Refused(409, "stopping", "It is still stopping.")
        self.starts += 1
        return {}

    def wait(self, *, start: bool, limit: float = 900) -> Found:
        first = Found(STACK, self, "demo", self.get(""))  # type: ignore[arg-type]
        return lookup.wait(
            first, start=start, limit=limit, clock=lambda: self.time, pause=self.pass_by, say=self.said.append
        )

    def pass_by(self, seconds: float) -> None:
        self.time += seconds


def test_waiting_for_a_start_asks_for_it_once() -> None:
    stopped, starting = described("demo", "stopped"), described("demo", "starting")
    answers = Answers(stopped, stopped, starting, starting, reachable())
    assert answers.wait(start=True).status == "connected"
    assert (answers.starts, answers.time) == (1, 20)
    assert len(answers.said) == 2  # one line for each status, none for each question


def test_a_notebook_that_still_stops_is_asked_again() -> None:
    stopped = described("demo", "stopped")
    answers = Answers(stopped, stopped, stopped, reachable(), too_early=2)
    answers.wait(start=True)
    assert answers.starts == 1


def test_a_start_that_somebody_else_made_is_waited_for() -> None:
    answers = Answers(described("demo", "starting"), reachable())
    answers.wait(start=False)
    assert answers.starts == 0


@pytest.mark.parametrize("status", ["off", "error", "expired", "pending-restart", "pending-stop", "invalid-tag"])
def test_what_does_not_pass_by_itself_is_not_waited_for(status: str) -> None:
    answers = Answers(described("demo", status))
    assert answers.wait(start=True).status == status
    assert (answers.starts, answers.time) == (0, 0)


def test_waiting_has_an_end() -> None:
    answers = Answers(described("demo", "starting"))
    with pytest.raises(Failure, match="not ready after 15 min 00 s"):
        answers.wait(start=False)
    assert answers.time <= 900 + lookup.ASK_EVERY
    assert len(answers.said) == 31  # a sign of life every 30 seconds


def test_start_waits_and_says_how_to_go_on(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = described("demo", "stopped")
    api.on_start = lambda _: api.notebooks.update(demo=reachable())
    laptop.set_up(api)
    done = laptop.client("start", "demo")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "demo is connected. Connect with: ssh demo")
    assert laptop.client("start", "demo").returncode == 0
    assert api.asked("/notebooks/demo/start") == 1


def test_a_notebook_that_may_not_be_woken_is_said_in_the_stacks_words(laptop: Any, api: Any) -> None:
    laptop.set_up(api)
    refusal = {"error": "not-wakeable", "message": "demo has no tag ssh-wake=yes."}
    api.refusals += [(200, described("demo", "stopped")), (403, refusal)]
    done = laptop.client("start", "demo")
    assert (done.returncode, done.stderr) == (5, "notebook-ssh: demo has no tag ssh-wake=yes.\n")


def found(answer: dict[str, Any]) -> Found:
    return Found(STACK, None, "demo", answer)  # type: ignore[arg-type]
