"""A notebook reports, and learns what to do: through the real handler, on moto's table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_world import World, api_world
from builders import NOW, a_record, a_report


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with api_world(monkeypatch) as world:
        yield world


def test_the_first_report_is_kept_and_answered(world: World) -> None:
    version = world.token('{"token": "2abc_DEF"}')
    world.knows(a_record())
    said = world.report()
    assert said.status == 200, said.text
    assert said.json == {
        "notebook": "demo",
        "mode": "ngrok",
        "sync_after": 300,
        "server_time": NOW,
        "until": None,
        "authorized_keys": [],
        "ngrok": {"url": None, "token_version": version, "token": "2abc_DEF"},
        "problem": None,
    }
    assert world.report_of("demo") == a_report(received_at=NOW, connected_since=NOW, phase_since=NOW)


def test_steady_state_is_one_write_and_nothing_else(world: World) -> None:
    version = world.token("2abc_DEF")
    world.knows(a_record(report=a_report(received_at=NOW - 300)))
    world.report({"sequence": 6})
    world.now += 300
    world.since()
    world.patch.setattr("notebook_ssh.aws.secrets.KEPT_SECONDS", 10_000)
    said = world.report({"sequence": 7, "token_version": version})
    assert said.status == 200
    assert world.since() == {"UpdateItem": 1}
    assert "token" not in said.json["ngrok"]
    assert world.report_of("demo") == a_report(sequence=7, received_at=NOW + 300)
