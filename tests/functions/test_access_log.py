"""The access log: written before a certificate is signed and with each report of sessions, read by one function."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.api_env import CONTEXT, ApiEnv, Said, api_env
from support.builders import NOW, a_record, an_api_event
from support.stack import PROJECT

from access_api import handler as access_api
from notebook_ssh.adapters import access_log
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.table import Table
from notebook_ssh.model.access import DAY_S, MOST_OF_A_DAY, MOST_SHOWN, Certificate, Session, entries, expiry

MARIO = "arn:aws:sts::123456789012:assumed-role/data-science/mario AROAEXAMPLE:mario"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        monkeypatch.setenv("ACCESS_DAYS", "30")
        env.token("2abc_DEF")
        env.knows(a_record(name="Demo"))
        yield env


def session(number: int = 1, **parts: Any) -> dict[str, Any]:
    usual = {
        "id": f"boot_{number}",
        "who": MARIO,
        "from": "10.0.0.7",
        "path": "network",
        "begin": NOW - 60,
        "end": None,
    }
    return usual | parts


def read(name: str | None = None) -> Said:
    resource = "/notebooks/{name}/access" if name else "/access"
    answer = access_api.handle(an_api_event("GET", resource, name or "demo"), CONTEXT)
    return Said(answer["statusCode"], answer["headers"], answer["body"])


def stored() -> list[dict[str, Any]]:
    return list(access_log.read(Table("records")))


def test_a_session_is_kept_with_its_witness(env: ApiEnv) -> None:
    said = env.report({"access": [session()]})
    assert said.json["access_log"] is True
    (entry,) = read().json["entries"]
    assert entry == {
        "notebook": "Demo",
        "kind": "session",
        "witness": "notebook",
        "id": "boot_1",
        "who": MARIO,
        "from": "10.0.0.7",
        "path": "network",
        "begin": "2027-01-15T07:59:00Z",
        "end": None,
    }
    env.report({"sequence": 6, "access": [session(end=NOW - 5, known=True)]})
    (entry,) = read("demo").json["entries"]
    assert (entry["begin"], entry["end"]) == ("2027-01-15T07:59:00Z", "2027-01-15T07:59:55Z")


def test_nothing_is_written_or_asked_for_unless_it_is_on(env: ApiEnv) -> None:
    env.patch.setenv("ACCESS_DAYS", "0")
    env.report()
    env.since()
    said = env.report({"sequence": 6, "access": [session()]})
    assert "access_log" not in said.json
    assert env.since()["UpdateItem"] == 1
    assert stored() == []


def test_a_report_of_sessions_is_one_write_more(env: ApiEnv) -> None:
    env.report()
    env.since()
    env.report({"sequence": 6, "access": [session(number) for number in range(20)]})
    assert env.since()["UpdateItem"] == 2
    env.report({"sequence": 7})
    assert env.since()["UpdateItem"] == 1


@pytest.mark.parametrize(
    "access",
    [
        "x",
        [session()] * 21,
        [7],
        [session(id="a#b")],
        [session(id="")],
        [session(path="cloud")],
        [session(begin=-1)],
        [session(begin="now")],
        [session(end=True)],
        [session(who=7)],
    ],
)
def test_what_is_no_session_is_refused(env: ApiEnv, access: Any) -> None:
    said = env.report({"access": access})
    assert (said.status, said.json["error"]) == (400, "bad-report")
    assert said.json["field"].startswith("access")
    assert stored() == []


def test_a_notebook_rewrites_nothing_that_it_has_reported(env: ApiEnv) -> None:
    """Root on the notebook comes later, and says that it was another else, at another time, or that it never ended."""
    env.report({"access": [session(end=NOW - 5)]})
    before = read().json["entries"]
    env.report({"sequence": 6, "access": [session(who="nobody", begin=1, end=NOW), session(2, begin=NOW * 2)]})
    after = read().json["entries"]
    assert [each for each in after if each["id"] == "boot_1"] == before
    assert after[0]["begin"] == "2027-01-15T08:00:00Z", "not in the future"


def test_another_notebooks_role_writes_nothing(env: ApiEnv) -> None:
    env.knows(a_record(name="other", role="other-role"))
    assert env.report({"access": [session()]}, name="other").status == 403
    assert stored() == []


def test_a_replayed_report_writes_nothing(env: ApiEnv) -> None:
    env.report({"sequence": 9})
    assert env.report({"sequence": 8, "access": [session()]}).status == 409
    assert stored() == []


@pytest.mark.slow
def test_above_the_days_limit_only_the_number_is_kept(env: ApiEnv) -> None:
    for number in range(0, MOST_OF_A_DAY + 60, 20):
        some = [session(each) for each in range(number, number + 20)]
        assert env.report({"sequence": 10 + number, "access": some}).status == 200
    answer = read().json
    assert (len(answer["entries"]), answer["not_kept"]) == (MOST_OF_A_DAY, 60)
    env.now += DAY_S
    env.report({"sequence": 9999, "access": [session(9999)], "access_more": 3})
    answer = read().json
    assert (len(answer["entries"]), answer["not_kept"]) == (MOST_OF_A_DAY + 1, 63)


def test_an_item_that_is_full_is_a_number_too(env: ApiEnv) -> None:
    real = client("dynamodb").update_item

    def full(**given: Any) -> Any:
        if any("b_" in name for name in given["ExpressionAttributeNames"]):
            message = "Item size to update has exceeded the maximum allowed size"
            raise ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "UpdateItem")
        return real(**given)

    env.patch.setattr(client("dynamodb"), "update_item", full)
    assert env.report({"access": [session()]}).status == 200
    assert read().json["not_kept"] == 1


def test_it_is_kept_for_so_many_days(env: ApiEnv) -> None:
    env.report({"access": [session()]})
    (item,) = stored()
    assert item["expires"] == expiry(NOW, 30)
    assert 30 * DAY_S <= item["expires"] - NOW <= 31 * DAY_S


def test_each_notebook_is_read_alone_and_all_of_them_together(env: ApiEnv) -> None:
    table = Table("records")
    for name in ("demo", "demo-2", "Demo2"):
        access_log.save_sessions(table, name, [Session("x", name, "", "ngrok", NOW)], 0, NOW, 30)
    assert [each["who"] for each in read("DEMO").json["entries"]] == ["demo"]
    assert {each["who"] for each in read().json["entries"]} == {"demo", "demo-2", "Demo2"}
    assert read("-").status == 400
    assert read("gone").json == {"entries": [], "not_kept": 0, "not_shown": 0}


def test_the_newest_are_shown(env: ApiEnv) -> None:
    item = {"notebook": "demo", "kind": "certificate"}
    many = {f"b_{number}": {"who": "x", "from": "", "begin": number, "end": number} for number in range(MOST_SHOWN + 5)}
    answer = entries([item | many])
    assert (len(answer["entries"]), answer["not_shown"]) == (MOST_SHOWN, 5)
    assert answer["entries"][0]["id"] == str(MOST_SHOWN + 4)


def test_a_log_that_cannot_be_written_is_tried_again(env: ApiEnv) -> None:
    env.report()
    real = client("dynamodb").update_item

    def busy(**given: Any) -> Any:
        if given["Key"]["pk"]["S"] == "access":
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, "UpdateItem")
        return real(**given)

    env.patch.setattr(client("dynamodb"), "update_item", busy)
    assert env.report({"sequence": 6, "access": [session()]}).status == 503


def test_one_persons_entries_are_erased_as_the_page_says(env: ApiEnv) -> None:
    table = Table("records")
    env.report({"access": [session(1), session(2, who=MARIO.replace("mario", "ana"), end=NOW)]})
    for serial, who in (("7", MARIO), ("8", MARIO.replace("mario", "ana"))):
        access_log.save_certificate(table, "Demo", Certificate(serial, who, "203.0.113.9", NOW, NOW + 60), NOW, 30)
    page = (PROJECT / "docs/access.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    exec(
        compile(program.partition("\nerase(")[0], "docs/access.md", "exec"), scope
    )  # the page's functions, without the call
    assert scope["erase"]("records", "arn:aws:sts::123456789012:assumed-role/data-science/mario") == 2
    assert {each["who"] for each in read().json["entries"]} == {MARIO.replace("mario", "ana")}
    assert len(read().json["entries"]) == 2
    assert "mario" not in json.dumps(stored())


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("/access", "/access/"),
        ("/access", "/acc%65ss"),
        ("/access", "/x/../access"),
        ("/notebooks/{name}/access", "/notebooks/demo/access/"),
        ("/notebooks/{name}/access", "/notebooks/d%65mo/access"),
        ("/notebooks/{name}/access", "/notebooks/demo/ACCESS"),
        ("/notebooks/{name}/access", ""),
    ],
)
def test_no_other_spelling_is_answered(env: ApiEnv, resource: str, path: str) -> None:
    """What the API's policy denies is compared with the path as it was sent."""
    answer = access_api.handle(an_api_event("GET", resource, "demo", path=path), CONTEXT)
    assert answer["statusCode"] == 404


def test_who_reads_it_is_logged(env: ApiEnv, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read()
    (line,) = [each for each in caplog.records if each.message == "access log read"]
    assert line.caller.endswith("assumed-role/demo-role/SageMaker")  # type: ignore[attr-defined]


def test_no_other_function_answers_it(env: ApiEnv) -> None:
    assert env.get("/access").status == 404
    assert env.get("/notebooks/{name}/access", "Demo").status == 404
    answer = access_api.handle(an_api_event("GET", "/notebooks"), CONTEXT)
    assert answer["statusCode"] == 404
