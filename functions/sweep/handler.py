"""Lambda: on schedule, find the notebooks that need attention and queue them. Alone it would be enough."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import backups, resource_tagging, sagemaker, sqs
from notebook_ssh.adapters.table import STATUS, Table
from notebook_ssh.model.fleet_stats import fleet_stats
from notebook_ssh.planning.drift import Fleet, find_drift
from notebook_ssh.settings import read_settings
from notebook_ssh.triggers.correlation import correlation_of
from notebook_ssh.triggers.events import to_message
from reconcile_notebook.policy import load_policy
from sweep.gauges import show

logger = Logger()

SWEPT = (*STATUS, "observed_hash", "observed_at", "attached_config", "restart", "notified_status")
"""What of each record the sweep asks about. Unpacking whole records was most of its time (docs/performance.md)."""


def handle(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Read the lists, compare, queue. A list that cannot be read whole fails the sweep: half a list is no news."""
    request = getattr(context, "aws_request_id", "")
    ids = correlation_of(event.get("id"), request)
    logger.append_keys(correlation_id=ids, function_request_id=request)
    settings = read_settings()
    now = int(time.time())
    fleet = read_fleet(settings.tag_key, Table(settings.table))
    requests = find_drift(
        fleet,
        settings.tag_key,
        load_policy(settings).block_ref,
        now,
        dry_run=settings.dry_run,
        status_tags=settings.status_tags,
        sync_seconds=settings.sync_seconds,
    )
    sqs.send(settings.notebook_queue, (to_message(request, now, ids) for request in requests))
    if settings.bastion:
        # Even if nobody uses it: a rule of ours that was left behind is found by looking, and by nothing else.
        sqs.request_bastion_resync(settings.bastion_queue, "sweep", ids)
    show(fleet_stats(fleet.records, now, settings.sync_seconds, settings.tag_key))
    found = {"notebooks": len(fleet.notebooks), "known": len(fleet.records), "looks": len(requests)}
    logger.info("swept", extra=found)
    return found


def read_fleet(tag_key: str, table: Table) -> Fleet:
    """The whole fleet, by pages: no request is for a single notebook."""
    return Fleet(
        # The table first: what is recorded meanwhile then looks older than the lists, and never the other way round.
        records=tuple(table.records(only=SWEPT, on_unreadable=_log_unreadable)),
        config_records=tuple(backups.config_records(table, _log_unreadable)),
        notebooks=tuple(sagemaker.list_notebooks()),
        lifecycle_configs=tuple(sagemaker.list_lifecycle_configs()),
        tags=dict(resource_tagging.tagged_notebooks(tag_key)),
    )


def _log_unreadable(error: Exception) -> None:
    """Log a record that is left out: the sweep only requests reconciliations, and each of these reads its own record."""
    logger.warning("record left out", extra={"reason": str(error)})
