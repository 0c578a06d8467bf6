"""Find what the lists of the fleet and the table disagree about, without a read of any single resource."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from notebook_ssh.errors import NOT_ALLOWED
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import NotebookSpec, parse_spec
from notebook_ssh.model.status import status_of
from notebook_ssh.planning.facts import hash_of_lists, is_inactive
from notebook_ssh.planning.mails import is_mail_due
from notebook_ssh.planning.observation import LifecycleConfigRecord, LifecycleConfigSummary, NotebookSummary
from notebook_ssh.planning.status_tags import current_status_tags, desired_status_tags, status_change
from notebook_ssh.triggers.requests import (
    LONGEST_DELAY,
    ReconcileLifecycleConfig,
    ReconcileNotebook,
    ReconcileRequest,
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The whole fleet, from complete lists."""

    notebooks: tuple[NotebookSummary, ...] = ()
    lifecycle_configs: tuple[LifecycleConfigSummary, ...] = ()
    # Tags of every notebook that has the stack's tag or once had it, by ARN in lower case (GetResources).
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    config_records: tuple[LifecycleConfigRecord, ...] = ()
    # Names of the notebooks, and of the configurations, whose records exist and cannot be read.
    unreadable: frozenset[str] = frozenset()
    unreadable_configs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One comparison, with the options of `find_drift`."""

    fleet: Fleet
    tag_key: str
    now: int
    dry_run: bool
    status_tags: bool
    sync_seconds: int

    def tags(self, notebook: NotebookSummary) -> Mapping[str, str]:
        return self.fleet.tags.get(notebook.arn.lower(), {})


def find_drift(
    fleet: Fleet, tag_key: str, block_ref: str, now: int, *, dry_run: bool, status_tags: bool, sync_seconds: int
) -> tuple[ReconcileRequest, ...]:
    """Return a request for each resource whose list entry and record disagree, or that is due; none in a steady state.

    block_ref: the block that scripts are to have (`BlockPolicy.block_ref`). status_tags: whether notebooks show their
    status in tags. sync_seconds: seconds between two reports of an agent.
    """
    sweep = _Sweep(fleet, tag_key, now, dry_run, status_tags, sync_seconds)
    specs = {each.name: parse_spec(sweep.tags(each), tag_key) for each in fleet.notebooks}
    used = {each.lifecycle_config for each in fleet.notebooks if specs[each.name].needs_block(now)}
    return (*_notebooks(sweep, specs), *_deleted_notebooks(fleet), *_lifecycle_configs(fleet, block_ref, used))


def _notebooks(sweep: _Sweep, specs: Mapping[str, NotebookSpec]) -> Iterator[ReconcileRequest]:
    records = {record.name.lower(): record for record in sweep.fleet.records}
    config_records = {record.name: record for record in sweep.fleet.config_records}
    for notebook in sweep.fleet.notebooks:
        if notebook.name in sweep.fleet.unreadable:
            continue  # a reconciliation would fail as well; the next sweep sees whether the record can be read
        record = records.get(notebook.name.lower())
        config_record = config_records.get(notebook.lifecycle_config or "")
        if reason := _notebook_drift(sweep, notebook, specs[notebook.name], record, config_record):
            yield ReconcileNotebook(notebook.name, reason)
        elif record and record.spec.until and sweep.now < record.spec.until <= sweep.now + LONGEST_DELAY:
            yield ReconcileNotebook(notebook.name, "its time ends", at=record.spec.until)


def _deleted_notebooks(fleet: Fleet) -> Iterator[ReconcileRequest]:
    listed = {notebook.name.lower() for notebook in fleet.notebooks}
    for record in fleet.records:
        if record.name.lower() not in listed:
            yield ReconcileNotebook(record.name, "gone")


def _lifecycle_configs(fleet: Fleet, block_ref: str, used: set[str | None]) -> Iterator[ReconcileRequest]:
    attached = {notebook.lifecycle_config for notebook in fleet.notebooks}
    modified = {summary.name: summary.modified for summary in fleet.lifecycle_configs}
    for record in fleet.config_records:
        name = record.name
        if reason := _config_drift(record, modified.get(name), block_ref, used=name in used, attached=name in attached):
            yield ReconcileLifecycleConfig(name, reason)


def _notebook_drift(
    sweep: _Sweep,
    notebook: NotebookSummary,
    spec: NotebookSpec,
    record: Record | None,
    config_record: LifecycleConfigRecord | None,
) -> str | None:
    tags = sweep.tags(notebook)
    if record is None:
        return "tagged, and not known yet" if spec != NotebookSpec() else None
    if is_inactive(record) and not spec.needs_block(sweep.now):
        return None
    observed_hash = hash_of_lists(notebook, tags, sweep.tag_key, dry_run=sweep.dry_run)
    if reason := _record_drift(record, observed_hash, sweep.now):
        return reason
    if sweep.dry_run:
        return None
    if record.problem and record.problem.code == NOT_ALLOWED:
        return "AWS denied an action"  # no event reports that it is allowed
    return _script_drift(record, config_record, sweep.now) or _status_drift(sweep, record, tags)


def _record_drift(record: Record, observed_hash: str, now: int) -> str | None:
    if record.observed_hash != observed_hash:
        return "changed since it was reconciled" if record.observed_hash else "the last reconciliation did not finish"
    if record.spec.modes and record.spec.until and record.observed_at < record.spec.until <= now:
        return "its time is over"
    return None


def _script_drift(record: Record, config_record: LifecycleConfigRecord | None, now: int) -> str | None:
    """Compare with the configuration's record, since a reconciliation of one of its users changes it for all."""
    if config_record is None or not record.spec.effective_modes(now):
        return None
    if (record.block_since, record.problem) == (config_record.block_since, config_record.problem):
        return None
    return "its configuration changed"


def _status_drift(sweep: _Sweep, record: Record, tags: Mapping[str, str]) -> str | None:
    desired: Mapping[str, str] = {}
    if sweep.status_tags:
        desired = desired_status_tags(record, sweep.now, sweep.sync_seconds, sweep.tag_key)
        if desired != current_status_tags(tags, sweep.tag_key):
            return "status"
    if record.status_tags_left and not desired:
        return "status"  # of an untagged notebook the list has no tags: the record knows that some are left
    if status_change(record, sweep.now, sweep.sync_seconds, sweep.tag_key):
        return "status"
    if record.mails is None:
        return None
    status = status_of(record, sweep.now, sweep.sync_seconds, sweep.tag_key)
    return "a mail was held" if is_mail_due(record, status, sweep.now) else None


def _config_drift(
    config_record: LifecycleConfigRecord, modified: int | None, block_ref: str, *, used: bool, attached: bool
) -> str | None:
    if modified is None:
        return "gone"
    # UNCONFIRMED(time-precision) whether the list has times as precise as the description.
    if modified // 1000 != config_record.modified // 1000:
        return "changed since it was reconciled"
    if config_record.problem and config_record.problem.code == NOT_ALLOWED:
        return "AWS denied an action"
    if config_record.tried != block_ref:
        return "the stack has another block now"
    if config_record.block and not used:
        return "no notebook that uses it requests SSH"
    if not attached:
        return "no notebook uses it"
    return None
