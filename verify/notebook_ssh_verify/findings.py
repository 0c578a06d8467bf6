"""What an experiment finds out about a fact: a verdict, and the calls that it rests on."""

from __future__ import annotations

from typing import NamedTuple

from notebook_ssh_verify.register import Fact


class Holds(NamedTuple):
    """The fact holds in this account. seen: what shows it, in a sentence without a full stop."""

    seen: str


class Refuted(NamedTuple):
    """The fact does not hold in this account. seen: what shows it, in a sentence without a full stop."""

    seen: str


class Undecided(NamedTuple):
    """The experiment was made, and shows neither. why: in a sentence without a full stop."""

    why: str


class Skipped(NamedTuple):
    """The experiment was not made. why: in a sentence without a full stop."""

    why: str


Decision = Holds | Refuted | Undecided
Verdict = Decision | Skipped


class Evidence(NamedTuple):
    """One call. call: the operation and its parameters; answer: what AWS answered; both shortened and redacted."""

    call: str
    answer: str


class Finding(NamedTuple):
    """What is known of a fact after a run."""

    fact: Fact
    verdict: Verdict
    evidence: tuple[Evidence, ...] = ()


class Step(NamedTuple):
    """A step of the scenario: what was done, and how it ended. problem: None if it went as it must."""

    what: str
    detail: str
    problem: str | None = None
    skipped: bool = False
