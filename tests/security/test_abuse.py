"""People who mean harm, at the real handlers. docs/security.md lists every abuse with the test that tries it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
from simulation.account import TOKEN, Notebook
from simulation.invariants import Truth, decoded, encoded
from simulation.run import Run
from support.api_env import ApiEnv, api_env
from support.builders import HOST_KEY, a_record, a_report
from support.hostile import INJECTIONS, OPERATIVE

from reconcile_notebook import handler as notebook_function

ROUTES = (
    *("/notebooks", "/ssh-config", "/known-hosts", "/notebooks/{name}", "/notebooks/{name}/ssh"),
    *("/notebooks/{name}/address", "/notebooks/{name}/ssh-config", "/notebooks/{name}/known-hosts"),
    "/notebooks/{name}/doctor",
)
OWNERS = b"#!/bin/bash\necho the owner was here\n"
LINES = {
    "/notebooks/{name}/ssh": re.compile(r"ssh [-\w.@ ]+"),
    "/notebooks/{name}/address": re.compile(r"[-\w.]+ \d+"),
    "/notebooks/{name}/ssh-config": re.compile(r"(#.*|Host [-\w. ]+|\s+[A-Z]\w+ [-\w./~@ ]+|)"),
    "/notebooks/{name}/known-hosts": re.compile(r"(#.*|[-\w.,\[\]:]+ [-\w@.]+ [A-Za-z0-9+/=]+)"),
}
"""What a line of an answer may be that a program reads."""


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        yield env


def assert_harmless(env: ApiEnv) -> None:
    for route in ROUTES:
        said = env.get(route)
        assert said.status < 500, route
        assert not OPERATIVE.search(said.text), route
        if route in LINES and said.status == 200:
            for line in said.text.splitlines():
                assert LINES[route].fullmatch(line), (route, line)


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("place", ["host", "host_keys", "agent", "boot", "problem", "rejected"])
def test_whatever_a_notebook_reports_is_refused_or_harmless(env: ApiEnv, place: str, text: str) -> None:
    hostile: dict[str, dict[str, Any]] = {
        "host": {"host": text},
        "host_keys": {"host_keys": [f"{HOST_KEY} {text}", text]},
        "agent": {"agent": text},
        "boot": {"boot": text},
        "problem": {"problem": {"code": "ngrok-x", "message": text}, "phase": "failed"},
        "rejected": {"keys": {"own": 0, "central": 0, "rejected": [{"line": 1, "reason": text}]}},
    }
    env.knows(a_record())
    said = env.report(hostile[place])
    assert said.status in (200, 400)
    if said.status == 400:
        assert env.report_of("demo") is None
    assert_harmless(env)


@pytest.mark.parametrize("name", INJECTIONS[:-1])
def test_a_name_in_the_path_is_no_way_in(env: ApiEnv, name: str, caplog: pytest.LogCaptureFixture) -> None:
    env.knows(a_record())
    for said in (env.report({}, name=name), env.start(name), env.get("/notebooks/{name}/ssh", name)):
        assert said.status == 400
        assert not OPERATIVE.search(said.text)
    assert not any(name in record.getMessage() for record in caplog.records)


def test_a_report_for_another_notebook_is_refused_in_any_capitals_and_changes_nothing(env: ApiEnv) -> None:
    env.knows(a_record(report=a_report()))
    other = env.knows(a_record(name="Other", role="other-role"))
    for name in ("Other", "other", "OTHER"):
        said = env.report({"host": "8.tcp.ngrok.io"}, name=name)
        assert (said.status, said.json["error"]) == (403, "other-role")
    assert env.report_of(other.name) is None


def test_a_report_that_was_overheard_cannot_be_sent_again(env: ApiEnv) -> None:
    env.knows(a_record())
    overheard = {"sequence": 3, "host": "1.tcp.ngrok.io"}
    assert env.report(overheard).status == 200
    assert env.report({"sequence": 4, "host": "2.tcp.ngrok.io"}).status == 200
    said = env.report(overheard)
    assert (said.status, said.json["error"]) == (409, "older-report")
    config_record = env.report_of("demo")
    assert config_record is not None
    assert config_record.host == "2.tcp.ngrok.io"


@pytest.mark.parametrize("value", INJECTIONS)
@pytest.mark.parametrize("key", ["ssh", "ssh-ngrok-url", "ssh-users", "ssh-until", "ssh-restart", "ssh-wake"])
def test_no_tag_gets_into_a_script_or_past_the_status(key: str, value: str) -> None:
    """The whole control plane looks at it: the script is the one that any other tag gives, or the owner's own."""
    script, shown, answers = after_tags({"ssh": "ngrok", key: value})
    usual, _, usual_answers = after_the_usual_tag()
    assert script in (OWNERS, usual)
    assert re.fullmatch(r"[a-z-]*(: [a-z-]+)?", shown)
    assert not OPERATIVE.search(answers)
    # No more often than the answers hold it anyway: JSON ends its lists so.
    assert answers.count(value) <= usual_answers.count(value) or value.isalnum()


@cache
def after_the_usual_tag() -> tuple[bytes | None, str, str]:
    return after_tags({"ssh": "ngrok"})


def after_tags(tags: dict[str, str]) -> tuple[bytes | None, str, str]:
    """The script, our status tag and what every route answers of a notebook with these tags, once all has settled."""
    run = Run(1, 0)

    def begin() -> None:
        run.invariants.truths["scripts"] = Truth(OWNERS)
        run.account.create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName="scripts", OnStart=[{"Content": encoded(OWNERS)}]
        )
        run.account.create_notebook(Notebook("demo", "demo-role", run.now, lifecycle_config="scripts", tags=dict(tags)))

    run.follow(begin)
    for route in ROUTES:
        run.look_up(route, "demo")
        run.follow(lambda: None)
    answers = "\n".join(answer for _, answer in run.said)
    assert len(run.said) == len(ROUTES)
    script = decoded(run.account.lifecycle_configs["scripts"].on_start)
    return script, run.account.notebooks["demo"].tags.get("ssh-status", ""), answers


def test_the_token_is_nowhere_but_in_the_answer_to_the_notebook() -> None:
    """After a whole run with all its faults: the table, the queues, the tags, the scripts, the logs, people's answers."""
    heard = Heard()
    for seed in range(11, 60):
        run = Run(seed, 1_500)
        with heard.everything():
            run.play()
        if any(TOKEN in answer for kind, answer in run.said if kind == "report"):
            break
    else:
        pytest.fail("no notebook was told its token, so nothing is shown here")
    assert TOKEN not in json.dumps([answer for kind, answer in run.said if kind != "report"])
    account = run.account
    places = (
        account.table.items,
        account.table.before,
        run.posted,
        account.status_change,
        account.indexed,
        heard.lines,
    )
    assert heard.lines
    assert not any(TOKEN in repr(place) for place in places)
    assert not any(TOKEN in repr(each) for each in (*account.notebooks.values(), *account.rules.values()))
    scripts = (decoded(each.on_start) or b"" for each in account.lifecycle_configs.values())
    assert not any(TOKEN.encode() in script for script in scripts)


class Heard(logging.Handler):
    """Everything that the functions log, whatever its level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.__dict__}")

    @contextmanager
    def everything(self) -> Iterator[None]:
        """Listen to the functions' loggers, which the simulation otherwise leaves off."""
        logger = logging.getLogger(notebook_function.logger.name)
        logger.addHandler(self)
        with patch.object(logging, "disable", lambda level=logging.CRITICAL: None):
            yield
        logger.removeHandler(self)
