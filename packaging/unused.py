"""Empties the parts of packed libraries that every start loads and no function runs (docs/decisions/0006).

These are botocore's writer of documentation, with an HTML parser behind it, and urllib3's HTTP/2, which would need a
package that is not packed. Nothing else may name what goes away: the build fails when a new version does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_NO_DOCSTRINGS = '''"""Emptied by the build: nobody reads help in a function."""


class _NoDocstring(str):
    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)


ClientMethodDocstring = PaginatorDocstring = WaiterDocstring = _NoDocstring
'''


@dataclass(frozen=True, slots=True)
class Part:
    """A package within a library.

    package: its name, with dots. kept: its modules that stay as they are. written: what its other files are replaced
    with, by file name. named: what the rest of the libraries imports from it, in whole names.
    """

    package: str
    kept: tuple[str, ...]
    written: Mapping[str, str]
    named: frozenset[str]


UNUSED = (
    Part(
        "botocore.docs",
        kept=("utils",),  # event handlers, which botocore.handlers registers
        written={"__init__.py": "", "docstring.py": _NO_DOCSTRINGS},
        named=frozenset(
            f"botocore.docs.{name}"
            for name in (
                "docstring.ClientMethodDocstring",
                "docstring.PaginatorDocstring",
                "docstring.WaiterDocstring",
                "utils.AppendParamDocumentation",
                "utils.AutoPopulatedParam",
                "utils.DocumentModifiedShape",
                "utils.HideParamFromOperations",
            )
        ),
    ),
    Part(
        "urllib3.http2",
        kept=("probe",),  # a table of which hosts speak it, which urllib3.connection keeps
        written={"__init__.py": ""},
        named=frozenset({"urllib3.http2.probe"}),
    ),
)


class StillNamed(Exception):
    """Something imports more of an unused part than is known here; the text says what and where."""


def empty(site: Path) -> None:
    """Take the unused parts out of the packages in `site`. Raises StillNamed before anything is changed."""
    for part in UNUSED:
        _check(site, part)
    for part in UNUSED:
        folder = site / part.package.replace(".", "/")
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            elif path.parent != folder or path.stem not in part.kept:
                path.unlink()
        for name, text in part.written.items():
            (folder / name).write_text(text, encoding="utf-8")


def _check(site: Path, part: Part) -> None:
    folder = site / part.package.replace(".", "/")
    stays = {folder / f"{name}.py" for name in part.kept}
    if not all(path.is_file() for path in stays):
        raise StillNamed(f"{part.package} has no {' or '.join(part.kept)}: see packaging/unused.py")
    for path in site.rglob("*.py"):
        if path.is_relative_to(folder) and path not in stays:
            continue
        text = path.read_text(encoding="utf-8")
        if part.package.rpartition(".")[2] not in text:
            continue
        module = path.relative_to(site).with_suffix("").parts
        found = {name for name in _imported(ast.parse(text), module) if f"{name}.".startswith(f"{part.package}.")}
        if more := found - part.named:
            raise StillNamed(f"{'.'.join(module)} imports {', '.join(sorted(more))}: see packaging/unused.py")


def _imported(tree: ast.Module, module: tuple[str, ...]) -> Iterator[str]:
    """The whole names of what `module` imports, wherever in it."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = [*module[: len(module) - level]] if level else []
                yield from (".".join([*base, *([source] if source else []), alias.name]) for alias in names)
