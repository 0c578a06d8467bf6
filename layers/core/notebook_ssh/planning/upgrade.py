"""Decides whether a block of another version is replaced at once, or stays for a while because it works.

A block that works needs no write today: its agents reach this stack, and get the worker that they ask for. So a new
version of the stack replaces these blocks later, and one after the other. A damaged block, a changed setting that the
agents depend on, and a block whose worker the stack does not have are replaced at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from notebook_ssh.model.block_program import read_settings
from notebook_ssh.model.managed_block import Inspection, Present
from notebook_ssh.planning.observation import (
    BlockPolicy,
    Deployment,
    LifecycleConfigRecord,
    NotebookObservation,
    block_ref,
)
from notebook_ssh.triggers.requests import LONGEST_DELAY, ReconcileLifecycleConfig

UPGRADE_INTERVAL_S = 10
"""Seconds between two upgrades, so that a fault of a new version shows before many scripts have its block."""

REQUEST_INTERVAL_S = 12
"""Seconds between two requests of a sweep: an upgrade waits a second or two for its write slot, and so does the next."""

LONGEST_WAIT_S = 5
"""Seconds for which an upgrade waits for the interval to pass; with more to wait it is left to the next sweep."""

MAX_WORKERS = 40
"""Workers in the list of those that the table has: it is read with every batch of messages."""

AGENT_OUTDATED = "agent-outdated"
"""The problem of an agent that lacks its worker, or does not know what the tags request."""

_WORKER, _VERSION = "WORKER", "VERSION"
_NEEDED = ("STACK", "REGION", "API", "TAG_KEY")


def works(found: Inspection, policy: BlockPolicy, deployment: Deployment) -> bool:
    """Return whether a script holds an older block that may stay: whole, in its place, and of use with this stack."""
    if not isinstance(found, Present) or not (found.intact and found.on_top):
        return False
    settings, wanted = read_settings(found.body), policy.block.settings
    worker = settings.get(_WORKER, "")
    has_worker = worker == wanted.get(_WORKER) or worker_fingerprint(worker) in deployment.workers
    return block_ref(found) != policy.block_ref and bool(worker) and has_worker and _reaches(settings, wanted)


def is_due(policy: BlockPolicy, deployment: Deployment, now: int, record: LifecycleConfigRecord | None = None) -> bool:
    """Return whether blocks that work are replaced at `now` (epoch seconds), if no other one was just replaced.

    record: of the script with the block. One that is younger than the deployment is of a version that no sweep recorded
    before the stack went back: it stays for as long as any other.
    """
    if not policy.upgrade_after:
        return True
    placed = max(record.block_since or 0, record.replaced_at or 0) if record else 0
    since = max(deployment.since, placed if placed <= now else 0)  # a time ahead comes from a wrong clock
    return deployment.block == policy.block_ref and now >= since + policy.upgrade_after


def is_free(deployment: Deployment, now: int) -> bool:
    """Return whether the last upgrade is long enough ago at `now` (epoch seconds), or almost."""
    ahead = deployment.next_upgrade / 1000 - now
    # One that is farther ahead than any upgrade could have set it counts as free.
    return not LONGEST_WAIT_S < ahead <= 2 * UPGRADE_INTERVAL_S


def is_requested(observed: NotebookObservation) -> bool:
    """Return whether the script of a notebook with SSH is upgraded now: its tag requests a restart, or its agent needs it."""
    report = observed.record.report if observed.record else None
    outdated = report is not None and report.problem is not None and report.problem.code == AGENT_OUTDATED
    return observed.spec.restart or outdated


def due_upgrades(
    records: Iterable[LifecycleConfigRecord], policy: BlockPolicy, deployment: Deployment, now: int, interval: int
) -> Iterator[tuple[ReconcileLifecycleConfig, int]]:
    """Yield a request for each script whose upgrade is due at `now` (epoch seconds), with the seconds to delay it.

    interval: seconds until the next sweep. What does not fit before it is left to that one.
    """
    waiting = (each.name for each in records if is_waiting(each, policy) and is_due(policy, deployment, now, each))
    for delay, name in zip(range(0, min(interval, LONGEST_DELAY), REQUEST_INTERVAL_S), waiting, strict=False):
        yield ReconcileLifecycleConfig(name, "its block is due to be upgraded"), delay


def is_waiting(record: LifecycleConfigRecord, policy: BlockPolicy) -> bool:
    """Return whether a script has been left with a block that works, though the stack has another."""
    older = record.block not in ("", policy.block_ref)
    return older and record.tried == policy.block_ref and record.problem is None


def noted(deployment: Deployment, policy: BlockPolicy, now: int) -> Deployment:
    """Return the deployment as a sweep records it that runs with the block of `policy` at `now` (epoch seconds)."""
    worker = worker_fingerprint(policy.block.settings.get(_WORKER, ""))
    others = [each for each in deployment.workers if each != worker]
    workers = (*others, worker)[-MAX_WORKERS:] if worker else deployment.workers
    return Deployment(policy.block_ref, now, workers, deployment.next_upgrade)


def worker_fingerprint(sha256: str) -> str:
    """Return what stands for a worker in the list of those that the table has: the first 16 digits of its SHA-256."""
    return sha256[:16]


def _reaches(settings: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether the older settings serve: with a new version, if agents reach the stack; otherwise, if none changed.

    A setting that another version has too may be new there, or have another default: that is part of its upgrade.
    """
    if settings.get(_VERSION) != wanted.get(_VERSION):
        return all(settings.get(word) == wanted.get(word) for word in _NEEDED)
    return all(settings.get(word) == wanted.get(word) for word in {*settings, *wanted} - {_WORKER})
