"""Which changes of status are mailed, in how many mails, and with which words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.builders import NOW, a_record
from support.stack import PROJECT

from notebook_ssh.errors import Problem
from notebook_ssh.model.problems import CODES
from notebook_ssh.model.record import Mails, Record
from notebook_ssh.model.status import Code, Status
from notebook_ssh.planning.mails import (
    DIGEST_INTERVAL,
    DIGEST_NAMES,
    NOTEBOOK_INTERVAL,
    STACK_LIMIT,
    STACK_PERIOD,
    digest,
    has_digest,
    is_mail_due,
    plan_mail,
)

DAY = 86_400
FAILED = Status(Code.ERROR, NOW, "a message", "do this", Problem("ngrok-failed", "words of the notebook"))
CONNECTED = Status(Code.CONNECTED, NOW, "fine", "nothing")


@pytest.mark.parametrize(
    ("mails", "changed", "text", "saved"),
    [
        # the first change at once
        (None, True, "demo needs attention: ngrok-failed", Mails(NOW)),
        # the next ones are counted
        (Mails(NOW - 5), True, None, Mails(NOW - 5, held=1)),
        (Mails(NOW - 3599, held=7), True, None, Mails(NOW - 3599, held=8)),
        # after an hour, one mail for all of them, whether or not another one comes
        (Mails(NOW - 3600, held=7), True, "Changes since the last mail about it: 8", Mails(NOW)),
        (Mails(NOW - 3600, held=7), False, "Changes since the last mail about it: 7", Mails(NOW)),
    ],
)
def test_a_notebook_is_mailed_at_once_and_then_once_an_hour(
    mails: Mails | None, changed: bool, text: str | None, saved: Mails
) -> None:
    plan = plan_mail(a_record(mails=mails), FAILED, "team", NOW, changed=changed)
    assert plan
    assert (plan.text is None) == (text is None)
    assert text is None or text in (plan.text or "")
    assert (plan.held if text is None else plan.sent) == saved


@pytest.mark.parametrize(
    ("mails", "status", "changed"),
    [
        (None, CONNECTED, True),
        (None, FAILED, False),
        (Mails(NOW - 9000), FAILED, False),
        (Mails(NOW - 9000, held=2), CONNECTED, True),
        (Mails(NOW - 5, held=2), FAILED, False),
        (Mails(NOW - 9000, held=2, digest_at=NOW - 9000), FAILED, False),  # the digest has it
    ],
)
def test_nothing_else_is_mailed(mails: Mails | None, status: Status, changed: bool) -> None:
    record = a_record(mails=mails)
    assert plan_mail(record, status, "team", NOW, changed=changed) is None
    assert not is_mail_due(record, status, NOW)


def test_a_held_change_is_due_when_the_hour_is_over() -> None:
    record = a_record(mails=Mails(NOW, held=1))
    assert not is_mail_due(record, FAILED, NOW + NOTEBOOK_INTERVAL - 1)
    assert is_mail_due(record, FAILED, NOW + NOTEBOOK_INTERVAL)


def test_above_the_limit_of_the_stack_a_change_waits_for_the_digest_and_is_in_one() -> None:
    plan = plan_mail(a_record(), FAILED, "team", NOW, changed=True)
    assert plan
    record = a_record(mails=plan.over_limit)
    assert record.mails == Mails(held=1, digest_at=NOW)
    assert has_digest([record], NOW - 1)
    assert not has_digest([record], NOW)
    assert "1 notebook needed attention: demo." in digest([record], "team", 0)


def test_a_digest_of_many_is_short_and_counts_the_rest() -> None:
    records = [a_record(name=f"box-{i}", mails=Mails(0, 1, NOW)) for i in range(500)]
    text = digest(records, "team", 0)
    assert f"box-{DIGEST_NAMES - 1} and {500 - DIGEST_NAMES} more" in text
    assert f"box-{DIGEST_NAMES}" not in text
    assert len(text) < 4_000


def mails_of_a_day(notebooks: int, every: int) -> list[str]:
    """A day in which each notebook fails and recovers all the time, with a sweep every quarter of an hour."""
    records: list[Record] = [a_record(name=f"box-{number}") for number in range(notebooks)]
    sent: list[str] = []
    since, count, digest_at = 0, 0, 0
    for now in range(NOW, NOW + DAY, every):
        for number, record in enumerate(records):
            status = CONNECTED if (now // every) % 3 == 0 else FAILED
            plan = plan_mail(record, status, "team", now, changed=True)
            if plan is None:
                continue
            if plan.text is None:
                records[number] = replace(record, mails=plan.held)
                continue
            if now >= since + STACK_PERIOD:
                since, count = now, 0
            if count == STACK_LIMIT:
                records[number] = replace(record, mails=plan.over_limit)
                continue
            count += 1
            sent.append(plan.text)
            records[number] = replace(record, mails=plan.sent)
        if now % 900 < every and now >= digest_at + DIGEST_INTERVAL and has_digest(records, digest_at):
            sent.append(digest(records, "team", digest_at))
            digest_at = now
    return sent


@pytest.mark.slow
@pytest.mark.parametrize(("notebooks", "every"), [(1, 1), (10, 10), (10, 300), (200, 300)])
def test_a_day_of_flipping_notebooks_is_250_mails_at_most(notebooks: int, every: int) -> None:
    assert 0 < len(mails_of_a_day(notebooks, every)) <= 250


def test_the_codes_are_those_that_are_documented() -> None:
    page = (PROJECT / "docs" / "statuses.md").read_text("utf-8").partition("## Problem codes")[2]
    rows = re.findall(r"^\| (?:[^|]+ \| )?(`.+?) \|", page, re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)} == CODES
