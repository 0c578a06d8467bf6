"""Reports, replies, the supervisor and the user's commands, with the real programs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from functools import partial
from pathlib import Path

from support.agent_env import (
    NotebookHost,
    Proxy,
    Stack,
    free_port,
    make_public_key,
    make_reply,
    ngrok_archive,
    processes_of,
    scan_host_key,
    stand_in_command,
    tunnels_of,
    wait_until,
)

from patience import LIMIT_S


def _says(instructions: Path, text: str) -> bool:
    return text in instructions.read_text()


def _is_without(instructions: Path, text: str) -> bool:
    return not _says(instructions, text)


class TestWithoutTheStack:
    def test_the_tunnel_stays_and_the_reason_is_shown(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        port = notebook.wait_connected()["port"]
        for status, body, text in (
            (403, b'{"message": "Forbidden"}', "VPC endpoint"),
            (200, b"<html>please log in to the proxy</html>", "(200)"),
        ):
            stack.status, stack.error_body = status, body
            if status == 200:
                stack.reply = {"html": True}
            wait_until(partial(_says, notebook.instructions, text), f"the reason: {text}", notebook)
            assert f"ssh -p {port} " in notebook.instructions.read_text()
            stack.status, stack.reply = 200, make_reply("ngrok", sync_after=1)
            wait_until(partial(_is_without, notebook.instructions, text), "it is removed with its cause", notebook)
        assert stack.last_report()["port"] == port

    def test_a_first_boot_without_a_network_changes_nothing_and_retries(
        self, notebook: NotebookHost, stack: Stack
    ) -> None:
        before = sorted(notebook.home.rglob("*"))
        notebook.settings["API"] = f"http://127.0.0.1:{free_port()}/v1"
        notebook.start()
        wait_until(lambda: notebook.logs().count("no reply: ") > 1, "it is retried", notebook)
        assert "Connection refused" in notebook.logs()
        assert sorted(notebook.home.rglob("*")) == before
        assert stack.reports == []

    def test_the_next_boot_uses_the_saved_reply_and_the_tags(self, notebook: NotebookHost, stack: Stack) -> None:
        """The token is in config.yml, the program on the volume, the mode in the tags."""

        def keys() -> str:
            return notebook.authorized_keys.read_text() if notebook.authorized_keys.exists() else ""

        users = [{"user": name, "keys": [make_public_key(name).strip()]} for name in ("ana", "eve")]
        stack.reply = make_reply("ngrok", authorized_keys=users)
        notebook.start()
        notebook.wait_connected()
        notebook.stop()
        notebook.boot()
        stack.status, stack.tags = 503, {"ssh": " NGROK ", "ssh-users": "ana mario"}
        notebook.start()
        wait_until(lambda: notebook.status().get("phase") == "connected", "connected without the stack", notebook)
        wait_until(
            lambda: "# ana\n" in keys() and "# eve\n" not in keys(),
            "a user who is no longer named is not admitted",
            notebook,
        )
        stack.tags = {"ssh": "off"}
        wait_until(lambda: "is off" in notebook.instructions.read_text(), "off by the tags", notebook)

    def test_a_conflict_gives_the_boot_a_new_id(self, notebook: NotebookHost, stack: Stack) -> None:
        """409: the stack has a report of a boot that began later, by a clock that was ahead."""
        stack.status, stack.error_body = 409, b'{"error": "older-report", "message": "a newer one is known"}'
        stack.reply = make_reply("bastion")
        notebook.start()
        first = wait_until(stack.last_report, "a report", notebook)["boot"]
        stack.status = 200
        assert notebook.wait_connected()["boot"] != first, "another id for this boot"


class TestReports:
    def test_one_boot_has_one_id_and_a_growing_sequence(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("bastion", sync_after=1)
        notebook.start()
        first = notebook.wait_connected()  # one that was refused for its clock had another id
        notebook.stop()
        notebook.start()
        count = len(stack.reports)
        wait_until(lambda: len(stack.reports) > count + 1, "more reports after a restart of the agent", notebook)
        assert {report["boot"] for report in stack.reports[stack.reports.index(first) :]} == {first["boot"]}
        sequence = [report["sequence"] for report in stack.reports]
        assert sequence == sorted(set(sequence))
        notebook.stop()
        notebook.boot()
        count = len(stack.reports)
        notebook.start()
        wait_until(lambda: len(stack.reports) > count, "a report of the next boot", notebook)
        assert stack.last_report()["boot"] != first["boot"]

    def test_a_slow_stack_delays_nothing(self, notebook: NotebookHost, stack: Stack) -> None:
        """A report without a response times out; the tunnel and the commands do not need one."""
        program = notebook.root / "opt/notebook-ssh/agent.py"
        assert program.read_text().count("timeout=10)") == 1
        program.write_text(program.read_text().replace("timeout=10)", "timeout=2)"))
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        port = notebook.wait_connected()["port"]
        waiting, stack.gate = stack.waiting, threading.Event()
        wait_until(lambda: stack.waiting > waiting, "a report is being sent", notebook)
        shown = notebook.run_command("ssh-status")
        assert (shown.returncode, shown.stdout) == (0, f"ssh -p {port} ec2-user@127.0.0.1\n")
        assert notebook.sshd.host_key in scan_host_key(port)
        # The report sender times out while the stack still does not respond.
        wait_until(lambda: "cannot be reached" in notebook.instructions.read_text(), "the reason is shown", notebook)
        stack.gate.set()
        stack.gate = None
        wait_until(
            lambda: "cannot be reached" not in notebook.instructions.read_text(),
            "it is removed with its cause",
            notebook,
        )
        assert stack.last_report()["port"] == port


class TestTheSupervisor:
    def test_a_second_agent_takes_over(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=1)
        first = notebook.start()
        notebook.wait_connected()
        second = notebook.start()
        assert first.wait(LIMIT_S) is not None
        stack.reports.clear()
        notebook.wait_connected()
        assert second.poll() is None
        assert tunnels_of(notebook) == 1

    def test_no_process_is_left_when_it_is_killed(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok")
        agent = notebook.start()
        notebook.wait_connected()
        agent.kill()
        wait_until(lambda: not processes_of(notebook), "every process ends with the supervisor", notebook)

    def test_a_worker_that_crashes_is_restarted(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        port = notebook.wait_connected()["port"]
        worker = next(pid for pid, line in processes_of(notebook).items() if line.endswith("worker.py work "))
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: stack.last_report().get("port") not in (None, port), "connected again", notebook)
        assert tunnels_of(notebook) == 1
        assert "off" not in [report["mode"] for report in stack.reports[2:]]

    def test_off_while_no_worker_runs_still_removes_everything(self, notebook: NotebookHost, stack: Stack) -> None:
        """The agent is killed, and the tag is removed before it restarts: what the earlier worker did is undone."""
        stack.reply = make_reply("bastion", sync_after=1)
        notebook.own_keys.write_text(make_public_key("mine"))
        agent = notebook.start()
        notebook.wait_connected()
        agent.kill()
        wait_until(lambda: not processes_of(notebook), "every process ends with the supervisor", notebook)
        assert "begin" in notebook.authorized_keys.read_text()
        stack.reply = make_reply("off", sync_after=1)
        notebook.start()
        wait_until(
            lambda: "begin" not in notebook.authorized_keys.read_text(), "the agent's section is removed", notebook
        )
        wait_until(lambda: stack.last_report()["mode"] == "off", "off is reported", notebook)
        assert "is off" in notebook.instructions.read_text()

    def test_a_crashed_worker_continues_without_the_stack(self, notebook: NotebookHost, stack: Stack) -> None:
        """A missing reply is not `off`: nothing is removed."""
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.own_keys.write_text(make_public_key("mine"))
        agent = notebook.start()
        port = notebook.wait_connected()["port"]
        agent.kill()
        wait_until(lambda: not processes_of(notebook), "every process ends with the supervisor", notebook)
        stack.status = 500
        notebook.start()
        wait_until(lambda: notebook.status().get("port") not in (None, port), "connected again", notebook)
        assert "begin" in notebook.authorized_keys.read_text()

    def test_logs_are_bounded(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.log.parent.mkdir(parents=True)
        notebook.log.write_text("x" * (1 << 20) + "\n")
        notebook.ngrok_log.write_text("y" * (1 << 20) + "the end\n")
        stack.reply = make_reply("ngrok")
        notebook.start()
        notebook.wait_connected()
        assert notebook.log.stat().st_size < 1 << 16
        assert 1 << 18 < notebook.ngrok_log.stat().st_size < 1 << 20
        assert "the end" in notebook.ngrok_log.read_text()

    def test_memory_is_bounded(self, notebook: NotebookHost, stack: Stack) -> None:
        """At most 50 MB resident for both processes together, off and on, without ngrok."""

        def memory(last: str) -> int:
            pids = [pid for pid, line in processes_of(notebook).items() if "/opt/notebook-ssh/" in line]
            words = " ".join(processes_of(notebook).values())
            return sum(resident(pid) for pid in pids) if len(pids) == 2 and last in words else 0

        stack.reply = make_reply("off", sync_after=1)
        notebook.start()
        wait_until(stack.last_report, "a report", notebook)
        assert wait_until(lambda: memory("agent.py standby"), "only supervisor and standby", notebook) < 50 << 20
        stack.reply = make_reply("ngrok")
        notebook.wait_connected()
        assert wait_until(lambda: memory("worker.py work"), "only supervisor and worker", notebook) < 50 << 20


class TestBastion:
    def test_the_command_is_shown(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("bastion")
        notebook.own_keys.write_text(make_public_key("mine"))
        notebook.start()
        report = notebook.wait_connected()
        assert (report["modes"], report["host"], report["keys"]["own"]) == (["bastion"], None, 1)
        assert "    ssh -J jump@bastion.example.com ec2-user@10.0.3.7\n" in notebook.instructions.read_text()
        assert not (notebook.volume / ".ngrok").exists()

    def test_an_address_that_was_missing_is_requested(self, notebook: NotebookHost, stack: Stack) -> None:
        bastion = {"host": "bastion.example.com", "user": "jump", "private_ip": None}
        stack.reply = make_reply("bastion", sync_after=600, bastion=bastion)
        notebook.start()
        notebook.wait_connected()
        shown = notebook.run_command("ssh-status")
        assert "private address is not known yet" in shown.stdout
        stack.reply = make_reply("bastion", sync_after=600)
        shown = notebook.run_command("ssh-status")
        assert shown.stdout == "ssh -J jump@bastion.example.com ec2-user@10.0.3.7\n", "the stack's newest reply"

    def test_from_ngrok_without_a_restart(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=1)
        notebook.start()
        notebook.wait_connected()
        stack.reply = make_reply("bastion", sync_after=1)
        wait_until(
            lambda: (stack.last_report()["mode"], stack.last_report()["phase"]) == ("bastion", "connected"),
            "bastion",
            notebook,
        )
        assert tunnels_of(notebook) == 0

    def test_without_sshd_the_problem_is_reported(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.settings["PORT"] = "1"
        stack.reply = make_reply("bastion", sync_after=1)
        notebook.start()

        def reported() -> str:
            return str((stack.last_report().get("problem") or {}).get("code"))

        wait_until(lambda: reported() == "sshd-missing", "root's part has looked for one", notebook)
        assert stack.last_report()["phase"] == "failed"


class TestCommands:
    def test_succeed_from_any_directory_and_repeatedly(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("ngrok", sync_after=60)
        notebook.start()
        port = notebook.wait_connected()["port"]
        notebook.own_keys.write_text(make_public_key("mario") + make_public_key("ana"))
        copied = notebook.run_command("copy-ssh-keys")
        assert (copied.returncode, copied.stdout) == (0, "Copying 2 SSH keys...\n")
        wait_until(lambda: stack.last_report()["keys"]["own"] == 2, "the count is reported", notebook)
        before = notebook.authorized_keys.read_text()
        assert notebook.run_command("copy-ssh-keys", cwd=Path("/")).stdout == copied.stdout
        assert notebook.authorized_keys.read_text() == before, "a second run changes nothing"
        shown = notebook.run_command("ssh-status")
        assert (shown.returncode, shown.stdout) == (0, f"ssh -p {port} ec2-user@127.0.0.1\n")
        for name in "start-ssh-ngrok", "start-ngrok-ssh":
            again = notebook.run_command(name)
            assert again.returncode == 0, again.stdout + notebook.logs()
            assert again.stdout.startswith("ssh -p ")
        assert tunnels_of(notebook) == 1

    def test_show_the_problem_and_exit_with_1(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.set_ngrok_error(8013)
        stack.reply = make_reply("ngrok", sync_after=2)
        notebook.start()
        problem = wait_until(lambda: stack.last_report().get("problem"), "a problem is reported", notebook)
        assert problem["code"] == "ngrok-card-required"
        assert "ERR_NGROK_8013" in problem["message"]
        wait_until(
            lambda: problem["message"] in notebook.instructions.read_text(), "the user can read it too", notebook
        )
        shown = notebook.run_command("ssh-status")
        assert shown.returncode == 1
        assert "ngrok-card-required" in shown.stdout
        again = notebook.run_command("start-ssh-ngrok")
        assert again.returncode == 1
        assert "ERR_NGROK_8013" in again.stdout

    def test_have_help_and_report_that_no_agent_runs(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("bastion")
        notebook.start()
        notebook.wait_connected()
        for name in "ssh-status", "copy-ssh-keys", "start-ssh-ngrok", "start-ngrok-ssh":
            usage = notebook.run_command(name, "--help")
            assert (usage.returncode, "Exit status" in usage.stdout) == (0, True)
            assert notebook.run_command(name, "--nonsense").returncode == 2
        assert notebook.run_command("start-ssh-ngrok").returncode == 1
        notebook.stop()
        shown = notebook.run_command("ssh-status")
        assert (shown.returncode, "not running" in shown.stdout) == (1, True)


class TestProxies:
    def test_of_the_environment_are_used_for_all_external_requests(
        self, notebook: NotebookHost, stack: Stack, tmp_path: Path
    ) -> None:
        """The report, ngrok's download and ngrok itself use them; requests to the notebook itself do not."""
        program = f"#!/bin/sh\n[ $1 = start ] && env >'{tmp_path}/environment'\n" + stand_in_command()
        notebook.download.archive = ngrok_archive(program)
        download = f"127.0.0.1:{notebook.download.port}"
        with Proxy({"stack.example.com": stack, download: notebook.download}) as proxy:
            notebook.settings["API"] = "http://stack.example.com/v1"
            notebook.environment = {"http_proxy": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": "inside.example.com"}
            stack.address = "http://stack.example.com"
            stack.reply = make_reply("ngrok")
            notebook.start()
            notebook.wait_connected()
        assert set(proxy.requested) == {"stack.example.com", download}
        variables = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
        assert (variables["http_proxy"], variables["HTTPS_PROXY"]) == (proxy.url, proxy.url)
        assert variables["NO_PROXY"] == "inside.example.com"

    def test_that_the_on_start_script_sets_after_the_agent_started_are_used(
        self, notebook: NotebookHost, stack: Stack, tmp_path: Path
    ) -> None:
        """The block is at the script's top; a proxy is written into /etc/environment below it, in any of these forms."""
        program = f"#!/bin/sh\n[ $1 = start ] && env >'{tmp_path}/environment'\n" + stand_in_command()
        notebook.download.archive = ngrok_archive(program)
        download = f"127.0.0.1:{notebook.download.port}"
        with Proxy({"stack.example.com": stack, download: notebook.download}) as proxy:
            notebook.settings["API"] = "http://stack.example.com/v1"
            stack.address = "http://stack.example.com"
            stack.reply = make_reply("ngrok")
            notebook.start()
            wait_until(lambda: "no reply: (0, " in notebook.logs(), "the stack cannot be reached directly", notebook)
            (notebook.root / "etc/environment").write_text(
                f'# proxies\nhttp_proxy="{proxy.url}"\nexport HTTPS_PROXY={proxy.url}\nno_proxy = x\n\n'
            )
            notebook.wait_connected()
        assert set(proxy.requested) == {"stack.example.com", download}
        variables = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
        assert (variables["http_proxy"], variables["HTTPS_PROXY"]) == (proxy.url, proxy.url)
        assert "no_proxy" not in variables

    def test_are_not_used_for_hosts_in_no_proxy(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.address = f"http://localhost:{stack.port}"
        notebook.settings["API"] = f"{stack.address}/v1"
        stack.reply = make_reply("bastion")
        with Proxy({}) as proxy:
            notebook.environment = {"HTTP_PROXY": proxy.url, "NO_PROXY": "localhost"}
            notebook.start()
            notebook.wait_connected()
        assert proxy.requested == []


def resident(pid: int) -> int:
    """Return the resident bytes of a process (proc(5), VmRSS); 0 if it has exited."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) << 10
    return 0
