"""Doing what a plan says, one action after the other, each SageMaker write in its turn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from aws_lambda_powertools import Logger

from notebook_ssh.aws import backups, notebooks
from notebook_ssh.aws.pacing import Turns
from notebook_ssh.aws.table import Table
from notebook_ssh.rules.notebook import (
    PACED,
    Action,
    Attach,
    BackUp,
    Configuration,
    CreateConfiguration,
    DeleteConfiguration,
    Detach,
    EndBackUps,
    KeepBackUps,
    Start,
    Stop,
    TakeTagAway,
    WriteScript,
    describe,
)

logger = Logger(child=True)


@dataclass(slots=True)
class Hands:
    """What actions are done with. turn: the moment of a slot that was taken already (Turns.take), for the first write."""

    table: Table
    turns: Turns
    stack: str
    now: int
    turn: int | None = None


def touched_by(actions: Iterable[Action]) -> frozenset[str]:
    """What the SageMaker writes among the actions change: nobody else may be at it meanwhile. Empty when there is none."""
    return frozenset(name for action in actions for name in _touched_by(action))


def a_configuration(name: str) -> str:
    """What the configuration `name` is held as (`Turns.alone`)."""
    return f"configuration/{name}"


def _touched_by(action: Action) -> tuple[str, ...]:
    match action:
        case WriteScript(configuration) | DeleteConfiguration(configuration):
            return (a_configuration(configuration.name),)
        case CreateConfiguration(name):
            return (a_configuration(name),)
        case Attach(notebook, configuration):
            # Held as well, so that nobody finds it unused and deletes it.
            return f"notebook/{notebook.lower()}", a_configuration(configuration)
        case Detach(notebook) | Stop(notebook) | Start(notebook):
            return (f"notebook/{notebook.lower()}",)
        case BackUp() | KeepBackUps() | EndBackUps() | TakeTagAway():
            return ()
        case _:
            assert_never(action)


def apply(actions: Iterable[Action], hands: Hands) -> Configuration | None:
    """Do the actions in order; the configuration as it was read after its script was written, if one was.

    An error leaves the rest undone: what is done is whole, and the next look plans from there.
    """
    written = None
    for action in actions:
        if isinstance(action, PACED):
            _come_to_a_turn(action, hands)
        logger.info(describe(action), extra={"reason": action.because})
        written = _do(action, hands) or written
    return written


def _come_to_a_turn(action: Action, hands: Hands) -> None:
    """Wait for a turn and take the last look; wait for another one when that took so long that the turn is over."""
    while True:
        turn = hands.turns.keep(hands.turn)
        hands.turn = None
        match action:
            case WriteScript(configuration):
                notebooks.look_before_writing(configuration)
            case Attach(notebook):
                notebooks.look_before_attaching(notebook)
        if not hands.turns.missed(turn):
            return


def _do(action: Action, hands: Hands) -> Configuration | None:
    match action:
        case BackUp(configuration, because):
            backups.back_up(hands.table, configuration, because, hands.now)
        case WriteScript(configuration, on_start):
            return notebooks.write_script(configuration, on_start)
        case CreateConfiguration(name, on_create, on_start):
            notebooks.create_configuration(name, on_create, on_start, hands.stack)
        case DeleteConfiguration(configuration):
            notebooks.delete_configuration(configuration)
        case KeepBackUps(name):
            backups.let_backups_end(hands.table, name, None)
        case EndBackUps(name):
            backups.let_backups_end(hands.table, name, hands.now + backups.KEEP_SECONDS)
        case Attach(notebook, name):
            notebooks.attach(notebook, name)
        case Detach(notebook):
            notebooks.detach(notebook)
        case Stop(notebook):
            notebooks.stop(notebook)
        case Start(notebook):
            notebooks.start(notebook)
        case TakeTagAway(arn, key):
            notebooks.take_tags_away(arn, key)
        case _:
            assert_never(action)
    return None
