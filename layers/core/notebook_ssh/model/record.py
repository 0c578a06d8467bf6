"""What the table holds about one notebook, as one immutable value.

Three writers write disjoint parts, so that no write undoes another's: `reconcile_notebook` what it observed and what
the tags request, `reconcile_rules` the routes, and the notebook its report (through `record_address`).

All times are whole seconds since the epoch (UTC). Names are as SageMaker allows them: 1 to 63 letters,
digits and hyphens, no hyphen at either end (CreateNotebookInstance, `NotebookInstanceName`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from notebook_ssh.errors import Problem
from notebook_ssh.model.spec import Mode, NotebookSpec

OWNER_TAG = "notebook-ssh:stack"
"""The tag in which a configuration or a rule names the stack that created it. Nothing without it is ever deleted."""

_STATE = re.compile(r"[A-Za-z]{1,40}")
_UNKNOWN = "UNKNOWN"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def is_notebook_name(name: str) -> bool:
    """Return whether SageMaker allows `name` (CreateNotebookInstance, `NotebookInstanceName`)."""
    return _NAME.fullmatch(name) is not None


class NotebookState(StrEnum):
    """The state of the instance in SageMaker's words (DescribeNotebookInstance, `NotebookInstanceStatus`)."""

    PENDING = "Pending"
    IN_SERVICE = "InService"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"
    DELETING = "Deleting"
    UPDATING = "Updating"
    # Since August 2026. UNCONFIRMED(maintenance-states) what they mean for a notebook that was running.
    PENDING_MAINTENANCE = "PendingMaintenance"
    IN_MAINTENANCE = "InMaintenance"

    @classmethod
    def _missing_(cls, value: object) -> NotebookState:
        """Return a state for a word that this version does not know. It equals no member and keeps the word."""
        unknown = str.__new__(cls, value if isinstance(value, str) and _STATE.fullmatch(value) else "Unknown")
        unknown._name_, unknown._value_ = _UNKNOWN, str(unknown)
        return unknown

    @property
    def is_known(self) -> bool:
        """Whether this version knows the word."""
        return self._name_ != _UNKNOWN

    @property
    def may_run(self) -> bool:
        """Whether a notebook that was running may still run in it: nothing is attached, stopped or started then,
        and nothing is taken away."""
        return not self.is_known or self in (NotebookState.PENDING_MAINTENANCE, NotebookState.IN_MAINTENANCE)


class Network(NamedTuple):
    """Where the notebook is, as DescribeNotebookInstance returns it. All None or empty outside a VPC."""

    subnet: str | None = None
    security_groups: tuple[str, ...] = ()
    interface: str | None = None


class Endpoint(NamedTuple):
    """An EC2 Instance Connect Endpoint, as EC2 describes it."""

    id: str
    # The name to which a tunnel is opened.
    dns_name: str


@dataclass(frozen=True, slots=True)
class Route:
    """The route through an entrance of the notebook's network, as the rules reconciler left it."""

    # Rules of this stack, or equal ones, admit the entrance.
    open: bool = False
    # The notebook's address in its VPC, or None while unknown.
    private_ip: str | None = None
    since: int = 0
    problem: Problem | None = None
    # The endpoint that is the entrance; None if it is none, or unknown.
    endpoint: Endpoint | None = None


ROUTED = tuple(mode for mode in Mode if mode.entrance)
"""The modes in which a notebook is reached at its address in the VPC: each needs a route."""


class RestartStep(StrEnum):
    """The step of a requested restart that was called last."""

    STOP = "stop"
    START = "start"


class Restart(NamedTuple):
    """The progress of a requested restart, recorded before each call, so that a crash repeats no step."""

    step: RestartStep
    # `state_since` of the state that the call ends. While the notebook is still in that state, the call never arrived
    # and may be repeated; any other time means that it succeeded, or that a user was faster.
    since: int
    # When the stop was last recorded.
    at: int


class Mails(NamedTuple):
    """The mails to the admin about the notebook (`planning.mails`)."""

    # When the last one was sent; 0: never.
    sent_at: int = 0
    # Changes since then that were not mailed.
    held: int = 0
    # When the last of them was held for the digest, because the stack had sent its mails of the hour; 0: none.
    digest_at: int = 0


class Phase(StrEnum):
    """The progress of the agent, in its own words."""

    OFF = "off"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"


class RejectedKey(NamedTuple):
    """A line of the notebook's key file that is not a public key. The line's text is never reported."""

    line: int
    reason: str


class PathReport(NamedTuple):
    """What the agent reported of one of several paths."""

    mode: Mode
    phase: Phase
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The agent's last accepted report (docs/protocol.md)."""

    # Which start of the notebook, when it was, and which report since: only newer ones are accepted.
    boot: str
    booted_at: int
    sequence: int
    # When the stack received it.
    received_at: int
    # The modes that the agent is in, the preferred one first; empty: off.
    modes: tuple[Mode, ...]
    # With several modes, of the best path.
    phase: Phase
    # The agent's version.
    agent: str = ""
    # Where to connect in mode ngrok, or None.
    host: str | None = None
    port: int | None = None
    # Public host keys, `type base64`, without comments.
    host_keys: tuple[str, ...] = ()
    # How many public keys are in place from the notebook's key file, and from the stack.
    keys_own: int = 0
    keys_central: int = 0
    # How many authorities' certificates are admitted.
    authorities: int = 0
    rejected: tuple[RejectedKey, ...] = ()
    # Open SSH sessions, and when one was last active, in this boot or an earlier one.
    sessions: int = 0
    active_at: int | None = None
    # How many of them no trusted line of the notebook's log names: they are not ended with access.
    unknown_sessions: int = 0
    # With `paths`, one that concerns all of them.
    problem: Problem | None = None
    # Each path, if there are several modes and the agent reports each; in the order of the modes.
    paths: tuple[PathReport, ...] = ()
    # Since when this address has worked, by the stack's clock; while the agent reconnects, the last one. None: never
    # in this boot.
    connected_since: int | None = None
    # Since when phase and problem have been the same, by the stack's clock.
    phase_since: int = 0
    # The same for each of `paths`.
    paths_since: tuple[int, ...] = ()

    def of_path(self, mode: Mode) -> tuple[PathReport, int]:
        """Return what is reported of the path of `mode`, and since when; the report's own if it has no paths."""
        for number, path in enumerate(self.paths):
            if path.mode is mode:
                return path, self.paths_since[number] if number < len(self.paths_since) else self.phase_since
        return PathReport(mode, self.phase, self.problem), self.phase_since


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that the stack knows about one notebook."""

    # In its own case; the table's key is `name.lower()`, because ARNs are in lower case.
    name: str
    arn: str = ""
    # `CreationTime`, in epoch seconds: a notebook of this name with another one is another notebook. 0: unknown.
    created_at: int = 0
    # Name of the execution role, without path: who may report (docs/security.md).
    role: str = ""
    spec: NotebookSpec = field(default_factory=NotebookSpec)
    state: NotebookState = NotebookState.STOPPED
    # When SageMaker last changed the instance (`LastModifiedTime`).
    state_since: int = 0
    # Name of the attached lifecycle configuration, or None.
    lifecycle_config: str | None = None
    # Since when the block has been in that configuration, or None while it is not.
    block_since: int | None = None
    network: Network = field(default_factory=Network)
    # Its platform, if no agent runs there; else empty.
    unsupported_platform: str = ""
    # An excerpt of SageMaker's reason why it could not start; else empty.
    failure: str = ""
    # Why the notebook reconciler could not install the block.
    problem: Problem | None = None
    # Hash of what was observed, from which a sweep recognises that nothing changed.
    observed_hash: str = ""
    # 0: never yet.
    observed_at: int = 0
    # When the current run began, as near as is known, or None while the notebook is neither starting nor running.
    # See `predates_block`.
    started_at: int | None = None
    # The configuration that the stack attached because there was none; None if it did not attach the current one.
    attached_config: str | None = None
    # Hash of the owner's scripts in it at that time.
    attached_hash: str = ""
    restart: Restart | None = None
    # What a dry run would have done, one sentence each; empty otherwise.
    planned: tuple[str, ...] = ()
    # When the status tags were last written or removed.
    status_tags_at: int = 0
    # Status tags may be left on the notebook.
    status_tags_left: bool = False
    # `status_key` of the last published status; empty: none yet.
    notified_status: str = ""
    # None: the admin was never mailed about it.
    mails: Mails | None = None
    # Since when the tags have requested these modes, or None if unknown.
    spec_changed_at: int | None = None
    # It has been connected since then.
    first_connected: bool = False
    # When the API last started the notebook for a user who connected to it, or None.
    wake_at: int | None = None
    # By the mode that uses it, of each mode whose address is in the VPC; none of a mode that was never requested.
    routes: Mapping[Mode, Route] = field(default_factory=dict)
    report: Report | None = None


def is_running(record: Record) -> bool:
    """Return whether the notebook is starting or running, or was when SageMaker last reported a state that says it."""
    if record.state.may_run:
        return record.started_at is not None
    return record.state in (NotebookState.PENDING, NotebookState.IN_SERVICE)


def predates_block(record: Record, block_since: int) -> bool:
    """Return whether the current run began too early for the block that has been installed since `block_since`.

    Both times are whole seconds. A run that was observed Pending reads its script later in that second, or after it;
    a run that was first observed in service had read it by then.
    """
    began = record.started_at if record.started_at is not None else record.state_since
    if record.state is NotebookState.IN_SERVICE and began == record.state_since:
        return began <= block_since
    return began < block_since
