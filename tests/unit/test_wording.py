"""Words that users read everywhere: the stack's tag key is a parameter, so no sentence takes it for `ssh`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.stack import PROJECT

SENTENCE = re.compile(r"\bssh(-[a-z-]+)?=(ngrok|bastion|eice|off|now|yes)\b")
FOLDERS = ("layers", "functions", "client/notebook_ssh_client")


def texts(path: Path) -> Iterator[str]:
    """Every text of a module that is not a docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_no_sentence_says_ssh_where_the_tag_key_is_meant() -> None:
    found = {
        f"{path.relative_to(PROJECT)}: {text[:80]}"
        for folder in FOLDERS
        for path in (PROJECT / folder).rglob("*.py")
        for text in texts(path)
        if SENTENCE.search(text)
    }
    assert found == set()
