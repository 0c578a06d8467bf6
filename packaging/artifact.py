"""Builds what is deployed: the functions' code and the two layers, the same bytes every time.

    python3 packaging/artifact.py functions|core|notebook_agent DIRECTORY

`sam build` calls it through the Makefiles beside the code; the local run calls it directly. It needs Python 3.11
or newer with pip, no Docker, and no particular machine: wheels are fetched for the Lambda runtime's own platform.

Environment:
    TARGET_PYTHON       an interpreter of the runtime's version, to compile bytecode with. When it is not set,
                        `python3.13` from PATH; when there is none, the artifact has no bytecode and says so.
    SOURCE_DATE_EPOCH   the files' modification time (reproducible-builds.org); 1980-01-01 when not set.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calls import all_calls

PROJECT = Path(__file__).resolve().parent.parent
REQUIREMENTS = PROJECT / "requirements" / "functions.txt"
CACHE = PROJECT / ".build" / "dependencies"

RUNTIME = "3.13"
"""The Python of the Lambda runtime in template.yaml."""

PLATFORM = "manylinux2014_aarch64"

OF_EVERY_SERVICE = ("_retry.json", "endpoints.json", "partitions.json", "sdk-default-configuration.json")
"""botocore's data that every client reads (botocore/loaders.py, botocore/session.py)."""

EARLIEST = 315532800
"""1980-01-01T00:00:00Z: the earliest time that a zip can hold."""


class BuildError(Exception):
    """The artifact cannot be built; the sentence says what to do."""


def build(part: str, target: Path) -> None:
    """Put the part `functions`, `core` or `notebook_agent` into `target`, a new or empty directory."""
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise BuildError(f"{target} is not empty; name a new directory")
    match part:
        case "functions":
            _copy(PROJECT / "functions", target)
            _compile(target, shown_as="/var/task")
        case "core":
            python = target / "python"
            _copy(_dependencies(), python)
            _copy(PROJECT / "layers" / "core", python)
            _compile(target, shown_as="/opt")
        case "notebook_agent":
            _copy(PROJECT / "layers" / "notebook_agent", target / "notebook_agent")
        case _:
            raise BuildError(f"there is no part {part!r}; there are functions, core and notebook_agent")
    _settle_times(target)


def _copy(source: Path, target: Path) -> None:
    skip = shutil.ignore_patterns("Makefile", "__pycache__", "*.pyc", "*.egg-info", ".*_cache", ".DS_Store")
    shutil.copytree(source, target, ignore=skip, dirs_exist_ok=True)


def _dependencies() -> Path:
    """The pinned dependencies for the runtime, pruned; fetched once for each state of what goes into them."""
    used: dict[str, set[str]] = {}
    for service, method in all_calls():
        used.setdefault(service, set()).add(method)
    called = json.dumps({service: sorted(used[service]) for service in sorted(used)}).encode()
    recipe = REQUIREMENTS.read_bytes() + Path(__file__).read_bytes() + called
    ready = CACHE / hashlib.sha256(recipe).hexdigest()[:16]
    if not ready.is_dir():
        fresh = CACHE / f"unfinished-{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        _install(fresh)
        _prune(fresh, used)
        try:
            fresh.rename(ready)
        except OSError:  # another build made the same at the same time
            shutil.rmtree(fresh)
    return ready


def _install(target: Path) -> None:
    """Unpack the pinned wheels. Hashes are checked, nothing is built from source, and nothing of it is run."""
    command = [_python_with_pip(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
    command += ["--implementation", "cp", "--python-version", RUNTIME, "--platform", PLATFORM]
    command += ["--root-user-action", "ignore", "--requirement", str(REQUIREMENTS), "--target", str(target)]
    if subprocess.run(command, check=False).returncode:
        raise BuildError(f"pip could not install {REQUIREMENTS.name}; its own message is above")


def _python_with_pip() -> str:
    """This interpreter, or one of the project's environments: Debian's own python3 comes without pip."""
    for candidate in (Path(sys.executable), *sorted(PROJECT.glob(".venv/*/bin/python"))):
        found = subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True, check=False)
        if found.returncode == 0:
            return str(candidate)
    raise BuildError(f"{sys.executable} has no pip; run `make environments` once, or install python3-pip")


def _prune(site: Path, used: Mapping[str, set[str]]) -> None:
    """Leave out data that no function reads: models of what is not called, resources, scripts, and pip's own notes.

    Code stays as it is in the wheels, and what is left of the data says what the wheels say.
    """
    data = site / "botocore" / "data"
    for entry in data.iterdir():
        if entry.is_dir() and entry.name not in used:
            shutil.rmtree(entry)
        elif entry.is_file() and entry.name not in OF_EVERY_SERVICE:
            entry.unlink()
    missing = [name for name in (*used, *OF_EVERY_SERVICE) if not (data / name).exists()]
    if missing:
        raise BuildError(f"botocore has no data for {', '.join(sorted(missing))}")
    prefixes = {_trim_service(data / service, used[service]) for service in used}
    _trim_endpoints(data / "endpoints.json", prefixes)
    for folder in ("boto3/data", "boto3/examples", "bin"):
        shutil.rmtree(site / folder, ignore_errors=True)
    for note in [*site.glob("*.dist-info/RECORD"), *site.glob("*.dist-info/INSTALLER")]:
        note.unlink()


def _trim_service(folder: Path, methods: set[str]) -> str:
    """Keep the newest version of a service, of its model the operations called, and no documentation.

    Answers the name under which endpoints.json files the service. Less to parse is most of what a client costs at a
    cold start: almost half of it for EC2 (docs/decisions/0001).
    """
    *older, newest = sorted(version for version in folder.iterdir() if version.is_dir())
    for version in older:
        shutil.rmtree(version)
    for examples in newest.glob("examples-1.json*"):
        examples.unlink()
    packed = newest / "service-2.json.gz"
    model = json.loads(gzip.decompress(packed.read_bytes()))
    # The client's method is the operation's name with underscores (botocore.xform_name).
    wanted = {method.replace("_", "") for method in methods}
    operations = {name: value for name, value in model["operations"].items() if name.lower() in wanted}
    if len(operations) != len(wanted):
        unknown = wanted - {name.lower() for name in operations}
        raise BuildError(f"{folder.name} has no operation {', '.join(sorted(unknown))}")
    shapes: dict[str, Any] = {}
    waiting = list(_shapes_named(operations))
    while waiting:
        name = waiting.pop()
        if name not in shapes:
            shapes[name] = model["shapes"][name]
            waiting.extend(_shapes_named(shapes[name]))
    slim = _without_documentation({**model, "operations": operations, "shapes": shapes})
    packed.unlink()
    (newest / "service-2.json").write_text(json.dumps(slim, separators=(",", ":"), sort_keys=True), encoding="utf-8")
    return str(model["metadata"]["endpointPrefix"])


def _shapes_named(value: Any) -> Iterator[str]:
    match value:
        case {"shape": str(name)}:
            yield name
        case dict():
            for part in value.values():
                yield from _shapes_named(part)
        case list():
            for part in value:
                yield from _shapes_named(part)


def _without_documentation(value: Any) -> Any:
    match value:
        case dict():
            return {
                name: _without_documentation(part)
                for name, part in value.items()
                if not (name == "documentation" and isinstance(part, str))
            }
        case list():
            return [_without_documentation(part) for part in value]
    return value


def _trim_endpoints(path: Path, prefixes: set[str]) -> None:
    """Keep the endpoints of the services used: the whole file is read whenever a client is made."""
    endpoints = json.loads(path.read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: value for name, value in partition["services"].items() if name in prefixes}
    path.write_text(json.dumps(endpoints, separators=(",", ":"), sort_keys=True), encoding="utf-8")


def _compile(target: Path, *, shown_as: str) -> None:
    """Put bytecode beside every module, made by the runtime's Python and never checked against the source.

    Lambda's code folder is read-only, so without it every cold start compiles everything; and a zip's times are
    too coarse for the usual check (PEP 552). `shown_as` is where the code will be, for tracebacks.
    """
    python = os.environ.get("TARGET_PYTHON") or shutil.which(f"python{RUNTIME}")
    if not python or not _runs(python):
        print(
            f"artifact: no python{RUNTIME} here, so no bytecode: it will run, with slower cold starts "
            f"(install python{RUNTIME} or set TARGET_PYTHON)",
            file=sys.stderr,
        )
        return
    command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(target), "-p", shown_as, str(target)]
    # The hash seed orders the members of constant sets, and thus the bytes.
    if subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "0"}, check=False).returncode:
        raise BuildError(f"{python} could not compile the modules named above")


def _runs(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _settle_times(target: Path) -> None:
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", EARLIEST))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (moment, moment))


def main() -> int:
    """The command line described at the top of this file."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        build(sys.argv[1], Path(sys.argv[2]).resolve())
    except BuildError as error:
        print(f"artifact: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
