"""This version deployed over an earlier one and back, with real agents, an open session, reports and messages in flight.

The earlier version is this tree with another number and another worker: what is deployed differs as two releases do.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import processes
from emulator.stack import build
from environment import CURLED, OWNERS_SCRIPT, LocalEnv
from notebook_ssh import __version__
from notebook_ssh.model.managed_block import Present, inspect, remove_block

pytestmark = pytest.mark.takes_minutes

EARLIER, DAY = "0.9.0", 86_400
SHARED = "shared-setup"
MARK = "\nVERSION = '0.9.0'\n"
"""What the earlier worker has, and this one has not."""


def earlier(archives: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """The parts of the earlier version, as zip files."""
    changes = {
        "python/notebook_ssh/__init__.py": lambda text: text.replace(__version__, EARLIER),
        "notebook_agent/worker/__init__.py": lambda text: text + MARK,
    }
    made = {}
    for part, archive in archives.items():
        made[part] = folder / f"{part}.zip"
        with zipfile.ZipFile(archive) as now, zipfile.ZipFile(made[part], "w") as before:
            for name in now.namelist():
                content = now.read(name)
                if name in changes:
                    content = changes[name](content.decode()).encode()
                if not re.fullmatch(r"python/notebook_ssh/(__pycache__/)?__init__[^/]*\.pyc", name):
                    before.writestr(name, content)
    return made


class Account:
    """The local run, and what its users and this test see of it."""

    def __init__(self, env: LocalEnv, versions: dict[str, dict[str, Path]]) -> None:
        self.env, self.versions = env, versions

    def deploy(self, version: str) -> None:
        self.env.update(self.versions[version])

    def sweep(self) -> None:
        functions = self.env.emulator.client("lambda")
        name = next(
            each["FunctionName"] for each in functions.list_functions()["Functions"] if "sweep" in each["Handler"]
        )
        assert "FunctionError" not in functions.invoke(FunctionName=name), "the sweep failed"

    def item(self, pk: str, sk: str) -> dict[str, Any]:
        table = self.env.stack.outputs["TableName"]
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        found = self.env.emulator.client("dynamodb").get_item(TableName=table, Key=key, ConsistentRead=True)
        return dict(found.get("Item", {}))

    def put(self, pk: str, sk: str, name: str, value: dict[str, str]) -> None:
        self.env.emulator.client("dynamodb").update_item(
            TableName=self.env.stack.outputs["TableName"],
            Key={"pk": {"S": pk}, "sk": {"S": sk}},
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )

    def deployed_ago(self, seconds: int) -> None:
        """As if the present block had been deployed so many seconds ago, over the block in SHARED."""
        since = {"N": str(int(time.time()) - seconds)}
        self.put("lifecycle_config", SHARED, "block_since", since)
        self.put("coordination", "deployment", "since", since)

    def block(self, configuration: str) -> Present:
        found = inspect(self.env.on_start(configuration), "notebook-ssh")
        assert isinstance(found, Present), f"{configuration} has no block"
        return found

    def runs_worker_of(self, name: str, version: str) -> bool:
        """Whether the notebook runs the worker of a version, which is the one that its block vouches for."""
        program = self.env.emulator.notebook_home(name) / "disk/opt/notebook-ssh/worker.py"
        return program.exists() and (MARK in program.read_text()) is (version == EARLIER)

    def reports_of(self, name: str) -> int:
        return int(self.item("notebook", name)["report"]["M"]["sequence"]["N"])

    def has_reported(self, name: str, since: int) -> bool:
        return self.reports_of(name) > since

    def is_in(self, name: str, state: str) -> bool:
        return self.env.state(name) == state

    def is_undone(self, configuration: str) -> bool:
        return self.env.on_start(configuration) == OWNERS_SCRIPT

    def wait_for_reports(self, *names: str) -> None:
        """Until each has sent two more reports, which were accepted."""
        heard = {name: self.reports_of(name) for name in names}
        for name in names:
            processes.wait_until(f"{name} reports", partial(self.has_reported, name, heard[name] + 1))

    def is_left_for(self, version: str, configuration: str) -> bool:
        """Whether the reconciler has compared the script with the block of `version`, and left it for later."""
        record = self.item("lifecycle_config", configuration)
        return str(record["tried"]["S"]).startswith(f"{version}:") and bool(record["block"] != record["tried"])

    def wait_for(self, name: str, status: str) -> None:
        processes.wait_until(f"{name} is {status}", lambda: self.env.status(name) == status)

    def restart(self, *names: str) -> None:
        for name in names:
            self.env.sagemaker.stop_notebook_instance(NotebookInstanceName=name)
        for name in names:
            processes.wait_until(f"{name} is stopped", partial(self.is_in, name, "Stopped"))
            self.env.sagemaker.start_notebook_instance(NotebookInstanceName=name)
        for name in names:
            processes.wait_until(f"{name} runs", partial(self.is_in, name, "InService"))

    def refusals(self, name: str) -> list[str]:
        """Responses to reports, as the agent logs them, that no deployment may cause."""
        log = (self.env.emulator.notebook_home(name) / "disk/var/log/notebook-ssh.log").read_text()
        return re.findall(r"no reply: \(4\d\d.*", log)

    @contextmanager
    def session(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """An SSH session that stays open, and repeats what is typed."""
        self.env.save_ssh_config(name)
        command = ["ssh", "-F", CURLED, "-o", "BatchMode=yes", name, "cat"]
        folder = self.env.person.home / ".ssh"
        child = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        try:
            yield child
        finally:
            child.kill()
            child.communicate()


def is_alive(session: subprocess.Popen[str]) -> bool:
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write("still here\n")
    return session.stdout.readline() == "still here\n"


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    env = LocalEnv()
    archives = build()
    versions = {__version__: archives, EARLIER: earlier(archives, tmp_path)}
    try:
        env.start()
        env.deploy(versions[EARLIER])
        env.move_in()
        yield Account(env, versions)
    finally:
        env.close()


def test_this_version_over_an_earlier_one_and_back(account: Account) -> None:
    env = account.env
    env.create_lifecycle_config(SHARED, OWNERS_SCRIPT)
    for name in ("early", "late"):
        env.create_lifecycle_config(f"{name}-setup", OWNERS_SCRIPT)
        env.create_notebook(name, f"{name}-setup")
    for name in ("steady", "standby"):
        env.create_notebook(name, SHARED)
    processes.wait_until("they run", lambda: {env.state(n) for n in ("steady", "standby")} == {"InService"})
    for name in ("steady", "standby"):
        env.leave_key(name)
    env.tag("steady", ssh="ngrok")
    processes.wait_until("the block is in", lambda: env.on_start(SHARED) != OWNERS_SCRIPT)
    account.restart("steady", "standby")
    account.wait_for("steady", "connected")
    account.sweep()
    script = env.on_start(SHARED)
    assert account.block(SHARED).version == EARLIER
    assert account.runs_worker_of("steady", EARLIER)
    address = env.curl("/notebooks/steady/address").body

    with account.session("steady") as session:
        assert is_alive(session)

        # Over it, with a tag that has just been set.
        env.tag("early", ssh="ngrok")
        account.deploy(__version__)
        processes.wait_until("no message is lost", lambda: env.on_start("early-setup") != OWNERS_SCRIPT)
        account.wait_for_reports("steady")
        account.sweep()
        env.tag("standby", ssh="ngrok")  # its agent has no worker yet, and its block is the earlier version's
        account.wait_for("standby", "connected")
        assert account.runs_worker_of("standby", EARLIER)
        for hours in (0, 23):
            account.deployed_ago(hours * 3_600)
            account.sweep()
            processes.wait_until("it is left for later", lambda: account.is_left_for(__version__, SHARED))
            assert env.on_start(SHARED) == script
        assert env.status("steady") == "connected"
        assert is_alive(session)

        # A day later.
        account.deployed_ago(DAY)
        account.sweep()
        processes.wait_until("the script is upgraded", lambda: account.block(SHARED).version == __version__)
        assert remove_block(env.on_start(SHARED), "notebook-ssh") == OWNERS_SCRIPT
        account.wait_for_reports("steady", "standby")
        assert {env.status("steady"), env.status("standby")} == {"connected"}, "no restart is requested"
        account.restart("standby")
        processes.wait_until("it runs this worker", lambda: account.runs_worker_of("standby", __version__))
        account.wait_for("standby", "connected")
        assert is_alive(session)

        # And back, with a tag that has just been set, over records that a newer version could have written.
        for pk, sk in (("notebook", "steady"), ("lifecycle_config", SHARED), ("coordination", "deployment")):
            account.put(pk, sk, "mood", {"S": "sunny"})
        script = env.on_start(SHARED)
        env.tag("late", ssh="ngrok")
        account.deploy(EARLIER)
        processes.wait_until("no message is lost", lambda: env.on_start("late-setup") != OWNERS_SCRIPT)
        account.sweep()
        account.wait_for_reports("steady", "standby")
        env.tag("standby", ssh="off")
        worker = env.volume("standby") / ".notebook-ssh/worker.py"
        processes.wait_until("its worker has ended", lambda: not worker.exists())
        account.restart(
            "standby"
        )  # now the newer version's worker is nowhere on the notebook, and its block in the script
        env.tag("standby", ssh="ngrok")
        processes.wait_until("the worker is there", worker.exists)
        account.wait_for("standby", "connected")
        assert account.runs_worker_of("standby", __version__)
        assert hashlib.sha256(worker.read_bytes()).hexdigest().encode() in account.block(SHARED).body
        assert env.on_start(SHARED) == script
        for pk, sk in (("notebook", "steady"), ("lifecycle_config", SHARED), ("coordination", "deployment")):
            assert account.item(pk, sk)["mood"] == {"S": "sunny"}
        assert env.curl("/notebooks/steady/address").body == address
        assert is_alive(session)
        assert account.refusals("steady") == account.refusals("standby") == []

    # Each agent that asks gets the block of the version that is deployed now.
    env.tag("standby", ssh_restart="now")
    processes.wait_until("the script is written", lambda: account.block(SHARED).version == EARLIER)
    processes.wait_until("it is restarted", lambda: account.runs_worker_of("standby", EARLIER))
    account.wait_for("standby", "connected")
    assert "ssh-restart" not in env.tags("standby")
    for name in ("steady", "standby", "early", "late"):
        env.untag(name, "ssh")
    for configuration in (SHARED, "early-setup", "late-setup"):
        processes.wait_until("it is undone", partial(account.is_undone, configuration))
    assert env.emulator.waiting(env.stack.outputs["NotebookDeadLetterQueue"]) == 0
