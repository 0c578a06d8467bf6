"""Whatever a person finds or puts in the home directory: the agent goes on, says so, and touches nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent_world import Notebook, Stack, a_key, an_answer, until


@pytest.mark.parametrize(
    "place", [".ssh/authorized_keys", "SageMaker/ssh/authorized_keys", "SageMaker/SSH_INSTRUCTIONS"]
)
def test_a_directory_in_the_place_of_a_file(notebook: Notebook, stack: Stack, place: str) -> None:
    (notebook.home / place).mkdir(parents=True)
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    notebook.connected()
    told = until(lambda: stack.last()["problem"], "a problem is told", notebook)
    assert place in told["message"]
    (notebook.home / place).rmdir()
    until(lambda: stack.last()["problem"] is None, "the problem goes with its cause", notebook)
    until(notebook.authorized.is_file, "the keys are in place", notebook)


def test_a_pipe_or_an_endless_file_in_the_place_of_the_keys(notebook: Notebook, stack: Stack) -> None:
    os.mkfifo(notebook.own_keys)
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    notebook.connected()
    notebook.own_keys.unlink()
    notebook.own_keys.symlink_to("/dev/zero")
    count = len(stack.reports)
    until(lambda: len(stack.reports) > count + 3, "it goes on", notebook)


def test_a_link_in_the_place_of_the_instructions_is_not_followed(
    notebook: Notebook, stack: Stack, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("untouched")
    notebook.instructions.symlink_to(target)
    stack.answers = an_answer("ngrok")
    notebook.start()
    notebook.connected()
    until(lambda: not notebook.instructions.is_symlink(), "the file stands in the link's place", notebook)
    assert target.read_text() == "untouched"


def test_lines_that_are_no_keys_are_told_by_number_and_not_copied(notebook: Notebook, stack: Stack) -> None:
    good = a_key("mine")
    notebook.own_keys.write_text(f"# people\n{good}oops, not a key\n-----BEGIN OPENSSH PRIVATE KEY-----\n")
    stack.answers = an_answer("ngrok", authorized_keys=[{"user": "ana", "keys": [a_key("ana").strip()]}])
    notebook.start()
    keys = notebook.connected()["keys"]
    assert (keys["own"], keys["central"]) == (1, 1)
    assert [each["line"] for each in keys["rejected"]] == [3, 4]
    admitted = notebook.authorized.read_text()
    assert good in admitted
    assert "oops" not in admitted + "".join(each["reason"] for each in keys["rejected"])
    assert notebook.authorized.stat().st_mode & 0o777 == 0o600
    assert "Line 4 of that file was left out" in notebook.instructions.read_text()


def test_a_revoked_key_goes_with_the_next_sync(notebook: Notebook, stack: Stack) -> None:
    mine, hers = a_key("by hand"), a_key("ana").strip()
    notebook.authorized.parent.mkdir()
    notebook.authorized.write_text(mine.rstrip("\n"))
    stack.answers = an_answer("ngrok", sync_after=1, authorized_keys=[{"user": "ana", "keys": [hers]}])
    notebook.start()
    until(lambda: hers in notebook.authorized.read_text(), "admitted", notebook)
    stack.answers = an_answer("ngrok", sync_after=1)
    until(lambda: hers not in notebook.authorized.read_text(), "revoked", notebook)
    assert mine in notebook.authorized.read_text()


def test_editors_servers_live_on_the_volume_unless_they_are_there_already(notebook: Notebook, stack: Stack) -> None:
    (notebook.home / ".cursor-server").mkdir()
    stack.answers = an_answer("ngrok")
    notebook.start()
    notebook.connected()
    (notebook.home / ".vscode-server" / "bin").mkdir()
    assert (notebook.volume / ".notebook-ssh/editors/.vscode-server/bin").is_dir()
    assert not (notebook.home / ".cursor-server").is_symlink()


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
