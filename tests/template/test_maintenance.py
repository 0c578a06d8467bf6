"""What watches over changes does so: hooks and workflows run the project's own commands, and each check can fail."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.stack import PROJECT

TOOLS = PROJECT / ".venv" / "dev" / "bin"
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))

ACTIONS = {"actions/checkout", "actions/setup-python"}
"""The only code of others that the workflows run."""

MISTAKES = {
    "spaces at the end": (b"a = 1 \n", "x.py", "trailing whitespace"),
    "no end of line at the end": (b"a = 1", "x.py", "missing final newline"),
    "lines as Windows ends them": (b"a = 1\r\n", "x.py", "wrong line ending"),
    "another encoding": (b"a = '\xe9'\n", "x.py", "unable to decode file as utf-8"),
    "a byte order mark": (b"\xef\xbb\xbfa = 1\n", "x.py", "utf-8-bom"),
    "a tab": (b"a:\n\tb: 1\n", "x.yaml", "wrong indent style"),
    "no tab": (b"a:\n    b\n", "Makefile", "wrong indent style"),
}


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_every_check_that_a_hook_names_is_one_of_lint() -> None:
    said = subprocess.run(
        [PROJECT / "packaging/lint.sh", "no-such-check"], capture_output=True, text=True, check=False
    ).stderr
    checks = set(said.partition("there are ")[2].split())
    assert {"style", "types", "template"} < checks
    (local,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert local["repo"] == "local", "a hook of others would choose its own version of a tool"
    for hook in local["hooks"]:
        command, *names = hook["entry"].split()
        assert command == "packaging/lint.sh"
        assert names
        assert set(names) <= checks


def test_help_lists_every_target_at_80_columns() -> None:
    listed = subprocess.run(["make", "-C", PROJECT, "help"], capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = set(re.findall(r"^ {2}make ([a-z-]+)", listed, re.MULTILINE))
    assert set(targets) - named == {"test-nightly"}, "the first part of nightly"
    assert [line for line in listed.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_against_editorconfig_is_found(tmp_path: Path, mistake: str) -> None:
    content, name, says = MISTAKES[mistake]
    (tmp_path / ".editorconfig").write_bytes((PROJECT / ".editorconfig").read_bytes())
    (tmp_path / name).write_bytes(content)
    done = subprocess.run([TOOLS / "edcfg-lint", name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_commands_of_this_project(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for command in (step["run"] for step in steps(workflow) if "run" in step):
        program, *words = re.sub(r'^sudo (env "PATH=\$PATH" )?', "", command).split()
        if program == "python":
            program, *words = words
        if program == "make":
            assert set(words) <= targets, command
        else:
            assert (PROJECT / program).is_file(), command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_actions_of_others_are_two_each_by_its_commit(workflow: Path) -> None:
    for used in (step["uses"] for step in steps(workflow) if "uses" in step):
        action, _, commit = used.partition("@")
        assert action in ACTIONS
        assert re.fullmatch(r"[0-9a-f]{40}", commit), used


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_ends_by_itself_and_may_only_read(workflow: Path) -> None:
    read = yaml.safe_load(workflow.read_text("utf-8"))
    assert read["permissions"] == {"contents": "read"}
    assert read["concurrency"]
    for name, job in read["jobs"].items():
        assert job["timeout-minutes"], name
        assert "permissions" not in job, name


def test_a_mistake_in_a_workflow_is_found(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (PROJECT / ".github/workflows/checks.yml").read_text("utf-8")
    for wrong, tool, says in [
        (text.replace("runs-on: ubuntu-latest", "runs-on: ubuntu-newest", 1), ["actionlint"], "ubuntu-newest"),
        (text.replace("persist-credentials: false", "fetch-depth: 1", 1), ["zizmor", "--offline", "."], "artipacked"),
        (re.sub("@[0-9a-f]{40}", "@v7", text, count=1), ["zizmor", "--offline", "."], "unpinned-uses"),
    ]:
        (folder / "checks.yml").write_text(wrong, encoding="utf-8")
        command = [str(TOOLS / tool[0]), *tool[1:], *([".github/workflows/checks.yml"] if len(tool) == 1 else [])]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert says in done.stdout + done.stderr
