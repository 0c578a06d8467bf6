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
from notebook_ssh.rules.record import (
    Mode,
    Network,
    NotebookState,
    Record,
    Restart,
    RestartStep,
    Wish,
    runs_without,
)
from notebook_ssh.rules.script import (
    Block,
    Damaged,
    Inspection,
    NoBlock,
    Present,
    Refused,
    fingerprint,
    inspect,
    splice,
)
from notebook_ssh.rules.signals import LookAtConfiguration, LookAtNotebook
from notebook_ssh.rules.status import Code, Status, address_of, headline, status_of
from notebook_ssh.rules.tags import restart_key, status_keys

PLAIN = b"#!/usr/bin/env bash\n"
"""Both hooks of a configuration that we make."""

AT_REST = frozenset({NotebookState.STOPPED, NotebookState.FAILED})
"""Where a configuration can be attached and the notebook started (UpdateNotebookInstance, StartNotebookInstance)."""

LONGEST_START = 900
"""Seconds that a start takes at most: a run that came up later than this after something happened began after it."""

STOPS_WITHIN = 1_800
"""Seconds after which a stop that we wrote down is not what stopped a notebook: minutes are usual."""

KEEP_OFF = 86_400
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
    configuration: str | None = None
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, slots=True)
class Configuration:
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
    asking: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Kept:
    """What the table keeps about a configuration that we have looked after.

    modified: `Configuration.modified` when last looked at, which is right after a write of ours as well.
    block: which block of ours is there (`Terms.mark`), empty for none. tried: which one was to be there.
    block_since: since when there has been one. problem: why it cannot be there.
    """

    name: str
    modified: int = 0
    block: str = ""
    tried: str = ""
    block_since: int | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that the plan for one notebook stands on.

    notebook: None when it does not exist.
    configuration: the attached one; without one, the one that would be attached, or None when there is none yet.
    users: of the attached configuration; None when not read (`needs_users` says when to).
    record, kept: what the table knows of the notebook and of `configuration`.
    """

    name: str
    notebook: Notebook | None
    wish: Wish = field(default_factory=Wish)
    configuration: Configuration | None = None
    users: Users | None = None
    record: Record | None = None
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class SeenConfiguration:
    """Everything that the plan for one configuration stands on.

    configuration: None when it does not exist. ours: its tags say that this stack made it; None when not read.
    """

    name: str
    configuration: Configuration | None
    users: Users | None = None
    ours: bool | None = None
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The stack's side of it. fallback: name of the configuration for notebooks that have none."""

    tag_key: str
    fallback: str
    block: Block

    @property
    def mark(self) -> str:
        """Which block is to be in the scripts: its version and id."""
        return _mark(self.block)


# ---- what to do --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackUp:
    """Keep a copy of the on-start script before it is changed."""

    configuration: Configuration
    because: str


@dataclass(frozen=True, slots=True)
class WriteScript:
    """Replace the on-start script, provided that the configuration still is as it was seen; None: there shall be none."""

    configuration: Configuration
    on_start: bytes | None
    because: str


@dataclass(frozen=True, slots=True)
class CreateConfiguration:
    """Make a configuration that carries this stack's name in a tag."""

    name: str
    on_create: bytes
    on_start: bytes
    because: str


@dataclass(frozen=True, slots=True)
class DeleteConfiguration:
    """Delete a configuration of ours that nobody uses."""

    configuration: Configuration
    because: str


@dataclass(frozen=True, slots=True)
class KeepBackUps:
    """Keep the copies of a configuration's scripts for as long as somebody there asks for SSH."""

    configuration: str
    because: str


@dataclass(frozen=True, slots=True)
class EndBackUps:
    """Let the copies of a configuration's scripts end after their time, since nobody asks for SSH there any more."""

    configuration: str
    because: str


@dataclass(frozen=True, slots=True)
class Attach:
    """Attach a configuration to a notebook that is at rest."""

    notebook: str
    configuration: str
    because: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Leave a notebook that is at rest without configuration."""

    notebook: str
    because: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a notebook that opted in."""

    notebook: str
    because: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a notebook that we stopped."""

    notebook: str
    because: str


@dataclass(frozen=True, slots=True)
class TakeTagAway:
    """Remove one tag of the resource `arn`."""

    arn: str
    key: str
    because: str


Action = (
    BackUp
    | WriteScript
    | CreateConfiguration
    | DeleteConfiguration
    | KeepBackUps
    | EndBackUps
    | Attach
    | Detach
    | Stop
    | Start
    | TakeTagAway
)
PACED = (WriteScript, CreateConfiguration, DeleteConfiguration, Attach, Detach, Stop, Start)
"""SageMaker's control-plane writes, of which there is one a second for an account and region."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a notebook.

    actions: in this order; the later ones count on the earlier ones.
    record: what to keep once they are done; None: nothing (any more).
    facts: the same without the effects of the actions, for a dry run.
    kept: what to keep about `configuration`; None: nothing is known of one.
    look_next: what else this notebook's change concerns.
    """

    actions: tuple[Action, ...] = ()
    record: Record | None = None
    facts: Record | None = None
    kept: Kept | None = None
    look_next: tuple[LookAtNotebook | LookAtConfiguration, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigurationPlan:
    """What to do about a configuration. kept: what to keep once it is done; None: forget it."""

    actions: tuple[Action, ...] = ()
    kept: Kept | None = None
    look_next: tuple[LookAtNotebook | LookAtConfiguration, ...] = ()


def needs_users(seen: Seen, terms: Terms, now: int) -> bool:
    """Whether the plan for a notebook hangs on who else uses its configuration: only before taking our block out."""
    return (
        seen.notebook is not None
        and seen.notebook.configuration is not None
        and not holds(seen.wish, now)
        and seen.configuration is not None
        and not _clean(seen.configuration, terms)
    )


def is_in_place(seen: Seen, terms: Terms, now: int) -> bool:
    """Whether the attached script has our block if it is as it was when `kept` was kept, and nothing else hangs on it.

    What is written into it all the same is compared with what is there right before; nothing is stopped or started.
    """
    restarting = seen.wish.restart or (seen.record is not None and seen.record.restart is not None)
    return (
        seen.notebook is not None
        and seen.notebook.configuration is not None
        and seen.kept is not None
        and seen.kept.block == terms.mark
        and seen.wish.mode_at(now) is not Mode.OFF
        and not restarting
    )


def holds(wish: Wish, now: int) -> bool:
    """Whether a notebook with this wish keeps the block in its configuration."""
    return wish.mode_at(now) is not Mode.OFF or wish.problem is not None


def plan_notebook(seen: Seen, terms: Terms, now: int) -> Plan:
    """What to do about a notebook, given what was seen of it at `now` (epoch seconds)."""
    notebook, record = seen.notebook, seen.record
    if notebook is None:
        return Plan(kept=seen.kept, look_next=_left_behind(record, None))
    if record is None and seen.wish == Wish() and (seen.configuration is None or not needs_users(seen, terms, now)):
        return Plan(kept=seen.kept)

    script = _script(seen, terms, now)
    facts = _facts(notebook, seen, script, now)
    if notebook.state is NotebookState.DELETING:
        return Plan(record=record and facts, facts=record and facts, kept=seen.kept)

    attachment = _attachment(seen, notebook, script, terms, now)
    restarting, restart = _restart(seen, notebook, facts, script, terms, now)
    wanted = replace(
        facts,
        attached=attachment.attached,
        attached_as=attachment.attached_as,
        restart=restart,
        block_since=script.block_since,
    )
    # Access that was over before it began is known as well, so that whoever wrote the tag reads `expired`.
    known = record is not None or seen.wish != Wish()
    return Plan(
        actions=(*script.actions, *attachment.actions, *restarting),
        record=wanted if known else None,
        facts=facts if known else None,
        kept=script.kept,
        look_next=_left_behind(record, notebook.configuration),
    )


def plan_configuration(seen: SeenConfiguration, terms: Terms, now: int) -> ConfigurationPlan:
    """What to do about a configuration, whoever uses it."""
    if seen.configuration is None:
        return ConfigurationPlan(look_next=_everyone(seen.users, "configuration gone"))
    users = seen.users or Users(complete=False)
    if seen.ours and users.complete and not users.names and _pristine(seen.configuration, terms):
        gone = DeleteConfiguration(seen.configuration, "this stack made it, and nobody uses it")
        return ConfigurationPlan(actions=(gone, EndBackUps(seen.name, gone.because)))
    if seen.kept is None and _clean(seen.configuration, terms) and not users.asking:
        return ConfigurationPlan()
    if seen.ours is False and users.complete and not users.names and _clean(seen.configuration, terms):
        return ConfigurationPlan()
    script = _plan_script(seen.configuration, _turn(users), seen.kept, terms, now)
    changed = seen.kept is None or (seen.kept.block_since, seen.kept.problem) != (script.block_since, script.problem)
    return ConfigurationPlan(
        actions=script.actions,
        kept=script.kept,
        look_next=_everyone(users, "its configuration changed") if changed else (),
    )


def is_seen(changed: int, kept: Kept | None) -> bool:
    """Whether what is kept of a configuration stands on a look at it after `changed` (epoch milliseconds).

    So it is with our own writes, which are looked at right after. UNCONFIRMED how finely the service tells times in
    its answers and its events: a whole second may be an earlier part of what it stands for, and tells nothing.
    """
    return kept is not None and changed % 1000 != 0 and changed <= kept.modified


def settled_off(record: Record) -> bool:
    """Nothing is asked of this notebook and nothing of ours is left there: the record only waits for its end."""
    return record.wish == Wish() and record.attached is None and record.restart is None and record.problem is None


def is_news(before: Record | None, after: Record) -> bool:
    """Whether a look found anything but that it is later now; the end of access is news, though no tag changed."""
    if before is None or replace(after, observed_at=before.observed_at) != before:
        return True
    until = after.wish.until
    return until is not None and before.observed_at < until <= after.observed_at


# ---- the stack's own end -----------------------------------------------------------------------


def plan_last_script(seen: SeenConfiguration, terms: Terms) -> tuple[Action, ...] | Problem:
    """What gives the owner's script back, whoever still asks for SSH; or why a person must do it."""
    configuration, because = seen.configuration, "the stack is being deleted"
    if configuration is None:
        return ()
    match inspect(configuration.on_start, terms.block.stack):
        case Present(owner=owner):
            return _give_back(configuration, owner, because)
        case Damaged(problem=problem):
            return problem
        case NoBlock():
            unused = seen.ours and seen.users is not None and seen.users.complete and not seen.users.names
            gone = unused and _pristine(configuration, terms)
            return (DeleteConfiguration(configuration, because),) if gone else ()


def plan_last_attachment(seen: Seen, terms: Terms) -> tuple[Action, ...] | Problem:
    """What detaches the configuration that we attached; or what stays until the notebook stops."""
    notebook, record = seen.notebook, seen.record
    if notebook is None or record is None or record.attached is None or record.attached != notebook.configuration:
        return ()
    if seen.configuration is None or _content(seen.configuration, terms) != record.attached_as:
        return ()
    if notebook.state in AT_REST:
        return (Detach(notebook.name, "the stack is being deleted"),)
    return Problem(
        "not-detached",
        f"{notebook.name} is {notebook.state} and keeps the configuration {record.attached}, whose script does nothing. "
        f"When it is stopped: aws sagemaker update-notebook-instance --notebook-instance-name {notebook.name} "
        "--disassociate-lifecycle-config",
    )


# ---- the script --------------------------------------------------------------------------------


class _Block(Enum):
    IN = "in"
    OUT = "out"
    AS_IT_IS = "as it is"


@dataclass(frozen=True, slots=True)
class _Script:
    """What becomes of a configuration's on-start script. block_since, problem, kept: as they will be."""

    actions: tuple[Action, ...] = ()
    block_since: int | None = None
    problem: Problem | None = None
    kept: Kept | None = None


def _script(seen: Seen, terms: Terms, now: int) -> _Script:
    notebook = seen.notebook
    asked = seen.wish.mode_at(now) is not Mode.OFF
    if notebook is None or (notebook.configuration is None and not (asked and notebook.state in AT_REST)):
        # What is not attached is not prepared either: it would be a configuration of ours that nobody uses.
        return _Script(kept=seen.kept)
    if seen.configuration is None:
        return _new_configuration(terms, now)
    if asked:
        turn = _Block.IN
    elif seen.wish.problem or seen.users is None:
        turn = _Block.AS_IT_IS
    else:
        turn = _turn(seen.users)
        turn = _Block.AS_IT_IS if turn is _Block.IN else turn  # the others' own turn will see to it
    script = _plan_script(seen.configuration, turn, seen.kept, terms, now)
    if turn is _Block.AS_IT_IS and seen.kept:
        # What became of the script is for those to see who may change it, so it is not noted as seen.
        return replace(script, kept=seen.kept)
    return script


def _turn(users: Users) -> _Block:
    if users.asking:
        return _Block.IN
    return _Block.OUT if users.complete and not users.unclear else _Block.AS_IT_IS


def _new_configuration(terms: Terms, now: int) -> _Script:
    made = splice(PLAIN, terms.block)
    if isinstance(made, Refused):
        return _Script(problem=made.problem)
    create = CreateConfiguration(terms.fallback, PLAIN, made.script, "the notebook has no lifecycle configuration")
    kept = Kept(terms.fallback, block=terms.mark, tried=terms.mark, block_since=now)
    return _Script(actions=(create,), block_since=now, kept=kept)


def _plan_script(configuration: Configuration, turn: _Block, kept: Kept | None, terms: Terms, now: int) -> _Script:
    found = inspect(configuration.on_start, terms.block.stack)
    since = _block_since(configuration, found, kept)
    mark = _mark(found) if isinstance(found, Present) else ""
    entry = Kept(configuration.name, configuration.modified, mark, terms.mark, since)
    match turn:
        case _Block.IN:
            made = splice(configuration.on_start, terms.block)
            if isinstance(made, Refused):
                return _Script((), since, made.problem, replace(entry, problem=made.problem))
            if not made.changed:
                return _Script((), since, None, entry)
            because = _why_in(found, terms)
            since = since or now
            again = () if kept else (KeepBackUps(configuration.name, because),)
            write = (BackUp(configuration, because), WriteScript(configuration, made.script, because))
            return _Script((*again, *write), since, None, replace(entry, block=terms.mark, block_since=since))
        case _Block.OUT:
            if isinstance(found, Damaged):
                return _Script((), since, found.problem, replace(entry, problem=found.problem))
            because = "nobody who uses this configuration asks for SSH"
            # The fallback stays known until it is deleted, or found to be somebody else's.
            rest = entry if kept and configuration.name == terms.fallback else None
            if not isinstance(found, Present):
                return _Script((EndBackUps(configuration.name, because),) if kept and kept.block else (), kept=rest)
            out = _give_back(configuration, found.owner, because)
            return _Script(actions=out, kept=rest and replace(rest, block="", block_since=None))
        case _Block.AS_IT_IS:
            return _Script((), since, None, entry if kept or isinstance(found, Present) else None)


def _give_back(configuration: Configuration, owner: bytes | None, because: str) -> tuple[Action, ...]:
    """The script as it is without our block: `owner`."""
    write = WriteScript(configuration, owner, because)
    return BackUp(configuration, because), write, EndBackUps(configuration.name, because)


def _mark(block: Block | Present) -> str:
    return f"{block.version}:{block.id}"


def _block_since(configuration: Configuration, found: Inspection, kept: Kept | None) -> int | None:
    """Since when our block has been there. Without a note of ours, it can't be later than the last change."""
    if not isinstance(found, Present):
        return None
    return kept.block_since if kept and kept.block_since is not None else configuration.modified // 1000


def _why_in(found: Inspection, terms: Terms) -> str:
    if not isinstance(found, Present):
        return "a notebook that uses this configuration asks for SSH"
    if not found.intact:
        return "the block was edited"
    if (found.id, found.version) != (terms.block.id, terms.block.version):
        return f"the block is of version {found.version}, the stack of {terms.block.version}"
    return "the block is not where it belongs"


def _clean(configuration: Configuration, terms: Terms) -> bool:
    """There is nothing of this stack in the script, whole or damaged."""
    return isinstance(inspect(configuration.on_start, terms.block.stack), NoBlock)


def _pristine(configuration: Configuration, terms: Terms) -> bool:
    """Nobody wrote anything into a configuration that we made."""
    return (configuration.on_create, inspect(configuration.on_start, terms.block.stack).owner) == (PLAIN, PLAIN)


# ---- which configuration is attached -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Attachment:
    """What becomes of the attachment. attached, attached_as: as in the record, once the actions are done."""

    actions: tuple[Action, ...] = ()
    attached: str | None = None
    attached_as: str = ""


def _attachment(seen: Seen, notebook: Notebook, script: _Script, terms: Terms, now: int) -> _Attachment:
    record = seen.record
    if notebook.configuration is None:
        if seen.wish.mode_at(now) is Mode.OFF or script.problem or notebook.state not in AT_REST:
            return _Attachment()
        attach = Attach(notebook.name, terms.fallback, "the notebook has no lifecycle configuration")
        return _Attachment((attach,), terms.fallback, _content(seen.configuration, terms))
    if record is None or record.attached != notebook.configuration:
        return _Attachment()
    as_it_is = _Attachment((), record.attached, record.attached_as)
    if holds(seen.wish, now):
        return as_it_is
    if seen.configuration is None or _content(seen.configuration, terms) != record.attached_as:
        return _Attachment()  # somebody wrote into it since: it is theirs now
    if notebook.state not in AT_REST:
        return as_it_is
    return replace(as_it_is, actions=(Detach(notebook.name, "the notebook had no lifecycle configuration before"),))


def _content(configuration: Configuration | None, terms: Terms) -> str:
    """Fingerprint of what is the owner's in a configuration; of a plain one when we are yet to make it."""
    if configuration is None:
        return fingerprint(PLAIN + PLAIN)
    owners = inspect(configuration.on_start, terms.block.stack).owner
    return fingerprint(b"".join(script or b"" for script in (configuration.on_create, owners)))


def _left_behind(record: Record | None, configuration: str | None) -> tuple[LookAtConfiguration, ...]:
    """The configurations that this notebook used when it was last looked at, and does not use now."""
    if record is None:
        return ()
    left = {name for name in (record.configuration, record.attached) if name and name != configuration}
    return tuple(LookAtConfiguration(name, f"{record.name} uses it no longer") for name in sorted(left))


def _everyone(users: Users | None, because: str) -> tuple[LookAtNotebook, ...]:
    return tuple(LookAtNotebook(name, because) for name in (users.names if users else ()))


# ---- the opted-in restart ----------------------------------------------------------------------


def _restart(
    seen: Seen, notebook: Notebook, facts: Record, script: _Script, terms: Terms, now: int
) -> tuple[tuple[Action, ...], Restart | None]:
    """The actions, and how far the restart is once they are done.

    Stop → (attach) → start. Each half is written down before its call, with the moment of the state that it
    ends; so after a crash it is plain whether the call arrived, and no half is ever done twice.
    """
    under_way = facts.restart
    done = _take_away(notebook, seen.wish, terms, "the restart is done")
    same = under_way is not None and under_way.since == notebook.state_since
    noted = under_way.at if under_way else now
    wanted = seen.wish.mode_at(now) is not Mode.OFF
    start = Start(notebook.name, "we stopped it for its restart")

    def stop() -> tuple[tuple[Action, ...], Restart]:
        because = (
            f"the tag {restart_key(terms.tag_key)} asks for one restart, and only a start makes the change effective"
        )
        return (Stop(notebook.name, because),), Restart(RestartStep.STOP, notebook.state_since, now)

    match (under_way.step if under_way else None), notebook.state:
        case None, NotebookState.IN_SERVICE if wanted and seen.wish.restart:
            if script.problem:
                return (), None
            if _effective(notebook, facts, script):
                return _take_away(notebook, seen.wish, terms, "there is nothing to restart for"), None
            return stop()
        case None, NotebookState.STOPPED | NotebookState.FAILED if wanted and seen.wish.restart:
            return _take_away(notebook, seen.wish, terms, "a notebook that is not running is left so"), None
        case None, _:
            return (), None
        case RestartStep.STOP, NotebookState.IN_SERVICE:
            return stop() if same and wanted and seen.wish.restart else (done, None)
        case RestartStep.STOP, NotebookState.STOPPED | NotebookState.FAILED:
            if notebook.state_since > noted + STOPS_WITHIN:
                return done, None  # our call never arrived, and somebody stopped it since, who may want it so
            if wanted and notebook.configuration is None and not script.problem:
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


def _take_away(notebook: Notebook, wish: Wish, terms: Terms, because: str) -> tuple[Action, ...]:
    return (TakeTagAway(notebook.arn, restart_key(terms.tag_key), because),) if wish.restart else ()


def _effective(notebook: Notebook, facts: Record, script: _Script) -> bool:
    """Whether the present run started with our block in its script."""
    if notebook.configuration is None or script.block_since is None:
        return False
    report = facts.report
    if report is not None and report.booted_at >= script.block_since:
        return True
    return not runs_without(facts, script.block_since)


# ---- the record --------------------------------------------------------------------------------


def _facts(notebook: Notebook, seen: Seen, script: _Script, now: int) -> Record:
    """The record as it is without any action done."""
    before = seen.record or Record(name=notebook.name)
    kept = seen.kept.block_since if seen.kept and seen.configuration else None
    attached = before.attached if before.attached == notebook.configuration else None
    same_wish = before.wish.mode is seen.wish.mode and before.wished_since is not None
    return replace(
        before,
        name=notebook.name,
        arn=notebook.arn,
        role=notebook.role,
        wish=seen.wish,
        state=notebook.state,
        state_since=notebook.state_since,
        configuration=notebook.configuration,
        block_since=kept if script.actions else script.block_since,
        network=notebook.network,
        problem=script.problem,
        observed_at=now,
        wished_since=before.wished_since if same_wish else now,
        reached=before.reached and same_wish,
        started_at=_started_at(notebook, seen.record),
        attached=attached,
        planned=(),
        seen="",
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
        record.state is NotebookState.PENDING and notebook.state_since - record.started_at <= LONGEST_START
    )
    return record.started_at if same_run else notebook.state_since


# ---- what the console shows --------------------------------------------------------------------

SHOW_EVERY = 60
"""Seconds between two writings of one notebook's status tags, however often the status changes."""


def tags_to_show(record: Record | None, now: int, sync_seconds: int, tag_key: str) -> dict[str, str]:
    """Our tags as they should be on the notebook: its status and, while connected, its address; none when SSH is off."""
    if record is None or record.wish == Wish():
        return {}
    status_key, address_key = status_keys(tag_key)
    status = status_of(record, now, sync_seconds, tag_key)
    failed = status.code is Code.ERROR and status.problem is not None
    shown = {status_key: f"{status.code}: {status.problem.code}" if failed and status.problem else str(status.code)}
    address = address_of(record, now, sync_seconds)
    return shown | {address_key: f"{address[0]}:{address[1]}"} if address else shown


def shows(tags: Mapping[str, str], tag_key: str) -> dict[str, str]:
    """Our tags as they are."""
    return {key: tags[key] for key in status_keys(tag_key) if key in tags}


def news(record: Record, now: int, sync_seconds: int, tag_key: str) -> Status | None:
    """The status, when another one was told last; None when everybody knows. Before anything was told, SSH was off."""
    status = status_of(record, now, sync_seconds, tag_key)
    return None if headline(status) == (record.told or Code.OFF) else status


def reasons(actions: Iterable[Action]) -> tuple[str, ...]:
    """One sentence for each action: what it does to what, and why."""
    return tuple(f"{describe(action)}: {action.because}" for action in actions)


def describe(action: Action) -> str:
    """The action in a few words, without script contents."""
    return _WORDS[type(action)](action)


_WORDS: dict[type, Callable[..., str]] = {
    BackUp: lambda action: f"back up the on-start script of {action.configuration.name}",
    WriteScript: lambda action: (
        f"write the on-start script of {action.configuration.name} "
        f"({len(action.configuration.on_start or b''):,} bytes to {len(action.on_start or b''):,})"
    ),
    CreateConfiguration: lambda action: f"create the configuration {action.name}",
    DeleteConfiguration: lambda action: f"delete the configuration {action.configuration.name}",
    KeepBackUps: lambda action: f"keep the back-ups of {action.configuration}",
    EndBackUps: lambda action: f"end the back-ups of {action.configuration} in 90 days",
    Attach: lambda action: f"attach {action.configuration} to {action.notebook}",
    Detach: lambda action: f"detach the configuration of {action.notebook}",
    Stop: lambda action: f"stop {action.notebook}",
    Start: lambda action: f"start {action.notebook}",
    TakeTagAway: lambda action: f"remove the tag {action.key} of {action.arn.rpartition('/')[2]}",
}
