"""What people do to the account, at any moment and without asking: users, owners of scripts, admins, another stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from simulation.account import (
    BASTION_GROUP,
    ENDPOINT,
    ENDPOINT_GROUP,
    ENDPOINT_VPC,
    MODIFIABLE_STATES,
    LifecycleConfig,
    Notebook,
)
from simulation.invariants import (
    FALLBACK,
    NOT_OURS,
    OTHER_STACK,
    OWNER_TAG,
    STACK,
    Truth,
    blocks,
    decoded,
    encoded,
    without_blocks,
)
from simulation.logins import PEOPLE
from support.builders import HOST_KEY

from notebook_ssh.model.managed_block import Block, Refused, fingerprint, insert_block, inspect, remove_block
from notebook_ssh.planning.script import EMPTY_SCRIPT

if TYPE_CHECKING:
    from simulation.run import Run

OTHER_BODY = b": the other team's block\n" * 20
OTHER_BLOCK = Block(OTHER_STACK, "3.1.4", fingerprint(OTHER_BODY), OTHER_BODY)

SCRIPTS: tuple[bytes | None, ...] = (
    b"#!/bin/bash\nset -e\necho the owner was here\nexit 0\n",
    None,
    b"#!/bin/bash",
    b"#!/bin/bash\r\nset -e\r\necho crlf\r\n",
    b"\xef\xbb\xbf#!/bin/bash\necho after a byte order mark\n",
    b"echo no shebang and no end of line",
    b"#!/usr/bin/env python3\nprint('no shell')\n",
    b"#!/bin/sh\ncat <<'END'\n# >>> notebook-ssh stack=team-ssh and not a block\nEND\n",
    b"#!/bin/bash\nprintf '\xff\xfe not UTF-8'\n",
    b"#!/bin/bash\n" + b"# a comment that takes room\n" * 220,
    b"#!/bin/bash\n" + b"# a comment that takes all of the room\n" * 310,
)
ROUTES = (
    "/notebooks",
    "/ssh-config",
    "/known-hosts",
    "/notebooks/{name}",
    "/notebooks/{name}/ssh",
    "/notebooks/{name}/doctor",
)
NAMES = ("alpha", "Beta-1", "gamma-Delta", "notebook", "Notebook-2", "zeta", "a", "team-X", "omega", "last")
GOOD_MODES = ("ngrok", "bastion", "eice", "eice ngrok", "bastion eice", "ngrok bastion eice")
MODES = (*GOOD_MODES, "ngrok", "bastion", "NGROK ", "off", "tunnel", "eice eice", "", "$(reboot)")


@dataclass
class Draft:
    """A script that a user has open in an editor, with what the owner's part of it was when it was opened."""

    lifecycle_config: str
    script: bytes | None
    truth: Truth


@dataclass
class Users:
    """Everybody who may do something, and what they have in hand."""

    run: Run
    drafts: list[Draft] = field(default_factory=list)
    made: int = 0
    about: str = ""

    def found(self) -> None:
        """The account as it is before the stack is deployed: a fleet that owes us nothing."""
        account = self.run.account
        for group in ("sg-1", "sg-2", "sg-3", BASTION_GROUP, ENDPOINT_GROUP):
            account.groups[group] = "vpc-1"
        account.endpoints[ENDPOINT] = ENDPOINT_GROUP, ENDPOINT_VPC
        account.groups["sg-elsewhere"] = "vpc-2"
        account.write_rule(BASTION_GROUP, "0.0.0.0/0", egress=True)
        account.keys["ana"] = HOST_KEY
        for _ in range(self.run.chance.between(2, 4)):
            self.make_configuration()
        for _ in range(self.run.chance.between(3, 7)):
            self.make_notebook()

    def act(self) -> str:
        """One user action; what it was."""
        pick = self.run.chance.pick
        what = pick(_HABITS_WITH_CERTIFICATES if self.run.certificates else _HABITS)
        self.about = ""
        self.run.account.person = True
        try:
            what(self)
        except ClientError as error:  # a person hears of it and leaves it
            return f"{what.__name__} {self.about}: {error.response['Error']['Message'][:30]}"
        finally:
            self.run.account.person = False
        return f"{what.__name__} {self.about}"

    # ---- tags

    def ask(self) -> None:
        self._tag(ssh=self.run.chance.pick(MODES))

    def ask_no_more(self) -> None:
        notebook = self._notebook()
        keys = [key for key in notebook.tags if key.startswith("ssh") and key not in ("ssh-status", "ssh-address")]
        self.run.account.delete_tags(ResourceArn=notebook.arn, TagKeys=keys)

    def ask_for_a_restart(self) -> None:
        self._tag(ssh=self.run.chance.pick(GOOD_MODES), ssh_restart="now")

    def ask_until(self) -> None:
        ends = self.run.now // 1000 + self.run.chance.pick((-60, 40, 300, 1_200, 90_000))
        self._tag(
            ssh=self.run.chance.pick(GOOD_MODES),
            ssh_until=datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    def allow_waking(self) -> None:
        self._tag(ssh="ngrok", ssh_wake=self.run.chance.pick(("yes", "no")))

    def name_users(self) -> None:
        self._tag(ssh=self.run.chance.pick(GOOD_MODES), ssh_users=self.run.chance.pick(("ana", "ana bob")))

    def tag_otherwise(self) -> None:
        self._tag(Team=self.run.chance.pick(("a", "b")), ssh_status=NOT_OURS)

    # ---- certificates

    def ask_for_a_certificate(self) -> None:
        """Mostly for one that is known to admit some, as people do."""
        admitting = [each for each in self.run.account.notebooks.values() if self.run.logins.machine(each).admits]
        notebook = self.run.chance.pick(admitting) if admitting and self.run.chance.roll() < 0.8 else self._notebook()
        self.run.logins.ask(notebook, self.run.chance.pick(PEOPLE))

    def log_in(self) -> None:
        """With the newest certificates, wherever they are for: most of the notebooks are others."""
        for certificate in self.run.logins.certificates[-4:]:
            for notebook in list(self.run.account.notebooks.values()):
                self.run.logins.log_in(notebook, certificate)

    def withdraw(self) -> None:
        if self.run.logins.certificates:
            certificate = self.run.chance.pick(self.run.logins.certificates[-4:])
            self.run.logins.revoke(certificate.serial)

    # ---- notebooks

    def start(self) -> None:
        self.run.account.start_notebook_instance(NotebookInstanceName=self._notebook("Stopped").name)

    def stop(self) -> None:
        self.run.account.stop_notebook_instance(NotebookInstanceName=self._notebook("InService").name)

    def wake(self) -> None:
        willing = [each for each in self.run.account.notebooks.values() if each.tags.get("ssh-wake") == "yes"]
        notebook = self.run.chance.pick(willing) if willing else self._notebook()
        self.run.invariants.asked_wake[notebook.name] = self.run.now
        self.run.wake(notebook.name)

    def look_up(self) -> None:
        self.run.look_up(self.run.chance.pick(ROUTES), self._notebook().name)

    def make_notebook(self) -> None:
        account, chance = self.run.account, self.run.chance
        taken = {name.lower() for name in account.notebooks}
        free = [name for name in NAMES if name.lower() not in taken]
        if not free:
            return
        groups = chance.pick(((), ("sg-1",), ("sg-1", "sg-2"), ("sg-3",), ("sg-elsewhere",)))
        notebook = Notebook(chance.pick(free), f"role-{chance.pick(('a', 'b'))}", self.run.now, groups=groups)
        notebook.lifecycle_config = chance.pick((*account.lifecycle_configs, None))
        notebook.status = chance.pick(("InService", "Stopped"))
        self._found(notebook)

    def make_a_deleted_notebook_again(self) -> None:
        """Or delete one, if none is gone."""
        account = self.run.account
        names = [name for name in NAMES if name.lower() in account.gone and name not in account.notebooks]
        if not names:
            self.delete_notebook()
            return
        notebook = Notebook(self.run.chance.pick(names), f"role-{self.run.chance.pick(('a', 'b'))}", self.run.now)
        notebook.lifecycle_config = self.run.chance.pick((*account.lifecycle_configs, None))
        notebook.status = self.run.chance.pick(("Stopped", "InService"))
        self._found(notebook)

    def _found(self, notebook: Notebook) -> None:
        if notebook.name.lower() in self.run.account.gone:
            self.run.counts["notebooks made again under a deleted one's name"] += 1
        self.run.invariants.attached_config.pop(notebook.name, None)
        self.run.account.create_notebook(notebook)

    def delete_notebook(self) -> None:
        notebook = self._notebook("Stopped")
        self.run.invariants.remember(notebook)
        self.run.account.delete_notebook(notebook.name)

    def switch_configuration(self) -> None:
        account = self.run.account
        notebook, name = self._notebook("Stopped"), self.run.chance.pick((*account.lifecycle_configs, ""))
        if notebook.status in MODIFIABLE_STATES and self.run.in_the_window("update_notebook_instance", notebook.name):
            return
        if name == FALLBACK and self._we_meant_to_attach_it_to(notebook):
            self.run.counts["user actions postponed: an attachment of ours was on its way"] += 1
            return
        if name:
            account.update_notebook_instance(NotebookInstanceName=notebook.name, LifecycleConfigName=name)
        else:
            account.update_notebook_instance(NotebookInstanceName=notebook.name, DisassociateLifecycleConfig=True)

    # ---- scripts

    def make_configuration(self) -> None:
        self.made += 1
        on_create = self.run.chance.pick((None, b"#!/bin/bash\necho created\n"))
        self._make_configuration(f"Scripts-{self.made}", on_create, self.run.chance.pick(SCRIPTS))

    def make_the_fallback_themselves(self) -> None:
        """A configuration with the name of ours: more often than not to the byte like ours, but for whose it is."""
        pick = self.run.chance.pick
        if FALLBACK not in self.run.account.lifecycle_configs and not self.run.script_in_the_window(FALLBACK):
            script = pick((EMPTY_SCRIPT, EMPTY_SCRIPT, pick(SCRIPTS)))
            self._make_configuration(FALLBACK, EMPTY_SCRIPT, script, pick((None, None, OTHER_STACK)))

    def delete_lifecycle_config(self) -> None:
        name = self._lifecycle_config().name
        self.run.account.delete_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)

    def open_a_script(self) -> None:
        lifecycle_config = self._lifecycle_config()
        truth = self.run.invariants.truths[lifecycle_config.name]
        self.drafts.append(
            Draft(lifecycle_config.name, decoded(lifecycle_config.on_start), Truth(truth.text, truth.damaged))
        )

    def save_below(self) -> None:
        self._save(lambda script: script + b"\necho one line more\n")

    def save_on_top(self) -> None:
        def above(script: bytes) -> bytes:
            shebang, end, rest = script.partition(b"\n") if script.startswith(b"#!") else (b"", b"", script)
            return shebang + end + b"echo first of all\n" + rest

        self._save(above)

    def save_replaced(self) -> None:
        script = self.run.chance.pick(SCRIPTS)
        self._save(lambda _: script or b"#!/bin/bash\necho all new\n")

    def edit_inside_the_markers(self) -> None:
        def inside(script: bytes) -> bytes:
            ours = [each for each in blocks(script) if each.stack == STACK]
            if not ours:
                return script
            place = ours[0].end - 60
            return script[:place] + b"#" + script[place:]

        self._save(inside)

    def break_a_marker(self) -> None:
        self._save(lambda script: script.replace(b"# <<< notebook-ssh stack=team-ssh <<<\n", b"", 1))

    def copy_a_script(self) -> None:
        origin, copy = self._lifecycle_config(), self._lifecycle_config()
        if origin is copy or self.run.script_in_the_window(copy.name):
            return
        truth = self.run.invariants.truths[origin.name]
        self._write(copy, decoded(origin.on_start), Truth(truth.text, truth.damaged))

    def another_stack_comes_or_goes(self) -> None:
        lifecycle_config = self._lifecycle_config()
        script, truth = decoded(lifecycle_config.on_start), self.run.invariants.truths[lifecycle_config.name]
        if truth.damaged or self.run.script_in_the_window(lifecycle_config.name):
            return
        if any(each.stack == OTHER_STACK for each in blocks(script)):
            self._write(lifecycle_config, remove_block(script, OTHER_STACK), truth)
            return
        made = insert_block(script, OTHER_BLOCK)
        if not isinstance(made, Refused):
            self._write(lifecycle_config, made.script, truth)

    # ---- security groups, and the stack itself

    def add_a_rule(self) -> None:
        pick = self.run.chance.pick
        group = pick(("sg-1", "sg-2", "sg-3", BASTION_GROUP, ENDPOINT_GROUP))
        peer = pick((BASTION_GROUP, ENDPOINT_GROUP, "10.1.0.0/16", "sg-2"))
        self.run.account.write_rule(group, peer, stack=pick((None, None, OTHER_STACK, STACK.upper(), f"{STACK}-2")))

    def tag_a_rule(self) -> None:
        """`ec2:CreateTags` is enough for the stack's tag on a colleague's rule."""
        theirs = [rule for rule in self.run.account.rules.values() if not rule.by_stack]
        if theirs:
            self.run.account.tag_rule(self.run.chance.pick(theirs), STACK)
            self.run.counts["rules of others with the stack's tag"] += 1

    def take_a_rule_away(self) -> None:
        rules = [*self.run.account.rules.values()]
        if rules:
            rule = self.run.chance.pick(rules)
            self.run.account.revoke_security_group_ingress(GroupId=rule.group, SecurityGroupRuleIds=[rule.id])

    def close_or_open_the_bastion(self) -> None:
        self.run.account.write_rule(BASTION_GROUP, "0.0.0.0/0", egress=True)

    def make_or_delete_the_endpoint(self) -> None:
        """EC2 tells nobody: the next sweep finds it."""
        endpoints = self.run.account.endpoints
        if endpoints.pop(ENDPOINT, None) is None:
            endpoints[ENDPOINT] = ENDPOINT_GROUP, ENDPOINT_VPC

    def bring_another_version(self) -> None:
        self.run.next_block()

    # ---- afterwards

    def go_home(self, *, untag: bool) -> None:
        """Everybody repairs what they broke, stops what runs and, if so, asks for nothing more."""
        account = self.run.account
        account.person = True
        for lifecycle_config in account.lifecycle_configs.values():
            truth = self.run.invariants.truths[lifecycle_config.name]
            script = decoded(lifecycle_config.on_start)
            if truth.damaged:
                self._write(lifecycle_config, b"#!/bin/bash\necho repaired\n", Truth(b"#!/bin/bash\necho repaired\n"))
            elif any(each.stack == OTHER_STACK for each in blocks(script)):
                self._write(lifecycle_config, remove_block(script, OTHER_STACK), truth)
        for notebook in account.notebooks.values():
            if untag:
                mine = [key for key in notebook.tags if key not in ("ssh-status", "ssh-address")]
                account.delete_tags(ResourceArn=notebook.arn, TagKeys=mine)
            if notebook.status == "InService":
                account.stop_notebook_instance(NotebookInstanceName=notebook.name)
        account.person = False

    def come_back(self) -> None:
        """Everybody asks for SSH again, and starts what is stopped."""
        account = self.run.account
        account.person = True
        for notebook in account.notebooks.values():
            tags = [{"Key": "ssh", "Value": self.run.chance.pick(GOOD_MODES)}]
            account.add_tags(ResourceArn=notebook.arn, Tags=tags)
            if notebook.status == "Stopped":
                account.start_notebook_instance(NotebookInstanceName=notebook.name)
        account.person = False

    # ---- how it is done

    def _tag(self, **tags: str) -> None:
        written = [{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()]
        self.run.account.add_tags(ResourceArn=self._notebook().arn, Tags=written)

    def _notebook(self, status: str = "") -> Notebook:
        """Any notebook, rather one in `status`."""
        if not self.run.account.notebooks:
            self.make_notebook()
        everyone = [*self.run.account.notebooks.values()]
        found = self.run.chance.pick([each for each in everyone if each.status == status] or everyone)
        self.about += f" {found.name}"
        return found

    def _we_meant_to_attach_it_to(self, notebook: Notebook) -> bool:
        """It is noted, and not done: should the function have died, it could not be told a person's attachment from ours."""
        item = self.run.account.table.items.get(("notebook", notebook.name.lower()), {})
        return item.get("attached") == {"S": FALLBACK} and notebook.lifecycle_config != FALLBACK

    def _lifecycle_config(self) -> LifecycleConfig:
        if not self.run.account.lifecycle_configs:
            self.make_configuration()
        found = self.run.chance.pick([*self.run.account.lifecycle_configs.values()])
        self.about += f" {found.name}"
        return found

    def _make_configuration(
        self, name: str, on_create: bytes | None, on_start: bytes | None, stack: str | None = None
    ) -> None:
        hooks = {"OnStart": on_start, "OnCreate": on_create}
        self.run.invariants.truths[name] = Truth(on_start)
        self.run.account.create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=name,
            Tags=[{"Key": OWNER_TAG, "Value": stack}] if stack else (),
            **{hook: [{"Content": encoded(content)}] for hook, content in hooks.items() if content},
        )

    def _save(self, edit: Callable[[bytes], bytes]) -> None:
        """Save the oldest draft, edited; what another user wrote since is overwritten, as consoles do."""
        if not self.drafts:
            self.open_a_script()
        draft = self.drafts.pop(0)
        self.about += f" {draft.lifecycle_config}"
        lifecycle_config = self.run.account.lifecycle_configs.get(draft.lifecycle_config)
        if lifecycle_config is None:
            return
        if self.run.script_in_the_window(lifecycle_config.name):
            self.drafts.insert(0, draft)
            return
        before = draft.script or b""
        after = edit(before)
        same = without_blocks(before) == without_blocks(after)
        self._write(lifecycle_config, after, draft.truth if same else Truth(without_blocks(after)))

    def _write(self, lifecycle_config: LifecycleConfig, script: bytes | None, truth: Truth) -> None:
        account = self.run.account
        hooks = {"OnStart": encoded(script), "OnCreate": lifecycle_config.on_create}
        known = any(each.stack == STACK for each in blocks(decoded(lifecycle_config.on_start)))
        torn = script is not None and STACK.encode() in script and type(inspect(script, STACK)).__name__ == "Damaged"
        brought = any(each.stack == STACK for each in blocks(script)) and not known
        account.update_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=lifecycle_config.name,
            **{hook: [{"Content": content}] for hook, content in hooks.items() if content},
        )
        put_back = brought or (self.run.invariants.truths[lifecycle_config.name].put_back and known)
        self.run.invariants.truths[lifecycle_config.name] = Truth(truth.text, torn, put_back)


_HABITS: tuple[Callable[[Users], None], ...] = tuple(
    habit
    for habit, weight in {
        Users.ask: 24,
        Users.ask_no_more: 10,
        Users.ask_for_a_restart: 8,
        Users.ask_until: 4,
        Users.allow_waking: 6,
        Users.name_users: 3,
        Users.tag_otherwise: 3,
        Users.start: 12,
        Users.stop: 12,
        Users.wake: 6,
        Users.look_up: 4,
        Users.make_notebook: 3,
        Users.delete_notebook: 2,
        Users.make_a_deleted_notebook_again: 14,
        Users.switch_configuration: 4,
        Users.make_configuration: 2,
        Users.make_the_fallback_themselves: 3,
        Users.delete_lifecycle_config: 2,
        Users.open_a_script: 6,
        Users.save_below: 4,
        Users.save_on_top: 3,
        Users.save_replaced: 2,
        Users.edit_inside_the_markers: 4,
        Users.break_a_marker: 1,
        Users.copy_a_script: 1,
        Users.another_stack_comes_or_goes: 3,
        Users.add_a_rule: 3,
        Users.tag_a_rule: 2,
        Users.take_a_rule_away: 4,
        Users.close_or_open_the_bastion: 1,
        Users.make_or_delete_the_endpoint: 1,
        Users.bring_another_version: 1,
    }.items()
    for _ in range(weight)
)
"""Who does what how often."""

_HABITS_WITH_CERTIFICATES: tuple[Callable[[Users], None], ...] = (
    *_HABITS,
    *(
        habit
        for habit, weight in ((Users.ask_for_a_certificate, 25), (Users.log_in, 25), (Users.withdraw, 2))
        for _ in range(weight)
    ),
)
