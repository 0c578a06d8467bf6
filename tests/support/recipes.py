"""The recipes of docs/connect.md, for the tests that type them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = PROJECT / ".venv"
"""Folders of programs, made by packaging/environments.sh."""


@cache
def recipe(heading: str, language: str) -> list[str]:
    """Return the blocks of this language below a heading."""
    text = (PROJECT / "docs" / "connect.md").read_text("utf-8")
    section = text.split(f"### {heading}\n")[1].split("\n### ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
