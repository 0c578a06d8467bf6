"""A user who may tag, and flips a tag every second: what it costs, and what it costs the others."""

from __future__ import annotations

from collections import Counter
from functools import partial
from unittest.mock import patch

import pytest
from simulation.account import LifecycleConfig, Notebook
from simulation.run import CONCURRENCY, bound
from simulation.scenario import Scenario

SCRIPT = b"#!/bin/bash\necho the owner was here\n"
SECOND = 1_000
LASTS = 300
"""Seconds for which tags are flipped."""

OTHERS = 20
CALL = 40
"""Milliseconds of a call to AWS."""


class Flipped(Scenario):
    """`hostile` notebooks whose tags change every second, each with a script of its own; and twenty that are tagged once.

    scripts, tags: our writes to each. waited: seconds from the tag of each other notebook until its block was in place.
    """

    def __init__(self, hostile: int, *, restart: bool = False) -> None:
        super().__init__()
        self.hostile = [f"hostile-{number}" for number in range(hostile)]
        self.others = [f"other-{number}" for number in range(OTHERS)]
        self.asks = {"ssh": "ngrok"} | ({"ssh-restart": "now"} if restart else {})
        self.scripts: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.waited: dict[str, float] = {}
        script, tags = self.invariants.script, self.invariants.tags

        def count_script(lifecycle_config: LifecycleConfig, before: str | None, after: str | None) -> None:
            self.scripts[lifecycle_config.name] += not self.account.person
            if lifecycle_config.name in self.others:
                self.waited[lifecycle_config.name] = (self.now - self.tagged) / SECOND
            script(lifecycle_config, before, after)

        def count_tags(notebook: Notebook, after: dict[str, str]) -> None:
            self.tags[notebook.name] += not self.account.person
            tags(notebook, after)

        self.invariants.script, self.invariants.tags = count_script, count_tags  # type: ignore[method-assign,assignment]
        self.tagged = self.now + LASTS * SECOND // 2

    def call(self, service: str, operation: str, **given: object) -> object:
        if self.baton.current is not None:
            self.baton.current.wake = self.now + CALL
        return super().call(service, operation, **given)

    def happen(self) -> None:
        """All of it, until nothing is under way."""
        for name in (*self.hostile, *self.others):
            self.lifecycle_config(name, SCRIPT)
            self.notebook(name, name).status = "InService"
        for second in range(LASTS):
            for name in self.hostile:
                self.at(self.now + second * SECOND, partial(self.flip, name, second % 2 == 0))
        for name in self.others:
            self.at(self.tagged, partial(self.tag, self.account.notebooks[name], ssh="ngrok"))
        with patch.dict(CONCURRENCY, notebooks=2), bound(self):  # MaximumConcurrency in template.yaml
            try:
                self.settle()
            finally:
                self._end()

    def flip(self, name: str, on: bool) -> None:
        """Ask, or ask no more."""
        notebook = self.account.notebooks[name]
        if on:
            self.tag(notebook, **self.asks)
        else:
            self.untag(notebook)

    def copies(self, name: str) -> int:
        """Copies of a configuration's scripts in the table."""
        return sum(pk == f"backup#{name}" for pk, _ in self.account.table.items)


def test_flips_are_collapsed_and_fill_no_table() -> None:
    run = Flipped(1)
    run.happen()
    assert 10 < run.scripts["hostile-0"] < 0.7 * LASTS
    assert run.tags["hostile-0"] <= 2 * (LASTS / 60 + 1)
    assert run.copies("hostile-0") <= 2
    assert run.invariants.writes["stop"] == 0
    assert run.counts["calls"] < 25 * LASTS


@pytest.mark.parametrize("hostile", [1, 20])
def test_the_others_wait_little_longer(hostile: int) -> None:
    """Each worker gets the next free slot, and reconciles another notebook before it asks again."""
    alone, run = Flipped(0), Flipped(hostile)
    for each in (alone, run):
        each.happen()
        assert len(each.waited) == OTHERS
    assert max(run.waited.values()) < 2 * max(alone.waited.values()) + 2 * hostile


def test_a_notebook_is_restarted_as_often_as_it_can_start_at_most() -> None:
    """Each restart needs the tag again, and the notebook in service; its owner may do the same by hand."""
    run = Flipped(1, restart=True)
    run.happen()
    assert 0 < run.invariants.writes["stop"] <= LASTS / 20
    assert abs(run.invariants.writes["stop"] - run.invariants.writes["start"]) <= 1
    assert set(run.waited) == set(run.others)
