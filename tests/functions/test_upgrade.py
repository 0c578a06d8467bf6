"""An upgrade through the real handlers: nothing for a day, then one script in ten seconds, and what the table holds of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.notebook_env import OWNERS, STACK, NotebookEnv, notebook_env

from notebook_ssh.adapters import deployments
from notebook_ssh.adapters.attributes import to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.workers import read_worker
from notebook_ssh.controllers.agent_layer import worker_program, worker_sha256
from notebook_ssh.model.managed_block import Block, fingerprint
from notebook_ssh.planning.upgrade import UPGRADE_INTERVAL_S

pytestmark = pytest.mark.slow  # each makes many calls

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
    """An account with a version that is deployed, and the times at which scripts were written (epoch seconds)."""

    def __init__(self, env: NotebookEnv, folder: Path) -> None:
        self.env, self.folder = env, folder
        self.written: list[float] = []
        env.before_call = self._note

    def _note(self, operation: str, given: dict[str, Any]) -> None:
        if operation == WRITE:
            self.written.append(self.env.now + self.env.fraction)

    def deploy(self, version: str) -> None:
        layer = self.folder / version
        layer = layer if layer.exists() else a_layer(self.folder, version)
        self.env.patch.setenv("NOTEBOOK_AGENT", str(layer))
        settings = {"STACK": STACK, "VERSION": version, "WORKER": worker_sha256(layer)}
        words = " ".join(f"'{word}={value}'" for word, value in settings.items())
        body = f"true\n' {words} >>log\n".encode()
        self.env.block = Block(STACK, version, fingerprint(body), body, settings)

    def fleet(self, many: int) -> None:
        for number in range(many):
            self.env.lifecycle_config(f"team-{number}")
            self.env.notebook(f"box-{number}", f"team-{number}", ssh="ngrok")
        self.sweep()

    def sweep(self) -> int:
        """One sweep, and everything until the next one; how many scripts were written in it."""
        before, env = len(self.written), self.env
        env.sweep()
        end = env.now + SWEEP
        while env.now < end:
            env.settle(finish=False)
            upcoming = [at for at, _, _ in env.messages if at < end]
            env.now = max(env.now + 1, min(upcoming, default=end))
        env.settle(finish=False)
        return len(self.written) - before

    def versions(self) -> list[str]:
        scripts = [self.env.on_start(name) or b"" for name in sorted(self.env.lifecycle_configs())]
        return [
            script.split(b"version=")[1].split(b" ")[0].decode() if b"version=" in script else "" for script in scripts
        ]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    with notebook_env(monkeypatch) as env:
        account = Account(env, tmp_path)
        account.deploy("1.0.0")
        yield account


def test_nothing_is_written_in_the_first_day_and_then_one_script_in_ten_seconds(account: Account) -> None:
    account.fleet(3)
    account.deploy("1.1.0")
    deployed_at, before = account.env.now, len(account.written)
    for number in (0, 1, 2, 0):
        account.sweep()
        account.env.look(f"box-{number}")
        account.env.edit(f"team-{number}", (account.env.on_start(f"team-{number}") or b"") + b"echo more\n")
        account.env.now += DAY // 4 - SWEEP - 60
    assert account.versions() == ["1.0.0"] * 3
    assert len(account.written) == before
    assert {account.env.record(f"box-{number}").problem for number in range(3)} == {None}
    while account.versions() != ["1.1.0"] * 3:
        assert account.env.now < deployed_at + DAY + 2 * 3_600
        account.sweep()
    upgrades = account.written[before:]
    assert len(upgrades) == 3
    assert upgrades[0] >= deployed_at + DAY
    assert min(later - earlier for earlier, later in pairwise(upgrades)) >= UPGRADE_INTERVAL_S
    assert upgrades[-1] - upgrades[0] < 3 * 2 * UPGRADE_INTERVAL_S, "all in one sweep"
    assert account.sweep() == 0

    for number in range(3):
        account.env.untag(f"box-{number}")
    account.env.settle()
    assert account.env.on_start("team-1") == OWNERS + b"echo more\n"


def test_the_table_keeps_every_worker_and_a_rollback_finds_its_own(account: Account) -> None:
    account.fleet(1)
    layers = {version: a_layer(account.folder / "again", version) for version in ("1.0.0", "1.1.0")}
    programs = {worker_sha256(layer): worker_program(layer) for layer in layers.values()}
    for version in ("1.1.0", "1.0.0"):
        account.deploy(version)
        account.sweep()
    assert {sha256: read_worker(account.env.table, sha256) for sha256 in programs} == programs
    assert all(hashlib.sha256(text.encode()).hexdigest() == sha256 for sha256, text in programs.items())
    deployment = deployments.read(account.env.table)
    assert deployment.block.startswith("1.0.0:")
    assert set(deployment.workers) == {sha256[:16] for sha256 in programs}
    since = deployment.since
    account.sweep()
    assert deployments.read(account.env.table).since == since
    assert account.versions() == ["1.0.0"]


def test_with_no_hours_to_wait_the_first_sweep_begins_and_the_next_ones_go_on(account: Account) -> None:
    account.fleet(3)
    account.deploy("1.1.0")
    account.env.upgrade_after = 0
    before, began = len(account.written), account.env.now
    while account.versions() != ["1.1.0"] * 3:
        account.sweep()
    assert account.env.now - began <= 2 * SWEEP + 60
    assert min(later - earlier for earlier, later in pairwise(account.written[before:])) >= UPGRADE_INTERVAL_S


def test_who_asks_for_a_restart_gets_the_block_of_this_version_with_it(account: Account) -> None:
    account.fleet(2)
    account.deploy("1.1.0")
    account.sweep()
    account.env.calls.clear()
    account.env.tag("box-0", ssh_restart="now")
    account.env.settle()
    assert account.versions() == ["1.1.0", "1.0.0"]
    assert (account.env.calls["stop_notebook_instance"], account.env.calls["start_notebook_instance"]) == (1, 1)
    assert account.env.tags("box-0") == {"ssh": "ngrok"}


def test_two_who_ask_at_once_get_it_one_after_the_other(account: Account) -> None:
    account.fleet(2)
    account.deploy("1.1.0")
    account.sweep()
    before = len(account.written)
    for number in range(2):
        account.env.tag(f"box-{number}", ssh_restart="now")
    account.env.settle(rounds=60)
    assert account.versions() == ["1.1.0"] * 2
    assert min(later - earlier for earlier, later in pairwise(account.written[before:])) >= UPGRADE_INTERVAL_S


def test_a_sweep_of_the_version_before_that_still_runs_only_delays_it(account: Account) -> None:
    """During a deployment the functions are replaced one after the other."""
    account.fleet(1)
    old = account.env.block
    account.deploy("1.1.0")
    account.sweep()
    new, account.env.block = account.env.block, old
    account.sweep()
    account.env.block, account.env.now = new, account.env.now + DAY
    account.sweep()
    assert account.versions() == ["1.0.0"]
    account.env.now += DAY
    account.sweep()
    assert account.versions() == ["1.1.0"]


def test_of_two_sweeps_at_once_the_first_records_the_block(account: Account) -> None:
    account.fleet(1)
    before = deployments.read(account.env.table)
    assert deployments.save(account.env.table, before._replace(block="1.1.0:b", since=1), before)
    assert not deployments.save(account.env.table, before._replace(block="1.1.0:b", since=2), before)
    assert deployments.read(account.env.table).since == 1


def test_a_deployment_that_a_wrong_clock_recorded_is_recorded_again(account: Account) -> None:
    account.fleet(1)
    account.deploy("1.1.0")
    account.env.now += 30 * DAY
    account.sweep()
    account.env.now -= 30 * DAY
    account.sweep()
    account.env.now += DAY
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
        ExpressionAttributeValues={":at": to_attribute((account.env.now + DAY + ahead) * 1000)},
    )
    account.env.now += DAY
    account.sweep()
    assert account.versions() == ["1.1.0"]
