"""Lambda: keep the security-group rules of bastion mode as the whole fleet needs them.

Fed by a FIFO queue with one group, so that only one run is under way at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import time
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.aws import queues, security_groups
from notebook_ssh.aws.table import Table
from notebook_ssh.errors import Permanent, Transient
from notebook_ssh.rules.bastion import (
    Desired,
    Outcome,
    Plan,
    already_seen,
    changed_ways,
    concerns_bastion,
    desired_rules,
    plan,
    where_to_look,
)
from notebook_ssh.rules.correlation import correlation_of_messages
from notebook_ssh.rules.record import Record, Way
from notebook_ssh.rules.signals import LookAtNotebook, to_message
from notebook_ssh.rules.status import headline, status_of
from notebook_ssh.settings import Settings, read_settings

logger = Logger()


def handle(event: Mapping[str, Any], context: object) -> None:
    """Look once for all messages at hand, and not at all when the last look came after they were sent."""
    messages = event.get("Records", ())
    ids = correlation_of_messages(messages)
    logger.append_keys(correlation_id=ids, function_request_id=getattr(context, "aws_request_id", ""))
    settings = read_settings()
    table = Table(settings.table)
    sent_ms = [int(message["attributes"]["SentTimestamp"]) for message in messages]
    if already_seen(sent_ms, table.bastion_observed_from()):
        logger.info("already seen", extra={"messages": len(sent_ms)})
        return
    now = int(time())
    reconcile(settings, table, now, ids)
    table.save_bastion_observed_from(now)
    logger.info("looked at", extra={"messages": len(messages)})


def reconcile(settings: Settings, table: Table, now: int, correlation_id: str) -> None:
    """Observe the fleet and EC2, plan, apply, and record every notebook's way as it is then.

    Raises Transient when the fleet could not be read whole (nothing was revoked then) or EC2 says "later", and
    Permanent when a rule of ours cannot be taken away, so that somebody hears of it.
    """
    fleet, complete = _read_fleet(table)
    around = security_groups.observe(settings.stack, where_to_look(fleet, settings.bastion, now))
    desired = desired_rules(fleet, settings.bastion, around, settings.stack, now)
    changes = plan(desired, around.rules, settings.stack, complete=complete)
    if settings.dry_run:
        logger.info("dry run", extra={"plan": _reasons(changes)})
        outcome = Outcome(standing=changes.satisfied)
    else:
        _log_changes(changes)
        outcome = security_groups.apply(changes, settings.stack)
    changed = _save(changed_ways(fleet, desired, outcome, around, now), fleet, settings, table, now)
    _have_them_told(changed, settings, now, correlation_id)
    _log_problems(desired, outcome)
    if not complete:
        raise Transient("the fleet could not be read whole: nothing was revoked")
    for problem in outcome.stuck.values():
        raise Permanent(problem)


def _read_fleet(table: Table) -> tuple[list[Record], bool]:
    """The notebooks that have to do with the bastion, and whether these are all."""
    fleet: list[Record] = []
    try:
        for record in table.records(consistent=True):
            if concerns_bastion(record):
                fleet.append(record)
    except Transient as error:
        logger.warning("the fleet was not read whole", extra={"error": str(error)})
        return fleet, False
    return fleet, True


def _save(ways: Mapping[str, Way], fleet: Iterable[Record], settings: Settings, table: Table, now: int) -> list[str]:
    """Record the ways; the names of the notebooks whose status is another one now."""
    changed: list[str] = []
    for record in fleet:
        if record.name in ways:
            table.save_way(record.name, ways[record.name])
            after = replace(record, way=ways[record.name])
            if _headline(record, settings, now) != _headline(after, settings, now):
                changed.append(record.name)
    return changed


def _have_them_told(changed: list[str], settings: Settings, now: int, correlation_id: str) -> None:
    looks = [to_message(LookAtNotebook(name, "status"), now, correlation_id) for name in changed]
    try:
        queues.send(settings.notebook_queue, looks)
    except (Transient, ClientError, BotoCoreError):
        # Nothing depends on it: the sweep finds a status that was not told.
        logger.exception("nobody was asked to look at a new status", extra={"notebooks": changed})


def _headline(record: Record, settings: Settings, now: int) -> str:
    return headline(status_of(record, now, settings.sync_seconds, settings.tag_key))


def _reasons(changes: Plan) -> list[str]:
    granted = [f"grant {grant.rule}: {grant.reason}" for grant in changes.grants]
    return granted + [f"revoke {revoke.found.rule}: {revoke.reason}" for revoke in changes.revokes]


def _log_changes(changes: Plan) -> None:
    for grant in changes.grants:
        logger.info("grant", extra={"rule": str(grant.rule), "reason": grant.reason})
    for revoke in changes.revokes:
        logger.info(
            "revoke", extra={"rule": str(revoke.found.rule), "rule_id": revoke.found.id, "reason": revoke.reason}
        )


def _log_problems(desired: Desired, outcome: Outcome) -> None:
    for problem in (*outcome.refused.values(), desired.trouble):
        if problem:
            logger.warning(problem.message, extra={"code": problem.code})
