"""What the table knows about one notebook, as one immutable value.

Three writers, disjoint parts: `reconcile_notebook` writes what it observed and wishes, `reconcile_bastion`
writes `way`, and the notebook itself writes `report` (through `record_address`). So no write can undo another's.

All times are whole seconds since the epoch (UTC). Names are as SageMaker allows them: 1 to 63 letters,
digits and hyphens, no hyphen at either end (CreateNotebookInstance, `NotebookInstanceName`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from notebook_ssh.errors import Problem
from notebook_ssh.model.spec import Mode, NotebookSpec

OWNER_TAG = "notebook-ssh:stack"
"""The tag by which a configuration or a rule names the stack that made it. Without it, nothing is ever taken away."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def is_notebook_name(name: str) -> bool:
    """Whether SageMaker allows `name` (CreateNotebookInstance, `NotebookInstanceName`)."""
    return _NAME.fullmatch(name) is not None


class NotebookState(StrEnum):
    """SageMaker's own word for the instance (DescribeNotebookInstance, `NotebookInstanceStatus`)."""

    PENDING = "Pending"
    IN_SERVICE = "InService"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"
    DELETING = "Deleting"
    UPDATING = "Updating"

    @classmethod
    def _missing_(cls, value: object) -> NotebookState:
        """A word that SageMaker adds one day counts as Updating, in which nothing is attached, stopped or started."""
        return cls.UPDATING


@dataclass(frozen=True, slots=True)
class Network:
    """Where the notebook is, as DescribeNotebookInstance tells it. All None or empty outside a VPC."""

    subnet: str | None = None
    security_groups: tuple[str, ...] = ()
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class BastionRoute:
    """The way through the bastion, as the bastion reconciler left it.

    private_ip: the notebook's address in its VPC, or None while unknown.
    open: our rules, or equal ones made by hand, let the bastion in.
    """

    open: bool = False
    private_ip: str | None = None
    since: int = 0
    problem: Problem | None = None


class RestartStep(StrEnum):
    """Which half of an opted-in restart was asked for last."""

    STOP = "stop"
    START = "start"


@dataclass(frozen=True, slots=True)
class Restart:
    """An opted-in restart under way, written down before the call is made, so that a crash repeats no step.

    since: `state_since` of the state that the call ends. While the notebook is still in that very state, the call
    never arrived and may be made; any other moment means that it did its work, or that a person was faster.
    at: when the stop was last written down, in epoch seconds.
    """

    step: RestartStep
    since: int
    at: int


class Phase(StrEnum):
    """How far the agent is, in its own words."""

    OFF = "off"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RejectedKey:
    """A line of the person's key file that is not a public key. The line itself is never carried."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The agent's last accepted report (docs/protocol.md), with the time at which the stack received it.

    boot, booted_at, sequence: which start of the notebook, and which report since; only newer ones are accepted.
    host, port: where people connect (ngrok), or None.
    host_keys: public host keys, `type base64`, no comment.
    keys_own, keys_central: how many public keys are in place from the person's file and from the stack.
    sessions, active_at: open SSH sessions, and when one was last active.
    connected_since: when this address began to work, by the stack's clock; while the agent reconnects, when the
        last one did. None: never in this boot.
    phase_since: since when the phase and the problem are what they are, by the stack's clock.
    """

    boot: str
    booted_at: int
    sequence: int
    received_at: int
    mode: Mode
    phase: Phase
    agent: str = ""
    host: str | None = None
    port: int | None = None
    host_keys: tuple[str, ...] = ()
    keys_own: int = 0
    keys_central: int = 0
    rejected: tuple[RejectedKey, ...] = ()
    sessions: int = 0
    active_at: int | None = None
    problem: Problem | None = None
    connected_since: int | None = None
    phase_since: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """Everything the stack knows about one notebook.

    name: with its own capitals; the table's key is `name.lower()`, because ARNs are lower-cased.
    role: name of the execution role, without path: who may report (docs/security.md).
    state_since: when SageMaker last changed the instance (`LastModifiedTime`).
    spec_changed_at: since when the tags ask for this mode, or None when nobody noted it.
    reached: whether it has been connected since then.
    wake_at: when the API last started the notebook for somebody who wanted to connect, or None.
    configuration: name of the attached lifecycle configuration, or None.
    block_since: since when our block has been in that configuration, or None while it isn't.
    problem: what the notebook reconciler could not do.
    seen: fingerprint of what was observed, so that a sweep can tell that nothing changed.
    observed_at: when it was observed. 0: never yet.
    started_at: when the present run began, as near as is known, or None while the notebook is not running or
        starting. See `predates_block`.
    attached: the configuration that we attached because there was none; None when the attached one is not our doing.
    attached_hash: fingerprint of the owner's scripts in it at that time.
    restart: how far an opted-in restart is, or None.
    planned: what a dry run would have done, one sentence each; empty otherwise.
    status_tags_at: when the status was last written into the notebook's tags.
    told: headline of the status that was last told as an event; empty: none yet.
    """

    name: str
    arn: str = ""
    role: str = ""
    spec: NotebookSpec = field(default_factory=NotebookSpec)
    state: NotebookState = NotebookState.STOPPED
    state_since: int = 0
    lifecycle_config: str | None = None
    block_since: int | None = None
    network: Network = field(default_factory=Network)
    problem: Problem | None = None
    observed_hash: str = ""
    observed_at: int = 0
    started_at: int | None = None
    attached_config: str | None = None
    attached_hash: str = ""
    restart: Restart | None = None
    planned: tuple[str, ...] = ()
    status_tags_at: int = 0
    notified_status: str = ""
    spec_changed_at: int | None = None
    first_connected: bool = False
    wake_at: int | None = None
    route: BastionRoute | None = None
    report: Report | None = None


def predates_block(record: Record, block_since: int) -> bool:
    """Whether the present run began too early to start with the block that is in its configuration since `block_since`.

    Both are whole seconds. A run that was seen to begin reads its script later in that second, or after it; one that
    was first seen in service had read it by then.
    """
    began = record.started_at if record.started_at is not None else record.state_since
    if record.state is NotebookState.IN_SERVICE and began == record.state_since:
        return began <= block_since
    return began < block_since
