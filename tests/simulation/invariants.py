"""What must never happen, checked at the moment when it would; and what must be so once everything is calm.

Nothing here asks the code under test how it did: an owner's script is taken apart by its marker lines, and what a person
wrote is remembered, not derived.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulation.account import (
    BASTION_GROUP,
    BASTION_VPC,
    ENDPOINT,
    ENDPOINT_GROUP,
    ENDPOINT_VPC,
    MODIFIABLE_STATES,
    LifecycleConfig,
    Notebook,
    Rule,
    Watcher,
)
from simulation.errors import InvariantError

from notebook_ssh.model.managed_block import LIMIT, SHEBANG, Block, Inserted, Refused, fingerprint, insert_block
from notebook_ssh.model.spec import Mode, NotebookSpec, parse_spec
from notebook_ssh.planning.restart import MAX_STOP_S
from notebook_ssh.planning.script import EMPTY_SCRIPT
from notebook_ssh.planning.status_tags import current_status_tags, desired_status_tags

if TYPE_CHECKING:
    from simulation.run import Run

STACK, OTHER_STACK = "team-ssh", "other-team"
OWNER_TAG = "notebook-ssh:stack"
FALLBACK = "better-sagemaker"
UPGRADE_AFTER = 3_600
"""Seconds until blocks that work are replaced: an hour, so that a run meets it."""

PROGRAMS = ("the worker of 1.0.0", "the worker of 1.1.0")
"""The workers of the stack's two versions."""

WORKERS = tuple(hashlib.sha256(program.encode()).hexdigest() for program in PROGRAMS)
"""Their SHA-256."""
RECENTLY = 250_000
"""Milliseconds for which a look at a notebook's tags can be in the making: an invocation, and the longest leap of time."""

NOT_OURS = "I write this myself"
"""What a person writes where our status stands; on a notebook that never asked for SSH it is theirs to keep."""

CLOCKS_APART = 2_500
"""Milliseconds by which the clocks of two invocations differ at most."""

ANNOUNCED = 3_600_000
"""Milliseconds for which a notebook may be woken after it was asked, functions that die on the way included."""

_OPENING = re.compile(rb"^# >>> notebook-ssh stack=(\S+) version=\S+ id=\S+ sum=(\S+) original=\S+ >>> .*\n", re.M)

ENTRANCES = ((Mode.BASTION, BASTION_GROUP, BASTION_VPC), (Mode.EICE, ENDPOINT_GROUP, ENDPOINT_VPC))
"""Mode, group and VPC of each entrance of the stack."""


def decoded(script: str | None) -> bytes | None:
    """A hook's script as bytes."""
    return None if script is None else base64.b64decode(script)


def encoded(script: bytes | None) -> str | None:
    """A script as a hook holds it; one without a byte is no script there."""
    return base64.b64encode(script).decode() if script else None


@dataclass(frozen=True)
class Found:
    """One block in a script. intact: its body has the sum that its first line names."""

    stack: str
    start: int
    end: int
    intact: bool


def blocks(script: bytes | None) -> list[Found]:
    """Every block between an opening line and its closing line, by these lines alone."""
    found = []
    for opening in _OPENING.finditer(script or b""):
        closing = b"# <<< notebook-ssh stack=" + opening[1] + b" <<<\n"
        end = (script or b"").find(closing, opening.end())
        if end >= 0:
            body = (script or b"")[opening.end() : end]
            intact = fingerprint(body).encode() == opening[2]
            found.append(Found(opening[1].decode(), opening.start(), end + len(closing), intact))
    return found


def working_version(script: bytes | None) -> str | None:
    """The version of this stack's one block, if it is whole and nothing of the owner's but the first line is above it."""
    ours = [each for each in blocks(script) if each.stack == STACK]
    if script is None or len(ours) != 1 or not ours[0].intact:
        return None
    above = without_blocks(script[: ours[0].start]) or b""
    opening = re.search(rb" version=(\S+) ", script[ours[0].start :])
    return opening[1].decode() if opening and re.fullmatch(rb"(#![^\n]*\n)?", above) else None


def without_blocks(script: bytes | None) -> bytes | None:
    """The lines that are nobody's block."""
    for each in reversed(blocks(script)):
        script = (script or b"")[: each.start] + (script or b"")[each.end :]
    return script


def as_seen_beside_a_block(truth: bytes | None) -> bytes:
    """An owner's script as it reads while a block is in it: a block needs a whole line above it."""
    if not truth:
        return SHEBANG
    return truth if b"\n" in truth or not truth.startswith(b"#!") else truth + b"\n"


@dataclass
class Truth:
    """An owner's script as the owner left it. damaged: a user broke a marker line, and nobody may touch it until the
    owner has. put_back: a person brought a block to where the stack may not know of it."""

    text: bytes | None
    damaged: bool = False
    put_back: bool = False


@dataclass
class Invariants(Watcher):
    """Every invariant, with what is needed to judge it."""

    run: Run
    truths: dict[str, Truth] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    asked_restart: dict[str, int] = field(default_factory=dict)
    asked_wake: dict[str, int] = field(default_factory=dict)
    stopped_by_users: dict[str, int] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)  # when each last asked for nothing of the configuration it has
    bare: dict[str, int] = field(default_factory=dict)  # when each last had no configuration
    owed: set[str] = field(default_factory=set)
    attached_config: dict[str, str] = field(default_factory=dict)
    writes: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)

    # ---- at each user action

    def script(self, lifecycle_config: LifecycleConfig, before: str | None, after: str | None) -> None:
        if self.run.account.person:
            return
        self.writes["script"] += 1
        truth, script = self.truths[lifecycle_config.name], decoded(after)
        self._hold(not truth.damaged, f"{lifecycle_config.name} was written although its markers are damaged")
        self._hold(script is None or len(script) <= LIMIT, f"{lifecycle_config.name} was made too large")
        if blocks(script):
            config_record = without_blocks(script) == as_seen_beside_a_block(truth.text)
        else:
            config_record = (script or b"") == (truth.text or b"")
        self._hold(
            config_record,
            f"{lifecycle_config.name}: an owner's byte was lost: {without_blocks(script)!r} was {truth.text!r}",
        )
        self._hold(
            before in (None, after) or self._copied(lifecycle_config.name, before), f"{lifecycle_config.name}: no copy"
        )
        if not blocks(script):
            self._nobody_needs_a_block(lifecycle_config)
        self._is_no_early_upgrade(lifecycle_config, decoded(before), script)
        truth.put_back = False

    def _is_no_early_upgrade(
        self, lifecycle_config: LifecycleConfig, before: bytes | None, after: bytes | None
    ) -> None:
        """A block that works is replaced by the present one once this has been there for so long, or on request.

        The request of a notebook that is about to get the configuration counts as well: it starts with that script.
        """
        version = self.run.block.version
        if working_version(before) in (None, version) or working_version(after) != version:
            return
        uses = (lifecycle_config.name, None) if lifecycle_config.name == FALLBACK else (lifecycle_config.name,)
        users = [each for each in self.run.account.notebooks.values() if each.lifecycle_config in uses]
        for each in users:
            self.remember(each)
        requested = any(self._recently(self.asked_restart, each) for each in users)
        block, since = self.run.swept
        due = block is self.run.block and self.run.now >= since + UPGRADE_AFTER * 1000
        self._hold(due or requested, f"{lifecycle_config.name} was upgraded too early")
        self.checked["upgrades that were requested" if requested and not due else "upgrades in time"] += 1

    def _nobody_needs_a_block(self, lifecycle_config: LifecycleConfig) -> None:
        """A script loses its block when none of its users has asked for SSH for longer than a look takes."""
        users = [each for each in self.run.account.notebooks.values() if each.lifecycle_config == lifecycle_config.name]
        for each in users if not self.run.deleted else ():
            self.remember(each)
            overlooked = self.idle.get(each.name, 0) < self.run.now - RECENTLY
            self._hold(not overlooked, f"{lifecycle_config.name} lost its block, and {each.name} asks for SSH there")

    def _copied(self, name: str, script: str | None) -> bool:
        """Whether the table holds a copy of the configuration's on-start script as it is (base64)."""
        items = self.run.account.table.items
        return any(pk == f"backup#{name}" and item["content"] == {"S": script} for (pk, _), item in items.items())

    def created(self, lifecycle_config: LifecycleConfig) -> None:
        if not self.run.account.person:
            self.writes["create"] += 1
            for each in self.run.account.notebooks.values():
                self.remember(each)
            since = self.run.now - RECENTLY
            wanted = any(self.asked.get(name, 0) >= since for name, last in self.bare.items() if last >= since)
            self._hold(wanted, f"{lifecycle_config.name} was made, and nobody who asks for SSH lacks a configuration")
            self.truths[lifecycle_config.name] = Truth(without_blocks(decoded(lifecycle_config.on_start)))

    def removed(self, lifecycle_config: LifecycleConfig) -> None:
        if self.run.account.person:
            return
        self.writes["delete"] += 1
        self._hold(
            lifecycle_config.tags.get(OWNER_TAG) == STACK, f"{lifecycle_config.name} was deleted and is not ours"
        )
        truth = self.truths[lifecycle_config.name]
        self._hold(truth.text == EMPTY_SCRIPT, f"{lifecycle_config.name} was deleted with a person's script in it")

    def starts(self, notebook: Notebook) -> None:
        lifecycle_config = self.run.account.lifecycle_configs.get(notebook.lifecycle_config or "")
        if lifecycle_config is not None and lifecycle_config.by_stack:
            script = decoded(lifecycle_config.on_start) or b""
            ours = [each for each in blocks(script) if each.stack == STACK]
            broken = [each for each in ours if not each.intact]
            self._hold(not broken and len(ours) <= 1, f"{notebook.name} starts with a broken block")
            opened = [each for each in _OPENING.finditer(script) if each[1] == STACK.encode()]
            self._hold(len(opened) == len(ours), f"{notebook.name} starts with a torn block")
            self._hold(len(script) <= LIMIT, f"{notebook.name} starts with a script that is too large")
        if self.run.account.person:
            self.owed.discard(notebook.name)
            return
        self.writes["start"] += 1
        self.remember(notebook)
        woken = self.asked_wake.get(notebook.name, 0) >= self.run.now - ANNOUNCED
        mine = notebook.name in self.owed or woken
        if not mine and self._person_was_faster(notebook):
            self.checked["restarts in which a person was faster"] += 1
            mine = True
        self._hold(mine, f"{notebook.name} was started, and nobody asked for it")
        self.owed.discard(notebook.name)

    def _person_was_faster(self, notebook: Notebook) -> bool:
        """Whether we had written down that we stop it, and died; then a person stopped it, not much later."""
        item = self.run.account.table.items.get(("notebook", notebook.name.lower()), {})
        restart = item.get("restart", {}).get("M")
        if restart is None:
            return False
        noted = int(restart["at"]["N"]) * 1000
        asked, stopped = self.asked_restart.get(notebook.name, 0), self.stopped_by_users.get(notebook.name, 0)
        until = noted + MAX_STOP_S * 1000 + CLOCKS_APART
        return asked >= noted - RECENTLY and noted - CLOCKS_APART <= stopped <= until

    def stops(self, notebook: Notebook) -> None:
        if self.run.account.person:
            self.stopped_by_users[notebook.name] = self.run.now
            return
        self.writes["stop"] += 1
        self._hold(
            self._recently(self.asked_restart, notebook), f"{notebook.name} was stopped, and nobody asked for it"
        )
        self.owed.add(notebook.name)

    def attaches(self, notebook: Notebook, lifecycle_config: str | None) -> None:
        self.remember(notebook)
        self.idle[notebook.name] = self.run.now
        if self.run.account.person:
            return
        self.writes["attach"] += 1
        if lifecycle_config is None:
            ours = self.attached_config.get(notebook.name) == notebook.lifecycle_config
            self._hold(ours, f"{notebook.lifecycle_config} was detached from {notebook.name}, and was not our doing")
            return
        free = notebook.lifecycle_config is None or self.attached_config.get(notebook.name) == notebook.lifecycle_config
        self._hold(free, f"{notebook.lifecycle_config} of {notebook.name} was replaced by {lifecycle_config}")
        self._hold(
            self._recently(self.asked, notebook), f"{lifecycle_config} was attached to {notebook.name}, untagged"
        )
        self.attached_config[notebook.name] = lifecycle_config

    def revocations(self, rule: Rule) -> None:
        if not self.run.account.person:
            self.writes["revoke"] += 1
            self._hold(rule.stack == STACK and rule.by_stack, f"{rule} was revoked and is not ours")

    def tags(self, notebook: Notebook, after: Mapping[str, str]) -> None:
        changed = {key for key in notebook.tags.keys() | after.keys() if notebook.tags.get(key) != after.get(key)}
        if not self.run.account.person:
            self.writes["tags"] += 1
            self._hold(changed <= {"ssh-status", "ssh-address", "ssh-restart"}, f"we wrote the tags {sorted(changed)}")
            self._hold("ssh-restart" not in after or "ssh-restart" not in changed, "we asked ourselves for a restart")
        self.remember(notebook)
        self.run.logins.tagged(notebook, after)

    def remember(self, notebook: Notebook) -> None:
        """What the notebook has had, and its tags have asked for, until this moment."""
        now, spec = self.run.now, parse_spec(notebook.tags, "ssh")
        if notebook.lifecycle_config is None:
            self.bare[notebook.name] = now
        if not spec.needs_block(now // 1000):
            self.idle[notebook.name] = now
        if spec.effective_modes(now // 1000):
            self.asked[notebook.name] = now
            if spec.restart:
                self.asked_restart[notebook.name] = now
        elif spec.until is not None:
            over = spec.until * 1000
            self.asked[notebook.name] = max(self.asked.get(notebook.name, 0), over)
            if spec.restart:
                self.asked_restart[notebook.name] = max(self.asked_restart.get(notebook.name, 0), over)

    # ---- once it is calm

    def settled(self, *allowed: Block) -> None:
        """Everything is as the tags ask, and as its people left it. allowed: the blocks that a script may have besides."""
        account = self.run.account
        for notebook in account.notebooks.values():
            if notebook.status != "Deleting":
                self._notebook_is_settled(notebook, (self.run.block, *allowed))
        for lifecycle_config in account.lifecycle_configs.values():
            self._configuration_is_settled(lifecycle_config)
        self._rules_are_settled()

    def shown(self) -> None:
        """Every notebook's tags say its status."""
        for name, notebook in self.run.account.notebooks.items():
            record, now = self.run.table.record(name), self.run.now // 1000
            shown, right = (
                current_status_tags(notebook.tags, "ssh"),
                desired_status_tags(record, now, self.run.sync, "ssh"),
            )
            self._hold(shown in (right, {"ssh-status": NOT_OURS}), f"{name} shows {shown} and should show {right}")

    def as_it_was(self) -> None:
        """Nobody asks for anything: every script is its owner's to the byte, and nothing of ours is left."""
        account = self.run.account
        for name, lifecycle_config in account.lifecycle_configs.items():
            truth = self.truths[name]
            if truth.put_back:
                self.checked["blocks that a person put where nobody knows of them"] += 1
                continue
            script = decoded(lifecycle_config.on_start) or b""
            self._hold(script == (truth.text or b""), f"{name} is {script!r} and was {truth.text!r}")
            self.checked["scripts back to the byte"] += 1
        default_config = account.lifecycle_configs.get(FALLBACK)
        used = any(each.lifecycle_config == FALLBACK for each in account.notebooks.values())
        if default_config and not used and default_config.tags.get(OWNER_TAG) == STACK:
            self._hold(self.truths[FALLBACK].text != EMPTY_SCRIPT, "our unused configuration is still there")
        ours = [rule for rule in account.rules.values() if rule.stack == STACK and rule.by_stack]
        self._hold(not ours, "rules of ours are left")
        for notebook in account.notebooks.values():
            shown = current_status_tags(notebook.tags, "ssh")
            self._hold(not shown or shown == {"ssh-status": NOT_OURS}, f"{notebook.name} still shows {shown}")

    def _notebook_is_settled(self, notebook: Notebook, allowed: tuple[Block, ...]) -> None:
        account, now = self.run.account, self.run.now // 1000
        name, spec = notebook.name, parse_spec(notebook.tags, "ssh")
        record = self.run.table.record(name)
        asks = spec.effective_modes(now)
        if not asks:
            settled = record is None or record.spec in (spec, NotebookSpec())
            self._hold(settled, f"{name} asks for nothing, and is known to ask {record and record.spec}")
            return
        if record is None:
            raise InvariantError(f"{name} asks for SSH and is not known")
        self._hold(record.spec == spec, f"{name} asks for {spec}, and is known to ask for {record.spec}")
        self._hold(record.state == notebook.status, f"{name} is {notebook.status}, and known as {record.state}")
        self._hold(
            record.lifecycle_config == notebook.lifecycle_config, f"{name}: known with {record.lifecycle_config}"
        )
        self._hold(bool(record.observed_hash), f"the last look at {name} did not end")
        if notebook.lifecycle_config is None:
            waits = notebook.status not in MODIFIABLE_STATES or record.problem is not None
            self._hold(waits, f"{name} is {notebook.status} and was given no configuration")
            return
        script = decoded(account.lifecycle_configs[notebook.lifecycle_config].on_start)
        made = insert_block(script, self.run.block)
        if isinstance(made, Refused):
            self._hold(record.problem == made.problem, f"{name} does not say {made.problem}: {record.problem}")
            self.checked["refusals said"] += 1
        else:
            here = [insert_block(script, block) for block in allowed]
            in_place = any(isinstance(each, Inserted) and not each.changed for each in here)
            self._hold(in_place, f"the configuration {notebook.lifecycle_config} of {name} lacks the block")
            self._hold(record.problem is None, f"{name} still says {record.problem}")
            self.checked["notebooks with the block in place"] += 1

    def _configuration_is_settled(self, lifecycle_config: LifecycleConfig) -> None:
        now, truth = self.run.now // 1000, self.truths[lifecycle_config.name]
        specs = [
            parse_spec(each.tags, "ssh")
            for each in self.run.account.notebooks.values()
            if each.lifecycle_config == lifecycle_config.name
        ]
        wanted = any(spec.effective_modes(now) or spec.problem for spec in specs)
        if wanted or truth.damaged or truth.put_back:
            return
        here = [each for each in blocks(decoded(lifecycle_config.on_start)) if each.stack == STACK]
        self._hold(not here, f"nobody asks for SSH in {lifecycle_config.name}, and the block is there")
        self.checked["configurations without the block"] += 1

    def _rules_are_settled(self) -> None:
        """Each way that tags ask for is open, and no rule of ours is of no use."""
        account = self.run.account
        uses: dict[str, set[str]] = {}
        for mode, group, vpc in ENTRANCES:
            if group not in account.groups:
                return
            gone = mode is Mode.EICE and ENDPOINT not in account.endpoints
            reachable = [] if gone else self._reachable(mode, vpc)
            open_groups = {
                rule.group
                for rule in account.rules.values()
                if not rule.egress and rule.peer == group and rule.ports == (22, 22)
            }
            for notebook in reachable:
                self._hold(bool(open_groups & set(notebook.groups)), f"{notebook.name} is not reached by {mode}")
                self.checked[f"ways in mode {mode}"] += 1
            uses[group] = {each for notebook in reachable for each in notebook.groups}
        for rule in account.rules.values():
            if rule.stack == STACK and rule.by_stack:
                inside, entrance = (rule.peer, rule.group) if rule.egress else (rule.group, rule.peer)
                used = (
                    bool(uses.get(rule.group)) if not entrance.startswith("sg-") else inside in uses.get(entrance, ())
                )
                self._hold(used, f"{rule} is of no use to anybody")

    def _reachable(self, mode: Mode, vpc: str) -> list[Notebook]:
        account, now = self.run.account, self.run.now // 1000
        return [
            each
            for each in account.notebooks.values()
            if mode in parse_spec(each.tags, "ssh").effective_modes(now)
            and each.status in ("Pending", "InService")
            and any(account.groups[group] == vpc for group in each.groups)
        ]

    def _recently(self, asked: Mapping[str, int], notebook: Notebook) -> bool:
        self.remember(notebook)
        return asked.get(notebook.name, 0) >= self.run.now - RECENTLY

    def _hold(self, held: bool, otherwise: str) -> None:
        if not held:
            raise InvariantError(otherwise)
