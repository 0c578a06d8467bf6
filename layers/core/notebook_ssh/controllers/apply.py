"""Applies actions, one after the other, each SageMaker write in its slot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import backups, sagemaker
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.planning.notebook import (
    PACED,
    Action,
    Attach,
    BackupScript,
    CreateLifecycleConfig,
    DeleteLifecycleConfig,
    Detach,
    EndBackUps,
    KeepBackUps,
    LifecycleConfig,
    RemoveTag,
    Start,
    Stop,
    WriteScript,
    describe,
)

logger = Logger(child=True)


def locks_of(actions: Iterable[Action]) -> frozenset[str]:
    """What the SageMaker writes among the actions change: nobody else may be at it meanwhile. Empty when there is none."""
    return frozenset(name for action in actions for name in _locks_of(action))


def lifecycle_config_lock(name: str) -> str:
    """What the configuration `name` is held as (`Turns.alone`)."""
    return f"configuration/{name}"


def _locks_of(action: Action) -> tuple[str, ...]:
    match action:
        case WriteScript(lifecycle_config) | DeleteLifecycleConfig(lifecycle_config):
            return (lifecycle_config_lock(lifecycle_config.name),)
        case CreateLifecycleConfig(name):
            return (lifecycle_config_lock(name),)
        case Attach(notebook, lifecycle_config):
            # Held as well, so that nobody finds it unused and deletes it.
            return f"notebook/{notebook.lower()}", lifecycle_config_lock(lifecycle_config)
        case Detach(notebook) | Stop(notebook) | Start(notebook):
            return (f"notebook/{notebook.lower()}",)
        case BackupScript() | KeepBackUps() | EndBackUps() | RemoveTag():
            return ()
        case _:
            assert_never(action)


def apply(actions: Iterable[Action], deps: Dependencies, now: int, slot: int | None) -> LifecycleConfig | None:
    """Apply the actions in order; returns the configuration as it was read after its script was written, if one was.

    slot: the moment of a reserved write slot (epoch milliseconds), for the first write; None: none is reserved.
    An error leaves the rest undone: what is done is complete, and the next reconciliation plans from there.
    """
    written = None
    for action in actions:
        if isinstance(action, PACED):
            _wait_for_slot(action, deps, slot)
            slot = None
        logger.info(describe(action), extra={"reason": action.reason})
        written = _do(action, deps, now) or written
    return written


def _wait_for_slot(action: Action, deps: Dependencies, slot: int | None) -> None:
    """Wait for the slot and verify what is about to change; wait for another slot if that took longer than this one lasts."""
    while True:
        slot = deps.turns.keep(slot)
        match action:
            case WriteScript(lifecycle_config):
                sagemaker.verify_unchanged(lifecycle_config)
            case Attach(notebook):
                sagemaker.verify_detached(notebook)
        if not deps.turns.missed(slot):
            return
        slot = None


def _do(action: Action, deps: Dependencies, now: int) -> LifecycleConfig | None:
    match action:
        case BackupScript(lifecycle_config, reason):
            backups.backup_script(deps.table, lifecycle_config, reason, now)
        case WriteScript(lifecycle_config, on_start):
            return sagemaker.write_script(lifecycle_config, on_start)
        case CreateLifecycleConfig(name, on_create, on_start):
            sagemaker.create_lifecycle_config(name, on_create, on_start, deps.settings.stack)
        case DeleteLifecycleConfig(lifecycle_config):
            sagemaker.delete_lifecycle_config(lifecycle_config)
        case KeepBackUps(name):
            backups.set_backup_expiry(deps.table, name, None)
        case EndBackUps(name):
            backups.set_backup_expiry(deps.table, name, now + backups.BACKUP_RETENTION_S)
        case Attach(notebook, name):
            sagemaker.attach(notebook, name)
        case Detach(notebook):
            sagemaker.detach(notebook)
        case Stop(notebook):
            sagemaker.stop(notebook)
        case Start(notebook):
            sagemaker.start(notebook)
        case RemoveTag(arn, key):
            sagemaker.remove_tags(arn, key)
        case _:
            assert_never(action)
    return None
