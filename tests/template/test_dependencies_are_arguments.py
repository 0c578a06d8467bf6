"""Tests give the functions what they depend on as arguments, and replace attributes of deployed modules only as listed here."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from support.stack import PROJECT

PACKAGES = {path.parent.name for path in (PROJECT / "functions").glob("*/handler.py")} | {
    "notebook_ssh",
    "notebook_ssh_client",
}
PROGRAMS = {"agent", "worker"}
"""The notebook's programs, which tests load under these names: no package holds them."""

REPLACED = {
    # One client for each service for the life of a process, as Lambda recommends; `packaging/calls.py` reads their calls.
    "notebook_ssh.adapters.clients._client": 1,
    # Read from the environment at import, as Powertools does.
    "notebook_ssh.adapters.metrics.metrics.service": 2,
    # A run of some hours has too few mails to come to the real limit.
    "notebook_ssh.controllers.mails.STACK_LIMIT": 1,
    # No real block needs so much room as to fill the budget.
    "notebook_ssh.model.block_program.pack": 1,
}
"""Each attribute that tests replace, with the reason, and in how many places."""

CEILING = {
    # Paths and limits of a machine are constants there: one process serves one notebook.
    "agent": 8,
    "worker": 44,
    # One process serves one command; ssh's files and the terminal are the user's own.
    "notebook_ssh_client": 18,
}
"""The most places in which attributes of a program that runs elsewhere are replaced."""


def replaced_in(tree: ast.Module) -> Iterator[str]:
    """Yield each attribute of a deployed module that a test replaces by `setattr`, `patch` or `patch.object`."""
    modules = dict(_imported(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="setattr" | "object" | "patch") | ast.Name(id="patch"), args=[target, *rest]
            ):
                name = _name_of(target, modules)
                if name.partition(".")[0] in PACKAGES | PROGRAMS:
                    yield name if isinstance(target, ast.Constant) else f"{name}.{_literal(rest)}"


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)


def _literal(arguments: list[ast.expr]) -> str:
    """Return the first argument where it is a literal, and else a star."""
    match arguments:
        case [ast.Constant(value=str(text)), *_]:
            return text
    return "*"


def _name_of(target: ast.expr, modules: dict[str, str]) -> str:
    match target:
        case ast.Constant(value=str(name)):
            return name
        case ast.Name(id=name):
            return modules.get(name, name if name in PROGRAMS else "")
        case ast.Attribute(value=value, attr=attribute):
            inner = _name_of(value, modules)
            return f"{inner}.{attribute}" if inner else ""
    return ""


def test_only_what_has_a_reason_is_replaced() -> None:
    found: Counter[str] = Counter()
    for path in (*(PROJECT / "tests").rglob("*.py"), *(PROJECT / "bench").rglob("*.py")):
        found.update(replaced_in(ast.parse(path.read_text("utf-8"))))
    elsewhere: Counter[str] = Counter()
    for name in [name for name in found if name.partition(".")[0] in CEILING]:
        elsewhere[name.partition(".")[0]] += found.pop(name)
    assert found == REPLACED
    assert elsewhere <= Counter(CEILING), "give it what it needs as an argument"


def test_a_replaced_attribute_is_found_however_it_is_written() -> None:
    assert sorted(
        replaced_in(
            ast.parse(
                "from notebook_ssh.adapters import sqs, sagemaker as adapter\n"
                "from sweep import handler\n"
                "import notebook_ssh.settings\n"
                "monkeypatch.setattr(sqs, 'send', print)\n"
                "env.patch.setattr(adapter, name, print)\n"
                "with mock.patch.object(handler, 'time', clock), patch('notebook_ssh.errors.Problem'):\n"
                "    monkeypatch.setattr('notebook_ssh.adapters.ec2.apply', print)\n"
                "monkeypatch.setattr(notebook_ssh.settings, 'os', None)\n"
                "monkeypatch.setattr(worker, 'time', clock)\n"
                "monkeypatch.setattr(os, 'getuid', print)\n"
                "monkeypatch.setattr(client('sqs'), 'send_message', print)\n"
            )
        )
    ) == [
        "notebook_ssh.adapters.ec2.apply",
        "notebook_ssh.adapters.sagemaker.*",
        "notebook_ssh.adapters.sqs.send",
        "notebook_ssh.errors.Problem",
        "notebook_ssh.settings.os",
        "sweep.handler.time",
        "worker.time",
    ]
