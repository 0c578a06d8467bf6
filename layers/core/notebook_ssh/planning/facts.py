"""The record of a notebook as an observation makes it, before any action, and what differs from the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import NotebookSpec, spec_tag_keys
from notebook_ssh.planning.observation import Notebook, NotebookObservation, NotebookSummary

if TYPE_CHECKING:  # the sweep uses this module, and plans nothing: it would load all actions
    from notebook_ssh.planning.script import ScriptPlan

MAX_START_S = 900
"""Seconds that a start takes at most: a run in service later than this after an event began after that event."""

INACTIVE_RECORD_TTL_S = 86_400
"""Seconds for which the record of an untagged notebook is kept, so that lookups answer `off` and not `unknown`."""


def observed_record(notebook: Notebook, observed: NotebookObservation, script: ScriptPlan, now: int) -> Record:
    """Return the record without the effects of any action."""
    before = observed.record or Record(name=notebook.name)
    recorded_since = (
        observed.config_record.block_since if observed.config_record and observed.lifecycle_config else None
    )
    is_written = any(action.rate_limited for action in script.actions)
    attached_config = before.attached_config if before.attached_config == notebook.lifecycle_config else None
    same_modes = before.spec.modes == observed.spec.modes and before.spec_changed_at is not None
    return replace(
        before,
        name=notebook.name,
        arn=notebook.arn,
        created_at=notebook.created_at,
        role=notebook.role,
        spec=observed.spec,
        state=notebook.state,
        state_since=notebook.state_since,
        lifecycle_config=notebook.lifecycle_config,
        block_since=recorded_since if is_written else script.block_since,
        network=notebook.network,
        unsupported_platform=notebook.unsupported_platform,
        failure=notebook.failure if notebook.state is NotebookState.FAILED else "",
        problem=script.problem,
        observed_at=now,
        spec_changed_at=before.spec_changed_at if same_modes else now,
        first_connected=before.first_connected and same_modes,
        started_at=_started_at(notebook, observed.record),
        attached_config=attached_config,
        planned=(),
        observed_hash="",
    )


def is_of(record: Record, notebook: Notebook) -> bool:
    """Return whether the record is of this notebook, and not of a deleted one of the same name."""
    return 0 in (record.created_at, notebook.created_at) or record.created_at == notebook.created_at


def hash_of_lists(notebook: NotebookSummary, tags: Mapping[str, str], tag_key: str, *, dry_run: bool) -> str:
    """Return a hash of everything about a notebook that the reconciler depends on and the lists contain."""
    requested = {key: tags[key] for key in spec_tag_keys(tag_key) if key in tags}
    facts = [notebook.name, notebook.state, notebook.state_since, notebook.lifecycle_config, requested, dry_run]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def is_inactive(record: Record) -> bool:
    """Return whether the notebook requests nothing and has nothing of the stack: its record may expire."""
    return (
        record.spec == NotebookSpec()
        and record.attached_config is None
        and record.restart is None
        and record.problem is None
        and not record.status_tags_left
    )


def has_changed(before: Record | None, after: Record) -> bool:
    """Return whether anything but the time of observation differs; the end of access counts, though no tag changed."""
    if before is None or replace(after, observed_at=before.observed_at) != before:
        return True
    until = after.spec.until
    return until is not None and before.observed_at < until <= after.observed_at


def _started_at(notebook: Notebook, record: Record | None) -> int | None:
    """Return when the current run began: exactly if it was observed Pending, else when it came into service."""
    if notebook.state is NotebookState.PENDING:
        return notebook.state_since
    if notebook.state.may_run:
        return record.started_at if record else None
    if notebook.state is not NotebookState.IN_SERVICE:
        return None
    if record is None or record.started_at is None:
        return notebook.state_since
    same_run = (
        record.state_since == notebook.state_since
        or record.state.may_run
        or (record.state is NotebookState.PENDING and notebook.state_since - record.started_at <= MAX_START_S)
    )
    return record.started_at if same_run else notebook.state_since
