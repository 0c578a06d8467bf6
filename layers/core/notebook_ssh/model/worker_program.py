"""Join the package worker/ into one program: the text that the agent gets with the stack's reply (docs/notebook.md)."""

from __future__ import annotations

from collections.abc import Mapping

PLACE = "\nSOURCES: dict[str, str] = {}\n"
"""The line of the loader (layers/notebook_agent/loader.py) that the sources replace."""


def join_worker(loader: str, modules: Mapping[str, str]) -> str:
    """Return `loader` with the sources of `modules`, by file name: {"__init__.py": …, "keys.py": …}.

    The text depends on nothing else, so that its SHA-256, which is in the block, is the same for every build. Raises
    ValueError if the loader has no place for them, or a source cannot stand in a raw string of three apostrophes.
    """
    if loader.count(PLACE) != 1:
        raise ValueError(f"the loader has {loader.count(PLACE)} places for the worker's modules, instead of one")
    entries = "".join(_entry(name, modules[name]) for name in sorted(modules))
    return loader.replace(PLACE, "\nSOURCES: dict[str, str] = {\n" + entries + "}\n")


def _entry(name: str, source: str) -> str:
    if "'''" in source or "\r" in source or not source.endswith("\n"):
        raise ValueError(f"worker/{name} contains ''' or a carriage return, or does not end in a newline")
    module = "worker" if name == "__init__.py" else f"worker.{name.removesuffix('.py')}"
    return f"\"{module}\": r'''{source}''',\n"
