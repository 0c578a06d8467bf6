"""Reading everything that a plan stands on: at most three requests to SageMaker when there is nothing to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from notebook_ssh.aws import notebooks
from notebook_ssh.aws.known import Known
from notebook_ssh.errors import Absent
from notebook_ssh.rules.notebook import (
    Configuration,
    Kept,
    Seen,
    SeenConfiguration,
    Terms,
    Users,
    is_in_place,
    needs_users,
)
from notebook_ssh.rules.record import OWNER_TAG, Mode, Wish
from notebook_ssh.rules.tags import read_wish

SURE = 60
"""Seconds for which a script that this process has read counts as unchanged, unless the table has heard of a change."""

MOST = 100
"""Scripts that are remembered at once; each has at most 32 KB."""

_scripts: dict[str, tuple[int, Configuration]] = {}
"""When each configuration was read (epoch seconds) and as what, the last one last."""


def forget() -> None:
    """Remember no configuration."""
    _scripts.clear()


def remember(configuration: Configuration, at: int) -> None:
    """The configuration is as it was read at this time, or a little later."""
    _scripts.pop(configuration.name, None)
    _scripts[configuration.name] = at, configuration
    if len(_scripts) > MOST:
        del _scripts[next(iter(_scripts))]


def observe_notebook(name: str, known: Known, terms: Terms) -> tuple[Seen, dict[str, str]]:
    """What is so about the notebook, and its tags. A read that fails is raised, and never taken for absence.

    A script that was in place a moment ago is not read again: a change of it has its own signal, and the sweep.
    """
    record, now = known.record(name), known.at
    try:
        notebook = notebooks.describe_notebook(record.name) if record else notebooks.find_notebook(name)
        tags = notebooks.read_tags(notebook.arn)
    except Absent:
        return Seen(name=name, notebook=None, record=record), {}
    wish = read_wish(tags, terms.tag_key)
    attached = notebook.configuration or (terms.fallback if wish.mode_at(now) is not Mode.OFF else None)
    kept = known.kept(attached) if attached else None
    seen = Seen(name=notebook.name, notebook=notebook, wish=wish, record=record, kept=kept)
    as_it_was = _remembered(kept, now) if is_in_place(seen, terms, now) else None
    seen = replace(seen, configuration=as_it_was or _configuration(attached, now))
    if not needs_users(seen, terms, now):
        return seen, tags
    users = read_users(notebook.configuration or "", terms, now, wishes={notebook.name: wish})
    return replace(seen, users=users), tags


def observe_configuration(name: str, known: Known, terms: Terms, stack: str) -> SeenConfiguration:
    """What is so about the configuration, whoever uses it."""
    try:
        configuration = notebooks.find_configuration(name)
    except Absent:
        return SeenConfiguration(name=name, configuration=None, kept=known.kept(name))
    users = read_users(configuration.name, terms, known.at, wishes={})
    ours = None
    if not users.names and configuration.name == terms.fallback:
        ours = notebooks.read_tags(configuration.arn).get(OWNER_TAG) == stack
    return SeenConfiguration(
        name=configuration.name,
        configuration=configuration,
        users=users,
        ours=ours,
        kept=known.kept(configuration.name),
    )


def read_users(configuration: str, terms: Terms, now: int, wishes: Mapping[str, Wish]) -> Users:
    """Who uses the configuration, fresh from the service; reading tags ends at the first who asks for SSH.

    wishes: those that were read a moment ago.
    """
    lines = notebooks.users_of(configuration)
    names = tuple(line.name for line in lines)
    unclear: list[str] = []
    for line in lines:
        try:
            wish = wishes.get(line.name) or read_wish(notebooks.read_tags(line.arn), terms.tag_key)
        except Absent:
            continue  # deleted since it was listed
        if wish.mode_at(now) is not Mode.OFF:
            return Users(names, asking=(line.name,), unclear=tuple(unclear), complete=False)
        if wish.problem:
            unclear.append(line.name)
    return Users(names, unclear=tuple(unclear))


def _configuration(name: str | None, now: int) -> Configuration | None:
    if name is None:
        return None
    try:
        configuration = notebooks.describe_configuration(name)
    except Absent:
        return None
    remember(configuration, now)
    return configuration


def _remembered(kept: Kept | None, now: int) -> Configuration | None:
    """The configuration as this process last read it, if that is not long ago and the table knows of nothing newer."""
    if kept is None or kept.name not in _scripts:
        return None
    at, configuration = _scripts[kept.name]
    return configuration if configuration.modified == kept.modified and now <= at + SURE else None
