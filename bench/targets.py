"""What is to be reached, and what is measured for it. docs/performance.md is the page for people."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

import archive
import counts
import endpoint_copies
import size
import ssh_by_name
import time_to_address
from artifacts import PROGRAMS, PROJECT, Artifacts
from aws_stand_in import CONFIGURATIONS_A_PAGE, RECORDS_A_PAGE, self_signed, standing_in
from measure import Cost, cost, counter, output, per_turn, seconds

FEW, MANY = 5, 45
"""Turns of a warm function: the difference between two processes is free of their start."""

IDLE_SECONDS, USUAL_SYNC, BUSY_SYNC = 30, 300, 5
"""How long an idle agent is watched, how often it syncs by default, and how often to see what a sync costs."""

MONTHLY, COST = 1_000, PROJECT / "docs" / "cost"

UNWANTED = ("pydantic", "aws_xray_sdk")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    group, what: which line. value, unit: what was measured. target: what it may be at most, None for a figure that is only
    printed. details: the absolute figures behind it, as text.
    """

    group: str
    what: str
    value: float
    unit: str
    target: float | None = None
    details: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        return None if self.target is None else self.value <= self.target


Group = Callable[[Artifacts], Iterator[Figure]]

STEADY = {
    "lookup_api": ("dynamodb",),
    "record_address": ("dynamodb",),
    "reconcile_notebook": ("dynamodb", "sagemaker"),
    "reconcile_rules": ("dynamodb", "sagemaker", "ec2"),
    "sweep": ("dynamodb", "sagemaker", "resourcegroupstaggingapi"),
}
"""The clients that each function makes when nothing is to be changed."""

AS_DEPLOYED = {
    "STACK_NAME": "notebook-ssh",
    "TABLE_NAME": "records",
    "API_URL": "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/v1",
}
"""Of the functions' environment, what their block is made of (template.yaml)."""


def _ratio(group: str, what: str, ours: Cost, theirs: Cost, target: float | None) -> Figure:
    details = f"{_text(ours)} against {_text(theirs)}"
    return Figure(group, what, ours.value / theirs.value, "×", target, details)


def _text(cost: Cost) -> str:
    spread = f" ± {cost.spread / 2:.1f}" if cost.spread else ""
    return f"{cost.value:,.{0 if cost.value >= 100 else 2}f}{spread} {cost.unit}"


@cache
def _bare(artifacts: Artifacts) -> Cost:
    return cost(artifacts.baselines("nothing"), artifacts.environment())


@cache
def _boto3(artifacts: Artifacts) -> Cost:
    return cost(artifacts.baselines("boto3_alone"), artifacts.environment())


def start(artifacts: Artifacts) -> Iterator[Figure]:
    """Fresh processes until a function is ready, and until its first answer over TLS."""
    boto3 = _boto3(artifacts)
    yield Figure("start", "bare Python", _bare(artifacts).value, boto3.unit)
    yield Figure(
        "start",
        "import boto3",
        boto3.value,
        boto3.unit,
        details=f"{boto3.value / _bare(artifacts).value:.1f} × bare Python",
    )
    for function, services in STEADY.items():
        target = None if function == "lookup_api" else 1.6  # a person waits for its first answer, below
        ready = cost(artifacts.ours("ready", function, *services), artifacts.environment(**AS_DEPLOYED))
        yield _ratio("start", f"{function}, ready; against import boto3", ready, boto3, target)
    yield from _first_answers(artifacts, boto3)


def _first_answers(artifacts: Artifacts, boto3: Cost) -> Iterator[Figure]:
    certificate = self_signed(artifacts.build)
    with standing_in(certificate=certificate) as (address, _):

        def environment(site: Path) -> dict[str, str]:
            # Whom `site` trusts, and the stand-in: reading the list is much of what a first connection costs.
            trusted = artifacts.build / f"{site.name}.pem"  # in no part that is weighed
            trusted.write_bytes((site / "botocore/cacert.pem").read_bytes() + certificate.read_bytes())
            return artifacts.environment(AWS_ENDPOINT_URL=address, AWS_CA_BUNDLE=str(trusted))

        ours = cost(artifacts.ours("calls", "lookup_api", "1"), environment(artifacts.build / "core/python"))
        theirs = cost(artifacts.baselines("idiomatic_lookup", "1"), environment(artifacts.baseline))
        yield _ratio(
            "start", "the idiomatic lookup's first answer with HTTPS; against import boto3", theirs, boto3, None
        )
        yield _ratio("start", "lookup_api, first answer with HTTPS; against the idiomatic lookup's", ours, theirs, 0.80)


def warm(artifacts: Artifacts) -> Iterator[Figure]:
    """One more answer of a function that is warm, against one request of boto3."""
    with standing_in() as (address, calls):
        environment = artifacts.environment(AWS_ENDPOINT_URL=address)

        def each(command: list[str]) -> Cost:
            return per_turn(command, environment, FEW, MANY)

        get = each(artifacts.baselines("one_request", "get_item"))
        yield Figure("warm", "one boto3 GetItem", get.value, get.unit)
        lookup = each(artifacts.ours("calls", "lookup_api"))
        yield _ratio("warm", "lookup; against a GetItem", lookup, get, 1.0)
        yield _ratio(
            "warm", "the idiomatic lookup; against a GetItem", each(artifacts.baselines("idiomatic_lookup")), get, None
        )
        update = each(artifacts.baselines("one_request", "update_item"))
        calls()
        report = each(artifacts.ours("calls", "record_address"))
        yield _ratio("warm", "report; against an UpdateItem", report, update, 1.3)
        made = calls()
        turns = FEW + MANY
        yield Figure("warm", "report, calls to AWS", sum(made.values()) / turns, "calls", 1, _counted(made))


def _counted(calls: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(calls.items()))


def contents(artifacts: Artifacts) -> Iterator[Figure]:
    """What is deployed, and what of it a lookup loads."""
    with standing_in() as (address, _):
        environment = artifacts.environment(AWS_ENDPOINT_URL=address)
        loaded = json.loads(output(artifacts.ours("loaded", "lookup_api"), environment))
    unwanted = [name for name in loaded["modules"] if name.partition(".")[0] in UNWANTED]
    yield Figure(
        "contents", f"lookup, modules of {', '.join(UNWANTED)}", len(unwanted), "modules", 0, ", ".join(unwanted[:3])
    )
    yield Figure("contents", "lookup, clients made", len(loaded["clients"]), "clients", 1, ", ".join(loaded["clients"]))
    modules, checked = _bytecode(artifacts.build)
    yield Figure("contents", "modules without unchecked-hash bytecode", checked, "modules", 0, f"of {modules}")
    parts = {part: len(archive.zipped(artifacts.build / part)) for part in ("core", "functions", "notebook_agent")}
    details = ", ".join(f"{name} {weight / 2**20:.2f}" for name, weight in parts.items())
    yield Figure(
        "contents", "functions and layers, zipped", sum(parts.values()) / 2**20, "MiB", size.LIMIT / 2**20, details
    )


def _bytecode(build: Path) -> tuple[int, int]:
    """How many modules there are, and how many of them lack bytecode that is never checked (PEP 552)."""
    sources = [path for part in ("core", "functions") for path in (build / part).rglob("*.py")]
    good = 0
    for source in sources:
        for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"):
            good += int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01
    return len(sources), len(sources) - good


def fleet(artifacts: Artifacts) -> Iterator[Figure]:
    """The sweep of a fleet in the steady state."""
    mark = _mark(artifacts)
    per_notebook: dict[str, Cost] = {}
    small, large = 200, 1_000
    costs = []
    for notebooks in (small, large):
        with standing_in(notebooks, mark) as (address, calls):
            environment = artifacts.environment(AWS_ENDPOINT_URL=address)
            costs.append(cost(artifacts.ours("sweeping", "quietly"), environment))
            yield _calls(notebooks, calls())
    per_notebook["ours"] = Cost((costs[1].value - costs[0].value) / (large - small), costs[0].unit)
    few, many = 10, 60
    costs = []
    for notebooks in (few, many):
        with standing_in(notebooks, mark) as (address, _):
            environment = artifacts.environment(AWS_ENDPOINT_URL=address)
            costs.append(cost(artifacts.baselines("naive_sweep"), environment))
    per_notebook["naive"] = Cost((costs[1].value - costs[0].value) / (many - few), costs[0].unit)
    with standing_in() as (address, _):
        environment = artifacts.environment(AWS_ENDPOINT_URL=address)
        get = per_turn(artifacts.baselines("one_request", "get_item"), environment, FEW, MANY)
    yield _ratio("fleet", "sweep, each notebook; against a GetItem", per_notebook["ours"], get, 0.45)
    yield _ratio("fleet", "the naive sweep, each notebook; against a GetItem", per_notebook["naive"], get, None)
    with standing_in(10_000, mark) as (address, calls):
        environment = artifacts.environment(AWS_ENDPOINT_URL=address)
        measured = json.loads(
            output(artifacts.ours("sweeping", "tell"), environment).splitlines()[-1]
        )  # after its metrics
        counted = calls()
    yield _calls(10_000, counted)
    # SageMaker's lists are read at 2 pages a second at most (service quotas); the stand-in answers at once.
    lists = counted["ListNotebookInstances"] + counted["ListNotebookInstanceLifecycleConfigs"]
    yield Figure(
        "fleet",
        "sweep of 10,000, CPU and SageMaker's pace",
        measured["cpu_s"] + lists / 2,
        "s",
        300,
        f"CPU {measured['cpu_s']:.1f} s, {lists} list pages at 2 a second",
    )
    yield Figure("fleet", "sweep of 10,000, peak memory", measured["peak_mib"], "MiB", 1024)


def _calls(notebooks: int, counted: dict[str, int]) -> Figure:
    pages = 3 * ceil(notebooks / 100) + ceil(notebooks / RECORDS_A_PAGE) + ceil(notebooks / CONFIGURATIONS_A_PAGE)
    allowed = pages + 4
    return Figure("fleet", f"sweep of {notebooks:,}, calls", sum(counted.values()), "calls", allowed, _counted(counted))


def _mark(artifacts: Artifacts) -> str:
    """Which block the stack of the measured environment has."""
    return output(artifacts.ours("mark"), artifacts.environment()).strip()


def events(artifacts: Artifacts) -> Iterator[Figure]:
    """What events cause, counted through the real reconciler in a simulated account."""
    block, shared, nothing, again = counts.one_tag()
    yield Figure("events", "a tag that installs the block, calls", block.total(), "calls", 16, _counted(block))
    yield Figure("events", "a tag where the block is installed, calls", shared.total(), "calls", 7, _counted(shared))
    yield Figure("events", "an event with nothing to do, calls", nothing.total(), "calls", 4, _counted(nothing))
    yield Figure(
        "events",
        "an event with nothing to do, within a minute of another, calls",
        again.total(),
        "calls",
        3,
        _counted(again),
    )
    yield Figure(
        "events",
        "1,000 events for 200 notebooks, reconciliations of each",
        counts.burst(200, 1_000),
        "reconciliations",
        2,
    )
    for changed in CHANGED:
        taken, refused = counts.many_configurations(changed)
        details = f"{taken:,.0f} s of the simulated clock"
        yield Figure(
            "events", f"{changed:,} changed configurations, seconds for each", taken / changed, "s", 1.1, details
        )
        yield Figure("events", f"{changed:,} changed configurations, writes refused", 100 * refused, "%", 2)


BOOTS = 5
CHANGED = (60, 300, 1_000)


def notebook(artifacts: Artifacts) -> Iterator[Figure]:
    """On the notebook: how long on-start waits, and what the agent takes while nothing happens."""
    with counts.on_start() as script:
        blocked, spread = seconds(lambda: counts.run_on_start(script))
    yield Figure("notebook", "on-start with our block", blocked, "s", 0.3, f"± {spread / 2:.3f}")
    old, _ = seconds(lambda: subprocess.run(["sh", PROGRAMS / "old_on_start.sh"], check=True, capture_output=True), 1)
    yield Figure("notebook", "on-start with the scripts replaced, downloads not counted", old, "s")
    yield _median("from the tunnel's open port to the reported address", time_to_address.seconds_to_report(BOOTS), None)
    yield _median(
        "from the tunnel's open port to the lookup's answer, local run", time_to_address.seconds_to_lookup(BOOTS), 1
    )
    quiet, busy = counts.idle_agent(IDLE_SECONDS, USUAL_SYNC), counts.idle_agent(IDLE_SECONDS, BUSY_SYNC)
    yield Figure("notebook", "idle agent, memory", max(quiet.memory, busy.memory), "MiB", 50)
    # CPU time has a grain of 10 ms: what a sync costs is seen when there are many.
    each = max(0.0, busy.share - quiet.share) * IDLE_SECONDS / max(1, busy.syncs)
    share = quiet.share + each / USUAL_SYNC
    details = f"{100 * quiet.share:.2f} % between syncs, {1000 * each:.0f} ms for each"
    yield Figure("notebook", "idle agent, share of a core with a sync every 5 minutes", 100 * share, "%", 0.5, details)
    yield Figure("notebook", f"idle agent, requests in {IDLE_SECONDS} s of 5 minutes", quiet.syncs, "requests", 0)


def _median(what: str, times: Sequence[float], target: float | None) -> Figure:
    """Of `times` in order, one for each start of a notebook."""
    details = f"{times[0]:.2f} to {times[-1]:.2f} in {len(times)} starts"
    return Figure("notebook", what, times[len(times) // 2], "s", target, details)


def laptop(artifacts: Artifacts) -> Iterator[Figure]:
    """On a person's machine: `ssh name` through the client, against bare ssh to the same sshd."""
    logins = ssh_by_name.logins()
    bare = f"{logins.bare:.2f} s bare"
    cached = max(0.0, logins.cached - logins.bare)
    yield Figure("laptop", "ssh by name, cached address; over bare ssh", cached, "s", 0.1, bare)
    fetched = max(0.0, logins.fetched - logins.bare) / logins.botocore
    details = f"{logins.fetched:.2f} s against {bare}; the import takes {logins.botocore:.2f} s"
    yield Figure("laptop", "ssh by name, address fetched; over bare ssh, against botocore", fetched, "×", 1.0, details)
    checked, python = ssh_by_name.certificate_check()
    details = f"{python:.3f} s of that bare Python"
    yield Figure("laptop", "a good certificate before ssh connects, processor time", checked, "s", 0.04, details)


def endpoint(artifacts: Artifacts) -> Iterator[Figure]:
    """On a person's machine: ssh and scp through an endpoint, by the client against AWS's command line."""
    if not endpoint_copies.is_possible():
        return  # as an ordinary user: AWS's command line trusts the system's authorities alone
    copies = endpoint_copies.copies()
    size = f"{endpoint_copies.LARGE // 2**20} MiB"
    for what, (ours, theirs) in (
        ("ssh by an endpoint; against AWS's command line", copies.login),
        (f"scp of {size} to a notebook by an endpoint; against AWS's command line", copies.upload),
        (f"scp of {size} from a notebook by an endpoint; against AWS's command line", copies.download),
    ):
        yield Figure("endpoint", what, ours / theirs, "×", 1.0, f"{ours:.2f} s against {theirs:.2f} s")


def month(artifacts: Artifacts) -> Iterator[Figure]:
    """What 1,000 notebooks cost a month by docs/cost/model.py, and its three dearest terms."""
    program = f"import json, model; print(json.dumps(model.month({MONTHLY}).lines))"
    command = [artifacts.python, "-I", "-c", f"import sys; sys.path.insert(0, {str(COST)!r}); {program}"]
    lines: dict[str, float] = json.loads(output(command, artifacts.environment()))
    dearest = sorted(lines, key=lambda name: -lines[name])[:3]
    details = ", ".join(f"{name} {lines[name]:.2f}" for name in dearest)
    yield Figure("month", f"a month for {MONTHLY:,} notebooks", sum(lines.values()), "$", None, details)


ALL: dict[str, Group] = {
    "contents": contents,
    "start": start,
    "warm": warm,
    "fleet": fleet,
    "events": events,
    "notebook": notebook,
    "laptop": laptop,
    "endpoint": endpoint,
    "month": month,
}
"""The groups, in the order of the table."""


def method() -> str:
    """How costs were counted here, in a few words."""
    return {
        "valgrind": "instructions (valgrind, cachegrind)",
        "perf": "instructions in user space (perf)",
        "time": "CPU time, medians of fresh processes",
    }[counter()]
