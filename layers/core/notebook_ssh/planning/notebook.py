"""Plan one notebook: observation in, actions with reasons out.

Invariants, whatever is observed:

- A script loses the block only if complete, fresh knowledge shows that no notebook using it requests SSH.
- An invalid tag gives no access, and neither installs nor removes anything.
- A notebook is stopped or started only if its tags opt in, once, and only if that changes something.
- What the stack did not create or attach is never deleted or detached.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import NotebookSpec
from notebook_ssh.planning.actions import Action
from notebook_ssh.planning.attachment import plan_attachment
from notebook_ssh.planning.facts import observed_record
from notebook_ssh.planning.observation import BlockPolicy, LifecycleConfigRecord, NotebookObservation
from notebook_ssh.planning.restart import plan_restart
from notebook_ssh.planning.script import needs_users, plan_notebook_script
from notebook_ssh.triggers.requests import ReconcileLifecycleConfig


class NotebookPlan(NamedTuple):
    """The actions for one notebook, and what is saved with them."""

    # In this order: later ones depend on earlier ones.
    actions: tuple[Action, ...] = ()
    # What to save once the actions are done; None deletes the record.
    record: Record | None = None
    # The record without the effects of the actions, for a dry run.
    facts: Record | None = None
    # What to save about the observed configuration; None if nothing is known of one.
    config_record: LifecycleConfigRecord | None = None
    # Configurations that this notebook's change affects.
    follow_ups: tuple[ReconcileLifecycleConfig, ...] = ()

    @property
    def begun(self) -> Record | None:
        """The record while the actions are applied: what is observed, and what must be recorded before its call."""
        if self.facts is None or self.record is None:
            return None
        return replace(
            self.facts,
            attached_config=self.record.attached_config,
            attached_hash=self.record.attached_hash,
            restart=self.record.restart,
        )


def plan_notebook(observed: NotebookObservation, policy: BlockPolicy, now: int) -> NotebookPlan:
    """Plan one notebook, observed at `now` (epoch seconds)."""
    notebook, record = observed.notebook, observed.record
    follow_ups = _former_configs(record or observed.predecessor, notebook.lifecycle_config if notebook else None)
    if notebook is None:
        return NotebookPlan(config_record=observed.config_record, follow_ups=follow_ups)
    untagged = observed.spec == NotebookSpec()
    if record is None and untagged and (observed.lifecycle_config is None or not needs_users(observed, policy, now)):
        return NotebookPlan(config_record=observed.config_record, follow_ups=follow_ups)

    script = plan_notebook_script(observed, policy, now)
    facts = observed_record(notebook, observed, script, now)
    if notebook.state is NotebookState.DELETING:
        return NotebookPlan(record=record and facts, facts=record and facts, config_record=observed.config_record)

    attachment = plan_attachment(observed, notebook, script, policy, now)
    restart_actions, restart = plan_restart(notebook, observed.spec, facts, script, policy, now)
    planned = replace(
        facts,
        attached_config=attachment.attached_config,
        attached_hash=attachment.attached_hash,
        restart=restart,
        block_since=script.block_since,
    )
    # Access that ended before it began is saved as well, so that the author of the tag reads `expired`.
    saved = record is not None or not untagged
    return NotebookPlan(
        actions=(*script.actions, *attachment.actions, *restart_actions),
        record=planned if saved else None,
        facts=facts if saved else None,
        config_record=script.config_record,
        follow_ups=follow_ups,
    )


def _former_configs(record: Record | None, lifecycle_config: str | None) -> tuple[ReconcileLifecycleConfig, ...]:
    """Return the configurations that the recorded notebook used and does not use any more."""
    if record is None:
        return ()
    left = {name for name in (record.lifecycle_config, record.attached_config) if name and name != lifecycle_config}
    return tuple(ReconcileLifecycleConfig(name, f"{record.name} uses it no longer") for name in sorted(left))
