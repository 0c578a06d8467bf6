"""Messages about what a reconciliation concerns besides its own notebook or configuration."""

from __future__ import annotations

from notebook_ssh.adapters import sqs
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import Mode
from notebook_ssh.planning.drift import LONGEST_DELAY
from notebook_ssh.planning.notebook import NotebookPlan
from notebook_ssh.triggers.requests import ReconcileLifecycleConfig, ReconcileNotebook, to_message


def send(requests: tuple[ReconcileNotebook | ReconcileLifecycleConfig, ...], deps: Dependencies, now: int) -> None:
    """Queue `requests` under the correlation ids of the messages that are being processed."""
    sqs.send(deps.settings.notebook_queue, (to_message(request, now, deps.correlation_id) for request in requests))


def send_follow_ups(before: Record | None, plan: NotebookPlan, deps: Dependencies, now: int) -> None:
    """Queue what the change of a notebook concerns: other resources, the end of its access, the bastion's rules."""
    after = plan.record
    send(plan.follow_ups, deps, now)
    until = after.spec.until if after else None
    if after and until and now < until <= now + LONGEST_DELAY:
        send((ReconcileNotebook(after.name, "its time ends", at=until),), deps, now)
    if _route_changes(before, after, now) and deps.settings.bastion_queue:
        reason = (after or before or Record("")).name
        sqs.request_bastion_resync(deps.settings.bastion_queue, reason, deps.correlation_id)


def _route_changes(before: Record | None, after: Record | None, now: int) -> bool:
    """Whether anything that the bastion's rules depend on differs from the record."""

    def part(record: Record | None, at: int) -> object:
        if record is None or record.spec.effective_mode(at) is not Mode.BASTION:
            return None
        return record.state, record.network

    return part(before, before.observed_at if before else now) != part(after, now)
