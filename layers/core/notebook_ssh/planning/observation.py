"""What the reconciler observed of notebooks and lifecycle configurations: the input of every plan."""

from __future__ import annotations

import re
from typing import NamedTuple

from notebook_ssh.errors import Problem
from notebook_ssh.model.managed_block import Block, Present
from notebook_ssh.model.record import Network, NotebookState, Record
from notebook_ssh.model.spec import NotebookSpec

MODIFIABLE_STATES = frozenset({NotebookState.STOPPED, NotebookState.FAILED})
"""States in which SageMaker accepts UpdateNotebookInstance and StartNotebookInstance."""


_ENDED_PLATFORMS = re.compile(r"notebook-al(1|2)-v\d+")


class Notebook(NamedTuple):
    """A notebook instance as DescribeNotebookInstance returns it."""

    name: str
    arn: str
    # Name of the execution role, without its path.
    role: str
    state: NotebookState
    # `LastModifiedTime`, in epoch seconds.
    state_since: int
    # Name of the attached lifecycle configuration, or None.
    lifecycle_config: str | None = None
    network: Network = Network()
    # `CreationTime`, in epoch seconds; 0 if unknown.
    created_at: int = 0
    # `PlatformIdentifier`, empty if SageMaker names none.
    platform: str = ""
    # An excerpt of `FailureReason`, empty unless it has failed.
    failure: str = ""

    @property
    def unsupported_platform(self) -> str:
        """The platform, if it is one of Amazon Linux 1 or 2, where no agent runs; else empty."""
        return self.platform if _ENDED_PLATFORMS.fullmatch(self.platform) else ""


class NotebookSummary(NamedTuple):
    """A notebook instance as ListNotebookInstances returns it."""

    name: str
    arn: str
    state: NotebookState
    # `LastModifiedTime`, in epoch seconds.
    state_since: int
    lifecycle_config: str | None


class LifecycleConfig(NamedTuple):
    """A lifecycle configuration with its decoded scripts; a missing hook is None."""

    name: str
    arn: str
    # `LastModifiedTime`, in epoch milliseconds, since two changes can fall into one second.
    modified: int
    on_create: bytes | None = None
    on_start: bytes | None = None


class LifecycleConfigSummary(NamedTuple):
    """A lifecycle configuration as ListNotebookInstanceLifecycleConfigs returns it."""

    name: str
    arn: str
    # As in `LifecycleConfig`.
    modified: int


class Users(NamedTuple):
    """The notebooks that a lifecycle configuration is attached to."""

    names: tuple[str, ...] = ()
    # Notebooks known to request SSH. Reading may stop at the first one.
    requesting: tuple[str, ...] = ()
    # Notebooks with a tag that is invalid.
    invalid: tuple[str, ...] = ()
    # Every user was listed, and the tags of each were read.
    complete: bool = True


class LifecycleConfigRecord(NamedTuple):
    """What the table holds about a lifecycle configuration that the stack manages."""

    name: str
    # `LifecycleConfig.modified` at the last observation, which follows every write of the stack.
    modified: int = 0
    # Reference of the installed block (`block_ref`), empty without one.
    block: str = ""
    # Reference of the block that was to be installed.
    tried: str = ""
    # Epoch seconds since when a block has been installed.
    block_since: int | None = None
    # Why no block can be installed.
    problem: Problem | None = None
    # Epoch seconds when the block was last replaced by another one; None: never.
    replaced_at: int | None = None


class Deployment(NamedTuple):
    """What the table holds about the block that the stack has now."""

    # Its reference (`block_ref`) when a sweep last ran, empty before the first.
    block: str = ""
    # Epoch seconds since when the sweeps have found this one.
    since: int = 0
    # Fingerprints of the workers that the table has, the latest last (`worker_fingerprint`).
    workers: tuple[str, ...] = ()
    # Epoch milliseconds before which no block is upgraded.
    next_upgrade: int = 0


class NotebookObservation(NamedTuple):
    """Everything that the plan for one notebook is computed from."""

    name: str
    # None if it does not exist.
    notebook: Notebook | None
    spec: NotebookSpec = NotebookSpec()
    # The attached configuration; without one, the one that would be attached, or None if that does not exist.
    lifecycle_config: LifecycleConfig | None = None
    # Users of the attached configuration; None if not read (see `needs_users`).
    users: Users | None = None
    record: Record | None = None
    # What the table holds about `lifecycle_config`.
    config_record: LifecycleConfigRecord | None = None
    # The record of a deleted notebook of this name, in place of `record`.
    predecessor: Record | None = None
    deployment: Deployment = Deployment()


class LifecycleConfigObservation(NamedTuple):
    """Everything that the plan for one lifecycle configuration is computed from."""

    name: str
    # None if it does not exist.
    lifecycle_config: LifecycleConfig | None
    users: Users | None = None
    # Whether its tags name this stack as its creator; None if not read.
    ours: bool | None = None
    config_record: LifecycleConfigRecord | None = None
    deployment: Deployment = Deployment()


class BlockPolicy(NamedTuple):
    """The stack's settings that plans depend on."""

    tag_key: str
    # Name of the configuration for notebooks that have none.
    default_config: str
    block: Block
    # Seconds for which blocks that work stay as they are once the stack has another one.
    upgrade_after: int = 86_400

    @property
    def block_ref(self) -> str:
        """Reference of the block that scripts are to have."""
        return block_ref(self.block)


def block_ref(block: Block | Present) -> str:
    """Return version and id of a block, by which the table refers to it."""
    return f"{block.version}:{block.id}"
