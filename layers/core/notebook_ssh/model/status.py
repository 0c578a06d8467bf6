"""The status of a notebook: a code and two sentences, as a pure function of its record and the time.

Every record has a status, and every status names the next step. docs/statuses.md lists them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from notebook_ssh.errors import Problem
from notebook_ssh.model.assessment import Assessment, Condition, PathState, assess, starting_since
from notebook_ssh.model.problems import remedy_of
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import Mode, tag_value
from notebook_ssh.model.text import iso_time


class Code(StrEnum):
    """The words of docs/statuses.md, in responses, tags and events."""

    OFF = "off"
    PENDING_RESTART = "pending-restart"
    PENDING_STOP = "pending-stop"
    STARTING = "starting"
    CONNECTED = "connected"
    READY = "ready"
    RECONNECTING = "reconnecting"
    STOPPED = "stopped"
    STALE = "stale"
    EXPIRED = "expired"
    INVALID_TAG = "invalid-tag"
    ERROR = "error"


REACHABLE = frozenset({Code.CONNECTED, Code.READY})
"""The codes with which the address is believed to work."""


class Status(NamedTuple):
    """The status that users read."""

    code: Code
    # Epoch seconds, or None if unknown.
    since: int | None
    message: str
    # What to do, never empty.
    next_step: str
    # What prevents the connection or, with `connected`, will prevent it.
    problem: Problem | None = None


CODES = {
    Condition.INVALID_TAG: Code.INVALID_TAG,
    Condition.OFF: Code.OFF,
    Condition.EXPIRED: Code.EXPIRED,
    Condition.SILENT: Code.STALE,
    Condition.CHANGING_MODE: Code.STARTING,
    Condition.ROUTE_FAILED: Code.ERROR,
    Condition.ROUTE_PENDING: Code.STARTING,
    Condition.CONNECTED: Code.CONNECTED,
    Condition.READY: Code.READY,
    Condition.AGENT_FAILED: Code.ERROR,
    Condition.AGENT_STUCK: Code.ERROR,
    Condition.RECONNECTING: Code.RECONNECTING,
    Condition.CONNECTING: Code.STARTING,
    Condition.NOT_RECONCILED: Code.ERROR,
    Condition.STOPPED: Code.STOPPED,
    Condition.STOPPING: Code.STOPPED,
    Condition.UPDATING: Code.STOPPED,
    Condition.DELETING: Code.STOPPED,
    Condition.NOTEBOOK_FAILED: Code.ERROR,
    Condition.NEEDS_STOP: Code.PENDING_STOP,
    Condition.NEEDS_RESTART: Code.PENDING_RESTART,
    Condition.STARTING: Code.STARTING,
    Condition.NEVER_REPORTED: Code.ERROR,
}
"""The code of each condition."""


def status_of(record: Record, now: int, sync_seconds: int, tag_key: str = "ssh") -> Status:
    """Return the status of `record` at `now` (epoch seconds). sync_seconds: the time between two reports."""
    return status_from(assess(record, now, sync_seconds), tag_key)


def status_from(found: Assessment, tag_key: str) -> Status:
    """Return the status that an assessment means."""
    message, next_step = _texts(found, tag_key)
    return Status(CODES[found.condition], _since(found), message, next_step, found.problem)


def status_key(status: Status) -> str:
    """Return the part of a status whose change is published: its code, and its problem's."""
    return _key(status.code, status.problem)


def status_key_of(found: Assessment) -> str:
    """Return the same of the status that an assessment means, without its texts: a sweep compares the whole fleet's."""
    return _key(CODES[found.condition], found.problem)


def _key(code: Code, problem: Problem | None) -> str:
    return f"{code}: {problem.code}" if problem else str(code)


def _since(found: Assessment) -> int | None:
    record, report = found.record, found.report
    match found.condition:
        case Condition.INVALID_TAG | Condition.OFF | Condition.NEEDS_STOP:
            return record.spec_changed_at
        case Condition.EXPIRED:
            return record.spec.until
        case Condition.SILENT:
            return report.received_at if report else None
        case Condition.CONNECTED | Condition.READY:
            return report.connected_since if report else None
        case Condition.ROUTE_FAILED:
            route = found.path.route if found.path else None
            return (route.since or None) if route else None
        case Condition.NOT_RECONCILED:
            return None
        case Condition.NEEDS_RESTART:
            return record.block_since
        case Condition.STARTING | Condition.NEVER_REPORTED:
            return starting_since(record)
    if found.path:
        return found.path.since or None
    return (report.phase_since if report else record.state_since) or None


def _texts(found: Assessment, tag_key: str) -> tuple[str, str]:
    """Return message and next step."""
    record, name = found.record, found.record.name
    match found.condition:
        case Condition.INVALID_TAG:
            return _message(found), f"Correct the tag of {name}."
        case Condition.OFF:
            return f"SSH is off for {name}.", f"To turn it on, tag it {ways(tag_key)}."
        case Condition.EXPIRED:
            return (
                f"SSH to {name} ended at {iso_time(record.spec.until or 0)}, as its tag {tag_key}-until sets.",
                f"To go on, set {tag_key}-until to a later time, or remove that tag.",
            )
        case Condition.ROUTE_FAILED | Condition.AGENT_FAILED | Condition.AGENT_STUCK | Condition.NOT_RECONCILED if (
            found.problem
        ):
            return sentence(found.problem.message), remedy_of(found.problem)
    return _texts_of_agent(found) if found.report else _texts_of_notebook(found, tag_key)


def _texts_of_agent(found: Assessment) -> tuple[str, str]:
    """Return message and next step once the agent has reported in this run."""
    name, report, modes = found.record.name, found.report, found.record.spec.modes
    match found.condition:
        case Condition.SILENT if report:
            return (
                f"The agent on {name} has been silent since {iso_time(report.received_at)}.",
                "Connecting may still work. If it does not: see that the notebook is running and still reaches the API, "
                "look into /var/log/notebook-ssh.log there, or stop and start it.",
            )
        case Condition.CHANGING_MODE if report:
            return (
                f"The agent on {name} is about to change from {tag_value(report.modes)} to {tag_value(modes)}.",
                f"Wait: it asks every {found.sync_seconds} seconds what to do.",
            )
        case Condition.ROUTE_PENDING:
            return (
                f"{name} is ready; its security group is not open to the {_entrance(found)} yet.",
                "Wait a minute: the rule is created automatically.",
            )
        case Condition.RECONNECTING:
            return (
                f"The connection of {name} broke; its agent is making a new one.",
                "Wait: the address may change, so look it up again.",
            )
        case Condition.CONNECTING:
            return f"The agent on {name} is connecting.", "Wait: this takes some seconds."
    if found.problem:
        return _but(found, found.problem), "Connect, and do what the message says."
    line = f"Connect: `ssh {name}` with the client, or the line that /notebooks/{name}/ssh answers."
    if found.condition is Condition.READY:
        return f"{name} can be reached, as far as the stack knows: no session has been reported yet.", line
    return f"{name} can be reached.", line


def _but(found: Assessment, problem: Problem) -> str:
    """Return the message of a notebook that can be reached and has a problem: of all of it, or of one of its paths."""
    name, message = found.record.name, sentence(problem.message)
    failed = [path.mode for path in found.paths if path.state is PathState.FAILED and path.problem == problem]
    if not failed or (found.path and found.path.problem == problem):
        return f"{name} can be reached, but: {message}"
    working = [path.mode for path in found.paths if path.state is PathState.READY]
    return f"{name} can be reached by {' and '.join(working)}, but not by {' and '.join(failed)}: {message}"


def ways(tag_key: str) -> str:
    """Return the tags that turn SSH on, to end a sentence with."""
    *others, last = (f"{tag_key}={mode}" for mode in Mode)
    return f"{', '.join(others)} or {last}"


def _entrance(found: Assessment) -> str:
    return (found.path.mode.entrance if found.path else None) or "entrance"


def _texts_of_notebook(found: Assessment, tag_key: str) -> tuple[str, str]:
    """Return message and next step before the agent has reported in this run."""
    name = found.record.name
    match found.condition:
        case Condition.STOPPED:
            when = "" if found.block_installed else " The block is installed in its lifecycle configuration first."
            return f"{name} is stopped.{when}", f"Start it: {_start_command(name)}"
        case Condition.STOPPING:
            return f"{name} is stopping.", f"Once it is stopped, start it: {_start_command(name)}"
        case Condition.UPDATING if found.record.state is not NotebookState.UPDATING:
            return f"SageMaker reports {name} as {found.record.state}.", f"Wait; then start it: {_start_command(name)}"
        case Condition.UPDATING:
            return f"{name} is stopped, and being updated.", f"Then start it: {_start_command(name)}"
        case Condition.DELETING:
            return f"{name} is being deleted.", "Nothing to do: it is being deleted."
        case Condition.NOTEBOOK_FAILED:
            return _message(found), f"Clear that, then start it: {_start_command(name)}"
        case Condition.NEEDS_STOP | Condition.NEEDS_RESTART:
            return _texts_of_pending(found, tag_key)
        case Condition.STARTING:
            return f"{name} is starting; its agent has not reported yet.", "Wait a minute or two."
    return (
        _message(found),
        "Read /var/log/notebook-ssh.log on the notebook, and the log stream "
        f"{name}/LifecycleConfigOnStart of /aws/sagemaker/NotebookInstances.",
    )


def _texts_of_pending(found: Assessment, tag_key: str) -> tuple[str, str]:
    """Return message and next step while the block takes effect only at the next start."""
    name = found.record.name
    automatic = f"Wait: it is stopped and started once, as its tag {tag_key}-restart requests."
    or_by_tag = f"or tag it {tag_key}-restart=now and the stack does both"
    if found.condition is Condition.NEEDS_STOP:
        message = f"{name} has no lifecycle configuration, and SageMaker attaches one only to a stopped notebook."
        by_hand = f"Stop it, wait for the status `stopped`, and start it, {or_by_tag}: {_stop_command(name)}"
    else:
        message = f"{name} has been running since before SSH was set up for it."
        by_hand = f"Stop it and start it, {or_by_tag}: {_stop_command(name)}, then {_start_command(name)}"
    return message, automatic if found.record.spec.restart else by_hand


def _message(found: Assessment) -> str:
    return found.problem.message if found.problem else ""


def sentence(text: str) -> str:
    """Return `text` with an end, since another sentence follows it: agents send some without."""
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _start_command(name: str) -> str:
    return f"aws sagemaker start-notebook-instance --notebook-instance-name {name}"


def _stop_command(name: str) -> str:
    return f"aws sagemaker stop-notebook-instance --notebook-instance-name {name}"
