"""Decides what a run may delete: what carries its id and its tag, and was created after it began. Nothing else, ever."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

PREFIX = "nbssh-verify-"
RUN_TAG = "nbssh-verify-run"
"""The key of the tag on everything that a run creates; its value is the run's id."""

CLOCK_SKEW_S = 300
"""Seconds that this machine's clock may be ahead of AWS's: a request with a larger difference is refused (Signature
Version 4)."""


class Kind(Enum):
    """What a run creates, in the order in which it is deleted. What CloudFormation creates belongs to its stack.

    The stack under test first, since it restores scripts; roles last, since the others use them.
    """

    STACK = "CloudFormation stack"
    NOTEBOOK = "notebook instance"
    LIFECYCLE_CONFIG = "lifecycle configuration"
    TABLE = "DynamoDB table"
    LAB = "CloudFormation stack of the lab"


class Run(NamedTuple):
    """A run. id: eight lower-case letters and digits. began: epoch seconds, by this machine's clock."""

    id: str
    began: int

    @property
    def prefix(self) -> str:
        """How the names of everything begin that this run creates."""
        return f"{PREFIX}{self.id}"

    @property
    def tag_key(self) -> str:
        """The stack's `TagKey`, so that it acts on no notebook of anybody else."""
        return self.prefix

    def name(self, what: str = "") -> str:
        """The name of something of this run."""
        return f"{self.prefix}-{what}" if what else self.prefix


class Created(NamedTuple):
    """What a run has created, or was about to create."""

    kind: Kind
    name: str


class Observed(NamedTuple):
    """What AWS says of a resource. created: epoch seconds. state: its status, in AWS's words."""

    tags: Mapping[str, str]
    created: int | None
    state: str = ""


class Absent(NamedTuple):
    """AWS says that there is no such resource."""


class Unreadable(NamedTuple):
    """AWS did not say whether it exists. why: AWS's code and message."""

    why: str


Observation = Observed | Absent | Unreadable


class Delete(NamedTuple):
    """It is the run's. observed: as it is now."""

    observed: Observed


class Gone(NamedTuple):
    """There is nothing to delete."""


class Keep(NamedTuple):
    """It stays. why: in a sentence without a full stop."""

    why: str


def deletion(run: Run, created: Created, observation: Observation) -> Delete | Gone | Keep:
    """Return whether the run may delete what it once created."""
    match observation:
        case Absent():
            return Gone()
        case Unreadable(why):
            return Keep(f"it cannot be read: {why}")
        case Observed(tags, began, _):
            if not (created.name == run.prefix or created.name.startswith(f"{run.prefix}-")):
                return Keep(f"its name does not begin with {run.prefix}")
            if tags.get(RUN_TAG) != run.id:
                return Keep(f"it has no tag {RUN_TAG}={run.id}")
            if began is None or began < run.began - CLOCK_SKEW_S:
                return Keep("it was created before the run began")
            return Delete(observation)


def in_order(created: list[Created]) -> list[Created]:
    """Return each resource once, in the order in which they are deleted."""
    order = list(Kind)
    return sorted(dict.fromkeys(created), key=lambda each: order.index(each.kind))
