"""Doing what a plan says, one action after the other, each SageMaker write in its turn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import backups, sagemaker
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.write_slots import Turns
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


@dataclass(slots=True)
class Hands:
    """What actions are done with. turn: the moment of a slot that was taken already (Turns.take), for the first write."""

    table: Table
    turns: Turns
    stack: str
    now: int
    turn: int | None = None


def apply(actions: Iterable[Action], hands: Hands) -> LifecycleConfig | None:
    """Do the actions in order; the configuration as it was read after its script was written, if one was.

    An error leaves the rest undone: what is done is whole, and the next look plans from there.
    """
    written = None
    for action in actions:
        if action.rate_limited:
            _come_to_a_turn(action, hands)
        logger.info(str(action), extra={"reason": action.reason})
        written = _do(action, hands) or written
    return written


def _come_to_a_turn(action: Action, hands: Hands) -> None:
    """Wait for a turn and take the last look; wait for another one when that took so long that the turn is over."""
    while True:
        turn = hands.turns.keep(hands.turn)
        hands.turn = None
        _verify(action)
        if not hands.turns.missed(turn):
            return


def _verify(action: Action) -> None:
    """Check right before a write what the plan rests on, where SageMaker would not refuse the write itself."""
    if isinstance(action, WriteScript):
        sagemaker.verify_unchanged(action.lifecycle_config)
    elif isinstance(action, Attach):
        sagemaker.verify_detached(action.notebook)


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
        case ExpireBackups(name, after):
            backups.set_backup_expiry(hands.table, name, None if after is None else hands.now + after)
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
