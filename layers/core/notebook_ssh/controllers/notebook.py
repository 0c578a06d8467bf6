"""Brings one notebook, its lifecycle configuration and its record in line with its tags: observe → plan → apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.table import NOTEBOOK, Table
from notebook_ssh.controllers.apply import apply
from notebook_ssh.controllers.config_records import record_after, record_before
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.controllers.exclusive import carry_out
from notebook_ssh.controllers.follow_ups import send_follow_ups
from notebook_ssh.controllers.observe import observe_notebook
from notebook_ssh.controllers.status_updates import publish_change, tags_to_write, write_status_tags
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.record import Record
from notebook_ssh.planning.actions import WriteScript, locks_of, reasons
from notebook_ssh.planning.drift import fingerprint
from notebook_ssh.planning.facts import INACTIVE_RECORD_TTL_S, has_changed, is_inactive
from notebook_ssh.planning.notebook import NotebookPlan, plan_notebook
from notebook_ssh.planning.observation import NotebookObservation, NotebookSummary
from notebook_ssh.settings import Settings

logger = Logger(child=True)


class RecordConflictError(RetryableError):
    """Another reconciliation of the same notebook saved its record first (optimistic concurrency)."""

    def __init__(self, notebook: str) -> None:
        super().__init__(f"another reconciliation of {notebook} was faster")


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A notebook as it was observed, with its tags, and what is to be done about it."""

    cache: RecordCache
    observed: NotebookObservation
    tags: Mapping[str, str]
    plan: NotebookPlan

    @property
    def locks(self) -> frozenset[str]:
        """What must be leased while the plan is applied."""
        return locks_of(self.plan.actions)

    @property
    def verified_on_write(self) -> bool:
        """Whether only scripts are written, each compared with what was observed right before, on a user's request.

        What is removed, attached, stopped or started depends on more than that, and nothing keeps it from changing.
        """
        writes = (action for action in self.plan.actions if action.rate_limited)
        return self.observed.users is None and all(isinstance(action, WriteScript) for action in writes)

    def prefetch(self, cache: RecordCache) -> None:
        """Read the records of the notebook and of its configuration in one request."""
        config = self.observed.lifecycle_config
        cache.prefetch([self.observed.name], [config.name] if config else [])


def reconcile_notebook(name: str, deps: Dependencies, cache: RecordCache) -> str | None:
    """Observe, plan and apply; returns the name of the configuration that the notebook uses, None without one."""

    def plan(cache: RecordCache) -> Reconciliation:
        observed, tags = observe_notebook(name, cache, deps.policy)
        return Reconciliation(cache, observed, tags, plan_notebook(observed, deps.policy, cache.at))

    if deps.settings.dry_run:
        planned = plan(cache)
        _only_record(planned, deps)
    else:
        planned = carry_out(cache, plan, lambda planned, slot: _apply(planned, deps, slot), deps)
    return planned.observed.notebook.lifecycle_config if planned.observed.notebook else None


def _apply(planned: Reconciliation, deps: Dependencies, slot: int | None) -> None:
    """Apply the actions between two saves of the record: the first says what is begun, the second that it is done.

    Raises RecordConflictError when another reconciliation saved the record since this one read it: nothing is begun
    then, and what was done is reconciled again.
    """
    observed, tags, plan, now = planned.observed, planned.tags, planned.plan, planned.cache.at
    before, saved = observed.record, True
    if plan.record and plan.actions:
        begun = replace(plan.record, observed_hash="")
        if not deps.table.save_observed(begun, before):
            raise RecordConflictError(begun.name)
        before = begun
    record_before(observed.config_record, plan.config_record, plan.actions, planned.cache)
    written = apply(plan.actions, deps, now, slot)
    record_after(observed.config_record, plan.config_record, written, planned.cache)
    if plan.record:
        record = replace(plan.record, observed_hash=_fingerprint(observed, tags, deps.settings))
        desired_tags = tags_to_write(record, tags, deps, now)
        record = record if desired_tags is None else replace(record, status_tags_at=now)
        saved = _save(publish_change(record, deps, now), before, deps.table, now)
        # Last: a status tag on a notebook without a record would never be removed.
        if saved and desired_tags is not None:
            write_status_tags(record.arn, desired_tags, tags, deps.settings)
    elif observed.record:
        deps.table.delete(NOTEBOOK, observed.record.name.lower())
    send_follow_ups(observed.record, plan, deps, now)
    if not saved:
        raise RecordConflictError(observed.name)


def _save(record: Record, before: Record | None, table: Table, now: int) -> bool:
    """Save the record if it has changed. False when another reconciliation saved it first."""
    if not has_changed(before, record):
        return True
    return table.save_observed(record, before, expires=now + INACTIVE_RECORD_TTL_S if is_inactive(record) else None)


def _only_record(planned: Reconciliation, deps: Dependencies) -> None:
    """Write the facts and the plan into the table and the log, and do nothing else: a dry run."""
    observed, plan = planned.observed, planned.plan
    sentences = reasons(plan.actions)
    logger.info("dry run", extra={"plan": sentences})
    if plan.facts:
        record = replace(
            plan.facts, planned=sentences, observed_hash=_fingerprint(observed, planned.tags, deps.settings)
        )
        if not _save(record, observed.record, deps.table, planned.cache.at):
            raise RecordConflictError(record.name)
    elif observed.record:
        deps.table.delete(NOTEBOOK, observed.record.name.lower())


def _fingerprint(observed: NotebookObservation, tags: Mapping[str, str], settings: Settings) -> str:
    notebook = observed.notebook
    if notebook is None:
        return ""
    line = NotebookSummary(notebook.name, notebook.arn, notebook.state, notebook.state_since, notebook.lifecycle_config)
    return fingerprint(line, tags, settings.tag_key, dry_run=settings.dry_run)
