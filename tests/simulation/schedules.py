"""The one order of events, often of two invocations at the same time, that a safeguard is for: chance hardly ever meets it.

Each schedule is a function that raises AssertionError when the safeguard is missing. No sweep takes part, because it
would put right what went wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from simulation.account import Notebook
from simulation.invariants import FALLBACK, blocks, decoded, encoded
from simulation.run import bound
from simulation.scenario import Scenario

SCRIPT = b"#!/bin/bash\necho the owner was here\n"
HOLD, LATER = 40_000, 5_000
"""Milliseconds for which a call is held, and after which the other invocation begins."""


class Held(Scenario):
    """held: whether a call of an invocation, by its operation and parameters, is the one that waits, once."""

    def __init__(self, held: Callable[[str, dict[str, Any]], bool], then: Callable[[], None]) -> None:
        """then: what a user does while the call waits."""
        super().__init__()
        self.held, self.then, self.waited = held, then, False

    def call(self, service: str, operation: str, **given: Any) -> Any:
        """As any call; the one that is held is obeyed HOLD later, whatever the other invocations do until then."""
        worker = self.baton.current
        if worker is not None and not self.waited and self.held(operation, given):
            self.waited = True
            worker.wake = self.now + HOLD
            self.at(self.now + LATER, self.then)
        return super().call(service, operation, **given)


def saves_the_record_of(notebook: list[Notebook]) -> Callable[[str, dict[str, Any]], bool]:
    """Which call saves a notebook's record while the one in the list, which may be empty yet, is tagged."""

    def saves(operation: str, given: dict[str, Any]) -> bool:
        tagged = "ssh" in notebook[0].tags if notebook else False
        return tagged and operation == "update_item" and given["Key"]["pk"]["S"] == "notebook"

    return saves


def hold_no_mode(run: Held) -> None:
    """A call waited, and nothing of the removed tag is left in the record."""
    assert run.waited, "the call that is held was not made"
    record = run.table.record("box")
    assert record is None or record.spec.modes == (), "the record has a mode, and the notebook no tag"


def an_older_record_is_saved_late() -> None:
    """A reconciliation that saw the tag saves its record after the one that saw the tag removed."""
    notebook: list[Notebook] = []
    run = Held(saves_the_record_of(notebook), lambda: run.untag(notebook[0]))
    with bound(run):
        try:
            run.account.groups["sg-1"] = "vpc-1"
            run.lifecycle_config("ours", SCRIPT)
            other = run.notebook("other", "ours")
            run.tag(other, ssh="ngrok")
            run.settle()
            box = run.notebook("box", "ours")
            run.tag(box, ssh="ngrok")
            run.settle()
            notebook.append(box)
            run.tag(box, ssh="bastion")
            run.settle()
            hold_no_mode(run)
        finally:
            run._end()


def a_first_record_is_saved_after_the_untag() -> None:
    """As the first, for a notebook without a record: who sees the tag removed saves none that could be newer."""
    notebook: list[Notebook] = []
    run = Held(saves_the_record_of(notebook), lambda: run.untag(notebook[0]))
    with bound(run):
        try:
            run.account.groups["sg-1"] = "vpc-1"
            run.lifecycle_config("ours", SCRIPT)
            run.tag(run.notebook("other", "ours"), ssh="ngrok")
            run.settle()
            notebook.append(run.notebook("box", "ours"))
            run.tag(notebook[0], ssh="bastion")
            run.settle()
            hold_no_mode(run)
        finally:
            run._end()


def a_configuration_is_deleted_while_it_is_attached() -> None:
    """One invocation has found the stack's configuration unused, and another attaches it before it is deleted.

    UNCONFIRMED(delete-attached) whether SageMaker deletes a configuration that is in use: here it does.
    """

    def deletes(operation: str, given: dict[str, Any]) -> bool:
        return operation == "delete_notebook_instance_lifecycle_config"

    run = Held(deletes, lambda: run.tag(second, ssh="ngrok"))

    def delete(*, NotebookInstanceLifecycleConfigName: str) -> dict[str, Any]:  # noqa: N803  as AWS names it
        del run.account.lifecycle_configs[NotebookInstanceLifecycleConfigName]
        return {}

    with bound(run):
        try:
            run.account.delete_notebook_instance_lifecycle_config = delete  # type: ignore[method-assign]
            first, second = run.notebook("first", None), run.notebook("second", None)
            run.tag(first, ssh="ngrok")
            run.settle()
            assert first.lifecycle_config == FALLBACK
            run.untag(first)
            run.settle()
            assert run.waited, "the call that is held was not made"
            run.settle()
            assert second.lifecycle_config == FALLBACK
            assert FALLBACK in run.account.lifecycle_configs, "a notebook has a configuration that was deleted"
        finally:
            run._end()


def an_edit_is_found_without_its_event() -> None:
    """A user saves a script without the block, the event is lost, and two minutes later the notebook's tags change."""
    run = Scenario()
    with bound(run):
        try:
            run.lifecycle_config("ours", SCRIPT)
            box = run.notebook("box", "ours")
            run.tag(box, ssh="ngrok")
            run.settle()
            run.deaf = run.account.person = True
            run.account.update_notebook_instance_lifecycle_config(
                NotebookInstanceLifecycleConfigName="ours", OnStart=[{"Content": encoded(SCRIPT)}]
            )
            run.deaf = run.account.person = False
            run.now += 120_000
            run.tag(box, **{"ssh-users": "mario"})
            run.settle()
            assert blocks(decoded(run.account.lifecycle_configs["ours"].on_start)), "a block is missing"
        finally:
            run._end()


def with_a_session() -> tuple[Scenario, Notebook]:
    """A notebook that runs, and someone on it who came with a certificate. Within `bound`, as its caller is."""
    run = Scenario()
    run.certificates = True
    return run, Notebook("box", "role", run.now, "Stopped", "ours")


def report(run: Scenario, notebook: Notebook) -> None:
    """The notebook reports, and hears the answer."""
    run._report(notebook, notebook.boots, once=True)
    run.settle()


def let_in(run: Scenario, notebook: Notebook) -> None:
    """From an untagged notebook to one that admits certificates."""
    notebook.created = run.now - 3_600_000
    run.account.notebooks[notebook.name] = notebook
    run.tag(notebook, ssh="ngrok")
    run.settle()
    run.account.person = True
    run.account.start_notebook_instance(NotebookInstanceName=notebook.name)
    run.account.person = False
    run.settle()
    run.reports[notebook.name] = 0
    report(run, notebook)
    assert run.logins.machine(notebook).admits, "it admits certificates"


def open_a_session(run: Scenario, box: Notebook) -> None:
    """From an untagged notebook to a session."""
    run.account.groups["sg-1"] = "vpc-1"
    run.lifecycle_config("ours", SCRIPT)
    let_in(run, box)
    run.logins.ask(box, "ana")
    run.settle()
    assert len(run.logins.machine(box).sessions) == 1, "someone logged in"


def a_typo_in_the_tag_ends_no_session() -> None:
    """The value is misspelt: SSH is off until it is corrected, and who is on the notebook stays."""
    run, box = with_a_session()
    with bound(run):
        try:
            open_a_session(run, box)
            run.tag(box, ssh="ngork")
            run.settle()
            report(run, box)
            assert run.logins.machine(box).admits is None, "no one is let in"
            assert run.logins.machine(box).sessions, "a session was ended for a typo"
            run.untag(box)
            run.settle()
            report(run, box)
            assert not run.logins.machine(box).sessions, "the tag is gone, and a session is left"
        finally:
            run._end()


def a_certificate_ends_with_access() -> None:
    """It is asked for ten minutes before the end of access, and lets no one in after it."""
    run, box = with_a_session()
    with bound(run):
        try:
            open_a_session(run, box)
            until = run.now // 1000 + 600
            run.tag(box, **{"ssh-until": datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")})
            # Not until everything is at rest, which is after that end.
            run.step_until(lambda: bool((record := run.table.record("box")) and record.spec.until))
            run.logins.ask(box, "mario")
            run.step_until(lambda: len(run.logins.certificates) > 1)
            assert run.logins.certificates[-1].valid_before == until, "a certificate outlives access"
        finally:
            run._end()


def a_certificate_opens_no_other_notebook() -> None:
    """Two notebooks admit certificates, and someone tries one at the other."""
    run, box = with_a_session()
    with bound(run):
        try:
            open_a_session(run, box)
            other = Notebook("other", "role", run.now, "Stopped", "ours")
            let_in(run, other)
            assert not run.logins.log_in(other, run.logins.certificates[0]), "a certificate opens another notebook"
        finally:
            run._end()


def what_was_withdrawn_lets_no_one_in() -> None:
    """A certificate is withdrawn, and the notebook has reported since."""
    run, box = with_a_session()
    with bound(run):
        try:
            open_a_session(run, box)
            (certificate,) = run.logins.certificates
            run.now += 61_000
            run.logins.revoke(certificate.serial)
            report(run, box)
            assert not run.logins.log_in(box, certificate), "a withdrawn certificate lets someone in"
            run.now += 61_000
            report(run, box)
            assert not run.logins.machine(box).sessions, "and its session ends"
            run.logins.ask(box, "ana")
            run.settle()
            assert run.logins.log_in(box, run.logins.certificates[-1]), "the next one is good"
        finally:
            run._end()


SCHEDULES = (
    an_older_record_is_saved_late,
    a_first_record_is_saved_after_the_untag,
    a_configuration_is_deleted_while_it_is_attached,
    an_edit_is_found_without_its_event,
    a_typo_in_the_tag_ends_no_session,
    a_certificate_ends_with_access,
    a_certificate_opens_no_other_notebook,
    what_was_withdrawn_lets_no_one_in,
)
