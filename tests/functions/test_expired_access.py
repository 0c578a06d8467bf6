"""`ssh-until`: access that was over before it began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.notebook_env import OWNERS, NotebookEnv, notebook_env

from notebook_ssh.model.status import Code, status_of


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch, STATUS_TAGS="true") as env:
        env.lifecycle_config("team")
        yield env


@pytest.mark.parametrize("heard", [True, False], ids=["by its event", "by the sweep"])
def test_an_end_that_is_past_when_it_is_written_is_expired_and_changes_no_script(env: NotebookEnv, heard: bool) -> None:
    """A user who mistyped the year reads so in the status, and not that SSH is off."""
    env.deaf = not heard
    env.notebook("box", "team", ssh="ngrok", ssh_until="2020-01-01T00:00Z")
    if not heard:
        env.sweep()
    env.settle()
    record = env.record("box")
    status = status_of(record, env.now, 300)
    assert (status.code, status.next_step.split(",")[0]) == (Code.EXPIRED, "To go on")
    assert env.tags("box")["ssh-status"] == "expired"
    assert env.on_start("team") == OWNERS

    env.deaf = False
    env.untag("box", "ssh-until")
    env.settle()
    assert env.has_block("team")
    env.untag("box")
    env.settle()
    assert "ssh-status" not in env.tags("box")
