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
from notebook_ssh.controllers.follow_ups import repeat_late_request, send, send_follow_ups
from notebook_ssh.controllers.observe import observe_notebook
from notebook_ssh.controllers.status_updates import (
    note_status_tags,
    publish_change,
    tags_to_write,
    write_status_tags,
)
from notebook_ssh.errors import NotAllowedError, Problem, RetryableError, TerminalError
from notebook_ssh.model.record import Record
from notebook_ssh.planning.actions import WriteScript, locks_of, reasons
from notebook_ssh.planning.facts import INACTIVE_RECORD_TTL_S, has_changed, hash_of_lists, is_inactive
from notebook_ssh.planning.notebook import NotebookPlan, plan_notebook
from notebook_ssh.planning.observation import NotebookObservation, NotebookSummary
from notebook_ssh.settings import Settings
from notebook_ssh.triggers.requests import ReconcileNotebook

logger = Logger(child=True)


LONGEST_RECONCILIATION_S = 130
"""Seconds after which an invocation of this function has ended, with some slack (template.yaml, `Timeout`)."""


class RecordConflictError(RetryableError):
    """Another reconciliation of the same notebook saved its record first (optimistic concurrency)."""

    def __init__(self, notebook: str) -> None:
        super().__init__(f"another reconciliation of {notebook} was faster")


class _UnobservableError(TerminalError):
    """AWS denied a read of the notebook."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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


def reconcile_notebook(name: str, deps: Dependencies, cache: RecordCache, *, tags_changed: bool = False) -> str | None:
    """Observe, plan and apply; returns the name of the configuration that the notebook uses, None without one.

    tags_changed: an event reported that. If a tag is gone by now and there is no record, a slower reconciliation that
    saw the tag may still be about to save the first one: this one has nothing to save that could be newer. So the
    notebook is reconciled again when no such reconciliation can be left.
    """

    def plan(cache: RecordCache) -> Reconciliation:
        try:
            observed, tags = observe_notebook(name, cache, deps.policy)
        except NotAllowedError as denied:
            raise _UnobservableError(denied.problem) from denied
        planned = Reconciliation(cache, observed, tags, plan_notebook(observed, deps.policy, cache.at))
        return planned if deps.settings.observes_only else _save_end(planned, deps)

    try:
        if deps.settings.observes_only:
            planned = plan(cache)
            _only_record(planned, deps)
        else:
            planned = carry_out(cache, plan, lambda planned, slot: _apply(planned, deps, slot), deps)
    except _UnobservableError as denied:
        return _save_problem(name, denied.problem, deps)
    observed = planned.observed
    if tags_changed and observed.notebook and observed.record is None and planned.plan.record is None:
        again = ReconcileNotebook(name, "its tag was removed", at=cache.at + LONGEST_RECONCILIATION_S)
        send((again,), deps, cache.at)
    return observed.notebook.lifecycle_config if observed.notebook else None


def _save_problem(name: str, problem: Problem, deps: Dependencies) -> str | None:
    """Add a problem to the notebook's record and leave the rest as it is; raise it when there is no record."""
    record = deps.table.record(name, consistent=True)
    if record is None:
        raise TerminalError(problem)
    after = publish_change(replace(record, problem=problem), deps, deps.clock())
    if not _save(after, record, deps.table, deps.clock()):
        raise RecordConflictError(name)
    return record.lifecycle_config


def _save_end(planned: Reconciliation, deps: Dependencies) -> Reconciliation:
    """Save the end of access, or of a mode, before waiting for a lease and a write slot, which may take minutes."""
    before, facts, now = planned.observed.record, planned.plan.facts, planned.cache.at
    if not planned.locks or before is None or facts is None:
        return planned
    ended = {*before.spec.effective_modes(before.observed_at)} - {*facts.spec.effective_modes(now)}
    if not ended:
        return planned
    _save_begun(facts, before, planned, deps)
    return replace(planned, observed=planned.observed._replace(record=facts))


def _save_begun(begun: Record, before: Record | None, planned: Reconciliation, deps: Dependencies) -> None:
    """Save that a change was begun, once everything that this makes invisible is sent. Raises RecordConflictError."""
    requested_at = send_follow_ups(planned.observed.record, planned.plan, deps, planned.cache.at)
    if not deps.table.save_observed(begun, before):
        raise RecordConflictError(begun.name)
    repeat_late_request(requested_at, begun, deps)


def _apply(planned: Reconciliation, deps: Dependencies, slot: int | None) -> None:
    """Apply the actions between two saves of the record: the first says what is begun, the second that it is done.

    Raises RecordConflictError when another reconciliation saved the record since this one read it: nothing is begun
    then, and what was done is reconciled again.
    """
    observed, plan, now = planned.observed, planned.plan, planned.cache.at
    before, requested_at = observed.record, None
    if observed.predecessor:
        requested_at = send_follow_ups(observed.predecessor, plan, deps, now)
        deps.table.delete_record(observed.predecessor)
        repeat_late_request(requested_at, observed.predecessor, deps)
    if plan.begun and plan.actions:
        before = replace(plan.begun, status_tags_left=plan.begun.status_tags_left or deps.settings.status_tags)
        _save_begun(before, observed.record, planned, deps)
    else:
        requested_at = send_follow_ups(before, plan, deps, now)
    record_before(observed.config_record, plan.config_record, plan.actions, planned.cache)
    try:
        written = apply(plan.actions, deps, now, slot)
    except NotAllowedError as denied:
        if before is None:
            raise
        _finish(replace(before, problem=denied.problem), before, None, planned, deps)
        return
    record_after(observed.config_record, plan.config_record, written, planned.cache)
    if plan.record:
        _finish(plan.record, before, requested_at, planned, deps)
    elif before:
        deps.table.delete(NOTEBOOK, before.name.lower())
        repeat_late_request(requested_at, before, deps)


def _finish(
    record: Record, before: Record | None, requested_at: int | None, planned: Reconciliation, deps: Dependencies
) -> None:
    """Publish the change of status, save the record, and bring the status tags in line, which nothing depends on.

    before: the record in the table. If this reconciliation saved that itself, what matters is in it, and that status tags
    may be left: then they are written before the last save, which fails if another reconciliation saved concurrently.
    Otherwise they are written afterwards, and the record is read once more to find out.
    """
    tags, now = planned.tags, planned.cache.at
    record = replace(record, observed_hash=_fingerprint(planned.observed, tags, deps.settings))
    desired_tags = tags_to_write(record, tags, deps, now)
    record = publish_change(note_status_tags(record, desired_tags, tags, deps.settings.tag_key, now), deps, now)
    if desired_tags and before is not None and before is not planned.observed.record:
        write_status_tags(record, desired_tags, tags, deps, now)
        desired_tags = None
    if not _save(record, before, deps.table, now):
        raise RecordConflictError(record.name)
    repeat_late_request(requested_at, record, deps)
    # Last: a status tag on a notebook without a record would never be removed.
    if desired_tags is None or not write_status_tags(record, desired_tags, tags, deps, now):
        return
    if desired_tags:
        current = deps.table.record(record.name, consistent=True) or Record(record.name)
        is_ours = (current.observed_at, current.observed_hash) == (record.observed_at, record.observed_hash)
    else:
        is_ours = _save(replace(record, status_tags_left=False), record, deps.table, now)
    if not is_ours:
        # Another reconciliation may have removed the tags just before they were written.
        raise RecordConflictError(record.name)


def _save(record: Record, before: Record | None, table: Table, now: int) -> bool:
    """Save the record if it has changed. False when another reconciliation saved it first."""
    if not has_changed(before, record):
        return True
    return table.save_observed(record, before, expires=now + INACTIVE_RECORD_TTL_S if is_inactive(record) else None)


def _only_record(planned: Reconciliation, deps: Dependencies) -> None:
    """Write the facts and the plan into the table and the log, and do nothing else: a dry run."""
    observed, plan = planned.observed, planned.plan
    if observed.predecessor:
        deps.table.delete_record(observed.predecessor)
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
    return hash_of_lists(line, tags, settings.tag_key, dry_run=settings.observes_only)
