"""Facts about rates: how many calls a second AWS takes. None of them is retried."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab

READS_A_SECOND = 5
READS = 25
"""Calls of each kind: five seconds at this rate."""

SENDS_A_SECOND = 300
SEND_S = 2.0
SENDERS = 32

NEAR = 0.9
"""Which part of the expected rate counts as it: the limit's window is not ours."""


class Figures(NamedTuple):
    """How many calls AWS answered, refused because of the rate, and refused otherwise; in so many seconds."""

    answered: int
    throttled: int
    others: int
    seconds: float

    @property
    def rate(self) -> float:
        """Calls a second that were answered."""
        return self.answered / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return f"{self.answered} answered and {self.throttled} throttled in {self.seconds:.1f} s"


# ---- describe-rate ---------------------------------------------------------------------------------


class ReadRates(NamedTuple):
    """What either call was answered, when both were made at the same time, READS_A_SECOND of each."""

    describe: Figures
    list_tags: Figures


def observe_describe_rate(lab: Lab) -> ReadRates | None:
    """Describe a notebook and list its tags, 25 times each in five seconds. None: the account has no notebook."""
    found = lab.account.client("sagemaker").list_notebook_instances(MaxResults=1)["NotebookInstances"]
    if not found:
        return None
    name, arn = found[0]["NotebookInstanceName"], found[0]["NotebookInstanceArn"]
    sagemaker = lab.account.client("sagemaker", retry=False)
    calls = (
        lambda: sagemaker.describe_notebook_instance(NotebookInstanceName=name),
        lambda: sagemaker.list_tags(ResourceArn=arn),
    )
    with ThreadPoolExecutor(2) as both:
        rates = ReadRates(*both.map(_pace, calls))
    lab.account.note(f"sagemaker:DescribeNotebookInstance × {READS}", str(rates.describe))
    lab.account.note(f"sagemaker:ListTags × {READS}", str(rates.list_tags))
    return rates


def decide_describe_rate(seen: ReadRates | None) -> Decision:
    """No call may be throttled."""
    if seen is None:
        return Undecided("the account has no notebook")
    told = f"DescribeNotebookInstance: {seen.describe}, ListTags: {seen.list_tags}"
    if any(each.throttled for each in seen):
        return Refuted(f"{told}; other programs' calls in the account count as well")
    if any(each.others for each in seen):
        return Undecided(f"calls were refused for another reason than their rate ({told})")
    if any(each.rate < READS_A_SECOND * NEAR for each in seen):
        return Undecided(f"this machine did not reach {READS_A_SECOND} calls a second ({told})")
    return Holds(told)


def _pace(call: Callable[[], object]) -> Figures:
    """Make READS calls, READS_A_SECOND of them a second, without waiting for answers."""
    began = time.monotonic()

    def at(number: int) -> str:
        time.sleep(max(0.0, began + number / READS_A_SECOND - time.monotonic()))
        return _outcome(call)

    with ThreadPoolExecutor(READS) as callers:
        outcomes = Counter(callers.map(at, range(READS)))
    return _figures(outcomes, max(time.monotonic() - began, READS / READS_A_SECOND))


# ---- fifo-rate -------------------------------------------------------------------------------------


def observe_fifo_rate(lab: Lab) -> Figures:
    """Send to the run's own FIFO queue as fast as this machine can, for two seconds; about a tenth of a cent."""
    queue, sqs = lab.outputs["RateQueue"], lab.account.client("sqs", retry=False)
    began = time.monotonic()

    def send(sender: int) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        while time.monotonic() < began + SEND_S:
            message = {"MessageGroupId": str(sender), "MessageDeduplicationId": f"{sender}-{outcomes.total()}-{began}"}
            outcomes[_outcome(partial(sqs.send_message, QueueUrl=queue, MessageBody="x", **message))] += 1
        return outcomes

    with ThreadPoolExecutor(SENDERS) as senders:
        outcomes = sum(senders.map(send, range(SENDERS)), Counter[str]())
    figures = _figures(outcomes, time.monotonic() - began)
    lab.account.note(f"sqs:SendMessage × {outcomes.total()}, {SENDERS} at a time", str(figures))
    return figures


def decide_fifo_rate(seen: Figures) -> Decision:
    """So many must be answered, whether more are refused or not."""
    told = f"SendMessage to a FIFO queue: {seen}, which is {seen.rate:.0f} a second"
    if seen.rate >= SENDS_A_SECOND * NEAR:
        return Holds(told)
    if seen.throttled:
        return Refuted(told)
    if seen.others:
        return Undecided(f"calls were refused for another reason than their rate ({told})")
    return Undecided(f"this machine did not reach {SENDS_A_SECOND} calls a second, and none was refused ({told})")


# ---- calls -----------------------------------------------------------------------------------------


def _outcome(call: Callable[[], object]) -> str:
    """How a call ended: "answered", or "throttled", or "others"."""
    try:
        call()
    except ClientError as error:
        return "throttled" if "throttl" in str(error.response.get("Error", {}).get("Code", "")).lower() else "others"
    return "answered"


def _figures(outcomes: Counter[str], seconds: float) -> Figures:
    return Figures(outcomes["answered"], outcomes["throttled"], outcomes["others"], seconds)


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "describe-rate",
        f"describe a notebook and list its tags {READS} times each in {READS // READS_A_SECOND} seconds",
        frozenset(),
        observe_describe_rate,
        decide_describe_rate,
    ),
    Experiment(
        "fifo-rate",
        f"send to a FIFO queue for {SEND_S:.0f} seconds, as often as this machine can",
        frozenset({Need.LAB}),
        observe_fifo_rate,
        decide_fifo_rate,
    ),
)
