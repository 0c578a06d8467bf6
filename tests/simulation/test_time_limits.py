"""When access has ended after an untag or `ssh-until`, with the sweep off: docs/reliability.md, "Time limits".

Every call to AWS between the tag and the end fails once, in a run of its own, and every invocation dies once at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from simulation.account import BASTION_GROUP, BASTION_VPC, ENDPOINT, ENDPOINT_GROUP, Notebook, Rule
from simulation.errors import Killed, no_answer, refusal
from simulation.invariants import STACK
from simulation.run import bound
from simulation.scenario import Scenario

SCRIPT = b"#!/bin/bash\necho the owner was here\n"
NO_FAULT_MS, ONE_FAULT_MS = 60_000, 240_000
FAR_S = 4_000
"""Seconds to an end that no single message can wait for."""

FAULTS = ("throttled", "no answer", "killed before", "killed after")


class Timed(Scenario):
    """fault: what happens to call number `at` after `armed`. closed_at: since when no rule of the stack has been left.

    left: the group of an entrance whose rules may stay.
    """

    def __init__(self, fault: str = "", at: int = -1) -> None:
        super().__init__()
        self.fault, self.at_call, self.number, self.armed = fault, at, 0, False
        self.lasting: Callable[[str], bool] = lambda operation: False
        self.closed_at: int | None = None
        self.left: str | None = None

    def call(self, service: str, operation: str, **given: Any) -> Any:
        if self.baton.current is None or not self.armed:
            return super().call(service, operation, **given)
        if self.lasting(operation):
            raise refusal("AccessDeniedException", f"is not authorized to perform: sagemaker:{operation}")
        number, self.number = self.number, self.number + 1
        if number != self.at_call:
            return super().call(service, operation, **given)
        if self.fault == "killed after":
            super().call(service, operation, **given)
        if self.fault.startswith("killed"):
            raise Killed
        raise no_answer() if self.fault == "no answer" else refusal("ThrottlingException", "Rate exceeded")

    def _step(self) -> None:
        super()._step()
        if any(rule.stack == STACK and self.counts_rule(rule) for rule in self.account.rules.values()):
            self.closed_at = None
        elif self.closed_at is None:
            self.closed_at = self.now

    def counts_rule(self, rule: Rule) -> bool:
        """Whether the rule is one that has to go."""
        return self.left is None or self.left not in (rule.group, rule.peer)

    def wait(self, milliseconds: int) -> None:
        """Everything that happens within this time."""
        end = self.now + milliseconds
        self.at(end, lambda: None)
        while self.now < end:
            self._step()

    def bastion_notebook(self) -> Notebook:
        """A running notebook that the bastion may reach once it is tagged."""
        self.account.groups |= dict.fromkeys((BASTION_GROUP, ENDPOINT_GROUP, "sg-1"), BASTION_VPC)
        self.account.endpoints[ENDPOINT] = ENDPOINT_GROUP, BASTION_VPC
        self.lifecycle_config("team", SCRIPT)
        notebook = self.notebook("demo", "team")
        notebook.status, notebook.groups = "InService", ("sg-1",)
        return notebook


@contextmanager
def a_run(fault: str = "", at: int = -1) -> Iterator[Timed]:
    run = Timed(fault, at)
    run.account.person = False
    with bound(run):
        try:
            yield run
        finally:
            run._end()


def after_an_untag(run: Timed) -> int:
    """Milliseconds from the untag until no rule is left."""
    notebook = run.bastion_notebook()
    run.tag(notebook, ssh="bastion")
    run.settle()
    assert run.closed_at is None, "no rule was ever made"
    run.armed, begin = True, run.now
    run.untag(notebook)
    run.settle()
    assert run.closed_at is not None, "rules are left, and nothing is under way"
    return run.closed_at - begin


def after_an_end(run: Timed, ahead: int = FAR_S) -> int:
    """Milliseconds from `ssh-until` until no rule is left; faults begin with the tag."""
    notebook = run.bastion_notebook()
    until = run.now // 1000 + ahead
    run.armed = True
    run.tag(
        notebook, **{"ssh": "bastion", "ssh-until": datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    )
    run.settle()
    assert run.now >= until * 1000, "nothing waits for the end"
    assert run.closed_at is not None, "rules are left, and nothing is under way"
    return run.closed_at - until * 1000


def after_a_way_is_dropped(run: Timed) -> int:
    """Milliseconds from the tag that names one of two ways until no rule of the other is left."""
    notebook = run.bastion_notebook()
    run.left = ENDPOINT_GROUP
    run.tag(notebook, ssh="bastion eice")
    run.settle()
    assert run.closed_at is None, "no rule was ever made"
    run.armed, begin = True, run.now
    run.tag(notebook, ssh="eice")
    run.settle()
    assert run.closed_at is not None, "rules are left, and nothing is under way"
    assert any(ENDPOINT_GROUP in (rule.group, rule.peer) for rule in run.account.rules.values())
    return run.closed_at - begin


ENDS = pytest.mark.parametrize(
    "ends", [after_an_untag, after_an_end, after_a_way_is_dropped], ids=["untag", "until", "a way dropped"]
)


@ENDS
def test_without_a_fault_rules_are_gone_within_a_minute(ends: Callable[[Timed], int]) -> None:
    with a_run() as run:
        assert 0 <= ends(run) <= NO_FAULT_MS
        assert not run.dead


@ENDS
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "step",
    [
        3,
        pytest.param(
            1,
            marks=pytest.mark.nightly(sibling="test_with_one_fault_at_any_call_rules_are_gone_within_four_minutes"),
        ),
    ],
)
def test_with_one_fault_at_any_call_rules_are_gone_within_four_minutes(
    ends: Callable[[Timed], int], fault: str, step: int
) -> None:
    """By day at every third call, at night at each."""
    with a_run() as run:
        ends(run)
        calls = run.number
    assert calls > 10
    late = {}
    for at in range(0, calls, step):
        with a_run(fault, at) as run:
            try:
                took = ends(run)
            except AssertionError as error:
                late[at] = str(error)
                continue
        if took > ONE_FAULT_MS or run.dead:
            late[at] = f"{took} ms, {len(run.dead)} dead"
    assert not late


@ENDS
def test_tags_that_may_not_be_written_hold_up_no_end(ends: Callable[[Timed], int]) -> None:
    """A tag policy, or 50 tags already: `ssh-status` is refused for good."""
    with a_run() as run:
        run.lasting = lambda operation: operation in ("add_tags", "delete_tags")
        assert 0 <= ends(run) <= NO_FAULT_MS
        assert not run.dead
        record = run.table.record("demo")
        assert record is not None
        assert record.observed_hash


def test_an_end_does_not_wait_for_a_write_slot() -> None:
    """A thousand scripts are to be written first: the block goes later, and the rules at once."""
    with a_run() as run:
        notebook = run.bastion_notebook()
        run.tag(notebook, ssh="bastion")
        run.settle()
        begin = run.now
        run.table.update("coordination", "sagemaker-writes", set={"next": run.now + 600_000})
        run.untag(notebook)
        run.settle()
        assert run.closed_at is not None
        assert run.closed_at - begin <= NO_FAULT_MS


def test_links_of_one_chain_are_as_few_as_its_quarters_of_an_hour() -> None:
    """A tag that is taken away and written again, time after time, starts no second chain."""
    with a_run() as run:
        notebook = run.bastion_notebook()
        until = datetime.fromtimestamp(run.now // 1000 + 20 * 900, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for _ in range(10):
            run.tag(notebook, **{"ssh": "bastion", "ssh-until": until})
            run.wait(60_000)
            run.untag(notebook)
            run.wait(60_000)
        run.tag(notebook, **{"ssh": "bastion", "ssh-until": until})
        run.posted.clear()
        run.settle()
        links = [body for body in run.posted if "its time ends" in body]
        assert 18 <= len(links) <= 40
