"""The fact about notebooks in maintenance, which nobody can cause: the account has one at the time, or it has none."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from notebook_ssh_verify import signed
from notebook_ssh_verify.account import AwsError
from notebook_ssh_verify.experiments.base import Experiment
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab

STATES = ("PendingMaintenance", "InMaintenance")

LONGEST_INTERVAL = timedelta(hours=1)
"""The most that a stack's SyncSeconds may be."""


class Reported(NamedTuple):
    """What the stack's API says of a notebook: when its agent reported last, where it is reached, and its status."""

    at: str
    address: str | None
    status: str

    @property
    def is_silent(self) -> bool:
        """Whether reports that were due are missing (docs/api.md)."""
        return self.status == "stale"


class Maintained(NamedTuple):
    """A notebook in maintenance, in SageMaker's word, and what the API said of it before and after so many seconds.

    reports: None if no stack that the run may ask knows the notebook. since: when SageMaker changed it last.
    """

    state: str
    reports: tuple[Reported, Reported] | None = None
    seconds: float = 0
    since: datetime | None = None

    @property
    def was_silent_before(self) -> bool:
        """Whether the last report is from long before the state began."""
        at = datetime.fromisoformat(self.reports[1].at) if self.reports else None
        return bool(at and self.since and self.since - at > LONGEST_INTERVAL)


def observe_maintenance(lab: Lab) -> Maintained | None:
    """Look for a notebook in maintenance, and whether its agent reports to the stack. None: there is none."""
    found = [(name, state) for state in STATES for name in _notebooks(lab, state)]
    for name, _ in found:
        before = _reported(lab, name)
        if before:
            after = _await_report(lab, name, before)
            described = lab.describe_notebook(name)
            state, since = str(described["NotebookInstanceStatus"]), described.get("LastModifiedTime")
            return Maintained(state, (before, after), lab.event_limit_s, since)
    return Maintained(found[0][1]) if found else None


def decide_maintenance(seen: Maintained | None) -> Decision:
    """The agent must report in these states, with the address that it had."""
    match seen:
        case None:
            return Undecided(f"no notebook is {' or '.join(STATES)} now, and nobody can cause that")
        case Maintained(state) if state not in STATES:
            return Undecided(f"a notebook was in maintenance, and is {state} now")
        case Maintained(state, None):
            return Undecided(f"a notebook is {state}, and no stack that this run may ask knows its agent (--stack)")
        case Maintained(state, (_, after)) if after.is_silent and seen.was_silent_before:
            return Undecided(f"the agent of a notebook that is {state} reported no more long before, since {after.at}")
        case Maintained(state, (_, after)) if after.is_silent:
            return Refuted(f"the agent of a notebook that is {state} reports no more, since {after.at}")
        case Maintained(state, (before, after), seconds) if before.at == after.at:
            return Undecided(f"the agent of a notebook that is {state} had no report due within {seconds:.0f} s")
        case Maintained(state, (before, after)) if before.address == after.address:
            return Holds(f"the agent of a notebook that is {state} reports, and its address stays")
        case Maintained(state):
            return Undecided(f"the agent of a notebook that is {state} reports, with another address")


def _notebooks(lab: Lab, state: str) -> list[str]:
    page = lab.account.call("sagemaker", "list_notebook_instances", StatusEquals=state, MaxResults=10)
    return [each["NotebookInstanceName"] for each in page["NotebookInstances"]]


def _reported(lab: Lab, name: str) -> Reported | None:
    """What the API says of a notebook's agent; None if there is no stack, no answer, or no report."""
    if not lab.stack.get("ApiUrl"):
        return None
    try:
        answer = signed.get(lab, lab.account, f"/notebooks/{name}")
        told: dict[str, Any] = json.loads(answer.body)
    except (AwsError, ValueError):
        return None
    if answer.status != 200 or not told.get("reported_at"):
        return None
    return Reported(told["reported_at"], told.get("address"), str(told.get("status")))


def _await_report(lab: Lab, name: str, before: Reported) -> Reported:
    """What the API says once the agent has reported again, or is silent, or the time is over."""

    def changed() -> Reported | None:
        now = _reported(lab, name)
        return now if now and (now.is_silent or now.at != before.at) else None

    return lab.wait(changed, lab.event_limit_s) or _reported(lab, name) or before


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "maintenance-states",
        "look for a notebook in maintenance, and whether its agent still reports",
        frozenset(),
        observe_maintenance,
        decide_maintenance,
    ),
)
