"""Reading everything that a plan stands on: at most three requests to AWS when there is nothing to do."""

from __future__ import annotations

from collections.abc import Mapping

from notebook_ssh.aws import notebooks
from notebook_ssh.aws.known import Known
from notebook_ssh.errors import Absent
from notebook_ssh.rules.notebook import (
    Configuration,
    Seen,
    SeenConfiguration,
    Terms,
    Users,
    needs_users,
)
from notebook_ssh.rules.record import Mode, Wish
from notebook_ssh.rules.tags import read_wish


def observe_notebook(name: str, known: Known, terms: Terms) -> tuple[Seen, dict[str, str]]:
    """What is so about the notebook, and its tags. A read that fails is raised, and never taken for absence."""
    record, now = known.record(name), known.at
    try:
        notebook = notebooks.describe_notebook(record.name) if record else notebooks.find_notebook(name)
        tags = notebooks.read_tags(notebook.arn)
    except Absent:
        return Seen(name=name, notebook=None, record=record), {}
    wish = read_wish(tags, terms.tag_key)
    attached = notebook.configuration or (terms.fallback if wish.mode_at(now) is not Mode.OFF else None)
    seen = Seen(
        name=notebook.name,
        notebook=notebook,
        wish=wish,
        configuration=_configuration(attached),
        record=record,
        kept=known.kept(attached) if attached else None,
    )
    if not needs_users(seen, terms, now):
        return seen, tags
    users = read_users(notebook.configuration or "", terms, now, wishes={notebook.name: wish})
    return _with_users(seen, users), tags


def observe_configuration(name: str, known: Known, terms: Terms, stack: str) -> SeenConfiguration:
    """What is so about the configuration, whoever uses it."""
    try:
        configuration = notebooks.find_configuration(name)
    except Absent:
        return SeenConfiguration(name=name, configuration=None, kept=known.kept(name))
    users = read_users(configuration.name, terms, known.at, wishes={})
    ours = None
    if not users.names and configuration.name == terms.fallback:
        ours = notebooks.read_tags(configuration.arn).get(notebooks.OWNER_TAG) == stack
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


def _configuration(name: str | None) -> Configuration | None:
    if name is None:
        return None
    try:
        return notebooks.describe_configuration(name)
    except Absent:
        return None


def _with_users(seen: Seen, users: Users) -> Seen:
    return Seen(seen.name, seen.notebook, seen.wish, seen.configuration, users, seen.record, seen.kept)
