"""A run in which nothing is left to chance: people do what the test says, and everything that follows happens."""

from __future__ import annotations

from collections.abc import Callable

from simulation.account import LifecycleConfig, Notebook
from simulation.invariants import Truth, encoded
from simulation.run import Run


class Scenario(Run):
    """An empty account, without faults, reports and sweeps but those that are told."""

    def __init__(self) -> None:
        super().__init__(1, 0)
        self.chance.calm, self.faults, self.account.person = True, False, False

    def lifecycle_config(self, name: str, script: bytes) -> None:
        """An owner's configuration."""
        self.account.lifecycle_configs[name] = LifecycleConfig(name, self.now, None, encoded(script))
        self.invariants.truths[name] = Truth(script)

    def notebook(self, name: str, lifecycle_config: str | None) -> Notebook:
        """A stopped notebook."""
        made = Notebook(name, "role", self.now, "Stopped", lifecycle_config)
        self.account.notebooks[name] = made
        return made

    def tag(self, notebook: Notebook, **tags: str) -> None:
        """A user writes tags."""
        self.account.person = True
        self.account.add_tags(ResourceArn=notebook.arn, Tags=[{"Key": key, "Value": tags[key]} for key in tags])
        self.account.person = False

    def untag(self, notebook: Notebook) -> None:
        """A user removes the tag."""
        self.account.person = True
        self.account.delete_tags(ResourceArn=notebook.arn, TagKeys=["ssh"])
        self.account.person = False

    def step_until(self, condition: Callable[[], bool]) -> None:
        """Until something is so, at most a thousand steps."""
        for _ in range(1_000):
            if condition():
                return
            self._step()
        raise AssertionError("it does not come to pass")

    def settle(self, *, sweeps: int = 0) -> None:
        """Until nothing is under way; then so many sweeps, one after the other."""
        self._drain()
        for _ in range(sweeps):
            self.now += 900_000
            self._sweep_once("afterwards")
