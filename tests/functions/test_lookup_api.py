"""What people and programs get from the API about a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.api_env import ApiEnv, api_env
from support.builders import HOST_KEY, NOW, RSA_KEY, a_record, a_report, an_api_event

from notebook_ssh.adapters.attributes import key, to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.controllers import lookup
from notebook_ssh.controllers.lookup import ROUTES
from notebook_ssh.errors import Problem
from notebook_ssh.http_api.handling import MAX_RESPONSE_BYTES, Response, handle_request
from notebook_ssh.model.record import Endpoint, NotebookState, Route
from notebook_ssh.model.spec import Mode, NotebookSpec

ONE = "/notebooks/{name}"
TEXT, JSON = "text/plain; charset=utf-8", "application/json"
BASTION = {
    "spec": NotebookSpec(modes=(Mode.BASTION,)),
    "routes": {Mode.BASTION: Route(open=True, private_ip="10.0.1.5", since=NOW - 300)},
    "report": a_report(modes=(Mode.BASTION,), host=None, port=None),
}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        yield env


def test_a_connected_notebook_is_one_line_away(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report()))
    assert env.get(f"{ONE}/ssh").text == "ssh -p 17887 ec2-user@0.tcp.ngrok.io\n"
    assert env.get(f"{ONE}/address").text == "0.tcp.ngrok.io 17887\n"
    assert env.get(f"{ONE}/known-hosts").text == f"demo {HOST_KEY}\n"
    assert env.get(f"{ONE}/ssh-config").text == (
        "# Host keys: save the answer of known-hosts as ~/.ssh/team-ssh.known_hosts\n"
        "\n"
        "Host demo\n"
        "  HostName 0.tcp.ngrok.io\n"
        "  Port 17887\n"
        "  User ec2-user\n"
        "  HostKeyAlias demo\n"
        "  UserKnownHostsFile ~/.ssh/team-ssh.known_hosts\n"
        "  StrictHostKeyChecking yes\n"
        "  ServerAliveInterval 30\n"
    )


def test_so_is_one_behind_the_bastion(env: ApiEnv) -> None:
    env.knows(a_record(**BASTION))
    assert env.get(f"{ONE}/ssh").text == "ssh -J jumper@bastion.example.com ec2-user@10.0.1.5\n"
    assert env.get(f"{ONE}/address").text == "10.0.1.5 22\n"
    assert env.get(f"{ONE}/ssh-config").text.endswith(
        "  ProxyJump bastion.team-ssh\n"
        "\n"
        "Host bastion.team-ssh\n"
        "  HostName bastion.example.com\n"
        "  Port 22\n"
        "  User jumper\n"
    )


def test_so_is_one_behind_an_endpoint(env: ApiEnv) -> None:
    route = Route(open=True, private_ip="10.0.3.7", endpoint=Endpoint("eice-0123", "eice-0123.example.com"))
    spec, report = NotebookSpec(modes=(Mode.EICE,)), a_report(modes=(Mode.EICE,), host=None, port=None)
    env.knows(a_record(spec=spec, report=report, routes={Mode.EICE: route}))
    proxy = (
        "aws ec2-instance-connect open-tunnel --instance-connect-endpoint-id eice-0123"
        " --instance-connect-endpoint-dns-name eice-0123.example.com --private-ip-address 10.0.3.7 --remote-port 22"
        " --region us-east-1"
    )
    assert env.get(f"{ONE}/ssh").text == f"ssh -o ProxyCommand='{proxy}' ec2-user@10.0.3.7\n"
    assert env.get(f"{ONE}/address").text == "10.0.3.7 22\n"
    assert f"  ProxyCommand {proxy}\n" in env.get(f"{ONE}/ssh-config").text
    assert [entry["status"] for entry in env.get("/notebooks").json] == ["ready"]
    env.knows(a_record(spec=spec, report=replace(report, sessions=1), routes={Mode.EICE: route}))
    assert env.get(ONE).json["status"] == "connected"
    lookup.forget()
    assert [entry["status"] for entry in env.get("/notebooks").json] == ["connected"]


def test_everything_known_as_json(env: ApiEnv) -> None:
    env.knows(a_record(spec=NotebookSpec(modes=(Mode.NGROK,), users=("mario",), until=NOW + 60), report=a_report()))
    assert env.get(ONE).json == {
        "name": "demo",
        "modes": ["ngrok"],
        "status": "connected",
        "since": "2027-01-15T07:53:20Z",
        "message": "demo can be reached.",
        "next_step": "Connect: `ssh demo` with the client, or the line that /notebooks/demo/ssh answers.",
        "problem": None,
        "ssh": "ssh -p 17887 ec2-user@0.tcp.ngrok.io",
        "address": "0.tcp.ngrok.io:17887",
        "host": "0.tcp.ngrok.io",
        "port": 17887,
        "user": "ec2-user",
        "jump": None,
        "jump_host_keys": [],
        "endpoint": None,
        "paths": [
            {
                "mode": "ngrok",
                "state": "ready",
                "problem": None,
                "host": "0.tcp.ngrok.io",
                "port": 17887,
                "jump": None,
                "jump_host_keys": [],
                "endpoint": None,
            }
        ],
        "host_keys": [HOST_KEY],
        "until": "2027-01-15T08:01:00Z",
        "users": ["mario"],
        "wake": False,
        "keys": {"own": 1, "central": 0, "rejected": []},
        "sessions": {"open": 0, "active_at": None},
        "last_used": None,
        "reported_at": "2027-01-15T07:59:50Z",
        "agent": "1.0",
        "instance": {"state": "InService", "since": "2027-01-15T07:51:40Z"},
        "lifecycle_config": "demo-configuration",
        "block_since": "2027-01-15T06:36:40Z",
        "planned": [],
    }


ROUTES_OF_ONE = [ONE, *(f"{ONE}/{last}" for last in ("ssh", "address", "ssh-config", "known-hosts", "doctor"))]
ROUTES_OF_ALL = ["/notebooks", "/ssh-config", "/known-hosts", "/plan"]


def test_these_are_all_the_routes() -> None:
    assert set(ROUTES) == {("GET", route) for route in [*ROUTES_OF_ONE, *ROUTES_OF_ALL]}


@pytest.mark.parametrize("route", ROUTES_OF_ONE)
def test_a_lookup_is_one_read(env: ApiEnv, route: str) -> None:
    env.knows(a_record(report=a_report()))
    env.since()
    assert env.get(route).status == 200
    assert env.since() == {"GetItem": 1}


@pytest.mark.parametrize("route", ROUTES_OF_ONE)
def test_an_unknown_notebook_costs_one_read_and_reveals_no_others(env: ApiEnv, route: str) -> None:
    env.knows(a_record(name="secret-project", report=a_report()))
    env.since()
    said = env.get(route, "secret-projec")
    assert (said.status, said.json["error"]) == (404, "unknown-notebook")
    assert "secret-project " not in said.text
    assert "ssh=ngrok" in said.json["message"]
    assert env.since() == {"GetItem": 1}


@pytest.mark.parametrize("route", ROUTES_OF_ONE)
@pytest.mark.parametrize("name", ["a_b", "-a", "a" * 64, "a/b", "a\nb", "", "é"])
def test_a_name_that_cannot_be_costs_nothing(env: ApiEnv, route: str, name: str) -> None:
    said = env.get(route, name)
    assert (said.status, said.json["error"]) == (400, "bad-name")
    assert not env.since()


@pytest.mark.parametrize("route", ROUTES_OF_ONE)
def test_a_name_is_spelled_as_sagemaker_spells_it(env: ApiEnv, route: str) -> None:
    """IAM has compared the path as it was sent, and this notebook may be one that a policy denies in its own spelling."""
    env.knows(a_record(name="Demo-One", report=a_report()))
    assert env.get(route, "Demo-One").status == 200
    own = route.replace("{name}", "Demo-One")
    for parts in ({}, {"path": own.replace("-", "%2D")}, {"path": own + "/"}):
        said = env.get(route, "Demo-One" if parts else "demo-one", **parts)
        assert (said.status, said.json["error"], said.json["name"]) == (409, "other-spelling", "Demo-One")
        assert "ngrok.io" not in said.text


@pytest.mark.parametrize("route", [*ROUTES_OF_ONE, *ROUTES_OF_ALL])
def test_nothing_is_cached_on_the_way_and_the_type_is_named(env: ApiEnv, route: str) -> None:
    env.knows(a_record(report=a_report()))
    for said in (env.get(route), env.get(route, "unknown")):
        assert said.headers["Cache-Control"] == "no-store"
        assert said.headers["X-Content-Type-Options"] == "nosniff"
        plain = said.status == 200 and route not in (ONE, "/notebooks")
        assert said.headers["Content-Type"] == (TEXT if plain else JSON)
        assert said.text.isascii()
        assert said.text.endswith("\n" if plain else ("}", "]"))


@pytest.mark.parametrize("route", [f"{ONE}/{last}" for last in ("ssh", "address", "ssh-config", "known-hosts")])
@pytest.mark.parametrize(
    ("parts", "status", "step"),
    [
        ({}, "starting", "Wait"),
        ({"state": NotebookState.STOPPED, "started_at": None}, "stopped", "start-notebook-instance"),
        ({"block_since": NOW}, "pending-restart", "Stop it and start it"),
        ({"report": a_report(received_at=NOW - 9999)}, "stale", "stop and start"),
        ({"report": a_report(), "spec": NotebookSpec()}, "off", "ssh=ngrok"),
    ],
)
def test_without_an_address_the_answer_is_what_to_do(
    env: ApiEnv, route: str, parts: dict[str, Any], status: str, step: str
) -> None:
    env.knows(a_record(**parts))
    said = env.get(route)
    assert said.status == 409
    assert (said.json["error"], said.json["status"]) == ("no-address", status)
    assert step in said.json["message"]
    assert step in said.json["next_step"]


def test_doctor_speaks_text_and_json(env: ApiEnv) -> None:
    env.knows(a_record())
    text = env.get(f"{ONE}/doctor")
    assert (text.status, text.headers["Content-Type"]) == (200, TEXT)
    assert "waiting agent" in text.text
    for accept in ("application/json", "application/json, text/plain;q=0.5"):
        told = env.get(f"{ONE}/doctor", headers={"accept": accept})
        assert told.headers["Content-Type"] == JSON
        assert [check["result"] for check in told.json["checks"]] == ["ok", "ok", "ok", "waiting", "waiting", "waiting"]


def test_the_list_has_every_notebook(env: ApiEnv) -> None:
    env.knows(a_record(name="b", report=a_report(active_at=NOW - 60)))
    env.knows(
        a_record(name="A", state=NotebookState.STOPPED, started_at=None, report=a_report(booted_at=1, received_at=2))
    )
    env.knows(a_record(name="c", **BASTION))
    assert env.get("/notebooks").json == [
        {
            "name": "A",
            "modes": ["ngrok"],
            "status": "stopped",
            "address": None,
            "since": "2027-01-15T07:51:40Z",
            "last_used": None,
        },
        {
            "name": "b",
            "modes": ["ngrok"],
            "status": "connected",
            "address": "0.tcp.ngrok.io:17887",
            "since": "2027-01-15T07:53:20Z",
            "last_used": "2027-01-15T07:59:00Z",
        },
        {
            "name": "c",
            "modes": ["bastion"],
            "status": "connected",
            "address": "10.0.1.5:22",
            "since": "2027-01-15T07:53:20Z",
            "last_used": None,
        },
    ]


def test_the_list_says_whether_the_stack_has_certificates(env: ApiEnv) -> None:
    env.knows(a_record(name="b"))
    assert "certificates" not in env.get("/notebooks").json[0]
    env.patch.setenv("CERTIFICATES", "true")
    assert env.get("/notebooks").json[0]["certificates"] is True


def test_an_empty_fleet_is_an_empty_answer(env: ApiEnv) -> None:
    assert env.get("/notebooks").json == []
    assert env.get("/known-hosts").text == ""
    assert "\nHost " not in env.get("/ssh-config").text


def test_the_whole_fleet_as_files_for_ssh(env: ApiEnv) -> None:
    env.knows(a_record(name="one", report=a_report(host_keys=(RSA_KEY, HOST_KEY))))
    env.knows(a_record(name="two", **BASTION))
    env.knows(a_record(name="asleep", state=NotebookState.STOPPED, started_at=None))
    assert env.get("/known-hosts").text == f"one {HOST_KEY}\ntwo {HOST_KEY}\n"
    config = env.get("/ssh-config").text
    assert [line for line in config.splitlines() if line.startswith("Host ")] == [
        "Host one",
        "Host two",
        "Host bastion.team-ssh",
    ]


def test_the_list_is_read_page_by_page(env: ApiEnv) -> None:
    """A page of DynamoDB is 1 MB at most; here, two items."""
    for number in range(5):
        env.knows(a_record(name=f"n{number}", report=a_report()))
    ask = client("dynamodb").query
    env.patch.setattr(client("dynamodb"), "query", lambda **given: ask(**given, Limit=2))
    env.since()
    assert [entry["name"] for entry in env.get("/notebooks").json] == ["n0", "n1", "n2", "n3", "n4"]
    assert env.since() == {"Query": 3}


def test_an_unheard_of_path_is_not_found(env: ApiEnv) -> None:
    assert env.get("/notebooks/{name}/shell").status == 404
    assert not env.since()


def test_nothing_of_a_failure_gets_out(env: ApiEnv, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("arn:aws:dynamodb:us-east-1:123456789012:table/records")

    env.patch.setattr(client("dynamodb"), "get_item", broken)
    said = env.get(ONE)
    assert (said.status, said.json["error"]) == (500, "internal")
    assert "8e2cf1c6-0000-4000-8000-000000000001" in said.json["message"]
    assert "dynamodb" not in said.text


def test_a_busy_table_is_later(env: ApiEnv) -> None:
    def throttled(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "GetItem")

    env.patch.setattr(client("dynamodb"), "get_item", throttled)
    said = env.get(f"{ONE}/ssh")
    assert (said.status, said.json["error"], said.headers["Retry-After"]) == (503, "later", "5")
    assert "slow down" not in said.text


def test_a_record_that_a_newer_version_wrote_is_reported_and_hides_no_other(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report()))
    env.knows(a_record(name="newer", report=a_report()))
    client("dynamodb").update_item(
        TableName="records",
        Key=key("notebook", "newer"),
        UpdateExpression="SET #spec = :spec",
        ExpressionAttributeNames={"#spec": "spec"},
        ExpressionAttributeValues={":spec": to_attribute({"mode": "tailscale"})},
    )
    assert [each["name"] for each in env.get("/notebooks").json] == ["demo"]
    assert env.get("/known-hosts").text == f"demo {HOST_KEY}\n"
    said = env.get(ONE, "newer")
    assert (said.status, said.json["error"]) == (503, "later")


def test_too_much_for_one_answer_is_said() -> None:
    answer = handle_request(
        an_api_event("GET", "/ssh-config"),
        None,
        lambda event: Response("x" * (MAX_RESPONSE_BYTES + 1)),
        lambda: pytest.fail("nothing is logged"),
    )
    assert (answer["statusCode"], json.loads(answer["body"])["error"]) == (507, "too-many")


# ---- what the whole account may ask for


def test_a_flood_of_lists_reads_the_table_once_in_ten_seconds(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report()))
    env.since()
    for second in range(10):
        env.now = NOW + second
        for route in ROUTES_OF_ALL:
            assert env.get(route).status == 200
    assert env.since() == {"Query": 1}
    env.now = NOW + 10
    assert env.get("/notebooks").status == 200
    assert env.since() == {"Query": 1}


def test_a_cached_list_has_the_current_status(env: ApiEnv) -> None:
    report = a_report(received_at=NOW - 760, connected_since=NOW - 900)  # silent after 755 seconds
    env.now = NOW - 8
    env.knows(a_record(report=report))
    assert env.get("/notebooks").json[0]["status"] == "connected"
    env.since()
    env.now = NOW
    assert env.get("/notebooks").json[0]["status"] == "stale"
    assert not env.since()


# ---- what would be done --------------------------------------------------------------------------


def test_a_dry_run_is_one_page_whatever_the_size_of_the_fleet(env: ApiEnv) -> None:
    script = "write the on-start script of team: the block is not in it"
    problem = Problem("config-too-large", "The on-start script of large has no room.")
    for number in range(60):
        env.knows(a_record(name=f"box-{number}", lifecycle_config="team", block_since=None, planned=(script,)))
    attach = "attach better-sagemaker: it has no configuration"
    env.knows(a_record(name="alone", lifecycle_config=None, block_since=None, planned=(attach,)))
    env.knows(a_record(name="full", lifecycle_config="large", block_since=None, problem=problem))
    env.knows(a_record(name="fine", report=a_report()))
    env.knows(a_record(name="quiet", spec=NotebookSpec()))
    env.patch.setenv("DRY_RUN", "true")
    said = env.get("/plan")
    assert (said.status, said.headers["Content-Type"]) == (200, TEXT)
    lines = said.text.splitlines()
    assert (
        lines[0]
        == "Dry run of team-ssh: 63 notebooks request SSH. The stack would change 61 of them, and cannot help 1."
    )
    assert (
        "team (60 notebooks: box-0, box-1, box-10, box-11, box-12, box-13, box-14, box-15, box-16, box-17 and 50 more)"
        in said.text
    )
    assert said.text.count(script) == 1
    assert f"    {attach}" in lines
    assert "full: config-too-large: The on-start script of large has no room." in said.text
    assert len(lines) < 20
    env.patch.setenv("DRY_RUN", "false")
    assert env.get("/plan").text.startswith("This is not a dry run: ")
