"""Lambda: on schedule, find the notebooks that need attention and queue them. Alone it would be enough."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from notebook_ssh.aws import backups, notebooks, queues, tagging
from notebook_ssh.aws.table import STATUS, Table
from notebook_ssh.rules.correlation import correlation_of
from notebook_ssh.rules.fleet import Fleet, who_needs_attention
from notebook_ssh.rules.signals import to_message
from notebook_ssh.rules.tally import tally
from notebook_ssh.settings import read_settings
from reconcile_notebook.terms import read_terms
from sweep.gauges import show

logger = Logger()

SWEPT = (*STATUS, "seen", "observed_at", "attached", "restart", "told")
"""What of each record the sweep asks about. Unpacking whole records was most of its time (docs/performance.md)."""


def handle(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Read the lists, compare, queue. A list that cannot be read whole fails the sweep: half a list is no news."""
    request = getattr(context, "aws_request_id", "")
    ids = correlation_of(event.get("id"), request)
    logger.append_keys(correlation_id=ids, function_request_id=request)
    settings = read_settings()
    now = int(time.time())
    fleet = read_fleet(settings.tag_key, Table(settings.table))
    looks = who_needs_attention(
        fleet,
        settings.tag_key,
        read_terms(settings).mark,
        now,
        dry_run=settings.dry_run,
        status_tags=settings.status_tags,
        sync_seconds=settings.sync_seconds,
    )
    queues.send(settings.notebook_queue, (to_message(look, now, ids) for look in looks))
    if settings.bastion:
        # Even if nobody uses it: a rule of ours that was left behind is found by looking, and by nothing else.
        queues.tell_bastion(settings.bastion_queue, "sweep", ids)
    show(tally(fleet.records, now, settings.sync_seconds, settings.tag_key))
    found = {"notebooks": len(fleet.notebooks), "known": len(fleet.records), "looks": len(looks)}
    logger.info("swept", extra=found)
    return found


def read_fleet(tag_key: str, table: Table) -> Fleet:
    """The whole fleet, by pages: no request is for a single notebook."""
    return Fleet(
        # The table first: what is recorded meanwhile then looks older than the lists, and never the other way round.
        records=tuple(table.records(only=SWEPT)),
        kept=tuple(backups.all_kept(table)),
        notebooks=tuple(notebooks.list_notebooks()),
        configurations=tuple(notebooks.list_configurations()),
        tags=dict(tagging.tagged_notebooks(tag_key)),
    )
