"""CloudWatch metrics of the fleet: five in all, whatever its size, because each is billed per month."""

from __future__ import annotations

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from notebook_ssh.model.fleet_stats import FleetStats
from notebook_ssh.model.status import Code

logger = Logger(child=True)


def publish(fleet_stats: FleetStats) -> None:
    """Print the metrics (CloudWatch embedded metric format), and log the numbers that the dashboard reads from the log."""
    _emit(name="Requested", value=fleet_stats.requested)
    _emit(name="Connected", value=fleet_stats.count(Code.CONNECTED))
    _emit(name="Stale", value=fleet_stats.count(Code.STALE))
    _emit(name="Failing", value=fleet_stats.count(Code.ERROR, Code.INVALID_TAG))
    _emit(name="TokenRefused", value=fleet_stats.token_refused)
    for code in Code:  # zero as well, or the last number above it would stay on the dashboard
        logger.info("fleet by status", extra={"status": str(code), "notebooks": fleet_stats.count(code)})
    for problem, number in sorted(fleet_stats.problems.items()):
        logger.info("fleet by problem", extra={"problem": problem, "notebooks": number})


def publish_needs_admin(number: int) -> None:
    """Print how much needs an admin: unreadable records, stuck rules, a wrong write slot. Only when there is something."""
    if number:
        with single_metric(name="NeedsAdmin", unit=MetricUnit.Count, value=number, namespace="notebook-ssh"):
            pass


def _emit(name: str, value: int) -> None:
    with single_metric(name=name, unit=MetricUnit.Count, value=value, namespace="notebook-ssh"):
        pass  # printed at the end of the block
