"""Plan what is returned to its state before the stack when the stack is deleted."""

from __future__ import annotations

from notebook_ssh.errors import Problem
from notebook_ssh.model.managed_block import Damaged, NoBlock, Present, inspect
from notebook_ssh.planning.actions import Action, DeleteLifecycleConfig, Detach
from notebook_ssh.planning.observation import (
    MODIFIABLE_STATES,
    BlockPolicy,
    LifecycleConfigObservation,
    NotebookObservation,
)
from notebook_ssh.planning.script import is_untouched, owner_hash, restore_script

REASON = "the stack is being deleted"


def plan_script_teardown(observed: LifecycleConfigObservation, policy: BlockPolicy) -> tuple[Action, ...] | Problem:
    """Return the actions that restore the owner's script, whether or not a notebook requests SSH.

    Returns a Problem if the block is damaged and a user must remove it.
    """
    lifecycle_config = observed.lifecycle_config
    if lifecycle_config is None:
        return ()
    match inspect(lifecycle_config.on_start, policy.block.stack):
        case Present(owner=owner):
            return restore_script(lifecycle_config, owner, REASON)
        case Damaged(problem=problem):
            return problem
        case NoBlock():
            unused = observed.users is not None and observed.users.complete and not observed.users.names
            delete = observed.ours and unused and is_untouched(lifecycle_config, policy)
            return (DeleteLifecycleConfig(lifecycle_config, REASON),) if delete else ()


def plan_attachment_teardown(observed: NotebookObservation, policy: BlockPolicy) -> tuple[Action, ...] | Problem:
    """Return the actions that detach the configuration that the stack attached.

    Returns a Problem if it stays attached until the notebook stops.
    """
    notebook, record = observed.notebook, observed.record
    if (
        notebook is None
        or record is None
        or record.attached_config is None
        or record.attached_config != notebook.lifecycle_config
    ):
        return ()
    if observed.lifecycle_config is None or owner_hash(observed.lifecycle_config, policy) != record.attached_hash:
        return ()
    if notebook.state in MODIFIABLE_STATES:
        return (Detach(notebook.name, REASON),)
    return Problem(
        "not-detached",
        f"{notebook.name} is {notebook.state} and keeps the configuration {record.attached_config}, whose script does nothing. "
        f"When it is stopped: aws sagemaker update-notebook-instance --notebook-instance-name {notebook.name} "
        "--disassociate-lifecycle-config",
    )
