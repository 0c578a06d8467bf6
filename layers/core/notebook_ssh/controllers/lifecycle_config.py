"""Brings one lifecycle configuration in line with the tags of all notebooks that use it."""

from __future__ import annotations

from dataclasses import dataclass

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.controllers.apply import apply
from notebook_ssh.controllers.config_records import record_after, record_before
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.controllers.exclusive import carry_out
from notebook_ssh.controllers.follow_ups import send
from notebook_ssh.controllers.observe import observe_lifecycle_config
from notebook_ssh.errors import NotAllowedError
from notebook_ssh.planning.actions import lifecycle_config_lock, locks_of, reasons
from notebook_ssh.planning.lifecycle_config import LifecycleConfigPlan, plan_lifecycle_config
from notebook_ssh.planning.observation import LifecycleConfigObservation, LifecycleConfigRecord

logger = Logger(child=True)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ConfigReconciliation:
    """A lifecycle configuration as it was observed, and what is to be done about it."""

    cache: RecordCache
    observed: LifecycleConfigObservation
    plan: LifecycleConfigPlan

    @property
    def locks(self) -> frozenset[str]:
        """What must be leased while the plan is applied."""
        locks = locks_of(self.plan.actions)
        if self.observed.config_record and self.plan.config_record is None:
            # Another worker that holds it may be about to create it, and must find it again should it die.
            locks |= {lifecycle_config_lock(self.observed.name)}
        return locks

    @property
    def verified_on_write(self) -> bool:
        """Always False: the plan depends on the tags of every user, which no write compares."""
        return False

    def prefetch(self, cache: RecordCache) -> None:
        """Nothing: one record is read anyway."""


def reconcile_lifecycle_config(name: str, deps: Dependencies, cache: RecordCache) -> None:
    """Observe, plan and apply."""

    def plan(cache: RecordCache) -> ConfigReconciliation:
        observed = observe_lifecycle_config(name, cache, deps.policy, deps.settings.stack)
        return ConfigReconciliation(cache, observed, plan_lifecycle_config(observed, deps.policy, cache.at))

    if deps.settings.observes_only:
        logger.info("dry run", extra={"plan": reasons(plan(cache).plan.actions)})
    else:
        carry_out(cache, plan, lambda planned, slot: _apply(planned, deps, slot), deps)


def _apply(planned: ConfigReconciliation, deps: Dependencies, slot: int | None) -> None:
    before, plan, cache = planned.observed.config_record, planned.plan, planned.cache
    record_before(before, plan.config_record, plan.actions, cache)
    try:
        written = apply(plan.actions, deps, cache.at, slot)
    except NotAllowedError as denied:
        # The notebooks that use it are denied the same action, and have it in their status.
        cache.save((before or LifecycleConfigRecord(planned.observed.name))._replace(problem=denied.problem))
        return
    # Sent before the record is saved: afterwards no reconciliation would find that there is something to send.
    send(plan.follow_ups, deps, cache.at)
    record_after(before, plan.config_record, written, cache)
