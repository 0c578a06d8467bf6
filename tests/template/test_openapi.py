"""docs/openapi.yaml says what template.yaml deploys and what the functions answer. Nothing more, nothing less."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from support.api_env import ApiEnv, Said, api_env
from support.builders import NOW, a_record, a_report
from support.stack import PROJECT, source

from notebook_ssh.adapters.clients import client
from notebook_ssh.controllers import access
from notebook_ssh.controllers.agent_layer import worker_program
from notebook_ssh.controllers.lookup import ROUTES
from notebook_ssh.errors import Problem
from notebook_ssh.model.record import Endpoint, NotebookState, PathReport, Phase, RejectedKey, Route
from notebook_ssh.model.spec import Mode, NotebookSpec, parse_spec
from notebook_ssh.model.status import Code
from notebook_ssh.reports.parse import MAX_BODY_BYTES
from notebook_ssh_client.lookup import CONNECTABLE, MODES, TRANSITIONAL

METHODS = {"get", "post", "put", "delete", "patch"}
DESCRIPTION: dict[str, Any] = yaml.safe_load((PROJECT / "docs" / "openapi.yaml").read_text("utf-8"))
OPERATIONS = {
    (method.upper(), path): operation
    for path, item in DESCRIPTION["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        yield env


def test_the_template_deploys_what_is_described() -> None:
    deployed = {
        (event["Properties"]["Method"], event["Properties"]["Path"])
        for resource in source()["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "Api"
    }
    assert deployed == set(OPERATIONS)


def test_the_lookup_answers_what_is_described() -> None:
    assert set(ROUTES) | set(access.ROUTES) == {operation for operation in OPERATIONS if operation[0] == "GET"}
    assert not set(ROUTES) & set(access.ROUTES)


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)


def test_the_words_are_the_same() -> None:
    schemas = DESCRIPTION["components"]["schemas"]
    assert set(schemas["Code"]["enum"]) == set(Code)
    assert set(schemas["Mode"]["enum"]) == set(Mode)
    assert set(schemas["Phase"]["enum"]) == set(Phase)
    documented = set(
        re.findall(r"^\| `([a-z-]+)` \|", (PROJECT / "docs" / "statuses.md").read_text("utf-8"), re.MULTILINE)
    )
    assert set(Code) <= documented
    assert set(Code) >= CONNECTABLE | TRANSITIONAL


def test_every_mode_is_known_to_agent_and_client_and_documented() -> None:
    assert set(Mode) == MODES
    worker = worker_program(PROJECT / "layers" / "notebook_agent")
    assert set(re.findall(r'^    "(\w+)": Mode\(', worker, re.MULTILINE)) == set(Mode)
    mistyped = parse_spec({"ssh": "ngrock"}, "ssh").problem
    tags = (PROJECT / "docs" / "tags.md").read_text("utf-8")
    for mode in Mode:
        assert mistyped
        assert re.search(rf"\b{mode}\b", mistyped.message), mode
        assert re.search(rf"^\| `ssh` \|.*`{mode}`", tags, re.MULTILINE), mode


def test_every_route_is_documented() -> None:
    rows = re.findall(r"^\| (`.+?) \|", (PROJECT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    told = {tuple(route.split()) for row in rows for route in re.findall(r"`([A-Z]+ \S+)`", row)}
    assert told == set(OPERATIONS)


def test_every_problem_code_is_documented() -> None:
    pages = ("statuses.md", "api.md")  # a status, or an error of the API alone
    documented = {
        code for page in pages for code in re.findall(r"`([a-z-]+)`", (PROJECT / "docs" / page).read_text("utf-8"))
    }
    given = set(problem_codes("layers/core/notebook_ssh", "functions"))
    worker = worker_program(PROJECT / "layers" / "notebook_agent")
    given |= set(re.findall(r'"((?:ngrok|api|sshd)-[a-z-]+)"', worker))
    assert {"config-too-large", "ngrok-card-required", "sshd-down"} <= given
    assert given <= documented


def problem_codes(*folders: str) -> Iterator[str]:
    """The first argument of each `Problem(…)` in the sources, where it is written out."""
    for folder in folders:
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id="Problem"), args=[ast.Constant(value=str(code)), *_]):
                        yield code


MAY = NotebookSpec(modes=(Mode.NGROK,), wake=True)
FULL = a_report(
    rejected=(RejectedKey(2, "cut"),),
    sessions=1,
    active_at=NOW - 3,
    problem=Problem("ngrok-x", "limit"),
    phase=Phase.FAILED,
)
BY_ENDPOINT = Route(open=True, private_ip="10.0.1.5", endpoint=Endpoint("eice-0123", "eice-0123.example.com"))
RECORDS = {
    "connected": a_record(report=a_report()),
    "not heard of": a_record(),
    "nothing known": a_record(state_since=0, started_at=None, lifecycle_config=None, block_since=None),
    "failed": a_record(report=FULL, spec=replace(MAY, until=NOW + 9, users=("mario",))),
    "asleep": a_record(spec=MAY, state=NotebookState.STOPPED, started_at=None),
    "behind the bastion": a_record(
        spec=NotebookSpec(modes=(Mode.BASTION,)),
        routes={Mode.BASTION: Route(open=True, private_ip="10.0.1.5")},
        report=a_report(modes=(Mode.BASTION,), host=None, port=None),
    ),
    "through an endpoint": a_record(
        spec=NotebookSpec(modes=(Mode.EICE,)), routes={Mode.EICE: BY_ENDPOINT}, report=a_report(modes=(Mode.EICE,))
    ),
    "by three paths, of which one failed": a_record(
        spec=NotebookSpec(modes=tuple(Mode)),
        routes={Mode.EICE: BY_ENDPOINT},
        report=a_report(
            modes=tuple(Mode),
            paths=tuple(
                PathReport(mode, phase, Problem("ngrok-failed", "x") if phase is Phase.FAILED else None)
                for mode, phase in zip(Mode, (Phase.FAILED, Phase.CONNECTING, Phase.CONNECTED), strict=True)
            ),
            paths_since=(NOW,) * 3,
        ),
    ),
    "off": a_record(spec=NotebookSpec()),
    "tag misspelt": a_record(spec=NotebookSpec(problem=Problem("invalid-tag", "x"))),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_every_answer_is_as_described(env: ApiEnv, record: Any) -> None:
    env.knows(record)
    for route in (path for method, path in ROUTES if method == "GET"):
        for name in ("demo", "unknown", "a_b"):
            assert_as_described(("GET", route), env.get(route, name))
    doctor = "/notebooks/{name}/doctor"
    assert_as_described(("GET", doctor), env.get(doctor, headers={"Accept": "application/json"}))
    report, start = ("POST", "/notebooks/{name}/report"), ("POST", "/notebooks/{name}/start")
    for body in (
        {"sequence": 6},
        {"sequence": 6, "host": None, "port": None, "phase": "connecting"},
        {"sequence": 0},
        "{",
    ):
        assert_as_described(report, env.report(body))
    assert_as_described(report, env.report("x" * (MAX_BODY_BYTES + 1)))
    assert_as_described(report, env.report(name="unknown"))
    env.patch.setattr(client("sagemaker"), "start_notebook_instance", lambda **given: {})
    for name in ("demo", "unknown", "a_b"):
        assert_as_described(start, env.start(name))


def assert_as_described(operation: tuple[str, str], said: Said) -> None:
    described = resolved(OPERATIONS[operation]["responses"][str(said.status)])
    content_type = said.headers["Content-Type"].partition(";")[0]
    assert content_type in described["content"], (operation, said)
    if content_type == "application/json":
        schema = in_json_schema(described["content"][content_type]["schema"])
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(said.json)


def resolved(part: dict[str, Any]) -> Any:
    found: Any = part
    while "$ref" in found:
        place: Any = DESCRIPTION
        for name in found["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        found = place
    return found


def in_json_schema(part: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema has it: without references, and null as a type of its own."""
    if isinstance(part, list):
        return [in_json_schema(each) for each in part]
    if not isinstance(part, dict):
        return part
    part = resolved(part)
    schema = {name: in_json_schema(value) for name, value in part.items() if name != "nullable"}
    return {"anyOf": [schema, {"type": "null"}]} if part.get("nullable") is True else schema
