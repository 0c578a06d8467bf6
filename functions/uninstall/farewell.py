"""Giving everything back before the stack goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from notebook_ssh.aws import backups, notebooks, security_groups
from notebook_ssh.aws.known import Known
from notebook_ssh.aws.table import CONFIGURATION, NOTEBOOK
from notebook_ssh.errors import Absent, Problem, Transient
from notebook_ssh.rules.bastion import Desired, Look, plan
from notebook_ssh.rules.notebook import Action, Seen, WriteScript, plan_last_attachment, plan_last_script, shows
from notebook_ssh.rules.record import Record
from reconcile_notebook.apply import Hands, apply, touched_by
from reconcile_notebook.observe import observe_configuration
from reconcile_notebook.reconcile import LOOKING, PREPARING, Desk

logger = Logger(child=True)

T = TypeVar("T")

BETWEEN_ROUNDS = 5
"""Seconds before what failed for now is tried again."""

LAST_ROUND = 20_000
"""Milliseconds that must be left for another round; less, and what is left is told."""


@dataclass(slots=True)
class Left:
    """What could not be given back. undone: it can be, by deleting the stack again. told: a person may want to know."""

    undone: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return not self.undone

    @property
    def said(self) -> str:
        """One text for CloudFormation's console and the log."""
        again = ["Delete the stack again to go on."] if self.undone else []
        return " ".join([*self.undone, *self.told, *again]) or "Everything is as it was."


def give_back(desk: Desk) -> Left:
    """Scripts first, since they matter most; then attachments, tags and records; then our configuration and our rules."""
    left = Left()
    records = list(desk.table.records(consistent=True))
    names = {kept.name for kept in backups.all_kept(desk.table)} | {desk.terms.fallback}
    names |= {record.configuration for record in records if record.configuration}
    _until_done(sorted(names), lambda name: _restore_script(name, desk, left), desk, left)
    _until_done(records, lambda record: _let_go(record, desk, left), desk, left)
    _until_done([desk.terms.fallback], lambda name: _restore_script(name, desk, left), desk, left)
    if left.done:
        _until_done(["the bastion's rules"], lambda what: _close_ways(desk, left), desk, left)
    return left


def _until_done(things: list[T], one: Callable[[T], None], desk: Desk, left: Left) -> None:
    """Do `one` to each thing, again and again to those that fail for now, as long as there is time."""
    waiting = things
    while waiting:
        again: list[tuple[T, str]] = []
        for number, thing in enumerate(waiting):
            if desk.turns.remaining() < LAST_ROUND:
                again += [(rest, "there was no time left") for rest in waiting[number:]]
                break
            try:
                one(thing)
            except (Transient, ClientError) as error:
                logger.warning("not yet", extra={"thing": _name(thing), "reason": str(error)})
                again.append((thing, str(error)))
        waiting = [thing for thing, _ in again]
        if waiting and desk.turns.remaining() < LAST_ROUND + BETWEEN_ROUNDS * 1000:
            left.undone += [f"{_name(thing)}: {reason}." for thing, reason in again]
            return
        if waiting:
            desk.turns.sleep(BETWEEN_ROUNDS)


def _name(thing: object) -> str:
    return thing.name if isinstance(thing, Record) else str(thing)


def _restore_script(name: str, desk: Desk, left: Left) -> None:
    """The owner's bytes back into the configuration; the configuration away, when it is ours and nobody uses it."""
    seen = observe_configuration(name, Known(desk.table, desk.clock()), desk.terms, desk.settings.stack)
    planned = plan_last_script(seen, desk.terms)
    if isinstance(planned, Problem):
        left.told.append(f"{name}: {planned.message}")
        return
    touched = touched_by(planned)
    if touched:
        with desk.turns.alone(*touched):
            turn = desk.turns.take(ahead=PREPARING + LOOKING)
            desk.turns.wait_until(turn - PREPARING - LOOKING)
            seen = observe_configuration(seen.name, Known(desk.table, desk.clock()), desk.terms, desk.settings.stack)
            planned = plan_last_script(seen, desk.terms)
            written = () if isinstance(planned, Problem) else _apply(planned, desk, turn)
            left.told += [
                f"{name} had no on-start script; it has one now that does nothing." for each in written if each
            ]
    desk.table.forget(CONFIGURATION, seen.name)


def _apply(actions: tuple[Action, ...], desk: Desk, turn: int | None = None) -> tuple[bool, ...]:
    """Do the actions. True in the answer: SageMaker did not take an absent script."""
    written = apply(actions, Hands(desk.table, desk.turns, desk.settings.stack, desk.clock(), turn))
    absent = any(isinstance(action, WriteScript) and action.on_start is None for action in actions)
    return (absent and written is not None and written.on_start is not None,)


def _let_go(record: Record, desk: Desk, left: Left) -> None:
    """The notebook without anything of ours, as far as its state allows; and its record away."""
    try:
        notebook = notebooks.describe_notebook(record.name)
        tags = notebooks.read_tags(notebook.arn)
        configuration = notebooks.describe_configuration(notebook.configuration) if notebook.configuration else None
    except Absent:
        desk.table.forget(NOTEBOOK, record.name.lower())
        return
    planned = plan_last_attachment(Seen(record.name, notebook, configuration=configuration, record=record), desk.terms)
    if isinstance(planned, Problem):
        left.told.append(planned.message)
    elif planned:
        with desk.turns.alone(*touched_by(planned)):
            _apply(planned, desk)
    ours = shows(tags, desk.settings.tag_key)
    if ours:
        notebooks.take_tags_away(notebook.arn, *ours)
    desk.table.forget(NOTEBOOK, record.name.lower())


def _close_ways(desk: Desk, left: Left) -> None:
    """No rule of ours stays. Rules of others, equal ones too, do."""
    stack = desk.settings.stack
    around = security_groups.observe(stack, Look())
    outcome = security_groups.apply(plan(Desired(), around.rules, stack, complete=True), stack)
    left.undone += [problem.message for problem in outcome.stuck.values()]
