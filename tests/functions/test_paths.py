"""Scenarios of a notebook with two paths, through the real handlers: the rules, the agent's reports, the API's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.api_env import ApiEnv
from support.bastion_env import BastionEnv, bastion_env

from notebook_ssh.adapters import secrets
from notebook_ssh.adapters.clients import client
from notebook_ssh.controllers import lookup
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import parse_spec

pytestmark = pytest.mark.slow  # each makes many calls

ONE = "/notebooks/{name}"
ADDRESS: dict[str, Any] = {"host": "0.tcp.ngrok.io", "port": 17887}
UNREACHABLE = {"code": "ngrok-unreachable", "message": "ngrok cannot be reached; check the network path"}


@dataclass
class Scene:
    """A running notebook `demo` in a stack with an endpoint and a bastion."""

    rules: BastionEnv
    api: ApiEnv
    group: str
    record: Record
    sequence: int = 1

    def tag(self, **tags: str) -> None:
        """Edit the tags: the record as the notebook reconciler saves it, and a run of the rules."""
        spec = parse_spec({key.replace("_", "-"): value for key, value in tags.items()}, "ssh")
        self.rules.change(self.record, spec=spec)
        self.record = replace(self.record, spec=spec)
        self.wait(30)
        self.rules.run()

    def wait(self, seconds: int) -> None:
        self.rules.now += seconds
        self.api.now = self.rules.now
        lookup.forget()

    def report(self, **parts: Any) -> Any:
        """Let the agent report, and return the stack's reply."""
        self.sequence += 1
        self.wait(20)
        usual = {"host": None, "port": None, "sequence": self.sequence}
        answer = self.api.report(usual | parts)
        assert answer.status == 200, answer.text
        return answer.json

    @property
    def status(self) -> Any:
        return self.api.get(ONE).json

    def paths(self) -> dict[str, str]:
        return {path["mode"]: path["state"] for path in self.status["paths"]}

    def failed_checks(self) -> list[str]:
        checks = self.api.get(f"{ONE}/doctor", headers={"Accept": "application/json"}).json["checks"]
        return [check["check"] for check in checks if check["result"] == "failed"]

    def rule_ids(self) -> list[str]:
        return sorted(self.rules.rules(self.group))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with bastion_env(monkeypatch) as rules:
        client("secretsmanager").create_secret(Name="ngrok-token", SecretString="2abcDEFghiJKLmnoPQRstuVWX_3T5yQ7")
        queue = client("sqs").create_queue(QueueName="notebooks")["QueueUrl"]
        names = {"NOTEBOOK_QUEUE": queue, "NGROK_SECRET": "ngrok-token", "KEYS_PATH": "/keys", "SYNC_SECONDS": "300"}
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        secrets.forget()
        lookup.forget()
        rules.endpoint()
        group = rules.group("notebooks")
        record = rules.notebook("demo", group, modes=())
        known = replace(record, role="demo-role", block_since=1, lifecycle_config="team")
        rules.change(record, role="demo-role", block_since=1, lifecycle_config="team")
        yield Scene(rules, ApiEnv(monkeypatch, queue, ""), group, known)
    secrets.forget()


def both(**phases: str) -> dict[str, Any]:
    """A report of an agent with `ssh=ngrok eice`."""
    up = phases["ngrok"] == "connected"
    problems = {} if up else {"ngrok": UNREACHABLE}
    phase = {"modes": ["ngrok", "eice"], "phase": phases["ngrok"], "phases": phases, "problems": problems}
    return phase | (ADDRESS if up else {})


def test_when_ngrok_dies_the_other_path_is_left_and_the_status_names_the_failed_one(scene: Scene) -> None:
    scene.tag(ssh="ngrok eice")
    reply = scene.report(**both(ngrok="connected", eice="connected"))
    assert reply["modes"] == ["ngrok", "eice"]
    assert reply["ngrok"]["token"]
    assert reply["eice"]["private_ip"].startswith("10.0.")
    assert (scene.status["status"], scene.paths()) == ("connected", {"ngrok": "ready", "eice": "ready"})
    assert scene.api.get(f"{ONE}/ssh").text == "ssh -p 17887 ec2-user@0.tcp.ngrok.io\n"
    assert scene.failed_checks() == []

    scene.report(**both(ngrok="failed", eice="connected"))
    status = scene.status
    assert (status["status"], scene.paths()) == ("ready", {"ngrok": "failed", "eice": "ready"})
    assert status["problem"]["code"] == "ngrok-unreachable"
    assert "can be reached by eice, but not by ngrok: ngrok cannot be reached" in status["message"]
    assert status["endpoint"]["id"] == status["paths"][1]["endpoint"]["id"]
    assert "ProxyCommand='aws ec2-instance-connect open-tunnel " in scene.api.get(f"{ONE}/ssh").text
    assert scene.failed_checks() == ["tunnel"]
    assert [entry["status"] for entry in scene.api.get("/notebooks").json] == ["ready"]

    # A session came by the path that is left.
    scene.report(**both(ngrok="failed", eice="connected"), sessions={"open": 1, "active_at": scene.rules.now})
    assert scene.status["status"] == "connected"
    assert scene.status["problem"]["code"] == "ngrok-unreachable"

    scene.report(**both(ngrok="connected", eice="connected"))
    assert (scene.status["status"], scene.status["problem"]) == ("connected", None)
    assert scene.api.get(f"{ONE}/ssh").text == "ssh -p 17887 ec2-user@0.tcp.ngrok.io\n"


def test_the_first_session_by_an_endpoint_is_published_though_nothing_else_changed(scene: Scene) -> None:
    scene.tag(ssh="eice")
    scene.report(modes=["eice"], phase="connected")
    assert scene.status["status"] == "ready"
    scene.rules.change(scene.record, notified_status="ready")
    scene.api.messages()
    scene.report(modes=["eice"], phase="connected")
    assert scene.api.messages() == [], "nothing is new"
    scene.report(modes=["eice"], phase="connected", sessions={"open": 1, "active_at": scene.rules.now})
    assert scene.status["status"] == "connected"
    assert [message["reason"] for message in scene.api.messages()] == ["status"]


def test_a_tag_that_loses_a_word_keeps_the_other_path_all_the_time(scene: Scene) -> None:
    scene.tag(ssh="ngrok eice")
    scene.report(**both(ngrok="connected", eice="connected"))
    before = scene.rule_ids()
    assert len(before) == 1

    scene.tag(ssh="eice")
    assert scene.rule_ids() == before
    assert (scene.status["status"], scene.paths()) == ("ready", {"eice": "ready"})
    reply = scene.report(**both(ngrok="connected", eice="connected"))
    assert (reply["modes"], "ngrok" in reply) == (["eice"], False), "the agent is to close the tunnel"
    scene.report(modes=["eice"], phase="connected")
    assert (scene.status["status"], scene.status["host"]) == ("ready", scene.status["paths"][0]["host"])

    scene.tag(ssh="ngrok")
    assert scene.rule_ids() == []
    assert (scene.status["status"], scene.paths()) == ("starting", {"ngrok": "waiting"})


def test_another_order_takes_effect_at_once(scene: Scene) -> None:
    scene.tag(ssh="ngrok eice")
    scene.report(**both(ngrok="connected", eice="connected"))
    before, since = scene.rule_ids(), scene.status["since"]
    scene.tag(ssh="eice ngrok")
    assert (scene.status["status"], scene.status["since"]) == ("connected", since)
    assert list(scene.paths()) == ["eice", "ngrok"]
    assert "open-tunnel" in scene.api.get(f"{ONE}/ssh").text
    assert scene.rule_ids() == before
    assert scene.report(**both(ngrok="connected", eice="connected"))["modes"] == ["eice", "ngrok"]
    scene.report(**both(ngrok="connected", eice="connected") | {"modes": ["eice", "ngrok"]})
    assert (scene.status["status"], scene.status["since"]) == ("connected", since)


def test_of_no_path_anything_is_left_once_access_is_over(scene: Scene) -> None:
    scene.tag(ssh="ngrok eice bastion")
    scene.report(modes=["ngrok", "eice", "bastion"], phase="connected", **ADDRESS)
    assert set(scene.paths().values()) == {"ready"}
    assert len(scene.rule_ids()) == 2
    scene.tag(ssh="off")
    assert scene.rule_ids() == []
    assert scene.paths() == {}
    reply = scene.report(modes=["ngrok", "eice", "bastion"], phase="connected", **ADDRESS)
    assert (reply["modes"], reply["mode"]) == ([], "off")
    assert not {"ngrok", "eice", "bastion"} & reply.keys()


def test_an_agent_of_the_version_before_serves_what_it_knows(scene: Scene) -> None:
    """It is in every mode that it was sent, and reports one phase: the tunnel's."""
    scene.tag(ssh="ngrok eice")
    outdated = {"code": "agent-outdated", "message": "restart the notebook: its agent does not know the mode eice"}
    scene.report(modes=["ngrok", "eice"], phase="connected", problem=outdated, **ADDRESS)
    assert (scene.status["status"], scene.status["problem"]["code"]) == ("connected", "agent-outdated")
    assert scene.api.get(f"{ONE}/ssh").text == "ssh -p 17887 ec2-user@0.tcp.ngrok.io\n"


def test_a_stack_without_an_endpoint_serves_the_other_path(scene: Scene) -> None:
    scene.rules.monkeypatch.delenv("ENDPOINT_ID")
    scene.tag(ssh="eice ngrok")
    reply = scene.report(**both(ngrok="connected", eice="connected") | {"modes": ["eice", "ngrok"]})
    assert (reply["problem"]["code"], reply["eice"]["id"]) == ("no-endpoint", None)
    assert (scene.status["status"], scene.status["problem"]["code"]) == ("connected", "no-endpoint")
    assert scene.paths() == {"eice": "failed", "ngrok": "ready"}
    assert scene.failed_checks() == ["endpoint"]
