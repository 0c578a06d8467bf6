"""What a month of the stack costs, from the prices in prices.json and the assumptions below.

    python3 docs/cost/model.py [--sync SECONDS]        prints the tables of docs/cost.md

Assumed numbers are assumptions: each has a name, and a sentence saying where it comes from.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

PRICES: dict[str, float] = {
    name: value
    for name, value in json.loads((Path(__file__).parent / "prices.json").read_text("utf-8")).items()
    if isinstance(value, int | float)
}

MONTH_SECONDS = 30 * 86_400
RUNNING_SECONDS = 22 * 8 * 3600
"""A notebook runs 22 days of 8 hours; stopped, it costs the stack nothing but its share of the sweeps."""

SWEEP_SECONDS = 900
METRICS = 5
"""Gauges of the sweep. What else the dashboard shows of our own is read from the logs on demand, and a metric
that is sent only when something fails, as `FailedRequests` is, is billed for those hours alone."""
ALARMS = 12

REPORT_SECONDS = 0.020
"""Billed time of a report in steady state: one conditional write and an answer."""
REPORT_LOG_BYTES = 1200
"""Log of one report: START, END, REPORT and the platform's framing. In steady state the code itself logs nothing."""
FUNCTION_GIGABYTES = 0.5
REPORT_WRITES = 1
"""Write units of a report in steady state: one write, of a record below 1 KB (tests/functions/test_write_units.py)."""
START_REPORTS, START_REPORT_WRITES = 2, 2
"""Reports of a start, once a working day: the first, and the one with the address. Each is tried, then replaced."""
CHANGES_A_DAY = 6
"""State changes, tag changes and configuration changes of a notebook on a working day, with our own answers to them."""
CHANGE_READS, CHANGE_WRITES = 3, 1
"""Units of a reconciliation where the block is installed already: the record, the configuration and the clock at once, each up to 4 KB
and consistent; and the record written (tests/functions/test_calls_per_event.py)."""
RECONCILE_SECONDS = 0.4
LOOKUPS_A_DAY = 10
"""How often a user looks a notebook's address up on a working day."""
SWEEP_SECONDS_A_PAGE = 0.6
"""Billed time of the sweep for each page of 100 notebooks: three list calls at the service's rates, and the table."""
RECORDS_A_READ = 8
"""A record is below 1 KB: the sweep's eventually consistent pages take half a unit for each 4 KB."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month's cost in dollars, by what it is paid for."""

    lines: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.lines.values())


def month(notebooks: int, sync_seconds: int = 300) -> Month:
    """What `notebooks` tagged notebooks cost a month with a report every `sync_seconds`."""
    p = PRICES
    steady = notebooks * RUNNING_SECONDS / sync_seconds
    news = notebooks * 22 * START_REPORTS
    reports = steady + news
    changes = notebooks * 22 * CHANGES_A_DAY
    lookups = notebooks * 22 * LOOKUPS_A_DAY
    sweeps = MONTH_SECONDS / SWEEP_SECONDS
    pages = max(1, -(-notebooks // 100))
    sweep_seconds = sweeps * (1 + pages * SWEEP_SECONDS_A_PAGE)
    invocations = reports + changes + lookups + sweeps
    gigabyte_seconds = FUNCTION_GIGABYTES * (
        (reports + lookups) * REPORT_SECONDS + changes * RECONCILE_SECONDS + 2 * sweep_seconds
    )
    reads = changes * CHANGE_READS + lookups * 0.5 + sweeps * notebooks / RECORDS_A_READ
    writes = steady * REPORT_WRITES + news * START_REPORT_WRITES + changes * CHANGE_WRITES
    # A container lives for hours and keeps the token for a minute: a call a minute while anything runs, at most.
    secret_requests = min(reports, RUNNING_SECONDS / 60)
    return Month(
        {
            "API requests": (reports + lookups) * p["api_request"],
            "Logs": (invocations * REPORT_LOG_BYTES + changes * 2000) / 1e9 * p["log_gigabyte"],
            "Table writes": writes * p["table_write"],
            "Table reads": reads * p["table_read"],
            "Lambda": invocations * p["lambda_request"] + gigabyte_seconds * p["lambda_arm_gb_second"],
            "Queues and events": changes * (4 * p["queue_request"] + p["bus_event"])
            # Two consumers ask their queues all the time, five pollers each, 20 seconds a question.
            + 10 * MONTH_SECONDS / 20 * p["queue_request"]
            + sweeps * p["schedule_invocation"],
            "Secret": p["secret_month"] + secret_requests * p["secret_request"],
            "Metrics, alarms, dashboard": METRICS * p["custom_metric_month"]
            + ALARMS * p["alarm_month"]
            + p["dashboard_month"],
        }
    )


FLEETS = (10, 1_000, 10_000)


def table(sync_seconds: int) -> str:
    """A Markdown table: a line for each kind of cost, the dearest at the largest fleet first."""
    months = {count: month(count, sync_seconds) for count in FLEETS}
    names = sorted(months[FLEETS[-1]].lines, key=lambda name: -months[FLEETS[-1]].lines[name])
    rows = ["| $ a month | " + " | ".join(f"{count:,} notebooks" for count in FLEETS) + " |", "|---|---:|---:|---:|"]
    rows += [
        f"| {name} | " + " | ".join(f"{months[count].lines[name]:,.2f}" for count in FLEETS) + " |" for name in names
    ]
    rows.append("| **all** | " + " | ".join(f"**{months[count].total:,.2f}**" for count in FLEETS) + " |")
    return "\n".join(rows)


def knobs() -> str:
    """What the time between two reports does to the total."""
    rows = [
        "| a report every | " + " | ".join(f"{count:,} notebooks" for count in FLEETS) + " |",
        "|---|---:|---:|---:|",
    ]
    for seconds in (60, 300, 900, 3600):
        costs = " | ".join(f"{month(count, seconds).total:,.2f}" for count in FLEETS)
        rows.append(f"| {seconds} s | {costs} |")
    return "\n".join(rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What a month costs")
    parser.add_argument("--sync", type=int, default=300, help="seconds between two reports (SyncSeconds)")
    print(table(parser.parse_args().sync), knobs(), sep="\n\n")


if __name__ == "__main__":
    main()
