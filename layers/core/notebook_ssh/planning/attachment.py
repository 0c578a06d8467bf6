"""Plan which lifecycle configuration is attached to a notebook. What the stack did not attach is never detached."""

from __future__ import annotations

from typing import NamedTuple

from notebook_ssh.planning.actions import Action, Attach, Detach
from notebook_ssh.planning.observation import MODIFIABLE_STATES, BlockPolicy, Notebook, NotebookObservation
from notebook_ssh.planning.script import ScriptPlan, owner_hash


class AttachmentPlan(NamedTuple):
    """The actions on the attachment, and the record's fields of the same names once they are done."""

    actions: tuple[Action, ...] = ()
    attached_config: str | None = None
    attached_hash: str = ""


def plan_attachment(
    observed: NotebookObservation, notebook: Notebook, script: ScriptPlan, policy: BlockPolicy, now: int
) -> AttachmentPlan:
    """Plan the attachment of `notebook`, given the plan for its script."""
    record = observed.record
    if notebook.lifecycle_config is None:
        if not observed.spec.effective_modes(now) or script.problem or notebook.state not in MODIFIABLE_STATES:
            return AttachmentPlan()
        attach = Attach(notebook.name, policy.default_config, "the notebook has no lifecycle configuration")
        return AttachmentPlan((attach,), policy.default_config, owner_hash(observed.lifecycle_config, policy))
    if record is None or record.attached_config != notebook.lifecycle_config:
        return AttachmentPlan()
    unchanged = AttachmentPlan((), record.attached_config, record.attached_hash)
    if observed.spec.needs_block(now):
        return unchanged
    if observed.lifecycle_config is None or owner_hash(observed.lifecycle_config, policy) != record.attached_hash:
        return AttachmentPlan()  # edited since it was attached: it belongs to its author now
    if notebook.state not in MODIFIABLE_STATES:
        return unchanged
    return unchanged._replace(actions=(Detach(notebook.name, "the notebook had no lifecycle configuration before"),))
