"""What helps at the command line: dry runs, the list of stacks, -v, help with examples, completion in real shells."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.laptop import CLIENT, REGION, notebook_json

pytestmark = pytest.mark.posix


@pytest.fixture
def configured(laptop: Any, api: Any) -> Any:
    for name in ("demo", "Other"):
        api.notebooks[name.lower()] = notebook_json(name)
    laptop.setup(api)
    return laptop


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dry_run_of_setup_shows_a_diff_and_changes_nothing(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = notebook_json("demo")
    before = files_of(laptop.folder)
    arguments = ["setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", REGION, "--api", api.url]
    result = laptop.run_client(*arguments, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert files_of(laptop.folder) == before
    assert not laptop.home.exists()
    lines = result.stdout.splitlines()
    assert lines[0] == f"--- {laptop.config}"
    assert f'+Include "{laptop.home}/hosts"' in lines
    assert "nothing was changed" in result.stderr
    assert "1 notebook" in result.stderr
    laptop.setup(api)
    again = laptop.run_client(*arguments, "--dry-run")
    assert (again.stdout, again.returncode) == ("", 0)


def test_dry_run_of_remove_shows_a_diff_and_changes_nothing(configured: Any) -> None:
    before = files_of(configured.folder)
    result = configured.run_client("setup", "--remove", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert f'-Include "{configured.home}/hosts"' in result.stdout.splitlines()
    assert files_of(configured.folder) == before


def test_stacks_lists_what_setup_configured(configured: Any, api: Any, other_api: Any) -> None:
    configured.environment["COLUMNS"] = "200"
    configured.setup(other_api, "second")
    heading, *rows = configured.run_client("stacks").stdout.splitlines()
    assert heading.split() == ["STACK", "REGION", "PROFILE", "NOTEBOOKS", "API"]
    assert [row.split() for row in rows] == [
        ["team", REGION, "-", "2", api.url],
        ["second", REGION, "-", "0", other_api.url],
    ]
    assert [stack["label"] for stack in json.loads(configured.run_client("stacks", "--json").stdout)] == [
        "team",
        "second",
    ]


@pytest.mark.parametrize("arguments", [["-v", "address", "demo"], ["address", "-v", "demo"]])
def test_verbose_shows_each_request_and_no_secret(configured: Any, arguments: list[str]) -> None:
    result = configured.run_client(*arguments)
    assert "notebook-ssh: GET http://127.0.0.1" in result.stderr
    assert "/notebooks/demo: 200 in " in result.stderr
    assert "credentials: env" in result.stderr
    assert "secret-example" not in result.stderr
    assert "token-example" not in result.stderr
    assert "GET" not in configured.run_client("address", "demo").stderr


def test_help_has_examples_and_names_the_documentation(laptop: Any) -> None:
    text = laptop.run_client("--help").stdout
    for words in ("examples:", "notebook-ssh setup --profile", "ssh my-notebook", "notebook-ssh help"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80


def test_documentation_by_topic(laptop: Any) -> None:
    headings = re.findall(
        r"^#{1,3} (.+)$", outside_blocks((CLIENT.parent / "docs/connect.md").read_text("utf-8")), re.M
    )
    listed = laptop.run_client("help").stdout.splitlines()[1:]
    assert [line.strip() for line in listed] == [heading for heading in headings if heading != "Recipes"]
    result = laptop.run_client("help", "vs", "CODE")
    assert result.stdout.startswith("VS Code, Cursor and other forks\n\nInstall the Remote-SSH extension")
    assert "### " not in result.stdout
    assert "](#" not in laptop.run_client("help", "pycharm").stdout
    unknown = laptop.run_client("help", "emacs")
    assert (unknown.returncode, "no topic has 'emacs' in its name" in unknown.stderr) == (2, True)


def outside_blocks(page: str) -> str:
    return "".join(page.split("```")[::2])


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_ssh_has_help(laptop: Any, option: str) -> None:
    result = laptop.run_client("ssh", option)
    assert (result.returncode, result.stdout.startswith("usage: notebook-ssh ssh NAME")) == (0, True)


COMPLETIONS = [
    ("do", {"doctor"}),
    ("doctor d", {"demo"}),
    ("doctor ", {"demo", "Other"}),
    ("doctor --j", {"--json"}),
    ("setup --st", {"--stack"}),
    ("ssh de", {"demo"}),
]
AT_NIGHT = pytest.mark.nightly(sibling="test_completion_in_a_real_shell")


@pytest.mark.parametrize(
    ("shell", "typed", "expected"),
    [
        *(("bash", *each) for each in COMPLETIONS),
        # Either shell only hands what was typed to the same program.
        *(
            pytest.param("zsh", *each, marks=[] if number in (0, 2) else AT_NIGHT)
            for number, each in enumerate(COMPLETIONS)
        ),
    ],
)
def test_completion_in_a_real_shell(configured: Any, shell: str, typed: str, expected: set[str]) -> None:
    assert shutil.which(shell), f"{shell} is not here"
    program = configured.folder.parent / "bin" / "notebook-ssh"
    program.write_text(f'#!/bin/sh\nexec "{configured.python}" -I -m notebook_ssh_client "$@"\n')
    program.chmod(0o755)
    words = ["notebook-ssh", *typed.split(" ")]
    if shell == "bash":
        array = " ".join(f"'{word}'" for word in words)
        script = f'eval "$(notebook-ssh completion bash)"; COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; ' + (
            '_notebook_ssh; printf "%s\\n" "${COMPREPLY[@]}"'
        )
    else:
        array = " ".join(f"'{word}'" for word in words)
        script = "compdef() { :; }; compadd() { shift; print -l -- $@; }; " + (
            f'eval "$(notebook-ssh completion zsh)"; words=({array}); CURRENT={len(words)}; _notebook_ssh'
        )
    result = configured.run(shell, *(["-f"] if shell == "zsh" else ["--norc"]), "-c", script)
    assert set(result.stdout.split()) == expected, result.stderr


def test_completion_needs_no_setup_and_prints_no_error(laptop: Any) -> None:
    result = laptop.run_client("complete", "doctor", "")
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)
    assert "complete -c notebook-ssh" in laptop.run_client("completion", "fish").stdout
