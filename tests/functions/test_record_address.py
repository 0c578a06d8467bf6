"""A notebook reports, and learns what to do: through the real handler, on moto's table."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.api_env import ApiEnv, api_env
from support.builders import HOST_KEY, NOW, RSA_KEY, a_body, a_record, a_report

from notebook_ssh.adapters import secrets
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.workers import save_worker
from notebook_ssh.controllers.agent_layer import worker_program, worker_sha256
from notebook_ssh.model.record import Phase, Record, Route
from notebook_ssh.model.spec import Mode, NotebookSpec, parse_spec

LAYER = Path(__file__).resolve().parents[2] / "layers" / "notebook_agent"
MARIO = NotebookSpec(modes=(Mode.NGROK,), users=("mario",))


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        yield env


def caller(arn: str | None) -> dict[str, Any]:
    return {"requestContext": {"requestId": "r", "accountId": "123456789012", "identity": {"userArn": arn}}}


def unchanged(env: ApiEnv) -> bool:
    """Nothing was written, nobody was told."""
    return env.report_of("demo") == a_report() and not env.messages()


# ---- in order


def test_a_boot_named_by_a_wrong_clock_is_refused_and_its_next_name_taken(env: ApiEnv) -> None:
    """Twenty minutes ahead: the agent learns the time from the answer's Date, and names its boot again."""
    env.knows(a_record(report=a_report()))
    refused = env.report({"boot": "boot-2", "booted_at": NOW + 1200, "sequence": 1})
    assert (refused.status, refused.json["error"]) == (400, "bad-report")
    assert "booted_at: is 1,200 seconds ahead" in refused.json["message"]
    assert unchanged(env)
    assert env.report({"boot": "boot-3", "booted_at": NOW, "sequence": 2}).status == 200


def test_the_first_report_is_kept_and_answered(env: ApiEnv) -> None:
    version = env.token('{"token": "2abc_DEF"}')
    env.knows(a_record())
    said = env.report()
    assert said.status == 200, said.text
    assert said.headers["Cache-Control"] == "no-store"
    assert said.json == {
        "notebook": "demo",
        "modes": ["ngrok"],
        "mode": "ngrok",
        "sync_after": 300,
        "server_time": NOW,
        "until": None,
        "authorized_keys": [],
        "ngrok": {"url": None, "token_version": version, "token": "2abc_DEF"},
        "problem": None,
        "sessions": {"end": None, "kinds": ["certificate", "central"], "withdrawn": {}},
    }
    assert env.report_of("demo") == a_report(received_at=NOW, connected_since=NOW, phase_since=NOW)


def test_steady_state_is_one_write_and_nothing_else(env: ApiEnv) -> None:
    version = env.token("2abc_DEF")
    env.knows(a_record(report=a_report()))
    for minute in range(1, 4):
        env.now = NOW + minute * 300
        secrets.ngrok_secret("ngrok-token", 300, env.now - 30)  # as a report of another notebook read it
        env.since()
        said = env.report({"sequence": 5 + minute, "token_version": version})
        assert said.status == 200
        assert "token" not in said.json["ngrok"]
        assert env.since() == {"UpdateItem": 1}
    assert env.report_of("demo") == a_report(sequence=8, received_at=NOW + 900)


def test_sessions_come_and_go_without_more_than_a_write(env: ApiEnv) -> None:
    env.knows(
        a_record(spec=NotebookSpec(modes=(Mode.BASTION,)), report=a_report(modes=(Mode.BASTION,), host=None, port=None))
    )
    env.since()
    env.report({"sequence": 6, "modes": ["bastion"], "sessions": {"open": 2, "active_at": NOW - 1}})
    assert env.since() == {"UpdateItem": 1}
    report = env.report_of("demo")
    assert report is not None
    assert (report.sessions, report.active_at) == (2, NOW - 1)


def test_a_change_is_reconciled_once_for_its_event_and_status_tags(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report(phase=Phase.CONNECTING, host=None, port=None, connected_since=None)))
    env.report({"sequence": 6})
    assert [(each["request"], each["reason"]) for each in env.messages()] == [({"notebook": "demo"}, "status")]
    env.report({"sequence": 7})
    assert not env.messages()


@pytest.mark.parametrize(
    ("spec", "before", "body"),
    [
        (NotebookSpec(modes=(Mode.NGROK,)), a_report(), {"phase": "failed", "host": None, "port": None, "problem": {"code": "ngrok-card-required", "message": "x"}}),
        (NotebookSpec(modes=(Mode.NGROK,)), a_report(), {"phase": "connecting", "host": None, "port": None}),
        (NotebookSpec(modes=(Mode.NGROK,), until=NOW - 1), a_report(), {"modes": [], "phase": "off", "host": None, "port": None}),
        (NotebookSpec(modes=(Mode.NGROK,)), a_report(received_at=NOW - 9000), {}),
    ],
)  # fmt: skip
def test_every_slot_is_reconciled(env: ApiEnv, spec: NotebookSpec, before: Any, body: dict[str, Any]) -> None:
    env.knows(a_record(spec=spec, report=before))
    env.report({"sequence": 6, **body})
    assert [(each["request"], each["reason"]) for each in env.messages()] == [({"notebook": "demo"}, "status")]


def test_a_reconcile_that_cannot_be_requested_does_not_refuse_a_report(env: ApiEnv) -> None:
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "SendMessageBatch")

    env.patch.setattr(client("sqs"), "send_message_batch", refuse)
    env.knows(a_record())
    assert env.report().status == 200


def test_an_address_that_changes_in_a_new_boot_replaces_the_old_one(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report()))
    env.report({"boot": "boot-2", "booted_at": NOW - 60, "sequence": 1, "port": 20001, "host_keys": [RSA_KEY]})
    assert env.get("/notebooks/{name}/address").text == "0.tcp.ngrok.io 20001\n"
    assert env.get("/notebooks/{name}/known-hosts").text == f"demo {RSA_KEY}\n"


def test_a_body_may_come_as_base64(env: ApiEnv) -> None:
    env.knows(a_record())
    body = base64.b64encode(json.dumps(a_body()).encode()).decode()
    assert env.report(body, isBase64Encoded=True).status == 200


# ---- who may not, and what may not


def test_an_untagged_notebook_is_answered_off_after_one_refused_write(env: ApiEnv) -> None:
    env.since()
    said = env.report(name="stranger")
    assert (said.status, said.json["modes"], said.json["authorized_keys"]) == (200, [], [])
    assert env.since() == {"UpdateItem": 1}
    assert env.table.item("notebook", "stranger") is None


def test_a_way_alone_makes_no_notebook(env: ApiEnv) -> None:
    """A reconciler that comes late may leave a part without a record; it is nobody's."""
    client("dynamodb").put_item(
        TableName="records",
        Item={"pk": {"S": "notebook"}, "sk": {"S": "demo"}, "route": {"M": {"open": {"BOOL": True}}}},
    )
    assert env.report().json["modes"] == []
    assert "report" not in (env.table.item("notebook", "demo") or {})


@pytest.mark.parametrize(
    ("arn", "error"),
    [
        ("arn:aws:sts::123456789012:assumed-role/other-role/SageMaker", "other-role"),
        ("arn:aws:sts::123456789012:assumed-role/Demo-role/SageMaker", "other-role"),
        ("arn:aws:sts::999999999999:assumed-role/demo-role/SageMaker", "not-a-role"),
        ("arn:aws:iam::123456789012:user/demo-role", "not-a-role"),
        ("arn:aws:iam::123456789012:root", "not-a-role"),
        (None, "not-a-role"),
    ],
)
def test_only_the_notebooks_own_role_may_report(env: ApiEnv, arn: str | None, error: str) -> None:
    env.token("2abc_DEF")
    env.knows(a_record(report=a_report()))
    for sequence in (6, 99):
        said = env.report({"sequence": sequence, "port": 1}, **caller(arn))
        assert (said.status, said.json["error"]) == (403, error)
        assert "2abc_DEF" not in said.text
    assert unchanged(env)


@pytest.mark.parametrize("record", [a_record(role="the-notebooks-own-role"), a_record(role="")])
def test_a_refusal_names_no_role_but_the_callers_own(env: ApiEnv, record: Record) -> None:
    env.knows(record)
    said = env.report()
    assert said.status == 403
    assert "the-notebooks-own-role" not in said.text
    assert "not known" not in said.text
    assert "demo-role" in said.text


@pytest.mark.parametrize(
    "body",
    [
        {"sequence": 5},
        {"sequence": 4, "port": 1},
        {"boot": "boot-0", "booted_at": NOW - 9000, "sequence": 99},
        {"boot": "boot-2", "sequence": 99},
    ],
)
def test_an_older_report_changes_nothing_and_names_the_newer_one(env: ApiEnv, body: dict[str, Any]) -> None:
    env.knows(a_record(report=a_report()))
    said = env.report(body)
    assert said.status == 409
    assert (said.json["error"], said.json["boot"], said.json["sequence"]) == ("older-report", "boot-1", 5)
    assert unchanged(env)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ("{", 400, "body"),
        ("", 400, "body"),
        ("[1]", 400, "body"),
        (json.dumps(a_body(host="127.0.0.1", sequence=6)), 400, "host"),
        (json.dumps(a_body(host_keys=["ssh-ed25519 AAAA"], sequence=6)), 400, "host_keys[0]"),
        ("x" * 16_385, 413, "body"),
        ("\ud800", 400, "body"),
    ],
)
def test_what_is_malformed_changes_nothing_and_costs_nothing(env: ApiEnv, body: str, status: int, field: str) -> None:
    env.knows(a_record(report=a_report()))
    env.since()
    said = env.report(body)
    assert (said.status, said.json["field"]) == (status, field)
    assert said.json["message"].startswith(f"{field}: ")
    assert not env.since()
    assert unchanged(env)


def test_the_local_run_alone_may_be_on_this_machine(env: ApiEnv) -> None:
    env.knows(a_record())
    env.patch.setenv("ALLOW_LOOPBACK_ADDRESSES", "true")
    assert env.report({"host": "127.0.0.1"}).status == 200


def test_a_name_that_cannot_be(env: ApiEnv) -> None:
    assert env.report(name="a_b").status == 400
    assert not env.since()


def test_the_worker_is_sent_on_request_where_a_mode_is_desired(env: ApiEnv, tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "keys.py").write_text("print('größer')\n", "utf-8")
    (tmp_path / "loader.py").write_text("import sys\nSOURCES: dict[str, str] = {}\n", "utf-8")
    env.patch.setenv("NOTEBOOK_AGENT", str(tmp_path))
    env.knows(a_record())
    needed = worker_sha256(tmp_path)
    assert "worker" not in env.report().json
    assert env.report({"sequence": 6, "worker": needed}).json["worker"] == worker_program(tmp_path)
    assert "print('größer')" in worker_program(tmp_path)
    assert "worker" not in env.report({"sequence": 7, "worker": ""}).json
    env.knows(a_record(spec=NotebookSpec(), observed_at=NOW))
    assert "worker" not in env.report({"sequence": 8, "worker": needed}).json


def test_the_agent_of_an_earlier_block_gets_the_worker_that_its_block_vouches_for(env: ApiEnv) -> None:
    env.patch.setenv("NOTEBOOK_AGENT", str(LAYER))
    env.knows(a_record())
    earlier = "print('größer, and earlier')\n"
    save_worker(env.table, earlier, "0.9.0")
    needed = hashlib.sha256(earlier.encode()).hexdigest()
    env.since()
    assert env.report({"sequence": 6, "worker": needed}).json["worker"] == earlier
    assert env.since()["GetItem"] == 1
    assert env.report({"sequence": 7, "worker": worker_sha256(LAYER)}).json["worker"] == worker_program(LAYER)
    assert env.since()["GetItem"] == 0, "the program of this version is in the layer"


ANOTHER = base64.b64encode(zlib.compress(b"print('another')\n")).decode()


@pytest.mark.parametrize("program", [None, "", "no base64", "bm8gemxpYg==", "eJwDAAAAAAE=", ANOTHER])
def test_without_that_worker_the_agent_gets_none_and_keeps_what_it_has(env: ApiEnv, program: str | None) -> None:
    """None is in the table, or an item that is not it."""
    env.patch.setenv("NOTEBOOK_AGENT", str(LAYER))
    env.knows(a_record())
    if program is not None:
        env.table.put("worker", "a" * 64, {"program": program, "version": "0.9.0"})
    said = env.report({"sequence": 6, "worker": "a" * 64})
    assert (said.status, said.json["mode"], "worker" in said.json) == (200, "ngrok", False)


@pytest.mark.parametrize("worker", [True, 7, ["a" * 64], "A" * 64, "a" * 63, "../" + "a" * 61, None])
def test_what_is_no_sha256_requests_no_worker(env: ApiEnv, worker: object) -> None:
    env.knows(a_record())
    said = env.report({"sequence": 6, "worker": worker})
    assert (said.status, "worker" in said.json) == (200, False)


# ---- at the same time


def test_of_two_reports_at_the_same_time_the_newer_one_stays(env: ApiEnv) -> None:
    """The other copy's report arrives between our look and our write."""
    env.knows(a_record(report=a_report()))
    write = client("dynamodb").update_item
    raced: list[bool] = []

    def race(**given: Any) -> Any:
        if "#report = :new_report" in given["UpdateExpression"] and not raced:
            raced.append(True)
            env.patch.setattr(client("dynamodb"), "update_item", write)
            assert env.report({"sequence": 7, "port": 7}).status == 200
        return write(**given)

    env.patch.setattr(client("dynamodb"), "update_item", race)
    assert env.report({"sequence": 6, "port": 6}).status == 409
    report = env.report_of("demo")
    assert report is not None
    assert (report.sequence, report.port) == (7, 7)


def test_reports_that_overtake_each_other_for_ever_are_given_up_and_tried_later(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report()))
    write, sequence = client("dynamodb").update_item, [5]

    def overtaken(**given: Any) -> Any:
        if "#report = :new_report" in given["UpdateExpression"]:
            sequence[0] += 1
            env.knows(a_record(report=a_report(sequence=sequence[0])))
        return write(**given)

    def knows(record: Any) -> None:
        client("dynamodb").put_item(TableName="records", Item=item(record))

    def item(record: Any) -> dict[str, Any]:
        from notebook_ssh.adapters.attributes import to_attribute
        from notebook_ssh.adapters.codec import encode_record

        return {
            "pk": {"S": "notebook"},
            "sk": {"S": "demo"},
            **{name: to_attribute(value) for name, value in encode_record(record).items()},
        }

    env.patch.setattr(env, "knows", knows)
    env.patch.setattr(client("dynamodb"), "update_item", overtaken)
    said = env.report({"sequence": 50, "port": 6})
    assert (said.status, said.json["error"]) == (503, "later")


# ---- the token and the central keys


def test_a_stack_without_a_token_says_how_to_put_one(env: ApiEnv) -> None:
    env.knows(a_record())
    for sequence, text in enumerate(
        (None, "put your ngrok token here", '{"token": ""}', '{"token": 1}', '{"tok', "[]x y"), 1
    ):
        secrets.forget()
        if text is not None:
            env.token(text)
        said = env.report({"sequence": sequence})
        assert said.json["ngrok"] == {"url": None, "token_version": None}
        assert said.json["problem"]["code"] == ("ngrok-token-invalid" if text else "ngrok-token-missing")
        assert "aws secretsmanager put-secret-value" in said.json["problem"]["message"]


def test_a_new_token_reaches_the_notebook_within_a_minute_of_the_next_report(env: ApiEnv) -> None:
    env.knows(a_record())
    old = env.token("old_token")
    assert env.report().status == 200
    new = env.token("new_token")
    assert env.report({"sequence": 6, "token_version": old}).json["ngrok"]["token_version"] == old
    env.now += secrets.MAX_AGE_S + 1
    assert env.report({"sequence": 7, "token_version": old}).json["ngrok"] == {
        "url": None,
        "token_version": new,
        "token": "new_token",
    }


def test_the_token_is_in_no_log_and_no_table(
    env: ApiEnv, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    env.token("2abc_SECRET")
    env.knows(a_record())
    assert "2abc_SECRET" in env.report().text
    env.report({"sequence": 4})
    printed = capsys.readouterr()
    logged = str([line.__dict__ for line in caplog.records])
    assert "'seconds_to_connect': 600" in logged
    assert "2abc_SECRET" not in printed.out + printed.err + logged
    assert "2abc_SECRET" not in json.dumps(env.table.item("notebook", "demo"))


def test_a_secret_that_cannot_be_read_is_later_and_the_report_stands(env: ApiEnv) -> None:
    env.knows(a_record())

    def throttled(**_: object) -> None:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, "GetSecretValue")

    env.patch.setattr(client("secretsmanager"), "get_secret_value", throttled)
    assert env.report().status == 503
    assert env.report_of("demo") is not None


def test_central_keys_come_and_go_and_a_bad_line_breaks_nothing(env: ApiEnv) -> None:
    env.token("2abc_DEF")
    env.knows(a_record(spec=MARIO))
    for number in range(12):  # more than a page of ten
        env.central_key(f"user{number}", RSA_KEY)
    env.central_key("mario", f"# his keys\nnonsense\n{HOST_KEY} laptop\n")
    said = env.report()
    assert said.json["authorized_keys"] == [{"user": "mario", "keys": [f"{HOST_KEY} mario"]}]
    assert said.json["problem"]["code"] == "central-key-malformed"
    client("ssm").delete_parameter(Name="/keys/mario")
    secrets.forget()
    said = env.report({"sequence": 6})
    assert said.json["authorized_keys"] == []
    assert said.json["problem"]["code"] == "central-key-missing"


def test_keys_that_cannot_be_read_are_not_taken_away(env: ApiEnv) -> None:
    env.token("2abc_DEF")
    env.knows(a_record(spec=MARIO))

    def down(**_: object) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "X")  # type: ignore[typeddict-item]

    env.patch.setattr(client("ssm"), "get_parameters_by_path", down)
    said = env.report()
    assert said.status == 503
    assert "authorized_keys" not in said.json


def test_without_users_no_keys_are_read(env: ApiEnv) -> None:
    env.knows(
        a_record(
            spec=NotebookSpec(modes=(Mode.BASTION,)), routes={Mode.BASTION: Route(open=True, private_ip="10.0.1.5")}
        )
    )
    env.since()
    said = env.report({"modes": ["bastion"]})
    assert said.json["bastion"] == {"host": "bastion.example.com", "user": "jumper", "private_ip": "10.0.1.5"}
    assert not {"GetParametersByPath", "GetSecretValue"} & set(env.since())


def test_off_reads_no_secret(env: ApiEnv) -> None:
    env.knows(replace(a_record(spec=replace(MARIO, until=NOW)), report=a_report()))
    env.since()
    assert env.report({"sequence": 6}).json["modes"] == []
    assert not {"GetParametersByPath", "GetSecretValue"} & set(env.since())


TEAMS = '{"tokens": [{"notebooks": "team-*", "roles": "Team*", "token": "2team"}, {"roles": "demo-role", "token": "2demo"}]}'


@pytest.mark.parametrize(
    ("secret", "token", "problem"),
    [
        (TEAMS, "2demo", None),
        (TEAMS.replace("demo-role", "other-*"), None, "ngrok-token-not-granted"),
        (TEAMS.replace("roles", "role"), None, "ngrok-token-invalid"),
        ("put your ngrok token here", None, "ngrok-token-invalid"),
        ("2abc_DEF", "2abc_DEF", None),
    ],
)
def test_a_session_of_a_role_gets_the_token_that_its_role_matches(
    env: ApiEnv, secret: str, token: str | None, problem: str | None
) -> None:
    env.token(secret)
    env.knows(a_record())
    said = env.report().json
    assert said["ngrok"].get("token") == token
    assert (said["problem"] and said["problem"]["code"]) == problem
    assert "2team" not in json.dumps(said)


def test_an_agent_in_a_mode_of_a_newer_stack_gets_its_instructions(env: ApiEnv) -> None:
    """After a rollback: the worker still has that stack's reply, and so may a standby that begins with it."""
    env.knows(a_record())
    bodies: list[dict[str, Any]] = [{"modes": ["carrier-pigeon"]}, {"modes": None, "mode": "carrier-pigeon"}]
    for sequence, modes in enumerate(bodies, 6):
        said = env.report({**modes, "sequence": sequence, "phase": "failed", "host": None, "port": None})
        assert (said.status, said.json["modes"]) == (200, ["ngrok"])


# ---- the last use ------------------------------------------------------------------------------


def test_the_last_use_survives_reports_without_one_and_the_next_boot(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report()))

    def last_use(**body: Any) -> int | None:
        assert env.report(body).status == 200
        report = env.report_of("demo")
        return report.active_at if report else None

    assert last_use(sequence=6, sessions={"open": 1, "active_at": NOW - 30}) == NOW - 30
    assert last_use(sequence=7) == NOW - 30, "a heartbeat"
    assert last_use(sequence=8, phase="connecting", host=None, port=None) == NOW - 30, "a change"
    assert last_use(boot="boot-2", booted_at=NOW - 5, sequence=1) == NOW - 30, "another boot"
    assert last_use(boot="boot-2", booted_at=NOW - 5, sequence=2, sessions={"open": 1, "active_at": NOW - 1}) == NOW - 1


def test_a_use_in_the_future_counts_as_now(env: ApiEnv) -> None:
    """The notebook's clock may be ahead, and its word is not believed about times to come."""
    env.knows(a_record(report=a_report()))
    env.report({"sequence": 6, "sessions": {"open": 1, "active_at": NOW + 10**6}})
    report = env.report_of("demo")
    assert report
    assert report.active_at == NOW


@pytest.mark.parametrize(
    ("tags", "end"),
    [
        ({"ssh": "ngrok", "ssh-users": "mario ana"}, None),
        ({}, "off"),
        ({"ssh": "ngrok", "ssh-until": "2020-01-01T00:00Z"}, "until"),
        ({"ssh": "ngork"}, None),
    ],
)
def test_the_reply_says_which_sessions_end(env: ApiEnv, tags: dict[str, str], end: str | None) -> None:
    env.token("2abc_DEF")
    env.central_key("mario", f"{HOST_KEY} laptop\n")
    env.knows(a_record(spec=parse_spec(tags, "ssh")))
    withdrawn = {"users": ["ana"]} if "ssh-users" in tags else {}
    expected = {"end": end, "kinds": ["certificate", "central"], "withdrawn": withdrawn}
    assert env.report().json["sessions"] == expected


def test_no_session_ends_for_a_stranger_a_pause_or_by_choice(env: ApiEnv) -> None:
    assert "sessions" not in env.report().json
    env.knows(a_record(spec=NotebookSpec()))
    env.patch.setenv("END_SESSIONS", "none")
    assert "sessions" not in env.report().json
    env.patch.setenv("END_SESSIONS", "all")
    assert env.report({"sequence": 6}).json["sessions"]["kinds"] == ["certificate", "central", "own"]
    env.patch.setenv("PAUSED", "true")
    assert "sessions" not in env.report({"sequence": 7}).json


def test_sessions_of_an_unknown_owner_are_shown(env: ApiEnv) -> None:
    env.token("2abc_DEF")
    env.knows(a_record())
    env.report({"sessions": {"open": 3, "active_at": None, "unknown": 2}})
    assert env.get("/notebooks/{name}", "demo").json["sessions"] == {"open": 3, "active_at": None, "unknown": 2}
    doctor = env.get("/notebooks/{name}/doctor", "demo").text
    assert "2 open sessions of an unknown owner" in doctor


def test_a_revocation_reaches_the_notebook_with_the_next_report(env: ApiEnv) -> None:
    """It is read with the users' keys: no request more, at most once a minute."""
    env.token("2abc_DEF")
    env.patch.setenv("CERTIFICATE_AUTHORITIES", "ecdsa-sha2-nistp256 AAAA")
    env.central_key("mario", f"{HOST_KEY} laptop\n")
    env.knows(a_record(spec=MARIO, created_at=NOW - 5000))
    before = env.report().json
    assert before["certificates"]["principal"] == f"team-ssh/demo/{NOW - 5000}"
    assert before["sessions"]["withdrawn"] == {}
    for number, text in enumerate(["4711", "arn:aws:iam::123456789012:role/teams/data", "SHA256:" + 43 * "k", "?"]):
        client("ssm").put_parameter(Name=f"/keys/revoked/{number}", Value=text, Type="String")
    secrets.forget()
    env.since()
    after = env.report({"sequence": 6}).json
    assert env.since()["GetParametersByPath"] == 1
    assert after["certificates"]["principal"].startswith(before["certificates"]["principal"] + "/")
    assert after["sessions"]["withdrawn"] == {
        "serials": ["4711"],
        "arns": ["arn:aws:sts::123456789012:assumed-role/data/"],
        "keys": ["SHA256:" + 43 * "k"],
    }
    assert after["authorized_keys"] == before["authorized_keys"], "no revocation is taken for a user's key"
    env.report({"sequence": 7})
    assert "GetParametersByPath" not in env.since()
