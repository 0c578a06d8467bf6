"""What the measured programs stand on: the built artifact for a Python that is here, and the baselines' packages details it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import artifact

PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).resolve().parent / "programs"
SITE = Path(sys.prefix) / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"

BASELINE_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "urllib3", "dateutil", "aws_lambda_powertools")
BASELINE_MODULES = ("six.py", "typing_extensions.py")
"""What an ordinary function that uses boto3 and Powertools carries: whole, and compiled like the artifact."""

LIKE_LAMBDA = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # sets and dicts are then the same size in every run
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example",
    "AWS_SESSION_TOKEN": "example",
    "AWS_LAMBDA_FUNCTION_NAME": "team-ssh-Lookup",
    "AWS_EC2_METADATA_DISABLED": "true",
    "STACK_NAME": "team-ssh",
    "TABLE_NAME": "records",
    "API_URL": "https://abc.execute-api.us-east-1.amazonaws.com/v1",
    "NGROK_SECRET": "ngrok-token",
    "KEYS_PATH": "/team-ssh/authorized-keys",
    "NOTEBOOK_QUEUE": "https://sqs.us-east-1.amazonaws.com/123456789012/notebooks",
    "RULE_QUEUE": "https://sqs.us-east-1.amazonaws.com/123456789012/bastion.fifo",
    "STATUS_TAGS": "false",
    "POWERTOOLS_SERVICE_NAME": "team-ssh",
    "POWERTOOLS_LOG_LEVEL": "WARNING",
}
"""The environment of a function, as Lambda and the template make it."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """python: the interpreter that is measured. ours, baseline: what it imports from. exact: it is the runtime's version."""

    python: str
    version: str
    build: Path
    baseline: Path
    exact: bool

    def ours(self, program: str, *words: str) -> list[str]:
        """The command that runs `program` with nothing but the artifact and the standard library."""
        return self._command(program, [self.build / "core" / "python", self.build / "functions"], words)

    def baselines(self, program: str, *words: str) -> list[str]:
        """The command that runs `program` with boto3 and Powertools as they come."""
        return self._command(program, [self.baseline], words)

    def environment(self, **more: str) -> dict[str, str]:
        """A function's environment, and `more`. `BENCH_SLOWED` is passed on, which slows every answer down."""
        slowed = {name: value for name, value in os.environ.items() if name == "BENCH_SLOWED"}
        return LIKE_LAMBDA | slowed | {"NOTEBOOK_AGENT": str(self.build / "notebook_agent" / "notebook_agent")} | more

    def _command(self, program: str, paths: list[Path], words: tuple[str, ...]) -> list[str]:
        importable = [*map(str, paths), str(self.build / "programs")]
        start = f"import sys; sys.path[:0] = {importable!r}; import {program}; {program}.main(*sys.argv[1:])"
        return [self.python, "-I", "-S", "-c", start, *words]  # -I -S: nothing of the user who runs this is importable


@contextmanager
def prepared(folder: Path) -> Iterator[Artifacts]:
    """Build everything into `folder`, compiled by the Python that will run it."""
    python = os.environ.get("TARGET_PYTHON") or shutil.which(f"python{artifact.RUNTIME}") or sys.executable
    if not _version(python):
        python = sys.executable
    # The interpreter itself: what stands on PATH may be a script that chooses one, and would be measured with it.
    python = _told(python, "sys.executable")
    os.environ["TARGET_PYTHON"] = python
    for part in ("core", "functions", "notebook_agent"):
        artifact.build(part, folder / part)
    shutil.copytree(PROGRAMS, folder / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    baseline = folder / "baseline"
    baseline.mkdir()
    for package in BASELINE_PACKAGES:
        shutil.copytree(SITE / package, baseline / package, ignore=shutil.ignore_patterns("__pycache__"))
    for module in BASELINE_MODULES:
        shutil.copy(SITE / module, baseline)
    for folder_of_sources in (baseline, folder / "programs"):
        command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(folder_of_sources)]
        subprocess.run(command, check=True, capture_output=True)
    version = _version(python)
    yield Artifacts(python, version, folder, baseline, exact=version.startswith(f"{artifact.RUNTIME}."))


def _version(python: str) -> str:
    """The version of an interpreter; empty when it does not run."""
    return _told(python, "sys.version.split()[0]")


def _told(python: str, what: str) -> str:
    try:
        done = subprocess.run([python, "-c", f"import sys; print({what})"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
