"""Keeps the security-group rules of bastion and endpoint as the whole fleet needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import ec2, sqs
from notebook_ssh.adapters.clients import AWS_ERRORS
from notebook_ssh.adapters.codec import UnreadableRecordError
from notebook_ssh.adapters.table import Table
from notebook_ssh.errors import NotAllowedError, RetryableError
from notebook_ssh.model.record import Record, Route
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.status import status_key, status_of
from notebook_ssh.planning.entrances import Entrance, bastion_entrance, entrances, uses_entrance
from notebook_ssh.planning.routes import all_changed_routes, resources_to_read
from notebook_ssh.planning.rules import (
    Desired,
    Outcome,
    RulePlan,
    Unread,
    desired_rules,
    is_certain,
    is_revocable,
    plan_rules,
)
from notebook_ssh.settings import Settings
from notebook_ssh.triggers.requests import ReconcileNotebook, to_message

logger = Logger(child=True)


def reconcile_rules(settings: Settings, table: Table, now: int, correlation_id: str) -> list[str]:
    """Observe the fleet and EC2, plan, apply, and record the routes of every notebook; returns the rules that are stuck.

    A rule that cannot be revoked, a record or an endpoint that cannot be read, holds up no other. Raises RetryableError
    when the fleet could not be read completely (no rule was revoked then) or EC2 throttles, and the error of the
    endpoint's read, if it failed, at the end.
    """
    fleet, unread, complete = _read_fleet(table)
    through, failure = _read_entrances(settings)  # before any group: an endpoint names its groups
    if failure:
        unread = unread.and_those_of(Mode.EICE, fleet, now)
    network = ec2.observe(settings.stack, resources_to_read(fleet, through, now))
    desired = {entrance: desired_rules(fleet, entrance, network, settings.stack, now) for entrance in through}
    if settings.paused:  # no rule is desired, whatever the fleet requests: no record has to be read to know that
        desired = dict.fromkeys(through, Desired())
    changes = plan_rules(
        desired.values(),
        network.rules,
        settings.stack,
        complete=complete or settings.paused,
        revocable=lambda rule: is_revocable(rule, network, settings.entrance_vpcs),
        certain=lambda rule: settings.paused or is_certain(rule, fleet, unread),
    )
    if settings.dry_run and not settings.paused:
        logger.info("dry run", extra={"plan": _reasons(changes)})
        outcome = Outcome(in_effect=changes.satisfied)
    else:
        _log_changes(changes)
        outcome = ec2.apply(changes, settings.stack)
    changed = _save(all_changed_routes(fleet, desired, outcome, network, now), fleet, settings, table, now)
    _request_status_updates(changed, settings, now, correlation_id)
    _log_problems(desired.values(), outcome)
    if failure:
        raise failure
    if not complete:
        raise RetryableError("the fleet could not be read completely: nothing was revoked")
    return [problem.message for problem in outcome.not_revoked.values()]


def _read_entrances(settings: Settings) -> tuple[tuple[Entrance, ...], RetryableError | NotAllowedError | None]:
    """Return the entrances; without the endpoint, and with the error, if its description could not be read."""
    try:
        endpoint = ec2.observe_endpoint(settings.endpoint.id) if settings.endpoint else None
    except (RetryableError, NotAllowedError) as error:
        logger.warning("the endpoint was not read, its routes stay as they are", extra={"error": str(error)})
        return (bastion_entrance(settings.bastion),), error
    return entrances(settings.bastion, settings.endpoint, endpoint), None


def _read_fleet(table: Table) -> tuple[list[Record], Unread, bool]:
    """Read the notebooks that use an entrance; returns also what is known of unreadable ones, and whether these are all."""
    fleet: list[Record] = []
    errors: list[UnreadableRecordError] = []
    complete = True
    try:
        fleet.extend(filter(uses_entrance, table.records(consistent=True, on_unreadable=errors.append)))
    except RetryableError as error:
        logger.warning("the fleet was not read completely", extra={"error": str(error)})
        complete = False
    for unreadable in errors:
        logger.warning("record left out", extra={"reason": str(unreadable)})
    groups = [error.security_groups for error in errors]
    known = frozenset(group for each in groups for group in each or ())
    return fleet, Unread(len(errors), known, groups_complete=None not in groups), complete


def _save(
    routes: Mapping[str, Mapping[Mode, Route]], fleet: Iterable[Record], settings: Settings, table: Table, now: int
) -> list[str]:
    """Record the routes; the names of the notebooks whose status changed by that."""
    changed: list[str] = []
    for record in fleet:
        if record.name in routes:
            for mode, route in routes[record.name].items():
                table.save_route(record.name, mode, route)
            after = replace(record, routes={**record.routes, **routes[record.name]})
            if _status_key(record, settings, now) != _status_key(after, settings, now):
                changed.append(record.name)
    return changed


def _request_status_updates(changed: list[str], settings: Settings, now: int, correlation_id: str) -> None:
    requests = [to_message(ReconcileNotebook(name, "status"), now, correlation_id) for name in changed]
    try:
        sqs.send(settings.notebook_queue, requests)
    except AWS_ERRORS:
        # Nothing depends on it: the sweep finds a status that was not published.
        logger.exception("no reconciliation was requested for a new status", extra={"notebooks": changed})


def _status_key(record: Record, settings: Settings, now: int) -> str:
    return status_key(status_of(record, now, settings.sync_seconds, settings.tag_key))


def _reasons(changes: RulePlan) -> list[str]:
    authorized = [f"authorize {authorization.rule}: {authorization.reason}" for authorization in changes.authorizations]
    return authorized + [f"revoke {revocation.found.rule}: {revocation.reason}" for revocation in changes.revocations]


def _log_changes(changes: RulePlan) -> None:
    for authorization in changes.authorizations:
        logger.info("authorize rule", extra={"rule": str(authorization.rule), "reason": authorization.reason})
    for revocation in changes.revocations:
        logger.info(
            "revoke rule",
            extra={"rule": str(revocation.found.rule), "rule_id": revocation.found.id, "reason": revocation.reason},
        )


def _log_problems(desired: Iterable[Desired], outcome: Outcome) -> None:
    config_problems = (each.config_problem for each in desired)
    for problem in (*outcome.refused.values(), *outcome.not_revoked.values(), *config_problems):
        if problem:
            logger.warning(problem.message, extra={"code": problem.code})
