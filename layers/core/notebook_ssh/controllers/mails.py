"""Mails the admin about notebooks that need attention, within the limits of `planning.mails`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import mail_ledger
from notebook_ssh.adapters.clients import AWS_ERRORS
from notebook_ssh.adapters.notifications import publish_mail
from notebook_ssh.adapters.table import Table
from notebook_ssh.model.record import Mails, Record
from notebook_ssh.model.status import status_of
from notebook_ssh.planning.mails import (
    DIGEST_INTERVAL,
    STACK_LIMIT,
    STACK_PERIOD,
    MailPlan,
    digest,
    has_digest,
    plan_mail,
)
from notebook_ssh.settings import Settings

if TYPE_CHECKING:  # the sweep mails as well, and has neither write slots nor leases
    from notebook_ssh.controllers.dependencies import Dependencies

logger = Logger(child=True)


def mail_about(record: Record, deps: Dependencies, now: int, *, changed: bool) -> Record:
    """Mail what is due about the notebook; returns the record with what was mailed and what was held.

    changed: its status has just changed. A mail that SNS does not accept is held, and the next sweep finds it.
    """
    settings = deps.settings
    if not settings.alarm_topic or not (changed or record.mails):
        return record
    status = status_of(record, now, settings.sync_seconds, settings.tag_key)
    plan = plan_mail(record, status, settings.stack, now, changed=changed)
    return record if plan is None else replace(record, mails=_carried_out(plan, record.name, deps, now))


def send_digest(records: Sequence[Record], settings: Settings, table: Table, now: int) -> None:
    """Mail the digest, at most once a day, if a change was held for it."""
    if not settings.alarm_topic or not has_digest(records, 0):
        return
    last = mail_ledger.last_digest(table)
    if now < last + DIGEST_INTERVAL or not has_digest(records, last):
        return
    publish_mail(settings.alarm_topic, digest(records, settings.stack, last))
    mail_ledger.save_digest(table, now)
    logger.info("digest mailed")


def _carried_out(plan: MailPlan, name: str, deps: Dependencies, now: int) -> Mails:
    if plan.text is None:
        return plan.held
    try:
        if not mail_ledger.claim_mail(deps.table, now, limit=STACK_LIMIT, period=STACK_PERIOD):
            return plan.over_limit
        publish_mail(deps.settings.alarm_topic, plan.text)
    except AWS_ERRORS:
        logger.exception("a mail was not sent", extra={"notebook": name})
        return plan.held
    return plan.sent
