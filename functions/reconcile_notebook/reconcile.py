"""Observe, plan, apply: one notebook, or one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric
from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.aws import backups, notebooks, queues
from notebook_ssh.aws.notices import tell_status
from notebook_ssh.aws.pacing import Turns
from notebook_ssh.aws.table import CONFIGURATION, NOTEBOOK, Table
from notebook_ssh.errors import Transient
from notebook_ssh.rules.fleet import LONGEST_DELAY, NotebookLine, fingerprint
from notebook_ssh.rules.notebook import (
    KEEP_OFF,
    SHOW_EVERY,
    Action,
    Configuration,
    ConfigurationPlan,
    Kept,
    Plan,
    Seen,
    Terms,
    news,
    plan_configuration,
    plan_notebook,
    reasons,
    settled_off,
    shows,
    tags_to_show,
)
from notebook_ssh.rules.record import Mode, Record
from notebook_ssh.rules.signals import LookAtConfiguration, LookAtNotebook, to_message
from notebook_ssh.rules.status import Code, headline
from notebook_ssh.settings import Settings
from reconcile_notebook.apply import Hands, apply, needs_turn
from reconcile_notebook.observe import observe_configuration, observe_notebook

logger = Logger(child=True)


@dataclass(frozen=True, slots=True)
class Desk:
    """What every look needs. clock: seconds since the epoch."""

    settings: Settings
    terms: Terms
    table: Table
    turns: Turns
    clock: Callable[[], int]


def reconcile_notebook(name: str, desk: Desk) -> None:
    """Bring one notebook, its configuration and its record in line with its tags."""
    seen, tags, plan, now = _look(name, desk)
    if desk.settings.dry_run:
        _only_record(seen, tags, plan, desk, now)
        return
    if not needs_turn(plan.actions):
        _carry_out(seen, tags, plan, desk, now, slot=False)
        return
    configuration = seen.configuration.name if seen.configuration else desk.terms.fallback
    with desk.turns.alone(f"notebook/{seen.name.lower()}", f"configuration/{configuration}"):
        desk.turns.wait_for_write()
        seen, tags, plan, now = _look(seen.name, desk)  # what was so before we waited may not be so now
        _carry_out(seen, tags, plan, desk, now, slot=True)


def reconcile_configuration(name: str, desk: Desk) -> None:
    """Bring one configuration in line with the tags of everybody who uses it."""
    settings = desk.settings
    now = desk.clock()
    seen = observe_configuration(name, desk.table, desk.terms, settings.stack, now)
    plan = plan_configuration(seen, desk.terms, now)
    if settings.dry_run:
        logger.info("dry run", extra={"plan": reasons(plan.actions)})
        return
    if not needs_turn(plan.actions):
        _carry_out_configuration(seen.name, seen.kept, plan, desk, now, slot=False)
        return
    with desk.turns.alone(f"configuration/{seen.name}"):
        desk.turns.wait_for_write()
        now = desk.clock()
        seen = observe_configuration(seen.name, desk.table, desk.terms, settings.stack, now)
        plan = plan_configuration(seen, desk.terms, now)
        _carry_out_configuration(seen.name, seen.kept, plan, desk, now, slot=True)


def _look(name: str, desk: Desk) -> tuple[Seen, dict[str, str], Plan, int]:
    now = desk.clock()
    record = desk.table.record(name, consistent=True)
    seen, tags = observe_notebook(name, record, desk.table, desk.terms, now)
    return seen, tags, plan_notebook(seen, desk.terms, now), now


def _carry_out(seen: Seen, tags: dict[str, str], plan: Plan, desk: Desk, now: int, *, slot: bool) -> None:
    """The actions between two savings of the record: the first says what is begun, the second that it is done."""
    hands = Hands(desk.table, desk.turns, desk.settings.stack, now, slot)
    if plan.record and (plan.actions or seen.record is None):
        desk.table.save_observed(replace(plan.record, seen=""))
    _note_first(seen.kept, plan.kept, plan.actions, desk.table)
    written = apply(plan.actions, hands)
    _keep(seen.kept, plan.kept, written, desk.table)
    if plan.record:
        record = _show(replace(plan.record, seen=_fingerprint(seen, tags, desk.settings)), tags, desk, now)
        record = _tell_people(record, desk, now)
        desk.table.save_observed(record, expires=now + KEEP_OFF if settled_off(record) else None)
    elif seen.record:
        desk.table.forget(NOTEBOOK, seen.record.name.lower())
    _tell_others(seen.record, plan, desk, now)


def _show(record: Record, tags: Mapping[str, str], desk: Desk, now: int) -> Record:
    """Bring the tags that we write in line with the status; the record, with when that was."""
    settings = desk.settings
    is_shown = shows(tags, settings.tag_key)
    to_show = tags_to_show(record, now, settings.sync_seconds, settings.tag_key) if settings.status_tags else {}
    if to_show == is_shown:
        return record
    if to_show and now < record.shown_at + SHOW_EVERY:
        _send((LookAtNotebook(record.name, "status", at=record.shown_at + SHOW_EVERY),), desk, now)
        return record
    if is_shown.keys() - to_show.keys():
        notebooks.take_tags_away(record.arn, *sorted(is_shown.keys() - to_show.keys()))
    if to_show:
        notebooks.write_tags(record.arn, to_show)
    return replace(record, shown_at=now)


def _tell_people(record: Record, desk: Desk, now: int) -> Record:
    """Tell a change of status once, whoever caused it: a report, a rule, a tag or the clock; the record, with what was told.

    Told before it is noted, so that a crash in between tells twice rather than never. News that could not be told are
    still news at the next sweep, and no reason to fail.
    """
    settings = desk.settings
    status = news(record, now, settings.sync_seconds, settings.tag_key)
    if status is None:
        return record
    before = record.told.partition(":")[0] or str(Code.OFF)
    try:
        tell_status(settings.stack, record.name, record.arn, before, status)
    except (Transient, ClientError, BotoCoreError):
        logger.exception("a change of status was not told", extra={"notebook": record.name})
        return record
    logger.info("status", extra={"notebook": record.name, "before": before, "status": str(status.code)})
    with single_metric(name="StatusChanges", unit=MetricUnit.Count, value=1, namespace="notebook-ssh") as metric:
        metric.add_dimension(name="status", value=str(status.code))
    return replace(record, told=headline(status))


def _carry_out_configuration(
    name: str, before: Kept | None, plan: ConfigurationPlan, desk: Desk, now: int, *, slot: bool
) -> None:
    _note_first(before, plan.kept, plan.actions, desk.table)
    written = apply(plan.actions, Hands(desk.table, desk.turns, desk.settings.stack, now, slot))
    # Told first: once it is kept, no later look would find that there is something to tell.
    _send(plan.look_next, desk, now)
    _keep(before, plan.kept, written, desk.table)


def _only_record(seen: Seen, tags: dict[str, str], plan: Plan, desk: Desk, now: int) -> None:
    """A dry run: the facts and the plan go into the table and the log, and nothing else happens."""
    planned = reasons(plan.actions)
    logger.info("dry run", extra={"plan": planned})
    if plan.facts:
        record = replace(plan.facts, planned=planned, seen=_fingerprint(seen, tags, desk.settings))
        desk.table.save_observed(record, expires=now + KEEP_OFF if settled_off(record) else None)
    elif seen.record:
        desk.table.forget(NOTEBOOK, seen.record.name.lower())


def _note_first(before: Kept | None, after: Kept | None, actions: tuple[Action, ...], table: Table) -> None:
    """Note that we have to do with a configuration before we touch it: should we die, the sweep finds it."""
    if before is None and after is not None and actions:
        backups.keep(table, Kept(after.name))


def _keep(before: Kept | None, after: Kept | None, written: Configuration | None, table: Table) -> None:
    if after and written:
        after = replace(after, modified=written.modified)
    if after is None and before is not None:
        table.forget(CONFIGURATION, before.name)
    elif after is not None and after != before:
        backups.keep(table, after)


def _tell_others(before: Record | None, plan: Plan, desk: Desk, now: int) -> None:
    after = plan.record
    _send(plan.look_next, desk, now)
    until = after.wish.until if after else None
    if after and until and now < until <= now + LONGEST_DELAY:
        _send((LookAtNotebook(after.name, "its time ends", at=until),), desk, now)
    if _way_changes(before, after, now) and desk.settings.bastion_queue:
        queues.tell_bastion(desk.settings.bastion_queue, (after or before or Record("")).name)


def _way_changes(before: Record | None, after: Record | None, now: int) -> bool:
    """Whether anything that the bastion's rules hang on is other than it was recorded."""

    def part(record: Record | None, at: int) -> object:
        if record is None or record.wish.mode_at(at) is not Mode.BASTION:
            return None
        return record.state, record.network

    return part(before, before.observed_at if before else now) != part(after, now)


def _send(looks: tuple[LookAtNotebook | LookAtConfiguration, ...], desk: Desk, now: int) -> None:
    queues.send(desk.settings.notebook_queue, (to_message(look, now) for look in looks))


def _fingerprint(seen: Seen, tags: dict[str, str], settings: Settings) -> str:
    notebook = seen.notebook
    if notebook is None:
        return ""
    line = NotebookLine(notebook.name, notebook.arn, notebook.state, notebook.state_since, notebook.configuration)
    return fingerprint(line, tags, settings.tag_key, dry_run=settings.dry_run)
