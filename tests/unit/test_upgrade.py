"""When a block of another version is replaced: what may wait, until when, and how fast the rest follows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st
from support.builders import a_report
from support.examples import examples
from support.model_of_sagemaker import FALLBACK, Model

from notebook_ssh.errors import Problem
from notebook_ssh.model.managed_block import Block, Inserted, fingerprint, insert_block, inspect, remove_block
from notebook_ssh.model.record import NotebookState, Phase, RestartStep
from notebook_ssh.planning.actions import Action, Stop, WriteScript
from notebook_ssh.planning.observation import (
    BlockPolicy,
    Deployment,
    LifecycleConfigObservation,
    LifecycleConfigRecord,
    NotebookObservation,
)
from notebook_ssh.planning.upgrade import (
    MAX_WORKERS,
    REQUEST_INTERVAL_S,
    UPGRADE_INTERVAL_S,
    due_upgrades,
    is_due,
    is_free,
    is_waiting,
    noted,
    works,
)

OWNERS = b"#!/bin/bash\nset -e\npip install team-tools\n"
DAY = 86_400
SETTINGS = {
    "STACK": "team-ssh",
    "VERSION": "1.1.0",
    "REGION": "eu-west-1",
    "API": "https://abc.example.com/v1",
    "TAG_KEY": "ssh",
    "WORKER": "b" * 64,
}
OLD_WORKER, KEPT = "a" * 64, Deployment("1.1.0:0", 0, ("a" * 16, "b" * 16))


def a_block(**changes: str) -> Block:
    """A block with `SETTINGS`, some changed; an empty value leaves its setting out."""
    settings = {word: value for word, value in (SETTINGS | changes).items() if value}
    words = " ".join(f"'{word}={value}'" for word, value in settings.items())
    body = b"true\n' " + words.encode() + b' >>"$l" 2>&1\n'
    return Block("team-ssh", settings["VERSION"], fingerprint(body), body, settings)


PRESENT = BlockPolicy("ssh", FALLBACK, a_block())
OLDER = a_block(VERSION="1.0.0", WORKER=OLD_WORKER)


def script_with(block: Block, owners: bytes = OWNERS) -> bytes:
    made = insert_block(owners, block)
    assert isinstance(made, Inserted)
    return made.script


# ---- what may stay -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "deployment", "may_stay"),
    [
        # Another version, or another build of this one.
        ({"VERSION": "1.0.0", "WORKER": OLD_WORKER}, KEPT, True),
        ({"VERSION": "2.0.0", "WORKER": OLD_WORKER}, KEPT, True),
        ({"WORKER": OLD_WORKER}, KEPT, True),
        # The same worker, and no sweep has recorded it yet.
        ({"VERSION": "1.0.0"}, Deployment(), True),
        # Its agents would get no worker.
        ({"VERSION": "1.0.0", "WORKER": OLD_WORKER}, Deployment(), False),
        ({"VERSION": "1.0.0", "WORKER": "c" * 64}, KEPT, False),
        ({"VERSION": "1.0.0", "WORKER": ""}, KEPT, False),
        # They would not reach the stack, or would read other tags when they do not.
        ({"VERSION": "1.0.0", "API": "https://old.example.com/v1"}, KEPT, False),
        ({"VERSION": "1.0.0", "REGION": "eu-west-2"}, KEPT, False),
        ({"VERSION": "1.0.0", "TAG_KEY": "team-ssh"}, KEPT, False),
        # A setting that the admin changed, and nothing else.
        ({"INSTALL_SSHD": "yes"}, KEPT, False),
        ({"NGROK_SHA256": "c" * 64}, KEPT, False),
        # With another version, it may have another default there, or be new.
        ({"VERSION": "1.0.0", "INSTALL_SSHD": "yes"}, KEPT, True),
        ({"VERSION": "2.0.0", "NEW": "yes"}, KEPT, True),
        # This one: nothing to upgrade.
        ({}, KEPT, False),
    ],
)
def test_which_older_block_may_stay(older: dict[str, str], deployment: Deployment, may_stay: bool) -> None:
    found = inspect(script_with(a_block(**older)), "team-ssh")
    assert works(found, PRESENT, deployment) is may_stay


@pytest.mark.parametrize(
    "script",
    [
        OWNERS,
        None,
        script_with(OLDER).replace(b"true\n", b"false\n"),
        OWNERS + script_with(OLDER, b"")[len(b"#!/bin/sh\n") :],
        script_with(OLDER).replace(b"# <<< notebook-ssh stack=team-ssh <<<\n", b""),
        script_with(replace(OLDER, stack="other-ssh")),
    ],
    ids=["no block", "no script", "edited", "moved", "damaged", "another stack's"],
)
def test_no_other_script_waits(script: bytes | None) -> None:
    assert not works(inspect(script, "team-ssh"), PRESENT, KEPT)


def test_the_settings_of_the_first_version_are_read() -> None:
    """As version 1.0.0 wrote them; every later version must read them, or its upgrade rewrites all scripts at once."""
    body = (
        b'except Exception as e:sys.exit("notebook-ssh: not started: %r"%e)\n'
        b"' 'STACK=team-ssh' 'VERSION=1.0.0' 'REGION=eu-west-1' 'API=https://abc.example.com/v1' 'TAG_KEY=ssh' "
        b"'NGROK_DOWNLOAD=https://example.com/ngrok-{arch}.tgz' 'WORKER=" + b"a" * 64 + b'\' >>"$l" 2>&1\n'
        b") & ) | : ) <>/dev/null >&0 2>&0 || :\n"
    )
    script = script_with(Block("team-ssh", "1.0.0", fingerprint(body), body))
    assert works(inspect(script, "team-ssh"), PRESENT, KEPT)


# ---- until when --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "block", "since", "due"),
    [
        (DAY, PRESENT.block_ref, 1_000, {999: False, 1_000 + DAY - 1: False, 1_000 + DAY: True}),
        # No sweep has run with this block yet.
        (DAY, "1.0.0:0", 1_000, {1_000 + 9 * DAY: False}),
        (DAY, "", 0, {9 * DAY: False}),
        (0, "1.0.0:0", 1_000, {1_000: True}),
        (0, "", 0, {1: True}),
    ],
)
def test_an_upgrade_is_due_when_its_block_has_been_there_for_so_long(
    after: int, block: str, since: int, due: dict[int, bool]
) -> None:
    policy, deployment = PRESENT._replace(upgrade_after=after), Deployment(block, since)
    assert {now: is_due(policy, deployment, now) for now in due} == due


@pytest.mark.parametrize(
    ("record", "due_at"),
    [
        ({"block_since": 900}, 1_000 + DAY),
        ({"block_since": 5_000}, 5_000 + DAY),
        ({"block_since": 900, "replaced_at": 5_000}, 5_000 + DAY),
        ({"block_since": 900 * DAY}, 1_000 + DAY),  # by a wrong clock
    ],
)
def test_a_block_of_a_version_that_no_sweep_recorded_stays_as_long(record: dict[str, int], due_at: int) -> None:
    """That version was deployed, and the stack went back to this one before its first sweep."""
    kept = LifecycleConfigRecord("team", **record)  # type: ignore[arg-type]
    deployment = Deployment(PRESENT.block_ref, 1_000)
    assert [is_due(PRESENT, deployment, now, kept) for now in (due_at - 1, due_at)] == [False, True]


@pytest.mark.parametrize(
    ("ahead", "free"), [(-1, True), (0, True), (5, True), (6, False), (20, False), (21, True), (9_999, True)]
)
def test_one_upgrade_after_the_other(ahead: int, free: bool) -> None:
    """Almost free counts as free: it waits for the rest. What is too far ahead comes from a wrong clock."""
    assert is_free(Deployment(next_upgrade=(1_000 + ahead) * 1000), 1_000) is free


def test_a_sweep_records_the_block_and_which_workers_there_are() -> None:
    first = noted(Deployment(), PRESENT._replace(block=OLDER), 100)
    assert first == Deployment(OLDER.version + ":" + OLDER.id, 100, ("a" * 16,))
    second = noted(first._replace(next_upgrade=7), PRESENT, 200)
    assert second == Deployment(PRESENT.block_ref, 200, ("a" * 16, "b" * 16), 7)
    assert noted(second, PRESENT._replace(block=OLDER), 300).workers == ("b" * 16, "a" * 16)
    many = first._replace(workers=tuple(f"{number:016x}" for number in range(MAX_WORKERS)))
    assert noted(many, PRESENT, 1).workers == (*many.workers[1:], "b" * 16)
    assert noted(first, PRESENT._replace(block=a_block(WORKER="")), 1).workers == first.workers


@pytest.mark.parametrize(
    ("record", "waits"),
    [
        ({}, True),
        ({"block": PRESENT.block_ref}, False),
        ({"block": ""}, False),
        ({"tried": "1.0.0:0"}, False),  # the sweep requests it for this reason already
        ({"problem": Problem("config-too-large", "…")}, False),  # until the script changes
    ],
)
def test_which_configuration_waits(record: dict[str, object], waits: bool) -> None:
    waiting = LifecycleConfigRecord("team", 1, block="1.0.0:0", tried=PRESENT.block_ref)
    assert is_waiting(waiting._replace(**record), PRESENT) is waits  # type: ignore[arg-type]


@pytest.mark.parametrize(("minutes", "many"), [(2, 10), (15, 75), (60, 75)])
def test_a_sweep_requests_what_fits_before_the_next_one(minutes: int, many: int) -> None:
    records = [LifecycleConfigRecord(f"c{number}", block="1.0.0:0", tried=PRESENT.block_ref) for number in range(100)]
    found = list(due_upgrades(records, PRESENT, Deployment(PRESENT.block_ref), DAY, minutes * 60))
    assert [request.name for request, _ in found] == [f"c{number}" for number in range(many)]
    delays = [delay for _, delay in found]
    assert {later - earlier for earlier, later in pairwise(delays)} == {REQUEST_INTERVAL_S}
    assert max(delays) < min(minutes * 60, 900)
    assert REQUEST_INTERVAL_S > UPGRADE_INTERVAL_S


def test_a_sweep_requests_only_what_is_due() -> None:
    young = LifecycleConfigRecord("young", 5_000, block="1.0.0:0", tried=PRESENT.block_ref, block_since=5_000)
    old = young._replace(name="old", block_since=900)
    deployment = Deployment(PRESENT.block_ref, 1_000)
    found = list(due_upgrades([young, old], PRESENT, deployment, 1_000 + DAY, 900))
    assert [request.name for request, _ in found] == ["old"]


# ---- a fleet -----------------------------------------------------------------------------------


class TooSoonError(Exception):
    """Another script has just been upgraded (adapters/write_slots.py)."""


@dataclass
class Fleet(Model):
    """The account with the table's record of the deployment. upgrades: when each was written, and its configuration."""

    deployment: Deployment = field(default_factory=Deployment)
    upgrades: list[tuple[int, str]] = field(default_factory=list)

    def see(self, name: str) -> NotebookObservation:
        return super().see(name)._replace(deployment=self.deployment)

    def see_configuration(self, name: str) -> LifecycleConfigObservation:
        return super().see_configuration(name)._replace(deployment=self.deployment)

    def do(self, action: Action) -> None:
        if isinstance(action, WriteScript) and action.upgrade:
            if self.now * 1000 < self.deployment.next_upgrade:
                raise TooSoonError
            self.deployment = self.deployment._replace(next_upgrade=(self.now + UPGRADE_INTERVAL_S) * 1000)
            self.upgrades.append((self.now, action.lifecycle_config.name))
        super().do(action)

    def deploy(self, block: Block) -> None:
        self.policy = self.policy._replace(block=block)

    def reconcile_lifecycle_config(self, name: str) -> tuple[Action, ...]:
        try:
            return super().reconcile_lifecycle_config(name)
        except TooSoonError:  # deferred
            self.now = -(-self.deployment.next_upgrade // 1000)
            return super().reconcile_lifecycle_config(name)

    def sweep(self) -> int:
        """One sweep and what it requests; how many upgrades it requested."""
        if self.deployment.block != self.policy.block_ref:
            self.deployment = noted(self.deployment, self.policy, self.now)
        for name, record in list(self.config_record.items()):
            if record.tried != self.policy.block_ref:
                self.reconcile_lifecycle_config(name)
        records = self.config_record.values()
        began, requested = self.now, list(due_upgrades(records, self.policy, self.deployment, self.now, 900))
        for request, delay in requested:
            self.now = max(self.now, began + delay)
            self.reconcile_lifecycle_config(request.name)
        return len(requested)

    def block_in(self, lifecycle_config: str) -> str:
        script = self.lifecycle_configs[lifecycle_config].on_start or b""
        return script.split(b"version=")[1].split(b" ")[0].decode()


def a_fleet(many: int = 1, after: int = DAY) -> Fleet:
    """Notebooks that request SSH, each with its own configuration, and that have started with the block of 1.0.0."""
    fleet = Fleet(policy=BlockPolicy("ssh", FALLBACK, OLDER, after))
    for number in range(many):
        fleet.configure(f"c{number}", OWNERS)
        fleet.add(f"box{number}", f"c{number}")
        fleet.tags[f"box{number}"] = {"ssh": "ngrok"}
    fleet.sweep()
    fleet.settle()
    for name in fleet.notebooks:
        fleet.turn(name, NotebookState.PENDING)
    fleet.finish()
    fleet.settle()
    fleet.now += 1_000
    return fleet


def test_nothing_is_written_for_a_day_whatever_is_reconciled_and_then_the_block_alone() -> None:
    fleet = a_fleet()
    fleet.deploy(a_block())
    done = len(fleet.done)
    for _ in range(95):
        fleet.sweep()
        fleet.reconcile("box0")
        fleet.reconcile_lifecycle_config("c0")
        fleet.now += 900
    assert len(fleet.done) == done
    record = fleet.config_record["c0"]
    assert (record.block, record.tried) == (f"{OLDER.version}:{OLDER.id}", PRESENT.block_ref)
    assert fleet.records["box0"].problem is None
    fleet.now += 900
    since = fleet.records["box0"].block_since
    assert fleet.sweep() == 1
    assert fleet.lifecycle_configs["c0"].on_start == script_with(a_block())
    assert [type(action).__name__ for action in fleet.done[done:]] == ["BackupScript", "WriteScript"]
    assert fleet.config_record["c0"].replaced_at == fleet.upgrades[0][0]
    fleet.settle()
    assert fleet.records["box0"].block_since == since, "no notebook is asked to restart"
    assert fleet.sweep() == 0


def test_a_first_block_is_the_present_one_and_a_last_one_goes_during_an_upgrade_too() -> None:
    fleet = a_fleet()
    fleet.configure("new", OWNERS)
    fleet.add("later", "new")
    fleet.deploy(a_block())
    fleet.sweep()
    fleet.tags["later"] = {"ssh": "ngrok"}
    fleet.tags["box0"] = {}
    fleet.settle()
    assert fleet.block_in("new") == "1.1.0"
    assert fleet.lifecycle_configs["c0"].on_start == OWNERS


def test_an_edited_block_is_repaired_at_once_and_is_the_present_one_then() -> None:
    fleet = a_fleet()
    fleet.deploy(a_block())
    fleet.sweep()
    fleet.configure("c0", script_with(OLDER).replace(b"true\n", b"false\n"))
    fleet.reconcile("box0")
    assert fleet.block_in("c0") == "1.1.0"
    assert not fleet.upgrades


def test_a_script_that_no_shell_runs_any_more_is_reported_during_an_upgrade_too() -> None:
    fleet = a_fleet()
    fleet.deploy(a_block())
    fleet.sweep()
    fleet.configure("c0", script_with(OLDER).replace(b"#!/bin/bash", b"#!/usr/bin/python3"))
    fleet.reconcile("box0")
    problem = fleet.records["box0"].problem
    assert problem is not None
    assert problem.code == "config-not-shell"


def test_a_setting_that_agents_depend_on_is_written_at_once() -> None:
    fleet = a_fleet(5)
    fleet.deploy(a_block(API="https://new.example.com/v1"))
    fleet.sweep()
    assert {fleet.block_in(f"c{number}") for number in range(5)} == {"1.1.0"}
    assert not fleet.upgrades


def test_the_admin_can_ask_for_all_of_it_at_once() -> None:
    fleet = a_fleet(4, after=0)
    fleet.deploy(a_block())
    began = fleet.now
    while fleet.sweep() or {fleet.block_in(name) for name in fleet.lifecycle_configs} != {"1.1.0"}:
        fleet.now += 1
    assert fleet.now - began < 60


def test_the_tag_that_requests_a_restart_asks_for_one_and_the_restart_brings_it() -> None:
    fleet = a_fleet()
    fleet.deploy(a_block())
    fleet.sweep()
    fleet.tags["box0"]["ssh-restart"] = "now"
    actions = fleet.reconcile("box0")
    assert [type(action).__name__ for action in actions] == ["BackupScript", "WriteScript", "Stop"]
    fleet.settle()
    assert fleet.block_in("c0") == "1.1.0"
    assert fleet.notebooks["box0"].state is NotebookState.IN_SERVICE
    assert fleet.tags["box0"] == {"ssh": "ngrok"}


@pytest.mark.parametrize("crash_after", [None, 2])
def test_a_restart_that_is_requested_after_the_upgrade_brings_it_too(crash_after: int | None) -> None:
    """crash_after: the script is written, and the worker dies before anything of it is recorded."""
    fleet = a_fleet()
    fleet.deploy(a_block())
    fleet.sweep()
    fleet.now += DAY
    if crash_after is None:
        fleet.sweep()
    else:
        fleet.lifecycle_configs["c0"] = fleet.lifecycle_configs["c0"]._replace(
            on_start=script_with(a_block()), modified=fleet.now * 1000
        )
    fleet.now += 100
    assert not fleet.reconcile("box0")
    fleet.tags["box0"]["ssh-restart"] = "now"
    assert [type(action) for action in fleet.reconcile("box0")] == [Stop]
    assert fleet.records["box0"].restart is not None
    assert fleet.records["box0"].restart.step is RestartStep.STOP
    fleet.settle()
    fleet.tags["box0"]["ssh-restart"] = "now"
    assert "there is nothing to restart for" in {action.reason for action in fleet.reconcile("box0")}


def test_an_agent_that_cannot_do_what_the_tag_requests_gets_its_block_at_once() -> None:
    fleet = a_fleet()
    fleet.deploy(a_block())
    fleet.sweep()
    failed = a_report(phase=Phase.FAILED, problem=Problem("agent-outdated", "restart the notebook"))
    fleet.records["box0"] = replace(fleet.records["box0"], report=failed)
    fleet.reconcile("box0")
    assert fleet.block_in("c0") == "1.1.0"


def test_an_older_version_that_is_deployed_again_waits_in_the_same_way() -> None:
    fleet = a_fleet(after=0)
    fleet.deploy(a_block())
    fleet.sweep()
    fleet.policy = fleet.policy._replace(upgrade_after=DAY)
    fleet.deploy(OLDER)
    fleet.sweep()
    assert fleet.block_in("c0") == "1.1.0"
    fleet.now += DAY
    fleet.sweep()
    assert fleet.lifecycle_configs["c0"].on_start == script_with(OLDER)


def test_a_script_without_room_for_a_larger_block_keeps_the_one_that_works() -> None:
    fleet = a_fleet()
    owners = b"#!/bin/bash\n" + b"#" * (12_288 - 12 - len(script_with(OLDER)) + len(OWNERS))
    fleet.configure("c0", script_with(OLDER, owners))
    fleet.deploy(replace(a_block(), body=b"true\n" * 100 + a_block().text()))
    fleet.sweep()
    assert fleet.config_record["c0"].problem is None
    fleet.now += DAY
    assert fleet.sweep() == 1
    assert fleet.block_in("c0") == "1.0.0"
    assert fleet.config_record["c0"].problem is not None
    assert fleet.config_record["c0"].problem.code == "config-too-large"
    assert fleet.sweep() == 0


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["deploy old", "deploy new", "sweep", "notebook", "configuration", "edit", "wait", "untag"]),
        st.integers(0, 2),
        st.sampled_from([0, 3, 40, 900, 40_000]),
    ),
    max_size=25,
)


@examples(200)
@given(HAPPENINGS, st.sampled_from([DAY, 3_600]))
def test_whatever_happens_no_upgrade_is_early_or_soon_after_another_and_all_are_made(
    happenings: list[tuple[str, int, int]], after: int
) -> None:
    fleet = a_fleet(3, after)
    deployed_at = fleet.now
    for what, number, wait in happenings:
        fleet.now += wait
        name = f"c{number}"
        seen = len(fleet.upgrades)
        match what:
            case "deploy old" | "deploy new":
                block = OLDER if what == "deploy old" else a_block()
                deployed_at = deployed_at if fleet.policy.block == block else fleet.now
                fleet.deploy(block)
            case "sweep":
                fleet.sweep()
            case "notebook":
                fleet.reconcile(f"box{number}")
                assert len(fleet.upgrades) == seen, "a notebook's own events upgrade nothing"
            case "configuration":
                fleet.reconcile_lifecycle_config(name)
            case "edit":
                edited = remove_block(fleet.lifecycle_configs[name].on_start, "team-ssh") or b""
                fleet.configure(name, edited + b"echo more\n")
            case "untag":
                fleet.tags[f"box{number}"] = {} if fleet.tags[f"box{number}"] else {"ssh": "ngrok"}
        assert all(moment >= deployed_at + after for moment, _ in fleet.upgrades[seen:]), "too early"
    assert all(later[0] - earlier[0] >= UPGRADE_INTERVAL_S for earlier, later in pairwise(fleet.upgrades)), "too fast"

    fleet.tags |= {f"box{number}": {"ssh": "ngrok"} for number in range(3)}
    fleet.deploy(a_block())
    fleet.sweep()
    fleet.now += after
    for _ in range(3):
        fleet.settle()
        fleet.sweep()
    assert {fleet.block_in(f"c{number}") for number in range(3)} == {"1.1.0"}
    for number in range(3):
        fleet.tags[f"box{number}"] = {}
    fleet.settle()
    assert all(b"notebook-ssh" not in (each.on_start or b"") for each in fleet.lifecycle_configs.values())
