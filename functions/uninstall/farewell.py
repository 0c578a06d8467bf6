"""Giving everything back before the stack goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from notebook_ssh.adapters import backups, ec2, sagemaker
from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.table import CONFIGURATION, NOTEBOOK
from notebook_ssh.errors import NotFoundError, Problem, RetryableError
from notebook_ssh.model.record import Record
from notebook_ssh.planning.bastion import Desired, Ec2Query, plan
from notebook_ssh.planning.notebook import (
    Action,
    NotebookObservation,
    WriteScript,
    current_status_tags,
    plan_attachment_teardown,
    plan_script_teardown,
)
from reconcile_notebook.apply import Hands, apply, touched_by
from reconcile_notebook.observe import observe_lifecycle_config
from reconcile_notebook.reconcile import PREPARE_MS, REOBSERVE_MS, Dependencies

logger = Logger(child=True)

T = TypeVar("T")

BETWEEN_ROUNDS = 5
"""Seconds before what failed for now is tried again."""

LAST_ROUND = 20_000
"""Milliseconds that must be left for another round; less, and what is left is told."""


@dataclass(slots=True)
class TeardownResult:
    """What could not be given back. undone: it can be, by deleting the stack again. told: a person may want to know."""

    failed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return not self.failed

    @property
    def message(self) -> str:
        """One text for CloudFormation's console and the log."""
        again = ["Delete the stack again to go on."] if self.failed else []
        return " ".join([*self.failed, *self.warnings, *again]) or "Everything is as it was."


def tear_down(deps: Dependencies) -> TeardownResult:
    """Scripts first, since they matter most; then attachments, tags and records; then our configuration and our rules."""
    left = TeardownResult()

    def unreadable(error: Exception) -> None:
        left.failed.append(f"{error}.")

    records = list(deps.table.records(consistent=True, on_unreadable=unreadable))
    names = {record.name for record in backups.config_records(deps.table, unreadable)} | {deps.policy.default_config}
    names |= {record.lifecycle_config for record in records if record.lifecycle_config}
    _until_done(sorted(names), lambda name: _restore_script(name, deps, left), deps, left)
    _until_done(records, lambda record: _release_notebook(record, deps, left), deps, left)
    _until_done([deps.policy.default_config], lambda name: _restore_script(name, deps, left), deps, left)
    if left.done:
        _until_done(["the bastion's rules"], lambda what: _revoke_rules(deps, left), deps, left)
    return left


def _until_done(things: list[T], one: Callable[[T], None], deps: Dependencies, left: TeardownResult) -> None:
    """Do `one` to each thing, again and again to those that fail for now, as long as there is time."""
    waiting = things
    while waiting:
        again: list[tuple[T, str]] = []
        for number, thing in enumerate(waiting):
            if deps.slots.remaining() < LAST_ROUND:
                again += [(rest, "there was no time left") for rest in waiting[number:]]
                break
            try:
                one(thing)
            except (RetryableError, ClientError) as error:
                logger.warning("failed, will be retried", extra={"thing": _name(thing), "reason": str(error)})
                again.append((thing, str(error)))
        waiting = [thing for thing, _ in again]
        if waiting and deps.slots.remaining() < LAST_ROUND + BETWEEN_ROUNDS * 1000:
            left.failed += [f"{_name(thing)}: {reason}." for thing, reason in again]
            return
        if waiting:
            deps.slots.sleep(BETWEEN_ROUNDS)


def _name(thing: object) -> str:
    return thing.name if isinstance(thing, Record) else str(thing)


def _restore_script(name: str, deps: Dependencies, left: TeardownResult) -> None:
    """The owner's bytes back into the configuration; the configuration away, when it is ours and nobody uses it."""
    observed = observe_lifecycle_config(name, RecordCache(deps.table, deps.clock()), deps.policy, deps.settings.stack)
    planned = plan_script_teardown(observed, deps.policy)
    if isinstance(planned, Problem):
        left.warnings.append(f"{name}: {planned.message}")
        return
    touched = touched_by(planned)
    if touched:
        with deps.leases.lease(*touched):
            slot = deps.slots.reserve(ahead=PREPARE_MS + REOBSERVE_MS)
            deps.slots.wait_until(slot - PREPARE_MS - REOBSERVE_MS)
            observed = observe_lifecycle_config(
                observed.name, RecordCache(deps.table, deps.clock()), deps.policy, deps.settings.stack
            )
            planned = plan_script_teardown(observed, deps.policy)
            written = () if isinstance(planned, Problem) else _apply(planned, deps, slot)
            left.warnings += [
                f"{name} had no on-start script; it has one now that does nothing." for each in written if each
            ]
    deps.table.delete(CONFIGURATION, observed.name)


def _apply(actions: tuple[Action, ...], deps: Dependencies, slot: int | None = None) -> tuple[bool, ...]:
    """Do the actions. True in the answer: SageMaker did not take an absent script."""
    written = apply(actions, Hands(deps.table, deps.slots, deps.settings.stack, deps.clock(), slot))
    absent = any(isinstance(action, WriteScript) and action.on_start is None for action in actions)
    return (absent and written is not None and written.on_start is not None,)


def _release_notebook(record: Record, deps: Dependencies, left: TeardownResult) -> None:
    """The notebook without anything of ours, as far as its state allows; and its record away."""
    try:
        notebook = sagemaker.describe_notebook(record.name)
        tags = sagemaker.read_tags(notebook.arn)
        lifecycle_config = (
            sagemaker.describe_lifecycle_config(notebook.lifecycle_config) if notebook.lifecycle_config else None
        )
    except NotFoundError:
        deps.table.delete(NOTEBOOK, record.name.lower())
        return
    planned = plan_attachment_teardown(
        NotebookObservation(record.name, notebook, lifecycle_config=lifecycle_config, record=record), deps.policy
    )
    if isinstance(planned, Problem):
        left.warnings.append(planned.message)
    elif planned:
        with deps.leases.lease(*touched_by(planned)):
            _apply(planned, deps)
    ours = current_status_tags(tags, deps.settings.tag_key)
    if ours:
        sagemaker.remove_tags(notebook.arn, *ours)
    deps.table.delete(NOTEBOOK, record.name.lower())


def _revoke_rules(deps: Dependencies, left: TeardownResult) -> None:
    """No rule of ours stays. Rules of others, equal ones too, do."""
    stack = deps.settings.stack
    network = ec2.observe(stack, Ec2Query())
    outcome = ec2.apply(plan(Desired(), network.rules, stack, complete=True), stack)
    left.failed += [problem.message for problem in outcome.not_revoked.values()]
