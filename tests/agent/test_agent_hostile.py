"""Unexpected files in the home directory: the agent continues, reports them, and changes nothing else."""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.agent_env import (
    PROGRAMS,
    WORKER,
    NotebookHost,
    Stack,
    make_public_key,
    make_reply,
    processes_of,
    wait_until,
)

from patience import LIMIT_S

FIXED = make_public_key("").split()[1]


def test_directories_in_the_place_of_files(notebook: NotebookHost, stack: Stack) -> None:
    places = "SageMaker/SSH_INSTRUCTIONS", ".ssh/authorized_keys", "SageMaker/ssh/authorized_keys"
    for place in places:
        (notebook.home / place).mkdir(parents=True)
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start()
    notebook.wait_connected()
    for place in places:
        wait_until(lambda place=place: place in str(stack.last_report()["problem"]), f"{place} is reported", notebook)  # type: ignore[misc]
        copied = notebook.run_command("copy-ssh-keys")
        assert copied.stderr == ""
        assert copied.returncode == 1
        assert "authorized_keys: Is a directory" in copied.stdout
        (notebook.home / place).rmdir()
    wait_until(lambda: stack.last_report()["problem"] is None, "the problem ends with its cause", notebook)
    wait_until(notebook.authorized_keys.is_file, "the keys are in place", notebook)


def make_folder(place: Path) -> None:
    place.mkdir(parents=True)


def make_loop(place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(place)


def make_file(place: Path) -> None:
    place.write_text("in the place of a folder\n")


AT_NIGHT = pytest.mark.nightly(sibling="test_what_cannot_be_read_on_the_volume_is_reported")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        (".notebook-ssh/worker.py", make_folder),
        pytest.param(".notebook-ssh/worker.py", make_loop, marks=AT_NIGHT),
        (".notebook-ssh", make_file),
        pytest.param(".ngrok/config.yml", make_folder, marks=AT_NIGHT),
        (".ngrok/config.yml", make_loop),
        pytest.param(".ngrok", make_file, marks=AT_NIGHT),
    ],
)
def test_what_cannot_be_read_on_the_volume_is_reported(
    notebook: NotebookHost, stack: Stack, name: str, make: Callable[[Path], None]
) -> None:
    make(notebook.volume / name)
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start()
    told = f"{notebook.volume / name}"
    wait_until(lambda: told in str(stack.last_report().get("problem")), "it is reported with its place", notebook)
    (notebook.volume / name).rmdir() if make is make_folder else (notebook.volume / name).unlink()
    if name.endswith("worker.py"):
        notebook.wait_connected()
    else:  # by itself a tunnel that failed is tried again two minutes later
        notebook.run_command("start-ssh-ngrok")
    wait_until(lambda: stack.last_report()["problem"] is None, "the problem ends with its cause", notebook)
    assert "Traceback" not in notebook.logs()


def test_a_log_that_is_full_ends_nothing(notebook: NotebookHost, stack: Stack) -> None:
    """The root volume has no room: what would be logged is lost."""
    notebook.log.parent.mkdir(parents=True)
    notebook.log.symlink_to("/dev/full")
    stack.reply = make_reply("ngrok")
    notebook.start()
    notebook.wait_connected()


FILES = [".ssh/authorized_keys", "SageMaker/SSH_INSTRUCTIONS", "SageMaker/.notebook-ssh/ngrok.yml"]
"""The files that the agent writes below the home directory."""


def written_paths(notebook: NotebookHost) -> list[Path]:
    """Return the paths that the agent creates: the files, their temporary names, and those of the download."""
    names = [name + end for name in FILES for end in ("", ".~")] + [
        f"SageMaker/.ngrok/ngrok.{end}" for end in ("tgz", "new")
    ]
    places = [notebook.home / name for name in names]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    return places


def test_fifos_in_the_place_of_files_do_not_block(notebook: NotebookHost, stack: Stack) -> None:
    for place in [*written_paths(notebook), notebook.own_keys]:
        os.mkfifo(place)
    stack.reply = make_reply("ngrok")
    notebook.start()
    notebook.wait_connected()
    wait_until(lambda: all((notebook.home / name).is_file() for name in FILES), "the files are in place", notebook)
    notebook.own_keys.unlink()
    notebook.own_keys.symlink_to("/dev/zero")
    copied = notebook.run_command("copy-ssh-keys")
    assert copied.stdout.splitlines()[0] == "Copying 0 SSH keys...", "an endless file is read to a limit"


def test_hard_links_in_the_place_of_files_are_not_written_through(notebook: NotebookHost, stack: Stack) -> None:
    precious = notebook.root / "precious"
    precious.write_text("# untouched\n")
    for place in written_paths(notebook):
        place.hardlink_to(precious)
    stack.reply = make_reply("ngrok")
    notebook.start()
    notebook.wait_connected()
    wait_until(lambda: not notebook.instructions.samefile(precious), "a file of its own", notebook)
    assert precious.read_text() == "# untouched\n"
    assert not any((notebook.home / name).samefile(precious) for name in FILES)


@pytest.mark.parametrize("name", [".ssh/authorized_keys", "SageMaker/.ngrok/config.yml"])
def test_a_file_too_large_to_be_read_completely_is_reported_and_not_written(
    notebook: NotebookHost, stack: Stack, name: str
) -> None:
    """Reading has a limit; text beyond it must not be lost by writing."""
    large = notebook.home / name
    large.parent.mkdir(parents=True)
    large.write_text("# mine\n" * 150_000)
    stack.reply = make_reply("ngrok")
    notebook.start()
    problem = wait_until(lambda: stack.last_report().get("problem"), "a problem is reported", notebook)
    assert f"{name}: larger than 1 MB" in problem["message"]
    assert large.read_text() == "# mine\n" * 150_000


def test_a_symbolic_link_in_the_place_of_the_instructions_is_not_followed(
    notebook: NotebookHost, stack: Stack, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("untouched")
    notebook.instructions.symlink_to(target)
    stack.reply = make_reply("bastion")
    notebook.start()
    notebook.wait_connected()
    wait_until(lambda: not notebook.instructions.is_symlink(), "the link is replaced by a file", notebook)
    assert target.read_text() == "untouched"


def test_invalid_lines_are_reported_by_number_and_not_copied(notebook: NotebookHost, stack: Stack) -> None:
    good, secret = make_public_key("mine"), "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU"
    notebook.own_keys.write_text(f"# users\n{good}oops, not a key\n-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n")
    stack.reply = make_reply("bastion", authorized_keys=[{"user": "ana", "keys": [make_public_key("ana").strip()]}])
    notebook.start()
    keys = notebook.wait_connected()["keys"]
    assert (keys["own"], keys["central"]) == (1, 1)
    assert [each["line"] for each in keys["rejected"]] == [3, 4, 5]
    admitted = notebook.authorized_keys.read_text()
    assert good in admitted
    assert "oops" not in admitted + "".join(each["reason"] for each in keys["rejected"])
    assert notebook.authorized_keys.stat().st_mode & 0o777 == 0o600
    assert "Line 4 of that file was skipped" in notebook.instructions.read_text()
    assert secret not in admitted + notebook.logs() + notebook.instructions.read_text()
    assert not any(secret.encode() in report for report in stack.bodies)


def test_a_revoked_key_is_removed_at_the_next_sync(notebook: NotebookHost, stack: Stack) -> None:
    mine, hers = make_public_key("by hand"), make_public_key("ana").strip()
    notebook.authorized_keys.parent.mkdir()
    notebook.authorized_keys.write_text(mine.rstrip("\n"))
    stack.reply = make_reply("bastion", sync_after=1, authorized_keys=[{"user": "ana", "keys": [hers]}])
    notebook.start()
    wait_until(lambda: hers in notebook.authorized_keys.read_text(), "admitted", notebook)
    stack.reply = make_reply("bastion", sync_after=1)
    wait_until(lambda: hers not in notebook.authorized_keys.read_text(), "revoked", notebook)
    assert mine in notebook.authorized_keys.read_text()


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\x00"
"""What would set a terminal's title, clear it, colour it, turn a line around, and go back to its start."""

LIES: list[dict[str, Any]] = [
    {"problem": {"code": f"paused{ESCAPES}", "message": f"an admin{ESCAPES} says\nProblem: none [ok]"}},
    {"bastion": {"host": f"bastion{ESCAPES}", "user": "jump", "private_ip": "10.0.3.7"}},
    {"bastion": {"host": "-oProxyCommand=reboot", "user": "$(reboot);", "private_ip": "10.0.3.7`reboot`"}},
    {"authorized_keys": [{"user": f"ana{ESCAPES}", "keys": [make_public_key(f"ana{ESCAPES}").strip()]}]},
    {"notebook": ESCAPES, "server_time": ESCAPES},
]


def test_a_stack_that_lies_reaches_no_terminal(notebook: NotebookHost, stack: Stack) -> None:
    """Neither by the commands nor by a file that a user prints; an answer that cannot be right is none."""
    stack.reply = make_reply("bastion", sync_after=1)
    notebook.own_keys.write_text(make_public_key("mine"))
    notebook.start()
    notebook.wait_connected()
    for lie in LIES:
        stack.reply = make_reply("bastion", sync_after=1) | lie
        count = len(stack.reports)
        wait_until(lambda count=count: len(stack.reports) > count + 1, f"it is known: {lie}", notebook)  # type: ignore[misc]
        texts = [notebook.run_command("ssh-status").stdout, notebook.run_command("copy-ssh-keys").stdout]
        texts += [path.read_text() for path in (notebook.instructions, notebook.authorized_keys, notebook.log)]
        shown = [line for text in texts for line in text.split("\n")]
        assert [line for line in shown if not line.isprintable()] == []
        assert not re.search(r"ssh -J \S*[^\w@.:\[\]\s-]|reboot|^Problem: none", "\n".join(texts), re.MULTILINE)
    stack.status, stack.error_body = 403, json.dumps({"error": "x", "message": f"no{ESCAPES}"}).encode()
    wait_until(lambda: "(403)" in notebook.instructions.read_text(), "the refusal is shown", notebook)
    for text in (
        notebook.instructions.read_text(),
        notebook.run_command("ssh-status").stdout,
        notebook.log.read_text(),
    ):
        assert all(line.isprintable() for line in text.split("\n"))


def link_the_file(notebook: NotebookHost) -> None:
    notebook.authorized_keys.parent.mkdir()
    notebook.authorized_keys.symlink_to(notebook.own_keys)


def link_the_folder(notebook: NotebookHost) -> None:
    notebook.authorized_keys.parent.symlink_to(notebook.own_keys.parent)


def link_back(notebook: NotebookHost) -> None:
    notebook.authorized_keys.parent.mkdir()
    notebook.own_keys.rename(notebook.authorized_keys)
    notebook.own_keys.symlink_to(notebook.authorized_keys)


def copy_what_sshd_reads(notebook: NotebookHost) -> None:
    """The user saves the whole file, section and all, in the folder that survives a stop; with an editor's line ends."""
    section = f"# notebook-ssh: begin, managed by the agent\n# ana\n{make_public_key('ana')}# notebook-ssh: end"
    notebook.own_keys.write_bytes((notebook.own_keys.read_text() + section).replace("\n", "\r\n").encode())


def test_a_pipe_full_of_requests_is_one_request_to_root(notebook: NotebookHost, stack: Stack) -> None:
    """ec2-user can write to its worker's output, where a byte asks root to check sshd."""
    stack.reply = make_reply("bastion", sync_after=60)
    notebook.start()
    notebook.wait_connected()
    command = notebook.root / "usr/local/bin/ssh-status"
    (worker,) = [pid for pid, line in processes_of(notebook).items() if line.endswith("worker.py work ")]
    before = command.stat().st_ino
    pipe = os.open(f"/proc/{worker}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
    assert os.write(pipe, b"n" * 65_000) == 65_000
    wait_until(lambda: command.stat().st_ino != before, "root has set up again", notebook)
    left = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, left)
    os.close(pipe)
    assert left[0] == 0


def test_two_programs_write_the_keys_at_once(tmp_path: Path) -> None:
    """The worker and `copy-ssh-keys`: each must leave a complete file, and see no file of the other's vanish."""
    home, text = tmp_path / "home/ec2-user", make_public_key("mine")
    (home / "SageMaker/ssh").mkdir(parents=True)
    (home / "SageMaker/ssh/authorized_keys").write_text(text)
    (tmp_path / "run/notebook-ssh/worker").mkdir(parents=True)
    (tmp_path / "worker.py").write_text(WORKER)
    shutil.copy(PROGRAMS / "agent.py", tmp_path)
    script = tmp_path / "write.py"
    script.write_text(WORKER.replace("\nfrom worker.__main__ import main\n\nsys.exit(main(*sys.argv[1:]))", WRITE_KEYS))
    command = [sys.executable, "-I", str(script)]
    environment = {"NOTEBOOK_SSH_ROOT": str(tmp_path)}
    writers = [subprocess.Popen([*command, name], env=environment, stderr=subprocess.PIPE) for name in ("ana", "eve")]
    for writer in writers:
        assert writer.communicate(timeout=LIMIT_S)[1] == b""
        assert writer.returncode == 0
    lines = (home / ".ssh/authorized_keys").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("# notebook-ssh: begin, managed by the agent", "# notebook-ssh: end")
    assert [path.name for path in (home / ".ssh").iterdir()] == ["authorized_keys"]


WRITE_KEYS = f"""
from worker.keys import SECTION_END, sync_authorized_keys

for number in range(300):
    keys = ["ssh-ed25519 {FIXED} " + str(number)] * (number % 2)
    status, error = sync_authorized_keys([{{"user": sys.argv[1], "keys": keys}}])
    assert error is None
    assert open(os.environ["NOTEBOOK_SSH_ROOT"] + "/home/ec2-user/.ssh/authorized_keys").read().endswith(SECTION_END + "\\n")
"""


def test_what_root_installs_has_no_configuration_of_the_users(tmp_path: Path) -> None:
    """rpm runs commands that stand in ~/.rpmmacros: the supervisor's HOME is ec2-user's, for its children."""
    (tmp_path / "home/ec2-user").mkdir(parents=True)
    for folder in ("run/notebook-ssh", "opt/notebook-ssh", "var/log"):
        (tmp_path / folder).mkdir(parents=True)
    seen, manager, script = tmp_path / "seen", tmp_path / "dnf", tmp_path / "opt/notebook-ssh/install.py"
    manager.write_text(f'#!/bin/sh\necho "$HOME" >"{seen}~"\n/bin/mv "{seen}~" "{seen}"\n')
    manager.chmod(0o755)
    script.write_text(WORKER.replace("\nfrom worker.__main__ import main\n\nsys.exit(main(*sys.argv[1:]))", INSTALL))
    shutil.copy(PROGRAMS / "agent.py", script.parent)
    subprocess.run(
        [sys.executable, "-I", script, tmp_path], check=True, timeout=LIMIT_S,
        env={"NOTEBOOK_SSH_ROOT": str(tmp_path), "NOTEBOOK_SSH_INSTALL_SSHD": "yes", "HOME": "/home/ec2-user", "PATH": "/no"},
    )  # fmt: skip
    wait_until(seen.exists, "the package manager runs")
    assert seen.read_text() == "/root\n"


INSTALL = """
from worker import root, sshd_server

sshd_server.PROGRAM_DIRS = sys.argv[1]
root.root_setup()
sshd_server.installation(("sshd-missing", ""))
"""


@pytest.mark.parametrize("arrange", [link_the_file, link_the_folder, link_back, copy_what_sshd_reads])
def test_a_central_key_is_never_taken_for_the_users_own(
    notebook: NotebookHost, stack: Stack, arrange: Callable[[NotebookHost], None]
) -> None:
    """The agent's own section would be read back as the user's keys, and a revoked key would stay admitted."""
    mine, hers = make_public_key("by hand"), make_public_key("ana").strip()
    notebook.own_keys.write_text(mine)
    arrange(notebook)
    stack.reply = make_reply("bastion", sync_after=1, authorized_keys=[{"user": "ana", "keys": [hers]}])
    notebook.start()
    wait_until(lambda: notebook.authorized_keys.exists() and hers in notebook.authorized_keys.read_text(), "", notebook)
    count = len(stack.reports)
    wait_until(lambda: len(stack.reports) > count + 1, "the file is read again", notebook)
    assert {name: stack.last_report()["keys"][name] for name in ("own", "central")} == {"own": 1, "central": 1}
    stack.reply = make_reply("bastion", sync_after=1)
    wait_until(lambda: stack.last_report()["keys"]["central"] == 0, "revoked", notebook)
    assert notebook.authorized_keys.read_text().count(mine.split()[1]) == 1
    assert hers.split()[1] not in notebook.authorized_keys.read_text()
    assert stack.last_report()["keys"]["own"] == 1
    stack.reply = make_reply("off", sync_after=1)
    wait_until(lambda: "is off" in notebook.instructions.read_text(), "off", notebook)
    assert mine.split()[1] in notebook.own_keys.read_text()
    if arrange is not copy_what_sshd_reads:
        assert notebook.own_keys.read_text() == mine


def test_editors_directories_are_on_the_volume_unless_they_exist(notebook: NotebookHost, stack: Stack) -> None:
    (notebook.home / ".cursor-server").mkdir()
    stack.reply = make_reply("bastion")
    notebook.start()
    notebook.wait_connected()
    (notebook.home / ".vscode-server" / "bin").mkdir()
    (notebook.home / ".cache/JetBrains/RemoteDev").mkdir()
    assert not (notebook.home / ".cursor-server").is_symlink()
    notebook.stop()
    notebook.boot()
    assert not (notebook.home / ".vscode-server").exists()
    stack.reports.clear()
    notebook.start()
    notebook.wait_connected()
    wait_until((notebook.home / ".vscode-server" / "bin").is_dir, "it exists at the next start", notebook)
    assert (notebook.home / ".cache/JetBrains/RemoteDev").is_dir()
    assert (notebook.home / ".cursor-server").is_symlink(), "and so is the one that the user had in the first start"


def test_a_configuration_that_ngrok_refuses_is_reported(notebook: NotebookHost, stack: Stack) -> None:
    notebook.config.parent.mkdir()
    notebook.config.write_text("version: 3\nagent:\n  authtoken: x\n  colour: blue\n")
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start()
    problem = wait_until(lambda: stack.last_report().get("problem"), "a problem is reported", notebook)
    assert "field colour not found" in problem["message"]


def test_other_tunnels_of_the_user_run_too(notebook: NotebookHost, stack: Stack) -> None:
    notebook.config.parent.mkdir()
    notebook.config.write_text(
        "version: 3\nendpoints:\n  - name: web\n    url: https://a.example.com\n    upstream:\n      url: 8888\n"
    )
    stack.reply = make_reply("ngrok")
    notebook.start()
    notebook.wait_connected()
    wait_until(lambda: '"name": "web"' in notebook.ngrok_log.read_text(), "the other tunnel runs", notebook)


def test_a_problem_with_central_keys_is_reported_back_while_it_lasts(notebook: NotebookHost, stack: Stack) -> None:
    missing = {"code": "central-key-missing", "message": "There is no central key of ana."}
    stack.reply = make_reply("ngrok", problem=missing, sync_after=1)
    notebook.start()
    wait_until(lambda: stack.last_report().get("problem") == missing, "it is reported", notebook)
    stack.reply = make_reply("ngrok", problem={"code": "config-too-large", "message": "The script is too long."})
    wait_until(
        lambda: stack.last_report().get("problem") is None,
        "another problem of the stack is not reported back",
        notebook,
    )


def test_backup_files_of_an_editor_stay(notebook: NotebookHost, stack: Stack) -> None:
    copies = [notebook.home / f"{name}~" for name in FILES]
    for copy in copies:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("as it was\n")
    stack.reply = make_reply("ngrok")
    notebook.start()
    notebook.wait_connected()
    wait_until(lambda: all((notebook.home / name).is_file() for name in FILES), "the files are written", notebook)
    assert [copy.read_text() for copy in copies] == ["as it was\n"] * 3


@pytest.mark.parametrize("broken", ["a directory", "no folder"])
def test_an_unreadable_key_file_removes_no_key_and_keeps_no_revoked_one(
    notebook: NotebookHost, stack: Stack, broken: str
) -> None:
    mine, hers = make_public_key("mine"), make_public_key("ana").strip()
    notebook.own_keys.write_text(mine)
    stack.reply = make_reply("bastion", sync_after=1, authorized_keys=[{"user": "ana", "keys": [hers]}])
    notebook.start()
    wait_until(lambda: {mine.strip(), hers} <= set(admitted(notebook)), "both are admitted", notebook)
    notebook.own_keys.unlink()
    if broken == "a directory":
        notebook.own_keys.mkdir()
    else:
        notebook.own_keys.parent.rmdir()
        notebook.own_keys.parent.write_text("a file in the place of the folder\n")
    stack.reply = make_reply("bastion", sync_after=1)
    wait_until(lambda: hers not in admitted(notebook), "she is not admitted any more", notebook)
    assert mine.strip() in admitted(notebook)
    wait_until(lambda: "authorized_keys" in str(stack.last_report()["problem"]), "it is reported", notebook)


def admitted(notebook: NotebookHost) -> list[str]:
    return notebook.authorized_keys.read_text().splitlines() if notebook.authorized_keys.exists() else []


def test_a_line_with_many_quotes_is_rejected_quickly(notebook: NotebookHost, stack: Stack) -> None:
    """For example JSON that was pasted by mistake."""
    notebook.own_keys.write_text(
        '"' + '\\"' * 5000 + "\n" + 'command="' + '\\"' * 5000 + "\n" + make_public_key("mine")
    )
    stack.reply = make_reply("bastion")
    notebook.start()
    keys = notebook.wait_connected()["keys"]
    assert (keys["own"], [each["line"] for each in keys["rejected"]]) == (1, [1, 2])


def test_a_host_key_of_a_type_that_the_stack_refuses_is_not_reported(notebook: NotebookHost, stack: Stack) -> None:
    (notebook.root / "etc/ssh/ssh_host_dsa_key.pub").write_text("ssh-dss AAAAB3NzaC1kc3MAAACBAJ host\n")
    stack.reply = make_reply("bastion")
    notebook.start()
    assert notebook.wait_connected()["host_keys"] == [notebook.sshd.host_key]
