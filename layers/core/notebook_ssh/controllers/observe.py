"""Reads everything that a plan is based on: at most three requests to SageMaker when there is nothing to do."""

from __future__ import annotations

from collections.abc import Mapping

from notebook_ssh.adapters import sagemaker
from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.errors import NotFoundError
from notebook_ssh.model.record import OWNER_TAG
from notebook_ssh.model.spec import NotebookSpec, parse_spec
from notebook_ssh.planning.facts import is_of
from notebook_ssh.planning.observation import (
    BlockPolicy,
    LifecycleConfig,
    LifecycleConfigObservation,
    LifecycleConfigRecord,
    NotebookObservation,
    Users,
)
from notebook_ssh.planning.script import is_in_place, needs_users

SCRIPT_CACHE_S = 60
"""Seconds for which a script that this process has read counts as unchanged, unless its record has changed."""

SCRIPT_CACHE_SIZE = 100
"""Scripts that are cached at once; each has at most 32 KB."""

_scripts: dict[str, tuple[int, LifecycleConfig]] = {}
"""When each configuration was read (epoch seconds) and what was read, the most recent last."""


def forget() -> None:
    """Clear the cache."""
    _scripts.clear()


def remember(lifecycle_config: LifecycleConfig, at: int) -> None:
    """Cache a configuration that was read at `at` (epoch seconds) or later."""
    _scripts.pop(lifecycle_config.name, None)
    _scripts[lifecycle_config.name] = at, lifecycle_config
    if len(_scripts) > SCRIPT_CACHE_SIZE:
        del _scripts[next(iter(_scripts))]


def observe_notebook(name: str, cache: RecordCache, policy: BlockPolicy) -> tuple[NotebookObservation, dict[str, str]]:
    """Observe a notebook; returns the observation and its tags. A failed read is raised, and never taken for absence.

    A script that this process just read is not read again: a change of it has its own event, and the sweep.
    """
    record, now = cache.record(name), cache.at
    try:
        notebook = sagemaker.describe_notebook(record.name) if record else sagemaker.find_notebook(name, now)
        tags = sagemaker.read_tags(notebook.arn)
    except NotFoundError:
        return NotebookObservation(name=name, notebook=None, record=record), {}
    predecessor = None
    if record and not is_of(record, notebook):
        record, predecessor = None, record
    spec = parse_spec(tags, policy.tag_key)
    attached_config = notebook.lifecycle_config or (policy.default_config if spec.effective_modes(now) else None)
    config_record = cache.config_record(attached_config) if attached_config else None
    observed = NotebookObservation(
        name=notebook.name,
        notebook=notebook,
        spec=spec,
        record=record,
        config_record=config_record,
        predecessor=predecessor,
        deployment=cache.deployment(),
    )
    as_it_was = _remembered(config_record, now) if is_in_place(observed, policy, now) else None
    observed = observed._replace(lifecycle_config=as_it_was or _lifecycle_config(attached_config, now))
    if not needs_users(observed, policy, now):
        return observed, tags
    users = read_users(notebook.lifecycle_config or "", policy, now, specs={notebook.name: spec})
    return observed._replace(users=users), tags


def observe_lifecycle_config(
    name: str, cache: RecordCache, policy: BlockPolicy, stack: str
) -> LifecycleConfigObservation:
    """Observe a lifecycle configuration and the notebooks that use it."""
    try:
        lifecycle_config = sagemaker.find_lifecycle_config(name, cache.at)
    except NotFoundError:
        return LifecycleConfigObservation(name=name, lifecycle_config=None, config_record=cache.config_record(name))
    users = read_users(lifecycle_config.name, policy, cache.at, specs={})
    ours = None
    if not users.names and lifecycle_config.name == policy.default_config:
        ours = sagemaker.read_tags(lifecycle_config.arn).get(OWNER_TAG) == stack
    return LifecycleConfigObservation(
        name=lifecycle_config.name,
        lifecycle_config=lifecycle_config,
        users=users,
        ours=ours,
        config_record=cache.config_record(lifecycle_config.name),
        deployment=cache.deployment(),
    )


def read_users(lifecycle_config: str, policy: BlockPolicy, now: int, specs: Mapping[str, NotebookSpec]) -> Users:
    """List the notebooks that use the configuration; reading their tags ends at the first that requests SSH.

    specs: desired states that were just read, by notebook.
    """
    lines = sagemaker.users_of_lifecycle_config(lifecycle_config)
    names = tuple(line.name for line in lines)
    invalid: list[str] = []
    for line in lines:
        try:
            spec = specs.get(line.name) or parse_spec(sagemaker.read_tags(line.arn), policy.tag_key)
        except NotFoundError:
            continue  # deleted since it was listed
        if spec.effective_modes(now):
            return Users(names, requesting=(line.name,), invalid=tuple(invalid), complete=False)
        if spec.problem:
            invalid.append(line.name)
    return Users(names, invalid=tuple(invalid))


def _lifecycle_config(name: str | None, now: int) -> LifecycleConfig | None:
    if name is None:
        return None
    try:
        lifecycle_config = sagemaker.describe_lifecycle_config(name)
    except NotFoundError:
        return None
    remember(lifecycle_config, now)
    return lifecycle_config


def _remembered(config_record: LifecycleConfigRecord | None, now: int) -> LifecycleConfig | None:
    """Return the cached configuration, unless it is older than SCRIPT_CACHE_S or its record is newer."""
    if config_record is None or config_record.name not in _scripts:
        return None
    at, lifecycle_config = _scripts[config_record.name]
    return (
        lifecycle_config if lifecycle_config.modified == config_record.modified and now <= at + SCRIPT_CACHE_S else None
    )
