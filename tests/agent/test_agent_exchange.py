"""The exchange, the keeper and people's commands, by the real program."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

from agent_world import (
    Notebook,
    Proxy,
    Stack,
    a_key,
    an_answer,
    free_port,
    key_shown_at,
    ngrok_archive,
    stand_in_call,
    until,
)

from patience import LIMIT_S


class TestWhenTheStackIsAway:
    def test_the_tunnel_stays_and_the_reason_is_told(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=1)
        notebook.start()
        port = notebook.connected()["port"]
        for status, body, said in (
            (403, b'{"message": "Forbidden"}', "VPC endpoint"),
            (200, b"<html>please log in to the proxy</html>", "(200)"),
        ):
            stack.status, stack.refusal = status, body
            if status == 200:
                stack.answers = {"html": True}
            until(lambda said=said: said in notebook.instructions.read_text(), f"the reason: {said}", notebook)  # type: ignore[misc]
            assert f"ssh -p {port} " in notebook.instructions.read_text()
            stack.status, stack.answers = 200, an_answer("ngrok", sync_after=1)
            until(lambda said=said: said not in notebook.instructions.read_text(), "it goes with its cause", notebook)  # type: ignore[misc]
        assert stack.last()["port"] == port

    def test_a_first_boot_without_a_network_does_nothing_and_asks_on(self, notebook: Notebook, stack: Stack) -> None:
        before = sorted(notebook.home.rglob("*"))
        notebook.settings["API"] = f"http://127.0.0.1:{free_port()}/v1"
        notebook.start()
        until(lambda: notebook.told().count("no answer: ") > 1, "it is tried again", notebook)
        assert "Connection refused" in notebook.told()
        assert sorted(notebook.home.rglob("*")) == before
        assert stack.reports == []

    def test_the_next_boot_goes_by_what_was_kept_and_by_the_tags(self, notebook: Notebook, stack: Stack) -> None:
        """The token is in config.yml, the program on the volume, the wish in the tags."""

        def keys() -> str:
            return notebook.authorized.read_text() if notebook.authorized.exists() else ""

        people = [{"user": name, "keys": [a_key(name).strip()]} for name in ("ana", "eve")]
        stack.answers = an_answer("ngrok", authorized_keys=people)
        notebook.start()
        notebook.connected()
        notebook.stop()
        notebook.boot()
        stack.status, stack.tags = 503, {"ssh": " NGROK ", "ssh-users": "ana mario"}
        notebook.start()
        until(lambda: notebook.status().get("phase") == "connected", "connected without the stack", notebook)
        until(
            lambda: "# ana\n" in keys() and "# eve\n" not in keys(), "who is no longer named is not admitted", notebook
        )
        stack.tags = {"ssh": "off"}
        until(lambda: "is off" in notebook.instructions.read_text(), "the tags say off", notebook)

    def test_a_kept_program_that_was_changed_is_not_run(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("bastion")
        notebook.start()
        notebook.connected()
        notebook.stop()
        notebook.boot()
        kept = notebook.volume / ".notebook-ssh" / "worker.py"
        kept.write_text(f"open({str(notebook.root / 'proof')!r}, 'w')")
        stack.reports.clear()
        notebook.start()
        notebook.connected()
        assert not (notebook.root / "proof").exists()
        assert stack.reports[0]["wants_worker"] is True

    def test_a_program_that_the_block_does_not_vouch_for_is_not_run(self, notebook: Notebook, stack: Stack) -> None:
        stack.worker = f"open({str(notebook.root / 'proof')!r}, 'w')"
        stack.answers = an_answer("bastion", sync_after=1)
        notebook.start()
        told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
        assert told["code"] == "agent-outdated"
        assert not (notebook.root / "proof").exists()

    def test_a_clock_that_was_ahead_is_forgiven(self, notebook: Notebook, stack: Stack) -> None:
        """A 409 names a report of a boot that began later: this boot begins anew."""
        stack.status, stack.refusal = 409, b'{"error": "older-report", "message": "a newer one is known"}'
        stack.answers = an_answer("bastion")
        notebook.start()
        first = until(stack.last, "a report", notebook)["boot"]
        stack.status = 200
        assert notebook.connected()["boot"] != first, "another name for this boot"


class TestReports:
    def test_one_boot_has_one_name_and_a_growing_sequence(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("bastion", sync_after=1)
        notebook.start()
        notebook.connected()
        notebook.stop()
        notebook.start()
        count = len(stack.reports)
        until(lambda: len(stack.reports) > count + 1, "more reports after a restart of the agent", notebook)
        assert len({report["boot"] for report in stack.reports}) == 1
        sequence = [report["sequence"] for report in stack.reports]
        assert sequence == sorted(set(sequence))
        notebook.stop()
        notebook.boot()
        count = len(stack.reports)
        notebook.start()
        until(lambda: len(stack.reports) > count, "a report of the next boot", notebook)
        assert stack.last()["boot"] != stack.reports[0]["boot"]

    def test_a_slow_stack_holds_nothing_up(self, notebook: Notebook, stack: Stack) -> None:
        """A report that nobody answers ends by itself; the tunnel and the commands do without."""
        program = notebook.root / "opt/notebook-ssh/agent.py"
        assert program.read_text().count("timeout=10)") == 1
        program.write_text(program.read_text().replace("timeout=10)", "timeout=2)"))
        stack.answers = an_answer("ngrok", sync_after=1)
        notebook.start()
        port = notebook.connected()["port"]
        waiting, stack.slow = stack.waiting, threading.Event()
        until(lambda: stack.waiting > waiting, "a report is being made", notebook)
        shown = notebook.run("ssh-status")
        assert (shown.returncode, shown.stdout) == (0, f"ssh -p {port} ec2-user@127.0.0.1\n")
        assert notebook.sshd.host_key in key_shown_at(port)
        # The courier gives up by itself, with the stack still silent.
        until(lambda: "cannot be reached" in notebook.instructions.read_text(), "the reason is told", notebook)
        stack.slow.set()
        stack.slow = None
        until(lambda: "cannot be reached" not in notebook.instructions.read_text(), "it goes with its cause", notebook)
        assert stack.last()["port"] == port


class TestTheKeeper:
    def test_a_second_agent_takes_over(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=1)
        first = notebook.start()
        notebook.connected()
        second = notebook.start()
        assert first.wait(LIMIT_S) is not None
        stack.reports.clear()
        notebook.connected()
        assert second.poll() is None
        assert tunnels_of(notebook) == 1

    def test_nothing_is_left_when_it_is_killed(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok")
        agent = notebook.start()
        notebook.connected()
        agent.kill()
        until(lambda: not processes_of(notebook), "everything ends with the keeper", notebook)

    def test_a_worker_that_falls_is_started_again(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=1)
        notebook.start()
        port = notebook.connected()["port"]
        worker = next(pid for pid, line in processes_of(notebook).items() if line.endswith("worker.py work "))
        os.kill(worker, signal.SIGKILL)
        until(lambda: stack.last().get("port") not in (None, port), "connected anew", notebook)
        assert tunnels_of(notebook) == 1
        assert "off" not in [report["mode"] for report in stack.reports[2:]]

    def test_off_that_comes_while_no_worker_runs_is_still_undone(self, notebook: Notebook, stack: Stack) -> None:
        """The agent falls, and the tag goes before it is back: what the worker before did is not left behind."""
        stack.answers = an_answer("bastion", sync_after=1)
        notebook.own_keys.write_text(a_key("mine"))
        agent = notebook.start()
        notebook.connected()
        agent.kill()
        until(lambda: not processes_of(notebook), "everything ends with the keeper", notebook)
        assert "begin" in notebook.authorized.read_text()
        stack.answers = an_answer("off", sync_after=1)
        notebook.start()
        until(lambda: "begin" not in notebook.authorized.read_text(), "our section is gone", notebook)
        until(lambda: stack.last()["mode"] == "off", "off is reported", notebook)
        assert "is off" in notebook.instructions.read_text()

    def test_a_worker_that_fell_goes_on_without_the_stack(self, notebook: Notebook, stack: Stack) -> None:
        """No answer is not `off`: nothing is taken away."""
        stack.answers = an_answer("ngrok", sync_after=1)
        notebook.own_keys.write_text(a_key("mine"))
        agent = notebook.start()
        port = notebook.connected()["port"]
        agent.kill()
        until(lambda: not processes_of(notebook), "everything ends with the keeper", notebook)
        stack.status = 500
        notebook.start()
        until(lambda: notebook.status().get("port") not in (None, port), "connected anew", notebook)
        assert "begin" in notebook.authorized.read_text()

    def test_logs_are_bounded(self, notebook: Notebook, stack: Stack) -> None:
        notebook.log.parent.mkdir(parents=True)
        notebook.log.write_text("x" * (1 << 20) + "\n")
        notebook.ngrok_log.write_text("y" * (1 << 20) + "the end\n")
        stack.answers = an_answer("ngrok")
        notebook.start()
        notebook.connected()
        assert notebook.log.stat().st_size < 1 << 16
        assert 1 << 18 < notebook.ngrok_log.stat().st_size < 1 << 20
        assert "the end" in notebook.ngrok_log.read_text()

    def test_it_is_small(self, notebook: Notebook, stack: Stack) -> None:
        """At most 50 MB resident for both programs together, off and on, ngrok itself not counted."""

        def ours(last: str) -> int:
            programs = [pid for pid, line in processes_of(notebook).items() if "/opt/notebook-ssh/" in line]
            words = " ".join(processes_of(notebook).values())
            return sum(resident(pid) for pid in programs) if len(programs) == 2 and last in words else 0

        stack.answers = an_answer("off", sync_after=1)
        notebook.start()
        until(stack.last, "a report", notebook)
        assert until(lambda: ours("agent.py idle"), "the keeper and idle alone", notebook) < 50 << 20
        stack.answers = an_answer("ngrok")
        notebook.connected()
        assert until(lambda: ours("worker.py work"), "the keeper and the worker alone", notebook) < 50 << 20


class TestBastion:
    def test_the_way_is_told(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("bastion")
        notebook.own_keys.write_text(a_key("mine"))
        notebook.start()
        report = notebook.connected()
        assert (report["mode"], report["host"], report["keys"]["own"]) == ("bastion", None, 1)
        assert "    ssh -J jump@bastion.example.com ec2-user@10.0.3.7\n" in notebook.instructions.read_text()
        assert not (notebook.volume / ".ngrok").exists()

    def test_an_address_that_comes_later_is_asked_for(self, notebook: Notebook, stack: Stack) -> None:
        way = {"host": "bastion.example.com", "user": "jump", "private_ip": None}
        stack.answers = an_answer("bastion", sync_after=600, bastion=way)
        notebook.start()
        notebook.connected()
        shown = notebook.run("ssh-status")
        assert "private address is not known yet" in shown.stdout
        stack.answers = an_answer("bastion", sync_after=600)
        shown = notebook.run("ssh-status")
        assert shown.stdout == "ssh -J jump@bastion.example.com ec2-user@10.0.3.7\n", "what the caller knows by now"

    def test_from_ngrok_without_a_restart(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=1)
        notebook.start()
        notebook.connected()
        stack.answers = an_answer("bastion", sync_after=1)
        until(lambda: (stack.last()["mode"], stack.last()["phase"]) == ("bastion", "connected"), "bastion", notebook)
        assert tunnels_of(notebook) == 0

    def test_without_sshd_the_reason_is_told(self, notebook: Notebook, stack: Stack) -> None:
        notebook.settings["PORT"] = "1"
        stack.answers = an_answer("bastion", sync_after=1)
        notebook.start()
        told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
        assert told["code"] == "sshd-down"
        assert stack.last()["phase"] == "failed"


class TestCommands:
    def test_of_the_guide_and_ours(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("ngrok", sync_after=60)
        notebook.start()
        port = notebook.connected()["port"]
        notebook.own_keys.write_text(a_key("mario") + a_key("ana"))
        copied = notebook.run("copy-ssh-keys")
        assert (copied.returncode, copied.stdout) == (0, "Copying 2 SSH keys...\n")
        until(lambda: stack.last()["keys"]["own"] == 2, "the count is told", notebook)
        admitted = notebook.authorized.read_text()
        assert notebook.run("copy-ssh-keys", cwd=Path("/")).stdout == copied.stdout
        assert notebook.authorized.read_text() == admitted, "as often as one likes"
        shown = notebook.run("ssh-status")
        assert (shown.returncode, shown.stdout) == (0, f"ssh -p {port} ec2-user@127.0.0.1\n")
        for name in "start-ssh-ngrok", "start-ngrok-ssh":
            again = notebook.run(name)
            assert again.returncode == 0, again.stdout + notebook.told()
            assert again.stdout.startswith("ssh -p ")
        assert tunnels_of(notebook) == 1

    def test_say_what_is_wrong_and_end_so(self, notebook: Notebook, stack: Stack) -> None:
        notebook.refuse(8013)
        stack.answers = an_answer("ngrok", sync_after=2)
        notebook.start()
        told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
        assert told["code"] == "ngrok-card-required"
        assert "ERR_NGROK_8013" in told["message"]
        until(lambda: told["message"] in notebook.instructions.read_text(), "the person reads it too", notebook)
        shown = notebook.run("ssh-status")
        assert shown.returncode == 1
        assert "ngrok-card-required" in shown.stdout
        again = notebook.run("start-ssh-ngrok")
        assert again.returncode == 1
        assert "ERR_NGROK_8013" in again.stdout

    def test_explain_themselves_and_say_when_no_agent_runs(self, notebook: Notebook, stack: Stack) -> None:
        stack.answers = an_answer("bastion")
        notebook.start()
        notebook.connected()
        for name in "ssh-status", "copy-ssh-keys", "start-ssh-ngrok", "start-ngrok-ssh":
            explained = notebook.run(name, "--help")
            assert (explained.returncode, "Exit status" in explained.stdout) == (0, True)
            assert notebook.run(name, "--nonsense").returncode == 2
        assert notebook.run("start-ssh-ngrok").returncode == 1
        notebook.stop()
        shown = notebook.run("ssh-status")
        assert (shown.returncode, "not running" in shown.stdout) == (1, True)


class TestProxies:
    def test_of_the_environment_carry_everything_that_goes_out(
        self, notebook: Notebook, stack: Stack, tmp_path: Path
    ) -> None:
        """The report, ngrok's download, and ngrok itself; nothing that stays on the notebook."""
        program = f"#!/bin/sh\n[ $1 = start ] && env >'{tmp_path}/environment'\n" + stand_in_call()
        notebook.download.content = ngrok_archive(program)
        with Proxy({"stack.example.com": stack, "download.example.com": notebook.download}) as proxy:
            notebook.settings["API"] = "http://stack.example.com/v1"
            notebook.settings["NGROK_DOWNLOAD"] = "http://download.example.com/ngrok.tgz"
            notebook.environment = {"http_proxy": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": "inside.example.com"}
            stack.address = "http://stack.example.com"
            stack.answers = an_answer("ngrok")
            notebook.start()
            notebook.connected()
        assert set(proxy.seen) == {"stack.example.com", "download.example.com"}
        ngroks = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
        assert (ngroks["http_proxy"], ngroks["HTTPS_PROXY"]) == (proxy.url, proxy.url)
        assert ngroks["no_proxy"].split(",") == ["inside.example.com", "127.0.0.1", "169.254.169.254"]

    def test_are_not_used_for_what_the_person_excepted(self, notebook: Notebook, stack: Stack) -> None:
        stack.address = f"http://localhost:{stack.port}"
        notebook.settings["API"] = f"{stack.address}/v1"
        stack.answers = an_answer("bastion")
        with Proxy({}) as proxy:
            notebook.environment = {"HTTP_PROXY": proxy.url, "NO_PROXY": "localhost"}
            notebook.start()
            notebook.connected()
        assert proxy.seen == []


def processes_of(notebook: Notebook) -> dict[int, str]:
    """The processes, by id, whose command line names this notebook's folder; couriers and zombies left out."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(notebook.root) in line and not line.endswith("courier "):
            found[int(entry.parent.name)] = line
    return found


def tunnels_of(notebook: Notebook) -> int:
    """How many ngrok agents run for this notebook."""
    return sum("start --all" in line for line in processes_of(notebook).values())


def resident(pid: int) -> int:
    """Bytes of memory that a process holds (proc(5), VmRSS); 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) << 10
    return 0
