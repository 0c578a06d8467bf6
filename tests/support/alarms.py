"""CloudWatch as far as the template's alarms need it: what was measured, and when an alarm would ring.

It judges by the alarm's own definition in template.yaml. What no alarm there says, it refuses. Rules: CloudWatch User
Guide, "Evaluating an alarm" (each minute, over the periods that end then) and "how CloudWatch alarms treat missing data".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.stack import Stack

MINUTE = 60

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "SampleCount": len,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value. metric: namespace, name, and the dimensions, each as (name, value). at: epoch seconds."""

    metric: tuple[str, str, frozenset[tuple[str, str]]]
    value: float
    at: int


class Watch:
    """What was measured so far. Resources that AWS names have the names that `stack.Stack` gives them."""

    def __init__(self) -> None:
        self.alarms: dict[str, dict[str, Any]] = Stack().of_type("AWS::CloudWatch::Alarm")
        self.samples: list[Sample] = []

    def measure(self, namespace: str, name: str, dimensions: Mapping[str, str], value: float, at: int) -> None:
        """A service of AWS measures `value`."""
        self.samples.append(Sample((namespace, name, frozenset(dimensions.items())), value, at))

    def read(self, printed: str, at: int) -> None:
        """What a function printed at `at`: its metrics are those in the embedded metric format."""
        for line in printed.splitlines():
            blob = json.loads(line) if "_aws" in line else {}
            for metrics in blob.get("_aws", {}).get("CloudWatchMetrics", ()):
                for metric in metrics["Metrics"]:
                    (names,) = metrics["Dimensions"]
                    for value in blob[metric["Name"]]:
                        self.measure(metrics["Namespace"], metric["Name"], {n: blob[n] for n in names}, value, at)

    def rings(self, name: str, at: int) -> bool:
        """Whether the alarm rings at `at`, having been looked at each minute since the first value."""
        alarm, ringing = self.alarms[name], False
        dimensions = frozenset((each["Name"], each["Value"]) for each in alarm["Dimensions"])
        metric = (alarm["Namespace"], alarm["MetricName"], dimensions)
        samples = [sample for sample in self.samples if sample.metric == metric]
        first = min((sample.at for sample in self.samples), default=at)
        for now in range(at - (at - first) // MINUTE * MINUTE, at + 1, MINUTE):
            ringing = _rings(alarm, samples, now, before=ringing)
        return ringing


def _rings(alarm: Mapping[str, Any], samples: Sequence[Sample], now: int, *, before: bool) -> bool:
    periods = int(alarm["EvaluationPeriods"])
    values = [_value(alarm, samples, now - number * int(alarm["Period"])) for number in range(periods)]
    missing = alarm["TreatMissingData"]
    if missing == "ignore" and values == [None]:
        return before
    if missing == "ignore" and None in values:
        raise NotImplementedError("only some of several periods without data, which are to be ignored")
    breaching = [_breaches(alarm, value) if value is not None else missing == "breaching" for value in values]
    return breaching.count(True) >= int(alarm.get("DatapointsToAlarm", periods))


def _value(alarm: Mapping[str, Any], samples: Sequence[Sample], end: int) -> float | None:
    values = [sample.value for sample in samples if end - int(alarm["Period"]) < sample.at <= end]
    return STATISTICS[alarm["Statistic"]](values) if values else None


def _breaches(alarm: Mapping[str, Any], value: float) -> bool:
    threshold = float(alarm["Threshold"])
    match alarm["ComparisonOperator"]:
        case "GreaterThanOrEqualToThreshold":
            return value >= threshold
        case "LessThanThreshold":
            return value < threshold
    raise NotImplementedError(alarm["ComparisonOperator"])
