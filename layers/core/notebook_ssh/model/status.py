"""The status of a notebook: a pure function of its record and the time, in one word and two sentences.

Total: every record has one, and every status says what to do next. docs/statuses.md is the same for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from notebook_ssh.errors import Problem
from notebook_ssh.model.record import NotebookState, Phase, Record, Report, predates_block
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.text import iso_time

STARTING_SECONDS = 900
"""How long a start may take before silence is an error: SageMaker's own minutes, five for the lifecycle script."""

WAKE_AGAIN_SECONDS = 300
"""After this long without a change of state, a start that was asked for is taken to have been lost."""

NO_KEYS = "no-keys"


class Code(StrEnum):
    """The words of docs/statuses.md, in answers, tags and events."""

    OFF = "off"
    PENDING_RESTART = "pending-restart"
    PENDING_STOP = "pending-stop"
    STARTING = "starting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    STOPPED = "stopped"
    STALE = "stale"
    EXPIRED = "expired"
    INVALID_TAG = "invalid-tag"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Status:
    """What a person needs to know.

    since: epoch seconds, or None when nobody noted it. message: what is. next_step: what to do, never empty.
    problem: what stands in the way, or, with `connected`, what will: the code of an `error` is there.
    """

    code: Code
    since: int | None
    message: str
    next_step: str
    problem: Problem | None = None


def status_of(record: Record, now: int, sync_seconds: int, tag_key: str = "ssh") -> Status:
    """The status of `record` at `now`. sync_seconds: the time between two reports."""
    spec = record.spec
    if spec.problem:
        return Status(
            Code.INVALID_TAG,
            record.spec_changed_at,
            spec.problem.message,
            f"Correct the tag of {record.name}.",
            spec.problem,
        )
    if spec.mode is Mode.OFF:
        return Status(
            Code.OFF,
            record.spec_changed_at,
            f"SSH is off for {record.name}.",
            f"To turn it on, tag it {tag_key}=ngrok or {tag_key}=bastion.",
        )
    if spec.until is not None and now >= spec.until:
        return Status(
            Code.EXPIRED,
            spec.until,
            f"SSH to {record.name} ended at {iso_time(spec.until)}, as its tag {tag_key}-until says.",
            f"To go on, set {tag_key}-until to a later time, or remove that tag.",
        )
    report = report_of_this_run(record)
    if report:
        return _running(record, report, now, sync_seconds)
    if record.problem:
        return _error(record.problem, None)
    return _silent(record, now, tag_key)


def status_key(status: Status) -> str:
    """What of a status is news: its code, and its problem's. A new moment or another sentence is none."""
    return f"{status.code}: {status.problem.code}" if status.problem else str(status.code)


def address_of(record: Record, now: int, sync_seconds: int) -> tuple[str, int] | None:
    """The host and port that people connect to, or None unless they are believed to work at `now`."""
    if status_of(record, now, sync_seconds).code is not Code.CONNECTED:
        return None
    return last_address(record)


def last_address(record: Record) -> tuple[str, int] | None:
    """The host and port of the present run, whether they still work or not; None when there never were any."""
    report = report_of_this_run(record)
    if report is None:
        return None
    if report.mode is Mode.BASTION and record.route and record.route.private_ip:
        return record.route.private_ip, 22
    if report.mode is Mode.NGROK and report.host and report.port:
        return report.host, report.port
    return None


def report_of_this_run(record: Record) -> Report | None:
    """The last report, if the run of the notebook that it came from is not known to have ended.

    What SageMaker says may be older than the report (events come late or not at all): a boot that began after
    the instance was seen stopped is a run that we have not heard of otherwise.
    """
    report, began = record.report, record.state_since
    if report is None or record.state in (NotebookState.STOPPING, NotebookState.DELETING):
        return None
    booted_from = began
    if record.state in (NotebookState.IN_SERVICE, NotebookState.PENDING) and record.started_at is not None:
        began = booted_from = record.started_at
    if record.state is NotebookState.IN_SERVICE and began == record.state_since:
        # Nobody saw it Pending: only the time at which it was ready is known, and it booted before that.
        booted_from = began - STARTING_SECONDS
    return report if report.booted_at >= booted_from or report.received_at > began else None


class Wake(StrEnum):
    """What to do when somebody wants to connect to a notebook that may be stopped."""

    START = "start"
    NOT_NEEDED = "not-needed"
    NOT_STOPPED = "not-stopped"
    NOT_ALLOWED = "not-allowed"


def wake(record: Record, now: int) -> Wake:
    """Whether to start `record`'s notebook because somebody wants to connect. Nothing running is ever touched."""
    if not record.spec.wake or record.spec.effective_mode(now) is Mode.OFF:
        return Wake.NOT_ALLOWED
    if record.state not in (NotebookState.STOPPED, NotebookState.FAILED):
        running = record.state in (NotebookState.PENDING, NotebookState.IN_SERVICE)
        return Wake.NOT_NEEDED if running else Wake.NOT_STOPPED
    return Wake.START if may_wake_again(record.wake_at, record.state_since, now) else Wake.NOT_NEEDED


def may_wake_again(wake_at: int | None, stopped_since: int, now: int) -> bool:
    """One start for each stop; another only when the first has shown no effect for long."""
    return wake_at is None or wake_at < stopped_since or now - wake_at > WAKE_AGAIN_SECONDS


def silent_after(sync_seconds: int) -> int:
    """Seconds without a report after which an agent counts as silent: two syncs missed, and some slack."""
    return 2 * sync_seconds + sync_seconds // 2 + 5


def _running(record: Record, report: Report, now: int, sync_seconds: int) -> Status:
    """With a report of this run: what the agent says counts, as long as it goes on saying it."""
    if now - report.received_at > silent_after(sync_seconds):
        return Status(
            Code.STALE,
            report.received_at,
            f"The agent on {record.name} has been silent since {iso_time(report.received_at)}.",
            "Connecting may still work. If it does not: see that the notebook is running and still reaches the API, "
            "look into /var/log/notebook-ssh.log there, or stop and start it.",
            Problem("agent-silent", f"No report since {iso_time(report.received_at)}."),
        )
    if report.mode is not record.spec.mode:
        return Status(
            Code.STARTING,
            report.phase_since or None,
            f"The agent on {record.name} is about to change from {report.mode} to {record.spec.mode}.",
            f"Wait: it asks every {sync_seconds} seconds what to do.",
            record.problem,
        )
    match report.phase:
        case Phase.CONNECTED:
            return _connected(record, report)
        case Phase.FAILED:
            problem = report.problem or Problem(
                "agent-failed",
                f"The agent on {record.name} failed and did not say why: see /var/log/notebook-ssh.log there.",
            )
            return _error(problem, report.phase_since or None)
        case Phase.CONNECTING | Phase.OFF:
            return _connecting(record, report, now)


def _connected(record: Record, report: Report) -> Status:
    route = record.route if record.spec.mode is Mode.BASTION else None
    if record.spec.mode is Mode.BASTION:
        if route and route.problem and not route.open:
            return _error(route.problem, route.since or None)
        if route is None or not route.open or route.private_ip is None:
            return Status(
                Code.STARTING,
                report.phase_since or None,
                f"{record.name} is ready; its security group is not open to the bastion yet.",
                "Wait a minute: the rule is made by itself.",
                record.problem,
            )
    # A way that is open and has a problem keeps some people out, not all: a client network that was refused.
    problem = record.problem or report.problem or (route.problem if route else None) or _no_keys(record, report)
    return Status(
        Code.CONNECTED,
        report.connected_since,
        f"{record.name} can be reached."
        if problem is None
        else f"{record.name} can be reached, but: {_sentence(problem.message)}",
        f"Connect: `ssh {record.name}` with the client, or the line that /notebooks/{record.name}/ssh answers."
        if problem is None
        else "Connect, and put right what the message says.",
        problem,
    )


def _no_keys(record: Record, report: Report) -> Problem | None:
    if report.keys_own or report.keys_central:
        return None
    return Problem(
        NO_KEYS,
        f"{record.name} has no public key, so nobody can log in: write one into ~/SageMaker/ssh/authorized_keys there, "
        "then run copy-ssh-keys.",
    )


def _connecting(record: Record, report: Report, now: int) -> Status:
    since = report.phase_since or None
    if not report.problem and since is not None and now - since > STARTING_SECONDS:
        waiting = f"The agent on {record.name} has been connecting since {iso_time(since)} and does not say what is in its way."
        return _error(Problem("agent-stuck", waiting), since)
    if report.connected_since is not None:
        return Status(
            Code.RECONNECTING,
            since,
            f"The connection of {record.name} broke; its agent is making a new one.",
            "Wait: the address may change, so look it up again.",
            report.problem or record.problem,
        )
    return Status(
        Code.STARTING,
        since,
        f"The agent on {record.name} is connecting.",
        "Wait: this takes some seconds.",
        report.problem or record.problem,
    )


def _silent(record: Record, now: int, tag_key: str) -> Status:
    """Without a report of this run, and without a known problem: SageMaker's state and the block decide."""
    name, since = record.name, record.state_since or None
    match record.state:
        case NotebookState.STOPPED:
            when = (
                "" if record.block_since is not None else " The set-up is put into its lifecycle configuration first."
            )
            return Status(Code.STOPPED, since, f"{name} is stopped.{when}", f"Start it: {_start_command(name)}")
        case NotebookState.STOPPING:
            return Status(
                Code.STOPPED, since, f"{name} is stopping.", f"Once it is stopped, start it: {_start_command(name)}"
            )
        case NotebookState.UPDATING:
            return Status(
                Code.STOPPED, since, f"{name} is stopped, and being updated.", f"Then start it: {_start_command(name)}"
            )
        case NotebookState.DELETING:
            return Status(Code.STOPPED, since, f"{name} is being deleted.", "Nothing: it will be gone.")
        case NotebookState.FAILED:
            problem = Problem(
                "notebook-failed", f"SageMaker could not start {name}: see its failure reason and its lifecycle log."
            )
            return Status(
                Code.ERROR, since, problem.message, f"Clear that, then start it: {_start_command(name)}", problem
            )
        case NotebookState.PENDING | NotebookState.IN_SERVICE:
            return _awaited(record, now, tag_key)


def _awaited(record: Record, now: int, tag_key: str) -> Status:
    """Running or on its way there, and not heard of: does the block come with this run, or with the next?"""
    name = record.name
    by_itself = (
        f"Wait: it is stopped and started once, as its tag {tag_key}-restart says." if record.spec.restart else ""
    )
    or_by_tag = f"or tag it {tag_key}-restart=now and the stack does both"
    if record.block_since is None and record.lifecycle_config is None:
        return Status(
            Code.PENDING_STOP,
            record.spec_changed_at,
            f"{name} has no lifecycle configuration, and SageMaker attaches one only to a stopped notebook.",
            by_itself or f"Stop it, wait for the status `stopped`, and start it, {or_by_tag}: {_stop_command(name)}",
        )
    began = record.started_at if record.started_at is not None else record.state_since
    if record.block_since is None or predates_block(record, record.block_since):
        return Status(
            Code.PENDING_RESTART,
            record.block_since,
            f"{name} has been running since before SSH was set up for it.",
            by_itself or f"Stop it and start it, {or_by_tag}: {_stop_command(name)}, then {_start_command(name)}",
        )
    since = max(began, record.block_since, record.spec_changed_at or 0)
    if now - since <= STARTING_SECONDS:
        return Status(
            Code.STARTING, since, f"{name} is starting; its agent has not reported yet.", "Wait a minute or two."
        )
    problem = Problem(
        "agent-silent",
        f"The agent on {name} has not reported since the notebook started at {iso_time(began)}: it has no route to "
        "the API (a NAT gateway, or an execute-api endpoint together with a private API), or it could not run.",
    )
    return Status(
        Code.ERROR,
        since,
        problem.message,
        "Read /var/log/notebook-ssh.log on the notebook, and the log stream "
        f"{name}/LifecycleConfigOnStart of /aws/sagemaker/NotebookInstances.",
        problem,
    )


def _error(problem: Problem, since: int | None) -> Status:
    remedy = REMEDIES.get(problem.code, "Do what the message says.")
    return Status(Code.ERROR, since, _sentence(problem.message), remedy, problem)


def _sentence(text: str) -> str:
    """`text` with an end, since another sentence follows it: agents and other programs send some without."""
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


REMEDIES = {
    "agent-stuck": "Read /var/log/notebook-ssh.log in a terminal of its Jupyter; a stop and a start brings a new agent.",
    "config-too-large": "Shorten the on-start script, or move a part of it into a file that it calls; the rest follows by itself.",
    "config-not-shell": "Start the on-start script in a shell and call the other program from there; the rest follows by itself.",
    "block-damaged": "Remove what is left of the block from the on-start script; the rest follows by itself.",
    "not-in-vpc": "Use ngrok for this notebook, or create it in the bastion's VPC.",
    "no-bastion": "Use ngrok, or give the stack a bastion.",
    "ngrok-token-missing": "Put the ngrok token into the stack's secret; the agent picks it up at its next report.",
    "ngrok-token-invalid": "Put a valid ngrok token into the stack's secret; the agent picks it up at its next report.",
    "ngrok-card-required": "Add a card to the ngrok account (https://dashboard.ngrok.com/settings#id-verification); nothing is charged for it.",
}
"""What to do about a problem whose message cannot say it as well. Any other code's message does."""


def _start_command(name: str) -> str:
    return f"aws sagemaker start-notebook-instance --notebook-instance-name {name}"


def _stop_command(name: str) -> str:
    return f"aws sagemaker stop-notebook-instance --notebook-instance-name {name}"
