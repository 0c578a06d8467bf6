"""Checks the client on any system that it runs on, as a person installs it there.

    python packaging/check_client.py

In an environment of its own, with the versions of requirements/client.txt: every module compiles, the tests that need
no POSIX programs pass, pip builds and installs the package, and the installed command answers, with its documentation.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CLIENT = PROJECT / "client"


def run(*command: str | Path) -> None:
    """Run `command` in the project's folder, shown first. Ends this program with its status when that is not 0."""
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    done = subprocess.run(words, cwd=PROJECT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """The command line described at the top of this file."""
    with tempfile.TemporaryDirectory(prefix="client ") as folder:
        venv.create(folder, with_pip=True)
        scripts = Path(sysconfig.get_path("scripts", "venv", vars={"base": folder}))
        python = scripts / Path(sys.executable).name
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps")
        run(python, "-m", "compileall", "-q", "-f", CLIENT)
        run(*pip, "--require-hashes", "--requirement", "requirements/client.txt")
        run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not posix", "tests/client")
        # Without isolation, so that it is built by the pinned hatchling.
        run(*pip, "--no-build-isolation", CLIENT)
        run(scripts / "notebook-ssh", "--version")
        run(scripts / "notebook-ssh", "--help")
        run(scripts / "notebook-ssh", "help", "windows")


if __name__ == "__main__":
    main()
