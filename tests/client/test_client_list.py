"""`notebook-ssh list` and `doctor`: what a user sees at 80 columns, in colour or not, and what a program gets."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from typing import Any

import pytest
from support.laptop import notebook_json, wait_until
from support.terminals import run_on_terminal

pytestmark = pytest.mark.posix
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def iso(seconds_ago: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds_ago))


@pytest.fixture
def fleet(laptop: Any, api: Any, other_api: Any) -> Any:
    """Two stacks: a name that both have, one that the user's configuration has, and notebooks that are not reachable."""
    laptop.config.write_text(f"Host mine\n{laptop.config.read_text()}")
    reachable: dict[str, Any] = {"host": "127.0.0.1", "port": 9, "host_keys": ["ssh-ed25519 AAAA"]}
    for name in ("demo", "mine"):
        api.notebooks[name] = notebook_json(name, since=iso(190), **reachable)
    for status in ("off", "expired", "stopped"):
        api.notebooks[status] = notebook_json(status, status, since=iso(7300), **reachable)
    other_api.notebooks["demo"] = notebook_json("demo", "starting", since=iso(30))
    laptop.setup(api, "one")
    laptop.setup(other_api, "two")
    return laptop


def rows(text: str) -> dict[tuple[str, str], list[str]]:
    """Return the cells of each notebook, by name and stack."""
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()[1:]]
    return {(line[0], line[-1]): line for line in lines}


def test_list_shows_the_name_that_reaches_each_notebook(fleet: Any) -> None:
    fleet.environment["COLUMNS"] = "200"
    text = fleet.run_client("list").stdout
    assert re.split(r"  +", text.splitlines()[0]) == [
        *("NAME", "MODES", "STATUS", "ADDRESS", "SINCE", "SSH", "LAST USED", "STACK")
    ]
    assert {key: cells[5] for key, cells in rows(text).items()} == {
        ("demo", "one"): "ssh demo",
        ("mine", "one"): "ssh mine.notebook",
        ("off", "one"): "ssh off",
        ("expired", "one"): "ssh expired",
        ("stopped", "one"): "ssh stopped",
        ("demo", "two"): "ssh demo.two.notebook",
    }


def test_list_shows_addresses_only_while_they_are_worth_trying(fleet: Any) -> None:
    fleet.environment["COLUMNS"] = "200"
    addresses = {key: cells[3] for key, cells in rows(fleet.run_client("list").stdout).items()}
    assert addresses["demo", "one"] == "127.0.0.1:9"
    assert {addresses[name, "one"] for name in ("off", "expired", "stopped")} == {"-"}
    listed = json.loads(fleet.run_client("list", "--json").stdout)
    assert {row["status"] for row in listed if row["address"]} == {"connected"}
    assert {row["ssh"] for row in listed} >= {"demo", "mine.notebook", "demo.two.notebook"}


def test_list_shows_ages_next_to_times(fleet: Any) -> None:
    fleet.environment["COLUMNS"] = "200"
    since = {key: cells[4] for key, cells in rows(fleet.run_client("list").stdout).items()}
    # They grow while `setup` runs, on a busy machine by a minute.
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\dZ \([34] min ago\)", since["demo", "one"])
    assert since["off", "one"].endswith("(2 h ago)")
    assert re.search(r"\(([3-5]\d s|1 min) ago\)", since["demo", "two"])


def test_list_shows_when_a_notebook_was_last_used(fleet: Any, api: Any) -> None:
    fleet.environment["COLUMNS"] = "200"
    api.notebooks["demo"]["last_used"] = iso(7300)
    used = {key: cells[6] for key, cells in rows(fleet.run_client("list").stdout).items()}
    assert used["demo", "one"].endswith("(2 h ago)")
    assert used["off", "one"] == "-"


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(fleet: Any, columns: int) -> None:
    client = [fleet.python, "-I", "-m", "notebook_ssh_client"]
    for arguments in (["list"], ["doctor", "demo"]):
        _, shown = run_on_terminal([*client, *arguments], fleet.environment, columns=columns)
        lines = ESCAPE.sub("", shown).splitlines()
        assert max(map(len, lines)) <= columns, shown
        assert "demo" in shown


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colour_is_for_terminals_that_want_it(fleet: Any, variables: dict[str, str], coloured: bool) -> None:
    client = [fleet.python, "-I", "-m", "notebook_ssh_client", "list"]
    _, shown = run_on_terminal(client, {**fleet.environment, **variables})
    assert bool(ESCAPE.search(shown)) is coloured
    assert not ESCAPE.search(fleet.run_client("list").stdout)
    assert "connected" in shown


def test_watch_lists_again_until_interrupted(fleet: Any, api: Any) -> None:
    client = [fleet.python, "-I", "-m", "notebook_ssh_client", "list", "--watch", "0.1"]
    process = subprocess.Popen(client, env=fleet.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        wait_until(lambda: api.request_count("/notebooks") > 4 or process.poll() is not None)
        api.notebooks["demo"]["status"] = "reconnecting"
        assert any("reconnecting" in line for line in process.stdout)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130


def test_doctor_shows_ages_and_remedies(fleet: Any, api: Any) -> None:
    api.doctor = {
        "name": "demo",
        "status": "error",
        "since": iso(190),
        "message": "x",
        "next_step": "Set the token.",
        "checks": [
            {"check": "tag", "result": "ok", "since": iso(7300), "reason": "ssh=ngrok", "remedy": ""},
            {"check": "tunnel", "result": "failed", "since": None, "reason": "no token", "remedy": "Set it."},
        ],
    }
    text = fleet.run_client("doctor", "demo").stdout
    assert re.match(r"demo: error since \S+ \S+ \(3 min ago\)\n", text)
    assert re.search(
        r"^  ok +tag +ssh=ngrok \(since \S+ \S+, 2 h ago\)\n  failed +tunnel +no token\n +→ Set it\.\n", text, re.M
    )
    assert "Next: Set the token.\n" in text
    checks = json.loads(fleet.run_client("doctor", "--json", "demo").stdout)["checks"]
    assert [check["check"] for check in checks] == ["tag", "tunnel", "from-here"]
