"""Plan the on-start script of a lifecycle configuration: with the block, without it, or as it is.

A script loses the block only if complete, fresh knowledge shows that no notebook using it requests SSH.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from notebook_ssh.errors import Problem
from notebook_ssh.model.managed_block import (
    Damaged,
    Inspection,
    NoBlock,
    Present,
    Refused,
    fingerprint,
    insert_block,
    inspect,
)
from notebook_ssh.model.shebang import first_line_problem
from notebook_ssh.planning.actions import (
    BACKUP_RETENTION_S,
    Action,
    BackupScript,
    CreateLifecycleConfig,
    ExpireBackups,
    WriteScript,
)
from notebook_ssh.planning.observation import (
    MODIFIABLE_STATES,
    BlockPolicy,
    Deployment,
    LifecycleConfig,
    LifecycleConfigRecord,
    NotebookObservation,
    Users,
    block_ref,
)
from notebook_ssh.planning.upgrade import is_requested, works

EMPTY_SCRIPT = b"#!/usr/bin/env bash\n"
"""Both hooks of a configuration that the stack creates."""

REQUESTED = "a notebook that uses this configuration requests SSH"
"""Why a block is in a script."""


class BlockState(Enum):
    """Which state of the block in a script is desired."""

    # This version's, in place of any other.
    PRESENT = "present"
    # This version's, or another one that works.
    WORKING = "working"
    ABSENT = "absent"
    UNCHANGED = "unchanged"


class ScriptPlan(NamedTuple):
    """The actions on a configuration's on-start script, and the state once they are done."""

    actions: tuple[Action, ...] = ()
    block_since: int | None = None
    problem: Problem | None = None
    config_record: LifecycleConfigRecord | None = None

    @property
    def effective_since(self) -> int | None:
        """Since when a start has what the script holds once they are done, as far as it is this stack's; None: it has none."""
        replaced_at = self.config_record.replaced_at if self.config_record else None
        return max(self.block_since, replaced_at or 0) if self.block_since is not None else None


def needs_users(observed: NotebookObservation, policy: BlockPolicy, now: int) -> bool:
    """Return whether the plan depends on the configuration's other users: only before the block is removed."""
    return (
        observed.notebook is not None
        and observed.notebook.lifecycle_config is not None
        and not observed.spec.needs_block(now)
        and observed.lifecycle_config is not None
        and not has_no_block(observed.lifecycle_config, policy)
    )


def is_in_place(observed: NotebookObservation, policy: BlockPolicy, now: int) -> bool:
    """Return whether the attached script has the block if it is unchanged since `config_record`, and that suffices.

    A write is compared with the script right before it in any case. False if a restart depends on the script.
    """
    restarting = observed.spec.restart or (observed.record is not None and observed.record.restart is not None)
    return (
        observed.notebook is not None
        and observed.notebook.lifecycle_config is not None
        and observed.config_record is not None
        and observed.config_record.block == policy.block_ref
        and bool(observed.spec.effective_modes(now))
        and not restarting
    )


def plan_notebook_script(observed: NotebookObservation, policy: BlockPolicy, now: int) -> ScriptPlan:
    """Plan the script of the configuration that a notebook uses, or is to use."""
    notebook = observed.notebook
    requested = bool(observed.spec.effective_modes(now))
    if notebook is None or (
        notebook.lifecycle_config is None and not (requested and notebook.state in MODIFIABLE_STATES)
    ):
        # Nothing is prepared before it can be attached: it would be an unused configuration of the stack.
        return ScriptPlan(config_record=observed.config_record)
    if observed.lifecycle_config is None:
        return _plan_new_config(policy, now)
    if requested:
        target = BlockState.PRESENT if is_requested(observed) else BlockState.WORKING
    elif observed.spec.problem or observed.users is None:
        target = BlockState.UNCHANGED
    else:
        target = block_target(observed.users)
        # The plans of the other users install it.
        target = BlockState.UNCHANGED if target is BlockState.PRESENT else target
    script = plan_script(observed.lifecycle_config, target, observed.config_record, policy, now, observed.deployment)
    if target is BlockState.UNCHANGED and observed.config_record:
        # A change of the script stays unrecorded until a plan that may act on it.
        return script._replace(config_record=observed.config_record)
    return script


def block_target(users: Users) -> BlockState:
    """Return the block state that the users of a configuration require together."""
    if users.requesting:
        return BlockState.PRESENT
    return BlockState.ABSENT if users.complete and not users.invalid else BlockState.UNCHANGED


def plan_script(
    lifecycle_config: LifecycleConfig,
    target: BlockState,
    config_record: LifecycleConfigRecord | None,
    policy: BlockPolicy,
    now: int,
    deployment: Deployment,
) -> ScriptPlan:
    """Plan the on-start script of `lifecycle_config` for the desired state of the block."""
    found = inspect(lifecycle_config.on_start, policy.block.stack)
    since = _block_since(lifecycle_config, found, config_record)
    present = block_ref(found) if isinstance(found, Present) else ""
    replaced_at = _replaced_at(lifecycle_config, present, config_record)
    entry = LifecycleConfigRecord(
        lifecycle_config.name, lifecycle_config.modified, present, policy.block_ref, since, replaced_at=replaced_at
    )
    match target:
        case BlockState.PRESENT | BlockState.WORKING:
            working = works(found, policy, deployment) and not first_line_problem(lifecycle_config.on_start or b"")
            if working and target is BlockState.WORKING:
                return ScriptPlan(_keep_backups(entry, config_record, REQUESTED), since, None, entry)
            return _install(lifecycle_config, found, entry, config_record, policy, now, upgrade=working)
        case BlockState.ABSENT:
            return _remove(lifecycle_config, found, entry, config_record, policy)
        case BlockState.UNCHANGED:
            return ScriptPlan((), since, None, entry if config_record or isinstance(found, Present) else None)


def restore_script(lifecycle_config: LifecycleConfig, owner: bytes | None, reason: str) -> tuple[Action, ...]:
    """Return the actions that replace the script by `owner`, its content without the block."""
    write = WriteScript(lifecycle_config, owner, reason)
    expire = ExpireBackups(lifecycle_config.name, BACKUP_RETENTION_S, reason)
    return BackupScript(lifecycle_config, reason), write, expire


def has_no_block(lifecycle_config: LifecycleConfig, policy: BlockPolicy) -> bool:
    """Return whether the script holds nothing of this stack, neither a block nor a damaged one."""
    return isinstance(inspect(lifecycle_config.on_start, policy.block.stack), NoBlock)


def is_untouched(lifecycle_config: LifecycleConfig, policy: BlockPolicy) -> bool:
    """Return whether a configuration that the stack created has no content of another author."""
    owner = inspect(lifecycle_config.on_start, policy.block.stack).owner
    return (lifecycle_config.on_create, owner) == (EMPTY_SCRIPT, EMPTY_SCRIPT)


def owner_hash(lifecycle_config: LifecycleConfig | None, policy: BlockPolicy) -> str:
    """Return the fingerprint of the owner's scripts; for None, of a configuration that is yet to be created."""
    if lifecycle_config is None:
        return fingerprint(EMPTY_SCRIPT + EMPTY_SCRIPT)
    owner = inspect(lifecycle_config.on_start, policy.block.stack).owner
    return fingerprint(b"".join(script or b"" for script in (lifecycle_config.on_create, owner)))


def _plan_new_config(policy: BlockPolicy, now: int) -> ScriptPlan:
    inserted = insert_block(EMPTY_SCRIPT, policy.block)
    if isinstance(inserted, Refused):
        return ScriptPlan(problem=inserted.problem)
    create = CreateLifecycleConfig(
        policy.default_config, EMPTY_SCRIPT, inserted.script, "the notebook has no lifecycle configuration"
    )
    config_record = LifecycleConfigRecord(
        policy.default_config, block=policy.block_ref, tried=policy.block_ref, block_since=now
    )
    return ScriptPlan(actions=(create,), block_since=now, config_record=config_record)


def _install(
    lifecycle_config: LifecycleConfig,
    found: Inspection,
    entry: LifecycleConfigRecord,
    config_record: LifecycleConfigRecord | None,
    policy: BlockPolicy,
    now: int,
    *,
    upgrade: bool,
) -> ScriptPlan:
    since = entry.block_since
    inserted = insert_block(lifecycle_config.on_start, policy.block)
    if isinstance(inserted, Refused):
        return ScriptPlan((), since, inserted.problem, entry._replace(problem=inserted.problem))
    reason = _install_reason(found, policy)
    keep = _keep_backups(entry, config_record, reason)
    if not inserted.changed:
        return ScriptPlan(keep, since, None, entry)
    since = since or now
    replaced_at = now if entry.block not in ("", policy.block_ref) else entry.replaced_at
    write = (BackupScript(lifecycle_config, reason), WriteScript(lifecycle_config, inserted.script, reason, upgrade))
    after = entry._replace(block=policy.block_ref, block_since=since, replaced_at=replaced_at)
    return ScriptPlan((*keep, *write), since, None, after)


def _keep_backups(
    entry: LifecycleConfigRecord, config_record: LifecycleConfigRecord | None, reason: str
) -> tuple[Action, ...]:
    # The copies' own expiry decides what there is to do: whether the block is recorded says nothing about it.
    recorded = config_record is not None and bool(config_record.block)
    return () if recorded else (ExpireBackups(entry.name, None, reason),)


def _remove(
    lifecycle_config: LifecycleConfig,
    found: Inspection,
    entry: LifecycleConfigRecord,
    config_record: LifecycleConfigRecord | None,
    policy: BlockPolicy,
) -> ScriptPlan:
    if isinstance(found, Damaged):
        return ScriptPlan((), entry.block_since, found.problem, entry._replace(problem=found.problem))
    reason = "no notebook that uses this configuration requests SSH"
    # The default configuration stays recorded until it is deleted, or found to belong to another creator.
    rest = entry if config_record and lifecycle_config.name == policy.default_config else None
    if not isinstance(found, Present):
        # Begun and not finished (`modified` is 0): whatever was done about the copies is not recorded.
        removed_before = config_record is not None and (config_record.block or not config_record.modified)
        expire = ExpireBackups(lifecycle_config.name, BACKUP_RETENTION_S, reason)
        return ScriptPlan((expire,) if removed_before else (), config_record=rest)
    restore = restore_script(lifecycle_config, found.owner, reason)
    return ScriptPlan(actions=restore, config_record=rest and rest._replace(block="", block_since=None))


def _block_since(
    lifecycle_config: LifecycleConfig, found: Inspection, config_record: LifecycleConfigRecord | None
) -> int | None:
    """Return since when the block has been installed; without a record, the last change is the latest time possible."""
    if not isinstance(found, Present):
        return None
    if config_record and config_record.block_since is not None:
        return config_record.block_since
    return lifecycle_config.modified // 1000


def _replaced_at(
    lifecycle_config: LifecycleConfig, present: str, config_record: LifecycleConfigRecord | None
) -> int | None:
    """Return when the block took another one's place; for one that is not recorded yet, when the script last changed."""
    if config_record is None or not (present and config_record.block):
        return None
    return config_record.replaced_at if config_record.block == present else lifecycle_config.modified // 1000


def _install_reason(found: Inspection, policy: BlockPolicy) -> str:
    if not isinstance(found, Present):
        return REQUESTED
    if not found.intact:
        return "the block was edited"
    if (found.id, found.version) != (policy.block.id, policy.block.version):
        return f"the block is of version {found.version}, the stack of {policy.block.version}"
    return "the block is not where it belongs"
