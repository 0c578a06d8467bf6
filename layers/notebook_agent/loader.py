"""The frame of the worker's program: one file, worker.py, that holds the sources of the package worker/.

The stack fills in SOURCES (model/worker_program.py). A file of text needs nothing of the block but its checksum, and all
of it is in memory before the first import: a program that is replaced under a running process breaks nothing there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

SOURCES: dict[str, str] = {}


class SourceImporter:
    """Imports the modules of SOURCES (importlib.abc.MetaPathFinder and Loader)."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import `name`, or None if it is another module."""
        return ModuleSpec(name, self, is_package=name == "worker") if name in SOURCES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's source."""
        name = module.__name__
        exec(compile(SOURCES[name], name.replace(".", "/") + ".py", "exec"), module.__dict__)  # noqa: S102


# agent.py is in this folder; so is this program, which the importer hides.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.meta_path.insert(0, SourceImporter())

from worker.__main__ import main

sys.exit(main(*sys.argv[1:]))
