"""`notebook-ssh who` and `revoke`: what an auditor sees at 80 columns, and what an admin writes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from notebook_ssh_client import access
from notebook_ssh_client.errors import CliError

pytestmark = pytest.mark.posix
MARIO = "arn:aws:sts::123456789012:assumed-role/data-science/mario AROAEXAMPLE:mario"


def entry(**parts: Any) -> dict[str, Any]:
    return {
        "notebook": "Demo",
        "kind": "session",
        "witness": "notebook",
        "id": "boot_1",
        "who": MARIO,
        "from": "10.0.0.7",
        "path": "network",
        "begin": "2026-07-01T08:00:00Z",
        "end": "2026-07-01T09:30:00Z",
        **parts,
    }


def answer(*entries: Any, **parts: Any) -> tuple[int, Any]:
    return 200, {"entries": list(entries), "not_kept": 0, "not_shown": 0, **parts}


CERTIFICATE = entry(kind="certificate", witness="stack", id="4711", path=None, begin="2026-07-01T07:59:00Z")


def test_who_fits_80_columns_and_names_the_witness(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    laptop.environment["COLUMNS"] = "80"
    ana = entry(id="2", who="ana SHA256:" + 43 * "k", end=None)
    api.queued_responses = [answer(ana, entry(), CERTIFICATE)]
    shown = laptop.run_client("who", "demo").stdout
    assert api.requests[-1][:2] == ("GET", "/notebooks/demo/access")
    assert [re.split(r"  +", line) for line in shown.splitlines()] == [
        ["BEGIN", "END", "WHO", "FROM", "WHAT", "SAYS"],
        ["2026-07-01 08:00Z", "open", "ana SHA256:kkkkkkkk", "10.0.0.7", "session", "notebook"],
        ["2026-07-01 08:00Z", "09:30Z", "data-science/mario", "10.0.0.7", "session", "notebook"],
        ["2026-07-01 07:59Z", "09:30Z", "data-science/mario", "10.0.0.7", "certificate", "stack"],
    ]
    assert max(map(len, shown.splitlines())) <= 80


def test_an_end_on_another_day_has_its_date() -> None:
    _, row = access.rows([entry(end="2026-07-02T01:30:00Z")], of_one=True)
    assert row[:2] == ["2026-07-01 08:00Z", "2026-07-02 01:30Z"]


def test_who_of_all_notebooks_names_them(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    laptop.environment["COLUMNS"] = "100"
    api.queued_responses = [answer(entry(), CERTIFICATE)]
    heading, *lines = laptop.run_client("who").stdout.splitlines()
    assert "NOTEBOOK" in heading
    assert all(" Demo " in line for line in lines)


def test_who_prints_everything_as_json(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    api.queued_responses = [answer(entry(), CERTIFICATE)]
    listed = json.loads(laptop.run_client("who", "--json").stdout)
    assert api.requests[-1][:2] == ("GET", "/access")
    assert listed == [{"stack": "team", **entry()}, {"stack": "team", **CERTIFICATE}]


def test_since_leaves_out_what_was_over(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    api.queued_responses = [answer(entry(id="on", end=None), entry(id="over"), CERTIFICATE, not_kept=7)]
    done = laptop.run_client("who", "--since", "2026-07-01T12:00Z", "--json")
    assert [each["id"] for each in json.loads(done.stdout)] == ["on"]
    assert "7 more entries" in done.stderr


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", "2026-07-01T10:00:00Z"),
        ("90m", "2026-07-01T10:30:00Z"),
        ("1w", "2026-06-24T12:00:00Z"),
        ("2026-06-01", "2026-06-01T00:00:00Z"),
        ("2026-06-01T08:00Z", "2026-06-01T08:00:00Z"),
        ("2026-06-01T08:00+02:00", "2026-06-01T06:00:00Z"),
    ],
)
def test_a_time_is_an_age_or_a_date(text: str, at: str) -> None:
    assert access.parse_since(text, 1782907200) == at


@pytest.mark.parametrize("text", ["", "2", "h", "yesterday", "-1h", "2026-13-01"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(CliError, match="give an age"):
        access.parse_since(text, 1782907200)


def test_who_may_not_is_told_by_which_parameters(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    api.queued_responses = [(403, {"message": "User is not authorized: explicit deny"})]
    done = laptop.run_client("who")
    assert done.returncode == 3
    assert "AuditPrincipals" in done.stderr


def test_what_a_notebook_reports_reaches_no_terminal_as_a_command(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    api.queued_responses = [answer(entry(who="\x1b]0;x\x07\u202e", notebook="a\nb")), answer(entry(who=7, more=[]))]
    assert "\x1b" not in laptop.run_client("who", "--json").stdout
    assert "\x1b" not in laptop.run_client("who").stdout


class ParameterStore:
    """Systems Manager: PutParameter and DeleteParameter, as the client calls them."""

    def __init__(self) -> None:
        self.parameters: dict[str, str] = {}
        self.denies = False


@pytest.fixture
def store(laptop: Any) -> Iterator[ParameterStore]:
    store = ParameterStore()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            action, status, body = self.headers["X-Amz-Target"].split(".")[1], 200, {}
            if store.denies:
                status, body = 400, {"__type": "AccessDeniedException", "Message": "not you"}
            elif action == "PutParameter":
                store.parameters[given["Name"]] = given["Value"]
            elif store.parameters.pop(given["Name"], None) is None:
                status, body = 400, {"__type": "ParameterNotFound", "message": ""}
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        laptop.environment["AWS_ENDPOINT_URL_SSM"] = f"http://127.0.0.1:{server.server_address[1]}"
        yield store
        server.shutdown()


SERIAL, ROLE, KEY = "4711", "arn:aws:iam::123456789012:role/teams/data-science", "SHA256:" + 43 * "k"


def test_revoke_writes_one_parameter_and_undo_removes_it(laptop: Any, api: Any, store: ParameterStore) -> None:
    laptop.setup(api)
    for what in (SERIAL, ROLE, KEY, SERIAL):
        assert "is withdrawn" in laptop.run_client("revoke", what).stderr
    assert sorted(store.parameters.values()) == sorted((SERIAL, ROLE, KEY))
    for name in store.parameters:
        folder, _, last = name.rpartition("/")
        assert folder == "/notebook-ssh/team/authorized-keys/revoked"
        assert last.isalnum()
    laptop.run_client("revoke", "--undo", ROLE)
    assert sorted(store.parameters.values()) == sorted((SERIAL, KEY))
    done = laptop.run_client("revoke", "--undo", ROLE)
    assert (done.returncode, "is not withdrawn" in done.stderr) == (2, True)


@pytest.mark.parametrize("what", ["", "mario", "-1", "arn:aws:s3:::bucket", "SHA256:short", "1" * 21, "4711\n4712"])
def test_revoke_takes_nothing_else(laptop: Any, api: Any, store: ParameterStore, what: str) -> None:
    laptop.setup(api)
    done = laptop.run_client("revoke", "--", what)
    assert done.returncode == 2
    assert store.parameters == {}


def test_revoke_names_the_missing_right(laptop: Any, api: Any, store: ParameterStore) -> None:
    laptop.setup(api)
    store.denies = True
    done = laptop.run_client("revoke", SERIAL)
    assert done.returncode == 3
    assert "ssm:PutParameter on parameter/notebook-ssh/team/authorized-keys/revoked/*" in done.stderr


def test_revoke_asks_which_stack(laptop: Any, api: Any, other_api: Any, store: ParameterStore) -> None:
    laptop.setup(api, "one")
    laptop.setup(other_api, "two")
    assert "--stack; there are: one, two" in laptop.run_client("revoke", SERIAL).stderr
    laptop.run_client("revoke", SERIAL, "--stack", "two")
    assert list(store.parameters) == [access.parameter_name("two", SERIAL)]
