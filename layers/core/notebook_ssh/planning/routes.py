"""What has to be read before rules are planned, and what the records say of routes afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from notebook_ssh.model.network import Ec2Query, NetworkState
from notebook_ssh.model.record import Record, Route, is_running
from notebook_ssh.model.spec import Mode
from notebook_ssh.planning.entrances import Entrance, wants_route
from notebook_ssh.planning.rules import Desired, Outcome
from notebook_ssh.triggers.requests import SAVE_DELAY

CLOCK_SKEW = 5
"""Seconds by which the clocks of the queue and of the function may differ."""


def covered_by_last_sync(sent_ms: Sequence[int], observed_from: int | None, now: int) -> bool:
    """Return whether the sync that began at `observed_from` (epoch seconds) covers messages sent at `sent_ms`.

    sent_ms is in epoch milliseconds (SQS, `SentTimestamp`). A message is sent before its record is saved, and at most
    SAVE_DELAY before: a consistent read after that includes the record. The queue delays messages for longer, so that a
    burst of messages leads to one run. A sync that began after `now` (epoch seconds) covers nothing.
    """
    if not sent_ms or observed_from is None or observed_from > now:
        return False
    return max(sent_ms) < (observed_from - SAVE_DELAY - CLOCK_SKEW) * 1000


def resources_to_read(fleet: Iterable[Record], through: Sequence[Entrance], now: int) -> Ec2Query:
    """Return what the rules of `fleet` depend on: the groups at both ends, and the running notebooks' interfaces."""
    groups, interfaces = {group for entrance in through for group in entrance.groups}, set()
    for record in fleet:
        if any(wants_route(record, entrance.mode, now) for entrance in through):
            groups.update(record.network.security_groups)
            if record.network.interface and is_running(record):
                interfaces.add(record.network.interface)
    return Ec2Query(tuple(sorted(groups)), tuple(sorted(interfaces)))


def changed_routes(
    fleet: Iterable[Record], entrance: Entrance, desired: Desired, outcome: Outcome, network: NetworkState, now: int
) -> dict[str, Route]:
    """Return the current route through `entrance` by notebook, for those where it differs from the record."""
    changed, mode = {}, entrance.mode
    for record in fleet:
        is_new = mode not in record.routes
        if is_new and mode not in record.spec.modes:
            continue
        before = record.routes.get(mode, Route())
        after = replace(_route(record, entrance, desired, outcome, network), since=before.since)
        if after != before or (is_new and wants_route(record, mode, now)):
            changed[record.name] = replace(after, since=now)
    return changed


def all_changed_routes(
    fleet: Sequence[Record],
    desired: Mapping[Entrance, Desired],
    outcome: Outcome,
    network: NetworkState,
    now: int,
) -> dict[str, dict[Mode, Route]]:
    """Return by notebook and mode the routes that differ from the record."""
    changed: dict[str, dict[Mode, Route]] = {}
    for entrance, rules in desired.items():
        for name, route in changed_routes(fleet, entrance, rules, outcome, network, now).items():
            changed.setdefault(name, {})[entrance.mode] = route
    return changed


def _route(record: Record, entrance: Entrance, desired: Desired, outcome: Outcome, network: NetworkState) -> Route:
    if record.name in desired.blockers:
        return Route(problem=desired.blockers[record.name])
    needs = desired.needs.get(record.name)
    if needs is None:
        groups = record.network.security_groups
        stuck = (problem for found, problem in outcome.not_revoked.items() if found.rule.group in groups)
        return Route(problem=next(stuck, None))
    # A refused client affects some users of the bastion and not this notebook, so it comes last.
    refusals = [outcome.refused[rule] for rule in (*needs, *desired.clients) if rule in outcome.refused]
    return Route(
        open=all(rule in outcome.in_effect for rule in needs),
        private_ip=network.address_of.get(record.network.interface or ""),
        problem=next(iter(refusals), desired.config_problem),
        endpoint=entrance.endpoint,
    )
