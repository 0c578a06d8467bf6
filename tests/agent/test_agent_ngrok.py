"""The ngrok path, by the real program: what is wished, what is told, and what people see."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from agent_world import NAME, TOKEN, Notebook, Stack, a_key, an_answer, free_port, key_shown_at, until

import processes


def test_from_boot_to_sshd(notebook: Notebook, stack: Stack) -> None:
    """Identity, report, ngrok, address, report, instructions; and the address really leads to sshd."""
    stack.answers = an_answer("ngrok")
    notebook.start()
    report = notebook.connected()
    assert (report["agent"], report["mode"], report["host"]) == ("1.2.3", "ngrok", "127.0.0.1")
    assert report["host_keys"] == [notebook.sshd.host_key]
    assert f"ssh -p {report['port']} ec2-user@127.0.0.1" in notebook.instructions.read_text()
    assert f"SSH to {NAME}: connected" in notebook.instructions.read_text()
    assert notebook.sshd.host_key in key_shown_at(report["port"])
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", notebook.sshd.folder / "ssh_host_ed25519_key.pub"], capture_output=True, text=True
    )
    assert f"Host key: {shown.stdout.split()[1]} (ssh-ed25519)\n" in notebook.instructions.read_text()


def test_token_stays_where_only_its_owner_reads(notebook: Notebook, stack: Stack) -> None:
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    notebook.connected()
    count = len(stack.reports)
    until(lambda: len(stack.reports) > count, "a further report")
    assert f"authtoken: {TOKEN}" in notebook.config.read_text()
    holders = sorted(
        path for path in notebook.root.rglob("*") if path.is_file() and TOKEN in path.read_text(errors="replace")
    )
    assert holders == [notebook.config, notebook.root / "run/notebook-ssh/worker/answer.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)
    assert not any(TOKEN in line for line in commands_of(notebook))
    assert not any(TOKEN.encode() in raw for raw in stack.raw)


def test_an_address_is_told_when_it_comes_and_not_when_a_report_is_due(notebook: Notebook, stack: Stack) -> None:
    """The next report is an hour away; `bench/` measures how long the news takes."""
    stack.answers = an_answer("ngrok", sync_after=3600)
    notebook.start()
    first = notebook.connected()["port"]
    until(lambda: f"ssh -p {first} " in notebook.instructions.read_text(), "people read it", notebook)
    being_read, whole = notebook.root / "being read", notebook.instructions.read_text()
    being_read.hardlink_to(notebook.instructions)
    notebook.cloud(port=free_port())
    until(lambda: stack.last()["port"] != first and stack.last()["phase"] == "connected", "the new address", notebook)
    assert f"ssh -p {stack.last()['port']} " in notebook.instructions.read_text(), "people could read it before"
    assert being_read.read_text() == whole, "who reads while it is written gets one text or the other"


@pytest.mark.parametrize("api", ["tunnels", "none"])
def test_address_from_older_local_apis_and_from_the_log(notebook: Notebook, stack: Stack, api: str) -> None:
    notebook.cloud(api=api)
    stack.answers = an_answer("ngrok")
    notebook.start()
    assert notebook.sshd.host_key in key_shown_at(notebook.connected()["port"])


def test_off_undoes_everything_and_on_again_works(notebook: Notebook, stack: Stack) -> None:
    notebook.authorized.parent.mkdir()
    notebook.authorized.write_text("ssh-rsa kept-as-it-was\n")
    notebook.own_keys.write_text(a_key("mine"))
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    notebook.connected()
    assert "begin" in notebook.authorized.read_text()
    stack.answers = an_answer("off", sync_after=1)
    until(lambda: stack.last()["mode"] == "off", "off is reported", notebook)
    assert "SSH to this notebook is off" in notebook.instructions.read_text()
    assert notebook.authorized.read_text() == "ssh-rsa kept-as-it-was\n"
    assert not [line for line in commands_of(notebook) if "start --all" in line]
    assert notebook.run("ssh-status").returncode == 1
    stack.reports.clear()
    stack.answers = an_answer("ngrok")
    notebook.connected()


def test_an_untagged_notebook_is_left_alone(notebook: Notebook, stack: Stack) -> None:
    before = sorted(notebook.home.rglob("*"))
    stack.answers = an_answer("off", sync_after=1)
    notebook.start()
    until(lambda: len(stack.reports) > 1, "several reports")
    assert sorted(notebook.home.rglob("*")) == before
    assert not (notebook.root / "usr/local/bin").exists()
    assert all((r["mode"], r["phase"]) == ("off", "off") for r in stack.reports)


def test_access_ends_by_the_stacks_clock(notebook: Notebook, stack: Stack) -> None:
    """`until` passes without another word from the stack, whose clock is not the notebook's."""
    stack.ahead = 7200
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    notebook.connected()
    stack.answers = an_answer("ngrok", sync_after=3600, until=int(time.time()) + 7200 + 3)
    until(lambda: "is off" in notebook.instructions.read_text(), "off at the end time", notebook)
    assert not [line for line in commands_of(notebook) if "start --all" in line]


def test_a_sleep_of_hours_is_got_over(notebook: Notebook, stack: Stack) -> None:
    """Everything stands still, as with a laptop's lid shut; meanwhile the stack's clock goes on and the tunnel moves."""
    stack.answers = an_answer("ngrok", sync_after=3600)
    notebook.start()
    notebook.connected()
    until(lambda: couriers_of(notebook) == [], "nothing is under way", notebook)
    asleep = [process for agent in notebook.agents for process in (agent.pid, *processes.descendants(agent.pid))]
    signal_all(asleep, signal.SIGSTOP)
    port = free_port()
    notebook.cloud(port=port)
    stack.ahead = 8 * 3600
    signal_all(asleep, signal.SIGCONT)
    until(lambda: (stack.last()["port"], stack.last()["phase"]) == (port, "connected"), "the new address", notebook)
    assert f"ssh -p {port} " in notebook.instructions.read_text()


def test_a_clock_that_is_wrong_by_hours_is_allowed_for(notebook: Notebook, stack: Stack) -> None:
    """The first report is out of time, the second says that the boot began in the future; then both are put right."""
    stack.ahead = -3 * 3600
    stack.answers = an_answer("bastion")
    notebook.start()
    notebook.connected()


class TestTheTunnel:
    def test_a_new_address_is_told(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok")
        notebook.start()
        notebook.connected()
        port = free_port()
        notebook.cloud(port=port)
        until(lambda: stack.last()["port"] == port, "the new address is told", notebook)
        assert f"ssh -p {port} " in notebook.instructions.read_text()

    def test_a_lost_session_is_told_and_mends(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=2)
        notebook.start()
        notebook.connected()
        notebook.cloud(lost=True)
        until(lambda: stack.last()["phase"] == "connecting", "reconnecting is told", notebook)
        assert stack.last()["host"] is None
        assert stack.last()["problem"]["code"] == "ngrok-unreachable"
        assert "check the way out" in notebook.instructions.read_text()
        notebook.cloud()
        until(lambda: stack.last()["phase"] == "connected", "connected again")
        assert stack.last()["problem"] is None

    def test_a_crash_is_mended(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=2)
        notebook.start()
        port = notebook.connected()["port"]
        notebook.cloud(crash=True)
        until(lambda: "ngrok ended with status 2" in notebook.log.read_text(), "the crash is noticed")
        notebook.cloud()
        until(lambda: stack.last()["phase"] == "connected" and stack.last()["port"] != port, "connected anew")

    def test_what_lingers_after_a_restart_passes(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=2)
        for number in 108, 334:
            notebook.refuse(number)
            notebook.agents or notebook.start()
            until(lambda number=number: f"ERR_NGROK_{number}" in notebook.told(), f"refused: {number}", notebook)  # type: ignore[misc]
        notebook.refuse(None)
        notebook.connected()

    def test_a_new_token_takes_effect(self, notebook: Notebook, stack: Stack) -> None:
        """Also in a configuration of version 2, of which the person's own lines stay."""
        notebook.config.parent.mkdir()
        own = ["version: '2'  # mine", "tunnels:", "  web:", "    proto: http", "    addr: 8888"]
        notebook.config.write_text("\n".join(own))
        stack.answers = an_answer("ngrok", sync_after=1)
        notebook.start()
        notebook.connected()
        rotated = TOKEN[::-1].replace("_", "x") + "_" + "A" * 20
        stack.answers["ngrok"] = {"url": None, "token_version": "v2", "token": rotated}
        until(lambda: stack.last()["token_version"] == "v2", "the new version is told")
        until(lambda: f"authtoken: {rotated}" in notebook.config.read_text(), "config.yml has the new token")
        until(lambda: stack.last()["phase"] == "connected", "connected with it")
        assert TOKEN not in notebook.config.read_text()
        assert [line for line in notebook.config.read_text().splitlines() if line in own] == own

    def test_without_a_token_the_reason_is_told(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", ngrok={"url": None, "token_version": None}, sync_after=2)
        notebook.start()
        told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
        assert told["code"] == "ngrok-token-missing"

    def test_a_reserved_address_from_the_tag_takes_effect_without_a_restart(
        self, notebook: Notebook, stack: Stack
    ) -> None:
        stack.answers = an_answer("ngrok", sync_after=1)
        notebook.start()
        notebook.connected()
        port = free_port()
        stack.answers["ngrok"]["url"] = f"tcp://127.0.0.1:{port}"
        until(lambda: stack.last()["port"] == port, "the reserved address is told", notebook)

    def test_its_local_api_avoids_a_taken_port(self, notebook: Notebook, stack: Stack) -> None:
        """The stack's own port stands for whatever else a person runs."""
        notebook.config.parent.mkdir()
        notebook.config.write_text(f"version: 3\nagent:\n  web_addr: 127.0.0.1:{stack.port}\n")
        stack.answers = an_answer("ngrok")
        notebook.start()
        notebook.connected()
        assert f"web_addr: 127.0.0.1:{stack.port}\n" not in notebook.config.read_text()
        assert re.search(r"web_addr: 127\.0\.0\.1:\d+\n", notebook.config.read_text())


class TestItsProgram:
    def test_is_kept_and_not_fetched_again(self, notebook: Notebook, stack: Stack) -> None:
        notebook.settings["NGROK_SHA256"] = hashlib.sha256(notebook.download.content).hexdigest().upper()
        stack.answers = an_answer("ngrok")
        notebook.start()
        notebook.connected()
        notebook.stop()
        notebook.boot()
        stack.reports.clear()
        notebook.download.content = b""
        notebook.start()
        notebook.connected()
        assert notebook.download.fetched == 1

    def test_that_ngrok_calls_too_old_is_renewed_at_once(self, notebook: Notebook, stack: Stack) -> None:
        notebook.refuse(121)
        stack.answers = an_answer("ngrok", sync_after=2)
        notebook.start()
        until(lambda: notebook.download.fetched == 2, "a newer one is fetched", notebook)
        notebook.refuse(None)
        assert notebook.connected()["problem"] is None

    def test_that_cannot_be_had_is_told(self, notebook: Notebook, stack: Stack) -> None:
        notebook.download.content = b""
        stack.answers = an_answer("ngrok", sync_after=2)
        notebook.start()
        told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
        assert told["code"] == "ngrok-download"
        assert notebook.download.url in told["message"]

    def test_of_another_checksum_is_refused(self, notebook: Notebook, stack: Stack) -> None:
        notebook.settings["NGROK_SHA256"] = "0" * 64
        stack.answers = an_answer("ngrok", sync_after=2)
        notebook.start()
        told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
        assert "SHA-256" in told["message"]
        assert not (notebook.volume / ".ngrok/ngrok").exists()


def signal_all(pids: list[int], sent: signal.Signals) -> None:
    """One that ended by itself meanwhile needs none."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)


def couriers_of(notebook: Notebook) -> list[str]:
    """The reports that are being carried now."""
    return [line for line in commands_of(notebook) if line.endswith("courier ")]


def commands_of(notebook: Notebook) -> list[str]:
    """The command lines of every process that has to do with this notebook's folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(notebook.root) in line:
            lines.append(line)
    return lines
