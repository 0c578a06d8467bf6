"""Plan one lifecycle configuration, for all notebooks that use it."""

from __future__ import annotations

from typing import NamedTuple

from notebook_ssh.planning.actions import BACKUP_RETENTION_S, Action, DeleteLifecycleConfig, ExpireBackups
from notebook_ssh.planning.observation import (
    BlockPolicy,
    LifecycleConfigObservation,
    LifecycleConfigRecord,
    Users,
)
from notebook_ssh.planning.script import BlockState, block_target, has_no_block, is_untouched, plan_script
from notebook_ssh.planning.upgrade import is_due, is_free
from notebook_ssh.triggers.requests import ReconcileNotebook


class LifecycleConfigPlan(NamedTuple):
    """The actions for one lifecycle configuration, and what is saved with them."""

    actions: tuple[Action, ...] = ()
    # What to save once the actions are done; None deletes the record.
    config_record: LifecycleConfigRecord | None = None
    follow_ups: tuple[ReconcileNotebook, ...] = ()


def plan_lifecycle_config(observed: LifecycleConfigObservation, policy: BlockPolicy, now: int) -> LifecycleConfigPlan:
    """Plan one lifecycle configuration at `now` (epoch seconds)."""
    if observed.lifecycle_config is None:
        return LifecycleConfigPlan(follow_ups=_all_users(observed.users, "configuration gone"))
    users = observed.users or Users(complete=False)
    unused = users.complete and not users.names
    no_block = has_no_block(observed.lifecycle_config, policy)
    if observed.ours and unused and is_untouched(observed.lifecycle_config, policy):
        delete = DeleteLifecycleConfig(observed.lifecycle_config, "this stack created it, and no notebook uses it")
        expire = ExpireBackups(observed.name, BACKUP_RETENTION_S, delete.reason)
        return LifecycleConfigPlan(actions=(delete, expire))
    if observed.config_record is None and no_block and not users.requesting:
        return LifecycleConfigPlan()
    if observed.ours is False and unused and no_block:
        return LifecycleConfigPlan()
    target, deployment = block_target(users), observed.deployment
    due = is_due(policy, deployment, now, observed.config_record)
    if target is BlockState.PRESENT and not (due and is_free(deployment, now)):
        target = BlockState.WORKING
    script = plan_script(observed.lifecycle_config, target, observed.config_record, policy, now, deployment)
    changed = observed.config_record is None or (
        observed.config_record.block_since,
        observed.config_record.problem,
    ) != (script.block_since, script.problem)
    return LifecycleConfigPlan(
        actions=script.actions,
        config_record=script.config_record,
        follow_ups=_all_users(users, "its configuration changed") if changed else (),
    )


def includes_change(changed: int, config_record: LifecycleConfigRecord | None) -> bool:
    """Return whether `config_record` was observed after a change at `changed` (epoch milliseconds).

    That is so for the stack's own writes, which are observed right afterwards. UNCONFIRMED(time-precision) how precise the times in
    the service's answers and events are: a whole second may be truncated, and counts as not included.
    """
    return config_record is not None and changed % 1000 != 0 and changed <= config_record.modified


def _all_users(users: Users | None, reason: str) -> tuple[ReconcileNotebook, ...]:
    return tuple(ReconcileNotebook(name, reason) for name in (users.names if users else ()))
