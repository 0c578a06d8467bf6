"""Applies actions, one after the other, each SageMaker write in its slot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import backups, sagemaker
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.planning.actions import (
    Action,
    Attach,
    BackupScript,
    CreateLifecycleConfig,
    DeleteLifecycleConfig,
    Detach,
    ExpireBackups,
    RemoveTag,
    Start,
    Stop,
    WriteScript,
)
from notebook_ssh.planning.observation import LifecycleConfig

logger = Logger(child=True)


def apply(actions: Iterable[Action], deps: Dependencies, now: int, slot: int | None) -> LifecycleConfig | None:
    """Apply the actions in order; returns the configuration as it was read after its script was written, if one was.

    slot: the moment of a reserved write slot (epoch milliseconds), for the first write; None: none is reserved.
    An error leaves the rest undone: what is done is complete, and the next reconciliation plans from there.
    """
    written = None
    for action in actions:
        if action.rate_limited:
            _wait_for_slot(action, deps, slot)
            slot = None
        logger.info(str(action), extra={"reason": action.reason})
        written = _do(action, deps, now) or written
    return written


def _wait_for_slot(action: Action, deps: Dependencies, slot: int | None) -> None:
    """Wait for the slot and verify what is about to change; wait for another slot if that took longer than this one lasts."""
    while True:
        slot = deps.slots.wait_for(slot)
        _verify(action)
        if isinstance(action, WriteScript) and action.upgrade:
            deps.slots.reserve_upgrade()
        if not deps.slots.is_expired(slot):
            return
        slot = None


def _verify(action: Action) -> None:
    """Check right before a write what the plan rests on, where SageMaker would not refuse the write itself."""
    if isinstance(action, WriteScript):
        sagemaker.verify_unchanged(action.lifecycle_config)
    elif isinstance(action, Attach):
        sagemaker.verify_detached(action.notebook)


def _do(action: Action, deps: Dependencies, now: int) -> LifecycleConfig | None:  # noqa: C901  a branch for each action
    match action:
        case BackupScript(lifecycle_config, reason):
            backups.backup_script(deps.table, lifecycle_config, reason, now)
        case WriteScript(lifecycle_config, on_start):
            return sagemaker.write_script(lifecycle_config, on_start)
        case CreateLifecycleConfig(name, on_create, on_start):
            sagemaker.create_lifecycle_config(name, on_create, on_start, deps.settings.stack)
        case DeleteLifecycleConfig(lifecycle_config):
            sagemaker.delete_lifecycle_config(lifecycle_config)
        case ExpireBackups(name, after):
            backups.set_backup_expiry(deps.table, name, None if after is None else now + after)
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
