"""Whatever a person finds or puts in the home directory: the agent goes on, says so, and touches nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent_world import Notebook, Stack, a_key, an_answer, until


def test_directories_in_the_place_of_files(notebook: Notebook, stack: Stack) -> None:
    places = "SageMaker/SSH_INSTRUCTIONS", ".ssh/authorized_keys", "SageMaker/ssh/authorized_keys"
    for place in places:
        (notebook.home / place).mkdir(parents=True)
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    notebook.connected()
    for place in places:
        until(lambda place=place: place in str(stack.last()["problem"]), f"{place} is told", notebook)  # type: ignore[misc]
        copied = notebook.run("copy-ssh-keys")
        assert copied.stderr == ""
        assert copied.returncode == 1
        assert "authorized_keys: Is a directory" in copied.stdout
        (notebook.home / place).rmdir()
    until(lambda: stack.last()["problem"] is None, "the problem goes with its cause", notebook)
    until(notebook.authorized.is_file, "the keys are in place", notebook)


FILES = [".ssh/authorized_keys", "SageMaker/SSH_INSTRUCTIONS", "SageMaker/.ngrok/config.yml"]
"""What is written below the home directory whenever it changes."""


def in_the_way(notebook: Notebook) -> list[Path]:
    """The places of what is written: the files, what they are before they are whole, and what is being downloaded."""
    names = [name + end for name in FILES for end in ("", ".~")] + [
        f"SageMaker/.ngrok/ngrok.{end}" for end in ("tgz", "new")
    ]
    places = [notebook.home / name for name in names]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    return places


def test_pipes_in_the_place_of_files_are_not_waited_for(notebook: Notebook, stack: Stack) -> None:
    for place in [*in_the_way(notebook), notebook.own_keys]:
        os.mkfifo(place)
    stack.answers = an_answer("ngrok")
    notebook.start()
    notebook.connected()
    until(lambda: all((notebook.home / name).is_file() for name in FILES), "files stand in their place", notebook)
    notebook.own_keys.unlink()
    notebook.own_keys.symlink_to("/dev/zero")
    copied = notebook.run("copy-ssh-keys")
    assert copied.stdout.splitlines()[0] == "Copying 0 SSH keys...", "an endless file is read to a limit"


def test_hard_links_in_the_place_of_files_are_not_written_through(notebook: Notebook, stack: Stack) -> None:
    precious = notebook.root / "precious"
    precious.write_text("# untouched\n")
    for place in in_the_way(notebook):
        place.hardlink_to(precious)
    stack.answers = an_answer("ngrok")
    notebook.start()
    notebook.connected()
    until(lambda: not notebook.instructions.samefile(precious), "a file of its own", notebook)
    assert precious.read_text() == "# untouched\n"
    assert not any((notebook.home / name).samefile(precious) for name in FILES)


@pytest.mark.parametrize("name", [".ssh/authorized_keys", "SageMaker/.ngrok/config.yml"])
def test_a_file_too_large_to_be_read_whole_is_told_and_not_written(notebook: Notebook, stack: Stack, name: str) -> None:
    """Reading has a limit; what lies beyond it must not be lost in writing."""
    large = notebook.home / name
    large.parent.mkdir(parents=True)
    large.write_text("# mine\n" * 150_000)
    stack.answers = an_answer("ngrok")
    notebook.start()
    told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
    assert f"{name}: larger than 1 MB" in told["message"]
    assert large.read_text() == "# mine\n" * 150_000


def test_a_link_in_the_place_of_the_instructions_is_not_followed(
    notebook: Notebook, stack: Stack, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("untouched")
    notebook.instructions.symlink_to(target)
    stack.answers = an_answer("bastion")
    notebook.start()
    notebook.connected()
    until(lambda: not notebook.instructions.is_symlink(), "the file stands in the link's place", notebook)
    assert target.read_text() == "untouched"


def test_lines_that_are_no_keys_are_told_by_number_and_not_copied(notebook: Notebook, stack: Stack) -> None:
    good, secret = a_key("mine"), "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU"
    notebook.own_keys.write_text(f"# people\n{good}oops, not a key\n-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n")
    stack.answers = an_answer("bastion", authorized_keys=[{"user": "ana", "keys": [a_key("ana").strip()]}])
    notebook.start()
    keys = notebook.connected()["keys"]
    assert (keys["own"], keys["central"]) == (1, 1)
    assert [each["line"] for each in keys["rejected"]] == [3, 4, 5]
    admitted = notebook.authorized.read_text()
    assert good in admitted
    assert "oops" not in admitted + "".join(each["reason"] for each in keys["rejected"])
    assert notebook.authorized.stat().st_mode & 0o777 == 0o600
    assert "Line 4 of that file was left out" in notebook.instructions.read_text()
    assert secret not in admitted + notebook.told() + notebook.instructions.read_text()
    assert not any(secret.encode() in report for report in stack.raw)


def test_a_revoked_key_goes_with_the_next_sync(notebook: Notebook, stack: Stack) -> None:
    mine, hers = a_key("by hand"), a_key("ana").strip()
    notebook.authorized.parent.mkdir()
    notebook.authorized.write_text(mine.rstrip("\n"))
    stack.answers = an_answer("bastion", sync_after=1, authorized_keys=[{"user": "ana", "keys": [hers]}])
    notebook.start()
    until(lambda: hers in notebook.authorized.read_text(), "admitted", notebook)
    stack.answers = an_answer("bastion", sync_after=1)
    until(lambda: hers not in notebook.authorized.read_text(), "revoked", notebook)
    assert mine in notebook.authorized.read_text()


def test_editors_servers_live_on_the_volume_unless_they_are_there_already(notebook: Notebook, stack: Stack) -> None:
    (notebook.home / ".cursor-server").mkdir()
    stack.answers = an_answer("bastion")
    notebook.start()
    notebook.connected()
    (notebook.home / ".vscode-server" / "bin").mkdir()
    (notebook.home / ".cache/JetBrains/RemoteDev").mkdir()
    assert not (notebook.home / ".cursor-server").is_symlink()
    notebook.stop()
    notebook.boot()
    assert not (notebook.home / ".vscode-server").exists()
    stack.reports.clear()
    notebook.start()
    notebook.connected()
    assert (notebook.home / ".vscode-server" / "bin").is_dir(), "it is there at the next start"
    assert (notebook.home / ".cache/JetBrains/RemoteDev").is_dir()
    assert (notebook.home / ".cursor-server").is_symlink(), "and so is what was the person's for one start"


def test_a_configuration_that_ngrok_refuses_is_told(notebook: Notebook, stack: Stack) -> None:
    notebook.config.parent.mkdir()
    notebook.config.write_text("version: 3\nagent:\n  authtoken: x\n  colour: blue\n")
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    told = until(lambda: stack.last().get("problem"), "a problem is told", notebook)
    assert "field colour not found" in told["message"]


def test_other_tunnels_of_the_person_run_too(notebook: Notebook, stack: Stack) -> None:
    notebook.config.parent.mkdir()
    notebook.config.write_text(
        "version: 3\nendpoints:\n  - name: web\n    url: https://a.example.com\n    upstream:\n      url: 8888\n"
    )
    stack.answers = an_answer("ngrok")
    notebook.start()
    notebook.connected()
    until(lambda: '"name": "web"' in notebook.ngrok_log.read_text(), "the other one runs", notebook)


def test_what_the_stack_says_of_central_keys_is_told_back_as_long_as_it_says_so(
    notebook: Notebook, stack: Stack
) -> None:
    missing = {"code": "central-key-missing", "message": "There is no central key of ana."}
    stack.answers = an_answer("ngrok", problem=missing, sync_after=1)
    notebook.start()
    until(lambda: stack.last().get("problem") == missing, "it is told", notebook)
    stack.answers = an_answer("ngrok", problem={"code": "config-too-large", "message": "The script is too long."})
    until(lambda: stack.last().get("problem") is None, "another problem of the stack's is its own", notebook)


def test_copies_that_an_editor_keeps_beside_a_file_stay(notebook: Notebook, stack: Stack) -> None:
    copies = [notebook.home / f"{name}~" for name in FILES]
    for copy in copies:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("as it was\n")
    stack.answers = an_answer("ngrok")
    notebook.start()
    notebook.connected()
    until(lambda: all((notebook.home / name).is_file() for name in FILES), "the files are written", notebook)
    assert [copy.read_text() for copy in copies] == ["as it was\n"] * 3


@pytest.mark.parametrize("broken", ["a directory", "no folder"])
def test_a_file_of_keys_that_cannot_be_read_takes_no_key_away_and_keeps_no_revoked_one(
    notebook: Notebook, stack: Stack, broken: str
) -> None:
    mine, hers = a_key("mine"), a_key("ana").strip()
    notebook.own_keys.write_text(mine)
    stack.answers = an_answer("bastion", sync_after=1, authorized_keys=[{"user": "ana", "keys": [hers]}])
    notebook.start()
    until(lambda: {mine.strip(), hers} <= set(admitted(notebook)), "both are admitted", notebook)
    notebook.own_keys.unlink()
    if broken == "a directory":
        notebook.own_keys.mkdir()
    else:
        notebook.own_keys.parent.rmdir()
        notebook.own_keys.parent.write_text("a file in the place of the folder\n")
    stack.answers = an_answer("bastion", sync_after=1)
    until(lambda: hers not in admitted(notebook), "she is admitted no more", notebook)
    assert mine.strip() in admitted(notebook)
    until(lambda: "authorized_keys" in str(stack.last()["problem"]), "it is told", notebook)


def admitted(notebook: Notebook) -> list[str]:
    return notebook.authorized.read_text().splitlines() if notebook.authorized.exists() else []


def test_a_line_of_many_quotes_is_no_key_and_takes_no_time(notebook: Notebook, stack: Stack) -> None:
    """JSON that was pasted by mistake."""
    notebook.own_keys.write_text('"' + '\\"' * 5000 + "\n" + 'command="' + '\\"' * 5000 + "\n" + a_key("mine"))
    stack.answers = an_answer("bastion")
    notebook.start()
    keys = notebook.connected()["keys"]
    assert (keys["own"], [each["line"] for each in keys["rejected"]]) == (1, [1, 2])


def test_a_host_key_of_a_type_that_the_stack_does_not_take_is_not_reported(notebook: Notebook, stack: Stack) -> None:
    (notebook.root / "etc/ssh/ssh_host_dsa_key.pub").write_text("ssh-dss AAAAB3NzaC1kc3MAAACBAJ host\n")
    stack.answers = an_answer("bastion")
    notebook.start()
    assert notebook.connected()["host_keys"] == [notebook.sshd.host_key]
