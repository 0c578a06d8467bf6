"""Find the notebooks and lifecycle configurations whose lists and records disagree, without a read of any single one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import Mode, NotebookSpec, parse_spec, spec_tag_keys
from notebook_ssh.planning.facts import is_inactive
from notebook_ssh.planning.observation import LifecycleConfigRecord, LifecycleConfigSummary, NotebookSummary
from notebook_ssh.planning.status_tags import current_status_tags, desired_status_tags, status_change
from notebook_ssh.triggers.requests import ReconcileLifecycleConfig, ReconcileNotebook

LONGEST_DELAY = 900
"""Seconds for which a message can be delayed (SQS, `DelaySeconds`)."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The whole fleet, from complete lists.

    tags: of every notebook that has our tag or had it once, by ARN in lower case (GetResources).
    records, kept: what the table knows.
    """

    notebooks: tuple[NotebookSummary, ...] = ()
    lifecycle_configs: tuple[LifecycleConfigSummary, ...] = ()
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    config_records: tuple[LifecycleConfigRecord, ...] = ()


def fingerprint(line: NotebookSummary, tags: Mapping[str, str], tag_key: str, *, dry_run: bool) -> str:
    """One short text for everything about a notebook that the reconciler acts on and a list can tell."""
    asked = {key: tags[key] for key in spec_tag_keys(tag_key) if key in tags}
    facts = [line.name, line.state, line.state_since, line.lifecycle_config, asked, dry_run]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def find_drift(
    fleet: Fleet, tag_key: str, block_ref: str, now: int, *, dry_run: bool, status_tags: bool, sync_seconds: int
) -> tuple[ReconcileNotebook | ReconcileLifecycleConfig, ...]:
    """Everyone about whom the lists and the table disagree, or whose time has come. Empty in the steady state.

    mark: which block is to be in the scripts (`BlockPolicy.mark`). status_tags: the notebooks' tags show their status.
    sync_seconds: time between two reports of an agent.
    """
    records = {record.name.lower(): record for record in fleet.records}
    there = {line.name.lower() for line in fleet.notebooks}
    requests: list[ReconcileNotebook | ReconcileLifecycleConfig] = []
    attached = {line.lifecycle_config for line in fleet.notebooks}
    records_by_config = {config_record.name: config_record for config_record in fleet.config_records}
    used: set[str] = set()
    for line in fleet.notebooks:
        tags = fleet.tags.get(line.arn.lower(), {})
        spec = parse_spec(tags, tag_key)
        block_needed = spec.needs_block(now)
        if block_needed and line.lifecycle_config:
            used.add(line.lifecycle_config)
        record = records.get(line.name.lower())
        if record is None:
            reason = "tagged, and not known yet" if spec != NotebookSpec() else None
        elif is_inactive(record) and not block_needed:
            # A look that was overtaken may have written our tags once more.
            reason = "status" if sync_seconds and current_status_tags(tags, tag_key) else None
        else:
            reason = _changed(record, fingerprint(line, tags, tag_key, dry_run=dry_run), now)
            if not dry_run:
                reason = reason or _script_drift(record, records_by_config.get(line.lifecycle_config or ""), now)
                if status_tags and desired_status_tags(record, now, sync_seconds, tag_key) != current_status_tags(
                    tags, tag_key
                ):
                    reason = reason or "status"
                if status_change(record, now, sync_seconds, tag_key):
                    reason = reason or "status"
        if reason:
            requests.append(ReconcileNotebook(line.name, reason))
        elif record and record.spec.until and now < record.spec.until <= now + LONGEST_DELAY:
            requests.append(ReconcileNotebook(line.name, "its time ends", at=record.spec.until))
    requests += [ReconcileNotebook(record.name, "gone") for record in fleet.records if record.name.lower() not in there]
    modified = {line.name: line.modified for line in fleet.lifecycle_configs}
    for config_record in fleet.config_records:
        reason = _config_drift(
            config_record,
            modified.get(config_record.name),
            block_ref,
            used=config_record.name in used,
            attached=config_record.name in attached,
        )
        if reason:
            requests.append(ReconcileLifecycleConfig(config_record.name, reason))
    return tuple(requests)


def _changed(record: Record, observed_hash: str, now: int) -> str | None:
    if record.observed_hash != observed_hash:
        return "changed since it was looked at" if record.observed_hash else "the last look did not end"
    if record.spec.mode is not Mode.OFF and record.spec.until and record.observed_at < record.spec.until <= now:
        return "its time is over"
    return None


def _script_drift(record: Record, config_record: LifecycleConfigRecord | None, now: int) -> str | None:
    """A look at one user of a configuration can change what is so for all of its users."""
    if config_record is None or record.spec.effective_mode(now) is Mode.OFF:
        return None
    if (record.block_since, record.problem) == (config_record.block_since, config_record.problem):
        return None
    return "its configuration changed"


def _config_drift(
    config_record: LifecycleConfigRecord, modified: int | None, block_ref: str, *, used: bool, attached: bool
) -> str | None:
    if modified is None:
        return "gone"
    # UNCONFIRMED whether the list tells it as finely as the description does.
    if modified // 1000 != config_record.modified // 1000:
        return "changed since it was looked at"
    if config_record.tried != block_ref:
        return "the stack has another block now"
    if config_record.block and not used:
        return "nobody who uses it asks for SSH"
    if not attached:
        return "nobody uses it"
    return None
