"""An upgrade through the real handlers: nothing for a day, then one script in ten seconds, and what the table holds of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.notebook_world import OWNERS, STACK, World, a_world

from notebook_ssh.adapters import deployments
from notebook_ssh.adapters.attributes import to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.workers import read_worker
from notebook_ssh.controllers.agent_layer import worker_program, worker_sha256
from notebook_ssh.model.managed_block import Block, fingerprint
from notebook_ssh.planning.upgrade import UPGRADE_INTERVAL_S

DAY, SWEEP = 86_400, 900
WRITE = "update_notebook_instance_lifecycle_config"


def a_layer(folder: Path, version: str) -> Path:
    """A layer of the agent whose worker is that of `version`."""
    layer = folder / version
    (layer / "worker").mkdir(parents=True)
    (layer / "worker" / "__init__.py").write_text(f"VERSION = {version!r}\n")
    (layer / "loader.py").write_text("import sys\nSOURCES: dict[str, str] = {}\n")
    return layer


class Account:
    """The world with a version that is deployed, and the times at which scripts were written (epoch seconds)."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.written: list[float] = []
        world.before_call = self._note

    def _note(self, operation: str, given: dict[str, Any]) -> None:
        if operation == WRITE:
            self.written.append(self.world.now + self.world.fraction)

    def deploy(self, version: str) -> None:
        layer = self.folder / version
        layer = layer if layer.exists() else a_layer(self.folder, version)
        self.world.patch.setenv("NOTEBOOK_AGENT", str(layer))
        settings = {"STACK": STACK, "VERSION": version, "WORKER": worker_sha256(layer)}
        words = " ".join(f"'{word}={value}'" for word, value in settings.items())
        body = f"true\n' {words} >>log\n".encode()
        self.world.block = Block(STACK, version, fingerprint(body), body, settings)

    def fleet(self, many: int) -> None:
        for number in range(many):
            self.world.lifecycle_config(f"team-{number}")
            self.world.notebook(f"box-{number}", f"team-{number}", ssh="ngrok")
        self.sweep()

    def sweep(self) -> int:
        """One sweep, and everything until the next one; how many scripts were written in it."""
        before, world = len(self.written), self.world
        world.sweep()
        end = world.now + SWEEP
        while world.now < end:
            world.settle(finish=False)
            upcoming = [at for at, _, _ in world.messages if at < end]
            world.now = max(world.now + 1, min(upcoming, default=end))
        world.settle(finish=False)
        return len(self.written) - before

    def versions(self) -> list[str]:
        scripts = [self.world.on_start(name) or b"" for name in sorted(self.world.lifecycle_configs())]
        return [
            script.split(b"version=")[1].split(b" ")[0].decode() if b"version=" in script else "" for script in scripts
        ]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    with a_world(monkeypatch) as world:
        account = Account(world, tmp_path)
        account.deploy("1.0.0")
        yield account


def test_nothing_is_written_in_the_first_day_and_then_one_script_in_ten_seconds(account: Account) -> None:
    account.fleet(3)
    account.deploy("1.1.0")
    deployed_at, before = account.world.now, len(account.written)
    for number in (0, 1, 2, 0):
        account.sweep()
        account.world.look(f"box-{number}")
        account.world.edit(f"team-{number}", (account.world.on_start(f"team-{number}") or b"") + b"echo more\n")
        account.world.now += DAY // 4 - SWEEP - 60
    assert account.versions() == ["1.0.0"] * 3
    assert len(account.written) == before
    assert {account.world.record(f"box-{number}").problem for number in range(3)} == {None}
    while account.versions() != ["1.1.0"] * 3:
        assert account.world.now < deployed_at + DAY + 2 * 3_600
        account.sweep()
    upgrades = account.written[before:]
    assert len(upgrades) == 3
    assert upgrades[0] >= deployed_at + DAY
    assert min(later - earlier for earlier, later in pairwise(upgrades)) >= UPGRADE_INTERVAL_S
    assert upgrades[-1] - upgrades[0] < 3 * 2 * UPGRADE_INTERVAL_S, "all in one sweep"
    assert account.sweep() == 0

    for number in range(3):
        account.world.untag(f"box-{number}")
    account.world.settle()
    assert account.world.on_start("team-1") == OWNERS + b"echo more\n"


def test_the_table_keeps_every_worker_and_a_rollback_finds_its_own(account: Account) -> None:
    account.fleet(1)
    layers = {version: a_layer(account.folder / "again", version) for version in ("1.0.0", "1.1.0")}
    programs = {worker_sha256(layer): worker_program(layer) for layer in layers.values()}
    for version in ("1.1.0", "1.0.0"):
        account.deploy(version)
        account.sweep()
    assert {sha256: read_worker(account.world.table, sha256) for sha256 in programs} == programs
    assert all(hashlib.sha256(text.encode()).hexdigest() == sha256 for sha256, text in programs.items())
    deployment = deployments.read(account.world.table)
    assert deployment.block.startswith("1.0.0:")
    assert set(deployment.workers) == {sha256[:16] for sha256 in programs}
    since = deployment.since
    account.sweep()
    assert deployments.read(account.world.table).since == since
    assert account.versions() == ["1.0.0"]


def test_with_no_hours_to_wait_the_first_sweep_begins_and_the_next_ones_go_on(account: Account) -> None:
    account.fleet(3)
    account.deploy("1.1.0")
    account.world.upgrade_after = 0
    before, began = len(account.written), account.world.now
    while account.versions() != ["1.1.0"] * 3:
        account.sweep()
    assert account.world.now - began <= 2 * SWEEP + 60
    assert min(later - earlier for earlier, later in pairwise(account.written[before:])) >= UPGRADE_INTERVAL_S


def test_who_asks_for_a_restart_gets_the_block_of_this_version_with_it(account: Account) -> None:
    account.fleet(2)
    account.deploy("1.1.0")
    account.sweep()
    account.world.calls.clear()
    account.world.tag("box-0", ssh_restart="now")
    account.world.settle()
    assert account.versions() == ["1.1.0", "1.0.0"]
    assert (account.world.calls["stop_notebook_instance"], account.world.calls["start_notebook_instance"]) == (1, 1)
    assert account.world.tags("box-0") == {"ssh": "ngrok"}


def test_two_who_ask_at_once_get_it_one_after_the_other(account: Account) -> None:
    account.fleet(2)
    account.deploy("1.1.0")
    account.sweep()
    before = len(account.written)
    for number in range(2):
        account.world.tag(f"box-{number}", ssh_restart="now")
    account.world.settle(rounds=60)
    assert account.versions() == ["1.1.0"] * 2
    assert min(later - earlier for earlier, later in pairwise(account.written[before:])) >= UPGRADE_INTERVAL_S


def test_a_sweep_of_the_version_before_that_still_runs_only_delays_it(account: Account) -> None:
    """During a deployment the functions are replaced one after the other."""
    account.fleet(1)
    old = account.world.block
    account.deploy("1.1.0")
    account.sweep()
    new, account.world.block = account.world.block, old
    account.sweep()
    account.world.block, account.world.now = new, account.world.now + DAY
    account.sweep()
    assert account.versions() == ["1.0.0"]
    account.world.now += DAY
    account.sweep()
    assert account.versions() == ["1.1.0"]


def test_of_two_sweeps_at_once_the_first_records_the_block(account: Account) -> None:
    account.fleet(1)
    before = deployments.read(account.world.table)
    assert deployments.save(account.world.table, replace(before, block="1.1.0:b", since=1), before)
    assert not deployments.save(account.world.table, replace(before, block="1.1.0:b", since=2), before)
    assert deployments.read(account.world.table).since == 1


def test_a_deployment_that_a_wrong_clock_recorded_is_recorded_again(account: Account) -> None:
    account.fleet(1)
    account.deploy("1.1.0")
    account.world.now += 30 * DAY
    account.sweep()
    account.world.now -= 30 * DAY
    account.sweep()
    account.world.now += DAY
    account.sweep()
    assert account.versions() == ["1.1.0"]


@pytest.mark.parametrize("ahead", [DAY, 30])
def test_an_upgrade_time_from_a_wrong_clock_holds_up_nothing(account: Account, ahead: int) -> None:
    account.fleet(1)
    account.deploy("1.1.0")
    account.sweep()
    client("dynamodb").update_item(
        TableName="records",
        Key={"pk": {"S": "coordination"}, "sk": {"S": "deployment"}},
        UpdateExpression="SET next_upgrade = :at",
        ExpressionAttributeValues={":at": to_attribute((account.world.now + DAY + ahead) * 1000)},
    )
    account.world.now += DAY
    account.sweep()
    assert account.versions() == ["1.1.0"]
