"""The benchmark notices what it is for: a slow handler, a module too many, bytecode that is checked. Nothing is timed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.stack import PROJECT

from patience import LIMIT_S


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The suite's modules, importable while these tests run."""
    sys.path.insert(0, str(PROJECT / "bench"))
    yield {name: importlib.import_module(name) for name in ("targets", "artifacts", "measure", "aws_stand_in", "page")}
    sys.path.remove(str(PROJECT / "bench"))


@pytest.fixture(scope="module")
def artifacts(bench: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TARGET_PYTHON", sys.executable)
        with bench["artifacts"].prepared(tmp_path_factory.mktemp("bench")) as artifacts:
            yield artifacts


def test_a_lookup_loads_and_makes_no_more_than_it_needs(bench: dict[str, ModuleType], artifacts: object) -> None:
    figures = list(bench["targets"].contents(artifacts))
    assert [figure.what for figure in figures if not figure.met] == []
    assert {figure.what: figure.value for figure in figures}["lookup, clients made"] == 1


def test_bytecode_that_is_checked_is_noticed(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    for part in ("core", "functions"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "one.py").write_text("1\n")
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode"]
    subprocess.run([*command, "unchecked-hash", str(tmp_path / "core")], check=True)
    subprocess.run([*command, "checked-hash", str(tmp_path / "functions")], check=True)
    assert bench["targets"]._bytecode(tmp_path) == (2, 1)


COUNTING = """
import atexit, sys
lines = [0]
def trace(frame, event, argument):
    lines[0] += event == "line"
    return trace
atexit.register(lambda: print(lines[0], file=sys.stderr))
sys.settrace(trace)
"""


@pytest.mark.nightly(sibling="test_a_lookup_loads_and_makes_no_more_than_it_needs")
def test_a_slowed_handler_misses_its_bar(
    bench: dict[str, ModuleType], artifacts: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real programs, with lines of Python counted in the place of instructions: no clock, no valgrind."""

    def counted(command: list[str], environment: dict[str, str]) -> object:
        *python, program, function, turns = command
        if "one_request" not in program and "calls" not in program:
            return bench["measure"].Cost(1.0, "Mi")
        done = subprocess.run(
            [*python, COUNTING + program, function, turns],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        return bench["measure"].Cost(float(done.stderr.split()[-1]), "lines")

    monkeypatch.setattr(bench["measure"], "cost", counted)
    verdicts = []
    for slowed in ("0", "10000"):
        monkeypatch.setitem(bench["artifacts"].LIKE_LAMBDA, "BENCH_SLOWED", slowed)
        figures = {figure.what: figure for figure in bench["targets"].warm(artifacts)}
        verdicts.append(figures["lookup; against a GetItem"].met)
    assert verdicts == [True, False]


def test_an_authority_of_ones_own_is_trusted_where_it_is_named_and_nowhere_else(
    bench: dict[str, ModuleType], artifacts: Any
) -> None:
    """A network that inspects TLS; docs/decisions/0001-libraries-as-they-come.md states it."""
    certificate = bench["aws_stand_in"].self_signed(artifacts.build)
    command = artifacts.ours("calls", "lookup_api", "1")
    with bench["aws_stand_in"].standing_in(certificate=certificate) as (address, calls):
        bench["measure"].output(
            command, artifacts.environment(AWS_ENDPOINT_URL=address, AWS_CA_BUNDLE=str(certificate))
        )
        assert calls() == {"GetItem": 1}
        with pytest.raises(bench["measure"].ProgramFailedError, match="503"):
            bench["measure"].output(command, artifacts.environment(AWS_ENDPOINT_URL=address))
        assert calls() == {}
