"""Publishes changes of status, and writes the status into the notebook's tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import sagemaker
from notebook_ssh.adapters.clients import AWS_ERRORS
from notebook_ssh.adapters.notifications import publish_status_change
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.controllers.follow_ups import send
from notebook_ssh.controllers.mails import mail_about
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import status_keys
from notebook_ssh.model.status import REACHABLE, Code, status_key
from notebook_ssh.planning.status_tags import (
    STATUS_TAG_INTERVAL,
    current_status_tags,
    desired_status_tags,
    status_change,
)
from notebook_ssh.triggers.requests import ReconcileNotebook

logger = Logger(child=True)


def tags_to_write(record: Record, tags: Mapping[str, str], deps: Dependencies, now: int) -> Mapping[str, str] | None:
    """Return the status tags to write now; None when they are up to date, or were written less than an interval ago."""
    settings = deps.settings
    desired_tags = (
        desired_status_tags(record, now, settings.sync_seconds, settings.tag_key) if settings.status_tags else {}
    )
    if desired_tags == current_status_tags(tags, settings.tag_key):
        return None
    if desired_tags and now < record.status_tags_at + STATUS_TAG_INTERVAL:
        send((ReconcileNotebook(record.name, "status", at=record.status_tags_at + STATUS_TAG_INTERVAL),), deps, now)
        return None
    return desired_tags


def note_status_tags(
    record: Record, desired_tags: Mapping[str, str] | None, tags: Mapping[str, str], tag_key: str, now: int
) -> Record:
    """Return the record that is saved before `desired_tags` are written (None: nothing is): it shows what may be left."""
    if desired_tags is not None:
        return replace(record, status_tags_at=now, status_tags_left=True)
    return record if current_status_tags(tags, tag_key) else replace(record, status_tags_left=False)


def write_status_tags(
    record: Record, desired_tags: Mapping[str, str], tags: Mapping[str, str], deps: Dependencies, now: int
) -> bool:
    """Bring the tags that we write in line with `desired_tags`; returns False when AWS refused.

    The tags only display the status: a refusal is logged, and no reason to fail. After a retryable one they are written
    after an interval, otherwise (a tag policy, 50 tags already, a denied action) by a later sweep that may. Raises
    NotFoundError when the notebook was deleted.
    """
    tag_key = deps.settings.tag_key
    status = desired_tags.get(status_keys(tag_key)[0], Code.OFF)
    logger.info("write the status tags", extra={"reason": f"it is {status}"})
    try:
        if outdated := current_status_tags(tags, tag_key).keys() - desired_tags.keys():
            sagemaker.remove_tags(record.arn, *sorted(outdated))
        if desired_tags:
            sagemaker.write_tags(record.arn, desired_tags)
    except RetryableError as error:
        logger.warning("the status tags were not written", extra={"reason": str(error)})
        send((ReconcileNotebook(record.name, "status", at=now + STATUS_TAG_INTERVAL),), deps, now)
        return False
    except AWS_ERRORS as error:
        logger.warning("the status tags were not written", extra={"reason": str(error)})
        return False
    return True


def publish_change(record: Record, deps: Dependencies, now: int) -> Record:
    """Publish a change of status once, by whatever caused: a report, a rule, a tag, the clock. Returns the new record.

    Published before it is recorded, so that a crash in between publishes twice rather than never. A change that could
    not be published is found by the next sweep, and no reason to fail. A mail to the admin may follow later.
    """
    settings = deps.settings
    change = status_change(record, now, settings.sync_seconds, settings.tag_key)
    if change is None:
        return mail_about(record, deps, now, changed=False)
    before = record.notified_status.partition(":")[0] or str(Code.OFF)
    try:
        publish_status_change(settings.stack, record.name, record.arn, before, change)
    except AWS_ERRORS:
        logger.exception("a status change was not published", extra={"notebook": record.name})
        return record
    logger.info("status", extra={"notebook": record.name, "before": before, "status": str(change.code)})
    if change.code in REACHABLE and record.spec_changed_at and not record.first_connected:
        waited = max(0, (change.since or now) - record.spec_changed_at)
        logger.info("first connected", extra={"notebook": record.name, "seconds_since_tag": waited})
        record = replace(record, first_connected=True)
    return mail_about(replace(record, notified_status=status_key(change)), deps, now, changed=True)
