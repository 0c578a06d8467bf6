"""The actions of a plan: one frozen dataclass for each kind, in the closed union `Action`.

Every action has `reason`, `rate_limited` (it is one of SageMaker's control-plane writes, which are limited to one a
second for an account and region), `locks` (the names to lease before it, empty if it is not rate-limited) and a
description without script contents as its `str`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from notebook_ssh.planning.observation import LifecycleConfig

BACKUP_RETENTION_S = 90 * 86_400
"""Seconds for which backups are kept once no notebook that uses the configuration requests SSH."""


def lifecycle_config_lock(name: str) -> str:
    """Return the name under which the lifecycle configuration `name` is leased."""
    return f"configuration/{name}"


def notebook_lock(name: str) -> str:
    """Return the name under which the notebook `name` is leased."""
    return f"notebook/{name.lower()}"


@dataclass(frozen=True, slots=True)
class BackupScript:
    """Save a copy of the on-start script before it is changed."""

    rate_limited: ClassVar[bool] = False
    locks: ClassVar[tuple[str, ...]] = ()

    lifecycle_config: LifecycleConfig
    reason: str

    def __str__(self) -> str:
        return f"back up the on-start script of {self.lifecycle_config.name}"


@dataclass(frozen=True, slots=True)
class WriteScript:
    """Replace the on-start script if the configuration is unchanged since it was observed."""

    rate_limited: ClassVar[bool] = True

    lifecycle_config: LifecycleConfig
    # None removes the hook.
    on_start: bytes | None
    reason: str
    # It replaces a block that works (`planning.upgrade`): one at a time, UPGRADE_INTERVAL_S apart.
    upgrade: bool = False

    @property
    def locks(self) -> tuple[str, ...]:
        """The names of the leases to hold while it is carried out."""
        return (lifecycle_config_lock(self.lifecycle_config.name),)

    def __str__(self) -> str:
        return (
            f"write the on-start script of {self.lifecycle_config.name} "
            f"({len(self.lifecycle_config.on_start or b''):,} bytes to {len(self.on_start or b''):,})"
        )


@dataclass(frozen=True, slots=True)
class CreateLifecycleConfig:
    """Create a configuration with a tag that names this stack."""

    rate_limited: ClassVar[bool] = True

    name: str
    on_create: bytes
    on_start: bytes
    reason: str

    @property
    def locks(self) -> tuple[str, ...]:
        """The names of the leases to hold while it is carried out."""
        return (lifecycle_config_lock(self.name),)

    def __str__(self) -> str:
        return f"create the configuration {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteLifecycleConfig:
    """Delete a configuration that this stack created and that no notebook uses."""

    rate_limited: ClassVar[bool] = True

    lifecycle_config: LifecycleConfig
    reason: str

    @property
    def locks(self) -> tuple[str, ...]:
        """The names of the leases to hold while it is carried out."""
        return (lifecycle_config_lock(self.lifecycle_config.name),)

    def __str__(self) -> str:
        return f"delete the configuration {self.lifecycle_config.name}"


@dataclass(frozen=True, slots=True)
class ExpireBackups:
    """Set when the backups of a configuration's scripts expire."""

    rate_limited: ClassVar[bool] = False
    locks: ClassVar[tuple[str, ...]] = ()

    # Name of the configuration.
    lifecycle_config: str
    # Seconds from now; None keeps the backups.
    after: int | None
    reason: str

    def __str__(self) -> str:
        if self.after is None:
            return f"keep the back-ups of {self.lifecycle_config}"
        return f"end the back-ups of {self.lifecycle_config} in {self.after // 86_400} days"


@dataclass(frozen=True, slots=True)
class Attach:
    """Attach a configuration to a stopped notebook."""

    rate_limited: ClassVar[bool] = True

    notebook: str
    lifecycle_config: str
    reason: str

    @property
    def locks(self) -> tuple[str, ...]:
        """The names of the leases to hold while it is carried out."""
        # The configuration too, or another worker could find it unused and delete it.
        return notebook_lock(self.notebook), lifecycle_config_lock(self.lifecycle_config)

    def __str__(self) -> str:
        return f"attach {self.lifecycle_config} to {self.notebook}"


@dataclass(frozen=True, slots=True)
class Detach:
    """Detach the configuration of a stopped notebook."""

    rate_limited: ClassVar[bool] = True

    notebook: str
    reason: str

    @property
    def locks(self) -> tuple[str, ...]:
        """The names of the leases to hold while it is carried out."""
        return (notebook_lock(self.notebook),)

    def __str__(self) -> str:
        return f"detach the configuration of {self.notebook}"


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a notebook that opted in."""

    rate_limited: ClassVar[bool] = True

    notebook: str
    reason: str

    @property
    def locks(self) -> tuple[str, ...]:
        """The names of the leases to hold while it is carried out."""
        return (notebook_lock(self.notebook),)

    def __str__(self) -> str:
        return f"stop {self.notebook}"


@dataclass(frozen=True, slots=True)
class Start:
    """Start a notebook that the stack stopped."""

    rate_limited: ClassVar[bool] = True

    notebook: str
    reason: str

    @property
    def locks(self) -> tuple[str, ...]:
        """The names of the leases to hold while it is carried out."""
        return (notebook_lock(self.notebook),)

    def __str__(self) -> str:
        return f"start {self.notebook}"


@dataclass(frozen=True, slots=True)
class RemoveTag:
    """Remove the tag `key` of the resource `arn`."""

    rate_limited: ClassVar[bool] = False
    locks: ClassVar[tuple[str, ...]] = ()

    arn: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"remove the tag {self.key} of {self.arn.rpartition('/')[2]}"


Action = (
    BackupScript
    | WriteScript
    | CreateLifecycleConfig
    | DeleteLifecycleConfig
    | ExpireBackups
    | Attach
    | Detach
    | Stop
    | Start
    | RemoveTag
)


def locks_of(actions: Iterable[Action]) -> frozenset[str]:
    """Return the names to lease before the actions; empty if none of them is rate-limited."""
    return frozenset(lock for action in actions for lock in action.locks)


def reasons(actions: Iterable[Action]) -> tuple[str, ...]:
    """Return one sentence for each action: its description and its reason."""
    return tuple(f"{action}: {action.reason}" for action in actions)
