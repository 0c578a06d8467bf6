"""The fleet's numbers as CloudWatch metrics: five in all, whatever the fleet's size, because each costs by the month."""

from __future__ import annotations

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from notebook_ssh.model.fleet_stats import FleetStats
from notebook_ssh.model.status import Code

logger = Logger(child=True)


def show(fleet_stats: FleetStats) -> None:
    """Print the metrics (CloudWatch embedded metric format), and log the rest, which the dashboard reads from the log."""
    _gauge(name="Requested", value=fleet_stats.requested)
    _gauge(name="Connected", value=fleet_stats.count(Code.CONNECTED))
    _gauge(name="Stale", value=fleet_stats.count(Code.STALE))
    _gauge(name="Failing", value=fleet_stats.count(Code.ERROR, Code.INVALID_TAG))
    _gauge(name="TokenRefused", value=fleet_stats.token_refused)
    for code in Code:  # none is a number as well, or the last one that was not none would stand
        logger.info("fleet by status", extra={"status": str(code), "notebooks": fleet_stats.count(code)})
    for problem, number in sorted(fleet_stats.problems.items()):
        logger.info("fleet by problem", extra={"problem": problem, "notebooks": number})


def _gauge(name: str, value: int) -> None:
    with single_metric(name=name, unit=MetricUnit.Count, value=value, namespace="notebook-ssh"):
        pass  # printed at the end of the block
