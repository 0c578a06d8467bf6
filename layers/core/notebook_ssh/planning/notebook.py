"""What to do about one notebook, and about one lifecycle configuration: facts in, actions and reasons out.

What holds in every case:

- A script loses our block only when a complete, fresh reading shows that nobody who uses it asks for SSH.
- A tag that cannot be understood gives no access, and neither adds nor takes away anything.
- A notebook is stopped or started only when its tags opt in, once, and only if that changes something.
- What we did not make or attach is never deleted or detached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from notebook_ssh.errors import Problem
from notebook_ssh.model.managed_block import (
    Block,
    Damaged,
    Inspection,
    NoBlock,
    Present,
    Refused,
    fingerprint,
    insert_block,
    inspect,
)
from notebook_ssh.model.record import (
    Mode,
    Network,
    NotebookSpec,
    NotebookState,
    Record,
    Restart,
    RestartStep,
    predates_block,
)
from notebook_ssh.model.spec import restart_key, status_keys
from notebook_ssh.model.status import Code, Status, address_of, status_key, status_of
from notebook_ssh.triggers.events import ReconcileLifecycleConfig, ReconcileNotebook

EMPTY_SCRIPT = b"#!/usr/bin/env bash\n"
"""Both hooks of a configuration that we make."""

MODIFIABLE_STATES = frozenset({NotebookState.STOPPED, NotebookState.FAILED})
"""Where a configuration can be attached and the notebook started (UpdateNotebookInstance, StartNotebookInstance)."""

MAX_START_S = 900
"""Seconds that a start takes at most: a run that came up later than this after something happened began after it."""

MAX_STOP_S = 1_800
"""Seconds after which a stop that we wrote down is not what stopped a notebook: minutes are usual."""

INACTIVE_RECORD_TTL_S = 86_400
"""Seconds for which the record of an untagged notebook stays, so that lookups say `off` and not `unknown`."""


# ---- what is seen ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook instance as DescribeNotebookInstance tells it.

    role: name of the execution role, without path. state_since: `LastModifiedTime`.
    configuration: name of the attached lifecycle configuration, or None.
    """

    name: str
    arn: str
    role: str
    state: NotebookState
    state_since: int
    lifecycle_config: str | None = None
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, slots=True)
class LifecycleConfig:
    """A lifecycle configuration with its scripts, decoded. A hook that is not there is None.

    modified: `LastModifiedTime` in epoch milliseconds: two changes may fall into one second.
    """

    name: str
    arn: str
    modified: int
    on_create: bytes | None = None
    on_start: bytes | None = None


@dataclass(frozen=True, slots=True)
class Users:
    """The notebooks that a configuration is attached to.

    asking: those known to ask for SSH. unclear: those whose tags cannot be understood.
    complete: every user was listed and the tags of each were read. Reading may stop at the first that asks.
    """

    names: tuple[str, ...] = ()
    requesting: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class LifecycleConfigRecord:
    """What the table keeps about a configuration that we have looked after.

    modified: `LifecycleConfig.modified` when last looked at, which is right after a write of ours as well.
    block: which block of ours is there (`BlockPolicy.mark`), empty for none. tried: which one was to be there.
    block_since: since when there has been one. problem: why it cannot be there.
    """

    name: str
    modified: int = 0
    block: str = ""
    tried: str = ""
    block_since: int | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class NotebookObservation:
    """Everything that the plan for one notebook stands on.

    notebook: None when it does not exist.
    configuration: the attached one; without one, the one that would be attached, or None when there is none yet.
    users: of the attached configuration; None when not read (`needs_users` says when to).
    record, kept: what the table knows of the notebook and of `configuration`.
    """

    name: str
    notebook: Notebook | None
    spec: NotebookSpec = field(default_factory=NotebookSpec)
    lifecycle_config: LifecycleConfig | None = None
    users: Users | None = None
    record: Record | None = None
    config_record: LifecycleConfigRecord | None = None


@dataclass(frozen=True, slots=True)
class LifecycleConfigObservation:
    """Everything that the plan for one configuration stands on.

    configuration: None when it does not exist. ours: its tags say that this stack made it; None when not read.
    """

    name: str
    lifecycle_config: LifecycleConfig | None
    users: Users | None = None
    ours: bool | None = None
    config_record: LifecycleConfigRecord | None = None


@dataclass(frozen=True, slots=True)
class BlockPolicy:
    """The stack's side of it. fallback: name of the configuration for notebooks that have none."""

    tag_key: str
    default_config: str
    block: Block

    @property
    def block_ref(self) -> str:
        """Which block is to be in the scripts: its version and id."""
        return _block_ref(self.block)


# ---- what to do --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackupScript:
    """Keep a copy of the on-start script before it is changed."""

    lifecycle_config: LifecycleConfig
    reason: str


@dataclass(frozen=True, slots=True)
class WriteScript:
    """Replace the on-start script, provided that the configuration still is as it was seen; None: there shall be none."""

    lifecycle_config: LifecycleConfig
    on_start: bytes | None
    reason: str


@dataclass(frozen=True, slots=True)
class CreateLifecycleConfig:
    """Make a configuration that carries this stack's name in a tag."""

    name: str
    on_create: bytes
    on_start: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteLifecycleConfig:
    """Delete a configuration of ours that nobody uses."""

    lifecycle_config: LifecycleConfig
    reason: str


@dataclass(frozen=True, slots=True)
class KeepBackUps:
    """Keep the copies of a configuration's scripts for as long as somebody there asks for SSH."""

    lifecycle_config: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndBackUps:
    """Let the copies of a configuration's scripts end after their time, since nobody asks for SSH there any more."""

    lifecycle_config: str
    reason: str


@dataclass(frozen=True, slots=True)
class Attach:
    """Attach a configuration to a notebook that is at rest."""

    notebook: str
    lifecycle_config: str
    reason: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Leave a notebook that is at rest without configuration."""

    notebook: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a notebook that opted in."""

    notebook: str
    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a notebook that we stopped."""

    notebook: str
    reason: str


@dataclass(frozen=True, slots=True)
class RemoveTag:
    """Remove one tag of the resource `arn`."""

    arn: str
    key: str
    reason: str


Action = (
    BackupScript
    | WriteScript
    | CreateLifecycleConfig
    | DeleteLifecycleConfig
    | KeepBackUps
    | EndBackUps
    | Attach
    | Detach
    | Stop
    | Start
    | RemoveTag
)
PACED = (WriteScript, CreateLifecycleConfig, DeleteLifecycleConfig, Attach, Detach, Stop, Start)
"""SageMaker's control-plane writes, of which there is one a second for an account and region."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a notebook.

    actions: in this order; the later ones count on the earlier ones.
    record: what to keep once they are done; None: nothing (any more).
    facts: the same without the effects of the actions, for a dry run.
    kept: what to keep about `configuration`; None: nothing is known of one.
    follow_ups: what else this notebook's change concerns.
    """

    actions: tuple[Action, ...] = ()
    record: Record | None = None
    facts: Record | None = None
    config_record: LifecycleConfigRecord | None = None
    follow_ups: tuple[ReconcileNotebook | ReconcileLifecycleConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class LifecycleConfigPlan:
    """What to do about a configuration. kept: what to keep once it is done; None: forget it."""

    actions: tuple[Action, ...] = ()
    config_record: LifecycleConfigRecord | None = None
    follow_ups: tuple[ReconcileNotebook | ReconcileLifecycleConfig, ...] = ()


def needs_users(observed: NotebookObservation, policy: BlockPolicy, now: int) -> bool:
    """Whether the plan for a notebook hangs on who else uses its configuration: only before taking our block out."""
    return (
        observed.notebook is not None
        and observed.notebook.lifecycle_config is not None
        and not needs_block(observed.spec, now)
        and observed.lifecycle_config is not None
        and not _has_no_block(observed.lifecycle_config, policy)
    )


def is_in_place(observed: NotebookObservation, policy: BlockPolicy, now: int) -> bool:
    """Whether the attached script has our block if it is as it was when `kept` was kept, and nothing else hangs on it.

    What is written into it all the same is compared with what is there right before; nothing is stopped or started.
    """
    restarting = observed.spec.restart or (observed.record is not None and observed.record.restart is not None)
    return (
        observed.notebook is not None
        and observed.notebook.lifecycle_config is not None
        and observed.config_record is not None
        and observed.config_record.block == policy.block_ref
        and observed.spec.effective_mode(now) is not Mode.OFF
        and not restarting
    )


def needs_block(spec: NotebookSpec, now: int) -> bool:
    """Whether a notebook with this wish keeps the block in its configuration."""
    return spec.effective_mode(now) is not Mode.OFF or spec.problem is not None


def plan_notebook(observed: NotebookObservation, policy: BlockPolicy, now: int) -> Plan:
    """What to do about a notebook, given what was seen of it at `now` (epoch seconds)."""
    notebook, record = observed.notebook, observed.record
    if notebook is None:
        return Plan(config_record=observed.config_record, follow_ups=_former_configs(record, None))
    if (
        record is None
        and observed.spec == NotebookSpec()
        and (observed.lifecycle_config is None or not needs_users(observed, policy, now))
    ):
        return Plan(config_record=observed.config_record)

    script = _script_plan(observed, policy, now)
    facts = _facts(notebook, observed, script, now)
    if notebook.state is NotebookState.DELETING:
        return Plan(record=record and facts, facts=record and facts, config_record=observed.config_record)

    attachment = _plan_attachment(observed, notebook, script, policy, now)
    restarting, restart = _plan_restart(observed, notebook, facts, script, policy, now)
    wanted = replace(
        facts,
        attached_config=attachment.attached_config,
        attached_hash=attachment.attached_hash,
        restart=restart,
        block_since=script.block_since,
    )
    # Access that was over before it began is known as well, so that whoever wrote the tag reads `expired`.
    known = record is not None or observed.spec != NotebookSpec()
    return Plan(
        actions=(*script.actions, *attachment.actions, *restarting),
        record=wanted if known else None,
        facts=facts if known else None,
        config_record=script.config_record,
        follow_ups=_former_configs(record, notebook.lifecycle_config),
    )


def plan_lifecycle_config(observed: LifecycleConfigObservation, policy: BlockPolicy, now: int) -> LifecycleConfigPlan:
    """What to do about a configuration, whoever uses it."""
    if observed.lifecycle_config is None:
        return LifecycleConfigPlan(follow_ups=_all_users(observed.users, "configuration gone"))
    users = observed.users or Users(complete=False)
    if observed.ours and users.complete and not users.names and _is_untouched(observed.lifecycle_config, policy):
        gone = DeleteLifecycleConfig(observed.lifecycle_config, "this stack made it, and nobody uses it")
        return LifecycleConfigPlan(actions=(gone, EndBackUps(observed.name, gone.reason)))
    if observed.config_record is None and _has_no_block(observed.lifecycle_config, policy) and not users.requesting:
        return LifecycleConfigPlan()
    if (
        observed.ours is False
        and users.complete
        and not users.names
        and _has_no_block(observed.lifecycle_config, policy)
    ):
        return LifecycleConfigPlan()
    script = _plan_script(observed.lifecycle_config, _block_target(users), observed.config_record, policy, now)
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
    """Whether what is kept of a configuration stands on a look at it after `changed` (epoch milliseconds).

    So it is with our own writes, which are looked at right after. UNCONFIRMED how finely the service tells times in
    its answers and its events: a whole second may be an earlier part of what it stands for, and tells nothing.
    """
    return config_record is not None and changed % 1000 != 0 and changed <= config_record.modified


def is_inactive(record: Record) -> bool:
    """Nothing is asked of this notebook and nothing of ours is left there: the record only waits for its end."""
    return (
        record.spec == NotebookSpec()
        and record.attached_config is None
        and record.restart is None
        and record.problem is None
    )


def has_changed(before: Record | None, after: Record) -> bool:
    """Whether a look found anything but that it is later now; the end of access is news, though no tag changed."""
    if before is None or replace(after, observed_at=before.observed_at) != before:
        return True
    until = after.spec.until
    return until is not None and before.observed_at < until <= after.observed_at


# ---- the stack's own end -----------------------------------------------------------------------


def plan_script_teardown(observed: LifecycleConfigObservation, policy: BlockPolicy) -> tuple[Action, ...] | Problem:
    """What gives the owner's script back, whoever still asks for SSH; or why a person must do it."""
    lifecycle_config, reason = observed.lifecycle_config, "the stack is being deleted"
    if lifecycle_config is None:
        return ()
    match inspect(lifecycle_config.on_start, policy.block.stack):
        case Present(owner=owner):
            return _restore_script_actions(lifecycle_config, owner, reason)
        case Damaged(problem=problem):
            return problem
        case NoBlock():
            unused = (
                observed.ours and observed.users is not None and observed.users.complete and not observed.users.names
            )
            gone = unused and _is_untouched(lifecycle_config, policy)
            return (DeleteLifecycleConfig(lifecycle_config, reason),) if gone else ()


def plan_attachment_teardown(observed: NotebookObservation, policy: BlockPolicy) -> tuple[Action, ...] | Problem:
    """What detaches the configuration that we attached; or what stays until the notebook stops."""
    notebook, record = observed.notebook, observed.record
    if (
        notebook is None
        or record is None
        or record.attached_config is None
        or record.attached_config != notebook.lifecycle_config
    ):
        return ()
    if observed.lifecycle_config is None or _owner_hash(observed.lifecycle_config, policy) != record.attached_hash:
        return ()
    if notebook.state in MODIFIABLE_STATES:
        return (Detach(notebook.name, "the stack is being deleted"),)
    return Problem(
        "not-detached",
        f"{notebook.name} is {notebook.state} and keeps the configuration {record.attached_config}, whose script does nothing. "
        f"When it is stopped: aws sagemaker update-notebook-instance --notebook-instance-name {notebook.name} "
        "--disassociate-lifecycle-config",
    )


# ---- the script --------------------------------------------------------------------------------


class _Block(Enum):
    IN = "in"
    OUT = "out"
    AS_IT_IS = "as it is"


@dataclass(frozen=True, slots=True)
class ScriptPlan:
    """What becomes of a configuration's on-start script. block_since, problem, kept: as they will be."""

    actions: tuple[Action, ...] = ()
    block_since: int | None = None
    problem: Problem | None = None
    config_record: LifecycleConfigRecord | None = None


def _script_plan(observed: NotebookObservation, policy: BlockPolicy, now: int) -> ScriptPlan:
    notebook = observed.notebook
    asked = observed.spec.effective_mode(now) is not Mode.OFF
    if notebook is None or (notebook.lifecycle_config is None and not (asked and notebook.state in MODIFIABLE_STATES)):
        # What is not attached is not prepared either: it would be a configuration of ours that nobody uses.
        return ScriptPlan(config_record=observed.config_record)
    if observed.lifecycle_config is None:
        return _plan_new_config(policy, now)
    if asked:
        turn = _Block.IN
    elif observed.spec.problem or observed.users is None:
        turn = _Block.AS_IT_IS
    else:
        turn = _block_target(observed.users)
        turn = _Block.AS_IT_IS if turn is _Block.IN else turn  # the others' own turn will see to it
    script = _plan_script(observed.lifecycle_config, turn, observed.config_record, policy, now)
    if turn is _Block.AS_IT_IS and observed.config_record:
        # What became of the script is for those to see who may change it, so it is not noted as seen.
        return replace(script, config_record=observed.config_record)
    return script


def _block_target(users: Users) -> _Block:
    if users.requesting:
        return _Block.IN
    return _Block.OUT if users.complete and not users.invalid else _Block.AS_IT_IS


def _plan_new_config(policy: BlockPolicy, now: int) -> ScriptPlan:
    made = insert_block(EMPTY_SCRIPT, policy.block)
    if isinstance(made, Refused):
        return ScriptPlan(problem=made.problem)
    create = CreateLifecycleConfig(
        policy.default_config, EMPTY_SCRIPT, made.script, "the notebook has no lifecycle configuration"
    )
    config_record = LifecycleConfigRecord(
        policy.default_config, block=policy.block_ref, tried=policy.block_ref, block_since=now
    )
    return ScriptPlan(actions=(create,), block_since=now, config_record=config_record)


def _plan_script(
    lifecycle_config: LifecycleConfig,
    turn: _Block,
    config_record: LifecycleConfigRecord | None,
    policy: BlockPolicy,
    now: int,
) -> ScriptPlan:
    found = inspect(lifecycle_config.on_start, policy.block.stack)
    since = _block_since(lifecycle_config, found, config_record)
    block_ref = _block_ref(found) if isinstance(found, Present) else ""
    entry = LifecycleConfigRecord(lifecycle_config.name, lifecycle_config.modified, block_ref, policy.block_ref, since)
    match turn:
        case _Block.IN:
            made = insert_block(lifecycle_config.on_start, policy.block)
            if isinstance(made, Refused):
                return ScriptPlan((), since, made.problem, replace(entry, problem=made.problem))
            if not made.changed:
                return ScriptPlan((), since, None, entry)
            reason = _install_reason(found, policy)
            since = since or now
            again = () if config_record else (KeepBackUps(lifecycle_config.name, reason),)
            write = (BackupScript(lifecycle_config, reason), WriteScript(lifecycle_config, made.script, reason))
            return ScriptPlan((*again, *write), since, None, replace(entry, block=policy.block_ref, block_since=since))
        case _Block.OUT:
            if isinstance(found, Damaged):
                return ScriptPlan((), since, found.problem, replace(entry, problem=found.problem))
            reason = "nobody who uses this configuration asks for SSH"
            # The fallback stays known until it is deleted, or found to be somebody else's.
            rest = entry if config_record and lifecycle_config.name == policy.default_config else None
            if not isinstance(found, Present):
                return ScriptPlan(
                    (EndBackUps(lifecycle_config.name, reason),) if config_record and config_record.block else (),
                    config_record=rest,
                )
            out = _restore_script_actions(lifecycle_config, found.owner, reason)
            return ScriptPlan(actions=out, config_record=rest and replace(rest, block="", block_since=None))
        case _Block.AS_IT_IS:
            return ScriptPlan((), since, None, entry if config_record or isinstance(found, Present) else None)


def _restore_script_actions(lifecycle_config: LifecycleConfig, owner: bytes | None, reason: str) -> tuple[Action, ...]:
    """The script as it is without our block: `owner`."""
    write = WriteScript(lifecycle_config, owner, reason)
    return BackupScript(lifecycle_config, reason), write, EndBackUps(lifecycle_config.name, reason)


def _block_ref(block: Block | Present) -> str:
    return f"{block.version}:{block.id}"


def _block_since(
    lifecycle_config: LifecycleConfig, found: Inspection, config_record: LifecycleConfigRecord | None
) -> int | None:
    """Since when our block has been there. Without a note of ours, it can't be later than the last change."""
    if not isinstance(found, Present):
        return None
    return (
        config_record.block_since
        if config_record and config_record.block_since is not None
        else lifecycle_config.modified // 1000
    )


def _install_reason(found: Inspection, policy: BlockPolicy) -> str:
    if not isinstance(found, Present):
        return "a notebook that uses this configuration asks for SSH"
    if not found.intact:
        return "the block was edited"
    if (found.id, found.version) != (policy.block.id, policy.block.version):
        return f"the block is of version {found.version}, the stack of {policy.block.version}"
    return "the block is not where it belongs"


def _has_no_block(lifecycle_config: LifecycleConfig, policy: BlockPolicy) -> bool:
    """There is nothing of this stack in the script, whole or damaged."""
    return isinstance(inspect(lifecycle_config.on_start, policy.block.stack), NoBlock)


def _is_untouched(lifecycle_config: LifecycleConfig, policy: BlockPolicy) -> bool:
    """Nobody wrote anything into a configuration that we made."""
    return (lifecycle_config.on_create, inspect(lifecycle_config.on_start, policy.block.stack).owner) == (
        EMPTY_SCRIPT,
        EMPTY_SCRIPT,
    )


# ---- which configuration is attached -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _AttachmentPlan:
    """What becomes of the attachment. attached, attached_hash: as in the record, once the actions are done."""

    actions: tuple[Action, ...] = ()
    attached_config: str | None = None
    attached_hash: str = ""


def _plan_attachment(
    observed: NotebookObservation, notebook: Notebook, script: ScriptPlan, policy: BlockPolicy, now: int
) -> _AttachmentPlan:
    record = observed.record
    if notebook.lifecycle_config is None:
        if observed.spec.effective_mode(now) is Mode.OFF or script.problem or notebook.state not in MODIFIABLE_STATES:
            return _AttachmentPlan()
        attach = Attach(notebook.name, policy.default_config, "the notebook has no lifecycle configuration")
        return _AttachmentPlan((attach,), policy.default_config, _owner_hash(observed.lifecycle_config, policy))
    if record is None or record.attached_config != notebook.lifecycle_config:
        return _AttachmentPlan()
    as_it_is = _AttachmentPlan((), record.attached_config, record.attached_hash)
    if needs_block(observed.spec, now):
        return as_it_is
    if observed.lifecycle_config is None or _owner_hash(observed.lifecycle_config, policy) != record.attached_hash:
        return _AttachmentPlan()  # somebody wrote into it since: it is theirs now
    if notebook.state not in MODIFIABLE_STATES:
        return as_it_is
    return replace(as_it_is, actions=(Detach(notebook.name, "the notebook had no lifecycle configuration before"),))


def _owner_hash(lifecycle_config: LifecycleConfig | None, policy: BlockPolicy) -> str:
    """Fingerprint of what is the owner's in a configuration; of a plain one when we are yet to make it."""
    if lifecycle_config is None:
        return fingerprint(EMPTY_SCRIPT + EMPTY_SCRIPT)
    owners = inspect(lifecycle_config.on_start, policy.block.stack).owner
    return fingerprint(b"".join(script or b"" for script in (lifecycle_config.on_create, owners)))


def _former_configs(record: Record | None, lifecycle_config: str | None) -> tuple[ReconcileLifecycleConfig, ...]:
    """The configurations that this notebook used when it was last looked at, and does not use now."""
    if record is None:
        return ()
    left = {name for name in (record.lifecycle_config, record.attached_config) if name and name != lifecycle_config}
    return tuple(ReconcileLifecycleConfig(name, f"{record.name} uses it no longer") for name in sorted(left))


def _all_users(users: Users | None, reason: str) -> tuple[ReconcileNotebook, ...]:
    return tuple(ReconcileNotebook(name, reason) for name in (users.names if users else ()))


# ---- the opted-in restart ----------------------------------------------------------------------


def _plan_restart(
    observed: NotebookObservation, notebook: Notebook, facts: Record, script: ScriptPlan, policy: BlockPolicy, now: int
) -> tuple[tuple[Action, ...], Restart | None]:
    """The actions, and how far the restart is once they are done.

    Stop → (attach) → start. Each half is written down before its call, with the moment of the state that it
    ends; so after a crash it is plain whether the call arrived, and no half is ever done twice.
    """
    under_way = facts.restart
    done = _clear_restart_tag(notebook, observed.spec, policy, "the restart is done")
    same = under_way is not None and under_way.since == notebook.state_since
    noted = under_way.at if under_way else now
    wanted = observed.spec.effective_mode(now) is not Mode.OFF
    start = Start(notebook.name, "we stopped it for its restart")

    def stop() -> tuple[tuple[Action, ...], Restart]:
        reason = (
            f"the tag {restart_key(policy.tag_key)} asks for one restart, and only a start makes the change effective"
        )
        return (Stop(notebook.name, reason),), Restart(RestartStep.STOP, notebook.state_since, now)

    match (under_way.step if under_way else None), notebook.state:
        case None, NotebookState.IN_SERVICE if wanted and observed.spec.restart:
            if script.problem:
                return (), None
            if _is_effective(notebook, facts, script):
                return _clear_restart_tag(notebook, observed.spec, policy, "there is nothing to restart for"), None
            return stop()
        case None, NotebookState.STOPPED | NotebookState.FAILED if wanted and observed.spec.restart:
            return _clear_restart_tag(
                notebook, observed.spec, policy, "a notebook that is not running is left so"
            ), None
        case None, _:
            return (), None
        case RestartStep.STOP, NotebookState.IN_SERVICE:
            return stop() if same and wanted and observed.spec.restart else (done, None)
        case RestartStep.STOP, NotebookState.STOPPED | NotebookState.FAILED:
            if notebook.state_since > noted + MAX_STOP_S:
                return done, None  # our call never arrived, and somebody stopped it since, who may want it so
            if wanted and notebook.lifecycle_config is None and not script.problem:
                return (), under_way  # attached first; the change of state brings us back
            # Even when the tags are gone by now: we stopped it, so we owe the start.
            return (start,), Restart(RestartStep.START, notebook.state_since, noted)
        case RestartStep.START, NotebookState.STOPPED | NotebookState.FAILED if same:
            return (start,), under_way
        case RestartStep.START, _:
            return done, None
        case RestartStep.STOP, NotebookState.PENDING:
            return done, None  # somebody else started it
        case _:
            return (), under_way


def _clear_restart_tag(notebook: Notebook, spec: NotebookSpec, policy: BlockPolicy, reason: str) -> tuple[Action, ...]:
    return (RemoveTag(notebook.arn, restart_key(policy.tag_key), reason),) if spec.restart else ()


def _is_effective(notebook: Notebook, facts: Record, script: ScriptPlan) -> bool:
    """Whether the present run started with our block in its script."""
    if notebook.lifecycle_config is None or script.block_since is None:
        return False
    report = facts.report
    if report is not None and report.booted_at >= script.block_since:
        return True
    return not predates_block(facts, script.block_since)


# ---- the record --------------------------------------------------------------------------------


def _facts(notebook: Notebook, observed: NotebookObservation, script: ScriptPlan, now: int) -> Record:
    """The record as it is without any action done."""
    before = observed.record or Record(name=notebook.name)
    config_record = observed.config_record.block_since if observed.config_record and observed.lifecycle_config else None
    attached_config = before.attached_config if before.attached_config == notebook.lifecycle_config else None
    same_mode = before.spec.mode is observed.spec.mode and before.spec_changed_at is not None
    return replace(
        before,
        name=notebook.name,
        arn=notebook.arn,
        role=notebook.role,
        spec=observed.spec,
        state=notebook.state,
        state_since=notebook.state_since,
        lifecycle_config=notebook.lifecycle_config,
        block_since=config_record if script.actions else script.block_since,
        network=notebook.network,
        problem=script.problem,
        observed_at=now,
        spec_changed_at=before.spec_changed_at if same_mode else now,
        first_connected=before.first_connected and same_mode,
        started_at=_started_at(notebook, observed.record),
        attached_config=attached_config,
        planned=(),
        observed_hash="",
    )


def _started_at(notebook: Notebook, record: Record | None) -> int | None:
    """When the present run began: known if it was seen Pending, else at the latest when it came into service."""
    if notebook.state is NotebookState.PENDING:
        return notebook.state_since
    if notebook.state is not NotebookState.IN_SERVICE:
        return None
    if record is None or record.started_at is None:
        return notebook.state_since
    same_run = record.state_since == notebook.state_since or (
        record.state is NotebookState.PENDING and notebook.state_since - record.started_at <= MAX_START_S
    )
    return record.started_at if same_run else notebook.state_since


# ---- what the console shows --------------------------------------------------------------------

STATUS_TAG_INTERVAL = 60
"""Seconds between two writings of one notebook's status tags, however often the status changes."""


def desired_status_tags(record: Record | None, now: int, sync_seconds: int, tag_key: str) -> dict[str, str]:
    """Our tags as they should be on the notebook: its status and, while connected, its address; none when SSH is off."""
    if record is None or record.spec == NotebookSpec():
        return {}
    status_key, address_key = status_keys(tag_key)
    status = status_of(record, now, sync_seconds, tag_key)
    failed = status.code is Code.ERROR and status.problem is not None
    shown = {status_key: f"{status.code}: {status.problem.code}" if failed and status.problem else str(status.code)}
    address = address_of(record, now, sync_seconds)
    return shown | {address_key: f"{address[0]}:{address[1]}"} if address else shown


def current_status_tags(tags: Mapping[str, str], tag_key: str) -> dict[str, str]:
    """Our tags as they are."""
    return {key: tags[key] for key in status_keys(tag_key) if key in tags}


def status_change(record: Record, now: int, sync_seconds: int, tag_key: str) -> Status | None:
    """The status, when another one was told last; None when everybody knows. Before anything was told, SSH was off."""
    status = status_of(record, now, sync_seconds, tag_key)
    return None if status_key(status) == (record.notified_status or Code.OFF) else status


def reasons(actions: Iterable[Action]) -> tuple[str, ...]:
    """One sentence for each action: what it does to what, and why."""
    return tuple(f"{describe(action)}: {action.reason}" for action in actions)


def describe(action: Action) -> str:
    """The action in a few words, without script contents."""
    return _WORDS[type(action)](action)


_WORDS: dict[type, Callable[..., str]] = {
    BackupScript: lambda action: f"back up the on-start script of {action.lifecycle_config.name}",
    WriteScript: lambda action: (
        f"write the on-start script of {action.lifecycle_config.name} "
        f"({len(action.lifecycle_config.on_start or b''):,} bytes to {len(action.on_start or b''):,})"
    ),
    CreateLifecycleConfig: lambda action: f"create the configuration {action.name}",
    DeleteLifecycleConfig: lambda action: f"delete the configuration {action.lifecycle_config.name}",
    KeepBackUps: lambda action: f"keep the back-ups of {action.lifecycle_config}",
    EndBackUps: lambda action: f"end the back-ups of {action.lifecycle_config} in 90 days",
    Attach: lambda action: f"attach {action.lifecycle_config} to {action.notebook}",
    Detach: lambda action: f"detach the configuration of {action.notebook}",
    Stop: lambda action: f"stop {action.notebook}",
    Start: lambda action: f"start {action.notebook}",
    RemoveTag: lambda action: f"remove the tag {action.key} of {action.arn.rpartition('/')[2]}",
}
