"""Who needs attention: the sweep's question, answered from lists alone, without a request for any single notebook."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from notebook_ssh.rules.notebook import Kept, holds, news, settled_off, shows, tags_to_show
from notebook_ssh.rules.record import Mode, NotebookState, Record, Wish
from notebook_ssh.rules.signals import LookAtConfiguration, LookAtNotebook
from notebook_ssh.rules.tags import read_wish, wish_keys

LONGEST_DELAY = 900
"""Seconds for which a message can wait in the queue (SQS, `DelaySeconds`)."""


@dataclass(frozen=True, slots=True)
class NotebookLine:
    """A notebook as ListNotebookInstances tells it. state_since: `LastModifiedTime`."""

    name: str
    arn: str
    state: NotebookState
    state_since: int
    configuration: str | None


@dataclass(frozen=True, slots=True)
class ConfigurationLine:
    """A configuration as ListNotebookInstanceLifecycleConfigs tells it. modified: as in `Configuration`."""

    name: str
    arn: str
    modified: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """The whole fleet, from complete lists.

    tags: of every notebook that has our tag or had it once, by ARN in lower case (GetResources).
    records, kept: what the table knows.
    """

    notebooks: tuple[NotebookLine, ...] = ()
    configurations: tuple[ConfigurationLine, ...] = ()
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    kept: tuple[Kept, ...] = ()


def fingerprint(line: NotebookLine, tags: Mapping[str, str], tag_key: str, *, dry_run: bool) -> str:
    """One short text for everything about a notebook that the reconciler acts on and a list can tell."""
    asked = {key: tags[key] for key in wish_keys(tag_key) if key in tags}
    facts = [line.name, line.state, line.state_since, line.configuration, asked, dry_run]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def who_needs_attention(
    fleet: Fleet, tag_key: str, mark: str, now: int, *, dry_run: bool, status_tags: bool, sync_seconds: int
) -> tuple[LookAtNotebook | LookAtConfiguration, ...]:
    """Everyone about whom the lists and the table disagree, or whose time has come. Empty in the steady state.

    mark: which block is to be in the scripts (`Terms.mark`). status_tags: the notebooks' tags show their status.
    sync_seconds: time between two reports of an agent.
    """
    records = {record.name.lower(): record for record in fleet.records}
    there = {line.name.lower() for line in fleet.notebooks}
    looks: list[LookAtNotebook | LookAtConfiguration] = []
    attached = {line.configuration for line in fleet.notebooks}
    kept_of = {kept.name: kept for kept in fleet.kept}
    used: set[str] = set()
    for line in fleet.notebooks:
        tags = fleet.tags.get(line.arn.lower(), {})
        wish = read_wish(tags, tag_key)
        wish_holds = holds(wish, now)
        if wish_holds and line.configuration:
            used.add(line.configuration)
        record = records.get(line.name.lower())
        if record is None:
            because = "tagged, and not known yet" if wish != Wish() else None
        elif settled_off(record) and not wish_holds:
            # A look that was overtaken may have written our tags once more.
            because = "status" if sync_seconds and shows(tags, tag_key) else None
        else:
            because = _changed(record, fingerprint(line, tags, tag_key, dry_run=dry_run), now)
            if not dry_run:
                because = because or _script_is_other_than_recorded(record, kept_of.get(line.configuration or ""), now)
                if status_tags and tags_to_show(record, now, sync_seconds, tag_key) != shows(tags, tag_key):
                    because = because or "status"
                if news(record, now, sync_seconds, tag_key):
                    because = because or "status"
        if because:
            looks.append(LookAtNotebook(line.name, because))
        elif record and record.wish.until and now < record.wish.until <= now + LONGEST_DELAY:
            looks.append(LookAtNotebook(line.name, "its time ends", at=record.wish.until))
    looks += [LookAtNotebook(record.name, "gone") for record in fleet.records if record.name.lower() not in there]
    modified = {line.name: line.modified for line in fleet.configurations}
    for kept in fleet.kept:
        because = _out_of_line(
            kept, modified.get(kept.name), mark, used=kept.name in used, attached=kept.name in attached
        )
        if because:
            looks.append(LookAtConfiguration(kept.name, because))
    return tuple(looks)


def _changed(record: Record, seen: str, now: int) -> str | None:
    if record.seen != seen:
        return "changed since it was looked at" if record.seen else "the last look did not end"
    if record.wish.mode is not Mode.OFF and record.wish.until and record.observed_at < record.wish.until <= now:
        return "its time is over"
    return None


def _script_is_other_than_recorded(record: Record, kept: Kept | None, now: int) -> str | None:
    """A look at one user of a configuration can change what is so for all of its users."""
    if kept is None or record.wish.mode_at(now) is Mode.OFF:
        return None
    if (record.block_since, record.problem) == (kept.block_since, kept.problem):
        return None
    return "its configuration changed"


def _out_of_line(kept: Kept, modified: int | None, mark: str, *, used: bool, attached: bool) -> str | None:
    if modified is None:
        return "gone"
    # UNCONFIRMED whether the list tells it as finely as the description does.
    if modified // 1000 != kept.modified // 1000:
        return "changed since it was looked at"
    if kept.tried != mark:
        return "the stack has another block now"
    if kept.block and not used:
        return "nobody who uses it asks for SSH"
    if not attached:
        return "nobody uses it"
    return None
