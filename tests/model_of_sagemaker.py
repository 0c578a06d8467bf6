"""Notebooks and configurations as plain values, and what actions do to them: enough to hold plans against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from notebook_ssh.rules.notebook import (
    AT_REST,
    Action,
    Attach,
    BackUp,
    Configuration,
    CreateConfiguration,
    DeleteConfiguration,
    Detach,
    EndBackUps,
    KeepBackUps,
    Kept,
    Notebook,
    Seen,
    SeenConfiguration,
    Start,
    Stop,
    TakeTagAway,
    Terms,
    Users,
    WriteScript,
    needs_users,
    plan_configuration,
    plan_notebook,
)
from notebook_ssh.rules.record import Mode, NotebookState, Record
from notebook_ssh.rules.script import Block, fingerprint
from notebook_ssh.rules.tags import read_wish

FALLBACK = "better-sagemaker"
BODY = b": the block\n"
TERMS = Terms("ssh", FALLBACK, Block("team-ssh", "1.0.0", fingerprint(BODY), BODY))


@dataclass
class Model:
    """The account, what the stack keeps about it, and everything that was done."""

    notebooks: dict[str, Notebook] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    configurations: dict[str, Configuration] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    backups: list[tuple[str, bytes | None]] = field(default_factory=list)
    now: int = 1_800_000_000
    terms: Terms = TERMS
    done: list[Action] = field(default_factory=list)

    # ---- what people do

    def add(self, name: str, configuration: str | None = None, state: NotebookState = NotebookState.IN_SERVICE) -> None:
        arn = f"arn:aws:sagemaker:eu-west-1:123456789012:notebook-instance/{name}"
        self.notebooks[name] = Notebook(name, arn, "role", state, self.now, configuration)
        self.tags[name] = {}

    def configure(self, name: str, on_start: bytes | None, on_create: bytes | None = None) -> None:
        self.configurations[name] = Configuration(name, f"arn:{name}", self.now * 1000, on_create, on_start)

    def turn(self, name: str, state: NotebookState) -> None:
        self.now += 100
        self.notebooks[name] = replace(self.notebooks[name], state=state, state_since=self.now)

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

    def users(self, configuration: str) -> Users:
        names = tuple(name for name, notebook in self.notebooks.items() if notebook.configuration == configuration)
        wishes = {name: read_wish(self.tags[name], "ssh") for name in names}
        return Users(
            names,
            asking=tuple(name for name in names if wishes[name].mode_at(self.now) is not Mode.OFF),
            unclear=tuple(name for name in names if wishes[name].problem),
        )

    def see(self, name: str) -> Seen:
        notebook = self.notebooks.get(name)
        if notebook is None:
            return Seen(name, None, record=self.records.get(name))
        wish = read_wish(self.tags[name], "ssh")
        attached = notebook.configuration or (FALLBACK if wish.mode_at(self.now) is not Mode.OFF else "")
        seen = Seen(
            name,
            notebook,
            wish,
            self.configurations.get(attached),
            record=self.records.get(name),
            kept=self.kept.get(attached),
        )
        return replace(seen, users=self.users(attached)) if needs_users(seen, self.terms, self.now) else seen

    def see_configuration(self, name: str) -> SeenConfiguration:
        return SeenConfiguration(
            name, self.configurations.get(name), self.users(name), name in self.ours, self.kept.get(name)
        )

    # ---- what the stack does

    def reconcile(self, name: str, *, crash_after: int | None = None) -> tuple[Action, ...]:
        """One look. crash_after: so many actions are done, and the record's second saving is not."""
        self.now += 1
        seen = self.see(name)
        plan = plan_notebook(seen, self.terms, self.now)
        if plan.record:
            self.records[name] = replace(plan.record, seen="")
        for number, action in enumerate(plan.actions):
            if number == crash_after:
                return plan.actions
            self.do(action)
        if crash_after is not None:
            return plan.actions
        self._keep(plan.kept.name if plan.kept else seen.kept.name if seen.kept else "", plan.kept)
        if plan.record:
            self.records[name] = replace(plan.record, seen="seen")
        else:
            self.records.pop(name, None)
        for look in plan.look_next:
            self.reconcile_configuration(look.name)
        return plan.actions

    def reconcile_configuration(self, name: str) -> tuple[Action, ...]:
        self.now += 1
        plan = plan_configuration(self.see_configuration(name), self.terms, self.now)
        for action in plan.actions:
            self.do(action)
        self._keep(name, plan.kept)
        return plan.actions

    def settle(self, rounds: int = 12) -> None:
        """Look at everything and let time pass, until nothing is left to do."""
        for _ in range(rounds):
            before = len(self.done), {name: notebook.state for name, notebook in self.notebooks.items()}
            for name in list(self.notebooks | self.records):
                self.reconcile(name)
            for name in list(self.configurations | self.kept):
                self.reconcile_configuration(name)
            self.finish()
            if before == (len(self.done), {name: notebook.state for name, notebook in self.notebooks.items()}):
                return
        raise AssertionError(f"it does not settle: {self.done[-6:]}")

    def do(self, action: Action) -> None:
        """The action, with the refusals of the service."""
        self.done.append(action)
        match action:
            case BackUp(configuration):
                self.backups.append((configuration.name, configuration.on_start))
            case WriteScript(configuration, on_start):
                assert self.configurations[configuration.name] == configuration, "written without having been seen"
                assert (configuration.name, configuration.on_start) in self.backups, "written without a copy"
                self.configurations[configuration.name] = replace(
                    configuration, on_start=on_start, modified=self.now * 1000
                )
            case CreateConfiguration(name, on_create, on_start):
                assert name not in self.configurations
                self.configure(name, on_start, on_create)
                self.ours.add(name)
            case DeleteConfiguration(configuration):
                assert configuration.name in self.ours
                assert not self.users(configuration.name).names
                del self.configurations[configuration.name]
            case Attach(name, configuration):
                assert self.notebooks[name].state in AT_REST
                assert configuration in self.configurations
                self.notebooks[name] = replace(self.notebooks[name], configuration=configuration)
                self.turn(name, NotebookState.UPDATING)
            case Detach(name):
                assert self.notebooks[name].state in AT_REST
                self.notebooks[name] = replace(self.notebooks[name], configuration=None)
                self.turn(name, NotebookState.UPDATING)
            case Stop(name):
                assert self.notebooks[name].state is NotebookState.IN_SERVICE
                self.turn(name, NotebookState.STOPPING)
            case Start(name):
                assert self.notebooks[name].state in AT_REST
                self.turn(name, NotebookState.PENDING)
            case TakeTagAway(arn, key):
                self.tags[arn.rpartition("/")[2]].pop(key, None)
            case KeepBackUps() | EndBackUps():
                pass

    def _keep(self, name: str, kept: Kept | None) -> None:
        if kept is None:
            self.kept.pop(name, None)
        else:
            there = self.configurations.get(kept.name)
            self.kept[kept.name] = replace(kept, modified=there.modified if there else kept.modified)
