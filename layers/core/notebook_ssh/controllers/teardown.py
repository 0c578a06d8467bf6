"""Undoes everything before the stack is deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters import backups, ec2, sagemaker, sqs
from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.table import CONFIGURATION, NOTEBOOK
from notebook_ssh.controllers.apply import apply
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.controllers.exclusive import carry_out
from notebook_ssh.controllers.observe import observe_lifecycle_config
from notebook_ssh.controllers.patience import while_role_is_new
from notebook_ssh.errors import NotAllowedError, NotFoundError, Problem, RetryableError
from notebook_ssh.model.network import Ec2Query
from notebook_ssh.model.record import Record
from notebook_ssh.planning.actions import Action, WriteScript, locks_of
from notebook_ssh.planning.observation import NotebookObservation
from notebook_ssh.planning.rules import is_revocable, plan_rules
from notebook_ssh.planning.status_tags import current_status_tags
from notebook_ssh.planning.teardown import plan_attachment_teardown, plan_script_teardown

logger = Logger(child=True)

T = TypeVar("T")

BETWEEN_ROUNDS = 5
"""Seconds before what failed is retried."""

LAST_ROUND = 20_000
"""Milliseconds that must be left for another round; with less, what is left is reported as failed."""


@dataclass(slots=True)
class TeardownResult:
    """What was not undone."""

    failed: list[str] = field(default_factory=list)  # it will be when the stack is deleted again
    warnings: list[str] = field(default_factory=list)  # the admin or the script owner may want to know of it

    @property
    def done(self) -> bool:
        """Whether nothing is left for another deletion."""
        return not self.failed

    @property
    def message(self) -> str:
        """All of it as one text, for CloudFormation's console and the log."""
        again = ["Delete the stack again to go on."] if self.failed else []
        return " ".join([*self.failed, *self.warnings, *again]) or "Everything is as it was."


def run(request: str, deps: Dependencies) -> TeardownResult:
    """Serve CloudFormation's request: `Delete` undoes everything, `Update` lets the stack's functions write again.

    `Create` does nothing: there is nothing to undo, and a refusal of the new role would roll the deployment back.
    """
    if request == "Create":
        return TeardownResult()
    if request != "Delete":
        while_role_is_new(deps.slots.cancel_teardown, deps.slots)
        if deps.settings.entrance_vpcs:  # Paused may have changed
            sqs.request_rule_sync(deps.settings.rule_queue, "the stack was updated", deps.correlation_id)
        return TeardownResult()
    while_role_is_new(deps.slots.begin_teardown, deps.slots)
    deps.slots.wait_for_others()
    return tear_down(deps)


def tear_down(deps: Dependencies) -> TeardownResult:
    """Undo everything: scripts first, since they matter most; then attachments, tags, records; then the default config, rules."""
    result = TeardownResult()

    def unreadable(error: Exception) -> None:
        result.failed.append(f"{error}.")

    records = list(deps.table.records(consistent=True, on_unreadable=unreadable))
    names = {record.name for record in backups.config_records(deps.table, unreadable)} | {deps.policy.default_config}
    names |= {record.lifecycle_config for record in records if record.lifecycle_config}
    _until_done(sorted(names), lambda name: _restore_script(name, deps, result), deps, result)
    _until_done(records, lambda record: _release_notebook(record, deps, result), deps, result)
    _until_done([deps.policy.default_config], lambda name: _restore_script(name, deps, result), deps, result)
    if result.done:
        _until_done(["the security-group rules"], lambda what: _revoke_rules(deps, result), deps, result)
    return result


def _until_done(things: list[T], one: Callable[[T], None], deps: Dependencies, result: TeardownResult) -> None:
    """Call `one` with each thing, and again with those that failed, as long as there is time; what is denied, once."""
    waiting = things
    while waiting:
        again: list[tuple[T, str]] = []
        for number, thing in enumerate(waiting):
            if deps.slots.remaining() < LAST_ROUND:
                again += [(rest, "there was no time left") for rest in waiting[number:]]
                break
            try:
                one(thing)
            except NotAllowedError as denied:
                result.failed.append(f"{_name(thing)}: {denied.problem.message}")
            except (RetryableError, NotFoundError, ClientError, BotoCoreError) as error:
                # NotFoundError: it was deleted concurrently, and another reading finds nothing to undo.
                logger.warning("failed, will be retried", extra={"thing": _name(thing), "reason": str(error)})
                again.append((thing, str(error)))
        waiting = [thing for thing, _ in again]
        if waiting and deps.slots.remaining() < LAST_ROUND + BETWEEN_ROUNDS * 1000:
            result.failed += [f"{_name(thing)}: {reason}." for thing, reason in again]
            return
        if waiting:
            deps.slots.sleep(BETWEEN_ROUNDS)


def _name(thing: object) -> str:
    return thing.name if isinstance(thing, Record) else str(thing)


@dataclass(frozen=True, slots=True)
class _Teardown:
    """What undoes this stack's changes of one resource, or why the admin must do it."""

    cache: RecordCache
    name: str
    plan: tuple[Action, ...] | Problem
    status_tags: Mapping[str, str] = field(default_factory=dict)
    arn: str = ""

    @property
    def locks(self) -> frozenset[str]:
        """What must be leased while the plan is applied."""
        return frozenset() if isinstance(self.plan, Problem) else locks_of(self.plan)

    @property
    def verified_on_write(self) -> bool:
        """Always False: users may still write to it."""
        return False

    def prefetch(self, cache: RecordCache) -> None:
        """Nothing: at most one record is read."""


def _restore_script(name: str, deps: Dependencies, result: TeardownResult) -> None:
    """Restore the owner's script byte for byte; delete the configuration if this stack made it and no notebook uses it."""

    def plan(cache: RecordCache) -> _Teardown:
        observed = observe_lifecycle_config(name, cache, deps.policy, deps.settings.stack)
        return _Teardown(cache, observed.name, plan_script_teardown(observed, deps.policy))

    def apply_plan(planned: _Teardown, slot: int | None) -> None:
        if isinstance(planned.plan, Problem):
            result.warnings.append(f"{name}: {planned.plan.message}")
            return
        written = apply(planned.plan, deps, deps.clock(), slot)
        wants_none = any(isinstance(action, WriteScript) and action.on_start is None for action in planned.plan)
        if wants_none and written is not None and written.on_start is not None:
            # SageMaker did not clear the hook.
            result.warnings.append(f"{planned.name} had no on-start script; it has one now that does nothing.")
        deps.table.delete(CONFIGURATION, planned.name)

    carry_out(RecordCache(deps.table, deps.clock()), plan, apply_plan, deps)


def _release_notebook(record: Record, deps: Dependencies, result: TeardownResult) -> None:
    """Detach what this stack attached, as far as the notebook's state allows; remove its status tags and its record."""

    def plan(cache: RecordCache) -> _Teardown:
        try:
            notebook = sagemaker.describe_notebook(record.name)
            tags = sagemaker.read_tags(notebook.arn)
            config = notebook.lifecycle_config and sagemaker.describe_lifecycle_config(notebook.lifecycle_config)
        except NotFoundError:
            return _Teardown(cache, record.name, ())
        observed = NotebookObservation(record.name, notebook, lifecycle_config=config or None, record=record)
        return _Teardown(
            cache,
            record.name,
            plan_attachment_teardown(observed, deps.policy),
            current_status_tags(tags, deps.settings.tag_key),
            notebook.arn,
        )

    def apply_plan(planned: _Teardown, slot: int | None) -> None:
        if isinstance(planned.plan, Problem):
            result.warnings.append(planned.plan.message)
        else:
            apply(planned.plan, deps, deps.clock(), slot)
        if planned.status_tags:
            sagemaker.remove_tags(planned.arn, *planned.status_tags)
        deps.table.delete(NOTEBOOK, record.name.lower())

    carry_out(RecordCache(deps.table, deps.clock()), plan, apply_plan, deps)


def _revoke_rules(deps: Dependencies, result: TeardownResult) -> None:
    """Revoke every rule that carries this stack's tag. Rules of others stay, also equal ones."""
    stack, vpcs = deps.settings.stack, deps.settings.entrance_vpcs
    network = ec2.observe(stack, Ec2Query())
    plan = plan_rules(
        (),
        network.rules,
        stack,
        complete=True,
        revocable=lambda rule: is_revocable(rule, network, vpcs),
    )
    outcome = ec2.apply(plan, stack)
    for found, problem in outcome.not_revoked.items():
        # What the stack may not revoke would fail every deletion.
        (result.warnings if found in plan.left else result.failed).append(problem.message)
