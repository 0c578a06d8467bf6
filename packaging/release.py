"""Builds a release: dist/notebook-ssh-VERSION.zip, which deploys without a checkout, and its checksum beside it.

    .venv/release/bin/python packaging/release.py [DIRECTORY]
    python3 packaging/release.py --deployable DIRECTORY    # template and code alone, of the files as they are

It holds the template, the code as Lambda gets it (artifact.py), the client's wheel, a list of what is shipped
(CycloneDX), deploy.sh, and what verifies facts on an account (docs/verify.md). The same commit gives the same bytes, on whatever day and in whatever folder; a Python that
compiles the code differently gives others, so TARGET_PYTHON counts (artifact.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import artifact
import version
from archive import zipped
from artifact import EARLIEST, PROJECT, BuildError

CODE = ("functions", "core", "notebook_agent")
PROGRAMS = ("deploy.sh", "verify.sh")
TEXTS = PROJECT / "packaging" / "release"
"""What is written for those who have no checkout."""


def build(directory: Path) -> Path:
    """Build the release from the commit that is checked out; answers the zip. Raises BuildError and VersionError."""
    _check_clean()
    number = version.read()
    name = f"notebook-ssh-{number}"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, name)
        write_deployable(folder)
        _build_wheel(folder)
        (folder / "verify.pyz").write_bytes(verification(Path(made, "verify")))
        _list_components(folder / "sbom.cdx.json", number)
        for path in (PROJECT / "LICENSE", *(TEXTS / text for text in ("INSTALL.md", *PROGRAMS))):
            shutil.copyfile(path, folder / path.name)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.name in PROGRAMS else 0o644)
        (folder / "SHA256SUMS").write_text(_checksums(folder), encoding="utf-8")
        content = zipped(folder, prefix=f"{name}/")
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{name}.zip"
    target.write_bytes(content)
    target.with_suffix(".zip.sha256").write_text(f"{_sha256(content)}  {target.name}\n", encoding="utf-8")
    return target


def write_deployable(folder: Path) -> None:
    """Write the template and the archives of the code that it names into a folder, in place of what is there."""
    (folder / "code").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        for part in CODE:
            built = Path(made, part)
            artifact.build(part, built)
            (folder / "code" / f"{part}.zip").write_bytes(zipped(built))
    text = (PROJECT / "template.yaml").read_text("utf-8")
    (folder / "template.yaml").write_text(packaged(text), encoding="utf-8")


def verification(folder: Path) -> bytes:
    """The program that verifies facts, as a zip that Python runs. folder: a new one, to put it together in."""
    package = folder / "notebook_ssh_verify"
    shutil.copytree(PROJECT / "verify/notebook_ssh_verify", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(PROJECT / "docs/facts.md", package / "facts.md")
    shutil.copyfile(package / "__main__.py", folder / "__main__.py")
    return zipped(folder)


def packaged(template: str) -> str:
    """The template as `aws cloudformation package` takes it: archives for code, at each function, and nothing to build.

    SAM's Globals are no place for the code, since the AWS command line does not read them.
    """
    template, layers = re.subn(r"^(      ContentUri: )layers/(\w+)$", r"\1code/\2.zip", template, flags=re.MULTILINE)
    template, globals_ = re.subn(r"^    CodeUri: functions/\n", "", template, flags=re.MULTILINE)
    template, functions = re.subn(
        r"^(    Type: AWS::Serverless::Function\n(?:    Condition: \w+\n)?)(    Metadata: .*\n)(    Properties:\n)",
        r"\1\2\3      CodeUri: code/functions.zip\n",
        template,
        flags=re.MULTILINE,
    )
    template, built = re.subn(r"^    Metadata: \{BuildMethod: makefile, .*\}\n", "", template, flags=re.MULTILINE)
    if globals_ != 1 or built != layers + functions or "BuildMethod" in template:
        raise BuildError("template.yaml names code in a way that packaging/release.py does not know")
    return template


def _check_clean() -> None:
    """Nothing but what is committed goes into a release."""
    done = subprocess.run(["git", "status", "--porcelain"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"a release is built from a git checkout, and this is none: {done.stderr.strip()}")
    if done.stdout:
        raise BuildError(f"these files are not committed, so nobody could build the same:\n{done.stdout.rstrip()}")


def _build_wheel(folder: Path) -> None:
    """The client, built by the hatchling of this environment: nothing is fetched."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT / "client")]
    if subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": str(EARLIEST)}, check=False).returncode:
        raise BuildError("pip could not build the client's wheel; its own message is above")


def _list_components(file: Path, number: str) -> None:
    """What the layers carry that is not ours, with versions and hashes, as CycloneDX."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made, "pyproject.toml")
        root.write_text(f'[project]\nname = "notebook-ssh"\nversion = "{number}"\nlicense = "MIT"\n', encoding="utf-8")
        command = [str(Path(sys.executable).with_name("cyclonedx-py")), "requirements", str(artifact.REQUIREMENTS)]
        command += ["--pyproject", str(root), "--output-reproducible", "--output-format", "JSON"]
        command += ["--output-file", str(file)]
        # It warns that requirements do not say which package needs which.
        if subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}, check=False).returncode:
            raise BuildError("cyclonedx-py could not list what is shipped; its own message is above")


def _checksums(folder: Path) -> str:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return "".join(f"{_sha256((folder / name).read_bytes())}  {name}\n" for name in names)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(words: list[str]) -> int:
    """The command line described at the top of this file."""
    try:
        if words[:1] == ["--deployable"]:
            write_deployable(Path(words[1]))
            return 0
        target = build(Path(words[0]) if words else PROJECT / "dist")
    except (BuildError, version.VersionError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"{target.with_suffix('.zip.sha256').read_text().strip()} ({target.stat().st_size / 2**20:.1f} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
