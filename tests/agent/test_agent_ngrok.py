"""Mode ngrok, with the real programs: what is requested, reported, and shown to the user."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support.agent_env import (
    NAME,
    TOKEN,
    NotebookHost,
    Stack,
    free_port,
    make_public_key,
    make_reply,
    scan_host_key,
    tunnels_of,
    wait_until,
)

import processes


def test_from_boot_to_sshd(notebook: NotebookHost, stack: Stack) -> None:
    """Identity, report, ngrok, address, report, instructions; and sshd answers at the address."""
    stack.reply = make_reply("ngrok")
    notebook.start()
    report = notebook.wait_connected()
    assert (report["agent"], report["modes"], report["mode"], report["host"]) == (
        "1.2.3",
        ["ngrok"],
        "ngrok",
        "127.0.0.1",
    )
    assert report["host_keys"] == [notebook.sshd.host_key]
    assert f"ssh -p {report['port']} ec2-user@127.0.0.1" in notebook.instructions.read_text()
    assert f"SSH to {NAME}: connected" in notebook.instructions.read_text()
    assert notebook.sshd.host_key in scan_host_key(report["port"])
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", notebook.sshd.folder / "ssh_host_ed25519_key.pub"], capture_output=True, text=True
    )
    assert f"Host key: {shown.stdout.split()[1]} (ssh-ed25519)\n" in notebook.instructions.read_text()


def test_the_token_is_only_in_files_that_other_users_cannot_read(notebook: NotebookHost, stack: Stack) -> None:
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start()
    notebook.wait_connected()
    count = len(stack.reports)
    wait_until(lambda: len(stack.reports) > count, "a further report")
    holders = sorted(
        path for path in notebook.root.rglob("*") if path.is_file() and TOKEN in path.read_text(errors="replace")
    )
    assert holders == [notebook.own_config, notebook.root / "run/notebook-ssh/worker/reply.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)
    assert not any(TOKEN in line for line in commands_of(notebook))
    assert not any(TOKEN.encode() in raw for raw in stack.bodies)


def test_an_address_is_reported_at_once_and_not_when_a_report_is_due(notebook: NotebookHost, stack: Stack) -> None:
    """The next report is due in an hour; `bench/` measures how long the change takes."""
    stack.reply = make_reply("ngrok", sync_after=3600)
    notebook.start()
    first = notebook.wait_connected()["port"]
    wait_until(lambda: f"ssh -p {first} " in notebook.instructions.read_text(), "the user can read it", notebook)
    open_file, text = notebook.root / "open file", notebook.instructions.read_text()
    open_file.hardlink_to(notebook.instructions)
    notebook.set_ngrok_faults(port=free_port())
    wait_until(
        lambda: stack.last_report()["port"] != first and stack.last_report()["phase"] == "connected",
        "the new address",
        notebook,
    )
    assert f"ssh -p {stack.last_report()['port']} " in notebook.instructions.read_text(), "the file was written before"
    assert open_file.read_text() == text, "the file is replaced, not changed, so a reader gets one text or the other"


@pytest.mark.parametrize("api", ["tunnels", "none"])
def test_address_from_older_local_apis_and_from_the_log(notebook: NotebookHost, stack: Stack, api: str) -> None:
    notebook.set_ngrok_faults(api=api)
    stack.reply = make_reply("ngrok")
    notebook.start()
    assert notebook.sshd.host_key in scan_host_key(notebook.wait_connected()["port"])


def test_off_removes_everything_and_on_works_again(notebook: NotebookHost, stack: Stack) -> None:
    notebook.authorized_keys.parent.mkdir()
    notebook.authorized_keys.write_text("ssh-rsa kept-as-it-was\n")
    notebook.own_keys.write_text(make_public_key("mine"))
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start()
    notebook.wait_connected()
    assert "begin" in notebook.authorized_keys.read_text()
    paused = {"code": "paused", "message": "An admin has paused SSH for all notebooks of this stack."}
    stack.reply = make_reply("off", sync_after=1, problem=paused)
    wait_until(lambda: stack.last_report()["mode"] == "off", "off is reported", notebook)
    assert "SSH to this notebook is off" in notebook.instructions.read_text()
    assert "Ask your admin" in notebook.instructions.read_text()
    assert "Ask your admin" in notebook.run_command("ssh-status").stdout
    assert notebook.authorized_keys.read_text() == "ssh-rsa kept-as-it-was\n"
    assert not [line for line in commands_of(notebook) if "start --all" in line]
    assert notebook.run_command("ssh-status").returncode == 1
    stack.reports.clear()
    stack.reply = make_reply("ngrok")
    notebook.wait_connected()


def test_an_untagged_notebook_is_not_changed(notebook: NotebookHost, stack: Stack) -> None:
    before = sorted(notebook.home.rglob("*"))
    stack.reply = make_reply("off", sync_after=1)
    notebook.start()
    wait_until(lambda: len(stack.reports) > 1, "several reports")
    assert sorted(notebook.home.rglob("*")) == before
    assert not (notebook.root / "usr/local/bin").exists()
    assert all((r["mode"], r["phase"]) == ("off", "off") for r in stack.reports)


def test_access_ends_by_the_stacks_clock(notebook: NotebookHost, stack: Stack) -> None:
    """`until` passes without another reply of the stack, whose clock differs from the notebook's."""
    stack.clock_offset = 7200
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start()
    notebook.wait_connected()
    stack.reply = make_reply("ngrok", sync_after=3600, until=int(time.time()) + 7200 + 3)
    wait_until(lambda: "is off" in notebook.instructions.read_text(), "off at the end time", notebook)
    assert not [line for line in commands_of(notebook) if "start --all" in line]


def test_the_agent_recovers_from_a_suspend_of_hours(notebook: NotebookHost, stack: Stack) -> None:
    """Every process is stopped, as in a suspend, while the stack's clock advances and the tunnel gets another address."""
    stack.reply = make_reply("ngrok", sync_after=3600)
    notebook.start()
    notebook.wait_connected()
    wait_until(lambda: report_senders_of(notebook) == [], "no report is being sent", notebook)
    suspended = [process for agent in notebook.agents for process in (agent.pid, *processes.descendants(agent.pid))]
    signal_all(suspended, signal.SIGSTOP)
    port = free_port()
    notebook.set_ngrok_faults(port=port)
    stack.clock_offset = 8 * 3600
    signal_all(suspended, signal.SIGCONT)
    wait_until(
        lambda: (stack.last_report()["port"], stack.last_report()["phase"]) == (port, "connected"),
        "the new address",
        notebook,
    )
    assert f"ssh -p {port} " in notebook.instructions.read_text()


def test_a_clock_that_is_wrong_by_hours_is_corrected(notebook: NotebookHost, stack: Stack) -> None:
    """The signature of the first report has expired, the second has a boot in the future; then both are corrected."""
    stack.clock_offset = -3 * 3600
    stack.reply = make_reply("bastion")
    notebook.start()
    notebook.wait_connected()


class TestTheTunnel:
    def test_a_new_address_is_reported(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok")
        notebook.start()
        notebook.wait_connected()
        port = free_port()
        notebook.set_ngrok_faults(port=port)
        wait_until(lambda: stack.last_report()["port"] == port, "the new address is reported", notebook)
        assert f"ssh -p {port} " in notebook.instructions.read_text()

    def test_a_lost_session_is_reported_and_recovers(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=2)
        notebook.start()
        notebook.wait_connected()
        notebook.set_ngrok_faults(lost=True)
        wait_until(lambda: stack.last_report()["phase"] == "connecting", "reconnecting is reported", notebook)
        assert stack.last_report()["host"] is None
        assert stack.last_report()["problem"]["code"] == "ngrok-unreachable"
        assert "check the network path" in notebook.instructions.read_text()
        notebook.set_ngrok_faults()
        wait_until(lambda: stack.last_report()["phase"] == "connected", "connected again")
        assert stack.last_report()["problem"] is None

    def test_ngrok_is_restarted_after_a_crash(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=2)
        notebook.start()
        port = notebook.wait_connected()["port"]
        notebook.set_ngrok_faults(crash=True)
        wait_until(lambda: "ngrok exited with status 2" in notebook.log.read_text(), "the crash is logged")
        notebook.set_ngrok_faults()
        wait_until(
            lambda: stack.last_report()["phase"] == "connected" and stack.last_report()["port"] != port,
            "connected again",
        )

    def test_errors_that_follow_a_restart_are_retried(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=2)
        for number in 108, 334:
            notebook.set_ngrok_error(number)
            notebook.agents or notebook.start()
            wait_until(lambda number=number: f"ERR_NGROK_{number}" in notebook.logs(), f"refused: {number}", notebook)  # type: ignore[misc]
        notebook.set_ngrok_error(None)
        notebook.wait_connected()

    def test_a_new_token_takes_effect(self, notebook: NotebookHost, stack: Stack) -> None:
        """Also in a configuration of version 2, of which the user's own lines stay."""
        notebook.config.parent.mkdir()
        own = ["version: '2'  # mine", "tunnels:", "  web:", "    proto: http", "    addr: 8888"]
        notebook.config.write_text("\n".join(own))
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        notebook.wait_connected()
        rotated = TOKEN[::-1].replace("_", "x") + "_" + "A" * 20
        stack.reply["ngrok"] = {"url": None, "token_version": "v2", "token": rotated}
        wait_until(lambda: stack.last_report()["token_version"] == "v2", "the new version is reported")
        wait_until(lambda: rotated in notebook.own_config.read_text(), "ngrok's configuration has the new token")
        wait_until(lambda: stack.last_report()["phase"] == "connected", "connected with it")
        assert TOKEN not in notebook.own_config.read_text()
        assert notebook.config.read_text() == "\n".join(own)

    def test_without_a_token_the_problem_is_reported(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", ngrok={"url": None, "token_version": None}, sync_after=2)
        notebook.start()
        problem = wait_until(lambda: stack.last_report().get("problem"), "a problem is reported", notebook)
        assert problem["code"] == "ngrok-token-missing"

    def test_a_reserved_address_from_the_tag_takes_effect_without_a_restart(
        self, notebook: NotebookHost, stack: Stack
    ) -> None:
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        notebook.wait_connected()
        port = free_port()
        stack.reply["ngrok"]["url"] = f"tcp://127.0.0.1:{port}"
        wait_until(lambda: stack.last_report()["port"] == port, "the reserved address is reported", notebook)

    def test_the_local_api_avoids_a_port_in_use(self, notebook: NotebookHost, stack: Stack) -> None:
        """The port of the test's stack stands for any other process of the user."""
        notebook.config.parent.mkdir()
        notebook.config.write_text(f"version: 3\nagent:\n  web_addr: 127.0.0.1:{stack.port}\n")
        stack.reply = make_reply("ngrok")
        notebook.start()
        notebook.wait_connected()
        assert f'"127.0.0.1:{stack.port}"' not in notebook.own_config.read_text()
        assert re.search(r'"web_addr": "127\.0\.0\.1:\d+"', notebook.own_config.read_text())

    @pytest.mark.parametrize(
        "text",
        [
            'version: "3"\nendpoints:\n  - name: web\n    url: https://a.example.com\n    upstream: {url: 8888}\n',
            '"version": "3"\ntunnels:\n  web: {proto: http, addr: 8888}\n  ssh: {proto: tcp, addr: %(sshd)d, '
            'remote_addr: "127.0.0.1:%(port)d"}\n',
            "version: 2\ntunnels:\n  web:\n    proto: http\n    addr: 8888\n",
            "tunnels:\n  web:\n    proto: http\n    addr: 8888\n  ssh:\n    proto: tcp\n    addr: %(sshd)d\n"
            '    remote_addr: "127.0.0.1:%(port)d"\n',
        ],
        ids=["version 3, quoted", "upgraded from version 2", "version 2", "before the versions"],
    )
    def test_the_users_file_is_never_written_and_its_endpoints_run(
        self, notebook: NotebookHost, stack: Stack, text: str
    ) -> None:
        """Its reserved address is used, too, and its mode stays, although it may hold a token."""
        text %= {"sshd": notebook.sshd.port, "port": (port := free_port())}
        notebook.config.parent.mkdir()
        notebook.config.write_text(text)
        before = notebook.config.stat()
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        report = notebook.wait_connected()
        assert report["port"] == port or "remote_addr" not in text
        assert notebook.sshd.host_key in scan_host_key(report["port"])
        wait_until(lambda: '"name": "web"' in notebook.ngrok_log.read_text(), "the user's endpoint runs", notebook)
        stack.reply = make_reply("off", sync_after=1)
        wait_until(lambda: "is off" in notebook.instructions.read_text(), "off", notebook)
        after = notebook.config.stat()
        assert notebook.config.read_text() == text
        assert (after.st_mode, after.st_ino, after.st_mtime_ns) == (before.st_mode, before.st_ino, before.st_mtime_ns)


STAYS = {
    "SageMaker/SSH_INSTRUCTIONS",
    "SageMaker/.ngrok/ngrok",
    "SageMaker/.ngrok/ngrok.from",
    ".ssh/authorized_keys",
    *(".vscode-server", ".cursor-server", ".cache/JetBrains", ".local/share/JetBrains", ".pycharm_helpers"),
}
"""What is on the disk after `off` that was not there before (docs/notebook.md, "When the tag is removed")."""


def picture(notebook: NotebookHost) -> dict[str, bytes]:
    """Return the files and links below the home directory, with what they hold."""
    paths = [path for path in notebook.home.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        str(path.relative_to(notebook.home)): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in paths
    }


AT_NIGHT = pytest.mark.nightly(sibling="test_nothing_that_lets_users_in_is_left")


@pytest.mark.parametrize(
    ("end", "modes"),
    [
        ("off", "eice ngrok bastion"),
        ("until", "ngrok"),
        pytest.param("off", "ngrok", marks=AT_NIGHT),
        pytest.param("until", "eice ngrok bastion", marks=AT_NIGHT),
    ],
)
def test_nothing_that_lets_users_in_is_left(notebook: NotebookHost, stack: Stack, end: str, modes: str) -> None:
    """Against a picture of the disk before: of the user's files none has changed, and of the agent's no secret is left."""
    mine, hers = make_public_key("mine"), make_public_key("ana").strip()
    notebook.own_keys.write_text(mine)
    notebook.config.parent.mkdir()
    notebook.config.write_text("version: 3\nagent:\n  log_level: info\n")
    before = picture(notebook)
    stack.reply = make_reply(modes, sync_after=1, authorized_keys=[{"user": "ana", "keys": [hers]}])
    notebook.start()
    port = notebook.wait_connected()["port"]
    assert mine in notebook.authorized_keys.read_text()
    over = make_reply(modes, sync_after=1, until=int(stack.now()) - 1)
    stack.reply = make_reply("off", sync_after=1) if end == "off" else over
    wait_until(lambda: stack.last_report()["mode"] == "off", "off is reported", notebook)
    wait_until(lambda: "standby" in str(commands_of(notebook)), "the worker has ended", notebook)
    after = picture(notebook)
    assert {name: after.get(name) for name in before} == before
    assert after.keys() - before.keys() == STAYS
    assert after[".ssh/authorized_keys"] == b""
    everything = b"".join(
        path.read_bytes() for path in notebook.root.rglob("*") if path.is_file() and path.suffix != ".log"
    )
    assert TOKEN.encode() not in everything
    assert hers.split()[1].encode() not in everything
    assert tunnels_of(notebook) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)


def test_what_cannot_be_undone_now_is_undone_later(notebook: NotebookHost, stack: Stack) -> None:
    """The file is too large to be read and written back when access ends; then the user frees it."""
    stack.reply = make_reply("bastion", sync_after=1)
    notebook.own_keys.write_text(make_public_key("mine"))
    notebook.start()
    wait_until(lambda: notebook.authorized_keys.exists(), "admitted", notebook)
    text = notebook.authorized_keys.read_text()
    notebook.authorized_keys.write_text(text + "# mine\n" * 150_000)
    stack.reply = make_reply("off", sync_after=1)
    wait_until(lambda: "teardown: " in notebook.logs(), "it fails", notebook)
    assert "begin" in notebook.authorized_keys.read_text()
    notebook.authorized_keys.write_text(text)
    wait_until(lambda: notebook.authorized_keys.read_text() == "", "it is undone", notebook)


def test_of_a_rotated_token_nothing_is_left(notebook: NotebookHost, stack: Stack) -> None:
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start()
    notebook.wait_connected()
    rotated = TOKEN[::-1].replace("_", "x") + "_" + "A" * 20
    stack.reply["ngrok"] = {"url": None, "token_version": "v2", "token": rotated}
    wait_until(lambda: rotated in notebook.own_config.read_text(), "ngrok has the new one", notebook)

    def holders() -> list[Path]:
        files = [path for path in notebook.root.rglob("*") if path.is_file()]
        return [path for path in files if TOKEN.encode() in path.read_bytes()]

    wait_until(lambda: holders() == [], "the old one is gone", notebook)


class TestTheToken:
    @pytest.mark.parametrize(
        "end", [pytest.param("off", marks=AT_NIGHT), pytest.param("until", marks=AT_NIGHT), "bastion", "none"]
    )
    def test_is_removed_from_the_volume_when_it_is_not_needed(
        self, notebook: NotebookHost, stack: Stack, end: str
    ) -> None:
        """Scripts that back up the volume would copy it otherwise."""
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        notebook.wait_connected()
        stack.reply = {
            "off": make_reply("off", sync_after=1),
            "until": make_reply("ngrok", sync_after=1, until=int(stack.now()) - 1),
            "bastion": make_reply("bastion", sync_after=1),
            "none": make_reply("ngrok", sync_after=1, ngrok={"url": None, "token_version": None}),
        }[end]
        wait_until(lambda: not notebook.own_config.exists(), "the token is gone", notebook)
        assert not [
            path for path in notebook.volume.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
        ]
        wait_until(
            lambda: not [line for line in commands_of(notebook) if "start --all" in line], "ngrok, too", notebook
        )


class TestNgroksProgram:
    def test_is_kept_and_not_downloaded_again(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.settings["NGROK_SHA256"] = hashlib.sha256(notebook.download.archive).hexdigest().upper()
        stack.reply = make_reply("ngrok")
        notebook.start()
        notebook.wait_connected()
        notebook.stop()
        notebook.boot()
        stack.reports.clear()
        notebook.download.archive = b""
        notebook.start()
        notebook.wait_connected()
        assert notebook.download.requests == 1

    def test_that_ngrok_refuses_as_too_old_is_updated_at_once(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.set_ngrok_error(121)
        stack.reply = make_reply("ngrok", sync_after=2)
        notebook.start()
        wait_until(lambda: notebook.download.requests == 2, "a newer one is downloaded", notebook)
        notebook.set_ngrok_error(None)
        assert notebook.wait_connected()["problem"] is None

    def test_that_cannot_be_downloaded_is_reported(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.download.archive = b""
        stack.reply = make_reply("ngrok", sync_after=2)
        notebook.start()
        problem = wait_until(lambda: stack.last_report().get("problem"), "a problem is reported", notebook)
        assert problem["code"] == "ngrok-download"
        assert notebook.download.url in problem["message"]

    def test_with_another_checksum_is_refused(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.settings["NGROK_SHA256"] = "0" * 64
        stack.reply = make_reply("ngrok", sync_after=2)
        notebook.start()
        problem = wait_until(lambda: stack.last_report().get("problem"), "a problem is reported", notebook)
        assert "SHA-256" in problem["message"]
        assert not (notebook.volume / ".ngrok/ngrok").exists()


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each process that has not exited."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def report_senders_of(notebook: NotebookHost) -> list[str]:
    """Return the command lines of the report senders that run now."""
    return [line for line in commands_of(notebook) if line.endswith("send-report ")]


def commands_of(notebook: NotebookHost) -> list[str]:
    """Return the command lines that have this notebook's folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(notebook.root) in line:
            lines.append(line)
    return lines
