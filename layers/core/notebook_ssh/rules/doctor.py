"""What stands between a person and a notebook, hop by hop: ok, waiting or failed, since when, why, and what to do.

The hops are in the order in which they come true: tag → configuration → restart → agent → tunnel or rule → keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from notebook_ssh.errors import Problem
from notebook_ssh.rules.answers import Stack, status_json
from notebook_ssh.rules.record import Mode, NotebookState, Phase, Record, Report
from notebook_ssh.rules.report import printable
from notebook_ssh.rules.status import REMEDIES, Code, Status, iso_time, last_address, report_of_this_run, status_of


class Verdict(StrEnum):
    OK = "ok"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Hop:
    """One step on the way. since: epoch seconds or None. remedy: what to do; empty when there is nothing to do."""

    name: str
    verdict: Verdict
    reason: str
    remedy: str = ""
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The status and every hop of one notebook."""

    name: str
    status: Status
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    record: Record
    status: Status
    report: Report | None
    stack: Stack


def examine(record: Record, now: int, stack: Stack) -> Diagnosis:
    """Every hop of `record`'s notebook at `now`. A hop that cannot be judged yet waits for the one before it."""
    status = status_of(record, now, stack.sync_seconds, stack.tag_key)
    case = _Case(record, status, report_of_this_run(record), stack)
    last = ("tunnel", _tunnel) if record.wish.mode is not Mode.BASTION else ("rule", _rule)
    judges: list[tuple[str, Callable[[_Case], Hop]]] = [
        ("tag", _tag),
        ("configuration", _configuration),
        ("restart", _restart),
        ("agent", _agent),
        last,
        ("keys", _keys),
    ]
    hops: list[Hop] = []
    for name, judge in judges:
        open_hop = _not_passed(hops, case.report)
        hops.append(Hop(name, Verdict.WAITING, f"waits for: {open_hop}") if open_hop else judge(case))
    return Diagnosis(record.name, status, tuple(hops))


def doctor_text(diagnosis: Diagnosis) -> str:
    """The diagnosis for a terminal: a line for each hop, and below it what to do where something is to be done."""
    status = diagnosis.status
    since = f" since {iso_time(status.since)}" if status.since is not None else ""
    lines = [f"{diagnosis.name}: {status.code}{since}"]
    for hop in diagnosis.hops:
        since = f" (since {iso_time(hop.since)})" if hop.since is not None else ""
        lines.append(f"  {hop.verdict:<8}{hop.name:<14} {hop.reason}{since}")
        if hop.remedy:
            lines.append(f"{'':25}→ {hop.remedy}")
    lines.append(f"Next: {status.next_step}")
    return "\n".join(printable_line(line) for line in lines)


def printable_line(line: str) -> str:
    """`line` with its indentation, and nothing in it that a terminal would obey."""
    indentation = len(line) - len(line.lstrip(" "))
    return " " * indentation + "".join(character if character.isprintable() else " " for character in line.lstrip(" "))


def doctor_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON: the status, and `hops` with the same members for each."""
    return {
        "name": diagnosis.name,
        **status_json(diagnosis.status),
        "hops": [
            {
                "hop": hop.name,
                "verdict": str(hop.verdict),
                "since": None if hop.since is None else iso_time(hop.since),
                "reason": printable(hop.reason),
                "remedy": printable(hop.remedy),
            }
            for hop in diagnosis.hops
        ],
    }


def _not_passed(hops: list[Hop], report: Report | None) -> str:
    """The hop without which nothing after it can be judged: the tag always, any other only while nothing is heard."""
    decisive = hops if report is None else hops[:1]
    return next((hop.name for hop in decisive if hop.verdict is not Verdict.OK), "")


def _tag(case: _Case) -> Hop:
    wish, status = case.record.wish, case.status
    if status.code in (Code.OFF, Code.EXPIRED, Code.INVALID_TAG):
        return Hop("tag", Verdict.FAILED, status.message, status.next_step, status.since)
    until = f", until {iso_time(wish.until)}" if wish.until is not None else ""
    return Hop("tag", Verdict.OK, f"{case.stack.tag_key}={wish.mode}{until}", since=case.record.wished_since)


def _configuration(case: _Case) -> Hop:
    record = case.record
    name, problem = "configuration", record.problem
    if problem and _hop_of(problem, "configuration") == name:
        return _failed(name, problem)
    if record.planned:
        plan = "; ".join(record.planned)
        return Hop(
            name, Verdict.WAITING, f"the stack only plans: {plan}", "Deploy it with DryRun=false to have it done."
        )
    if record.block_since is not None:
        return Hop(name, Verdict.OK, f"the set-up is in {record.configuration}", since=record.block_since)
    if record.configuration is None and case.status.code is Code.PENDING_STOP:
        return Hop(name, Verdict.WAITING, case.status.message, case.status.next_step, case.status.since)
    return Hop(name, Verdict.WAITING, "the set-up is being put into the lifecycle configuration", "Wait a minute.")


def _restart(case: _Case) -> Hop:
    record, status = case.record, case.status
    began = record.started_at if record.started_at is not None else record.state_since or None
    if case.report or (record.state is NotebookState.IN_SERVICE and status.code is not Code.PENDING_RESTART):
        return Hop("restart", Verdict.OK, "the notebook has started with it", since=began)
    verdict = Verdict.FAILED if record.state is NotebookState.FAILED else Verdict.WAITING
    return Hop("restart", verdict, status.message, status.next_step, status.since)


def _agent(case: _Case) -> Hop:
    report, status = case.report, case.status
    if report is None or status.code is Code.STALE:
        verdict = Verdict.WAITING if status.code is Code.STARTING else Verdict.FAILED
        return Hop("agent", verdict, status.message, status.next_step, status.since)
    problem = report.problem or status.problem  # one that the agent cannot tell is told of it
    if problem and _hop_of(problem, "tunnel") == "agent":
        return _failed("agent", problem, report.phase_since)
    if report.mode is not case.record.wish.mode:
        return Hop("agent", Verdict.WAITING, status.message, status.next_step, report.phase_since or None)
    return Hop("agent", Verdict.OK, f"last heard of at {iso_time(report.received_at)}", since=report.booted_at)


def _tunnel(case: _Case) -> Hop:
    report = case.report
    if report is None or report.mode is not Mode.NGROK:
        return Hop("tunnel", Verdict.WAITING, "waits for: agent")
    if report.problem and _hop_of(report.problem, "tunnel") == "tunnel":
        return _failed("tunnel", report.problem, report.phase_since)
    if report.phase is Phase.CONNECTED:
        address = last_address(case.record)
        where = f"{address[0]}:{address[1]}" if address else "no address"
        return Hop("tunnel", Verdict.OK, where, since=report.connected_since)
    return Hop("tunnel", Verdict.WAITING, "the agent is connecting", "Wait some seconds.", report.phase_since or None)


def _rule(case: _Case) -> Hop:
    record, way = case.record, case.record.way
    problem = (way.problem if way else None) or record.problem
    if problem and ((way and way.problem) or _hop_of(problem, "configuration") == "rule"):
        return _failed("rule", problem, way.since if way else 0)
    if way is None or not way.open:
        return Hop(
            "rule",
            Verdict.WAITING,
            "the security group does not let the bastion in yet",
            "Wait a minute: the rule is made by itself.",
        )
    if way.private_ip is None:
        return Hop("rule", Verdict.WAITING, "the private address is not known yet", "Wait a minute.", way.since or None)
    return Hop("rule", Verdict.OK, f"the bastion may reach {way.private_ip}", since=way.since or None)


def _keys(case: _Case) -> Hop:
    report = case.report
    if report is None:
        return Hop("keys", Verdict.WAITING, "waits for: agent")
    for problem in (report.problem, case.status.problem):
        if problem and _hop_of(problem, "tunnel") == "keys":
            return _failed("keys", problem, report.phase_since)
    if report.rejected:
        which = "; ".join(f"line {line.line}: {line.reason}" for line in report.rejected)
        return Hop(
            "keys",
            Verdict.FAILED,
            f"{report.keys_own + report.keys_central} keys are in place; not keys: {which}",
            "Correct these lines of ~/SageMaker/ssh/authorized_keys on the notebook, then run copy-ssh-keys.",
        )
    return Hop("keys", Verdict.OK, f"{report.keys_own} from the notebook's file, {report.keys_central} central")


def _failed(name: str, problem: Problem, since: int | None = None) -> Hop:
    return Hop(
        name, Verdict.FAILED, problem.message, REMEDIES.get(problem.code, "Do what the message says."), since or None
    )


def _hop_of(problem: Problem, otherwise: str) -> str:
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
