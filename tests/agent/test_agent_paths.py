"""The paths of a notebook with one or several modes: what the worker makes of them, and real agents with two."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.agent_env import (
    NotebookHost,
    Sshd,
    Stack,
    WorkerModules,
    load_agent,
    make_public_key,
    make_reply,
    tunnels_of,
    wait_until,
)

from notebook_ssh.model.assessment import PathState, assess
from notebook_ssh.model.record import NotebookState, Record, Route
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.reports.parse import read_report
from patience import LIMIT_S

load_agent()
worker = WorkerModules()

CONNECTED = {
    "notebook": "Demo",
    "modes": ["eice", "ngrok", "bastion"],
    "phase": "connected",
    "command": "ssh -p 17887 ec2-user@0.tcp.ngrok.io",
    "problems": [],
    "host_keys": ["ssh-ed25519 AAAA"],
    "keys": {"own": 1, "central": 0, "rejected": []},
}

PORT_TAKEN = ("sshd-port-taken", "another program listens on port 22")
SSHD_DOWN = ("sshd-down", "sshd does not respond")
ADDRESS = ("0.tcp.ngrok.io", 17887)
ENDPOINT = {"id": "eice-1", "dns_name": "eice-1.example.com", "private_ip": "10.0.3.7"}
NO_CARD = ("ngrok-card-required", "add a card")


def a_worker(modes: str, phase: str = "connected", tunnel: Any = None, sshd: Any = None, **reply: Any) -> Any:
    """A worker in these modes: the tunnel's phase and problem, the problem of sshd, the stack's reply."""
    of_paths = worker.Worker.__new__(worker.Worker)
    checked = worker.check_reply({"mode": modes, "modes": modes.split(), **reply})
    of_paths.client = SimpleNamespace(mode=lambda: modes, reply=checked)
    of_paths.sessions, of_paths.tunnel, of_paths.keys = worker.Sessions(), worker.Tunnel(), {}
    of_paths.tunnel.phase, of_paths.tunnel.problem = phase if "ngrok" in modes else "off", tunnel
    of_paths.tunnel.address = ADDRESS if of_paths.tunnel.phase == "connected" else None
    of_paths.ssh_port, of_paths.problems = 22, {"sshd": sshd} if sshd else {}
    return of_paths


class TestPaths:
    """Each mode of the tag is a path that is judged by itself."""

    @pytest.mark.parametrize(
        ("state", "phase", "phases", "problems"),
        [
            (a_worker("eice ngrok"), "connected", {"eice": "connected", "ngrok": "connected"}, {}),
            (
                a_worker("eice ngrok", "connecting"),
                "connecting",
                {"eice": "connected", "ngrok": "connecting"},
                {},
            ),
            (
                a_worker("eice ngrok", "failed", tunnel=NO_CARD),
                "failed",
                {"eice": "connected", "ngrok": "failed"},
                {"ngrok": NO_CARD},
            ),
            (
                a_worker("ngrok eice", "off", sshd=PORT_TAKEN),
                "connecting",
                {"ngrok": "connecting", "eice": "failed"},
                {"eice": PORT_TAKEN},
            ),
            (
                a_worker("ngrok bastion eice", sshd=PORT_TAKEN),
                "connected",
                {"ngrok": "connected", "bastion": "failed", "eice": "failed"},
                {"bastion": PORT_TAKEN, "eice": PORT_TAKEN},
            ),
            (
                a_worker("bastion eice", sshd=SSHD_DOWN),
                "failed",
                {"bastion": "failed", "eice": "failed"},
                {"bastion": SSHD_DOWN, "eice": SSHD_DOWN},
            ),
            (
                a_worker("ngrok eice", sshd=SSHD_DOWN),
                "connected",
                {"ngrok": "connected", "eice": "failed"},
                {"ngrok": SSHD_DOWN, "eice": SSHD_DOWN},
            ),
        ],
    )
    def test_are_reported_each(self, state: Any, phase: str, phases: Any, problems: Any) -> None:
        report = state.build_report()
        assert (report["phase"], report["phases"]) == (phase, phases)
        assert report["problems"] == {mode: {"code": code, "message": m} for mode, (code, m) in problems.items()}
        assert report["problem"] is None

    @pytest.mark.parametrize("modes", ["ngrok", "bastion", "eice"])
    def test_of_a_single_mode_are_the_report_itself(self, modes: str) -> None:
        report = a_worker(modes, sshd=SSHD_DOWN).build_report()
        assert not {"phases", "problems"} & report.keys()
        assert report["problem"]["code"] == "sshd-down"

    def test_that_the_worker_does_not_know_have_failed(self) -> None:
        some = a_worker("eice carrier-pigeon ngrok")
        some.files_at, some.keys_stamp, some.write_status = time.monotonic() + 3600, worker.keys_stamp(), lambda: None
        some.tunnel.ensure = lambda *_, **__: None
        some.set_problem = lambda source, *problem: some.problems.update({source: problem})
        some.apply()
        report = some.build_report()
        assert report["phases"] == {"eice": "connected", "carrier-pigeon": "failed", "ngrok": "connected"}
        assert report["problem"]["code"] == report["problems"]["carrier-pigeon"]["code"] == "agent-outdated"

    @given(
        modes=st.permutations(["ngrok", "bastion", "eice"]).flatmap(lambda m: st.integers(1, 3).map(lambda n: m[:n])),
        phase=st.sampled_from(["off", "connecting", "connected", "failed"]),
        tunnel=st.sampled_from([None, NO_CARD]),
        sshd=st.sampled_from([None, PORT_TAKEN, SSHD_DOWN]),
    )
    def test_are_reported_as_every_stack_accepts(self, modes: list[str], phase: str, tunnel: Any, sshd: Any) -> None:
        """Also one before `phases`: it demands an address with `connected`, if ngrok is one of the modes."""
        report = a_worker(" ".join(modes), phase, tunnel, sshd).build_report()
        assert report["phase"] != "connected" or "ngrok" not in modes or report["host"]
        sent = {**report, "boot": "b", "booted_at": 1, "sequence": 1}
        parsed = read_report(json.dumps(sent).encode(), 2).report
        assert [str(mode) for mode in parsed.modes] == modes

    @pytest.mark.parametrize(
        ("state", "command"),
        [
            (a_worker("ngrok eice", eice=ENDPOINT), "ssh -p 17887 ec2-user@0.tcp.ngrok.io"),
            (a_worker("eice ngrok", eice={**ENDPOINT, "private_ip": None}), "ssh -p 17887 ec2-user@0.tcp.ngrok.io"),
            (a_worker("eice ngrok", sshd=PORT_TAKEN, eice=ENDPOINT), "ssh -p 17887 ec2-user@0.tcp.ngrok.io"),
            (a_worker("ngrok eice", "failed"), None),
        ],
    )
    def test_that_works_comes_first(self, state: Any, command: str | None) -> None:
        assert state.ssh_command() == command

    def test_through_an_endpoint_have_the_aws_cli_as_proxy(self) -> None:
        command = a_worker("eice", eice=ENDPOINT).ssh_command()
        arguments = shlex.split(command)
        read = subprocess.run(
            ["ssh", "-G", *arguments[1:]], capture_output=True, text=True, check=True, timeout=LIMIT_S
        )
        assert (
            "proxycommand aws ec2-instance-connect open-tunnel --instance-connect-endpoint-id eice-1 "
            "--instance-connect-endpoint-dns-name eice-1.example.com --private-ip-address 10.0.3.7 --remote-port 22 "
            f"--region {worker.REGION}"
        ).rstrip() in read.stdout
        assert "user ec2-user\n" in read.stdout

    @pytest.mark.parametrize("wrong", [{"id": "x' ; reboot '"}, {"dns_name": "a b"}, {"dns_name": None}, {"id": "-x"}])
    def test_through_an_endpoint_are_of_plain_words(self, wrong: dict[str, Any]) -> None:
        assert a_worker("eice", eice=ENDPOINT | wrong).ssh_command() is None

    @pytest.mark.parametrize(
        ("modes", "reach"),
        [
            ("ngrok", "loopback"),
            ("bastion", "network"),
            ("eice", "network"),
            ("eice bastion", "network"),
            ("ngrok eice", "either"),
            ("bastion ngrok", "either"),
            ("carrier-pigeon", "network"),
            ("", "network"),
        ],
    )
    def test_say_from_where_sshd_must_be_reachable(self, modes: str, reach: str) -> None:
        assert worker.reach_of(modes.split()) == reach

    def test_are_served_on_port_22_as_soon_as_it_is_not_another_programs(self, sshd: Sshd) -> None:
        """An sshd of the agent's own that has the port for the loopback is in nobody's way."""
        own = worker.SshServer.__new__(worker.SshServer)
        own.reach, own.port = "loopback", sshd.port
        assert own.is_displaced()
        own.port = worker.SSH_PORT
        assert not own.is_displaced()
        own.reach, own.port = "network", sshd.port
        assert not own.is_displaced()

    def test_are_all_shown_in_the_instructions(self) -> None:
        paths = a_worker("eice ngrok bastion", "failed", tunnel=NO_CARD, eice=ENDPOINT).paths()
        text = worker.render_instructions({**CONNECTED, "paths": [asdict(path) for path in paths]})
        assert "    eice: ssh -o ProxyCommand='aws " in text
        assert "    ngrok: failed: add a card [ngrok-card-required]\n" in text
        assert "    bastion: The notebook is ready; its private address is not known yet." in text

    def test_through_an_endpoint_copy_files_too(self) -> None:
        command = a_worker("eice", eice=ENDPOINT).ssh_command()
        text = worker.render_instructions({**CONNECTED, "modes": ["eice"], "command": command})
        assert re.search(r"with plain ssh:     scp -o ProxyCommand='.*' FILE ec2-user@10.0.3.7:SageMaker/", text)


class TestARealAgent:
    def test_keeps_each_path_ready(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("eice ngrok", sync_after=1)
        notebook.start()
        ready = {"eice": "connected", "ngrok": "connected"}
        wait_until(lambda: stack.last_report().get("phases") == ready, "both", notebook)
        report = stack.last_report()
        assert (report["modes"], report["phase"]) == (["eice", "ngrok"], "connected")
        assert report["port"]
        text = notebook.instructions.read_text()
        assert "    eice: ssh -o ProxyCommand='aws ec2-instance-connect open-tunnel " in text
        assert f"    ngrok: ssh -p {report['port']} ec2-user@" in text
        shown = notebook.run_command("ssh-status")
        assert shown.returncode == 0
        assert [line.split(":")[0] for line in shown.stdout.splitlines()] == ["eice", "ngrok"]

    def test_closes_the_tunnel_that_is_no_longer_requested(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok eice", sync_after=1)
        notebook.start()
        wait_until(lambda: stack.last_report().get("port"), "the tunnel", notebook)
        stack.reply = make_reply("eice", sync_after=1)
        wait_until(lambda: stack.last_report()["modes"] == ["eice"], "the other path alone", notebook)
        wait_until(lambda: stack.last_report()["phase"] == "connected", "it is ready", notebook)
        assert "phases" not in stack.last_report()
        assert tunnels_of(notebook) == 0
        assert not notebook.own_config.exists()

    def test_takes_another_order_without_another_tunnel(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok eice", sync_after=1)
        notebook.start()
        port = wait_until(lambda: stack.last_report().get("port"), "the tunnel", notebook)
        stack.reply = make_reply("eice ngrok", sync_after=1)
        wait_until(lambda: stack.last_report()["modes"] == ["eice", "ngrok"], "the other order", notebook)
        assert stack.last_report()["port"] == port

    def test_reports_the_path_that_failed(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok eice", sync_after=1, ngrok={"url": None, "token_version": None})
        notebook.start()
        failed = {"ngrok": "failed", "eice": "connected"}
        wait_until(lambda: stack.last_report().get("phases") == failed, "one of the two", notebook)
        assert stack.last_report()["problems"]["ngrok"]["code"] == "ngrok-token-missing"
        assert stack.last_report()["phase"] == "failed", "as a stack before `phases` understands it"
        shown = notebook.run_command("ssh-status")
        assert shown.returncode == 0, shown.stdout
        assert "ngrok: failed: " in shown.stdout
        restarted = notebook.run_command("start-ssh-ngrok")
        assert restarted.returncode == 1, restarted.stdout

    def test_whose_ngrok_is_lost_keeps_the_other_path(self, notebook: NotebookHost, stack: Stack) -> None:
        """And the stack takes it so: the report as it was sent, judged as the API judges it."""
        modes = (Mode.NGROK, Mode.EICE)
        stack.reply = make_reply("ngrok eice", sync_after=1)
        notebook.own_keys.write_text(make_public_key("mine"))
        notebook.start()
        wait_until(lambda: stack.last_report().get("port"), "the tunnel", notebook)
        notebook.set_ngrok_faults(lost=True)
        wait_until(lambda: stack.last_report()["problems"].get("ngrok"), "the tunnel is lost", notebook)
        assert stack.last_report()["phases"] == {"ngrok": "connecting", "eice": "connected"}
        assert stack.last_report()["problem"] is None
        now = int(time.time()) + 1
        report = read_report(json.dumps(stack.last_report()).encode(), now, allow_loopback=True).report
        route = Route(open=True, private_ip="10.0.3.7", since=now)
        judged = Record("demo", spec=NotebookSpec(modes), state=NotebookState.IN_SERVICE, routes={Mode.EICE: route})
        found = assess(replace(judged, report=report), now, 300)
        assert [(path.mode, path.state) for path in found.paths] == [
            (Mode.NGROK, PathState.WAITING),
            (Mode.EICE, PathState.READY),
        ]
        assert found.reachable
        notebook.set_ngrok_faults()
        both = {"ngrok": "connected", "eice": "connected"}
        wait_until(lambda: stack.last_report()["phases"] == both, "connected again", notebook)
