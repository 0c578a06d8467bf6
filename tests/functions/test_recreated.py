"""A notebook that is deleted and created again under its name is another notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.builders import a_report
from support.notebook_world import FALLBACK, OWNERS, World, a_world

from notebook_ssh.adapters.clients import client
from notebook_ssh.model.record import BastionRoute, Restart, RestartStep


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(monkeypatch) as world:
        yield world


def delete(world: World, name: str) -> None:
    """No event of it arrives."""
    client("sagemaker").delete_notebook_instance(NotebookInstanceName=name)
    world.finish(3_000)
    world.messages.clear()


def test_what_a_person_attached_stays(world: World) -> None:
    world.notebook("box", running=False, ssh="ngrok")
    world.settle()
    assert world.record("box").attached_config == FALLBACK
    delete(world, "box")
    world.notebook("box", FALLBACK, running=False)
    world.settle()
    assert world.attached_config("box") == FALLBACK


def test_no_restart_of_the_former_one_is_finished(world: World) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", running=False, ssh="ngrok")
    world.settle()
    before = world.record("box")
    delete(world, "box")
    restart = Restart(RestartStep.STOP, before.state_since, world.now)
    world.table.update(
        "notebook", "box", set={"restart": {"step": str(restart.step), "since": restart.since, "at": restart.at}}
    )
    world.notebook("box", "team", running=False)
    world.settle()
    assert world.status("box") == "Stopped"


@pytest.mark.parametrize("tags", [{}, {"ssh": "bastion"}], ids=["untagged", "tagged"])
def test_no_report_and_no_route_of_the_former_one_is_shown(world: World, tags: dict[str, Any]) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="bastion")
    world.settle()
    report = a_report(received_at=world.now)
    assert world.table.replace_report("box", world.record("box").role, report, None).written
    world.table.save_route("box", BastionRoute(open=True, private_ip="10.0.0.9", since=world.now))
    world.stop("box")
    world.finish()
    delete(world, "box")
    world.bastion = 0
    world.notebook("box", "team", **tags)
    world.settle()
    record = world.table.record("box")
    assert record is None or (record.report, record.route) == (None, None)
    assert (record is not None) is bool(tags)
    assert world.bastion >= 1, "the rules of the former one are left"


def test_the_configuration_of_the_former_one_is_restored(world: World) -> None:
    world.lifecycle_config("team")
    world.lifecycle_config("other")
    world.notebook("box", "team", running=False, ssh="ngrok")
    world.settle()
    delete(world, "box")
    world.notebook("box", "other")
    world.settle()
    assert world.on_start("team") == OWNERS
    assert world.table.record("box") is None


def test_the_same_notebook_keeps_its_record(world: World) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.settle()
    assert world.table.replace_report("box", world.record("box").role, a_report(received_at=world.now), None).written
    world.stop("box")
    world.settle()
    assert world.record("box").report is not None
