"""Observe, plan, apply: one notebook, or one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.aws import notebooks, queues
from notebook_ssh.aws.known import Known
from notebook_ssh.aws.notices import tell_status
from notebook_ssh.aws.pacing import NoTurn, Turns
from notebook_ssh.aws.table import NOTEBOOK, Table
from notebook_ssh.errors import Transient
from notebook_ssh.rules.fleet import LONGEST_DELAY, NotebookLine, fingerprint
from notebook_ssh.rules.notebook import (
    KEEP_OFF,
    PACED,
    SHOW_EVERY,
    Action,
    Configuration,
    ConfigurationPlan,
    Kept,
    Plan,
    Seen,
    Terms,
    WriteScript,
    is_news,
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
from notebook_ssh.rules.tags import status_keys
from notebook_ssh.settings import Settings
from reconcile_notebook.apply import Hands, a_configuration, apply, touched_by
from reconcile_notebook.observe import observe_configuration, observe_notebook, remember

logger = Logger(child=True)

PREPARING, LOOKING = 300, 500
"""Milliseconds that noting what is begun takes, and a look: they come so much before a write, and do not put it off."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every look needs. clock: seconds since the epoch. correlation_id: the ids of the signals that it answers."""

    settings: Settings
    terms: Terms
    table: Table
    turns: Turns
    clock: Callable[[], int]
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a notebook, with its tags, beside what is known; and what is to be done about it."""

    known: Known
    seen: Seen
    tags: Mapping[str, str]
    plan: Plan


class Overtaken(Transient):
    """Another look at the same notebook ended first, and this one stood on what was so before it."""

    def __init__(self, notebook: str) -> None:
        super().__init__(f"another look at {notebook} was faster")


def reconcile_notebook(name: str, desk: Desk, known: Known) -> str | None:
    """Bring one notebook, its configuration and its record in line with its tags; the configuration that it uses."""
    look = _look(name, desk, known)
    if desk.settings.dry_run:
        _only_record(look, desk)
    elif touched := touched_by(look.plan.actions):
        _carry_out_in_turn(look, touched, desk)
    else:
        _carry_out(look, desk)
    return look.seen.notebook.configuration if look.seen.notebook else None


def _carry_out_in_turn(look: Look, touched: frozenset[str], desk: Desk) -> None:
    """Holding what is `touched`, with a turn for the first write, and after another look where nothing else comes before it."""
    with desk.turns.alone(*touched):
        again = not _looks_before_it_writes(look)
        turn = desk.turns.take(ahead=PREPARING + LOOKING if again else PREPARING)
        if again or look.known.is_old(turn // 1000):
            desk.turns.wait_until(turn - PREPARING - LOOKING)
            look = _look_again(look, desk)
        if not touched_by(look.plan.actions) <= touched:
            raise NoTurn("what is to be done by now", after=1)
        _carry_out(look, desk, turn)


def reconcile_configuration(name: str, desk: Desk, known: Known) -> None:
    """Bring one configuration in line with the tags of everybody who uses it."""
    seen = observe_configuration(name, known, desk.terms, desk.settings.stack)
    plan = plan_configuration(seen, desk.terms, known.at)
    if desk.settings.dry_run:
        logger.info("dry run", extra={"plan": reasons(plan.actions)})
        return
    touched = touched_by(plan.actions)
    if seen.kept and plan.kept is None:
        # Whoever holds it may be about to make it, and must find it again should they die.
        touched |= {a_configuration(seen.name)}
    if not touched:
        _carry_out_configuration(seen.kept, plan, desk, known)
        return
    with desk.turns.alone(*touched):
        turn = desk.turns.take(ahead=PREPARING + LOOKING)
        desk.turns.wait_until(turn - PREPARING - LOOKING)
        known = Known(desk.table, desk.clock())  # what was so before we waited may not be so now
        seen = observe_configuration(seen.name, known, desk.terms, desk.settings.stack)
        plan = plan_configuration(seen, desk.terms, known.at)
        _carry_out_configuration(seen.kept, plan, desk, known, turn)


def _looks_before_it_writes(look: Look) -> bool:
    """Whether nothing but a script is written, which is compared with what was seen right before that, by one who asks.

    What is taken away, attached, stopped or started hangs on more than that, and nothing holds it still.
    """
    writes = (action for action in look.plan.actions if isinstance(action, PACED))
    return look.seen.users is None and all(isinstance(action, WriteScript) for action in writes)


def _look_again(look: Look, desk: Desk) -> Look:
    """What was so before we waited may not be so now."""
    known = Known(desk.table, desk.clock())
    known.read_ahead([look.seen.name], [look.seen.configuration.name] if look.seen.configuration else [])
    return _look(look.seen.name, desk, known)


def _look(name: str, desk: Desk, known: Known) -> Look:
    seen, tags = observe_notebook(name, known, desk.terms)
    return Look(known, seen, tags, plan_notebook(seen, desk.terms, known.at))


def _carry_out(look: Look, desk: Desk, turn: int | None = None) -> None:
    """The actions between two savings of the record: the first says what is begun, the second that it is done.

    What another look saved since this one began stands: nothing is begun then, and what is done is looked at again.
    """
    seen, tags, plan, now = look.seen, look.tags, look.plan, look.known.at
    before, saved = seen.record, True
    if plan.record and plan.actions:
        begun = replace(plan.record, seen="")
        if not desk.table.save_observed(begun, before):
            raise Overtaken(begun.name)
        before = begun
    _note_first(seen.kept, plan.kept, plan.actions, look.known)
    written = apply(plan.actions, Hands(desk.table, desk.turns, desk.settings.stack, now, turn))
    _keep(seen.kept, plan.kept, written, look.known)
    if plan.record:
        record = replace(plan.record, seen=_fingerprint(seen, tags, desk.settings))
        to_show = _to_show(record, tags, desk, now)
        record = record if to_show is None else replace(record, shown_at=now)
        saved = _save(_tell_people(record, desk, now), before, desk.table, now)
        # Last: a tag of ours on a notebook that no record knows would never be taken away.
        if saved and to_show is not None:
            _show(record.arn, to_show, tags, desk.settings)
    elif seen.record:
        desk.table.forget(NOTEBOOK, seen.record.name.lower())
    _tell_others(seen.record, plan, desk, now)
    if not saved:
        raise Overtaken(seen.name)


def _save(record: Record, before: Record | None, table: Table, now: int) -> bool:
    """Save a finished look, if it has anything new to say. False when another look saved one first."""
    if not is_news(before, record):
        return True
    return table.save_observed(record, before, expires=now + KEEP_OFF if settled_off(record) else None)


def _to_show(record: Record, tags: Mapping[str, str], desk: Desk, now: int) -> Mapping[str, str] | None:
    """Our tags as they are to be written now; None when they are so already, or were written too short a time ago."""
    settings = desk.settings
    to_show = tags_to_show(record, now, settings.sync_seconds, settings.tag_key) if settings.status_tags else {}
    if to_show == shows(tags, settings.tag_key):
        return None
    if to_show and now < record.shown_at + SHOW_EVERY:
        _send((LookAtNotebook(record.name, "status", at=record.shown_at + SHOW_EVERY),), desk, now)
        return None
    return to_show


def _show(arn: str, to_show: Mapping[str, str], tags: Mapping[str, str], settings: Settings) -> None:
    """Bring the tags that we write in line with `to_show`."""
    status = to_show.get(status_keys(settings.tag_key)[0], Code.OFF)
    logger.info("show the status in the tags", extra={"reason": f"it is {status}"})
    if outdated := shows(tags, settings.tag_key).keys() - to_show.keys():
        notebooks.take_tags_away(arn, *sorted(outdated))
    if to_show:
        notebooks.write_tags(arn, to_show)


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
    if status.code is Code.CONNECTED and record.wished_since and not record.reached:
        waited = max(0, (status.since or now) - record.wished_since)
        logger.info("reached", extra={"notebook": record.name, "seconds_since_tag": waited})
        record = replace(record, reached=True)
    return replace(record, told=headline(status))


def _carry_out_configuration(
    before: Kept | None, plan: ConfigurationPlan, desk: Desk, known: Known, turn: int | None = None
) -> None:
    now = known.at
    _note_first(before, plan.kept, plan.actions, known)
    written = apply(plan.actions, Hands(desk.table, desk.turns, desk.settings.stack, now, turn))
    # Told first: once it is kept, no later look would find that there is something to tell.
    _send(plan.look_next, desk, now)
    _keep(before, plan.kept, written, known)


def _only_record(look: Look, desk: Desk) -> None:
    """A dry run: the facts and the plan go into the table and the log, and nothing else happens."""
    seen, plan = look.seen, look.plan
    planned = reasons(plan.actions)
    logger.info("dry run", extra={"plan": planned})
    if plan.facts:
        record = replace(plan.facts, planned=planned, seen=_fingerprint(seen, look.tags, desk.settings))
        if not _save(record, seen.record, desk.table, look.known.at):
            raise Overtaken(record.name)
    elif seen.record:
        desk.table.forget(NOTEBOOK, seen.record.name.lower())


def _note_first(before: Kept | None, after: Kept | None, actions: tuple[Action, ...], known: Known) -> None:
    """Note that we have to do with a configuration before we touch it: should we die, the sweep finds it."""
    if before is None and after is not None and actions:
        known.keep(Kept(after.name))


def _keep(before: Kept | None, after: Kept | None, written: Configuration | None, known: Known) -> None:
    if written:
        remember(written, known.at)
        after = after and replace(after, modified=written.modified)
    if after is None and before is not None:
        known.forget(before.name)
    elif after is not None and after != before:
        known.keep(after)


def _tell_others(before: Record | None, plan: Plan, desk: Desk, now: int) -> None:
    after = plan.record
    _send(plan.look_next, desk, now)
    until = after.wish.until if after else None
    if after and until and now < until <= now + LONGEST_DELAY:
        _send((LookAtNotebook(after.name, "its time ends", at=until),), desk, now)
    if _way_changes(before, after, now) and desk.settings.bastion_queue:
        because = (after or before or Record("")).name
        queues.tell_bastion(desk.settings.bastion_queue, because, desk.correlation_id)


def _way_changes(before: Record | None, after: Record | None, now: int) -> bool:
    """Whether anything that the bastion's rules hang on is other than it was recorded."""

    def part(record: Record | None, at: int) -> object:
        if record is None or record.wish.mode_at(at) is not Mode.BASTION:
            return None
        return record.state, record.network

    return part(before, before.observed_at if before else now) != part(after, now)


def _send(looks: tuple[LookAtNotebook | LookAtConfiguration, ...], desk: Desk, now: int) -> None:
    queues.send(desk.settings.notebook_queue, (to_message(look, now, desk.correlation_id) for look in looks))


def _fingerprint(seen: Seen, tags: Mapping[str, str], settings: Settings) -> str:
    notebook = seen.notebook
    if notebook is None:
        return ""
    line = NotebookLine(notebook.name, notebook.arn, notebook.state, notebook.state_since, notebook.configuration)
    return fingerprint(line, tags, settings.tag_key, dry_run=settings.dry_run)
