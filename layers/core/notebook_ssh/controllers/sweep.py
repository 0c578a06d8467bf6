"""Finds on schedule what is not as it should be, and queues it. It alone would be enough: events only make it sooner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import backups, deployments, metrics, resource_tagging, sagemaker, sqs
from notebook_ssh.adapters.codec import UnreadableRecordError
from notebook_ssh.adapters.table import STATUS, Table
from notebook_ssh.adapters.workers import save_worker
from notebook_ssh.controllers.agent_layer import WorkerProgram
from notebook_ssh.controllers.mails import send_digest
from notebook_ssh.model.fleet_stats import fleet_stats
from notebook_ssh.model.ngrok_plan import excess, tunnels_wanted
from notebook_ssh.model.spec import case_variants
from notebook_ssh.model.text import iso_time
from notebook_ssh.planning.drift import Fleet, find_drift
from notebook_ssh.planning.observation import BlockPolicy, Deployment
from notebook_ssh.planning.upgrade import due_upgrades, is_waiting, noted
from notebook_ssh.settings import Settings
from notebook_ssh.triggers.requests import to_message

logger = Logger(child=True)

USED_RECENTLY_S = 3_600
"""Seconds for which a use is logged by each sweep: as long as two sweeps are apart at most."""

SWEPT = (
    *(*STATUS, "observed_hash", "observed_at", "attached_config", "restart"),
    *("notified_status", "status_tags_left", "mails"),
)
"""The attributes that a sweep reads. Decoding whole records was most of its time (docs/performance.md)."""


def sweep(
    settings: Settings, policy: BlockPolicy, now: int, correlation_id: str, worker: Callable[[], WorkerProgram]
) -> dict[str, int]:
    """Read the lists, find drift, and queue what is to be reconciled; the numbers of what was read and queued.

    A list that could not be read completely fails the sweep: nothing can be concluded from half a list.
    """
    table = Table(settings.table)
    deployment = _note_deployment(table, policy, now, worker)
    fleet = read_fleet(settings.tag_key, table)
    _log_unknown_states(fleet)
    _log_last_used(fleet, now)
    requests = find_drift(
        fleet,
        settings.tag_key,
        policy.block_ref,
        now,
        dry_run=settings.observes_only,
        status_tags=settings.status_tags,
        sync_seconds=settings.sync_seconds,
    )
    sqs.send(settings.notebook_queue, (to_message(request, now, correlation_id) for request in requests))
    if not settings.observes_only:
        _request_upgrades(fleet, settings, policy, deployment, now, correlation_id)
    if settings.entrance_vpcs:
        # Even if no notebook uses it: only a resync finds a rule of this stack that was left behind.
        sqs.request_rule_sync(settings.rule_queue, "sweep", correlation_id)
    if not settings.observes_only:
        send_digest(fleet.records, settings, table, now)
    metrics.count_fleet(fleet_stats(fleet.records, now, settings.sync_seconds))
    _count_needs_admin(fleet, [*table.needs_admin(now), *_over_plan(fleet, settings, now)])
    return {"notebooks": len(fleet.notebooks), "records": len(fleet.records), "requests": len(requests)}


def _request_upgrades(
    fleet: Fleet, settings: Settings, policy: BlockPolicy, deployment: Deployment, now: int, correlation_id: str
) -> None:
    """Queue the upgrades that are due, each with its delay."""
    waiting = sum(is_waiting(record, policy) for record in fleet.config_records)
    if not waiting:
        return
    due = list(due_upgrades(fleet.config_records, policy, deployment, now, settings.sweep_minutes * 60))
    logger.info("scripts wait for their upgrade", extra={"scripts": waiting, "due": len(due)})
    if due:
        messages = ((to_message(request, now, correlation_id)[0], delay) for request, delay in due)
        sqs.send(settings.notebook_queue, messages)


def _note_deployment(table: Table, policy: BlockPolicy, now: int, worker: Callable[[], WorkerProgram]) -> Deployment:
    """Record the block that the stack has now, and its worker, unless they are recorded; what is recorded."""
    before = deployments.read(table)
    if before.block == policy.block_ref and before.since <= now:  # a time ahead comes from a wrong clock
        return before
    after = noted(before, policy, now)
    if after.workers != before.workers:  # before they are recorded: what is recorded is in the table
        save_worker(table, worker().text, policy.block.version)
    logger.info("another block is deployed", extra={"before": before.block, "block": after.block})
    return after if deployments.save(table, after, before) else before


def read_fleet(tag_key: str, table: Table) -> Fleet:
    """Read the whole fleet, page by page: no request is for a single notebook."""
    records: list[UnreadableRecordError] = []
    config_records: list[UnreadableRecordError] = []
    fleet = Fleet(
        # The table first: what is recorded concurrently is then older than the lists, and never the other way round.
        records=tuple(table.records(only=SWEPT, on_unreadable=records.append)),
        config_records=tuple(backups.config_records(table, config_records.append)),
        notebooks=tuple(sagemaker.list_notebooks()),
        lifecycle_configs=tuple(sagemaker.list_lifecycle_configs()),
        # A key in another case as well, since no event and no other list would show it (`invalid-tag`).
        tags={
            arn: tags
            for key in (*case_variants(tag_key), tag_key)
            for arn, tags in resource_tagging.tagged_notebooks(key)
        },
    )
    for error in (*records, *config_records):
        logger.warning("record left out", extra={"reason": str(error)})
    return replace(
        fleet,
        unreadable=frozenset(error.record for error in records),
        unreadable_configs=frozenset(error.record for error in config_records),
    )


def _over_plan(fleet: Fleet, settings: Settings, now: int) -> list[str]:
    """What an admin should know of the ngrok plan; a plan that is used up is logged, before another notebook is refused."""
    wanted = [] if settings.paused else tunnels_wanted(fleet.records, now)
    if len(wanted) == settings.ngrok_endpoints > 0:
        logger.warning("every endpoint of the ngrok plan is in use", extra={"endpoints": settings.ngrok_endpoints})
    reason = excess(wanted, settings.ngrok_endpoints)
    return [reason] if reason else []


def _count_needs_admin(fleet: Fleet, reasons: Sequence[str]) -> None:
    for reason in reasons:
        logger.warning("an admin is needed", extra={"reason": reason})
    metrics.count_needs_admin(len(fleet.unreadable) + len(fleet.unreadable_configs) + len(reasons))


def _log_last_used(fleet: Fleet, now: int) -> None:
    """Log which notebooks were used within the hour, for the dashboard."""
    for record in fleet.records:
        if record.report and record.report.active_at is not None and record.report.active_at > now - USED_RECENTLY_S:
            last_used = iso_time(record.report.active_at)
            logger.info("used over SSH", extra={"notebook": record.name, "last_used": last_used})


def _log_unknown_states(fleet: Fleet) -> None:
    """Log each state that this version does not know: until it does, a notebook that ran counts as running."""
    words = Counter(str(notebook.state) for notebook in fleet.notebooks if not notebook.state.is_known)
    for word, count in sorted(words.items()):
        logger.warning(
            "SageMaker reports a state that this version does not know", extra={"state": word, "notebooks": count}
        )
