"""Observe, plan, apply: one notebook, or one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters import sagemaker, sqs
from notebook_ssh.adapters.lease import Leases
from notebook_ssh.adapters.notifications import publish_status_change
from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.table import NOTEBOOK, Table
from notebook_ssh.adapters.write_slots import SlotUnavailableError, WriteSlots
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.record import Mode, Record
from notebook_ssh.model.spec import status_keys
from notebook_ssh.model.status import Code, status_key
from notebook_ssh.planning.drift import LONGEST_DELAY, NotebookSummary, fingerprint
from notebook_ssh.planning.notebook import (
    INACTIVE_RECORD_TTL_S,
    PACED,
    STATUS_TAG_INTERVAL,
    Action,
    BlockPolicy,
    LifecycleConfig,
    LifecycleConfigPlan,
    LifecycleConfigRecord,
    NotebookObservation,
    Plan,
    WriteScript,
    current_status_tags,
    desired_status_tags,
    has_changed,
    is_inactive,
    plan_lifecycle_config,
    plan_notebook,
    reasons,
    status_change,
)
from notebook_ssh.settings import Settings
from notebook_ssh.triggers.events import ReconcileLifecycleConfig, ReconcileNotebook, to_message
from reconcile_notebook.apply import Hands, apply, lifecycle_config_lock, touched_by
from reconcile_notebook.observe import observe_lifecycle_config, observe_notebook, remember

logger = Logger(child=True)

PREPARE_MS, REOBSERVE_MS = 300, 500
"""Milliseconds that noting what is begun takes, and a look: they come so much before a write, and do not put it off."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What every look needs. clock: seconds since the epoch. correlation_id: the ids of the signals that it answers."""

    settings: Settings
    policy: BlockPolicy
    table: Table
    slots: WriteSlots
    leases: Leases
    clock: Callable[[], int]
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a notebook, with its tags, beside what is known; and what is to be done about it."""

    cache: RecordCache
    observed: NotebookObservation
    tags: Mapping[str, str]
    plan: Plan


class RecordConflictError(RetryableError):
    """Another look at the same notebook ended first, and this one stood on what was so before it."""

    def __init__(self, notebook: str) -> None:
        super().__init__(f"another look at {notebook} was faster")


def reconcile_notebook(name: str, deps: Dependencies, cache: RecordCache) -> str | None:
    """Bring one notebook, its configuration and its record in line with its tags; the configuration that it uses."""
    look = _look(name, deps, cache)
    if deps.settings.dry_run:
        _only_record(look, deps)
    elif touched := touched_by(look.plan.actions):
        _carry_out_in_turn(look, touched, deps)
    else:
        _carry_out(look, deps)
    return look.observed.notebook.lifecycle_config if look.observed.notebook else None


def _carry_out_in_turn(look: Look, touched: frozenset[str], deps: Dependencies) -> None:
    """Holding what is `touched`, with a turn for the first write, and after another look where nothing else comes before it."""
    with deps.leases.lease(*touched):
        again = not _looks_before_it_writes(look)
        turn = deps.slots.reserve(ahead=PREPARE_MS + REOBSERVE_MS if again else PREPARE_MS)
        if again or look.cache.is_expired(turn // 1000):
            deps.slots.wait_until(turn - PREPARE_MS - REOBSERVE_MS)
            look = _look_again(look, deps)
        if not touched_by(look.plan.actions) <= touched:
            raise SlotUnavailableError("the plan needs other leases now", retry_after=1)
        _carry_out(look, deps, turn)


def reconcile_lifecycle_config(name: str, deps: Dependencies, cache: RecordCache) -> None:
    """Bring one configuration in line with the tags of everybody who uses it."""
    observed = observe_lifecycle_config(name, cache, deps.policy, deps.settings.stack)
    plan = plan_lifecycle_config(observed, deps.policy, cache.at)
    if deps.settings.dry_run:
        logger.info("dry run", extra={"plan": reasons(plan.actions)})
        return
    touched = touched_by(plan.actions)
    if observed.config_record and plan.config_record is None:
        # Whoever holds it may be about to make it, and must find it again should they die.
        touched |= {lifecycle_config_lock(observed.name)}
    if not touched:
        _apply_lifecycle_config(observed.config_record, plan, deps, cache)
        return
    with deps.leases.lease(*touched):
        turn = deps.slots.reserve(ahead=PREPARE_MS + REOBSERVE_MS)
        deps.slots.wait_until(turn - PREPARE_MS - REOBSERVE_MS)
        cache = RecordCache(deps.table, deps.clock())  # what was so before we waited may not be so now
        observed = observe_lifecycle_config(observed.name, cache, deps.policy, deps.settings.stack)
        plan = plan_lifecycle_config(observed, deps.policy, cache.at)
        _apply_lifecycle_config(observed.config_record, plan, deps, cache, turn)


def _looks_before_it_writes(look: Look) -> bool:
    """Whether nothing but a script is written, which is compared with what was seen right before that, by one who asks.

    What is taken away, attached, stopped or started hangs on more than that, and nothing holds it still.
    """
    writes = (action for action in look.plan.actions if isinstance(action, PACED))
    return look.observed.users is None and all(isinstance(action, WriteScript) for action in writes)


def _look_again(look: Look, deps: Dependencies) -> Look:
    """What was so before we waited may not be so now."""
    cache = RecordCache(deps.table, deps.clock())
    cache.prefetch(
        [look.observed.name], [look.observed.lifecycle_config.name] if look.observed.lifecycle_config else []
    )
    return _look(look.observed.name, deps, cache)


def _look(name: str, deps: Dependencies, cache: RecordCache) -> Look:
    observed, tags = observe_notebook(name, cache, deps.policy)
    return Look(cache, observed, tags, plan_notebook(observed, deps.policy, cache.at))


def _carry_out(look: Look, deps: Dependencies, turn: int | None = None) -> None:
    """The actions between two savings of the record: the first says what is begun, the second that it is done.

    What another look saved since this one began stands: nothing is begun then, and what is done is looked at again.
    """
    observed, tags, plan, now = look.observed, look.tags, look.plan, look.cache.at
    before, saved = observed.record, True
    if plan.record and plan.actions:
        begun = replace(plan.record, observed_hash="")
        if not deps.table.save_observed(begun, before):
            raise RecordConflictError(begun.name)
        before = begun
    _note_first(observed.config_record, plan.config_record, plan.actions, look.cache)
    written = apply(plan.actions, Hands(deps.table, deps.slots, deps.settings.stack, now, turn))
    _keep(observed.config_record, plan.config_record, written, look.cache)
    if plan.record:
        record = replace(plan.record, observed_hash=_fingerprint(observed, tags, deps.settings))
        desired_tags = _desired_tags(record, tags, deps, now)
        record = record if desired_tags is None else replace(record, status_tags_at=now)
        saved = _save(_publish_status_change(record, deps, now), before, deps.table, now)
        # Last: a tag of ours on a notebook that no record knows would never be taken away.
        if saved and desired_tags is not None:
            _sync_status_tags(record.arn, desired_tags, tags, deps.settings)
    elif observed.record:
        deps.table.delete(NOTEBOOK, observed.record.name.lower())
    _send_follow_ups(observed.record, plan, deps, now)
    if not saved:
        raise RecordConflictError(observed.name)


def _save(record: Record, before: Record | None, table: Table, now: int) -> bool:
    """Save a finished look, if it has anything new to say. False when another look saved one first."""
    if not has_changed(before, record):
        return True
    return table.save_observed(record, before, expires=now + INACTIVE_RECORD_TTL_S if is_inactive(record) else None)


def _desired_tags(record: Record, tags: Mapping[str, str], deps: Dependencies, now: int) -> Mapping[str, str] | None:
    """Our tags as they are to be written now; None when they are so already, or were written too short a time ago."""
    settings = deps.settings
    desired_tags = (
        desired_status_tags(record, now, settings.sync_seconds, settings.tag_key) if settings.status_tags else {}
    )
    if desired_tags == current_status_tags(tags, settings.tag_key):
        return None
    if desired_tags and now < record.status_tags_at + STATUS_TAG_INTERVAL:
        _send((ReconcileNotebook(record.name, "status", at=record.status_tags_at + STATUS_TAG_INTERVAL),), deps, now)
        return None
    return desired_tags


def _sync_status_tags(arn: str, desired_tags: Mapping[str, str], tags: Mapping[str, str], settings: Settings) -> None:
    """Bring the tags that we write in line with `desired_tags`."""
    status = desired_tags.get(status_keys(settings.tag_key)[0], Code.OFF)
    logger.info("write the status tags", extra={"reason": f"it is {status}"})
    if outdated := current_status_tags(tags, settings.tag_key).keys() - desired_tags.keys():
        sagemaker.remove_tags(arn, *sorted(outdated))
    if desired_tags:
        sagemaker.write_tags(arn, desired_tags)


def _publish_status_change(record: Record, deps: Dependencies, now: int) -> Record:
    """Tell a change of status once, whoever caused it: a report, a rule, a tag or the clock; the record, with what was told.

    Told before it is noted, so that a crash in between tells twice rather than never. News that could not be told are
    still news at the next sweep, and no reason to fail.
    """
    settings = deps.settings
    status = status_change(record, now, settings.sync_seconds, settings.tag_key)
    if status is None:
        return record
    before = record.notified_status.partition(":")[0] or str(Code.OFF)
    try:
        publish_status_change(settings.stack, record.name, record.arn, before, status)
    except (RetryableError, ClientError, BotoCoreError):
        logger.exception("a status change was not published", extra={"notebook": record.name})
        return record
    logger.info("status", extra={"notebook": record.name, "before": before, "status": str(status.code)})
    if status.code is Code.CONNECTED and record.spec_changed_at and not record.first_connected:
        waited = max(0, (status.since or now) - record.spec_changed_at)
        logger.info("first connected", extra={"notebook": record.name, "seconds_since_tag": waited})
        record = replace(record, first_connected=True)
    return replace(record, notified_status=status_key(status))


def _apply_lifecycle_config(
    before: LifecycleConfigRecord | None,
    plan: LifecycleConfigPlan,
    deps: Dependencies,
    cache: RecordCache,
    turn: int | None = None,
) -> None:
    now = cache.at
    _note_first(before, plan.config_record, plan.actions, cache)
    written = apply(plan.actions, Hands(deps.table, deps.slots, deps.settings.stack, now, turn))
    # Told first: once it is kept, no later look would find that there is something to tell.
    _send(plan.follow_ups, deps, now)
    _keep(before, plan.config_record, written, cache)


def _only_record(look: Look, deps: Dependencies) -> None:
    """A dry run: the facts and the plan go into the table and the log, and nothing else happens."""
    observed, plan = look.observed, look.plan
    planned = reasons(plan.actions)
    logger.info("dry run", extra={"plan": planned})
    if plan.facts:
        record = replace(plan.facts, planned=planned, observed_hash=_fingerprint(observed, look.tags, deps.settings))
        if not _save(record, observed.record, deps.table, look.cache.at):
            raise RecordConflictError(record.name)
    elif observed.record:
        deps.table.delete(NOTEBOOK, observed.record.name.lower())


def _note_first(
    before: LifecycleConfigRecord | None,
    after: LifecycleConfigRecord | None,
    actions: tuple[Action, ...],
    cache: RecordCache,
) -> None:
    """Note that we have to do with a configuration before we touch it: should we die, the sweep finds it."""
    if before is None and after is not None and actions:
        cache.save(LifecycleConfigRecord(after.name))


def _keep(
    before: LifecycleConfigRecord | None,
    after: LifecycleConfigRecord | None,
    written: LifecycleConfig | None,
    cache: RecordCache,
) -> None:
    if written:
        remember(written, cache.at)
        after = after and replace(after, modified=written.modified)
    if after is None and before is not None:
        cache.delete(before.name)
    elif after is not None and after != before:
        cache.save(after)


def _send_follow_ups(before: Record | None, plan: Plan, deps: Dependencies, now: int) -> None:
    after = plan.record
    _send(plan.follow_ups, deps, now)
    until = after.spec.until if after else None
    if after and until and now < until <= now + LONGEST_DELAY:
        _send((ReconcileNotebook(after.name, "its time ends", at=until),), deps, now)
    if _way_changes(before, after, now) and deps.settings.bastion_queue:
        reason = (after or before or Record("")).name
        sqs.request_bastion_resync(deps.settings.bastion_queue, reason, deps.correlation_id)


def _way_changes(before: Record | None, after: Record | None, now: int) -> bool:
    """Whether anything that the bastion's rules hang on is other than it was recorded."""

    def part(record: Record | None, at: int) -> object:
        if record is None or record.spec.effective_mode(at) is not Mode.BASTION:
            return None
        return record.state, record.network

    return part(before, before.observed_at if before else now) != part(after, now)


def _send(looks: tuple[ReconcileNotebook | ReconcileLifecycleConfig, ...], deps: Dependencies, now: int) -> None:
    sqs.send(deps.settings.notebook_queue, (to_message(look, now, deps.correlation_id) for look in looks))


def _fingerprint(observed: NotebookObservation, tags: Mapping[str, str], settings: Settings) -> str:
    notebook = observed.notebook
    if notebook is None:
        return ""
    line = NotebookSummary(notebook.name, notebook.arn, notebook.state, notebook.state_since, notebook.lifecycle_config)
    return fingerprint(line, tags, settings.tag_key, dry_run=settings.dry_run)
