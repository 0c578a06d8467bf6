"""What an experiment is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from typing import Generic, TypeVar

from notebook_ssh_verify.findings import Decision
from notebook_ssh_verify.lab import Lab

Seen = TypeVar("Seen")


@unique
class Need(Enum):
    """What an experiment needs; the values end the sentence "it needs …"."""

    LAB = "roles, queues and rules of its own, which this run does not create"
    STACK = "a stack of this product"
    NOTEBOOK = "a notebook of its own, which this run does not create"
    PROBE = "the script of a notebook of its own, which this run does not create"
    NGROK = "an ngrok token (--ngrok-token-file)"
    ENDPOINT = "an EC2 Instance Connect Endpoint of its own, which this run does not create"


@dataclass(frozen=True)
class Experiment(Generic[Seen]):
    """The smallest experiment that decides a fact.

    fact: its id in the register. how: what is done, in a short sentence without a full stop, for the plan that the user
    confirms. needs: what must be there. observe: makes the calls. decide: pure.
    """

    fact: str
    how: str
    needs: frozenset[Need]
    observe: Callable[[Lab], Seen]
    decide: Callable[[Seen], Decision]

    def run(self, lab: Lab) -> Decision:
        """Return what this account shows. Raises AwsError if AWS does not let it be seen."""
        return self.decide(self.observe(lab))

    @property
    def only_reads(self) -> bool:
        """Whether it creates and changes nothing, so that it can run against any account."""
        return not self.needs & {Need.LAB, Need.NOTEBOOK, Need.PROBE, Need.NGROK, Need.ENDPOINT}
