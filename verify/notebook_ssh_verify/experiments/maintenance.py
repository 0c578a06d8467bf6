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

LOOK_S = 5.0
"""Seconds in which the run looks for a notebook in one of these states."""

LONGEST_INTERVAL = timedelta(hours=1)
"""The most that a stack's SyncSeconds may be."""


class Reported(NamedTuple):
    """What the stack's API says of a notebook: when its agent reported last, its host keys, and its status.

    The host keys are made at each start of a notebook, on a disk that is new then.
    """

    at: str
    host_keys: tuple[str, ...]
    status: str

    @property
    def is_silent(self) -> bool:
        """Whether reports that were due are missing (docs/api.md)."""
        return self.status == "stale"


class Maintained(NamedTuple):
    """A notebook that was in maintenance, and what the API says of it.

    state: in which it was seen first, in SageMaker's word; ends_in: the one after at most so many seconds. before: None
    if no stack that the run may ask knows the notebook. after: the last report; None if there is none since a new start.
    since: when SageMaker changed the notebook last.
    """

    state: str
    ends_in: str = ""
    before: Reported | None = None
    after: Reported | None = None
    seconds: float = 0
    since: datetime | None = None

    @property
    def was_silent_before(self) -> bool:
        """Whether the last report is from long before the state began."""
        at = datetime.fromisoformat(self.after.at) if self.after else None
        return bool(at and self.since and self.since - at > LONGEST_INTERVAL)


def observe_maintenance(lab: Lab) -> Maintained | None:
    """Look for a notebook in maintenance, and follow what its agent reports to the stack. None: there is no such notebook."""
    found = lab.wait(lambda: [(name, state) for state in STATES for name in _notebooks(lab, state)] or None, LOOK_S)
    for name, state in found or ():
        before = _reported(lab, name)
        if before:
            after = _follow(lab, name)
            described = lab.describe_notebook(name)
            ends_in, since = str(described["NotebookInstanceStatus"]), described.get("LastModifiedTime")
            return Maintained(state, ends_in, before, after, lab.event_limit_s, since)
    return Maintained(found[0][1]) if found else None


def decide_maintenance(seen: Maintained | None) -> Decision:
    """The agent must go on to report, with the host keys from before."""
    match seen:
        case None:
            return Undecided(f"no notebook is {' or '.join(STATES)} now, and nobody can cause that")
        case Maintained(state, before=None):
            return Undecided(f"a notebook is {state}, and no stack that this run may ask knows its agent (--stack)")
        case Maintained(state, ends_in, _, None, seconds):
            return Undecided(f"a notebook was {state}, is {ends_in}, and its agent did not report for {seconds:.0f} s")
        case Maintained(state, ends_in, before=Reported() as before, after=Reported() as after):
            notebook = f"a notebook that was {state} and is {ends_in}"
    if after.is_silent and seen.was_silent_before:
        return Undecided(f"the agent of {notebook} had been silent long before, since {after.at}")
    if after.is_silent:
        return Refuted(f"the agent of {notebook} reports no more, since {after.at}")
    if after.at == before.at:
        return Undecided(f"the agent of {notebook} had no report due within {seen.seconds:.0f} s")
    if not (before.host_keys and after.host_keys):
        return Undecided(f"the agent of {notebook} reports, and its host keys are not known")
    if set(before.host_keys) == set(after.host_keys):
        return Holds(f"the agent of {notebook} reports, with the host keys from before")
    return Refuted(f"the agent of {notebook} reports other host keys, so its disk is a new one")


def _notebooks(lab: Lab, state: str) -> list[str]:
    page = lab.account.client("sagemaker").list_notebook_instances(StatusEquals=state, MaxResults=10)
    names = [each["NotebookInstanceName"] for each in page["NotebookInstances"]]
    lab.account.note(f"sagemaker:ListNotebookInstances StatusEquals={state}", f"{len(names)} notebooks")
    return names


def _follow(lab: Lab, name: str) -> Reported | None:
    """What the API says once the agent has reported after the maintenance, or is silent, or the time is over."""
    when_over: list[str] = []

    def settled() -> Reported | None:
        state, now = lab.describe_notebook(name)["NotebookInstanceStatus"], _reported(lab, name)
        if now is None or state in STATES:
            return None
        when_over.append(now.at)
        # A report right after a start has no address yet, and without that the API has no host keys.
        return now if now.is_silent or (now.host_keys and now.at != when_over[0]) else None

    return lab.wait(settled, lab.event_limit_s) or _reported(lab, name)


def _reported(lab: Lab, name: str) -> Reported | None:
    """What the API says of a notebook's agent; None if there is no stack, no answer, or no report since the last start."""
    if not lab.stack.get("ApiUrl"):
        return None
    try:
        answer = signed.get(lab, lab.account, f"/notebooks/{name}")
        told: dict[str, Any] = json.loads(answer.body)
    except (AwsError, ValueError):
        return None
    if answer.status != 200 or not told.get("reported_at"):
        return None
    return Reported(told["reported_at"], tuple(told.get("host_keys") or ()), str(told.get("status")))


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "maintenance-states",
        "look for a notebook in maintenance, and whether its agent still reports",
        frozenset(),
        observe_maintenance,
        decide_maintenance,
    ),
)
