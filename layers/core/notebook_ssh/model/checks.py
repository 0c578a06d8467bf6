"""The checks of a notebook: each step of the path to it is ok, waiting or failed, since when, why, and what to do.

The checks are in the order in which they come true: tag → configuration → restart → agent → tunnel or rule → keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from notebook_ssh import __version__
from notebook_ssh.errors import Problem
from notebook_ssh.model.assessment import Assessment, Condition, assess
from notebook_ssh.model.problems import problem_owner, remedy_of
from notebook_ssh.model.record import NotebookState, Phase, Record
from notebook_ssh.model.spec import Mode, tag_value
from notebook_ssh.model.stack import StackSettings
from notebook_ssh.model.status import Status, status_from
from notebook_ssh.model.text import iso_time

_THROUGH_ENDPOINT = "the endpoint may reach {}; whether AWS opens a tunnel there is known to the client alone"

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


class CheckState(StrEnum):
    """The result of a check."""

    OK = "ok"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One step of the path to a notebook."""

    name: str
    state: CheckState
    reason: str
    # What to do; empty if there is nothing to do.
    remedy: str = ""
    # Epoch seconds, or None if unknown.
    since: int | None = None
    # The problem of a failed check, if it has one.
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The status and every check of one notebook."""

    name: str
    status: Status
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class _Subject:
    """What checks read: the assessment, and its status for the texts."""

    found: Assessment
    status: Status
    tag_key: str


def run_checks(record: Record, now: int, stack: StackSettings) -> Diagnosis:
    """Return every check of the notebook of `record` at `now`. A check that depends on a failed one waits for it."""
    found = assess(record, now, stack.sync_seconds)
    subject = _Subject(found, status_from(found, stack.tag_key), stack.tag_key)
    steps: list[tuple[str, Callable[[_Subject], Check]]] = [
        ("tag", _tag),
        ("configuration", _configuration),
        ("restart", _restart),
        ("agent", _agent),
        *map(_path_step, record.spec.modes or (Mode.NGROK,)),
        ("keys", _keys),
    ]
    checks: list[Check] = []
    for name, check in steps:
        blocker = _blocker(checks, found)
        checks.append(Check(name, CheckState.WAITING, f"waits for: {blocker}") if blocker else check(subject))
    return Diagnosis(record.name, subject.status, tuple(checks))


def _path_step(mode: Mode) -> tuple[str, Callable[[_Subject], Check]]:
    """Return the name of the check of a path, and the check."""
    match mode:
        case Mode.NGROK:
            return "tunnel", _tunnel
        case Mode.BASTION:
            return "rule", lambda subject: _rule(subject, mode, "rule", "the bastion may reach {}")
        case Mode.EICE:
            return "endpoint", lambda subject: _rule(subject, mode, "endpoint", _THROUGH_ENDPOINT)
        case unknown:
            assert_never(unknown)


def _blocker(checks: list[Check], found: Assessment) -> str:
    """Return the check that the following ones depend on: the tag always, any other only without a report."""
    decisive = checks if found.report is None else checks[:1]
    return next((check.name for check in decisive if check.state is not CheckState.OK), "")


def _tag(subject: _Subject) -> Check:
    spec = subject.found.record.spec
    if subject.found.condition in (Condition.OFF, Condition.EXPIRED, Condition.INVALID_TAG):
        return _of_status("tag", CheckState.FAILED, subject.status)
    until = f", until {iso_time(spec.until)}" if spec.until is not None else ""
    since = subject.found.record.spec_changed_at
    return Check("tag", CheckState.OK, f"{subject.tag_key}={tag_value(spec.modes)}{until}", since=since)


def _configuration(subject: _Subject) -> Check:
    name, found, record = "configuration", subject.found, subject.found.record
    problem = found.problem if found.condition is Condition.NOT_RECONCILED else record.problem
    if problem and problem_owner(problem, name) == name:
        return _failed(name, problem)
    if record.planned:
        plan = "; ".join(record.planned)
        remedy = "Deploy it with DryRun=false to have it done."
        return Check(name, CheckState.WAITING, f"the stack only plans: {plan}", remedy)
    if found.block_installed:
        return Check(
            name, CheckState.OK, f"the block is installed in {record.lifecycle_config}", since=record.block_since
        )
    if found.condition is Condition.NEEDS_STOP:
        return _of_status(name, CheckState.WAITING, subject.status)
    return Check(
        name, CheckState.WAITING, "the block is being installed in the lifecycle configuration", "Wait a minute."
    )


def _restart(subject: _Subject) -> Check:
    found, state = subject.found, subject.found.record.state
    started = state is NotebookState.IN_SERVICE and found.condition is not Condition.NEEDS_RESTART
    if found.report or started:
        record = found.record
        since = found.began if record.started_at is not None else found.began or None
        return Check("restart", CheckState.OK, "the notebook has started with it", since=since)
    failed = state is NotebookState.FAILED
    return _of_status("restart", CheckState.FAILED if failed else CheckState.WAITING, subject.status)


def _agent(subject: _Subject) -> Check:
    found, report = subject.found, subject.found.report
    if report is None or found.condition is Condition.SILENT:
        starting = found.condition is Condition.STARTING
        return _of_status("agent", CheckState.WAITING if starting else CheckState.FAILED, subject.status)
    of_paths = [path.problem for path in report.paths]  # their own checks name them
    # A problem of the agent that it cannot report itself.
    problem = report.problem or (found.problem if found.problem not in of_paths else None)
    if problem and problem_owner(problem, "tunnel") == "agent":
        return _failed("agent", problem, report.phase_since)
    if found.condition is Condition.CHANGING_MODE:
        status = subject.status
        return Check("agent", CheckState.WAITING, status.message, status.next_step, report.phase_since or None)
    reason = f"last report at {iso_time(report.received_at)}{_version(report.agent)}"
    return Check("agent", CheckState.OK, reason, since=report.booted_at)


def _version(running: str) -> str:
    """Return what is to be known of an agent of another version than the stack: nothing is wrong with it."""
    if running == __version__ or not _VERSION.fullmatch(running):
        return ""
    return f"; it is of version {running}: a start after the script's upgrade brings {__version__}"


def _tunnel(subject: _Subject) -> Check:
    report, name = subject.found.report, "tunnel"
    if report is None or Mode.NGROK not in report.modes:
        return Check(name, CheckState.WAITING, "waits for: agent")
    reported, since = report.of_path(Mode.NGROK)
    if reported.problem and (report.paths or problem_owner(reported.problem, name) == name):
        return _failed(name, reported.problem, since)
    if reported.phase is Phase.CONNECTED:
        where = f"{report.host}:{report.port}" if report.host and report.port else "no address"
        return Check(name, CheckState.OK, where, since=since if report.paths else report.connected_since)
    return Check(name, CheckState.WAITING, "the agent is connecting", "Wait some seconds.", since or None)


def _rule(subject: _Subject, mode: Mode, name: str, open_text: str) -> Check:
    """Check the path of a mode with an entrance. open_text: the reason why it is fine, with the address to put in."""
    record, report = subject.found.record, subject.found.report
    if report and report.paths and mode in report.modes:
        reported, since = report.of_path(mode)
        if reported.problem:
            return _failed(name, reported.problem, since)
    route = record.routes.get(mode)
    problem = (route.problem if route else None) or record.problem
    if problem and ((route and route.problem) or problem_owner(problem, "configuration") == "rule"):
        return _failed(name, problem, route.since if route else 0)
    if route is None or not route.open:
        return Check(
            name,
            CheckState.WAITING,
            f"the security group does not let the {mode.entrance} in yet",
            "Wait a minute: the rule is created automatically.",
        )
    if route.private_ip is None:
        return Check(
            name, CheckState.WAITING, "the private address is not known yet", "Wait a minute.", route.since or None
        )
    return Check(name, CheckState.OK, open_text.format(route.private_ip), since=route.since or None)


def _keys(subject: _Subject) -> Check:
    report = subject.found.report
    if report is None:
        return Check("keys", CheckState.WAITING, "waits for: agent")
    for problem in (report.problem, subject.found.problem):
        if problem and problem_owner(problem, "tunnel") == "keys":
            return _failed("keys", problem, report.phase_since)
    if report.rejected:
        which = "; ".join(f"line {line.line}: {line.reason}" for line in report.rejected)
        return Check(
            "keys",
            CheckState.FAILED,
            f"{report.keys_own + report.keys_central} keys are in place; not keys: {which}",
            "Correct these lines of ~/SageMaker/ssh/authorized_keys on the notebook, then run copy-ssh-keys.",
        )
    certificates = ", and certificates of AWS identities" if report.authorities else ""
    in_place = f"{report.keys_own} from the notebook's file, {report.keys_central} central{certificates}"
    unknown = report.unknown_sessions
    left = f"; {unknown} open sessions of an unknown owner, which are not ended with access" if unknown else ""
    return Check("keys", CheckState.OK, in_place + left)


def _failed(name: str, problem: Problem, since: int | None = None) -> Check:
    return Check(name, CheckState.FAILED, problem.message, remedy_of(problem), since or None, problem)


def _of_status(name: str, state: CheckState, status: Status) -> Check:
    """Return a check with the status' texts, where both have the same cause."""
    return Check(name, state, status.message, status.next_step, status.since, status.problem)
