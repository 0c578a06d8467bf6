"""What a dry run would do, on one page for an admin (docs/operations.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from notebook_ssh.model.assessment import assess
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import NotebookSpec
from notebook_ssh.model.stack import StackSettings
from notebook_ssh.model.status import CODES, Code, sentence
from notebook_ssh.model.text import printable_line

NAMES = 10
"""Notebooks that one line names."""


def plan_text(records: Iterable[Record], now: int, stack: StackSettings, *, dry_run: bool) -> str:
    """Return what the stack would do for which configurations and notebooks, and what it cannot do and why.

    Equal plans of notebooks with one configuration are one entry, so that a fleet of hundreds is one page.
    """
    requesting = [record for record in records if record.spec != NotebookSpec()]
    planned = [record for record in requesting if record.planned]
    obstacles = _obstacles(requesting, now, stack.sync_seconds)
    count = f"{len(requesting)} notebooks request SSH."
    if dry_run:
        lines = [
            f"Dry run of {stack.stack}: {count} The stack would change {len(planned)} of them, and cannot help {len(obstacles)}."
        ]
    else:
        lines = [f"This is not a dry run: {count} What tags request is done; what cannot be done is below."]
    lines += _section("Would be changed, by lifecycle configuration", _changes(planned))
    lines += _section("Cannot be done", obstacles)
    return "\n".join(printable_line(line) for line in lines)


def _section(title: str, entries: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *entries] if entries else []


def _changes(planned: Sequence[Record]) -> list[str]:
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for record in planned:
        groups.setdefault((record.lifecycle_config or "none attached", record.planned), []).append(record.name)
    lines: list[str] = []
    for (config, sentences), names in sorted(groups.items()):
        lines += [f"  {config} ({_names(names)})", *(f"    {each}" for each in sentences)]
    return lines


def _obstacles(records: Sequence[Record], now: int, sync_seconds: int) -> list[str]:
    lines = []
    for record in records:
        found = assess(record, now, sync_seconds)
        problem = found.problem if CODES[found.condition] in (Code.ERROR, Code.INVALID_TAG) else record.problem
        if problem:
            lines.append(f"  {record.name}: {problem.code}: {sentence(problem.message)}")
    return lines


def _names(names: Sequence[str]) -> str:
    what = "1 notebook" if len(names) == 1 else f"{len(names)} notebooks"
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return f"{what}: {', '.join(names[:NAMES])}{more}"
