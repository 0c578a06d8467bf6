"""Notebooks and configurations as plain values, and what actions do to them: enough to hold plans against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from notebook_ssh.model.managed_block import Block, fingerprint
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import parse_spec
from notebook_ssh.planning.actions import (
    Action,
    Attach,
    BackupScript,
    CreateLifecycleConfig,
    DeleteLifecycleConfig,
    Detach,
    ExpireBackups,
    RemoveTag,
    Start,
    Stop,
    WriteScript,
)
from notebook_ssh.planning.lifecycle_config import plan_lifecycle_config
from notebook_ssh.planning.notebook import plan_notebook
from notebook_ssh.planning.observation import (
    MODIFIABLE_STATES,
    BlockPolicy,
    LifecycleConfig,
    LifecycleConfigObservation,
    LifecycleConfigRecord,
    Notebook,
    NotebookObservation,
    Users,
)
from notebook_ssh.planning.script import needs_users

FALLBACK = "better-sagemaker"
BODY = b": the block\n"
TERMS = BlockPolicy("ssh", FALLBACK, Block("team-ssh", "1.0.0", fingerprint(BODY), BODY))


@dataclass
class Model:
    """The account, what the stack keeps about it, and everything that was done."""

    notebooks: dict[str, Notebook] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    lifecycle_configs: dict[str, LifecycleConfig] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)
    config_record: dict[str, LifecycleConfigRecord] = field(default_factory=dict)
    backups: list[tuple[str, bytes | None]] = field(default_factory=list)
    now: int = 1_800_000_000
    policy: BlockPolicy = TERMS
    done: list[Action] = field(default_factory=list)

    # ---- what people do

    def add(
        self, name: str, lifecycle_config: str | None = None, state: NotebookState = NotebookState.IN_SERVICE
    ) -> None:
        arn = f"arn:aws:sagemaker:eu-west-1:123456789012:notebook-instance/{name}"
        self.notebooks[name] = Notebook(name, arn, "role", state, self.now, lifecycle_config)
        self.tags[name] = {}

    def configure(self, name: str, on_start: bytes | None, on_create: bytes | None = None) -> None:
        self.lifecycle_configs[name] = LifecycleConfig(name, f"arn:{name}", self.now * 1000, on_create, on_start)

    def turn(self, name: str, state: NotebookState) -> None:
        self.now += 100
        self.notebooks[name] = self.notebooks[name]._replace(state=state, state_since=self.now)

    def finish(self) -> None:
        """What is on its way arrives."""
        arrives = {
            NotebookState.PENDING: NotebookState.IN_SERVICE,
            NotebookState.STOPPING: NotebookState.STOPPED,
            NotebookState.UPDATING: NotebookState.STOPPED,
        }
        for name, notebook in self.notebooks.items():
            if notebook.state in arrives:
                self.turn(name, arrives[notebook.state])

    # ---- what the stack sees

    def users(self, lifecycle_config: str) -> Users:
        names = tuple(
            name for name, notebook in self.notebooks.items() if notebook.lifecycle_config == lifecycle_config
        )
        specs = {name: parse_spec(self.tags[name], "ssh") for name in names}
        return Users(
            names,
            requesting=tuple(name for name in names if specs[name].effective_modes(self.now)),
            invalid=tuple(name for name in names if specs[name].problem),
        )

    def see(self, name: str) -> NotebookObservation:
        notebook = self.notebooks.get(name)
        if notebook is None:
            return NotebookObservation(name, None, record=self.records.get(name))
        spec = parse_spec(self.tags[name], "ssh")
        attached_config = notebook.lifecycle_config or (FALLBACK if spec.effective_modes(self.now) else "")
        seen = NotebookObservation(
            name,
            notebook,
            spec,
            self.lifecycle_configs.get(attached_config),
            record=self.records.get(name),
            config_record=self.config_record.get(attached_config),
        )
        return seen._replace(users=self.users(attached_config)) if needs_users(seen, self.policy, self.now) else seen

    def see_configuration(self, name: str) -> LifecycleConfigObservation:
        return LifecycleConfigObservation(
            name, self.lifecycle_configs.get(name), self.users(name), name in self.ours, self.config_record.get(name)
        )

    # ---- what the stack does

    def reconcile(self, name: str, *, crash_after: int | None = None) -> tuple[Action, ...]:
        """One look. crash_after: so many actions are done, and the record's second saving is not."""
        self.now += 1
        seen = self.see(name)
        plan = plan_notebook(seen, self.policy, self.now)
        if plan.record:
            self.records[name] = replace(plan.record, observed_hash="")
        for number, action in enumerate(plan.actions):
            if number == crash_after:
                return plan.actions
            self.do(action)
        if crash_after is not None:
            return plan.actions
        self._keep(
            plan.config_record.name if plan.config_record else seen.config_record.name if seen.config_record else "",
            plan.config_record,
        )
        if plan.record:
            self.records[name] = replace(plan.record, observed_hash="seen")
        else:
            self.records.pop(name, None)
        for look in plan.follow_ups:
            self.reconcile_lifecycle_config(look.name)
        return plan.actions

    def reconcile_lifecycle_config(self, name: str) -> tuple[Action, ...]:
        self.now += 1
        plan = plan_lifecycle_config(self.see_configuration(name), self.policy, self.now)
        for action in plan.actions:
            self.do(action)
        self._keep(name, plan.config_record)
        return plan.actions

    def settle(self, rounds: int = 12) -> None:
        """Look at everything and let time pass, until nothing is left to do."""
        for _ in range(rounds):
            before = len(self.done), {name: notebook.state for name, notebook in self.notebooks.items()}
            for name in list(self.notebooks | self.records):
                self.reconcile(name)
            for name in list(self.lifecycle_configs | self.config_record):
                self.reconcile_lifecycle_config(name)
            self.finish()
            if before == (len(self.done), {name: notebook.state for name, notebook in self.notebooks.items()}):
                return
        raise AssertionError(f"it does not settle: {self.done[-6:]}")

    def do(self, action: Action) -> None:
        """The action, with the refusals of the service."""
        self.done.append(action)
        match action:
            case BackupScript(lifecycle_config):
                self.backups.append((lifecycle_config.name, lifecycle_config.on_start))
            case WriteScript(lifecycle_config, on_start):
                assert self.lifecycle_configs[lifecycle_config.name] == lifecycle_config, (
                    "written without having been seen"
                )
                assert (lifecycle_config.name, lifecycle_config.on_start) in self.backups, "written without a copy"
                self.lifecycle_configs[lifecycle_config.name] = lifecycle_config._replace(
                    on_start=on_start, modified=self.now * 1000
                )
            case CreateLifecycleConfig(name, on_create, on_start):
                assert name not in self.lifecycle_configs
                self.configure(name, on_start, on_create)
                self.ours.add(name)
            case DeleteLifecycleConfig(lifecycle_config):
                assert lifecycle_config.name in self.ours
                assert not self.users(lifecycle_config.name).names
                del self.lifecycle_configs[lifecycle_config.name]
            case Attach(name, lifecycle_config):
                assert self.notebooks[name].state in MODIFIABLE_STATES
                assert lifecycle_config in self.lifecycle_configs
                self.notebooks[name] = self.notebooks[name]._replace(lifecycle_config=lifecycle_config)
                self.turn(name, NotebookState.UPDATING)
            case Detach(name):
                assert self.notebooks[name].state in MODIFIABLE_STATES
                self.notebooks[name] = self.notebooks[name]._replace(lifecycle_config=None)
                self.turn(name, NotebookState.UPDATING)
            case Stop(name):
                assert self.notebooks[name].state is NotebookState.IN_SERVICE
                self.turn(name, NotebookState.STOPPING)
            case Start(name):
                assert self.notebooks[name].state in MODIFIABLE_STATES
                self.turn(name, NotebookState.PENDING)
            case RemoveTag(arn, key):
                self.tags[arn.rpartition("/")[2]].pop(key, None)
            case ExpireBackups():
                pass

    def _keep(self, name: str, config_record: LifecycleConfigRecord | None) -> None:
        if config_record is None:
            self.config_record.pop(name, None)
        else:
            there = self.lifecycle_configs.get(config_record.name)
            self.config_record[config_record.name] = config_record._replace(
                modified=there.modified if there else config_record.modified
            )
