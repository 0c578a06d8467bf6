"""An account that many notebooks share: calls beyond a service's rate are refused, and tried again as botocore does."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any
from unittest.mock import patch

from simulation.account import LifecycleConfig, Notebook
from simulation.errors import refusal
from simulation.invariants import Truth, encoded
from simulation.run import CONCURRENCY, RATE_LIMITED, Run, bound

SCRIPT = b"#!/bin/bash\necho the owner was here\n"

CALL = 40
"""Milliseconds of a call to AWS."""

BUCKETS = {
    "writes": (1, 1),
    "list_notebook_instances": (2, 2),
    "list_notebook_instance_lifecycle_configs": (2, 2),
    "describe_notebook_instance_lifecycle_config": (5, 5),
    "get_resources": (15, 15),
}
"""Calls a second, and at once, that docs/reliability.md has a source for; "writes" are all that are slowed by one clock."""

WRITE = "update_notebook_instance_lifecycle_config"
DESCRIPTION = "describe_notebook_instance_lifecycle_config"


class Busy(Run):
    """A run in which nothing goes wrong but that AWS is asked too much. refused: calls beyond the rate, by operation."""

    def __init__(self) -> None:
        super().__init__(1, 0)
        self.chance.calm = True
        self.asked: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.tokens = {name: (float(burst), self.now) for name, (_, burst) in BUCKETS.items()}

    def call(self, service: str, operation: str, **given: Any) -> Any:
        worker = self.baton.current
        if worker is None:
            return self._obey(operation, given)
        for pause in (700, 1_500, None):  # botocore's standard mode: three tries, up to 1 s and 2 s apart
            worker.pending = (operation, given)
            worker.wake = self.now + CALL
            worker = self.baton.wait()
            worker.pending = ("", {})
            self.counts["calls"] += 1
            self.asked[operation] += 1
            if self._allowed(operation):
                return self._obey(operation, given)
            self.refused[operation] += 1
            if pause is not None:
                worker.wake = self.now + pause
                worker = self.baton.wait()
        raise refusal("ThrottlingException", "Rate exceeded")

    def _allowed(self, operation: str) -> bool:
        name = "writes" if operation in RATE_LIMITED else operation
        if name not in BUCKETS:
            return True
        rate, burst = BUCKETS[name]
        left, since = self.tokens[name]
        left = min(burst, left + rate * (self.now - since) / 1000)
        self.tokens[name] = (left - 1 if left >= 1 else left, self.now)
        return left >= 1

    def tag(self, name: str) -> None:
        """A user requests SSH."""
        self.account.person = True
        notebook = self.account.notebooks[name]
        self.account.add_tags(ResourceArn=notebook.arn, Tags=[{"Key": "ssh", "Value": "ngrok"}])
        self.account.person = False

    def start(self, name: str) -> None:
        """A user starts it."""
        self.account.person = True
        self.account.start_notebook_instance(NotebookInstanceName=name)
        self.account.person = False

    def rest(self) -> None:
        """Until nothing is under way but what comes by itself, for ever: reports and sweeps."""
        while any(self.queues.values()) or self.workers or self.jobs or self.timers:
            self._step()


class EachItsOwn(Busy):
    """Notebooks that are tagged within a second, each with a configuration of its own. wrote: when, in milliseconds."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many
        self.wrote: list[int] = []

    def found(self) -> None:
        for number in range(self.many):
            lifecycle_config = LifecycleConfig(f"team-{number}", self.now, None, encoded(SCRIPT))
            self.account.lifecycle_configs[lifecycle_config.name] = lifecycle_config
            self.invariants.truths[lifecycle_config.name] = Truth(SCRIPT)
            name = f"box-{number}"
            self.account.notebooks[name] = Notebook(name, f"role-{number}", self.now, "Stopped", lifecycle_config.name)

    def play_out(self) -> None:
        """Everybody tags, and everything that follows happens."""
        self.account.person = False
        with patch.dict(CONCURRENCY, notebooks=2), bound(self):
            try:
                self.found()
                for number in range(self.many):
                    self.at(self.now + number, partial(self.tag, f"box-{number}"))
                self.at(self.now + 900_000, lambda: setattr(self, "faults", False))
                self.rest()
            finally:
                self._end()

    def _allowed(self, operation: str) -> bool:
        allowed = super()._allowed(operation)
        if allowed and operation == WRITE:
            self.wrote.append(self.now)
        return allowed
