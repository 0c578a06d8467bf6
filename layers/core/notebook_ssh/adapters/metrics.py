"""CloudWatch metrics: seven in all, whatever the fleet's size, because each is billed per month.

A handler that counts something is decorated with `metrics.log_metrics`, which prints everything that was counted in an
invocation at its end (CloudWatch embedded metric format).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from notebook_ssh.model.status import REACHABLE, Code

if TYPE_CHECKING:
    from notebook_ssh.model.fleet_stats import FleetStats

logger = Logger(child=True)
metrics = Metrics(namespace="notebook-ssh")

# An invocation without a failed request has nothing to count (Powertools, "Metrics", "Suppressing warnings").
warnings.filterwarnings("ignore", "No application metrics to publish")


def count_fleet(fleet_stats: FleetStats) -> None:
    """Count the fleet, and log the numbers that the dashboard reads from the log."""
    _count("Requested", fleet_stats.requested)
    _count("Connected", fleet_stats.count(*REACHABLE))
    _count("Stale", fleet_stats.count(Code.STALE))
    _count("Failing", fleet_stats.count(Code.ERROR, Code.INVALID_TAG))
    _count("TokenRefused", fleet_stats.token_refused)
    for code in Code:  # zero as well, or the last number above it would stay on the dashboard
        logger.info("fleet by status", extra={"status": str(code), "notebooks": fleet_stats.count(code)})
    for problem, number in sorted(fleet_stats.problems.items()):
        logger.info("fleet by problem", extra={"problem": problem, "notebooks": number})


def count_needs_admin(number: int) -> None:
    """Count what needs an admin: unreadable records, stuck rules, a wrong write slot, an ngrok plan that is too small. Only when there is something."""
    if number:
        _count("NeedsAdmin", number)


def count_failed_requests(number: int) -> None:
    """Count the messages that will be delivered again. Lambda counts an invocation that fails as a whole, and not these."""
    if number:
        _count("FailedRequests", number)


def _count(name: str, value: int) -> None:
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
