"""Doing what a plan says, one action after the other, each SageMaker write in its turn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import backups, sagemaker
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.write_slots import WriteSlots
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


@dataclass(slots=True)
class Hands:
    """What actions are done with. turn: the slot that was reserved already (WriteSlots.reserve), for the first write."""

    table: Table
    slots: WriteSlots
    stack: str
    now: int
    turn: int | None = None


def touched_by(actions: Iterable[Action]) -> frozenset[str]:
    """What the SageMaker writes among the actions change: nobody else may be at it meanwhile. Empty when there is none."""
    return frozenset(name for action in actions for name in _touched_by(action))


def lifecycle_config_lock(name: str) -> str:
    """What the configuration `name` is held as (`Leases.lease`)."""
    return f"configuration/{name}"


def _touched_by(action: Action) -> tuple[str, ...]:
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


def apply(actions: Iterable[Action], hands: Hands) -> LifecycleConfig | None:
    """Do the actions in order; the configuration as it was read after its script was written, if one was.

    An error leaves the rest undone: what is done is whole, and the next look plans from there.
    """
    written = None
    for action in actions:
        if isinstance(action, PACED):
            _come_to_a_turn(action, hands)
        logger.info(describe(action), extra={"reason": action.reason})
        written = _do(action, hands) or written
    return written


def _come_to_a_turn(action: Action, hands: Hands) -> None:
    """Wait for a turn and take the last look; wait for another one when that took so long that the turn is over."""
    while True:
        turn = hands.slots.wait_for(hands.turn)
        hands.turn = None
        match action:
            case WriteScript(lifecycle_config):
                sagemaker.verify_unchanged(lifecycle_config)
            case Attach(notebook):
                sagemaker.verify_detached(notebook)
        if not hands.slots.is_expired(turn):
            return


def _do(action: Action, hands: Hands) -> LifecycleConfig | None:
    match action:
        case BackupScript(lifecycle_config, reason):
            backups.backup_script(hands.table, lifecycle_config, reason, hands.now)
        case WriteScript(lifecycle_config, on_start):
            return sagemaker.write_script(lifecycle_config, on_start)
        case CreateLifecycleConfig(name, on_create, on_start):
            sagemaker.create_lifecycle_config(name, on_create, on_start, hands.stack)
        case DeleteLifecycleConfig(lifecycle_config):
            sagemaker.delete_lifecycle_config(lifecycle_config)
        case KeepBackUps(name):
            backups.set_backup_expiry(hands.table, name, None)
        case EndBackUps(name):
            backups.set_backup_expiry(hands.table, name, hands.now + backups.BACKUP_RETENTION_S)
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
