"""Adds the documentation, which has its place with the project's other documents, to what is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
    """What hatchling calls before a build; in an sdist the page is in its place already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the page into the package."""
        page = Path(self.root).parent / "docs" / "connect.md"
        if page.is_file():
            build_data["force_include"][str(page)] = "notebook_ssh_client/connect.md"
