"""What stands between a person and a notebook, hop by hop: ok, waiting or failed, since when, why, and what to do.

The hops are in the order in which they come true: tag → configuration → restart → agent → tunnel or rule → keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from notebook_ssh.errors import Problem
from notebook_ssh.model.record import NotebookState, Phase, Record, Report
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.stack import StackSettings
from notebook_ssh.model.status import REMEDIES, Code, Status, last_address, report_of_this_run, status_of
from notebook_ssh.model.text import iso_time


class CheckState(StrEnum):
    OK = "ok"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One step on the way. since: epoch seconds or None. remedy: what to do; empty when there is nothing to do."""

    name: str
    state: CheckState
    reason: str
    remedy: str = ""
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The status and every hop of one notebook."""

    name: str
    status: Status
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    record: Record
    status: Status
    report: Report | None
    stack: StackSettings


def run_checks(record: Record, now: int, stack: StackSettings) -> Diagnosis:
    """Every hop of `record`'s notebook at `now`. A hop that cannot be judged yet waits for the one before it."""
    status = status_of(record, now, stack.sync_seconds, stack.tag_key)
    case = _Case(record, status, report_of_this_run(record), stack)
    last = ("tunnel", _tunnel) if record.spec.mode is not Mode.BASTION else ("rule", _rule)
    judges: list[tuple[str, Callable[[_Case], Check]]] = [
        ("tag", _tag),
        ("configuration", _block),
        ("restart", _restart),
        ("agent", _agent),
        last,
        ("keys", _keys),
    ]
    checks: list[Check] = []
    for name, judge in judges:
        blocking = _not_passed(checks, case.report)
        checks.append(Check(name, CheckState.WAITING, f"waits for: {blocking}") if blocking else judge(case))
    return Diagnosis(record.name, status, tuple(checks))


def _not_passed(checks: list[Check], report: Report | None) -> str:
    """The hop without which nothing after it can be judged: the tag always, any other only while nothing is heard."""
    decisive = checks if report is None else checks[:1]
    return next((check.name for check in decisive if check.state is not CheckState.OK), "")


def _tag(case: _Case) -> Check:
    spec, status = case.record.spec, case.status
    if status.code in (Code.OFF, Code.EXPIRED, Code.INVALID_TAG):
        return Check("tag", CheckState.FAILED, status.message, status.next_step, status.since)
    until = f", until {iso_time(spec.until)}" if spec.until is not None else ""
    return Check("tag", CheckState.OK, f"{case.stack.tag_key}={spec.mode}{until}", since=case.record.spec_changed_at)


def _block(case: _Case) -> Check:
    record = case.record
    name, problem = "configuration", record.problem
    if problem and _problem_owner(problem, "configuration") == name:
        return _failed(name, problem)
    if record.planned:
        plan = "; ".join(record.planned)
        return Check(
            name, CheckState.WAITING, f"the stack only plans: {plan}", "Deploy it with DryRun=false to have it done."
        )
    if record.block_since is not None:
        return Check(name, CheckState.OK, f"the set-up is in {record.lifecycle_config}", since=record.block_since)
    if record.lifecycle_config is None and case.status.code is Code.PENDING_STOP:
        return Check(name, CheckState.WAITING, case.status.message, case.status.next_step, case.status.since)
    return Check(name, CheckState.WAITING, "the set-up is being put into the lifecycle configuration", "Wait a minute.")


def _restart(case: _Case) -> Check:
    record, status = case.record, case.status
    began = record.started_at if record.started_at is not None else record.state_since or None
    if case.report or (record.state is NotebookState.IN_SERVICE and status.code is not Code.PENDING_RESTART):
        return Check("restart", CheckState.OK, "the notebook has started with it", since=began)
    state = CheckState.FAILED if record.state is NotebookState.FAILED else CheckState.WAITING
    return Check("restart", state, status.message, status.next_step, status.since)


def _agent(case: _Case) -> Check:
    report, status = case.report, case.status
    if report is None or status.code is Code.STALE:
        state = CheckState.WAITING if status.code is Code.STARTING else CheckState.FAILED
        return Check("agent", state, status.message, status.next_step, status.since)
    problem = report.problem or status.problem  # one that the agent cannot tell is told of it
    if problem and _problem_owner(problem, "tunnel") == "agent":
        return _failed("agent", problem, report.phase_since)
    if report.mode is not case.record.spec.mode:
        return Check("agent", CheckState.WAITING, status.message, status.next_step, report.phase_since or None)
    return Check("agent", CheckState.OK, f"last heard of at {iso_time(report.received_at)}", since=report.booted_at)


def _tunnel(case: _Case) -> Check:
    report = case.report
    if report is None or report.mode is not Mode.NGROK:
        return Check("tunnel", CheckState.WAITING, "waits for: agent")
    if report.problem and _problem_owner(report.problem, "tunnel") == "tunnel":
        return _failed("tunnel", report.problem, report.phase_since)
    if report.phase is Phase.CONNECTED:
        address = last_address(case.record)
        where = f"{address[0]}:{address[1]}" if address else "no address"
        return Check("tunnel", CheckState.OK, where, since=report.connected_since)
    return Check(
        "tunnel", CheckState.WAITING, "the agent is connecting", "Wait some seconds.", report.phase_since or None
    )


def _rule(case: _Case) -> Check:
    record, route = case.record, case.record.route
    problem = (route.problem if route else None) or record.problem
    if problem and ((route and route.problem) or _problem_owner(problem, "configuration") == "rule"):
        return _failed("rule", problem, route.since if route else 0)
    if route is None or not route.open:
        return Check(
            "rule",
            CheckState.WAITING,
            "the security group does not let the bastion in yet",
            "Wait a minute: the rule is made by itself.",
        )
    if route.private_ip is None:
        return Check(
            "rule", CheckState.WAITING, "the private address is not known yet", "Wait a minute.", route.since or None
        )
    return Check("rule", CheckState.OK, f"the bastion may reach {route.private_ip}", since=route.since or None)


def _keys(case: _Case) -> Check:
    report = case.report
    if report is None:
        return Check("keys", CheckState.WAITING, "waits for: agent")
    for problem in (report.problem, case.status.problem):
        if problem and _problem_owner(problem, "tunnel") == "keys":
            return _failed("keys", problem, report.phase_since)
    if report.rejected:
        which = "; ".join(f"line {line.line}: {line.reason}" for line in report.rejected)
        return Check(
            "keys",
            CheckState.FAILED,
            f"{report.keys_own + report.keys_central} keys are in place; not keys: {which}",
            "Correct these lines of ~/SageMaker/ssh/authorized_keys on the notebook, then run copy-ssh-keys.",
        )
    return Check("keys", CheckState.OK, f"{report.keys_own} from the notebook's file, {report.keys_central} central")


def _failed(name: str, problem: Problem, since: int | None = None) -> Check:
    return Check(
        name, CheckState.FAILED, problem.message, REMEDIES.get(problem.code, "Do what the message says."), since or None
    )


def _problem_owner(problem: Problem, otherwise: str) -> str:
    """The hop that a problem is about; `otherwise` for one that belongs to whoever noticed it."""
    code = problem.code
    if code in _RULE_CODES or code.startswith("rule-"):
        return "rule"
    if code == "no-keys" or code.startswith(("keys-", "central-key-")):
        return "keys"
    if code == "files" or code.startswith(("agent-", "sshd-", "api-")):
        return "agent"
    return otherwise


_RULE_CODES = frozenset({"no-bastion", "bastion-gone", "not-in-vpc", "other-vpc", "group-gone", "client-cidr-invalid"})
