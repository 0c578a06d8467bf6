"""Finds every AWS operation that the deployed code calls, by reading it.

All calls go through `notebook_ssh.adapters.clients.client("<service>")` (docs/architecture.md), so they can be read off the
source: the build packs the models of these operations and no others, and the tests compare them with what IAM grants.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ROOTS = (PROJECT / "functions", PROJECT / "layers" / "core")
"""Where deployed code stands. Modules are named from here."""

NOT_OPERATIONS = {"get_paginator", "get_waiter", "meta", "exceptions", "can_paginate", "close"}
"""What a client has besides its operations (botocore/client.py)."""

Call = tuple[str, str]
"""A service as botocore names it, and the client's method: ("dynamodb", "get_item")."""


def all_calls() -> set[Call]:
    """The calls of everything that is deployed."""
    return {call for root in ROOTS for path in root.rglob("*.py") for call in calls_in(path)}


def calls_from(handler: Path) -> set[Call]:
    """The calls in `handler` and in every module of ours that it imports, itself or through others."""
    return {call for path in _reachable(handler) for call in calls_in(path)}


def module_file(module: str) -> Path | None:
    """The file of our module `module`, or None when it is not ours."""
    for root in ROOTS:
        path = root / module.replace(".", "/")
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@cache
def calls_in(path: Path) -> frozenset[Call]:
    """The calls that stand in one module."""
    found: set[Call] = set()
    for scope in ast.walk(_tree(path)):
        if isinstance(scope, ast.Module | ast.FunctionDef):
            found.update(_calls_in_scope(scope))
    return frozenset(found)


def _calls_in_scope(scope: ast.Module | ast.FunctionDef) -> Iterator[Call]:
    held = {
        target.id: service
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and (service := _service(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def service_of(node: ast.expr) -> str | None:
        return held.get(node.id) if isinstance(node, ast.Name) else _service(node)

    for node in ast.walk(scope):
        match node:
            case ast.Call(
                func=ast.Attribute(value=value, attr="get_paginator" | "get_waiter"),
                args=[ast.Constant(value=str(method))],
            ) if service := service_of(value):
                yield service, method
            case ast.Attribute(value=value, attr=method) if method not in NOT_OPERATIONS and (
                service := service_of(value)
            ):
                yield service, method


def _service(node: ast.expr) -> str | None:
    """The service of the expression `client("<service>")`."""
    match node:
        case ast.Call(func=ast.Name(id="client"), args=[ast.Constant(value=str(service))]):
            return service
    return None


def _reachable(path: Path) -> set[Path]:
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting.extend(_imported(here))
    return seen


def _imported(path: Path) -> Iterator[Path]:
    for node in ast.walk(_tree(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from filter(None, map(module_file, names))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))
