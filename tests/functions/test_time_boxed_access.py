"""`ssh-until`: access that was over before it began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.notebook_world import OWNERS, World, a_world

from notebook_ssh.model.status import Code, status_of


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(monkeypatch, STATUS_TAGS="true") as world:
        world.lifecycle_config("team")
        yield world


@pytest.mark.parametrize("heard", [True, False], ids=["by its event", "by the sweep"])
def test_an_end_that_is_past_when_it_is_written_is_expired_and_changes_no_script(world: World, heard: bool) -> None:
    """Whoever mistyped the year reads so in the status, and not that nobody asked for SSH."""
    world.deaf = not heard
    world.notebook("box", "team", ssh="ngrok", ssh_until="2020-01-01T00:00Z")
    if not heard:
        world.sweep()
    world.settle()
    record = world.record("box")
    status = status_of(record, world.now, 300)
    assert (status.code, status.next_step.split(",")[0]) == (Code.EXPIRED, "To go on")
    assert world.tags("box")["ssh-status"] == "expired"
    assert world.on_start("team") == OWNERS

    world.deaf = False
    world.untag("box", "ssh-until")
    world.settle()
    assert world.has_block("team")
    world.untag("box")
    world.settle()
    assert "ssh-status" not in world.tags("box")
