"""What the simulation found once, each as a scenario in which one call meets its fate and nothing else goes wrong.

A seed finds its bug only as long as the code makes the same calls; these find it for good.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from simulation.account import Notebook
from simulation.errors import Killed, no_answer
from simulation.invariants import FALLBACK, Truth, decoded, encoded
from simulation.run import bound
from simulation.scenario import Scenario

from notebook_ssh.adapters import sagemaker

SCRIPT = b"#!/bin/bash\necho the owner was here\n"
TOO_LARGE = b"#!/bin/bash\n" + b"# a comment that takes all of the room\n" * 310


class Struck(Scenario):
    """before, after: what becomes of the first call of `operation`, before and after it is obeyed."""

    def __init__(self) -> None:
        super().__init__()
        self.operation, self.struck = "", False
        self.lost = ""  # what the next message holds that nobody gets
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def call(self, service: str, operation: str, **given: Any) -> Any:
        if operation != self.operation or self.baton.current is None:
            return super().call(service, operation, **given)
        self.operation = ""
        self.before()
        answer = super().call(service, operation, **given)
        self.struck = True
        self.after()
        return answer

    def put(self, queue: str, body: str, delay: int) -> None:
        if self.lost and self.lost in body:
            self.lost = ""
        else:
            super().put(queue, body, delay)

    def sweep_until_struck(self) -> None:
        """A sweep, and what follows from it until the call has met its fate."""
        self._sweep_now()
        while not self.struck:
            self._step()

    def problem(self, name: str) -> str:
        """The code of what is known to stand in a notebook's way."""
        record = self.table.record(name)
        return record.problem.code if record and record.problem else ""


@pytest.fixture
def run() -> Iterator[Struck]:
    run = Struck()
    run.account.person = False
    with bound(run):
        try:
            yield run
        finally:
            run._end()


def die() -> None:
    raise Killed


def break_the_connection() -> None:
    raise no_answer()


@pytest.mark.parametrize("operation", ["put_item", "update_item", "delete_item", "batch_get_item"])
def test_a_connection_that_breaks_under_a_call_to_the_table_means_later(run: Struck, operation: str) -> None:
    run.lifecycle_config("ours", SCRIPT)
    notebook = run.notebook("demo", "ours")
    run.operation, run.before = operation, break_the_connection
    run.tag(notebook, ssh="ngrok")
    run.settle()
    run.invariants.settled()
    run.untag(notebook)
    run.settle()
    assert not run.operation
    run.invariants.settled()


def two_users_of_a_script_that_is_too_large(run: Struck) -> tuple[Notebook, Notebook]:
    run.lifecycle_config("shared", TOO_LARGE)
    first, second = run.notebook("first", "shared"), run.notebook("second", "shared")
    for each in (first, second):
        run.tag(each, ssh="ngrok")
    run.settle()
    assert (run.problem("first"), run.problem("second")) == ("config-too-large",) * 2
    return first, second


def shorten(run: Struck) -> None:
    """The owner makes room."""
    run.account.person = True
    run.invariants.truths["shared"] = Truth(SCRIPT)
    run.account.update_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="shared", OnStart=[{"Content": encoded(SCRIPT)}]
    )
    run.account.person = False


def test_users_of_a_configuration_get_messages_before_its_change_is_saved(run: Struck) -> None:
    two_users_of_a_script_that_is_too_large(run)
    run.operation, run.before = "send_message_batch", die
    shorten(run)
    run.settle()
    assert (run.problem("first"), run.problem("second")) == ("", "")


def test_the_sweep_finds_users_of_a_repaired_shared_script_without_an_event(run: Struck) -> None:
    first, _ = two_users_of_a_script_that_is_too_large(run)
    run.deaf = True
    shorten(run)
    run.tag(first, ssh="bastion")
    run.settle(sweeps=2)
    assert (run.problem("first"), run.problem("second")) == ("", "")


def test_a_configuration_is_known_of_before_it_is_made(run: Struck) -> None:
    """Its function dies with it just made, the tag is gone before anybody looks again, and so is who was to look at it."""
    notebook = run.notebook("demo", None)
    run.operation, run.after = "create_notebook_instance_lifecycle_config", die
    run.deaf = True
    run.tag(notebook, ssh="ngrok")
    run.sweep_until_struck()
    assert FALLBACK in run.account.lifecycle_configs
    run.untag(notebook)
    run.lost = json.dumps({"lifecycle_config": FALLBACK})
    run.settle(sweeps=2)
    assert not run.lost
    assert FALLBACK not in run.account.lifecycle_configs


def test_a_notebook_is_known_before_its_status_is_shown(run: Struck) -> None:
    """Its function dies with the tag just written; and ours is gone before anybody looks again."""
    notebook = run.notebook("demo", None)
    notebook.status = "InService"
    run.operation, run.after = "add_tags", die
    run.deaf = True
    run.tag(notebook, ssh="ngrok")
    run.sweep_until_struck()
    assert "ssh-status" in notebook.tags
    run.untag(notebook)
    run.settle(sweeps=2)
    assert "ssh-status" not in notebook.tags


def test_a_notebook_that_is_deleted_before_its_status_is_written_is_gone(run: Struck) -> None:
    notebook = run.notebook("demo", None)
    run.operation, run.before = "add_tags", lambda: run.account.notebooks.clear()
    run.tag(notebook, ssh="ngrok")
    run.settle(sweeps=2)
    assert not run.operation
    assert run.table.record("demo") is None
    assert not run.dead


def test_a_configuration_that_a_user_wrote_into_is_not_deleted(run: Struck) -> None:
    run.lifecycle_config("ours", SCRIPT)
    seen = sagemaker.describe_lifecycle_config("ours")
    run.account.lifecycle_configs["ours"].on_start = encoded(b"#!/bin/sh\necho mine\n")
    with pytest.raises(sagemaker.ScriptConflictError, match="was changed"):
        sagemaker.delete_lifecycle_config(seen)
    assert "ours" in run.account.lifecycle_configs


def test_a_configuration_that_a_user_attached_is_reconciled_again(run: Struck) -> None:
    run.lifecycle_config("ours", SCRIPT)
    seen = sagemaker.describe_lifecycle_config("ours")
    run.notebook("demo", "ours")
    with pytest.raises(sagemaker.ScriptConflictError, match="was not deleted"):
        sagemaker.delete_lifecycle_config(seen)
    assert decoded(run.account.lifecycle_configs["ours"].on_start) == SCRIPT


def test_a_restart_upgrades_the_script_that_a_notebook_is_about_to_get(run: Struck) -> None:
    """It starts with the default configuration, which another notebook uses with a block that works."""
    run.tag(run.notebook("user", None), ssh="ngrok")
    run.settle(sweeps=1)
    run.next_block()
    run.tag(run.notebook("next", None), ssh="ngrok", **{"ssh-restart": "now"})
    run.settle()
    assert run.invariants.checked["upgrades that were requested"] == 1
    assert {each.lifecycle_config for each in run.account.notebooks.values()} == {FALLBACK}
    run.invariants.settled()
