"""Decides what a run will do: which experiments, what they need to be there, what that costs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from notebook_ssh_verify.experiments.base import Experiment, Need

AnExperiment = Experiment[Any]


class Item(NamedTuple):
    """Something that a run creates. dollars: an hour of it, as listed for us-east-1 in 2026."""

    what: str
    dollars: float


class Plan(NamedTuple):
    """What a run will do.

    experiments: in the order in which they are made. scenario: whether users' and admins' steps are made as well.
    creates: empty for a run that only reads.
    """

    experiments: tuple[AnExperiment, ...]
    scenario: bool
    creates: tuple[Item, ...]

    def dollars(self, minutes: float) -> float:
        """Return what the run costs at most, if it takes `minutes`."""
        return sum(item.dollars for item in self.creates) * max(1.0, minutes / 60)


LAB = Item("a CloudFormation stack with roles, queues, event rules, a log group and a bucket", 0.01)
NOTEBOOKS = Item("two notebook instances ml.t3.medium with 5 GB each, and a lifecycle configuration each", 0.11)
STACK = Item("the stack of this release, with a signing key and a secret", 0.02)
ENDPOINT = Item("an EC2 Instance Connect Endpoint, in that stack", 0.0)

SCENARIO = "scenario"
"""The word that names the users' and admins' steps among facts."""

OWN_STACK = frozenset({Need.STACK, Need.NGROK, Need.ENDPOINT})
OWN_NOTEBOOKS = frozenset({Need.NOTEBOOK, Need.PROBE, Need.NGROK, Need.ENDPOINT})


class UnknownFactError(Exception):
    """A fact was named that has no experiment; the message says which, and which there are."""


def choose(experiments: Sequence[AnExperiment], only: Sequence[str]) -> tuple[AnExperiment, ...]:
    """Return the experiments to make: all, or those on the facts named. Raises UnknownFactError."""
    known = [each.fact for each in experiments]
    for fact in only:
        if fact not in (*known, SCENARIO):
            raise UnknownFactError(f"there is no fact {fact}; there are {', '.join(sorted(known))}, and {SCENARIO}")
    return tuple(each for each in experiments if not only or each.fact in only)


def whole_run(experiments: Sequence[AnExperiment], only: Sequence[str]) -> Plan:
    """Return the plan of a run that may create things. With some facts, or the scenario, alone: only what these need."""
    chosen = choose(experiments, only)
    needs = frozenset(need for each in chosen for need in each.needs)
    scenario = not only or SCENARIO in only
    with_stack, with_notebooks = scenario or bool(needs & OWN_STACK), scenario or bool(needs & OWN_NOTEBOOKS)
    creates = [LAB] if scenario or needs else []
    creates += [NOTEBOOKS] if with_notebooks else []
    creates += [STACK] if with_stack else []
    creates += [ENDPOINT] if scenario or Need.ENDPOINT in needs else []
    return Plan(chosen, scenario, tuple(creates))


def reading_run(experiments: Sequence[AnExperiment], only: Sequence[str]) -> Plan:
    """Return the plan of a run that creates nothing: every experiment is told, and those that create are skipped.

    Raises UnknownFactError.
    """
    if SCENARIO in only:
        raise UnknownFactError(f"the {SCENARIO} creates a stack and notebooks; leave out --without-cost and --stack")
    return Plan(choose(experiments, only), False, ())


def unmet(needs: Iterable[Need], reasons: dict[Need, str]) -> str | None:
    """Return why an experiment cannot be made, or None. reasons: of the needs that are not met, in words of the account."""
    for need in sorted(needs, key=lambda each: list(Need).index(each)):
        if need in reasons:
            return reasons[need]
    return None
