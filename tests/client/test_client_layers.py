"""The client's modules: each imports only what is below it, also within functions."""

from __future__ import annotations

import ast
from pathlib import Path

from support.laptop import CLIENT

PACKAGE = "notebook_ssh_client"


def imports_of(source: str) -> set[str]:
    """Return the modules of the client that `source` imports at run time, wherever in the file."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue  # read by type checkers only
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            found.add(str(node.module).partition(".")[2])
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, or none."""

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        return next((found for other in sorted(graph[name]) if (found := visit(other, [*path, name]))), [])

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def test_no_modules_import_each_other() -> None:
    modules = {path.stem: path.read_text("utf-8") for path in Path(CLIENT, PACKAGE).glob("*.py")}
    graph = {name: imports_of(text) & set(modules) for name, text in modules.items()}
    assert graph["proxy"], "the imports were not read"
    assert cycle(graph) == []


def test_the_command_that_verifies_a_key_imports_no_network() -> None:
    """ssh runs it up to three times for a connection; `socket` and `threading` would make it half as slow again."""
    started: set[str] = set()
    waiting = ["known_hosts"]
    while waiting:
        started.add(name := waiting.pop())
        tree = ast.parse(Path(CLIENT, PACKAGE, f"{name}.py").read_text("utf-8"))
        top_level: list[ast.stmt] = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        source = ast.unparse(ast.Module(top_level, []))
        assert not {"socket", "threading", "subprocess"} & set(source.split())
        waiting += imports_of(source) - started
    assert started == {"known_hosts", "address_cache", "files", "messages", "ssh_address", "errors"}


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
