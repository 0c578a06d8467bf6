"""What makes the environments and installs programs: where that cannot be, one sentence says why, and nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.stack import PROJECT

NO_SPACE = "OSError: [Errno 28] No space left on device: '/somewhere/large.py'"
PYTHON = """\
#!/bin/sh
# A Python of which some part does not work: it says what $SAYS holds.
case "$*" in
*ensurepip*) exit 0 ;;
*version_info\\ \\<*) exit 0 ;;
*print*) echo a Python ;;
"-m venv "*)
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
    [ "$BROKEN" != venv ] || { echo "$SAYS"; exit 1; } ;;
*" $BROKEN"*) [ -z "$SAYS" ] || echo "$SAYS" >&2; exit 1 ;;
esac
"""
BROKEN = {
    "nothing": ("none", "", 0, ""),
    "no space, for Python": ("venv", f"Traceback (most recent call last):\n{NO_SPACE}", 1,
        "could not make .venv/x: there is no space left on the disk"),
    "no space, for packages": ("install", "WARNING: what of it\nERROR: Could not install packages due to an " + NO_SPACE, 1,
        "could not install requirements/x.txt: there is no space left on the disk"),
    "no network": ("install", "WARNING: Retrying\nERROR: No matching distribution found for six==1.17.0", 1,
        "could not install requirements/x.txt: ERROR: No matching distribution found for six==1.17.0"),
    "a pip that is killed": ("install", "", 1,
        "could not install requirements/x.txt: it ended with status 1, and said nothing"),
    "an incomplete file": ("check", "six 1.17.0 requires seven, which is not installed.", 1,
        "requirements/x.txt is not complete; make it again from requirements/x.in: six 1.17.0 requires seven"),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose only environment, `x`, has one package; and a Python."""
    for name in ("packaging", "requirements"):
        (tmp_path / name).mkdir()
    for name in ("environments.sh", "tools.sh"):
        shutil.copy(PROJECT / "packaging" / name, tmp_path / "packaging")
    (tmp_path / "requirements/x.txt").write_text("six==1.17.0 --hash=sha256:00\n")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(project: Path, **environment: str) -> tuple[int, list[str]]:
    """The exit status, and the lines that are said."""
    done = subprocess.run(
        [project / "packaging/environments.sh", "x"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHON": str(project / "python"),
            "BROKEN": "none",
            "SAYS": "",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("what", BROKEN)
def test_an_environment_that_cannot_be_made_is_not_left_behind(project: Path, what: str) -> None:
    broken, says, status, sentence = BROKEN[what]
    ended, (first, *more) = make(project, BROKEN=broken, SAYS=says)
    assert first == "environments: making .venv/x (1 packages) ..."
    assert ended == status
    assert len(more) == (1 if sentence else 0), more
    assert all(line.startswith(f"environments: {sentence}") for line in more), more
    assert (project / ".venv/x").exists() == (status == 0)
    assert make(project) == (0, [] if status == 0 else [first]), "afterwards it can be made"


def test_a_folder_that_cannot_be_written_is_named(project: Path) -> None:
    (project / ".venv").write_text("in the way, as for root too")
    status, lines = make(project)
    assert status == 1
    assert lines == [
        f"environments: cannot write into this folder, {project}; clone the project into a folder of your own"
    ]


WITHOUT = {"no apt": (0, False), "no root": (1000, True), "neither": (1000, False)}


@pytest.mark.parametrize("what", WITHOUT)
def test_where_nothing_can_be_installed_it_is_said_what_to_install(tmp_path: Path, what: str) -> None:
    user, apt = WITHOUT[what]
    for name, says in {"id": user, **({"apt-get": "not me"} if apt else {})}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["bash", PROJECT / "packaging/tools.sh", "bash", "sshd-of-tomorrow", "ip-of-tomorrow"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    wanted = "sshd-of-tomorrow ip-of-tomorrow"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tools: please install {wanted} (on Debian and Ubuntu: sudo apt-get install {wanted})\n", (
        done.stderr
    )
