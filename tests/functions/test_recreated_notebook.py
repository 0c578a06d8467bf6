"""A notebook that is deleted and created again under its name is another notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.builders import a_report
from support.notebook_env import FALLBACK, OWNERS, NotebookEnv, notebook_env

from notebook_ssh.adapters.clients import client
from notebook_ssh.model.record import Restart, RestartStep, Route
from notebook_ssh.model.spec import Mode


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        yield env


def delete(env: NotebookEnv, name: str) -> None:
    """No event of it arrives."""
    client("sagemaker").delete_notebook_instance(NotebookInstanceName=name)
    env.finish(3_000)
    env.messages.clear()


def test_what_a_person_attached_stays(env: NotebookEnv) -> None:
    env.notebook("box", running=False, ssh="ngrok")
    env.settle()
    assert env.record("box").attached_config == FALLBACK
    delete(env, "box")
    env.notebook("box", FALLBACK, running=False)
    env.settle()
    assert env.attached_config("box") == FALLBACK


def test_no_restart_of_the_former_one_is_finished(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", running=False, ssh="ngrok")
    env.settle()
    before = env.record("box")
    delete(env, "box")
    restart = Restart(RestartStep.STOP, before.state_since, env.now)
    env.table.update(
        "notebook", "box", set={"restart": {"step": str(restart.step), "since": restart.since, "at": restart.at}}
    )
    env.notebook("box", "team", running=False)
    env.settle()
    assert env.status("box") == "Stopped"


@pytest.mark.parametrize("tags", [{}, {"ssh": "bastion"}], ids=["untagged", "tagged"])
def test_no_report_and_no_route_of_the_former_one_is_shown(env: NotebookEnv, tags: dict[str, Any]) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="bastion")
    env.settle()
    report = a_report(received_at=env.now)
    assert env.table.replace_report("box", env.record("box").role, report, None).written
    env.table.save_route("box", Mode.BASTION, Route(open=True, private_ip="10.0.0.9", since=env.now))
    env.stop("box")
    env.finish()
    delete(env, "box")
    env.bastion = 0
    env.notebook("box", "team", **tags)
    env.settle()
    record = env.table.record("box")
    assert record is None or (record.report, record.routes) == (None, {})
    assert (record is not None) is bool(tags)
    assert env.bastion >= 1, "the rules of the former one are left"


def test_the_configuration_of_the_former_one_is_restored(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.lifecycle_config("other")
    env.notebook("box", "team", running=False, ssh="ngrok")
    env.settle()
    delete(env, "box")
    env.notebook("box", "other")
    env.settle()
    assert env.on_start("team") == OWNERS
    assert env.table.record("box") is None


def test_the_same_notebook_keeps_its_record(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    assert env.table.replace_report("box", env.record("box").role, a_report(received_at=env.now), None).written
    env.stop("box")
    env.settle()
    assert env.record("box").report is not None
