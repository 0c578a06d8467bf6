"""Messages about what a reconciliation concerns besides its own notebook or configuration."""

from __future__ import annotations

from notebook_ssh.adapters import sqs
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.model.record import ROUTED, Record
from notebook_ssh.planning.notebook import NotebookPlan
from notebook_ssh.triggers.requests import SAVE_DELAY, ReconcileLifecycleConfig, ReconcileNotebook, to_message


def send(requests: tuple[ReconcileNotebook | ReconcileLifecycleConfig, ...], deps: Dependencies, now: int) -> None:
    """Queue `requests` under the correlation ids of the messages that are being processed."""
    sqs.send(deps.settings.notebook_queue, (to_message(request, now, deps.correlation_id) for request in requests))


def send_follow_ups(before: Record | None, plan: NotebookPlan, deps: Dependencies, now: int) -> int | None:
    """Queue what the change of a notebook concerns: other resources, the end of its access, the security-group rules.

    Called before the change is saved: afterwards no reconciliation would find that there is something to send. Returns
    when a rule sync was requested (epoch seconds), for `repeat_late_request`; None if none was.
    """
    after = plan.record
    until = after.spec.until if after else None
    starts_chain = after and until and now < until and (before is None or before.spec.until != until)
    ends = (ReconcileNotebook(after.name, "its time ends", at=until),) if after and until and starts_chain else ()
    send((*plan.follow_ups, *ends), deps, now)
    if not _route_changes(before, after, now) or not deps.settings.rule_queue:
        return None
    requested_at = deps.clock()
    _request_rule_sync(after or before, deps)
    return requested_at


def repeat_late_request(requested_at: int | None, record: Record | None, deps: Dependencies) -> None:
    """Request the rule sync again if the save took so long that a sync in between may have missed it."""
    if requested_at is not None and deps.clock() >= requested_at + SAVE_DELAY:
        _request_rule_sync(record, deps)


def _request_rule_sync(record: Record | None, deps: Dependencies) -> None:
    sqs.request_rule_sync(deps.settings.rule_queue, record.name if record else "", deps.correlation_id)


def _route_changes(before: Record | None, after: Record | None, now: int) -> bool:
    """Whether anything that the rules depend on differs from the record."""

    def part(record: Record | None, at: int) -> object:
        modes = {mode for mode in ROUTED if record and mode in record.spec.effective_modes(at)}
        return (modes, record.state, record.network) if record and modes else None

    return part(before, before.observed_at if before else now) != part(after, now)
